//! A stats document as a table for people; with the document before it, with rates.
//!
//! The document may come from another version of the program: what is missing is shown as `-`.

mod plans;
mod predictor;
mod recovery;

use serde_json::Value;

/// Shows `now`; rates are against `before`.
pub fn table(now: &Value, before: Option<&Value>) -> String {
    let text = |pointer: &str| now.pointer(pointer).map_or("-".into(), plain);
    let uptime = now
        .pointer("/node/uptime_s")
        .and_then(Value::as_f64)
        .unwrap_or(0.0);
    let mut out = format!(
        "{}  shardgate {}  up {}\n",
        text("/node/name"),
        text("/node/version"),
        duration(uptime)
    );
    let view = View {
        now,
        before,
        seconds: before.and_then(|before| elapsed(now, before)),
    };
    out.push_str(&view.peers().render());
    out.push_str(&view.paths().render());
    out.push_str(&view.plans().render());
    out.push_str(&view.additions().render());
    out.push_str(&view.holes().render());
    out.push_str(&view.predictors().render());
    out.push_str(&view.ports().render());
    out.push_str(&view.units().render());
    out.push_str(&view.counts("drops", "/drops").render());
    out.push_str(
        &view
            .counts("handshakes rejected", "/handshake/rejected")
            .render(),
    );
    out
}

/// Seconds between two documents by the engine's clock.
fn elapsed(now: &Value, before: &Value) -> Option<f64> {
    let time = |document: &Value| document.pointer("/time_ns")?.as_u64();
    let ns = time(now)?.checked_sub(time(before)?)?;
    (ns > 0).then_some(ns as f64 / 1e9)
}

struct View<'a> {
    now: &'a Value,
    before: Option<&'a Value>,
    seconds: Option<f64>,
}

impl View<'_> {
    fn elements(&self, pointer: &str) -> impl Iterator<Item = (usize, &Value)> {
        self.now
            .pointer(pointer)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
    }

    /// A figure per second: what a sum grew by since the document before.
    fn rate(&self, sum: impl Fn(&Value) -> Option<u64>, scale: f64) -> String {
        let rate = || {
            let grown = sum(self.now)?.checked_sub(sum(self.before?)?)?;
            Some(grown as f64 * scale / self.seconds?)
        };
        rate().map_or("-".into(), |rate| format!("{rate:.1}"))
    }

    fn peers(&self) -> Rows {
        let mut rows = Rows::new(&[
            "peer",
            "state",
            "remote",
            "out Mbit/s",
            "in Mbit/s",
            "frames out",
            "frames in",
            "shards out",
            "shards in",
            "stragglers",
            "lost",
        ]);
        for (at, peer) in self.elements("/peers") {
            let session = self
                .now
                .pointer(&format!("/sessions/{at}"))
                .unwrap_or(&Value::Null);
            let out = format!("/peers/{at}/streams_out");
            let into = format!("/peers/{at}/streams_in");
            let total = |streams: &str, field: &str| count(sum(self.now, streams, field));
            let megabits = |streams: &str| {
                self.rate(|document| sum(document, streams, "frame_bytes"), 8.0 / 1e6)
            };
            let skipped = sum(self.now, &into, "frames_skipped");
            let recovered = sum(self.now, &into, "frames_recovered").unwrap_or_default();
            let lost = count(skipped.map(|n| n.saturating_sub(recovered)));
            rows.push(vec![
                field(peer, "name"),
                field(session, "state"),
                field(session, "remote"),
                megabits(&out),
                megabits(&into),
                total(&out, "frames"),
                total(&into, "frames"),
                total(&out, "shards"),
                total(&into, "shards"),
                total(&into, "stragglers"),
                lost,
            ]);
        }
        rows
    }

    fn ports(&self) -> Rows {
        let mut rows = Rows::new(&[
            "port",
            "role",
            "link",
            "rx Mbit/s",
            "tx Mbit/s",
            "rx frames",
            "tx frames",
            "missed",
            "errors",
        ]);
        for (at, port) in self.elements("/ports") {
            let megabits = |name: &str| {
                let pointer = format!("/ports/{at}/{name}");
                self.rate(|document| document.pointer(&pointer)?.as_u64(), 8.0 / 1e6)
            };
            let errors: u64 = ["rx_errors", "tx_errors", "rx_no_buffer"]
                .iter()
                .filter_map(|name| port.get(name)?.as_u64())
                .sum();
            let link = port.get("link_up").and_then(Value::as_bool);
            rows.push(vec![
                field(port, "name"),
                field(port, "role"),
                link.map_or("-", |up| if up { "up" } else { "down" }).into(),
                megabits("rx_bytes"),
                megabits("tx_bytes"),
                field(port, "rx_frames"),
                field(port, "tx_frames"),
                field(port, "rx_missed"),
                errors.to_string(),
            ]);
        }
        rows
    }

    fn units(&self) -> Rows {
        let mut rows = Rows::new(&[
            "unit on lcore",
            "kind",
            "load %",
            "sealed",
            "opened",
            "forged",
            "sealed/s",
            "opened/s",
        ]);
        for (at, unit) in self.elements("/units") {
            let per_second = |name: &str| {
                let pointer = format!("/units/{at}/{name}");
                self.rate(|document| document.pointer(&pointer)?.as_u64(), 1.0)
            };
            let load = unit.get("load_permille").and_then(Value::as_u64);
            rows.push(vec![
                field(unit, "lcore"),
                field(unit, "kind"),
                load.map_or("-".into(), |load| (load as f64 / 10.0).to_string()),
                field(unit, "sealed"),
                field(unit, "opened"),
                field(unit, "forged"),
                per_second("sealed"),
                per_second("opened"),
            ]);
        }
        rows
    }

    /// An object of counters; only those that have counted.
    fn counts(&self, title: &str, pointer: &str) -> Rows {
        let mut rows = Rows::new(&[title, "count", "per s"]);
        let object = self.now.pointer(pointer).and_then(Value::as_object);
        for (reason, count) in object.into_iter().flatten() {
            if count.as_u64().is_some_and(|count| count > 0) {
                let pointer = format!("{pointer}/{reason}");
                let rate = self.rate(|document| document.pointer(&pointer)?.as_u64(), 1.0);
                rows.push(vec![reason.clone(), plain(count), rate]);
            }
        }
        rows
    }
}

fn sum(document: &Value, array: &str, field: &str) -> Option<u64> {
    let elements = document.pointer(array)?.as_array()?;
    elements
        .iter()
        .map(|element| element.get(field)?.as_u64())
        .sum()
}

fn field(value: &Value, name: &str) -> String {
    value.get(name).map_or("-".into(), plain)
}

/// A value without quotes; control characters of a strange document stay out of the terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        other => other.to_string(),
    }
}

fn count(value: Option<u64>) -> String {
    value.map_or("-".into(), |value| value.to_string())
}

fn duration(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Lines of equal columns: the first to the left, the others to the right.
struct Rows(Vec<Vec<String>>);

impl Rows {
    fn new(heading: &[&str]) -> Self {
        Self(vec![heading.iter().map(|&cell| cell.to_owned()).collect()])
    }

    fn push(&mut self, row: Vec<String>) {
        self.0.push(row);
    }

    /// Nothing at all if there is only the heading.
    fn render(&self) -> String {
        if self.0.len() < 2 {
            return String::new();
        }
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.0 {
            widths.resize(widths.len().max(row.len()), 0);
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::from("\n");
        for row in &self.0 {
            let mut line = String::new();
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                if at == 0 {
                    line.push_str(&format!("{cell:<width$}"));
                } else {
                    line.push_str(&format!("  {cell:>width$}"));
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(time_ns: u64, bytes: u64) -> Value {
        json!({
            "time_ns": time_ns,
            "node": {"name": "gw-a", "version": "0.1.0", "uptime_s": 75.2},
            "sessions": [{"peer": "gw-b", "state": "up", "remote": "10.9.0.2:4600"}],
            "handshake": {"rejected": {"mac1": 3, "replayed": 0}},
            "peers": [{
                "name": "gw-b",
                "streams_out": [{"frame_bytes": bytes, "frames": 7, "shards": 8}],
                "streams_in": [
                    {"frame_bytes": bytes, "frames": 1, "shards": 2, "stragglers": 0, "frames_skipped": 2, "frames_recovered": 1},
                    {"frame_bytes": bytes, "frames": 1, "shards": 2, "stragglers": 5, "frames_skipped": 2, "frames_recovered": 1},
                ],
            }],
            "ports": [{"name": "wan0", "role": "wan", "link_up": true, "rx_bytes": 0, "tx_bytes": bytes,
                       "rx_frames": 4, "tx_frames": 5, "rx_missed": 0, "rx_errors": 1, "tx_errors": 2}],
            "units": [{"lcore": 1, "kind": "software", "load_permille": 125, "sealed": 8, "opened": 4, "forged": 0}],
            "drops": {"no_session": 9, "forged": 0},
        })
    }

    #[test]
    fn one_look() {
        let expected = "\
gw-a  shardgate 0.1.0  up 1 min 15 s

peer  state         remote  out Mbit/s  in Mbit/s  frames out  frames in  shards out  shards in  stragglers  lost
gw-b     up  10.9.0.2:4600           -          -           7          2           8          4           5     2

port  role  link  rx Mbit/s  tx Mbit/s  rx frames  tx frames  missed  errors
wan0   wan    up          -          -          4          5       0       3

unit on lcore      kind  load %  sealed  opened  forged  sealed/s  opened/s
1              software    12.5       8       4       0         -         -

drops       count  per s
no_session      9      -

handshakes rejected  count  per s
mac1                     3      -
";
        assert_eq!(table(&document(1, 1), None), expected);
    }

    #[test]
    fn two_looks_give_rates() {
        let (before, now) = (
            document(1_000_000_000, 0),
            document(3_000_000_000, 25_000_000),
        );
        let text = table(&now, Some(&before));
        let peer = text.lines().find(|line| line.starts_with("gw-b")).unwrap();
        // 25 MB in 2 s one way, and twice that in two streams the other way.
        assert!(peer.contains("100.0"), "{peer}");
        assert!(peer.contains("200.0"), "{peer}");
        assert!(text.contains("no_session      9    0.0"), "{text}");
        // A gateway that has started again counts from zero: no rate, no panic.
        assert!(!table(&before, Some(&now)).contains("100.0"));
    }

    #[test]
    fn a_strange_document_is_shown_as_far_as_it_goes() {
        assert_eq!(table(&json!({}), None), "-  shardgate -  up 0 s\n");
        let text = table(
            &json!({"node": {"name": "\u{1b}[2J"}, "peers": [1, {}], "drops": []}),
            None,
        );
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn durations() {
        assert_eq!(duration(59.9), "59 s");
        assert_eq!(duration(3600.0 * 5.0 + 61.0), "5 h 1 min");
        assert_eq!(duration(86_400.0 * 2.0), "2 d 0 h");
    }
}
