//! The posterior-mean estimator: draw candidates, weigh them, correct their mean.
//!
//! [`RfmConfig::estimate`] works on slices of any size; [`Estimator`] owns static matrices with dimension and number
//! of candidates in the type. A candidate whose log-density or score is not finite gets weight zero; when that holds
//! for all of them the estimate is a named error. No panics, no allocation; the same bits everywhere.
//!
//! Cost: one target evaluation a candidate (with its gradient where the control variate needs scores), about
//! `10 D` operations and three transcendentals beside it.

use super::{ControlVariate, Mixture, ProposalError, Target};
use crate::flow::{Schedule, Source};
use crate::math;
use nalgebra::{SMatrix, SVector};
use rand_core::Rng;

/// Everything that is fixed about an estimator.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RfmConfig {
    /// Schedule of the interpolant.
    pub schedule: Schedule,
    /// Source distribution.
    pub source: Source,
    /// Proposal mixture; its shares add up to the number of candidates.
    pub mixture: Mixture,
    /// Choice of the control-variate coefficient.
    pub control_variate: ControlVariate,
}

/// What an estimate says beside the mean itself.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Posterior {
    /// Effective sample size of the weights, `1 / sum w^2`, from 1 to the number of candidates.
    pub effective_sample_size: f32,
    /// `ln` of the mean unnormalised weight: an estimate of `ln` of the integral of target times bridge density, up to
    /// the target's constant. (Without uniform and kernel candidates the bridge cancels.)
    pub log_normalizer: f32,
}

/// Why there is no estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EstimateError {
    /// The flow time is not inside `[2^-50, 1)`.
    Time,
    /// The point `x` is not finite.
    Point,
    /// The proposal was refused.
    Proposal(ProposalError),
    /// A control-variate constant is not finite or has the wrong sign.
    ControlVariate,
    /// No candidate has a finite log-density and score.
    NonFinite,
    /// A slice does not have the length that dimension and number of candidates ask for.
    Scratch,
}

/// Memory that an estimate writes: `K` candidates of dimension `D`.
#[derive(Debug)]
pub struct EstimatorScratch<'s> {
    /// Candidates, `K` rows of `D` floats.
    pub candidates: &'s mut [f32],
    /// Posterior scores, `K` rows of `D` floats; unused without a control variate.
    pub scores: &'s mut [f32],
    /// Log-weights and then weights, `K` floats.
    pub weights: &'s mut [f32],
}

impl RfmConfig {
    /// Draws candidates from `rng` and estimates `E[X_1 | X_t = x]` into `mean` (length `D`).
    ///
    /// `particles` are rows of `D` floats for the kernel component. On an error `mean` is left as it was.
    #[allow(clippy::too_many_arguments, reason = "the parts of one formula; a struct would name them twice")]
    pub fn estimate<T: Target + ?Sized, R: Rng + ?Sized>(
        &self,
        t: f32,
        x: &[f32],
        target: &mut T,
        particles: &[f32],
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
        mean: &mut [f32],
    ) -> Result<Posterior, EstimateError> {
        self.check(t, x, particles, scratch, mean)?;
        self.mixture.draw(self.source, self.schedule, t, x, particles, rng, scratch.candidates);
        self.weigh(t, x, target, particles, scratch, mean)
    }

    /// The same for candidates that already stand in `scratch`, in the order bridge, uniform, kernel.
    pub fn weigh<T: Target + ?Sized>(
        &self,
        t: f32,
        x: &[f32],
        target: &mut T,
        particles: &[f32],
        scratch: &mut EstimatorScratch<'_>,
        mean: &mut [f32],
    ) -> Result<Posterior, EstimateError> {
        self.check(t, x, particles, scratch, mean)?;
        scratch.candidates.iter_mut().filter(|y| y.abs() < math::FLUSH).for_each(|y| *y = 0.0);
        let (dim, a, b) = (x.len(), self.schedule.alpha(t), self.schedule.beta(t));
        let (ratio, bridge_factor) = (b / a, dim as f32 * math::ln(a / b));
        let scored = self.control_variate.needs_scores();
        let EstimatorScratch { candidates, scores, weights } = scratch;
        let mut highest = f32::NEG_INFINITY;
        for (k, (y, weight)) in candidates.chunks_exact(dim).zip(weights.iter_mut()).enumerate() {
            let noise = |y: f32, x: f32| (x - a * y) / b;
            let log_source: f32 = y.iter().zip(x).map(|(y, x)| self.source.log_density(noise(*y, *x))).sum();
            let mut finite = true;
            let log_target = if scored {
                let score = scores.get_mut(k * dim..(k + 1) * dim).ok_or(EstimateError::Scratch)?;
                let log_target = target.log_density_and_score(y, score);
                for ((s, y), x) in score.iter_mut().zip(y).zip(x) {
                    // s_1 = grad ln p1(y) - (alpha / beta) grad ln p0(noise).
                    *s -= self.source.score(noise(*y, *x)) / ratio;
                    finite &= s.is_finite();
                    *s = math::flush(*s);
                }
                log_target
            } else {
                target.log_density(y)
            };
            let logit = log_target + self.mixture.log_ratio(log_source, bridge_factor, y, particles);
            finite &= logit.is_finite() && y.iter().all(|y| y.is_finite());
            *weight = if finite { logit } else { f32::NEG_INFINITY };
            if *weight > highest {
                highest = *weight;
            }
        }
        if highest == f32::NEG_INFINITY {
            return Err(EstimateError::NonFinite);
        }
        let mut total = 0.0;
        for weight in weights.iter_mut() {
            *weight = if *weight == f32::NEG_INFINITY { 0.0 } else { math::exp(*weight - highest) };
            total += *weight;
        }
        let mut square = 0.0;
        for weight in weights.iter_mut() {
            *weight = math::flush(*weight / total);
            square += *weight * *weight;
        }
        for (j, mean) in mean.iter_mut().enumerate() {
            let component = |rows: &[f32], k: usize| rows.get(k * dim + j).copied().unwrap_or(0.0);
            // Candidates without weight are left out: theirs may be the numbers that are not finite.
            let samples = || weights.iter().enumerate().filter(|(_, w)| **w > 0.0);
            let plain: f32 = samples().map(|(k, w)| w * component(candidates, k)).sum();
            let corrected = if scored {
                let score_mean: f32 = samples().map(|(k, w)| w * component(scores, k)).sum();
                let triples = samples().map(|(k, w)| (*w, component(candidates, k), component(scores, k)));
                plain + self.control_variate.coefficient(triples, plain, score_mean, ratio) * score_mean
            } else {
                plain
            };
            // A correction that overflows is worth less than none.
            *mean = math::flush(if corrected.is_finite() { corrected } else { plain });
        }
        Ok(Posterior {
            effective_sample_size: 1.0 / square,
            log_normalizer: highest + math::ln(total / self.mixture.candidates() as f32),
        })
    }

    fn check(
        &self,
        t: f32,
        x: &[f32],
        particles: &[f32],
        scratch: &EstimatorScratch<'_>,
        mean: &[f32],
    ) -> Result<(), EstimateError> {
        if !(math::FLUSH..1.0).contains(&t) {
            return Err(EstimateError::Time);
        }
        if x.iter().any(|x| !x.is_finite()) {
            return Err(EstimateError::Point);
        }
        let (dim, k) = (x.len(), scratch.weights.len());
        self.mixture.check(k, particles, dim).map_err(EstimateError::Proposal)?;
        if !self.control_variate.is_valid() {
            return Err(EstimateError::ControlVariate);
        }
        let scores = if self.control_variate.needs_scores() { k * dim } else { 0 };
        if mean.len() != dim || scratch.candidates.len() != k * dim || scratch.scores.len() < scores {
            return Err(EstimateError::Scratch);
        }
        Ok(())
    }
}

/// An estimator of dimension `D` with `K` candidates, owning its memory: `K (2 D + 1)` floats.
///
/// ```
/// use flowlet::rfm::{Estimator, Mixture, RfmConfig, Target};
/// use rand_xoshiro::{Xoshiro128PlusPlus, rand_core::SeedableRng};
///
/// /// A Gaussian target of mean 1 and variance 1/4.
/// struct Bump;
/// impl Target for Bump {
///     fn log_density(&mut self, u: &[f32]) -> f32 {
///         u.iter().map(|u| -2.0 * (u - 1.0) * (u - 1.0)).sum()
///     }
///     fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
///         score.iter_mut().zip(u).for_each(|(s, u)| *s = -4.0 * (u - 1.0));
///         self.log_density(u)
///     }
/// }
///
/// let config = RfmConfig { mixture: Mixture::bridge(256), ..RfmConfig::default() };
/// let mut estimator = Estimator::<1, 256>::new(config);
/// let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
/// let (mean, posterior) = estimator.estimate(0.5, &[0.4].into(), &mut Bump, &[], &mut rng).unwrap();
/// // Exactly: (4 * 1 + 0.4 * 0.5 / 0.25) / (4 + 1) = 0.96.
/// assert!((mean[0] - 0.96).abs() < 0.1 && posterior.effective_sample_size > 30.0);
/// ```
#[derive(Debug, Clone)]
pub struct Estimator<const D: usize, const K: usize> {
    /// What is fixed about the estimator.
    pub config: RfmConfig,
    candidates: SMatrix<f32, D, K>,
    scores: SMatrix<f32, D, K>,
    weights: SVector<f32, K>,
}

impl<const D: usize, const K: usize> Estimator<D, K> {
    /// An estimator; its configuration is checked at each estimate.
    pub fn new(config: RfmConfig) -> Self {
        Self { config, candidates: SMatrix::zeros(), scores: SMatrix::zeros(), weights: SVector::zeros() }
    }

    /// Estimates `E[X_1 | X_t = x]`; see [`RfmConfig::estimate`].
    pub fn estimate<T: Target + ?Sized, R: Rng + ?Sized>(
        &mut self,
        t: f32,
        x: &SVector<f32, D>,
        target: &mut T,
        particles: &[[f32; D]],
        rng: &mut R,
    ) -> Result<(SVector<f32, D>, Posterior), EstimateError> {
        let mut mean = SVector::<f32, D>::zeros();
        let mut scratch = EstimatorScratch {
            candidates: self.candidates.as_mut_slice(),
            scores: self.scores.as_mut_slice(),
            weights: self.weights.as_mut_slice(),
        };
        let (x, particles) = (x.as_slice(), particles.as_flattened());
        let posterior = self.config.estimate(t, x, target, particles, rng, &mut scratch, mean.as_mut_slice())?;
        Ok((mean, posterior))
    }

    /// The weights of the last estimate.
    pub fn weights(&self) -> &SVector<f32, K> {
        &self.weights
    }

    /// The candidates of the last estimate, a column each.
    pub fn candidates(&self) -> &SMatrix<f32, D, K> {
        &self.candidates
    }
}
