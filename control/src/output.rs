//! What the program prints: results on stdout, one line of error on stderr.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

/// Why a command ended without having done its work.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the configuration is wrong: exit code 2.
    Wrong(String),
    /// It ran and failed: exit code 1.
    Failed(String),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Wrong(_) => 2,
            Self::Failed(_) => 1,
        }
    }

    /// The one line for stderr.
    pub fn line(&self) -> String {
        let (Self::Wrong(text) | Self::Failed(text)) = self;
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    }
}

impl From<crate::config::ConfigError> for Failure {
    fn from(error: crate::config::ConfigError) -> Self {
        Self::Wrong(error.to_string())
    }
}

/// Prints to stdout; false if nobody reads it any more. Who closes the other end early has what
/// he wanted: that is no failure.
pub fn print(text: &str) -> Result<bool, Failure> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Failed(format!(
            "standard output: {}",
            crate::keys::plain(&error)
        ))),
    }
}

/// Prints one JSON document and a line feed.
pub fn print_json(document: &impl Serialize) -> Result<bool, Failure> {
    match serde_json::to_string_pretty(document) {
        Ok(text) => print(&format!("{text}\n")),
        Err(error) => Err(Failure::Failed(format!(
            "the document cannot be written: {error}"
        ))),
    }
}
