//! Learning on the robot, behind the safety gate: what learns may be wrong, what is deployed may not.
//!
//! [`Learner`] goes on training a policy on the device, in static memory and in slices of bounded work. [`guard`] lets
//! candidate weights play against those in use and against the factory's, by a metric from sensors, and decides with stated
//! error rates which are kept. [`session`] ties both to a control loop: it says whose weights play, and when.
//!
//! No panics, no allocation, the same bits on every target.

mod actor;
mod config;
pub mod guard;
mod learner;
mod memory;
mod optimiser;
mod replay;
pub mod session;
mod slice;
#[cfg(test)]
mod tests;
mod trained;

pub use config::{Config, LearnerError};
pub use learner::{Learner, Report};
pub use memory::{Fits, words};
pub use optimiser::{Optimiser, inverse_sqrt};
pub use replay::{After, Cursor, Replay, Ring, Storage};
pub use slice::{Budget, Cut, least_slice};
pub use trained::{Network, Perceptron, Trace, Trained};
