//! Learned state in NOR flash, so that what a robot has learned survives a power cut.
//!
//! `docs/persistence.md` is the normative description. A *state* is a sequence of bytes that this crate does not look
//! into: the deltas of a network, statistics, what else a learner wants back. It is written as a *generation*: chunks that
//! fit a page of the flash, each with a CRC-32, and then a record with the number of chunks, the CRC-32 of everything and
//! the CRC-32 of the artefact that the state belongs to. Without its record a generation does not exist, and the sectors of
//! the last complete one are not touched until the next is.
//!
//! * [`Journal`]: [`load`](Journal::load) finds the last complete generation, [`commit`](Journal::commit) begins another.
//! * [`Commit`]: writes it in [steps](Commit::step) of one page or one erase each. A step wants [`AtRest`], which the
//!   supervisor gives only while the robot rests: erasing stops many chips for milliseconds to seconds.
//! * [`Blocking`]: flash whose driver waits; other flash is driven by the methods that end in `_async`.
//! * [`Layout`]: how many sectors a journal needs, and how long they last.
//! * `simulated`, a feature: a NOR flash in RAM that can lose its power and fail, and `lives` of a device with it.
//!
//! Items are stored by the `sequential-storage` crate, each sector as a queue of its own; this crate erases sectors itself,
//! in a ring, reads back what it writes and never writes on in a sector that was open when the power went.
//!
//! ```
//! use flowlet_journal::{Blocking, Journal, Progress, simulated::SimulatedFlash};
//! use flowlet::control::{Supervisor, Tolerance};
//!
//! const ARTEFACT: u32 = 0x1234_5678;
//! let supervisor = Supervisor::new(Tolerance::default()).unwrap();
//! let flash = SimulatedFlash::<8, 4096, 4>::new(1);
//! // Room for states of up to 8,000 bytes in the first 32 kB of that flash.
//! let mut journal: Journal<_> = Journal::new(Blocking(flash), 0..32_768, 8_000)?;
//! let mut buffer = [0; 8_000];
//! assert_eq!(journal.load(&mut [&mut buffer], ARTEFACT)?, None);
//!
//! let state: [&[u8]; 2] = [&[1, 2, 3, 4], &[7; 5_000]];
//! let mut commit = journal.commit(&state, ARTEFACT)?;
//! // Once a control period, for as long as the robot rests.
//! while let Some(rest) = supervisor.at_rest() {
//!     if commit.step(rest)? == Progress::Done {
//!         break;
//!     }
//! }
//!
//! let loaded = journal.load(&mut [&mut buffer], ARTEFACT)?.unwrap();
//! assert_eq!((loaded.generation, loaded.length, buffer[4]), (1, 5_004, 7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Guarantees: `no_std`, no allocation, no unsafe code, and no panics of its own on any content of the flash. Deterministic.
//! RAM: the journal's few dozen bytes, and a page and a half on the stack.

#![no_std]
#![forbid(unsafe_code)]

mod error;
mod flash;
mod journal;
mod layout;
#[cfg(feature = "simulated")]
pub mod lives;
#[cfg(feature = "simulated")]
pub mod simulated;

pub use error::{Error, Fault, RangeError};
pub use flash::Blocking;
pub use flowlet::control::AtRest;
pub use journal::{Commit, Journal, Loaded, Progress, Wear};
pub use layout::{Layout, VERSION};
