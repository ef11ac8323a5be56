//! The tools that builds and tests need beside cargo: rustup's targets and components, QEMU's emulators, Debian's
//! packages.
//!
//! Each `ensure_` function looks first and installs only what is missing: targets and components by rustup, the rest by
//! `apt-get` when this user may (root, or `sudo` that asks no password). What it cannot install is one sentence with the
//! command to type. Progress goes to standard error.

use crate::boards::Board;
use crate::cargo;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Debian's packages with the two emulators.
const QEMU_PACKAGES: [&str; 2] = ["qemu-system-arm", "qemu-system-misc"];

/// Installs the missing ones of the boards' targets.
pub fn ensure_targets(root: &Path, boards: &[Board]) -> Result<()> {
    ensure_triples(root, boards.iter().map(|board| board.triple.as_str()))
}

/// Installs the missing ones of some targets.
pub fn ensure_triples<'t>(root: &Path, triples: impl Iterator<Item = &'t str>) -> Result<()> {
    let wanted: BTreeSet<&str> = triples.collect();
    let missing: Vec<&str> = wanted.into_iter().filter(|triple| !has_target(root, triple)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let typed = format!("rustup target add {}", missing.join(" "));
    eprintln!("installing: {typed}");
    let done = cargo::command("rustup", root)
        .args(["target", "add"])
        .args(&missing)
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("rustup is missing: install it, then type `{typed}`"))?;
    if !done.success() {
        bail!("the targets {} are missing and rustup could not install them: type `{typed}`", missing.join(", "));
    }
    Ok(())
}

/// Whether the standard library of `triple` is installed, rustup or not.
fn has_target(root: &Path, triple: &str) -> bool {
    let output = cargo::command(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()), root)
        .args(["--print", "target-libdir", "--target", triple])
        .stderr(Stdio::null())
        .output();
    output.is_ok_and(|output| {
        output.status.success() && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    })
}

/// Installs rustfmt and clippy where they are missing.
pub fn ensure_components(root: &Path) -> Result<()> {
    for (component, verb) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
        let there = cargo::cargo(root)
            .args([verb, "--version"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if there {
            continue;
        }
        eprintln!("installing: rustup component add {component}");
        let done = cargo::command("rustup", root).args(["component", "add", component]).stdout(Stdio::null()).status();
        if !done.is_ok_and(|status| status.success()) {
            bail!("{component} is missing: type `rustup component add {component}`");
        }
    }
    Ok(())
}

/// Installs a nightly toolchain with Miri where there is none.
pub fn ensure_miri(root: &Path) -> Result<()> {
    if answers("rustup", &["run", "nightly", "cargo", "miri", "--version"]) {
        return Ok(());
    }
    let arguments = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src"];
    let typed = format!("rustup {}", arguments.join(" "));
    eprintln!("installing: {typed}");
    let done = cargo::command("rustup", root).args(arguments).stdout(Stdio::null()).status();
    if !done.is_ok_and(|status| status.success()) {
        bail!("Miri is missing and rustup could not install it: type `{typed}`");
    }
    Ok(())
}

/// Installs QEMU where one of the boards' emulators is missing.
pub fn ensure_qemu(boards: &[Board]) -> Result<()> {
    let missing = missing_emulators(boards);
    if missing.is_empty() {
        return Ok(());
    }
    let others = "`dnf install qemu-system-arm qemu-system-riscv`, `brew install qemu`";
    apt_install(&missing.join(" and "), &QEMU_PACKAGES, others)?;
    let missing = missing_emulators(boards);
    if !missing.is_empty() {
        bail!("{} is still missing after {} were installed", missing.join(" and "), QEMU_PACKAGES.join(" and "));
    }
    Ok(())
}

/// Installs the C compiler for bare-metal Arm where it is missing.
pub fn ensure_arm_gcc() -> Result<()> {
    if answers("arm-none-eabi-gcc", &["--version"]) {
        return Ok(());
    }
    let others = "`dnf install arm-none-eabi-gcc-cs`, `brew install arm-none-eabi-gcc`";
    apt_install("arm-none-eabi-gcc", &["gcc-arm-none-eabi"], others)?;
    if !answers("arm-none-eabi-gcc", &["--version"]) {
        bail!("arm-none-eabi-gcc is still missing after gcc-arm-none-eabi was installed");
    }
    Ok(())
}

/// Installs Slurm and munge where something of them is missing.
pub fn ensure_slurm() -> Result<()> {
    // The clients do not even tell their version without a cluster.
    let found = |name: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        daemon(name).is_absolute() || env::split_paths(&path).any(|folder| folder.join(name).is_file())
    };
    let there = || ["sbatch", "squeue", "scancel", "slurmctld", "slurmd", "munged"].into_iter().all(found);
    if there() {
        return Ok(());
    }
    apt_install("Slurm", &["slurm-wlm"], "`dnf install slurm-slurmctld slurm-slurmd munge`")?;
    if !there() {
        bail!("Slurm is still missing after slurm-wlm was installed");
    }
    Ok(())
}

/// Where a daemon is: not every user has the administrators' folder on the PATH.
pub fn daemon(name: &str) -> PathBuf {
    let place = Path::new("/usr/sbin").join(name);
    if place.exists() { place } else { name.into() }
}

/// Installs Debian's `packages` because `missing` is; `others` are the commands of other systems, for the error.
pub fn apt_install(missing: &str, packages: &[&str], others: &str) -> Result<()> {
    let names = packages.join(" ");
    let by_hand = format!("{missing} is missing: type `sudo apt-get install {names}` (other systems: {others})");
    let Some(apt) = apt_get() else { bail!(by_hand) };
    eprintln!("installing: {} install {names}", apt.join(" "));
    // A stale list of packages is the usual cause of a failed installation; a failed update need not be one.
    let _ = quiet(&apt, &["update"]);
    let install: Vec<&str> =
        ["install", "-y", "--no-install-recommends"].into_iter().chain(packages.iter().copied()).collect();
    if !quiet(&apt, &install) {
        bail!("{by_hand}; installing it from here failed");
    }
    Ok(())
}

fn missing_emulators(boards: &[Board]) -> Vec<&str> {
    let wanted: BTreeSet<&str> = boards.iter().map(|board| board.system.as_str()).collect();
    wanted.into_iter().filter(|system| !answers(system, &["--version"])).collect()
}

/// How this user may call `apt-get`, if at all.
fn apt_get() -> Option<Vec<&'static str>> {
    if !answers("apt-get", &["--version"]) {
        return None;
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if root {
        Some(vec!["apt-get"])
    } else if answers("sudo", &["-n", "true"]) {
        Some(vec!["sudo", "-n", "apt-get"])
    } else {
        None
    }
}

fn answers(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs `program arguments` with its chatter thrown away and its errors shown.
fn quiet(program: &[&str], arguments: &[&str]) -> bool {
    Command::new(program[0])
        .args(&program[1..])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
