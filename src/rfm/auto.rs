//! The default method: importance sampling whose proposal is learnt from its own first candidates.
//!
//! Half of the `K` candidates come from a proposal that knows only where the path leads; three further rounds of a
//! sixth each gather where the posterior was found. All are weighed by the density of everything that was proposed (the
//! balance heuristic), so a round that was misled costs candidates. What is chosen from what:
//!
//! * **First round.** The *flat posterior*, which would be exact were the critic constant: a Gaussian whose precision
//!   is that of the bridge plus `1 / spread^2`. It is the bridge as `t -> 1` and the spread of actions as `t -> 0`. A
//!   fifth are stretched uniform actions, for the tails. With particles, half are kernels on them: the posterior of a
//!   kernel density under the bridge is a mixture of Gaussians again, so particles that the point `x` rules out are not
//!   used.
//! * **Later rounds.** Weights are flattened by a power, the largest at which their effective sample size is two fifths
//!   of the candidates; centres are resampled with them and moved by a Newton step along their scores, which counts for
//!   them in advance; a candidate is drawn around each. The precision, a number a component, is the geometric mean of
//!   two estimates of the posterior's curvature, the regression slope of the scores and their second moment.
//! * **Correction.** [`ControlVariate::Shrunk`](super::ControlVariate::Shrunk): nothing at an effective sample size of
//!   one, the optimal diagonal at a large one.
//!
//! Where source or target bound the posterior to less than the spread, the Gaussians are uniform distributions inside.
//!
//! Because later rounds depend on the candidates they are weighed with, the estimate is consistent but not unbiased, and
//! the normaliser comes out low where the rounds had to learn much (adaptive multiple importance sampling, Cornuet,
//! Marin, Mira and Robert 2012).
//!
//! Noise is a Latin hypercube in each round. No panics, no allocation; the same bits everywhere.
//!
//! Cost beside the target: about `0.9 K^2` kernel values of `D` components and one exponential each, and four times
//! `K` values for each particle.

mod base;

use super::langevin::unit_uniform;
use super::{EstimatorScratch, Posterior, ProposalError, Run, weights};
use crate::flow::Draws;
use crate::math;
use base::{Base, Flat, Sums};
use core::ops::Range;
use rand_core::Rng;

/// Constants of the default method; [`Auto::new`] sets all but the number of candidates.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Auto {
    /// Number of candidates `K`, at least one; 8 or more leave something for every round.
    pub candidates: usize,
    /// Standard deviation of the latents that are worth a look before anything is known. The default, `pi / sqrt 12`,
    /// is that of a uniform action seen through `atanh`. From 2^-10 to 2^10.
    pub spread: f32,
}

/// `ln(2 pi) / 2`.
const HALF_LN_2PI: f32 = 0.918_938_5;

/// Largest magnitude of a uniform action component.
const BOUND: f32 = 0.9999;

/// The uniform actions' latents are stretched by this factor: a critic whose best action lies at the edge of the box
/// has its posterior where uniform actions hardly ever are.
const WIDE: f32 = 2.0;

/// Share of the particles' kernels that is spread evenly, whatever the point says.
const EVEN: f32 = 0.1;

/// Rounds after the first.
const ROUNDS: usize = 3;

/// Effective sample size, as a share of the rows, to which the weights are flattened before centres are resampled.
const FLAT: f32 = 0.4;

/// Share of the promised gain in log-density by which a centre is preferred: a row on the slope of a high mode counts
/// for more than its own density.
const PROMISE: f32 = 0.75;

/// A Newton step is at most this many standard deviations of its kernel.
const STEP: f32 = 2.0;

impl Default for Auto {
    fn default() -> Self {
        Self::new(32)
    }
}

impl Auto {
    /// Standard deviation of `atanh` of a uniform number of (-1, 1).
    pub const SPREAD: f32 = 0.906_899_7;

    /// The method with `candidates` evaluations of the target.
    pub const fn new(candidates: usize) -> Self {
        Self { candidates, spread: Self::SPREAD }
    }

    /// Checks the constants against the number of candidates there is memory for.
    pub(super) fn check(&self, particles: &[f32], candidates: usize, dim: usize) -> Result<(), ProposalError> {
        if candidates == 0 || self.candidates != candidates {
            return Err(ProposalError::Shares);
        }
        if !(1.0 / 1024.0..=1024.0).contains(&self.spread) {
            return Err(ProposalError::Bandwidth);
        }
        if dim == 0 || !particles.len().is_multiple_of(dim) || particles.iter().any(|p| !p.is_finite()) {
            return Err(ProposalError::Particles);
        }
        Ok(())
    }

    /// Where the rounds end, the first one and those after it.
    fn ends(&self) -> [usize; 1 + ROUNDS] {
        let first = self.candidates.div_ceil(2);
        let mut ends = [first; 1 + ROUNDS];
        for (round, end) in ends.iter_mut().enumerate() {
            *end += (self.candidates - first) * round / ROUNDS;
        }
        ends
    }

    /// The later round, from 0, that row `k` belongs to.
    fn round(&self, k: usize) -> usize {
        self.ends().iter().skip(1).take_while(|end| **end <= k).count()
    }

    /// Writes the next round; `None` after the last.
    pub(super) fn propose<R: Rng + ?Sized>(
        &self,
        run: &Run<'_>,
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
    ) -> Option<Range<usize>> {
        // A small K leaves rounds empty.
        let end = self.ends().into_iter().find(|end| *end > run.asked)?;
        let rows = run.asked..end;
        if run.asked == 0 {
            Base::new(self, run, scratch.vectors).draw(rng, scratch.candidates);
        } else {
            let round = self.round(run.asked);
            self.log_proposals(run, scratch);
            self.flatten(run, None, scratch);
            self.curvature(run, round, scratch);
            self.flatten(run, Some(round), scratch);
            self.draw_around(run, round, rows.clone(), rng, scratch);
        }
        Some(rows)
    }

    /// Writes the weights; `None` when no row has any.
    pub(super) fn weigh(&self, run: &Run<'_>, scratch: &mut EstimatorScratch<'_>) -> Option<Posterior> {
        self.log_proposals(run, scratch);
        self.log_weights(run, None, scratch);
        let normalized = weights::normalize(scratch.weights)?;
        Some(Posterior {
            effective_sample_size: normalized.effective_sample_size,
            log_normalizer: normalized.log_mean(self.candidates),
        })
    }

    /// Log-weights of the rows so far, `-inf` for the others: target times bridge over the proposals' density. For the
    /// choice of centres the part [`PROMISE`] of what a row's Newton step would gain is added.
    fn log_weights(&self, run: &Run<'_>, promise: Option<usize>, scratch: &mut EstimatorScratch<'_>) {
        let dim = run.evidence.dim();
        let total = math::ln(run.asked as f32);
        let EstimatorScratch { candidates, scores, log_targets, weights, rows, vectors, .. } = scratch;
        let precisions = promise.map(|round| &*local(vectors, dim, round).0);
        let densities = rows.get(self.candidates..).unwrap_or_default();
        let each = candidates.chunks_exact(dim.max(1)).zip(scores.chunks_exact(dim.max(1)));
        let each = each.zip(log_targets.iter()).zip(densities);
        for (k, (weight, (((y, s), log_target), log_proposal))) in weights.iter_mut().zip(each).enumerate() {
            *weight = f32::NEG_INFINITY;
            if k < run.asked && *log_target > f32::NEG_INFINITY {
                let log_bridge = run.evidence.log_source(y) + run.evidence.log_bridge_factor();
                let mut logit = log_target + log_bridge + total - log_proposal;
                if let Some(precisions) = precisions {
                    let gain: f32 = s.iter().zip(precisions).map(|(s, h)| newton_gain(*s, *h)).sum();
                    logit += PROMISE * gain;
                }
                if logit.is_finite() {
                    *weight = logit;
                }
            }
        }
    }

    /// `ln` of the sum of the densities that the rows so far were drawn from, at each of them, into the upper half of
    /// `scratch.rows`.
    ///
    /// The sum grows kernel by kernel beside the largest term so far: the terms' logarithms stand in the upper half,
    /// the sums relative to them in `weights`.
    fn log_proposals(&self, run: &Run<'_>, scratch: &mut EstimatorScratch<'_>) {
        let dim = run.evidence.dim();
        let EstimatorScratch { candidates, scores, weights, rows, vectors, .. } = scratch;
        let (picks, densities) = rows.split_at_mut_checked(self.candidates).unwrap_or_default();
        let mut sums = Sums { points: candidates, dim, highest: densities, rest: weights, count: run.asked };
        sums.clear();
        Base::new(self, run, vectors).add_density(&mut sums);
        let flat = Flat::new(self, &run.evidence);
        for k in self.ends()[0]..run.asked {
            let (precisions, centre) = local(vectors, dim, self.round(k));
            move_centre(picks.get(k).copied().unwrap_or(0.0) as usize, candidates, scores, precisions, centre);
            let kernel = |j: usize, c: f32, h: f32| flat.marginal(&run.evidence, j, c, h);
            let local = || centre.iter().zip(precisions.iter()).enumerate().map(|(j, (c, h))| kernel(j, *c, *h));
            let peak: f32 = local().map(|marginal| marginal.log_peak()).sum();
            let mut sums = Sums { points: candidates, dim, highest: densities, rest: weights, count: run.asked };
            sums.add(|y| peak - y.iter().zip(local()).map(|(y, marginal)| marginal.fall(*y)).sum::<f32>());
        }
        for (log, rest) in densities.iter_mut().zip(weights.iter()) {
            *log += math::ln(*rest);
        }
    }

    /// Weights of the rows so far to the largest power, at most one, at which their effective sample size is
    /// [`FLAT`] of their number. All equal when no row has any weight.
    fn flatten(&self, run: &Run<'_>, promise: Option<usize>, scratch: &mut EstimatorScratch<'_>) {
        self.log_weights(run, promise, scratch);
        let rows = scratch.weights.get_mut(..run.asked).unwrap_or_default();
        let highest = rows.iter().fold(f32::NEG_INFINITY, |most, w| if *w > most { *w } else { most });
        if highest == f32::NEG_INFINITY {
            let share = 1.0 / run.asked.max(1) as f32;
            rows.fill(share);
            return;
        }
        rows.iter_mut().for_each(|w| *w -= highest);
        let enough = FLAT * run.asked as f32;
        let effective = |power: f32| {
            let (mut sum, mut square) = (0.0, 0.0);
            for w in rows.iter().filter(|w| **w > f32::NEG_INFINITY) {
                let v = math::exp(power * w);
                sum += v;
                square += v * v;
            }
            sum * sum / square
        };
        let mut power = 1.0;
        if effective(1.0) < enough {
            let (mut low, mut high) = (0.0, 1.0);
            for _ in 0..10 {
                let middle = 0.5 * (low + high);
                if effective(middle) >= enough { low = middle } else { high = middle }
            }
            power = low;
        }
        let mut total = 0.0;
        for w in rows.iter_mut() {
            *w = if *w == f32::NEG_INFINITY { 0.0 } else { math::exp(power * *w) };
            total += *w;
        }
        rows.iter_mut().for_each(|w| *w = math::flush(*w / total));
    }

    /// The kernels' precisions of a later round, from the weighted rows so far.
    fn curvature(&self, run: &Run<'_>, round: usize, scratch: &mut EstimatorScratch<'_>) {
        let dim = run.evidence.dim();
        let floor = Flat::new(self, &run.evidence).least;
        let EstimatorScratch { candidates, scores, log_targets, weights, vectors, .. } = scratch;
        // Rows that were refused have weight zero, or all have the same: their scores may be anything.
        let rows = || weights.iter().zip(log_targets.iter()).enumerate().take(run.asked);
        let rows = || rows().filter(|(_, (w, l))| **w > 0.0 && **l > f32::NEG_INFINITY).map(|(k, (w, _))| (k, *w));
        let (precisions, _) = local(vectors, dim, round);
        for (j, precision) in precisions.iter_mut().enumerate() {
            let at = |values: &[f32], k: usize| values.get(k * dim + j).copied().unwrap_or(0.0);
            let (mut y_mean, mut s_mean, mut square) = (0.0, 0.0, 0.0);
            for (k, w) in rows() {
                let (y, s) = (at(candidates, k), at(scores, k));
                y_mean += w * y;
                s_mean += w * s;
                square += w * s * s;
            }
            let (mut cross, mut spread) = (0.0, 0.0);
            for (k, w) in rows() {
                let (y, s) = (at(candidates, k) - y_mean, at(scores, k) - s_mean);
                cross += w * y * s;
                spread += w * y * y;
            }
            let slope = if spread > math::FLUSH_BIAS { -cross / spread } else { 0.0 };
            // Comparisons that NaN fails.
            let slope = if slope > floor { slope } else { floor };
            let square = if square > floor { square } else { floor };
            let mean = math::sqrt(slope) * math::sqrt(square);
            *precision = if mean.is_finite() { mean } else { floor };
        }
    }

    /// Draws `rows` around centres that are resampled by the weights.
    fn draw_around<R: Rng + ?Sized>(
        &self,
        run: &Run<'_>,
        round: usize,
        rows: Range<usize>,
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
    ) {
        let dim = run.evidence.dim();
        let EstimatorScratch { candidates, scores, weights, rows: memory, vectors, .. } = scratch;
        let picks = memory.get_mut(rows.clone()).unwrap_or_default();
        let asked = weights.get(..run.asked).unwrap_or_default();
        weights::resample(asked, rows.len(), unit_uniform(rng), |i, row| {
            if let Some(pick) = picks.get_mut(i) {
                *pick = row as f32;
            }
        });
        let (old, new) = candidates.split_at_mut_checked(rows.start * dim).unwrap_or_default();
        let new = new.get_mut(..rows.len() * dim).unwrap_or_default();
        let flat = Flat::new(self, &run.evidence);
        Draws::Latin.fill(flat.noise(), dim, rng, new);
        let (precisions, centre) = local(vectors, dim, round);
        let picks = memory.get(rows).unwrap_or_default();
        for (row, pick) in new.chunks_exact_mut(dim.max(1)).zip(picks) {
            move_centre(*pick as usize, old, scores, precisions, centre);
            for (j, ((y, c), h)) in row.iter_mut().zip(centre.iter()).zip(precisions.iter()).enumerate() {
                *y = math::flush(flat.marginal(&run.evidence, j, *c, *h).at(*y, flat.noise()));
            }
        }
    }
}

/// The precisions of a later round, and room for a centre.
fn local(vectors: &mut [f32], dim: usize, round: usize) -> (&mut [f32], &mut [f32]) {
    let (front, centre) = vectors.split_at_mut_checked((ROUNDS + 1) * dim).unwrap_or_default();
    let precisions = front.get_mut(round * dim..(round + 1) * dim).unwrap_or_default();
    (precisions, centre)
}

/// The centre of a kernel: row `pick`, moved along its score by a Newton step of at most [`STEP`] deviations.
fn move_centre(pick: usize, candidates: &[f32], scores: &[f32], precisions: &[f32], centre: &mut [f32]) {
    let range = pick * precisions.len()..(pick + 1) * precisions.len();
    let rows = candidates.get(range.clone()).unwrap_or_default().iter().zip(scores.get(range).unwrap_or_default());
    for ((c, (y, s)), h) in centre.iter_mut().zip(rows).zip(precisions) {
        *c = y + newton_step(*s, *h);
    }
}

/// A Newton step of at most [`STEP`] standard deviations.
fn newton_step(score: f32, precision: f32) -> f32 {
    math::clip(score / precision, STEP / math::sqrt(precision))
}

/// What the quadratic model promises of that step in log-density.
fn newton_gain(score: f32, precision: f32) -> f32 {
    let step = newton_step(score, precision);
    step * (score - 0.5 * precision * step)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::flow::Source;
    use crate::rfm::{EstimateError, Estimator, Mixture, RfmConfig, Target};
    use nalgebra::SVector;
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::vec::Vec;

    /// Two Gaussians of weight 1 and 2 and variance 0.09 in any dimension, of which the first `blind` calls see nothing.
    struct Pair {
        blind: usize,
    }

    const CENTRES: [f32; 2] = [-0.8, 0.7];
    const VARIANCE: f32 = 0.09;

    impl Target for Pair {
        fn log_density(&mut self, y: &[f32]) -> f32 {
            let mut score = std::vec![0.0; y.len()];
            self.log_density_and_score(y, &mut score)
        }

        fn log_density_and_score(&mut self, y: &[f32], score: &mut [f32]) -> f32 {
            if self.blind > 0 {
                self.blind -= 1;
                return f32::NAN;
            }
            let logs = [0, 1].map(|i| {
                let square: f32 = y.iter().map(|y| (y - CENTRES[i]) * (y - CENTRES[i])).sum();
                (1.0 + i as f32).ln() - 0.5 * square / VARIANCE
            });
            let highest = logs[0].max(logs[1]);
            let sum: f32 = logs.iter().map(|l| (l - highest).exp()).sum();
            score.fill(0.0);
            for (log, centre) in logs.iter().zip(CENTRES) {
                let share = (log - highest).exp() / sum;
                score.iter_mut().zip(y).for_each(|(s, y)| *s += share * (centre - y) / VARIANCE);
            }
            highest + sum.ln()
        }
    }

    /// Exact posterior mean of every component, and `ln` of the integral of target times bridge, on the linear path at
    /// the point `(x, x, ..)`.
    fn exact(dim: i32, t: f64, x: f64) -> (f64, f64) {
        let (variance, bridge) = (f64::from(VARIANCE), ((1.0 - t) / t).powi(2));
        let (mut mass, mut mean) = (0.0, 0.0);
        for (i, centre) in CENTRES.map(f64::from).into_iter().enumerate() {
            let miss = x / t - centre;
            // The target's own density is not normalised: its integral is (2 pi variance)^(dim / 2).
            let evidence = (1.0 + i as f64)
                * ((variance / (variance + bridge)).sqrt() * (-0.5 * miss * miss / (variance + bridge)).exp())
                    .powi(dim);
            mass += evidence;
            mean += evidence * (centre + variance / (variance + bridge) * miss);
        }
        (mean / mass, mass.ln())
    }

    /// Mean squared error over 600 estimates in `D` dimensions, and the mean of `e^(log_normalizer - exact)`.
    fn errors<const D: usize, const K: usize>(config: RfmConfig, t: f32, particles: &[[f32; D]]) -> (f64, f64) {
        const RUNS: u64 = 600;
        let mut estimator = Estimator::<D, K>::new(config);
        let x = 0.2;
        let (mean, log_mass) = exact(D as i32, f64::from(t), f64::from(x));
        let (mut square, mut ratio) = (0.0, 0.0);
        for seed in 0..RUNS {
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
            let (got, posterior) =
                estimator.estimate(t, &SVector::repeat(x), &mut Pair { blind: 0 }, particles, &mut rng).unwrap();
            square += got.iter().map(|g| (f64::from(*g) - mean).powi(2)).sum::<f64>() / (D as u64 * RUNS) as f64;
            ratio += (f64::from(posterior.log_normalizer) - log_mass).exp() / RUNS as f64;
        }
        (square, ratio)
    }

    /// Particles around both modes, none of them exactly there.
    fn particles<const D: usize>() -> Vec<[f32; D]> {
        (0..9)
            .map(|i| {
                core::array::from_fn(|j| CENTRES[usize::from(i >= 3)] + 0.06 * ((i * 5 + j * 3) % 9) as f32 - 0.24)
            })
            .collect()
    }

    #[test]
    fn the_density_of_all_proposals_is_the_one_they_were_drawn_from() {
        // The mean unnormalised weight estimates an integral that is known. A kernel whose density is off by a factor
        // of two would move it by a tenth or more; learning from the first rounds moves it by less than the tolerance.
        for t in [0.1, 0.4, 0.8] {
            for near in [&[][..], &particles::<2>()] {
                let (_, ratio) = errors::<2, 96>(RfmConfig::auto(96), t, near);
                assert!((ratio - 1.0).abs() < 0.04, "{t} {} particles: {ratio}", near.len());
            }
        }
    }

    #[test]
    fn it_beats_the_fixed_mixture_and_particles_help() {
        for t in [0.1, 0.5, 0.9] {
            let halves = Mixture { bridge: 16, uniform: 16, kernel: 0, ..Mixture::default() };
            let fixed = errors::<4, 32>(RfmConfig::importance(halves), t, &[]).0;
            let alone = errors::<4, 32>(RfmConfig::auto(32), t, &[]).0;
            let aided = errors::<4, 32>(RfmConfig::auto(32), t, &particles::<4>()).0;
            assert!(alone < 0.5 * fixed, "{t}: {alone} {fixed}");
            // The later, the more the point says by itself: then particles only take half of the first candidates.
            assert!(aided < if t < 0.3 { 0.7 } else { 3.0 } * alone, "{t}: {aided} {alone}");
        }
    }

    #[test]
    fn every_number_of_candidates_works_and_one_particle_too() {
        fn each<const K: usize>() {
            for near in [&[][..], &[[0.5, 0.6]]] {
                let mut estimator = Estimator::<2, K>::new(RfmConfig::auto(K));
                let mut rng = Xoshiro128PlusPlus::seed_from_u64(3);
                let point = [0.1, 0.2].into();
                let (mean, posterior) =
                    estimator.estimate(0.5, &point, &mut Pair { blind: 0 }, near, &mut rng).unwrap();
                assert!(mean.iter().all(|m| m.abs() < 2.0), "{K} {mean}");
                assert!(posterior.effective_sample_size >= 0.999 && posterior.effective_sample_size < K as f32 + 0.01);
                assert!((estimator.weights().sum() - 1.0).abs() < 1e-5);
            }
        }
        each::<1>();
        each::<2>();
        each::<3>();
        each::<4>();
        each::<5>();
        each::<7>();
        each::<13>();
        each::<512>();
    }

    #[test]
    fn a_blind_first_round_is_survived_and_blindness_is_named() {
        let mut estimator = Estimator::<2, 24>::new(RfmConfig::auto(24));
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(4);
        let point = [0.1, 0.2].into();
        let mut run = |blind| estimator.estimate(0.5, &point, &mut Pair { blind }, &[], &mut rng);
        assert!(run(12).is_ok_and(|(mean, _)| mean.iter().all(|m| m.abs() < 2.0)));
        assert!(run(23).is_ok());
        assert_eq!(run(24), Err(EstimateError::NonFinite));
    }

    /// A standard normal target.
    struct Bell;

    impl Target for Bell {
        fn log_density(&mut self, y: &[f32]) -> f32 {
            y.iter().map(|y| -0.5 * y * y).sum()
        }

        fn log_density_and_score(&mut self, y: &[f32], score: &mut [f32]) -> f32 {
            score.iter_mut().zip(y).for_each(|(s, y)| *s = -y);
            self.log_density(y)
        }
    }

    /// Mean and `ln` of the integral of one component under a bell and this source, by the midpoint rule.
    fn bell_by_quadrature(source: Source, t: f64, x: f64) -> (f64, f64) {
        let (ratio, half) = ((1.0 - t) / t, f64::from(source.support()).min(12.0));
        let (mut mass, mut mean) = (0.0, 0.0);
        let step = half * 2e-4;
        for i in 0..10_000 {
            let z = -half + (f64::from(i) + 0.5) * step;
            let y = x / t - ratio * z;
            let w = (f64::from(source.log_density(z as f32)) - 0.5 * y * y).exp();
            mass += w;
            mean += w * y;
        }
        (mean / mass, (mass * step).ln())
    }

    fn bounded<const D: usize>(source: Source, t: f32) {
        const RUNS: u64 = 100;
        let mut estimator = Estimator::<D, 32>::new(RfmConfig { source, ..RfmConfig::auto(32) });
        let x = 0.3 * t;
        let (exact, log_mass) = bell_by_quadrature(source, f64::from(t), f64::from(x));
        let (mut mean, mut mass) = (0.0, 0.0);
        for seed in 0..RUNS {
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
            let near = [[0.1; D]];
            let particles = if seed % 2 == 0 { &near[..] } else { &[] };
            let (got, posterior) = estimator.estimate(t, &SVector::repeat(x), &mut Bell, particles, &mut rng).unwrap();
            assert!(posterior.effective_sample_size > 4.0, "{source:?} {t} {D}: {posterior:?}");
            mean += got.iter().map(|g| f64::from(*g)).sum::<f64>() / (D as u64 * RUNS) as f64;
            mass += (f64::from(posterior.log_normalizer) - D as f64 * log_mass).exp() / RUNS as f64;
        }
        // The mean of some hundred numbers with an error of a tenth of the prior's deviation at most.
        assert!((mean - exact).abs() < 0.03, "{source:?} {t} {D}: {mean} {exact}");
        // A wrong density of one component would show as its factor to the power D; learning lowers it a little.
        assert!(mass > 0.85 - 0.02 * D as f64 && mass < 1.1, "{source:?} {t} {D}: normaliser {mass}");
    }

    #[test]
    fn narrow_supports_are_filled_and_heavy_tails_leave_far_points_alone() {
        for t in [0.3, 0.8, 0.98] {
            for bound in [1.0 / 64.0, 0.1, 0.5, 2.0] {
                let source = Source::TruncatedGaussian { bound };
                bounded::<1>(source, t);
                bounded::<2>(source, t);
                bounded::<6>(source, t);
            }
            bounded::<1>(Source::Uniform, t);
            bounded::<6>(Source::Uniform, t);
        }
        // A point that no action explains: the noise was an outlier, and the action is drawn from the target alone.
        let source = Source::StudentT { dof: 0.5 };
        let mut estimator = Estimator::<1, 128>::new(RfmConfig { source, ..RfmConfig::auto(128) });
        for x in [1e3, 1e6] {
            let mut mass = 0.0;
            for seed in 0..200 {
                let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
                let (mean, posterior) = estimator.estimate(0.5, &[x].into(), &mut Bell, &[], &mut rng).unwrap();
                assert!(mean[0].abs() < 0.3, "{x}: {mean}");
                // Far out the bridge is as good as constant over the target.
                let exact = f64::from(source.log_density(2.0 * x)) + 0.5 * core::f64::consts::TAU.ln();
                mass += (f64::from(posterior.log_normalizer) - exact).exp() / 200.0;
            }
            assert!((mass - 1.0).abs() < 0.05, "{x}: normaliser {mass}");
        }
    }

    #[test]
    fn shares_of_far_particles_add_up_to_one() {
        // With shares that did not, the normaliser would be off by their sum; 1e4 apart, logarithms are near 1e8.
        let particles: Vec<[f32; 2]> = (0..8).map(|i| [1e4 + i as f32, -1e4]).collect();
        for t in [0.3, 0.9] {
            let (_, ratio) = errors::<2, 96>(RfmConfig::auto(96), t, &particles);
            assert!((ratio - 1.0).abs() < 0.15, "{t}: {ratio}");
        }
    }

    #[test]
    fn bad_constants_are_named() {
        let good = Auto::new(8);
        for (auto, particles, error) in [
            (Auto::new(0), &[][..], ProposalError::Shares),
            (Auto::new(9), &[], ProposalError::Shares),
            (Auto { spread: 0.0, ..good }, &[], ProposalError::Bandwidth),
            (Auto { spread: f32::NAN, ..good }, &[], ProposalError::Bandwidth),
            (Auto { spread: f32::INFINITY, ..good }, &[], ProposalError::Bandwidth),
            (Auto { spread: 2048.0, ..good }, &[], ProposalError::Bandwidth),
            (good, &[1.0], ProposalError::Particles),
            (good, &[1.0, f32::NAN], ProposalError::Particles),
        ] {
            assert_eq!(auto.check(particles, 8, 2), Err(error), "{auto:?}");
        }
        assert_eq!(good.check(&[], 8, 2), Ok(()));
        assert_eq!(Auto::new(0).check(&[], 0, 2), Err(ProposalError::Shares));
    }
}
