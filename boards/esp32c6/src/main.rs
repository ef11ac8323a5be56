//! Furuta pendulum on an ESP32-C6, which has no floating-point unit. README.md has the wiring.
//!
//! Pulse counter unit 0 counts the arm's encoder and unit 1 the pendulum's, MCPWM0 drives the bridge, the system timer makes
//! the control tick. Interrupts handle integers only. A panic or a fault holds the PWM pin low until the watchdog resets
//! the chip.

#![no_std]
#![no_main]

use esp_hal::clock::CpuClock;
use esp_hal::gpio::{Input, InputConfig, Level, Output, OutputConfig, Pull};
use esp_hal::mcpwm::operator::PwmPinConfig;
use esp_hal::mcpwm::timer::PwmWorkingMode;
use esp_hal::mcpwm::{McPwm, PeripheralClockConfig};
use esp_hal::pcnt::Pcnt;
use esp_hal::pcnt::channel::{CtrlMode, EdgeMode};
use esp_hal::pcnt::unit::Unit;
use esp_hal::peripherals::{GPIO22, PCNT, SYSTIMER, TIMG0};
use esp_hal::time::Duration;
use esp_hal::timer::PeriodicTimer;
use esp_hal::timer::systimer::{self, SystemTimer};
use esp_hal::timer::timg::{MwdtStage, TimerGroup, Wdt};
use furuta_robot::{Board, TICK_HZ, Ticks, WATCHDOG_US, Wiring};

esp_bootloader_esp_idf::esp_app_desc!();

static TICKS: Ticks = Ticks::new();

#[esp_hal::main]
fn main() -> ! {
    let p = esp_hal::init(esp_hal::Config::default().with_cpu_clock(CpuClock::max()));
    let pulled_up = InputConfig::default().with_pull(Pull::Up);
    let pcnt = Pcnt::new(p.PCNT);
    count(&pcnt.unit0, &Input::new(p.GPIO18, pulled_up), &Input::new(p.GPIO19, pulled_up));
    count(&pcnt.unit1, &Input::new(p.GPIO20, pulled_up), &Input::new(p.GPIO21, pulled_up));
    // 40 MHz / 2,000 = 20 kHz.
    let clock = PeripheralClockConfig::with_prescaler(3);
    let mut mcpwm = McPwm::new(p.MCPWM0, clock);
    mcpwm.operator0.set_timer(&mcpwm.timer0);
    let enable = mcpwm.operator0.with_pin_a(p.GPIO22, PwmPinConfig::UP_ACTIVE_HIGH);
    mcpwm.timer0.start(clock.timer_clock_with_prescaler(1_999, PwmWorkingMode::Increase, 0));
    let wiring = Wiring {
        enable,
        phase: Output::new(p.GPIO23, Level::Low, OutputConfig::default()),
        stop: Input::new(p.GPIO10, pulled_up),
        lamp: Output::new(p.GPIO11, Level::Low, OutputConfig::default()),
    };
    let mut timer = PeriodicTimer::new(SystemTimer::new(p.SYSTIMER).alarm0);
    timer.set_interrupt_handler(tick);
    timer.start(Duration::from_micros(1_000_000 / u64::from(TICK_HZ))).unwrap();
    timer.listen();
    furuta_robot::run(wiring, Chip(TimerGroup::new(p.TIMG0).wdt), &TICKS)
}

/// Four counts to a line of the encoder, up where A leads B.
fn count<const N: usize>(unit: &Unit<'_, N>, a: &Input<'_>, b: &Input<'_>) {
    let (a, b) = (a.peripheral_input(), b.peripheral_input());
    // An edge of A counts by B's level, an edge of B by A's. Without limits the counter wraps at 16 bits.
    unit.channel0.set_edge_signal(a.clone());
    unit.channel0.set_ctrl_signal(b.clone());
    unit.channel0.set_input_mode(EdgeMode::Decrement, EdgeMode::Increment);
    unit.channel0.set_ctrl_mode(CtrlMode::Keep, CtrlMode::Reverse);
    unit.channel1.set_edge_signal(b);
    unit.channel1.set_ctrl_signal(a);
    unit.channel1.set_input_mode(EdgeMode::Increment, EdgeMode::Decrement);
    unit.channel1.set_ctrl_mode(CtrlMode::Keep, CtrlMode::Reverse);
    unit.clear();
    unit.resume();
}

#[esp_hal::handler]
fn tick() {
    SYSTIMER::regs().int_clr().write(|w| w.target(0).clear_bit_by_one());
    let raw = |unit: usize| PCNT::regs().u_cnt(unit).read().cnt().bits();
    TICKS.record(clock(), raw(0), raw(1), 0);
}

/// The system timer's low word: 16 MHz.
fn clock() -> u32 {
    SystemTimer::unit_value(systimer::Unit::Unit0) as u32
}

struct Chip(Wdt<TIMG0<'static>>);

impl Board for Chip {
    const CLOCK_HZ: u32 = 16_000_000;

    fn now(&mut self) -> u32 {
        clock()
    }

    fn start_watchdog(&mut self) {
        self.0.set_timeout(MwdtStage::Stage0, Duration::from_micros(WATCHDOG_US.into()));
        self.0.enable();
    }

    fn feed_watchdog(&mut self) {
        self.0.feed();
    }
}

/// Takes the PWM pin from its peripheral and holds it low.
fn motor_off() {
    // SAFETY: after a fault nothing else uses the pin any more.
    core::mem::forget(Output::new(unsafe { GPIO22::steal() }, Level::Low, OutputConfig::default()));
}

/// Panics, and exceptions, which esp-hal turns into panics.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    motor_off();
    loop {
        core::hint::spin_loop();
    }
}
