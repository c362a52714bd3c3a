//! Finds DPDK through pkg-config, generates the bindings and compiles the shim.

use std::path::{Path, PathBuf};
use std::process::exit;

/// The DPDK libraries whose functions are called, directly or from inlines in the shim. Drivers are
/// not among them: EAL loads every driver in DPDK's plugin folder by itself.
const LIBRARIES: [&str; 6] = [
    "rte_eal",
    "rte_mempool",
    "rte_ring",
    "rte_mbuf",
    "rte_ethdev",
    "rte_cryptodev",
];

/// Everything that may be called without passing through the shim.
const FUNCTIONS: [&str; 44] = [
    "rte_eal_init",
    "rte_eal_cleanup",
    "rte_eal_get_runtime_dir",
    "rte_eal_remote_launch",
    "rte_eal_wait_lcore",
    "rte_eal_hotplug_add",
    "rte_eal_hotplug_remove",
    "rte_get_main_lcore",
    "rte_get_next_lcore",
    "rte_lcore_is_enabled",
    "rte_lcore_to_socket_id",
    "rte_get_tsc_hz",
    "rte_version",
    "rte_strerror",
    "rte_mbuf_dynfield_register",
    "rte_mempool_avail_count",
    "rte_mempool_in_use_count",
    "rte_mempool_free",
    "rte_pktmbuf_pool_create",
    "rte_pktmbuf_pool_create_by_ops",
    "rte_pktmbuf_free_bulk",
    "rte_ring_create",
    "rte_ring_free",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_adjust_nb_rx_tx_desc",
    "rte_eth_rx_queue_setup",
    "rte_eth_tx_queue_setup",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    "rte_eth_dev_set_mtu",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_socket_id",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_promiscuous_get",
    "rte_cryptodev_count",
    "rte_cryptodev_get_dev_id",
    "rte_cryptodev_is_valid_dev",
    "rte_cryptodev_name_get",
    "rte_cryptodev_socket_id",
    "rte_cryptodev_close",
    "rte_cryptodev_stop",
    "shim_.*",
];

/// Names that the safe wrapper compares with or passes on.
const CONSTANTS: [&str; 5] = [
    "SHIM_.*",
    "RTE_MAX_LCORE",
    "RTE_PKTMBUF_HEADROOM",
    "RING_F_S[PC]_.*",
    "SOCKET_ID_ANY",
];

/// Types in the signatures of those functions. What is missing here, `src/lib.rs` declares by hand.
const TYPES: [&str; 4] = [
    "lcore_function_t",
    "rte_ether_addr",
    "rte_mbuf_dynfield",
    "shim_.*",
];

fn main() {
    println!("cargo::rerun-if-changed=shim");

    let dpdk = pkg_config::Config::new()
        .cargo_metadata(false)
        .atleast_version("22.11")
        .probe("libdpdk")
        .unwrap_or_else(|_| {
            fail("libdpdk 22.11 or newer was not found by pkg-config; on Debian: apt-get install libdpdk-dev libclang-dev pkg-config")
        });
    let flags = compiler_flags();
    bindings(&flags);
    shim(&flags);

    for path in &dpdk.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    println!("cargo::metadata=version={}", dpdk.version);
}

/// DPDK's own flags, word for word (`pkg_config::Library` loses `-include` and `-march`), except
/// for the processor: `-march=corei7`, or whatever DPDK was built for, gives way to the oldest
/// level its headers accept, so that the binary runs wherever DPDK's shared libraries do.
fn compiler_flags() -> Vec<String> {
    let pkg_config = std::env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let output = std::process::Command::new(pkg_config)
        .args(["--cflags", "libdpdk"])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .unwrap_or_else(|| fail("pkg-config --cflags libdpdk failed; on Debian: apt-get install libdpdk-dev libclang-dev pkg-config"));
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    let x86 = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let mut flags: Vec<String> = words
        .split_whitespace()
        .filter(|word| !(x86 && word.starts_with("-march=")))
        .map(str::to_owned)
        .collect();
    if x86 {
        flags.push("-march=x86-64-v2".to_owned());
    }
    flags
}

fn bindings(flags: &[String]) {
    check_libclang();
    let mut builder = bindgen::Builder::default()
        .header("shim/shim.h")
        .clang_args(flags)
        .use_core()
        .generate_comments(false)
        .layout_tests(true)
        .rust_edition(bindgen::RustEdition::Edition2024)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .allowlist_recursively(false)
        .formatter(bindgen::Formatter::None);
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    for constant in CONSTANTS {
        builder = builder.allowlist_var(constant);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    let bindings = builder.generate().unwrap_or_else(|error| {
        fail(&format!(
            "bindgen cannot read DPDK's headers (on Debian: apt-get install libclang-dev libdpdk-dev): {}",
            error.to_string().replace('\n', "; ")
        ))
    });
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    if let Err(error) = bindings.write_to_file(out.join("bindings.rs")) {
        fail(&format!("cannot write the bindings: {error}"));
    }
}

/// bindgen loads libclang at run time and panics with a page of text if there is none.
fn check_libclang() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found = std::panic::catch_unwind(bindgen::clang_version).is_ok();
    std::panic::set_hook(hook);
    if !found {
        fail(
            "libclang was not found, and bindgen needs it; on Debian: apt-get install libclang-dev libdpdk-dev (elsewhere: set LIBCLANG_PATH)",
        );
    }
}

fn shim(flags: &[String]) {
    let mut build = cc::Build::new();
    build
        .file(Path::new("shim/shim.c"))
        .std("gnu11")
        .warnings(true)
        .extra_warnings(true);
    // DPDK's headers do pointer arithmetic that -Wextra dislikes; the shim itself is clean.
    build.flag("-Wno-unused-parameter");
    for flag in flags {
        build.flag(flag);
    }
    if let Err(error) = build.try_compile("shardgate_dpdk_shim") {
        fail(&format!(
            "the C shim does not compile (on Debian: apt-get install gcc libdpdk-dev): {error}"
        ));
    }
}

/// Ends the build with one line: after an orderly exit cargo prints this error, and not all output.
fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    exit(0)
}
