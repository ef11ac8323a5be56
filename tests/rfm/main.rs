//! The RFM family from outside, a subject a file.
//!
//! Oracles: numerical integration in one and two dimensions, closed forms for Gaussian mixtures, finite differences,
//! and estimators written independently. Random checks compare a mean over repetitions with the exact value and allow
//! four of its own standard errors, plus the bias that is said beside them.

mod chains;
mod control_variates;
mod importance;
mod input;
mod mixtures;
mod oracle;
mod rounds;
mod score;
mod supports;
