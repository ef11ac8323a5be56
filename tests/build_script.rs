//! Which kernels the build script chooses: one whose instructions a part does not have would stop it with a fault.

#[allow(dead_code)]
#[path = "../build.rs"]
mod build_script;

#[test]
fn a_part_gets_no_kernel_that_it_cannot_run() {
    const PLAIN: &str = "thumbv8m.main-none-eabi";
    const HARD: &str = "thumbv8m.main-none-eabihf";
    for (target, flags, cfgs) in [
        ("x86_64-unknown-linux-gnu", "-C target-cpu=native", ""),
        ("thumbv6m-none-eabi", "", ""),
        ("thumbv7m-none-eabi", "", ""),
        ("thumbv7m-none-eabi", "-C target-cpu=cortex-m3", ""),
        ("thumbv8m.base-none-eabi", "-C target-cpu=cortex-m23", ""),
        ("thumbv7em-none-eabi", "", "dsp"),
        ("thumbv7em-none-eabihf", "-C target-cpu=cortex-m4", "vfp dsp"),
        ("thumbv7em-none-eabihf", "-Ctarget-cpu=cortex-m7", "vfp dsp"),
        // A plain Armv8-M has neither, and neither has a Cortex-M33 that was made without.
        (PLAIN, "", "armv8m"),
        (HARD, "", "armv8m vfp"),
        (HARD, "-C target-cpu=cortex-m33", "armv8m vfp dsp"),
        (HARD, "-C target-cpu=cortex-m33 -C target-feature=-dsp", "armv8m vfp"),
        (HARD, "-C target-feature=+dsp -Ctarget-feature=+strict-align", "armv8m vfp dsp"),
        (HARD, "-C target-feature=+dsp,+strict-align,-dsp", "armv8m vfp"),
        (HARD, "-C target-cpu=cortex-m55 -C target-cpu=cortex-m33", "armv8m vfp dsp"),
        (PLAIN, "-C target-cpu=cortex-m33", "armv8m dsp"),
        // Helium for floats or for integers alone, which implies the DSP extension.
        (HARD, "-C target-cpu=cortex-m55", "armv8m mve"),
        (HARD, "-C target-feature=+mve.fp", "armv8m mve"),
        (PLAIN, "-C target-feature=+mve", "armv8m dsp"),
        (HARD, "-C target-cpu=cortex-m55 -C target-feature=-mve.fp", "armv8m vfp dsp"),
        (HARD, "-C target-cpu=cortex-m55 -C target-feature=-mve", "armv8m vfp dsp"),
        ("riscv32imafc-unknown-none-elf", "", "rvf"),
        ("riscv32gc-unknown-linux-gnu", "", "rvf"),
        ("riscv32imac-unknown-none-elf", "", ""),
        ("riscv32imc-unknown-none-elf", "", ""),
        ("riscv64gc-unknown-linux-gnu", "", ""),
    ] {
        let found = build_script::kernels(target, &flags.split(' ').collect::<Vec<_>>());
        let found: Vec<&str> = found.iter().map(|cfg| cfg.strip_prefix("flowlet_").unwrap()).collect();
        assert_eq!(found.join(" "), cfgs, "{target} {flags}");
    }
}
