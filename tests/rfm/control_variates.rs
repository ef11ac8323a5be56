//! Control variates: the two families at the ends, the published rule, zero variance, and what each form saves.

use crate::mixtures::pair;
use crate::oracle::{Asked, Bumps, SCHEDULES, action_value, exact, repeat};
use flowlet::flow::{Schedule, Source};
use flowlet::math;
use flowlet::rfm::{ControlVariate, Estimator, EstimatorScratch, Mixture, RfmConfig, Target};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// Slope of `Q / lambda` of the bumps in the latent, without the Jacobian.
fn bumps_score(u: f64) -> f64 {
    let a = u.tanh();
    (1.0 - a * a) * action_value(a).1 - 2.0 * a
}

#[test]
fn eta_zero_is_noise_expectation_and_eta_one_gradient_expectation() {
    // Written from their own papers' side: E[X_0] as the softmax mean of the noises, and as that of the target's
    // slopes, E[X_0] = -(beta/alpha) E[grad ln p1(X_1)]; the same noises go through both.
    const K: usize = 40;
    for schedule in SCHEDULES {
        for t in [0.4f32, 0.8] {
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(12);
            let noises: Vec<f64> =
                (0..K).map(|_| f64::from(math::box_muller([rng.next_u32(), rng.next_u32()])[0])).collect();
            let (a, b) = (f64::from(schedule.alpha(t)), f64::from(schedule.beta(t)));
            let x = 0.3 * a + 0.2 * b;
            let actions: Vec<f64> = noises.iter().map(|z| (x - b * z) / a).collect();
            let weights: Vec<f64> = actions.iter().map(|y| Bumps::Tanh.log_density_f64(*y).exp()).collect();
            let total: f64 = weights.iter().sum();
            let noise = weights.iter().zip(&noises).map(|(w, z)| w * z).sum::<f64>() / total;
            let slope = weights.iter().zip(&actions).map(|(w, y)| w * bumps_score(*y)).sum::<f64>() / total;
            for (eta, expected) in [(0.0, noise), (1.0, -b / a * slope)] {
                let config = RfmConfig {
                    schedule,
                    control_variate: ControlVariate::Eta(eta),
                    ..RfmConfig::importance(Mixture::bridge(K))
                };
                let mut memory = vec![0.0; EstimatorScratch::len(1, K)];
                let mut scratch = EstimatorScratch::carve(&mut memory, 1, K).unwrap();
                scratch.candidates.iter_mut().zip(&actions).for_each(|(c, y)| *c = *y as f32);
                let mut mean = [0.0];
                config.weigh(t, &[x as f32], &mut Bumps::Tanh, &[], &mut scratch, &mut mean).unwrap();
                let found = f64::from(schedule.noise_from_data(t, x as f32, mean[0]));
                // Rounding of a mean near one, carried through alpha / beta, and of beta^2 / alpha^2 times scores near
                // ten.
                let allowed = 2e-6 * (1.0 + a / b + 20.0 * b / a);
                assert!((found - expected).abs() < allowed, "{schedule:?} t={t} eta={eta}: {found} {expected}");
            }
        }
    }
}

#[test]
fn the_published_rule_is_reproduced_candidate_by_candidate() {
    // The rule as it stands in the paper's implementation, in f64: draws y0, actions y1, softmax weights of the target,
    // s1 = (t/(1-t)) y0 + grad ln p1, clipped diagonal coefficients on the data side.
    const D: usize = 3;
    const K: usize = 24;
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(2);
    let (mut clipped, mut free) = (0, 0);
    for round in 0..60 {
        let t = [0.05f32, 0.3, 0.6, 0.9, 0.97][round % 5];
        let mut noise = [0.0; D * K];
        Source::Gaussian.sample(&mut rng, &mut noise);
        let mut x = [0.0; D];
        Source::Gaussian.sample(&mut rng, &mut x);
        let time = f64::from(t);
        let y0: Vec<f64> = noise.iter().map(|z| f64::from(*z)).collect();
        // The candidates are what the estimator sees, in f32.
        let y1: Vec<f32> =
            y0.iter().enumerate().map(|(i, z)| ((f64::from(x[i % D]) - (1.0 - time) * z) / time) as f32).collect();
        let logits: Vec<f64> =
            y1.chunks(D).map(|y| y.iter().map(|y| Bumps::Tanh.log_density_f64(f64::from(*y))).sum()).collect();
        let high = logits.iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = logits.iter().map(|l| (l - high).exp()).sum();
        let w: Vec<f64> = logits.iter().map(|l| (l - high).exp() / total).collect();
        let config = RfmConfig::published(K);
        let mut memory = vec![0.0; EstimatorScratch::len(D, K)];
        let mut scratch = EstimatorScratch::carve(&mut memory, D, K).unwrap();
        scratch.candidates.copy_from_slice(&y1);
        let mut mean = [0.0; D];
        config.weigh(t, &x, &mut Bumps::Tanh, &[], &mut scratch, &mut mean).unwrap();
        for j in 0..D {
            let y = |k: usize| f64::from(y1[k * D + j]);
            let s = |k: usize| time / (1.0 - time) * y0[k * D + j] + bumps_score(y(k));
            let m: f64 = (0..K).map(|k| w[k] * y(k)).sum();
            let bar: f64 = (0..K).map(|k| w[k] * s(k)).sum();
            let cross: f64 = (0..K).map(|k| w[k] * w[k] * (y(k) - m) * (s(k) - bar)).sum();
            let square: f64 = (0..K).map(|k| w[k] * w[k] * (s(k) - bar).powi(2)).sum();
            let c = (-cross / (square + 1e-4)).clamp(-2.0, 2.0);
            if c.abs() == 2.0 {
                clipped += 1
            } else {
                free += 1
            }
            let expected = m + c * bar;
            // Candidates reach 3/t; noises are recovered from them with that rounding over 1 - t.
            let allowed = 2e-5 * (1.0 + 1.0 / time + bar.abs()) / (1.0 - time).sqrt();
            assert!((f64::from(mean[j]) - expected).abs() < allowed, "t={t}: {} {expected} c={c}", mean[j]);
        }
    }
    assert!(clipped > 5 && free > 50, "{clipped} {free}");
}

/// A correlated Gaussian target in three dimensions, of precision `P` and mean `m`.
struct Correlated;

const PRECISION: [[f32; 3]; 3] = [[5.0, 2.0, -1.0], [2.0, 4.0, 0.5], [-1.0, 0.5, 3.0]];
const MEAN: [f32; 3] = [0.4, -0.3, 0.1];

impl Target for Correlated {
    fn log_density(&mut self, u: &[f32]) -> f32 {
        self.log_density_and_score(u, &mut [0.0; 3])
    }
    fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
        let d: [f32; 3] = core::array::from_fn(|j| u[j] - MEAN[j]);
        for (s, line) in score.iter_mut().zip(PRECISION) {
            *s = -line.iter().zip(d).map(|(p, d)| p * d).sum::<f32>();
        }
        0.5 * score.iter().zip(d).map(|(s, d)| s * d).sum::<f32>()
    }
}

#[test]
fn a_gaussian_posterior_has_no_variance_under_the_full_matrix() {
    // Scores are affine in the candidates, so the plug-in matrix is the posterior covariance whatever the weights.
    let t = 0.6f32;
    let x = [0.3f32, 0.1, -0.4];
    let bridge = f64::from(t * t / ((1.0 - t) * (1.0 - t)));
    let precision = nalgebra::Matrix3::from_fn(|i, j| f64::from(PRECISION[i][j]) + if i == j { bridge } else { 0.0 });
    let pull = nalgebra::Vector3::from_fn(|i, _| {
        let target: f64 = (0..3).map(|j| f64::from(PRECISION[i][j] * MEAN[j])).sum();
        target + f64::from(x[i] * t / ((1.0 - t) * (1.0 - t)))
    });
    let exact = precision.try_inverse().unwrap() * pull;
    let deviation = |control_variate| {
        let config = RfmConfig { control_variate, ..RfmConfig::importance(Mixture::bridge(32)) };
        let mut estimator = Estimator::<3, 32>::new(config);
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(3);
        let mut square = 0.0;
        for _ in 0..200 {
            let (mean, _) = estimator.estimate(t, &x.into(), &mut Correlated, &[], &mut rng).unwrap();
            square += (mean.cast::<f64>() - exact).norm_squared();
        }
        (square / 200.0).sqrt()
    };
    let full = deviation(ControlVariate::Full { ridge: 1e-6 });
    let diagonal = deviation(ControlVariate::Diagonal { ridge: 1e-6, clip: 10.0 });
    let none = deviation(ControlVariate::None);
    // A ridge of 1e-6 of the mean eigenvalue, and rounding of squares: a relative 1e-3 of the uncorrected error.
    assert!(full < 1e-3 * none && full < diagonal && diagonal < none, "{full} {diagonal} {none}");
}

#[test]
fn near_the_data_every_form_beats_none_and_shrinking_never_costs_much() {
    // The mathematics says: at t = 0.9 weights are nearly even and corrections help; at t = 0.3 with the bridge they
    // are not, the plug-in is noise, and the shrunk form must come close to no correction.
    let error = |control_variate, t: f32, mixture| {
        let config = RfmConfig { control_variate, ..RfmConfig::importance(mixture) };
        let x = 0.3 * t + 0.2 * (1.0 - t);
        let known = exact(Bumps::Tanh, Schedule::Linear, Source::Gaussian, t, f64::from(x)).mean;
        let found = repeat::<32>(config, (t, x), &[], &mut Bumps::Tanh, Asked::Mean, 1500, 0.0);
        (found.mean - known).powi(2) + found.deviation.powi(2)
    };
    let bridge = Mixture::bridge(32);
    let none = error(ControlVariate::None, 0.95, bridge);
    for control_variate in [
        ControlVariate::Eta(1.0),
        ControlVariate::EtaOptimal { ridge: 1e-4 },
        ControlVariate::PUBLISHED,
        ControlVariate::Full { ridge: 1e-4 },
        ControlVariate::Fisher,
        ControlVariate::Shrunk,
    ] {
        let with = error(control_variate, 0.95, bridge);
        assert!(with < 0.5 * none, "{control_variate:?}: {with} {none}");
    }
    let few = Mixture { bridge: 2, uniform: 2, ..Mixture::bridge(0) };
    let run = |control_variate| {
        let config = RfmConfig { control_variate, ..RfmConfig::importance(few) };
        let found = repeat::<4>(config, (0.3, 0.2), &[], &mut Bumps::Tanh, Asked::Mean, 4000, 0.0);
        let known = exact(Bumps::Tanh, Schedule::Linear, Source::Gaussian, 0.3, 0.2).mean;
        (found.mean - known).powi(2) + found.deviation.powi(2)
    };
    let (none, shrunk) = (run(ControlVariate::None), run(ControlVariate::Shrunk));
    // Four candidates are not enough to know a coefficient.
    assert!(shrunk < 1.1 * none, "{shrunk} {none}");
    assert!(run(ControlVariate::Eta(1.0)) > 2.0 * none);
}

#[test]
fn the_fisher_identity_holds() {
    // E_q[(y - mu) s^T] = -I, by weighted candidates of a large importance round in two dimensions.
    const K: usize = 512;
    let mixture = Mixture { bridge: 256, uniform: 128, kernel: 128, bandwidth: 0.5, ..Mixture::bridge(0) };
    let config = RfmConfig { control_variate: ControlVariate::Fisher, ..RfmConfig::importance(mixture) };
    let mut target = pair::<2>();
    let mut memory = vec![0.0; EstimatorScratch::len(2, K)];
    let mut scratch = EstimatorScratch::carve(&mut memory, 2, K).unwrap();
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(5);
    let (n, mut sums, mut squares) = (200, [0.0f64; 4], [0.0f64; 4]);
    for _ in 0..n {
        let run = config.run(0.5, &[0.1, 0.2], &mut target, &[0.8, -0.4], &mut rng, &mut scratch).unwrap();
        assert!(run.outcome().is_ok());
        let row = |values: &[f32], k: usize, j: usize| f64::from(values[2 * k + j]);
        for i in 0..2 {
            let mean: f64 = (0..K).map(|k| f64::from(scratch.weights[k]) * row(scratch.candidates, k, i)).sum();
            for j in 0..2 {
                let cross: f64 = (0..K)
                    .map(|k| {
                        let w = f64::from(scratch.weights[k]);
                        w * (row(scratch.candidates, k, i) - mean) * row(scratch.scores, k, j)
                    })
                    .sum();
                sums[2 * i + j] += cross / f64::from(n);
                squares[2 * i + j] += cross * cross / f64::from(n);
            }
        }
    }
    for (i, (mean, square)) in sums.iter().zip(squares).enumerate() {
        let expected = if i % 3 == 0 { -1.0 } else { 0.0 };
        let error = ((square - mean * mean) / f64::from(n)).sqrt();
        // Self-normalisation: one in an effective sample size of at least 100.
        assert!((mean - expected).abs() < 4.0 * error + 0.01, "{i}: {mean} {error}");
    }
}
