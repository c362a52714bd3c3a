//! One lcore's end of a tunnel: the stream that it sends to a peer, the streams that it receives,
//! and the feedback between the two.
//!
//! | file | what |
//! |---|---|
//! | `outbound` | the stream that is sent: numbers, retention, repair, what reports say of it |
//! | `pacer` | bursts leave no faster than the path can take them |
//! | `path` | what is known of a path, and what that allows |
//! | `plan` | from what is known of a path to the stream's [plan](crate::plan) |
//! | `feedback` | messages in and out: reports, requests, probes |
//! | `mtu` | probes of a path's MTU, and what follows from what they find |
//!
//! A gateway with several rx lcores has one endpoint per lcore and peer. The i-th of n sends stream
//! i, receives the streams s with s mod n = i, and seals its own feedback under those numbers, so
//! no two endpoints ever use the same nonce. Whoever drives it brings time, packets and room:
//! everything that leaves goes through an [`Egress`].

mod feedback;
mod mtu;
mod outbound;
mod pacer;
mod path;
mod plan;

use core::time::Duration;

pub use self::feedback::FeedbackStats;
use self::feedback::Messages;
use self::outbound::Outbound;
pub use self::outbound::{OutboundStats, RecoveryConfig};
pub use self::path::PathView;
use crate::buffer::{Buffer, BufferPool};
use crate::classify::Classified;
use crate::drop_reason::{DropReason, Drops};
use crate::flows::FlowTable;
use crate::lane::Lane;
use crate::limits::STREAMS_MAX;
use crate::path_mtu::PathLimit;
pub use crate::plan::RepairMode;
use crate::plan::{Decisions, Plan};
use crate::predict::{Engine, Policy, RoundTrip};
use crate::receiver::{FrameSink, PredictiveBuffer, ReceiverConfig};
use crate::repair::EncoderStats;
use crate::seal::{Opened, SealBudget, Unsealed};
use crate::sender::{Close, Refused, SenderConfig, SenderStats};
use crate::time::Time;

/// Where numbered datagrams go: to the crypto units.
pub trait Outbox<B> {
    /// How many more it takes now.
    fn credit(&self) -> usize;

    /// Takes one, for which there was credit.
    fn send(&mut self, datagram: Unsealed<B>);
}

/// The way out, as long as a call lasts.
pub struct Egress<'a, P, O> {
    /// The round's time.
    pub now: Time,
    /// Where buffers for shards and messages come from.
    pub pool: &'a mut P,
    /// Where datagrams go.
    pub outbox: &'a mut O,
}

/// What an endpoint is made from.
#[derive(Clone, Copy, Debug)]
pub struct EndpointConfig {
    /// Which of the peer's endpoints here this is, from 0: the stream that it sends.
    pub stream: u8,
    /// How many there are.
    pub endpoints: u8,
    /// Paths used, from id 0.
    pub paths: u8,
    /// How the stream is sharded.
    pub sender: SenderConfig,
    /// How losses are made good.
    pub recovery: RecoveryConfig,
    /// How streams are received; its bounds are for all of them together.
    pub receiver: ReceiverConfig,
    /// When holes are asked for.
    pub policy: Policy,
}

/// Least share of either bound that a stream gets.
const SHARE_MIN: usize = 64;

/// How often what is known of the path is handed to the receiving side.
const ROUND_TRIP_EVERY: Duration = Duration::from_millis(10);

/// What a feedback message told beside what the endpoint itself acts on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The message was new and of the peer's present incarnation: it says that the peer is alive.
    pub is_news: bool,
    /// The peer stops.
    pub closed: bool,
    /// A probe came back: its token.
    pub echoed: Option<u64>,
}

/// One lcore's end of a tunnel.
pub struct Endpoint<B> {
    config: EndpointConfig,
    budget: Option<SealBudget>,
    flows: FlowTable,
    outbound: Outbound<B>,
    inbound: [Option<Box<PredictiveBuffer<B, Engine>>>; STREAMS_MAX],
    messages: Messages,
    /// What no stream has got yet of the bounds: frames held, shards kept.
    held_left: usize,
    kept_left: usize,
    round_trip_at: Time,
    drops: Drops,
}

impl<B: Buffer> Endpoint<B> {
    /// An endpoint without a key and without a path.
    pub fn new(config: EndpointConfig) -> Self {
        Self {
            config,
            budget: None,
            flows: FlowTable::new(),
            outbound: Outbound::new(&config),
            inbound: [const { None }; STREAMS_MAX],
            messages: Messages::new(config.stream, config.endpoints, config.paths),
            held_left: config.receiver.held_frames_max,
            kept_left: config.receiver.kept_shards_max,
            round_trip_at: Time::ZERO,
            drops: Drops::default(),
        }
    }

    /// Seals under this key from now on. `window` is what the peer can decode, in source shards.
    pub fn install_key(&mut self, budget: SealBudget, window: u16) {
        self.budget = Some(budget);
        self.outbound.set_window_max(window);
    }

    /// Seals nothing more.
    pub fn retire_key(&mut self) {
        self.budget = None;
    }

    /// Whether there is a key to seal under.
    pub fn has_key(&self) -> bool {
        self.budget.is_some()
    }

    /// Expects so many streams of the peer; makes room for those that are received here.
    pub fn expect_streams(&mut self, streams: u8) {
        let (mine, endpoints) = (self.config.stream, self.config.endpoints.max(1));
        for stream in (0..streams).filter(|stream| stream % endpoints == mine) {
            // What a peer says above the protocol's bound is not there.
            let Some(slot) = self.inbound.get_mut(usize::from(stream)) else {
                break;
            };
            if slot.is_none() {
                // Streams share the bounds evenly. If the peer comes back with more of them, those
                // share what is left.
                let bounds = self.config.receiver;
                let share = |bound: usize, left: &mut usize| {
                    let share = (bound / usize::from(streams)).min(*left).max(SHARE_MIN);
                    *left = left.saturating_sub(share);
                    share
                };
                let config = ReceiverConfig {
                    held_frames_max: share(bounds.held_frames_max, &mut self.held_left),
                    kept_shards_max: share(bounds.kept_shards_max, &mut self.kept_left),
                    paths: self.config.paths,
                    ..bounds
                };
                *slot = Some(Box::new(PredictiveBuffer::new(
                    config,
                    self.config.policy.engine(),
                )));
            }
        }
        self.messages.expect_streams(streams);
    }

    /// Opens a path that carries no larger packets than these, or closes it.
    pub fn set_path(&mut self, path: u8, limit: Option<PathLimit>) {
        self.outbound.set_path(path, limit);
    }

    /// Whether there is an open path.
    pub fn has_path(&self) -> bool {
        self.outbound.has_path()
    }

    /// The lane of a frame of `len` bytes: by what it is, and for UDP by how its flow behaves. To be
    /// asked once a frame.
    #[inline]
    pub fn lane_of(&mut self, classified: &Classified, len: usize, now: Time) -> Lane {
        let Classified {
            hash,
            class,
            is_udp,
            ..
        } = *classified;
        Lane::for_flow(self.flows.class_of(hash, class, is_udp, len, now), hash)
    }

    /// Adds a frame to the open aggregate.
    ///
    /// # Errors
    /// As [`StreamSender::offer`](crate::sender::StreamSender::offer), and
    /// [`DropReason::QueueControl`] for a frame that is let go as a signal to its sender.
    pub fn offer(&mut self, frame: B, lane: Lane, now: Time) -> Result<(), Refused<B>> {
        self.outbound.offer(frame, lane, now)
    }

    /// Cuts the open aggregate into shards and hands them over, with the repair that is then due.
    pub fn close<P: BufferPool<Buffer = B>>(
        &mut self,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) -> Close {
        match &mut self.budget {
            Some(budget) => self.outbound.close(budget, egress),
            None => match self.outbound.discard() {
                0 => Close::Empty,
                frames => Close::Dropped(DropReason::NoSession, frames),
            },
        }
    }

    /// Frames in the open aggregate.
    pub fn waiting(&self) -> usize {
        self.outbound.waiting()
    }

    /// Drops the open aggregate's frames; returns how many there were.
    pub fn discard(&mut self) -> usize {
        self.outbound.discard()
    }

    /// Longest frame that fits one shard, in bytes; what that is to be as long as a path is not known.
    pub fn frame_max_in_shard(&self) -> usize {
        self.outbound.frame_max_in_shard()
    }

    /// A datagram died between the outbox and the wire: the peer shall neither wait for it nor
    /// learn from it. `path_number` is its number among data on `path`.
    pub fn not_sent(&mut self, path: u8, path_number: u64) {
        self.outbound.not_sent(path, path_number);
    }

    /// Takes an opened data shard of the peer's `generation`th incarnation; see
    /// [`PredictiveBuffer::accept`]. `pool` gives buffers for frames.
    pub fn accept<P: BufferPool<Buffer = B>>(
        &mut self,
        shard: Opened<B>,
        stream: u8,
        generation: u32,
        received_at: Time,
        pool: &mut P,
        sink: &mut impl FrameSink<B>,
    ) -> bool {
        match self.inbound.get_mut(usize::from(stream)) {
            Some(Some(buffer)) => buffer.accept(shard, generation, received_at, pool, sink),
            _ => {
                self.drops.count(DropReason::NotNegotiated);
                false
            }
        }
    }

    /// Takes an opened feedback message of the peer's `generation`th incarnation, and answers it.
    pub fn accept_feedback<P: BufferPool<Buffer = B>>(
        &mut self,
        message: &Opened<B>,
        generation: u32,
        received_at: Time,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
        sink: &mut impl FrameSink<B>,
    ) -> Told {
        let told = self.take_message(message, generation, received_at, egress, sink);
        if told.is_news {
            self.hand_over_round_trip(egress.now);
        }
        told
    }

    /// Does what time brings: lets go what was held for long enough, asks, reports, repairs. All
    /// that was received before `settled` has been accepted.
    pub fn poll<P: BufferPool<Buffer = B>>(
        &mut self,
        settled: Time,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
        sink: &mut impl FrameSink<B>,
    ) {
        if egress.now.since(self.round_trip_at) >= ROUND_TRIP_EVERY {
            self.hand_over_round_trip(egress.now);
        }
        for buffer in self.inbound.iter_mut().flatten() {
            buffer.poll(settled, sink);
        }
        if let Some(budget) = &mut self.budget {
            self.outbound.poll(budget, egress);
        }
        self.find_mtu(egress);
        self.send_feedback(egress);
    }

    /// When [`Self::poll`] has something to do next.
    pub fn poll_timeout(&self) -> Option<Time> {
        let inbound = self.inbound.iter().flatten();
        let holds = inbound.clone().filter_map(|buffer| buffer.poll_timeout());
        let feedback = inbound.filter_map(|buffer| buffer.feedback_at());
        holds
            .chain(feedback)
            .chain(self.outbound.poll_timeout())
            .chain(self.mtu_timeout())
            .min()
    }

    fn hand_over_round_trip(&mut self, now: Time) {
        self.round_trip_at = now;
        let round_trip = self.outbound.round_trip(now);
        for buffer in self.inbound.iter_mut().flatten() {
            buffer.set_round_trip(round_trip);
        }
    }

    /// Delivers everything that is held and frees everything that is kept: the gateway stops.
    pub fn drain(&mut self, sink: &mut impl FrameSink<B>) {
        for buffer in self.inbound.iter_mut().flatten() {
            buffer.drain(sink);
        }
    }

    /// The path's round trip, if it is known.
    pub fn round_trip(&self, now: Time) -> Option<RoundTrip> {
        self.outbound.round_trip(now)
    }

    /// The streams received here, by number.
    pub fn received(&self) -> impl Iterator<Item = (usize, &PredictiveBuffer<B, Engine>)> {
        let streams = self.inbound.iter().enumerate();
        streams.filter_map(|(stream, buffer)| Some((stream, &**buffer.as_ref()?)))
    }

    /// What says when holes of a stream received here are asked for, to give it what an earlier one
    /// has learned.
    pub fn predictor_mut(&mut self, stream: u8) -> Option<&mut Engine> {
        let buffer = self.inbound.get_mut(usize::from(stream))?;
        Some(buffer.as_mut()?.predictor_mut())
    }

    /// What the aggregator has sent.
    pub fn sender_stats(&self) -> SenderStats {
        self.outbound.sender_stats()
    }

    /// What was sent beside the stream's first transmissions.
    pub fn outbound_stats(&self) -> OutboundStats {
        self.outbound.stats()
    }

    /// What the encoder of standing repair has made.
    pub fn encoder_stats(&self) -> EncoderStats {
        self.outbound.encoder_stats()
    }

    /// What feedback came and went.
    pub fn feedback_stats(&self) -> FeedbackStats {
        self.messages.stats()
    }

    /// What is known of a path.
    pub fn path_view(&self, path: u8, now: Time) -> PathView {
        self.outbound.path_view(path, now)
    }

    /// Tells of the share of their time for which the units that seal for it are busy, in thousandths,
    /// and when that was taken: the plan gives busy units less to do.
    pub fn set_crypto_load(&mut self, permille: u16, taken_at: Time) {
        self.outbound.set_crypto_load(permille, taken_at);
    }

    /// What is planned for the stream that is sent.
    pub fn plan(&self) -> &Plan {
        self.outbound.plan()
    }

    /// How that came about.
    pub fn decisions(&self) -> &Decisions {
        self.outbound.decisions()
    }

    /// Numbers taken so far: of data, and of feedback. Each is a seal under the key.
    pub fn numbered(&self) -> (u64, u64) {
        (self.outbound.numbered(), self.messages.numbered())
    }

    /// Adds what died here, by reason.
    pub fn add_drops(&self, drops: &mut Drops) {
        drops.merge(&self.drops);
        drops.merge(&self.outbound.drops);
        for buffer in self.inbound.iter().flatten() {
            drops.merge(buffer.drops());
        }
    }
}

#[cfg(test)]
mod tests;
