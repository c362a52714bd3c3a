//! `record_file`: what arrived, written by the control thread in the format of
//! [`shardgate_sim::predict::trace::record`], for `shardgate sim predict`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use shardgate_dataplane::record::Recorder;
use shardgate_sim::predict::trace::record::MAGIC;
use tracing::{info, warn};

use crate::limits::{RECORDS_MAX, RECORDS_PER_TURN};

/// How far the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RecordStatus {
    /// Whether anything more goes into it.
    pub state: RecordState,
    /// Arrivals in it.
    pub recorded: u64,
    /// Arrivals that found the way to it full.
    pub dropped: u64,
}

/// Whether anything more goes into the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordState {
    /// Yes.
    Recording,
    /// It is complete, because it is as long as it may be or the gateway stops.
    Complete,
    /// It could not be written.
    Failed,
}

/// The file, and where its contents come from.
pub struct RecordFile<W: Write> {
    recorder: Arc<Recorder>,
    /// None once it is complete, or could not be written.
    out: Option<W>,
    written: u64,
    state: RecordState,
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
            state: RecordState::Recording,
        })
    }

    /// How far it is.
    pub fn status(&self) -> RecordStatus {
        RecordStatus {
            state: self.state,
            recorded: self.written,
            dropped: self.recorder.missed(),
        }
    }

    /// Writes what has arrived, as much as a turn of the control loop has time for.
    pub fn write_some(&mut self) {
        let Some(out) = &mut self.out else { return };
        let result = (0..RECORDS_PER_TURN)
            .map_while(|_| self.recorder.take())
            .take((RECORDS_MAX - self.written) as usize)
            .try_fold(0, |count, arrival| {
                out.write_all(&arrival.to_bytes()).map(|()| count + 1)
            });
        match result {
            Ok(count) => self.written += count,
            Err(error) => {
                warn!(%error, written = self.written, "the record file cannot be written any more");
                self.recorder.end();
                self.out = None;
                self.state = RecordState::Failed;
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
            Ok(()) => {
                self.state = RecordState::Complete;
                info!(
                    written = self.written,
                    missed, "the record file is complete"
                );
            }
            Err(error) => {
                self.state = RecordState::Failed;
                warn!(%error, "the record file is not complete");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use shardgate_sim::predict::trace::record::{Arrival, RECORD_LEN, What};
    use shardgate_sim::predict::trace::{Rows, Trace};

    use super::*;

    fn arrival(number: u32) -> Arrival {
        Arrival {
            number,
            sent_us: number * 100,
            received_us: number * 100 + 7,
            round_trip: 400,
            path: 0,
            stream: 2,
            what: [What::First, What::Repeat, What::Repair][number as usize % 3],
        }
    }

    #[test]
    fn what_is_recorded_is_what_the_judge_reads() {
        let recorder = Arc::new(Recorder::default());
        let mut bytes = Vec::new();
        let mut file = RecordFile::new(&mut bytes, Arc::clone(&recorder)).unwrap();
        (0..100).for_each(|number| recorder.note(arrival(number)));
        file.write_some();
        (100..150).for_each(|number| recorder.note(arrival(number)));
        file.write_some();
        let status = |state| RecordStatus {
            state,
            recorded: 150,
            dropped: 0,
        };
        assert_eq!(file.status(), status(RecordState::Recording));
        file.end();
        assert_eq!(file.status(), status(RecordState::Complete));
        recorder.note(arrival(150));
        assert_eq!(recorder.take(), None, "it is over");
        drop(file);
        let Rows::Arrivals(arrivals) = Trace::read("r", &bytes[..]).unwrap().rows else {
            panic!("a record");
        };
        let expected: Vec<_> = (0..150).map(arrival).collect();
        assert_eq!(arrivals, expected);
    }

    /// Counts what is written.
    #[derive(Default)]
    struct Counted(u64);

    impl Write for &mut Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_has_a_bound() {
        let recorder = Arc::new(Recorder::default());
        let mut counted = Counted::default();
        let mut file = RecordFile::new(&mut counted, Arc::clone(&recorder)).unwrap();
        for number in (0..RECORDS_MAX as u32 + 20_000).step_by(1_000) {
            (0..1_000).for_each(|step| recorder.note(arrival((number + step) % 1_000)));
            file.write_some();
        }
        let expected = RecordStatus {
            state: RecordState::Complete,
            recorded: RECORDS_MAX,
            dropped: 0,
        };
        assert_eq!(file.status(), expected);
        drop(file);
        let bytes = MAGIC.len() as u64 + RECORDS_MAX * RECORD_LEN as u64;
        assert_eq!(counted.0, bytes);
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
        (0..100).for_each(|number| recorder.note(arrival(number)));
        file.write_some();
        file.write_some();
        file.end();
        assert_eq!(file.status().state, RecordState::Failed);
        assert!(file.status().recorded < 7, "what did not fit counts");
        let before = std::iter::from_fn(|| recorder.take()).count();
        recorder.note(arrival(1));
        assert!(before > 0 && recorder.take().is_none());
    }
}
