//! The kernels in assembly: the one place of the f32 networks with `unsafe` code.
//!
//! They are written where a compiler's code is measurably slower: the FPU of Cortex-M4F, M7 and M33 (`vfp.s`, and
//! `vfp_activation.s` where there is the DSP extension), Helium (`helium.s`), RISC-V with the F extension (`rv32f.s`).
//! `build.rs` tells which of them the target runs. The matrix kernels take one [`Job`], keep the order of summation, and read
//! and write exactly the slices it was made of. Stack: 120 bytes at most beside the job.

use super::{LANES, fits};

#[cfg(flowlet_vfp)]
core::arch::global_asm!(include_str!("vfp.s"), options(raw));
#[cfg(all(flowlet_vfp, flowlet_dsp, not(flowlet_armv8m)))]
core::arch::global_asm!(include_str!("vfp_activation.s"), options(raw));
// On Armv8-M the assembler must be told of the DSP extension.
#[cfg(all(flowlet_vfp, flowlet_dsp, flowlet_armv8m))]
core::arch::global_asm!(".cpu cortex-m33", include_str!("vfp_activation.s"), options(raw));
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
    /// The same for at least one row and one column, without the columns whose input is zero.
    #[cfg(flowlet_vfp)]
    fn flowlet_f32_sparse(job: *const Job);
    /// Reads `columns` floats from `x`, of each column where that is not zero `rows` weights, and `rows` floats from `start`;
    /// writes `columns` results. At least one column.
    #[cfg(flowlet_vfp)]
    fn flowlet_f32_transposed(job: *const Job);
    /// As the first with four inputs a column and four results a row.
    fn flowlet_f32_batch(job: *const Job);
}

const fn keep(relu: bool) -> u32 {
    if relu { crate::math::FLUSH.to_bits() } else { 0 }
}

/// See [`super::gemv_add`] and [`super::gemv_add_relu`].
#[inline]
pub(super) fn gemv_add(w: &[f32], x: &[f32], y: &mut [f32], relu: bool) {
    let (rows, columns) = (y.len(), x.len());
    if !fits(w, y, rows, columns) {
        return;
    }
    let y = y.as_mut_ptr();
    let job = Job { w: w.as_ptr(), x: x.as_ptr(), start: y, y, keep: keep(relu), rows, columns };
    // SAFETY: `w` has as many rows and columns as `y` and `x` are long.
    unsafe { flowlet_f32_dense(&job) };
}

/// See [`super::gemv_add_sparse`]; what has no kernel for it does all columns, which is exact too.
#[inline]
pub(super) fn gemv_add_sparse(w: &[f32], x: &[f32], y: &mut [f32], relu: bool) {
    #[cfg(not(flowlet_vfp))]
    gemv_add(w, x, y, relu);
    #[cfg(flowlet_vfp)]
    {
        let (rows, columns) = (y.len(), x.len());
        if !fits(w, y, rows, columns) || rows == 0 || columns == 0 {
            return;
        }
        let y = y.as_mut_ptr();
        let job = Job { w: w.as_ptr(), x: x.as_ptr(), start: y, y, keep: keep(relu), rows, columns };
        // SAFETY: `w` has as many rows and columns as `y` and `x` are long, and both are at least one.
        unsafe { flowlet_f32_sparse(&job) };
    }
}

/// See [`super::gemv_transposed_sparse`].
#[cfg(flowlet_vfp)]
#[inline]
pub(super) fn gemv_transposed_sparse(w: &[f32], y: &[f32], mask: &[f32], x: &mut [f32]) {
    let (rows, columns) = (y.len(), x.len());
    if !fits(w, mask, columns, rows) || columns == 0 {
        return;
    }
    let (start, y) = (y.as_ptr(), x.as_mut_ptr());
    let job = Job { w: w.as_ptr(), x: mask.as_ptr(), start, y, keep: 0, rows, columns };
    // SAFETY: `w` has as many rows and columns as `y` and `x` are long, the mask is as long as `x`, and there is a column.
    unsafe { flowlet_f32_transposed(&job) };
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

/// The elementwise functions, with the DSP extension.
#[cfg(all(flowlet_vfp, flowlet_dsp))]
mod elementwise {
    use crate::math;
    use crate::math::activation::{LEAST, Rational, TANH};

    /// What the assembly reads: the coefficients, one half, and the interval on both halves of a word.
    #[repr(C)]
    struct Coefficients {
        n: [f32; 3],
        d: [f32; 4],
        half: f32,
        /// High halfword of the least magnitude that is computed.
        least: u32,
        /// The largest difference of a magnitude's high halfword to that.
        range: u32,
    }

    unsafe extern "C" {
        /// Computes `pairs` (at least one) times two elements from `z` on, or fewer; returns the number it left.
        fn flowlet_f32_odd(z: *mut f32, pairs: usize, coefficients: *const Coefficients) -> usize;
        /// The same for the gated functions.
        fn flowlet_f32_gated(z: *mut f32, pairs: usize, coefficients: *const Coefficients) -> usize;
    }

    /// See [`super::super::tanh`].
    pub(in super::super) fn tanh(z: &mut [f32]) {
        // SAFETY: `pairs` has two elements a pair.
        pairwise(&TANH, z, math::tanh, |pairs, c| unsafe {
            flowlet_f32_odd(pairs.as_mut_ptr().cast(), pairs.len(), c)
        });
    }

    /// See [`super::super::silu`] and [`super::super::gelu`]; `one` is the function itself.
    pub(in super::super) fn gated(rational: &Rational, z: &mut [f32], one: fn(f32) -> f32) {
        // SAFETY: `pairs` has two elements a pair.
        pairwise(rational, z, one, |pairs, c| unsafe { flowlet_f32_gated(pairs.as_mut_ptr().cast(), pairs.len(), c) });
    }

    /// Hands pairs to `run` as long as there are; the pairs that it stops at, and an odd last element, are done by `one`.
    fn pairwise(
        rational: &Rational,
        z: &mut [f32],
        one: fn(f32) -> f32,
        run: impl Fn(&mut [[f32; 2]], &Coefficients) -> usize,
    ) {
        // The ends of the intervals have nothing in their low halves, which decide nothing then.
        let least = LEAST >> 16;
        let range = (rational.end.to_bits() >> 16) - least - 1;
        let both = |half: u32| half << 16 | half;
        let coefficients =
            Coefficients { n: rational.n, d: rational.d, half: 0.5, least: both(least), range: both(range) };
        let (mut pairs, last) = z.as_chunks_mut::<2>();
        last.iter_mut().for_each(|z| *z = one(*z));
        while !pairs.is_empty() {
            let left = run(pairs, &coefficients);
            let done = pairs.len().saturating_sub(left);
            let Some(([pair], rest)) =
                pairs.split_at_mut_checked(done).and_then(|(_, rest)| rest.split_at_mut_checked(1))
            else {
                return;
            };
            pair.iter_mut().for_each(|z| *z = one(*z));
            pairs = rest;
        }
    }

    const _: () = {
        let ends =
            LEAST | TANH.end.to_bits() | math::activation::SILU.end.to_bits() | math::activation::GELU.end.to_bits();
        assert!(ends & 0xffff == 0, "the intervals are compared by halfwords");
    };
}
#[cfg(all(flowlet_vfp, flowlet_dsp))]
pub(super) use elementwise::{gated, tanh};
