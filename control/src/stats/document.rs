//! The stats document: what the engine counts, and what the control thread knows beside it.
//!
//! Its schema is `control/stats.schema.json`; a test holds the two together. So it is with the
//! decisions and `control/decisions.schema.json`.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use serde::Serialize;
use shardgate_dataplane::engine::{FinalReport, Snapshot, StatsReader};

use super::server::Source;
use crate::decisions::{self, FileStatus, Record, Shown};
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
    /// How the decisions file is, if there is one.
    pub decisions: Option<FileStatus>,
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

/// The last changes of plans.
#[derive(Clone, Debug, Serialize)]
struct Decisions {
    /// See [`decisions::SCHEMA_VERSION`].
    schema_version: u32,
    /// The gateway itself.
    node: Node,
    /// Changes that found no room on their way from the lcores.
    missed: u64,
    /// Stream by stream, the oldest first.
    decisions: Vec<Record>,
}

/// Where the control thread puts what the endpoint shows.
pub struct Board {
    name: String,
    started: Instant,
    control: Mutex<ControlStatus>,
    running: OnceLock<Running>,
}

/// What there is to be read of an engine that runs.
struct Running {
    reader: StatsReader,
    decisions: Arc<Shown>,
}

impl Board {
    /// A board for the gateway of this name, which is about to start.
    pub fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            started: Instant::now(),
            control: Mutex::default(),
            running: OnceLock::new(),
        })
    }

    /// The engine runs: its counters can be read, and its decisions.
    pub fn engine_runs(&self, reader: StatsReader, decisions: Arc<Shown>) {
        // There is one engine in a process, so there is nothing to replace.
        let _ = self.running.set(Running { reader, decisions });
    }

    fn running(&self) -> Result<&Running, String> {
        self.running.get().ok_or_else(|| "starting".into())
    }

    fn node(&self) -> Node {
        Node {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: self.started.elapsed().as_secs_f64(),
        }
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
            node: self.node(),
            control: self.control().clone(),
            engine,
        }
    }

    /// The last words of a gateway that stops.
    pub fn last_words(&self, report: FinalReport) -> Document<FinalReport> {
        self.document(report)
    }
}

impl Source for Board {
    fn stats(&self) -> Result<String, String> {
        let document: Document<Snapshot> = self.document(self.running()?.reader.snapshot());
        as_json(&document)
    }

    fn decisions(&self) -> Result<String, String> {
        let Running { reader, decisions } = self.running()?;
        as_json(&Decisions {
            schema_version: decisions::SCHEMA_VERSION,
            node: self.node(),
            missed: reader.decisions_missed(),
            decisions: decisions.all(),
        })
    }

    fn health(&self) -> Result<(), String> {
        self.running()?.reader.health()
    }
}

fn as_json(document: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(document).map_err(|error| error.to_string())
}
