//! The robot: encoders and stop in, policy and safety, motor out, a tick at a time.
//!
//! Every tick (2 ms) reads the stop and both encoders; every fifth one the policy decides, as in training. The stop goes
//! before latched faults, these before the policy, and whatever is commanded passes the gate. No panics, no allocation,
//! nothing waits; the same bits everywhere for the same counts.

use crate::policy::{ACT, Furuta, OBS};
use crate::sensors::Sensors;
use crate::start::{Start, Step};
use crate::{Board, TICK_HZ, Tick, lamp, policy};
use core::fmt;
use embedded_hal::digital::{InputPin, OutputPin};
use embedded_hal::pwm::SetDutyCycle;
use flowlet::control::edge::{PhaseEnable, Scale, StopInput};
use flowlet::control::{
    Chip, Command, Config, ConfigError, Controller, Fault, Input, Limits, Reason, Timing, measure_costs,
};
use flowlet::policy::PolicyError;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

/// Voltage of the motor's supply, which full duty puts on the motor. It must be yours, or every voltage is wrong by the
/// ratio.
pub const SUPPLY_VOLTS: f32 = 12.0;

/// What the robot expects of its policy, and what its sensors may say.
pub const CONFIG: Config<OBS, ACT> = Config {
    // Half as much again as the simulated plant reaches by any bang-bang voltage: 3.1 rad, in its stops; 65 and 80 rad/s.
    plausible: [(-4.0, 4.0), (-1.0, 1.0), (-1.0, 1.0), (-100.0, 100.0), (-120.0, 120.0)],
    ..Config::new(
        1_000_000 / TICK_HZ,
        ["arm", "cos_pendulum", "sin_pendulum", "arm_dot", "pendulum_dot"],
        ["voltage"],
        [Limits::new(-10.0, 10.0)],
    )
};

/// The share of a tick in which the command must be there, in hundredths.
const DEADLINE: u32 = 90;

/// Seed of the policy's noise.
const SEED: u64 = 1;

/// The pins of a board.
#[derive(Debug)]
pub struct Wiring<E, P, S, L> {
    /// PWM to the bridge's enable input.
    pub enable: E,
    /// To the bridge's phase input: high forwards.
    pub phase: P,
    /// The stop: a normally closed switch to ground, with a pull-up.
    pub stop: S,
    /// See [`lamp`].
    pub lamp: L,
}

/// Why the motor stays off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// The artefact, or what this chip computes with it.
    Policy(PolicyError),
    /// The artefact belongs to another robot, or a decision has no room in a tick.
    Config(ConfigError),
    /// The constants of the encoders are out of range.
    Sensors,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Sensors => f.write_str("the constants of the encoders are out of range: see sensors.rs"),
        }
    }
}

impl core::error::Error for Refusal {}

/// A board as the controller sees a chip.
struct Clock<'b, B>(&'b mut B);

impl<B: Board> Chip for Clock<'_, B> {
    fn now(&mut self) -> u32 {
        self.0.now()
    }

    fn feed_watchdog(&mut self) {
        self.0.feed_watchdog();
    }
}

/// Policy, safety and sensors, without pins.
#[derive(Debug)]
pub struct Robot<'p> {
    controller: Controller<&'p mut Furuta, OBS, ACT>,
    sensors: Sensors,
    start: Start,
    noise: Xoshiro128PlusPlus,
}

impl<'p> Robot<'p> {
    /// Self-tests the policy, measures what a decision takes on `board`, and stands at rest as of `tick`.
    ///
    /// # Errors
    /// See [`Refusal`]. The motor must then stay off.
    pub fn new<B: Board>(policy: &'p mut Furuta, board: &mut B, tick: &Tick) -> Result<Self, Refusal> {
        let costs = measure_costs(policy, &mut Clock(board)).map_err(Refusal::Policy)?;
        let period = B::CLOCK_HZ / TICK_HZ;
        let timing = Timing { period, deadline: period / 100 * DEADLINE, costs };
        let config = Config { timing: Some(timing), ..CONFIG };
        let controller = Controller::new(policy, &config).map_err(Refusal::Config)?;
        let sensors = Sensors::zero(tick).ok_or(Refusal::Sensors)?;
        Ok(Self { controller, sensors, start: Start::default(), noise: Xoshiro128PlusPlus::seed_from_u64(SEED) })
    }

    /// One tick: the motor's voltage, finite and within its limits.
    pub fn step<B: Board>(&mut self, board: &mut B, tick: &Tick, stop: bool) -> Command<ACT> {
        let wish = self.start.tick(stop, tick.counts);
        if let (Step::Zero, Some(sensors)) = (wish, Sensors::zero(tick)) {
            self.sensors = sensors;
        }
        let input = Input { due: tick.due, observation: self.sensors.observe(tick), stop };
        let command = self.controller.step(&mut Clock(board), &input, &mut self.noise);
        if wish == Step::Go && self.controller.acknowledge() {
            // What is in its way stays latched, and the lamp tells it.
            let _ = self.controller.arm();
        }
        command
    }
}

/// A robot with its pins.
#[derive(Debug)]
pub struct Rig<'p, E, P, S, L> {
    robot: Robot<'p>,
    motor: PhaseEnable<E, P>,
    stop: StopInput<S>,
    lamp: L,
}

impl<'p, E: SetDutyCycle, P: OutputPin, S: InputPin, L: OutputPin> Rig<'p, E, P, S, L> {
    /// Connects a robot.
    pub fn new(robot: Robot<'p>, wiring: Wiring<E, P, S, L>) -> Self {
        let Wiring { enable, phase, stop, lamp } = wiring;
        Self {
            robot,
            motor: PhaseEnable::new(enable, phase, Scale::new(SUPPLY_VOLTS)),
            stop: StopInput::to_ground(stop),
            lamp,
        }
    }

    /// One tick, from pins to pins.
    pub fn tick<B: Board>(&mut self, board: &mut B, tick: &Tick) -> Command<ACT> {
        let stop = self.stop.pressed();
        let command = self.robot.step(board, tick, stop);
        if self.motor.drive(command.action[0]).is_err() {
            self.robot.controller.raise(Fault::of(Reason::Driver));
        }
        // A lamp that does not obey is no reason to stop.
        let _ = self.lamp.set_state(lamp::lit(tick.number, &command.status, &self.robot.start).into());
        command
    }
}

/// Checks the policy and controls the pendulum for ever; with a policy that is refused the lamp flutters for ever.
///
/// The ticks must run already, the motor must be off. The watchdog is started when the checks are done.
pub fn run<E: SetDutyCycle, P: OutputPin, S: InputPin, L: OutputPin, B: Board>(
    mut wiring: Wiring<E, P, S, L>,
    mut board: B,
    ticks: &crate::Ticks,
) -> ! {
    let mut tick = ticks.after(0);
    let mut policy = policy::load().map_err(Refusal::Policy);
    let robot = match &mut policy {
        Ok(policy) => Robot::new(policy, &mut board, &tick),
        Err(refusal) => Err(*refusal),
    };
    let robot = match robot {
        Ok(robot) => robot,
        Err(_) => loop {
            tick = ticks.after(tick.number);
            let _ = wiring.lamp.set_state(lamp::flutter(tick.number).into());
        },
    };
    let mut rig = Rig::new(robot, wiring);
    board.start_watchdog();
    // The checks have taken more than a tick.
    tick = ticks.newest();
    loop {
        tick = ticks.after(tick.number);
        rig.tick(&mut board, &tick);
    }
}
