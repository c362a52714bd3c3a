use proptest::prelude::*;
use shardgate_core::plan::{Figure, Reason};

use super::*;
use crate::decisions::tests::{history, line};
use crate::limits::DECISION_LINE_BYTES_MAX;

fn lines(records: &[Record]) -> String {
    records.iter().map(|record| line(record) + "\n").collect()
}

fn answer(records: &[Record], pretty: bool) -> String {
    let node = serde_json::json!({"name": "gw-a", "version": "1", "uptime_s": 1.0});
    let document = serde_json::json!({
        "schema_version": 1, "node": node, "missed": 0, "decisions": records,
    });
    if pretty {
        serde_json::to_string_pretty(&document).unwrap()
    } else {
        document.to_string()
    }
}

fn read(text: impl AsRef<[u8]>) -> Result<Vec<(usize, Record)>, String> {
    read::read(text.as_ref())
}

fn judged(records: &[Record]) -> (usize, usize, u64) {
    let numbered: Vec<_> = (1..).zip(records.iter().cloned()).collect();
    let report = Report::new(&numbered);
    (report.different, report.unconnected, report.missing)
}

#[test]
fn both_forms_are_read() {
    let records = history(11, 20);
    let numbered: Vec<_> = (1..).zip(records.iter().cloned()).collect();
    assert_eq!(read(lines(&records)).unwrap(), numbered);
    assert_eq!(read(answer(&records, false)).unwrap(), numbered);
    assert_eq!(read(answer(&records, true)).unwrap(), numbered);
    assert_eq!(read(answer(&records[..1], false)).unwrap(), numbered[..1]);
    // Without the last line feed, with those of another system, with empty lines.
    assert_eq!(read(lines(&records).trim_end()).unwrap(), numbered);
    let windows = lines(&records).replace('\n', "\r\n");
    assert_eq!(read(windows).unwrap(), numbered);
    let sparse = format!("\n{}", lines(&records[..1]));
    assert_eq!(read(sparse).unwrap(), [(2, records[0].clone())]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let records = history(12, 3);
    let good = lines(&records);
    let long = format!(
        "{}{{\"a\":\"{}\"}}\n",
        good,
        "x".repeat(DECISION_LINE_BYTES_MAX)
    );
    let newer = format!("{}{{\"schema_version\":2,\"new\":1}}\n", good);
    let surplus = good.replacen("\"peer\"", "\"surplus\":1,\"peer\"", 1);
    let twice = good.replacen("\"number\":0", "\"number\":0,\"number\":0", 1);
    let label = good.replacen("\"label\":\"", "\"label\":\"X", 1);
    let negative = good.replacen("\"number\":1", "\"number\":-1", 1);
    let large = good.replacen("\"number\":2", "\"number\":18446744073709551616", 1);
    let deep = good.replacen(
        "\"peer\":\"gw-b\"",
        &format!("\"peer\":{}", "[".repeat(10_000)),
        1,
    );
    let long_name = good.replacen("\"peer\"", &format!("\"p{}\"", "\\n".repeat(5_000)), 1);
    for (text, parts) in [
        (&good[..good.len() - 30], ["line 3", "cut off"]),
        (&good[..50], ["line 1", "cut off"]),
        (&long, ["line 4", "longer than 16384"]),
        (&newer, ["line 4", "schema_version 2"]),
        (&surplus, ["line 1", "unknown field `surplus`"]),
        (&twice, ["line 1", "duplicate field"]),
        (&label, ["line 1", "no label \"X"]),
        (&negative, ["line 2", "column"]),
        (&large, ["line 3", "column"]),
        (&deep, ["line 1", "no decision of a gateway"]),
        (&long_name, ["line 1", "unknown field `p"]),
        ("", ["holds no decisions", ""]),
        ("\n \n", ["holds no decisions", ""]),
        (&answer(&[], false), ["holds no decisions", ""]),
        ("hello\n", ["line 1", "no decision of a gateway"]),
        ("{\"a\":1}\n", ["line 1", "no decision of a gateway"]),
        ("{\n\"a\":1}\n", ["line 2", "no answer of /decisions"]),
        ("{\n", ["line 2", "cut off"]),
    ] {
        let error = read(text).expect_err("wrong");
        for part in parts {
            assert!(error.contains(part), "{error} instead of {part}");
        }
        assert!(!error.contains('\n') && error.len() < 300, "{error}");
    }
    let error = read(b"\xff\xfe\n").expect_err("wrong");
    assert!(error.contains("line 1: is not UTF-8"), "{error}");
    let pretty = answer(&records, true);
    let cut = read(&pretty[..pretty.len() - 40]).expect_err("wrong");
    assert!(cut.contains("cut off"), "{cut}");
    let zeros = read::read(std::io::BufReader::new(std::io::repeat(0))).expect_err("wrong");
    assert!(zeros.contains("line 1: is longer"), "{zeros}");
}

#[test]
fn a_changed_input_is_noticed() {
    let records = history(13, 60);
    assert_eq!(judged(&records), (0, 0, 0));
    // Each that has something to do with the plan, in at least one of them.
    type Change = fn(&mut Record);
    let changes: [(&str, Change); 6] = [
        ("payload", |r| r.decision.inputs.limits.payload_max -= 1),
        ("loss", |r| {
            r.decision.inputs.radio_loss_ppm = Figure {
                value: 60_000,
                count: 5_000,
                age_us: 10,
            }
        }),
        ("others", |r| r.decision.inputs.is_competing ^= true),
        ("silence", |r| {
            (
                r.decision.inputs.unanswered,
                r.decision.inputs.unanswered_us,
            ) = (100, 5_000_000);
        }),
        ("row", |r| r.decision.before.loss.at ^= 7),
        ("reason", |r| r.decision.plan.reason = Reason::Crypto),
    ];
    for (name, change) in changes {
        let noticed = (0..records.len()).filter(|&at| {
            let mut changed = records.clone();
            change(&mut changed[at]);
            judged(&changed) != (0, 0, 0)
        });
        let noticed = noticed.count();
        assert!(noticed > 1, "{name}: {noticed}");
    }
}

#[test]
fn what_is_left_out_is_counted_and_what_does_not_follow_is_told() {
    let mut records = history(14, 10);
    records.drain(4..6);
    assert_eq!(judged(&records), (0, 0, 2));
    // It looks as if nothing were missing.
    records[4].number -= 2;
    assert_eq!(judged(&records[..5]), (0, 1, 0));
    // Another start of the gateway.
    let two = [history(14, 10), history(15, 10)].concat();
    assert_eq!(judged(&two), (0, 0, 0));
}

#[test]
fn a_report_reads_well() {
    let mut records = history(21, 3);
    records[1].decision.inputs.limits.payload_max = 900;
    records[2].peer = "gw\u{1b}[2J".into();
    let numbered: Vec<_> = (1..).zip(records).collect();
    let report = Report::new(&numbered);
    let text = table::table(&report);
    let rows: Vec<_> = text.lines().collect();
    assert!(rows[0].starts_with("time "), "{text}");
    assert!(
        rows[1].contains("gw-b/0") && rows[1].contains("nothing -> "),
        "{text}"
    );
    assert!(
        rows[1].ends_with("same") && rows[2].contains("DIFFERENT: "),
        "{text}"
    );
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(
        text.ends_with(
            "3 decisions of 2 streams: 1 DIFFERENT, 0 NOT CONNECTED to the one before\n"
        )
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["decisions"][1]["verdict"], "different");
    assert_ne!(json["decisions"][1]["replayed"], json["decisions"][1]["to"]);
    assert_eq!(json["different"], 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// A good file with bytes changed, cut out or put in: it is read or refused in one line.
    #[test]
    fn nothing_in_a_file_does_harm(
        seed in 1u64..50,
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0u8..3, any::<u8>()), 1..6),
        is_answer in any::<bool>(),
    ) {
        let records = history(seed, 3);
        let text = if is_answer { answer(&records, seed % 2 == 0) } else { lines(&records) };
        let mut bytes = text.into_bytes();
        for (at, edit, byte) in edits {
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..(at + usize::from(byte)).min(bytes.len()))),
                _ => bytes.insert(at, byte),
            }
        }
        match read(&bytes) {
            Ok(records) => {
                let report = Report::new(&records);
                prop_assert_eq!(report.decisions.len(), records.len());
                let shown = table::table(&report);
                prop_assert!(!shown.contains('\u{1b}'), "{shown:?}");
            }
            Err(error) => prop_assert!(error.len() < 400 && !error.contains('\n'), "{error}"),
        }
    }

    #[test]
    fn nor_does_nonsense(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(read(&bytes).is_err());
    }

    /// Figures of any size, in any member.
    #[test]
    fn nor_do_numbers(seed in 1u64..50, numbers in prop::collection::vec(any::<u64>(), 90)) {
        let mut value = serde_json::to_value(&history(seed, 2)[1]).unwrap();
        let mut numbers = numbers.into_iter().cycle();
        exaggerate(&mut value, &mut |most| numbers.next().unwrap_or_default() % most);
        // Those that do not fit are refused.
        if let Ok(records) = read(value.to_string()) {
            table::table(&Report::new(&records));
        }
    }
}

/// Puts other numbers, mostly small ones, in the place of those that are there.
fn exaggerate(value: &mut serde_json::Value, random: &mut dyn FnMut(u64) -> u64) {
    use serde_json::Value;
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                if key != "schema_version" {
                    exaggerate(member, random);
                }
            }
        }
        Value::Number(_) => {
            let most = [256, 256, 256, 65_536, u64::MAX][random(5) as usize];
            *value = random(most).into();
        }
        _ => {}
    }
}
