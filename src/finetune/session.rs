//! A session: learner and guard behind one decider, from the factory's policy to a better one that was proven.
//!
//! Time is cut into the guard's *blocks*: an episode, or a stretch of work. Each is played by one set of weights.
//!
//! ```text
//! Reference ---> Screening ---> Ready --saved--> Trial ---better---> Promoted
//! deployed       the learner's  ^   |              |  not better         |
//! weights        candidates  <--|---+--------------+                     |
//!                     ^         (best so far)                            |
//!                     +-----------------------------------------saved----+
//! ```
//!
//! * **Reference**: the deployed weights play [`Config::screening`] blocks, so that there is a mean to beat.
//! * **Screening**: the learner's average, frozen, plays as many with the exploration's noise. One that is the best so far is
//!   held; where one is worse than the best by [`Config::slack`], the learner goes on from the best.
//! * **Ready**: the best is ahead by [`Config::gain`] and has not been beaten for [`Config::patience`] screenings. Since the
//!   number of candidates spends the guard's error, the trial begins when the state has been saved.
//! * **Trial**: candidate and deployed weights play by the guard's order, without noise. Better: the candidate plays on, and is
//!   deployed when it has been saved.
//!
//! The learner learns while the reference is measured and while candidates are screened, and rests else: from weights that
//! stay as they are and try nothing it would unlearn what their neighbours are worth.
//!
//! The mean metric of a screening only proposes; what is deployed is the guard's decision alone, with its stated errors.
//! Screenings have the exploration's noise and what is deployed has none, so a candidate must be somewhat better than it
//! looks to be tried. The guard's audits of what is deployed run in [`Stage::Work`]; while there is learning it is measured
//! anew once in [`Config::refresh`] screenings. The learner's reward and the guard's metric are two numbers: the learner
//! never sees the metric.
//!
//! A decision closes the transition before it, which the learner gets with the mean of the actions that left the gate and
//! the sum of the rewards, so `after` may be called once a decision or once a control step. What the robot does at rest, in
//! a fault, or after [`Session::cut`], is no transition.
//!
//! No panics, no allocation, the same bits everywhere, however updates are sliced, as long as each is done when the next is
//! due; one that is late ([`Report::late`]) lets that one fall out. A decision costs the learner's ([`Learner::act`]), one
//! transition written and, where an update is due, a batch of them read and the average moved, which is not sliced.

mod bytes;
mod policy;
#[cfg(test)]
mod tests;

pub use bytes::{StateError, state_bytes};
pub use policy::LearningPolicy;

use super::guard::{self, Guard, GuardError, Passage, Player, Verdict};
use super::learner::{self, Learner};
use super::replay::After;
use crate::control::Chip;
use crate::math;
use crate::policy::PolicyError;
use rand_core::Rng;

/// When candidates are screened and tried.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Config {
    /// Blocks and errors of the guard.
    pub guard: guard::Config,
    /// Blocks of a screening, at least 1.
    pub screening: u16,
    /// Mean metric by which the best must be ahead of the deployed weights to be tried, 0 to 1.
    pub gain: f32,
    /// Mean metric by which a screening may fall behind the best before the learner goes back to it, 0 to 1.
    pub slack: f32,
    /// Screenings without a better one before the best is tried.
    pub patience: u16,
    /// Screenings before the first trial.
    pub first: u16,
    /// Screenings after which the deployed weights are measured again, since plants wear; 0: never.
    pub refresh: u16,
}

impl Config {
    /// Five blocks a screening, a gain of 0.02, a slack of 1, so that the learner never goes back; the best is tried when
    /// fifteen candidates were screened and the last two were no better, since a trial takes as many blocks as several
    /// screenings, in which nothing is learned. What is deployed is measured again after forty.
    pub const fn new(guard: guard::Config) -> Self {
        Self { guard, screening: 5, gain: 0.02, slack: 1.0, patience: 2, first: 15, refresh: 40 }
    }

    fn check(&self) -> Result<(), SessionError> {
        let share = 0.0..=1.0;
        for (ok, name) in [
            (self.screening >= 1, "screening"),
            (share.contains(&self.gain), "gain"),
            (share.contains(&self.slack), "slack"),
        ] {
            if !ok {
                return Err(SessionError::Config(name));
            }
        }
        Ok(())
    }
}

/// Where a session is; see the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Stage {
    /// Nothing is learned; the guard audits what is deployed.
    Work = 0,
    /// The deployed weights are measured.
    Reference = 1,
    /// A candidate of the learner's is measured while it explores.
    Screening = 2,
    /// The best candidate waits until the state is saved; the deployed weights play.
    Ready = 3,
    /// The guard tries the candidate.
    Trial = 4,
    /// The candidate has won, plays, and waits until it is saved.
    Promoted = 5,
}

/// What a step led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Event {
    /// A block is over.
    Block,
    /// A screening, or the reference, is over.
    Screened,
    /// The best candidate is to be tried: save the state.
    Ready,
    /// The guard has decided; where it says [`Verdict::Better`], save the state.
    Verdict(Verdict),
}

/// What there is to tell of a session.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Report {
    /// Where it is.
    pub stage: Stage,
    /// Who decides now.
    pub player: Player,
    /// Finished blocks.
    pub blocks: u32,
    /// Sum of the rewards of the last block.
    pub block_return: f32,
    /// Its mean metric.
    pub block_metric: f32,
    /// Mean metric of the deployed weights.
    pub reference: f32,
    /// That of the best candidate so far.
    pub best: f32,
    /// Of the last update.
    pub learner: learner::Report,
    /// Finished updates.
    pub updates: u32,
    /// Updates that were not done when the next was due.
    pub late: u32,
    /// Resets after divergence.
    pub resets: u32,
    /// Transitions that were refused.
    pub refused: u32,
    /// The guard's.
    pub guard: guard::Report,
}

/// Why there is no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SessionError {
    /// A constant is out of range.
    Config(&'static str),
    /// The guard's configuration was refused.
    Guard(GuardError),
    /// The policy that plays for the factory is not the one that the learner starts from.
    OtherPolicy,
}

impl core::fmt::Display for SessionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Config(name) => write!(f, "the session's {name} is out of range"),
            Self::Guard(error) => error.fmt(f),
            Self::OtherPolicy => {
                f.write_str("the learner was made from another policy: make both from the same artefact")
            }
        }
    }
}

impl core::error::Error for SessionError {}

/// A mean over blocks.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f32,
    blocks: u16,
}

impl Mean {
    fn add(&mut self, value: f32) {
        self.sum += value;
        self.blocks = self.blocks.saturating_add(1);
    }

    fn get(&self) -> Option<f32> {
        (self.blocks > 0).then(|| self.sum / f32::from(self.blocks))
    }
}

/// Learner and guard; [`LearningPolicy`] makes them a decider of the controller.
#[derive(Debug)]
pub struct Session<'a, M> {
    learner: Learner<'a, M>,
    guard: Guard,
    config: Config,
    stage: Stage,
    /// Control steps and reward of the decision under way.
    open: Option<(u16, f32)>,
    /// Steps of this block, and the sums of its metrics and rewards.
    steps: u32,
    sum: f32,
    total: f32,
    /// Blocks of this screening; of the deployed weights and of the candidate in this trial.
    screened: Mean,
    tried: [Mean; 2],
    /// Since the deployed weights were measured, and since there was a better candidate.
    screenings: u16,
    stale: u16,
    /// Screenings in all.
    in_all: u32,
    reference: f32,
    /// Mean metric of the held delta, over how many screenings, and whether it was held since the last trial.
    best: f32,
    measured: u16,
    is_fresh: bool,
    /// Whether the held delta itself is being screened, since the learner went back to it.
    is_again: bool,
    /// Whether the application lets the learner explore.
    may_learn: bool,
    /// Changes of what is to be kept, that which was written last, and whether one is not kept yet.
    revision: u32,
    written: u32,
    is_due: bool,
    blocks: u32,
    last: (f32, f32),
}

impl<'a, M: AsRef<[u32]> + AsMut<[u32]>> Session<'a, M> {
    /// A session that learns, with the factory's weights deployed. `seed` is that of the guard's orders: another for every
    /// robot.
    pub fn new(learner: Learner<'a, M>, config: Config, seed: u64) -> Result<Self, SessionError> {
        config.check()?;
        let guard = Guard::new(config.guard, seed).map_err(SessionError::Guard)?;
        Ok(Self {
            learner,
            guard,
            config,
            stage: Stage::Reference,
            open: None,
            steps: 0,
            sum: 0.0,
            total: 0.0,
            screened: Mean::default(),
            tried: [Mean::default(); 2],
            screenings: 0,
            stale: 0,
            in_all: 0,
            reference: 0.0,
            best: 0.0,
            measured: 0,
            is_fresh: false,
            is_again: false,
            may_learn: true,
            revision: 0,
            written: u32::MAX,
            is_due: false,
            blocks: 0,
            last: (0.0, 0.0),
        })
    }

    /// The learner.
    pub fn learner(&self) -> &Learner<'a, M> {
        &self.learner
    }

    /// What the deployed policy, or the candidate, would do, as [`Learner::act_kept`] and [`Learner::act`] say; nothing
    /// that is learned or decided depends on it.
    pub fn ask<R: Rng + ?Sized>(&mut self, whom: Player, observation: &[f32], rng: &mut R, action: &mut [f32]) -> bool {
        match whom {
            Player::Candidate => self.learner.act(observation, rng, action),
            Player::Factory | Player::Incumbent => self.learner.act_kept(observation, rng, action),
        }
    }

    /// The guard.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Where the session is.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Whose weights decide next.
    pub fn player(&self) -> Player {
        match self.stage {
            Stage::Work | Stage::Trial | Stage::Promoted => self.guard.player(),
            Stage::Reference | Stage::Ready => self.guard.deployed(),
            Stage::Screening => Player::Candidate,
        }
    }

    /// Whether the next step is the first of a block: the time to start an episode, where the task has episodes.
    pub fn at_block_start(&self) -> bool {
        self.steps == 0
    }

    /// What there is to tell.
    pub fn report(&self) -> Report {
        Report {
            stage: self.stage,
            player: self.player(),
            blocks: self.blocks,
            block_return: self.last.0,
            block_metric: self.last.1,
            reference: self.reference,
            best: self.best,
            learner: self.learner.report(),
            updates: self.learner.updates(),
            late: self.learner.late(),
            resets: self.learner.resets(),
            refused: self.learner.refused(),
            guard: self.guard.report(),
        }
    }

    /// Lets the learner explore, or stops it: then the deployed weights work, and a trial under way is given up. A promoted
    /// candidate plays on, and is deployed when it is saved.
    pub fn learn(&mut self, on: bool) {
        self.may_learn = on;
        match (on, self.stage) {
            (true, Stage::Work) => self.measure_deployed(),
            (true, _) | (false, Stage::Work | Stage::Promoted) => {}
            (false, _) => {
                self.guard.abandon();
                self.stop();
            }
        }
    }

    /// The deployed weights work from a block's start.
    fn stop(&mut self) {
        self.cut();
        self.guard.restart_block();
        self.stage = Stage::Work;
        self.start_block();
    }

    /// Does the next piece of the learner's update; `false` when there is none under way.
    pub fn slice(&mut self) -> bool {
        self.learner.slice()
    }

    /// Does the rest of the learner's update.
    pub fn finish(&mut self) {
        self.learner.finish();
    }

    /// Does pieces of the update as long as one more, which takes at most `longest` ticks, ends by `deadline`; returns how
    /// many were done. No more than `limit`, so that a clock that stands still does not hold the loop.
    pub fn work<C: Chip + ?Sized>(&mut self, chip: &mut C, deadline: u32, longest: u32, limit: u32) -> u32 {
        for done in 0..limit {
            // Ticks wrap: what is more than half of them ahead is past.
            let left = deadline.wrapping_sub(chip.now());
            if left < longest || left > u32::MAX / 2 || !self.slice() {
                return done;
            }
        }
        limit
    }

    /// Decides by the weights whose turn it is. `observation` and `action` are in the plant's units; `factory` decides by
    /// the factory's weights.
    pub fn decide<R: Rng + ?Sized, E: From<PolicyError>>(
        &mut self,
        observation: &[f32],
        rng: &mut R,
        action: &mut [f32],
        factory: impl FnOnce(&mut R, &mut [f32]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.close(After::Next);
        if self.learns() {
            self.learner.pulse();
        }
        let decided = match self.player() {
            Player::Factory => factory(rng, action).map(|()| true).inspect_err(|_| self.learner.cut()),
            Player::Incumbent => Ok(self.learner.act_kept(observation, rng, action)),
            Player::Candidate if self.stage == Stage::Screening => Ok(self.learner.explore(observation, rng, action)),
            Player::Candidate => Ok(self.learner.act(observation, rng, action)),
        };
        if !decided? {
            self.learner.cut();
            let channel = observation.iter().position(|o| !o.is_finite()).unwrap_or(0);
            return Err(PolicyError::Observation { channel }.into());
        }
        self.learner.open(observation);
        self.open = Some((0, 0.0));
        Ok(())
    }

    /// The transition under way is over. A decision that came to nothing leaves the one before it without a successor.
    fn close(&mut self, after: After) {
        match self.open.take() {
            Some((1.., reward)) if self.learns() => self.learner.close(reward, after),
            Some(_) => self.learner.cut(),
            None => {}
        }
    }

    fn learns(&self) -> bool {
        matches!(self.stage, Stage::Reference | Stage::Screening)
    }

    /// The next observation does not follow from the last: the robot was moved, an episode was broken off.
    pub fn cut(&mut self) {
        self.close(After::Unknown);
    }

    /// The episode is over for good, as where the robot fell: nothing follows, and the steps that the block lacks count as
    /// zero.
    pub fn terminated(&mut self) -> Option<Event> {
        self.close(After::Terminal);
        if self.steps == 0 {
            return None;
        }
        if matches!(self.stage, Stage::Work | Stage::Trial | Stage::Promoted) {
            let verdict = self.guard.end_block();
            return self.end_block(verdict);
        }
        self.end_block(None)
    }

    /// One step: how it was played, what was commanded, the learner's reward for it and the guard's metric of it.
    ///
    /// Call it after the step's command, once a control step or once a decision, but always the same.
    pub fn after(&mut self, passage: Passage, action: &[f32], reward: f32, metric: f32) -> Option<Event> {
        if matches!(passage, Passage::Fault | Passage::Rest) {
            self.close(After::Unknown);
        } else {
            self.total += reward;
            if let Some((steps, sum)) = &mut self.open {
                *steps = steps.saturating_add(1);
                *sum += reward;
                self.learner.done(action, *steps);
            }
        }
        if matches!(self.stage, Stage::Work | Stage::Trial | Stage::Promoted) {
            let verdict = self.guard.step(&mut |_: &[f32], _: &[f32]| metric, &[], action, passage);
            self.steps = self.steps.saturating_add(u32::from(matches!(passage, Passage::Free | Passage::Corrected)));
            // A fault ends the guard's block before its last step.
            let over = self.guard.at_block_start() && self.steps > 0;
            return if over || verdict.is_some() { self.end_block(verdict) } else { None };
        }
        match passage {
            Passage::Rest => None,
            // A fault ends the block, and what is missing counts as zero.
            Passage::Fault if self.steps == 0 => None,
            Passage::Fault => self.end_block(None),
            Passage::Free | Passage::Corrected => {
                let Config { guard: guard::Config { settle, block, correction, .. }, .. } = self.config;
                if self.steps >= u32::from(settle) {
                    let worth = if passage == Passage::Free { 1.0 } else { correction };
                    let metric = if metric >= 0.0 { math::clip(metric, 1.0) } else { 0.0 };
                    self.sum += math::flush(metric * worth);
                }
                self.steps += 1;
                if self.steps < u32::from(settle) + u32::from(block) { None } else { self.end_block(None) }
            }
        }
    }

    /// The end of a block of any stage.
    fn end_block(&mut self, verdict: Option<Verdict>) -> Option<Event> {
        let by_guard = matches!(self.stage, Stage::Work | Stage::Trial | Stage::Promoted);
        let mean = match verdict {
            // The block was not played to its end, and the guard has no mean of it.
            Some(Verdict::Fault) => 0.0,
            _ if by_guard => self.guard.last_mean(),
            _ => self.sum / f32::from(self.config.guard.block),
        };
        let player = if by_guard { self.guard.last_player() } else { self.player() };
        self.blocks = self.blocks.saturating_add(1);
        self.last = (self.total, mean);
        self.start_block();
        if self.stage == Stage::Trial && verdict != Some(Verdict::Fault) {
            let [deployed, candidate] = &mut self.tried;
            if player == Player::Candidate {
                candidate.add(mean);
            } else if player == self.guard.deployed() {
                deployed.add(mean);
            }
        }
        if let Some(verdict) = verdict {
            return Some(self.judged(verdict));
        }
        match self.stage {
            Stage::Reference | Stage::Screening => {
                self.screened.add(mean);
                if self.screened.blocks < self.config.screening { Some(Event::Block) } else { Some(self.screened()) }
            }
            Stage::Work | Stage::Ready | Stage::Trial | Stage::Promoted => Some(Event::Block),
        }
    }

    /// The end of a screening.
    fn screened(&mut self) -> Event {
        let mean = core::mem::take(&mut self.screened).get().unwrap_or(0.0);
        if self.stage == Stage::Reference {
            self.reference = mean;
            self.begin_screenings();
            return Event::Screened;
        }
        self.in_all = self.in_all.saturating_add(1);
        self.screenings = self.screenings.saturating_add(1);
        if core::mem::take(&mut self.is_again) {
            // The held delta once more: the mean of all its screenings, since the larger of them would be luck.
            self.measured = self.measured.saturating_add(1);
            self.best += (mean - self.best) / f32::from(self.measured);
            self.stale = self.stale.saturating_add(1);
        } else if mean > self.best {
            (self.best, self.measured, self.stale, self.is_fresh) = (mean, 1, 0, true);
            self.learner.hold();
        } else {
            self.stale = self.stale.saturating_add(1);
            if mean < self.best - self.config.slack {
                self.learner.go_back();
                self.is_again = true;
            }
        }
        let due = self.stale >= self.config.patience && self.in_all >= u32::from(self.config.first);
        // A guard that has no error left to spend begins no trial.
        let may_try = due && self.is_fresh && self.guard.clone().begin().is_ok();
        if may_try && self.best >= self.reference + self.config.gain {
            self.learner.recall();
            self.stage = Stage::Ready;
            self.changed();
            return Event::Ready;
        }
        if self.config.refresh > 0 && self.screenings >= self.config.refresh {
            self.measure_deployed();
        } else {
            self.learner.promote();
        }
        Event::Screened
    }

    /// The guard's verdict.
    fn judged(&mut self, verdict: Verdict) -> Event {
        let [deployed, candidate] = core::mem::take(&mut self.tried).map(|mean| mean.get());
        let stage = self.stage;
        if let Some(mean) = deployed {
            self.reference = mean;
        }
        match verdict {
            Verdict::Better => {
                // The mean of the trial, not of the screening, which was chosen because it was high.
                self.best = candidate.unwrap_or(self.best);
                self.stage = Stage::Promoted;
                self.changed();
                return Event::Verdict(verdict);
            }
            Verdict::Undecided => (self.best, self.measured) = (candidate.unwrap_or(self.best), u16::MAX),
            // The incumbent itself is gone.
            Verdict::Outdated => {
                self.learner.forget();
                self.changed();
            }
            Verdict::None | Verdict::Worse | Verdict::Fault | Verdict::Abandoned => {
                self.learner.roll_back();
                if stage == Stage::Promoted {
                    self.changed();
                }
            }
        }
        match (stage, verdict) {
            (Stage::Trial | Stage::Promoted, _) if !self.may_learn => self.stop(),
            (Stage::Trial, Verdict::Undecided) => {
                (self.stage, self.stale) = (Stage::Screening, 0);
                self.learner.promote();
            }
            (Stage::Trial | Stage::Promoted, Verdict::Outdated) => self.measure_deployed(),
            (Stage::Trial | Stage::Promoted, _) => self.begin_screenings(),
            _ => {}
        }
        Event::Verdict(verdict)
    }

    /// Screenings from the deployed weights on, whose mean metric is known.
    fn begin_screenings(&mut self) {
        self.stage = Stage::Screening;
        (self.best, self.measured, self.is_fresh, self.is_again) = (self.reference, u16::MAX, false, false);
        (self.screenings, self.stale) = (0, 0);
        self.learner.hold_kept();
        self.learner.promote();
    }

    /// What is to be kept has changed.
    fn changed(&mut self) {
        self.revision = self.revision.wrapping_add(1);
        self.is_due = true;
    }

    fn measure_deployed(&mut self) {
        self.cut();
        self.guard.restart_block();
        self.stage = Stage::Reference;
        self.screened = Mean::default();
        self.start_block();
    }

    fn start_block(&mut self) {
        (self.steps, self.sum, self.total) = (0, 0.0, 0.0);
    }
}
