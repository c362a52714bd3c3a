//! The cryptography of a handshake: Noise through `snow`, and `mac1`.
//!
//! Random bytes come in as arguments, so a test can replay a handshake bit for bit.

use blake2::digest::consts::U16;
use blake2::digest::{Digest, KeyInit, Mac};
use blake2::{Blake2s256, Blake2sMac};
use shardgate_core::wire::handshake::{MAC_LEN, NOISE_LEN_MAX};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::{Zeroize, Zeroizing};

use crate::keys;

const PATTERN: &str = "Noise_IKpsk2_25519_AESGCM_SHA256";
const PROLOGUE: &[u8] = b"shardgate handshake 1";
const MAC1_LABEL: &[u8] = b"shardgate mac1 v1";

/// Position of the psk in the pattern `IKpsk2`.
const PSK_POSITION: u8 = 2;

/// A Noise message could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("handshake cryptography: {0}")]
pub struct NoiseError(#[from] snow::Error);

/// Our static keys.
pub struct Identity {
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
    mac1_key: Mac1Key,
}

impl Identity {
    /// Derives everything from the private key.
    pub fn new(private: Zeroizing<[u8; 32]>) -> Self {
        let public = keys::public(&private);
        Self {
            private,
            public,
            mac1_key: Mac1Key::new(&public),
        }
    }

    /// Our static public key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The key that `mac1` of a message *to us* is made with.
    pub fn mac1_key(&self) -> &Mac1Key {
        &self.mac1_key
    }
}

/// The key of `mac1`: who knows the addressee's public key can make it.
pub struct Mac1Key([u8; 32]);

impl Mac1Key {
    /// Derives the key for messages to the holder of `public`.
    pub fn new(public: &[u8; 32]) -> Self {
        let mut hash = Blake2s256::new();
        Digest::update(&mut hash, MAC1_LABEL);
        Digest::update(&mut hash, public);
        Self(hash.finalize().into())
    }

    fn mac(&self, input: &[u8]) -> Blake2sMac<U16> {
        let mut mac = <Blake2sMac<U16> as KeyInit>::new(&self.0.into());
        Mac::update(&mut mac, input);
        mac
    }

    /// The MAC over a message's bytes in front of it.
    pub fn make(&self, input: &[u8]) -> [u8; MAC_LEN] {
        self.mac(input).finalize().into_bytes().into()
    }

    /// Compares in constant time.
    pub fn verify(&self, input: &[u8], mac1: &[u8; MAC_LEN]) -> bool {
        self.mac(input).verify(&(*mac1).into()).is_ok()
    }
}

/// The keys that a finished handshake leaves; wiped when dropped.
pub struct Keys {
    /// Seals what we send.
    pub send: Zeroizing<[u8; 32]>,
    /// Opens what the peer sends.
    pub receive: Zeroizing<[u8; 32]>,
}

impl Keys {
    fn split(state: &mut HandshakeState) -> Self {
        let (mut to_responder, mut to_initiator) = state.dangerously_get_raw_split();
        let (send, receive) = if state.is_initiator() {
            (&mut to_responder, &mut to_initiator)
        } else {
            (&mut to_initiator, &mut to_responder)
        };
        let keys = Self {
            send: Zeroizing::new(*send),
            receive: Zeroizing::new(*receive),
        };
        // Arrays are copied, not moved: these are copies too.
        send.zeroize();
        receive.zeroize();
        keys
    }
}

/// A handshake that we began and that waits for its answer.
pub struct Initiation(HandshakeState);

impl Initiation {
    /// Begins a handshake; returns it and the Noise bytes of the init.
    pub fn begin(
        identity: &Identity,
        peer: &[u8; 32],
        psk: &[u8; 32],
        ephemeral: Zeroizing<[u8; 32]>,
        payload: &[u8],
    ) -> Result<(Self, Vec<u8>), NoiseError> {
        let mut state = builder(identity, ephemeral)?
            .remote_public_key(peer)?
            .psk(PSK_POSITION, psk)?
            .build_initiator()?;
        let noise = write(&mut state, payload)?;
        Ok((Self(state), noise))
    }

    /// Reads the answer's Noise bytes; returns its payload and the keys. A message that does not
    /// authenticate leaves the handshake as it was.
    pub fn finish(&mut self, noise: &[u8]) -> Result<(Vec<u8>, Keys), NoiseError> {
        let payload = read(&mut self.0, noise)?;
        Ok((payload, Keys::split(&mut self.0)))
    }
}

/// An init that authenticated its sender.
pub struct Opened {
    state: HandshakeState,
    /// The initiator's static public key.
    pub peer: [u8; 32],
    /// Its payload.
    pub payload: Vec<u8>,
}

impl Opened {
    /// Reads an init's Noise bytes. `ephemeral` is for the answer.
    pub fn read(
        identity: &Identity,
        ephemeral: Zeroizing<[u8; 32]>,
        noise: &[u8],
    ) -> Result<Self, NoiseError> {
        let mut state = builder(identity, ephemeral)?.build_responder()?;
        let payload = read(&mut state, noise)?;
        let peer = state
            .get_remote_static()
            .and_then(|key| key.try_into().ok())
            .ok_or(snow::Error::Input)?;
        Ok(Self {
            state,
            peer,
            payload,
        })
    }

    /// Makes the answer's Noise bytes and the keys.
    pub fn answer(mut self, psk: &[u8; 32], payload: &[u8]) -> Result<(Vec<u8>, Keys), NoiseError> {
        self.state.set_psk(usize::from(PSK_POSITION), psk)?;
        let noise = write(&mut self.state, payload)?;
        Ok((noise, Keys::split(&mut self.state)))
    }
}

fn builder(identity: &Identity, ephemeral: Zeroizing<[u8; 32]>) -> Result<Builder<'_>, NoiseError> {
    let params: NoiseParams = PATTERN.parse()?;
    Ok(
        Builder::with_resolver(params, Box::new(Resolver(ephemeral)))
            .prologue(PROLOGUE)?
            .local_private_key(identity.private.as_ref())?,
    )
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, NoiseError> {
    let mut noise = vec![0; NOISE_LEN_MAX];
    let len = state.write_message(payload, &mut noise)?;
    noise.truncate(len);
    Ok(noise)
}

fn read(state: &mut HandshakeState, noise: &[u8]) -> Result<Vec<u8>, NoiseError> {
    let mut payload = vec![0; NOISE_LEN_MAX];
    let len = state.read_message(noise, &mut payload)?;
    payload.truncate(len);
    Ok(payload)
}

/// snow's own primitives, with the random bytes that were handed in.
struct Resolver(Zeroizing<[u8; 32]>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(self.0.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Random bytes for exactly one ephemeral key: asking twice is an error, not a reuse.
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        match self.0.take() {
            Some(bytes) if bytes.len() == dest.len() => {
                dest.copy_from_slice(bytes.as_ref());
                Ok(())
            }
            _ => Err(snow::Error::Rng),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(seed: u8) -> Identity {
        Identity::new(Zeroizing::new([seed; 32]))
    }

    fn seed(byte: u8) -> Zeroizing<[u8; 32]> {
        Zeroizing::new([byte; 32])
    }

    #[test]
    fn both_ends_hold_the_same_keys() {
        let (alice, bob) = (identity(1), identity(2));
        let psk = [9; 32];
        let (mut ours, init) =
            Initiation::begin(&alice, bob.public(), &psk, seed(3), b"hello").unwrap();
        let opened = Opened::read(&bob, seed(4), &init).unwrap();
        assert_eq!(&opened.peer, alice.public());
        assert_eq!(opened.payload, b"hello");
        let (response, theirs) = opened.answer(&psk, b"welcome").unwrap();
        let (payload, ours) = ours.finish(&response).unwrap();
        assert_eq!(payload, b"welcome");
        assert_eq!(ours.send, theirs.receive);
        assert_eq!(ours.receive, theirs.send);
        assert_ne!(ours.send, ours.receive);
    }

    #[test]
    fn keys_are_wiped_when_dropped() {
        fn wiped<T: zeroize::ZeroizeOnDrop>(key: &T) -> &T {
            key
        }
        let mut keys = Keys {
            send: Zeroizing::new([1; 32]),
            receive: Zeroizing::new([2; 32]),
        };
        // Both fields are of a type that wipes itself, and wiping leaves zeros.
        assert_ne!(wiped(&keys.send), wiped(&keys.receive));
        keys.send.zeroize();
        assert_eq!(*keys.send, [0; 32]);
    }

    #[test]
    fn a_forged_answer_does_not_spoil_the_true_one() {
        let (alice, bob) = (identity(1), identity(2));
        let psk = [0; 32];
        let (mut ours, init) =
            Initiation::begin(&alice, bob.public(), &psk, seed(3), b"hello").unwrap();
        let opened = Opened::read(&bob, seed(4), &init).unwrap();
        let (response, theirs) = opened.answer(&psk, b"welcome").unwrap();
        for at in 0..response.len() {
            let mut forged = response.clone();
            forged[at] ^= 1;
            assert!(ours.finish(&forged).is_err(), "byte {at}");
        }
        let (_, ours) = ours.finish(&response).unwrap();
        assert_eq!(ours.send, theirs.receive);
    }

    #[test]
    fn another_preshared_key_passes_nothing() {
        let (alice, bob) = (identity(1), identity(2));
        let (mut ours, init) =
            Initiation::begin(&alice, bob.public(), &[1; 32], seed(3), b"hello").unwrap();
        let opened = Opened::read(&bob, seed(4), &init).unwrap();
        let (response, _) = opened.answer(&[2; 32], b"welcome").unwrap();
        assert!(ours.finish(&response).is_err());
    }

    #[test]
    fn another_static_key_passes_nothing() {
        let (alice, bob, eve) = (identity(1), identity(2), identity(5));
        let (_, init) =
            Initiation::begin(&alice, bob.public(), &[0; 32], seed(3), b"hello").unwrap();
        assert!(Opened::read(&eve, seed(4), &init).is_err());
    }

    #[test]
    fn mac1_belongs_to_one_addressee_and_one_message() {
        let key = Mac1Key::new(&[1; 32]);
        let mac = key.make(b"message");
        assert!(key.verify(b"message", &mac));
        assert!(!key.verify(b"massage", &mac));
        assert!(!Mac1Key::new(&[2; 32]).verify(b"message", &mac));
    }

    #[test]
    fn random_bytes_are_handed_out_once() {
        let mut once = Once(Some(seed(1)));
        let mut bytes = [0; 32];
        assert!(once.try_fill_bytes(&mut bytes).is_ok());
        assert!(once.try_fill_bytes(&mut bytes).is_err());
    }
}
