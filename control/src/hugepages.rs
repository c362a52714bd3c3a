//! `shardgate hugepages`.

use std::fmt::Write;

use shardgate_hugepages::{Hugepages, parse_size};

use crate::cli::{HugepagesArgs, HugepagesCommand};
use crate::output::{Failure, print};

/// Shows, or reserves.
pub fn hugepages(args: &HugepagesArgs) -> Result<(), Failure> {
    let failed = |error: shardgate_hugepages::HugepageError| Failure::Failed(error.to_string());
    let machine = Hugepages::new();
    match &args.command {
        HugepagesCommand::Status => print(&status(&machine).map_err(failed)?)?,
        HugepagesCommand::Reserve { size, persist } => {
            let bytes = parse_size(size).map_err(|error| Failure::Wrong(error.to_string()))?;
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

fn status(machine: &Hugepages) -> Result<String, shardgate_hugepages::HugepageError> {
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
