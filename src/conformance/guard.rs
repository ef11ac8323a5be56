//! The guard's case: a life of trials with everything that can happen in it, its whole state digested after every event.

use crate::finetune::guard::{Config, Guard, Passage, Phase, Player};
use crate::math::{self, Digest};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

pub(super) fn life(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    let config = Config { alpha: 0.5, correction: 0.7, audit: 3, ..Config::new(5) };
    if let Ok(mut guard) = Guard::new(config, seed) {
        for _ in 0..4_000 {
            let better = match guard.player() {
                Player::Factory => 0.0,
                Player::Incumbent => 0.2,
                Player::Candidate => 0.4,
            };
            let mut metric = |observation: &[f32], _: &[f32]| better + observation.iter().sum::<f32>();
            let observation = [0.6 * math::symmetric_uniform(rng.next_u32()).abs()];
            let passage = match rng.next_u32() >> 22 {
                0 => Passage::Fault,
                1..=100 => Passage::Corrected,
                _ => Passage::Free,
            };
            guard.step(&mut metric, &observation, &[], passage);
            // Neither call has an effect but where it is due.
            let _ = if guard.phase() == Phase::Promoted { guard.commit() } else { guard.begin() };
            for byte in guard.to_bytes() {
                digest.update(&[f32::from(byte)]);
            }
        }
    }
    digest.finish()
}
