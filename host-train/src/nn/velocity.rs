//! The velocity network v(x, t, s), batched.
//!
//! h0 = f(W_s s + b_0 + W_t te(t) + W_x x), then [`Hidden`]. The state part W_s s + b_0 is computed once per state and
//! the time part once per step; only W_x x is left per evaluation. te(t) = [sin f_0 t .. sin f_{F-1} t, cos f_0 t ..].
//! A network may also take a vector of constant features (the published agent's embedding of its temperature); they
//! have weights while training and are folded into b_0 when exported.
//!
//! Parameters, flat: `W_s`, `W_x`, `W_t`, (`W_c`), `b_0`, then those of [`Hidden`].

use super::elementwise::{add_scaled, add_to_rows, rows_plus, sum_rows};
use super::fused::{Field, Flow, Perceptron, fits};
use super::hidden::{Hidden, Workspace};
use super::init::orthogonal;
use super::lanes::{LANES, Lane, pack, panels};
use super::matmul;
use crate::noise::Noise;

/// What the network takes and how it is built.
#[derive(Clone, Debug, PartialEq)]
pub struct VelocityShape {
    /// Width of the observation.
    pub obs: usize,
    /// Width of the action, which is also the width of x and of the output.
    pub act: usize,
    /// Frequencies of the time features.
    pub frequencies: Vec<f32>,
    /// Constant features (empty for none).
    pub constant: Vec<f32>,
    /// The layers after the first; its outputs must be `act`.
    pub hidden: Hidden,
}

/// The network: shape and parameters.
#[derive(Clone, Debug)]
pub struct VelocityNet {
    shape: VelocityShape,
    params: Vec<f32>,
}

/// Buffers for up to a fixed number of rows.
#[derive(Clone, Debug)]
pub struct VelocityWork {
    hidden: Workspace,
    shift: Vec<f32>,
    time: Vec<f32>,
    bias: Vec<f32>,
    d_output: Vec<f32>,
    fast: Option<Fast>,
}

/// Buffers of the fast path.
#[derive(Clone, Debug)]
struct Fast {
    perceptron: Perceptron,
    /// All that the first layer is given.
    inputs: Vec<Lane>,
    d_output: Vec<Lane>,
    flow: Flow,
}

impl VelocityWork {
    /// Buffers for `rows` rows of `shape`.
    pub fn new(shape: &VelocityShape, rows: usize) -> Self {
        let fast = fits(&shape.hidden).then(|| {
            let perceptron = Perceptron::new(shape.inputs(), shape.hidden, rows);
            Fast {
                inputs: vec![Lane::ZERO; shape.inputs() * perceptron.step()],
                d_output: vec![Lane::ZERO; shape.act * perceptron.step()],
                perceptron,
                flow: Flow::new(shape.obs, shape.act, shape.hidden),
            }
        });
        Self {
            fast,
            hidden: Workspace::new(&shape.hidden, rows),
            shift: vec![0.0; rows * shape.hidden.width],
            time: vec![0.0; rows * 2 * shape.frequencies.len()],
            bias: vec![0.0; shape.hidden.width],
            d_output: vec![0.0; rows * shape.act],
        }
    }

    /// The rows it can hold.
    pub fn rows(&self) -> usize {
        self.hidden.rows()
    }
}

impl VelocityShape {
    /// Number of parameters while training, constant features included.
    pub fn params(&self) -> usize {
        (self.inputs() + 1) * self.hidden.width + self.hidden.params()
    }

    fn inputs(&self) -> usize {
        self.obs + self.act + 2 * self.frequencies.len() + self.constant.len()
    }
}

impl VelocityNet {
    /// Orthogonal weights with `gain`, the output layer with `output_gain`; zero biases.
    pub fn new(shape: VelocityShape, gain: f32, output_gain: f32, noise: &mut Noise) -> Self {
        assert_eq!(shape.hidden.outputs, shape.act);
        let (inputs, width) = (shape.inputs(), shape.hidden.width);
        let mut params = vec![0.0; shape.params()];
        // The parts of the first layer stand side by side, so together they are one matrix.
        orthogonal(&mut params[..inputs * width], inputs, width, gain, noise);
        shape.hidden.initialise(&mut params[(inputs + 1) * width..], gain, output_gain, noise);
        Self { shape, params }
    }

    /// What it takes and how it is built.
    pub fn shape(&self) -> &VelocityShape {
        &self.shape
    }

    /// All parameters, constant features included.
    pub fn params(&self) -> &[f32] {
        &self.params
    }

    /// All parameters, for the optimiser.
    pub fn params_mut(&mut self) -> &mut [f32] {
        &mut self.params
    }

    /// The parameters in the artefact's layout: constant features folded into b_0.
    pub fn exported(&self) -> Vec<f32> {
        let width = self.shape.hidden.width;
        let before = (self.shape.inputs() - self.shape.constant.len()) * width;
        let mut bias = vec![0.0; width];
        self.bias(&mut bias);
        let mut out = self.params[..before].to_vec();
        out.extend_from_slice(&bias);
        out.extend_from_slice(self.tail());
        out
    }

    /// Takes parameters in the artefact's layout, of a network with these time features or of one that knows no time.
    /// Features that it does not have get no weight; what is constant is in the bias already. Returns whether they fit.
    pub fn import(&mut self, exported: &[f32], frequencies: usize) -> bool {
        let width = self.shape.hidden.width;
        let time = if frequencies == 0 { 2 * self.shape.frequencies.len() } else { 0 };
        let more = (self.shape.constant.len() + time) * width;
        let before = self.shape.inputs() * width - more;
        if exported.len() + more != self.params.len() {
            return false;
        }
        self.params[..before].copy_from_slice(&exported[..before]);
        self.params[before..before + more].fill(0.0);
        self.params[before + more..].copy_from_slice(&exported[before..]);
        true
    }

    /// The network at the time `t` for good, with the last channels of its state held at `last`: no time features and so
    /// many channels fewer, the same function of what is left.
    pub fn held(&self, t: f32, last: &[f32]) -> Self {
        let width = self.shape.hidden.width;
        let obs = self.shape.obs - last.len();
        let (mut bias, mut time) = (vec![0.0; width], vec![0.0; width]);
        self.bias(&mut bias);
        self.time_part(t, &mut time);
        bias.iter_mut().zip(&time).for_each(|(b, t)| *b += t);
        for (&value, w) in last.iter().zip(self.w_s()[obs * width..].chunks_exact(width)) {
            add_scaled(&mut bias, value, w);
        }
        let params = [&self.w_s()[..obs * width], self.w_x(), &bias, self.tail()].concat();
        let shape = VelocityShape { obs, frequencies: Vec::new(), constant: Vec::new(), ..self.shape.clone() };
        Self { shape, params }
    }

    /// The state parts W_s s + b_0 of `n` states, `n x hidden`.
    pub fn state_part(&self, s: &[f32], out: &mut [f32], work: &mut VelocityWork) {
        let width = self.shape.hidden.width;
        self.bias(&mut work.bias);
        matmul::forward(out, s, self.w_s(), self.shape.obs, width, false);
        add_to_rows(out, &work.bias);
    }

    /// The time part W_t te(t), one number per hidden unit.
    pub fn time_part(&self, t: f32, out: &mut [f32]) {
        let (width, count) = (self.shape.hidden.width, self.shape.frequencies.len());
        out.fill(0.0);
        let (sines, cosines) = self.w_t().split_at(count * width);
        for (i, f) in self.shape.frequencies.iter().enumerate() {
            let (sin, cos) = (f * t).sin_cos();
            add_scaled(out, sin, &sines[i * width..(i + 1) * width]);
            add_scaled(out, cos, &cosines[i * width..(i + 1) * width]);
        }
    }

    /// Velocities at the points `x` and one time, whose part is `time`; each state's part serves `group` points.
    pub fn velocities<'w>(
        &self,
        x: &[f32],
        states: &[f32],
        time: &[f32],
        group: usize,
        work: &'w mut VelocityWork,
    ) -> &'w [f32] {
        let width = self.shape.hidden.width;
        let rows = x.len() / self.shape.act;
        let shift = &mut work.shift[..states.len()];
        rows_plus(shift, states, time);
        matmul::forward(work.hidden.first(rows * width), x, self.w_x(), self.shape.act, width, false);
        self.shape.hidden.forward(self.tail(), shift, group, rows, &mut work.hidden, false)
    }

    /// The velocities `v` at (x, t, s), row by row, and their derivative `dv` along the direction (dx, dt = 1) at a state
    /// that stands still.
    pub fn derivative(&self, [s, x, t, dx]: [&[f32]; 4], work: &mut VelocityWork, v: &mut [f32], dv: &mut [f32]) {
        let (obs, act, width) = (self.shape.obs, self.shape.act, self.shape.hidden.width);
        let (rows, times) = (t.len(), 2 * self.shape.frequencies.len());
        let len = rows * width;
        self.bias(&mut work.bias);
        self.time_features(t, &mut work.time);
        let te = &work.time[..rows * times];
        let shift = &mut work.shift[..len];
        matmul::forward(shift, s, self.w_s(), obs, width, false);
        matmul::forward(shift, te, self.w_t(), times, width, true);
        add_to_rows(shift, &work.bias);
        matmul::forward(work.hidden.first(len), x, self.w_x(), act, width, false);
        v.copy_from_slice(self.shape.hidden.forward(self.tail(), shift, 1, rows, &mut work.hidden, true));
        // d sin(f t) = f cos(f t), d cos(f t) = -f sin(f t).
        for te in work.time[..rows * times].chunks_exact_mut(times.max(1)) {
            let (sines, cosines) = te.split_at_mut(times / 2);
            for ((sin, cos), f) in sines.iter_mut().zip(cosines).zip(&self.shape.frequencies) {
                (*sin, *cos) = (f * *cos, -f * *sin);
            }
        }
        let shift = &mut work.shift[..len];
        matmul::forward(shift, dx, self.w_x(), act, width, false);
        matmul::forward(shift, &work.time[..rows * times], self.w_t(), times, width, true);
        dv.copy_from_slice(self.shape.hidden.tangent(self.tail(), shift, rows, &mut work.hidden));
    }

    /// Carries the latents `u`, `particles` rows for each of the states `s`, along the field in place: one Euler step of
    /// `dt` for each row of `times`, the steps' time parts; then a clip to the magnitude `clip`. Returns false, having
    /// done nothing, where these layers have no fast path.
    #[expect(clippy::too_many_arguments, reason = "what an integration takes and gives")]
    pub fn integrate(
        &self,
        s: &[f32],
        particles: usize,
        u: &mut [f32],
        times: &[f32],
        dt: f32,
        clip: f32,
        work: &mut VelocityWork,
    ) -> bool {
        let Some(fast) = &mut work.fast else { return false };
        self.bias(&mut work.bias);
        let first = [self.w_s(), self.w_x(), &work.bias[..]];
        fast.flow.integrate(Field { first, tail: self.tail(), times, dt, clip }, s, particles, u);
        true
    }

    /// The regression of v on `target` at (x, t, s), row by row: returns the mean squared error over all elements and
    /// overwrites `gradient` with its gradient.
    pub fn regress(
        &self,
        s: &[f32],
        x: &[f32],
        t: &[f32],
        target: &[f32],
        work: &mut VelocityWork,
        gradient: &mut [f32],
    ) -> f32 {
        self.regress_rows([s, x, t, target], None, work, gradient)
    }

    /// As [`Self::regress`], with each row of `columns` (s, x, t, target) counted as often as its weight says.
    pub fn regress_weighted(
        &self,
        columns: [&[f32]; 4],
        weights: &[f32],
        work: &mut VelocityWork,
        gradient: &mut [f32],
    ) -> f32 {
        self.regress_rows(columns, Some(weights), work, gradient)
    }

    fn regress_rows(
        &self,
        [s, x, t, target]: [&[f32]; 4],
        weights: Option<&[f32]>,
        work: &mut VelocityWork,
        gradient: &mut [f32],
    ) -> f32 {
        let (obs, act, width) = (self.shape.obs, self.shape.act, self.shape.hidden.width);
        let (rows, times) = (t.len(), 2 * self.shape.frequencies.len());
        let len = rows * width;
        let share = 1.0 / (rows * act) as f32;
        self.time_features(t, &mut work.time);
        let te = &mut work.time[..rows * times];
        if let Some(Fast { perceptron, inputs, d_output, .. }) = &mut work.fast {
            let step = perceptron.step();
            pack(s, obs, step, inputs);
            pack(x, act, step, &mut inputs[obs * step..]);
            pack(te, times, step, &mut inputs[(obs + act) * step..]);
            let constant = inputs[(obs + act + times) * step..].chunks_exact_mut(step);
            constant.zip(&self.shape.constant).for_each(|(lanes, c)| lanes.fill(Lane([*c; LANES])));
            let v = perceptron.forward(&self.params, inputs, panels(rows));
            pack(target, act, step, d_output);
            let mut loss = 0.0;
            for (d, v) in d_output.chunks_exact_mut(step).zip(v.chunks_exact(step)) {
                let each = d.iter_mut().flat_map(|d| &mut d.0).zip(v.iter().flat_map(|v| &v.0));
                for (r, (d, v)) in each.take(rows).enumerate() {
                    let weight = weights.map_or(1.0, |weights| weights[r]);
                    loss += weight * (v - *d) * (v - *d);
                    *d = 2.0 * share * weight * (v - *d);
                }
            }
            perceptron.backward(&self.params, inputs, d_output, rows, gradient);
            return loss * share;
        }
        self.bias(&mut work.bias);
        let shift = &mut work.shift[..len];
        matmul::forward(shift, s, self.w_s(), obs, width, false);
        matmul::forward(shift, te, self.w_t(), times, width, true);
        add_to_rows(shift, &work.bias);
        matmul::forward(work.hidden.first(len), x, self.w_x(), act, width, false);
        let v = self.shape.hidden.forward(self.tail(), shift, 1, rows, &mut work.hidden, true);

        let d_output = &mut work.d_output[..rows * act];
        let mut loss = 0.0;
        for ((d, v), y) in d_output.iter_mut().zip(v.iter()).zip(target) {
            loss += (v - y) * (v - y);
            *d = 2.0 * share * (v - y);
        }
        if let Some(weights) = weights {
            loss = 0.0;
            let rows = d_output.chunks_exact_mut(act).zip(v.chunks_exact(act)).zip(target.chunks_exact(act));
            for (((d, v), y), w) in rows.zip(weights) {
                d.iter_mut().for_each(|d| *d *= w);
                loss += w * v.iter().zip(y).map(|(v, y)| (v - y) * (v - y)).sum::<f32>();
            }
        }

        let inputs = self.shape.inputs();
        let (first, tail) = gradient.split_at_mut((inputs + 1) * width);
        self.shape.hidden.backward(self.tail(), d_output, rows, &mut work.hidden, Some(tail));
        let delta = work.hidden.first_delta(len);
        let (dw, db) = first.split_at_mut(inputs * width);
        sum_rows(db, delta);
        let (dw_s, dw) = dw.split_at_mut(obs * width);
        let (dw_x, dw) = dw.split_at_mut(act * width);
        let (dw_t, dw_c) = dw.split_at_mut(times * width);
        matmul::weight_gradient(dw_s, s, delta, obs, width);
        matmul::weight_gradient(dw_x, x, delta, act, width);
        matmul::weight_gradient(dw_t, te, delta, times, width);
        for (dw, &c) in dw_c.chunks_exact_mut(width).zip(&self.shape.constant) {
            dw.iter_mut().zip(db.iter()).for_each(|(dw, db)| *dw = c * db);
        }
        loss * share
    }

    /// The time features of every row, `rows x 2F`.
    fn time_features(&self, t: &[f32], out: &mut [f32]) {
        let times = 2 * self.shape.frequencies.len();
        for (te, &t) in out.chunks_exact_mut(times.max(1)).zip(t) {
            let (sines, cosines) = te.split_at_mut(times / 2);
            for ((sin, cos), f) in sines.iter_mut().zip(cosines).zip(&self.shape.frequencies) {
                (*sin, *cos) = (f * t).sin_cos();
            }
        }
    }

    /// b_0 with the constant features folded in.
    fn bias(&self, out: &mut [f32]) {
        let (inputs, width) = (self.shape.inputs(), self.shape.hidden.width);
        out.copy_from_slice(&self.params[inputs * width..(inputs + 1) * width]);
        let constant_at = (inputs - self.shape.constant.len()) * width;
        for (&c, w) in self.shape.constant.iter().zip(self.params[constant_at..].chunks_exact(width)) {
            add_scaled(out, c, w);
        }
    }

    fn w_s(&self) -> &[f32] {
        self.columns(0, self.shape.obs)
    }

    fn w_x(&self) -> &[f32] {
        self.columns(self.shape.obs, self.shape.act)
    }

    fn w_t(&self) -> &[f32] {
        self.columns(self.shape.obs + self.shape.act, 2 * self.shape.frequencies.len())
    }

    fn columns(&self, from: usize, count: usize) -> &[f32] {
        let width = self.shape.hidden.width;
        &self.params[from * width..(from + count) * width]
    }

    fn tail(&self) -> &[f32] {
        &self.params[(self.shape.inputs() + 1) * self.shape.hidden.width..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Activation, Trunk};

    /// Every activation with both trunks; the one-layer net and the constant features ride along.
    fn cases() -> Vec<VelocityNet> {
        let mut nets = Vec::new();
        for activation in [Activation::Relu, Activation::Tanh, Activation::Silu, Activation::Gelu] {
            for (trunk, layers, constant) in
                [(Trunk::Plain, 1, vec![]), (Trunk::Plain, 2, vec![]), (Trunk::Residual, 3, vec![0.3, -0.7])]
            {
                let hidden = Hidden { width: 7, layers, outputs: 2, activation, trunk, layer_norm: false };
                let shape = VelocityShape { obs: 3, act: 2, frequencies: vec![1.5, 3.1], constant, hidden };
                let mut noise = Noise::new(nets.len() as u64, 5);
                let mut net = VelocityNet::new(shape, 1.4, 1.0, &mut noise);
                // Biases away from zero, so that their part in the sums is tested.
                let mut shake = vec![0.0; net.params.len()];
                noise.gaussian(&mut shake);
                net.params.iter_mut().zip(&shake).for_each(|(p, s)| *p += 0.1 * s);
                nets.push(net);
            }
        }
        nets
    }

    /// v(x, t, s) for one sample, written from the definition, in f64, on the exported layout.
    fn reference(shape: &VelocityShape, params: &[f64], s: &[f64], x: &[f64], t: f64) -> Vec<f64> {
        let h = shape.hidden.width;
        let f = |z: f64| match shape.hidden.activation {
            Activation::Relu => z.max(0.0),
            Activation::Tanh => z.tanh(),
            Activation::Silu => z / (1.0 + (-z).exp()),
            Activation::Gelu => {
                0.5 * z * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (z + 0.044_715 * z.powi(3))).tanh())
            }
        };
        let te = shape.frequencies.iter().map(|&f| (f64::from(f) * t).sin());
        let te = te.chain(shape.frequencies.iter().map(|&f| (f64::from(f) * t).cos()));
        let input: Vec<f64> = s.iter().chain(x).copied().chain(te).collect();
        let mut at = 0;
        let mut dense = |input: &[f64], outputs: usize| -> Vec<f64> {
            let (w, b) = (&params[at..], &params[at + input.len() * outputs..]);
            at += (input.len() + 1) * outputs;
            (0..outputs)
                .map(|o| b[o] + input.iter().enumerate().map(|(i, v)| v * w[i * outputs + o]).sum::<f64>())
                .collect()
        };
        let mut hidden: Vec<f64> = dense(&input, h).into_iter().map(f).collect();
        for _ in 1..shape.hidden.layers {
            let next = dense(&hidden, h).into_iter().map(f);
            hidden = match shape.hidden.trunk {
                Trunk::Plain => next.collect(),
                Trunk::Residual => next.zip(&hidden).map(|(n, h)| n + h).collect(),
            };
        }
        dense(&hidden, shape.act)
    }

    fn wide(v: &[f32]) -> Vec<f64> {
        v.iter().map(|&v| f64::from(v)).collect()
    }

    #[test]
    fn batches_equal_the_definition() {
        for net in cases() {
            let shape = net.shape().clone();
            let mut noise = Noise::new(8, 0);
            let (n, group) = (5, 3);
            let (mut s, mut x) = (vec![0.0; n * 3], vec![0.0; n * group * 2]);
            noise.gaussian(&mut s);
            noise.gaussian(&mut x);
            let mut work = VelocityWork::new(&shape, n * group);
            let (mut states, mut time) = (vec![0.0; n * 7], vec![0.0; 7]);
            net.state_part(&s, &mut states, &mut work);
            net.time_part(0.37, &mut time);
            let exported = wide(&net.exported());
            let v = net.velocities(&x, &states, &time, group, &mut work);
            for r in 0..n * group {
                let at = r / group * 3;
                let want = reference(&shape, &exported, &wide(&s[at..at + 3]), &wide(&x[r * 2..][..2]), 0.37);
                for d in 0..2 {
                    assert!((f64::from(v[r * 2 + d]) - want[d]).abs() < 1e-5, "{shape:?}");
                }
            }
        }
    }

    #[test]
    fn parameter_gradients_equal_central_differences() {
        for mut net in cases() {
            let shape = net.shape().clone();
            let mut noise = Noise::new(11, 0);
            let n = 6;
            let (mut s, mut x, mut y) = (vec![0.0; n * 3], vec![0.0; n * 2], vec![0.0; n * 2]);
            noise.gaussian(&mut s);
            noise.gaussian(&mut x);
            noise.gaussian(&mut y);
            let t: Vec<f32> = (0..n).map(|i| 0.1 + 0.15 * i as f32).collect();
            let mut work = VelocityWork::new(&shape, n);
            let mut gradient = vec![f32::NAN; net.params.len()];
            let loss = net.regress(&s, &x, &t, &y, &mut work, &mut gradient);

            // The loss in f64 by the definition; W_c is perturbed through the fold that `exported` does.
            let loss_of = |exported: &[f64]| -> f64 {
                let mut sum = 0.0;
                for r in 0..n {
                    let v =
                        reference(&shape, exported, &wide(&s[r * 3..][..3]), &wide(&x[r * 2..][..2]), f64::from(t[r]));
                    sum += (0..2).map(|d| (v[d] - f64::from(y[r * 2 + d])).powi(2)).sum::<f64>();
                }
                sum / (n * 2) as f64
            };
            assert!((loss_of(&wide(&net.exported())) - f64::from(loss)).abs() < 1e-5);
            for (i, gradient) in gradient.iter().enumerate() {
                let kept = net.params[i];
                let step = 1e-3_f32;
                net.params[i] = kept + step;
                let (up, above) = (loss_of(&wide(&net.exported())), net.params[i]);
                net.params[i] = kept - step;
                let (down, below) = (loss_of(&wide(&net.exported())), net.params[i]);
                net.params[i] = kept;
                let want = (up - down) / f64::from(above - below);
                // A ReLU kink inside the step is worth up to the step times the curvature it hides.
                let tolerance = 5e-3 * want.abs() + 5e-4;
                assert!((f64::from(*gradient) - want).abs() < tolerance, "{shape:?} {i}: {gradient} {want}");
            }
        }
    }

    #[test]
    fn the_derivative_along_a_direction_is_that_of_the_definition() {
        for net in cases() {
            let shape = net.shape().clone();
            let mut noise = Noise::new(12, 0);
            let n = 6;
            let (mut s, mut x, mut dx) = (vec![0.0; n * 3], vec![0.0; n * 2], vec![0.0; n * 2]);
            [&mut s, &mut x, &mut dx].into_iter().for_each(|out| noise.gaussian(out));
            let t: Vec<f32> = (0..n).map(|i| 0.1 + 0.15 * i as f32).collect();
            let mut work = VelocityWork::new(&shape, n);
            let (mut v, mut dv) = (vec![f32::NAN; n * 2], vec![f32::NAN; n * 2]);
            net.derivative([&s, &x, &t, &dx], &mut work, &mut v, &mut dv);
            let exported = wide(&net.exported());
            for r in 0..n {
                let along = |step: f64| -> Vec<f64> {
                    let x: Vec<f64> =
                        (0..2).map(|d| f64::from(x[r * 2 + d]) + step * f64::from(dx[r * 2 + d])).collect();
                    reference(&shape, &exported, &wide(&s[r * 3..][..3]), &x, f64::from(t[r]) + step)
                };
                let (here, up, down) = (along(0.0), along(1e-6), along(-1e-6));
                for d in 0..2 {
                    let want = (up[d] - down[d]) / 2e-6;
                    assert!((f64::from(v[r * 2 + d]) - here[d]).abs() < 1e-5, "{shape:?}");
                    // f32 products of frequencies up to ten and weights of the size of one.
                    let got = f64::from(dv[r * 2 + d]);
                    assert!((got - want).abs() < 1e-4 * (1.0 + want.abs()), "{shape:?} {got} {want}");
                }
            }
        }
    }

    #[test]
    fn a_held_network_is_the_same_function() {
        for net in cases() {
            let shape = net.shape().clone();
            let held = net.held(0.37, &[0.8]);
            assert_eq!((held.shape().obs, held.shape().frequencies.len(), held.shape().constant.len()), (2, 0, 0));
            assert_eq!(held.params().len(), held.shape().params());
            let (s, x) = ([0.3f32, -0.7, 0.8], [0.5f32, -1.2]);
            let want = reference(&shape, &wide(&net.exported()), &wide(&s), &wide(&x), 0.37);
            let got = reference(held.shape(), &wide(&held.exported()), &wide(&s[..2]), &wide(&x), 0.0);
            assert!(want.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-5), "{shape:?}");
            // And it learns: the paths of a batch take a network without time features.
            let (mut work, mut gradient) = (VelocityWork::new(held.shape(), 1), vec![f32::NAN; held.params().len()]);
            let target: Vec<f32> = got.iter().map(|v| *v as f32 + 1.0).collect();
            let loss = held.regress(&s[..2], &x, &[0.0], &target, &mut work, &mut gradient);
            assert!((loss - 1.0).abs() < 1e-4 && gradient.iter().all(|g| g.is_finite()), "{shape:?} {loss}");
        }
    }

    /// Parameters of a network that knows no time are the same function at every time.
    #[test]
    fn a_network_without_time_is_taken_in() {
        for net in cases() {
            let shape = net.shape();
            let held = net.held(0.37, &[]);
            let mut other = VelocityNet::new(shape.clone(), 1.0, 1.0, &mut Noise::new(78, 0));
            assert!(other.import(&held.exported(), 0), "{shape:?}");
            assert!(shape.frequencies.is_empty() || !other.import(&held.exported(), shape.frequencies.len()));
            let (s, x) = (wide(&[0.3, -0.7, 1.1]), wide(&[0.4, -0.2]));
            let want = reference(held.shape(), &wide(&held.exported()), &s, &x, 0.0);
            for t in [0.0, 0.37, 1.0] {
                assert_eq!(reference(shape, &wide(&other.exported()), &s, &x, t), want, "{shape:?} at {t}");
            }
        }
    }

    /// Whole weights are copies of rows: the same gradient up to rounding, and the loss over the same count of rows.
    #[test]
    fn weights_count_rows() {
        for net in cases() {
            let mut noise = Noise::new(12, 0);
            let (mut s, mut x, mut y) = (vec![0.0; 3 * 3], vec![0.0; 3 * 2], vec![0.0; 3 * 2]);
            noise.gaussian(&mut s);
            noise.gaussian(&mut x);
            noise.gaussian(&mut y);
            let (t, weights) = ([0.2, 0.5, 0.8], [2.0, 0.0, 3.0]);
            let rows = [0, 0, 2, 2, 2];
            let copy = |v: &[f32], width: usize| -> Vec<f32> {
                rows.iter().flat_map(|r| v[r * width..(r + 1) * width].to_vec()).collect()
            };
            let mut work = VelocityWork::new(net.shape(), 5);
            let (mut weighted, mut copied) = (vec![0.0; net.params.len()], vec![0.0; net.params.len()]);
            let loss = net.regress_weighted([&s, &x, &t, &y], &weights, &mut work, &mut weighted);
            let (s, x, t, y) = (copy(&s, 3), copy(&x, 2), copy(&t, 1), copy(&y, 2));
            let other = net.regress(&s, &x, &t, &y, &mut work, &mut copied);
            let scale = 5.0 / 3.0;
            assert!((loss - scale * other).abs() < 1e-5 * (1.0 + loss));
            for (a, b) in weighted.iter().zip(&copied) {
                assert!((a - scale * b).abs() < 1e-5 * (1.0 + a.abs()), "{a} {b}");
            }
        }
    }

    #[test]
    fn constant_features_fold_into_the_bias() {
        for net in cases().into_iter().filter(|n| !n.shape().constant.is_empty()) {
            let shape = net.shape();
            assert_eq!(net.exported().len(), shape.params() - shape.constant.len() * shape.hidden.width);
            let mut other = VelocityNet::new(shape.clone(), 1.0, 1.0, &mut Noise::new(77, 0));
            let known = shape.frequencies.len();
            assert!(other.import(&net.exported(), known) && !other.import(&net.exported()[1..], known));
            assert_eq!(other.exported(), net.exported());
        }
    }
}
