//! A NOR flash in RAM that can lose its power, fail and forget.
//!
//! Writing clears bits and never sets them, a word at a time; a word that is not erased is refused unless it is written to
//! zero, as flash with an error-correcting code does. Power can go in any write of a word and in any erase: that word keeps
//! some of its bits, that sector becomes something between what it was and erased, and nothing works until the
//! [`restart`](SimulatedFlash::restart). What is left is drawn by a seeded generator, so every run can be repeated.
//!
//! No allocation; panics on nothing but its own sizes.

use core::fmt;
use embedded_storage::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash, check_erase, check_read, check_write,
};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Why an operation did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SimulatedError {
    /// The driver would have refused its arguments.
    Arguments(NorFlashErrorKind),
    /// The power is off.
    PowerLost,
    /// The word is not erased.
    NotErased,
    /// The write or erase failed, as it was told to.
    Failed,
}

impl fmt::Display for SimulatedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(kind) => write!(f, "the simulated flash refuses its arguments: {kind}"),
            Self::PowerLost => f.write_str("the simulated flash has lost its power"),
            Self::NotErased => f.write_str("a word of the simulated flash is not erased"),
            Self::Failed => f.write_str("the simulated flash failed, as it was told to"),
        }
    }
}

impl core::error::Error for SimulatedError {}

impl NorFlashError for SimulatedError {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Arguments(kind) => *kind,
            _ => NorFlashErrorKind::Other,
        }
    }
}

impl From<NorFlashErrorKind> for SimulatedError {
    fn from(kind: NorFlashErrorKind) -> Self {
        Self::Arguments(kind)
    }
}

/// What is to go wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The operation, a write of a word or an erase of a sector, in which the power goes; the first one is 0.
    pub cut: Option<u64>,
    /// One in so many writes of a word fails, and leaves that word half written; 0: none.
    pub failing_writes: u32,
    /// In one of so many bytes that are read a bit is flipped; 0: in none.
    pub flipped_reads: u32,
    /// A sector that reports an error at every write and erase.
    pub dead_sector: Option<usize>,
    /// A sector that reports success and does nothing.
    pub deaf_sector: Option<usize>,
    /// Words that are not erased are written all the same, which clears bits.
    pub overwriting: bool,
}

/// `SECTORS` sectors of `SECTOR` bytes that are written in words of `WORD` bytes and read in words of `READ`.
#[derive(Debug, Clone)]
pub struct SimulatedFlash<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize = 1> {
    bytes: [[u8; SECTOR]; SECTORS],
    erases: [u32; SECTORS],
    operations: u64,
    powered: bool,
    rng: Xoshiro128PlusPlus,
    /// What is to go wrong; may be changed at any time.
    pub faults: Faults,
}

impl<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize>
    SimulatedFlash<SECTORS, SECTOR, WORD, READ>
{
    /// An erased flash; `seed` is for what is left to chance.
    pub fn new(seed: u64) -> Self {
        const { assert!(WORD > 0 && READ > 0 && SECTOR.is_multiple_of(WORD) && SECTOR.is_multiple_of(READ)) };
        Self {
            bytes: [[0xff; SECTOR]; SECTORS],
            erases: [0; SECTORS],
            operations: 0,
            powered: true,
            rng: Xoshiro128PlusPlus::seed_from_u64(seed),
            faults: Faults::default(),
        }
    }

    /// The content.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_flattened()
    }

    /// The content, to be damaged.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.as_flattened_mut()
    }

    /// Erases of every sector.
    pub fn erases(&self) -> &[u32; SECTORS] {
        &self.erases
    }

    /// Writes of words and erases of sectors so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// Draws what is left to chance from another seed.
    pub fn reseed(&mut self, seed: u64) {
        self.rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    }

    /// Switches the power on again.
    pub fn restart(&mut self) {
        self.powered = true;
    }

    /// Counts an operation; whether the power goes in it.
    fn operate(&mut self) -> Result<bool, SimulatedError> {
        if !self.powered {
            return Err(SimulatedError::PowerLost);
        }
        let cut = self.faults.cut == Some(self.operations);
        self.operations += 1;
        Ok(cut)
    }

    fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.rng.next_u32().is_multiple_of(n)
    }

    /// The word half written: of the bits that were to be cleared none, all or any are.
    fn tear(&mut self, offset: usize, word: &[u8]) {
        let kind = self.rng.next_u32() % 4;
        for (index, byte) in word.iter().enumerate() {
            let kept = match kind {
                0 => 0xff,
                1 => 0,
                2 => self.rng.next_u32() as u8,
                // Few bits are cleared.
                _ => (self.rng.next_u32() | self.rng.next_u32() | self.rng.next_u32()) as u8,
            };
            if let Some(cell) = self.bytes_mut().get_mut(offset + index) {
                *cell &= byte | kept;
            }
        }
    }

    /// The sector half erased, in one of the ways that differ for whoever reads it.
    fn half_erase(&mut self, sector: usize) {
        let kind = self.rng.next_u32() % 8;
        let edge = self.rng.next_u32() as usize % SECTOR;
        for index in 0..SECTOR {
            let (a, b, c) = (self.rng.next_u32() as u8, self.rng.next_u32() as u8, self.rng.next_u32() as u8);
            let set = match kind {
                0 => 0,
                1 => 0xff,
                2 => a,
                3 => a | b | c,
                4 => a & b & c,
                5 if index < edge => 0xff,
                6 if index >= edge => 0xff,
                // Both ends erased and the middle as it was: looks erased to whoever reads the ends alone.
                7 if index < 2 * WORD || index >= SECTOR - 2 * WORD => 0xff,
                _ => 0,
            };
            if let Some(cell) = self.bytes.get_mut(sector).and_then(|sector| sector.get_mut(index)) {
                *cell |= set;
            }
        }
    }
}

impl<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize> ErrorType
    for SimulatedFlash<SECTORS, SECTOR, WORD, READ>
{
    type Error = SimulatedError;
}

impl<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize> ReadNorFlash
    for SimulatedFlash<SECTORS, SECTOR, WORD, READ>
{
    const READ_SIZE: usize = READ;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SimulatedError> {
        check_read(self, offset, bytes.len())?;
        if !self.powered {
            return Err(SimulatedError::PowerLost);
        }
        for (to, from) in bytes.iter_mut().zip(self.bytes().iter().skip(offset as usize)) {
            *to = *from;
        }
        if self.faults.flipped_reads > 0 {
            for byte in bytes {
                if self.one_in(self.faults.flipped_reads) {
                    *byte ^= 1 << (self.rng.next_u32() % 8);
                }
            }
        }
        Ok(())
    }

    fn capacity(&self) -> usize {
        SECTORS * SECTOR
    }
}

impl<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize> NorFlash
    for SimulatedFlash<SECTORS, SECTOR, WORD, READ>
{
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = SECTOR;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), SimulatedError> {
        check_erase(self, from, to)?;
        for sector in from as usize / SECTOR..to as usize / SECTOR {
            let cut = self.operate()?;
            if let Some(count) = self.erases.get_mut(sector) {
                *count += 1;
            }
            if cut {
                self.half_erase(sector);
                self.powered = false;
                return Err(SimulatedError::PowerLost);
            }
            if self.faults.dead_sector == Some(sector) {
                return Err(SimulatedError::Failed);
            }
            if self.faults.deaf_sector == Some(sector) {
                continue;
            }
            if let Some(bytes) = self.bytes.get_mut(sector) {
                bytes.fill(0xff);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SimulatedError> {
        check_write(self, offset, bytes.len())?;
        for (word, offset) in bytes.chunks_exact(WORD).zip((offset as usize..).step_by(WORD)) {
            let cut = self.operate()?;
            let written = self.bytes().iter().skip(offset).take(WORD).any(|cell| *cell != 0xff);
            if written && word.iter().any(|byte| *byte != 0) && !self.faults.overwriting {
                return Err(SimulatedError::NotErased);
            }
            if cut {
                self.tear(offset, word);
                self.powered = false;
                return Err(SimulatedError::PowerLost);
            }
            let sector = Some(offset / SECTOR);
            if self.faults.dead_sector == sector || self.one_in(self.faults.failing_writes) {
                self.tear(offset, word);
                return Err(SimulatedError::Failed);
            }
            if self.faults.deaf_sector == sector {
                continue;
            }
            for (cell, byte) in self.bytes_mut().iter_mut().skip(offset).zip(word) {
                *cell &= byte;
            }
        }
        Ok(())
    }
}
