//! Target densities over the action latent.
//!
//! [`Target`] is what the estimator asks for, and how a user brings an energy of their own; [`Boltzmann`] is the one a
//! critic defines: `exp(Q(s, a) / lambda)` over actions, on tanh latents, on a hard box or on all of space. No panics,
//! no allocation.

use crate::math;
use crate::net::{Critic, CriticScratch};

/// An unnormalised density over latents of a fixed dimension.
pub trait Target {
    /// `ln p1(u)` up to a constant. A result that is not finite gives the candidate weight zero.
    fn log_density(&mut self, latent: &[f32]) -> f32;

    /// `ln p1(u)` up to the same constant, and its gradient into `score`.
    fn log_density_and_score(&mut self, latent: &[f32], score: &mut [f32]) -> f32;

    /// Where the density is not zero.
    fn support(&self) -> Support {
        Support::Unbounded
    }
}

/// Where a target's density is not zero, the same for every component.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Support {
    /// Everywhere.
    #[default]
    Unbounded,
    /// `|y_j| < limit`, with a density that may be anything but zero at the edge.
    Box {
        /// Half the width of the box, positive.
        limit: f32,
    },
}

impl Support {
    /// Half the width, infinite where there is no bound.
    pub fn limit(self) -> f32 {
        match self {
            Self::Unbounded => f32::INFINITY,
            Self::Box { limit } => limit,
        }
    }
}

/// Memory that a [`Boltzmann`] target writes.
#[derive(Debug)]
pub struct BoltzmannScratch<'s> {
    /// State halves of the critics' first layers, `critics * H` floats.
    pub state_parts: &'s mut [f32],
    /// Memory of one critic evaluation.
    pub critic: CriticScratch<'s>,
    /// Squashed action, `act` floats.
    pub action: &'s mut [f32],
    /// Action gradient of a critic, `act` floats.
    pub gradient: &'s mut [f32],
}

/// Where the actions of a [`Boltzmann`] target live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Space {
    /// Actions `a = tanh u` of latents `u`: the density over latents carries `prod_j sech^2(u_j)`.
    #[default]
    Tanh,
    /// The latent is the action, inside `|a_j| < 1`. The density does not vanish at the edge.
    Box,
    /// The latent is the action, without bounds. The critic's value must fall fast enough for a density to exist.
    Unbounded,
}

/// `p1(u) ~ exp(min_i Q_i(s, a) / lambda)`, times `prod_j sech^2(u_j)` where `a = tanh u`: the soft policy of a critic.
///
/// Score: `grad_a Q / lambda` with the gradient of the smaller critic; on tanh latents
/// `(1 - a^2) grad_a Q / lambda - 2 a`.
#[derive(Debug)]
pub struct Boltzmann<'c, 's> {
    critics: &'c [Critic<'c>],
    temperature: f32,
    space: Space,
    scratch: BoltzmannScratch<'s>,
}

impl<'c, 's> Boltzmann<'c, 's> {
    /// The target of `critics` (one or two) at the normalised observation `s` and temperature `lambda > 0`.
    ///
    /// `None` when a scratch slice is too short, there is no critic, or the temperature is not positive.
    pub fn new(critics: &'c [Critic<'c>], s: &[f32], temperature: f32, scratch: BoltzmannScratch<'s>) -> Option<Self> {
        if critics.is_empty() || !(temperature > 0.0 && temperature.is_finite()) {
            return None;
        }
        let mut parts = &mut *scratch.state_parts;
        for critic in critics {
            let shape = critic.shape();
            let fits = scratch.critic.pre.len() >= shape.layers * shape.hidden
                && scratch.critic.a.len() == shape.hidden
                && scratch.critic.b.len() == shape.hidden
                && scratch.action.len() == shape.act
                && scratch.gradient.len() == shape.act;
            if !fits {
                return None;
            }
            let (part, rest) = parts.split_at_mut_checked(shape.hidden)?;
            critic.state_part(s, part);
            parts = rest;
        }
        Some(Self { critics, temperature, space: Space::Tanh, scratch })
    }

    /// The same in another space than that of tanh latents.
    pub fn in_space(self, space: Space) -> Self {
        Self { space, ..self }
    }

    fn evaluate(&mut self, latent: &[f32], mut score: Option<&mut [f32]>) -> f32 {
        let BoltzmannScratch { state_parts, critic: memory, action, gradient } = &mut self.scratch;
        let mut jacobian = 0.0;
        for (a, u) in action.iter_mut().zip(latent) {
            if self.space == Space::Tanh {
                *a = math::flush(math::tanh(*u));
                jacobian += math::ln_sech2(*u);
            } else {
                *a = math::flush(*u);
            }
        }
        let mut least = f32::INFINITY;
        let mut rest = &**state_parts;
        for (i, critic) in self.critics.iter().enumerate() {
            let (part, tail) = rest.split_at_checked(critic.shape().hidden).unwrap_or((rest, &[]));
            rest = tail;
            let q = match &score {
                Some(_) => critic.value_and_gradient(part, action, memory, gradient),
                None => critic.value(part, action, memory),
            };
            // NaN is kept: the estimator gives such a candidate weight zero.
            if i > 0 && q >= least {
                continue;
            }
            least = q;
            if let Some(score) = score.as_deref_mut() {
                for ((s, g), a) in score.iter_mut().zip(gradient.iter()).zip(action.iter()) {
                    *s = match self.space {
                        Space::Tanh => (1.0 - a * a) * g / self.temperature - 2.0 * a,
                        Space::Box | Space::Unbounded => g / self.temperature,
                    };
                }
            }
        }
        least / self.temperature + jacobian
    }
}

impl Target for Boltzmann<'_, '_> {
    fn log_density(&mut self, latent: &[f32]) -> f32 {
        self.evaluate(latent, None)
    }

    fn log_density_and_score(&mut self, latent: &[f32], score: &mut [f32]) -> f32 {
        self.evaluate(latent, Some(score))
    }

    fn support(&self) -> Support {
        match self.space {
            Space::Tanh | Space::Unbounded => Support::Unbounded,
            Space::Box => Support::Box { limit: 1.0 },
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::net::{Activation, CriticShape};
    use rand_core::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro128PlusPlus;
    use std::{vec, vec::Vec};

    #[test]
    fn score_is_the_slope_of_the_log_density() {
        let shape = CriticShape { obs: 2, act: 2, hidden: 12, layers: 2, activation: Activation::Tanh };
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(2);
        let mut uniform = |n: usize| -> Vec<f32> { (0..n).map(|_| math::symmetric_uniform(rng.next_u32())).collect() };
        let params = [uniform(shape.params()), uniform(shape.params())];
        let critics = [Critic::new(shape, &params[0]).unwrap(), Critic::new(shape, &params[1]).unwrap()];
        let (mut parts, mut pre, mut a, mut b) = ([0.0; 24], [0.0; 24], [0.0; 12], [0.0; 12]);
        let (mut action, mut gradient) = ([0.0; 2], [0.0; 2]);
        let scratch = BoltzmannScratch {
            state_parts: &mut parts,
            critic: CriticScratch { pre: &mut pre, a: &mut a, b: &mut b },
            action: &mut action,
            gradient: &mut gradient,
        };
        let mut target = Boltzmann::new(&critics, &[0.3, -0.8], 0.5, scratch).unwrap();
        for round in 0..60 {
            let (space, reach) = [(Space::Tanh, 2.0), (Space::Box, 0.9), (Space::Unbounded, 2.0)][round % 3];
            target = target.in_space(space);
            assert_eq!(target.support().limit() == 1.0, space == Space::Box);
            let latent: Vec<f32> = uniform(2).iter().map(|u| reach * u).collect();
            let mut score = vec![0.0; 2];
            let value = target.log_density_and_score(&latent, &mut score);
            assert_eq!(value.to_bits(), target.log_density(&latent).to_bits());
            for j in 0..2 {
                let mut at = |h: f32| {
                    let mut moved = latent.clone();
                    moved[j] += h;
                    f64::from(target.log_density(&moved))
                };
                // Fourth-order central difference: truncation h^4/30 f'''''; the rounding of values near 5 is
                // 5e-7 / h. A step of 1/32 keeps both below 1e-4. A switch of critics inside the step is a kink.
                let h = 1.0 / 32.0;
                let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * f64::from(h));
                let one_sided = (at(h) - f64::from(value)) / f64::from(h) - (f64::from(value) - at(-h)) / f64::from(h);
                if one_sided.abs() < 0.5 {
                    assert!((slope - f64::from(score[j])).abs() < 2e-2 * (1.0 + slope.abs()), "{slope} {score:?}");
                }
            }
        }
    }

    #[test]
    fn bad_arguments_are_refused() {
        let shape = CriticShape { obs: 1, act: 1, hidden: 2, layers: 1, activation: Activation::Relu };
        let params = vec![0.0; shape.params()];
        let critics = [Critic::new(shape, &params).unwrap()];
        let try_with = |temperature: f32, width: usize| {
            let (mut parts, mut pre, mut a, mut b) = (vec![0.0; width], [0.0; 2], [0.0; 2], [0.0; 2]);
            let scratch = BoltzmannScratch {
                state_parts: &mut parts,
                critic: CriticScratch { pre: &mut pre, a: &mut a, b: &mut b },
                action: &mut [0.0],
                gradient: &mut [0.0],
            };
            Boltzmann::new(&critics, &[0.0], temperature, scratch).is_some()
        };
        assert!(try_with(1.0, 2));
        assert!(!try_with(1.0, 1) && !try_with(0.0, 2) && !try_with(f32::NAN, 2) && !try_with(f32::INFINITY, 2));
    }
}
