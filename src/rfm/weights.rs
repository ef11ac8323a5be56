//! Log-weights to weights. No panics, no allocation; an exponential a candidate.

use crate::math;

/// What the weights say about themselves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Normalized {
    /// `1 / sum w^2`.
    pub effective_sample_size: f32,
    highest: f32,
    total: f32,
}

impl Normalized {
    /// `ln` of the mean of `count` weights before they were normalised.
    pub fn log_mean(&self, count: usize) -> f32 {
        self.highest + math::ln(self.total / count as f32)
    }
}

/// Turns log-weights (`-inf` for none) into weights that add up to one; `None`, with the log-weights as they were,
/// when there is no weight at all.
pub(super) fn normalize(weights: &mut [f32]) -> Option<Normalized> {
    let highest = weights.iter().fold(f32::NEG_INFINITY, |most, w| if *w > most { *w } else { most });
    if !highest.is_finite() {
        return None;
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
    Some(Normalized { effective_sample_size: 1.0 / square, highest, total })
}

/// Divides weights that are not negative by their sum; their effective sample size, or `None` when they are all zero.
pub(super) fn rescale(weights: &mut [f32]) -> Option<f32> {
    let total: f32 = weights.iter().sum();
    if !(total > 0.0 && total.is_finite()) {
        return None;
    }
    let mut square = 0.0;
    for weight in weights.iter_mut() {
        *weight = math::flush(*weight / total);
        square += *weight * *weight;
    }
    Some(1.0 / square)
}

/// Systematic resampling: calls `take(i, row)` for `i` in `0..count` with rows in proportion to their `weights`, which
/// add up to one, from one uniform number in `(0, 1)`.
pub(super) fn resample(weights: &[f32], count: usize, uniform: f32, mut take: impl FnMut(usize, usize)) {
    let mut rows = weights.iter().enumerate().filter(|(_, w)| **w > 0.0);
    let (mut row, mut level) = (0, 0.0);
    for i in 0..count {
        let pick = (i as f32 + uniform) / count as f32;
        // Rounding may leave the sum below the last picks: they take the last row.
        while level <= pick {
            let Some((k, w)) = rows.next() else { break };
            row = k;
            level += w;
        }
        take(i, row);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::{vec, vec::Vec};

    #[test]
    fn resampling_takes_rows_in_proportion() {
        // Systematic: a row of weight w is taken floor(n w) or ceil(n w) times.
        let weights = [0.1, 0.0, 0.35, 0.05, 0.5];
        for uniform in [1e-6, 0.3, 0.5, 0.999_999] {
            let mut counts = vec![0usize; 5];
            let mut order = Vec::new();
            resample(&weights, 30, uniform, |i, row| {
                counts[row] += 1;
                order.push(i);
            });
            assert_eq!(order, (0..30).collect::<Vec<_>>());
            for (count, weight) in counts.iter().zip(weights) {
                assert!((*count as f32 - 30.0 * weight).abs() < 1.0, "{counts:?}");
            }
        }
    }

    #[test]
    fn weights_add_up_to_one_or_are_none() {
        let mut weights = [1000.0, f32::NEG_INFINITY, 1000.0 + 3f32.ln()];
        let normalized = normalize(&mut weights).unwrap();
        // Logits near 1000 are rounded to 2^-14.
        assert!((weights[0] - 0.25).abs() < 2e-5 && weights[1] == 0.0 && (weights[2] - 0.75).abs() < 2e-5);
        assert!((normalized.effective_sample_size - 1.6).abs() < 1e-4);
        assert!((normalized.log_mean(4) - 1000.0).abs() < 2e-4);
        assert!(normalize(&mut [f32::NEG_INFINITY; 3]).is_none() && normalize(&mut []).is_none());
        assert!(rescale(&mut [0.0; 3]).is_none() && rescale(&mut [f32::INFINITY]).is_none());
        assert_eq!(rescale(&mut [3.0, 3.0]), Some(2.0));
    }
}
