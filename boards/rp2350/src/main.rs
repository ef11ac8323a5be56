//! Furuta pendulum on an RP2350; README.md has the wiring.
//!
//! SysTick samples both encoders 50,000 times a second, and every hundredth sample is a control tick. PWM slice 3 drives the
//! bridge. Interrupts handle integers only. A panic or a fault holds the PWM pin low until the watchdog resets the chip.

#![no_std]
#![no_main]

use embassy_rp::gpio::{Input, Level, Output, Pull};
use embassy_rp::peripherals::PIN_6;
use embassy_rp::pwm::{self, Pwm};
use embassy_rp::watchdog::Watchdog;
use embassy_rp::{config::Config, pac};
use embassy_time::Duration;
use furuta_robot::{Board, Sampler, TICK_HZ, Ticks, WATCHDOG_US, Wiring, cortex};

/// Samples of the encoders a second.
const SAMPLE_HZ: u32 = 50_000;

/// 150 MHz / 7,500 = 20 kHz.
const PWM_TOP: u16 = 7_499;

static TICKS: Ticks = Ticks::new();

#[cortex_m_rt::entry]
fn main() -> ! {
    let p = embassy_rp::init(Config::default());
    // SysTick reads them as bits 2 to 5 of the input register.
    let _arm = (Input::new(p.PIN_2, Pull::Up), Input::new(p.PIN_3, Pull::Up));
    let _pendulum = (Input::new(p.PIN_4, Pull::Up), Input::new(p.PIN_5, Pull::Up));
    let mut pwm = pwm::Config::default();
    pwm.top = PWM_TOP;
    let wiring = Wiring {
        enable: Pwm::new_output_a(p.PWM_SLICE3, p.PIN_6, pwm),
        phase: Output::new(p.PIN_7, Level::Low),
        stop: Input::new(p.PIN_8, Pull::Up),
        lamp: Output::new(p.PIN_25, Level::Low),
    };
    cortex::start(Chip::CLOCK_HZ, SAMPLE_HZ);
    furuta_robot::run(wiring, Chip(Watchdog::new(p.WATCHDOG)), &TICKS)
}

#[cortex_m_rt::exception]
fn SysTick() {
    static mut SAMPLER: Sampler = Sampler::new(SAMPLE_HZ / TICK_HZ);
    SAMPLER.sample(pac::SIO.gpio_in(0).read() >> 2, cortex::cycles, &TICKS);
}

struct Chip(Watchdog);

impl Board for Chip {
    /// What the chip's crate makes of the 12 MHz crystal.
    const CLOCK_HZ: u32 = 150_000_000;

    fn now(&mut self) -> u32 {
        cortex::cycles()
    }

    fn start_watchdog(&mut self) {
        self.0.start(Duration::from_micros(WATCHDOG_US.into()));
    }

    fn feed_watchdog(&mut self) {
        self.0.feed(Duration::from_micros(WATCHDOG_US.into()));
    }
}

/// Takes the PWM pin from its slice and holds it low.
fn motor_off() {
    // SAFETY: after a fault nothing else uses the pin any more.
    core::mem::forget(Output::new(unsafe { PIN_6::steal() }, Level::Low));
}

furuta_robot::motor_off_after_faults!(motor_off);
