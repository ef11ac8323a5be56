//! The mean-velocity head: u(x, t, r), the mean of the velocity along the flow from time t to time r, after MeanFlow
//! (Geng et al., arXiv 2505.13447), here for a policy that has no data but a critic.
//!
//! From (r - t) u = int_t^r v follows u = v + (r - t) d/dt u along the flow, d/dt u = (v grad_x + d_t) u. The network
//! regresses on the right-hand side, its own derivative by one forward-mode pass and held fixed in the gradient. The
//! velocity v is Reverse Flow Matching's own: (E[X_1 | x_t] - x_t) / (1 - t), the posterior mean estimated afresh under
//! the run's slow critics at the run's last temperature, with `SHARPEN` times as many candidates; x_t lies on the
//! straight path between noise and a sample of the teacher. The teacher's velocity network is used for those samples and
//! as the start of the head where the sizes are equal (then u = v, the solution for r = t), and for nothing else.
//!
//! One step from noise is x_0 + u(x_0, 0, 1): t and r are folded into the first bias.

use super::teacher::Teacher;
use super::{Course, Learner};
use crate::agent::posterior::{Estimates, Points, Posterior, Values};
use crate::config::RfmConfig;
use crate::nn::critic::CriticWork;
use crate::nn::hidden::Hidden;
use crate::nn::lanes::{Lane, pack_groups, panels};
use crate::nn::optim::Adam;
use crate::nn::velocity::{VelocityNet, VelocityShape, VelocityWork};
use crate::noise::Noise;

/// Candidates of a posterior mean in units of those of the run.
const SHARPEN: usize = 4;
/// Share of the points whose r is their t, and of those whose r is 1; the others have r between.
const SHARES: [f32; 2] = [0.25, 0.5];
/// Largest magnitude of (r - t) d/dt u: at a kink of the estimate one point shall not outweigh the batch.
const LIMIT: f32 = 10.0;

/// The student and the memory of its updates.
pub struct MeanVelocity<'t> {
    teacher: &'t mut Teacher,
    net: VelocityNet,
    adam: Adam,
    work: VelocityWork,
    critic_work: CriticWork,
    posterior: Posterior,
    estimates: Estimates,
    candidates: [Vec<Lane>; 5],
    gradient: Vec<f32>,
    /// State and features of r.
    input: Vec<f32>,
    t: Vec<f32>,
    r: Vec<f32>,
    latent: Vec<f32>,
    x: Vec<f32>,
    v: Vec<f32>,
    u: Vec<f32>,
    du: Vec<f32>,
}

/// Features of the end time, as many as the network has of the time itself.
fn features(frequencies: &[f32], r: f32) -> Vec<f32> {
    let sines = frequencies.iter().map(|f| (f * r).sin());
    sines.chain(frequencies.iter().map(|f| (f * r).cos())).collect()
}

impl<'t> MeanVelocity<'t> {
    /// A student with hidden layers as given, from the teacher's weights where they fit, else from fresh ones.
    pub fn new(teacher: &'t mut Teacher, hidden: Hidden, course: &Course, noise: &mut Noise) -> Self {
        let old = teacher.net.shape().clone();
        let (obs, act, times, n) = (old.obs, old.act, 2 * old.frequencies.len(), course.batch);
        let shape = VelocityShape { obs: obs + times, hidden, ..old.clone() };
        let gain = std::f32::consts::SQRT_2;
        let mut net = VelocityNet::new(shape.clone(), gain, 0.1 * gain, noise);
        if hidden == old.hidden {
            let (state, rest) = teacher.net.params().split_at(obs * hidden.width);
            let params = [state, &vec![0.0; times * hidden.width], rest].concat();
            net.params_mut().copy_from_slice(&params);
        }
        let c = &teacher.config;
        let sharp = RfmConfig {
            bridge: SHARPEN * c.bridge,
            uniform: SHARPEN * c.uniform,
            kernel: SHARPEN * c.kernel,
            ..c.clone()
        };
        let (k, params) = (sharp.candidates(), net.params().len());
        let lanes = |count: usize| vec![Lane::ZERO; panels(n) * count];
        let posterior = Posterior::new(&sharp, act);
        let slopes = if posterior.needs_gradient() { k * act } else { 0 };
        Self {
            adam: Adam::new(params, course.rate, 0.0),
            work: VelocityWork::new(&shape, n),
            critic_work: CriticWork::new(teacher.critic.shape(), n, k),
            posterior,
            estimates: Estimates::new(n, act),
            candidates: [lanes(obs), lanes(k * act), lanes(k * act), lanes(k), lanes(slopes)],
            gradient: vec![0.0; params],
            input: vec![0.0; n * (obs + times)],
            t: vec![0.0; n],
            r: vec![0.0; n],
            latent: vec![0.0; n * act],
            x: vec![0.0; n * act],
            v: vec![0.0; n * act],
            u: vec![0.0; n * act],
            du: vec![0.0; n * act],
            teacher,
            net,
        }
    }

    /// Times, points on the path, and Reverse Flow Matching's velocity at them.
    fn place(&mut self, s: &[f32], noise: &mut Noise) {
        let (obs, act) = (self.teacher.net.shape().obs, self.net.shape().act);
        let (low, high) = (self.teacher.config.train_t_min as f32, self.teacher.config.train_t_max as f32);
        for (t, r) in self.t.iter_mut().zip(&mut self.r) {
            let [a, b, kind] = [noise.uniform(), noise.uniform(), noise.uniform()];
            let [a, b] = [a, b].map(|x| low + (high - low) * x);
            (*t, *r) = match kind {
                k if k < SHARES[0] => (a, a),
                k if k < SHARES[0] + SHARES[1] => (a, 1.0),
                _ => (a.min(b), a.max(b)),
            };
        }
        noise.gaussian(&mut self.latent);
        self.teacher.carry(s, &mut self.latent);
        noise.gaussian(&mut self.x);
        for ((x, u), &t) in self.x.chunks_exact_mut(act).zip(self.latent.chunks_exact(act)).zip(&self.t) {
            x.iter_mut().zip(u).for_each(|(x, u)| *x = t * u + (1.0 - t) * *x);
        }
        let [states, latents, actions, q, gradient] = &mut self.candidates;
        let (k, n) = (self.posterior.count(), self.t.len());
        let points = Points { x: &self.x, t: &self.t, centre: &self.latent };
        pack_groups(s, obs, 1, states);
        self.posterior.draw_noise(latents, noise);
        self.posterior.candidates(points, latents, actions);
        self.teacher.critic.candidates(states, actions, k, n, q, gradient, &mut self.critic_work);
        let values = Values { latents, actions, q, gradient, temperature: self.teacher.lambda };
        self.posterior.estimate(points, values, &mut self.estimates);
        let rows = self.v.chunks_exact_mut(act).zip(self.estimates.mean.chunks_exact(act));
        for (((v, mean), x), &t) in rows.zip(self.x.chunks_exact(act)).zip(&self.t) {
            for ((v, mean), x) in v.iter_mut().zip(mean).zip(x) {
                *v = (mean - x) / (1.0 - t);
            }
        }
    }
}

impl Learner for MeanVelocity<'_> {
    fn update(&mut self, s: &[f32], rate: f32, noise: &mut Noise) -> f32 {
        self.place(s, noise);
        let (obs, act) = (self.teacher.net.shape().obs, self.net.shape().act);
        let inputs = self.net.shape().obs;
        for ((input, s), &r) in self.input.chunks_exact_mut(inputs).zip(s.chunks_exact(obs)).zip(&self.r) {
            input[..obs].copy_from_slice(s);
            input[obs..].copy_from_slice(&features(&self.net.shape().frequencies, r));
        }
        let columns = [&self.input[..], &self.x, &self.t, &self.v];
        self.net.derivative(columns, &mut self.work, &mut self.u, &mut self.du);
        for (((v, du), &t), &r) in self.v.chunks_exact_mut(act).zip(self.du.chunks_exact(act)).zip(&self.t).zip(&self.r)
        {
            v.iter_mut().zip(du).for_each(|(v, du)| *v += ((r - t) * du).clamp(-LIMIT, LIMIT));
        }
        let (work, gradient) = (&mut self.work, &mut self.gradient);
        let loss = self.net.regress(&self.input, &self.x, &self.t, &self.v, work, gradient);
        self.adam.set_rate(rate);
        self.adam.step(self.net.params_mut(), &mut self.gradient);
        loss
    }

    fn one_step(&self) -> VelocityNet {
        self.net.held(0.0, &features(&self.net.shape().frequencies, 1.0))
    }
}
