//! What the model needs to know of a frame.

/// Bytes of an Ethernet header without tags: two addresses and the ethertype.
const ETHERNET_HEADER: usize = 14;
/// Bytes of one VLAN tag (IEEE 802.1Q).
const VLAN_TAG: usize = 4;
/// A frame carries at most a service and a customer tag (IEEE 802.1ad).
const VLAN_TAGS_MAX: usize = 2;

/// Length of an Ethernet frame and of its link-layer header, in bytes, both without the FCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameShape {
    len: usize,
    header_len: usize,
}

impl FrameShape {
    /// A frame of `len` bytes without VLAN tags.
    #[inline]
    pub fn untagged(len: usize) -> Self {
        Self {
            len,
            header_len: ETHERNET_HEADER.min(len),
        }
    }

    /// The shape of `frame`, whose VLAN tags count as header: the MTU does not include them.
    #[inline]
    pub fn of(frame: &[u8]) -> Self {
        let mut header_len = ETHERNET_HEADER;
        for _ in 0..VLAN_TAGS_MAX {
            match frame.get(header_len - 2..header_len) {
                Some([0x81, 0x00] | [0x88, 0xa8]) => header_len += VLAN_TAG,
                _ => break,
            }
        }
        Self {
            len: frame.len(),
            header_len: header_len.min(frame.len()),
        }
    }

    /// The whole frame, in bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.len
    }

    /// True for a frame of no bytes.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Bytes before the network-layer packet.
    #[inline]
    pub fn header_len(self) -> usize {
        self.header_len
    }

    /// The network-layer packet, in bytes: what the MTU bounds.
    #[inline]
    pub fn payload_len(self) -> usize {
        self.len - self.header_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlan_tags_count_as_header() {
        let mut frame = vec![0u8; 64];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        assert_eq!(FrameShape::of(&frame).header_len(), 14);
        frame[12..14].copy_from_slice(&[0x81, 0x00]);
        assert_eq!(FrameShape::of(&frame).header_len(), 18);
        frame[12..14].copy_from_slice(&[0x88, 0xa8]);
        frame[16..18].copy_from_slice(&[0x81, 0x00]);
        frame[20..22].copy_from_slice(&[0x81, 0x00]);
        assert_eq!(
            FrameShape::of(&frame).header_len(),
            22,
            "a third tag is payload"
        );
    }

    #[test]
    fn a_runt_is_all_header() {
        for len in 0..14 {
            let shape = FrameShape::of(&[0x81; 14][..len]);
            assert_eq!((shape.header_len(), shape.payload_len()), (len, 0));
            assert_eq!(FrameShape::untagged(len).payload_len(), 0);
        }
        // A tag whose frame ends inside it.
        let mut frame = [0u8; 15];
        frame[12] = 0x81;
        assert_eq!(FrameShape::of(&frame).payload_len(), 0);
    }
}
