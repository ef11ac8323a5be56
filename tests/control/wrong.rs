//! Robots and artefacts that do not belong together, and limits that make no sense: refused by name before the start.

use crate::common::{Recipe, SMALL, artefact};
use crate::rig::{LIMITS, Loaded, config, furuta_bytes};
use flowlet::control::{Config, ConfigError, Controller, GateError, Limits, Tolerance};
use flowlet::policy::PolicyError;

fn refused<const OBS: usize, const ACT: usize>(policy: Loaded<'_>, config: &Config<OBS, ACT>) -> ConfigError {
    match Controller::new(policy, config) {
        Ok(_) => panic!("{config:?} is accepted"),
        Err(error) => error,
    }
}

#[test]
fn an_artefact_for_another_robot_is_refused_with_the_first_difference() {
    let bytes = furuta_bytes();
    let other = artefact(Recipe { obs: 5, act: 1, ..SMALL });
    let name = |kind, channel, robot| ConfigError::Name { kind, channel, robot };
    assert_eq!(refused(Loaded::new(&other), &config()), name("observation", 0, "arm"));
    let mut swapped = config();
    swapped.observations.swap(3, 4);
    assert_eq!(refused(Loaded::new(&bytes), &swapped), name("observation", 3, "pendulum_dot"));
    let torque = Config { actions: ["torque"], ..config() };
    assert_eq!(refused(Loaded::new(&bytes), &torque), name("action", 0, "torque"));
    let four = Config::new(2_000, ["arm", "cos_pendulum", "sin_pendulum", "arm_dot"], ["voltage"], [LIMITS]);
    let channels = ConfigError::Channels { kind: "observation", artefact: 5, robot: 4 };
    assert_eq!(refused(Loaded::new(&bytes), &four), channels);
    let two = Config::new(2_000, config().observations, ["voltage", "brake"], [LIMITS; 2]);
    let channels = ConfigError::Channels { kind: "action", artefact: 1, robot: 2 };
    assert_eq!(refused(Loaded::new(&bytes), &two), channels);
    let said = name("action", 0, "torque").to_string();
    assert!(said.contains("'torque'") && said.contains("another robot"), "{said}");
}

#[test]
fn periods_limits_ranges_and_tolerances_are_checked() {
    let bytes = furuta_bytes();
    for control in [0, 3_000, 20_000, u32::MAX] {
        let error = refused(Loaded::new(&bytes), &Config { period_us: control, ..config() });
        assert_eq!(error, ConfigError::Period { artefact: 10_000, control });
    }
    for (limits, error) in [
        (Limits::new(10.0, -10.0), ConfigError::Gate(GateError::Reversed { channel: 0 })),
        (LIMITS.rate(f32::NAN), ConfigError::Gate(GateError::Rate { channel: 0 })),
        (LIMITS.jerk(0.0), ConfigError::Gate(GateError::Jerk { channel: 0 })),
        (LIMITS.fallback(11.0), ConfigError::Gate(GateError::Fallback { channel: 0 })),
        (Limits::new(10.5, 12.0).fallback(11.0).stop(11.0), ConfigError::Range { channel: 0 }),
        (Limits::new(-12.0, -10.5).fallback(-11.0).stop(-11.0), ConfigError::Range { channel: 0 }),
    ] {
        assert_eq!(refused(Loaded::new(&bytes), &Config { limits: [limits], ..config() }), error);
    }
    for bad in [(1.0, -1.0), (1.0, 1.0), (f32::NAN, 1.0), (0.0, f32::NAN)] {
        let mut wrong = config();
        wrong.plausible[2] = bad;
        assert_eq!(refused(Loaded::new(&bytes), &wrong), ConfigError::Plausible { channel: 2 });
    }
    let tolerance = Tolerance { sensor: 0, late: 3 };
    assert_eq!(refused(Loaded::new(&bytes), &Config { tolerance, ..config() }), ConfigError::Tolerance);
    let mut broken = Loaded::new(&bytes);
    broken.broken = Some(PolicyError::SelfTest);
    assert_eq!(refused(broken, &config()), ConfigError::Policy(PolicyError::SelfTest));
}
