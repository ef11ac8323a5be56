//! The kernels in safe Rust, for machines without one of their own: column blocks.
//!
//! A block of rows keeps its sums in registers while the columns stream by, which compilers turn into vector code where
//! there is any. No panics, no allocation.

use super::{LANES, fits};
use crate::math;

/// Rows held in registers at once; a Cortex-M4F has 32 single-precision registers.
const BLOCK: usize = 16;

/// See [`super::gemv_add`] and [`super::gemv_add_relu`].
pub(super) fn gemv_add(w: &[f32], x: &[f32], y: &mut [f32], relu: bool) {
    match (fits(w, y, y.len(), x.len()), relu) {
        (false, _) => {}
        (true, true) => product::<false>(w, x, None, y, math::relu),
        (true, false) => product::<false>(w, x, None, y, |sum| sum),
    }
}

/// See [`super::gemv_add_sparse`].
pub(super) fn gemv_add_sparse(w: &[f32], x: &[f32], y: &mut [f32], relu: bool) {
    match (fits(w, y, y.len(), x.len()), relu) {
        (false, _) => {}
        (true, true) => product::<true>(w, x, None, y, math::relu),
        (true, false) => product::<true>(w, x, None, y, |sum| sum),
    }
}

/// See [`super::dense`] and [`super::dense_relu`].
pub(super) fn dense(w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32], relu: bool) {
    match (fits(w, bias, y.len(), x.len()), relu) {
        (false, _) => {}
        (true, true) => product::<false>(w, x, Some(bias), y, math::relu),
        (true, false) => product::<false>(w, x, Some(bias), y, |sum| sum),
    }
}

/// See [`super::dense_batch`] and [`super::dense_relu_batch`].
pub(super) fn dense_batch(w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]], relu: bool) {
    match (fits(w, bias, y.len(), x.len()), relu) {
        (false, _) => {}
        (true, true) => lanes(w, x, bias, y, math::relu),
        (true, false) => lanes(w, x, bias, y, |sum| sum),
    }
}

/// `y = f(W x + start)` with the sums started from `bias`, or from `y` itself; where `SPARSE`, without columns of zero inputs.
#[inline(always)]
fn product<const SPARSE: bool>(w: &[f32], x: &[f32], bias: Option<&[f32]>, y: &mut [f32], f: impl Fn(f32) -> f32) {
    let rows = y.len();
    let mut start = 0;
    let mut blocks = y.chunks_exact_mut(BLOCK);
    for block in &mut blocks {
        rows_of::<BLOCK, SPARSE>(w, rows, start, x, bias, block, &f);
        start += BLOCK;
    }
    let mut rest = blocks.into_remainder();
    while rest.len() >= 4 {
        let (block, tail) = rest.split_at_mut(4);
        rows_of::<4, SPARSE>(w, rows, start, x, bias, block, &f);
        start += 4;
        rest = tail;
    }
    for row in rest {
        rows_of::<1, SPARSE>(w, rows, start, x, bias, core::slice::from_mut(row), &f);
        start += 1;
    }
}

/// `N` rows of the product, beginning with row `start` of `rows`.
#[inline(always)]
fn rows_of<const N: usize, const SPARSE: bool>(
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
        if SPARSE && *input == 0.0 {
            continue;
        }
        let Some(weights) = column.get(start..).and_then(|rest| rest.first_chunk::<N>()) else { break };
        for (sum, weight) in sums.iter_mut().zip(weights) {
            *sum += weight * input;
        }
    }
    *out = sums.map(f);
}

/// `y = f(W x + bias)` for every lane; four rows at a time, whose sums, weights and inputs fit the registers of a machine
/// with 32.
#[inline(always)]
fn lanes(w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]], f: impl Fn(f32) -> f32) {
    let rows = y.len();
    let mut blocks = y.chunks_exact_mut(4);
    let mut start = 0;
    for block in &mut blocks {
        lanes_of::<4>(w, rows, start, x, bias, block, &f);
        start += 4;
    }
    for row in blocks.into_remainder() {
        lanes_of::<1>(w, rows, start, x, bias, core::slice::from_mut(row), &f);
        start += 1;
    }
}

/// `N` rows of the batched product, beginning with row `start` of `rows`.
#[inline(always)]
fn lanes_of<const N: usize>(
    w: &[f32],
    rows: usize,
    start: usize,
    x: &[[f32; LANES]],
    bias: &[f32],
    y: &mut [[f32; LANES]],
    f: impl Fn(f32) -> f32,
) {
    let Some(out) = y.first_chunk_mut::<N>() else { return };
    let Some(bias) = bias.get(start..).and_then(|rest| rest.first_chunk::<N>()) else { return };
    let mut sums = bias.map(|bias| [bias; LANES]);
    for (column, inputs) in w.chunks_exact(rows).zip(x) {
        let Some(weights) = column.get(start..).and_then(|rest| rest.first_chunk::<N>()) else { break };
        for (sums, weight) in sums.iter_mut().zip(weights) {
            for (sum, input) in sums.iter_mut().zip(inputs) {
                *sum += weight * input;
            }
        }
    }
    *out = sums.map(|sums| sums.map(&f));
}
