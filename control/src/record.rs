//! `record_file`: what arrived, written by the control thread in the format of
//! [`shardgate_sim::predict::trace::record`], for `shardgate sim predict`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use shardgate_dataplane::record::{Recorder, Seen};
use shardgate_sim::predict::trace::record::{Arrival, MAGIC, What};
use tracing::{info, warn};

use crate::limits::{RECORDS_MAX, RECORDS_PER_TURN};

/// The file, and where its contents come from.
pub struct RecordFile<W: Write> {
    recorder: Arc<Recorder>,
    /// None once it is complete, or could not be written.
    out: Option<W>,
    written: u64,
}

impl RecordFile<BufWriter<File>> {
    /// Begins the file; one that was there is written anew.
    pub fn create(path: &Path, recorder: Arc<Recorder>) -> io::Result<Self> {
        Self::new(BufWriter::new(File::create(path)?), recorder)
    }
}

impl<W: Write> RecordFile<W> {
    fn new(mut out: W, recorder: Arc<Recorder>) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        out.flush()?;
        Ok(Self {
            recorder,
            out: Some(out),
            written: 0,
        })
    }

    /// Writes what has arrived, as much as a turn of the control loop has time for.
    pub fn write_some(&mut self) {
        let Some(out) = &mut self.out else { return };
        let result = (0..RECORDS_PER_TURN)
            .map_while(|_| self.recorder.take())
            .take((RECORDS_MAX - self.written) as usize)
            .try_fold(0, |count, seen| {
                out.write_all(&record(&seen).to_bytes()).map(|()| count + 1)
            });
        match result {
            Ok(count) => self.written += count,
            Err(error) => {
                warn!(%error, written = self.written, "the record file cannot be written any more");
                self.recorder.end();
                self.out = None;
            }
        }
        if self.written >= RECORDS_MAX {
            self.end();
        }
    }

    /// Completes the file.
    pub fn end(&mut self) {
        let Some(mut out) = self.out.take() else {
            return;
        };
        self.recorder.end();
        let missed = self.recorder.missed();
        match out.flush() {
            Ok(()) => info!(
                written = self.written,
                missed, "the record file is complete"
            ),
            Err(error) => warn!(%error, "the record file is not complete"),
        }
    }
}

fn record(seen: &Seen) -> Arrival {
    Arrival {
        number: seen.number,
        sent_us: seen.sent_us,
        received_us: seen.received_us,
        round_trip: seen.round_trip,
        path: seen.path,
        stream: seen.stream,
        what: match (seen.repair, seen.repeat) {
            (true, _) => What::Repair,
            (false, true) => What::Repeat,
            (false, false) => What::First,
        },
    }
}

#[cfg(test)]
mod tests {
    use shardgate_sim::predict::trace::{Rows, Trace};

    use super::*;

    fn seen(number: u32) -> Seen {
        Seen {
            number,
            sent_us: number * 100,
            received_us: number * 100 + 7,
            round_trip: 400,
            path: 0,
            stream: 2,
            repair: number.is_multiple_of(5),
            repeat: number.is_multiple_of(3),
        }
    }

    #[test]
    fn what_is_recorded_is_what_the_judge_reads() {
        let recorder = Arc::new(Recorder::default());
        let mut bytes = Vec::new();
        let mut file = RecordFile::new(&mut bytes, Arc::clone(&recorder)).unwrap();
        (0..100).for_each(|number| recorder.note(seen(number)));
        file.write_some();
        (100..150).for_each(|number| recorder.note(seen(number)));
        file.write_some();
        file.end();
        recorder.note(seen(150));
        assert_eq!(recorder.take(), None, "it is over");
        drop(file);
        let Rows::Arrivals(arrivals) = Trace::read("r", &bytes[..]).unwrap().rows else {
            panic!("a record");
        };
        let expected: Vec<_> = (0..150).map(|number| record(&seen(number))).collect();
        assert_eq!(arrivals, expected);
    }

    /// A disk that is full after so many bytes.
    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_ends_the_record_and_nothing_else() {
        let recorder = Arc::new(Recorder::default());
        assert!(RecordFile::new(Full(3), Arc::clone(&recorder)).is_err());
        let mut file = RecordFile::new(Full(100), Arc::clone(&recorder)).unwrap();
        (0..100).for_each(|number| recorder.note(seen(number)));
        file.write_some();
        file.write_some();
        file.end();
        let before = std::iter::from_fn(|| recorder.take()).count();
        recorder.note(seen(1));
        assert!(before > 0 && recorder.take().is_none());
    }
}
