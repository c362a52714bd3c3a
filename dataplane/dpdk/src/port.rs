//! Ports and their queues.

use core::ffi::{CStr, c_int};
use core::fmt;
use core::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dpdk_sys as sys;

use crate::af_packet::sockets::{Snapshot, Sockets};
use crate::af_packet::{self, AfPacket};
use crate::eal::{Eal, EalInner};
use crate::error::{Error, c_string};
use crate::pool::Pool;
use crate::queue::{RxQueue, TxQueue};

/// What a driver says about a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortInfo {
    /// The driver, for example `net_af_packet`.
    pub driver: String,
    /// Most rx queues it opens.
    pub max_rx_queues: u16,
    /// Most tx queues it opens.
    pub max_tx_queues: u16,
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Least MTU, in bytes of payload of an Ethernet frame.
    pub min_mtu: u16,
    /// Most MTU; for af_packet what the kernel's interface is set to.
    pub max_mtu: u16,
    /// NUMA node, if it has one.
    pub socket: Option<u32>,
}

/// How a port is started.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// One pool for each rx queue; their number is the number of rx queues.
    pub rx_pools: Vec<Pool>,
    /// Number of tx queues.
    pub tx_queues: usize,
    /// Descriptors of an rx queue; brought to what the driver can do. Virtual devices ignore it.
    pub rx_descriptors: u16,
    /// Descriptors of a tx queue, likewise.
    pub tx_descriptors: u16,
    /// Largest payload of an Ethernet frame.
    pub mtu: u16,
    /// Receive frames for every address.
    pub promiscuous: bool,
}

/// Counters of a port since it started, as the driver keeps them. They only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub ipackets: u64,
    /// Frames sent.
    pub opackets: u64,
    /// Bytes received.
    pub ibytes: u64,
    /// Bytes sent.
    pub obytes: u64,
    /// Frames the device dropped because no descriptor was free.
    pub imissed: u64,
    /// Frames received with an error.
    pub ierrors: u64,
    /// Frames that could not be sent.
    pub oerrors: u64,
    /// Times an rx queue found its pool empty.
    pub rx_nombuf: u64,
}

/// A device, open but perhaps not started yet. It is stopped and closed when this and all its
/// queues are gone.
#[derive(Clone)]
pub struct Port(Arc<PortInner>);

/// How the device came to be, and so how it goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Found by EAL's scan at start; EAL removes it.
    Scanned,
    /// Added by us, on this bus.
    Added(&'static CStr),
}

struct PortInner {
    id: u16,
    /// EAL's name of the device.
    name: String,
    origin: Origin,
    af_packet: Option<AfPacket>,
    sockets: Option<Sockets>,
    /// The pools of its rx queues, once it is configured: the driver takes mbufs from them until the
    /// port is closed. Also the lock of everything that changes the port.
    pools: Mutex<Option<Vec<Pool>>>,
    eal: Arc<EalInner>,
}

impl Port {
    /// Opens a device: a PCI address (`0000:01:00.0`), or a vdev's name and arguments
    /// (`net_tap0,iface=lan0`).
    ///
    /// For af_packet, ring geometry that fits the interface's MTU is added
    /// ([`AfPacket::with_geometry`]), and frames are received as they are on the wire: the driver by
    /// itself would have the kernel put IPv4 fragments together, and cut what is then too long.
    ///
    /// # Errors
    ///
    /// [`Error::BadDevice`], [`Error::DeviceInUse`], [`Error::Dpdk`] if the driver refuses, and
    /// [`Error::DeviceMissing`] if it fails without saying so.
    pub fn create(eal: &Eal, device: &str) -> Result<Port, Error> {
        let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
        if name.is_empty() {
            return Err(Error::BadDevice {
                device: device.to_owned(),
                reason: "it needs a PCI address, or a vdev's name and arguments".to_owned(),
            });
        }
        let af_packet = match AfPacket::parse(device)? {
            Some(parsed) => Some(parsed.with_geometry(parsed.kernel_mtu()?)?),
            None => None,
        };
        let arguments = match &af_packet {
            Some(whole) => whole.devargs().split_once(',').map(|(_, a)| a.to_owned()),
            None => Some(arguments.to_owned()),
        };
        let eal = eal.inner();
        eal.claim(name)?;
        // The sockets of an af_packet port are known by not having been there before.
        static OPENING: Mutex<()> = Mutex::new(());
        let opening = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Snapshot::take().map_err(|error| Error::BadDevice {
            device: device.to_owned(),
            reason: format!("cannot list this process's sockets: {error}"),
        })?;
        let (id, origin) = open(name, &arguments.unwrap_or_default(), af_packet.is_some())
            .inspect_err(|_| eal.release(name))?;
        // From here on an early return closes it.
        let mut inner = PortInner {
            id,
            name: name.to_owned(),
            origin,
            af_packet,
            sockets: None,
            pools: Mutex::new(None),
            eal,
        };
        if let Some(device) = &inner.af_packet {
            let sockets = Sockets::replace(&before, device.iface(), &device.geometry()?)
                .map_err(|error| device.bad(format!("its sockets: {error}")))?;
            inner.sockets = Some(sockets);
        }
        drop(opening);
        Ok(Port(Arc::new(inner)))
    }

    /// The device's name: its PCI address, or the vdev's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// DPDK's index of it, as in [`crate::Mbuf::port`].
    pub fn id(&self) -> u16 {
        self.0.id
    }

    /// What the driver says about it.
    ///
    /// # Errors
    ///
    /// [`Error::Dpdk`]; for af_packet, [`Error::BadDevice`] if the interface is gone.
    pub fn info(&self) -> Result<PortInfo, Error> {
        let mut info = MaybeUninit::uninit();
        // SAFETY: on success the whole structure is written.
        let info = unsafe {
            self.check(
                "rte_eth_dev_info_get",
                sys::shim_port_info(self.0.id, info.as_mut_ptr()),
            )?;
            info.assume_init()
        };
        let mut mac = sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: `mac` outlives the call.
        let code = unsafe { sys::rte_eth_macaddr_get(self.0.id, &mut mac) };
        self.check("rte_eth_macaddr_get", code)?;
        // SAFETY: a look-up; the driver's name is a static string.
        let (socket, driver) = unsafe {
            (
                sys::rte_eth_dev_socket_id(self.0.id),
                CStr::from_ptr(info.driver_name),
            )
        };
        /// Ethernet header and frame check sequence, which drivers count.
        const FRAME: u32 = 14 + 4;
        let largest = u16::try_from(info.max_rx_pktlen.saturating_sub(FRAME)).unwrap_or(u16::MAX);
        Ok(PortInfo {
            driver: driver.to_string_lossy().into_owned(),
            max_rx_queues: info.max_rx_queues,
            max_tx_queues: info.max_tx_queues,
            mac: mac.addr_bytes,
            min_mtu: info.min_mtu,
            max_mtu: match &self.0.af_packet {
                // The driver of 22.11 says 1500 whatever the interface can do.
                Some(device) => device.kernel_mtu()?,
                None => info.max_mtu.min(largest),
            },
            socket: u32::try_from(socket).ok(),
        })
    }

    /// Configures and starts the port, once, and hands out its queues.
    ///
    /// Flows are spread over several rx queues if the device can do that. No offload is on. A device
    /// that has no promiscuous mode to switch ([`Port::promiscuous`] tells) is accepted: virtual
    /// ones without it receive everything.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyConfigured`], [`Error::Queues`], [`Error::Mtu`], [`Error::MbufTooSmall`], and
    /// [`Error::Dpdk`] with the call that failed.
    pub fn configure(&self, config: &PortConfig) -> Result<(Vec<RxQueue>, Vec<TxQueue>), Error> {
        let inner = &*self.0;
        let mut pools = inner.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.is_some() {
            return Err(Error::AlreadyConfigured(inner.name.clone()));
        }
        let info = self.info()?;
        let rx_queues = self.queues("rx", config.rx_pools.len(), info.max_rx_queues)?;
        let tx_queues = self.queues("tx", config.tx_queues, info.max_tx_queues)?;
        self.check_mtu(config, &info)?;
        self.check_mbufs(config)?;

        // The driver gets hold of the pools from here on, even if a later step fails.
        *pools = Some(config.rx_pools.clone());
        self.set_up(config, &info, rx_queues, tx_queues)?;

        // SAFETY: the port is started with these queues, and this happens once.
        let rx = (0..rx_queues).map(|queue| unsafe { RxQueue::new(self.clone(), queue) });
        // SAFETY: as above.
        let tx = (0..tx_queues).map(|queue| unsafe { TxQueue::new(self.clone(), queue) });
        Ok((rx.collect(), tx.collect()))
    }

    fn set_up(
        &self,
        config: &PortConfig,
        info: &PortInfo,
        rx_queues: u16,
        tx_queues: u16,
    ) -> Result<(), Error> {
        let id = self.0.id;
        // The af_packet driver's own MTU is bounded by 1500, and setting it sets the kernel's: that is
        // the operator's, and `check_mtu` has looked at it.
        let own_mtu = self.0.af_packet.is_none();
        let mtu = if own_mtu {
            config.mtu
        } else {
            config.mtu.min(1500)
        };
        // SAFETY: plain values; the port is open and not started.
        let code = unsafe { sys::shim_port_configure(id, rx_queues, tx_queues, mtu) };
        self.check("rte_eth_dev_configure", code)?;
        if own_mtu {
            // SAFETY: plain values; the port is configured.
            let code = unsafe { sys::rte_eth_dev_set_mtu(id, mtu) };
            self.check_unless_unsupported("rte_eth_dev_set_mtu", code)?;
        }
        let (mut rx_descriptors, mut tx_descriptors) =
            (config.rx_descriptors, config.tx_descriptors);
        // SAFETY: both numbers outlive the call.
        let code = unsafe {
            sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &mut rx_descriptors, &mut tx_descriptors)
        };
        self.check("rte_eth_dev_adjust_nb_rx_tx_desc", code)?;
        let socket = info.socket.unwrap_or(0);
        for (queue, pool) in (0..rx_queues).zip(&config.rx_pools) {
            // SAFETY: null stands for the driver's defaults; the pool outlives the port, which
            // holds a share of it.
            let code = unsafe {
                sys::rte_eth_rx_queue_setup(
                    id,
                    queue,
                    rx_descriptors,
                    socket,
                    core::ptr::null(),
                    pool.as_ptr(),
                )
            };
            self.check("rte_eth_rx_queue_setup", code)?;
        }
        for queue in 0..tx_queues {
            // SAFETY: null stands for the driver's defaults.
            let code = unsafe {
                sys::rte_eth_tx_queue_setup(id, queue, tx_descriptors, socket, core::ptr::null())
            };
            self.check("rte_eth_tx_queue_setup", code)?;
        }
        // SAFETY: all queues are set up.
        self.check("rte_eth_dev_start", unsafe { sys::rte_eth_dev_start(id) })?;
        if config.promiscuous {
            // SAFETY: the port is started.
            let code = unsafe { sys::rte_eth_promiscuous_enable(id) };
            self.check_unless_unsupported("rte_eth_promiscuous_enable", code)?;
        }
        Ok(())
    }

    /// Its counters.
    ///
    /// # Errors
    ///
    /// [`Error::Dpdk`] if the driver has none.
    pub fn stats(&self) -> Result<PortStats, Error> {
        let mut stats = MaybeUninit::uninit();
        // SAFETY: on success the whole structure is written.
        let stats = unsafe {
            self.check(
                "rte_eth_stats_get",
                sys::shim_port_stats(self.0.id, stats.as_mut_ptr()),
            )?;
            stats.assume_init()
        };
        Ok(PortStats {
            ipackets: stats.ipackets,
            opackets: stats.opackets,
            ibytes: stats.ibytes,
            obytes: stats.obytes,
            imissed: stats.imissed + self.0.sockets.as_ref().map_or(0, Sockets::missed),
            ierrors: stats.ierrors,
            oerrors: stats.oerrors,
            rx_nombuf: stats.rx_nombuf,
        })
    }

    /// True if the driver says that the link is up. af_packet says so from its start to its stop,
    /// whatever the interface does.
    pub fn link_up(&self) -> bool {
        // SAFETY: a look-up.
        unsafe { sys::shim_port_link_up(self.0.id) == 1 }
    }

    /// True if it receives frames for every address.
    pub fn promiscuous(&self) -> bool {
        // SAFETY: a look-up.
        unsafe { sys::rte_eth_promiscuous_get(self.0.id) == 1 }
    }

    fn check(&self, call: &'static str, code: c_int) -> Result<(), Error> {
        if code == 0 {
            Ok(())
        } else {
            Err(Error::dpdk(call, format!("port {}", self.0.name), code))
        }
    }

    fn check_unless_unsupported(&self, call: &'static str, code: c_int) -> Result<(), Error> {
        const ENOTSUP: c_int = 95;
        if code == -ENOTSUP {
            Ok(())
        } else {
            self.check(call, code)
        }
    }

    fn queues(&self, direction: &'static str, asked: usize, most: u16) -> Result<u16, Error> {
        u16::try_from(asked)
            .ok()
            .filter(|asked| (1..=most).contains(asked))
            .ok_or_else(|| Error::Queues {
                port: self.0.name.clone(),
                direction,
                asked,
                most,
            })
    }

    fn check_mtu(&self, config: &PortConfig, info: &PortInfo) -> Result<(), Error> {
        if (info.min_mtu..=info.max_mtu).contains(&config.mtu) {
            return Ok(());
        }
        let remedy = self
            .0
            .af_packet
            .as_ref()
            .map_or_else(String::new, |device| {
                format!(": ip link set {} mtu {}", device.iface(), config.mtu)
            });
        Err(Error::Mtu {
            port: self.0.name.clone(),
            mtu: config.mtu,
            least: info.min_mtu,
            most: info.max_mtu,
            remedy,
        })
    }

    fn check_mbufs(&self, config: &PortConfig) -> Result<(), Error> {
        let frame = usize::from(config.mtu) + af_packet::FRAME_OVERHEAD;
        for pool in &config.rx_pools {
            if let Some(device) = &self.0.af_packet {
                device.check_mbuf(device.kernel_mtu()?, pool.name(), pool.room())?;
            }
            if frame > pool.room() {
                return Err(Error::MbufTooSmall {
                    port: self.0.name.clone(),
                    pool: pool.name().to_owned(),
                    frame,
                    room: pool.room(),
                    mtu: config.mtu,
                });
            }
        }
        Ok(())
    }
}

/// Finds the device, or has EAL add it and looks whether it is there.
fn open(name: &str, arguments: &str, retry: bool) -> Result<(u16, Origin), Error> {
    let c_name = c_string(name)?;
    let c_arguments = c_string(arguments)?;
    let find = || {
        let mut id = 0;
        // SAFETY: the name and the number outlive the call.
        let code = unsafe { sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut id) };
        (code == 0).then_some(id)
    };
    if let Some(id) = find() {
        return Ok((id, Origin::Scanned));
    }
    let bus = if is_pci_address(name) {
        c"pci"
    } else {
        c"vdev"
    };
    // While another process opens or closes an af_packet port, its fanout group can have the number
    // that the driver picks here, and the kernel refuses (EINVAL); the driver does not say why.
    let attempts = if retry { 5 } else { 1 };
    let mut code = 0;
    for attempt in 0..attempts {
        if attempt > 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        // SAFETY: strings that outlive the call.
        code = unsafe {
            sys::rte_eal_hotplug_add(bus.as_ptr(), c_name.as_ptr(), c_arguments.as_ptr())
        };
        if code == 0 {
            break;
        }
    }
    if code != 0 {
        return Err(Error::dpdk(
            "rte_eal_hotplug_add",
            format!("{name},{arguments}"),
            code,
        ));
    }
    find()
        .map(|id| (id, Origin::Added(bus)))
        .ok_or_else(|| Error::DeviceMissing(format!("{name},{arguments}")))
}

/// `[domain:]bus:device.function`, in hexadecimal.
fn is_pci_address(name: &str) -> bool {
    let Some((rest, function)) = name.rsplit_once('.') else {
        return false;
    };
    let parts: Vec<&str> = rest.split(':').collect();
    matches!(parts.len(), 2 | 3)
        && parts
            .iter()
            .chain([&function])
            .all(|part| u32::from_str_radix(part, 16).is_ok())
}

impl Drop for PortInner {
    fn drop(&mut self) {
        // Nobody is left to tell about an error, and there is nothing else to try.
        // SAFETY: the port's queues are gone, since each holds a share of this value. Stopping a port
        // that is not started does nothing.
        unsafe {
            sys::rte_eth_dev_stop(self.id);
            sys::rte_eth_dev_close(self.id);
        }
        if let (Origin::Added(bus), Ok(name)) = (self.origin, c_string(&self.name)) {
            // SAFETY: strings that outlive the call; the device is closed.
            unsafe { sys::rte_eal_hotplug_remove(bus.as_ptr(), name.as_ptr()) };
        }
        self.eal.release(&self.name);
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port")
            .field("id", &self.0.id)
            .field("name", &self.0.name)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::is_pci_address;

    #[test]
    fn pci_addresses_are_told_from_vdevs() {
        for name in ["0000:01:00.0", "01:00.1", "0001:af:1f.7"] {
            assert!(is_pci_address(name), "{name}");
        }
        for name in [
            "net_tap0",
            "net_af_packet0",
            "",
            ".",
            ":.",
            "0000:01:00",
            "x:00.0",
        ] {
            assert!(!is_pci_address(name), "{name}");
        }
    }
}
