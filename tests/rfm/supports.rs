//! Every source, schedule, target space and method against quadrature in one dimension.

use crate::oracle::{Asked, Bumps, SCHEDULES, SOURCES, exact, log_source, point, repeat};
use flowlet::flow::{Draws, Schedule, Source};
use flowlet::rfm::{Annealed, Auto, ControlVariate, Ladder, Langevin, Method, Mixture, RfmConfig, TestFunction};

const K: usize = 64;
const MIXED: Mixture = Mixture { bridge: 24, uniform: 24, kernel: 16, bandwidth: 0.5, ..Mixture::bridge(0) };
const START: Mixture = Mixture { bridge: 12, uniform: 12, kernel: 8, bandwidth: 0.5, ..Mixture::bridge(0) };
const PARTICLES: [[f32; 1]; 2] = [[-0.5], [0.7]];

/// The configuration's mean and normaliser at this point, within their errors and the bias of self-normalisation: of
/// the order of the posterior's spread over the effective sample size, of which it may take `share`.
fn check(config: RfmConfig, mut target: Bumps, t: f32, n: usize, share: f64) {
    let (schedule, source) = (config.schedule, config.source);
    let x = point(schedule, t);
    let exact = exact(target, schedule, source, t, f64::from(x));
    let constant = f64::from(source.log_density(0.0)) - log_source(source, 0.0);
    let reference = exact.log_mass + constant + f64::from(schedule.alpha(t) / schedule.beta(t)).ln();
    let found = repeat::<K>(config, (t, x), &PARTICLES, &mut target, Asked::Mean, n, reference);
    let allowed = 4.0 * found.error + share * exact.deviation / found.ess.min(16.0);
    assert!((found.mean - exact.mean).abs() < allowed, "{config:?} {target:?} t={t}: {found:?} {exact:?}");
    // A correction that hides a wrong mean in noise would pass above.
    assert!(found.deviation < 0.6 * exact.deviation, "{config:?} {target:?} t={t}: {found:?} {exact:?}");
    let [mass, error] = found.normalizer;
    // 1e-3 for the bound of a uniform action, quadrature and rounding of logits. A ladder that adapts to its sixteen
    // particles biases the normaliser by a share of the order of a sixteenth.
    let adaptive = matches!(config.method, Method::Smc(Annealed { ladder: Ladder::Adaptive { .. }, .. }));
    let error = if adaptive { error + 0.02 } else { error };
    assert!((mass - 1.0).abs() < 4.5 * error + 1e-3, "{config:?} {target:?} t={t}: {mass} +- {error}");
}

fn each(mut run: impl FnMut(Source, Schedule, Bumps, f32)) {
    for source in SOURCES {
        for schedule in SCHEDULES {
            for target in [Bumps::Tanh, Bumps::Box] {
                for t in [0.3, 0.8] {
                    run(source, schedule, target, t);
                }
            }
        }
    }
}

#[test]
fn mixtures_agree_with_quadrature_for_every_source_schedule_and_space() {
    let mut turn = 0;
    each(|source, schedule, target, t| {
        turn += 1;
        for (i, control_variate) in [
            ControlVariate::None,
            ControlVariate::Fisher,
            ControlVariate::Diagonal { ridge: 1e-4, clip: 2.0 },
            ControlVariate::Shrunk,
        ]
        .into_iter()
        .enumerate()
        {
            let mixture = Mixture { draws: Draws::ALL[(turn + i) % Draws::ALL.len()], ..MIXED };
            let config = RfmConfig { source, schedule, control_variate, ..RfmConfig::importance(mixture) };
            check(config, target, t, 200, 2.0);
        }
    });
}

#[test]
fn the_source_bridge_alone_agrees_where_it_reaches_the_target() {
    for source in SOURCES {
        for target in [Bumps::Tanh, Bumps::Box] {
            for draws in Draws::ALL {
                let mixture = Mixture { draws, ..Mixture::bridge(K) };
                for control_variate in [ControlVariate::None, ControlVariate::Fisher] {
                    let config = RfmConfig { source, control_variate, ..RfmConfig::importance(mixture) };
                    check(config, target, 0.7, 300, 2.0);
                }
            }
        }
    }
}

#[test]
fn adjusted_chains_agree_with_quadrature_for_every_source_schedule_and_space() {
    let method = Method::Mala(Langevin::new(START, 8, 4));
    each(|source, schedule, target, t| {
        for control_variate in [ControlVariate::None, ControlVariate::Fisher] {
            let config = RfmConfig { source, schedule, control_variate, method, ..RfmConfig::default() };
            // Half of the candidates stand behind the chains' starts, and eight chains share two modes.
            check(config, target, t, 250, 3.0);
        }
    });
}

#[test]
fn annealed_particles_agree_with_quadrature_for_every_source_schedule_and_space() {
    each(|source, schedule, target, t| {
        for ladder in [Ladder::Adaptive { keep: 0.5 }, Ladder::Power { exponent: 2.0 }] {
            let method = Method::Smc(Annealed { ladder, ..Annealed::new(16, 4) });
            let config = RfmConfig { source, schedule, method, ..RfmConfig::default() };
            check(config, target, t, 250, 4.0);
        }
    });
}

#[test]
fn the_default_agrees_with_quadrature_for_every_source_schedule_and_space() {
    each(|source, schedule, target, t| {
        for control_variate in [ControlVariate::None, ControlVariate::Shrunk] {
            let method = Method::Auto(Auto::new(K));
            let config = RfmConfig { source, schedule, control_variate, method, ..RfmConfig::default() };
            check(config, target, t, 150, 2.0);
        }
    });
}

#[test]
fn a_constant_test_function_is_biased_at_an_edge_and_the_boundary_function_is_not() {
    // E_q[Phi' + Phi s] by quadrature is [q Phi] over the ends: zero with the boundary function, not with a constant.
    // `eta = 1` puts the whole of it into the estimate, and many candidates leave little else.
    let mixture = Mixture { bridge: 128, uniform: 128, ..Mixture::bridge(0) };
    // Points where the density differs between the ends: it is that difference which the constant leaves behind.
    for (source, target, x) in [
        (Source::Uniform, Bumps::Tanh, 0.35),
        (Source::TruncatedGaussian { bound: 0.7 }, Bumps::Tanh, 0.35),
        (Source::Gaussian, Bumps::Box, 0.5),
        (Source::Uniform, Bumps::Box, 0.35),
    ] {
        let t = 0.5;
        let known = exact(target, Schedule::Linear, source, t, f64::from(x));
        let run = |test_function| {
            let control_variate = ControlVariate::Eta(1.0);
            let config = RfmConfig { source, control_variate, test_function, ..RfmConfig::importance(mixture) };
            repeat::<256>(config, (t, x), &[], &mut { target }, Asked::Mean, 400, 0.0)
        };
        let (constant, boundary) = (run(TestFunction::Constant), run(TestFunction::Boundary));
        let allowed = 4.0 * boundary.error + 2.0 * known.deviation / boundary.ess;
        assert!((boundary.mean - known.mean).abs() < allowed, "{source:?} {target:?}: {boundary:?} {known:?}");
        let bias = (constant.mean - known.mean).abs();
        assert!(bias > 6.0 * constant.error + 0.02, "{source:?} {target:?}: {constant:?} {known:?}");
        assert_eq!(run(TestFunction::Auto).mean, boundary.mean);
    }
}

#[test]
fn smooth_full_supports_leave_the_score_without_a_mean() {
    // The same bias is absent for every source without an edge, with a constant test function.
    let mixture = Mixture { bridge: 128, uniform: 128, ..Mixture::bridge(0) };
    for source in [Source::Gaussian, Source::Laplace, Source::Logistic, Source::StudentT { dof: 3.0 }] {
        let t = 0.5;
        let known = exact(Bumps::Tanh, Schedule::Linear, source, t, 0.1);
        for test_function in [TestFunction::Constant, TestFunction::Boundary] {
            let control_variate = ControlVariate::Eta(1.0);
            let config = RfmConfig { source, control_variate, test_function, ..RfmConfig::importance(mixture) };
            let found = repeat::<256>(config, (t, 0.1), &[], &mut Bumps::Tanh, Asked::Mean, 400, 0.0);
            // At t = 1/2 the coefficient is 1 and scores reach 10: self-normalisation biases their mean as that.
            let allowed = 4.0 * found.error + 8.0 * known.deviation / found.ess;
            assert!((found.mean - known.mean).abs() < allowed, "{source:?} {test_function:?}: {found:?} {known:?}");
        }
    }
}
