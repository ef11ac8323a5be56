//! The guard: which weights drive, decided by playing and not by what the learner believes.
//!
//! A learner may be given a wrong reward. So a [`TaskMetric`], computed from sensors and commands, scores every step in
//! `[0, 1]`, weights play against each other in *blocks* of steps, and a sequential test decides. Factory weights stay in
//! flash, untouched; the guard holds no weights at all, it says who plays.
//!
//! ```text
//!                begin                       better than factory and incumbent
//!   Observing ----------> Trial ------------------------------------------------> Promoted
//!       ^                   ^  |  worse, undecided, fault, abandoned                  |
//!       |             begin |  v                                                      |
//!       |                RolledBack <----------- fault, abandoned --------------------+
//!       +------------------------------------------------------------------- commit --+
//! ```
//!
//! **A trial** is a sequence of rounds. In a round each of the factory's weights, the incumbent's, if others were promoted
//! before, and the candidate's plays one block; the order is drawn anew by a seeded generator. The round's two differences
//! `d` of the candidate's mean metric, to the factory's and to the incumbent's, are bet on (`guard/bets.rs`).
//!
//! | error | hypothesis | it is rejected wrongly |
//! |---|---|---|
//! | promotion | the mean of `d` is at most [`margin`](Config::margin), to the factory or to the incumbent | ever in the life of the robot with a probability of at most [`alpha`](Config::alpha): the k-th candidate may spend `alpha / (k (k + 1))`, and these sum to `alpha` |
//! | stop for harm | the mean of `d` to the incumbent is at least 0 | with at most [`beta`](Config::beta) a candidate |
//! | return to the factory's | the incumbent's mean is at least the factory's | on average once in [`watch`](Config::watch) rounds or more rarely |
//!
//! After [`rounds`](Config::rounds) without a decision the incumbent stays. Since every candidate is also measured against
//! the factory, small losses cannot add up over promotions.
//!
//! **Assumed**: given all that was before a round, the mean of `d` over the order that is drawn is within the hypothesis.
//! The order being random, this allows any drift of plant, battery or surface, any dependence between the steps of a
//! block, and any dependence between rounds. It does not allow a player to spoil the next one's block: blocks begin with
//! [`settle`](Config::settle) steps that are not measured, in which a fault is still the candidate's if it played before.
//! It says nothing of a candidate whose gain comes and goes, nor of returns that the metric does not see.
//!
//! **The safety gate** stands between all players and the motors, so what explores is within its limits and the candidate
//! cannot jump when it takes over: the gate remembers the last command. The metric gets the command that left the gate;
//! [`Passage::Corrected`] says that it was not the policy's wish, and [`Config::correction`] what such a step is worth.
//! A fault that the supervisor latches while the candidate plays ends it; while another plays the rest of its block
//! counts as zero.
//!
//! No panics, no allocation, additions, multiplications and divisions in `f32`: the same bits everywhere. A step is the
//! metric and one addition, a round 70 to 150 floating-point operations. [`Guard::BYTES`] keep it over a reset.

mod bets;
mod bytes;
mod config;
#[cfg(test)]
mod tests;

pub use bytes::Report;
pub use config::{Config, GuardError};

use crate::control::{Command, State};
use crate::math;
use bets::Bets;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::SplitMix64;

/// What the robot is for, as a number that a learner cannot touch.
pub trait TaskMetric {
    /// How well this step went, in `[0, 1]`, by the observation and the command that followed it, in the plant's units.
    ///
    /// A value that is not finite counts as zero and one outside as the nearer end; both are counted. Use the whole range:
    /// evidence comes from differences of means, and the share of time upright tells more than a squared error over its
    /// largest conceivable value.
    fn measure(&mut self, observation: &[f32], action: &[f32]) -> f32;
}

impl<F: FnMut(&[f32], &[f32]) -> f32> TaskMetric for F {
    fn measure(&mut self, observation: &[f32], action: &[f32]) -> f32 {
        self(observation, action)
    }
}

/// Whose weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Player {
    /// The factory's, in flash.
    Factory = 0,
    /// The last ones that were promoted.
    Incumbent = 1,
    /// The learner's that are on trial; they must not change while they are.
    Candidate = 2,
}

/// Where the guard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Phase {
    /// The deployed weights play, now and then against the factory's.
    Observing = 0,
    /// A candidate is on trial.
    Trial = 1,
    /// The candidate has won and plays; its weights are to be kept as the incumbent's.
    Promoted = 2,
    /// As observing, after a verdict against a candidate or an incumbent.
    RolledBack = 3,
}

/// How the last trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u8)]
pub enum Verdict {
    /// There is none yet.
    None = 0,
    /// The candidate is better than factory and incumbent: promoted.
    Better = 1,
    /// The candidate is worse than the incumbent.
    Worse = 2,
    /// The rounds are used up.
    Undecided = 3,
    /// A fault was latched while the candidate played, or right after.
    Fault = 4,
    /// The program took the candidate, or the incumbent, away.
    Abandoned = 5,
    /// The incumbent has become worse than the factory's weights, which are deployed again.
    Outdated = 6,
}

/// What became of the policy's wish in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Passage {
    /// It is the command.
    Free,
    /// The gate held it back.
    Corrected,
    /// A fault or the stop is latched: nobody plays.
    Fault,
    /// The robot rests: nobody plays, and the block goes on when it is armed again.
    Rest,
}

impl Passage {
    /// That of a [`Controller`](crate::control::Controller)'s step.
    pub fn of<const ACT: usize>(command: &Command<ACT>) -> Self {
        match command.status.state {
            State::Running | State::Holding if command.corrected => Self::Corrected,
            State::Running | State::Holding => Self::Free,
            State::Fault | State::Stopped => Self::Fault,
            State::Idle => Self::Rest,
        }
    }
}

/// The state machine; see the [module](self).
///
/// ```
/// use flowlet::finetune::guard::{Config, Guard, Passage, Phase, Player, Verdict};
///
/// // The pole is upright where cos alpha, the second channel, is above 0.9.
/// let mut upright = |observation: &[f32], _: &[f32]| if observation[1] > 0.9 { 1.0 } else { 0.0 };
/// let mut guard = Guard::new(Config::new(500), 1)?;
/// guard.begin()?;
/// let verdict = loop {
///     // In earnest: the weights of this player decide, and the observation is the sensors'.
///     let cosine = if guard.player() == Player::Candidate { 0.99 } else { 0.5 };
///     if let Some(verdict) = guard.step(&mut upright, &[0.0, cosine], &[1.5], Passage::Free) {
///         break verdict;
///     }
/// };
/// assert_eq!((verdict, guard.phase()), (Verdict::Better, Phase::Promoted));
/// // In earnest: the candidate's weights and `guard.to_bytes()` go to flash, as one record.
/// guard.commit()?;
/// assert_eq!(guard.player(), Player::Incumbent);
/// # Ok::<(), flowlet::finetune::guard::GuardError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Guard {
    config: Config,
    orders: SplitMix64,
    phase: Phase,
    verdict: Verdict,
    /// Whether there is an incumbent.
    promoted: bool,
    /// Whether this is a round of incumbent and factory.
    auditing: bool,
    /// Whether a fault is latched.
    down: bool,
    /// The round's order, an index of [`ORDERS`], and who of it plays.
    order: u8,
    slot: u8,
    /// Who played the block before this one.
    before: Player,
    /// Steps of this block, and the sum of their metrics.
    steps: u32,
    sum: f32,
    /// Mean metric of each player's last block.
    means: [f32; 3],
    /// Blocks since the last audit.
    observed: u16,
    rounds: u16,
    candidates: u16,
    promotions: u16,
    /// Metrics outside `[0, 1]`, and faults.
    odd: u16,
    faults: u16,
    over_factory: Bets,
    over_incumbent: Bets,
    harm: Bets,
    watch: Bets,
}

/// The orders of a round. Whoever is not there is left out, which leaves all orders of the others equally likely.
const ORDERS: [[Player; 3]; 6] = {
    use Player::{Candidate, Factory, Incumbent};
    [
        [Factory, Incumbent, Candidate],
        [Factory, Candidate, Incumbent],
        [Incumbent, Factory, Candidate],
        [Incumbent, Candidate, Factory],
        [Candidate, Factory, Incumbent],
        [Candidate, Incumbent, Factory],
    ]
};

impl Guard {
    /// The factory's weights are deployed. `seed` is that of the orders: another for every robot.
    pub fn new(config: Config, seed: u64) -> Result<Self, GuardError> {
        config.check()?;
        Ok(Self {
            config,
            orders: SplitMix64::seed_from_u64(seed),
            phase: Phase::Observing,
            verdict: Verdict::None,
            promoted: false,
            auditing: false,
            down: false,
            order: 0,
            slot: 0,
            before: Player::Factory,
            steps: 0,
            sum: 0.0,
            means: [0.0; 3],
            observed: 0,
            rounds: 0,
            candidates: 0,
            promotions: 0,
            odd: 0,
            faults: 0,
            over_factory: Bets::new(),
            over_incumbent: Bets::new(),
            harm: Bets::new(),
            watch: Bets::new(),
        })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the guard is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// How the last trial ended.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Whose weights decide from now on. Changes only where a block ends, and with the calls that say so.
    pub fn player(&self) -> Player {
        match (self.phase, self.turn()) {
            (Phase::Promoted, _) => Player::Candidate,
            (_, Some(player)) if self.in_round() => player,
            _ => self.deployed(),
        }
    }

    /// Whose weights are kept: the incumbent's, or the factory's.
    pub fn deployed(&self) -> Player {
        if self.promoted { Player::Incumbent } else { Player::Factory }
    }

    /// Whether the next step is the first of a block: the time to start an episode, where the task has episodes.
    pub fn at_block_start(&self) -> bool {
        self.steps == 0
    }

    /// Begins a block anew, with whoever is deployed; an audit under way is given up. For when it was not stepped for a
    /// while, outside of trials.
    pub fn restart_block(&mut self) {
        if !matches!(self.phase, Phase::Trial | Phase::Promoted) {
            (self.auditing, self.down, self.before) = (false, false, self.deployed());
            self.start_block();
        }
    }

    /// Who played the last block that ended.
    pub fn last_player(&self) -> Player {
        self.before
    }

    /// Its mean metric.
    pub fn last_mean(&self) -> f32 {
        let [factory, incumbent, candidate] = self.means;
        match self.before {
            Player::Factory => factory,
            Player::Incumbent => incumbent,
            Player::Candidate => candidate,
        }
    }

    /// Puts a candidate on trial, with the first block of the first round; the block or audit under way is dropped.
    ///
    /// Each one costs some of the error that may be made in the robot's life, so that the next needs a little more evidence:
    /// begin with a candidate that the learner believes in, and save the state then, for the count must outlive a reset.
    pub fn begin(&mut self) -> Result<(), GuardError> {
        if matches!(self.phase, Phase::Trial | Phase::Promoted) {
            return Err(GuardError::Busy);
        }
        self.candidates = self.candidates.checked_add(1).ok_or(GuardError::Spent)?;
        self.before = self.player();
        (self.phase, self.verdict) = (Phase::Trial, Verdict::None);
        (self.over_factory, self.over_incumbent, self.harm) = (Bets::new(), Bets::new(), Bets::new());
        self.auditing = false;
        self.rounds = 0;
        self.start_round();
        Ok(())
    }

    /// The promoted candidate's weights are the incumbent's from now on.
    pub fn commit(&mut self) -> Result<(), GuardError> {
        if self.phase != Phase::Promoted {
            return Err(GuardError::NotPromoted);
        }
        self.phase = Phase::Observing;
        self.promoted = true;
        self.promotions = self.promotions.saturating_add(1);
        self.watch = Bets::new();
        self.observed = 0;
        Ok(())
    }

    /// Takes the candidate away, on trial or promoted: its weights were lost, or a reset may have been its doing.
    pub fn abandon(&mut self) {
        if matches!(self.phase, Phase::Trial | Phase::Promoted) {
            self.roll_back(Verdict::Abandoned);
        }
    }

    /// Takes candidate and incumbent away: the factory's weights are deployed.
    pub fn revert(&mut self) {
        self.promoted = false;
        self.roll_back(Verdict::Abandoned);
    }

    /// One step of the player: what was observed, what was commanded, and how. A verdict where one was reached.
    ///
    /// Call it once a control step or once a decision, but always the same.
    pub fn step<M: TaskMetric + ?Sized>(
        &mut self,
        metric: &mut M,
        observation: &[f32],
        action: &[f32],
        passage: Passage,
    ) -> Option<Verdict> {
        match passage {
            Passage::Free | Passage::Corrected => {
                let worth = if passage == Passage::Free { 1.0 } else { self.config.correction };
                self.take(metric.measure(observation, action), worth)
            }
            Passage::Fault => self.fault(),
            Passage::Rest => None,
        }
    }

    /// Ends the block before its last step, as where an episode ends: the steps that are missing count as zero.
    ///
    /// Does nothing at the start of a block.
    pub fn end_block(&mut self) -> Option<Verdict> {
        if self.steps > 0 { self.close() } else { None }
    }

    /// Takes in the metric of a step.
    fn take(&mut self, value: f32, worth: f32) -> Option<Verdict> {
        self.down = false;
        if self.steps >= u32::from(self.config.settle) {
            let lawful = if !value.is_finite() || value < 0.0 {
                0.0
            } else if value > 1.0 {
                1.0
            } else {
                value
            };
            if lawful != value {
                self.odd = self.odd.saturating_add(1);
            }
            self.sum += math::flush(lawful * worth);
        }
        self.steps += 1;
        if self.steps >= self.block_steps() { self.close() } else { None }
    }

    fn block_steps(&self) -> u32 {
        u32::from(self.config.settle) + u32::from(self.config.block)
    }

    /// A fault or the stop is latched; it counts once until somebody plays again.
    fn fault(&mut self) -> Option<Verdict> {
        if self.down {
            return None;
        }
        self.down = true;
        self.faults = self.faults.saturating_add(1);
        let settling = self.steps < u32::from(self.config.settle.max(1));
        let inherited = self.phase == Phase::Trial && settling && self.before == Player::Candidate;
        if self.player() == Player::Candidate || inherited {
            return Some(self.roll_back(Verdict::Fault));
        }
        self.close()
    }

    /// Ends a block.
    fn close(&mut self) -> Option<Verdict> {
        let player = self.player();
        // Not above 1: partial sums of `n` numbers up to 1 are rounded to at most `n`, which is exact.
        let mean = self.sum / f32::from(self.config.block);
        for (place, other) in self.means.iter_mut().zip([Player::Factory, Player::Incumbent, Player::Candidate]) {
            if player == other {
                *place = mean;
            }
        }
        self.before = player;
        self.start_block();
        if self.in_round() {
            if self.next_turn() {
                return None;
            }
            return if self.auditing { self.audit() } else { self.judge() };
        }
        if self.promoted && self.phase != Phase::Promoted && self.config.audit > 0 {
            self.observed = self.observed.saturating_add(1);
            if self.observed >= self.config.audit {
                self.observed = 0;
                self.auditing = true;
                self.start_round();
            }
        }
        None
    }

    /// The end of a trial's round.
    fn judge(&mut self) -> Option<Verdict> {
        let Config { rounds, alpha, beta, margin, .. } = self.config;
        let [factory, incumbent, candidate] = self.means;
        let rival = if self.promoted { incumbent } else { factory };
        self.rounds = self.rounds.saturating_add(1);
        self.over_factory.bet(candidate - factory, margin);
        self.over_incumbent.bet(candidate - rival, margin);
        self.harm.bet(rival - candidate, 0.0);
        if self.harm.evidence() * beta >= 1.0 {
            return Some(self.roll_back(Verdict::Worse));
        }
        let enough = |bets: &Bets| bets.evidence() * alpha >= self.spending();
        if enough(&self.over_factory) && enough(&self.over_incumbent) {
            (self.phase, self.verdict) = (Phase::Promoted, Verdict::Better);
            return Some(Verdict::Better);
        }
        if self.promoted {
            self.watch.watch(factory - incumbent);
            if self.outdated() {
                return Some(self.roll_back(Verdict::Outdated));
            }
        }
        if self.rounds >= rounds {
            return Some(self.roll_back(Verdict::Undecided));
        }
        self.start_round();
        None
    }

    /// The end of a round of incumbent and factory.
    fn audit(&mut self) -> Option<Verdict> {
        let [factory, incumbent, _] = self.means;
        self.auditing = false;
        self.watch.watch(factory - incumbent);
        self.outdated().then(|| self.roll_back(Verdict::Outdated))
    }

    /// Takes an incumbent away that has become worse than the factory's weights; whether it has.
    fn outdated(&mut self) -> bool {
        let outdated = self.watch.evidence() >= f32::from(self.config.watch);
        self.promoted &= !outdated;
        outdated
    }

    /// `k (k + 1)` of the k-th candidate: the sum of the reciprocals is 1.
    fn spending(&self) -> f32 {
        let k = f32::from(self.candidates);
        // 2^-20 more than exact, for the roundings here and in the product with alpha.
        k * (k + 1.0) * (1.0 + 1.0 / (1 << 20) as f32)
    }

    fn roll_back(&mut self, verdict: Verdict) -> Verdict {
        (self.phase, self.verdict) = (Phase::RolledBack, verdict);
        self.auditing = false;
        self.observed = 0;
        self.start_block();
        verdict
    }

    fn start_round(&mut self) {
        // Six orders of 2^32 words: none is likelier than another by more than 2^-29 of itself.
        self.order = ((u64::from(self.orders.next_u32()) * ORDERS.len() as u64) >> 32) as u8;
        self.slot = 0;
        self.start_block();
        if self.turn().is_some_and(|player| !self.plays(player)) {
            self.next_turn();
        }
    }

    fn start_block(&mut self) {
        (self.steps, self.sum) = (0, 0.0);
    }

    fn in_round(&self) -> bool {
        self.phase == Phase::Trial || self.auditing
    }

    /// Whoever stands at this place of the round's order.
    fn turn(&self) -> Option<Player> {
        ORDERS.get(usize::from(self.order))?.get(usize::from(self.slot)).copied()
    }

    /// The next one of the round; whether there is one.
    fn next_turn(&mut self) -> bool {
        loop {
            self.slot = self.slot.saturating_add(1);
            match self.turn() {
                Some(player) if !self.plays(player) => {}
                turn => return turn.is_some(),
            }
        }
    }

    /// Whether there is such a player in this round.
    fn plays(&self, player: Player) -> bool {
        match player {
            Player::Factory => true,
            Player::Incumbent => self.promoted,
            Player::Candidate => self.phase == Phase::Trial,
        }
    }
}
