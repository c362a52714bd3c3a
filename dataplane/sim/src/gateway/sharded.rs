//! The real thing: a gateway around the core's [`Endpoint`], as an rx lcore with an inline crypto
//! unit drives it.
//!
//! Both ends are made with keys, so there is no handshake; keys are renewed by name only, as the
//! path numbers go on. Each datagram is sealed with AES-256-GCM and gets its outer headers by the
//! core's own code, and is parsed and opened the same way.

mod unit;

use std::time::Duration;

use shardgate_core::buffer::{Buffer, BufferPool, HeapBuffer};
use shardgate_core::classify::classify;
use shardgate_core::drop_reason::{DropReason, Drops};
use shardgate_core::endpoint::{
    Egress, Endpoint, EndpointConfig, OutboundStats, PathView, RecoveryConfig, RepairMode,
};
use shardgate_core::limits::{HEADROOM, REKEY_AFTER, SHARDS_MAX, WINDOW_MAX};
use shardgate_core::mss::clamp_mss;
use shardgate_core::path_mtu::PathLimit;
use shardgate_core::plan::LoadMeter;
use shardgate_core::predict::{HoldBounds, Policy, Rack};
use shardgate_core::receiver::{FrameSink, ReceiverConfig};
use shardgate_core::seal::{Origin, SealBudget};
use shardgate_core::sender::{Close, Refused, SenderConfig};
use shardgate_core::time::Time;
use shardgate_core::wire::header::Kind;
use shardgate_core::wire::payload_max;

use self::unit::Unit;
use super::{Gateway, Output, SentBytes};
use crate::world::Site;

/// Longest frame taken from the LAN: one of an MTU of 1500 with a tag. The hosts send no longer
/// ones.
const LAN_FRAME_MAX: usize = 1_518;
/// Room of every buffer behind its headroom: such a frame, or a shard with its tag.
const BUFFER_LEN: usize = 2_048;
/// Source shards that both ends can decode a window of.
const WINDOW: u16 = WINDOW_MAX as u16;
/// How long an interactive frame waits behind a hole (`interactive_hold_ms`).
const INTERACTIVE_HOLD: Duration = Duration::from_millis(5);
/// Frames held, and shards kept for incomplete frames.
const HELD_FRAMES: usize = 16_384;
/// Copies of sent shards: a second of a gigabit per second, more than any profile needs.
const RETENTION_BYTES: usize = 128 << 20;

/// What both ends of a sharding tunnel are given.
#[derive(Clone, Copy, Debug)]
pub struct ShardedConfig {
    /// The core's own configuration.
    pub endpoint: EndpointConfig,
    /// MTU of the ports, in bytes: a path may carry less.
    pub mtu: u16,
}

impl ShardedConfig {
    /// What a gateway does by itself over so many paths of this MTU: asking, repair as the path
    /// needs it, queue control.
    pub fn automatic(paths: u8, mtu: u16) -> Self {
        let payload_max = payload_max(mtu, unit::address(Site::A).ip());
        let endpoint = EndpointConfig {
            stream: 0,
            endpoints: 1,
            paths,
            sender: SenderConfig {
                shards_min: 1,
                shards_max: SHARDS_MAX,
                payload_max,
                checksum: true,
            },
            recovery: RecoveryConfig {
                retransmit: true,
                repair: RepairMode::Auto,
                overhead_limit: 0.25,
                retention_bytes: RETENTION_BYTES,
                payload_max,
                queue_control: true,
            },
            receiver: ReceiverConfig {
                paths,
                ordered: true,
                hold_bounds: HoldBounds::new(INTERACTIVE_HOLD, None),
                held_frames_max: HELD_FRAMES,
                kept_shards_max: HELD_FRAMES,
                checksum: true,
                asks: true,
                passes_on: false,
                rebuilt_payload_max: payload_max,
            },
            policy: Policy::Rack(Rack::default()),
        };
        Self { endpoint, mtu }
    }

    /// What the paths carry at the most; how much that is they find.
    fn limit(&self) -> PathLimit {
        PathLimit::new(self.mtu, unit::address(Site::A).ip())
    }
}

/// One end of a sharding tunnel.
pub struct ShardedGateway {
    endpoint: Endpoint<HeapBuffer>,
    unit: Unit,
    key_since: Time,
    drops: Drops,
    sink: Frames,
    /// How long the unit takes for a shard, and how busy that makes it.
    unit_load: Option<(Duration, LoadMeter)>,
}

/// Frames that the core lets go, until they are written out.
#[derive(Default)]
struct Frames(Vec<HeapBuffer>);

impl FrameSink<HeapBuffer> for Frames {
    fn frame(&mut self, frame: HeapBuffer) {
        self.0.push(frame);
    }
}

/// Buffers without a bound: pools are the dataplane's matter.
struct Heap;

impl BufferPool for Heap {
    type Buffer = HeapBuffer;

    fn alloc(&mut self) -> Option<HeapBuffer> {
        Some(HeapBuffer::new(HEADROOM, BUFFER_LEN))
    }
}

impl ShardedGateway {
    /// The end at `site`; both ends must have the same configuration and seed.
    pub fn new(config: ShardedConfig, site: Site, seed: u64) -> Self {
        let mut endpoint = Endpoint::new(config.endpoint);
        endpoint.install_key(budget(Time::ZERO), WINDOW);
        endpoint.expect_streams(1);
        for path in 0..config.endpoint.paths {
            endpoint.set_path(path, Some(config.limit()));
        }
        Self {
            endpoint,
            unit: Unit::new(site, seed),
            key_since: Time::ZERO,
            drops: Drops::default(),
            sink: Frames::default(),
            unit_load: None,
        }
    }

    /// From now on the unit counts as busy for so long with each shard that it seals. It does not hold
    /// anything up by that: the world has no CPUs.
    pub fn set_seal_time(&mut self, time: Duration) {
        let meter = self
            .unit_load
            .map_or_else(LoadMeter::default, |(_, meter)| meter);
        self.unit_load = Some((time, meter));
    }

    fn weigh(&mut self, now: Time) {
        let Some((time, meter)) = &mut self.unit_load else {
            return;
        };
        self.unit.busy += *time * std::mem::take(&mut self.unit.sealed);
        if let Some(load) = meter.look(now, self.unit.busy, Duration::ZERO) {
            self.endpoint.set_crypto_load(load, now);
        }
    }

    /// Everything that died here, by reason.
    pub fn drops(&self) -> Drops {
        let mut drops = self.drops;
        self.endpoint.add_drops(&mut drops);
        drops
    }

    /// What was sent beside first transmissions.
    pub fn outbound_stats(&self) -> OutboundStats {
        self.endpoint.outbound_stats()
    }

    /// What is known of a path.
    pub fn path_view(&self, path: u8, now: Time) -> PathView {
        self.endpoint.path_view(path, now)
    }

    /// The core's own end of the tunnel.
    pub fn endpoint(&self) -> &Endpoint<HeapBuffer> {
        &self.endpoint
    }

    fn close(&mut self, now: Time) {
        let closed = self.endpoint.close(&mut Egress {
            now,
            pool: &mut Heap,
            outbox: &mut self.unit,
        });
        if let Close::Dropped(reason, frames) = closed {
            self.drops.add(reason, frames as u64);
        }
    }

    fn flush(&mut self, out: &mut Output) {
        self.unit.flush(out);
        for frame in self.sink.0.drain(..) {
            out.frame().extend_from_slice(frame.data());
        }
    }

    fn receive(&mut self, path: u8, datagram: &[u8], now: Time) -> Result<(), DropReason> {
        let (opened, header) = self.unit.open(path, datagram)?;
        match header.kind {
            Kind::Feedback => {
                let mut egress = Egress {
                    now,
                    pool: &mut Heap,
                    outbox: &mut self.unit,
                };
                self.endpoint
                    .accept_feedback(&opened, 1, now, &mut egress, &mut self.sink);
            }
            _ => {
                let sink = &mut self.sink;
                self.endpoint
                    .accept(opened, header.stream, 1, now, &mut Heap, sink);
            }
        }
        Ok(())
    }
}

fn budget(now: Time) -> SealBudget {
    let origin = Origin {
        key_slot: 0,
        peer: 0,
        flow: 0,
    };
    SealBudget::new(unit::RECEIVER_INDEX, origin, 1, now)
}

impl Gateway for ShardedGateway {
    fn handle_lan(&mut self, frame: &[u8], now: Time, out: &mut Output) {
        if frame.len() > LAN_FRAME_MAX {
            self.drops.count(DropReason::FrameSize);
            return;
        }
        let mut buffer = HeapBuffer::new(HEADROOM, BUFFER_LEN);
        if let Some(room) = buffer.append(frame.len()) {
            room.copy_from_slice(frame);
        }
        let classified = classify(frame);
        if let Some(at) = classified.tcp {
            let frame_max = self.endpoint.frame_max_in_shard();
            clamp_mss(buffer.data_mut(), at, frame_max);
        }
        let lane = self.endpoint.lane_of(&classified, frame.len(), now);
        let mut offered = self.endpoint.offer(buffer, lane, now);
        if let Err(Refused::Full(frame)) = offered {
            self.close(now);
            offered = self.endpoint.offer(frame, lane, now);
        }
        match offered {
            Ok(()) => {}
            Err(Refused::Dropped(_, reason)) => self.drops.count(reason),
            // A real gateway would leave it in the LAN port's queue; here that is full at once.
            Err(Refused::Full(_)) => self.drops.count(DropReason::RingFull),
        }
        self.flush(out);
    }

    fn handle_wan(&mut self, path: u8, datagram: &[u8], now: Time, out: &mut Output) {
        if let Err(reason) = self.receive(path, datagram, now) {
            self.drops.count(reason);
        }
        self.flush(out);
        self.weigh(now);
    }

    fn poll(&mut self, now: Time, out: &mut Output) {
        if now.since(self.key_since) >= REKEY_AFTER {
            self.key_since = now;
            self.endpoint.install_key(budget(now), WINDOW);
        }
        if self.endpoint.waiting() > 0 {
            self.close(now);
        }
        let mut egress = Egress {
            now,
            pool: &mut Heap,
            outbox: &mut self.unit,
        };
        self.endpoint.poll(now, &mut egress, &mut self.sink);
        self.flush(out);
        self.weigh(now);
    }

    fn poll_timeout(&self) -> Option<Time> {
        self.endpoint.poll_timeout()
    }

    fn sent(&self) -> SentBytes {
        let frames = self.endpoint.sender_stats().frame_bytes;
        SentBytes {
            frames,
            headers: self.unit.sent.source - frames,
            repair: self.unit.sent.repair,
            repeats: self.unit.sent.repeats,
            feedback: self.unit.sent.feedback,
        }
    }
}
