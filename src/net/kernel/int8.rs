//! The int8 kernel: `W q` for 8-bit weights and 16-bit activations, summed in 32 bits.
//!
//! Integer sums are exact, so every order gives the same bits, and each machine takes the one it is fastest with: `SMLAD` on a
//! core with the DSP extension, Helium on a Cortex-M55, else the portable code below, which is also the definition. The
//! conformance program compares them on every target.
//!
//! Weights come in tiles of four rows by eight columns, row by row within a tile; the tiles of the first four rows come first.
//! A matrix whose sizes are no multiples of four and eight is filled up with zeros. Activations come in groups of eight, in an
//! order within the group that is the kernel's own: [`pack`] and [`unpack`] know it. Sums wrap around; callers see to it that
//! they do not get there. No panics, no allocation; deterministic. Instructions a multiply-accumulate of a 64 x 64 layer:
//! see `cargo xtask firmware-report`.

/// Rows and columns of a tile.
pub(crate) const ROWS: usize = 4;
pub(crate) const COLUMNS: usize = 8;

/// Weights of four rows by eight columns, a byte each, in words so that they are aligned.
pub(crate) type Tile = [u32; 8];

/// Eight activations.
pub(crate) type Group = [u32; 4];

/// Activations are integers of 14 bits, from `-ACTIVATION_MAX - 1` to this.
pub(crate) const ACTIVATION_MAX: i32 = 8191;

/// Inputs of the first layer that are quantised at once, on the stack.
pub(crate) const SLICE: usize = 64;

/// An input as an integer: `x gain` to the nearest, halves to even, held in the range of activations. NaN gives zero.
///
/// In integers where it can be, since a comparison of floats costs a call on a core without an FPU.
#[cfg_attr(
    any(flowlet_mve, all(flowlet_dsp, flowlet_vfp)),
    allow(dead_code, reason = "the definition of what is in assembly")
)]
#[inline]
pub(crate) fn quantise(x: f32, gain: f32) -> i16 {
    // Between 2^23 and 2^24 a float's last bit is a one: the addition rounds, and the mantissa is the integer.
    const SHIFT: f32 = 1.5 * (1 << 23) as f32;
    const LARGE: u32 = (ACTIVATION_MAX as f32).to_bits();
    const INFINITE: u32 = f32::INFINITY.to_bits();
    let scaled = x * gain;
    match scaled.to_bits() & 0x7fff_ffff {
        ..LARGE => (scaled + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i16,
        LARGE..=INFINITE if scaled.to_bits() >> 31 == 0 => ACTIVATION_MAX as i16,
        LARGE..=INFINITE => -ACTIVATION_MAX as i16,
        _ => 0,
    }
}

/// `sum * multiplier / 2^32` to the nearest integer, halves upwards.
#[inline(always)]
pub(crate) fn requantise(sum: i32, multiplier: i32) -> i32 {
    ((i64::from(sum) * i64::from(multiplier) + (1 << 31)) >> 32) as i32
}

/// Tiles of a matrix.
pub(crate) const fn tiles(rows: usize, columns: usize) -> usize {
    rows.div_ceil(ROWS).saturating_mul(columns.div_ceil(COLUMNS))
}

/// `sums = start + W x` for a `W` of `sums.len()` rows and `columns` columns; without a `start` the sums begin with what they are.
///
/// Rows that `w` or `start` lacks, and all of them where `x` is shorter than the columns, are left as they were.
#[inline]
pub(crate) fn dense(w: &[Tile], x: &[Group], columns: usize, start: Option<&[i32]>, sums: &mut [i32]) {
    let groups = columns.div_ceil(COLUMNS);
    let Some(x) = x.get(..groups) else { return };
    let (whole, rest) = sums.as_chunks_mut::<ROWS>();
    let (from, rest_from) = start.map(|start| start.as_chunks::<ROWS>()).unzip();
    let (most, last) = w.split_at_checked(groups.saturating_mul(whole.len())).unwrap_or((w, &[]));
    machine::dense(most, x, columns, from, whole);
    if !rest.is_empty() {
        let mut padded = [[0; ROWS]];
        padded.iter_mut().flatten().zip(rest_from.unwrap_or(rest)).for_each(|(to, from)| *to = *from);
        machine::dense(last, x, columns, None, &mut padded);
        padded.iter().flatten().zip(rest).for_each(|(from, to)| *to = *from);
    }
}

/// `y = relu(start + W x)` for a `W` of `start.len()` rows and `columns` columns, each sum brought to the units of `y` by its row's
/// multiplier. Rows that are missing in a slice are left as they were; those that fill the last four are zero.
#[inline]
pub(crate) fn dense_relu(w: &[Tile], x: &[Group], columns: usize, start: &[i32], multipliers: &[i32], y: &mut [Group]) {
    let groups = columns.div_ceil(COLUMNS);
    let Some(x) = x.get(..groups) else { return };
    let ((start, last_start), (multipliers, last_multipliers)) = (start.as_chunks(), multipliers.as_chunks());
    let (y, _) = y.as_flattened_mut().as_chunks_mut();
    let (most, last) = w.split_at_checked(groups.saturating_mul(start.len())).unwrap_or((w, &[]));
    machine::dense_relu(most, x, columns, start, multipliers, y);
    if let (Some(y), false) = (y.get_mut(start.len()..), last_start.is_empty()) {
        let mut padded = [[0; ROWS]; 2];
        padded[0].iter_mut().zip(last_start).for_each(|(to, from)| *to = *from);
        padded[1].iter_mut().zip(last_multipliers).for_each(|(to, from)| *to = *from);
        machine::dense_relu(last, x, columns, &padded[..1], &padded[1..], y);
    }
}

#[cfg(any(flowlet_mve, all(flowlet_dsp, flowlet_vfp)))]
pub(crate) use machine::Slice;
pub(crate) use machine::{pack, place, unpack};
#[cfg(not(any(flowlet_mve, all(flowlet_dsp, flowlet_vfp))))]
pub(crate) use rounding::Slice;

#[cfg(not(any(flowlet_dsp, flowlet_mve)))]
use portable as machine;

/// Rounding inputs where no assembly does it.
#[cfg(not(any(flowlet_mve, all(flowlet_dsp, flowlet_vfp))))]
mod rounding {
    use super::{COLUMNS, Group, SLICE, place, quantise};

    /// The groups of up to [`SLICE`] inputs.
    pub(crate) struct Slice([Group; SLICE / COLUMNS]);

    impl Slice {
        #[inline(always)]
        pub(crate) fn new() -> Self {
            Self([[0; 4]; SLICE / COLUMNS])
        }

        /// Quantises up to [`SLICE`] inputs and gives their groups, the last one filled up with zeros. Use it once.
        #[inline(always)]
        pub(crate) fn fill(&mut self, x: &[f32], gain: f32) -> &[Group] {
            let numbers: &mut [i16; SLICE] = zerocopy::transmute_mut!(&mut self.0);
            for (j, x) in x.iter().enumerate() {
                if let Some(number) = numbers.get_mut(place(j)) {
                    *number = quantise(*x, gain);
                }
            }
            &self.0
        }
    }
}

/// The definition, and what runs where nothing is better.
pub(crate) mod portable {
    use super::{ACTIVATION_MAX, COLUMNS, Group, ROWS, Tile, requantise};
    use zerocopy::{transmute, transmute_ref};

    /// See [`super::dense`]; `x` has the groups of the columns, `start` and `sums` are the rows by fours.
    #[inline]
    pub(crate) fn dense(
        w: &[Tile],
        x: &[Group],
        columns: usize,
        start: Option<&[[i32; ROWS]]>,
        sums: &mut [[i32; ROWS]],
    ) {
        for (i, (tiles, sums)) in w.chunks_exact(x.len().max(1)).zip(sums).enumerate() {
            let from = match start.map(|start| start.get(i)) {
                Some(Some(start)) => *start,
                Some(None) => return,
                None => *sums,
            };
            *sums = rows(tiles, x, columns, from);
        }
    }

    /// See [`super::dense_relu`]; `start`, `multipliers` and `y` are the rows by fours.
    #[inline]
    pub(crate) fn dense_relu(
        w: &[Tile],
        x: &[Group],
        columns: usize,
        start: &[[i32; ROWS]],
        multipliers: &[[i32; ROWS]],
        y: &mut [[u32; 2]],
    ) {
        for (((tiles, start), multipliers), y) in w.chunks_exact(x.len().max(1)).zip(start).zip(multipliers).zip(y) {
            let mut values = [0i16; ROWS];
            for ((value, sum), multiplier) in values.iter_mut().zip(rows(tiles, x, columns, *start)).zip(multipliers) {
                *value = requantise(sum, *multiplier).clamp(0, ACTIVATION_MAX) as i16;
            }
            *y = transmute!(values);
        }
    }

    /// Four rows.
    #[inline(always)]
    fn rows(tiles: &[Tile], x: &[Group], columns: usize, start: [i32; ROWS]) -> [i32; ROWS] {
        let mut sums = start;
        // A last group of at most four columns is done by halves.
        let full = columns.saturating_add(COLUMNS / 2 - 1) / COLUMNS;
        for (tile, group) in tiles.iter().zip(x).take(full) {
            multiply::<COLUMNS>(tile, group, &mut sums);
        }
        for (tile, group) in tiles.iter().zip(x).skip(full) {
            multiply::<{ COLUMNS / 2 }>(tile, group, &mut sums);
        }
        sums
    }

    /// Adds the first `N` columns of a tile.
    #[inline(always)]
    fn multiply<const N: usize>(tile: &Tile, group: &Group, sums: &mut [i32; ROWS]) {
        let (tile, group): (&[[i8; COLUMNS]; ROWS], &[i16; COLUMNS]) = (transmute_ref!(tile), transmute_ref!(group));
        for (sum, weights) in sums.iter_mut().zip(tile) {
            for (weight, input) in weights.iter().zip(group).take(N) {
                *sum = sum.wrapping_add(i32::from(*weight) * i32::from(*input));
            }
        }
    }

    /// Where activation `j` stands among the numbers of the groups.
    #[inline(always)]
    pub(crate) const fn place(j: usize) -> usize {
        j
    }

    /// A group of eight activations.
    #[inline]
    pub(crate) fn pack(values: [i16; 8]) -> Group {
        transmute!(values)
    }

    /// The activations of a group.
    #[inline]
    pub(crate) fn unpack(group: Group) -> [i16; 8] {
        transmute!(group)
    }
}

#[cfg(any(flowlet_dsp, flowlet_mve))]
#[path = "int8_arm.rs"]
#[allow(unsafe_code)]
mod machine;

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::vec::Vec;

    #[test]
    fn tiles_are_the_matrix_that_they_stand_for() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(8);
        for rows in [1, 2, 3, 4, 5, 7, 8, 33, 64] {
            for columns in [1, 2, 7, 8, 9, 24, 63, 64] {
                let matrix: Vec<i8> = (0..rows * columns).map(|_| rng.next_u32() as i8).collect();
                let input: Vec<i16> = (0..columns).map(|_| (rng.next_u32() % 16_383) as i16 - 8191).collect();
                let mut bytes = std::vec![[0i8; 32]; tiles(rows, columns)];
                for (place, weight) in matrix.iter().enumerate() {
                    let (i, j) = (place / columns, place % columns);
                    bytes[i / 4 * columns.div_ceil(8) + j / 8][i % 4 * 8 + j % 8] = *weight;
                }
                let w: Vec<Tile> = bytes.into_iter().map(|tile| zerocopy::transmute!(tile)).collect();
                let x: Vec<Group> = (input.chunks(8))
                    .map(|chunk| {
                        let mut values = [0; 8];
                        values[..chunk.len()].copy_from_slice(chunk);
                        assert_eq!(unpack(pack(values)), values);
                        pack(values)
                    })
                    .collect();
                let mut sums: Vec<i32> = (0..rows).map(|_| rng.next_u32() as i32 >> 4).collect();
                let exact: Vec<i64> = (0..rows)
                    .map(|i| {
                        let products = (0..columns).map(|j| i64::from(matrix[i * columns + j]) * i64::from(input[j]));
                        i64::from(sums[i]) + products.sum::<i64>()
                    })
                    .collect();
                let (mut anew, start) = (std::vec![7; rows], sums.clone());
                dense(&w, &x, columns, Some(&start), &mut anew);
                dense(&w, &x, columns, None, &mut sums);
                assert_eq!(anew, sums);
                let multipliers: Vec<i32> = (0..rows).map(|_| (rng.next_u32() >> 6) as i32).collect();
                let mut y = std::vec![[0; 4]; rows.div_ceil(8)];
                dense_relu(&w, &x, columns, &start, &multipliers, &mut y);
                let y: Vec<i32> = y.into_iter().flat_map(unpack).map(i32::from).take(rows).collect();
                let scaled = sums.iter().zip(&multipliers).map(|(sum, m)| requantise(*sum, *m).clamp(0, 8191));
                assert_eq!(y, scaled.collect::<Vec<_>>());
                assert_eq!(sums.iter().map(|sum| i64::from(*sum)).collect::<Vec<_>>(), exact, "{rows} x {columns}");
            }
        }
    }

    #[test]
    fn slices_that_do_not_fit_are_harmless() {
        let mut sums = [1; 9];
        dense(&[[u32::MAX; 8]; 3], &[[u32::MAX; 4]; 2], 16, None, &mut sums);
        dense(&[[u32::MAX; 8]; 3], &[[u32::MAX; 4]; 2], usize::MAX, None, &mut sums);
        dense(&[], &[], 0, None, &mut sums);
        dense(&[[7; 8]; 2], &[], 3, None, &mut sums);
        dense(&[[7; 8]; 9], &[[1; 4]], 3, Some(&[1; 5]), &mut sums);
        dense(&[[7; 8]; 2], &[[1; 4]], 8, Some(&[]), &mut []);
        let mut y = [[0; 4]; 2];
        dense_relu(&[[7; 8]; 2], &[[1; 4]], 8, &[1; 13], &[1; 2], &mut y);
        dense_relu(&[[7; 8]; 9], &[[1; 4]; 3], 19, &[1; 30], &[1; 30], &mut y);
        dense_relu(&[], &[], usize::MAX, &[1; 3], &[], &mut []);
    }
}
