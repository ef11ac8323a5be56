//! What of a session outlives a reset: the guard and the weights it deploys, as bytes for a journal.
//!
//! Little-endian: version, what of the actor is trained (kind and number), zero, the delta's length, the artefact's CRC-32;
//! the guard's [`Guard::BYTES`]; the delta. Critics and replay are not kept: a session that goes on learns its critics anew from the
//! factory's. No panics, no allocation.

use super::{Mean, Session, Stage};
use crate::finetune::guard::{Guard, GuardError, Player};
use crate::finetune::{Config, Perceptron};
use crate::net::VelocityShape;

/// Version of the state.
const VERSION: u8 = 1;

const HEADER: usize = 12;

/// Bytes of the state of a session with such a policy.
pub const fn state_bytes(policy: &VelocityShape, config: &Config) -> usize {
    HEADER + Guard::BYTES + 4 * Perceptron::velocity(policy).delta(config.actor)
}

/// Why a state is not restored; the session is then as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum StateError {
    /// There are so many bytes, and as many are needed.
    Length {
        /// Needed.
        expected: usize,
        /// There.
        found: usize,
    },
    /// The state is of another version.
    Version {
        /// The one found.
        version: u8,
    },
    /// Something else of the network was trained.
    OtherConfig,
    /// It was learned from another artefact.
    OtherArtefact,
    /// The guard refuses its part.
    Guard(GuardError),
    /// The weights are not finite.
    Corrupt,
}

impl core::fmt::Display for StateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Length { expected, found } => {
                write!(
                    f,
                    "the learned state takes {expected} bytes and there are {found}: give it a buffer of that size"
                )
            }
            Self::Version { version } => {
                write!(f, "the learned state is of version {version} and cannot be read: the factory's weights play on")
            }
            Self::OtherConfig => f.write_str(
                "the learned state is of a learner that trains something else: the factory's weights play on",
            ),
            Self::OtherArtefact => {
                f.write_str("the learned state is of another policy than this one: the factory's weights play on")
            }
            Self::Guard(error) => error.fmt(f),
            Self::Corrupt => f.write_str("the learned weights are not finite: the factory's play on"),
        }
    }
}

impl core::error::Error for StateError {}

impl<M: AsRef<[u32]> + AsMut<[u32]>> Session<'_, M> {
    /// Whether there is something to keep that is not kept yet: a candidate to be tried or deployed waits for it, or what
    /// was deployed is no more.
    pub fn wants_saving(&self) -> bool {
        self.is_due
    }

    /// Writes the state to keep into `out`, which has [`state_bytes`]: where the session waits for it, that after the
    /// step it waits to take. Call [`saved`](Self::saved) when the bytes are safe.
    pub fn save(&mut self, out: &mut [u8]) -> Result<(), StateError> {
        let mut guard = self.guard.clone();
        let delta = match self.stage {
            Stage::Promoted => {
                guard.commit().map_err(StateError::Guard)?;
                self.learner.acting()
            }
            Stage::Ready => {
                guard.begin().map_err(StateError::Guard)?;
                self.learner.kept()
            }
            _ => self.learner.kept(),
        };
        let expected = HEADER + Guard::BYTES + 4 * delta.len();
        let error = StateError::Length { expected, found: out.len() };
        let (header, rest) = out.split_at_mut_checked(HEADER).ok_or(error)?;
        let (bytes, numbers) = rest.split_at_mut_checked(Guard::BYTES).ok_or(error)?;
        if numbers.len() != 4 * delta.len() {
            return Err(error);
        }
        let [kind, number] = self.learner.config().actor.code();
        let [a, b, c, d] = (delta.len() as u32).to_le_bytes();
        let [w, x, y, z] = self.learner.artefact().to_le_bytes();
        header.copy_from_slice(&[VERSION, kind, number, 0, a, b, c, d, w, x, y, z]);
        bytes.copy_from_slice(&guard.to_bytes());
        for (place, number) in numbers.chunks_exact_mut(4).zip(delta) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        self.written = self.revision;
        Ok(())
    }

    /// What [`save`](Self::save) wrote is safe: the candidate is tried, or the promoted one deployed. Where something has
    /// changed since, as by a fault while the bytes were written, that wants saving still.
    pub fn saved(&mut self) {
        if self.written != self.revision {
            return;
        }
        self.is_due = false;
        match self.stage {
            Stage::Ready => {
                self.tried = [Mean::default(); 2];
                self.is_fresh = false;
                self.cut();
                self.start_block();
                match self.guard.begin() {
                    Ok(()) => self.stage = Stage::Trial,
                    // No error is left to spend: nothing is ever tried again.
                    Err(_) => self.learn(false),
                }
            }
            Stage::Promoted if self.guard.commit().is_ok() => {
                self.learner.keep();
                self.reference = self.best;
                self.cut();
                self.start_block();
                if self.may_learn { self.begin_screenings() } else { self.stop() }
            }
            _ => {}
        }
    }

    /// Goes on without keeping anything: for a robot that has nowhere to keep it. A reset leads back to the factory's
    /// policy, and to the guard's whole error.
    pub fn go_on_unsaved(&mut self) {
        self.written = self.revision;
        self.saved();
    }

    /// Goes on from a saved state: its weights are deployed. A trial that was under way is given up, since its candidate is
    /// gone; the deployed weights are measured anew.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        let expected = HEADER + Guard::BYTES + 4 * self.learner.kept().len();
        let error = StateError::Length { expected, found: bytes.len() };
        if bytes.len() != expected {
            return Err(error);
        }
        let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(error)?;
        let (guard, numbers) = rest.split_first_chunk::<{ Guard::BYTES }>().ok_or(error)?;
        let [version, kind_of, number, _, a, b, c, d, w, x, y, z] = header;
        if *version != VERSION {
            return Err(StateError::Version { version: *version });
        }
        if u32::from_le_bytes([*w, *x, *y, *z]) != self.learner.artefact() {
            return Err(StateError::OtherArtefact);
        }
        let same = [*kind_of, *number] == self.learner.config().actor.code();
        if !same || u32::from_le_bytes([*a, *b, *c, *d]) as usize != self.learner.kept().len() {
            return Err(StateError::OtherConfig);
        }
        let mut guard = Guard::from_bytes(self.config.guard, guard).map_err(StateError::Guard)?;
        guard.abandon();
        let numbers = numbers.chunks_exact(4).filter_map(|n| n.try_into().ok()).map(f32::from_le_bytes);
        if !self.learner.restore(numbers) {
            return Err(StateError::Corrupt);
        }
        if guard.deployed() == Player::Factory {
            self.learner.forget();
        }
        self.guard = guard;
        self.open = None;
        self.learner.cut();
        (self.is_due, self.written) = (false, self.revision);
        if self.may_learn {
            self.measure_deployed()
        } else {
            self.stop()
        }
        Ok(())
    }
}
