//! Elementary functions, the subnormal rule and the digest: the arithmetic every other module stands on.
//!
//! Transcendental functions go through `libm`, or are flowlet's own where networks need them by the thousand
//! ([`activation`]), so the same input gives the same bits on a PC, with a hardware FPU and in soft float. Nothing here
//! allocates or panics, and nothing fuses a multiply with an add.
//!
//! **Subnormal rule.** Helium's vector floats flush subnormals to zero and IEEE machines do not. flowlet
//! therefore keeps them from arising: a value that crosses a layer boundary, a weight, a latent or an action is
//! zero or at least [`FLUSH`] = 2^-50 in magnitude, and a bias zero or at least [`FLUSH_BIAS`] = 2^-100. A product
//! of two such values is at least 2^-100 and a multiple of 2^-123, so is every partial sum of them with a bias,
//! and a non-zero multiple of 2^-123 is a normal number: flushing has nothing to act on.
//!
//! Cost on a Cortex-M4F: [`flush`] is a compare and a select; a transcendental is 50 to some hundred instructions.

pub mod activation;

pub use activation::{gelu, silu, tanh};

use core::f32::consts::{LN_2, PI};

/// Magnitude below which a value that crosses a layer boundary is zero: 2^-50.
pub const FLUSH: f32 = f32::from_bits((127 - 50) << 23);

/// Magnitude below which a bias is zero: 2^-100.
pub const FLUSH_BIAS: f32 = f32::from_bits((127 - 100) << 23);

/// `x`, or zero where `|x|` is below [`FLUSH`] or `x` is NaN. Never returns `-0.0` for a flushed value.
#[inline(always)]
pub fn flush(x: f32) -> f32 {
    if x.abs() >= FLUSH { x } else { 0.0 }
}

/// `x`, or zero where `|x|` is below [`FLUSH_BIAS`] or `x` is NaN.
#[inline(always)]
pub fn flush_bias(x: f32) -> f32 {
    if x.abs() >= FLUSH_BIAS { x } else { 0.0 }
}

/// `max(x, 0)` under the subnormal rule in one comparison; NaN gives zero.
#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x >= FLUSH { x } else { 0.0 }
}

/// `x` held in `[-limit, limit]`; NaN gives zero. `limit` must not be negative or NaN.
#[inline(always)]
pub fn clip(x: f32, limit: f32) -> f32 {
    if x > limit {
        limit
    } else if x < -limit {
        -limit
    } else if x.is_nan() {
        0.0
    } else {
        x
    }
}

/// Hyperbolic tangent through `libm`, for artefacts that name it; [`tanh`] takes a quarter of the instructions.
#[inline]
pub fn libm_tanh(x: f32) -> f32 {
    libm::tanhf(x)
}

/// Inverse hyperbolic tangent; infinite at -1 and 1.
#[inline]
pub fn atanh(x: f32) -> f32 {
    libm::atanhf(x)
}

/// `e^x`.
#[inline]
pub fn exp(x: f32) -> f32 {
    libm::expf(x)
}

/// Natural logarithm.
#[inline]
pub fn ln(x: f32) -> f32 {
    libm::logf(x)
}

/// `ln(1 + x)`, accurate for small `x`.
#[inline]
pub fn ln_1p(x: f32) -> f32 {
    libm::log1pf(x)
}

/// `e^x - 1`, accurate for small `x`.
#[inline]
pub fn exp_m1(x: f32) -> f32 {
    libm::expm1f(x)
}

/// The error function, `2/sqrt(pi)` times the integral of `e^(-s^2)` from 0 to `x`.
#[inline]
pub fn erf(x: f32) -> f32 {
    libm::erff(x)
}

/// `1 - erf(x)`, accurate where it is small.
#[inline]
pub fn erfc(x: f32) -> f32 {
    libm::erfcf(x)
}

/// Sine, `x` in radians.
#[inline]
pub fn sin(x: f32) -> f32 {
    libm::sinf(x)
}

/// Cosine, `x` in radians.
#[inline]
pub fn cos(x: f32) -> f32 {
    libm::cosf(x)
}

/// Square root, correctly rounded.
#[inline]
pub fn sqrt(x: f32) -> f32 {
    libm::sqrtf(x)
}

/// `1 / (1 + e^-x)`.
#[inline]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `ln sech^2(u) = -2 (ln(e^u + e^-u) - ln 2)`: the log-Jacobian of `tanh`, finite for every finite `u`.
#[inline]
pub fn ln_sech2(u: f32) -> f32 {
    let m = u.abs();
    -2.0 * (m + libm::log1pf(exp(-2.0 * m)) - LN_2)
}

/// `ln(e^a + e^b)` without overflow; the larger one where the other is `-inf`.
#[inline]
pub fn ln_add_exp(a: f32, b: f32) -> f32 {
    let (high, low) = if a >= b { (a, b) } else { (b, a) };
    if low == f32::NEG_INFINITY { high } else { high + libm::log1pf(exp(low - high)) }
}

/// Sine and cosine of `turns / 2^24` of a full turn; whole turns are left out.
///
/// The reduction to an eighth of a turn is exact in integers; Taylor polynomials of degree 9 and 10 follow, whose
/// truncation is below 2e-9. Error below 1.2e-7. Single-precision additions and multiplications only, so it costs about
/// 40 instructions with an FPU where a library's sine computes in double precision.
#[inline]
pub fn sin_cos_turn(turns: u32) -> (f32, f32) {
    const QUARTER: u32 = 1 << 22;
    // The nearest quarter turn, and what is left of it: from -1/8 to 1/8 of a turn.
    let turns = turns & ((1 << 24) - 1);
    let quarter = (turns + QUARTER / 2) >> 22;
    let rest = turns.wrapping_sub(quarter << 22) as i32;
    let x = rest as f32 * (2.0 * PI / (1 << 24) as f32);
    let s = x * x;
    let sin = x + x * s * (-1.0 / 6.0 + s * (1.0 / 120.0 + s * (-1.0 / 5040.0 + s * (1.0 / 362_880.0))));
    let cos =
        1.0 + s * (-0.5 + s * (1.0 / 24.0 + s * (-1.0 / 720.0 + s * (1.0 / 40_320.0 + s * (-1.0 / 3_628_800.0)))));
    match quarter & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// Sine and cosine of `x` radians in single-precision arithmetic alone.
///
/// Whole turns are taken off first, and what is left is rounded to 2^-24 of a turn for [`sin_cos_turn`]. Error below
/// 5e-7 + 1.2e-7 |x|; an argument of more than 2^23 turns counts as a whole number of them, and NaN as zero. About 55
/// instructions with an FPU, where a library's sine reduces its argument in double precision.
#[inline]
pub fn sin_cos(x: f32) -> (f32, f32) {
    let turns = x * (0.5 / PI);
    // Saturates, and gives zero for NaN; from 2^23 on there is no fraction to keep.
    let whole = turns as i32 as f32;
    let rest = turns - whole;
    // Less than a turn either way; what saturated is not.
    let rest = if rest.abs() < 1.0 { rest } else { 0.0 };
    let half = if rest < 0.0 { -0.5 } else { 0.5 };
    sin_cos_turn((rest * (1 << 24) as f32 + half) as i32 as u32)
}

/// Two independent standard normal numbers from 48 random bits (Box and Muller, 1958).
///
/// The first uniform lies in `(0, 1]`, so the logarithm is finite and the result at most 5.77 in magnitude.
#[inline]
pub fn box_muller(bits: [u32; 2]) -> [f32; 2] {
    const STEP: f32 = 1.0 / (1 << 24) as f32;
    let radius = sqrt(-2.0 * ln(((bits[0] >> 8) + 1) as f32 * STEP));
    let (sin, cos) = sin_cos_turn(bits[1] >> 8);
    [radius * cos, radius * sin]
}

/// A uniform number in `(-1, 1)`, symmetric about zero, from 24 random bits: the odd multiples of 2^-24.
#[inline]
pub fn symmetric_uniform(bits: u32) -> f32 {
    // 2k + 1 - 2^24 has at most 24 significant bits: the conversion is exact.
    let odd = 2 * (bits >> 8) as i32 + 1 - (1 << 24);
    odd as f32 * (1.0 / (1 << 24) as f32)
}

/// CRC-64/XZ over the little-endian bits of `f32` values: what a PC and a board compare to show that they agree.
///
/// ```
/// let mut digest = flowlet::math::Digest::new();
/// digest.update(&[1.0, -0.5]);
/// assert_eq!(digest.finish(), flowlet::math::Digest::of(&[1.0, -0.5]));
/// ```
pub struct Digest(crc::Digest<'static, u64, crc::NoTable>);

static CRC_64: crc::Crc<u64, crc::NoTable> = crc::Crc::<u64, crc::NoTable>::new(&crc::CRC_64_XZ);

impl Digest {
    /// The digest of nothing yet.
    pub fn new() -> Self {
        Self(CRC_64.digest())
    }

    /// Takes in `values` in order.
    pub fn update(&mut self, values: &[f32]) {
        for value in values {
            self.0.update(&value.to_bits().to_le_bytes());
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> u64 {
        self.0.finalize()
    }

    /// The digest of one slice.
    pub fn of(values: &[f32]) -> u64 {
        let mut digest = Self::new();
        digest.update(values);
        digest.finish()
    }
}

impl Default for Digest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn flush_keeps_the_threshold_and_zeroes_below_it() {
        assert_eq!(FLUSH, 2f32.powi(-50));
        assert_eq!(FLUSH_BIAS, 2f32.powi(-100));
        let below = f32::from_bits(FLUSH.to_bits() - 1);
        assert_eq!(flush(FLUSH), FLUSH);
        assert_eq!(flush(-FLUSH), -FLUSH);
        assert_eq!(flush(-below).to_bits(), 0);
        assert_eq!(flush(f32::NAN).to_bits(), 0);
        assert_eq!(relu(below), 0.0);
        assert_eq!(relu(f32::NAN), 0.0);
        assert_eq!(clip(f32::NAN, 2.0), 0.0);
        assert_eq!(clip(f32::INFINITY, 2.0), 2.0);
        assert_eq!(clip(f32::NEG_INFINITY, 2.0), -2.0);
    }

    #[test]
    fn ln_sech2_and_ln_add_exp_agree_with_f64() {
        for i in -400..=400 {
            let u = i as f32 * 0.05;
            let exact = -2.0 * (f64::from(u).cosh()).ln();
            assert!((f64::from(ln_sech2(u)) - exact).abs() <= 4e-7 * (1.0 + exact.abs()), "{u}");
        }
        assert!(ln_sech2(1e30).is_finite());
        assert_eq!(ln_add_exp(f32::NEG_INFINITY, 2.0), 2.0);
        assert_eq!(ln_add_exp(f32::NEG_INFINITY, f32::NEG_INFINITY), f32::NEG_INFINITY);
        assert!((ln_add_exp(1.0, 3.0) - (1f32.exp() + 3f32.exp()).ln()).abs() < 1e-6);
    }

    #[test]
    fn random_transforms_cover_their_range() {
        assert_eq!(symmetric_uniform(0), -symmetric_uniform(u32::MAX));
        assert!(symmetric_uniform(u32::MAX) < 1.0);
        assert!(atanh(symmetric_uniform(u32::MAX)).is_finite());
        assert!(box_muller([0, 0])[0] < 5.78);
        assert_eq!(box_muller([u32::MAX, 0])[0], 0.0);
    }

    #[test]
    fn sine_and_cosine_of_a_turn_agree_with_f64() {
        for turns in (0..1 << 24).step_by(997).chain([(1 << 24) - 1, 1 << 22, (1 << 21) - 1, 1 << 21, 3 << 21]) {
            let angle = f64::from(turns) / f64::from(1 << 24) * core::f64::consts::TAU;
            let (sin, cos) = sin_cos_turn(turns);
            assert!((f64::from(sin) - angle.sin()).abs() < 1.2e-7, "{turns}");
            assert!((f64::from(cos) - angle.cos()).abs() < 1.2e-7, "{turns}");
        }
    }

    #[test]
    fn sine_and_cosine_of_radians_agree_with_f64() {
        for i in -200_000..=200_000 {
            let x = i as f32 * 0.001_37;
            let (sin, cos) = sin_cos(x);
            let (exact_sin, exact_cos) = f64::from(x).sin_cos();
            let bound = 5e-7 + 1.2e-7 * f64::from(x.abs());
            assert!((f64::from(sin) - exact_sin).abs() < bound, "{x}: {sin} {exact_sin}");
            assert!((f64::from(cos) - exact_cos).abs() < bound, "{x}: {cos} {exact_cos}");
        }
        for x in [1e9, -1e30, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e-40] {
            let (sin, cos) = sin_cos(x);
            assert!(sin.abs() <= 1.0 && cos.abs() <= 1.0, "{x}");
        }
        assert_eq!(sin_cos(0.0), (0.0, 1.0));
    }

    #[test]
    fn digest_is_the_catalogued_crc_64() {
        // The check value of CRC-64/XZ in the CRC catalogue is that of the ASCII text "123456789"; the first
        // eight of its characters are two floats here, so the comparison is made with the crate's byte interface.
        let values = [f32::from_le_bytes(*b"1234"), f32::from_le_bytes(*b"5678")];
        let mut bytes = CRC_64.digest();
        bytes.update(b"12345678");
        assert_eq!(Digest::of(&values), bytes.finalize());
        assert_eq!(CRC_64.checksum(b"123456789"), 0x995d_c9bb_df19_39fa);
    }
}
