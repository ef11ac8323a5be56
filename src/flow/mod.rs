//! Flows: schedules, source distributions, kinds of draws, ODE solvers, the sampler that carries noise to an action
//! latent by the velocity network, and the samplers of diffusion models for any field.
//!
//! The interpolant is `X_t = alpha(t) X_1 + beta(t) X_0` with the source `X_0` at `t = 0` and the action latent
//! `X_1` at `t = 1`. Nothing here panics or allocates, and equal inputs give equal bits on every machine.

mod draws;
mod reverse;
mod sampler;
mod schedule;
mod solver;
mod source;

pub use draws::Draws;
pub use reverse::{Field, Prediction, Reverse, ReverseError, ReverseMethod, SdeNoise};
pub use sampler::{Plan, PlanError, SampleError, Sampler, SamplerScratch};
pub use schedule::{Schedule, ScheduleError};
pub use solver::Solver;
pub use source::{Source, SourceError};
