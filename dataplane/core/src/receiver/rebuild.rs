//! Repair shards at the receiver: evidence, and a way to fill holes.

use core::time::Duration;

use arrayvec::ArrayVec;

use super::{Arrival, FrameSink, Outlet, PAYLOAD_AT, PredictiveBuffer};
use crate::buffer::{Buffer, BufferPool};
use crate::drop_reason::DropReason;
use crate::predict::Predictor;
use crate::repair::Rebuilt;
use crate::seq::Seq;
use crate::time::Time;
use crate::wire::shard::{RepairHeader, SourceHeader};

/// Standing repair is over when none has come for this long.
const STANDING_FOR: Duration = Duration::from_millis(250);

/// Shards that one call can rebuild: one for each equation that the decoder holds.
const REBUILT_MAX: usize = 32;

/// Source shards that repair gave back, with their payloads where an arrived shard has them.
pub(super) type RebuiltShards<B> = ArrayVec<(SourceHeader, B), REBUILT_MAX>;

/// How soon standing repair covers a shard for the last time, by what came lately.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RepairTiming {
    last: Option<(Seq, Time)>,
    within: Duration,
}

impl RepairTiming {
    /// A standing repair shard came.
    fn note(&mut self, header: &RepairHeader, at: Time) {
        let end = header.window_start.plus(u32::from(header.window_len));
        if let Some((last_end, last_at)) = self.last {
            let step = end.distance_from(last_end);
            if (1..=i32::from(u8::MAX)).contains(&step) && at.since(last_at) < STANDING_FOR {
                let windows = u32::from(header.window_len).div_ceil(step.unsigned_abs());
                let within = at.since(last_at) * windows;
                self.within = (self.within * 7 + within) / 8;
            }
        }
        self.last = Some((end, at));
    }

    /// Within which time every shard is covered for the last time; nothing if repair is not
    /// standing: half again what it takes on average.
    pub(super) fn within(&self, now: Time) -> Option<Duration> {
        let (_, last_at) = self.last?;
        (now.since(last_at) < STANDING_FOR).then_some(self.within + self.within / 2)
    }
}

impl<B: Buffer, P: Predictor> PredictiveBuffer<B, P> {
    /// Takes a repair shard: its window was sent, and what is missing of it may be rebuilt.
    pub(super) fn take_repair<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
        &mut self,
        header: &RepairHeader,
        symbol: &[u8],
        path: u8,
        now: Time,
        outlet: &mut Outlet<'_, Q, S>,
    ) -> Result<(), DropReason> {
        let Some(mut decoder) = self.decoder.take() else {
            // No window was negotiated.
            return Err(DropReason::NotNegotiated);
        };
        self.stats.repairs += 1;
        let last = header.window_start.plus(u32::from(header.window_len) - 1);
        self.known_sent(header.window_start, last, path, now);
        if !header.repeat {
            self.repair_timing.note(header, now);
            self.outlook.repair_within = self.repair_timing.within(now);
        }
        let mut rebuilt = RebuiltShards::new();
        decoder.repair(header, symbol, |shard| {
            keep(shard, outlet.pool, &mut rebuilt)
        });
        self.decoder = Some(decoder);
        self.take_rebuilt(rebuilt, path, now, outlet);
        Ok(())
    }

    /// Tells the decoder of a shard that was placed; returns what that gives back.
    pub(super) fn rebuild_with<Q: BufferPool<Buffer = B>>(
        &mut self,
        header: &SourceHeader,
        payload: &[u8],
        pool: &mut Q,
    ) -> RebuiltShards<B> {
        let mut rebuilt = RebuiltShards::new();
        if let Some(decoder) = &mut self.decoder {
            decoder.source(header, payload, |shard| keep(shard, pool, &mut rebuilt));
        }
        rebuilt
    }

    /// Places what was rebuilt, like what arrives.
    pub(super) fn take_rebuilt<Q: BufferPool<Buffer = B>, S: FrameSink<B>>(
        &mut self,
        rebuilt: RebuiltShards<B>,
        path: u8,
        now: Time,
        outlet: &mut Outlet<'_, Q, S>,
    ) {
        for (header, buffer) in rebuilt {
            let taken = self
                .place(&header, path, Arrival::Rebuilt, now, outlet.sink)
                .and_then(|filled| self.take_placed(header, buffer, now, filled, outlet));
            if let Err(reason) = taken {
                self.drops.count(reason);
            }
        }
    }
}

fn keep<Q: BufferPool>(shard: Rebuilt<'_>, pool: &mut Q, rebuilt: &mut RebuiltShards<Q::Buffer>) {
    let copy = pool.alloc().and_then(|mut buffer| {
        let room = buffer.append(PAYLOAD_AT + shard.payload.len())?;
        room.get_mut(PAYLOAD_AT..)?.copy_from_slice(shard.payload);
        Some(buffer)
    });
    // Without a buffer it is as if it had not been rebuilt: the hole stays, and is asked for.
    if let Some(buffer) = copy {
        let _ = rebuilt.try_push((shard.header, buffer));
    }
}
