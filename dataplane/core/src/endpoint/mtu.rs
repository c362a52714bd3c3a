//! Probes of a path's MTU, and what follows from what they find (RFC 8899; [`crate::path_mtu`]).

use super::{Egress, Endpoint, Outbox};
use crate::buffer::{Buffer, BufferPool};
use crate::time::Time;
use crate::wire::header::{CLEAR_HEADER_LEN, TAG_LEN};
use crate::wire::{SHARD_OVERHEAD, feedback::BlockWriter};

/// Bytes of plaintext in a datagram whose payload would have so many: what fills a packet.
const AROUND_PAYLOAD: usize = SHARD_OVERHEAD - CLEAR_HEADER_LEN - TAG_LEN;

impl<B: Buffer> Endpoint<B> {
    /// Sends the probes that are due, and cuts shards by what is known.
    pub(super) fn find_mtu<P: BufferPool<Buffer = B>>(
        &mut self,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        let (Some(path), true) = (self.outbound.open_path(), self.has_key()) else {
            return;
        };
        let now = egress.now;
        self.outbound.follow_mtu(now);
        while let Some(probe) = self.outbound.mtu().and_then(|mtu| mtu.take_probe()) {
            let len = probe
                .mtu
                .map(|size| self.outbound.payload_of(size) + AROUND_PAYLOAD);
            if probe.may_wait && !self.outbound.affords_probe(len.unwrap_or_default()) {
                self.outbound
                    .mtu()
                    .into_iter()
                    .for_each(|mtu| mtu.put_off(now));
                return;
            }
            let write = |_: &mut Self, writer: &mut BlockWriter<'_, B>| {
                let challenged = writer.challenge(probe.token, now.as_wire_us());
                challenged && len.is_none_or(|len| writer.pad_to(len))
            };
            let stream = self.config.stream;
            let len_max = len.unwrap_or_else(|| self.outbound.message_max());
            let sent = self.send_message_of(stream, path, len_max, egress, write);
            let Some(mtu) = self.outbound.mtu() else {
                return;
            };
            if !sent {
                return mtu.not_sent(probe);
            }
            mtu.sent(probe);
            self.outbound.charge_probe(len.unwrap_or_default());
        }
    }

    /// A probe of a path's MTU may have come back.
    pub(super) fn mtu_echoed(&mut self, path: u8, token: u64, now: Time) -> bool {
        let is_one = self.outbound.mtu_echoed(path, token, now);
        if is_one {
            self.outbound.follow_mtu(now);
        }
        is_one
    }

    /// When [`Self::find_mtu`] has something to do next.
    pub(super) fn mtu_timeout(&self) -> Option<Time> {
        self.outbound.mtu_timeout().filter(|_| self.has_key())
    }
}
