//! One process per device: two that read one interface would each answer for the other.
//!
//! A lock is an abstract Unix socket named after the interface or the PCI address. It belongs to
//! the network namespace, as interfaces do, and goes with the process however that ends.

use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::config::device;

/// The right to use a device until it is dropped.
#[derive(Debug)]
pub struct DeviceLock {
    _socket: UnixListener,
}

impl DeviceLock {
    /// Takes the lock of a device; none is needed for one that every process has for itself. An
    /// error says what is wrong and what to do.
    pub fn take(device: &str) -> Result<Option<Self>, String> {
        let Some(name) = device::exclusive(device) else {
            return Ok(None);
        };
        match bind(&name) {
            Ok(socket) => Ok(Some(Self { _socket: socket })),
            Err(error) if error.kind() == ErrorKind::AddrInUse => Err(format!(
                "{name} is in use by another shardgate: stop that one, or name another device"
            )),
            Err(error) => Err(format!(
                "{name} cannot be locked ({}): use a device name shorter than 80 characters, and allow Unix sockets",
                crate::keys::plain(&error)
            )),
        }
    }
}

fn bind(name: &str) -> io::Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(format!("shardgate-device/{name}"))?;
    UnixListener::bind_addr(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_user_at_a_time() {
        let one = format!("net_af_packet0,iface=lock{}", std::process::id());
        let same = one.replace("packet0", "packet7");
        let lock = DeviceLock::take(&one).unwrap();
        assert!(lock.is_some());
        let error = DeviceLock::take(&same).unwrap_err();
        assert!(error.contains("in use by another shardgate"), "{error}");
        drop(lock);
        assert!(DeviceLock::take(&same).unwrap().is_some());
    }

    #[test]
    fn devices_of_one_process_need_none() {
        assert!(DeviceLock::take("net_ring0").unwrap().is_none());
    }
}
