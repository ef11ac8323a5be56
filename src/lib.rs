//! # flowlet: flow-matching policies on microcontrollers
//!
//! A flow policy carries Gaussian noise to an action along a learned velocity field, so it can be as multimodal as the
//! task asks for. flowlet runs such policies where robots are controlled: `no_std`, without an allocator, from one
//! checked artefact in flash, and with the same bits as on the PC that trained them.
//!
//! ```no_run
//! use flowlet::policy::StaticPolicy;
//! use rand_xoshiro::{Xoshiro128PlusPlus, rand_core::SeedableRng};
//!
//! /// Three observations, one action, width 64, three Euler steps.
//! fn control(artefact: &[u8]) -> Result<f32, flowlet::policy::PolicyError> {
//!     let mut policy = StaticPolicy::<3, 1, 64, 3>::new(artefact)?;
//!     policy.self_test()?; // this machine computes what the PC measured
//!     let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
//!     let [torque] = policy.act(&[1.0, 0.0, 0.2], &mut rng)?;
//!     Ok(torque)
//! }
//! ```
//!
//! | module | what is in it |
//! |---|---|
//! | [`math`] | elementary functions through `libm`, the subnormal rule, the digest |
//! | [`net`] | velocity network, critic with its action gradient, dense kernels |
//! | [`flow`] | schedule, source distribution, ODE solvers, the sampler |
//! | [`rfm`] | Reverse Flow Matching: proposals, weights, control variates, the posterior mean |
//! | [`policy`] | normaliser, action range, the artefact, decisions |
//! | [`control`] | the loop around a policy: gate, supervisor, deadline, sensors and motors |
//! | [`finetune`] | learning on the robot: the guard that decides which weights are kept |
//! | [`conformance`] | digests of all of it, to compare a board with a PC |
//!
//! Arrows point one way: `math <- net <- flow <- rfm`, `policy` stands on `net` and `flow`, `control` on
//! `policy`, and `finetune` on `control`.
//!
//! Two features are on by default: `version-1` reads artefacts of the format's first version and `sources` noise other than
//! Gaussian. Without them an image is about 15 kB smaller, and an artefact that needs one is refused.
//!
//! **Guarantees.** No function panics, allocates or blocks, whatever its input; wrong input is a named error. Equal
//! inputs give equal bits on every target, soft float and Helium included, under three conditions: FPSCR.FZ is left at
//! zero, the compiler's default of no floating-point contraction is kept, and on an RP2040 the boot ROM's float
//! routines are not used. `unsafe` is the calls of the kernels in assembly alone, which are in one place (`net/kernel`).

#![no_std]
#![deny(unsafe_code)]

pub mod conformance;
pub mod control;
pub mod finetune;
pub mod flow;
pub mod math;
pub mod net;
pub mod policy;
pub mod rfm;

/// The examples of the README are run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// And those of the page on the estimator.
#[cfg(doctest)]
#[doc = include_str!("../docs/estimator.md")]
struct EstimatorPage;

/// And those of the page on fine-tuning.
#[cfg(doctest)]
#[doc = include_str!("../docs/fine-tuning.md")]
struct FineTuningPage;

/// And those of the page on the guard.
#[cfg(doctest)]
#[doc = include_str!("../docs/guard.md")]
struct GuardPage;
