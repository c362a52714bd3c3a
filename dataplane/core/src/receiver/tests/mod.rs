//! Tests of the predictive buffer: a sender and a receiver with the wire between them.

mod hostile;
mod lanes;

use core::time::Duration;

use super::*;
use crate::buffer::{HeapBuffer, HeapPool};
use crate::predict::Fixed;
use crate::seal::tests::{ORIGIN, TestAead};
use crate::seal::{Received, SealBudget};
use crate::sender::{Close, Departure, Refused, SenderConfig, StreamSender};

const HOLD: Duration = Duration::from_millis(20);

pub(super) fn config() -> ReceiverConfig {
    ReceiverConfig {
        paths: 1,
        ordered: true,
        hold_bounds: HoldBounds::new(Duration::from_millis(5), Some(HOLD)),
        held_frames_max: 4_096,
        kept_shards_max: 1_024,
        checksum: true,
        asks: false,
        passes_on: false,
        rebuilt_payload_max: 0,
    }
}

#[derive(Default)]
struct Frames(Vec<Vec<u8>>);

impl FrameSink<HeapBuffer> for Frames {
    fn frame(&mut self, frame: HeapBuffer) {
        self.0.push(frame.data().to_vec());
    }
}

/// A sender and a predictive buffer with the wire in the test's hands.
pub(super) struct Tunnel<P = Fixed> {
    sender: StreamSender<HeapBuffer>,
    budget: SealBudget,
    pub(super) receiver: PredictiveBuffer<HeapBuffer, P>,
    pool: HeapPool,
    out: Frames,
    aead: TestAead,
}

impl Tunnel {
    fn new(config: ReceiverConfig, payload_max: usize) -> Self {
        Self::predicting(config, payload_max, Fixed(Duration::from_secs(1)))
    }
}

impl<P: Predictor> Tunnel<P> {
    pub(super) fn predicting(config: ReceiverConfig, payload_max: usize, predictor: P) -> Self {
        let sender = SenderConfig {
            shards_min: 1,
            shards_max: 64,
            payload_max,
            checksum: true,
        };
        Self {
            sender: StreamSender::new(0, sender),
            budget: SealBudget::new(1, ORIGIN, 1, Time::ZERO),
            receiver: PredictiveBuffer::new(config, predictor),
            pool: HeapPool::new(usize::MAX, 16_384),
            out: Frames::default(),
            aead: TestAead::new(9),
        }
    }

    /// Sends frames, as one aggregate if they fit one; returns the datagrams.
    pub(super) fn send(&mut self, frames: &[(Vec<u8>, Lane)]) -> Vec<Vec<u8>> {
        let mut datagrams = vec![];
        for (frame, lane) in frames {
            let mut offered = self.sender.offer(HeapBuffer::from_bytes(frame), *lane);
            if let Err(Refused::Full(frame)) = offered {
                self.close(&mut datagrams);
                offered = self.sender.offer(frame, *lane);
            }
            offered.unwrap();
        }
        self.close(&mut datagrams);
        datagrams
    }

    fn close(&mut self, datagrams: &mut Vec<Vec<u8>>) {
        let departure = Departure {
            now: Time::ZERO,
            path: 0,
            budget: &mut self.budget,
            credit: 64,
            pool: &mut self.pool,
        };
        let outcome = self.sender.close(departure, |shard| {
            datagrams.push(
                shard
                    .seal(&self.aead)
                    .unwrap()
                    .into_buffer()
                    .data()
                    .to_vec(),
            );
        });
        assert!(matches!(outcome, Close::Sent(_)));
    }

    pub(super) fn receive(&mut self, datagram: &[u8], generation: u32, now: Time) {
        let (received, _) = Received::new(HeapBuffer::from_bytes(datagram)).unwrap();
        let opened = received.open(&self.aead).unwrap();
        self.receiver
            .accept(opened, generation, now, &mut self.pool, &mut self.out);
    }

    pub(super) fn poll(&mut self, now: Time) {
        self.receiver.poll(now, &mut self.out);
    }
}

/// A frame that can be told from all others.
pub(super) fn frame(number: u32, len: usize) -> Vec<u8> {
    (0..len.max(14))
        .map(|i| (number.wrapping_mul(31).wrapping_add(i as u32 * 7)) as u8)
        .collect::<Vec<_>>()
        .into_iter()
        .enumerate()
        .map(|(i, b)| if i < 4 { number.to_be_bytes()[i] } else { b })
        .collect()
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(*frame.first_chunk().unwrap())
}

pub(super) fn ms(ms: u64) -> Time {
    Time(ms * 1_000_000)
}
