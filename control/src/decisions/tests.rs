use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use shardgate_core::plan::{Decision, Figure, Inputs, Limits, Reason, RepairMode, State, decide};

use super::*;
use crate::fake::Random;
use crate::limits::{DECISION_LINE_BYTES_MAX, DECISION_LINES_PER_MINUTE, DECISIONS_FILE_BYTES_MAX};

#[path = "../../tests/schema/mod.rs"]
mod schema;

fn random_inputs(random: &mut Random) -> Inputs {
    let mut below = |most: u64| random.next() % most;
    let repair = match below(6) {
        0 => RepairMode::Off,
        1 => RepairMode::Fixed {
            every: 8,
            window: 32,
        },
        _ => RepairMode::Auto,
    };
    let limits = Limits {
        repair,
        asks: below(4) > 0,
        payload_max: [1_414, 1_300, 700][below(3) as usize],
        window_max: 192,
        shards_max: 64,
    };
    let mut figure = |most: u64| {
        let count = below(20_000).saturating_sub(2_000);
        Figure::new(
            Some(below(most)),
            count,
            Some(Duration::from_micros(below(2_000_000))),
        )
    };
    let inputs = Inputs {
        limits,
        round_trip_us: figure(700_000),
        round_trip_min_us: figure(300_000),
        loss_ppm: figure(600_000),
        radio_loss_ppm: figure(100_000),
        burst_milli: figure(9_000),
        recent_burst_milli: figure(9_000),
        events_milli_per_s: figure(50_000),
        since_loss_us: figure(8_000_000),
        delivery_bytes_per_s: figure(10_000_000),
        queue_us: figure(100_000),
        crypto_permille: figure(1_001),
        ..Inputs::default()
    };
    Inputs {
        reports: below(u64::MAX),
        unanswered: below(20),
        unanswered_us: below(900_000),
        is_competing: below(8) == 0,
        ..inputs
    }
}

/// Records of one stream under random figures, as a gateway makes them.
pub fn history(seed: u64, count: usize) -> Vec<Record> {
    let mut random = Random(seed | 1);
    let (mut before, mut at) = (State::default(), Time(random.next() >> 8));
    let mut records = Vec::new();
    while records.len() < count {
        at += Duration::from_millis(10 + random.next() % 3_000);
        let inputs = random_inputs(&mut random);
        let after = decide(&before, &inputs, at);
        if after.plan != before.plan {
            records.push(Record {
                time: Wall(at.as_nanos() / 1_000 * 1_000),
                peer: "gw-b".into(),
                stream: 0,
                path: 0,
                number: records.len() as u64,
                decision: Decision {
                    at,
                    before,
                    inputs,
                    plan: after.plan,
                },
            });
        }
        before = after;
    }
    records
}

pub fn line(record: &Record) -> String {
    serde_json::to_string(record).unwrap()
}

#[test]
fn what_is_written_is_what_the_schema_describes() {
    let schema: Value = serde_json::from_str(include_str!("../../decisions.schema.json")).unwrap();
    let answer = |decisions: Vec<Value>| {
        let node = json!({"name": "gw-a", "version": "1", "uptime_s": 0.5});
        json!({"schema_version": SCHEMA_VERSION, "node": node, "missed": 0, "decisions": decisions})
    };
    let mut reasons = std::collections::BTreeSet::new();
    for seed in 1..20 {
        let records = history(seed, 40);
        reasons.extend(
            records
                .iter()
                .map(|record| record.decision.plan.reason.name()),
        );
        let decisions = records
            .iter()
            .map(|record| serde_json::to_value(record).unwrap());
        let document = answer(decisions.collect());
        assert_eq!(schema::violation(&schema, &document), None);
    }
    assert!(reasons.len() >= Reason::ALL.len() - 2, "{reasons:?}");
    // Each member is required, described, and refused if it is another.
    let good = serde_json::to_value(&history(7, 1)[0]).unwrap();
    let mut objects = vec![
        ("decision", &good),
        ("plan", &good["to"]),
        ("inputs", &good["inputs"]),
    ];
    objects.extend([
        ("limits", &good["inputs"]["limits"]),
        ("state", &good["state"]),
    ]);
    objects.extend([
        ("pace", &good["state"]["pace"]),
        ("level", &good["state"]["loss"]),
    ]);
    for (name, object) in objects {
        let described = &schema["$defs"][name];
        let properties = described["properties"].as_object().unwrap();
        assert_eq!(
            described["required"].as_array().unwrap().len(),
            properties.len(),
            "{name}"
        );
        for key in object.as_object().unwrap().keys() {
            let words = properties[key]["description"].as_str().unwrap_or_default();
            assert!(words.ends_with('.'), "{name}.{key} is not described");
        }
    }
    for key in good.as_object().unwrap().keys() {
        let mut wrong = good.clone();
        wrong.as_object_mut().unwrap().remove(key);
        assert!(
            schema::violation(&schema, &answer(vec![wrong.clone()])).is_some(),
            "{key}"
        );
        assert!(Record::parse(&wrong.to_string()).is_err(), "{key}");
        wrong = good.clone();
        wrong[key] = "x".into();
        assert!(
            key == "peer"
                || key == "time"
                || schema::violation(&schema, &answer(vec![wrong])).is_some()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn what_is_read_is_what_was_written_and_replays(seed in any::<u64>()) {
        for record in history(seed, 30) {
            let line = line(&record);
            prop_assert!(line.len() < DECISION_LINE_BYTES_MAX / 4, "{}", line.len());
            let read = Record::parse(&line).unwrap();
            prop_assert_eq!(&read, &record);
            prop_assert_eq!(read.decision.replay(), record.decision.plan);
        }
    }
}

/// Largest figures there are: nothing is rounded.
#[test]
fn figures_are_exact() {
    let mut record = history(1, 1).remove(0);
    let most = Figure {
        value: u64::MAX,
        count: u64::MAX - 1,
        age_us: u64::MAX - 2,
    };
    record.decision.inputs.delivery_bytes_per_s = most;
    record.decision.at = Time(u64::MAX - 3);
    record.decision.before.pace.fell_at = Some(Time(u64::MAX));
    let line = line(&record);
    assert!(line.contains("18446744073709551615") && line.contains("18446744073709551614"));
    assert_eq!(Record::parse(&line).unwrap(), record);
}

struct TestFile(PathBuf);

impl TestFile {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardgate-decisions-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(&self.0).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "no half line");
        text.lines().map(Into::into).collect()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn decided(record: &Record, peer: u16) -> Decided {
    Decided {
        peer,
        stream: record.stream,
        path: record.path,
        number: record.number,
        decision: record.decision,
    }
}

#[test]
fn decisions_are_appended_and_the_last_are_shown() {
    let file = TestFile::new();
    // What an interrupted write has left is one line, whatever it is.
    fs::write(&file.0, "{\"schema_ver").unwrap();
    let records = history(3, 50);
    let open = || Some(DecisionsFile::open(&file.0, 2).unwrap());
    let mut keeper = Keeper::new(vec!["gw-b".into(), "gw-c".into()], 2, open());
    let (now, wall_ns) = (Time(u64::MAX), 1_800_000_000_000_000_000);
    let mut queue: VecDeque<_> = records.iter().map(|record| decided(record, 0)).collect();
    queue.push_back(decided(&records[0], 1));
    assert!(keeper.turn(now, wall_ns, || queue.pop_front()));
    assert!(!keeper.turn(now, wall_ns, || queue.pop_front()));
    let lines = file.lines();
    assert_eq!(lines.len(), 52);
    let read: Vec<_> = lines[1..]
        .iter()
        .map(|line| Record::parse(line).unwrap())
        .collect();
    assert_eq!(read[49].decision, records[49].decision);
    assert_eq!(
        (read[49].peer.as_str(), read[50].peer.as_str()),
        ("gw-b", "gw-c")
    );
    let ago = now.since(records[49].decision.at).as_nanos() as u64;
    let expected = Wall(wall_ns.saturating_sub(ago));
    assert_eq!(read[49].time.to_string(), expected.to_string());
    let shown = keeper.shown().all();
    let (_, most) = DECISIONS_SHOWN_OF_STREAM;
    assert_eq!(shown.len(), most + 1);
    assert_eq!(
        shown[most - 1].decision,
        records[49].decision,
        "the last of the first stream"
    );
    assert_eq!(shown[0].number, 50 - most as u64);
    let status = keeper.status(3).unwrap();
    assert_eq!((status.written, status.dropped), (51, 3));
    assert_eq!(keeper.status(0).unwrap().dropped, 0);
    // The next start goes on where this one ended.
    drop(keeper);
    let mut next = open().unwrap();
    next.write(&records[0], Time::ZERO);
    assert_eq!(file.lines().len(), 53);
}

#[test]
fn many_streams_share_what_is_shown() {
    let records = history(5, 40);
    let streams = 3_000;
    let mut keeper = Keeper::new(vec![String::new(); streams], streams, None);
    for record in &records {
        let mut once = Some(decided(record, 0));
        keeper.turn(Time(0), 0, || once.take());
    }
    assert_eq!(keeper.shown().all().len(), DECISIONS_SHOWN_OF_STREAM.0);
    assert!(keeper.status(5).is_none());
}

#[test]
fn a_flood_is_bounded_and_counted() {
    let (file, record) = (TestFile::new(), history(2, 1).remove(0));
    let mut out = DecisionsFile::open(&file.0, 2).unwrap();
    let a_minute = u64::from(2 * DECISION_LINES_PER_MINUTE);
    for ms in 0..60_000 {
        out.write(&record, Time(ms * 1_000_000));
    }
    let written = out.status(0).written;
    // As many at once, and as many more in the minute.
    assert!(
        (2 * a_minute - 2..=2 * a_minute).contains(&written),
        "{written}"
    );
    assert_eq!(out.status(0).dropped, 60_000 - written);
    assert_eq!(file.lines().len() as u64, written);
}

#[test]
fn a_file_that_is_full_takes_more_once_it_was_cut() {
    let (file, record) = (TestFile::new(), history(2, 1).remove(0));
    let mut out = DecisionsFile::open(&file.0, 1).unwrap();
    out.write(&record, Time(0));
    let sparse = fs::OpenOptions::new().write(true).open(&file.0).unwrap();
    sparse.set_len(DECISIONS_FILE_BYTES_MAX - 10).unwrap();
    for _ in 0..2 {
        out.write(&record, Time(0));
        let status = serde_json::to_value(out.status(0)).unwrap();
        assert_eq!(status["state"], "full");
    }
    assert_eq!(
        fs::metadata(&file.0).unwrap().len(),
        DECISIONS_FILE_BYTES_MAX - 10
    );
    sparse.set_len(0).unwrap();
    out.write(&record, Time(0));
    let status = serde_json::to_value(out.status(0)).unwrap();
    assert_eq!(
        status,
        json!({"state": "recording", "written": 2, "dropped": 2})
    );
    assert_eq!(file.lines(), [line(&record)]);
}

#[test]
fn a_disk_that_is_full_stops_nothing() {
    let record = history(2, 1).remove(0);
    let mut out = DecisionsFile::open(std::path::Path::new("/dev/full"), 1).unwrap();
    for _ in 0..3 {
        out.write(&record, Time(0));
    }
    let status = serde_json::to_value(out.status(0)).unwrap();
    assert_eq!(
        status,
        json!({"state": "failed", "written": 0, "dropped": 3})
    );
}
