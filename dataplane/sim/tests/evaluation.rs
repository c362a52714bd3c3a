//! The evaluation of profiles: its own soundness, and a snapshot of all profiles that a change of
//! any model or of the tunnel shows up in.
//!
//! `UPDATE_SNAPSHOTS=1 cargo test -p shardgate-sim --test evaluation` writes the snapshot anew.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shardgate_sim::evaluate::{self, Options, Outcome, Report, plain_gateways};
use shardgate_sim::path::PathProfile;
use shardgate_sim::profiles::{Profile, ProfileFile};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn options(warm_up_ms: u64, measured_ms: u64) -> Options {
    Options {
        warm_up: Duration::from_millis(warm_up_ms),
        measured: Duration::from_millis(measured_ms),
    }
}

fn plain(path: &PathProfile, options: Options) -> Outcome {
    let paths = std::slice::from_ref(path);
    evaluate::run(paths, &plain_gateways, 1, options, &mut |_| {}).expect("a valid profile")
}

fn file() -> ProfileFile {
    ProfileFile::load(&folder().join("profiles.toml")).expect("a good file")
}

fn line(name: &str, tunnel: &str, outcome: &Outcome) -> String {
    let ms = |value: Option<f64>| value.map_or("-".into(), |ms| format!("{ms:.1}"));
    let overhead = outcome.overhead_percent;
    format!(
        "{name:<13} {tunnel:<7} {:>9.2} {:>8} {:>8} {:>8.3} {:>9.1} {:>8.1} {:>7.1} {:>7.1} {:>8.1}\n",
        outcome.goodput_mbit_per_s,
        ms(outcome.frame_delay_ms.p50),
        ms(outcome.frame_delay_ms.p99),
        100.0 * outcome.residual_loss,
        outcome.queue_ms.mean,
        overhead.headers,
        overhead.repair,
        overhead.repeats,
        overhead.feedback,
    )
}

/// Twelve round trips, within bounds: too short for figures to quote, and long enough to see that
/// something has changed.
fn short(path: &PathProfile) -> Options {
    let ms = (24.0 * path.delay_ms).clamp(200.0, 3_000.0) as u64;
    options(ms, ms)
}

fn table(profiles: impl Iterator<Item = (String, Profile)>) -> String {
    let mut table = String::from(
        "# seed 1, twelve round trips after twelve; goodput in Mbit/s, delays of the thin flow in ms, overhead in %\n",
    );
    writeln!(
        table,
        "{:<13} {:<7} {:>9} {:>8} {:>8} {:>8} {:>9} {:>8} {:>7} {:>7} {:>8}",
        "profile",
        "tunnel",
        "goodput",
        "p50",
        "p99",
        "loss %",
        "queue ms",
        "headers",
        "repair",
        "repeats",
        "feedback"
    )
    .expect("a string takes all");
    // Pairs that differ in their second path only are one and the same while only a is used.
    let mut known: Vec<(PathProfile, Report)> = Vec::new();
    for (name, profile) in profiles {
        let path = match &profile {
            Profile::Single(path) => path.clone(),
            Profile::Pair(pair) => pair.a.clone(),
        };
        if !known.iter().any(|(other, _)| *other == path) {
            let report = evaluate::profile(&name, &profile, 1, short(&path), &mut |_| {})
                .expect("a valid profile");
            known.push((path.clone(), report));
        }
        let (_, report) = known
            .iter()
            .find(|(other, _)| *other == path)
            .expect("just added");
        for (tunnel, outcome) in [
            ("plain", Some(&report.plain)),
            ("sharded", report.tunnel.as_ref()),
        ] {
            let Some(outcome) = outcome else { continue };
            assert_eq!(outcome.broken_frames, 0, "{name}, {tunnel}");
            table.push_str(&line(&name, tunnel, outcome));
        }
    }
    table
}

/// Whatever the seed: one that takes jitter for a queue shows in some of them only.
#[test]
fn a_path_that_jitters_and_loses_is_used() {
    let single = file()
        .single
        .into_iter()
        .find(|one| one.name == "dsl_lossy");
    let paths = [single.expect("the profile").path];
    for seed in 1..=4 {
        let gateways = |seed| evaluate::sharded_gateways(&paths, seed);
        let outcome = evaluate::run(&paths, &gateways, seed, options(2_000, 5_000), &mut |_| {})
            .expect("a valid profile");
        let goodput = outcome.goodput_mbit_per_s;
        assert!(goodput > 24.0, "{goodput} of 40 Mbit/s, seed {seed}");
    }
}

#[test]
fn single_paths_give_what_they_gave() {
    let singles = file().single.into_iter();
    let table = table(singles.map(|single| (single.name, Profile::Single(single.path))));
    compare("singles.txt", &table);
}

#[test]
fn pairs_give_what_they_gave() {
    let pairs = file().pair.into_iter();
    let table = table(pairs.map(|pair| (pair.name.clone(), Profile::Pair(pair))));
    compare("pairs.txt", &table);
}

fn compare(name: &str, text: &str) {
    let file: PathBuf = folder().join("tests/snapshots").join(name);
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some_and(|value| value == "1") {
        std::fs::write(&file, text).expect("the snapshot can be written");
        return;
    }
    let known = std::fs::read_to_string(&file).expect("a snapshot");
    for (line, (got, known)) in text.lines().zip(known.lines()).enumerate() {
        assert_eq!(
            got,
            known,
            "{name}:{}: UPDATE_SNAPSHOTS=1 accepts it",
            line + 1
        );
    }
    assert_eq!(
        text.lines().count(),
        known.lines().count(),
        "{name}: UPDATE_SNAPSHOTS=1 accepts it"
    );
}

#[test]
fn a_thin_flow_waits_behind_a_bulk_flow_as_long_as_the_queue_is() {
    let path = PathProfile {
        delay_ms: 10.0,
        rate: Some(20.0),
        ..PathProfile::default()
    };
    let plain = plain(&path, options(2_000, 8_000));
    // A queue of 100 frames of 1494 bytes takes 60 ms.
    assert!((56.0..61.0).contains(&plain.queue_ms.max), "{plain:?}");
    let p50 = plain.frame_delay_ms.p50.expect("delivered");
    assert!((p50 - 10.0 - plain.queue_ms.mean).abs() < 8.0, "{plain:?}");
    assert!(
        (17.0..=18.4).contains(&plain.goodput_mbit_per_s),
        "{plain:?}"
    );
    assert_eq!(plain.thin_frames.sent, 400);
    // 60 bytes on a frame of 1434, and on an ACK of 66 padded to 64 of payload: 72.
    assert!(
        (4.0..8.0).contains(&plain.overhead_percent.headers),
        "{plain:?}"
    );
}

#[test]
fn what_the_path_loses_a_plain_tunnel_loses() {
    let path = PathProfile {
        delay_ms: 5.0,
        rate: Some(5.0),
        loss: 0.1,
        ..PathProfile::default()
    };
    let plain = plain(&path, options(500, 60_000));
    // 3,000 frames: a standard error of 0.0055.
    assert!((0.075..0.125).contains(&plain.residual_loss), "{plain:?}");
    assert_eq!(plain.broken_frames, 0);
}

#[test]
fn an_unlimited_path_is_bounded_by_the_receive_window() {
    let path = PathProfile {
        delay_ms: 25.0,
        ..PathProfile::default()
    };
    let plain = plain(&path, options(1_000, 500));
    // 6 MiB a round trip of 50 ms: 1007 Mbit/s.
    assert!(
        (950.0..1_010.0).contains(&plain.goodput_mbit_per_s),
        "{plain:?}"
    );
    assert_eq!(
        plain.frame_delay_ms.p99,
        Some(25.007),
        "the histogram's step above 25 ms"
    );
}

#[test]
fn a_pair_is_said_to_use_one_path() {
    let pair = file().pair.into_iter().find(|pair| pair.name == "bw_10to1");
    let profile = Profile::Pair(pair.expect("a pair"));
    let report = evaluate::profile("x", &profile, 1, options(500, 200), &mut |_| {});
    let report = report.expect("a valid profile");
    assert!(report.note.is_some_and(|note| note.contains("path a")));
    assert!(
        report.plain.goodput_mbit_per_s > 50.0,
        "path a has 100 Mbit/s"
    );
}
