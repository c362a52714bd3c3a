//! `shardgate keygen` and `shardgate pubkey`.

use std::io::Read;

use zeroize::Zeroizing;

use crate::cli::{KeygenArgs, PubkeyArgs};
use crate::output::{Failure, print};
use crate::{keys, limits};

/// Makes a private key, and prints it or writes it to a new file.
pub fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    let key = keys::generate().map_err(|error| Failure::Failed(error.to_string()))?;
    match &args.out {
        Some(file) => {
            keys::write_new(file, &key).map_err(|error| Failure::Failed(error.to_string()))
        }
        None => print(&Zeroizing::new(format!("{}\n", keys::to_text(&key)))).map(|_| ()),
    }
}

/// Prints the public key of a private key file, or of the key on standard input.
pub fn pubkey(args: &PubkeyArgs) -> Result<(), Failure> {
    let key = match &args.file {
        Some(file) => keys::read_secret(file).map_err(|error| Failure::Wrong(error.to_string()))?,
        None => {
            let mut text = Zeroizing::new(String::new());
            std::io::stdin()
                .lock()
                .take(limits::KEY_FILE_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(|error| Failure::Failed(format!("standard input: {error}")))?;
            keys::parse(&text)
                .map_err(|error| Failure::Wrong(format!("standard input: {error}")))?
        }
    };
    print(&format!("{}\n", keys::to_text(&keys::public(&key))))?;
    Ok(())
}
