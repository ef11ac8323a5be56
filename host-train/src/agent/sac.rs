//! Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), read from top to bottom.
//!
//! A tanh-Gaussian policy maximises min Q + alpha times its entropy through the reparameterised sample; alpha moves until
//! the entropy is the one asked for. One update, on a minibatch:
//! 1. an action a' at every s' with its log-probability;
//! 2. critics: one Adam step towards r + gamma mask (min Qbar(s', a') - alpha log pi(a' | s')); Polyak;
//! 3. actor: one Adam step down mean(alpha log pi(a | s) - min Q(s, a)), a drawn anew at every s;
//! 4. alpha: one Adam step of log alpha down -log alpha (mean log pi + target entropy).
//!
//! Panics only on slices of a wrong length. After the first update nothing allocates. Deterministic given the seed.
//! Cost at 17 observations, 6 actions and the standard constants: about 9 M multiply-accumulates an update.

use super::critics::Critics;
use super::{Agent, STREAM_BEHAVIOUR, STREAM_UPDATES, STREAM_WEIGHTS, UpdateStats, mean, room};
use crate::config::SacConfig;
use crate::nn::gaussian::{GaussianNet, GaussianShape, GaussianWork};
use crate::nn::hidden::Hidden;
use crate::nn::optim::Adam;
use crate::noise::Noise;
use crate::replay::{Minibatch, Replay};
use crate::state::Visitor;
use std::f32::consts::SQRT_2;

/// Gain of the actor's output layer at the start, in units of sqrt 2: the first policies hardly depend on the state.
const OUT_GAIN: f32 = 0.1;

/// The agent: networks, optimisers, temperature, random streams, and the memory an update works in.
#[derive(Clone, Debug)]
pub struct Sac {
    actor: GaussianNet,
    actor_adam: Adam,
    critics: Critics,
    log_alpha: [f32; 1],
    alpha_adam: Adam,
    target_entropy: f32,
    behaviour: Noise,
    updates: Noise,
    batch: Minibatch,
    work: GaussianWork,
    gradient: Vec<f32>,
    next_action: Vec<f32>,
    bonus: Vec<f32>,
    action: Vec<f32>,
    log_prob: Vec<f32>,
    q: Vec<f32>,
    dq: Vec<f32>,
    acting: GaussianWork,
    acting_log_prob: Vec<f32>,
}

impl Sac {
    /// A fresh agent for observations of width `obs` and actions of width `act`.
    pub fn new(config: &SacConfig, obs: usize, act: usize, seed: u64) -> Self {
        let (train, n) = (&config.train, config.train.batch_size);
        let hidden = Hidden {
            width: train.actor_hidden,
            layers: train.actor_layers,
            outputs: 2 * act,
            layer_norm: false,
            activation: train.activation,
            trunk: train.trunk,
        };
        let (log_std_min, log_std_max) = (config.log_std_min as f32, config.log_std_max as f32);
        let shape = GaussianShape { obs, act, hidden, log_std_min, log_std_max };
        let mut weights = Noise::new(seed, STREAM_WEIGHTS);
        let actor = GaussianNet::new(shape, SQRT_2, SQRT_2 * OUT_GAIN, &mut weights);
        let params = actor.params().len();
        Self {
            actor_adam: Adam::new(params, train.policy_lr as f32, train.max_grad_norm as f32),
            critics: Critics::new(train, obs, act, 1, &mut weights),
            log_alpha: [(config.temperature as f32).ln()],
            alpha_adam: Adam::new(1, config.temperature_lr as f32, 0.0),
            target_entropy: config.target_entropy_per_dim as f32 * act as f32,
            behaviour: Noise::new(seed, STREAM_BEHAVIOUR),
            updates: Noise::new(seed, STREAM_UPDATES),
            batch: Minibatch::new(n, obs, act),
            work: GaussianWork::new(&shape, n),
            gradient: vec![0.0; params],
            next_action: vec![0.0; n * act],
            bonus: vec![0.0; n],
            action: vec![0.0; n * act],
            log_prob: vec![0.0; n],
            q: vec![0.0; n],
            dq: vec![0.0; n * act],
            acting: GaussianWork::new(&shape, train.num_envs),
            acting_log_prob: Vec::new(),
            actor,
        }
    }

    /// Samples of the policy, with buffers that hold as many rows as asked for.
    fn draw(&mut self, obs: &[f32], noise: &mut Noise, actions: &mut [f32]) {
        let rows = self.acting_rows(actions.len());
        let log_prob = room(&mut self.acting_log_prob, rows);
        self.actor.sample(obs, actions, log_prob, noise, &mut self.acting, false);
    }

    /// Rows of so many actions, with buffers for them.
    fn acting_rows(&mut self, actions: usize) -> usize {
        let rows = actions / self.actor.shape().act;
        if rows > self.acting.rows() {
            self.acting = GaussianWork::new(self.actor.shape(), rows);
        }
        rows
    }
}

impl Agent for Sac {
    fn act(&mut self, obs: &[f32], actions: &mut [f32]) {
        let mut noise = self.behaviour.clone();
        self.draw(obs, &mut noise, actions);
        self.behaviour = noise;
    }

    fn evaluate(&mut self, obs: &[f32], particles: usize, noise: &mut Noise, actions: &mut [f32]) {
        if particles == 1 {
            return self.draw(obs, noise, actions);
        }
        self.acting_rows(actions.len());
        self.actor.mean_actions(obs, actions, &mut self.acting);
    }

    fn update(&mut self, replay: &Replay) -> UpdateStats {
        let (batch, alpha) = (&mut self.batch, self.log_alpha[0].exp());
        replay.sample(batch, &mut self.updates);

        // 1. a' and the entropy's part of its value
        let (a, log_prob, noise) = (&mut self.next_action, &mut self.bonus, &mut self.updates);
        self.actor.sample(&batch.next_obs, a, log_prob, noise, &mut self.work, false);
        log_prob.iter_mut().for_each(|l| *l *= -alpha);

        // 2. critics
        let (critic_loss, q_mean) = self.critics.learn(batch, &self.next_action, Some(&self.bonus));

        // 3. actor, through the sample
        let (s, a, log_prob) = (&batch.obs, &mut self.action, &mut self.log_prob);
        self.actor.sample(s, a, log_prob, &mut self.updates, &mut self.work, true);
        self.critics.minimum_and_gradient(s, a, 1, &mut self.q, &mut self.dq);
        self.actor.backward(s, a, &self.dq, alpha, &mut self.work, &mut self.gradient);
        let grad_norm = self.actor_adam.step(self.actor.params_mut(), &mut self.gradient);
        let entropy = -mean(&self.log_prob);
        let actor_loss = -alpha * entropy - mean(&self.q);

        // 4. alpha rises where the entropy is too low
        self.alpha_adam.step(&mut self.log_alpha, &mut [entropy - self.target_entropy]);

        let lambda = self.temperature();
        UpdateStats { critic_loss, actor_loss, q_mean, ess: f32::NAN, entropy, refused: 0, lambda, grad_norm }
    }

    fn visit(&mut self, visitor: &mut dyn Visitor) {
        visitor.f32s("actor", self.actor.params_mut());
        self.actor_adam.visit("actor_adam", visitor);
        self.critics.visit(visitor);
        visitor.f32s("log_alpha", &mut self.log_alpha);
        self.alpha_adam.visit("alpha_adam", visitor);
        self.behaviour.visit("behaviour_noise", visitor);
        self.updates.visit("update_noise", visitor);
    }

    fn temperature(&self) -> f32 {
        self.log_alpha[0].exp()
    }
}
