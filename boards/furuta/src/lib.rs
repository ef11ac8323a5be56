//! stub
#![no_std]
#![allow(missing_docs)]

#[cfg(all(target_arch = "arm", target_os = "none"))]
pub mod cortex;
mod quadrature;
mod robot;
mod sampler;
mod ticks;

pub use quadrature::Quadrature;
pub use robot::{Board, Wiring, run};
pub use sampler::Sampler;
pub use ticks::{Tick, Ticks};

/// Control ticks a second.
pub const TICK_HZ: u32 = 500;

pub const WATCHDOG_US: u32 = 20_000;

#[cfg(all(target_arch = "arm", target_os = "none"))]
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
