//! Sending on a port: on a queue of one's own, or through the lcore that owns the only one.

use std::collections::VecDeque;

use shardgate_dpdk::{BURST, Burst, Mbuf, Producer, TxQueue};

/// Packets that may wait for a port that takes no more. Beyond that the units' rings fill up, and
/// frames wait at the entrance.
const BACKLOG_MAX: usize = 1_024;

enum Outlet {
    Queue(TxQueue),
    Ring(Producer<Mbuf>),
}

/// One lcore's way out on one port.
pub struct Tx {
    outlet: Outlet,
    pending: Burst,
    backlog: VecDeque<Mbuf>,
    /// Packets handed to the port, or to the lcore that owns its queue.
    pub sent: u64,
    /// Packets dropped because the backlog was full.
    pub dropped: u64,
}

impl Tx {
    /// Sends on a queue of one's own.
    pub fn queue(queue: TxQueue) -> Self {
        Self::new(Outlet::Queue(queue))
    }

    /// Sends through another lcore.
    pub fn ring(ring: Producer<Mbuf>) -> Self {
        Self::new(Outlet::Ring(ring))
    }

    fn new(outlet: Outlet) -> Self {
        Self {
            outlet,
            pending: Burst::new(),
            backlog: VecDeque::with_capacity(BACKLOG_MAX),
            sent: 0,
            dropped: 0,
        }
    }

    /// How many more packets it takes without dropping any.
    #[inline]
    pub fn credit(&self) -> usize {
        BACKLOG_MAX - self.backlog.len()
    }

    /// Takes a packet, to be sent with the next burst; false if it was dropped.
    #[inline]
    pub fn push(&mut self, packet: Mbuf) -> bool {
        if self.pending.is_full() {
            self.flush();
        }
        if let Err(error) = self.pending.try_push(packet) {
            if self.backlog.len() < BACKLOG_MAX {
                self.backlog.push_back(error.element());
            } else {
                self.dropped += 1;
                return false;
            }
        }
        true
    }

    /// Sends what the port takes, oldest first.
    #[inline]
    pub fn flush(&mut self) {
        loop {
            let sent = match &mut self.outlet {
                _ if self.pending.is_empty() => return,
                Outlet::Queue(queue) => queue.burst(&mut self.pending),
                Outlet::Ring(ring) => ring.push(&mut self.pending),
            };
            self.sent += sent as u64;
            let refill = (BURST - self.pending.len()).min(self.backlog.len());
            self.pending.extend(self.backlog.drain(..refill));
            if sent == 0 || refill == 0 {
                return;
            }
        }
    }

    /// Packets not yet sent.
    pub fn waiting(&self) -> usize {
        self.pending.len() + self.backlog.len()
    }

    /// Gives up what cannot be sent; says how much.
    pub fn discard(&mut self) -> usize {
        let waiting = self.waiting();
        self.pending.clear();
        self.backlog.clear();
        self.dropped += waiting as u64;
        waiting
    }
}
