//! Logical cores.

use core::fmt;

/// An EAL lcore: a thread that EAL made and pinned, or the main thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LcoreId(pub u32);

impl LcoreId {
    /// The lcore that this thread is, or nothing on a thread that EAL does not know.
    pub fn current() -> Option<LcoreId> {
        // SAFETY: reads a thread-local integer.
        let id = unsafe { dpdk_sys::shim_lcore_id() };
        (id < dpdk_sys::RTE_MAX_LCORE).then_some(LcoreId(id))
    }

    /// The NUMA socket of its CPUs, or nothing if EAL does not know the lcore.
    pub fn socket(self) -> Option<u32> {
        if self.0 >= dpdk_sys::RTE_MAX_LCORE {
            return None;
        }
        // SAFETY: a table look-up, and the index is inside the table.
        let socket = unsafe { dpdk_sys::rte_lcore_to_socket_id(self.0) };
        (socket != u32::MAX).then_some(socket)
    }
}

impl fmt::Display for LcoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
