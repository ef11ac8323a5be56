//! Optimisers of a delta: momentum, Adam, and Adam with moments of 16 bits.
//!
//! A step goes over a chunk of numbers at a time, so that it can be cut into slices; chunks do not change its bits. The
//! subnormal rule holds for numbers, gradients and moments: what falls below it is zero. No panics, no allocation, the same
//! bits everywhere: square roots are [`inverse_sqrt`], of multiplications alone.
//!
//! Memory beside number and gradient, bytes a number: momentum 4, Adam 8, lean 4. Cost a number: momentum about 12
//! instructions with an FPU, Adam 45, lean 55.

use crate::math;

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Optimiser {
    /// Gradient descent with a momentum of 0.9.
    Momentum,
    /// Adam (Kingma and Ba, 2015) with decays of 0.9 and 0.999.
    Adam,
    /// Adam with decays of 0.9 and 0.98 and both moments rounded to the upper 16 bits of a float: of eight
    /// significant bits a decay of 0.999 would move nothing.
    Lean,
}

impl Optimiser {
    /// Words of moments a number takes.
    pub const fn words(self) -> usize {
        match self {
            Self::Momentum | Self::Lean => 1,
            Self::Adam => 2,
        }
    }

    const fn decays(self) -> (f32, f32) {
        match self {
            Self::Lean => (0.9, 0.98),
            _ => (0.9, 0.999),
        }
    }
}

const EPSILON: f32 = 1e-8;

/// `1 / sqrt(x)` for `x` of at least 2^-100, by three Newton steps from the halved exponent: multiplications and
/// subtractions alone, within 4e-7 of the exact value.
pub fn inverse_sqrt(x: f32) -> f32 {
    let mut y = f32::from_bits(0x5f37_5a86_u32.wrapping_sub(x.to_bits() >> 1));
    let half = 0.5 * x;
    for _ in 0..3 {
        y = y * (1.5 - half * y * y);
    }
    y
}

/// The upper 16 bits of a float, rounded to the nearest, ties to even; NaN is not asked for.
fn half_of(x: f32) -> u32 {
    let bits = x.to_bits();
    (bits + 0x7fff + ((bits >> 16) & 1)) >> 16
}

/// What all numbers of a step share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    optimiser: Optimiser,
    rate: f32,
    /// `1 / (1 - decay^n)` of the second moment.
    correction: f32,
    /// Factor on the gradient.
    scale: f32,
}

/// The running products of the decays, for Adam's correction of its start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    first: f32,
    second: f32,
}

impl Clock {
    /// Before the first step.
    pub const START: Self = Self { first: 1.0, second: 1.0 };

    /// The next step at a learning rate, for a gradient of this norm squared, clipped to the norm `limit`.
    pub fn tick(&mut self, optimiser: Optimiser, rate: f32, norm_square: f32, limit: f32) -> Step {
        let (first, second) = optimiser.decays();
        // The powers stop where they no longer matter, before they are subnormal.
        self.first = math::flush(self.first * first);
        self.second = math::flush(self.second * second);
        let scale = if norm_square > limit * limit { limit * inverse_sqrt(norm_square) } else { 1.0 };
        let rate = match optimiser {
            Optimiser::Momentum => rate,
            _ => rate / (1.0 - self.first),
        };
        Step { optimiser, rate, correction: 1.0 / (1.0 - self.second), scale }
    }
}

impl Step {
    /// Moves `numbers` down `gradient`, which is zero afterwards. `moments` are [`Optimiser::words`] a number.
    pub fn apply(&self, numbers: &mut [f32], gradient: &mut [f32], moments: &mut [u32]) {
        let (first, second) = self.optimiser.decays();
        let words = self.optimiser.words();
        for ((p, g), moments) in numbers.iter_mut().zip(gradient).zip(moments.chunks_exact_mut(words)) {
            let gradient = math::flush(*g * self.scale);
            *g = 0.0;
            let step = match (self.optimiser, moments) {
                (Optimiser::Momentum, [word]) => {
                    let m = math::flush(0.9 * f32::from_bits(*word) + gradient);
                    *word = m.to_bits();
                    self.rate * m
                }
                (Optimiser::Adam, [m, v]) => {
                    let (mean, square) = moved(f32::from_bits(*m), f32::from_bits(*v), gradient, (first, second));
                    (*m, *v) = (mean.to_bits(), square.to_bits());
                    self.step(mean, square)
                }
                (Optimiser::Lean, [word]) => {
                    let old = (f32::from_bits(*word << 16), f32::from_bits(*word & 0xffff_0000));
                    let (mean, square) = moved(old.0, old.1, gradient, (first, second));
                    *word = half_of(mean) | half_of(square) << 16;
                    self.step(mean, square)
                }
                _ => 0.0,
            };
            *p = math::flush(*p - step);
        }
    }

    fn step(&self, mean: f32, square: f32) -> f32 {
        let square = square * self.correction;
        if square < math::FLUSH_BIAS {
            return self.rate * mean / EPSILON;
        }
        self.rate * mean / (square * inverse_sqrt(square) + EPSILON)
    }
}

/// Both moments after a gradient.
fn moved(mean: f32, square: f32, gradient: f32, (first, second): (f32, f32)) -> (f32, f32) {
    let mean = math::flush(mean + (1.0 - first) * (gradient - mean));
    let gap = math::flush_bias(gradient * gradient - square);
    (mean, math::flush_bias(square + (1.0 - second) * gap))
}
