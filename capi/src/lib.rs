//! The C interface of flowlet: load an artefact, ask it for actions, hold them to limits.
//!
//! `include/flowlet.h` is made from this crate by `cargo xtask c-interface` and describes every function for who writes C;
//! `example/` is a whole firmware in C. A policy or gate lives in memory that the caller lends, of a size that it can ask
//! for; nothing is allocated, nothing waits, and no function panics: each returns an error code, and what it would have
//! written is left alone. A C firmware gets the actions of a Rust firmware, bit for bit.
//!
//! Every pointer is checked for NULL and alignment, lent memory for its length and for overlaps, a handle for having been
//! opened. What cannot be checked is said by each function under "Safety": that pointers point to so many bytes, and that
//! the artefact and the lent memory stay where they are. This is the one crate with `unsafe` code; Miri runs its tests.

#![cfg_attr(target_os = "none", no_std)]
#![warn(unsafe_op_in_unsafe_fn)]
// The names are C's.
#![allow(non_camel_case_types)]

mod error;
mod gate;
mod lent;
mod policy;

pub use error::{flowlet_error, flowlet_error_text};
pub use gate::{
    flowlet_gate, flowlet_gate_apply, flowlet_gate_open, flowlet_gate_size, flowlet_gate_stop, flowlet_limits,
};
pub use policy::{
    flowlet_info, flowlet_policy, flowlet_policy_act, flowlet_policy_action_name, flowlet_policy_digest,
    flowlet_policy_info, flowlet_policy_name, flowlet_policy_observation_name, flowlet_policy_open,
    flowlet_policy_seed, flowlet_policy_self_test, flowlet_policy_size,
};

/// A panic has no caller to tell: the loop lets the watchdog reset the chip. No function of flowlet panics.
#[cfg(all(target_os = "none", not(test)))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
