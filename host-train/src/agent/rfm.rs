//! Reverse Flow Matching: the agent and its update, read from top to bottom.
//!
//! A twin critic learns Q; a velocity network learns to carry Gaussian noise to latents u with tanh u distributed as
//! exp(min Q / lambda). The flow has no samples of that target, so each regression target (E[X_1 | x_t] - x_t) / (1 - t)
//! comes from an estimator: that of [`super::posterior`], or one of flowlet's in [`super::batch`]. The recommended and
//! the published algorithm are two configurations ([`RfmConfig::standard`], [`RfmConfig::paper`]) of this one.
//!
//! One update, on a minibatch:
//! 1. a latent u' at s' (and one at s where the actor learns there), chosen among `target_particles`;
//! 2. critics: one Adam step on sum over k of mean (Q_k - y)^2, y = r + gamma mask min Qbar(s', tanh u'); Polyak;
//!    of every `actor_delay` updates all but one end here;
//! 3. points x = t u + (1 - t) e on the path, t uniform;
//! 4. their posterior means under the updated critics, from K candidate latents each;
//! 5. actor: one Adam step on the mean squared error of v(x, t, s) against (E[X_1 | x] - x) / (1 - t); its running
//!    average, which is what is evaluated and exported, follows;
//! 6. the temperature, along its schedule, or towards a target entropy or effective sample size (`docs/temperature.md`).
//!
//! Panics only on slices of a wrong length. After the first update nothing allocates. Deterministic given the seed.
//! Cost at 17 observations, 6 actions and the standard constants: about 9.2 M multiply-accumulates an update.

use super::batch::BatchEstimator;
use super::posterior::{Estimates, Points, Posterior, Values};
use super::room;
use super::select::{Pick, Selector};
pub use super::velocity_shape;
use super::{Agent, STREAM_BEHAVIOUR, STREAM_UPDATES, STREAM_WEIGHTS, UpdateStats, critic_shape, mean};
use crate::config::{ActorAt, ControlVariate, Estimator, RfmConfig, TemperatureRule};
use crate::nn::critic::{CriticShape, CriticWork, TwinCritic};
use crate::nn::elementwise::{polyak, tanh_of};
use crate::nn::lanes::{Lane, pack_groups, panels};
use crate::nn::optim::Adam;
use crate::nn::velocity::{VelocityNet, VelocityShape, VelocityWork};
use crate::noise::Noise;
use crate::replay::{Minibatch, Replay};
use crate::state::Visitor;
use crate::{Error, Result};
use flowlet::policy::Artefact;

/// The agent: networks, optimisers, temperature, random streams, and the memory an update works in.
#[derive(Clone, Debug)]
pub struct Rfm {
    config: RfmConfig,
    actor: VelocityNet,
    /// The actor's running average: what is evaluated and exported.
    average: VelocityNet,
    critic: TwinCritic,
    target: TwinCritic,
    actor_adam: Adam,
    critic_adam: Adam,
    log_lambda: f32,
    /// Updates so far.
    count: u64,
    /// What the last update reported.
    last: UpdateStats,
    behaviour: Noise,
    updates: Noise,
    selector: Selector,
    posterior: Posterior,
    /// In place of `posterior` where the configuration asks for an estimator of flowlet.
    batch: Option<BatchEstimator>,
    memory: Memory,
}

/// Buffers of an update, allocated once.
#[derive(Clone, Debug)]
struct Memory {
    batch: Minibatch,
    critic_work: CriticWork,
    actor_work: VelocityWork,
    critic_gradient: Vec<f32>,
    actor_gradient: Vec<f32>,
    next_latent: Vec<f32>,
    next_action: Vec<f32>,
    target_q: Vec<f32>,
    latent: Vec<f32>,
    x: Vec<f32>,
    t: Vec<f32>,
    candidates: Candidates,
    estimates: Estimates,
    velocity_target: Vec<f32>,
    chosen: Vec<f32>,
}

/// The candidates of all points and what the critic says about them, in lanes of points.
#[derive(Clone, Debug)]
struct Candidates {
    states: Vec<Lane>,
    latents: Vec<Lane>,
    actions: Vec<Lane>,
    q: Vec<Lane>,
    gradient: Vec<Lane>,
}

impl Rfm {
    /// A fresh agent for observations of width `obs` and actions of width `act`.
    pub fn new(config: &RfmConfig, obs: usize, act: usize, seed: u64) -> Self {
        let gain = std::f32::consts::SQRT_2;
        let mut weights = Noise::new(seed, STREAM_WEIGHTS);
        let velocity = velocity_shape(config, obs, act);
        let actor = VelocityNet::new(velocity.clone(), gain, gain * config.actor_out_gain as f32, &mut weights);
        let shape = critic_shape(&config.train, obs, act);
        let critic = TwinCritic::new(shape, gain, &mut weights);
        let limit = config.train.max_grad_norm as f32;
        let (actor_params, critic_params) = (actor.params().len(), critic.params().len());
        Self {
            config: config.clone(),
            actor_adam: Adam::new(actor_params, config.train.policy_lr as f32, limit),
            critic_adam: Adam::new(critic_params, config.train.q_lr as f32, limit),
            average: actor.clone(),
            target: critic.clone(),
            log_lambda: (config.temperature as f32).ln(),
            count: 0,
            last: UpdateStats::default(),
            behaviour: Noise::new(seed, STREAM_BEHAVIOUR),
            updates: Noise::new(seed, STREAM_UPDATES),
            selector: Selector::new(config, &velocity, &shape, config.particles.max(config.target_particles)),
            posterior: Posterior::new(config, act),
            batch: BatchEstimator::new(config, config.actor_batch, act),
            memory: Memory::new(config, &velocity, &shape, actor_params, critic_params),
            actor,
            critic,
        }
    }

    /// Step 1: a policy sample at every s', and at the actor's s where that is another state.
    fn draw_latents(&mut self) {
        let pick = Pick::Softmax { temperature: self.lambda() };
        let (m, particles) = (&mut self.memory, self.config.target_particles);
        let (actor, critic, noise) = (&self.actor, &self.critic, &mut self.updates);
        self.selector.draw(actor, critic, &m.batch.next_obs, particles, pick, noise, &mut m.next_latent);
        match self.config.actor_at {
            ActorAt::Next => {
                let len = m.latent.len();
                m.latent.copy_from_slice(&m.next_latent[..len]);
            }
            ActorAt::Current => {
                let s = &m.batch.obs[..m.t.len() * actor.shape().obs];
                self.selector.draw(actor, critic, s, particles, pick, noise, &mut m.latent);
            }
        }
    }

    /// Step 2: the critics' regression and their targets' Polyak average. Returns the loss and the mean Q.
    fn update_critics(&mut self) -> (f32, f32) {
        let m = &mut self.memory;
        tanh_of(&mut m.next_action, &m.next_latent);
        let (s, a) = (&m.batch.next_obs, &m.next_action);
        self.target.joined(self.config.train.target_twins.join(), s, a, 1, &mut m.target_q, &mut m.critic_work);
        let gamma = self.config.train.gamma as f32;
        for ((q, r), mask) in m.target_q.iter_mut().zip(&m.batch.reward).zip(&m.batch.mask) {
            *q = r + gamma * mask * *q;
        }
        let (s, a) = (&m.batch.obs, &m.batch.action);
        let (loss, q_mean) = self.critic.regress(s, a, &m.target_q, &mut m.critic_work, &mut m.critic_gradient);
        self.critic_adam.step(self.critic.params_mut(), &mut m.critic_gradient);
        polyak(self.target.params_mut(), self.critic.params(), self.config.train.tau as f32);
        (loss, q_mean)
    }

    /// Step 3: points on the straight path from noise to the policy's latents.
    fn place_points(&mut self) {
        let (m, act) = (&mut self.memory, self.actor.shape().act);
        self.updates.uniform_in(&mut m.t, self.config.train_t_min as f32, self.config.train_t_max as f32);
        self.updates.gaussian(&mut m.x);
        for ((x, u), &t) in m.x.chunks_exact_mut(act).zip(m.latent.chunks_exact(act)).zip(&m.t) {
            x.iter_mut().zip(u).for_each(|(x, u)| *x = t * u + (1.0 - t) * *x);
        }
    }

    /// Step 4: E[X_1 | x] of every point under the updated critics.
    fn estimate_posterior(&mut self) {
        let temperature = self.lambda();
        let (m, obs, k) = (&mut self.memory, self.actor.shape().obs, self.posterior.count());
        let n = m.t.len();
        let s = match self.config.actor_at {
            ActorAt::Next => &m.batch.next_obs[..n * obs],
            ActorAt::Current => &m.batch.obs[..n * obs],
        };
        let points = Points { x: &m.x, t: &m.t, centre: &m.latent };
        let (critic, work) = (&self.critic, &mut m.critic_work);
        if let Some(batch) = &mut self.batch {
            let critic = |actions: &[f32], group: usize, q: &mut [f32], gradient: &mut [f32]| {
                critic.minimum_and_gradient(s, actions, group, q, gradient, work);
            };
            batch.estimate(points, temperature, &mut self.updates, critic, &mut m.estimates);
            return;
        }
        let c = &mut m.candidates;
        pack_groups(s, obs, 1, &mut c.states);
        self.posterior.draw_noise(&mut c.latents, &mut self.updates);
        self.posterior.candidates(points, &mut c.latents, &mut c.actions);
        critic.candidates(&c.states, &c.actions, k, n, &mut c.q, &mut c.gradient, work);
        let Candidates { latents, actions, q, gradient, .. } = c;
        self.posterior.estimate(points, Values { latents, actions, q, gradient, temperature }, &mut m.estimates);
    }

    /// Step 5: the actor's regression. Returns the loss and the norm of its gradient.
    fn update_actor(&mut self) -> (f32, f32) {
        let (m, obs, act) = (&mut self.memory, self.actor.shape().obs, self.actor.shape().act);
        let rows = m.velocity_target.chunks_exact_mut(act).zip(m.estimates.mean.chunks_exact(act));
        for (((v, mean), x), &t) in rows.zip(m.x.chunks_exact(act)).zip(&m.t) {
            for ((v, mean), x) in v.iter_mut().zip(mean).zip(x) {
                *v = (mean - x) / (1.0 - t);
            }
        }
        let s = match self.config.actor_at {
            ActorAt::Next => &m.batch.next_obs[..m.t.len() * obs],
            ActorAt::Current => &m.batch.obs[..m.t.len() * obs],
        };
        let loss = self.actor.regress(s, &m.x, &m.t, &m.velocity_target, &mut m.actor_work, &mut m.actor_gradient);
        let norm = self.actor_adam.step(self.actor.params_mut(), &mut m.actor_gradient);
        polyak(self.average.params_mut(), self.actor.params(), self.config.actor_average as f32);
        (loss, norm)
    }

    /// Step 6: log lambda by its rule; up where the target's entropy or the effective sample size is too low. The step
    /// is limited, for early estimates are wild.
    fn update_temperature(&mut self, entropy: f32, ess: f32) {
        let c = &self.config;
        let actor_updates = (self.count - 1) / c.actor_delay + 1;
        let share = (actor_updates as f64 / c.anneal_updates as f64).min(1.0);
        let missing = match c.temperature_rule {
            TemperatureRule::Fixed => return,
            TemperatureRule::Annealed => {
                self.log_lambda = ((1.0 - share) * c.temperature.ln() + share * c.temperature_end.ln()) as f32;
                return;
            }
            TemperatureRule::Entropy => {
                // While values are still being learnt a cold policy would settle for the first good ones.
                let target = (1.0 - share) * c.start_entropy_per_dim + share * c.target_entropy_per_dim;
                target as f32 * self.actor.shape().act as f32 - entropy
            }
            TemperatureRule::Ess => (c.target_ess as f32 * c.candidates() as f32 / ess).ln(),
        };
        // Without an estimate it stays.
        if !missing.is_nan() {
            self.log_lambda = (self.log_lambda + c.temperature_lr as f32 * missing.clamp(-1.0, 1.0))
                .clamp(c.log_temperature_min as f32, c.log_temperature_max as f32);
        }
    }

    /// The temperature lambda.
    pub fn lambda(&self) -> f32 {
        self.log_lambda.exp()
    }

    /// The constants it was made with.
    pub fn config(&self) -> &RfmConfig {
        &self.config
    }

    /// The velocity network.
    pub fn actor(&self) -> &VelocityNet {
        &self.actor
    }

    /// The twin critic that learns (not its slow target).
    pub fn critic(&self) -> &TwinCritic {
        &self.critic
    }

    /// The average actor's parameters in the artefact's layout, constant features folded into the first bias.
    pub fn actor_params(&self) -> Vec<f32> {
        self.average.exported()
    }

    /// The parameters of critic `k` (0 or 1) in the artefact's layout.
    pub fn critic_params(&self, k: usize) -> Vec<f32> {
        self.target.one(k).to_vec()
    }
}

impl Agent for Rfm {
    fn act(&mut self, obs: &[f32], actions: &mut [f32]) {
        let pick = Pick::Softmax { temperature: self.lambda() };
        let latents = room(&mut self.memory.chosen, actions.len());
        let particles = self.config.particles;
        self.selector.draw(&self.actor, &self.critic, obs, particles, pick, &mut self.behaviour, latents);
        tanh_of(actions, latents);
    }

    fn evaluate(&mut self, obs: &[f32], particles: usize, noise: &mut Noise, actions: &mut [f32]) {
        let latents = room(&mut self.memory.chosen, actions.len());
        self.selector.draw(&self.average, &self.target, obs, particles, Pick::Best, noise, latents);
        tanh_of(actions, latents);
    }

    fn update(&mut self, replay: &Replay) -> UpdateStats {
        replay.sample(&mut self.memory.batch, &mut self.updates);
        self.draw_latents();
        let (critic_loss, q_mean) = self.update_critics();
        self.count += 1;
        if !(self.count - 1).is_multiple_of(self.config.actor_delay) {
            self.last = UpdateStats { critic_loss, q_mean, refused: 0, ..self.last };
            return self.last;
        }
        self.place_points();
        self.estimate_posterior();
        let (actor_loss, grad_norm) = self.update_actor();
        let (entropy, ess) = (mean(&self.memory.estimates.entropy), mean(&self.memory.estimates.ess));
        self.update_temperature(entropy, ess);
        let (refused, lambda) = (self.memory.estimates.refused, self.lambda());
        self.last = UpdateStats { critic_loss, actor_loss, q_mean, ess, entropy, refused, lambda, grad_norm };
        self.last
    }

    fn visit(&mut self, visitor: &mut dyn Visitor) {
        visitor.f32s("actor", self.actor.params_mut());
        visitor.f32s("average_actor", self.average.params_mut());
        visitor.f32s("critic", self.critic.params_mut());
        visitor.f32s("target_critic", self.target.params_mut());
        self.actor_adam.visit("actor_adam", visitor);
        self.critic_adam.visit("critic_adam", visitor);
        visitor.f32s("log_temperature", std::slice::from_mut(&mut self.log_lambda));
        visitor.u64s("agent_updates", std::slice::from_mut(&mut self.count));
        self.last.visit("last_actor_update", visitor);
        self.behaviour.visit("behaviour_noise", visitor);
        self.updates.visit("update_noise", visitor);
    }

    fn start_from(&mut self, artefact: &Artefact<'_>) -> Result<()> {
        let misfit = || {
            Error::failure(
                "the policy's networks are not those of the configuration: set their sizes as `inspect` shows them",
            )
        };
        let Some(velocity) = artefact.velocity().as_f32() else { return Err(misfit()) };
        if !self.actor.import(velocity.params(), velocity.frequencies().len()) {
            return Err(misfit());
        }
        self.average.params_mut().copy_from_slice(self.actor.params());
        let critics: Vec<f32> = artefact.critics().flat_map(|critic| critic.params()).copied().collect();
        if !critics.is_empty() {
            if artefact.critics().count() != 2 {
                return Err(Error::failure(
                    "training starts from two critics, and the policy has one: export it with --without-critic",
                ));
            }
            if critics.len() != self.critic.params().len() {
                return Err(misfit());
            }
            self.critic.params_mut().copy_from_slice(&critics);
            self.target.params_mut().copy_from_slice(&critics);
            self.log_lambda = artefact.temperature().ln();
        }
        Ok(())
    }

    fn temperature(&self) -> f32 {
        self.lambda()
    }

    fn as_rfm(&self) -> Option<&Rfm> {
        Some(self)
    }
}

impl Memory {
    fn new(
        config: &RfmConfig,
        velocity: &VelocityShape,
        critic: &CriticShape,
        actor_params: usize,
        critic_params: usize,
    ) -> Self {
        let (n, m, k) = (config.train.batch_size, config.actor_batch, config.candidates());
        let (obs, act) = (velocity.obs, velocity.act);
        // The others keep their candidates themselves.
        let points = if config.estimator == Estimator::Mixture { panels(m) } else { 0 };
        let lanes = |count: usize| vec![Lane::ZERO; points * count];
        let slopes = if config.control_variate == ControlVariate::None { 0 } else { k * act };
        Self {
            batch: Minibatch::new(n, obs, act),
            critic_work: CriticWork::new(critic, n, k),
            actor_work: VelocityWork::new(velocity, m),
            critic_gradient: vec![0.0; critic_params],
            actor_gradient: vec![0.0; actor_params],
            next_latent: vec![0.0; n * act],
            next_action: vec![0.0; n * act],
            target_q: vec![0.0; n],
            latent: vec![0.0; m * act],
            x: vec![0.0; m * act],
            t: vec![0.0; m],
            candidates: Candidates {
                states: lanes(obs),
                latents: lanes(k * act),
                actions: lanes(k * act),
                q: lanes(k),
                gradient: lanes(slopes),
            },
            estimates: Estimates::new(m, act),
            velocity_target: vec![0.0; m * act],
            chosen: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TrainConfig, Twins};
    use crate::replay::Transition;
    use crate::state::Digest;

    fn digest(agent: &mut Rfm) -> u64 {
        Digest::of(|visitor| agent.visit(visitor))
    }

    /// A one-step problem with two equal maxima, at a = -.5 and a = .5.
    fn reward(a: f32) -> f32 {
        -8.0 * (a * a - 0.25).powi(2)
    }

    fn bandit(noise: &mut Noise) -> Replay {
        let mut replay = Replay::new(4000, 1, 1);
        for _ in 0..4000 {
            let mut a = [0.0];
            noise.uniform_in(&mut a, -1.0, 1.0);
            let transition = Transition {
                obs: &[0.5],
                action: &a,
                reward: reward(a[0]),
                next_obs: &[0.5],
                terminated: true,
                last: true,
            };
            replay.push(transition);
        }
        replay
    }

    /// The published algorithm, cut down to a size for tests.
    fn small_paper() -> RfmConfig {
        RfmConfig {
            train: TrainConfig { actor_hidden: 32, critic_hidden: 32, batch_size: 64, ..TrainConfig::paper() },
            actor_batch: 64,
            particles: 4,
            target_particles: 4,
            bridge: 16,
            ..RfmConfig::paper()
        }
    }

    /// Shares of the plain samples in 20 bins of (-1, 1).
    fn shares(agent: &mut Rfm) -> [f64; 20] {
        let mut actions = vec![0.0; 20_000];
        agent.evaluate(&vec![0.5; actions.len()], 1, &mut Noise::new(99, 0), &mut actions);
        let mut share = [0.0; 20];
        actions.iter().for_each(|a| share[(((a + 1.0) * 10.0) as usize).min(19)] += 1.0 / 20_000.0);
        share
    }

    /// The same shares of exp(reward / lambda).
    fn boltzmann(lambda: f32) -> [f64; 20] {
        let mut target = [0.0; 20];
        (0..20_000).for_each(|i| {
            target[i / 1000] += f64::from(reward((i as f32 + 0.5) / 10_000.0 - 1.0) / lambda).exp();
        });
        let z: f64 = target.iter().sum();
        target.map(|t| t / z)
    }

    /// The flow becomes the Boltzmann policy of the reward, both modes of it: critics, estimator, regression and
    /// sampler together. The candidates are four times the usual ones, for few of them flatten the target.
    #[test]
    fn the_flow_learns_the_boltzmann_policy() {
        let replay = bandit(&mut Noise::new(7, 0));
        let fixed = |config: RfmConfig| RfmConfig {
            temperature: 0.15,
            temperature_rule: TemperatureRule::Fixed,
            actor_batch: 64,
            integration_steps: 10,
            bridge: 4 * config.bridge,
            uniform: 4 * config.uniform,
            kernel: 4 * config.kernel,
            ..config
        };
        // The bridge alone is a poor proposal at small t: without those, 2000 updates are enough for it.
        let mut paper = RfmConfig { train_t_min: 0.3, ..small_paper() };
        paper.train.policy_lr = 1e-3;
        let auto = RfmConfig { estimator: Estimator::Auto, ..RfmConfig::standard() };
        for (config, updates, bound) in [(RfmConfig::standard(), 3000, 0.4), (auto, 3000, 0.4), (paper, 2000, 0.45)] {
            let mut agent = Rfm::new(&fixed(config), 1, 1, 3);
            let target = boltzmann(agent.lambda());
            let distance = |share: [f64; 20]| share.iter().zip(target).map(|(s, t)| (s - t).abs()).sum::<f64>();
            let before = distance(shares(&mut agent));
            (0..updates).for_each(|_| {
                agent.update(&replay);
            });
            let after = distance(shares(&mut agent));
            assert!(before > 0.9 && after < bound, "distance to the target: {before} before, {after} after");
        }
    }

    /// The temperature settles where the target's entropy is the one asked for.
    #[test]
    fn the_temperature_finds_its_entropy() {
        let replay = bandit(&mut Noise::new(8, 0));
        for estimator in [Estimator::Mixture, Estimator::Auto] {
            let target = RfmConfig {
                temperature_lr: 3e-3,
                target_entropy_per_dim: 0.0,
                start_entropy_per_dim: 0.0,
                ..RfmConfig::standard()
            };
            let mut agent = Rfm::new(&RfmConfig { estimator, ..target }, 1, 1, 1);
            (0..3000).for_each(|_| {
                agent.update(&replay);
            });
            // By quadrature: the entropy of exp(reward / lambda) over (-1, 1).
            let inverse = 1.0 / f64::from(agent.lambda());
            let (mut z, mut energy) = (0.0, 0.0);
            for i in 0..20_000 {
                let r = f64::from(reward(((f64::from(i) + 0.5) / 10_000.0 - 1.0) as f32)) * inverse;
                z += r.exp() * 1e-4;
                energy += r * r.exp() * 1e-4;
            }
            let entropy = z.ln() - energy / z;
            let lambda = agent.lambda();
            assert!(entropy.abs() < 0.15, "{estimator:?}: lambda {lambda} has entropy {entropy} where 0 was asked for");
        }
    }

    /// The temperature settles where the posterior means have the effective sample size asked for.
    #[test]
    fn the_temperature_finds_its_effective_sample_size() {
        let replay = bandit(&mut Noise::new(11, 0));
        for target_ess in [0.4, 0.6] {
            let rule =
                RfmConfig { temperature_rule: TemperatureRule::Ess, temperature_lr: 1e-2, ..RfmConfig::standard() };
            let mut agent = Rfm::new(&RfmConfig { target_ess, ..rule }, 1, 1, 1);
            let settled: Vec<f32> = (0..1500).map(|_| agent.update(&replay).ess).skip(1000).collect();
            let share = mean(&settled) / agent.config().candidates() as f32;
            assert!((share - target_ess as f32).abs() < 0.05, "{share} where {target_ess} was asked for");
        }
    }

    /// Half way through the annealing lambda is the geometric mean of both ends; afterwards it stays at the end.
    #[test]
    fn annealing_follows_its_schedule() {
        let replay = bandit(&mut Noise::new(12, 0));
        let rule = RfmConfig { temperature_rule: TemperatureRule::Annealed, actor_delay: 2, ..RfmConfig::standard() };
        let ends = RfmConfig { temperature: 0.4, temperature_end: 0.1, anneal_updates: 20, ..rule };
        let mut agent = Rfm::new(&ends, 1, 1, 1);
        let lambdas: Vec<f32> = (0..60).map(|_| agent.update(&replay).lambda).collect();
        assert!((lambdas[19] - 0.2).abs() < 1e-6, "{}", lambdas[19]);
        assert!(lambdas.windows(2).all(|w| w[1] <= w[0]) && lambdas[39..].iter().all(|l| (l - 0.1).abs() < 1e-6));
    }

    /// With a delay of three the actor and the temperature move at the first and the fourth update, the critics always.
    #[test]
    fn a_delayed_actor_waits() {
        let replay = bandit(&mut Noise::new(13, 0));
        let mut agent = Rfm::new(&RfmConfig { actor_delay: 3, ..RfmConfig::standard() }, 1, 1, 1);
        let mut moved = Vec::new();
        for _ in 0..6 {
            let (actor, critic, lambda) = (agent.actor_params(), agent.critic_params(0), agent.lambda());
            let stats = agent.update(&replay);
            assert_ne!(agent.critic_params(0), critic);
            assert_eq!(agent.actor_params() == actor, agent.lambda() == lambda);
            assert!(stats.lambda == agent.lambda() && stats.actor_loss > 0.0);
            moved.push(agent.actor_params() != actor);
        }
        assert_eq!(moved, [true, false, false, true, false, false]);
    }

    /// What is exported and evaluated is the running average of what learns, from the first weights on.
    #[test]
    fn the_average_actor_follows() {
        let replay = bandit(&mut Noise::new(14, 0));
        let mut agent = Rfm::new(&RfmConfig { actor_average: 0.25, ..RfmConfig::standard() }, 1, 1, 1);
        let mut average = agent.actor().params().to_vec();
        for _ in 0..20 {
            agent.update(&replay);
            average.iter_mut().zip(agent.actor().params()).for_each(|(a, p)| *a += 0.25 * (p - *a));
        }
        assert_ne!(average, agent.actor().params());
        let follows = |values: &[f32]| values.iter().zip(&average).all(|(v, a)| (v - a).abs() < 1e-6);
        assert!(follows(agent.average.params()));
        assert_eq!(agent.actor_params(), agent.average.exported());
        let mut of_average = agent.clone();
        of_average.actor = of_average.average.clone();
        let [mut one, mut other] = [[0.0; 4], [0.0; 4]];
        agent.evaluate(&[0.5; 4], 1, &mut Noise::new(1, 2), &mut one);
        of_average.evaluate(&[0.5; 4], 1, &mut Noise::new(1, 2), &mut other);
        assert_eq!(one, other);
        // Behaviour is the live actor's.
        agent.act(&[0.5; 4], &mut one);
        of_average.act(&[0.5; 4], &mut other);
        assert_ne!(one, other);
    }

    /// Critics reach the fixed point of r + gamma Q: reward 1 for ever, gamma .5, so Q = 2; and Q = 1 where it ends.
    #[test]
    fn masks_decide_what_is_bootstrapped() {
        for (terminated, target_twins, want) in
            [(false, Twins::Min, 2.0), (false, Twins::Mean, 2.0), (true, Twins::Min, 1.0)]
        {
            let mut replay = Replay::new(100, 1, 1);
            for i in 0..100 {
                let action = [i as f32 / 50.0 - 0.99];
                replay.push(Transition {
                    obs: &[0.5],
                    action: &action,
                    reward: 1.0,
                    next_obs: &[0.5],
                    terminated,
                    last: true,
                });
            }
            let train = TrainConfig { gamma: 0.5, tau: 0.05, target_twins, ..TrainConfig::standard() };
            let config = RfmConfig { train, ..RfmConfig::standard() };
            let mut agent = Rfm::new(&config, 1, 1, 1);
            let stats = (0..1000).map(|_| agent.update(&replay)).last().unwrap();
            assert!((stats.q_mean - want).abs() < 0.05, "{terminated}: {}", stats.q_mean);
        }
    }

    /// Every switch of the configuration runs, stays finite, learns, and repeats bit for bit.
    #[test]
    fn all_switches_run_and_repeat() {
        let replay = bandit(&mut Noise::new(9, 0));
        let mut configs = vec![RfmConfig::standard(), small_paper()];
        for control_variate in [ControlVariate::Eta, ControlVariate::Diagonal, ControlVariate::Fisher] {
            configs.push(RfmConfig { control_variate, ..RfmConfig::standard() });
        }
        configs.push(RfmConfig { actor_at: ActorAt::Current, target_particles: 3, ..RfmConfig::standard() });
        for estimator in [Estimator::Auto, Estimator::Mala, Estimator::Smc] {
            configs.push(RfmConfig { estimator, ..RfmConfig::standard() });
        }
        let train = TrainConfig { actor_layers: 1, critic_layers: 3, ..TrainConfig::standard() };
        configs.push(RfmConfig { train, particles: 1, ..RfmConfig::standard() });
        let train = TrainConfig { critic_layer_norm: true, ..TrainConfig::standard() };
        configs.push(RfmConfig { train, ..RfmConfig::standard() });
        configs.push(RfmConfig { actor_delay: 3, ..RfmConfig::standard() });
        for temperature_rule in [TemperatureRule::Fixed, TemperatureRule::Annealed, TemperatureRule::Ess] {
            configs.push(RfmConfig { temperature_rule, ..RfmConfig::standard() });
        }
        let mut digests = Vec::new();
        for config in configs {
            let run = |seed| {
                let mut agent = Rfm::new(&config, 1, 1, seed);
                let fresh = digest(&mut agent);
                for _ in 0..10 {
                    let s = agent.update(&replay);
                    let all = [s.critic_loss, s.actor_loss, s.q_mean, s.ess, s.entropy, s.lambda, s.grad_norm];
                    assert!(all.iter().all(|x| x.is_finite()), "{s:?}");
                    let candidates = config.candidates() as f32;
                    assert!(s.ess >= 0.999 && s.ess <= 1.001 * candidates);
                    agent.act(&[0.5, 0.5], &mut [0.0; 2]);
                }
                assert_ne!(digest(&mut agent), fresh);
                digest(&mut agent)
            };
            assert_eq!(run(1), run(1));
            assert_ne!(run(1), run(2));
            digests.push(run(1));
        }
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 15, "two of the configurations learned the same");
    }

    /// Evaluating with a stream of its own leaves training as it was.
    #[test]
    fn evaluation_does_not_disturb() {
        let replay = bandit(&mut Noise::new(10, 0));
        let mut agents = [1, 1].map(|seed| Rfm::new(&RfmConfig::standard(), 1, 1, seed));
        for i in 0..6 {
            let mut noise = Noise::new(i, 50);
            agents[0].evaluate(&[0.1; 30], 600, &mut noise, &mut [0.0; 30]);
            agents[0].evaluate(&[0.1; 30], 1, &mut noise, &mut [0.0; 30]);
            let actions = agents.each_mut().map(|agent| {
                agent.update(&replay);
                let mut a = [0.0; 3];
                agent.act(&[0.1, 0.2, 0.3], &mut a);
                a
            });
            assert_eq!(actions[0], actions[1]);
        }
        let [one, two] = agents.each_mut().map(digest);
        assert_eq!(one, two);
    }

    /// The layouts of the contract with the artefact.
    #[test]
    fn exports_have_the_artefact_s_lengths() {
        let agent = Rfm::new(&RfmConfig::standard(), 3, 1, 1);
        assert_eq!(agent.actor_params().len(), (3 + 1 + 8 + 1) * 64 + 65 * 64 + 65);
        assert_eq!(agent.critic_params(0).len(), (3 + 1 + 1) * 64 + 65 * 64 + 65);
        assert_ne!(agent.critic_params(0), agent.critic_params(1));
        let paper = Rfm::new(&small_paper(), 3, 1, 1);
        assert_eq!(paper.actor_params().len(), (3 + 1 + 128 + 1) * 32 + 2 * 33 * 32 + 33);
    }
}
