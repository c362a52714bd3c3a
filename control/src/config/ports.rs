//! The sections `[[port]]`.

use std::net::{IpAddr, Ipv4Addr};

use shardgate_core::limits::FRAME_MAX;
use shardgate_dataplane::config::{PortRole, PortSpec};

use super::WanSettings;
use super::device::{self, shared};
use super::file::{File, Port};
use super::source::{ConfigError, Source};
use super::values::{self, is_host, is_host_of, one_of, required};
use crate::limits;
use crate::network::on_link;

/// IPv4's smallest MTU that every host must take (RFC 791).
pub const MTU_MIN: u16 = 576;

/// The longest frame less an Ethernet header and two VLAN tags.
const MTU_MAX: u16 = (FRAME_MAX - 22) as u16;

const MTU_DEFAULT: u16 = 1500;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Lan,
    Wan,
}

/// Checks all ports, each by itself and against the others.
pub fn check(
    source: &Source,
    file: &File,
) -> Result<(Vec<PortSpec>, Vec<WanSettings>), ConfigError> {
    if file.port.is_empty() {
        return Err(source.error(
            "port",
            "missing: a gateway needs a [[port]] with role = \"lan\" and one with role = \"wan\"",
        ));
    }
    if file.port.len() > limits::PORTS_MAX {
        let message = format!("at most {} ports: remove some", limits::PORTS_MAX);
        return Err(source.error("port", message));
    }
    let (mut ports, mut wans) = (Vec::<PortSpec>::new(), Vec::<WanSettings>::new());
    for (at, port) in file.port.iter().enumerate() {
        let key = |name: &str| format!("port[{at}].{name}");
        let spec = check_one(source, at, port, &mut wans)?;
        for (earlier, other) in ports.iter().enumerate() {
            if other.name == spec.name {
                let message = format!(
                    "{:?} is also port[{earlier}]: give every port its own name",
                    spec.name
                );
                return Err(source.error(&key("name"), message));
            }
            if let Some(shared) = shared(&other.device, &spec.device) {
                let message = format!(
                    "{shared} is also used by port[{earlier}]: give every port its own device"
                );
                return Err(source.error(&key("device"), message));
            }
        }
        ports.push(spec);
    }
    let has = |role: Role| {
        ports
            .iter()
            .any(|port| matches!(port.role, PortRole::Lan) == (role == Role::Lan))
    };
    for (role, word) in [(Role::Lan, "lan"), (Role::Wan, "wan")] {
        if !has(role) {
            return Err(source.error("port", format!("no port has role = {word:?}: add one")));
        }
    }
    for (at, wan) in wans.iter().enumerate() {
        if wans
            .iter()
            .take(at)
            .any(|other| other.address == wan.address)
        {
            let message = format!("{} is given twice: every WAN port has its own", wan.address);
            return Err(source.error(&format!("port[{}].address", wan.port), message));
        }
    }
    Ok((ports, wans))
}

fn check_one(
    source: &Source,
    at: usize,
    port: &Port,
    wans: &mut Vec<WanSettings>,
) -> Result<PortSpec, ConfigError> {
    let key = |name: &str| format!("port[{at}].{name}");
    let name = required(
        source,
        &key("name"),
        port.name.as_ref(),
        "every port needs a name",
    )?;
    values::name(name).map_err(|message| source.error(&key("name"), message))?;
    let device = required(
        source,
        &key("device"),
        port.device.as_ref(),
        "name a PCI address or vdev arguments, as \"net_af_packet0,iface=eth0\"",
    )?;
    if port.role.is_none() {
        return Err(source.error(&key("role"), "missing: write \"lan\" or \"wan\""));
    }
    let words = [("lan", Role::Lan), ("wan", Role::Wan)];
    let role = one_of(source, &key("role"), port.role.as_ref(), Role::Lan, &words)?;
    let mtu = port.mtu.unwrap_or(MTU_DEFAULT);
    if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
        let message = format!("{mtu} does not fit: write a number from {MTU_MIN} to {MTU_MAX}");
        return Err(source.error(&key("mtu"), message));
    }
    device::check(device).map_err(|message| source.error(&key("device"), message))?;
    let role = match role {
        Role::Lan => {
            for (set, name) in [(&port.address, "address"), (&port.gateway, "gateway")] {
                if set.is_some() {
                    let message = "a LAN port has none: remove the key, or set role = \"wan\"";
                    return Err(source.error(&key(name), message));
                }
            }
            PortRole::Lan
        }
        Role::Wan => {
            let wan = check_wan(source, at, port)?;
            wans.push(wan);
            PortRole::Wan {
                address: IpAddr::V4(wan.address),
            }
        }
    };
    Ok(PortSpec {
        name: name.into(),
        device: device.into(),
        role,
        mtu,
    })
}

fn check_wan(source: &Source, at: usize, port: &Port) -> Result<WanSettings, ConfigError> {
    let key = format!("port[{at}].address");
    let text = required(
        source,
        &key,
        port.address.as_ref(),
        "a WAN port needs an address of its own, as \"10.9.0.1/24\"",
    )?;
    let wrong = || {
        let message =
            format!("{text:?} is not an address with a prefix length: write it as \"10.9.0.1/24\"");
        source.error(&key, message)
    };
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let IpAddr::V4(address) = address else {
        return Err(values::later_value(
            source,
            &key,
            "IPv6 on the WAN",
            "an IPv4 address",
        ));
    };
    let digits = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix_len: u8 = prefix.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    if !(1..=32).contains(&prefix_len) {
        return Err(wrong());
    }
    if !is_host(IpAddr::V4(address)) || !is_host_of(address, prefix_len) {
        let message =
            format!("{text} is not an address that a host can have: take another of that network");
        return Err(source.error(&key, message));
    }
    let gateway = gateway(source, at, port, address, prefix_len)?;
    Ok(WanSettings {
        port: at,
        address,
        prefix_len,
        gateway,
    })
}

fn gateway(
    source: &Source,
    at: usize,
    port: &Port,
    address: Ipv4Addr,
    prefix_len: u8,
) -> Result<Option<Ipv4Addr>, ConfigError> {
    let Some(text) = &port.gateway else {
        return Ok(None);
    };
    let key = format!("port[{at}].gateway");
    let error = |message: String| source.error(&key, message);
    let gateway: IpAddr = text.parse().map_err(|_| {
        error(format!(
            "{text:?} is not an address: write it as \"10.9.0.254\""
        ))
    })?;
    let IpAddr::V4(gateway) = gateway else {
        return Err(values::later_value(
            source,
            &key,
            "IPv6 on the WAN",
            "an IPv4 address",
        ));
    };
    if gateway == address {
        return Err(error(format!(
            "{gateway} is this port's own address: name the router's"
        )));
    }
    if !on_link(address, prefix_len, gateway) || !is_host_of(gateway, prefix_len) {
        return Err(error(format!(
            "{gateway} is not a host on this port's network {address}/{prefix_len}: correct one of the two"
        )));
    }
    Ok(Some(gateway))
}
