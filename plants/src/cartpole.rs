//! Cart and pole: the DeepMind Control Suite's `cartpole` model and its swing-up reward, in closed form.
//!
//! Two bodies: a cart on a rail (x) and a capsule hinged to it (theta, 0 upright, growing towards +x). With m the pole's
//! mass, l the distance of its centre from the hinge, I its inertia about that centre, M the mass of both:
//!
//! ```text
//! [ M          m l cos theta ] [ x''     ]   [ gear u - cart_damping x' + m l sin theta theta'^2 + rail force ]
//! [ m l cos th    I + m l^2  ] [ theta'' ] = [ m g l sin theta - pole_damping theta'                          ]
//! ```
//!
//! Integrated by the classical fourth-order Runge-Kutta method, action constant over its stages, as MuJoCo does. Past
//! the end of the rail the force is MuJoCo's soft joint limit: a critically damped spring solved together with the
//! dynamics, which for this single constraint has a closed form. So the suite's records are reproduced to rounding
//! inside the rails and outside, and the end of the rail is soft: nothing stops the cart dead.
//! Never panics, never allocates; deterministic to the bit on every target.

use crate::mechanics::{capsule_inertia, near_zero, rk4};
use crate::{ParamError, clip, normal, params};
use core::f64::consts::PI;
use rand_core::Rng;

params! {
    /// The constants of a [`Cartpole`].
    CartpoleParams {
        /// Mass of the cart, kg.
        cart_mass: Positive = 1.0,
        /// Mass of the pole, kg.
        pole_mass: Positive = 0.1,
        /// Length of the pole between the centres of its round ends, m.
        pole_length: Positive = 1.0,
        /// Radius of the pole, m.
        pole_radius: Positive = 0.045,
        /// Acceleration of gravity, m/s^2.
        gravity: Finite = 9.81,
        /// Time of one control step, s.
        dt: Positive = 0.01,
        /// Force at action 1, N.
        gear: Positive = 10.0,
        /// Viscous friction of the cart, N s/m.
        cart_damping: NonNegative = 5e-4,
        /// Viscous friction of the hinge, N m s.
        pole_damping: NonNegative = 2e-6,
        /// Half the length of the rail, m: beyond it the soft limit pushes back.
        rail: Positive = 1.8,
        /// Time constant of the soft limit, s (at least two steps are used).
        limit_time: Positive = 0.08,
        /// Damping ratio of the soft limit; 1 is critical.
        limit_damping: Positive = 1.0,
    }
}

/// Softness of MuJoCo's default constraint: the share of the force at the limit, deep in it, and the depth between.
const IMPEDANCE: (f64, f64, f64) = (0.9, 0.95, 0.001);

/// A cart on a rail with a pole to be swung up and held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cartpole {
    /// Position of the cart, m.
    pub x: f64,
    /// Angle of the pole from upright, rad, not wrapped.
    pub theta: f64,
    /// Speed of the cart, m/s.
    pub x_dot: f64,
    /// Angular speed of the pole, rad/s.
    pub theta_dot: f64,
    params: CartpoleParams,
    constants: Constants,
}

/// What follows from the parameters alone.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Constants {
    /// Mass of both bodies, M.
    mass: f64,
    /// First moment of the pole about the hinge, m l.
    moment: f64,
    /// Inertia of the pole about the hinge, I + m l^2.
    inertia: f64,
    /// Inverse inertia that the rail sees when the pole is upright: MuJoCo scales the softness of the limit by it.
    limit_inverse_mass: f64,
    /// Stiffness and damping of the limit's reference acceleration, 1/s^2 and 1/s.
    limit_stiffness: f64,
    limit_rate: f64,
}

impl Constants {
    fn new(p: &CartpoleParams) -> Self {
        let (m, length, r) = (p.pole_mass, p.pole_length, p.pole_radius);
        let about_centre = capsule_inertia(m, length, r);
        let l = 0.5 * length;
        let (mass, moment, inertia) = (p.cart_mass + m, m * l, about_centre + m * l * l);
        let time = p.limit_time.max(2.0 * p.dt);
        let stiff = IMPEDANCE.1 * time * p.limit_damping;
        Self {
            mass,
            moment,
            inertia,
            limit_inverse_mass: inertia / (mass * inertia - moment * moment),
            limit_stiffness: 1.0 / (stiff * stiff),
            limit_rate: 2.0 / (IMPEDANCE.1 * time),
        }
    }
}

/// x, theta, x', theta', or their time derivatives.
type State = [f64; 4];

impl Default for Cartpole {
    fn default() -> Self {
        Self::new()
    }
}

impl Cartpole {
    /// Names of the observation channels.
    pub const OBS_NAMES: [&'static str; 5] = ["cart_x", "cos_theta", "sin_theta", "cart_x_dot", "theta_dot"];
    /// Names of the action channels.
    pub const ACT_NAMES: [&'static str; 1] = ["force"];

    /// In the middle of the rail, upright and at rest, with the suite's constants.
    pub fn new() -> Self {
        let params = CartpoleParams::default();
        let constants = Constants::new(&params);
        Self { x: 0.0, theta: 0.0, x_dot: 0.0, theta_dot: 0.0, params, constants }
    }

    /// The physical parameters.
    pub fn params(&self) -> &CartpoleParams {
        &self.params
    }

    /// Sets one physical parameter by name.
    pub fn set(&mut self, key: &str, value: f64) -> Result<(), ParamError> {
        self.params.set(key, value)?;
        self.constants = Constants::new(&self.params);
        Ok(())
    }

    /// A random start of the swing-up: hanging and at rest, all four numbers disturbed by 0.01 N(0, 1).
    pub fn reset<R: Rng + ?Sized>(&mut self, rng: &mut R) {
        self.x = 0.01 * normal(rng);
        self.theta = PI + 0.01 * normal(rng);
        self.x_dot = 0.01 * normal(rng);
        self.theta_dot = 0.01 * normal(rng);
    }

    /// Applies an action (clipped to [-1, 1]) for one control step and returns the reward after it, in [0, 1].
    pub fn step(&mut self, action: f64) -> f64 {
        let action = clip(action, -1.0, 1.0);
        let force = self.params.gear * action;
        let s = [self.x, self.theta, self.x_dot, self.theta_dot];
        let s = rk4(&s, self.params.dt, |s| self.derivative(s, force));
        [self.x, self.theta, self.x_dot, self.theta_dot] = s;
        self.reward(action)
    }

    /// Cart position, cos theta, sin theta, cart speed, pole speed.
    pub fn observe(&self) -> [f64; 5] {
        [self.x, libm::cos(self.theta), libm::sin(self.theta), self.x_dot, self.theta_dot]
    }

    /// How well the task is done, in [0, 1], by the sensors alone: none where the pole is more than 25 degrees from upright,
    /// else the more the nearer the cart is to the middle.
    pub fn metric(observation: &[f32; 5]) -> f32 {
        let [cart, cosine, ..] = *observation;
        if cosine > 0.9 { crate::nearness(cart) } else { 0.0 }
    }

    /// Whether the cart stands on its rail, off the soft limits.
    pub fn inside(&self) -> bool {
        self.x.abs() <= self.params.rail
    }

    /// Upright, in the middle, slow and gently driven: the product of four terms in [0, 1].
    fn reward(&self, action: f64) -> f64 {
        let upright = (libm::cos(self.theta) + 1.0) / 2.0;
        let centred = (1.0 + near_zero(self.x, 2.0)) / 2.0;
        let gentle = (4.0 + (1.0 - action * action)) / 5.0;
        let slow = (1.0 + near_zero(self.theta_dot, 5.0)) / 2.0;
        upright * gentle * slow * centred
    }

    fn derivative(&self, s: &State, force: f64) -> State {
        let (p, c) = (&self.params, &self.constants);
        let [x, theta, x_dot, theta_dot] = *s;
        let (sin, cos) = libm::sincos(theta);
        let coupling = c.moment * cos;
        let on_cart = force - p.cart_damping * x_dot + c.moment * sin * theta_dot * theta_dot;
        let on_pole = c.moment * p.gravity * sin - p.pole_damping * theta_dot;
        let determinant = c.mass * c.inertia - coupling * coupling;
        let free = (c.inertia * on_cart - coupling * on_pole) / determinant;
        let on_cart = on_cart + self.rail_force(x, x_dot, free, c.inertia / determinant);
        [
            x_dot,
            theta_dot,
            (c.inertia * on_cart - coupling * on_pole) / determinant,
            (c.mass * on_pole - coupling * on_cart) / determinant,
        ]
    }

    /// The force of the soft limit on the cart, given its acceleration without one and its inverse inertia now.
    ///
    /// MuJoCo asks for the acceleration `-rate v - stiffness d r` at depth r, softened by the impedance d(r), and only
    /// ever pushes: with one constraint that is one division.
    fn rail_force(&self, x: f64, x_dot: f64, free: f64, inverse_mass: f64) -> f64 {
        let (p, c) = (&self.params, &self.constants);
        let depth = x.abs() - p.rail;
        // A NaN position is no contact either.
        if depth.is_nan() || depth <= 0.0 {
            return 0.0;
        }
        let outward = if x > 0.0 { 1.0 } else { -1.0 };
        let (at_limit, deep, width) = IMPEDANCE;
        let impedance = at_limit + smooth_step(depth / width) * (deep - at_limit);
        let softness = (1.0 - impedance) / impedance * c.limit_inverse_mass;
        // All of it seen along the inward direction.
        let wanted = c.limit_rate * (outward * x_dot) + c.limit_stiffness * impedance * depth;
        let push = (wanted + outward * free) / (inverse_mass + softness);
        if push > 0.0 { -outward * push } else { 0.0 }
    }
}

/// Two parabolas that meet at one half: MuJoCo's default shape of the impedance.
fn smooth_step(depth: f64) -> f64 {
    if depth >= 1.0 {
        1.0
    } else if depth <= 0.5 {
        2.0 * depth * depth
    } else {
        1.0 - 2.0 * (1.0 - depth) * (1.0 - depth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::SeedableRng;

    /// Facts of the compiled model: the pole's inertia about its own centre is 0.009424592767295598 kg m^2.
    #[test]
    fn capsule_has_the_inertia_of_the_suite() {
        let c = Constants::new(&CartpoleParams::default());
        assert!((c.inertia - 0.1 * 0.25 - 0.009_424_592_767_295_598).abs() < 1e-16);
        assert!((c.mass - 1.1).abs() < 1e-15 && (c.moment - 0.05).abs() < 1e-17);
    }

    /// Energy is the oracle of the equations of motion: without friction and force it is kept to the order of the
    /// method, and halving the step divides the drift by 2^4 or more.
    #[test]
    fn energy_drifts_with_the_order_of_the_method() {
        let drift = |dt: f64| {
            let mut cart = Cartpole { theta: 2.0, x_dot: 0.3, theta_dot: -1.0, ..Cartpole::new() };
            for (key, value) in [("cart_damping", 0.0), ("pole_damping", 0.0), ("rail", 1e9), ("dt", dt)] {
                cart.set(key, value).unwrap();
            }
            let energy = |c: &Cartpole| {
                let k = &c.constants;
                0.5 * k.mass * c.x_dot * c.x_dot
                    + k.moment * libm::cos(c.theta) * c.x_dot * c.theta_dot
                    + 0.5 * k.inertia * c.theta_dot * c.theta_dot
                    + k.moment * c.params.gravity * libm::cos(c.theta)
            };
            let start = energy(&cart);
            for _ in 0..libm::round(4.0 / dt) as u32 {
                cart.step(0.0);
            }
            (energy(&cart) - start).abs()
        };
        let (coarse, fine) = (drift(0.02), drift(0.01));
        assert!(coarse < 1e-5, "{coarse:e}");
        assert!(coarse / fine > 14.0, "{coarse:e} {fine:e}");
    }

    /// Momentum along the rail changes by force times time only.
    #[test]
    fn momentum_follows_the_force() {
        let mut cart = Cartpole { theta: 1.0, ..Cartpole::new() };
        for (key, value) in [("cart_damping", 0.0), ("pole_damping", 0.0), ("rail", 1e9)] {
            cart.set(key, value).unwrap();
        }
        let momentum =
            |c: &Cartpole| c.constants.mass * c.x_dot + c.constants.moment * libm::cos(c.theta) * c.theta_dot;
        for _ in 0..100 {
            cart.step(0.25);
        }
        assert!((momentum(&cart) - 2.5).abs() < 1e-6, "{}", momentum(&cart));
    }

    /// Rows measured with MuJoCo 3.17.0 on the suite's model (dm-control 1.0.50): full force into the end of the rail
    /// for 200 control steps, from x 1.7, theta 0.5, x' 1, theta' 0. Columns: x, theta, x', theta'.
    #[test]
    fn end_of_the_rail_pushes_as_mujoco_does() {
        const ROWS: [(usize, [f64; 4]); 10] = [
            (5, [1.7616143197048486, 0.49370996902546693, 1.4646308528195164, -0.2526683611475006]),
            (10, [1.8290579540571423, 0.4969051519453626, 0.7775814686036999, 0.963926656014698]),
            (11, [1.8357336401011413, 0.5082882685355351, 0.5647026564105859, 1.3035536349023955]),
            (12, [1.840482601705894, 0.5228100383561572, 0.3911000897173348, 1.5932036039391053]),
            (15, [1.8464922755377124, 0.581040934702167, 0.04761904510557817, 2.2427219501809086]),
            (20, [1.8421178564169194, 0.7115678943707509, -0.17186388199589708, 2.9275789620350388]),
            (30, [1.8233423474821704, 1.0580401072167316, -0.16197358926727617, 4.015175808818594]),
            (40, [1.8115911993778753, 1.5232846550037877, -0.07742190834795683, 5.331386554145156]),
            (60, [1.8047092926539856, 2.8480626548706875, -0.011259181215698163, 7.583093755510168]),
            (200, [1.8031493204360818, 7.611766842889764, 0.0011965488688401615, 4.845860849645748]),
        ];
        let mut cart = Cartpole { x: 1.7, theta: 0.5, x_dot: 1.0, ..Cartpole::new() };
        let mut step = 0;
        for (at, row) in ROWS {
            while step < at {
                cart.step(1.0);
                step += 1;
            }
            for (ours, theirs) in [cart.x, cart.theta, cart.x_dot, cart.theta_dot].iter().zip(row) {
                assert!((ours - theirs).abs() < 1e-12, "step {at}: {ours} {theirs}");
            }
        }
    }

    #[test]
    fn reward_is_one_at_rest_and_zero_hanging() {
        let mut cart = Cartpole::new();
        assert!((cart.reward(0.0) - 1.0).abs() < 1e-15);
        assert!((cart.reward(1.0) - 0.8).abs() < 1e-15);
        cart.theta = PI;
        assert!(cart.reward(0.0) < 1e-15);
        cart.theta = 0.0;
        (cart.x, cart.theta_dot) = (2.0, 5.0);
        assert!((cart.reward(0.0) - 0.55 * 0.55).abs() < 1e-15);
    }

    #[test]
    fn random_play_stays_finite_and_in_reach() {
        let mut cart = Cartpole::new();
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(4);
        for _ in 0..20 {
            cart.reset(&mut rng);
            for _ in 0..1000 {
                let push = if cart.x_dot < 0.0 { -1.0 } else { 1.0 };
                let reward = cart.step(push * crate::uniform(&mut rng) * 2.0);
                assert!((0.0..=1.0).contains(&reward));
                assert!(cart.x.abs() < 3.0, "{}", cart.x);
            }
        }
        cart.step(f64::NAN);
    }
}
