//! What the kernel of this network namespace says about its interfaces and addresses.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

/// Interfaces and addresses that the kernel has.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Interfaces by name, with the MTU where it can be read.
    pub interfaces: BTreeMap<String, Option<u32>>,
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
                let mtu = read(&format!("/sys/class/net/{name}/mtu"))
                    .trim()
                    .parse()
                    .ok();
                (name.to_owned(), mtu)
            })
            .collect();
        let mut addresses = ipv4_addresses(&read("/proc/net/fib_trie"));
        addresses.extend(ipv6_addresses(&read("/proc/net/if_inet6")));
        let host_name = read("/proc/sys/kernel/hostname").trim().to_owned();
        let host_name = (!host_name.is_empty()).then_some(host_name);
        Self {
            interfaces,
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
    fn this_machine_has_a_loopback_interface() {
        assert!(Machine::read().interfaces.contains_key("lo"));
    }
}
