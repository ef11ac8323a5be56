//! Bad input: whatever the sensors give, at whatever step, the motor's command is a number within its limits.

use crate::rig::{LIMITS, Loaded, config, furuta_bytes, good, observe, start, step};
use flowlet::control::edge::{Encoder, SensorKind, Unwrap};
use flowlet::control::{Config, Controller, Fault, Input, Limits, Reason, SensorFault, State, Tolerance};
use plants::Furuta;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// Control steps of an episode of these tests: 50 decisions.
const STEPS: usize = 250;

const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// The sweep of the specification: each kind of bad number, on each channel, at each step; alone, and from then on.
#[test]
fn every_bad_number_on_every_channel_at_every_step() {
    let bytes = furuta_bytes();
    let mut policy = Loaded::new(&bytes);
    for channel in 0..5 {
        for at in 0..STEPS {
            let bad = BAD[at % 3];
            for lasting in [false, true] {
                let mut controller = Controller::new(&mut policy, &config()).unwrap();
                controller.arm().unwrap();
                let (mut plant, mut noise) = start(1);
                for i in 0..(at + 10).min(STEPS) {
                    let mut input = good(&plant);
                    if i == at || (lasting && i > at) {
                        input.observation.as_mut().unwrap()[channel] = bad;
                    }
                    let command = step(&mut controller, &input, &mut noise, &LIMITS);
                    let expected = match i.checked_sub(at) {
                        None => State::Running,
                        Some(0) => State::Holding,
                        Some(_) if !lasting => State::Running,
                        Some(1) => State::Holding,
                        Some(_) => State::Fault,
                    };
                    assert_eq!(command.status.state, expected, "{bad} on {channel} at {at}, step {i}");
                    if expected == State::Fault {
                        assert_eq!(command.status.fault, Fault::at(Reason::NotFinite, channel));
                        assert_eq!(command.action, [0.0]);
                    }
                    plant.step(f64::from(command.action[0]));
                }
            }
        }
    }
}

/// Anything a sensor driver could return, mixed at random over whole episodes, with gates of every kind.
#[test]
fn random_garbage_of_every_kind_in_every_mixture() {
    let bytes = furuta_bytes();
    let mut policy = Loaded::new(&bytes);
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(5);
    let gates = [
        LIMITS,
        Limits::new(-10.0, 10.0).rate(500.0),
        Limits::new(-10.0, 10.0).rate(2000.0).jerk(200_000.0),
        Limits::new(1.0, 3.0).fallback(2.0).stop(1.0).jerk(10_000.0),
        Limits::new(-0.5, 4.0),
    ];
    let mut seen = [0; 5];
    for episode in 0..60 {
        let limits = gates[episode % gates.len()];
        let tolerance = Tolerance { sensor: 1 + (episode % 100) as u8, late: 1 };
        let mut plausible = [(-1e3, 1e3); 5];
        plausible[3] = (-f32::MAX, 50.0);
        let config = Config { limits: [limits], tolerance, plausible, ..config() };
        let mut controller = Controller::new(&mut policy, &config).unwrap();
        let (mut plant, mut noise) = start(episode as u64);
        for _ in 0..STEPS {
            let mut input = good(&plant);
            if rng.next_u32() % 4 == 0 {
                let channel = rng.next_u32() as usize % 6;
                let word = rng.next_u32();
                match (rng.next_u32() % 8, &mut input.observation) {
                    (0, observation) => *observation = Err(SensorFault { channel, kind: SensorKind::Saturated }),
                    (1, observation) => {
                        *observation = Err(SensorFault { channel: word as usize, kind: SensorKind::Missing })
                    }
                    (2, Ok(observation)) => *observation = [f32::from_bits(word); 5],
                    (3, Ok(observation)) => *observation = [f32::MAX, f32::MIN, -f32::MAX, 1e-45, -0.0],
                    (_, Ok(observation)) if channel < 5 => {
                        observation[channel] = if word % 2 == 0 { BAD[channel % 3] } else { f32::from_bits(word) }
                    }
                    _ => {}
                }
            }
            input.stop = rng.next_u32() % 128 == 0;
            input.due = rng.next_u32();
            match rng.next_u32() % 64 {
                0..32 => {
                    controller.acknowledge();
                    let _ = controller.arm();
                }
                32 => controller.disarm(),
                33 => controller.raise(Fault::of(Reason::Driver)),
                _ => {}
            }
            let command = step(&mut controller, &input, &mut noise, &limits);
            assert!(!input.stop || command.action == [limits.stop]);
            seen[command.status.state as usize] += 1;
            plant.step(f64::from(command.action[0]));
        }
    }
    assert!(seen.iter().all(|count| *count > 200), "every state was swept: {seen:?}");
}

/// A pendulum's counter that stands still at its end, or jumps, is caught where counts become angles.
#[test]
fn a_saturated_encoder_latches_with_its_channel() {
    let bytes = furuta_bytes();
    let mut policy = Loaded::new(&bytes);
    let mut controller = Controller::new(&mut policy, &config()).unwrap();
    controller.arm().unwrap();
    let (mut plant, mut noise) = start(2);
    let mut counter = Unwrap::new(16, 0, 150).unwrap();
    let mut encoder = Encoder::new(2048.0, 0.002, 100.0).unwrap();
    let mut states = Vec::new();
    for i in 0..20u32 {
        // One lost reading at 5; from 12 on the counter's register is stuck at its end.
        let reading = if i == 5 || i >= 12 { 0x7fff } else { i };
        let mut input = good(&plant);
        match counter.update(reading) {
            Ok(count) => encoder.update(count),
            Err(kind) => input.observation = Err(SensorFault { channel: 4, kind }),
        }
        let command = step(&mut controller, &input, &mut noise, &LIMITS);
        states.push(command.status.state);
        plant.step(f64::from(command.action[0]));
    }
    use State::{Fault as F, Holding as H, Running as R};
    assert_eq!(states[..12], [R, R, R, R, R, H, R, R, R, R, R, R]);
    assert_eq!(states[12..], [H, H, F, F, F, F, F, F]);
    assert_eq!(controller.status().fault, Fault::at(Reason::Saturated, 4));
}

#[test]
fn what_is_not_plausible_is_a_glitch() {
    let bytes = furuta_bytes();
    let mut policy = Loaded::new(&bytes);
    let mut plausible = [(f32::NEG_INFINITY, f32::INFINITY); 5];
    plausible[1] = (-1.01, 1.01);
    let mut controller = Controller::new(&mut policy, &Config { plausible, ..config() }).unwrap();
    controller.arm().unwrap();
    let (plant, mut noise) = start(2);
    for value in [1.01, -1.02, 1.011, 7.0] {
        let mut observation = observe(&plant);
        observation[1] = value;
        step(&mut controller, &Input { due: 0, observation: Ok(observation), stop: false }, &mut noise, &LIMITS);
    }
    assert_eq!(controller.status().fault, Fault::at(Reason::Implausible, 1));
    assert_eq!(Furuta::OBS_NAMES[1], "cos_pendulum");
}

/// A policy that fails, or whose numbers do, is a fault in the very step.
#[test]
fn a_policy_that_cannot_decide_latches_at_once() {
    use flowlet::flow::SampleError;
    use flowlet::policy::PolicyError;
    let bytes = furuta_bytes();
    let fallback = Limits { fallback: 0.25, ..LIMITS };
    for (error, poison, fault) in [
        (Some(PolicyError::Sample(SampleError::NonFiniteVelocity)), None, Fault::of(Reason::Policy)),
        (Some(PolicyError::Observation { channel: 3 }), None, Fault::at(Reason::NotFinite, 3)),
        (None, Some(f32::NAN), Fault::of(Reason::Policy)),
        (None, Some(f32::INFINITY), Fault::of(Reason::Policy)),
    ] {
        let config = Config { limits: [fallback], ..config() };
        let mut controller = Controller::new(Loaded::new(&bytes), &config).unwrap();
        controller.arm().unwrap();
        let (plant, mut noise) = start(2);
        assert_eq!(step(&mut controller, &good(&plant), &mut noise, &LIMITS).status.state, State::Running);
        // The decision before the failure is held until the next one is due.
        controller.policy_mut().broken = error;
        controller.policy_mut().poison = poison;
        for i in 1..8 {
            let command = step(&mut controller, &good(&plant), &mut noise, &LIMITS);
            let expected = if i < 5 { (State::Running, Fault::NONE) } else { (State::Fault, fault) };
            assert_eq!((command.status.state, command.status.fault), expected, "step {i}");
            assert!(!command.decided);
            assert!(i < 5 || command.action == [0.25]);
        }
        // Armed again, the self-test finds it where it is of that kind.
        assert!(controller.acknowledge());
        let expected = if error.is_some() { Err(Fault::of(Reason::SelfTest)) } else { Ok(()) };
        assert_eq!(controller.arm(), expected);
    }
}
