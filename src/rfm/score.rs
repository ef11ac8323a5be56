//! Reverse score matching: the score of the flow's marginal, `grad ln p_t(x)`, from the same weighted candidates.
//!
//! For any source and any `eta`,
//!
//! ```text
//! grad ln p_t(x) = E_q[ (1 - eta) grad ln p0(X_0) / beta + eta grad ln p1(X_1) / alpha ]
//!                = E_q[ grad ln p0(X_0) / beta ] + (eta / alpha) E_q[s_1],
//! ```
//!
//! because `s_1 = grad ln p1 - (alpha / beta) grad ln p0`. So `eta` is the coefficient of a control variate again, and
//! [`ControlVariate`](super::ControlVariate) chooses it: `Eta(eta)` as written, `EtaOptimal` and the others for least
//! variance. With a Gaussian source the score is `-E[X_0] / beta`; with others velocity and score are no longer affine
//! in one another, and a score network needs these targets.
//!
//! **Bounded support.** The first form differentiates `p0`, which is wrong where `p0` jumps, the second `p1`. What is
//! averaged is therefore `grad ln p0 / beta + (psi' + psi s_1) / alpha` with a `psi_j(y_j)` that runs in a straight
//! line from end to end of the posterior's support, one at an end that the source makes and zero at an end that the
//! target's box makes. It is zero for an unbounded source, and the control variate comes on top. No panics, no
//! allocation.

use super::{EstimateError, EstimatorScratch, Evidence, Posterior, RfmConfig, Run, Target};
use rand_core::Rng;

/// What is averaged over the posterior.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Functional {
    /// The candidate itself: `E[X_1 | X_t = x]`.
    Data,
    /// The score of the marginal.
    Score,
}

impl Functional {
    /// Component `j` at the candidate's component `y`, whose posterior score is `s`.
    pub fn value(self, evidence: &Evidence<'_>, j: usize, y: f32, s: f32) -> f32 {
        match self {
            Self::Data => y,
            Self::Score => {
                let source = evidence.source().score(evidence.noise(j, y)) / evidence.beta();
                if !evidence.source().support().is_finite() {
                    return source;
                }
                let ((low, high), limit) = (evidence.interval(j), evidence.support().limit());
                let at_end = |end: f32| if end.abs() < limit { 1.0 } else { 0.0 };
                let slope = (at_end(high) - at_end(low)) / (high - low);
                let psi = at_end(low) + slope * (y - low);
                source + (slope + psi * s) / evidence.alpha()
            }
        }
    }
}

impl RfmConfig {
    /// The score `grad ln p_t(x)` of a complete run, into `score` (length `D`), which an error leaves as it was.
    ///
    /// A bounded source needs the target's scores: [`EstimateError::Scores`] without a control variate
    /// (`Eta(0.0)` evaluates them and corrects nothing).
    pub fn finish_score(
        &self,
        run: &Run<'_>,
        scratch: &mut EstimatorScratch<'_>,
        score: &mut [f32],
    ) -> Result<Posterior, EstimateError> {
        let missing = self.source.support().is_finite() && (!self.needs_scores() || run.replaced);
        if missing {
            return Err(EstimateError::Scores);
        }
        self.average(Functional::Score, run, scratch, score)
    }

    /// Draws candidates from `rng` and estimates the score `grad ln p_t(x)` into `score`; the rest as for
    /// [`estimate`](Self::estimate).
    #[allow(clippy::too_many_arguments, reason = "the parts of one formula; a struct would name them twice")]
    pub fn score<T: Target + ?Sized, R: Rng + ?Sized>(
        &self,
        t: f32,
        x: &[f32],
        target: &mut T,
        particles: &[f32],
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
        score: &mut [f32],
    ) -> Result<Posterior, EstimateError> {
        let run = self.run(t, x, target, particles, rng, scratch)?;
        self.finish_score(&run, scratch, score)
    }
}
