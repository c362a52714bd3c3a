//! Profile files: the shape of the published ones, and errors that say where and what.

use std::path::Path;

use proptest::prelude::*;
use shardgate_sim::path::PathProfile;
use shardgate_sim::profiles::{Profile, ProfileError, ProfileFile, ProfileRef};

const TEXT: &str = r#"
# a comment
[[single]]
name = "far"
path = { delay_ms = 100, rate = 100, loss = 0.005, burst = 2 }

[[single]]
name = "everything"
[single.path]
delay_ms = 20
jitter_ms = 2.5
rate = 0.5
queue_frames = 7
loss = 0.01
burst = 3
reorder = 0.02
reorder_ms = 1.5
duplicate = 0.03
corrupt = 0.04
mtu = 9000

[[pair]]
name = "fiber_lte"
a = { delay_ms = 8, rate = 300 }
b = { delay_ms = 40, jitter_ms = 8, loss = 0.005, rate = 30 }
best_single = 212.4
best_published = 212.3
"#;

fn parse(text: &str) -> Result<ProfileFile, ProfileError> {
    ProfileFile::parse(text, Path::new("p.toml"))
}

fn message(text: &str) -> String {
    let message = parse(text).expect_err("a bad file").to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[test]
fn singles_and_pairs_parse() {
    let file = parse(TEXT).expect("a good file");
    assert_eq!(
        file.single[0].path,
        PathProfile {
            delay_ms: 100.0,
            rate: Some(100.0),
            loss: 0.005,
            burst: 2.0,
            ..PathProfile::default()
        }
    );
    assert_eq!(
        file.single[1].path,
        PathProfile {
            delay_ms: 20.0,
            jitter_ms: 2.5,
            rate: Some(0.5),
            queue_frames: Some(7),
            loss: 0.01,
            burst: 3.0,
            reorder: 0.02,
            reorder_ms: 1.5,
            duplicate: 0.03,
            corrupt: 0.04,
            mtu: 9_000,
        }
    );
    assert_eq!(file.pair[0].a.rate, Some(300.0));
    assert_eq!(file.pair[0].b.jitter_ms, 8.0);
    assert_eq!(file.pair[0].best_single, Some(212.4));
}

#[test]
fn a_reference_picks_a_path() {
    let dir = std::env::temp_dir().join(format!("shardgate-profiles-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let file = dir.join("with:colon.toml");
    std::fs::write(&file, TEXT).expect("a file");
    let reference = |name: &str| -> ProfileRef {
        format!("{}:{name}", file.display())
            .parse()
            .expect("a reference")
    };
    assert_eq!(reference("far").load_path().expect("far").delay_ms, 100.0);
    assert_eq!(
        reference("fiber_lte/b").load_path().expect("b").rate,
        Some(30.0)
    );
    assert!(matches!(
        reference("fiber_lte").load(),
        Ok(Profile::Pair(_))
    ));
    assert!(matches!(
        reference("fiber_lte").load_path(),
        Err(ProfileError::IsPair { .. })
    ));
    let unknown = reference("nope").load().expect_err("no such").to_string();
    assert!(
        unknown.contains("with:colon.toml") && unknown.contains("far, everything, fiber_lte"),
        "{unknown}"
    );
    let read = ProfileRef {
        file: dir.join("absent.toml"),
        name: "x".into(),
    };
    assert!(matches!(read.load(), Err(ProfileError::Read { .. })));
    for bad in ["", "file", "file:", ":name"] {
        assert!(bad.parse::<ProfileRef>().is_err(), "{bad}");
    }
    std::fs::remove_dir_all(&dir).expect("the folder");
}

#[test]
fn what_has_no_end_is_not_read_to_it() {
    let message = |file: &Path| {
        let error = ProfileFile::load(file).expect_err("no profile file");
        error.to_string()
    };
    for (device, says) in [
        ("/dev/zero", "not a regular file; give a readable"),
        ("/dev/null", "not a regular file"),
        ("/", "a folder"),
    ] {
        let message = message(Path::new(device));
        assert!(message.contains(says), "{message}");
    }
    let long = std::env::temp_dir().join(format!("shardgate-long-{}", std::process::id()));
    std::fs::write(&long, vec![b'#'; (1 << 20) + 1]).expect("a file");
    assert!(message(&long).contains("longer than the 1048576 bytes"));
    std::fs::write(&long, "").expect("an empty file");
    let reference = ProfileRef {
        file: long.clone(),
        name: "x".into(),
    };
    let none = reference.load().expect_err("nothing in it").to_string();
    assert!(none.ends_with("there are none in it: name a file that has [[single]] or [[pair]]"));
    std::fs::remove_file(&long).expect("removed");
}

#[test]
fn errors_name_file_line_and_key() {
    let unknown = message("[[single]]\nname = \"x\"\npath = { delay = 20 }\n");
    assert!(
        unknown.starts_with("p.toml:3:") && unknown.contains("`delay`"),
        "{unknown}"
    );
    let kind = message("[[single]]\nname = \"x\"\npath = { delay_ms = \"20\" }\n");
    assert!(kind.starts_with("p.toml:3: key `delay_ms`"), "{kind}");
    let negative = message("[[single]]\nname = \"x\"\npath = { queue_frames = -1 }\n");
    assert!(negative.contains("key `queue_frames`"), "{negative}");
    let value = message("[[pair]]\nname = \"x\"\na = {}\nb = { loss = 1.5 }\n");
    assert!(
        value.contains("p.toml") && value.contains("`x/b`") && value.contains("loss = 1.5"),
        "{value}"
    );
    let missing = message("[[single]]\nname = \"x\"\n");
    assert!(missing.contains("`path`"), "{missing}");
    let twice =
        message("[[single]]\nname = \"x\"\npath = {}\n[[pair]]\nname = \"x\"\na = {}\nb = {}\n");
    assert!(twice.contains("\"x\" is given twice"), "{twice}");
    let syntax = message("[[single]\n");
    assert!(syntax.starts_with("p.toml:1:"), "{syntax}");
}

#[test]
fn the_profiles_of_the_project_load() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles.toml");
    let profiles = ProfileFile::load(&file).expect("a good file");
    let singles: Vec<_> = profiles
        .single
        .iter()
        .map(|single| single.name.as_str())
        .collect();
    assert_eq!(
        singles,
        [
            "clean",
            "loss_1",
            "burst_1",
            "loss_5",
            "jitter_loss",
            "dsl_lossy",
            "far",
            "satellite",
            "fast_metro"
        ]
    );
    let pairs: Vec<_> = profiles
        .pair
        .iter()
        .map(|pair| pair.name.as_str())
        .collect();
    assert_eq!(
        pairs,
        [
            "baseline",
            "rtt_40",
            "rtt_70",
            "rtt_120",
            "rtt_320",
            "jit_5",
            "jit_20",
            "loss_05",
            "loss_2",
            "bw_4to1",
            "bw_10to1",
            "dual_lte",
            "fiber_lte",
            "lte_starlink",
            "lte_geo",
            "congested",
        ]
    );
    let published =
        |pair: &shardgate_sim::profiles::Pair| pair.best_single.zip(pair.best_published).is_some();
    assert!(profiles.pair.iter().all(published));
    for name in singles.iter().chain(&pairs) {
        let reference: ProfileRef = format!("{}:{name}", file.display())
            .parse()
            .expect("a reference");
        assert!(reference.load().is_ok(), "{name}");
    }
}

proptest! {
    /// Whatever the file holds, the answer is a profile or one line.
    #[test]
    fn no_text_panics(cut in 0..TEXT.len(), insert in "[\\PC\n]{0,12}") {
        let mut text: String = TEXT.chars().take(cut).collect();
        text.push_str(&insert);
        text.extend(TEXT.chars().skip(cut));
        if let Err(error) = parse(&text) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
