//! An undisturbed loop: the bits of the evaluation, native and control rate, holds and means, arm and stop.

use crate::common::{Recipe, SMALL, artefact};
use crate::rig::{LIMITS, Loaded, config, furuta_bytes, good, observe, start, step};
use flowlet::control::{Average, Config, Controller, Decider, Fault, Hold, Input, Limits, Reason, State, Untimed};
use flowlet::flow::{Plan, Solver};
use flowlet::policy::{Artefact, Menu, Policy, PolicyScratch, StaticPolicy};
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro128PlusPlus;

/// Hardware in the loop demands it: behind the gate the policy acts with the bits of its evaluation, which decides on the
/// observation of every fifth step and holds.
#[test]
fn a_lawful_run_has_the_bits_of_the_evaluation() {
    let bytes = furuta_bytes();
    let mut reference = Loaded::new(&bytes);
    let mut policy = Loaded::new(&bytes);
    let mut controller = Controller::new(&mut policy, &config()).unwrap();
    controller.arm().unwrap();
    let ((mut a, mut noise_a), (mut b, mut noise_b)) = (start(7), start(7));
    let (mut total_a, mut total_b, mut action) = (0.0, 0.0, [0.0]);
    for i in 0..1500 {
        if i % 5 == 0 {
            action = reference.decide(&observe(&a), &mut noise_a).unwrap();
        }
        total_a += a.step(f64::from(action[0]));
        let command = step(&mut controller, &good(&b), &mut noise_b, &LIMITS);
        assert_eq!((command.decided, command.action[0].to_bits()), (i % 5 == 0, action[0].to_bits()), "step {i}");
        assert!(!command.corrected);
        total_b += b.step(f64::from(command.action[0]));
    }
    assert_eq!(f64::to_bits(total_a), f64::to_bits(total_b));
    let status = controller.status();
    assert_eq!((status.state, status.fault, status.glitches, status.late), (State::Running, Fault::NONE, 0, 0));
}

/// A command that is not what the policy wished says so.
#[test]
fn a_command_that_was_held_back_says_so() {
    let bytes = furuta_bytes();
    let (mut reference, mut policy) = (Loaded::new(&bytes), Loaded::new(&bytes));
    // A volt a step.
    let limits = LIMITS.rate(500.0);
    let mut controller = Controller::new(&mut policy, &Config { limits: [limits], ..config() }).unwrap();
    controller.arm().unwrap();
    let ((mut plant, mut noise_a), (_, mut noise_b)) = (start(7), start(7));
    let (mut wish, mut counts) = ([0.0], [0, 0]);
    for i in 0..1500 {
        if i % 5 == 0 {
            wish = reference.decide(&observe(&plant), &mut noise_a).unwrap();
        }
        let command = step(&mut controller, &good(&plant), &mut noise_b, &limits);
        assert_eq!(command.corrected, command.action != wish, "step {i}");
        counts[usize::from(command.corrected)] += 1;
        plant.step(f64::from(command.action[0]));
    }
    assert!(counts[0] > 100 && counts[1] > 100, "{counts:?}");
    controller.raise(Fault::of(Reason::Driver));
    assert!(!step(&mut controller, &good(&plant), &mut noise_b, &limits).corrected);
}

/// The same policy once a native period; its control period is the artefact's.
#[test]
fn at_the_native_rate_every_step_decides() {
    let bytes = artefact(SMALL);
    let mut policy = StaticPolicy::<3, 2, 6, 3>::new(bytes.bytes()).unwrap();
    let mut reference = StaticPolicy::<3, 2, 6, 3>::new(bytes.bytes()).unwrap();
    let mut controller = Controller::new(&mut policy, &small_config(10_000)).unwrap();
    controller.arm().unwrap();
    let mut noise = [Xoshiro128PlusPlus::seed_from_u64(1), Xoshiro128PlusPlus::seed_from_u64(1)];
    for i in 0..100 {
        let observation = [0.1 * i as f32, -1.0, 2.0];
        let input = Input { due: 0, observation: Ok(observation), stop: false };
        let command = controller.step(&mut Untimed, &input, &mut noise[0]);
        assert!(command.decided);
        assert_eq!(command.action, reference.act(&observation, &mut noise[1]).unwrap());
    }
}

fn small_config(period_us: u32) -> Config<3, 2> {
    let limits = [Limits::new(-1.0, 2.0); 2];
    Config::new(period_us, ["channel 0", "channel 1", "channel 2"], ["channel 0", "channel 1"], limits)
}

/// Means of the samples since the last decision where they are asked for, a straight line between actions.
#[test]
fn means_and_lines_between_decisions() {
    let bytes = artefact(SMALL);
    let mut reference = StaticPolicy::<3, 2, 6, 3>::new(bytes.bytes()).unwrap();
    let average = [Average::Mean, Average::Latest, Average::Mean];
    let config = Config { average, hold: Hold::Linear, ..small_config(2_500) };
    let mut controller = Controller::new(StaticPolicy::<3, 2, 6, 3>::new(bytes.bytes()).unwrap(), &config).unwrap();
    controller.arm().unwrap();
    let mut noise = [Xoshiro128PlusPlus::seed_from_u64(1), Xoshiro128PlusPlus::seed_from_u64(1)];
    let sample = |i: i32| [i as f32, 0.5 * i as f32, (i % 3) as f32];
    let (mut from, mut to) = ([0.0; 2], [0.0; 2]);
    for i in 0..41 {
        if i % 4 == 0 {
            let seen: Vec<[f32; 3]> = ((i - 3).max(0)..=i).map(sample).collect();
            let mean = |channel: usize| seen.iter().map(|s| s[channel]).sum::<f32>() / seen.len() as f32;
            from = to;
            to = reference.act(&[mean(0), sample(i)[1], mean(2)], &mut noise[1]).unwrap();
        }
        let input = Input { due: 0, observation: Ok(sample(i)), stop: false };
        let command = controller.step(&mut Untimed, &input, &mut noise[0]);
        let share = (i % 4 + 1) as f32 / 4.0;
        for channel in 0..2 {
            let line = from[channel] + share * (to[channel] - from[channel]);
            assert!((command.action[channel] - line).abs() < 1e-6, "step {i}");
        }
        if i % 4 == 3 {
            assert_eq!(command.action, to);
        }
    }
}

/// A decision that a glitch delays is made up for at the next good sample, and the one after it comes at its old time.
#[test]
fn a_delayed_decision_is_made_up_for() {
    let bytes = furuta_bytes();
    let mut policy = Loaded::new(&bytes);
    let mut controller = Controller::new(&mut policy, &config()).unwrap();
    controller.arm().unwrap();
    let (plant, mut noise) = start(7);
    let mut decided = Vec::new();
    for i in 0..20 {
        let mut input = good(&plant);
        if [5, 6, 10, 18].contains(&i) {
            input.observation.as_mut().unwrap()[0] = f32::NAN;
        }
        if step(&mut controller, &input, &mut noise, &LIMITS).decided {
            decided.push(i);
        }
    }
    assert_eq!(decided, [0, 7, 11, 15]);
}

/// Idle, armed, stopped at once past the rate limit, acknowledged, armed again, disarmed within the rate limit.
#[test]
fn arm_stop_acknowledge_and_disarm() {
    let bytes = furuta_bytes();
    let limits = Limits { stop: -0.5, fallback: 0.5, ..LIMITS.rate(100.0) };
    let mut controller = Controller::new(Loaded::new(&bytes), &Config { limits: [limits], ..config() }).unwrap();
    let (plant, mut noise) = start(7);
    let mut play = |controller: &mut Controller<Loaded<'_>, 5, 1>, stop: bool| {
        let command = step(controller, &Input { stop, ..good(&plant) }, &mut noise, &limits);
        (command.status.state, command.action[0])
    };
    assert_eq!(play(&mut controller, false), (State::Idle, -0.5));
    assert_eq!(controller.arm(), Ok(()));
    for _ in 0..40 {
        let before = controller.status();
        assert_eq!(play(&mut controller, false).0, State::Running, "{before:?}");
    }
    let (_, volts) = play(&mut controller, false);
    assert!((volts + 0.5).abs() > 0.5, "the policy drives: {volts}");
    assert_eq!(play(&mut controller, true), (State::Stopped, -0.5));
    assert!(!controller.acknowledge());
    assert_eq!(play(&mut controller, false), (State::Stopped, -0.5));
    assert_eq!(controller.arm(), Err(Fault::of(Reason::Stop)));
    assert!(controller.acknowledge());
    assert_eq!(controller.arm(), Ok(()));
    controller.raise(Fault::of(Reason::Driver));
    // 0.2 V a period towards the fallback.
    let approach = [-0.3, -0.1, 0.1, 0.3, 0.5, 0.5];
    for volts in approach {
        let (state, command) = play(&mut controller, false);
        assert!(state == State::Fault && (command - volts).abs() < 1e-6, "{command} {volts}");
    }
    assert!(controller.acknowledge());
    assert!(controller.at_rest().is_none(), "the fallback is commanded");
    // From the fallback to rest, 0.2 V a period: only then is it at rest, and only until it is armed.
    for volts in [0.3, 0.1, -0.1, -0.3, -0.5] {
        assert!(controller.at_rest().is_none());
        let (state, command) = play(&mut controller, false);
        assert!(state == State::Idle && (command - volts).abs() < 1e-6, "{command} {volts}");
    }
    play(&mut controller, false);
    assert!(controller.at_rest().is_some());
    controller.arm().unwrap();
    assert!(controller.at_rest().is_none());
    controller.disarm();
    assert_eq!(play(&mut controller, false).0, State::Idle);
}

/// Every plan of a menu has the bits of a policy that knows that plan alone, in whatever order they are chosen.
#[test]
fn plans_of_a_menu_have_their_own_bits() {
    for solver in [Solver::Euler, Solver::Heun, Solver::Rk4] {
        let bytes = artefact(Recipe { solver, steps: 5, ..SMALL });
        let artefact = Artefact::new(bytes.bytes()).unwrap();
        let menu = Menu::of(&artefact);
        // The measured ones, 1 and 3 steps, and the artefact's own.
        assert_eq!(Some(menu), Menu::new(&[1, 3, 5]));
        let policy = Policy::new(artefact).unwrap();
        macro_rules! plans {
            ($nodes:expr) => {{
                let mut owner = StaticPolicy::<3, 2, 6, { $nodes }>::with_menu(policy, menu).unwrap();
                owner.self_test().unwrap();
                for index in [0, 2, 1, 0, 9] {
                    owner.select(index).unwrap();
                    let plan = Plan { steps: menu.steps(index), ..*artefact.plan() };
                    let alone = Policy::with_plan(artefact, plan).unwrap();
                    let mut memory = vec![0.0; PolicyScratch::len(artefact.velocity().shape(), &plan)];
                    let mut scratch = PolicyScratch::carve(artefact.velocity().shape(), &plan, &mut memory).unwrap();
                    alone.prepare(&mut scratch).unwrap();
                    let mut rng = [Xoshiro128PlusPlus::seed_from_u64(4), Xoshiro128PlusPlus::seed_from_u64(4)];
                    let mut expected = [0.0; 2];
                    alone.act(&[1.0, -2.0, 0.5], &mut rng[0], &mut scratch, &mut expected).unwrap();
                    assert_eq!(owner.act(&[1.0, -2.0, 0.5], &mut rng[1]).unwrap(), expected, "{solver:?} {index}");
                }
            }};
        }
        match solver {
            Solver::Euler => plans!(9),
            Solver::Heun => plans!(12),
            _ => plans!(21),
        }
        assert!(StaticPolicy::<3, 2, 6, 5>::with_menu(policy, menu).is_err());
    }
}
