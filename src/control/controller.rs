//! The control loop's step: sample in, command out; see the [module](super) for its order.
//!
//! The native period of a policy may be several control periods: encoders are read and speeds are filtered at the faster
//! one, the policy decides at its own. Between decisions the action is held, as in training, or interpolated. Averaging
//! the observations between suits noisy sensors; cosine and sine of an angle may be averaged (their mean points along the
//! mean direction, a little shorter), a wrapped angle may not. A policy acts as it was evaluated with [`Average::Latest`]
//! and [`Hold::Zero`].
//!
//! No panics, no allocation, deterministic; see [`Controller::step`] for what it guarantees.

use super::config::{Average, Config, ConfigError, Hold, check, check_plausible, check_ranges};
use super::edge::SensorKind;
use super::pace::Pace;
use super::{AtRest, Budget, Costs, Fault, Gate, Reason, State, Status, Supervisor};
use crate::flow::SampleError;
use crate::math;
use crate::policy::{Artefact, Menu, Policy, PolicyError, PolicyScratch, StaticPolicy};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// What the loop needs of the chip.
pub trait Chip {
    /// The timer, in ticks; it wraps at 2^32.
    fn now(&mut self) -> u32;

    /// Tells the watchdog that the loop is alive; called at the end of every step that was in time.
    fn feed_watchdog(&mut self) {}
}

/// No timer and no watchdog: for simulations, and where the loop waits for its samples.
#[derive(Debug, Clone, Copy, Default)]
pub struct Untimed;

impl Chip for Untimed {
    fn now(&mut self) -> u32 {
        0
    }
}

/// What decides: a [`StaticPolicy`] or a [`LentPolicy`], by value or by reference.
pub trait Decider<const OBS: usize, const ACT: usize> {
    /// The artefact, for its names, period and action range.
    fn artefact(&self) -> &Artefact<'_>;

    /// The plans among which it may choose.
    fn menu(&self) -> &Menu;

    /// Decides by the plan of this index from now on.
    fn select(&mut self, plan: usize) -> Result<(), PolicyError>;

    /// Runs the artefact's self-test, with whatever plan that needs.
    fn self_test(&mut self) -> Result<(), PolicyError>;

    /// Decides.
    fn decide<R: Rng + ?Sized>(&mut self, observation: &[f32; OBS], rng: &mut R) -> Result<[f32; ACT], PolicyError>;
}

impl<const OBS: usize, const ACT: usize, const HIDDEN: usize, const NODES: usize> Decider<OBS, ACT>
    for StaticPolicy<'_, OBS, ACT, HIDDEN, NODES>
{
    fn artefact(&self) -> &Artefact<'_> {
        self.policy().artefact()
    }

    fn menu(&self) -> &Menu {
        StaticPolicy::menu(self)
    }

    fn select(&mut self, plan: usize) -> Result<(), PolicyError> {
        StaticPolicy::select(self, plan)
    }

    fn self_test(&mut self) -> Result<(), PolicyError> {
        StaticPolicy::select(self, usize::MAX)?;
        StaticPolicy::self_test(self)
    }

    fn decide<R: Rng + ?Sized>(&mut self, observation: &[f32; OBS], rng: &mut R) -> Result<[f32; ACT], PolicyError> {
        self.act(observation, rng)
    }
}

/// A policy of any size that decides by its one plan in memory lent to it: for artefacts that arrive at run time.
#[derive(Debug)]
pub struct LentPolicy<'a, 's> {
    policy: Policy<'a>,
    menu: Menu,
    scratch: PolicyScratch<'s>,
}

impl<'a, 's> LentPolicy<'a, 's> {
    /// Tabulates the plan in `memory`, which needs [`PolicyScratch::len`] floats.
    pub fn new(policy: Policy<'a>, memory: &'s mut [f32]) -> Result<Self, PolicyError> {
        let scratch = PolicyScratch::carve(policy.artefact().velocity().shape(), policy.plan(), memory);
        let mut scratch = scratch.ok_or(PolicyError::Sample(SampleError::Scratch))?;
        policy.prepare(&mut scratch)?;
        Ok(Self { policy, menu: Menu::single(policy.plan().steps), scratch })
    }
}

impl<const OBS: usize, const ACT: usize> Decider<OBS, ACT> for LentPolicy<'_, '_> {
    fn artefact(&self) -> &Artefact<'_> {
        self.policy.artefact()
    }

    fn menu(&self) -> &Menu {
        &self.menu
    }

    fn select(&mut self, _: usize) -> Result<(), PolicyError> {
        Ok(())
    }

    fn self_test(&mut self) -> Result<(), PolicyError> {
        self.policy.self_test(&mut self.scratch, &mut [0.0; ACT])
    }

    fn decide<R: Rng + ?Sized>(&mut self, observation: &[f32; OBS], rng: &mut R) -> Result<[f32; ACT], PolicyError> {
        let mut action = [0.0; ACT];
        self.policy.act(observation, rng, &mut self.scratch, &mut action)?;
        Ok(action)
    }
}

impl<D: Decider<OBS, ACT>, const OBS: usize, const ACT: usize> Decider<OBS, ACT> for &mut D {
    fn artefact(&self) -> &Artefact<'_> {
        D::artefact(self)
    }

    fn menu(&self) -> &Menu {
        D::menu(self)
    }

    fn select(&mut self, plan: usize) -> Result<(), PolicyError> {
        D::select(self, plan)
    }

    fn self_test(&mut self) -> Result<(), PolicyError> {
        D::self_test(self)
    }

    fn decide<R: Rng + ?Sized>(&mut self, observation: &[f32; OBS], rng: &mut R) -> Result<[f32; ACT], PolicyError> {
        D::decide(self, observation, rng)
    }
}

/// The ticks that decisions take, by a dry run of the shortest and of the longest plan on the self-test's observation.
///
/// Each is run three times and the slowest counts, with an eighth on top. `chip` must count while this runs; interrupts
/// that strike during the run are counted too.
pub fn measure_costs<D: Decider<OBS, ACT>, C: Chip + ?Sized, const OBS: usize, const ACT: usize>(
    policy: &mut D,
    chip: &mut C,
) -> Result<Costs, PolicyError> {
    let mut observation = [0.0; OBS];
    for (o, test) in observation.iter_mut().zip(policy.artefact().self_test().0) {
        *o = *test;
    }
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(0);
    let menu = *policy.menu();
    let mut run = |plan: usize| {
        policy.select(plan)?;
        let mut slowest = 0;
        for _ in 0..3 {
            let start = chip.now();
            policy.decide(&observation, &mut rng)?;
            slowest = chip.now().wrapping_sub(start).max(slowest);
        }
        Ok((menu.steps(plan), slowest))
    };
    Ok(Costs::from_runs(run(0)?, run(menu.len())?))
}

/// A sensor that gave no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct SensorFault {
    /// Index of the observation channel.
    pub channel: usize,
    /// What is wrong with it.
    pub kind: SensorKind,
}

/// What a step takes in.
#[derive(Debug, Clone, Copy)]
pub struct Input<const OBS: usize> {
    /// The timer at the start of this control period, as the interrupt latched it.
    pub due: u32,
    /// The observation in the plant's units, or the sensor that failed.
    pub observation: Result<[f32; OBS], SensorFault>,
    /// Whether the emergency stop is pressed.
    pub stop: bool,
}

/// What a step gives out.
#[derive(Debug, Clone, Copy)]
pub struct Command<const ACT: usize> {
    /// For the motors, in the plant's units: finite and within its limits.
    pub action: [f32; ACT],
    /// For whoever watches.
    pub status: Status,
    /// Whether the policy decided in this step.
    pub decided: bool,
    /// Whether the gate held back what the policy wished.
    pub corrected: bool,
}

/// A policy with everything between it and the motors.
#[derive(Debug)]
pub struct Controller<P, const OBS: usize, const ACT: usize> {
    policy: P,
    gate: Gate<ACT>,
    supervisor: Supervisor,
    pace: Pace,
    window: Window<OBS>,
    plausible: [(f32, f32); OBS],
    hold: Hold,
    /// The last decision and the one before it.
    wish: [f32; ACT],
    from: [f32; ACT],
}

impl<P: Decider<OBS, ACT>, const OBS: usize, const ACT: usize> Controller<P, OBS, ACT> {
    /// Checks that policy, robot and timing fit each other, and that this machine computes what was exported.
    pub fn new(mut policy: P, config: &Config<OBS, ACT>) -> Result<Self, ConfigError> {
        let artefact = policy.artefact();
        let native = check(artefact, config.period_us, &config.observations, &config.actions)?;
        let gate = Gate::new(&config.limits, config.period_us).map_err(ConfigError::Gate)?;
        check_ranges(&config.limits, artefact)?;
        check_plausible(&config.plausible)?;
        let supervisor = Supervisor::new(config.tolerance).ok_or(ConfigError::Tolerance)?;
        let budget = config.timing.map(|timing| Budget::new(*policy.menu(), timing)).transpose();
        let budget = budget.map_err(ConfigError::Timing)?;
        policy.self_test().map_err(ConfigError::Policy)?;
        let rest = gate.last();
        Ok(Self {
            policy,
            gate,
            supervisor,
            pace: Pace::new(native, budget),
            window: Window::new(config.average),
            plausible: config.plausible,
            hold: config.hold,
            wish: rest,
            from: rest,
        })
    }

    /// The policy.
    pub fn policy(&self) -> &P {
        &self.policy
    }

    /// The policy, to be changed at rest: learned weights, another menu.
    pub fn policy_mut(&mut self) -> &mut P {
        &mut self.policy
    }

    /// Who drives, and what is latched.
    pub fn supervisor(&self) -> &Supervisor {
        &self.supervisor
    }

    /// Runs the self-test again and lets the policy drive from the next step on; what is in the way otherwise.
    ///
    /// A failed self-test is latched. Takes a decision's time: call it at rest, between two steps.
    pub fn arm(&mut self) -> Result<(), Fault> {
        if self.supervisor.state() == State::Idle {
            if self.policy.self_test().is_err() {
                self.supervisor.raise(Fault::of(Reason::SelfTest));
            }
            self.wish = self.gate.last();
            self.from = self.wish;
            self.window.clear();
            self.pace.restart();
        }
        self.supervisor.arm()
    }

    /// Brings a robot that runs to rest; a latched fault stays.
    pub fn disarm(&mut self) {
        self.supervisor.disarm();
    }

    /// The proof that nobody drives and that the last command is rest; gone before the next step.
    pub fn at_rest(&self) -> Option<AtRest<'_>> {
        self.supervisor.at_rest().filter(|_| self.gate.is_at_rest())
    }

    /// Takes a latched fault off unless the stop input is on; whether the robot is at rest now and can be armed.
    pub fn acknowledge(&mut self) -> bool {
        self.supervisor.acknowledge()
    }

    /// Latches a fault that was found elsewhere.
    pub fn raise(&mut self, fault: Fault) {
        self.supervisor.raise(fault);
    }

    /// One control period.
    ///
    /// Whatever comes in, the command is finite, inside its limits, and within rate and jerk of the last one but for an
    /// emergency stop, which takes effect in this step. Of the policy's errors only the fault is left: the fallback is
    /// approached from this step on.
    pub fn step<C: Chip + ?Sized, R: Rng + ?Sized>(
        &mut self,
        chip: &mut C,
        input: &Input<OBS>,
        rng: &mut R,
    ) -> Command<ACT> {
        let missed = self.pace.begin(input.due);
        let sample = match &input.observation {
            Ok(observation) => check_sample(observation, &self.plausible),
            Err(SensorFault { channel, kind }) => Fault::at(kind.reason(), *channel),
        };
        let state = self.supervisor.begin(input.stop, sample);
        let (mut decided, mut starved) = (false, false);
        if self.supervisor.drives() {
            self.pace.count();
            if let (State::Running, Ok(observation)) = (state, &input.observation) {
                self.window.take(observation);
                if self.pace.is_due() {
                    match self.pace.choose(chip.now()) {
                        Some(plan) => decided = self.decide(plan, observation, rng),
                        None => starved = true,
                    }
                }
            }
        }
        let mut corrected = false;
        let action = match self.supervisor.state() {
            State::Running | State::Holding => {
                let wish = self.between();
                let action = self.gate.apply(&wish);
                corrected = action.iter().zip(&wish).any(|(action, wish)| *action != math::flush(*wish));
                action
            }
            State::Idle => self.gate.rest(),
            State::Fault => self.gate.fall_back(),
            State::Stopped => self.gate.stop(),
        };
        let late = self.pace.end(chip.now());
        self.supervisor.end(late || starved || missed, decided);
        if !late {
            chip.feed_watchdog();
        }
        Command { action, status: self.status(), decided, corrected }
    }

    /// What a step reports.
    pub fn status(&self) -> Status {
        let [glitches, late] = self.supervisor.counts();
        Status {
            state: self.supervisor.state(),
            fault: self.supervisor.fault(),
            glitches,
            late,
            steps: self.pace.steps,
            slack: self.pace.slack(),
        }
    }

    /// A decision by the plan of this index; whether there is one.
    fn decide<R: Rng + ?Sized>(&mut self, plan: usize, latest: &[f32; OBS], rng: &mut R) -> bool {
        let observation = self.window.give(latest);
        let decision = self.policy.select(plan).and_then(|()| self.policy.decide(&observation, rng));
        let fault = match decision {
            Ok(action) if action.iter().all(|a| a.is_finite()) => {
                self.from = self.wish;
                self.wish = action;
                self.pace.decided(self.policy.menu().steps(plan));
                return true;
            }
            // Finite samples with a mean that is not.
            Err(PolicyError::Observation { channel }) => Fault::at(Reason::NotFinite, channel),
            _ => Fault::of(Reason::Policy),
        };
        self.supervisor.raise(fault);
        false
    }

    /// The wish of this step, between two decisions.
    fn between(&self) -> [f32; ACT] {
        match (self.hold, self.pace.share()) {
            (Hold::Linear, Some(share)) => {
                let mut wish = self.from;
                for (wish, to) in wish.iter_mut().zip(&self.wish) {
                    *wish += share * (to - *wish);
                }
                wish
            }
            _ => self.wish,
        }
    }
}

/// The samples since the last decision.
#[derive(Debug, Clone, Copy)]
struct Window<const OBS: usize> {
    average: [Average; OBS],
    sum: [f32; OBS],
    count: u16,
}

impl<const OBS: usize> Window<OBS> {
    fn new(average: [Average; OBS]) -> Self {
        Self { average, sum: [0.0; OBS], count: 0 }
    }

    fn clear(&mut self) {
        self.count = 0;
    }

    /// Takes in a good sample.
    fn take(&mut self, sample: &[f32; OBS]) {
        add(&mut self.sum, sample, self.count == 0);
        self.count = self.count.saturating_add(1);
    }

    /// What the policy sees; the window is empty afterwards.
    fn give(&mut self, latest: &[f32; OBS]) -> [f32; OBS] {
        let mut observation = *latest;
        let count = f32::from(self.count.max(1));
        for ((o, sum), average) in observation.iter_mut().zip(&self.sum).zip(&self.average) {
            if *average == Average::Mean {
                *o = sum / count;
            }
        }
        self.clear();
        observation
    }
}

/// Not generic, so that a firmware carries it once.
fn add(sum: &mut [f32], sample: &[f32], first: bool) {
    for (sum, sample) in sum.iter_mut().zip(sample) {
        *sum = if first { *sample } else { *sum + sample };
    }
}

/// The first channel that is not finite or not plausible.
fn check_sample(sample: &[f32], plausible: &[(f32, f32)]) -> Fault {
    for (channel, (value, (low, high))) in sample.iter().zip(plausible).enumerate() {
        if !value.is_finite() {
            return Fault::at(Reason::NotFinite, channel);
        }
        if value < low || value > high {
            return Fault::at(Reason::Implausible, channel);
        }
    }
    Fault::NONE
}
