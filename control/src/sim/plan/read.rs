//! Reads decisions: a line of JSON for each, or the answer of `GET /decisions` as one document.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use shardgate_sim::files::{Pipes, open};

use crate::decisions::{Record, RecordError, why};
use crate::keys::plain;
use crate::limits::{DECISION_LINE_BYTES_MAX, DECISIONS_REPLAYED_MAX, STATS_ANSWER_BYTES_MAX};

/// Characters of the reason why something cannot be read.
const REASON_CHARS_MAX: usize = 200;

/// Decisions, each with its line.
pub(super) type Records = Vec<(usize, Record)>;

/// The answer of `GET /decisions`.
#[derive(Deserialize)]
struct Answer {
    decisions: Vec<Record>,
}

/// Reads a file.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn load(path: &Path) -> Result<Records, String> {
    let file = open(path, Pipes::Open)
        .map_err(|error| format!("{}: name a gateway's decisions_file", plain(&error)))?;
    read(BufReader::new(file))
}

/// Reads what is in a file.
pub(super) fn read(mut text: impl BufRead) -> Result<Records, String> {
    let first = line(&mut text)?.unwrap_or_default();
    let records = if is_answer(&first) {
        answer(first, text)?
    } else {
        lines(first, text)?
    };
    if records.is_empty() {
        return Err("holds no decisions".into());
    }
    Ok(records)
}

/// A line with its end, as far as one may go and a byte more; none at the end.
fn line(text: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    text.take(DECISION_LINE_BYTES_MAX as u64 + 1)
        .read_until(b'\n', &mut line)
        .map_err(|error| plain(&error))?;
    Ok(Some(line).filter(|line| !line.is_empty()))
}

/// Whether what begins with this line is one document: such an answer is one long line, or somebody
/// has made it readable.
fn is_answer(first: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "decisions")]
        _decisions: IgnoredAny,
    }
    first.len() > DECISION_LINE_BYTES_MAX
        || first.trim_ascii() == b"{"
        || serde_json::from_slice::<Head>(first).is_ok()
}

fn answer(first: Vec<u8>, rest: impl Read) -> Result<Records, String> {
    let mut bytes = first;
    rest.take(STATS_ANSWER_BYTES_MAX as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| plain(&error))?;
    if bytes.len() > STATS_ANSWER_BYTES_MAX {
        return Err(format!(
            "line 1: is longer than {DECISION_LINE_BYTES_MAX} bytes, and all of it than {} MiB: these are \
             no decisions",
            STATS_ANSWER_BYTES_MAX >> 20
        ));
    }
    let text = utf8(&bytes, 1)?;
    let answer: Answer = serde_json::from_str(text).map_err(|error| {
        let line = error.line();
        match why(text, &error) {
            RecordError::Malformed(_) => {
                let reason = within(&error.to_string());
                format!("line {line}: {reason}: this is no answer of /decisions")
            }
            error => at(line, &error),
        }
    })?;
    Ok((1..).zip(answer.decisions).collect())
}

fn lines(first: Vec<u8>, mut rest: impl BufRead) -> Result<Records, String> {
    let mut records = Vec::new();
    let (mut number, mut next) = (0, Some(first));
    while let Some(bytes) = next.filter(|bytes| !bytes.is_empty()) {
        number += 1;
        if bytes.len() > DECISION_LINE_BYTES_MAX {
            let reason =
                format!("is longer than {DECISION_LINE_BYTES_MAX} bytes: it is no decision");
            return Err(at(number, &reason));
        }
        if number > DECISIONS_REPLAYED_MAX {
            let reason =
                format!("there are more than {DECISIONS_REPLAYED_MAX}: cut the file in pieces");
            return Err(at(number, &reason));
        }
        let text = utf8(&bytes, number)?.trim();
        if !text.is_empty() {
            let record = Record::parse(text).map_err(|error| at(number, &error))?;
            records.push((number, record));
        }
        next = line(&mut rest)?;
    }
    Ok(records)
}

fn utf8(bytes: &[u8], line: usize) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| at(line, &"is not UTF-8 text: it is no decision"))
}

fn at(line: usize, what: &dyn fmt::Display) -> String {
    format!("line {line}: {}", within(&what.to_string()))
}

/// A message in which a part of the file may stand, as far as it is worth reading.
fn within(text: &str) -> String {
    let is_long = text.chars().nth(REASON_CHARS_MAX).is_some();
    let start = text.chars().take(REASON_CHARS_MAX);
    let start: String = start
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if is_long { start + " ..." } else { start }
}
