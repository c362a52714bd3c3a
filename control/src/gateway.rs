//! The control loop: between the dataplane on one side, and sessions and the gateway's own network
//! on the other.
//!
//! ```text
//! dataplane ─ frames ─► network ─ datagrams ─► sessions ─ commands ─► dataplane
//!     ▲                  │    ▲                   │
//!     └───── frames ─────┘    └──── datagrams ────┘
//! ```
//!
//! It also tells the dataplane where each peer's path leads: a path is set once the peer's address
//! and the next hop's are known, and again when one of them changes.

use shardgate_core::time::Time;
use shardgate_dataplane::command::{Command, PathAddress};
use tracing::debug;

use crate::dataplane::Dataplane;
use crate::limits;
use crate::network::{Network, NetworkCounters};
use crate::session::{HandshakeCounters, Output, SessionStatus, Sessions, Turn};

/// The only path id as long as a peer has one path.
const PATH: u8 = 0;

/// Sessions, network and paths of a gateway over its dataplane.
pub struct Gateway<D: Dataplane> {
    sessions: Sessions<D::Ticket>,
    network: Network,
    /// What the dataplane was told last, for each peer.
    paths: Vec<Option<PathAddress>>,
    frame: Vec<u8>,
    last_event: Time,
}

impl<D: Dataplane> Gateway<D> {
    /// Puts the parts together.
    pub fn new(sessions: Sessions<D::Ticket>, network: Network, now: Time) -> Self {
        let paths = sessions.remotes().map(|_| None).collect();
        Self {
            sessions,
            network,
            paths,
            frame: Vec::new(),
            last_event: now,
        }
    }

    /// One round of everything; true if there may be more to do at once.
    pub fn turn(
        &mut self,
        dataplane: &mut D,
        wall_ns: u64,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> bool {
        let now = dataplane.now();
        let mut turn = Turn {
            now,
            wall_ns,
            random,
            dataplane,
        };
        for _ in 0..limits::FRAMES_PER_TURN {
            let Some(port) = turn.dataplane.receive(&mut self.frame) else {
                break;
            };
            self.last_event = now;
            if let Some(datagram) = self.network.handle(now, port, &self.frame) {
                self.sessions
                    .handle(&mut turn, port, datagram.source, datagram.payload);
            }
        }
        self.sessions.poll(&mut turn);
        while let Some(output) = self.sessions.poll_output() {
            match output {
                Output::Send {
                    port,
                    remote,
                    datagram,
                } => {
                    self.network.send(now, port, remote, &datagram);
                }
                Output::CheckNextHop { port, remote } => {
                    self.network.check_next_hop(now, port, remote.ip());
                }
            }
        }
        self.set_paths(now, turn.dataplane);
        self.network.poll(now);
        while let Some((port, frame)) = self.network.poll_output() {
            self.last_event = now;
            let sent = turn.dataplane.send(port, &frame);
            self.network.note_sent(sent);
        }
        self.sessions.busy() || now.since(self.last_event) < limits::BUSY_AFTER_EVENT
    }

    /// Tells the dataplane about paths whose addresses have become known, or have changed.
    fn set_paths(&mut self, now: Time, dataplane: &mut D) {
        for ((peer, port, remote), known) in self.sessions.remotes().zip(&mut self.paths) {
            let Some(remote) = remote else { continue };
            let Some(next_hop) = self.network.next_hop(now, port, remote.ip()) else {
                continue;
            };
            let Some(local) = self.network.local(port) else {
                continue;
            };
            let address = PathAddress {
                port,
                local,
                remote,
                next_hop,
            };
            if *known != Some(address) {
                *known = Some(address);
                debug!(peer, %remote, "path set");
                dataplane.post(Command::SetPath {
                    peer,
                    path: PATH,
                    address: Some(address),
                });
            }
        }
    }

    /// Tells all peers that we stop; the ticket is acknowledged when the lcores have said so.
    pub fn close(
        &mut self,
        dataplane: &mut D,
        wall_ns: u64,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Option<D::Ticket> {
        let now = dataplane.now();
        self.sessions.close(&mut Turn {
            now,
            wall_ns,
            random,
            dataplane,
        })
    }

    /// How every session stands.
    pub fn sessions(&self, dataplane: &D) -> Vec<SessionStatus> {
        self.sessions.status(dataplane, dataplane.now())
    }

    /// What became of handshake messages.
    pub fn handshake_counters(&self) -> &HandshakeCounters {
        self.sessions.counters()
    }

    /// The gateway's own traffic.
    pub fn network_counters(&self) -> &NetworkCounters {
        self.network.counters()
    }
}
