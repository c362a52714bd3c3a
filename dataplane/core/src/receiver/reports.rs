//! What a receiver tells the sender: reports about each path, and what it wants again.

use core::time::Duration;

use arrayvec::ArrayVec;

use super::slots::State;
use super::{FrameSink, PredictiveBuffer};
use crate::buffer::Buffer;
use crate::limits::REASSEMBLY_WINDOW;
use crate::predict::{Predictor, RoundTrip};
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::feedback::{BlockType, BlockWriter};

/// Reports are this far apart at least.
const REPORT_EVERY_MIN: Duration = Duration::from_millis(10);

/// What an extent opens at once: the tail of a stream, not its history.
const EXTENT_REACH: u32 = 1_024;

impl<B: Buffer, P: Predictor> PredictiveBuffer<B, P> {
    /// What is known of the round trip, from whoever measures it.
    pub fn set_round_trip(&mut self, round_trip: Option<RoundTrip>) {
        self.outlook.round_trip = round_trip;
        self.outlook.repair_within = self.repair_timing.within(self.settled);
    }

    /// How far reports are apart while shards come: a quarter of the round trip.
    fn report_interval(&self) -> Duration {
        let quarter = self.outlook.round_trip.map(|rtt| rtt.smoothed / 4);
        quarter.unwrap_or_default().max(REPORT_EVERY_MIN)
    }

    /// When there is something to tell the sender: at once if something is wanted, else when a
    /// report is due.
    pub fn feedback_at(&self) -> Option<Time> {
        if !self.wanted.is_empty() {
            return Some(self.settled);
        }
        let interval = self.report_interval();
        let due = self
            .arrivals
            .iter()
            .filter_map(|path| path.report_at(interval));
        due.min()
    }

    /// Writes what there is to tell; false if it is nothing, or does not fit.
    pub fn write_feedback<M: Buffer>(
        &mut self,
        writer: &mut BlockWriter<'_, M>,
        now: Time,
    ) -> bool {
        let mut any = false;
        for path in 0..self.arrivals.len() {
            any |= self.write_report(path, writer, now);
        }
        // What was asked for once is asked for once more: the request may have been lost, and the
        // sender ignores what it has answered.
        let (slots, floor) = (&self.slots, self.floor);
        let is_missing = |seq: &Seq| {
            matches!(slots.get(*seq).map(|slot| &slot.state), Some(State::Hole(hole)) if !hole.not_sent)
                && floor.is_none_or(|floor| !seq.is_before(floor))
        };
        self.wanted.retain(|seq| is_missing(seq));
        self.wanted_before.retain(|seq| is_missing(seq));
        let written = writer.seqs(BlockType::Wanted, self.wanted.iter().copied());
        any |= written > 0;
        if written == self.wanted.len() {
            any |= writer.seqs(BlockType::Wanted, self.wanted_before.iter().copied()) > 0;
        }
        self.wanted_before = self.wanted.drain(..written).collect();
        self.stats.reports += u64::from(any);
        any
    }

    fn write_report<M: Buffer>(
        &mut self,
        path: usize,
        writer: &mut BlockWriter<'_, M>,
        now: Time,
    ) -> bool {
        let interval = self.report_interval();
        let (Some(arrivals), Some(window)) = (self.arrivals.get_mut(path), self.replay.get(path))
        else {
            return false;
        };
        // With a request goes what there is to report anyway, unless that was just done.
        let is_due = arrivals
            .report_at(interval / 2)
            .is_some_and(|due| due <= now);
        if !is_due {
            return false;
        }
        let mut ranges = ArrayVec::new();
        let Some(mut report) = arrivals.report(window, &mut ranges, now) else {
            return false;
        };
        report.path = path as u8;
        report.rebuilt = self.stats.filled_by_repair as u32;
        report.late = self.stats.late as u32;
        writer.report(&report, &ranges)
    }

    /// The sender says how far its stream goes, and below what nothing can be sent again.
    pub fn extent(
        &mut self,
        highest: Seq,
        floor: Seq,
        path: u8,
        now: Time,
        sink: &mut impl FrameSink<B>,
    ) {
        let Some(newest) = self.newest else {
            return;
        };
        let ahead = highest.distance_from(newest);
        if !(-(REASSEMBLY_WINDOW as i32)..=EXTENT_REACH as i32).contains(&ahead) {
            return;
        }
        self.known_sent(highest.minus(EXTENT_REACH), highest, path, now);
        // A floor above what comes next would be nonsense, one that falls is old news.
        let rises = self.floor.is_none_or(|old| old.is_before(floor));
        if rises && !highest.plus(1).is_before(floor) {
            self.floor = Some(floor);
            self.age_floor(self.newest.unwrap_or(newest));
            self.advance_gates(self.settled, sink);
        }
    }

    /// Forgets the floor once all that lies below it is too old to be placed. Kept, it would lie
    /// ahead of every number 2^31 shards later, and close all holes.
    pub(super) fn age_floor(&mut self, newest: Seq) {
        let window = -(REASSEMBLY_WINDOW as i32)..=REASSEMBLY_WINDOW as i32;
        self.floor
            .take_if(|floor| !window.contains(&floor.distance_from(newest)));
    }

    /// The sender says that these were numbered and never left.
    pub fn not_sent(&mut self, seqs: impl Iterator<Item = Seq>, sink: &mut impl FrameSink<B>) {
        for seq in seqs {
            self.close_hole(seq);
        }
        self.advance_gates(self.settled, sink);
    }
}
