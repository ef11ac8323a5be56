//! Planar quadrotor: a rigid bar with a rotor at each end that flies in a vertical plane to the origin and hovers.
//!
//! With F the sum of the thrusts, phi the tilt (positive leans towards -x), v the velocity and c the drag:
//!
//! ```text
//! m x'' = -F sin phi - c x'      m z'' = F cos phi - m g - c z'      I phi'' = arm (F_right - F_left)
//! ```
//!
//! An action of 0 is half of the largest thrust on both sides: hover, where a rotor can lift the whole weight. The state
//! has crashed when it has left the box of [`Quadrotor2d::ROOM`] metres about the origin or leans past a quarter turn.
//! Runge-Kutta of fourth order, thrusts constant over a step. Never panics, never allocates; deterministic to the bit
//! on every target.

use crate::mechanics::{near_zero, rk4};
use crate::{clip, params, uniform_in};
use core::f64::consts::FRAC_PI_2;
use rand_core::Rng;

params! {
    /// The constants of a [`Quadrotor2d`].
    Quadrotor2dParams {
        /// Mass, kg.
        mass: Positive = 0.5,
        /// Inertia about the centre, kg m^2.
        inertia: Positive = 0.004,
        /// Distance of a rotor from the centre, m.
        arm: Positive = 0.15,
        /// Largest thrust of one rotor, N: twice its share of the weight.
        max_thrust: Positive = 4.905,
        /// Viscous friction of the air, N s/m.
        friction: NonNegative = 0.1,
        /// Acceleration of gravity, m/s^2.
        gravity: Finite = 9.81,
        /// Time of one control step, s.
        dt: Positive = 0.01,
    }
}

/// A bar with two rotors, to be flown to the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quadrotor2d {
    /// Position, m.
    pub x: f64,
    /// Height over the origin, m.
    pub z: f64,
    /// Tilt, rad, anticlockwise.
    pub phi: f64,
    /// Speeds, m/s and rad/s.
    pub x_dot: f64,
    /// Rate of climb, m/s.
    pub z_dot: f64,
    /// Rate of turn, rad/s.
    pub phi_dot: f64,
    /// Masses, lengths and limits.
    pub params: Quadrotor2dParams,
}

impl Quadrotor2d {
    /// Names of the observation channels.
    pub const OBS_NAMES: [&'static str; 7] = ["x", "z", "cos_phi", "sin_phi", "x_dot", "z_dot", "phi_dot"];
    /// Names of the action channels.
    pub const ACT_NAMES: [&'static str; 2] = ["left", "right"];
    /// Half the side of the box that it must not leave, m.
    pub const ROOM: f64 = 2.0;

    /// Level, at rest, at the origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// A random start: up to 1 m away along each axis, tilted up to 0.5 rad, up to 0.5 m/s and 0.5 rad/s.
    pub fn reset<R: Rng + ?Sized>(&mut self, rng: &mut R) {
        self.x = uniform_in(rng, -1.0, 1.0);
        self.z = uniform_in(rng, -1.0, 1.0);
        for slot in [&mut self.phi, &mut self.x_dot, &mut self.z_dot, &mut self.phi_dot] {
            *slot = uniform_in(rng, -0.5, 0.5);
        }
    }

    /// Applies the actions (clipped to [-1, 1]) of the left and right rotor for one control step and returns the reward
    /// after it, in [0, 1].
    pub fn step(&mut self, left: f64, right: f64) -> f64 {
        let p = &self.params;
        let (left, right) = (clip(left, -1.0, 1.0), clip(right, -1.0, 1.0));
        let (low, high) = (0.5 * p.max_thrust * (1.0 + left), 0.5 * p.max_thrust * (1.0 + right));
        let (lift, turn) = ((low + high) / p.mass, p.arm * (high - low) / p.inertia);
        let drag = p.friction / p.mass;
        let s = [self.x, self.z, self.phi, self.x_dot, self.z_dot, self.phi_dot];
        let s = rk4(&s, p.dt, |s| {
            let (sin, cos) = libm::sincos(s[2]);
            [s[3], s[4], s[5], -lift * sin - drag * s[3], lift * cos - p.gravity - drag * s[4], turn]
        });
        [self.x, self.z, self.phi, self.x_dot, self.z_dot, self.phi_dot] = s;
        self.reward(left, right)
    }

    /// Position, cosine and sine of the tilt, speeds.
    pub fn observe(&self) -> [f64; 7] {
        let (sin, cos) = libm::sincos(self.phi);
        [self.x, self.z, cos, sin, self.x_dot, self.z_dot, self.phi_dot]
    }

    /// How well the task is done, in [0, 1], by the sensors alone: the more the nearer it is to the origin on both axes.
    pub fn metric(observation: &[f32; 7]) -> f32 {
        crate::nearness(observation[0]) * crate::nearness(observation[1])
    }

    /// Whether it has left the room or tipped over.
    pub fn crashed(&self) -> bool {
        self.x.abs() > Self::ROOM || self.z.abs() > Self::ROOM || self.phi.abs() > FRAC_PI_2
    }

    /// Near the origin, level, turning slowly and gently driven: the product of four terms in [0, 1].
    fn reward(&self, left: f64, right: f64) -> f64 {
        let near = near_zero(libm::sqrt(self.x * self.x + self.z * self.z), 2.0);
        let level = (1.0 + libm::cos(self.phi)) / 2.0;
        let slow = (1.0 + near_zero(self.phi_dot, 5.0)) / 2.0;
        let gentle = (4.0 + (1.0 - 0.5 * (left * left + right * right))) / 5.0;
        near * level * slow * gentle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frictionless() -> Quadrotor2d {
        let mut q = Quadrotor2d::new();
        q.params.set("friction", 0.0).unwrap();
        q
    }

    #[test]
    fn hovers_at_the_origin_for_full_reward() {
        let mut q = Quadrotor2d::new();
        for _ in 0..500 {
            assert!((q.step(0.0, 0.0) - 1.0).abs() < 1e-15);
        }
        assert!(q.z.abs() < 1e-12 && !q.crashed());
    }

    /// Level flight under constant thrust is a parabola, and drag lets a fall approach its terminal speed.
    #[test]
    fn falls_as_galileo_and_stokes_say() {
        let mut q = frictionless();
        (q.x_dot, q.z_dot) = (0.3, 1.0);
        for _ in 0..100 {
            q.step(0.5, 0.5);
        }
        // 1.5 g up, 1 g down.
        assert!((q.z - (1.0 + 0.5 * 4.905)).abs() < 1e-9 && (q.x - 0.3).abs() < 1e-12, "{q:?}");
        let mut q = Quadrotor2d::new();
        for _ in 0..100 {
            q.step(-1.0, -1.0);
        }
        let terminal = 0.5 * 9.81 / 0.1;
        assert!((q.z_dot + terminal * -libm::expm1(-0.1 / 0.5)).abs() < 1e-9, "{}", q.z_dot);
    }

    /// A difference of thrusts turns it uniformly; the thrust's work is what the energy gains.
    #[test]
    fn turning_is_uniform_and_energy_balances() {
        let mut q = frictionless();
        q.params.set("dt", 0.001).unwrap();
        let energy = |q: &Quadrotor2d| {
            let p = &q.params;
            0.5 * p.mass * (q.x_dot * q.x_dot + q.z_dot * q.z_dot)
                + 0.5 * p.inertia * q.phi_dot * q.phi_dot
                + p.mass * p.gravity * q.z
        };
        let (left, right) = (0.5 * 4.905 * 1.1, 0.5 * 4.905 * 1.12);
        let (start, mut work) = (energy(&q), 0.0);
        for _ in 0..400 {
            let power = |q: &Quadrotor2d| {
                let (sin, cos) = libm::sincos(q.phi);
                (left + right) * (q.z_dot * cos - q.x_dot * sin) + 0.15 * (right - left) * q.phi_dot
            };
            let before = power(&q);
            q.step(0.1, 0.12);
            // The trapezium rule: its error falls with the square of the step.
            work += 0.5 * (before + power(&q)) * 0.001;
        }
        let rate = 0.15 * (right - left) / 0.004;
        assert!((q.phi - 0.5 * rate * 0.16).abs() < 1e-12 && (q.phi_dot - 0.4 * rate).abs() < 1e-12);
        assert!((energy(&q) - start - work).abs() < 1e-6 && work > 0.1, "{work}");
    }

    #[test]
    fn crashes_are_seen() {
        let mut q = Quadrotor2d::new();
        for _ in 0..100 {
            q.step(-1.0, 1.0);
        }
        assert!(q.crashed());
        assert!(Quadrotor2d { x: -2.1, ..Quadrotor2d::new() }.crashed());
        let mut q = Quadrotor2d::new();
        q.step(f64::NAN, 0.0);
        assert!(q.phi.is_nan());
    }
}
