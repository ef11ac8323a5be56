//! Reverse Flow Matching: the posterior mean of a flow from an unnormalised target density.
//!
//! Given `x = alpha X_1 + beta X_0` and a target `p1(X_1)` known up to a factor, the estimator weighs candidates for
//! `X_1` by self-normalised importance sampling and corrects their mean with a Langevin-Stein control variate
//! (Li, Tang and Azizan, arXiv 2601.08136). The velocity to regress on follows from that mean
//! ([`Schedule::velocity_from_data`](crate::flow::Schedule::velocity_from_data)).
//!
//! Coefficient zero is the noise-expectation family, a coefficient of one (in noise space) the gradient-expectation
//! family. From the same weighted candidates follow the noise mean ([`Evidence::noise_mean`]) and the score of the
//! flow's marginal ([`RfmConfig::score`]).
//!
//! | choice | by |
//! |---|---|
//! | target | [`Boltzmann`] of a critic on tanh latents, on a box or unbounded; any [`Target`] |
//! | weighted rows | [`Method`]: draws of a [`Mixture`], [`Langevin`] chains, [`Annealed`] particles, [`Auto`] |
//! | coefficient | [`ControlVariate`] |
//! | features | [`TestFunction`], or a user's [`TestField`] |
//!
//! No panics, no allocation, fixed size; the same bits everywhere.

mod auto;
mod control_variate;
mod estimator;
mod evidence;
mod langevin;
mod proposal;
mod score;
mod scratch;
mod smc;
mod stein;
mod target;
mod weights;

pub use auto::Auto;
pub use control_variate::ControlVariate;
pub use estimator::{EstimateError, Method, Posterior, RfmConfig, Run};
pub use evidence::Evidence;
pub use langevin::Langevin;
pub use proposal::{Mixture, ProposalError};
pub use scratch::{Estimator, EstimatorScratch};
pub use smc::{Annealed, Ladder};
pub use stein::{TestField, TestFunction};
pub use target::{Boltzmann, BoltzmannScratch, Space, Support, Target};
