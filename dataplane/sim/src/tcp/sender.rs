//! The end of a connection that sends the stream.

mod recovery;

use std::ops::Range;
use std::time::Duration;

use shardgate_core::time::Time;

use self::recovery::{Probe, Recovery};
use super::cubic::Cubic;
use super::pattern::Pattern;
use super::rtt::RttEstimator;
use super::scoreboard::{AckContext, News, Scoreboard};
use super::{TcpConfig, expand};
use crate::packet::{Ecn, Ends, Flags, SackBlocks, Segment};
use crate::world::{Frames, Host};

/// Bytes of every segment that timestamps take from the MSS.
const TIMESTAMPS_LEN: u16 = 12;
/// No window is larger, so that a flow without a limit cannot grow without end.
const WINDOW_MAX: u32 = 1 << 20;

/// What a sender has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Segments sent, repeats included.
    pub segments: u64,
    /// Of those, repeats.
    pub repeats: u64,
    /// Timeouts.
    pub timeouts: u64,
    /// Tail loss probes.
    pub probes: u64,
    /// Times the window was reduced.
    pub reductions: u64,
    /// Of those, times the reduction was taken back.
    pub undone: u64,
}

/// Where the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    /// The SYN is to be sent, or was sent and not answered.
    Opening,
    /// Data flow.
    Open {
        /// The receiver's first sequence number.
        peer_isn: u32,
        /// Whether both ends understand marks.
        uses_ecn: bool,
    },
}

/// Sends one stream as fast as it may.
#[derive(Debug)]
pub struct TcpSender {
    ends: Ends,
    config: TcpConfig,
    pattern: Pattern,
    connection: Connection,
    isn: u32,
    /// Payload bytes of a full segment.
    segment_len: u64,
    board: Scoreboard,
    rtt: RttEstimator,
    cubic: Cubic,
    recovery: Recovery,
    cwnd: u32,
    ssthresh: u32,
    /// First byte that the receiver does not take yet.
    window_end: u64,
    /// Whether the window was what kept the last burst short.
    is_window_limited: bool,
    /// The receiver's newest timestamp.
    echo: u32,
    /// Whether the next new segment tells that the window was reduced.
    tells_reduction: bool,
    backoff: u32,
    syn_sent_at: Time,
    timeout_at: Option<Time>,
    probe_at: Option<Time>,
    reordering_at: Option<Time>,
    counters: TcpCounters,
}

impl TcpSender {
    /// Connects when the world begins. `ends` lead from it to the receiver; both must have the
    /// same seed.
    pub fn new(ends: Ends, config: TcpConfig, seed: u64) -> Self {
        Self {
            ends,
            config,
            pattern: Pattern::new(seed),
            connection: Connection::Opening,
            isn: seed as u32,
            segment_len: 1,
            board: Scoreboard::default(),
            rtt: RttEstimator::default(),
            cubic: Cubic::default(),
            recovery: Recovery::default(),
            cwnd: config.initial_window,
            ssthresh: WINDOW_MAX,
            window_end: 0,
            is_window_limited: false,
            echo: 0,
            tells_reduction: false,
            backoff: 0,
            syn_sent_at: Time::ZERO,
            timeout_at: Some(Time::ZERO),
            probe_at: None,
            reordering_at: None,
            counters: TcpCounters::default(),
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> TcpCounters {
        self.counters
    }

    /// The congestion window, in segments.
    pub fn window(&self) -> u32 {
        self.cwnd
    }

    /// Payload bytes of a full segment, known once the connection is open.
    pub fn segment_len(&self) -> u64 {
        self.segment_len
    }

    fn is_slow_start(&self) -> bool {
        self.cwnd < self.ssthresh
    }

    /// Payload bytes of a segment of the stream; zero behind its end.
    fn len_of(&self, number: u64) -> u64 {
        let first = number * self.segment_len;
        self.config.bytes.map_or(self.segment_len, |bytes| {
            bytes.saturating_sub(first).min(self.segment_len)
        })
    }

    /// How many segments `offset` bytes are; a part at the end of the stream counts whole.
    fn segments_in(&self, offset: u64) -> u64 {
        if self.config.bytes.is_some_and(|bytes| offset >= bytes) {
            return offset.div_ceil(self.segment_len);
        }
        offset / self.segment_len
    }

    fn connect(&mut self, now: Time, out: &mut Frames) {
        let ecn = if self.config.ecn {
            Flags::ECE | Flags::CWR
        } else {
            0
        };
        let syn = Segment {
            seq: self.isn,
            flags: Flags(Flags::SYN | ecn),
            window: self.config.receive_window.min(65_535),
            timestamp: self.board.count_transmission() as u32,
            mss: Some(self.config.mss),
            ..Segment::default()
        };
        syn.write(out.push(), self.ends, Ecn::NotCapable, 0, |_| {});
        self.timeout_at = Some(now + self.rtt.timeout(self.backoff));
        self.backoff += 1;
        self.syn_sent_at = now;
    }

    /// The answer to the SYN.
    fn open(&mut self, answer: &Segment, now: Time, out: &mut Frames) {
        self.echo = answer.timestamp;
        if self.connection == Connection::Opening {
            let uses_ecn = self.config.ecn && answer.flags.has(Flags::ECE);
            self.connection = Connection::Open {
                peer_isn: answer.seq,
                uses_ecn,
            };
            let mss = answer.mss.unwrap_or(536).min(self.config.mss);
            self.segment_len = u64::from(mss.saturating_sub(TIMESTAMPS_LEN).max(1));
            self.window_end = u64::from(answer.window);
            if self.backoff == 1 {
                // Only a SYN that was sent once tells a round trip (Karn).
                self.rtt.sample(now.since(self.syn_sent_at));
            }
            (self.backoff, self.timeout_at) = (0, None);
        }
        self.write(out, self.next_offset(), 0, 0);
        self.transmit(now, out);
    }

    fn next_offset(&self) -> u64 {
        self.board.next() * self.segment_len
    }

    /// Writes a segment of the stream, or a bare ACK.
    fn write(&mut self, out: &mut Frames, offset: u64, len: u64, flags: u8) {
        let Connection::Open { peer_isn, uses_ecn } = self.connection else {
            return;
        };
        // A segment has counted its transmission when it was put on the board.
        let timestamp = if len == 0 {
            self.board.count_transmission()
        } else {
            self.board.next_transmission() - 1
        };
        let segment = Segment {
            seq: self.isn.wrapping_add(1).wrapping_add(offset as u32),
            ack: peer_isn.wrapping_add(1),
            flags: Flags(Flags::ACK | flags),
            window: self.config.receive_window,
            timestamp: timestamp as u32,
            echo: self.echo,
            mss: None,
            sack: SackBlocks::default(),
        };
        let ecn = if uses_ecn && len > 0 {
            Ecn::Capable
        } else {
            Ecn::NotCapable
        };
        let bytes = self.pattern.at(offset, len as usize);
        segment.write(out.push(), self.ends, ecn, bytes.len(), |payload| {
            payload.copy_from_slice(bytes);
        });
    }

    fn send_next(&mut self, now: Time, out: &mut Frames) {
        let (number, _) = self.board.send_next(now);
        let tells = std::mem::take(&mut self.tells_reduction);
        let flags = if tells { Flags::CWR } else { 0 };
        self.write(out, number * self.segment_len, self.len_of(number), flags);
        self.counters.segments += 1;
        if self.timeout_at.is_none() {
            self.arm_timeout(now);
        }
    }

    fn repeat(&mut self, number: u64, now: Time, out: &mut Frames) {
        let Some(transmission) = self.board.repeat(number, now) else {
            return;
        };
        self.recovery.on_repeat(transmission);
        self.write(out, number * self.segment_len, self.len_of(number), 0);
        self.counters.segments += 1;
        self.counters.repeats += 1;
        if number == self.board.una() {
            self.arm_timeout(now);
        }
    }

    /// Whether there is something new to send, and the receiver takes it.
    fn may_send_next(&self) -> bool {
        let len = self.len_of(self.board.next());
        len > 0 && self.next_offset() + len <= self.window_end
    }

    /// Sends what the window allows, repeats first.
    fn transmit(&mut self, now: Time, out: &mut Frames) {
        let was_quiet = self.board.is_empty();
        let mut has_sent = false;
        self.is_window_limited = false;
        loop {
            if self.board.in_flight() >= self.cwnd {
                self.is_window_limited = true;
                break;
            }
            if let Some(number) = self.board.next_to_repeat() {
                self.repeat(number, now, out);
            } else if self.may_send_next() {
                self.send_next(now, out);
            } else {
                break;
            }
            self.recovery.on_sent();
            has_sent = true;
        }
        if was_quiet && has_sent {
            self.arm_timeout(now);
        }
        if has_sent {
            self.arm_probe(now);
        }
    }

    fn arm_timeout(&mut self, now: Time) {
        self.timeout_at = (!self.board.is_empty()).then(|| now + self.rtt.timeout(self.backoff));
    }

    /// A tail loss probe (RFC 8985, 7.2): only while nothing is missing, and one at a time.
    fn arm_probe(&mut self, now: Time) {
        self.probe_at = None;
        let may_probe =
            self.recovery.may_probe() && !self.board.is_empty() && self.board.sacked() == 0;
        if !may_probe {
            return;
        }
        let (Some(smoothed), Some(timeout_at)) = (self.rtt.smoothed(), self.timeout_at) else {
            return;
        };
        // A single segment may meet a delayed ACK.
        let margin = if self.board.outstanding() == 1 {
            200
        } else {
            2
        };
        let at = now + smoothed * 2 + Duration::from_millis(margin);
        self.probe_at = Some(at.min(timeout_at));
    }

    fn probe(&mut self, now: Time, out: &mut Frames) {
        self.probe_at = None;
        let is_new = self.may_send_next();
        if is_new {
            self.send_next(now, out);
        } else if let Some(last) = self.board.next().checked_sub(1) {
            self.repeat(last, now, out);
        }
        self.counters.probes += 1;
        self.recovery.probe = Some(Probe {
            high: self.board.next(),
            is_new,
        });
        self.arm_timeout(now);
    }

    fn acknowledged(&mut self, segment: &Segment, now: Time, out: &mut Frames) {
        let offset = expand(
            segment.ack.wrapping_sub(self.isn.wrapping_add(1)),
            self.board.una() * self.segment_len,
        );
        let una = self.segments_in(offset);
        if una > self.board.next() {
            return;
        }
        self.echo = segment.timestamp;
        self.window_end = self.window_end.max(offset + u64::from(segment.window));
        let context = AckContext {
            now,
            echo: expand(segment.echo, self.board.next_transmission()),
            rtt_min: self.rtt.min(),
            high: self.recovery.high,
        };
        let mut news = News::default();
        self.board.acknowledge(una, &context, &mut news);
        let duplicate = self.selective(segment, offset, &context, &mut news);
        self.measure(&news, now);
        self.recover(segment, &news, duplicate, &context);
        if news.is_advance {
            self.backoff = 0;
            self.arm_timeout(now);
            self.arm_probe(now);
        }
        if self.board.is_empty() {
            (self.timeout_at, self.probe_at, self.reordering_at) = (None, None, None);
        }
        self.transmit(now, out);
    }

    /// Takes in SACK blocks; the segments that the first tells to have come twice (RFC 2883).
    fn selective(
        &mut self,
        segment: &Segment,
        ack: u64,
        context: &AckContext,
        news: &mut News,
    ) -> Option<Range<u64>> {
        let offset = |wire: u32| expand(wire.wrapping_sub(self.isn.wrapping_add(1)), ack);
        let mut blocks = [(0, 0); 3];
        let count = segment.sack.as_slice().len();
        for (block, &(first, end)) in blocks.iter_mut().zip(segment.sack.as_slice()) {
            *block = (offset(first), offset(end));
        }
        let blocks = &blocks[..count];
        let has_duplicate = match blocks {
            [first, ..] if first.1 <= ack => true,
            [first, second, ..] => second.0 <= first.0 && first.1 <= second.1,
            _ => false,
        };
        let segments =
            |&(first, end): &(u64, u64)| first.div_ceil(self.segment_len)..self.segments_in(end);
        let mut ranges = [const { 0..0 }; 3];
        for (range, block) in ranges.iter_mut().zip(blocks) {
            *range = segments(block);
        }
        let [first, second, third] = ranges;
        let duplicate = has_duplicate.then(|| first.clone());
        let first = if has_duplicate { 0..0 } else { first };
        for range in [first, second, third] {
            self.board.sack(range, context, news);
        }
        duplicate
    }

    fn measure(&mut self, news: &News, now: Time) {
        if let Some(newest) = news.newest_sent {
            let rtt = now.since(newest);
            self.rtt.sample_min(rtt);
            let edges = (self.board.una(), self.board.next());
            let is_slow_start = self.is_slow_start();
            if self.cubic.on_rtt(rtt, now, edges, self.cwnd, is_slow_start) {
                self.ssthresh = self.cwnd;
            }
        }
        if let Some(sent) = news.oldest_sent.or(news.newest_sent) {
            self.rtt.sample(now.since(sent));
        }
    }

    /// Growth of the window by `acked` segments.
    fn grow(&mut self, acked: u32, now: Time) {
        let is_limited = self.is_window_limited
            || (self.is_slow_start() && self.cwnd < 2 * self.board.outstanding());
        if !is_limited {
            return;
        }
        let mut acked = acked;
        if self.is_slow_start() {
            let step = acked.min(self.ssthresh - self.cwnd);
            self.cwnd += step;
            acked -= step;
        }
        if acked > 0 {
            self.cwnd = self.cubic.on_congestion_avoidance(self.cwnd, acked, now);
        }
        self.cwnd = self.cwnd.min(WINDOW_MAX);
    }

    fn time_out(&mut self, now: Time, out: &mut Frames) {
        if self.connection == Connection::Opening {
            self.connect(now, out);
            return;
        }
        (self.probe_at, self.reordering_at) = (None, None);
        self.counters.timeouts += 1;
        self.enter_loss(now);
        self.backoff += 1;
        self.transmit(now, out);
        self.arm_timeout(now);
    }
}

impl Host for TcpSender {
    fn receive(&mut self, frame: &[u8], now: Time, out: &mut Frames) {
        let Some((segment, _)) = Segment::read(frame) else {
            return;
        };
        if segment.flags.has(Flags::SYN | Flags::ACK) {
            self.open(&segment, now, out);
        } else if self.connection != Connection::Opening && segment.flags.has(Flags::ACK) {
            self.acknowledged(&segment, now, out);
        }
    }

    fn poll(&mut self, now: Time, out: &mut Frames) {
        let is_due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if is_due(self.reordering_at) {
            self.reordering_timer(now);
            self.transmit(now, out);
        }
        if is_due(self.probe_at) {
            self.probe(now, out);
        }
        if is_due(self.timeout_at) {
            self.time_out(now, out);
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        [self.timeout_at, self.probe_at, self.reordering_at]
            .into_iter()
            .flatten()
            .min()
    }
}
