//! Proposals for the action latent, and their balance-heuristic mixture.
//!
//! Candidates are stratified: the first `bridge` come from the source bridge `y = (x - beta e) / alpha`, the next
//! `uniform` from a uniform action, the last `kernel` from Gaussian kernels on given particles. All are weighed by the
//! density of the whole mixture (Veach and Guibas, 1995), so a candidate that one component missed is not over-weighted
//! by another. No panics, no allocation.
//!
//! A uniform action is `y = atanh(b U)` for a target on all of space, whose latents pass through `tanh`; for a target
//! on a box it is uniform on the posterior's support, the box cut by what a bounded source can reach.
//!
//! Cost of a candidate: its noise, and in a mixture a density of every component in it, of every particle included.

use super::{Evidence, Support};
use crate::flow::{Draws, Source};
use crate::math;
use rand_core::Rng;

/// Shares of the components, as numbers of candidates, and their constants.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Mixture {
    /// Candidates from the source bridge.
    pub bridge: usize,
    /// Candidates from a uniform action.
    pub uniform: usize,
    /// Candidates from kernels on the particles: as many for each, in the particles' order, the first ones taking what
    /// does not divide. Rows of one particle stand together, so that mirrored and quasi-random draws cover each kernel.
    /// Of more particles than candidates only the first are used.
    pub kernel: usize,
    /// Standard deviation of a kernel, in latent units.
    pub bandwidth: f32,
    /// Largest magnitude of a uniform action component on tanh latents, in `(0, 1)`. The density leaves this bound out,
    /// which understates it by the factor `bound` a component: 1e-4 at the default. Not used on a box.
    pub bound: f32,
    /// How the noise of each component's candidates is drawn.
    pub draws: Draws,
}

impl Default for Mixture {
    /// Three bridge, three uniform and two kernel candidates with bandwidth 0.3.
    fn default() -> Self {
        Self { bridge: 3, uniform: 3, kernel: 2, bandwidth: 0.3, bound: 0.9999, draws: Draws::Plain }
    }
}

/// Why a proposal cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ProposalError {
    /// The shares do not add up to the number of candidates, or are all zero.
    Shares,
    /// The bandwidth is below 2^-50 or not finite.
    Bandwidth,
    /// The bound of a uniform action is not inside `(0, 1)`.
    Bound,
    /// Kernel candidates are asked for and no particle is given, or one that is not finite.
    Particles,
}

impl Mixture {
    /// Only the source bridge, which is the published proposal.
    pub const fn bridge(candidates: usize) -> Self {
        Self { bridge: candidates, uniform: 0, kernel: 0, bandwidth: 0.3, bound: 0.9999, draws: Draws::Plain }
    }

    /// Number of candidates.
    pub const fn candidates(&self) -> usize {
        self.bridge.saturating_add(self.uniform).saturating_add(self.kernel)
    }

    /// Checks the constants against `candidates` and the particles (rows of `dim` floats).
    pub fn check(&self, candidates: usize, particles: &[f32], dim: usize) -> Result<(), ProposalError> {
        let sum = self.bridge.checked_add(self.uniform).and_then(|sum| sum.checked_add(self.kernel));
        if candidates == 0 || sum != Some(candidates) {
            return Err(ProposalError::Shares);
        }
        if self.kernel > 0 && !(self.bandwidth >= math::FLUSH && self.bandwidth.is_finite()) {
            return Err(ProposalError::Bandwidth);
        }
        if self.uniform > 0 && !(self.bound > 0.0 && self.bound < 1.0) {
            return Err(ProposalError::Bound);
        }
        let whole = dim > 0 && particles.len().is_multiple_of(dim);
        let enough = self.kernel == 0 || particles.len() >= dim;
        if !whole || !enough || particles.iter().any(|p| !p.is_finite()) {
            return Err(ProposalError::Particles);
        }
        Ok(())
    }

    /// Draws all candidates, rows of `D` floats, in the order bridge, uniform, kernel.
    pub(super) fn draw<R: Rng + ?Sized>(
        &self,
        evidence: &Evidence<'_>,
        particles: &[f32],
        rng: &mut R,
        candidates: &mut [f32],
    ) {
        let (dim, a, b) = (evidence.dim().max(1), evidence.alpha(), evidence.beta());
        let count = candidates.len() / dim;
        let first = self.bridge.min(count);
        let second = first.saturating_add(self.uniform).min(count);
        let (bridge, rest) = candidates.split_at_mut_checked(first * dim).unwrap_or_default();
        let (uniform, kernel) = rest.split_at_mut_checked((second - first) * dim).unwrap_or_default();
        self.draws.fill(evidence.source(), dim, rng, bridge);
        for row in bridge.chunks_exact_mut(dim) {
            row.iter_mut().zip(evidence.x()).for_each(|(y, x)| *y = (x - b * *y) / a);
        }
        self.draws.fill(Source::Uniform, dim, rng, uniform);
        for row in uniform.chunks_exact_mut(dim) {
            for (j, y) in row.iter_mut().enumerate() {
                *y = match evidence.support() {
                    Support::Unbounded => math::atanh(self.bound * *y),
                    Support::Box { .. } => {
                        let (low, high) = evidence.interval(j);
                        0.5 * (low + high) + 0.5 * (high - low) * *y
                    }
                };
            }
        }
        self.draws.fill(Source::Gaussian, dim, rng, kernel);
        for (k, row) in kernel.chunks_exact_mut(dim).enumerate() {
            let centre = particles.chunks_exact(dim).nth(self.particle(k, particles.len() / dim)).unwrap_or(&[]);
            row.iter_mut().zip(centre).for_each(|(y, p)| *y = p + self.bandwidth * *y);
        }
    }

    /// The particle, one of `count`, of the `k`-th kernel candidate.
    fn particle(&self, k: usize, count: usize) -> usize {
        let count = count.min(self.kernel).max(1);
        let (each, larger) = (self.kernel / count, self.kernel % count);
        let first = larger * (each + 1);
        if k < first { k / (each + 1) } else { larger + (k - first) / each.max(1) }
    }

    /// `ln p0((x - alpha y) / beta) - ln r(y)` up to a constant that all candidates share: what importance weights
    /// need beside the target.
    pub(super) fn log_ratio(&self, evidence: &Evidence<'_>, candidate: &[f32], particles: &[f32]) -> f32 {
        if self.uniform == 0 && self.kernel == 0 {
            return 0.0;
        }
        let log_bridge = evidence.log_source(candidate) + evidence.log_bridge_factor();
        let total = self.candidates() as f32;
        let mut log_mixture = f32::NEG_INFINITY;
        if self.bridge > 0 {
            log_mixture = math::ln_add_exp(log_mixture, math::ln(self.bridge as f32 / total) + log_bridge);
        }
        if self.uniform > 0 {
            let log_uniform = log_uniform(evidence, candidate);
            log_mixture = math::ln_add_exp(log_mixture, math::ln(self.uniform as f32 / total) + log_uniform);
        }
        if self.kernel > 0 {
            let dim = candidate.len().max(1);
            let count = (particles.len() / dim).min(self.kernel).max(1);
            let scale = candidate.len() as f32 * math::ln(self.bandwidth);
            for (p, centre) in particles.chunks_exact(dim).take(count).enumerate() {
                let share = self.kernel / count + usize::from(p < self.kernel % count);
                let z = candidate.iter().zip(centre).map(|(y, c)| (y - c) / self.bandwidth);
                let log_kernel: f32 = z.map(|z| Source::Gaussian.log_density(z)).sum::<f32>() - scale;
                log_mixture = math::ln_add_exp(log_mixture, math::ln(share as f32 / total) + log_kernel);
            }
        }
        log_bridge - log_mixture
    }
}

/// Log-density of the uniform component, `-inf` outside the box.
fn log_uniform(evidence: &Evidence<'_>, candidate: &[f32]) -> f32 {
    match evidence.support() {
        // atanh of a uniform on (-1, 1) has the density sech^2 / 2.
        Support::Unbounded => candidate.iter().map(|y| math::ln_sech2(*y) - core::f32::consts::LN_2).sum(),
        Support::Box { .. } if !evidence.contains(candidate) => f32::NEG_INFINITY,
        Support::Box { .. } => {
            let width = |j| {
                let (low, high) = evidence.interval(j);
                high - low
            };
            -(0..candidate.len()).map(|j| math::ln(width(j))).sum::<f32>()
        }
    }
}

impl core::fmt::Display for ProposalError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Shares => "the proposal's shares must add up to the number of candidates, at least one",
            Self::Bandwidth => "the kernel bandwidth must be finite and at least 2^-50",
            Self::Bound => "the bound of a uniform action must lie inside (0, 1)",
            Self::Particles => "kernel candidates need at least one particle, whole and finite",
        })
    }
}

impl core::error::Error for ProposalError {}
