//! The sections `[[peer]]` and `[[peer.path]]`.

use std::net::{IpAddr, SocketAddr};

use shardgate_dataplane::config::{PeerSpec, PortRole, PortSpec};
use zeroize::Zeroizing;

use super::file::{File, Path, Peer};
use super::ports::MTU_MIN;
use super::source::{ConfigError, Source};
use super::values::{self, is_host, later_value, required};
use super::{WanSettings, read_key};
use crate::network::on_link;
use crate::session::PeerSettings;
use crate::{keys, limits};

/// Checks all peers, each by itself and against the others.
pub fn check(
    source: &Source,
    file: &File,
    ports: &[PortSpec],
    wans: &[WanSettings],
    own_key: &[u8; 32],
) -> Result<(Vec<PeerSpec>, Vec<PeerSettings>), ConfigError> {
    if file.peer.is_empty() {
        return Err(source.error("peer", "missing: a gateway needs a [[peer]] to talk to"));
    }
    if file.peer.len() > limits::PEERS_MAX {
        let message = format!("at most {} peers: remove some", limits::PEERS_MAX);
        return Err(source.error("peer", message));
    }
    let (mut specs, mut settings) = (Vec::<PeerSpec>::new(), Vec::<PeerSettings>::new());
    for (at, peer) in file.peer.iter().enumerate() {
        let key = |name: &str| format!("peer[{at}].{name}");
        let (spec, one) = check_one(source, at, peer, ports, wans)?;
        if one.public_key == *own_key {
            let message = "this is the gateway's own public key: write the peer's";
            return Err(source.error(&key("public_key"), message));
        }
        for (earlier, (other, known)) in specs.iter().zip(&settings).enumerate() {
            if other.name == spec.name {
                let message = format!(
                    "{:?} is also peer[{earlier}]: give every peer its own name",
                    spec.name
                );
                return Err(source.error(&key("name"), message));
            }
            if known.public_key == one.public_key {
                let message =
                    format!("this is also the key of peer[{earlier}]: every peer has its own");
                return Err(source.error(&key("public_key"), message));
            }
            if other.lan == spec.lan {
                let message = format!(
                    "peer[{earlier}] is joined to that LAN port already: a LAN port takes one peer, name another port"
                );
                return Err(source.error(&key("lan"), message));
            }
            if one.remote.is_some() && known.remote == one.remote && known.port == one.port {
                let message =
                    format!("peer[{earlier}] has the same address: correct one of the two");
                return Err(source.error(&key("path[0].remote"), message));
            }
        }
        specs.push(spec);
        settings.push(one);
    }
    Ok((specs, settings))
}

fn check_one(
    source: &Source,
    at: usize,
    peer: &Peer,
    ports: &[PortSpec],
    wans: &[WanSettings],
) -> Result<(PeerSpec, PeerSettings), ConfigError> {
    let key = |name: &str| format!("peer[{at}].{name}");
    let name = required(
        source,
        &key("name"),
        peer.name.as_ref(),
        "every peer needs a name",
    )?;
    values::name(name).map_err(|message| source.error(&key("name"), message))?;
    let public_key = required(
        source,
        &key("public_key"),
        peer.public_key.as_ref(),
        "write what shardgate pubkey prints for the peer's key",
    )?;
    let public_key = keys::parse(public_key)
        .map_err(|error| source.error(&key("public_key"), error.to_string()))?;
    let preshared_key = match &peer.preshared_key_file {
        Some(name) => read_key(source, &key("preshared_key_file"), name)?,
        None => Zeroizing::new([0; 32]),
    };
    match peer.mode.as_deref() {
        None | Some("l2") => {}
        Some("l3") => return Err(later_value(source, &key("mode"), "\"l3\"", "\"l2\"")),
        Some(other) => {
            return Err(source.error(
                &key("mode"),
                format!("{other:?} is not known: write \"l2\""),
            ));
        }
    }
    let lan = lan_port(source, at, peer, ports)?;
    let path = match peer.path.as_slice() {
        [] => {
            return Err(source.error(
                &key("path"),
                "missing: add a [[peer.path]] with the WAN port the peer is reached by",
            ));
        }
        [path] => path,
        _ => {
            return Err(later_value(
                source,
                &key("path[1]"),
                "more than one path per peer",
                "one",
            ));
        }
    };
    let (port, remote) = check_path(source, at, path, ports, wans)?;
    let mtu = path_mtu(source, at, path, ports, port)?;
    let spec = PeerSpec {
        name: name.into(),
        lan,
        mss_clamp: peer.mss_clamp.unwrap_or(true),
        path: path.name.clone().unwrap_or_else(|| "0".into()),
        mtu,
    };
    let settings = PeerSettings {
        name: name.into(),
        public_key: *public_key,
        preshared_key,
        port,
        remote,
    };
    Ok((spec, settings))
}

fn find(ports: &[PortSpec], name: &str) -> Option<usize> {
    ports.iter().position(|port| port.name == name)
}

fn is_lan(port: &PortSpec) -> bool {
    matches!(port.role, PortRole::Lan)
}

fn names(ports: &[PortSpec], lan: bool) -> String {
    let names: Vec<_> = ports
        .iter()
        .filter(|port| is_lan(port) == lan)
        .map(|port| format!("{:?}", port.name))
        .collect();
    names.join(" or ")
}

fn lan_port(
    source: &Source,
    at: usize,
    peer: &Peer,
    ports: &[PortSpec],
) -> Result<usize, ConfigError> {
    let key = format!("peer[{at}].lan");
    let Some(name) = &peer.lan else {
        let mut lans = ports.iter().enumerate().filter(|(_, port)| is_lan(port));
        return match (lans.next(), lans.next()) {
            (Some((only, _)), None) => Ok(only),
            _ => {
                let message = format!(
                    "missing: there are several LAN ports, name {}",
                    names(ports, true)
                );
                Err(source.error(&key, message))
            }
        };
    };
    let found = find(ports, name).ok_or_else(|| {
        source.error(
            &key,
            format!("port {name:?} does not exist: name {}", names(ports, true)),
        )
    })?;
    if !ports.get(found).is_some_and(is_lan) {
        let message = format!(
            "port {name:?} has role = \"wan\": name {}",
            names(ports, true)
        );
        return Err(source.error(&key, message));
    }
    Ok(found)
}

/// The MTU that a path is said to have, within that of its port.
fn path_mtu(
    source: &Source,
    at: usize,
    path: &Path,
    ports: &[PortSpec],
    port: usize,
) -> Result<Option<u16>, ConfigError> {
    let most = ports.get(port).map_or(MTU_MIN, |port| port.mtu);
    let range = i64::from(MTU_MIN)..=i64::from(most);
    let key = format!("peer[{at}].path[0].mtu");
    let mtu = values::number(source, &key, path.mtu.as_ref(), range, true)?;
    Ok(mtu.and_then(|mtu| u16::try_from(mtu).ok()))
}

fn check_path(
    source: &Source,
    at: usize,
    path: &Path,
    ports: &[PortSpec],
    wans: &[WanSettings],
) -> Result<(usize, Option<SocketAddr>), ConfigError> {
    let key = |name: &str| format!("peer[{at}].path[0].{name}");
    if let Some(name) = &path.name {
        values::name(name).map_err(|message| source.error(&key("name"), message))?;
    }
    if path.roam == Some(true) {
        return Err(later_value(source, &key("roam"), "roam = true", "false"));
    }
    let wan_names = || format!("name {}", names(ports, false));
    let name = required(source, &key("port"), path.port.as_ref(), &wan_names())?;
    let port = find(ports, name).ok_or_else(|| {
        source.error(
            &key("port"),
            format!("port {name:?} does not exist: {}", wan_names()),
        )
    })?;
    let wan = wans.iter().find(|wan| wan.port == port).ok_or_else(|| {
        source.error(
            &key("port"),
            format!("port {name:?} has role = \"lan\": {}", wan_names()),
        )
    })?;
    let Some(text) = &path.remote else {
        return Ok((port, None));
    };
    let error = |message: String| source.error(&key("remote"), message);
    let remote: SocketAddr = text.parse().map_err(|_| {
        error(format!(
            "{text:?} is not an address with a port: write it as \"10.9.0.2:4600\""
        ))
    })?;
    let IpAddr::V4(address) = remote.ip() else {
        return Err(later_value(
            source,
            &key("remote"),
            "IPv6 on the WAN",
            "an IPv4 address",
        ));
    };
    if remote.port() == 0 || !is_host(remote.ip()) {
        return Err(error(format!(
            "{text} is no peer's address: write it as \"10.9.0.2:4600\""
        )));
    }
    if wans.iter().any(|wan| wan.address == address) {
        return Err(error(format!(
            "{address} is this gateway's own address: write the peer's"
        )));
    }
    let linked = on_link(wan.address, wan.prefix_len, address);
    if linked && !values::is_host_of(address, wan.prefix_len) {
        return Err(error(format!(
            "{address} is not a host's address: write the peer's"
        )));
    }
    if !linked && wan.gateway.is_none() {
        return Err(error(format!(
            "{address} is not on the link of port {name:?} ({}/{}): set gateway in that port",
            wan.address, wan.prefix_len
        )));
    }
    Ok((port, Some(remote)))
}
