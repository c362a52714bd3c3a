//! What became of every handshake message.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// Why a handshake message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// Shorter than its kind can be.
    Truncated,
    /// Longer than any handshake message.
    TooLong,
    /// A protocol version that we do not speak, in the header or in the payload.
    Version,
    /// A kind that is not handled here.
    Kind,
    /// A reserved field that is not zero.
    Reserved,
    /// `mac1` is not made with our public key.
    Mac1,
    /// Too much work was asked for.
    RateLimited,
    /// Noise could not open it: wrong key, forged, or corrupt.
    Authentication,
    /// The sender's static key belongs to no peer.
    UnknownPeer,
    /// The payload makes no sense.
    Payload,
    /// Not newer than the newest init of that peer.
    Replayed,
    /// From an address that the peer is not configured to have.
    SourceAddress,
    /// From another address than the one that was learned, where the peer still lives.
    Roaming,
    /// Both ends began at once, and ours goes on.
    Simultaneous,
    /// A response to nothing that we have sent.
    UnknownIndex,
    /// All key slots are in use.
    NoSlot,
    /// Our side could not make its part.
    Internal,
}

impl Reject {
    const ALL: [Self; 17] = [
        Self::Truncated,
        Self::TooLong,
        Self::Version,
        Self::Kind,
        Self::Reserved,
        Self::Mac1,
        Self::RateLimited,
        Self::Authentication,
        Self::UnknownPeer,
        Self::Payload,
        Self::Replayed,
        Self::SourceAddress,
        Self::Roaming,
        Self::Simultaneous,
        Self::UnknownIndex,
        Self::NoSlot,
        Self::Internal,
    ];

    /// Its name in the stats.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::TooLong => "too_long",
            Self::Version => "version",
            Self::Kind => "kind",
            Self::Reserved => "reserved",
            Self::Mac1 => "mac1",
            Self::RateLimited => "rate_limited",
            Self::Authentication => "authentication",
            Self::UnknownPeer => "unknown_peer",
            Self::Payload => "payload",
            Self::Replayed => "replayed",
            Self::SourceAddress => "source_address",
            Self::Roaming => "roaming",
            Self::Simultaneous => "simultaneous",
            Self::UnknownIndex => "unknown_index",
            Self::NoSlot => "no_slot",
            Self::Internal => "internal",
        }
    }
}

/// Rejected messages by reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rejected([u64; Reject::ALL.len()]);

impl Rejected {
    /// Counts one.
    pub fn count(&mut self, reason: Reject) {
        self.0[reason as usize] += 1;
    }

    /// How many for this reason.
    #[cfg(test)]
    pub fn of(&self, reason: Reject) -> u64 {
        self.0[reason as usize]
    }

    /// How many in all.
    #[cfg(test)]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Serialize for Rejected {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for reason in Reject::ALL {
            map.serialize_entry(reason.name(), &self.0[reason as usize])?;
        }
        map.end()
    }
}

/// Counters of all handshakes; they only grow.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct HandshakeCounters {
    /// Messages that came in, sound or not.
    pub received: u64,
    /// Inits sent, repeats included.
    pub inits_sent: u64,
    /// Responses sent.
    pub responses_sent: u64,
    /// Sessions established that we began.
    pub completed_as_initiator: u64,
    /// Sessions established that the peer began.
    pub completed_as_responder: u64,
    /// Answers of ours that the peer never confirmed.
    pub unconfirmed: u64,
    /// Sessions that came about after a newer incarnation of the peer, and were dropped.
    pub superseded: u64,
    /// What was dropped, by reason.
    pub rejected: Rejected,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_slot_and_name() {
        for (at, reason) in Reject::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
        }
        let mut names: Vec<_> = Reject::ALL.map(Reject::name).into();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reject::ALL.len());
        let mut rejected = Rejected::default();
        rejected.count(Reject::Replayed);
        let json = serde_json::to_value(rejected).unwrap();
        assert_eq!(json["replayed"], 1);
        assert_eq!(json.as_object().unwrap().len(), Reject::ALL.len());
    }
}
