//! Reverse score matching against the slope of the marginal's logarithm, by quadrature.

use crate::oracle::{Asked, Bumps, SCHEDULES, SOURCES, exact, point, repeat};
use flowlet::flow::Source;
use flowlet::rfm::{ControlVariate, Evidence, Mixture, RfmConfig, Support, Target, TestFunction};

const MIXED: Mixture = Mixture { bridge: 64, uniform: 64, ..Mixture::bridge(0) };

#[test]
fn scores_agree_with_the_slope_of_the_marginal_for_every_source_schedule_and_space() {
    for source in SOURCES {
        for schedule in SCHEDULES {
            for target in [Bumps::Tanh, Bumps::Box] {
                let t = 0.6;
                let x = f64::from(point(schedule, t));
                // Fourth-order difference of ln p_t; quadrature is good to 1e-6 there, and 1e-2 is small for x.
                let at = |x: f64| exact(target, schedule, source, t, x).log_mass;
                let h = 1e-2 * f64::from(schedule.beta(t));
                let slope = (8.0 * (at(x + h) - at(x - h)) - (at(x + 2.0 * h) - at(x - 2.0 * h))) / (12.0 * h);
                for control_variate in [
                    ControlVariate::Eta(0.0),
                    ControlVariate::Eta(0.5),
                    ControlVariate::EtaOptimal { ridge: 1e-6 },
                    ControlVariate::Fisher,
                    ControlVariate::Shrunk,
                ] {
                    let config = RfmConfig { source, schedule, control_variate, ..RfmConfig::importance(MIXED) };
                    let point = (t, x as f32);
                    let found = repeat::<128>(config, point, &[], &mut { target }, Asked::Score, 300, 0.0);
                    // Self-normalisation biases by the spread of what is averaged over the effective sample size; that
                    // spread is the deviation of an estimate times the root of the size.
                    let allowed = 4.0 * found.error + 3.0 * found.deviation / found.ess.sqrt() + 2e-3;
                    let case = format!("{source:?} {schedule:?} {target:?} {control_variate:?}");
                    assert!((found.mean - slope).abs() < allowed, "{case}: {found:?} {slope}");
                }
            }
        }
    }
}

#[test]
fn the_posterior_score_is_the_slope_of_its_log_density_for_every_source_and_schedule() {
    let log_density = |evidence: &Evidence<'_>, y: f32| Bumps::Tanh.log_density(&[y]) + evidence.log_source(&[y]);
    for source in SOURCES {
        for schedule in SCHEDULES {
            let (t, mut seen) = (0.6, 0);
            let x = [point(schedule, t)];
            let evidence = Evidence::new(schedule, source, Support::Unbounded, t, &x).unwrap();
            // Across the posterior, but not across the kink of the Laplace density at noise zero.
            let h = 0.02 * evidence.ratio().min(1.0);
            for i in -15..16 {
                let y = (x[0] - 0.1 * i as f32 * evidence.beta()) / evidence.alpha();
                if i == 0 || !evidence.contains(&[y - 2.0 * h]) || !evidence.contains(&[y + 2.0 * h]) {
                    continue;
                }
                let mut score = [0.0];
                Bumps::Tanh.log_density_and_score(&[y], &mut score);
                assert!(evidence.posterior_score(&[y], &mut score));
                let difference = |h: f32| log_density(&evidence, y + h) - log_density(&evidence, y - h);
                let slope = (8.0 * difference(h) - difference(2.0 * h)) / (12.0 * h);
                // Logarithms near ten are rounded to 1e-6; the truncation is h^4 / 30 of a fifth derivative, below
                // 1e4 in units of the smaller scale.
                let allowed = 2e-5 / h + 0.005 * (1.0 + score[0].abs());
                assert!((slope - score[0]).abs() < allowed, "{source:?} {schedule:?} {y}: {slope} {score:?}");
                seen += 1;
            }
            assert!(seen > 10, "{source:?} {schedule:?}: {seen}");
        }
    }
}

#[test]
fn a_gaussian_source_ties_the_score_to_the_noise_mean() {
    // grad ln p_t = -E[X_0] / beta for every coefficient: the same numbers from the same run.
    use flowlet::rfm::Estimator;
    use rand_core::SeedableRng;
    use rand_xoshiro::Xoshiro128PlusPlus;
    for schedule in SCHEDULES {
        for control_variate in [
            ControlVariate::None,
            ControlVariate::Eta(0.7),
            ControlVariate::EtaOptimal { ridge: 1e-12 },
            ControlVariate::Diagonal { ridge: 1e-12, clip: 1e6 },
            ControlVariate::Full { ridge: 1e-4 },
            ControlVariate::Fisher,
            ControlVariate::Shrunk,
        ] {
            let config = RfmConfig { schedule, control_variate, ..RfmConfig::importance(MIXED) };
            let mut estimator = Estimator::<2, 128>::new(config);
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(4);
            let t = 0.6;
            let x = [point(schedule, t), -point(schedule, t)];
            let mut scratch = estimator.scratch();
            let run = config.run(t, &x, &mut Bumps::Tanh, &[], &mut rng, &mut scratch).unwrap();
            let (mut mean, mut noise, mut score) = ([0.0; 2], [0.0; 2], [0.0; 2]);
            config.finish(&run, &mut scratch, &mut mean).unwrap();
            config.finish_score(&run, &mut scratch, &mut score).unwrap();
            run.evidence().noise_mean(&mean, &mut noise);
            for (noise, score) in noise.iter().zip(score) {
                let beta = run.evidence().beta();
                // Both are sums of 128 terms near one over beta, and the plug-in forms square them once more.
                let allowed = 2e-4 * (1.0 + 1.0 / beta);
                assert!((score + noise / beta).abs() < allowed, "{schedule:?} {control_variate:?}: {score} {noise}");
            }
        }
    }
}

#[test]
fn differentiating_a_source_with_an_edge_is_wrong_and_is_not_done() {
    // With eta = 0 a uniform source has no score at all; the estimate moves the derivative to the target by itself.
    let config = RfmConfig {
        source: Source::Uniform,
        control_variate: ControlVariate::Eta(0.0),
        test_function: TestFunction::Auto,
        ..RfmConfig::importance(MIXED)
    };
    let found = repeat::<128>(config, (0.6, 0.35), &[], &mut Bumps::Tanh, Asked::Score, 200, 0.0);
    let at = |x: f64| exact(Bumps::Tanh, config.schedule, config.source, 0.6, x).log_mass;
    let slope = (at(0.354) - at(0.346)) / 0.008;
    // The wrong answer is zero, far from the right one; the allowance is that of the test above.
    assert!(slope.abs() > 0.1, "{slope}");
    let allowed = 4.0 * found.error + 3.0 * found.deviation / found.ess.sqrt() + 2e-3;
    assert!((found.mean - slope).abs() < allowed.min(0.5 * slope.abs()), "{found:?} {slope}");
}
