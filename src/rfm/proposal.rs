//! Proposals for the action latent, and their balance-heuristic mixture.
//!
//! Candidates are stratified: the first `bridge` come from the source bridge `y = (x - beta e) / alpha`, the next
//! `uniform` from a uniform action `y = atanh(b U)`, the last `kernel` from Gaussian kernels on given particles. All
//! are weighed by the density of the whole mixture (Veach and Guibas, 1995), so a candidate that one component missed
//! is not over-weighted by another. No panics, no allocation.

use crate::flow::{Schedule, Source};
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
    /// Candidates from kernels on the particles, which are taken in turn.
    pub kernel: usize,
    /// Standard deviation of a kernel, in latent units.
    pub bandwidth: f32,
    /// Largest magnitude of a uniform action component, in `(0, 1)`. The density leaves this bound out, which
    /// over-states it by the factor `bound` a component: 1e-4 at the default.
    pub bound: f32,
}

impl Default for Mixture {
    /// Three bridge, three uniform and two kernel candidates with bandwidth 0.3.
    fn default() -> Self {
        Self { bridge: 3, uniform: 3, kernel: 2, bandwidth: 0.3, bound: 0.9999 }
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
        Self { bridge: candidates, uniform: 0, kernel: 0, bandwidth: 0.3, bound: 0.9999 }
    }

    /// Number of candidates.
    pub const fn candidates(&self) -> usize {
        self.bridge.saturating_add(self.uniform).saturating_add(self.kernel)
    }

    /// Checks the constants against `candidates` and the particles (rows of `dim` floats).
    pub fn check(&self, candidates: usize, particles: &[f32], dim: usize) -> Result<(), ProposalError> {
        if candidates == 0 || self.candidates() != candidates {
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

    /// Draws all candidates, rows of `x.len()` floats, in the order bridge, uniform, kernel.
    #[allow(clippy::too_many_arguments, reason = "the parts of one formula; a struct would name them twice")]
    pub(super) fn draw<R: Rng + ?Sized>(
        &self,
        source: Source,
        schedule: Schedule,
        t: f32,
        x: &[f32],
        particles: &[f32],
        rng: &mut R,
        candidates: &mut [f32],
    ) {
        let (dim, a, b) = (x.len().max(1), schedule.alpha(t), schedule.beta(t));
        for (k, row) in candidates.chunks_exact_mut(dim).enumerate() {
            if k < self.bridge {
                source.sample(rng, row);
                row.iter_mut().zip(x).for_each(|(y, x)| *y = (x - b * *y) / a);
            } else if k < self.bridge + self.uniform {
                row.iter_mut().for_each(|y| *y = math::atanh(self.bound * math::symmetric_uniform(rng.next_u32())));
            } else {
                Source::Gaussian.sample(rng, row);
                let centre = kernel_centre(particles, dim, k - self.bridge - self.uniform);
                row.iter_mut().zip(centre).for_each(|(y, p)| *y = p + self.bandwidth * *y);
            }
        }
    }

    /// `ln p0((x - alpha y) / beta) - ln r(y)` up to a constant that all candidates share: what importance weights
    /// need beside the target. `log_source` is `sum_j ln p0` of the candidate's noise.
    pub(super) fn log_ratio(
        &self,
        log_source: f32,
        log_bridge_factor: f32,
        candidate: &[f32],
        particles: &[f32],
    ) -> f32 {
        let log_bridge = log_source + log_bridge_factor;
        if self.uniform == 0 && self.kernel == 0 {
            return 0.0;
        }
        let total = self.candidates() as f32;
        let mut log_mixture = f32::NEG_INFINITY;
        if self.bridge > 0 {
            log_mixture = math::ln_add_exp(log_mixture, math::ln(self.bridge as f32 / total) + log_bridge);
        }
        if self.uniform > 0 {
            // tanh of a uniform on (-1, 1) has the density sech^2 / 2.
            let log_uniform: f32 = candidate.iter().map(|y| math::ln_sech2(*y) - core::f32::consts::LN_2).sum();
            log_mixture = math::ln_add_exp(log_mixture, math::ln(self.uniform as f32 / total) + log_uniform);
        }
        if self.kernel > 0 {
            // Particles are taken in turn, so the first ones may carry one candidate more than the last ones.
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

/// The particle of the `k`-th kernel candidate.
fn kernel_centre(particles: &[f32], dim: usize, k: usize) -> &[f32] {
    let count = (particles.len() / dim).max(1);
    particles.chunks_exact(dim).nth(k % count).unwrap_or(&[])
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
