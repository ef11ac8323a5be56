//! The control loop from outside: bad input swept over every channel and step, time, other robots' artefacts, and the
//! bits of an undisturbed run.

// Other tests use the rest of it.
#[allow(dead_code)]
#[path = "../common/mod.rs"]
mod common;

mod loops;
mod rig;
mod sweeps;
mod time;
mod wrong;
