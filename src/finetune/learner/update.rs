//! One update, slice by slice.
//!
//! An update draws a batch, computes its temporal-difference targets with the critics' slow deltas, takes an optimiser's
//! step with each critic, moves the slow deltas, makes the actor's targets by Reverse Flow Matching and takes a step with it;
//! at the next pulse it is published: an average follows the delta that learns, and acts from the next
//! [`Learner::promote`] on. [`Learner::slice`] goes on with it for a [`Budget`], to any column of any layer. What an update
//! computes does not depend on where it was cut, nor on what is called in between: its batch is copied by the pulse that
//! begins it, and nothing else changes the deltas that learn before the pulse that ends it.
//!
//! No panics, no allocation, the same bits everywhere.

use super::super::actor;
use super::super::config::Config;
use super::super::memory::{Layout, Parts};
use super::super::optimiser::{Clock, Step};
use super::super::replay::{After, Replay};
use super::super::slice::{self, Budget, Cut};
use super::super::trained::Network;
use super::{Learner, Report, Slot, advance, clip, copy, draw, place};
use crate::flow::Plan;
use crate::math;
use crate::policy::ActionRange;
use rand_core::Rng;
use rand_xoshiro::Xoshiro128PlusPlus;

/// What the next slice does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Idle,
    /// The policy at the row's next observation.
    NextAction,
    /// A slow critic there.
    NextValue,
    /// A critic at the row, forward.
    Fit,
    /// The same backward.
    FitBack,
    /// A part of the gradient's norm.
    Norm,
    /// A part of the optimiser's step.
    Move,
    /// A part of the slow critics.
    Slow,
    /// The policy at the actor's row.
    Action,
    /// A critic at a candidate.
    Candidate,
    /// The candidates' mean.
    Weigh,
    /// The actor forward.
    Regress,
    /// The gradient at its outputs.
    Pull,
    /// And backward.
    RegressBack,
    ActorNorm,
    ActorMove,
    /// The acting delta.
    Publish,
    /// Fresh critics, after divergence.
    Reset,
    /// The actor from what is kept.
    Restarted,
}

/// Where an update stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Counter {
    stage: Stage,
    row: usize,
    /// Step of the flow or candidate.
    turn: usize,
    critic: usize,
    /// Whether the pass has its inputs, and where it stands.
    ready: bool,
    cut: Cut,
    /// Of a pass over numbers.
    at: usize,
    norm: f32,
    step: Option<Step>,
    /// Of the first slow critic.
    value: f32,
}

impl<M: AsRef<[u32]> + AsMut<[u32]>> Learner<'_, M> {
    /// Whether an update has slices left.
    pub fn is_busy(&self) -> bool {
        self.at.is_busy()
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
            Stage::Restarted => {
                self.renewed_at = self.updates;
                self.go_on_from(Slot::Kept);
            }
            _ => {
                self.late = self.late.saturating_add(1);
                return;
            }
        }
        if self.renewed {
            self.renew();
        }
        self.at = Counter::IDLE;
        if self.cursor.len >= 2 * self.config.batch {
            self.draw_batch();
        }
    }

    fn publish(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        if !self.renewed {
            follow(p.average.iter_mut().zip(p.actor.iter()), self.config.acting_rate);
        }
        self.updates = self.updates.saturating_add(1);
        self.report = self.sums;
    }

    /// Copies a batch out of the ring.
    pub(super) fn draw_batch(&mut self) {
        let (obs, act) = (self.layout.obs, self.layout.act);
        let p = self.layout.carve(self.memory.as_mut());
        let replay = Replay::new(self.ring, &mut self.cursor, p.ring);
        for row in p.rows.chunks_exact_mut(self.layout.row.max(1)) {
            let Some(entry) = replay.draw(|| self.rng.next_u32()) else { return };
            let (mut following, mut mask, mut sum) = (entry, 1.0, 0.0);
            for _ in 0..self.config.horizon {
                if !replay.is_whole(following) {
                    break;
                }
                sum = math::flush(sum + mask * replay.get(following, obs + act));
                if replay.after(following) == After::Terminal {
                    mask = 0.0;
                    break;
                }
                mask = math::flush(mask * self.discount);
                following = replay.next(following);
            }
            let (now, rest) = row.split_at_mut_checked(obs + act).unwrap_or_default();
            let (facts, next) = rest.split_at_mut_checked(3).unwrap_or_default();
            copy(facts, &[sum, mask, 0.0]);
            replay.read(entry, now);
            replay.read(following, next);
        }
        self.sums = Report::default();
        self.at = Counter { stage: Stage::NextAction, ..Counter::IDLE };
    }

    /// A whole update, or the rest of one.
    pub fn finish(&mut self) {
        while self.slice() {}
    }

    /// Goes on with the update for at most [`slice`](super::super::Config::slice) instructions; `false` when there is none
    /// under way.
    pub fn slice(&mut self) -> bool {
        let busy = self.is_busy();
        let (mut at, mut left) = (self.at, Budget::of_slice(self.config.slice));
        let mut work = Work {
            config: &self.config,
            layout: &self.layout,
            actor: &self.actor,
            critics: &self.critics,
            frequencies: self.frequencies,
            plan: &self.plan,
            range: &self.range,
            value_limit: self.value_limit,
            updates: self.updates - self.renewed_at,
            rng: &mut self.rng,
            clocks: &mut self.clocks,
            sums: &mut self.sums,
            resets: &mut self.resets,
            p: self.layout.carve(self.memory.as_mut()),
        };
        while at.is_busy() && work.step(&mut at, &mut left) {}
        self.at = at;
        busy
    }
}

/// What a slice works on.
struct Work<'w, 'a> {
    config: &'w Config,
    layout: &'w Layout,
    actor: &'w Network<'a>,
    critics: &'w [Network<'a>; 2],
    frequencies: &'a [f32],
    plan: &'w Plan,
    range: &'w ActionRange<'a>,
    value_limit: f32,
    /// Since the critics were the factory's.
    updates: u32,
    rng: &'w mut Xoshiro128PlusPlus,
    clocks: &'w mut [Clock; 3],
    sums: &'w mut Report,
    resets: &'w mut u32,
    p: Parts<'w>,
}

impl Work<'_, '_> {
    /// One pass, or a part of it; `false` where the budget ends.
    fn step(&mut self, at: &mut Counter, left: &mut Budget) -> bool {
        if !left.take(slice::ENTRY) {
            return false;
        }
        let (obs, act) = (self.layout.obs, self.layout.act);
        let row_len = self.layout.row;
        let p = &mut self.p;
        // A row: s, a, r, mask, target, s'.
        let row = p.rows.get_mut(at.row * row_len..(at.row + 1) * row_len).unwrap_or_default();
        let (now, rest) = row.split_at_mut_checked(obs + act).unwrap_or_default();
        let (facts, next) = rest.split_at_mut_checked(3).unwrap_or_default();
        let [reward, mask, target] = facts else { return false };
        let [first, second] = &mut p.critics;
        let (critic, network) = if at.critic == 0 { (first, &self.critics[0]) } else { (second, &self.critics[1]) };
        match at.stage {
            Stage::Idle | Stage::Publish | Stage::Restarted => return false,
            Stage::NextAction | Stage::Action => {
                let is_next = at.stage == Stage::NextAction;
                if !at.ready {
                    if !left.take(slice::draws(act) + slice::copies(self.actor.shape.inputs)) {
                        return false;
                    }
                    if at.turn == 0 {
                        draw(self.rng, p.noise);
                        copy(p.latent, p.noise);
                    }
                    copy(p.trace.input, if is_next { next } else { now.get(..obs).unwrap_or(&[]) });
                    let t = self.plan.node_time(at.turn);
                    place(self.actor.shape.inputs, obs, p.latent, self.frequencies, t, p.trace.input);
                    at.ready = true;
                }
                if !self.actor.forward(&mut at.cut, left, p.actor, &mut p.trace) {
                    return false;
                }
                at.ready = false;
                advance(self.plan, p.latent, p.trace.output);
                at.turn += 1;
                if at.turn >= self.plan.steps {
                    clip(self.plan, p.latent);
                    (at.turn, at.critic) = (0, 0);
                    at.stage = if is_next { Stage::NextValue } else { Stage::Candidate };
                }
            }
            Stage::NextValue => {
                if !at.ready {
                    if !left.take(slice::squashes(act) + slice::copies(network.shape.inputs)) {
                        return false;
                    }
                    copy(p.trace.input, next);
                    let action = p.trace.input.get_mut(obs..obs + act).unwrap_or_default();
                    self.range.squash.apply(p.latent, action);
                    at.ready = true;
                }
                if !network.forward(&mut at.cut, left, critic.slow, &mut p.trace) {
                    return false;
                }
                at.ready = false;
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
            Stage::Fit => {
                if !at.ready {
                    if !left.take(slice::copies(network.shape.inputs)) {
                        return false;
                    }
                    copy(p.trace.input, now);
                    at.ready = true;
                }
                if !network.forward(&mut at.cut, left, critic.delta, &mut p.trace) {
                    return false;
                }
                at.ready = false;
                at.stage = Stage::FitBack;
                let q = p.trace.output.first().copied().unwrap_or(0.0);
                let error = q - *target;
                if q.is_nan() || q.abs() > 4.0 * self.value_limit {
                    *at = Counter::RESET;
                    *self.resets = self.resets.saturating_add(1);
                    return true;
                }
                let share = 1.0 / self.config.batch as f32;
                self.sums.td_error += 0.5 * share * error.abs();
                self.sums.value += 0.5 * share * q;
                if let Some(upper) = p.trace.upper.first_mut() {
                    *upper = math::flush(2.0 * share * error);
                }
            }
            Stage::FitBack => {
                if !network.backward(&mut at.cut, left, critic.delta, p.gradient, &mut p.trace) {
                    return false;
                }
                at.next_row(self.config.batch, Stage::Fit, Stage::Norm);
            }
            Stage::Norm | Stage::ActorNorm => {
                let of_actor = at.stage == Stage::ActorNorm;
                let n = if of_actor { self.layout.actor } else { self.layout.critic };
                let Some(range) = left.units(&mut at.at, n, slice::NORM) else { return false };
                for g in p.gradient.get_mut(range).unwrap_or_default() {
                    *g = math::flush(*g);
                    at.norm += *g * *g;
                }
                if at.at >= n {
                    if !at.norm.is_finite() {
                        *at = Counter::RESET;
                        *self.resets = self.resets.saturating_add(1);
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
                let (delta, moments) = if of_actor {
                    (&mut *p.actor, &mut *p.actor_moments)
                } else {
                    (&mut *critic.delta, &mut *critic.moments)
                };
                let (n, words) = (delta.len(), self.layout.moments);
                let Some(range) = left.units(&mut at.at, n, slice::MOVE) else { return false };
                if let (Some(numbers), Some(gradient), Some(moments), Some(step)) = (
                    delta.get_mut(range.clone()),
                    p.gradient.get_mut(range.clone()),
                    moments.get_mut(range.start * words..range.end * words),
                    at.step,
                ) {
                    step.apply(numbers, gradient, moments);
                }
                if at.at >= n {
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
                let n = critic.delta.len();
                let Some(range) = left.units(&mut at.at, n, slice::SLOW) else { return false };
                let fast = critic.delta.get(range.clone()).unwrap_or(&[]);
                follow(critic.slow.get_mut(range).unwrap_or_default().iter_mut().zip(fast), self.config.target_rate);
                if at.at >= n {
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
                let candidate = p.candidates.get_mut(at.turn * act..(at.turn + 1) * act).unwrap_or_default();
                if !at.ready {
                    let drawn = slice::draws(act) + slice::squashes(act);
                    if !left.take(drawn + slice::copies(network.shape.inputs)) {
                        return false;
                    }
                    if at.critic == 0 {
                        actor::propose(self.rng, self.range.squash, p.latent, self.config.spread, at.turn, candidate);
                    }
                    copy(p.trace.input, now.get(..obs).unwrap_or(&[]));
                    copy(p.trace.input.get_mut(obs..).unwrap_or_default(), candidate);
                    at.ready = true;
                }
                if !network.forward(&mut at.cut, left, critic.delta, &mut p.trace) {
                    return false;
                }
                at.ready = false;
                let q = p.trace.output.first().copied().unwrap_or(0.0);
                if at.critic == 0 {
                    (at.value, at.critic) = (q, 1);
                } else {
                    if let Some(logit) = p.logits.get_mut(at.turn) {
                        *logit = 0.5 * (at.value + q) / self.config.temperature;
                    }
                    (at.critic, at.turn) = (0, at.turn + 1);
                    if at.turn >= self.config.candidates {
                        (at.turn, at.stage) = (0, Stage::Weigh);
                    }
                }
            }
            Stage::Weigh => {
                if !left.take(slice::weighs(self.config.candidates, act)) {
                    return false;
                }
                let effective = actor::mean(p.logits, p.candidates, p.target);
                self.sums.effective += effective / self.config.actor_batch as f32;
                at.stage = Stage::Regress;
            }
            Stage::Regress => {
                if !at.ready {
                    if !left.take(slice::squashes(act) + slice::copies(self.actor.shape.inputs)) {
                        return false;
                    }
                    copy(p.trace.input, now.get(..obs).unwrap_or(&[]));
                    place(self.actor.shape.inputs, obs, p.noise, self.frequencies, self.plan.t_start, p.trace.input);
                    at.ready = true;
                }
                if !self.actor.forward(&mut at.cut, left, p.actor, &mut p.trace) {
                    return false;
                }
                at.ready = false;
                at.stage = Stage::Pull;
            }
            Stage::Pull => {
                if !left.take(slice::squashes(2 * act)) {
                    return false;
                }
                let share = 2.0 / self.config.actor_batch as f32;
                actor::pull(self.range.squash, p.latent, p.target, share, p.trace.upper);
                at.stage = Stage::RegressBack;
            }
            Stage::RegressBack => {
                if !self.actor.backward(&mut at.cut, left, p.actor, p.gradient, &mut p.trace) {
                    return false;
                }
                at.next_row(self.config.actor_batch, Stage::Action, Stage::ActorNorm);
            }
            Stage::Reset => {
                // The gradient first, then the critics.
                let n = if at.turn == 0 { p.gradient.len() } else { self.layout.critic };
                let Some(range) = left.units(&mut at.at, n, slice::RESET) else { return false };
                if at.turn == 0 {
                    p.gradient.get_mut(range).unwrap_or_default().fill(0.0);
                } else {
                    network.start_numbers(range.clone(), critic.delta, || self.rng.next_u32());
                    let fresh = critic.delta.get(range.clone()).unwrap_or(&[]);
                    copy(critic.slow.get_mut(range.clone()).unwrap_or_default(), fresh);
                    let moments = range.start * self.layout.moments..range.end * self.layout.moments;
                    critic.moments.get_mut(moments).unwrap_or_default().fill(0);
                }
                if at.at >= n {
                    (at.at, at.turn, at.critic) = (0, at.turn + 1, at.turn);
                    if at.turn > 2 {
                        *self.clocks = [Clock::START; 3];
                        *at = Counter { stage: Stage::Restarted, ..Counter::IDLE };
                    }
                }
            }
        }
        true
    }
}

impl Counter {
    /// After divergence.
    const RESET: Self = Self { stage: Stage::Reset, ..Self::IDLE };

    pub(super) const IDLE: Self = Self {
        stage: Stage::Idle,
        row: 0,
        turn: 0,
        critic: 0,
        ready: false,
        cut: Cut { layer: 0, part: 0, at: 0 },
        at: 0,
        norm: 0.0,
        step: None,
        value: 0.0,
    };

    fn is_busy(&self) -> bool {
        !matches!(self.stage, Stage::Idle | Stage::Publish | Stage::Restarted)
    }

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
