//! Feedback messages, in and out (SPEC §6).

use core::time::Duration;

use super::{Egress, Endpoint, Outbox, Told};
use crate::buffer::{Buffer, BufferPool};
use crate::drop_reason::DropReason;
use crate::limits::STREAMS_MAX;
use crate::receiver::{FrameSink, ReplayWindow};
use crate::seal::{Opened, PathNumbers, Unsealed};
use crate::time::Time;
use crate::wire::feedback::{Block, BlockType, BlockWriter, Blocks};
use crate::wire::header::{CLEAR_HEADER_LEN, ClearHeader, Kind, TAG_LEN};

/// Challenges under way that are remembered.
const CHALLENGES_MAX: usize = 8;

/// A round trip older than this is measured anew while something comes in.
const ROUND_TRIP_STALE: Duration = Duration::from_millis(200);

/// Requests of one message that are looked at: what its sender may ask at once, and once more.
const WANTED_TAKEN: usize = 2 * crate::limits::WANTED_MAX;

/// What feedback came and went.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeedbackStats {
    /// Messages sent.
    pub sent: u64,
    /// Their bytes, sealed, without outer headers.
    pub sent_bytes: u64,
    /// Messages taken.
    pub received: u64,
    /// Challenges sent.
    pub challenges: u64,
    /// Echoes of them that came back.
    pub echoes: u64,
    /// Challenges of the peer answered.
    pub answered: u64,
    /// Echoes of challenges that nobody remembers.
    pub echoes_unknown: u64,
}

/// Numbers and replay windows of feedback.
pub(super) struct Messages {
    stream: u8,
    endpoints: u8,
    paths: u8,
    numbers: [Option<PathNumbers>; STREAMS_MAX],
    replay: [Option<Box<[ReplayWindow]>>; STREAMS_MAX],
    generation: u32,
    /// Challenges under way: token, and when it was sent.
    challenges: [Option<(u64, Time)>; CHALLENGES_MAX],
    challenged_at: Option<Time>,
    stats: FeedbackStats,
}

impl Messages {
    pub(super) fn new(stream: u8, endpoints: u8, paths: u8) -> Self {
        let mut messages = Self {
            stream,
            endpoints: endpoints.max(1),
            paths,
            numbers: [const { None }; STREAMS_MAX],
            replay: [const { None }; STREAMS_MAX],
            generation: 0,
            challenges: [None; CHALLENGES_MAX],
            challenged_at: None,
            stats: FeedbackStats::default(),
        };
        messages.make_room(stream);
        messages
    }

    /// Room for feedback under the numbers of the peer's streams that are this endpoint's.
    pub(super) fn expect_streams(&mut self, streams: u8) {
        let (mine, endpoints) = (self.stream, self.endpoints);
        for stream in (0..streams).filter(|stream| stream % endpoints == mine) {
            self.make_room(stream);
        }
    }

    fn make_room(&mut self, stream: u8) {
        let index = usize::from(stream);
        if let Some(numbers) = self.numbers.get_mut(index)
            && numbers.is_none()
        {
            *numbers = Some(PathNumbers::new(Kind::Feedback, stream));
            self.replay[index] = Some((0..self.paths).map(|_| ReplayWindow::default()).collect());
        }
    }

    /// Checks incarnation and replay window.
    fn is_new(&mut self, header: ClearHeader, generation: u32) -> Result<(), DropReason> {
        if generation < self.generation {
            return Err(DropReason::OldIncarnation);
        }
        if generation > self.generation {
            self.generation = generation;
            let windows = self.replay.iter_mut().flatten().flatten();
            windows.for_each(ReplayWindow::reset);
        }
        let windows = self.replay.get_mut(usize::from(header.stream));
        let window = windows
            .and_then(Option::as_mut)
            .and_then(|windows| windows.get_mut(usize::from(header.path)));
        window
            .ok_or(DropReason::NotNegotiated)?
            .accept(header.path_number)
    }

    /// The challenge that comes back: when it was sent.
    fn take_challenge(&mut self, token: u64) -> Option<Time> {
        let is_it =
            |challenge: &&mut Option<(u64, Time)>| challenge.is_some_and(|(sent, _)| sent == token);
        let challenge = self.challenges.iter_mut().find(is_it)?;
        challenge.take().map(|(_, sent_at)| sent_at)
    }

    fn remember_challenge(&mut self, token: u64, now: Time) {
        self.challenges.rotate_right(1);
        self.challenges[0] = Some((token, now));
        self.challenged_at = Some(now);
        self.stats.challenges += 1;
    }

    pub(super) fn stats(&self) -> FeedbackStats {
        self.stats
    }

    pub(super) fn numbered(&self) -> u64 {
        self.numbers.iter().flatten().map(PathNumbers::taken).sum()
    }
}

impl<B: Buffer> Endpoint<B> {
    /// Sends a challenge on a path: its echo proves the path, and gives its round trip. False if
    /// that is not possible now.
    pub fn probe<P: BufferPool<Buffer = B>>(
        &mut self,
        path: u8,
        token: u64,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) -> bool {
        let now = egress.now;
        let sent = self.send_message(self.config.stream, path, egress, |_, writer| {
            writer.challenge(token, now.as_wire_us())
        });
        if sent {
            self.messages.remember_challenge(token, now);
        }
        sent
    }

    /// Tells the peer that this gateway stops.
    pub fn say_close<P: BufferPool<Buffer = B>>(
        &mut self,
        path: u8,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        self.send_message(self.config.stream, path, egress, |_, writer| writer.close());
    }

    pub(super) fn take_message<P: BufferPool<Buffer = B>>(
        &mut self,
        message: &Opened<B>,
        generation: u32,
        received_at: Time,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
        sink: &mut impl FrameSink<B>,
    ) -> Told {
        let mut told = Told::default();
        let Some(header) = message.header() else {
            self.drops.count(DropReason::ShardMalformed);
            return told;
        };
        let known = self.messages.generation;
        if let Err(reason) = self.messages.is_new(header, generation) {
            self.drops.count(reason);
            return told;
        }
        if known != 0 && known != generation {
            self.outbound.peer_restarted();
        }
        told.is_news = true;
        self.messages.stats.received += 1;
        let mut blocks = Blocks::new(message.plaintext());
        let mut challenge = None;
        let mut wanted_left = WANTED_TAKEN;
        for block in blocks.by_ref() {
            match block {
                Block::Report(report, ranges) if header.stream == self.config.stream => {
                    self.outbound.report(&report, ranges, received_at);
                }
                Block::Wanted(seqs) if header.stream == self.config.stream => {
                    let taken = seqs.iter().take(wanted_left);
                    wanted_left = wanted_left.saturating_sub(seqs.iter().count());
                    self.outbound.wanted(taken, egress.now);
                }
                // A report or request about a stream that is not sent from here.
                Block::Report(..) | Block::Wanted(_) => self.drops.count(DropReason::NotNegotiated),
                // One answer to a message, four bytes longer than its challenge: nobody is made to
                // send much by little.
                Block::Challenge { token, sent_at_us } => {
                    challenge.get_or_insert((token, sent_at_us));
                }
                Block::Echo { token, held_us, .. } => match self.messages.take_challenge(token) {
                    Some(sent_at) => {
                        let sent_at_us = sent_at.as_wire_us();
                        self.outbound
                            .echo(header.path, sent_at_us, held_us, received_at);
                        self.messages.stats.echoes += 1;
                        told.echoed = Some(token);
                    }
                    None if self.mtu_echoed(header.path, token, received_at) => {}
                    None => self.messages.stats.echoes_unknown += 1,
                },
                Block::NotSent(seqs) => {
                    if let Some(Some(buffer)) = self.inbound.get_mut(usize::from(header.stream)) {
                        buffer.not_sent(seqs.iter().take(WANTED_TAKEN), sink);
                    }
                }
                Block::Extent { highest, floor } => {
                    if let Some(Some(buffer)) = self.inbound.get_mut(usize::from(header.stream)) {
                        buffer.extent(highest, floor, header.path, received_at, sink);
                    }
                }
                Block::Close => told.closed = true,
                Block::Skipped => {}
            }
        }
        if blocks.is_malformed() {
            self.drops.count(DropReason::ShardMalformed);
        }
        if let Some((token, sent_at_us)) = challenge {
            let way = (header.stream, header.path);
            self.answer_challenge(token, sent_at_us, way, received_at, egress);
        }
        if let Some(budget) = &mut self.budget {
            self.outbound.answer(budget, egress);
        }
        told
    }

    fn answer_challenge<P: BufferPool<Buffer = B>>(
        &mut self,
        token: u64,
        sent_at_us: u32,
        (stream, path): (u8, u8),
        received_at: Time,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        let held = egress.now.since(received_at).as_micros();
        let held_us = u32::try_from(held).unwrap_or(u32::MAX);
        // Under the number of the challenge: so it reaches the endpoint that sent that.
        let sent = self.send_message(stream, path, egress, |_, writer| {
            writer.echo(token, sent_at_us, held_us)
        });
        self.messages.stats.answered += u64::from(sent);
    }

    /// Sends the reports and requests that are due, and what the peer is to know of this stream.
    pub(super) fn send_feedback<P: BufferPool<Buffer = B>>(
        &mut self,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
    ) {
        let Some(path) = self.outbound.open_path() else {
            return;
        };
        for stream in 0..STREAMS_MAX {
            let is_due = |buffer: &crate::receiver::PredictiveBuffer<B, _>| {
                buffer.feedback_at().is_some_and(|due| due <= egress.now)
            };
            if !self.inbound[stream].as_deref().is_some_and(is_due) {
                continue;
            }
            let now = egress.now;
            let measures = self.is_round_trip_stale(now);
            let token = now.as_nanos();
            self.send_message(stream as u8, path, egress, |endpoint, writer| {
                let any = match &mut endpoint.inbound[stream] {
                    Some(buffer) => buffer.write_feedback(writer, now),
                    None => false,
                };
                if measures && any && writer.challenge(token, now.as_wire_us()) {
                    endpoint.messages.remember_challenge(token, now);
                }
                any
            });
        }
        if self.outbound.extent_due || !self.outbound.untold.is_empty() {
            self.send_message(self.config.stream, path, egress, |endpoint, writer| {
                let outbound = &mut endpoint.outbound;
                // First how far the stream goes: only what is known to be missing can be closed.
                let (highest, floor) = outbound.extent();
                outbound.extent_due = !writer.extent(highest, floor);
                let told = writer.seqs(BlockType::NotSent, outbound.untold.iter().copied());
                outbound.untold.drain(..told);
                true
            });
        }
    }

    /// Nobody has reported on our own stream for a while, so that only a challenge can tell.
    fn is_round_trip_stale(&self, now: Time) -> bool {
        let is_stale = |age: Option<Duration>| age.is_none_or(|age| age > ROUND_TRIP_STALE);
        let challenged = self.messages.challenged_at;
        is_stale(self.outbound.round_trip_age(now))
            && is_stale(challenged.map(|challenged| now.since(challenged)))
    }

    /// Seals and sends one message under a stream's number; false if that is not possible now, or
    /// nothing was written.
    fn send_message<P: BufferPool<Buffer = B>>(
        &mut self,
        stream: u8,
        path: u8,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
        write: impl FnOnce(&mut Self, &mut BlockWriter<'_, B>) -> bool,
    ) -> bool {
        let len_max = self.outbound.message_max();
        self.send_message_of(stream, path, len_max, egress, write)
    }

    /// The same for a message of up to so many bytes.
    pub(super) fn send_message_of<P: BufferPool<Buffer = B>>(
        &mut self,
        stream: u8,
        path: u8,
        len_max: usize,
        egress: &mut Egress<'_, P, impl Outbox<B>>,
        write: impl FnOnce(&mut Self, &mut BlockWriter<'_, B>) -> bool,
    ) -> bool {
        let now = egress.now;
        let may_seal = self
            .budget
            .as_ref()
            .is_some_and(|budget| budget.permits(1, now));
        let is_ours = self
            .messages
            .numbers
            .get(usize::from(stream))
            .is_some_and(Option::is_some);
        if !may_seal || !is_ours || egress.outbox.credit() == 0 {
            return false;
        }
        let Some(mut message) = egress.pool.alloc() else {
            self.drops.count(DropReason::NoBuffer);
            return false;
        };
        if !write(self, &mut BlockWriter::new(&mut message, len_max)) {
            return false;
        }
        let numbers = self.messages.numbers[usize::from(stream)].as_mut();
        let number = numbers
            .zip(self.budget.as_mut())
            .and_then(|(numbers, budget)| numbers.take(path, budget, now));
        let Some(number) = number else {
            return false;
        };
        let bytes = (message.len() + CLEAR_HEADER_LEN + TAG_LEN) as u64;
        let Ok(message) = Unsealed::new(message, number) else {
            return false;
        };
        egress.outbox.send(message);
        self.messages.stats.sent += 1;
        self.messages.stats.sent_bytes += bytes;
        true
    }
}
