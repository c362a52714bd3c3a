//! What the paths do, what the tunnel adds to make good for it, and what became of what was missing.
//!
//! A peer's streams are shown together: counts are summed, of the streams' quantiles the largest is
//! shown, because quantiles cannot be added.

use serde_json::Value;

use super::{Rows, View, count, field, sum};

/// Older figures of a path say nothing of it as it is. Paths are probed once a second, a round trip
/// may take most of another, and a peer that says nothing for so long is `silent` as well.
const CURRENT_NS: u64 = 3_000_000_000;

/// Causes of bytes beside the first transmissions: title, and the counter of a sent stream.
const CAUSES: [(&str, &str); 4] = [
    ("repeats %", "repeat_bytes"),
    ("repair %", "repair_bytes"),
    ("tail repair %", "tail_repair_bytes"),
    ("feedback %", "feedback_bytes"),
];

/// How holes end; those passed on are a part of those given up.
const ENDS: [(&str, &str); 5] = [
    ("units' order", "holes_by_units"),
    ("reordered", "holes_filled"),
    ("recovered", "holes_recovered"),
    ("given up", "holes_given_up"),
    ("passed on", "holes_passed_on"),
];

/// What was done about missing shards.
const MEANS: [(&str, &str); 4] = [
    ("asked", "shards_asked"),
    ("needless", "asked_needlessly"),
    ("repeated", "shards_repeated"),
    ("rebuilt", "shards_rebuilt"),
];

impl View<'_> {
    /// What is known of each path.
    pub(super) fn paths(&self) -> Rows {
        let mut rows = Rows::new(&[
            "path to",
            "mtu",
            "rtt ms",
            "min",
            "queue ms",
            "loss %",
            "burst",
            "at best Mbit/s",
            "queue signals",
            "marks",
            "competing",
        ]);
        for (at, peer) in self.elements("/peers") {
            let out = format!("/peers/{at}/streams_out");
            let get = |name: &str| peer.get("path")?.get(name)?.as_u64();
            let is_current = self.is_current(peer);
            let known = |name: &str| get(name).filter(|value| *value > 0 && is_current);
            // Of the queue and of losses only reports tell; with them, zero is a figure.
            let is_reported =
                is_current && sum(self.now, &out, "reports").is_some_and(|reports| reports > 0);
            let reported = |name: &str| get(name).filter(|_| is_reported);
            let competing = get("competing").filter(|_| is_reported);
            let row = vec![
                field(peer, "name"),
                count(get("path_mtu_bytes").filter(|mtu| *mtu > 0)),
                scaled(known("rtt_smoothed_ns"), 1e-6),
                scaled(known("rtt_min_ns"), 1e-6),
                scaled(reported("queue_delay_ns"), 1e-6),
                scaled(reported("loss_ppm"), 1e-4),
                scaled(known("loss_burst_milli"), 1e-3),
                scaled(known("delivery_bytes_per_s"), 8e-6),
                count(sum(self.now, &out, "queue_signals")),
                count(sum(self.now, &out, "queue_marks")),
                competing
                    .map_or("-", |is| if is > 0 { "yes" } else { "no" })
                    .into(),
            ];
            push_known(&mut rows, row);
        }
        rows
    }

    /// Whether what is known of the path was measured lately. A document that does not tell is
    /// believed.
    fn is_current(&self, peer: &Value) -> bool {
        let get = |name: &str| peer.get("path")?.get(name)?.as_u64();
        let heard = || {
            let heard = get("last_heard_ns").filter(|at| *at > 0)?;
            let now = self.now.get("time_ns")?.as_u64()?;
            Some(now.saturating_sub(heard))
        };
        let ages = [get("rtt_age_ns"), heard()];
        ages.into_iter().flatten().all(|age| age <= CURRENT_NS)
    }

    /// What is sent beside the first transmissions, as a share of their bytes: since the document
    /// before, or since the start.
    pub(super) fn additions(&self) -> Rows {
        let titles = CAUSES.map(|(title, _)| title);
        let rest = ["all %", "over budget"];
        let mut rows = Rows::new(&[&["added to source"], &titles[..], &rest].concat());
        for (at, peer) in self.elements("/peers") {
            let out = format!("/peers/{at}/streams_out");
            let source = self.grown(&out, "source_bytes").filter(|bytes| *bytes > 0);
            let share = |bytes: Option<u64>| match (bytes, source) {
                (Some(bytes), Some(source)) => {
                    format!("{:.2}", bytes as f64 * 100.0 / source as f64)
                }
                _ => "-".into(),
            };
            let bytes = CAUSES.map(|(_, name)| self.grown(&out, name));
            let mut row = vec![field(peer, "name")];
            row.extend(bytes.map(share));
            row.push(share(bytes.into_iter().sum()));
            row.push(count(sum(self.now, &out, "over_budget")));
            push_known(&mut rows, row);
        }
        rows
    }

    /// What was missing of the peers' streams, and what became of it.
    pub(super) fn holes(&self) -> Rows {
        let titles = ENDS.iter().chain(&MEANS).map(|(title, _)| *title);
        let titles: Vec<_> = ["missing from", "holes"]
            .into_iter()
            .chain(titles)
            .collect();
        let mut rows = Rows::new(&[&titles[..], &["p50 ms", "p99 ms"]].concat());
        for (at, peer) in self.elements("/peers") {
            let into = format!("/peers/{at}/streams_in");
            let mut row = vec![field(peer, "name"), count(sum(self.now, &into, "holes"))];
            let counters = ENDS.iter().chain(&MEANS);
            row.extend(counters.map(|(_, name)| count(sum(self.now, &into, name))));
            for quantile in ["p50_us", "p99_us"] {
                let recovery = streams(peer, "streams_in").filter_map(|stream| {
                    let recovery = stream.get("recovery")?;
                    let count = recovery.get("count")?.as_u64()?;
                    recovery.get(quantile)?.as_u64().filter(|_| count > 0)
                });
                row.push(scaled(recovery.max(), 1e-3));
            }
            push_known(&mut rows, row);
        }
        rows
    }

    /// What a sum grew by since the document before, or its value if there is none. Nothing if it
    /// fell: the gateway has started anew.
    fn grown(&self, array: &str, name: &str) -> Option<u64> {
        let now = sum(self.now, array, name)?;
        match self.before {
            Some(before) => now.checked_sub(sum(before, array, name)?),
            None => Some(now),
        }
    }
}

/// Adds a peer's row, unless nothing in it is known: the document is of an older version.
fn push_known(rows: &mut Rows, row: Vec<String>) {
    if row.iter().skip(1).any(|cell| cell != "-") {
        rows.push(row);
    }
}

pub(super) fn streams<'a>(peer: &'a Value, direction: &str) -> impl Iterator<Item = &'a Value> {
    let streams = peer.get(direction).and_then(Value::as_array);
    streams.into_iter().flatten()
}

fn scaled(value: Option<u64>, scale: f64) -> String {
    value.map_or("-".into(), |value| format!("{:.2}", value as f64 * scale))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::table;

    fn sent(source: u64, repeats: u64) -> Value {
        json!({
            "source_bytes": source, "repeat_bytes": repeats, "repair_bytes": source / 20,
            "tail_repair_bytes": 1_000, "feedback_bytes": 2_500, "over_budget": 3,
            "queue_signals": 4, "queue_marks": 1, "reports": 9,
        })
    }

    fn received(p50_us: u64, count: u64) -> Value {
        json!({
            "holes": 100, "holes_by_units": 1, "holes_filled": 2, "holes_recovered": 90,
            "holes_given_up": 7, "holes_passed_on": 5, "shards_asked": 80, "asked_needlessly": 2,
            "shards_repeated": 60, "shards_rebuilt": 30,
            "recovery": {"count": count, "p50_us": p50_us, "p99_us": 2 * p50_us},
        })
    }

    fn document(source: u64, repeats: u64) -> Value {
        json!({"peers": [{
            "name": "gw-b",
            "path": {
                "path_mtu_bytes": 1_492, "rtt_smoothed_ns": 41_230_000, "rtt_min_ns": 40_000_000, "queue_delay_ns": 0,
                "loss_ppm": 10_500, "loss_burst_milli": 2_940,
                "delivery_bytes_per_s": 25_000_000, "competing": 0,
            },
            "streams_out": [sent(source, repeats), sent(source, 0)],
            "streams_in": [received(41_000, 90), received(52_500, 90), received(90_000, 0)],
        }]})
    }

    /// The blocks that begin with these words.
    fn blocks(text: &str, titles: &[&str]) -> String {
        let blocks = text.split("\n\n");
        let wanted = blocks.filter(|block| titles.iter().any(|title| block.starts_with(title)));
        wanted.map(str::trim_end).collect::<Vec<_>>().join("\n\n")
    }

    const TITLES: [&str; 3] = ["path to", "added to source", "missing from"];

    #[test]
    fn one_look_shows_path_additions_and_holes() {
        let expected = "\
path to   mtu  rtt ms    min  queue ms  loss %  burst  at best Mbit/s  queue signals  marks  competing
gw-b     1492   41.23  40.00      0.00    1.05   2.94          200.00              8      2         no

added to source  repeats %  repair %  tail repair %  feedback %  all %  over budget
gw-b                  2.00      5.00           0.20        0.50   7.70            6

missing from  holes  units' order  reordered  recovered  given up  passed on  asked  needless  repeated  rebuilt  p50 ms  p99 ms
gw-b            300             3          6        270        21         15    240         6       180       90   52.50  105.00";
        let text = table(&document(500_000, 20_000), None);
        assert_eq!(blocks(&text, &TITLES), expected);
    }

    #[test]
    fn with_a_document_before_additions_are_those_between_the_two() {
        let (before, now) = (document(500_000, 20_000), document(600_000, 40_000));
        let line = |now: &Value, before: &Value| {
            let text = table(now, Some(before));
            blocks(&text, &TITLES[1..2])
                .lines()
                .nth(1)
                .map(str::to_owned)
        };
        let expected =
            "gw-b                 10.00      5.00           0.00        0.00  15.00            6";
        assert_eq!(line(&now, &before).as_deref(), Some(expected));
        // It has started anew, or nothing was sent: no share.
        for (now, before) in [(&before, &now), (&now, &now)] {
            let line = line(now, before).unwrap_or_default();
            assert_eq!(line.matches(" -").count(), 5, "{line}");
        }
    }

    #[test]
    fn what_was_measured_long_ago_is_not_known_any_more() {
        let row = |rtt_age_ms: u64, heard_ago_ms: u64| {
            let mut document = document(500_000, 20_000);
            document["time_ns"] = 90_000_000_000_u64.into();
            let path = &mut document["peers"][0]["path"];
            path["rtt_age_ns"] = (rtt_age_ms * 1_000_000).into();
            path["last_heard_ns"] = (90_000_000_000 - heard_ago_ms * 1_000_000).into();
            let text = table(&document, None);
            let row = blocks(&text, &TITLES[..1]).lines().nth(1)?.to_owned();
            Some(row.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        // An idle path is probed once a second.
        for (rtt_age_ms, heard_ago_ms) in [(0, 0), (1_900, 1_900)] {
            let row = row(rtt_age_ms, heard_ago_ms).unwrap();
            assert_eq!(row, "gw-b 1492 41.23 40.00 0.00 1.05 2.94 200.00 8 2 no");
        }
        for (rtt_age_ms, heard_ago_ms) in [(3_100, 3_100), (30_000, 0), (0, 30_000)] {
            let row = row(rtt_age_ms, heard_ago_ms).unwrap();
            assert_eq!(row, "gw-b 1492 - - - - - - 8 2 -");
        }
    }

    #[test]
    fn what_is_unknown_is_no_zero() {
        let mut document = document(0, 0);
        for stream in document["peers"][0]["streams_out"].as_array_mut().unwrap() {
            stream["reports"] = 0.into();
        }
        for name in [
            "rtt_smoothed_ns",
            "rtt_min_ns",
            "loss_burst_milli",
            "delivery_bytes_per_s",
        ] {
            document["peers"][0]["path"][name] = 0.into();
        }
        document["peers"][0]["streams_in"] = json!([]);
        let text = table(&document, None);
        let expected = "gw-b     1492       -    -         -       -      -               -              8      2          -";
        assert_eq!(blocks(&text, &TITLES[..1]).lines().nth(1), Some(expected));
        let holes = blocks(&text, &TITLES[2..]);
        assert!(holes.ends_with("0       -       -"), "{holes}");
    }
}
