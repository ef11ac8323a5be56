//! What is trained: a network is the factory's parameters, which stay in flash, plus a delta in RAM.
//!
//! A layer computes `W x + U V x + b`: what is trained of it, as [`Trained`] says, is `b`, with `W` or with a product `U V` of
//! rank `r`. `W` and `b` are in RAM where they are trained, and in flash where not. They start as the factory's, and `U` at
//! zero, so a fresh delta changes nothing. Forward and backward pass stop wherever a [`Budget`] ends, at
//! any column of any layer, and go on there. No panics, no allocation; sums in a fixed order, wherever it stopped, and under
//! the subnormal rule, so the same bits everywhere.
//!
//! Cost of a layer of `m` rows and `n` columns: `m n` multiply-accumulates forward and `m n` backward for the factory's
//! part; training it in full adds `m n` backward, a product of rank `r` adds `r (m + n)` and `3 r (m + n)`. Columns
//! whose input is zero, as that of a ReLU which does not fire, are left out, in both directions.

use super::slice::{Budget, Cut};
use crate::math;
use crate::net::kernel::{self, gemv_add, gemv_add_relu, gemv_add_sparse};
use crate::net::{Activation, CriticShape, VelocityShape, dense_params};
use core::ops::Range;

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

impl Trained {
    /// Kind and number, as saved states and the serial protocol have them.
    pub const fn code(self) -> [u8; 2] {
        match self {
            Self::All => [0, 0],
            Self::Last(n) => [1, n],
            Self::LowRank(r) => [2, r],
            Self::Bias => [3, 0],
        }
    }

    /// What has this code.
    pub const fn of(code: [u8; 2]) -> Option<Self> {
        match code {
            [0, 0] => Some(Self::All),
            [1, n] => Some(Self::Last(n)),
            [2, r] => Some(Self::LowRank(r)),
            [3, 0] => Some(Self::Bias),
            _ => None,
        }
    }
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

    /// Rows of dense layer `l`.
    pub(super) const fn rows(&self, l: usize) -> usize {
        self.size(l).0
    }

    /// Rank of the delta of dense layer `l`; zero where it is none.
    pub(super) const fn rank_of(&self, trained: Trained, l: usize) -> usize {
        match self.kind(trained, l) {
            Kind::Rank(r) => r,
            _ => 0,
        }
    }

    /// Whether a hidden value tells its derivative: what a ReLU keeps has slope one.
    pub(super) const fn is_relu(&self) -> bool {
        matches!(self.activation, Activation::Relu)
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
    /// Numbers of `V`, or of the layer's own matrix, and of `U`.
    const fn matrices(self, rows: usize, columns: usize) -> (usize, usize) {
        match self {
            Self::None | Self::Bias => (0, 0),
            Self::Full => (rows * columns, 0),
            Self::Rank(r) => (r * columns, rows * r),
        }
    }

    const fn numbers(self, rows: usize, columns: usize) -> usize {
        match self {
            Self::None => 0,
            Self::Bias => rows,
            Self::Full => rows * columns + rows,
            Self::Rank(r) => r * (rows + columns) + rows,
        }
    }
}

/// A layer's numbers: the factory's, or the delta's in their place.
struct Layer<'w> {
    weights: &'w [f32],
    bias: &'w [f32],
    kind: Kind,
    /// `V`.
    inner: &'w [f32],
    /// `U`.
    outer: &'w [f32],
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

/// What a pass keeps of each layer: the values before the activation, unless that is ReLU, those after it, and `V x`.
#[derive(Debug)]
pub struct Trace<'s> {
    /// Inputs of the network.
    pub input: &'s mut [f32],
    /// Before the activation, `layers * hidden`; empty in a network of ReLU, and where no backward pass follows.
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
        let (inner, outer) = kind.matrices(rows, columns);
        let (owner, start) = if kind == Kind::Full { (delta, at) } else { (self.factory, base) };
        let weights = of(owner, start, rows * columns);
        let bias = match kind {
            Kind::None => of(self.factory, base + rows * columns, rows),
            _ => of(delta, at + inner + outer, rows),
        };
        let (inner, outer) = match kind {
            Kind::Rank(_) => (of(delta, at, inner), of(delta, at + inner, outer)),
            _ => (&[][..], &[][..]),
        };
        (Layer { weights, bias, kind, inner, outer }, at)
    }

    /// The forward pass from `cut` on, as far as `left` goes; whether it is through, and `cut` at the start again.
    pub fn forward(&self, cut: &mut Cut, left: &mut Budget, delta: &[f32], trace: &mut Trace<'_>) -> bool {
        while cut.layer <= self.shape.layers {
            if self.forward_layer(cut, left, delta, trace).is_none() {
                return false;
            }
            *cut = Cut { layer: cut.layer + 1, ..Cut::default() };
        }
        *cut = Cut::default();
        true
    }

    /// Dense layer `cut.layer` forward, from the trace's values below it to those above it, the outputs for the last;
    /// `None` where the budget ends before.
    fn forward_layer(&self, cut: &mut Cut, left: &mut Budget, delta: &[f32], trace: &mut Trace<'_>) -> Option<()> {
        let (l, h, rank) = (cut.layer, self.shape.hidden, self.shape.rank(self.trained));
        let (rows, columns) = self.shape.size(l);
        let (layer, _) = self.layer(l, delta);
        let (below, above) = trace.post.split_at_mut_checked(l * h).unwrap_or_default();
        let x: &[f32] = if l == 0 { trace.input } else { below.get((l - 1) * h..).unwrap_or(&[]) };
        let last = l == self.shape.layers;
        let y = if last { &mut *trace.output } else { above };
        let y = y.get_mut(..rows).unwrap_or_default();
        let r = if let Kind::Rank(r) = layer.kind { r } else { 0 };
        let z = trace.inner.get_mut(l * rank..l * rank + r).unwrap_or_default();
        let relu = self.shape.is_relu() && !last;
        while cut.part < 4 {
            let cost = self.shape.forward_cost(cut.part, rows, r);
            let units = match cut.part {
                0 => columns,
                1 if r > 0 => columns,
                2 => r,
                3 if !last && !relu => rows,
                _ => 0,
            };
            let range = left.units(&mut cut.at, units, cost)?;
            let through = cut.at >= units;
            let inputs = x.get(range.clone()).unwrap_or(&[]);
            match cut.part {
                0 => {
                    if range.start == 0 {
                        copy(y, layer.bias);
                        z.fill(0.0);
                    }
                    gemv_add_sparse(columns_of(layer.weights, &range, rows), inputs, y, relu && through && r == 0);
                }
                1 if r > 0 => gemv_add_sparse(columns_of(layer.inner, &range, r), inputs, z, false),
                2 if r > 0 => {
                    let z = z.get_mut(range.clone()).unwrap_or_default();
                    z.iter_mut().for_each(|z| *z = math::flush(*z));
                    let outer = columns_of(layer.outer, &range, rows);
                    if relu && through { gemv_add_relu(outer, z, y) } else { gemv_add(outer, z, y) }
                }
                3 if !last && !relu => {
                    let post = y.get_mut(range.clone()).unwrap_or_default();
                    copy(trace.pre.get_mut(l * h + range.start..l * h + range.end).unwrap_or_default(), post);
                    post.iter_mut().for_each(|post| *post = math::flush(*post));
                    self.shape.activation.apply(post);
                }
                _ => {}
            }
            if through {
                (cut.part, cut.at) = (cut.part + 1, 0);
            }
        }
        Some(())
    }

    /// Number of dense layers below which nothing is trained, so that a backward pass can stop there.
    pub fn first_trained(&self) -> usize {
        (0..=self.shape.layers).find(|l| self.shape.kind(self.trained, *l) != Kind::None).unwrap_or(0)
    }

    /// The backward pass from `cut` on, as far as `left` goes; whether it is through, and `cut` at the start again.
    ///
    /// It begins with the gradient at the outputs in `trace.upper`, and adds the delta's gradient to `gradient`. The layers of
    /// `cut` are counted from the last.
    pub fn backward(
        &self,
        cut: &mut Cut,
        left: &mut Budget,
        delta: &[f32],
        gradient: &mut [f32],
        trace: &mut Trace<'_>,
    ) -> bool {
        while cut.layer + self.first_trained() <= self.shape.layers {
            if self.backward_layer(cut, left, delta, gradient, trace).is_none() {
                return false;
            }
            *cut = Cut { layer: cut.layer + 1, ..Cut::default() };
        }
        *cut = Cut::default();
        true
    }

    /// A dense layer backward, from the gradient at its outputs, before the activation, to that at the layer below, both in
    /// `trace.upper`; `None` where the budget ends before.
    fn backward_layer(
        &self,
        cut: &mut Cut,
        left: &mut Budget,
        delta: &[f32],
        gradient: &mut [f32],
        trace: &mut Trace<'_>,
    ) -> Option<()> {
        let (l, h) = (self.shape.layers.saturating_sub(cut.layer), self.shape.hidden);
        let rank = self.shape.rank(self.trained);
        let (rows, columns) = self.shape.size(l);
        let (layer, at) = self.layer(l, delta);
        let r = if let Kind::Rank(r) = layer.kind { r } else { 0 };
        let numbers = layer.kind.numbers(rows, columns);
        let gradient = gradient.get_mut(at..at + numbers).unwrap_or_default();
        let (of_inner, of_outer) = layer.kind.matrices(rows, columns);
        let (inner, rest) = gradient.split_at_mut_checked(of_inner).unwrap_or_default();
        let (outer, bias) = rest.split_at_mut_checked(of_outer).unwrap_or_default();
        let x: &[f32] = if l == 0 { trace.input } else { trace.post.get((l - 1) * h..l * h).unwrap_or(&[]) };
        let z = trace.inner.get_mut(l * rank..l * rank + r).unwrap_or_default();
        let below = l > self.first_trained();
        while cut.part < 4 {
            let cost = self.shape.backward_cost(cut.part, rows, r);
            let units = match (cut.part, layer.kind) {
                (0, _) => 1,
                (1, Kind::Rank(r)) => r,
                (2, Kind::Full | Kind::Rank(_)) => columns,
                (2 | 3, _) if below => columns,
                _ => 0,
            };
            let range = left.units(&mut cut.at, units, cost)?;
            let upper = trace.upper.get_mut(..if cut.part == 3 { columns } else { rows }).unwrap_or_default();
            match cut.part {
                0 => add(bias, upper),
                1 => {
                    let pairs = layer
                        .outer
                        .chunks_exact(rows.max(1))
                        .zip(outer.chunks_exact_mut(rows.max(1)))
                        .zip(z.iter_mut());
                    for ((u, gradient), z) in pairs.skip(range.start).take(range.len()) {
                        add_scaled(gradient, upper, *z);
                        // From here on z holds the gradient at V x.
                        *z = math::flush(dot(u, upper));
                    }
                }
                2 => {
                    let x = x.get(range.clone()).unwrap_or(&[]);
                    let y: &[f32] = if r > 0 { z } else { upper };
                    let lower = trace.lower.get_mut(range.clone()).unwrap_or_default();
                    if below {
                        let weights = columns_of(layer.weights, &range, rows);
                        if self.shape.is_relu() {
                            // One that does not fire lets no gradient through.
                            kernel::gemv_transposed_sparse(weights, upper, x, lower);
                        } else {
                            kernel::gemv_transposed(weights, upper, lower);
                        }
                    }
                    if of_inner > 0 {
                        let gradient = columns_of_mut(inner, &range, y.len()).chunks_exact_mut(y.len().max(1));
                        gradient.zip(x).filter(|(_, x)| **x != 0.0).for_each(|(g, x)| add_scaled(g, y, *x));
                    }
                    if below && r > 0 {
                        let columns = columns_of(layer.inner, &range, r).chunks_exact(r).zip(x).zip(lower);
                        for ((column, x), lower) in columns {
                            if *x != 0.0 || !self.shape.is_relu() {
                                *lower += dot(column, y);
                            }
                        }
                    }
                }
                _ => {
                    let (pre, lower) = (trace.pre.get((l.max(1) - 1) * h..).unwrap_or(&[]), &*trace.lower);
                    for j in range {
                        let slope = match pre.get(j) {
                            // The sums of those that do not fire are zero.
                            _ if self.shape.is_relu() => 1.0,
                            Some(pre) => self.shape.activation.derivative(*pre),
                            None => 0.0,
                        };
                        if let (Some(upper), Some(lower)) = (upper.get_mut(j), lower.get(j)) {
                            *upper = math::flush(*lower * slope);
                        }
                    }
                }
            }
            if cut.at >= units {
                (cut.part, cut.at) = (cut.part + 1, 0);
            }
        }
        Some(())
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
                Kind::Full => copy(weights, layer.weights),
                Kind::Rank(r) => {
                    let columns = weights.chunks_exact_mut(rows.max(1)).zip(layer.inner.chunks_exact(r.max(1)));
                    columns.for_each(|(column, v)| gemv_add(layer.outer, v, column));
                }
            }
            weights.iter_mut().for_each(|w| *w = math::flush(*w));
            copy(bias, layer.bias);
            at += rows * columns + rows;
        }
    }

    /// A fresh delta, which changes nothing: the factory's numbers, `U` zero, and `V` uniform with variance one over the
    /// inputs.
    pub fn start(&self, delta: &mut [f32], random: impl FnMut() -> u32) {
        self.start_numbers(0..delta.len(), delta, random);
    }

    /// Some numbers of it; those before them come first.
    pub fn start_numbers(&self, numbers: Range<usize>, delta: &mut [f32], mut random: impl FnMut() -> u32) {
        let (mut at, mut base) = (0, 0);
        for l in 0..=self.shape.layers {
            let (rows, columns) = self.shape.size(l);
            let kind = self.shape.kind(self.trained, l);
            let (inner, outer) = kind.matrices(rows, columns);
            let end = at + kind.numbers(rows, columns);
            let bound = math::sqrt(3.0 / columns as f32);
            for i in numbers.start.max(at)..numbers.end.min(end) {
                let of_matrices = i - at < inner + outer;
                let value = match kind {
                    Kind::Rank(_) if i - at < inner => math::flush(bound * math::symmetric_uniform(random())),
                    Kind::Rank(_) if of_matrices => 0.0,
                    Kind::Full if of_matrices => self.factory.get(base + i - at).copied().unwrap_or(0.0),
                    _ => self.factory.get(base + rows * columns + i - at - inner - outer).copied().unwrap_or(0.0),
                };
                if let Some(number) = delta.get_mut(i) {
                    *number = value;
                }
            }
            (at, base) = (end, base + rows * columns + rows);
        }
    }
}

fn add(sum: &mut [f32], x: &[f32]) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
}

fn copy(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
}

/// Lengths from which on a kernel is worth its call.
const SHORT: usize = 12;

/// `sum += x y`.
#[inline]
fn add_scaled(sum: &mut [f32], x: &[f32], y: f32) {
    if x.len() < SHORT {
        sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * y);
    } else {
        gemv_add(x, &[y], sum);
    }
}

/// The sum of the products.
#[inline]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    if a.len() < SHORT { a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b) } else { kernel::dot(a, b) }
}

/// Some columns of a matrix.
fn columns_of<'w>(w: &'w [f32], columns: &Range<usize>, rows: usize) -> &'w [f32] {
    w.get(columns.start * rows..columns.end * rows).unwrap_or(&[])
}

fn columns_of_mut<'w>(w: &'w mut [f32], columns: &Range<usize>, rows: usize) -> &'w mut [f32] {
    w.get_mut(columns.start * rows..columns.end * rows).unwrap_or_default()
}
