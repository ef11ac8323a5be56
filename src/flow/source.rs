//! Source distributions: sampler, log-density and score.
//!
//! Random numbers are drawn as 32-bit words in a fixed order, so a seed gives the same noise on every machine.
//! No panics, no allocation; a Gaussian pair costs a logarithm, a root, a sine and a cosine.

use crate::math;
use rand_core::Rng;

/// Distribution of `X_0`, with independent components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
#[repr(u32)]
pub enum Source {
    /// Standard normal.
    #[default]
    Gaussian = 0,
}

impl Source {
    /// The source with this number in the artefact.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Gaussian),
            _ => None,
        }
    }

    /// Fills `out` with independent draws: two words of `rng` for each pair of components, an odd last one
    /// taking a pair of its own. Under the subnormal rule.
    pub fn sample<R: Rng + ?Sized>(self, rng: &mut R, out: &mut [f32]) {
        match self {
            Self::Gaussian => {
                for pair in out.chunks_mut(2) {
                    let first = rng.next_u32();
                    let normal = math::box_muller([first, rng.next_u32()]);
                    for (value, z) in pair.iter_mut().zip(normal) {
                        *value = math::flush(z);
                    }
                }
            }
        }
    }

    /// Natural logarithm of the density of one component at `z`.
    pub fn log_density(self, z: f32) -> f32 {
        const HALF_LN_2PI: f32 = 0.918_938_5;
        match self {
            Self::Gaussian => -0.5 * z * z - HALF_LN_2PI,
        }
    }

    /// Derivative of [`log_density`](Self::log_density) at `z`.
    pub fn score(self, z: f32) -> f32 {
        match self {
            Self::Gaussian => -z,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro128PlusPlus;

    #[test]
    fn gaussian_has_its_moments_and_its_distribution() {
        const N: usize = 200_000;
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let (mut moments, mut within) = ([0.0f64; 4], 0);
        let mut pair = [0.0; 2];
        let mut product = 0.0;
        for _ in 0..N / 2 {
            Source::Gaussian.sample(&mut rng, &mut pair);
            product += f64::from(pair[0]) * f64::from(pair[1]);
            for z in pair {
                let mut power = 1.0;
                for m in &mut moments {
                    power *= f64::from(z);
                    *m += power / N as f64;
                }
                within += usize::from(z.abs() < 1.0);
            }
        }
        // Five standard errors of each moment of N normal numbers: variances 1, 2, 15, 96.
        for (m, (exact, variance)) in moments.iter().zip([(0.0, 1.0), (1.0, 2.0), (0.0, 15.0), (3.0, 96.0)]) {
            assert!((m - exact).abs() < 5.0 * f64::sqrt(variance / N as f64), "{m} {exact}");
        }
        assert!((product / (N / 2) as f64).abs() < 5.0 / f64::sqrt((N / 2) as f64));
        let share = within as f64 / N as f64;
        assert!((share - 0.682_689).abs() < 5.0 * f64::sqrt(0.683 * 0.317 / N as f64));
    }

    #[test]
    fn score_is_the_slope_of_the_log_density_which_integrates_to_one() {
        let mut mass = 0.0;
        for i in -800..800 {
            let z = (i as f32 + 0.5) * 0.01;
            mass += 0.01 * f64::from(Source::Gaussian.log_density(z)).exp();
            let h = 0.0625;
            let slope = (Source::Gaussian.log_density(z + h) - Source::Gaussian.log_density(z - h)) / (2.0 * h);
            // A quadratic has no truncation error; values up to 32 are rounded to 2^-19 and divided by 1/8.
            assert!((slope - Source::Gaussian.score(z)).abs() < 1e-4);
        }
        assert!((mass - 1.0).abs() < 1e-6);
    }

    #[test]
    fn odd_lengths_draw_a_whole_pair() {
        let mut a = Xoshiro128PlusPlus::seed_from_u64(9);
        let mut b = a.clone();
        Source::Gaussian.sample(&mut a, &mut [0.0; 3]);
        (0..4).for_each(|_| {
            b.next_u32();
        });
        assert_eq!(a.next_u32(), b.next_u32());
    }
}
