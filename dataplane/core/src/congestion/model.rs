//! A bottleneck with a drop-tail queue, CUBIC senders (RFC 9438) and a tunnel that repairs every
//! loss of the path: what a queue control must do its work on.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BinaryHeap;

use super::{Addition, QueueControl, TokenBucket};
use crate::estimate::QueueDelay;
use crate::time::Time;

const SEGMENT: f64 = 1_500.0;
const BETA: f64 = 0.7;
const CUBIC_C: f64 = 0.4;

#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub rate_bps: u64,
    /// Without the queue.
    pub rtt: Duration,
    /// Bottleneck buffer in multiples of rate times round trip.
    pub buffer_bdp: f64,
    /// Flows through the tunnel.
    pub controlled: usize,
    /// Flows beside it.
    pub plain: usize,
    /// Whether the tunnel repairs and controls; else its flows are plain ones.
    pub tunnel: bool,
    /// Loss that has nothing to do with the queue.
    pub random_loss: f64,
    /// Extra one-way delay of each packet, uniform, seconds.
    pub jitter: f64,
    /// By how much the path gets longer after 15 s.
    pub longer: Duration,
    pub secs: u64,
    /// Seconds before measuring begins.
    pub warm: u64,
    /// Who starts first, by 5 s.
    pub first: First,
    /// When the flows beside it stop.
    pub plain_until: u64,
    /// Whether senders leave slow start when they see a queue (HyStart++, RFC 9406).
    pub hystart: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            rate_bps: 200_000_000,
            rtt: Duration::from_millis(40),
            buffer_bdp: 1.0,
            controlled: 1,
            plain: 0,
            tunnel: true,
            random_loss: 0.0,
            jitter: 0.0,
            longer: Duration::ZERO,
            secs: 30,
            warm: 5,
            first: First::Nobody,
            plain_until: u64::MAX,
            hystart: true,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub enum First {
    Nobody,
    Tunnel,
    Others,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Mean queue delay, seconds.
    pub mean_queue: f64,
    /// Delivered bytes of all flows as a share of the rate.
    pub goodput: f64,
    /// The tunnel's share of what was delivered.
    pub share: f64,
    /// Packets that the bottleneck or the radio lost, to those sent.
    pub path_loss: f64,
    /// Those of them that the budget did not let the tunnel repeat.
    pub unrepaired: f64,
    pub signals_per_s: f64,
    /// Share of reports in the competing state.
    pub competing: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Start(usize),
    /// The flow learns a packet's fate.
    Fate {
        flow: usize,
        sent: u64,
        congestion: bool,
        arrived: bool,
    },
    /// The tunnel sends a lost packet again.
    Lost {
        flow: usize,
        sent: u64,
    },
    Arrived {
        delay_us: u32,
    },
    Report,
    Reported {
        min_us: u32,
        mean_us: u32,
    },
    Sample,
}

/// A CUBIC sender that always has something to send; windows in bytes.
struct Flow {
    in_tunnel: bool,
    hystart: bool,
    cwnd: f64,
    ssthresh: f64,
    w_max: f64,
    epoch: Option<u64>,
    w_est: f64,
    k: f64,
    inflight: f64,
    reduced_at: Option<u64>,
    delivered: f64,
}

impl Flow {
    fn new(in_tunnel: bool, hystart: bool) -> Self {
        Self {
            in_tunnel,
            hystart,
            cwnd: 10.0 * SEGMENT,
            ssthresh: f64::INFINITY,
            w_max: 0.0,
            epoch: None,
            w_est: 0.0,
            k: 0.0,
            inflight: 0.0,
            reduced_at: None,
            delivered: 0.0,
        }
    }

    fn reduce(&mut self, now: u64) {
        self.w_max = if self.cwnd < self.w_max {
            self.cwnd * (1.0 + BETA) / 2.0
        } else {
            self.cwnd
        };
        self.cwnd = (self.cwnd * BETA).max(2.0 * SEGMENT);
        self.ssthresh = self.cwnd;
        self.epoch = None;
        self.reduced_at = Some(now);
    }

    fn grow(&mut self, packet: f64, now: u64, rtt: f64, queue: f64) {
        if self.cwnd < self.ssthresh && self.hystart && queue > (rtt / 8.0).clamp(0.004, 0.016) {
            self.ssthresh = self.cwnd;
            self.w_max = self.cwnd;
        }
        if self.cwnd < self.ssthresh {
            self.cwnd += packet;
            return;
        }
        if self.epoch.is_none() {
            self.epoch = Some(now);
            self.w_est = self.cwnd;
            self.w_max = self.w_max.max(self.cwnd);
            self.k = ((self.w_max - self.cwnd) / SEGMENT / CUBIC_C).cbrt();
        }
        let t = (now - self.epoch.unwrap_or(now)) as f64 / 1e9 + rtt;
        let cubic = self.w_max + CUBIC_C * (t - self.k).powi(3) * SEGMENT;
        self.w_est += 3.0 * (1.0 - BETA) / (1.0 + BETA) * SEGMENT * packet / self.cwnd;
        if cubic < self.w_est {
            self.cwnd = self.cwnd.max(self.w_est);
        } else {
            let target = cubic.clamp(self.cwnd, 1.5 * self.cwnd);
            self.cwnd += (target - self.cwnd) * packet / self.cwnd;
        }
    }
}

struct World {
    scenario: Scenario,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    flows: Vec<Flow>,
    /// Nanoseconds until the bottleneck is idle.
    busy_until: u64,
    packet: f64,
    rtt: u64,
    noise: u64,
    control: QueueControl,
    delay: QueueDelay,
    bucket: TokenBucket,
    unrepaired: u64,
    /// Least delay, sum and count since the last report.
    report: (u32, u64, u64),
    /// Loss that reports have yet to tell.
    lost: Vec<(u64, u32)>,
    sent: u64,
    path_lost: u64,
    signals: u64,
    reports: u64,
    competing: u64,
    /// Seconds, each millisecond.
    queue_sum: f64,
    queue_samples: u64,
}

impl Scenario {
    pub fn run(self) -> Outcome {
        let bytes_per_s = self.rate_bps as f64 / 8.0;
        let mut bucket = TokenBucket::new(0.25);
        bucket.set_delivery_rate(bytes_per_s as u64);
        let mut world = World {
            scenario: self,
            now: 0,
            order: 0,
            events: BinaryHeap::new(),
            flows: (0..self.controlled + self.plain)
                .map(|n| Flow::new(n < self.controlled, self.hystart))
                .collect(),
            busy_until: 0,
            packet: (bytes_per_s / 10_000.0).max(SEGMENT),
            rtt: self.rtt.as_nanos() as u64,
            noise: 1,
            control: QueueControl::new(),
            delay: QueueDelay::new(),
            bucket,
            unrepaired: 0,
            report: (u32::MAX, 0, 0),
            lost: vec![],
            sent: 0,
            path_lost: 0,
            signals: 0,
            reports: 0,
            competing: 0,
            queue_sum: 0.0,
            queue_samples: 0,
        };
        for flow in 0..world.flows.len() {
            let late = match (self.first, flow < self.controlled) {
                (First::Tunnel, false) | (First::Others, true) => 5_000_000_000,
                _ => 0,
            };
            world.at(late + flow as u64 * 37_000_000, Event::Start(flow));
        }
        world.at(1_000_000, Event::Report);
        world.at(self.warm * 1_000_000_000, Event::Sample);
        let mut before = vec![];
        while let Some(Reverse((at, _, event))) = world.events.pop() {
            if at > self.secs * 1_000_000_000 {
                break;
            }
            if before.is_empty() && at >= self.warm * 1_000_000_000 {
                before = world.flows.iter().map(|flow| flow.delivered).collect();
            }
            world.now = at;
            world.handle(event);
        }
        let secs = (self.secs - self.warm) as f64;
        let delivered = |tunnel: bool| -> f64 {
            let flows = world.flows.iter().zip(&before);
            flows
                .filter(|(flow, _)| flow.in_tunnel == tunnel)
                .map(|(flow, before)| flow.delivered - before)
                .sum()
        };
        let all = delivered(true) + delivered(false);
        Outcome {
            mean_queue: world.queue_sum / world.queue_samples.max(1) as f64,
            goodput: all / secs / bytes_per_s,
            share: delivered(true) / all,
            path_loss: world.path_lost as f64 / world.sent.max(1) as f64,
            unrepaired: world.unrepaired as f64 / world.sent.max(1) as f64,
            signals_per_s: world.signals as f64 / self.secs as f64,
            competing: world.competing as f64 / world.reports.max(1) as f64,
        }
    }
}

impl World {
    fn at(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((at, self.order, event)));
    }

    fn uniform(&mut self) -> f64 {
        self.noise = self
            .noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.noise >> 11) as f64 / (1u64 << 53) as f64
    }

    fn queue(&self) -> u64 {
        self.busy_until.saturating_sub(self.now)
    }

    fn report_interval(&self) -> u64 {
        (self.rtt / 4).max(10_000_000)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Start(flow) => self.send(flow),
            Event::Fate {
                flow,
                sent,
                congestion,
                arrived,
            } => {
                let (packet, now) = (self.packet, self.now);
                let f = &mut self.flows[flow];
                f.inflight -= packet;
                if arrived {
                    self.bucket.earn(packet as u64);
                    f.delivered += packet;
                }
                if congestion {
                    if f.reduced_at.is_none_or(|at| sent > at) {
                        f.reduce(now);
                    }
                } else {
                    f.grow(
                        packet,
                        now,
                        self.rtt as f64 / 1e9,
                        (now - sent) as f64 / 1e9 - self.rtt as f64 / 1e9,
                    );
                }
                self.send(flow);
            }
            Event::Lost { flow, sent } => {
                if self.bucket.spend(self.packet as u64, Addition::Repeat) {
                    self.transmit(flow, sent);
                } else {
                    self.unrepaired += 1;
                    self.handle(Event::Fate {
                        flow,
                        sent,
                        congestion: true,
                        arrived: false,
                    });
                }
            }
            Event::Arrived { delay_us } => {
                self.report.0 = self.report.0.min(delay_us);
                self.report.1 += u64::from(delay_us);
                self.report.2 += 1;
            }
            Event::Report => {
                self.at(self.now + self.report_interval(), Event::Report);
                let (min_us, sum, count) = core::mem::replace(&mut self.report, (u32::MAX, 0, 0));
                if let Some(mean_us) = sum.checked_div(count) {
                    let mean_us = mean_us as u32;
                    self.at(self.now + self.rtt / 2, Event::Reported { min_us, mean_us });
                }
            }
            Event::Reported { min_us, mean_us } => {
                let now = Time(self.now);
                // Clocks that are far apart, and near their wrap.
                let offset = u32::MAX - 20_000;
                self.delay.sample(
                    offset.wrapping_add(min_us),
                    offset.wrapping_add(mean_us),
                    now,
                );
                let known = self.now;
                let lost: u32 = self.lost.iter().filter(|l| l.0 <= known).map(|l| l.1).sum();
                self.lost.retain(|l| l.0 > known);
                if lost > 0 {
                    self.control.on_path_loss(now, lost);
                }
                let rtt = Duration::from_nanos(self.rtt + u64::from(mean_us) * 1_000);
                self.control.on_delay(now, &self.delay, Some(rtt));
                self.reports += 1;
                self.competing += u64::from(self.control.is_competing());
            }
            Event::Sample => {
                self.queue_sum += self.queue() as f64 / 1e9;
                self.queue_samples += 1;
                self.at(self.now + 1_000_000, Event::Sample);
            }
        }
    }

    fn send(&mut self, flow: usize) {
        let has_stopped = self.now / 1_000_000_000 >= self.scenario.plain_until;
        if has_stopped && !self.flows[flow].in_tunnel {
            return;
        }
        while self.flows[flow].inflight + self.packet <= self.flows[flow].cwnd.min(64e6) {
            self.flows[flow].inflight += self.packet;
            let through_tunnel = self.scenario.tunnel && self.flows[flow].in_tunnel;
            let now = self.now;
            if through_tunnel && self.control.take_signal(Time(now)) {
                self.signals += 1;
                // Dropped at the entrance; the flow knows a round trip later.
                let fate = Event::Fate {
                    flow,
                    sent: now,
                    congestion: true,
                    arrived: false,
                };
                self.at(now + self.rtt + self.queue(), fate);
                continue;
            }
            self.transmit(flow, now);
        }
    }

    fn transmit(&mut self, flow: usize, sent: u64) {
        let through_tunnel = self.scenario.tunnel && self.flows[flow].in_tunnel;
        let takes = (self.packet * 8e9 / self.scenario.rate_bps as f64) as u64;
        let buffer = (self.scenario.buffer_bdp * self.rtt as f64) as u64;
        self.sent += 1;
        let radio = self.scenario.random_loss > 0.0 && self.uniform() < self.scenario.random_loss;
        let overflow = self.queue() + takes > buffer.max(2 * takes);
        if !overflow {
            self.busy_until = self.busy_until.max(self.now) + takes;
        }
        let known = self.now + self.queue() + self.rtt;
        if overflow || radio {
            self.path_lost += 1;
            if through_tunnel {
                self.lost.push((known, 1));
                // With the next report.
                self.at(
                    known + self.report_interval() / 2,
                    Event::Lost { flow, sent },
                );
            } else {
                self.at(
                    known,
                    Event::Fate {
                        flow,
                        sent,
                        congestion: true,
                        arrived: false,
                    },
                );
            }
            return;
        }
        let mut delay = self.queue();
        if self.now >= 15_000_000_000 {
            delay += self.scenario.longer.as_nanos() as u64;
        }
        if self.scenario.jitter > 0.0 {
            delay += (self.uniform() * self.scenario.jitter * 1e9) as u64;
        }
        if through_tunnel {
            self.at(
                self.now + delay + self.rtt / 2,
                Event::Arrived {
                    delay_us: (delay / 1_000) as u32,
                },
            );
        }
        self.at(
            self.now + delay + self.rtt,
            Event::Fate {
                flow,
                sent,
                congestion: false,
                arrived: true,
            },
        );
    }
}
