//! Diffusion Q-sampling (Jain et al. 2024, arXiv 2410.01312) with the target of iDEM (Akhound-Sadegh et al. 2024, arXiv
//! 2402.06121), read from top to bottom.
//!
//! A variance-exploding diffusion over latents u with a = tanh u, whose score is that of the smoothed Boltzmann density:
//! grad log E[exp(Q(s, tanh(x + sigma e)) / lambda)], estimated as the mean of grad log p_1 at K noisy neighbours with
//! weights p_1. That is Reverse Flow Matching's estimator with eta = 1. The network predicts noise, -sigma times the
//! score, which weighs all noise levels alike. One update, on a minibatch:
//! 1. an action a' at every s';
//! 2. critics: one Adam step towards r + gamma mask min Qbar(s', a'); Polyak;
//! 3. points x = atanh a + sigma e around the replayed action, log sigma uniform;
//! 4. their scores under the updated critics, from K neighbours each;
//! 5. actor: one Adam step on the mean squared error of the noise e(s, x, t) against -sigma score.
//!
//! Panics only on slices of a wrong length. After the first update nothing allocates. Deterministic given the seed.

use super::critics::Critics;
use super::diffusion::{Ancestral, Clip, DiffusionActor};
use super::{Agent, STREAM_BEHAVIOUR, STREAM_UPDATES, STREAM_WEIGHTS, UpdateStats};
use crate::config::DqsConfig;
use crate::nn::elementwise::{softmax, tanh_of};
use crate::nn::math::{atanh, log_sech2};
use crate::noise::Noise;
use crate::replay::{Minibatch, Replay};
use crate::state::Visitor;
use flowlet::flow::Schedule;

/// Replayed actions are held inside this before atanh: latents up to 5.
const ACTION_LIMIT: f32 = 0.9999;

/// The agent: networks, optimisers, random streams, and the memory an update works in.
#[derive(Clone, Debug)]
pub struct Dqs {
    config: DqsConfig,
    schedule: Schedule,
    actor: DiffusionActor,
    critics: Critics,
    behaviour: Noise,
    updates: Noise,
    batch: Minibatch,
    next_action: Vec<f32>,
    x: Vec<f32>,
    t: Vec<f32>,
    neighbours: Neighbours,
    q: Vec<f32>,
    dq: Vec<f32>,
    target: Vec<f32>,
}

impl Dqs {
    /// A fresh agent for observations of width `obs` and actions of width `act`.
    pub fn new(config: &DqsConfig, obs: usize, act: usize, seed: u64) -> Self {
        let (train, n, m, k) = (&config.train, config.train.batch_size, config.actor_batch, config.samples);
        let schedule = Schedule::Ve { sigma_min: config.sigma_min as f32, sigma_max: config.sigma_max as f32 };
        let mut weights = Noise::new(seed, STREAM_WEIGHTS);
        let chain = Ancestral::new(schedule, config.steps, 0.0, config.step_noise, Clip::None);
        Self {
            actor: DiffusionActor::new(train, chain, true, (obs, act), m, &mut weights),
            critics: Critics::new(train, obs, act, k, &mut weights),
            behaviour: Noise::new(seed, STREAM_BEHAVIOUR),
            updates: Noise::new(seed, STREAM_UPDATES),
            batch: Minibatch::new(n, obs, act),
            next_action: vec![0.0; n * act],
            x: vec![0.0; m * act],
            t: vec![0.0; m],
            neighbours: Neighbours::new(m, k, act),
            q: vec![0.0; m * k],
            dq: vec![0.0; m * k * act],
            target: vec![0.0; m * act],
            config: config.clone(),
            schedule,
        }
    }
}

impl Agent for Dqs {
    fn act(&mut self, obs: &[f32], actions: &mut [f32]) {
        self.actor.sample(obs, 1, actions, &mut self.behaviour);
    }

    fn evaluate(&mut self, obs: &[f32], particles: usize, noise: &mut Noise, actions: &mut [f32]) {
        self.actor.best(&mut self.critics, obs, particles, actions, noise);
    }

    fn update(&mut self, replay: &Replay) -> UpdateStats {
        let (noise, schedule, lambda) = (&mut self.updates, self.schedule, self.config.temperature as f32);
        replay.sample(&mut self.batch, noise);

        // 1. a'
        self.actor.sample(&self.batch.next_obs, 1, &mut self.next_action, noise);

        // 2. critics
        let (critic_loss, q_mean) = self.critics.learn(&self.batch, &self.next_action, None);

        // 3. points around the replayed latents
        let (n, m) = (self.batch.reward.len(), self.t.len());
        let s = &self.batch.obs[..m * self.batch.obs.len() / n];
        noise.uniform_in(&mut self.t, 0.0, 1.0);
        noise.gaussian(&mut self.x);
        let act = self.x.len() / m;
        for ((x, a), &t) in self.x.chunks_exact_mut(act).zip(self.batch.action.chunks_exact(act)).zip(&self.t) {
            let sigma = schedule.beta(t);
            x.iter_mut().zip(a).for_each(|(x, a)| *x = atanh(a.clamp(-ACTION_LIMIT, ACTION_LIMIT)) + sigma * *x);
        }

        // 4. scores, as noise
        self.neighbours.draw(&self.x, &self.t, schedule, noise);
        let (a, k) = (&self.neighbours.actions, self.config.samples);
        self.critics.minimum_and_gradient(s, a, k, &mut self.q, &mut self.dq);
        let density = Density { lambda, jacobian: self.config.jacobian };
        let ess = self.neighbours.score(&mut self.q, &self.dq, density, &mut self.target);
        for (target, &t) in self.target.chunks_exact_mut(act).zip(&self.t) {
            let sigma = schedule.beta(t);
            target.iter_mut().for_each(|s| *s *= -sigma);
        }

        // 5. actor
        let (actor_loss, grad_norm) = self.actor.regress(s, &self.x, &self.t, &self.target, None);
        UpdateStats { critic_loss, actor_loss, q_mean, ess, entropy: f32::NAN, refused: 0, lambda, grad_norm }
    }

    fn visit(&mut self, visitor: &mut dyn Visitor) {
        self.actor.visit(visitor);
        self.critics.visit(visitor);
        self.behaviour.visit("behaviour_noise", visitor);
        self.updates.visit("update_noise", visitor);
    }

    fn temperature(&self) -> f32 {
        self.config.temperature as f32
    }
}

/// The density of latents, exp(Q / lambda), with or without the squash's Jacobian.
#[derive(Clone, Copy, Debug)]
struct Density {
    lambda: f32,
    jacobian: bool,
}

/// K latents x + sigma e around every point, and their actions.
#[derive(Clone, Debug)]
struct Neighbours {
    samples: usize,
    act: usize,
    latents: Vec<f32>,
    actions: Vec<f32>,
}

impl Neighbours {
    fn new(points: usize, samples: usize, act: usize) -> Self {
        let len = points * samples * act;
        Self { samples, act, latents: vec![0.0; len], actions: vec![0.0; len] }
    }

    fn draw(&mut self, x: &[f32], t: &[f32], schedule: Schedule, noise: &mut Noise) {
        let act = self.act;
        noise.gaussian(&mut self.latents);
        let blocks = self.latents.chunks_exact_mut(self.samples * act).zip(x.chunks_exact(act));
        for ((block, x), &t) in blocks.zip(t) {
            let sigma = schedule.beta(t);
            for u in block.chunks_exact_mut(act) {
                u.iter_mut().zip(x).for_each(|(u, x)| *u = x + sigma * *u);
            }
        }
        tanh_of(&mut self.actions, &self.latents);
    }

    /// The means of grad log p_1 with weights p_1, from values and action gradients of Q; `q` becomes the weights.
    /// Returns the mean effective sample size.
    fn score(&self, q: &mut [f32], dq: &[f32], density: Density, out: &mut [f32]) -> f32 {
        let (act, block, inverse, mut ess) = (self.act, self.samples * self.act, 1.0 / density.lambda, 0.0);
        let points = q.chunks_exact_mut(self.samples).zip(dq.chunks_exact(block));
        let points = points.zip(self.latents.chunks_exact(block).zip(self.actions.chunks_exact(block)));
        for (((w, dq), (u, a)), out) in points.zip(out.chunks_exact_mut(act)) {
            for (w, u) in w.iter_mut().zip(u.chunks_exact(act)) {
                *w *= inverse;
                if density.jacobian {
                    *w += u.iter().map(|&u| log_sech2(u)).sum::<f32>();
                }
            }
            softmax(w);
            ess += 1.0 / w.iter().map(|w| w * w).sum::<f32>();
            out.fill(0.0);
            let drift = if density.jacobian { -2.0 } else { 0.0 };
            for ((w, dq), a) in w.iter().zip(dq.chunks_exact(act)).zip(a.chunks_exact(act)) {
                for ((out, dq), a) in out.iter_mut().zip(dq).zip(a) {
                    *out += w * ((1.0 - a * a) * dq * inverse + drift * a);
                }
            }
        }
        ess * self.samples as f32 / q.len() as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule::Ve { sigma_min: 1e-3, sigma_max: 2.0 };

    /// Q of two channels, sum_j sin(3 a_j + j), and its gradient.
    fn critic(a: &[f32], act: usize) -> (Vec<f32>, Vec<f32>) {
        let angle = |i: usize, a: f32| 3.0 * a + (i % act) as f32;
        let q = a.chunks(act).map(|a| a.iter().enumerate().map(|(i, &a)| angle(i, a).sin()).sum());
        (q.collect(), a.iter().enumerate().map(|(i, &a)| 3.0 * angle(i, a).cos()).collect())
    }

    /// The score of the smoothed density at x, by quadrature in f64: (E[u | x] - x) / sigma^2, which no gradient enters.
    fn quadrature(x: f64, sigma: f64, lambda: f64, jacobian: bool, channel: usize) -> f64 {
        let (mut mass, mut moment) = (0.0, 0.0);
        for i in -40_000..=40_000 {
            let u = x + sigma * f64::from(i) * 2e-4;
            let q = (3.0 * u.tanh() + channel as f64).sin() / lambda;
            let jacobian = if jacobian { -2.0 * u.cosh().ln() } else { 0.0 };
            let w = (q + jacobian - 0.5 * ((u - x) / sigma).powi(2)).exp();
            mass += w;
            moment += w * u;
        }
        (moment / mass - x) / (sigma * sigma)
    }

    #[test]
    fn scores_converge_to_quadrature() {
        let (lambda, samples, act) = (0.5, 40_000, 2);
        for (x, t) in [([0.3_f32, -0.8], 0.1_f32), ([1.5, 0.2], 0.3), ([-0.4, 0.9], 0.6), ([2.5, -2.0], 0.95)] {
            for jacobian in [false, true] {
                let mut neighbours = Neighbours::new(1, samples, act);
                neighbours.draw(&x, &[t], SCHEDULE, &mut Noise::new(3, 0));
                let (mut q, dq) = critic(&neighbours.actions, act);
                let mut out = [0.0; 2];
                let ess = neighbours.score(&mut q, &dq, Density { lambda, jacobian }, &mut out);
                assert!(ess > 500.0 && ess < samples as f32 * 1.001);
                for j in 0..act {
                    let want = quadrature(f64::from(x[j]), SCHEDULE.beta(t).into(), lambda.into(), jacobian, j);
                    // Gradients are of size 3 / lambda: five standard errors at the effective size.
                    let tolerance = 5.0 * 6.0 / f64::from(ess).sqrt() * f64::from(SCHEDULE.beta(t)).min(0.5) + 1e-3;
                    assert!((f64::from(out[j]) - want).abs() < tolerance, "{x:?} {t} {jacobian}: {} {want}", out[j]);
                }
            }
        }
    }
}
