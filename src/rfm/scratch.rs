//! The memory of an estimate: borrowed slices of any size, or owned with dimension and number of candidates in the
//! type.
//!
//! No panics, no allocation. `K (2 D + 4) + D (D + 5)` floats.

use super::{EstimateError, Posterior, RfmConfig, Target};
use nalgebra::{SMatrix, SVector};
use rand_core::Rng;

/// Memory that an estimate writes: `K` candidates of dimension `D`.
#[derive(Debug)]
pub struct EstimatorScratch<'s> {
    /// Candidates, `K` rows of `D` floats.
    pub candidates: &'s mut [f32],
    /// The target's scores and, once a round is taken in, the posterior's: `K` rows of `D` floats. After
    /// [`RfmConfig::apply`] the features of the user's field. May be empty where neither method nor control variate
    /// needs scores.
    pub scores: &'s mut [f32],
    /// The target's log-densities, `K` floats; `-inf` for a candidate that was refused.
    pub log_targets: &'s mut [f32],
    /// Weights, `K` floats.
    pub weights: &'s mut [f32],
    /// What a method remembers of its rows, `2 K` floats.
    pub rows: &'s mut [f32],
    /// A matrix of `D x D` floats.
    pub matrix: &'s mut [f32],
    /// Five vectors of `D` floats.
    pub vectors: &'s mut [f32],
}

impl<'s> EstimatorScratch<'s> {
    /// Number of vectors of `D` floats.
    pub(super) const VECTORS: usize = 5;

    /// Floats that [`carve`](Self::carve) needs for `k` candidates of dimension `dim`.
    pub const fn len(dim: usize, k: usize) -> usize {
        k.saturating_mul(dim.saturating_mul(2).saturating_add(4))
            .saturating_add(dim.saturating_mul(dim.saturating_add(Self::VECTORS)))
    }

    /// Divides the front of `memory`; `None` when it is shorter than [`len`](Self::len).
    pub fn carve(memory: &'s mut [f32], dim: usize, k: usize) -> Option<Self> {
        // Products below cannot overflow where this holds.
        if memory.len() < Self::len(dim, k) {
            return None;
        }
        let (candidates, memory) = memory.split_at_mut_checked(k * dim)?;
        let (scores, memory) = memory.split_at_mut_checked(k * dim)?;
        let (log_targets, memory) = memory.split_at_mut_checked(k)?;
        let (weights, memory) = memory.split_at_mut_checked(k)?;
        let (rows, memory) = memory.split_at_mut_checked(2 * k)?;
        let (matrix, memory) = memory.split_at_mut_checked(dim * dim)?;
        let (vectors, _) = memory.split_at_mut_checked(Self::VECTORS * dim)?;
        Some(Self { candidates, scores, log_targets, weights, rows, matrix, vectors })
    }

    /// Whether every slice has the length that `k` candidates of dimension `dim` ask for.
    pub(super) fn fits(&self, dim: usize, k: usize, scored: bool) -> bool {
        let Some(cells) = k.checked_mul(dim) else { return false };
        self.candidates.len() == cells
            && (!scored || self.scores.len() == cells)
            && self.log_targets.len() == k
            && self.weights.len() == k
            && self.rows.len() == 2 * k
            && Some(self.matrix.len()) == dim.checked_mul(dim)
            && Some(self.vectors.len()) == dim.checked_mul(Self::VECTORS)
    }
}

/// An estimator of dimension `D` with `K` candidates, owning its memory.
///
/// ```
/// use flowlet::rfm::{Estimator, Target};
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
/// let mut estimator = Estimator::<1, 64>::auto();
/// let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
/// let (mean, posterior) = estimator.estimate(0.5, &[0.4].into(), &mut Bump, &[], &mut rng).unwrap();
/// // Exactly: (4 * 1 + 0.4 * 0.5 / 0.25) / (4 + 1) = 0.96.
/// assert!((mean[0] - 0.96).abs() < 1e-3 && posterior.effective_sample_size > 30.0);
/// ```
#[derive(Debug, Clone)]
pub struct Estimator<const D: usize, const K: usize> {
    /// What is fixed about the estimator.
    pub config: RfmConfig,
    candidates: SMatrix<f32, D, K>,
    scores: SMatrix<f32, D, K>,
    log_targets: SVector<f32, K>,
    weights: SVector<f32, K>,
    rows: SMatrix<f32, K, 2>,
    matrix: SMatrix<f32, D, D>,
    vectors: SMatrix<f32, D, { EstimatorScratch::VECTORS }>,
}

impl<const D: usize, const K: usize> Estimator<D, K> {
    /// An estimator; its configuration is checked at each estimate.
    pub fn new(config: RfmConfig) -> Self {
        Self {
            config,
            candidates: SMatrix::zeros(),
            scores: SMatrix::zeros(),
            log_targets: SVector::zeros(),
            weights: SVector::zeros(),
            rows: SMatrix::zeros(),
            matrix: SMatrix::zeros(),
            vectors: SMatrix::zeros(),
        }
    }

    /// The default: [`RfmConfig::auto`] with `K` candidates, for a Gaussian source on the linear path.
    pub fn auto() -> Self {
        Self::new(RfmConfig::auto(K))
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
        let (config, mut mean) = (self.config, SVector::<f32, D>::zeros());
        let (x, particles, out) = (x.as_slice(), particles.as_flattened(), mean.as_mut_slice());
        let posterior = config.estimate(t, x, target, particles, rng, &mut self.scratch(), out)?;
        Ok((mean, posterior))
    }

    /// Estimates the score `grad ln p_t(x)`; see [`RfmConfig::score`].
    pub fn score<T: Target + ?Sized, R: Rng + ?Sized>(
        &mut self,
        t: f32,
        x: &SVector<f32, D>,
        target: &mut T,
        particles: &[[f32; D]],
        rng: &mut R,
    ) -> Result<(SVector<f32, D>, Posterior), EstimateError> {
        let (config, mut score) = (self.config, SVector::<f32, D>::zeros());
        let (x, particles, out) = (x.as_slice(), particles.as_flattened(), score.as_mut_slice());
        let posterior = config.score(t, x, target, particles, rng, &mut self.scratch(), out)?;
        Ok((score, posterior))
    }

    /// Its memory, for the rounds of [`RfmConfig`].
    pub fn scratch(&mut self) -> EstimatorScratch<'_> {
        EstimatorScratch {
            candidates: self.candidates.as_mut_slice(),
            scores: self.scores.as_mut_slice(),
            log_targets: self.log_targets.as_mut_slice(),
            weights: self.weights.as_mut_slice(),
            rows: self.rows.as_mut_slice(),
            matrix: self.matrix.as_mut_slice(),
            vectors: self.vectors.as_mut_slice(),
        }
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
