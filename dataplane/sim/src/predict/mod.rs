//! The judge of predictors: the same shards, the same receiver and the same sender for all of them.
//!
//! | module | what it does |
//! |---|---|
//! | [`trace`] | reads traces of real channels, and what gateways recorded |
//! | [`generate`] | the project's own channels |
//! | [`channel`] | first transmissions and their fates: what both become |
//! | `replay` | plays a channel to the core's predictive buffer and answers its requests |
//! | `policies`, `oracle` | who is judged |
//! | [`tally`], [`delays`], [`watch`] | what a run is worth |
//! | [`timing`] | what a predictor costs |
//! | [`frontier`] | what each is worth at the same rate of needless requests |
//!
//! Each policy has one knob. It is swept, and policies are compared where they ask needlessly as
//! often as each other; never at a setting that suits one of them. The settings that are tuned on
//! [`generate::Recipe::TUNED_ON`] are reported with what they give on channels that were no part of the
//! tuning.

pub mod channel;
pub mod delays;
mod draft;
pub mod frontier;
pub mod generate;
mod judge;
mod oracle;
mod policies;
mod replay;
pub mod tally;
pub mod timing;
pub mod trace;
pub mod watch;

pub use self::judge::{
    ChannelReport, Options, PolicyReport, Report, Tuned, UnknownPolicy, Verdict, WORTH, judge,
    policy_names,
};

#[cfg(test)]
mod tests;
