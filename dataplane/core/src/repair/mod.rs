//! Repair: a sliding-window erasure code over source shards (SPEC §4).
//!
//! Source shards leave at once and uncoded. After every s of them the sender adds one *repair
//! shard*: the sum over the last W source shards, each times a coefficient of a Cauchy matrix. The
//! receiver keeps the last source shards and, when some are missing, the repair shards that cover
//! them: equations in the missing ones. As soon as e equations hold e unknowns, it solves.
//!
//! A window, and no block: a lost shard is covered by the next repair shard and by the W / s - 1
//! behind it, so it waits for the next one at best, and never for the end of a block.
//!
//! | file | what |
//! |---|---|
//! | `encoder` | [`Encoder`]: all open windows in one pass; [`combine`]: one window at once |
//! | `decoder` | [`Decoder`]: what arrives, what is rebuilt, and the bounds of its work |
//! | `history`, `equations` | the decoder's two stores, of fixed size |
//! | `bits` | sets of small numbers |
//! | `standing` | [`standing`](standing()): s and W by measured loss, and the residual that was measured |
//!
//! What is coded of a source shard: shard_id, shard_count, first_frame, payload_len, crc32c, then
//! the payload. The coefficients and the solver are `shardgate_erasure`'s.

mod bits;
mod decoder;
mod encoder;
mod equations;
mod history;
mod standing;

pub use self::decoder::{Decoder, DecoderStats, Rebuilt};
pub use self::encoder::{Encoder, EncoderStats, OPEN_MAX, RepairPlan, Symbol, combine};
pub use self::standing::{
    BURST_MAX, LOSS_MAX, LOSS_MIN, burst_at, burst_column, entry, loss_row, standing,
    standing_residual,
};
pub use crate::limits::WINDOW_MAX;

use crate::seq::Seq;
use crate::wire::shard::{CODED_META_LEN, SourceHeader};

/// The vector kernels take whole units of this many bytes; symbols are padded to it while they
/// are computed, because the bytes of a last part of a unit cost as much as the rest together.
const UNIT_LEN: usize = 32;

/// Bytes that a symbol of up to `len` bytes takes while it is computed.
const fn padded(len: usize) -> usize {
    len.next_multiple_of(UNIT_LEN)
}

/// The fields of a source shard's header that are coded, as they stand in front of its payload.
fn coded_meta(header: &SourceHeader) -> [u8; CODED_META_LEN] {
    let [f0, f1] = header.first_frame.to_be_bytes();
    let [l0, l1] = header.payload_len.to_be_bytes();
    let [c0, c1, c2, c3] = header.crc32c.to_be_bytes();
    let (id, count) = (header.shard_id, header.shard_count);
    [id, count, f0, f1, l0, l1, c0, c1, c2, c3]
}

/// The header and payload of a source shard from its coded bytes and what padding follows, if
/// they are sound and match their checksum; a shard without one is never released.
fn parse_coded(seq: Seq, coded: &[u8]) -> Option<(SourceHeader, &[u8])> {
    let (&meta, rest) = coded.split_first_chunk::<CODED_META_LEN>()?;
    let [shard_id, shard_count, f0, f1, l0, l1, c0, c1, c2, c3] = meta;
    let header = SourceHeader {
        repeat: false,
        shard_id,
        shard_count,
        seq,
        same_path: 0,
        sent_at_us: 0,
        first_frame: u16::from_be_bytes([f0, f1]),
        payload_len: u16::from_be_bytes([l0, l1]),
        crc32c: u32::from_be_bytes([c0, c1, c2, c3]),
    };
    let (payload, padding) = rest.split_at_checked(usize::from(header.payload_len))?;
    let released = header.is_sound(payload.len())
        && padding.iter().all(|&byte| byte == 0)
        && header.crc32c != 0
        && header.crc32c == header.checksum(payload);
    released.then_some((header, payload))
}

#[cfg(test)]
mod tests;
