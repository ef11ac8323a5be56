//! Annealed sequential Monte Carlo: particles are led from a Gaussian to the posterior over intermediate densities.
//!
//! `N` particles are drawn from the base `N(c, 1/P)` with `P = 1/spread^2 + (alpha/beta)^2` and
//! `c = (x / alpha) (alpha/beta)^2 / P`: the posterior of a Gaussian source if the target were a Gaussian of standard
//! deviation `spread`. Each later round raises the share `tau` of the geometric path `base^(1 - tau) q^tau`, weighs the
//! particles by what that adds, resamples them systematically and moves each once by a Metropolis-adjusted Langevin
//! step that leaves the new density invariant (Neal 2001; Del Moral, Doucet and Jasra 2006). The last round has `tau =
//! 1`, and its moves share their weight between both ends as in [`Langevin`](super::Langevin).
//!
//! `K = particles * rounds` evaluations. With one round it is importance sampling from the base. The normaliser is the
//! product of the rounds' mean weights: an estimate without bias on a fixed ladder, and nearly so on an adaptive one.
//! No panics, no allocation.

use super::langevin::{Level, MOST_ROWS, step_is_valid, unit_uniform};
use super::{EstimateError, EstimatorScratch, Posterior, Run, weights};
use crate::flow::Source;
use crate::math;
use core::ops::Range;
use rand_core::Rng;

/// Annealed sequential Monte Carlo.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Annealed {
    /// Number of particles.
    pub particles: usize,
    /// Number of rounds, the draw from the base included.
    pub rounds: usize,
    /// How the share of the posterior rises.
    pub ladder: Ladder,
    /// Standard deviation that the base assumes of the target, in latent units.
    pub spread: f32,
    /// Step size of the moves, as in [`Langevin`](super::Langevin).
    pub step: f32,
}

/// How the share of the posterior rises from 0 to 1 over the rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Ladder {
    /// In round `i` of `n` after the base, `(i / n)^exponent`.
    Power {
        /// Exponent, positive.
        exponent: f32,
    },
    /// As far as the effective sample size of the round's weights stays at `keep` times the particles that are inside
    /// the support; the last round goes to 1 whatever that costs.
    Adaptive {
        /// Share in `(0, 1)`.
        keep: f32,
    },
}

impl Annealed {
    /// `particles` particles over `rounds` rounds that keep half of the effective sample size, from a base that assumes
    /// unit spread, with moves of unit step.
    pub const fn new(particles: usize, rounds: usize) -> Self {
        Self { particles, rounds, ladder: Ladder::Adaptive { keep: 0.5 }, spread: 1.0, step: 1.0 }
    }

    /// Number of candidates.
    pub const fn candidates(&self) -> usize {
        self.particles.saturating_mul(self.rounds)
    }

    pub(super) fn check(&self, candidates: usize) -> Result<(), EstimateError> {
        let ladder = match self.ladder {
            Ladder::Power { exponent } => exponent > 0.0 && exponent.is_finite(),
            Ladder::Adaptive { keep } => keep > 0.0 && keep < 1.0,
        };
        let sizes = candidates > 0 && self.candidates() == candidates && candidates <= MOST_ROWS;
        // Spreads outside this range would overflow as precisions.
        let spread = (1.0 / 1024.0..=1024.0).contains(&self.spread);
        if sizes && ladder && spread && step_is_valid(self.step) { Ok(()) } else { Err(EstimateError::Method) }
    }

    fn level<'e>(&self, run: &'e Run<'_>, share: f32) -> Level<'e> {
        Level { evidence: &run.evidence, share, prior: 1.0 / (self.spread * self.spread) }
    }

    pub(super) fn propose<R: Rng + ?Sized>(
        &self,
        run: &mut Run<'_>,
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
    ) -> Option<Range<usize>> {
        if run.progress.failed || run.asked >= self.candidates() {
            return None;
        }
        if run.asked == 0 {
            let (level, dim) = (self.level(run, 0.0), run.evidence.dim());
            let deviation = 1.0 / math::sqrt(level.precision());
            for (i, row) in scratch.candidates.chunks_exact_mut(dim.max(1)).take(self.particles).enumerate() {
                Source::Gaussian.sample(rng, row);
                row.iter_mut().enumerate().for_each(|(j, y)| *y = level.centre(j) + deviation * *y);
                if let Some(chain) = scratch.rows.get_mut(i) {
                    *chain = i as f32;
                }
            }
            return Some(0..self.particles);
        }
        let before = run.progress.temperature;
        if run.asked > self.particles {
            self.level(run, before).settle(run.asked - self.particles, self.particles, true, scratch, |acceptance| {
                unit_uniform(rng) < acceptance
            });
        }
        let round = run.asked / self.particles;
        let share = self.next_share(run, before, round, scratch);
        let Some(log_mean) = self.reweigh(run, share - before, scratch) else {
            run.progress.failed = true;
            return None;
        };
        run.progress.log_normalizer += log_mean;
        run.progress.temperature = share;
        self.resample(rng, scratch);
        let level = self.level(run, share);
        level.precondition(scratch, self.step);
        scratch.weights.fill(0.0);
        level.moves(run.asked, self.particles, rng, scratch);
        Some(run.asked..run.asked + self.particles)
    }

    pub(super) fn weigh(&self, run: &Run<'_>, scratch: &mut EstimatorScratch<'_>) -> Option<Posterior> {
        if run.progress.failed {
            return None;
        }
        let mut log_normalizer = run.progress.log_normalizer;
        if self.rounds == 1 {
            log_normalizer += self.reweigh(run, 1.0, scratch)?;
            let EstimatorScratch { rows, weights, .. } = scratch;
            let increments = rows.get(self.particles..)?;
            weights.iter_mut().zip(increments).for_each(|(weight, increment)| *weight = *increment);
        } else {
            let level = self.level(run, 1.0);
            level.settle(run.asked - self.particles, self.particles, true, scratch, |_| true);
        }
        let effective_sample_size = weights::rescale(scratch.weights)?;
        Some(Posterior { effective_sample_size, log_normalizer })
    }

    /// Normalised weights of the particles for a rise of the share by `rise`, into the second half of the scratch's
    /// rows; `ln` of their mean.
    fn reweigh(&self, run: &Run<'_>, rise: f32, scratch: &mut EstimatorScratch<'_>) -> Option<f32> {
        self.log_ratios(run, scratch);
        let (_, increments) = scratch.rows.split_at_mut_checked(self.particles)?;
        let increments = increments.get_mut(..self.particles)?;
        increments.iter_mut().filter(|w| w.is_finite()).for_each(|w| *w *= rise);
        Some(weights::normalize(increments)?.log_mean(self.particles))
    }

    /// `ln q - ln base` of every particle, into the second part of the scratch's rows.
    fn log_ratios(&self, run: &Run<'_>, scratch: &mut EstimatorScratch<'_>) {
        let (level, dim) = (self.level(run, 1.0), run.evidence.dim());
        let EstimatorScratch { candidates, log_targets, rows, .. } = scratch;
        let (chains, ratios) = rows.split_at_mut_checked(self.particles).unwrap_or_default();
        for (chain, ratio) in chains.iter().zip(ratios) {
            let row = *chain as usize;
            let y = candidates.get(row * dim..(row + 1) * dim).unwrap_or_default();
            let log_target = log_targets.get(row).copied().unwrap_or(f32::NEG_INFINITY);
            *ratio = level.log_posterior(y, log_target) - level.log_base(y);
            if !ratio.is_finite() {
                *ratio = f32::NEG_INFINITY;
            }
        }
    }

    /// The share of the next density.
    fn next_share(&self, run: &Run<'_>, before: f32, round: usize, scratch: &mut EstimatorScratch<'_>) -> f32 {
        let last = self.rounds.saturating_sub(1);
        if round >= last {
            return 1.0;
        }
        let keep = match self.ladder {
            Ladder::Adaptive { keep } => keep,
            Ladder::Power { exponent } => {
                return math::exp(exponent * math::ln(round as f32 / last as f32)).max(before).min(1.0);
            }
        };
        self.log_ratios(run, scratch);
        let ratios = scratch.rows.get(self.particles..2 * self.particles).unwrap_or_default();
        let highest = ratios.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let keep = keep * ratios.iter().filter(|ratio| ratio.is_finite()).count() as f32;
        let size = |rise: f32| {
            let (mut sum, mut square) = (0.0, 0.0);
            for ratio in ratios.iter().filter(|ratio| ratio.is_finite()) {
                let w = math::exp(rise * (ratio - highest));
                sum += w;
                square += w * w;
            }
            sum * sum / square
        };
        let (mut low, mut high) = (0.0, 1.0 - before);
        if size(high) >= keep {
            return 1.0;
        }
        // The size falls as the rise grows; 20 halvings find where it passes.
        for _ in 0..20 {
            let middle = 0.5 * (low + high);
            if size(middle) >= keep { low = middle } else { high = middle }
        }
        before + low
    }

    /// Replaces the particles' rows by draws in proportion to their weights, and leaves equal weights on those rows.
    fn resample<R: Rng + ?Sized>(&self, rng: &mut R, scratch: &mut EstimatorScratch<'_>) {
        let EstimatorScratch { rows, weights, .. } = scratch;
        let (chains, increments) = rows.split_at_mut_checked(self.particles).unwrap_or_default();
        let increments = increments.get_mut(..self.particles).unwrap_or_default();
        weights.fill(0.0);
        // The picks are noted in the weights first: a chain's row may still be wanted by a later pick.
        let mut noted = weights.iter_mut();
        weights::resample(increments, self.particles, unit_uniform(rng), |_, picked| {
            if let (Some(slot), Some(row)) = (noted.next(), chains.get(picked)) {
                *slot = *row;
            }
        });
        chains.iter_mut().zip(weights.iter()).for_each(|(chain, row)| *chain = *row);
        weights.fill(0.0);
        for chain in chains.iter() {
            if let Some(weight) = weights.get_mut(*chain as usize) {
                *weight += 1.0 / self.particles as f32;
            }
        }
    }
}
