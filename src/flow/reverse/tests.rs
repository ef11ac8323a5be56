//! Oracles: a Gaussian mixture with its exact field, closed forms of the steps, quadrature for another source.

extern crate std;
use super::*;
use rand_core::SeedableRng;
use rand_xoshiro::Xoshiro128PlusPlus;
use std::{vec, vec::Vec};

const SCHEDULES: [Schedule; 4] =
    [Schedule::Linear, Schedule::VpCosine, Schedule::VP_LINEAR, Schedule::Ve { sigma_min: 0.01, sigma_max: 50.0 }];

/// Two Gaussians in the plane: shares, centres, and the deviation they have in common.
const SHARES: [f64; 2] = [0.3, 0.7];
const CENTRES: [[f64; 2]; 2] = [[-1.5, 0.5], [1.0, -1.0]];
const DEVIATION: f64 = 0.35;

/// The exact field of the mixture with a Gaussian source, in double precision. Given the component, `x` is normal
/// with mean `alpha c` and variance `alpha^2 s^2 + beta^2`, so every mean is linear in `x`.
fn mixture(schedule: Schedule, prediction: Prediction) -> impl FnMut(f32, &[f32], &mut [f32]) {
    move |t, x, out| {
        let (a, b) = (f64::from(schedule.alpha(t)), f64::from(schedule.beta(t)));
        let (da, db) = schedule.rates(t);
        let variance = a * a * DEVIATION * DEVIATION + b * b;
        let off = |c: [f64; 2]| [0, 1].map(|j| f64::from(x[j]) - a * c[j]);
        let log = [0, 1].map(|i| SHARES[i].ln() - off(CENTRES[i]).iter().map(|o| o * o).sum::<f64>() / 2.0 / variance);
        let first = 1.0 / (1.0 + (log[1] - log[0]).exp());
        let responsibilities = [first, 1.0 - first];
        for (j, out) in out.iter_mut().enumerate() {
            let mean = |f: &dyn Fn(usize) -> f64| (0..2).map(|i| responsibilities[i] * f(i)).sum::<f64>();
            let data = mean(&|i| CENTRES[i][j] + a * DEVIATION * DEVIATION / variance * off(CENTRES[i])[j]);
            let noise = mean(&|i| b / variance * off(CENTRES[i])[j]);
            let value = match prediction {
                Prediction::Velocity => f64::from(da) * data + f64::from(db) * noise,
                Prediction::Data => data,
                Prediction::Noise => noise,
                Prediction::Score => -mean(&|i| off(CENTRES[i])[j] / variance),
            };
            *out = value as f32;
        }
    }
}

/// Checks mean, variance and mode shares of samples: `bias` is what the discretisation may add.
fn agrees_with_the_mixture(samples: &[[f32; 2]], bias: f64, what: &str) {
    let n = samples.len() as f64;
    let share = samples.iter().filter(|x| x[0] - 0.6 * x[1] < -0.1).count() as f64 / n;
    // Five standard errors: deviations here are below 1.2, those of squares below 2.
    assert!((share - 0.3).abs() < 5.0 * (0.21 / n).sqrt() + bias, "{what}: share {share}");
    for j in 0..2 {
        let mean = samples.iter().map(|x| f64::from(x[j])).sum::<f64>() / n;
        let variance = samples.iter().map(|x| (f64::from(x[j]) - mean).powi(2)).sum::<f64>() / n;
        let exact = 0.3 * CENTRES[0][j] + 0.7 * CENTRES[1][j];
        let spread = DEVIATION * DEVIATION + 0.21 * (CENTRES[0][j] - CENTRES[1][j]).powi(2);
        assert!((mean - exact).abs() < 5.0 * 1.2 / n.sqrt() + bias, "{what}: mean {mean} {exact}");
        assert!((variance - spread).abs() < 5.0 * 2.0 / n.sqrt() + bias, "{what}: variance {variance} {spread}");
        // Inside the modes: their width, which a sampler that only finds the centres would miss.
        let (mut sum, mut count) = (0.0, 0.0);
        for x in samples.iter().filter(|x| x[0] - 0.6 * x[1] >= -0.1) {
            sum += (f64::from(x[j]) - CENTRES[1][j]).powi(2);
            count += 1.0;
        }
        let width = sum / count;
        let exact = DEVIATION * DEVIATION;
        assert!((width - exact).abs() < 5.0 * exact * f64::sqrt(2.0 / count) + bias * exact, "{what}: width {width}");
    }
}

#[test]
fn every_method_on_every_schedule_samples_a_mixture() {
    const N: usize = 2000;
    let methods = [
        ReverseMethod::Ode(Solver::Heun),
        ReverseMethod::Ode(Solver::Midpoint),
        ReverseMethod::Ddim { eta: 0.0 },
        ReverseMethod::Ddim { eta: 0.5 },
        ReverseMethod::Ddpm,
        ReverseMethod::EulerMaruyama(SdeNoise::Beta { scale: 0.7 }),
        ReverseMethod::EulerMaruyama(SdeNoise::Diffusion { scale: 1.0 }),
    ];
    let predictions = [Prediction::Velocity, Prediction::Data, Prediction::Noise, Prediction::Score];
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
    for (i, schedule) in SCHEDULES.into_iter().enumerate() {
        for (j, method) in methods.into_iter().enumerate() {
            // Each method meets two of the predictions on a schedule, and all of them over the schedules.
            for prediction in [predictions[(i + j) % 4], predictions[(i + j + 1) % 4]] {
                let plan = Reverse {
                    schedule,
                    source: Source::Gaussian,
                    prediction,
                    method,
                    steps: 200,
                    // alpha and beta, by which some of them divide, are some 1e-3 at these ends.
                    t_start: 1.0 / 1024.0,
                    t_end: 1023.0 / 1024.0,
                };
                let mut field = mixture(schedule, prediction);
                let samples: Vec<[f32; 2]> = (0..N)
                    .map(|_| {
                        let mut x = [0.0; 2];
                        plan.start(&mut rng, &mut x);
                        plan.run(&mut field, &mut rng, &mut x, &mut [0.0; 8]).unwrap();
                        x
                    })
                    .collect();
                // 200 steps of the first order, whose constants are a few.
                agrees_with_the_mixture(&samples, 0.03, &std::format!("{schedule:?} {method:?} {prediction:?}"));
            }
        }
    }
}

/// Runs one component with a field in double precision: `f(t, x)`.
fn run(plan: &Reverse, f: impl Fn(f64, f64) -> f64, x: f32) -> f64 {
    let mut field = |t: f32, x: &[f32], out: &mut [f32]| out[0] = f(f64::from(t), f64::from(x[0])) as f32;
    let (mut x, mut rng) = ([x], Xoshiro128PlusPlus::seed_from_u64(1));
    plan.run(&mut field, &mut rng, &mut x, &mut [0.0; 4]).unwrap();
    f64::from(x[0])
}

/// A Gaussian target, mean -0.4 and deviation 0.3: its flow keeps `(x - alpha mu) / sqrt(alpha^2 s^2 + beta^2)`.
fn gaussian(schedule: Schedule, prediction: Prediction, t: f64, x: f64) -> f64 {
    let (a, b) = (f64::from(schedule.alpha(t as f32)), f64::from(schedule.beta(t as f32)));
    let (da, db) = schedule.rates(t as f32);
    let off = (x + 0.4 * a) / (a * a * 0.09 + b * b);
    let (data, noise) = (-0.4 + a * 0.09 * off, b * off);
    match prediction {
        Prediction::Velocity => f64::from(da) * data + f64::from(db) * noise,
        Prediction::Data => data,
        Prediction::Noise => noise,
        Prediction::Score => -off,
    }
}

const COSINE: Reverse = Reverse {
    schedule: Schedule::VpCosine,
    source: Source::Gaussian,
    prediction: Prediction::Velocity,
    method: ReverseMethod::Ode(Solver::Euler),
    steps: 16,
    t_start: 0.0,
    t_end: 1.0,
};

#[test]
fn solvers_have_their_order_on_the_cosine_schedule() {
    let exact = -0.4 + 0.3 * f64::from(1.3f32);
    for (solver, order, n) in [
        (Solver::Euler, 1.0, 128),
        (Solver::Midpoint, 2.0, 32),
        (Solver::Heun, 2.0, 32),
        // Few enough steps that the error, 2e-6 at 24, stands above f32 rounding.
        (Solver::Rk4, 4.0, 12),
    ] {
        let error = |steps| {
            let plan = Reverse { steps, method: ReverseMethod::Ode(solver), ..COSINE };
            (run(&plan, |t, x| gaussian(Schedule::VpCosine, Prediction::Velocity, t, x), 1.3) - exact).abs()
        };
        let observed = (error(n) / error(2 * n)).log2();
        assert!((observed - order).abs() < 0.4, "{solver:?}: {observed}");
    }
}

#[test]
fn ddim_on_the_cosine_schedule_is_a_rotation() {
    // With phi = pi t / 2 an exponential integrator freezes the velocity's noise part: the step is
    // x cos(d) + (dx/dphi) sin(d), whatever is predicted.
    let d = core::f64::consts::FRAC_PI_2 / 16.0;
    let mut x = 1.3;
    for i in 0..16 {
        let t = f64::from(i) / 16.0;
        let slope = gaussian(Schedule::VpCosine, Prediction::Velocity, t, x) / core::f64::consts::FRAC_PI_2;
        x = x * d.cos() + slope * d.sin();
    }
    let plan = Reverse { method: ReverseMethod::Ddim { eta: 0.0 }, ..COSINE };
    for prediction in [Prediction::Velocity, Prediction::Data] {
        let found = run(&Reverse { prediction, ..plan }, |t, x| gaussian(Schedule::VpCosine, prediction, t, x), 1.3);
        // Sixteen steps of rounding, amplified by the division by beta >= 0.098 of the last one.
        assert!((found - x).abs() < 5e-6, "{prediction:?}: {found} {x}");
    }
    // A single point as target: noise is predicted exactly, so one step is exact on every schedule.
    for schedule in SCHEDULES {
        let plan = Reverse { schedule, prediction: Prediction::Data, steps: 1, ..plan };
        let (a, b) = (schedule.alpha(0.0), schedule.beta(0.0));
        let noise = 0.8;
        let end = run(&plan, |_, _| -0.4, -0.4 * a + b * noise);
        let exact = f64::from(-0.4 + schedule.beta(1.0) * noise);
        assert!((end - exact).abs() < 1e-6, "{schedule:?}: {end} {exact}");
    }
}

#[test]
fn ddpm_is_the_textbook_step() {
    // Ho et al. 2020 with alpha_bar = alpha(t)^2: mean sqrt(abar') b / (1 - abar) x_1 + sqrt(1 - b) (1 - abar') /
    // (1 - abar) x, variance (1 - abar') / (1 - abar) b, where b = 1 - abar / abar'.
    let plan = Reverse { method: ReverseMethod::Ddpm, prediction: Prediction::Data, steps: 1, ..COSINE };
    let plan = Reverse { t_start: 0.4, t_end: 0.45, ..plan };
    let bar = |t: f64| (core::f64::consts::FRAC_PI_2 * t).sin().powi(2);
    let (now, next) = (bar(f64::from(0.4f32)), bar(f64::from(0.45f32)));
    let b = 1.0 - now / next;
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
    let mut z = [0.0; 1];
    Source::Gaussian.sample(&mut rng, &mut z);
    let mean = next.sqrt() * b / (1.0 - now) * -0.4 + (1.0 - b).sqrt() * (1.0 - next) / (1.0 - now) * 0.9;
    let exact = mean + ((1.0 - next) / (1.0 - now) * b).sqrt() * f64::from(z[0]);
    let found = run(&plan, |_, _| -0.4, 0.9f64 as f32);
    assert!((found - exact).abs() < 1e-6, "{found} {exact}");
}

#[test]
fn a_step_of_the_sde_is_that_of_euler_and_maruyama() {
    // x + h (v + sigma^2 s / 2) + sigma sqrt(h) z by hand, with the noise of the same generator.
    let mut z = [0.0; 1];
    Source::Gaussian.sample(&mut Xoshiro128PlusPlus::seed_from_u64(1), &mut z);
    for schedule in SCHEDULES {
        let (t, h) = (0.5, 0.25);
        let (v, x) = (0.7, 0.9);
        let (a, b) = (f64::from(schedule.alpha(0.5)), f64::from(schedule.beta(0.5)));
        let (da, db) = schedule.rates(0.5);
        let w = f64::from(da) * b - a * f64::from(db);
        // The noise mean solves v = alpha' X_1 + beta' X_0 together with x = alpha X_1 + beta X_0.
        let score = -(f64::from(da) * x - a * v) / w / b;
        for (noise, variance) in [
            (SdeNoise::Beta { scale: 0.5 }, 0.25 * 2.0 * b),
            (SdeNoise::Diffusion { scale: 0.5 }, 0.25 * 2.0 * b * w / a),
        ] {
            let plan = Reverse { schedule, method: ReverseMethod::EulerMaruyama(noise), steps: 1, ..COSINE };
            let found = run(&Reverse { t_start: t, t_end: t + h, ..plan }, |_, _| v, x as f32);
            let exact =
                x + f64::from(h) * (v + 0.5 * variance * score) + (variance * f64::from(h)).sqrt() * f64::from(z[0]);
            assert!((found - exact).abs() < 3e-6 * (1.0 + exact.abs()), "{schedule:?} {noise:?}: {found} {exact}");
        }
    }
}

#[test]
fn without_noise_the_sde_is_euler_and_ddim_on_the_linear_path_too() {
    let field = |t: f64, x: f64| gaussian(Schedule::Linear, Prediction::Velocity, t, x);
    let plan = Reverse { schedule: Schedule::Linear, ..COSINE };
    let euler = run(&plan, field, 1.3);
    for noise in [SdeNoise::Beta { scale: 0.0 }, SdeNoise::Diffusion { scale: 0.0 }] {
        assert_eq!(run(&Reverse { method: ReverseMethod::EulerMaruyama(noise), ..plan }, field, 1.3), euler);
    }
    for source in [Source::Gaussian, Source::Laplace] {
        let ddim = run(&Reverse { method: ReverseMethod::Ddim { eta: 0.0 }, source, ..plan }, field, 1.3);
        assert!((ddim - euler).abs() < 2e-6, "{ddim} {euler}");
    }
}

#[test]
fn the_sde_of_another_source_needs_its_score_and_then_has_the_marginals() {
    // Laplace source, Gaussian target of mean -0.4 and deviation 0.6; means by quadrature over the noise.
    let evaluate = |t: f32, x: f32| {
        let (a, b) = (f64::from(t), 1.0 - f64::from(t));
        let (mut mass, mut noise, mut score) = (0.0, 0.0, 0.0);
        for i in 0..300 {
            // A grid in x_1 where the target is narrower than the noise, as seen from x.
            let x1 = -0.4 + 0.6 * (i as f64 - 149.5) / 30.0;
            let x0 = (f64::from(x) - a * x1) / b;
            let weight = (-x0.abs() - 0.5 * ((x1 + 0.4) / 0.6).powi(2)).exp();
            mass += weight;
            noise += weight * x0;
            score += weight * -x0.signum() / b;
        }
        let noise = noise / mass;
        ((f64::from(x) - noise) / a, score / mass)
    };
    let plan = Reverse {
        source: Source::Laplace,
        schedule: Schedule::Linear,
        method: ReverseMethod::EulerMaruyama(SdeNoise::Beta { scale: 0.7 }),
        steps: 100,
        t_start: 1.0 / 128.0,
        t_end: 127.0 / 128.0,
        ..COSINE
    };
    let mut velocity = |t: f32, x: &[f32], out: &mut [f32]| out[0] = evaluate(t, x[0]).0 as f32;
    let mut score = |t: f32, x: &[f32], out: &mut [f32]| out[0] = evaluate(t, x[0]).1 as f32;
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(3);
    let (mut scratch, mut x) = ([0.0; 4], [0.3]);
    assert_eq!(plan.run(&mut velocity, &mut rng, &mut x, &mut scratch), Err(ReverseError::MissingScore));
    assert_eq!(x, [0.3]);
    const N: usize = 2000;
    let samples: Vec<f64> = (0..N)
        .map(|_| {
            plan.start(&mut rng, &mut x);
            plan.run_with_score(&mut velocity, &mut score, &mut rng, &mut x, &mut scratch).unwrap();
            f64::from(x[0])
        })
        .collect();
    let mean = samples.iter().sum::<f64>() / N as f64;
    let variance = samples.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / N as f64;
    // Five standard errors, and 1e-2 for a hundred steps of the first order and the ends left out.
    assert!((mean + 0.4).abs() < 5.0 * 0.6 / (N as f64).sqrt() + 0.01, "{mean}");
    assert!((variance - 0.36).abs() < 5.0 * 0.36 * (2.0 / N as f64).sqrt() + 0.01, "{variance}");
}

#[test]
fn bad_input_is_named_and_leaves_the_latent() {
    use ReverseError as E;
    let ddim = ReverseMethod::Ddim { eta: 0.0 };
    let diffusion = ReverseMethod::EulerMaruyama(SdeNoise::Diffusion { scale: 1.0 });
    for (plan, error) in [
        (Reverse { source: Source::StudentT { dof: 0.0 }, ..COSINE }, E::Source),
        (Reverse { schedule: Schedule::Ve { sigma_min: 1.0, sigma_max: 1.0 }, ..COSINE }, E::Schedule),
        (Reverse { steps: 0, ..COSINE }, E::Steps),
        (Reverse { steps: 70_000, ..COSINE }, E::Steps),
        (Reverse { t_start: f32::NAN, ..COSINE }, E::Interval),
        (Reverse { t_end: 1.5, ..COSINE }, E::Interval),
        (Reverse { t_start: 0.5, t_end: 0.5, ..COSINE }, E::Interval),
        (Reverse { method: ReverseMethod::Ddim { eta: 1.5 }, ..COSINE }, E::Noise),
        (Reverse { method: ReverseMethod::Ddim { eta: f32::NAN }, ..COSINE }, E::Noise),
        (Reverse { method: ReverseMethod::EulerMaruyama(SdeNoise::Beta { scale: -1.0 }), ..COSINE }, E::Noise),
        (Reverse { source: Source::Laplace, prediction: Prediction::Score, t_start: 0.1, ..COSINE }, E::NotGaussian),
        (Reverse { source: Source::Uniform, method: ReverseMethod::Ddpm, ..COSINE }, E::NotGaussian),
        (Reverse { prediction: Prediction::Noise, ..COSINE }, E::Alpha),
        (Reverse { prediction: Prediction::Score, method: ddim, ..COSINE }, E::Alpha),
        (Reverse { method: diffusion, ..COSINE }, E::Alpha),
        (Reverse { prediction: Prediction::Data, method: ReverseMethod::Ode(Solver::Rk4), ..COSINE }, E::Beta),
    ] {
        let mut x = [0.25, -0.5];
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let mut field = |_: f32, _: &[f32], out: &mut [f32]| out.fill(0.1);
        assert_eq!(plan.run(&mut field, &mut rng, &mut x, &mut [0.0; 8]), Err(error), "{plan:?}");
        assert_eq!(x, [0.25, -0.5]);
    }
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
    for method in [ReverseMethod::Ode(Solver::Rk4), ddim, ReverseMethod::Ddpm, diffusion] {
        let plan = Reverse { method, t_start: 0.1, ..COSINE };
        let mut zero = |_: f32, _: &[f32], out: &mut [f32]| out.fill(0.0);
        assert_eq!(plan.run(&mut zero, &mut rng, &mut [0.1; 2], &mut [0.0; 7]), Err(E::Scratch));
        assert_eq!(plan.run(&mut zero, &mut rng, &mut [], &mut [0.0; 8]), Err(E::Scratch));
        assert_eq!(plan.run(&mut zero, &mut rng, &mut [f32::NAN, 0.0], &mut [0.0; 8]), Err(E::NonFinite));
        for bad in [f32::NAN, f32::INFINITY] {
            // The third evaluation fails.
            let mut calls = 0;
            let mut field = |_: f32, _: &[f32], out: &mut [f32]| {
                calls += 1;
                out.fill(if calls < 3 { 0.1 } else { bad });
            };
            let mut x = [0.25, -0.5];
            assert_eq!(plan.run(&mut field, &mut rng, &mut x, &mut [0.0; 8]), Err(E::NonFinite), "{method:?} {bad}");
            assert_eq!(x, [0.25, -0.5]);
        }
    }
}

#[test]
fn the_start_is_on_the_scale_of_the_schedule() {
    let plan = Reverse { schedule: Schedule::Ve { sigma_min: 0.01, sigma_max: 50.0 }, ..COSINE };
    let (mut x, mut noise) = (vec![0.0; 5], vec![0.0; 5]);
    plan.start(&mut Xoshiro128PlusPlus::seed_from_u64(7), &mut x);
    Source::Gaussian.sample(&mut Xoshiro128PlusPlus::seed_from_u64(7), &mut noise);
    assert!(x.iter().zip(&noise).all(|(x, z)| *x == 50.0 * z));
    assert_eq!(Reverse { method: ReverseMethod::Ode(Solver::Rk4), ..plan }.evaluations(), 64);
}
