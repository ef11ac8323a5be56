//! The first round of the default method: what can be proposed before the critic was asked, and sums of densities.
//!
//! [`Base`] draws the round and gives its density; [`Flat`] is the Gaussian it falls back on; [`Sums`] collects
//! `ln sum_i e^(l_i)` of every row one term at a time. No panics, no allocation.

use super::super::langevin::unit_uniform;
use super::{Auto, BOUND, EVEN, HALF_LN_2PI, ROUNDS, WIDE};
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
    prior: f32,
    /// Half width up to which a bounded support is drawn from uniformly; negative where the support is unbounded.
    window: f32,
}

const ROOT_3: f32 = 1.732_050_8;

impl Flat {
    pub fn new(auto: &Auto, evidence: &Evidence<'_>) -> Self {
        let ratio = evidence.ratio();
        // Noise of variance v is a bridge of variance v ratio^2. Student-t has none at few degrees of freedom.
        let variance = match evidence.source() {
            Source::Gaussian => 1.0,
            Source::TruncatedGaussian { bound } => (bound * bound / 3.0).min(1.0),
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
        let window = if evidence.is_bounded() { ROOT_3 * spread } else { -1.0 };
        Self { precision: bridge + prior, share: bridge / (bridge + prior), least: bridge + 0.5 * prior, prior, window }
    }

    /// Component `j` of the mean; the prior's is zero. A source with heavy tails leaves a far point to the prior.
    fn mean(&self, evidence: &Evidence<'_>, j: usize) -> f32 {
        let mean = self.share * evidence.x().get(j).copied().unwrap_or(0.0) / evidence.alpha();
        let log_density = |y: f32| evidence.source().log_density(evidence.noise(j, y)) - 0.5 * self.prior * y * y;
        let heavy = matches!(evidence.source(), Source::Laplace | Source::Logistic | Source::StudentT { .. });
        if heavy && log_density(0.0) > log_density(mean) { 0.0 } else { mean }
    }

    /// The marginal of a kernel with this mean and precision in component `j`: a Gaussian, or, where the posterior's
    /// support is no wider than the prior, the uniform distribution of that variance, kept inside the support.
    pub fn marginal(&self, evidence: &Evidence<'_>, j: usize, mean: f32, precision: f32) -> Marginal {
        if self.window > 0.0 {
            let (low, high) = evidence.interval(j);
            if high - low <= 2.0 * self.window {
                let reach = ROOT_3 / math::sqrt(precision);
                let centre = if mean > low { mean } else { low };
                let centre = if centre < high { centre } else { high };
                let (low, high) = ((centre - reach).max(low), (centre + reach).min(high));
                return Marginal { mean: 0.5 * (low + high), precision, half: 0.5 * (high - low) };
            }
        }
        Marginal { mean, precision, half: f32::INFINITY }
    }

    /// The noise that [`Marginal::at`] takes.
    pub fn noise(&self) -> Source {
        if self.window > 0.0 { Source::Uniform } else { Source::Gaussian }
    }
}

/// One component of a kernel: Gaussian, or uniform of half width `half` where that is finite.
#[derive(Clone, Copy)]
pub(super) struct Marginal {
    mean: f32,
    precision: f32,
    half: f32,
}

impl Marginal {
    /// The value that belongs to a draw of [`Flat::noise`].
    pub fn at(self, noise: f32, source: Source) -> f32 {
        if self.half.is_finite() {
            return self.mean + self.half * noise;
        }
        let normal =
            if source == Source::Uniform { Source::Gaussian.from_uniform(&[0.5 + 0.5 * noise]) } else { noise };
        self.mean + normal / math::sqrt(self.precision)
    }

    /// `ln` of the density at the mean.
    pub fn log_peak(self) -> f32 {
        if self.half.is_finite() { -math::ln(2.0 * self.half) } else { 0.5 * math::ln(self.precision) - HALF_LN_2PI }
    }

    /// What the log-density falls below that by at `y`.
    pub fn fall(self, y: f32) -> f32 {
        let miss = y - self.mean;
        if !self.half.is_finite() {
            0.5 * self.precision * miss * miss
        } else if miss.abs() <= self.half {
            0.0
        } else {
            f32::INFINITY
        }
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
    /// Largest `ln` of the evidence of a particle, and the sum of all relative to it.
    highest: f32,
    total: f32,
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
            highest: f32::NEG_INFINITY,
            total: 0.0,
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
        let logs = || self.particles.chunks_exact(dim.max(1)).map(|particle| self.log_evidence(particle));
        let highest = logs().fold(f32::NEG_INFINITY, |most, log| if log > most { log } else { most });
        let total = logs().map(|log| math::exp(log - highest)).sum();
        (self.highest, self.total) = (highest, total);
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

    /// Share of a particle among the kernels; they add up to one. Equal where no particle has any evidence.
    fn share(&self, particle: &[f32]) -> f32 {
        let count = (self.particles.len() / self.evidence.dim().max(1)).max(1) as f32;
        if !(self.highest.is_finite() && self.total.is_finite()) {
            return 1.0 / count;
        }
        EVEN / count + (1.0 - EVEN) * math::exp(self.log_evidence(particle) - self.highest) / self.total
    }

    /// Component `j` of a particle's kernel under the bridge.
    fn kernel(&self, particle: &[f32], j: usize) -> Marginal {
        let at = |values: &[f32]| values.get(j).copied().unwrap_or(0.0);
        let (own, bridge) = (1.0 / at(self.bandwidths), 1.0 / self.bridge_variance());
        let x = at(self.evidence.x()) / self.evidence.alpha();
        let mean = (own * at(particle) + bridge * x) / (own + bridge);
        self.shape.marginal(self.evidence, j, mean, own + bridge)
    }

    /// Component `j` of the flat posterior.
    fn flat(&self, j: usize) -> Marginal {
        self.shape.marginal(self.evidence, j, self.shape.mean(self.evidence, j), self.shape.precision)
    }

    /// Component `j` of the uniform share where the support is narrow: all of it. `None` elsewhere.
    fn window(&self, j: usize) -> Option<Marginal> {
        let all = self.shape.marginal(self.evidence, j, 0.0, f32::MIN_POSITIVE);
        all.half.is_finite().then_some(all)
    }

    /// Draws the first rows of `candidates`: flat, uniform, kernels.
    pub fn draw<R: Rng + ?Sized>(&self, rng: &mut R, candidates: &mut [f32]) {
        let dim = self.evidence.dim();
        let (flat, rest) = candidates.split_at_mut_checked(self.flat * dim).unwrap_or_default();
        let (uniform, rest) = rest.split_at_mut_checked(self.uniform * dim).unwrap_or_default();
        let kernel = rest.get_mut(..self.kernel * dim).unwrap_or_default();
        let noise = self.shape.noise();
        Draws::Latin.fill(noise, dim, rng, flat);
        for row in flat.chunks_exact_mut(dim.max(1)) {
            row.iter_mut().enumerate().for_each(|(j, y)| *y = self.flat(j).at(*y, noise));
        }
        Draws::Latin.fill(Source::Uniform, dim, rng, uniform);
        for row in uniform.chunks_exact_mut(dim.max(1)) {
            for (j, y) in row.iter_mut().enumerate() {
                *y = match (self.window(j), self.evidence.support()) {
                    (Some(window), _) => window.at(*y, Source::Uniform),
                    (None, Support::Unbounded) => WIDE * math::atanh(BOUND * *y),
                    (None, Support::Box { limit }) => limit * *y,
                };
            }
        }
        Draws::Latin.fill(noise, dim, rng, kernel);
        let step = 1.0 / self.kernel.max(1) as f32;
        let mut edge = step * unit_uniform(rng);
        let mut below = 0.0;
        let mut rows = kernel.chunks_exact_mut(dim.max(1));
        let last = self.particles.len() / dim.max(1);
        for (i, particle) in self.particles.chunks_exact(dim.max(1)).enumerate() {
            below += self.share(particle);
            // Rounding may leave the sum short of one.
            while edge < below || i + 1 == last {
                let Some(row) = rows.next() else { break };
                row.iter_mut().enumerate().for_each(|(j, y)| *y = self.kernel(particle, j).at(*y, noise));
                edge += step;
            }
        }
    }

    /// Adds the densities of all candidates of the round.
    pub fn add_density(self, sums: &mut Sums<'_>) {
        let dim = self.evidence.dim();
        if self.flat > 0 {
            let peak = (0..dim).map(|j| self.flat(j).log_peak()).sum::<f32>() + math::ln(self.flat as f32);
            sums.add(|y| peak - y.iter().enumerate().map(|(j, y)| self.flat(j).fall(*y)).sum::<f32>());
        }
        if self.uniform > 0 {
            let count = math::ln(self.uniform as f32);
            sums.add(|y| {
                let component = |(j, y): (usize, &f32)| match (self.window(j), self.evidence.support()) {
                    (Some(window), _) => window.log_peak() - window.fall(*y),
                    (None, Support::Unbounded) => math::ln_sech2(*y / WIDE) - math::ln(2.0 * WIDE),
                    (None, Support::Box { limit }) => -math::ln(2.0 * limit),
                };
                count + y.iter().enumerate().map(component).sum::<f32>()
            });
        }
        if self.kernel > 0 {
            let count = math::ln(self.kernel as f32);
            for particle in self.particles.chunks_exact(dim.max(1)) {
                let peaks: f32 = (0..dim).map(|j| self.kernel(particle, j).log_peak()).sum();
                let peak = count + math::ln(self.share(particle)) + peaks;
                sums.add(|y| peak - y.iter().enumerate().map(|(j, y)| self.kernel(particle, j).fall(*y)).sum::<f32>());
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
