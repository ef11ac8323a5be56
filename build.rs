//! Says which kernels of `src/net/kernel` the target runs: its instructions decide, and stable Rust does not tell them.
//!
//! * `flowlet_armv8m`: Armv8-M with its main extension.
//! * `flowlet_dsp`: Armv7E-M, or Armv8-M with the DSP extension, so that `SMLAD` is there.
//! * `flowlet_mve`: Armv8.1-M with Helium for integers and floats. With Helium for integers alone, `flowlet_dsp`, which it implies.
//! * `flowlet_vfp`: Arm's M profile with a floating-point unit and without Helium; the ABI tells that there is one.
//! * `flowlet_rvf`: RV32 with the F extension.
//!
//! The triple tells Armv7E-M from Armv7-M; on Armv8-M the extensions depend on `-C target-cpu` and `-C target-feature`. Other
//! targets run portable code, as does a CPU that is not listed here.
//! A part without an extension that its CPU usually has says so, as `-C target-feature=-dsp`.

use std::env;

const CFGS: &str = "flowlet_armv8m, flowlet_dsp, flowlet_mve, flowlet_rvf, flowlet_vfp";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg({CFGS})");
    let target = env::var("TARGET").unwrap_or_default();
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    for cfg in kernels(&target, &flags.split('\u{1f}').collect::<Vec<_>>()) {
        println!("cargo::rustc-cfg={cfg}");
    }
}

/// The cfgs of a target that is built with these flags of rustc.
pub(crate) fn kernels(target: &str, flags: &[&str]) -> Vec<&'static str> {
    // Flags come as `-C`, `target-cpu=..` or in one piece; the last CPU counts, and the last word on a feature.
    let settings =
        |key: &'static str| flags.iter().filter_map(move |flag| flag.trim_start_matches("-C").strip_prefix(key));
    let cpu = settings("target-cpu=").next_back().unwrap_or("");
    let feature = |name: &str| {
        let mut words = settings("target-feature=").flat_map(|list| list.split(','));
        words.rfind(|word| word.get(1..) == Some(name)).map(|word| word.starts_with('+'))
    };
    let mut cfgs = Vec::new();
    // The letters of `riscv32imafc`; G stands for IMAFD.
    let extensions = target.strip_prefix("riscv32").and_then(|rest| rest.split('-').next()).unwrap_or("");
    if extensions.contains(['f', 'g']) {
        cfgs.push("flowlet_rvf");
    }
    let armv8m = target.starts_with("thumbv8m.main");
    if armv8m {
        cfgs.push("flowlet_armv8m");
    }
    let helium = ["cortex-m52", "cortex-m55", "cortex-m85"].contains(&cpu);
    let integers = feature("mve").unwrap_or(helium || feature("mve.fp") == Some(true));
    if armv8m && integers && feature("mve.fp").unwrap_or(helium) {
        cfgs.push("flowlet_mve");
        return cfgs;
    }
    if target.starts_with("thumb") && target.ends_with("eabihf") {
        cfgs.push("flowlet_vfp");
    }
    let usual = helium || integers || ["cortex-m33", "cortex-m35p"].contains(&cpu);
    if target.starts_with("thumbv7em") || armv8m && feature("dsp").unwrap_or(usual) {
        cfgs.push("flowlet_dsp");
    }
    cfgs
}
