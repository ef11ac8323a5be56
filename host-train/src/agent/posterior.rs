//! The posterior mean E[X_1 | X_t = x] of Reverse Flow Matching, for a batch of points.
//!
//! Target density over latents y: exp(min Q(s, tanh y) / lambda) prod_j sech^2 y_j; linear path, Gaussian source.
//! Each point draws K candidates: `bridge` from the source seen through the path, N(x/t, ((1-t)/t)^2), `uniform` as
//! uniform actions, `kernel` around a policy sample; all K carry balance-heuristic weights against the mixture of the
//! three, self-normalised. A control variate may be added: the weighted score times a coefficient.
//!
//! [`Posterior::candidates`] and [`Posterior::estimate`] are functions of their inputs alone, noise and critic values
//! included, so that they can be compared with the scalar estimator of the device. Nothing allocates after
//! construction. The critic's gradient is needed only where [`Posterior::needs_gradient`] says so.
//!
//! Cost: about 40 ns a candidate and channel, the critic apart.

use crate::config::{ControlVariate, RfmConfig};
use crate::nn::elementwise::softmax;
use crate::nn::math::{atanh, ln, log_sech2, tanh, vectorised};
use crate::noise::Noise;

/// ln(2 pi) / 2.
const HALF_LN_TAU: f32 = 0.918_938_5;

/// The points at which posterior means are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Points<'a> {
    /// Where the path is at time t, `n x act`.
    pub x: &'a [f32],
    /// Its time, one per point, strictly inside (0, 1).
    pub t: &'a [f32],
    /// Centre of the kernel proposal (a policy sample), `n x act`.
    pub centre: &'a [f32],
}

/// What the critic says about the candidates.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// min Q of each candidate, `n x K`.
    pub q: &'a [f32],
    /// Its gradient with respect to the squashed action, `n x K x act`; empty where none is needed.
    pub gradient: &'a [f32],
    /// Temperature lambda.
    pub temperature: f32,
}

/// Results, one row or number a point.
#[derive(Clone, Debug)]
pub struct Estimates {
    /// Posterior means, `n x act`.
    pub mean: Vec<f32>,
    /// Effective sample sizes, 1 / sum w^2.
    pub ess: Vec<f32>,
    /// Estimates of the target policy's entropy, over actions; only of the points that tell it.
    pub entropy: Vec<f32>,
    /// Points without an estimate, which get their own policy sample for a mean.
    pub refused: usize,
}

impl Estimates {
    /// Room for `n` points.
    pub fn new(n: usize, act: usize) -> Self {
        Self { mean: vec![0.0; n * act], ess: vec![0.0; n], entropy: vec![0.0; n], refused: 0 }
    }
}

/// The estimator's constants and scratch memory.
#[derive(Clone, Debug)]
pub struct Posterior {
    act: usize,
    bridge: usize,
    uniform: usize,
    kernel: usize,
    bandwidth: f32,
    uniform_bound: f32,
    control_variate: ControlVariate,
    eta: f32,
    ridge: f32,
    clip: f32,
    /// Log shares of the three proposals in the mixture; -inf for an absent one.
    log_share: [f32; 3],
    weights: Vec<f32>,
    entropy_logits: Vec<f32>,
    log_mixture: Vec<f32>,
    scores: Vec<f32>,
}

impl Posterior {
    /// The estimator of a configuration, for actions of width `act`.
    pub fn new(config: &RfmConfig, act: usize) -> Self {
        let k = config.candidates();
        let log_share = [config.bridge, config.uniform, config.kernel].map(|n| (n as f32 / k as f32).ln());
        Self {
            act,
            bridge: config.bridge,
            uniform: config.uniform,
            kernel: config.kernel,
            bandwidth: config.bandwidth as f32,
            uniform_bound: config.uniform_bound as f32,
            control_variate: config.control_variate,
            eta: config.eta as f32,
            ridge: config.ridge as f32,
            clip: config.clip as f32,
            log_share,
            weights: vec![0.0; k],
            entropy_logits: vec![0.0; k],
            log_mixture: vec![0.0; k],
            scores: vec![0.0; k * act],
        }
    }

    /// Candidates of one point, K.
    pub fn count(&self) -> usize {
        self.bridge + self.uniform + self.kernel
    }

    /// Whether the control variate wants the critic's gradient.
    pub fn needs_gradient(&self) -> bool {
        self.control_variate != ControlVariate::None
    }

    /// Draws the noise of `out.len() / (K act)` points: Gaussian for bridge and kernel candidates, uniform actions for
    /// the uniform ones, in that order of candidates: bridge, uniform, kernel.
    pub fn draw_noise(&self, out: &mut [f32], noise: &mut Noise) {
        let (uniform_from, uniform_to) = (self.bridge * self.act, (self.bridge + self.uniform) * self.act);
        noise.gaussian(out);
        for point in out.chunks_exact_mut(self.count() * self.act) {
            noise.uniform_in(&mut point[uniform_from..uniform_to], -self.uniform_bound, self.uniform_bound);
        }
    }

    /// The candidates y, `n x K x act`, that `noise` (laid out alike) makes.
    pub fn candidates(&self, points: Points<'_>, noise: &[f32], y: &mut [f32]) {
        let act = self.act;
        let row = self.count() * act;
        let each = y.chunks_exact_mut(row).zip(noise.chunks_exact(row));
        let points = points.x.chunks_exact(act).zip(points.centre.chunks_exact(act)).zip(points.t);
        for ((y, noise), ((x, centre), &t)) in each.zip(points) {
            let (bridge, rest) = y.split_at_mut(self.bridge * act);
            let (uniform, kernel) = rest.split_at_mut(self.uniform * act);
            let (bridge_noise, rest) = noise.split_at(self.bridge * act);
            let (uniform_noise, kernel_noise) = rest.split_at(self.uniform * act);
            for (y, e) in bridge.chunks_exact_mut(act).zip(bridge_noise.chunks_exact(act)) {
                for ((y, e), x) in y.iter_mut().zip(e).zip(x) {
                    *y = (x - (1.0 - t) * e) / t;
                }
            }
            vectorised(|| uniform.iter_mut().zip(uniform_noise).for_each(|(y, &a)| *y = atanh(a)));
            for (y, e) in kernel.chunks_exact_mut(act).zip(kernel_noise.chunks_exact(act)) {
                for ((y, e), p) in y.iter_mut().zip(e).zip(centre) {
                    *y = p + self.bandwidth * e;
                }
            }
        }
    }

    /// Posterior means, effective sample sizes and entropies from candidates and the critic's word on them.
    pub fn estimate(&mut self, points: Points<'_>, y: &[f32], values: Values<'_>, out: &mut Estimates) {
        let (act, k) = (self.act, self.count());
        for (i, y) in y.chunks_exact(k * act).enumerate() {
            let x = &points.x[i * act..(i + 1) * act];
            let centre = &points.centre[i * act..(i + 1) * act];
            let q = &values.q[i * k..(i + 1) * k];
            let (t, inverse) = (points.t[i], 1.0 / values.temperature);
            self.weigh(x, t, centre, y, q, inverse);

            let mean = &mut out.mean[i * act..(i + 1) * act];
            mean.fill(0.0);
            for (y, w) in y.chunks_exact(act).zip(&self.weights) {
                mean.iter_mut().zip(y).for_each(|(m, y)| *m += w * y);
            }
            out.ess[i] = 1.0 / self.weights.iter().map(|w| w * w).sum::<f32>();

            // H = log Z - E[Q / lambda] over the target, with Z = E_mixture[target / mixture].
            let log_z = softmax(&mut self.entropy_logits) - (k as f32).ln();
            let expected: f32 = self.entropy_logits.iter().zip(q).map(|(w, q)| w * q * inverse).sum();
            out.entropy[i] = log_z - expected;

            if self.needs_gradient() {
                let gradient = &values.gradient[i * k * act..(i + 1) * k * act];
                self.score(x, t, y, gradient, inverse);
                self.control(t, y, mean);
            }
        }
    }

    /// Fills `weights` (normalised) and `entropy_logits`, the log of target over mixture.
    fn weigh(&mut self, x: &[f32], t: f32, centre: &[f32], y: &[f32], q: &[f32], inverse: f32) {
        let act = self.act;
        let d = act as f32;
        let [share_bridge, share_uniform, share_kernel] = self.log_share;
        let bridge_constant = -d * (ln((1.0 - t) / t) + HALF_LN_TAU);
        let uniform_constant = -d * std::f32::consts::LN_2;
        let kernel_constant = -d * (self.bandwidth.ln() + HALF_LN_TAU);
        let (to_source, to_kernel) = (1.0 / (1.0 - t), 1.0 / self.bandwidth);
        let (weights, logits, mixture) = (&mut self.weights, &mut self.entropy_logits, &mut self.log_mixture);
        vectorised(|| {
            for (c, y) in y.chunks_exact(act).enumerate() {
                let (mut source, mut near, mut jacobian) = (0.0, 0.0, 0.0);
                for ((&y, &x), &p) in y.iter().zip(x).zip(centre) {
                    let x0 = (x - t * y) * to_source;
                    let z = (y - p) * to_kernel;
                    source += x0 * x0;
                    near += z * z;
                    jacobian += log_sech2(y);
                }
                let bridge = bridge_constant - 0.5 * source;
                let parts = [
                    share_bridge + bridge,
                    share_uniform + uniform_constant + jacobian,
                    share_kernel + kernel_constant - 0.5 * near,
                ];
                mixture[c] = log_sum_exp(parts);
                logits[c] = q[c] * inverse + jacobian - mixture[c];
                weights[c] = logits[c] + bridge;
            }
        });
        softmax(&mut self.weights);
    }

    /// Fills `scores` with s_1 = grad log p_1(y) + (t / (1 - t)) x_0, the log derivative of the data posterior.
    fn score(&mut self, x: &[f32], t: f32, y: &[f32], gradient: &[f32], inverse: f32) {
        let act = self.act;
        let (to_source, ratio) = (1.0 / (1.0 - t), t / (1.0 - t));
        let rows = self.scores.chunks_exact_mut(act).zip(y.chunks_exact(act)).zip(gradient.chunks_exact(act));
        vectorised(|| {
            for ((score, y), gradient) in rows {
                for (((s, &y), &g), &x) in score.iter_mut().zip(y).zip(gradient).zip(x) {
                    let a = tanh(y);
                    *s = (1.0 - a * a) * g * inverse - 2.0 * a + ratio * (x - t * y) * to_source;
                }
            }
        });
    }

    /// Adds the control variate to `mean`: coefficient times weighted score, channel by channel.
    fn control(&self, t: f32, y: &[f32], mean: &mut [f32]) {
        let act = self.act;
        for (j, mean) in mean.iter_mut().enumerate() {
            let column = |v: &'_ [f32], c: usize| v[c * act + j];
            let weighted =
                |f: &dyn Fn(usize) -> f32| -> f32 { self.weights.iter().enumerate().map(|(c, w)| w * f(c)).sum() };
            let average = weighted(&|c| column(&self.scores, c));
            let coefficient = match self.control_variate {
                ControlVariate::None => 0.0,
                ControlVariate::Eta => self.eta * ((1.0 - t) / t) * ((1.0 - t) / t),
                ControlVariate::Diagonal => {
                    let centred = |c: usize| column(&self.scores, c) - average;
                    let cross = weighted(&|c| self.weights[c] * (column(y, c) - *mean) * centred(c));
                    let square = weighted(&|c| self.weights[c] * centred(c) * centred(c));
                    (-cross / (square + self.ridge)).clamp(-self.clip, self.clip)
                }
                ControlVariate::Fisher => {
                    let square = weighted(&|c| column(&self.scores, c) * column(&self.scores, c));
                    // A vanishing score needs no correction, and would divide by zero.
                    if square > f32::MIN_POSITIVE { 1.0 / square } else { 0.0 }
                }
            };
            *mean += coefficient * average;
        }
    }
}

/// log(e^a + e^b + e^c) where at least one is finite.
#[inline(always)]
fn log_sum_exp(parts: [f32; 3]) -> f32 {
    use crate::nn::math::exp;
    let top = parts[0].max(parts[1]).max(parts[2]);
    // An absent proposal has share zero: its term must be exactly nothing.
    let term = |p: f32| if p == f32::NEG_INFINITY { 0.0 } else { exp(p - top) };
    top + ln(term(parts[0]) + term(parts[1]) + term(parts[2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXTURES: [(usize, usize, usize); 5] = [(3, 3, 2), (8, 0, 0), (0, 8, 0), (4, 4, 0), (0, 5, 3)];
    const VARIATES: [ControlVariate; 4] =
        [ControlVariate::None, ControlVariate::Eta, ControlVariate::Diagonal, ControlVariate::Fisher];

    fn config(mixture: (usize, usize, usize), scale: usize, control_variate: ControlVariate) -> RfmConfig {
        let (bridge, uniform, kernel) = (mixture.0 * scale, mixture.1 * scale, mixture.2 * scale);
        RfmConfig { bridge, uniform, kernel, control_variate, ..RfmConfig::standard() }
    }

    /// A critic in closed form, Q(a) = sum_j sin(3 a_j + j) and its gradient.
    fn critic(y: &[f32], act: usize) -> (Vec<f32>, Vec<f32>) {
        let a: Vec<f64> = y.iter().map(|&y| f64::from(y).tanh()).collect();
        let q = a.chunks(act).map(|a| a.iter().enumerate().map(|(j, a)| (3.0 * a + j as f64).sin()).sum::<f64>());
        let gradient = a.iter().enumerate().map(|(i, a)| (3.0 * (3.0 * a + (i % act) as f64).cos()) as f32);
        (q.map(|q| q as f32).collect(), gradient.collect())
    }

    /// One point by the formulas, candidate by candidate, in f64: mean, effective sample size, entropy.
    fn reference(
        c: &RfmConfig,
        x: &[f64],
        t: f64,
        p: &[f64],
        y: &[f64],
        q: &[f64],
        dq: &[f64],
    ) -> (Vec<f64>, f64, f64) {
        let (d, k, lambda) = (x.len(), q.len(), 0.2);
        let normal =
            |z: f64, mean: f64, sd: f64| -0.5 * ((z - mean) / sd).powi(2) - sd.ln() - 0.5 * std::f64::consts::TAU.ln();
        let row = |v: &[f64], i: usize| v[i * d..(i + 1) * d].to_vec();
        let sum = |v: Vec<f64>| v.iter().sum::<f64>();
        let mut log_w = Vec::new();
        let mut log_e = Vec::new();
        for (i, q) in q.iter().enumerate() {
            let y = row(y, i);
            let sech = sum(y.iter().map(|y| -2.0 * y.cosh().ln()).collect());
            let bridge = sum((0..d).map(|j| normal(y[j], x[j] / t, (1.0 - t) / t)).collect());
            let near = sum((0..d).map(|j| normal(y[j], p[j], c.bandwidth)).collect());
            let uniform = sech - d as f64 * 2f64.ln();
            let mixture =
                (c.bridge as f64 * bridge.exp() + c.uniform as f64 * uniform.exp() + c.kernel as f64 * near.exp()).ln()
                    - (k as f64).ln();
            log_w.push(q / lambda + sech + bridge - mixture);
            log_e.push(q / lambda + sech - mixture);
        }
        let normalised = |l: &[f64]| {
            let top = l.iter().copied().fold(f64::MIN, f64::max);
            let e: Vec<f64> = l.iter().map(|l| (l - top).exp()).collect();
            let z: f64 = e.iter().sum();
            (e.iter().map(|e| e / z).collect::<Vec<_>>(), top + z.ln())
        };
        let (w, _) = normalised(&log_w);
        let (e, log_z) = normalised(&log_e);
        let entropy = log_z - (k as f64).ln() - e.iter().zip(q).map(|(e, q)| e * q / lambda).sum::<f64>();
        let score: Vec<f64> = (0..k * d)
            .map(|i| {
                let a = y[i].tanh();
                (1.0 - a * a) * dq[i] / lambda - 2.0 * a + t / (1.0 - t) * (x[i % d] - t * y[i]) / (1.0 - t)
            })
            .collect();
        let mean = (0..d).map(|j| {
            let at = |v: &[f64], i: usize| v[i * d + j];
            let m: f64 = (0..k).map(|i| w[i] * at(y, i)).sum();
            let s: f64 = (0..k).map(|i| w[i] * at(&score, i)).sum();
            let coefficient = match c.control_variate {
                ControlVariate::None => 0.0,
                ControlVariate::Eta => c.eta * (1.0 - t).powi(2) / t.powi(2),
                ControlVariate::Diagonal => {
                    let cross: f64 = (0..k).map(|i| w[i] * w[i] * (at(y, i) - m) * (at(&score, i) - s)).sum();
                    let square: f64 = (0..k).map(|i| w[i] * w[i] * (at(&score, i) - s).powi(2)).sum();
                    (-cross / (square + c.ridge)).clamp(-c.clip, c.clip)
                }
                ControlVariate::Fisher => 1.0 / (0..k).map(|i| w[i] * at(&score, i).powi(2)).sum::<f64>(),
            };
            m + coefficient * s
        });
        (mean.collect(), 1.0 / w.iter().map(|w| w * w).sum::<f64>(), entropy)
    }

    fn wide(v: &[f32]) -> Vec<f64> {
        v.iter().map(|&v| f64::from(v)).collect()
    }

    /// Every mixture with every control variate, against the formulas in f64 on the same candidates.
    #[test]
    fn estimates_equal_the_formulas() {
        let (n, act) = (40, 3);
        for (mixture, variate) in MIXTURES.into_iter().flat_map(|m| VARIATES.map(|v| (m, v))) {
            let config = config(mixture, 1, variate);
            let mut noise = Noise::new(5, 0);
            let (mut x, mut centre, mut t) = (vec![0.0; n * act], vec![0.0; n * act], vec![0.0; n]);
            noise.gaussian(&mut x);
            noise.gaussian(&mut centre);
            noise.uniform_in(&mut t, 0.05, 0.95);
            let mut posterior = Posterior::new(&config, act);
            let (mut e, mut y) = (vec![0.0; n * 8 * act], vec![0.0; n * 8 * act]);
            posterior.draw_noise(&mut e, &mut noise);
            let points = Points { x: &x, t: &t, centre: &centre };
            posterior.candidates(points, &e, &mut y);
            let (q, gradient) = critic(&y, act);
            let values = Values { q: &q, gradient: &gradient, temperature: 0.2 };
            let mut out = Estimates::new(n, act);
            posterior.estimate(points, &y, values, &mut out);
            for i in 0..n {
                let cut = |v: &[f32], width: usize| wide(&v[i * width..(i + 1) * width]);
                let (mean, ess, entropy) = reference(
                    &config,
                    &cut(&x, act),
                    f64::from(t[i]),
                    &cut(&centre, act),
                    &cut(&y, 8 * act),
                    &cut(&q, 8),
                    &cut(&gradient, 8 * act),
                );
                for (got, want) in out.mean[i * act..].iter().zip(&mean) {
                    let error = (f64::from(*got) - want).abs();
                    assert!(error < 2e-4 * (1.0 + want.abs()), "{mixture:?} {variate:?} t {}: {got} {want}", t[i]);
                }
                assert!((f64::from(out.ess[i]) / ess - 1.0).abs() < 1e-3);
                assert!((f64::from(out.entropy[i]) - entropy).abs() < 1e-3 * (1.0 + entropy.abs()));
            }
        }
    }

    /// With many candidates every mixture and control variate finds the quadrature's posterior mean and entropy.
    #[test]
    fn estimates_converge_to_quadrature() {
        let (x, centre, temperature) = ([0.4], [0.3], 0.5);
        for t in [0.3_f32, 0.6, 0.9] {
            // Grid over the latent: weight of the target, of the posterior, and the first moment.
            let (mut mass, mut moment, mut z, mut energy) = (0.0, 0.0, 0.0, 0.0);
            let step = 1e-3;
            for i in -12_000..=12_000 {
                let y = f64::from(i) * step;
                let q = (3.0 * y.tanh()).sin() / f64::from(temperature);
                let target = q.exp() / y.cosh().powi(2);
                let t = f64::from(t);
                let joint = target * (-0.5 * ((f64::from(x[0]) - t * y) / (1.0 - t)).powi(2)).exp();
                mass += joint;
                moment += joint * y;
                z += target * step;
                energy += target * q * step;
            }
            let (mean, entropy) = (moment / mass, z.ln() - energy / z);
            for (mixture, variate) in MIXTURES.into_iter().flat_map(|m| VARIATES.map(|v| (m, v))) {
                let config = config(mixture, 5000, variate);
                let mut posterior = Posterior::new(&config, 1);
                let mut noise = Noise::new(6, 0);
                let (mut e, mut y) = (vec![0.0; 40_000], vec![0.0; 40_000]);
                posterior.draw_noise(&mut e, &mut noise);
                let points = Points { x: &x, t: &[t], centre: &centre };
                posterior.candidates(points, &e, &mut y);
                let (q, gradient) = critic(&y, 1);
                let mut out = Estimates::new(1, 1);
                posterior.estimate(points, &y, Values { q: &q, gradient: &gradient, temperature }, &mut out);
                let got = f64::from(out.mean[0]);
                // A fixed coefficient carries the score's own noise, by (1 - t)^2 / t^2.
                let noise = if variate == ControlVariate::Eta { (1.0 / f64::from(t) - 1.0).powi(2) } else { 0.0 };
                assert!((got - mean).abs() < 0.03 + 0.02 * noise, "{mixture:?} {variate:?} at {t}: {got} for {mean}");
                // The entropy needs candidates all over the target: uniform ones.
                if mixture.1 > 0 {
                    assert!((f64::from(out.entropy[0]) - entropy).abs() < 0.05, "{mixture:?}: {}", out.entropy[0]);
                }
            }
        }
    }

    #[test]
    fn candidates_follow_their_proposals() {
        let config = config((1, 1, 1), 20_000, ControlVariate::None);
        let posterior = Posterior::new(&config, 1);
        let (mut e, mut y) = (vec![0.0; 60_000], vec![0.0; 60_000]);
        posterior.draw_noise(&mut e, &mut Noise::new(7, 0));
        posterior.candidates(Points { x: &[0.5], t: &[0.25], centre: &[-0.7] }, &e, &mut y);
        let moments = |v: &[f32]| {
            let mean = wide(v).iter().sum::<f64>() / v.len() as f64;
            (mean, (wide(v).iter().map(|v| (v - mean).powi(2)).sum::<f64>() / v.len() as f64).sqrt())
        };
        let close =
            |(a, b): (f64, f64), mean: f64, sd: f64| (a - mean).abs() < 0.04 * sd && (b / sd - 1.0).abs() < 0.03;
        assert!(close(moments(&y[..20_000]), 2.0, 3.0), "bridge: x / t, (1 - t) / t");
        let actions: Vec<f32> = y[20_000..40_000].iter().map(|y| y.tanh()).collect();
        assert!(close(moments(&actions), 0.0, 1.0 / 3f64.sqrt()), "uniform on (-1, 1)");
        assert!(actions.iter().all(|a| a.abs() <= 0.9999));
        assert!(close(moments(&y[40_000..]), -0.7, 0.3), "kernel: centre, bandwidth");
    }
}
