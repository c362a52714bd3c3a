//! The life of EAL and of what runs on its lcores, from start to cleanup: one test, because a
//! process has one EAL.

#[path = "common/config.rs"]
mod config;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shardgate_dpdk::{Clock, Eal, EalConfig, Error, LcoreId, Pool, leaked_pools, tsc};

#[test]
fn eal_starts_once_runs_closures_and_outlives_what_it_made() {
    let nul = EalConfig {
        file_prefix: "a\0b".to_owned(),
        ..config::eal_config()
    };
    assert!(
        matches!(Eal::init(&nul), Err(Error::Nul(_))),
        "and it does not count as a start"
    );

    let eal = Eal::init(&config::eal_config()).expect("EAL starts");
    assert!(matches!(
        Eal::init(&config::eal_config()),
        Err(Error::EalTwice)
    ));
    assert!(
        Eal::dpdk_version().starts_with("DPDK "),
        "{}",
        Eal::dpdk_version()
    );
    assert_eq!(eal.lcores(), [0, 1, 2, 3].map(LcoreId));
    assert_eq!(eal.main_lcore(), LcoreId(0));
    assert_eq!(LcoreId::current(), Some(LcoreId(0)));
    assert_eq!(
        std::thread::spawn(LcoreId::current)
            .join()
            .expect("no panic"),
        None
    );

    let runtime = Path::new("/var/run/dpdk").join(config::eal_config().file_prefix);
    assert!(!runtime.exists(), "{} was left behind", runtime.display());

    closures_run_where_they_should(&eal);
    panics_are_reported(&eal);
    handles_are_never_detached(&eal);
    the_clock_keeps_time(&eal);

    // A pool keeps EAL alive; the cleanup comes with its end.
    let pool = Pool::new(&eal, "outlives", 31, 2176, 0, None, false).expect("a pool");
    drop(eal);
    assert_eq!(pool.available(), 31);
    drop(pool);
    assert_eq!(leaked_pools(), 0);
    assert!(matches!(
        Eal::init(&config::eal_config()),
        Err(Error::EalTwice)
    ));
}

fn closures_run_where_they_should(eal: &Eal) {
    let handles: Vec<_> = [1, 2, 3]
        .map(|id| {
            let moved = vec![id; 3];
            eal.launch(LcoreId(id), move || (LcoreId::current(), moved))
                .expect("it launches")
        })
        .into();
    for (id, handle) in (1..).zip(handles) {
        assert_eq!(
            handle.join().expect("no panic"),
            (Some(LcoreId(id)), vec![id; 3])
        );
    }
    for id in [0, 4, 127, 128, u32::MAX] {
        let refused = eal.launch(LcoreId(id), || ());
        assert!(
            matches!(refused, Err(Error::NotAWorker(LcoreId(bad))) if bad == id),
            "{id}"
        );
    }
}

fn panics_are_reported(eal: &Eal) {
    let handle = eal.launch(LcoreId(2), || -> u32 { panic!("on purpose: {}", 42) });
    match handle.expect("it launches").join() {
        Err(Error::LcorePanicked {
            lcore: LcoreId(2),
            message,
        }) => {
            assert_eq!(message, "on purpose: 42");
        }
        other => panic!("expected a panic's report, got {other:?}"),
    }
    // The lcore is none the worse for it.
    assert_eq!(
        eal.launch(LcoreId(2), || 7)
            .expect("it launches")
            .join()
            .expect("no panic"),
        7
    );
}

fn handles_are_never_detached(eal: &Eal) {
    let stop = Arc::new(AtomicBool::new(false));
    let ended = Arc::new(AtomicBool::new(false));
    let handle = eal.launch(LcoreId(1), {
        let (stop, ended) = (Arc::clone(&stop), Arc::clone(&ended));
        move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(20));
            ended.store(true, Ordering::Relaxed);
        }
    });
    let handle = handle.expect("it launches");
    assert!(
        matches!(eal.launch(LcoreId(1), || ()), Err(Error::Dpdk { .. })),
        "it is busy"
    );
    stop.store(true, Ordering::Relaxed);
    drop(handle);
    assert!(
        ended.load(Ordering::Relaxed),
        "dropping the handle has waited"
    );
    eal.launch(LcoreId(1), || ())
        .expect("it is free again")
        .join()
        .expect("no panic");
}

fn the_clock_keeps_time(eal: &Eal) {
    assert!(tsc::hz() > 4_000_000, "{} Hz", tsc::hz());
    let clock = Clock::start(eal);
    let (start, system) = (clock.now(), Instant::now());
    std::thread::sleep(Duration::from_millis(200));
    let (ours, theirs) = (clock.now().since(start), system.elapsed());
    // Both were read one after the other, twice; a preemption between the two is part of the margin.
    assert!(
        ours.abs_diff(theirs) < Duration::from_millis(2),
        "{ours:?} against {theirs:?}"
    );
}
