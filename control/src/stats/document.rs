//! The stats document: what the engine counts, and what the control thread knows beside it.
//!
//! Its schema is `control/stats.schema.json`; a test holds the two together.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use serde::Serialize;
use shardgate_dataplane::engine::{FinalReport, Snapshot, StatsReader};

use super::server::Source;
use crate::network::NetworkCounters;
use crate::record::RecordStatus;
use crate::session::{HandshakeCounters, SessionStatus};
use crate::state::StateStatus;

/// Rises when a field goes away or changes its meaning; new fields do not count.
pub const SCHEMA_VERSION: u32 = 1;

/// The gateway itself.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Version of the program.
    pub version: &'static str,
    /// Seconds since it started.
    pub uptime_s: f64,
}

/// What the control thread knows.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ControlStatus {
    /// Sessions, in the order of the peers.
    pub sessions: Vec<SessionStatus>,
    /// What became of handshake messages.
    pub handshake: HandshakeCounters,
    /// The gateway's own traffic.
    pub network: NetworkCounters,
    /// How far the record file is, if there is one.
    pub record: Option<RecordStatus>,
    /// What was done with the state file, if there is one.
    pub state: Option<StateStatus>,
}

/// A whole document.
#[derive(Clone, Debug, Serialize)]
pub struct Document<S> {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The gateway itself.
    pub node: Node,
    /// What the control thread knows.
    #[serde(flatten)]
    pub control: ControlStatus,
    /// What the engine counts.
    #[serde(flatten)]
    pub engine: S,
}

/// Where the control thread puts what the endpoint shows.
pub struct Board {
    name: String,
    started: Instant,
    control: Mutex<ControlStatus>,
    reader: OnceLock<StatsReader>,
}

impl Board {
    /// A board for the gateway of this name, which is about to start.
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            started: Instant::now(),
            control: Mutex::default(),
            reader: OnceLock::new(),
        })
    }

    /// The engine runs: its counters can be read.
    pub fn engine_runs(&self, reader: StatsReader) {
        // There is one engine in a process, so there is nothing to replace.
        let _ = self.reader.set(reader);
    }

    /// The control thread's newest words.
    pub fn update(&self, control: ControlStatus) {
        *self.control() = control;
    }

    fn control(&self) -> MutexGuard<'_, ControlStatus> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn document<S>(&self, engine: S) -> Document<S> {
        Document {
            schema_version: SCHEMA_VERSION,
            node: Node {
                name: self.name.clone(),
                version: env!("CARGO_PKG_VERSION"),
                uptime_s: self.started.elapsed().as_secs_f64(),
            },
            control: self.control().clone(),
            engine,
        }
    }

    /// The last words of a gateway that stops.
    pub fn last_words(&self, report: FinalReport) -> Document<FinalReport> {
        self.document(report)
    }
}

const STARTING: &str = "starting";

impl Source for Board {
    fn stats(&self) -> Result<String, String> {
        let reader = self.reader.get().ok_or(STARTING)?;
        let document: Document<Snapshot> = self.document(reader.snapshot());
        serde_json::to_string(&document).map_err(|error| error.to_string())
    }

    fn health(&self) -> Result<(), String> {
        self.reader.get().ok_or(STARTING)?.health()
    }
}
