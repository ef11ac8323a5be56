//! Acrobot: the DeepMind Control Suite's `acrobot` model and its swing-up reward, in closed form.
//!
//! Two capsules in a chain, the first hinged to a fixed shoulder, a motor at the elbow between them. q1 is the upper
//! arm's angle from upright, q2 the elbow's (0 straight), both growing towards +x. With m the masses, L the upper
//! length, l the distances of the centres from their hinges and I the inertias about the centres:
//!
//! ```text
//! [ a + b + 2 c cos q2   b + c cos q2 ] [ q1'' ]   [ c sin q2 (2 q1' q2' + q2'^2) + g1 sin q1 + g2 sin(q1 + q2) - d q1'     ]
//! [     b + c cos q2          b       ] [ q2'' ] = [ -c sin q2 q1'^2              + g2 sin(q1 + q2) - d q2' + gear u        ]
//! a = I1 + m1 l1^2 + m2 L^2    b = I2 + m2 l2^2    c = m2 L l2    g1 = (m1 l1 + m2 L) g    g2 = m2 l2 g
//! ```
//!
//! Integrated by the classical fourth-order Runge-Kutta method, action constant over its stages, as MuJoCo does; the
//! model has no contacts and no limits. Never panics, never allocates; deterministic to the bit on every target.

use crate::mechanics::{capsule_inertia, near_zero, rk4};
use crate::{ParamError, clip, params, uniform_in};
use core::f64::consts::PI;
use rand_core::Rng;

params! {
    /// The constants of an [`Acrobot`].
    AcrobotParams {
        /// Mass of the upper arm, kg.
        upper_mass: Positive = 1.0,
        /// Mass of the lower arm, kg.
        lower_mass: Positive = 1.0,
        /// Length of the upper arm between the centres of its round ends, m.
        upper_length: Positive = 1.0,
        /// Length of the lower arm, m.
        lower_length: Positive = 1.0,
        /// Radius of the upper arm, m.
        upper_radius: Positive = 0.05,
        /// Radius of the lower arm, m.
        lower_radius: Positive = 0.049,
        /// Acceleration of gravity, m/s^2.
        gravity: Finite = 9.81,
        /// Time of one control step, s.
        dt: Positive = 0.01,
        /// Torque at action 1, N m.
        gear: Positive = 2.0,
        /// Viscous friction of each hinge, N m s.
        damping: NonNegative = 0.05,
    }
}

/// Radius of the target about the upright tip within which the reward is full, m.
const TARGET: f64 = 0.2;

/// Two links with a motor at the elbow, to be swung up and held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Acrobot {
    /// Angle of the upper arm from upright, rad, not wrapped.
    pub shoulder: f64,
    /// Angle of the lower arm from the upper arm, rad, not wrapped.
    pub elbow: f64,
    /// Angular speed of the upper arm, rad/s.
    pub shoulder_dot: f64,
    /// Angular speed of the elbow, rad/s.
    pub elbow_dot: f64,
    params: AcrobotParams,
    constants: Constants,
}

/// What follows from the parameters alone, by the names of the formula above.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Constants {
    a: f64,
    b: f64,
    c: f64,
    g1: f64,
    g2: f64,
}

impl Constants {
    fn new(p: &AcrobotParams) -> Self {
        let (l1, l2) = (0.5 * p.upper_length, 0.5 * p.lower_length);
        let about_1 = capsule_inertia(p.upper_mass, p.upper_length, p.upper_radius);
        let about_2 = capsule_inertia(p.lower_mass, p.lower_length, p.lower_radius);
        Self {
            a: about_1 + p.upper_mass * l1 * l1 + p.lower_mass * p.upper_length * p.upper_length,
            b: about_2 + p.lower_mass * l2 * l2,
            c: p.lower_mass * p.upper_length * l2,
            g1: (p.upper_mass * l1 + p.lower_mass * p.upper_length) * p.gravity,
            g2: p.lower_mass * l2 * p.gravity,
        }
    }
}

impl Default for Acrobot {
    fn default() -> Self {
        Self::new()
    }
}

impl Acrobot {
    /// Names of the observation channels.
    pub const OBS_NAMES: [&'static str; 6] =
        ["sin_upper", "sin_lower", "cos_upper", "cos_lower", "shoulder_dot", "elbow_dot"];
    /// Names of the action channels.
    pub const ACT_NAMES: [&'static str; 1] = ["torque"];

    /// Upright and at rest, with the suite's constants.
    pub fn new() -> Self {
        let params = AcrobotParams::default();
        let constants = Constants::new(&params);
        Self { shoulder: 0.0, elbow: 0.0, shoulder_dot: 0.0, elbow_dot: 0.0, params, constants }
    }

    /// The physical parameters.
    pub fn params(&self) -> &AcrobotParams {
        &self.params
    }

    /// Sets one physical parameter by name.
    pub fn set(&mut self, key: &str, value: f64) -> Result<(), ParamError> {
        self.params.set(key, value)?;
        self.constants = Constants::new(&self.params);
        Ok(())
    }

    /// A random start: both angles uniform in [-pi, pi), at rest.
    pub fn reset<R: Rng + ?Sized>(&mut self, rng: &mut R) {
        self.shoulder = uniform_in(rng, -PI, PI);
        self.elbow = uniform_in(rng, -PI, PI);
        (self.shoulder_dot, self.elbow_dot) = (0.0, 0.0);
    }

    /// Applies an action (clipped to [-1, 1]) for one control step and returns the reward after it, in [0, 1].
    pub fn step(&mut self, action: f64) -> f64 {
        let torque = self.params.gear * clip(action, -1.0, 1.0);
        let s = [self.shoulder, self.elbow, self.shoulder_dot, self.elbow_dot];
        let s = rk4(&s, self.params.dt, |s| self.derivative(s, torque));
        [self.shoulder, self.elbow, self.shoulder_dot, self.elbow_dot] = s;
        self.reward()
    }

    /// Sine of the upper and the lower arm's angle from upright, their cosines, both speeds.
    pub fn observe(&self) -> [f64; 6] {
        let (sin_upper, cos_upper) = libm::sincos(self.shoulder);
        let (sin_lower, cos_lower) = libm::sincos(self.shoulder + self.elbow);
        [sin_upper, sin_lower, cos_upper, cos_lower, self.shoulder_dot, self.elbow_dot]
    }

    /// How well the task is done, in [0, 1], by the sensors alone: the mean height of the two links' ends, 1 where both stand.
    pub fn metric(observation: &[f32; 6]) -> f32 {
        let [_, _, upper, lower, ..] = *observation;
        0.25 * (upper + 1.0) + 0.25 * (lower + 1.0)
    }

    /// 1 where the tip is within the target at its highest point, falling as a Gaussian with the distance to it.
    fn reward(&self) -> f64 {
        let [sin_upper, sin_lower, cos_upper, cos_lower, ..] = self.observe();
        let p = &self.params;
        let x = p.upper_length * sin_upper + p.lower_length * sin_lower;
        let z = p.upper_length * (cos_upper - 1.0) + p.lower_length * (cos_lower - 1.0);
        let outside = libm::sqrt(x * x + z * z) - TARGET;
        near_zero(if outside < 0.0 { 0.0 } else { outside }, 1.0)
    }

    fn derivative(&self, s: &[f64; 4], torque: f64) -> [f64; 4] {
        let (p, k) = (&self.params, &self.constants);
        let [q1, q2, v1, v2] = *s;
        let (sin, cos) = libm::sincos(q2);
        let pull = k.g2 * libm::sin(q1 + q2);
        let f1 = k.c * sin * (2.0 * v1 * v2 + v2 * v2) + k.g1 * libm::sin(q1) + pull - p.damping * v1;
        let f2 = -k.c * sin * v1 * v1 + pull - p.damping * v2 + torque;
        let (m11, m12, m22) = (k.a + k.b + 2.0 * k.c * cos, k.b + k.c * cos, k.b);
        let determinant = m11 * m22 - m12 * m12;
        [v1, v2, (m22 * f1 - m12 * f2) / determinant, (m11 * f2 - m12 * f1) / determinant]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn energy(a: &Acrobot) -> f64 {
        let k = &a.constants;
        let (v1, v2) = (a.shoulder_dot, a.elbow_dot);
        let cos = libm::cos(a.elbow);
        0.5 * (k.a + k.b + 2.0 * k.c * cos) * v1 * v1
            + (k.b + k.c * cos) * v1 * v2
            + 0.5 * k.b * v2 * v2
            + k.g1 * libm::cos(a.shoulder)
            + k.g2 * libm::cos(a.shoulder + a.elbow)
    }

    fn frictionless(dt: f64) -> Acrobot {
        let mut a = Acrobot { shoulder: 2.0, elbow: -1.0, shoulder_dot: 0.5, elbow_dot: 1.0, ..Acrobot::new() };
        a.set("damping", 0.0).unwrap();
        a.set("dt", dt).unwrap();
        a
    }

    /// Without friction and torque the energy is kept to the order of the method.
    #[test]
    fn energy_drifts_with_the_order_of_the_method() {
        let drift = |dt: f64| {
            let mut a = frictionless(dt);
            let start = energy(&a);
            for _ in 0..libm::round(4.0 / dt) as u32 {
                a.step(0.0);
            }
            (energy(&a) - start).abs()
        };
        let (coarse, fine) = (drift(0.01), drift(0.005));
        assert!(coarse < 1e-3, "{coarse:e}");
        assert!(coarse / fine > 14.0, "{coarse:e} {fine:e}");
    }

    /// The motor's work is torque times the angle that the elbow has turned, whatever the arms do.
    #[test]
    fn work_of_the_motor_is_the_energy_gained() {
        let mut a = frictionless(0.001);
        let (start, elbow) = (energy(&a), a.elbow);
        for _ in 0..2000 {
            a.step(0.5);
        }
        let work = 0.5 * 2.0 * (a.elbow - elbow);
        assert!((energy(&a) - start - work).abs() < 1e-6 && work.abs() > 0.1, "{work}");
    }

    /// With the lower arm next to weightless the upper one is a physical pendulum.
    #[test]
    fn a_light_lower_arm_leaves_a_pendulum() {
        let mut a = frictionless(0.001);
        a.set("lower_mass", 1e-12).unwrap();
        (a.shoulder, a.shoulder_dot) = (PI - 1e-3, 0.0);
        let inertia = capsule_inertia(1.0, 1.0, 0.05) + 0.25;
        let omega = libm::sqrt(9.81 * 0.5 / inertia);
        for step in 1..=1000 {
            a.step(0.0);
            let expected = 1e-3 * libm::cos(omega * f64::from(step) * 0.001);
            // The pendulum's period grows with the square of the amplitude: one part in 16 million here.
            assert!((PI - a.shoulder - expected).abs() < 1e-8, "step {step}");
        }
    }

    #[test]
    fn reward_is_full_about_upright_only() {
        let mut a = Acrobot::new();
        assert_eq!(a.reward(), 1.0);
        a.shoulder = 0.09;
        assert_eq!(a.reward(), 1.0);
        a.shoulder = PI;
        assert!(a.reward() < 1e-10);
        // Tip at distance 1.2 from the target: the margin.
        (a.shoulder, a.elbow) = (0.0, 2.0 * libm::asin(0.6));
        assert!((a.reward() - 0.1).abs() < 1e-12);
    }

    #[test]
    fn nonsense_does_not_panic() {
        let mut a = Acrobot::new();
        a.step(f64::NAN);
        assert!(a.observe()[0].is_nan());
        assert!(a.set("gear", 0.0).is_err() && a.set("geer", 1.0).is_err());
    }
}
