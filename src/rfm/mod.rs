//! Reverse Flow Matching: the posterior mean of a flow from an unnormalised target density.
//!
//! Given `x = alpha X_1 + beta X_0` and a target `p1(X_1)` known up to a factor, the estimator weighs candidates for
//! `X_1` by self-normalised importance sampling and corrects their mean with a Langevin-Stein control variate
//! (Li, Tang and Azizan, arXiv 2601.08136). The velocity to regress on follows from that mean
//! ([`Schedule::velocity_from_data`](crate::flow::Schedule::velocity_from_data)).
//!
//! Coefficient zero is the noise-expectation family, a coefficient of one (in noise space) the gradient-expectation
//! family. No panics, no allocation, fixed size; the same bits everywhere.

mod control_variate;
mod estimator;
mod proposal;
mod target;

pub use control_variate::ControlVariate;
pub use estimator::{EstimateError, Estimator, EstimatorScratch, Posterior, RfmConfig};
pub use proposal::{Mixture, ProposalError};
pub use target::{Boltzmann, BoltzmannScratch, Target};
