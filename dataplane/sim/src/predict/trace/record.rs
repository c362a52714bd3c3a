//! Arrivals as a gateway records them (`record_file`), and the channel that they show.
//!
//! A file is [`MAGIC`] and then one record of 16 bytes for each datagram that arrived and was
//! authentic, in the order they arrived; all numbers are big-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | path number, its low 32 bits |
//! | 4 | the sender's clock when it was numbered, in microseconds, wrapping |
//! | 4 | the receiver's clock when it arrived, in microseconds, wrapping |
//! | 2 | smoothed round trip in tenths of a millisecond, 0 if unknown |
//! | 1 | path in the low three bits, stream above them |
//! | 1 | 0 for a first transmission, 1 for a repeat, 2 for repair |
//!
//! Each stream is a channel of its own. What is missing between path numbers was lost, sent between its
//! neighbours. The two clocks may differ by anything: half the round trip is taken as the shortest
//! delay.

use std::io::Read;
use std::time::Duration;

use shardgate_core::limits::{PATHS_MAX, STREAMS_MAX};
use shardgate_core::time::Time;

use super::{ROWS_MAX, Wrong, plain};
use crate::predict::channel::{Channel, SHARDS_MAX, Shard};

/// What a file begins with: a name and the version.
pub const MAGIC: [u8; 16] = *b"shardgate-rec\x00\x00\x01";

/// Bytes of a record.
pub const RECORD_LEN: usize = 16;

const PATH_BITS: u32 = PATHS_MAX.trailing_zeros();

/// Numbers that can be missing in a row; more is a new start.
const GAP_MAX: i32 = 1 << 16;

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// The first transmission of a source shard.
    First = 0,
    /// A source shard sent again.
    Repeat = 1,
    /// A repair shard.
    Repair = 2,
}

/// A datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The low bits of its path number.
    pub number: u32,
    /// The sender's clock in microseconds; wraps.
    pub sent_us: u32,
    /// The receiver's clock in microseconds; wraps.
    pub received_us: u32,
    /// Smoothed round trip in tenths of a millisecond; 0 if unknown.
    pub round_trip: u16,
    /// The path, below [`PATHS_MAX`].
    pub path: u8,
    /// The stream, below [`STREAMS_MAX`].
    pub stream: u8,
    /// What it was.
    pub what: What,
}

impl Arrival {
    /// The record's bytes.
    pub fn to_bytes(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[0..4].copy_from_slice(&self.number.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sent_us.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.received_us.to_be_bytes());
        bytes[12..14].copy_from_slice(&self.round_trip.to_be_bytes());
        let lane = (self.path % PATHS_MAX as u8) | (self.stream << PATH_BITS);
        bytes[14..].copy_from_slice(&[lane, self.what as u8]);
        bytes
    }

    /// Reads a record; `None` if its stream or kind is none.
    pub fn parse(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        let &[
            n0,
            n1,
            n2,
            n3,
            s0,
            s1,
            s2,
            s3,
            r0,
            r1,
            r2,
            r3,
            t0,
            t1,
            lane,
            what,
        ] = bytes;
        let what = match what {
            0 => What::First,
            1 => What::Repeat,
            2 => What::Repair,
            _ => return None,
        };
        let stream = lane >> PATH_BITS;
        (usize::from(stream) < STREAMS_MAX).then_some(Self {
            number: u32::from_be_bytes([n0, n1, n2, n3]),
            sent_us: u32::from_be_bytes([s0, s1, s2, s3]),
            received_us: u32::from_be_bytes([r0, r1, r2, r3]),
            round_trip: u16::from_be_bytes([t0, t1]),
            path: lane % PATHS_MAX as u8,
            stream,
            what,
        })
    }
}

pub(super) fn read(mut source: impl Read) -> Result<Vec<Arrival>, Wrong> {
    let mut magic = MAGIC;
    source
        .read_exact(&mut magic)
        .map_err(|error| (1, plain(&error)))?;
    let mut arrivals = Vec::new();
    for record in 1.. {
        let mut bytes = [0; RECORD_LEN];
        let mut filled = 0;
        while filled < RECORD_LEN {
            match source.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) => return Err((record, plain(&error))),
            }
        }
        match filled {
            0 => break,
            RECORD_LEN => {}
            // The gateway was stopped while it wrote.
            _ if !arrivals.is_empty() => break,
            _ => return Err((record, "no whole record in it".into())),
        }
        if arrivals.len() >= ROWS_MAX {
            return Err((
                record,
                format!("more than {ROWS_MAX} records; cut the file"),
            ));
        }
        let arrival = Arrival::parse(&bytes).ok_or_else(|| {
            (
                record,
                "no record of this version: stream or kind unknown".into(),
            )
        })?;
        arrivals.push(arrival);
    }
    if arrivals.is_empty() {
        return Err((1, "empty; give a trace with records".into()));
    }
    Ok(arrivals)
}

/// A path's arrivals, with clocks and numbers that do not wrap.
#[derive(Default)]
struct Unwrapped {
    last: Option<Arrival>,
    /// Extended path number, sent and received in microseconds, whether it is source.
    seen: Vec<(i64, i64, i64, bool)>,
    at: (i64, i64, i64),
}

impl Unwrapped {
    fn note(&mut self, arrival: Arrival) {
        let last = *self.last.get_or_insert(arrival);
        let more = |new: u32, old: u32| new.wrapping_sub(old) as i32;
        let number = more(arrival.number, last.number);
        self.at.0 += if number.abs() > GAP_MAX {
            1
        } else {
            i64::from(number)
        };
        self.at.1 += i64::from(more(arrival.sent_us, last.sent_us));
        self.at.2 += i64::from(more(arrival.received_us, last.received_us));
        let (number, sent, received) = self.at;
        self.seen
            .push((number, sent, received, arrival.what == What::First));
        self.last = Some(arrival);
    }
}

/// The channels that a recording shows, one for each stream.
pub(super) fn channels(name: &str, arrivals: &[Arrival], count: usize) -> Vec<Channel> {
    let of_stream = |stream| {
        let arrivals = arrivals.iter().filter(|arrival| arrival.stream == stream);
        let arrivals: Vec<_> = arrivals.copied().collect();
        (!arrivals.is_empty())
            .then(|| channel(&format!("{name} (stream {stream})"), &arrivals, count))
    };
    (0..STREAMS_MAX as u8).filter_map(of_stream).collect()
}

/// First transmissions and what is missing between them.
fn channel(name: &str, arrivals: &[Arrival], count: usize) -> Channel {
    let mut paths: [Unwrapped; PATHS_MAX] = Default::default();
    // All paths' clocks count from the same first arrival.
    let origin = arrivals.first().copied();
    let mut returns = [Duration::ZERO; PATHS_MAX];
    for &arrival in arrivals {
        let path = &mut paths[usize::from(arrival.path) % PATHS_MAX];
        if let (None, Some(origin)) = (path.last, origin) {
            let more = |new: u32, old: u32| i64::from(new.wrapping_sub(old) as i32);
            path.at.1 = more(arrival.sent_us, origin.sent_us);
            path.at.2 = more(arrival.received_us, origin.received_us);
        }
        path.note(arrival);
        let back = &mut returns[usize::from(arrival.path) % PATHS_MAX];
        let half = Duration::from_micros(u64::from(arrival.round_trip) * 50);
        if !half.is_zero() && (back.is_zero() || half < *back) {
            *back = half;
        }
    }
    let mut shards = Vec::new();
    for ((path, seen), back) in (0u8..).zip(&mut paths).zip(returns) {
        path_shards(&mut seen.seen, path, back, &mut shards);
    }
    shards.sort_by_key(|shard: &Shard| shard.sent);
    shards.truncate(count);
    Channel::new(name, shards, returns)
}

fn path_shards(
    seen: &mut [(i64, i64, i64, bool)],
    path: u8,
    least: Duration,
    shards: &mut Vec<Shard>,
) {
    let shortest = seen
        .iter()
        .map(|&(_, sent, received, _)| received - sent)
        .min();
    let Some(shortest) = shortest else { return };
    let least_us = i64::try_from(least.as_micros()).unwrap_or(0);
    // On the sender's clock, moved so that nothing is before the start.
    let time = |us: i64| Time((us.saturating_add(1_000_000_000_000).max(0) as u64) * 1_000);
    let arrived = |received: i64| time(received - shortest + least_us);
    seen.sort_unstable();
    let mut before: Option<(i64, i64)> = None;
    for &(number, sent, received, is_first) in &*seen {
        if let Some((last, last_sent)) = before {
            let missing = (number - last - 1).clamp(0, i64::from(GAP_MAX));
            for step in 1..=missing {
                if shards.len() >= SHARDS_MAX {
                    return;
                }
                let sent = last_sent + (sent - last_sent) * step / (missing + 1);
                shards.push(Shard {
                    sent: time(sent),
                    received: None,
                    path,
                });
            }
        }
        // A number that came twice is a copy.
        let is_copy = before.is_some_and(|(last, _)| last == number);
        if is_first && !is_copy && shards.len() < SHARDS_MAX {
            shards.push(Shard {
                sent: time(sent),
                received: Some(arrived(received).max(time(sent))),
                path,
            });
        }
        before = Some((number, sent));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrival(number: u32, sent_us: u32, received_us: u32) -> Arrival {
        Arrival {
            number,
            sent_us,
            received_us,
            round_trip: 200,
            path: 1,
            stream: 3,
            what: What::First,
        }
    }

    #[test]
    fn a_recording_becomes_its_channel_whatever_the_clocks_say() {
        // Both clocks and the numbers wrap; number u32::MAX is lost, 1 overtakes 0.
        let arrivals = [
            arrival(u32::MAX - 1, u32::MAX - 100, 7_000),
            arrival(1, 200, 7_310),
            arrival(0, 100, 7_350),
        ];
        let channel = channel("test", &arrivals, 100);
        assert_eq!((channel.losses(), channel.late()), (1, 1));
        let delays: Vec<_> = channel
            .shards()
            .iter()
            .map(|shard| shard.delay().map(|delay| delay.as_micros()))
            .collect();
        // Half of 20 ms is the shortest.
        assert_eq!(delays, [Some(10_000), None, Some(10_149), Some(10_009)]);
        assert_eq!(channel.return_delay(1), Duration::from_millis(10));
    }

    proptest! {
        #[test]
        fn records_go_there_and_back(
            number: u32, sent_us: u32, received_us: u32, round_trip: u16, path in 0u8..8,
            stream in 0u8..16, what in 0u8..3,
        ) {
            let what = [What::First, What::Repeat, What::Repair][usize::from(what)];
            let arrival = Arrival { number, sent_us, received_us, round_trip, path, stream, what };
            prop_assert_eq!(Arrival::parse(&arrival.to_bytes()), Some(arrival));
        }

        #[test]
        fn any_records_make_a_channel_in_order(
            rows in prop::collection::vec(any::<[u8; RECORD_LEN]>(), 1..40),
        ) {
            let arrivals: Vec<_> = rows
                .into_iter()
                .filter_map(|mut bytes| {
                    (bytes[14], bytes[15]) = (bytes[14] % 128, bytes[15] % 3);
                    // Near each other, or nothing follows from them.
                    (bytes[0], bytes[1], bytes[2]) = (0, 0, bytes[2] % 4);
                    Arrival::parse(&bytes)
                })
                .collect();
            for channel in channels("any", &arrivals, SHARDS_MAX) {
                prop_assert!(channel.shards().is_sorted_by_key(|shard| shard.sent));
                for shard in channel.shards() {
                    prop_assert!(shard.received.is_none_or(|at| at >= shard.sent));
                }
            }
        }
    }
}
