//! How an rx lcore reaches the crypto units: its own, or those on other lcores over SPSC rings.

use shardgate_core::seal::{Opened, Received, Unsealed};
use shardgate_dpdk::{BURST, Burst, Mbuf, Producer, RingItem};

use super::tx::Tx;
use super::unit::Unit;

/// Rings to the same stage of several lcores, served round robin.
pub struct RoundRobin<T: RingItem> {
    rings: Vec<(Producer<T>, Burst<T>)>,
    next: usize,
}

impl<T: RingItem> RoundRobin<T> {
    /// Serves these rings in turn.
    pub fn new(rings: Vec<Producer<T>>) -> Self {
        Self {
            rings: rings.into_iter().map(|ring| (ring, Burst::new())).collect(),
            next: 0,
        }
    }

    /// How many more packets can be handed over without any finding its ring full.
    #[inline]
    fn credit(&self) -> usize {
        let room =
            |(ring, burst): &(Producer<T>, Burst<T>)| ring.free().saturating_sub(burst.len());
        self.rings.iter().map(room).min().unwrap_or(0) * self.rings.len()
    }

    /// Hands a packet to the next unit. The caller has reserved credit for it.
    #[inline]
    fn push(&mut self, packet: T) {
        let index = self.next;
        self.next = if index + 1 == self.rings.len() {
            0
        } else {
            index + 1
        };
        let (ring, burst) = &mut self.rings[index];
        if burst.is_full() {
            ring.push(burst);
        }
        burst.push(packet);
    }

    #[inline]
    fn flush(&mut self) {
        for (ring, burst) in &mut self.rings {
            if !burst.is_empty() {
                ring.push(burst);
            }
        }
    }
}

/// The crypto units as an rx lcore sees them.
pub enum Units {
    /// It is one itself.
    Inline(Box<Unit>),
    /// They run on lcores of their own.
    Lcores {
        /// Where shards go to be sealed.
        seal: RoundRobin<Unsealed<Mbuf>>,
        /// Where datagrams go to be opened.
        open: RoundRobin<Received<Mbuf>>,
    },
}

impl Units {
    /// How many shards can be handed over now.
    #[inline]
    pub fn seal_credit(&self, tx: &[Option<Tx>], wan_ports: &[usize]) -> usize {
        match self {
            Units::Inline(_) => {
                let credit = |port: &usize| tx.get(*port)?.as_ref().map(Tx::credit);
                wan_ports.iter().filter_map(credit).min().unwrap_or(0)
            }
            Units::Lcores { seal, .. } => seal.credit(),
        }
    }

    /// Hands over a shard to be sealed and sent. The caller has reserved credit for it.
    #[inline]
    pub fn seal(&mut self, shard: Unsealed<Mbuf>, tx: &mut [Option<Tx>]) {
        match self {
            Units::Inline(unit) => {
                if let Some((port, datagram)) = unit.seal(shard)
                    && let Some(Some(tx)) = tx.get_mut(port)
                {
                    tx.push(datagram);
                }
            }
            Units::Lcores { seal, .. } => seal.push(shard),
        }
    }

    /// Whether a burst of datagrams can be handed over now.
    #[inline]
    pub fn can_open_burst(&self) -> bool {
        match self {
            Units::Inline(_) => true,
            Units::Lcores { open, .. } => open.credit() >= BURST,
        }
    }

    /// Hands over a datagram to be opened; an inline unit returns it with the rx lcore it goes to.
    #[inline]
    pub fn open(&mut self, datagram: Received<Mbuf>) -> Option<(usize, Opened<Mbuf>)> {
        match self {
            Units::Inline(unit) => unit.open(datagram),
            Units::Lcores { open, .. } => {
                open.push(datagram);
                None
            }
        }
    }

    /// Hands over what was gathered for each unit.
    #[inline]
    pub fn flush(&mut self) {
        if let Units::Lcores { seal, open } = self {
            seal.flush();
            open.flush();
        }
    }
}
