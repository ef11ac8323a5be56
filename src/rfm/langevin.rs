//! Langevin chains on the posterior, started from the weighted particles of an importance round.
//!
//! The first rows are an importance round. Chains take their starts from it by systematic resampling, and every later
//! round moves each chain once: `y' = y + (h/2) M s(y) + sqrt(h M) e` with the posterior score `s` and standard normal
//! `e`, the drift truncated (Roberts and Tweedie, 1996). Each move is a row and an evaluation, rejected or not.
//!
//! `M` is diagonal and fixed before the first move: `1 / M_j = max(1 + (alpha/beta)^2, I_j)`, the larger of the
//! precision that the bridge and a latent of unit scale imply and of that seen in the weighted start rows. That is the
//! information `I_j = sum_k w_k s_kj^2`; where fewer than four rows carry the weight, it mostly tells how far they are
//! from a mode, and the slope of the score, `- sum w (y - m)_j (s - s_bar)_j / sum w (y - m)_j^2`, takes its place if
//! that is positive and smaller. The step is `h = step D^(-1/3)`, the scaling that keeps acceptance independent of the
//! dimension.
//!
//! **Adjusted** chains accept with the Metropolis-Hastings probability, so they leave the posterior exactly invariant,
//! and every row is used: a move from row `i` to row `k` accepted with probability `a` gives `a` to `k` and `1 - a` to
//! `i` (waste recycling, Frenkel 2004), which keeps the expectation and lowers the variance. **Unadjusted** chains
//! always move, unless the new row was refused; their bias is of the order of the step. Weights say nothing of the
//! correlation along a chain, and so neither does the effective sample size.
//!
//! No panics, no allocation. Cost: about `30 D` operations a move beside the evaluation.

use super::estimator::weigh_rows;
use super::{EstimateError, EstimatorScratch, Evidence, Mixture, Posterior, Run, weights};
use crate::flow::Source;
use crate::math;
use core::ops::Range;
use rand_core::Rng;

/// Chains from an importance round.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Langevin {
    /// Proposal of the importance round.
    pub start: Mixture,
    /// Number of chains.
    pub chains: usize,
    /// Moves of each chain.
    pub steps: usize,
    /// Step size `h` in one dimension, in units of `M`; 1 by default, 2.7 is the optimum for many Gaussian components.
    pub step: f32,
}

impl Langevin {
    /// `chains` chains of `steps` moves of unit step size.
    pub const fn new(start: Mixture, chains: usize, steps: usize) -> Self {
        Self { start, chains, steps, step: 1.0 }
    }

    /// Number of candidates: the importance round's and one for each move.
    pub const fn candidates(&self) -> usize {
        self.start.candidates().saturating_add(self.chains.saturating_mul(self.steps))
    }

    pub(super) fn check(&self, candidates: usize, particles: &[f32], dim: usize) -> Result<(), EstimateError> {
        self.start.check(self.start.candidates(), particles, dim).map_err(EstimateError::Proposal)?;
        let sizes = self.chains > 0 && self.steps > 0 && self.candidates() == candidates && candidates <= MOST_ROWS;
        if sizes && step_is_valid(self.step) { Ok(()) } else { Err(EstimateError::Method) }
    }

    pub(super) fn propose<R: Rng + ?Sized>(
        &self,
        adjusted: bool,
        run: &mut Run<'_>,
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
    ) -> Option<Range<usize>> {
        let first = self.start.candidates();
        if run.asked == 0 {
            let dim = run.evidence.dim();
            let rows = scratch.candidates.get_mut(..first * dim)?;
            self.start.draw(&run.evidence, run.particles, rng, rows);
            return Some(0..first);
        }
        if run.progress.failed || run.asked >= self.candidates() {
            return None;
        }
        let level = Level::posterior(&run.evidence);
        if run.asked == first {
            let Some(posterior) = weigh_rows(&self.start, run, scratch, first) else {
                run.progress.failed = true;
                return None;
            };
            run.progress.log_normalizer = posterior.log_normalizer;
            level.precondition(scratch, self.step);
            let EstimatorScratch { rows, weights, .. } = scratch;
            weights::resample(weights, self.chains, unit_uniform(rng), |i, row| put(rows, i, row as f32));
            weights.fill(0.0);
        } else {
            self.settle(adjusted, run, scratch, |acceptance| unit_uniform(rng) < acceptance);
        }
        level.moves(run.asked, self.chains, rng, scratch);
        Some(run.asked..run.asked + self.chains)
    }

    pub(super) fn weigh(&self, adjusted: bool, run: &Run<'_>, scratch: &mut EstimatorScratch<'_>) -> Option<Posterior> {
        if run.progress.failed {
            return None;
        }
        self.settle(adjusted, run, scratch, |_| true);
        let effective_sample_size = weights::rescale(scratch.weights)?;
        Some(Posterior { effective_sample_size, log_normalizer: run.progress.log_normalizer })
    }

    /// Shares the weight of the last moves between their ends, and takes those that `accept` decides on.
    fn settle(
        &self,
        adjusted: bool,
        run: &Run<'_>,
        scratch: &mut EstimatorScratch<'_>,
        accept: impl FnMut(f32) -> bool,
    ) {
        let level = Level::posterior(&run.evidence);
        level.settle(run.asked.saturating_sub(self.chains), self.chains, adjusted, scratch, accept);
    }
}

/// Largest drift in standard deviations of the noise: scores where the density is stiffer than at the start rows would
/// otherwise carry an unadjusted chain ever further away. In equilibrium and at unit step the drift is about half of one.
const TRUNCATION: f32 = 2.0;

/// Rows that a float can number.
pub(super) const MOST_ROWS: usize = 1 << 24;

/// Whether a step size can be used.
pub(super) fn step_is_valid(step: f32) -> bool {
    (math::FLUSH..=1.0 / math::FLUSH).contains(&step)
}

/// A uniform number in `(0, 1)`.
pub(super) fn unit_uniform<R: Rng + ?Sized>(rng: &mut R) -> f32 {
    0.5 + 0.5 * math::symmetric_uniform(rng.next_u32())
}

/// Drift of a move with `step = h M_j`, truncated at [`TRUNCATION`] standard deviations of its noise.
fn drift(step: f32, score: f32) -> f32 {
    math::clip(0.5 * step * score, TRUNCATION * math::sqrt(step))
}

fn put(values: &mut [f32], i: usize, value: f32) {
    if let Some(slot) = values.get_mut(i) {
        *slot = value;
    }
}

/// The row that a chain stands on: an integer that a float holds exactly, see [`MOST_ROWS`].
fn chain(rows: &[f32], i: usize) -> usize {
    rows.get(i).map_or(0, |row| *row as usize)
}

fn cells(values: &[f32], row: usize, dim: usize) -> &[f32] {
    values.get(row * dim..(row + 1) * dim).unwrap_or_default()
}

/// A density between a Gaussian base and the posterior, `base^(1 - share) q^share`, and the moves on it.
#[derive(Clone, Copy)]
pub(super) struct Level<'e> {
    pub evidence: &'e Evidence<'e>,
    /// Share of the posterior, from 0 to 1.
    pub share: f32,
    /// Precision that the latent's own scale adds to the bridge's in the base, `1 / spread^2`.
    pub prior: f32,
}

impl<'e> Level<'e> {
    pub fn posterior(evidence: &'e Evidence<'e>) -> Self {
        Self { evidence, share: 1.0, prior: 1.0 }
    }

    /// Precision of every component of the base: the bridge's and the prior's.
    pub fn precision(&self) -> f32 {
        self.prior + 1.0 / (self.evidence.ratio() * self.evidence.ratio())
    }

    /// Mean of component `j` of the base.
    pub fn centre(&self, j: usize) -> f32 {
        // The bridge's centre, x / alpha, by its precision (alpha / beta)^2.
        let bridge = self.evidence.noise(j, 0.0) / self.evidence.ratio();
        bridge / self.precision()
    }

    /// Log-density of the base, normalised.
    pub fn log_base(&self, candidate: &[f32]) -> f32 {
        let precision = self.precision();
        let root = math::sqrt(precision);
        let half_ln = 0.5 * math::ln(precision);
        let component = |(j, y): (usize, &f32)| Source::Gaussian.log_density((y - self.centre(j)) * root) + half_ln;
        candidate.iter().enumerate().map(component).sum()
    }

    /// Log-density of the posterior up to its constant; `-inf` for a refused row.
    pub fn log_posterior(&self, candidate: &[f32], log_target: f32) -> f32 {
        let sum = log_target + self.evidence.log_source(candidate) + self.evidence.log_bridge_factor();
        if sum.is_finite() { sum } else { f32::NEG_INFINITY }
    }

    fn log_density(&self, candidate: &[f32], log_target: f32) -> f32 {
        let posterior = self.log_posterior(candidate, log_target);
        if self.share >= 1.0 {
            posterior
        } else {
            self.share * posterior + (1.0 - self.share) * self.log_base(candidate)
        }
    }

    /// Component `j` of the score, given that of the posterior.
    fn score(&self, j: usize, y: f32, posterior: f32) -> f32 {
        if self.share >= 1.0 {
            return posterior;
        }
        self.share * posterior - (1.0 - self.share) * self.precision() * (y - self.centre(j))
    }

    /// Writes `h M` into the first of the scratch's vectors, from the weighted rows.
    pub fn precondition(&self, scratch: &mut EstimatorScratch<'_>, step: f32) {
        let dim = self.evidence.dim();
        let step = step * math::exp(-math::ln(dim as f32) / 3.0);
        let EstimatorScratch { candidates, scores, weights, vectors, .. } = scratch;
        let few = weights.iter().map(|w| w * w).sum::<f32>() > 0.25;
        for (j, slot) in vectors.iter_mut().enumerate().take(dim) {
            let pairs = || {
                weights.iter().enumerate().filter(|(_, w)| **w > 0.0).map(|(k, w)| {
                    let (y, s) = (cells(candidates, k, dim).get(j), cells(scores, k, dim).get(j));
                    let y = y.copied().unwrap_or(0.0);
                    (*w, y, self.score(j, y, s.copied().unwrap_or(0.0)))
                })
            };
            let (mut mean, mut score_mean, mut information) = (0.0, 0.0, 0.0);
            for (w, y, s) in pairs() {
                mean += w * y;
                score_mean += w * s;
                information += w * s * s;
            }
            if few {
                let (mut cross, mut square) = (0.0, 0.0);
                for (w, y, s) in pairs() {
                    cross -= w * (y - mean) * (s - score_mean);
                    square += w * (y - mean) * (y - mean);
                }
                if square >= math::FLUSH_BIAS && cross >= math::FLUSH_BIAS {
                    information = information.min(cross / square);
                }
            }
            let least = self.precision();
            // NaN and infinity fall to the other side.
            let precision = if information > least && information.is_finite() { information } else { least };
            *slot = math::flush(step / precision);
        }
    }

    /// Writes one move of each of `chains` chains into the rows from `first` on.
    pub fn moves<R: Rng + ?Sized>(&self, first: usize, chains: usize, rng: &mut R, scratch: &mut EstimatorScratch<'_>) {
        let dim = self.evidence.dim();
        let EstimatorScratch { candidates, scores, rows, vectors, .. } = scratch;
        let (from, to) = candidates.split_at_mut_checked(first * dim).unwrap_or_default();
        for (i, row) in to.chunks_exact_mut(dim.max(1)).take(chains).enumerate() {
            Source::Gaussian.sample(rng, row);
            let start = chain(rows, i);
            let (y, s) = (cells(from, start, dim), cells(scores, start, dim));
            for (j, ((new, step), (y, s))) in row.iter_mut().zip(vectors.iter()).zip(y.iter().zip(s)).enumerate() {
                *new = y + drift(*step, self.score(j, *y, *s)) + math::sqrt(*step) * *new;
            }
        }
    }

    /// Weighs the moves that stand in the rows from `first` on, each to one chain, and takes the accepted ones.
    pub fn settle(
        &self,
        first: usize,
        chains: usize,
        adjusted: bool,
        scratch: &mut EstimatorScratch<'_>,
        mut accept: impl FnMut(f32) -> bool,
    ) {
        for i in 0..chains {
            let (from, to) = (chain(scratch.rows, i), first + i);
            let acceptance = self.acceptance(from, to, adjusted, scratch);
            for (row, share) in [(from, 1.0 - acceptance), (to, acceptance)] {
                if let Some(weight) = scratch.weights.get_mut(row) {
                    *weight += share;
                }
            }
            if accept(acceptance) && acceptance > 0.0 {
                put(scratch.rows, i, to as f32);
            }
        }
    }

    /// Metropolis-Hastings probability of a move; of an unadjusted one, whether the new row is good at all.
    fn acceptance(&self, from: usize, to: usize, adjusted: bool, scratch: &EstimatorScratch<'_>) -> f32 {
        let dim = self.evidence.dim();
        let row = |k: usize| {
            let log_target = scratch.log_targets.get(k).copied().unwrap_or(f32::NEG_INFINITY);
            (cells(scratch.candidates, k, dim), cells(scratch.scores, k, dim), log_target)
        };
        let ((y, s, old), (z, r, new)) = (row(from), row(to));
        let (old, new) = (self.log_density(y, old), self.log_density(z, new));
        if new == f32::NEG_INFINITY {
            return 0.0;
        }
        if !adjusted {
            return 1.0;
        }
        // ln T(y | z) - ln T(z | y) of the Gaussian transitions; their common constants cancel.
        let mut transition = 0.0;
        for (j, ((y, s), ((z, r), step))) in
            y.iter().zip(s).zip(z.iter().zip(r).zip(scratch.vectors.iter())).enumerate()
        {
            let forward = z - y - drift(*step, self.score(j, *y, *s));
            let back = y - z - drift(*step, self.score(j, *z, *r));
            transition += (forward * forward - back * back) / (2.0 * step);
        }
        let log_ratio = new - old + transition;
        if log_ratio.is_nan() {
            0.0
        } else if log_ratio >= 0.0 {
            1.0
        } else {
            math::flush(math::exp(log_ratio))
        }
    }
}
