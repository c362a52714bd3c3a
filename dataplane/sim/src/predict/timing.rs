//! What a predictor costs: its calls on a channel, once more and by themselves, against the clock.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::Serialize;
use shardgate_core::predict::{Filler, Hole, Outcome, Outlook, Plan, Predictor};
use shardgate_core::time::Time;

use super::channel::Channel;
use super::policies::Judged;
use super::replay::replay;

/// How often the calls are made; the quickest counts, as all else is the machine's doing.
const ROUNDS: usize = 5;

/// What a policy costs on the machine that it was judged on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Nanoseconds for each shard that arrives.
    pub ns_per_arrival: f64,
    /// Nanoseconds for each hole, with all that is planned for it and learned from it; absent if there
    /// was none.
    pub ns_per_hole: Option<f64>,
}

/// A call, as the core made it.
#[derive(Clone, Copy)]
enum Call {
    Arrived(u8, u32, Time),
    Plan(Hole, Outlook, Duration),
    Learn(Hole, Outcome, Outlook, Time),
    Retract(Hole),
    Filled(Hole, Filler, Duration),
}

struct Listening<P>(P, Rc<RefCell<Vec<Call>>>);

impl<P: Predictor> Predictor for Listening<P> {
    fn arrived(&mut self, path: u8, sent_at_us: u32, received_at: Time) {
        let call = Call::Arrived(path, sent_at_us, received_at);
        self.1.borrow_mut().push(call);
        self.0.arrived(path, sent_at_us, received_at);
    }

    fn plan(&mut self, hole: &Hole, outlook: &Outlook, age: Duration) -> Plan {
        self.1.borrow_mut().push(Call::Plan(*hole, *outlook, age));
        self.0.plan(hole, outlook, age)
    }

    fn learn(&mut self, hole: &Hole, outcome: Outcome, outlook: &Outlook, now: Time) {
        let call = Call::Learn(*hole, outcome, *outlook, now);
        self.1.borrow_mut().push(call);
        self.0.learn(hole, outcome, outlook, now);
    }

    fn retract(&mut self, hole: &Hole) {
        self.1.borrow_mut().push(Call::Retract(*hole));
        self.0.retract(hole);
    }

    fn filled(&mut self, hole: &Hole, by: Filler, age: Duration) {
        self.1.borrow_mut().push(Call::Filled(*hole, by, age));
        self.0.filled(hole, by, age);
    }
}

/// What a policy costs on a channel, at its default setting.
pub(super) fn cost(policy: &Judged, channel: &Channel) -> Cost {
    let begin = || policy.begin(channel, None);
    let calls = Rc::new(RefCell::new(Vec::new()));
    replay(channel, Listening(begin(), Rc::clone(&calls)));
    let calls = calls.borrow();
    let is_arrival = |call: &&Call| matches!(call, Call::Arrived(..));
    let arrivals: Vec<Call> = calls.iter().filter(is_arrival).copied().collect();
    let is_hole = |call: &&Call| matches!(call, Call::Plan(_, _, age) if age.is_zero());
    let holes = calls.iter().filter(is_hole).count();
    let quickest = |calls: &[Call]| {
        let rounds = (0..ROUNDS).map(|_| time(begin(), calls));
        rounds.min().unwrap_or_default().as_nanos() as f64
    };
    let (all, alone) = (quickest(&calls), quickest(&arrivals));
    Cost {
        ns_per_arrival: alone / arrivals.len().max(1) as f64,
        ns_per_hole: (holes > 0).then(|| (all - alone).max(0.0) / holes as f64),
    }
}

fn time(mut predictor: impl Predictor, calls: &[Call]) -> Duration {
    let begun = Instant::now();
    for call in calls {
        match call {
            Call::Arrived(path, sent, at) => predictor.arrived(*path, *sent, *at),
            Call::Plan(hole, outlook, age) => {
                black_box(predictor.plan(hole, outlook, *age));
            }
            Call::Learn(hole, outcome, outlook, now) => {
                predictor.learn(hole, *outcome, outlook, *now);
            }
            Call::Retract(hole) => predictor.retract(hole),
            Call::Filled(hole, by, age) => predictor.filled(hole, *by, *age),
        }
    }
    let spent = begun.elapsed();
    black_box(&predictor);
    spent
}
