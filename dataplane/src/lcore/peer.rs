//! A peer as one rx lcore serves it: an endpoint of the core between a LAN queue, the crypto units
//! and the control thread's commands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shardgate_core::buffer::Buffer;
use shardgate_core::classify::classify;
use shardgate_core::drop_reason::{DropReason, Drops};
use shardgate_core::endpoint::{Egress, Endpoint, EndpointConfig, Outbox};
use shardgate_core::limits::STREAMS_MAX;
use shardgate_core::mss::clamp_mss;
use shardgate_core::path_mtu::PathLimit;
use shardgate_core::receiver::FrameSink;
use shardgate_core::seal::{Opened, Unsealed};
use shardgate_core::sender::{Close, Refused};
use shardgate_core::time::Time;
use shardgate_core::wire::header::{ClearHeader, Kind};
use shardgate_dpdk::{BURST, Burst, Mbuf, Pool};

use super::hand::Hand;
use super::tx::Tx;
use super::units::Units;
use super::wan::ReceiveSlot;
use crate::command::Command;
use crate::config::{LearnedSpec, PeerSpec};
use crate::decisions::HandOver;
use crate::engine::predictions::{Learned, Predictions};
use crate::engine::shared::{
    MtuWords, PathCounters, Phase, PlanWords, ReceiverTimes, RxCounters, Shared, StreamIn,
    StreamOut,
};
use crate::record::{self, Recorder};

/// The path that is used; several come later.
pub const PATH: u8 = 0;

/// How often what models have learned is published, to be saved: to copy and to sum it up takes a
/// microsecond.
const LEARNED_PUBLISHED_EVERY: Duration = Duration::from_secs(1);

/// What sending needs from the lcore it happens on.
pub struct Surroundings<'a> {
    /// The round's time.
    pub now: Time,
    /// The crypto units.
    pub units: &'a mut Units,
    /// Ways out, by port.
    pub tx: &'a mut [Option<Tx>],
    /// Which ports are WAN ports.
    pub wan_ports: &'a [usize],
    /// Where buffers for shards come from.
    pub pool: &'a mut Pool,
    /// What this lcore has received and delivered.
    pub counters: &'a mut RxCounters,
    /// What died on this lcore.
    pub drops: &'a mut Drops,
}

/// The way to the crypto units.
struct ToUnits<'a> {
    units: &'a mut Units,
    tx: &'a mut [Option<Tx>],
    wan_ports: &'a [usize],
}

impl Outbox<Mbuf> for ToUnits<'_> {
    #[inline]
    fn credit(&self) -> usize {
        self.units.seal_credit(self.tx, self.wan_ports)
    }

    #[inline]
    fn send(&mut self, datagram: Unsealed<Mbuf>) {
        self.units.seal(datagram, self.tx);
    }
}

/// The way to a LAN.
pub struct LanSink<'a> {
    /// The port's way out; without one frames are dropped.
    pub tx: Option<&'a mut Tx>,
    /// What this lcore has delivered.
    pub counters: &'a mut RxCounters,
    /// What died here.
    pub drops: &'a mut Drops,
}

impl FrameSink<Mbuf> for LanSink<'_> {
    #[inline]
    fn frame(&mut self, frame: Mbuf) {
        match &mut self.tx {
            Some(tx) => {
                let bytes = frame.len() as u64;
                if tx.push(frame) {
                    self.counters.lan_frames_out += 1;
                    self.counters.lan_bytes_out += bytes;
                }
            }
            None => self.drops.count(DropReason::TxFull),
        }
    }
}

/// Splits what surrounds a peer into the way to the units and the way to the LAN, calls `f` with
/// both, and puts them together again.
fn with_both_ways<R>(
    lan: usize,
    around: &mut Surroundings<'_>,
    f: impl FnOnce(&mut Egress<'_, Pool, ToUnits<'_>>, &mut LanSink<'_>) -> R,
) -> R {
    let mut lan_tx = around.tx.get_mut(lan).and_then(Option::take);
    let mut outbox = ToUnits {
        units: around.units,
        tx: around.tx,
        wan_ports: around.wan_ports,
    };
    let mut egress = Egress {
        now: around.now,
        pool: around.pool,
        outbox: &mut outbox,
    };
    let mut sink = LanSink {
        tx: lan_tx.as_mut(),
        counters: around.counters,
        drops: around.drops,
    };
    let result = f(&mut egress, &mut sink);
    if let Some(slot) = around.tx.get_mut(lan) {
        *slot = lan_tx;
    }
    result
}

/// A peer as one rx lcore serves it.
pub struct PeerStage {
    peer: u16,
    /// Index of the LAN port that it is joined to.
    pub lan: usize,
    mss_clamp: bool,
    /// The MTU of its path, if it is not to be found.
    pinned_mtu: Option<u16>,
    /// Which of the peer's endpoints here this is: the stream that it sends.
    stream: u8,
    endpoint: Endpoint<Mbuf>,
    /// Frames of the last burst that no aggregate has taken yet.
    pending: VecDeque<Mbuf>,
    hand: Hand,
    last_heard: [Time; STREAMS_MAX],
    feedback_heard: Time,
    recorder: Option<Arc<Recorder>>,
    /// What models of earlier runs have learned, until the streams are there that it is for.
    learned: Vec<LearnedSpec>,
    learned_published: Time,
    decisions: HandOver,
    load_taken_at: Time,
}

impl PeerStage {
    /// A peer without keys; what is sealed for it leaves by the `flow`th source port.
    pub fn new(peer: u16, spec: &PeerSpec, flow: u16, config: EndpointConfig) -> Self {
        Self {
            peer,
            lan: spec.lan,
            mss_clamp: spec.mss_clamp,
            pinned_mtu: spec.mtu,
            stream: config.stream,
            endpoint: Endpoint::new(config),
            pending: VecDeque::with_capacity(BURST),
            hand: Hand::new(peer, flow),
            last_heard: [Time::ZERO; STREAMS_MAX],
            feedback_heard: Time::ZERO,
            recorder: None,
            learned: vec![],
            learned_published: Time::ZERO,
            decisions: HandOver::new(peer, config.stream, PATH),
            load_taken_at: Time::ZERO,
        }
    }

    /// What arrives is noted there, if anywhere.
    pub fn recorded(self, recorder: Option<Arc<Recorder>>) -> Self {
        Self { recorder, ..self }
    }

    /// The models of its streams begin with what earlier ones have learned.
    pub fn experienced(self, learned: Vec<LearnedSpec>) -> Self {
        Self { learned, ..self }
    }

    /// Hands on what was learned of the streams that are there.
    fn teach(&mut self) {
        let endpoint = &mut self.endpoint;
        self.learned.retain(|LearnedSpec { stream, state, .. }| {
            match endpoint.predictor_mut(*stream) {
                Some(engine) => {
                    // It was tried before; what is wrong with it all the same is not learned.
                    let _ = engine.model_mut().map(|model| model.restore(state));
                    false
                }
                None => true,
            }
        });
    }

    /// Carries out what a command asks for. Memory for a stream is taken here, when its first key
    /// is installed, and never again.
    pub fn command(&mut self, command: &Command, shared: &Shared, around: &mut Surroundings<'_>) {
        // Probes and farewells are the first endpoint's.
        let is_first = self.stream == 0;
        match command {
            Command::InstallReceiveKey(key) if key.peer == self.peer => {
                let streams = key.streams.clamp(1, STREAMS_MAX as u8);
                self.endpoint.expect_streams(streams);
                self.teach();
            }
            Command::InstallSendKey(key) if key.peer == self.peer => {
                let budget = self.hand.budget(key);
                self.endpoint.install_key(budget, key.window);
            }
            Command::RetireSendKey { peer } if *peer == self.peer => self.endpoint.retire_key(),
            Command::SetPath {
                peer,
                path,
                address,
            } if *peer == self.peer => {
                let limit = address.as_ref().map(|address| {
                    let port = shared.ports[address.port].mtu;
                    let limit = PathLimit::new(port, address.remote.ip());
                    self.pinned_mtu.map_or(limit, |mtu| limit.pinned(mtu))
                });
                self.endpoint.set_path(*path, limit);
            }
            Command::Probe { peer, path, token } if *peer == self.peer && is_first => {
                with_both_ways(self.lan, around, |egress, _| {
                    self.endpoint.probe(*path, *token, egress)
                });
            }
            Command::Close { peer } if *peer == self.peer && is_first => {
                with_both_ways(self.lan, around, |egress, _| {
                    self.endpoint.say_close(PATH, egress);
                });
            }
            _ => {}
        }
    }

    /// Takes the frames of one LAN burst; only when the last one is through.
    pub fn take(&mut self, burst: &mut Burst) {
        debug_assert!(!self.is_blocked());
        self.pending.extend(burst.drain(..));
    }

    /// True while frames wait for room in the units.
    pub fn is_blocked(&self) -> bool {
        !self.pending.is_empty() || self.endpoint.waiting() > 0
    }

    /// Sends what waits, as far as the units have room.
    pub fn send(&mut self, around: &mut Surroundings<'_>) {
        let refusal = match (self.endpoint.has_key(), self.endpoint.has_path()) {
            (false, _) => Some(DropReason::NoSession),
            (_, false) => Some(DropReason::NoPath),
            _ => None,
        };
        if let Some(reason) = refusal {
            around.drops.add(reason, self.discard() as u64);
            return;
        }
        let frame_max = self.endpoint.frame_max_in_shard();
        while let Some(mut frame) = self.pending.pop_front() {
            let classified = classify(frame.data());
            if self.mss_clamp
                && let Some(at) = classified.tcp
                && clamp_mss(frame.data_mut(), at, frame_max)
            {
                around.counters.mss_clamped += 1;
            }
            let lane = self.endpoint.lane_of(&classified, frame.len(), around.now);
            let mut offered = self.endpoint.offer(frame, lane, around.now);
            if let Err(Refused::Full(frame)) = offered {
                self.close(around);
                offered = self.endpoint.offer(frame, lane, around.now);
            }
            match offered {
                Ok(()) => {}
                Err(Refused::Dropped(_, reason)) => around.drops.count(reason),
                Err(Refused::Full(frame)) => {
                    // No room in the units: the frame waits, and its LAN queue is not read.
                    self.pending.push_front(frame);
                    return;
                }
            }
        }
        self.close(around);
    }

    /// Cuts and hands over what is gathered.
    fn close(&mut self, around: &mut Surroundings<'_>) {
        let closed = self.endpoint.close(&mut Egress {
            now: around.now,
            pool: around.pool,
            outbox: &mut ToUnits {
                units: around.units,
                tx: around.tx,
                wan_ports: around.wan_ports,
            },
        });
        if let Close::Dropped(reason, frames) = closed {
            around.drops.add(reason, frames as u64);
        }
    }

    /// Drops what waits; says how many frames.
    pub fn discard(&mut self) -> usize {
        self.endpoint.discard() + self.pending.drain(..).count()
    }

    /// A datagram with this header was numbered here and never left.
    pub fn not_sent(&mut self, header: ClearHeader) {
        if header.kind == Kind::Data {
            self.endpoint.not_sent(header.path, header.path_number);
        }
    }

    /// Takes a data shard that a unit has opened.
    #[inline]
    pub fn accept(
        &mut self,
        opened: Opened<Mbuf>,
        header: ClearHeader,
        key: &ReceiveSlot,
        frames: &mut Pool,
        sink: &mut LanSink<'_>,
        now: Time,
    ) {
        let received_at = opened.buffer().meta().rx_time;
        let (stream, generation) = (header.stream, key.generation);
        let round_trip = || self.endpoint.round_trip(now);
        let arrival = (self.recorder.as_ref())
            .and_then(|_| record::arrival(&opened, header, received_at, round_trip()));
        if self
            .endpoint
            .accept(opened, stream, generation, received_at, frames, sink)
            && let Some(last_heard) = self.last_heard.get_mut(usize::from(stream))
        {
            *last_heard = now;
            if let (Some(recorder), Some(arrival)) = (&self.recorder, arrival) {
                recorder.note(arrival);
            }
        }
    }

    /// Takes an opened feedback message.
    pub fn accept_feedback(
        &mut self,
        opened: &Opened<Mbuf>,
        key: &ReceiveSlot,
        shared: &Shared,
        around: &mut Surroundings<'_>,
    ) {
        let received_at = opened.buffer().meta().rx_time;
        let told = with_both_ways(self.lan, around, |egress, sink| {
            self.endpoint
                .accept_feedback(opened, key.generation, received_at, egress, sink)
        });
        if told.is_news {
            self.feedback_heard = around.now;
        }
        if told.closed {
            shared.peers[usize::from(self.peer)]
                .closed
                .store(true, Ordering::Release);
        }
    }

    /// Does what time brings, now that all that was received before `settled` has been accepted.
    #[inline]
    pub fn poll(&mut self, settled: Time, around: &mut Surroundings<'_>) {
        with_both_ways(self.lan, around, |egress, sink| {
            self.endpoint.poll(settled, egress, sink);
        });
    }

    /// Tells of the load of the units that seal for it; once for each time that it was taken.
    pub fn set_crypto_load(&mut self, permille: u16, taken_at: Time) {
        if taken_at > self.load_taken_at {
            self.load_taken_at = taken_at;
            self.endpoint.set_crypto_load(permille, taken_at);
        }
    }

    /// Lets go of everything: the gateway stops.
    pub fn drain(&mut self, sink: &mut LanSink<'_>) {
        self.endpoint.drain(sink);
    }

    /// Adds what died in its endpoint.
    pub fn add_drops(&self, drops: &mut Drops) {
        self.endpoint.add_drops(drops);
    }

    /// Publishes the counters of its streams and of its path.
    pub fn publish(&mut self, shared: &Shared, now: Time) {
        let peer = &shared.peers[usize::from(self.peer)];
        let is_last = shared.phase() == Phase::Stop;
        let tells_learned = is_last || now.since(self.learned_published) >= LEARNED_PUBLISHED_EVERY;
        if tells_learned {
            self.learned_published = now;
        }
        for (stream, buffer) in self.endpoint.received() {
            let Some(slot) = peer.streams_in.get(stream) else {
                continue;
            };
            slot.counters
                .store(&StreamIn::new(buffer, self.last_heard[stream]));
            slot.times.store(&ReceiverTimes(*buffer.histograms()));
            if let Some(model) = buffer.predictor().model() {
                slot.predictions.store(&Predictions::new(model));
                if tells_learned {
                    slot.learned.store(&Learned(model.save()));
                }
            }
        }
        (self.decisions).hand_over(self.endpoint.decisions(), &shared.decisions, is_last);
        let mut path = PathCounters::new(&self.endpoint, PATH, now);
        path.last_heard_ns = self.feedback_heard.as_nanos();
        if let Some(slot) = peer.streams_out.get(usize::from(self.stream)) {
            slot.counters.store(&StreamOut::new(&self.endpoint));
            slot.path.store(&path);
            let view = self.endpoint.path_view(PATH, now);
            slot.mtu.store(&MtuWords::from(view.mtu));
            slot.plan.store(&PlanWords::new(self.endpoint.plan()));
        }
    }
}
