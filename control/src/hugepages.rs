//! `shardgate hugepages`.

use std::fmt::Write;

use shardgate_hugepages::{HugepageError, Hugepages, parse_size};

use crate::cli::{HugepagesArgs, HugepagesCommand};
use crate::output::{Failure, print};

/// Shows, or reserves.
pub fn hugepages(args: &HugepagesArgs) -> Result<(), Failure> {
    let machine = Hugepages::new();
    match &args.command {
        HugepagesCommand::Status => print(&status(&machine).map_err(failed)?)?,
        HugepagesCommand::Reserve { size, persist } => {
            let bytes = parse_size(size).map_err(failed)?;
            if bytes == 0 {
                return Err(Failure::Wrong(
                    "0 reserves nothing: name an amount such as 512M".into(),
                ));
            }
            let page = machine.default_size().map_err(failed)?;
            let pages = page.pages_for(bytes);
            let pool = machine.reserve(page, pages).map_err(failed)?;
            let mount = machine.mount(page).map_err(failed)?;
            let mut text = format!(
                "{} pages of {page} in the pool, {} of them available, mounted at {}\n",
                pool.total,
                pool.available(),
                mount.dir.display()
            );
            if *persist {
                let unit = machine.persist(page, pages).map_err(failed)?;
                let _ = writeln!(text, "the same at every boot by {}", unit.display());
            }
            print(&text)?
        }
    };
    Ok(())
}

/// What the machine cannot have is the command line's fault; all else is the machine's.
fn failed(error: HugepageError) -> Failure {
    match error {
        HugepageError::TooMuch { .. } | HugepageError::Size { .. } => {
            Failure::Wrong(error.to_string())
        }
        _ => Failure::Failed(error.to_string()),
    }
}

fn status(machine: &Hugepages) -> Result<String, HugepageError> {
    let mut text = format!(
        "{:>10}  {:>8}  {:>8}  {:>9}\n",
        "page size", "total", "free", "available"
    );
    for pool in machine.pools()? {
        let size = pool.size.to_string();
        let _ = writeln!(
            text,
            "{size:>10}  {:>8}  {:>8}  {:>9}",
            pool.total,
            pool.free,
            pool.available()
        );
    }
    let mounts = machine.mounts()?;
    if mounts.is_empty() {
        text.push_str("not mounted; shardgate itself needs no mount\n");
    }
    for mount in mounts {
        let _ = writeln!(text, "mounted at {} ({})", mount.dir.display(), mount.size);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_too_much_is_a_wrong_command_line() {
        let too_much = HugepageError::TooMuch {
            megabytes: 2,
            usable_megabytes: 1,
            margin_megabytes: 1,
        };
        assert_eq!(failed(too_much).exit_code(), 2);
        let short = HugepageError::Fragmented {
            count: 2,
            got: 1,
            kib: 2048,
        };
        assert_eq!(failed(short).exit_code(), 1);
    }
}
