//! The policy in flash: the artefact that the build script embedded, and its sizes as constants.
//!
//! `FLOWLET_POLICY` names another artefact at build time. The build script has checked its format and checksum; whether
//! this machine computes what was measured is known only here, by the self-test of [`load`]. Nothing is copied but the
//! time table; no allocation, no panics.

use flowlet::policy::{PolicyError, StaticPolicy};

include!(concat!(env!("OUT_DIR"), "/policy.rs"));

/// Bytes at an address divisible by four, as the checked view needs them.
#[repr(C, align(4))]
struct Aligned<B: ?Sized>(B);

static ARTEFACT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/policy.flw")));

/// The embedded policy with the memory for its decisions.
pub type Embedded = StaticPolicy<'static, OBS, ACT, HIDDEN, NODES>;

/// Checks the artefact and runs its self-test; a policy that is returned computes here what was exported.
pub fn load() -> Result<Embedded, PolicyError> {
    let mut policy = Embedded::new(&ARTEFACT.0)?;
    policy.self_test()?;
    Ok(policy)
}
