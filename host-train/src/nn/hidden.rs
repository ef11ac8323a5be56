//! What the velocity network and the critic have in common: everything after the first layer's matrix products.
//!
//! [`Hidden`] is given the first layer's products, adds the shift (state part, time part, bias), and runs the rest:
//! h <- f(W h + b), or h <- h + f(W h + b) with a residual trunk, then the linear output layer. With `layer_norm` every
//! f is given the normalised row, (z - mean) / sqrt(variance + 1e-5) over its channels (Ba, Kiros and Hinton,
//! arXiv 1607.06450), without a gain and a bias of its own, so that the parameters stay those of the plain layers. The
//! backward pass gives the gradient with respect to the parameters (if wanted) and to the first layer's sum, from which
//! the owner derives its own. Nothing allocates after [`Workspace::new`].
//!
//! Parameters, flat: for l = 1..layers-1 `W_l [hidden x hidden]`, `b_l [hidden]`; then `W_out [hidden x outputs]`,
//! `b_out [outputs]`; every matrix with one contiguous column per input.

use super::elementwise::{activate, activate_keeping_slope, add, add_to_rows, product, sum_rows};
use super::init::orthogonal;
use super::layer_norm::{normalise, normalise_backward};
use super::math::vectorised;
use super::{Activation, Trunk, matmul};
use crate::noise::Noise;

/// Sizes and form of the layers after the first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hidden {
    /// Width of every hidden layer.
    pub width: usize,
    /// Hidden layers, the first one included (at least 1).
    pub layers: usize,
    /// Width of the output layer.
    pub outputs: usize,
    /// The function after each hidden layer.
    pub activation: Activation,
    /// Plain or residual.
    pub trunk: Trunk,
    /// Normalise the rows before each activation.
    pub layer_norm: bool,
}

/// Buffers for up to a fixed number of rows.
#[derive(Clone, Debug)]
pub struct Workspace {
    rows: usize,
    /// Output of each hidden layer; the owner writes the first layer's products into `first`.
    activations: Vec<Vec<f32>>,
    slopes: Vec<Vec<f32>>,
    /// Normalised rows of each layer and the factors that made them so; empty without layer norm.
    normalised: Vec<Vec<f32>>,
    factors: Vec<Vec<f32>>,
    /// A shift of zeros, for what is normalised has been shifted before.
    zeros: Vec<f32>,
    output: Vec<f32>,
    upstream: Vec<f32>,
    delta: Vec<f32>,
}

impl Workspace {
    /// Buffers for `rows` rows of `shape`.
    pub fn new(shape: &Hidden, rows: usize) -> Self {
        let layer = || vec![0.0; rows * shape.width];
        let norms = if shape.layer_norm { shape.layers } else { 0 };
        Self {
            rows,
            activations: (0..shape.layers).map(|_| layer()).collect(),
            slopes: (0..shape.layers).map(|_| layer()).collect(),
            normalised: (0..norms).map(|_| layer()).collect(),
            factors: (0..norms).map(|_| vec![0.0; rows]).collect(),
            zeros: vec![0.0; shape.width],
            output: vec![0.0; rows * shape.outputs],
            upstream: layer(),
            delta: layer(),
        }
    }

    /// The rows it can hold.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Where the owner writes the first layer's products, without shift, before a forward pass.
    pub fn first(&mut self, len: usize) -> &mut [f32] {
        &mut self.activations[0][..len]
    }

    /// The gradient with respect to the first layer's sum, after a backward pass.
    pub fn first_delta(&self, len: usize) -> &[f32] {
        &self.delta[..len]
    }
}

impl Hidden {
    /// Number of parameters.
    pub fn params(&self) -> usize {
        (self.layers - 1) * (self.width + 1) * self.width + (self.width + 1) * self.outputs
    }

    /// Orthogonal weights (gain of the hidden layers and of the output layer), zero biases.
    pub fn initialise(&self, params: &mut [f32], gain: f32, output_gain: f32, noise: &mut Noise) {
        let (h, o) = (self.width, self.outputs);
        params.fill(0.0);
        let (hidden, output) = params.split_at_mut((self.layers - 1) * (h + 1) * h);
        for layer in hidden.chunks_exact_mut((h + 1) * h) {
            orthogonal(&mut layer[..h * h], h, h, gain, noise);
        }
        orthogonal(&mut output[..h * o], h, o, output_gain, noise);
    }

    /// Runs all layers on the products in `work.first`; each row of `shift` serves `group` rows. `keep` prepares a
    /// backward pass. Returns the outputs, `rows x outputs`.
    pub fn forward<'w>(
        &self,
        params: &[f32],
        shift: &[f32],
        group: usize,
        rows: usize,
        work: &'w mut Workspace,
        keep: bool,
    ) -> &'w mut [f32] {
        let (h, len) = (self.width, rows * self.width);
        assert_eq!(shift.len() * group, len, "every row of the shift serves `group` rows");
        let mut rest = params;
        for l in 0..self.layers {
            let (before, after) = work.activations.split_at_mut(l);
            let z = &mut after[0][..len];
            let (shift, group) = if l == 0 {
                (shift, group)
            } else {
                let w = take(&mut rest, h * h);
                matmul::forward(z, &before[l - 1][..len], w, h, h, false);
                (take(&mut rest, h), rows)
            };
            let (shift, group) = if self.layer_norm {
                normalise(z, shift, group, &mut work.factors[l][..rows]);
                if keep {
                    work.normalised[l][..len].copy_from_slice(z);
                }
                (&work.zeros[..], rows)
            } else {
                (shift, group)
            };
            if keep {
                activate_keeping_slope(self.activation, z, &mut work.slopes[l][..len], shift, group, h);
            } else {
                activate(self.activation, z, shift, group, h);
            }
            if l > 0 && self.trunk == Trunk::Residual {
                add(z, &before[l - 1][..len]);
            }
        }
        let w = take(&mut rest, h * self.outputs);
        let output = &mut work.output[..rows * self.outputs];
        matmul::forward(output, &work.activations[self.layers - 1][..len], w, h, self.outputs, false);
        add_to_rows(output, rest);
        output
    }

    /// The derivative of the outputs along a direction, forward: `first` is the derivative of the first layer's sum, and
    /// the pass is the one that `forward` kept. Without layer norm only. Returns `rows x outputs`.
    pub fn tangent<'w>(&self, params: &[f32], first: &[f32], rows: usize, work: &'w mut Workspace) -> &'w [f32] {
        assert!(!self.layer_norm, "a normalised row has no derivative here");
        let (h, len) = (self.width, rows * self.width);
        let (mut below, mut above) = (&mut work.upstream[..len], &mut work.delta[..len]);
        product(below, first, &work.slopes[0][..len]);
        let mut rest = params;
        for slopes in &work.slopes[1..] {
            matmul::forward(above, below, take(&mut rest, h * h), h, h, false);
            take(&mut rest, h);
            vectorised(|| above.iter_mut().zip(&slopes[..len]).for_each(|(a, s)| *a *= s));
            if self.trunk == Trunk::Residual {
                add(above, below);
            }
            std::mem::swap(&mut below, &mut above);
        }
        let output = &mut work.output[..rows * self.outputs];
        matmul::forward(output, below, take(&mut rest, h * self.outputs), h, self.outputs, false);
        output
    }

    /// Back-propagates `d_output` through the pass that `forward` kept. Leaves the gradient with respect to the first
    /// layer's sum in `work.first_delta`, and overwrites `gradient` (laid out like the parameters) if it is given.
    pub fn backward(
        &self,
        params: &[f32],
        d_output: &[f32],
        rows: usize,
        work: &mut Workspace,
        mut gradient: Option<&mut [f32]>,
    ) {
        let (h, len, o) = (self.width, rows * self.width, self.outputs);
        let layer_params = (h + 1) * h;
        let output_at = (self.layers - 1) * layer_params;
        let (upstream, delta) = (&mut work.upstream[..len], &mut work.delta[..len]);
        if let Some(gradient) = gradient.as_deref_mut() {
            let (dw, db) = gradient[output_at..].split_at_mut(h * o);
            matmul::weight_gradient(dw, &work.activations[self.layers - 1][..len], d_output, h, o);
            sum_rows(db, d_output);
        }
        matmul::backward(upstream, d_output, &params[output_at..output_at + h * o], h, o, false);
        for l in (1..self.layers).rev() {
            let at = (l - 1) * layer_params;
            product(delta, upstream, &work.slopes[l][..len]);
            if self.layer_norm {
                normalise_backward(delta, &work.normalised[l][..len], &work.factors[l][..rows]);
            }
            if let Some(gradient) = gradient.as_deref_mut() {
                let (dw, db) = gradient[at..at + layer_params].split_at_mut(h * h);
                matmul::weight_gradient(dw, &work.activations[l - 1][..len], delta, h, h);
                sum_rows(db, delta);
            }
            // The residual path adds the gradient that passed the layer by.
            let residual = self.trunk == Trunk::Residual;
            matmul::backward(upstream, delta, &params[at..at + h * h], h, h, residual);
        }
        product(delta, upstream, &work.slopes[0][..len]);
        if self.layer_norm {
            normalise_backward(delta, &work.normalised[0][..len], &work.factors[0][..rows]);
        }
    }
}

/// Splits `len` numbers off the front of `rest`.
pub(super) fn take<'a>(rest: &mut &'a [f32], len: usize) -> &'a [f32] {
    let (head, tail) = rest.split_at(len);
    *rest = tail;
    head
}
