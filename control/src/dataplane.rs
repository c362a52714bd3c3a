//! What the control thread needs of a dataplane: the engine in production, a fake in tests.

use shardgate_core::time::Time;
use shardgate_dataplane::command::Command;

/// The side of the engine that the control thread talks to.
pub trait Dataplane {
    /// Names a posted command until it is acknowledged.
    type Ticket: Copy;

    /// The lcores' clock.
    fn now(&self) -> Time;

    /// Copies the next frame that concerns the gateway itself into `frame` and names its port.
    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<usize>;

    /// Hands a frame to the lcore that sends on `port`; false when its ring is full.
    fn send(&mut self, port: usize, frame: &[u8]) -> bool;

    /// Posts a command to every lcore that it concerns.
    fn post(&mut self, command: Command) -> Self::Ticket;

    /// True when every lcore has carried the command out.
    fn acknowledged(&mut self, ticket: Self::Ticket) -> bool;

    /// True once something has been opened under this receive key.
    fn confirmed(&self, receiver_index: u32) -> bool;

    /// Seals spent on the send key of a peer.
    fn seals(&self, peer: u16) -> u64;

    /// True if the peer said close since the last call.
    fn take_closed(&mut self, peer: u16) -> bool;

    /// When something of the peer was opened last.
    fn last_heard(&self, peer: u16) -> Option<Time>;

    /// How many streams we send to the peer.
    fn streams(&self, peer: u16) -> u8;
}
