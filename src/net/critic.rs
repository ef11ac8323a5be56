//! The critic `Q(s, a)` and its gradient with respect to the action.
//!
//! A plain multilayer perceptron with its first layer split by input, so that the state half is computed once for
//! any number of actions. Reverse-mode differentiation by hand. A view over a flat slice; no panics, no allocation,
//! the same bits everywhere.
//!
//! Multiply-accumulates for width `H`, `L` hidden layers: `(act + 1) H + (L - 1) H^2` for the value, the same again
//! for the gradient, `obs H` for the state half.

use super::kernel::LANES;
use super::{Activation, ShapeError, dense_params, kernel, take};
use crate::math;

/// Sizes and kind of a critic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct CriticShape {
    /// Number of observations.
    pub obs: usize,
    /// Number of actions.
    pub act: usize,
    /// Width of every hidden layer.
    pub hidden: usize,
    /// Number of hidden layers, at least one.
    pub layers: usize,
    /// Function after each hidden layer.
    pub activation: Activation,
}

impl CriticShape {
    /// Number of parameters of one critic, in floats; `usize::MAX` where they cannot be counted.
    pub const fn params(&self) -> usize {
        dense_params(self.obs.saturating_add(self.act), self.hidden, self.layers, 1)
    }
}

/// A critic over parameters that live elsewhere.
///
/// Parameters, in order: `W_s` (obs columns), `W_a` (act columns), `b`, all of `H` rows; then `W`, `b` for each
/// further hidden layer; then `W_out` (H columns of one row) and `b_out`.
#[derive(Debug, Clone, Copy)]
pub struct Critic<'a> {
    shape: CriticShape,
    params: &'a [f32],
    state_weights: &'a [f32],
    action_weights: &'a [f32],
    first_bias: &'a [f32],
    trunk: &'a [f32],
    out_weights: &'a [f32],
    out_bias: f32,
}

/// Memory that an evaluation writes: pre-activations of every layer (`layers * H`) and two vectors of width `H`.
#[derive(Debug)]
pub struct CriticScratch<'s> {
    /// `layers * H` floats.
    pub pre: &'s mut [f32],
    /// `H` floats.
    pub a: &'s mut [f32],
    /// `H` floats.
    pub b: &'s mut [f32],
}

impl<'a> Critic<'a> {
    /// A view over `params`, laid out as above.
    pub fn new(shape: CriticShape, params: &'a [f32]) -> Result<Self, ShapeError> {
        if shape.obs == 0 || shape.act == 0 || shape.hidden == 0 || shape.layers == 0 {
            return Err(ShapeError::Empty);
        }
        if params.len() != shape.params() {
            return Err(ShapeError::Parameters { expected: shape.params(), found: params.len() });
        }
        let (h, mut rest) = (shape.hidden, params);
        Ok(Self {
            shape,
            params,
            state_weights: take(&mut rest, shape.obs * h),
            action_weights: take(&mut rest, shape.act * h),
            first_bias: take(&mut rest, h),
            trunk: take(&mut rest, (shape.layers - 1) * (h + 1) * h),
            out_weights: take(&mut rest, h),
            out_bias: rest.first().copied().unwrap_or(0.0),
        })
    }

    /// The shape the view was made with.
    pub fn shape(&self) -> &CriticShape {
        &self.shape
    }

    /// All parameters, in the order of the layout.
    pub fn params(&self) -> &'a [f32] {
        self.params
    }

    /// `out = W_s s + b` for a normalised observation `s`; `out` has width `H`.
    pub fn state_part(&self, s: &[f32], out: &mut [f32]) {
        kernel::dense(self.state_weights, s, self.first_bias, out);
    }

    /// `Q(s, a)` from the state part and the action, each component of which lies in `[-1, 1]`.
    pub fn value(&self, state_part: &[f32], action: &[f32], scratch: &mut CriticScratch<'_>) -> f32 {
        let (h, f) = (self.shape.hidden, self.shape.activation);
        let input = &mut *scratch.a;
        let mut weights = self.action_weights;
        let mut bias = state_part;
        let mut rest = self.trunk;
        for (layer, pre) in scratch.pre.chunks_exact_mut(h).take(self.shape.layers).enumerate() {
            kernel::dense(weights, if layer == 0 { action } else { input }, bias, pre);
            f.layer(&[], &[], pre, input);
            weights = take(&mut rest, h * h);
            bias = take(&mut rest, h);
        }
        let mut q = [self.out_bias];
        kernel::gemv_add(self.out_weights, input, &mut q);
        q[0]
    }

    /// [`value`](Self::value) of [`LANES`] actions in one state: `actions[j][p]` is component `j` of action `p`. Reads the
    /// weights once for all of them; the bits of each are those of `value`. `layers` are two slices of width `H`.
    pub fn values_batch(
        &self,
        state_part: &[f32],
        actions: &[[f32; LANES]],
        layers: [&mut [[f32; LANES]]; 2],
    ) -> [f32; LANES] {
        let (h, f) = (self.shape.hidden, self.shape.activation);
        let [mut a, mut b] = layers;
        f.layer_batch(self.action_weights, actions, state_part, a);
        let mut rest = self.trunk;
        for _ in 1..self.shape.layers {
            let weights = take(&mut rest, h * h);
            f.layer_batch(weights, a, take(&mut rest, h), b);
            core::mem::swap(&mut a, &mut b);
        }
        let mut q = [[0.0; LANES]];
        kernel::dense_batch(self.out_weights, a, &[self.out_bias], &mut q);
        q[0]
    }

    /// `Q(s, a)` and its gradient with respect to the action, into `gradient` (length `act`).
    pub fn value_and_gradient(
        &self,
        state_part: &[f32],
        action: &[f32],
        scratch: &mut CriticScratch<'_>,
        gradient: &mut [f32],
    ) -> f32 {
        let q = self.value(state_part, action, scratch);
        let (h, f) = (self.shape.hidden, self.shape.activation);
        let (mut upper, mut lower) = (&mut *scratch.a, &mut *scratch.b);
        upper.iter_mut().zip(self.out_weights).for_each(|(g, w)| *g = *w);
        let layers = scratch.pre.chunks_exact(h).take(self.shape.layers).enumerate().rev();
        for (layer, pre) in layers {
            for (g, z) in upper.iter_mut().zip(pre) {
                *g = math::flush(*g * f.derivative(*z));
            }
            if layer == 0 {
                kernel::gemv_transposed(self.action_weights, upper, gradient);
                gradient.iter_mut().for_each(|g| *g = math::flush(*g));
            } else {
                let weights = self.trunk.get((layer - 1) * (h + 1) * h..).unwrap_or(&[]);
                kernel::gemv_transposed(weights, upper, lower);
                core::mem::swap(&mut upper, &mut lower);
            }
        }
        q
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::{vec, vec::Vec};

    /// The value in f64, from the definition.
    fn reference(shape: &CriticShape, params: &[f32], s: &[f64], a: &[f64]) -> f64 {
        let mut at = 0;
        let mut h: Vec<f64> = s.iter().chain(a).copied().collect();
        for layer in 0..=shape.layers {
            let rows = if layer == shape.layers { 1 } else { shape.hidden };
            let bias = at + h.len() * rows;
            let next: Vec<f64> = (0..rows)
                .map(|i| {
                    let sum: f64 = h.iter().enumerate().map(|(j, v)| f64::from(params[at + j * rows + i]) * v).sum();
                    let z = f64::from(params[bias + i]) + sum;
                    match shape.activation {
                        _ if layer == shape.layers => z,
                        Activation::Relu => z.max(0.0),
                        Activation::TanhLibm | Activation::Tanh => z.tanh(),
                        Activation::SiluLibm | Activation::Silu => z / (1.0 + (-z).exp()),
                        Activation::GeluLibm | Activation::Gelu => {
                            let inner = (2.0 / core::f64::consts::PI).sqrt() * (z + 0.044715 * z * z * z);
                            0.5 * z * (1.0 + inner.tanh())
                        }
                    }
                })
                .collect();
            at = bias + rows;
            h = next;
        }
        h[0]
    }

    #[test]
    fn value_and_gradient_agree_with_f64_and_finite_differences() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(5);
        let mut uniform = |n: usize| -> Vec<f32> { (0..n).map(|_| math::symmetric_uniform(rng.next_u32())).collect() };
        for activation in Activation::ALL {
            for (layers, hidden) in [(1, 7), (2, 24), (3, 16)] {
                let shape = CriticShape { obs: 5, act: 3, hidden, layers, activation };
                let params = uniform(shape.params());
                let critic = Critic::new(shape, &params).unwrap();
                let (s, a) = (uniform(5), uniform(3));
                let mut part = vec![0.0; hidden];
                critic.state_part(&s, &mut part);
                let (mut pre, mut x, mut y) = (vec![0.0; layers * hidden], vec![0.0; hidden], vec![0.0; hidden]);
                let mut scratch = CriticScratch { pre: &mut pre, a: &mut x, b: &mut y };
                let mut gradient = [0.0; 3];
                let q = critic.value_and_gradient(&part, &a, &mut scratch, &mut gradient);
                assert_eq!(q.to_bits(), critic.value(&part, &a, &mut scratch).to_bits());
                let (s64, a64): (Vec<f64>, Vec<f64>) =
                    (s.iter().map(|v| f64::from(*v)).collect(), a.iter().map(|v| f64::from(*v)).collect());
                let exact = reference(&shape, &params, &s64, &a64);
                assert!((f64::from(q) - exact).abs() < 2e-5 * (1.0 + exact.abs()));
                for j in 0..3 {
                    // In f64 a step of 1e-6 has truncation and rounding errors near 1e-9; ReLU is piecewise
                    // linear and its kinks lie farther away than the step for these weights.
                    let shifted = |h: f64| {
                        let mut a = a64.clone();
                        a[j] += h;
                        reference(&shape, &params, &s64, &a)
                    };
                    let slope = (shifted(1e-6) - shifted(-1e-6)) / 2e-6;
                    assert!(
                        (f64::from(gradient[j]) - slope).abs() < 1e-4 * (1.0 + slope.abs()),
                        "{shape:?} {slope} {gradient:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn wrong_length_is_named() {
        let shape = CriticShape { obs: 1, act: 1, hidden: 2, layers: 2, activation: Activation::Relu };
        assert_eq!(
            Critic::new(shape, &[0.0; 3]).unwrap_err(),
            ShapeError::Parameters { expected: shape.params(), found: 3 }
        );
    }
}
