//! What the Cortex-M boards share: the tick by SysTick, the clock by the cycle counter, the motor off after a fault.

use cortex_m::Peripherals;
use cortex_m::peripheral::DWT;
use cortex_m::peripheral::syst::SystClkSource;

/// Starts the cycle counter and SysTick's interrupt at `rate_hz`, from a core clock of `clock_hz`.
///
/// Call it once, when the encoders stand ready; `clock_hz / rate_hz` is at most 2^24.
pub fn start(clock_hz: u32, rate_hz: u32) {
    // SAFETY: called once, before the handler runs; the chips' crates leave SysTick and the cycle counter alone.
    let mut core = unsafe { Peripherals::steal() };
    core.DCB.enable_trace();
    core.DWT.enable_cycle_counter();
    core.SYST.set_clock_source(SystClkSource::Core);
    core.SYST.set_reload(clock_hz / rate_hz - 1);
    core.SYST.clear_current();
    core.SYST.enable_counter();
    core.SYST.enable_interrupt();
}

/// The cycle counter: the board's clock.
#[inline]
pub fn cycles() -> u32 {
    DWT::cycle_count()
}

/// The end after a panic or a fault: the motor off, interrupts masked, until the watchdog resets the chip.
pub fn end(motor_off: fn()) -> ! {
    cortex_m::interrupt::disable();
    motor_off();
    loop {
        core::hint::spin_loop();
    }
}
