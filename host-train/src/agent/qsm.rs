//! Q-score matching (Psenka et al. 2023, arXiv 2312.11752), read from top to bottom.
//!
//! A diffusion policy on the variance-preserving schedule with noise rates .1 to 10, whose noise network is taught the
//! action gradient of Q: e(s, x, t) = -scale grad_a Q(s, x) at the noisy action x itself. No sample of the target is
//! needed, and no weight; in exchange the chain's distribution is that of exp(Q) only where little noise is left. One
//! update, on a minibatch:
//! 1. an action at every s' with exploration noise;
//! 2. critics: one Adam step towards r + gamma mask min Qbar(s', a'); Polyak;
//! 3. points x = alpha a + beta e on the path to the replayed action, at a random time of the chain;
//! 4. actor: one Adam step on the mean squared error of e(s, x, t) against -scale grad_a min Q(s, x).
//!
//! Panics only on slices of a wrong length. After the first update nothing allocates. Deterministic given the seed.

use super::critics::Critics;
use super::diffusion::{Ancestral, Clip, DiffusionActor, place};
use super::{Agent, STREAM_BEHAVIOUR, STREAM_UPDATES, STREAM_WEIGHTS, UpdateStats, room};
use crate::config::QsmConfig;
use crate::noise::Noise;
use crate::replay::{Minibatch, Replay};
use crate::state::Visitor;
use flowlet::flow::Schedule;

/// The published schedule.
const SCHEDULE: Schedule = Schedule::VpLinear { beta_min: 0.1, beta_max: 10.0 };

/// The agent: networks, optimisers, random streams, and the memory an update works in.
#[derive(Clone, Debug)]
pub struct Qsm {
    actor: DiffusionActor,
    critics: Critics,
    scale: f32,
    exploration: f32,
    behaviour: Noise,
    updates: Noise,
    batch: Minibatch,
    next_action: Vec<f32>,
    x: Vec<f32>,
    t: Vec<f32>,
    q: Vec<f32>,
    target: Vec<f32>,
    explored: Vec<f32>,
}

impl Qsm {
    /// A fresh agent for observations of width `obs` and actions of width `act`.
    pub fn new(config: &QsmConfig, obs: usize, act: usize, seed: u64) -> Self {
        let (train, n) = (&config.train, config.train.batch_size);
        let mut weights = Noise::new(seed, STREAM_WEIGHTS);
        let chain = Ancestral::new(SCHEDULE, config.steps, 0.0, config.step_noise, Clip::State);
        Self {
            actor: DiffusionActor::new(train, chain, false, (obs, act), n, &mut weights),
            critics: Critics::new(train, obs, act, 1, &mut weights),
            scale: config.scale as f32,
            exploration: config.exploration as f32,
            behaviour: Noise::new(seed, STREAM_BEHAVIOUR),
            updates: Noise::new(seed, STREAM_UPDATES),
            batch: Minibatch::new(n, obs, act),
            next_action: vec![0.0; n * act],
            x: vec![0.0; n * act],
            t: vec![0.0; n],
            q: vec![0.0; n],
            target: vec![0.0; n * act],
            explored: Vec::new(),
        }
    }
}

/// Adds Gaussian noise to `actions` and holds them in the box.
fn explore(actions: &mut [f32], spread: f32, scratch: &mut Vec<f32>, noise: &mut Noise) {
    let z = room(scratch, actions.len());
    noise.gaussian(z);
    actions.iter_mut().zip(z).for_each(|(a, z)| *a = (*a + spread * *z).clamp(-1.0, 1.0));
}

impl Agent for Qsm {
    fn act(&mut self, obs: &[f32], actions: &mut [f32]) {
        self.actor.sample(obs, 1, actions, &mut self.behaviour);
        explore(actions, self.exploration, &mut self.explored, &mut self.behaviour);
    }

    fn evaluate(&mut self, obs: &[f32], particles: usize, noise: &mut Noise, actions: &mut [f32]) {
        self.actor.best(&mut self.critics, obs, particles, actions, noise);
    }

    fn update(&mut self, replay: &Replay) -> UpdateStats {
        let noise = &mut self.updates;
        replay.sample(&mut self.batch, noise);

        // 1. a'
        self.actor.sample(&self.batch.next_obs, 1, &mut self.next_action, noise);
        explore(&mut self.next_action, self.exploration, &mut self.explored, noise);

        // 2. critics
        let (critic_loss, q_mean) = self.critics.learn(&self.batch, &self.next_action, None);

        // 3. points of the path
        let steps = self.actor.ancestral().len();
        self.t.iter_mut().for_each(|t| *t = self.actor.ancestral().at(noise.below(steps)).0);
        noise.gaussian(&mut self.x);
        place(SCHEDULE, &self.t, &self.batch.action, &mut self.x);

        // 4. actor
        self.critics.minimum_and_gradient(&self.batch.obs, &self.x, 1, &mut self.q, &mut self.target);
        self.target.iter_mut().for_each(|g| *g *= -self.scale);
        let (actor_loss, grad_norm) = self.actor.regress(&self.batch.obs, &self.x, &self.t, &self.target, None);
        UpdateStats {
            critic_loss,
            actor_loss,
            q_mean,
            ess: f32::NAN,
            entropy: f32::NAN,
            refused: 0,
            lambda: f32::NAN,
            grad_norm,
        }
    }

    fn visit(&mut self, visitor: &mut dyn Visitor) {
        self.actor.visit(visitor);
        self.critics.visit(visitor);
        self.behaviour.visit("behaviour_noise", visitor);
        self.updates.visit("update_noise", visitor);
    }

    fn temperature(&self) -> f32 {
        f32::NAN
    }
}
