//! The suite's shape of rewards: 1 inside an interval, falling to `v` at a distance of the margin.
//!
//! `s(d)` for a value outside, `d` its distance to the nearer bound over the margin; a margin of 0 leaves 0 outside. No
//! panics, no allocation.

/// `sqrt(-2 ln 0.1)`: the Gaussian is 0.1 at the margin.
const SHARPNESS: f64 = 2.145_966_026_289_347;

/// The distance to `[low, high]` over the margin; none inside, infinite without a margin.
fn distance(x: f64, low: f64, high: f64, margin: f64) -> Option<f64> {
    if (low..=high).contains(&x) {
        return None;
    }
    Some(if margin == 0.0 { f64::INFINITY } else { (if x < low { low - x } else { x - high }) / margin })
}

/// A Gaussian that is 0.1 at the margin.
pub(super) fn gaussian(x: f64, low: f64, high: f64, margin: f64) -> f64 {
    distance(x, low, high, margin).map_or(1.0, |d| (-0.5 * (d * SHARPNESS).powi(2)).exp())
}

/// A straight line that is `v` at the margin, and not below 0.
pub(super) fn linear(x: f64, low: f64, high: f64, margin: f64, v: f64) -> f64 {
    distance(x, low, high, margin).map_or(1.0, |d| (1.0 - d * (1.0 - v)).max(0.0))
}

/// A parabola about 0 that is 0 at 1: what the tasks ask of controls.
pub(super) fn quadratic(x: f64) -> f64 {
    (1.0 - x * x).max(0.0)
}

/// The mean of [`quadratic`] over controls.
pub(super) fn small_controls(ctrl: &[f64]) -> f64 {
    ctrl.iter().map(|&u| quadratic(u)).sum::<f64>() / ctrl.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::f64::consts::E;

    #[test]
    fn inside_is_one_and_the_margin_has_its_value() {
        assert!((SHARPNESS - (-2.0 * 0.1f64.ln()).sqrt()).abs() < 1e-15);
        for x in [-1.0, 0.0, 2.0] {
            assert_eq!(gaussian(x, -1.0, 2.0, 0.5), 1.0);
            assert_eq!(linear(x, -1.0, 2.0, 0.5, 0.3), 1.0);
        }
        for x in [-1.5, 2.5] {
            assert!((gaussian(x, -1.0, 2.0, 0.5) - 0.1).abs() < 1e-15);
            assert!((linear(x, -1.0, 2.0, 0.5, 0.3) - 0.3).abs() < 1e-15);
            // Twice the margin: 0.1 to the fourth, and 0.3 - 0.7 held at 0.
            assert!((gaussian(2.0 * x - if x < 0.0 { -1.0 } else { 2.0 }, -1.0, 2.0, 0.5) - 1e-4).abs() < 1e-18);
            assert_eq!(linear(2.0 * x, -1.0, 2.0, 0.5, 0.3), 0.0);
            assert_eq!(gaussian(x, -1.0, 2.0, 0.0), 0.0);
            assert_eq!(linear(x, -1.0, 2.0, 0.0, 0.3), 0.0);
        }
        // One standard deviation.
        assert!((gaussian(1.0, 0.0, 0.0, SHARPNESS) - 1.0 / E.sqrt()).abs() < 1e-15);
        assert_eq!(linear(f64::INFINITY, 1.0, f64::INFINITY, 1.0, 0.5), 1.0);
        assert_eq!((quadratic(0.0), quadratic(-0.5), quadratic(1.2)), (1.0, 0.75, 0.0));
        assert_eq!(small_controls(&[0.0, 1.0, -0.5, 2.0]), 1.75 / 4.0);
    }
}
