//! `parse_outer`: what an Ethernet frame from a WAN port holds.

use shardgate_core::buffer::{Buffer, HeapBuffer};
use shardgate_core::drop_reason::DropReason;
use shardgate_core::wire::outer::{ETHERNET_LEN, Outer, OuterTemplate, OuterUdp, parse_outer};

pub fn fuzz(frame: &[u8]) {
    check(frame);
    // No search finds a checksum: once more with the right ones.
    let mut mended = frame.to_vec();
    if mend(&mut mended).is_some() {
        check(&mended);
    }
}

fn check(frame: &[u8]) {
    match parse_outer(frame) {
        Ok(Outer::Udp(udp)) => is_what_was_found(frame, udp),
        Ok(Outer::Control) => assert!(frame.len() >= ETHERNET_LEN),
        Err(reason) => assert!(matches!(
            reason,
            DropReason::Malformed
                | DropReason::OuterChecksum
                | DropReason::Fragment
                | DropReason::NotForUs
        )),
    }
}

/// The datagram lies inside the frame, its checksum is right, and building it gives the same.
fn is_what_was_found(frame: &[u8], udp: OuterUdp) {
    let payload = &frame[udp.payload_at..][..udp.payload_len];
    let header = &frame[udp.payload_at - 8..udp.payload_at];
    assert_eq!(udp.source.is_ipv4(), udp.destination.is_ipv4());
    if header[6..] != [0, 0] {
        assert_eq!(naive_udp_sum(&udp, header, payload), 0xffff);
    }
    let template = OuterTemplate::new([2; 6], [4; 6], udp.source, udp.destination);
    let mut built = HeapBuffer::from_bytes(payload);
    assert!(template.is_some_and(|template| template.prepend(&mut built)));
    match parse_outer(built.data()) {
        Ok(Outer::Udp(again)) => {
            assert_eq!(
                (again.source, again.destination),
                (udp.source, udp.destination)
            );
            assert_eq!(
                &built.data()[again.payload_at..][..again.payload_len],
                payload
            );
        }
        other => panic!("what was built does not parse: {other:?}"),
    }
}

/// RFC 1071, word by word.
fn naive_sum(bytes: &[u8], mut sum: u32) -> u32 {
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| low.into());
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

fn naive_udp_sum(udp: &OuterUdp, header: &[u8], payload: &[u8]) -> u32 {
    let octets = |ip| match ip {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut pseudo = octets(udp.source.ip());
    pseudo.extend(octets(udp.destination.ip()));
    pseudo.extend((payload.len() as u32 + 8).to_be_bytes());
    pseudo.extend([0, 17]);
    naive_sum(payload, naive_sum(header, naive_sum(&pseudo, 0)))
}

/// Puts the right checksums where they belong, if there is such a place.
fn mend(frame: &mut [u8]) -> Option<()> {
    let is_ipv4 = match frame.get(12..14)? {
        [0x08, 0x00] => true,
        [0x86, 0xdd] => false,
        _ => return None,
    };
    let packet = frame.get_mut(ETHERNET_LEN..)?;
    let (udp_at, addresses) = if is_ipv4 {
        let header = packet.get_mut(..usize::from(packet.first()? & 0x0f) * 4)?;
        header.get_mut(10..12)?.fill(0);
        let sum = !(naive_sum(header, 0) as u16);
        header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
        (header.len(), 12..20)
    } else {
        (40, 8..40)
    };
    let mut pseudo = packet.get(addresses)?.to_vec();
    let udp_len = u16::from_be_bytes(*packet.get(udp_at + 4..)?.first_chunk()?);
    pseudo.extend(udp_len.to_be_bytes());
    pseudo.extend([0, 17]);
    let datagram = packet.get_mut(udp_at..)?.get_mut(..usize::from(udp_len))?;
    datagram.get_mut(6..8)?.fill(0);
    let sum = match !(naive_sum(datagram, naive_sum(&pseudo, 0)) as u16) {
        0 => 0xffff,
        sum => sum,
    };
    datagram.get_mut(6..8)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}
