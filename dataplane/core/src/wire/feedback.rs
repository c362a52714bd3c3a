//! Feedback: a list of typed blocks (SPEC §6).
//!
//! Each block is `type:8 0:8 len:16` and `len` bytes. A receiver skips types it does not know.

use crate::buffer::Buffer;
use crate::seq::Seq;
use crate::wire::header::TAG_LEN;

/// Bytes before each block's body.
pub const BLOCK_HEADER_LEN: usize = 4;

/// A block's type, as far as this version speaks it; SPEC §6 lists all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BlockType {
    /// What was received of a stream on one path.
    Report = 1,
    /// "Send these again."
    Wanted = 2,
    /// "Send this back": eight bytes that only the challenged can know, and the sender's clock.
    Challenge = 3,
    /// A challenge sent back, and how long it was held.
    Echo = 4,
    /// Zeros, to make a datagram as long as a path's MTU shall be proved.
    Padding = 5,
    /// Numbered, but never sent: take it out of loss and models.
    NotSent = 6,
    /// The sender stops.
    Close = 7,
    /// How far a stream goes, and what of it is gone.
    Extent = 8,
}

/// Most runs in a report: at 5 % loss and 200 Mbit/s three reports' worth.
pub const RANGES_MAX: usize = 64;

/// Bytes of a report's body without its runs.
pub const REPORT_LEN: usize = 56;

/// Bytes of a run in a report.
pub const RANGE_LEN: usize = 4;

/// Bytes of a sequence number in a list.
pub const SEQ_LEN: usize = 4;

/// What was received of a stream on one path; cumulative but for the delays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The data sender's id for the path.
    pub path: u8,
    /// Largest path number received.
    pub largest: u64,
    /// Datagrams received.
    pub received: u64,
    /// Their bytes, sealed, without outer headers.
    pub received_bytes: u64,
    /// Shards rebuilt from repair; wraps.
    pub rebuilt: u32,
    /// Shards that came after their hole had been given up; wraps.
    pub late: u32,
    /// Smallest relative one-way delay since the last report: the receiver's clock less
    /// `sent_at_us`, which is known but for a constant; wraps.
    pub delay_min_us: u32,
    /// Mean of the same.
    pub delay_mean_us: u32,
    /// Datagrams that came marked by congestion; wraps.
    pub ce_marks: u32,
    /// Newest `sent_at_us` received.
    pub echo_sent_at_us: u32,
    /// Microseconds between receiving that and sending this.
    pub echo_held_us: u32,
}

/// A run of received path numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Numbers missing between this run and the one above it (or the largest).
    pub gap: u16,
    /// Numbers received in a row.
    pub len: u16,
}

/// A list of sequence numbers in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeqList<'a>(&'a [u8]);

impl<'a> SeqList<'a> {
    /// The numbers.
    pub fn iter(self) -> impl Iterator<Item = Seq> + 'a {
        let (words, _) = self.0.as_chunks::<SEQ_LEN>();
        words.iter().map(|word| Seq(u32::from_be_bytes(*word)))
    }
}

/// The runs of a report: from its largest number downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges<'a>(&'a [u8]);

impl<'a> Ranges<'a> {
    /// The runs, at most [`RANGES_MAX`].
    pub fn iter(self) -> impl Iterator<Item = Range> + 'a {
        let (ranges, _) = self.0.as_chunks::<RANGE_LEN>();
        ranges.iter().map(|&[g0, g1, l0, l1]| Range {
            gap: u16::from_be_bytes([g0, g1]),
            len: u16::from_be_bytes([l0, l1]),
        })
    }
}

/// A block, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block<'a> {
    /// What was received of a stream on one path.
    Report(Report, Ranges<'a>),
    /// "Send these again."
    Wanted(SeqList<'a>),
    /// "Send this back."
    Challenge {
        /// What only the receiver of the challenge can know.
        token: u64,
        /// The challenger's clock in microseconds.
        sent_at_us: u32,
    },
    /// A challenge sent back.
    Echo {
        /// The challenge's token.
        token: u64,
        /// The challenge's `sent_at_us`.
        sent_at_us: u32,
        /// Microseconds between receiving the challenge and sending the echo.
        held_us: u32,
    },
    /// Numbered, but never sent.
    NotSent(SeqList<'a>),
    /// The sender stops.
    Close,
    /// How far a stream goes, and what of it is gone.
    Extent {
        /// The newest sequence number sent.
        highest: Seq,
        /// Nothing below this can be sent again.
        floor: Seq,
    },
    /// A type this version does not act on.
    Skipped,
}

const CHALLENGE_LEN: usize = 12;
const ECHO_LEN: usize = 16;
const EXTENT_LEN: usize = 8;

/// Writes blocks into a message's free room; a block that does not fit is not written at all.
pub struct BlockWriter<'a, B> {
    message: &'a mut B,
    len_max: usize,
}

impl<'a, B: Buffer> BlockWriter<'a, B> {
    /// Appends to `message`, up to `len_max` bytes in all, keeping room for a tag.
    pub fn new(message: &'a mut B, len_max: usize) -> Self {
        Self { message, len_max }
    }

    /// Bytes that blocks may still take.
    pub fn room(&self) -> usize {
        let room = self.message.tailroom().saturating_sub(TAG_LEN);
        room.min(self.len_max.saturating_sub(self.message.len()))
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.message.is_empty()
    }

    /// Room for the body of a block.
    fn block(&mut self, block_type: BlockType, len: usize) -> Option<&mut [u8]> {
        if BLOCK_HEADER_LEN + len > self.room() {
            return None;
        }
        let [l0, l1] = u16::try_from(len).ok()?.to_be_bytes();
        let block = self.message.append(BLOCK_HEADER_LEN + len)?;
        let (header, body) = block.split_at_mut(BLOCK_HEADER_LEN);
        header.copy_from_slice(&[block_type as u8, 0, l0, l1]);
        Some(body)
    }

    fn fields<const N: usize>(&mut self, block_type: BlockType, fields: [u32; N]) -> bool {
        let Some(body) = self.block(block_type, 4 * N) else {
            return false;
        };
        for (room, field) in body.chunks_exact_mut(4).zip(fields) {
            room.copy_from_slice(&field.to_be_bytes());
        }
        true
    }

    /// "Send this back." False if there was no room, here and below.
    pub fn challenge(&mut self, token: u64, sent_at_us: u32) -> bool {
        let [high, low] = halves(token);
        self.fields(BlockType::Challenge, [high, low, sent_at_us])
    }

    /// A challenge sent back.
    pub fn echo(&mut self, token: u64, sent_at_us: u32, held_us: u32) -> bool {
        let [high, low] = halves(token);
        self.fields(BlockType::Echo, [high, low, sent_at_us, held_us])
    }

    /// The sender stops.
    pub fn close(&mut self) -> bool {
        self.fields(BlockType::Close, [])
    }

    /// How far the stream goes, and what of it is gone.
    pub fn extent(&mut self, highest: Seq, floor: Seq) -> bool {
        self.fields(BlockType::Extent, [highest.0, floor.0])
    }

    /// Zeros up to so many bytes of the message in all; false if they do not fit, or the block that
    /// they stand in is too long already.
    pub fn pad_to(&mut self, len: usize) -> bool {
        let missing = len.checked_sub(self.message.len() + BLOCK_HEADER_LEN);
        let body = missing.and_then(|missing| self.block(BlockType::Padding, missing));
        body.map(|body| body.fill(0)).is_some()
    }

    /// A list of sequence numbers, as many as fit; says how many.
    pub fn seqs(
        &mut self,
        block_type: BlockType,
        seqs: impl ExactSizeIterator<Item = Seq>,
    ) -> usize {
        let fits = self.room().saturating_sub(BLOCK_HEADER_LEN) / SEQ_LEN;
        let count = seqs.len().min(fits);
        if count == 0 {
            return 0;
        }
        let Some(body) = self.block(block_type, count * SEQ_LEN) else {
            return 0;
        };
        for (room, seq) in body.chunks_exact_mut(SEQ_LEN).zip(seqs) {
            room.copy_from_slice(&seq.0.to_be_bytes());
        }
        count
    }

    /// A report with as many of its runs as fit, the highest first.
    pub fn report(&mut self, report: &Report, ranges: &[Range]) -> bool {
        let Some(room) = self.room().checked_sub(BLOCK_HEADER_LEN + REPORT_LEN) else {
            return false;
        };
        let count = ranges.len().min(RANGES_MAX).min(room / RANGE_LEN);
        let Some(body) = self.block(BlockType::Report, REPORT_LEN + count * RANGE_LEN) else {
            return false;
        };
        let words = [
            u32::from_be_bytes([report.path, count as u8, 0, 0]),
            halves(report.largest)[0],
            halves(report.largest)[1],
            halves(report.received)[0],
            halves(report.received)[1],
            halves(report.received_bytes)[0],
            halves(report.received_bytes)[1],
            report.rebuilt,
            report.late,
            report.delay_min_us,
            report.delay_mean_us,
            report.ce_marks,
            report.echo_sent_at_us,
            report.echo_held_us,
        ];
        let (fixed, runs) = body.split_at_mut(REPORT_LEN);
        for (room, word) in fixed.chunks_exact_mut(4).zip(words) {
            room.copy_from_slice(&word.to_be_bytes());
        }
        for (room, range) in runs.chunks_exact_mut(RANGE_LEN).zip(ranges) {
            let [g0, g1] = range.gap.to_be_bytes();
            let [l0, l1] = range.len.to_be_bytes();
            room.copy_from_slice(&[g0, g1, l0, l1]);
        }
        true
    }
}

fn halves(word: u64) -> [u32; 2] {
    [(word >> 32) as u32, word as u32]
}

/// Reads the fields of a body, from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn word(&mut self) -> Option<u32> {
        let (word, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*word))
    }

    fn double(&mut self) -> Option<u64> {
        Some(u64::from(self.word()?) << 32 | u64::from(self.word()?))
    }
}

impl<'a> Block<'a> {
    fn parse(block_type: u8, body: &'a [u8]) -> Option<Self> {
        let mut fields = Fields(body);
        Some(match block_type {
            1 => Self::parse_report(body)?,
            2 => Block::Wanted(seq_list(body)?),
            3 if body.len() >= CHALLENGE_LEN => Block::Challenge {
                token: fields.double()?,
                sent_at_us: fields.word()?,
            },
            4 if body.len() >= ECHO_LEN => Block::Echo {
                token: fields.double()?,
                sent_at_us: fields.word()?,
                held_us: fields.word()?,
            },
            3 | 4 => return None,
            6 => Block::NotSent(seq_list(body)?),
            7 => Block::Close,
            8 if body.len() >= EXTENT_LEN => Block::Extent {
                highest: Seq(fields.word()?),
                floor: Seq(fields.word()?),
            },
            8 => return None,
            _ => Block::Skipped,
        })
    }

    fn parse_report(body: &'a [u8]) -> Option<Self> {
        let (fixed, ranges) = body.split_at_checked(REPORT_LEN)?;
        let mut fields = Fields(fixed);
        let [path, count, _, _] = fields.word()?.to_be_bytes();
        let is_sound =
            usize::from(count) <= RANGES_MAX && ranges.len() == usize::from(count) * RANGE_LEN;
        let report = Report {
            path,
            largest: fields.double()?,
            received: fields.double()?,
            received_bytes: fields.double()?,
            rebuilt: fields.word()?,
            late: fields.word()?,
            delay_min_us: fields.word()?,
            delay_mean_us: fields.word()?,
            ce_marks: fields.word()?,
            echo_sent_at_us: fields.word()?,
            echo_held_us: fields.word()?,
        };
        is_sound.then_some(Block::Report(report, Ranges(ranges)))
    }
}

fn seq_list(body: &[u8]) -> Option<SeqList<'_>> {
    body.len().is_multiple_of(SEQ_LEN).then_some(SeqList(body))
}

/// The blocks of an opened feedback message; ends at the first that cannot be parsed.
#[derive(Clone, Debug)]
pub struct Blocks<'a> {
    rest: &'a [u8],
    malformed: bool,
}

impl<'a> Blocks<'a> {
    /// The blocks in `plaintext`.
    pub fn new(plaintext: &'a [u8]) -> Self {
        Self {
            rest: plaintext,
            malformed: false,
        }
    }

    /// True if what was left when the iteration ended was no block.
    pub fn is_malformed(&self) -> bool {
        self.malformed
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        if self.rest.is_empty() || self.malformed {
            return None;
        }
        let parsed = self.rest.split_first_chunk::<BLOCK_HEADER_LEN>().and_then(
            |(&[block_type, _, l0, l1], rest)| {
                let (body, rest) =
                    rest.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
                Some((Block::parse(block_type, body)?, rest))
            },
        );
        match parsed {
            Some((block, rest)) => {
                self.rest = rest;
                Some(block)
            }
            None => {
                self.malformed = true;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::buffer::HeapBuffer;

    fn message(write: impl FnOnce(&mut BlockWriter<'_, HeapBuffer>)) -> Vec<u8> {
        let mut buffer = HeapBuffer::new(0, 512);
        write(&mut BlockWriter::new(&mut buffer, 500));
        buffer.data().to_vec()
    }

    const REPORT: Report = Report {
        path: 1,
        largest: 0x0203_0405_0607_0809,
        received: 10,
        received_bytes: 11,
        rebuilt: 12,
        late: 13,
        delay_min_us: 14,
        delay_mean_us: 15,
        ce_marks: 16,
        echo_sent_at_us: 17,
        echo_held_us: 18,
    };

    #[test]
    fn blocks_round_trip_and_unknown_ones_are_skipped() {
        let mut bytes = message(|w| assert!(w.challenge(0x0102_0304_0506_0708, 9)));
        assert_eq!(bytes, [3, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9]);
        bytes.extend_from_slice(&[99, 0, 0, 3, 1, 2, 3]);
        let ranges = [
            Range { gap: 0, len: 7 },
            Range {
                gap: 3,
                len: 0xabcd,
            },
        ];
        bytes.extend(message(|w| {
            assert!(w.echo(10, 11, 12));
            assert!(w.report(&REPORT, &ranges));
            assert_eq!(w.seqs(BlockType::Wanted, [Seq(1), Seq(!0)].into_iter()), 2);
            assert_eq!(w.seqs(BlockType::NotSent, [Seq(2)].into_iter()), 1);
            assert!(w.extent(Seq(5), Seq(4)));
            assert!(w.close());
        }));
        let mut parsed = Blocks::new(&bytes);
        let read: Vec<_> = parsed.by_ref().collect();
        assert!(!parsed.is_malformed());
        assert_eq!(read.len(), 8);
        assert_eq!(
            read[..3],
            [
                Block::Challenge {
                    token: 0x0102_0304_0506_0708,
                    sent_at_us: 9
                },
                Block::Skipped,
                Block::Echo {
                    token: 10,
                    sent_at_us: 11,
                    held_us: 12
                }
            ]
        );
        let Block::Report(report, runs) = read[3] else {
            panic!("no report: {:?}", read[3]);
        };
        assert_eq!(report, REPORT);
        assert_eq!(runs.iter().collect::<Vec<_>>(), ranges);
        let (Block::Wanted(wanted), Block::NotSent(not_sent)) = (read[4], read[5]) else {
            panic!("no lists: {read:?}");
        };
        assert_eq!(wanted.iter().collect::<Vec<_>>(), [Seq(1), Seq(!0)]);
        assert_eq!(not_sent.iter().collect::<Vec<_>>(), [Seq(2)]);
        let extent = Block::Extent {
            highest: Seq(5),
            floor: Seq(4),
        };
        assert_eq!(read[6..], [extent, Block::Close]);
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let mut buffer = HeapBuffer::new(0, TAG_LEN + 16);
        let mut writer = BlockWriter::new(&mut buffer, 500);
        assert!(!writer.report(&REPORT, &[]));
        assert!(writer.is_empty());
        assert_eq!(writer.seqs(BlockType::Wanted, [Seq(1); 9].into_iter()), 3);
        assert!(!writer.close());
        assert_eq!(buffer.len(), 16);
    }

    #[test]
    fn a_block_longer_than_the_message_ends_it() {
        for bytes in [
            &[3, 0, 0][..],
            &[3, 0, 0, 12, 1],
            &[3, 0, 0, 4, 1, 2, 3, 4],
            &[7, 0, 255, 255],
            &[2, 0, 0, 3, 1, 2, 3],
            &[1, 0, 0, 4, 0, 0, 0, 0],
            &[8, 0, 0, 4, 0, 0, 0, 0],
        ] {
            let mut parsed = Blocks::new(bytes);
            assert_eq!(parsed.next(), None);
            assert!(parsed.is_malformed());
        }
        let mut lying = message(|w| assert!(w.report(&REPORT, &[Range { gap: 1, len: 1 }])));
        lying[BLOCK_HEADER_LEN + 1] = 2;
        assert_eq!(Blocks::new(&lying).next(), None, "more runs than there are");
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for block in Blocks::new(&bytes) {
                match block {
                    Block::Report(_, ranges) => prop_assert!(ranges.iter().count() <= RANGES_MAX),
                    Block::Wanted(seqs) | Block::NotSent(seqs) => {
                        prop_assert!(seqs.iter().count() <= bytes.len() / SEQ_LEN);
                    }
                    _ => {}
                }
            }
        }
    }
}
