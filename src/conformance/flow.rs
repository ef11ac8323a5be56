//! Cases of [`crate::flow`]: every source, schedule, kind of draws and way of sampling.

use crate::flow::{Draws, Prediction, Reverse, ReverseError, ReverseMethod, Schedule, Source};
use crate::math::{self, Digest};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

const SOURCES: [Source; 6] = [
    Source::Gaussian,
    Source::Laplace,
    Source::Logistic,
    Source::StudentT { dof: 2.5 },
    Source::Uniform,
    Source::TruncatedGaussian { bound: 1.75 },
];

const SCHEDULES: [Schedule; 4] =
    [Schedule::Linear, Schedule::VpCosine, Schedule::VP_LINEAR, Schedule::Ve { sigma_min: 0.01, sigma_max: 50.0 }];

/// Samples, quantiles, log-densities and scores.
pub(super) fn source(seed: u64, source: Source) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    let mut noise = [0.0; 33];
    for _ in 0..20 {
        source.sample(&mut rng, &mut noise);
        digest.update(&noise);
        for z in noise {
            let u = [rng.next_u32(), rng.next_u32()].map(|word| 0.5 + 0.5 * math::symmetric_uniform(word));
            digest.update(&[source.log_density(z), source.score(z), source.from_uniform(&u)]);
        }
    }
    digest.finish()
}

/// Weights, their rates and every conversion.
pub(super) fn schedule(seed: u64, schedule: Schedule) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    for _ in 0..200 {
        let [t, x, value] = [(); 3].map(|()| math::symmetric_uniform(rng.next_u32()));
        let t = 0.5 + 0.49 * t;
        let rates = schedule.rates(t);
        digest.update(&[schedule.alpha(t), schedule.beta(t), rates.0, rates.1, schedule.start_scale(t)]);
        digest.update(&[schedule.velocity_from_data(t, x, value), schedule.velocity_from_noise(t, x, value)]);
        digest.update(&[schedule.velocity_from_score(t, x, value), schedule.noise_from_data(t, x, value)]);
        digest.update(&[schedule.noise_from_velocity(t, x, value), schedule.noise_from_score(t, value)]);
        digest.update(&[schedule.data_from_noise(t, x, value), schedule.data_from_velocity(t, x, value)]);
        digest.update(&[schedule.score_from_noise(t, value), schedule.diffusion(t)]);
    }
    digest.finish()
}

/// Blocks of draws from every source.
pub(super) fn draws(seed: u64, draws: Draws) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    let mut block = [0.0; 90];
    for source in SOURCES {
        // The second width reaches beyond the table of directions.
        for dim in [3, 45] {
            draws.fill(source, dim, &mut rng, &mut block);
            digest.update(&block);
        }
    }
    digest.finish()
}

/// Samples on every schedule from each prediction, with a curved field.
pub(super) fn reverse(seed: u64, method: ReverseMethod) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    for schedule in SCHEDULES {
        for prediction in [Prediction::Velocity, Prediction::Data, Prediction::Noise, Prediction::Score] {
            let (source, t_start, t_end) = (Source::Gaussian, 1.0 / 64.0, 63.0 / 64.0);
            let plan = Reverse { schedule, source, prediction, method, steps: 8, t_start, t_end };
            let mut field = |t: f32, x: &[f32], out: &mut [f32]| {
                for (out, x) in out.iter_mut().zip(x) {
                    *out = math::flush(math::tanh(0.3 * x - t));
                }
            };
            let (mut x, mut scratch) = ([0.0; 3], [0.0; Reverse::scratch_len(3)]);
            let mut run = || {
                plan.start(&mut rng, &mut x);
                plan.run(&mut field, &mut rng, &mut x, &mut scratch)
            };
            // An error shows as a digest of fewer numbers.
            let outcome: Result<(), ReverseError> = run();
            if outcome.is_ok() {
                digest.update(&x);
            }
        }
    }
    digest.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::{SdeNoise, Solver};

    #[test]
    fn no_sample_of_the_reverse_cases_fails() {
        // A digest of nothing would be equal on every machine.
        for method in [
            ReverseMethod::Ode(Solver::Heun),
            ReverseMethod::Ddim { eta: 0.0 },
            ReverseMethod::Ddpm,
            ReverseMethod::EulerMaruyama(SdeNoise::Beta { scale: 0.5 }),
            ReverseMethod::EulerMaruyama(SdeNoise::Diffusion { scale: 1.0 }),
        ] {
            let plan = Reverse {
                schedule: Schedule::Ve { sigma_min: 0.01, sigma_max: 50.0 },
                source: Source::Gaussian,
                prediction: Prediction::Score,
                method,
                steps: 8,
                t_start: 1.0 / 64.0,
                t_end: 63.0 / 64.0,
            };
            assert_eq!(plan.check(), Ok(()));
            assert_ne!(reverse(1, method), Digest::new().finish());
            assert_ne!(reverse(1, method), reverse(2, method));
        }
    }
}
