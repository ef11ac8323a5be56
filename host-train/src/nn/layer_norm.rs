//! Layer normalisation of the rows of a batch, without gain and bias, and its derivative (Ba, Kiros and Hinton,
//! arXiv 1607.06450).
//!
//! A row z becomes h = (z - mean z) f with f = 1 / sqrt(variance z + [`EPSILON`]). With g the gradient with respect to
//! h, that with respect to z is f (g - mean g - h mean(g h)). No allocation; slices of unequal length panic (a
//! programming error). Deterministic: sums run in 16 partial sums whatever the vector width.
//! Cost: memory speed, about twice that of an activation.

use super::math::vectorised;

/// Keeps the factor of a constant row finite.
pub const EPSILON: f32 = 1e-5;

/// Adds `shift` to `z`, each of its rows serving `group` rows, and normalises every row; the factors go to `factors`,
/// one for each row.
pub fn normalise(z: &mut [f32], shift: &[f32], group: usize, factors: &mut [f32]) {
    let width = z.len() / factors.len();
    assert!(z.len() == width * factors.len() && shift.len() * group == z.len());
    let inverse = 1.0 / width as f32;
    vectorised(|| {
        for (i, (row, factor)) in z.chunks_exact_mut(width).zip(factors).enumerate() {
            let shift = &shift[i / group * width..(i / group + 1) * width];
            row.iter_mut().zip(shift).for_each(|(z, s)| *z += s);
            let mean = inverse * sum(row, |z| z);
            row.iter_mut().for_each(|z| *z -= mean);
            *factor = 1.0 / (inverse * sum(row, |z| z * z) + EPSILON).sqrt();
            row.iter_mut().for_each(|z| *z *= *factor);
        }
    });
}

/// Turns the gradient with respect to the normalised rows into that with respect to the rows before.
pub fn normalise_backward(delta: &mut [f32], normalised: &[f32], factors: &[f32]) {
    let width = delta.len() / factors.len();
    assert!(delta.len() == width * factors.len() && delta.len() == normalised.len());
    let inverse = 1.0 / width as f32;
    vectorised(|| {
        for ((g, h), factor) in delta.chunks_exact_mut(width).zip(normalised.chunks_exact(width)).zip(factors) {
            let mean = inverse * sum(g, |g| g);
            let along = inverse * dot(g, h);
            g.iter_mut().zip(h).for_each(|(g, h)| *g = factor * (*g - mean - h * along));
        }
    });
}

/// Sum of f(x), in 16 partial sums.
#[inline(always)]
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0_f32; 16];
    let blocks = x.chunks_exact(16);
    let rest: f32 = blocks.remainder().iter().map(|&x| f(x)).sum();
    for block in blocks {
        sums.iter_mut().zip(block).for_each(|(s, &x)| *s += f(x));
    }
    sums.iter().sum::<f32>() + rest
}

/// Sum of x y, in 16 partial sums.
#[inline(always)]
fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 16];
    let (xs, ys) = (x.chunks_exact(16), y.chunks_exact(16));
    let rest: f32 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in xs.zip(ys) {
        sums.iter_mut().zip(x.iter().zip(y)).for_each(|(s, (x, y))| *s += x * y);
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    /// The normalised row, in f64.
    fn reference(z: &[f64]) -> Vec<f64> {
        let n = z.len() as f64;
        let mean = z.iter().sum::<f64>() / n;
        let variance = z.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / n;
        z.iter().map(|z| (z - mean) / (variance + f64::from(EPSILON)).sqrt()).collect()
    }

    #[test]
    fn rows_and_gradients_equal_the_definition() {
        for width in [1, 2, 7, 16, 35] {
            let (rows, group) = (6, 3);
            let mut noise = Noise::new(width as u64, 0);
            let (mut z, mut shift, mut g) = (vec![0.0; rows * width], vec![0.0; 2 * width], vec![0.0; rows * width]);
            [&mut z, &mut shift, &mut g].into_iter().for_each(|v| noise.gaussian(v));
            let (before, upstream) = (z.clone(), g.clone());
            let mut factors = vec![0.0; rows];
            normalise(&mut z, &shift, group, &mut factors);
            normalise_backward(&mut g, &z, &factors);
            for r in 0..rows {
                let at = |v: &[f32], r: usize| v[r * width..(r + 1) * width].to_vec();
                let sum = |z: &[f32]| -> Vec<f64> {
                    z.iter().zip(at(&shift, r / group)).map(|(z, s)| f64::from(*z) + f64::from(s)).collect()
                };
                let mut input = sum(&at(&before, r));
                let value = |input: &[f64]| -> f64 {
                    reference(input).iter().zip(at(&upstream, r)).map(|(h, g)| h * f64::from(g)).sum()
                };
                for (got, want) in at(&z, r).iter().zip(reference(&input)) {
                    assert!((f64::from(*got) - want).abs() < 1e-5, "{width}: {got} {want}");
                }
                for (j, got) in at(&g, r).iter().enumerate() {
                    let (kept, step) = (input[j], 1e-6);
                    input[j] = kept + step;
                    let up = value(&input);
                    input[j] = kept - step;
                    let want = (up - value(&input)) / (2.0 * step);
                    input[j] = kept;
                    // Two nearly equal channels have steep gradients, and f32 leaves seven digits of them.
                    assert!((f64::from(*got) - want).abs() < 1e-4 * (1.0 + want.abs()), "{width}: {got} {want}");
                }
            }
        }
    }

    #[test]
    fn a_constant_row_stays_finite() {
        let (mut z, mut factors) = (vec![3.0; 20], vec![0.0]);
        normalise(&mut z, &[0.5; 20], 1, &mut factors);
        assert!(z.iter().all(|z| *z == 0.0) && factors[0].is_finite());
    }
}
