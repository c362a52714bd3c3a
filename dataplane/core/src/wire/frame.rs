//! The frame header inside an aggregate (SPEC §5): `len:16 lane:8 lane_seq:24`.

use crate::lane::Lane;
use crate::limits::{FRAME_MAX, FRAME_MIN};
use crate::seq::LaneSeq;

/// Bytes of a frame header. It never straddles two shards.
pub const FRAME_HEADER_LEN: usize = 6;

/// What stands before each frame in an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// Bytes of the frame, [`FRAME_MIN`] to [`FRAME_MAX`].
    pub len: u16,
    /// The lane it keeps its order in.
    pub lane: Lane,
    /// Its place in the lane.
    pub lane_seq: LaneSeq,
}

impl FrameHeader {
    /// The header's bytes.
    #[inline]
    pub fn to_bytes(&self) -> [u8; FRAME_HEADER_LEN] {
        let [l0, l1] = self.len.to_be_bytes();
        let [_, s0, s1, s2] = self.lane_seq.get().to_be_bytes();
        [l0, l1, self.lane.0, s0, s1, s2]
    }

    /// Reads the header at the start of `bytes`; `None` if they are too few, or the frame is shorter or
    /// longer than the tunnel carries.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let &[l0, l1, lane, s0, s1, s2] = bytes.first_chunk::<FRAME_HEADER_LEN>()?;
        let len = u16::from_be_bytes([l0, l1]);
        let lane_seq = LaneSeq::new(u32::from_be_bytes([0, s0, s1, s2]));
        (FRAME_MIN..=FRAME_MAX)
            .contains(&usize::from(len))
            .then_some(Self {
                len,
                lane: Lane(lane),
                lane_seq,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_vector() {
        let header = FrameHeader {
            len: 1514,
            lane: Lane(200),
            lane_seq: LaneSeq::new(0x0a_0b0c),
        };
        assert_eq!(header.to_bytes(), [0x05, 0xea, 200, 0x0a, 0x0b, 0x0c]);
        assert_eq!(FrameHeader::parse(&header.to_bytes()), Some(header));
        assert_eq!(FrameHeader::parse(&[0x05, 0xea, 200, 0x0a, 0x0b]), None);
        for (len, is_carried) in [
            (0, false),
            (13, false),
            (14, true),
            (9_022, true),
            (9_023, false),
        ] {
            let [l0, l1] = u16::to_be_bytes(len);
            assert_eq!(
                FrameHeader::parse(&[l0, l1, 1, 0, 0, 0]).is_some(),
                is_carried,
                "{len}"
            );
        }
    }
}
