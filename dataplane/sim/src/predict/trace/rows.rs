//! Rows of the text formats; the first one tells which it is.

use super::{Fit, ROWS_MAX, Rows, Window};

/// Most milliseconds that a delay can have.
const DELAY_MS_MAX: f64 = 10_000.0;
/// Most Mbit/s that a window can have.
const RATE_MAX: f64 = 100_000.0;
/// Most seconds that a trace can last: a day.
const SECONDS_MAX: f64 = 86_400.0;

/// Reads one line after the other.
#[derive(Default)]
pub(super) struct Parser {
    rows: Option<Rows>,
}

impl Parser {
    pub(super) fn line(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() {
            return Ok(());
        }
        let rows = match &mut self.rows {
            Some(rows) => rows,
            none => none.insert(kind_of(line)?),
        };
        match rows {
            Rows::Windows(windows) => push(windows, window(line, windows.last())?),
            Rows::Fits(fits) => push(fits, fit(line)?),
            Rows::Delays(values) => push(values, number(line, "number", SECONDS_MAX * 1e3)?),
            Rows::Opportunities(_) | Rows::Arrivals(_) => Ok(()),
        }
    }

    pub(super) fn finish(self) -> Result<Rows, String> {
        let rows = self.rows.ok_or("empty; give a trace with rows")?;
        let Rows::Delays(values) = rows else {
            return Ok(rows);
        };
        // One number a line is a delay per slot, or, if it never falls and grows far beyond any
        // delay, a time at which something can leave.
        if values.is_sorted() && values.last().is_some_and(|&last| last > DELAY_MS_MAX) {
            return Ok(Rows::Opportunities(values));
        }
        match values.iter().position(|&delay| delay > DELAY_MS_MAX) {
            Some(_) => Err(format!(
                "neither delays up to {DELAY_MS_MAX} ms nor times that never fall"
            )),
            None => Ok(Rows::Delays(values)),
        }
    }
}

fn kind_of(line: &str) -> Result<Rows, String> {
    let rows = if line.contains(',') {
        Rows::Fits(Vec::new())
    } else {
        match line.split_whitespace().count() {
            4 => Rows::Windows(Vec::new()),
            1 => Rows::Delays(Vec::new()),
            _ => {
                return Err(
                    "no known format: `time Mbit/s RTTms loss`, `session,class,p,r`, \
                            or one number of milliseconds a line"
                        .into(),
                );
            }
        }
    };
    Ok(rows)
}

fn push<T>(rows: &mut Vec<T>, row: T) -> Result<(), String> {
    if rows.len() >= ROWS_MAX {
        return Err(format!("more than {ROWS_MAX} rows; cut the file"));
    }
    rows.push(row);
    Ok(())
}

fn number(text: &str, what: &str, max: f64) -> Result<f64, String> {
    let value: f64 = text
        .trim()
        .parse()
        .map_err(|_| format!("{what} `{}` is no number", shown(text)))?;
    if (0.0..=max).contains(&value) {
        Ok(value)
    } else {
        Err(format!("{what} {value} is not between 0 and {max}"))
    }
}

/// What a message can hold of a file's text.
fn shown(text: &str) -> String {
    text.chars()
        .take(20)
        .flat_map(char::escape_default)
        .collect()
}

/// A share that was lost. Where packets were sent again and counted once more as received, published
/// traces have small negative shares: nothing was lost then.
fn loss_of(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (-1.0..0.0).contains(&share) => Ok(0.0),
        _ => number(text, "loss", 1.0),
    }
}

/// The fields of a row that has four.
fn four<'a>(
    mut fields: impl Iterator<Item = &'a str>,
    names: &str,
) -> Result<[&'a str; 4], String> {
    let row = [(); 4].map(|()| fields.next().unwrap_or_default());
    // A fourth field that is empty is none either.
    if row[3].is_empty() || fields.next().is_some() {
        return Err(format!("four fields expected: `{names}`"));
    }
    Ok(row)
}

fn window(line: &str, before: Option<&Window>) -> Result<Window, String> {
    let [at, rate, rtt, loss] = four(line.split_whitespace(), "time Mbit/s RTTms loss")?;
    let rtt = rtt
        .strip_suffix("ms")
        .ok_or_else(|| format!("round trip `{}` has no `ms` behind it", shown(rtt)))?;
    let window = Window {
        at_s: number(at, "time", SECONDS_MAX)?,
        mbit_per_s: number(rate, "rate", RATE_MAX)?,
        rtt_ms: number(rtt, "round trip", DELAY_MS_MAX)?,
        loss: loss_of(loss)?,
    };
    if before.is_some_and(|before| window.at_s < before.at_s) {
        return Err(format!("time {} falls", window.at_s));
    }
    Ok(window)
}

fn fit(line: &str) -> Result<Fit, String> {
    let [_, class, to_bad, to_good] = four(line.split(','), "session,class,p,r")?;
    let delay_ms = match class.trim() {
        "cell" => 30.0,
        "wifi" => 15.0,
        "eth" => 10.0,
        other => {
            return Err(format!(
                "class `{}`: cell, eth or wifi expected",
                shown(other)
            ));
        }
    };
    Ok(Fit {
        delay_ms,
        to_bad: number(to_bad, "p", 1.0)?,
        to_good: number(to_good, "r", 1.0)?,
    })
}
