//! Activations and the two kinds of trunk, each with the number that names it in the artefact.
//!
//! Every activation ends under the subnormal rule of [`crate::math`]; NaN becomes zero, the same on all machines.
//! No panics, no allocation. Cost an element on a Cortex-M4F: ReLU about 4 instructions, the others some hundred
//! through `libm`.

use super::kernel::dense;
use crate::math;

/// Elementwise function after a hidden layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[repr(u32)]
pub enum Activation {
    /// `max(x, 0)`.
    #[default]
    Relu = 0,
    /// Hyperbolic tangent.
    Tanh = 1,
    /// `x sigmoid(x)`.
    Silu = 2,
    /// `x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`, the tanh form of Hendrycks and Gimpel (2016).
    Gelu = 3,
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
    /// The activation with this number in the artefact.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Relu),
            1 => Some(Self::Tanh),
            2 => Some(Self::Silu),
            3 => Some(Self::Gelu),
            _ => None,
        }
    }

    /// The name used in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Tanh => "tanh",
            Self::Silu => "silu",
            Self::Gelu => "gelu",
        }
    }

    /// A hidden layer: `y = f(W x + bias)` for a column-major `W`, under the subnormal rule.
    #[inline]
    pub(super) fn layer(self, w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32]) {
        match self {
            Self::Relu => dense(w, x, bias, y, math::relu),
            _ => dense(w, x, bias, y, |sum| math::flush(self.value(sum))),
        }
    }

    /// The function itself at `x`.
    pub fn value(self, x: f32) -> f32 {
        match self {
            Self::Relu => math::relu(x),
            Self::Tanh => math::tanh(x),
            Self::Silu => x * math::sigmoid(x),
            Self::Gelu => 0.5 * x * (1.0 + math::tanh(GELU_SLOPE * (x + GELU_CUBE * x * x * x))),
        }
    }

    /// The derivative at the pre-activation `x`; ReLU has slope zero at and below zero.
    pub fn derivative(self, x: f32) -> f32 {
        match self {
            Self::Relu => {
                if x >= math::FLUSH {
                    1.0
                } else {
                    0.0
                }
            }
            Self::Tanh => {
                let y = math::tanh(x);
                1.0 - y * y
            }
            Self::Silu => {
                let s = math::sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            }
            Self::Gelu => {
                let y = math::tanh(GELU_SLOPE * (x + GELU_CUBE * x * x * x));
                let inner = GELU_SLOPE * (1.0 + 3.0 * GELU_CUBE * x * x);
                0.5 * (1.0 + y) + 0.5 * x * (1.0 - y * y) * inner
            }
        }
    }
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
    const ALL: [Activation; 4] = [Activation::Relu, Activation::Tanh, Activation::Silu, Activation::Gelu];

    /// The same functions in f64, written from their definitions.
    fn reference(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Relu => x.max(0.0),
            Activation::Tanh => libm::tanh(x),
            Activation::Silu => x / (1.0 + libm::exp(-x)),
            Activation::Gelu => {
                let inner = (2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + libm::tanh(inner))
            }
        }
    }

    #[test]
    fn values_and_derivatives_agree_with_f64() {
        for activation in ALL {
            for i in -160..160 {
                let x = f64::from(i) * 0.0503 + 0.013;
                let value = f64::from(activation.value(x as f32));
                assert!((value - reference(activation, x)).abs() < 2e-6 * (1.0 + x.abs()), "{activation:?} {x}");
                // Central difference of the f64 reference: error h^2/6 f''' < 1e-9.
                let h = 1e-5;
                let slope = (reference(activation, x + h) - reference(activation, x - h)) / (2.0 * h);
                assert!((f64::from(activation.derivative(x as f32)) - slope).abs() < 5e-6, "{activation:?} {x}");
            }
        }
    }

    #[test]
    fn extreme_inputs_stay_defined_and_codes_round_trip() {
        for activation in ALL {
            for x in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e38, -1e38, 1e-40, -0.0] {
                let mut value = [0.0];
                activation.layer(&[], &[], &[x], &mut value);
                assert!(!value[0].is_nan() && !value[0].is_subnormal(), "{activation:?} {x}");
            }
            assert_eq!(Activation::from_code(activation as u32), Some(activation));
        }
        assert_eq!(Activation::from_code(4), None);
        assert_eq!(Trunk::from_code(2), None);
        assert_eq!(Trunk::from_code(Trunk::Residual as u32), Some(Trunk::Residual));
    }
}
