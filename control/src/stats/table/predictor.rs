//! What the predictors of the peers' streams have said, and what it was worth: a line for each peer,
//! its streams together.

use serde_json::Value;

use super::recovery::streams;
use super::{Rows, View, field, plain};

/// Bins of actual over expected time that count as right: within half and double.
const WITHIN_TWO: std::ops::Range<usize> = 3..5;

impl View<'_> {
    /// Who says when missing shards are asked for, and what that was worth since the start.
    pub(super) fn predictors(&self) -> Rows {
        let mut rows = Rows::new(&[
            "predictor for",
            "policy",
            "deciding",
            "learned from",
            "Brier",
            "off by %",
            "late asked %",
            "asks lost ms",
            "RACK would ms",
            "expected",
            "within 2x %",
        ]);
        for (_, peer) in self.elements("/peers") {
            let predictors: Vec<_> = streams(peer, "streams_in")
                .filter_map(|stream| stream.get("predictor"))
                .collect();
            if predictors.is_empty() {
                continue;
            }
            let models: Vec<_> = predictors
                .iter()
                .filter_map(|predictor| predictor.get("model"))
                .filter(|model| model.is_object())
                .collect();
            let mut row = vec![
                field(peer, "name"),
                each(&predictors, "policy"),
                deciding(&predictors),
            ];
            row.extend(judged(&models));
            rows.push(row);
        }
        rows
    }
}

/// What the streams say, each thing once.
fn each(predictors: &[&Value], name: &str) -> String {
    let mut words: Vec<String> = predictors
        .iter()
        .map(|predictor| field(predictor, name))
        .collect();
    words.dedup();
    words.join(", ")
}

/// Who decides, and why it is not who was meant to.
fn deciding(predictors: &[&Value]) -> String {
    let reason = predictors
        .iter()
        .filter_map(|predictor| predictor.get("fallback_reason"))
        .find(|reason| !reason.is_null());
    let deciding = each(predictors, "deciding");
    match reason {
        Some(reason) => format!("{deciding} ({})", plain(reason)),
        None => deciding,
    }
}

/// The figures of several models as if they were one.
fn judged(models: &[&Value]) -> [String; 8] {
    let sum = |pointer: &str| -> Option<u64> {
        let values = models.iter().map(|model| model.pointer(pointer)?.as_u64());
        values.sum::<Option<u64>>().filter(|_| !models.is_empty())
    };
    let bins = |model: &Value, table: &str| -> Vec<u64> {
        let bins = model.pointer(table).and_then(Value::as_array);
        let bins = bins.into_iter().flatten();
        bins.filter_map(|bin| bin.get("holes")?.as_u64()).collect()
    };
    // A mean of each model's own, weighted by what it was taken over.
    let mean = |name: &str, weight: &dyn Fn(&Value) -> u64| -> Option<f64> {
        let weighed = models.iter().filter_map(|model| {
            let weight = weight(model);
            Some((model.get(name)?.as_f64()? * weight as f64, weight))
        });
        let (sum, weights) = weighed.fold((0.0, 0), |(a, b), (x, w)| (a + x, b + w));
        (weights > 0).then(|| sum / weights as f64)
    };
    let fates = |model: &Value| bins(model, "/reliability").iter().sum();
    let losses = |model: &Value| model.get("losses").and_then(Value::as_u64).unwrap_or(0);
    let filled: u64 = sum("/expected/filled").unwrap_or(0);
    let right: u64 = models
        .iter()
        .map(|model| bins(model, "/expected/ratio"))
        .map(|bins| bins.get(WITHIN_TWO).map_or(0, |bins| bins.iter().sum()))
        .sum();
    let percent = |part: Option<u64>, whole: Option<u64>| {
        let share = part? as f64 / whole.filter(|&whole| whole > 0)? as f64;
        Some(share * 100.0)
    };
    let shown =
        |value: Option<f64>, digits| value.map_or("-".into(), |value| format!("{value:.digits$}"));
    [
        super::count(sum("/learned")),
        shown(mean("brier", &fates), 3),
        shown(
            mean("calibration_error", &fates).map(|error| error * 100.0),
            1,
        ),
        shown(percent(sum("/late_asked"), sum("/late")), 1),
        shown(mean("ask_delay_mean_ms", &losses), 2),
        shown(mean("rack_ask_delay_mean_ms", &losses), 2),
        super::count(sum("/expected/filled")),
        shown(percent(Some(right), Some(filled)), 1),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::table;

    fn model(learned: u64, holes: u64, brier: f64, losses: u64, ask_ms: f64) -> Value {
        let ratio = [0u64, 1, 1, 4, 3, 1, 0, 0].map(|holes| json!({"holes": holes}));
        json!({
            "learned": learned, "late": 200, "late_asked": 10, "brier": brier,
            "calibration_error": 0.04, "losses": losses, "ask_delay_mean_ms": ask_ms,
            "rack_ask_delay_mean_ms": 10.0,
            "reliability": [{"holes": holes}, {"holes": 0}],
            "expected": {"filled": 10, "ratio": ratio},
        })
    }

    fn document(predictors: &[Value]) -> Value {
        let streams: Vec<_> = predictors
            .iter()
            .map(|predictor| json!({"predictor": predictor}))
            .collect();
        json!({"peers": [{"name": "gw-b", "streams_in": streams}]})
    }

    fn line(predictors: &[Value]) -> Option<String> {
        let text = table(&document(predictors), None);
        let mut lines = text
            .lines()
            .skip_while(|line| !line.starts_with("predictor for"));
        lines.next();
        lines.next().map(str::to_owned)
    }

    #[test]
    fn streams_count_by_what_they_have_seen() {
        let predictor = |fallback: Option<&str>, model| {
            json!({
                "policy": "model", "deciding": if fallback.is_some() { "rack" } else { "model" },
                "fallback_reason": fallback, "model": model,
            })
        };
        let one = predictor(None, model(1_000, 900, 0.10, 300, 2.0));
        let other = predictor(Some("slow"), model(500, 100, 0.20, 100, 6.0));
        let cells = |line: &str| -> Vec<String> {
            line.split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(
            cells(&line(std::slice::from_ref(&one)).unwrap()),
            [
                "gw-b", "model", "model", "1000", "0.100", "4.0", "5.0", "2.00", "10.00", "10",
                "70.0"
            ]
        );
        assert_eq!(
            cells(&line(&[one, other]).unwrap()),
            [
                "gw-b",
                "model",
                "model, rack (slow)",
                "1500",
                "0.110",
                "4.0",
                "5.0",
                "3.00",
                "10.00",
                "20",
                "70.0"
            ]
        );
    }

    #[test]
    fn who_does_not_predict_has_a_name_and_no_figures() {
        let rack = json!({
            "policy": "rack", "deciding": "rack", "fallback_reason": null, "model": null,
        });
        let line_of_rack = line(&[rack]).unwrap();
        assert_eq!(line_of_rack.matches(" -").count(), 8, "{line_of_rack}");
        assert!(line_of_rack.contains("rack"));
        assert_eq!(line(&[]), None, "nothing has come yet");
        assert!(line(&[json!(3)]).is_some(), "a strange document");
    }
}
