//! The targets: one folder a board under `firmware/boards/`, described by its `board.toml`.
//!
//! The firmware's build script reads the same files, so QEMU and the firmware cannot disagree about the virtual clock.

use crate::WrongUse;
use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use std::fs;
use std::path::Path;

/// The names of the targets, in the order in which tables list them.
pub const NAMES: [&str; 8] = ["m0", "m3", "m4f", "m7", "m33", "m55", "rv32imac", "rv32imafc"];

/// A machine beside them: the chip of a real board, on which only the program `rig` is tested.
pub const CHIP: &str = "f405";

/// One target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// The folder's name, by which the target is known everywhere.
    #[serde(skip)]
    pub name: String,
    /// Core and machine, for people.
    pub description: String,
    /// Rust's target triple.
    pub triple: String,
    /// `-C target-cpu`, where the triple's default is not what the target means.
    pub target_cpu: Option<String>,
    /// QEMU's system emulator.
    pub system: String,
    /// QEMU's machine.
    pub machine: String,
    /// Clock of the control timer in QEMU.
    pub timer_hz: u32,
    /// An instruction takes 2^icount_shift ns of virtual time.
    pub icount_shift: u32,
    /// Number format of the committed policies that are embedded when none is named: f32 or int8.
    pub format: String,
    /// The serial port: driver, address, interrupt, clock. Only the firmware's build script reads it.
    pub uart: toml::Table,
    /// Memory for hardware in the loop. Only the firmware's build script reads it.
    pub hil: toml::Table,
}

/// Every board, in the order of [`NAMES`].
pub fn all(root: &Path) -> Result<Vec<Board>> {
    NAMES.iter().map(|name| read(root, name)).collect()
}

/// The board called `name`.
pub fn find(root: &Path, name: &str) -> Result<Board> {
    if name != CHIP && !NAMES.contains(&name) {
        return Err(anyhow!(WrongUse(format!(
            "there is no board {name}; the boards are {}, {CHIP}",
            NAMES.join(", ")
        ))));
    }
    read(root, name)
}

/// The boards named in a comma-separated list; all of them without one.
pub fn select(root: &Path, list: &[String]) -> Result<Vec<Board>> {
    if list.is_empty() { all(root) } else { list.iter().map(|name| find(root, name)).collect() }
}

impl Board {
    /// Whether floats are the core's own instructions.
    pub fn has_fpu(&self) -> bool {
        self.triple.ends_with("hf") || self.triple.contains("imafc")
    }
}

fn read(root: &Path, name: &str) -> Result<Board> {
    let path = root.join("firmware/boards").join(name).join("board.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut board: Board = toml::from_str(&text).with_context(|| format!("{} is not a board", path.display()))?;
    board.name = name.to_string();
    Ok(board)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_is_a_board_and_every_board_has_its_memory_map() {
        let root = crate::root();
        let mut folders: Vec<String> = fs::read_dir(root.join("firmware/boards"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        folders.sort();
        let mut names: Vec<String> = NAMES.into_iter().chain([CHIP]).map(String::from).collect();
        names.sort();
        assert_eq!(folders, names);
        for board in all(&root).unwrap().into_iter().chain([find(&root, CHIP).unwrap()]) {
            assert!(root.join("firmware/boards").join(&board.name).join("memory.x").is_file(), "{}", board.name);
        }
    }

    #[test]
    fn an_unknown_board_is_wrong_use_and_the_known_ones_are_listed() {
        let error = find(&crate::root(), "m5").unwrap_err();
        assert!(error.is::<WrongUse>());
        assert!(error.to_string().contains("m0, m3, m4f, m7, m33, m55, rv32imac, rv32imafc"));
    }
}
