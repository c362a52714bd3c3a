//! One direction: what the model decides, done to packets, and counted.

use std::time::Duration;

use arrayvec::ArrayVec;
use hdrhistogram::Histogram;
use shardgate_core::buffer::{Buffer, BufferPool};
use shardgate_core::time::Time;
use shardgate_dpdk::BURST;
use shardgate_sim::path::{
    Departure, DropCause, FrameShape, InvalidProfile, PathModel, PathProfile, Verdict,
};

use super::calendar::Calendar;
use super::queue::QueueSampler;
use super::report::{DirectionReport, Lateness};

/// How long a packet that is due may wait for room in the tx queue before it is dropped. A port
/// that takes nothing for so long is down, or slower than the path it should show.
const TX_PATIENCE: Duration = Duration::from_millis(10);

/// Lateness is recorded up to a minute, in 0.1 % steps.
const LATENESS_NS_MAX: u64 = 60_000_000_000;

/// A path with its packets.
#[derive(Debug)]
pub(super) struct Direction<B> {
    model: PathModel,
    calendar: Calendar<B>,
    /// Due packets that the tx queue has not taken yet, and of each its departure and arrival.
    burst: ArrayVec<B, BURST>,
    due: ArrayVec<(Time, u64), BURST>,
    arrivals: u64,
    newest_sent: u64,
    sent: u64,
    reordered: u64,
    no_buffer_drops: u64,
    tx_full_drops: u64,
    lateness_ns: Histogram<u64>,
    held_max: usize,
    /// Only if there is a bottleneck.
    queue: Option<QueueSampler>,
    /// Since when the tx queue has taken nothing.
    refused_since: Option<Time>,
}

impl<B: Buffer> Direction<B> {
    /// A path at rest that holds up to `limit` packets.
    ///
    /// # Errors
    ///
    /// If a parameter is out of range.
    pub fn new(profile: &PathProfile, seed: u64, limit: usize) -> Result<Self, InvalidProfile> {
        // The bounds are constants that the histogram accepts; a failure would show in the tests.
        let lateness_ns = Histogram::new_with_bounds(1, LATENESS_NS_MAX, 3)
            .or_else(|_| Histogram::new(3))
            .map_err(|_| InvalidProfile {
                key: "lateness",
                value: LATENESS_NS_MAX as f64,
                expected: "a histogram's bound".to_owned(),
            })?;
        let queue = profile.rate.and_then(|_| QueueSampler::new());
        Ok(Self {
            model: PathModel::new(profile, seed)?,
            calendar: Calendar::new(limit),
            burst: ArrayVec::new(),
            due: ArrayVec::new(),
            arrivals: 0,
            newest_sent: 0,
            sent: 0,
            reordered: 0,
            no_buffer_drops: 0,
            tx_full_drops: 0,
            lateness_ns,
            held_max: 0,
            queue,
            refused_since: None,
        })
    }

    /// Looks at the queue, if it is time; to be called before anything is taken in at `now`.
    pub fn sample(&mut self, now: Time) {
        if let Some(queue) = &mut self.queue {
            let model = &self.model;
            queue.sample(now, |at| (model.queued(at), model.queue_delay(at)));
        }
    }

    /// Takes in a packet that arrived at `now`; a duplicate is copied into a packet of `pool`.
    pub fn accept(&mut self, now: Time, frame: B, pool: &mut impl BufferPool<Buffer = B>) {
        self.arrivals += 1;
        match self.model.offer(now, FrameShape::of(frame.data())) {
            Verdict::Drop(DropCause::Mtu | DropCause::Queue | DropCause::Loss) => drop(frame),
            Verdict::Forward(departures) => {
                // Before the first copy's bits flip: the copies' errors are independent.
                if let Some(departure) = departures.duplicate {
                    match copy(&frame, pool) {
                        Some(twin) => self.hold(departure, twin),
                        None => self.no_buffer_drops += 1,
                    }
                }
                self.hold(departures.first, frame);
            }
        }
        self.held_max = self.held_max.max(self.calendar.len());
    }

    fn hold(&mut self, departure: Departure, mut frame: B) {
        if let Some(corruption) = departure.corruption {
            corruption.apply(frame.data_mut());
        }
        let entered = self.calendar.enter(departure.at, self.arrivals, frame);
        self.no_buffer_drops += u64::from(entered.is_err());
    }

    /// Packets to send now. Those not taken come again at the next call, until the queue has taken
    /// nothing for [`TX_PATIENCE`].
    pub fn due(&mut self, now: Time) -> &mut ArrayVec<B, BURST> {
        if self
            .refused_since
            .is_some_and(|since| now.since(since) > TX_PATIENCE)
        {
            self.tx_full_drops += self.burst.len() as u64;
            self.due.clear();
            self.burst.clear();
        }
        while !self.burst.is_full() {
            let Some(held) = self.calendar.take_due(now) else {
                break;
            };
            self.due.push((held.at, held.arrival));
            self.burst.push(held.frame);
        }
        &mut self.burst
    }

    /// The packets of the last [`Self::due`] that are still here.
    pub fn burst(&mut self) -> &mut ArrayVec<B, BURST> {
        &mut self.burst
    }

    /// The tx queue has taken the first `count` packets of the burst at `now`.
    pub fn sent(&mut self, now: Time, count: usize) {
        for (at, arrival) in self.due.drain(..count.min(self.due.len())) {
            self.sent += 1;
            self.reordered += u64::from(arrival < self.newest_sent);
            self.newest_sent = self.newest_sent.max(arrival);
            let late_ns = now.as_nanos().saturating_sub(at.as_nanos());
            self.lateness_ns.saturating_record(late_ns.max(1));
        }
        if count > 0 {
            self.refused_since = None;
        } else if !self.burst.is_empty() {
            self.refused_since.get_or_insert(now);
        }
    }

    /// When there is something to send next; a packet that waits for the tx queue is due already.
    pub fn next(&self) -> Option<Time> {
        self.due
            .first()
            .map(|&(at, _)| at)
            .or_else(|| self.calendar.next())
    }

    /// What has happened so far. The driver's own counts are zero in it.
    pub fn report(&self) -> DirectionReport {
        let model = self.model.counters();
        DirectionReport {
            received: model.offered,
            sent: self.sent,
            lost: model.lost,
            queue_drops: model.queue_drops,
            mtu_drops: model.mtu_drops,
            no_buffer_drops: self.no_buffer_drops,
            tx_full_drops: self.tx_full_drops,
            held_at_end: (self.calendar.len() + self.burst.len()) as u64,
            duplicated: model.duplicated,
            corrupted: model.corrupted,
            held_back: model.held_back,
            reordered: self.reordered,
            held_max: self.held_max as u64,
            rx_missed: 0,
            rx_no_mbuf: 0,
            tx_errors: 0,
            lateness_us: Lateness::of(&self.lateness_ns),
            queue: self.queue.as_ref().map(QueueSampler::report),
        }
    }
}

/// A copy of `frame` in a packet of its own, if there is one that holds it.
fn copy<B: Buffer>(frame: &B, pool: &mut impl BufferPool<Buffer = B>) -> Option<B> {
    let mut twin = pool.alloc()?;
    twin.append(frame.len())?.copy_from_slice(frame.data());
    Some(twin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shardgate_core::buffer::{HeapBuffer, HeapPool};

    /// Sends `count` numbered frames, a microsecond apart, and gives back what comes out.
    fn run(profile: &PathProfile, limit: usize, count: u32) -> (Vec<Vec<u8>>, DirectionReport) {
        let mut direction = Direction::new(profile, 7, limit).expect("a valid profile");
        let mut pool = HeapPool::new(count as usize, 2048);
        let mut out = Vec::new();
        let mut now = Time(0);
        for number in 0..count + 100_000 {
            now += Duration::from_micros(1);
            if number < count {
                direction.accept(now, HeapBuffer::from_bytes(&frame(number)), &mut pool);
            }
            collect(&mut direction, now, &mut out);
        }
        (out, direction.report())
    }

    fn frame(number: u32) -> Vec<u8> {
        let mut frame = vec![0u8; 100];
        frame[..4].copy_from_slice(&number.to_be_bytes());
        frame
    }

    fn collect(direction: &mut Direction<HeapBuffer>, now: Time, out: &mut Vec<Vec<u8>>) {
        let burst = direction.due(now);
        let sent = burst.len();
        out.extend(burst.drain(..).map(|frame| frame.data().to_vec()));
        direction.sent(now, sent);
    }

    fn balance(report: &DirectionReport) {
        let dead = report.lost
            + report.queue_drops
            + report.mtu_drops
            + report.no_buffer_drops
            + report.tx_full_drops
            + report.held_at_end;
        assert_eq!(report.received + report.duplicated, report.sent + dead);
    }

    #[test]
    fn every_frame_is_accounted_for_and_only_faults_change_it() {
        let profile = PathProfile {
            delay_ms: 5.0,
            jitter_ms: 1.0,
            loss: 0.05,
            burst: 2.0,
            reorder: 0.01,
            duplicate: 0.05,
            corrupt: 0.1,
            ..PathProfile::default()
        };
        let (out, report) = run(&profile, 100_000, 20_000);
        balance(&report);
        assert_eq!(out.len() as u64, report.sent);
        assert!(report.held_at_end == 0 && report.no_buffer_drops == 0);
        assert!(report.lost > 500 && report.duplicated > 500 && report.reordered > 1_000);
        let intact = out
            .iter()
            .filter(|bytes| {
                let number = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                **bytes == frame(number)
            })
            .count() as u64;
        assert_eq!(report.sent - intact, report.corrupted);
        assert!(report.corrupted > 1_000);
    }

    #[test]
    fn without_faults_order_is_kept_and_nothing_is_late() {
        let profile = PathProfile {
            delay_ms: 5.0,
            ..PathProfile::default()
        };
        let (out, report) = run(&profile, 100_000, 5_000);
        assert_eq!(out, (0..5_000).map(frame).collect::<Vec<_>>());
        assert_eq!(report.reordered, 0);
        assert!(report.lateness_us.max < 1.0, "{report:?}");
        // 5 ms of a frame per microsecond are all 5,000 at once.
        assert_eq!(report.held_max, 5_000);
    }

    #[test]
    fn the_queue_is_seen_as_it_fills_and_drains() {
        // 8 Mbit/s: a frame of 100 bytes takes 100 us. Every 80 us one comes, for 80 ms.
        let profile = PathProfile {
            rate: Some(8.0),
            queue_frames: Some(1_000),
            ..PathProfile::default()
        };
        let mut direction = Direction::new(&profile, 7, 2_000).expect("a valid profile");
        let mut pool = HeapPool::new(1_000, 2048);
        let mut out = Vec::new();
        let mut now = Time(0);
        for tick in 0..2_500u32 {
            direction.sample(now);
            if tick < 1_000 {
                direction.accept(now, HeapBuffer::from_bytes(&frame(tick)), &mut pool);
            }
            now += Duration::from_micros(80);
            collect(&mut direction, now, &mut out);
        }
        direction.sample(now);
        let report = direction.report();
        assert_eq!((out.len(), report.queue_drops), (1_000, 0));
        let queue = report.queue.expect("a bottleneck");
        assert_eq!(queue.samples, 20);
        // It grows by a quarter of the time until 80 ms, when 20 ms are left: 200 frames.
        assert_eq!((queue.frames.max, queue.delay_ms.p50), (200.0, 0.0));
        let [first, second] = queue.window_delay_ms[..] else {
            panic!("two windows of 100 ms: {queue:?}");
        };
        // 2.5, 5, 7.5 and so on up to 20 ms, 10 at 90 ms, and 0 from 100 ms on.
        assert!((first - (90.0 + 10.0) / 10.0).abs() < 0.05, "{queue:?}");
        assert_eq!((second, queue.delay_ms.mean), (0.0, first / 2.0));
        let unlimited = Direction::<HeapBuffer>::new(&PathProfile::default(), 7, 1);
        assert!(unlimited.expect("a path").report().queue.is_none());
    }

    #[test]
    fn a_full_calendar_drops_and_counts() {
        let profile = PathProfile {
            delay_ms: 5.0,
            ..PathProfile::default()
        };
        let (out, report) = run(&profile, 1_000, 5_000);
        balance(&report);
        assert_eq!(out.len(), 1_000);
        assert_eq!(report.no_buffer_drops, 4_000);
    }

    #[test]
    fn a_queue_that_takes_nothing_costs_frames_after_a_while_only() {
        let profile = PathProfile::default();
        let mut direction = Direction::new(&profile, 1, 100).expect("a valid profile");
        let mut pool = HeapPool::new(0, 0);
        let mut out = Vec::new();
        for number in 0..40 {
            direction.accept(Time(0), HeapBuffer::from_bytes(&frame(number)), &mut pool);
        }
        assert_eq!(direction.due(Time(1)).len(), BURST);
        direction.sent(Time(1), 0);
        let later = Time(1) + TX_PATIENCE;
        assert_eq!(direction.due(later).len(), BURST, "patient");
        direction.burst().drain(..5);
        direction.sent(later, 5);
        // Progress starts the wait anew; 5 of the 8 others fill the burst up.
        let much_later = later + TX_PATIENCE;
        assert_eq!(direction.due(much_later).len(), BURST);
        direction.sent(much_later, 0);
        collect(&mut direction, much_later + TX_PATIENCE * 2, &mut out);
        let report = direction.report();
        assert_eq!(
            (report.sent, report.tx_full_drops, out.len()),
            (5 + 3, 32, 3)
        );
        balance(&report);
    }
}
