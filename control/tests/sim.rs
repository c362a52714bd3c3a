//! `shardgate sim` as people use it: no device, no rights.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn profiles() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dataplane/sim/profiles.toml")
}

fn named(name: &str) -> String {
    format!("{}:{name}", profiles().display())
}

fn sim(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shardgate"))
        .arg("sim")
        .args(args)
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> &str {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(stderr, "", "nothing to complain of, and no terminal");
    std::str::from_utf8(&output.stdout).expect("text")
}

/// The one line of a failure.
fn error(args: &[&str]) -> String {
    let output = sim(args);
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty(), "an error has no result");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr
}

#[test]
fn a_profile_as_json_is_one_document_and_the_same_each_time() {
    let name = named("loss_1");
    let args = ["profile", &name, "--seconds", "4", "--seed", "3", "--json"];
    let first = sim(&args);
    let text = stdout(&first);
    let report: serde_json::Value = serde_json::from_str(text).expect("one document");
    assert_eq!(report["profile"], "loss_1");
    assert_eq!(report["seed"], 3);
    assert_eq!(report["seconds"], 1.0);
    // The tunnel's fields stand at the top, a plain tunnel's under its name.
    for (outcome, goodputs) in [(&report, 20.0..200.0), (&report["plain"], 1.0..12.0)] {
        let goodput = outcome["goodput_mbit_per_s"].as_f64().expect("a number");
        assert!(goodputs.contains(&goodput), "{goodput} Mbit/s at 1 % loss");
        for percentile in ["p50", "p99", "p99_9"] {
            let ms = outcome["frame_delay_ms"][percentile]
                .as_f64()
                .expect("a number");
            assert!((19.9..120.0).contains(&ms), "{percentile}: {ms} ms");
        }
        assert!(outcome["residual_loss"].is_f64());
        for cause in ["headers", "repair", "repeats", "feedback"] {
            assert!(outcome["overhead_percent"][cause].is_f64(), "{cause}");
        }
        assert_eq!(outcome["broken_frames"], 0);
    }
    assert_eq!(stdout(&sim(&args)), text);
}

#[test]
fn a_pair_says_what_it_uses_and_its_paths_have_names() {
    let pair = sim(&["profile", &named("dual_lte"), "--seconds", "4"]);
    let text = stdout(&pair);
    assert!(text.contains("path a alone"), "{text}");
    assert!(
        text.contains("TCP goodput") && text.contains("Mbit/s"),
        "{text}"
    );
    let path = sim(&["profile", &named("dual_lte/b"), "--seconds", "4"]);
    assert!(stdout(&path).starts_with("dual_lte/b: 45 ms one way with 8 ms of jitter, 25 Mbit/s"));
}

#[test]
fn settings_are_tried_and_several_seeds_show_their_spread() {
    let name = named("loss_1");
    let args = ["profile", &name, "--seconds", "4", "--seeds", "2"];
    let set = [
        "--set",
        "tunnel.repair=off",
        "--set",
        "tunnel.retransmit=false",
    ];
    let json = sim(&[&args[..], &set, &["--json"]].concat());
    let document: serde_json::Value = serde_json::from_str(stdout(&json)).expect("one document");
    assert_eq!(document["settings"][0], "tunnel.repair=off");
    let runs = document["runs"].as_array().expect("a list");
    assert_eq!(runs.len(), 2);
    for (at, run) in runs.iter().enumerate() {
        assert_eq!(run["seed"], at + 1);
        assert_eq!(run["overhead_percent"]["repair"], 0.0, "as it was set");
        assert_eq!(run["overhead_percent"]["repeats"], 0.0, "as it was set");
    }
    let both = sim(&args);
    let text = stdout(&both);
    for part in ["seeds 1 to 2", "shardgate median", "plain worst"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    for (option, value, says) in [
        (
            "--set",
            "tunnel.repair=nope",
            "--set: tunnel.repair: \"nope\" does not fit",
        ),
        (
            "--set",
            "tunnel.listen_port=1",
            "there are tunnel.bulk_hold_ms",
        ),
        ("--seeds", "0", "from 1 to 100"),
        ("--seeds", "101", "from 1 to 100"),
    ] {
        let line = error(&["profile", &name, option, value]);
        assert!(line.contains(says), "{line}");
    }
    let help = sim(&["profile", "--help"]);
    assert!(stdout(&help).contains("queue_frames, loss, burst"));
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_a_remedy() {
    let unknown = error(&["profile", &named("nope")]);
    assert!(
        unknown.contains("clean, loss_1") && unknown.contains("congested"),
        "{unknown}"
    );
    let file = error(&["profile", "/nowhere.toml:clean"]);
    assert!(
        file.contains("/nowhere.toml") && file.contains("give a readable"),
        "{file}"
    );
    let shape = error(&["profile", "clean"]);
    assert!(shape.contains("FILE:NAME"), "{shape}");
    for seconds in ["3.9", "0", "1e9", "NaN"] {
        let line = error(&["profile", &named("clean"), "--seconds", seconds]);
        assert!(line.contains("from 4 to 3600"), "{line}");
    }
    for (option, value, says) in [
        ("--seconds", "-1", "from 4 to 3600"),
        ("--seed", "-1", "--seed"),
        ("--seed", "-1", "from 0 to 18446744073709551615"),
        ("--seed", "x", "from 0 to 18446744073709551615"),
    ] {
        let line = error(&["profile", &named("clean"), option, value]);
        assert!(line.contains(says), "{line}");
    }
    assert!(error(&["profile"]).contains("FILE:NAME"));
    assert!(error(&[]).starts_with("shardgate: "));
}

/// The emulator reads the same file. It stops at the device, which is checked after the profile.
#[test]
fn the_emulator_knows_the_same_profiles() {
    let emulate = |profile: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_shardgate"))
            .args(["emulate", "--left", "", "--right", "", "--profile", profile])
            .env_remove("RUST_LOG")
            .output()
            .expect("the program starts");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).expect("text")
    };
    assert!(emulate(&named("nope")).contains("no profile `nope`"));
    assert!(emulate(&named("dual_lte")).contains("dual_lte/a"));
    let right = emulate(&named("satellite"));
    assert!(
        !right.contains("profile") && !right.contains("satellite"),
        "{right}"
    );
}

/// A judgement that takes a moment.
const SMALL: [&str; 7] = [
    "predict", "--shards", "2000", "--seeds", "2", "--policy", "rack",
];

#[test]
fn a_judgement_as_json_has_the_points_that_tools_rely_on() {
    let args = [&SMALL[..], &["oracle", "--json", "--seed", "7"]].concat();
    let first = sim(&args);
    let text = stdout(&first);
    let report: serde_json::Value = serde_json::from_str(text).expect("one document");
    assert_eq!((&report["seed"], &report["seeds"]), (&7.into(), &2.into()));
    let policies = report["policies"].as_array().expect("a list");
    let names: Vec<_> = policies.iter().map(|policy| &policy["name"]).collect();
    assert_eq!(names, ["rack", "oracle"]);
    for policy in policies {
        let points = policy["frontier"].as_array().expect("a list");
        let rates: Vec<_> = points
            .iter()
            .map(|point| point["spurious_per_1000"].as_f64())
            .collect();
        assert_eq!(rates, [Some(0.25), Some(1.0), Some(2.5)]);
        let point = &points[2];
        for time in ["ask_delay_ms", "recovery_ms"] {
            for figure in ["mean", "p50", "p99", "p99_9"] {
                assert!(point[time][figure].is_f64(), "{time} {figure}: {point}");
            }
        }
        assert!(point["late_asked_share"].is_f64() && point["overhead_percent"].is_f64());
    }
    assert_eq!(policies[1]["brier"], 0.0, "it knows");
    assert!(policies[0]["brier"].is_null(), "it says nothing");
    let tuned: Vec<_> = report["tuned_on"].as_array().expect("a list").to_vec();
    let channels = report["channels"].as_array().expect("a list");
    assert!(
        channels
            .iter()
            .all(|channel| !tuned.contains(&channel["name"]))
    );
    assert_eq!(stdout(&sim(&args)), text, "the same bytes");
}

#[test]
fn a_judgement_of_traces_is_a_table() {
    let folder = std::env::temp_dir().join(format!("shardgate-sim-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("windows.log");
    let rows: String = (0..400)
        .map(|row| {
            let loss = if row % 7 == 0 { 0.2 } else { 0.0 };
            format!(
                "{:.3} 20.00 {}.0ms {loss}\n",
                f64::from(row) * 0.015,
                20 + row % 5
            )
        })
        .collect();
    std::fs::write(&file, rows).expect("written");
    let args = [&SMALL[..], &["--trace", file.to_str().expect("a name")]].concat();
    let judged = sim(&args);
    let text = stdout(&judged);
    for part in [
        "knobs tuned on: units",
        "reported on:    windows.log (independent losses), windows.log (losses in runs)",
        "ask, mean",
        "At its default setting",
        "Knob tuned elsewhere",
        "step as a share of the shortest round trip",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    std::fs::write(&file, "0.0 20.0 30.0ms 0.0\n0.1 fast 30.0ms 0.0\n").expect("written");
    let wrong = error(&args);
    assert!(
        wrong.contains("windows.log:2: rate `fast` is no number"),
        "{wrong}"
    );
    std::fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn the_model_its_ablation_and_its_rival_are_judged_at_the_default() {
    let judged = sim(&[
        "predict", "--shards", "1000", "--seeds", "1", "--json", "--timing",
    ]);
    let report: serde_json::Value = serde_json::from_str(stdout(&judged)).expect("one document");
    let policies = report["policies"].as_array().expect("a list");
    for name in ["model", "model-frozen", "rack", "fixed", "oracle"] {
        let policy = policies.iter().find(|policy| policy["name"] == name);
        let policy = policy.unwrap_or_else(|| panic!("{name}"));
        assert!(policy["cost"]["ns_per_hole"].is_f64(), "{name}");
        assert_eq!(
            policy["brier"].is_f64(),
            name.starts_with("model") || name == "oracle"
        );
        assert!(policy["default"]["late_asked_share"].is_f64(), "{name}");
    }
}

#[test]
fn a_judgement_refuses_what_it_cannot_do() {
    let cases: [(&[&str], &str); 9] = [
        (&["--shards", "10"], "from 1000 to 2000000"),
        (&["--shards", "99999999"], "from 1000 to 2000000"),
        (&["--seeds", "0"], "from 1 to 100"),
        (&["--seeds", "-1"], "from 0 to 4294967295"),
        (&["--shards", "-1"], "write a whole number from 0"),
        (&["--seeds", "101"], "from 1 to 100"),
        (&["--policy", "clever"], "no policy `clever`; there are "),
        (&["--trace", "/nowhere.log"], "/nowhere.log"),
        (&["--trace"], "--trace"),
    ];
    for (args, expected) in cases {
        let line = error(&[&["predict"], args].concat());
        assert!(line.contains(expected), "{line} instead of {expected}");
    }
}
