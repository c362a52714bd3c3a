//! The plan: how much repair a stream sends, into how small shards it is cut, and why.
//!
//! [`decide`] is a pure function: what was planned before, what is known of the path, and the time
//! give what is planned now. So each decision can be replayed: a [`Decision`] holds all that it was
//! made from, and [`Decision::replay`] makes it again.
//!
//! | file | what |
//! |---|---|
//! | `inputs` | [`Inputs`]: the path's figures, each with count and age, and the limits |
//! | `loss` | from losses to the rows and columns of the repair table |
//! | `split` | from losses, round trip and rate to the size of shards |
//! | `load` | [`LoadMeter`]: how busy crypto units are |
//! | `breaker` | the circuit breaker: a ceiling for all that is added |
//! | `steps` | up at once, down one step a second; back and forth is damped |
//! | `decide` | puts them together |
//! | `record` | [`Decision`], and the ring that keeps the last of them |
//!
//! Repair goes up at once, because a path that has begun to lose does harm at once, and comes down one
//! step a second, because estimates waver; n goes up when it has been too low for 400 ms, because
//! every flow begins slowly. Two things are no steps: standing repair stops at once while others hold
//! the path's queue, and what is added stops at once in an outage.

mod breaker;
mod decide;
mod inputs;
mod load;
mod loss;
mod record;
mod split;
mod steps;

use core::time::Duration;

pub use self::breaker::Breaker;
pub use self::decide::decide;
pub use self::inputs::{Figure, Inputs, Limits};
pub use self::load::LoadMeter;
pub use self::record::{DECISIONS_KEPT, Decision, Decisions};
pub use self::steps::{Held, Level, Pace};

/// How a stream is repaired, by configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RepairMode {
    /// Not at all.
    Off,
    /// As the path's losses need it.
    #[default]
    Auto,
    /// One repair shard for every so many source shards, over a window of so many.
    Fixed {
        /// Source shards for each repair shard.
        every: u8,
        /// Source shards that a repair shard covers.
        window: u8,
    },
}

/// A rate of repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Source shards for each repair shard: s.
    pub every: u8,
    /// Source shards that a repair shard covers: W.
    pub window: u8,
}

/// What a path is like, in one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Label {
    /// What is lost is rare enough to be asked for.
    #[default]
    Clean,
    /// Shards are lost often, mostly one at a time.
    Lossy,
    /// Shards are lost often, and in runs.
    Bursty,
    /// Nothing that was sent lately was acknowledged.
    Outage,
}

impl Label {
    /// All of them.
    pub const ALL: [Label; 4] = [Label::Clean, Label::Lossy, Label::Bursty, Label::Outage];

    /// The word.
    pub const fn name(self) -> &'static str {
        match self {
            Label::Clean => "CLEAN",
            Label::Lossy => "LOSSY",
            Label::Bursty => "BURSTY",
            Label::Outage => "OUTAGE",
        }
    }
}

/// The input that led to a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Nothing has happened yet.
    #[default]
    Start,
    /// The configuration, the path's MTU, or what the peer can decode.
    Limits,
    /// The share of shards lost.
    Loss,
    /// How often runs of losses begin.
    Events,
    /// How long those runs are.
    Burst,
    /// The round trip.
    RoundTrip,
    /// The delivery rate.
    Rate,
    /// The load of the crypto units.
    Crypto,
    /// Others hold the bottleneck's queue, or do so no more.
    Queue,
    /// So much is lost that the circuit breaker has opened, or it closes again.
    Breaker,
    /// Nothing is acknowledged any more, or something is again.
    Silence,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 11] = [
        Reason::Start,
        Reason::Limits,
        Reason::Loss,
        Reason::Events,
        Reason::Burst,
        Reason::RoundTrip,
        Reason::Rate,
        Reason::Crypto,
        Reason::Queue,
        Reason::Breaker,
        Reason::Silence,
    ];

    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Start => "start",
            Reason::Limits => "limits",
            Reason::Loss => "loss",
            Reason::Events => "events",
            Reason::Burst => "burst",
            Reason::RoundTrip => "round_trip",
            Reason::Rate => "rate",
            Reason::Crypto => "crypto",
            Reason::Queue => "queue",
            Reason::Breaker => "breaker",
            Reason::Silence => "silence",
        }
    }
}

/// What is decided for a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What the path is like.
    pub label: Label,
    /// Shards that a payload as long as the path allows is cut into: n of a single long frame. 0
    /// before the first decision.
    pub split: u8,
    /// Most payload of a shard, in bytes.
    pub payload: u16,
    /// Repair sent whether something was lost or not.
    pub standing: Option<Repair>,
    /// Repair sent for [`REACTIVE_FOR`] after a loss where there is no standing one.
    pub reactive: Option<Repair>,
    /// How long the first shard that no repair covers waits for one, in milliseconds.
    pub delay_ms: u8,
    /// Share of `overhead_limit` that may be added, in thousandths.
    pub added_permille: u16,
    /// Which input led to it.
    pub reason: Reason,
}

impl Plan {
    /// Whether something else is to be done, whatever the reason.
    pub fn differs(&self, other: &Plan) -> bool {
        Plan {
            reason: other.reason,
            ..*self
        } != *other
    }
}

/// For how long repair stands after a rare loss. Losses come together: on real links a lossy
/// 15 ms window is followed by another in 24 to 35 of 100 cases, against 0.5 to 4 otherwise.
pub const REACTIVE_FOR: Duration = Duration::from_millis(100);

/// What a decision is made from beside the inputs: the last plan, and what led to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The plan.
    pub plan: Plan,
    /// Row of the repair table, from 1; 0 without standing repair.
    pub loss: Level,
    /// Column of the repair table, from 0.
    pub burst: Level,
    /// Doublings of n.
    pub split: Level,
    /// [`Plan::delay_ms`] in steps.
    pub delay: Level,
    /// Rows of the repair table that the load of the crypto units takes back; n is 1 with any.
    pub relief: Level,
    /// Since when n has been too low.
    pub split_due: Held,
    /// When levels may fall, but for those with a pace of their own.
    pub pace: Pace,
    /// When n's may.
    pub split_pace: Pace,
    /// When [`Self::relief`] may.
    pub relief_pace: Pace,
    /// The circuit breaker.
    pub breaker: Breaker,
    /// More is lost, or in longer runs, than repair can give back.
    pub is_hopeless: bool,
    /// Delivery rate and round trip when n was right last.
    pub split_at: (u64, u64),
}

#[cfg(test)]
mod tests;
