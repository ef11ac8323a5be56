//! The first round of the default method: what can be proposed before the critic was asked, and sums of densities.
//!
//! [`Base`] draws the round and gives its density; [`Flat`] is the Gaussian it falls back on; [`Sums`] collects
//! `ln sum_i e^(l_i)` of every row one term at a time. No panics, no allocation.

use super::{Auto, BOUND, EVEN, HALF_LN_2PI, ROUNDS, WIDE, unit};
use crate::flow::{Draws, Source};
use crate::math;
use crate::rfm::{Evidence, Run, Support};
use rand_core::Rng;

/// The flat posterior: precision of every component, weight of the bridge's centre in its mean, and the least precision
/// that a later kernel may have.
pub(super) struct Flat {
    pub precision: f32,
    pub share: f32,
    /// Least precision of a later kernel.
    pub least: f32,
}

impl Flat {
    pub fn new(auto: &Auto, evidence: &Evidence<'_>) -> Self {
        let ratio = evidence.ratio();
        // Noise of variance v is a bridge of variance v ratio^2. Student-t has none at few degrees of freedom.
        let variance = match evidence.source() {
            Source::Gaussian | Source::TruncatedGaussian { .. } => 1.0,
            Source::Laplace => 2.0,
            Source::Logistic | Source::StudentT { .. } => 3.0,
            Source::Uniform => 1.0 / 3.0,
        };
        let bridge = math::flush(1.0 / (variance * ratio * ratio)).min(1e12);
        let limit = match evidence.support() {
            Support::Unbounded => f32::INFINITY,
            Support::Box { limit } => 0.6 * limit,
        };
        let spread = if limit < auto.spread { limit } else { auto.spread };
        let prior = 1.0 / (spread * spread);
        Self { precision: bridge + prior, share: bridge / (bridge + prior), least: bridge + 0.5 * prior }
    }

    /// Component `j` of the mean; the prior's is zero.
    fn mean(&self, evidence: &Evidence<'_>, j: usize) -> f32 {
        self.share * evidence.x().get(j).copied().unwrap_or(0.0) / evidence.alpha()
    }
}

/// The proposal of the first round.
pub(super) struct Base<'a> {
    evidence: &'a Evidence<'a>,
    particles: &'a [f32],
    /// Candidates from the flat posterior, from uniform actions and from kernels on the particles.
    flat: usize,
    uniform: usize,
    kernel: usize,
    shape: Flat,
    /// Squared bandwidth of the kernels, a number a component.
    bandwidths: &'a mut [f32],
    /// `ln` of the summed evidence of all particles.
    log_total: f32,
}

impl<'a> Base<'a> {
    pub fn new(auto: &Auto, run: &'a Run<'_>, vectors: &'a mut [f32]) -> Self {
        let (evidence, particles) = (&run.evidence, run.particles);
        let count = auto.ends()[0];
        let kernel = if particles.is_empty() { 0 } else { count / 2 };
        let uniform = count / 5;
        let dim = evidence.dim();
        let bandwidths = vectors.get_mut(ROUNDS * dim..(ROUNDS + 1) * dim).unwrap_or_default();
        let shape = Flat::new(auto, evidence);
        let mut base = Self {
            evidence,
            particles,
            flat: count - kernel - uniform,
            uniform,
            kernel,
            shape,
            bandwidths,
            log_total: f32::NEG_INFINITY,
        };
        if kernel > 0 {
            base.choose_bandwidths(auto.spread);
        }
        base
    }

    /// Silverman's rule, times 0.6 because there may be several modes. The spread of one particle more keeps the
    /// deviation of few of them from being zero.
    fn choose_bandwidths(&mut self, spread: f32) {
        let dim = self.evidence.dim();
        let count = (self.particles.len() / dim.max(1)) as f32;
        let power = -2.0 / (dim as f32 + 4.0);
        let factor = 0.36 * math::exp(power * math::ln(0.25 * (dim as f32 + 2.0) * count));
        for (j, bandwidth) in self.bandwidths.iter_mut().enumerate() {
            let column = || self.particles.iter().skip(j).step_by(dim.max(1));
            let mean = column().sum::<f32>() / count;
            let square: f32 = column().map(|p| (p - mean) * (p - mean)).sum();
            let variance = factor * (square + spread * spread) / (count + 1.0);
            *bandwidth = if variance.is_finite() { variance.max(1e-12) } else { spread * spread };
        }
        let mut total = f32::NEG_INFINITY;
        for particle in self.particles.chunks_exact(dim.max(1)) {
            total = math::ln_add_exp(total, self.log_evidence(particle));
        }
        self.log_total = total;
    }

    /// Variance of the bridge, as the flat posterior sees it.
    fn bridge_variance(&self) -> f32 {
        1.0 / (self.shape.share * self.shape.precision).max(1e-30)
    }

    /// `ln` of the probability of the point, up to a constant, if the action came from this particle's kernel.
    fn log_evidence(&self, particle: &[f32]) -> f32 {
        let bridge = self.bridge_variance();
        let rows = particle.iter().zip(self.evidence.x()).zip(self.bandwidths.iter());
        rows.map(|((p, x), h)| {
            let miss = x / self.evidence.alpha() - p;
            -0.5 * miss * miss / (h + bridge)
        })
        .sum()
    }

    /// Share of a particle among the kernels.
    fn share(&self, particle: &[f32]) -> f32 {
        let count = (self.particles.len() / self.evidence.dim().max(1)).max(1) as f32;
        let weight = math::exp(self.log_evidence(particle) - self.log_total);
        let weight = if weight.is_finite() { weight } else { 0.0 };
        EVEN / count + (1.0 - EVEN) * weight
    }

    /// Mean and precision of component `j` of a particle's kernel under the bridge.
    fn kernel(&self, particle: &[f32], j: usize) -> (f32, f32) {
        let at = |values: &[f32]| values.get(j).copied().unwrap_or(0.0);
        let (own, bridge) = (1.0 / at(self.bandwidths), 1.0 / self.bridge_variance());
        let x = at(self.evidence.x()) / self.evidence.alpha();
        ((own * at(particle) + bridge * x) / (own + bridge), own + bridge)
    }

    /// Draws the first rows of `candidates`: flat, uniform, kernels.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R, candidates: &mut [f32]) {
        let dim = self.evidence.dim();
        let (flat, rest) = candidates.split_at_mut_checked(self.flat * dim).unwrap_or_default();
        let (uniform, rest) = rest.split_at_mut_checked(self.uniform * dim).unwrap_or_default();
        let kernel = rest.get_mut(..self.kernel * dim).unwrap_or_default();
        Draws::Latin.fill(Source::Gaussian, dim, rng, flat);
        let deviation = 1.0 / math::sqrt(self.shape.precision);
        for row in flat.chunks_exact_mut(dim.max(1)) {
            for (j, y) in row.iter_mut().enumerate() {
                *y = self.shape.mean(self.evidence, j) + deviation * *y;
            }
        }
        Draws::Latin.fill(Source::Uniform, dim, rng, uniform);
        for y in uniform {
            *y = match self.evidence.support() {
                Support::Unbounded => WIDE * math::atanh(BOUND * *y),
                Support::Box { limit } => limit * *y,
            };
        }
        Draws::Latin.fill(Source::Gaussian, dim, rng, kernel);
        let step = 1.0 / self.kernel.max(1) as f32;
        let mut edge = step * unit(rng);
        let mut below = 0.0;
        let mut rows = kernel.chunks_exact_mut(dim.max(1));
        let last = self.particles.len() / dim.max(1);
        for (i, particle) in self.particles.chunks_exact(dim.max(1)).enumerate() {
            below += self.share(particle);
            // Rounding may leave the sum short of one.
            while edge < below || i + 1 == last {
                let Some(row) = rows.next() else { break };
                for (j, y) in row.iter_mut().enumerate() {
                    let (mean, precision) = self.kernel(particle, j);
                    *y = mean + *y / math::sqrt(precision);
                }
                edge += step;
            }
        }
    }

    /// Adds the densities of all candidates of the round.
    pub fn add_density(self, sums: &mut Sums<'_>) {
        let (dim, evidence) = (self.evidence.dim() as f32, self.evidence);
        if self.flat > 0 {
            let precision = self.shape.precision;
            let scale = math::ln(self.flat as f32) + dim * (0.5 * math::ln(precision) - HALF_LN_2PI);
            sums.add(|y| {
                let miss = |j, y| y - self.shape.mean(evidence, j);
                let square: f32 = y.iter().enumerate().map(|(j, y)| miss(j, *y) * miss(j, *y)).sum();
                scale - 0.5 * precision * square
            });
        }
        if self.uniform > 0 {
            let count = math::ln(self.uniform as f32);
            sums.add(|y| match evidence.support() {
                Support::Unbounded => {
                    count + y.iter().map(|y| math::ln_sech2(*y / WIDE) - math::ln(2.0 * WIDE)).sum::<f32>()
                }
                Support::Box { limit } => count - dim * math::ln(2.0 * limit),
            });
        }
        if self.kernel > 0 {
            let count = math::ln(self.kernel as f32);
            for particle in self.particles.chunks_exact(evidence.dim().max(1)) {
                let mut scale = count + math::ln(self.share(particle));
                for j in 0..evidence.dim() {
                    scale += 0.5 * math::ln(self.kernel(particle, j).1) - HALF_LN_2PI;
                }
                sums.add(|y| {
                    let terms = y.iter().enumerate().map(|(j, y)| {
                        let (mean, precision) = self.kernel(particle, j);
                        precision * (y - mean) * (y - mean)
                    });
                    scale - 0.5 * terms.sum::<f32>()
                });
            }
        }
    }
}

/// `ln sum_i e^(l_i)` of every row, one term at a time.
pub(super) struct Sums<'a> {
    /// Rows of `dim` floats, of which the first `count` take part.
    pub points: &'a [f32],
    pub dim: usize,
    /// Largest term so far, and the sum relative to it, a number a row each.
    pub highest: &'a mut [f32],
    pub rest: &'a mut [f32],
    pub count: usize,
}

impl Sums<'_> {
    pub fn clear(&mut self) {
        self.highest.fill(f32::NEG_INFINITY);
        self.rest.fill(0.0);
    }

    /// Adds `e^term(y)` to every row; a term below a 2^-24th of the largest one changes nothing.
    pub fn add(&mut self, term: impl Fn(&[f32]) -> f32) {
        const NEGLIGIBLE: f32 = -17.0;
        let rows = self.points.chunks_exact(self.dim.max(1)).take(self.count);
        for ((y, highest), rest) in rows.zip(self.highest.iter_mut()).zip(self.rest.iter_mut()) {
            let log = term(y);
            if log > *highest {
                let shift = *highest - log;
                *rest = if shift > NEGLIGIBLE { *rest * math::exp(shift) + 1.0 } else { 1.0 };
                *highest = log;
            } else if log - *highest > NEGLIGIBLE {
                *rest += math::exp(log - *highest);
            }
        }
    }
}
