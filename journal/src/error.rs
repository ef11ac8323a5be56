//! What can go wrong, in sentences.

use core::fmt;
use embedded_storage::nor_flash::{NorFlashError, NorFlashErrorKind};

/// Why a range of flash cannot hold a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RangeError {
    /// Its start or end is not at the edge of a sector.
    NotAligned {
        /// Bytes of a sector.
        sector: usize,
    },
    /// It ends before it starts or beyond the flash.
    Outside {
        /// Bytes of the flash.
        flash: usize,
    },
    /// It has fewer sectors than states of that size need.
    TooSmall {
        /// Sectors that they need.
        needed: usize,
        /// Sectors of the range.
        given: usize,
    },
    /// States of that size have more chunks than a record can count.
    StateTooLarge {
        /// The largest size.
        most: usize,
    },
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAligned { sector } => {
                write!(f, "the journal's range must start and end at the edge of a sector of {sector} bytes")
            }
            Self::Outside { flash } => write!(f, "the journal's range must lie in the {flash} bytes of the flash"),
            Self::TooSmall { needed, given } => {
                write!(f, "states of this size need {needed} sectors, the journal's range has {given}")
            }
            Self::StateTooLarge { most } => {
                write!(f, "a journal with pages of this size stores states of at most {most} bytes")
            }
        }
    }
}

impl core::error::Error for RangeError {}

/// What flash did wrong: its driver's error, or what was found when it was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault<E> {
    /// The driver reports an error.
    Flash(E),
    /// Flash that was to be written is not erased.
    NotErased,
    /// Flash holds something else than what was written.
    Differs,
    /// The content of a sector makes no sense any more.
    Corrupted,
}

impl<E: fmt::Debug> fmt::Display for Fault<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flash(error) => write!(f, "the flash reports {error:?}"),
            Self::NotErased => f.write_str("the flash is not erased where it should be"),
            Self::Differs => f.write_str("the flash holds something else than what was written"),
            Self::Corrupted => f.write_str("the content of a sector makes no sense any more"),
        }
    }
}

impl<E: NorFlashError> NorFlashError for Fault<E> {
    fn kind(&self) -> NorFlashErrorKind {
        match self {
            Self::Flash(error) => error.kind(),
            _ => NorFlashErrorKind::Other,
        }
    }
}

/// Why there is no state, or none was stored for sure. After any of them the last complete generation is where it was; of a
/// commit that failed in its last write, loading tells whether it became that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error<E> {
    /// The last state was written by another version of this crate.
    OtherVersion {
        /// That version.
        found: u8,
    },
    /// The last state belongs to another artefact.
    OtherArtefact {
        /// CRC-32 of that artefact.
        found: u32,
    },
    /// The last state is longer than the memory for it.
    BufferTooSmall {
        /// Its bytes.
        needed: usize,
    },
    /// The flash could not be read, and in what could be there is no state. Load again: a commit might overwrite one.
    Read(E),
    /// Nothing was loaded before, so the journal does not know what it must not overwrite.
    NotLoaded,
    /// The state is larger than what the journal was made for.
    StateTooLarge {
        /// Bytes that it was made for.
        capacity: usize,
    },
    /// 2^32 - 1 generations were written.
    GenerationsUsedUp,
    /// A step was broken off, or the commit has failed before.
    Broken,
    /// No sector is left for the state. With a fault: the last one that writing met.
    NoSector(Option<Fault<E>>),
}

impl<E: fmt::Debug> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherVersion { found } => {
                write!(f, "the stored state is of version {found} of the journal, this is version {}", crate::VERSION)
            }
            Self::OtherArtefact { found } => {
                write!(f, "the stored state belongs to the artefact with CRC-32 {found:08x}, not to this one")
            }
            Self::BufferTooSmall { needed } => write!(f, "the stored state needs {needed} bytes of memory"),
            Self::Read(error) => write!(f, "the journal cannot be read, the flash reports {error:?}"),
            Self::NotLoaded => f.write_str("load the journal once before the first commit"),
            Self::StateTooLarge { capacity } => {
                write!(f, "the journal was made for states of at most {capacity} bytes")
            }
            Self::GenerationsUsedUp => f.write_str("the journal's generations are used up; erase its range"),
            Self::Broken => f.write_str("a step of this commit was broken off or has failed; begin another commit"),
            Self::NoSector(None) => f.write_str("no sector is left for the state"),
            Self::NoSector(Some(fault)) => write!(f, "no sector is left for the state: {fault}"),
        }
    }
}

impl<E: fmt::Debug> core::error::Error for Error<E> {}
