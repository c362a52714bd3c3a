//! UDP flows that somebody waits for, known by what they send: small frames, and few.

use core::time::Duration;

use crate::lane::Class;
use crate::limits::HOLD_MAX;
use crate::time::Time;

/// A flow that has been silent for this long has nothing on its way that a later frame could
/// overtake: longer than any hold, by more than paths differ.
pub const IDLE: Duration = Duration::from_millis(HOLD_MAX.as_millis() as u64 + 200);

/// Frames of a sparse flow are shorter than this: voice, games, names, clocks, keys.
const FRAME_LEN_MAX: usize = 300;
/// And fewer than these in this time, 200 a second.
const FRAMES_MAX: u32 = 50;
const WINDOW: Duration = Duration::from_millis(250);
/// A flow that is no longer sparse is given this long for a pause in which it changes lanes
/// unnoticed, or as many frames as a sparse flow could send in that time.
const PAUSE_WITHIN: Duration = Duration::from_secs(1);
const PAUSE_WITHIN_FRAMES: u32 = 200;

const WAYS: usize = 4;
/// With [`WAYS`] 4,096 flows, in a quarter of a MiB.
const BUCKETS: usize = 1_024;

#[derive(Clone, Copy, Debug)]
struct Flow {
    hash: u64,
    class: Class,
    last_at: Time,
    /// Frames since the window began.
    window_at: Time,
    in_window: u32,
    /// Since when it has been too dense or too large in this period, and frames since.
    excess: Option<(Time, u32)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    flows: [Option<Flow>; WAYS],
    /// When a flow last found no room.
    refused_at: Option<Time>,
}

const _: () = assert!(BUCKETS.is_power_of_two() && size_of::<Bucket>() * BUCKETS <= 256 << 10);

/// Which class a UDP flow's frames go by.
///
/// The life of a flow falls into periods, parted by pauses of [`IDLE`]. A flow is interactive in a
/// period if it was sparse in the one before; in its first period, if the first frame is small. So
/// it changes lanes only where nothing can be overtaken. One exception: an interactive flow that
/// stops being sparse and makes no pause within a second, or within the 200 frames that a sparse
/// flow may send in one, is made bulk all the same. Its frames may then overtake each other, once,
/// if a hole is open just then; [`moves_in_flow`](Self::moves_in_flow) counts it. It would else
/// keep a place that is kept for others.
///
/// Memory is fixed. A flow takes the place only of one that is idle; if all four of its bucket are
/// busy it gets none and keeps its static class. Whoever sends many flows can so keep others from
/// being found sparse, and no more.
#[derive(Clone, Debug)]
pub struct FlowTable {
    buckets: Box<[Bucket]>,
    moves_in_flow: u64,
    refused: u64,
}

impl Default for FlowTable {
    fn default() -> Self {
        Self::new()
    }
}

impl FlowTable {
    /// An empty table.
    pub fn new() -> Self {
        Self {
            buckets: vec![Bucket::default(); BUCKETS].into_boxed_slice(),
            moves_in_flow: 0,
            refused: 0,
        }
    }

    /// The class of a frame's flow, and a note that the frame was there. `hash`, `base` and
    /// `is_udp` as [`classify`](crate::classify::classify) gives them; to be asked once a frame,
    /// in the order of the frames.
    #[inline]
    pub fn class_of(
        &mut self,
        hash: u64,
        base: Class,
        is_udp: bool,
        frame_len: usize,
        now: Time,
    ) -> Class {
        if !is_udp || base == Class::Interactive {
            return base;
        }
        let Some(bucket) = self.buckets.get_mut(hash as usize % BUCKETS) else {
            return base;
        };
        let mut known = bucket.flows.iter_mut().flatten();
        if let Some(flow) = known.find(|flow| flow.hash == hash) {
            self.moves_in_flow += u64::from(flow.frame(frame_len, now));
            return flow.class;
        }
        match bucket.admit(hash, base, frame_len, now) {
            Some(class) => class,
            None => {
                self.refused += 1;
                base
            }
        }
    }

    /// How many flows were made bulk without a pause.
    pub fn moves_in_flow(&self) -> u64 {
        self.moves_in_flow
    }

    /// How many frames went by their static class because the table had no room for their flow.
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

impl Bucket {
    /// Takes a flow in, in the place of the one that has been idle longest.
    fn admit(&mut self, hash: u64, base: Class, frame_len: usize, now: Time) -> Option<Class> {
        let was_refused = self.refused_at.is_some_and(|at| now.since(at) < IDLE);
        let idle =
            |place: &Option<Flow>| place.map_or(Duration::MAX, |flow| now.since(flow.last_at));
        let place = self.flows.iter_mut().max_by_key(|place| idle(place));
        let Some(place) = place.filter(|place| idle(place) >= IDLE) else {
            self.refused_at = Some(now);
            return None;
        };
        // It may be a flow that was refused a moment ago and has frames on their way.
        let class = if was_refused || frame_len >= FRAME_LEN_MAX {
            base
        } else {
            Class::Interactive
        };
        let mut flow = Flow {
            hash,
            class,
            last_at: now,
            window_at: now,
            in_window: 0,
            excess: None,
        };
        flow.measure(frame_len, now);
        *place = Some(flow);
        Some(class)
    }
}

impl Flow {
    /// A frame of the flow. True if the flow became bulk without a pause.
    fn frame(&mut self, frame_len: usize, now: Time) -> bool {
        if now.since(self.last_at) >= IDLE {
            let was_sparse = self.excess.is_none();
            self.class = if was_sparse && frame_len < FRAME_LEN_MAX {
                Class::Interactive
            } else {
                Class::Bulk
            };
            self.excess = None;
            self.window_at = now;
            self.in_window = 0;
        }
        self.last_at = self.last_at.max(now);
        self.measure(frame_len, now);
        let is_late = self.excess.is_some_and(|(since, frames)| {
            frames > PAUSE_WITHIN_FRAMES || now.since(since) >= PAUSE_WITHIN
        });
        let moves = is_late && self.class == Class::Interactive;
        if moves {
            self.class = Class::Bulk;
        }
        moves
    }

    fn measure(&mut self, frame_len: usize, now: Time) {
        if now.since(self.window_at) >= WINDOW {
            self.window_at = now;
            self.in_window = 0;
        }
        self.in_window = self.in_window.saturating_add(1);
        if let Some((_, frames)) = &mut self.excess {
            *frames = frames.saturating_add(1);
        } else if frame_len >= FRAME_LEN_MAX || self.in_window > FRAMES_MAX {
            self.excess = Some((now, 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const BULK: Class = Class::Bulk;
    const INTERACTIVE: Class = Class::Interactive;

    fn at(us: u64) -> Time {
        Time(us * 1_000)
    }

    /// Frames of one length at one distance; the classes that they got, without repeats.
    fn classes(
        table: &mut FlowTable,
        from: u64,
        frames: u64,
        every_us: u64,
        len: usize,
    ) -> Vec<Class> {
        let class = |n| table.class_of(7, BULK, true, len, at(from + n * every_us));
        let mut classes: Vec<_> = (0..frames).map(class).collect();
        classes.dedup();
        classes
    }

    #[test]
    fn voice_is_interactive_and_a_video_is_not() {
        let mut table = FlowTable::new();
        assert_eq!(classes(&mut table, 0, 3_000, 20_000, 214), [INTERACTIVE]);
        let mut table = FlowTable::new();
        assert_eq!(classes(&mut table, 0, 3_000, 1_000, 1_200), [BULK]);
        assert_eq!((table.moves_in_flow(), table.refused()), (0, 0));
    }

    #[test]
    fn others_go_by_their_own_class() {
        let mut table = FlowTable::new();
        assert_eq!(table.class_of(1, BULK, false, 60, at(0)), BULK);
        assert_eq!(
            table.class_of(1, INTERACTIVE, true, 1_400, at(0)),
            INTERACTIVE
        );
    }

    #[test]
    fn a_dense_flow_of_small_frames_is_moved_while_it_runs_and_stays_bulk() {
        let mut table = FlowTable::new();
        // 5,000 a second: 50 until it is known, 200 more until it is moved.
        assert_eq!(classes(&mut table, 0, 250, 200, 200), [INTERACTIVE]);
        assert_eq!(classes(&mut table, 50_000, 5_000, 200, 200), [BULK]);
        assert_eq!(table.moves_in_flow(), 1);
        // Again after a pause: it was not sparse before.
        assert_eq!(classes(&mut table, 3_000_000, 5_000, 200, 200), [BULK]);
        assert_eq!(table.moves_in_flow(), 1);
        // A sparse period in bulk, and then it is interactive again.
        assert_eq!(classes(&mut table, 6_000_000, 100, 20_000, 200), [BULK]);
        assert_eq!(
            classes(&mut table, 10_000_000, 100, 20_000, 200),
            [INTERACTIVE]
        );
    }

    #[test]
    fn a_flow_a_little_too_dense_is_moved_within_a_second_or_at_its_pause() {
        let mut table = FlowTable::new();
        let first = classes(&mut table, 0, 1_000, 4_500, 200);
        assert_eq!((first, table.moves_in_flow()), (vec![INTERACTIVE, BULK], 1));
        let mut table = FlowTable::new();
        assert_eq!(classes(&mut table, 0, 60, 1_000, 200), [INTERACTIVE]);
        assert_eq!(classes(&mut table, 1_300_000, 60, 1_000, 200), [BULK]);
        assert_eq!(table.moves_in_flow(), 0);
    }

    #[test]
    fn a_full_bucket_refuses_and_what_it_refused_keeps_its_class() {
        let mut table = FlowTable::new();
        let hash = |n: u64| n * BUCKETS as u64;
        let mut send = |n, ms: u64| table.class_of(hash(n), BULK, true, 100, at(ms * 1_000));
        (1..=4).for_each(|n| assert_eq!(send(n, 0), INTERACTIVE));
        assert_eq!(send(5, 600), BULK);
        (2..=4).for_each(|n| assert_eq!(send(n, 900), INTERACTIVE));
        // The place of the first is free by now, but the fifth has frames on their way.
        assert_eq!(send(5, 1_500), BULK);
        // Idle places are taken, the longest idle first.
        (2..=4).for_each(|n| assert_eq!(send(n, 2_040), INTERACTIVE));
        assert_eq!(send(5, 3_600), INTERACTIVE);
        assert_eq!(send(6, 3_600), INTERACTIVE);
        assert_eq!(table.refused(), 1);
    }

    proptest! {
        /// A flow changes class without a pause only towards bulk, and each time is counted.
        #[test]
        fn classes_change_in_pauses(
            frames in prop::collection::vec((0u64..12, 0u64..400, 0u64..30, prop::bool::weighted(0.03)), 1..3_000),
        ) {
            let mut table = FlowTable::new();
            let mut before: HashMap<u64, (Class, Time)> = HashMap::new();
            let (mut now, mut moves) = (Time::ZERO, 0);
            for (flow, len, ms, pause) in frames {
                now.0 += (ms / 10) * 1_000_000 + u64::from(pause) * 700_000_000;
                // All in two buckets, so that they are short of room.
                let hash = flow % 2 + (flow + 1) * BUCKETS as u64 * 2;
                let class = table.class_of(hash, BULK, true, len as usize, now);
                if let Some((class_before, last_at)) = before.insert(flow, (class, now))
                    && class != class_before
                    && now.since(last_at) < IDLE
                {
                    prop_assert_eq!(class, BULK);
                    moves += 1;
                }
            }
            prop_assert_eq!(moves, table.moves_in_flow());
        }

        #[test]
        fn any_times_and_hashes_are_survived(frames in prop::collection::vec((any::<u64>(), any::<u64>(), any::<usize>()), 1..300)) {
            let mut table = FlowTable::new();
            for (hash, time, len) in frames {
                let _ = table.class_of(hash % 8, BULK, true, len, Time(time));
            }
        }
    }

    /// `cargo nextest run --release -p shardgate-core --run-ignored only cost_of_a_lookup --no-capture`
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_a_lookup() {
        for flows in [1u64, 64, 4_096, 1 << 20] {
            let mut table = FlowTable::new();
            let mut interactive = 0u64;
            let started = std::time::Instant::now();
            for n in 0..4_000_000u64 {
                let hash = (n % flows).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let class = table.class_of(hash ^ (hash >> 32), BULK, true, 200, Time(n * 1_000));
                interactive += u64::from(class == INTERACTIVE);
            }
            let nanos = started.elapsed().as_nanos() as f64 / 4e6;
            eprintln!("class_of, {flows} flows: {nanos:.1} ns ({interactive} interactive)");
        }
    }
}
