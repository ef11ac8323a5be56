//! A controlled rotary pendulum and what can happen to it: the cases of the `control` program, played alike on a board and
//! on the host, which includes this file.
//!
//! Time is simulated, in microseconds: what a case costs the chip depends on the target, what it leads to must not.
//! No allocation, no panics, the same bits everywhere.

use core::cell::Cell;
use flowlet::control::edge::SensorKind;
use flowlet::control::{
    Chip, Command, Config, ConfigError, Controller, Costs, Decider, Input, Limits, SensorFault, Status, Timing,
};
use flowlet::math::Digest;
use flowlet::policy::{Artefact, Menu, PolicyError};
use plants::Furuta;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use rand_xoshiro::{Xoshiro128PlusPlus, Xoshiro256PlusPlus};

/// Control steps of a case: two seconds.
pub const STEPS: u32 = 1000;

/// The step at which something happens.
const AT: u32 = 500;

/// Control period, microseconds, and that of the policy.
const PERIOD_US: u32 = 2_000;
const NATIVE_US: u32 = 10_000;

/// Seed of the plant's start and of the policy's noise.
const SEED: u64 = 1;

const VOLTS: Limits = Limits::new(-10.0, 10.0);

/// Something that happens to a sample, to the stop or to the time, at a step.
type Event = fn(u32, &mut Input<5>, &Timer);

/// One case: its name, the limits of the command, what happens.
pub struct Case(pub &'static str, Limits, Event);

/// All cases.
pub const CASES: [Case; 8] = [
    Case("undisturbed", VOLTS, |_, _, _| ()),
    Case("behind limits of rate and jerk", VOLTS.rate(3_000.0).jerk(1e6), |_, _, _| ()),
    Case("two lost samples", VOLTS, |step, input, _| {
        if (AT..AT + 2).contains(&step) {
            input.observation = Err(SensorFault { channel: 1, kind: SensorKind::Missing });
        }
    }),
    Case("an arm speed that is no number", VOLTS.rate(500.0), |step, input, _| {
        if let (AT.., Ok(observation)) = (step, &mut input.observation) {
            observation[3] = f32::NAN;
        }
    }),
    Case("a saturated encoder", VOLTS.rate(500.0), |step, input, _| {
        if step >= AT {
            input.observation = Err(SensorFault { channel: 4, kind: SensorKind::Saturated });
        }
    }),
    Case("the emergency stop", VOLTS.rate(500.0), |step, input, _| input.stop = step == AT),
    Case("a period that begins late", VOLTS, |step, _, timer| {
        timer.delay.set(if step == AT { 900 } else { 0 });
    }),
    Case("decisions that take too long", VOLTS, |step, _, timer| {
        timer.decision.set(if step >= AT { 1_900 } else { 1_000 });
    }),
];

/// Simulated time: a period begins with a delay, and a decision takes its time.
#[derive(Default)]
pub struct Timer {
    now: Cell<u32>,
    delay: Cell<u32>,
    decision: Cell<u32>,
    fed: Cell<u32>,
}

impl Chip for &Timer {
    fn now(&mut self) -> u32 {
        self.now.get()
    }

    fn feed_watchdog(&mut self) {
        self.fed.set(self.fed.get() + 1);
    }
}

/// A policy whose decisions take simulated time.
struct Timed<'t, P>(P, &'t Timer);

impl<P: Decider<5, 1>> Decider<5, 1> for Timed<'_, P> {
    fn artefact(&self) -> &Artefact<'_> {
        self.0.artefact()
    }

    fn menu(&self) -> &Menu {
        self.0.menu()
    }

    fn select(&mut self, plan: usize) -> Result<(), PolicyError> {
        self.0.select(plan)
    }

    fn self_test(&mut self) -> Result<(), PolicyError> {
        self.0.self_test()
    }

    fn decide<R: Rng + ?Sized>(&mut self, observation: &[f32; 5], rng: &mut R) -> Result<[f32; 1], PolicyError> {
        self.1.now.set(self.1.now.get().wrapping_add(self.1.decision.get()));
        self.0.decide(observation, rng)
    }
}

/// What a case led to.
pub struct Outcome {
    /// Sum of the rewards of all steps.
    pub total: f64,
    /// Digest of all commands.
    pub digest: u64,
    /// The last step's status.
    pub status: Status,
    /// Times that the policy decided.
    pub decisions: u32,
    /// Times that the watchdog was fed.
    pub fed: u32,
}

/// Plays one case from the start; `around` calls what it is given, a control step, and may measure it.
pub fn play<P: Decider<5, 1>>(
    case: &Case,
    policy: &mut P,
    mut around: impl FnMut(&mut dyn FnMut() -> Command<1>) -> Command<1>,
) -> Result<Outcome, ConfigError> {
    let Case(_, limits, event) = case;
    let steps = policy.artefact().plan().steps as u32;
    let costs = Costs { fixed: 200, per_step: 1_000 / steps };
    let mut config = Config::new(PERIOD_US, Furuta::OBS_NAMES, Furuta::ACT_NAMES, [*limits]);
    config.timing = Some(Timing { period: PERIOD_US, deadline: 1_800, costs });
    let timer = Timer::default();
    timer.decision.set(1_000);
    let mut controller = Controller::new(Timed(policy, &timer), &config)?;
    let mut plant = Furuta::new();
    plant.reset(&mut Xoshiro256PlusPlus::seed_from_u64(SEED));
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(SEED);
    let (mut total, mut digest, mut decisions) = (0.0, Digest::new(), 0);
    // What is in the way shows in the status, as whatever else happens.
    let _ = controller.arm();
    for step in 0..STEPS {
        // The timer's wrap is among the things that happen.
        let due = step.wrapping_mul(PERIOD_US).wrapping_sub(AT * PERIOD_US / 2);
        let observation = plant.observe().map(|value| value as f32);
        let mut input = Input { due, observation: Ok(observation), stop: false };
        event(step, &mut input, &timer);
        timer.now.set(due.wrapping_add(timer.delay.get()));
        let command = around(&mut || controller.step(&mut &timer, &input, &mut noise));
        decisions += u32::from(command.decided);
        digest.update(&command.action);
        total += plant.step(f64::from(command.action[0]));
    }
    let status = controller.status();
    Ok(Outcome { total, digest: digest.finish(), status, decisions, fed: timer.fed.get() })
}

/// Whether an artefact's period is the one that these cases are played at.
pub const fn fits(obs: usize, act: usize, period_us: u32) -> bool {
    obs == 5 && act == 1 && period_us == NATIVE_US
}
