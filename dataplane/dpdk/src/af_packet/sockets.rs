//! The sockets behind an af_packet port, replaced by ones that a gateway can use.
//!
//! The driver joins a fanout group with `PACKET_FANOUT_FLAG_DEFRAG`, even for a single queue, and has
//! no argument against it. So the kernel reassembles IPv4 fragments before the driver sees them: a
//! bridged ping of 9000 bytes arrives as one frame, larger than the MTU and than a ring frame, is cut
//! to the ring frame's size, and the driver hands over the rest as if it were whole. It also hears
//! what the kernel itself sends on the interface, and takes frames of other interfaces between opening
//! a socket and binding it.
//!
//! A socket can leave a fanout group only by being closed. So before the port starts, each of the
//! driver's sockets gives way to a new one of the same kind: its rings are mapped over the old ones,
//! at the same address, and its descriptor takes the old one's number. The driver, which knows
//! nothing but that address and that number, goes on as before. If a socket is not what this expects,
//! the port is refused.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{Error as IoError, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use core::ffi::{c_int, c_uint, c_void};

/// What the driver was told about its sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// Sockets, one for each pair of queues.
    pub(crate) queues: usize,
    /// Bytes of a ring frame.
    pub(crate) frame: usize,
    /// Bytes of a block.
    pub(crate) block: usize,
    /// Frames in each direction.
    pub(crate) count: usize,
    /// Largest received frame that is not cut.
    pub(crate) received_max: usize,
    /// Send past the queueing discipline.
    pub(crate) qdisc_bypass: bool,
}

impl Geometry {
    fn request(&self) -> libc::tpacket_req {
        libc::tpacket_req {
            tp_block_size: self.block as c_uint,
            tp_block_nr: (self.count / (self.block / self.frame)) as c_uint,
            tp_frame_size: self.frame as c_uint,
            tp_frame_nr: self.count as c_uint,
        }
    }

    /// Bytes of both rings, which are mapped as one.
    fn mapped(&self) -> usize {
        2 * self.count * self.frame
    }
}

/// Packet sockets of this process at one moment, by the kernel's number, which is not used again while
/// the socket lives (a descriptor's is).
pub(crate) struct Snapshot(BTreeMap<String, RawFd>);

impl Snapshot {
    pub(crate) fn take() -> Result<Snapshot> {
        let mut sockets = BTreeMap::new();
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let Some(fd) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let domain = option::<c_int>(fd, libc::SOL_SOCKET, libc::SO_DOMAIN);
            // Another thread can close it between the two looks.
            if let (Ok(libc::AF_PACKET), Ok(name)) = (domain, socket_name(fd)) {
                sockets.insert(name, fd);
            }
        }
        Ok(Snapshot(sockets))
    }
}

/// `socket:[number]`, as the kernel calls it.
fn socket_name(fd: RawFd) -> Result<String> {
    Ok(std::fs::read_link(format!("/proc/self/fd/{fd}"))?
        .to_string_lossy()
        .into_owned())
}

/// The sockets of a port; the driver owns the descriptors and closes them with the port.
#[derive(Debug)]
pub(crate) struct Sockets {
    fds: Vec<RawFd>,
    /// Frames that found a ring full; the kernel's count starts anew each time it is read.
    missed: Mutex<u64>,
}

impl Sockets {
    /// Replaces the sockets that the driver opened on the interface since the snapshot.
    pub(crate) fn replace(before: &Snapshot, iface: &str, geometry: &Geometry) -> Result<Sockets> {
        let index = interface_index(iface)?;
        let fds: Vec<RawFd> = Snapshot::take()?
            .0
            .into_iter()
            .filter(|(name, fd)| !before.0.contains_key(name) && bound_to(*fd).ok() == Some(index))
            .map(|(_, fd)| fd)
            .collect();
        if fds.len() != geometry.queues {
            return Err(unexpected(format!("{} sockets on {iface}", fds.len())));
        }
        for &fd in &fds {
            let version = option::<c_int>(fd, libc::SOL_PACKET, libc::PACKET_VERSION)?;
            if version != TPACKET_V2 {
                return Err(unexpected(format!("ring version {version}")));
            }
            replace_one(fd, geometry)?;
        }
        let mut group = None;
        for &fd in &fds {
            bind(fd, index)?;
            if fds.len() > 1 {
                group = Some(join_group(fd, group)?);
            }
        }
        Ok(Sockets {
            fds,
            missed: Mutex::new(0),
        })
    }

    /// Frames that were lost since the start because a ring was full.
    pub(crate) fn missed(&self) -> u64 {
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        for &fd in &self.fds {
            let counted =
                option::<libc::tpacket_stats>(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS);
            *missed += counted.map_or(0, |stats| u64::from(stats.tp_drops));
        }
        *missed
    }
}

const TPACKET_V2: c_int = libc::tpacket_versions::TPACKET_V2 as c_int;

/// Puts a new socket, not bound yet, in the place of `old`.
fn replace_one(old: RawFd, geometry: &Geometry) -> Result<()> {
    let (address, len) = mapping(old)?;
    if len != geometry.mapped() {
        return Err(unexpected(format!("rings of {len} bytes")));
    }
    // Protocol 0: nothing is received before it is bound to its interface.
    // SAFETY: plain values; the descriptor is owned by nobody else.
    let new = unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        OwnedFd::from_raw_fd(check(fd)?)
    };
    let fd = new.as_raw_fd();
    set_option(fd, libc::SOL_PACKET, libc::PACKET_VERSION, &TPACKET_V2)?;
    // A frame that cannot be sent is skipped, as the driver asks for; else it would block the ring.
    set_option(fd, libc::SOL_PACKET, libc::PACKET_LOSS, &1)?;
    let bypass = c_int::from(geometry.qdisc_bypass);
    set_option(fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &bypass)?;
    // Linux 4.20 and newer; without it the gateway hears what its own host sends, as before.
    let _ = set_option(fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1);
    drop_what_would_be_cut(fd, geometry.received_max)?;
    let request = geometry.request();
    set_option(fd, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
    set_option(fd, libc::SOL_PACKET, libc::PACKET_TX_RING, &request)?;
    // SAFETY: the range is exactly the old socket's rings, and the port is not started, so nobody reads
    // or writes them; the new rings have the same size and layout.
    let mapped = unsafe {
        libc::mmap(
            address as *mut c_void,
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_LOCKED | libc::MAP_FIXED,
            fd,
            0,
        )
    };
    if mapped == libc::MAP_FAILED {
        return Err(IoError::last_os_error());
    }
    // SAFETY: plain values. The old socket has no other reference left and goes.
    check(unsafe { libc::dup3(fd, old, libc::O_CLOEXEC) })?;
    Ok(())
}

/// Has the kernel drop frames longer than a ring frame holds (a host's segmentation or receive offload
/// left on), because the driver does not see that they were cut.
fn drop_what_would_be_cut(fd: RawFd, received_max: usize) -> Result<()> {
    const LOAD_LENGTH: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_LEN) as u16;
    const JUMP_IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let mut program = [
        libc::sock_filter {
            code: LOAD_LENGTH,
            jt: 0,
            jf: 0,
            k: 0,
        },
        libc::sock_filter {
            code: JUMP_IF_GREATER,
            jt: 0,
            jf: 1,
            k: received_max as u32,
        },
        libc::sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: 0,
        },
        libc::sock_filter {
            code: RETURN,
            jt: 0,
            jf: 0,
            k: u32::MAX,
        },
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
}

/// Where the kernel has mapped a socket's rings in this process.
fn mapping(fd: RawFd) -> Result<(usize, usize)> {
    let socket = socket_name(fd)?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut ranges = maps
        .lines()
        .filter(|line| line.ends_with(&socket))
        .filter_map(|line| {
            let (start, rest) = line.split_once('-')?;
            let (end, _) = rest.split_once(' ')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            Some((
                start,
                usize::from_str_radix(end, 16).ok()?.checked_sub(start)?,
            ))
        });
    match (ranges.next(), ranges.next()) {
        (Some(range), None) => Ok(range),
        _ => Err(unexpected("rings that are not one mapping".to_owned())),
    }
}

fn interface_index(iface: &str) -> Result<c_int> {
    let name = CString::new(iface)?;
    // SAFETY: a string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        Err(IoError::last_os_error())
    } else {
        Ok(index as c_int)
    }
}

/// The index of the interface that a packet socket is bound to.
fn bound_to(fd: RawFd) -> Result<c_int> {
    // SAFETY: all zeroes is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address has `len` bytes and outlives the call.
    check(unsafe { libc::getsockname(fd, (&raw mut address).cast(), &raw mut len) })?;
    Ok(address.sll_ifindex)
}

/// From here on frames come in.
fn bind(fd: RawFd, index: c_int) -> Result<()> {
    // SAFETY: all zeroes is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the address has `len` bytes and outlives the call.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), len) })?;
    Ok(())
}

/// Joins the sockets of one port: flows are spread by their hash, and a full ring spills over. The
/// first one gets a number from the kernel that no other process has; the others take that.
fn join_group(fd: RawFd, group: Option<c_uint>) -> Result<c_uint> {
    let kind = libc::PACKET_FANOUT_HASH
        | libc::PACKET_FANOUT_FLAG_ROLLOVER
        | libc::PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
    let argument = match group {
        None => (kind | libc::PACKET_FANOUT_FLAG_UNIQUEID) << 16,
        Some(group) => (kind << 16) | group,
    };
    set_option(fd, libc::SOL_PACKET, libc::PACKET_FANOUT, &argument)?;
    Ok(option::<c_uint>(fd, libc::SOL_PACKET, libc::PACKET_FANOUT)? & 0xffff)
}

fn set_option<T>(fd: RawFd, level: c_int, name: c_int, value: &T) -> Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value has `len` bytes and outlives the call; what the filter points to does as well.
    check(unsafe { libc::setsockopt(fd, level, name, core::ptr::from_ref(value).cast(), len) })?;
    Ok(())
}

/// Reads an option whose value is made of integers.
fn option<T: Integers>(fd: RawFd, level: c_int, name: c_int) -> Result<T> {
    // SAFETY: all zeroes is a valid value of integers.
    let mut value: T = unsafe { core::mem::zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value has `len` bytes, outlives the call, and any bytes are valid in it.
    check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

/// Types for which any bytes are a value.
trait Integers {}
impl Integers for c_int {}
impl Integers for c_uint {}
impl Integers for libc::tpacket_stats {}

fn check(result: c_int) -> Result<c_int> {
    if result < 0 {
        Err(IoError::last_os_error())
    } else {
        Ok(result)
    }
}

fn unexpected(what: String) -> IoError {
    IoError::other(format!(
        "this version of the driver opens its sockets in another way: {what}"
    ))
}
