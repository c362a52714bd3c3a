//! Replays the corpus without an engine, and keeps it what it says it is.

use std::fs;
use std::path::{Path, PathBuf};

const FILES_MAX: usize = 48;
const LEN_MAX: u64 = 700;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn files(target: &str) -> Vec<PathBuf> {
    let folder = fs::read_dir(corpus().join(target)).expect("every target has a corpus");
    folder
        .map(|entry| entry.expect("it can be read").path())
        .collect()
}

#[test]
fn every_input_of_the_corpus_keeps_every_invariant() {
    for (name, target) in shardgate_fuzz::TARGETS {
        for file in files(name) {
            // Shown when the test fails.
            eprintln!("{}", file.display());
            target(&fs::read(&file).expect("it can be read"));
        }
    }
}

#[test]
fn the_corpus_is_small_and_holds_the_seeds() {
    for (name, seeds) in shardgate_fuzz::seeds::all() {
        let files = files(name);
        assert!(files.len() <= FILES_MAX, "{name}: {} files", files.len());
        for file in files {
            let len = fs::metadata(&file).expect("it is there").len();
            assert!(len <= LEN_MAX, "{}: {len} bytes", file.display());
        }
        for (seed, contents) in seeds {
            let stored =
                fs::read(corpus().join(name).join(seed)).expect("run `ci/fuzz/run --seeds`");
            assert_eq!(stored, contents, "{name}/{seed}: run `ci/fuzz/run --seeds`");
        }
    }
}

#[test]
fn the_planted_bug_is_there() {
    let (_, target) = shardgate_fuzz::PLANTED;
    let step = |at: u8| at.wrapping_mul(37) ^ 0x5b;
    let found: Vec<u8> = (0..6).map(step).collect();
    target(&found[..5]);
    assert!(std::panic::catch_unwind(|| target(&found)).is_err());
}
