//! What becomes of frames and answers when buffers, budget or room in the units run out.

use super::*;
use crate::drop_reason::{DropReason, Drops};
use crate::seq::Seq;

/// Takes as much as it is told to.
struct Door {
    sent: Vec<Unsealed<HeapBuffer>>,
    credit: usize,
}

impl Outbox<HeapBuffer> for Door {
    fn credit(&self) -> usize {
        self.credit
    }
    fn send(&mut self, datagram: Unsealed<HeapBuffer>) {
        self.sent.push(datagram);
    }
}

/// Asks for a shard; how many copies go, with so many buffers and so much room in the units.
fn ask(
    endpoint: &mut Endpoint<HeapBuffer>,
    seq: Seq,
    (buffers, credit): (usize, usize),
    now: Time,
) -> usize {
    endpoint.outbound.wanted([seq].into_iter(), now);
    let mut door = Door {
        sent: vec![],
        credit,
    };
    let mut egress = Egress {
        now,
        pool: &mut HeapPool::new(buffers, 2_048),
        outbox: &mut door,
    };
    let budget = endpoint.budget.as_mut().expect("a key");
    endpoint.outbound.answer(budget, &mut egress);
    door.sent.len()
}

/// A sender whose newest shards no report has reached, and one of them.
fn unreported() -> (Endpoint<HeapBuffer>, Seq, Time) {
    let mut world = World::new([config(RECOVERY); 2], MS * 20, losing(|_| false));
    for _ in 0..100 {
        world.offer(1_000);
        world.run(MS);
    }
    let now = world.now;
    let [site, _] = world.sites;
    let seq = site.endpoint.outbound.extent().0.minus(3);
    (site.endpoint, seq, now)
}

#[test]
fn an_answer_that_could_not_be_sent_is_none() {
    let (mut endpoint, seq, mut now) = unreported();
    now += MS * 25;
    assert_eq!(ask(&mut endpoint, seq, (0, 9), now), 0, "no buffer");
    now += MS * 5;
    assert_eq!(ask(&mut endpoint, seq, (9, 9), now), 1);
    now += MS * 5;
    assert_eq!(ask(&mut endpoint, seq, (9, 9), now), 0, "it is under way");
    now += MS * 25;
    assert_eq!(ask(&mut endpoint, seq, (9, 9), now), 2, "it was lost twice");
}

#[test]
fn what_waits_to_be_answered_is_not_asked_for_twice() {
    let (mut endpoint, seq, mut now) = unreported();
    for _ in 0..2 {
        now += MS * 25;
        assert_eq!(
            ask(&mut endpoint, seq, (9, 0), now),
            0,
            "the units are full"
        );
    }
    now += MS * 25;
    assert_eq!(ask(&mut endpoint, seq, (9, 9), now), 1);
}

#[test]
fn of_frames_that_are_paced_none_dies_uncounted() {
    let (mut endpoint, _, mut now) = unreported();
    endpoint.outbound.pace(1_000_000, now);
    for _ in 0..1_000 {
        // Longer than a shard, so that each needs buffers.
        let frame = HeapBuffer::from_bytes(&[7; 2_000]);
        assert!(endpoint.offer(frame, Lane(3), now).is_ok());
    }
    for buffers in [0, 9] {
        now += MS * 10;
        let mut door = Door {
            sent: vec![],
            credit: 128,
        };
        let mut egress = Egress {
            now,
            pool: &mut HeapPool::new(buffers, 2_048),
            outbox: &mut door,
        };
        let waiting = endpoint.outbound.paced();
        endpoint.poll(now, &mut egress, &mut Frames::default());
        let left = waiting - endpoint.outbound.paced();
        if buffers == 0 {
            assert_eq!(left, 1, "one shows that there is no buffer");
        } else {
            assert!((1..9).contains(&left), "{left}");
        }
    }
    let mut drops = Drops::default();
    endpoint.add_drops(&mut drops);
    assert!(drops.get(DropReason::NoBuffer) >= 1);
    // A key past its age: everything waits for the next one.
    let waiting = endpoint.outbound.paced();
    now += Duration::from_secs(400);
    let mut egress = Egress {
        now,
        pool: &mut HeapPool::new(99, 2_048),
        outbox: &mut Sent::default(),
    };
    endpoint.poll(now, &mut egress, &mut Frames::default());
    assert_eq!(endpoint.outbound.paced(), waiting);
}

#[test]
fn a_tail_that_may_not_be_repaired_is_told_of() {
    let is_losing = std::rc::Rc::new(std::cell::Cell::new(false));
    let loses = is_losing.clone();
    let fate = move |from: usize, _| (from != 0 || !loses.get()).then_some(Duration::ZERO);
    let mut world = World::new([config(RECOVERY); 2], MS * 20, fate);
    for frame in 0..100 {
        is_losing.set(frame == 99);
        world.offer(500);
        is_losing.set(false);
        // Enough to repeat one, and too little to repair.
        world.sites[0].endpoint.outbound.leave_to_add(12_000);
        world.run(MS);
    }
    for _ in 0..300 {
        world.run(MS);
        world.sites[0].endpoint.outbound.leave_to_add(12_000);
    }
    assert_eq!(world.delivered().len(), 100);
    let stats = world.sites[0].endpoint.outbound_stats();
    assert_eq!((stats.tail_repairs, stats.repeats), (0, 1));
}
