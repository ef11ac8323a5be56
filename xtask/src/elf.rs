//! What a firmware ELF says of itself: flash and static RAM by its sections, and the board it was built for.
//!
//! Flash is what must be programmed: every allocated section with contents, initial values of `.data` included. Static
//! RAM is every allocated writable section; stack and heap are what is left and are no part of it.

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SectionFlags, elf};
use std::fs;
use std::path::Path;

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes to program.
    pub flash: u64,
    /// Bytes of static data.
    pub ram: u64,
}

/// The sizes of the ELF file at `path`.
pub fn sizes(path: &Path) -> Result<Sizes> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is no ELF file", path.display()))?;
    let mut sizes = Sizes { flash: 0, ram: 0 };
    for section in file.sections() {
        let SectionFlags::Elf { sh_flags } = section.flags() else {
            continue;
        };
        // riscv-rt gives the room left over for the stack a section of its own.
        let left_over = matches!(section.name(), Ok(".stack" | ".heap"));
        if sh_flags & u64::from(elf::SHF_ALLOC) == 0 || left_over {
            continue;
        }
        if section.kind() != object::SectionKind::UninitializedData {
            sizes.flash += section.size();
        }
        if sh_flags & u64::from(elf::SHF_WRITE) != 0 {
            sizes.ram += section.size();
        }
    }
    Ok(sizes)
}

/// The board that the firmware was linked for; its build script leaves the name in a symbol.
pub fn board(bytes: &[u8]) -> Option<String> {
    let file = object::File::parse(bytes).ok()?;
    file.symbols().find_map(|symbol| Some(symbol.name().ok()?.strip_prefix("flowlet_board_")?.to_string()))
}
