use std::os::unix::fs::{MetadataExt, symlink};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use proptest::prelude::*;
use shardgate_core::predict::{Hole, Outcome, Outlook, Predictor};

use super::*;

/// A folder; gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shardgate-state-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("learned.state")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PEERS: [PublicKey; 2] = [[1; 32], [2; 32]];

fn config() -> ModelConfig {
    ModelConfig::default()
}

/// A saved model that has learned from so many losses.
fn model(learned: u32) -> [u8; STATE_LEN] {
    let mut model = Model::new(config());
    let outlook = Outlook::default();
    for number in 0..learned {
        let hole = Hole {
            number,
            opened_at: Time(u64::from(number) * 1_000_000),
            gap: 1,
            position: 0,
            path: 0,
            siblings: 0,
        };
        model.plan(&hole, &outlook, Duration::ZERO);
        model.learn(&hole, Outcome::Lost, &outlook, hole.opened_at);
    }
    let state = model.save();
    assert_eq!(learned_of(&state), learned);
    state
}

fn learned_of(state: &[u8]) -> u32 {
    let mut scratch = Model::new(config());
    scratch.restore(state).unwrap();
    scratch.learned()
}

fn look(path: &Path) -> Found {
    Found::look(path, config(), PEERS.to_vec())
}

/// What a gateway leaves whose first peer has two streams and whose second is not there.
fn run(path: &Path, learned: [u32; 2]) -> StateStatus {
    let mut keeper = StateKeeper::start(look(path)).unwrap();
    let published = |peer: usize| match peer {
        0 => vec![(0, model(learned[0])), (3, model(learned[1]))],
        _ => vec![],
    };
    keeper.end(&published);
    keeper.status()
}

#[test]
fn what_was_learned_is_there_after_a_restart() {
    let folder = Folder::new();
    let found = look(&folder.file());
    assert!(found.warning().is_none() && found.learned().is_empty());
    let status = run(&folder.file(), [7, 1_000]);
    assert_eq!(
        (status.restored_streams, status.saves, status.failures),
        (0, 2, 0),
        "at the start and at the end"
    );
    let found = look(&folder.file());
    assert_eq!(found.warning(), None);
    let learned: Vec<_> = found
        .learned()
        .iter()
        .map(|spec| (spec.peer, spec.stream, learned_of(&spec.state)))
        .collect();
    assert_eq!(learned, [(0, 0, 7), (0, 3, 1_000)]);
    assert!(found.summary().ends_with(": 2 streams"));
    assert_eq!(folder.names(), ["learned.state"], "nothing else is left");
    let mode = fs::metadata(folder.file()).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_stream_that_does_not_come_up_keeps_what_it_knew() {
    let folder = Folder::new();
    run(&folder.file(), [7, 9]);
    let mut keeper = StateKeeper::start(look(&folder.file())).unwrap();
    keeper.end(&|peer| match peer {
        // The copy of one was made while it was written.
        0 => vec![(0, [0xa5; STATE_LEN]), (3, model(11))],
        _ => vec![(1, model(5))],
    });
    assert_eq!(keeper.status().restored_streams, 2);
    let mut learned: Vec<_> = look(&folder.file())
        .learned()
        .iter()
        .map(|spec| (spec.peer, spec.stream, learned_of(&spec.state)))
        .collect();
    learned.sort();
    assert_eq!(learned, [(0, 0, 7), (0, 3, 11), (1, 1, 5)]);
    // A peer that is no more, and another kind of model.
    let others = Found::look(&folder.file(), config(), vec![[9; 32]]);
    assert!(others.learned().is_empty() && others.warning().is_none());
    let frozen = ModelConfig {
        frozen: true,
        ..config()
    };
    let frozen = Found::look(&folder.file(), frozen, PEERS.to_vec());
    assert!(frozen.learned().is_empty() && frozen.warning().is_none());
}

#[test]
fn it_is_saved_each_minute_if_anything_has_changed() {
    let folder = Folder::new();
    let mut keeper = StateKeeper::start(look(&folder.file())).unwrap();
    let at = |seconds: u64| Time(seconds * 1_000_000_000);
    let saves = |keeper: &StateKeeper, expected| {
        let waited = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            keeper.status().saves >= expected
        });
        assert!(waited, "{:?}", keeper.status());
        assert_eq!(keeper.status().saves, expected);
    };
    saves(&keeper, 1);
    let published = |learned| {
        move |peer| match peer {
            0 => vec![(0, model(learned))],
            _ => vec![],
        }
    };
    keeper.turn(at(59), &published(1));
    keeper.turn(at(60), &published(2));
    keeper.turn(at(61), &published(3));
    saves(&keeper, 2);
    assert_eq!(learned_of(&look(&folder.file()).learned()[0].state), 2);
    keeper.turn(at(121), &published(2));
    keeper.end(&published(2));
    saves(&keeper, 2);
}

/// Each way in which a file is of no use, and what is said.
#[test]
fn what_cannot_be_used_is_a_cold_start_that_is_said_once() {
    let good = |folder: &Folder| {
        run(&folder.file(), [7, 9]);
        fs::read(folder.file()).unwrap()
    };
    type Spoil = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Spoil); 7] = [
        ("is no state file", |_| b"[node]\nname = \"a\"\n".to_vec()),
        ("is no state file", |_| vec![]),
        ("is of version 2, and this program reads 1", |mut bytes| {
            bytes[MAGIC.len()] = 2;
            bytes
        }),
        ("is damaged", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("is damaged", |bytes| [bytes, vec![0]].concat()),
        ("is too long", |_| vec![b's'; FILE_LEN_MAX + 1]),
        ("holds a model that is damaged", |_| {
            encode(&[Entry {
                peer: PEERS[0],
                stream: 0,
                frozen: false,
                state: {
                    let mut state = model(7).to_vec();
                    state[20] ^= 1;
                    state
                },
            }])
        }),
    ];
    for (says, spoil) in cases {
        let folder = Folder::new();
        let spoilt = spoil(good(&folder));
        fs::write(folder.file(), &spoilt).unwrap();
        let found = look(&folder.file());
        let warning = found.warning().unwrap();
        assert!(warning.contains(says), "{warning}");
        assert!(!warning.contains('\n') && warning.contains("starting cold"));
        assert!(found.learned().is_empty());
        // It is kept, and a good one takes its place.
        let status = run(&folder.file(), [1, 2]);
        assert_eq!((status.restored_streams, status.failures), (0, 0));
        assert_eq!(
            folder.names(),
            ["learned.state", "learned.state.refused"],
            "{says}"
        );
        let refused = beside(&folder.file(), ".refused");
        assert_eq!(fs::read(refused).unwrap(), spoilt);
        assert_eq!(look(&folder.file()).learned().len(), 2);
    }
}

#[test]
fn a_folder_or_a_pipe_is_left_alone_and_stops_nothing() {
    let folder = Folder::new();
    fs::create_dir(folder.file()).unwrap();
    fs::write(folder.file().join("inside"), "kept").unwrap();
    let found = look(&folder.file());
    assert!(found.warning().unwrap().contains("is not a regular file"));
    let status = run(&folder.file(), [1, 2]);
    assert_eq!((status.saves, status.failures), (0, 2));
    assert_eq!(
        fs::read(folder.file().join("inside")).unwrap(),
        b"kept",
        "the folder is as it was"
    );
    assert_eq!(folder.names(), ["learned.state"]);
    let found = look(Path::new("/dev/zero"));
    assert!(found.warning().unwrap().contains("is not a regular file"));
}

#[test]
fn where_nothing_can_be_written_nothing_stops() {
    let folder = Folder::new();
    let path = folder.0.join("no/such/folder/state");
    assert_eq!(look(&path).warning(), None, "there is nothing to read");
    assert_eq!(run(&path, [1, 2]).failures, 2);
    // A file where a folder should be.
    fs::write(folder.0.join("file"), "x").unwrap();
    let path = folder.0.join("file/state");
    assert!(look(&path).warning().unwrap().contains("cannot be read"));
    assert_eq!(run(&path, [1, 2]).saves, 0);
}

#[test]
fn what_lies_in_the_way_is_not_followed() {
    let folder = Folder::new();
    let victim = folder.0.join("victim");
    fs::write(&victim, "kept").unwrap();
    symlink(&victim, beside(&folder.file(), ".new")).unwrap();
    assert_eq!(run(&folder.file(), [1, 2]).failures, 0);
    assert_eq!(fs::read(&victim).unwrap(), b"kept");
    assert_eq!(look(&folder.file()).learned().len(), 2);
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (
        any::<PublicKey>(),
        any::<u8>(),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..40),
    );
    let entry = entry.prop_map(|(peer, stream, frozen, state)| Entry {
        peer,
        stream,
        frozen,
        state,
    });
    prop::collection::vec(entry, 0..4)
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded_and_what_is_spoilt_is_refused(
        entries in entries(),
        at in any::<prop::sample::Index>(),
        change in 1u8..,
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = encode(&entries);
        prop_assert_eq!(decode(&bytes).unwrap(), entries);
        let mut spoilt = bytes.clone();
        spoilt[at.index(bytes.len())] ^= change;
        prop_assert!(decode(&spoilt).is_err());
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
    }

    /// Lengths that lie, under a checksum that fits.
    #[test]
    fn nothing_that_a_file_says_is_believed(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend((body.len() as u32).to_be_bytes());
        bytes.extend(&body);
        let checksum = Blake2s256::digest(&bytes);
        bytes.extend(checksum);
        if let Ok(entries) = decode(&bytes) {
            let again = encode(&entries);
            // Any byte but zero says frozen.
            prop_assert_eq!(again.len(), bytes.len());
        }
    }
}
