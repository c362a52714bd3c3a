//! A plain tunnel: one frame, one datagram; no sharding, no repair, no asking.
//!
//! It stands for what people would run otherwise. Sizes are those of WireGuard over IPv4
//! (Donenfeld, NDSS 2017): an outer IPv4 and UDP header, 16 bytes of header, the IP packet padded
//! to 16 bytes, a tag of 16 bytes; an inner MTU of 1420 (wg-quick's default); a replay window of
//! 8,128 counters. It carries IPv4 packets, so the Ethernet header is built anew at the far end.
//!
//! ```text
//! Ethernet 14 | IPv4 20 | UDP 8 | type 1, zero 3, receiver 4, counter 8 | packet + padding | tag 16
//! ```

use shardgate_core::classify::classify;
use shardgate_core::mss::clamp_mss;
use shardgate_core::time::Time;
use shardgate_core::wire::checksum::{fold, sum};

use super::{Gateway, Output, SentBytes};
use crate::packet::{ETHERNET_LEN, IPV4_LEN, UDP_LEN, hash};
use crate::world::mac_of;

const OUTER_LEN: usize = ETHERNET_LEN + IPV4_LEN + UDP_LEN;
const HEADER_LEN: usize = 16;
const TAG_LEN: usize = 16;
const TYPE_DATA: u8 = 4;
const PADDING: usize = 16;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
/// Counters a late datagram may lie behind the newest: 8,192 less a word, as in WireGuard.
const REPLAY_WINDOW: u64 = 8_192 - 64;
const REPLAY_WORDS: usize = 8_192 / 64;

/// What a plain tunnel is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainConfig {
    /// Largest inner IP packet in bytes; TCP's segment size is clamped to it, and what is larger
    /// is dropped.
    pub mtu: usize,
    /// The path everything takes.
    pub path: u8,
}

impl Default for PlainConfig {
    fn default() -> Self {
        Self {
            mtu: 1_420,
            path: 0,
        }
    }
}

/// One end of a plain tunnel.
#[derive(Debug)]
pub struct PlainGateway {
    config: PlainConfig,
    counter: u64,
    newest: u64,
    seen: [u64; REPLAY_WORDS],
    sent: SentBytes,
    scratch: Vec<u8>,
}

impl PlainGateway {
    /// An end whose session stands already.
    pub fn new(config: PlainConfig) -> Self {
        Self {
            config,
            counter: 0,
            newest: 0,
            seen: [0; REPLAY_WORDS],
            sent: SentBytes::default(),
            scratch: Vec::new(),
        }
    }

    /// Whether `counter` is new, and remembers it (RFC 6479's ring of words).
    fn is_fresh(&mut self, counter: u64) -> bool {
        if counter + REPLAY_WINDOW <= self.newest {
            return false;
        }
        let words = REPLAY_WORDS as u64;
        let (word, newest_word) = (counter / 64, self.newest / 64);
        for ahead in (newest_word + 1..=word).take(REPLAY_WORDS) {
            self.seen[(ahead % words) as usize] = 0;
        }
        self.newest = self.newest.max(counter);
        let bits = &mut self.seen[(word % words) as usize];
        let bit = 1 << (counter % 64);
        let is_fresh = *bits & bit == 0;
        *bits |= bit;
        is_fresh
    }

    /// The inner packet of an authentic datagram.
    fn open<'a>(&mut self, datagram: &'a [u8]) -> Option<&'a [u8]> {
        let (body, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG_LEN)?)?;
        if body.get(OUTER_LEN) != Some(&TYPE_DATA) || tag != seal(body) {
            return None;
        }
        let counter = u64::from_be_bytes(*body.get(OUTER_LEN + 8..)?.first_chunk()?);
        let packet = body.get(OUTER_LEN + HEADER_LEN..)?;
        let len = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        let packet = packet.get(..len)?;
        self.is_fresh(counter).then_some(packet)
    }
}

/// Stands for an AEAD's tag: a hash of everything before it, so that no bit error gets through.
fn seal(body: &[u8]) -> [u8; TAG_LEN] {
    u128::from(hash(body)).to_be_bytes()
}

fn write_outer(datagram: &mut Vec<u8>, len: usize) {
    let ip_len = (IPV4_LEN + UDP_LEN + len) as u16;
    let udp_len = (UDP_LEN + len) as u16;
    datagram.extend_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00]);
    datagram.extend_from_slice(&[0x45, 0]);
    datagram.extend_from_slice(&ip_len.to_be_bytes());
    datagram.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    let checksum = !fold(sum(&datagram[ETHERNET_LEN..]));
    datagram[ETHERNET_LEN + 10..ETHERNET_LEN + 12].copy_from_slice(&checksum.to_be_bytes());
    // Ports as WireGuard has them; no checksum, as the tag covers more.
    datagram.extend_from_slice(&51_820u16.to_be_bytes());
    datagram.extend_from_slice(&51_820u16.to_be_bytes());
    datagram.extend_from_slice(&udp_len.to_be_bytes());
    datagram.extend_from_slice(&[0, 0]);
}

impl Gateway for PlainGateway {
    fn handle_lan(&mut self, frame: &[u8], _now: Time, out: &mut Output) {
        let is_ipv4 = frame.get(12..ETHERNET_LEN) == Some(&ETHERTYPE_IPV4);
        let len = frame.len().saturating_sub(ETHERNET_LEN);
        if !is_ipv4 || len < IPV4_LEN || len > self.config.mtu {
            return;
        }
        let mut packet = frame;
        if let Some(at) = classify(frame).tcp {
            self.scratch.clear();
            self.scratch.extend_from_slice(frame);
            clamp_mss(&mut self.scratch, at, self.config.mtu + ETHERNET_LEN);
            packet = &self.scratch;
        }
        let packet = &packet[ETHERNET_LEN..];
        // Padding never makes a packet longer than the inner MTU.
        let padded_len = len.next_multiple_of(PADDING).min(self.config.mtu);
        let datagram = out.datagram(self.config.path);
        write_outer(datagram, HEADER_LEN + padded_len + TAG_LEN);
        datagram.extend_from_slice(&[TYPE_DATA, 0, 0, 0, 0, 0, 0, 1]);
        self.counter += 1;
        datagram.extend_from_slice(&self.counter.to_be_bytes());
        datagram.extend_from_slice(packet);
        datagram.resize(OUTER_LEN + HEADER_LEN + padded_len, 0);
        let tag = seal(datagram);
        datagram.extend_from_slice(&tag);
        self.sent.frames += frame.len() as u64;
        self.sent.headers += (datagram.len() - frame.len()) as u64;
    }

    fn handle_wan(&mut self, _path: u8, datagram: &[u8], _now: Time, out: &mut Output) {
        let Some(packet) = self.open(datagram) else {
            return;
        };
        let Some((source, destination)) = packet
            .get(12..)
            .and_then(|addresses| addresses.first_chunk::<8>())
            .map(|both| {
                (
                    [both[0], both[1], both[2], both[3]],
                    [both[4], both[5], both[6], both[7]],
                )
            })
        else {
            return;
        };
        let frame = out.frame();
        frame.extend_from_slice(&mac_of(destination));
        frame.extend_from_slice(&mac_of(source));
        frame.extend_from_slice(&ETHERTYPE_IPV4);
        frame.extend_from_slice(packet);
    }

    fn poll(&mut self, _now: Time, _out: &mut Output) {}

    fn poll_timeout(&self) -> Option<Time> {
        None
    }

    fn sent(&self) -> SentBytes {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ends, write_udp};
    use crate::world::{Address, Site};

    fn frame(number: u64, payload_len: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        let host = |site, port| Address {
            site,
            number: 5,
            port,
        };
        let ends = Ends {
            from: host(Site::A, 1),
            to: host(Site::B, 2),
        };
        write_udp(&mut frame, ends, 0, number, payload_len);
        frame
    }

    fn cross(gateway: &mut PlainGateway, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut out = Output::default();
        gateway.handle_wan(0, datagram, Time(0), &mut out);
        out.take_frames().collect()
    }

    fn datagram(gateway: &mut PlainGateway, frame: &[u8]) -> Vec<u8> {
        let mut out = Output::default();
        gateway.handle_lan(frame, Time(0), &mut out);
        let (_, datagram) = out.take_datagrams().next().expect("a datagram");
        datagram
    }

    #[test]
    fn a_full_packet_costs_sixty_bytes_and_the_frame_comes_out_as_it_was() {
        let (mut a, mut b) = (
            PlainGateway::new(PlainConfig::default()),
            PlainGateway::new(PlainConfig::default()),
        );
        let full = frame(1, 1_420 - IPV4_LEN - UDP_LEN);
        let sent = datagram(&mut a, &full);
        assert_eq!(sent.len(), ETHERNET_LEN + 1_420 + 60);
        assert_eq!(a.sent().total(), sent.len() as u64);
        assert_eq!(cross(&mut b, &sent), [full]);
        // A small one is padded to 16.
        assert_eq!(datagram(&mut a, &frame(2, 9)).len(), ETHERNET_LEN + 48 + 60);
        let mut out = Output::default();
        a.handle_lan(&frame(3, 1_420), Time(0), &mut out);
        assert!(out.is_empty(), "larger than the MTU");
    }

    #[test]
    fn copies_errors_and_very_late_datagrams_are_dropped() {
        let (mut a, mut b) = (
            PlainGateway::new(PlainConfig::default()),
            PlainGateway::new(PlainConfig::default()),
        );
        let sent = datagram(&mut a, &frame(1, 50));
        for bit in 0..sent.len() * 8 {
            let mut wrong = sent.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(cross(&mut b, &wrong).is_empty(), "bit {bit}");
        }
        assert_eq!(cross(&mut b, &sent).len(), 1);
        assert_eq!(cross(&mut b, &sent).len(), 0, "a copy");
        let late = datagram(&mut a, &frame(2, 50));
        let edge = datagram(&mut a, &frame(3, 50));
        for number in 4..=REPLAY_WINDOW + 2 {
            let next = datagram(&mut a, &frame(number, 50));
            assert_eq!(cross(&mut b, &next).len(), 1);
        }
        assert_eq!(cross(&mut b, &late).len(), 0, "older than the window");
        assert_eq!(cross(&mut b, &edge).len(), 1, "just inside it");
        assert_eq!(cross(&mut b, &edge).len(), 0);
    }
}
