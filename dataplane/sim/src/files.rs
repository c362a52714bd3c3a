//! Files that the user names, opened so that none of them is waited for without an end.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Whether what is read may come out of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipes {
    /// No: only regular files.
    Refused,
    /// Pipes that somebody writes to already: standard input, or the shell's `<(...)`. A pipe with a
    /// name is refused, because opening it waits until somebody else does.
    Open,
}

/// Opens a file to read from it. How long it is, is the caller's to bound: no length is true.
///
/// # Errors
///
/// What the system said, or that it is something else than a file.
pub fn open(path: &Path, pipes: Pipes) -> io::Result<File> {
    // Before it is opened, which may wait.
    let kind = fs::metadata(path)?;
    // What has no name in any folder was opened by who started us.
    let is_open_pipe = || !kind.is_dir() && path.canonicalize().is_err();
    if kind.is_file() || pipes == Pipes::Open && is_open_pipe() {
        return File::open(path);
    }
    let what = if kind.is_dir() {
        "it is a folder"
    } else {
        "it is not a regular file"
    };
    Err(io::Error::other(what))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::process::Command;

    use super::*;

    #[test]
    fn pipes_are_read_where_somebody_writes_and_devices_nowhere() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        drop(writer);
        let pipe = format!("/dev/fd/{}", reader.as_raw_fd());
        let mut text = String::new();
        let mut opened = open(Path::new(&pipe), Pipes::Open).expect("an open pipe");
        opened.read_to_string(&mut text).expect("its end");
        reader.read_to_string(&mut text).expect("its end");
        assert!(open(Path::new(&pipe), Pipes::Refused).is_err());
        for pipes in [Pipes::Open, Pipes::Refused] {
            for device in ["/dev/zero", "/dev/null", "/"] {
                assert!(open(Path::new(device), pipes).is_err(), "{device}");
            }
        }
    }

    #[test]
    fn a_pipe_that_nobody_writes_to_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("shardgate-fifo-{}", std::process::id()));
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("mkfifo starts").success());
        for pipes in [Pipes::Open, Pipes::Refused] {
            let error = open(&path, pipes).expect_err("no file");
            assert_eq!(error.to_string(), "it is not a regular file");
        }
        fs::remove_file(&path).expect("removed");
    }
}
