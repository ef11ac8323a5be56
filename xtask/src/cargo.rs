//! Cargo and its helpers as child processes.
//!
//! `cargo xtask` itself runs under cargo, which leaves its variables in the environment, and a user may have set flags
//! for some other target. [`command`] clears what would change a nested build and keeps where it may write:
//! `CARGO_TARGET_DIR` is made absolute, because children run in other folders.

use crate::boards::Board;
use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// Variables that change what a build produces.
const CLEARED: [&str; 10] = [
    "RUSTFLAGS",
    "RUSTDOCFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_ENCODED_RUSTDOCFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "DEFMT_LOG",
    "FLOWLET_BOARD",
    "FLOWLET_COMMITTED",
    "FLOWLET_POLICY",
];

/// `program` in `folder`, with an environment fit for a nested build.
pub fn command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder).stdin(Stdio::null());
    for (key, _) in env::vars_os() {
        let Some(key) = key.to_str() else { continue };
        let of_a_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_PACKAGE"]
            .iter()
            .any(|prefix| key.starts_with(prefix));
        let of_a_target = key.starts_with("CARGO_TARGET_") && (key.ends_with("_RUSTFLAGS") || key.ends_with("_RUNNER"));
        if of_a_package || of_a_target || CLEARED.contains(&key) {
            command.env_remove(key);
        }
    }
    if let Some(directory) = target_directory_override() {
        command.env("CARGO_TARGET_DIR", directory);
    }
    command
}

/// Cargo in `folder`: the one that runs us where there is one.
pub fn cargo(folder: &Path) -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()), folder)
}

/// `CARGO_TARGET_DIR`, made absolute.
fn target_directory_override() -> Option<PathBuf> {
    let directory = env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty())?;
    std::path::absolute(directory).ok()
}

/// Where builds of the workspace go: `CARGO_TARGET_DIR` or `target`.
pub fn target_directory(root: &Path) -> PathBuf {
    target_directory_override().unwrap_or_else(|| root.join("target"))
}

/// Where the firmware's builds go: `CARGO_TARGET_DIR` or `firmware/target`.
pub fn firmware_target_directory(root: &Path) -> PathBuf {
    target_directory_override().unwrap_or_else(|| root.join("firmware/target"))
}

/// What a firmware build is built for besides its board.
#[derive(Debug, Clone, Default)]
pub struct Firmware {
    /// The artefact to embed instead of the committed one of the board's number format.
    pub policy: Option<PathBuf>,
    /// These features and no others.
    pub features: Option<&'static str>,
    /// By the profile `small`.
    pub small: bool,
}

impl Firmware {
    /// The profile's name on the command line and in the target directory.
    fn profile(&self) -> &'static str {
        if self.small { "small" } else { "release" }
    }
}

/// Cargo in `firmware/`, set up to build for `board`.
pub fn firmware(root: &Path, board: &Board, verb: &str, firmware: &Firmware) -> Command {
    let mut cargo = cargo(&root.join("firmware"));
    cargo.args([verb, "--profile", firmware.profile(), "--target", &board.triple]).env("FLOWLET_BOARD", &board.name);
    if let Some(features) = firmware.features {
        cargo.args(["--no-default-features", "--features", features]);
    }
    if let Some(cpu) = &board.target_cpu {
        cargo.arg("--config").arg(format!("target.{}.rustflags=['-C', 'target-cpu={cpu}']", board.triple));
    }
    if let Some(policy) = &firmware.policy {
        cargo.env("FLOWLET_POLICY", policy);
    } else {
        // The committed one, whatever was exported since.
        cargo.env("FLOWLET_COMMITTED", "1");
    }
    cargo
}

/// Builds the firmware program `bin` for `board` and returns a copy of its ELF that no other build overwrites.
pub fn build_firmware(root: &Path, board: &Board, bin: &str, options: &Firmware) -> Result<PathBuf> {
    // Boards that share a triple share the place where cargo puts the ELF: build and copy are one step.
    static BUILDING: Mutex<()> = Mutex::new(());
    let _building = BUILDING.lock();
    let target = firmware_target_directory(root);
    let output = firmware(root, board, "build", options).args(["--bin", bin]).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("{bin} does not build for {}:\n{}", board.name, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let built = target.join(&board.triple).join(options.profile()).join(bin);
    let variant = if options.policy.is_some() { "other-policy" } else { "policy" };
    let folder = target.join("qemu").join(&board.name).join(options.profile()).join(variant);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let copy = folder.join(bin);
    fs::copy(&built, &copy).with_context(|| format!("cannot copy {}", built.display()))?;
    Ok(copy)
}
