//! Ten million forged, replayed and duplicated datagrams against one receiving gateway, while a
//! flow of frames goes on: what each costs, and that none leaves a trace.
//!
//!     cargo bench -p shardgate-core --bench hostile

use std::io::Write;

#[path = "../tests/common/hostile/mod.rs"]
mod hostile;

const COUNT: u64 = 10_000_000;

fn main() -> std::io::Result<()> {
    let report = hostile::run(COUNT);
    report.assert_harmless(COUNT);
    write!(std::io::stdout(), "{report}")
}
