//! The learner: replay, twin critic and flow actor in one block of memory, one update cut into slices of bounded work.
//!
//! An update draws a batch, computes its temporal-difference targets with the critics' slow deltas, takes an optimiser's
//! step with each critic, moves the slow deltas, makes the actor's targets by Reverse Flow Matching and takes a step with it;
//! last it publishes: an average follows the
//! delta that learns, and acts from the next [`Learner::promote`] on. [`Learner::slice`] does one layer of one row, or a
//! chunk of an optimiser's step, and returns; what an update computes does not depend on what happens between its slices,
//! for its batch is copied at its start and the average changes after its last slice alone.
//!
//! No panics, no allocation, the same bits everywhere. A number that is not finite, or a value beyond what rewards can add
//! up to, sets every delta back to the factory's ([`Learner::resets`] counts); the policy goes on.

use super::actor;
use super::config::{Config, LearnerError};
use super::memory::Layout;
use super::optimiser::{Clock, Step};
use super::replay::{After, Cursor, Replay, Ring};
use super::trained::{Network, Perceptron};
use crate::flow::{Plan, Source};
use crate::math;
use crate::net::Trunk;
use crate::policy::{ActionRange, Artefact, Normalizer};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// What the last update reported.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Report {
    /// Mean absolute temporal-difference error.
    pub td_error: f32,
    /// Mean value of the batch.
    pub value: f32,
    /// Mean effective number of candidates.
    pub effective: f32,
}

/// What the next slice does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    /// A layer of the policy at the row's next observation.
    NextAction,
    /// A layer of a slow critic there.
    NextValue,
    /// A layer of a critic at the row, forward.
    Fit,
    /// The same backward.
    FitBack,
    /// A part of the gradient's norm.
    Norm,
    /// A part of the optimiser's step.
    Move,
    /// A part of the slow critics.
    Slow,
    /// A layer of the policy at the actor's row.
    Action,
    /// A layer of a critic at a candidate.
    Candidate,
    /// The actor's layer forward.
    Regress,
    /// And backward.
    RegressBack,
    ActorNorm,
    ActorMove,
    /// The acting delta.
    Publish,
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Counter {
    stage: Stage,
    row: usize,
    /// Step of the flow or candidate.
    turn: usize,
    critic: usize,
    layer: usize,
    /// Of a chunked pass.
    at: usize,
    norm: f32,
    step: Option<Step>,
    /// Of the first slow critic.
    value: f32,
}

/// Numbers in a slice of a pass over a delta.
const CHUNK: usize = 256;

/// A learner over words `M`: an array on a device, a vector on a PC.
#[derive(Debug)]
pub struct Learner<'a, M> {
    config: Config,
    layout: Layout,
    ring: Ring,
    actor: Network<'a>,
    critics: [Network<'a>; 2],
    frequencies: &'a [f32],
    plan: Plan,
    normalizer: Normalizer<'a>,
    range: ActionRange<'a>,
    value_limit: f32,
    cursor: Cursor,
    rng: Xoshiro128PlusPlus,
    clocks: [Clock; 3],
    at: Counter,
    decisions: u32,
    recorded: u32,
    updates: u32,
    late: u32,
    resets: u32,
    refused: u32,
    sums: Report,
    report: Report,
    memory: M,
}

impl<const WORDS: usize> Learner<'_, [u32; WORDS]> {
    /// All the memory that the learner takes, bytes: what [`Fits`](super::Fits) is asked about.
    pub const RAM_BYTES: usize = size_of::<Self>();
}

impl<'a, M: AsMut<[u32]>> Learner<'a, M> {
    /// A learner of a policy that carries two critics.
    pub fn new(artefact: &Artefact<'a>, config: Config, seed: u64, memory: M) -> Result<Self, LearnerError> {
        let velocity = artefact.velocity().as_f32().ok_or(LearnerError::NumberFormat)?;
        let mut critics = artefact.critics();
        let (Some(first), Some(second)) = (critics.next(), critics.next()) else {
            return Err(LearnerError::Critics);
        };
        let shape = velocity.shape();
        if shape.trunk != Trunk::Plain {
            return Err(LearnerError::Trunk);
        }
        // A flow of several steps would need the regression along its path, which this learner does not do.
        if artefact.plan().steps != 1 || shape.frequencies != 0 || artefact.source() != Source::Gaussian {
            return Err(LearnerError::Steps);
        }
        config.check()?;
        let layout = Layout::new(shape, first.shape(), &config);
        let network = |params, shape, trained| Network { shape, trained, factory: params };
        let critic = |params| network(params, Perceptron::critic(first.shape()), config.critic);
        let ring = Ring {
            capacity: config.transitions,
            obs: layout.obs,
            act: layout.act,
            storage: config.storage,
            obs_limit: artefact.normalizer().clip,
            reward_limit: config.reward_limit,
        };
        let mut learner = Self {
            config,
            layout,
            ring,
            actor: network(velocity.params(), Perceptron::velocity(shape), config.actor),
            critics: [critic(first.params()), critic(second.params())],
            frequencies: velocity.frequencies(),
            plan: *artefact.plan(),
            normalizer: *artefact.normalizer(),
            range: *artefact.range(),
            value_limit: config.reward_limit / (1.0 - config.discount),
            cursor: Cursor::default(),
            rng: Xoshiro128PlusPlus::seed_from_u64(seed),
            clocks: [Clock::START; 3],
            at: Counter::IDLE,
            decisions: 0,
            recorded: 0,
            updates: 0,
            late: 0,
            resets: 0,
            refused: 0,
            sums: Report::default(),
            report: Report::default(),
            memory,
        };
        let found = learner.memory.as_mut().len();
        if found < layout.words() {
            return Err(LearnerError::Memory { expected: layout.words(), found });
        }
        learner.start();
        Ok(learner)
    }

    /// Every delta as at the start; the ring keeps its transitions.
    fn start(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        let rng = &mut self.rng;
        self.actor.start(p.actor, || rng.next_u32());
        copy(p.acting, p.actor);
        copy(p.kept, p.actor);
        copy(p.average, p.actor);
        p.actor_moments.fill(0);
        for (network, critic) in self.critics.iter().zip(p.critics) {
            network.start(critic.delta, || rng.next_u32());
            copy(critic.slow, critic.delta);
            critic.moments.fill(0);
        }
        p.gradient.fill(0.0);
        self.clocks = [Clock::START; 3];
        self.at = Counter::IDLE;
    }

    /// Finished updates.
    pub fn updates(&self) -> u32 {
        self.updates
    }

    /// Updates that were not done when the next was due.
    pub fn late(&self) -> u32 {
        self.late
    }

    /// How often divergence has set the deltas back.
    pub fn resets(&self) -> u32 {
        self.resets
    }

    /// Transitions that were refused because a number in them was not finite.
    pub fn refused(&self) -> u32 {
        self.refused
    }

    /// What the last update reported.
    pub fn report(&self) -> Report {
        self.report
    }

    /// Whether an update has slices left.
    pub fn is_busy(&self) -> bool {
        !matches!(self.at.stage, Stage::Idle | Stage::Publish)
    }

    /// Entries in the ring.
    pub fn transitions(&self) -> usize {
        self.cursor.len
    }

    /// The delta that acts.
    pub fn acting(&mut self) -> &[f32] {
        self.layout.carve(self.memory.as_mut()).acting
    }

    /// The policy that was kept, or the factory's, as the parameters of an artefact: `out` has the length of the factory's.
    pub fn merge(&mut self, out: &mut [f32]) {
        let p = self.layout.carve(self.memory.as_mut());
        self.actor.merge(p.kept, out);
    }

    /// The average of what was learned so far acts from now on, and stays as it is until the next call: a candidate.
    pub fn promote(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.acting, p.average);
    }

    /// Keeps the acting delta as the best so far.
    pub fn keep(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.kept, p.acting);
    }

    /// Acts and learns on from the delta that was kept, or the factory's; the critics stay. An update under way is dropped.
    pub fn roll_back(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.acting, p.kept);
        copy(p.actor, p.kept);
        copy(p.average, p.kept);
        p.actor_moments.fill(0);
        p.gradient.fill(0.0);
        self.clocks[2] = Clock::START;
        self.at = Counter::IDLE;
    }

    /// Takes in what a decision led to. `observation` is that of the decision, in the plant's units; `action` what was
    /// done, in the plant's units; `after` says whether the next call goes on from here.
    pub fn record(&mut self, observation: &[f32], action: &[f32], reward: f32, after: After) {
        let finite = action.iter().chain([&reward]).all(|x| x.is_finite());
        let (obs, act) = (self.layout.obs, self.layout.act);
        let p = self.layout.carve(self.memory.as_mut());
        let mut replay = Replay::new(self.ring, &mut self.cursor, p.ring);
        let (state, rest) = p.act_trace.input.split_at_mut_checked(obs).unwrap_or_default();
        let state_ok = self.normalizer.apply(observation, state).is_ok();
        if !finite || !state_ok || observation.len() != obs || action.len() != act {
            replay.cut();
            self.refused = self.refused.saturating_add(1);
            return;
        }
        let scaled = rest.get_mut(..act).unwrap_or_default();
        let limits = self.range.low.iter().zip(self.range.high);
        for ((scaled, a), (low, high)) in scaled.iter_mut().zip(action).zip(limits) {
            *scaled = math::flush(math::clip(2.0 * (a - low) / (high - low) - 1.0, 1.0));
        }
        // Runs of 16 transitions, of which one in `thinning` is kept.
        let run = self.recorded / 16 % self.config.thinning;
        self.recorded = self.recorded.wrapping_add(1);
        if run == 0 {
            replay.push(state, scaled, reward, after);
        } else if self.recorded % 16 == 1 {
            replay.push(state, scaled, 0.0, After::Unknown);
        }
    }

    /// Decides with the acting delta: draws noise from `rng` and writes an action in the plant's units; `false`, with
    /// the middle of its range, where an observation is not finite.
    pub fn act<R: Rng + ?Sized>(&mut self, observation: &[f32], rng: &mut R, action: &mut [f32]) -> bool {
        self.decide(false, observation, rng, action)
    }

    /// The same with the delta that was kept, or the factory's.
    pub fn act_kept<R: Rng + ?Sized>(&mut self, observation: &[f32], rng: &mut R, action: &mut [f32]) -> bool {
        self.decide(true, observation, rng, action)
    }

    fn decide<R: Rng + ?Sized>(&mut self, kept: bool, observation: &[f32], rng: &mut R, action: &mut [f32]) -> bool {
        let mut p = self.layout.carve(self.memory.as_mut());
        let (delta, latent) = (if kept { &p.kept } else { &p.acting }, p.decided);
        latent.fill(0.0);
        let state = p.act_trace.input.get_mut(..self.layout.obs).unwrap_or_default();
        if self.normalizer.apply(observation, state).is_err() {
            self.range.apply(latent, action);
            return false;
        }
        draw(rng, latent);
        let (inputs, obs) = (self.actor.shape.inputs, self.layout.obs);
        for step in 0..self.plan.steps {
            place(inputs, obs, latent, self.frequencies, self.plan.node_time(step), p.act_trace.input);
            for layer in 0..=self.actor.shape.layers {
                self.actor.forward(layer, delta, &mut p.act_trace);
            }
            advance(&self.plan, latent, p.act_trace.output);
        }
        clip(&self.plan, latent);
        self.range.apply(latent, action);
        true
    }

    /// [`act`](Self::act) with the exploration's noise on the action.
    pub fn explore<R: Rng + ?Sized>(&mut self, observation: &[f32], rng: &mut R, action: &mut [f32]) -> bool {
        let done = self.act(observation, rng, action);
        let limits = self.range.low.iter().zip(self.range.high);
        for (a, (low, high)) in action.iter_mut().zip(limits) {
            let noise = math::box_muller([rng.next_u32(), rng.next_u32()])[0];
            *a = math::flush((*a + 0.5 * (high - low) * self.config.exploration * noise).clamp(*low, *high));
        }
        done
    }

    /// Once a decision: every [`Config::every`] of them the update that is done is published and the next begins, with a
    /// batch drawn now. One that is not done by then goes on, and is counted as late.
    pub fn pulse(&mut self) {
        self.decisions = self.decisions.saturating_add(1);
        if self.decisions < self.config.every {
            return;
        }
        self.decisions = 0;
        match self.at.stage {
            Stage::Idle => {}
            Stage::Publish => self.publish(),
            _ => {
                self.late = self.late.saturating_add(1);
                return;
            }
        }
        if self.cursor.len >= 2 * self.config.batch {
            self.draw_batch();
        }
    }

    fn publish(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        follow(p.average.iter_mut().zip(p.actor.iter()), self.config.acting_rate);
        self.updates = self.updates.saturating_add(1);
        self.report = self.sums;
        self.at = Counter::IDLE;
    }

    /// Copies a batch out of the ring.
    fn draw_batch(&mut self) {
        let (obs, act) = (self.layout.obs, self.layout.act);
        let p = self.layout.carve(self.memory.as_mut());
        let replay = Replay::new(self.ring, &mut self.cursor, p.ring);
        for row in p.rows.chunks_exact_mut(self.layout.row.max(1)) {
            let Some(entry) = replay.draw(|| self.rng.next_u32()) else { return };
            let goes_on = replay.after(entry) == After::Next;
            let following = if goes_on { replay.next(entry) } else { entry };
            let (now, rest) = row.split_at_mut_checked(obs + act).unwrap_or_default();
            let (facts, next) = rest.split_at_mut_checked(3).unwrap_or_default();
            let mask = if goes_on { self.config.discount } else { 0.0 };
            copy(facts, &[replay.get(entry, obs + act), mask, 0.0]);
            now.iter_mut().enumerate().for_each(|(place, x)| *x = replay.get(entry, place));
            next.iter_mut().enumerate().for_each(|(place, x)| *x = replay.get(following, place));
        }
        self.sums = Report::default();
        self.at = Counter { stage: Stage::NextAction, ..Counter::IDLE };
    }

    /// A whole update, or the rest of one.
    pub fn finish(&mut self) {
        while self.slice() {}
    }

    /// Does the next piece of the update; `false` when there is none under way.
    pub fn slice(&mut self) -> bool {
        let mut at = self.at;
        let (obs, act) = (self.layout.obs, self.layout.act);
        let row_len = self.layout.row;
        let mut p = self.layout.carve(self.memory.as_mut());
        // A row: s, a, r, mask, target, s'.
        let row = p.rows.get_mut(at.row * row_len..(at.row + 1) * row_len).unwrap_or_default();
        let (now, rest) = row.split_at_mut_checked(obs + act).unwrap_or_default();
        let (facts, next) = rest.split_at_mut_checked(3).unwrap_or_default();
        let [reward, mask, target] = facts else { return false };
        match at.stage {
            Stage::Idle | Stage::Publish => return false,
            Stage::NextAction | Stage::Action => {
                let is_next = at.stage == Stage::NextAction;
                if at.turn == 0 && at.layer == 0 {
                    draw(&mut self.rng, p.noise);
                    copy(p.latent, p.noise);
                }
                if at.layer == 0 {
                    copy(p.trace.input, if is_next { next } else { now.get(..obs).unwrap_or(&[]) });
                    let t = self.plan.node_time(at.turn);
                    place(self.actor.shape.inputs, obs, p.latent, self.frequencies, t, p.trace.input);
                }
                self.actor.forward(at.layer, p.actor, &mut p.trace);
                at.layer += 1;
                if at.layer > self.actor.shape.layers {
                    advance(&self.plan, p.latent, p.trace.output);
                    (at.layer, at.turn) = (0, at.turn + 1);
                    if at.turn >= self.plan.steps {
                        clip(&self.plan, p.latent);
                        (at.turn, at.critic) = (0, 0);
                        at.stage = if is_next { Stage::NextValue } else { Stage::Candidate };
                    }
                }
            }
            Stage::NextValue => {
                let [first, second] = &p.critics;
                let slow = if at.critic == 0 { &first.slow } else { &second.slow };
                let network = if at.critic == 0 { &self.critics[0] } else { &self.critics[1] };
                if at.layer == 0 {
                    copy(p.trace.input, next);
                    let action = p.trace.input.get_mut(obs..obs + act).unwrap_or_default();
                    self.range.squash.apply(p.latent, action);
                }
                network.forward(at.layer, slow, &mut p.trace);
                at.layer += 1;
                if at.layer > network.shape.layers {
                    at.layer = 0;
                    let q = p.trace.output.first().copied().unwrap_or(0.0);
                    if at.critic == 0 {
                        (at.value, at.critic) = (q, 1);
                    } else {
                        let least = if q < at.value { q } else { at.value };
                        *target = math::flush(math::clip(*reward + *mask * least, self.value_limit));
                        at.critic = 0;
                        at.next_row(self.config.batch, Stage::NextAction, Stage::Fit);
                    }
                }
            }
            Stage::Fit => {
                let [first, second] = &p.critics;
                let delta = if at.critic == 0 { &first.delta } else { &second.delta };
                let network = if at.critic == 0 { &self.critics[0] } else { &self.critics[1] };
                if at.layer == 0 {
                    copy(p.trace.input, now);
                }
                network.forward(at.layer, delta, &mut p.trace);
                at.layer += 1;
                if at.layer > network.shape.layers {
                    at.layer = network.shape.layers;
                    at.stage = Stage::FitBack;
                    let q = p.trace.output.first().copied().unwrap_or(0.0);
                    let error = q - *target;
                    if q.is_nan() || q.abs() > 4.0 * self.value_limit {
                        self.diverged();
                        return true;
                    }
                    let share = 1.0 / self.config.batch as f32;
                    self.sums.td_error += 0.5 * share * error.abs();
                    self.sums.value += 0.5 * share * q;
                    if let Some(upper) = p.trace.upper.first_mut() {
                        *upper = math::flush(2.0 * share * error);
                    }
                }
            }
            Stage::FitBack => {
                let [first, second] = &p.critics;
                let delta = if at.critic == 0 { &first.delta } else { &second.delta };
                let network = if at.critic == 0 { &self.critics[0] } else { &self.critics[1] };
                network.backward(at.layer, delta, p.gradient, &mut p.trace);
                if at.layer == network.first_trained() {
                    at.layer = 0;
                    at.next_row(self.config.batch, Stage::Fit, Stage::Norm);
                } else {
                    at.layer -= 1;
                }
            }
            Stage::Norm | Stage::ActorNorm => {
                let of_actor = at.stage == Stage::ActorNorm;
                let n = if of_actor { self.layout.actor } else { self.layout.critic };
                for g in p.gradient.iter_mut().take(n).skip(at.at).take(CHUNK) {
                    *g = math::flush(*g);
                    at.norm += *g * *g;
                }
                at.at += CHUNK;
                if at.at >= n {
                    if !at.norm.is_finite() {
                        self.diverged();
                        return true;
                    }
                    let which = if of_actor { 2 } else { at.critic };
                    let rate = if of_actor { self.config.actor_rate } else { self.config.critic_rate };
                    let (limit, norm) = (self.config.gradient_limit, at.norm);
                    let optimiser = self.config.optimiser;
                    at.step = self.clocks.get_mut(which).map(|clock| clock.tick(optimiser, rate, norm, limit));
                    (at.at, at.norm) = (0, 0.0);
                    at.stage = if of_actor { Stage::ActorMove } else { Stage::Move };
                }
            }
            Stage::Move | Stage::ActorMove => {
                let of_actor = at.stage == Stage::ActorMove;
                let [first, second] = p.critics;
                let (delta, moments) = match (of_actor, at.critic) {
                    (true, _) => (p.actor, p.actor_moments),
                    (false, 0) => (first.delta, first.moments),
                    (false, _) => (second.delta, second.moments),
                };
                let n = delta.len();
                let words = self.layout.moments;
                let end = (at.at + CHUNK).min(n);
                let (Some(numbers), Some(gradient), Some(moments), Some(step)) = (
                    delta.get_mut(at.at..end),
                    p.gradient.get_mut(at.at..end),
                    moments.get_mut(at.at * words..end * words),
                    at.step,
                ) else {
                    self.diverged();
                    return true;
                };
                step.apply(numbers, gradient, moments);
                at.at = end;
                if end >= n {
                    at.at = 0;
                    if of_actor {
                        at.stage = Stage::Publish;
                    } else if at.critic == 0 {
                        (at.critic, at.stage) = (1, Stage::Fit);
                    } else {
                        (at.critic, at.stage) = (0, Stage::Slow);
                    }
                }
            }
            Stage::Slow => {
                let [first, second] = p.critics;
                let critic = if at.critic == 0 { first } else { second };
                let (n, end) = (critic.delta.len(), at.at + CHUNK);
                let pairs = critic.slow.iter_mut().zip(critic.delta.iter()).take(end).skip(at.at);
                follow(pairs, self.config.target_rate);
                at.at = end;
                if end >= n {
                    at.at = 0;
                    if at.critic == 0 {
                        at.critic = 1;
                    } else {
                        at.critic = 0;
                        at.stage = if self.updates < self.config.warmup { Stage::Publish } else { Stage::Action };
                    }
                }
            }
            Stage::Candidate => {
                let [first, second] = &p.critics;
                let delta = if at.critic == 0 { &first.delta } else { &second.delta };
                let network = if at.critic == 0 { &self.critics[0] } else { &self.critics[1] };
                let candidate = p.candidates.get_mut(at.turn * act..(at.turn + 1) * act).unwrap_or_default();
                if at.critic == 0 && at.layer == 0 {
                    actor::propose(&mut self.rng, self.range.squash, p.latent, self.config.spread, at.turn, candidate);
                }
                if at.layer == 0 {
                    copy(p.trace.input, now.get(..obs).unwrap_or(&[]));
                    copy(p.trace.input.get_mut(obs..).unwrap_or_default(), candidate);
                }
                network.forward(at.layer, delta, &mut p.trace);
                at.layer += 1;
                if at.layer > network.shape.layers {
                    at.layer = 0;
                    let q = p.trace.output.first().copied().unwrap_or(0.0);
                    if at.critic == 0 {
                        (at.value, at.critic) = (q, 1);
                    } else {
                        let least = if q < at.value { q } else { at.value };
                        if let Some(logit) = p.logits.get_mut(at.turn) {
                            *logit = least / self.config.temperature;
                        }
                        (at.critic, at.turn) = (0, at.turn + 1);
                        if at.turn >= self.config.candidates {
                            at.turn = 0;
                            let effective = actor::mean(p.logits, p.candidates, p.target);
                            self.sums.effective += effective / self.config.actor_batch as f32;
                            at.stage = Stage::Regress;
                        }
                    }
                }
            }
            Stage::Regress => {
                if at.layer == 0 {
                    copy(p.trace.input, now.get(..obs).unwrap_or(&[]));
                    place(self.actor.shape.inputs, obs, p.noise, self.frequencies, self.plan.t_start, p.trace.input);
                }
                self.actor.forward(at.layer, p.actor, &mut p.trace);
                at.layer += 1;
                if at.layer > self.actor.shape.layers {
                    at.layer = self.actor.shape.layers;
                    at.stage = Stage::RegressBack;
                    let share = 2.0 / self.config.actor_batch as f32;
                    actor::pull(self.range.squash, p.latent, p.target, share, p.trace.upper);
                }
            }
            Stage::RegressBack => {
                self.actor.backward(at.layer, p.actor, p.gradient, &mut p.trace);
                if at.layer == self.actor.first_trained() {
                    at.layer = 0;
                    at.next_row(self.config.actor_batch, Stage::Action, Stage::ActorNorm);
                } else {
                    at.layer -= 1;
                }
            }
        }
        self.at = at;
        true
    }

    fn diverged(&mut self) {
        self.resets = self.resets.saturating_add(1);
        self.start();
    }
}

impl Counter {
    const IDLE: Self =
        Self { stage: Stage::Idle, row: 0, turn: 0, critic: 0, layer: 0, at: 0, norm: 0.0, step: None, value: 0.0 };

    fn next_row(&mut self, rows: usize, again: Stage, then: Stage) {
        self.row += 1;
        self.stage = again;
        if self.row >= rows {
            (self.row, self.stage) = (0, then);
        }
    }
}

fn copy(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

fn follow<'s>(pairs: impl Iterator<Item = (&'s mut f32, &'s f32)>, share: f32) {
    for (slow, fast) in pairs {
        *slow = math::flush(*slow + share * math::flush(*fast - *slow));
    }
}

/// Standard normal numbers.
fn draw<R: Rng + ?Sized>(rng: &mut R, out: &mut [f32]) {
    for pair in out.chunks_mut(2) {
        let noise = math::box_muller([rng.next_u32(), rng.next_u32()]);
        pair.iter_mut().zip(noise).for_each(|(out, x)| *out = math::flush(x));
    }
}

/// Writes the latent and the time features behind the observation.
fn place(inputs: usize, obs: usize, latent: &[f32], frequencies: &[f32], t: f32, input: &mut [f32]) {
    let rest = input.get_mut(obs..inputs).unwrap_or_default();
    let (x, time) = rest.split_at_mut_checked(latent.len()).unwrap_or_default();
    copy(x, latent);
    let (sines, cosines) = time.split_at_mut_checked(frequencies.len()).unwrap_or_default();
    for ((f, sine), cosine) in frequencies.iter().zip(sines).zip(cosines) {
        let (sin, cos) = math::sin_cos(f * t);
        (*sine, *cosine) = (math::flush(sin), math::flush(cos));
    }
}

/// One Euler step of the latent along the velocity.
fn advance(plan: &Plan, latent: &mut [f32], velocity: &[f32]) {
    let step = (plan.t_end - plan.t_start) / plan.steps as f32;
    for (x, v) in latent.iter_mut().zip(velocity) {
        *x = math::flush(*x + step * math::flush(*v));
    }
}

fn clip(plan: &Plan, latent: &mut [f32]) {
    latent.iter_mut().for_each(|x| *x = math::clip(*x, plan.latent_clip));
}
