//! The images of real boards: one folder each under `boards/`, built by cargo alone, with the sizes they take.
//!
//! Nothing here runs an image: no board is connected. What an image is made of besides its chip's peripherals is run in
//! QEMU by the firmware's program `rig`. Of each image with a floating-point unit the interrupt handler is read: integers
//! only, and no calls.

use crate::{cargo, elf, tools};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The boards' folders, and the target that each one's `.cargo/config.toml` names.
pub const IMAGES: [(&str, &str); 5] = [
    ("stm32f405", "thumbv7em-none-eabihf"),
    ("stm32g491", "thumbv7em-none-eabihf"),
    ("nrf52840", "thumbv7em-none-eabihf"),
    ("rp2350", "thumbv8m.main-none-eabihf"),
    ("esp32c6", "riscv32imac-unknown-none-elf"),
];

/// `cargo xtask boards`.
#[derive(clap::Args)]
pub struct Options {
    /// Print one JSON object as the last line
    #[arg(long)]
    json: bool,
}

/// What an image takes.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The board's folder.
    pub board: &'static str,
    /// Rust's target.
    pub target: &'static str,
    /// Bytes of flash, the policy included.
    pub flash: u64,
    /// Bytes of static data; the stack comes on top.
    pub ram: u64,
    /// Where the image is.
    pub elf: PathBuf,
}

/// Builds all images and prints their sizes.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    tools::ensure_triples(root, IMAGES.iter().map(|(_, triple)| *triple))?;
    let rows = IMAGES.iter().map(|image| build(root, *image)).collect::<Result<Vec<Row>>>()?;
    println!("{:<10} {:<30} {:>8} {:>6}  image", "board", "target", "flash", "RAM");
    for row in &rows {
        println!("{:<10} {:<30} {:>8} {:>6}  {}", row.board, row.target, row.flash, row.ram, row.elf.display());
    }
    println!("bytes; the policy is part of the flash, the stack is no part of the RAM. Built, not run on a board.");
    if options.json {
        println!("{}", serde_json::json!({ "rows": rows }));
    }
    Ok(0)
}

/// Builds the image of one board.
pub fn build(root: &Path, (board, target): (&'static str, &'static str)) -> Result<Row> {
    eprintln!("... {board}");
    let output = cargo(root, board).args(["build", "--release"]).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the image for {board} does not build:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let elf = cargo::firmware_target_directory(root).join(target).join("release").join(format!("furuta-{board}"));
    // The only handler on every Cortex-M here; the ESP32-C6 has no floating-point registers to save.
    if target.starts_with("thumb") {
        elf::integers_only(&elf, "SysTick").with_context(|| format!("the image for {board}"))?;
    }
    let sizes = elf::sizes(&elf)?;
    Ok(Row { board, target, flash: sizes.flash, ram: sizes.ram, elf })
}

/// Cargo in the folder of `board`, whose configuration chooses the target; it builds beside the firmware, with which the
/// images have half of their dependencies in common.
pub fn cargo(root: &Path, board: &str) -> Command {
    let mut cargo = cargo::cargo(&root.join("boards").join(board));
    cargo.env("CARGO_TARGET_DIR", cargo::firmware_target_directory(root));
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_folder_is_an_image_with_its_target_and_instructions() {
        let boards = crate::root().join("boards");
        let mut folders: Vec<String> = fs::read_dir(&boards)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().join(".cargo").is_dir())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        folders.sort();
        let mut names = IMAGES.map(|(board, _)| board.to_string()).to_vec();
        names.sort();
        assert_eq!(folders, names);
        for (board, target) in IMAGES {
            let config = fs::read_to_string(boards.join(board).join(".cargo/config.toml")).unwrap();
            assert!(config.contains(&format!("target = \"{target}\"")), "{board}");
            let readme = fs::read_to_string(boards.join(board).join("README.md")).unwrap();
            for part in ["It builds and has not been run", "## Wiring", "## Flash"] {
                assert!(readme.contains(part), "{board} has no `{part}`");
            }
        }
    }
}
