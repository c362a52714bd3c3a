//! Sessions: who we talk to, under which keys, and when new ones are due.
//!
//! Pure in quinn's sense: time, wall clock, random bytes and datagrams are arguments; commands go
//! to a [`Dataplane`], datagrams come out of [`Sessions::poll_output`]. The control loop calls
//! [`Sessions::handle`] for every handshake datagram and [`Sessions::poll`] every turn.
//!
//! What a peer holds, and what moves it:
//!
//! | what | made by | becomes |
//! |---|---|---|
//! | attempt, waiting | start, rekey, silence, close | installing, by a response |
//! | attempt, installing | a response | the current session, when all lcores hold the receive key |
//! | answer, installing | an init | unconfirmed, when all lcores hold the receive key: response sent |
//! | answer, unconfirmed | the response | the current session, when an lcore has opened something |
//! | current session | either | a previous receive key, by the next session |
//! | previous receive key | the next session | nothing, 180 s after it was made |
//!
//! Message layout and rules: the section "Handshake" of `dataplane/core/src/wire/SPEC.md`.

mod counters;
mod diagnosis;
mod generations;
mod index;
mod limiter;
mod noise;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;

use shardgate_core::time::Time;
use shardgate_core::wire::handshake::{
    Handshake, HandshakeError, HandshakeKind, Payload, PayloadError,
};
use shardgate_dataplane::command::Command;
use tracing::warn;
use zeroize::Zeroizing;

pub use self::counters::{HandshakeCounters, Reject};
pub use self::limiter::Bucket;
pub use self::noise::Identity;
pub use self::peer::{PeerSettings, SessionStatus};

use self::diagnosis::Diagnosis;
use self::index::Indices;
use self::limiter::Limiter;
use self::noise::Opened;
use self::peer::Peer;
use crate::dataplane::Dataplane;

/// Lines about refused handshakes per second, and the burst above it.
const WARNINGS: (u32, u32) = (1, 5);

/// What the world hands to the sessions in one turn.
pub struct Turn<'a, D> {
    /// The lcores' clock.
    pub now: Time,
    /// Nanoseconds since 1970, for timestamps.
    pub wall_ns: u64,
    /// A source of unpredictable bytes.
    pub random: &'a mut dyn FnMut(&mut [u8]),
    /// Where commands go.
    pub dataplane: &'a mut D,
}

impl<D> Turn<'_, D> {
    fn random_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes);
        u64::from_ne_bytes(bytes)
    }

    fn random_u32(&mut self) -> u32 {
        self.random_u64() as u32
    }

    fn random_key(&mut self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        (self.random)(bytes.as_mut());
        bytes
    }
}

/// What the sessions want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a handshake datagram.
    Send {
        /// Index of the WAN port.
        port: usize,
        /// To whom.
        remote: SocketAddr,
        /// The UDP payload.
        datagram: Vec<u8>,
    },
    /// The peer is silent: its next hop may have changed.
    CheckNextHop {
        /// Index of the WAN port.
        port: usize,
        /// The peer's address.
        remote: SocketAddr,
    },
}

/// What all peers share.
struct Shared<T> {
    identity: Identity,
    incarnation: u64,
    indices: Indices,
    /// Receive keys that lcores are asked to forget; then their slots are free.
    retiring: Vec<(T, u32)>,
    /// The timestamp of our newest init.
    timestamp_ns: u64,
    counters: HandshakeCounters,
    outputs: VecDeque<Output>,
    warnings: Bucket,
    diagnosis: Diagnosis,
}

impl<T: Copy> Shared<T> {
    /// Makes all lcores forget a receive key, and its slot free after that.
    fn retire<D: Dataplane<Ticket = T>>(&mut self, turn: &mut Turn<'_, D>, receiver_index: u32) {
        let ticket = turn
            .dataplane
            .post(Command::RetireReceiveKey { receiver_index });
        self.retiring.push((ticket, receiver_index));
    }

    fn payload(&self, sender_index: u32, timestamp_ns: u64, streams: u8) -> Payload {
        Payload {
            version_min: VERSION,
            version_max: VERSION,
            sender_index,
            timestamp_ns,
            incarnation: self.incarnation,
            streams: streams.max(1),
            paths: 1,
            lanes: LANES,
            window: WINDOW,
            features: 0,
        }
    }
}

/// The protocol version inside the handshake payload.
const VERSION: u8 = 1;

/// Lanes of a peer: the lane field has eight bits.
const LANES: u16 = 256;

/// Largest coding window that we can decode, in source shards.
const WINDOW: u16 = shardgate_core::repair::WINDOW_MAX as u16;

/// All sessions of this gateway.
pub struct Sessions<T> {
    shared: Shared<T>,
    limiter: Limiter,
    peers: Vec<Peer<T>>,
}

impl<T: Copy> Sessions<T> {
    /// Begins with nobody known to be there. The peers' order is their index in the dataplane.
    pub fn new(
        identity: Identity,
        peers: Vec<PeerSettings>,
        now: Time,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Self {
        let mut incarnation = [0; 8];
        random(&mut incarnation);
        let mut limiter_key = [0; 16];
        random(&mut limiter_key);
        Self {
            limiter: Limiter::new(peers.len(), limiter_key, now),
            peers: peers
                .into_iter()
                .enumerate()
                .map(|(id, settings)| Peer::new(id as u16, settings, now))
                .collect(),
            shared: Shared {
                identity,
                incarnation: u64::from_ne_bytes(incarnation),
                indices: Indices::new(),
                retiring: Vec::new(),
                timestamp_ns: 0,
                counters: HandshakeCounters::default(),
                outputs: VecDeque::new(),
                warnings: Bucket::new(WARNINGS, now),
                diagnosis: Diagnosis::default(),
            },
        }
    }

    /// Takes in a UDP payload that is not data, from `source`, on WAN port `port`.
    pub fn handle<D: Dataplane<Ticket = T>>(
        &mut self,
        turn: &mut Turn<'_, D>,
        port: usize,
        source: SocketAddr,
        datagram: &[u8],
    ) {
        self.shared.counters.received += 1;
        if let Err(reason) = self.accept(turn, port, source, datagram) {
            self.shared.counters.rejected.count(reason);
            self.shared.diagnosis.refused(turn.now, source, reason);
        }
    }

    fn accept<D: Dataplane<Ticket = T>>(
        &mut self,
        turn: &mut Turn<'_, D>,
        port: usize,
        source: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Reject> {
        let message = Handshake::parse(datagram)?;
        if !self
            .shared
            .identity
            .mac1_key()
            .verify(message.mac1_input, message.mac1)
        {
            return Err(Reject::Mac1);
        }
        match message.kind {
            HandshakeKind::Init => self.accept_init(turn, port, source, &message),
            HandshakeKind::Response => {
                let peer = self
                    .peers
                    .iter_mut()
                    .find(|peer| peer.awaits(message.receiver_index))
                    .ok_or(Reject::UnknownIndex)?;
                peer.handle_response(&mut self.shared, turn, port, source, &message)
            }
        }
    }

    fn accept_init<D: Dataplane<Ticket = T>>(
        &mut self,
        turn: &mut Turn<'_, D>,
        port: usize,
        source: SocketAddr,
        message: &Handshake<'_>,
    ) -> Result<(), Reject> {
        let known = self
            .peers
            .iter()
            .position(|peer| peer.remote() == Some(source));
        if !self.limiter.allow(turn.now, known, source.ip()) {
            return Err(Reject::RateLimited);
        }
        let opened = Opened::read(&self.shared.identity, turn.random_key(), message.noise)
            .map_err(|_| Reject::Authentication)?;
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.is(&opened.peer)) else {
            let diagnosis = &mut self.shared.diagnosis;
            diagnosis.unknown_peer(turn.now, source, &opened.peer);
            return Err(Reject::UnknownPeer);
        };
        let result = peer.handle_init(&mut self.shared, turn, port, source, message, opened);
        if let Err(reason) = result
            && reason != Reject::Simultaneous
            && self.shared.warnings.take(turn.now)
        {
            warn!(peer = peer.name(), %source, reason = reason.name(), "handshake refused");
        }
        result
    }

    /// Does what is due.
    pub fn poll<D: Dataplane<Ticket = T>>(&mut self, turn: &mut Turn<'_, D>) {
        let indices = &mut self.shared.indices;
        self.shared.retiring.retain(|&(ticket, index)| {
            let done = turn.dataplane.acknowledged(ticket);
            if done {
                indices.give_back(index);
            }
            !done
        });
        for peer in &mut self.peers {
            peer.poll(&mut self.shared, turn);
        }
    }

    /// The next thing that the sessions want done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.shared.outputs.pop_front()
    }

    /// Where a peer can be reached: its WAN port and address, once known.
    pub fn remotes(&self) -> impl Iterator<Item = (u16, usize, Option<SocketAddr>)> {
        self.peers
            .iter()
            .map(|peer| (peer.id(), peer.port(), peer.remote()))
    }

    /// True while a handshake is under way: the loop should look often.
    pub fn busy(&self) -> bool {
        !self.shared.retiring.is_empty() || self.peers.iter().any(Peer::busy)
    }

    /// Tells every peer that we stop; returns the last ticket, if there is anybody to tell.
    pub fn close<D: Dataplane<Ticket = T>>(&self, turn: &mut Turn<'_, D>) -> Option<T> {
        let established = self.peers.iter().filter(|peer| peer.established());
        let tickets =
            established.map(|peer| turn.dataplane.post(Command::Close { peer: peer.id() }));
        tickets.last()
    }

    /// The counters of all handshakes.
    pub fn counters(&self) -> &HandshakeCounters {
        &self.shared.counters
    }

    /// How every session stands.
    pub fn status<D: Dataplane<Ticket = T>>(&self, dataplane: &D, now: Time) -> Vec<SessionStatus> {
        self.peers
            .iter()
            .map(|peer| peer.status(dataplane, now))
            .collect()
    }
}

impl From<HandshakeError> for Reject {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Truncated => Self::Truncated,
            HandshakeError::TooLong => Self::TooLong,
            HandshakeError::Version => Self::Version,
            HandshakeError::Kind => Self::Kind,
            HandshakeError::Reserved => Self::Reserved,
            HandshakeError::NoRoom => Self::Internal,
        }
    }
}

impl From<PayloadError> for Reject {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Version => Self::Version,
            PayloadError::Truncated | PayloadError::Empty => Self::Payload,
        }
    }
}
