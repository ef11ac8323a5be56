//! The policies in flash: the artefacts that the build script embedded, and their sizes as constants.
//!
//! [`pendulum`], [`furuta`] and [`furuta_critic`] are the committed ones; a program uses one of them, and only that one is linked. The items
//! of this module are the pendulum's. `FLOWLET_POLICY` names another artefact at build time, for whichever module. The build
//! script has checked its format and checksum; whether this machine computes what was measured is known only here, by the
//! self-test of `load`. Nothing is copied but the time table; no allocation, no panics.

pub use pendulum::*;

/// Bytes at an address divisible by four, as the checked view needs them.
#[repr(C, align(4))]
struct Aligned<B: ?Sized>(B);

/// One module for one of the build script's artefacts.
macro_rules! embed {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub mod $name {
            use flowlet::net::{Activation, CriticShape, Trunk, VelocityShape};
            use flowlet::policy::{Artefact, Menu, Policy, PolicyError, StaticPolicy};

            include!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".rs"));

            /// The artefact in flash.
            pub static ARTEFACT: &[u8] =
                &super::Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/", stringify!($name), ".flw"))).0;

            /// The embedded policy with the memory for its decisions.
            pub type Embedded = StaticPolicy<'static, OBS, ACT, HIDDEN, NODES>;

            /// Checks the artefact, makes its memory in `place` and runs its self-test; a policy that is returned computes
            /// here what was exported.
            #[inline(never)]
            pub fn load(place: &mut Option<Embedded>) -> Result<&mut Embedded, PolicyError> {
                let policy = match &view() {
                    Ok(policy) => Embedded::place(place, policy, Menu::single(policy.plan().steps))?,
                    Err(error) => return Err(*error),
                };
                policy.self_test()?;
                Ok(policy)
            }

            /// The policy as a view; what checking it takes of the stack is free again after it.
            #[inline(never)]
            fn view() -> Result<Policy<'static>, PolicyError> {
                Policy::new(Artefact::new(ARTEFACT).map_err(PolicyError::Artefact)?)
            }
        }
    };
}

embed! {
    /// The policy of the torque-limited pendulum.
    pendulum
}

embed! {
    /// The policy of the rotary pendulum, `plants::Furuta`.
    furuta
}

embed! {
    /// The policy of the rotary pendulum with its critics, to go on training; in f32 on every board.
    furuta_critic
}
