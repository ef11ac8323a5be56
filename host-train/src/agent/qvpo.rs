//! Q-weighted variational policy optimisation (Ding et al. 2024, arXiv 2405.16173), read from top to bottom.
//!
//! A diffusion policy on the cosine schedule that imitates the best of its own samples: of `samples` actions of a state
//! it regresses on the one with the largest Q, weighted by how far that stands above their mean, and for the entropy on
//! a few uniform actions of a small weight. One update, on a minibatch:
//! 1. an action a' at every s', the best of `target_particles`;
//! 2. critics: one Adam step towards r + gamma mask min Qbar(s', a'); Polyak;
//! 3. the best of `samples` actions at every s, with weight (max Q - mean Q)+, and uniform ones with a share of it;
//! 4. actor: one Adam step on the weighted mean squared error of the noise at points of the paths to all of those.
//!
//! Panics only on slices of a wrong length. After the first update nothing allocates. Deterministic given the seed.

use super::critics::Critics;
use super::diffusion::{Ancestral, Clip, DiffusionActor, highest, place};
use super::{Agent, STREAM_BEHAVIOUR, STREAM_UPDATES, STREAM_WEIGHTS, UpdateStats};
use crate::config::QvpoConfig;
use crate::noise::Noise;
use crate::replay::{Minibatch, Replay};
use crate::state::Visitor;
use flowlet::flow::Schedule;

/// The published schedule, without its offset; [`T_START`] stands for that.
const SCHEDULE: Schedule = Schedule::VpCosine;
/// Flow time at which sampling starts: alpha must not be zero.
const T_START: f32 = 0.01;

/// The agent: networks, optimisers, random streams, and the memory an update works in.
#[derive(Clone, Debug)]
pub struct Qvpo {
    config: QvpoConfig,
    actor: DiffusionActor,
    critics: Critics,
    behaviour: Noise,
    updates: Noise,
    batch: Minibatch,
    next_action: Vec<f32>,
    candidates: Vec<f32>,
    q: Vec<f32>,
    lessons: Lessons,
    x: Vec<f32>,
    t: Vec<f32>,
    noise: Vec<f32>,
}

impl Qvpo {
    /// A fresh agent for observations of width `obs` and actions of width `act`.
    pub fn new(config: &QvpoConfig, obs: usize, act: usize, seed: u64) -> Self {
        let (train, n, m) = (&config.train, config.train.batch_size, config.actor_batch);
        let rows = m * (1 + config.uniform);
        let mut weights = Noise::new(seed, STREAM_WEIGHTS);
        let chain = Ancestral::new(SCHEDULE, config.steps, T_START, config.step_noise, Clip::Data);
        let particles = config.samples.max(config.particles).max(config.target_particles);
        Self {
            actor: DiffusionActor::new(train, chain, false, (obs, act), rows, &mut weights),
            critics: Critics::new(train, obs, act, particles, &mut weights),
            behaviour: Noise::new(seed, STREAM_BEHAVIOUR),
            updates: Noise::new(seed, STREAM_UPDATES),
            batch: Minibatch::new(n, obs, act),
            next_action: vec![0.0; n * act],
            candidates: vec![0.0; m * config.samples * act],
            q: vec![0.0; m * config.samples],
            lessons: Lessons::new(rows, obs, act),
            x: vec![0.0; rows * act],
            t: vec![0.0; rows],
            noise: vec![0.0; rows * act],
            config: config.clone(),
        }
    }
}

impl Agent for Qvpo {
    fn act(&mut self, obs: &[f32], actions: &mut [f32]) {
        self.actor.best(&mut self.critics, obs, self.config.particles, actions, &mut self.behaviour);
    }

    fn evaluate(&mut self, obs: &[f32], particles: usize, noise: &mut Noise, actions: &mut [f32]) {
        self.actor.best(&mut self.critics, obs, particles, actions, noise);
    }

    fn update(&mut self, replay: &Replay) -> UpdateStats {
        let (c, noise) = (&self.config, &mut self.updates);
        replay.sample(&mut self.batch, noise);

        // 1. a'
        let next = (&self.batch.next_obs, c.target_particles);
        self.actor.best(&mut self.critics, next.0, next.1, &mut self.next_action, noise);

        // 2. critics
        let (critic_loss, q_mean) = self.critics.learn(&self.batch, &self.next_action, None);

        // 3. what to imitate
        let s = &self.batch.obs[..c.actor_batch * self.batch.obs.len() / self.batch.reward.len()];
        self.actor.sample(s, c.samples, &mut self.candidates, noise);
        self.critics.minimum(s, &self.candidates, c.samples, &mut self.q);
        let share = c.uniform_weight as f32;
        self.lessons.choose(s, &self.candidates, &self.q, c.actor_batch, share, noise);

        // 4. actor
        let steps = self.actor.ancestral().len();
        self.t.iter_mut().for_each(|t| *t = self.actor.ancestral().at(noise.below(steps)).0);
        noise.gaussian(&mut self.noise);
        self.x.copy_from_slice(&self.noise);
        place(SCHEDULE, &self.t, &self.lessons.actions, &mut self.x);
        let (s, weights) = (&self.lessons.states, &self.lessons.weights);
        let (actor_loss, grad_norm) = self.actor.regress(s, &self.x, &self.t, &self.noise, Some(weights));
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

/// States, actions and weights of the regression: first the best action of each state, then its uniform ones.
#[derive(Clone, Debug)]
struct Lessons {
    states: Vec<f32>,
    actions: Vec<f32>,
    weights: Vec<f32>,
}

impl Lessons {
    fn new(rows: usize, obs: usize, act: usize) -> Self {
        Self { states: vec![0.0; rows * obs], actions: vec![0.0; rows * act], weights: vec![0.0; rows] }
    }

    /// Fills all rows from the `n` states `s`, their candidates and the candidates' values.
    fn choose(&mut self, s: &[f32], candidates: &[f32], q: &[f32], n: usize, share: f32, noise: &mut Noise) {
        let (samples, act) = (q.len() / n, candidates.len() / q.len());
        noise.uniform_in(&mut self.actions[n * act..], -1.0, 1.0);
        self.states.chunks_exact_mut(s.len()).for_each(|states| states.copy_from_slice(s));
        for (i, q) in q.chunks_exact(samples).enumerate() {
            let best = highest(q);
            let at = (i * samples + best) * act;
            self.actions[i * act..(i + 1) * act].copy_from_slice(&candidates[at..at + act]);
            // Rounding may put the mean of equals above them.
            let advantage = (q[best] - q.iter().sum::<f32>() / samples as f32).max(0.0);
            self.weights[i] = advantage;
            self.weights[n..].iter_mut().skip(i).step_by(n).for_each(|w| *w = share * advantage);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lessons_are_the_best_and_the_uniform() {
        let (obs, act, n, samples, uniform) = (1, 2, 2, 3, 50);
        let mut lessons = Lessons::new(n * (1 + uniform), obs, act);
        let candidates: Vec<f32> = (0..n * samples * act).map(|i| i as f32 / 100.0).collect();
        let q = [1.0, 4.0, 1.0, -3.0, -3.0, -3.0];
        lessons.choose(&[0.25, 0.75], &candidates, &q, n, 0.1, &mut Noise::new(1, 0));
        // The second of the first state, whose advantage is 4 - 2; the first of the second, equal to the others.
        assert_eq!(lessons.actions[..4], [0.02, 0.03, 0.06, 0.07]);
        assert_eq!(lessons.weights[..2], [2.0, 0.0]);
        assert_eq!(lessons.states, [0.25, 0.75].repeat(1 + uniform));
        for row in 1..=uniform {
            assert_eq!(lessons.weights[row * n..(row + 1) * n], [0.2, 0.0]);
        }
        let drawn = &lessons.actions[n * act..];
        let mean = drawn.iter().sum::<f32>() / drawn.len() as f32;
        // Variance 1/3 over 200 numbers: five standard errors.
        assert!(mean.abs() < 0.21 && drawn.iter().all(|a| a.abs() < 1.0));
        assert!(drawn.iter().any(|a| a.abs() > 0.9) && drawn.iter().any(|a| a.abs() < 0.1));
    }
}
