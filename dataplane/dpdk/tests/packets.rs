//! Packets, pools and rings, and ports on virtual devices that need no privilege.

mod common;

use common::eal;
use shardgate_core::buffer::{Buffer, BufferPool, HeapBuffer, Meta};
use shardgate_core::limits::HEADROOM;
use shardgate_core::seal::Received;
use shardgate_core::time::Time;
use shardgate_core::wire::header::{ClearHeader, Kind};
use shardgate_dpdk::{
    BURST, Burst, Error, LcoreId, Mbuf, Pool, Port, PortConfig, free_burst, leaked_pools, spsc,
};

/// Default-sized mbufs and no caches, so that counts are exact.
fn pool(name: &str, count: usize) -> Pool {
    Pool::new(eal(), name, count, 2048 + HEADROOM, 0, None, false).expect("a pool")
}

fn numbered(pool: &mut Pool, number: u32) -> Mbuf {
    let mut mbuf = pool.alloc().expect("the pool has more");
    mbuf.append(4)
        .expect("room")
        .copy_from_slice(&number.to_be_bytes());
    mbuf
}

fn number(mbuf: &Mbuf) -> u32 {
    u32::from_be_bytes(mbuf.data().try_into().expect("4 bytes"))
}

fn config(pool: &Pool) -> PortConfig {
    PortConfig {
        rx_pools: vec![pool.clone()],
        tx_queues: 1,
        rx_descriptors: 512,
        tx_descriptors: 512,
        mtu: 1500,
        promiscuous: true,
    }
}

#[test]
fn a_pool_hands_out_all_it_has_and_gets_all_back() {
    for (name, cache, preemptible) in [
        ("plain", 0, false),
        ("cached", 32, false),
        ("preemptible", 0, true),
    ] {
        let mut pool = Pool::new(eal(), name, 255, 2176, cache, None, preemptible).expect("a pool");
        assert_eq!(
            (pool.size(), pool.available(), pool.in_use()),
            (255, 255, 0)
        );
        assert_eq!(pool.room(), 2048);
        let mut held: Vec<Mbuf> = std::iter::from_fn(|| pool.alloc()).collect();
        assert_eq!((held.len(), pool.available(), pool.in_use()), (255, 0, 255));

        let mut burst = Burst::new();
        assert!(!pool.alloc_bulk(&mut burst, 1) && burst.is_empty());
        held.truncate(255 - 10);
        assert!(
            !pool.alloc_bulk(&mut burst, 11) && burst.is_empty(),
            "all or nothing"
        );
        assert!(pool.alloc_bulk(&mut burst, 10));
        assert_eq!((burst.len(), pool.available()), (10, 0));
        held.clear();
        assert!(
            !pool.alloc_bulk(&mut burst, BURST),
            "more than the burst has room for"
        );
        assert_eq!(burst.len(), 10);
        free_burst(&mut burst);
        assert!(burst.is_empty());
        free_burst(&mut burst);
        assert_eq!(pool.available(), 255);
    }
}

#[test]
fn impossible_pools_and_rings_are_refused() {
    let new = |name: &str, count, room, cache| {
        Pool::new(eal(), name, count, room, cache, None, false).err()
    };
    assert!(matches!(
        new("small", 31, HEADROOM, 0),
        Some(Error::BadSize { .. })
    ));
    assert!(matches!(
        new("large", 31, 65_536, 0),
        Some(Error::BadSize { .. })
    ));
    assert!(matches!(new("none", 0, 2176, 0), Some(Error::Dpdk { .. })));
    assert!(matches!(
        new("cache", 31, 2176, 513),
        Some(Error::Dpdk { .. })
    ));
    assert!(matches!(
        new("huge", 1 << 24, 65_535, 0),
        Some(Error::Dpdk { .. })
    ));
    assert!(matches!(
        new("a-name-of-more-than-26-bytes", 31, 2176, 0),
        Some(Error::Dpdk { .. })
    ));
    let first = pool("twice", 31);
    assert!(matches!(
        new("twice", 31, 2176, 0),
        Some(Error::Dpdk { .. })
    ));
    drop(first);
    drop(pool("twice", 31));

    for size in [0, 1, 3, 1000, (1 << 30) + 1, 1 << 31] {
        assert!(
            matches!(spsc::<Mbuf>(eal(), "bad", size), Err(Error::BadSize { .. })),
            "{size}"
        );
    }
}

/// Every operation gives what it gives on the heap buffer that the core's tests use.
#[test]
fn an_mbuf_behaves_like_the_heap_buffer() {
    let mut pool = pool("model", 31);
    let mut mbuf = pool.alloc().expect("an mbuf");
    let mut heap = HeapBuffer::new(HEADROOM, 2048);
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut accepted = [0; 4];
    for step in 0..20_000u32 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        // Small steps walk, large ones hit the limits and the 16-bit edges.
        let n = match random >> 60 {
            0 => 70_000,
            1 => (random >> 8) as usize % 3000,
            _ => (random >> 8) as usize % 90,
        };
        let operation = (random >> 4) as usize % 4;
        let fill = |room: Option<&mut [u8]>| {
            room.map(|room| {
                room.fill(step as u8);
                room.len()
            })
        };
        let (ours, model) = match operation {
            0 => (fill(mbuf.prepend(n)), fill(heap.prepend(n))),
            1 => (fill(mbuf.append(n)), fill(heap.append(n))),
            2 => (
                mbuf.trim_front(n).then_some(n),
                heap.trim_front(n).then_some(n),
            ),
            _ => (
                mbuf.trim_back(n).then_some(n),
                heap.trim_back(n).then_some(n),
            ),
        };
        assert_eq!(ours, model, "step {step}: operation {operation} by {n}");
        assert_eq!(
            (mbuf.headroom(), mbuf.tailroom()),
            (heap.headroom(), heap.tailroom())
        );
        assert!(mbuf.data() == heap.data() && mbuf.data_mut() == heap.data_mut());
        assert_eq!((mbuf.len(), mbuf.is_empty()), (heap.len(), heap.is_empty()));
        accepted[operation] += usize::from(ours.is_some());
    }
    assert!(accepted.iter().all(|&count| count > 1000), "{accepted:?}");
    drop(mbuf);
    assert_eq!(pool.available(), 31);
}

#[test]
fn metadata_travels_with_the_packet_and_starts_afresh() {
    let mut pool = pool("meta", 1);
    let meta = Meta {
        rx_time: Time(0x0102_0304_0506_0708),
        key_slot: 0xa1a2,
        peer: 0xb1b2,
        path: 0xc1,
        port: 0xd1,
        scratch: 0xe1e2,
    };
    let (mut producer, mut consumer) = spsc(eal(), "meta", 4).expect("a ring");
    let mut burst = Burst::new();
    for _ in 0..3 {
        let mut mbuf = numbered(&mut pool, 9);
        assert_eq!(
            mbuf.meta(),
            Meta::default(),
            "of the pool's only mbuf, used before"
        );
        mbuf.set_meta(meta);
        burst.push(mbuf);
        assert_eq!(producer.push(&mut burst), 1);
        assert_eq!(consumer.pop(&mut burst), 1);
        assert_eq!((burst[0].meta(), number(&burst[0])), (meta, 9));
        burst.clear();
        assert!(pool.alloc_bulk(&mut burst, 1));
        assert_eq!(burst[0].meta(), Meta::default());
        burst[0].set_meta(meta);
        burst.clear();
    }
}

#[test]
fn a_ring_keeps_order_says_when_it_is_full_and_leaves_the_rest() {
    let mut pool = pool("ring", 255);
    let (mut producer, mut consumer) = spsc(eal(), "order", 64).expect("a ring");
    assert!(
        matches!(spsc::<Mbuf>(eal(), "order", 64), Err(Error::Dpdk { .. })),
        "name taken"
    );
    let (mut next_in, mut next_out) = (0, 0);
    let mut burst = Burst::new();
    assert_eq!(
        (producer.capacity(), producer.free(), producer.len()),
        (63, 63, 0)
    );
    assert_eq!(
        producer.push(&mut burst) + consumer.pop(&mut burst),
        0,
        "nothing in, nothing out"
    );
    for round in 0..50usize {
        while producer.free() > 0 {
            while burst.len() < BURST {
                burst.push(numbered(&mut pool, next_in));
                next_in += 1;
            }
            let (free, len) = (producer.free(), burst.len());
            let pushed = producer.push(&mut burst);
            assert_eq!((pushed, burst.len()), (free.min(len), len - free.min(len)));
        }
        assert_eq!(
            (producer.len(), consumer.len(), producer.push(&mut burst)),
            (63, 63, 0)
        );
        let mut out = Burst::new();
        let mut want = round % 63 + 1;
        while want > 0 {
            assert!(consumer.pop(&mut out) > 0);
            for mbuf in out.drain(..) {
                assert_eq!(number(&mbuf), next_out);
                next_out += 1;
                want = want.saturating_sub(1);
            }
        }
    }
    // What is left when both ends are gone goes home, whichever goes first.
    assert!(producer.push(&mut burst) > 0 && !consumer.is_empty());
    while !burst.is_full() {
        burst.push(numbered(&mut pool, 0));
    }
    drop(producer);
    assert!(pool.in_use() > burst.len());
    drop(consumer);
    assert_eq!(pool.in_use(), burst.len());
    drop(burst);
    assert_eq!(pool.available(), 255);
    drop(spsc::<Mbuf>(eal(), "order", 64).expect("the name is free again"));
}

#[test]
fn packets_cross_between_lcores_in_order() {
    const COUNT: u32 = 200_000;
    let pool = Pool::new(eal(), "cross", 1023, 2176, 64, None, true).expect("a pool");
    let (mut producer, mut consumer) = spsc(eal(), "cross", 256).expect("a ring");
    let sender = eal().launch(LcoreId(1), {
        let mut pool = pool.clone();
        move || {
            let mut burst = Burst::new();
            let mut next = 0;
            while next < COUNT || !burst.is_empty() {
                while next < COUNT && !burst.is_full() {
                    let Some(mut mbuf) = pool.alloc() else { break };
                    mbuf.append(4)
                        .expect("room")
                        .copy_from_slice(&next.to_be_bytes());
                    burst.push(mbuf);
                    next += 1;
                }
                if producer.push(&mut burst) == 0 {
                    std::thread::yield_now();
                }
            }
        }
    });
    let receiver = eal().launch(LcoreId(2), move || {
        let mut burst = Burst::new();
        let mut next = 0;
        while next < COUNT {
            if consumer.pop(&mut burst) == 0 {
                std::thread::yield_now();
            }
            for mbuf in &burst {
                assert_eq!(number(mbuf), next);
                next += 1;
            }
            free_burst(&mut burst);
        }
        next
    });
    sender.expect("launched").join().expect("no panic");
    assert_eq!(receiver.expect("launched").join().expect("no panic"), COUNT);
    assert_eq!(pool.available(), 1023);
}

#[test]
fn a_full_tx_queue_leaves_the_rest_in_order() {
    let mut pool = pool("txfull", 2047);
    let before = pool.available();
    {
        let port = Port::create(eal(), "net_ring_full").expect("a port");
        assert!(matches!(
            Port::create(eal(), "net_ring_full"),
            Err(Error::DeviceInUse(_))
        ));
        let (mut rx, mut tx) = port.configure(&config(&pool)).expect("it starts");
        assert!(matches!(
            port.configure(&config(&pool)),
            Err(Error::AlreadyConfigured(_))
        ));
        assert!(port.link_up());
        let (rx, tx) = (&mut rx[0], &mut tx[0]);

        // The driver's ring takes 1023 frames.
        let mut burst = Burst::new();
        let (mut next_in, mut sent) = (0, 0);
        let kept = loop {
            while !burst.is_full() {
                burst.push(numbered(&mut pool, next_in));
                next_in += 1;
            }
            let n = tx.burst(&mut burst);
            sent += n;
            assert_eq!(burst.len(), BURST - n);
            if n < BURST {
                break burst.len();
            }
        };
        assert!(kept > 0 && sent > BURST);
        assert_eq!(tx.burst(&mut burst), 0);
        let rest: Vec<u32> = burst.iter().map(number).collect();
        assert_eq!(
            rest,
            (sent as u32..next_in).collect::<Vec<_>>(),
            "the tail, in order"
        );

        let mut next_out = 0;
        let mut received = Burst::new();
        while rx.burst(&mut received) > 0 {
            for mbuf in received.drain(..) {
                assert_eq!(number(&mbuf), next_out);
                next_out += 1;
            }
        }
        assert_eq!((next_out as usize, rx.dropped()), (sent, 0));
        assert_eq!(tx.burst(&mut burst), kept);
        let stats = port.stats().expect("counters");
        assert_eq!(
            (stats.opackets, stats.ipackets),
            (u64::from(next_in), sent as u64)
        );
        // A partly filled burst is appended to, and not past its room.
        while received.len() < BURST - 3 {
            received.push(numbered(&mut pool, 0));
        }
        assert_eq!(rx.burst(&mut received), kept.min(3));
        assert_eq!(rx.burst(&mut received), 0);
        received.clear();
        while rx.burst(&mut received) > 0 {
            free_burst(&mut received);
        }
    }
    assert_eq!(pool.available(), before);
}

#[test]
fn ports_check_what_they_are_asked_for() {
    let pool = pool("checks", 255);
    let small = Pool::new(eal(), "checks-small", 31, 1000, 0, None, false).expect("a pool");
    {
        let port = Port::create(eal(), "net_null0,size=64").expect("a port");
        let info = port.info().expect("information");
        assert_eq!(info.driver, "net_null");
        assert!(info.max_rx_queues >= 1 && info.min_mtu <= 1500 && info.max_mtu >= 1500);

        let good = config(&pool);
        for (what, bad) in [
            (
                "no rx queue",
                PortConfig {
                    rx_pools: vec![],
                    ..good.clone()
                },
            ),
            (
                "no tx queue",
                PortConfig {
                    tx_queues: 0,
                    ..good.clone()
                },
            ),
            (
                "too many",
                PortConfig {
                    tx_queues: 65_000,
                    ..good.clone()
                },
            ),
        ] {
            assert!(
                matches!(port.configure(&bad), Err(Error::Queues { .. })),
                "{what}"
            );
        }
        let tiny = PortConfig {
            mtu: 20,
            ..good.clone()
        };
        assert!(matches!(port.configure(&tiny), Err(Error::Mtu { .. })));
        let short = PortConfig {
            rx_pools: vec![small.clone()],
            ..good.clone()
        };
        assert!(matches!(
            port.configure(&short),
            Err(Error::MbufTooSmall { .. })
        ));

        // None of that was the one time it can be configured.
        let (mut rx, mut tx) = port.configure(&good).expect("it starts");
        drop(port);
        let mut burst = Burst::new();
        assert_eq!(rx[0].burst(&mut burst), BURST);
        assert!(burst.iter().all(|mbuf| mbuf.len() == 64));
        assert_eq!(tx[0].burst(&mut burst), BURST);
        let stats = tx[0].port().stats().expect("counters");
        assert_eq!(
            (stats.ipackets, stats.opackets),
            (BURST as u64, BURST as u64)
        );
    }
    assert_eq!((pool.available(), small.available()), (255, 31));
    drop(Port::create(eal(), "net_null0").expect("the name is free again"));

    for device in [
        "",
        "net_no_such_driver0",
        "0000:ff:1f.7",
        "net_af_packet7,iface=no-such-if",
    ] {
        let refused = Port::create(eal(), device);
        assert!(refused.is_err(), "{device:?}");
        // And the name is not held.
        assert!(
            !matches!(Port::create(eal(), device), Err(Error::DeviceInUse(_))),
            "{device:?}"
        );
    }
}

#[test]
fn a_pool_with_packets_out_is_leaked_and_counted_not_freed() {
    let before = leaked_pools();
    let mut pool = pool("leak", 31);
    let mut mbuf = numbered(&mut pool, 77);
    drop(pool);
    assert_eq!(leaked_pools(), before + 1);
    assert_eq!(number(&mbuf), 77);
    assert!(mbuf.append(1000).is_some());
    drop(mbuf);
}

/// What a packet was proved to be is still known on the other lcore, and it is freed like any other.
#[test]
fn a_ring_keeps_the_type_of_what_it_carries() {
    let header = ClearHeader {
        kind: Kind::Data,
        stream: 3,
        path: 1,
        receiver_index: 0xfeed_beef,
        path_number: 12,
    };
    let mut pool = pool("typed", 63);
    let (mut producer, mut consumer) = spsc::<Received<Mbuf>>(eal(), "typed", 64).expect("a ring");
    let mut burst = Burst::new();
    let mut fill = |burst: &mut Burst<Received<Mbuf>>| {
        while !burst.is_full() {
            let mut mbuf = pool.alloc().expect("the pool has more");
            mbuf.append(40 + burst.len()).expect("room").fill(0);
            mbuf.data_mut()[..16].copy_from_slice(&header.to_bytes());
            let (received, parsed) = Received::new(mbuf).expect("well-formed");
            assert_eq!(parsed, header);
            burst.push(received);
        }
    };
    fill(&mut burst);
    assert_eq!(
        (producer.push(&mut burst), consumer.pop(&mut burst)),
        (BURST, BURST)
    );
    assert!(
        (0..)
            .zip(&burst)
            .all(|(i, received)| received.buffer().len() == 40 + i)
    );
    free_burst(&mut burst);
    fill(&mut burst);
    assert_eq!(producer.push(&mut burst), BURST);
    drop((producer, consumer));
    assert_eq!(pool.available(), 63);
}
