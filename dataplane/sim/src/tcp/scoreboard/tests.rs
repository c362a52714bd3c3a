use proptest::prelude::*;

use super::*;

fn context(now: u64) -> AckContext {
    AckContext {
        now: Time(now),
        echo: u64::MAX,
        rtt_min: None,
        high: 0,
    }
}

/// `count` segments sent at 0, 1, 2 ... ns.
fn sent(count: u64) -> Scoreboard {
    let mut board = Scoreboard::default();
    for at in 0..count {
        assert_eq!(board.send_next(Time(at)).0, at);
    }
    board
}

#[test]
fn a_loss_is_found_a_window_after_what_was_sent_later_has_arrived() {
    let mut board = sent(10);
    let window = Duration::from_nanos(25);
    let mut news = News::default();
    // 4 arrives after 100 ns.
    board.sack(4..5, &context(104), &mut news);
    assert_eq!((news.delivered, board.in_flight()), (1, 9));
    assert_eq!(
        board.detect_losses(window, Time(104)),
        (0, Some(Time(3 + 100 + 25)))
    );
    assert_eq!(board.detect_losses(window, Time(126)), (2, Some(Time(128))));
    assert_eq!(board.next_to_repeat(), Some(0));
    assert_eq!((board.lost(), board.in_flight()), (2, 7));
    board.repeat(0, Time(127));
    assert_eq!((board.next_to_repeat(), board.in_flight()), (Some(1), 8));
    board.acknowledge(5, &context(200), &mut News::default());
    assert_eq!(
        (board.lost(), board.repeating(), board.in_flight()),
        (0, 0, 5)
    );
}

#[test]
fn an_ack_of_the_original_does_not_pass_for_one_of_the_repeat() {
    let mut board = sent(3);
    board.time_out(Time(50));
    assert_eq!(board.lost(), 3);
    let transmission = board.repeat(0, Time(60)).expect("outstanding");
    let original = AckContext {
        echo: transmission - 1,
        ..context(70)
    };
    board.acknowledge(1, &original, &mut News::default());
    assert_eq!(board.newest.map(|newest| newest.transmission), None);
    let transmission = board.repeat(1, Time(80)).expect("outstanding");
    let repeat = AckContext {
        echo: transmission,
        ..context(120)
    };
    board.acknowledge(2, &repeat, &mut News::default());
    assert_eq!(
        board.newest.map(|newest| newest.rtt),
        Some(Duration::from_nanos(40))
    );
}

#[test]
fn overtaking_is_seen_but_not_in_repeats() {
    let mut board = sent(5);
    board.sack(3..4, &context(100), &mut News::default());
    assert!(!board.is_reordered());
    board.time_out(Time(200));
    board.repeat(1, Time(201));
    board.sack(1..2, &context(300), &mut News::default());
    assert!(!board.is_reordered());
    board.sack(2..3, &context(300), &mut News::default());
    assert!(board.is_reordered());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Send,
    Ack(u64),
    Sack(u64, u64),
    Detect(u64),
    Repeat,
    TimeOut,
    Forgive,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send),
        1 => (0u64..4).prop_map(Step::Ack),
        2 => (0u64..20, 1u64..4).prop_map(|(from, len)| Step::Sack(from, len)),
        2 => (0u64..10).prop_map(Step::Detect),
        2 => Just(Step::Repeat),
        1 => Just(Step::TimeOut),
        1 => Just(Step::Forgive),
    ]
}

proptest! {
    /// The counts against a count of the segments themselves.
    #[test]
    fn counts_hold(steps in prop::collection::vec(step(), 0..200)) {
        let mut board = Scoreboard::default();
        for (now, step) in steps.into_iter().enumerate() {
            let now = now as u64;
            let mut news = News::default();
            let in_network = board.outstanding() - board.sacked();
            match step {
                Step::Send => {
                    board.send_next(Time(now));
                }
                Step::Ack(ahead) => {
                    let una = (board.una() + ahead).min(board.next());
                    board.acknowledge(una, &context(now), &mut news);
                }
                Step::Sack(from, len) => {
                    let from = board.una() + from;
                    board.sack(from..from + len, &context(now), &mut news);
                }
                Step::Detect(window) => {
                    board.detect_losses(Duration::from_nanos(window), Time(now));
                }
                Step::Repeat => {
                    if let Some(number) = board.next_to_repeat() {
                        prop_assert!(board.repeat(number, Time(now)).is_some());
                    }
                }
                Step::TimeOut => board.time_out(Time(now)),
                Step::Forgive => board.forgive_losses(),
            }
            let count = |is: fn(&Sent) -> bool| board.segments.iter().filter(|s| is(s)).count() as u32;
            prop_assert_eq!(board.sacked, count(|s| s.is_sacked));
            prop_assert_eq!(board.lost, count(|s| s.is_lost));
            prop_assert_eq!(board.repeating, count(|s| s.is_repeating));
            prop_assert_eq!(board.to_repeat.len() as u32, count(|s| s.is_lost && !s.is_repeating));
            prop_assert!(board.to_repeat.iter().all(|&n| board.get(n).is_some_and(|s| s.is_lost)));
            let arrived = if news.delivered > 0 { in_network - news.delivered } else { in_network };
            if !matches!(step, Step::Send) {
                prop_assert_eq!(board.outstanding() - board.sacked(), arrived);
            }
            // Whatever may still be found lost is in the order.
            for (segment, number) in board.segments.iter().zip(board.una..) {
                if !segment.is_sacked && (!segment.is_lost || segment.is_repeating) {
                    prop_assert!(board.sent_order.contains(&(segment.transmission, number)));
                }
            }
        }
    }
}
