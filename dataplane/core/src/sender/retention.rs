//! Plaintext copies of the last source shards, so that they can be sent again.
//!
//! Copies instead of references to what was sealed (ADR 4): a crypto unit seals in place on another
//! lcore, so the buffer is not ours any more, and a coded answer over several shards needs their
//! plaintext.

use crate::limits::REPLAY_WINDOW;
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::shard::{SOURCE_HEADER_LEN, SourceHeader};

/// What became of a retained shard, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Sent, and not reported yet.
    Unknown,
    /// The peer has it.
    Arrived,
    /// Numbered, but it died before it was sent.
    NotSent,
}

/// A retained shard, but for its payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retained {
    pub header: SourceHeader,
    pub fate: Fate,
    /// When it was sent last, however often.
    pub last_sent: Time,
    /// How often it was sent again.
    pub answers: u8,
    /// Whether it was asked for and waits to be sent again.
    pub queued: bool,
}

/// A ring of slots, one for each of the last sequence numbers.
pub(crate) struct Retention {
    entries: Box<[Option<Retained>]>,
    payloads: Box<[u8]>,
    stride: usize,
}

impl Retention {
    /// Room for payloads of up to `payload_max` bytes within `bytes_max`; none at all if either is
    /// too small. Never more than path numbers can be told apart.
    pub(crate) fn new(bytes_max: usize, payload_max: usize) -> Self {
        let stride = payload_max.next_multiple_of(64).max(64);
        let count = (bytes_max / (stride + SOURCE_HEADER_LEN)).min(REPLAY_WINDOW / 2);
        // A power of two, so that the wrap of sequence numbers is none of ours.
        let count = if count == 0 { 0 } else { 1 << count.ilog2() };
        Self {
            entries: vec![None; count].into_boxed_slice(),
            payloads: vec![0; count * stride].into_boxed_slice(),
            stride,
        }
    }

    fn index(&self, seq: Seq) -> Option<usize> {
        (seq.0 as usize).checked_rem(self.entries.len())
    }

    /// Keeps a copy, over the oldest. A payload that is too long is not kept.
    #[inline]
    pub(crate) fn keep(&mut self, header: SourceHeader, payload: &[u8], now: Time) {
        let Some(index) = self.index(header.seq) else {
            return;
        };
        let room = &mut self.payloads[index * self.stride..][..self.stride];
        let fits = room.get_mut(..payload.len());
        self.entries[index] = fits.map(|room| {
            room.copy_from_slice(payload);
            Retained {
                header,
                fate: Fate::Unknown,
                last_sent: now,
                answers: 0,
                queued: false,
            }
        });
    }

    /// The shard with this number, if it is still there.
    #[inline]
    pub(crate) fn get(&self, seq: Seq) -> Option<&Retained> {
        let entry = self.entries.get(self.index(seq)?)?.as_ref();
        entry.filter(|entry| entry.header.seq == seq)
    }

    /// The shard with this number, if it is still there.
    #[inline]
    pub(crate) fn get_mut(&mut self, seq: Seq) -> Option<&mut Retained> {
        let index = self.index(seq)?;
        let entry = self.entries.get_mut(index)?.as_mut();
        entry.filter(|entry| entry.header.seq == seq)
    }

    /// Its payload.
    pub(crate) fn payload(&self, seq: Seq) -> Option<&[u8]> {
        let entry = self.get(seq)?;
        let start = self.index(seq)? * self.stride;
        self.payloads
            .get(start..start + usize::from(entry.header.payload_len))
    }

    /// How many of the newest sequence numbers can be there at most.
    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(seq: u32, payload: &[u8]) -> SourceHeader {
        SourceHeader::single(Seq(seq), payload)
    }

    #[test]
    fn the_last_shards_are_there_across_the_wrap_and_no_others() {
        let mut retention = Retention::new(5 * (128 + SOURCE_HEADER_LEN), 100);
        assert_eq!(retention.capacity(), 4);
        let first = u32::MAX - 3;
        for step in 0..7u32 {
            let seq = first.wrapping_add(step);
            let payload = [step as u8; 90];
            retention.keep(header(seq, &payload), &payload, Time(step.into()));
        }
        for step in 0..7u32 {
            let payload = retention.payload(Seq(first.wrapping_add(step)));
            let expected = [step as u8; 90];
            assert_eq!(payload, (step >= 3).then_some(&expected[..]), "step {step}");
        }
        assert!(retention.get(Seq(first.wrapping_add(7))).is_none());
    }

    #[test]
    fn what_does_not_fit_is_not_kept_and_takes_no_old_ones_place() {
        let mut retention = Retention::new(4096, 64);
        retention.keep(header(1, &[1; 64]), &[1; 64], Time::ZERO);
        let other = 1 + retention.capacity() as u32;
        retention.keep(header(other, &[2; 65]), &[2; 65], Time::ZERO);
        assert!(retention.get(Seq(other)).is_none());
        assert!(
            retention.get(Seq(1)).is_none(),
            "its number is out of reach"
        );
        let mut none = Retention::new(0, 64);
        none.keep(header(1, &[1]), &[1], Time::ZERO);
        assert!(none.get(Seq(1)).is_none());
    }
}
