//! Furuta pendulum on an nRF52840; README.md has the wiring.
//!
//! SysTick samples both encoders 40,000 times a second and every eightieth sample is a control tick; the chip's only
//! quadrature decoder samples at most every 128 us, which this pendulum outruns. PWM0 drives the bridge. Interrupts handle
//! integers only. A panic or a fault holds the PWM pin low until the watchdog resets the chip.

#![no_std]
#![no_main]

use core::convert::Infallible;
use embassy_nrf::config::{Config, HfclkSource};
use embassy_nrf::gpio::{Input, Level, Output, OutputDrive, Pull};
use embassy_nrf::pwm::{DutyCycle, Prescaler, SimpleConfig, SimplePwm};
use embassy_nrf::wdt::{self, Watchdog, WatchdogHandle};
use embassy_nrf::{Peri, pac, peripherals};
use embedded_hal::pwm::{ErrorType, SetDutyCycle};
use furuta_robot::{Board, Sampler, TICK_HZ, Ticks, WATCHDOG_US, Wiring, cortex};

/// Samples of the encoders a second.
const SAMPLE_HZ: u32 = 40_000;

/// 16 MHz / 800 = 20 kHz.
const MAX_DUTY: u16 = 800;

static TICKS: Ticks = Ticks::new();

#[cortex_m_rt::entry]
fn main() -> ! {
    let mut config = Config::default();
    config.hfclk_source = HfclkSource::ExternalXtal;
    let p = embassy_nrf::init(config);
    // SysTick reads them as bits 1 to 4 of port 1.
    let _arm = (Input::new(p.P1_01, Pull::Up), Input::new(p.P1_02, Pull::Up));
    let _pendulum = (Input::new(p.P1_03, Pull::Up), Input::new(p.P1_04, Pull::Up));
    let mut pwm = SimpleConfig::default();
    (pwm.prescaler, pwm.max_duty) = (Prescaler::Div1, MAX_DUTY);
    let wiring = Wiring {
        enable: Enable(SimplePwm::new_1ch(p.PWM0, p.P1_06, &pwm)),
        phase: Output::new(p.P1_07, Level::Low, OutputDrive::Standard),
        stop: Input::new(p.P1_08, Pull::Up),
        lamp: Output::new(p.P1_10, Level::Low, OutputDrive::Standard),
    };
    cortex::start(Chip::CLOCK_HZ, SAMPLE_HZ);
    furuta_robot::run(wiring, Chip { idle: Some(p.WDT), watchdog: None }, &TICKS)
}

#[cortex_m_rt::exception]
fn SysTick() {
    static mut SAMPLER: Sampler = Sampler::new(SAMPLE_HZ / TICK_HZ);
    SAMPLER.sample(pac::P1.in_().read().0 >> 1, cortex::cycles, &TICKS);
}

/// The PWM pin through embedded-hal's trait, which the chip's crate has not implemented.
struct Enable(SimplePwm<'static>);

impl ErrorType for Enable {
    type Error = Infallible;
}

impl SetDutyCycle for Enable {
    fn max_duty_cycle(&self) -> u16 {
        MAX_DUTY
    }

    fn set_duty_cycle(&mut self, duty: u16) -> Result<(), Infallible> {
        // "Inverted" is high while the counter is below the duty.
        self.0.set_duty(0, DutyCycle::inverted(duty.min(MAX_DUTY)));
        Ok(())
    }
}

struct Chip {
    idle: Option<Peri<'static, peripherals::WDT>>,
    watchdog: Option<WatchdogHandle>,
}

impl Board for Chip {
    const CLOCK_HZ: u32 = 64_000_000;

    fn now(&mut self) -> u32 {
        cortex::cycles()
    }

    fn start_watchdog(&mut self) {
        let mut config = wdt::Config::default();
        config.timeout_ticks = (u64::from(WATCHDOG_US) * 32_768 / 1_000_000) as u32;
        if let Some(idle) = self.idle.take() {
            // It fails where a watchdog runs already with another time: then its reset is what stops the motor.
            self.watchdog = Watchdog::try_new(idle, config).ok().map(|(_, [handle])| handle);
        }
    }

    fn feed_watchdog(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.pet();
        }
    }
}

/// Takes the PWM pin from its peripheral and holds it low.
fn motor_off() {
    pac::PWM0.enable().write(|w| w.set_enable(false));
    // SAFETY: after a fault nothing else uses the pin any more.
    core::mem::forget(Output::new(unsafe { peripherals::P1_06::steal() }, Level::Low, OutputDrive::Standard));
}

furuta_robot::motor_off_after_faults!(motor_off);
