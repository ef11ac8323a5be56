//! What is trained: a network is the factory's parameters, which stay in flash, plus a delta in RAM.
//!
//! A layer computes `W x + dW x + b + db`, with `dW` a full matrix, a product `U V` of rank `r`, or nothing, as [`Trained`]
//! says. `U` starts at zero, so a fresh delta changes nothing. Forward and backward pass go layer by layer, so that a
//! caller can stop between any two of them. No panics, no allocation; sums in a fixed order and under the subnormal rule, so
//! the same bits everywhere.
//!
//! Cost of a layer of `m` rows and `n` columns: `m n` multiply-accumulates forward and `m n` backward for the factory's
//! part; a full delta adds `m n` forward and `2 m n` backward, one of rank `r` adds `r (m + n)` and `3 r (m + n)`.

use crate::math;
use crate::net::kernel::{gemv_add, gemv_transposed};
use crate::net::{Activation, CriticShape, VelocityShape, dense_params};

/// Which numbers of a network are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Trained {
    /// Every weight and bias.
    All,
    /// Weights and biases of so many layers at the output's end.
    Last(u8),
    /// Every bias, and every matrix by a delta of this rank; in full where that takes at most twice the numbers.
    LowRank(u8),
    /// Every bias.
    Bias,
}

/// Sizes of a network of dense layers, whatever it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Perceptron {
    /// Number of inputs.
    pub inputs: usize,
    /// Width of every hidden layer.
    pub hidden: usize,
    /// Number of hidden layers.
    pub layers: usize,
    /// Number of outputs.
    pub outputs: usize,
    /// Function after each hidden layer.
    pub activation: Activation,
}

impl Perceptron {
    /// A velocity network on the observation, the latent and the time features in a row.
    pub const fn velocity(shape: &VelocityShape) -> Self {
        let inputs = shape.obs.saturating_add(shape.act).saturating_add(shape.frequencies.saturating_mul(2));
        Self { inputs, hidden: shape.hidden, layers: shape.layers, outputs: shape.act, activation: shape.activation }
    }

    /// A critic on the observation and the action in a row.
    pub const fn critic(shape: &CriticShape) -> Self {
        Self {
            inputs: shape.obs.saturating_add(shape.act),
            hidden: shape.hidden,
            layers: shape.layers,
            outputs: 1,
            activation: shape.activation,
        }
    }

    /// Number of the factory's parameters.
    pub const fn params(&self) -> usize {
        dense_params(self.inputs, self.hidden, self.layers, self.outputs)
    }

    /// Rows and columns of dense layer `l`, the output's being `layers`.
    const fn size(&self, l: usize) -> (usize, usize) {
        let rows = if l == self.layers { self.outputs } else { self.hidden };
        let columns = if l == 0 { self.inputs } else { self.hidden };
        (rows, columns)
    }

    const fn kind(&self, trained: Trained, l: usize) -> Kind {
        let (rows, columns) = self.size(l);
        match trained {
            Trained::All => Kind::Full,
            Trained::Last(n) => {
                if l + n as usize > self.layers {
                    Kind::Full
                } else {
                    Kind::None
                }
            }
            Trained::LowRank(r) => {
                let r = r as usize;
                if rows * columns <= 2 * r * (rows + columns) { Kind::Full } else { Kind::Rank(r) }
            }
            Trained::Bias => Kind::Bias,
        }
    }

    /// Numbers of a delta.
    pub const fn delta(&self, trained: Trained) -> usize {
        let (mut l, mut sum) = (0, 0);
        while l <= self.layers {
            let (rows, columns) = self.size(l);
            sum += self.kind(trained, l).numbers(rows, columns);
            l += 1;
        }
        sum
    }

    /// The largest rank of a layer's delta.
    pub const fn rank(&self, trained: Trained) -> usize {
        let (mut l, mut most) = (0, 0);
        while l <= self.layers {
            if let Kind::Rank(r) = self.kind(trained, l)
                && r > most
            {
                most = r;
            }
            l += 1;
        }
        most
    }

    /// Largest number of multiply-accumulates of one layer, forward or backward.
    pub const fn layer_macs(&self, trained: Trained) -> usize {
        let (mut l, mut most) = (0, 0);
        while l <= self.layers {
            let (rows, columns) = self.size(l);
            let macs = rows * columns
                + match self.kind(trained, l) {
                    Kind::None | Kind::Bias => rows,
                    Kind::Full => 2 * rows * columns + rows,
                    Kind::Rank(r) => 3 * r * (rows + columns) + rows,
                };
            if macs > most {
                most = macs;
            }
            l += 1;
        }
        most
    }
}

/// How a layer is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Bias,
    Full,
    Rank(usize),
}

impl Kind {
    const fn numbers(self, rows: usize, columns: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Bias => rows,
            Self::Full => rows * columns + rows,
            Self::Rank(r) => r * (rows + columns) + rows,
        }
    }
}

/// A layer's numbers: the factory's and its delta's.
struct Layer<'w> {
    weights: &'w [f32],
    bias: &'w [f32],
    kind: Kind,
    /// `V`, or the full delta.
    inner: &'w [f32],
    /// `U`.
    outer: &'w [f32],
    bias_delta: &'w [f32],
}

/// The factory's parameters and what is trained of them; the delta itself comes with every call.
#[derive(Debug, Clone, Copy)]
pub struct Network<'a> {
    /// Sizes.
    pub shape: Perceptron,
    /// What is trained.
    pub trained: Trained,
    /// The factory's parameters.
    pub factory: &'a [f32],
}

/// What a pass keeps of each layer: the values before the activation, those after it, and `V x`.
#[derive(Debug)]
pub struct Trace<'s> {
    /// Inputs of the network.
    pub input: &'s mut [f32],
    /// Before the activation, `layers * hidden`.
    pub pre: &'s mut [f32],
    /// After it, `layers * hidden`.
    pub post: &'s mut [f32],
    /// `V x` of each dense layer, `(layers + 1) * rank`.
    pub inner: &'s mut [f32],
    /// Outputs.
    pub output: &'s mut [f32],
    /// Gradient at the layer's outputs, `hidden`.
    pub upper: &'s mut [f32],
    /// Gradient at its inputs, `hidden` or `inputs`, whichever is more.
    pub lower: &'s mut [f32],
}

impl<'a> Network<'a> {
    /// The parts of dense layer `l`, and where its delta begins.
    fn layer<'w>(&self, l: usize, delta: &'w [f32]) -> (Layer<'w>, usize)
    where
        'a: 'w,
    {
        let (mut base, mut at) = (0, 0);
        for below in 0..l {
            let (rows, columns) = self.shape.size(below);
            base += rows * columns + rows;
            at += self.shape.kind(self.trained, below).numbers(rows, columns);
        }
        let (rows, columns) = self.shape.size(l);
        let kind = self.shape.kind(self.trained, l);
        let of = |slice: &'w [f32], from: usize, n: usize| slice.get(from..from + n).unwrap_or(&[]);
        let (inner, outer) = match kind {
            Kind::None | Kind::Bias => (0, 0),
            Kind::Full => (rows * columns, 0),
            Kind::Rank(r) => (r * columns, rows * r),
        };
        let layer = Layer {
            weights: of(self.factory, base, rows * columns),
            bias: of(self.factory, base + rows * columns, rows),
            kind,
            inner: of(delta, at, inner),
            outer: of(delta, at + inner, outer),
            bias_delta: of(delta, at + inner + outer, if kind == Kind::None { 0 } else { rows }),
        };
        (layer, at)
    }

    /// Dense layer `l` forward: from the trace's values below it to those above it, the outputs for the last.
    pub fn forward(&self, l: usize, delta: &[f32], trace: &mut Trace<'_>) {
        let (h, rank) = (self.shape.hidden, self.shape.rank(self.trained));
        let (layer, _) = self.layer(l, delta);
        let (below, above) = trace.post.split_at_mut_checked(l * h).unwrap_or_default();
        let x: &[f32] = if l == 0 { trace.input } else { below.get((l - 1) * h..).unwrap_or(&[]) };
        let last = l == self.shape.layers;
        let y = if last { &mut *trace.output } else { trace.pre.get_mut(l * h..(l + 1) * h).unwrap_or_default() };
        y.iter_mut().zip(layer.bias).for_each(|(y, b)| *y = *b);
        for (y, db) in y.iter_mut().zip(layer.bias_delta) {
            *y = math::flush_bias(*y + db);
        }
        gemv_add(layer.weights, x, y);
        match layer.kind {
            Kind::None | Kind::Bias => {}
            Kind::Full => gemv_add(layer.inner, x, y),
            Kind::Rank(r) => {
                let z = trace.inner.get_mut(l * rank..l * rank + r).unwrap_or_default();
                z.fill(0.0);
                gemv_add(layer.inner, x, z);
                z.iter_mut().for_each(|z| *z = math::flush(*z));
                gemv_add(layer.outer, z, y);
            }
        }
        if !last {
            let post = above.get_mut(..h).unwrap_or_default();
            post.iter_mut().zip(y.iter()).for_each(|(post, pre)| *post = math::flush(*pre));
            self.shape.activation.apply(post);
        }
    }

    /// Number of dense layers below which nothing is trained, so that a backward pass can stop there.
    pub fn first_trained(&self) -> usize {
        (0..=self.shape.layers).find(|l| self.shape.kind(self.trained, *l) != Kind::None).unwrap_or(0)
    }

    /// Dense layer `l` backward: from the gradient at its outputs (`trace.upper`; before the activation) it adds the
    /// delta's gradient to `gradient` and leaves the gradient at the layer below in `trace.upper`.
    pub fn backward(&self, l: usize, delta: &[f32], gradient: &mut [f32], trace: &mut Trace<'_>) {
        let (h, rank) = (self.shape.hidden, self.shape.rank(self.trained));
        let (rows, columns) = self.shape.size(l);
        let (layer, at) = self.layer(l, delta);
        let numbers = layer.kind.numbers(rows, columns);
        let gradient = gradient.get_mut(at..at + numbers).unwrap_or_default();
        let x: &[f32] = if l == 0 { trace.input } else { trace.post.get((l - 1) * h..l * h).unwrap_or(&[]) };
        let upper = trace.upper.get_mut(..rows).unwrap_or_default();
        let below = l > self.first_trained();
        let lower = trace.lower.get_mut(..columns).unwrap_or_default();
        if below {
            gemv_transposed(layer.weights, upper, lower);
        }
        match layer.kind {
            Kind::None => {}
            Kind::Bias => add(gradient, upper),
            Kind::Full => {
                let (weights, bias) = gradient.split_at_mut_checked(rows * columns).unwrap_or_default();
                outer_add(weights, upper, x);
                add(bias, upper);
                if below {
                    for (lower, column) in lower.iter_mut().zip(layer.inner.chunks_exact(rows)) {
                        *lower += dot(column, upper);
                    }
                }
            }
            Kind::Rank(r) => {
                let (inner, rest) = gradient.split_at_mut_checked(r * columns).unwrap_or_default();
                let (outer, bias) = rest.split_at_mut_checked(rows * r).unwrap_or_default();
                let z = trace.inner.get_mut(l * rank..l * rank + r).unwrap_or_default();
                outer_add(outer, upper, z);
                add(bias, upper);
                // From here on z holds the gradient at V x.
                for (z, column) in z.iter_mut().zip(layer.outer.chunks_exact(rows)) {
                    *z = math::flush(dot(column, upper));
                }
                outer_add(inner, z, x);
                if below {
                    for (lower, column) in lower.iter_mut().zip(layer.inner.chunks_exact(r)) {
                        *lower += dot(column, z);
                    }
                }
            }
        }
        if below {
            let pre = trace.pre.get((l.max(1) - 1) * h..).unwrap_or(&[]);
            let upper = trace.upper.get_mut(..columns).unwrap_or_default();
            for ((upper, lower), pre) in upper.iter_mut().zip(lower.iter()).zip(pre) {
                *upper = math::flush(*lower * self.shape.activation.derivative(*pre));
            }
        }
    }

    /// Writes the factory's parameters with the delta added, which is a network of its own; its sums are rounded otherwise
    /// than those of factory and delta side by side.
    pub fn merge(&self, delta: &[f32], out: &mut [f32]) {
        out.iter_mut().zip(self.factory).for_each(|(out, w)| *out = *w);
        let mut at = 0;
        for l in 0..=self.shape.layers {
            let (rows, columns) = self.shape.size(l);
            let (layer, _) = self.layer(l, delta);
            let here = out.get_mut(at..at + rows * columns + rows).unwrap_or_default();
            let (weights, bias) = here.split_at_mut_checked(rows * columns).unwrap_or_default();
            match layer.kind {
                Kind::None | Kind::Bias => {}
                Kind::Full => add(weights, layer.inner),
                Kind::Rank(r) => {
                    let columns = weights.chunks_exact_mut(rows.max(1)).zip(layer.inner.chunks_exact(r.max(1)));
                    columns.for_each(|(column, v)| gemv_add(layer.outer, v, column));
                }
            }
            weights.iter_mut().for_each(|w| *w = math::flush(*w));
            add(bias, layer.bias_delta);
            bias.iter_mut().for_each(|b| *b = math::flush_bias(*b));
            at += rows * columns + rows;
        }
    }

    /// A fresh delta: everything zero but `V`, whose numbers are uniform with variance one over the inputs.
    pub fn start(&self, delta: &mut [f32], mut random: impl FnMut() -> u32) {
        delta.fill(0.0);
        let mut at = 0;
        for l in 0..=self.shape.layers {
            let (rows, columns) = self.shape.size(l);
            let kind = self.shape.kind(self.trained, l);
            if let Kind::Rank(r) = kind {
                let bound = math::sqrt(3.0 / columns as f32);
                for v in delta.iter_mut().skip(at).take(r * columns) {
                    *v = math::flush(bound * math::symmetric_uniform(random()));
                }
            }
            at += kind.numbers(rows, columns);
        }
    }
}

fn add(sum: &mut [f32], x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}

/// `m += y x^T` for a column-major `m` of `y.len()` rows.
fn outer_add(m: &mut [f32], y: &[f32], x: &[f32]) {
    for (column, x) in m.chunks_exact_mut(y.len().max(1)).zip(x) {
        if *x != 0.0 {
            column.iter_mut().zip(y).for_each(|(m, y)| *m += y * x);
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}
