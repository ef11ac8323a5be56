//! Flowlet's own hyperbolic tangent, SiLU and GELU: rational functions in single precision.
//!
//! With `s = x^2` each is `tanh x = x N(s) / D(s)` or, for the gated ones, `x / 2 + s N(s) / D(s)`, with cubics N and D
//! that nearly minimise the largest error over the interval that needs them. Outside of it they are their limits. Only
//! `+ - * /` in one order and nothing fused: the same bits everywhere. No panics, no tables, no exponential.
//!
//! | function | error against f64, every finite input | interval |
//! |---|---|---|
//! | [`tanh`] | 1.7e-6, and 1.7e-6 of the value from 2^-49 up | below 7 |
//! | [`silu`] | 7e-7 (1 + abs x) | below 14.25 |
//! | [`gelu`] | 1.7e-6 (1 + abs x) | below 4.75 |
//!
//! The reference of [`gelu`] is its tanh form. `tanh` is odd to the bit and never above 1 in magnitude. NaN gives zero.
//! Results keep the subnormal rule of [`crate::math`]: they are zero or at least 2^-50 in magnitude, zero being what
//! arguments below 2^-49 give. A rounding may undo the order of two neighbouring arguments by as much as the error.
//!
//! Cost on a Cortex-M4F: 20 instructions or fewer an element inside a layer, one of them a division of 14 cycles.

/// The function is computed from this magnitude up; below it is zero. A result is then at least 2^-50.
pub(crate) const LEAST: u32 = (127 - 49) << 23;

const MAGNITUDE: u32 = 0x7fff_ffff;

/// `N(s) / D(s)` with `N = s^3 + n2 s^2 + n1 s + n0` and `D = d3 s^3 + d2 s^2 + d1 s + d0`, below `end`.
pub(crate) struct Rational {
    pub(crate) n: [f32; 3],
    pub(crate) d: [f32; 4],
    pub(crate) end: f32,
}

pub(crate) const TANH: Rational =
    Rational { n: [250_267.27, 30_838.04, 573.878_84], d: [250_267.52, 114_258.61, 5_293.533, 36.033_833], end: 7.0 };

pub(crate) const SILU: Rational = Rational {
    n: [16_807_502.0, 515_536.66, 2_362.558_3],
    d: [67_230_576.0, 7_664_301.0, 87_978.13, 146.462_27],
    end: 14.25,
};

pub(crate) const GELU: Rational =
    Rational { n: [15_147.879, 1_004.530_7, 127.506_68], d: [37_967.797, 8_885.196, 828.170_7, 36.997_33], end: 4.75 };

impl Rational {
    /// Whether the function is computed at `x`; else it is a limit, and never NaN's.
    #[inline(always)]
    const fn covers(&self, x: f32) -> bool {
        // One comparison for both ends and NaN: magnitudes are ordered as their bits.
        (x.to_bits() & MAGNITUDE).wrapping_sub(LEAST) < self.end.to_bits() - LEAST
    }

    /// Numerator and denominator at `s`. The square is shared, which leaves nine operations in three short chains.
    #[inline(always)]
    fn terms(&self, s: f32) -> (f32, f32) {
        let ([n0, n1, n2], [d0, d1, d2, d3]) = (self.n, self.d);
        let square = s * s;
        // Where a product of tiny arguments is subnormal, or is flushed, it is added to a coefficient and lost either way.
        let n = (n0 + n1 * s) + (n2 + s) * square;
        let d = (d0 + d1 * s) + (d2 + d3 * s) * square;
        (n, d)
    }

    /// `x / 2 + s N / D` where the function is computed, otherwise `max(x, 0)`.
    #[inline(always)]
    fn gated(&self, x: f32) -> f32 {
        if self.covers(x) {
            let s = x * x;
            let (n, d) = self.terms(s);
            0.5 * x + s * n / d
        } else if x >= self.end {
            x
        } else {
            0.0
        }
    }

    /// The gate, by which `x` is multiplied: `1 / 2 + x N / D`, otherwise 0 or 1.
    #[inline(always)]
    fn gate(&self, x: f32) -> f32 {
        if self.covers(x) {
            let (n, d) = self.terms(x * x);
            0.5 + x * n / d
        } else if x >= self.end {
            1.0
        } else if x <= -self.end {
            0.0
        } else {
            0.5
        }
    }
}

/// Hyperbolic tangent; see the [module](self) for the error.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    if TANH.covers(x) {
        let (n, d) = TANH.terms(x * x);
        x * n / d
    } else if x.abs() >= TANH.end {
        1f32.copysign(x)
    } else {
        0.0
    }
}

/// `x / (1 + e^-x)`; see the [module](self) for the error.
#[inline(always)]
pub fn silu(x: f32) -> f32 {
    SILU.gated(x)
}

/// `x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`; see the [module](self) for the error.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    GELU.gated(x)
}

/// The gate of [`silu`]: `1 / (1 + e^-x)`, to 1.1e-6.
#[inline]
pub fn silu_gate(x: f32) -> f32 {
    SILU.gate(x)
}

/// The gate of [`gelu`]: `(1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`, to 6e-6.
#[inline]
pub fn gelu_gate(x: f32) -> f32 {
    GELU.gate(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::{FLUSH, flush};

    /// The functions in f64, written from their definitions.
    fn gelu_gate64(x: f64) -> f64 {
        0.5 * (1.0 + libm::tanh((2.0 / core::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)))
    }

    fn silu_gate64(x: f64) -> f64 {
        1.0 / (1.0 + libm::exp(-x))
    }

    /// Both signs of every magnitude on a stride that shares no factor with the powers of two: 2.1 million arguments,
    /// 8,315 in every exponent, and the edges of the intervals.
    fn sweep() -> impl Iterator<Item = f32> {
        let edges = [TANH.end, SILU.end, GELU.end, f32::from_bits(LEAST), FLUSH, f32::MIN_POSITIVE, 0.0, f32::MAX];
        let near = edges.into_iter().flat_map(|x| [x.to_bits().saturating_sub(1), x.to_bits(), x.to_bits() + 1]);
        let magnitudes =
            (0..f32::INFINITY.to_bits()).step_by(1009).chain(near.filter(|bits| *bits < f32::INFINITY.to_bits()));
        magnitudes.map(f32::from_bits).flat_map(|x| [x, -x])
    }

    #[test]
    fn errors_keep_their_bounds_over_every_exponent() {
        for x in sweep() {
            let (wide, size) = (f64::from(x), 1.0 + f64::from(x.abs()));
            let exact = libm::tanh(wide);
            let error = (f64::from(tanh(x)) - exact).abs();
            assert!(error <= 1.7e-6, "tanh {x:e}: {error:e}");
            assert!(error <= 1.7e-6 * exact.abs() || x.to_bits() & MAGNITUDE < LEAST, "tanh {x:e}: {error:e}");
            let error = (f64::from(silu(x)) - wide * silu_gate64(wide)).abs();
            assert!(error <= 7e-7 * size, "SiLU {x:e}: {error:e}");
            let error = (f64::from(gelu(x)) - wide * gelu_gate64(wide)).abs();
            assert!(error <= 1.7e-6 * size, "GELU {x:e}: {error:e}");
            let error = (f64::from(silu_gate(x)) - silu_gate64(wide)).abs();
            assert!(error <= 1.1e-6, "gate of SiLU {x:e}: {error:e}");
            let error = (f64::from(gelu_gate(x)) - gelu_gate64(wide)).abs();
            assert!(error <= 6e-6, "gate of GELU {x:e}: {error:e}");
        }
    }

    #[test]
    fn results_keep_the_subnormal_rule_and_tanh_is_odd_and_bounded() {
        for x in sweep() {
            for y in [tanh(x), silu(x), gelu(x)] {
                assert_eq!(flush(y).to_bits(), y.to_bits(), "{x:e} gives {y:e}");
            }
            assert!(tanh(x).abs() <= 1.0, "{x:e}");
            // Zero has one sign.
            assert_eq!(tanh(-x), -tanh(x), "{x:e}");
        }
    }

    #[test]
    fn limits_and_nan_are_defined() {
        assert_eq!([f32::INFINITY, f32::NEG_INFINITY, 1e38, -1e38].map(tanh), [1.0, -1.0, 1.0, -1.0]);
        for f in [silu, gelu] {
            assert_eq!(
                [f32::INFINITY, f32::NEG_INFINITY, 1e38, -1e38].map(f).map(f32::to_bits),
                [f32::INFINITY, 0.0, 1e38, 0.0].map(f32::to_bits)
            );
        }
        for f in [tanh, silu, gelu] {
            assert_eq!([f32::NAN, -f32::NAN, 1e-40, -1e-40, 0.0, -0.0].map(f).map(f32::to_bits), [0; 6]);
        }
    }

    #[test]
    fn neighbouring_arguments_are_out_of_order_by_no_more_than_the_error() {
        let mut largest = [f32::NEG_INFINITY; 2];
        for x in (-4000..4000).map(|i| i as f32 * 0.004) {
            for (f, largest) in
                [tanh as fn(f32) -> f32, |x| if x < 0.0 { 0.0 } else { gelu(x) }].iter().zip(&mut largest)
            {
                let y = f(x);
                assert!(y >= *largest - 3.4e-6, "{x}: {y} after {largest}");
                *largest = largest.max(y);
            }
        }
    }
}
