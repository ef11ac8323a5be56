//! The definition of the kernels, one row after the other: what those that run are compared with.
//!
//! Not used by the networks. Lengths are the caller's to get right; no panics, no allocation.

use super::LANES;

/// `y = W x + bias`: each row from its bias, columns ascending, product and sum rounded.
pub(crate) fn dense(w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32]) {
    let rows = y.len();
    for (i, (sum, bias)) in y.iter_mut().zip(bias).enumerate() {
        *sum = *bias;
        for (weight, input) in w.iter().skip(i).step_by(rows).zip(x) {
            *sum += weight * input;
        }
    }
}

/// The same for each lane.
pub(crate) fn dense_batch(w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]]) {
    let rows = y.len();
    for lane in 0..LANES {
        for (i, (sums, bias)) in y.iter_mut().zip(bias).enumerate() {
            let mut sum = *bias;
            for (weight, input) in w.iter().skip(i).step_by(rows).zip(x) {
                sum += weight * input[lane];
            }
            sums[lane] = sum;
        }
    }
}
