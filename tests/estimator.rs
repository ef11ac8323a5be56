//! The estimator against quadrature and closed forms.
//!
//! Oracles: numerical integration in one and two dimensions for Boltzmann targets; the exact posterior of a Gaussian
//! source under a Gaussian-mixture target; the zero-variance property of a Gaussian posterior. Tolerances are standard
//! errors measured from the repetitions themselves, plus what is said beside them.

use flowlet::math;
use flowlet::rfm::{ControlVariate, EstimateError, Estimator, Mixture, ProposalError, RfmConfig, Target};
use nalgebra::SVector;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

const BRIDGE: Mixture = Mixture::bridge(64);
const MIXED: Mixture = Mixture { bridge: 24, uniform: 24, kernel: 16, bandwidth: 0.5, bound: 0.9999 };
const UNIFORM: Mixture = Mixture { bridge: 0, uniform: 64, kernel: 0, bandwidth: 0.3, bound: 0.9999 };

/// `Q(a) / lambda` of two bumps, over latents: bimodal, with the Jacobian of tanh.
struct TwoBumps;

impl TwoBumps {
    fn action_value(a: f64) -> (f64, f64) {
        let bump = |centre: f64, height: f64| {
            let value = height * (-12.0 * (a - centre) * (a - centre)).exp();
            (value, -24.0 * (a - centre) * value)
        };
        let ((p, dp), (q, dq)) = (bump(-0.5, 3.0), bump(0.6, 2.5));
        (p + q, dp + dq)
    }

    fn log_density_f64(u: &[f64]) -> f64 {
        u.iter().map(|u| Self::action_value(u.tanh()).0 - 2.0 * u.cosh().ln()).sum()
    }
}

impl Target for TwoBumps {
    fn log_density(&mut self, u: &[f32]) -> f32 {
        u.iter().map(|u| Self::action_value(f64::from(u.tanh())).0 as f32 + math::ln_sech2(*u)).sum()
    }

    fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
        for (s, u) in score.iter_mut().zip(u) {
            let a = u.tanh();
            *s = (1.0 - a * a) * Self::action_value(f64::from(a)).1 as f32 - 2.0 * a;
        }
        self.log_density(u)
    }
}

/// `E[X_1 | X_t = x]` by the trapezoid rule on [-8, 8], whose error for this smooth integrand is far below 1e-9.
fn quadrature(t: f64, x: f64) -> f64 {
    let (mut mass, mut mean) = (0.0, 0.0);
    for i in 0..=16_000 {
        let y = -8.0 + f64::from(i) * 1e-3;
        let z = (x - t * y) / (1.0 - t);
        let w = (TwoBumps::log_density_f64(&[y]) - 0.5 * z * z).exp();
        mass += w;
        mean += w * y;
    }
    mean / mass
}

/// Mean and standard error over repetitions of an estimate in one dimension.
fn repeat(config: RfmConfig, t: f32, x: f32, particles: &[[f32; 1]], target: &mut impl Target) -> (f64, f64) {
    const N: usize = 4000;
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(17);
    let mut estimator = Estimator::<1, 64>::new(config);
    let (mut sum, mut square) = (0.0, 0.0);
    for _ in 0..N {
        let (mean, posterior) = estimator.estimate(t, &[x].into(), target, particles, &mut rng).unwrap();
        assert!(posterior.effective_sample_size >= 0.999 && posterior.effective_sample_size <= 64.01);
        sum += f64::from(mean[0]);
        square += f64::from(mean[0]) * f64::from(mean[0]);
    }
    let mean = sum / N as f64;
    let variance = (square / N as f64 - mean * mean).max(0.0);
    (mean, (variance / N as f64).sqrt())
}

#[test]
fn one_dimension_agrees_with_quadrature() {
    let fixed = [ControlVariate::None, ControlVariate::Eta(0.3), ControlVariate::Fisher];
    for (mixture, times) in
        [(BRIDGE, &[0.6, 0.8, 0.95][..]), (UNIFORM, &[0.2, 0.5, 0.8]), (MIXED, &[0.1, 0.35, 0.6, 0.9])]
    {
        for &t in times {
            for control_variate in fixed {
                let config = RfmConfig { mixture, control_variate, ..RfmConfig::default() };
                let x = 0.25;
                let exact = quadrature(f64::from(t), f64::from(x));
                let (mean, error) = repeat(config, t, x, &[[-0.5], [0.7]], &mut TwoBumps);
                // Self-normalisation with 64 candidates has a bias of order 1/64 of the posterior's spread.
                assert!(
                    (mean - exact).abs() < 4.0 * error + 0.012,
                    "{mixture:?} t={t} {control_variate:?}: {mean} {exact}"
                );
            }
        }
    }
}

#[test]
fn the_bias_of_self_normalisation_falls_with_the_number_of_candidates() {
    // The oracle is quadrature again; 512 candidates must come eight times closer than the allowance above.
    let mixture = Mixture { bridge: 192, uniform: 192, kernel: 128, ..MIXED };
    let mut estimator = Estimator::<1, 512>::new(RfmConfig { mixture, ..RfmConfig::default() });
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(5);
    let (mut sum, mut square, n) = (0.0, 0.0, 2000.0);
    for _ in 0..2000 {
        let (mean, _) = estimator.estimate(0.35, &[0.25].into(), &mut TwoBumps, &[[0.2]], &mut rng).unwrap();
        sum += f64::from(mean[0]);
        square += f64::from(mean[0] * mean[0]);
    }
    let mean = sum / n;
    let error = ((square / n - mean * mean) / n).sqrt();
    assert!((mean - quadrature(0.35, 0.25)).abs() < 4.0 * error + 0.0015);
}

#[test]
fn two_dimensions_agree_with_quadrature() {
    // A target that does not factorise: the two bumps of the first axis, tilted by the second.
    struct Tilted;
    fn value(u: [f64; 2]) -> f64 {
        TwoBumps::log_density_f64(&u) + 0.8 * u[0].tanh() * u[1].tanh()
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
    for control_variate in [ControlVariate::None, ControlVariate::Fisher, ControlVariate::Eta(0.2)] {
        let mixture = Mixture { bridge: 96, uniform: 96, kernel: 64, bandwidth: 0.5, bound: 0.9999 };
        let mut estimator = Estimator::<2, 256>::new(RfmConfig { mixture, control_variate, ..RfmConfig::default() });
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(23);
        let (n, mut sum, mut square) = (1500, SVector::<f64, 2>::zeros(), SVector::<f64, 2>::zeros());
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
            // Bias of order 1/256 of the spread, which is near one.
            assert!((mean - exact[j]).abs() < 4.0 * error + 0.005, "{control_variate:?} {mean} {exact:?}");
        }
    }
}

/// A mixture of Gaussians in three dimensions, `weight`, `mean`, `variance` each.
struct Gaussians([(f64, [f64; 3], f64); 2]);

impl Gaussians {
    /// Exact `E[X_1 | X_t = x]` for a standard normal source on the linear path: the posterior is a mixture again.
    fn posterior_mean(&self, t: f64, x: [f64; 3]) -> [f64; 3] {
        let noise = (1.0 - t) * (1.0 - t);
        let (mut mass, mut mean) = (0.0, [0.0; 3]);
        for (weight, centre, variance) in &self.0 {
            let marginal = t * t * variance + noise;
            let square: f64 = (0..3).map(|j| (x[j] - t * centre[j]).powi(2)).sum();
            let evidence = weight * (-0.5 * square / marginal).exp() / marginal.powf(1.5);
            mass += evidence;
            for j in 0..3 {
                mean[j] += evidence * (centre[j] + t * variance / marginal * (x[j] - t * centre[j]));
            }
        }
        mean.map(|m| m / mass)
    }
}

impl Target for Gaussians {
    fn log_density(&mut self, u: &[f32]) -> f32 {
        self.log_density_and_score(u, &mut [0.0; 3])
    }

    fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
        let (mut density, mut slope) = (0.0, [0.0; 3]);
        for (weight, centre, variance) in &self.0 {
            let square: f64 = (0..3).map(|j| (f64::from(u[j]) - centre[j]).powi(2)).sum();
            let p = weight * (-0.5 * square / variance).exp() / variance.powf(1.5);
            density += p;
            for j in 0..3 {
                slope[j] -= p * (f64::from(u[j]) - centre[j]) / variance;
            }
        }
        let floor = density.max(1e-300);
        (0..3).for_each(|j| score[j] = (slope[j] / floor) as f32);
        floor.ln() as f32
    }
}

#[test]
fn gaussian_mixture_targets_agree_with_their_closed_form() {
    let mut target = Gaussians([(0.4, [0.8, -0.3, 0.2], 0.15), (0.6, [-0.6, 0.5, 0.0], 0.3)]);
    for t in [0.5f32, 0.75, 0.9] {
        let x = [0.1f32, 0.2, -0.1];
        let exact = target.posterior_mean(f64::from(t), x.map(f64::from));
        for control_variate in
            [ControlVariate::None, ControlVariate::Fisher, ControlVariate::Diagonal { ridge: 1e-4, clip: 2.0 }]
        {
            let mixture = Mixture { bridge: 256, uniform: 192, kernel: 64, bandwidth: 0.6, bound: 0.9999 };
            let mut estimator =
                Estimator::<3, 512>::new(RfmConfig { mixture, control_variate, ..RfmConfig::default() });
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(31);
            let n = 400;
            let mut sum = SVector::<f64, 3>::zeros();
            for _ in 0..n {
                let particles = [[0.8, -0.3, 0.2], [-0.6, 0.5, 0.0]];
                let (mean, _) = estimator.estimate(t, &x.into(), &mut target, &particles, &mut rng).unwrap();
                sum += mean.cast::<f64>();
            }
            for j in 0..3 {
                // Spread near 0.5, effective sample size above 25 a repetition: 0.5 / sqrt(25 * 400) = 0.005 three
                // times over, and a bias of 1/25 of the spread at worst for the plug-in form.
                assert!((sum[j] / f64::from(n) - exact[j]).abs() < 0.03, "t={t} {control_variate:?} {sum} {exact:?}");
            }
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
        let config = RfmConfig { mixture: BRIDGE, control_variate: ControlVariate::Eta(eta), ..RfmConfig::default() };
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
            TwoBumps.log_density(u) + self.0
        }
        fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
            TwoBumps.log_density_and_score(u, score) + self.0
        }
    }
    let estimate = |control_variate, lift: f32| {
        let mut estimator =
            Estimator::<1, 64>::new(RfmConfig { mixture: MIXED, control_variate, ..RfmConfig::default() });
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
        exact += 1e-3 * TwoBumps::log_density_f64(&[y]).exp() * bridge;
    }
    for mixture in [
        Mixture { bridge: 0, uniform: 8, kernel: 0, bandwidth: 0.5, bound: 0.9999 },
        Mixture { bridge: 3, uniform: 3, kernel: 2, bandwidth: 0.5, bound: 0.9999 },
        Mixture { bridge: 3, uniform: 2, kernel: 3, bandwidth: 1.5, bound: 0.9999 },
    ] {
        let mut estimator = Estimator::<1, 8>::new(RfmConfig { mixture, ..RfmConfig::default() });
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(41);
        let (n, mut sum, mut square) = (40_000, 0.0, 0.0);
        for _ in 0..n {
            let particles = [[-1.5], [0.9]];
            let point = [x as f32].into();
            let (_, posterior) = estimator.estimate(t as f32, &point, &mut TwoBumps, &particles, &mut rng).unwrap();
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
fn bad_input_is_named_and_leaves_the_mean() {
    struct Broken(f32, f32);
    impl Target for Broken {
        fn log_density(&mut self, u: &[f32]) -> f32 {
            if u[0] > self.1 { self.0 } else { TwoBumps.log_density(u) }
        }
        fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
            TwoBumps.log_density_and_score(u, score);
            if u[0] > self.1 {
                score[0] = self.0;
            }
            self.log_density(u)
        }
    }
    let config = |mixture, control_variate| RfmConfig { mixture, control_variate, ..RfmConfig::default() };
    let run = |config, t, x: f32, target: &mut Broken| {
        let mut estimator = Estimator::<1, 64>::new(config);
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(8);
        estimator.estimate(t, &[x].into(), target, &[[0.1]], &mut rng).map(|(mean, _)| mean[0])
    };
    let good = config(MIXED, ControlVariate::Fisher);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        // Some candidates broken: they get weight zero. All broken: a named error.
        assert!(run(good, 0.5, 0.0, &mut Broken(bad, 0.0)).unwrap().is_finite());
        assert_eq!(run(good, 0.5, 0.0, &mut Broken(bad, -1e9)), Err(EstimateError::NonFinite));
        assert_eq!(run(good, 0.5, bad, &mut Broken(0.0, 1e9)), Err(EstimateError::Point));
    }
    for t in [0.0, 1.0, -0.5, f32::NAN] {
        assert_eq!(run(good, t, 0.0, &mut Broken(0.0, 1e9)), Err(EstimateError::Time));
    }
    for (mixture, error) in [
        (Mixture { bridge: 1, ..MIXED }, ProposalError::Shares),
        (Mixture { bandwidth: 0.0, ..MIXED }, ProposalError::Bandwidth),
        (Mixture { bound: 1.0, ..MIXED }, ProposalError::Bound),
    ] {
        let config = config(mixture, ControlVariate::None);
        assert_eq!(run(config, 0.5, 0.0, &mut Broken(0.0, 1e9)), Err(EstimateError::Proposal(error)));
    }
    for control_variate in [
        ControlVariate::Eta(f32::NAN),
        ControlVariate::Diagonal { ridge: 0.0, clip: 2.0 },
        ControlVariate::Diagonal { ridge: 1e-4, clip: f32::NAN },
    ] {
        assert_eq!(
            run(config(MIXED, control_variate), 0.5, 0.0, &mut Broken(0.0, 1e9)),
            Err(EstimateError::ControlVariate)
        );
    }
    let mut none = Estimator::<1, 64>::new(good);
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(8);
    let refused = none.estimate(0.5, &[0.0].into(), &mut TwoBumps, &[], &mut rng);
    assert_eq!(refused.unwrap_err(), EstimateError::Proposal(ProposalError::Particles));
}

#[test]
fn random_bits_never_panic_and_never_give_a_nan() {
    // Every number is drawn as 32 random bits: infinities, NaN, subnormals and huge values among them.
    struct Noise(Xoshiro128PlusPlus);
    fn anything(rng: &mut Xoshiro128PlusPlus) -> f32 {
        match rng.next_u32() % 4 {
            0 => f32::from_bits(rng.next_u32()),
            1 => [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, -0.0]
                [rng.next_u32() as usize % 6],
            _ => math::box_muller([rng.next_u32(), rng.next_u32()])[0],
        }
    }
    impl Target for Noise {
        fn log_density(&mut self, _: &[f32]) -> f32 {
            anything(&mut self.0)
        }
        fn log_density_and_score(&mut self, _: &[f32], score: &mut [f32]) -> f32 {
            score.iter_mut().for_each(|s| *s = anything(&mut self.0));
            anything(&mut self.0)
        }
    }
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(99);
    let (mut target, mut found) = (Noise(Xoshiro128PlusPlus::seed_from_u64(98)), 0);
    for round in 0..100_000 {
        let control_variate = match round % 4 {
            0 => ControlVariate::None,
            1 => ControlVariate::Eta(anything(&mut rng)),
            2 => ControlVariate::Diagonal { ridge: anything(&mut rng), clip: anything(&mut rng) },
            _ => ControlVariate::Fisher,
        };
        let shares = [0; 3].map(|_| (rng.next_u32() % 5) as usize);
        let mixture = Mixture {
            bridge: if round % 3 == 0 { shares[0] } else { 8usize.saturating_sub(shares[1] + shares[2]) },
            uniform: shares[1],
            kernel: shares[2],
            bandwidth: if round % 5 == 0 { anything(&mut rng) } else { 0.3 },
            bound: if round % 7 == 0 { anything(&mut rng) } else { 0.99 },
        };
        let mut estimator = Estimator::<2, 8>::new(RfmConfig { mixture, control_variate, ..RfmConfig::default() });
        let x = if round % 2 == 0 { [0.3, -0.5] } else { [anything(&mut rng), anything(&mut rng)] };
        let t = if round % 11 == 0 { anything(&mut rng) } else { 0.02 + 0.96 * (round % 97) as f32 / 97.0 };
        let particle = if round % 13 == 0 { [anything(&mut rng); 2] } else { [0.1, 0.2] };
        if let Ok((mean, posterior)) = estimator.estimate(t, &x.into(), &mut target, &[particle], &mut rng) {
            assert!(mean.iter().all(|m| m.is_finite()), "{mixture:?} {control_variate:?} {mean}");
            assert!(posterior.effective_sample_size.is_finite() && !posterior.log_normalizer.is_nan());
            found += 1;
        }
    }
    assert!(found > 20_000, "only {found} estimates came out");
}
