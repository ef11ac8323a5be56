//! The kernels in assembly: the one place of the f32 networks with `unsafe` code.
//!
//! They are written where a compiler's code is measurably slower: the FPU of Cortex-M4F, M7 and M33 (`vfp.s`), Helium
//! (`helium.s`), RISC-V with the F extension (`rv32f.s`). `build.rs` tells which of them the target runs. All take one
//! [`Job`], keep the order of summation, and read and write exactly the slices it was made of. Stack: 120 bytes at most.

use super::{LANES, fits};

#[cfg(flowlet_vfp)]
core::arch::global_asm!(include_str!("vfp.s"), options(raw));
#[cfg(flowlet_mve)]
core::arch::global_asm!(include_str!("helium.s"), options(raw));
#[cfg(flowlet_rvf)]
core::arch::global_asm!(include_str!("rv32f.s"), options(raw));

/// A product as the assembly reads it, in this order.
#[repr(C)]
struct Job {
    w: *const f32,
    x: *const f32,
    start: *const f32,
    y: *mut f32,
    /// Bits of the least result that ReLU keeps; 0 leaves all as they are.
    keep: u32,
    rows: usize,
    columns: usize,
}

unsafe extern "C" {
    /// Reads `rows * columns` weights, `columns` inputs and `rows` floats from `start`, then writes `rows` results.
    ///
    /// `start` may be `y`: a block of rows is read before it is written, and no other block reads it.
    fn flowlet_f32_dense(job: *const Job);
    /// The same with four inputs a column and four results a row.
    fn flowlet_f32_batch(job: *const Job);
}

const fn keep(relu: bool) -> u32 {
    if relu { crate::math::FLUSH.to_bits() } else { 0 }
}

/// See [`super::gemv_add`].
#[inline]
pub(super) fn gemv_add(w: &[f32], x: &[f32], y: &mut [f32]) {
    let (rows, columns) = (y.len(), x.len());
    if !fits(w, y, rows, columns) {
        return;
    }
    let y = y.as_mut_ptr();
    let job = Job { w: w.as_ptr(), x: x.as_ptr(), start: y, y, keep: 0, rows, columns };
    // SAFETY: `w` has as many rows and columns as `y` and `x` are long.
    unsafe { flowlet_f32_dense(&job) };
}

/// See [`super::dense`].
#[inline]
pub(super) fn dense(w: &[f32], x: &[f32], bias: &[f32], y: &mut [f32], relu: bool) {
    let (rows, columns) = (y.len(), x.len());
    if !fits(w, bias, rows, columns) {
        return;
    }
    let (start, y, keep) = (bias.as_ptr(), y.as_mut_ptr(), keep(relu));
    let job = Job { w: w.as_ptr(), x: x.as_ptr(), start, y, keep, rows, columns };
    // SAFETY: `w` has as many rows and columns as `y` and `x` are long, and the bias is as long as `y`.
    unsafe { flowlet_f32_dense(&job) };
}

/// See [`super::dense_batch`].
#[inline]
pub(super) fn dense_batch(w: &[f32], x: &[[f32; LANES]], bias: &[f32], y: &mut [[f32; LANES]], relu: bool) {
    let (rows, columns) = (y.len(), x.len());
    if !fits(w, bias, rows, columns) {
        return;
    }
    let (x, y, keep) = (x.as_flattened().as_ptr(), y.as_flattened_mut().as_mut_ptr(), keep(relu));
    let job = Job { w: w.as_ptr(), x, start: bias.as_ptr(), y, keep, rows, columns };
    // SAFETY: `w` has as many rows and columns as `y` and `x` are long, and the bias is as long as `y`.
    unsafe { flowlet_f32_batch(&job) };
}
