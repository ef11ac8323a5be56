//! The dense kernels: matrix-vector products on column blocks, and their transpose.
//!
//! `y += W x` runs over blocks of rows whose sums stay in registers while the columns stream by. Row `i` adds
//! `w[j * rows + i] * x[j]` for `j` ascending, starting from `y[i]`, whatever the block size: the blocks change the
//! speed and never the bits, on scalar machines, AVX and Helium alike. Safe code, no panics, no allocation.

/// Rows held in registers at once; a Cortex-M4F has 32 single-precision registers.
const BLOCK: usize = 16;

/// `y += W x` for a column-major `W` of `y.len()` rows and `x.len()` columns.
///
/// Exactly `y.len() * x.len()` multiply-accumulates. Columns that `w` lacks are left out: callers check lengths.
#[inline]
pub fn gemv_add(w: &[f32], x: &[f32], y: &mut [f32]) {
    let rows = y.len();
    let mut start = 0;
    let mut blocks = y.chunks_exact_mut(BLOCK);
    for block in &mut blocks {
        gemv_block::<BLOCK>(w, rows, start, x, block);
        start += BLOCK;
    }
    let mut rest = blocks.into_remainder();
    while rest.len() >= 4 {
        let (block, tail) = rest.split_at_mut(4);
        gemv_block::<4>(w, rows, start, x, block);
        start += 4;
        rest = tail;
    }
    if rows == 1 {
        // One output row is contiguous: no stride to follow.
        if let [sum] = rest {
            let mut acc = *sum;
            for (weight, input) in w.iter().zip(x) {
                acc += weight * input;
            }
            *sum = acc;
        }
        return;
    }
    for row in rest {
        gemv_block::<1>(w, rows, start, x, core::slice::from_mut(row));
        start += 1;
    }
}

/// `N` rows of the product, beginning with row `start`.
#[inline(always)]
fn gemv_block<const N: usize>(w: &[f32], rows: usize, start: usize, x: &[f32], y: &mut [f32]) {
    let Some(sums) = y.first_chunk_mut::<N>() else { return };
    let Some(mut rest) = w.get(start..) else { return };
    let mut acc = *sums;
    for input in x {
        let Some(column) = rest.first_chunk::<N>() else { break };
        for (sum, weight) in acc.iter_mut().zip(column) {
            *sum += weight * input;
        }
        rest = rest.get(rows..).unwrap_or(&[]);
    }
    *sums = acc;
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
                gemv_add(&w, &x, &mut y);
                scalar(&w, &x, &mut expected);
                assert_eq!(y, expected, "{rows} x {cols}");
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
        gemv_transposed(&[1.0; 7], &[1.0; 9], &mut y);
    }
}
