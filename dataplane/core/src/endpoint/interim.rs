//! What the next commits bring: queue control and marking.

use core::time::Duration;

use crate::estimate::QueueDelay;
use crate::time::Time;

pub(super) fn mark_ce(_frame: &mut [u8]) -> bool {
    false
}

pub(super) struct QueueControl;

impl QueueControl {
    pub(super) fn new() -> Self {
        Self
    }
    pub(super) fn is_competing(&self) -> bool {
        false
    }
    pub(super) fn on_path_loss(&mut self, _now: Time, _lost: u32) {}
    pub(super) fn on_delay(&mut self, _now: Time, _delay: &QueueDelay, _rtt: Option<Duration>) {}
    pub(super) fn take_signal(&mut self, _now: Time) -> bool {
        false
    }
}
