//! Finds out whether the multi-buffer library can be built against, and builds the shim over its macros.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(ipsec_mb)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim");
    let is = |variable: &str, value: &str| env::var(variable).is_ok_and(|it| it == value);
    if !is("CARGO_CFG_TARGET_ARCH", "x86_64") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    let found = cc::Build::new().file("shim/probe.c").cargo_warnings(false).try_expand().is_ok();
    // A package brings its files with their old dates, so that they do not show that it has just come.
    let sign = if found { "/usr/include/intel-ipsec-mb.h" } else { "/var/lib/dpkg/status" };
    if Path::new(sign).exists() {
        println!("cargo::rerun-if-changed={sign}");
    }
    if !found {
        return;
    }
    cc::Build::new().file("shim/ipsec_mb.c").std("c11").opt_level(2).compile("ipsec_mb_shim");
    // Static, so that a binary runs where the library is not installed. Its code is selected at run time.
    println!("cargo::rustc-link-lib=static:-bundle=IPSec_MB");
    println!("cargo::rustc-link-search=native=/usr/lib/x86_64-linux-gnu");
    println!("cargo::rustc-cfg=ipsec_mb");
}
