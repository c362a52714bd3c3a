//! `shardgate stats`: reads the endpoint and shows it.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::{client, table};
use crate::cli::StatsArgs;
use crate::config::{self, Listen};
use crate::output::{Failure, print};

/// Time between two looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Moves the cursor to the top left corner and clears the screen (ECMA-48).
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// One look, or one every second until nobody reads any more.
pub fn stats(args: &StatsArgs) -> Result<(), Failure> {
    let address = address(args)?;
    let document = fetch(&address)?;
    if args.json {
        print(&format!("{}\n", document.trim_end()))?;
        return Ok(());
    }
    let mut last = parse(&document, &address)?;
    print(&table::table(&last, None))?;
    if !args.watch {
        return Ok(());
    }
    loop {
        std::thread::sleep(WATCH_INTERVAL);
        let next = parse(&fetch(&address)?, &address)?;
        let screen = if io::stdout().is_terminal() {
            CLEAR_SCREEN
        } else {
            "\n"
        };
        let still_read = print(&format!("{screen}{}", table::table(&next, Some(&last))))?;
        if !still_read {
            return Ok(());
        }
        last = next;
    }
}

fn address(args: &StatsArgs) -> Result<Listen, Failure> {
    if let Some(file) = &args.config {
        return Ok(config::stats_listen(&config::read(Path::new(file))?)?);
    }
    let text = args.url.as_deref().unwrap_or(Listen::DEFAULT);
    let text = text.strip_prefix("http://").unwrap_or(text);
    let text = text
        .strip_suffix("/stats")
        .unwrap_or(text)
        .trim_end_matches('/');
    Listen::parse(text).map_err(|message| Failure::Wrong(format!("--url: {message}")))
}

fn fetch(address: &Listen) -> Result<String, Failure> {
    let failed = |error: io::Error| {
        let reason = crate::keys::plain(&error);
        Failure::Failed(format!(
            "{address}: {reason}: is the gateway running, and in this network namespace?"
        ))
    };
    let (status, body) = client::get(address, "/stats").map_err(failed)?;
    if status == 200 {
        Ok(body)
    } else {
        Err(Failure::Failed(format!(
            "{address}: answered {status}: {}",
            body.trim()
        )))
    }
}

fn parse(document: &str, address: &Listen) -> Result<Value, Failure> {
    serde_json::from_str(document)
        .map_err(|error| Failure::Failed(format!("{address}: not a stats document: {error}")))
}
