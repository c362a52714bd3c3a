//! What the targets with endpoints share: how an endpoint is made, what leaves it, and what holds
//! for its account.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use shardgate_core::buffer::Buffer;
use shardgate_core::endpoint::{
    Endpoint, EndpointConfig, Outbox, PathView, RecoveryConfig, RepairMode,
};
use shardgate_core::path_mtu::PathLimit;
use shardgate_core::predict::HoldBounds;
use shardgate_core::receiver::ReceiverConfig;
use shardgate_core::seal::Unsealed;
use shardgate_core::sender::SenderConfig;
use shardgate_core::wire::OVERHEAD_IPV4;
use shardgate_core::wire::header::{Kind, TAG_LEN};
use shardgate_core::wire::shard::{FLAG_REPAIR, FLAG_REPEAT};

use crate::script::Script;
use crate::world::{Counted, MS, receiver_config};

pub const PAYLOAD_MAX: usize = 1_414;
/// What a path's budget is filled with at first.
const BUDGET_FIRST: u64 = 64 * 1_024;

/// What leaves: counted, and no number twice.
#[derive(Default)]
pub struct Wire {
    pub credit: usize,
    pub key: u32,
    numbers: HashSet<(u8, u8, u8, u64)>,
    /// The last data datagrams: path and number.
    pub data: Vec<(u8, u64)>,
    pub datagrams: usize,
    pub messages: usize,
    /// Bytes of data that are no first transmission, sealed.
    pub added: u64,
    /// Plaintext bytes of the longest message since this was reset.
    pub longest_message: usize,
}

impl Outbox<Counted> for Wire {
    fn credit(&self) -> usize {
        self.credit
    }

    fn send(&mut self, datagram: Unsealed<Counted>) {
        self.note(&datagram);
    }
}

impl Wire {
    /// Checks and counts a datagram.
    pub fn note(&mut self, datagram: &Unsealed<Counted>) {
        let header = datagram.header().expect("it has a header");
        assert!(self.credit > 0, "sent without credit");
        self.credit -= 1;
        assert_eq!(
            header.receiver_index, self.key,
            "numbered under another key"
        );
        let nonce = (
            header.kind as u8,
            header.stream,
            header.path,
            header.path_number,
        );
        assert!(self.numbers.insert(nonce), "a nonce twice: {nonce:?}");
        assert!(datagram.buffer().tailroom() >= TAG_LEN);
        self.datagrams += 1;
        let plaintext = datagram.plaintext();
        if header.kind == Kind::Feedback {
            self.messages += 1;
            self.longest_message = self.longest_message.max(plaintext.len());
            return;
        }
        self.data.push((header.path, header.path_number));
        if plaintext[0] & (FLAG_REPAIR | FLAG_REPEAT) != 0 {
            self.added += (datagram.buffer().len() + TAG_LEN) as u64;
        }
    }
}

/// A path to an IPv4 peer with so much payload at the most; how much it carries is to be found.
pub fn path_limit(payload_max: usize) -> PathLimit {
    let mtu = u16::try_from(payload_max + OVERHEAD_IPV4).expect("it fits a packet");
    PathLimit::new(mtu, Ipv4Addr::LOCALHOST.into())
}

/// What an endpoint is made from, by a script.
pub fn config(script: &mut Script<'_>) -> EndpointConfig {
    let (receiver, policy): (ReceiverConfig, _) = receiver_config(script, PAYLOAD_MAX);
    let (habits, every, window) = (script.u8(), script.u8(), script.u8());
    let payload_max = [PAYLOAD_MAX, 600, 300, 256][usize::from(habits & 3)];
    EndpointConfig {
        stream: 0,
        endpoints: 1,
        paths: receiver.paths,
        sender: SenderConfig {
            shards_min: 1 + usize::from(habits >> 2 & 1) * 3,
            shards_max: 64,
            payload_max,
            checksum: true,
        },
        recovery: RecoveryConfig {
            retransmit: habits & 8 == 0,
            repair: match habits >> 4 & 3 {
                0 => RepairMode::Auto,
                1 => RepairMode::Off,
                _ => RepairMode::Fixed { every, window },
            },
            overhead_limit: [0.25, 0.05, 1.0, 0.0][usize::from(habits >> 6)],
            retention_bytes: 64 * 1_024,
            payload_max: PAYLOAD_MAX,
            queue_control: every & 1 == 0,
        },
        receiver: ReceiverConfig {
            hold_bounds: HoldBounds::new(MS * 5, None),
            ..receiver
        },
        policy,
    }
}

/// Added bytes within the budget, by the endpoint's own account: what the path may have carried at
/// the most is what was sent.
pub fn is_within_budget(endpoint: &Endpoint<Counted>, config: &EndpointConfig) {
    let stats = endpoint.outbound_stats();
    let added = stats.repeat_bytes + stats.repair_bytes + stats.tail_bytes;
    let limit = config.recovery.overhead_limit;
    let first = if limit > 0.0 { BUDGET_FIRST } else { 0 };
    let earned = (stats.source_bytes + added) as f64 * limit;
    let paths = u64::from(config.paths);
    assert!(
        added <= paths * (first + 1) + earned as u64,
        "added {added}: {stats:?}"
    );
}

/// Estimates are numbers, and in their ranges.
pub fn is_plausible(view: PathView) {
    let share = |value: f64| (0.0..=1.0).contains(&value);
    assert!(view.loss_rate.is_none_or(share), "{view:?}");
    assert!(
        view.loss_burst
            .is_none_or(|burst| burst.is_finite() && burst >= 1.0),
        "{view:?}"
    );
    let frequency = |events: f64| events.is_finite() && events >= 0.0;
    assert!(
        view.loss_events_per_second.is_none_or(frequency),
        "{view:?}"
    );
    assert!(view.queue_gradient.is_none_or(f64::is_finite), "{view:?}");
    assert!(view.lost_late <= view.lost, "{view:?}");
    assert_eq!(view.rtt_smoothed.is_some(), view.rtt_count > 0);
    // A round trip longer than that is none.
    assert!(
        view.rtt_smoothed.is_none_or(|rtt| rtt <= MS * 30_000),
        "{view:?}"
    );
}
