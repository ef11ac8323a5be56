//! The posterior mean E[X_1 | X_t = x] of Reverse Flow Matching, for a batch of points.
//!
//! Target density over latents y: exp(min Q(s, tanh y) / lambda) prod_j sech^2 y_j; linear path, Gaussian source.
//! Each point draws K candidates: `bridge` from the source seen through the path, N(x/t, ((1-t)/t)^2), `uniform` as
//! uniform actions, `kernel` around a policy sample; all K carry balance-heuristic weights against the mixture of the
//! three, self-normalised. A control variate may be added: the weighted score times a coefficient.
//!
//! Candidates stand in lanes of [`LANES`] points (see [`crate::nn::lanes`]): per panel of points one lane a candidate and
//! channel, so that every sum over candidates is a sum of lanes. Lanes past the last point hold arbitrary numbers.
//!
//! [`Posterior::candidates`] and [`Posterior::estimate`] are functions of their inputs alone, noise and critic values
//! included, so that they can be compared with the scalar estimator of the device. Nothing allocates after
//! construction. The critic's gradient is needed only where [`Posterior::needs_gradient`] says so.
//!
//! Cost: about 3 ns a candidate and channel, the critic apart.

use crate::config::{ControlVariate, RfmConfig};
use crate::nn::lanes::{LANES, Lane, pack_groups, panels, unpack_groups};
use crate::nn::math::{atanh, exp, ln, tanh, vectorised_op};
use crate::noise::Noise;
use pulp::{Simd, WithSimd};
use std::f32::consts::LN_2;

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

/// The candidates with what the critic says about them, in lanes.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// Latents, one lane a candidate and channel.
    pub latents: &'a [Lane],
    /// Their tanh, alike.
    pub actions: &'a [Lane],
    /// min Q, one lane a candidate.
    pub q: &'a [Lane],
    /// Its gradient with respect to the squashed action, one lane a candidate and channel; empty where none is needed.
    pub gradient: &'a [Lane],
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
    constants: Constants,
    uniform_bound: f32,
    panel: Panel,
}

/// What the weights depend on beside the points.
#[derive(Clone, Copy, Debug)]
struct Constants {
    act: usize,
    /// Candidates of the three proposals, and the log of their shares in the mixture, -inf for an absent one.
    counts: [usize; 3],
    log_share: [f32; 3],
    bandwidth: f32,
    control_variate: ControlVariate,
    eta: f32,
    ridge: f32,
    clip: f32,
}

/// One panel of points and what is found out about it.
#[derive(Clone, Debug)]
struct Panel {
    x: Vec<Lane>,
    centre: Vec<Lane>,
    t: Lane,
    /// One lane a candidate.
    weights: Vec<Lane>,
    entropy_weights: Vec<Lane>,
    /// One lane a candidate and channel.
    scores: Vec<Lane>,
    mean: Vec<Lane>,
    ess: Lane,
    entropy: Lane,
}

impl Posterior {
    /// The estimator of a configuration, for actions of width `act`.
    pub fn new(config: &RfmConfig, act: usize) -> Self {
        let k = config.candidates();
        let counts = [config.bridge, config.uniform, config.kernel];
        Self {
            constants: Constants {
                act,
                counts,
                log_share: counts.map(|n| (n as f32 / k as f32).ln()),
                bandwidth: config.bandwidth as f32,
                control_variate: config.control_variate,
                eta: config.eta as f32,
                ridge: config.ridge as f32,
                clip: config.clip as f32,
            },
            uniform_bound: config.uniform_bound as f32,
            panel: Panel {
                x: vec![Lane::ZERO; act],
                centre: vec![Lane::ZERO; act],
                // A time inside (0, 1) for the lanes past the last point.
                t: Lane([0.5; LANES]),
                weights: vec![Lane::ZERO; k],
                entropy_weights: vec![Lane::ZERO; k],
                scores: vec![Lane::ZERO; k * act],
                mean: vec![Lane::ZERO; act],
                ess: Lane::ZERO,
                entropy: Lane::ZERO,
            },
        }
    }

    /// Candidates of one point, K.
    pub fn count(&self) -> usize {
        self.constants.counts.iter().sum()
    }

    /// Lanes of the candidates of `n` points, a channel each.
    pub fn lanes(&self, n: usize) -> usize {
        panels(n) * self.count()
    }

    /// Whether the control variate wants the critic's gradient.
    pub fn needs_gradient(&self) -> bool {
        self.constants.control_variate != ControlVariate::None
    }

    /// Draws the noise of candidates, a lane each candidate and channel: Gaussian for bridge and kernel candidates,
    /// uniform actions for the uniform ones, in that order of candidates: bridge, uniform, kernel.
    pub fn draw_noise(&self, out: &mut [Lane], noise: &mut Noise) {
        let [bridge, uniform, _] = self.constants.counts.map(|n| n * self.constants.act);
        for panel in out.chunks_exact_mut(self.count() * self.constants.act) {
            let (gaussian, rest) = panel.split_at_mut(bridge);
            let (actions, more) = rest.split_at_mut(uniform);
            noise.gaussian_lanes(gaussian);
            actions.iter_mut().for_each(|a| noise.uniform_in(&mut a.0, -self.uniform_bound, self.uniform_bound));
            noise.gaussian_lanes(more);
        }
    }

    /// Turns the noise in `latents` into the candidates that it makes, and writes their tanh to `actions`.
    pub fn candidates(&mut self, points: Points<'_>, latents: &mut [Lane], actions: &mut [Lane]) {
        let row = self.count() * self.constants.act;
        let each = latents.chunks_exact_mut(row).zip(actions.chunks_exact_mut(row));
        for (p, (latents, actions)) in each.enumerate() {
            self.panel.take(points, p, self.constants.act);
            vectorised_op(Place { constants: self.constants, panel: &self.panel, latents, actions });
        }
    }

    /// Posterior means, effective sample sizes and entropies from candidates and the critic's word on them.
    pub fn estimate(&mut self, points: Points<'_>, values: Values<'_>, out: &mut Estimates) {
        let (act, k) = (self.constants.act, self.count());
        let row = k * act;
        for (p, q) in values.q.chunks_exact(k).enumerate() {
            let panel = &mut self.panel;
            panel.take(points, p, act);
            let cut = |lanes| if <[Lane]>::is_empty(lanes) { &[] } else { &lanes[p * row..(p + 1) * row] };
            let (latents, actions, gradient) = (cut(values.latents), cut(values.actions), cut(values.gradient));
            let inverse = 1.0 / values.temperature;
            vectorised_op(Weigh { constants: self.constants, panel, latents, actions, q, gradient, inverse });
            let (from, to) = (p * LANES, (p * LANES + LANES).min(points.t.len()));
            unpack_groups(&panel.mean, act, 1, &mut out.mean[from * act..to * act]);
            out.ess[from..to].copy_from_slice(&panel.ess.0[..to - from]);
            out.entropy[from..to].copy_from_slice(&panel.entropy.0[..to - from]);
        }
    }
}

impl Panel {
    /// Takes the points of panel `p`.
    fn take(&mut self, points: Points<'_>, p: usize, act: usize) {
        let (from, to) = (p * LANES, (p * LANES + LANES).min(points.t.len()));
        pack_groups(&points.x[from * act..to * act], act, 1, &mut self.x);
        pack_groups(&points.centre[from * act..to * act], act, 1, &mut self.centre);
        self.t.0[..to - from].copy_from_slice(&points.t[from..to]);
    }
}

/// A number for each lane from the numbers of the lanes.
#[inline(always)]
fn lane(f: impl Fn(usize) -> f32) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (i, out) in out.iter_mut().enumerate() {
        *out = f(i);
    }
    out
}

/// The work of [`Posterior::candidates`] on one panel. Operations rather than closures, so that they are inlined.
struct Place<'a> {
    constants: Constants,
    panel: &'a Panel,
    latents: &'a mut [Lane],
    actions: &'a mut [Lane],
}

impl WithSimd for Place<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Constants { act, counts, bandwidth, .. } = self.constants;
        let t = &self.panel.t.0;
        let inverse = lane(|i| 1.0 / t[i]);
        let spread = lane(|i| (1.0 - t[i]) * inverse[i]);
        for (c, y) in self.latents.chunks_exact_mut(act).enumerate() {
            for ((y, x), p) in y.iter_mut().zip(&self.panel.x).zip(&self.panel.centre) {
                if c < counts[0] {
                    y.0 = lane(|i| x.0[i] * inverse[i] - spread[i] * y.0[i]);
                } else if c < counts[0] + counts[1] {
                    y.0 = lane(|i| atanh(y.0[i]));
                } else {
                    y.0 = lane(|i| p.0[i] + bandwidth * y.0[i]);
                }
            }
        }
        for (a, y) in self.actions.iter_mut().zip(self.latents.iter()) {
            a.0 = lane(|i| tanh(y.0[i]));
        }
    }
}

/// The work of [`Posterior::estimate`] on one panel.
struct Weigh<'a> {
    constants: Constants,
    panel: &'a mut Panel,
    latents: &'a [Lane],
    actions: &'a [Lane],
    q: &'a [Lane],
    gradient: &'a [Lane],
    inverse: f32,
}

impl WithSimd for Weigh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) {
        self.weigh();
        let Panel { weights, entropy_weights, mean, ess, entropy, .. } = &mut *self.panel;
        let act = self.constants.act;
        softmax(weights);
        let mut squares = [0.0; LANES];
        for w in weights.iter() {
            squares = lane(|i| squares[i] + w.0[i] * w.0[i]);
        }
        ess.0 = lane(|i| 1.0 / squares[i]);
        for (j, mean) in mean.iter_mut().enumerate() {
            mean.0 = weighted(weights, |c, i| self.latents[c * act + j].0[i]);
        }
        // H = log Z - E[Q / lambda] over the target, with Z = E_mixture[target / mixture].
        let log_z = softmax(entropy_weights);
        let expected = weighted(entropy_weights, |c, i| self.q[c].0[i]);
        let log_k = (weights.len() as f32).ln();
        entropy.0 = lane(|i| log_z[i] - log_k - expected[i] * self.inverse);
        if self.constants.control_variate != ControlVariate::None {
            self.score();
            self.control();
        }
    }
}

impl Weigh<'_> {
    /// Fills both weights with their logarithms, not yet normalised: target over mixture, and that times the bridge.
    #[inline(always)]
    fn weigh(&mut self) {
        let Constants { act, counts, log_share, bandwidth, .. } = self.constants;
        let Panel { x, centre, t, weights, entropy_weights, .. } = &mut *self.panel;
        let d = act as f32;
        let to_source = lane(|i| 1.0 / (1.0 - t.0[i]));
        let bridge_constant = lane(|i| -d * (ln((1.0 - t.0[i]) / t.0[i]) + HALF_LN_TAU));
        let kernel_constant = -d * (bandwidth.ln() + HALF_LN_TAU);
        let to_kernel = 1.0 / bandwidth;
        let each = weights.iter_mut().zip(entropy_weights).zip(self.latents.chunks_exact(act)).zip(self.q);
        for (((weight, entropy_weight), y), q) in each {
            let (mut source, mut near) = ([0.0; LANES], [0.0; LANES]);
            for ((y, x), p) in y.iter().zip(x.iter()).zip(centre.iter()) {
                let x0 = lane(|i| (x.0[i] - t.0[i] * y.0[i]) * to_source[i]);
                source = lane(|i| source[i] + x0[i] * x0[i]);
                if counts[2] > 0 {
                    let z = lane(|i| (y.0[i] - p.0[i]) * to_kernel);
                    near = lane(|i| near[i] + z[i] * z[i]);
                }
            }
            let jacobian = log_jacobian(y);
            let bridge = lane(|i| bridge_constant[i] - 0.5 * source[i]);
            let mixture = if counts[1] + counts[2] == 0 {
                bridge
            } else {
                let uniform = lane(|i| log_share[1] - d * LN_2 + jacobian[i]);
                let kernel = lane(|i| log_share[2] + kernel_constant - 0.5 * near[i]);
                lane(|i| log_sum_exp([log_share[0] + bridge[i], uniform[i], kernel[i]]))
            };
            entropy_weight.0 = lane(|i| q.0[i] * self.inverse + jacobian[i] - mixture[i]);
            weight.0 = lane(|i| entropy_weight.0[i] + bridge[i]);
        }
    }

    /// Fills `scores` with s_1 = grad log p_1(y) + (t / (1 - t)) x_0, the log derivative of the data posterior.
    #[inline(always)]
    fn score(&mut self) {
        let act = self.constants.act;
        let Panel { x, t, scores, .. } = &mut *self.panel;
        let ratio = lane(|i| t.0[i] / ((1.0 - t.0[i]) * (1.0 - t.0[i])));
        let rows = scores.chunks_exact_mut(act).zip(self.latents.chunks_exact(act));
        let critic = self.actions.chunks_exact(act).zip(self.gradient.chunks_exact(act));
        for ((score, y), (a, g)) in rows.zip(critic) {
            for (((s, y), (a, g)), x) in score.iter_mut().zip(y).zip(a.iter().zip(g)).zip(x.iter()) {
                s.0 = lane(|i| {
                    let pull = (1.0 - a.0[i] * a.0[i]) * g.0[i] * self.inverse - 2.0 * a.0[i];
                    pull + ratio[i] * (x.0[i] - t.0[i] * y.0[i])
                });
            }
        }
    }

    /// Adds the control variate to the mean: coefficient times weighted score, channel by channel.
    #[inline(always)]
    fn control(&mut self) {
        let Constants { act, control_variate, eta, ridge, clip, .. } = self.constants;
        let Panel { t, weights, scores, mean, .. } = &mut *self.panel;
        for (j, mean) in mean.iter_mut().enumerate() {
            let average = weighted(weights, |c, i| scores[c * act + j].0[i]);
            let coefficient = match control_variate {
                ControlVariate::None => [0.0; LANES],
                ControlVariate::Eta => lane(|i| eta * ((1.0 - t.0[i]) / t.0[i]) * ((1.0 - t.0[i]) / t.0[i])),
                ControlVariate::Diagonal => {
                    let (mut cross, mut square) = ([0.0; LANES], [0.0; LANES]);
                    for (c, w) in weights.iter().enumerate() {
                        let (s, y) = (&scores[c * act + j].0, &self.latents[c * act + j].0);
                        let centred = lane(|i| w.0[i] * (s[i] - average[i]));
                        cross = lane(|i| cross[i] + centred[i] * w.0[i] * (y[i] - mean.0[i]));
                        square = lane(|i| square[i] + centred[i] * centred[i]);
                    }
                    lane(|i| (-cross[i] / (square[i] + ridge)).clamp(-clip, clip))
                }
                ControlVariate::Fisher => {
                    let square = weighted(weights, |c, i| scores[c * act + j].0[i] * scores[c * act + j].0[i]);
                    // A vanishing score needs no correction, and would divide by zero.
                    lane(|i| if square[i] > f32::MIN_POSITIVE { 1.0 / square[i] } else { 0.0 })
                }
            };
            mean.0 = lane(|i| mean.0[i] + coefficient[i] * average[i]);
        }
    }
}

/// log prod_j sech^2 y_j = 2 sum_j (ln 2 - |y_j| - ln(1 + e^(-2 |y_j|))), with one logarithm for many channels.
#[inline(always)]
fn log_jacobian(y: &[Lane]) -> [f32; LANES] {
    let mut sum = [0.0; LANES];
    // The product is at most 2^64.
    for y in y.chunks(64) {
        let mut product = [1.0; LANES];
        for y in y {
            sum = lane(|i| sum[i] + (LN_2 - y.0[i].abs()));
            product = lane(|i| product[i] * (1.0 + exp(-2.0 * y.0[i].abs())));
        }
        sum = lane(|i| sum[i] - ln(product[i]));
    }
    lane(|i| 2.0 * sum[i])
}

/// The sum over candidates of weight times `f`.
#[inline(always)]
fn weighted(weights: &[Lane], f: impl Fn(usize, usize) -> f32) -> [f32; LANES] {
    let mut sum = [0.0; LANES];
    for (c, w) in weights.iter().enumerate() {
        sum = lane(|i| sum[i] + w.0[i] * f(c, i));
    }
    sum
}

/// Softmax over candidates in place; returns log sum exp.
#[inline(always)]
fn softmax(logits: &mut [Lane]) -> [f32; LANES] {
    let mut top = [f32::NEG_INFINITY; LANES];
    for l in logits.iter() {
        top = lane(|i| if l.0[i] > top[i] { l.0[i] } else { top[i] });
    }
    let mut sum = [0.0; LANES];
    for l in logits.iter_mut() {
        l.0 = lane(|i| exp(l.0[i] - top[i]));
        sum = lane(|i| sum[i] + l.0[i]);
    }
    let inverse = lane(|i| 1.0 / sum[i]);
    for l in logits.iter_mut() {
        l.0 = lane(|i| l.0[i] * inverse[i]);
    }
    lane(|i| top[i] + ln(sum[i]))
}

/// log(e^a + e^b + e^c) where at least one is finite.
#[inline(always)]
fn log_sum_exp(parts: [f32; 3]) -> f32 {
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

    /// The estimates of `points`, with a critic that takes and gives rows, state by state.
    fn estimate(
        config: &RfmConfig,
        act: usize,
        points: Points<'_>,
        temperature: f32,
        noise: &mut Noise,
        mut critic: impl FnMut(&[f32]) -> (Vec<f32>, Vec<f32>),
    ) -> Estimates {
        let mut posterior = Posterior::new(config, act);
        let (n, k) = (points.t.len(), posterior.count());
        let lanes = || vec![Lane::ZERO; posterior.lanes(n) * act];
        let (mut latents, mut actions, mut slopes) = (lanes(), lanes(), lanes());
        posterior.draw_noise(&mut latents, noise);
        posterior.candidates(points, &mut latents, &mut actions);
        let mut rows = vec![0.0; n * k * act];
        unpack_groups(&latents, act, k, &mut rows);
        let (values, gradient) = critic(&rows);
        let mut q = vec![Lane::ZERO; posterior.lanes(n)];
        pack_groups(&values, 1, k, &mut q);
        pack_groups(&gradient, act, k, &mut slopes);
        let mut out = Estimates::new(n, act);
        let values = Values { latents: &latents, actions: &actions, q: &q, gradient: &slopes, temperature };
        posterior.estimate(points, values, &mut out);
        out
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
            let points = Points { x: &x, t: &t, centre: &centre };
            let (mut y, mut q, mut gradient) = (Vec::new(), Vec::new(), Vec::new());
            let out = estimate(&config, act, points, 0.2, &mut noise, |rows| {
                (q, gradient) = critic(rows, act);
                y = rows.to_vec();
                (q.clone(), gradient.clone())
            });
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
                let points = Points { x: &x, t: &[t], centre: &centre };
                let out = estimate(&config, 1, points, temperature, &mut Noise::new(6, 0), |y| critic(y, 1));
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
        let mut y = Vec::new();
        let points = Points { x: &[0.5], t: &[0.25], centre: &[-0.7] };
        estimate(&config, 1, points, 1.0, &mut Noise::new(7, 0), |rows| {
            y = rows.to_vec();
            critic(rows, 1)
        });
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
