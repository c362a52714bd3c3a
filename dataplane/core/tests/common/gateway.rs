//! One of two gateways, without DPDK: what an rx lcore with an inline unit does with the frames of
//! its ports.

#[path = "aead.rs"]
pub mod aead;
#[path = "recycled.rs"]
pub mod recycled;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use shardgate_core::buffer::Buffer;
use shardgate_core::classify::classify;
use shardgate_core::drop_reason::{DropReason, Drops};
use shardgate_core::endpoint::{
    Egress, Endpoint, EndpointConfig, Outbox, RecoveryConfig, RepairMode,
};
use shardgate_core::path_mtu::PathLimit;
use shardgate_core::predict::{HoldBounds, Policy};
use shardgate_core::receiver::{FrameSink, ReceiverConfig};
use shardgate_core::seal::{Origin, Received, SealBudget, Unsealed};
use shardgate_core::sender::{Close, SenderConfig};
use shardgate_core::time::Time;
use shardgate_core::wire::header::Kind;
use shardgate_core::wire::outer::{Outer, OuterTemplate, parse_outer};

use self::aead::TestAead;
use self::recycled::{Pool, Recycled};

/// MTU of the ports, and the most payload of a shard that follows.
const MTU: u16 = 1_500;
const PAYLOAD_MAX: usize = 1_414;
/// From one gateway to the other.
const DELAY: Duration = Duration::from_millis(5);
/// Most datagrams under way at once.
const UNDER_WAY_MAX: usize = 4_096;
/// Paths that the peer may use; all of the gateway's own leave by the first.
const PATHS: u8 = 2;
/// The index under which each knows the other's key.
pub const RECEIVER_INDEX: u32 = 0x5a01;
pub const ORIGIN: Origin = Origin {
    key_slot: 0,
    peer: 0,
    flow: 0,
};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Here,
    There,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Side::Here => Side::There,
            Side::There => Side::Here,
        }
    }

    fn address(self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1 + self as u8), 4_600))
    }

    /// The cipher of what it seals.
    pub fn aead(self) -> TestAead {
        TestAead::new(7 + self as u8)
    }

    /// The outer headers of what it sends.
    pub fn template(self) -> OuterTemplate {
        let (local, remote) = (self.address(), self.other().address());
        OuterTemplate::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], local, remote)
            .expect("one address family")
    }
}

/// Seals what leaves and puts it under way.
pub struct Wire {
    aead: TestAead,
    template: OuterTemplate,
    now: Time,
    under_way: VecDeque<(Time, Recycled)>,
}

impl Outbox<Recycled> for Wire {
    fn credit(&self) -> usize {
        256
    }

    fn send(&mut self, datagram: Unsealed<Recycled>) {
        let mut frame = datagram.seal(&self.aead).expect("seals").into_buffer();
        assert!(self.template.prepend(&mut frame));
        assert!(self.under_way.len() < UNDER_WAY_MAX);
        self.under_way.push_back((self.now + DELAY, frame));
    }
}

impl Wire {
    /// Moves what has arrived by `now` to `frames`.
    pub fn arrived(&mut self, now: Time, frames: &mut Vec<Recycled>) {
        while self.under_way.front().is_some_and(|(at, _)| *at <= now) {
            frames.extend(self.under_way.pop_front().map(|(_, frame)| frame));
        }
    }
}

/// A gateway whose LAN is `sink`.
pub struct Gateway<S> {
    pub endpoint: Endpoint<Recycled>,
    pub wire: Wire,
    pub sink: S,
    /// What died before it came to the endpoint.
    pub drops: Drops,
    address: SocketAddr,
    opens: TestAead,
}

impl<S: FrameSink<Recycled>> Gateway<S> {
    pub fn new(side: Side, policy: Policy, sink: S) -> Self {
        let mut endpoint = Endpoint::new(endpoint_config(policy));
        endpoint.install_key(SealBudget::new(RECEIVER_INDEX, ORIGIN, 1, Time::ZERO), 128);
        endpoint.expect_streams(1);
        endpoint.set_path(0, Some(PathLimit::new(MTU, side.address().ip())));
        Self {
            endpoint,
            wire: Wire {
                aead: side.aead(),
                template: side.template(),
                now: Time::ZERO,
                under_way: VecDeque::with_capacity(UNDER_WAY_MAX),
            },
            sink,
            drops: Drops::default(),
            address: side.address(),
            opens: side.other().aead(),
        }
    }

    /// Takes frames from the LAN, as one burst.
    pub fn offer(&mut self, frames: impl Iterator<Item = Recycled>, now: Time, pool: &mut Pool) {
        self.wire.now = now;
        for frame in frames {
            let lane = classify(frame.data()).lane;
            assert!(self.endpoint.offer(frame, lane, now).is_ok());
        }
        let closed = self.endpoint.close(&mut Egress {
            now,
            pool,
            outbox: &mut self.wire,
        });
        assert!(matches!(closed, Close::Sent(_)));
    }

    /// Takes a frame from the WAN.
    pub fn take(&mut self, frame: Recycled, now: Time, pool: &mut Pool) {
        self.wire.now = now;
        if let Err(reason) = self.try_take(frame, now, pool) {
            self.drops.count(reason);
        }
    }

    fn try_take(
        &mut self,
        mut frame: Recycled,
        now: Time,
        pool: &mut Pool,
    ) -> Result<(), DropReason> {
        let Outer::Udp(udp) = parse_outer(frame.data())? else {
            return Err(DropReason::NotForUs);
        };
        if udp.destination != self.address {
            return Err(DropReason::NotForUs);
        }
        let padding = frame.len() - udp.payload_at - udp.payload_len;
        assert!(frame.trim_back(padding) && frame.trim_front(udp.payload_at));
        let (received, header) = Received::new(frame).map_err(|(reason, _)| reason)?;
        if header.receiver_index != RECEIVER_INDEX {
            return Err(DropReason::UnknownReceiver);
        }
        if header.stream > 0 || header.path >= PATHS {
            return Err(DropReason::NotNegotiated);
        }
        let opened = received.open(&self.opens).map_err(|_| DropReason::Forged)?;
        if header.kind == Kind::Feedback {
            let mut egress = Egress {
                now,
                pool,
                outbox: &mut self.wire,
            };
            self.endpoint
                .accept_feedback(&opened, 1, now, &mut egress, &mut self.sink);
        } else {
            self.endpoint
                .accept(opened, header.stream, 1, now, pool, &mut self.sink);
        }
        Ok(())
    }

    /// Does what time brings.
    pub fn poll(&mut self, now: Time, pool: &mut Pool) {
        self.wire.now = now;
        let mut egress = Egress {
            now,
            pool,
            outbox: &mut self.wire,
        };
        self.endpoint.poll(now, &mut egress, &mut self.sink);
    }
}

fn endpoint_config(policy: Policy) -> EndpointConfig {
    EndpointConfig {
        stream: 0,
        endpoints: 1,
        paths: PATHS,
        sender: SenderConfig {
            shards_min: 1,
            shards_max: 64,
            payload_max: PAYLOAD_MAX,
            checksum: true,
        },
        recovery: RecoveryConfig {
            retransmit: true,
            repair: RepairMode::Fixed {
                every: 16,
                window: 64,
            },
            overhead_limit: 0.25,
            retention_bytes: 8 << 20,
            payload_max: PAYLOAD_MAX,
            queue_control: true,
        },
        receiver: ReceiverConfig {
            paths: PATHS,
            ordered: true,
            hold_bounds: HoldBounds::new(Duration::from_millis(5), None),
            held_frames_max: 512,
            kept_shards_max: 512,
            checksum: true,
            asks: true,
            passes_on: false,
            rebuilt_payload_max: PAYLOAD_MAX,
        },
        policy,
    }
}
