//! Fork: a puck that starts in front of a round pillar and shall reach a goal behind it. Both ways round are equally
//! good, and their average runs into the pillar.
//!
//! Half of the episodes start at rest exactly on the axis through pillar and goal: at the first decision up and down are
//! worth the same, and a policy with one mode must choose. The others start anywhere before and beside the pillar, so that
//! whoever chose one way early goes on seeing what the other is worth; they have no label. The task is its own mirror
//! image. A force of up to `thrust` along each
//! axis moves it against viscous friction: `m v' = F - c v`. The reward of a step is the length of the shortest way round
//! the pillar that the step has saved, 80 for the way from the nominal start, and 20 at the goal; so an episode that
//! reaches the goal returns about 100. It ends there, or where the puck touches the pillar, a wall or the edge of the
//! arena.
//!
//! A wall may close one of the ways ([`ForkParams::blocked`]); nothing shows it to the controller. Runge-Kutta of fourth
//! order in [`SUBSTEPS`] substeps. Never panics, never allocates; deterministic to the bit on every target.

use crate::mechanics::rk4;
use crate::{ParamError, clip, params, uniform, uniform_in};
use rand_core::Rng;

params! {
    /// The constants of a [`Fork`].
    ForkParams {
        /// Mass of the puck, kg.
        mass: Positive = 1.0,
        /// Largest force along each axis, N.
        thrust: Positive = 8.0,
        /// Viscous friction, N s/m.
        friction: NonNegative = 4.0,
        /// Radius of the pillar, m: below 0.45, the distance of the nearest start.
        pillar: Positive = 0.25,
        /// Share of the episodes that start anywhere and not on the axis.
        scatter: NonNegative = 0.5,
        /// Which way a wall closes: 0 none, 1 the upper, 2 the lower.
        blocked: NonNegative = 0.0,
        /// Time of one control step, s.
        dt: Positive = 0.05,
    }
}

/// Substeps of a control step, between which contact is looked for: 2 cm apart at full speed.
pub const SUBSTEPS: u32 = 5;
/// The nominal start and the goal on the axis, and the distance within which the goal is reached, m.
const START: f64 = -0.5;
const GOAL: f64 = 0.6;
const REACHED: f64 = 0.1;
/// Half the side of the arena, m.
const ARENA: f64 = 1.0;
/// Largest departure of the start from the nominal one, along the axis, m.
const SPREAD: f64 = 0.05;

/// How a [`Fork`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ForkState {
    /// Under way.
    #[default]
    Moving,
    /// At the goal.
    Reached,
    /// Against the pillar, a wall or the edge of the arena.
    Crashed,
}

/// A puck, a pillar and a goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fork {
    /// Position along the axis, m: the pillar stands at 0.
    pub x: f64,
    /// Position across it, m.
    pub y: f64,
    /// Velocity, m/s.
    pub x_dot: f64,
    /// Velocity across, m/s.
    pub y_dot: f64,
    params: ForkParams,
    state: ForkState,
    /// The episode started on the axis.
    on_axis: bool,
    /// The side on which the pillar was last passed.
    upper: bool,
}

impl Default for Fork {
    fn default() -> Self {
        Self::new()
    }
}

impl Fork {
    /// Names of the observation channels.
    pub const OBS_NAMES: [&'static str; 4] = ["x", "y", "x_dot", "y_dot"];
    /// Names of the action channels.
    pub const ACT_NAMES: [&'static str; 2] = ["force_x", "force_y"];

    /// At the nominal start, at rest.
    pub fn new() -> Self {
        let params = ForkParams::default();
        Self { x: START, y: 0.0, x_dot: 0.0, y_dot: 0.0, params, state: ForkState::Moving, on_axis: true, upper: false }
    }

    /// The physical parameters.
    pub fn params(&self) -> &ForkParams {
        &self.params
    }

    /// Sets one physical parameter by name.
    pub fn set(&mut self, key: &str, value: f64) -> Result<(), ParamError> {
        let mut params = self.params;
        params.set(key, value)?;
        if params.pillar >= -START - SPREAD {
            return Err(ParamError::OutOfRange("pillar", "below 0.45"));
        }
        if ![0.0, 1.0, 2.0].contains(&params.blocked) {
            return Err(ParamError::OutOfRange("blocked", "0, 1 or 2"));
        }
        if params.scatter > 1.0 {
            return Err(ParamError::OutOfRange("scatter", "a share, from 0 to 1"));
        }
        self.params = params;
        Ok(())
    }

    /// A random start at rest: the nominal one shifted by up to 0.05 m along the axis, or anywhere before and beside the
    /// pillar for the share of [`ForkParams::scatter`].
    pub fn reset<R: Rng + ?Sized>(&mut self, rng: &mut R) {
        *self = Self { params: self.params, ..Self::new() };
        self.on_axis = uniform(rng) >= self.params.scatter;
        self.x += uniform_in(rng, -SPREAD, SPREAD);
        // A few tries find a place off the pillar; the nominal start is one too.
        for _ in 0..if self.on_axis { 0 } else { 20 } {
            let (x, y) = (uniform_in(rng, -0.9 * ARENA, 0.0), uniform_in(rng, -0.7 * ARENA, 0.7 * ARENA));
            if libm::hypot(x, y) > self.params.pillar + REACHED {
                (self.x, self.y) = (x, y);
                break;
            }
        }
    }

    /// Applies forces (clipped to [-1, 1], in units of the largest) for one control step and returns the reward after it.
    pub fn step(&mut self, force_x: f64, force_y: f64) -> f64 {
        let p = self.params;
        let pull = [p.thrust * clip(force_x, -1.0, 1.0) / p.mass, p.thrust * clip(force_y, -1.0, 1.0) / p.mass];
        let drag = p.friction / p.mass;
        let before = self.distance();
        for _ in 0..SUBSTEPS {
            if self.state != ForkState::Moving {
                break;
            }
            let (x, y) = (self.x, self.y);
            let s = rk4(&[x, y, self.x_dot, self.y_dot], p.dt / f64::from(SUBSTEPS), |s| {
                [s[2], s[3], pull[0] - drag * s[2], pull[1] - drag * s[3]]
            });
            [self.x, self.y, self.x_dot, self.y_dot] = s;
            self.contact(x, y);
        }
        let arrived = if self.state == ForkState::Reached { 20.0 } else { 0.0 };
        80.0 * (before - self.distance()) / (shortest(START, 0.0, p.pillar) - REACHED) + arrived
    }

    /// Position and velocity.
    pub fn observe(&self) -> [f64; 4] {
        [self.x, self.y, self.x_dot, self.y_dot]
    }

    /// How it stands.
    pub fn state(&self) -> ForkState {
        self.state
    }

    /// The way round the pillar that has led to the goal from a start on the axis: `upper` or `lower`, `none` while it is
    /// not reached. An episode that started elsewhere has no label.
    pub fn way(&self) -> Option<&'static str> {
        self.on_axis.then_some(match (self.state, self.upper) {
            (ForkState::Reached, true) => "upper",
            (ForkState::Reached, false) => "lower",
            _ => "none",
        })
    }

    /// What is left of the shortest way round the pillar to the rim of the goal, m.
    fn distance(&self) -> f64 {
        let d = shortest(self.x, self.y, self.params.pillar) - REACHED;
        if d < 0.0 { 0.0 } else { d }
    }

    /// Looks for contact and arrival after a substep that began at (x, y).
    fn contact(&mut self, x: f64, y: f64) {
        // The wall stands on the line x = 0, from the pillar to the edge.
        let crossed = (x < 0.0) != (self.x < 0.0);
        if crossed {
            self.upper = y + self.y > 0.0;
        }
        let wall = crossed && self.params.blocked == if self.upper { 1.0 } else { 2.0 };
        let outside = self.x.abs() > ARENA || self.y.abs() > ARENA;
        if wall || outside || libm::hypot(self.x, self.y) < self.params.pillar {
            self.state = ForkState::Crashed;
        } else if libm::hypot(self.x - GOAL, self.y) <= REACHED {
            self.state = ForkState::Reached;
        }
    }
}

/// Length of the shortest way from (x, y) to the goal round a pillar of radius `r` at the origin, m.
///
/// Straight where the pillar does not stand between; else two tangents and the arc between their ends. A point within
/// the pillar counts as on its rim.
fn shortest(x: f64, y: f64, r: f64) -> f64 {
    let out = libm::hypot(x, y);
    let angle = libm::atan2(y.abs(), x);
    let reach = |d: f64| if d > r { libm::acos(r / d) } else { 0.0 };
    let tangent = |d: f64| if d > r { libm::sqrt(d * d - r * r) } else { 0.0 };
    let arc = angle - reach(out) - reach(GOAL);
    if arc > 0.0 { tangent(out) + r * arc + tangent(GOAL) } else { libm::hypot(x - GOAL, y) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::SeedableRng;

    /// Drives with a steady hand: out to the side, then forward, then home. Returns the sum of the rewards.
    fn drive(fork: &mut Fork, side: f64) -> f64 {
        let mut total = 0.0;
        for _ in 0..200 {
            let (fx, fy) = if fork.x < 0.0 && fork.y.abs() < 0.35 {
                (0.0, side)
            } else if fork.x < 0.1 {
                (1.0, 0.0)
            } else {
                (2.0 * (GOAL - fork.x), -4.0 * fork.y)
            };
            total += fork.step(fx, fy);
            if fork.state() != ForkState::Moving {
                break;
            }
        }
        total
    }

    /// The mirror image of an episode is the episode of the mirrored actions, bit for bit.
    #[test]
    fn both_ways_are_worth_the_same() {
        let (mut up, mut down) = (Fork::new(), Fork::new());
        let (a, b) = (drive(&mut up, 1.0), drive(&mut down, -1.0));
        assert_eq!((a, up.x, up.y), (b, down.x, -down.y));
        assert_eq!((up.way(), down.way()), (Some("upper"), Some("lower")));
        // All of the way from the nominal start was saved.
        assert!((a - 100.0).abs() < 1e-9, "{a}");
    }

    #[test]
    fn their_average_runs_into_the_pillar() {
        let mut fork = Fork::new();
        let total: f64 = (0..20).map(|_| fork.step(1.0, 0.0)).sum();
        assert_eq!((fork.state(), fork.way()), (ForkState::Crashed, Some("none")));
        assert!(total > 0.0 && total < 20.0, "{total}");
    }

    #[test]
    fn a_wall_closes_one_way_only() {
        for (blocked, side, state) in [
            (1.0, 1.0, ForkState::Crashed),
            (1.0, -1.0, ForkState::Reached),
            (2.0, 1.0, ForkState::Reached),
            (2.0, -1.0, ForkState::Crashed),
        ] {
            let mut fork = Fork::new();
            fork.set("blocked", blocked).unwrap();
            let total = drive(&mut fork, side);
            assert_eq!(fork.state(), state);
            assert_eq!(total < 70.0, state == ForkState::Crashed, "{total}");
        }
    }

    /// A linear drag under constant force has a closed form.
    #[test]
    fn moves_as_a_linear_drag_does() {
        let mut fork = Fork::new();
        (fork.x, fork.y) = (-0.7, 0.9);
        fork.set("thrust", 5.0).unwrap();
        for step in 1..=20 {
            fork.step(0.2, -0.1);
            let t = f64::from(step) * 0.05;
            let settled = 1.0 - libm::exp(-4.0 * t);
            let (speed, way) = (settled / 4.0, (t - settled / 4.0) / 4.0);
            assert!((fork.x_dot - 5.0 * 0.2 * speed).abs() < 1e-7 && (fork.x + 0.7 - way).abs() < 1e-7);
            assert!((fork.y_dot + 5.0 * 0.1 * speed).abs() < 1e-7 && (fork.y - 0.9 + 0.5 * way).abs() < 1e-7);
        }
    }

    /// The shortest way against a search over the point of the pillar's rim where it bends.
    #[test]
    fn the_shortest_way_is_the_shortest() {
        let r = 0.25;
        for (x, y) in [(-0.5, 0.0), (-0.4, 0.2), (-0.2, -0.5), (0.1, 0.26), (0.5, 0.2), (-0.9, 0.9)] {
            let ours = shortest(x, y, r);
            // A taut string along a fine polygon about the pillar: leave it at any corner, for the goal or the point.
            let corners = 20_000;
            let clear = |ax: f64, ay: f64, bx: f64, by: f64| {
                let (dx, dy) = (bx - ax, by - ay);
                let t = clip(-(ax * dx + ay * dy) / (dx * dx + dy * dy), 0.0, 1.0);
                libm::hypot(ax + t * dx, ay + t * dy) >= r - 1e-9
            };
            let mut best = if clear(x, y, GOAL, 0.0) { libm::hypot(x - GOAL, y) } else { f64::INFINITY };
            let at = |i: i32| {
                let a = f64::from(i) * core::f64::consts::PI / f64::from(corners);
                (r * libm::cos(a), r * libm::sin(a))
            };
            let side = y.abs();
            let seen_from = |px: f64, py: f64| {
                let mut ends = (i32::MAX, i32::MIN);
                for i in 0..=corners {
                    let (cx, cy) = at(i);
                    if clear(px, py, cx, cy) {
                        ends = (ends.0.min(i), ends.1.max(i));
                    }
                }
                ends
            };
            let (from, to) = (seen_from(x, side).0, seen_from(GOAL, 0.0).1);
            if best.is_infinite() {
                let ((ax, ay), (bx, by)) = (at(from), at(to));
                let arc = r * f64::from(from - to) * core::f64::consts::PI / f64::from(corners);
                best = libm::hypot(x - ax, side - ay) + arc + libm::hypot(GOAL - bx, by);
            }
            assert!((ours - best).abs() < 1e-3, "({x}, {y}): {ours} {best}");
        }
    }

    /// Half of the starts are on the axis and labelled, the others are mirror-symmetric and off the pillar.
    #[test]
    fn starts_are_on_the_axis_or_anywhere() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(2);
        let mut fork = Fork::new();
        let (mut labelled, mut above) = (0, 0);
        for _ in 0..2000 {
            fork.reset(&mut rng);
            assert!(libm::hypot(fork.x, fork.y) > 0.35 && fork.x <= 0.0 && fork.state() == ForkState::Moving);
            assert_eq!(fork.way().is_some(), fork.y == 0.0);
            labelled += u32::from(fork.way().is_some());
            above += u32::from(fork.y > 0.0);
        }
        // Five standard errors of a fair coin.
        assert!(labelled.abs_diff(1000) < 112 && above.abs_diff((2000 - labelled) / 2) < 80, "{labelled} {above}");
    }

    #[test]
    fn parameters_outside_their_range_are_refused() {
        let mut fork = Fork::new();
        for (key, value) in [("blocked", 0.5), ("blocked", 3.0), ("pillar", 0.45), ("mass", 0.0), ("scatter", 1.5)] {
            assert!(fork.set(key, value).is_err(), "{key}");
        }
        assert_eq!(fork, Fork::new());
        fork.step(f64::NAN, 0.0);
        assert!(fork.x.is_nan() && fork.way() == Some("none"));
    }
}
