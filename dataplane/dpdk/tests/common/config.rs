//! How a test starts EAL.

use shardgate_dpdk::EalConfig;

/// Four lcores on whatever CPUs this process may use, ordinary memory, no PCI; no file stays behind.
pub fn eal_config() -> EalConfig {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let cpus = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .expect("the kernel tells the allowed CPUs")
        .trim();
    EalConfig {
        lcores: format!("(0-3)@({cpus})"),
        hugepages: false,
        memory_mb: Some(256),
        file_prefix: format!("shardgate-test-{}", std::process::id()),
        ..EalConfig::default()
    }
}
