//! Traffic that answers to nothing: datagrams on a schedule, and the hosts that take them.
//!
//! What becomes of them is in the world's [`FlowStats`]; [`FlowReport`] is a summary of it. Bulk
//! TCP flows are in [`tcp`](crate::tcp).

mod schedule;

use serde::Serialize;
use shardgate_core::time::Time;

pub use schedule::{Datagrams, Schedule};

use crate::packet::{Ends, UDP_PAYLOAD_AT, write_udp};
use crate::world::{FlowId, FlowStats, Frames, Host, Site, World};

/// DSCP EF (RFC 3246), for flows that somebody waits for.
pub const DSCP_EF: u8 = 46;

/// A flow of datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DatagramConfig {
    /// How many, when.
    pub schedule: Schedule,
    /// DSCP of every frame, 0 to 63.
    pub dscp: u8,
    /// The first is sent at this time, or up to one period later.
    pub start: Time,
}

impl DatagramConfig {
    /// A thin flow, as of a game or a call: 50 datagrams of 100 bytes a second.
    pub fn thin() -> Self {
        Self {
            schedule: Schedule::Constant {
                per_second: 50.0,
                payload_len: 100,
            },
            dscp: 0,
            start: Time::ZERO,
        }
    }
}

/// Adds a flow of datagrams from `site` to the other site.
pub fn add_flow(world: &mut World, site: Site, config: DatagramConfig) -> FlowId {
    world.add_flow(site, |ends, seed| {
        let source = DatagramSource::new(ends.forward(), config, seed);
        (
            Box::new(source) as Box<dyn Host>,
            Box::new(DatagramSink::default()),
        )
    })
}

/// Sends datagrams on a schedule.
#[derive(Debug)]
pub struct DatagramSource {
    ends: Ends,
    dscp: u8,
    datagrams: Datagrams,
    number: u64,
}

impl DatagramSource {
    /// A source whose schedule draws from `seed`.
    pub fn new(ends: Ends, config: DatagramConfig, seed: u64) -> Self {
        Self {
            ends,
            dscp: config.dscp,
            datagrams: Datagrams::new(config.schedule, config.start, seed),
            number: 0,
        }
    }
}

impl Host for DatagramSource {
    fn receive(&mut self, _frame: &[u8], _now: Time, _out: &mut Frames) {}

    fn poll(&mut self, now: Time, out: &mut Frames) {
        while self.datagrams.next_at() <= now {
            let payload_len = self.datagrams.take();
            write_udp(out.push(), self.ends, self.dscp, self.number, payload_len);
            self.number += 1;
        }
    }

    fn poll_timeout(&self) -> Option<Time> {
        Some(self.datagrams.next_at())
    }
}

/// Takes datagrams, and sees in which order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramSink {
    /// Datagrams taken.
    pub count: u64,
    /// Of those, datagrams that came behind a later one.
    pub overtaken: u64,
    next: u64,
}

impl Host for DatagramSink {
    fn receive(&mut self, frame: &[u8], _now: Time, _out: &mut Frames) {
        let Some(number) = frame
            .get(UDP_PAYLOAD_AT..)
            .and_then(|payload| payload.first_chunk::<8>())
        else {
            return;
        };
        let number = u64::from_be_bytes(*number);
        self.count += 1;
        self.overtaken += u64::from(number < self.next);
        self.next = self.next.max(number + 1);
    }

    fn poll(&mut self, _now: Time, _out: &mut Frames) {}

    fn poll_timeout(&self) -> Option<Time> {
        None
    }
}

/// One-way delays in milliseconds, to three digits; null if no frame came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half of the frames are not later.
    pub p50: Option<f64>,
    /// 99 of 100 are not later.
    pub p99: Option<f64>,
    /// 999 of 1,000 are not later.
    pub p99_9: Option<f64>,
}

impl Percentiles {
    /// Of the frames that `stats` counts.
    pub fn of(stats: &FlowStats) -> Self {
        Self {
            p50: stats.delay_ms(0.5),
            p99: stats.delay_ms(0.99),
            p99_9: stats.delay_ms(0.999),
        }
    }
}

/// What became of a flow's frames in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FlowReport {
    /// Frames sent while the world measured.
    pub sent: u64,
    /// Of those, frames delivered, at any time.
    pub delivered: u64,
    /// Delivered bytes of whole frames over the measured time.
    pub mbit_per_s: f64,
    /// From LAN to LAN.
    pub frame_delay_ms: Percentiles,
    /// Share of the frames sent that never came.
    pub residual_loss: f64,
}

impl FlowReport {
    /// Of `flow` from `site`, measured over `seconds`.
    pub fn of(world: &World, flow: FlowId, site: Site, seconds: f64) -> Self {
        let stats = world.stats(flow, site);
        Self {
            sent: stats.sent,
            delivered: stats.delivered,
            mbit_per_s: stats.delivered_bytes as f64 * 8.0 / 1e6 / seconds,
            frame_delay_ms: Percentiles::of(stats),
            residual_loss: stats.loss(),
        }
    }
}
