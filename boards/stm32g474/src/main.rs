//! Furuta pendulum on an STM32G474; README.md has the wiring.
//!
//! TIM3 counts the arm's encoder and TIM4 the pendulum's, TIM1 makes the PWM, SysTick the control tick. Interrupts handle
//! integers only. A panic or a fault holds the PWM pin low until the watchdog resets the chip.

#![no_std]
#![no_main]

use embassy_stm32::gpio::{Input, Level, Output, OutputType, Pull, Speed};
use embassy_stm32::pac::{TIM3, TIM4};
use embassy_stm32::peripherals::{IWDG, PA8};
use embassy_stm32::time::Hertz;
use embassy_stm32::timer::low_level::CountingMode;
use embassy_stm32::timer::qei::{self, Qei};
use embassy_stm32::timer::simple_pwm::{PwmPin, SimplePwm};
use embassy_stm32::wdg::IndependentWatchdog;
use embassy_stm32::{Config, rcc};
use furuta_robot::{Board, TICK_HZ, Ticks, WATCHDOG_US, Wiring, cortex};

static TICKS: Ticks = Ticks::new();

#[cortex_m_rt::entry]
fn main() -> ! {
    let p = embassy_stm32::init(clocks());
    let lines = || qei::Config { ch1_pull: Pull::Up, ch2_pull: Pull::Up, ..Default::default() };
    let _arm = Qei::new(p.TIM3, p.PA6, p.PA7, lines());
    let _pendulum = Qei::new(p.TIM4, p.PB6, p.PB7, lines());
    let pin = PwmPin::new(p.PA8, OutputType::PushPull);
    let mut pwm = SimplePwm::new(p.TIM1, Some(pin), None, None, None, Hertz(20_000), CountingMode::EdgeAlignedUp);
    pwm.ch1().enable();
    let wiring = Wiring {
        enable: pwm.ch1(),
        phase: Output::new(p.PA9, Level::Low, Speed::Low),
        stop: Input::new(p.PB10, Pull::Up),
        lamp: Output::new(p.PA5, Level::Low, Speed::Low),
    };
    cortex::start(Chip::CLOCK_HZ, TICK_HZ);
    furuta_robot::run(wiring, Chip(IndependentWatchdog::new(p.IWDG, WATCHDOG_US)), &TICKS)
}

/// 170 MHz from the internal oscillator.
fn clocks() -> Config {
    let mut config = Config::default();
    config.rcc.pll = Some(rcc::Pll {
        source: rcc::PllSource::HSI,
        prediv: rcc::PllPreDiv::DIV4,
        mul: rcc::PllMul::MUL85,
        divp: None,
        divq: None,
        divr: Some(rcc::PllRDiv::DIV2),
    });
    config.rcc.sys = rcc::Sysclk::PLL1_R;
    config.rcc.boost = true;
    config
}

#[cortex_m_rt::exception]
fn SysTick() {
    TICKS.record(cortex::cycles(), TIM3.cnt().read().cnt(), TIM4.cnt().read().cnt(), 0);
}

struct Chip(IndependentWatchdog<'static, IWDG>);

impl Board for Chip {
    const CLOCK_HZ: u32 = 170_000_000;

    fn now(&mut self) -> u32 {
        cortex::cycles()
    }

    fn start_watchdog(&mut self) {
        self.0.unleash();
    }

    fn feed_watchdog(&mut self) {
        self.0.pet();
    }
}

/// Takes the PWM pin from its timer and holds it low.
fn motor_off() {
    // SAFETY: after a fault nothing else uses the pin any more.
    core::mem::forget(Output::new(unsafe { PA8::steal() }, Level::Low, Speed::Low));
}

furuta_robot::motor_off_after_faults!(motor_off);
