//! Which of its lives a peer is in.

/// Numbers the peer's incarnations, from 1.
#[derive(Default)]
pub struct Generations {
    /// The incarnation that is known to be alive.
    confirmed: Option<(u64, u32)>,
    /// The newest one that was seen, which may be a replay.
    newest: Option<(u64, u32)>,
}

impl Generations {
    /// The number of an incarnation; one that was not met before gets the next.
    pub fn of(&mut self, incarnation: u64) -> u32 {
        for (known, generation) in [self.confirmed, self.newest].into_iter().flatten() {
            if known == incarnation {
                return generation;
            }
        }
        let generation = self
            .newest
            .map_or(0, |(_, generation)| generation)
            .saturating_add(1);
        self.newest = Some((incarnation, generation));
        generation
    }

    /// Notes that an incarnation is alive; true if it is another one than before.
    pub fn confirm(&mut self, incarnation: u64, generation: u32) -> bool {
        let changed = self
            .confirmed
            .is_some_and(|(_, before)| before != generation);
        self.confirmed = Some((incarnation, generation));
        changed
    }

    /// True if this incarnation is the one that is known to be alive.
    pub fn is_current(&self, incarnation: u64) -> bool {
        self.confirmed
            .is_some_and(|(confirmed, _)| confirmed == incarnation)
    }

    /// The number of the incarnation that is known to be alive; 0 if none was met.
    pub fn current(&self) -> u32 {
        self.confirmed.map_or(0, |(_, generation)| generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_belongs_to_one_incarnation() {
        let mut generations = Generations::default();
        assert_eq!(generations.of(77), 1);
        assert_eq!(generations.of(77), 1);
        assert!(!generations.confirm(77, 1));
        // A replayed handshake of an older incarnation takes a number and changes nothing.
        assert_eq!(generations.of(66), 2);
        assert_eq!(generations.of(77), 1);
        assert_eq!(generations.of(88), 3);
        assert!(generations.confirm(88, 3));
        assert!(!generations.confirm(88, 3));
        assert!(generations.is_current(88));
        assert!(!generations.is_current(77));
    }
}
