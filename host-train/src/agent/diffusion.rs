//! Diffusion policies: a network that predicts noise, and the chain of steps that turns noise into actions.
//!
//! Every schedule of flowlet serves, X_t = alpha(t) X_1 + beta(t) X_0 with the noise X_0 at t = 0 and the action at
//! t = 1. A step from t to t' takes the predicted noise e, the data (x - beta e) / alpha that follows from it, and moves
//! to the mean of X_t' given both, plus Gaussian noise of variance
//!
//! * [`StepNoise::Posterior`]: beta'^2 (1 - r^2) with r = alpha beta' / (alpha' beta) (Ho et al. 2020; flowlet's `Ddpm`);
//! * [`StepNoise::Forward`]: beta^2 (1 - r^2), the variance of X_t given X_t' (the other choice of Ho et al., and the
//!   reverse SDE's), and nothing at the last step.
//!
//! [`Ancestral`] is the arithmetic of the steps, [`DiffusionActor`] the network, its optimiser and the chain over tiles
//! of about 512 rows. Deterministic given the stream. Allocates at construction, and when first asked for more states or
//! particles than ever before. Slices of a wrong length panic (programming errors).

use super::critics::Critics;
use super::room;
use crate::config::{StepNoise, TrainConfig};
use crate::nn::elementwise::{scale, tanh_of};
use crate::nn::hidden::Hidden;
use crate::nn::math::vectorised;
use crate::nn::optim::Adam;
use crate::nn::velocity::{VelocityNet, VelocityShape, VelocityWork};
use crate::noise::Noise;
use crate::state::Visitor;
use flowlet::flow::Schedule;
use std::f32::consts::{FRAC_PI_2, PI, SQRT_2, TAU};

/// Rows of one tile, when the particles of a state allow it.
const TILE: usize = 512;

/// Frequencies of the time features, rad per unit of flow time.
const FREQUENCIES: [f32; 4] = [FRAC_PI_2, PI, TAU, 2.0 * TAU];

/// Gain of the output layer at the start, in units of sqrt 2: the first policies hardly depend on the state.
const OUT_GAIN: f32 = 0.1;

/// What is held inside the box (-1, 1) while sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clip {
    /// Nothing.
    None,
    /// The data that the predicted noise implies.
    Data,
    /// The point after each step.
    State,
}

/// One step of the chain: x' = data (clipped (x - beta e) / alpha) + state x + spread z.
#[derive(Clone, Copy, Debug)]
struct Step {
    t: f32,
    alpha: f32,
    beta: f32,
    data: f32,
    state: f32,
    spread: f32,
}

/// The steps of a chain on one schedule.
#[derive(Clone, Debug)]
pub struct Ancestral {
    steps: Vec<Step>,
    start_scale: f32,
    clip: Clip,
}

impl Ancestral {
    /// `steps` equal steps of flow time from `t_start` to 1.
    pub fn new(schedule: Schedule, steps: usize, t_start: f32, noise: StepNoise, clip: Clip) -> Self {
        let time = |i: usize| t_start + (1.0 - t_start) * i as f32 / steps as f32;
        let step = |i: usize| {
            let (t, next) = (time(i), time(i + 1));
            let (alpha, beta) = (schedule.alpha(t), schedule.beta(t));
            let (alpha_next, beta_next) = (schedule.alpha(next), schedule.beta(next));
            let ratio = alpha * beta_next / (alpha_next * beta);
            let posterior = beta_next * (1.0 - ratio * ratio).max(0.0).sqrt();
            // The noise that stays in the mean, as a multiple of the predicted one.
            let kept = beta_next * ratio;
            let spread = match noise {
                StepNoise::Posterior => posterior,
                // Nothing is added to the action itself.
                StepNoise::Forward if i + 1 == steps => 0.0,
                StepNoise::Forward => beta * (1.0 - ratio * ratio).max(0.0).sqrt(),
            };
            let state = kept / beta;
            Step { t, alpha, beta, data: alpha_next - state * alpha, state, spread }
        };
        Self { steps: (0..steps).map(step).collect(), start_scale: schedule.start_scale(t_start), clip }
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there is no step.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Flow time, alpha and beta at which step `i` asks for the noise.
    pub fn at(&self, i: usize) -> (f32, f32, f32) {
        let step = &self.steps[i];
        (step.t, step.alpha, step.beta)
    }

    /// Draws the start of a chain.
    pub fn start(&self, x: &mut [f32], noise: &mut Noise) {
        noise.gaussian(x);
        if self.start_scale != 1.0 {
            scale(x, self.start_scale);
        }
    }

    /// Step `i` of the points `x` from the predicted noises `e`; `z` is scratch for the noise of the step.
    pub fn step(&self, i: usize, x: &mut [f32], e: &[f32], z: &mut [f32], noise: &mut Noise) {
        let Step { alpha, beta, data, state, spread, .. } = self.steps[i];
        if spread > 0.0 {
            noise.gaussian(z);
        } else {
            z.fill(0.0);
        }
        let inverse = 1.0 / alpha;
        let (data_limit, state_limit) = match self.clip {
            Clip::None => (f32::INFINITY, f32::INFINITY),
            Clip::Data => (1.0, f32::INFINITY),
            Clip::State => (f32::INFINITY, 1.0),
        };
        vectorised(|| {
            for ((x, e), z) in x.iter_mut().zip(e).zip(z.iter()) {
                let clean = ((*x - beta * e) * inverse).clamp(-data_limit, data_limit);
                *x = (data * clean + state * *x + spread * z).clamp(-state_limit, state_limit);
            }
        });
    }
}

/// A policy that samples by diffusion: network, optimiser, chain, and the memory that both need.
#[derive(Clone, Debug)]
pub struct DiffusionActor {
    net: VelocityNet,
    adam: Adam,
    ancestral: Ancestral,
    /// The chain ends in latents, and tanh makes actions of them; else it ends in actions.
    squash: bool,
    chain: VelocityWork,
    states: Vec<f32>,
    times: Vec<f32>,
    z: Vec<f32>,
    learning: VelocityWork,
    gradient: Vec<f32>,
    candidates: Vec<f32>,
    q: Vec<f32>,
}

impl DiffusionActor {
    /// A fresh network for regressions over `rows` rows.
    pub fn new(
        train: &TrainConfig,
        ancestral: Ancestral,
        squash: bool,
        (obs, act): (usize, usize),
        rows: usize,
        noise: &mut Noise,
    ) -> Self {
        let hidden = Hidden {
            width: train.actor_hidden,
            layers: train.actor_layers,
            outputs: act,
            layer_norm: false,
            activation: train.activation,
            trunk: train.trunk,
        };
        let shape = VelocityShape { obs, act, frequencies: FREQUENCIES.to_vec(), constant: Vec::new(), hidden };
        let net = VelocityNet::new(shape.clone(), SQRT_2, SQRT_2 * OUT_GAIN, noise);
        let params = net.params().len();
        Self {
            adam: Adam::new(params, train.policy_lr as f32, train.max_grad_norm as f32),
            squash,
            chain: VelocityWork::new(&shape, TILE),
            states: vec![0.0; TILE * hidden.width],
            times: vec![0.0; ancestral.len() * hidden.width],
            z: vec![0.0; TILE * act],
            learning: VelocityWork::new(&shape, rows),
            gradient: vec![0.0; params],
            candidates: Vec::new(),
            q: Vec::new(),
            net,
            ancestral,
        }
    }

    /// The chain.
    pub fn ancestral(&self) -> &Ancestral {
        &self.ancestral
    }

    /// Draws `particles` actions for each of the states `s` into `actions`, `n x particles x act`.
    pub fn sample(&mut self, s: &[f32], particles: usize, actions: &mut [f32], noise: &mut Noise) {
        let (obs, act, width) = (self.net.shape().obs, self.net.shape().act, self.net.shape().hidden.width);
        if particles > self.chain.rows() {
            self.chain = VelocityWork::new(self.net.shape(), particles);
            self.z = vec![0.0; particles * act];
        }
        for (i, time) in self.times.chunks_exact_mut(width).enumerate() {
            self.net.time_part(self.ancestral.at(i).0, time);
        }
        let tile = (TILE / particles).max(1);
        for (s, x) in s.chunks(tile * obs).zip(actions.chunks_mut(tile * particles * act)) {
            let states = &mut self.states[..s.len() / obs * width];
            self.net.state_part(s, states, &mut self.chain);
            self.ancestral.start(x, noise);
            let z = &mut self.z[..x.len()];
            for (i, time) in self.times.chunks_exact(width).enumerate() {
                let e = self.net.velocities(x, states, time, particles, &mut self.chain);
                self.ancestral.step(i, x, e, z, noise);
            }
            if self.squash {
                z.copy_from_slice(x);
                tanh_of(x, z);
            } else {
                x.iter_mut().for_each(|x| *x = x.clamp(-1.0, 1.0));
            }
        }
    }

    /// One action for each of the states `s`: of `particles` samples the one with the largest min Q, or the plain
    /// sample if that is one.
    pub fn best(&mut self, critics: &mut Critics, s: &[f32], particles: usize, out: &mut [f32], noise: &mut Noise) {
        if particles == 1 {
            return self.sample(s, 1, out, noise);
        }
        let act = self.net.shape().act;
        // The memory is lent out while the network samples into it.
        let (mut candidates, mut q) = (std::mem::take(&mut self.candidates), std::mem::take(&mut self.q));
        let actions = room(&mut candidates, out.len() * particles);
        self.sample(s, particles, actions, noise);
        let values = room(&mut q, actions.len() / act);
        critics.minimum(s, actions, particles, values);
        for ((out, actions), q) in
            out.chunks_exact_mut(act).zip(actions.chunks_exact(particles * act)).zip(values.chunks_exact(particles))
        {
            let best = highest(q);
            out.copy_from_slice(&actions[best * act..(best + 1) * act]);
        }
        (self.candidates, self.q) = (candidates, q);
    }

    /// The noises predicted at the points `x` of the states `s` and one flow time `t`, a point a state, into `out`.
    pub fn predict(&mut self, s: &[f32], x: &[f32], t: f32, out: &mut [f32]) {
        let (obs, act, width) = (self.net.shape().obs, self.net.shape().act, self.net.shape().hidden.width);
        let time = &mut self.times[..width];
        self.net.time_part(t, time);
        let tiles = x.chunks(TILE * act).zip(out.chunks_mut(TILE * act));
        for ((x, out), s) in tiles.zip(s.chunks(TILE * obs)) {
            let states = &mut self.states[..s.len() / obs * width];
            self.net.state_part(s, states, &mut self.chain);
            out.copy_from_slice(self.net.velocities(x, states, time, 1, &mut self.chain));
        }
    }

    /// One Adam step on the mean squared error of the predicted noise at (s, x, t) against `target`, row by row, each
    /// row counted `weights` times (once without). Returns the loss and the norm of its gradient.
    pub fn regress(&mut self, s: &[f32], x: &[f32], t: &[f32], target: &[f32], weights: Option<&[f32]>) -> (f32, f32) {
        let (net, work, gradient) = (&mut self.net, &mut self.learning, &mut self.gradient);
        let loss = match weights {
            None => net.regress(s, x, t, target, work, gradient),
            Some(weights) => net.regress_weighted([s, x, t, target], weights, work, gradient),
        };
        (loss, self.adam.step(net.params_mut(), gradient))
    }

    /// Shows parameters and moments.
    pub fn visit(&mut self, visitor: &mut dyn Visitor) {
        visitor.f32s("actor", self.net.params_mut());
        self.adam.visit("actor_adam", visitor);
    }
}

/// The index of the largest value, the first of equals.
pub fn highest(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// x = alpha(t) a + beta(t) e, row by row, for the noises that `x` holds on entry.
pub fn place(schedule: Schedule, t: &[f32], actions: &[f32], x: &mut [f32]) {
    let act = x.len() / t.len();
    for ((x, a), &t) in x.chunks_exact_mut(act).zip(actions.chunks_exact(act)).zip(t) {
        let (alpha, beta) = (schedule.alpha(t), schedule.beta(t));
        x.iter_mut().zip(a).for_each(|(x, a)| *x = alpha * a + beta * *x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowlet::flow::{Prediction, Reverse, ReverseMethod, Source};
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::SeedableRng;

    const SCHEDULES: [(Schedule, f32); 3] = [
        (Schedule::VpCosine, 0.01),
        (Schedule::VpLinear { beta_min: 0.1, beta_max: 10.0 }, 0.0),
        (Schedule::Ve { sigma_min: 1e-3, sigma_max: 2.0 }, 0.0),
    ];

    /// Noise posterior mean for data N(mean, spread^2): beta (x - alpha mean) / (alpha^2 spread^2 + beta^2).
    fn exact(alpha: f32, beta: f32, x: f32, (mean, spread): (f32, f32)) -> f32 {
        beta * (x - alpha * mean) / (alpha * alpha * spread * spread + beta * beta)
    }

    /// Mean and standard deviation at the end of the chain with the exact noise of a Gaussian.
    fn moments(ancestral: &Ancestral, data: (f32, f32), n: usize) -> (f64, f64) {
        let mut noise = Noise::new(11, 0);
        let (mut x, mut z, mut e) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
        ancestral.start(&mut x, &mut noise);
        for i in 0..ancestral.len() {
            let (_, alpha, beta) = ancestral.at(i);
            e.iter_mut().zip(&x).for_each(|(e, &x)| *e = exact(alpha, beta, x, data));
            ancestral.step(i, &mut x, &e, &mut z, &mut noise);
        }
        let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
        let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n as f64;
        (mean, variance.sqrt())
    }

    /// The exact noise of a Gaussian carries the source to that Gaussian, on every schedule and with either noise.
    #[test]
    fn chains_end_in_the_gaussian_they_were_shown() {
        for (schedule, t_start) in SCHEDULES {
            for noise in [StepNoise::Posterior, StepNoise::Forward] {
                let ancestral = Ancestral::new(schedule, 400, t_start, noise, Clip::None);
                let (mean, spread) = moments(&ancestral, (0.3, 0.2), 40_000);
                // VE and VP-linear begin with a source that has forgotten the mean not quite: alpha(0) = .08, or
                // 1 / sigma_max. Discretisation is worth some percent at 400 steps.
                assert!((mean - 0.3).abs() < 0.015, "{schedule:?} {noise:?}: mean {mean}");
                assert!((spread / 0.2 - 1.0).abs() < 0.05, "{schedule:?} {noise:?}: spread {spread}");
            }
        }
    }

    /// With data at one point the posterior noise is exact for any number of steps, even for three.
    #[test]
    fn few_steps_find_a_point() {
        for (schedule, t_start) in SCHEDULES {
            let ancestral = Ancestral::new(schedule, 3, t_start, StepNoise::Posterior, Clip::None);
            let (mean, spread) = moments(&ancestral, (-0.4, 0.0), 10_000);
            assert!((mean + 0.4).abs() < 2e-3 && spread < 2e-3, "{schedule:?}: {mean} {spread}");
        }
    }

    /// The clipped data keep the chain in the box whatever the network says; the clipped state does at every step.
    #[test]
    fn clips_hold() {
        for (clip, bound) in [(Clip::Data, 1.0 + 1e-5), (Clip::State, 1.0)] {
            let ancestral = Ancestral::new(Schedule::VpCosine, 10, 0.01, StepNoise::Forward, clip);
            let mut noise = Noise::new(12, 0);
            let (mut x, mut z) = (vec![0.0; 1000], vec![0.0; 1000]);
            ancestral.start(&mut x, &mut noise);
            let e: Vec<f32> = (0..1000).map(|i| (i as f32 - 500.0) * 0.1).collect();
            for i in 0..10 {
                ancestral.step(i, &mut x, &e, &mut z, &mut noise);
                assert!(clip != Clip::State || x.iter().all(|x| x.abs() <= bound));
            }
            assert!(x.iter().all(|x| x.abs() <= bound));
        }
    }

    /// flowlet's ancestral sampler, which works at another order of operations, ends in the same distribution: means and
    /// spreads with five steps, where the discretisation shows.
    #[test]
    fn marginals_equal_flowlet_s_sampler() {
        for (schedule, t_start) in SCHEDULES {
            let data = (0.3, 0.2);
            let ancestral = Ancestral::new(schedule, 5, t_start, StepNoise::Posterior, Clip::None);
            let (mean, spread) = moments(&ancestral, data, 200_000);
            let reverse = Reverse {
                schedule,
                source: Source::Gaussian,
                prediction: Prediction::Noise,
                method: ReverseMethod::Ddpm,
                steps: 5,
                t_start,
                t_end: 1.0,
            };
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(4);
            let n = 100_000;
            let (mut x, mut scratch) = (vec![0.0; n], vec![0.0; Reverse::scratch_len(n)]);
            reverse.start(&mut rng, &mut x);
            let mut field = |t: f32, x: &[f32], out: &mut [f32]| {
                let (alpha, beta) = (schedule.alpha(t), schedule.beta(t));
                out.iter_mut().zip(x).for_each(|(o, &x)| *o = exact(alpha, beta, x, data));
            };
            reverse.run(&mut field, &mut rng, &mut x, &mut scratch).unwrap();
            let other = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
            let variance = x.iter().map(|&x| (f64::from(x) - other).powi(2)).sum::<f64>() / n as f64;
            // Five standard errors of either.
            assert!((mean - other).abs() < 5.0 * spread / (n as f64).sqrt() * 1.3, "{schedule:?}: {mean} {other}");
            assert!((spread / variance.sqrt() - 1.0).abs() < 0.015, "{schedule:?}: {spread} {}", variance.sqrt());
        }
    }

    /// Tiles equal single states, best-of has a higher Q than a sample, and one stream gives one result.
    #[test]
    fn samples_are_tiled_and_chosen() {
        let train = TrainConfig::standard();
        let mut noise = Noise::new(1, 0);
        let chain = Ancestral::new(Schedule::VpCosine, 4, 0.01, StepNoise::Posterior, Clip::Data);
        let mut actor = DiffusionActor::new(&train, chain, false, (3, 2), 8, &mut noise);
        let mut critics = Critics::new(&train, 3, 2, 1, &mut noise);
        let n = 300;
        let mut s = vec![0.0; n * 3];
        noise.gaussian(&mut s);
        let mut mean_q = |particles: usize| {
            let (mut a, mut q) = (vec![0.0; n * 2], vec![0.0; n]);
            actor.best(&mut critics, &s, particles, &mut a, &mut Noise::new(2, 0));
            assert!(a.iter().all(|a| a.abs() <= 1.0));
            critics.minimum(&s, &a, 1, &mut q);
            q.iter().sum::<f32>() / n as f32
        };
        let (one, best) = (mean_q(1), mean_q(64));
        assert!(one + 0.05 < best, "{one} {best}");
        assert_eq!(best, mean_q(64));

        // The first state of each tile sees the noise that a batch of its tile alone sees.
        let (mut all, mut tile) = (vec![0.0; n * 4 * 2], vec![0.0; 128 * 4 * 2]);
        actor.sample(&s, 4, &mut all, &mut Noise::new(3, 0));
        actor.sample(&s[..128 * 3], 4, &mut tile, &mut Noise::new(3, 0));
        assert_eq!(all[..tile.len()], tile);
    }
}
