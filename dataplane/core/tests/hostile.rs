//! Hostile datagrams leave no trace: a hundred thousand here, ten million in the benchmark of the
//! same name.

#[path = "common/hostile/mod.rs"]
mod hostile;

#[test]
fn hostile_datagrams_leave_no_trace() {
    let count = 100_000;
    hostile::run(count).assert_harmless(count);
}
