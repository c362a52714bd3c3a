//! Allocations per frame: none, from the aggregator through sealing to delivery, in order, out of
//! order and with losses.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use shardgate_core::buffer::{Buffer, BufferPool, HeapBuffer, Meta};
use shardgate_core::classify::classify;
use shardgate_core::limits::HEADROOM;
use shardgate_core::predict::{Fixed, HoldBounds};
use shardgate_core::receiver::{FrameSink, PredictiveBuffer, ReceiverConfig};
use shardgate_core::seal::{Aead, Origin, Received, SealBudget};
use shardgate_core::sender::{Close, Departure, SenderConfig, StreamSender};
use shardgate_core::time::Time;

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

#[test]
fn no_allocation_per_frame() {
    let shelf: Shelf = Rc::default();
    for _ in 0..2_000 {
        shelf.borrow_mut().push(HeapBuffer::new(HEADROOM, 9_200));
    }
    let mut pool = Pool(Rc::clone(&shelf));
    let sender = SenderConfig {
        shards_min: 1,
        shards_max: 64,
        payload_max: 1_414,
        checksum: true,
    };
    let receiver = ReceiverConfig {
        paths: 1,
        ordered: true,
        hold_bounds: HoldBounds::new(Duration::from_millis(5), Some(Duration::from_millis(20))),
        held_frames_max: 512,
        kept_shards_max: 512,
        checksum: true,
        asks: true,
        rebuilt_payload_max: 1_414,
    };
    let origin = Origin {
        key_slot: 0,
        peer: 0,
        flow: 0,
    };
    let mut budget = SealBudget::new(1, origin, 1, Time::ZERO);
    let mut sender = StreamSender::<Recycled>::new(0, sender);
    let mut receiver = PredictiveBuffer::new(receiver, Fixed(Duration::from_millis(20)));
    let cipher = Cipher(Aes256Gcm::new(&[7; 32].into()));
    let mut delivered = Count::default();
    let mut sealed = Vec::with_capacity(64);
    let mut sent = 0;

    let allocations = allocation_counter::measure(|| {
        for round in 0..2_000u64 {
            let now = Time(round * 1_000_000);
            for frame in 0..8u64 {
                let len = [60, 1_408, 98, 1_514, 590, 9_014, 60, 1_400][frame as usize];
                let mut buffer = pool.alloc().expect("the pool is large enough");
                let data = buffer.append(len).expect("fits");
                data.fill((round + frame) as u8);
                data[12..14].copy_from_slice(&[0x08, 0x00]);
                data[14] = 0x45;
                let lane = classify(buffer.data()).lane;
                assert!(sender.offer(buffer, lane).is_ok());
                sent += 1;
            }
            let departure = Departure {
                now,
                path: 0,
                budget: &mut budget,
                credit: 64,
                pool: &mut pool,
            };
            let closed = sender.close(departure, |shard| {
                sealed.push(shard.seal(&cipher).expect("seals").into_buffer());
            });
            assert!(matches!(closed, Close::Sent(_)));
            // A loss in every third round, two neighbours swapped in every fifth.
            if round % 3 == 0 {
                sealed.remove(2);
            }
            if round % 5 == 0 {
                sealed.swap(1, 3);
            }
            for datagram in sealed.drain(..) {
                let Ok((received, _)) = Received::new(datagram) else {
                    panic!("sound header")
                };
                let Ok(opened) = received.open(&cipher) else {
                    panic!("authentic")
                };
                receiver.accept(opened, 1, now, &mut pool, &mut delivered);
            }
            receiver.poll(now, &mut delivered);
        }
    });
    assert!(delivered.0 > sent * 8 / 10, "{} of {sent}", delivered.0);
    assert!(receiver.stats().holes_given_up > 0 && receiver.stats().frames_assembled > 0);
    assert_eq!(allocations.count_total, 0, "{allocations:?}");
}
