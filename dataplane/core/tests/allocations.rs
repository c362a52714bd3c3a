//! Allocations per frame: none, from the aggregator through sealing to delivery, in order, out of
//! order and with losses, with everything that asks, repeats, repairs and reports.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use shardgate_core::buffer::{Buffer, BufferPool, HeapBuffer, Meta};
use shardgate_core::classify::classify;
use shardgate_core::endpoint::{
    Egress, Endpoint, EndpointConfig, Outbox, RecoveryConfig, RepairMode,
};
use shardgate_core::limits::HEADROOM;
use shardgate_core::predict::{HoldBounds, Policy, Rack};
use shardgate_core::receiver::{FrameSink, ReceiverConfig};
use shardgate_core::seal::{Aead, Origin, Received, SealBudget, Unsealed};
use shardgate_core::sender::{Close, SenderConfig};
use shardgate_core::time::Time;
use shardgate_core::wire::header::Kind;

type Shelf = Rc<RefCell<Vec<HeapBuffer>>>;

/// A buffer that goes back to its pool, as an mbuf does.
#[derive(Debug)]
struct Recycled {
    buffer: Option<HeapBuffer>,
    shelf: Shelf,
}

impl Recycled {
    fn inner(&self) -> &HeapBuffer {
        self.buffer.as_ref().expect("taken only on drop")
    }

    fn inner_mut(&mut self) -> &mut HeapBuffer {
        self.buffer.as_mut().expect("taken only on drop")
    }
}

impl Drop for Recycled {
    fn drop(&mut self) {
        if let Some(mut buffer) = self.buffer.take() {
            // Empty again, with its headroom.
            let (len, headroom) = (buffer.len(), buffer.headroom());
            assert!(buffer.trim_back(len));
            if headroom < HEADROOM {
                buffer.append(HEADROOM - headroom);
                assert!(buffer.trim_front(HEADROOM - headroom));
            } else {
                buffer.prepend(headroom - HEADROOM);
                assert!(buffer.trim_back(headroom - HEADROOM));
            }
            buffer.set_meta(Meta::default());
            self.shelf.borrow_mut().push(buffer);
        }
    }
}

impl Buffer for Recycled {
    fn data(&self) -> &[u8] {
        self.inner().data()
    }
    fn data_mut(&mut self) -> &mut [u8] {
        self.inner_mut().data_mut()
    }
    fn headroom(&self) -> usize {
        self.inner().headroom()
    }
    fn tailroom(&self) -> usize {
        self.inner().tailroom()
    }
    fn prepend(&mut self, n: usize) -> Option<&mut [u8]> {
        self.inner_mut().prepend(n)
    }
    fn append(&mut self, n: usize) -> Option<&mut [u8]> {
        self.inner_mut().append(n)
    }
    fn trim_front(&mut self, n: usize) -> bool {
        self.inner_mut().trim_front(n)
    }
    fn trim_back(&mut self, n: usize) -> bool {
        self.inner_mut().trim_back(n)
    }
    fn meta(&self) -> Meta {
        self.inner().meta()
    }
    fn set_meta(&mut self, meta: Meta) {
        self.inner_mut().set_meta(meta);
    }
}

struct Pool(Shelf);

impl BufferPool for Pool {
    type Buffer = Recycled;

    fn alloc(&mut self) -> Option<Recycled> {
        let buffer = self.0.borrow_mut().pop()?;
        Some(Recycled {
            buffer: Some(buffer),
            shelf: Rc::clone(&self.0),
        })
    }
}

struct Cipher(Aes256Gcm);

impl Aead for Cipher {
    fn seal(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8]) -> Option<[u8; 16]> {
        self.0
            .encrypt_inout_detached(nonce.into(), aad, data.into())
            .ok()
            .map(Into::into)
    }
    fn open(&self, nonce: &[u8; 12], aad: &[u8], data: &mut [u8], tag: &[u8; 16]) -> bool {
        self.0
            .decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into())
            .is_ok()
    }
}

#[derive(Default)]
struct Count(u64);

impl FrameSink<Recycled> for Count {
    fn frame(&mut self, _frame: Recycled) {
        self.0 += 1;
    }
}

/// Seals what leaves and puts it under way, with the time at which it arrives.
struct Wire {
    cipher: Cipher,
    under_way: VecDeque<(Time, Recycled)>,
    now: Time,
    sent: u64,
    loses: bool,
}

impl Outbox<Recycled> for Wire {
    fn credit(&self) -> usize {
        256
    }

    fn send(&mut self, datagram: Unsealed<Recycled>) {
        let sealed = datagram.seal(&self.cipher).expect("seals").into_buffer();
        self.sent += 1;
        // A loss in every 60, a dozen in a row in every 700, two neighbours swapped in every 35.
        if self.loses && (self.sent % 60 == 17 || self.sent % 700 < 12) {
            return;
        }
        self.under_way.push_back((self.now + DELAY, sealed));
        let len = self.under_way.len();
        if self.sent % 35 == 3 && len > 1 {
            self.under_way.swap(len - 1, len - 2);
        }
    }
}

const DELAY: Duration = Duration::from_millis(5);

struct Site {
    endpoint: Endpoint<Recycled>,
    delivered: Count,
    wire: Wire,
}

impl Site {
    fn new(loses: bool) -> Self {
        let config = EndpointConfig {
            stream: 0,
            endpoints: 1,
            paths: 1,
            sender: SenderConfig {
                shards_min: 1,
                shards_max: 64,
                payload_max: 1_414,
                checksum: true,
            },
            recovery: RecoveryConfig {
                retransmit: true,
                repair: RepairMode::Fixed {
                    every: 16,
                    window: 64,
                },
                overhead_limit: 0.25,
                retention_bytes: 8 << 20,
                payload_max: 1_414,
                queue_control: true,
            },
            receiver: ReceiverConfig {
                paths: 1,
                ordered: true,
                hold_bounds: HoldBounds::new(Duration::from_millis(5), None),
                held_frames_max: 512,
                kept_shards_max: 512,
                checksum: true,
                asks: true,
                passes_on: false,
                rebuilt_payload_max: 1_414,
            },
            policy: Policy::Rack(Rack::default()),
        };
        let origin = Origin {
            key_slot: 0,
            peer: 0,
            flow: 0,
        };
        let mut endpoint = Endpoint::new(config);
        endpoint.install_key(SealBudget::new(1, origin, 1, Time::ZERO), 128);
        endpoint.expect_streams(1);
        endpoint.set_path(0, Some(1_414));
        Self {
            endpoint,
            delivered: Count::default(),
            wire: Wire {
                cipher: Cipher(Aes256Gcm::new(&[7; 32].into())),
                under_way: VecDeque::with_capacity(4_096),
                now: Time::ZERO,
                sent: 0,
                loses,
            },
        }
    }

    fn offer(&mut self, pool: &mut Pool, round: u64, now: Time) {
        self.wire.now = now;
        for frame in 0..8u64 {
            let len = [60, 1_408, 98, 1_514, 590, 9_014, 60, 1_400][frame as usize];
            let mut buffer = pool.alloc().expect("the pool is large enough");
            let data = buffer.append(len).expect("fits");
            data.fill((round + frame) as u8);
            data[12..14].copy_from_slice(&[0x08, 0x00]);
            data[14] = 0x45;
            let lane = classify(buffer.data()).lane;
            assert!(self.endpoint.offer(buffer, lane, now).is_ok());
        }
        let closed = self.endpoint.close(&mut Egress {
            now,
            pool,
            outbox: &mut self.wire,
        });
        assert!(matches!(closed, Close::Sent(_)));
    }

    /// Takes what the other end has under way, and does what time brings.
    fn receive(&mut self, from: &mut Wire, pool: &mut Pool, now: Time) {
        self.wire.now = now;
        while from.under_way.front().is_some_and(|(at, _)| *at <= now) {
            let (_, datagram) = from.under_way.pop_front().expect("it is there");
            let Ok((received, header)) = Received::new(datagram) else {
                panic!("sound header")
            };
            let Ok(opened) = received.open(&from.cipher) else {
                panic!("authentic")
            };
            if header.kind == Kind::Feedback {
                let mut egress = Egress {
                    now,
                    pool,
                    outbox: &mut self.wire,
                };
                let sink = &mut self.delivered;
                self.endpoint
                    .accept_feedback(&opened, 1, now, &mut egress, sink);
            } else {
                self.endpoint
                    .accept(opened, 0, 1, now, pool, &mut self.delivered);
            }
        }
        let mut egress = Egress {
            now,
            pool,
            outbox: &mut self.wire,
        };
        self.endpoint.poll(now, &mut egress, &mut self.delivered);
    }
}

#[test]
fn no_allocation_per_frame() {
    let shelf: Shelf = Rc::default();
    for _ in 0..3_000 {
        shelf.borrow_mut().push(HeapBuffer::new(HEADROOM, 9_200));
    }
    let mut pool = Pool(Rc::clone(&shelf));
    let (mut here, mut there) = (Site::new(true), Site::new(false));
    let rounds = 2_000;

    let allocations = allocation_counter::measure(|| {
        for round in 0..rounds {
            let now = Time((round + 1) * 1_000_000);
            here.offer(&mut pool, round, now);
            there.receive(&mut here.wire, &mut pool, now);
            here.receive(&mut there.wire, &mut pool, now);
        }
    });
    let delivered = there.delivered.0;
    assert!(
        delivered > rounds * 8 * 95 / 100,
        "{delivered} of {}",
        rounds * 8
    );
    let sent = here.endpoint.outbound_stats();
    assert!(
        sent.repeats > 10 && sent.repairs > 100 && sent.reports > 100,
        "{sent:?}"
    );
    let (_, stream) = there.endpoint.received().next().expect("one stream");
    let stats = stream.stats();
    assert!(
        stats.filled_by_repair > 10 && stats.frames_assembled > 100,
        "{stats:?}"
    );
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}
