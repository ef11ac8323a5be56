//! Source distributions: sampler, quantile map, log-density and score of one component.
//!
//! Random numbers are drawn as 32-bit words in a fixed order and number, so a seed gives the same noise on every
//! machine. Every distribution is symmetric about zero and has independent components. No panics, no allocation.
//!
//! Cost of a component on a Cortex-M4F, in elementary functions: Gaussian half a logarithm, root, sine and cosine;
//! Laplace a logarithm; logistic a logarithm or an `atanh`; uniform none; truncated Gaussian an error function, and in
//! the tails its complement, a logarithm and a root as well; Student-t a logarithm, `expm1`, a root and a sine.

use crate::math;
use core::f32::consts::{FRAC_1_SQRT_2, FRAC_PI_2, LN_2};
use rand_core::Rng;

const HALF_LN_2PI: f32 = 0.918_938_5;

/// Smallest distance of a uniform coordinate from the ends of (0, 1): 2^-25, that of a sampler's word.
const TAIL_MIN: f32 = 1.0 / (1 << 25) as f32;

/// Distribution of `X_0`, with independent components.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Source {
    /// Standard normal.
    #[default]
    Gaussian,
    /// Density `e^-|z| / 2`.
    Laplace,
    /// Density `e^-z / (1 + e^-z)^2`.
    Logistic,
    /// Student's t of unit scale.
    StudentT {
        /// Degrees of freedom, 0.5 to 2^20.
        dof: f32,
    },
    /// Uniform on (-1, 1).
    Uniform,
    /// Standard normal, given that `|z| < bound`.
    TruncatedGaussian {
        /// Half-width of the support, 1/64 to 64.
        bound: f32,
    },
}

/// Why a source is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SourceError {
    /// No source has this number.
    Code,
    /// A parameter that is not zero, where the source has none.
    Parameter,
    /// The degrees of freedom are not in `[0.5, 2^20]`.
    Dof,
    /// The bound is not in `[1/64, 64]`.
    Bound,
}

/// A uniform coordinate folded at 1/2: the distance from the nearer end of (0, 1), and the side.
#[derive(Clone, Copy)]
struct Folded {
    /// In `[2^-25, 1/2]`.
    tail: f32,
    /// -1 or 1.
    sign: f32,
}

impl Folded {
    const CENTRE: Self = Self { tail: 0.5, sign: 1.0 };

    /// A coordinate outside (0, 1) counts as the end it lies beyond, NaN as 1/2.
    fn new(u: f32) -> Self {
        if u.is_nan() {
            return Self::CENTRE;
        }
        let (tail, sign) = if u < 0.5 { (u, -1.0) } else { (1.0 - u, 1.0) };
        Self { tail: if tail >= TAIL_MIN { tail } else { TAIL_MIN }, sign }
    }

    /// The centre of the cell of width 2^-24 that the word's upper bits name; complementing the word mirrors it.
    fn from_word(word: u32) -> Self {
        let s = math::symmetric_uniform(word);
        Self { tail: 0.5 * (1.0 - s.abs()), sign: if s < 0.0 { -1.0 } else { 1.0 } }
    }

    /// `|2u - 1|`.
    fn width(self) -> f32 {
        1.0 - 2.0 * self.tail
    }
}

impl Source {
    /// Number of the source in the artefact.
    pub const fn code(self) -> u32 {
        match self {
            Self::Gaussian => 0,
            Self::Laplace => 1,
            Self::Logistic => 2,
            Self::StudentT { .. } => 3,
            Self::Uniform => 4,
            Self::TruncatedGaussian { .. } => 5,
        }
    }

    /// Its parameter there: degrees of freedom or bound, 0 where there is none.
    pub const fn parameter(self) -> f32 {
        match self {
            Self::StudentT { dof } => dof,
            Self::TruncatedGaussian { bound } => bound,
            _ => 0.0,
        }
    }

    /// The source with this number and parameter in the artefact, checked.
    pub fn from_code(code: u32, parameter: f32) -> Result<Self, SourceError> {
        let source = match code {
            0 => Self::Gaussian,
            1 => Self::Laplace,
            2 => Self::Logistic,
            3 => Self::StudentT { dof: parameter },
            4 => Self::Uniform,
            5 => Self::TruncatedGaussian { bound: parameter },
            _ => return Err(SourceError::Code),
        };
        source.check()?;
        if source.parameter().to_bits() == parameter.to_bits() { Ok(source) } else { Err(SourceError::Parameter) }
    }

    /// The name used on the command line and in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gaussian => "gaussian",
            Self::Laplace => "laplace",
            Self::Logistic => "logistic",
            Self::StudentT { .. } => "student-t",
            Self::Uniform => "uniform",
            Self::TruncatedGaussian { .. } => "truncated-gaussian",
        }
    }

    /// Checks the parameter; every other function expects one that passes.
    pub fn check(self) -> Result<(), SourceError> {
        match self {
            Self::StudentT { dof } if !(0.5..=1_048_576.0).contains(&dof) => Err(SourceError::Dof),
            Self::TruncatedGaussian { bound } if !(0.015_625..=64.0).contains(&bound) => Err(SourceError::Bound),
            _ => Ok(()),
        }
    }

    /// Half-width of the support of a component; infinite for an unbounded one.
    pub const fn support(self) -> f32 {
        match self {
            Self::Uniform => 1.0,
            Self::TruncatedGaussian { bound } => bound,
            _ => f32::INFINITY,
        }
    }

    /// Fills `out` with independent draws, under the subnormal rule.
    ///
    /// A Gaussian takes two words of `rng` for each pair of components ([`math::box_muller`]), an odd last one taking
    /// a pair of its own. Every other source takes [`coordinates`](Self::coordinates) words a component, each of
    /// which stands for the uniform coordinate `((word >> 8) + 1/2) / 2^24` of [`from_uniform`](Self::from_uniform).
    pub fn sample<R: Rng + ?Sized>(self, rng: &mut R, out: &mut [f32]) {
        // Without the others their functions are left out of an image; no artefact with one is accepted then.
        if self == Self::Gaussian || !cfg!(feature = "sources") {
            for pair in out.chunks_mut(2) {
                let first = rng.next_u32();
                let normal = math::box_muller([first, rng.next_u32()]);
                for (value, z) in pair.iter_mut().zip(normal) {
                    *value = math::flush(z);
                }
            }
            return;
        }
        for value in out {
            let first = rng.next_u32();
            let second = if self.coordinates() == 2 { rng.next_u32() } else { 0 };
            *value = self.of_words([first, second]);
        }
    }

    /// Uniform coordinates, or words, that a component needs: 2 for Student-t, else 1.
    pub const fn coordinates(self) -> usize {
        match self {
            Self::StudentT { .. } => 2,
            _ => 1,
        }
    }

    /// One component from [`coordinates`](Self::coordinates) uniform numbers in (0, 1), under the subnormal rule; `u`
    /// in place of `1 - u` mirrors it. For quasi-random numbers.
    ///
    /// The quantile function (Gaussian: Wichura 1988, algorithm AS 241, PPND7), except for Student-t: Bailey's
    /// polar method (1994), its radius a function of `|2 u_0 - 1|` and its angle half a turn, so that it mirrors too.
    /// Coordinates are held 2^-25 away from 0 and 1; a missing or NaN one counts as 1/2.
    pub fn from_uniform(self, u: &[f32]) -> f32 {
        let coordinate = |i| u.get(i).map_or(Folded::CENTRE, |u| Folded::new(*u));
        self.transform(coordinate(0), coordinate(1))
    }

    /// The same from the upper 24 bits of words; the second word is used by Student-t alone.
    pub(super) fn of_words(self, words: [u32; 2]) -> f32 {
        let [first, second] = words.map(Folded::from_word);
        self.transform(first, second)
    }

    fn transform(self, u: Folded, v: Folded) -> f32 {
        let magnitude = match self {
            Self::Gaussian => normal_quantile(0.5 * u.width(), || u.tail),
            Self::Laplace => -math::ln(2.0 * u.tail),
            // In the tail 1 - 2 tail would round what the logarithm sees, near the centre (1 - tail) / tail would.
            Self::Logistic if u.tail < 0.25 => math::ln((1.0 - u.tail) / u.tail),
            Self::Logistic => 2.0 * math::atanh(u.width()),
            Self::Uniform => u.width(),
            Self::StudentT { dof } => {
                let radius = math::sqrt(dof * math::exp_m1(math::ln(2.0 * u.tail) * (-2.0 / dof)));
                return math::flush(v.sign * (radius * math::sin(FRAC_PI_2 * v.width())));
            }
            Self::TruncatedGaussian { bound } => {
                let edge = bound * FRAC_1_SQRT_2;
                // Both terms of the tail are positive: nothing cancels where the bound is far out.
                let tail = || u.tail + 0.5 * u.width() * math::erfc(edge);
                let z = normal_quantile(0.5 * u.width() * math::erf(edge), tail);
                // Rounding must not reach the end of the support.
                z.min(f32::from_bits(bound.to_bits().saturating_sub(1)))
            }
        };
        math::flush(u.sign * magnitude)
    }

    /// Natural logarithm of the density of one component at a finite `z`; `-inf` outside the support.
    pub fn log_density(self, z: f32) -> f32 {
        match self {
            Self::Gaussian => -0.5 * z * z - HALF_LN_2PI,
            Self::Laplace => -z.abs() - LN_2,
            Self::Logistic => -z.abs() - 2.0 * math::ln_1p(math::exp(-z.abs())),
            Self::StudentT { dof } => {
                let ratio = z.abs() / math::sqrt(dof);
                // Beyond 2^12 the one in ln(1 + ratio^2) is lost, and a little further the square overflows.
                let ln = if ratio < 4096.0 { math::ln_1p(ratio * ratio) } else { 2.0 * math::ln(ratio) };
                student_log_normalizer(dof) - 0.5 * (dof + 1.0) * ln
            }
            Self::Uniform if z.abs() < 1.0 => -LN_2,
            Self::TruncatedGaussian { bound } if z.abs() < bound => {
                -0.5 * z * z - HALF_LN_2PI - math::ln(math::erf(bound * FRAC_1_SQRT_2))
            }
            Self::Uniform | Self::TruncatedGaussian { .. } => f32::NEG_INFINITY,
        }
    }

    /// Derivative of [`log_density`](Self::log_density) at a finite `z`; 0 outside the support and at Laplace's cusp.
    pub fn score(self, z: f32) -> f32 {
        match self {
            Self::Gaussian => -z,
            Self::Laplace if z != 0.0 => -z.signum(),
            Self::Logistic => -math::tanh(0.5 * z),
            Self::StudentT { dof } => -(dof + 1.0) * (z / (dof + z * z)),
            Self::TruncatedGaussian { bound } if z.abs() < bound => -z,
            Self::Laplace | Self::Uniform | Self::TruncatedGaussian { .. } => 0.0,
        }
    }
}

/// The `z >= 0` below which the standard normal has the probability `1/2 + q`, and beyond which `tail()` = `1/2 - q`
/// (asked for only where `q` is too coarse). Relative error below 4e-7.
///
/// Rational approximations of Wichura 1988 (AS 241, PPND7); its third, for tails below e^-25, is not reached by tails
/// of 2^-25.
fn normal_quantile(q: f32, tail: impl FnOnce() -> f32) -> f32 {
    let horner = |coefficients: [f32; 4], r: f32| coefficients.iter().fold(0.0, |sum, c| sum * r + c);
    if q <= 0.425 {
        let r = 0.180_625 - q * q;
        let above = horner([59.109_375, 159.291_13, 50.434_27, 3.387_132_7], r);
        q * above / horner([67.187_56, 78.757_76, 17.895_17, 1.0], r)
    } else {
        let r = math::sqrt(-math::ln(tail())) - 1.6;
        let above = horner([0.170_238_21, 1.306_728_5, 2.756_815_4, 1.423_437_3], r);
        above / horner([0.0, 0.120_211_33, 0.737_001_64, 1.0], r)
    }
}

/// `ln(Gamma((dof + 1)/2) / (Gamma(dof/2) sqrt(pi dof)))`.
///
/// The asymptotic series of `ln(Gamma(x + 1/2) / Gamma(x)) - ln(x)/2` (Tricomi and Erdelyi 1951) at `x >= 4`, to which
/// `Gamma(x + 1) = x Gamma(x)` raises a smaller `x`. Differences of two log-gammas would cancel.
fn student_log_normalizer(dof: f32) -> f32 {
    let start = 0.5 * dof;
    let (mut x, mut product) = (start, 1.0);
    // Four turns are enough for the smallest lawful dof, 0.5.
    for _ in 0..4 {
        if x < 4.0 {
            product *= 1.0 + 0.5 / x;
            x += 1.0;
        }
    }
    let inverse = 1.0 / x;
    let square = inverse * inverse;
    // The next term is below 1e-7.
    let series = inverse * (-1.0 / 8.0 + square * (1.0 / 192.0 + square * (-1.0 / 640.0)));
    series - HALF_LN_2PI + math::ln(math::sqrt(x / start) / product)
}

impl core::fmt::Display for SourceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Code => "there is no source with this number",
            Self::Parameter => "this source has no parameter: it must be zero",
            Self::Dof => "the degrees of freedom must lie in [0.5, 2^20]",
            Self::Bound => "the bound of the truncated Gaussian must lie in [1/64, 64]",
        })
    }
}

impl core::error::Error for SourceError {}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::{vec, vec::Vec};

    const ALL: [Source; 11] = [
        Source::Gaussian,
        Source::Laplace,
        Source::Logistic,
        Source::StudentT { dof: 0.5 },
        Source::StudentT { dof: 1.0 },
        Source::StudentT { dof: 4.5 },
        Source::StudentT { dof: 1e5 },
        Source::Uniform,
        Source::TruncatedGaussian { bound: 0.5 },
        Source::TruncatedGaussian { bound: 2.0 },
        Source::TruncatedGaussian { bound: 9.0 },
    ];

    /// The density by quadrature, on a grid that is uniform inside a bounded support and else widens as a sinh: points,
    /// and the integrals up to them of `density z^power`.
    fn cumulative(source: Source, power: i32) -> (Vec<f64>, Vec<f64>) {
        const N: usize = 40_000;
        let b = f64::from(source.support());
        let place = |w: f64| if b.is_finite() { (b * w, b) } else { ((44.0 * w).sinh(), 44.0 * (44.0 * w).cosh()) };
        let (mut points, mut sums, mut sum) = (vec![-b.min(1e30)], vec![0.0], 0.0);
        for i in 0..N {
            // The midpoint rule: no value is needed at the ends of a bounded support.
            let (z, slope) = place((2.0 * i as f64 + 1.0) / N as f64 - 1.0);
            sum += 2.0 / N as f64 * slope * f64::from(source.log_density(z as f32)).exp() * z.powi(power);
            points.push(place(2.0 * (i as f64 + 1.0) / N as f64 - 1.0).0);
            sums.push(sum);
        }
        (points, sums)
    }

    fn draws(source: Source, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        source.sample(&mut Xoshiro128PlusPlus::seed_from_u64(1), &mut out);
        out
    }

    #[test]
    fn densities_integrate_to_one() {
        for source in ALL {
            let mass = *cumulative(source, 0).1.last().unwrap();
            // The rounding of a logarithm as large as (dof + 1)/2 ln(..) is what is left: 1e5 / 2 times 1e-11.
            assert!((mass - 1.0).abs() < 2e-6, "{source:?}: {mass}");
        }
        // Closed forms of Student-t at the centre: Cauchy, two, three and four degrees of freedom.
        let pi = core::f64::consts::PI;
        for (dof, centre) in
            [(1.0, 1.0 / pi), (2.0, 8f64.sqrt().recip()), (3.0, 2.0 / (pi * 3f64.sqrt())), (4.0, 0.375)]
        {
            let found = f64::from(Source::StudentT { dof }.log_density(0.0));
            assert!((found - centre.ln()).abs() < 3e-7, "{dof}: {found} {}", centre.ln());
        }
    }

    #[test]
    fn samples_follow_the_density() {
        // Kolmogorov and Smirnov: 1.95 / sqrt(N) is passed by one in a thousand seeds.
        const N: usize = 40_000;
        for source in ALL {
            let (points, sums) = cumulative(source, 0);
            let mut values = draws(source, N);
            values.sort_by(f32::total_cmp);
            let mut distance = 0.0f64;
            for (i, z) in values.iter().enumerate() {
                let z = f64::from(*z);
                let after = points.partition_point(|p| *p <= z).clamp(1, points.len() - 1);
                let share = ((z - points[after - 1]) / (points[after] - points[after - 1])).clamp(0.0, 1.0);
                let cdf = sums[after - 1] + share * (sums[after] - sums[after - 1]);
                distance = distance.max((cdf - i as f64 / N as f64).abs()).max((cdf - (i + 1) as f64 / N as f64).abs());
            }
            assert!(distance < 1.95 / (N as f64).sqrt(), "{source:?}: {distance}");
        }
    }

    #[test]
    fn samples_have_the_moments_of_the_density() {
        const N: usize = 200_000;
        for source in ALL {
            if matches!(source, Source::StudentT { dof } if dof < 4.5) {
                // No variance.
                continue;
            }
            let values: Vec<f64> = draws(source, N).iter().map(|z| f64::from(*z)).collect();
            for power in 1..=2 {
                let exact = |power| *cumulative(source, power).1.last().unwrap();
                let mean = values.iter().map(|z| z.powi(power)).sum::<f64>() / N as f64;
                let error = ((exact(2 * power) - exact(power).powi(2)) / N as f64).sqrt();
                // Five standard errors.
                assert!((mean - exact(power)).abs() < 5.0 * error, "{source:?}: {power}: {mean} {}", exact(power));
            }
            let product = values.chunks_exact(2).map(|z| z[0] * z[1]).sum::<f64>() / (N / 2) as f64;
            let variance = *cumulative(source, 2).1.last().unwrap();
            assert!(product.abs() < 5.0 * variance / ((N / 2) as f64).sqrt(), "{source:?}: {product}");
        }
    }

    /// The probability above `z` by Simpson's rule.
    fn tail(source: Source, z: f32) -> f64 {
        const N: usize = 4000;
        let (low, high) = (f64::from(z), f64::from(source.support().min(z + 60.0)));
        let density = |i: usize| {
            // Just inside: the density is zero on the boundary itself.
            let z = (low + (high - low) * i as f64 / N as f64).min(high * (1.0 - 1e-7));
            f64::from(source.log_density(z as f32)).exp()
        };
        let sum: f64 = (0..N).step_by(2).map(|i| density(i) + 4.0 * density(i + 1) + density(i + 2)).sum();
        sum * (high - low) / (3.0 * N as f64)
    }

    #[test]
    fn the_quantile_map_inverts_the_distribution() {
        for source in ALL {
            if source.coordinates() == 2 {
                continue;
            }
            for i in 0..100 {
                // Distances 0.5 to 2^-25 from the upper end; below 2^-24 the coordinate of the lower end is exact.
                let p = 0.5f32 * (-0.01 * i as f32 * 24.0 * LN_2).exp();
                let z = -source.from_uniform(&[p]);
                let found = tail(source, z);
                // 5.4 is the largest hazard rate here (Gaussian at 2^-25); z is known to 4e-7 of up to 5.4. Against a
                // close boundary the tail is no wider than the last bits of z.
                let cell = f64::from(source.log_density(z)).exp() * 3e-7 * f64::from(z.abs());
                let limit = 2e-5 * f64::from(p) + if source.support().is_finite() { cell } else { 0.0 };
                assert!((found - f64::from(p)).abs() < limit, "{source:?}: {p}: {z} {found}");
            }
        }
    }

    #[test]
    fn the_normal_quantile_agrees_with_published_values() {
        // Five quantiles as printed in tables of the normal distribution.
        for (p, z) in
            [(0.05, 1.644_853_6), (0.025, 1.959_964), (0.005, 2.575_829_3), (1e-4, 3.719_016_5), (1e-6, 4.753_424)]
        {
            let found = -Source::Gaussian.from_uniform(&[p]);
            // The last bit of p at 0.05 moves z by 4e-8; the approximation is good for 4e-7.
            assert!((found - z).abs() < 4e-7 * z, "{p}: {found}");
        }
    }

    #[test]
    fn student_t_is_a_radius_times_a_cosine() {
        // Bailey 1994: the pair of which a component is the projection has P(R > r) = (1 + r^2 / dof)^(-dof / 2), and
        // a uniform angle; here from a fold of the first coordinate, so P = 2 u.
        for dof in [0.5f32, 1.0, 4.5, 300.0] {
            let source = Source::StudentT { dof };
            for i in 1..30 {
                let u = 0.5 * (-0.5 * i as f32).exp();
                let r = f64::from(source.from_uniform(&[u, 1.0]));
                let beyond = (1.0 + r * r / f64::from(dof)).powf(-0.5 * f64::from(dof));
                // The rounding of ln(2 u), as large as 15, by which the radius depends on u.
                assert!((beyond / (2.0 * f64::from(u)) - 1.0).abs() < 5e-6, "{dof} {u}: {r} {beyond}");
                for v in [0.1f32, 0.4, 0.5, 0.9] {
                    let projection = f64::from(source.from_uniform(&[u, v])) / r;
                    let exact = -(core::f64::consts::PI * f64::from(v)).cos();
                    assert!((projection - exact).abs() < 3e-7, "{dof} {u} {v}: {projection}");
                }
            }
        }
    }

    #[test]
    fn complements_mirror_and_ends_are_finite() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(3);
        for source in ALL {
            for _ in 0..1000 {
                let words = [rng.next_u32(), rng.next_u32()];
                assert_eq!(source.of_words(words), -source.of_words(words.map(|w| !w)), "{source:?}");
                let u = words.map(|w| ((w >> 9) * 2 + 1) as f32 / (1 << 24) as f32);
                assert_eq!(source.from_uniform(&u), -source.from_uniform(&u.map(|u| 1.0 - u)), "{source:?}");
            }
            for u in [0.0, 1.0, -3.0, 7.0, f32::NAN, f32::INFINITY, 1e-30, 0.5] {
                for v in [0.0, 1.0, f32::NAN, 0.25] {
                    let z = source.from_uniform(&[u, v]);
                    assert!(z.is_finite() && z.abs() < source.support(), "{source:?}: {u} {v}: {z}");
                    assert!(source.log_density(z).is_finite() && source.score(z).is_finite(), "{source:?}: {z}");
                }
            }
            assert_eq!(source.from_uniform(&[]), 0.0);
        }
    }

    #[test]
    fn scores_are_the_slopes_of_the_log_densities() {
        for source in ALL {
            let edge = source.support().min(30.0) - 0.05;
            for i in -100..100 {
                let z = edge * (i as f32 + 0.5) / 100.0;
                let h = 0.02;
                if matches!(source, Source::Laplace) && z.abs() < 2.0 * h {
                    continue;
                }
                let slope = (source.log_density(z + h) - source.log_density(z - h)) / (2.0 * h);
                // Rounding of values of size |log p| over 2h, and h^2/6 times third derivatives below 12 (those of
                // Student-t with half a degree of freedom).
                let limit = 3e-7 * source.log_density(z).abs().max(1.0) / h + h * h * 2.0;
                assert!((slope - source.score(z)).abs() < limit, "{source:?}: {z}: {slope} {}", source.score(z));
            }
        }
    }

    #[test]
    fn the_density_ends_at_the_boundary() {
        for source in [Source::Uniform, Source::TruncatedGaussian { bound: 2.0 }] {
            let b = source.support();
            let inside = f32::from_bits(b.to_bits() - 1);
            assert!(source.log_density(inside).is_finite() && source.log_density(-inside).is_finite());
            for outside in [b, -b, 2.0 * b, f32::INFINITY, f32::NAN] {
                assert_eq!((source.log_density(outside), source.score(outside)), (f32::NEG_INFINITY, 0.0));
            }
            assert!(draws(source, 100_000).iter().all(|z| z.abs() < b));
        }
        // The quantile's rounding would reach the ends of narrow supports.
        for i in 0..1000 {
            let bound = 1.0 / 64.0 + i as f32 * 1.3e-3;
            let z = Source::TruncatedGaussian { bound }.from_uniform(&[1.0]);
            assert!(z < bound && z > 0.999_999 * bound, "{bound}: {z}");
        }
        // The far tail of a heavy source, where the square overflows: ln p = ln c - (dof + 1) ln|z| for dof = 1.
        let far = Source::StudentT { dof: 1.0 }.log_density(1e30);
        assert!((far - (-core::f32::consts::PI.ln() - 2.0 * 1e30f32.ln())).abs() < 1e-4, "{far}");
        assert_eq!(Source::StudentT { dof: 1.0 }.score(1e30), 0.0);
        assert_eq!(Source::Laplace.score(0.0), 0.0);
    }

    #[test]
    fn every_source_draws_a_fixed_number_of_words() {
        for source in ALL {
            for n in [0, 1, 2, 3] {
                let mut a = Xoshiro128PlusPlus::seed_from_u64(9);
                let mut b = a.clone();
                source.sample(&mut a, &mut vec![0.0; n]);
                let words = if source == Source::Gaussian { n + n % 2 } else { n * source.coordinates() };
                for _ in 0..words {
                    b.next_u32();
                }
                assert_eq!(a.next_u32(), b.next_u32(), "{source:?}: {n}");
            }
        }
    }

    #[test]
    fn codes_are_unique_and_bad_parameters_are_named() {
        for source in ALL {
            assert_eq!(Source::from_code(source.code(), source.parameter()), Ok(source));
        }
        for (code, parameter, error) in [
            (6, 0.0, SourceError::Code),
            (u32::MAX, f32::NAN, SourceError::Code),
            (0, 1.0, SourceError::Parameter),
            (1, f32::NAN, SourceError::Parameter),
            (4, -0.0, SourceError::Parameter),
            (3, 0.0, SourceError::Dof),
            (3, 0.49, SourceError::Dof),
            (3, f32::NAN, SourceError::Dof),
            (3, f32::INFINITY, SourceError::Dof),
            (5, 0.0, SourceError::Bound),
            (5, 65.0, SourceError::Bound),
            (5, f32::NAN, SourceError::Bound),
        ] {
            assert_eq!(Source::from_code(code, parameter), Err(error));
        }
    }

    #[test]
    fn the_gaussian_keeps_its_bits() {
        // Artefacts of version 1 and the policies that are flashed depend on them: Box and Muller's transform of pairs.
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let words = [rng.next_u32(), rng.next_u32(), rng.next_u32(), rng.next_u32()];
        let [a, b] = math::box_muller([words[0], words[1]]);
        let [c, _] = math::box_muller([words[2], words[3]]);
        assert_eq!(draws(Source::Gaussian, 3), [a, b, c]);
    }
}
