//! `shardgate run`: from a configuration file to a running gateway, and to an orderly end.

use std::fs::File;
use std::io::{BufWriter, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use shardgate_core::predict::Policy;
use shardgate_core::time::Time;
use shardgate_dataplane::config::Hugepages;
use shardgate_dataplane::engine::{Engine, StatsReader, Topology};
use shardgate_dataplane::record::Recorder;
use shardgate_hugepages::MountNeed;
use tracing::{info, warn};

use crate::cli::RunArgs;
use crate::config::{self, Listen, Machine, Notes, Settings, Source};
use crate::decisions::{DecisionsFile, FileStatus, Keeper};
use crate::device_lock::DeviceLock;
use crate::gateway::Gateway;
use crate::limits;
use crate::network::{Network, WanPort};
use crate::output::{Failure, print, print_json};
use crate::path_mtu::PathMtuLog;
use crate::record::{RecordFile, RecordStatus};
use crate::session::{Identity, Sessions};
use crate::state::{Found, StateKeeper, StateStatus};
use crate::stats::document::{Board, ControlStatus};
use crate::stats::server::Server;
use crate::stop::Signals;

/// Checks the configuration, and runs the gateway unless only the check was asked for.
pub fn run(args: &RunArgs) -> Result<(), Failure> {
    let source = config::read(&args.config)?;
    let machine = Machine::read();
    let mut settings = config::check(&source, &machine)?;
    let hugepages = use_hugepages(&source, &mut settings)?;
    let topology = plan(&source, &settings)?;
    require_memory(&source, &settings)?;
    let mut notes = config::check_site(&source, &settings, &machine)?;
    let found = find_state(&source, &mut settings, &mut notes);
    if args.check {
        let report = check_report(&settings, &topology, &hugepages, found.as_ref(), &notes);
        print(&report)?;
        return Ok(());
    }
    if let Some(error) = notes.rights {
        return Err(error.into());
    }
    for warning in &notes.warnings {
        warn!("{warning}");
    }
    let _locks = lock_devices(&source, &settings)?;
    start(settings, &source, found)
}

/// Looks for what was learned before; whatever is wrong with it is no reason not to start.
fn find_state(source: &Source, settings: &mut Settings, notes: &mut Notes) -> Option<Found> {
    let path = settings.state_file.as_ref()?;
    let is_said = (notes.warnings.iter()).any(|note| note.key == "tunnel.state_file");
    let mut note = |message: String| {
        let note = source.error("tunnel.state_file", message);
        notes.warnings.push(note);
    };
    let Policy::Model(config) = settings.engine.tunnel.policy else {
        note("is not used: only predictor = \"model\" has anything to keep".into());
        return None;
    };
    let peers = settings.peers.iter().map(|peer| peer.public_key);
    let found = Found::look(path, config, peers.collect()).said(is_said);
    found.warning().into_iter().for_each(&mut note);
    settings.engine.learned = found.learned();
    Some(found)
}

/// Memory that was asked for must hold the pools.
fn require_memory(source: &Source, settings: &Settings) -> Result<(), Failure> {
    let Some(asked) = settings.engine.pipeline.memory_mb else {
        return Ok(());
    };
    let mut engine = settings.engine.clone();
    engine.pipeline.memory_mb = None;
    let sum = Engine::check(&engine)
        .map_err(|error| source.error_with_key(&error.to_string()))?
        .memory_mb;
    if asked >= sum {
        return Ok(());
    }
    let message = format!(
        "{asked} MiB do not hold the pools, whose sum is {sum} MiB: write {sum}, or \"auto\", or lower \
         tunnel.held_frames_max and tunnel.reassembly_memory_mb"
    );
    Err(source.error("dpdk.memory_mb", message).into())
}

fn lock_devices(source: &Source, settings: &Settings) -> Result<Vec<DeviceLock>, Failure> {
    let mut locks = Vec::new();
    for (at, port) in settings.engine.ports.iter().enumerate() {
        let lock = DeviceLock::take(&port.device)
            .map_err(|message| source.error(&format!("port[{at}].device"), message))?;
        locks.extend(lock);
    }
    Ok(locks)
}

fn plan(source: &Source, settings: &Settings) -> Result<Topology, Failure> {
    Engine::check(&settings.engine)
        .map_err(|error| source.error_with_key(&error.to_string()).into())
}

/// Decides about hugepages: as many as the pools need must be free. Says what it decided.
fn use_hugepages(source: &Source, settings: &mut Settings) -> Result<String, Failure> {
    if settings.hugepages == Hugepages::Off {
        return Ok("off".into());
    }
    settings.engine.pipeline.hugepages = true;
    let memory_mb = plan(source, settings)?.memory_mb;
    let machine = shardgate_hugepages::Hugepages::new();
    // EAL takes hugepages as anonymous memory, for which no mount is needed.
    match machine.preflight(u64::from(memory_mb), MountNeed::NotRequired) {
        Ok(_) => Ok("used".into()),
        Err(error) if settings.hugepages == Hugepages::Auto => {
            settings.engine.pipeline.hugepages = false;
            Ok(format!("not used: {error}"))
        }
        Err(error) => Err(source.error("dpdk.hugepages", error.to_string()).into()),
    }
}

fn check_report(
    settings: &Settings,
    topology: &Topology,
    hugepages: &str,
    found: Option<&Found>,
    notes: &Notes,
) -> String {
    let topology = topology.to_string();
    let mut report = format!(
        "node     {}\n{}\nhugepages {hugepages}\nstats    {}\n",
        settings.node,
        topology.trim_end_matches('\n'),
        settings.listen
    );
    let tunnel = &settings.engine.tunnel;
    if tunnel.retransmit {
        report.push_str(&format!(
            "retained up to {} MiB for each stream, beside that memory\n",
            tunnel.retention_bytes >> 20
        ));
    }
    if let Some(path) = &settings.decisions_file {
        report.push_str(&format!(
            "decisions {}, at most {} lines a minute and stream\n",
            path.display(),
            limits::DECISION_LINES_PER_MINUTE
        ));
    }
    if let Some(found) = found {
        report.push_str(&format!("state    {}\n", found.summary()));
    }
    for note in notes.warnings.iter().chain(&notes.rights) {
        report.push_str(&format!("note     {note}\n"));
    }
    report
}

/// Why the stats endpoint cannot listen. Nothing has been touched by then.
fn listen_error(source: &Source, listen: &Listen, error: &std::io::Error) -> Failure {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => "another gateway? set stats.listen to a free one",
        ErrorKind::AddrNotAvailable => "no interface here has that address: set stats.listen",
        ErrorKind::NotFound => "make its folder, or set stats.listen",
        ErrorKind::PermissionDenied => "run as root, or set stats.listen to what you may use",
        _ => "set stats.listen to another one",
    };
    let reason = crate::keys::plain(error);
    let message = format!("{listen}: {reason}: {remedy}");
    source.error("stats.listen", message).into()
}

fn start(mut settings: Settings, source: &Source, found: Option<Found>) -> Result<(), Failure> {
    let file = source.file();
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        Failure::Failed(format!("{}: {what}{error}", file.display()))
    };
    let signals = Signals::install().map_err(|error| failed("signals: ", &error))?;
    if let Listen::Tcp(address) = settings.listen
        && !address.ip().is_loopback()
    {
        warn!(%address, "the stats endpoint can be reached from other hosts");
    }
    // Before EAL, so that its threads are not pinned to the control lcore.
    let board = Board::new(&settings.node);
    let listen = settings.listen.clone();
    let server = Server::start(&listen, board.clone())
        .map_err(|error| listen_error(source, &listen, &error))?;

    let keeper = found.map(StateKeeper::start).transpose();
    let mut files = Files {
        record: record(&mut settings, source)?,
        decisions: decisions(&settings, source)?,
        state: keeper.map_err(|error| failed("a thread: ", &error))?,
    };
    let peers = settings.peers.len();
    let mut mtus = PathMtuLog::new(&settings.engine.peers);
    let mut engine = Engine::start(settings.engine.clone()).map_err(|error| failed("", &error))?;
    board.engine_runs(engine.reader(), files.decisions.shown());
    let mut gateway = gateway(&engine, settings);
    info!(peers, stats = %listen, version = env!("CARGO_PKG_VERSION"), "gateway runs");
    let told = (&mut files, &mut mtus);
    serve(&mut gateway, &mut engine, &signals, &board, told);

    info!("stopping");
    close(&mut gateway, &mut engine);
    let (last, reader) = (status(&gateway, &engine, &files), engine.reader());
    let report = engine.stop().map_err(|error| failed("", &error))?;
    files.end(&reader);
    board.update(ControlStatus {
        record: files.record_status(),
        decisions: files.decisions_status(&reader),
        state: files.state_status(),
        ..last
    });
    drop(server);
    print_json(&board.last_words(report))?;
    Ok(())
}

fn gateway(engine: &Engine, settings: Settings) -> Gateway<Engine> {
    let now = engine.now();
    let wans = settings.wans.iter().map(|wan| WanPort {
        port: wan.port,
        address: wan.address,
        prefix_len: wan.prefix_len,
        gateway: wan.gateway,
        mac: engine.port_mac(wan.port),
    });
    let network = Network::new(wans.collect(), settings.engine.tunnel.listen_port, now);
    let identity = Identity::new(settings.private_key);
    let sessions = Sessions::new(identity, settings.peers, now, &mut random);
    Gateway::new(sessions, network, now)
}

/// The file that arrivals go to, if one is configured, and the way there.
fn record(
    settings: &mut Settings,
    source: &Source,
) -> Result<Option<RecordFile<BufWriter<File>>>, Failure> {
    let Some(path) = &settings.record_file else {
        return Ok(None);
    };
    let recorder = Arc::new(Recorder::default());
    settings.engine.recorder = Some(Arc::clone(&recorder));
    let file = RecordFile::create(path, recorder);
    file.map(Some)
        .map_err(|error| not_written(source, "stats.record_file", path, &error))
}

/// What becomes of changes of plans: they are kept to be shown, and go to a file if one is configured.
fn decisions(settings: &Settings, source: &Source) -> Result<Keeper, Failure> {
    let streams = plan(source, settings)?.streams;
    let streams = streams.iter().map(|line| line.sent_by.len()).sum();
    let open = |path: &PathBuf| {
        DecisionsFile::open(path, streams)
            .map_err(|error| not_written(source, "stats.decisions_file", path, &error))
    };
    let file = settings.decisions_file.as_ref().map(open).transpose()?;
    let peers = settings.engine.peers.iter().map(|peer| peer.name.clone());
    Ok(Keeper::new(peers.collect(), streams, file))
}

fn not_written(source: &Source, key: &str, path: &Path, error: &std::io::Error) -> Failure {
    let reason = crate::keys::plain(error);
    let message = format!(
        "{}: {reason}: name a file that can be written",
        path.display()
    );
    source.error(key, message).into()
}

/// What is written beside the log while a gateway runs.
struct Files {
    record: Option<RecordFile<BufWriter<File>>>,
    decisions: Keeper,
    state: Option<StateKeeper>,
}

impl Files {
    fn turn(&mut self, engine: &Engine) {
        if let Some(record) = &mut self.record {
            record.write_some();
        }
        let reader = || engine.reader();
        let take = || engine.take_decision();
        self.decisions.turn(engine.now(), wall_ns(), take);
        if let Some(state) = &mut self.state {
            state.turn(engine.now(), &|peer| reader().learned(peer));
        }
    }

    /// The engine has stopped: the last words.
    fn end(&mut self, reader: &StatsReader) {
        if let Some(record) = &mut self.record {
            record.write_some();
            record.end();
        }
        let take = || reader.take_decision();
        while self.decisions.turn(reader.now(), wall_ns(), take) {}
        if let Some(state) = &mut self.state {
            state.end(&|peer| reader.learned(peer));
        }
    }

    fn record_status(&self) -> Option<RecordStatus> {
        self.record.as_ref().map(RecordFile::status)
    }

    fn decisions_status(&self, reader: &StatsReader) -> Option<FileStatus> {
        self.decisions.status(reader.decisions_missed())
    }

    fn state_status(&self) -> Option<StateStatus> {
        self.state.as_ref().map(StateKeeper::status)
    }
}

/// Turns until a signal asks for the end.
fn serve(
    gateway: &mut Gateway<Engine>,
    engine: &mut Engine,
    signals: &Signals,
    board: &Board,
    (files, mtus): (&mut Files, &mut PathMtuLog),
) {
    let mut status_due = Time::ZERO;
    while !signals.stop().load(Ordering::Relaxed) {
        let busy = gateway.turn(engine, wall_ns(), &mut random);
        files.turn(engine);
        let now = engine.now();
        if now >= status_due {
            board.update(status(gateway, engine, files));
            let reader = engine.reader();
            mtus.turn(|peer| reader.path_mtu(peer));
            status_due = now + limits::STATUS_INTERVAL;
        }
        if signals.take_reload() {
            warn!("SIGHUP: reading the configuration again is not supported yet; nothing changes");
        }
        std::thread::sleep(if busy {
            limits::TURN_BUSY
        } else {
            limits::TURN_IDLE
        });
    }
}

/// Says close to all peers, and gives the lcores a moment to do so.
fn close(gateway: &mut Gateway<Engine>, engine: &mut Engine) {
    let Some(ticket) = gateway.close(engine, wall_ns(), &mut random) else {
        return;
    };
    let begun = engine.now();
    while !engine.acknowledged(ticket) && engine.now().since(begun) < limits::CLOSE_WAIT {
        std::thread::sleep(limits::TURN_BUSY);
    }
}

fn status(gateway: &Gateway<Engine>, engine: &Engine, files: &Files) -> ControlStatus {
    ControlStatus {
        sessions: gateway.sessions(engine),
        handshake: *gateway.handshake_counters(),
        network: *gateway.network_counters(),
        record: files.record_status(),
        decisions: files.decisions_status(&engine.reader()),
        state: files.state_status(),
    }
}

/// Nanoseconds since 1970; before that, nothing.
fn wall_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The system's random bytes. A machine that has none cannot run a gateway.
fn random(bytes: &mut [u8]) {
    if let Err(error) = getrandom::fill(bytes) {
        panic!("the system's random source failed: {error}");
    }
}
