//! Knows every frame that entered the tunnel, and judges every frame that comes out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Duration;

use shardgate_core::time::Time;

use crate::packet::{digest, is_sound};

/// Frames older than this may be forgotten. The longest delay a path may have is 10 s, so one
/// that comes later is wrong anyway.
const MEMORY: Duration = Duration::from_secs(30);

/// What the oracle found out about a frame that came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is the frame that `flow` sent at `sent_at`, for the first time.
    Right { flow: usize, sent_at: Time },
    /// It came out before.
    Twice,
    /// Nobody sent this, or it was changed so that no host would take it.
    Wrong,
}

#[derive(Debug)]
struct Frame {
    flow: usize,
    sent_at: Time,
    is_delivered: bool,
}

type Frames = HashMap<u64, Frame, BuildHasherDefault<Digested>>;

/// Two generations of frames by their digest; the older one goes every [`MEMORY`].
#[derive(Debug, Default)]
pub(super) struct Oracle {
    young: Frames,
    old: Frames,
    young_since: Time,
}

impl Oracle {
    /// A frame enters; false if an equal one did before, which a host must not do.
    #[must_use]
    pub(super) fn sent(&mut self, frame: &[u8], flow: usize, now: Time) -> bool {
        if now.since(self.young_since) > MEMORY {
            self.old = std::mem::take(&mut self.young);
            self.young_since = now;
        }
        let key = digest(frame);
        let is_new = !self.old.contains_key(&key);
        match self.young.entry(key) {
            Entry::Vacant(entry) if is_new => {
                entry.insert(Frame {
                    flow,
                    sent_at: now,
                    is_delivered: false,
                });
                true
            }
            _ => false,
        }
    }

    /// A frame comes out.
    pub(super) fn delivered(&mut self, frame: &[u8]) -> Finding {
        let key = digest(frame);
        let found = self.young.get_mut(&key).or_else(|| self.old.get_mut(&key));
        match found {
            Some(sent) if is_sound(frame) => {
                if std::mem::replace(&mut sent.is_delivered, true) {
                    return Finding::Twice;
                }
                Finding::Right {
                    flow: sent.flow,
                    sent_at: sent.sent_at,
                }
            }
            _ => Finding::Wrong,
        }
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct Digested(u64);

impl Hasher for Digested {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Ends, write_udp};
    use crate::world::{Address, Site};

    fn frame(number: u64) -> Vec<u8> {
        let host = |site| Address {
            site,
            number: 1,
            port: 9,
        };
        let mut frame = Vec::new();
        write_udp(
            &mut frame,
            Ends {
                from: host(Site::A),
                to: host(Site::B),
            },
            0,
            number,
            100,
        );
        frame
    }

    #[test]
    fn right_once_then_twice_and_wrong_if_never_sent_or_changed() {
        let mut oracle = Oracle::default();
        assert!(oracle.sent(&frame(1), 4, Time(10)));
        assert!(!oracle.sent(&frame(1), 4, Time(11)));
        assert_eq!(oracle.delivered(&frame(2)), Finding::Wrong);
        let mut changed = frame(1);
        changed[60] ^= 1;
        assert_eq!(oracle.delivered(&changed), Finding::Wrong);
        // A congestion mark without a new checksum: the right frame, but no host takes it.
        let mut marked = frame(1);
        marked[15] |= 3;
        assert_eq!(oracle.delivered(&marked), Finding::Wrong);
        let right = Finding::Right {
            flow: 4,
            sent_at: Time(10),
        };
        assert_eq!(oracle.delivered(&frame(1)), right);
        assert_eq!(oracle.delivered(&frame(1)), Finding::Twice);
    }

    #[test]
    fn remembers_long_enough_and_no_longer() {
        let mut oracle = Oracle::default();
        let second = |s: u64| Time(s * 1_000_000_000);
        assert!(oracle.sent(&frame(1), 0, second(0)));
        assert!(oracle.sent(&frame(2), 0, second(31)));
        assert!(!oracle.sent(&frame(1), 0, second(31)));
        assert!(matches!(oracle.delivered(&frame(1)), Finding::Right { .. }));
        assert!(oracle.sent(&frame(3), 0, second(62)));
        assert_eq!(oracle.delivered(&frame(1)), Finding::Wrong, "forgotten");
    }
}
