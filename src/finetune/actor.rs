//! The actor's targets: critic-weighted means of candidate actions, by Reverse Flow Matching.
//!
//! A one-step policy carries noise x_0 to a latent u in one step, so there is no path to regress on. Its own action stands as
//! the evidence instead: candidates are drawn about it, and weighted by exp(Q / lambda) their mean is the posterior mean of
//! the Boltzmann policy seen through a Gaussian window of width [`Config::spread`](super::Config::spread). The
//! policy regresses on it at the noise that led there, so that different noise may go on leading to different actions. No
//! panics, no allocation, the same bits everywhere.

use crate::math;
use crate::policy::Squash;
use rand_core::Rng;

/// The largest action a candidate may be: that of a latent of about 4.
const EDGE: f32 = 0.999;

/// What an error of a latent counts where it does not move the action.
const FLOOR: f32 = 0.01;

/// Writes candidate number `turn` about the action of `latent`; the first is that action.
pub fn propose<R: Rng + ?Sized>(
    rng: &mut R,
    squash: Squash,
    latent: &[f32],
    spread: f32,
    turn: usize,
    candidate: &mut [f32],
) {
    for (candidate, u) in candidate.iter_mut().zip(latent) {
        let noise = math::box_muller([rng.next_u32(), rng.next_u32()])[0];
        let a = squash.value(*u) + if turn == 0 { 0.0 } else { spread * noise };
        *candidate = math::flush(math::clip(a, EDGE));
    }
}

/// The mean of candidates under the softmax of `logits`, which become weights; returns their effective number.
pub fn mean(logits: &mut [f32], candidates: &[f32], mean: &mut [f32]) -> f32 {
    let highest = logits.iter().fold(f32::NEG_INFINITY, |most, x| if *x > most { *x } else { most });
    let mut total = 0.0;
    for logit in logits.iter_mut() {
        *logit = math::flush(math::exp(*logit - highest));
        total += *logit;
    }
    mean.fill(0.0);
    let mut square = 0.0;
    for (weight, candidate) in logits.iter_mut().zip(candidates.chunks_exact(mean.len().max(1))) {
        *weight = math::flush(*weight / total);
        square += *weight * *weight;
        for (mean, a) in mean.iter_mut().zip(candidate) {
            *mean += *weight * a;
        }
    }
    mean.iter_mut().for_each(|mean| *mean = math::flush(*mean));
    1.0 / square
}

/// The gradient at a one-step policy's velocity: its latent is pulled to that of the target action.
///
/// A latent's error counts by how far it moves the action, the square of the secant's slope, so that a saturated action
/// is neither dragged along a flat tanh nor unable to leave it.
pub fn pull(squash: Squash, latent: &[f32], target: &[f32], share: f32, gradient: &mut [f32]) {
    for ((gradient, u), a) in gradient.iter_mut().zip(latent).zip(target) {
        let gap = u - math::atanh(math::clip(*a, EDGE));
        let moved = squash.value(*u) - a;
        let slope = if gap.abs() > 1e-3 { moved / gap } else { 1.0 - a * a };
        *gradient = math::flush(share * (slope * slope + FLOOR) * gap);
    }
}
