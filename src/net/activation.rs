//! Activations and the two kinds of trunk, each with the number that names it in the artefact.
//!
//! Every activation ends under the subnormal rule of [`crate::math`]; NaN becomes zero, the same on all machines.
//! No panics, no allocation. Cost an element on a Cortex-M4F: ReLU about 4 instructions, flowlet's own tanh, SiLU and
//! GELU at most 20, those through `libm` about a hundred.

use super::kernel::{self, LANES};
use crate::math::{self, activation as own};

/// Elementwise function after a hidden layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
pub enum Activation {
    /// `max(x, 0)`.
    #[default]
    Relu = 0,
    /// Hyperbolic tangent through `libm`.
    TanhLibm = 1,
    /// `x sigmoid(x)` through `libm`.
    SiluLibm = 2,
    /// `x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`, the tanh form of Hendrycks and Gimpel (2016), through `libm`.
    GeluLibm = 3,
    /// Hyperbolic tangent, [`math::tanh`].
    Tanh = 4,
    /// `x sigmoid(x)`, [`math::silu`].
    Silu = 5,
    /// The tanh form of GELU, [`math::gelu`].
    Gelu = 6,
}

/// How hidden layers after the first are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
pub enum Trunk {
    /// `h <- f(W h + b)`.
    #[default]
    Plain = 0,
    /// `h <- h + f(W h + b)`.
    Residual = 1,
}

const GELU_SLOPE: f32 = 0.797_884_6; // sqrt(2 / pi)
const GELU_CUBE: f32 = 0.044_715;

impl Activation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Relu, Self::TanhLibm, Self::SiluLibm, Self::GeluLibm, Self::Tanh, Self::Silu, Self::Gelu];

    /// The activation with this number in the artefact.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Relu),
            1 => Some(Self::TanhLibm),
            2 => Some(Self::SiluLibm),
            3 => Some(Self::GeluLibm),
            4 => Some(Self::Tanh),
            5 => Some(Self::Silu),
            6 => Some(Self::Gelu),
            _ => None,
        }
    }

    /// The name used in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::TanhLibm => "tanh-libm",
            Self::SiluLibm => "silu-libm",
            Self::GeluLibm => "gelu-libm",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
        }
    }

    /// A hidden layer: `y = f(W x + bias)` for a column-major `W`, under the subnormal rule.
    ///
    /// Slices of other lengths than `y.len() * x.len()` and `y.len()` leave out columns or rows, as in [`super::dense`].
    pub fn layer(self, w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32]) {
        if self == Self::Relu {
            kernel::dense_relu(w, x, bias, y);
        } else {
            kernel::dense(w, x, bias, y);
            self.apply(y);
        }
    }

    /// The same for [`LANES`] inputs at once: `x[j][p]` is input `j` of lane `p`, `y[i][p]` its output `i`. Each weight is
    /// read once for all lanes, and a lane has the bits of a layer of its own.
    pub fn layer_batch(self, w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]]) {
        if self == Self::Relu {
            kernel::dense_relu_batch(w, x, bias, y);
        } else {
            kernel::dense_batch(w, x, bias, y);
            self.apply(y.as_flattened_mut());
        }
    }

    /// `z = f(z)` for every element, under the subnormal rule.
    pub(crate) fn apply(self, z: &mut [f32]) {
        match self {
            Self::Relu => z.iter_mut().for_each(|z| *z = math::relu(*z)),
            Self::Tanh => kernel::tanh(z),
            Self::Silu => kernel::silu(z),
            Self::Gelu => kernel::gelu(z),
            // The reader refuses version 1 where its functions were left out of the image.
            Self::TanhLibm | Self::SiluLibm | Self::GeluLibm if !cfg!(feature = "version-1") => {}
            Self::TanhLibm | Self::SiluLibm | Self::GeluLibm => {
                z.iter_mut().for_each(|z| *z = math::flush(self.value(*z)));
            }
        }
    }

    /// The function itself at `x`.
    pub fn value(self, x: f32) -> f32 {
        match self {
            Self::Relu => math::relu(x),
            Self::TanhLibm => math::libm_tanh(x),
            Self::SiluLibm => x * math::sigmoid(x),
            Self::GeluLibm => 0.5 * x * (1.0 + math::libm_tanh(gelu_inner(x))),
            Self::Tanh => math::tanh(x),
            Self::Silu => math::silu(x),
            Self::Gelu => math::gelu(x),
        }
    }

    /// The derivative at the pre-activation `x`; ReLU has slope zero at and below zero.
    ///
    /// That of the function which flowlet's own ones approximate, computed from their values.
    pub fn derivative(self, x: f32) -> f32 {
        match self {
            Self::Relu => {
                if x >= math::FLUSH {
                    1.0
                } else {
                    0.0
                }
            }
            Self::TanhLibm | Self::Tanh => {
                let y = self.value(x);
                1.0 - y * y
            }
            Self::SiluLibm => silu_slope(x, math::sigmoid(x)),
            Self::Silu => silu_slope(x, own::silu_gate(x)),
            Self::GeluLibm => {
                let y = math::libm_tanh(gelu_inner(x));
                0.5 * (1.0 + y) + 0.5 * x * (1.0 - y * y) * gelu_inner_slope(x)
            }
            Self::Gelu => {
                let gate = own::gelu_gate(x);
                gate + 2.0 * x * gate * (1.0 - gate) * gelu_inner_slope(x)
            }
        }
    }
}

/// What GELU takes the tanh of.
fn gelu_inner(x: f32) -> f32 {
    GELU_SLOPE * (x + GELU_CUBE * x * x * x)
}

fn gelu_inner_slope(x: f32) -> f32 {
    GELU_SLOPE * (1.0 + 3.0 * GELU_CUBE * x * x)
}

fn silu_slope(x: f32, gate: f32) -> f32 {
    gate * (1.0 + x * (1.0 - gate))
}

impl Trunk {
    /// The trunk with this number in the artefact.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Plain),
            1 => Some(Self::Residual),
            _ => None,
        }
    }

    /// The name used in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Residual => "residual",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same functions in f64, written from their definitions.
    fn reference(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Relu => x.max(0.0),
            Activation::TanhLibm | Activation::Tanh => libm::tanh(x),
            Activation::SiluLibm | Activation::Silu => x / (1.0 + libm::exp(-x)),
            Activation::GeluLibm | Activation::Gelu => {
                let inner = (2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + libm::tanh(inner))
            }
        }
    }

    #[test]
    fn values_and_derivatives_agree_with_f64() {
        for activation in Activation::ALL {
            for i in -160..160 {
                let x = f64::from(i) * 0.0503 + 0.013;
                let value = f64::from(activation.value(x as f32));
                assert!((value - reference(activation, x)).abs() < 2e-6 * (1.0 + x.abs()), "{activation:?} {x}");
                // Central difference of the f64 reference: error h^2/6 f''' < 1e-9.
                let h = 1e-5;
                let slope = (reference(activation, x + h) - reference(activation, x - h)) / (2.0 * h);
                // A slope from a gate carries the gate's error times `1 + x` of SiLU, or the slope of GELU's inner cubic.
                let tolerance = match activation {
                    Activation::Silu => 1e-5,
                    Activation::Gelu => 6e-5,
                    _ => 5e-6,
                };
                assert!((f64::from(activation.derivative(x as f32)) - slope).abs() < tolerance, "{activation:?} {x}");
            }
        }
    }

    #[test]
    fn extreme_inputs_stay_defined_and_codes_round_trip() {
        for activation in Activation::ALL {
            for x in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e38, -1e38, 1e-40, -0.0] {
                let mut value = [0.0];
                activation.layer(&[], &[], &[x], &mut value);
                assert!(!value[0].is_nan() && !value[0].is_subnormal(), "{activation:?} {x}");
            }
            assert_eq!(Activation::from_code(activation as u32), Some(activation));
        }
        assert_eq!(Activation::from_code(7), None);
        assert_eq!(Trunk::from_code(2), None);
        assert_eq!(Trunk::from_code(Trunk::Residual as u32), Some(Trunk::Residual));
    }
}
