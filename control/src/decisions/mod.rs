//! Changes of plans: where they go once a lcore has made them.
//!
//! | file | what |
//! |---|---|
//! | `record` | [`Record`]: a change as JSON, with all that it was made from; `control/decisions.schema.json` |
//! | `wall` | the time of day in it |
//! | `file` | `decisions_file`: a line for each |
//!
//! The control thread fetches them each turn. The last of each stream are kept for `GET /decisions`.

mod file;
mod record;
mod wall;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shardgate_core::time::Time;
use shardgate_dataplane::decisions::Decided;

pub use self::file::{DecisionsFile, FileStatus};
pub use self::record::{PlanJson, Record, RecordError, SCHEMA_VERSION, why};
pub use self::wall::Wall;
use crate::limits::{DECISIONS_PER_TURN, DECISIONS_SHOWN, DECISIONS_SHOWN_OF_STREAM};

/// A stream that is sent: the peer by index, and its number.
type Stream = (u16, u8);

/// The last decisions of each stream, for whoever asks.
#[derive(Default)]
pub struct Shown(Mutex<BTreeMap<Stream, VecDeque<Record>>>);

impl Shown {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<Stream, VecDeque<Record>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that are kept: stream by stream, the oldest first.
    pub fn all(&self) -> Vec<Record> {
        self.kept().values().flatten().cloned().collect()
    }
}

/// What the control thread does with decisions.
pub struct Keeper {
    peers: Vec<String>,
    /// So many are kept of each stream.
    of_stream: usize,
    shown: Arc<Shown>,
    file: Option<DecisionsFile>,
}

impl Keeper {
    /// For peers of these names, to which so many streams go in all.
    pub fn new(peers: Vec<String>, streams: usize, file: Option<DecisionsFile>) -> Self {
        let (least, most) = DECISIONS_SHOWN_OF_STREAM;
        Self {
            peers,
            of_stream: (DECISIONS_SHOWN / streams.max(1)).clamp(least, most),
            shown: Arc::default(),
            file,
        }
    }

    /// Where the last ones are kept.
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// Takes what was decided, as much as a turn of the control loop has time for. `now` is the
    /// lcores' clock, `wall_ns` the time of day at the same moment. False if there was nothing.
    pub fn turn(
        &mut self,
        now: Time,
        wall_ns: u64,
        mut take: impl FnMut() -> Option<Decided>,
    ) -> bool {
        let mut has_any = false;
        for decided in (0..DECISIONS_PER_TURN).map_while(|_| take()) {
            has_any = true;
            self.keep(decided, now, wall_ns);
        }
        has_any
    }

    fn keep(&mut self, decided: Decided, now: Time, wall_ns: u64) {
        let ago = now.since(decided.decision.at).as_nanos() as u64;
        let peer = self.peers.get(usize::from(decided.peer));
        let record = Record {
            time: Wall(wall_ns.saturating_sub(ago)),
            peer: peer.cloned().unwrap_or_default(),
            stream: decided.stream,
            path: decided.path,
            number: decided.number,
            decision: decided.decision,
        };
        if let Some(file) = &mut self.file {
            file.write(&record, now);
        }
        let mut kept = self.shown.kept();
        let of_stream = kept.entry((decided.peer, decided.stream)).or_default();
        if of_stream.len() >= self.of_stream {
            of_stream.pop_front();
        }
        of_stream.push_back(record);
    }

    /// How the file is, if there is one; so many decisions never came here.
    pub fn status(&self, missed: u64) -> Option<FileStatus> {
        self.file.as_ref().map(|file| file.status(missed))
    }
}

#[cfg(test)]
pub mod tests;
