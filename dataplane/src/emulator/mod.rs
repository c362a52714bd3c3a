//! The WAN emulator: two ports, and between them a path in each direction, in real time.
//!
//! It exists because not every kernel has netem, and because the simulator and the emulator then
//! are one model: [`shardgate_sim::path::PathModel`] decides, this module holds and sends.
//!
//! ```text
//!  left rx ─► Direction { PathModel, Calendar } ─► right tx
//!  left tx ◄─ Direction { Calendar, PathModel } ◄─ right rx      one lcore, one clock
//! ```
//!
//! | module | what |
//! |---|---|
//! | `direction` | one direction: the model's verdicts applied to packets, and every count |
//! | `calendar` | the packets held until they depart |
//! | `pacer` | when the loop may sleep without being late |
//! | `memory` | the written sum of mbufs |
//! | `queue` | the bottleneck's queue, sampled by the clock |
//! | `report` | what is printed at the end |
//!
//! Both directions run on the calling thread, which EAL makes its main lcore. The loop does not
//! allocate: queues, calendar and histograms have their final size before the first packet.

mod calendar;
mod direction;
mod memory;
mod pacer;
mod queue;
mod report;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use shardgate_dpdk::{
    Burst, Clock, Eal, EalConfig, Mbuf, Pool, Port, PortConfig, RxQueue, TxQueue, free_burst,
};
use shardgate_sim::path::{InvalidProfile, PathProfile};

use crate::config::PollMode;
use direction::Direction;
use memory::Memory;
use pacer::Pacer;

pub use memory::HELD_FRAMES_MAX;
pub use report::{DirectionReport, EmulatorReport, Lateness, QueueReport, Spread};

/// What to emulate, between which ports.
#[derive(Clone, Debug)]
pub struct EmulatorConfig {
    /// PCI address or vdev arguments of one port.
    pub left: String,
    /// The same of the other.
    pub right: String,
    /// What happens to frames that arrive at the left port.
    pub left_to_right: PathProfile,
    /// What happens to frames that arrive at the right port.
    pub right_to_left: PathProfile,
    /// Seed of both directions, which draw from different streams of it.
    pub seed: u64,
    /// How the loop waits for frames.
    pub poll: PollMode,
    /// Whether packet memory comes from hugepages; [`Self::memory_mb`] says how much.
    pub hugepages: bool,
    /// CPUs to run on, as in `0-1`; `None` is all that this process may use.
    pub cpus: Option<String>,
    /// Tells this process's EAL apart from others on the machine.
    pub file_prefix: String,
    /// Most frames held in each direction; `None` is worked out from the profile.
    pub held_frames: Option<usize>,
    /// Passed to EAL as they are.
    pub extra_eal_args: Vec<String>,
}

impl EmulatorConfig {
    /// A wire between two ports: no delay, no limit; without hugepages, adaptive.
    pub fn new(left: impl Into<String>, right: impl Into<String>) -> Self {
        Self {
            left: left.into(),
            right: right.into(),
            left_to_right: PathProfile::default(),
            right_to_left: PathProfile::default(),
            seed: 1,
            poll: PollMode::Adaptive,
            hugepages: false,
            cpus: None,
            file_prefix: format!("shardgate-emulate-{}", std::process::id()),
            held_frames: None,
            extra_eal_args: Vec::new(),
        }
    }

    /// Checks what can be checked without a device.
    ///
    /// # Errors
    ///
    /// A profile's parameter out of range, two ports of one name, or an interface that is not
    /// there.
    pub fn check(&self) -> Result<(), EmulatorError> {
        self.memory().map(|_| ())
    }

    /// Megabytes (2^20 bytes) of packet memory that [`run`] will take.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn memory_mb(&self) -> Result<u32, EmulatorError> {
        Ok(self.memory()?.megabytes())
    }

    fn memory(&self) -> Result<Memory, EmulatorError> {
        for (direction, profile) in [
            ("left to right", &self.left_to_right),
            ("right to left", &self.right_to_left),
        ] {
            profile
                .check()
                .map_err(|invalid| EmulatorError::Profile { direction, invalid })?;
        }
        let name = |device: &str| device.split(',').next().unwrap_or("").to_owned();
        if name(&self.left) == name(&self.right) {
            return Err(EmulatorError::SamePort(name(&self.left)));
        }
        Memory::of(self)
    }

    /// Largest packet of either direction: the MTU that both ports are configured with.
    fn mtu(&self) -> u16 {
        let mtu = self.left_to_right.mtu.max(self.right_to_left.mtu);
        u16::try_from(mtu).unwrap_or(u16::MAX)
    }
}

/// Why the emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// A parameter out of range.
    #[error("profile {direction}: {invalid}")]
    Profile {
        /// Which direction's profile.
        direction: &'static str,
        /// Key, value and what it may be.
        invalid: InvalidProfile,
    },
    /// Left and right are the same device.
    #[error(
        "left and right are both `{0}`; name two devices, such as net_af_packet0 and net_af_packet1"
    )]
    SamePort(String),
    /// The CPUs this process may use cannot be read.
    #[error("/proc/self/status: {0}; mount /proc, or name the CPUs")]
    Cpus(std::io::Error),
    /// EAL, a pool or a port.
    #[error(transparent)]
    Dpdk(#[from] shardgate_dpdk::Error),
}

/// Runs the emulator on this thread until `stop` is set, and says what it did.
///
/// Frames still held at the end are discarded and counted.
///
/// # Errors
///
/// Only before the first frame: a bad profile, too little memory, a port that does not open. EAL
/// starts once in a process, so a second call in one process fails.
pub fn run(config: &EmulatorConfig, stop: &AtomicBool) -> Result<EmulatorReport, EmulatorError> {
    let memory = config.memory()?;
    let eal = Eal::init(&EalConfig {
        lcores: format!("0@({})", cpus(config)?),
        hugepages: config.hugepages,
        memory_mb: (!config.hugepages).then_some(memory.megabytes()),
        file_prefix: config.file_prefix.clone(),
        pci: [&config.left, &config.right]
            .iter()
            .any(|device| !device.starts_with("net_") && !device.starts_with("eth_")),
        extra_args: config.extra_eal_args.clone(),
        ..EalConfig::default()
    })?;
    let ports = [
        Port::create(&eal, &config.left)?,
        Port::create(&eal, &config.right)?,
    ];
    let pool = Pool::new(
        &eal,
        "emulator",
        memory.mbufs(),
        memory.data_room(),
        memory::CACHE,
        None,
        // The only thread that touches it is this one.
        false,
    )?;
    let mut emulator = Emulator::new(config, &memory, &eal, ports, pool)?;
    emulator.run(config.poll, stop);
    Ok(emulator.finish(config.seed))
}

/// The `Cpus_allowed_list` of this process, unless the configuration names CPUs.
fn cpus(config: &EmulatorConfig) -> Result<String, EmulatorError> {
    if let Some(cpus) = &config.cpus {
        return Ok(cpus.clone());
    }
    let status = std::fs::read_to_string("/proc/self/status").map_err(EmulatorError::Cpus)?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .map(|list| list.trim().to_owned())
        .ok_or_else(|| EmulatorError::Cpus(std::io::Error::other("no Cpus_allowed_list")))
}

/// One direction with its queues. Packets go before the queues, whose end may be the pool's.
struct Lane {
    direction: Direction<Mbuf>,
    from: RxQueue,
    to: TxQueue,
}

/// Both directions. The order of the fields is that of their end: a pool outlives its packets.
struct Emulator {
    received: Burst,
    lanes: [Lane; 2],
    ports: [Port; 2],
    pool: Pool,
    clock: Clock,
    started_unix_s: f64,
    loops: u64,
}

impl Emulator {
    fn new(
        config: &EmulatorConfig,
        memory: &Memory,
        eal: &Eal,
        ports: [Port; 2],
        pool: Pool,
    ) -> Result<Self, EmulatorError> {
        let port_config = PortConfig {
            rx_pools: vec![pool.clone()],
            tx_queues: 1,
            rx_descriptors: memory::DESCRIPTORS,
            tx_descriptors: memory::DESCRIPTORS,
            mtu: config.mtu(),
            promiscuous: true,
        };
        let [left, right] = &ports;
        let (left_rx, left_tx) = left.configure(&port_config)?;
        let (right_rx, right_tx) = right.configure(&port_config)?;
        type Queues = (Vec<RxQueue>, Vec<TxQueue>);
        let lane = |name, profile, seed, held, (rx, tx): Queues| -> Result<Lane, EmulatorError> {
            let direction =
                Direction::new(profile, seed, held).map_err(|invalid| EmulatorError::Profile {
                    direction: name,
                    invalid,
                })?;
            // One queue was asked for each way, and `configure` hands out what was asked for.
            match (rx.into_iter().next(), tx.into_iter().next()) {
                (Some(from), Some(to)) => Ok(Lane {
                    direction,
                    from,
                    to,
                }),
                _ => Err(shardgate_dpdk::Error::DeviceMissing(name.to_owned()).into()),
            }
        };
        let lanes = [
            lane(
                "left to right",
                &config.left_to_right,
                config.seed,
                memory.held_left_to_right,
                (left_rx, right_tx),
            )?,
            // Any fixed other seed: the golden ratio's bits.
            lane(
                "right to left",
                &config.right_to_left,
                config.seed ^ 0x9e37_79b9_7f4a_7c15,
                memory.held_right_to_left,
                (right_rx, left_tx),
            )?,
        ];
        Ok(Self {
            received: Burst::new(),
            lanes,
            ports,
            pool,
            clock: Clock::start(eal),
            started_unix_s: (SystemTime::now().duration_since(UNIX_EPOCH))
                .map_or(0.0, |since| since.as_secs_f64()),
            loops: 0,
        })
    }

    fn run(&mut self, poll: PollMode, stop: &AtomicBool) {
        let mut pacer = Pacer::new(poll);
        while !stop.load(Ordering::Relaxed) {
            let mut moved = 0;
            for lane in &mut self.lanes {
                moved += lane.from.burst(&mut self.received);
                let now = self.clock.now();
                lane.direction.sample(now);
                for frame in self.received.drain(..) {
                    lane.direction.accept(now, frame, &mut self.pool);
                }
                moved += lane.send(&self.clock);
            }
            self.loops += 1;
            let next = self.lanes.iter().filter_map(|lane| lane.direction.next());
            pacer.wait(self.clock.now(), moved > 0, next.min());
        }
    }

    fn finish(mut self, seed: u64) -> EmulatorReport {
        let duration = self.clock.now();
        let [left_port, right_port] = &self.ports;
        let [left, right] = &mut self.lanes;
        let left_to_right = left.report(left_port, right_port);
        let right_to_left = right.report(right_port, left_port);
        EmulatorReport {
            seed,
            started_unix_s: self.started_unix_s,
            duration_s: duration.as_nanos() as f64 / 1e9,
            loops: self.loops,
            mbufs: self.pool.size(),
            left_to_right,
            right_to_left,
        }
    }
}

impl Lane {
    /// Sends what is due, and says how many frames that were.
    fn send(&mut self, clock: &Clock) -> usize {
        let mut moved = 0;
        loop {
            let burst = self.direction.due(clock.now());
            if burst.is_empty() {
                return moved;
            }
            let sent = self.to.burst(burst);
            self.direction.sent(clock.now(), sent);
            moved += sent;
            if sent == 0 {
                return moved;
            }
        }
    }

    fn report(&mut self, from: &Port, to: &Port) -> DirectionReport {
        let mut report = self.direction.report();
        free_burst(self.direction.burst());
        // A driver without counters leaves these at zero, like one that had nothing to count.
        let received = from.stats().unwrap_or_default();
        report.rx_missed = received.imissed;
        report.rx_no_mbuf = received.rx_nombuf + self.from.dropped();
        report.tx_errors = to.stats().unwrap_or_default().oerrors;
        report
    }
}
