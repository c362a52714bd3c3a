//! Which Ethernet address a next hop has: ARP, hardened.
//!
//! Only what we asked for is believed: an answer counts when it names a neighbour that somebody
//! needs, was sent to us, and comes within [`ARP_ANSWER_WINDOW`](limits::ARP_ANSWER_WINDOW) of our
//! last request. A neighbour that announces itself with another address than the one we hold is
//! asked again, at most once per [`ARP_RETRY`](limits::ARP_RETRY), and otherwise ignored.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use shardgate_core::time::Time;

use crate::limits;

/// A neighbour on a port.
type Key = (usize, Ipv4Addr);

struct Neighbour {
    mac: Option<[u8; 6]>,
    asked_at: Time,
    ask_at: Time,
    wanted_at: Time,
    /// The newest frame that waits for the address; its Ethernet destination is filled in then.
    waiting: Option<Vec<u8>>,
}

/// A request that is due.
#[derive(Debug, PartialEq, Eq)]
pub struct Ask {
    /// Index of the port.
    pub port: usize,
    /// Who is looked for.
    pub target: Ipv4Addr,
    /// Where it was so far: it alone is asked first.
    pub known: Option<[u8; 6]>,
}

/// The neighbours that somebody needs.
#[derive(Default)]
pub struct Neighbours {
    table: BTreeMap<Key, Neighbour>,
}

impl Neighbours {
    /// The Ethernet address of a neighbour, if known; from now on it is looked for.
    pub fn find(&mut self, now: Time, port: usize, address: Ipv4Addr) -> Option<[u8; 6]> {
        let known = self.table.get_mut(&(port, address));
        let Some(neighbour) = known else {
            if self.table.len() < limits::NEIGHBOURS_MAX {
                let neighbour = Neighbour {
                    mac: None,
                    asked_at: Time::ZERO,
                    ask_at: now,
                    wanted_at: now,
                    waiting: None,
                };
                self.table.insert((port, address), neighbour);
            }
            return None;
        };
        neighbour.wanted_at = now;
        neighbour.mac
    }

    /// Keeps a frame until the neighbour is found; an older one gives way.
    pub fn hold(&mut self, port: usize, address: Ipv4Addr, frame: Vec<u8>) {
        if let Some(neighbour) = self.table.get_mut(&(port, address)) {
            neighbour.waiting = Some(frame);
        }
    }

    /// Looks for a neighbour anew, soon; what is known of it serves until it answers.
    pub fn refresh(&mut self, now: Time, port: usize, address: Ipv4Addr) {
        if let Some(neighbour) = self.table.get_mut(&(port, address)) {
            let soonest = neighbour.asked_at + limits::ARP_RETRY;
            neighbour.ask_at = neighbour.ask_at.min(soonest.max(now));
        }
    }

    /// A neighbour has said where it is, in a frame to us. True if that was asked for; the frame
    /// that has waited for it comes back.
    pub fn answered(
        &mut self,
        now: Time,
        port: usize,
        address: Ipv4Addr,
        mac: [u8; 6],
    ) -> (bool, Option<Vec<u8>>) {
        let Some(neighbour) = self.table.get_mut(&(port, address)) else {
            return (false, None);
        };
        let asked = neighbour.asked_at > Time::ZERO
            && now.since(neighbour.asked_at) <= limits::ARP_ANSWER_WINDOW;
        if !asked {
            return (false, None);
        }
        neighbour.mac = Some(mac);
        neighbour.ask_at = now + limits::ARP_REFRESH;
        // One question, one answer: a second one is not believed.
        neighbour.asked_at = Time::ZERO;
        (true, neighbour.waiting.take())
    }

    /// Somebody has been heard to use this address, unasked. If that is news about a neighbour,
    /// it is asked.
    pub fn overheard(&mut self, now: Time, port: usize, address: Ipv4Addr, mac: [u8; 6]) {
        let news = self
            .table
            .get(&(port, address))
            .is_some_and(|neighbour| neighbour.mac != Some(mac));
        if news {
            self.refresh(now, port, address);
        }
    }

    /// The requests that are due now; forgets whom nobody needs.
    pub fn poll(&mut self, now: Time) -> Vec<Ask> {
        self.table
            .retain(|_, neighbour| now.since(neighbour.wanted_at) < limits::NEIGHBOUR_IDLE);
        let mut due = Vec::new();
        for (&(port, target), neighbour) in &mut self.table {
            if now < neighbour.ask_at {
                continue;
            }
            // An unanswered refresh goes to everybody: the neighbour may have been replaced.
            let unanswered = neighbour.asked_at > Time::ZERO;
            let known = neighbour.mac.filter(|_| !unanswered);
            neighbour.asked_at = now;
            neighbour.ask_at = now + limits::ARP_RETRY;
            due.push(Ask {
                port,
                target,
                known,
            });
        }
        due
    }

    /// How many are looked for or known.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PEER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 3];

    fn at(ms: u64) -> Time {
        Time(1_000_000_000) + Duration::from_millis(ms)
    }

    fn ask(known: Option<[u8; 6]>) -> Vec<Ask> {
        vec![Ask {
            port: 1,
            target: PEER,
            known,
        }]
    }

    #[test]
    fn a_neighbour_is_asked_for_until_it_answers() {
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.find(at(0), 1, PEER), None);
        neighbours.hold(1, PEER, vec![1]);
        neighbours.hold(1, PEER, vec![2]);
        assert_eq!(neighbours.poll(at(0)), ask(None));
        assert_eq!(neighbours.poll(at(999)), []);
        assert_eq!(neighbours.poll(at(1000)), ask(None));
        assert_eq!(
            neighbours.answered(at(1100), 1, PEER, MAC),
            (true, Some(vec![2]))
        );
        assert_eq!(neighbours.find(at(1100), 1, PEER), Some(MAC));
        assert_eq!(neighbours.poll(at(2000)), []);
    }

    #[test]
    fn what_was_not_asked_for_is_not_believed() {
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.answered(at(0), 1, PEER, OTHER), (false, None));
        neighbours.find(at(0), 1, PEER);
        assert!(
            !neighbours.answered(at(0), 1, PEER, OTHER).0,
            "before the question"
        );
        neighbours.poll(at(1));
        assert!(
            !neighbours.answered(at(1), 0, PEER, OTHER).0,
            "on another port"
        );
        assert!(neighbours.answered(at(2), 1, PEER, MAC).0);
        assert!(
            !neighbours.answered(at(3), 1, PEER, OTHER).0,
            "a second answer"
        );
        assert_eq!(neighbours.find(at(4), 1, PEER), Some(MAC));

        let mut neighbours = Neighbours::default();
        neighbours.find(at(0), 1, PEER);
        neighbours.poll(at(0));
        assert!(!neighbours.answered(at(3001), 1, PEER, OTHER).0, "too late");
    }

    #[test]
    fn a_neighbour_that_moves_is_asked_and_then_believed() {
        let mut neighbours = Neighbours::default();
        neighbours.find(at(0), 1, PEER);
        neighbours.poll(at(0));
        neighbours.answered(at(1), 1, PEER, MAC);
        neighbours.overheard(at(5000), 1, PEER, MAC);
        assert_eq!(neighbours.poll(at(5000)), [], "no news");
        neighbours.overheard(at(5000), 1, PEER, OTHER);
        assert_eq!(
            neighbours.find(at(5000), 1, PEER),
            Some(MAC),
            "not believed yet"
        );
        assert_eq!(
            neighbours.poll(at(5000)),
            ask(Some(MAC)),
            "the old one is asked first"
        );
        assert_eq!(neighbours.poll(at(6000)), ask(None), "then everybody");
        assert!(neighbours.answered(at(6001), 1, PEER, OTHER).0);
        assert_eq!(neighbours.find(at(6002), 1, PEER), Some(OTHER));
    }

    #[test]
    fn announcements_cause_at_most_one_request_a_second() {
        let mut neighbours = Neighbours::default();
        neighbours.find(at(0), 1, PEER);
        neighbours.poll(at(0));
        neighbours.answered(at(1), 1, PEER, MAC);
        let mut asked = 0;
        for ms in 2..5002 {
            neighbours.overheard(at(ms), 1, PEER, OTHER);
            asked += neighbours.poll(at(ms)).len();
        }
        assert!(asked <= 5, "{asked}");
    }

    #[test]
    fn a_known_neighbour_is_refreshed_and_serves_meanwhile() {
        let mut neighbours = Neighbours::default();
        neighbours.find(at(0), 1, PEER);
        neighbours.poll(at(0));
        neighbours.answered(at(0), 1, PEER, MAC);
        neighbours.find(at(29_999), 1, PEER);
        assert_eq!(neighbours.poll(at(29_999)), []);
        assert_eq!(neighbours.poll(at(30_000)), ask(Some(MAC)));
        assert_eq!(neighbours.poll(at(31_000)), ask(None));
        assert_eq!(neighbours.find(at(31_000), 1, PEER), Some(MAC));
    }

    #[test]
    fn whom_nobody_needs_is_forgotten_and_the_table_is_bounded() {
        let mut neighbours = Neighbours::default();
        for n in 0..10_000_u32 {
            neighbours.find(at(0), 0, Ipv4Addr::from(n));
        }
        assert_eq!(neighbours.len(), limits::NEIGHBOURS_MAX);
        neighbours.poll(at(59_999));
        assert_eq!(neighbours.len(), limits::NEIGHBOURS_MAX);
        neighbours.poll(at(60_000));
        assert_eq!(neighbours.len(), 0);
    }
}
