//! The crypto unit of a simulated gateway, and the outer headers.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use shardgate_core::buffer::{Buffer, HeapBuffer};
use shardgate_core::drop_reason::DropReason;
use shardgate_core::endpoint::Outbox;
use shardgate_core::seal::{Aead, Opened, Received, Unsealed};
use shardgate_core::wire::header::{ClearHeader, Kind, NONCE_LEN, TAG_LEN};
use shardgate_core::wire::outer::{Outer, OuterTemplate, parse_outer};
use shardgate_core::wire::shard::{FLAG_REPAIR, FLAG_REPEAT};

use crate::gateway::Output;
use crate::seeds::seed_for;
use crate::world::Site;

/// The index under which both ends know their one peer's keys.
pub(super) const RECEIVER_INDEX: u32 = 1;
const PORT: u16 = 4_600;
/// Datagrams taken in one call: no aggregate, and no answer to a request, makes more.
const CREDIT: usize = 4_096;

/// Where the gateway of a site is; the same on all paths, as the world keeps these apart.
pub(super) fn address(site: Site) -> SocketAddr {
    let host = match site {
        Site::A => 1,
        Site::B => 2,
    };
    SocketAddr::new(Ipv4Addr::new(192, 0, 2, host).into(), PORT)
}

/// Bytes of datagrams, whole Ethernet frames, by what they are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SentByKind {
    pub source: u64,
    pub repair: u64,
    pub repeats: u64,
    pub feedback: u64,
}

/// AES-256-GCM by the `aes-gcm` crate. Not shared with the dataplane's unit: that stands behind
/// DPDK, and the core, which both know, may know no cipher.
struct Cipher(Aes256Gcm);

impl Cipher {
    /// The key of what `from` seals.
    fn new(from: Site, seed: u64) -> Self {
        let mut key = [0; 32];
        for (turn, word) in (0u64..).zip(key.chunks_mut(8)) {
            word.copy_from_slice(&seed_for(seed, &[from as u64, turn]).to_le_bytes());
        }
        Self(Aes256Gcm::new(&key.into()))
    }
}

impl Aead for Cipher {
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        self.0
            .encrypt_inout_detached(nonce.into(), aad, data.into())
            .ok()
            .map(Into::into)
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool {
        self.0
            .decrypt_inout_detached(nonce.into(), aad, data.into(), tag.into())
            .is_ok()
    }
}

/// Seals what leaves, opens what comes, and counts.
pub(super) struct Unit {
    seal: Cipher,
    open: Cipher,
    local: SocketAddr,
    template: Option<OuterTemplate>,
    waiting: Vec<Unsealed<HeapBuffer>>,
    pub(super) sent: SentByKind,
    /// Sealed since somebody asked, and what that took.
    pub(super) sealed: u32,
    pub(super) busy: Duration,
}

impl Outbox<HeapBuffer> for Unit {
    fn credit(&self) -> usize {
        CREDIT.saturating_sub(self.waiting.len())
    }

    fn send(&mut self, datagram: Unsealed<HeapBuffer>) {
        self.waiting.push(datagram);
    }
}

impl Unit {
    pub(super) fn new(site: Site, seed: u64) -> Self {
        let (local, remote) = (address(site), address(site.other()));
        Self {
            seal: Cipher::new(site, seed),
            open: Cipher::new(site.other(), seed),
            local,
            template: OuterTemplate::new([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2], local, remote),
            waiting: Vec::new(),
            sent: SentByKind::default(),
            sealed: 0,
            busy: Duration::ZERO,
        }
    }

    /// Seals and sends what is waiting.
    pub(super) fn flush(&mut self, out: &mut Output) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for datagram in waiting.drain(..) {
            self.seal_one(datagram, out);
        }
        self.waiting = waiting;
    }

    fn seal_one(&mut self, datagram: Unsealed<HeapBuffer>, out: &mut Output) {
        let header = datagram.header().expect("the core writes whole headers");
        let flags = datagram.plaintext().first().copied().unwrap_or_default();
        let Ok(sealed) = datagram.seal(&self.seal) else {
            panic!("the core leaves room for a tag");
        };
        let mut sealed = sealed.into_buffer();
        let template = self.template.as_ref().expect("one address family");
        assert!(
            template.prepend(&mut sealed),
            "the core leaves room for headers"
        );
        let counter = match header.kind {
            Kind::Feedback => &mut self.sent.feedback,
            _ if flags & FLAG_REPAIR != 0 => &mut self.sent.repair,
            _ if flags & FLAG_REPEAT != 0 => &mut self.sent.repeats,
            _ => &mut self.sent.source,
        };
        *counter += sealed.len() as u64;
        self.sealed = self.sealed.saturating_add(1);
        out.datagram(header.path).extend_from_slice(sealed.data());
    }

    /// What stands in a datagram, if it is authentic and came by the path that it names.
    pub(super) fn open(
        &self,
        path: u8,
        datagram: &[u8],
    ) -> Result<(Opened<HeapBuffer>, ClearHeader), DropReason> {
        let Outer::Udp(udp) = parse_outer(datagram)? else {
            return Err(DropReason::NotForUs);
        };
        if udp.destination != self.local {
            return Err(DropReason::NotForUs);
        }
        let bytes = &datagram[udp.payload_at..udp.payload_at + udp.payload_len];
        let (received, header) =
            Received::new(HeapBuffer::from_bytes(bytes)).map_err(|(reason, _)| reason)?;
        if header.receiver_index != RECEIVER_INDEX || header.path != path {
            return Err(DropReason::UnknownReceiver);
        }
        let opened = received.open(&self.open).map_err(|_| DropReason::Forged)?;
        Ok((opened, header))
    }
}
