//! The exercise that shows two machines to agree: a thousand decisions from a seed, digested bit by bit.
//!
//! The observations cover the trained range, both sides of the clip, and values that only the subnormal rule keeps
//! equal. Deterministic, no panics, no allocation.

use super::{Normalizer, Policy, PolicyError, PolicyScratch};
use crate::flow::Source;
use crate::math::Digest;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// Decisions of one exercise.
pub const EXERCISE_ACTIONS: usize = 1000;

/// Observations and noise from a seed, and the digest of the actions they led to.
pub struct Exercise {
    observations: Xoshiro128PlusPlus,
    /// The generator that decisions draw their noise from.
    pub noise: Xoshiro128PlusPlus,
    digest: Digest,
    count: u32,
}

impl Exercise {
    /// The exercise of this seed.
    pub fn new(seed: u64) -> Self {
        let mut observations = Xoshiro128PlusPlus::seed_from_u64(seed);
        let noise = Xoshiro128PlusPlus::seed_from_u64(observations.next_u64());
        Self { observations, noise, digest: Digest::new(), count: 0 }
    }

    /// The next observation, in the plant's units: `mean + z / scale` with `z` normal, 1.5 wide as a rule, every
    /// eighth time 30 wide, and every eighth time 1e-38.
    pub fn observation(&mut self, normalizer: &Normalizer<'_>, out: &mut [f32]) {
        let width = match self.count % 8 {
            3 => 30.0,
            6 => 1e-38,
            _ => 1.5,
        };
        Source::Gaussian.sample(&mut self.observations, out);
        for (o, (mean, scale)) in out.iter_mut().zip(normalizer.mean.iter().zip(normalizer.scale)) {
            *o = mean + *o * width / scale;
        }
        self.count = self.count.wrapping_add(1);
    }

    /// Takes an action into the digest.
    pub fn record(&mut self, action: &[f32]) {
        self.digest.update(action);
    }

    /// The digest of the actions recorded.
    pub fn finish(self) -> u64 {
        self.digest.finish()
    }
}

/// Runs [`EXERCISE_ACTIONS`] decisions from `seed` and returns the digest of their actions.
///
/// `observation` and `action` are scratch of the policy's sizes; the policy must have been prepared.
pub fn action_digest(
    policy: &Policy<'_>,
    seed: u64,
    scratch: &mut PolicyScratch<'_>,
    observation: &mut [f32],
    action: &mut [f32],
) -> Result<u64, PolicyError> {
    let mut exercise = Exercise::new(seed);
    for _ in 0..EXERCISE_ACTIONS {
        exercise.observation(policy.artefact().normalizer(), observation);
        policy.act(observation, &mut exercise.noise, scratch, action)?;
        exercise.record(action);
    }
    Ok(exercise.finish())
}
