//! `decisions_file`: a line of JSON for each change of a plan, appended by the control thread.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use shardgate_core::time::Time;
use tracing::warn;

use super::Record;
use crate::keys::plain;
use crate::limits::{DECISION_LINES_PER_MINUTE, DECISIONS_FILE_BYTES_MAX};
use crate::session::Bucket;

/// How the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct FileStatus {
    /// Whether anything more goes into it.
    pub state: FileState,
    /// Lines written since the start.
    pub written: u64,
    /// Changes of plans that are not in it.
    pub dropped: u64,
}

/// Whether anything more goes into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// Yes.
    Recording,
    /// It is as long as it may be: until somebody makes it shorter.
    Full,
    /// The last line could not be written.
    Failed,
}

/// The file.
pub struct DecisionsFile {
    path: PathBuf,
    file: File,
    lines: Bucket,
    state: FileState,
    written: u64,
    dropped: u64,
    /// That there are more lines than it takes was said.
    is_flood_said: bool,
}

impl DecisionsFile {
    /// Opens the file to append to it, for so many streams.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(path: &Path, streams: usize) -> io::Result<Self> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)?;
        end_line(&mut file)?;
        let streams = u32::try_from(streams.max(1)).unwrap_or(u32::MAX);
        let burst = streams.saturating_mul(DECISION_LINES_PER_MINUTE);
        Ok(Self {
            path: path.into(),
            file,
            lines: Bucket::new((burst / 60, burst), Time::ZERO),
            state: FileState::Recording,
            written: 0,
            dropped: 0,
            is_flood_said: false,
        })
    }

    /// How it is; `missed` changes of plans never came here.
    pub fn status(&self, missed: u64) -> FileStatus {
        FileStatus {
            state: self.state,
            written: self.written,
            dropped: self.dropped + missed,
        }
    }

    /// Writes a line, at once and whole; counts it if that cannot be.
    pub fn write(&mut self, record: &Record, now: Time) {
        if !self.lines.take(now) {
            self.dropped += 1;
            if !self.is_flood_said {
                self.is_flood_said = true;
                warn!(
                    "stats.decisions_file: plans change more often than {DECISION_LINES_PER_MINUTE} \
                     times a minute and stream: what is left out is `dropped` in the stats"
                );
            }
            return;
        }
        match self.append(record) {
            Ok(state) => self.enter(state, None),
            Err(error) => self.enter(FileState::Failed, Some(&error)),
        }
    }

    fn append(&mut self, record: &Record) -> io::Result<FileState> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        // Each time: it may have been cut by who rotates it.
        let len = self.file.metadata()?.len();
        if len + line.len() as u64 > DECISIONS_FILE_BYTES_MAX {
            return Ok(FileState::Full);
        }
        if let Err(error) = self.file.write_all(&line) {
            // No half lines; on a disk that is broken there is nothing more to be done.
            let _ = self.file.set_len(len);
            return Err(error);
        }
        Ok(FileState::Recording)
    }

    fn enter(&mut self, state: FileState, error: Option<&io::Error>) {
        let is_news = state != self.state;
        self.state = state;
        if state == FileState::Recording {
            self.written += 1;
            return;
        }
        self.dropped += 1;
        if is_news {
            let why = error.map_or_else(
                || format!("is as long as it may be, {DECISIONS_FILE_BYTES_MAX} bytes"),
                |error| format!("cannot be written ({})", plain(error)),
            );
            let path = self.path.display();
            warn!("stats.decisions_file: {path}: {why}: move its contents away, or make room");
        }
    }
}

/// Ends a line that an interrupted write has left.
fn end_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(())
}
