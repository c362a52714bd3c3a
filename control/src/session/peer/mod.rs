//! One peer: attempts, answers, the current session, and what replaces it.

mod handshake;

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use shardgate_core::limits::KEY_LIFETIME;
use shardgate_core::time::Time;
use shardgate_dataplane::command::{Command, SecretKey, SendKey};
use tracing::info;
use zeroize::Zeroizing;

use super::generations::Generations;
use super::noise::{Initiation, Mac1Key};
use super::{Output, Shared, Turn};
use crate::dataplane::Dataplane;
use crate::limits;

/// The only path id as long as a peer has one path.
const PATH: u8 = 0;

/// Receive keys kept beside the current one: the one before it, and one more when both ends'
/// handshakes crossed and the peer still seals with the other.
const PREVIOUS_MAX: usize = 2;

/// What the configuration says of a peer.
pub struct PeerSettings {
    /// Its name.
    pub name: String,
    /// Its static key.
    pub public_key: [u8; 32],
    /// Shared beforehand; zeros if there is none.
    pub preshared_key: Zeroizing<[u8; 32]>,
    /// Index of the WAN port it is reached by.
    pub port: usize,
    /// Its address; `None` is learned from its handshake.
    pub remote: Option<SocketAddr>,
}

/// Why we began a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// There is no session.
    None,
    /// The keys grow old.
    Age,
    /// The peer does not answer.
    Silence,
}

/// A handshake that we began.
struct Attempt<T> {
    index: u32,
    cause: Cause,
    remote: SocketAddr,
    sent_at: Time,
    retry_at: Time,
    tries: u32,
    /// An init of the peer was ignored in favour of ours: the next one is not.
    tie_won: bool,
    stage: AttemptStage<T>,
}

enum AttemptStage<T> {
    Waiting {
        initiation: Box<Initiation>,
        failures: u8,
    },
    Installing {
        ticket: T,
        session: NewSession,
    },
}

/// An init that we answered, or are about to.
struct Answer<T> {
    session: NewSession,
    port: usize,
    remote: SocketAddr,
    expires: Time,
    /// The response, until all lcores hold the receive key.
    pending: Option<(T, Vec<u8>)>,
}

/// What a handshake leaves, before the send key is in use.
struct NewSession {
    receive_index: u32,
    peer_index: u32,
    send: Zeroizing<[u8; 32]>,
    created: Time,
    incarnation: u64,
    /// What the peer can decode, in source shards.
    window: u16,
    generation: u32,
    initiator: bool,
}

/// The session whose send key is in use.
struct Current {
    receive_index: u32,
    created: Time,
    established: Time,
    initiator: bool,
}

/// How a session stands, for the stats.
#[derive(Clone, Debug, Serialize)]
pub struct SessionStatus {
    /// The peer's name.
    pub peer: String,
    /// `up`, `silent` (keys are good, nothing is heard), `handshake` (we ask and nobody answers
    /// yet) or `waiting` (its address is not known, it has to begin).
    pub state: &'static str,
    /// The peer's address, once known.
    pub remote: Option<SocketAddr>,
    /// Whether we began the current session.
    pub initiator: Option<bool>,
    /// Seconds since the current session's keys were made.
    pub key_age_s: Option<f64>,
    /// Milliseconds since something of the peer was opened.
    pub last_heard_ms: Option<f64>,
    /// Which incarnation of the peer this is, counted from 1; 0 if none was met.
    pub generation: u32,
    /// Inits sent without an answer, in the present attempt.
    pub unanswered_inits: u32,
    /// Sessions established with this peer so far.
    pub sessions_established: u64,
}

/// One far gateway, and all the handshakes and keys with it.
pub struct Peer<T> {
    id: u16,
    settings: PeerSettings,
    mac1_key: Mac1Key,
    /// Where it was proven to be.
    learned: Option<SocketAddr>,
    generations: Generations,
    /// The newest timestamp among its authentic inits.
    timestamp_ns: u64,
    attempt: Option<Attempt<T>>,
    answer: Option<Answer<T>>,
    current: Option<Current>,
    /// Receive keys that still open, oldest first, and until when.
    previous: Vec<(u32, Time)>,
    silent: bool,
    begin_at: Time,
    probe_at: Time,
    sessions_established: u64,
}

impl<T: Copy> Peer<T> {
    pub fn new(id: u16, settings: PeerSettings, now: Time) -> Self {
        Self {
            id,
            mac1_key: Mac1Key::new(&settings.public_key),
            settings,
            learned: None,
            generations: Generations::default(),
            timestamp_ns: 0,
            attempt: None,
            answer: None,
            current: None,
            previous: Vec::new(),
            silent: false,
            begin_at: now,
            probe_at: now,
            sessions_established: 0,
        }
    }

    pub fn id(&self) -> u16 {
        self.id
    }

    pub fn name(&self) -> &str {
        &self.settings.name
    }

    pub fn port(&self) -> usize {
        self.settings.port
    }

    pub fn remote(&self) -> Option<SocketAddr> {
        self.settings.remote.or(self.learned)
    }

    pub fn is(&self, public_key: &[u8; 32]) -> bool {
        self.settings.public_key == *public_key
    }

    pub fn established(&self) -> bool {
        self.current.is_some()
    }

    pub fn busy(&self) -> bool {
        let installing = self
            .attempt
            .as_ref()
            .is_some_and(|attempt| matches!(attempt.stage, AttemptStage::Installing { .. }));
        installing || self.answer.is_some()
    }

    /// Is a response to this index expected?
    pub fn awaits(&self, index: u32) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| {
            attempt.index == index && matches!(attempt.stage, AttemptStage::Waiting { .. })
        })
    }

    pub fn poll<D: Dataplane<Ticket = T>>(
        &mut self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
    ) {
        if turn.dataplane.take_closed(self.id) && self.current.is_some() {
            info!(peer = self.name(), "closed by the peer");
            self.drop_session(turn, turn.now + limits::CLOSE_GRACE);
            self.begin_at = turn.now + limits::RETRY_FIRST;
        }
        self.poll_attempt(shared, turn);
        self.poll_answer(shared, turn);
        self.poll_age(shared, turn);
        self.poll_silence(shared, turn);
        self.poll_begin(shared, turn);
        self.poll_probe(turn);
    }

    fn poll_attempt<D: Dataplane<Ticket = T>>(
        &mut self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
    ) {
        let installed = self.attempt.take_if(|attempt| match &attempt.stage {
            AttemptStage::Installing { ticket, .. } => turn.dataplane.acknowledged(*ticket),
            AttemptStage::Waiting { .. } => false,
        });
        if let Some(attempt) = installed
            && let AttemptStage::Installing { session, .. } = attempt.stage
        {
            self.establish(shared, turn, session, None);
        }
    }

    fn poll_answer<D: Dataplane<Ticket = T>>(
        &mut self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
    ) {
        let Some(answer) = &mut self.answer else {
            return;
        };
        let installed = answer
            .pending
            .take_if(|(ticket, _)| turn.dataplane.acknowledged(*ticket));
        if let Some((_, datagram)) = installed {
            shared.counters.responses_sent += 1;
            let (port, remote) = (answer.port, answer.remote);
            shared.outputs.push_back(Output::Send {
                port,
                remote,
                datagram,
            });
        }
        let sent = answer.pending.is_none();
        if sent && turn.dataplane.confirmed(answer.session.receive_index) {
            let Some(answer) = self.answer.take() else {
                return;
            };
            self.establish(shared, turn, answer.session, Some(answer.remote));
        } else if turn.now >= answer.expires {
            let Some(answer) = self.answer.take() else {
                return;
            };
            shared.counters.unconfirmed += 1;
            shared.retire(turn, answer.session.receive_index);
        }
    }

    /// Seals with a new session's key from now on, towards where the peer's init came `from`.
    fn establish<D: Dataplane<Ticket = T>>(
        &mut self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
        session: NewSession,
        from: Option<SocketAddr>,
    ) {
        // A handshake with the peer's former life that ends only now.
        if session.generation < self.generations.current() {
            shared.counters.superseded += 1;
            shared.retire(turn, session.receive_index);
            return;
        }
        if session.initiator {
            shared.counters.completed_as_initiator += 1;
        } else {
            shared.counters.completed_as_responder += 1;
        }
        if from.is_some() {
            self.learned = from;
            self.cancel_attempt(shared);
        }
        let restarted = self
            .generations
            .confirm(session.incarnation, session.generation);
        turn.dataplane.post(Command::InstallSendKey(SendKey {
            peer: self.id,
            receiver_index: session.peer_index,
            key: SecretKey::new(*session.send),
            created: session.created,
            generation: session.generation,
            streams: turn.dataplane.streams(self.id).max(1),
            window: session.window,
        }));
        // Either end challenges the other at once: the first challenge confirms the key to the
        // responder, whose own goes out a turn later, when its path is set.
        if session.initiator {
            self.challenge(turn);
            self.probe_at = turn.now + limits::PROBE_INTERVAL_UNCONFIRMED;
        } else {
            self.probe_at = turn.now + limits::TURN_IDLE;
        }
        let new = Current {
            receive_index: session.receive_index,
            created: session.created,
            established: turn.now,
            initiator: session.initiator,
        };
        let first = self.current.is_none();
        if let Some(old) = self.current.replace(new) {
            self.previous
                .push((old.receive_index, old.created + KEY_LIFETIME));
        }
        // A new incarnation has no use for what the old one sealed.
        let keep = if restarted { 0 } else { PREVIOUS_MAX };
        while self.previous.len() > keep {
            let (index, _) = self.previous.remove(0);
            shared.retire(turn, index);
        }
        self.silent = false;
        self.sessions_established += 1;
        if first || restarted {
            info!(
                peer = self.name(),
                remote = self.remote().map(tracing::field::display),
                initiator = session.initiator,
                generation = session.generation,
                "session established"
            );
        }
    }

    /// Takes keys out of use when they are too old.
    fn poll_age<D: Dataplane<Ticket = T>>(
        &mut self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
    ) {
        while let Some(at) = self
            .previous
            .iter()
            .position(|(_, until)| turn.now >= *until)
        {
            let (index, _) = self.previous.remove(at);
            shared.retire(turn, index);
        }
        let dead = |current: &Current| turn.now.since(current.created) >= KEY_LIFETIME;
        if self.current.as_ref().is_some_and(dead) {
            info!(peer = self.name(), "the session's keys have expired");
            self.drop_session(turn, turn.now);
        }
    }

    /// Seals no more; what the peer has sealed is opened `until` then.
    fn drop_session<D: Dataplane<Ticket = T>>(&mut self, turn: &mut Turn<'_, D>, until: Time) {
        if let Some(current) = self.current.take() {
            turn.dataplane
                .post(Command::RetireSendKey { peer: self.id });
            self.previous.push((current.receive_index, until));
        }
        for (_, expires) in &mut self.previous {
            *expires = until.min(*expires);
        }
        self.silent = false;
        self.begin_at = turn.now;
    }

    /// For how long nothing was heard of the peer while there is a session.
    fn quiet<D: Dataplane<Ticket = T>>(&self, turn: &Turn<'_, D>) -> Option<Duration> {
        let current = self.current.as_ref()?;
        let heard = turn.dataplane.last_heard(self.id).unwrap_or_default();
        Some(turn.now.since(heard.max(current.established)))
    }

    /// Notices that a peer does not answer, and that it does again.
    fn poll_silence<D: Dataplane<Ticket = T>>(
        &mut self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
    ) {
        let Some(quiet) = self.quiet(turn) else {
            return;
        };
        if quiet > limits::SILENT_AFTER && !self.silent {
            self.silent = true;
            info!(peer = self.name(), "nothing heard for 3 s");
            if let Some(remote) = self.remote() {
                let port = self.settings.port;
                shared
                    .outputs
                    .push_back(Output::CheckNextHop { port, remote });
            }
        } else if quiet <= limits::SILENT_AFTER && self.silent {
            self.silent = false;
            info!(peer = self.name(), "heard again");
            if self
                .attempt
                .as_ref()
                .is_some_and(|attempt| attempt.cause == Cause::Silence)
            {
                self.cancel_attempt(shared);
            }
        }
    }

    /// Gives up an attempt that nobody has answered.
    fn cancel_attempt(&mut self, shared: &mut Shared<T>) {
        let waiting = self
            .attempt
            .take_if(|attempt| matches!(attempt.stage, AttemptStage::Waiting { .. }));
        if let Some(attempt) = waiting {
            // No lcore has ever heard of this index, so its slot is free at once.
            shared.indices.give_back(attempt.index);
        }
    }

    /// Challenges the peer once a second, and more often until it has confirmed the key.
    fn poll_probe<D: Dataplane<Ticket = T>>(&mut self, turn: &mut Turn<'_, D>) {
        let Some(current) = &self.current else { return };
        if turn.now < self.probe_at {
            return;
        }
        self.challenge(turn);
        let confirmed = turn.dataplane.confirmed(current.receive_index);
        let hurried = !confirmed && turn.now.since(current.established) < limits::SILENT_AFTER;
        self.probe_at = turn.now
            + if hurried {
                limits::PROBE_INTERVAL_UNCONFIRMED
            } else {
                limits::PROBE_INTERVAL
            };
    }

    fn challenge<D: Dataplane<Ticket = T>>(&self, turn: &mut Turn<'_, D>) {
        let token = turn.random_u64();
        turn.dataplane.post(Command::Probe {
            peer: self.id,
            path: PATH,
            token,
        });
    }

    pub fn status<D: Dataplane<Ticket = T>>(&self, dataplane: &D, now: Time) -> SessionStatus {
        let state = match (&self.current, self.silent, self.remote()) {
            (Some(_), false, _) => "up",
            (Some(_), true, _) => "silent",
            (None, _, Some(_)) => "handshake",
            (None, _, None) => "waiting",
        };
        let current = self.current.as_ref();
        let waiting = |attempt: &&Attempt<T>| matches!(attempt.stage, AttemptStage::Waiting { .. });
        SessionStatus {
            peer: self.settings.name.clone(),
            state,
            remote: self.remote(),
            initiator: current.map(|current| current.initiator),
            key_age_s: current.map(|current| now.since(current.created).as_secs_f64()),
            last_heard_ms: dataplane
                .last_heard(self.id)
                .map(|heard| now.since(heard).as_secs_f64() * 1e3),
            generation: self.generations.current(),
            unanswered_inits: self.attempt.as_ref().filter(waiting).map_or(0, |a| a.tries),
            sessions_established: self.sessions_established,
        }
    }
}
