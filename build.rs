//! Says which kernels of `src/net/kernel` the target runs: its instructions decide, and stable Rust does not tell them.
//!
//! * `flowlet_armv8m`: Armv8-M with its main extension.
//! * `flowlet_dsp`: Armv7E-M, or Armv8-M with the DSP extension, so that `SMLAD` is there.
//! * `flowlet_mve`: Armv8.1-M with Helium.
//! * `flowlet_vfp`: Arm's M profile with a floating-point unit and without Helium; the ABI tells that there is one.
//! * `flowlet_rvf`: RV32 with the F extension.
//!
//! The triple tells Armv7E-M from Armv7-M; on Armv8-M the extensions depend on `-C target-cpu` and `-C target-feature`. Other
//! targets run portable code, as does a CPU that is not listed here.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(flowlet_armv8m, flowlet_dsp, flowlet_mve, flowlet_rvf, flowlet_vfp)");
    let target = env::var("TARGET").unwrap_or_default();
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    // Flags come as `-C`, `target-cpu=..` or in one piece; the last CPU counts.
    let setting = |key: &str| {
        flags.split('\u{1f}').filter_map(|flag| flag.trim_start_matches("-C").strip_prefix(key)).next_back()
    };
    let cpu = setting("target-cpu=").unwrap_or("");
    let has = |feature: &str| {
        let wanted = setting("target-feature=").unwrap_or("").split(',');
        wanted.filter_map(|f| f.strip_prefix('+')).any(|f| f == feature)
    };
    // The letters of `riscv32imafc`; G stands for IMAFD.
    let extensions = target.strip_prefix("riscv32").and_then(|rest| rest.split('-').next()).unwrap_or("");
    if extensions.contains(['f', 'g']) {
        println!("cargo::rustc-cfg=flowlet_rvf");
    }
    let armv8m = target.starts_with("thumbv8m.main");
    if armv8m {
        println!("cargo::rustc-cfg=flowlet_armv8m");
    }
    if armv8m && (["cortex-m55", "cortex-m85", "cortex-m52"].contains(&cpu) || has("mve") || has("mve.fp")) {
        println!("cargo::rustc-cfg=flowlet_mve");
        return;
    }
    if target.starts_with("thumb") && target.ends_with("eabihf") {
        println!("cargo::rustc-cfg=flowlet_vfp");
    }
    if target.starts_with("thumbv7em") || armv8m && (["cortex-m33", "cortex-m35p"].contains(&cpu) || has("dsp")) {
        println!("cargo::rustc-cfg=flowlet_dsp");
    }
}
