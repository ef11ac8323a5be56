//! The learner: replay, twin critic and flow actor in one block of memory, one update cut into slices of bounded work.
//!
//! This file is what a control loop sees of it: acting, recording, keeping. `learner/update.rs` has the update.
//!
//! No panics, no allocation, the same bits everywhere. A number that is not finite, or a value beyond what rewards can add
//! up to, sets the critics back to the factory's and the actor to the delta that was kept ([`Learner::resets`] counts); what
//! acts stays.

#[cfg(test)]
mod tests;
mod update;

use super::config::{Config, LearnerError};
use super::memory::{Layout, Place};
use super::optimiser::Clock;
use super::replay::{After, Cursor, Replay, Ring};
use super::slice::{Budget, Cut, least_slice};
use super::trained::{Network, Perceptron};
use crate::flow::{Plan, Source};
use crate::math;
use crate::net::Trunk;
use crate::policy::{ActionRange, Artefact, Normalizer};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;
use update::Counter;

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

/// What the seed of an actor's first delta differs by from that of all else.
const STREAM: u64 = 0x9e37_79b9_7f4a_7c15;

/// No entry under way.
const EMPTY: (u32, f32, f32) = (0, 0.0, 1.0);

/// A delta to go on from.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Kept,
    Best,
}

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
    /// Discount of an entry of the ring.
    discount: f32,
    /// Decisions of the entry under way, the sum of their rewards and the discount of the next.
    begun: (u32, f32, f32),
    /// Share of new noise in the exploration's.
    innovation: f32,
    cursor: Cursor,
    /// CRC of the factory's artefact.
    artefact: u32,
    seed: u64,
    rng: Xoshiro128PlusPlus,
    /// Whether the actor goes on from its average, which another delta was copied to.
    renewed: bool,
    clocks: [Clock; 3],
    at: Counter,
    decisions: u32,
    updates: u32,
    /// Updates when the critics were the factory's.
    renewed_at: u32,
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

impl<'a, M: AsRef<[u32]> + AsMut<[u32]>> Learner<'a, M> {
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
        let least = least_slice(shape, first.shape(), &config);
        if config.slice < least {
            return Err(LearnerError::Slice { least, found: config.slice });
        }
        let layout = Layout::new(shape, first.shape(), &config);
        let network = |params, shape, trained| Network { shape, trained, factory: params };
        let critic = |params| network(params, Perceptron::critic(first.shape()), config.critic);
        let ring = Ring {
            capacity: config.transitions,
            obs: layout.obs,
            act: layout.act,
            storage: config.storage,
            obs_limit: artefact.normalizer().clip,
            reward_limit: config.reward_limit * config.stride as f32,
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
            discount: (0..config.stride).fold(1.0, |discount, _| math::flush(discount * config.discount)),
            begun: EMPTY,
            innovation: math::sqrt(1.0 - config.correlation * config.correlation),
            cursor: Cursor::default(),
            artefact: artefact.bytes().last_chunk().map_or(0, |crc| u32::from_le_bytes(*crc)),
            seed: seed ^ STREAM,
            rng: Xoshiro128PlusPlus::seed_from_u64(seed),
            renewed: false,
            clocks: [Clock::START; 3],
            at: Counter::IDLE,
            decisions: 0,
            updates: 0,
            renewed_at: 0,
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
        // Whatever was there before: what a learner does depends on nothing but its arguments.
        learner.memory.as_mut().iter_mut().take(layout.words()).for_each(|word| *word = 0);
        learner.start();
        Ok(learner)
    }

    /// Every delta as at the start; the ring keeps its transitions.
    fn start(&mut self) {
        self.fresh();
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.acting, p.kept);
        copy(p.best, p.kept);
        copy(p.average, p.kept);
        let rng = &mut self.rng;
        for (network, critic) in self.critics.iter().zip(p.critics) {
            network.start(critic.delta, || rng.next_u32());
            copy(critic.slow, critic.delta);
            critic.moments.fill(0);
        }
        p.gradient.fill(0.0);
        self.renew();
    }

    /// The factory's policy is kept. Its numbers are those of the learner's first start, whatever was drawn since.
    fn fresh(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(self.seed);
        self.actor.start(p.kept, || rng.next_u32());
    }

    /// The actor learns on from this delta when the update under way is done: what an update had come to must not tell.
    fn go_on_from(&mut self, slot: Slot) {
        let p = self.layout.carve(self.memory.as_mut());
        let from = match slot {
            Slot::Kept => p.kept,
            Slot::Best => p.best,
        };
        copy(p.average, from);
        self.renewed = true;
    }

    /// The actor learns on from its average.
    fn renew(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.actor, p.average);
        p.actor_moments.fill(0);
        self.clocks[2] = Clock::START;
        self.renewed = false;
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

    /// Entries in the ring.
    pub fn transitions(&self) -> usize {
        self.cursor.len
    }

    /// The delta that acts.
    pub fn acting(&self) -> &[f32] {
        self.layout.delta(Place::Acting, self.memory.as_ref())
    }

    /// The delta that was kept.
    pub fn kept(&self) -> &[f32] {
        self.layout.delta(Place::Kept, self.memory.as_ref())
    }

    /// The slow average of what learns: the next candidate.
    pub fn average(&self) -> &[f32] {
        self.layout.delta(Place::Average, self.memory.as_ref())
    }

    /// The policy that was kept, or the factory's, as the parameters of an artefact: `out` has the length of the factory's.
    pub fn merge(&self, out: &mut [f32]) {
        self.actor.merge(self.kept(), out);
    }

    /// The same of the policy that acts: the candidate.
    pub fn merge_candidate(&self, out: &mut [f32]) {
        self.actor.merge(self.acting(), out);
    }

    /// The average of what was learned so far acts from now on, and stays as it is until the next call: a candidate.
    pub fn promote(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.acting, p.average);
    }

    /// Notes the acting delta as the best so far.
    pub fn hold(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.best, p.acting);
    }

    /// The best so far acts.
    pub fn recall(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.acting, p.best);
    }

    /// Notes the delta that was kept as the best so far.
    pub fn hold_kept(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.best, p.kept);
    }

    /// Learns on from the best so far; the critics stay.
    pub fn go_back(&mut self) {
        self.go_on_from(Slot::Best);
    }

    /// Keeps the acting delta.
    pub fn keep(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.kept, p.acting);
    }

    /// Acts and learns on from the delta that was kept, or the factory's; the critics stay.
    pub fn roll_back(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.acting, p.kept);
        copy(p.best, p.kept);
        self.go_on_from(Slot::Kept);
    }

    /// Keeps a delta from elsewhere, and acts and learns on from it; whether it is one, finite and as long as it must be.
    pub fn restore(&mut self, delta: impl Iterator<Item = f32> + Clone) -> bool {
        let p = self.layout.carve(self.memory.as_mut());
        let lawful = delta.clone().count() == p.kept.len() && delta.clone().all(f32::is_finite);
        if lawful {
            p.kept.iter_mut().zip(delta).for_each(|(kept, d)| *kept = math::flush(d));
            self.roll_back();
        }
        lawful
    }

    /// Keeps, acts and learns on from the factory's policy; the critics stay.
    pub fn forget(&mut self) {
        self.fresh();
        self.roll_back();
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The CRC of the factory's artefact, its last word.
    pub(super) fn artefact(&self) -> u32 {
        self.artefact
    }

    /// The factory's parameters.
    pub(super) fn factory(&self) -> &'a [f32] {
        self.actor.factory
    }

    /// Takes in what a decision led to. `observation` is that of the decision, in the plant's units; `action` what was
    /// done, in the plant's units; `after` says whether the next call goes on from here.
    pub fn record(&mut self, observation: &[f32], action: &[f32], reward: f32, after: After) {
        let p = self.layout.carve(self.memory.as_mut());
        if observation.len() == p.seen.len() && action.len() == p.done.len() {
            copy(p.seen, observation);
            copy(p.done, action);
            self.close(reward, after);
        } else {
            self.cut();
            self.refused = self.refused.saturating_add(1);
        }
    }

    /// What is recorded next does not follow from what was recorded last.
    pub fn cut(&mut self) {
        let p = self.layout.carve(self.memory.as_mut());
        Replay::new(self.ring, &mut self.cursor, p.ring).cut();
        self.begun = EMPTY;
    }

    /// The observation that is decided on: the start of a transition.
    pub(super) fn open(&mut self, observation: &[f32]) {
        let p = self.layout.carve(self.memory.as_mut());
        copy(p.seen, observation);
    }

    /// The `count`-th action that was held for this decision, from 1: the transition's is their mean.
    pub(super) fn done(&mut self, action: &[f32], count: u16) {
        let p = self.layout.carve(self.memory.as_mut());
        let share = 1.0 / f32::from(count.max(1));
        for (mean, a) in p.done.iter_mut().zip(action) {
            *mean = if count <= 1 { *a } else { math::flush(*mean + share * (a - *mean)) };
        }
    }

    /// Ends the transition.
    pub(super) fn close(&mut self, reward: f32, after: After) {
        let obs = self.layout.obs;
        let p = self.layout.carve(self.memory.as_mut());
        let mut replay = Replay::new(self.ring, &mut self.cursor, p.ring);
        let (begun, mut sum, mut discount) = core::mem::replace(&mut self.begun, EMPTY);
        let state = p.act_trace.input.get_mut(..obs).unwrap_or_default();
        let finite = p.done.iter().chain([&reward]).all(|x| x.is_finite());
        if self.normalizer.apply(p.seen, state).is_err() || !finite {
            replay.cut();
            self.refused = self.refused.saturating_add(1);
            return;
        }
        let (first_state, first_action) = p.entry.split_at_mut_checked(obs).unwrap_or_default();
        if begun == 0 {
            copy(first_state, state);
            let limits = self.range.low.iter().zip(self.range.high);
            for ((scaled, a), (low, high)) in first_action.iter_mut().zip(p.done.iter()).zip(limits) {
                *scaled = math::flush(math::clip(2.0 * (a - low) / (high - low) - 1.0, 1.0));
            }
        }
        if after != After::Unknown {
            sum = math::flush(sum + discount * math::clip(reward, self.config.reward_limit));
            discount = math::flush(discount * self.config.discount);
        }
        // An entry whose decisions do not follow on has no successor: only its observation counts, for the one before.
        if after == After::Next && begun + 1 < self.config.stride {
            self.begun = (begun + 1, sum, discount);
        } else {
            replay.push(first_state, first_action, sum, after);
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
            self.actor.forward(&mut Cut::default(), &mut Budget::whole(), delta, &mut p.act_trace);
            advance(&self.plan, latent, p.act_trace.output);
        }
        clip(&self.plan, latent);
        self.range.apply(latent, action);
        true
    }

    /// [`act`](Self::act) with the exploration's noise on the action, which goes on from call to call.
    pub fn explore<R: Rng + ?Sized>(&mut self, observation: &[f32], rng: &mut R, action: &mut [f32]) -> bool {
        let done = self.act(observation, rng, action);
        let wander = self.layout.carve(self.memory.as_mut()).wander;
        let (kept, fresh) = (self.config.correlation, self.innovation);
        let limits = self.range.low.iter().zip(self.range.high);
        for ((a, wander), (low, high)) in action.iter_mut().zip(wander).zip(limits) {
            let noise = math::box_muller([rng.next_u32(), rng.next_u32()])[0];
            *wander = math::flush(kept * *wander + fresh * noise);
            *a = math::flush((*a + 0.5 * (high - low) * self.config.exploration * *wander).clamp(*low, *high));
        }
        done
    }
}

#[cfg(test)]
impl<M: AsRef<[u32]> + AsMut<[u32]>> Learner<'_, M> {
    /// The first channel of what follows on entry `at` of the ring, where anything does.
    pub(super) fn successor(&mut self, at: usize) -> Option<f32> {
        let p = self.layout.carve(self.memory.as_mut());
        let replay = Replay::new(self.ring, &mut self.cursor, p.ring);
        (replay.after(at) == After::Next && replay.is_whole(at)).then(|| replay.get(replay.next(at), 0))
    }
}

fn copy(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
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
