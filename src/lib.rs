//! Flow-matching policies on microcontrollers.
#![no_std]
#![deny(unsafe_code)]

pub mod conformance;
pub mod flow;
pub mod math;
pub mod net;
pub mod policy;
pub mod rfm;
