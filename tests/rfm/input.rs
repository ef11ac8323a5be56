//! Bad input: named errors that leave the mean as it was, and random bits that never panic and never give a NaN.

use crate::oracle::{Bumps, SCHEDULES, SOURCES};
use flowlet::flow::{Draws, Schedule, ScheduleError, Source, SourceError};
use flowlet::math;
use flowlet::rfm::{
    Annealed, Auto, ControlVariate, EstimateError, Estimator, EstimatorScratch, Ladder, Langevin, Method,
};
use flowlet::rfm::{Mixture, ProposalError, RfmConfig, Support, Target, TestFunction};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

const MIXED: Mixture = Mixture { bridge: 24, uniform: 24, kernel: 16, bandwidth: 0.5, ..Mixture::bridge(0) };

#[test]
fn bad_input_is_named_and_leaves_the_mean() {
    struct Broken(f32, f32);
    impl Target for Broken {
        fn log_density(&mut self, u: &[f32]) -> f32 {
            if u[0] > self.1 { self.0 } else { Bumps::Tanh.log_density(u) }
        }
        fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
            Bumps::Tanh.log_density_and_score(u, score);
            if u[0] > self.1 {
                score[0] = self.0;
            }
            self.log_density(u)
        }
    }
    let config = |mixture, control_variate| RfmConfig { control_variate, ..RfmConfig::importance(mixture) };
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
    let refused = none.estimate(0.5, &[0.0].into(), &mut Bumps::Tanh, &[], &mut rng);
    assert_eq!(refused.unwrap_err(), EstimateError::Proposal(ProposalError::Particles));
}

#[test]
fn every_constant_is_checked_and_every_refusal_leaves_the_mean() {
    let refused = |config: RfmConfig, t: f32, x: &[f32], support: Bumps, error: EstimateError| {
        let mut memory = vec![0.0; EstimatorScratch::len(1, 64)];
        let mut scratch = EstimatorScratch::carve(&mut memory, 1, 64).unwrap();
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(8);
        let mut mean = [7.0];
        let found = config.estimate(t, x, &mut { support }, &[0.1], &mut rng, &mut scratch, &mut mean);
        assert_eq!(found, Err(error), "{config:?}");
        assert_eq!(mean, [7.0]);
        let found = config.score(t, x, &mut { support }, &[0.1], &mut rng, &mut scratch, &mut mean);
        assert!(found.is_err() && mean == [7.0], "{config:?}");
    };
    let plain = |config, error| refused(config, 0.5, &[0.0], Bumps::Tanh, error);
    let good = RfmConfig { control_variate: ControlVariate::Fisher, ..RfmConfig::importance(MIXED) };
    plain(RfmConfig { source: Source::StudentT { dof: f32::NAN }, ..good }, EstimateError::Source(SourceError::Dof));
    plain(
        RfmConfig { schedule: Schedule::Ve { sigma_min: 1.0, sigma_max: 1.0 }, ..good },
        EstimateError::Schedule(ScheduleError::Sigmas),
    );
    for control_variate in [ControlVariate::EtaOptimal { ridge: -1.0 }, ControlVariate::Full { ridge: f32::INFINITY }] {
        plain(RfmConfig { control_variate, ..good }, EstimateError::ControlVariate);
    }
    let (mala, smc) = (Langevin::new(Mixture::bridge(32), 8, 4), Annealed::new(16, 4));
    for langevin in [
        Langevin { chains: 0, ..mala },
        Langevin { steps: 0, ..mala },
        Langevin { steps: 5, ..mala },
        Langevin { chains: usize::MAX, ..mala },
        Langevin { step: 0.0, ..mala },
        Langevin { step: f32::NAN, ..mala },
    ] {
        plain(RfmConfig { method: Method::Mala(langevin), ..good }, EstimateError::Method);
        plain(RfmConfig { method: Method::Ula(langevin), ..good }, EstimateError::Method);
    }
    let start = Mixture { bandwidth: f32::NAN, ..MIXED };
    plain(
        RfmConfig { method: Method::Mala(Langevin { start, ..mala }), ..good },
        EstimateError::Proposal(ProposalError::Bandwidth),
    );
    for annealed in [
        Annealed { particles: 0, ..smc },
        Annealed { rounds: 0, ..smc },
        Annealed { rounds: usize::MAX, ..smc },
        Annealed { spread: 0.0, ..smc },
        Annealed { step: f32::INFINITY, ..smc },
        Annealed { ladder: Ladder::Adaptive { keep: 1.0 }, ..smc },
        Annealed { ladder: Ladder::Power { exponent: f32::NAN }, ..smc },
    ] {
        plain(RfmConfig { method: Method::Smc(annealed), ..good }, EstimateError::Method);
    }
    for mixture in [
        Mixture::bridge(0),
        Mixture { bridge: usize::MAX, uniform: 1, ..MIXED },
        Mixture { bridge: usize::MAX, uniform: 65, kernel: 0, ..MIXED },
    ] {
        plain(
            RfmConfig { method: Method::Importance(mixture), ..good },
            EstimateError::Proposal(ProposalError::Shares),
        );
    }
    // No noise of the source carries the box to x; the bridge of a Gaussian source does not reach it either.
    let uniform = RfmConfig { source: Source::Uniform, ..good };
    refused(uniform, 0.5, &[1.5], Bumps::Box, EstimateError::Support);
    let far = RfmConfig { method: Method::Importance(Mixture::bridge(64)), ..good };
    refused(far, 0.99, &[50.0], Bumps::Box, EstimateError::Support);
    for method in [Method::Mala(mala), Method::Smc(smc)] {
        refused(RfmConfig { method, ..good }, 0.99, &[50.0], Bumps::Box, EstimateError::Support);
    }
    refused(good, 0.5, &[], Bumps::Tanh, EstimateError::Point);
    // The score of a bounded source without the target's.
    let mut estimator =
        Estimator::<1, 64>::new(RfmConfig { source: Source::Uniform, control_variate: ControlVariate::None, ..good });
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(8);
    let found = estimator.score(0.5, &[0.0].into(), &mut Bumps::Tanh, &[[0.1]], &mut rng);
    assert_eq!(found.unwrap_err(), EstimateError::Scores);
    // Memory of another dimension, or for another number of candidates.
    let mut memory = vec![0.0; EstimatorScratch::len(2, 64)];
    for (dim, k, error) in [(2, 64, EstimateError::Scratch), (1, 63, EstimateError::Proposal(ProposalError::Shares))] {
        let mut scratch = EstimatorScratch::carve(&mut memory, dim, k).unwrap();
        let found = good.estimate(0.5, &[0.0], &mut Bumps::Tanh, &[0.1], &mut rng, &mut scratch, &mut [0.0]);
        assert_eq!(found, Err(error));
    }
    // Memory that is one float short.
    assert!(EstimatorScratch::carve(&mut vec![0.0; EstimatorScratch::len(3, 7) - 1], 3, 7).is_none());
    assert!(EstimatorScratch::carve(&mut [], usize::MAX, 2).is_none());
}

/// Numbers of every kind: any 32 bits, the special ones, and ordinary ones.
fn anything(rng: &mut Xoshiro128PlusPlus) -> f32 {
    match rng.next_u32() % 4 {
        0 => f32::from_bits(rng.next_u32()),
        1 => {
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN_POSITIVE, -0.0][rng.next_u32() as usize % 6]
        }
        _ => math::box_muller([rng.next_u32(), rng.next_u32()])[0],
    }
}

/// Answers with anything, or with a bell where `sane`.
struct Noise {
    rng: Xoshiro128PlusPlus,
    sane: bool,
    support: Support,
}

impl Target for Noise {
    fn log_density(&mut self, u: &[f32]) -> f32 {
        if self.sane { -u.iter().map(|u| u * u).sum::<f32>() } else { anything(&mut self.rng) }
    }

    fn log_density_and_score(&mut self, u: &[f32], score: &mut [f32]) -> f32 {
        score.iter_mut().zip(u).for_each(|(s, u)| *s = if self.sane { -2.0 * u } else { anything(&mut self.rng) });
        self.log_density(u)
    }

    fn support(&self) -> Support {
        self.support
    }
}

#[test]
fn random_bits_never_panic_and_never_give_a_nan() {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(99);
    let (mut found, mut refused) = ([0; 5], 0);
    for round in 0..60_000usize {
        // One number in `odds` is anything; the others are usual.
        let odds = [3, 30, 1000][round / 5 % 3];
        let or = |usual: f32, rng: &mut Xoshiro128PlusPlus| {
            if rng.next_u32().is_multiple_of(odds) { anything(rng) } else { usual }
        };
        let control_variate = match rng.next_u32() % 7 {
            0 => ControlVariate::None,
            1 => ControlVariate::Eta(or(0.5, &mut rng)),
            2 => ControlVariate::EtaOptimal { ridge: or(1e-4, &mut rng) },
            3 => ControlVariate::Diagonal { ridge: or(1e-4, &mut rng), clip: or(2.0, &mut rng) },
            4 => ControlVariate::Full { ridge: or(1e-3, &mut rng) },
            5 => ControlVariate::Shrunk,
            _ => ControlVariate::Fisher,
        };
        let draws = Draws::ALL[rng.next_u32() as usize % Draws::ALL.len()];
        let (bandwidth, bound) = (or(0.3, &mut rng), or(0.99, &mut rng));
        let mixture = |bridge, uniform, kernel| Mixture { bridge, uniform, kernel, bandwidth, bound, draws };
        let (kind, step) = (round % 5, or(1.0, &mut rng));
        let method = match kind {
            0 => Method::Importance(mixture(4, 2, 2)),
            1 => Method::Ula(Langevin { step, ..Langevin::new(mixture(2, 1, 1), 2, 2) }),
            2 => Method::Mala(Langevin { step, ..Langevin::new(mixture(2, 1, 1), 2, 2) }),
            3 => Method::Auto(Auto { spread: or(1.0, &mut rng), ..Auto::new(8) }),
            _ => {
                let ladder = match rng.next_u32() % 2 {
                    0 => Ladder::Adaptive { keep: or(0.5, &mut rng) },
                    _ => Ladder::Power { exponent: or(2.0, &mut rng) },
                };
                let (particles, rounds) = [(8, 1), (4, 2), (2, 4), (1, 8)][rng.next_u32() as usize % 4];
                Method::Smc(Annealed { particles, rounds, ladder, spread: or(1.0, &mut rng), step })
            }
        };
        let source = match SOURCES[rng.next_u32() as usize % 6] {
            Source::StudentT { dof } => Source::StudentT { dof: or(dof, &mut rng) },
            Source::TruncatedGaussian { bound } => Source::TruncatedGaussian { bound: or(bound, &mut rng) },
            source => source,
        };
        let schedule = SCHEDULES[rng.next_u32() as usize % 4];
        let test_function =
            [TestFunction::Auto, TestFunction::Constant, TestFunction::Boundary][rng.next_u32() as usize % 3];
        let config = RfmConfig { schedule, source, method, control_variate, test_function };
        let mut estimator = Estimator::<2, 8>::new(config);
        let x = [or(0.3, &mut rng), or(-0.5, &mut rng)];
        let t = or(0.02 + 0.96 * (round % 97) as f32 / 97.0, &mut rng);
        let particle = [or(0.1, &mut rng), or(0.2, &mut rng)];
        let support = match rng.next_u32() % 3 {
            0 => Support::Box { limit: or(1.0, &mut rng) },
            _ => Support::Unbounded,
        };
        let mut target = Noise { rng: rng.clone(), sane: rng.next_u32() % 3 > 0, support };
        for score in [false, true] {
            let result = if score {
                estimator.score(t, &x.into(), &mut target, &[particle], &mut rng)
            } else {
                estimator.estimate(t, &x.into(), &mut target, &[particle], &mut rng)
            };
            let Ok((mean, posterior)) = result else {
                refused += 1;
                continue;
            };
            assert!(mean.iter().all(|m| m.is_finite()), "{config:?} {mean}");
            assert!(posterior.effective_sample_size.is_finite(), "{config:?} {posterior:?}");
            assert!(!posterior.log_normalizer.is_nan(), "{config:?} {posterior:?}");
            assert!(estimator.weights().iter().all(|w| (0.0..=1.0001).contains(w)), "{config:?}");
            found[kind] += 1;
        }
    }
    assert!(found.iter().all(|n| *n > 8_000) && refused > 5_000, "{found:?} {refused}");
}
