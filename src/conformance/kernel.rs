//! The dense kernels of this target against their scalar definition, and flowlet's own activations over every exponent.
//!
//! A kernel that differs from the definition gives another digest than the host, whose kernels the unit tests hold to it;
//! that it is the kernel which differs is told by [`DIFFERS`]. Needs 8 kB of stack.

use super::{fill, math};
use crate::math::Digest;
use crate::net::kernel::{self, LANES, scalar};
use crate::net::{Activation, gemv_add};
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro128PlusPlus;

/// What a case gives whose kernel has other bits than the definition; the low byte counts the shapes.
pub const DIFFERS: u64 = 0xdead_0000_0000_0000;

/// Every remainder of blocks of 4, 8, 12 and 16 rows, and sizes with two blocks and more.
const ROWS: core::ops::RangeInclusive<usize> = 1..=34;
const MORE_ROWS: [usize; 3] = [48, 63, 65];
const COLUMNS: [usize; 9] = [0, 1, 2, 3, 4, 5, 6, 7, 17];
const MOST: usize = 65;

/// Slices that start one, two and three floats past a vector's alignment too.
const OFFSETS: usize = 4;

fn shapes() -> impl Iterator<Item = (usize, usize)> {
    ROWS.chain(MORE_ROWS).flat_map(|rows| COLUMNS.map(|columns| (rows, columns)))
}

/// Equal numbers with equal signs.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// The digest, or the mark of a kernel that differs from the definition.
pub(super) fn verdict(digest: Digest, differing: u64) -> u64 {
    if differing == 0 { digest.finish() } else { DIFFERS + differing.min(255) }
}

/// `dense`, `dense_relu` and `gemv_add` on every shape.
pub(super) fn dense(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let (mut digest, mut differing) = (Digest::new(), 0);
    let (mut w, mut x, mut bias) = ([0.0; MOST * 17 + OFFSETS], [0.0; 17 + OFFSETS], [0.0; MOST + OFFSETS]);
    let (mut y, mut expected) = ([0.0; MOST], [0.0; MOST]);
    fill(&mut rng, 1.0, &mut w);
    for (rows, columns) in shapes() {
        fill(&mut rng, 1.0, &mut x);
        fill(&mut rng, 1.0, &mut bias);
        let at = (rows + columns) % OFFSETS;
        let (w, x, bias) = (&w[at..at + rows * columns], &x[at..at + columns], &bias[at..at + rows]);
        let (y, expected) = (&mut y[..rows], &mut expected[..rows]);
        scalar::dense(w, x, bias, expected);
        kernel::dense(w, x, bias, y);
        let mut equal = same(y, expected);
        y.copy_from_slice(bias);
        gemv_add(w, x, y);
        equal &= same(y, expected);
        digest.update(expected);
        expected.iter_mut().for_each(|sum| *sum = math::relu(*sum));
        kernel::dense_relu(w, x, bias, y);
        equal &= same(y, expected);
        differing += u64::from(!equal);
    }
    verdict(digest, differing)
}

/// `dense_batch` and `dense_relu_batch` on every shape.
pub(super) fn batch(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let (mut digest, mut differing) = (Digest::new(), 0);
    let (mut w, mut x, mut bias) = ([0.0; MOST * 17 + OFFSETS], [[0.0; LANES]; 17], [0.0; MOST + OFFSETS]);
    let (mut y, mut expected) = ([[0.0; LANES]; MOST], [[0.0; LANES]; MOST]);
    fill(&mut rng, 1.0, &mut w);
    for (rows, columns) in shapes() {
        fill(&mut rng, 1.0, x.as_flattened_mut());
        fill(&mut rng, 1.0, &mut bias);
        let at = (rows + columns) % OFFSETS;
        let (w, x, bias) = (&w[at..at + rows * columns], &x[..columns], &bias[at..at + rows]);
        let (y, expected) = (&mut y[..rows], &mut expected[..rows]);
        scalar::dense_batch(w, x, bias, expected);
        kernel::dense_batch(w, x, bias, y);
        let mut equal = same(y.as_flattened(), expected.as_flattened());
        digest.update(expected.as_flattened());
        expected.as_flattened_mut().iter_mut().for_each(|sum| *sum = math::relu(*sum));
        kernel::dense_relu_batch(w, x, bias, y);
        equal &= same(y.as_flattened(), expected.as_flattened());
        differing += u64::from(!equal);
    }
    verdict(digest, differing)
}

/// The kernels that leave out columns, with zeros of either sign among the inputs, and the masked transpose.
pub(super) fn sparse(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let (mut digest, mut differing) = (Digest::new(), 0);
    let (mut w, mut x, mut bias) = ([0.0; MOST * 17 + OFFSETS], [0.0; 17 + OFFSETS], [0.0; MOST + OFFSETS]);
    let (mut y, mut expected, mut sums) = ([0.0; MOST], [0.0; MOST], [0.0; 17]);
    fill(&mut rng, 1.0, &mut w);
    for (rows, columns) in shapes() {
        fill(&mut rng, 1.0, &mut x);
        fill(&mut rng, 1.0, &mut bias);
        x.iter_mut().enumerate().for_each(|(i, x)| *x = [*x, 0.0, *x, -0.0, *x][(i + rows) % 5]);
        let at = (rows + columns) % OFFSETS;
        let (w, x, bias) = (&w[at..at + rows * columns], &x[at..at + columns], &bias[at..at + rows]);
        let (y, expected) = (&mut y[..rows], &mut expected[..rows]);
        scalar::dense(w, x, bias, expected);
        y.copy_from_slice(bias);
        kernel::gemv_add_sparse(w, x, y, false);
        let mut equal = same(y, expected);
        digest.update(expected);
        expected.iter_mut().for_each(|sum| *sum = math::relu(*sum));
        for leave_out in [true, false] {
            y.copy_from_slice(bias);
            if leave_out {
                kernel::gemv_add_sparse(w, x, y, true)
            } else {
                kernel::gemv_add_relu(w, x, y)
            }
            // Without columns there is nothing to do, and a kernel may leave the sums as they are.
            equal &= columns == 0 || same(y, expected);
        }
        let sums = &mut sums[..columns];
        kernel::gemv_transposed_sparse(w, bias, x, sums);
        for ((sum, column), x) in sums.iter().zip(w.chunks_exact(rows)).zip(x) {
            let exact = column.iter().zip(bias).fold(0.0, |sum, (weight, y)| sum + weight * y);
            equal &= sum.to_bits() == if *x == 0.0 { 0 } else { f32::to_bits(exact) };
        }
        digest.update(sums);
        differing += u64::from(!equal);
    }
    verdict(digest, differing)
}

/// Every activation, single and by lanes, on magnitudes of every exponent, infinity and NaN among them.
pub(super) fn activations(seed: u64) -> u64 {
    let (mut digest, mut differing) = (Digest::new(), 0);
    // The seed moves the arguments inside their exponents.
    let mut bits = seed as u32 & 0xffff;
    while bits <= 0x7fff_ffff {
        let (z, neighbour) = (f32::from_bits(bits), f32::from_bits(bits ^ 0x8000_0100));
        let inputs = [z, -z, neighbour, -neighbour];
        for activation in Activation::ALL {
            let (mut y, mut lanes) = ([0.0; 4], [[0.0; LANES]; 4]);
            activation.layer(&[], &[], &inputs, &mut y);
            activation.layer_batch(&[], &[], &inputs, &mut lanes);
            differing += u64::from(y.iter().zip(lanes).any(|(y, lanes)| !same(&lanes, &[*y; LANES])));
            digest.update(&y);
            // Elements inside and outside of the functions' intervals side by side, and an odd number of them.
            let mut mixed = [z, 8.0, -z, 0.25, 0.0, neighbour, -16.0, -neighbour, z];
            let expected = mixed.map(|z| math::flush(activation.value(z)));
            activation.apply(&mut mixed);
            // The functions of version 1 may be left out of an image.
            let own = activation == Activation::Relu || activation as u32 >= Activation::Tanh as u32;
            differing += u64::from(own && !same(&mixed, &expected));
        }
        bits += 0x0008_3f01;
    }
    for z in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0] {
        for activation in Activation::ALL {
            let mut y = [1.0; 5];
            activation.layer(&[], &[], &[z; 5], &mut y);
            digest.update(&y);
        }
    }
    verdict(digest, differing)
}
