//! The cipher of tests and benchmarks: AES-256-GCM by the `aes-gcm` crate, as the units have it.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use shardgate_core::seal::Aead;
use shardgate_core::wire::header::{NONCE_LEN, TAG_LEN};

/// AES-256-GCM under a key of equal bytes.
pub struct TestAead(Aes256Gcm);

impl TestAead {
    pub fn new(key: u8) -> Self {
        Self(Aes256Gcm::new(&[key; 32].into()))
    }
}

impl Aead for TestAead {
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
