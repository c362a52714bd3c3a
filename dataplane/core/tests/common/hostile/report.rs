//! What a run has shown.

use std::fmt;
use std::time::Duration;

use shardgate_core::drop_reason::Drops;
use shardgate_core::receiver::ReceiverStats;

use super::attacker::ATTACKS;

/// By how much buffers in use may differ from one moment to another: two rounds of the flow.
const BUFFERS_GROWTH_MAX: usize = 32;

/// Bursts of datagrams, and the time that each took.
#[derive(Debug)]
pub struct Bursts {
    datagrams: u64,
    /// Nanoseconds for each datagram, of each burst.
    each: Vec<u32>,
}

impl Bursts {
    /// Room for `count` of them.
    pub fn with_capacity(count: u64) -> Self {
        Self {
            datagrams: 0,
            each: Vec::with_capacity(count as usize),
        }
    }

    pub fn add(&mut self, datagrams: usize, time: Duration) {
        self.datagrams += datagrams as u64;
        if let Some(each) = time.as_nanos().checked_div(datagrams as u128) {
            self.each.push(u32::try_from(each).unwrap_or(u32::MAX));
        }
    }

    /// Nanoseconds for a datagram in the median burst, which whoever else wants the CPU moves least.
    fn median(&self) -> u32 {
        median(&self.each)
    }

    /// What all of them took at that.
    fn time(&self) -> f64 {
        self.datagrams as f64 * f64::from(self.median())
    }
}

fn median(values: &[u32]) -> u32 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// The victim at one moment.
#[derive(Debug)]
pub struct Look {
    pub drops: Drops,
    pub stats: ReceiverStats,
    /// Shards kept for incomplete frames, and frames held out of order.
    pub kept: usize,
    pub held: usize,
    /// Buffers in use at both gateways and on the way.
    pub buffers: usize,
}

/// What a run has shown.
#[derive(Debug)]
pub struct Report {
    pub before: Look,
    pub after: Look,
    /// While the slices ran.
    pub allocations: u64,
    /// Pairs of slices.
    pub pairs: usize,
    pub attacks: [Bursts; ATTACKS.len()],
    /// What came of the flow while it was alone, and under attack.
    pub alone: Bursts,
    pub attacked: Bursts,
    pub offered: u64,
    pub delivered: u64,
    pub twice: u64,
    pub wrong: u64,
    /// Buffers that did not come back when the gateways were gone.
    pub leaked: usize,
}

impl Report {
    /// Hostile datagrams that came.
    fn hostile(&self) -> u64 {
        self.attacks.iter().map(|bursts| bursts.datagrams).sum()
    }

    /// Hostile datagrams of a kind that were counted as they must be.
    fn dropped(&self, attack: usize) -> u64 {
        let reason = ATTACKS[attack].dies_of;
        self.after.drops.get(reason) - self.before.drops.get(reason)
    }

    /// Panics if anything but the flow has left a trace, or the flow has lost anything.
    pub fn assert_harmless(&self, hostile_min: u64) {
        let came = self.hostile();
        assert!(came >= hostile_min, "{came} of {hostile_min}\n{self}");
        for (place, attack) in ATTACKS.iter().enumerate() {
            let sent = self.attacks[place].datagrams;
            assert_eq!(self.dropped(place), sent, "{}\n{self}", attack.name);
        }
        let dropped = self.after.drops.total() - self.before.drops.total();
        assert_eq!(dropped, came, "nothing else died\n{self}");
        assert_eq!(
            (self.delivered, self.twice, self.wrong),
            (self.offered, 0, 0),
            "{self}"
        );
        assert_eq!((self.allocations, self.leaked), (0, 0), "{self}");
        let kept = |look: &Look| (look.kept, look.held, look.stats.kept_high_water);
        assert_eq!(kept(&self.before), kept(&self.after), "{self}");
        assert_eq!(self.before.stats.holes, self.after.stats.holes, "{self}");
        let grown = self.after.buffers.saturating_sub(self.before.buffers);
        assert!(grown <= BUFFERS_GROWTH_MAX, "{self}");
    }

    /// What the flow gets for its time under attack, of what it gets alone: the quartiles of all
    /// pairs of slices.
    fn goodput_ratio(&self) -> [f64; 3] {
        let slice = |bursts: &Bursts| bursts.each.len().div_ceil(self.pairs).max(1);
        let alone = self.alone.each.chunks(slice(&self.alone));
        let attacked = self.attacked.each.chunks(slice(&self.attacked));
        let mut ratios: Vec<f64> = alone
            .zip(attacked)
            .map(|(alone, attacked)| f64::from(median(alone)) / f64::from(median(attacked).max(1)))
            .collect();
        ratios.sort_by(f64::total_cmp);
        [1, 2, 3].map(|quarter| ratios[quarter * (ratios.len() - 1) / 4])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:36}{:18}{:>10}{:>9}",
            "came", "dropped as", "dropped", "ns each"
        )?;
        for (place, attack) in ATTACKS.iter().enumerate() {
            let (name, reason) = (attack.name, attack.dies_of.name());
            let (dropped, each) = (self.dropped(place), self.attacks[place].median());
            writeln!(f, "{name:36}{reason:18}{dropped:>10}{each:>9}")?;
        }
        for (name, flow) in [("alone", &self.alone), ("under attack", &self.attacked)] {
            let (name, count) = (format!("the flow's, {name}"), flow.datagrams);
            writeln!(
                f,
                "{name:36}{:18}{count:>10}{:>9}",
                "(taken)",
                flow.median()
            )?;
        }
        let [lower, ratio, upper] = self.goodput_ratio();
        let on_flow = self.attacked.time();
        let on_all = on_flow + self.attacks.iter().map(Bursts::time).sum::<f64>();
        let (before, after) = (&self.before, &self.after);
        writeln!(
            f,
            "goodput of the flow for its time: {ratio:.2} of that alone (quartiles of {} pairs: {lower:.2}, {upper:.2})\n\
             time left to it: {:.0} %, with {:.1} hostile datagrams for each of its own\n\
             frames: {} offered, {} delivered, {} twice, {} wrong\n\
             before and after: {} and {} shards kept (at most {} and {}), {} and {} frames held, {} and {} holes,\n\
             {} and {} buffers in use; {} lost in the end; {} allocations in between",
            self.pairs,
            on_flow / on_all * 100.0,
            self.hostile() as f64 / self.attacked.datagrams.max(1) as f64,
            self.offered,
            self.delivered,
            self.twice,
            self.wrong,
            before.kept,
            after.kept,
            before.stats.kept_high_water,
            after.stats.kept_high_water,
            before.held,
            after.held,
            before.stats.holes,
            after.stats.holes,
            before.buffers,
            after.buffers,
            self.leaked,
            self.allocations,
        )
    }
}
