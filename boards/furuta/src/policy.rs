//! The policy in flash, with its sizes as constants read from its header at compile time.
//!
//! The file is `firmware/policies/furuta.flw`, with the feature `int8` `furuta-int8.flw`. A file of another shape than this
//! robot needs does not compile; whether it is whole, of a known format and computes here what was exported is found
//! out at the start, by [`load`] and by the controller's self-test. Nothing is copied but the time table.

use flowlet::policy::{Artefact, Menu, Policy, PolicyError, StaticPolicy};

/// Bytes at an address divisible by four, as the checked view needs them.
#[repr(C, align(4))]
struct Aligned<B: ?Sized>(B);

#[cfg(not(feature = "int8"))]
static ARTEFACT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../firmware/policies/furuta.flw"));
#[cfg(feature = "int8")]
static ARTEFACT: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../firmware/policies/furuta-int8.flw"));

/// Observation channels.
pub const OBS: usize = 5;
/// Action channels.
pub const ACT: usize = 1;

const HIDDEN: usize = header(5);
/// A plan by Euler's rule evaluates once a step.
const NODES: usize = header(14);

const _: () = assert!(
    header(1) >= 2,
    "furuta.flw is of version 1, whose elementary functions the images leave out: export it again"
);
const _: () = assert!(header(3) == OBS && header(4) == ACT, "furuta.flw has other channels than a furuta pendulum");
const _: () = assert!(header(13) == 0, "furuta.flw wants another solver than Euler's");
const _: () = assert!(
    header(10) == cfg!(feature = "int8") as usize,
    "the number format of furuta.flw must be f32, that of furuta-int8.flw int8"
);

/// A word of the artefact's header, by its number in docs/format.md.
const fn header(word: usize) -> usize {
    let b = &ARTEFACT.0;
    let at = 4 * word;
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]) as usize
}

/// The policy with the memory for its decisions.
pub type Furuta = StaticPolicy<'static, OBS, ACT, HIDDEN, NODES>;

/// The artefact, checked, with its memory made in `place`.
pub fn load(place: &mut Option<Furuta>) -> Result<&mut Furuta, PolicyError> {
    match &view() {
        Ok(policy) => Furuta::place(place, policy, Menu::single(policy.plan().steps)),
        Err(error) => Err(*error),
    }
}

/// The policy as a view; what checking it takes of the stack is free again after it.
#[inline(never)]
fn view() -> Result<Policy<'static>, PolicyError> {
    Policy::new(Artefact::new(&ARTEFACT.0).map_err(PolicyError::Artefact)?)
}
