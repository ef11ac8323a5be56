//! Test functions `Phi` of the Langevin-Stein operator: the features `g = div Phi + Phi s` have posterior mean zero.
//!
//! `E_q[g] = integral of div(q Phi)`, which is zero when `q Phi` vanishes at the edge of the posterior's support. A
//! constant `Phi` does where that is all of space; on a box, or with a bounded source, `q` itself does not vanish there
//! and `Phi` must. No panics, no allocation; a few operations a component.

use super::{EstimateError, EstimatorScratch, Evidence, RfmConfig, Run};
use crate::math;

/// Which test function turns scores into the features of the control variate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TestFunction {
    /// Constant in the components whose support is unbounded, [`Boundary`](Self::Boundary) in the others.
    #[default]
    Auto,
    /// `Phi = I`: the features are the scores. Biased where the posterior's support has an edge.
    Constant,
    /// `Phi_jj = (1 - z^2)` with `z = (2 y_j - l_j - u_j) / (u_j - l_j)` on the posterior's support `(l_j, u_j)`: one
    /// in the middle and zero at the ends. A component without ends has the scale `z = y_j / (1 + beta / alpha)` and
    /// `Phi_jj = 1 / (1 + z^2)`, which also tames scores that grow in the tails.
    Boundary,
}

impl TestFunction {
    /// Whether it is one everywhere for this evidence.
    pub(super) fn is_constant(self, evidence: &Evidence<'_>) -> bool {
        match self {
            Self::Constant => true,
            Self::Auto => !evidence.is_bounded(),
            Self::Boundary => false,
        }
    }

    /// `Phi_jj` and its slope at `y`.
    pub(super) fn diagonal(self, evidence: &Evidence<'_>, j: usize, y: f32) -> (f32, f32) {
        if self.is_constant(evidence) {
            return (1.0, 0.0);
        }
        let (low, high) = evidence.interval(j);
        let half = 0.5 * (high - low);
        if half.is_finite() {
            let z = (y - 0.5 * (low + high)) / half;
            return (1.0 - z * z, -2.0 * z / half);
        }
        let scale = 1.0 + evidence.ratio();
        let z = y / scale;
        let phi = 1.0 / (1.0 + z * z);
        (phi, -2.0 * z * phi * phi / scale)
    }
}

/// A general test function, brought by the user: a matrix field `Phi` over the candidates.
///
/// `q Phi` must vanish at the edge of the posterior's support (at infinity where there is none), else the control
/// variate is biased.
pub trait TestField {
    /// Writes `features_i = sum_j (d Phi_ij / d y_j + Phi_ij s_j)` at the candidate `y` with the posterior score `s`.
    fn features(&mut self, evidence: &Evidence<'_>, candidate: &[f32], score: &[f32], features: &mut [f32]);
}

impl RfmConfig {
    /// Replaces the posterior scores of a complete run by the features of `field`, which
    /// [`finish`](Self::finish) then takes in place of those of [`test_function`](Self::test_function).
    ///
    /// A run that is not complete, has failed, or whose scores were already replaced is left as it was, with an error.
    pub fn apply<F: TestField + ?Sized>(
        &self,
        run: &mut Run<'_>,
        field: &mut F,
        scratch: &mut EstimatorScratch<'_>,
    ) -> Result<(), EstimateError> {
        run.outcome()?;
        let dim = run.evidence.dim();
        if run.replaced {
            return Err(EstimateError::Replaced);
        }
        if !scratch.fits(dim, self.method.candidates(), true) {
            return Err(EstimateError::Scratch);
        }
        let EstimatorScratch { candidates, scores, weights, vectors, .. } = scratch;
        let copy = vectors.get_mut(..dim).ok_or(EstimateError::Scratch)?;
        for ((y, score), weight) in candidates.chunks_exact(dim).zip(scores.chunks_exact_mut(dim)).zip(weights.iter()) {
            if *weight > 0.0 {
                copy.iter_mut().zip(score.iter()).for_each(|(copy, s)| *copy = *s);
                field.features(&run.evidence, y, copy, score);
                score.iter_mut().filter(|g| g.abs() < math::FLUSH).for_each(|g| *g = 0.0);
            }
        }
        run.replaced = true;
        Ok(())
    }
}
