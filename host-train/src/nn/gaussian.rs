//! A Gaussian over latents u given the state, squashed to actions a = tanh u: the policy of soft actor-critic.
//!
//! h_0 = f(W_s s + b_0), then [`Hidden`] with two outputs a channel, mean and log standard deviation; the latter is held
//! between two limits. Samples are reparameterised, u = mu + sigma e, and their log-probability counts the squash:
//! log pi = sum over channels of -e^2 / 2 - log sigma - log(2 pi) / 2 - log sech^2 u. The backward pass is that of
//! mean(alpha log pi - Q), with the critic's action gradient given.
//!
//! Parameters, flat: `W_s`, `b_0`, then those of [`Hidden`]. Nothing allocates after [`GaussianWork::new`].
//! Deterministic given the stream. Slices of a wrong length panic (programming errors).

use super::elementwise::{sum_rows, tanh_of};
use super::hidden::{Hidden, Workspace};
use super::init::orthogonal;
use super::math::{exp, log_sech2, tanh};
use super::matmul;
use crate::noise::Noise;

/// log(2 pi) / 2.
const HALF_LN_TAU: f32 = 0.918_938_5;

/// What the network takes and how it is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GaussianShape {
    /// Width of the observation.
    pub obs: usize,
    /// Width of the action.
    pub act: usize,
    /// The layers after the first; its outputs must be `2 act`: all means, then all log standard deviations.
    pub hidden: Hidden,
    /// Smallest log standard deviation.
    pub log_std_min: f32,
    /// Largest log standard deviation.
    pub log_std_max: f32,
}

impl GaussianShape {
    /// Number of parameters.
    pub fn params(&self) -> usize {
        (self.obs + 1) * self.hidden.width + self.hidden.params()
    }
}

/// The network: shape and parameters.
#[derive(Clone, Debug)]
pub struct GaussianNet {
    shape: GaussianShape,
    params: Vec<f32>,
}

/// Buffers for up to a fixed number of rows, and what a backward pass needs of the last sample.
#[derive(Clone, Debug)]
pub struct GaussianWork {
    hidden: Workspace,
    noise: Vec<f32>,
    std: Vec<f32>,
    /// 1 where the log standard deviation is between its limits, else 0.
    free: Vec<f32>,
    d_output: Vec<f32>,
}

impl GaussianWork {
    /// Buffers for `rows` rows of `shape`.
    pub fn new(shape: &GaussianShape, rows: usize) -> Self {
        let channels = || vec![0.0; rows * shape.act];
        Self {
            hidden: Workspace::new(&shape.hidden, rows),
            noise: channels(),
            std: channels(),
            free: channels(),
            d_output: vec![0.0; rows * shape.hidden.outputs],
        }
    }

    /// The rows it can hold.
    pub fn rows(&self) -> usize {
        self.hidden.rows()
    }
}

impl GaussianNet {
    /// Orthogonal weights with `gain`, the output layer with `output_gain`; zero biases.
    pub fn new(shape: GaussianShape, gain: f32, output_gain: f32, noise: &mut Noise) -> Self {
        assert_eq!(shape.hidden.outputs, 2 * shape.act);
        let width = shape.hidden.width;
        let mut params = vec![0.0; shape.params()];
        orthogonal(&mut params[..shape.obs * width], shape.obs, width, gain, noise);
        shape.hidden.initialise(&mut params[(shape.obs + 1) * width..], gain, output_gain, noise);
        Self { shape, params }
    }

    /// What it takes and how it is built.
    pub fn shape(&self) -> &GaussianShape {
        &self.shape
    }

    /// All parameters.
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    /// All parameters, for the optimiser.
    pub fn params_mut(&mut self) -> &mut [f32] {
        &mut self.params
    }

    /// The squashed means tanh mu of the states `s`.
    pub fn mean_actions(&self, s: &[f32], actions: &mut [f32], work: &mut GaussianWork) {
        let act = self.shape.act;
        let rows = actions.len() / act;
        let outputs = self.outputs(s, rows, &mut work.hidden, false);
        for (actions, outputs) in actions.chunks_exact_mut(act).zip(outputs.chunks_exact(2 * act)) {
            tanh_of(actions, &outputs[..act]);
        }
    }

    /// One action for each of the states `s`, and its log-probability. `keep` prepares [`Self::backward`].
    pub fn sample(
        &self,
        s: &[f32],
        actions: &mut [f32],
        log_prob: &mut [f32],
        noise: &mut Noise,
        work: &mut GaussianWork,
        keep: bool,
    ) {
        let (act, rows) = (self.shape.act, log_prob.len());
        let (low, high) = (self.shape.log_std_min, self.shape.log_std_max);
        let len = rows * act;
        noise.gaussian(&mut work.noise[..len]);
        let outputs = self.outputs(s, rows, &mut work.hidden, keep);
        let kept = work.std.chunks_exact_mut(act).zip(work.free.chunks_exact_mut(act));
        let rows = outputs.chunks_exact(2 * act).zip(actions.chunks_exact_mut(act)).zip(work.noise.chunks_exact(act));
        for (((std, free), ((outputs, actions), e)), log_prob) in kept.zip(rows).zip(log_prob) {
            let (mean, raw) = outputs.split_at(act);
            let mut sum = 0.0;
            for j in 0..act {
                let log_std = raw[j].clamp(low, high);
                std[j] = exp(log_std);
                free[j] = f32::from(raw[j] > low && raw[j] < high);
                let u = mean[j] + std[j] * e[j];
                actions[j] = tanh(u);
                sum -= 0.5 * e[j] * e[j] + log_std + HALF_LN_TAU + log_sech2(u);
            }
            *log_prob = sum;
        }
    }

    /// Overwrites `gradient` with that of mean over rows of (alpha log pi - Q) for the sample kept last, which was
    /// drawn at `s` and gave `actions`; `d_q` is the gradient of Q with respect to those.
    pub fn backward(
        &self,
        s: &[f32],
        actions: &[f32],
        d_q: &[f32],
        alpha: f32,
        work: &mut GaussianWork,
        gradient: &mut [f32],
    ) {
        let (obs, act, width) = (self.shape.obs, self.shape.act, self.shape.hidden.width);
        let rows = actions.len() / act;
        let share = 1.0 / rows as f32;
        let GaussianWork { hidden, noise, std, free, d_output } = work;
        let d_output = &mut d_output[..rows * 2 * act];
        for (r, d) in d_output.chunks_exact_mut(2 * act).enumerate() {
            let (d_mean, d_log_std) = d.split_at_mut(act);
            for j in 0..act {
                let i = r * act + j;
                // d log sech^2 u / du = -2 a, d tanh u / du = 1 - a^2
                let d_u = share * (2.0 * alpha * actions[i] - d_q[i] * (1.0 - actions[i] * actions[i]));
                d_mean[j] = d_u;
                d_log_std[j] = free[i] * (d_u * std[i] * noise[i] - share * alpha);
            }
        }
        let (first, tail) = gradient.split_at_mut((obs + 1) * width);
        self.shape.hidden.backward(self.tail(), d_output, rows, hidden, Some(tail));
        let delta = hidden.first_delta(rows * width);
        let (dw, db) = first.split_at_mut(obs * width);
        matmul::weight_gradient(dw, s, delta, obs, width);
        sum_rows(db, delta);
    }

    /// Means and log standard deviations before their limits, `rows x 2 act`.
    fn outputs<'w>(&self, s: &[f32], rows: usize, work: &'w mut Workspace, keep: bool) -> &'w [f32] {
        let (obs, width) = (self.shape.obs, self.shape.hidden.width);
        let (w_s, rest) = self.params.split_at(obs * width);
        matmul::forward(work.first(rows * width), s, w_s, obs, width, false);
        // One row of the bias serves all rows.
        self.shape.hidden.forward(self.tail(), &rest[..width], rows, rows, work, keep)
    }

    fn tail(&self) -> &[f32] {
        &self.params[(self.shape.obs + 1) * self.shape.hidden.width..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Activation, Trunk};

    const OBS: usize = 3;
    const ACT: usize = 2;

    fn net(activation: Activation, limits: (f32, f32)) -> GaussianNet {
        let hidden =
            Hidden { width: 6, layers: 2, outputs: 2 * ACT, layer_norm: false, activation, trunk: Trunk::Plain };
        let shape = GaussianShape { obs: OBS, act: ACT, hidden, log_std_min: limits.0, log_std_max: limits.1 };
        let mut noise = Noise::new(3, 0);
        let mut net = GaussianNet::new(shape, 1.4, 1.0, &mut noise);
        let mut shake = vec![0.0; net.params.len()];
        noise.gaussian(&mut shake);
        net.params.iter_mut().zip(&shake).for_each(|(p, s)| *p += 0.1 * s);
        net
    }

    fn gaussians(len: usize, seed: u64) -> Vec<f32> {
        let mut v = vec![0.0; len];
        Noise::new(seed, 0).gaussian(&mut v);
        v
    }

    /// The critic of these tests, Q(a) = sum_j sin(2 a_j + j), and its gradient.
    fn critic(a: &[f32]) -> (f64, Vec<f32>) {
        let angle = |(i, a): (usize, &f32)| 2.0 * f64::from(*a) + (i % ACT) as f64;
        let q = a.iter().enumerate().map(|p| angle(p).sin()).sum();
        (q, a.iter().enumerate().map(|p| 2.0 * angle(p).cos() as f32).collect())
    }

    /// mean(alpha log pi - Q) by the definition, in f64, with the density as the change of variables has it:
    /// N(u; mu, sigma) / (1 - tanh^2 u).
    fn loss(net: &GaussianNet, s: &[f32], e: &[f32], alpha: f64) -> f64 {
        let shape = net.shape();
        let f = |z: f64| if shape.hidden.activation == Activation::Relu { z.max(0.0) } else { z.tanh() };
        let rows = s.len() / OBS;
        let mut total = 0.0;
        for r in 0..rows {
            let mut at = 0;
            let mut dense = |input: &[f64], outputs: usize| -> Vec<f64> {
                let (w, b) = (&net.params[at..], &net.params[at + input.len() * outputs..]);
                at += (input.len() + 1) * outputs;
                (0..outputs)
                    .map(|o| {
                        let sum: f64 = input.iter().enumerate().map(|(i, v)| v * f64::from(w[i * outputs + o])).sum();
                        sum + f64::from(b[o])
                    })
                    .collect()
            };
            let s: Vec<f64> = s[r * OBS..(r + 1) * OBS].iter().map(|&s| f64::from(s)).collect();
            let h: Vec<f64> = dense(&s, 6).into_iter().map(f).collect();
            let h: Vec<f64> = dense(&h, 6).into_iter().map(f).collect();
            let out = dense(&h, 2 * ACT);
            for j in 0..ACT {
                let sigma = out[ACT + j].clamp(f64::from(shape.log_std_min), f64::from(shape.log_std_max)).exp();
                let e = f64::from(e[r * ACT + j]);
                let a = (out[j] + sigma * e).tanh();
                let density = (-0.5 * e * e).exp() / (sigma * std::f64::consts::TAU.sqrt()) / (1.0 - a * a);
                total += alpha * density.ln() - (2.0 * a + j as f64).sin();
            }
        }
        total / rows as f64
    }

    #[test]
    fn samples_and_gradients_equal_the_definition() {
        // The last limits are inside the outputs' range: some channels are held, and pass no gradient.
        for (activation, limits) in
            [(Activation::Tanh, (-20.0, 2.0)), (Activation::Relu, (-20.0, 2.0)), (Activation::Tanh, (-0.3, 0.2))]
        {
            let mut net = net(activation, limits);
            let (rows, alpha) = (7, 0.3);
            let s = gaussians(rows * OBS, 1);
            let e = gaussians(rows * ACT, 9);
            let mut work = GaussianWork::new(net.shape(), 10);
            let (mut a, mut log_prob) = (vec![0.0; rows * ACT], vec![0.0; rows]);
            net.sample(&s, &mut a, &mut log_prob, &mut Noise::new(9, 0), &mut work, true);
            if limits.1 < 1.0 {
                let held = work.free[..rows * ACT].iter().filter(|&&f| f == 0.0).count();
                assert!(held > 1 && held < rows * ACT - 1, "{held} channels held");
            }
            let (q, d_q) = critic(&a);
            let mean = log_prob.iter().map(|&l| f64::from(alpha * l)).sum::<f64>() / rows as f64 - q / rows as f64;
            assert!((mean - loss(&net, &s, &e, f64::from(alpha))).abs() < 1e-5);
            let mut gradient = vec![f32::NAN; net.params.len()];
            net.backward(&s, &a, &d_q, alpha, &mut work, &mut gradient);
            for (i, gradient) in gradient.iter().enumerate() {
                let (kept, step) = (net.params[i], 1e-3);
                net.params[i] = kept + step;
                let (up, above) = (loss(&net, &s, &e, f64::from(alpha)), net.params[i]);
                net.params[i] = kept - step;
                let (down, below) = (loss(&net, &s, &e, f64::from(alpha)), net.params[i]);
                net.params[i] = kept;
                let want = (up - down) / f64::from(above - below);
                // A kink inside the step (ReLU or a limit) is worth up to the step times the curvature it hides.
                assert!((f64::from(*gradient) - want).abs() < 5e-3 * want.abs() + 1e-3, "{i}: {gradient} {want}");
            }
        }
    }

    /// The log-probability integrates to one over the actions: the mean of 1 / pi over samples is the size of the box.
    #[test]
    fn the_density_is_normalised() {
        let net = net(Activation::Tanh, (-20.0, 2.0));
        let rows = 200_000;
        let s: Vec<f32> = [0.3, -0.2, 0.5].repeat(rows);
        let mut work = GaussianWork::new(net.shape(), rows);
        let (mut a, mut log_prob) = (vec![0.0; rows * ACT], vec![0.0; rows]);
        net.sample(&s, &mut a, &mut log_prob, &mut Noise::new(2, 0), &mut work, false);
        // Over the middle box |a| < 0.5 alone, of area 1, where 1 / pi is bounded.
        let inside = a.chunks(ACT).zip(&log_prob).filter(|(a, _)| a.iter().all(|a| a.abs() < 0.5));
        let area = inside.map(|(_, l)| f64::from(-l).exp()).sum::<f64>() / rows as f64;
        assert!((area - 1.0).abs() < 0.02, "{area}");
    }

    #[test]
    fn extreme_outputs_stay_finite() {
        let mut net = net(Activation::Relu, (-20.0, 2.0));
        net.params.iter_mut().for_each(|p| *p *= 30.0);
        let s = gaussians(50 * OBS, 4);
        let mut work = GaussianWork::new(net.shape(), 50);
        let (mut a, mut log_prob) = (vec![0.0; 50 * ACT], vec![0.0; 50]);
        net.sample(&s, &mut a, &mut log_prob, &mut Noise::new(2, 0), &mut work, true);
        let mut gradient = vec![0.0; net.params.len()];
        net.backward(&s, &a, &vec![1.0; 50 * ACT], 0.1, &mut work, &mut gradient);
        assert!(a.iter().chain(&log_prob).chain(&gradient).all(|x| x.is_finite()));
        let mut mean = vec![0.0; 50 * ACT];
        net.mean_actions(&s, &mut mean, &mut work);
        assert!(mean.iter().all(|a| a.abs() <= 1.0));
    }
}
