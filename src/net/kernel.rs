//! The dense kernels: `W x` for column-major matrices, for one input or for four at once, and `W^T y`.
//!
//! Row `i` starts from its bias and adds `w[j * rows + i] * x[j]` for `j` ascending; every product and every sum is
//! rounded. All kernels keep this order, so they differ in speed and never in bits: the definition, four lines a
//! function, is in [`portable::scalar`], and what runs is compared with it on every target by
//! [`crate::conformance`] and by the tests below.
//!
//! Safe to call with slices of any length: columns that `w` lacks are left out and rows that a bias lacks are left as
//! they were, which callers exclude beforehand. No panics, no allocation.

pub(crate) mod portable;

/// Inputs of a batched product: latents that are integrated at once, and actions that are valued at once.
pub const LANES: usize = 4;

/// `y += W x` for a column-major `W` of `y.len()` rows and `x.len()` columns.
///
/// Exactly `y.len() * x.len()` multiply-accumulates. Columns that `w` lacks are left out: callers check lengths.
pub fn gemv_add(w: &[f32], x: &[f32], y: &mut [f32]) {
    portable::gemv_add(w, x, y);
}

/// `y = W x + bias` for a column-major `W` of `y.len()` rows and `x.len()` columns.
pub(crate) fn dense(w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32]) {
    portable::dense(w, x, bias, y, |sum| sum);
}

/// `y = relu(W x + bias)`, with [`crate::math::relu`].
pub(crate) fn dense_relu(w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32]) {
    portable::dense(w, x, bias, y, crate::math::relu);
}

/// [`dense`] for [`LANES`] inputs at once, so that each weight is read once for all of them: `x[j][p]` is input `j` of
/// lane `p`, `y[i][p]` its output `i`. The lanes share the bias. The bits of a lane are those of [`dense`].
pub(crate) fn dense_batch(w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]]) {
    portable::dense_batch(w, x, bias, y, |sum| sum);
}

/// [`dense_relu`] for [`LANES`] inputs at once, as [`dense_batch`].
pub(crate) fn dense_relu_batch(w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]]) {
    portable::dense_batch(w, x, bias, y, crate::math::relu);
}

pub(crate) use portable::gemv_transposed;

#[cfg(test)]
mod tests {
    extern crate std;
    use super::portable::scalar;
    use super::*;
    use crate::math::relu;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::vec::Vec;

    fn random(n: usize, rng: &mut Xoshiro128PlusPlus) -> Vec<f32> {
        (0..n).map(|_| crate::math::symmetric_uniform(rng.next_u32())).collect()
    }

    /// Rows and columns with every remainder of the blocks; Miri takes a hundredth of the speed and a few of them.
    fn shapes() -> impl Iterator<Item = (usize, usize)> {
        let every = if cfg!(miri) { 7 } else { 1 };
        let rows = (1..50).chain([63, 64, 65, 128]).step_by(every);
        rows.flat_map(|rows| [0, 1, 2, 3, 4, 5, 17, 64].map(|columns| (rows, columns)))
    }

    #[test]
    fn kernels_have_the_bits_of_the_scalar_definition() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(3);
        for (rows, columns) in shapes() {
            // One float past the front, so that no slice is aligned to more than a float.
            let (w, x) = (random(rows * columns + 1, &mut rng), random(columns + 1, &mut rng));
            let (w, x, bias) = (&w[1..], &x[1..], random(rows, &mut rng));
            let (mut expected, mut y, mut mapped) = (bias.clone(), random(rows, &mut rng), random(rows, &mut rng));
            scalar::dense(w, x, &bias, &mut expected);
            dense(w, x, &bias, &mut y);
            assert_eq!(y, expected, "{rows} x {columns}");
            dense_relu(w, x, &bias, &mut mapped);
            assert_eq!(mapped, expected.iter().map(|sum| relu(*sum)).collect::<Vec<_>>(), "{rows} x {columns}");
            let mut y = bias.clone();
            gemv_add(w, x, &mut y);
            assert_eq!(y, expected, "{rows} x {columns}");
        }
    }

    #[test]
    fn every_lane_of_a_batch_has_the_bits_of_a_single_product() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(5);
        for (rows, columns) in shapes() {
            let (w, x, bias) =
                (random(rows * columns, &mut rng), random(columns * LANES, &mut rng), random(rows, &mut rng));
            let x = x.as_chunks::<LANES>().0;
            let (mut y, mut mapped, mut expected) = (Vec::new(), Vec::new(), Vec::new());
            for all in [&mut y, &mut mapped, &mut expected] {
                all.resize(rows, [0.5; LANES]);
            }
            dense_batch(&w, x, &bias, &mut y);
            dense_relu_batch(&w, x, &bias, &mut mapped);
            scalar::dense_batch(&w, x, &bias, &mut expected);
            assert_eq!(y, expected, "{rows} x {columns}");
            for lane in 0..LANES {
                let x: Vec<f32> = x.iter().map(|x| x[lane]).collect();
                let (mut single, mut single_mapped) = (bias.clone(), bias.clone());
                dense(&w, &x, &bias, &mut single);
                dense_relu(&w, &x, &bias, &mut single_mapped);
                assert!(y.iter().zip(&single).all(|(y, single)| y[lane] == *single), "{rows} x {columns}");
                assert!(mapped.iter().zip(&single_mapped).all(|(y, single)| y[lane] == *single), "{rows} x {columns}");
            }
        }
    }

    #[test]
    fn relu_of_a_layer_takes_nan_infinity_and_what_is_too_small() {
        let limit = crate::math::FLUSH;
        let below = f32::from_bits(limit.to_bits() - 1);
        let special = [
            f32::NAN,
            -f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            limit,
            -limit,
            below,
            -below,
            -0.0,
            1e-40,
            -1.0,
            3.0,
        ];
        for rows in 1..40 {
            let bias: Vec<f32> = (0..rows).map(|i| special[i % special.len()]).collect();
            let (mut y, mut batch) = (std::vec![0.5; rows], std::vec![[0.5; LANES]; rows]);
            dense_relu(&[], &[], &bias, &mut y);
            dense_relu_batch(&[], &[], &bias, &mut batch);
            for ((y, batch), bias) in y.iter().zip(batch).zip(bias) {
                assert_eq!(y.to_bits(), relu(bias).to_bits(), "{bias:e}");
                assert_eq!(batch.map(f32::to_bits), [y.to_bits(); LANES], "{bias:e}");
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
        dense(&[1.0; 7], &[1.0; 9], &[1.0; 3], &mut y);
        dense_relu(&[1.0; 21], &[1.0; 9], &[1.0; 19], &mut y);
        gemv_transposed(&[1.0; 7], &[1.0; 9], &mut y);
        let mut y = [[0.0; LANES]; 20];
        dense_batch(&[1.0; 21], &[[1.0; LANES]; 9], &[1.0; 3], &mut y);
        dense_relu_batch(&[1.0; 21], &[[1.0; LANES]; 9], &[1.0; 3], &mut []);
    }
}
