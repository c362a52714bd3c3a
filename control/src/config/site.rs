//! What a configuration asks of the machine that it is to run on. It is judged last, so that
//! everything a file says by itself can be checked on another machine.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use shardgate_dataplane::config::PortSpec;

use super::device;
use super::machine::Machine;
use super::source::{ConfigError, Source};
use super::{Settings, WanSettings};
use crate::keys;

/// Bits of capabilities(7).
const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;

/// What to do about missing rights.
pub const RIGHTS_REMEDY: &str = "run as root, or give the program CAP_NET_RAW and CAP_NET_ADMIN \
     (setcap cap_net_raw,cap_net_admin+ep on its file)";

/// What does not stop a check.
#[derive(Debug, Default)]
pub struct Notes {
    /// Worth knowing; a start goes on.
    pub warnings: Vec<ConfigError>,
    /// The rights that a start would miss.
    pub rights: Option<ConfigError>,
}

/// Whether the process may open devices through the kernel. Without knowing, it is let through.
pub fn has_rights(machine: &Machine) -> bool {
    let needed = CAP_NET_ADMIN | CAP_NET_RAW;
    machine
        .capabilities
        .is_none_or(|had| had & needed == needed)
}

/// Checks ports and addresses against the machine.
pub fn check(
    source: &Source,
    settings: &Settings,
    machine: &Machine,
) -> Result<Notes, ConfigError> {
    let mut notes = Notes::default();
    for (at, port) in settings.engine.ports.iter().enumerate() {
        let key = format!("port[{at}].device");
        check_port(source, &key, port, machine, &mut notes)?;
        if notes.rights.is_none() && device::is_kernel_backed(&port.device) && !has_rights(machine)
        {
            let message = format!("{:?} needs rights to open: {RIGHTS_REMEDY}", port.device);
            notes.rights = Some(source.error(&key, message));
        }
    }
    for wan in &settings.wans {
        check_address(source, wan, machine)?;
    }
    check_written(source, settings, &mut notes)?;
    Ok(notes)
}

/// Looks whether the files that a gateway writes can be written, and writes none of them.
fn check_written(
    source: &Source,
    settings: &Settings,
    notes: &mut Notes,
) -> Result<(), ConfigError> {
    for (key, path) in [
        ("stats.record_file", &settings.record_file),
        ("stats.decisions_file", &settings.decisions_file),
    ] {
        let Some(path) = path else { continue };
        writable(path).map_err(|message| source.error(key, message))?;
    }
    // A new one is put in the old one's place, so all depends on the folder. It stops no gateway.
    if let Some(path) = &settings.state_file
        && let Err(message) = folder_takes_files(path)
    {
        notes
            .warnings
            .push(source.error("tunnel.state_file", message));
    }
    Ok(())
}

/// Whether a file can be written: one that is there, or one that is not there yet.
fn writable(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(kind) if kind.is_dir() => Err(format!("{shown} is a folder: name a file in it")),
        // A pipe would be waited for, a device takes it all or nothing.
        Ok(kind) if !kind.is_file() => Err(format!(
            "{shown} is not a regular file: name one, or a new one"
        )),
        // Opened, and left as it is.
        Ok(_) => match OpenOptions::new().append(true).open(path) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!(
                "{shown}: {}: name a file that can be written",
                keys::plain(&error)
            )),
        },
        Err(_) => folder_takes_files(path),
    }
}

/// Whether a new file can be made where `path` would be. It is tried with one that has no name, and
/// so leaves nothing behind.
fn folder_takes_files(path: &Path) -> Result<(), String> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let tried = OpenOptions::new()
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_TMPFILE)
        .open(folder);
    let Err(error) = tried else { return Ok(()) };
    let remedy = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => "make its folder",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "name a file in a folder that can be written"
        }
        // Not every file system has files without a name (open(2)); a start will tell.
        _ => return Ok(()),
    };
    Err(format!(
        "{}: {}: {remedy}",
        path.display(),
        keys::plain(&error)
    ))
}

fn check_address(source: &Source, wan: &WanSettings, machine: &Machine) -> Result<(), ConfigError> {
    let WanSettings {
        port,
        address,
        prefix_len,
        ..
    } = wan;
    if !machine.addresses.contains(&IpAddr::V4(*address)) {
        return Ok(());
    }
    let message = format!(
        "the kernel owns {address} too and would answer in our place: take it off the interface \
         (ip addr del {address}/{prefix_len} dev ...)"
    );
    Err(source.error(&format!("port[{port}].address"), message))
}

fn check_port(
    source: &Source,
    key: &str,
    port: &PortSpec,
    machine: &Machine,
    notes: &mut Notes,
) -> Result<(), ConfigError> {
    let error = |message: String| source.error(key, message);
    if device::is_pci_address(&port.device) {
        let address = device::pci_address(&port.device);
        let is_there = machine
            .pci
            .as_ref()
            .is_none_or(|devices| devices.contains(&address));
        return if is_there {
            Ok(())
        } else {
            Err(error(format!(
                "there is no PCI device {address} here: see lspci -D for those there are"
            )))
        };
    }
    let Some(name) = device::interface(&port.device) else {
        return Ok(());
    };
    let Some(interface) = machine.interfaces.get(name) else {
        return Err(error(format!(
            "interface {name:?} does not exist here: see ip link for those that do"
        )));
    };
    let mtu = port.mtu;
    match interface.mtu {
        Some(kernel) if kernel > u32::from(mtu) => {
            return Err(error(format!(
                "interface {name:?} has MTU {kernel}, more than this port's mtu = {mtu}, and longer frames would \
                 overflow its mbufs: ip link set {name} mtu {mtu}, or raise mtu"
            )));
        }
        Some(kernel) if kernel < u32::from(mtu) => notes.warnings.push(error(format!(
            "interface {name:?} has MTU {kernel}, less than this port's mtu = {mtu}, and drops longer packets: \
             ip link set {name} mtu {mtu}, or lower mtu"
        ))),
        _ => {}
    }
    if interface.is_up == Some(false) {
        let message = format!("interface {name:?} is down: ip link set {name} up");
        notes.warnings.push(error(message));
    }
    Ok(())
}
