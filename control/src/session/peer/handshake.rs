//! A peer's handshakes: inits and responses, made and read.

use std::net::SocketAddr;
use std::time::Duration;

use shardgate_core::limits::{REKEY_AFTER, REKEY_AFTER_SEALS};
use shardgate_core::time::Time;
use shardgate_core::wire::handshake::{
    self, HANDSHAKE_LEN_MAX, Handshake, HandshakeKind, Payload, TRAILER_LEN,
};
use shardgate_dataplane::command::{Command, ReceiveKey, SecretKey};
use tracing::{info, warn};

use super::{Answer, Attempt, AttemptStage, Cause, NewSession, Peer};
use crate::dataplane::Dataplane;
use crate::limits;
use crate::session::noise::{Initiation, Keys, Opened};
use crate::session::{Output, Reject, Shared, Turn};

/// After so many inits without an answer the operator is told what may be wrong.
const UNANSWERED_WARNING: u32 = 5;

impl<T: Copy> Peer<T> {
    pub fn handle_init<D: Dataplane<Ticket = T>>(
        &mut self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
        port: usize,
        source: SocketAddr,
        message: &Handshake<'_>,
        opened: Opened,
    ) -> Result<(), Reject> {
        let payload = Payload::decode(&opened.payload)?;
        if payload.sender_index != message.sender_index {
            return Err(Reject::Payload);
        }
        let streams = turn.dataplane.streams(self.id);
        shared.payload(0, 0, streams).common_version(&payload)?;
        // Before the timestamp: whoever carries an init to us from elsewhere must not spend it.
        if port != self.settings.port || self.settings.remote.is_some_and(|set| set != source) {
            return Err(Reject::SourceAddress);
        }
        if self.lives_elsewhere(turn, source, payload.incarnation) {
            return Err(Reject::Roaming);
        }
        if payload.timestamp_ns <= self.timestamp_ns {
            return Err(Reject::Replayed);
        }
        self.timestamp_ns = payload.timestamp_ns;
        if self.ours_wins(shared, turn.now) {
            return Err(Reject::Simultaneous);
        }

        let random = turn.random_u32();
        let index = shared.indices.take(random).ok_or(Reject::NoSlot)?;
        let reply = shared.payload(index, 0, streams).encode();
        let answered = opened.answer(&self.settings.preshared_key, &reply).ok();
        let framed = answered.and_then(|(noise, keys)| {
            let kind = HandshakeKind::Response;
            Some((self.frame(kind, message.sender_index, index, &noise)?, keys))
        });
        let Some((response, keys)) = framed else {
            shared.indices.give_back(index);
            return Err(Reject::Internal);
        };
        let (session, ticket) = self.install(turn, index, &payload, keys, false);
        if let Some(old) = self.answer.take() {
            shared.retire(turn, old.session.receive_index);
        }
        self.answer = Some(Answer {
            session,
            port,
            remote: source,
            expires: turn.now + limits::ANSWER_TIMEOUT,
            pending: Some((ticket, response)),
        });
        // The peer's handshake goes on now; ours waits for it.
        self.begin_at = turn.now + limits::RETRY_FIRST;
        if let Some(attempt) = &mut self.attempt {
            attempt.retry_at = attempt.retry_at.max(self.begin_at);
        }
        Ok(())
    }

    /// Does this incarnation live at another address than `source`, as far as we know?
    ///
    /// Nothing tells us where the datagram that confirms a session came from, so an init that was
    /// carried to us from another address would draw all we send there. A learned address
    /// therefore stays while the session lives; it moves when nothing was heard for 3 s, when
    /// there is no session, or with a new incarnation. Such an init is refused rather than
    /// answered: were the keys renewed from the new address, a peer that really moved would be
    /// heard forever and never be sent anything. As it is, its session ends with its keys, after
    /// 180 s at most, and then it is learned anew.
    ///
    /// For roaming, the dataplane has to report the source of what it opens; a new source is
    /// then a candidate, and becomes the address by an echo to a challenge sent there. That also
    /// closes what is left here: the first address, and that of a silent or restarted peer, is
    /// the init's source.
    fn lives_elsewhere<D: Dataplane<Ticket = T>>(
        &self,
        turn: &Turn<'_, D>,
        source: SocketAddr,
        incarnation: u64,
    ) -> bool {
        let moves = self.remote().is_some_and(|remote| remote != source);
        let alive = self
            .quiet(turn)
            .is_some_and(|quiet| quiet <= limits::SILENT_AFTER);
        moves && alive && self.generations.is_current(incarnation)
    }

    /// Both began at once: the init of the smaller key goes on. Only once and only while it is
    /// fresh, for it may be lost.
    fn ours_wins(&mut self, shared: &Shared<T>, now: Time) -> bool {
        let smaller = *shared.identity.public() < self.settings.public_key;
        let Some(attempt) = &mut self.attempt else {
            return false;
        };
        let wins = smaller && !attempt.tie_won && now.since(attempt.sent_at) < limits::TIE_WINDOW;
        attempt.tie_won |= wins;
        wins
    }

    pub fn handle_response<D: Dataplane<Ticket = T>>(
        &mut self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
        port: usize,
        source: SocketAddr,
        message: &Handshake<'_>,
    ) -> Result<(), Reject> {
        let attempt = self.attempt.as_mut().ok_or(Reject::UnknownIndex)?;
        if port != self.settings.port || source != attempt.remote {
            return Err(Reject::SourceAddress);
        }
        let AttemptStage::Waiting {
            initiation,
            failures,
        } = &mut attempt.stage
        else {
            return Err(Reject::UnknownIndex);
        };
        if *failures >= limits::RESPONSE_FAILURES_MAX {
            return Err(Reject::RateLimited);
        }
        let (payload, keys) = initiation.finish(message.noise).map_err(|_| {
            *failures += 1;
            Reject::Authentication
        })?;
        let index = attempt.index;
        let payload = Payload::decode(&payload)?;
        if payload.sender_index != message.sender_index {
            return Err(Reject::Payload);
        }
        let streams = turn.dataplane.streams(self.id);
        shared.payload(0, 0, streams).common_version(&payload)?;
        let (session, ticket) = self.install(turn, index, &payload, keys, true);
        if let Some(attempt) = &mut self.attempt {
            attempt.stage = AttemptStage::Installing { ticket, session };
        }
        Ok(())
    }

    /// Hands the receive key of a new session to the lcores.
    fn install<D: Dataplane<Ticket = T>>(
        &mut self,
        turn: &mut Turn<'_, D>,
        index: u32,
        payload: &Payload,
        keys: Keys,
        initiator: bool,
    ) -> (NewSession, T) {
        let generation = self.generations.of(payload.incarnation);
        let ticket = turn.dataplane.post(Command::InstallReceiveKey(ReceiveKey {
            receiver_index: index,
            peer: self.id,
            key: SecretKey::new(*keys.receive),
            generation,
            streams: payload.streams,
            created: turn.now,
        }));
        let session = NewSession {
            receive_index: index,
            peer_index: payload.sender_index,
            send: keys.send,
            created: turn.now,
            incarnation: payload.incarnation,
            window: payload.window,
            generation,
            initiator,
        };
        (session, ticket)
    }

    /// Begins a handshake that is due, or repeats one that nobody has answered.
    pub(super) fn poll_begin<D: Dataplane<Ticket = T>>(
        &mut self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
    ) {
        let Some(remote) = self.remote() else { return };
        let (index, cause, tries, tie_won) = match &self.attempt {
            Some(attempt) => {
                let waiting = matches!(attempt.stage, AttemptStage::Waiting { .. });
                if !waiting || turn.now < attempt.retry_at {
                    return;
                }
                (attempt.index, attempt.cause, attempt.tries, attempt.tie_won)
            }
            None => {
                if turn.now < self.begin_at {
                    return;
                }
                let Some(cause) = self.due(turn) else { return };
                let random = turn.random_u32();
                let Some(index) = shared.indices.take(random) else {
                    shared.counters.rejected.count(Reject::NoSlot);
                    self.begin_at = turn.now + limits::RETRY_LATER;
                    return;
                };
                (index, cause, 0, false)
            }
        };
        let Some((initiation, datagram)) = self.make_init(shared, turn, index) else {
            shared.counters.rejected.count(Reject::Internal);
            shared.indices.give_back(index);
            self.attempt = None;
            self.begin_at = turn.now + limits::RETRY_LATER;
            return;
        };
        shared.counters.inits_sent += 1;
        let port = self.settings.port;
        shared.outputs.push_back(Output::Send {
            port,
            remote,
            datagram,
        });
        if tries == limits::RETRIES_FIRST && self.current.is_none() {
            info!(peer = self.name(), %remote, "no answer yet; going on asking");
        }
        if tries == UNANSWERED_WARNING {
            warn!(
                peer = self.name(),
                %remote,
                "{tries} inits without an answer: the peer does not run, is not reached at this \
                 address and port, or refuses us (its log then says why): it may have another \
                 public key than the one configured for it, or not have ours"
            );
        }
        self.attempt = Some(Attempt {
            index,
            cause,
            remote,
            sent_at: turn.now,
            retry_at: turn.now + retry_delay(tries, turn.random_u32()),
            tries: tries.saturating_add(1),
            tie_won,
            stage: AttemptStage::Waiting {
                initiation: Box::new(initiation),
                failures: 0,
            },
        });
    }

    fn make_init<D: Dataplane<Ticket = T>>(
        &self,
        shared: &mut Shared<T>,
        turn: &mut Turn<'_, D>,
        index: u32,
    ) -> Option<(Initiation, Vec<u8>)> {
        shared.timestamp_ns = turn.wall_ns.max(shared.timestamp_ns.saturating_add(1));
        let streams = turn.dataplane.streams(self.id);
        let payload = shared.payload(index, shared.timestamp_ns, streams).encode();
        let (initiation, noise) = Initiation::begin(
            &shared.identity,
            &self.settings.public_key,
            &self.settings.preshared_key,
            turn.random_key(),
            &payload,
        )
        .ok()?;
        let datagram = self.frame(HandshakeKind::Init, 0, index, &noise)?;
        Some((initiation, datagram))
    }

    /// Puts the layout and `mac1` around Noise bytes for this peer.
    fn frame(
        &self,
        kind: HandshakeKind,
        receiver_index: u32,
        sender_index: u32,
        noise: &[u8],
    ) -> Option<Vec<u8>> {
        let mut datagram = vec![0; HANDSHAKE_LEN_MAX];
        let len = handshake::emit(kind, receiver_index, sender_index, noise, &mut datagram).ok()?;
        datagram.truncate(len);
        let mac1 = self.mac1_key.make(datagram.get(..len - TRAILER_LEN)?);
        handshake::put_mac1(&mut datagram, &mac1).ok()?;
        Some(datagram)
    }

    fn due<D: Dataplane<Ticket = T>>(&self, turn: &Turn<'_, D>) -> Option<Cause> {
        let Some(current) = &self.current else {
            return Some(Cause::None);
        };
        let (age, seals) = if current.initiator {
            (REKEY_AFTER, REKEY_AFTER_SEALS)
        } else {
            (
                REKEY_AFTER + limits::RESPONDER_GRACE,
                REKEY_AFTER_SEALS + REKEY_AFTER_SEALS / 8,
            )
        };
        if turn.now.since(current.created) >= age || turn.dataplane.seals(self.id) >= seals {
            return Some(Cause::Age);
        }
        self.silent.then_some(Cause::Silence)
    }
}

/// How long the init after `tries` others waits for its answer.
fn retry_delay(tries: u32, random: u32) -> Duration {
    let longest = if tries < limits::RETRIES_FIRST {
        limits::RETRY_FIRST
    } else if tries < limits::RETRIES_FIRST + limits::RETRIES_SECOND {
        limits::RETRY_SECOND
    } else {
        limits::RETRY_LATER
    };
    longest - longest.mul_f64(0.25 * f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_slow_down_and_never_wait_longer_than_4_s() {
        assert_eq!(retry_delay(0, 0), Duration::from_secs(1));
        assert_eq!(retry_delay(2, u32::MAX), Duration::from_millis(750));
        assert_eq!(retry_delay(3, 0), Duration::from_secs(2));
        assert_eq!(retry_delay(8, 0), Duration::from_secs(4));
        assert_eq!(retry_delay(u32::MAX, u32::MAX), Duration::from_secs(3));
    }
}
