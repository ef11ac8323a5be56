//! Torque-limited pendulum: Gymnasium's `Pendulum-v1`, operation for operation.
//!
//! theta is 0 upright and grows without wrapping; the reward is `-(wrapped theta^2 + 0.1 theta_dot^2 + 0.001 torque^2)`
//! of the state *before* the step; the speed is updated and clipped first and the angle moves with the new speed.
//! Gymnasium keeps its state in `f64` and its action in `f32`, and NumPy then rounds the products of the action to
//! `f32`: so does this, or 200 steps would drift by more than the last digit. Never panics, never allocates;
//! deterministic to the bit on every target.

use crate::{clip, params, uniform_in};
use core::f64::consts::{PI, TAU};
use rand_core::Rng;

params! {
    /// The constants of a [`Pendulum`].
    PendulumParams {
        /// Mass of the rod, kg.
        mass: Positive = 1.0,
        /// Length of the rod, m.
        length: Positive = 1.0,
        /// Acceleration of gravity, m/s^2.
        gravity: Finite = 10.0,
        /// Time of one step, s.
        dt: Positive = 0.05,
        /// Largest torque, N m.
        max_torque: Positive = 2.0,
        /// Largest speed, rad/s.
        max_speed: Positive = 8.0,
    }
}

/// A rod on a motor that is too weak to lift it at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pendulum {
    /// Angle from upright, rad, not wrapped.
    pub theta: f64,
    /// Angular speed, rad/s.
    pub theta_dot: f64,
    /// Masses, lengths and limits.
    pub params: PendulumParams,
}

impl Pendulum {
    /// Names of the observation channels.
    pub const OBS_NAMES: [&'static str; 3] = ["cos_theta", "sin_theta", "theta_dot"];
    /// Names of the action channels.
    pub const ACT_NAMES: [&'static str; 1] = ["torque"];

    /// Upright and at rest, with Gymnasium's constants.
    pub fn new() -> Self {
        Self::default()
    }

    /// A random start: theta uniform in [-pi, pi), speed uniform in [-1, 1).
    pub fn reset<R: Rng + ?Sized>(&mut self, rng: &mut R) {
        self.theta = uniform_in(rng, -PI, PI);
        self.theta_dot = uniform_in(rng, -1.0, 1.0);
    }

    /// Applies a torque (clipped to its limit) for one step and returns the reward, in [-16.2736, 0] by default.
    pub fn step(&mut self, torque: f64) -> f64 {
        let p = &self.params;
        let u = clip(torque, -p.max_torque, p.max_torque) as f32;
        let angle = wrap(self.theta);
        let cost = angle * angle + 0.1 * (self.theta_dot * self.theta_dot) + f64::from(0.001_f32 * (u * u));
        let pull = 3.0 * p.gravity / (2.0 * p.length) * libm::sin(self.theta);
        let push = f64::from((3.0 / (p.mass * (p.length * p.length))) as f32 * u);
        let speed = self.theta_dot + (pull + push) * p.dt;
        self.theta_dot = clip(speed, -p.max_speed, p.max_speed);
        self.theta += self.theta_dot * p.dt;
        -cost
    }

    /// cos theta, sin theta, theta_dot (Gymnasium rounds them to `f32`).
    pub fn observe(&self) -> [f64; 3] {
        [libm::cos(self.theta), libm::sin(self.theta), self.theta_dot]
    }

    /// How well the task is done, in [0, 1], by the sensors alone: 1 within 25 degrees of upright, else 0.
    pub fn metric(observation: &[f32; 3]) -> f32 {
        f32::from(u8::from(observation[0] > 0.9))
    }
}

/// The angle in [-pi, pi), by a remainder with the sign of the divisor.
fn wrap(angle: f64) -> f64 {
    let r = libm::fmod(angle + PI, TAU);
    (if r < 0.0 { r + TAU } else { r }) - PI
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::SeedableRng;

    #[test]
    fn angles_wrap_into_half_open_turn() {
        for (angle, wrapped) in [(0.0, 0.0), (PI, -PI), (-PI, -PI), (7.0, 7.0 - TAU), (-7.0, TAU - 7.0)] {
            assert!((wrap(angle) - wrapped).abs() < 1e-15, "{angle}");
        }
    }

    /// Without gravity and with the speed limit out of reach, a constant torque gives uniform acceleration 3u/(m l^2).
    #[test]
    fn free_rod_accelerates_uniformly() {
        let mut p = Pendulum::new();
        for (key, value) in [("gravity", 0.0), ("mass", 2.0), ("length", 0.5), ("max_speed", 1e6)] {
            p.params.set(key, value).unwrap();
        }
        for _ in 0..100 {
            p.step(0.5);
        }
        let (acceleration, dt, n) = (3.0 * 0.5 / (2.0 * 0.25), 0.05, 100.0);
        assert!((p.theta_dot - acceleration * dt * n).abs() < 1e-9);
        // Semi-implicit Euler sums 1..=n.
        assert!((p.theta - acceleration * dt * dt * n * (n + 1.0) / 2.0).abs() < 1e-9);
    }

    /// Semi-implicit Euler keeps the energy of a small swing within a band that does not grow.
    #[test]
    fn energy_of_a_swing_stays_bounded() {
        let mut p = Pendulum { theta: PI - 0.3, ..Pendulum::new() };
        p.params.set("dt", 0.001).unwrap();
        let energy = |p: &Pendulum| p.theta_dot * p.theta_dot / 6.0 + 5.0 * libm::cos(p.theta);
        let start = energy(&p);
        for _ in 0..20_000 {
            p.step(0.0);
            assert!((energy(&p) - start).abs() < 2e-3);
        }
    }

    #[test]
    fn limits_hold_and_reward_stays_in_its_range() {
        let mut p = Pendulum::new();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        for _ in 0..20 {
            p.reset(&mut rng);
            assert!((-PI..PI).contains(&p.theta) && (-1.0..1.0).contains(&p.theta_dot));
            for _ in 0..200 {
                let reward = p.step(if p.theta_dot < 0.0 { -1e9 } else { 1e9 });
                assert!((-16.2737..=0.0).contains(&reward), "{reward}");
                assert!(p.theta_dot.abs() <= 8.0);
            }
        }
    }

    #[test]
    fn nonsense_does_not_panic() {
        let mut p = Pendulum::new();
        assert!(p.step(f64::NAN).is_nan());
        p.step(f64::INFINITY);
        p.params.max_torque = f64::NAN;
        p.step(1.0);
    }
}
