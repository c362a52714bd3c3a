//! The real dataplane behind the control thread's trait.

use shardgate_core::time::Time;
use shardgate_dataplane::command::Command;
use shardgate_dataplane::engine::{Engine, Ticket};

use crate::dataplane::Dataplane;

impl Dataplane for Engine {
    type Ticket = Ticket;

    fn now(&self) -> Time {
        Engine::now(self)
    }

    fn receive(&mut self, frame: &mut Vec<u8>) -> Option<usize> {
        Engine::receive(self, frame).map(|(port, _)| port)
    }

    fn send(&mut self, port: usize, frame: &[u8]) -> bool {
        Engine::send(self, port, frame)
    }

    fn post(&mut self, command: Command) -> Ticket {
        Engine::post(self, command)
    }

    fn acknowledged(&mut self, ticket: Ticket) -> bool {
        Engine::acknowledged(self, ticket)
    }

    fn confirmed(&self, receiver_index: u32) -> bool {
        Engine::confirmed(self, receiver_index)
    }

    fn seals(&self, peer: u16) -> u64 {
        Engine::seals(self, peer)
    }

    fn take_closed(&mut self, peer: u16) -> bool {
        Engine::take_closed(self, peer)
    }

    fn last_heard(&self, peer: u16) -> Option<Time> {
        Engine::last_heard(self, peer)
    }

    fn streams(&self, peer: u16) -> u8 {
        Engine::streams(self, peer)
    }
}
