//! A world in virtual time: two sites, hosts behind a gateway at each, paths between the gateways.
//!
//! ```text
//!  hosts ─► Gateway A ─► PathModel (one per path) ─► Gateway B ─► hosts     and the same back
//!        └─ oracle: sent                                        └─ oracle: right, twice, wrong
//! ```
//!
//! Everything that happens is an event at a nanosecond; events of one instant happen in the order
//! in which they were scheduled. LANs take no time. All randomness comes from one seed, each path
//! and direction with draws of its own, so two gateways can be compared under the same luck: same
//! seed, same bytes.
//!
//! A gateway is plugged in as [`Gateway`] says; a host is anything that is a [`Host`]. The oracle
//! sees every frame on both LANs: a frame that nobody sent, that was changed, or that comes out a
//! second time is counted in [`Integrity`], never handed to a host, and a flow's delays are taken
//! by it, not by the hosts.

mod counts;
mod events;
mod flow;
mod oracle;
mod timer;

use std::any::Any;
use std::ops::Range;

use shardgate_core::time::Time;

pub use counts::{Integrity, QueueStats};
pub use flow::{Address, FlowEnds, FlowId, FlowStats, Frames, Host, Site, mac_of};

use crate::gateway::{Gateway, Output, SentBytes};
use crate::path::{FrameShape, InvalidProfile, PathCounters, PathModel, PathProfile, Verdict};
use crate::seeds::seed_for;
use events::EventQueue;
use oracle::{Finding, Oracle};
use timer::Timer;

/// How often something may ask to be polled at one instant before the world says that it hangs.
pub const SPINS_MAX: u32 = 10_000;

#[derive(Debug)]
enum Event {
    /// A datagram leaves a path.
    Arrival {
        to: Site,
        path: u8,
        datagram: Vec<u8>,
    },
    /// The timer of a site's gateway.
    Gateway(Site),
    /// The timer of a host: flow and site.
    Host(usize, Site),
    /// A look at the queues.
    Look,
}

/// How often the queues are looked at, in nanoseconds.
const LOOK_EVERY_NS: u64 = 1_000_000;

struct Place {
    gateway: Box<dyn Gateway>,
    timer: Timer,
    /// Away from here, by path.
    paths: Vec<PathModel>,
    queues: Vec<QueueStats>,
    offered_bytes: u64,
}

struct End {
    host: Box<dyn Host>,
    timer: Timer,
    stats: FlowStats,
}

/// See the module.
pub struct World {
    now: Time,
    seed: u64,
    events: EventQueue<Event>,
    places: [Place; 2],
    /// By flow, then by site.
    flows: Vec<[End; 2]>,
    oracle: Oracle,
    integrity: Integrity,
    measured: Range<Time>,
    spins: u32,
    out: Output,
    frames: Frames,
}

impl World {
    /// A world at time zero: gateways of A and B, and the paths between them, the same in both
    /// directions.
    ///
    /// # Errors
    ///
    /// If a path's parameter is outside its range.
    pub fn new(
        gateways: [Box<dyn Gateway>; 2],
        paths: &[PathProfile],
        seed: u64,
    ) -> Result<Self, InvalidProfile> {
        let place = |gateway, site: Site| {
            let paths: Result<Vec<_>, _> = paths
                .iter()
                .enumerate()
                .map(|(path, profile)| {
                    PathModel::new(profile, seed_for(seed, &[site as u64, path as u64]))
                })
                .collect();
            let paths = paths?;
            Ok(Place {
                gateway,
                timer: Timer::default(),
                queues: vec![QueueStats::default(); paths.len()],
                offered_bytes: 0,
                paths,
            })
        };
        let [a, b] = gateways;
        Ok(Self {
            now: Time::ZERO,
            seed,
            events: EventQueue::new(),
            places: [place(a, Site::A)?, place(b, Site::B)?],
            flows: Vec::new(),
            oracle: Oracle::default(),
            integrity: Integrity::default(),
            measured: Time::ZERO..Time(u64::MAX),
            spins: 0,
            out: Output::default(),
            frames: Frames::default(),
        })
    }

    /// Adds a flow from a client at `site` to a server at the other one. `build` gets the two
    /// addresses and a seed, and makes the two hosts, client first.
    pub fn add_flow(
        &mut self,
        site: Site,
        build: impl FnOnce(FlowEnds, u64) -> (Box<dyn Host>, Box<dyn Host>),
    ) -> FlowId {
        let flow = self.flows.len();
        let number = u16::try_from(flow).expect("fewer than 65,536 flows");
        let address = |site, port| Address { site, number, port };
        let ends = FlowEnds {
            client: address(site, 32_768 + number % 16_384),
            server: address(site.other(), 5_201),
        };
        let (client, server) = build(ends, seed_for(self.seed, &[2, flow as u64]));
        let end = |host| End {
            host,
            timer: Timer::default(),
            stats: FlowStats::new(),
        };
        self.flows.push(match site {
            Site::A => [end(client), end(server)],
            Site::B => [end(server), end(client)],
        });
        self.arm_host(flow, Site::A);
        self.arm_host(flow, Site::B);
        FlowId(flow)
    }

    /// Counts, from now on, only frames sent in `period`, and looks at the queues in it.
    pub fn measure(&mut self, period: Range<Time>) {
        self.events
            .schedule(period.start.max(self.now), Event::Look);
        self.measured = period;
    }

    /// Changes a path in both directions from now on; nothing happens if there is no such path.
    ///
    /// # Errors
    ///
    /// If a parameter is outside its range.
    pub fn change_path(
        &mut self,
        path: usize,
        profile: &PathProfile,
    ) -> Result<(), InvalidProfile> {
        for place in &mut self.places {
            if let Some(model) = place.paths.get_mut(path) {
                model.change(profile)?;
            }
        }
        Ok(())
    }

    /// Lets time pass until `until`, events at that instant included.
    pub fn run_until(&mut self, until: Time) {
        if self.now == Time::ZERO {
            self.arm_gateway(Site::A);
            self.arm_gateway(Site::B);
        }
        while let Some((at, event)) = self.events.pop_until(until) {
            self.spins = if at > self.now { 0 } else { self.spins };
            self.now = at;
            self.happen(event);
        }
        self.now = self.now.max(until);
    }

    /// Virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// What came out that must not.
    pub fn integrity(&self) -> Integrity {
        self.integrity
    }

    /// What became of a flow's frames sent from `site`.
    pub fn stats(&self, flow: FlowId, site: Site) -> &FlowStats {
        &self.flows[flow.0][site.index()].stats
    }

    /// A flow's host at `site`, if it is a `T`.
    pub fn host<T: Host>(&self, flow: FlowId, site: Site) -> Option<&T> {
        let host: &dyn Any = &*self.flows[flow.0][site.index()].host;
        host.downcast_ref()
    }

    /// A site's gateway, if it is a `T`.
    pub fn gateway<T: Gateway>(&self, site: Site) -> Option<&T> {
        let gateway: &dyn Any = &*self.places[site.index()].gateway;
        gateway.downcast_ref()
    }

    /// The same, to change something about it.
    pub fn gateway_mut<T: Gateway>(&mut self, site: Site) -> Option<&mut T> {
        let gateway: &mut dyn Any = &mut *self.places[site.index()].gateway;
        gateway.downcast_mut()
    }

    /// What a site's gateway has sent.
    pub fn sent(&self, site: Site) -> SentBytes {
        self.places[site.index()].gateway.sent()
    }

    /// Bytes that a site's gateway has handed to paths, as the world has seen it.
    pub fn offered_bytes(&self, site: Site) -> u64 {
        self.places[site.index()].offered_bytes
    }

    /// What a path away from `site` has done; none if there is no such path.
    pub fn path(&self, site: Site, path: usize) -> Option<PathCounters> {
        self.places[site.index()]
            .paths
            .get(path)
            .map(PathModel::counters)
    }

    /// The queue of a path away from `site`; none if there is no such path.
    pub fn queue(&self, site: Site, path: usize) -> Option<QueueStats> {
        self.places[site.index()].queues.get(path).copied()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival { to, path, datagram } => {
                let gateway = &mut self.places[to.index()].gateway;
                gateway.handle_wan(path, &datagram, self.now, &mut self.out);
                self.out.give_back(datagram);
                self.settle(to);
            }
            Event::Gateway(site) => {
                if self.places[site.index()].timer.fire(self.now) {
                    self.spin();
                    self.settle(site);
                }
            }
            Event::Host(flow, site) => {
                let end = &mut self.flows[flow][site.index()];
                if !end.timer.fire(self.now) {
                    return;
                }
                if end.host.poll_timeout().is_some_and(|at| at <= self.now) {
                    end.host.poll(self.now, &mut self.frames);
                    self.spin();
                }
                self.arm_host(flow, site);
                self.send_burst(flow, site);
            }
            Event::Look => self.look(),
        }
    }

    fn spin(&mut self) {
        self.spins += 1;
        assert!(
            self.spins <= SPINS_MAX,
            "at {} ns something asks to be polled without end",
            self.now.as_nanos()
        );
    }

    /// What a host has just sent goes through its gateway, as one burst.
    fn send_burst(&mut self, flow: usize, site: Site) {
        if self.frames.is_empty() {
            return;
        }
        self.hand_over(flow, site);
        self.settle(site);
    }

    fn hand_over(&mut self, flow: usize, site: Site) {
        let Self {
            now,
            oracle,
            out,
            places,
            flows,
            measured,
            frames,
            ..
        } = self;
        let gateway = &mut places[site.index()].gateway;
        let stats = &mut flows[flow][site.index()].stats;
        frames.drain_with(|frame| {
            assert!(
                oracle.sent(frame, flow, *now),
                "a host sends the same frame twice"
            );
            if measured.contains(now) {
                stats.sent += 1;
                stats.sent_bytes += frame.len() as u64;
            }
            gateway.handle_lan(frame, *now, out);
        });
    }

    /// Ends a burst at a gateway and carries out what follows at this instant, until nothing does.
    fn settle(&mut self, site: Site) {
        let gateway = &mut self.places[site.index()].gateway;
        gateway.poll(self.now, &mut self.out);
        let mut rounds = 0;
        while !self.out.is_empty() {
            rounds += 1;
            assert!(
                rounds <= SPINS_MAX,
                "hosts and gateway answer each other without end"
            );
            self.send_datagrams(site);
            if self.deliver_frames(site) {
                self.places[site.index()]
                    .gateway
                    .poll(self.now, &mut self.out);
            }
        }
        self.arm_gateway(site);
    }

    fn send_datagrams(&mut self, site: Site) {
        let mut datagrams = self.out.detach_datagrams();
        for (path, datagram) in datagrams.drain(..) {
            let place = &mut self.places[site.index()];
            place.offered_bytes += datagram.len() as u64;
            let Some(model) = place.paths.get_mut(usize::from(path)) else {
                // There is no such way out.
                self.out.give_back(datagram);
                continue;
            };
            match model.offer(self.now, FrameShape::of(&datagram)) {
                Verdict::Drop(_) => self.out.give_back(datagram),
                Verdict::Forward(departures) => {
                    let to = site.other();
                    if let Some(duplicate) = departures.duplicate {
                        let mut copy = self.out.buffer();
                        copy.extend_from_slice(&datagram);
                        self.depart(to, path, copy, duplicate);
                    }
                    self.depart(to, path, datagram, departures.first);
                }
            }
        }
        self.out.reuse_datagrams(datagrams);
    }

    fn depart(
        &mut self,
        to: Site,
        path: u8,
        mut datagram: Vec<u8>,
        departure: crate::path::Departure,
    ) {
        if let Some(corruption) = departure.corruption {
            corruption.apply(&mut datagram);
        }
        self.events
            .schedule(departure.at, Event::Arrival { to, path, datagram });
    }

    /// Frames for the hosts at `site`; true if these have answered.
    fn deliver_frames(&mut self, site: Site) -> bool {
        let mut frames = self.out.detach_frames();
        let mut have_answered = false;
        for frame in frames.drain(..) {
            if let Some(flow) = self.judge(&frame, site) {
                let end = &mut self.flows[flow][site.index()];
                end.host.receive(&frame, self.now, &mut self.frames);
                self.arm_host(flow, site);
                have_answered |= !self.frames.is_empty();
                self.hand_over(flow, site);
            }
            self.out.give_back(frame);
        }
        self.out.reuse_frames(frames);
        have_answered
    }

    /// The flow whose host at `site` is to get the frame, if it may have it.
    fn judge(&mut self, frame: &[u8], site: Site) -> Option<usize> {
        match self.oracle.delivered(frame) {
            Finding::Wrong => {
                self.integrity.wrong += 1;
                None
            }
            Finding::Twice => {
                self.integrity.twice += 1;
                None
            }
            Finding::Right { flow, sent_at } => {
                if Address::receiver(frame) != Some((site, flow)) {
                    self.integrity.astray += 1;
                    return None;
                }
                if self.measured.contains(&sent_at) {
                    let sender = &mut self.flows[flow][site.other().index()];
                    sender.stats.record(frame.len(), self.now.since(sent_at));
                }
                Some(flow)
            }
        }
    }

    fn arm_gateway(&mut self, site: Site) {
        let place = &mut self.places[site.index()];
        if let Some(at) = place.timer.arm(place.gateway.poll_timeout(), self.now) {
            self.events.schedule(at, Event::Gateway(site));
        }
    }

    fn arm_host(&mut self, flow: usize, site: Site) {
        let end = &mut self.flows[flow][site.index()];
        if let Some(at) = end.timer.arm(end.host.poll_timeout(), self.now) {
            self.events.schedule(at, Event::Host(flow, site));
        }
    }

    fn look(&mut self) {
        if self.now >= self.measured.end {
            return;
        }
        for place in &mut self.places {
            for (path, queue) in place.paths.iter().zip(&mut place.queues) {
                queue.look(path.queue_delay(self.now));
            }
        }
        self.events
            .schedule(Time(self.now.as_nanos() + LOOK_EVERY_NS), Event::Look);
    }
}
