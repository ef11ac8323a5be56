//! The velocity network `v(x, t, s)` with its first layer split by input.
//!
//! `W_s s + b` is computed once a decision, `W_t te(t)` once for each evaluation time of a plan (it is a table),
//! and only `W_x x` belongs to every evaluation. A view over a flat parameter slice; no panics, no allocation,
//! the same bits everywhere.
//!
//! Multiply-accumulates an evaluation: `act H + (L - 1) H^2 + H act` for width `H` and `L` hidden layers; the split
//! saves `(obs + 2F) H` of them.

use super::kernel::{LANES, dense, dense_batch, gemv_add};
use super::{Activation, ShapeError, Trunk, dense_params, take};
use crate::math;

/// Sizes and kind of a velocity network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct VelocityShape {
    /// Number of observations.
    pub obs: usize,
    /// Number of actions, which is the dimension of the latent.
    pub act: usize,
    /// Width of every hidden layer.
    pub hidden: usize,
    /// Number of hidden layers, at least one.
    pub layers: usize,
    /// Number of time frequencies; the network sees twice as many time features.
    pub frequencies: usize,
    /// Function after each hidden layer.
    pub activation: Activation,
    /// How the hidden layers after the first are joined.
    pub trunk: Trunk,
}

impl VelocityShape {
    /// Number of parameters, in floats; `usize::MAX` where they cannot be counted.
    pub const fn params(&self) -> usize {
        let inputs = self.obs.saturating_add(self.act).saturating_add(self.frequencies.saturating_mul(2));
        dense_params(inputs, self.hidden, self.layers, self.act)
    }

    /// Multiply-accumulates of one evaluation, the cached state and time parts left out.
    pub const fn macs_per_evaluation(&self) -> usize {
        let trunk = self.layers.saturating_sub(1).saturating_mul(self.hidden);
        trunk.saturating_add(self.act.saturating_mul(2)).saturating_mul(self.hidden)
    }

    /// Multiply-accumulates of the state part of the first layer, once a decision.
    pub const fn macs_of_state_part(&self) -> usize {
        self.obs.saturating_mul(self.hidden)
    }

    /// Multiply-accumulates of the time part of the first layer, saved at each evaluation by the table.
    pub const fn macs_of_time_part(&self) -> usize {
        self.frequencies.saturating_mul(2).saturating_mul(self.hidden)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.obs == 0 || self.act == 0 || self.hidden == 0 || self.layers == 0
    }
}

/// A velocity network over parameters that live elsewhere.
///
/// Parameters, in order: `W_s` (obs columns), `W_x` (act columns), `W_t` (2F columns), `b`, all of `H` rows; then
/// `W`, `b` for each further hidden layer; then `W_out` (H columns of act rows) and `b_out`.
#[derive(Debug, Clone, Copy)]
pub struct VelocityNet<'a> {
    shape: VelocityShape,
    frequencies: &'a [f32],
    params: &'a [f32],
    state_weights: &'a [f32],
    latent_weights: &'a [f32],
    time_weights: &'a [f32],
    first_bias: &'a [f32],
    trunk: &'a [f32],
    out_weights: &'a [f32],
    out_bias: &'a [f32],
    features: TimeFeatures,
}

/// Whose sine and cosine make the time features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeFeatures {
    /// [`math::sin_cos`].
    Own,
    /// `libm`'s, which version 1 of the artefact means.
    #[cfg(feature = "version-1")]
    Libm,
}

impl<'a> VelocityNet<'a> {
    /// A view over `params`, laid out as above; `frequencies` in radians per unit of flow time.
    pub fn new(shape: VelocityShape, frequencies: &'a [f32], params: &'a [f32]) -> Result<Self, ShapeError> {
        if shape.is_empty() {
            return Err(ShapeError::Empty);
        }
        if frequencies.len() != shape.frequencies {
            return Err(ShapeError::Frequencies);
        }
        if params.len() != shape.params() {
            return Err(ShapeError::Parameters { expected: shape.params(), found: params.len() });
        }
        let (h, mut rest) = (shape.hidden, params);
        Ok(Self {
            shape,
            frequencies,
            params,
            state_weights: take(&mut rest, shape.obs * h),
            latent_weights: take(&mut rest, shape.act * h),
            time_weights: take(&mut rest, 2 * shape.frequencies * h),
            first_bias: take(&mut rest, h),
            trunk: take(&mut rest, (shape.layers - 1) * (h + 1) * h),
            out_weights: take(&mut rest, h * shape.act),
            out_bias: rest,
            features: TimeFeatures::Own,
        })
    }

    /// The same network with time features through `libm`, as version 1 of the artefact means them.
    #[cfg(feature = "version-1")]
    pub fn with_libm_features(self) -> Self {
        Self { features: TimeFeatures::Libm, ..self }
    }

    /// The shape the view was made with.
    pub fn shape(&self) -> &VelocityShape {
        &self.shape
    }

    /// The time frequencies, in radians per unit of flow time.
    pub fn frequencies(&self) -> &'a [f32] {
        self.frequencies
    }

    /// All parameters, in the order of the layout.
    pub fn params(&self) -> &'a [f32] {
        self.params
    }

    /// `out = W_s s + b` for a normalised observation `s`; `out` has width `H`.
    pub fn state_part(&self, s: &[f32], out: &mut [f32]) {
        dense(self.state_weights, s, self.first_bias, out);
    }

    /// `out = W_t te(t)` for the flow time `t`; `out` has width `H`.
    pub fn time_part(&self, t: f32, out: &mut [f32]) {
        out.fill(0.0);
        // A column a feature, in the order of the features, without room for the features themselves.
        let h = self.shape.hidden;
        for (j, column) in self.time_weights.chunks_exact(h.max(1)).enumerate() {
            gemv_add(column, &[self.features.component(self.frequencies, t, j)], out);
        }
    }

    /// `base = state part + time part`.
    pub fn join(&self, state: &[f32], time: &[f32], base: &mut [f32]) {
        for ((base, state), time) in base.iter_mut().zip(state).zip(time) {
            *base = state + time;
        }
    }

    /// `v = v(x, t, s)` from `base = state part + time part` (width `H`) and the latent `x`.
    ///
    /// `a` and `b` are scratch of width `H`. The result may be infinite or NaN when weights overflow.
    #[inline]
    pub fn velocity(&self, base: &[f32], x: &[f32], a: &mut [f32], b: &mut [f32], v: &mut [f32]) {
        let (h, f) = (self.shape.hidden, self.shape.activation);
        f.layer(self.latent_weights, x, base, a);
        let (mut a, mut b) = (a, b);
        let mut rest = self.trunk;
        for _ in 1..self.shape.layers {
            let weights = take(&mut rest, h * h);
            f.layer(weights, a, take(&mut rest, h), b);
            if self.shape.trunk == Trunk::Residual {
                for (sum, skip) in b.iter_mut().zip(a.iter()) {
                    *sum = math::flush(*sum + *skip);
                }
            }
            core::mem::swap(&mut a, &mut b);
        }
        dense(self.out_weights, a, self.out_bias, v);
    }

    /// [`velocity`](Self::velocity) at [`LANES`] latents of one state and time: `x[j][p]` is component `j` of latent `p`.
    /// Reads the weights once for all of them; the bits of each are those of `velocity`.
    pub fn velocity_batch(
        &self,
        base: &[f32],
        x: &[[f32; LANES]],
        a: &mut [[f32; LANES]],
        b: &mut [[f32; LANES]],
        v: &mut [[f32; LANES]],
    ) {
        let (h, f) = (self.shape.hidden, self.shape.activation);
        f.layer_batch(self.latent_weights, x, base, a);
        let (mut a, mut b) = (a, b);
        let mut rest = self.trunk;
        for _ in 1..self.shape.layers {
            let weights = take(&mut rest, h * h);
            f.layer_batch(weights, a, take(&mut rest, h), b);
            if self.shape.trunk == Trunk::Residual {
                for (sum, skip) in b.as_flattened_mut().iter_mut().zip(a.as_flattened()) {
                    *sum = math::flush(*sum + *skip);
                }
            }
            core::mem::swap(&mut a, &mut b);
        }
        dense_batch(self.out_weights, a, self.out_bias, v);
    }
}

impl TimeFeatures {
    /// Component `j` of the time features `[sin(f_0 t), .., sin(f_{F-1} t), cos(f_0 t), .., cos(f_{F-1} t)]`.
    pub(super) fn component(self, frequencies: &[f32], t: f32, j: usize) -> f32 {
        let n = frequencies.len();
        let (sine, place) = if j < n { (true, j) } else { (false, j - n) };
        let Some(f) = frequencies.get(place) else { return 0.0 };
        let (sin, cos) = match self {
            Self::Own => math::sin_cos(f * t),
            #[cfg(feature = "version-1")]
            Self::Libm => (math::sin(f * t), math::cos(f * t)),
        };
        math::flush(if sine { sin } else { cos })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::{vec, vec::Vec};

    const OMEGA: [f32; 3] = [1.0, 2.5, 7.0];

    /// The network as one writes it down: concatenated input, dense layers, f64.
    fn reference(shape: &VelocityShape, params: &[f32], s: &[f32], x: &[f32], t: f32) -> Vec<f64> {
        let mut at = 0;
        let mut matrix = |cols: usize, rows: usize| {
            let m: Vec<f64> = params[at..at + cols * rows].iter().map(|w| f64::from(*w)).collect();
            at += cols * rows;
            m
        };
        let phase: Vec<f64> = OMEGA.iter().map(|f| f64::from(f * t)).collect();
        let input: Vec<f64> = (s.iter().chain(x).map(|v| f64::from(*v)))
            .chain(phase.iter().map(|p| p.sin()))
            .chain(phase.iter().map(|p| p.cos()))
            .collect();
        let dense = |w: &[f64], b: &[f64], input: &[f64]| -> Vec<f64> {
            let rows = b.len();
            (0..rows).map(|i| b[i] + input.iter().enumerate().map(|(j, v)| w[j * rows + i] * v).sum::<f64>()).collect()
        };
        let f = |z: f64| f64::from(shape.activation.value(z as f32));
        let first = matrix(input.len(), shape.hidden);
        let bias = matrix(1, shape.hidden);
        let mut h: Vec<f64> = dense(&first, &bias, &input).into_iter().map(f).collect();
        for _ in 1..shape.layers {
            let (w, b) = (matrix(shape.hidden, shape.hidden), matrix(1, shape.hidden));
            let next: Vec<f64> = dense(&w, &b, &h).into_iter().map(f).collect();
            h = match shape.trunk {
                Trunk::Plain => next,
                Trunk::Residual => next.iter().zip(&h).map(|(a, b)| a + b).collect(),
            };
        }
        let (w, b) = (matrix(shape.hidden, shape.act), matrix(1, shape.act));
        dense(&w, &b, &h)
    }

    #[test]
    fn split_network_agrees_with_the_concatenated_one() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(11);
        let mut uniform = |n: usize| -> Vec<f32> { (0..n).map(|_| math::symmetric_uniform(rng.next_u32())).collect() };
        for activation in Activation::ALL {
            for trunk in [Trunk::Plain, Trunk::Residual] {
                for (layers, hidden) in [(1, 5), (2, 21), (3, 32)] {
                    let shape = VelocityShape { obs: 4, act: 2, hidden, layers, frequencies: 3, activation, trunk };
                    let params: Vec<f32> = uniform(shape.params()).iter().map(|w| w * 0.4).collect();
                    let (s, x, t) = (uniform(4), uniform(2), 0.37);
                    let net = VelocityNet::new(shape, &OMEGA, &params).unwrap();
                    let (mut base, mut time) = (vec![0.0; hidden], vec![0.0; hidden]);
                    net.state_part(&s, &mut base);
                    net.time_part(t, &mut time);
                    base.iter_mut().zip(&time).for_each(|(b, t)| *b += t);
                    let (mut a, mut b, mut v) = (vec![0.0; hidden], vec![0.0; hidden], [0.0; 2]);
                    net.velocity(&base, &x, &mut a, &mut b, &mut v);
                    for (got, exact) in v.iter().zip(reference(&shape, &params, &s, &x, t)) {
                        // f32 rounding through at most four layers of 38 terms below one.
                        assert!((f64::from(*got) - exact).abs() < 2e-5 * (1.0 + exact.abs()), "{shape:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn wrong_shapes_are_named() {
        let shape = VelocityShape {
            obs: 1,
            act: 1,
            hidden: 2,
            layers: 1,
            frequencies: 3,
            activation: Activation::Relu,
            trunk: Trunk::Plain,
        };
        let params = vec![0.0; shape.params() + 1];
        assert_eq!(
            VelocityNet::new(shape, &OMEGA, &params).unwrap_err(),
            ShapeError::Parameters { expected: shape.params(), found: shape.params() + 1 }
        );
        assert_eq!(VelocityNet::new(shape, &OMEGA[..2], &params[1..]).unwrap_err(), ShapeError::Frequencies);
        assert_eq!(
            VelocityNet::new(VelocityShape { layers: 0, ..shape }, &OMEGA, &params).unwrap_err(),
            ShapeError::Empty
        );
    }
}
