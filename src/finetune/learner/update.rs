//! One update, slice by slice.
//!
//! An update draws a batch, computes its temporal-difference targets with the critics' slow deltas, takes an optimiser's
//! step with each critic, moves the slow deltas, makes the actor's targets by Reverse Flow Matching and takes a step with it;
//! last it publishes: an average follows the
//! delta that learns, and acts from the next [`Learner::promote`] on. [`Learner::slice`] does one layer of one row, or a
//! chunk of an optimiser's step, and returns; what an update computes does not depend on what happens between its slices,
//! for its batch is copied at its start and the average changes after its last slice alone.
//!
//! No panics, no allocation, the same bits everywhere.

use super::super::actor;
use super::super::optimiser::Step;
use super::super::replay::{After, Replay};
use super::{Learner, Report, advance, clip, copy, draw, place};
use crate::math;
use rand_core::Rng;

/// What the next slice does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
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
pub(super) struct Counter {
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

impl<M: AsRef<[u32]> + AsMut<[u32]>> Learner<'_, M> {
    /// Whether an update has slices left.
    pub fn is_busy(&self) -> bool {
        !matches!(self.at.stage, Stage::Idle | Stage::Publish)
    }

    /// Once a decision: every [`every`](super::super::Config::every) of them the update that is done is published and the
    /// next begins, with a batch drawn now. One that is not done by then goes on, and is counted as late.
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
        self.restart();
    }
}

impl Counter {
    pub(super) const IDLE: Self =
        Self { stage: Stage::Idle, row: 0, turn: 0, critic: 0, layer: 0, at: 0, norm: 0.0, step: None, value: 0.0 };

    fn next_row(&mut self, rows: usize, again: Stage, then: Stage) {
        self.row += 1;
        self.stage = again;
        if self.row >= rows {
            (self.row, self.stage) = (0, then);
        }
    }
}

fn follow<'s>(pairs: impl Iterator<Item = (&'s mut f32, &'s f32)>, share: f32) {
    for (slow, fast) in pairs {
        *slow = math::flush(*slow + share * math::flush(*fast - *slow));
    }
}
