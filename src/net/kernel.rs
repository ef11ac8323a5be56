//! The dense kernels: `W x` for column-major matrices, for one input or for four at once, and `W^T y`.
//!
//! Row `i` starts from its bias and adds `w[j * rows + i] * x[j]` for `j` ascending; every product and every sum is
//! rounded. All kernels keep this order, so they differ in speed and never in bits: [`scalar`] has the definition, and
//! what runs is compared with it on every target by [`crate::conformance`] and by the tests below.
//!
//! * [`assembly`]: the FPU of Cortex-M4F, M7 and M33, Helium, RISC-V with F; with [`int8`]'s the one place with `unsafe`.
//! * [`portable`]: column blocks in safe Rust, for every other target.
//!
//! No panics, no allocation: where the lengths of the slices do not fit, the result is left as it was.

#[cfg(any(flowlet_vfp, flowlet_mve, flowlet_rvf))]
#[allow(unsafe_code)]
mod assembly;
pub(crate) mod int8;
#[cfg(not(any(flowlet_vfp, flowlet_mve, flowlet_rvf)))]
mod portable;
pub(crate) mod scalar;

#[cfg(any(flowlet_vfp, flowlet_mve, flowlet_rvf))]
use assembly as machine;
#[cfg(not(any(flowlet_vfp, flowlet_mve, flowlet_rvf)))]
use portable as machine;

use crate::math;

/// Inputs of a batched product.
pub const LANES: usize = 4;

/// Whether `w` has so many rows and columns, and `bias` so many rows.
#[inline(always)]
fn fits(w: &[f32], bias: &[f32], rows: usize, columns: usize) -> bool {
    bias.len() >= rows && rows.checked_mul(columns).is_some_and(|size| size <= w.len())
}

/// `y += W x` for a column-major `W` of `y.len()` rows and `x.len()` columns.
///
/// Exactly `y.len() * x.len()` multiply-accumulates; none where `w` is too short.
#[inline]
pub fn gemv_add(w: &[f32], x: &[f32], y: &mut [f32]) {
    machine::gemv_add(w, x, y, false);
}

/// `y = relu(y + W x)`, otherwise as [`gemv_add`].
#[inline]
pub(crate) fn gemv_add_relu(w: &[f32], x: &[f32], y: &mut [f32]) {
    machine::gemv_add(w, x, y, true);
}

/// [`gemv_add`], or [`gemv_add_relu`], without the columns whose input is zero: for inputs that a ReLU has passed.
///
/// Leaving them out changes no bit of a sum that is not -0 at its start, where the weights are finite.
#[inline]
pub(crate) fn gemv_add_sparse(w: &[f32], x: &[f32], y: &mut [f32], relu: bool) {
    machine::gemv_add_sparse(w, x, y, relu);
}

/// The sum of the products of two slices, in their order, as far as the shorter goes.
#[inline]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sum = [0.0];
    let n = a.len().min(b.len());
    if let (Some(a), Some(b)) = (a.get(..n), b.get(..n)) {
        machine::gemv_add(a, b, &mut sum, false);
    }
    sum[0]
}

/// `y = W x + bias` for a column-major `W` of `y.len()` rows and `x.len()` columns.
///
/// Nothing is written where `w` or `bias` is too short.
#[inline]
pub fn dense(w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32]) {
    machine::dense(w, x, bias, y, false);
}

/// `y = relu(W x + bias)` with [`crate::math::relu`], otherwise as [`dense`].
#[inline]
pub(crate) fn dense_relu(w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32]) {
    machine::dense(w, x, bias, y, true);
}

/// [`dense`] for [`LANES`] inputs at once, so that each weight is read once for all of them: `x[j][p]` is input `j` of
/// lane `p`, `y[i][p]` its output `i`. The lanes share the bias. The bits of a lane are those of [`dense`].
#[inline]
pub(crate) fn dense_batch(w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]]) {
    machine::dense_batch(w, x, bias, y, false);
}

/// [`dense_relu`] for [`LANES`] inputs at once, as [`dense_batch`].
#[inline]
pub(crate) fn dense_relu_batch(w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]]) {
    machine::dense_batch(w, x, bias, y, true);
}

/// `z = tanh z` for every element, with [`crate::math::tanh`].
pub(crate) fn tanh(z: &mut [f32]) {
    #[cfg(all(flowlet_vfp, flowlet_dsp))]
    assembly::tanh(z);
    #[cfg(not(all(flowlet_vfp, flowlet_dsp)))]
    z.iter_mut().for_each(|z| *z = math::tanh(*z));
}

/// `z = silu(z)` for every element, with [`crate::math::silu`].
pub(crate) fn silu(z: &mut [f32]) {
    #[cfg(all(flowlet_vfp, flowlet_dsp))]
    assembly::gated(&math::activation::SILU, z, math::silu);
    #[cfg(not(all(flowlet_vfp, flowlet_dsp)))]
    z.iter_mut().for_each(|z| *z = math::silu(*z));
}

/// `z = gelu(z)` for every element, with [`crate::math::gelu`].
pub(crate) fn gelu(z: &mut [f32]) {
    #[cfg(all(flowlet_vfp, flowlet_dsp))]
    assembly::gated(&math::activation::GELU, z, math::gelu);
    #[cfg(not(all(flowlet_vfp, flowlet_dsp)))]
    z.iter_mut().for_each(|z| *z = math::gelu(*z));
}

/// Columns of [`gemv_transposed`] that are summed side by side.
const COLUMNS: usize = 4;

/// `x = W^T y` for a column-major `W` of `y.len()` rows and `x.len()` columns: a sum a column, rows ascending.
///
/// Nothing is written where `w` is too short. A component of `y` is loaded once for four columns.
pub(crate) fn gemv_transposed(w: &[f32], y: &[f32], x: &mut [f32]) {
    let rows = y.len();
    if !fits(w, y, rows, x.len()) {
        return;
    }
    let mut rest = w;
    let mut groups = x.chunks_exact_mut(COLUMNS);
    for group in &mut groups {
        let (a, tail) = rest.split_at_checked(rows).unwrap_or_default();
        let (b, tail) = tail.split_at_checked(rows).unwrap_or_default();
        let (c, tail) = tail.split_at_checked(rows).unwrap_or_default();
        let (d, tail) = tail.split_at_checked(rows).unwrap_or_default();
        let mut sums = [0.0; COLUMNS];
        for ((((input, a), b), c), d) in y.iter().zip(a).zip(b).zip(c).zip(d) {
            sums[0] += a * input;
            sums[1] += b * input;
            sums[2] += c * input;
            sums[3] += d * input;
        }
        group.iter_mut().zip(sums).for_each(|(x, sum)| *x = sum);
        rest = tail;
    }
    for x in groups.into_remainder() {
        let (column, tail) = rest.split_at_checked(rows).unwrap_or_default();
        *x = column.iter().zip(y).fold(0.0, |sum, (weight, input)| sum + weight * input);
        rest = tail;
    }
}

/// [`gemv_transposed`] for the columns whose mask is not zero, and zero for the others: the gradient below a ReLU, whose
/// outputs are the mask.
pub(crate) fn gemv_transposed_sparse(w: &[f32], y: &[f32], mask: &[f32], x: &mut [f32]) {
    #[cfg(flowlet_vfp)]
    assembly::gemv_transposed_sparse(w, y, mask, x);
    #[cfg(not(flowlet_vfp))]
    if fits(w, mask, x.len(), y.len()) {
        for ((column, mask), x) in w.chunks_exact(y.len().max(1)).zip(mask).zip(x) {
            *x = if *mask == 0.0 { 0.0 } else { column.iter().zip(y).fold(0.0, |sum, (weight, y)| sum + weight * y) };
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::math::relu;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::vec::Vec;

    fn random(n: usize, rng: &mut Xoshiro128PlusPlus) -> Vec<f32> {
        (0..n).map(|_| crate::math::symmetric_uniform(rng.next_u32())).collect()
    }

    /// Rows and columns with every remainder of the blocks; a few of them under Miri, which is a thousand times slower.
    fn shapes() -> impl Iterator<Item = (usize, usize)> {
        let (most, every) = if cfg!(miri) { (5, 11) } else { (64, 1) };
        let rows = (1..50).chain([63, 64, 65, 128]).step_by(every);
        let columns = [0, 1, 2, 3, 4, 5, 17, 64].into_iter().filter(move |columns| *columns <= most);
        rows.flat_map(move |rows| columns.clone().map(move |columns| (rows, columns)))
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
            let (mut y, mut mapped_sum) = (bias.clone(), bias.clone());
            gemv_add(w, x, &mut y);
            assert_eq!(y, expected, "{rows} x {columns}");
            gemv_add_relu(w, x, &mut mapped_sum);
            assert_eq!(mapped_sum, mapped, "{rows} x {columns}");
        }
    }

    #[test]
    fn columns_of_zero_inputs_change_no_bit() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(6);
        for (rows, columns) in shapes() {
            let (w, mut x, bias) =
                (random(rows * columns, &mut rng), random(columns, &mut rng), random(rows, &mut rng));
            for (i, x) in x.iter_mut().enumerate() {
                *x = [*x, 0.0, *x, -0.0, 0.0][(i + rows) % 5];
            }
            let (mut expected, mut y, mut mapped) = (bias.clone(), bias.clone(), bias.clone());
            scalar::dense(&w, &x, &bias, &mut expected);
            gemv_add_sparse(&w, &x, &mut y, false);
            let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&y), bits(&expected), "{rows} x {columns}");
            gemv_add_sparse(&w, &x, &mut mapped, true);
            assert_eq!(mapped, expected.iter().map(|sum| relu(*sum)).collect::<Vec<_>>(), "{rows} x {columns}");
        }
    }

    #[test]
    fn a_dot_product_is_the_sum_in_order() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(7);
        for n in [0, 1, 3, 4, 7, 64, 65] {
            let (a, b) = (random(n, &mut rng), random(n + 2, &mut rng));
            assert_eq!(dot(&a, &b), a.iter().zip(&b).fold(0.0, |sum, (a, b)| sum + a * b));
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
        for (rows, cols) in [(1, 1), (5, 3), (64, 64), (17, 6), (9, 7)] {
            let (w, y) = (random(rows * cols, &mut rng), random(rows, &mut rng));
            let mut x = std::vec![0.0; cols];
            gemv_transposed(&w, &y, &mut x);
            let mut single = std::vec![0.0; cols];
            w.chunks_exact(rows).zip(&mut single).for_each(|(w, x)| gemv_transposed(w, &y, core::slice::from_mut(x)));
            assert_eq!(x, single, "{rows} x {cols}");
            for (j, value) in x.iter().enumerate() {
                let exact: f64 = (0..rows).map(|i| f64::from(w[j * rows + i]) * f64::from(y[i])).sum();
                // Forward error of a sequential sum of `rows` terms below one: rows * 2^-24 each.
                assert!((f64::from(*value) - exact).abs() < (rows * rows) as f64 * 6e-8);
            }
        }
    }

    #[test]
    fn masked_columns_of_a_transpose_are_zero_and_the_others_have_its_bits() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(8);
        for (rows, columns) in shapes().filter(|(_, columns)| *columns > 0) {
            let (w, y, mut mask) =
                (random(rows * columns, &mut rng), random(rows, &mut rng), random(columns, &mut rng));
            mask.iter_mut().step_by(3).for_each(|mask| *mask = 0.0);
            let (mut all, mut some) = (std::vec![0.5; columns], std::vec![0.5; columns]);
            gemv_transposed(&w, &y, &mut all);
            gemv_transposed_sparse(&w, &y, &mask, &mut some);
            all.iter_mut().zip(&mask).filter(|(_, mask)| **mask == 0.0).for_each(|(x, _)| *x = 0.0);
            assert_eq!(some, all, "{rows} x {columns}");
        }
    }

    #[test]
    fn lengths_that_do_not_fit_leave_the_result_alone() {
        let (mut y, mut lanes) = ([0.5; 20], [[0.5; LANES]; 20]);
        for (weights, bias) in [(7, 20), (179, 20), (180, 19), (180, 0)] {
            let (w, x, bias) = (std::vec![1.0; weights], [1.0; 9], std::vec![1.0; bias]);
            dense(&w, &x, &bias, &mut y);
            dense_relu(&w, &x, &bias, &mut y);
            dense_batch(&w, &[[1.0; LANES]; 9], &bias, &mut lanes);
            dense_relu_batch(&w, &[[1.0; LANES]; 9], &bias, &mut lanes);
        }
        gemv_add(&[1.0; 179], &[1.0; 9], &mut y);
        gemv_add_relu(&[1.0; 179], &[1.0; 9], &mut y);
        gemv_add_sparse(&[1.0; 179], &[1.0; 9], &mut y, true);
        gemv_transposed(&[1.0; 179], &[1.0; 9], &mut y);
        gemv_transposed_sparse(&[1.0; 179], &[1.0; 9], &[1.0; 20], &mut y);
        gemv_transposed_sparse(&[1.0; 180], &[1.0; 9], &[1.0; 19], &mut y);
        assert_eq!((y, lanes), ([0.5; 20], [[0.5; LANES]; 20]));
        gemv_add(&[1.0; 7], &[1.0; 9], &mut []);
        dense_batch(&[], &[[1.0; LANES]; 9], &[], &mut []);
        gemv_transposed(&[], &[1.0; 9], &mut []);
    }
}
