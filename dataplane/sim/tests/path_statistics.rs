//! The path model's statistics against the profile's, over fixed seeds.
//!
//! Bounds are five standard errors: a wrong model is outside by far, and as the seeds are fixed a
//! right one is inside for good.

use proptest::prelude::*;
use shardgate_core::time::Time;
use shardgate_sim::path::{
    Departure, DropCause, FLIPS_MAX, FrameShape, LossProcess, PathModel, PathProfile, Verdict,
};

const FRAMES: u64 = 400_000;
const FRAME: usize = 1_000;

fn offer_all(profile: &PathProfile, seed: u64, gap_ns: u64) -> Vec<(u64, Verdict)> {
    let mut path = PathModel::new(profile, seed).expect("a valid profile");
    (0..FRAMES)
        .map(|i| {
            (
                i * gap_ns,
                path.offer(Time(i * gap_ns), FrameShape::untagged(FRAME)),
            )
        })
        .collect()
}

fn departures(verdicts: &[(u64, Verdict)]) -> impl Iterator<Item = (u64, Departure)> {
    verdicts.iter().filter_map(|(at, verdict)| match verdict {
        Verdict::Forward(departures) => Some((*at, departures.first)),
        Verdict::Drop(_) => None,
    })
}

fn mean_and_deviation(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let values: Vec<f64> = values.collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, variance.sqrt())
}

fn assert_share(what: &str, hits: u64, trials: u64, probability: f64) {
    let error = (probability * (1.0 - probability) / trials as f64).sqrt();
    let share = hits as f64 / trials as f64;
    assert!(
        (share - probability).abs() <= 5.0 * error,
        "{what}: {share} instead of {probability} +- {error}"
    );
}

/// Runs of losses that have ended, and the share of frames lost.
fn loss_runs(loss: f64, burst: f64, seed: u64, frames: u64) -> (Vec<u64>, f64) {
    let mut process = LossProcess::new(loss, burst, seed);
    let (mut runs, mut run, mut lost) = (Vec::new(), 0, 0);
    for _ in 0..frames {
        if process.next_is_lost() {
            run += 1;
            lost += 1;
        } else if run > 0 {
            runs.push(run);
            run = 0;
        }
    }
    (runs, lost as f64 / frames as f64)
}

#[test]
fn losses_have_the_rate_and_geometric_runs() {
    let frames = 4_000_000;
    for (seed, &(loss, burst)) in [
        (0.01, 1.0),
        (0.01, 3.0),
        (0.05, 1.0),
        (0.005, 2.0),
        (0.01, 4.0),
        (0.3, 8.0),
        (0.9, 20.0),
    ]
    .iter()
    .enumerate()
    {
        let (runs, share) = loss_runs(loss, burst, seed as u64, frames);
        // Correlation 1 - p - r between neighbours widens the error of a chain's share.
        let leave_bad = if burst == 1.0 {
            1.0 - loss
        } else {
            1.0 / burst
        };
        let enter_bad = loss * leave_bad / (1.0 - loss);
        let correlation = 1.0 - leave_bad - enter_bad;
        let widening = (1.0 + correlation) / (1.0 - correlation);
        let error = (loss * (1.0 - loss) / frames as f64 * widening).sqrt();
        assert!(
            (share - loss).abs() <= 5.0 * error,
            "loss {share} instead of {loss} +- {error}, burst {burst}"
        );

        let count = runs.len() as u64;
        let (mean, _) = mean_and_deviation(runs.iter().map(|&run| run as f64));
        let mean_error = ((1.0 - leave_bad) / leave_bad.powi(2) / count as f64).sqrt();
        assert!(
            (mean - 1.0 / leave_bad).abs() <= 5.0 * mean_error,
            "run of {mean} instead of {} +- {mean_error}, loss {loss}",
            1.0 / leave_bad
        );
        // Geometric: from every length a run ends with the same chance.
        for len in 1..=5 {
            let reached = runs.iter().filter(|&&run| run >= len).count() as u64;
            let ended = runs.iter().filter(|&&run| run == len).count() as u64;
            if reached > 500 {
                assert_share("a run ends", ended, reached, leave_bad);
            }
        }
    }
}

#[test]
fn everything_or_nothing_is_lost() {
    assert_eq!(loss_runs(0.0, 1.0, 1, 10_000).1, 0.0);
    assert_eq!(loss_runs(0.0, 4.0, 1, 10_000).1, 0.0);
    assert_eq!(loss_runs(1.0, 1.0, 1, 10_000).1, 1.0);
    assert_eq!(loss_runs(1.0, 4.0, 1, 10_000).1, 1.0);
}

#[test]
fn delay_is_constant_without_jitter() {
    let profile = PathProfile {
        delay_ms: 20.0,
        ..PathProfile::default()
    };
    let verdicts = offer_all(&profile, 1, 1_000);
    assert_eq!(departures(&verdicts).count() as u64, FRAMES);
    assert!(departures(&verdicts).all(|(at, out)| out.at == Time(at + 20_000_000)));
}

#[test]
fn jitter_is_normal_around_the_delay() {
    let profile = PathProfile {
        delay_ms: 20.0,
        jitter_ms: 2.0,
        ..PathProfile::default()
    };
    let verdicts = offer_all(&profile, 2, 1_000);
    let delays: Vec<f64> = departures(&verdicts)
        .map(|(at, out)| (out.at.as_nanos() - at) as f64 / 1e6)
        .collect();
    let (mean, deviation) = mean_and_deviation(delays.iter().copied());
    let count = (FRAMES as f64).sqrt();
    assert!((mean - 20.0).abs() <= 5.0 * 2.0 / count, "mean {mean}");
    assert!(
        (deviation - 2.0).abs() <= 5.0 * 2.0 / (2.0 * FRAMES as f64).sqrt(),
        "deviation {deviation}"
    );
    let within_one = delays.iter().filter(|d| (*d - 20.0).abs() <= 2.0).count() as u64;
    assert_share("within one deviation", within_one, FRAMES, 0.682_689_5);
    let beyond_three = delays.iter().filter(|d| (*d - 20.0).abs() > 6.0).count() as u64;
    assert_share("beyond three deviations", beyond_three, FRAMES, 0.002_699_8);
    // Independent from frame to frame, so neighbours a microsecond apart swap half the time.
    let swapped = delays.windows(2).filter(|w| w[1] < w[0]).count() as u64;
    let share = swapped as f64 / FRAMES as f64;
    assert!((share - 0.5).abs() < 0.005, "{share} of neighbours swap");
}

#[test]
fn a_negative_delay_is_none() {
    let profile = PathProfile {
        delay_ms: 20.0,
        jitter_ms: 20.0,
        ..PathProfile::default()
    };
    let verdicts = offer_all(&profile, 3, 1_000);
    let none = departures(&verdicts)
        .filter(|(at, out)| out.at.as_nanos() == *at)
        .count() as u64;
    // Phi(-1).
    assert_share("delay cut at 0", none, FRAMES, 0.158_655_3);
    let (mean, _) =
        mean_and_deviation(departures(&verdicts).map(|(at, out)| (out.at.as_nanos() - at) as f64));
    // 20 (Phi(1) + phi(1)).
    assert!((mean / 1e6 - 21.666_3).abs() < 0.2, "mean {mean}");
}

#[test]
fn an_overloaded_link_runs_at_its_rate_with_a_full_queue() {
    let profile = PathProfile {
        delay_ms: 20.0,
        rate: Some(200.0),
        ..PathProfile::default()
    };
    // A frame of 1000 bytes takes 40 us; offered twice as fast.
    let verdicts = offer_all(&profile, 4, 20_000);
    let out: Vec<_> = departures(&verdicts).collect();
    let (_, last) = out[out.len() - 1];
    let (_, first) = out[0];
    let seconds = (last.at.as_nanos() - first.at.as_nanos()) as f64 / 1e9;
    let rate = (out.len() - 1) as f64 * FRAME as f64 * 8.0 / seconds / 1e6;
    assert!((rate - 200.0).abs() < 0.001, "{rate} Mbit/s");
    // The last of the 661 frames of a BDP leaves behind all of them and the one being sent.
    let limit = u64::from(profile.queue_limit().expect("a queue"));
    assert_eq!(limit, 661);
    let longest = out
        .iter()
        .map(|(at, departure)| departure.at.as_nanos() - at - 20_000_000)
        .max();
    let full = (limit + 1) * 40_000;
    assert!(
        longest <= Some(full) && longest > Some(full - 40_000),
        "{longest:?}"
    );
    let dropped = verdicts
        .iter()
        .filter(|(_, verdict)| *verdict == Verdict::Drop(DropCause::Queue))
        .count() as u64;
    assert_eq!(dropped + out.len() as u64, FRAMES);
}

#[test]
fn shares_of_duplicates_reordering_and_corruption() {
    let profile = PathProfile {
        delay_ms: 1.0,
        reorder: 0.02,
        reorder_ms: 4.0,
        duplicate: 0.03,
        corrupt: 0.05,
        ..PathProfile::default()
    };
    let verdicts = offer_all(&profile, 5, 10_000);
    let (mut copies, mut late, mut corrupted, mut flips) = (0, 0, 0, [0u64; FLIPS_MAX + 1]);
    for (at, verdict) in &verdicts {
        let Verdict::Forward(departures) = verdict else {
            panic!("nothing is lost here");
        };
        for departure in [Some(departures.first), departures.duplicate]
            .into_iter()
            .flatten()
        {
            copies += 1;
            let delay_ns = departure.at.as_nanos() - at;
            if delay_ns != 1_000_000 {
                late += 1;
                assert!((3_000_000..=7_000_000).contains(&delay_ns), "{delay_ns}");
            }
            if let Some(corruption) = departure.corruption {
                corrupted += 1;
                flips[corruption.bits().len()] += 1;
                for &bit in corruption.bits() {
                    assert!((14 * 8..FRAME as u32 * 8).contains(&bit));
                }
                let mut frame = [0u8; FRAME];
                corruption.apply(&mut frame);
                let set: u32 = frame.iter().map(|byte| byte.count_ones()).sum();
                assert_eq!(
                    set as usize,
                    corruption.bits().len(),
                    "flips must not cancel"
                );
            }
        }
    }
    assert_share("duplicated", copies - FRAMES, FRAMES, 0.03);
    assert_share("reordered", late, copies, 0.02);
    assert_share("corrupted", corrupted, copies, 0.05);
    assert_eq!(flips[0], 0);
    for count in &flips[1..] {
        assert_share("flips", *count, corrupted, 1.0 / 3.0);
    }
}

#[test]
fn a_change_of_jitter_does_not_move_the_losses() {
    let profile = |jitter_ms| PathProfile {
        delay_ms: 5.0,
        jitter_ms,
        loss: 0.02,
        burst: 2.0,
        ..PathProfile::default()
    };
    let lost = |jitter_ms| -> Vec<bool> {
        offer_all(&profile(jitter_ms), 6, 1_000)
            .iter()
            .map(|(_, verdict)| *verdict == Verdict::Drop(DropCause::Loss))
            .collect()
    };
    assert!(lost(0.0) == lost(3.0));
}

#[test]
fn a_seed_fixes_the_draws() {
    // The first frames lost of a seed: a change here changes every recorded result.
    let mut process = LossProcess::new(0.1, 1.0, 42);
    let lost: Vec<usize> = (0..60).filter(|_| process.next_is_lost()).collect();
    assert_eq!(lost, [4, 7, 37]);
}

fn any_profile() -> impl Strategy<Value = PathProfile> {
    let link = (
        0.0..50.0,
        0.0..20.0,
        prop::option::of(0.1..10_000.0),
        prop::option::of(0u32..500),
    );
    let faults = (0.0..0.5, 1.0..10.0, 0.0..0.5, 0.0..10.0, 0.0..1.0, 0.0..1.0);
    (link, faults, 68u32..9_600).prop_map(|(link, faults, mtu)| PathProfile {
        delay_ms: link.0,
        jitter_ms: link.1,
        rate: link.2,
        queue_frames: link.3,
        loss: faults.0,
        burst: faults.1,
        reorder: faults.2,
        reorder_ms: faults.3,
        duplicate: faults.4,
        corrupt: faults.5,
        mtu,
    })
}

proptest! {
    /// For any profile and offers: time never runs backwards through the path, every frame is in
    /// exactly one counter, and the same seed gives the same answers.
    #[test]
    fn invariants(
        profile in any_profile(),
        seed: u64,
        offers in prop::collection::vec((0u64..1_000_000, 0usize..10_000), 1..200),
    ) {
        let mut path = PathModel::new(&profile, seed).expect("a valid profile");
        let mut twin = PathModel::new(&profile, seed).expect("a valid profile");
        let (mut now, mut copies, mut forwarded) = (0, 0, 0);
        for (gap, len) in offers {
            now += gap;
            let verdict = path.offer(Time(now), FrameShape::untagged(len));
            prop_assert_eq!(verdict, twin.offer(Time(now), FrameShape::untagged(len)));
            if let Verdict::Forward(departures) = verdict {
                forwarded += 1;
                for departure in [Some(departures.first), departures.duplicate].into_iter().flatten() {
                    copies += 1;
                    prop_assert!(departure.at >= Time(now));
                    let mut frame = vec![0; len];
                    if let Some(corruption) = departure.corruption {
                        corruption.apply(&mut frame);
                        prop_assert!(frame[14..].iter().any(|&byte| byte != 0));
                    }
                    prop_assert!(frame[..len.min(14)].iter().all(|&byte| byte == 0));
                }
            }
            let limit = profile.queue_limit().unwrap_or(0) as usize;
            prop_assert!(path.queued(Time(now)) <= limit + 1);
        }
        let counters = path.counters();
        let drops = counters.mtu_drops + counters.queue_drops + counters.lost;
        prop_assert_eq!(counters.offered, drops + forwarded);
        prop_assert_eq!(copies, forwarded + counters.duplicated);
    }
}
