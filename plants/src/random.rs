//! Random start states: `f64` draws from any 64-bit generator, the same on every target.
//!
//! No platform-wide integer takes part (a `usize` would make a 32-bit chip draw other numbers than the PC). Never
//! panics, never allocates. Not for cryptography.

use rand_core::Rng;

/// Uniform in [0, 1), from the upper 53 bits of one `next_u64`.
pub fn uniform<R: Rng + ?Sized>(rng: &mut R) -> f64 {
    const STEP: f64 = 1.0 / (1u64 << 53) as f64;
    (rng.next_u64() >> 11) as f64 * STEP
}

/// Uniform in [low, high).
pub fn uniform_in<R: Rng + ?Sized>(rng: &mut R, low: f64, high: f64) -> f64 {
    low + (high - low) * uniform(rng)
}

/// Standard normal: the cosine half of Box-Muller, two draws each.
pub fn normal<R: Rng + ?Sized>(rng: &mut R) -> f64 {
    // 1 - u lies in (0, 1], so the logarithm is finite.
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - uniform(rng)));
    radius * libm::cos(core::f64::consts::TAU * uniform(rng))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_xoshiro::Xoshiro256PlusPlus;
    use rand_xoshiro::rand_core::SeedableRng;

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let n = 200_000;
        let (mut u1, mut u2, mut z1, mut z2, mut z4) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for _ in 0..n {
            let u = uniform_in(&mut rng, -1.0, 3.0);
            assert!((-1.0..3.0).contains(&u));
            let z = normal(&mut rng);
            (u1, u2) = (u1 + u, u2 + u * u);
            (z1, z2, z4) = (z1 + z, z2 + z * z, z4 + z * z * z * z);
        }
        let n = n as f64;
        // Five standard errors or more of each moment.
        assert!((u1 / n - 1.0).abs() < 0.015);
        assert!((u2 / n - 7.0 / 3.0).abs() < 0.04);
        assert!((z1 / n).abs() < 0.012);
        assert!((z2 / n - 1.0).abs() < 0.016);
        assert!((z4 / n - 3.0).abs() < 0.12);
    }
}
