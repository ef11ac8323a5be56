//! Draws of candidate noise: plain, antithetic, quasi-random by a scrambled Sobol sequence, or a Latin hypercube.
//!
//! [`Draws::fill`] fills the rows of a block from a source. Each row by itself has the source's distribution whatever
//! the kind, so a mean over the rows is unbiased; the kinds differ in how the rows of one block depend on each other.
//! The number of random words drawn depends on the sizes alone, and a seed gives the same bits on every machine. No
//! panics, no allocation.
//!
//! Cost: antithetic draws halve the source's elementary functions. A quasi-random coordinate takes the source's
//! quantile function and integer arithmetic: for `2^m` rows 16 conditional exclusive-ors and `m + 3` hashes of 32
//! bits. The table of directions is 2.3 KiB of constants, linked only where quasi-random draws are.

use super::Source;
use crate::math;
use rand_core::Rng;

/// How the rows of a block of noise are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Draws {
    /// Independent rows.
    #[default]
    Plain,
    /// Row `2i + 1` is row `2i` mirrored; odd functions of the noise cancel.
    Antithetic,
    /// Sobol points under nested uniform scrambling (Owen 1995): the first 2^m rows hold one point in each of the 2^m
    /// equal cells of a coordinate. Coordinates after the [`Draws::DIMENSIONS`]th and rows after the
    /// [`Draws::POINTS`]th are independent.
    Quasi,
    /// A Latin hypercube (McKay, Beckman and Conover 1979): of any number of rows each component has one in every
    /// equally likely stratum, in an order of its own. Of the two coordinates of a Student-t component the first.
    Latin,
}

impl Draws {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Antithetic, Self::Quasi, Self::Latin];

    /// Coordinates that [`Quasi`](Self::Quasi) serves; a Student-t component takes two of them.
    pub const DIMENSIONS: usize = POLYNOMIALS.len() + 1;

    /// Rows that [`Quasi`](Self::Quasi) serves.
    pub const POINTS: usize = 1 << COLUMNS;

    /// The name used on the command line and in configuration files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Antithetic => "antithetic",
            Self::Quasi => "quasi",
            Self::Latin => "latin",
        }
    }

    /// Fills `block`, rows of `dim` components, from `source`, under the subnormal rule. `dim = 0` fills nothing.
    ///
    /// Words of `rng`: those of [`Source::sample`] for each row, or for each even row of antithetic draws; two for
    /// quasi-random ones, and one for each coordinate outside the table; of a Latin hypercube one a component for the
    /// order and one for each of its coordinates. A new call is a new scrambling.
    pub fn fill<R: Rng + ?Sized>(self, source: Source, dim: usize, rng: &mut R, block: &mut [f32]) {
        if dim == 0 {
            return;
        }
        match self {
            Self::Plain => block.chunks_mut(dim).for_each(|row| source.sample(rng, row)),
            Self::Antithetic => {
                for pair in block.chunks_mut(dim.saturating_mul(2)) {
                    let (row, mirrored) = pair.split_at_mut(dim.min(pair.len()));
                    source.sample(rng, row);
                    for (mirrored, value) in mirrored.iter_mut().zip(row) {
                        *mirrored = 0.0 - *value;
                    }
                }
            }
            Self::Quasi => {
                let seed = [rng.next_u32(), rng.next_u32()];
                let coordinates = source.coordinates();
                let rows = block.len().div_ceil(dim).max(1);
                // The least with 2^levels >= rows.
                let levels = (usize::BITS - (rows - 1).leading_zeros()) as usize;
                for (k, row) in block.chunks_mut(dim).enumerate() {
                    for (j, value) in row.iter_mut().enumerate() {
                        let first = j.saturating_mul(coordinates);
                        let mut word = |j| scrambled(k, j, levels, seed).unwrap_or_else(|| rng.next_u32());
                        let words = [word(first), if coordinates == 2 { word(first.saturating_add(1)) } else { 0 }];
                        *value = source.of_words(words);
                    }
                }
            }
            Self::Latin => (0..dim).for_each(|j| latin_column(source, dim, j, rng, block)),
        }
    }
}

/// Component `j` of a Latin hypercube: stratum `k` goes to a random place among the first `k + 1` rows, and what stood
/// there to row `k` (the inside-out shuffle).
fn latin_column<R: Rng + ?Sized>(source: Source, dim: usize, j: usize, rng: &mut R, block: &mut [f32]) {
    let rows = block.len().saturating_sub(j).div_ceil(dim);
    let width = 1.0 / rows as f32;
    let unit = |rng: &mut R| 0.5 + 0.5 * math::symmetric_uniform(rng.next_u32());
    for k in 0..rows {
        let place = ((u64::from(rng.next_u32()) * (k as u64 + 1)) >> 32) as usize;
        let first = (k as f32 + unit(rng)) * width;
        let value = if source.coordinates() == 2 {
            source.from_uniform(&[first, unit(rng)])
        } else {
            source.from_uniform(&[first])
        };
        let displaced = block.get(place * dim + j).copied().unwrap_or(value);
        for (row, value) in [(k, displaced), (place, value)] {
            if let Some(cell) = block.get_mut(row * dim + j) {
                *cell = value;
            }
        }
    }
}

/// Binary digits of the index that the table of directions covers.
const COLUMNS: usize = 16;

/// Primitive polynomials over GF(2) and initial direction numbers of the coordinates after the first: degree, inner
/// coefficients as a number, and `m_1, m_2, ..`. Joe and Kuo 2008, "Constructing Sobol sequences with better
/// two-dimensional projections", table new-joe-kuo-6.21201.
const POLYNOMIALS: [(usize, u32, [u32; 7]); 36] = [
    (1, 0, [1, 0, 0, 0, 0, 0, 0]),
    (2, 1, [1, 3, 0, 0, 0, 0, 0]),
    (3, 1, [1, 3, 1, 0, 0, 0, 0]),
    (3, 2, [1, 1, 1, 0, 0, 0, 0]),
    (4, 1, [1, 1, 3, 3, 0, 0, 0]),
    (4, 4, [1, 3, 5, 13, 0, 0, 0]),
    (5, 2, [1, 1, 5, 5, 17, 0, 0]),
    (5, 4, [1, 1, 5, 5, 5, 0, 0]),
    (5, 7, [1, 1, 7, 11, 19, 0, 0]),
    (5, 11, [1, 1, 5, 1, 1, 0, 0]),
    (5, 13, [1, 1, 1, 3, 11, 0, 0]),
    (5, 14, [1, 3, 5, 5, 31, 0, 0]),
    (6, 1, [1, 3, 3, 9, 7, 49, 0]),
    (6, 13, [1, 1, 1, 15, 21, 21, 0]),
    (6, 16, [1, 3, 1, 13, 27, 49, 0]),
    (6, 19, [1, 1, 1, 15, 7, 5, 0]),
    (6, 22, [1, 3, 1, 15, 13, 25, 0]),
    (6, 25, [1, 1, 5, 5, 19, 61, 0]),
    (7, 1, [1, 3, 7, 11, 23, 15, 103]),
    (7, 4, [1, 3, 7, 13, 13, 15, 69]),
    (7, 7, [1, 1, 3, 13, 7, 35, 63]),
    (7, 8, [1, 3, 5, 9, 1, 25, 53]),
    (7, 14, [1, 3, 1, 13, 9, 35, 107]),
    (7, 19, [1, 3, 1, 5, 27, 61, 31]),
    (7, 21, [1, 1, 5, 11, 19, 41, 61]),
    (7, 28, [1, 3, 5, 3, 3, 13, 69]),
    (7, 31, [1, 1, 7, 13, 1, 19, 1]),
    (7, 32, [1, 3, 7, 5, 13, 19, 59]),
    (7, 37, [1, 1, 3, 9, 25, 29, 41]),
    (7, 41, [1, 3, 5, 13, 23, 1, 55]),
    (7, 42, [1, 3, 7, 3, 13, 59, 17]),
    (7, 50, [1, 3, 1, 3, 5, 53, 69]),
    (7, 55, [1, 1, 5, 5, 23, 33, 13]),
    (7, 56, [1, 1, 7, 7, 1, 61, 123]),
    (7, 59, [1, 1, 7, 9, 13, 61, 49]),
    (7, 62, [1, 3, 3, 5, 3, 55, 33]),
];

/// Direction numbers, their first binary digit uppermost: column `i` belongs to digit `i` of the index.
static DIRECTIONS: [[u32; COLUMNS]; Draws::DIMENSIONS] = directions();

/// Sobol's recurrence. `while` and indices, because it runs in the compiler; it never runs on a machine.
const fn directions() -> [[u32; COLUMNS]; Draws::DIMENSIONS] {
    let mut table = [[0; COLUMNS]; Draws::DIMENSIONS];
    let mut column = 0;
    while column < COLUMNS {
        table[0][column] = 1 << (31 - column);
        column += 1;
    }
    let mut j = 1;
    while j < Draws::DIMENSIONS {
        let (degree, inner, initial) = POLYNOMIALS[j - 1];
        let mut column = 0;
        while column < COLUMNS {
            table[j][column] = if column < degree {
                initial[column] << (31 - column)
            } else {
                let back = table[j][column - degree];
                let mut value = back ^ (back >> degree);
                let mut i = 1;
                while i < degree {
                    if (inner >> (degree - 1 - i)) & 1 == 1 {
                        value ^= table[j][column - i];
                    }
                    i += 1;
                }
                value
            };
            column += 1;
        }
        j += 1;
    }
    table
}

/// Coordinate `j` of point `k`, below `2^levels`, scrambled; `None` outside the table.
///
/// Nested uniform scrambling: a digit is flipped by a hash of the seed, the coordinate and the digits before it. The
/// first `levels` digits tell the points apart and the others are zero, so one more hash gives all of those.
fn scrambled(k: usize, j: usize, levels: usize, seed: [u32; 2]) -> Option<u32> {
    let point = sobol(k, j)?;
    let [a, b] = seed;
    let key = mix(a ^ mix(b ^ j as u32));
    // The digits before, after a leading one: the node of the binary tree whose branches the hash may swap.
    let (mut node, mut word) = (1, 0);
    for level in 0..levels.min(COLUMNS) {
        let digit = (point >> (31 - level)) & 1;
        let flip = mix(key ^ node) >> 31;
        word = (word << 1) | (digit ^ flip);
        node = (node << 1) | digit;
    }
    let rest = u64::from(mix(key ^ node));
    Some((((u64::from(word) << 32) | rest) >> levels.min(COLUMNS)) as u32)
}

/// Coordinate `j` of Sobol point `k`, as the binary digits of a fraction.
fn sobol(k: usize, j: usize) -> Option<u32> {
    if k >= Draws::POINTS {
        return None;
    }
    let columns = DIRECTIONS.get(j)?;
    Some(columns.iter().enumerate().fold(0, |x, (i, column)| if (k >> i) & 1 == 1 { x ^ column } else { x }))
}

/// A bijective hash of 32 bits: shifts and odd multipliers, as in the finaliser of MurmurHash3.
fn mix(x: u32) -> u32 {
    let x = (x ^ (x >> 16)).wrapping_add(0x9e37_79b9);
    let x = (x ^ (x >> 15)).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
    x ^ (x >> 16)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::{vec, vec::Vec};

    fn rng(seed: u64) -> Xoshiro128PlusPlus {
        Xoshiro128PlusPlus::seed_from_u64(seed)
    }

    #[test]
    fn the_polynomials_are_primitive_and_the_numbers_lawful() {
        // A recurrence over GF(2) of degree s has the full period 2^s - 1 if and only if its polynomial is primitive.
        let mut seen = std::collections::BTreeSet::new();
        for (degree, inner, initial) in POLYNOMIALS {
            assert!(seen.insert((degree, inner)));
            let taps = (inner << 1) | 1 | (1 << degree);
            let (mut state, mut period) = (1u32, 0);
            loop {
                state <<= 1;
                if (state >> degree) & 1 == 1 {
                    state ^= taps;
                }
                period += 1;
                if state == 1 {
                    break;
                }
            }
            assert_eq!(period, (1 << degree) - 1, "{degree} {inner}");
            for (i, m) in initial.iter().enumerate() {
                assert_eq!(*m != 0, i < degree);
                assert!(*m == 0 || (m % 2 == 1 && *m < 2 << i), "{m}");
            }
        }
        // The published file's lines `d s a m_i`, numbers apart by one space.
        let mut text = std::string::String::new();
        for (i, (degree, inner, initial)) in POLYNOMIALS.iter().enumerate() {
            text += &std::format!("{} {degree} {inner}", i + 2);
            initial.iter().take(*degree).for_each(|m| text += &std::format!(" {m}"));
            text += "\n";
        }
        assert_eq!(crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(text.as_bytes()), 0x093b_922a);
        // The first points of the sequence in three dimensions, in the order of the index (not of its Gray code).
        let point = |k| [0, 1, 2].map(|j| f64::from(sobol(k, j).unwrap()) / 4294967296.0);
        assert_eq!([point(1), point(2), point(3)], [[0.5; 3], [0.25, 0.75, 0.75], [0.75, 0.25, 0.25]]);
        assert_eq!(point(4), [0.125, 0.625, 0.375]);
    }

    #[test]
    fn every_coordinate_is_stratified_exactly() {
        for m in [0, 1, 4, 7, 10] {
            for j in 0..Draws::DIMENSIONS {
                // Cells of width 2^-m by the upper m bits, scrambled or not.
                let mut filled = vec![[false; 3]; 1 << m];
                for k in 0..1 << m {
                    for (kind, word) in
                        [sobol(k, j), scrambled(k, j, m, [3, 77]), scrambled(k, j, 12, [3, 77])].into_iter().enumerate()
                    {
                        let cell = u64::from(word.unwrap()) << m >> 32;
                        assert!(!core::mem::replace(&mut filled[cell as usize][kind], true), "{m} {j} {k}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_pairs_fill_every_elementary_rectangle() {
        // The first two coordinates are a (0, m, 2)-net: each of the 2^m rectangles of 2^-i by 2^-(m-i) has one point.
        // Scrambling keeps that. The third with either has quality parameter 1: rectangles of twice the area have two.
        let m = 8;
        for (a, b, quality) in [(0, 1, 0), (0, 2, 1), (1, 2, 1)] {
            for seed in 0..10 {
                for i in 0..=m - quality {
                    let cells = m - quality - i;
                    let mut counts = vec![0; 1 << (m - quality)];
                    for k in 0..1 << m {
                        let word = |j| u64::from(scrambled(k, j, m, [seed, 5]).unwrap());
                        counts[((((word(a) << i) >> 32) << cells) + ((word(b) << cells) >> 32)) as usize] += 1;
                    }
                    assert!(counts.iter().all(|c| *c == 1 << quality), "{a} {b} {i}");
                }
            }
        }
    }

    #[test]
    fn scrambling_flips_each_digit_fairly_and_apart_from_the_others() {
        // Nested uniform scrambling: the flip of digit i is a fair coin for each value of the digits before it. The
        // flips of the first four levels are 15 bits; each, and each parity of two, has a mean of 0 +- 1/sqrt(N).
        const N: u32 = 20_000;
        let mut generator = rng(5);
        let (mut sums, mut joint) = ([[0i32; 15]; 15], [0u32; 128]);
        for _ in 0..N {
            let seed = [generator.next_u32(), generator.next_u32()];
            let mut flips = [0i32; 15];
            for level in 0..4 {
                for prefix in 0..1 << level {
                    // The first coordinate of Sobol's sequence is the index with its digits reversed.
                    let node = |last: usize| {
                        let k = ((prefix << 1) | last).reverse_bits() >> (usize::BITS - 1 - level as u32);
                        scrambled(k, 0, 9, seed).unwrap() >> (31 - level)
                    };
                    flips[(1 << level) - 1 + prefix] = 1 - 2 * (node(0) & 1) as i32;
                    // The digit is flipped for both its values, and the digits before it are the same for both.
                    assert_eq!(node(0) ^ node(1), 1);
                }
            }
            joint[flips.iter().take(7).fold(0, |cell, flip| 2 * cell + usize::from(*flip > 0))] += 1;
            for i in 0..15 {
                sums[i][i] += flips[i];
                (0..i).for_each(|j| sums[i][j] += flips[i] * flips[j]);
            }
        }
        // 4.5 standard errors: one of 120 such means exceeds them in one of a thousand trials.
        let limit = 4.5 * f64::from(N).sqrt();
        for (i, row) in sums.iter().enumerate() {
            for (j, sum) in row.iter().take(i + 1).enumerate() {
                assert!(f64::from(*sum).abs() < limit, "{i} {j}: {sum}");
            }
        }
        // The joint distribution of the first three levels, which has 128 equal cells: chi squared, five deviations.
        let mean = f64::from(N) / 128.0;
        let chi = joint.iter().map(|count| (f64::from(*count) - mean).powi(2) / mean).sum::<f64>();
        assert!((chi - 127.0).abs() < 5.0 * 254f64.sqrt(), "{chi}");
    }

    /// Mean over the rows of `f`, for each of `runs` seeds: the mean of these means and their variance.
    fn integrate(draws: Draws, source: Source, dim: usize, k: usize, runs: u64, f: fn(&[f32]) -> f64) -> (f64, f64) {
        let mut block = vec![0.0; k * dim];
        let means: Vec<f64> = (0..runs)
            .map(|seed| {
                draws.fill(source, dim, &mut rng(seed), &mut block);
                block.chunks_exact(dim).map(f).sum::<f64>() / k as f64
            })
            .collect();
        let mean = means.iter().sum::<f64>() / runs as f64;
        (mean, means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (runs - 1) as f64)
    }

    /// A smooth integrand with the mean `e^(-dim/20)` under a standard normal, neither odd nor even nor additive.
    fn smooth(z: &[f32]) -> f64 {
        let sum: f64 = z.iter().map(|z| f64::from(*z)).sum();
        let scale = 0.1f64.sqrt();
        (scale * sum).cos() + (scale * sum).sin()
    }

    #[test]
    fn every_kind_is_unbiased_over_seeds() {
        const RUNS: u64 = 2000;
        for draws in Draws::ALL {
            for k in [1, 5, 16] {
                let (mean, variance) = integrate(draws, Source::Gaussian, 3, k, RUNS, smooth);
                let exact = (-0.15f64).exp();
                // Five standard errors of the mean over the seeds.
                assert!((mean - exact).abs() < 5.0 * (variance / RUNS as f64).sqrt(), "{draws:?} {k}: {mean} {exact}");
            }
            for source in [Source::Laplace, Source::StudentT { dof: 3.0 }, Source::Uniform] {
                // The share of a quadrant, exactly a quarter for a symmetric source.
                let f: fn(&[f32]) -> f64 = |z| f64::from(u8::from(z[0] > 0.0 && z[2] < 0.0));
                let (mean, variance) = integrate(draws, source, 3, 7, RUNS, f);
                assert!((mean - 0.25).abs() < 5.0 * (variance / RUNS as f64).sqrt(), "{draws:?} {source:?}: {mean}");
            }
        }
    }

    #[test]
    fn quasi_random_draws_integrate_better_than_plain_ones() {
        // Scrambled nets have a variance of about K^-3 on smooth integrands, plain draws of K^-1; at K = 64 in two
        // dimensions 64^2 = 4096 is the size of the ratio, and 50 leaves room for constants and a logarithm. In
        // six dimensions the gain comes from the low-order part of the integrand, so the bound is modest.
        for (dim, ratio) in [(2, 50.0), (6, 4.0)] {
            let plain = integrate(Draws::Plain, Source::Gaussian, dim, 64, 300, smooth).1;
            let quasi = integrate(Draws::Quasi, Source::Gaussian, dim, 64, 300, smooth).1;
            assert!(quasi * ratio < plain, "{dim}: {plain} {quasi}");
        }
        // Antithetic draws integrate odd functions exactly.
        let odd: fn(&[f32]) -> f64 = |z| f64::from(z[0] + z[1] * z[1] * z[1]);
        let (mean, variance) = integrate(Draws::Antithetic, Source::Gaussian, 3, 8, 50, odd);
        assert!(mean.abs() < 1e-12 && variance < 1e-24, "{mean} {variance}");
    }

    #[test]
    fn rows_are_mirrored_and_words_are_counted() {
        let mut block = [0.0; 15];
        let sources = [Source::Gaussian, Source::StudentT { dof: 2.0 }, Source::Uniform];
        for source in sources {
            Draws::Antithetic.fill(source, 3, &mut rng(1), &mut block);
            let mut expected = [0.0; 3];
            source.sample(&mut rng(1), &mut expected);
            assert_eq!(block[..3], expected);
            assert_eq!(block[3..6], expected.map(|z| -z));
            assert_ne!(block[6..9], block[12..15]);
            for draws in Draws::ALL {
                // The rows of a block whose length is no multiple of the dimension end with a short one.
                for (dim, length) in [(3, 15), (1, 4), (3, 14), (0, 5), (4, 0)] {
                    let per_row =
                        |n: usize| if source == Source::Gaussian { n + n % 2 } else { n * source.coordinates() };
                    let rows = vec![0; length];
                    let rows = rows.chunks(dim.max(1)).map(<[i32]>::len);
                    let words = match draws {
                        _ if dim == 0 => 0,
                        Draws::Plain => rows.map(per_row).sum(),
                        Draws::Antithetic => rows.step_by(2).map(per_row).sum(),
                        Draws::Quasi => 2,
                        Draws::Latin => length * (1 + source.coordinates()),
                    };
                    let (mut a, mut b) = (rng(2), rng(2));
                    draws.fill(source, dim, &mut a, &mut block[..length]);
                    (0..words).for_each(|_| {
                        b.next_u32();
                    });
                    assert_eq!(a.next_u32(), b.next_u32(), "{draws:?} {source:?} {dim} {length}");
                }
            }
        }
    }

    #[test]
    fn a_latin_hypercube_has_one_row_in_every_stratum_and_independent_columns() {
        let (dim, rows) = (3, 37);
        let mut block = vec![0.0; dim * rows];
        let (mut product, mut first) = (0.0, 0);
        for seed in 0..400 {
            Draws::Latin.fill(Source::Uniform, dim, &mut rng(seed), &mut block);
            for j in 0..dim {
                let mut filled = vec![false; rows];
                for z in block.iter().skip(j).step_by(dim) {
                    let stratum = (0.5 * (z + 1.0) * rows as f32) as usize;
                    assert!(!core::mem::replace(&mut filled[stratum], true), "{seed} {j} {z}");
                }
            }
            product += block.chunks_exact(dim).map(|row| f64::from(row[0] * row[2])).sum::<f64>();
            first += usize::from(block[0] < -1.0 + 2.0 / 37.0);
        }
        // Five standard errors: a product of two uniforms has variance 1/9, a stratum comes first once in 37 times.
        assert!((product / (400.0 * 37.0)).abs() < 5.0 * (1.0 / 9.0 / (400.0 * 37.0f64)).sqrt(), "{product}");
        assert!((first as f64 - 400.0 / 37.0).abs() < 5.0 * (400.0f64 / 37.0).sqrt(), "{first}");
    }

    #[test]
    fn beyond_the_table_coordinates_are_independent_and_uniform() {
        let dim = Draws::DIMENSIONS + 3;
        let mut block = vec![0.0; 400 * dim];
        let mut generator = rng(4);
        Draws::Quasi.fill(Source::Uniform, dim, &mut generator, &mut block);
        for j in [Draws::DIMENSIONS, dim - 1] {
            let mean = block.iter().skip(j).step_by(dim).map(|z| f64::from(*z)).sum::<f64>() / 400.0;
            // Five standard errors of a variance of 1/3; not the exact stratification of the coordinates before.
            assert!(mean.abs() < 5.0 * (1.0f64 / 3.0 / 400.0).sqrt(), "{mean}");
        }
        let (mut words, mut row) = (rng(4), [0.0; 3]);
        (0..2).for_each(|_| {
            words.next_u32();
        });
        Source::Uniform.sample(&mut words, &mut row);
        assert_eq!(block[Draws::DIMENSIONS..dim], row);
        let beyond = [scrambled(Draws::POINTS, 0, 16, [1, 2]), scrambled(0, Draws::DIMENSIONS, 16, [1, 2])];
        assert_eq!(beyond, [None, None]);
    }
}
