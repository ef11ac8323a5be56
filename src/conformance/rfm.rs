//! Cases of [`crate::rfm`]: every method, control variate, test function and space, mean and score, on small critics.

use super::{ACT, CRITIC, H, OBS, fill, uniform};
use crate::flow::{Draws, Schedule, Source};
use crate::math::Digest;
use crate::net::{Critic, CriticScratch};
use crate::rfm::{Annealed, Auto, Boltzmann, BoltzmannScratch, ControlVariate, Estimator, Evidence, Ladder, Langevin};
use crate::rfm::{Method, Mixture, RfmConfig, Space, Target, TestField, TestFunction};
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro128PlusPlus;

/// Candidates of every case: with two dimensions an estimator of half a kilobyte.
const K: usize = 8;

const START: Mixture = Mixture { bridge: 1, uniform: 1, kernel: 2, ..Mixture::bridge(0) };

/// The bridge, the others, and all of them, with every kind of draws.
const MIXTURES: [Mixture; 3] = [
    Mixture::bridge(K),
    Mixture { bridge: 0, uniform: 5, kernel: 3, bandwidth: 0.3, bound: 0.9999, draws: Draws::Antithetic },
    Mixture { bridge: 3, uniform: 3, kernel: 2, bandwidth: 0.3, bound: 0.9999, draws: Draws::Quasi },
];

/// Means from each mixture with this control variate.
pub(super) fn control_variate(seed: u64, control_variate: ControlVariate) -> u64 {
    let each = MIXTURES.map(|mixture| RfmConfig { control_variate, ..RfmConfig::importance(mixture) });
    estimates::<K>(seed, &each, Space::Tanh)
}

/// Means from this method, plain and corrected, on latents and on a box.
pub(super) fn method(seed: u64, method: Method) -> u64 {
    let plain = RfmConfig { method, ..RfmConfig::default() };
    let corrected = RfmConfig { control_variate: ControlVariate::Shrunk, ..plain };
    estimates::<K>(seed, &[plain, corrected], Space::Tanh)
        ^ estimates::<K>(seed, &[corrected], Space::Box).rotate_left(1)
}

/// The unadjusted and the adjusted chains' case differ in the method alone.
pub(super) const LANGEVIN: Langevin = Langevin::new(START, 2, 2);

/// Annealing with either ladder.
pub(super) fn annealed(seed: u64, ladder: Ladder) -> u64 {
    method(seed, Method::Smc(Annealed { ladder, ..Annealed::new(2, 4) }))
}

/// The default, with enough candidates that every part of its proposal has some, and with few.
pub(super) fn default(seed: u64) -> u64 {
    const MORE: usize = 16;
    let config = [RfmConfig::auto(MORE)];
    let more =
        estimates::<MORE>(seed, &config, Space::Tanh) ^ estimates::<MORE>(seed, &config, Space::Box).rotate_left(1);
    more ^ method(seed, Method::Auto(Auto::new(K))).rotate_left(2)
}

/// Means with this test function for a source with an edge, in every space.
pub(super) fn test_function(seed: u64, test_function: TestFunction) -> u64 {
    let bounded = RfmConfig {
        source: Source::TruncatedGaussian { bound: 2.0 },
        control_variate: ControlVariate::Fisher,
        test_function,
        ..RfmConfig::importance(MIXTURES[2])
    };
    let smooth = RfmConfig { source: Source::Laplace, ..bounded };
    [Space::Tanh, Space::Box, Space::Unbounded]
        .iter()
        .enumerate()
        .fold(0, |digest, (i, space)| digest ^ estimates::<K>(seed, &[bounded, smooth], *space).rotate_left(i as u32))
}

/// Means and scores for every source on every schedule.
pub(super) fn sources(seed: u64) -> u64 {
    let mut digest = 0u64;
    for source in [
        Source::Gaussian,
        Source::Laplace,
        Source::Logistic,
        Source::StudentT { dof: 3.0 },
        Source::Uniform,
        Source::TruncatedGaussian { bound: 1.5 },
    ] {
        for schedule in [
            Schedule::Linear,
            Schedule::VpCosine,
            Schedule::VP_LINEAR,
            Schedule::Ve { sigma_min: 0.05, sigma_max: 4.0 },
        ] {
            let config = RfmConfig {
                source,
                schedule,
                control_variate: ControlVariate::EtaOptimal { ridge: 1e-4 },
                ..RfmConfig::importance(MIXTURES[2])
            };
            digest = digest.rotate_left(5) ^ estimates::<K>(seed, &[config], Space::Tanh);
        }
    }
    digest
}

/// A test function of the user's kind: a rotation that fades with the distance.
struct Swirl;

impl TestField for Swirl {
    fn features(&mut self, _: &Evidence<'_>, candidate: &[f32], score: &[f32], features: &mut [f32]) {
        let ([y, z], [s, r]) = (candidate, score) else { return };
        let bell = 1.0 / (1.0 + y * y + z * z);
        // d bell / dy = -2 y bell^2, for either component of the divergence.
        let (p, q) = (s - 2.0 * y * bell, r - 2.0 * z * bell);
        for (feature, value) in features.iter_mut().zip([bell * (p - 0.5 * q), bell * (0.5 * p + q)]) {
            *feature = value;
        }
    }
}

/// For each configuration, mean, score, the mean under a user's field and the weights, at times from 0.1 to 0.9.
///
/// Not inlined: callers that run it twice would hold its critics twice.
#[inline(never)]
fn estimates<const K: usize>(seed: u64, configs: &[RfmConfig], space: Space) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut params = [[0.0; CRITIC.params()]; 2];
    params.iter_mut().for_each(|params| fill(&mut rng, 0.7, params));
    let mut digest = Digest::new();
    let [first, second] = &params;
    let (Ok(first), Ok(second)) = (Critic::new(CRITIC, first), Critic::new(CRITIC, second)) else {
        return digest.finish();
    };
    let critics = [first, second];
    let mut parts = [0.0; 2 * H];
    let (mut pre, mut a, mut b) = ([0.0; 2 * H], [0.0; H], [0.0; H]);
    let (mut action, mut gradient) = ([0.0; ACT], [0.0; ACT]);
    for config in configs {
        let mut estimator = Estimator::<ACT, K>::new(*config);
        for i in [1u8, 3, 5, 7, 9] {
            let scratch = BoltzmannScratch {
                state_parts: &mut parts,
                critic: CriticScratch { pre: &mut pre, a: &mut a, b: &mut b },
                action: &mut action,
                gradient: &mut gradient,
            };
            let s = uniform::<OBS>(&mut rng, 2.0);
            let Some(target) = Boltzmann::new(&critics, &s, 0.2, scratch) else { return digest.finish() };
            let mut target = target.in_space(space);
            let (x, particle) = (uniform::<ACT>(&mut rng, 1.0), uniform::<ACT>(&mut rng, 1.0));
            let t = 0.1 * f32::from(i);
            let mut scratch = estimator.scratch();
            let Ok(mut run) = config.run(t, &x, &mut target as &mut dyn Target, &particle, &mut rng, &mut scratch)
            else {
                // A refusal is a result as well.
                digest.update(&[t]);
                continue;
            };
            let mut results = [[0.0; ACT]; 3];
            let [mean, score, other] = &mut results;
            if let Ok(posterior) = config.finish(&run, &mut scratch, mean) {
                digest.update(&[posterior.effective_sample_size, posterior.log_normalizer]);
            }
            // Both are refused where the configuration has no scores.
            let _ = config.finish_score(&run, &mut scratch, score);
            if config.apply(&mut run, &mut Swirl, &mut scratch).is_ok() {
                let _ = config.finish(&run, &mut scratch, other);
            }
            digest.update(results.as_flattened());
            digest.update(scratch.weights);
        }
    }
    digest.finish()
}
