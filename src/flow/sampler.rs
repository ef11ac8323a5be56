//! The sampler: integrates the velocity network from noise to an action latent by a plan chosen before the start.
//!
//! A [`Plan`] fixes solver, number of steps and interval, so a decision always costs the same and is deterministic;
//! a shorter plan is the anytime answer to a shorter deadline. The time part of the first layer is tabulated once a
//! plan ([`Sampler::prepare`]). No panics, no allocation; after a failure the latent is finite and meaningless.
//!
//! Multiply-accumulates a decision: `obs H + steps * evaluations * macs_per_evaluation` (see
//! [`VelocityShape`](crate::net::VelocityShape)); memory: `(nodes + 4) H + 3 act` floats.

use super::Solver;
use crate::math;
use crate::net::{LANES, Velocity};

/// How a latent is integrated.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Plan {
    /// The ODE solver.
    pub solver: Solver,
    /// Number of equal steps, 1 to [`Plan::MAX_STEPS`].
    pub steps: usize,
    /// Flow time of the start, at least 0.
    pub t_start: f32,
    /// Flow time of the end, at most 1.
    pub t_end: f32,
    /// Magnitude to which the final latent is clipped, positive.
    pub latent_clip: f32,
}

/// Why a plan is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PlanError {
    /// The number of steps is zero or above [`Plan::MAX_STEPS`].
    Steps,
    /// The interval is not inside `[0, 1]`, is reversed, or shorter than 2^-10.
    Interval,
    /// The latent clip is not in `[2^-10, 2^10]`.
    LatentClip,
}

/// Why a sample could not be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SampleError {
    /// The velocity overflowed to an infinity or NaN: the weights are not those of a trained network.
    NonFiniteVelocity,
    /// A scratch or latent slice is shorter than the network and plan need.
    Scratch,
}

impl Plan {
    /// Largest number of steps of a plan.
    pub const MAX_STEPS: usize = 1000;

    /// Checks every field.
    pub fn check(&self) -> Result<(), PlanError> {
        if self.steps == 0 || self.steps > Self::MAX_STEPS {
            return Err(PlanError::Steps);
        }
        let span = self.t_end - self.t_start;
        if !(self.t_start >= 0.0 && self.t_end <= 1.0 && span >= 1.0 / 1024.0) {
            return Err(PlanError::Interval);
        }
        if !(self.latent_clip >= 1.0 / 1024.0 && self.latent_clip <= 1024.0) {
            return Err(PlanError::LatentClip);
        }
        Ok(())
    }

    /// Number of distinct evaluation times, the rows of the time table.
    pub const fn nodes(&self) -> usize {
        self.solver.nodes(self.steps)
    }

    /// Velocity evaluations of one sample.
    pub const fn evaluations(&self) -> usize {
        self.solver.evaluations().saturating_mul(self.steps)
    }

    /// Flow time of a table row.
    pub fn node_time(&self, node: usize) -> f32 {
        let grid = self.steps.saturating_mul(self.solver.nodes_per_step()) as f32;
        self.t_start + (self.t_end - self.t_start) * (node as f32 / grid)
    }

    fn step_length(&self) -> f32 {
        (self.t_end - self.t_start) / self.steps as f32
    }
}

/// Memory that a sampler writes; each slice may be longer than asked for.
///
/// `table`, `state`, `base`, `a` and `b` are words of the network's number format and need not hold floats.
#[derive(Debug)]
pub struct SamplerScratch<'s> {
    /// Time table, `nodes * H` words, filled by [`Sampler::prepare`].
    pub table: &'s mut [f32],
    /// State part of the first layer, `H` words, filled by [`Sampler::observe`].
    pub state: &'s mut [f32],
    /// `H` words.
    pub base: &'s mut [f32],
    /// `H` words.
    pub a: &'s mut [f32],
    /// `H` words.
    pub b: &'s mut [f32],
    /// `3 * act` floats.
    pub slopes: &'s mut [f32],
}

/// A velocity network with a plan.
#[derive(Debug, Clone, Copy)]
pub struct Sampler<'a> {
    net: &'a Velocity<'a>,
    plan: Plan,
}

impl<'a> Sampler<'a> {
    /// A sampler of `net` by `plan`.
    pub fn new(net: &'a Velocity<'a>, plan: Plan) -> Result<Self, PlanError> {
        plan.check()?;
        Ok(Self { net, plan })
    }

    /// The same by a plan that was checked before.
    pub(crate) fn by_checked(net: &'a Velocity<'a>, plan: Plan) -> Self {
        Self { net, plan }
    }

    /// The network.
    pub fn net(&self) -> &'a Velocity<'a> {
        self.net
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Fills the time table; once for a network and plan.
    pub fn prepare(&self, scratch: &mut SamplerScratch<'_>) -> Result<(), SampleError> {
        let h = self.net.shape().hidden;
        let table = scratch.table.get_mut(..self.plan.nodes() * h).ok_or(SampleError::Scratch)?;
        for (node, row) in table.chunks_exact_mut(h).enumerate() {
            self.net.time_part(self.plan.node_time(node), row);
        }
        Ok(())
    }

    /// Takes in the normalised observation; once a decision, for any number of samples.
    pub fn observe(&self, s: &[f32], scratch: &mut SamplerScratch<'_>) -> Result<(), SampleError> {
        let state = scratch.state.get_mut(..self.net.shape().hidden).ok_or(SampleError::Scratch)?;
        self.net.state_part(s, state);
        Ok(())
    }

    /// Integrates the latent `x` (length `act`) from source noise to the action latent, in place.
    ///
    /// Needs [`prepare`](Self::prepare) and [`observe`](Self::observe) before it.
    pub fn integrate(&self, x: &mut [f32], scratch: &mut SamplerScratch<'_>) -> Result<(), SampleError> {
        let (h, d) = (self.net.shape().hidden, self.net.shape().act);
        let SamplerScratch { table, state, base, a, b, slopes } = scratch;
        let (Some(a), Some(b), true) = (a.get_mut(..h), b.get_mut(..h), x.len() == d) else {
            return Err(SampleError::Scratch);
        };
        let parts = Parts::of(self, table, state, base)?;
        self.follow(x, slopes, parts, |base, point, slope| self.net.velocity(base, point, a, b, slope))
    }

    /// Integrates [`LANES`] latents at once: `x[j][p]` is component `j` of latent `p`. The bits are those of
    /// [`integrate`](Self::integrate), latent by latent; it fails where one of them does.
    ///
    /// Needs [`prepare`](Self::prepare) and [`observe`](Self::observe) before it. `layers` are two slices of at least `H`
    /// rows, `slopes` one of at least `3 act`. In int8 the latents go one by one.
    pub fn integrate_batch(
        &self,
        x: &mut [[f32; LANES]],
        scratch: &mut SamplerScratch<'_>,
        layers: [&mut [[f32; LANES]]; 2],
        slopes: &mut [[f32; LANES]],
    ) -> Result<(), SampleError> {
        let (h, d) = (self.net.shape().hidden, self.net.shape().act);
        let Velocity::F32(net) = self.net else {
            let one = slopes.as_flattened_mut().get_mut(..d).ok_or(SampleError::Scratch)?;
            for lane in 0..LANES {
                for (one, row) in one.iter_mut().zip(x.iter()) {
                    *one = row.get(lane).copied().unwrap_or(0.0);
                }
                self.integrate(one, scratch)?;
                for (one, row) in one.iter().zip(x.iter_mut()) {
                    row.iter_mut().skip(lane).take(1).for_each(|place| *place = *one);
                }
            }
            return Ok(());
        };
        let SamplerScratch { table, state, base, .. } = scratch;
        let [a, b] = layers;
        let (Some(a), Some(b), true) = (a.get_mut(..h), b.get_mut(..h), x.len() == d) else {
            return Err(SampleError::Scratch);
        };
        let parts = Parts::of(self, table, state, base)?;
        self.follow(x.as_flattened_mut(), slopes.as_flattened_mut(), parts, |base, point, slope| {
            net.velocity_batch(base, point.as_chunks().0, a, b, slope.as_chunks_mut().0);
        })
    }

    /// Follows the plan from `x` along a velocity that is given the first layer's base and the point.
    #[inline(always)]
    fn follow(
        &self,
        x: &mut [f32],
        slopes: &mut [f32],
        parts: Parts<'_>,
        mut velocity: impl FnMut(&[f32], &[f32], &mut [f32]),
    ) -> Result<(), SampleError> {
        let (Parts { table, state, base }, h) = (parts, self.net.shape().hidden);
        let Some(slopes) = slopes.get_mut(..3 * x.len()) else { return Err(SampleError::Scratch) };
        let (slope, rest) = slopes.split_at_mut(x.len());
        let (sum, point) = rest.split_at_mut(x.len());
        let (step, per_step) = (self.plan.step_length(), self.plan.solver.nodes_per_step());
        for i in 0..self.plan.steps {
            sum.fill(0.0);
            point.copy_from_slice(x);
            for stage in self.plan.solver.stages() {
                let row = table.get((i * per_step + stage.node) * h..).unwrap_or(&[]);
                self.net.join(state, row, base);
                if stage.c != 0.0 {
                    for ((point, start), slope) in point.iter_mut().zip(x.iter()).zip(slope.iter()) {
                        *point = math::flush(start + stage.c * step * slope);
                    }
                }
                velocity(base, point, slope);
                for (sum, slope) in sum.iter_mut().zip(slope.iter_mut()) {
                    if !slope.is_finite() {
                        return Err(SampleError::NonFiniteVelocity);
                    }
                    *slope = math::flush(*slope);
                    *sum += stage.b * *slope;
                }
            }
            for (x, sum) in x.iter_mut().zip(sum.iter()) {
                *x = math::flush(*x + step * sum);
            }
        }
        for x in x {
            *x = math::clip(*x, self.plan.latent_clip);
        }
        Ok(())
    }
}

/// What the first layer starts from: time table, state part, and where their sum goes.
struct Parts<'s> {
    table: &'s [f32],
    state: &'s [f32],
    base: &'s mut [f32],
}

impl<'s> Parts<'s> {
    #[inline(always)]
    fn of(sampler: &Sampler<'_>, table: &'s [f32], state: &'s [f32], base: &'s mut [f32]) -> Result<Self, SampleError> {
        let h = sampler.net.shape().hidden;
        match (table.get(..sampler.plan.nodes() * h), state.get(..h), base.get_mut(..h)) {
            (Some(table), Some(state), Some(base)) => Ok(Self { table, state, base }),
            _ => Err(SampleError::Scratch),
        }
    }
}

impl core::fmt::Display for PlanError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Steps => write!(f, "the number of integration steps must lie in 1..={}", Plan::MAX_STEPS),
            Self::Interval => f.write_str("the integration interval must rise, inside [0, 1], by at least 1/1024"),
            Self::LatentClip => f.write_str("the latent clip must lie in [1/1024, 1024]"),
        }
    }
}

impl core::error::Error for PlanError {}

impl core::fmt::Display for SampleError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NonFiniteVelocity => "the velocity overflowed: the weights are not those of a trained network",
            Self::Scratch => "a scratch or latent slice does not fit the network and plan",
        })
    }
}

impl core::error::Error for SampleError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::net::{Activation, Trunk, VelocityNet, VelocityShape};
    use std::{vec, vec::Vec};

    const SHAPE: VelocityShape = VelocityShape {
        obs: 1,
        act: 1,
        hidden: 3,
        layers: 1,
        frequencies: 1,
        activation: Activation::Relu,
        trunk: Trunk::Plain,
    };

    /// `v = rate x + drive (sin(omega t) + s)`: `relu(x) - relu(-x)` and a unit that stays above zero.
    fn params(rate: f32, drive: f32) -> Vec<f32> {
        let state = [0.0, 0.0, 1.0];
        let latent = [1.0, -1.0, 0.0];
        let sine = [0.0, 0.0, 1.0];
        let cosine = [0.0; 3];
        let bias = [0.0, 0.0, 8.0];
        let out = [rate, -rate, drive];
        [&state[..], &latent, &sine, &cosine, &bias, &out, &[-8.0 * drive]].concat()
    }

    fn integrate(solver: Solver, steps: usize, params: &[f32], omega: f32, s: f32, x: f32) -> Result<f32, SampleError> {
        let omega = [omega];
        let net = VelocityNet::new(SHAPE, &omega, params).unwrap().into();
        let plan = Plan { solver, steps, t_start: 0.0, t_end: 1.0, latent_clip: 100.0 };
        let sampler = Sampler::new(&net, plan).unwrap();
        let (mut table, mut memory, mut slopes) = (vec![0.0; 3 * plan.nodes()], [[0.0; 3]; 4], [0.0; 3]);
        let [state, base, a, b] = &mut memory;
        let mut scratch = SamplerScratch { table: &mut table, state, base, a, b, slopes: &mut slopes };
        let mut x = [x];
        sampler.prepare(&mut scratch)?;
        sampler.observe(&[s], &mut scratch)?;
        sampler.integrate(&mut x, &mut scratch)?;
        Ok(x[0])
    }

    #[test]
    fn each_solver_converges_at_its_order() {
        // dx/dt = a x + c (sin(w t) + s) has a closed solution.
        let (a, c, w, s, x0) = (-4.0f64, 3.0f64, 5.0f64, 0.25f64, 3.0f64);
        let particular = |t: f64| -c * (a * (w * t).sin() + w * (w * t).cos()) / (a * a + w * w) - c * s / a;
        let exact = (x0 - particular(0.0)) * a.exp() + particular(1.0);
        for (solver, order) in [(Solver::Euler, 1), (Solver::Midpoint, 2), (Solver::Heun, 2), (Solver::Rk4, 4)] {
            let error = |steps| {
                let x = integrate(solver, steps, &params(a as f32, c as f32), w as f32, s as f32, x0 as f32);
                (f64::from(x.unwrap()) - exact).abs()
            };
            // Few enough steps that the truncation error stands above f32 rounding (about 1e-6).
            let n = if order == 4 { 10 } else { 128 };
            let observed = (error(n) / error(2 * n)).log2();
            assert!((observed - f64::from(order)).abs() < 0.35, "{solver:?}: {observed}");
        }
    }

    #[test]
    fn clip_overflow_and_short_scratch() {
        assert_eq!(integrate(Solver::Euler, 4, &params(60.0, 0.0), 1.0, 0.0, 3.0), Ok(100.0));
        let overflow = integrate(Solver::Euler, 9, &params(3e38, 0.0), 1.0, 0.0, 3.0);
        assert_eq!(overflow, Err(SampleError::NonFiniteVelocity));
        let weights = params(1.0, 1.0);
        let plan = Plan { solver: Solver::Rk4, steps: 2, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
        let net = VelocityNet::new(SHAPE, &[1.0], &weights).unwrap().into();
        let sampler = Sampler::new(&net, plan).unwrap();
        for short in 0..6 {
            let mut memory: Vec<Vec<f32>> = [15, 3, 3, 3, 3, 3].iter().map(|n| vec![0.0; *n]).collect();
            memory[short].pop();
            let [table, state, base, a, b, slopes] = &mut memory[..] else { unreachable!() };
            let mut scratch = SamplerScratch { table, state, base, a, b, slopes };
            let steps = [
                sampler.prepare(&mut scratch),
                sampler.observe(&[0.0], &mut scratch),
                sampler.integrate(&mut [0.0], &mut scratch),
            ];
            assert!(steps.contains(&Err(SampleError::Scratch)), "{short}");
        }
    }

    #[test]
    fn bad_plans_are_named() {
        let good = Plan { solver: Solver::Euler, steps: 3, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
        assert_eq!(good.check(), Ok(()));
        for (plan, error) in [
            (Plan { steps: 0, ..good }, PlanError::Steps),
            (Plan { steps: 1001, ..good }, PlanError::Steps),
            (Plan { t_start: 0.5, t_end: 0.4, ..good }, PlanError::Interval),
            (Plan { t_start: f32::NAN, ..good }, PlanError::Interval),
            (Plan { t_end: 1.5, ..good }, PlanError::Interval),
            (Plan { latent_clip: f32::NAN, ..good }, PlanError::LatentClip),
            (Plan { latent_clip: 0.0, ..good }, PlanError::LatentClip),
        ] {
            assert_eq!(plan.check(), Err(error));
        }
    }
}
