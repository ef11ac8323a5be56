//! Control-variate coefficients on the data side: `E[f] ~ m + C g` with the weighted means `m` of the values and `g` of
//! the features.
//!
//! Values are the candidates `y` (or, for reverse score matching, scores of the source), features their posterior
//! scores or what a [test function](super::TestFunction) makes of them. `E_q[g] = 0`, so every constant `C` is unbiased
//! under exact weights. The forms differ in how they choose it; `w` are the normalised weights, `n = 1 / sum w^2`. A
//! correction that is not finite is dropped. No panics, no allocation.
//!
//! Cost: a pass over the rows for the diagonal forms, `K D^2 + D^3 / 6` multiplications for the full matrix.

use super::score::Functional;
use super::{Evidence, TestFunction};
use crate::flow::Source;
use crate::math;

/// How the coefficient of the control variate is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum ControlVariate {
    /// `C = 0`: the noise-expectation family; no score is evaluated.
    #[default]
    None,
    /// `C = eta beta^2 / alpha^2`; with a Gaussian source `eta = 1` is the gradient-expectation family.
    Eta(f32),
    /// The scalar of least variance, by plug-in:
    /// `C = - sum w^2 (f - m).(g - g_bar) / (sum w^2 |g - g_bar|^2 + ridge)`.
    EtaOptimal {
        /// Added to the denominator.
        ridge: f32,
    },
    /// The diagonal of least variance, by plug-in:
    /// `C_j = clip(- sum w^2 (f - m)_j (g - g_bar)_j / (sum w^2 (g - g_bar)_j^2 + ridge), -clip, clip)`.
    Diagonal {
        /// Added to the denominator; 1e-4 in the paper.
        ridge: f32,
        /// Largest magnitude of a coefficient; 2 in the paper.
        clip: f32,
    },
    /// The matrix of least variance, by plug-in:
    /// `C = - (sum w^2 (f - m)(g - g_bar)^T) (B + ridge tr(B) / D)^-1` with `B = sum w^2 (g - g_bar)(g - g_bar)^T`.
    /// Where that matrix is singular in single precision, the diagonal form.
    Full {
        /// Added to the diagonal, as a share of its mean; needed whenever there are fewer candidates than components.
        ridge: f32,
    },
    /// `C_j = E_w[Phi_jj] / sum w g_j^2`: the optimum for uniform weights, since `E_q[(y - m) g^T] = -E_q[Phi]`. With a
    /// constant `Phi` never negative.
    Fisher,
    /// The plug-in diagonal without ridge, never negative, times `(n - 1) / (n + 1)`, and a correction of at most two
    /// standard deviations of the weighted values. So it is nothing at an effective sample size of one, and all of the
    /// optimum at a large one.
    Shrunk,
}

impl ControlVariate {
    /// The rule of the paper's implementation (arXiv 2601.08136): diagonal, ridge 1e-4, coefficients of the
    /// data side clipped to two.
    pub const PUBLISHED: Self = Self::Diagonal { ridge: 1e-4, clip: 2.0 };

    /// Whether the form needs the candidates' scores.
    pub const fn needs_scores(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether its constants are finite and of the right sign.
    pub fn is_valid(&self) -> bool {
        // Sums that begin below it would depend on how a machine treats subnormals.
        let positive = |x: f32| x >= math::FLUSH_BIAS && x.is_finite();
        match *self {
            Self::None | Self::Fisher | Self::Shrunk => true,
            Self::Eta(eta) => eta.is_finite(),
            Self::EtaOptimal { ridge } | Self::Full { ridge } => positive(ridge),
            Self::Diagonal { ridge, clip } => positive(ridge) && clip >= 0.0 && clip.is_finite(),
        }
    }

    /// Writes `C g` of every component, the correction of the mean.
    pub(super) fn correct(&self, rows: &Weighted<'_>, memory: Memory<'_>) {
        let Memory { values, features, correction, spare, matrix } = memory;
        let means = Means { values, features };
        match *self {
            Self::None => correction.fill(0.0),
            Self::Eta(eta) => {
                let coefficient = eta * rows.unit();
                correction.iter_mut().zip(features).for_each(|(c, g)| *c = *g * coefficient);
            }
            Self::EtaOptimal { ridge } => {
                let (mut cross, mut square) = (0.0, ridge);
                for j in 0..rows.dim() {
                    let moments = rows.second_moments(means, j);
                    cross += moments.0;
                    square += moments.1;
                }
                correction.iter_mut().zip(features).for_each(|(c, g)| *c = *g * (-cross / square));
            }
            Self::Diagonal { ridge, clip } => {
                for (j, (c, g)) in correction.iter_mut().zip(features).enumerate() {
                    let (cross, square) = rows.second_moments_from(means, j, ridge);
                    *c = *g * math::clip(-cross / square, clip);
                }
            }
            Self::Shrunk => {
                let square: f32 = rows.with_weight().map(|(_, w)| w * w).sum();
                // (n - 1) / (n + 1) with n = 1 / square.
                let gate = (1.0 - square) / (1.0 + square);
                for (j, (c, g)) in correction.iter_mut().zip(features).enumerate() {
                    let (cross, square) = rows.second_moments(means, j);
                    let mean = at(values, j);
                    let variance: f32 = rows
                        .with_weight()
                        .map(|(k, w)| (w, rows.value(k, j) - mean))
                        .map(|(w, miss)| w * miss * miss)
                        .sum();
                    let coefficient = if cross < 0.0 && square >= math::FLUSH_BIAS { -cross / square } else { 0.0 };
                    *c = math::clip(*g * coefficient * gate, 2.0 * math::sqrt(variance));
                }
            }
            Self::Full { ridge } => full(rows, means, ridge, correction, spare, matrix),
            Self::Fisher => {
                for (j, (c, g)) in correction.iter_mut().zip(features).enumerate() {
                    *c = *g * rows.fisher(means, j);
                }
            }
        }
    }
}

/// `C g` for the full matrix: with `z` from `(B + ridge) z = g` it is `- sum w^2 (f - m) ((g_k - g) . z)`.
fn full(rows: &Weighted<'_>, means: Means<'_>, ridge: f32, correction: &mut [f32], z: &mut [f32], matrix: &mut [f32]) {
    let dim = rows.dim();
    matrix.fill(0.0);
    for (k, w) in rows.with_weight() {
        for (i, line) in matrix.chunks_exact_mut(dim.max(1)).enumerate() {
            let centred = w * (rows.feature(k, i) - at(means.features, i));
            // The lower triangle is all that is read.
            for (j, cell) in line.iter_mut().enumerate().take(i + 1) {
                *cell += centred * (w * (rows.feature(k, j) - at(means.features, j)));
            }
        }
    }
    let trace: f32 = (0..dim).map(|i| at(matrix, i * dim + i)).sum();
    let ridge = ridge * trace / dim as f32;
    matrix.iter_mut().step_by(dim + 1).for_each(|cell| *cell += ridge);
    z.iter_mut().zip(means.features).for_each(|(z, g)| *z = *g);
    if !solve(matrix, z) {
        for (j, c) in correction.iter_mut().enumerate() {
            let (cross, square) = rows.second_moments_from(means, j, ridge);
            *c = at(means.features, j) * math::clip(-cross / square, f32::INFINITY);
        }
        return;
    }
    correction.fill(0.0);
    for (k, w) in rows.with_weight() {
        let length: f32 = z.iter().enumerate().map(|(j, z)| w * (rows.feature(k, j) - at(means.features, j)) * z).sum();
        for (j, c) in correction.iter_mut().enumerate() {
            *c -= w * (rows.value(k, j) - at(means.values, j)) * length;
        }
    }
}

/// Solves `A z = b` in place for a symmetric positive definite `A`, given by its lower triangle, which its Cholesky
/// factor replaces. False, with `b` spoiled, when a pivot is lost to rounding.
fn solve(a: &mut [f32], b: &mut [f32]) -> bool {
    let dim = b.len();
    for i in 0..dim {
        for j in 0..=i {
            let dot: f32 = (0..j).map(|m| at(a, i * dim + m) * at(a, j * dim + m)).sum();
            let rest = at(a, i * dim + j) - dot;
            let cell = if i == j {
                // A pivot below the rounding of what it was subtracted from says nothing; NaN is refused too.
                if !(rest > f32::EPSILON * at(a, i * dim + i) && rest >= math::FLUSH_BIAS && rest.is_finite()) {
                    return false;
                }
                math::sqrt(rest)
            } else {
                rest / at(a, j * dim + j)
            };
            if let Some(slot) = a.get_mut(i * dim + j) {
                *slot = cell;
            }
        }
    }
    for i in 0..dim {
        let dot: f32 = (0..i).map(|m| at(a, i * dim + m) * at(b, m)).sum();
        if let Some(z) = b.get_mut(i) {
            *z = (*z - dot) / at(a, i * dim + i);
        }
    }
    for i in (0..dim).rev() {
        let dot: f32 = (i + 1..dim).map(|m| at(a, m * dim + i) * at(b, m)).sum();
        if let Some(z) = b.get_mut(i) {
            *z = (*z - dot) / at(a, i * dim + i);
        }
    }
    true
}

/// What [`ControlVariate::correct`] reads and writes, vectors of `D` floats and a `D x D` matrix.
pub(super) struct Memory<'m> {
    /// Weighted means of the values.
    pub values: &'m [f32],
    /// Weighted means of the features.
    pub features: &'m [f32],
    pub correction: &'m mut [f32],
    pub spare: &'m mut [f32],
    pub matrix: &'m mut [f32],
}

#[derive(Clone, Copy)]
struct Means<'m> {
    values: &'m [f32],
    features: &'m [f32],
}

/// The weighted rows that a mean and its correction are computed from.
#[derive(Clone, Copy)]
pub(super) struct Weighted<'r> {
    pub evidence: &'r Evidence<'r>,
    pub functional: Functional,
    /// `None` where the scores were replaced by the features of a user's field.
    pub test_function: Option<TestFunction>,
    pub weights: &'r [f32],
    pub candidates: &'r [f32],
    pub scores: &'r [f32],
}

impl Weighted<'_> {
    pub fn dim(&self) -> usize {
        self.evidence.dim()
    }

    /// Rows and their weights; those without weight are left out, for theirs may be the numbers that are not finite.
    pub fn with_weight(&self) -> impl Iterator<Item = (usize, f32)> {
        self.weights.iter().copied().enumerate().filter(|(_, w)| *w > 0.0)
    }

    /// Component `j` of what is averaged, at row `k`.
    pub fn value(&self, k: usize, j: usize) -> f32 {
        let i = k * self.dim() + j;
        self.functional.value(self.evidence, j, at(self.candidates, i), at(self.scores, i))
    }

    /// Component `j` of the feature of row `k`.
    pub fn feature(&self, k: usize, j: usize) -> f32 {
        let i = k * self.dim() + j;
        let s = at(self.scores, i);
        match self.test_function {
            Some(test) if !test.is_constant(self.evidence) => {
                let (phi, slope) = test.diagonal(self.evidence, j, at(self.candidates, i));
                math::flush(slope + phi * s)
            }
            _ => s,
        }
    }

    /// The coefficient that `eta = 1` stands for.
    fn unit(&self) -> f32 {
        match self.functional {
            Functional::Data => self.evidence.ratio() * self.evidence.ratio(),
            Functional::Score => 1.0 / self.evidence.alpha(),
        }
    }

    /// `sum w^2 (f - m)_j (g - g_bar)_j` and `sum w^2 (g - g_bar)_j^2`.
    fn second_moments(&self, means: Means<'_>, j: usize) -> (f32, f32) {
        self.second_moments_from(means, j, 0.0)
    }

    /// The same with the second sum begun at `ridge`.
    fn second_moments_from(&self, means: Means<'_>, j: usize, ridge: f32) -> (f32, f32) {
        let (mean, feature_mean) = (at(means.values, j), at(means.features, j));
        let (mut cross, mut square) = (0.0, ridge);
        for (k, w) in self.with_weight() {
            let centred = w * (self.feature(k, j) - feature_mean);
            cross += w * (self.value(k, j) - mean) * centred;
            square += centred * centred;
        }
        (cross, square)
    }

    /// The Fisher coefficient of component `j`.
    fn fisher(&self, means: Means<'_>, j: usize) -> f32 {
        let information: f32 = self.with_weight().map(|(k, w)| w * self.feature(k, j) * self.feature(k, j)).sum();
        // No information, no correction: the features are all zero, and so is their mean.
        if information >= math::FLUSH_BIAS { self.slope(means, j) / information } else { 0.0 }
    }

    /// `-E_q[(f - mu)_j g_j] = E_q[Phi_jj df_j / dy_j]`: exactly where the derivative is a known constant, else by
    /// plug-in.
    fn slope(&self, means: Means<'_>, j: usize) -> f32 {
        let derivative = match self.functional {
            Functional::Data => Some(1.0),
            Functional::Score if self.evidence.source() == Source::Gaussian => {
                Some(self.evidence.alpha() / (self.evidence.beta() * self.evidence.beta()))
            }
            Functional::Score => None,
        };
        let phi = |test: TestFunction| -> f32 {
            if test.is_constant(self.evidence) {
                return 1.0;
            }
            let y = |k| at(self.candidates, k * self.dim() + j);
            self.with_weight().map(|(k, w)| w * test.diagonal(self.evidence, j, y(k)).0).sum()
        };
        match (derivative, self.test_function) {
            (Some(derivative), Some(test)) => derivative * phi(test),
            _ => {
                let (mean, feature_mean) = (at(means.values, j), at(means.features, j));
                -self
                    .with_weight()
                    .map(|(k, w)| w * (self.value(k, j) - mean) * (self.feature(k, j) - feature_mean))
                    .sum::<f32>()
            }
        }
    }
}

fn at(values: &[f32], i: usize) -> f32 {
    values.get(i).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::vec::Vec;

    #[test]
    fn the_solver_inverts_and_refuses_what_is_singular() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        for dim in 1..8 {
            let root: Vec<f32> = (0..dim * dim).map(|_| math::symmetric_uniform(rng.next_u32())).collect();
            let product = |i: usize, j: usize| -> f32 { (0..dim).map(|m| root[i * dim + m] * root[j * dim + m]).sum() };
            let mut a: Vec<f32> = (0..dim * dim)
                .map(|i| product(i / dim, i % dim) + if i / dim == i % dim { 0.5 } else { 0.0 })
                .collect();
            let full = a.clone();
            let exact: Vec<f32> = (0..dim).map(|_| math::symmetric_uniform(rng.next_u32())).collect();
            let mut z: Vec<f32> =
                (0..dim).map(|i| (0..dim).map(|j| full[i * dim + j] * exact[j]).sum::<f32>()).collect();
            assert!(solve(&mut a, &mut z));
            // Eigenvalues from 0.5 to about dim: rounding is amplified by at most 2 dim.
            z.iter().zip(&exact).for_each(|(z, e)| assert!((z - e).abs() < 2e-5, "{dim}: {z} {e}"));
        }
        assert!(!solve(&mut [1.0, 0.0, 1.0, 1.0], &mut [1.0, 1.0]));
        assert!(!solve(&mut [0.0], &mut [1.0]) && !solve(&mut [f32::NAN], &mut [1.0]));
        assert!(!solve(&mut [f32::INFINITY], &mut [1.0]));
    }
}
