//! Seeded random numbers of the trainer: one stream per purpose, no global generator.
//!
//! Xoshiro256++ gives the bits; Gaussians come from Box-Muller in f32, several at a time. Equal (seed, stream) gives
//! equal bits on every machine. Nothing allocates or panics. Not for secrets.
//!
//! Cost: about 2 ns a Gaussian and 1 ns a uniform number.

use crate::nn::lanes::{LANES, Lane};
use crate::nn::math::{ln, sin_cos_turn, vectorised};
use crate::state::Visitor;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// Gaussians made at a time; the two uniforms of a pair stand half a block apart.
const BLOCK: usize = 128;

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Noise {
    rng: Xoshiro256PlusPlus,
}

impl Noise {
    /// The stream numbered `stream` of `seed`. Streams of one seed are unrelated to each other.
    pub fn new(seed: u64, stream: u64) -> Self {
        // An odd multiplier spreads the stream numbers; seed_from_u64 then hashes the sum by SplitMix64.
        let mixed = seed.wrapping_add(stream.wrapping_mul(0xd1b5_4a32_d192_ed03));
        Self { rng: Xoshiro256PlusPlus::seed_from_u64(mixed) }
    }

    /// The generator itself, for environments.
    pub fn rng(&mut self) -> &mut Xoshiro256PlusPlus {
        &mut self.rng
    }

    /// Shows the generator's state.
    pub fn visit(&mut self, name: &str, visitor: &mut dyn Visitor) {
        let mut words = words_of(&self.rng);
        visitor.u64s(name, &mut words);
        self.rng = of_words(words);
    }

    /// One number of (0, 1), on a grid of 2^-23 that leaves out both ends.
    pub fn uniform(&mut self) -> f32 {
        open_unit((self.rng.next_u64() >> 41) as u32)
    }

    /// A whole number below `n`, with n < 2^32. Its bias is below n / 2^32.
    pub fn below(&mut self, n: usize) -> usize {
        (((self.rng.next_u64() >> 32) * n as u64) >> 32) as usize
    }

    /// Fills `out` with numbers of (low, high).
    pub fn uniform_in(&mut self, out: &mut [f32], low: f32, high: f32) {
        for x in out {
            *x = low + (high - low) * self.uniform();
        }
    }

    /// Fills `out` with standard normal numbers.
    pub fn gaussian(&mut self, out: &mut [f32]) {
        let mut blocks = out.chunks_exact_mut(BLOCK);
        for block in &mut blocks {
            self.block(block);
        }
        let rest = blocks.into_remainder();
        if !rest.is_empty() {
            let mut block = [0.0; BLOCK];
            self.block(&mut block);
            rest.copy_from_slice(&block[..rest.len()]);
        }
    }

    /// As [`Self::gaussian`], for lanes.
    pub fn gaussian_lanes(&mut self, out: &mut [Lane]) {
        for lanes in out.chunks_mut(BLOCK / LANES) {
            let mut block = [0.0; BLOCK];
            self.block(&mut block);
            lanes.iter_mut().zip(block.chunks_exact(LANES)).for_each(|(lane, x)| lane.0.copy_from_slice(x));
        }
    }

    /// Box-Muller over one block of `BLOCK` numbers.
    fn block(&mut self, out: &mut [f32]) {
        for pair in out.chunks_exact_mut(2) {
            let bits = self.rng.next_u64();
            pair[0] = open_unit((bits >> 41) as u32);
            pair[1] = open_unit((bits as u32) >> 9);
        }
        vectorised(|| {
            let (first, second) = out.split_at_mut(BLOCK / 2);
            for (a, b) in first.iter_mut().zip(second) {
                let radius = (-2.0 * ln(*a)).sqrt();
                let (sin, cos) = sin_cos_turn(*b);
                *a = radius * cos;
                *b = radius * sin;
            }
        });
    }
}

/// The four words of a generator's state.
pub fn words_of(rng: &Xoshiro256PlusPlus) -> [u64; 4] {
    // The crate shows them through serde alone.
    let value = serde_json::to_value(rng).unwrap_or_default();
    std::array::from_fn(|i| value["s"][i].as_u64().unwrap_or_default())
}

/// The generator with this state.
pub fn of_words(words: [u64; 4]) -> Xoshiro256PlusPlus {
    let mut seed = [0; 32];
    seed.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
    Xoshiro256PlusPlus::from_seed(seed)
}

/// The middle of the cell that 23 bits name (with 24, the last cell's middle would round to one).
fn open_unit(bits: u32) -> f32 {
    (bits as f32 + 0.5) * (1.0 / 8_388_608.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, stream| {
            let mut v = [0.0; 300];
            Noise::new(seed, stream).gaussian(&mut v);
            v.map(f32::to_bits)
        };
        assert_eq!(draw(7, 2), draw(7, 2));
        assert_ne!(draw(7, 2), draw(7, 3));
        assert_ne!(draw(7, 2), draw(8, 2));
    }

    #[test]
    fn a_generator_is_its_words() {
        let mut rng = Noise::new(5, 6).rng;
        rng.next_u64();
        let mut copy = of_words(words_of(&rng));
        assert_eq!(copy, rng);
        assert_eq!(
            (0..9).map(|_| rng.next_u64()).collect::<Vec<_>>(),
            (0..9).map(|_| copy.next_u64()).collect::<Vec<_>>()
        );
        assert_ne!(words_of(&rng), [0; 4]);
    }

    #[test]
    fn gaussian_moments_and_tails() {
        let mut v = vec![0.0_f32; 1_000_003];
        Noise::new(3, 0).gaussian(&mut v);
        let n = v.len() as f64;
        let moment = |p: i32| v.iter().map(|&x| f64::from(x).powi(p)).sum::<f64>() / n;
        // Standard errors: 1/sqrt n, sqrt(2/n), sqrt(15/n), sqrt(96/n); five of each.
        assert!(moment(1).abs() < 5.0 / n.sqrt());
        assert!((moment(2) - 1.0).abs() < 5.0 * (2.0 / n).sqrt());
        assert!(moment(3).abs() < 5.0 * (15.0 / n).sqrt());
        assert!((moment(4) - 3.0).abs() < 5.0 * (96.0 / n).sqrt());
        // 1 - erf(3 / sqrt 2) = 0.0026998
        let beyond = v.iter().filter(|x| x.abs() > 3.0).count() as f64 / n;
        assert!((beyond - 0.002_699_8).abs() < 5.0 * (0.0027 / n).sqrt());
        // Neighbours, and the two members of a pair, are uncorrelated.
        for lag in [1, BLOCK / 2] {
            let c = v.iter().zip(&v[lag..]).map(|(&a, &b)| f64::from(a * b)).sum::<f64>() / n;
            assert!(c.abs() < 5.0 / n.sqrt());
        }
    }

    #[test]
    fn uniforms_stay_inside_and_fill() {
        let mut noise = Noise::new(4, 1);
        let mut v = vec![0.0; 100_000];
        noise.uniform_in(&mut v, -2.0, 1.0);
        assert!(v.iter().all(|&x| x > -2.0 && x < 1.0));
        let mean = v.iter().map(|&x| f64::from(x)).sum::<f64>() / 1e5;
        assert!((mean + 0.5).abs() < 0.02);
        let mut seen = [0_u32; 7];
        for _ in 0..70_000 {
            seen[noise.below(7)] += 1;
        }
        assert!(seen.iter().all(|&c| (9_500..10_500).contains(&c)), "{seen:?}");
        assert_eq!(open_unit(0), 0.5 / 8_388_608.0);
        assert!(open_unit(0x7f_ffff) < 1.0);
    }
}
