//! The posterior-mean estimator: weighted candidates from a method, and the correction of their mean.
//!
//! Every method works in rounds. [`RfmConfig::start`] opens a [`Run`]; [`RfmConfig::propose`] writes candidates and
//! says in which rows; the caller evaluates the target there; once it returns `None` the rows carry weights, and
//! [`RfmConfig::finish`] gives the mean. So a host can evaluate a critic for many points at once.
//! [`RfmConfig::estimate`] is that loop over a [`Target`].
//!
//! A candidate outside the posterior's support, or whose log-density or score is not finite, gets weight zero; when
//! that holds for all of them the estimate is a named error. No panics, no allocation; the same bits everywhere.
//!
//! Cost: one target evaluation a candidate (with its gradient where scores are needed), about `10 D` operations and
//! three transcendentals beside it.

use super::control_variate::{Memory, Weighted};
use super::score::Functional;
use super::{
    Annealed, Auto, ControlVariate, EstimatorScratch, Evidence, Langevin, Mixture, ProposalError, Support, Target,
};
use super::{TestFunction, weights};
use crate::flow::{Schedule, ScheduleError, Source, SourceError};
use crate::math;
use core::ops::Range;
use rand_core::Rng;

/// How candidates are drawn and weighed.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Method {
    /// Self-normalised importance sampling from a mixture of proposals, in one round.
    Importance(Mixture),
    /// Unadjusted Langevin chains from the weighted particles of an importance round. Biased by its step.
    Ula(Langevin),
    /// Metropolis-adjusted Langevin chains from the weighted particles of an importance round.
    Mala(Langevin),
    /// Annealed sequential Monte Carlo with resampling and Metropolis-adjusted moves.
    Smc(Annealed),
    /// Importance sampling from a proposal that learns from its first candidates: the default.
    Auto(Auto),
}

impl Method {
    /// Number `K` of candidates: rows of memory, and evaluations of the target.
    pub const fn candidates(&self) -> usize {
        match self {
            Self::Importance(mixture) => mixture.candidates(),
            Self::Ula(langevin) | Self::Mala(langevin) => langevin.candidates(),
            Self::Smc(annealed) => annealed.candidates(),
            Self::Auto(auto) => auto.candidates,
        }
    }

    /// Whether the method itself uses the target's scores.
    pub const fn needs_scores(&self) -> bool {
        !matches!(self, Self::Importance(_))
    }

    /// Checks the constants against `candidates`, the number there is memory for.
    fn check(&self, evidence: &Evidence<'_>, particles: &[f32], candidates: usize) -> Result<(), EstimateError> {
        match self {
            Self::Importance(mixture) => {
                mixture.check(candidates, particles, evidence.dim()).map_err(EstimateError::Proposal)
            }
            Self::Ula(langevin) | Self::Mala(langevin) => langevin.check(candidates, particles, evidence.dim()),
            Self::Smc(annealed) => annealed.check(candidates),
            Self::Auto(auto) => auto.check(particles, candidates, evidence.dim()).map_err(EstimateError::Proposal),
        }
    }

    /// Writes the next candidates and says where; `None` when there are no more.
    fn propose<R: Rng + ?Sized>(
        &self,
        run: &mut Run<'_>,
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
    ) -> Option<Range<usize>> {
        match self {
            Self::Importance(mixture) => {
                if run.asked > 0 {
                    return None;
                }
                mixture.draw(&run.evidence, run.particles, rng, scratch.candidates);
                Some(0..mixture.candidates())
            }
            Self::Ula(langevin) => langevin.propose(false, run, rng, scratch),
            Self::Mala(langevin) => langevin.propose(true, run, rng, scratch),
            Self::Smc(annealed) => annealed.propose(run, rng, scratch),
            Self::Auto(auto) => auto.propose(run, rng, scratch),
        }
    }

    /// Writes the weights; `None` when no row has any.
    fn weigh(&self, run: &Run<'_>, scratch: &mut EstimatorScratch<'_>) -> Option<Posterior> {
        match self {
            Self::Importance(mixture) => weigh_rows(mixture, run, scratch, mixture.candidates()),
            Self::Ula(langevin) => langevin.weigh(false, run, scratch),
            Self::Mala(langevin) => langevin.weigh(true, run, scratch),
            Self::Smc(annealed) => annealed.weigh(run, scratch),
            Self::Auto(auto) => auto.weigh(run, scratch),
        }
    }
}

/// Normalised importance weights of the first `count` rows, drawn from `mixture`; the other rows get none.
pub(super) fn weigh_rows(
    mixture: &Mixture,
    run: &Run<'_>,
    scratch: &mut EstimatorScratch<'_>,
    count: usize,
) -> Option<Posterior> {
    let EstimatorScratch { candidates, log_targets, weights, .. } = scratch;
    weights.fill(f32::NEG_INFINITY);
    let rows = candidates.chunks_exact(run.evidence.dim().max(1)).zip(log_targets.iter());
    for ((y, log_target), weight) in rows.zip(weights.iter_mut()).take(count) {
        if *log_target == f32::NEG_INFINITY {
            continue;
        }
        let logit = log_target + mixture.log_ratio(&run.evidence, y, run.particles);
        *weight = if logit.is_finite() { logit } else { f32::NEG_INFINITY };
    }
    let normalized = weights::normalize(weights)?;
    Some(Posterior {
        effective_sample_size: normalized.effective_sample_size,
        log_normalizer: normalized.log_mean(count),
    })
}

/// Everything that is fixed about an estimator.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct RfmConfig {
    /// Schedule of the interpolant.
    pub schedule: Schedule,
    /// Source distribution.
    pub source: Source,
    /// How candidates are drawn and weighed.
    pub method: Method,
    /// Choice of the control-variate coefficient.
    pub control_variate: ControlVariate,
    /// Test function of the control variate.
    pub test_function: TestFunction,
}

impl Default for RfmConfig {
    fn default() -> Self {
        Self::importance(Mixture::default())
    }
}

/// What an estimate says beside the mean itself.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Posterior {
    /// Effective sample size of the weights, `1 / sum w^2`, from 1 to the number of candidates.
    pub effective_sample_size: f32,
    /// `ln` of the mean unnormalised weight (with [`Auto`] on the low side, see there): an estimate of `ln` of the integral of target times bridge density, up to
    /// the target's constant. (Without uniform and kernel candidates the bridge cancels.)
    pub log_normalizer: f32,
}

/// Why there is no estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum EstimateError {
    /// The schedule was refused.
    Schedule(ScheduleError),
    /// The source was refused.
    Source(SourceError),
    /// The flow time is not inside `[2^-50, 1)`, or the schedule has no positive weights there.
    Time,
    /// The point `x` is empty or not finite.
    Point,
    /// The posterior's support is empty or no candidate lies in it.
    Support,
    /// The proposal was refused.
    Proposal(ProposalError),
    /// Chains, steps, particles or rounds of the method are zero or do not add up to the number of candidates, or
    /// another of its constants is not in its range.
    Method,
    /// A control-variate constant is not finite or has the wrong sign.
    ControlVariate,
    /// No candidate has a finite log-density and score.
    NonFinite,
    /// A slice does not have the length that dimension and number of candidates ask for.
    Scratch,
    /// The score of a bounded source was asked for without the target's scores.
    Scores,
    /// The run was finished while [`RfmConfig::propose`] still had rows to ask for.
    Unfinished,
    /// The scores of this run were already replaced by the features of a field.
    Replaced,
}

impl core::fmt::Display for EstimateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let sentence = match self {
            Self::Schedule(error) => return write!(f, "the schedule is refused: {error}"),
            Self::Source(error) => return write!(f, "the source is refused: {error}"),
            Self::Proposal(error) => return write!(f, "the proposal is refused: {error}"),
            Self::Time => "the flow time must lie in [2^-50, 1), where the schedule has weights for both ends",
            Self::Point => "the point must have at least one component, and all of them finite",
            Self::Support => "no candidate lies where target and source both have mass",
            Self::Method => "the method's counts must be positive and add up to the candidates, its constants in range",
            Self::ControlVariate => "the control variate's constants must be finite, ridges at least 2^-100",
            Self::NonFinite => "no candidate has a finite log-density and score",
            Self::Scratch => "a slice does not have the length that dimension and candidates ask for",
            Self::Scores => "the score of a bounded source needs the target's scores: choose a control variate",
            Self::Unfinished => "the run still has candidates to evaluate",
            Self::Replaced => "the scores of this run were already replaced",
        };
        f.write_str(sentence)
    }
}

impl core::error::Error for EstimateError {}

/// An estimate under way: what it is conditioned on, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run<'x> {
    pub(super) evidence: Evidence<'x>,
    pub(super) particles: &'x [f32],
    /// Rows that were asked for so far.
    pub(super) asked: usize,
    /// Rows whose evaluations were taken in.
    taken: usize,
    /// Whether the scores were replaced by the features of a user's field.
    pub(super) replaced: bool,
    /// What a method knows between its rounds.
    pub(super) progress: Progress,
    outcome: Option<Result<Posterior, EstimateError>>,
}

/// What a method of several rounds knows between them, beside what it keeps in the scratch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Progress {
    /// No row of a round had a weight: there is nothing to go on from.
    pub failed: bool,
    /// Share of the posterior in the density that the rows follow, from 0 to 1.
    pub temperature: f32,
    /// `ln` of the normalising constant so far.
    pub log_normalizer: f32,
}

impl<'x> Run<'x> {
    /// What the estimate is conditioned on.
    pub fn evidence(&self) -> &Evidence<'x> {
        &self.evidence
    }

    /// How a complete run ended; [`EstimateError::Unfinished`] before.
    pub fn outcome(&self) -> Result<Posterior, EstimateError> {
        self.outcome.unwrap_or(Err(EstimateError::Unfinished))
    }
}

impl RfmConfig {
    /// Importance sampling from `mixture` with a Gaussian source on the linear path and no control variate.
    pub const fn importance(mixture: Mixture) -> Self {
        Self {
            schedule: Schedule::Linear,
            source: Source::Gaussian,
            method: Method::Importance(mixture),
            control_variate: ControlVariate::None,
            test_function: TestFunction::Auto,
        }
    }

    /// The default with `k` evaluations of the target: [`Auto`] with its own control variate, for a Gaussian source on
    /// the linear path.
    pub const fn auto(k: usize) -> Self {
        Self {
            method: Method::Auto(Auto::new(k)),
            control_variate: ControlVariate::Shrunk,
            ..Self::importance(Mixture::bridge(k))
        }
    }

    /// The estimator of the paper's implementation: `k` candidates from the source bridge, and
    /// [`ControlVariate::PUBLISHED`]. Its test function is constant, so it is biased with a bounded source or target.
    pub const fn published(k: usize) -> Self {
        let importance = Self::importance(Mixture::bridge(k));
        Self { control_variate: ControlVariate::PUBLISHED, test_function: TestFunction::Constant, ..importance }
    }

    /// Whether the target's scores are to be evaluated.
    pub fn needs_scores(&self) -> bool {
        self.control_variate.needs_scores() || self.method.needs_scores()
    }

    /// Opens a run at the point `x` (length `D`) and time `t`, for a target with this support.
    ///
    /// `particles` are rows of `D` floats for the kernel component.
    pub fn start<'x>(
        &self,
        t: f32,
        x: &'x [f32],
        support: Support,
        particles: &'x [f32],
        scratch: &EstimatorScratch<'_>,
    ) -> Result<Run<'x>, EstimateError> {
        let evidence = Evidence::new(self.schedule, self.source, support, t, x)?;
        self.method.check(&evidence, particles, scratch.weights.len())?;
        if !self.control_variate.is_valid() {
            return Err(EstimateError::ControlVariate);
        }
        if !scratch.fits(x.len(), self.method.candidates(), self.needs_scores()) {
            return Err(EstimateError::Scratch);
        }
        let progress = Progress { failed: false, temperature: 0.0, log_normalizer: 0.0 };
        Ok(Run { evidence, particles, asked: 0, taken: 0, replaced: false, progress, outcome: None })
    }

    /// Writes the next candidates into `scratch.candidates` and returns their rows, or `None` when the run is complete.
    ///
    /// Before the next call the caller writes `ln p1` of these rows into `scratch.log_targets` and, where
    /// [`needs_scores`](Self::needs_scores), its gradient into `scratch.scores`.
    pub fn propose<R: Rng + ?Sized>(
        &self,
        run: &mut Run<'_>,
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
    ) -> Option<Range<usize>> {
        if run.outcome.is_some() {
            return None;
        }
        self.take_in(run, scratch);
        let rows = self.method.propose(run, rng, scratch);
        match &rows {
            Some(rows) => run.ask(rows.clone(), scratch),
            None => self.conclude(run, scratch),
        }
        rows
    }

    /// The mean `E[X_1 | X_t = x]` of a complete run, into `mean` (length `D`), which an error leaves as it was.
    ///
    /// The run must be this configuration's, and the scratch the one it was run in: only their sizes are checked.
    pub fn finish(
        &self,
        run: &Run<'_>,
        scratch: &mut EstimatorScratch<'_>,
        mean: &mut [f32],
    ) -> Result<Posterior, EstimateError> {
        self.average(Functional::Data, run, scratch, mean)
    }

    /// The weighted mean of a functional and its correction.
    pub(super) fn average(
        &self,
        functional: Functional,
        run: &Run<'_>,
        scratch: &mut EstimatorScratch<'_>,
        mean: &mut [f32],
    ) -> Result<Posterior, EstimateError> {
        let posterior = run.outcome()?;
        let dim = run.evidence.dim();
        if mean.len() != dim || !scratch.fits(dim, self.method.candidates(), self.needs_scores()) {
            return Err(EstimateError::Scratch);
        }
        let EstimatorScratch { candidates, scores, weights, vectors, matrix, .. } = scratch;
        let evidence = &run.evidence;
        let test_function = Some(self.test_function).filter(|_| !run.replaced);
        let rows = Weighted { evidence, functional, test_function, weights, candidates, scores };
        let (values, rest) = vectors.split_at_mut_checked(dim).ok_or(EstimateError::Scratch)?;
        let (features, rest) = rest.split_at_mut_checked(dim).ok_or(EstimateError::Scratch)?;
        let (correction, rest) = rest.split_at_mut_checked(dim).ok_or(EstimateError::Scratch)?;
        let spare = rest.get_mut(..dim).ok_or(EstimateError::Scratch)?;
        for (j, value) in values.iter_mut().enumerate() {
            *value = rows.with_weight().map(|(k, w)| w * rows.value(k, j)).sum();
        }
        if values.iter().any(|value| !value.is_finite()) {
            return Err(EstimateError::NonFinite);
        }
        correction.fill(0.0);
        if self.control_variate.needs_scores() {
            for (j, feature) in features.iter_mut().enumerate() {
                *feature = rows.with_weight().map(|(k, w)| w * rows.feature(k, j)).sum();
            }
            self.control_variate.correct(&rows, Memory { values, features, correction, spare, matrix });
        }
        for (mean, (value, correction)) in mean.iter_mut().zip(values.iter().zip(correction.iter())) {
            let corrected = value + correction;
            // A correction that overflows is worth less than none.
            *mean = math::flush(if corrected.is_finite() { corrected } else { *value });
        }
        Ok(posterior)
    }

    /// Draws candidates from `rng` and estimates `E[X_1 | X_t = x]` into `mean` (length `D`).
    ///
    /// `particles` are rows of `D` floats for the kernels of [`Mixture`] and [`Auto`]; other methods leave them unread. On
    /// an error `mean` is left as it was.
    #[allow(clippy::too_many_arguments, reason = "the parts of one formula; a struct would name them twice")]
    pub fn estimate<T: Target + ?Sized, R: Rng + ?Sized>(
        &self,
        t: f32,
        x: &[f32],
        target: &mut T,
        particles: &[f32],
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
        mean: &mut [f32],
    ) -> Result<Posterior, EstimateError> {
        let run = self.run(t, x, target, particles, rng, scratch)?;
        self.finish(&run, scratch, mean)
    }

    /// The rounds of [`estimate`](Self::estimate) without its end: a complete run, from which mean and score follow.
    pub fn run<'x, T: Target + ?Sized, R: Rng + ?Sized>(
        &self,
        t: f32,
        x: &'x [f32],
        target: &mut T,
        particles: &'x [f32],
        rng: &mut R,
        scratch: &mut EstimatorScratch<'_>,
    ) -> Result<Run<'x>, EstimateError> {
        let mut run = self.start(t, x, target.support(), particles, scratch)?;
        while let Some(rows) = self.propose(&mut run, rng, scratch) {
            self.evaluate(rows, target, scratch);
        }
        run.outcome()?;
        Ok(run)
    }

    /// The same for candidates that already stand in `scratch`, in the order bridge, uniform, kernel: importance
    /// sampling only, another method gives [`EstimateError::Method`].
    pub fn weigh<T: Target + ?Sized>(
        &self,
        t: f32,
        x: &[f32],
        target: &mut T,
        particles: &[f32],
        scratch: &mut EstimatorScratch<'_>,
        mean: &mut [f32],
    ) -> Result<Posterior, EstimateError> {
        if !matches!(self.method, Method::Importance(_)) {
            return Err(EstimateError::Method);
        }
        let mut run = self.start(t, x, target.support(), particles, scratch)?;
        let rows = 0..self.method.candidates();
        run.ask(rows.clone(), scratch);
        self.evaluate(rows, target, scratch);
        self.take_in(&mut run, scratch);
        self.conclude(&mut run, scratch);
        self.finish(&run, scratch, mean)
    }

    /// Evaluates the target at these rows.
    fn evaluate<T: Target + ?Sized>(&self, rows: Range<usize>, target: &mut T, scratch: &mut EstimatorScratch<'_>) {
        let EstimatorScratch { candidates, scores, log_targets, .. } = scratch;
        let dim = (candidates.len() / log_targets.len().max(1)).max(1);
        let scored = self.needs_scores();
        for (k, (y, log_target)) in
            candidates.chunks_exact(dim).zip(log_targets.iter_mut()).enumerate().take(rows.end).skip(rows.start)
        {
            *log_target = match scores.get_mut(k * dim..(k + 1) * dim) {
                Some(score) if scored => target.log_density_and_score(y, score),
                _ => target.log_density(y),
            };
        }
    }

    /// Turns the target's scores of the last rows into the posterior's and marks the rows that are refused.
    fn take_in(&self, run: &mut Run<'_>, scratch: &mut EstimatorScratch<'_>) {
        let EstimatorScratch { candidates, scores, log_targets, .. } = scratch;
        let (dim, scored) = (run.evidence.dim().max(1), self.needs_scores());
        for (k, (y, log_target)) in
            candidates.chunks_exact(dim).zip(log_targets.iter_mut()).enumerate().take(run.asked).skip(run.taken)
        {
            let mut good = log_target.is_finite() && y.iter().all(|y| y.is_finite());
            if let Some(score) = scores.get_mut(k * dim..(k + 1) * dim).filter(|_| scored) {
                good &= run.evidence.posterior_score(y, score);
            }
            if !(good && run.evidence.contains(y)) {
                *log_target = f32::NEG_INFINITY;
            }
        }
        run.taken = run.asked;
    }

    /// Weighs the rows of a complete run.
    fn conclude(&self, run: &mut Run<'_>, scratch: &mut EstimatorScratch<'_>) {
        let dim = run.evidence.dim().max(1);
        let Some(posterior) = self.method.weigh(run, scratch) else {
            let inside = scratch.candidates.chunks_exact(dim).take(run.asked).any(|y| run.evidence.contains(y));
            run.outcome = Some(Err(if inside { EstimateError::NonFinite } else { EstimateError::Support }));
            return;
        };
        run.outcome = Some(Ok(posterior));
    }
}

impl Run<'_> {
    /// Notes that these rows were asked for, and brings their candidates under the subnormal rule.
    fn ask(&mut self, rows: Range<usize>, scratch: &mut EstimatorScratch<'_>) {
        let dim = self.evidence.dim();
        let cells = scratch.candidates.get_mut(rows.start * dim..rows.end * dim).unwrap_or_default();
        cells.iter_mut().filter(|y| y.abs() < math::FLUSH).for_each(|y| *y = 0.0);
        self.asked = rows.end;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_error_is_a_sentence_with_its_cause() {
        let of = |error: EstimateError| error.to_string();
        assert!(of(EstimateError::Proposal(ProposalError::Shares)).ends_with(&ProposalError::Shares.to_string()));
        assert!(of(EstimateError::Time).contains("flow time"));
        let boxed: std::boxed::Box<dyn core::error::Error> = EstimateError::NonFinite.into();
        assert!(boxed.to_string().contains("finite"));
    }
}
