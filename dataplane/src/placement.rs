//! Which lcore does what: a pure function of configuration, CPUs and device limits.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;
use thiserror::Error;

use crate::config::{CryptoPlacement, PipelineSpec, PollMode};

/// Lcore ids end here (`RTE_MAX_LCORE` of Debian's DPDK).
pub const LCORE_MAX: u32 = 127;

/// From this many CPUs on, "auto" gives crypto lcores of their own.
const CPUS_FOR_CRYPTO_LCORES: usize = 4;

/// Crypto lcores when they are asked for but not named: successive shards need two to go to
/// different ones.
const CRYPTO_LCORES_DEFAULT: usize = 2;

/// Pollers that share a CPU starve each other beyond this.
const POLLERS_PER_CPU_MAX: usize = 2;

/// Why lcores cannot be placed as asked. The key that is wrong comes first.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlacementError {
    /// An lcore is used that is not in the list.
    #[error("{key}: lcore {lcore} does not exist; dpdk.lcores has {available}")]
    NoSuchLcore {
        /// The configuration key.
        key: &'static str,
        /// The lcore.
        lcore: u32,
        /// What there is.
        available: String,
    },
    /// An lcore id is beyond what DPDK was built for.
    #[error("{key}: lcore {lcore} does not exist; ids go up to {LCORE_MAX}")]
    LcoreTooHigh {
        /// The configuration key.
        key: &'static str,
        /// The lcore.
        lcore: u32,
    },
    /// An lcore would do two things that are each a full loop.
    #[error("{key}: lcore {lcore} is already {role}; give it another lcore")]
    LcoreTaken {
        /// The configuration key.
        key: &'static str,
        /// The lcore.
        lcore: u32,
        /// What it does already.
        role: &'static str,
    },
    /// A list is empty.
    #[error("{key}: the list is empty; name at least one lcore, or \"auto\"")]
    Empty {
        /// The configuration key.
        key: &'static str,
    },
    /// Crypto lcores are named, but crypto runs on the rx lcores.
    #[error(
        "pipeline.crypto_lcores: crypto = \"inline\" uses none; remove the key, or set crypto = \"lcores\""
    )]
    CryptoLcoresUnused,
    /// The list leaves no lcore to poll crypto rings.
    #[error(
        "pipeline.crypto: \"lcores\" needs an lcore beside control and rx; add one to dpdk.lcores, or set crypto = \"inline\""
    )]
    NoLcoreForCrypto,
}

/// What a port can do, as far as placement minds.
#[derive(Clone, Copy, Debug)]
pub struct PortLimits {
    /// Most rx queues the device opens.
    pub rx_queues_max: usize,
    /// Most tx queues the device opens.
    pub tx_queues_max: usize,
    /// The device spreads flows over all its rx queues, asked for or not, and opens as many rx as
    /// tx queues.
    pub queues_are_paired: bool,
    /// The kernel moves its packets, and needs CPU time for it.
    pub is_kernel_backed: bool,
    /// Whether it is a LAN port.
    pub is_lan: bool,
}

/// Who sends and who receives on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortQueues {
    /// For each rx queue the lcore that polls it.
    pub rx: Vec<u32>,
    /// For each tx queue the lcore that owns it. If that is but one, others send through it.
    pub tx: Vec<u32>,
}

/// Which lcore does what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// The control thread's lcore.
    pub control: u32,
    /// Lcores that poll ports.
    pub rx: Vec<u32>,
    /// Lcores that run crypto units; with none, crypto is inline.
    pub crypto: Vec<u32>,
    /// How lcores wait for work.
    pub poll: PollMode,
    /// Whether lcores outnumber CPUs.
    pub shares_cpus: bool,
    /// EAL's `--lcores` map.
    pub eal_map: String,
    /// Who sends and receives, port by port.
    pub ports: Vec<PortQueues>,
}

impl Placement {
    /// Where crypto units run.
    pub fn crypto_placement(&self) -> CryptoPlacement {
        if self.crypto.is_empty() {
            CryptoPlacement::Inline
        } else {
            CryptoPlacement::Lcores
        }
    }

    /// Gives the ports' queues to lcores.
    pub fn assign_queues(&mut self, ports: &[PortLimits]) {
        self.ports = ports.iter().map(|limits| queues(self, limits)).collect();
    }

    /// The lcores that seal and transmit on WAN ports.
    fn wan_senders(&self) -> BTreeSet<u32> {
        // Rx lcores send the control thread's frames, so they are senders in either placement.
        self.rx.iter().chain(&self.crypto).copied().collect()
    }
}

/// Works out the placement on `cpus` (ids of the CPUs the process may use).
///
/// # Errors
/// [`PlacementError`], which names the key.
pub fn place(
    spec: &PipelineSpec,
    cpus: &[u32],
    ports: &[PortLimits],
) -> Result<Placement, PlacementError> {
    let (control, rx, crypto) = assign(spec, cpus.len())?;
    let pollers = rx.len() + crypto.len();
    let kernel_backed = ports.iter().any(|port| port.is_kernel_backed);
    let poll = spec
        .poll
        .unwrap_or(if pollers > cpus.len() || kernel_backed {
            PollMode::Adaptive
        } else {
            PollMode::Busy
        });
    let mut placement = Placement {
        eal_map: eal_map(control, &rx, &crypto, cpus),
        shares_cpus: pollers + 1 > cpus.len(),
        control,
        rx,
        crypto,
        poll,
        ports: vec![],
    };
    placement.assign_queues(ports);
    Ok(placement)
}

/// Control, rx and crypto lcores.
fn assign(spec: &PipelineSpec, cpus: usize) -> Result<(u32, Vec<u32>, Vec<u32>), PlacementError> {
    const RX: &str = "pipeline.rx_lcores";
    const CRYPTO: &str = "pipeline.crypto_lcores";
    let listed = |key, list: &Option<Vec<u32>>| match list {
        Some(list) if list.is_empty() => Err(PlacementError::Empty { key }),
        Some(list) => match list.iter().find(|&&lcore| lcore > LCORE_MAX) {
            Some(&lcore) => Err(PlacementError::LcoreTooHigh { key, lcore }),
            None => Ok(Some(list.clone())),
        },
        None => Ok(None),
    };
    let lcores = listed("dpdk.lcores", &spec.lcores)?;
    let rx = listed(RX, &spec.rx_lcores)?;
    let crypto = listed(CRYPTO, &spec.crypto_lcores)?;
    if spec.crypto == Some(CryptoPlacement::Inline) && crypto.is_some() {
        return Err(PlacementError::CryptoLcoresUnused);
    }
    for (key, list) in [(RX, &rx), (CRYPTO, &crypto)] {
        let stranger = |lcore: &&u32| lcores.as_ref().is_some_and(|all| !all.contains(lcore));
        if let Some(&lcore) = list.iter().flatten().find(stranger) {
            let available = list_lcores(lcores.as_deref().unwrap_or_default());
            return Err(PlacementError::NoSuchLcore {
                key,
                lcore,
                available,
            });
        }
    }
    let named: BTreeSet<u32> = rx.iter().chain(&crypto).flatten().copied().collect();
    // A single lcore polls; the control thread shares its CPU under an id of its own.
    let alone = lcores.as_ref().is_some_and(|all| all.len() == 1);
    let control = match &lcores {
        Some(all) if !alone => all[0],
        _ => (0..=LCORE_MAX)
            .find(|id| !named.contains(id) && lcores.as_ref().is_none_or(|all| !all.contains(id)))
            .unwrap_or(0),
    };
    let mut taken: Vec<(u32, &'static str)> = vec![(control, "the control lcore")];
    let mut take = |key, lcore: u32, role| match taken.iter().find(|(other, _)| *other == lcore) {
        Some(&(_, role)) => Err(PlacementError::LcoreTaken { key, lcore, role }),
        None => {
            taken.push((lcore, role));
            Ok(())
        }
    };
    for &lcore in rx.iter().flatten() {
        take(RX, lcore, "an rx lcore")?;
    }
    for &lcore in crypto.iter().flatten() {
        take(CRYPTO, lcore, "a crypto lcore")?;
    }
    // What is left to give out: the rest of the list, or as many ids as the CPUs are good for.
    let mut free: Vec<u32> = match &lcores {
        Some(all) => all.clone(),
        None => (0..=LCORE_MAX).collect(),
    };
    free.retain(|lcore| *lcore != control && !named.contains(lcore));
    let mut free = free.into_iter();

    let wants_lcores = match spec.crypto {
        Some(placement) => placement == CryptoPlacement::Lcores,
        None => crypto.is_some() || cpus >= CPUS_FOR_CRYPTO_LCORES,
    };
    let rx = match rx {
        Some(rx) => rx,
        None => {
            let count = if wants_lcores {
                (cpus / 4).max(1)
            } else {
                (cpus / 2).max(1)
            };
            let count = if lcores.is_some() && wants_lcores {
                1
            } else {
                count
            };
            free.by_ref().take(count).collect()
        }
    };
    if rx.is_empty() {
        return Err(PlacementError::Empty { key: RX });
    }
    let crypto = match crypto {
        Some(crypto) => crypto,
        None if wants_lcores => {
            let count = match &lcores {
                Some(_) => usize::MAX,
                None => cpus.saturating_sub(1 + rx.len()).max(CRYPTO_LCORES_DEFAULT),
            };
            free.take(count).collect()
        }
        None => vec![],
    };
    if spec.crypto == Some(CryptoPlacement::Lcores) && crypto.is_empty() {
        return Err(PlacementError::NoLcoreForCrypto);
    }
    let was_asked_for = spec.crypto.is_some() || spec.crypto_lcores.is_some();
    if !was_asked_for && rx.len() + crypto.len() > cpus * POLLERS_PER_CPU_MAX {
        return Ok((control, rx, vec![]));
    }
    Ok((control, rx, crypto))
}

/// Maps logical lcores to CPUs: each its own while there are enough, else all float over all.
fn eal_map(control: u32, rx: &[u32], crypto: &[u32], cpus: &[u32]) -> String {
    let lcores: Vec<u32> = [control].iter().chain(rx).chain(crypto).copied().collect();
    if lcores.len() <= cpus.len() {
        let pinned: Vec<String> = lcores
            .iter()
            .zip(cpus)
            .map(|(lcore, cpu)| format!("{lcore}@{cpu}"))
            .collect();
        return pinned.join(",");
    }
    let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    format!("({})@({})", list(&lcores), list(cpus))
}

/// Gives a port's queues to lcores.
fn queues(placement: &Placement, limits: &PortLimits) -> PortQueues {
    let senders: Vec<u32> = if limits.is_lan {
        placement.rx.clone()
    } else {
        placement.wan_senders().into_iter().collect()
    };
    let mut rx_count = placement.rx.len().min(limits.rx_queues_max).max(1);
    let mut tx_count = senders.len().min(limits.tx_queues_max).max(1);
    if limits.queues_are_paired {
        // Every queue the driver opens receives flows, so every one is polled.
        rx_count = limits.rx_queues_max.max(1);
        tx_count = tx_count.min(rx_count);
    }
    let polled_by = |queue: usize| placement.rx[queue % placement.rx.len()];
    PortQueues {
        rx: (0..rx_count).map(polled_by).collect(),
        tx: if tx_count < senders.len() {
            // One owner. A crypto lcore spares the shards that it seals a hop.
            let crypto = placement.crypto.first().filter(|_| !limits.is_lan);
            vec![crypto.copied().unwrap_or(polled_by(0))]
        } else {
            senders
        },
    }
}

fn list_lcores(lcores: &[u32]) -> String {
    lcores
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let poll = match self.poll {
            PollMode::Busy => "busy",
            PollMode::Adaptive => "adaptive",
        };
        writeln!(f, "lcores  {} (EAL map), polling {poll}", self.eal_map)?;
        writeln!(f, "  {:>3}  control", self.control)?;
        for lcore in &self.rx {
            let crypto = if self.crypto.is_empty() {
                ", crypto unit (inline)"
            } else {
                ""
            };
            writeln!(f, "  {lcore:>3}  rx{crypto}")?;
        }
        for lcore in &self.crypto {
            writeln!(f, "  {lcore:>3}  crypto unit")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> PipelineSpec {
        PipelineSpec {
            lcores: None,
            rx_lcores: None,
            crypto_lcores: None,
            crypto: None,
            poll: None,
            hugepages: true,
            memory_mb: None,
            extra_eal_args: vec![],
        }
    }

    const AF_PACKET: PortLimits = PortLimits {
        rx_queues_max: 1,
        tx_queues_max: 1,
        queues_are_paired: true,
        is_kernel_backed: true,
        is_lan: false,
    };
    const NIC: PortLimits = PortLimits {
        rx_queues_max: 16,
        tx_queues_max: 16,
        queues_are_paired: false,
        is_kernel_backed: false,
        is_lan: false,
    };

    #[test]
    fn two_cpus_poll_inline() {
        let placement = place(&spec(), &[0, 1], &[AF_PACKET]).unwrap();
        assert_eq!(
            (placement.control, &placement.rx[..], &placement.crypto[..]),
            (0, &[1][..], &[][..])
        );
        assert_eq!(placement.eal_map, "0@0,1@1");
        assert_eq!(
            placement.poll,
            PollMode::Adaptive,
            "the kernel needs CPU time too"
        );
        assert_eq!(
            place(&spec(), &[0, 1], &[NIC]).unwrap().poll,
            PollMode::Busy
        );
    }

    #[test]
    fn many_cpus_get_crypto_lcores() {
        let cpus: Vec<u32> = (0..8).collect();
        let placement = place(&spec(), &cpus, &[NIC]).unwrap();
        assert_eq!(placement.rx, [1, 2]);
        assert_eq!(placement.crypto, [3, 4, 5, 6, 7]);
        assert_eq!(placement.ports[0].rx, [1, 2]);
        assert_eq!(placement.ports[0].tx, [1, 2, 3, 4, 5, 6, 7]);
        assert!(!placement.shares_cpus);
    }

    #[test]
    fn lcores_are_logical_and_may_share_cpus() {
        let mut asked = spec();
        asked.lcores = Some(vec![0, 1, 2, 3]);
        asked.crypto = Some(CryptoPlacement::Lcores);
        let placement = place(&asked, &[0, 1], &[AF_PACKET]).unwrap();
        assert_eq!(
            (&placement.rx[..], &placement.crypto[..]),
            (&[1][..], &[2, 3][..])
        );
        assert_eq!(placement.eal_map, "(0,1,2,3)@(0,1)");
        assert_eq!(
            placement.ports[0],
            PortQueues {
                rx: vec![1],
                tx: vec![2]
            }
        );
        assert!(placement.shares_cpus);
    }

    #[test]
    fn one_lcore_is_enough() {
        let mut asked = spec();
        asked.lcores = Some(vec![0]);
        let placement = place(&asked, &[3], &[AF_PACKET]).unwrap();
        assert_eq!((placement.control, &placement.rx[..]), (1, &[0][..]));
        assert_eq!(placement.eal_map, "(1,0)@(3)");
    }

    #[test]
    fn crypto_becomes_inline_when_pollers_crowd_the_cpus() {
        let mut asked = spec();
        asked.rx_lcores = Some((1..=7).collect());
        let placement = place(&asked, &[0, 1, 2, 3], &[NIC]).unwrap();
        assert!(placement.crypto.is_empty());
    }

    #[test]
    fn every_paired_queue_is_polled() {
        let mut asked = spec();
        asked.rx_lcores = Some(vec![1, 2]);
        let paired = PortLimits {
            rx_queues_max: 3,
            tx_queues_max: 3,
            ..AF_PACKET
        };
        let placement = place(&asked, &[0, 1, 2], &[paired]).unwrap();
        assert_eq!(placement.ports[0].rx, [1, 2, 1]);
        assert_eq!(placement.ports[0].tx, [1, 2]);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let error = |change: fn(&mut PipelineSpec)| {
            let mut asked = spec();
            asked.lcores = Some(vec![0, 1, 2]);
            change(&mut asked);
            place(&asked, &[0, 1], &[NIC]).unwrap_err().to_string()
        };
        assert!(error(|s| s.rx_lcores = Some(vec![7])).starts_with("pipeline.rx_lcores: lcore 7"));
        assert!(error(|s| s.rx_lcores = Some(vec![0])).contains("already the control lcore"));
        assert!(error(|s| s.rx_lcores = Some(vec![])).contains("empty"));
        assert!(error(|s| s.lcores = Some(vec![0, 200])).contains("ids go up to 127"));
        assert!(
            error(|s| {
                s.rx_lcores = Some(vec![1]);
                s.crypto_lcores = Some(vec![1]);
            })
            .contains("already an rx lcore")
        );
        assert!(
            error(|s| {
                s.lcores = Some(vec![0, 1]);
                s.crypto = Some(CryptoPlacement::Lcores);
            })
            .contains("pipeline.crypto")
        );
        assert!(
            error(|s| {
                s.crypto = Some(CryptoPlacement::Inline);
                s.crypto_lcores = Some(vec![2]);
            })
            .contains("inline")
        );
    }
}
