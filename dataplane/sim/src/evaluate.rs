//! What a tunnel is worth on a path: one bulk flow and one thin flow, through it and through a
//! plain tunnel, under the same luck.
//!
//! The bulk flow is TCP with CUBIC from A to B and never runs dry; the thin flow is 50 small UDP
//! frames a second the same way, and stands for what people wait for. Goodput is what the bulk
//! flow's application gets; delays and residual loss are the thin flow's, from LAN to LAN.

use std::time::Duration;

use serde::Serialize;
use shardgate_core::endpoint::EndpointConfig;
use shardgate_core::time::Time;

use crate::gateway::{
    Gateway, PlainConfig, PlainGateway, SentBytes, ShardedConfig, ShardedGateway,
};
use crate::path::{InvalidProfile, PathProfile};
use crate::profiles::Profile;
use crate::tcp::{self, TcpConfig, TcpCounters, TcpReceiver, TcpSender};
use crate::traffic::{self, DatagramConfig, Percentiles};
use crate::world::{FlowId, Integrity, Site, World};

/// How long to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Time from the connection's start that is not counted.
    pub warm_up: Duration,
    /// Time that is.
    pub measured: Duration,
}

impl Default for Options {
    /// 20 s, of which the first three, with slow start, are not counted.
    fn default() -> Self {
        Self {
            warm_up: Duration::from_secs(3),
            measured: Duration::from_secs(17),
        }
    }
}

/// How long frames sent at the very end are waited for at most: longer than any profile's queue
/// and round trips of asking together.
const DRAIN: Duration = Duration::from_secs(3);
/// MTU of the gateways' ports; what a path carries of it the tunnel finds.
const PORT_MTU: u16 = 1_500;
/// Progress is told this often, in virtual time.
const STEP: Duration = Duration::from_millis(100);

/// Two tunnel ends, made from a seed.
pub type MakeGateways<'a> = &'a dyn Fn(u64) -> [Box<dyn Gateway>; 2];

/// What is told of a profile.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The profile's name.
    pub profile: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Measured virtual time.
    pub seconds: f64,
    /// Virtual time before it.
    pub warm_up_seconds: f64,
    /// What a reader must know to read the figures rightly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// The tunnel, if there is one; its fields stand beside those above.
    #[serde(flatten)]
    pub tunnel: Option<Outcome>,
    /// A tunnel without sharding, repair and asking.
    pub plain: Outcome,
}

/// What one tunnel has done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Payload that the bulk flow's application got.
    pub goodput_mbit_per_s: f64,
    /// One-way delay of the thin flow's frames.
    pub frame_delay_ms: Percentiles,
    /// Share of the thin flow's frames that never came.
    pub residual_loss: f64,
    /// What the tunnel sent beyond frames, both ways, in percent of the frames' bytes.
    pub overhead_percent: Overhead,
    /// Wait in the queue of the path from A to B, over time.
    pub queue_ms: Queue,
    /// Frames of the thin flow.
    pub thin_frames: Counts,
    /// The bulk flow's sender, from its start on.
    pub tcp: Tcp,
    /// Frames that came out and must not have; zero, or the tunnel is broken.
    pub broken_frames: u64,
}

/// Bytes by cause, in percent of the bytes of frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Overhead {
    /// Headers, tags, padding.
    pub headers: f64,
    /// Repair shards.
    pub repair: f64,
    /// Repeats.
    pub repeats: f64,
    /// Feedback and probes.
    pub feedback: f64,
}

/// A wait, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Queue {
    /// On average over time.
    pub mean: f64,
    /// The longest.
    pub max: f64,
}

/// Frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sent.
    pub sent: u64,
    /// Delivered.
    pub delivered: u64,
}

/// What a TCP sender saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tcp {
    /// Segments sent, repeats included.
    pub segments: u64,
    /// Repeats.
    pub repeats: u64,
    /// Timeouts.
    pub timeouts: u64,
    /// Reductions of the window.
    pub reductions: u64,
    /// Of those, reductions taken back.
    pub undone: u64,
}

impl From<TcpCounters> for Tcp {
    fn from(counters: TcpCounters) -> Self {
        Self {
            segments: counters.segments,
            repeats: counters.repeats,
            timeouts: counters.timeouts,
            reductions: counters.reductions,
            undone: counters.undone,
        }
    }
}

impl Overhead {
    fn of(sent: &SentBytes) -> Self {
        let percent = |bytes: u64| 100.0 * bytes as f64 / sent.frames.max(1) as f64;
        Self {
            headers: percent(sent.headers),
            repair: percent(sent.repair),
            repeats: percent(sent.repeats),
            feedback: percent(sent.feedback),
        }
    }
}

/// Evaluates a profile. `progress` is told from time to time which share of the work is done.
///
/// Of a pair only path a is used, by both tunnels; the report says so.
///
/// # Errors
///
/// If a path's parameter is outside its range.
pub fn profile(
    name: &str,
    profile: &Profile,
    seed: u64,
    options: Options,
    progress: &mut dyn FnMut(f64),
) -> Result<Report, InvalidProfile> {
    profile_tuned(name, profile, seed, options, &|_| {}, progress)
}

/// As [`profile`], after `tune` has changed what both ends of the sharding tunnel do by themselves.
///
/// # Errors
///
/// If a path's parameter is outside its range.
pub fn profile_tuned(
    name: &str,
    profile: &Profile,
    seed: u64,
    options: Options,
    tune: &dyn Fn(&mut EndpointConfig),
    progress: &mut dyn FnMut(f64),
) -> Result<Report, InvalidProfile> {
    let (path, note) = match profile {
        Profile::Single(path) => (path, None),
        Profile::Pair(pair) => (&pair.a, Some("a pair: both tunnels use its path a alone")),
    };
    let paths = std::slice::from_ref(path);
    let plain = run(paths, &plain_gateways, seed, options, &mut |share| {
        progress(share / 2.0)
    })?;
    let sharded = |seed| tuned_gateways(paths, seed, tune);
    let tunnel = run(paths, &sharded, seed, options, &mut |share| {
        progress(0.5 + share / 2.0)
    })?;
    Ok(Report {
        profile: name.to_owned(),
        seed,
        seconds: options.measured.as_secs_f64(),
        warm_up_seconds: options.warm_up.as_secs_f64(),
        note,
        tunnel: Some(tunnel),
        plain,
    })
}

/// A plain tunnel over path 0.
pub fn plain_gateways(_seed: u64) -> [Box<dyn Gateway>; 2] {
    [(); 2].map(|()| Box::new(PlainGateway::new(PlainConfig::default())) as Box<dyn Gateway>)
}

/// A sharding tunnel over all of `paths`, as it configures itself, with ports of 1500 bytes.
pub fn sharded_gateways(paths: &[PathProfile], seed: u64) -> [Box<dyn Gateway>; 2] {
    tuned_gateways(paths, seed, &|_| {})
}

fn tuned_gateways(
    paths: &[PathProfile],
    seed: u64,
    tune: &dyn Fn(&mut EndpointConfig),
) -> [Box<dyn Gateway>; 2] {
    let mut config = ShardedConfig::automatic(paths.len() as u8, PORT_MTU);
    tune(&mut config.endpoint);
    [Site::A, Site::B]
        .map(|site| Box::new(ShardedGateway::new(config, site, seed)) as Box<dyn Gateway>)
}

/// Evaluates one tunnel over `paths`.
///
/// # Errors
///
/// If a path's parameter is outside its range.
pub fn run(
    paths: &[PathProfile],
    gateways: MakeGateways<'_>,
    seed: u64,
    options: Options,
    progress: &mut dyn FnMut(f64),
) -> Result<Outcome, InvalidProfile> {
    let mut world = World::new(gateways(seed), paths, seed)?;
    let bulk = tcp::add_flow(&mut world, Site::A, TcpConfig::default());
    let thin = traffic::add_flow(&mut world, Site::A, DatagramConfig::thin());
    let start = Time::ZERO + options.warm_up;
    let end = start + options.measured;
    world.measure(start..end);
    let mut pass = |world: &mut World, until: Time, is_done: &dyn Fn(&World) -> bool| {
        while world.now() < until && !is_done(world) {
            world.run_until((world.now() + STEP).min(until));
            progress((world.now().as_nanos() as f64 / end.as_nanos() as f64).min(1.0));
        }
    };
    pass(&mut world, start, &|_| false);
    let before = Totals::of(&world, bulk);
    pass(&mut world, end, &|_| false);
    let after = Totals::of(&world, bulk);
    pass(&mut world, end + DRAIN, &|world| {
        let thin = world.stats(thin, Site::A);
        thin.delivered == thin.sent
    });
    Ok(outcome(&world, (bulk, thin), &before, &after, options))
}

/// Counters of one moment.
struct Totals {
    delivered: u64,
    wrong_bytes: u64,
    sent: [SentBytes; 2],
}

impl Totals {
    fn of(world: &World, bulk: FlowId) -> Self {
        let receiver = world.host::<TcpReceiver>(bulk, Site::B);
        Self {
            delivered: receiver.map_or(0, TcpReceiver::delivered),
            wrong_bytes: receiver.map_or(0, TcpReceiver::wrong_bytes),
            sent: [Site::A, Site::B].map(|site| world.sent(site)),
        }
    }
}

fn outcome(
    world: &World,
    (bulk, thin): (FlowId, FlowId),
    before: &Totals,
    after: &Totals,
    options: Options,
) -> Outcome {
    let stats = world.stats(thin, Site::A);
    let queue = world.queue(Site::A, 0).unwrap_or_default();
    let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let [a, b] = [0, 1].map(|site| after.sent[site].since(&before.sent[site]));
    let Integrity {
        wrong,
        twice,
        astray,
    } = world.integrity();
    let sender = world.host::<TcpSender>(bulk, Site::A);
    let bits = (after.delivered - before.delivered) as f64 * 8.0;
    Outcome {
        goodput_mbit_per_s: bits / 1e6 / options.measured.as_secs_f64(),
        frame_delay_ms: Percentiles::of(stats),
        residual_loss: stats.loss(),
        overhead_percent: Overhead::of(&a.plus(&b)),
        queue_ms: Queue {
            mean: ms(queue.mean()),
            max: ms(queue.max()),
        },
        thin_frames: Counts {
            sent: stats.sent,
            delivered: stats.delivered,
        },
        tcp: sender.map(TcpSender::counters).unwrap_or_default().into(),
        broken_frames: wrong + twice + astray + after.wrong_bytes,
    }
}
