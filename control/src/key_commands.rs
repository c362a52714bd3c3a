//! `shardgate keygen` and `shardgate pubkey`.

use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use crate::cli::{KeygenArgs, PubkeyArgs};
use crate::output::{Failure, print};
use crate::{keys, limits};

/// Makes a private key: prints it, or writes it to a new file and prints its public key.
pub fn keygen(args: &KeygenArgs) -> Result<(), Failure> {
    let failed = |error: keys::KeyError| Failure::Failed(error.to_string());
    if args.out.is_none() && stdout_is_null() {
        return Err(lost());
    }
    let key = keys::generate().map_err(failed)?;
    if let Some(file) = &args.out {
        keys::write_new(file, &key).map_err(failed)?;
        print(&format!("{}\n", keys::to_text(&keys::public(&key))))?;
        return Ok(());
    }
    // Elsewhere a reader that goes away has what it wanted; here the only copy would be gone.
    let text = Zeroizing::new(format!("{}\n", keys::to_text(&key)));
    if print(&text)? { Ok(()) } else { Err(lost()) }
}

fn lost() -> Failure {
    Failure::Failed(
        "standard output: nobody reads it, and the key would be lost: use keygen --out FILE".into(),
    )
}

/// Whether stdout leads nowhere. One that was closed is `/dev/null` too: Rust's runtime opens that
/// in its place.
fn stdout_is_null() -> bool {
    std::fs::read_link("/proc/self/fd/1").is_ok_and(|target| target == Path::new("/dev/null"))
}

/// Prints the public key of a private key file, or of the key on standard input.
pub fn pubkey(args: &PubkeyArgs) -> Result<(), Failure> {
    let key = match &args.file {
        Some(file) => keys::read_secret(file).map_err(|error| Failure::Wrong(error.to_string()))?,
        None => {
            let mut text = Zeroizing::new(Vec::new());
            std::io::stdin()
                .lock()
                .take(limits::KEY_FILE_BYTES_MAX + 1)
                .read_to_end(&mut text)
                .map_err(|error| {
                    Failure::Failed(format!("standard input: {}", keys::plain(&error)))
                })?;
            keys::parse_bytes(&text)
                .map_err(|error| Failure::Wrong(format!("standard input: {error}")))?
        }
    };
    print(&format!("{}\n", keys::to_text(&keys::public(&key))))?;
    Ok(())
}
