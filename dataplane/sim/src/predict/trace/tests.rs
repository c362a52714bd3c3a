use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

const WINDOWS: &str = "0.000 20.00 30.0ms 0.00\n0.015 20.00 40.0ms 0.50\n0.030 10.00 20.0ms 0.00\n";
const FITS: &str = "\na,cell,0.01,0.5\nb,eth,5e-05,1.0\n";

fn read(text: impl AsRef<[u8]>) -> Result<Rows, String> {
    let trace = Trace::read("some/file.log", text.as_ref()).map_err(|error| error.to_string())?;
    assert_eq!(trace.name, "file.log");
    Ok(trace.rows)
}

fn packed(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_ref()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn each_format_is_known_by_its_rows_packed_or_not() {
    let Ok(Rows::Windows(windows)) = read(packed(WINDOWS)) else {
        panic!("windows");
    };
    assert_eq!(windows.len(), 3);
    let expected = Window {
        at_s: 0.015,
        mbit_per_s: 20.0,
        rtt_ms: 40.0,
        loss: 0.5,
    };
    assert_eq!(windows[1], expected);
    assert!(matches!(
        read("1 2 3ms -0.03\n"),
        Ok(Rows::Windows(windows)) if windows[0].loss == 0.0
    ));
    let Ok(Rows::Fits(fits)) = read(FITS) else {
        panic!("fits");
    };
    assert_eq!(
        (fits.len(), fits[1].to_bad, fits[1].delay_ms),
        (2, 5e-5, 10.0)
    );
    assert_eq!(
        read("12\n13\n12\n"),
        Ok(Rows::Delays(vec![12.0, 13.0, 12.0]))
    );
    let times: String = (0..12)
        .map(|second| format!("{}\n", second * 1_000))
        .collect();
    assert!(matches!(read(times), Ok(Rows::Opportunities(times)) if times.len() == 12));
    let arrival = Arrival::parse(&[0; 16]).unwrap();
    let mut recorded = record::MAGIC.to_vec();
    recorded.extend(arrival.to_bytes());
    assert_eq!(read(&recorded), Ok(Rows::Arrivals(vec![arrival])));
    // A gateway that was stopped while it wrote.
    recorded.extend([1, 2, 3]);
    assert_eq!(read(packed(recorded)), Ok(Rows::Arrivals(vec![arrival])));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let cases: [(&[u8], &str); 20] = [
        (b"", ":1: empty"),
        (b"\n\n", ":1: empty"),
        (b"a b c\n", ":1: no known format"),
        (b"1 2 3ms 0\n2 x 3ms 0\n", ":2: rate `x` is no number"),
        (b"1 2 3ms 0\n2 2 3 0\n", ":2: round trip `3` has no `ms`"),
        (b"1 2 3ms 1.5\n", ":1: loss 1.5 is not between 0 and 1"),
        (b"1 2 3ms NaN\n", ":1: loss NaN"),
        (b"1 2 3ms -1.1\n", ":1: loss -1.1"),
        (b"1 2 infms 0\n", ":1: round trip inf"),
        (b"1 2 3ms 0\n0 2 3ms 0\n", ":2: time 0 falls"),
        (b"1 2 3ms 0\n2 2 3ms 0 5\n", ":2: four fields"),
        (b"1 2 3ms 0\n\n2,2\n", ":3: four fields"),
        (b"a,cell,0.1,0.5\na,moon,0.1,0.5\n", ":2: class `moon`"),
        (b"a,cell,0.1\n", ":1: four fields"),
        (b"a,cell,1.1,0.5\n", ":1: p 1.1"),
        (b"5\n\xff\xfe\n", ":2: not text"),
        (b"5\n99999\n6\n", ":1: neither delays"),
        (b"shardgate-rec\x00\x00\x01", ":1: empty"),
        (b"shardgate-rec\x00\x00\x01abc", ":1: no whole record"),
        (
            b"shardgate-rec\x00\x00\x01aaaaaaaaaaaaaaaa",
            ":1: no record",
        ),
    ];
    for (text, expected) in cases {
        let error = read(text).unwrap_err();
        assert!(error.starts_with("some/file.log:"), "{error}");
        assert!(error.contains(expected), "{error} instead of {expected}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let long = format!("1 2 3ms {}\n", "0".repeat(300));
    assert!(
        read(long)
            .unwrap_err()
            .contains(":1: longer than 256 bytes")
    );
}

#[test]
fn bounds_hold_whatever_a_file_unpacks_to() {
    let many = packed("1\n".repeat(ROWS_MAX + 1));
    assert!(many.len() < 100_000, "a small file");
    assert!(read(&many).unwrap_err().contains("more than 2000000 rows"));
    // Blank lines are no rows; bytes have a bound of their own.
    let (line, what) = read_plain(&b"\n".repeat(1_000)[..], 500).unwrap_err();
    assert_eq!((line, what.as_str()), (501, "more than 500 bytes; cut it"));
}

#[test]
fn what_is_cut_short_is_no_trace() {
    let rows: String = (0..200)
        .map(|row| format!("{row} 2{row} 3ms 0\n"))
        .collect();
    let whole = packed(rows);
    for len in 2..whole.len() - 1 {
        let error = read(&whole[..len]).unwrap_err();
        assert!(
            error.contains("ends early") || error.contains("cannot be read"),
            "{error}"
        );
    }
}

#[test]
fn a_missing_file_and_a_folder_are_named() {
    let missing = Trace::load(Path::new("/nowhere/trace.log"))
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("/nowhere/trace.log") && missing.contains("readable"),
        "{missing}"
    );
    let folder = Trace::load(&std::env::temp_dir()).unwrap_err().to_string();
    assert!(folder.contains("folder"), "{folder}");
}

#[test]
fn windows_become_channels_with_their_rate_and_loss() {
    let rows: String = (0..2_000)
        .map(|row| {
            let loss = if row % 10 == 0 { 0.2 } else { 0.0 };
            format!(
                "{:.3} 20.00 {}.0ms {loss}\n",
                f64::from(row) * 0.015,
                20 + row % 7
            )
        })
        .collect();
    let trace = Trace::read("t", rows.as_bytes()).unwrap();
    let [independent, bursts] = &trace.channels(50_000, 3)[..] else {
        panic!("two ways to lose");
    };
    let runs = |channel: &Channel| {
        let lost: Vec<_> = channel
            .shards()
            .iter()
            .map(|it| it.received.is_none())
            .collect();
        lost.windows(2).filter(|pair| !pair[0] && pair[1]).count()
    };
    for channel in [independent, bursts] {
        // 20 Mbit/s are 30 shards of 1,250 bytes in 15 ms.
        assert_eq!(channel.shards().len(), 50_000);
        let seconds = channel.shards()[49_999].sent.as_nanos() as f64 / 1e9;
        assert!((24.9..25.1).contains(&seconds), "{seconds}");
        let lost = channel.losses() as f64 / 1_000.0;
        assert!((0.85..1.15).contains(&lost), "{} thousand", lost);
        assert!(channel.late() > 0);
    }
    assert!(runs(independent) > 3 * runs(bursts));
    assert_eq!(trace.channels(50_000, 3)[0].shards(), independent.shards());
    assert_ne!(trace.channels(50_000, 4)[0].shards(), independent.shards());
}

proptest! {
    #[test]
    fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..600), gzip: bool) {
        let bytes = if gzip { packed(bytes) } else { bytes };
        if let Err(error) = read(bytes) {
            prop_assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn no_rows_make_a_channel_fail(
        rows in prop::collection::vec("[0-9]{0,4}(\\.[0-9]{1,3})?[ ,a-z]{0,3}[0-9]{0,3}(ms)?[ ,]?[01.]{0,4}[ ,]?[01.]{0,3}", 1..12),
        text in prop::sample::select(vec![WINDOWS, FITS, "9\n9\n", ""]),
        seed: u64,
    ) {
        let bytes = format!("{text}{}", rows.join("\n"));
        for bytes in [bytes.as_bytes(), text.as_bytes()] {
            if let Ok(trace) = Trace::read("t", bytes) {
                for channel in trace.channels(500, seed) {
                    prop_assert!(channel.shards().len() <= 500);
                    prop_assert!(channel.shards().is_sorted_by_key(|shard| shard.sent));
                }
            }
        }
    }
}
