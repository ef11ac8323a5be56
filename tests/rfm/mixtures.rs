//! Gaussian-mixture targets in any dimension: with a Gaussian source the posterior is a mixture again, so mean, score
//! and velocity are known in closed form for every schedule.

use crate::oracle::SCHEDULES;
use flowlet::flow::{Draws, Schedule};
use flowlet::rfm::{Annealed, Auto, ControlVariate, Estimator, Langevin, Method, Mixture, RfmConfig, Target};
use nalgebra::SVector;
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro128PlusPlus;

/// Components of weight, mean and variance.
pub struct Gaussians<const D: usize>(pub [(f64, [f64; D], f64); 2]);

/// Two components that differ in every axis and in width.
pub fn pair<const D: usize>() -> Gaussians<D> {
    let first = core::array::from_fn(|j| 0.8 / (1.0 + j as f64) * if j % 2 == 0 { 1.0 } else { -1.0 });
    let second = core::array::from_fn(|j| -0.6 + 0.15 * j as f64);
    Gaussians([(0.4, first, 0.15), (0.6, second, 0.3)])
}

impl<const D: usize> Gaussians<D> {
    /// Exact `E[X_1 | X_t = x]` and `grad ln p_t(x)` for a standard normal source.
    pub fn posterior(&self, alpha: f64, beta: f64, x: [f64; D]) -> ([f64; D], [f64; D]) {
        let (mut mass, mut mean, mut score) = (0.0, [0.0; D], [0.0; D]);
        for (weight, centre, variance) in &self.0 {
            let marginal = alpha * alpha * variance + beta * beta;
            let square: f64 = (0..D).map(|j| (x[j] - alpha * centre[j]).powi(2)).sum();
            let evidence = weight * (-0.5 * square / marginal).exp() / marginal.powf(0.5 * D as f64);
            mass += evidence;
            for j in 0..D {
                let residual = x[j] - alpha * centre[j];
                mean[j] += evidence * (centre[j] + alpha * variance / marginal * residual);
                score[j] -= evidence * residual / marginal;
            }
        }
        (mean.map(|m| m / mass), score.map(|s| s / mass))
    }
}

impl<const D: usize> Target for Gaussians<D> {
    fn log_density(&mut self, u: &[f32]) -> f32 {
        self.log_density_and_score(u, &mut [0.0; D])
    }

    fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
        let logs = self.0.map(|(weight, centre, variance)| {
            let square: f64 = (0..D).map(|j| (f64::from(u[j]) - centre[j]).powi(2)).sum();
            weight.ln() - 0.5 * square / variance - 0.5 * D as f64 * variance.ln()
        });
        let high = logs[0].max(logs[1]);
        let shares = logs.map(|log| (log - high).exp());
        let total = shares[0] + shares[1];
        for j in 0..D {
            let pull = |i: usize| shares[i] / total * (self.0[i].1[j] - f64::from(u[j])) / self.0[i].2;
            score[j] = (pull(0) + pull(1)) as f32;
        }
        (high + total.ln()) as f32
    }
}

/// Mean of `n` estimates of mean and score, against the closed form.
fn check<const D: usize, const K: usize>(config: RfmConfig, t: f32, n: usize, allowance: f64) {
    let mut target = pair::<D>();
    let schedule = config.schedule;
    let (alpha, beta) = (schedule.alpha(t), schedule.beta(t));
    let x: [f32; D] = core::array::from_fn(|j| 0.2 * alpha + 0.3 * beta * if j % 3 == 0 { 1.0 } else { -0.5 });
    let (mean, score) = target.posterior(f64::from(alpha), f64::from(beta), x.map(f64::from));
    let mut estimator = Estimator::<D, K>::new(config);
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(31);
    let particles = target.0.map(|component| component.1.map(|c| c as f32));
    let zero = SVector::<f64, D>::zeros();
    let (mut sums, mut squares, mut score_sum) = (zero, zero, zero);
    for _ in 0..n {
        let mut scratch = estimator.scratch();
        let run = config.run(t, &x, &mut target, particles.as_flattened(), &mut rng, &mut scratch).unwrap();
        let (mut found, mut slope) = (SVector::<f32, D>::zeros(), SVector::<f32, D>::zeros());
        config.finish(&run, &mut scratch, found.as_mut_slice()).unwrap();
        config.finish_score(&run, &mut scratch, slope.as_mut_slice()).unwrap();
        let found = found.cast::<f64>();
        sums += found;
        squares += found.component_mul(&found);
        score_sum += slope.cast::<f64>();
    }
    for j in 0..D {
        let found = sums[j] / n as f64;
        let error = ((squares[j] / n as f64 - found * found).max(0.0) / n as f64).sqrt();
        let allowed = 4.0 * error + allowance;
        assert!((found - mean[j]).abs() < allowed, "{config:?} t={t} axis {j}: {found} {} {error}", mean[j]);
        // The score is (alpha E[X_1] - x) / beta^2 run by run: its error is that of the mean times alpha / beta^2.
        let scale = f64::from(alpha / (beta * beta));
        let slope = score_sum[j] / n as f64;
        assert!((slope - score[j]).abs() < scale * allowed + 1e-3, "{config:?} t={t} axis {j}: {slope} {}", score[j]);
        // The velocity follows from the mean: against W E[X_1] + beta' x over beta with rates by differences.
        let h = 1e-3;
        let rate = |f: &dyn Fn(f32) -> f32| f64::from(f(t + h) - f(t - h)) / f64::from(2.0 * h);
        let (da, db) = (rate(&|t| schedule.alpha(t)), rate(&|t| schedule.beta(t)));
        let (a, b, point) = (f64::from(alpha), f64::from(beta), f64::from(x[j]));
        let exact = (db * point + (da * b - a * db) * mean[j]) / b;
        let velocity = f64::from(schedule.velocity_from_data(t, x[j], mean[j] as f32));
        // Differences of f32 over 2e-3 are good to 1e-4, divided by beta.
        assert!((velocity - exact).abs() < 3e-3 * (1.0 + exact.abs()) / b, "{schedule:?} {velocity} {exact}");
    }
}

#[test]
fn every_schedule_and_control_variate_agrees_in_three_dimensions() {
    let mixture = Mixture { bridge: 96, uniform: 64, kernel: 96, bandwidth: 0.5, ..Mixture::bridge(0) };
    for schedule in SCHEDULES {
        for control_variate in [
            ControlVariate::None,
            ControlVariate::EtaOptimal { ridge: 1e-6 },
            ControlVariate::PUBLISHED,
            ControlVariate::Full { ridge: 1e-3 },
            ControlVariate::Fisher,
            ControlVariate::Shrunk,
        ] {
            for t in [0.3, 0.7] {
                // Spread 0.5 over an effective sample size of 50: a bias of 0.01, and as much for plug-in forms.
                let config = RfmConfig { schedule, control_variate, ..RfmConfig::importance(mixture) };
                check::<3, 256>(config, t, 250, 0.02);
            }
        }
    }
}

#[test]
fn kernels_on_the_components_reach_eight_dimensions() {
    let mixture = Mixture { bridge: 64, uniform: 0, kernel: 192, bandwidth: 0.5, ..Mixture::bridge(0) };
    for draws in Draws::ALL {
        for control_variate in [ControlVariate::None, ControlVariate::Fisher, ControlVariate::Full { ridge: 1e-2 }] {
            let config = RfmConfig { control_variate, ..RfmConfig::importance(Mixture { draws, ..mixture }) };
            // A plug-in matrix of 64 coefficients from an effective size near 50 has a bias of its own.
            let allowance = if matches!(control_variate, ControlVariate::Full { .. }) { 0.07 } else { 0.03 };
            check::<8, 256>(config, 0.5, 250, allowance);
        }
    }
}

#[test]
fn chains_annealing_and_the_default_agree_in_four_dimensions() {
    let start = Mixture { bridge: 64, uniform: 0, kernel: 64, bandwidth: 0.5, ..Mixture::bridge(0) };
    for schedule in [Schedule::Linear, Schedule::VpCosine] {
        for method in [
            Method::Mala(Langevin::new(start, 32, 4)),
            Method::Ula(Langevin { step: 0.1, ..Langevin::new(start, 32, 4) }),
            Method::Smc(Annealed::new(64, 4)),
            Method::Auto(Auto::new(256)),
        ] {
            for control_variate in [ControlVariate::None, ControlVariate::Fisher] {
                let config = RfmConfig { schedule, control_variate, method, ..RfmConfig::default() };
                // Modes are chosen by 32 chains or 64 particles: their shares carry the bias of the start.
                check::<4, 256>(config, 0.6, 250, 0.04);
            }
        }
    }
}
