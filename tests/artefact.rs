//! The artefact: what is written is read back, damage of every kind is refused, and version 1 still loads.

mod common;

use common::{Aligned, Recipe, SMALL, artefact, overflowing_critic};
use flowlet::flow::{Plan, Schedule, Solver, Source};
use flowlet::math;
use flowlet::net::{Activation, CriticScratch, CriticShape, Trunk};
use flowlet::policy::{
    ActionRange, Artefact, ArtefactError, BestOfScratch, Policy, PolicyError, PolicyScratch, Squash, StaticBestOf,
    StaticPolicy, StepEntry, action_digest,
};
use flowlet::rfm::{Boltzmann, BoltzmannScratch, ControlVariate, EstimateError, EstimatorScratch, RfmConfig};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// Replaces the CRC by the right one.
fn seal(bytes: &mut [u8]) {
    let body = bytes.len() - 4;
    let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_le_bytes());
}

/// Decides ten times with an accepted artefact, by plain sample and by best of three: errors are named, actions lie
/// inside their limits.
fn use_it(view: Artefact<'_>) {
    let policy = Policy::new(view).unwrap();
    let shape = *view.velocity().shape();
    let mut memory = vec![0.0; PolicyScratch::len(&shape, policy.plan())];
    let mut scratch = PolicyScratch::carve(&shape, policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(7);
    let (mut action, mean) = (vec![0.0; shape.act], view.normalizer().mean.to_vec());
    let inside = |action: &[f32]| {
        let limits = view.range().low.iter().zip(view.range().high);
        action.iter().zip(limits).all(|(a, (low, high))| a.is_finite() && a >= low && a <= high)
    };
    for scale in [0.0, 0.5, 1.0, 3.0, -2.0, 1e9, -1e30, 1e-30, 1e38, -1.0] {
        let observation: Vec<f32> = mean.iter().map(|m| m + scale).collect();
        match policy.act(&observation, &mut rng, &mut scratch, &mut action) {
            Ok(()) => assert!(inside(&action), "{action:?}"),
            Err(PolicyError::Sample(_) | PolicyError::Observation { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
        let Some(critic) = view.critics().next().map(|c| *c.shape()) else { continue };
        let mut memory = vec![0.0; BestOfScratch::len(view.velocity().shape(), &critic, 2)];
        let mut selection = BestOfScratch::carve(view.velocity().shape(), &critic, 2, &mut memory).unwrap();
        match policy.act_best_of(&observation, 3, &mut rng, &mut scratch, &mut selection, &mut action) {
            Ok(_) => assert!(inside(&action), "{action:?}"),
            Err(PolicyError::Sample(_) | PolicyError::Observation { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    let _ = policy.self_test(&mut scratch, &mut action);
    view.obs_names().chain(view.act_names()).for_each(|name| assert!(!name.is_empty()));
}

#[test]
fn every_kind_of_network_round_trips_and_passes_its_self_test() {
    for activation in Activation::ALL {
        for trunk in [Trunk::Plain, Trunk::Residual] {
            for solver in Solver::ALL {
                let recipe = Recipe { activation, trunk, solver, critics: solver as usize % 3, ..SMALL };
                let bytes = artefact(recipe);
                let view = Artefact::new(bytes.bytes()).unwrap();
                let shape = view.velocity().shape();
                assert_eq!((shape.activation, shape.trunk, view.plan().solver), (activation, trunk, solver));
                assert_eq!(
                    (view.name(), view.period_us(), view.critics().count()),
                    ("test rig", 10_000, recipe.critics)
                );
                assert!(view.obs_names().eq(["channel 0", "channel 1", "channel 2"]));
                assert!(view.act_names().eq(["channel 0", "channel 1"]));
                assert_eq!(view.range().high, [2.0, 2.0]);
                let policy = Policy::new(view).unwrap();
                let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
                let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).unwrap();
                policy.prepare(&mut scratch).unwrap();
                policy.self_test(&mut scratch, &mut [0.0; 2]).unwrap();
                use_it(view);
            }
        }
    }
}

/// The action of `bytes` for fixed observations and the given noise.
fn act_from(bytes: &Aligned, noise: &[f32]) -> Vec<f32> {
    let policy = Policy::new(Artefact::new(bytes.bytes()).unwrap()).unwrap();
    let shape = policy.artefact().velocity().shape();
    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let mut action = vec![0.0; shape.act];
    policy.act_from_noise(&[0.3, -0.4, 1.1], noise, &mut scratch, &mut action).unwrap();
    action
}

#[test]
fn every_source_and_schedule_round_trips_and_decides() {
    let sources = [
        Source::Gaussian,
        Source::Laplace,
        Source::Logistic,
        Source::StudentT { dof: 3.5 },
        Source::Uniform,
        Source::TruncatedGaussian { bound: 2.5 },
    ];
    let schedules =
        [Schedule::Linear, Schedule::VpCosine, Schedule::VP_LINEAR, Schedule::Ve { sigma_min: 1e-3, sigma_max: 4.0 }];
    for source in sources {
        for schedule in schedules {
            let bytes = artefact(Recipe { source, schedule, ..SMALL });
            let view = Artefact::new(bytes.bytes()).unwrap();
            assert_eq!((view.source(), view.schedule()), (source, schedule));
            let mut owner = StaticPolicy::<3, 2, 6, 3>::new(bytes.bytes()).unwrap();
            owner.self_test().unwrap();
            // Oracle of the draw: the source's own sampler on the same generator, given as noise. Oracle of the start:
            // sigma_max = 4 is a power of two, so a linear artefact from four times the noise must give the same bits.
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(11);
            let mut noise = [0.0; 2];
            source.sample(&mut rng.clone(), &mut noise);
            let action = owner.act(&[0.3, -0.4, 1.1], &mut rng).unwrap();
            assert_eq!(action.to_vec(), act_from(&bytes, &noise));
            let linear = artefact(Recipe { source, ..SMALL });
            let scale = if matches!(schedule, Schedule::Ve { .. }) { 4.0 } else { 1.0 };
            assert_eq!(action.to_vec(), act_from(&linear, &noise.map(|z| scale * z)));
            use_it(view);
        }
    }
    for recipe in [
        Recipe { source: Source::StudentT { dof: 0.0 }, ..SMALL },
        Recipe { source: Source::TruncatedGaussian { bound: f32::NAN }, ..SMALL },
        Recipe { schedule: Schedule::VpLinear { beta_min: 1.0, beta_max: 0.5 }, ..SMALL },
        Recipe { schedule: Schedule::Ve { sigma_min: 0.0, sigma_max: 1.0 }, ..SMALL },
    ] {
        assert!(common::try_artefact(recipe).is_none());
    }
}

/// One component from its words by the formulas of docs/format.md, written from that page alone.
fn noise_by_the_page(source: Source, words: [u32; 2]) -> f32 {
    let fold = |word: u32| {
        let y = (2.0 * (word >> 8) as f64 + 1.0 - 16_777_216.0) / 16_777_216.0;
        let p = (0.5 * (1.0 - y.abs())) as f32;
        (if y < 0.0 { -1.0f32 } else { 1.0 }, p, 1.0 - 2.0 * p)
    };
    let quantile = |q: f32, r: f32| {
        if q <= 0.425 {
            let x = 0.180_625 - q * q;
            q * (((59.109_375 * x + 159.291_13) * x + 50.434_27) * x + 3.387_132_7)
                / (((67.187_56 * x + 78.757_76) * x + 17.895_17) * x + 1.0)
        } else {
            let x = libm::sqrtf(-libm::logf(r)) - 1.6;
            (((0.170_238_21 * x + 1.306_728_5) * x + 2.756_815_4) * x + 1.423_437_3)
                / ((0.120_211_33 * x + 0.737_001_64) * x + 1.0)
        }
    };
    let ((e, p, w), (e2, _, w2)) = (fold(words[0]), fold(words[1]));
    let z = match source {
        Source::Laplace => e * -libm::logf(2.0 * p),
        Source::Logistic if p < 0.25 => e * libm::logf((1.0 - p) / p),
        Source::Logistic => e * (2.0 * libm::atanhf(w)),
        Source::Uniform => e * w,
        Source::TruncatedGaussian { bound } => {
            let c = bound * std::f32::consts::FRAC_1_SQRT_2;
            e * quantile(0.5 * w * libm::erff(c), p + (0.5 * w) * libm::erfcf(c)).min(bound.next_down())
        }
        Source::StudentT { dof } => {
            let r = libm::sqrtf(dof * libm::expm1f(libm::logf(2.0 * p) * (-2.0 / dof)));
            e2 * (r * libm::sinf(std::f32::consts::FRAC_PI_2 * w2))
        }
        _ => unreachable!(),
    };
    if z.abs() < 2f32.powi(-50) { 0.0 } else { z }
}

#[test]
fn noise_is_what_the_page_of_the_format_says() {
    for source in [
        Source::Laplace,
        Source::Logistic,
        Source::StudentT { dof: 0.5 },
        Source::StudentT { dof: 7.0 },
        Source::Uniform,
        Source::TruncatedGaussian { bound: 0.1 },
        Source::TruncatedGaussian { bound: 4.0 },
    ] {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(21);
        let mut noise = [0.0; 4000];
        source.sample(&mut rng.clone(), &mut noise);
        for z in noise {
            let first = rng.next_u32();
            let second = if matches!(source, Source::StudentT { .. }) { rng.next_u32() } else { 0 };
            assert_eq!(z.to_bits(), noise_by_the_page(source, [first, second]).to_bits(), "{source:?}");
        }
    }
}

#[test]
fn static_and_borrowed_memory_give_the_same_bits_and_sizes_are_checked() {
    let bytes = artefact(SMALL);
    let mut owner = StaticPolicy::<3, 2, 6, 3>::new(bytes.bytes()).unwrap();
    owner.self_test().unwrap();
    let (policy, mut scratch) = owner.parts();
    let (mut observation, mut action) = ([0.0; 3], [0.0; 2]);
    let first = action_digest(policy, 5, &mut scratch, &mut observation, &mut action).unwrap();
    let policy = Policy::new(Artefact::new(bytes.bytes()).unwrap()).unwrap();
    let shape = policy.artefact().velocity().shape();
    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let second = action_digest(&policy, 5, &mut scratch, &mut observation, &mut action).unwrap();
    assert_eq!(first, second);
    assert_ne!(first, action_digest(&policy, 6, &mut scratch, &mut observation, &mut action).unwrap());

    let refused = StaticPolicy::<3, 2, 7, 3>::new(bytes.bytes()).unwrap_err();
    assert_eq!(refused, PolicyError::Length { what: "the hidden width of the firmware's type", expected: 6, found: 7 });
    let refused = StaticPolicy::<4, 2, 6, 3>::new(bytes.bytes()).unwrap_err();
    assert!(matches!(refused, PolicyError::Length { expected: 3, found: 4, .. }));
}

#[test]
fn a_broken_sensor_is_named_and_the_action_stays() {
    let bytes = artefact(SMALL);
    let mut owner = StaticPolicy::<3, 2, 6, 3>::new(bytes.bytes()).unwrap();
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(2);
    for channel in 0..3 {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut observation = [0.1; 3];
            observation[channel] = bad;
            assert_eq!(owner.act(&observation, &mut rng), Err(PolicyError::Observation { channel }));
            let (policy, mut scratch) = owner.parts();
            let mut action = [0.5, 0.25];
            assert!(policy.act(&observation, &mut rng, &mut scratch, &mut action).is_err());
            assert_eq!(action, [0.5, 0.25]);
        }
    }
}

#[test]
fn a_shorter_plan_decides_and_has_no_self_test() {
    let bytes = artefact(SMALL);
    let view = Artefact::new(bytes.bytes()).unwrap();
    let policy = Policy::with_plan(view, Plan { steps: 1, ..*view.plan() }).unwrap();
    let mut owner = StaticPolicy::<3, 2, 6, 1>::from_policy(policy).unwrap();
    let action = owner.act(&[0.0; 3], &mut Xoshiro128PlusPlus::seed_from_u64(1)).unwrap();
    assert!(action.iter().all(|a| (-1.0..=2.0).contains(a)));
    assert_eq!(owner.self_test(), Err(PolicyError::SelfTest));
    assert_eq!(owner.policy().macs_per_decision(), 3 * 6 + (2 + 6 + 2) * 6);
    assert_eq!(owner.policy().macs_saved_per_decision(), 4 * 6);
}

#[test]
fn every_flipped_bit_is_refused() {
    let good = artefact(SMALL);
    for bit in 0..8 * good.bytes().len() {
        let mut bad = good.clone();
        bad.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        let error = Artefact::new(bad.bytes()).unwrap_err();
        let expected = match bit / 8 {
            0..4 => error == ArtefactError::Magic,
            4..8 => matches!(error, ArtefactError::Version { .. }),
            8..12 => matches!(error, ArtefactError::Length { .. }),
            _ => error == ArtefactError::Crc,
        };
        assert!(expected, "bit {bit}: {error:?}");
    }
}

/// Estimates a posterior mean under the artefact's own critics: named errors or finite numbers.
fn estimate_with(view: Artefact<'_>) {
    let critics: Vec<_> = view.critics().collect();
    let Some(shape) = critics.first().map(|c| *c.shape()) else { return };
    let (mut parts, mut pre) = (vec![0.0; 2 * shape.hidden], vec![0.0; shape.layers * shape.hidden]);
    let (mut a, mut b) = (vec![0.0; shape.hidden], vec![0.0; shape.hidden]);
    let (mut action, mut gradient) = (vec![0.0; shape.act], vec![0.0; shape.act]);
    let scratch = BoltzmannScratch {
        state_parts: &mut parts,
        critic: CriticScratch { pre: &mut pre, a: &mut a, b: &mut b },
        action: &mut action,
        gradient: &mut gradient,
    };
    let state = vec![0.5; shape.obs];
    let mut target = Boltzmann::new(&critics, &state, view.temperature(), scratch).unwrap();
    let config = RfmConfig { control_variate: ControlVariate::Fisher, ..RfmConfig::default() };
    let mut memory = vec![0.0; EstimatorScratch::len(shape.act, 8)];
    let mut scratch = EstimatorScratch::carve(&mut memory, shape.act, 8).unwrap();
    let (x, mut mean) = (vec![0.2; shape.act], vec![0.0; shape.act]);
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(3);
    match config.estimate(0.5, &x, &mut target, &x, &mut rng, &mut scratch, &mut mean) {
        Ok(_) => assert!(mean.iter().all(|m| m.is_finite())),
        Err(error) => assert_eq!(error, EstimateError::NonFinite),
    }
}

#[test]
fn every_flipped_bit_with_a_new_crc_is_refused_or_harmless() {
    // Euler, ReLU and tanh critics; the same with a source and a schedule that have parameters; then Heun and a
    // residual GELU trunk.
    damage_every_bit(&artefact(SMALL));
    let schedule = Schedule::Ve { sigma_min: 0.01, sigma_max: 3.0 };
    damage_every_bit(&artefact(Recipe { source: Source::StudentT { dof: 2.5 }, schedule, critics: 0, ..SMALL }));
    damage_every_bit(&Aligned::new(include_bytes!("data/version-1.flw")));
}

fn damage_every_bit(good: &Aligned) {
    let mut refused = 0;
    for bit in 0..8 * (good.bytes().len() - 4) {
        let mut bad = good.clone();
        bad.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        seal(bad.bytes_mut());
        match Artefact::new(bad.bytes()) {
            Ok(view) => {
                use_it(view);
                estimate_with(view);
            }
            Err(ArtefactError::Crc | ArtefactError::Misaligned) => panic!("bit {bit}: not the field's own check"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 8 * 100, "only {refused} refusals: the fields are not checked");
}

#[test]
fn every_truncation_and_every_appended_byte_is_refused() {
    let good = artefact(SMALL);
    for sealed in [false, true] {
        for length in 0..good.bytes().len() {
            let mut bad = Aligned::new(&good.bytes()[..length]);
            if sealed && length >= 16 {
                bad.bytes_mut()[8..12].copy_from_slice(&(length as u32).to_le_bytes());
                seal(bad.bytes_mut());
            }
            assert!(Artefact::new(bad.bytes()).is_err(), "{length}");
        }
        for extra in 1..70 {
            let mut bytes = good.bytes().to_vec();
            bytes.extend((0..extra).map(|i| i as u8));
            let mut bad = Aligned::new(&bytes);
            if sealed {
                let length = bytes.len() as u32;
                bad.bytes_mut()[8..12].copy_from_slice(&length.to_le_bytes());
                seal(bad.bytes_mut());
            }
            assert!(matches!(Artefact::new(bad.bytes()), Err(ArtefactError::Length { .. })), "{extra}");
        }
    }
}

#[test]
fn each_field_is_checked_by_name() {
    use ArtefactError as E;
    let good = artefact(SMALL);
    let nan = f32::NAN.to_bits();
    for (word, value, error) in [
        (1, 0, E::Version { found: 0 }),
        (1, 3, E::Version { found: 3 }),
        (3, 0, E::Field("observations")),
        (4, u32::MAX, E::Field("actions")),
        (5, 0, E::Field("hidden width")),
        (6, 0, E::Field("hidden layers")),
        (7, 1 << 20, E::Field("time frequencies")),
        (8, 7, E::Field("activation")),
        (9, 2, E::Field("trunk")),
        (10, 2, E::Field("number format")),
        (11, 6, E::Field("source or its parameter")),
        // Student-t and the truncated Gaussian need the parameter that word 28 does not give them here.
        (11, 3, E::Field("source or its parameter")),
        (11, 5, E::Field("source or its parameter")),
        (12, 4, E::Field("schedule or its parameters")),
        (12, 2, E::Field("schedule or its parameters")),
        (12, 3, E::Field("schedule or its parameters")),
        (13, 4, E::Field("solver")),
        (14, 0, E::Field("steps")),
        (15, nan, E::Field("integration interval or latent clip")),
        (16, 2f32.to_bits(), E::Field("integration interval or latent clip")),
        (17, nan, E::Field("integration interval or latent clip")),
        (18, 2, E::Field("squash")),
        (19, 1, E::Field("seed rule")),
        (20, 0, E::Field("control period")),
        (21, nan, E::Field("observation clip")),
        (22, 3, E::Field("critics")),
        (23, 0, E::Field("critic width")),
        (24, 9, E::Field("critic layers")),
        (25, 7, E::Field("critic activation")),
        (26, 0, E::Field("particles")),
        (27, nan, E::Field("temperature")),
        (28, 1, E::Field("source or its parameter")),
        (28, (-0.0f32).to_bits(), E::Field("source or its parameter")),
        (29, 1, E::Field("schedule or its parameters")),
        (30, nan, E::Field("schedule or its parameters")),
        (31, 9, E::Field("step table")),
        (32, 0, E::Name),
    ] {
        let mut bad = good.clone();
        bad.bytes_mut()[4 * word..4 * word + 4].copy_from_slice(&u32::to_le_bytes(value));
        seal(bad.bytes_mut());
        assert_eq!(Artefact::new(bad.bytes()).unwrap_err(), error, "word {word}");
    }
    // Sections behind the header: five names of 16 bytes, then mean, scale, low, high, frequencies, weights.
    let sections = 160 + 16 * 5;
    for (float, value, error) in [
        (0, f32::NAN, E::Number("normaliser mean")),
        (3, 0.0, E::Number("normaliser scale")),
        (4, f32::NAN, E::Number("normaliser scale")),
        (6, f32::NAN, E::Number("action limits")),
        (6, 3.0, E::Limits),
        (8, f32::INFINITY, E::Number("action limits")),
        (9, -1.0, E::Limits),
        (10, f32::NAN, E::Number("time frequencies")),
        (12, f32::INFINITY, E::Number("velocity weights")),
        (12, 1e-20, E::Number("velocity weights")),
        (12, 1e10, E::Number("velocity weights")),
        (12 + (3 + 2 + 4) * 6, 1e-35, E::Number("velocity weights")),
        (12 + 116, f32::NAN, E::Number("critic weights")),
    ] {
        let mut bad = good.clone();
        bad.bytes_mut()[sections + 4 * float..][..4].copy_from_slice(&f32::to_le_bytes(value));
        seal(bad.bytes_mut());
        assert_eq!(Artefact::new(bad.bytes()).unwrap_err(), error, "float {float}");
    }
    let bytes = good.bytes();
    let mut shifted = Aligned::new(&[&[0], bytes].concat());
    assert_eq!(Artefact::new(&shifted.bytes_mut()[1..]).unwrap_err(), E::Misaligned);
}

#[test]
fn the_encoder_applies_the_subnormal_rule_and_the_limits_hold() {
    // Weights from 2^-80 up and biases from 2^-120 up: what the reader would refuse is written as zero.
    let bytes = common::tiny_weights();
    let view = Artefact::new(bytes.bytes()).unwrap();
    let params = view.velocity().as_f32().unwrap().params();
    assert!(params.contains(&0.0) && params.iter().any(|w| *w != 0.0));
    assert!(params.iter().all(|w| *w == 0.0 || w.abs() >= flowlet::math::FLUSH_BIAS));
    // In single precision low + (high - low) is above high for some limits: only the clamp keeps the action inside.
    let mut beyond = 0;
    for i in 1..1000 {
        let (low, high) = (-0.013 * i as f32, 0.0071 * i as f32 + 0.1);
        beyond += usize::from(low + (high - low) > high);
        let mut action = [0.0];
        ActionRange { low: &[low], high: &[high], squash: Squash::Tanh }.apply(&[30.0], &mut action);
        assert!(action[0] <= high, "{low} {high} {action:?}");
    }
    assert!(beyond > 0, "no limits that need the clamp");
}

#[test]
fn a_wrong_self_test_vector_loads_and_fails_its_test() {
    let mut bytes = artefact(SMALL);
    // The expected action stands before the two critic values and the CRC.
    let place = bytes.bytes().len() - 4 - 8 - 8;
    bytes.bytes_mut()[place] ^= 1;
    seal(bytes.bytes_mut());
    let mut owner = StaticPolicy::<3, 2, 6, 3>::new(bytes.bytes()).unwrap();
    assert_eq!(owner.self_test(), Err(PolicyError::SelfTest));
}

#[test]
fn version_one_loads_for_ever() {
    // A residual GELU network with a Heun plan and two critics, written by the first version of the crate. Neither the
    // file nor the digests may ever change.
    let bytes = Aligned::new(include_bytes!("data/version-1.flw"));
    let view = Artefact::new(bytes.bytes()).unwrap();
    assert_eq!((view.name(), view.period_us(), view.critics().count(), view.particles()), ("test rig", 10_000, 2, 4));
    let shape = view.velocity().shape();
    assert_eq!((shape.obs, shape.act, shape.hidden, shape.layers, shape.frequencies), (3, 2, 10, 2, 2));
    assert_eq!(
        (shape.activation, shape.trunk, view.plan().solver),
        (Activation::GeluLibm, Trunk::Residual, Solver::Heun)
    );
    let policy = Policy::new(view).unwrap();
    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let (mut observation, mut action) = ([0.0; 3], [0.0; 2]);
    policy.self_test(&mut scratch, &mut action).unwrap();
    let critic = *view.critics().next().unwrap().shape();
    let mut memory = vec![0.0; BestOfScratch::len(view.velocity().shape(), &critic, 2)];
    let mut selection = BestOfScratch::carve(view.velocity().shape(), &critic, 2, &mut memory).unwrap();
    let values = policy.critic_values(&scratch, &mut selection).unwrap();
    assert_eq!(values.map(f32::to_bits), [view.self_test().3[0].to_bits(), view.self_test().3[1].to_bits()]);
    let digest = action_digest(&policy, 1, &mut scratch, &mut observation, &mut action).unwrap();
    assert_eq!(digest, 0x67a7_7672_4696_5ad7);
}

#[test]
fn version_one_refuses_what_came_later() {
    use ArtefactError as E;
    let good = Aligned::new(include_bytes!("data/version-1.flw"));
    for (word, value, error) in [
        (8, 4, E::Field("activation")),
        (18, 1, E::Field("squash")),
        (10, 1, E::Field("number format")),
        (25, 4, E::Field("critic activation")),
        (31, 1, E::Reserved),
    ] {
        let mut bad = good.clone();
        bad.bytes_mut()[4 * word..4 * word + 4].copy_from_slice(&u32::to_le_bytes(value));
        seal(bad.bytes_mut());
        assert_eq!(Artefact::new(bad.bytes()).unwrap_err(), error, "word {word}");
    }
}

#[test]
fn a_step_table_round_trips_and_its_damage_is_named() {
    let bytes = artefact(SMALL);
    let view = Artefact::new(bytes.bytes()).unwrap();
    let table: Vec<StepEntry> = view.step_table().collect();
    assert_eq!((view.format_version(), table.as_slice()), (2, &common::STEP_TABLE[..]));
    assert_eq!(view.step_table().len(), 2);
    // The table stands before the self-test's seven numbers, the two critic values and the CRC.
    let table = bytes.bytes().len() - 4 - 4 * (3 + 2 + 2 + 2) - 24;
    for (word, value) in [(0, 0), (3, 1), (3, 1001), (1, f32::NAN.to_bits()), (5, (-0.5f32).to_bits())] {
        let mut bad = bytes.clone();
        bad.bytes_mut()[table + 4 * word..][..4].copy_from_slice(&u32::to_le_bytes(value));
        seal(bad.bytes_mut());
        assert_eq!(Artefact::new(bad.bytes()).unwrap_err(), ArtefactError::StepTable, "word {word}");
    }
}

/// The best of `n` by definition: samples drawn one by one from the same generator, each valued by each critic alone.
fn best_by_definition(policy: &Policy<'_>, observation: &[f32], n: usize, seed: u64) -> (f32, Vec<f32>) {
    let view = *policy.artefact();
    let mut memory = vec![0.0; PolicyScratch::len(view.velocity().shape(), policy.plan())];
    let mut scratch = PolicyScratch::carve(view.velocity().shape(), policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut best: Option<(f32, Vec<f32>)> = None;
    for _ in 0..n {
        let mut action = vec![0.0; 2];
        policy.act(observation, &mut rng, &mut scratch, &mut action).unwrap();
        let squashed: Vec<f32> = scratch.latent.iter().map(|u| math::flush(view.range().squash.value(*u))).collect();
        let mut low = f32::INFINITY;
        for critic in view.critics() {
            let (h, layers) = (critic.shape().hidden, critic.shape().layers);
            let (mut part, mut pre, mut a, mut b) = (vec![0.0; h], vec![0.0; layers * h], vec![0.0; h], vec![0.0; h]);
            critic.state_part(scratch.state, &mut part);
            let mut memory = CriticScratch { pre: &mut pre, a: &mut a, b: &mut b };
            low = low.min(critic.value(&part, &squashed, &mut memory));
        }
        if best.as_ref().is_none_or(|(value, _)| low > *value) {
            best = Some((low, action));
        }
    }
    best.unwrap()
}

#[test]
fn best_of_many_has_the_bits_of_single_draws() {
    let observation = [0.3, -0.4, 1.1];
    let mut chosen_later = 0;
    for activation in [Activation::Relu, Activation::Gelu, Activation::TanhLibm] {
        for trunk in [Trunk::Plain, Trunk::Residual] {
            for solver in Solver::ALL {
                for hidden in [4, 5, 6, 9] {
                    let critics = 1 + solver as usize % 2;
                    let schedule =
                        if hidden == 9 { Schedule::Ve { sigma_min: 1e-3, sigma_max: 4.0 } } else { Schedule::Linear };
                    let bytes = artefact(Recipe { activation, trunk, solver, hidden, critics, schedule, ..SMALL });
                    let view = Artefact::new(bytes.bytes()).unwrap();
                    let policy = Policy::new(view).unwrap();
                    let shape = view.velocity().shape();
                    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
                    let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).unwrap();
                    policy.prepare(&mut scratch).unwrap();
                    let critic = *view.critics().next().unwrap().shape();
                    let mut memory = vec![0.0; BestOfScratch::len(shape, &critic, critics)];
                    let mut selection = BestOfScratch::carve(shape, &critic, critics, &mut memory).unwrap();
                    for n in [1, 2, 3, 4, 5, 8, 11] {
                        let (mut rng, mut best) = (Xoshiro128PlusPlus::seed_from_u64(n as u64), [0.0; 2]);
                        let value =
                            policy.act_best_of(&observation, n, &mut rng, &mut scratch, &mut selection, &mut best);
                        let (wanted, action) = best_by_definition(&policy, &observation, n, n as u64);
                        assert_eq!((value.unwrap().to_bits(), best.to_vec()), (wanted.to_bits(), action), "{n}");
                        chosen_later += usize::from(wanted > best_by_definition(&policy, &observation, 1, n as u64).0);
                        // As many numbers are drawn as by single draws: the next ones are the same.
                        let mut single = Xoshiro128PlusPlus::seed_from_u64(n as u64);
                        for _ in 0..n {
                            policy.act(&observation, &mut single, &mut scratch, &mut best).unwrap();
                        }
                        assert_eq!(rng.next_u32(), single.next_u32());
                    }
                }
            }
        }
    }
    assert!(chosen_later > 100, "the first sample is nearly always the best: {chosen_later}");
    let plain = artefact(Recipe { critics: 0, ..SMALL });
    let view = Artefact::new(plain.bytes()).unwrap();
    let policy = Policy::new(view).unwrap();
    let critic = CriticShape { obs: 3, act: 2, hidden: 5, layers: 2, activation: Activation::Tanh };
    let mut memory = vec![0.0; PolicyScratch::len(view.velocity().shape(), policy.plan())];
    let mut scratch = PolicyScratch::carve(view.velocity().shape(), policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let mut memory = vec![0.0; BestOfScratch::len(view.velocity().shape(), &critic, 2)];
    let mut selection = BestOfScratch::carve(view.velocity().shape(), &critic, 2, &mut memory).unwrap();
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
    let refused = policy.act_best_of(&observation, 2, &mut rng, &mut scratch, &mut selection, &mut [0.0; 2]);
    assert_eq!(refused, Err(PolicyError::NoCritic));
}

#[test]
fn the_owner_of_a_selection_decides_alike_and_checks_its_sizes() {
    let bytes = artefact(SMALL);
    let owner = || StaticPolicy::<3, 2, 6, 3>::new(bytes.bytes()).unwrap();
    let mut best = StaticBestOf::<3, 2, 6, 3, 5, 6>::new(owner()).unwrap();
    best.self_test().unwrap();
    let observation = [0.3, -0.4, 1.1];
    let action = best.act(&observation, 7, &mut Xoshiro128PlusPlus::seed_from_u64(4)).unwrap();
    assert_eq!(action.to_vec(), best_by_definition(owner().policy(), &observation, 7, 4).1);
    let single = best.policy().act(&observation, &mut Xoshiro128PlusPlus::seed_from_u64(4)).unwrap();
    assert_eq!(single.to_vec(), best_by_definition(owner().policy(), &observation, 1, 4).1);
    let width = |error: PolicyError| matches!(error, PolicyError::Length { what, .. } if what.contains("width"));
    assert!(width(StaticBestOf::<3, 2, 6, 3, 6, 6>::new(owner()).unwrap_err()));
    assert!(width(StaticBestOf::<3, 2, 6, 3, 5, 5>::new(owner()).unwrap_err()));
    let plain = artefact(Recipe { critics: 0, ..SMALL });
    let refused = StaticBestOf::<3, 2, 6, 3, 5, 6>::new(StaticPolicy::new(plain.bytes()).unwrap());
    assert_eq!(refused.err(), Some(PolicyError::NoCritic));
    // The critics' part of the self-test is run: a wrong expected value is found.
    let mut wrong = bytes.clone();
    let at = wrong.bytes().len() - 5;
    wrong.bytes_mut()[at] ^= 0x10;
    seal(wrong.bytes_mut());
    let mut best = StaticBestOf::<3, 2, 6, 3, 5, 6>::new(StaticPolicy::new(wrong.bytes()).unwrap()).unwrap();
    assert_eq!(best.self_test(), Err(PolicyError::SelfTest));
}

#[test]
fn a_value_that_is_not_a_number_loses_against_every_other() {
    // ReLU critics six layers deep with weights of 2^30 overflow to infinities of both signs, and so to NaN.
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(12);
    let (mut kept, mut not_a_number) = (0, 0);
    for seed in 0..1000 {
        let Some(bytes) = overflowing_critic(seed) else { continue };
        let view = Artefact::new(bytes.bytes()).unwrap();
        let policy = Policy::new(view).unwrap();
        let mut memory = vec![0.0; PolicyScratch::len(view.velocity().shape(), policy.plan())];
        let mut scratch = PolicyScratch::carve(view.velocity().shape(), policy.plan(), &mut memory).unwrap();
        policy.prepare(&mut scratch).unwrap();
        let critic = *view.critics().next().unwrap().shape();
        let mut memory = vec![0.0; BestOfScratch::len(view.velocity().shape(), &critic, 2)];
        let mut selection = BestOfScratch::carve(view.velocity().shape(), &critic, 2, &mut memory).unwrap();
        let mut action = [0.0; 2];
        let mut again = rng.clone();
        let value =
            policy.act_best_of(&[0.1, 0.2, -0.3], 4, &mut rng, &mut scratch, &mut selection, &mut action).unwrap();
        let mut any_number = false;
        for _ in 0..4 {
            policy.act(&[0.1, 0.2, -0.3], &mut again, &mut scratch, &mut action).unwrap();
            let values = policy.critic_values(&scratch, &mut selection).unwrap();
            any_number |= !values.iter().any(|v| v.is_nan());
            not_a_number += usize::from(values.iter().any(|v| v.is_nan()));
        }
        assert_eq!(value.is_nan(), !any_number, "seed {seed}");
        kept += usize::from(any_number);
    }
    assert!(kept > 20 && not_a_number > 20, "the critics do not overflow as meant: {kept} {not_a_number}");
}

#[test]
fn sizes_that_nobody_has_are_refused_and_do_not_overflow() {
    use flowlet::net::{ShapeError, VelocityNet, VelocityShape};
    use flowlet::rfm::Mixture;
    let huge = VelocityShape {
        obs: usize::MAX,
        act: usize::MAX,
        hidden: usize::MAX,
        layers: usize::MAX,
        frequencies: usize::MAX,
        activation: Activation::Relu,
        trunk: Trunk::Plain,
    };
    let refused = VelocityNet::new(VelocityShape { frequencies: 0, ..huge }, &[], &[]).unwrap_err();
    assert!(matches!(refused, ShapeError::Parameters { expected: usize::MAX, found: 0 }));
    assert_eq!(
        (huge.params(), huge.macs_per_evaluation(), huge.macs_of_time_part()),
        (usize::MAX, usize::MAX, usize::MAX)
    );
    for layers in [0, usize::MAX] {
        let critic = CriticShape { obs: 1, act: 1, hidden: 4, layers, activation: Activation::Relu };
        assert!(critic.params() > 0 && BestOfScratch::len(&huge, &critic, usize::MAX) == usize::MAX);
        assert!(BestOfScratch::carve(&huge, &critic, usize::MAX, &mut [0.0; 8]).is_none());
        assert!(VelocityShape { layers, ..huge }.params() == usize::MAX);
    }
    let plan = Plan { solver: Solver::Rk4, steps: usize::MAX, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
    assert_eq!((plan.nodes(), plan.evaluations()), (usize::MAX, usize::MAX));
    assert!(PolicyScratch::carve(&huge, &plan, &mut [0.0; 8]).is_none());
    assert!(Mixture { bridge: usize::MAX, uniform: 1, ..Mixture::default() }.check(8, &[0.0], 1).is_err());
    assert_eq!(flowlet::math::sin_cos_turn(1 << 24), flowlet::math::sin_cos_turn(0));
    assert!(flowlet::math::sin_cos_turn(u32::MAX).0.abs() < 1e-6);
}
