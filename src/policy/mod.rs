//! The policy: normaliser, squash and scale, the artefact, and the decision that puts them together.
//!
//! [`Artefact`] is a checked view over bytes (in flash, say); after it is accepted no accessor fails. [`Policy`]
//! decides with memory the caller lends, [`StaticPolicy`] owns that memory with its sizes in the type. An action
//! that comes out is finite and inside its limits; everything else is a named error.

mod artefact;
mod best_of;
mod decision;
mod encode;
mod exercise;
mod menu;
mod normalizer;
mod squash;
mod steps;

pub use artefact::{Artefact, ArtefactError, FORMAT_VERSION, Names};
pub use best_of::{BestOfScratch, StaticBestOf};
pub use decision::{Policy, PolicyError, PolicyScratch, StaticPolicy};
pub use encode::{CriticManifest, EncodeError, Manifest, Weights};
pub use exercise::{EXERCISE_ACTIONS, Exercise, action_digest};
pub use menu::Menu;
pub use normalizer::Normalizer;
pub use squash::{ActionRange, Squash};
pub use steps::{StepEntry, StepTable};
