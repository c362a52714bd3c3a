//! Traces of real channels, read at run time.
//!
//! | format | a row | what is drawn |
//! |---|---|---|
//! | windows | `timestamp_s bandwidth_Mbps RTTms loss_rate`, one for each 15 ms (SparkTraces, Hairpin, NSDI'24) | which shards of a window are lost: each by itself, or in one run; order |
//! | fits | `session,class,p,r`: chances to leave the good and the bad state (gilbert-model-regression) | losses, delays by class, order |
//! | delays | the one-way delay of a 10 ms slot in ms (LeoCC) | losses, order |
//! | opportunities | when 1500 bytes could leave, in ms, never falling (mahimahi's format) | losses, order |
//! | arrivals | [`record`]: the gateway's own recorder | nothing |
//!
//! Files may be compressed with gzip. They are taken as hostile: rows, lines and bytes have a bound,
//! every number has a range, and what is wrong is said in one line with its place.

mod channels;
pub mod record;
mod rows;

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use self::record::Arrival;
use super::channel::Channel;
use crate::files::{self, Pipes};

/// Most bytes of a trace, decompressed: an hour of the longest format.
const BYTES_MAX: u64 = 256 << 20;
/// Most rows of a trace.
pub(super) const ROWS_MAX: usize = 2_000_000;
/// Longest line, in bytes.
const LINE_MAX: u64 = 256;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why a trace cannot be used: one line, with the file, the line, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be opened.
    #[error("{file}: {error}; give a readable trace file")]
    Open {
        /// The file.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// Something in it is wrong.
    #[error("{file}:{line}: {what}")]
    Row {
        /// The file.
        file: String,
        /// The line, or the record of a binary file, counted from 1.
        line: usize,
        /// What, and what is expected.
        what: String,
    },
}

/// A window of a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// When it begins, in seconds.
    pub at_s: f64,
    /// Rate in it, in Mbit/s.
    pub mbit_per_s: f64,
    /// Round trip in it, in milliseconds.
    pub rtt_ms: f64,
    /// Share of its packets that was lost.
    pub loss: f64,
}

/// A fitted two-state chain.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fit {
    /// One-way delay that such a network has, in milliseconds.
    pub delay_ms: f64,
    /// Chance to leave the good state.
    pub to_bad: f64,
    /// Chance to leave the bad one.
    pub to_good: f64,
}

/// What stands in a trace.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// Windows of 15 ms.
    Windows(Vec<Window>),
    /// Fitted chains.
    Fits(Vec<Fit>),
    /// One-way delays of 10 ms slots, in milliseconds.
    Delays(Vec<f64>),
    /// Times at which 1500 bytes could leave, in milliseconds.
    Opportunities(Vec<f64>),
    /// What a gateway recorded.
    Arrivals(Vec<Arrival>),
}

/// A trace that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// The file's name, without folders.
    pub name: String,
    /// What stands in it.
    pub rows: Rows,
}

impl Trace {
    /// Reads a trace file.
    ///
    /// # Errors
    /// [`TraceError`], in one line.
    pub fn load(path: &Path) -> Result<Self, TraceError> {
        let file = path.display().to_string();
        let open = |error| TraceError::Open {
            file: file.clone(),
            error,
        };
        let opened = files::open(path, Pipes::Open).map_err(open)?;
        Self::read(&file, opened)
    }

    /// Reads a trace that is called `file` in errors.
    ///
    /// # Errors
    /// [`TraceError::Row`].
    pub fn read(file: &str, source: impl Read) -> Result<Self, TraceError> {
        let name = file.rsplit('/').next().unwrap_or(file).to_owned();
        let mut source = BufReader::new(source);
        let rows = match source.fill_buf() {
            Ok(start) if start.starts_with(&GZIP) => {
                read_plain(MultiGzDecoder::new(source), BYTES_MAX)
            }
            Ok(_) => read_plain(source, BYTES_MAX),
            Err(error) => Err((1, error.to_string())),
        };
        match rows {
            Ok(rows) => Ok(Self { name, rows }),
            Err((line, what)) => Err(TraceError::Row {
                file: file.to_owned(),
                line,
                what,
            }),
        }
    }

    /// `count` shards of it for each way of drawing what it leaves open; another stretch for each
    /// seed, where it is longer.
    pub fn channels(&self, count: usize, seed: u64) -> Vec<Channel> {
        channels::of(self, count, seed)
    }
}

/// The line, or record, and what is wrong there.
type Wrong = (usize, String);

fn read_plain(source: impl Read, bytes_max: u64) -> Result<Rows, Wrong> {
    let mut source = BufReader::new(source.take(bytes_max));
    let start = source.fill_buf().map_err(|error| (1, plain(&error)))?;
    if start.starts_with(&record::MAGIC) {
        return record::read(source).map(Rows::Arrivals);
    }
    let mut parser = rows::Parser::default();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let read = source
            .by_ref()
            .take(LINE_MAX + 1)
            .read_until(b'\n', &mut text);
        let read = read.map_err(|error| (line, plain(&error)))?;
        if read == 0 {
            if source.get_ref().limit() == 0 {
                return Err((line, format!("more than {bytes_max} bytes; cut it")));
            }
            break;
        }
        if read as u64 > LINE_MAX {
            return Err((
                line,
                format!("longer than {LINE_MAX} bytes; this is no trace"),
            ));
        }
        let text = str::from_utf8(&text).map_err(|_| (line, "not text".to_owned()))?;
        parser.line(text.trim()).map_err(|what| (line, what))?;
    }
    parser.finish().map_err(|what| (1, what))
}

fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            "the compressed data ends early; copy the file again".into()
        }
        _ => format!("cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests;
