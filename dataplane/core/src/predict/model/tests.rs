use proptest::prelude::*;

use super::super::RoundTrip;
use super::*;
use crate::estimate::noise::Noise;
use crate::limits::ASK_AFTER_MIN;

const MS: Duration = Duration::from_millis(1);

fn outlook(rtt_ms: u32) -> Outlook {
    Outlook {
        round_trip: Some(RoundTrip {
            smoothed: MS * rtt_ms,
            variance: MS,
            minimum: MS * rtt_ms,
        }),
        asks: true,
        repair_within: None,
    }
}

/// A stream of holes, 10 ms apart, whose fates the test decides.
struct Stream {
    model: Model,
    outlook: Outlook,
    number: u32,
}

impl Stream {
    fn new(config: ModelConfig) -> Self {
        Self {
            model: Model::new(config),
            outlook: outlook(40),
            number: 0,
        }
    }

    fn hole(&mut self, gap: u32) -> Hole {
        self.number += 1;
        Hole {
            number: self.number,
            opened_at: Time::ZERO + MS * 10 * self.number,
            gap,
            position: 0,
            path: 0,
            siblings: 0,
        }
    }

    fn plan(&mut self, hole: &Hole) -> Duration {
        (0..20).for_each(|n| {
            let at = hole.opened_at - MS / 2 * (20 - n);
            self.model.arrived(0, at.as_wire_us(), at);
        });
        let plan = self.model.plan(hole, &self.outlook, Duration::ZERO);
        let loss = plan.loss.expect("a model predicts");
        assert!((0.0..=1.0).contains(&loss));
        plan.ask_after
    }

    /// Comes so late: says whether it was asked for.
    fn late(&mut self, gap: u32, age: Duration) -> bool {
        let hole = self.hole(gap);
        let asked = self.plan(&hole) < age;
        self.come(&hole, age, asked);
        asked
    }

    fn come(&mut self, hole: &Hole, age: Duration, asked: bool) {
        let outcome = Outcome::Late { age, asked };
        let now = hole.opened_at + age;
        self.model.learn(hole, outcome, &self.outlook, now);
    }

    /// Never comes: says when it was asked for.
    fn lost(&mut self, gap: u32) -> Duration {
        let hole = self.hole(gap);
        let ask_after = self.plan(&hole);
        let now = hole.opened_at + MS * 9;
        self.model.learn(&hole, Outcome::Lost, &self.outlook, now);
        ask_after
    }
}

fn mean(times: &[Duration]) -> Duration {
    times.iter().sum::<Duration>() / times.len() as u32
}

#[test]
fn losses_that_look_like_losses_are_asked_for_at_once_and_others_are_waited_for() {
    let mut stream = Stream::new(ModelConfig::default());
    let mut noise = Noise(7);
    let (mut lost, mut late_asked) = (vec![], 0);
    for round in 0..6_000 {
        // Losses come three in a row, late ones alone.
        if round % 2 == 0 {
            let ask_after = stream.lost(3);
            if round >= 3_000 {
                lost.push(ask_after);
            }
        } else {
            let age = MS + Duration::from_secs_f64(noise.uniform() * 7e-3);
            late_asked += u32::from(stream.late(1, age) && round >= 3_000);
        }
    }
    assert!(mean(&lost) < MS, "{:?}", mean(&lost));
    assert!(late_asked < 150, "{late_asked} of 1,500");
    let reliability = stream.model.reliability();
    assert!(reliability.brier().unwrap() < 0.05);
    assert!(reliability.calibration_error().unwrap() < 0.1);
    assert!(reliability.ask_ms < 0.5 * reliability.rack_ms);
    assert!(!reliability.is_fallen_back);
    // The ablation cannot tell them.
    let mut frozen = Stream::new(ModelConfig {
        frozen: true,
        ..ModelConfig::default()
    });
    let mut noise = Noise(7);
    for _ in 0..3_000 {
        frozen.lost(3);
        frozen.late(1, MS + Duration::from_secs_f64(noise.uniform() * 7e-3));
    }
    assert!(frozen.lost(3) > MS * 2);
}

#[test]
fn the_share_of_late_shards_asked_for_is_what_was_asked() {
    for alpha in [0.02, 0.05, 0.1] {
        let mut stream = Stream::new(ModelConfig {
            alpha,
            ..ModelConfig::default()
        });
        let mut noise = Noise(3);
        for _ in 0..20_000 {
            if noise.uniform() < 0.2 {
                stream.lost(1);
            } else {
                let age = Duration::from_secs_f64(noise.exponential() * 3e-3);
                stream.late(1, age.max(MS / 10));
            }
        }
        let told = stream.model.reliability();
        let share = told.late_asked as f64 / told.late as f64;
        assert!((share - f64::from(alpha)).abs() < 0.005, "{alpha}: {share}");
    }
}

#[test]
fn poison_is_forgotten_within_500_holes() {
    let mut stream = Stream::new(ModelConfig::default());
    let mut noise = Noise(5);
    for round in 0..4_000 {
        let age = MS / 2 + Duration::from_secs_f64(noise.uniform() * 3e-3);
        if round % 3 == 0 {
            stream.late(1, age);
        } else {
            stream.lost(1);
        }
    }
    let before: Vec<_> = (0..300).map(|_| stream.lost(1)).collect();
    for _ in 0..300 {
        // Just after it is asked for, whenever that is.
        let hole = stream.hole(1);
        let age = stream.plan(&hole) + MS / 10;
        stream.come(&hole, age, true);
    }
    assert!(stream.lost(1) > mean(&before) * 2, "it is poisoned");
    let after: Vec<_> = (0..10_000).map(|_| stream.lost(1)).collect();
    let limit = mean(&before) * 2;
    assert!(
        after[500..].iter().all(|&ask_after| ask_after <= limit),
        "{:?} before, {:?} after 500",
        mean(&before),
        after[500]
    );
}

#[test]
fn a_cold_model_asks_when_rack_would_begin_to() {
    let mut stream = Stream::new(ModelConfig::default());
    assert!(stream.lost(1) <= ASK_AFTER_MIN, "nothing was ever late");
    stream.late(1, MS * 3);
    let asked = stream.lost(1);
    assert!(asked > MS && asked <= MS * 10, "{asked:?}");
}

#[test]
fn a_look_learns_that_overtaken_shards_are_lost() {
    let mut stream = Stream::new(ModelConfig::default());
    let mut planned = vec![];
    // Four in a row are late in order, all but the second, or all.
    for round in 0..3_000 {
        let opened_at = Time::ZERO + MS * 20 * round;
        let holes = [0, 1, 2, 3].map(|position| Hole {
            opened_at,
            position,
            ..stream.hole(4)
        });
        for hole in &holes {
            stream.plan(hole);
        }
        let is_lost = round % 2 == 0;
        for hole in &holes {
            if !(is_lost && hole.position == 1) {
                stream.come(hole, MS * 3 + MS / 20 * hole.position, false);
            }
        }
        if is_lost {
            let plan = stream.model.plan(&holes[1], &stream.outlook, MS * 4);
            planned.push(plan.ask_after);
            let now = opened_at + MS * 9;
            let outlook = stream.outlook;
            stream.model.learn(&holes[1], Outcome::Lost, &outlook, now);
        }
    }
    let last = &planned[1_400..];
    assert!(mean(last) < MS * 5, "at once: {:?}", mean(last));
}

#[test]
fn another_path_leaves_a_tenth_of_what_was_known_of_lateness() {
    let mut stream = Stream::new(ModelConfig::default());
    (0..600).for_each(|_| {
        stream.late(1, MS * 2);
    });
    let before = stream.model.lateness.mass(Context::Single);
    let start = Time::ZERO + MS * 7_000;
    for n in 0..2_000 {
        let at = start + MS * n;
        stream.model.arrived(0, (at - MS * 30).as_wire_us(), at);
    }
    assert_eq!(stream.model.reliability().path_changes, 1);
    let after = stream.model.lateness.mass(Context::Single);
    assert!((after / before - PATH_CHANGE_KEEPS).abs() < 0.01);
}

#[test]
fn what_was_saved_is_restored_and_what_was_not_is_refused() {
    let mut stream = Stream::new(ModelConfig::default());
    for _ in 0..1_000 {
        stream.lost(3);
        stream.late(1, MS * 4);
    }
    let state = stream.model.save();
    let mut fresh = Model::new(ModelConfig::default());
    assert_eq!(fresh.restore(&state), Ok(()));
    assert_eq!(fresh.save(), state);
    assert_eq!(fresh.learned(), stream.model.learned());

    let refused = |state: &[u8]| {
        let mut model = Model::new(ModelConfig::default());
        let before = model.save();
        let error = model.restore(state).unwrap_err();
        assert_eq!(model.save(), before, "nothing changes");
        error
    };
    assert_eq!(refused(&[]), StateError::Length);
    assert_eq!(refused(&state[1..]), StateError::Length);
    let with = |at: usize, bytes: [u8; 4], is_sealed: bool| {
        let mut state = state;
        state[at..at + 4].copy_from_slice(&bytes);
        if is_sealed {
            let checksum = crc32c::crc32c(&state[..STATE_LEN - 4]);
            state[STATE_LEN - 4..].copy_from_slice(&checksum.to_be_bytes());
        }
        refused(&state)
    };
    assert_eq!(with(0, *b"elf\x7f", true), StateError::Version);
    assert_eq!(with(4, [0, 2, 0, 0], true), StateError::Version);
    assert_eq!(with(40, [1; 4], false), StateError::Checksum);
    assert_eq!(with(6, [0xff; 4], true), StateError::Range, "fates");
    for at in (10..STATE_LEN - 4).step_by(4) {
        for bad in [f32::NAN, f32::INFINITY, 1e30, -1e30] {
            assert_eq!(
                with(at, bad.to_be_bytes(), true),
                StateError::Range,
                "at {at}"
            );
        }
    }
}

#[test]
fn a_model_that_is_no_good_hands_over_to_rack_and_goes_on_learning() {
    let mut stream = Stream::new(ModelConfig::default());
    stream.model.watch.all.is_fallen_back = true;
    let hole = stream.hole(1);
    let rack = stream
        .model
        .rack
        .plan(&hole, &stream.outlook, Duration::ZERO);
    assert_eq!(stream.plan(&hole), rack.ask_after);
    for _ in 0..6_000 {
        stream.lost(3);
        stream.late(1, MS * 4);
    }
    assert!(
        !stream.model.reliability().is_fallen_back,
        "it was good all along"
    );
}

proptest! {
    /// Whatever it is told, in whatever order: no plan after the cap, none in the past, every
    /// probability one, and what it learned can be saved and restored.
    #[test]
    fn bounded_whatever_comes(
        steps in prop::collection::vec(
            (0u8..6, any::<u8>(), any::<u32>(), any::<u64>(), any::<bool>()),
            1..300,
        ),
        rtt_ms in 0u32..2_000,
    ) {
        let mut model = Model::new(ModelConfig::default());
        let outlook = if rtt_ms == 0 { Outlook::default() } else { outlook(rtt_ms) };
        let cap = MS * rtt_ms.max(if rtt_ms == 0 { 20 } else { 10 });
        for (kind, number, word, nanos, flag) in steps {
            let hole = Hole {
                number: u32::from(number),
                opened_at: Time(nanos),
                gap: word >> 3,
                position: word >> 7,
                path: word as u8,
                siblings: (word >> 8) as u8,
            };
            let age = Duration::from_nanos(nanos.rotate_left(17) >> (word % 40));
            match kind {
                0 => model.arrived(word as u8, word, Time(nanos)),
                1 | 2 => {
                    let age = if kind == 1 { Duration::ZERO } else { age };
                    let plan = model.plan(&hole, &outlook, age);
                    prop_assert!(plan.ask_after <= cap.max(age));
                    prop_assert!(plan.ask_after >= age);
                    prop_assert!(plan.look_after.is_none_or(|look| look < plan.ask_after));
                    prop_assert!(plan.loss.is_none_or(|loss| (0.0..=1.0).contains(&loss)));
                }
                3 => model.learn(&hole, Outcome::Late { age, asked: flag }, &outlook, Time(nanos)),
                4 => model.learn(&hole, Outcome::Lost, &outlook, Time(nanos)),
                _ if flag => model.filled(&hole, Filler::Repair, age),
                _ => model.filled(&hole, Filler::Repeat { after: age }, age),
            }
        }
        let state = model.save();
        prop_assert_eq!(model.restore(&state), Ok(()));
    }
}
