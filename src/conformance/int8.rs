//! The int8 kernel of this target against the portable one, and int8 networks of every kind. Needs 8 kB of stack.

use super::kernel::verdict;
use super::{ACT, FREQUENCIES, H, OBS, VELOCITY, fill, uniform};
use crate::flow::{Plan, Sampler, SamplerScratch, Solver, Source};
use crate::math::{self, Digest};
use crate::net::kernel::int8::{self, COLUMNS, Tile, portable};
use crate::net::{Activation, Calibration, QuantisedNet, Trunk, Velocity, VelocityShape, quantise};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

const MOST_ROWS: usize = 18;
const MOST_GROUPS: usize = 5;
const TILES: usize = int8::tiles(MOST_ROWS, MOST_GROUPS * COLUMNS);

/// `accumulate` on every shape of up to 18 rows and 40 columns, with any weights and activations.
pub(super) fn kernel(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let (mut digest, mut differing) = (Digest::new(), 0);
    let mut w: [Tile; TILES] = [[0; 8]; TILES];
    w.as_flattened_mut().iter_mut().for_each(|word| *word = rng.next_u32());
    for rows in 1..=MOST_ROWS {
        for columns in 0..=MOST_GROUPS * COLUMNS {
            let groups = columns.div_ceil(COLUMNS);
            let (mut x, mut x_by_definition) = ([[0; 4]; MOST_GROUPS], [[0; 4]; MOST_GROUPS]);
            let mut equal = true;
            for (x, by_definition) in x.iter_mut().zip(&mut x_by_definition) {
                let values = core::array::from_fn(|_| rng.next_u32() as i16 >> 2);
                (*x, *by_definition) = (int8::pack(values), portable::pack(values));
                equal &= int8::unpack(*x) == portable::unpack(*by_definition);
                let (x, by_definition): (&[i16; COLUMNS], &[i16; COLUMNS]) =
                    (zerocopy::transmute_ref!(x), zerocopy::transmute_ref!(by_definition));
                equal &= (0..COLUMNS).all(|j| x[int8::place(j)] == by_definition[portable::place(j)]);
            }
            let mut w = w;
            let w = &mut w[..int8::tiles(rows, columns)];
            // What fills up the last tile of a row is zero.
            for tile in w.iter_mut().skip(groups.saturating_sub(1)).step_by(groups.max(1)) {
                let bytes: &mut [[i8; COLUMNS]; int8::ROWS] = zerocopy::transmute_mut!(tile);
                for row in bytes {
                    row[columns - (groups - 1) * COLUMNS..].fill(0);
                }
            }
            // Rows by fours; the rest of the last four stays what it was.
            let start: [i32; 20] = core::array::from_fn(|_| rng.next_u32() as i32 >> 4);
            let (mut sums, mut anew, mut expected) = (start, [7; 20], start);
            int8::dense(w, &x, columns, None, &mut sums[..rows]);
            int8::dense(w, &x, columns, Some(&start[..rows]), &mut anew[..rows]);
            portable::dense(w, &x_by_definition[..groups], columns, None, expected.as_chunks_mut().0);
            equal &= sums[..rows] == expected[..rows] && (columns == 0 || anew[..rows] == expected[..rows]);
            let multipliers: [i32; 20] = core::array::from_fn(|_| (rng.next_u32() >> (1 + rows % 8)) as i32);
            let (mut y, mut y_by_definition) = ([[0; 4]; 3], [[0; 2]; 5]);
            int8::dense_relu(w, &x, columns, &start[..rows], &multipliers[..rows], &mut y);
            let x = &x_by_definition[..groups];
            portable::dense_relu(w, x, columns, start.as_chunks().0, multipliers.as_chunks().0, &mut y_by_definition);
            let y = y.map(int8::unpack);
            let y_by_definition: &[[i16; 4]; 5] = zerocopy::transmute_ref!(&y_by_definition);
            equal &= columns == 0 || y.as_flattened()[..rows] == y_by_definition.as_flattened()[..rows];
            differing += u64::from(!equal);
            for y in &y.as_flattened()[..rows] {
                digest.update(&[f32::from(*y)]);
            }
            for sum in &sums[..rows] {
                digest.update(&[(sum >> 16) as f32, (sum & 0xffff) as f32]);
            }
        }
    }
    verdict(digest, differing + rounding(&mut rng))
}

/// How many slices of inputs are not rounded as the definition says: any bits, halves, and numbers about the ends.
fn rounding(rng: &mut Xoshiro128PlusPlus) -> u64 {
    let mut differing = 0;
    for gain in [1.0, 333.3, 2.0 * 8191.0, 1.1e15, 1e-15] {
        for n in 1..=int8::SLICE {
            let x: [f32; int8::SLICE] = core::array::from_fn(|_| match rng.next_u32() % 4 {
                0 => f32::from_bits(rng.next_u32()),
                1 => 0.5 * f32::from(rng.next_u32() as i16),
                2 => f32::from_bits(8190f32.to_bits() + rng.next_u32() % 4096 + (rng.next_u32() << 31)),
                _ => [f32::NAN, f32::INFINITY, -f32::INFINITY, -0.0, 8191.5, -8191.5, 8190.5, -8192.0]
                    [rng.next_u32() as usize % 8],
            });
            let mut memory = int8::Slice::new();
            let groups = memory.fill(&x[..n], gain);
            let equal = groups.len() >= n.div_ceil(COLUMNS)
                && groups
                    .iter()
                    .flat_map(|group| int8::unpack(*group))
                    .enumerate()
                    .all(|(j, number)| number == if j < n { int8::quantise(x[j], gain) } else { 0 });
            differing += u64::from(!equal);
        }
    }
    differing
}

const SHAPE: VelocityShape = VelocityShape { activation: Activation::Tanh, ..VELOCITY };
const WORDS: usize = QuantisedNet::words_of(&SHAPE);

/// Parts, velocities and samples of int8 networks with every activation and trunk.
pub(super) fn velocity(seed: u64) -> u64 {
    let mut digest = Digest::new();
    for activation in Activation::ALL {
        for trunk in [Trunk::Plain, Trunk::Residual] {
            network(VelocityShape { activation, trunk, ..SHAPE }, seed, &mut digest);
        }
    }
    digest.finish()
}

/// An error shows as a digest of fewer numbers.
fn network(shape: VelocityShape, seed: u64, digest: &mut Digest) {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut words = [0; WORDS];
    let words = &mut words[..QuantisedNet::words_of(&shape)];
    let calibration = Calibration { input: 3.0, sums: &[4.0, 3.0], outputs: &[3.0, 2.0] };
    if quantised(&shape, &mut rng, &calibration, words).is_none() {
        return;
    }
    let Ok(net) = QuantisedNet::new(shape, &FREQUENCIES, words) else { return };
    let plan = Plan { solver: Solver::Heun, steps: 2, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
    let net = Velocity::from(net);
    let Ok(sampler) = Sampler::new(&net, plan) else { return };
    let (mut table, mut layers, mut slopes) = ([0.0; 3 * H], [[0.0; H]; 4], [0.0; 3 * ACT]);
    let [state, base, a, b] = &mut layers;
    let mut scratch = SamplerScratch { table: &mut table, state, base, a, b, slopes: &mut slopes };
    if sampler.prepare(&mut scratch).is_err() {
        return;
    }
    for _ in 0..10 {
        let s: [f32; OBS] = uniform(&mut rng, 4.0);
        let mut x = [0.0; ACT];
        Source::Gaussian.sample(&mut rng, &mut x);
        if sampler.observe(&s, &mut scratch).is_err() || sampler.integrate(&mut x, &mut scratch).is_err() {
            return;
        }
        digest.update(&x);
    }
    let (mut base, mut v) = ([0.0; H], [0.0; ACT]);
    net.join(scratch.state, scratch.table, &mut base);
    net.velocity(&base, &[0.5; ACT], scratch.a, scratch.b, &mut v);
    digest.update(&v.map(math::flush));
}

/// In a function of its own, whose floats leave the stack with it.
#[inline(never)]
fn quantised(
    shape: &VelocityShape,
    rng: &mut Xoshiro128PlusPlus,
    calibration: &Calibration<'_>,
    words: &mut [u32],
) -> Option<()> {
    let mut params = [0.0; VELOCITY.params()];
    fill(rng, 0.7, &mut params);
    quantise(shape, &params, calibration, words).ok()
}
