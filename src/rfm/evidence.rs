//! What an estimate is conditioned on: the point `x` at time `t`, with the path, the source and the target's support.
//!
//! All of it follows from `x = alpha X_1 + beta X_0`: the noise that belongs to a candidate for `X_1`, its density, the
//! score of the posterior `q1(y) ~ p1(y) p0((x - alpha y) / beta)`, and where that posterior is not zero. No panics, no
//! allocation; a handful of operations a component.

use super::{EstimateError, Support};
use crate::flow::{Schedule, Source};
use crate::math;

/// A point of the flow, and what is known about the path through it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evidence<'x> {
    schedule: Schedule,
    source: Source,
    support: Support,
    t: f32,
    x: &'x [f32],
    alpha: f32,
    beta: f32,
    ratio: f32,
}

impl<'x> Evidence<'x> {
    /// The evidence `X_t = x`; refused when schedule or source are, `t` is outside `[2^-50, 1)`, `x` is empty or not
    /// finite, or the posterior's support is empty: no noise of the source carries a point of the target's box to `x`,
    /// or single precision does not tell the ends apart.
    pub fn new(
        schedule: Schedule,
        source: Source,
        support: Support,
        t: f32,
        x: &'x [f32],
    ) -> Result<Self, EstimateError> {
        schedule.check().map_err(EstimateError::Schedule)?;
        source.check().map_err(EstimateError::Source)?;
        if !(math::FLUSH..1.0).contains(&t) {
            return Err(EstimateError::Time);
        }
        let (alpha, beta) = (schedule.alpha(t), schedule.beta(t));
        // Written so that NaN is refused.
        if !(alpha >= math::FLUSH && beta >= math::FLUSH && alpha.is_finite() && beta.is_finite()) {
            return Err(EstimateError::Time);
        }
        if x.is_empty() || x.iter().any(|x| !x.is_finite()) {
            return Err(EstimateError::Point);
        }
        let evidence = Self { schedule, source, support, t, x, alpha, beta, ratio: beta / alpha };
        // False for a limit that is NaN.
        let has_inside = |j| {
            let (low, high) = evidence.interval(j);
            low < high
        };
        if !(0..x.len()).all(has_inside) {
            return Err(EstimateError::Support);
        }
        Ok(evidence)
    }

    /// Schedule of the interpolant.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// Source distribution.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Support of the target.
    pub fn support(&self) -> Support {
        self.support
    }

    /// Flow time.
    pub fn t(&self) -> f32 {
        self.t
    }

    /// The point.
    pub fn x(&self) -> &'x [f32] {
        self.x
    }

    /// Dimension `D` of the point.
    pub fn dim(&self) -> usize {
        self.x.len()
    }

    /// Weight of the action, `alpha(t)`.
    pub fn alpha(&self) -> f32 {
        self.alpha
    }

    /// Weight of the source, `beta(t)`.
    pub fn beta(&self) -> f32 {
        self.beta
    }

    /// `beta / alpha`: the spread of the candidates that a source of spread one implies.
    pub fn ratio(&self) -> f32 {
        self.ratio
    }

    /// Component `j` of the noise that belongs to a candidate: `(x_j - alpha y) / beta`.
    pub fn noise(&self, j: usize, y: f32) -> f32 {
        (self.x.get(j).copied().unwrap_or(0.0) - self.alpha * y) / self.beta
    }

    /// `sum_j ln p0(noise_j)` of a candidate; `-inf` where the source has no mass.
    pub fn log_source(&self, candidate: &[f32]) -> f32 {
        candidate.iter().zip(self.x).map(|(y, x)| self.source.log_density((x - self.alpha * y) / self.beta)).sum()
    }

    /// `D ln(alpha / beta)`: what [`log_source`](Self::log_source) lacks to be the log-density of the source bridge,
    /// the distribution of `(x - beta X_0) / alpha`.
    pub fn log_bridge_factor(&self) -> f32 {
        self.x.len() as f32 * math::ln(self.alpha / self.beta)
    }

    /// Component `j` of the slope of `ln p0((x - alpha y) / beta)` in `y`: `-(alpha / beta) (ln p0)'(noise_j)`.
    pub fn bridge_score(&self, j: usize, y: f32) -> f32 {
        -self.source.score(self.noise(j, y)) / self.ratio
    }

    /// Turns the target's score at a candidate into that of the posterior, in place and under the subnormal rule.
    /// False when a component is not finite.
    pub fn posterior_score(&self, candidate: &[f32], score: &mut [f32]) -> bool {
        let mut finite = true;
        for (j, (s, y)) in score.iter_mut().zip(candidate).enumerate() {
            *s += self.bridge_score(j, *y);
            finite &= s.is_finite();
            *s = math::flush(*s);
        }
        finite
    }

    /// Ends of component `j` of the posterior's support: the target's box, and the source's seen through the path.
    /// Infinite where neither bounds it.
    pub fn interval(&self, j: usize) -> (f32, f32) {
        let limit = self.support.limit();
        let (reach, x) = (self.source.support() * self.ratio, self.x.get(j).copied().unwrap_or(0.0) / self.alpha);
        if reach == f32::INFINITY {
            return (-limit, limit);
        }
        let (low, high) = (x - reach, x + reach);
        (if low > -limit { low } else { -limit }, if high < limit { high } else { limit })
    }

    /// Whether the posterior's support has ends.
    pub fn is_bounded(&self) -> bool {
        self.support.limit().min(self.source.support()).is_finite()
    }

    /// Whether a candidate lies strictly inside the posterior's support.
    pub fn contains(&self, candidate: &[f32]) -> bool {
        !self.is_bounded()
            || candidate.iter().enumerate().all(|(j, y)| {
                let (low, high) = self.interval(j);
                low < *y && *y < high
            })
    }

    /// `E[X_0 | X_t = x]` from `E[X_1 | X_t = x]`, component by component: `(x - alpha E[X_1]) / beta`.
    pub fn noise_mean(&self, data_mean: &[f32], noise_mean: &mut [f32]) {
        for (j, (noise, data)) in noise_mean.iter_mut().zip(data_mean).enumerate() {
            *noise = math::flush(self.noise(j, *data));
        }
    }
}
