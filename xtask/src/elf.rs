//! What a firmware ELF says of itself: flash and static RAM by its sections, and the board it was built for.
//!
//! Flash is what must be programmed: every allocated section with contents, initial values of `.data` included. Static
//! RAM is every allocated writable section; stack and heap are what is left and are no part of it. And of an interrupt
//! handler: that it uses no floating-point register, so that the core need not save them for it.

use anyhow::{Context, Result, ensure};
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

/// Checks that the Thumb function `name` has no floating-point instruction and calls nothing that could have one.
pub fn integers_only(path: &Path, name: &str) -> Result<()> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(&*bytes).with_context(|| format!("{} is no ELF file", path.display()))?;
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name) && symbol.size() > 0);
    let symbol = symbol.with_context(|| format!("{} has no {name}", path.display()))?;
    // The lowest bit says Thumb. Constants behind the code begin at a symbol `$d`.
    let start = symbol.address() & !1;
    let constants = file.symbols().filter(|other| other.name().is_ok_and(|name| name.starts_with("$d")));
    let constants = constants.map(|other| other.address()).filter(|at| *at > start).min().unwrap_or(u64::MAX);
    let length = symbol.size().min(constants - start);
    let code = file.sections().find_map(|section| section.data_range(start, length).ok().flatten());
    let code = code.filter(|code| !code.is_empty()).with_context(|| format!("{name} has no code"))?;
    let (floats, calls) = floats_and_calls(code);
    ensure!(
        (floats, calls) == (0, 0),
        "{name} has {floats} floating-point instructions and {calls} calls: an interrupt handler handles integers alone"
    );
    Ok(())
}

/// How many instructions of Thumb code belong to the floating-point unit or Helium (coprocessors 8 to 11), and how many are
/// calls.
fn floats_and_calls(code: &[u8]) -> (usize, usize) {
    let mut halves = code.as_chunks::<2>().0.iter().map(|half| u16::from_le_bytes(*half));
    let (mut floats, mut calls) = (0, 0);
    while let Some(first) = halves.next() {
        // BLX of a register; an instruction of two halves begins with 0b11101, 0b11110 or 0b11111.
        calls += usize::from(first & 0xff87 == 0x4780);
        if first < 0xe800 {
            continue;
        }
        let second = halves.next().unwrap_or(0);
        floats += usize::from(first & 0xec00 == 0xec00 && second >> 8 & 0xc == 0x8);
        // BL.
        calls += usize::from(first & 0xf800 == 0xf000 && second & 0xd000 == 0xd000);
    }
    (floats, calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The encodings are the assembler's.
    #[test]
    fn floats_and_calls_are_told_from_integers() {
        let count = |halves: &[u16]| floats_and_calls(&halves.iter().flat_map(|h| h.to_le_bytes()).collect::<Vec<_>>());
        // push {r7, lr}; ldr.w r0, [r1, #4]; mul r0, r1, r2; umull r0, r1, r2, r3; dmb; bx lr
        assert_eq!(count(&[0xb580, 0xf8d1, 0x0004, 0xfb01, 0xf002, 0xfba2, 0x0103, 0xf3bf, 0x8f5f, 0x4770]), (0, 0));
        // vldr s0, [r0]; vadd.f32 s0, s0, s1; vmrs; vpush {d8}; vmov r0, s0
        for float in [[0xed90, 0x0a00], [0xee30, 0x0a20], [0xeef1, 0xfa10], [0xed2d, 0x8b02], [0xee10, 0x0a10]] {
            assert_eq!(count(&[0xbf00, float[0], float[1], 0x4770]), (1, 0), "{float:x?}");
        }
        // bl; blx r3
        assert_eq!(count(&[0xf000, 0xf801, 0x4798]), (0, 2));
    }
}
