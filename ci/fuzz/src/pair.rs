//! Two endpoints, and between them a wire that loses, repeats, delays and corrupts as it likes.

use shardgate_core::buffer::Buffer;
use shardgate_core::endpoint::{Egress, Endpoint, EndpointConfig, Outbox};
use shardgate_core::lane::Lane;
use shardgate_core::repair::OPEN_MAX;
use shardgate_core::seal::{Received, SealBudget, Unsealed};
use shardgate_core::sender::Refused;
use shardgate_core::time::Time;
use shardgate_core::wire::header::Kind;

use crate::script::Script;
use crate::site::{Wire, config, is_within_budget, path_limit};
use crate::world::{Counted, Delivered, MS, ORIGIN, Pool, Tagged, US, frame, is_sound, lane};

const DELAY_US: u32 = 5_000;
/// Frames of a script: what is more says nothing new.
const FRAMES_MAX: u32 = 300;
/// Rounds until both are at rest.
const ROUNDS_MAX: usize = 30_000;

/// What leaves a site, sealed.
#[derive(Default)]
struct Sent {
    wire: Wire,
    datagrams: Vec<Vec<u8>>,
}

impl Outbox<Counted> for Sent {
    fn credit(&self) -> usize {
        self.wire.credit
    }

    fn send(&mut self, datagram: Unsealed<Counted>) {
        self.wire.note(&datagram);
        let Ok(sealed) = datagram.seal(&Tagged) else {
            panic!("there is room for a tag");
        };
        self.datagrams.push(sealed.into_buffer().data().to_vec());
    }
}

struct Site {
    endpoint: Endpoint<Counted>,
    config: EndpointConfig,
    sent: Sent,
    pool: Pool,
    delivered: Delivered,
    /// What is on its way to it.
    under_way: Vec<(Time, Vec<u8>)>,
    /// Frames offered to it: where they go, by number.
    lanes: Vec<(u32, Lane)>,
}

struct World<'a> {
    sites: [Site; 2],
    /// What becomes of one datagram after the other, over and over.
    fates: &'a [u8],
    fate: usize,
    /// Whether nothing was lost or corrupted, nor delayed by more than a hold lasts.
    is_kind: bool,
    frames: u32,
    now: Time,
}

/// The script: the habits of both sites, five bytes each; how many fates, a byte, and the fates;
/// then steps, a byte each and what they need.
pub fn fuzz(input: &[u8]) {
    let mut script = Script::new(input);
    let sites = [(), ()].map(|()| Site::new(config(&mut script)));
    let count = script.u8();
    let mut world = World {
        sites,
        fates: script.bytes(usize::from(count)),
        fate: 0,
        is_kind: true,
        frames: 0,
        now: Time(1_000_000_000),
    };
    while !script.is_over() && world.frames < FRAMES_MAX {
        match script.below(4) {
            0 | 1 => {
                let (at, len, to) = (script.u8() & 1, script.u16() % 2_000, script.u8());
                world.offer(at.into(), len.into(), lane(to));
            }
            2 => world.run(US * 20 * script.u8().into()),
            _ => world.run(MS * script.u8().into()),
        }
    }
    world.rest();
}

impl Site {
    fn new(config: EndpointConfig) -> Self {
        let mut endpoint = Endpoint::new(config);
        endpoint.install_key(SealBudget::new(1, ORIGIN, 1, Time(1_000_000_000)), 128);
        endpoint.expect_streams(1);
        endpoint.set_path(0, Some(path_limit(config.sender.payload_max)));
        let mut sent = Sent::default();
        sent.wire.key = 1;
        Self {
            endpoint,
            config,
            sent,
            pool: Pool::new(10_000, 9_300),
            delivered: Delivered::honest(),
            under_way: Vec::new(),
            lanes: Vec::new(),
        }
    }

    fn check(&self) {
        for (_, buffer) in self.endpoint.received() {
            is_sound(buffer, 64, 64, Some(&self.delivered));
        }
        is_within_budget(&self.endpoint, &self.config);
    }
}

impl World<'_> {
    fn offer(&mut self, at: usize, len: usize, to: Lane) {
        let number = self.frames;
        self.frames += 1;
        let now = self.now;
        let site = &mut self.sites[at];
        let frame = site.pool.holding(&frame(number, len));
        match site.endpoint.offer(frame, to, now) {
            Ok(()) => site.lanes.push((number, to)),
            // Too short or too long, or more than may wait for the pacer.
            Err(Refused::Dropped(..) | Refused::Full(_)) => {}
        }
        site.sent.wire.credit = 200;
        site.endpoint.close(&mut Egress {
            now,
            pool: &mut site.pool,
            outbox: &mut site.sent,
        });
        assert_eq!(site.endpoint.waiting(), 0);
        self.put_under_way(at);
    }

    /// Low bits of a fate: what happens. High bits: how late.
    fn put_under_way(&mut self, from: usize) {
        for mut datagram in std::mem::take(&mut self.sites[from].sent.datagrams) {
            let fate = match self.fates.len() {
                0 => 0,
                count => self.fates[self.fate % count],
            };
            self.fate += 1;
            let late = MS * u32::from(fate >> 3);
            // A hold of interactive frames lasts 5 ms, and repeats are late by themselves.
            self.is_kind &= !matches!(fate & 7, 5 | 7) && late.is_zero();
            let copies = match fate & 7 {
                5 => continue,
                6 => 2,
                7 => {
                    let at = usize::from(fate) * 7 % datagram.len();
                    datagram[at] ^= 0x10;
                    1
                }
                _ => 1,
            };
            for copy in 0..copies {
                let at = self.now + US * DELAY_US + late + MS * copy;
                self.sites[1 - from].under_way.push((at, datagram.clone()));
            }
        }
    }

    fn run(&mut self, time: std::time::Duration) {
        let until = self.now + time;
        while let Some(next) = self.next().filter(|next| *next <= until) {
            self.now = self.now.max(next) + US * 20;
            self.round();
        }
        self.now = self.now.max(until);
        self.round();
    }

    /// When there is something to do next.
    fn next(&self) -> Option<Time> {
        let arrivals = self.sites.iter().flat_map(|site| &site.under_way);
        let timeouts = self
            .sites
            .iter()
            .filter_map(|site| site.endpoint.poll_timeout());
        arrivals.map(|(at, _)| *at).chain(timeouts).min()
    }

    fn round(&mut self) {
        for index in 0..2 {
            self.sites[index].round(self.now);
            self.put_under_way(index);
            self.sites[index].check();
        }
    }

    fn rest(mut self) {
        // Who searches for an MTU never rests.
        for site in &mut self.sites {
            let limit = path_limit(site.config.sender.payload_max);
            site.endpoint.set_path(0, Some(limit.pinned(limit.mtu())));
        }
        let mut rounds = 0;
        while let Some(next) = self.next() {
            rounds += 1;
            assert!(
                rounds < ROUNDS_MAX,
                "they do not come to rest: {next:?} at {:?}",
                self.now
            );
            self.now = self.now.max(next) + US * 20;
            self.round();
        }
        for (from, to) in [(0, 1), (1, 0)] {
            self.is_what_was_sent(from, to);
        }
        // And they stay at rest.
        self.now += MS * 3_000;
        let before = self.fate;
        self.round();
        assert_eq!((self.next(), self.fate), (None, before));
    }

    fn is_what_was_sent(&self, from: usize, to: usize) {
        let (offered, site) = (&self.sites[from].lanes, &self.sites[to]);
        let lane_of = |number: u32| {
            offered
                .iter()
                .find(|(n, _)| *n == number)
                .map(|(_, lane)| *lane)
        };
        let mut newest = std::collections::HashMap::new();
        let mut out_of_order = 0;
        for &number in &site.delivered.numbers {
            let lane = lane_of(number).expect("nothing arrives that was not offered there");
            let last = newest.entry(lane).or_insert(number);
            out_of_order += u64::from(number < *last);
            *last = number.max(*last);
        }
        for (_, buffer) in site.endpoint.received() {
            assert_eq!((buffer.held(), buffer.kept()), (0, 0));
            if site.config.receiver.ordered {
                assert_eq!(buffer.lane_stats().stragglers, out_of_order);
            }
        }
        // Open repair windows have a buffer each.
        assert!(site.pool.alive() <= OPEN_MAX, "a buffer was forgotten");
        if self.is_kind {
            assert_eq!(
                site.delivered.numbers.len(),
                offered.len(),
                "a wire that loses nothing"
            );
        }
    }
}

impl Site {
    /// Takes what has arrived, and does what time brings.
    fn round(&mut self, now: Time) {
        self.sent.wire.credit = 200;
        let mut due: Vec<_> = self
            .under_way
            .extract_if(.., |(at, _)| *at <= now)
            .collect();
        due.sort_by_key(|(at, _)| *at);
        let mut egress = Egress {
            now,
            pool: &mut self.pool,
            outbox: &mut self.sent,
        };
        for (_, bytes) in due {
            let Ok((received, header)) = Received::new(egress.pool.holding(&bytes)) else {
                continue;
            };
            let Ok(opened) = received.open(&Tagged) else {
                continue;
            };
            if header.kind == Kind::Feedback {
                self.endpoint
                    .accept_feedback(&opened, 1, now, &mut egress, &mut self.delivered);
            } else {
                let sink = &mut self.delivered;
                self.endpoint
                    .accept(opened, header.stream, 1, now, egress.pool, sink);
            }
        }
        self.endpoint.poll(now, &mut egress, &mut self.delivered);
    }
}
