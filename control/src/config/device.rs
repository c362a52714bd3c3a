//! Device strings: PCI addresses, and vdev arguments such as `net_af_packet0,iface=lan0`.

/// The drivers of virtual ports that a gateway can use. DPDK takes what follows as a part of the
/// device's name.
const DRIVERS: [&str; 7] = [
    "net_af_packet",
    "net_af_xdp",
    "net_memif",
    "net_null",
    "net_pcap",
    "net_ring",
    "net_tap",
];

/// Checks what can be seen from the text alone.
pub fn check(device: &str) -> Result<(), String> {
    if is_pci_address(device) {
        return Ok(());
    }
    let name = name(device);
    if !name.starts_with("net_") || !device.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!(
            "{device:?} is neither a PCI address (0000:01:00.0) nor arguments of a net_ vdev (net_af_packet0,iface=eth0)"
        ));
    }
    if !DRIVERS.iter().any(|driver| name.starts_with(driver)) {
        return Err(format!(
            "{name:?} is of no driver known here: use {} or a PCI address",
            DRIVERS.join(", ")
        ));
    }
    if is_on_interface(device) && argument(device, "iface").is_none() {
        return Err(format!("{device:?} names no interface: append iface=NAME"));
    }
    Ok(())
}

/// The kernel's interface that a device works on.
pub fn interface(device: &str) -> Option<&str> {
    argument(device, "iface").filter(|_| is_on_interface(device))
}

/// Whether it is opened through the kernel, which asks for rights.
pub fn is_kernel_backed(device: &str) -> bool {
    is_on_interface(device) || name(device).starts_with("net_tap")
}

/// What only one process of a network namespace can have: the interface, or the PCI device.
/// Rings, null devices and the like are each process's own.
pub fn exclusive(device: &str) -> Option<String> {
    if is_pci_address(device) {
        return Some(pci_address(device));
    }
    is_kernel_backed(device).then(|| argument(device, "iface").unwrap_or(name(device)).to_owned())
}

/// A PCI address with its domain, in lower case, as in sysfs.
pub fn pci_address(text: &str) -> String {
    let long = if text.len() < 12 {
        format!("0000:{text}")
    } else {
        text.to_owned()
    };
    long.to_lowercase()
}

/// `domain:bus:device.function`, the domain may be left out.
pub fn is_pci_address(text: &str) -> bool {
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let Some((front, function)) = text.split_once('.') else {
        return false;
    };
    let parts: Vec<_> = front.split(':').collect();
    let front = match parts.as_slice() {
        [bus, device] => hex(bus, 2) && hex(device, 2),
        [domain, bus, device] => hex(domain, 4) && hex(bus, 2) && hex(device, 2),
        _ => false,
    };
    front && matches!(function.as_bytes(), [b'0'..=b'7'])
}

/// What two devices have in common that only one can have.
pub fn shared(one: &str, other: &str) -> Option<String> {
    let pci = |text: &str| is_pci_address(text).then(|| pci_address(text));
    if one == other || pci(one).is_some_and(|one| pci(other) == Some(one)) {
        return Some(format!("{one:?}"));
    }
    if name(one) == name(other) {
        return Some(format!("the device name {:?}", name(one)));
    }
    let interface = argument(one, "iface")?;
    (argument(other, "iface") == Some(interface)).then(|| format!("interface {interface:?}"))
}

fn is_on_interface(device: &str) -> bool {
    let name = name(device);
    name.starts_with("net_af_packet") || name.starts_with("net_af_xdp")
}

fn name(device: &str) -> &str {
    device.split(',').next().unwrap_or_default()
}

fn argument<'a>(device: &'a str, name: &str) -> Option<&'a str> {
    device
        .split(',')
        .skip(1)
        .find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses() {
        for good in ["0000:01:00.0", "01:00.7", "0000:AF:1f.1"] {
            assert!(is_pci_address(good), "{good}");
        }
        for wrong in [
            "",
            "01:00",
            "01:00.8",
            "1:00.0",
            "0000:01:00.0 ",
            "x:01:00.0",
        ] {
            assert!(!is_pci_address(wrong), "{wrong}");
        }
    }

    #[test]
    fn devices_that_are_one() {
        let shared = |one, other| shared(one, other).is_some();
        assert!(shared("01:00.0", "0000:01:00.0"));
        assert!(shared("0000:AF:00.0", "0000:af:00.0"));
        assert!(shared("net_tap0", "net_tap0,iface=x"));
        assert!(shared("net_af_packet0,iface=x", "net_af_packet1,iface=x"));
        assert!(!shared("net_af_packet0,iface=x", "net_af_packet1,iface=y"));
        assert!(!shared("01:00.0", "01:00.1"));
    }

    #[test]
    fn what_one_process_has_for_itself() {
        let exclusive = |device| exclusive(device);
        assert_eq!(exclusive("AF:00.0").as_deref(), Some("0000:af:00.0"));
        assert_eq!(
            exclusive("net_af_packet3,iface=wan0").as_deref(),
            Some("wan0")
        );
        assert_eq!(exclusive("net_tap0,iface=t7").as_deref(), Some("t7"));
        assert_eq!(exclusive("net_tap0").as_deref(), Some("net_tap0"));
        assert_eq!(exclusive("net_ring0"), None);
        assert_eq!(exclusive("net_null0"), None);
    }

    #[test]
    fn every_driver_is_known_with_a_number_behind() {
        for driver in DRIVERS {
            assert_eq!(check(&format!("{driver}0,iface=x")), Ok(()));
        }
        assert!(check("net_ixgbe0").is_err());
        assert!(check("net_").is_err());
    }
}
