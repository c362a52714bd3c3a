//! `shardgate stats`: reads the endpoint and shows it.

use std::fmt;
use std::io::{self, IsTerminal};
use std::net::ToSocketAddrs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::document::SCHEMA_VERSION;
use super::{client, table};
use crate::cli::StatsArgs;
use crate::config::{self, Listen};
use crate::limits::{STATS_ADDRESSES_MAX, STATS_TIMEOUT};
use crate::output::{Failure, print};

/// Time between two looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Moves the cursor to the top left corner and clears the screen (ECMA-48).
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// Characters that are shown of an answer that is no document.
const SHOWN_MAX: usize = 80;

/// One look, or one every second until nobody reads any more.
pub fn stats(args: &StatsArgs) -> Result<(), Failure> {
    let endpoint = Endpoint::named(args)?;
    let answer = endpoint.fetch()?;
    if args.json {
        endpoint.document(&answer)?;
        print(&format!("{}\n", answer.trim_end()))?;
        return Ok(());
    }
    let mut last = endpoint.readable(&answer)?;
    print(&table::table(&last, None))?;
    if !args.watch {
        return Ok(());
    }
    loop {
        thread::sleep(WATCH_INTERVAL);
        let next = endpoint.readable(&endpoint.fetch()?)?;
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

/// Where the stats are to be had.
struct Endpoint {
    /// As it was given.
    name: String,
    /// What the name stands for; the first that answers counts.
    addresses: Vec<Listen>,
}

impl Endpoint {
    fn named(args: &StatsArgs) -> Result<Self, Failure> {
        let at = |address: Listen| Self {
            name: address.to_string(),
            addresses: vec![address],
        };
        if let Some(file) = &args.config {
            return Ok(at(config::stats_listen(&config::read(Path::new(file))?)?));
        }
        let text = args.url.as_deref().unwrap_or(Listen::DEFAULT);
        let text = text.strip_prefix("http://").unwrap_or(text);
        let text = text
            .strip_suffix("/stats")
            .unwrap_or(text)
            .trim_end_matches('/');
        match Listen::parse(text) {
            Ok(address) => Ok(at(address)),
            Err(_) if is_host_and_port(text) => Ok(Self {
                name: text.into(),
                addresses: resolve(text)?,
            }),
            Err(message) => Err(Failure::Wrong(format!("--url: {message}"))),
        }
    }

    fn fetch(&self) -> Result<String, Failure> {
        let mut answer = Err(io::Error::from(io::ErrorKind::AddrNotAvailable));
        for address in &self.addresses {
            answer = client::get(address, "/stats");
            if answer.is_ok() {
                break;
            }
        }
        let (status, body) = answer.map_err(|error| {
            let reason = crate::keys::plain(&error);
            self.failed(format_args!(
                "{reason}: is the gateway running, and in this network namespace?"
            ))
        })?;
        let remedy = match status {
            200 => return Ok(body),
            503 => "is it starting? Try once more",
            _ => "is that another program? Give the address of the gateway's stats.listen",
        };
        Err(self.failed(format_args!(
            "answered {status}: {}: {remedy}",
            start(&body)
        )))
    }

    /// The answer, if it is a document of any version.
    fn document(&self, answer: &str) -> Result<Value, Failure> {
        serde_json::from_str(answer)
            .ok()
            .filter(|document| version(document).is_some())
            .ok_or_else(|| {
                self.failed(format_args!(
                    "{:?} is no stats document: give the address of the gateway's stats.listen",
                    start(answer)
                ))
            })
    }

    /// The answer, if it is a document that a table can be made of.
    fn readable(&self, answer: &str) -> Result<Value, Failure> {
        let document = self.document(answer)?;
        match version(&document) {
            Some(other) if other != u64::from(SCHEMA_VERSION) => Err(self.failed(format_args!(
                "the document has schema_version {other}, and this program shows {SCHEMA_VERSION}: \
                 use --json, or the gateway's own program"
            ))),
            _ => Ok(document),
        }
    }

    fn failed(&self, what: fmt::Arguments<'_>) -> Failure {
        Failure::Failed(format!("{}: {what}", self.name))
    }
}

fn version(document: &Value) -> Option<u64> {
    document.get("schema_version")?.as_u64()
}

/// The beginning of a text, without what would disturb a line.
fn start(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    line.chars().take(SHOWN_MAX).collect()
}

/// Whether it is a name with a port, of the characters that host names have.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !host.is_empty() && host.chars().all(good) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// The addresses of `host:port`. The system's resolver has no bound of its own, so it works on a
/// thread, which ends with the program.
fn resolve(name: &str) -> Result<Vec<Listen>, Failure> {
    let (tell, told) = mpsc::sync_channel(1);
    let asked = name.to_owned();
    thread::spawn(move || {
        let found = asked.to_socket_addrs().map(Vec::from_iter);
        // Nobody waits any more: too late.
        let _ = tell.send(found);
    });
    let reason = match told.recv_timeout(STATS_TIMEOUT) {
        Ok(Ok(addresses)) if !addresses.is_empty() => {
            let addresses = addresses.into_iter().take(STATS_ADDRESSES_MAX);
            return Ok(addresses.map(Listen::Tcp).collect());
        }
        Ok(Ok(_)) => "it has no address".into(),
        Ok(Err(error)) => crate::keys::plain(&error),
        Err(_) => "nobody knew its address in time".into(),
    };
    Err(Failure::Failed(format!(
        "{name}: {reason}: write an address, as 127.0.0.1:9460"
    )))
}
