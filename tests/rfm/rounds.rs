//! Ask and tell: the rounds are the loop of `estimate`, a host may run many at once, and a user may bring a test
//! function.

use crate::mixtures::{Gaussians, pair};
use crate::oracle::Bumps;
use flowlet::rfm::{
    Annealed, Auto, ControlVariate, EstimateError, EstimatorScratch, Evidence, Langevin, Method, Mixture,
};
use flowlet::rfm::{RfmConfig, Support, Target, TestField, TestFunction};
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro128PlusPlus;

const START: Mixture = Mixture { bridge: 8, uniform: 4, kernel: 4, ..Mixture::bridge(0) };
const METHODS: [Method; 5] = [
    Method::Importance(Mixture { bridge: 16, uniform: 8, kernel: 8, ..Mixture::bridge(0) }),
    Method::Ula(Langevin::new(START, 4, 4)),
    Method::Mala(Langevin::new(START, 8, 2)),
    Method::Smc(Annealed::new(8, 4)),
    Method::Auto(Auto::new(32)),
];
const K: usize = 32;
const PARTICLES: [f32; 2] = [0.3, -0.1];

fn rng(seed: u64) -> Xoshiro128PlusPlus {
    Xoshiro128PlusPlus::seed_from_u64(seed)
}

#[test]
fn rounds_of_two_points_side_by_side_are_the_estimates_one_by_one() {
    let points = [[0.3f32, -0.4], [-0.1, 0.6]];
    for method in METHODS {
        for control_variate in [ControlVariate::None, ControlVariate::Fisher] {
            let config = RfmConfig { method, control_variate, ..RfmConfig::default() };
            assert_eq!(method.candidates(), K);
            let mut target = pair::<2>();
            let alone = [0, 1].map(|i| {
                let mut memory = vec![0.0; EstimatorScratch::len(2, K)];
                let mut scratch = EstimatorScratch::carve(&mut memory, 2, K).unwrap();
                let (mut mean, seed) = ([0.0; 2], i as u64);
                let (x, rng) = (&points[i], &mut rng(seed));
                let found = config.estimate(0.4, x, &mut target, &PARTICLES, rng, &mut scratch, &mut mean);
                (mean, found.unwrap())
            });
            let mut memories = [0, 1].map(|_| vec![0.0; EstimatorScratch::len(2, K)]);
            let mut scratches = memories.each_mut().map(|m| EstimatorScratch::carve(m, 2, K).unwrap());
            let mut rngs = [rng(0), rng(1)];
            let mut runs =
                [0, 1].map(|i| config.start(0.4, &points[i], Support::Unbounded, &PARTICLES, &scratches[i]).unwrap());
            let mut evaluations = [0; 2];
            loop {
                let mut open = false;
                for i in 0..2 {
                    assert_eq!(runs[i].outcome(), Err(EstimateError::Unfinished));
                    let Some(rows) = config.propose(&mut runs[i], &mut rngs[i], &mut scratches[i]) else { continue };
                    open = true;
                    assert_eq!(rows.start, evaluations[i], "rows are asked for once and in order");
                    evaluations[i] = rows.end;
                    for k in rows {
                        let y = [scratches[i].candidates[2 * k], scratches[i].candidates[2 * k + 1]];
                        let score = &mut scratches[i].scores[2 * k..2 * k + 2];
                        scratches[i].log_targets[k] = target.log_density_and_score(&y, score);
                    }
                }
                if !open {
                    break;
                }
            }
            assert_eq!(evaluations, [K; 2]);
            for i in 0..2 {
                // Twice: finishing only reads.
                for _ in 0..2 {
                    let mut mean = [0.0; 2];
                    let found = config.finish(&runs[i], &mut scratches[i], &mut mean).unwrap();
                    assert_eq!((mean, found), alone[i], "{method:?}");
                }
                assert_eq!(config.propose(&mut runs[i], &mut rngs[i], &mut scratches[i]), None);
            }
        }
    }
}

#[test]
fn weights_are_a_distribution_over_rows_that_were_good() {
    // A target with a hole: every row in it is refused, by each method, and none gets weight.
    struct Holed(Gaussians<2>);
    impl Target for Holed {
        fn log_density(&mut self, u: &[f32]) -> f32 {
            if u[0] > 0.2 { f32::NAN } else { self.0.log_density(u) }
        }
        fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
            let value = self.0.log_density_and_score(u, score);
            if u[0] > 0.2 { f32::NAN } else { value }
        }
    }
    for method in METHODS {
        let config = RfmConfig { method, control_variate: ControlVariate::Fisher, ..RfmConfig::default() };
        let mut memory = vec![0.0; EstimatorScratch::len(2, K)];
        let mut scratch = EstimatorScratch::carve(&mut memory, 2, K).unwrap();
        let (mut rng, mut refused) = (rng(3), 0);
        for _ in 0..50 {
            let mut target = Holed(pair());
            let run = config.run(0.4, &[0.0, 0.1], &mut target, &PARTICLES, &mut rng, &mut scratch).unwrap();
            let total: f32 = scratch.weights.iter().sum();
            // 32 roundings of 2^-24 and the same of the division.
            assert!((total - 1.0).abs() < 1e-5, "{method:?}: {total}");
            for (y, w) in scratch.candidates.chunks_exact(2).zip(scratch.weights.iter()) {
                refused += usize::from(y[0] > 0.2);
                assert!(*w >= 0.0 && (y[0] <= 0.2 || *w == 0.0), "{method:?}: {y:?} {w}");
            }
            assert!(run.outcome().unwrap().effective_sample_size <= K as f32 * 1.001);
        }
        assert!(refused > 100, "the hole was hardly visited: {refused}");
    }
}

/// `Phi` of a user: a rotation times a bell, so that features mix the axes.
struct Swirl;

impl Swirl {
    fn phi(y: [f32; 2]) -> [[f32; 2]; 2] {
        let bell = (-0.5 * (y[0] * y[0] + y[1] * y[1])).exp();
        [[bell, -0.5 * bell], [0.5 * bell, bell]]
    }
}

impl TestField for Swirl {
    fn features(&mut self, _: &Evidence<'_>, y: &[f32], s: &[f32], g: &mut [f32]) {
        let phi = Self::phi([y[0], y[1]]);
        for i in 0..2 {
            // d Phi_ij / d y_j = -y_j Phi_ij.
            g[i] = (0..2).map(|j| phi[i][j] * (s[j] - y[j])).sum();
        }
    }
}

#[test]
fn a_field_of_the_user_leaves_the_mean_unbiased_and_its_features_without_one() {
    let mixture = Mixture { bridge: 96, uniform: 64, kernel: 96, bandwidth: 0.5, ..Mixture::bridge(0) };
    let x = [0.3f32, -0.2];
    let mut target = pair::<2>();
    let (exact, _) = target.posterior(0.5, 0.5, x.map(f64::from));
    for control_variate in
        [ControlVariate::Eta(1.0), ControlVariate::Fisher, ControlVariate::Full { ridge: 1e-3 }, ControlVariate::Shrunk]
    {
        let config = RfmConfig { control_variate, ..RfmConfig::importance(mixture) };
        let mut memory = vec![0.0; EstimatorScratch::len(2, 256)];
        let mut scratch = EstimatorScratch::carve(&mut memory, 2, 256).unwrap();
        let (mut rng, n) = (rng(9), 400);
        let (mut sums, mut squares, mut features) = ([0.0; 2], [0.0; 2], [[0.0; 2]; 2]);
        for _ in 0..n {
            let mut run = config.run(0.5, &x, &mut target, &PARTICLES, &mut rng, &mut scratch).unwrap();
            config.apply(&mut run, &mut Swirl, &mut scratch).unwrap();
            assert_eq!(config.apply(&mut run, &mut Swirl, &mut scratch), Err(EstimateError::Replaced));
            let mut mean = [0.0; 2];
            config.finish(&run, &mut scratch, &mut mean).unwrap();
            for j in 0..2 {
                sums[j] += f64::from(mean[j]) / f64::from(n);
                squares[j] += f64::from(mean[j]).powi(2) / f64::from(n);
                let rows = scratch.scores.chunks_exact(2).zip(scratch.weights.iter());
                let g: f64 = rows.map(|(g, w)| f64::from(g[j] * w)).sum();
                features[0][j] += g / f64::from(n);
                features[1][j] += g * g / f64::from(n);
            }
        }
        for j in 0..2 {
            let error = |mean: f64, square: f64| ((square - mean * mean).max(0.0) / f64::from(n)).sqrt();
            // Self-normalisation: a spread of 0.6, and of 2 for the features, over an effective size of about 80.
            let allowed = 4.0 * error(sums[j], squares[j]) + 0.012;
            assert!((sums[j] - exact[j]).abs() < allowed, "{control_variate:?}: {sums:?} {exact:?}");
            let allowed = 4.0 * error(features[0][j], features[1][j]) + 0.04;
            assert!(features[0][j].abs() < allowed, "{control_variate:?}: {features:?}");
        }
    }
}

#[test]
fn the_slope_of_a_test_function_is_that_of_finite_differences() {
    // Phi' + Phi s with s = 0 and s = 1 gives both, read from the features of runs on a flat target.
    struct Flat(Support);
    impl Target for Flat {
        fn log_density(&mut self, _: &[f32]) -> f32 {
            0.0
        }
        fn log_density_and_score(&mut self, _: &[f32], score: &mut [f32]) -> f32 {
            score.fill(0.0);
            0.0
        }
        fn support(&self) -> Support {
            self.0
        }
    }
    // With a uniform source and a flat target the posterior is uniform and s = 0: the mean feature over the two
    // candidates y and y + h is the mean of Phi' there, so `eta` times it is half of the change of Phi.
    use flowlet::flow::Source;
    for (support, low, high) in [(Support::Unbounded, -0.8, 1.2), (Support::Box { limit: 1.0 }, -0.8, 1.0)] {
        let config = RfmConfig {
            source: Source::Uniform,
            control_variate: ControlVariate::Eta(1.0),
            test_function: TestFunction::Boundary,
            ..RfmConfig::importance(Mixture::bridge(2))
        };
        let mut memory = vec![0.0; EstimatorScratch::len(1, 2)];
        let mut scratch = EstimatorScratch::carve(&mut memory, 1, 2).unwrap();
        let phi = |y: f32| 4.0 * (y - low) * (high - y) / ((high - low) * (high - low));
        for i in 0..10 {
            let y = low + 0.05 + (high - low - 0.2) * i as f32 / 10.0;
            let h = 0.0625;
            scratch.candidates.copy_from_slice(&[y, y + h]);
            let mut mean = [0.0];
            config.weigh(0.5, &[0.1], &mut Flat(support), &[], &mut scratch, &mut mean).unwrap();
            // Phi is a parabola: the mean of its slopes at both ends is the difference quotient, exactly.
            let slope = (phi(y + h) - phi(y)) / h;
            assert!((mean[0] - (y + 0.5 * h) - slope).abs() < 2e-5, "{support:?} {y}: {mean:?} {slope}");
        }
    }
    assert_eq!(Bumps::Box.support(), Support::Box { limit: 1.0 });
}
