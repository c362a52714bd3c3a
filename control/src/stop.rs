//! Signals: the first SIGTERM or SIGINT asks for an orderly stop, the second ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Flags that signal handlers set.
pub struct Signals {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// Installs the handlers.
    pub fn install() -> io::Result<Self> {
        let signals = Self {
            stop: Arc::default(),
            reload: Arc::default(),
        };
        for signal in [SIGTERM, SIGINT] {
            // Order matters: the first arrival finds the flag unset, and sets it.
            flag::register_conditional_shutdown(signal, 1, signals.stop.clone())?;
            flag::register(signal, signals.stop.clone())?;
        }
        flag::register(SIGHUP, signals.reload.clone())?;
        Ok(signals)
    }

    /// Set by SIGTERM and SIGINT.
    pub fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// True once after each SIGHUP.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }
}
