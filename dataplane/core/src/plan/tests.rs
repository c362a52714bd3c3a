//! What the plan does with figures one by one, and what holds whatever they are.

use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::SHARD_PAYLOAD_MIN;
use crate::repair::WINDOW_MAX;
use crate::time::Time;

mod records;

const LIMITS: Limits = Limits {
    repair: RepairMode::Auto,
    asks: true,
    payload_max: 1_414,
    window_max: WINDOW_MAX as u16,
    shards_max: 64,
};

fn figure(value: u64) -> Figure {
    Figure::new(Some(value), 10_000, Some(Duration::ZERO))
}

/// A path of 2 Mbit/s and 100 ms that loses so much, in runs of so many, so often.
fn path(loss: f64, burst: f64, events: f64) -> Inputs {
    Inputs {
        limits: LIMITS,
        round_trip_us: figure(100_000),
        round_trip_min_us: figure(100_000),
        loss_ppm: figure((loss * 1e6) as u64),
        radio_loss_ppm: figure((loss * 1e6) as u64),
        burst_milli: figure((burst * 1e3) as u64),
        recent_burst_milli: figure((burst * 1e3) as u64),
        events_milli_per_s: figure((events * 1e3) as u64),
        since_loss_us: if loss > 0.0 {
            figure(1_000)
        } else {
            Figure::UNKNOWN
        },
        delivery_bytes_per_s: figure(250_000),
        queue_us: figure(0),
        reports: 1,
        ..Inputs::default()
    }
}

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

fn fresh(inputs: &Inputs) -> Plan {
    decide(&State::default(), inputs, at(0)).plan
}

/// After two seconds of it.
fn settled(inputs: &Inputs) -> State {
    (0..200).fold(State::default(), |state, n| {
        decide(&state, inputs, at(n * 10))
    })
}

fn repair(every: u8, window: u8) -> Option<Repair> {
    Some(Repair { every, window })
}

#[test]
fn a_clean_path_gets_the_longest_shards_and_nothing_else() {
    for inputs in [
        path(0.0, 0.0, 0.0),
        Inputs {
            limits: LIMITS,
            ..Inputs::default()
        },
    ] {
        let plan = fresh(&inputs);
        assert_eq!((plan.split, plan.payload), (1, 1_414));
        assert_eq!((plan.standing, plan.label), (None, Label::Clean));
        assert_eq!(plan.reactive, repair(4, 16));
        assert_eq!(plan.added_permille, 1_000);
    }
}

#[test]
fn rare_losses_are_asked_for_and_frequent_ones_repaired() {
    let near = |events| Inputs {
        round_trip_us: figure(20_000),
        ..path(0.01, 1.0, events)
    };
    let rare = fresh(&near(1.9));
    assert_eq!((rare.standing, rare.reactive), (None, repair(4, 16)));
    let frequent = fresh(&near(2.0));
    assert_eq!(
        (frequent.standing, frequent.reactive),
        (repair(20, 80), None)
    );
    assert_eq!(
        (frequent.label, frequent.reason),
        (Label::Lossy, Reason::Events)
    );
    // Nobody asks: what is rare is not made good otherwise.
    let mut mute = near(0.5);
    mute.limits.asks = false;
    assert_eq!(fresh(&mute).standing, repair(20, 60));
    // A request takes longer than a lane is held, or holds it up for much of the time.
    for (round_trip_ms, events, is_repaired) in [
        (700, 0.1, true),
        (700, 0.0, false),
        (500, 0.25, true),
        (500, 0.15, false),
        (40, 1.9, false),
    ] {
        let far = Inputs {
            round_trip_us: figure(round_trip_ms * 1_000),
            ..near(events)
        };
        assert_eq!(
            fresh(&far).standing.is_some(),
            is_repaired,
            "{round_trip_ms} ms, {events}"
        );
    }
}

#[test]
fn where_no_answer_comes_in_time_repair_begins_before_the_first_loss() {
    let far = |count| Inputs {
        round_trip_us: figure(600_000),
        radio_loss_ppm: Figure::new(Some(0), count, Some(Duration::ZERO)),
        ..path(0.0, 0.0, 0.0)
    };
    assert_eq!(fresh(&far(0)).standing, repair(20, 80));
    assert_eq!(fresh(&far(3_999)).standing, repair(20, 80));
    assert_eq!(fresh(&far(4_000)).standing, None);
}

#[test]
fn runs_ask_for_long_windows_and_are_named() {
    let plan = fresh(&path(0.01, 3.0, 10.0));
    assert_eq!(
        (plan.label, plan.standing),
        (Label::Bursty, repair(16, 192))
    );
    let mut inputs = path(0.01, 3.0, 10.0);
    inputs.limits.window_max = 100;
    assert_eq!(fresh(&inputs).standing, repair(16, 100));
    inputs.limits.window_max = 15;
    assert_eq!(fresh(&inputs).standing, None);
    // Too much, or in too long runs: nothing gives it back.
    assert_eq!(fresh(&path(0.25, 1.0, 50.0)).standing, None);
    assert_eq!(fresh(&path(0.01, 9.0, 50.0)).standing, None);
}

#[test]
fn others_at_the_queue_and_an_outage_stop_what_is_added() {
    let mut inputs = path(0.02, 1.0, 20.0);
    let before = settled(&inputs);
    assert!(before.plan.standing.is_some() && before.plan.split == 2);
    inputs.is_competing = true;
    let state = decide(&before, &inputs, at(2_010));
    assert_eq!(
        (state.plan.standing, state.plan.reason),
        (None, Reason::Queue)
    );
    assert_eq!(state.plan.split, 1, "without repair nothing is cut");
    inputs.is_competing = false;
    let state = decide(&state, &inputs, at(2_020));
    assert_eq!(
        (state.plan.standing, state.plan.reason),
        (before.plan.standing, Reason::Queue)
    );
    for (unanswered, unanswered_us, is_outage) in
        [(8, 300_001, true), (8, 300_000, false), (7, 900_000, false)]
    {
        let silent = Inputs {
            unanswered,
            unanswered_us,
            ..inputs
        };
        let plan = decide(&state, &silent, at(2_030)).plan;
        assert_eq!(plan.label == Label::Outage, is_outage, "{unanswered_us}");
        assert_eq!(plan.standing.is_none(), is_outage);
        assert_eq!(plan.reason == Reason::Silence, is_outage);
    }
}

#[test]
fn a_load_takes_back_repair_and_cutting() {
    let mut inputs = path(0.02, 1.0, 20.0);
    let before = settled(&inputs);
    let free = before.plan;
    assert_eq!((free.standing, free.split), (repair(13, 65), 2));
    let mut loaded = |permille| {
        inputs.crypto_permille = figure(permille);
        decide(&before, &inputs, at(2_010)).plan
    };
    assert_eq!(loaded(799), free);
    let plan = loaded(800);
    assert_eq!((plan.standing, plan.split), (repair(20, 80), 1));
    assert_eq!(plan.reason, Reason::Crypto);
    assert_eq!(loaded(850).standing, repair(24, 48));
    assert_eq!(loaded(1_000).standing, None);
    inputs.crypto_permille.age_us = 1_000_001;
    assert_eq!(
        settled(&inputs).plan,
        free,
        "what was measured long ago says nothing"
    );
}

/// What is taken back lowers the load: it is not given back and taken again all the time.
#[test]
fn a_load_that_falls_by_what_is_taken_back_does_not_make_the_plan_waver() {
    let (mut state, mut changes) = (settled(&path(0.02, 1.0, 20.0)), vec![]);
    for ms in (2_000..122_000u64).step_by(10) {
        let mut inputs = path(0.02, 1.0, 20.0);
        // Without repair 780; all of it, and n of 2, are a quarter more.
        let repair = state
            .plan
            .standing
            .map_or(0, |it| 1_000 / u64::from(it.every));
        let load = 780 + repair + 150 * u64::from(state.plan.split - 1);
        inputs.crypto_permille = figure(load.min(1_000));
        let before = state.plan;
        state = decide(&state, &inputs, at(ms));
        if state.plan != before {
            changes.push((ms, state.plan.reason));
        }
    }
    assert_eq!(changes.first(), Some(&(2_000, Reason::Crypto)));
    let last_minute = changes.iter().filter(|(ms, _)| *ms >= 62_000).count();
    assert!(last_minute <= 6, "{changes:?}");
    // Idle units take nothing back.
    for ms in (122_000..222_000).step_by(10) {
        let mut inputs = path(0.02, 1.0, 20.0);
        inputs.crypto_permille = figure(200);
        state = decide(&state, &inputs, at(ms));
    }
    assert_eq!((state.relief.at, state.plan.split), (0, 2));
    assert_eq!(state.plan.standing, repair(13, 65));
}

#[test]
fn by_hand_is_by_hand() {
    let mut inputs = path(0.05, 1.0, 20.0);
    inputs.limits.repair = RepairMode::Off;
    let plan = fresh(&inputs);
    assert_eq!((plan.standing, plan.reactive, plan.split), (None, None, 1));
    assert_eq!(plan.label, Label::Lossy);
    inputs.limits.repair = RepairMode::Fixed {
        every: 3,
        window: 9,
    };
    let plan = fresh(&inputs);
    assert_eq!(
        (plan.standing, plan.reactive, plan.split),
        (repair(3, 9), None, 1)
    );
}

/// n rises with runs and the round trip, falls with the rate, and never below the smallest payload.
#[test]
fn shards_are_smaller_where_repair_comes_slowly() {
    let split = |loss, burst, round_trip_ms: u64, kbit: u64| {
        let inputs = Inputs {
            round_trip_us: figure(round_trip_ms * 1_000),
            delivery_bytes_per_s: figure(kbit * 125),
            ..path(loss, burst, 50.0)
        };
        let first = decide(&State::default(), &inputs, at(0));
        assert_eq!(first.plan.split, 1, "not at once");
        let plan = settled(&inputs).plan;
        (plan.split, plan.payload)
    };
    assert_eq!(split(0.02, 1.0, 100, 20_000), (1, 1_414));
    assert_eq!(split(0.02, 1.0, 100, 2_000), (2, 707));
    assert_eq!(split(0.02, 1.0, 10, 2_000), (1, 1_414), "asking is quick");
    assert_eq!(split(0.02, 4.0, 40, 4_000), (2, 707));
    assert_eq!(split(0.02, 1.0, 40, 4_000), (1, 1_414));
    assert_eq!(split(0.1, 1.0, 100, 2_000), (2, 707));
    assert_eq!(
        split(0.002, 1.0, 100, 1_000),
        (1, 1_414),
        "headers would cost more than repair"
    );
}

#[test]
fn the_plan_goes_up_at_once_and_back_within_ten_seconds() {
    let mut state = State::default();
    let mut plans = vec![];
    let mut feed = |inputs: &Inputs, from: u64, to: u64| {
        for ms in (from..to).step_by(10) {
            let before = state.plan;
            state = decide(&state, inputs, at(ms));
            if state.plan.standing != before.standing {
                plans.push((ms, state.plan));
            }
        }
        state.plan
    };
    feed(&path(0.0, 0.0, 0.0), 0, 1_000);
    assert_eq!(
        feed(&path(0.05, 1.0, 100.0), 1_000, 1_010).standing,
        repair(7, 56)
    );
    let last = feed(&path(0.0, 0.0, 0.0), 2_000, 12_000);
    assert_eq!(
        (last.standing, last.label, last.reason),
        (None, Label::Clean, Reason::Loss)
    );
    let down: Vec<_> = plans
        .iter()
        .map(|(ms, _)| ms)
        .filter(|ms| **ms >= 2_000)
        .collect();
    assert!(
        down.windows(2).all(|pair| pair[1] - pair[0] >= 1_000),
        "{down:?}"
    );
    assert_eq!(down.len(), 8, "one for each row");
}

/// Losses of a steady path, with the deviations that its estimates have: five minutes.
#[test]
fn a_steady_path_changes_its_plan_six_times_a_minute_at_the_most() {
    let mut noise = crate::estimate::noise::Noise(5);
    // Those between two rows and two columns are the worst.
    for (loss, burst) in [
        (0.01, 1.0),
        (0.014, 1.4),
        (0.024, 2.4),
        (0.039, 3.4),
        (0.059, 1.0),
    ] {
        let (mut state, mut changes, mut wander) = (State::default(), vec![], [0.0f64; 4]);
        for ms in (0..300_000u64).step_by(10) {
            // Wandering figures: correlated over half a second, 15 % of deviation.
            for value in &mut wander {
                *value = *value * 0.98 + 0.2 * (noise.uniform() - 0.5) * 0.52;
            }
            let [a, b, c, d] = wander.map(f64::exp);
            let inputs = Inputs {
                round_trip_us: figure((100_000.0 * c) as u64),
                delivery_bytes_per_s: figure((250_000.0 * d) as u64),
                reports: ms,
                ..path(loss * a, (burst * b).max(1.0), 20.0 * a)
            };
            let before = state.plan;
            state = decide(&state, &inputs, at(ms));
            if state.plan != before {
                changes.push(ms);
            }
        }
        for from in (60_000..240_000).step_by(1_000) {
            let minute = from..from + 60_000;
            let count = changes.iter().filter(|at| minute.contains(*at)).count();
            assert!(count <= 6, "{loss} {burst}, from {from} ms: {changes:?}");
        }
    }
}

#[test]
fn the_ring_keeps_the_last_and_says_how_many_there_were() {
    let mut decisions = Decisions::default();
    let inputs = path(0.01, 1.0, 10.0);
    for n in 0..DECISIONS_KEPT as u64 + 5 {
        let before = State::default();
        let plan = decide(&before, &inputs, at(n)).plan;
        decisions.note(Decision {
            at: at(n),
            before,
            inputs,
            plan,
        });
    }
    assert_eq!(decisions.count(), DECISIONS_KEPT as u64 + 5);
    let numbers: Vec<_> = decisions.since(67).map(|(number, _)| number).collect();
    assert_eq!(numbers, [67, 68]);
    assert_eq!(decisions.since(0).next().map(|(number, _)| number), Some(5));
    assert_eq!(decisions.since(u64::MAX).count(), 0);
}

fn any_figure(values: core::ops::Range<u64>) -> impl Strategy<Value = Figure> {
    (
        prop::option::weighted(0.9, values),
        1u64..100,
        0u64..2_000_000,
    )
        .prop_map(|(value, count, age_us)| match value {
            Some(value) => Figure {
                value,
                count,
                age_us,
            },
            None => Figure::UNKNOWN,
        })
}

prop_compose! {
    fn any_inputs()(
        limits in (0u8..4, any::<bool>(), 0u16..9_000, 0u16..300, 1u8..=64, 1u8..=192, 1u8..=192),
        round_trip in any_figure(0..2_000_000),
        round_trip_min in any_figure(0..2_000_000),
        losses in (any_figure(0..1_000_001), any_figure(0..300_000), any_figure(1_000..12_000)),
        events in any_figure(0..200_000),
        since_loss in any_figure(0..10_000_000),
        rate in any_figure(0..125_000_000),
        load in any_figure(0..1_001),
        silence in (0u64..20, 0u64..3_000_000),
        reports in 0u64..5,
        is_competing in prop::bool::weighted(0.1),
    ) -> Inputs {
        let (mode, asks, payload_max, window_max, shards_max, every, window) = limits;
        Inputs {
            limits: Limits {
                repair: match mode {
                    0 => RepairMode::Off,
                    1 => RepairMode::Fixed { every, window },
                    _ => RepairMode::Auto,
                },
                asks,
                payload_max,
                window_max,
                shards_max,
            },
            round_trip_us: round_trip,
            round_trip_min_us: round_trip_min,
            loss_ppm: losses.0,
            radio_loss_ppm: losses.1,
            burst_milli: losses.2,
            recent_burst_milli: losses.2,
            events_milli_per_s: events,
            since_loss_us: since_loss,
            delivery_bytes_per_s: rate,
            queue_us: Figure::UNKNOWN,
            crypto_permille: load,
            reports,
            unanswered: silence.0,
            unanswered_us: silence.1,
            is_competing,
        }
    }
}

/// An input that is to be turned up.
#[derive(Clone, Copy, Debug)]
enum Knob {
    Loss,
    Burst,
    RecentBurst,
    RoundTrip,
    Rate,
    Crypto,
}

fn turned_up(inputs: &Inputs, knob: Knob, by: u64) -> Inputs {
    let mut inputs = *inputs;
    let figure = match knob {
        Knob::Loss => &mut inputs.radio_loss_ppm,
        Knob::Burst => &mut inputs.burst_milli,
        Knob::RecentBurst => &mut inputs.recent_burst_milli,
        Knob::RoundTrip => &mut inputs.round_trip_us,
        Knob::Rate => &mut inputs.delivery_bytes_per_s,
        Knob::Crypto => &mut inputs.crypto_permille,
    };
    figure.value += figure.value * by / 100 + by;
    inputs
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// n follows each input in one direction, as long as repair goes on; where it begins or ends
    /// n goes up or down with it.
    #[test]
    fn n_is_monotone_in_each_input(
        past in prop::collection::vec((any_inputs(), 0u64..3_000), 0..4),
        inputs in any_inputs(),
        by in 0u64..400,
        knob in prop::sample::select(vec![
            Knob::Loss, Knob::Burst, Knob::RecentBurst, Knob::RoundTrip, Knob::Rate, Knob::Crypto,
        ]),
    ) {
        let (mut state, mut now) = (State::default(), 0);
        for (inputs, wait) in past {
            now += wait;
            state = decide(&state, &inputs, at(now));
        }
        now += 10;
        let less = decide(&state, &inputs, at(now)).plan;
        let more = decide(&state, &turned_up(&inputs, knob, by), at(now)).plan;
        match knob {
            Knob::Loss | Knob::Burst | Knob::RecentBurst | Knob::RoundTrip => prop_assert!(
                more.split >= less.split || more.standing.is_none(),
                "{less:?} {more:?}"
            ),
            Knob::Rate | Knob::Crypto => prop_assert!(more.split <= less.split, "{less:?} {more:?}"),
        }
        // The payload is what n makes of it.
        prop_assert!(more.split == less.split || (more.split > less.split) == (more.payload < less.payload));
    }

    /// Repair gets no weaker with the loss, no stronger with the load.
    #[test]
    fn repair_is_monotone_in_loss_and_load(inputs in any_inputs(), by in 0u64..400) {
        let share = |inputs: &Inputs| {
            let standing = fresh(inputs).standing;
            standing.map_or(0.0, |repair| 1.0 / f64::from(repair.every))
        };
        let less = share(&inputs);
        let loss = share(&turned_up(&inputs, Knob::Loss, by));
        prop_assert!(loss >= less || loss == 0.0, "{less} {loss}");
        prop_assert!(share(&turned_up(&inputs, Knob::Crypto, by)) <= less);
    }

    /// Whatever is fed for however long: bounds, replay, and one step down at a time.
    #[test]
    fn any_history_keeps_the_bounds_and_replays(
        history in prop::collection::vec((any_inputs(), 0u64..3_000), 1..60),
    ) {
        let (mut state, mut now) = (State::default(), 0);
        for (inputs, wait) in history {
            now += wait;
            let before = state;
            state = decide(&before, &inputs, at(now));
            let plan = state.plan;
            let Limits { payload_max, window_max, shards_max, .. } = inputs.limits;
            prop_assert!(plan.payload <= payload_max);
            prop_assert!(usize::from(plan.payload) >= SHARD_PAYLOAD_MIN.min(payload_max.into()));
            prop_assert!((1..=shards_max).contains(&plan.split));
            prop_assert!(plan.added_permille <= 1_000);
            for repair in [plan.standing, plan.reactive].into_iter().flatten() {
                prop_assert!(repair.every >= 1 && repair.every <= repair.window);
                prop_assert!(u16::from(repair.window) <= window_max);
            }
            prop_assert!(plan.standing.is_none() || plan.reactive.is_none());
            prop_assert!(plan.split == 1 || plan.standing.is_some(), "cut without repair");
            prop_assert!(state.loss.at + 1 >= before.loss.at && state.breaker.step + 1 >= before.breaker.step);
            if inputs.limits.repair == RepairMode::Off {
                prop_assert_eq!((plan.standing, plan.reactive, plan.split), (None, None, 1));
            }
            let decision = Decision { at: at(now), before, inputs, plan };
            prop_assert_eq!(decision.replay(), plan);
            prop_assert_eq!(plan == before.plan, !plan.differs(&before.plan));
        }
    }
}
