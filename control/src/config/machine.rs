//! What the kernel says about interfaces and addresses of this network namespace, about PCI devices
//! and the process's rights.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;

/// Of the interface flags in sysfs (`linux/if.h`): administratively up.
const IFF_UP: u32 = 1;

/// An interface; what could not be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// Whether it is set up.
    pub is_up: Option<bool>,
}

/// What the kernel has.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Interfaces by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// PCI addresses of devices, with domain and in lower case, if they can be read.
    pub pci: Option<BTreeSet<String>>,
    /// The process's effective capabilities, one bit each (capabilities(7)), if they can be read.
    pub capabilities: Option<u64>,
    /// Addresses that the kernel answers for.
    pub addresses: Vec<IpAddr>,
    /// The host's name, if it is a usable one.
    pub host_name: Option<String>,
}

impl Machine {
    /// Reads `/proc` and `/sys`; what cannot be read is left out, and is then not checked.
    pub fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let interfaces = interface_names(&read("/proc/net/dev"))
            .map(|name| {
                let attribute = |what: &str| read(&format!("/sys/class/net/{name}/{what}"));
                let interface = Interface {
                    mtu: attribute("mtu").trim().parse().ok(),
                    is_up: is_up(&attribute("flags")),
                };
                (name.to_owned(), interface)
            })
            .collect();
        let pci = fs::read_dir("/sys/bus/pci/devices").ok().map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect()
        });
        let mut addresses = ipv4_addresses(&read("/proc/net/fib_trie"));
        addresses.extend(ipv6_addresses(&read("/proc/net/if_inet6")));
        let host_name = read("/proc/sys/kernel/hostname").trim().to_owned();
        let host_name = (!host_name.is_empty()).then_some(host_name);
        Self {
            interfaces,
            pci,
            capabilities: effective_capabilities(&read("/proc/self/status")),
            addresses,
            host_name,
        }
    }
}

/// `/proc/net/dev`: two lines of headings, then `name: counters`.
fn interface_names(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim()))
}

/// `/sys/class/net/NAME/flags`: a hexadecimal number.
fn is_up(flags: &str) -> Option<bool> {
    let digits = flags.trim().strip_prefix("0x")?;
    Some(u32::from_str_radix(digits, 16).ok()? & IFF_UP != 0)
}

/// `/proc/self/status`: a hexadecimal number behind `CapEff:`.
fn effective_capabilities(status: &str) -> Option<u64> {
    let digits = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(digits.trim(), 16).ok()
}

/// `/proc/net/fib_trie`: an address in one line, and in the next whether it is a local host.
fn ipv4_addresses(text: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    let mut last = None;
    for line in text.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

/// `/proc/net/if_inet6`: 32 hexadecimal digits, then fields we do not need.
fn ipv6_addresses(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let digits = line.split_ascii_whitespace().next()?;
        let bits = (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok())??;
        Some(IpAddr::from(bits.to_be_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_of_proc_net_dev() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3\nwan0.5: 1 2\n";
        assert_eq!(interface_names(text).collect::<Vec<_>>(), ["lo", "wan0.5"]);
    }

    #[test]
    fn addresses_of_the_routing_trie() {
        let text = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.0.0.0
        /24 link UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
        |-- 10.0.0.5
           /32 host LOCAL
        |-- 10.0.0.255
           /32 link BROADCAST
     +-- 127.0.0.0/8 2 0 2
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
";
        let expected: Vec<IpAddr> = vec![[10, 0, 0, 5].into(), [127, 0, 0, 1].into()];
        assert_eq!(ipv4_addresses(text), expected);
    }

    #[test]
    fn addresses_of_if_inet6() {
        let text = "00000000000000000000000000000001 01 80 10 80       lo\nshort 01\n";
        let expected: Vec<IpAddr> = vec!["::1".parse().unwrap()];
        assert_eq!(ipv6_addresses(text).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn flags_and_capabilities() {
        assert_eq!(is_up("0x1003\n"), Some(true));
        assert_eq!(is_up("0x1002\n"), Some(false));
        assert_eq!(is_up(""), None);
        let status = "CapPrm:\t0000000000000000\nCapEff:\t0000000000003000\n";
        assert_eq!(effective_capabilities(status), Some(0x3000));
        assert_eq!(effective_capabilities(""), None);
    }

    #[test]
    fn this_machine_has_a_loopback_interface_and_tells_our_rights() {
        let machine = Machine::read();
        assert!(machine.interfaces.contains_key("lo"));
        assert!(machine.capabilities.is_some());
    }
}
