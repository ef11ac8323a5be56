//! The dense kernels: matrix-vector products on column blocks, and their transpose.
//!
//! `y += W x` runs over blocks of rows whose sums stay in registers while the columns stream by. Row `i` adds
//! `w[j * rows + i] * x[j]` for `j` ascending, starting from `y[i]`, whatever the block size: the blocks change the
//! speed and never the bits, on scalar machines, AVX and Helium alike. Safe code, no panics, no allocation.

pub(crate) mod int8;

/// Rows held in registers at once; a Cortex-M4F has 32 single-precision registers.
const BLOCK: usize = 16;

/// `y += W x` for a column-major `W` of `y.len()` rows and `x.len()` columns.
///
/// Exactly `y.len() * x.len()` multiply-accumulates. Columns that `w` lacks are left out: callers check lengths.
#[inline]
pub fn gemv_add(w: &[f32], x: &[f32], y: &mut [f32]) {
    product(w, x, None, y, |sum| sum);
}

/// `y = f(W x + bias)` for a column-major `W` of `y.len()` rows and `x.len()` columns; each sum starts from its bias.
///
/// Rows that `bias` lacks are left as they were: callers check lengths.
#[inline]
pub fn dense(w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
    product(w, x, Some(bias), y, f);
}

/// `y = f(W x + start)` with the sums started from `bias`, or from `y` itself.
#[inline(always)]
fn product(w: &[f32], x: &[f32], bias: Option<&[f32]>, y: &mut [f32], f: impl Fn(f32) -> f32) {
    let rows = y.len();
    let mut start = 0;
    let mut blocks = y.chunks_exact_mut(BLOCK);
    for block in &mut blocks {
        rows_of::<BLOCK>(w, rows, start, x, bias, block, &f);
        start += BLOCK;
    }
    let mut rest = blocks.into_remainder();
    while rest.len() >= 4 {
        let (block, tail) = rest.split_at_mut(4);
        rows_of::<4>(w, rows, start, x, bias, block, &f);
        start += 4;
        rest = tail;
    }
    for row in rest {
        rows_of::<1>(w, rows, start, x, bias, core::slice::from_mut(row), &f);
        start += 1;
    }
}

/// `N` rows of the product, beginning with row `start` of `rows`.
#[inline(always)]
fn rows_of<const N: usize>(
    w: &[f32],
    rows: usize,
    start: usize,
    x: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    f: impl Fn(f32) -> f32,
) {
    let Some(out) = y.first_chunk_mut::<N>() else { return };
    let mut sums = *out;
    if let Some(bias) = bias {
        match bias.get(start..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(from) => sums = *from,
            None => return,
        }
    }
    // Zipped chunks of one length run on a single counter; the block's place in a column is checked once.
    for (column, input) in w.chunks_exact(rows).zip(x) {
        let Some(weights) = column.get(start..).and_then(|rest| rest.first_chunk::<N>()) else { break };
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += weight * input;
        }
    }
    *out = sums.map(f);
}

/// `x = W^T y` for a column-major `W` of `y.len()` rows and `x.len()` columns: one dot product a column.
#[inline]
pub fn gemv_transposed(w: &[f32], y: &[f32], x: &mut [f32]) {
    let mut rest = w;
    for out in x {
        let (column, tail) = rest.split_at_checked(y.len()).unwrap_or((rest, &[]));
        let mut acc = 0.0;
        for (weight, input) in column.iter().zip(y) {
            acc += weight * input;
        }
        *out = acc;
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::vec::Vec;

    fn random(n: usize, rng: &mut Xoshiro128PlusPlus) -> Vec<f32> {
        (0..n).map(|_| crate::math::symmetric_uniform(rng.next_u32())).collect()
    }

    /// The definition, row by row: the order of summation that every block size must keep.
    fn scalar(w: &[f32], x: &[f32], y: &mut [f32]) {
        let rows = y.len();
        for (i, sum) in y.iter_mut().enumerate() {
            for (j, input) in x.iter().enumerate() {
                *sum += w[j * rows + i] * input;
            }
        }
    }

    #[test]
    fn blocks_have_the_bits_of_the_scalar_definition() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(3);
        for rows in (1..40).chain([48, 63, 64, 65, 128]) {
            for cols in [0, 1, 2, 3, 17, 64] {
                let (w, x) = (random(rows * cols, &mut rng), random(cols, &mut rng));
                let mut y = random(rows, &mut rng);
                let mut expected = y.clone();
                let (bias, mut mapped) = (y.clone(), random(rows, &mut rng));
                gemv_add(&w, &x, &mut y);
                scalar(&w, &x, &mut expected);
                assert_eq!(y, expected, "{rows} x {cols}");
                dense(&w, &x, &bias, &mut mapped, |sum| sum.max(0.0));
                expected.iter_mut().for_each(|e| *e = e.max(0.0));
                assert_eq!(mapped, expected, "{rows} x {cols}");
            }
        }
    }

    #[test]
    fn transpose_agrees_with_the_definition() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(4);
        for (rows, cols) in [(1, 1), (5, 3), (64, 64), (17, 6)] {
            let (w, y) = (random(rows * cols, &mut rng), random(rows, &mut rng));
            let mut x = std::vec![0.0; cols];
            gemv_transposed(&w, &y, &mut x);
            for (j, value) in x.iter().enumerate() {
                let exact: f64 = (0..rows).map(|i| f64::from(w[j * rows + i]) * f64::from(y[i])).sum();
                // Forward error of a sequential sum of `rows` terms below one: rows * 2^-24 each.
                assert!((f64::from(*value) - exact).abs() < (rows * rows) as f64 * 6e-8);
            }
        }
    }

    #[test]
    fn short_weights_do_not_panic() {
        let mut y = [0.0; 20];
        gemv_add(&[1.0; 7], &[1.0; 9], &mut y);
        gemv_add(&[1.0; 7], &[1.0; 9], &mut []);
        dense(&[1.0; 7], &[1.0; 9], &[1.0; 3], &mut y, |sum| sum);
        gemv_transposed(&[1.0; 7], &[1.0; 9], &mut y);
    }
}
