//! The furuta pendulum's controller that the images of all boards share.
//!
//! A board's `main.rs` sets up clocks and peripherals, records every control tick in [`Ticks`] from its timer's interrupt,
//! and calls [`run`] with its pins. Everything else is here, and runs on a PC and in QEMU as well ([`simulated`]):
//!
//! * [`Quadrature`], [`Sampler`]: encoders without a decoder in hardware. [`Ticks`]: from the interrupt to the loop.
//! * [`Sensors`]: raw counts to the policy's observation. [`policy`]: the artefact in flash.
//! * [`start`]: what a person must do before anything moves. [`lamp`]: what the lamp says.
//! * [`Robot`], [`Rig`], [`run`]: a tick, with pins, for ever.
//! * `cortex`: what the Cortex-M boards share; `motor_off_after_faults` their panic and fault handlers.
//!
//! Guarantees: no allocation, no panics, integers only in what an interrupt calls.

#![no_std]

#[cfg(test)]
extern crate std;

// Armv6-M, which has no atomic operations, has no cycle counter either.
#[cfg(all(target_arch = "arm", target_os = "none", target_has_atomic = "32"))]
pub mod cortex;
pub mod lamp;
pub mod policy;
mod quadrature;
mod robot;
mod sampler;
mod sensors;
#[cfg(feature = "simulated")]
pub mod simulated;
pub mod start;
mod ticks;

pub use quadrature::Quadrature;
pub use robot::{CONFIG, Refusal, Rig, Robot, SUPPLY_VOLTS, Wiring, run};
pub use sampler::Sampler;
pub use sensors::{COUNTS, Sensors};
pub use ticks::{Tick, Ticks};

/// Control ticks a second. The policy decides at every fifth.
pub const TICK_HZ: u32 = 500;

/// Without a step in time for so long the watchdog resets the chip, which lets the motor go: ten ticks.
pub const WATCHDOG_US: u32 = 20_000;

/// What a chip must do besides driving its pins.
pub trait Board {
    /// Frequency of [`Board::now`].
    const CLOCK_HZ: u32;

    /// A clock that wraps at 2^32.
    fn now(&mut self) -> u32;

    /// Starts the watchdog with [`WATCHDOG_US`].
    fn start_watchdog(&mut self);

    /// Tells it that a step was in time.
    fn feed_watchdog(&mut self);
}

/// Makes panics, faults and unexpected interrupts of a Cortex-M call the named function, which takes the motor off, and
/// wait for the watchdog.
#[cfg(all(target_arch = "arm", target_os = "none", target_has_atomic = "32"))]
#[macro_export]
macro_rules! motor_off_after_faults {
    ($motor_off:path) => {
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo) -> ! {
            $crate::cortex::end($motor_off)
        }

        #[cortex_m_rt::exception]
        unsafe fn HardFault(_: &cortex_m_rt::ExceptionFrame) -> ! {
            $crate::cortex::end($motor_off)
        }

        #[cortex_m_rt::exception]
        unsafe fn DefaultHandler(_: i16) -> ! {
            $crate::cortex::end($motor_off)
        }
    };
}
