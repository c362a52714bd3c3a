//! A dataplane for tests: one lcore in virtual time that keeps the engine's promises, and checks
//! that what is asked of it makes sense.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use shardgate_core::limits::KEY_SLOTS;
use shardgate_core::time::Time;
use shardgate_dataplane::command::{Command, PathAddress};

use crate::dataplane::Dataplane;

/// xorshift64*, so that a seed replays a run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next() as u8;
        }
    }

    pub fn chance(&mut self, percent: u32) -> bool {
        self.next() % 100 < u64::from(percent)
    }
}

/// What a sealed datagram says: a probe is answered by an echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    Probe,
    Echo,
    Close,
}

/// Something sealed under a key, and addressed to an index.
#[derive(Clone, Copy, Debug)]
pub struct Sealed {
    pub index: u32,
    pub key: [u8; 32],
    pub what: Data,
}

/// One lcore that needs `latency` to carry out a command, and keeps the engine's promises.
pub struct Fake {
    pub now: Time,
    pub latency: Duration,
    pub posted: Vec<Time>,
    pub receive: HashMap<u32, ([u8; 32], u32)>,
    pub retired: HashSet<u32>,
    pub send: Option<(u32, [u8; 32])>,
    confirmed: HashSet<u32>,
    heard: Option<Time>,
    closed: bool,
    pub seals: u64,
    /// What it has sealed and sent.
    pub out: Vec<Sealed>,
    /// Frames that concern the gateway itself, and their ports.
    pub frames_in: VecDeque<(usize, Vec<u8>)>,
    /// Frames that the gateway wants sent.
    pub frames_out: Vec<(usize, Vec<u8>)>,
    pub path: Option<PathAddress>,
    /// Whether it can seal before it has a path.
    pub needs_path: bool,
    /// Of the send keys, in order.
    pub generations: Vec<u32>,
}

impl Fake {
    pub fn new(now: Time) -> Self {
        Self {
            now,
            latency: Duration::from_millis(2),
            posted: Vec::new(),
            receive: HashMap::new(),
            retired: HashSet::new(),
            send: None,
            confirmed: HashSet::new(),
            heard: None,
            closed: false,
            seals: 0,
            out: Vec::new(),
            frames_in: VecDeque::new(),
            frames_out: Vec::new(),
            path: None,
            needs_path: false,
            generations: Vec::new(),
        }
    }

    fn seal(&mut self, what: Data) {
        if self.needs_path && self.path.is_none() {
            return;
        }
        if let Some((index, key)) = self.send {
            self.seals += 1;
            self.out.push(Sealed { index, key, what });
        }
    }

    /// True if it opened.
    pub fn open(&mut self, Sealed { index, key, what }: Sealed) -> bool {
        if self
            .receive
            .get(&index)
            .is_none_or(|(known, _)| *known != key)
        {
            return false;
        }
        self.confirmed.insert(index);
        self.heard = Some(self.now);
        match what {
            Data::Probe => self.seal(Data::Echo),
            Data::Echo => {}
            Data::Close => self.closed = true,
        }
        true
    }
}

impl Dataplane for Fake {
    type Ticket = usize;

    fn now(&self) -> Time {
        self.now
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<usize> {
        let (port, bytes) = self.frames_in.pop_front()?;
        *frame = bytes;
        Some(port)
    }

    fn send(&mut self, port: usize, frame: &[u8]) -> bool {
        self.frames_out.push((port, frame.to_vec()));
        true
    }

    fn post(&mut self, command: Command) -> usize {
        match command {
            Command::InstallReceiveKey(key) => {
                let slot = key.receiver_index % KEY_SLOTS as u32;
                let taken = self
                    .receive
                    .keys()
                    .any(|index| index % KEY_SLOTS as u32 == slot);
                assert!(!taken, "key slot {slot} is in use");
                self.receive
                    .insert(key.receiver_index, (*key.key.bytes(), key.generation));
                self.confirmed.remove(&key.receiver_index);
            }
            Command::RetireReceiveKey { receiver_index } => {
                assert!(
                    self.receive.remove(&receiver_index).is_some(),
                    "retired twice"
                );
                self.retired.insert(receiver_index);
            }
            Command::InstallSendKey(key) => {
                self.send = Some((key.receiver_index, *key.key.bytes()));
                self.seals = 0;
                self.generations.push(key.generation);
            }
            Command::RetireSendKey { .. } => self.send = None,
            Command::Probe { .. } => self.seal(Data::Probe),
            Command::Close { .. } => self.seal(Data::Close),
            Command::SetPath { address, .. } => self.path = address,
        }
        self.posted.push(self.now);
        self.posted.len() - 1
    }

    fn acknowledged(&mut self, ticket: usize) -> bool {
        self.now.since(self.posted[ticket]) >= self.latency
    }

    fn confirmed(&self, receiver_index: u32) -> bool {
        self.confirmed.contains(&receiver_index)
    }

    fn seals(&self, _peer: u16) -> u64 {
        self.seals
    }

    fn take_closed(&mut self, _peer: u16) -> bool {
        std::mem::take(&mut self.closed)
    }

    fn last_heard(&self, _peer: u16) -> Option<Time> {
        self.heard
    }

    fn streams(&self, _peer: u16) -> u8 {
        2
    }
}
