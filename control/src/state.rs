//! `state_file`: what the models have learned, kept over restarts.
//!
//! A file is [`MAGIC`], a version of one byte, the length of what follows in four bytes, an entry
//! for each stream, and BLAKE2s-256 of everything before. An entry is the peer's public key (32
//! bytes), the stream, 1 for `model-frozen` and 0 for `model`, the length of a saved model in two
//! bytes, and the model. Numbers are big-endian. A new file is written beside the old one, synced,
//! and put in its place, so that there is a whole one at any time.
//!
//! Nothing about the file stops a gateway: one that cannot be read is a cold start, one that cannot
//! be written a line in the log.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use blake2::{Blake2s256, Digest};
use serde::Serialize;
use shardgate_core::limits::STREAMS_MAX;
use shardgate_core::predict::{Model, ModelConfig, STATE_LEN, StateError};
use shardgate_core::time::Time;
use shardgate_dataplane::config::LearnedSpec;
use tracing::{debug, info, warn};

use crate::keys::plain;
use crate::limits::{PEERS_MAX, STATE_END_WAIT, STATE_SAVE_INTERVAL, TURN_IDLE};

/// What a file begins with.
const MAGIC: [u8; 15] = *b"shardgate-state";

/// Of the format; a saved model has one of its own.
const VERSION: u8 = 1;

const HEAD_LEN: usize = MAGIC.len() + 1 + 4;
const KEY_LEN: usize = 32;
const ENTRY_HEAD_LEN: usize = KEY_LEN + 1 + 1 + 2;
const CHECKSUM_LEN: usize = 32;

/// Bytes of the largest file there can be: twice as long models as today's of all streams.
const FILE_LEN_MAX: usize =
    HEAD_LEN + PEERS_MAX * STREAMS_MAX * (ENTRY_HEAD_LEN + 2 * STATE_LEN) + CHECKSUM_LEN;

/// What a peer's public key looks like.
type PublicKey = [u8; KEY_LEN];

/// What the model of a stream has learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    peer: PublicKey,
    stream: u8,
    frozen: bool,
    state: Vec<u8>,
}

/// Why there is nothing to begin with.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is there, and cannot be read.
    #[error("cannot be read ({0})")]
    Unreadable(String),
    /// A folder, a pipe, a device.
    #[error("is not a regular file")]
    NotAFile,
    /// Longer than any there can be.
    #[error("is too long")]
    TooLong,
    /// Something else.
    #[error("is no state file")]
    Foreign,
    /// Of another program's version.
    #[error("is of version {0}, and this program reads {VERSION}")]
    Version(u8),
    /// Not as it was written.
    #[error("is damaged")]
    Damaged,
    /// It holds what no model of this program has saved.
    #[error("holds a model that {0}")]
    Model(StateError),
}

impl Refusal {
    /// Whether it is a file whose contents nobody here can use.
    fn is_of_contents(&self) -> bool {
        !matches!(self, Self::Unreadable(_) | Self::NotAFile)
    }
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut body = Vec::new();
    for entry in entries {
        // A model that does not fit its length is not saved.
        let Ok(len) = u16::try_from(entry.state.len()) else {
            continue;
        };
        body.extend(entry.peer);
        body.extend([entry.stream, entry.frozen.into()]);
        body.extend(len.to_be_bytes());
        body.extend(&entry.state);
    }
    let mut bytes = MAGIC.to_vec();
    bytes.push(VERSION);
    bytes.extend((body.len() as u32).to_be_bytes());
    bytes.extend(body);
    let checksum = Blake2s256::digest(&bytes);
    bytes.extend(checksum);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Vec<Entry>, Refusal> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(Refusal::Foreign)?;
    let (&version, rest) = rest.split_first().ok_or(Refusal::Damaged)?;
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let (len, rest) = rest.split_first_chunk().ok_or(Refusal::Damaged)?;
    let len = u32::from_be_bytes(*len) as usize;
    let (mut body, checksum) = rest.split_at_checked(len).ok_or(Refusal::Damaged)?;
    let expected = Blake2s256::digest(&bytes[..HEAD_LEN + len]);
    if checksum != expected.as_slice() {
        return Err(Refusal::Damaged);
    }
    let mut entries = Vec::new();
    while !body.is_empty() {
        let (entry, rest) = entry(body).ok_or(Refusal::Damaged)?;
        entries.push(entry);
        body = rest;
    }
    Ok(entries)
}

fn entry(body: &[u8]) -> Option<(Entry, &[u8])> {
    let (peer, rest) = body.split_first_chunk()?;
    let (&[stream, frozen], rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (state, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    let entry = Entry {
        peer: *peer,
        stream,
        frozen: frozen != 0,
        state: state.to_vec(),
    };
    Some((entry, rest))
}

/// What was saved; nothing if there is no file yet.
fn load(path: &Path) -> Result<Vec<Entry>, Refusal> {
    let unreadable = |error: &io::Error| Refusal::Unreadable(plain(error));
    // Before it is opened: a pipe would be waited for.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(Refusal::NotAFile),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(unreadable(&error)),
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_LEN_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(&error))?;
    if bytes.len() > FILE_LEN_MAX {
        return Err(Refusal::TooLong);
    }
    decode(&bytes)
}

/// A name beside the file's own.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Puts a new file in the place of the old one, at once and for good.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = beside(path, ".new");
    // What an interrupted write left, or somebody put there for us to follow.
    if let Err(error) = fs::remove_file(&fresh)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&fresh);
        return written;
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// A gateway's file as it is found.
pub struct Found {
    path: PathBuf,
    config: ModelConfig,
    /// The peers' public keys, in order.
    peers: Vec<PublicKey>,
    loaded: Result<Vec<Entry>, Refusal>,
    /// It was said that the file cannot be written.
    is_said: bool,
}

impl Found {
    /// Looks at the file; what is in it of peers that are no more is forgotten.
    pub fn look(path: &Path, config: ModelConfig, peers: Vec<PublicKey>) -> Self {
        let mut scratch = Model::new(config);
        let loaded = load(path).and_then(|mut entries| {
            // A checksum that fits says that it was written so, not that it makes sense.
            for entry in &entries {
                scratch.restore(&entry.state).map_err(Refusal::Model)?;
            }
            entries.retain(|entry| peers.contains(&entry.peer));
            Ok(entries)
        });
        Self {
            path: path.into(),
            config,
            peers,
            loaded,
            is_said: false,
        }
    }

    /// That it cannot be written need not be said any more.
    pub fn said(self, is_said: bool) -> Self {
        Self { is_said, ..self }
    }

    /// What is wrong with it, and what becomes of that.
    pub fn warning(&self) -> Option<String> {
        let refusal = self.loaded.as_ref().err()?;
        let path = self.path.display();
        let then = if refusal.is_of_contents() {
            format!("starting cold, and keeping it as {path}.refused")
        } else {
            "starting cold: remove it, or name another file".into()
        };
        Some(format!("{path} {refusal}: {then}"))
    }

    /// What there is to begin with, in a few words.
    pub fn summary(&self) -> String {
        let streams = self.learned().len();
        let path = self.path.display();
        match streams {
            0 => format!("{path}: nothing learned yet"),
            1 => format!("{path}: one stream"),
            _ => format!("{path}: {streams} streams"),
        }
    }

    /// What is to be handed to the engine.
    pub fn learned(&self) -> Vec<LearnedSpec> {
        let entries = self.loaded.iter().flatten();
        let entries = entries.filter(|entry| entry.frozen == self.config.frozen);
        let spec = |entry: &Entry| {
            let peer = self.peers.iter().position(|peer| *peer == entry.peer)?;
            Some(LearnedSpec {
                peer: u16::try_from(peer).ok()?,
                stream: entry.stream,
                state: entry.state.as_slice().into(),
            })
        };
        entries.filter_map(spec).collect()
    }
}

/// What was done with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StateStatus {
    /// Streams that began with what was learned before.
    pub restored_streams: u64,
    /// Times that it was written.
    pub saves: u64,
    /// Times that it could not be.
    pub failures: u64,
}

#[derive(Default)]
struct Counts {
    saves: AtomicU64,
    failures: AtomicU64,
}

/// Writes the file on a thread of its own: a disk may take long, and the control thread has peers to
/// answer.
struct Writer {
    path: PathBuf,
    counts: Arc<Counts>,
    /// A failure was said, and nothing has gone well since.
    is_failing: bool,
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) {
        match replace(&self.path, bytes) {
            Ok(()) => {
                self.counts.saves.fetch_add(1, Ordering::Relaxed);
                self.is_failing = false;
                debug!(bytes = bytes.len(), "state saved");
            }
            Err(error) => {
                self.counts.failures.fetch_add(1, Ordering::Relaxed);
                if !self.is_failing {
                    warn!(
                        "tunnel.state_file: {}: cannot be written ({}): what is learned is lost at \
                         the end; make its folder, or name a file that can be written",
                        self.path.display(),
                        plain(&error)
                    );
                }
                self.is_failing = true;
            }
        }
    }
}

/// Saves what is learned, now and then and at the end.
pub struct StateKeeper {
    peers: Vec<PublicKey>,
    /// Of all streams that anything is known of, those included that have not come up this time.
    entries: Vec<Entry>,
    frozen: bool,
    /// To try what is to be saved.
    scratch: Model,
    restored_streams: u64,
    saved: Vec<u8>,
    due: Time,
    counts: Arc<Counts>,
    to_writer: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
}

impl StateKeeper {
    /// Sets aside what cannot be used, and begins to keep the file. To be called before the engine
    /// starts, so that the writing thread is not bound to the control lcore's CPU.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(found: Found) -> io::Result<Self> {
        let restored_streams = found.learned().len() as u64;
        let Found {
            path,
            config,
            peers,
            loaded,
            is_said,
        } = found;
        let counts = Arc::new(Counts::default());
        let mut writer = Writer {
            path,
            counts: Arc::clone(&counts),
            // What cannot be read was said; it cannot be written either.
            is_failing: is_said || matches!(&loaded, Err(refusal) if !refusal.is_of_contents()),
        };
        if matches!(&loaded, Err(refusal) if refusal.is_of_contents()) {
            // If that fails it will be written over, which is second best.
            let _ = fs::rename(&writer.path, beside(&writer.path, ".refused"));
        }
        let (to_writer, jobs) = sync_channel::<Vec<u8>>(1);
        let writer = std::thread::Builder::new()
            .name("state".into())
            .spawn(move || jobs.into_iter().for_each(|bytes| writer.write(&bytes)))?;
        let mut keeper = Self {
            peers,
            entries: loaded.unwrap_or_default(),
            frozen: config.frozen,
            scratch: Model::new(config),
            restored_streams,
            saved: Vec::new(),
            due: Time::ZERO + STATE_SAVE_INTERVAL,
            counts,
            to_writer: Some(to_writer),
            writer: Some(writer),
        };
        // At once, so that who cannot write learns of it now.
        keeper.save(&|_| vec![]);
        Ok(keeper)
    }

    /// Saves if it is time. `learned` says what the models of a peer's streams have learned.
    pub fn turn(&mut self, now: Time, learned: &dyn Fn(usize) -> Vec<(u8, [u8; STATE_LEN])>) {
        if now >= self.due {
            self.due = now + STATE_SAVE_INTERVAL;
            self.save(learned);
        }
    }

    /// Saves for the last time, and waits until that is done, if the disk answers at all.
    pub fn end(&mut self, learned: &dyn Fn(usize) -> Vec<(u8, [u8; STATE_LEN])>) {
        let deadline = Instant::now() + STATE_END_WAIT;
        let waits = || {
            std::thread::sleep(TURN_IDLE);
            Instant::now() < deadline
        };
        while !self.save(learned) && waits() {}
        self.to_writer = None;
        let Some(writer) = self.writer.take() else {
            return;
        };
        while !writer.is_finished() && waits() {}
        if writer.is_finished() {
            info!(streams = self.entries.len(), "the state file is complete");
        } else {
            warn!("the state file is still being written: not waited for any longer");
        }
    }

    /// What was done so far.
    pub fn status(&self) -> StateStatus {
        StateStatus {
            restored_streams: self.restored_streams,
            saves: self.counts.saves.load(Ordering::Relaxed),
            failures: self.counts.failures.load(Ordering::Relaxed),
        }
    }

    /// Hands what is known now to the writer; false if that is still busy with the last.
    fn save(&mut self, learned: &dyn Fn(usize) -> Vec<(u8, [u8; STATE_LEN])>) -> bool {
        for (index, &peer) in self.peers.iter().enumerate() {
            for (stream, state) in learned(index) {
                // A copy made while the lcore wrote it: next time.
                if self.scratch.restore(&state).is_err() {
                    continue;
                }
                let frozen = self.frozen;
                self.entries.retain(|entry| {
                    (entry.peer, entry.stream, entry.frozen) != (peer, stream, frozen)
                });
                self.entries.push(Entry {
                    peer,
                    stream,
                    frozen,
                    state: state.to_vec(),
                });
            }
        }
        let bytes = encode(&self.entries);
        let failed = self.counts.failures.load(Ordering::Relaxed) > 0;
        if bytes == self.saved && !failed {
            return true;
        }
        let to_writer = self.to_writer.as_ref();
        let is_sent = to_writer.is_some_and(|to_writer| to_writer.try_send(bytes.clone()).is_ok());
        if is_sent {
            self.saved = bytes;
        }
        is_sent
    }
}

#[cfg(test)]
mod tests;
