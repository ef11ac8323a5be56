//! Time: plans by what is left of the period, late steps, periods that did not come, the watchdog, costs by a dry run.

use crate::common::{Recipe, SMALL, artefact};
use crate::rig::Script;
use flowlet::control::{
    Chip, Config, ConfigError, Controller, Costs, Decider, Fault, Input, Limits, Reason, State, Timing, TimingError,
    Tolerance, measure_costs,
};
use flowlet::policy::{Artefact, Menu, Policy, PolicyError, StaticPolicy};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;
use std::cell::Cell;
use std::rc::Rc;

/// Plans of 1, 2 and 5 Euler steps.
type Timed<'a> = StaticPolicy<'a, 3, 2, 6, 8>;

const TIMING: Timing = Timing { period: 1024, deadline: 900, costs: Costs { fixed: 50, per_step: 100 } };

fn config(timing: Timing) -> Config<3, 2> {
    let limits = [Limits::new(-1.0, 2.0); 2];
    let names = ["channel 0", "channel 1", "channel 2"];
    let tolerance = Tolerance { sensor: 3, late: 2 };
    Config { timing: Some(timing), tolerance, ..Config::new(10_000, names, ["channel 0", "channel 1"], limits) }
}

fn controller(bytes: &crate::common::Aligned) -> Controller<Timed<'_>, 3, 2> {
    let policy = Policy::new(Artefact::new(bytes.bytes()).unwrap()).unwrap();
    let policy = Timed::with_menu(policy, Menu::new(&[1, 2, 5]).unwrap()).unwrap();
    let mut controller = Controller::new(policy, &config(TIMING)).unwrap();
    controller.arm().unwrap();
    controller
}

fn recipe() -> Recipe {
    Recipe { steps: 5, ..SMALL }
}

/// Steps begun late by `delays` and ended at `ends`, ticks after the period's start; period after period, over the
/// timer's wrap.
#[test]
fn plans_follow_the_time_left_over_the_wrap_of_the_timer() {
    let bytes = artefact(recipe());
    let mut controller = controller(&bytes);
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(1);
    let mut due = u32::MAX - 3 * TIMING.period;
    // Delay, end, plan; how many late steps there are then, and what was left at least.
    for (delay, end, steps, late, slack) in [
        (0, 600, 5, 0, 300),
        (350, 899, 5, 0, 1),
        (351, 700, 2, 0, 1),
        (650, 900, 2, 0, 0),
        (651, 800, 1, 0, 0),
        (750, 890, 1, 0, 0),
        (0, 901, 5, 1, -1),
        (0, 500, 5, 1, -1),
        (751, 760, 5, 2, -1),
        (10, 300, 5, 2, -1),
    ] {
        let mut chip = Script::of(&[due.wrapping_add(delay), due.wrapping_add(end)]);
        let input = Input { due, observation: Ok([1.0, 2.0, 3.0]), stop: false };
        let command = controller.step(&mut chip, &input, &mut noise);
        assert!(chip.times.is_empty());
        assert_eq!(chip.fed, u32::from(end <= 900), "fed at {end}");
        assert_eq!(command.decided, delay != 751);
        let status = command.status;
        assert_eq!((status.state, status.steps, status.late, status.slack), (State::Running, steps, late, slack));
        due = due.wrapping_add(TIMING.period);
    }
}

#[test]
fn late_steps_starvation_and_missing_periods_latch() {
    let bytes = artefact(recipe());
    let observation = Ok([1.0, 2.0, 3.0]);
    // What each of three steps does: times after its start, and periods that passed since the last one.
    let cases = [
        ("late", [[0, 100], [0, 901], [0, 5_000]], 1),
        ("starved", [[0, 100], [800, 810], [800, 810]], 1),
        ("missing", [[0, 100], [0, 100], [0, 100]], 2),
    ];
    for (name, times, periods) in cases {
        let mut controller = controller(&bytes);
        let mut noise = Xoshiro128PlusPlus::seed_from_u64(1);
        let mut due = 77;
        for (i, times) in times.iter().enumerate() {
            let mut chip = Script::of(&times.map(|ticks| due + ticks));
            let command = controller.step(&mut chip, &Input { due, observation, stop: false }, &mut noise);
            let latched = i == 2;
            assert_eq!(command.status.state == State::Fault, latched, "{name} {i}");
            due += periods * TIMING.period;
        }
        assert_eq!(controller.status().fault, Fault::of(Reason::Deadline), "{name}");
        // A latched fault feeds the watchdog on: a reset would forget the reason.
        let mut chip = Script::of(&[due + 10]);
        let command = controller.step(&mut chip, &Input { due, observation, stop: false }, &mut noise);
        assert_eq!((command.action, chip.fed), ([0.0; 2], 1));
    }
}

/// A timer that is read before the period began: an interrupt between the two must not look like four thousand million
/// ticks.
#[test]
fn a_period_that_begins_in_the_future_has_all_its_time() {
    let bytes = artefact(recipe());
    let mut controller = controller(&bytes);
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(1);
    let mut chip = Script::of(&[99, 99]);
    let input = Input { due: 100, observation: Ok([1.0; 3]), stop: false };
    let command = controller.step(&mut chip, &input, &mut noise);
    assert_eq!((command.status.steps, command.status.late), (5, 0));
}

#[test]
fn a_period_that_the_budget_cannot_meet_is_refused_with_what_would_fit() {
    let bytes = artefact(recipe());
    let policy = Policy::new(Artefact::new(bytes.bytes()).unwrap()).unwrap();
    let mut policy = Timed::with_menu(policy, Menu::new(&[1, 2, 5]).unwrap()).unwrap();
    let slow = Timing { costs: Costs { fixed: 100, per_step: 250 }, ..TIMING };
    let error = Controller::new(&mut policy, &config(slow)).unwrap_err();
    let expected = TimingError::Budget { steps: 5, needed: 1350, available: 900, fits: Some(3) };
    assert_eq!(error, ConfigError::Timing(expected));
    let said = error.to_string();
    assert!(said.contains("3 steps would fit"), "{said}");
}

/// The time of a chip on which a decision takes 40 ticks and 13 a step.
type Clock = Rc<Cell<u32>>;

struct Ticking<'a>(Timed<'a>, Clock);

impl Decider<3, 2> for Ticking<'_> {
    fn artefact(&self) -> &Artefact<'_> {
        Decider::artefact(&self.0)
    }

    fn menu(&self) -> &Menu {
        self.0.menu()
    }

    fn select(&mut self, plan: usize) -> Result<(), PolicyError> {
        self.0.select(plan)
    }

    fn self_test(&mut self) -> Result<(), PolicyError> {
        Decider::self_test(&mut self.0)
    }

    fn decide<R: Rng + ?Sized>(&mut self, observation: &[f32; 3], rng: &mut R) -> Result<[f32; 2], PolicyError> {
        let steps = self.0.policy().plan().steps as u32;
        self.1.set(self.1.get().wrapping_add(40 + 13 * steps));
        self.0.act(observation, rng)
    }
}

struct Timer(Clock);

impl Chip for Timer {
    fn now(&mut self) -> u32 {
        self.0.get()
    }
}

#[test]
fn costs_are_measured_by_a_dry_run() {
    let bytes = artefact(recipe());
    let policy = Policy::new(Artefact::new(bytes.bytes()).unwrap()).unwrap();
    // The timer wraps in the run.
    let clock = Clock::new(Cell::new(u32::MAX - 100));
    let timed = Timed::with_menu(policy, Menu::new(&[1, 2, 5]).unwrap()).unwrap();
    let costs = measure_costs(&mut Ticking(timed, clock.clone()), &mut Timer(clock)).unwrap();
    // An eighth more than 40 and 13, rounded up.
    assert_eq!(costs, Costs { fixed: 45, per_step: 15 });
    // With one plan there is one price.
    let mut single = StaticPolicy::<3, 2, 6, 5>::new(bytes.bytes()).unwrap();
    let costs = measure_costs(&mut single, &mut Script::of(&[0, 80, 100, 170, 200, 260, 300, 370, 400, 460, 500, 560]))
        .unwrap();
    assert_eq!(costs, Costs { fixed: 90, per_step: 0 });
}
