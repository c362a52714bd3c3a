use core::net::Ipv4Addr;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);
/// Sealed, what an IPv4 packet of so many bytes carries.
const OUTER: u16 = 28;

fn limit(mtu: u16) -> PathLimit {
    PathLimit::new(mtu, Ipv4Addr::LOCALHOST.into())
}

/// A path whose echoes take `delay`, and what it does to packets.
struct World {
    mtu: PathMtu,
    carries: u16,
    delay: Duration,
    /// Of a packet by its number: whether it is lost whatever its size.
    loses: Box<dyn FnMut(u64) -> bool>,
    now: Time,
    tick: Duration,
    count: u64,
    probe_bytes: u64,
    /// Tokens under way.
    echoes: BTreeSet<(Time, u64)>,
    /// Data under way to the sender's knowledge: when its report comes, size, when it was sent.
    reports: BTreeSet<(Time, u16, Time, bool)>,
    unreported: BTreeSet<(Time, u16)>,
    /// Sizes in use since the last look.
    used: BTreeSet<u16>,
}

impl World {
    fn new(port: u16, carries: u16, delay: Duration) -> Self {
        let mut mtu = PathMtu::default();
        mtu.open(limit(port));
        Self {
            mtu,
            carries,
            delay,
            loses: Box::new(|_| false),
            now: Time(1_000_000_000),
            tick: MS,
            count: 0,
            probe_bytes: 0,
            echoes: BTreeSet::new(),
            reports: BTreeSet::new(),
            unreported: BTreeSet::new(),
            used: BTreeSet::new(),
        }
    }

    fn losing(mut self, loses: impl FnMut(u64) -> bool + 'static) -> Self {
        self.loses = Box::new(loses);
        self
    }

    fn timing(&self) -> Timing {
        Timing::new(Some((self.delay, self.delay / 20)))
    }

    fn passes(&mut self, size: u16) -> bool {
        self.count += 1;
        let lost = (self.loses)(self.count);
        !lost && size <= self.carries
    }

    fn unreported(&self) -> Unreported {
        let long = self.unreported.iter().rev().find(|(_, size)| *size > FLOOR);
        Unreported {
            since: self.unreported.first().map(|(at, _)| *at),
            newest_long: long.map(|(at, _)| *at),
        }
    }

    /// A data packet of this size, or of the size in use if that is smaller.
    fn data(&mut self, size: u16) {
        let size = size.min(self.mtu.mtu());
        let passes = self.passes(size);
        self.unreported.insert((self.now, size));
        self.reports
            .insert((self.now + self.delay + MS * 5, size, self.now, passes));
    }

    /// What the peer tells: of what passed, and that what was sent before is lost.
    fn report(&mut self) {
        let due = |of: &(Time, u16, Time, bool)| of.0 <= self.now;
        let due: Vec<_> = self.reports.iter().copied().filter(due).collect();
        let Some(newest) = due.iter().filter(|one| one.3).map(|one| one.2).max() else {
            return;
        };
        for &(_, size, sent_at, _) in due.iter().filter(|one| one.3) {
            self.mtu.arrived(size - OUTER, sent_at);
        }
        for one in due {
            if one.2 <= newest {
                self.reports.remove(&one);
                if !one.3 {
                    self.mtu.lost(one.1 - OUTER, one.2);
                }
            }
        }
        self.unreported.retain(|(sent_at, _)| *sent_at > newest);
    }

    fn step(&mut self, by: Duration) {
        self.now += by;
        while let Some(&(at, token)) = self.echoes.first()
            && at <= self.now
        {
            self.echoes.pop_first();
            assert!(self.mtu.echoed(token, self.now));
            assert!(!self.mtu.echoed(token, self.now), "once");
        }
        self.report();
        let (timing, unreported) = (self.timing(), self.unreported());
        self.mtu.poll(timing, unreported, self.now);
        while let Some(probe) = self.mtu.take_probe() {
            let size = probe.mtu.unwrap_or(100);
            assert!(self.mtu.limit().is_some_and(|limit| size <= limit.mtu()));
            self.probe_bytes += u64::from(size);
            self.mtu.sent(probe);
            if self.passes(size) {
                self.echoes.insert((self.now + self.delay, probe.token));
            }
        }
        self.used.insert(self.mtu.mtu());
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step(self.tick);
        }
    }

    /// Data of one size, one each so often.
    fn flow(&mut self, time: Duration, size: u16, every: Duration) {
        let until = self.now + time;
        let mut next = self.now;
        while self.now < until {
            if self.now >= next {
                self.data(size);
                next = self.now + every;
            }
            self.step(self.tick);
        }
    }

    fn mtu(&self) -> u16 {
        self.mtu.mtu()
    }

    fn state(&self) -> State {
        self.mtu.view().state
    }
}

/// Near enough: never more than passes, and short of it by less than the precision.
fn is_found(world: &World, port: u16) -> bool {
    let best = world.carries.min(port);
    world.mtu() <= best && best - world.mtu() <= sizes::PRECISION
}

#[test]
fn a_whole_path_is_known_after_a_round_trip() {
    let mut world = World::new(1_500, 1_500, MS * 40);
    world.step(MS);
    assert_eq!((world.mtu(), world.state()), (BASE, State::Base));
    assert_eq!(world.mtu.payload_to_tell(), 1_414);
    world.run(MS * 40);
    assert_eq!((world.mtu(), world.state()), (1_500, State::SearchComplete));
    let (before, bytes) = (world.mtu.view(), world.probe_bytes);
    world.flow(RAISE_AFTER * 2, 1_500, MS * 10);
    let after = world.mtu.view();
    assert_eq!((after.probes, world.probe_bytes), (before.probes, bytes));
    assert_eq!((after.acked, after.lost), (before.probes, 0));
}

#[test]
fn what_the_links_of_the_world_carry_is_found() {
    for (carries, finds) in [
        (1_492, 1_492),
        (1_480, 1_480),
        (1_450, 1_450),
        (1_428, 1_428),
        (1_420, 1_420),
        (1_400, 1_400),
        (1_280, 1_280),
    ] {
        let mut world = World::new(1_500, carries, MS * 40);
        world.run(MS * 42);
        assert!(
            world.mtu() >= 1_280 && carries - world.mtu() < 120,
            "{carries}"
        );
        world.run(Duration::from_secs(1));
        assert_eq!(world.mtu(), finds);
        assert_eq!(world.state(), State::SearchComplete);
        assert!(world.probe_bytes < 60_000, "{}", world.probe_bytes);
        assert_eq!(world.mtu.view().black_holes, 0);
    }
}

#[test]
fn a_path_below_the_base_is_an_error_that_works() {
    let mut world = World::new(1_500, 1_006, MS * 40);
    world.run(Duration::from_secs(3));
    assert_eq!((world.mtu(), world.state()), (1_006, State::Error));
    world.carries = 1_500;
    world.run(RAISE_AFTER + Duration::from_secs(1));
    assert_eq!((world.mtu(), world.state()), (1_500, State::SearchComplete));
}

#[test]
fn more_is_found_by_the_timer() {
    let mut world = World::new(1_500, 1_400, MS * 40);
    world.run(Duration::from_secs(2));
    assert_eq!(world.mtu(), 1_400);
    world.tick = MS * 10;
    let bytes = world.probe_bytes;
    world.run(RAISE_AFTER * 10);
    // 120 bit/s.
    assert!(world.probe_bytes - bytes < 10 * 10_000);
    assert_eq!((world.mtu(), world.state()), (1_400, State::SearchComplete));
    world.carries = 1_420;
    world.run(RAISE_AFTER + Duration::from_secs(2));
    assert!(is_found(&world, 1_500), "{}", world.mtu());
}

/// Of each kind of traffic: how soon a path that shrinks is found, in round trips and beyond.
#[test]
fn a_path_that_shrinks_is_found() {
    for delay in [MS * 2, MS * 40, MS * 200, MS * 600] {
        for (size, every) in [(1_500, MS), (1_500, MS * 200), (1_460, MS * 20)] {
            let mut world = World::new(1_500, 1_500, delay);
            world.flow(Duration::from_secs(3), size, every);
            assert_eq!(world.mtu(), 1_500);
            world.carries = 1_300;
            let shrunk = world.now;
            while world.mtu() > 1_300 {
                world.flow(MS, size, every);
                let took = world.now.since(shrunk);
                let most = delay * 3 + MS * 350;
                assert!(took < most, "{delay:?} {size} {every:?}: {took:?}");
            }
            world.flow(Duration::from_secs(5), size, every);
            assert!(is_found(&world, 1_500), "{}", world.mtu());
            assert_eq!(world.mtu.view().black_holes, 1);
        }
    }
}

#[test]
fn long_packets_lost_among_short_ones_are_found_too() {
    let mut world = World::new(1_500, 1_500, MS * 40);
    world.run(Duration::from_secs(1));
    world.carries = 1_400;
    let mut long = 0;
    while world.mtu() > 1_400 {
        for size in [100, 1_350, 600, 1_450] {
            world.data(size);
            world.step(MS * 5);
        }
        long += 1;
        assert!(long < 20);
    }
    assert!(is_found(&world, 1_500));
}

#[test]
fn an_outage_is_no_small_mtu_and_costs_little() {
    let mut world = World::new(1_500, 1_500, MS * 40);
    world.flow(Duration::from_secs(1), 1_500, MS);
    world.carries = 0;
    let bytes = world.probe_bytes;
    world.flow(Duration::from_secs(60), 1_500, MS * 100);
    assert_eq!(world.mtu(), 1_500);
    assert!(
        world.probe_bytes - bytes < 25_000,
        "{}",
        world.probe_bytes - bytes
    );
    world.carries = 1_500;
    world.flow(Duration::from_secs(10), 1_500, MS * 10);
    let view = world.mtu.view();
    assert_eq!((view.mtu, view.black_holes), (1_500, 0));
    assert_eq!(view.state, State::SearchComplete);
    // It came back smaller: that is found.
    world.carries = 0;
    world.flow(Duration::from_secs(3), 1_500, MS * 10);
    world.carries = 1_280;
    world.flow(Duration::from_secs(4), 1_500, MS * 10);
    assert_eq!(world.mtu(), 1_280);
}

#[test]
fn a_path_opened_anew_is_used_on_and_confirmed() {
    let mut world = World::new(1_500, 1_400, MS * 40);
    world.run(Duration::from_secs(1));
    world.mtu.open(limit(1_500));
    assert_eq!(world.mtu(), 1_400);
    world.run(Duration::from_secs(2));
    assert_eq!((world.mtu(), world.mtu.view().black_holes), (1_400, 0));
    world.carries = 1_300;
    world.mtu.open(limit(1_500));
    world.run(MS * 300);
    assert!(world.mtu() <= 1_300);
    // Another port is another path.
    world.mtu.open(limit(1_450));
    assert_eq!((world.mtu(), world.state()), (BASE, State::Base));
}

#[test]
fn a_pinned_path_is_not_probed() {
    let mut world = World::new(1_500, 1_500, MS * 40);
    world.mtu.open(limit(1_500).pinned(9_000));
    assert_eq!(world.mtu(), 1_500);
    world.mtu.open(limit(1_500).pinned(1_400));
    world.carries = 1_000;
    world.flow(Duration::from_secs(10), 1_400, MS);
    assert_eq!((world.mtu(), world.state()), (1_400, State::Disabled));
    assert_eq!(world.mtu.view().probes, 0);
    assert_eq!(world.mtu.payload(), 1_314);
}

#[test]
fn nobody_raises_the_mtu_by_echoes_that_were_not_asked_for() {
    let mut mtu = PathMtu::default();
    assert!(!mtu.echoed(9_000, Time::ZERO));
    mtu.open(limit(1_500));
    mtu.poll(Timing::default(), Unreported::default(), Time(5 << 16));
    let probe = mtu.take_probe().expect("it asks");
    assert_eq!(probe.mtu, Some(1_500));
    assert!(!mtu.echoed(probe.token, Time(6 << 16)), "it has not left");
    mtu.sent(probe);
    for token in [
        probe.token ^ 1,
        probe.token | 0xffff,
        probe.token + (1 << 16),
        9_000,
    ] {
        assert!(!mtu.echoed(token, Time(6 << 16)));
    }
    assert_eq!(mtu.mtu(), BASE);
    assert!(mtu.echoed(probe.token, Time(6 << 16)));
    assert_eq!(mtu.mtu(), 1_500);
}

/// Losses as radio links have them: a chain with runs of this mean length.
fn gilbert(seed: u64, loss: f64, run: f64) -> impl FnMut(u64) -> bool {
    let mut state = seed | 1;
    let mut is_bad = false;
    move |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let chance = (state >> 11) as f64 / (1u64 << 53) as f64;
        is_bad = if is_bad {
            chance >= 1.0 / run
        } else {
            chance < loss / (1.0 - loss) / run
        };
        is_bad
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Chance does not fool it: on a path that loses up to 5 %, in runs or singly, with outages and
    /// any traffic, what is in use never falls, once it was found.
    #[test]
    fn no_loss_is_taken_for_a_small_mtu(
        seed: u64,
        loss in 0.001f64..0.05,
        run in 1.0f64..4.0,
        delay_ms in 1u32..300,
        every_ms in 1u32..50,
        size in 600u16..1_500,
        outage_ms in 0u32..1_500,
    ) {
        let mut world = World::new(1_500, 1_500, MS * delay_ms).losing(gilbert(seed, loss, run));
        world.flow(Duration::from_secs(10), size, MS * every_ms);
        world.used.clear();
        let found = world.mtu();
        world.carries = 0;
        world.flow(MS * outage_ms, size, MS * every_ms);
        world.carries = 1_500;
        world.flow(Duration::from_secs(50), size, MS * every_ms);
        prop_assert!(found >= 1_450, "{}", found);
        prop_assert_eq!(world.used.first(), Some(&found));
        prop_assert_eq!(world.mtu.view().black_holes, 0);
    }

    /// Whatever a path carries, by then and later, it is found, and nothing beyond it is used.
    #[test]
    fn what_a_path_carries_is_found(
        seed: u64,
        port in 577u16..9_001,
        carries in prop::collection::vec(577u16..9_001, 1..4),
        delay_ms in 1u32..300,
        loss in 0.0f64..0.02,
    ) {
        let mut world = World::new(port, carries[0], MS * delay_ms).losing(gilbert(seed, loss, 1.0));
        world.tick = MS * 20;
        for carries in carries {
            world.carries = carries;
            // Growth is found by the timer alone, if it reaches a common size.
            world.flow(RAISE_AFTER + Duration::from_secs(30), 9_000, MS * 100);
            let best = carries.min(port);
            let has_grown_little = sizes::above(world.mtu(), port).last() > Some(&best);
            prop_assert!(world.mtu() <= best);
            prop_assert!(
                is_found(&world, port) || has_grown_little,
                "{} of {}", world.mtu(), carries
            );
        }
    }

    /// Any calls in any order: the size in use stays in its bounds.
    #[test]
    fn any_calls_keep_the_bounds(
        port in 68u16..9_601,
        calls in prop::collection::vec((0u8..8, any::<u64>(), any::<u16>()), 1..400),
    ) {
        let mut mtu = PathMtu::default();
        mtu.open(limit(port));
        let mut now = Time::ZERO;
        let mut tokens = vec![];
        for (call, number, size) in calls {
            match call {
                0 => now += Duration::from_micros(number % 3_000_000),
                1 => mtu.poll(Timing::default(), Unreported::default(), now),
                2 => {
                    let silent = Unreported { since: Some(now - MS * 100), newest_long: Some(now) };
                    mtu.poll(Timing::new(Some((MS, MS))), silent, now);
                }
                3 => while let Some(probe) = mtu.take_probe() {
                    prop_assert!(probe.mtu.is_none_or(|size| size <= port));
                    match number % 5 {
                        0 => {
                            mtu.not_sent(probe);
                            break;
                        }
                        1 if probe.may_wait => mtu.put_off(now),
                        _ => {
                            mtu.sent(probe);
                            tokens.push(probe.token);
                        }
                    }
                },
                4 => {
                    let token = tokens.get(number as usize % tokens.len().max(1)).copied();
                    mtu.echoed(token.unwrap_or(number), now);
                }
                5 => mtu.arrived(size, Time(number % now.as_nanos().max(1))),
                6 => (0..5).for_each(|step| mtu.lost(size, now - MS * (step * 10))),
                _ => mtu.open(limit(port)),
            }
            let view = mtu.view();
            prop_assert!(view.mtu <= port && view.mtu >= port.min(FLOOR), "{view:?}");
            prop_assert!(view.acked + view.lost <= view.probes);
            let _ = mtu.poll_timeout(Timing::default(), Unreported::default());
        }
    }
}
