//! A model of TCP as Linux hosts run it, for bulk flows: the traffic that a tunnel is judged by.
//!
//! | part | after |
//! |---|---|
//! | congestion control | CUBIC with fast convergence, classic HyStart (RFC 9438; [`cubic`](self)) |
//! | loss detection | SACK scoreboard, RACK with DSACK-adapted reordering window, tail loss probes (RFC 8985) |
//! | recovery | proportional rate reduction (RFC 6937), undo by timestamps and DSACK (RFC 4015, 3708) |
//! | timeouts | RFC 6298 with Linux's margin of 200 ms; spurious ones are undone (RFC 5682, step 3b) |
//! | acknowledgements | every second segment, else after 40 ms; at once at the start and out of order |
//! | options | timestamps, SACK, window scaling, MSS, as real bytes; ECN if asked for (RFC 3168) |
//!
//! Not modelled: pacing (CUBIC on Linux has none by default), segmentation offload, the send
//! buffer, receive buffer tuning (the window is fixed), closing.
//!
//! A timestamp is the number of a transmission, not a time. It orders transmissions as a clock
//! would, only without ticks, and makes every frame of a host unlike all its others.

mod cubic;
mod pattern;
mod receiver;
mod rtt;
mod scoreboard;
mod sender;

pub use receiver::TcpReceiver;
pub use sender::{TcpCounters, TcpSender};

use crate::world::{FlowId, Host, Site, World};

/// What both ends are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpConfig {
    /// The segment size each end announces, bytes; 1460 is that of a LAN with an MTU of 1500.
    pub mss: u16,
    /// Segments sent before the first ACK (RFC 6928).
    pub initial_window: u32,
    /// Bytes the receiver takes beyond what is acknowledged; Linux's `tcp_rmem` maximum.
    pub receive_window: u32,
    /// Whether marks are understood.
    pub ecn: bool,
    /// Length of the stream; none is a sender that never runs dry.
    pub bytes: Option<u64>,
}

impl Default for TcpConfig {
    fn default() -> Self {
        Self {
            mss: 1_460,
            initial_window: 10,
            receive_window: 6 << 20,
            ecn: false,
            bytes: None,
        }
    }
}

/// Adds a flow whose client at `site` connects when the world begins and sends to the other site.
pub fn add_flow(world: &mut World, site: Site, config: TcpConfig) -> FlowId {
    world.add_flow(site, |ends, seed| {
        let sender = TcpSender::new(ends.forward(), config, seed);
        let receiver = TcpReceiver::new(ends.backward(), config, seed);
        (Box::new(sender) as Box<dyn Host>, Box::new(receiver))
    })
}

/// The 64-bit number nearest to `near` whose low 32 bits are `low`.
fn expand(low: u32, near: u64) -> u64 {
    let ahead = low.wrapping_sub(near as u32) as i32;
    near.saturating_add_signed(i64::from(ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_expanded_across_the_wrap() {
        let wrap = 1u64 << 32;
        assert_eq!(expand(5, wrap - 3), wrap + 5);
        assert_eq!(expand(u32::MAX, wrap + 7), wrap - 1);
        assert_eq!(expand(u32::MAX, 7), 0, "nothing lies before the start");
    }
}
