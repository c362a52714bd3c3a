//! Timers of gateways and hosts.

use shardgate_core::time::Time;

/// When something wants to be polled, against when it will be: a timer that moves back leaves its
/// event where it is, and is scheduled anew when that fires.
#[derive(Debug, Default)]
pub(super) struct Timer(Option<Time>);

impl Timer {
    /// The time at which an event must be scheduled, if one must.
    pub(super) fn arm(&mut self, wanted: Option<Time>, now: Time) -> Option<Time> {
        let wanted = wanted?.max(now);
        if self.0.is_some_and(|scheduled| scheduled <= wanted) {
            return None;
        }
        self.0 = Some(wanted);
        Some(wanted)
    }

    /// Whether an event at `now` is the one that counts; an older one has been overtaken.
    pub(super) fn fire(&mut self, now: Time) -> bool {
        if self.0 != Some(now) {
            return false;
        }
        self.0 = None;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_at_the_last_time_asked_for() {
        let mut timer = Timer::default();
        assert_eq!(timer.arm(None, Time(0)), None);
        assert_eq!(timer.arm(Some(Time(50)), Time(0)), Some(Time(50)));
        assert_eq!(
            timer.arm(Some(Time(70)), Time(0)),
            None,
            "later: when 50 fires"
        );
        assert_eq!(timer.arm(Some(Time(20)), Time(0)), Some(Time(20)));
        assert!(timer.fire(Time(20)));
        assert_eq!(timer.arm(Some(Time(70)), Time(20)), Some(Time(70)));
        assert!(!timer.fire(Time(50)), "overtaken");
        assert!(timer.fire(Time(70)));
        assert_eq!(
            timer.arm(Some(Time(10)), Time(70)),
            Some(Time(70)),
            "never back"
        );
    }
}
