//! What is particular to chains and annealing: invariance, the bias of the unadjusted step, hard starts.

use crate::oracle::{Asked, Bumps, exact, repeat};
use flowlet::flow::Schedule;
use flowlet::flow::Source;
use flowlet::rfm::{Annealed, ControlVariate, Ladder, Langevin, Method, Mixture, RfmConfig, Target};

/// A Gaussian target of mean 0.4 and variance 0.2; with a Gaussian source its posterior is Gaussian.
struct Bell;

impl Target for Bell {
    fn log_density(&mut self, u: &[f32]) -> f32 {
        u.iter().map(|u| -2.5 * (u - 0.4) * (u - 0.4)).sum()
    }
    fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
        score.iter_mut().zip(u).for_each(|(s, u)| *s = -5.0 * (u - 0.4));
        self.log_density(u)
    }
}

/// Mean and variance of the posterior of `Bell` on the linear path.
fn bell_posterior(t: f64, x: f64) -> (f64, f64) {
    let (a, b) = (t, 1.0 - t);
    let precision = 5.0 + (a / b) * (a / b);
    ((5.0 * 0.4 + x * a / (b * b)) / precision, 1.0 / precision)
}

fn config(method: Method) -> RfmConfig {
    RfmConfig { method, ..RfmConfig::default() }
}

#[test]
fn adjusted_chains_leave_the_posterior_invariant_for_any_step() {
    // Second moments show what means cannot: the mean of y^2 under the weights, from starts that are exact because the
    // importance round is large, after moves with steps from cautious to reckless.
    for step in [0.1f32, 1.0, 3.0, 20.0] {
        let start = Mixture { bridge: 48, uniform: 48, ..Mixture::bridge(0) };
        let method = Method::Mala(Langevin { step, ..Langevin::new(start, 32, 6) });
        let (mean, variance) = bell_posterior(0.5, 0.2);
        let (found, square) = moments::<288>(method, 0.5, 0.2);
        // Starts from 96 weighted candidates: a bias of about 1/50 of the spread at most.
        assert!((found.0 - mean).abs() < 4.0 * found.1 + 0.004, "step {step}: {found:?} {mean}");
        let second = variance + mean * mean;
        assert!((square.0 - second).abs() < 4.0 * square.1 + 0.004, "step {step}: {square:?} {second}");
    }
}

/// Mean and standard error of the weighted first and second moments over 400 runs.
fn moments<const K: usize>(method: Method, t: f32, x: f32) -> ((f64, f64), (f64, f64)) {
    use flowlet::rfm::Estimator;
    use rand_core::SeedableRng;
    let mut rng = rand_xoshiro::Xoshiro128PlusPlus::seed_from_u64(6);
    let mut estimator = Estimator::<1, K>::new(config(method));
    let (mut first, mut second, n) = ([0.0; 2], [0.0; 2], 400.0);
    for _ in 0..400 {
        estimator.estimate(t, &[x].into(), &mut Bell, &[], &mut rng).unwrap();
        let (mut mean, mut square) = (0.0, 0.0);
        for (w, y) in estimator.weights().iter().zip(estimator.candidates().iter()) {
            mean += f64::from(w * y);
            square += f64::from(w * y * y);
        }
        for (sums, value) in [(&mut first, mean), (&mut second, square)] {
            sums[0] += value;
            sums[1] += value * value;
        }
    }
    let of = |sums: [f64; 2]| {
        let mean = sums[0] / n;
        (mean, ((sums[1] / n - mean * mean).max(0.0) / n).sqrt())
    };
    (of(first), of(second))
}

#[test]
fn unadjusted_chains_have_the_stationary_variance_of_their_step() {
    // y' = y - (h M P / 2)(y - m) + sqrt(h M) e with posterior precision P is a Gaussian autoregression of factor
    // f = 1 - hMP/2 and stationary variance hM / (1 - f^2) = v / (1 - hMP/4). From a start of variance v0 the variance
    // after i moves is v_inf + f^(2i) (v0 - v_inf). M is fixed by the start rows: 1 / M = max(1 + (a/b)^2, E_w s^2),
    // and E_q s^2 = P here, so hMP = h up to the noise of 96 candidates.
    let (mean, variance) = bell_posterior(0.5, 0.2);
    for step in [0.2f64, 1.0, 1.5] {
        let start = Mixture { bridge: 48, uniform: 48, ..Mixture::bridge(0) };
        let method = Method::Ula(Langevin { step: step as f32, ..Langevin::new(start, 32, 6) });
        let (found, square) = moments::<288>(method, 0.5, 0.2);
        let (factor, limit) = ((1.0 - 0.5 * step).powi(2), variance / (1.0 - 0.25 * step));
        let share: f64 = (1..=6).map(|i| factor.powi(i)).sum::<f64>() / 6.0;
        let exact = limit + share * (variance - limit) + mean * mean;
        assert!((found.0 - mean).abs() < 4.0 * found.1 + 0.004, "step {step}: {found:?} {mean}");
        // The noise of M moves the limit by a tenth of its excess.
        let allowed = 4.0 * square.1 + 0.004 + 0.15 * (limit - variance);
        assert!((square.0 - exact).abs() < allowed, "step {step}: {square:?} {exact}");
    }
}

#[test]
fn small_steps_make_unadjusted_chains_agree_with_quadrature() {
    let start = Mixture { bridge: 24, uniform: 24, ..Mixture::bridge(0) };
    for (source, target) in [(Source::Laplace, Bumps::Tanh), (Source::Gaussian, Bumps::Box)] {
        let method = Method::Ula(Langevin { step: 0.05, ..Langevin::new(start, 16, 2) });
        for control_variate in [ControlVariate::None, ControlVariate::Fisher] {
            let config = RfmConfig { source, control_variate, ..config(method) };
            let exact = exact(target, Schedule::Linear, source, 0.6, 0.3);
            let found = repeat::<80>(config, (0.6, 0.3), &[], &mut { target }, Asked::Mean, 1000, 0.0);
            // Bias: of the start, 1/16 of the spread, and of the step, 1/40 of it.
            let allowed = 4.0 * found.error + 0.1 * exact.deviation;
            assert!((found.mean - exact.mean).abs() < allowed, "{source:?} {target:?}: {found:?} {exact:?}");
        }
    }
}

#[test]
fn chains_mend_a_start_that_misses() {
    // The bridge at t = 0.1 spreads over 9 and has about one useful candidate in 40: the error of its mean is that of a
    // single draw. Chains started from the same budget find the posterior's middle.
    let (t, x) = (0.1f32, 0.3f32);
    let (mean, _) = bell_posterior(f64::from(t), f64::from(x));
    let error = |method| {
        let found = repeat::<64>(config(method), (t, x), &[], &mut Bell, Asked::Mean, 500, 0.0);
        ((found.mean - mean).powi(2) + found.deviation.powi(2)).sqrt()
    };
    let importance = error(Method::Importance(Mixture::bridge(64)));
    let mala = error(Method::Mala(Langevin::new(Mixture::bridge(32), 4, 8)));
    let smc = error(Method::Smc(Annealed::new(16, 4)));
    assert!(mala < 0.75 * importance && smc < 0.75 * importance, "{importance} {mala} {smc}");
}

#[test]
fn one_round_of_annealing_is_importance_sampling_from_the_base() {
    // With spread^2 equal to the target's variance and centred there, base and posterior share their precision; the
    // normaliser of a Gaussian is known for any number of rounds.
    let (t, x) = (0.5f64, 0.2f64);
    let marginal: f64 = t * t * 0.2 + 0.25;
    let density = |z: f64, v: f64| (-0.5 * z * z / v).exp() / (std::f64::consts::TAU * v).sqrt();
    // Integral of exp(-2.5 (y - 0.4)^2) times the bridge's density in y.
    let exact = (std::f64::consts::TAU * 0.2).sqrt() * density(x - t * 0.4, marginal) * t;
    for (rounds, ladder) in [
        (1, Ladder::Adaptive { keep: 0.5 }),
        (2, Ladder::Power { exponent: 1.0 }),
        (4, Ladder::Power { exponent: 1.0 }),
        (4, Ladder::Adaptive { keep: 0.9 }),
    ] {
        let method = Method::Smc(Annealed { ladder, ..Annealed::new(64 / rounds, rounds) });
        let found = repeat::<64>(config(method), (0.5, 0.2), &[], &mut Bell, Asked::Mean, 2000, exact.ln());
        let [mass, error] = found.normalizer;
        assert!((mass - 1.0).abs() < 4.0 * error + 1e-3 && error < 0.02, "{rounds} {ladder:?}: {mass} +- {error}");
        let (mean, variance) = bell_posterior(t, x);
        let allowed = 4.0 * found.error + variance.sqrt() / 16.0;
        assert!((found.mean - mean).abs() < allowed, "{rounds} {ladder:?}: {found:?} {mean}");
    }
}
