//! Configuration: from a TOML file to validated settings, or one line that says what is wrong.
//!
//! `file` is the file as written, `source` finds lines for errors, and the modules named after
//! sections check them. [`check_site`] comes last: it holds the result against `machine`, what the
//! kernel says. Nothing here touches a device.
//!
//! A key whose feature is not built yet is refused by name when it is set; left out, the nearest
//! thing that is built is used.

pub mod device;
mod file;
mod machine;
mod peers;
mod pipeline;
mod ports;
mod site;
mod source;
#[cfg(test)]
mod tests;
mod tunnel;
mod values;

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use blake2::{Blake2s256, Digest};
use shardgate_dataplane::config::{EngineConfig, Hugepages, TunnelSpec};
use zeroize::Zeroizing;

pub use self::machine::Machine;
pub use self::site::{Notes, RIGHTS_REMEDY, check as check_site, has_rights};
pub use self::source::{ConfigError, Source};

use self::file::File;
use crate::keys::{self, KeyError};
use crate::limits;
use crate::session::PeerSettings;

/// Where the stats endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Where it listens unless told otherwise.
    pub const DEFAULT: &str = "127.0.0.1:9460";

    /// Reads `address:port` or `unix:/path`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if path.starts_with('/') {
                return Ok(Self::Unix(path.into()));
            }
            return Err(format!(
                "{text:?} must name an absolute path, as unix:/run/shardgate.sock"
            ));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(Self::Tcp(address)),
            _ => Err(format!(
                "{text:?} is not an address: write 127.0.0.1:9460, [::1]:9460 or unix:/path"
            )),
        }
    }
}

impl std::fmt::Display for Listen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Our side of a WAN port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WanSettings {
    /// Index of the port.
    pub port: usize,
    /// Our address.
    pub address: std::net::Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix_len: u8,
    /// The router.
    pub gateway: Option<std::net::Ipv4Addr>,
}

/// A configuration that has passed every check.
pub struct Settings {
    /// The gateway's name.
    pub node: String,
    /// Our static private key.
    pub private_key: Zeroizing<[u8; 32]>,
    /// What the dataplane needs; whether hugepages are used is still to be decided.
    pub engine: EngineConfig,
    /// Whether hugepages are used.
    pub hugepages: Hugepages,
    /// Our side of the WAN ports.
    pub wans: Vec<WanSettings>,
    /// The peers, in the dataplane's order.
    pub peers: Vec<PeerSettings>,
    /// Where the stats endpoint listens.
    pub listen: Listen,
    /// Where what arrives is recorded.
    pub record_file: Option<PathBuf>,
    /// Where changes of plans are written.
    pub decisions_file: Option<PathBuf>,
    /// Where what was learned survives a restart.
    pub state_file: Option<PathBuf>,
}

/// Reads a configuration file.
pub fn read(path: &Path) -> Result<Source, ConfigError> {
    let error = |message: String| ConfigError {
        file: path.into(),
        line: None,
        key: String::new(),
        message,
    };
    let io_error = |problem: std::io::Error| {
        error(format!(
            "cannot be read ({}): name an existing file",
            keys::plain(&problem)
        ))
    };
    // Before it is opened: a pipe would be waited for. Of a folder the system says so.
    let kind = std::fs::metadata(path).map_err(io_error)?;
    if !kind.is_file() && !kind.is_dir() {
        return Err(error(
            "is not a regular file: name a configuration file".into(),
        ));
    }
    let file = std::fs::File::open(path).map_err(io_error)?;
    let mut bytes = Vec::new();
    file.take(limits::CONFIG_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(io_error)?;
    if bytes.len() as u64 > limits::CONFIG_BYTES_MAX {
        return Err(error(
            "is longer than 1 MiB: this is not a configuration file".into(),
        ));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source::new(path, text)),
        Err(_) => Err(error(
            "is not UTF-8 text: this is not a configuration file".into(),
        )),
    }
}

/// Checks a configuration by itself; of the machine only the host's name is used.
pub fn check(source: &Source, machine: &Machine) -> Result<Settings, ConfigError> {
    let file: File = toml::from_str(source.text()).map_err(|error| source.toml_error(&error))?;
    let node = node_name(source, &file, machine)?;
    let private_key = private_key(source, &file, &node)?;
    let public_key = keys::public(&private_key);
    let (pipeline, hugepages) = pipeline::check(source, &file)?;
    let (ports, wans) = ports::check(source, &file)?;
    let listen = listen(source, &file)?;
    let tunnel = tunnel::check(source, &file)?;
    let (peer_specs, peers) = peers::check(source, &file, &ports, &wans, &public_key)?;
    let [record_file, decisions_file, state_file] = written_files(source, &file, &node)?;
    Ok(Settings {
        engine: EngineConfig {
            file_prefix: file_prefix(&node, source),
            ports,
            peers: peer_specs,
            pipeline,
            tunnel,
            recorder: None,
            learned: vec![],
        },
        node,
        private_key,
        hugepages,
        wans,
        peers,
        listen,
        record_file,
        decisions_file,
        state_file,
    })
}

/// The section `[tunnel]` of a text that may have no other; nothing else is checked.
pub fn tunnel(source: &Source) -> Result<TunnelSpec, ConfigError> {
    let file: File = toml::from_str(source.text()).map_err(|error| source.toml_error(&error))?;
    tunnel::check(source, &file)
}

/// Where the stats endpoint of a configuration listens; nothing else is checked.
pub fn stats_listen(source: &Source) -> Result<Listen, ConfigError> {
    let file: File = toml::from_str(source.text()).map_err(|error| source.toml_error(&error))?;
    listen(source, &file)
}

fn node_name(source: &Source, file: &File, machine: &Machine) -> Result<String, ConfigError> {
    let Some(name) = &file.node.name else {
        let host = machine
            .host_name
            .clone()
            .filter(|name| values::name(name).is_ok());
        return Ok(host.unwrap_or_else(|| "shardgate".into()));
    };
    values::name(name).map_err(|message| source.error("node.name", message))?;
    Ok(name.clone())
}

fn private_key(
    source: &Source,
    file: &File,
    node: &str,
) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    read_key(
        source,
        "node.private_key_file",
        &private_key_name(file, node),
    )
}

fn private_key_name(file: &File, node: &str) -> String {
    let name = file.node.private_key_file.clone();
    name.unwrap_or_else(|| format!("{node}.key"))
}

fn read_key(source: &Source, key: &str, name: &str) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
    keys::read_secret(&source.sibling(name))
        .map_err(|error: KeyError| source.error(key, error.to_string()))
}

fn listen(source: &Source, file: &File) -> Result<Listen, ConfigError> {
    let text = file.stats.listen.as_deref().unwrap_or(Listen::DEFAULT);
    Listen::parse(text).map_err(|message| source.error("stats.listen", message))
}

/// The files that a gateway writes. None of them may be one that it reads, or another one of them:
/// writing it would destroy that.
fn written_files(
    source: &Source,
    file: &File,
    node: &str,
) -> Result<[Option<PathBuf>; 3], ConfigError> {
    let path = |name: &Option<String>| {
        let name = name.as_deref().filter(|name| !name.is_empty());
        name.map(|name| source.sibling(name))
    };
    let written = [
        ("stats.record_file", path(&file.stats.record_file)),
        ("stats.decisions_file", path(&file.stats.decisions_file)),
        ("tunnel.state_file", path(&file.tunnel.state_file)),
    ];
    let key = source.sibling(&private_key_name(file, node));
    let mut others = vec![
        ("the configuration".to_owned(), source.file().to_owned()),
        ("node.private_key_file".into(), key),
    ];
    for (at, peer) in file.peer.iter().enumerate() {
        let preshared = path(&peer.preshared_key_file);
        others.extend(preshared.map(|path| (format!("peer[{at}].preshared_key_file"), path)));
    }
    for (name, path) in &written {
        let Some(path) = path else { continue };
        let itself = real(path);
        if let Some((other, _)) = others.iter().find(|(_, other)| real(other) == itself) {
            let message = format!(
                "{} is {other} too, which writing it would destroy: name another file",
                path.display()
            );
            return Err(source.error(name, message));
        }
        others.push(((*name).into(), path.clone()));
    }
    Ok(written.map(|(_, path)| path))
}

/// Which file a path names, whether it is there already or not.
fn real(path: &Path) -> PathBuf {
    let in_folder = || {
        let folder = path.parent()?.canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    let whole = path.canonicalize().ok().or_else(in_folder);
    whole
        .or_else(|| std::path::absolute(path).ok())
        .unwrap_or_else(|| path.into())
}

/// The same for every start from one file, so that what a killed process left behind is found
/// again, and different for two files with one node name.
fn file_prefix(node: &str, source: &Source) -> String {
    let file = std::path::absolute(source.file()).unwrap_or_default();
    let mut hash = Blake2s256::new();
    hash.update(file.as_os_str().as_encoded_bytes());
    let [a, b, c, d, ..]: [u8; 32] = hash.finalize().into();
    format!("shardgate-{node}-{a:02x}{b:02x}{c:02x}{d:02x}")
}
