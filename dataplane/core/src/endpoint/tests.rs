mod scarcity;

use proptest::prelude::*;

use super::*;
use crate::buffer::{HeapBuffer, HeapPool};
use crate::predict::{Fixed, HoldBounds, Rack};
use crate::seal::Received;
use crate::seal::tests::{ORIGIN, TestAead};

const MS: Duration = Duration::from_millis(1);
const PAYLOAD_MAX: usize = 1_414;

/// A path that carries 1500 bytes, and is not asked.
fn limit() -> PathLimit {
    PathLimit::new(1_500, core::net::Ipv4Addr::LOCALHOST.into()).pinned(1_500)
}

fn config(recovery: RecoveryConfig) -> EndpointConfig {
    EndpointConfig {
        stream: 0,
        endpoints: 1,
        paths: 1,
        sender: SenderConfig {
            shards_min: 1,
            shards_max: 64,
            payload_max: PAYLOAD_MAX,
            checksum: true,
        },
        recovery,
        receiver: ReceiverConfig {
            paths: 1,
            ordered: true,
            hold_bounds: HoldBounds::new(MS * 5, None),
            held_frames_max: 4_096,
            kept_shards_max: 4_096,
            checksum: true,
            asks: recovery.retransmit,
            passes_on: false,
            rebuilt_payload_max: PAYLOAD_MAX,
        },
        policy: Policy::Rack(Rack::default()),
    }
}

const RECOVERY: RecoveryConfig = RecoveryConfig {
    retransmit: true,
    repair: RepairMode::Off,
    overhead_limit: 0.25,
    retention_bytes: 4 << 20,
    payload_max: PAYLOAD_MAX,
    queue_control: false,
};

#[derive(Default)]
struct Sent(Vec<Unsealed<HeapBuffer>>);

impl Outbox<HeapBuffer> for Sent {
    fn credit(&self) -> usize {
        128
    }
    fn send(&mut self, datagram: Unsealed<HeapBuffer>) {
        self.0.push(datagram);
    }
}

#[derive(Default)]
struct Frames(Vec<u32>);

impl FrameSink<HeapBuffer> for Frames {
    fn frame(&mut self, frame: HeapBuffer) {
        let id = frame.data()[..4].try_into().expect("frames are longer");
        self.0.push(u32::from_be_bytes(id));
    }
}

/// One gateway, and what is on its way to it.
struct Site {
    endpoint: Endpoint<HeapBuffer>,
    under_way: Vec<(Time, Vec<u8>)>,
    frames: Frames,
}

/// Two gateways in virtual time; a datagram takes `delay`, unless `fate` says otherwise.
struct World<F> {
    sites: [Site; 2],
    now: Time,
    delay: Duration,
    /// Of the so-manieth data shard or message to a site: how much longer it takes, or none if lost.
    fate: F,
    offered: usize,
    datagrams: usize,
    bytes: [usize; 2],
}

impl<F: FnMut(usize, usize) -> Option<Duration>> World<F> {
    fn new(configs: [EndpointConfig; 2], delay: Duration, fate: F) -> Self {
        let site = |config| {
            let mut endpoint = Endpoint::new(config);
            let budget = SealBudget::new(1, ORIGIN, 1, Time::ZERO);
            endpoint.install_key(budget, 128);
            endpoint.expect_streams(1);
            endpoint.set_path(0, Some(limit()));
            Site {
                endpoint,
                under_way: vec![],
                frames: Frames::default(),
            }
        };
        Self {
            sites: configs.map(site),
            now: Time(1_000_000_000),
            delay,
            fate,
            offered: 0,
            datagrams: 0,
            bytes: [0; 2],
        }
    }

    fn put_under_way(&mut self, from: usize, sent: Sent) {
        for datagram in sent.0 {
            let sealed = datagram
                .seal(&TestAead::new(1))
                .expect("it has room")
                .into_buffer();
            self.bytes[from] += sealed.len();
            let nth = self.datagrams;
            self.datagrams += 1;
            if let Some(longer) = (self.fate)(from, nth) {
                let at = self.now + self.delay + longer;
                self.sites[1 - from]
                    .under_way
                    .push((at, sealed.data().to_vec()));
            }
        }
    }

    /// A frame that carries its number goes in at site 0.
    fn offer(&mut self, len: usize) {
        let mut frame = vec![9; len];
        frame[..4].copy_from_slice(&(self.offered as u32).to_be_bytes());
        self.offered += 1;
        let mut sent = Sent::default();
        let endpoint = &mut self.sites[0].endpoint;
        endpoint
            .offer(HeapBuffer::from_bytes(&frame), Lane(3), self.now)
            .expect("it is taken");
        let closed = endpoint.close(&mut Egress {
            now: self.now,
            pool: &mut HeapPool::new(64, 2_048),
            outbox: &mut sent,
        });
        // Empty: the frame waits for the pacer.
        assert!(
            matches!(closed, Close::Sent(_) | Close::Empty),
            "{closed:?}"
        );
        self.put_under_way(0, sent);
    }

    /// Lets time pass in steps of 100 µs.
    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += Duration::from_micros(100);
            for index in 0..2 {
                let sent = self.step(index);
                self.put_under_way(index, sent);
            }
        }
    }

    fn step(&mut self, index: usize) -> Sent {
        let site = &mut self.sites[index];
        let mut sent = Sent::default();
        let mut pool = HeapPool::new(1_000, 10_000);
        let now = self.now;
        let (due, later) = site.under_way.drain(..).partition(|(at, _)| *at <= now);
        site.under_way = later;
        let mut egress = Egress {
            now,
            pool: &mut HeapPool::new(1_000, 2_048),
            outbox: &mut sent,
        };
        let mut due: Vec<_> = due;
        due.sort_by_key(|(at, _)| *at);
        for (_, bytes) in due {
            let (received, header) =
                Received::new(HeapBuffer::from_bytes(&bytes)).expect("it is whole");
            let opened = received.open(&TestAead::new(1)).expect("it is authentic");
            if header.kind == crate::wire::header::Kind::Feedback {
                site.endpoint
                    .accept_feedback(&opened, 1, now, &mut egress, &mut site.frames);
            } else {
                let (stream, frames) = (header.stream, &mut site.frames);
                site.endpoint
                    .accept(opened, stream, 1, now, &mut pool, frames);
            }
        }
        site.endpoint.poll(now, &mut egress, &mut site.frames);
        sent
    }

    fn delivered(&self) -> &[u32] {
        &self.sites[1].frames.0
    }
}

/// Loses what `lost` says of the data of site 0; feedback arrives.
fn losing(lost: impl Fn(usize) -> bool) -> impl FnMut(usize, usize) -> Option<Duration> {
    let mut data = 0;
    move |from, _| {
        let is_lost = from == 0 && lost(data);
        data += usize::from(from == 0);
        (!is_lost).then_some(Duration::ZERO)
    }
}

#[test]
fn what_is_lost_is_asked_for_and_arrives_in_order() {
    let mut world = World::new([config(RECOVERY); 2], MS * 20, losing(|n| n % 50 == 17));
    for _ in 0..1_000 {
        world.offer(1_000);
        world.run(Duration::from_micros(200));
    }
    world.run(MS * 500);
    let expected: Vec<u32> = (0..1_000).collect();
    assert_eq!(world.delivered(), expected);
    let [sender, receiver] = &world.sites;
    let stats = sender.endpoint.outbound_stats();
    assert!((20..=30).contains(&stats.repeats), "{stats:?}");
    assert_eq!(stats.asked_nonsense, 0);
    let view = sender.endpoint.path_view(0, world.now);
    let rtt = view.rtt_smoothed.expect("reports come");
    assert!(rtt >= MS * 40 && rtt < MS * 42, "{rtt:?}");
    assert!((0.01..0.03).contains(&view.loss_rate.expect("losses were seen")));
    let (_, buffer) = receiver.endpoint.received().next().expect("one stream");
    assert_eq!(buffer.stats().asked_needlessly, 0);
    assert_eq!(buffer.stats().holes, buffer.stats().holes_recovered);
}

#[test]
fn the_tail_of_a_stream_is_repaired_without_a_later_shard() {
    for lost in [vec![99], vec![98, 99], (90..100).collect()] {
        let gone = lost.clone();
        let mut world = World::new(
            [config(RECOVERY); 2],
            MS * 20,
            losing(move |n| gone.contains(&n)),
        );
        for _ in 0..100 {
            world.offer(500);
            world.run(MS);
        }
        world.run(MS * 400);
        assert_eq!(world.delivered().len(), 100, "lost {lost:?}");
    }
}

#[test]
fn a_silent_stream_is_quiet() {
    let mut world = World::new([config(RECOVERY); 2], MS * 20, losing(|_| false));
    for _ in 0..100 {
        world.offer(500);
        world.run(MS);
    }
    world.run(MS * 300);
    let before = world.datagrams;
    world.run(MS * 2_000);
    assert_eq!(world.datagrams, before);
}

#[test]
fn repair_alone_fills_holes_without_a_round_trip() {
    let recovery = RecoveryConfig {
        retransmit: false,
        repair: RepairMode::Fixed {
            every: 8,
            window: 32,
        },
        ..RECOVERY
    };
    // At first the budget is what nobody has acknowledged yet.
    let lost = |n| n > 600 && n % 40 == 11;
    let mut world = World::new([config(recovery); 2], MS * 20, losing(lost));
    for _ in 0..2_000 {
        world.offer(1_000);
        world.run(Duration::from_micros(100));
    }
    world.run(MS * 400);
    let mut delivered = world.delivered().to_vec();
    delivered.sort_unstable();
    delivered.dedup();
    let stats = world.sites[0].endpoint.outbound_stats();
    let decoder = world.sites[1]
        .endpoint
        .received()
        .next()
        .map(|(_, b)| b.decoder_stats());
    assert!(
        delivered.len() >= 1_999,
        "{} {stats:?} {decoder:?}",
        delivered.len()
    );
    assert_eq!((stats.repeats, stats.asked), (0, 0));
    assert!(
        (240..=255).contains(&(stats.repairs + stats.over_budget)),
        "{stats:?}"
    );
    let (_, buffer) = world.sites[1]
        .endpoint
        .received()
        .next()
        .expect("one stream");
    assert!(buffer.stats().filled_by_repair >= 30);
}

#[test]
fn what_never_left_is_no_loss_and_nobody_waits_for_it() {
    // Told of at once, or, should that be lost, to whoever asks for it.
    for (is_told, within) in [(true, MS), (false, MS * 45)] {
        let mut world = World::new([config(RECOVERY); 2], MS * 20, losing(|n| n == 50));
        let (mut died_at, mut went_on) = (Time::ZERO, None);
        for frame in 0..400 {
            world.offer(1_000);
            if frame == 50 {
                died_at = world.now;
                let endpoint = &mut world.sites[0].endpoint;
                endpoint.not_sent(0, 50);
                if !is_told {
                    endpoint.outbound.untold.clear();
                }
            }
            world.run(Duration::from_micros(500));
            if went_on.is_none() && world.delivered().len() > 50 {
                went_on = Some(world.now.since(died_at));
            }
        }
        world.run(MS * 300);
        let expected: Vec<u32> = (0..400).filter(|frame| *frame != 50).collect();
        assert_eq!(world.delivered(), expected);
        let waited = went_on.expect("it goes on") - MS * 20;
        assert!(waited <= within, "{waited:?}");
        let view = world.sites[0].endpoint.path_view(0, world.now);
        assert_eq!(view.lost, 0);
        let stats = world.sites[0].endpoint.outbound_stats();
        let counts = (stats.not_sent, stats.repeats, stats.asked_nonsense);
        assert_eq!(counts, (1, 0, 0));
        let mut received = world.sites[1].endpoint.received();
        let (_, buffer) = received.next().expect("one stream");
        assert_eq!(buffer.stats().holes_not_sent, 1);
    }
}

#[test]
fn gateways_with_different_numbers_of_lcores_report_to_each_other() {
    // One endpoint here, the third of three there.
    let here = config(RECOVERY);
    let there = EndpointConfig {
        stream: 2,
        endpoints: 3,
        ..here
    };
    let mut alone = Endpoint::<HeapBuffer>::new(here);
    let mut third = Endpoint::<HeapBuffer>::new(there);
    for endpoint in [&mut alone, &mut third] {
        endpoint.install_key(SealBudget::new(1, ORIGIN, 1, Time::ZERO), 128);
        endpoint.set_path(0, Some(limit()));
    }
    alone.expect_streams(3);
    third.expect_streams(1);
    assert_eq!(alone.received().count(), 3);
    assert_eq!(third.received().count(), 0, "stream 0 is the first one's");
    let mut now = Time(1_000_000);
    let mut sink = Frames::default();
    let open = |datagram: Unsealed<HeapBuffer>| {
        let sealed = datagram
            .seal(&TestAead::new(1))
            .expect("room")
            .into_buffer();
        let (received, header) = Received::new(sealed).expect("whole");
        (received.open(&TestAead::new(1)).expect("authentic"), header)
    };
    for _ in 0..20 {
        now += MS;
        let (mut pool, mut sent) = (HeapPool::new(9, 2_048), Sent::default());
        let mut egress = Egress {
            now,
            pool: &mut pool,
            outbox: &mut sent,
        };
        third
            .offer(HeapBuffer::from_bytes(&[1; 100]), Lane(1), now)
            .expect("taken");
        third.close(&mut egress);
        third.poll(now, &mut egress, &mut sink);
        for (opened, header) in sent.0.into_iter().map(open) {
            assert_eq!(header.stream, 2);
            alone.accept(opened, 2, 1, now, &mut HeapPool::new(9, 2_048), &mut sink);
        }
        let mut answers = Sent::default();
        let mut egress = Egress {
            now,
            pool: &mut pool,
            outbox: &mut answers,
        };
        alone.poll(now, &mut egress, &mut sink);
        for (opened, header) in answers.0.into_iter().map(open) {
            assert_eq!(
                header.stream, 2,
                "feedback about a stream carries its number"
            );
            let (mut pool, mut echoes) = (HeapPool::new(9, 2_048), Sent::default());
            let mut egress = Egress {
                now,
                pool: &mut pool,
                outbox: &mut echoes,
            };
            third.accept_feedback(&opened, 1, now, &mut egress, &mut sink);
            for (opened, header) in echoes.0.into_iter().map(open) {
                assert_eq!(header.stream, 2);
                let mut egress = Egress {
                    now,
                    pool: &mut pool,
                    outbox: &mut Sent::default(),
                };
                alone.accept_feedback(&opened, 1, now, &mut egress, &mut sink);
            }
        }
    }
    assert!(third.outbound_stats().reports > 0);
    assert_eq!(
        alone.feedback_stats().echoes,
        1,
        "a receiver that sends nothing challenges"
    );
    assert_eq!(third.drops.total() + alone.drops.total(), 0);
}

#[test]
fn a_peer_with_more_streams_than_there_may_be_gets_reports_on_those_that_may() {
    let mut endpoint = Endpoint::<HeapBuffer>::new(config(RECOVERY));
    endpoint.install_key(SealBudget::new(1, ORIGIN, 1, Time::ZERO), 128);
    endpoint.set_path(0, Some(limit()));
    endpoint.expect_streams(u8::MAX);
    assert_eq!(endpoint.received().count(), STREAMS_MAX);
    let mut peer = crate::sender::StreamSender::new(3, config(RECOVERY).sender);
    let frame = HeapBuffer::from_bytes(&[1; 100]);
    peer.offer(frame, Lane(1)).expect("there is room");
    let mut shards = vec![];
    let departure = crate::sender::Departure {
        now: Time::ZERO,
        path: 0,
        budget: &mut SealBudget::new(1, ORIGIN, 1, Time::ZERO),
        credit: 1,
        pool: &mut HeapPool::new(1, 2_048),
    };
    peer.close(departure, |shard| shards.push(shard));
    let sealed = shards.remove(0).seal(&TestAead::new(1)).expect("room");
    let (received, header) = Received::new(sealed.into_buffer()).expect("whole");
    let opened = received.open(&TestAead::new(1)).expect("authentic");
    let (mut sink, mut sent) = (Frames::default(), Sent::default());
    let (mut pool, now) = (HeapPool::new(9, 2_048), Time(1_000_000_000));
    endpoint.accept(opened, header.stream, 1, now, &mut pool, &mut sink);
    let mut egress = Egress {
        now: now + MS * 10,
        pool: &mut pool,
        outbox: &mut sent,
    };
    endpoint.poll(now, &mut egress, &mut sink);
    let reported: Vec<_> = sent.0.iter().filter_map(|sent| sent.header()).collect();
    assert_eq!(reported.iter().map(|h| h.stream).collect::<Vec<_>>(), [3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any losses, delays and repair, both ways: every frame at most once, what is added within the
    /// budget, and everything settles.
    #[test]
    fn any_wire_stays_within_the_budget_and_delivers_nothing_twice(
        seed in any::<u64>(),
        loss_percent in 0u64..60,
        late_percent in 0u64..30,
        every in prop::option::of(1u8..20),
        fixed_hold in any::<bool>(),
    ) {
        let mut noise = seed | 1;
        let mut random = move || {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise >> 11
        };
        let fate = move |_, _| {
            let (lost, late, by) = (random() % 100, random() % 100, random() % 30);
            (lost >= loss_percent).then(|| {
                if late < late_percent { MS * by as u32 } else { Duration::ZERO }
            })
        };
        let recovery = RecoveryConfig {
            repair: every.map_or(RepairMode::Auto, |every| RepairMode::Fixed {
                every,
                window: every.saturating_mul(4),
            }),
            ..RECOVERY
        };
        let mut config = config(recovery);
        if fixed_hold {
            config.policy = Policy::Fixed(Fixed(MS * 3));
        }
        let mut world = World::new([config; 2], MS * 10, fate);
        for frame in 0..400 {
            world.offer(60 + frame * 7 % 1_400);
            world.run(Duration::from_micros(300));
        }
        world.run(MS * 900);
        let mut delivered = world.delivered().to_vec();
        let all = delivered.len();
        delivered.sort_unstable();
        delivered.dedup();
        prop_assert_eq!(delivered.len(), all, "a frame came twice");
        let stats = world.sites[0].endpoint.outbound_stats();
        let added = stats.repeat_bytes + stats.repair_bytes + stats.tail_bytes;
        prop_assert!(
            added <= 64 * 1024 + (stats.source_bytes + added) / 4 + 1,
            "added {added} to {}", stats.source_bytes
        );
        if loss_percent == 0 && late_percent == 0 {
            prop_assert_eq!(all, 400);
            prop_assert_eq!(stats.repeats, 0);
        }
        // Nothing is left to be done.
        let before = world.datagrams;
        world.run(MS * 3_000);
        prop_assert_eq!(world.datagrams, before, "it does not come to rest");
    }
}
