//! Sampling with a field: from source noise to data along the probability-flow ODE, by DDIM, by DDPM's ancestral steps
//! or by the reverse SDE, on any schedule.
//!
//! The [`Field`] may be a network or a closed form; [`Prediction`] says what it predicts, and the
//! [`Schedule`](super::Schedule)'s affine maps give the rest. Deterministic: equal noise and fields give equal bits on
//! every machine. No panics, no allocation; on an error the latent is left as it was. Cost: `steps` evaluations of the
//! field (times the [`Solver`]'s for the ODE), `4 dim` floats of scratch; the conversions cost a few elementary
//! functions a component where the schedule is not linear.

use super::{Schedule, Solver, Source};
use crate::math;
use rand_core::Rng;

/// A function of flow time and latent, such as a trained network.
pub trait Field {
    /// Writes the value at time `t` and latent `x` into `out`, which has the length of `x`.
    fn evaluate(&mut self, t: f32, x: &[f32], out: &mut [f32]);
}

impl<F: FnMut(f32, &[f32], &mut [f32])> Field for F {
    fn evaluate(&mut self, t: f32, x: &[f32], out: &mut [f32]) {
        self(t, x, out);
    }
}

/// What a field predicts at `(t, x)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Prediction {
    /// The velocity `dx/dt`.
    #[default]
    Velocity,
    /// The data posterior mean `E[X_1 | X_t = x]`.
    Data,
    /// The noise posterior mean `E[X_0 | X_t = x]`.
    Noise,
    /// The score of the marginal; it gives the velocity with a Gaussian source alone.
    Score,
}

/// Amount of noise in the reverse SDE `dX = (v + sigma^2 score / 2) dt + sigma dW`, whose marginals are those of the
/// ODE for every `sigma(t)`; with a `scale` of 0 it is the ODE.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum SdeNoise {
    /// `sigma^2 = 2 scale^2 beta(t)`: finite at both ends (Ma et al. 2024, interpolants).
    Beta {
        /// 0 to 16.
        scale: f32,
    },
    /// `sigma^2 = scale^2 g(t)^2` with [`Schedule::diffusion`] as `g^2`: the time reversal of the forward diffusion
    /// at 1 (Song et al. 2021). Grows without bound towards `alpha = 0`.
    Diffusion {
        /// 0 to 16.
        scale: f32,
    },
}

/// How a latent is carried from noise to data.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum ReverseMethod {
    /// The probability-flow ODE by a Runge-Kutta solver.
    Ode(Solver),
    /// `x' = alpha' x_1 + sqrt(beta'^2 - sigma^2) x_0 + sigma z` from the predicted means (Song, Meng and Ermon 2021),
    /// with `sigma = eta beta' sqrt(1 - (alpha beta' / (alpha' beta))^2)`; `eta > 0` needs a Gaussian source.
    Ddim {
        /// 0 to 1: 0 is deterministic.
        eta: f32,
    },
    /// Ancestral steps with the posterior variance (Ho et al. 2020): DDIM with `eta = 1`.
    Ddpm,
    /// The reverse SDE by Euler and Maruyama. A source that is not Gaussian needs a score field of its own. Steps `h`
    /// are stable while `sigma^2 h` stays below some `4 beta^2`: much noise needs small steps near the end.
    EulerMaruyama(SdeNoise),
}

/// A way of sampling, with its time grid of `steps` equal steps from `t_start` to `t_end`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Reverse {
    /// Schedule the field belongs to.
    pub schedule: Schedule,
    /// Source of the noise.
    pub source: Source,
    /// What the field predicts.
    pub prediction: Prediction,
    /// How to step.
    pub method: ReverseMethod,
    /// Number of steps, 1 to [`Reverse::MAX_STEPS`].
    pub steps: usize,
    /// Flow time of the start, at least 0.
    pub t_start: f32,
    /// Flow time of the end, at most 1.
    pub t_end: f32,
}

/// Why a sample cannot be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ReverseError {
    /// The source's parameter is refused.
    Source,
    /// The schedule's parameters are refused.
    Schedule,
    /// The number of steps is zero or above [`Reverse::MAX_STEPS`].
    Steps,
    /// The interval is not inside `[0, 1]`, is reversed, or shorter than 2^-10.
    Interval,
    /// `eta` is not in `[0, 1]`, or the scale of the noise not in `[0, 16]`.
    Noise,
    /// A conversion divides by `alpha`, which is below 2^-20 at the start: begin later.
    Alpha,
    /// A conversion divides by `beta`, which is below 2^-20 at the last evaluation: end earlier.
    Beta,
    /// The method or prediction holds for a Gaussian source only.
    NotGaussian,
    /// The source is not Gaussian and no score field was given.
    MissingScore,
    /// A slice is empty, or the scratch shorter than [`Reverse::scratch_len`].
    Scratch,
    /// The latent or a value of a field is not finite.
    NonFinite,
}

/// Smallest weight by which a conversion divides: rounding, 2^-24, is then amplified to 2^-4 at the most.
const WEIGHT_MIN: f32 = 1.0 / (1 << 20) as f32;

/// A field that is never asked, for samplers without one of their own for the score.
struct NoScore;

impl Field for NoScore {
    fn evaluate(&mut self, _t: f32, _x: &[f32], _out: &mut [f32]) {}
}

impl Reverse {
    /// Largest number of steps.
    pub const MAX_STEPS: usize = 1 << 16;

    /// Floats of scratch for latents of `dim` components.
    pub const fn scratch_len(dim: usize) -> usize {
        dim.saturating_mul(4)
    }

    /// Evaluations of the field for one sample.
    pub const fn evaluations(&self) -> usize {
        match self.method {
            ReverseMethod::Ode(solver) => solver.evaluations().saturating_mul(self.steps),
            _ => self.steps,
        }
    }

    /// Checks every field and their fit to each other.
    pub fn check(&self) -> Result<(), ReverseError> {
        self.source.check().map_err(|_| ReverseError::Source)?;
        self.schedule.check().map_err(|_| ReverseError::Schedule)?;
        if self.steps == 0 || self.steps > Self::MAX_STEPS {
            return Err(ReverseError::Steps);
        }
        if !(self.t_start >= 0.0 && self.t_end <= 1.0 && self.t_end - self.t_start >= 1.0 / 1024.0) {
            return Err(ReverseError::Interval);
        }
        let (amount, most) = match self.method {
            ReverseMethod::Ode(_) | ReverseMethod::Ddpm => (0.0, 0.0),
            ReverseMethod::Ddim { eta } => (eta, 1.0),
            ReverseMethod::EulerMaruyama(SdeNoise::Beta { scale } | SdeNoise::Diffusion { scale }) => (scale, 16.0),
        };
        if !(amount >= 0.0 && amount <= most) {
            return Err(ReverseError::Noise);
        }
        let gaussian = self.source == Source::Gaussian;
        if !gaussian && (self.prediction == Prediction::Score || self.eta() > 0.0) {
            return Err(ReverseError::NotGaussian);
        }
        if self.divides_by_alpha() && self.schedule.alpha(self.t_start) < WEIGHT_MIN {
            return Err(ReverseError::Alpha);
        }
        if self.divides_by_beta() && self.schedule.beta(self.last_evaluation()) < WEIGHT_MIN {
            return Err(ReverseError::Beta);
        }
        Ok(())
    }

    /// Draws the start, `dim` components of source noise on the scale of the schedule, into `x`.
    pub fn start<R: Rng + ?Sized>(&self, rng: &mut R, x: &mut [f32]) {
        self.source.sample(rng, x);
        let scale = self.schedule.start_scale(self.t_start);
        x.iter_mut().for_each(|x| *x = math::flush(scale * *x));
    }

    /// Carries the latent `x` from `t_start` to `t_end` along `field`, in place.
    ///
    /// Stochastic methods draw a Gaussian vector from `rng` for each step but DDIM's and DDPM's last one where
    /// `beta(t_end)` is 0.
    pub fn run<F: Field + ?Sized, R: Rng + ?Sized>(
        &self,
        field: &mut F,
        rng: &mut R,
        x: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<(), ReverseError> {
        self.integrate(field, None::<&mut NoScore>, rng, x, scratch)
    }

    /// The same with a field of its own for the score, which [`ReverseMethod::EulerMaruyama`] uses whatever the source;
    /// the other methods have no use for it.
    pub fn run_with_score<F: Field + ?Sized, S: Field + ?Sized, R: Rng + ?Sized>(
        &self,
        field: &mut F,
        score: &mut S,
        rng: &mut R,
        x: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<(), ReverseError> {
        self.integrate(field, Some(score), rng, x, scratch)
    }

    fn integrate<F: Field + ?Sized, S: Field + ?Sized, R: Rng + ?Sized>(
        &self,
        field: &mut F,
        mut score: Option<&mut S>,
        rng: &mut R,
        x: &mut [f32],
        scratch: &mut [f32],
    ) -> Result<(), ReverseError> {
        self.check()?;
        let dim = x.len();
        let parts = scratch.get_mut(..Self::scratch_len(dim)).filter(|_| dim > 0).ok_or(ReverseError::Scratch)?;
        let (state, parts) = parts.split_at_mut(dim);
        let (value, parts) = parts.split_at_mut(dim);
        let (a, b) = parts.split_at_mut(dim);
        for (state, x) in state.iter_mut().zip(x.iter()) {
            *state = math::flush(*x);
        }
        finite(x)?;
        for i in 0..self.steps {
            let (t, next) = (self.time(i as f32), self.time((i + 1) as f32));
            match self.method {
                ReverseMethod::Ode(solver) => self.ode_step(solver, i, field, state, [value, a, b])?,
                ReverseMethod::Ddim { .. } | ReverseMethod::Ddpm => {
                    field.evaluate(t, state, value);
                    finite(value)?;
                    self.ddim_step(t, next, rng, state, value, a);
                }
                ReverseMethod::EulerMaruyama(noise) => {
                    field.evaluate(t, state, value);
                    finite(value)?;
                    match score.as_deref_mut() {
                        Some(score) => score.evaluate(t, state, a),
                        None if self.source != Source::Gaussian => return Err(ReverseError::MissingScore),
                        None => self.scores(t, state, value, a),
                    }
                    finite(a)?;
                    Source::Gaussian.sample(rng, b);
                    self.sde_step(noise, t, next - t, state, [value, a, b]);
                }
            }
            finite(state)?;
        }
        x.copy_from_slice(state);
        Ok(())
    }

    /// Time of grid point `i`, which may be a half.
    fn time(&self, i: f32) -> f32 {
        self.t_start + (self.t_end - self.t_start) * (i / self.steps as f32)
    }

    /// One Runge-Kutta step of `state`; see [`Solver`] for the form of its tableaux.
    fn ode_step<F: Field + ?Sized>(
        &self,
        solver: Solver,
        i: usize,
        field: &mut F,
        state: &mut [f32],
        [slope, sum, point]: [&mut [f32]; 3],
    ) -> Result<(), ReverseError> {
        let h = (self.t_end - self.t_start) / self.steps as f32;
        sum.fill(0.0);
        point.copy_from_slice(state);
        for stage in solver.stages() {
            if stage.c != 0.0 {
                for ((point, state), slope) in point.iter_mut().zip(state.iter()).zip(slope.iter()) {
                    *point = math::flush(*state + stage.c * h * *slope);
                }
            }
            let t = self.time(i as f32 + stage.c);
            field.evaluate(t, point, slope);
            for ((slope, sum), x) in slope.iter_mut().zip(sum.iter_mut()).zip(point.iter()) {
                *slope = self.velocity(t, *x, *slope);
                *sum += stage.b * *slope;
            }
            finite(slope)?;
        }
        for (state, sum) in state.iter_mut().zip(sum.iter()) {
            *state = math::flush(*state + h * *sum);
        }
        Ok(())
    }

    /// One step of DDIM or DDPM from the prediction `value`.
    fn ddim_step<R: Rng + ?Sized>(
        &self,
        t: f32,
        next: f32,
        rng: &mut R,
        state: &mut [f32],
        value: &[f32],
        z: &mut [f32],
    ) {
        let (alpha, beta) = (self.schedule.alpha(next), self.schedule.beta(next));
        let eta = self.eta();
        // (alpha beta') / (alpha' beta): below one, because the signal-to-noise ratio rises with t.
        let ratio = self.schedule.alpha(t) * beta / (alpha * self.schedule.beta(t));
        let sigma = eta * beta * math::sqrt((1.0 - ratio * ratio).max(0.0));
        let kept = if eta > 0.0 { math::sqrt((beta * beta - sigma * sigma).max(0.0)) } else { beta };
        z.fill(0.0);
        if sigma > 0.0 {
            Source::Gaussian.sample(rng, z);
        }
        for ((x, value), z) in state.iter_mut().zip(value).zip(z.iter()) {
            let (data, noise) = self.means(t, *x, *value);
            *x = math::flush(alpha * data + kept * noise + sigma * *z);
        }
    }

    /// One step of Euler and Maruyama from prediction, score and Gaussian noise.
    fn sde_step(&self, noise: SdeNoise, t: f32, h: f32, state: &mut [f32], [value, score, z]: [&mut [f32]; 3]) {
        let variance = match noise {
            SdeNoise::Beta { scale } => 2.0 * scale * scale * self.schedule.beta(t),
            SdeNoise::Diffusion { scale } if scale > 0.0 => scale * scale * self.schedule.diffusion(t),
            SdeNoise::Diffusion { .. } => 0.0,
        };
        let spread = math::sqrt(variance * h);
        for (((x, value), score), z) in state.iter_mut().zip(value.iter()).zip(score.iter()).zip(z.iter()) {
            let drift = self.velocity(t, *x, *value) + 0.5 * variance * *score;
            *x = math::flush(*x + h * drift + spread * *z);
        }
    }

    /// The velocity that belongs to a prediction.
    fn velocity(&self, t: f32, x: f32, value: f32) -> f32 {
        match self.prediction {
            Prediction::Velocity => value,
            Prediction::Data => self.schedule.velocity_from_data(t, x, value),
            Prediction::Noise => self.schedule.velocity_from_noise(t, x, value),
            Prediction::Score => self.schedule.velocity_from_score(t, x, value),
        }
    }

    /// Data and noise posterior means that belong to a prediction.
    fn means(&self, t: f32, x: f32, value: f32) -> (f32, f32) {
        let s = self.schedule;
        match self.prediction {
            Prediction::Velocity => (s.data_from_velocity(t, x, value), s.noise_from_velocity(t, x, value)),
            Prediction::Data => (value, s.noise_from_data(t, x, value)),
            Prediction::Noise => (s.data_from_noise(t, x, value), value),
            Prediction::Score => {
                let noise = s.noise_from_score(t, value);
                (s.data_from_noise(t, x, noise), noise)
            }
        }
    }

    /// Scores of a Gaussian source's marginal from predictions.
    fn scores(&self, t: f32, state: &[f32], value: &[f32], scores: &mut [f32]) {
        let s = self.schedule;
        for ((score, x), value) in scores.iter_mut().zip(state).zip(value) {
            *score = match self.prediction {
                Prediction::Velocity => s.score_from_noise(t, s.noise_from_velocity(t, *x, *value)),
                Prediction::Data => s.score_from_noise(t, s.noise_from_data(t, *x, *value)),
                Prediction::Noise => s.score_from_noise(t, *value),
                Prediction::Score => *value,
            };
        }
    }

    /// DDIM's `eta`; 0 for methods that are not of its family.
    fn eta(&self) -> f32 {
        match self.method {
            ReverseMethod::Ddim { eta } => eta,
            ReverseMethod::Ddpm => 1.0,
            _ => 0.0,
        }
    }

    fn last_evaluation(&self) -> f32 {
        let reaches_end = matches!(self.method, ReverseMethod::Ode(Solver::Heun | Solver::Rk4));
        match self.method {
            ReverseMethod::Ode(Solver::Midpoint) => self.time(self.steps as f32 - 0.5),
            _ if reaches_end => self.t_end,
            _ => self.time(self.steps as f32 - 1.0),
        }
    }

    fn divides_by_alpha(&self) -> bool {
        let predicts_noise = matches!(self.prediction, Prediction::Noise | Prediction::Score);
        let diffuses =
            matches!(self.method, ReverseMethod::EulerMaruyama(SdeNoise::Diffusion { scale }) if scale > 0.0);
        predicts_noise || diffuses
    }

    fn divides_by_beta(&self) -> bool {
        match self.method {
            // Data: all schedules but VE, where it does no harm to ask; noise: VP-linear.
            ReverseMethod::Ode(_) => matches!(self.prediction, Prediction::Data | Prediction::Noise),
            ReverseMethod::Ddim { .. } | ReverseMethod::Ddpm | ReverseMethod::EulerMaruyama(_) => true,
        }
    }
}

/// Whether all values are finite.
fn finite(values: &[f32]) -> Result<(), ReverseError> {
    if values.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(ReverseError::NonFinite) }
}

impl core::fmt::Display for ReverseError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Source => "the source's parameter is outside its range",
            Self::Schedule => "the schedule's parameters are outside their range",
            Self::Steps => "the number of steps must lie in 1..=65536",
            Self::Interval => "the interval must rise, inside [0, 1], by at least 1/1024",
            Self::Noise => "eta must lie in [0, 1] and the scale of the noise in [0, 16]",
            Self::Alpha => "this prediction or noise divides by alpha, which is too small at the start: begin later",
            Self::Beta => "this method divides by beta, which is too small at the last evaluation: end earlier",
            Self::NotGaussian => "this method or prediction holds for a Gaussian source only",
            Self::MissingScore => "with a source that is not Gaussian the reverse SDE needs a score field",
            Self::Scratch => "the latent is empty or the scratch shorter than four times its length",
            Self::NonFinite => "the latent or a value of the field is not finite",
        })
    }
}

impl core::error::Error for ReverseError {}

#[cfg(test)]
mod tests;
