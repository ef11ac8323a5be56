//! Self-normalised importance sampling: bias, two dimensions, the normaliser, zero variance, invariances.

use crate::mixtures::{Gaussians, pair};
use crate::oracle::{Bumps, exact};
use flowlet::flow::{Draws, Schedule, Source};
use flowlet::rfm::{Annealed, Auto, ControlVariate, Estimator, EstimatorScratch, Langevin, Method, Mixture};
use flowlet::rfm::{RfmConfig, Target};
use nalgebra::SVector;
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro128PlusPlus;

const BRIDGE: Mixture = Mixture::bridge(64);
const MIXED: Mixture = Mixture { bridge: 24, uniform: 24, kernel: 16, bandwidth: 0.5, ..Mixture::bridge(0) };

#[test]
fn the_bias_of_self_normalisation_falls_with_the_number_of_candidates() {
    // 512 candidates must come within a four-hundredth of the posterior's spread, which is 0.6.
    let mixture = Mixture { bridge: 192, uniform: 192, kernel: 128, ..MIXED };
    let mut estimator = Estimator::<1, 512>::new(RfmConfig::importance(mixture));
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(5);
    let (mut sum, mut square, n) = (0.0, 0.0, 2000.0);
    for _ in 0..2000 {
        let (mean, _) = estimator.estimate(0.35, &[0.25].into(), &mut Bumps::Tanh, &[[0.2]], &mut rng).unwrap();
        sum += f64::from(mean[0]);
        square += f64::from(mean[0] * mean[0]);
    }
    let mean = sum / n;
    let error = ((square / n - mean * mean) / n).sqrt();
    assert!(
        (mean - exact(Bumps::Tanh, Schedule::Linear, Source::Gaussian, 0.35, 0.25).mean).abs() < 4.0 * error + 0.0015
    );
}

#[test]
fn two_dimensions_agree_with_quadrature() {
    // A target that does not factorise: the two bumps of the first axis, tilted by the second.
    struct Tilted;
    fn value(u: [f64; 2]) -> f64 {
        Bumps::Tanh.log_density_f64(u[0]) + Bumps::Tanh.log_density_f64(u[1]) + 0.8 * u[0].tanh() * u[1].tanh()
    }
    impl Target for Tilted {
        fn log_density(&mut self, u: &[f32]) -> f32 {
            value([f64::from(u[0]), f64::from(u[1])]) as f32
        }
        fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
            // Central differences in f64: an oracle for the estimator, not for itself.
            let u = [f64::from(u[0]), f64::from(u[1])];
            let h = 1e-5;
            score[0] = ((value([u[0] + h, u[1]]) - value([u[0] - h, u[1]])) / (2.0 * h)) as f32;
            score[1] = ((value([u[0], u[1] + h]) - value([u[0], u[1] - h])) / (2.0 * h)) as f32;
            value(u) as f32
        }
    }
    let (t, x) = (0.5, [0.3, -0.2]);
    let (mut mass, mut exact) = (0.0, [0.0; 2]);
    for i in 0..=600 {
        for j in 0..=600 {
            let y = [-6.0 + 0.02 * f64::from(i), -6.0 + 0.02 * f64::from(j)];
            let z = [(x[0] - t * y[0]) / (1.0 - t), (x[1] - t * y[1]) / (1.0 - t)];
            let w = (value(y) - 0.5 * (z[0] * z[0] + z[1] * z[1])).exp();
            mass += w;
            exact[0] += w * y[0];
            exact[1] += w * y[1];
        }
    }
    exact = [exact[0] / mass, exact[1] / mass];
    let mixture = Mixture { bridge: 96, uniform: 96, kernel: 64, bandwidth: 0.5, ..Mixture::bridge(0) };
    let start = Mixture { bridge: 48, uniform: 48, kernel: 32, ..mixture };
    let (once, chains) = (Method::Importance(mixture), Langevin::new(start, 32, 4));
    // Self-normalisation has a bias of order 1/256 of the spread, which is near one; 32 chains or 64 particles share the
    // modes among them, and an unadjusted step of 0.1 adds a fortieth of the spread.
    for (method, control_variate, n, bias) in [
        (once, ControlVariate::None, 1500, 0.005),
        (once, ControlVariate::Fisher, 1500, 0.005),
        (once, ControlVariate::Eta(0.2), 1500, 0.005),
        (Method::Auto(Auto::new(256)), ControlVariate::Shrunk, 500, 0.005),
        (Method::Mala(chains), ControlVariate::Fisher, 500, 0.02),
        (Method::Ula(Langevin { step: 0.1, ..chains }), ControlVariate::None, 500, 0.03),
        (Method::Smc(Annealed::new(64, 4)), ControlVariate::Full { ridge: 1e-3 }, 500, 0.02),
    ] {
        let mut estimator = Estimator::<2, 256>::new(RfmConfig { method, control_variate, ..RfmConfig::default() });
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(23);
        let (mut sum, mut square) = (SVector::<f64, 2>::zeros(), SVector::<f64, 2>::zeros());
        for _ in 0..n {
            let point = [x[0] as f32, x[1] as f32].into();
            let (mean, _) = estimator.estimate(t as f32, &point, &mut Tilted, &[[0.5, -0.4]], &mut rng).unwrap();
            let mean = mean.cast::<f64>();
            sum += mean;
            square += mean.component_mul(&mean);
        }
        for j in 0..2 {
            let mean = sum[j] / f64::from(n);
            let error = ((square[j] / f64::from(n) - mean * mean).max(0.0) / f64::from(n)).sqrt();
            let allowed = 4.0 * error + bias;
            assert!((mean - exact[j]).abs() < allowed, "{method:?} {control_variate:?} {mean} {exact:?}");
        }
    }
}

#[test]
fn a_gaussian_posterior_with_its_covariance_as_coefficient_has_no_variance() {
    // Target N(m, v): posterior variance 1 / (1/v + (alpha/beta)^2); c = eta (beta/alpha)^2 equal to it is exact.
    let (mean, variance) = (0.4f32, 0.2f32);
    struct Bell(f32, f32);
    impl Target for Bell {
        fn log_density(&mut self, u: &[f32]) -> f32 {
            -0.5 * (u[0] - self.0) * (u[0] - self.0) / self.1
        }
        fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
            score[0] = -(u[0] - self.0) / self.1;
            self.log_density(u)
        }
    }
    for t in [0.3f32, 0.6, 0.9] {
        let precision = 1.0 / variance + (t / (1.0 - t)).powi(2);
        let eta = (t / (1.0 - t)).powi(2) / precision;
        let x = -0.2;
        let exact = (mean / variance + x * t / (1.0 - t).powi(2)) / precision;
        let config = RfmConfig { control_variate: ControlVariate::Eta(eta), ..RfmConfig::importance(BRIDGE) };
        let mut estimator = Estimator::<1, 64>::new(config);
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(3);
        for _ in 0..100 {
            let (got, _) = estimator.estimate(t, &[x].into(), &mut Bell(mean, variance), &[], &mut rng).unwrap();
            // Only rounding is left; candidates reach 20 at t = 0.3, so a relative 1e-6 of that.
            assert!((got[0] - exact).abs() < 2e-5, "t={t}: {} {exact}", got[0]);
        }
    }
}

#[test]
fn eta_zero_and_none_agree_and_a_constant_in_q_changes_nothing() {
    struct Lifted(f32);
    impl Target for Lifted {
        fn log_density(&mut self, u: &[f32]) -> f32 {
            Bumps::Tanh.log_density(u) + self.0
        }
        fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
            Bumps::Tanh.log_density_and_score(u, score) + self.0
        }
    }
    let estimate = |control_variate, lift: f32| {
        let mut estimator = Estimator::<1, 64>::new(RfmConfig { control_variate, ..RfmConfig::importance(MIXED) });
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(8);
        let (mean, posterior) = estimator.estimate(0.4, &[0.1].into(), &mut Lifted(lift), &[[0.1]], &mut rng).unwrap();
        (mean[0], posterior.log_normalizer)
    };
    assert_eq!(estimate(ControlVariate::None, 0.0), estimate(ControlVariate::Eta(0.0), 0.0));
    for control_variate in
        [ControlVariate::None, ControlVariate::Fisher, ControlVariate::Diagonal { ridge: 1e-4, clip: 2.0 }]
    {
        let (low, high) = (estimate(control_variate, 0.0), estimate(control_variate, 50.0));
        // Adding 50 rounds logits to 2^-18, so weights to a relative 4e-6.
        assert!((low.0 - high.0).abs() < 1e-4 && (high.1 - low.1 - 50.0).abs() < 1e-3, "{control_variate:?}");
    }
}

#[test]
fn the_log_normaliser_is_that_of_quadrature_for_every_mixture() {
    // ln of the integral of target times bridge density: each mean weight estimates it without bias, whatever the
    // proposal. Uneven kernel shares (three candidates on two particles) included.
    let (t, x) = (0.4f64, 0.25f64);
    let mut exact = 0.0;
    for i in 0..=16_000 {
        let y = -8.0 + f64::from(i) * 1e-3;
        let z = (x - t * y) / (1.0 - t);
        let bridge = (-0.5 * z * z).exp() / std::f64::consts::TAU.sqrt() * t / (1.0 - t);
        exact += 1e-3 * Bumps::Tanh.log_density_f64(y).exp() * bridge;
    }
    for mixture in [
        Mixture { bridge: 0, uniform: 8, kernel: 0, bandwidth: 0.5, ..Mixture::bridge(0) },
        Mixture { bridge: 3, uniform: 3, kernel: 2, bandwidth: 0.5, ..Mixture::bridge(0) },
        Mixture { bridge: 3, uniform: 2, kernel: 3, bandwidth: 1.5, ..Mixture::bridge(0) },
    ] {
        let mut estimator = Estimator::<1, 8>::new(RfmConfig::importance(mixture));
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(41);
        let (n, mut sum, mut square) = (40_000, 0.0, 0.0);
        for _ in 0..n {
            let particles = [[-1.5], [0.9]];
            let point = [x as f32].into();
            let (_, posterior) = estimator.estimate(t as f32, &point, &mut Bumps::Tanh, &particles, &mut rng).unwrap();
            let weight = f64::from(posterior.log_normalizer).exp();
            sum += weight;
            square += weight * weight;
        }
        let mean = sum / f64::from(n);
        let error = ((square / f64::from(n) - mean * mean) / f64::from(n)).sqrt();
        // The bound of the uniform action is left out of its density: a relative 1e-4.
        assert!((mean - exact).abs() < 4.0 * error + 2e-4 * exact, "{mixture:?}: {mean} {exact} +- {error}");
        assert!(error < 0.01 * exact, "the check is too weak: {error}");
    }
}

#[test]
fn permuted_axes_give_permuted_results() {
    // Candidates are given, so that axes are all that differs. Sums over components change their order: rounding.
    const K: usize = 32;
    let order = [2, 0, 1];
    let target = pair::<3>();
    let permuted = Gaussians(target.0.map(|(w, m, v)| (w, order.map(|j| m[j]), v)));
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(7);
    let mut draws = [0.0; 3 * K];
    Draws::Plain.fill(Source::Gaussian, 3, &mut rng, &mut draws);
    let (x, particle) = ([0.3f32, -0.2, 0.5], [0.1f32, 0.4, -0.6]);
    let run = |mut target: Gaussians<3>, axes: [usize; 3], control_variate| {
        let mixture = Mixture { bridge: 12, uniform: 12, kernel: 8, ..MIXED };
        let config = RfmConfig { control_variate, ..RfmConfig::importance(mixture) };
        let mut memory = vec![0.0; EstimatorScratch::len(3, K)];
        let mut scratch = EstimatorScratch::carve(&mut memory, 3, K).unwrap();
        for (to, from) in scratch.candidates.chunks_exact_mut(3).zip(draws.chunks_exact(3)) {
            to.copy_from_slice(&axes.map(|j| from[j]));
        }
        let mut mean = [0.0; 3];
        let (x, particle) = (axes.map(|j| x[j]), axes.map(|j| particle[j]));
        let found = config.weigh(0.5, &x, &mut target, &particle, &mut scratch, &mut mean).unwrap();
        (mean, found)
    };
    for control_variate in [
        ControlVariate::None,
        ControlVariate::EtaOptimal { ridge: 1e-4 },
        ControlVariate::PUBLISHED,
        ControlVariate::Full { ridge: 1e-2 },
        ControlVariate::Fisher,
        ControlVariate::Shrunk,
    ] {
        let (mean, found) = run(pair::<3>(), [0, 1, 2], control_variate);
        let (turned, again) = run(Gaussians(permuted.0), order, control_variate);
        for (j, axis) in order.into_iter().enumerate() {
            assert!((turned[j] - mean[axis]).abs() < 2e-5, "{control_variate:?}: {mean:?} {turned:?}");
        }
        assert!((found.effective_sample_size - again.effective_sample_size).abs() < 1e-3);
        assert!((found.log_normalizer - again.log_normalizer).abs() < 1e-5);
    }
}
