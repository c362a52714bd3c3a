//! What can go wrong while setting up. Bursts have no errors: what did not go stays with the caller.

use core::ffi::CStr;
use std::ffi::CString;

use crate::lcore::LcoreId;

/// Why something could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// EAL can be initialised once in the life of a process, successfully or not.
    #[error("EAL was already initialised in this process")]
    EalTwice,
    /// A string for DPDK holds a NUL byte.
    #[error("{0:?} holds a NUL byte")]
    Nul(String),
    /// A DPDK call failed.
    #[error("{call} failed for {what}: {reason} ({code})")]
    Dpdk {
        /// The DPDK function.
        call: &'static str,
        /// What it was called for.
        what: String,
        /// DPDK's text for the code.
        reason: String,
        /// The error number, positive.
        code: i32,
    },
    /// The lcore is not among EAL's, or it is the main lcore, which runs nothing but its own thread.
    #[error("lcore {0} is not a worker lcore of this EAL")]
    NotAWorker(LcoreId),
    /// The closure on an lcore panicked.
    #[error("lcore {lcore} panicked: {message}")]
    LcorePanicked {
        /// The lcore it ran on.
        lcore: LcoreId,
        /// What it said.
        message: String,
    },
    /// A device string that is neither a PCI address nor vdev arguments, or has a bad argument.
    #[error("device {device:?}: {reason}")]
    BadDevice {
        /// The device string.
        device: String,
        /// What is wrong with it.
        reason: String,
    },
    /// EAL reported success, but there is no device.
    #[error("device {0:?} did not appear; the log on stderr has the driver's reason")]
    DeviceMissing(String),
    /// The device is already open in this process.
    #[error("device {0:?} is already in use")]
    DeviceInUse(String),
    /// A port is configured once.
    #[error("port {0} is already configured")]
    AlreadyConfigured(String),
    /// More queues than the driver has, or none.
    #[error("port {port}: {asked} {direction} queues asked for, the driver offers 1 to {most}")]
    Queues {
        /// The port.
        port: String,
        /// `rx` or `tx`.
        direction: &'static str,
        /// What was asked for.
        asked: usize,
        /// What there is.
        most: u16,
    },
    /// The MTU is outside what the driver, or the kernel's interface below it, can carry.
    #[error("port {port}: MTU {mtu} is outside {least} to {most}{remedy}")]
    Mtu {
        /// The port.
        port: String,
        /// The MTU asked for.
        mtu: u16,
        /// The least possible.
        least: u16,
        /// The most possible.
        most: u16,
        /// How to mend it, or nothing.
        remedy: String,
    },
    /// Frames could arrive that are larger than an mbuf of the rx pool. Some drivers would write
    /// past its end.
    #[error(
        "port {port}: frames up to {frame} bytes can arrive, but an mbuf of pool {pool} holds {room}; \
         make the mbufs larger or the MTU ({mtu}) smaller"
    )]
    MbufTooSmall {
        /// The port.
        port: String,
        /// The pool.
        pool: String,
        /// Largest frame, in bytes.
        frame: usize,
        /// Bytes an mbuf holds behind its headroom.
        room: usize,
        /// The MTU that the frame size comes from.
        mtu: u16,
    },
    /// A pool or ring of impossible size.
    #[error("{what}: {reason}")]
    BadSize {
        /// The pool or ring.
        what: String,
        /// What is wrong with its size.
        reason: String,
    },
}

impl Error {
    /// From a negative return value, or DPDK's per-thread error number if the value has none.
    pub(crate) fn dpdk(call: &'static str, what: impl Into<String>, code: i32) -> Self {
        let code = if code < -1 { -code } else { last_errno() };
        Self::Dpdk {
            call,
            what: what.into(),
            reason: strerror(code),
            code,
        }
    }

    /// From DPDK's per-thread error number, for calls that return a null pointer.
    pub(crate) fn errno(call: &'static str, what: impl Into<String>) -> Self {
        Self::dpdk(call, what, -1)
    }
}

fn last_errno() -> i32 {
    // SAFETY: reads a thread-local integer.
    unsafe { dpdk_sys::shim_errno() }
}

fn strerror(code: i32) -> String {
    // SAFETY: returns a string that is valid until this thread's next call; copied at once.
    let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(code)) };
    text.to_string_lossy().into_owned()
}

/// A string for DPDK.
pub(crate) fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Nul(text.to_owned()))
}
