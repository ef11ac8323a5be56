//! Flows: schedule, source distribution, ODE solvers and the sampler that carries noise to an action latent.
//!
//! The interpolant is `X_t = alpha(t) X_1 + beta(t) X_0` with the source `X_0` at `t = 0` and the action latent
//! `X_1` at `t = 1`. Nothing here panics or allocates, and equal inputs give equal bits on every machine.

mod sampler;
mod schedule;
mod solver;
mod source;

pub use sampler::{Plan, PlanError, SampleError, Sampler, SamplerScratch};
pub use schedule::Schedule;
pub use solver::Solver;
pub use source::Source;
