//! Q-weighted noise estimation: MaxEntDP (Dong et al. 2025, arXiv 2502.11612), read from top to bottom.
//!
//! A diffusion policy on the cosine schedule for the Boltzmann density exp(Q / lambda) of actions in the box. Its noise
//! network is taught E[e | x_t], which is a posterior mean: noises are drawn from the normal cut to those that leave the
//! clean action in the box, and averaged with weights exp(Q / lambda). That is Reverse Flow Matching's estimator on the
//! noise side with eta = 0, no control variate, and the source alone for a proposal. One update, on a minibatch:
//! 1. an action a' at every s', and its log-probability from the noise network's own errors;
//! 2. critics: one Adam step towards r + gamma mask (min Qbar(s', a') - lambda log pi(a' | s')); Polyak;
//! 3. points x = alpha a + beta e on the path to the replayed action, t uniform;
//! 4. their noise posterior means under the updated critics, from K noises each;
//! 5. actor: one Adam step on the mean squared error of e(s, x, t) against those.
//!
//! The log-probability is the integral over the log signal-to-noise ratio l = ln(alpha^2 / beta^2) (Kong et al. 2023,
//! "Information-theoretic diffusion"; MaxEntDP's equation for the entropy)
//!
//! ```text
//! log pi(a) = -d/2 ln(2 pi e) + 1/2 int (d alpha^2 - E|e - e(s, alpha a + beta e, t)|^2) dl,
//! ```
//!
//! where alpha^2 |e|^2 stands here for its mean d alpha^2: the same expectation, and the noise of the two terms cancels
//! where the network knows nothing, so that one noise a level is enough.
//!
//! Panics only on slices of a wrong length. After the first update nothing allocates. Deterministic given the seed.

use super::critics::Critics;
use super::diffusion::{Ancestral, Clip, DiffusionActor, place};
use super::{Agent, STREAM_BEHAVIOUR, STREAM_UPDATES, STREAM_WEIGHTS, UpdateStats, mean};
use crate::config::QneConfig;
use crate::nn::elementwise::softmax;
use crate::nn::math::vectorised;
use crate::nn::quantile::Truncated;
use crate::noise::Noise;
use crate::replay::{Minibatch, Replay};
use crate::state::Visitor;
use flowlet::flow::Schedule;

/// The published schedule, without the offset at the noise end that sampling's start stands for.
const SCHEDULE: Schedule = Schedule::VpCosine;

/// The agent: networks, optimisers, random streams, and the memory an update works in.
#[derive(Clone, Debug)]
pub struct Qne {
    config: QneConfig,
    actor: DiffusionActor,
    critics: Critics,
    levels: Vec<Level>,
    behaviour: Noise,
    updates: Noise,
    batch: Minibatch,
    next_action: Vec<f32>,
    log_prob: Vec<f32>,
    levels_memory: LevelsMemory,
    x: Vec<f32>,
    t: Vec<f32>,
    candidates: Candidates,
    q: Vec<f32>,
    target: Vec<f32>,
}

impl Qne {
    /// A fresh agent for observations of width `obs` and actions of width `act`.
    pub fn new(config: &QneConfig, obs: usize, act: usize, seed: u64) -> Self {
        let (train, n, m) = (&config.train, config.train.batch_size, config.actor_batch);
        let mut weights = Noise::new(seed, STREAM_WEIGHTS);
        let (t_min, t_max) = (config.train_t_min as f32, config.train_t_max as f32);
        let chain = Ancestral::new(SCHEDULE, config.steps, t_min, config.step_noise, Clip::Data);
        Self {
            actor: DiffusionActor::new(train, chain, false, (obs, act), m, &mut weights),
            critics: Critics::new(train, obs, act, config.samples, &mut weights),
            levels: levels(config.entropy_steps, t_min, t_max),
            behaviour: Noise::new(seed, STREAM_BEHAVIOUR),
            updates: Noise::new(seed, STREAM_UPDATES),
            batch: Minibatch::new(n, obs, act),
            next_action: vec![0.0; n * act],
            log_prob: vec![0.0; n],
            levels_memory: LevelsMemory::new(n * act),
            x: vec![0.0; m * act],
            t: vec![0.0; m],
            candidates: Candidates::new(m, config.samples, act),
            q: vec![0.0; m * config.samples],
            target: vec![0.0; m * act],
            config: config.clone(),
        }
    }
}

impl Agent for Qne {
    fn act(&mut self, obs: &[f32], actions: &mut [f32]) {
        self.actor.sample(obs, 1, actions, &mut self.behaviour);
    }

    fn evaluate(&mut self, obs: &[f32], particles: usize, noise: &mut Noise, actions: &mut [f32]) {
        self.actor.best(&mut self.critics, obs, particles, actions, noise);
    }

    fn update(&mut self, replay: &Replay) -> UpdateStats {
        let (c, noise, lambda) = (&self.config, &mut self.updates, self.config.temperature as f32);
        replay.sample(&mut self.batch, noise);

        // 1. a' and its log-probability
        let (next_obs, act) = (&self.batch.next_obs, self.next_action.len() / self.log_prob.len());
        self.actor.sample(next_obs, 1, &mut self.next_action, noise);
        let mut entropy = f32::NAN;
        if !self.levels.is_empty() {
            let predict = |level: &Level, x: &[f32], e: &mut [f32]| self.actor.predict(next_obs, x, level.t, e);
            let (actions, memory) = (&self.next_action, &mut self.levels_memory);
            log_probability(&self.levels, c.entropy_samples, actions, predict, noise, memory, &mut self.log_prob);
            entropy = -mean(&self.log_prob);
            self.log_prob.iter_mut().for_each(|l| *l *= -lambda);
        }

        // 2. critics
        let bonus = (!self.levels.is_empty()).then_some(&self.log_prob[..]);
        let (critic_loss, q_mean) = self.critics.learn(&self.batch, &self.next_action, bonus);

        // 3. points of the path
        let m = self.t.len();
        let (s, a) = (&self.batch.obs[..m * self.batch.obs.len() / self.batch.reward.len()], &self.batch.action);
        noise.uniform_in(&mut self.t, c.train_t_min as f32, c.train_t_max as f32);
        noise.gaussian(&mut self.x);
        place(SCHEDULE, &self.t, &a[..m * act], &mut self.x);

        // 4. noise posterior means
        self.candidates.draw(&self.x, &self.t, noise);
        self.critics.minimum(s, &self.candidates.actions, c.samples, &mut self.q);
        let ess = self.candidates.average(&mut self.q, lambda, &mut self.target);

        // 5. actor
        let (actor_loss, grad_norm) = self.actor.regress(s, &self.x, &self.t, &self.target, None);
        UpdateStats { critic_loss, actor_loss, q_mean, ess, entropy, refused: 0, lambda, grad_norm }
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

/// K noises for every point, and the clean actions that they leave.
#[derive(Clone, Debug)]
struct Candidates {
    samples: usize,
    act: usize,
    noise: Vec<f32>,
    actions: Vec<f32>,
}

impl Candidates {
    fn new(points: usize, samples: usize, act: usize) -> Self {
        let len = points * samples * act;
        Self { samples, act, noise: vec![0.0; len], actions: vec![0.0; len] }
    }

    /// Noises e of the normal cut to those for which (x - beta e) / alpha is in the box.
    fn draw(&mut self, x: &[f32], t: &[f32], noise: &mut Noise) {
        let (act, block) = (self.act, self.samples * self.act);
        noise.uniform_in(&mut self.noise, 0.0, 1.0);
        let blocks = self.noise.chunks_exact_mut(block).zip(self.actions.chunks_exact_mut(block));
        for (((e, a), x), &t) in blocks.zip(x.chunks_exact(act)).zip(t) {
            let (alpha, beta) = (SCHEDULE.alpha(t), SCHEDULE.beta(t));
            let (to_noise, to_action) = (1.0 / beta, 1.0 / alpha);
            for (j, &x) in x.iter().enumerate() {
                let cut = Truncated::new((x - alpha) * to_noise, (x + alpha) * to_noise);
                vectorised(|| {
                    for (e, a) in e.iter_mut().zip(a.iter_mut()).skip(j).step_by(act) {
                        *e = cut.draw(*e);
                        *a = ((x - beta * *e) * to_action).clamp(-1.0, 1.0);
                    }
                });
            }
        }
    }

    /// The means of the noises with weights exp(q / lambda), which `q` is overwritten with. Returns the mean effective
    /// sample size.
    fn average(&self, q: &mut [f32], lambda: f32, out: &mut [f32]) -> f32 {
        let (act, mut ess) = (self.act, 0.0);
        let points = q.chunks_exact_mut(self.samples).zip(self.noise.chunks_exact(self.samples * act));
        for ((w, e), out) in points.zip(out.chunks_exact_mut(act)) {
            w.iter_mut().for_each(|q| *q /= lambda);
            softmax(w);
            ess += 1.0 / w.iter().map(|w| w * w).sum::<f32>();
            out.fill(0.0);
            for (w, e) in w.iter().zip(e.chunks_exact(act)) {
                out.iter_mut().zip(e).for_each(|(o, e)| *o += w * e);
            }
        }
        ess * self.samples as f32 / q.len() as f32
    }
}

/// A noise level of the log-probability's integral.
#[derive(Clone, Copy, Debug)]
struct Level {
    t: f32,
    alpha: f32,
    beta: f32,
    /// Half the width of its interval of the log signal-to-noise ratio.
    weight: f32,
}

/// `count` levels over flow times from `low` to `high`, equal steps of time.
fn levels(count: usize, low: f32, high: f32) -> Vec<Level> {
    let ratio = |t: f32| 2.0 * (SCHEDULE.alpha(t) / SCHEDULE.beta(t)).ln();
    let edge = |i: usize| low + (high - low) * i as f32 / count as f32;
    let level = |i: usize| {
        let t = 0.5 * (edge(i) + edge(i + 1));
        let weight = 0.5 * (ratio(edge(i + 1)) - ratio(edge(i)));
        Level { t, alpha: SCHEDULE.alpha(t), beta: SCHEDULE.beta(t), weight }
    };
    (0..count).map(level).collect()
}

/// Scratch of the log-probability, a number an action component.
#[derive(Clone, Debug)]
struct LevelsMemory {
    noise: Vec<f32>,
    x: Vec<f32>,
    predicted: Vec<f32>,
}

impl LevelsMemory {
    fn new(len: usize) -> Self {
        Self { noise: vec![0.0; len], x: vec![0.0; len], predicted: vec![0.0; len] }
    }
}

/// The log-probabilities of `actions` (rows) under the diffusion whose noise `predict` tells at a level's points.
fn log_probability(
    levels: &[Level],
    samples: usize,
    actions: &[f32],
    mut predict: impl FnMut(&Level, &[f32], &mut [f32]),
    noise: &mut Noise,
    memory: &mut LevelsMemory,
    out: &mut [f32],
) {
    let act = actions.len() / out.len();
    let LevelsMemory { noise: e, x, predicted } = memory;
    // -ln(2 pi e) / 2 a channel
    out.fill(-1.418_938_5 * act as f32);
    for level in levels {
        let Level { alpha, beta, weight, .. } = *level;
        let weight = weight / samples as f32;
        for _ in 0..samples {
            noise.gaussian(e);
            x.iter_mut().zip(actions).zip(e.iter()).for_each(|((x, a), e)| *x = alpha * a + beta * e);
            predict(level, x, predicted);
            let rows = x.chunks_exact(act).zip(e.chunks_exact(act)).zip(predicted.chunks_exact(act));
            for (out, ((x, e), p)) in out.iter_mut().zip(rows) {
                for ((x, e), p) in x.iter().zip(e).zip(p) {
                    // The chain clips the data that the noise implies, so this is the noise it believes in.
                    let data = ((x - beta * p) / alpha).clamp(-1.0, 1.0);
                    let error = e - (x - alpha * data) / beta;
                    *out += weight * (alpha * alpha * e * e - error * error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Q(a) = sin(3 a) + a.
    fn critic(a: f32) -> f32 {
        (3.0 * a).sin() + a
    }

    /// E[e | x] with a of density exp(Q / lambda) on the box, by quadrature in f64.
    fn quadrature(x: f64, t: f32, lambda: f64) -> f64 {
        let (alpha, beta) = (f64::from(SCHEDULE.alpha(t)), f64::from(SCHEDULE.beta(t)));
        let (mut mass, mut moment) = (0.0, 0.0);
        for i in 0..200_000 {
            let a = (f64::from(i) + 0.5) / 100_000.0 - 1.0;
            let e = (x - alpha * a) / beta;
            let w = (((3.0 * a).sin() + a) / lambda - 0.5 * e * e).exp();
            mass += w;
            moment += w * e;
        }
        moment / mass
    }

    #[test]
    fn averages_converge_to_quadrature() {
        let (lambda, samples) = (0.5, 40_000);
        // Points in the middle, beyond the box, and near either end of the path.
        for (x, t) in [(0.3_f32, 0.5_f32), (1.4, 0.5), (-0.6, 0.9), (1.1, 0.97), (-2.0, 0.05), (0.4, 0.01)] {
            let mut candidates = Candidates::new(1, samples, 1);
            candidates.draw(&[x], &[t], &mut Noise::new(3, 0));
            assert!(candidates.actions.iter().all(|a| a.abs() <= 1.0));
            let mut q: Vec<f32> = candidates.actions.iter().map(|&a| critic(a)).collect();
            let mut out = [0.0];
            let ess = candidates.average(&mut q, lambda, &mut out);
            let want = quadrature(f64::from(x), t, f64::from(lambda));
            // The noises have spread one at most, and a tenth of them counts: five standard errors.
            assert!((f64::from(out[0]) - want).abs() < 5.0 / (ess).sqrt() as f64 * 0.7, "{x} {t}: {} {want}", out[0]);
            assert!(ess > 2_000.0 && ess <= samples as f32 * 1.001);
        }
    }

    /// Several channels keep their own limits, and the noise and the action of a candidate belong together.
    #[test]
    fn candidates_solve_the_path() {
        let (points, samples, act) = (5, 7, 3);
        let mut noise = Noise::new(4, 0);
        let (mut x, mut t) = (vec![0.0; points * act], vec![0.0; points]);
        noise.gaussian(&mut x);
        noise.uniform_in(&mut t, 0.1, 0.9);
        let mut candidates = Candidates::new(points, samples, act);
        candidates.draw(&x, &t, &mut noise);
        for (i, (e, a)) in candidates.noise.iter().zip(&candidates.actions).enumerate() {
            let (point, j) = (i / (samples * act), i % act);
            let (alpha, beta) = (SCHEDULE.alpha(t[point]), SCHEDULE.beta(t[point]));
            assert!((alpha * a + beta * e - x[point * act + j]).abs() < 1e-4 && a.abs() <= 1.0);
        }
    }

    /// With the exact noise of a Gaussian that fits the box, the integral is its log-density; with many noises a level
    /// the replaced mean d alpha^2 gives the same.
    #[test]
    fn log_probabilities_are_those_of_a_gaussian() {
        let (mean, spread) = (0.1_f32, 0.15_f32);
        let actions: Vec<f32> = vec![0.1, 0.25, -0.2, 0.3];
        let exact = |level: &Level, x: &[f32], e: &mut [f32]| {
            let (a, b) = (level.alpha, level.beta);
            e.iter_mut().zip(x).for_each(|(e, x)| *e = b * (x - a * mean) / (a * a * spread * spread + b * b));
        };
        let levels = levels(400, 1e-3, 0.999);
        let mut memory = LevelsMemory::new(actions.len());
        let mut out = vec![0.0; 4];
        log_probability(&levels, 40, &actions, exact, &mut Noise::new(5, 0), &mut memory, &mut out);
        for (a, l) in actions.iter().zip(&out) {
            let want = -0.5 * ((a - mean) / spread).powi(2) - spread.ln() - 0.918_938_5;
            assert!((l - want).abs() < 0.1, "{a}: {l} for {want}");
        }
        // Two channels: the sum.
        let mut pairs = vec![0.0; 2];
        log_probability(&levels, 40, &actions, exact, &mut Noise::new(6, 0), &mut memory, &mut pairs);
        assert!((pairs[0] - out[0] - out[1]).abs() < 0.15);
    }
}
