//! From opened shards to frames, and what feedback says.

use shardgate_core::buffer::{Buffer, BufferPool};
use shardgate_core::drop_reason::{DropReason, Drops};
use shardgate_core::limits::{PATHS_MAX, STREAMS_MAX};
use shardgate_core::owner;
use shardgate_core::predict::Fixed;
use shardgate_core::receiver::{FrameSink, PredictiveBuffer, ReceiverConfig, ReplayWindow};
use shardgate_core::seal::{Opened, PathNumbers, Unsealed};
use shardgate_core::time::Time;
use shardgate_core::wire::feedback::{Block, BlockWriter, Blocks};
use shardgate_core::wire::header::{ClearHeader, Kind};
use shardgate_dpdk::{Mbuf, Pool};

use super::hand::Hand;
use super::lan::{PATH, Surroundings};
use super::tx::Tx;
use super::wan::ReceiveSlot;
use crate::command::Command;
use crate::engine::shared::{PathCounters, RxCounters, Shared, StreamIn};

/// Challenges that may be under way at once; an echo of an older one is ignored.
const CHALLENGES_MAX: usize = 4;

/// Frames and shards that a stream may hold whatever others have taken.
const SHARE_MIN: usize = 64;

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

/// What one lcore receives from one peer.
pub struct PeerReceiver {
    peer: u16,
    /// Place of this lcore among those that serve the peer; their number.
    place: (usize, usize),
    /// Index of the LAN port the frames go to.
    pub lan: usize,
    config: ReceiverConfig,
    /// What no stream has got yet of the bounds in `config`.
    held_left: usize,
    kept_left: usize,
    predictor: Fixed,
    streams: Vec<Option<Box<PredictiveBuffer<Mbuf, Fixed>>>>,
    last_heard: [Time; STREAMS_MAX],
    feedback: Option<Feedback>,
}

impl PeerReceiver {
    /// The receiving side of a peer on the `place.0`th of `place.1` lcores that serve it.
    pub fn new(
        peer: u16,
        place: (usize, usize),
        lan: usize,
        config: ReceiverConfig,
        predictor: Fixed,
    ) -> Self {
        Self {
            peer,
            place,
            lan,
            held_left: config.held_frames_max,
            kept_left: config.kept_shards_max,
            config,
            predictor,
            streams: (0..STREAMS_MAX).map(|_| None).collect(),
            last_heard: [Time::ZERO; STREAMS_MAX],
            feedback: (place.0 == 0).then(|| Feedback::new(peer)),
        }
    }

    /// Carries out what a command asks of a receiver. Memory for a stream is taken here, when its
    /// first key is installed, and never again.
    pub fn command(&mut self, command: &Command, around: &mut Surroundings<'_>) {
        if let Command::InstallReceiveKey(key) = command
            && key.peer == self.peer
        {
            let streams = key.streams.clamp(1, STREAMS_MAX as u8);
            for stream in 0..streams {
                let slot = &mut self.streams[usize::from(stream)];
                if owner(stream, self.place.1) != self.place.0 || slot.is_some() {
                    continue;
                }
                // The bounds are the peer's; its streams share them evenly. If it comes back with
                // more streams, those share what is left.
                let share = |bound: usize, left: &mut usize| {
                    let share = (bound / usize::from(streams)).min(*left).max(SHARE_MIN);
                    *left = left.saturating_sub(share);
                    share
                };
                let config = ReceiverConfig {
                    held_frames_max: share(self.config.held_frames_max, &mut self.held_left),
                    kept_shards_max: share(self.config.kept_shards_max, &mut self.kept_left),
                    ..self.config
                };
                *slot = Some(Box::new(PredictiveBuffer::new(config, self.predictor)));
            }
        }
        if let Some(feedback) = &mut self.feedback {
            feedback.command(command, around);
        }
    }

    /// Takes what a unit has opened.
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
        let stream = usize::from(header.stream);
        let Some(Some(buffer)) = self.streams.get_mut(stream) else {
            sink.drops.count(DropReason::NotNegotiated);
            return;
        };
        if buffer.accept(opened, key.generation, received_at, frames, sink) {
            self.last_heard[stream] = now;
        }
    }

    /// Takes an opened feedback message.
    pub fn accept_feedback(
        &mut self,
        opened: Opened<Mbuf>,
        header: ClearHeader,
        key: &ReceiveSlot,
        shared: &Shared,
        around: &mut Surroundings<'_>,
    ) {
        match &mut self.feedback {
            Some(feedback) => feedback.accept(&opened, header, key, shared, around),
            None => around.drops.count(DropReason::NotNegotiated),
        }
    }

    /// Lets go what has waited long enough, now that all that was received before `settled` has been
    /// accepted.
    #[inline]
    pub fn poll(&mut self, settled: Time, sink: &mut LanSink<'_>) {
        for buffer in self.streams.iter_mut().flatten() {
            buffer.poll(settled, sink);
        }
    }

    /// Lets go of everything: the gateway stops.
    pub fn drain(&mut self, sink: &mut LanSink<'_>) {
        for buffer in self.streams.iter_mut().flatten() {
            buffer.drain(sink);
        }
    }

    /// Adds what died in its predictive buffers.
    pub fn add_drops(&self, drops: &mut Drops) {
        self.streams
            .iter()
            .flatten()
            .for_each(|buffer| drops.merge(buffer.drops()));
    }

    /// Publishes the counters of its streams and of its path.
    pub fn publish(&self, shared: &Shared) {
        let peer = &shared.peers[usize::from(self.peer)];
        for (stream, buffer) in self.streams.iter().enumerate() {
            if let Some(buffer) = buffer {
                let last_heard = self.last_heard[stream];
                let counters = StreamIn::new(buffer.stats(), buffer.lane_stats(), last_heard);
                peer.streams_in[stream].store(&counters);
            }
        }
        if let Some(feedback) = &self.feedback {
            peer.path.store(&feedback.counters);
        }
    }
}

/// Probes to and from one peer, in the hands of the lcore that sends its stream 0.
struct Feedback {
    peer: u16,
    numbers: PathNumbers,
    replay: Box<[ReplayWindow]>,
    generation: u32,
    hand: Hand,
    /// Challenges under way: token and when it was sent.
    challenges: [Option<(u64, Time)>; CHALLENGES_MAX],
    counters: PathCounters,
}

impl Feedback {
    fn new(peer: u16) -> Self {
        Self {
            peer,
            numbers: PathNumbers::new(Kind::Feedback, 0),
            replay: (0..PATHS_MAX).map(|_| ReplayWindow::default()).collect(),
            generation: 0,
            hand: Hand::new(peer, 0),
            challenges: [None; CHALLENGES_MAX],
            counters: PathCounters::default(),
        }
    }

    fn command(&mut self, command: &Command, around: &mut Surroundings<'_>) {
        self.hand.command(command);
        match command {
            Command::Probe { peer, path, token } if *peer == self.peer => {
                let sent_at_us = around.now.as_wire_us();
                if self.send(*path, around, |writer| writer.challenge(*token, sent_at_us)) {
                    self.counters.challenges += 1;
                    self.challenges.rotate_right(1);
                    self.challenges[0] = Some((*token, around.now));
                }
            }
            Command::Close { peer } if *peer == self.peer => {
                self.send(PATH, around, |writer| writer.close());
            }
            _ => {}
        }
    }

    fn accept(
        &mut self,
        opened: &Opened<Mbuf>,
        header: ClearHeader,
        key: &ReceiveSlot,
        shared: &Shared,
        around: &mut Surroundings<'_>,
    ) {
        if key.generation < self.generation {
            around.drops.count(DropReason::OldIncarnation);
            return;
        }
        if key.generation > self.generation {
            self.generation = key.generation;
            self.replay.iter_mut().for_each(ReplayWindow::reset);
        }
        let accepted = match self.replay.get_mut(usize::from(header.path)) {
            Some(window) => window.accept(header.path_number),
            None => Err(DropReason::NotNegotiated),
        };
        if let Err(reason) = accepted {
            around.drops.count(reason);
            return;
        }
        self.counters.last_heard_ns = around.now.as_nanos();
        let received_at = opened.buffer().meta().rx_time;
        let mut blocks = Blocks::new(opened.plaintext());
        let mut answered = false;
        for block in blocks.by_ref() {
            match block {
                // One answer to a message: no reply is longer than its cause.
                Block::Challenge { .. } if answered => {}
                Block::Challenge { token, sent_at_us } => {
                    answered = true;
                    let held = around.now.since(received_at).as_micros();
                    if self.send(header.path, around, |writer| {
                        writer.echo(token, sent_at_us, held as u32)
                    }) {
                        self.counters.answered += 1;
                    }
                }
                Block::Echo { token, held_us, .. } => self.echo(token, held_us, received_at),
                Block::Close => {
                    let peer = &shared.peers[usize::from(self.peer)];
                    peer.closed
                        .store(true, std::sync::atomic::Ordering::Release);
                }
                _ => {}
            }
        }
        if blocks.is_malformed() {
            around.drops.count(DropReason::ShardMalformed);
        }
    }

    /// A challenge came back: that is a round trip (RFC 6298's smoothing).
    fn echo(&mut self, token: u64, held_us: u32, received_at: Time) {
        let is_it =
            |challenge: &&mut Option<(u64, Time)>| challenge.is_some_and(|(sent, _)| sent == token);
        let Some((_, sent_at)) = self
            .challenges
            .iter_mut()
            .find(is_it)
            .and_then(Option::take)
        else {
            return;
        };
        let round_trip = received_at.since(sent_at).as_nanos() as u64;
        let rtt = round_trip.saturating_sub(u64::from(held_us) * 1_000).max(1);
        let counters = &mut self.counters;
        counters.echoes += 1;
        counters.rtt_last_ns = rtt;
        counters.rtt_min_ns = if counters.rtt_min_ns == 0 {
            rtt
        } else {
            counters.rtt_min_ns.min(rtt)
        };
        counters.rtt_smoothed_ns = match counters.rtt_smoothed_ns {
            0 => rtt,
            smoothed => smoothed - smoothed / 8 + rtt / 8,
        };
    }

    /// Seals and sends one block; false if that is not possible now.
    fn send(
        &mut self,
        path: u8,
        around: &mut Surroundings<'_>,
        write: impl FnOnce(&mut BlockWriter<'_, Mbuf>) -> bool,
    ) -> bool {
        if around.units.seal_credit(around.tx, around.wan_ports) == 0 {
            return false;
        }
        let Some(budget) = &mut self.hand.budget else {
            return false;
        };
        let Some(mut message) = around.pool.alloc() else {
            around.drops.count(DropReason::NoBuffer);
            return false;
        };
        if !write(&mut BlockWriter::new(&mut message, usize::from(u16::MAX))) {
            return false;
        }
        let Some(number) = self.numbers.take(path, budget, around.now) else {
            return false;
        };
        self.counters.numbered = self.numbers.taken();
        match Unsealed::new(message, number) {
            Ok(message) => around.units.seal(message, around.tx),
            Err(_) => return false,
        }
        true
    }
}
