//! The end of a connection that takes the stream.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use shardgate_core::time::Time;

use super::pattern::Pattern;
use super::{TcpConfig, expand};
use crate::packet::{Ecn, Ends, Flags, SackBlocks, Segment};
use crate::world::{Frames, Host};

/// A segment is acknowledged no later (Linux's least delayed ACK).
const ACK_DELAY: Duration = Duration::from_millis(40);
/// Segments acknowledged at once at the start, while the sender's window is small.
const QUICK_ACKS: u32 = 16;
/// Arrivals remembered for the order of SACK blocks (RFC 2018: the newest first).
const RECENT_MAX: usize = 4;

/// Takes one stream, checks every byte of it, and acknowledges.
///
/// Every second segment at once, others after 40 ms; at once whatever comes out of order, fills a
/// hole, or was there already (RFC 5681, 4.2; the latter with a DSACK, RFC 2883).
#[derive(Debug)]
pub struct TcpReceiver {
    ends: Ends,
    config: TcpConfig,
    pattern: Pattern,
    isn: u32,
    peer_isn: Option<u32>,
    /// Stream offset of the next byte expected.
    next: u64,
    /// What has come beyond it: from, to.
    beyond: BTreeMap<u64, u64>,
    recent: VecDeque<u64>,
    duplicate: Option<(u64, u64)>,
    /// In segments; at two an ACK is due.
    unacknowledged: u32,
    quick_acks: u32,
    ack_at: Option<Time>,
    echo: u32,
    last_ack_sent: u64,
    timestamp: u32,
    is_marked: bool,
    uses_ecn: bool,
    wrong_bytes: u64,
}

impl TcpReceiver {
    /// Listens. `ends` lead from it to the sender; both must have the same seed.
    pub fn new(ends: Ends, config: TcpConfig, seed: u64) -> Self {
        Self {
            ends,
            config,
            pattern: Pattern::new(seed),
            isn: (seed >> 32) as u32,
            peer_isn: None,
            next: 0,
            beyond: BTreeMap::new(),
            recent: VecDeque::with_capacity(RECENT_MAX + 1),
            duplicate: None,
            unacknowledged: 0,
            quick_acks: QUICK_ACKS,
            ack_at: None,
            echo: 0,
            last_ack_sent: 0,
            timestamp: 0,
            is_marked: false,
            uses_ecn: false,
            wrong_bytes: 0,
        }
    }

    /// Bytes of the stream that the application has read: complete and in order.
    pub fn delivered(&self) -> u64 {
        self.next
    }

    /// Bytes that were not those sent. TCP's checksum and the oracle stand before them, so any is
    /// a fault of the model.
    pub fn wrong_bytes(&self) -> u64 {
        self.wrong_bytes
    }

    fn data(&mut self, segment: &Segment, payload: &[u8], ecn: Ecn, now: Time) {
        let Some(peer_isn) = self.peer_isn else {
            return;
        };
        if self.uses_ecn {
            self.ecn(segment, ecn);
        }
        if payload.is_empty() {
            return;
        }
        let first = expand(
            segment.seq.wrapping_sub(peer_isn.wrapping_add(1)),
            self.next,
        );
        let end = first + payload.len() as u64;
        if payload != self.pattern.at(first, payload.len()) {
            self.wrong_bytes += payload.len() as u64;
        }
        // RFC 7323, 4.3: the timestamp of what moves the left edge is the one to echo.
        let is_newer = segment.timestamp.wrapping_sub(self.echo) as i32 > 0;
        if first <= self.last_ack_sent && is_newer {
            self.echo = segment.timestamp;
        }
        let is_whole = self.beyond.is_empty();
        let is_new = self.place(first, end);
        self.unacknowledged += 1;
        let is_quick = self.quick_acks > 0;
        self.quick_acks = self.quick_acks.saturating_sub(1);
        if !is_new || !is_whole || !self.beyond.is_empty() || is_quick || self.unacknowledged >= 2 {
            self.ack_at = Some(now);
        } else if self.ack_at.is_none() {
            self.ack_at = Some(now + ACK_DELAY);
        }
    }

    /// Takes in a piece of the stream; false if all of it was there.
    fn place(&mut self, first: u64, end: u64) -> bool {
        let held = self.beyond.range(..=first).next_back();
        if end <= self.next || held.is_some_and(|(_, &held_end)| held_end >= end) {
            self.duplicate = Some((first, end));
            return false;
        }
        let (mut from, mut to) = (first.max(self.next), end);
        if let Some((&start, &held_end)) = self.beyond.range(..=from).next_back()
            && held_end >= from
        {
            from = start;
            to = to.max(held_end);
            self.beyond.remove(&start);
        }
        while let Some((&start, &held_end)) = self.beyond.range(from..=to).next() {
            to = to.max(held_end);
            self.beyond.remove(&start);
        }
        if from <= self.next {
            self.next = to;
        } else {
            self.beyond.insert(from, to);
            self.recent.retain(|&at| !(from..to).contains(&at));
            self.recent.push_front(first.max(from));
            self.recent.truncate(RECENT_MAX);
        }
        true
    }

    fn ecn(&mut self, segment: &Segment, ecn: Ecn) {
        if segment.flags.has(Flags::CWR) {
            self.is_marked = false;
        }
        self.is_marked |= ecn == Ecn::Marked;
    }

    fn acknowledge(&mut self, out: &mut Frames) {
        let Some(peer_isn) = self.peer_isn else {
            return;
        };
        let wire = |offset: u64| peer_isn.wrapping_add(1).wrapping_add(offset as u32);
        let mut sack = SackBlocks::default();
        if let Some((first, end)) = self.duplicate.take() {
            sack.push(wire(first), wire(end));
        }
        for &at in &self.recent {
            if let Some((&start, &end)) = self.beyond.range(..=at).next_back()
                && at < end
            {
                sack.push(wire(start), wire(end));
            }
        }
        let echo = if self.is_marked { Flags::ECE } else { 0 };
        let segment = Segment {
            seq: self.isn.wrapping_add(1),
            ack: wire(self.next),
            flags: Flags(Flags::ACK | echo),
            window: self.config.receive_window,
            timestamp: self.timestamp,
            echo: self.echo,
            mss: None,
            sack,
        };
        segment.write(out.push(), self.ends, Ecn::NotCapable, 0, |_| {});
        self.timestamp = self.timestamp.wrapping_add(1);
        self.last_ack_sent = self.next;
        self.unacknowledged = 0;
        self.ack_at = None;
    }

    fn answer(&mut self, syn: &Segment, out: &mut Frames) {
        self.peer_isn = Some(syn.seq);
        self.echo = syn.timestamp;
        self.uses_ecn = self.config.ecn && syn.flags.has(Flags::ECE | Flags::CWR);
        let ecn = if self.uses_ecn { Flags::ECE } else { 0 };
        let segment = Segment {
            seq: self.isn,
            ack: syn.seq.wrapping_add(1),
            flags: Flags(Flags::SYN | Flags::ACK | ecn),
            window: self.config.receive_window.min(65_535),
            timestamp: self.timestamp,
            echo: self.echo,
            mss: Some(self.config.mss),
            sack: SackBlocks::default(),
        };
        segment.write(out.push(), self.ends, Ecn::NotCapable, 0, |_| {});
        self.timestamp = self.timestamp.wrapping_add(1);
    }
}

impl Host for TcpReceiver {
    fn receive(&mut self, frame: &[u8], now: Time, out: &mut Frames) {
        let Some((segment, payload)) = Segment::read(frame) else {
            return;
        };
        if segment.flags.has(Flags::SYN) {
            self.answer(&segment, out);
            return;
        }
        self.data(&segment, payload, Ecn::of(frame), now);
        if self.ack_at.is_some_and(|at| at <= now) {
            self.acknowledge(out);
        }
    }

    fn poll(&mut self, now: Time, out: &mut Frames) {
        if self.ack_at.is_some_and(|at| at <= now) {
            self.acknowledge(out);
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.ack_at
    }
}
