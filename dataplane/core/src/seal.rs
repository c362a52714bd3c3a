//! Sealing and opening: who may use a nonce, and which state a shard is in.
//!
//! A [`PathNumber`] is the right to seal one datagram: it cannot be copied, only
//! [`PathNumbers::take`] makes one, and it does so only within the key's [`SealBudget`]. Building
//! an [`Unsealed`] shard consumes it. From there on the type follows the shard: `Unsealed` →
//! [`Sealed`] → (wire) → [`Received`] → [`Opened`]; a wrong order does not compile.
//!
//! Ciphers live with the crypto units; this module states nonces and layouts through [`Aead`].

use crate::buffer::Buffer;
use crate::drop_reason::DropReason;
use crate::limits::{KEY_LIFETIME, PATHS_MAX, SEALS_MAX};
use crate::time::Time;
use crate::wire::header::{CLEAR_HEADER_LEN, ClearHeader, Kind, NONCE_LEN, TAG_LEN};

/// AES-256-GCM or what stands in for it, with a key inside.
pub trait Aead {
    /// Encrypts `data` in place and returns the tag; `None` if the unit failed.
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> Option<[u8; TAG_LEN]>;

    /// Decrypts `data` in place if it authenticates. If it does not, returns false and leaves
    /// `data` unspecified: it must not be read.
    fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> bool;
}

/// How often, and until when, a key may still seal in one hand.
///
/// A key is shared by all streams of a peer; each gets an equal part of
/// [`SEALS_MAX`], so that no hand has to ask another.
#[derive(Debug)]
pub struct SealBudget {
    receiver_index: u32,
    origin: Origin,
    left: u64,
    expires: Time,
}

/// What a numbered datagram's metadata says of where it comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The unit's slot of the key.
    pub key_slot: u16,
    /// Whom it goes to.
    pub peer: u16,
    /// Which of a path's UDP source ports it uses; travels in [`Meta::scratch`](crate::buffer::Meta).
    pub flow: u16,
}

impl SealBudget {
    /// The part of a key, made at `created`, that one of `hands` may spend.
    pub fn new(receiver_index: u32, origin: Origin, hands: u8, created: Time) -> Self {
        Self {
            receiver_index,
            origin,
            left: SEALS_MAX / u64::from(hands.max(1)),
            expires: created + KEY_LIFETIME,
        }
    }

    /// True if `count` datagrams may be sealed now.
    #[inline]
    pub fn permits(&self, count: usize, now: Time) -> bool {
        self.left >= count as u64 && now < self.expires
    }
}

/// The right to seal one datagram under one key.
#[derive(Debug)]
pub struct PathNumber {
    header: ClearHeader,
    origin: Origin,
}

/// The counters of transmissions on (kind, stream, path): one array for each kind and stream, in
/// one hand, never reset as long as the program runs.
#[derive(Debug)]
pub struct PathNumbers {
    kind: Kind,
    stream: u8,
    next: [u64; PATHS_MAX],
}

impl PathNumber {
    /// The number itself.
    pub fn get(&self) -> u64 {
        self.header.path_number
    }
}

impl PathNumbers {
    /// Counters that start at zero.
    pub fn new(kind: Kind, stream: u8) -> Self {
        Self {
            kind,
            stream,
            next: [0; PATHS_MAX],
        }
    }

    /// The next number on `path`; `None` if the key is spent or too old, or there is no such path.
    #[inline]
    pub fn take(&mut self, path: u8, budget: &mut SealBudget, now: Time) -> Option<PathNumber> {
        let next = self.next.get_mut(usize::from(path))?;
        if !budget.permits(1, now) {
            return None;
        }
        let header = ClearHeader {
            kind: self.kind,
            stream: self.stream,
            path,
            receiver_index: budget.receiver_index,
            path_number: *next,
        };
        *next = next.checked_add(1)?;
        budget.left -= 1;
        Some(PathNumber {
            header,
            origin: budget.origin,
        })
    }

    /// How many numbers were taken on all paths.
    pub fn taken(&self) -> u64 {
        self.next.iter().sum()
    }
}

/// A clear header and plaintext, numbered: what a unit seals.
#[derive(Debug)]
#[repr(transparent)]
pub struct Unsealed<B>(B);

/// A datagram as it goes out: clear header, ciphertext, tag.
#[derive(Debug)]
#[repr(transparent)]
pub struct Sealed<B>(B);

/// A datagram as it came in, of a kind that units open.
#[derive(Debug)]
#[repr(transparent)]
pub struct Received<B>(B);

/// A clear header and plaintext that authenticated.
#[derive(Debug)]
#[repr(transparent)]
pub struct Opened<B>(B);

impl<B: Buffer> Unsealed<B> {
    /// Puts the clear header in front of the plaintext and notes its [`Origin`] in the metadata.
    ///
    /// # Errors
    /// The buffer, when head- or tailroom for header and tag is missing; the number is spent.
    #[inline]
    pub fn new(mut buffer: B, number: PathNumber) -> Result<Self, B> {
        if buffer.tailroom() < TAG_LEN {
            return Err(buffer);
        }
        let Some(room) = buffer.prepend(CLEAR_HEADER_LEN) else {
            return Err(buffer);
        };
        room.copy_from_slice(&number.header.to_bytes());
        let mut meta = buffer.meta();
        meta.key_slot = number.origin.key_slot;
        meta.peer = number.origin.peer;
        meta.path = number.header.path;
        meta.scratch = number.origin.flow;
        buffer.set_meta(meta);
        Ok(Self(buffer))
    }

    /// Key slot, path and peer.
    #[inline]
    pub fn buffer(&self) -> &B {
        &self.0
    }

    /// The clear header.
    #[inline]
    pub fn header(&self) -> Option<ClearHeader> {
        ClearHeader::parse(self.0.data()).ok()
    }

    /// What is to be sealed.
    #[inline]
    pub fn plaintext(&self) -> &[u8] {
        self.0.data().get(CLEAR_HEADER_LEN..).unwrap_or_default()
    }

    /// Names the key that it was numbered under: no other may seal it.
    #[inline]
    pub fn receiver_index(&self) -> Option<u32> {
        self.header().map(|header| header.receiver_index)
    }

    /// Seals in place.
    ///
    /// # Errors
    /// The buffer, when the unit failed; its contents are unspecified.
    #[inline]
    pub fn seal(self, aead: &impl Aead) -> Result<Sealed<B>, B> {
        let Unsealed(mut buffer) = self;
        let Ok(header) = ClearHeader::parse(buffer.data()) else {
            return Err(buffer);
        };
        let Some((aad, data)) = buffer.data_mut().split_at_mut_checked(CLEAR_HEADER_LEN) else {
            return Err(buffer);
        };
        let Some(tag) = aead.seal(&header.nonce(), aad, data) else {
            return Err(buffer);
        };
        match buffer.append(TAG_LEN) {
            Some(room) => room.copy_from_slice(&tag),
            None => return Err(buffer),
        }
        Ok(Sealed(buffer))
    }

    /// Gives it up: the number stays spent.
    pub fn discard(self) -> B {
        self.0
    }
}

impl<B: Buffer> Sealed<B> {
    /// The datagram.
    #[inline]
    pub fn into_buffer(self) -> B {
        self.0
    }
}

impl<B: Buffer> Received<B> {
    /// Takes a datagram, outer headers trimmed, that came under a known key, and notes the key's
    /// slot.
    ///
    /// # Errors
    /// The reason and the buffer: [`ClearHeader::parse`]'s, or [`DropReason::Kind`] for a
    /// handshake, or [`DropReason::Malformed`] when it is too short for a tag.
    #[inline]
    pub fn new(buffer: B) -> Result<(Self, ClearHeader), (DropReason, B)> {
        match ClearHeader::parse(buffer.data()) {
            Ok(header) if header.kind.is_handshake() => Err((DropReason::Kind, buffer)),
            Ok(_) if buffer.len() <= CLEAR_HEADER_LEN + TAG_LEN => {
                Err((DropReason::Malformed, buffer))
            }
            Ok(header) => Ok((Self(buffer), header)),
            Err(reason) => Err((reason, buffer)),
        }
    }

    /// Key slot and arrival time.
    #[inline]
    pub fn buffer(&self) -> &B {
        &self.0
    }

    /// Notes which key opens it, whose it is, and which rx lcore it goes to once opened (in
    /// [`Meta::scratch`](crate::buffer::Meta)).
    #[inline]
    pub fn assign(&mut self, key_slot: u16, peer: u16, owner: u16) {
        let mut meta = self.0.meta();
        meta.key_slot = key_slot;
        meta.peer = peer;
        meta.scratch = owner;
        self.0.set_meta(meta);
    }

    /// Opens in place.
    ///
    /// # Errors
    /// The buffer, when it does not authenticate; its contents must not be read.
    #[inline]
    pub fn open(self, aead: &impl Aead) -> Result<Opened<B>, B> {
        let Received(mut buffer) = self;
        let Ok(header) = ClearHeader::parse(buffer.data()) else {
            return Err(buffer);
        };
        let Some((tag_at, tag)) = buffer
            .data()
            .split_last_chunk::<TAG_LEN>()
            .map(|(before, tag)| (before.len(), *tag))
        else {
            return Err(buffer);
        };
        let opened = buffer.data_mut()[..tag_at]
            .split_at_mut_checked(CLEAR_HEADER_LEN)
            .is_some_and(|(aad, data)| aead.open(&header.nonce(), aad, data, &tag));
        if opened && buffer.trim_back(TAG_LEN) {
            Ok(Opened(buffer))
        } else {
            Err(buffer)
        }
    }

    /// Gives it up.
    pub fn discard(self) -> B {
        self.0
    }
}

impl<B: Buffer> Opened<B> {
    /// The clear header, now authenticated.
    #[inline]
    pub fn header(&self) -> Option<ClearHeader> {
        ClearHeader::parse(self.0.data()).ok()
    }

    /// What was sealed.
    #[inline]
    pub fn plaintext(&self) -> &[u8] {
        self.0.data().get(CLEAR_HEADER_LEN..).unwrap_or_default()
    }

    /// The buffer, clear header included.
    #[inline]
    pub fn buffer(&self) -> &B {
        &self.0
    }

    /// The buffer, clear header included.
    #[inline]
    pub fn into_buffer(self) -> B {
        self.0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::buffer::HeapBuffer;
    pub(crate) use crate::test_aead::TestAead;

    pub(crate) const ORIGIN: Origin = Origin {
        key_slot: 3,
        peer: 5,
        flow: 2,
    };

    fn budget() -> SealBudget {
        SealBudget::new(7, ORIGIN, 1, Time::ZERO)
    }

    fn sealed(numbers: &mut PathNumbers, budget: &mut SealBudget) -> HeapBuffer {
        let number = numbers.take(0, budget, Time::ZERO).unwrap();
        let unsealed = Unsealed::new(HeapBuffer::from_bytes(b"plaintext"), number).unwrap();
        let meta = unsealed.buffer().meta();
        assert_eq!((meta.key_slot, meta.peer, meta.scratch), (3, 5, 2));
        unsealed.seal(&TestAead::new(1)).unwrap().into_buffer()
    }

    #[test]
    fn a_sealed_shard_opens_once_and_with_the_right_key_only() {
        let (mut numbers, mut budget) = (PathNumbers::new(Kind::Data, 0), budget());
        let datagram = sealed(&mut numbers, &mut budget);
        assert_eq!(datagram.len(), 16 + 9 + 16);
        let received = |bytes: &[u8]| Received::new(HeapBuffer::from_bytes(bytes)).unwrap().0;
        let opened = received(datagram.data()).open(&TestAead::new(1)).unwrap();
        assert_eq!(opened.plaintext(), b"plaintext");
        assert!(received(datagram.data()).open(&TestAead::new(2)).is_err());
        for byte in 4..datagram.len() {
            let mut forged = datagram.data().to_vec();
            forged[byte] ^= 1;
            assert!(
                received(&forged).open(&TestAead::new(1)).is_err(),
                "byte {byte}"
            );
        }
    }

    #[test]
    fn path_numbers_grow_and_the_budget_is_the_bound() {
        let mut numbers = PathNumbers::new(Kind::Data, 0);
        let mut budget = budget();
        budget.left = 2;
        let first = sealed(&mut numbers, &mut budget);
        let second = sealed(&mut numbers, &mut budget);
        let number = |b: &HeapBuffer| ClearHeader::parse(b.data()).unwrap().path_number;
        assert_eq!((number(&first), number(&second)), (0, 1));
        assert!(numbers.take(0, &mut budget, Time::ZERO).is_none());
        let mut fresh = SealBudget::new(8, ORIGIN, 1, Time::ZERO);
        assert!(
            numbers
                .take(0, &mut fresh, Time::ZERO + KEY_LIFETIME)
                .is_none()
        );
        let just_before = Time(KEY_LIFETIME.as_nanos() as u64 - 1);
        let next = numbers.take(0, &mut fresh, just_before).unwrap();
        assert_eq!(next.header.path_number, 2, "a new key goes on counting");
        assert!(
            numbers
                .take(PATHS_MAX as u8, &mut fresh, Time::ZERO)
                .is_none()
        );
    }

    #[test]
    fn datagrams_too_short_for_a_tag_are_malformed() {
        let (mut numbers, mut budget) = (PathNumbers::new(Kind::Data, 0), budget());
        let datagram = sealed(&mut numbers, &mut budget);
        for len in 0..=32 {
            let buffer = HeapBuffer::from_bytes(&datagram.data()[..len]);
            assert!(matches!(
                Received::new(buffer),
                Err((DropReason::Malformed, _))
            ));
        }
    }
}
