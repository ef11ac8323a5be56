//! Training a network on the estimates of a method, from the energy alone.
//!
//! A point of the path is made from one of the network's own samples (drawn anew as it learns) or from a wide uniform
//! point; the estimator answers with a posterior mean for `K` evaluations of the energy; the network is regressed on
//! the prediction that follows from it. Network, updates, batch, `K` and the making of points are the same for every
//! method. Deterministic given the seed. Panics only on a budget with a zero in it (a programming error).
//!
//! Cost: that of the estimates.

use super::energy::Toy;
use super::method::{Method, TIMES};
use crate::nn::elementwise::polyak;
use crate::nn::hidden::Hidden;
use crate::nn::optim::Adam;
use crate::nn::velocity::{VelocityNet, VelocityShape, VelocityWork};
use crate::nn::{Activation, Trunk};
use crate::noise::Noise;
use crate::{Error, Result};
use flowlet::flow::{Prediction, Reverse, Schedule, Source};
use flowlet::rfm::{EstimatorScratch, RfmConfig};
use std::f32::consts::{PI, SQRT_2};

/// What every method may spend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Budget {
    /// Steps of Adam.
    pub updates: usize,
    /// Points of the path in an update.
    pub batch: usize,
    /// Evaluations of the energy (or of energy and gradient) for a point.
    pub candidates: usize,
    /// Width of the network's hidden layers.
    pub width: usize,
    /// Number of hidden layers.
    pub layers: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { updates: 3000, batch: 128, candidates: 16, width: 128, layers: 3 }
    }
}

/// Own samples that are kept, and how many of them are drawn anew at a time.
const POOL: usize = 2048;
const FRESH: usize = 1024;
/// Updates between two such draws.
const REFRESH: usize = 100;
/// Own samples that the flow's estimator is given for its proposal.
const PARTICLES: usize = 32;
/// Wide points are uniform on a square of this half width.
const WIDE: f32 = 2.5;
/// Predicted data are held in a square of this half width while a diffusion is sampled.
const CLIP: f32 = 3.0;
/// A noise target is held to this magnitude, which is five standard deviations of the noise.
const NOISE_LIMIT: f32 = 5.0;
/// Rows the network evaluates at a time.
const TILE: usize = 512;
/// Adam's rate, which drops to a fifth for the last third of the updates, and the limit on the gradient's norm.
const RATE: f32 = 3e-3;
const MAX_NORM: f32 = 1.0;
/// Rate of the running mean of the weights, which is what samples.
const AVERAGE: f32 = 0.005;

/// Angular frequencies of the waves (a sine and a cosine a component) that the network sees of its input beside the input
/// itself: without them it blurs what is finer than about one.
const WAVES: [f32; 3] = [0.5 * PI, PI, 2.0 * PI];

/// A network with the conventions it was trained in.
#[derive(Clone, Debug)]
pub struct Model {
    net: VelocityNet,
    work: VelocityWork,
    schedule: Schedule,
    prediction: Prediction,
    state: Vec<f32>,
    time: Vec<f32>,
    input: Vec<f32>,
    waves: Vec<f32>,
}

/// The waves of points, 4 [`WAVES`] numbers a point, into `out`.
fn waves(points: &[f32], out: &mut Vec<f32>) {
    out.clear();
    for x in points {
        out.extend(WAVES.iter().flat_map(|f| <[f32; 2]>::from((f * x).sin_cos())));
    }
}

impl Model {
    fn new(budget: &Budget, schedule: Schedule, prediction: Prediction, noise: &mut Noise) -> Self {
        let hidden = Hidden {
            width: budget.width,
            layers: budget.layers,
            outputs: 2,
            activation: Activation::Silu,
            trunk: Trunk::Residual,
            layer_norm: false,
        };
        let frequencies = (0..6).map(|i| 0.5 * PI * f32::from(1_u8 << i)).collect();
        let shape = VelocityShape { obs: 4 * WAVES.len(), act: 2, frequencies, constant: Vec::new(), hidden };
        Self {
            net: VelocityNet::new(shape.clone(), SQRT_2, 0.1, noise),
            work: VelocityWork::new(&shape, budget.batch.max(TILE)),
            schedule,
            prediction,
            state: vec![0.0; TILE * budget.width],
            time: vec![0.0; budget.width],
            input: Vec::new(),
            waves: Vec::new(),
        }
    }

    /// What the network's input is multiplied by, so that it sees about unit variance on any schedule.
    fn input_scale(schedule: Schedule, t: f32) -> f32 {
        let (a, b) = (schedule.alpha(t), schedule.beta(t));
        1.0 / (a * a + b * b).sqrt()
    }

    /// The prediction at time `t` and the points `x` (rows of two) into `out`.
    pub fn predict(&mut self, t: f32, x: &[f32], out: &mut [f32]) {
        let t = t.clamp(TIMES.0, TIMES.1);
        let scale = Self::input_scale(self.schedule, t);
        self.net.time_part(t, &mut self.time);
        for (x, out) in x.chunks(2 * TILE).zip(out.chunks_mut(2 * TILE)) {
            self.input.clear();
            self.input.extend(x.iter().map(|x| scale * x));
            waves(&self.input, &mut self.waves);
            let state = &mut self.state[..x.len() / 2 * self.time.len()];
            self.net.state_part(&self.waves, state, &mut self.work);
            out.copy_from_slice(self.net.velocities(&self.input, state, &self.time, 1, &mut self.work));
        }
        let (a, b) = (self.schedule.alpha(t), self.schedule.beta(t));
        match self.prediction {
            // The usual guard of a diffusion: the data that it predicts stay where data are.
            Prediction::Noise => {
                for (e, x) in out.iter_mut().zip(x) {
                    *e = (x - a * ((x - b * *e) / a).clamp(-CLIP, CLIP)) / b;
                }
            }
            Prediction::Score => out.iter_mut().for_each(|s| *s /= b),
            Prediction::Velocity | Prediction::Data => {}
        }
    }

    /// Draws `n` samples, `n x 2`.
    pub fn sample(&mut self, sampler: &Reverse, n: usize, noise: &mut Noise) -> Result<Vec<f32>> {
        // All points are one latent of 2 n components: the samplers treat components alike.
        let (mut x, mut scratch) = (vec![0.0; 2 * n], vec![0.0; Reverse::scratch_len(2 * n)]);
        sampler.source.sample(noise.rng(), &mut x);
        // Data have about unit variance: the start gets the variance of the path at its time.
        let spread = 1.0 / Self::input_scale(sampler.schedule, sampler.t_start);
        x.iter_mut().for_each(|x| *x *= spread);
        let mut field = |t: f32, x: &[f32], out: &mut [f32]| self.predict(t, x, out);
        sampler.run(&mut field, noise.rng(), &mut x, &mut scratch).map_err(diverged)?;
        Ok(x)
    }
}

/// The sentence for a sampler that gave up.
pub(super) fn diverged(error: flowlet::flow::ReverseError) -> Error {
    Error::failure(format!("the trained network cannot be sampled ({error}): try another --seed"))
}

/// Trains a method on a toy with noise from `source`, which must be Gaussian for the two diffusions.
pub fn train(method: Method, source: Source, toy: Toy, budget: &Budget, seed: u64) -> Result<Model> {
    let config = method.estimator(source, budget.candidates);
    let sampler = method.sampler(source);
    let mut fit = Fit::new(config, method.prediction(), toy, budget, seed);
    for update in 0..budget.updates {
        if update > 0 && update % REFRESH == 0 {
            let fresh = fit.model.sample(&sampler, FRESH, &mut fit.noise)?;
            let at = update / REFRESH % (POOL / FRESH) * 2 * FRESH;
            fit.own[at..at + 2 * FRESH].copy_from_slice(&fresh);
        }
        fit.update(update);
    }
    Ok(fit.model)
}

/// Trains a network on the score of the path of a trained flow with noise from `source`: reverse score matching. The
/// network gives `beta grad ln p_t`, which has the size of noise at every time.
pub fn train_score(flow: &mut Model, source: Source, toy: Toy, budget: &Budget, seed: u64) -> Result<Model> {
    let config = Method::Rfm.estimator(source, budget.candidates);
    let mut fit = Fit::new(config, Prediction::Score, toy, budget, seed);
    fit.own = flow.sample(&Method::Rfm.sampler(source), POOL, &mut fit.noise)?;
    (0..budget.updates).for_each(|update| fit.update(update));
    Ok(fit.model)
}

/// One training: the network, its running mean, its own samples, and the memory of an update.
struct Fit {
    config: RfmConfig,
    toy: Toy,
    updates: usize,
    net: VelocityNet,
    model: Model,
    adam: Adam,
    noise: Noise,
    own: Vec<f32>,
    gradient: Vec<f32>,
    input: Vec<f32>,
    times: Vec<f32>,
    targets: Vec<f32>,
    candidates: usize,
    memory: Vec<f32>,
}

impl Fit {
    fn new(config: RfmConfig, prediction: Prediction, toy: Toy, budget: &Budget, seed: u64) -> Self {
        let model = Model::new(budget, config.schedule, prediction, &mut Noise::new(seed, 0));
        let params = model.net.params().len();
        let mut noise = Noise::new(seed, 1);
        let mut own = vec![0.0; 2 * POOL];
        noise.uniform_in(&mut own, -WIDE, WIDE);
        Self {
            config,
            toy,
            updates: budget.updates,
            net: model.net.clone(),
            model,
            adam: Adam::new(params, RATE, MAX_NORM),
            noise,
            own,
            gradient: vec![0.0; params],
            input: vec![0.0; 2 * budget.batch],
            times: vec![0.0; budget.batch],
            targets: vec![0.0; 2 * budget.batch],
            candidates: budget.candidates,
            memory: vec![0.0; EstimatorScratch::len(2, budget.candidates)],
        }
    }

    /// One step of Adam, and of the running mean.
    fn update(&mut self, update: usize) {
        if update == 2 * self.updates / 3 {
            // The moments start anew, which Adam's bias correction covers.
            self.adam = Adam::new(self.gradient.len(), RATE / 5.0, MAX_NORM);
        }
        for row in 0..self.times.len() {
            self.place(row);
        }
        let (work, gradient) = (&mut self.model.work, &mut self.gradient);
        waves(&self.input, &mut self.model.waves);
        self.net.regress(&self.model.waves, &self.input, &self.times, &self.targets, work, gradient);
        self.adam.step(self.net.params_mut(), gradient);
        // A mean of everything so far, until that is as long as the running mean.
        let rate = AVERAGE.max(1.0 / (update as f32 + 1.0));
        polyak(self.model.net.params_mut(), self.net.params(), rate);
    }

    /// Makes one row of the batch: a point of the path, and the prediction that is right there.
    fn place(&mut self, row: usize) {
        let (n, schedule) = (self.times.len() as f32, self.config.schedule);
        let t = TIMES.0 + (TIMES.1 - TIMES.0) * (row as f32 + self.noise.uniform()) / n;
        let mut y = [0.0; 2];
        if self.noise.uniform() < 0.5 {
            y.copy_from_slice(self.own_samples(1));
        } else {
            self.noise.uniform_in(&mut y, -WIDE, WIDE);
        }
        let mut e = [0.0; 2];
        self.config.source.sample(self.noise.rng(), &mut e);
        let (a, b) = (schedule.alpha(t), schedule.beta(t));
        let x = [a * y[0] + b * e[0], a * y[1] + b * e[1]];
        self.times[row] = t;
        let scale = Model::input_scale(schedule, t);
        self.input[2 * row..2 * row + 2].copy_from_slice(&x.map(|x| scale * x));
        let target = self.target(t, x);
        // Where the energy is infinite at every candidate nothing can be learnt: the pair that made the point stands in.
        let target = target.unwrap_or_else(|| match self.model.prediction {
            Prediction::Velocity => [0, 1].map(|j| schedule.velocity_from_data(t, x[j], y[j])),
            Prediction::Score => e.map(|e| self.config.source.score(e)),
            Prediction::Noise | Prediction::Data => e,
        });
        self.targets[2 * row..2 * row + 2].copy_from_slice(&target);
    }

    /// The estimate of what the network should say at `x`.
    fn target(&mut self, t: f32, x: [f32; 2]) -> Option<[f32; 2]> {
        let particles = if matches!(self.config.method, flowlet::rfm::Method::Auto(_)) {
            self.own_samples(PARTICLES).to_vec()
        } else {
            Vec::new()
        };
        let (config, schedule) = (self.config, self.config.schedule);
        let mut scratch = EstimatorScratch::carve(&mut self.memory, 2, self.candidates)?;
        let run = config.run(t, &x, &mut self.toy, &particles, self.noise.rng(), &mut scratch).ok()?;
        let mut mean = [0.0; 2];
        if self.model.prediction == Prediction::Score {
            config.finish_score(&run, &mut scratch, &mut mean).ok()?;
            return Some(mean.map(|s| (schedule.beta(t) * s).clamp(-NOISE_LIMIT, NOISE_LIMIT)));
        }
        config.finish(&run, &mut scratch, &mut mean).ok()?;
        Some([0, 1].map(|j| match self.model.prediction {
            Prediction::Velocity => schedule.velocity_from_data(t, x[j], mean[j]),
            _ => schedule.noise_from_data(t, x[j], mean[j]).clamp(-NOISE_LIMIT, NOISE_LIMIT),
        }))
    }

    /// Some of the network's own samples, neighbours in the pool, whose order is random.
    fn own_samples(&mut self, count: usize) -> &[f32] {
        let first = self.noise.below(POOL - count + 1);
        &self.own[2 * first..2 * (first + count)]
    }
}
