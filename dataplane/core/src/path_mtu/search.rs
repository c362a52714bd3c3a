//! Rounds of bursts: which sizes, when, and what they prove.

use core::time::Duration;

use arrayvec::ArrayVec;

use super::sizes::{self, ROUND_MAX, Sizes};
use super::suspicion::Suspicion;
use super::{BASE, BURSTS_MAX, FLOOR, MtuView, PathLimit, RAISE_AFTER, State, Timing, Unreported};
use crate::time::Time;

/// Bursts that are remembered.
const BURSTS_KEPT: usize = 8;

/// For how long.
const BURST_KEPT: Duration = Duration::from_secs(5);

/// A path that does not answer is asked this often at the least, by one unpadded probe.
const WAKE_EVERY_MAX: Duration = Duration::from_secs(2);

/// After a suspicion that came to nothing there is no other for so long.
const CALM: Duration = Duration::from_secs(1);

/// The size of an unpadded probe: none.
const UNPADDED: u16 = 0;

/// A probe that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Bytes of its IP packet; `None` if it needs no padding.
    pub mtu: Option<u16>,
    /// Proves it, echoed.
    pub token: u64,
    /// Whether it may wait until the budget has room for it.
    pub may_wait: bool,
}

/// Why a round was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// Nothing is known.
    Start,
    /// The size in use may not pass any more.
    Confirm {
        /// What passes if that is no more than chance.
        suspect: u16,
    },
    /// The largest that passes lies between two sizes.
    Search,
    /// More may pass than before.
    Raise,
}

/// The sizes that are asked for now.
#[derive(Clone, Debug)]
struct Round {
    why: Why,
    began: Time,
    sizes: Sizes,
    /// The largest size that is known to pass by now; 0 if none.
    low: u16,
    /// Bursts of all open sizes sent.
    full: u8,
    /// Unpadded probes in a row that nothing came back of.
    wakes: u32,
}

impl Round {
    /// What is not known to pass.
    fn open(&self) -> impl Iterator<Item = u16> + '_ {
        self.sizes.iter().copied().filter(|size| *size > self.low)
    }

    fn is_confirm(&self) -> bool {
        matches!(self.why, Why::Confirm { .. })
    }
}

/// Probes that left together.
#[derive(Clone, Debug)]
struct Burst {
    at: Time,
    is_full: bool,
    /// When something of it came back.
    answered_at: Option<Time>,
    /// What has not come back.
    open: ArrayVec<u16, { ROUND_MAX + 1 }>,
}

/// The MTU of one path: what is used, and the search for more.
#[derive(Clone, Debug, Default)]
pub struct PathMtu {
    limit: Option<PathLimit>,
    state: State,
    /// The size in use.
    current: u16,
    /// The smallest size above it that is known not to pass; one above the limit if none is.
    high: u16,
    round: Option<Round>,
    bursts: ArrayVec<Burst, BURSTS_KEPT>,
    /// Of the newest burst: what has not left yet.
    outgoing: ArrayVec<u16, { ROUND_MAX + 1 }>,
    suspicion: Suspicion,
    /// Up to when the size in use is known to have passed.
    confirmed_at: Time,
    /// When it was found to pass no more; what left before is of the past.
    fallen_at: Time,
    calm_until: Time,
    raise_at: Option<Time>,
    /// The path has been opened anew: what it carries is to be confirmed.
    is_doubted: bool,
    probes: u64,
    acked: u64,
    lost: u64,
    black_holes: u64,
}

impl PathMtu {
    /// Opens the path, or opens it anew: with the same limit what was found is used on, and confirmed.
    pub fn open(&mut self, limit: PathLimit) {
        if self.limit == Some(limit) {
            self.is_doubted = self.state != State::Disabled;
            return;
        }
        *self = Self {
            limit: Some(limit),
            current: limit.mtu().min(BASE),
            high: limit.mtu().saturating_add(1),
            state: State::Base,
            probes: self.probes,
            acked: self.acked,
            lost: self.lost,
            black_holes: self.black_holes,
            ..Self::default()
        };
        if limit.is_pinned || limit.mtu() <= FLOOR {
            self.current = limit.mtu();
            self.state = State::Disabled;
        }
    }

    /// What it was opened with.
    pub fn limit(&self) -> Option<PathLimit> {
        self.limit
    }

    /// Bytes of an IP packet that may be sent.
    pub fn mtu(&self) -> u16 {
        self.current
    }

    /// Most payload of a shard.
    pub fn payload(&self) -> usize {
        self.limit.map_or(0, |limit| limit.payload(self.current))
    }

    /// Most payload of a shard as far as those inside are to adapt to it: they keep a segment size for
    /// as long as a connection lives, so they are not told of a size that is used for a round trip.
    pub fn payload_to_tell(&self) -> usize {
        match (self.limit, self.state) {
            (Some(limit), State::Base) => limit.payload(limit.mtu()),
            _ => self.payload(),
        }
    }

    /// Most payload in packets that pass wherever anything does.
    pub fn payload_of_messages(&self) -> usize {
        let limit = self.limit;
        limit.map_or(0, |limit| limit.payload(self.current.min(BASE)))
    }

    /// Payload of a probe that fills a packet of this size.
    pub fn payload_of(&self, mtu: u16) -> usize {
        self.limit.map_or(0, |limit| limit.payload(mtu))
    }

    /// What is known, and how.
    pub fn view(&self) -> MtuView {
        MtuView {
            mtu: self.current,
            state: self.state,
            probes: self.probes,
            acked: self.acked,
            lost: self.lost,
            black_holes: self.black_holes,
        }
    }

    /// A datagram of so many bytes, sent at `sent_at`, has arrived.
    #[inline]
    pub(crate) fn arrived(&mut self, datagram: u16, sent_at: Time) {
        let Some(limit) = self.limit.filter(|_| self.state != State::Disabled) else {
            return;
        };
        let size = limit.packet(datagram);
        self.suspicion.arrived(size, sent_at);
        if let Some(round) = &mut self.round
            && sent_at >= round.began
        {
            round.low = round.low.max(size);
        }
    }

    /// One is lost.
    pub(crate) fn lost(&mut self, datagram: u16, sent_at: Time) {
        let Some(limit) = self.limit.filter(|_| self.state != State::Disabled) else {
            return;
        };
        let size = limit.packet(datagram);
        if size <= self.current && sent_at >= self.fallen_at {
            self.suspicion.lost(size, sent_at);
        }
    }

    /// A probe came back; false if it is none that is remembered.
    pub fn echoed(&mut self, token: u64, now: Time) -> bool {
        let size = token as u16;
        let of =
            |burst: &&mut Burst| burst.open.contains(&size) && token_of(burst.at, size) == token;
        let Some(burst) = self.bursts.iter_mut().find(of) else {
            return false;
        };
        burst.open.retain(|open| *open != size);
        burst.answered_at.get_or_insert(now);
        let at = burst.at;
        self.acked += 1;
        if at < self.fallen_at {
            return true;
        }
        if let Some(round) = &mut self.round
            && at >= round.began
        {
            round.low = round.low.max(size);
            round.wakes = 0;
        }
        if size == self.current {
            self.confirmed_at = self.confirmed_at.max(at);
        }
        if size > self.current {
            // However late: it has passed.
            self.current = size;
            self.confirmed_at = self.confirmed_at.max(at);
            if size >= self.high {
                self.high = self.limit.map_or(size, PathLimit::mtu).saturating_add(1);
            }
            if self.state == State::SearchComplete && self.round.is_none() {
                self.search_on(now);
            }
        }
        true
    }

    /// Does what time brings. `unreported` is what the peer has not told of the data sent.
    pub fn poll(&mut self, timing: Timing, unreported: Unreported, now: Time) {
        if self.state == State::Disabled || self.limit.is_none() {
            return;
        }
        self.forget_bursts(now);
        self.suspect(timing, unreported, now);
        if self.round.is_none() {
            self.begin_due(now);
        }
        self.conclude(timing, now);
        self.send_due(timing, now);
    }

    /// When [`Self::poll`] has something to do next.
    pub fn poll_timeout(&self, timing: Timing, unreported: Unreported) -> Option<Time> {
        if self.state == State::Disabled || self.limit.is_none() {
            return None;
        }
        if self.round.is_some() {
            // What had no room comes with the next poll anyway.
            return (self.outgoing.is_empty()).then(|| self.due_at(timing).at);
        }
        if self.state == State::Base || self.is_doubted {
            return Some(self.calm_until);
        }
        let silent = Suspicion::silent_at(unreported, self.confirmed_at, timing);
        let silent = silent.map(|at| at.max(self.calm_until));
        [silent, self.raise_at].into_iter().flatten().min()
    }

    /// The next probe that is to leave now.
    pub fn take_probe(&mut self) -> Option<Probe> {
        let size = self.outgoing.pop()?;
        let burst = self.bursts.last()?;
        let why = self.round.as_ref().map(|round| round.why);
        Some(Probe {
            mtu: (size != UNPADDED).then_some(size),
            token: token_of(burst.at, size),
            may_wait: why == Some(Why::Raise),
        })
    }

    /// What [`Self::take_probe`] gave has left.
    pub fn sent(&mut self, probe: Probe) {
        self.probes += 1;
        if let Some(burst) = self.bursts.last_mut() {
            let _ = burst.open.try_push(probe.mtu.unwrap_or(UNPADDED));
        }
    }

    /// It cannot leave now; it comes again.
    pub fn not_sent(&mut self, probe: Probe) {
        let _ = self.outgoing.try_push(probe.mtu.unwrap_or(UNPADDED));
    }

    /// It cannot leave for lack of budget, and can wait: the search for more is put off.
    pub fn put_off(&mut self, now: Time) {
        self.outgoing.clear();
        self.round = None;
        self.raise_at = Some(now + RAISE_AFTER);
    }

    fn forget_bursts(&mut self, now: Time) {
        while let Some(burst) = self.bursts.first()
            && (self.bursts.is_full() || now.since(burst.at) > BURST_KEPT)
        {
            self.lost += burst.open.len() as u64;
            self.bursts.remove(0);
        }
    }

    /// Begins to confirm the size in use if there is reason to.
    fn suspect(&mut self, timing: Timing, unreported: Unreported, now: Time) {
        let is_busy = match &self.round {
            Some(round) => round.is_confirm() || round.why == Why::Start,
            None => self.state == State::Base,
        };
        if is_busy || now < self.calm_until {
            return;
        }
        let is_silent =
            Suspicion::silent_at(unreported, self.confirmed_at, timing).is_some_and(|at| at <= now);
        if self.suspicion.is_raised() || is_silent || self.is_doubted {
            self.is_doubted = false;
            let suspect = self.suspicion.smallest().unwrap_or(self.current);
            let sizes = sizes::fallbacks(self.current);
            self.begin(Why::Confirm { suspect }, sizes, now);
        }
    }

    /// Begins the round whose time has come.
    fn begin_due(&mut self, now: Time) {
        let ceiling = self.limit.map_or(0, PathLimit::mtu);
        if self.state == State::Base {
            self.begin(Why::Start, sizes::ladder(ceiling), now);
        } else if self.raise_at.is_some_and(|at| at <= now) {
            self.raise_at = None;
            self.high = ceiling.saturating_add(1);
            self.begin(Why::Raise, sizes::above(self.current, ceiling), now);
        }
    }

    fn begin(&mut self, why: Why, sizes: Sizes, now: Time) {
        self.outgoing.clear();
        self.round = Some(Round {
            why,
            began: now,
            sizes,
            low: 0,
            full: 0,
            wakes: 0,
        });
    }

    /// Ends a round whose sizes are all decided.
    fn conclude(&mut self, timing: Timing, now: Time) {
        let Some(round) = &self.round else {
            return;
        };
        if let Why::Confirm { suspect } = round.why
            && round.low >= suspect.min(self.current)
        {
            // What was suspected passes.
            self.confirmed_at = self.confirmed_at.max(round.began);
            self.calm_until = now + CALM;
            self.suspicion.clear();
            return self.resume(now);
        }
        let Some(smallest) = round.open().min() else {
            return self.passed(now);
        };
        let has_failed = |burst: &&Burst| {
            let is_of_it = burst.is_full && burst.at >= round.began;
            let settled = burst.answered_at.map(|at| at + timing.reordering());
            is_of_it && settled.is_some_and(|at| at <= now)
        };
        let failures = self.bursts.iter().filter(has_failed).count();
        if failures >= usize::from(BURSTS_MAX) && self.outgoing.is_empty() {
            self.failed(smallest, now);
        }
    }

    /// All sizes of a round pass.
    fn passed(&mut self, now: Time) {
        let Some(round) = self.round.take() else {
            return;
        };
        self.outgoing.clear();
        if round.why == Why::Start {
            self.current = self.current.max(round.sizes.first().copied().unwrap_or(0));
        }
        self.search_on(now);
    }

    /// Of a round, `smallest` and all above it do not pass.
    fn failed(&mut self, smallest: u16, now: Time) {
        let Some(round) = self.round.take() else {
            return;
        };
        self.outgoing.clear();
        self.high = smallest;
        if smallest <= self.current {
            // What else is known to pass; if nothing is, what nearly always does.
            self.current = round.low.max(FLOOR);
            self.black_holes += u64::from(round.is_confirm());
            self.fallen_at = now;
            self.suspicion.clear();
        }
        if round.why == Why::Raise && !round.sizes.contains(&self.current) {
            self.complete(now);
        } else {
            self.search_on(now);
        }
    }

    /// A suspicion came to nothing: goes on with what was interrupted.
    fn resume(&mut self, now: Time) {
        self.round = None;
        self.outgoing.clear();
        self.search_on(now);
    }

    /// Looks between what passes and what does not.
    fn search_on(&mut self, now: Time) {
        let sizes = sizes::between(self.current, self.high);
        let ceiling = self.limit.map_or(0, PathLimit::mtu);
        if self.current >= ceiling || sizes.is_empty() {
            return self.complete(now);
        }
        self.raise_at = None;
        self.state = self.searching();
        self.begin(Why::Search, sizes, now);
    }

    fn complete(&mut self, now: Time) {
        let ceiling = self.limit.map_or(0, PathLimit::mtu);
        self.round = None;
        self.state = match self.searching() {
            State::Error => State::Error,
            _ => State::SearchComplete,
        };
        let raise_at = self.raise_at.unwrap_or(now + RAISE_AFTER);
        self.raise_at = (self.current < ceiling).then_some(raise_at);
    }

    fn searching(&self) -> State {
        let ceiling = self.limit.map_or(0, PathLimit::mtu);
        if self.current < BASE.min(ceiling) {
            State::Error
        } else {
            State::Searching
        }
    }

    /// Sends the next burst of the round, if it is time.
    fn send_due(&mut self, timing: Timing, now: Time) {
        let due = self.due_at(timing);
        let Some(round) = &mut self.round else {
            return;
        };
        if !self.outgoing.is_empty() || due.at > now {
            return;
        }
        // The unpadded one leaves last: it answers for all that left before it.
        self.outgoing.push(UNPADDED);
        if due.is_full {
            let low = round.low;
            let open = round.sizes.iter().filter(|size| **size > low);
            self.outgoing.extend(open.rev().copied());
            round.full = round.full.saturating_add(1);
        } else {
            round.wakes = round.wakes.saturating_add(1);
        }
        if self.bursts.is_full() {
            self.lost += self.bursts.remove(0).open.len() as u64;
        }
        self.bursts.push(Burst {
            at: now,
            is_full: due.is_full,
            answered_at: None,
            open: ArrayVec::new(),
        });
    }

    /// When the next burst is due, and whether it asks for sizes.
    fn due_at(&self, timing: Timing) -> Due {
        let full = |at| Due { at, is_full: true };
        let Some(round) = &self.round else {
            return full(Time(u64::MAX));
        };
        let last = self.bursts.last().filter(|burst| burst.at >= round.began);
        let Some(last) = last.filter(|_| round.full > 0) else {
            return full(round.began);
        };
        if round.is_confirm() && round.full < BURSTS_MAX {
            // There is no time to wait for each answer.
            return full(last.at + timing.spacing());
        }
        match last.answered_at {
            Some(at) => full(at + timing.reordering()),
            // Nothing comes back: one small question from time to time, until something does.
            None => Due {
                at: last.at
                    + (timing.answered_within() * (1 << round.wakes.min(4))).min(WAKE_EVERY_MAX),
                is_full: false,
            },
        }
    }
}

/// When a burst leaves, and what it asks.
struct Due {
    at: Time,
    is_full: bool,
}

/// What a probe of this size carries that left with a burst.
fn token_of(burst_at: Time, size: u16) -> u64 {
    burst_at.as_nanos() << 16 | u64::from(size)
}
