//! A framed serial protocol for hardware in the loop: the PC simulates the plant, the board decides.
//!
//! `docs/protocol.md` is the normative description. The PC asks and the board answers; a request has a sequence number
//! and is carried out at most once, so a line may lose, repeat, corrupt or delay frames and the noise stream of an
//! episode, and with it every bit of its return, stays what it is on a perfect line.
//!
//! * [`frame`]: bytes to frames and back: COBS, CRC-32, resynchronisation, counters.
//! * [`message`]: what frames carry; [`learning`]: what those of learning carry.
//! * [`device`]: the board's side, over any serial line that implements [`device::Port`].
//!
//! Guarantees: `no_std`, no allocation, no panics on any input; memory is bounded by sizes in types. Deterministic: an
//! answer depends on the policy, the episode's seed and the observations since.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod device;
pub mod frame;
pub mod learning;
pub mod message;
