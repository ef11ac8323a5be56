//! Dense f32 matrix products of the trainer: checked forms over the `gemm` crate, and nothing else unsafe.
//!
//! Activations are row-major (a row is one sample). A weight matrix in the flat layout has one contiguous column of
//! `outputs` numbers per input, which is the same memory as a row-major `inputs x outputs` matrix.
//! A slice of the wrong length panics (a programming error). Single-threaded; the same machine gives the same bits.
//! `gemm` keeps one packing buffer per thread, allocated at its first use.
//!
//! Cost: 75-90 GMAC/s at 64 x 64 with 16-512 rows on an AVX-512 core.

use super::lanes::{LANES, Lane, panels};
use gemm::{Parallelism, gemm};

/// `out[rows x outputs] = x[rows x inputs] w[inputs x outputs]`, added to what is there if `accumulate`.
pub fn forward(out: &mut [f32], x: &[f32], w: &[f32], inputs: usize, outputs: usize, accumulate: bool) {
    let rows = out.len() / outputs;
    check(out.len(), rows * outputs, x.len(), rows * inputs, w.len(), inputs * outputs);
    // SAFETY: the three lengths were checked against the strides used here.
    unsafe { product((rows, outputs, inputs), out, accumulate, x.as_ptr(), (inputs, 1), w.as_ptr(), (outputs, 1)) }
}

/// `dx[rows x inputs] = dy[rows x outputs] w^T`, added to what is there if `accumulate`.
pub fn backward(dx: &mut [f32], dy: &[f32], w: &[f32], inputs: usize, outputs: usize, accumulate: bool) {
    let rows = dx.len() / inputs;
    check(dx.len(), rows * inputs, dy.len(), rows * outputs, w.len(), inputs * outputs);
    // SAFETY: the three lengths were checked against the strides used here.
    unsafe { product((rows, inputs, outputs), dx, accumulate, dy.as_ptr(), (outputs, 1), w.as_ptr(), (1, outputs)) }
}

/// `dw[inputs x outputs] = x^T dy` over the rows of both.
pub fn weight_gradient(dw: &mut [f32], x: &[f32], dy: &[f32], inputs: usize, outputs: usize) {
    let rows = dy.len() / outputs;
    check(dw.len(), inputs * outputs, x.len(), rows * inputs, dy.len(), rows * outputs);
    // SAFETY: the three lengths were checked against the strides used here.
    unsafe { product((inputs, outputs, rows), dw, false, x.as_ptr(), (1, inputs), dy.as_ptr(), (outputs, 1)) }
}

/// As [`weight_gradient`], of `x` and `dy` in lanes: channel `c` of row `r` is number `r` of the lanes from `c * step`.
pub fn weight_gradient_of_lanes(
    dw: &mut [f32],
    x: &[Lane],
    dy: &[Lane],
    inputs: usize,
    outputs: usize,
    rows: usize,
    step: usize,
) {
    // The last channel need not reach as far as the others.
    let reach = |channels: usize| (channels - 1) * step + panels(rows);
    assert!(
        dw.len() == inputs * outputs && panels(rows) <= step && x.len() >= reach(inputs) && dy.len() >= reach(outputs),
        "matrix product of lanes: too few numbers given"
    );
    let floats = |lanes: &[Lane]| lanes.as_ptr().cast::<f32>();
    let stride = step * LANES;
    // SAFETY: a lane is LANES numbers without padding; the lengths were checked against the strides used here.
    unsafe { product((inputs, outputs, rows), dw, false, floats(x), (stride, 1), floats(dy), (1, stride)) }
}

fn check(out: usize, out_want: usize, a: usize, a_want: usize, b: usize, b_want: usize) {
    assert!(
        out == out_want && a == a_want && b == b_want,
        "matrix product: lengths {out}, {a}, {b} given where {out_want}, {a_want}, {b_want} belong"
    );
}

/// `out[m x n] (+)= a[m x k] b[k x n]` with (row, column) strides for `a` and `b`; `out` is row-major.
///
/// # Safety
/// `out` must hold m n numbers, and every index i * row + j * column of `a` and `b` must be inside them.
unsafe fn product(
    (m, n, k): (usize, usize, usize),
    out: &mut [f32],
    accumulate: bool,
    a: *const f32,
    a_stride: (usize, usize),
    b: *const f32,
    b_stride: (usize, usize),
) {
    // SAFETY: the caller vouches for the bounds; `out` is a unique borrow, so it overlaps neither operand.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            accumulate,
            a,
            a_stride.1 as isize,
            a_stride.0 as isize,
            b,
            b_stride.1 as isize,
            b_stride.0 as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;

    fn filled(len: usize, noise: &mut Noise) -> Vec<f32> {
        let mut v = vec![0.0; len];
        noise.gaussian(&mut v);
        v
    }

    #[test]
    fn the_three_forms_equal_triple_loops() {
        let mut noise = Noise::new(1, 0);
        for (rows, inputs, outputs) in [(1, 1, 1), (5, 3, 7), (16, 64, 6), (33, 17, 64), (128, 64, 1), (2, 1, 64)] {
            let x = filled(rows * inputs, &mut noise);
            let w = filled(inputs * outputs, &mut noise);
            let dy = filled(rows * outputs, &mut noise);
            let start = filled(rows * outputs, &mut noise);

            let mut y = start.clone();
            forward(&mut y, &x, &w, inputs, outputs, true);
            let mut dx = vec![0.0; rows * inputs];
            backward(&mut dx, &dy, &w, inputs, outputs, false);
            let mut dw = vec![0.0; inputs * outputs];
            weight_gradient(&mut dw, &x, &dy, inputs, outputs);

            for r in 0..rows {
                for o in 0..outputs {
                    let sum: f64 = (0..inputs).map(|i| f64::from(x[r * inputs + i] * w[i * outputs + o])).sum();
                    assert!((f64::from(y[r * outputs + o] - start[r * outputs + o]) - sum).abs() < 1e-4);
                }
                for i in 0..inputs {
                    let sum: f64 = (0..outputs).map(|o| f64::from(dy[r * outputs + o] * w[i * outputs + o])).sum();
                    assert!((f64::from(dx[r * inputs + i]) - sum).abs() < 1e-4);
                }
            }
            for i in 0..inputs {
                for o in 0..outputs {
                    let sum: f64 = (0..rows).map(|r| f64::from(x[r * inputs + i] * dy[r * outputs + o])).sum();
                    assert!((f64::from(dw[i * outputs + o]) - sum).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "matrix product")]
    fn a_short_operand_is_refused() {
        forward(&mut [0.0; 4], &[0.0; 5], &[0.0; 6], 3, 2, false);
    }
}
