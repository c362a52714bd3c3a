//! Hosts, their addresses, and what is counted of a flow.

use std::any::Any;
use std::time::Duration;

use hdrhistogram::Histogram;
use shardgate_core::time::Time;

use crate::packet::Ends;

/// One of the two sites.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// The first.
    A,
    /// The second.
    B,
}

impl Site {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// A host at a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where it is.
    pub site: Site,
    /// Its number there, which is its flow's.
    pub number: u16,
    /// Its UDP or TCP port.
    pub port: u16,
}

impl Address {
    /// Its IPv4 address: 10.1.x.x at A, 10.2.x.x at B.
    pub fn ip(self) -> [u8; 4] {
        let [high, low] = self.number.to_be_bytes();
        [10, 1 + self.site as u8, high, low]
    }

    /// Its MAC address.
    pub fn mac(self) -> [u8; 6] {
        mac_of(self.ip())
    }

    /// Site and flow of a frame's receiver, by its IPv4 address.
    pub(super) fn receiver(frame: &[u8]) -> Option<(Site, usize)> {
        let &[network, site, high, low] = frame.get(30..34)?.first_chunk()?;
        let site = match (network, site) {
            (10, 1) => Site::A,
            (10, 2) => Site::B,
            _ => return None,
        };
        Some((site, usize::from(u16::from_be_bytes([high, low]))))
    }
}

/// The locally administered MAC address of the host with this IPv4 address.
pub fn mac_of(ip: [u8; 4]) -> [u8; 6] {
    [2, 0, ip[0], ip[1], ip[2], ip[3]]
}

/// A flow of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowId(pub(super) usize);

/// One end of a flow: a host with one thing to do.
///
/// [`Any`] lets a test or an evaluation look at a host's own state after a run:
/// [`World::host`](super::World::host).
pub trait Host: Any {
    /// A frame has come for it.
    fn receive(&mut self, frame: &[u8], now: Time, out: &mut Frames);

    /// Its time has come.
    fn poll(&mut self, now: Time, out: &mut Frames);

    /// When that is next.
    fn poll_timeout(&self) -> Option<Time>;
}

/// Frames on their way from a host to its gateway.
#[derive(Debug, Default)]
pub struct Frames {
    frames: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl Frames {
    /// A new frame, empty.
    pub fn push(&mut self) -> &mut Vec<u8> {
        let slot = self.frames.len();
        self.frames.push(self.spare.pop().unwrap_or_default());
        &mut self.frames[slot]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Gives each frame to `with`, and keeps the buffers for the next ones.
    pub(super) fn drain_with(&mut self, mut with: impl FnMut(&[u8])) {
        for mut frame in self.frames.drain(..) {
            with(&frame);
            frame.clear();
            self.spare.push(frame);
        }
    }
}

/// Where a flow's two ends are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEnds {
    /// The end that begins.
    pub client: Address,
    /// The end that answers.
    pub server: Address,
}

impl FlowEnds {
    /// The way from the client to the server.
    pub fn forward(self) -> Ends {
        Ends {
            from: self.client,
            to: self.server,
        }
    }

    /// The way back.
    pub fn backward(self) -> Ends {
        Ends {
            from: self.server,
            to: self.client,
        }
    }
}

/// What became of the frames of one flow in one direction.
///
/// Only frames sent while the world measures are counted, whenever they come out.
#[derive(Clone, Debug)]
pub struct FlowStats {
    /// Frames handed to the gateway.
    pub sent: u64,
    /// Of those, frames that came out right.
    pub delivered: u64,
    /// Bytes of the frames sent.
    pub sent_bytes: u64,
    /// Bytes of the frames delivered.
    pub delivered_bytes: u64,
    delay_us: Histogram<u64>,
}

/// Longest delay that is told apart, in microseconds: a minute.
const DELAY_US_MAX: u64 = 60_000_000;

impl FlowStats {
    pub(super) fn new() -> Self {
        let delay_us = Histogram::new_with_bounds(1, DELAY_US_MAX, 3)
            .expect("bounds and digits within what a histogram takes");
        Self {
            sent: 0,
            delivered: 0,
            sent_bytes: 0,
            delivered_bytes: 0,
            delay_us,
        }
    }

    pub(super) fn record(&mut self, len: usize, delay: Duration) {
        self.delivered += 1;
        self.delivered_bytes += len as u64;
        self.delay_us.saturating_record(delay.as_micros() as u64);
    }

    /// The one-way delay from LAN to LAN below which `quantile` (0 to 1) of the delivered frames
    /// lie, in milliseconds, to three digits; none if no frame was delivered.
    pub fn delay_ms(&self, quantile: f64) -> Option<f64> {
        (self.delivered > 0).then(|| self.delay_us.value_at_quantile(quantile) as f64 / 1e3)
    }

    /// Mean one-way delay in milliseconds; none if no frame was delivered.
    pub fn delay_mean_ms(&self) -> Option<f64> {
        (self.delivered > 0).then(|| self.delay_us.mean() / 1e3)
    }

    /// Share of the frames sent that were not delivered; zero if none was sent.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 {
            return 0.0;
        }
        (self.sent - self.delivered) as f64 / self.sent as f64
    }
}
