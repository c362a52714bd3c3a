//! Feedback: a list of typed blocks (SPEC §6).
//!
//! Each block is `type:8 0:8 len:16` and `len` bytes. A receiver skips types it does not know.

/// Bytes before each block's body.
pub const BLOCK_HEADER_LEN: usize = 4;

/// A block's type, as far as this version speaks it; SPEC §6 lists all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BlockType {
    /// "Send this back": eight bytes that only the challenged can know, and the sender's clock.
    Challenge = 3,
    /// A challenge sent back, and how long it was held.
    Echo = 4,
    /// Zeros, to make a datagram as long as a path's MTU shall be proved.
    Padding = 5,
    /// The sender stops.
    Close = 7,
}

/// A block, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
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
    /// The sender stops.
    Close,
    /// A type this version does not act on.
    Skipped,
}

const CHALLENGE_LEN: usize = 12;
const ECHO_LEN: usize = 16;

impl Block {
    /// Appends the block's bytes through `put`.
    pub fn write(&self, mut put: impl FnMut(&[u8])) {
        let mut header = |block_type: BlockType, len: usize| {
            let [l0, l1] = (len as u16).to_be_bytes();
            put(&[block_type as u8, 0, l0, l1]);
        };
        match *self {
            Block::Challenge { token, sent_at_us } => {
                header(BlockType::Challenge, CHALLENGE_LEN);
                put(&token.to_be_bytes());
                put(&sent_at_us.to_be_bytes());
            }
            Block::Echo {
                token,
                sent_at_us,
                held_us,
            } => {
                header(BlockType::Echo, ECHO_LEN);
                put(&token.to_be_bytes());
                put(&sent_at_us.to_be_bytes());
                put(&held_us.to_be_bytes());
            }
            Block::Close => header(BlockType::Close, 0),
            Block::Skipped => {}
        }
    }

    fn parse(block_type: u8, body: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(*body.get(at..)?.first_chunk()?));
        let token = || Some(u64::from_be_bytes(*body.first_chunk()?));
        Some(match block_type {
            3 => Block::Challenge {
                token: token()?,
                sent_at_us: word(8)?,
            },
            4 => Block::Echo {
                token: token()?,
                sent_at_us: word(8)?,
                held_us: word(12)?,
            },
            7 => Block::Close,
            _ => Block::Skipped,
        })
    }
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

impl Iterator for Blocks<'_> {
    type Item = Block;

    fn next(&mut self) -> Option<Block> {
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
    use super::*;

    #[test]
    fn blocks_round_trip_and_unknown_ones_are_skipped() {
        let blocks = [
            Block::Challenge {
                token: 0x0102_0304_0506_0708,
                sent_at_us: 9,
            },
            Block::Echo {
                token: 10,
                sent_at_us: 11,
                held_us: 12,
            },
            Block::Close,
        ];
        let mut bytes = vec![];
        blocks[0].write(|b| bytes.extend_from_slice(b));
        assert_eq!(bytes, [3, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9]);
        bytes.extend_from_slice(&[99, 0, 0, 3, 1, 2, 3]);
        blocks[1].write(|b| bytes.extend_from_slice(b));
        blocks[2].write(|b| bytes.extend_from_slice(b));
        let mut parsed = Blocks::new(&bytes);
        let read: Vec<_> = parsed.by_ref().collect();
        assert_eq!(read, [blocks[0], Block::Skipped, blocks[1], blocks[2]]);
        assert!(!parsed.is_malformed());
    }

    #[test]
    fn a_block_longer_than_the_message_ends_it() {
        for bytes in [
            &[3, 0, 0][..],
            &[3, 0, 0, 12, 1],
            &[3, 0, 0, 4, 1, 2, 3, 4],
            &[7, 0, 255, 255],
        ] {
            let mut parsed = Blocks::new(bytes);
            assert_eq!(parsed.next(), None);
            assert!(parsed.is_malformed());
        }
    }
}
