//! The plant of the training in place of the pins: the same rig as on a board, on a PC or in QEMU.
//!
//! [`Bench`] is the pendulum with its bridge, encoders, stop and lamp. The rig sees pins and raw counts that wrap, the plant
//! sees the duty cycle it was given, so a run goes through everything but the chip's peripherals. [`Episode`] is the
//! run that every target must repeat bit for bit.

use crate::{Board, COUNTS, Refusal, Rig, Robot, SUPPLY_VOLTS, TICK_HZ, Tick, Wiring, policy};
use core::cell::Cell;
use core::convert::Infallible;
use core::f64::consts::TAU;
use embedded_hal::digital::{self, InputPin, OutputPin};
use embedded_hal::pwm::{self, SetDutyCycle};
use flowlet::control::Command;
use flowlet::math::Digest;
use plants::Furuta;

/// Full duty of a 20 kHz PWM at the 168 MHz of an STM32F405.
const MAX_DUTY: u16 = 8_400;

/// The levels of the pins, and what the plant's sensors are made to do.
#[derive(Debug, Default)]
pub struct Pins {
    /// Duty of the enable pin.
    pub duty: Cell<u16>,
    /// Level of the phase pin.
    pub forwards: Cell<bool>,
    /// Whether the stop is pressed, or its wire broken.
    pub stop: Cell<bool>,
    /// Whether the lamp is lit.
    pub lit: Cell<bool>,
}

/// One pin, as the rig holds it.
#[derive(Debug)]
pub struct Pin<'p>(&'p Pins, Role);

#[derive(Debug)]
enum Role {
    Enable,
    Phase,
    Stop,
    Lamp,
}

impl digital::ErrorType for Pin<'_> {
    type Error = Infallible;
}

impl pwm::ErrorType for Pin<'_> {
    type Error = Infallible;
}

impl SetDutyCycle for Pin<'_> {
    fn max_duty_cycle(&self) -> u16 {
        MAX_DUTY
    }

    fn set_duty_cycle(&mut self, duty: u16) -> Result<(), Infallible> {
        self.0.duty.set(duty);
        Ok(())
    }
}

impl OutputPin for Pin<'_> {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.set(false);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.set(true);
        Ok(())
    }
}

impl InputPin for Pin<'_> {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        Ok(self.0.stop.get())
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        Ok(!self.0.stop.get())
    }
}

impl Pin<'_> {
    fn set(&self, level: bool) {
        match self.1 {
            Role::Phase => self.0.forwards.set(level),
            Role::Lamp => self.0.lit.set(level),
            Role::Enable | Role::Stop => {}
        }
    }
}

/// A chip whose every step takes no time.
#[derive(Debug, Default)]
pub struct Instant {
    /// How often the watchdog was fed.
    pub fed: u32,
}

impl Board for Instant {
    const CLOCK_HZ: u32 = 1_000_000;

    fn now(&mut self) -> u32 {
        0
    }

    fn start_watchdog(&mut self) {}

    fn feed_watchdog(&mut self) {
        self.fed += 1;
    }
}

/// The pendulum on its bench, with a rig connected to it.
#[derive(Debug)]
pub struct Bench<'p> {
    /// The plant, hanging at rest.
    pub plant: Furuta,
    /// What is added to the raw counts and to the lost ones: a fault to be simulated.
    pub slip: u16,
    /// See [`Tick::lost`].
    pub lost: u16,
    /// What the rig runs on.
    pub board: Instant,
    pins: &'p Pins,
    rig: Rig<'p, Pin<'p>, Pin<'p>, Pin<'p>, Pin<'p>>,
    number: u32,
}

impl<'p> Bench<'p> {
    /// A pendulum that hangs at rest, its counters about to wrap, with a rig that was just switched on.
    pub fn new(policy: &'p mut policy::Furuta, pins: &'p Pins) -> Result<Self, Refusal> {
        let plant = Furuta::new();
        let mut board = Instant::default();
        let robot = Robot::new(policy, &mut board, &tick(&plant, 0, 0, 0))?;
        let wiring = Wiring {
            enable: Pin(pins, Role::Enable),
            phase: Pin(pins, Role::Phase),
            stop: Pin(pins, Role::Stop),
            lamp: Pin(pins, Role::Lamp),
        };
        Ok(Self { plant, slip: 0, lost: 0, board, pins, rig: Rig::new(robot, wiring), number: 0 })
    }

    /// What the interrupt would record now.
    pub fn sense(&mut self) -> Tick {
        self.number = self.number.wrapping_add(1);
        tick(&self.plant, self.number, self.slip, self.lost)
    }

    /// The rig's part of a tick.
    pub fn decide(&mut self, tick: &Tick) -> Command<1> {
        self.rig.tick(&mut self.board, tick)
    }

    /// The plant's part: the voltage that the pins stand for, and the reward.
    pub fn advance(&mut self) -> (f64, f64) {
        let size = f64::from(SUPPLY_VOLTS) * (f64::from(self.pins.duty.get()) / f64::from(MAX_DUTY));
        let volts = if self.pins.forwards.get() { size } else { -size };
        (volts, self.plant.step(volts))
    }

    /// A whole tick; the command.
    pub fn tick(&mut self) -> Command<1> {
        let tick = self.sense();
        let command = self.decide(&tick);
        self.advance();
        command
    }

    /// Presses the stop for 0.2 s and lets it go for 0.6 s: the motor runs at the end if nothing is in its way.
    pub fn press_and_release(&mut self) {
        for down in [true, false] {
            self.pins.stop.set(down);
            for _ in 0..if down { TICK_HZ / 5 } else { TICK_HZ / 2 + 2 } {
                self.tick();
            }
        }
    }
}

/// What the interrupt would record.
fn tick(plant: &Furuta, number: u32, slip: u16, lost: u16) -> Tick {
    // Hanging and in the middle, both counters are about to wrap.
    let raw = |angle: f64| (libm::floor(angle * f64::from(COUNTS) / TAU + 0.5) as i32 - 1) as u16;
    let hanging = plant.alpha - 0.5 * TAU;
    Tick { number, due: 0, counts: [raw(plant.theta).wrapping_add(slip), raw(hanging)], lost }
}

/// Ticks of an episode: six seconds.
pub const TICKS: u32 = 3_000;

/// What an episode gives.
pub struct Episode {
    /// Sum of the rewards.
    pub total: f64,
    /// Of the motor's voltage at every tick.
    pub digest: Digest,
    /// Ticks that the pendulum has been within 0.2 rad of upright without interruption.
    pub upright: u32,
}

impl Episode {
    /// Before the first tick.
    pub fn new() -> Self {
        Self { total: 0.0, digest: Digest::new(), upright: 0 }
    }

    /// Moves the plant on by a tick and takes in what comes of it.
    pub fn advance(&mut self, bench: &mut Bench<'_>) {
        let (volts, reward) = bench.advance();
        self.total += reward;
        self.digest.update(&[volts as f32]);
        self.upright = if libm::cos(bench.plant.alpha) > 0.98 { self.upright + 1 } else { 0 };
    }

    /// The whole of it: switched on, stop pressed and let go, then [`TICKS`] of control from hanging.
    pub fn run() -> Result<Self, Refusal> {
        let (mut policy, pins) = (policy::load().map_err(Refusal::Policy)?, Pins::default());
        let mut bench = Bench::new(&mut policy, &pins)?;
        bench.press_and_release();
        let mut episode = Self::new();
        for _ in 0..TICKS {
            let tick = bench.sense();
            bench.decide(&tick);
            episode.advance(&mut bench);
        }
        Ok(episode)
    }
}

impl Default for Episode {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowlet::control::{Reason, State};

    fn running<'p>(policy: &'p mut policy::Furuta, pins: &'p Pins) -> Bench<'p> {
        let mut bench = Bench::new(policy, pins).unwrap();
        bench.press_and_release();
        assert_eq!(bench.tick().status.state, State::Running);
        bench
    }

    /// Ticks until the state is `state`.
    fn until(bench: &mut Bench<'_>, state: State) -> u32 {
        (0..1000).find(|_| bench.tick().status.state == state).unwrap()
    }

    #[test]
    fn the_pendulum_is_swung_up_and_held() {
        let episode = Episode::run().unwrap();
        assert!(episode.upright > TICKS / 3, "{} {}", episode.total, episode.upright);
        assert_eq!(episode.digest.finish(), Episode::run().unwrap().digest.finish());
    }

    #[test]
    fn nothing_moves_before_the_stop_was_pressed_and_released() {
        let (mut policy, pins) = (policy::load().unwrap(), Pins::default());
        let mut bench = Bench::new(&mut policy, &pins).unwrap();
        for pressed in [false, true] {
            pins.stop.set(pressed);
            for _ in 0..5_000 {
                bench.tick();
                assert_eq!(pins.duty.get(), 0);
            }
        }
        assert_eq!(bench.board.fed, 10_000);
    }

    #[test]
    fn the_stop_takes_the_motor_off_in_its_tick_and_its_release_starts_nothing_that_swings() {
        let (mut policy, pins) = (policy::load().unwrap(), Pins::default());
        let mut bench = running(&mut policy, &pins);
        for _ in 0..400 {
            bench.tick();
        }
        for (pressed, ticks) in [(true, 100), (false, 1_000)] {
            pins.stop.set(pressed);
            for _ in 0..ticks {
                let command = bench.tick();
                assert_eq!((pins.duty.get(), command.status.fault.reason), (0, Reason::Stop));
            }
        }
        // Held until it hangs at rest, it starts as it did the first time.
        bench.plant = Furuta::new();
        bench.press_and_release();
        assert_eq!(bench.tick().status.state, State::Running);
    }

    #[test]
    fn a_jump_of_an_encoder_is_held_over_and_then_latched() {
        let (mut policy, pins) = (policy::load().unwrap(), Pins::default());
        let mut bench = running(&mut policy, &pins);
        bench.slip = 300;
        assert_eq!(bench.tick().status.state, State::Holding);
        bench.slip = 0;
        assert_eq!(bench.tick().status.state, State::Running);
        bench.slip = 300;
        until(&mut bench, State::Fault);
        assert_eq!(bench.tick().status.fault.reason, Reason::Saturated);
        assert_eq!(pins.duty.get(), 0);
    }

    #[test]
    fn lost_counts_and_an_arm_beyond_its_stops_are_latched() {
        let (mut policy, pins) = (policy::load().unwrap(), Pins::default());
        let mut bench = running(&mut policy, &pins);
        bench.lost = 1;
        assert!(until(&mut bench, State::Fault) < 5);
        assert_eq!(bench.tick().status.fault.reason, Reason::Saturated);
        let mut bench = running(&mut policy, &pins);
        // An arm that creeps off without the encoder jumping: its stops are loose.
        while bench.slip < 4_000 {
            bench.slip += 20;
            bench.tick();
        }
        assert_eq!(bench.tick().status.fault.reason, Reason::Implausible);
        assert_eq!(pins.duty.get(), 0);
    }

    /// The oracle is the plant of the training, whose own encoders and filters are those of the robot: where it hangs at
    /// the start, the observations have the same bits.
    #[test]
    fn observations_have_the_bits_of_the_training() {
        let mut plant = Furuta::new();
        let mut sensors = crate::Sensors::zero(&tick(&plant, 0, 0, 0)).unwrap();
        let mut fastest = [0.0f32; 2];
        for step in 0..3_000u32 {
            let seen = sensors.observe(&tick(&plant, step, 0, 0)).unwrap();
            assert_eq!(seen.map(f32::to_bits), plant.observe().map(|x| (x as f32).to_bits()), "step {step}");
            fastest = [0, 1].map(|joint| fastest[joint].max(seen[3 + joint].abs()));
            plant.step(if step / 90 % 2 == 0 { 10.0 } else { -10.0 });
        }
        assert!(fastest[1] > 5.0, "{fastest:?}");
    }

    /// The ranges that the controller takes for plausible are wider than anything the plant does at full voltage.
    #[test]
    fn plausible_speeds_leave_room() {
        let mut fastest = [0.0f64; 3];
        for half_period in 10..200 {
            let mut plant = Furuta::new();
            for step in 0..3_000u32 {
                plant.step(if step / half_period % 2 == 0 { 10.0 } else { -10.0 });
                let now = [plant.theta, plant.theta_dot, plant.alpha_dot].map(f64::abs);
                fastest = [0, 1, 2].map(|channel| fastest[channel].max(now[channel]));
            }
        }
        std::println!("fastest: arm {} rad, {} rad/s, pendulum {} rad/s", fastest[0], fastest[1], fastest[2]);
        let allowed = crate::CONFIG.plausible;
        assert!(fastest[0] < f64::from(allowed[0].1));
        assert!(fastest[1] < f64::from(allowed[3].1) && fastest[2] < f64::from(allowed[4].1));
    }
}
