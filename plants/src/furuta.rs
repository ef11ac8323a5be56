//! Furuta pendulum: a Quanser QUBE-Servo 2 with its rotary pendulum, motor, end stops and encoders.
//!
//! theta is the arm's angle, alpha the pendulum's from upright. The pendulum is a thin rod hinged to the end of the arm;
//! with J_r the arm's inertia, J = m_p L_p^2 / 3 the rod's about its hinge, c = m_p L_r L_p / 2 and g1 = m_p g L_p / 2:
//!
//! ```text
//! [ J_r + m_p L_r^2 + J sin^2 a   c cos a ] [ theta'' ]   [ tau - D_r theta' - 2 J sin a cos a theta' a' + c sin a a'^2 + stop ]
//! [          c cos a                  J   ] [ alpha'' ] = [ J sin a cos a theta'^2 + g1 sin a - D_p a'                         ]
//! tau = k_t (V - k_m theta') / R_m
//! ```
//!
//! Constants are the maker's published ones: R_m 8.4 ohm, k_t 0.042 N m/A, k_m 0.042 V s/rad; arm m_r 0.095 kg, L_r
//! 0.085 m, J_r = m_r L_r^2 / 12; pendulum m_p 0.024 kg, L_p 0.129 m; encoders of 2048 counts a turn, amplifier of
//! +-10 V. Friction is published twice: D_r 0.0015 and D_p 0.0005 N m s/rad in the maker's model, tuned by hand about the
//! balance, and D_r 0.00027, D_p 0.00005 for the device. With the first no pumping within 10 V swings the pendulum up
//! (a test shows it), and devices do swing up; so the second are the nominal ones here. `arm_inertia`, `motor_torque`,
//! `pendulum_mass` and `friction` are factors on the constants.
//!
//! The controller sees what a controller sees: angles in whole encoder counts and speeds from a first-order filtered
//! difference of them, sampled at every step. Runge-Kutta of fourth order at 2 ms, voltage constant over a step.
//! Never panics, never allocates; deterministic to the bit on every target.

use crate::mechanics::{near_zero, rk4};
use crate::{ParamError, clip, params, uniform_in};
use core::f64::consts::{PI, TAU};
use rand_core::Rng;

/// Motor: resistance, ohm; torque per current, N m/A; back electromotive force, V s/rad.
const RESISTANCE: f64 = 8.4;
const TORQUE_CONSTANT: f64 = 0.042;
const BACK_EMF: f64 = 0.042;
/// Arm: mass, kg, and length, m.
const ARM_MASS: f64 = 0.095;
const ARM_LENGTH: f64 = 0.085;
/// Mass of the pendulum, kg; its length is a parameter.
const PENDULUM_MASS: f64 = 0.024;
/// The end stops of the arm: a spring, N m/rad, and a damper, N m s/rad.
const STOP_STIFFNESS: f64 = 0.5;
const STOP_DAMPING: f64 = 0.005;

params! {
    /// The constants of a [`Furuta`].
    FurutaParams {
        /// Factor on the arm's inertia.
        arm_inertia: Positive = 1.0,
        /// Factor on the pendulum's mass.
        pendulum_mass: Positive = 1.0,
        /// Factor on the motor's torque per current.
        motor_torque: Positive = 1.0,
        /// Factor on the viscous friction of both hinges.
        friction: NonNegative = 1.0,
        /// Viscous friction of the arm, N m s/rad.
        arm_friction: NonNegative = 0.000_27,
        /// Viscous friction of the pendulum, N m s/rad.
        pendulum_friction: NonNegative = 0.000_05,
        /// Length of the pendulum, m.
        pendulum_length: Positive = 0.129,
        /// Acceleration of gravity, m/s^2.
        gravity: Finite = 9.81,
        /// Largest voltage, V.
        max_voltage: Positive = 10.0,
        /// Angle of the arm's end stops on either side, rad.
        arm_limit: Positive = 2.2,
        /// Encoder counts of a turn; 0 for exact angles.
        encoder_counts: NonNegative = 2048.0,
        /// Error of the zero of the arm's encoder, rad.
        arm_offset: Finite = 0.0,
        /// Error of the zero of the pendulum's, rad.
        pendulum_offset: Finite = 0.0,
        /// Bandwidth of the speed filter, rad/s.
        filter_rate: Positive = 100.0,
        /// Time of one step, s.
        dt: Positive = 0.002,
    }
}

/// A rod on the end of a motor-driven arm, to be swung up and held with the arm in the middle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Furuta {
    /// Angle of the arm, rad, 0 between its stops.
    pub theta: f64,
    /// Angle of the pendulum from upright, rad, not wrapped.
    pub alpha: f64,
    /// Speed of the arm, rad/s.
    pub theta_dot: f64,
    /// Speed of the pendulum, rad/s.
    pub alpha_dot: f64,
    params: FurutaParams,
    constants: Constants,
    /// Last encoder readings, rad, and the filtered speeds, rad/s: arm, pendulum.
    reading: [f64; 2],
    speed: [f64; 2],
}

/// What follows from the parameters alone, by the names of the formula above.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Constants {
    /// J_r + m_p L_r^2.
    arm: f64,
    /// J.
    rod: f64,
    /// c.
    coupling: f64,
    /// g1.
    weight: f64,
    /// Torque per volt, N m/V.
    torque: f64,
    arm_friction: f64,
    rod_friction: f64,
    /// Share of the newest difference in the filtered speed.
    share: f64,
}

impl Constants {
    fn new(p: &FurutaParams) -> Self {
        let mass = PENDULUM_MASS * p.pendulum_mass;
        Self {
            arm: p.arm_inertia * (ARM_MASS * ARM_LENGTH * ARM_LENGTH / 12.0) + mass * ARM_LENGTH * ARM_LENGTH,
            rod: mass * p.pendulum_length * p.pendulum_length / 3.0,
            coupling: 0.5 * mass * ARM_LENGTH * p.pendulum_length,
            weight: 0.5 * mass * p.gravity * p.pendulum_length,
            torque: p.motor_torque * TORQUE_CONSTANT / RESISTANCE,
            arm_friction: p.friction * p.arm_friction,
            rod_friction: p.friction * p.pendulum_friction,
            share: -libm::expm1(-p.filter_rate * p.dt),
        }
    }
}

/// A reading with the error of its zero; without one, the reading to the bit, -0 too.
fn off(reading: f64, offset: f64) -> f64 {
    if offset == 0.0 { reading } else { reading + offset }
}

impl Default for Furuta {
    fn default() -> Self {
        Self::new()
    }
}

impl Furuta {
    /// Names of the observation channels.
    pub const OBS_NAMES: [&'static str; 5] = ["arm", "cos_pendulum", "sin_pendulum", "arm_dot", "pendulum_dot"];
    /// Names of the action channels.
    pub const ACT_NAMES: [&'static str; 1] = ["voltage"];

    /// Arm in the middle, pendulum hanging, at rest, with the published constants.
    pub fn new() -> Self {
        let params = FurutaParams::default();
        let constants = Constants::new(&params);
        let mut plant = Self {
            theta: 0.0,
            alpha: PI,
            theta_dot: 0.0,
            alpha_dot: 0.0,
            params,
            constants,
            reading: [0.0; 2],
            speed: [0.0; 2],
        };
        plant.settle();
        plant
    }

    /// The physical parameters.
    pub fn params(&self) -> &FurutaParams {
        &self.params
    }

    /// Sets one physical parameter by name.
    pub fn set(&mut self, key: &str, value: f64) -> Result<(), ParamError> {
        self.params.set(key, value)?;
        self.constants = Constants::new(&self.params);
        self.settle();
        Ok(())
    }

    /// Puts the plant into a state; the speed filter starts at the true speeds.
    pub fn set_state(&mut self, theta: f64, alpha: f64, theta_dot: f64, alpha_dot: f64) {
        (self.theta, self.alpha, self.theta_dot, self.alpha_dot) = (theta, alpha, theta_dot, alpha_dot);
        self.settle();
    }

    /// A random start of the swing-up: hanging and at rest, both angles within 0.1 rad of it.
    pub fn reset<R: Rng + ?Sized>(&mut self, rng: &mut R) {
        let theta = uniform_in(rng, -0.1, 0.1);
        let alpha = PI + uniform_in(rng, -0.1, 0.1);
        self.set_state(theta, alpha, 0.0, 0.0);
    }

    /// Applies a voltage (clipped to its limit) for one step and returns the reward after it, in [0, 1].
    pub fn step(&mut self, voltage: f64) -> f64 {
        let p = &self.params;
        let voltage = clip(voltage, -p.max_voltage, p.max_voltage);
        let s = [self.theta, self.alpha, self.theta_dot, self.alpha_dot];
        let s = rk4(&s, p.dt, |s| self.derivative(s, voltage));
        [self.theta, self.alpha, self.theta_dot, self.alpha_dot] = s;
        let reading = self.read();
        for ((speed, new), old) in self.speed.iter_mut().zip(reading).zip(self.reading) {
            *speed += self.constants.share * ((new - old) / self.params.dt - *speed);
        }
        self.reading = reading;
        self.reward(voltage / self.params.max_voltage)
    }

    /// Arm angle, cosine and sine of the pendulum's, both speeds, as encoders and filter give them.
    pub fn observe(&self) -> [f64; 5] {
        let (sin, cos) = libm::sincos(off(self.reading[1], self.params.pendulum_offset));
        [off(self.reading[0], self.params.arm_offset), cos, sin, self.speed[0], self.speed[1]]
    }

    /// How well the task is done, in [0, 1], by the sensors alone: none where the pendulum is more than 25 degrees from
    /// upright, else the more the nearer the arm is to the middle.
    pub fn metric(observation: &[f32; 5]) -> f32 {
        let [arm, cosine, ..] = *observation;
        if cosine > 0.9 { crate::nearness(arm) } else { 0.0 }
    }

    /// Upright, arm in the middle, pendulum slow and gently driven: the product of four terms in [0, 1].
    fn reward(&self, effort: f64) -> f64 {
        let upright = (libm::cos(self.alpha) + 1.0) / 2.0;
        let centred = (1.0 + 4.0 * near_zero(self.theta, 1.5)) / 5.0;
        let slow = (1.0 + 4.0 * near_zero(self.alpha_dot, 5.0)) / 5.0;
        let gentle = (4.0 + (1.0 - effort * effort)) / 5.0;
        upright * centred * slow * gentle
    }

    fn derivative(&self, s: &[f64; 4], voltage: f64) -> [f64; 4] {
        let k = &self.constants;
        let [theta, alpha, theta_dot, alpha_dot] = *s;
        let (sin, cos) = libm::sincos(alpha);
        let twist = k.rod * sin * cos;
        let on_arm = k.torque * (voltage - BACK_EMF * theta_dot)
            - k.arm_friction * theta_dot
            - 2.0 * twist * theta_dot * alpha_dot
            + k.coupling * sin * alpha_dot * alpha_dot
            + self.stop(theta, theta_dot);
        let on_rod = twist * theta_dot * theta_dot + k.weight * sin - k.rod_friction * alpha_dot;
        let (m11, m12, m22) = (k.arm + k.rod * sin * sin, k.coupling * cos, k.rod);
        let determinant = m11 * m22 - m12 * m12;
        [theta_dot, alpha_dot, (m22 * on_arm - m12 * on_rod) / determinant, (m11 * on_rod - m12 * on_arm) / determinant]
    }

    /// The torque of an end stop: a damped spring that only pushes back.
    fn stop(&self, theta: f64, theta_dot: f64) -> f64 {
        let depth = theta.abs() - self.params.arm_limit;
        // A NaN angle touches no stop.
        if depth.is_nan() || depth <= 0.0 {
            return 0.0;
        }
        let outward = if theta > 0.0 { 1.0 } else { -1.0 };
        let push = STOP_STIFFNESS * depth + STOP_DAMPING * (outward * theta_dot);
        if push > 0.0 { -outward * push } else { 0.0 }
    }

    /// Both angles in whole counts.
    fn read(&self) -> [f64; 2] {
        let counts = self.params.encoder_counts;
        let whole = |angle: f64| {
            if counts > 0.0 { libm::floor(angle * counts / TAU + 0.5) * TAU / counts } else { angle }
        };
        [whole(self.theta), whole(self.alpha)]
    }

    fn settle(&mut self) {
        self.reading = self.read();
        self.speed = [self.theta_dot, self.alpha_dot];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: &[(&str, f64)], state: [f64; 4]) -> Furuta {
        let mut plant = Furuta::new();
        for (key, value) in set {
            plant.set(key, *value).unwrap();
        }
        plant.set_state(state[0], state[1], state[2], state[3]);
        plant
    }

    fn energy(f: &Furuta) -> f64 {
        let k = &f.constants;
        let (sin, cos) = libm::sincos(f.alpha);
        0.5 * (k.arm + k.rod * sin * sin) * f.theta_dot * f.theta_dot
            + k.coupling * cos * f.theta_dot * f.alpha_dot
            + 0.5 * k.rod * f.alpha_dot * f.alpha_dot
            + k.weight * cos
    }

    /// Without friction, and a motor without torque, the energy is kept to the order of the method.
    #[test]
    fn energy_drifts_with_the_order_of_the_method() {
        let drift = |dt: f64| {
            let set = [("friction", 0.0), ("motor_torque", 1e-300), ("arm_limit", 1e9), ("dt", dt)];
            let mut f = with(&set, [0.0, 2.0, 3.0, -5.0]);
            let start = energy(&f);
            for _ in 0..libm::round(2.0 / dt) as u32 {
                f.step(10.0);
            }
            (energy(&f) - start).abs() / f.constants.weight
        };
        let (coarse, fine) = (drift(0.004), drift(0.002));
        assert!(coarse < 1e-3, "{coarse:e}");
        assert!(coarse / fine > 14.0, "{coarse:e} {fine:e}");
    }

    /// Without torque about the arm's axis the angular momentum about it is kept, whatever the pendulum does.
    #[test]
    fn momentum_about_the_axis_is_kept() {
        let momentum = |f: &Furuta| {
            let k = &f.constants;
            let (sin, cos) = libm::sincos(f.alpha);
            (k.arm + k.rod * sin * sin) * f.theta_dot + k.coupling * cos * f.alpha_dot
        };
        let set = [("friction", 0.0), ("motor_torque", 1e-300), ("arm_limit", 1e9)];
        let mut f = with(&set, [0.3, 1.0, 4.0, 2.0]);
        let start = momentum(&f);
        for _ in 0..1000 {
            f.step(0.0);
            assert!((momentum(&f) - start).abs() < 1e-5 * start.abs(), "{} {start}", momentum(&f));
        }
    }

    /// Without gravity a pendulum that lies along the arm's circle of motion stays there: a motor with a flywheel, whose
    /// speed follows the closed form of a linear drag.
    #[test]
    fn motor_runs_up_as_its_equation_says() {
        let mut f = with(&[("gravity", 0.0), ("arm_limit", 1e9)], [0.0, 0.5 * PI, 0.0, 0.0]);
        let inertia = ARM_MASS * ARM_LENGTH * ARM_LENGTH / 12.0
            + PENDULUM_MASS * ARM_LENGTH * ARM_LENGTH
            + PENDULUM_MASS * 0.129 * 0.129 / 3.0;
        let per_volt = TORQUE_CONSTANT / RESISTANCE;
        let drag = 0.000_27 + per_volt * BACK_EMF;
        for step in 1..=50 {
            f.step(4.0);
            let expected = 4.0 * per_volt / drag * -libm::expm1(-drag / inertia * f64::from(step) * 0.002);
            assert!((f.theta_dot - expected).abs() < 1e-7 * expected, "step {step}: {} {expected}", f.theta_dot);
        }
    }

    /// With the arm too heavy to move the pendulum is a rod on a fixed hinge: small swings have its frequency and decay.
    #[test]
    fn small_swings_have_the_rods_period() {
        let set = [("arm_inertia", 1e9), ("encoder_counts", 0.0)];
        let mut f = with(&set, [0.0, PI - 1e-3, 0.0, 0.0]);
        let square = 1.5 * 9.81 / 0.129;
        let decay = 0.000_05 / (2.0 * PENDULUM_MASS * 0.129 * 0.129 / 3.0);
        let omega = libm::sqrt(square - decay * decay);
        for step in 1..=500 {
            f.step(0.0);
            let t = f64::from(step) * 0.002;
            let (sin, cos) = libm::sincos(omega * t);
            let expected = 1e-3 * libm::exp(-decay * t) * (cos + decay / omega * sin);
            assert!((PI - f.alpha - expected).abs() < 1e-8, "step {step}");
        }
    }

    #[test]
    fn stops_hold_the_arm_and_encoders_count() {
        let mut f = Furuta::new();
        for _ in 0..20_000 {
            let reward = f.step(10.0);
            assert!((0.0..=1.0).contains(&reward));
            let counts = f.observe()[0] * 2048.0 / TAU;
            assert!((counts - libm::round(counts)).abs() < 1e-9 && (f.observe()[0] - f.theta).abs() <= TAU / 4096.0);
        }
        // The spring alone holds the motor's 0.05 N m at a depth of 0.1 rad.
        assert!((f.theta - 2.3).abs() < 1e-3, "{}", f.theta);
    }

    /// The highest that 10 V get the pendulum by pumping: full voltage with the sign that feeds its swing.
    #[test]
    fn swings_up_with_the_devices_friction_alone() {
        let highest = |set: &[(&str, f64)]| {
            let mut f = with(set, [0.0, PI - 0.1, 0.0, 0.0]);
            let mut highest = -1.0f64;
            for _ in 0..3000 {
                f.step(if f.alpha_dot * libm::cos(f.alpha) > 0.0 { -10.0 } else { 10.0 });
                highest = highest.max(libm::cos(f.alpha));
            }
            highest
        };
        assert!(highest(&[]) > 0.99);
        let by_hand = highest(&[("arm_friction", 0.0015), ("pendulum_friction", 0.0005)]);
        assert!((0.2..0.5).contains(&by_hand), "{by_hand}");
    }

    /// The filtered speed follows a steady one: what is left is the count that comes and goes.
    #[test]
    fn speeds_are_near_the_true_ones() {
        let mut f = with(&[("arm_limit", 1e9)], [0.0, PI, 0.0, 0.0]);
        for _ in 0..1500 {
            f.step(3.0);
        }
        let noise = TAU / 2048.0 / 0.002 * f.constants.share;
        assert!((f.observe()[3] - f.theta_dot).abs() < 1.5 * noise && f.theta_dot > 5.0, "{:?}", f.observe());
    }

    #[test]
    fn reward_is_one_upright_and_zero_hanging() {
        let mut f = Furuta::new();
        assert!(f.reward(0.0) < 1e-15);
        f.set_state(0.0, 0.0, 0.0, 0.0);
        assert!((f.reward(0.0) - 1.0).abs() < 1e-15 && (f.reward(1.0) - 0.8).abs() < 1e-15);
        f.set_state(1.5, 0.0, 0.0, 5.0);
        assert!((f.reward(0.0) - 0.28 * 0.28).abs() < 1e-12);
    }

    #[test]
    fn nonsense_does_not_panic() {
        let mut f = Furuta::new();
        f.step(f64::NAN);
        assert!(f.observe()[0].is_nan());
        assert!(f.set("friction", -1.0).is_err());
    }
}
