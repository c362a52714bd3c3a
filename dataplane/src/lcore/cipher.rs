//! The software crypto unit's cipher: AES-256-GCM by the `aes-gcm` crate, which picks the CPU's
//! AES and carry-less multiplication at run time, whatever the program was built for.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use shardgate_core::seal::Aead;
use shardgate_core::wire::header::{NONCE_LEN, TAG_LEN};

use crate::command::SecretKey;

/// AES-256-GCM with an expanded key; wiped on drop by the crate's `zeroize` feature.
pub struct SoftwareAead(Aes256Gcm);

impl SoftwareAead {
    /// Expands a key.
    pub fn new(key: &SecretKey) -> Self {
        Self(Aes256Gcm::new(key.bytes().into()))
    }
}

impl Aead for SoftwareAead {
    #[inline]
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], data: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        self.0
            .encrypt_inout_detached(nonce.into(), aad, data.into())
            .ok()
            .map(Into::into)
    }

    #[inline]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        core::array::from_fn(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
    }

    /// Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation" (AES-256, AAD).
    #[test]
    fn gcm_vector() {
        let key = SecretKey::new(bytes(
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        ));
        let plaintext: [u8; 60] = bytes(
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
             1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        );
        let ciphertext: [u8; 60] = bytes(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
             8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        );
        let aad: [u8; 20] = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let nonce = bytes("cafebabefacedbaddecaf888");
        let unit = SoftwareAead::new(&key);
        let mut data = plaintext;
        let tag = unit.seal(&nonce, &aad, &mut data).unwrap();
        assert_eq!(data, ciphertext);
        assert_eq!(tag, bytes("76fc6ece0f4e1768cddf8853bb2d551b"));
        assert!(unit.open(&nonce, &aad, &mut data, &tag));
        assert_eq!(data, plaintext);
        let mut forged = ciphertext;
        forged[0] ^= 1;
        assert!(!unit.open(&nonce, &aad, &mut forged, &tag));
    }
}
