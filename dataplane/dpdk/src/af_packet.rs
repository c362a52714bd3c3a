//! Device strings of the af_packet driver: what the kernel's interface needs, worked out and checked.
//!
//! The driver shares two rings of fixed-size frames with the kernel. Its defaults (512 frames of
//! 2048 bytes) truncate jumbo frames and drop bursts, and what the kernel accepts as geometry is
//! narrower than what the driver checks. `Documentation/networking/packet_mmap.rst` and DPDK's
//! "AF_PACKET Poll Mode Driver" chapter are the sources.

use std::path::Path;

use crate::error::Error;
use sockets::Geometry;

pub(crate) mod sockets;

/// Bytes of a ring frame that the kernel keeps before a received frame: the tpacket2 header (32), the
/// link-layer address (20), alignment, and the Ethernet header's offset (`TPACKET2_HDRLEN`,
/// `tpacket_rcv`).
const RX_OVERHEAD: usize = 66;

/// Bytes of a ring frame that the driver subtracts before it compares with an mbuf's room.
const DRIVER_OVERHEAD: usize = 32;

/// Ethernet header and two VLAN tags: one that the kernel strips and the driver puts back, and one
/// below it.
pub(crate) const FRAME_OVERHEAD: usize = 14 + 8;

/// The smallest ring frame: the driver's default, good for an MTU up to 1960.
const FRAME_SIZE_MIN: usize = 2048;

/// Frames in each direction, unless the device string says otherwise: 64 bursts, which is 1 ms of
/// 64-byte frames at 1 Gbit/s. Less drops the bursts of a host's TCP.
const FRAME_COUNT: usize = 2048;

/// A block is a whole number of frames and of pages; 64 KiB is a multiple of every page size.
const BLOCK_UNIT: usize = 65_536;

/// Bytes of a ring frame that holds every frame of an interface with this MTU.
pub fn frame_size(mtu: u16) -> usize {
    (usize::from(mtu) + FRAME_OVERHEAD + RX_OVERHEAD)
        .next_multiple_of(1024)
        .max(FRAME_SIZE_MIN)
}

/// Bytes of an mbuf, headroom included, that the driver accepts for an interface with this MTU.
pub fn mbuf_room(mtu: u16) -> usize {
    shardgate_core::limits::HEADROOM + frame_size(mtu) - DRIVER_OVERHEAD
}

/// An af_packet device string, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfPacket {
    device: String,
    name: String,
    arguments: Vec<(String, String)>,
}

impl AfPacket {
    /// Takes a device string apart; nothing if it names another driver.
    ///
    /// # Errors
    ///
    /// [`Error::BadDevice`] without an interface, or with an argument that is not `key=value`.
    pub fn parse(device: &str) -> Result<Option<AfPacket>, Error> {
        let (name, arguments) = device.split_once(',').unwrap_or((device, ""));
        if !name.starts_with("net_af_packet") && !name.starts_with("eth_af_packet") {
            return Ok(None);
        }
        let bad = |reason: String| Error::BadDevice {
            device: device.to_owned(),
            reason,
        };
        let arguments = arguments
            .split(',')
            .filter(|argument| !argument.is_empty())
            .map(|argument| {
                let (key, value) = argument
                    .split_once('=')
                    .ok_or_else(|| bad(format!("{argument:?} is not of the form key=value")))?;
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let parsed = AfPacket {
            device: device.to_owned(),
            name: name.to_owned(),
            arguments,
        };
        let iface = parsed.argument("iface").unwrap_or_default();
        if iface.is_empty() || iface.len() > 15 || iface.contains(['/', '.']) && iface.len() < 3 {
            return Err(bad(
                "it needs iface=INTERFACE, a name of 1 to 15 bytes".to_owned()
            ));
        }
        Ok(Some(parsed))
    }

    /// The kernel's interface.
    pub fn iface(&self) -> &str {
        self.argument("iface").unwrap_or_default()
    }

    /// Queues it opens in each direction; the kernel spreads flows over all of them.
    ///
    /// # Errors
    ///
    /// [`Error::BadDevice`] if `qpairs` is no number.
    pub fn queue_pairs(&self) -> Result<usize, Error> {
        Ok(self.number("qpairs")?.unwrap_or(1))
    }

    /// The kernel's MTU of the interface, from sysfs.
    ///
    /// # Errors
    ///
    /// [`Error::BadDevice`] if there is no such interface in this network namespace.
    pub fn kernel_mtu(&self) -> Result<u16, Error> {
        let path = Path::new("/sys/class/net").join(self.iface()).join("mtu");
        let text = std::fs::read_to_string(&path).map_err(|error| {
            self.bad(format!(
                "no interface {:?} here ({}: {error})",
                self.iface(),
                path.display()
            ))
        })?;
        // The loopback interface has 65536.
        text.trim()
            .parse::<u32>()
            .map(|mtu| u16::try_from(mtu).unwrap_or(u16::MAX))
            .map_err(|_| self.bad(format!("{} says {:?}", path.display(), text.trim())))
    }

    /// The device string with ring geometry for an interface of this MTU, as far as it did not say
    /// itself: `framesz`, `blocksz`, `framecnt`, and `qdisc_bypass=1`, because a queueing discipline
    /// below a gateway would be a second, invisible queue.
    ///
    /// # Errors
    ///
    /// [`Error::BadDevice`] if its own arguments contradict each other or cannot hold such frames; the
    /// driver would accept some of these and truncate every large frame.
    pub fn with_geometry(&self, mtu: u16) -> Result<AfPacket, Error> {
        let need = usize::from(mtu) + FRAME_OVERHEAD + RX_OVERHEAD;
        let frame = self.number("framesz")?.unwrap_or_else(|| frame_size(mtu));
        if frame < need {
            return Err(self.bad(format!(
                "framesz={frame} truncates frames of MTU {mtu}; it takes {need} or more"
            )));
        }
        if frame % 16 != 0 {
            return Err(self.bad(format!("framesz={frame} is not a multiple of 16")));
        }
        // The fewest frames that make a whole number of units; a power of two.
        let per_unit = 1 << (BLOCK_UNIT.trailing_zeros() - frame.trailing_zeros().min(16));
        let block = self.number("blocksz")?.unwrap_or(frame * per_unit);
        if block % frame != 0 || block % 4096 != 0 {
            return Err(self.bad(format!(
                "blocksz={block} is not a whole number of frames of {frame} bytes and of pages"
            )));
        }
        let per_block = block / frame;
        let count = self
            .number("framecnt")?
            .unwrap_or_else(|| FRAME_COUNT.next_multiple_of(per_block));
        if count == 0 || count % per_block != 0 {
            return Err(self.bad(format!(
                "framecnt={count} is not a multiple of the {per_block} frames in a block"
            )));
        }
        let mut whole = self.clone();
        for (key, value) in [
            ("framesz", frame),
            ("blocksz", block),
            ("framecnt", count),
            ("qdisc_bypass", 1),
        ] {
            if whole.argument(key).is_none() {
                whole.arguments.push((key.to_owned(), value.to_string()));
            }
        }
        Ok(whole)
    }

    /// Refuses an rx pool whose mbufs are too small for what can arrive: the driver copies whole ring
    /// frames, and before DPDK 25.11.1 it does not look at the mbuf's end.
    ///
    /// `room` is what an mbuf holds behind its headroom.
    ///
    /// # Errors
    ///
    /// [`Error::MbufTooSmall`], [`Error::BadDevice`].
    pub fn check_mbuf(&self, kernel_mtu: u16, pool: &str, room: usize) -> Result<(), Error> {
        let ring = self
            .number("framesz")?
            .unwrap_or_else(|| frame_size(kernel_mtu));
        let frame = (usize::from(kernel_mtu) + FRAME_OVERHEAD).max(ring - DRIVER_OVERHEAD);
        if frame <= room {
            return Ok(());
        }
        Err(Error::MbufTooSmall {
            port: self.device.clone(),
            pool: pool.to_owned(),
            frame,
            room,
            mtu: kernel_mtu,
        })
    }

    /// What the driver's sockets look like, once [`AfPacket::with_geometry`] has filled it in.
    pub(crate) fn geometry(&self) -> Result<Geometry, Error> {
        let number = |key: &str| {
            self.number(key)?
                .ok_or_else(|| self.bad(format!("{key} has not been worked out")))
        };
        let frame = number("framesz")?;
        Ok(Geometry {
            queues: self.number("qpairs")?.unwrap_or(1),
            frame,
            block: number("blocksz")?,
            count: number("framecnt")?,
            received_max: frame.saturating_sub(RX_OVERHEAD),
            qdisc_bypass: self.argument("qdisc_bypass") != Some("0"),
        })
    }

    /// The device string for EAL.
    pub fn devargs(&self) -> String {
        self.arguments
            .iter()
            .fold(self.name.clone(), |text, (key, value)| {
                format!("{text},{key}={value}")
            })
    }

    fn argument(&self, key: &str) -> Option<&str> {
        self.arguments
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, value)| value.as_str())
    }

    fn number(&self, key: &str) -> Result<Option<usize>, Error> {
        self.argument(key)
            .map(|value| {
                // The driver reads an int.
                value
                    .parse::<u32>()
                    .ok()
                    .filter(|&n| n > 0 && n <= 1 << 30)
                    .ok_or_else(|| {
                        self.bad(format!("{key}={value} is not a number from 1 to 2^30"))
                    })
            })
            .transpose()
            .map(|number| number.map(|n| n as usize))
    }

    pub(crate) fn bad(&self, reason: String) -> Error {
        Error::BadDevice {
            device: self.device.clone(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(device: &str) -> AfPacket {
        AfPacket::parse(device)
            .expect("well-formed")
            .expect("af_packet")
    }

    #[test]
    fn other_drivers_are_left_alone() {
        assert_eq!(AfPacket::parse("net_tap0,iface=x").expect("no error"), None);
        assert_eq!(AfPacket::parse("0000:01:00.0").expect("no error"), None);
    }

    #[test]
    fn bad_strings_are_refused() {
        for device in [
            "net_af_packet0",
            "net_af_packet0,iface=",
            "net_af_packet0,iface=..",
            "net_af_packet0,iface=a-name-that-is-too-long",
            "net_af_packet0,iface",
        ] {
            assert!(AfPacket::parse(device).is_err(), "{device}");
        }
    }

    /// What the kernel asks of a ring (`packet_set_ring`) holds for every MTU.
    #[test]
    fn the_geometry_is_what_the_kernel_accepts() {
        for mtu in (68..=65_000).step_by(61) {
            let whole = parse("net_af_packet0,iface=lan0")
                .with_geometry(mtu)
                .expect("geometry");
            let number = |key| whole.number(key).expect("a number").expect("present");
            let (frame, block, count) = (number("framesz"), number("blocksz"), number("framecnt"));
            assert!(frame >= usize::from(mtu) + FRAME_OVERHEAD + RX_OVERHEAD);
            assert_eq!(
                (frame % 16, block % 65_536, block % frame),
                (0, 0, 0),
                "MTU {mtu}"
            );
            assert_eq!(count % (block / frame), 0, "MTU {mtu}");
            assert!(count >= FRAME_COUNT);
            assert!(whole.check_mbuf(mtu, "pool", mbuf_room(mtu) - 128).is_ok());
            assert!(whole.check_mbuf(mtu, "pool", mbuf_room(mtu) - 129).is_err());
        }
    }

    #[test]
    fn the_users_arguments_stay_and_are_checked() {
        let whole = parse("net_af_packet1,iface=wan0,qpairs=2,framesz=4096,qdisc_bypass=0")
            .with_geometry(1500)
            .expect("geometry");
        assert_eq!(
            whole.devargs(),
            "net_af_packet1,iface=wan0,qpairs=2,framesz=4096,qdisc_bypass=0,blocksz=65536,framecnt=2048"
        );
        for arguments in [
            "framesz=2048,mtu9000",
            "framesz=2047",
            "framesz=0",
            "framesz=-1",
            "blocksz=2048",
            "blocksz=5000",
            "framesz=2048,blocksz=65536,framecnt=33",
        ] {
            let device = format!("net_af_packet0,iface=lan0,{arguments}");
            let refused = match AfPacket::parse(&device) {
                Ok(Some(parsed)) => parsed.with_geometry(1500).is_err(),
                other => other.is_err(),
            };
            assert!(refused, "{arguments}");
        }
        assert!(
            parse("net_af_packet0,iface=lan0,framesz=2048")
                .with_geometry(9000)
                .is_err()
        );
    }
}
