//! Records may come from anybody: what no history leads to is replayed, too.

use super::*;

fn any_level() -> impl Strategy<Value = Level> {
    (any::<u8>(), any_moment()).prop_map(|(at, high_since)| Level { at, high_since })
}

fn any_moment() -> impl Strategy<Value = Option<Time>> {
    prop::option::of(any::<u64>().prop_map(Time))
}

prop_compose! {
    fn any_pace()(
        fell_at in any_moment(),
        is_regretted in any::<bool>(),
        regrets in any::<u8>(),
        judged_at in any::<u64>().prop_map(Time),
    ) -> Pace {
        Pace { fell_at, is_regretted, regrets, judged_at }
    }
}

prop_compose! {
    fn any_state()(
        levels in prop::array::uniform5(any_level()),
        due in (any::<u8>(), any_moment()),
        pace in any_pace(),
        split_pace in any_pace(),
        relief_pace in any_pace(),
        breaker in (any::<u8>(), any::<u64>(), any::<u64>(), any_moment(), any_moment()),
        is_hopeless in any::<bool>(),
        split_at in any::<(u64, u64)>(),
        plan in (any::<u8>(), any::<u16>(), any::<u8>(), any::<u16>()),
    ) -> State {
        let [loss, burst, split, delay, relief] = levels;
        let (step, reports, strikes, half_since, sound_since) = breaker;
        State {
            plan: Plan {
                split: plan.0,
                payload: plan.1,
                delay_ms: plan.2,
                added_permille: plan.3,
                ..Plan::default()
            },
            loss,
            burst,
            split,
            delay,
            relief,
            split_due: Held { least: due.0, since: due.1 },
            pace,
            split_pace,
            relief_pace,
            breaker: Breaker { step, reports, strikes, half_since, sound_since },
            is_hopeless,
            split_at,
        }
    }
}

fn any_figure_at_all() -> impl Strategy<Value = Figure> {
    any::<(u64, u64, u64)>().prop_map(|(value, count, age_us)| Figure {
        value,
        count,
        age_us,
    })
}

prop_compose! {
    fn any_inputs_at_all()(
        sane in any_inputs(),
        figures in prop::collection::vec(any_figure_at_all(), 11),
        counts in any::<[u64; 3]>(),
        limits in (any::<u16>(), any::<u16>(), any::<u8>(), any::<u8>(), any::<u8>(), any::<bool>()),
    ) -> Inputs {
        let (payload_max, window_max, shards_max, every, window, is_fixed) = limits;
        let repair = if is_fixed {
            RepairMode::Fixed { every, window }
        } else {
            sane.limits.repair
        };
        Inputs {
            limits: Limits { repair, asks: sane.limits.asks, payload_max, window_max, shards_max },
            round_trip_us: figures[0],
            round_trip_min_us: figures[1],
            loss_ppm: figures[2],
            radio_loss_ppm: figures[3],
            burst_milli: figures[4],
            recent_burst_milli: figures[5],
            events_milli_per_s: figures[6],
            since_loss_us: figures[7],
            delivery_bytes_per_s: figures[8],
            queue_us: figures[9],
            crypto_permille: figures[10],
            reports: counts[0],
            unanswered: counts[1],
            unanswered_us: counts[2],
            is_competing: sane.is_competing,
        }
    }
}

proptest! {
    #[test]
    fn no_record_does_harm(
        before in any_state(),
        inputs in any_inputs_at_all(),
        now in any::<u64>().prop_map(Time),
    ) {
        let decision = Decision { at: now, before, inputs, plan: Plan::default() };
        let plan = decision.replay();
        prop_assert!(plan.delay_ms <= 50 && plan.added_permille <= 1_000);
        prop_assert!(plan.split >= 1 && plan.payload <= inputs.limits.payload_max);
        prop_assert_eq!(decision.replay(), plan, "and says the same each time");
    }
}
