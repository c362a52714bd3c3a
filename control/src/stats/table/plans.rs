//! What is planned for each stream that is sent, and which input led to it.

use serde_json::Value;

use super::recovery::streams;
use super::{Rows, View, field};

impl View<'_> {
    /// What is planned for each stream, and why.
    pub(super) fn plans(&self) -> Rows {
        let mut rows = Rows::new(&[
            "plan for",
            "stream",
            "label",
            "n",
            "repair",
            "waits ms",
            "may add %",
            "reason",
            "changes",
        ]);
        for (_, peer) in self.elements("/peers") {
            for (at, stream) in streams(peer, "streams_out").enumerate() {
                let Some(plan) = stream.get("plan").filter(|plan| is_made(plan)) else {
                    continue;
                };
                let added = plan.get("added_permille").and_then(Value::as_u64);
                rows.push(vec![
                    field(peer, "name"),
                    at.to_string(),
                    field(plan, "label"),
                    field(plan, "n"),
                    repair(plan),
                    field(plan, "delay_ms"),
                    added.map_or("-".into(), |share| (share as f64 / 10.0).to_string()),
                    field(plan, "reason"),
                    field(stream, "plan_changes"),
                ]);
            }
        }
        rows
    }
}

/// Whether anything was planned yet.
fn is_made(plan: &Value) -> bool {
    plan.get("n").and_then(Value::as_u64) > Some(0)
}

/// Standing repair; without, what is done about rare losses.
fn repair(plan: &Value) -> String {
    let rate = |name: &str| {
        let repair = plan.get(name)?;
        let get = |name: &str| repair.get(name)?.as_u64();
        Some(format!("1/{} over {}", get("every")?, get("window")?))
    };
    let reactive = || rate("reactive").map(|rate| format!("after a loss {rate}"));
    rate("repair")
        .or_else(reactive)
        .unwrap_or_else(|| "none".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::table;

    #[test]
    fn each_stream_has_a_line_that_says_what_and_why() {
        let plan = |label: &str, n: u64, reason: &str| {
            json!({
                "label": label, "n": n, "payload_bytes": 707, "repair": null, "reactive": null,
                "delay_ms": 10, "added_permille": 1_000, "reason": reason,
            })
        };
        let mut lossy = plan("BURSTY", 2, "events");
        lossy["repair"] = json!({"every": 20, "window": 80});
        let mut rare = plan("CLEAN", 1, "start");
        rare["reactive"] = json!({"every": 4, "window": 16});
        let mut broken = plan("OUTAGE", 1, "silence");
        broken["added_permille"] = 125.into();
        let stream = |plan, changes: u64| json!({"plan": plan, "plan_changes": changes});
        let nothing_yet = stream(plan("CLEAN", 0, "start"), 0);
        let document = json!({"peers": [
            {"name": "gw-b", "streams_out": [stream(lossy, 7), stream(rare, 1), stream(broken, 3)]},
            {"name": "gw-c", "streams_out": [nothing_yet, {"frames": 3}]},
        ]});
        let expected = "
plan for  stream   label  n                    repair  waits ms  may add %   reason  changes
gw-b           0  BURSTY  2              1/20 over 80        10        100   events        7
gw-b           1   CLEAN  1  after a loss 1/4 over 16        10        100    start        1
gw-b           2  OUTAGE  1                      none        10       12.5  silence        3
";
        let text = table(&document, None);
        let shown = text.split_once("\n").map(|(_, rest)| rest);
        assert!(
            shown.is_some_and(|shown| shown.contains(expected)),
            "{text}"
        );
        assert!(!text.contains("\ngw-c           0  "), "{text}");
    }
}
