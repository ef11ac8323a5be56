//! What the tests of this folder share: the committed furuta policy on the simulated plant, and a chip with a script.

use crate::common::Aligned;
use flowlet::control::{Chip, Command, Config, Controller, Decider, Input, Limits, Untimed};
use flowlet::flow::Plan;
use flowlet::policy::{Artefact, Menu, Policy, PolicyError, PolicyScratch};
use plants::Furuta;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::{Xoshiro128PlusPlus, Xoshiro256PlusPlus};

pub const VOLTS: f32 = 10.0;
pub const PERIOD_US: u32 = 2_000;
pub const LIMITS: Limits = Limits::new(-VOLTS, VOLTS);

pub fn furuta_bytes() -> Aligned {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/firmware/policies/furuta.flw");
    Aligned::new(&std::fs::read(path).unwrap())
}

pub fn config() -> Config<5, 1> {
    Config::new(PERIOD_US, Furuta::OBS_NAMES, Furuta::ACT_NAMES, [LIMITS])
}

/// A policy with its plans and memory on the heap, for artefacts of any size.
pub struct Loaded<'a> {
    artefact: Artefact<'a>,
    menu: Menu,
    plans: Vec<(Policy<'a>, Vec<f32>)>,
    selected: usize,
    /// What decisions and self-tests give instead of an answer, where something is to fail.
    pub broken: Option<PolicyError>,
    pub poison: Option<f32>,
}

impl<'a> Loaded<'a> {
    pub fn new(bytes: &'a Aligned) -> Self {
        let artefact = Artefact::new(bytes.bytes()).unwrap();
        let menu = Menu::of(&artefact);
        let plans = (0..menu.len()).map(|index| {
            let plan = Plan { steps: menu.steps(index), ..*artefact.plan() };
            let policy = Policy::with_plan(artefact, plan).unwrap();
            let mut memory = vec![0.0; PolicyScratch::len(artefact.velocity().shape(), &plan)];
            policy.prepare(&mut carve(&policy, &mut memory)).unwrap();
            (policy, memory)
        });
        Self { artefact, menu, plans: plans.collect(), selected: menu.len() - 1, broken: None, poison: None }
    }
}

fn carve<'m>(policy: &Policy<'_>, memory: &'m mut [f32]) -> PolicyScratch<'m> {
    PolicyScratch::carve(policy.artefact().velocity().shape(), policy.plan(), memory).unwrap()
}

impl<const OBS: usize, const ACT: usize> Decider<OBS, ACT> for Loaded<'_> {
    fn artefact(&self) -> &Artefact<'_> {
        &self.artefact
    }

    fn menu(&self) -> &Menu {
        &self.menu
    }

    fn select(&mut self, plan: usize) -> Result<(), PolicyError> {
        self.selected = plan.min(self.menu.len() - 1);
        Ok(())
    }

    fn self_test(&mut self) -> Result<(), PolicyError> {
        let (policy, memory) = self.plans.last_mut().unwrap();
        match self.broken {
            Some(error) => Err(error),
            None => policy.self_test(&mut carve(policy, memory), &mut [0.0; ACT]),
        }
    }

    fn decide<R: Rng + ?Sized>(&mut self, observation: &[f32; OBS], rng: &mut R) -> Result<[f32; ACT], PolicyError> {
        let (policy, memory) = &mut self.plans[self.selected];
        let mut action = [0.0; ACT];
        policy.act(observation, rng, &mut carve(policy, memory), &mut action)?;
        match self.broken {
            Some(error) => Err(error),
            None => Ok(action.map(|a| self.poison.unwrap_or(a))),
        }
    }
}

/// A plant at the start of an episode, and the policy's noise.
pub fn start(seed: u64) -> (Furuta, Xoshiro128PlusPlus) {
    let mut plant = Furuta::new();
    plant.reset(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
    (plant, Xoshiro128PlusPlus::seed_from_u64(seed))
}

pub fn observe(plant: &Furuta) -> [f32; 5] {
    plant.observe().map(|value| value as f32)
}

pub fn good(plant: &Furuta) -> Input<5> {
    Input { due: 0, observation: Ok(observe(plant)), stop: false }
}

/// One untimed step whose command is checked against `limits`.
pub fn step<P: Decider<5, 1>>(
    controller: &mut Controller<P, 5, 1>,
    input: &Input<5>,
    rng: &mut Xoshiro128PlusPlus,
    limits: &Limits,
) -> Command<1> {
    let command = controller.step(&mut Untimed, input, rng);
    let [volts] = command.action;
    assert!(volts >= limits.low && volts <= limits.high, "{volts} for {input:?}");
    command
}

/// A chip whose timer gives the times of a list, one a call, and counts what the watchdog is fed.
#[derive(Default)]
pub struct Script {
    pub times: std::collections::VecDeque<u32>,
    pub fed: u32,
}

impl Script {
    pub fn of(times: &[u32]) -> Self {
        Self { times: times.iter().copied().collect(), fed: 0 }
    }
}

impl Chip for Script {
    fn now(&mut self) -> u32 {
        self.times.pop_front().expect("the timer is read as often as documented")
    }

    fn feed_watchdog(&mut self) {
        self.fed += 1;
    }
}
