//! A gateway that receives a flow of frames and, in between, datagrams that nobody should send.
//!
//! The run goes by pairs of slices: in one the flow has the gateway for itself, in the other as
//! many frames of it come between bursts of hostile datagrams, a burst of each kind in its turn.
//! Time is virtual; only what the gateway's work takes is measured by a clock.

mod attacker;
#[path = "../gateway.rs"]
mod gateway;
#[path = "../random.rs"]
mod random;
mod report;

use std::time::{Duration, Instant};

use shardgate_core::buffer::{Buffer, BufferPool};
use shardgate_core::drop_reason::Drops;
use shardgate_core::limits::REPLAY_WINDOW;
use shardgate_core::predict::{Policy, Rack};
use shardgate_core::receiver::{FrameSink, ReceiverStats};
use shardgate_core::time::Time;

use self::attacker::{ATTACKS, Attacker};
use self::gateway::recycled::{Pool, Recycled};
use self::gateway::{Gateway, Side};
pub use self::report::Report;
use self::report::{Bursts, Look};

/// Datagrams of an rx burst.
const BURST: usize = 32;
/// Bursts of hostile datagrams in a round of a slice under attack: five datagrams for each of the
/// flow's.
const BURSTS_PER_ROUND: u64 = 2;
const PAIRS: u64 = 100;
/// The flow: its frames of a round, and how often that is: 450 Mbit/s.
const FRAME_LENS: [usize; 8] = [60, 1_408, 98, 1_514, 590, 9_014, 60, 1_400];
const ROUND: Duration = Duration::from_micros(250);
const BUFFERS: usize = 2_048;
/// Rounds before measuring and after the oldest datagrams have become old: more than the attacker
/// remembers.
const FULL_ROUNDS: u64 = 200;
const WARM_UP_ROUNDS: u64 = REPLAY_WINDOW as u64 + 2 * FULL_ROUNDS;

/// Notes every frame of the flow.
struct Ledger {
    seen: Vec<u64>,
    delivered: u64,
    twice: u64,
    wrong: u64,
}

/// Fills a frame by its number, which stands at the end.
fn write_frame(frame: &mut [u8], number: u64) {
    frame.fill(number as u8);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[14] = 0x45;
    if let Some(last) = frame.last_chunk_mut() {
        *last = number.to_be_bytes();
    }
}

fn len_of(number: u64) -> usize {
    FRAME_LENS[(number % FRAME_LENS.len() as u64) as usize]
}

impl FrameSink<Recycled> for Ledger {
    fn frame(&mut self, frame: Recycled) {
        let data = frame.data();
        let number = data
            .last_chunk()
            .map_or(0, |last| u64::from_be_bytes(*last));
        let Some(word) = self.seen.get_mut((number / 64) as usize) else {
            self.wrong += 1;
            return;
        };
        let is_right = data.len() == len_of(number) && data.get(15) == Some(&(number as u8));
        let bit = 1 << (number % 64);
        self.wrong += u64::from(!is_right);
        self.twice += u64::from(*word & bit != 0);
        *word |= bit;
        self.delivered += 1;
    }
}

/// The peer, the victim and who stands between them.
struct World {
    peer: Gateway<Ledger>,
    victim: Gateway<Ledger>,
    attacker: Attacker,
    pool: Pool,
    now: Time,
    next_frame: u64,
    /// Frames offered; not every number below the next one was.
    offered: u64,
    next_attack: usize,
    frames: Vec<Recycled>,
    burst: Vec<Recycled>,
    attacks: [Bursts; ATTACKS.len()],
}

/// Sends at least `hostile` hostile datagrams into a flow.
pub fn run(hostile: u64) -> Report {
    let bursts = hostile.div_ceil(BURST as u64 * PAIRS);
    let rounds = bursts.div_ceil(BURSTS_PER_ROUND);
    let mut world = World::new(2 * PAIRS * rounds, PAIRS * bursts);
    world.warm_up();
    let (mut alone, mut attacked) = (
        Bursts::with_capacity(PAIRS * rounds),
        Bursts::with_capacity(PAIRS * rounds),
    );
    let before = world.look();
    let allocations = allocation_counter::measure(|| {
        for _ in 0..PAIRS {
            world.slice(rounds, 0, &mut alone);
            world.slice(rounds, bursts, &mut attacked);
        }
    });
    let after = world.look();
    world.drain();
    let World {
        peer,
        victim,
        pool,
        offered,
        attacks,
        ..
    } = world;
    let Ledger {
        delivered,
        twice,
        wrong,
        ..
    } = victim.sink;
    drop((peer, victim.endpoint, victim.wire));
    Report {
        before,
        after,
        allocations: allocations.count_total,
        pairs: PAIRS as usize,
        attacks,
        alone,
        attacked,
        offered,
        delivered,
        twice,
        wrong,
        leaked: BUFFERS - pool.left(),
    }
}

impl World {
    /// Room for so many rounds of the flow, and so many hostile bursts.
    fn new(rounds: u64, bursts: u64) -> Self {
        let frames = (rounds + WARM_UP_ROUNDS) * FRAME_LENS.len() as u64;
        let ledger = |frames: u64| Ledger {
            seen: vec![0; frames.div_ceil(64) as usize],
            delivered: 0,
            twice: 0,
            wrong: 0,
        };
        let each = bursts.div_ceil(ATTACKS.len() as u64);
        let policy = Policy::Rack(Rack::default());
        Self {
            peer: Gateway::new(Side::Here, policy, ledger(0)),
            victim: Gateway::new(Side::There, policy, ledger(frames)),
            attacker: Attacker::new(Side::Here, 1),
            pool: Pool::new(BUFFERS, 9_200),
            now: Time::ZERO,
            next_frame: 0,
            offered: 0,
            next_attack: 0,
            frames: Vec::with_capacity(BUFFERS),
            burst: Vec::with_capacity(BURST),
            attacks: std::array::from_fn(|_| Bursts::with_capacity(each)),
        }
    }

    /// The first datagrams leave the replay window, and whatever takes memory once has taken it.
    fn warm_up(&mut self) {
        let full = FRAME_LENS.len() as u64;
        for _ in 0..FULL_ROUNDS {
            self.offer(full);
            self.carry();
        }
        // The least that is a datagram.
        for _ in 0..REPLAY_WINDOW {
            self.offer(1);
            self.carry();
        }
        for _ in 0..FULL_ROUNDS {
            self.offer(full);
            self.carry();
        }
    }

    /// So many rounds of the flow, with so many bursts of hostile datagrams in between.
    fn slice(&mut self, rounds: u64, bursts: u64, flow: &mut Bursts) {
        for round in 0..rounds {
            let left = bursts.saturating_sub(round * BURSTS_PER_ROUND);
            let bursts = left.min(BURSTS_PER_ROUND);
            self.offer(FRAME_LENS.len() as u64);
            (0..bursts / 2).for_each(|_| self.attack());
            let (datagrams, time) = self.carry();
            flow.add(datagrams, time);
            (bursts / 2..bursts).for_each(|_| self.attack());
        }
    }

    /// A round begins: the first `count` of its frames come from the peer's LAN.
    fn offer(&mut self, count: u64) {
        self.now += ROUND;
        for number in self.next_frame..self.next_frame + count {
            let mut frame = self.pool.alloc().expect("the pool is large enough");
            write_frame(frame.append(len_of(number)).expect("room"), number);
            self.frames.push(frame);
        }
        self.next_frame += FRAME_LENS.len() as u64;
        self.offered += count;
        let frames = self.frames.drain(..);
        self.peer.offer(frames, self.now, &mut self.pool);
    }

    /// What is under way between the two arrives; what came at the victim, and the time it took.
    fn carry(&mut self) -> (usize, Duration) {
        let Self {
            peer,
            victim,
            attacker,
            pool,
            frames,
            now,
            ..
        } = self;
        peer.wire.arrived(*now, frames);
        // Before it arrives: of what the attacker has, the victim shall have everything.
        frames.iter().for_each(|frame| attacker.overhear(frame));
        let count = frames.len();
        let started = Instant::now();
        for frame in frames.drain(..) {
            victim.take(frame, *now, pool);
        }
        victim.poll(*now, pool);
        let time = started.elapsed();
        victim.wire.arrived(*now, frames);
        for frame in frames.drain(..) {
            peer.take(frame, *now, pool);
        }
        peer.poll(*now, pool);
        (count, time)
    }

    /// A burst of the next kind, of which the receiver must know nothing afterwards.
    fn attack(&mut self) {
        let attack = &ATTACKS[self.next_attack];
        for _ in 0..BURST {
            let frame = (attack.make)(&mut self.attacker, &mut self.pool);
            self.burst.push(frame);
        }
        let before = self.received();
        let started = Instant::now();
        for frame in self.burst.drain(..) {
            self.victim.take(frame, self.now, &mut self.pool);
        }
        self.attacks[self.next_attack].add(BURST, started.elapsed());
        assert_eq!(self.received(), before, "{}", attack.name);
        self.next_attack = (self.next_attack + 1) % ATTACKS.len();
    }

    /// All that the receiver counts and keeps, its drops apart.
    fn received(&self) -> (ReceiverStats, usize, usize, u64) {
        let mut streams = self.victim.endpoint.received();
        let (_, stream) = streams.next().expect("one stream");
        let delivered = self.victim.sink.delivered;
        (stream.stats(), stream.kept(), stream.held(), delivered)
    }

    fn look(&self) -> Look {
        let (stats, kept, held, _) = self.received();
        let mut drops = Drops::default();
        drops.merge(&self.victim.drops);
        self.victim.endpoint.add_drops(&mut drops);
        Look {
            drops,
            stats,
            kept,
            held,
            buffers: BUFFERS - self.pool.left(),
        }
    }

    /// What is under way arrives.
    fn drain(&mut self) {
        for _ in 0..100 {
            self.now += ROUND;
            self.carry();
        }
    }
}
