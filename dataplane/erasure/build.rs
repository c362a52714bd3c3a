//! Links ISA-L if pkg-config knows it (Debian: libisal-dev) and sets `cfg(isal)`.
//!
//! `LIBISAL_NO_PKG_CONFIG=1` builds without it on a machine that has it.

fn main() {
    println!("cargo:rustc-check-cfg=cfg(isal)");
    println!("cargo:rerun-if-changed=build.rs");
    // 2.30 is the oldest version whose tables and kernels the tests have compared.
    if pkg_config::Config::new()
        .atleast_version("2.30")
        .probe("libisal")
        .is_ok()
    {
        println!("cargo:rustc-cfg=isal");
    }
}
