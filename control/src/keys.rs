//! X25519 keys as operators handle them: base64, one per file, mode 0600.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

use crate::limits;

/// Why a key cannot be had. The text names the remedy; the caller names the file.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be opened.
    #[error("cannot open {path:?}: {reason}; {remedy}")]
    Open {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Group or others may read it.
    #[error("{path:?} has mode {mode:04o} and must not be open to group or others: chmod 600 it")]
    Mode {
        /// The file.
        path: String,
        /// Its permission bits.
        mode: u32,
    },
    /// Not a regular file.
    #[error("{path:?} is not a regular file: name a key file")]
    NotAFile {
        /// The file.
        path: String,
    },
    /// The text is not a key.
    #[error("{0}")]
    Text(#[from] KeyTextError),
    /// A file's text is not a key.
    #[error("{path:?}: {source}")]
    FileText {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: KeyTextError,
    },
    /// The system's random source failed.
    #[error("the system's random source failed: {0}")]
    Random(String),
}

/// Why a text is not a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyTextError {
    /// Wrong length or alphabet.
    #[error(
        "a key is 32 bytes in base64 (44 characters ending in '='), this has {0} characters: \
         make one with shardgate keygen"
    )]
    Length(usize),
    /// Right length, but not 32 bytes in base64.
    #[error(
        "a key is 32 bytes in base64 (44 characters ending in '='), this is something else: make \
         one with shardgate keygen"
    )]
    Encoding,
    /// All zeros.
    #[error("this key is all zeros, which protects nothing: make one with shardgate keygen")]
    Zero,
}

/// Reads a key from text; white space around it is ignored.
pub fn parse(text: &str) -> Result<Zeroizing<[u8; 32]>, KeyTextError> {
    let text = text.trim();
    if text.len() != 44 {
        return Err(KeyTextError::Length(text.chars().count()));
    }
    let mut bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyTextError::Encoding)?);
    let mut key = Zeroizing::new([0; 32]);
    if bytes.len() != key.len() {
        return Err(KeyTextError::Encoding);
    }
    key.copy_from_slice(&bytes);
    bytes.zeroize();
    if key.iter().all(|&byte| byte == 0) {
        return Err(KeyTextError::Zero);
    }
    Ok(key)
}

/// A key as text, without a line feed.
pub fn to_text(key: &[u8; 32]) -> String {
    STANDARD.encode(key)
}

/// Reads a secret key file, which nobody but its owner may read.
pub fn read_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let name = || path.display().to_string();
    let open_error = |error: std::io::Error, remedy| KeyError::Open {
        path: name(),
        reason: plain(&error),
        remedy,
    };
    let cannot_open = |error: std::io::Error| {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => "run as the file's owner or as root",
            _ => "make one with shardgate keygen --out, or correct the name",
        };
        open_error(error, remedy)
    };
    // Before it is opened: a pipe would be waited for.
    let is_file = std::fs::metadata(path).map_err(cannot_open)?.is_file();
    if !is_file {
        return Err(KeyError::NotAFile { path: name() });
    }
    let file = File::open(path).map_err(cannot_open)?;
    let metadata = file
        .metadata()
        .map_err(|error| open_error(error, "check the file"))?;
    if !metadata.is_file() {
        return Err(KeyError::NotAFile { path: name() });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path: name(), mode });
    }
    let mut text = Zeroizing::new(Vec::new());
    file.take(limits::KEY_FILE_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| open_error(error, "check the file"))?;
    parse_bytes(&text).map_err(|source| KeyError::FileText {
        path: name(),
        source,
    })
}

/// Reads a key from what a file or a pipe holds, of which at most one byte more than
/// [`limits::KEY_FILE_BYTES_MAX`] need be there.
pub fn parse_bytes(bytes: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyTextError> {
    let text = std::str::from_utf8(bytes).map_err(|_| KeyTextError::Encoding)?;
    if bytes.len() as u64 > limits::KEY_FILE_BYTES_MAX {
        return Err(KeyTextError::Length(bytes.len()));
    }
    parse(text)
}

/// Makes a private key, clamped as WireGuard's tools do it.
pub fn generate() -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let mut key = Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut()).map_err(|error| KeyError::Random(error.to_string()))?;
    key[0] &= 248;
    key[31] = (key[31] & 127) | 64;
    Ok(key)
}

/// The public key of a private key.
pub fn public(private: &[u8; 32]) -> [u8; 32] {
    PublicKey::from(&StaticSecret::from(*private)).to_bytes()
}

/// Writes a new private key file with mode 0600; an existing file is left alone.
pub fn write_new(path: &Path, private: &[u8; 32]) -> Result<(), KeyError> {
    let open_error = |error: std::io::Error| KeyError::Open {
        path: path.display().to_string(),
        remedy: if error.kind() == ErrorKind::AlreadyExists {
            "it is left as it is: name another file, or remove it first"
        } else {
            "name a file in a folder that can be written"
        },
        reason: plain(&error),
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(open_error)?;
    // A permissive umask cannot widen 0600, but a strict one could narrow it.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
        .map_err(open_error)?;
    let text = Zeroizing::new(format!("{}\n", to_text(private)));
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(open_error)
}

/// An I/O error without the number that Rust appends.
pub fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_bytes_agree() {
        let key = generate().unwrap();
        assert_eq!(*parse(&to_text(&key)).unwrap(), *key);
        assert_eq!(*parse(&format!("  {}\n", to_text(&key))).unwrap(), *key);
    }

    #[test]
    fn public_keys_are_those_of_rfc_7748() {
        // Section 6.1, Alice.
        let private = [
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2,
            0x66, 0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5,
            0x1d, 0xb9, 0x2c, 0x2a,
        ];
        assert_eq!(
            to_text(&public(&private)),
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
        );
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        assert_eq!(parse("").unwrap_err(), KeyTextError::Length(0));
        assert_eq!(
            parse(&"A".repeat(43)).unwrap_err(),
            KeyTextError::Length(43)
        );
        assert_eq!(parse(&"A".repeat(44)).unwrap_err(), KeyTextError::Encoding);
        assert_eq!(
            parse(&format!("{}=", "!".repeat(43))).unwrap_err(),
            KeyTextError::Encoding
        );
        assert_eq!(
            parse(&format!("{}=", "A".repeat(43))).unwrap_err(),
            KeyTextError::Zero
        );
    }
}
