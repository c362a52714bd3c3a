//! The oracle: knows the fate of every shard, and is what no predictor can beat.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use shardgate_core::limits::HOLD_MAX;
use shardgate_core::predict::{Hole, Outcome, Outlook, Plan, Predictor};
use shardgate_core::time::Time;

use super::channel::Channel;
use crate::seeds::seed_for;

/// Asks at once for what is lost. Its knob is the share of late shards that it asks for all the same,
/// so that it has a point at every rate of needless requests.
pub(super) struct Oracle {
    /// Whether each hole of a path, in the order they open, is lost.
    fates: HashMap<(u64, u8), VecDeque<bool>>,
    wasted: f64,
}

impl Oracle {
    pub(super) fn new(channel: &Channel, wasted: f64) -> Self {
        let mut fates: HashMap<_, VecDeque<bool>> = HashMap::new();
        for &index in channel.openings() {
            let shard = channel.shards()[index as usize];
            let opened = channel.opened()[index as usize];
            let same_time = fates.entry((opened, shard.path)).or_default();
            same_time.push_back(shard.received.is_none());
        }
        Self { fates, wasted }
    }

    fn wastes(&self, hole: &Hole) -> bool {
        let luck = seed_for(u64::from(hole.number), &[hole.opened_at.as_nanos()]);
        (luck >> 11) as f64 / (1u64 << 53) as f64 <= self.wasted
    }
}

impl Predictor for Oracle {
    fn plan(&mut self, hole: &Hole, _outlook: &Outlook, _age: Duration) -> Plan {
        let key = (hole.opened_at.as_nanos(), hole.path);
        let is_lost = self.fates.get_mut(&key).and_then(VecDeque::pop_front);
        // A hole that it knows nothing of, it would ask for: a lost shard costs more.
        let is_lost = is_lost.unwrap_or(true);
        let asks = is_lost || self.wastes(hole);
        Plan {
            loss: Some(f32::from(u8::from(is_lost))),
            ..Plan::ask_after(if asks { Duration::ZERO } else { HOLD_MAX })
        }
    }

    fn learn(&mut self, _hole: &Hole, _outcome: Outcome, _outlook: &Outlook, _now: Time) {}
}
