//! The twin critic Q_1, Q_2 of (s, a), batched.
//!
//! h0 = f(W_s s + b_0 + W_a a), then [`Hidden`] with one output. The state parts are computed once per state and
//! serve every candidate action of that state; candidates run in tiles of about 512 rows, which stay in the cache.
//! Here are the values, their minimum (or mean), the minimum's gradient with respect to the action, and the regression
//! of both.
//!
//! Parameters of one critic, flat: `W_s`, `W_a`, `b_0`, then those of [`Hidden`]; the second follows the first.

use super::elementwise::{add_to_rows, sum_rows};
use super::fused::{Candidates, Perceptron, fits};
use super::hidden::{Hidden, Workspace};
use super::init::orthogonal;
use super::lanes::{Lane, pack, pack_groups, panels, unpack_groups};
use super::matmul;
use crate::noise::Noise;

/// Rows that one pass over candidates holds, when a group allows it.
const TILE: usize = 512;

/// What a critic takes and how it is built.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CriticShape {
    /// Width of the observation.
    pub obs: usize,
    /// Width of the action.
    pub act: usize,
    /// The layers after the first; it must have one output.
    pub hidden: Hidden,
}

impl CriticShape {
    /// Number of parameters of one critic.
    pub fn params(&self) -> usize {
        (self.obs + self.act + 1) * self.hidden.width + self.hidden.params()
    }
}

/// Two critics of one shape.
#[derive(Clone, Debug)]
pub struct TwinCritic {
    shape: CriticShape,
    params: Vec<f32>,
}

/// Buffers for the passes of a [`TwinCritic`].
#[derive(Clone, Debug)]
pub struct CriticWork {
    hidden: [Workspace; 2],
    shift: Vec<f32>,
    other: Vec<f32>,
    d_output: Vec<f32>,
    fast: Option<Fast>,
    /// State parts of both critics.
    parts: Vec<f32>,
    /// What came in lanes as rows, where the layers want those: states, actions, values, gradients.
    rows: [Vec<f32>; 4],
}

/// Buffers of the fast path.
#[derive(Clone, Debug)]
struct Fast {
    candidates: Candidates,
    perceptron: Perceptron,
    /// States and actions.
    inputs: Vec<Lane>,
    d_output: Vec<Lane>,
}

impl CriticWork {
    /// Buffers for regressions over `batch` rows and candidates in groups of up to `group`.
    pub fn new(shape: &CriticShape, batch: usize, group: usize) -> Self {
        let fast = fits(&shape.hidden).then(|| Fast::new(shape, batch));
        // The fast path has its own; the other's are then never used.
        let (rows, group) = if fast.is_some() { (0, 0) } else { (batch, group) };
        Self { fast, ..Self::generic(shape, rows, group) }
    }

    /// The same without the fast path.
    pub(super) fn generic(shape: &CriticShape, batch: usize, group: usize) -> Self {
        let rows = batch.max(group).max(if batch == 0 { 0 } else { TILE });
        Self {
            hidden: [Workspace::new(&shape.hidden, rows), Workspace::new(&shape.hidden, rows)],
            shift: vec![0.0; batch * shape.hidden.width],
            other: vec![0.0; rows],
            d_output: vec![0.0; rows],
            fast: None,
            parts: Vec::new(),
            rows: Default::default(),
        }
    }
}

impl Fast {
    fn new(shape: &CriticShape, batch: usize) -> Self {
        let inputs = shape.obs + shape.act;
        let perceptron = Perceptron::new(inputs, shape.hidden, batch);
        Self {
            candidates: Candidates::new(shape.obs, shape.act, shape.hidden),
            inputs: vec![Lane::ZERO; inputs * perceptron.step()],
            d_output: vec![Lane::ZERO; perceptron.step()],
            perceptron,
        }
    }

    /// Takes the states and actions of a batch.
    fn take(&mut self, shape: &CriticShape, s: &[f32], a: &[f32]) {
        let step = self.perceptron.step();
        pack(s, shape.obs, step, &mut self.inputs);
        pack(a, shape.act, step, &mut self.inputs[shape.obs * step..]);
    }
}

impl TwinCritic {
    /// Orthogonal weights with `gain` throughout, zero biases, the two drawn one after the other.
    pub fn new(shape: CriticShape, gain: f32, noise: &mut Noise) -> Self {
        assert_eq!(shape.hidden.outputs, 1);
        let (inputs, width) = (shape.obs + shape.act, shape.hidden.width);
        let mut params = vec![0.0; 2 * shape.params()];
        for one in params.chunks_exact_mut(shape.params()) {
            orthogonal(&mut one[..inputs * width], inputs, width, gain, noise);
            shape.hidden.initialise(&mut one[(inputs + 1) * width..], gain, gain, noise);
        }
        Self { shape, params }
    }

    /// What a critic takes and how it is built.
    pub fn shape(&self) -> &CriticShape {
        &self.shape
    }

    /// Parameters of both.
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    /// Parameters of both, for the optimiser.
    pub fn params_mut(&mut self) -> &mut [f32] {
        &mut self.params
    }

    /// Parameters of critic `k` (0 or 1).
    pub fn one(&self, k: usize) -> &[f32] {
        &self.params[k * self.shape.params()..(k + 1) * self.shape.params()]
    }

    /// W_s s + b_0 of both critics into `out`: all states of the first, then all of the second.
    fn state_parts(&self, s: &[f32], out: &mut Vec<f32>) {
        let (obs, width) = (self.shape.obs, self.shape.hidden.width);
        let len = s.len() / obs * width;
        out.resize(2 * len, 0.0);
        for (k, out) in out.chunks_exact_mut(len).enumerate() {
            let (w_s, _, b_0, _) = self.split(k);
            matmul::forward(out, s, w_s, obs, width, false);
            add_to_rows(out, b_0);
        }
    }

    /// min(Q_1, Q_2) of `actions`, `group` of them for each of the states `s`.
    pub fn minimum(&self, s: &[f32], actions: &[f32], group: usize, q: &mut [f32], work: &mut CriticWork) {
        self.joined(f32::min, s, actions, group, q, work);
    }

    /// As [`Self::minimum`], both values of each action made one by `join`.
    pub fn joined(
        &self,
        join: fn(f32, f32) -> f32,
        s: &[f32],
        actions: &[f32],
        group: usize,
        q: &mut [f32],
        work: &mut CriticWork,
    ) {
        if let Some(fast) = &mut work.fast {
            return fast.candidates.rows([self.one(0), self.one(1)], join, s, actions, group, q, &mut []);
        }
        let (act, width) = (self.shape.act, self.shape.hidden.width);
        self.state_parts(s, &mut work.parts);
        let (first, second) = work.parts.split_at(work.parts.len() / 2);
        let tile = (TILE / group).max(1);
        let tiles = actions.chunks(tile * group * act).zip(q.chunks_mut(tile * group));
        for ((actions, q), parts) in tiles.zip(first.chunks(tile * width).zip(second.chunks(tile * width))) {
            q.copy_from_slice(self.values(0, parts.0, actions, group, &mut work.hidden[0], false));
            let other = self.values(1, parts.1, actions, group, &mut work.hidden[0], false);
            q.iter_mut().zip(other).for_each(|(q, o)| *q = join(*q, *o));
        }
    }

    /// As [`Self::minimum`], with the gradient of the smaller one with respect to each action in `d_actions`.
    pub fn minimum_and_gradient(
        &self,
        s: &[f32],
        actions: &[f32],
        group: usize,
        q: &mut [f32],
        d_actions: &mut [f32],
        work: &mut CriticWork,
    ) {
        if let Some(fast) = &mut work.fast {
            return fast.candidates.rows([self.one(0), self.one(1)], f32::min, s, actions, group, q, d_actions);
        }
        let (act, width) = (self.shape.act, self.shape.hidden.width);
        self.state_parts(s, &mut work.parts);
        let (first, second) = work.parts.split_at(work.parts.len() / 2);
        let tile = (TILE / group).max(1);
        let tiles = actions.chunks(tile * group * act).zip(q.chunks_mut(tile * group));
        let tiles = tiles.zip(d_actions.chunks_mut(tile * group * act));
        for (((actions, q), d_actions), parts) in tiles.zip(first.chunks(tile * width).zip(second.chunks(tile * width)))
        {
            let rows = q.len();
            let other = &mut work.other[..rows];
            let [one, two] = &mut work.hidden;
            q.copy_from_slice(self.values(0, parts.0, actions, group, one, true));
            other.copy_from_slice(self.values(1, parts.1, actions, group, two, true));
            for (k, hidden) in [one, two].into_iter().enumerate() {
                let d_output = &mut work.d_output[..rows];
                for ((d, q), o) in d_output.iter_mut().zip(q.iter()).zip(other.iter()) {
                    *d = f32::from((q <= o) == (k == 0));
                }
                let (_, w_a, _, tail) = self.split(k);
                self.shape.hidden.backward(tail, d_output, rows, hidden, None);
                matmul::backward(d_actions, hidden.first_delta(rows * width), w_a, act, width, k == 1);
            }
            q.iter_mut().zip(other.iter()).for_each(|(q, o)| *q = q.min(*o));
        }
    }

    /// min(Q_1, Q_2) of `group` candidates for each of `n` states and, where `d_actions` is not empty, its gradient with
    /// respect to each action. All in lanes, per panel of states: `s` one a channel, `actions` and `d_actions` one a
    /// candidate and channel, `q` one a candidate.
    #[expect(clippy::too_many_arguments, reason = "what a pass takes and gives")]
    pub fn candidates(
        &self,
        s: &[Lane],
        actions: &[Lane],
        group: usize,
        n: usize,
        q: &mut [Lane],
        d_actions: &mut [Lane],
        work: &mut CriticWork,
    ) {
        if let Some(fast) = &mut work.fast {
            fast.candidates.lanes([self.one(0), self.one(1)], f32::min, s, actions, group, n, q, d_actions);
            return;
        }
        let CriticShape { obs, act, .. } = self.shape;
        let mut rows = std::mem::take(&mut work.rows);
        let lengths = [n * obs, n * group * act, n * group, n * group * act];
        rows.iter_mut().zip(lengths).for_each(|(rows, len)| rows.resize(len, 0.0));
        let [states, action_rows, values, gradients] = &mut rows;
        unpack_groups(s, obs, 1, states);
        unpack_groups(actions, act, group, action_rows);
        if d_actions.is_empty() {
            self.minimum(states, action_rows, group, values, work);
        } else {
            self.minimum_and_gradient(states, action_rows, group, values, gradients, work);
            pack_groups(gradients, act, group, d_actions);
        }
        pack_groups(values, 1, group, q);
        work.rows = rows;
    }

    /// The regression of both critics on `targets` at (s, a): returns the sum over both of the mean squared error and
    /// the mean of Q over both, and overwrites `gradient` (both critics') with the gradient of the first.
    pub fn regress(
        &self,
        s: &[f32],
        a: &[f32],
        targets: &[f32],
        work: &mut CriticWork,
        gradient: &mut [f32],
    ) -> (f32, f32) {
        let (obs, act, width) = (self.shape.obs, self.shape.act, self.shape.hidden.width);
        let (rows, inputs) = (targets.len(), obs + act);
        let len = rows * width;
        let share = 1.0 / rows as f32;
        let (mut loss, mut mean) = (0.0, 0.0);
        if let Some(fast) = &mut work.fast {
            fast.take(&self.shape, s, a);
            for (k, gradient) in gradient.chunks_exact_mut(self.shape.params()).enumerate() {
                let q = fast.perceptron.forward(self.one(k), &fast.inputs, panels(rows));
                let d_output = &mut fast.d_output;
                let each = d_output.iter_mut().flat_map(|d| &mut d.0).zip(q.iter().flat_map(|q| &q.0));
                for ((d, q), y) in each.zip(targets) {
                    loss += share * (q - y) * (q - y);
                    mean += 0.5 * share * q;
                    *d = 2.0 * share * (q - y);
                }
                fast.perceptron.backward(self.one(k), &fast.inputs, d_output, rows, gradient);
            }
            return (loss, mean);
        }
        let CriticWork { hidden: [hidden, _], shift, d_output, .. } = work;
        let d_output = &mut d_output[..rows];
        for (k, gradient) in gradient.chunks_exact_mut(self.shape.params()).enumerate() {
            let (w_s, _, b_0, tail) = self.split(k);
            let shift = &mut shift[..len];
            matmul::forward(shift, s, w_s, obs, width, false);
            add_to_rows(shift, b_0);
            let q = self.values(k, shift, a, 1, hidden, true);
            for ((d, q), y) in d_output.iter_mut().zip(q).zip(targets) {
                loss += share * (*q - y) * (*q - y);
                mean += 0.5 * share * *q;
                *d = 2.0 * share * (*q - y);
            }
            let (first, rest) = gradient.split_at_mut((inputs + 1) * width);
            self.shape.hidden.backward(tail, d_output, rows, hidden, Some(rest));
            let delta = hidden.first_delta(len);
            let (dw_s, first) = first.split_at_mut(obs * width);
            let (dw_a, db) = first.split_at_mut(act * width);
            matmul::weight_gradient(dw_s, s, delta, obs, width);
            matmul::weight_gradient(dw_a, a, delta, act, width);
            sum_rows(db, delta);
        }
        (loss, mean)
    }

    /// Q_k of `actions`, given its state parts.
    fn values<'w>(
        &self,
        k: usize,
        states: &[f32],
        actions: &[f32],
        group: usize,
        hidden: &'w mut Workspace,
        keep: bool,
    ) -> &'w mut [f32] {
        let (act, width) = (self.shape.act, self.shape.hidden.width);
        let rows = actions.len() / act;
        let (_, w_a, _, tail) = self.split(k);
        matmul::forward(hidden.first(rows * width), actions, w_a, act, width, false);
        self.shape.hidden.forward(tail, states, group, rows, hidden, keep)
    }

    /// W_s, W_a, b_0 and the rest of critic `k`.
    fn split(&self, k: usize) -> (&[f32], &[f32], &[f32], &[f32]) {
        let width = self.shape.hidden.width;
        let (w_s, rest) = self.one(k).split_at(self.shape.obs * width);
        let (w_a, rest) = rest.split_at(self.shape.act * width);
        let (b_0, tail) = rest.split_at(width);
        (w_s, w_a, b_0, tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Activation, Trunk};

    const OBS: usize = 4;
    const ACT: usize = 3;

    fn cases() -> Vec<TwinCritic> {
        let mut critics = Vec::new();
        for activation in [Activation::Relu, Activation::Tanh, Activation::Silu, Activation::Gelu] {
            for (trunk, layers, layer_norm) in [
                (Trunk::Plain, 1, false),
                (Trunk::Plain, 2, false),
                (Trunk::Residual, 3, false),
                (Trunk::Plain, 2, true),
                (Trunk::Residual, 3, true),
            ] {
                let hidden = Hidden { width: 6, layers, outputs: 1, activation, trunk, layer_norm };
                let mut noise = Noise::new(critics.len() as u64, 6);
                let mut critic = TwinCritic::new(CriticShape { obs: OBS, act: ACT, hidden }, 1.4, &mut noise);
                let mut shake = vec![0.0; critic.params.len()];
                noise.gaussian(&mut shake);
                critic.params.iter_mut().zip(&shake).for_each(|(p, s)| *p += 0.1 * s);
                critics.push(critic);
            }
        }
        critics
    }

    /// Q for one sample, written from the definition, in f64.
    fn reference(shape: &CriticShape, params: &[f32], s: &[f64], a: &[f64]) -> f64 {
        let (h, hidden) = (shape.hidden.width, shape.hidden);
        let f = |z: f64| match hidden.activation {
            Activation::Relu => z.max(0.0),
            Activation::Tanh => z.tanh(),
            Activation::Silu => z / (1.0 + (-z).exp()),
            Activation::Gelu => {
                0.5 * z * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (z + 0.044_715 * z.powi(3))).tanh())
            }
        };
        let mut at = 0;
        let mut dense = |input: &[f64], outputs: usize| -> Vec<f64> {
            let (w, b) = (&params[at..], &params[at + input.len() * outputs..]);
            at += (input.len() + 1) * outputs;
            (0..outputs)
                .map(|o| {
                    let sum: f64 = input.iter().enumerate().map(|(i, v)| v * f64::from(w[i * outputs + o])).sum();
                    f64::from(b[o]) + sum
                })
                .collect()
        };
        let norm = |z: Vec<f64>| {
            let (n, mean) = (z.len() as f64, z.iter().sum::<f64>() / z.len() as f64);
            let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / n;
            let normalise = |z: f64| if hidden.layer_norm { (z - mean) / (variance + 1e-5).sqrt() } else { z };
            z.into_iter().map(normalise).collect::<Vec<_>>()
        };
        let input: Vec<f64> = s.iter().chain(a).copied().collect();
        let mut x: Vec<f64> = norm(dense(&input, h)).into_iter().map(f).collect();
        for _ in 1..hidden.layers {
            let next = norm(dense(&x, h)).into_iter().map(f);
            x = match hidden.trunk {
                Trunk::Plain => next.collect(),
                Trunk::Residual => next.zip(&x).map(|(n, x)| n + x).collect(),
            };
        }
        dense(&x, 1)[0]
    }

    fn wide(v: &[f32]) -> Vec<f64> {
        v.iter().map(|&v| f64::from(v)).collect()
    }

    fn gaussians(len: usize, seed: u64) -> Vec<f32> {
        let mut v = vec![0.0; len];
        Noise::new(seed, 0).gaussian(&mut v);
        v
    }

    #[test]
    fn the_minimum_and_its_gradient_equal_the_definition() {
        for critic in cases() {
            let shape = *critic.shape();
            // 13 states by 50 candidates: two tiles, the second one not full.
            let (n, group) = (13, 50);
            let s = gaussians(n * OBS, 1);
            let a = gaussians(n * group * ACT, 2);
            let mut work = CriticWork::new(&shape, n, group);
            let (mut q, mut same) = (vec![0.0; n * group], vec![0.0; n * group]);
            let mut dq = vec![0.0; a.len()];
            critic.minimum(&s, &a, group, &mut same, &mut work);
            critic.minimum_and_gradient(&s, &a, group, &mut q, &mut dq, &mut work);
            assert_eq!(q, same);
            critic.joined(|one, two| 0.5 * (one + two), &s, &a, group, &mut same, &mut work);
            for r in 0..n * group {
                let (s, mut a) = (wide(&s[r / group * OBS..][..OBS]), wide(&a[r * ACT..][..ACT]));
                let both = [0, 1].map(|k| reference(&shape, critic.one(k), &s, &a));
                assert!((f64::from(q[r]) - both[0].min(both[1])).abs() < 2e-5);
                assert!((f64::from(same[r]) - 0.5 * (both[0] + both[1])).abs() < 2e-5);
                let k = usize::from(both[1] < both[0]);
                for j in 0..ACT {
                    // So short that it crosses no kink of a ReLU; the reference has digits to spare.
                    let (kept, step) = (a[j], 1e-7);
                    a[j] = kept + step;
                    let up = reference(&shape, critic.one(k), &s, &a);
                    a[j] = kept - step;
                    let down = reference(&shape, critic.one(k), &s, &a);
                    a[j] = kept;
                    let want = (up - down) / (2.0 * step);
                    let got = f64::from(dq[r * ACT + j]);
                    assert!((got - want).abs() < 1e-4 + 1e-4 * want.abs(), "{shape:?}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn parameter_gradients_equal_central_differences() {
        for mut critic in cases() {
            let shape = *critic.shape();
            let n = 9;
            let (s, a, y) = (gaussians(n * OBS, 3), gaussians(n * ACT, 4), gaussians(n, 5));
            let mut work = CriticWork::new(&shape, n, 1);
            let mut gradient = vec![f32::NAN; critic.params.len()];
            let (loss, mean) = critic.regress(&s, &a, &y, &mut work, &mut gradient);
            let evaluate = |critic: &TwinCritic| {
                let (mut loss, mut mean) = (0.0, 0.0);
                for k in 0..2 {
                    for r in 0..n {
                        let q =
                            reference(&shape, critic.one(k), &wide(&s[r * OBS..][..OBS]), &wide(&a[r * ACT..][..ACT]));
                        loss += (q - f64::from(y[r])).powi(2) / n as f64;
                        mean += q / (2 * n) as f64;
                    }
                }
                (loss, mean)
            };
            let want = evaluate(&critic);
            assert!((f64::from(loss) - want.0).abs() < 1e-4 && (f64::from(mean) - want.1).abs() < 1e-5);
            for (i, gradient) in gradient.iter().enumerate() {
                let (kept, step) = (critic.params[i], 1e-3);
                critic.params[i] = kept + step;
                let (up, above) = (evaluate(&critic).0, critic.params[i]);
                critic.params[i] = kept - step;
                let (down, below) = (evaluate(&critic).0, critic.params[i]);
                critic.params[i] = kept;
                let want = (up - down) / f64::from(above - below);
                let tolerance = 5e-3 * want.abs() + 5e-3;
                assert!((f64::from(*gradient) - want).abs() < tolerance, "{shape:?} {i}: {gradient} {want}");
            }
        }
    }
}
