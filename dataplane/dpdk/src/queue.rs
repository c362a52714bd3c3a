//! The queues of a started port: where packets come in and go out.

use dpdk_sys as sys;

use crate::mbuf::{forget_front, raw_parts};
use crate::port::Port;
use crate::{BURST, Burst};

/// One rx queue of a started port; polled by one lcore at a time.
#[derive(Debug)]
pub struct RxQueue {
    port: Port,
    queue: u16,
    dropped: u64,
}

impl RxQueue {
    /// # Safety
    ///
    /// The port is started with this queue, and no other value stands for it.
    pub(crate) unsafe fn new(port: Port, queue: u16) -> Self {
        Self {
            port,
            queue,
            dropped: 0,
        }
    }

    /// Appends received frames to the burst, as many as there are and it has room for, and says how
    /// many.
    ///
    /// Every frame is in one segment and has its VLAN tag in the data, also if the driver took it
    /// out (a tag of another type than 0x8100 comes back as 0x8100: drivers do not say).
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        let len = burst.len();
        let (items, _) = raw_parts(burst);
        let mut dropped = 0;
        // SAFETY: the port is started, since queues are made by `Port::configure`, and this queue is
        // polled by nobody else: it is borrowed mutably and exists once. The burst has room for the
        // rest; the shim writes n linear mbufs that are ours, and only then does the length cover
        // them.
        let n = unsafe {
            let end = items.add(len);
            let room = (BURST - len) as u16;
            let n = sys::shim_rx_burst(self.port.id(), self.queue, end, room, &mut dropped);
            burst.set_len(len + usize::from(n));
            usize::from(n)
        };
        self.dropped += u64::from(dropped);
        n
    }

    /// Frames received but dropped since the start, because they would not fit one mbuf, or their
    /// VLAN tag not before the data.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Its port.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// Its number in the port.
    pub fn index(&self) -> u16 {
        self.queue
    }
}

/// One tx queue of a started port; used by one lcore at a time.
#[derive(Debug)]
pub struct TxQueue {
    port: Port,
    queue: u16,
}

impl TxQueue {
    /// # Safety
    ///
    /// The port is started with this queue, and no other value stands for it.
    pub(crate) unsafe fn new(port: Port, queue: u16) -> Self {
        Self { port, queue }
    }

    /// Sends from the front of the burst what the driver takes, and says how many; the others stay
    /// in the caller's hands. Never waits for room.
    ///
    /// Takes plain packets only: what is sealed says so by becoming one, and nothing else can.
    #[inline]
    pub fn burst(&mut self, burst: &mut Burst) -> usize {
        let (items, count) = raw_parts(burst);
        if count == 0 {
            return 0;
        }
        // SAFETY: as for `RxQueue::burst`; the array holds `count` mbufs of ours, the first n of which
        // belong to the driver afterwards.
        unsafe {
            let n = sys::shim_tx_burst(self.port.id(), self.queue, items, count as u16);
            let n = usize::from(n).min(count);
            forget_front(burst, n);
            n
        }
    }

    /// Its port.
    pub fn port(&self) -> &Port {
        &self.port
    }

    /// Its number in the port.
    pub fn index(&self) -> u16 {
        self.queue
    }
}
