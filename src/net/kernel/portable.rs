//! The kernels in safe Rust: the scalar definition, and column blocks for machines without a kernel of their own.
//!
//! Blocks of rows keep their sums in registers while the columns stream by, which compilers turn into vector code where
//! there is any. No panics, no allocation.

use super::LANES;

/// The definition of every kernel, one row after the other: what the others are compared with.
pub(crate) mod scalar {
    use super::LANES;

    /// `y = W x + bias`.
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
}

/// Rows held in registers at once; a Cortex-M4F has 32 single-precision registers.
const BLOCK: usize = 16;

/// `y += W x` for a column-major `W` of `y.len()` rows and `x.len()` columns.
///
/// Exactly `y.len() * x.len()` multiply-accumulates. Columns that `w` lacks are left out: callers check lengths.
#[inline]
pub(super) fn gemv_add(w: &[f32], x: &[f32], y: &mut [f32]) {
    product(w, x, None, y, |sum| sum);
}

/// `y = f(W x + bias)` for a column-major `W` of `y.len()` rows and `x.len()` columns; each sum starts from its bias.
///
/// Rows that `bias` lacks are left as they were: callers check lengths.
#[inline]
pub(super) fn dense(w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32) {
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
pub(crate) fn gemv_transposed(w: &[f32], y: &[f32], x: &mut [f32]) {
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

/// `y = f(W x + bias)` for every lane; four rows at a time, whose sixteen sums, four weights and four inputs fit a
/// Cortex-M4F's registers.
#[inline]
pub(super) fn dense_batch(w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]], f: impl Fn(f32) -> f32) {
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
