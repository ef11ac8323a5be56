//! What the learner's parts compute against other ways to compute it: differences in f64, a textbook Adam in f64, a list of
//! transitions, closed forms; and a learner's bits under any slicing.

extern crate std;

use super::optimiser::Clock;
use super::*;
use crate::flow::{Plan, Schedule, Solver, Source};
use crate::math;
use crate::net::{Activation, CriticShape, Trunk, VelocityShape};
use crate::policy::{Artefact, CriticManifest, Manifest, Squash, Weights};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;
use std::{vec, vec::Vec};

pub(super) fn rng(seed: u64) -> Xoshiro128PlusPlus {
    Xoshiro128PlusPlus::seed_from_u64(seed)
}

fn uniform(n: usize, scale: f32, rng: &mut Xoshiro128PlusPlus) -> Vec<f32> {
    (0..n).map(|_| scale * math::symmetric_uniform(rng.next_u32())).collect()
}

/// The network with its delta in f64, from the definition in `trained`; the sum of `c` times the outputs.
fn reference(shape: &Perceptron, trained: Trained, factory: &[f32], delta: &[f64], x: &[f64], c: &[f64]) -> f64 {
    let (mut at, mut dat, mut h) = (0, 0, x.to_vec());
    for l in 0..=shape.layers {
        let rows = if l == shape.layers { shape.outputs } else { shape.hidden };
        let cols = h.len();
        let mut w: Vec<f64> = factory[at..at + rows * cols].iter().map(|w| f64::from(*w)).collect();
        let mut b: Vec<f64> =
            factory[at + rows * cols..at + rows * cols + rows].iter().map(|b| f64::from(*b)).collect();
        at += rows * cols + rows;
        let full = match trained {
            Trained::All => true,
            Trained::Last(n) => l + usize::from(n) > shape.layers,
            Trained::LowRank(r) => rows * cols <= 2 * usize::from(r) * (rows + cols),
            Trained::Bias => false,
        };
        if full {
            w.copy_from_slice(&delta[dat..dat + rows * cols]);
            dat += rows * cols;
        } else if let Trained::LowRank(r) = trained {
            let r = usize::from(r);
            let (v, u) = delta[dat..].split_at(r * cols);
            for j in 0..cols {
                for i in 0..rows {
                    w[j * rows + i] += (0..r).map(|k| u[k * rows + i] * v[j * r + k]).sum::<f64>();
                }
            }
            dat += r * (rows + cols);
        }
        if full || !matches!(trained, Trained::Last(_)) {
            b.copy_from_slice(&delta[dat..dat + rows]);
            dat += rows;
        }
        let z: Vec<f64> = (0..rows).map(|i| b[i] + (0..cols).map(|j| w[j * rows + i] * h[j]).sum::<f64>()).collect();
        h = if l == shape.layers {
            z
        } else {
            z.iter()
                .map(|z| match shape.activation {
                    Activation::Relu => z.max(0.0),
                    Activation::Tanh => z.tanh(),
                    _ => z / (1.0 + (-z).exp()),
                })
                .collect()
        };
    }
    assert_eq!((at, dat), (factory.len(), delta.len()));
    h.iter().zip(c).map(|(h, c)| h * c).sum()
}

/// Every gradient through every kind of delta, against central differences of the f64 network.
#[test]
fn gradients_are_those_of_differences() {
    let mut rng = rng(1);
    for activation in [Activation::Relu, Activation::Tanh, Activation::Silu] {
        for trained in
            [Trained::All, Trained::Last(1), Trained::Last(2), Trained::LowRank(1), Trained::LowRank(2), Trained::Bias]
        {
            let shape = Perceptron { inputs: 4, hidden: 11, layers: 3, outputs: 2, activation };
            let factory = uniform(shape.params(), 0.5, &mut rng);
            let delta = uniform(shape.delta(trained), 0.3, &mut rng);
            let (x, c) = (uniform(4, 1.0, &mut rng), uniform(2, 1.0, &mut rng));
            let network = Network { shape, trained, factory: &factory };
            let (mut input, mut pre, mut post) = (x.clone(), vec![0.0; 33], vec![0.0; 33]);
            let (mut inner, mut output, mut upper, mut lower) = (vec![0.0; 8], [0.0; 2], vec![0.0; 11], vec![0.0; 11]);
            let mut trace = Trace {
                input: &mut input,
                pre: &mut pre,
                post: &mut post,
                inner: &mut inner,
                output: &mut output,
                upper: &mut upper,
                lower: &mut lower,
            };
            network.forward(&mut Cut::default(), &mut Budget::whole(), &delta, &mut trace);
            let wide = |v: &[f32]| -> Vec<f64> { v.iter().map(|v| f64::from(*v)).collect() };
            let (x64, c64, d64) = (wide(&x), wide(&c), wide(&delta));
            let value: f64 = trace.output.iter().zip(&c).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum();
            let exact = reference(&shape, trained, &factory, &d64, &x64, &c64);
            // flowlet's own tanh is within 1e-6 of the function; sums of 11 terms through four layers.
            assert!((value - exact).abs() < 2e-5 * (1.0 + exact.abs()), "{activation:?} {trained:?}");
            trace.upper[..2].copy_from_slice(&c);
            let mut gradient = vec![0.0; delta.len()];
            network.backward(&mut Cut::default(), &mut Budget::whole(), &delta, &mut gradient, &mut trace);
            for (i, g) in gradient.iter().enumerate() {
                let shifted = |h: f64| {
                    let mut d = d64.clone();
                    d[i] += h;
                    reference(&shape, trained, &factory, &d, &x64, &c64)
                };
                // In f64 truncation and rounding of this difference are near 1e-9.
                let slope = (shifted(1e-6) - shifted(-1e-6)) / 2e-6;
                assert!((f64::from(*g) - slope).abs() < 5e-5 * (1.0 + slope.abs()), "{trained:?} {i}: {g} {slope}");
            }
        }
    }
}

#[test]
fn a_fresh_delta_changes_nothing() {
    let mut rng = rng(2);
    let shape = Perceptron { inputs: 3, hidden: 20, layers: 2, outputs: 1, activation: Activation::Relu };
    let factory = uniform(shape.params(), 0.5, &mut rng);
    let network = Network { shape, trained: Trained::LowRank(2), factory: &factory };
    let mut delta = vec![1.0; shape.delta(network.trained)];
    network.start(&mut delta, || rng.next_u32());
    assert!(delta.iter().any(|d| *d != 0.0));
    let wide = |v: &[f32]| -> Vec<f64> { v.iter().map(|v| f64::from(*v)).collect() };
    let value = |trained, d: &[f32]| reference(&shape, trained, &factory, &wide(d), &[0.3, -0.5, 0.9], &[1.0]);
    assert_eq!(value(network.trained, &delta), value(Trained::Last(0), &[]));
    let mut merged = vec![0.0; factory.len()];
    network.merge(&delta, &mut merged);
    assert_eq!(merged, factory);
}

#[test]
fn inverse_roots_are_within_their_bound() {
    let mut rng = rng(3);
    for _ in 0..100_000 {
        // Exponents from 2^-100 to 2^100.
        let x = f32::from_bits(((27 + rng.next_u32() % 200) << 23) | (rng.next_u32() >> 9));
        let exact = 1.0 / f64::from(x).sqrt();
        assert!((f64::from(inverse_sqrt(x)) - exact).abs() < 4e-7 * exact, "{x:e}");
    }
}

/// Fifty steps on random gradients against the textbook's formulas in f64, in chunks of any length.
#[test]
fn optimisers_are_the_textbooks() {
    for (optimiser, bound) in [(Optimiser::Momentum, 1e-5), (Optimiser::Adam, 1e-5), (Optimiser::Lean, 0.02)] {
        let (n, rate, limit, words) = (37, 0.01f32, 2.0f32, optimiser.words());
        let (b1, b2) = (0.9, if optimiser == Optimiser::Lean { 0.98 } else { 0.999 });
        let mut rng = rng(4);
        let mut numbers = uniform(n, 1.0, &mut rng);
        let mut whole = numbers.clone();
        let start: Vec<f64> = numbers.iter().map(|p| f64::from(*p)).collect();
        let (mut p, mut m, mut v) = (start.clone(), vec![0.0; n], vec![0.0; n]);
        let (mut moments, mut moments_of_whole) = (vec![0; n * words], vec![0; n * words]);
        let mut clock = Clock::START;
        for t in 1..=50 {
            let gradient = uniform(n, if t % 7 == 0 { 3.0 } else { 0.2 }, &mut rng);
            let square: f32 = gradient.iter().map(|g| g * g).sum();
            let step = clock.tick(optimiser, rate, square, limit);
            let mut left = gradient.clone();
            let (mut at, cut) = (0, 1 + t % 9);
            while at < n {
                let end = (at + cut).min(n);
                step.apply(&mut numbers[at..end], &mut left[at..end], &mut moments[at * words..end * words]);
                at = end;
            }
            assert!(left.iter().all(|g| *g == 0.0));
            step.apply(&mut whole, &mut gradient.clone(), &mut moments_of_whole);
            assert_eq!(numbers, whole);
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let scale = (f64::from(limit) / norm).min(1.0);
            for i in 0..n {
                let g = scale * f64::from(gradient[i]);
                if optimiser == Optimiser::Momentum {
                    m[i] = 0.9 * m[i] + g;
                    p[i] -= f64::from(rate) * m[i];
                } else {
                    m[i] = b1 * m[i] + (1.0 - b1) * g;
                    v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                    let (mean, root) =
                        (m[i] / (1.0 - f64::powi(b1, t as i32)), (v[i] / (1.0 - f64::powi(b2, t as i32))).sqrt());
                    p[i] -= f64::from(rate) * mean / (root + 1e-8);
                }
            }
        }
        // Of eight bits the lean moments are off by 0.4 % each, which adds up over fifty steps of at most `rate`.
        let way: f64 = p.iter().zip(&start).map(|(p, s)| (p - s).abs()).fold(0.0, f64::max);
        for (found, exact) in numbers.iter().zip(&p) {
            assert!((f64::from(*found) - exact).abs() < bound * (1.0 + way), "{optimiser:?} {found} {exact}");
        }
    }
}

const RING: Ring = Ring { capacity: 23, obs: 3, act: 2, storage: Storage::F32, obs_limit: 10.0, reward_limit: 2.0 };

/// The ring against a list that keeps everything.
#[test]
fn replay_is_the_end_of_the_list() {
    let mut rng = rng(5);
    let (mut cursor, mut words) = (Cursor::default(), vec![0u32; RING.words()]);
    let mut list: Vec<(Vec<f32>, After)> = Vec::new();
    for i in 0..500 {
        let mut replay = Replay::new(RING, &mut cursor, &mut words);
        if rng.next_u32().is_multiple_of(11) {
            replay.cut();
            if let Some((_, after)) = list.last_mut().filter(|(_, after)| *after == After::Next) {
                *after = After::Unknown;
            }
        }
        let after = [After::Next, After::Next, After::Terminal, After::Unknown][rng.next_u32() as usize % 4];
        let values: Vec<f32> = uniform(6, 1.0, &mut rng);
        replay.push(&values[..3], &values[3..5], values[5], after);
        list.push((values, after));
        let first = list.len().saturating_sub(RING.capacity);
        for (age, (values, after)) in list.iter().enumerate().skip(first) {
            let at = age % RING.capacity;
            let found: Vec<f32> = (0..6).map(|place| replay.get(at, place)).collect();
            assert_eq!((&found, replay.after(at)), (values, *after), "{i}");
            let whole = *after == After::Terminal || (*after == After::Next && age + 1 < list.len());
            assert_eq!(replay.is_whole(at), whole, "{i}");
            if *after == After::Next && whole {
                assert_eq!(replay.get(replay.next(at), 0), list[age + 1].0[0]);
            }
        }
        let whole =
            (0..cursor.len).filter(|at| Replay::new(RING, &mut cursor.clone(), &mut words).is_whole(*at)).count();
        let replay = Replay::new(RING, &mut cursor, &mut words);
        match replay.draw(|| rng.next_u32()) {
            Some(at) => assert!(replay.is_whole(at)),
            // Eight draws that all miss: rarer than 1e-6 where half of the entries are whole.
            None => assert!(whole * 2 < RING.capacity),
        }
    }
}

#[test]
fn draws_are_uniform() {
    let (mut cursor, mut words) = (Cursor::default(), vec![0u32; RING.words()]);
    let mut replay = Replay::new(RING, &mut cursor, &mut words);
    for _ in 0..RING.capacity {
        replay.push(&[0.0; 3], &[0.0; 2], 0.0, After::Terminal);
    }
    let (mut counts, mut rng) = ([0u32; 23], rng(6));
    for _ in 0..23_000 {
        counts[replay.draw(|| rng.next_u32()).unwrap()] += 1;
    }
    // Chi-square with 22 degrees of freedom exceeds 48.3 once in a thousand seeds.
    let chi: f64 = counts.iter().map(|c| (f64::from(*c) - 1000.0).powi(2) / 1000.0).sum();
    assert!(chi < 48.3, "{chi}");
}

#[test]
fn sixteen_bits_are_off_by_half_a_step_at_most() {
    let ring = Ring { storage: Storage::I16, ..RING };
    assert_eq!(ring.words(), (23 * 6usize).div_ceil(2) + 2);
    let (mut cursor, mut words, mut rng) = (Cursor::default(), vec![0u32; ring.words()], rng(7));
    for _ in 0..200 {
        let at = cursor.head;
        let mut replay = Replay::new(ring, &mut cursor, &mut words);
        let (obs, act, reward) = (uniform(3, 12.0, &mut rng), uniform(2, 1.0, &mut rng), uniform(1, 3.0, &mut rng)[0]);
        replay.push(&obs, &act, reward, After::Next);
        let values = obs.iter().chain(&act).chain([&reward]);
        for (place, value) in values.enumerate() {
            let limit = if place < 3 {
                10.0
            } else if place < 5 {
                1.0f32
            } else {
                2.0
            };
            // Half a step, and the rounding of the products.
            let bound = limit * (0.5 / 32_767.0 + 3e-7);
            assert!((replay.get(at, place) - value.clamp(-limit, limit)).abs() <= bound, "{place} {value}");
        }
        let mut all = [0.0; 6];
        replay.read(at, &mut all);
        assert_eq!(all.to_vec(), (0..6).map(|place| replay.get(at, place)).collect::<Vec<_>>());
    }
    let mut replay = Replay::new(ring, &mut cursor, &mut words);
    replay.push(&[f32::NAN, f32::INFINITY, -1e30], &[1.0, -1.0], f32::MAX, After::Next);
    let at = if cursor.head == 0 { 22 } else { cursor.head - 1 };
    let replay = Replay::new(ring, &mut cursor, &mut words);
    let found: Vec<f32> = (0..6).map(|place| replay.get(at, place)).collect();
    assert_eq!((found[0], found[3], found[4]), (0.0, 1.0, -1.0));
    assert!((found[1] - 10.0).abs() < 1e-5 && (found[2] + 10.0).abs() < 1e-5 && (found[5] - 2.0).abs() < 1e-6);
}

/// Candidates from N(a, s^2) weighted by exp(g a) have the mean a + s^2 g.
#[test]
fn weighted_candidates_have_the_posterior_mean() {
    let (mut rng, a, s, g) = (rng(8), 0.1f32, 0.2f32, 3.0f32);
    let mut candidates = vec![0.0; 40_000];
    for c in candidates.chunks_exact_mut(1) {
        super::actor::propose(&mut rng, Squash::Tanh, &[math::atanh(a)], s, 1, c);
    }
    let mut logits: Vec<f32> = candidates.iter().map(|c| g * c).collect();
    let mut mean = [0.0];
    let effective = super::actor::mean(&mut logits, &candidates, &mut mean);
    // The standard error is 0.2 / sqrt(28,000); clipping at the edge is beyond four deviations.
    assert!((mean[0] - (a + s * s * g)).abs() < 5e-3, "{mean:?}");
    // 1 / E[w^2] = exp(-s^2 g^2) of them.
    assert!((effective / 40_000.0 - (-s * s * g * g).exp()).abs() < 0.02);
    let mut logits = [f32::NEG_INFINITY, 1e30, 0.0];
    super::actor::mean(&mut logits, &[0.5, -0.25, 0.75], &mut mean);
    assert_eq!(mean, [-0.25]);
}

/// The bytes of a policy of one step with random weights, two critics with it.
pub(super) fn factory(hidden: usize) -> Vec<u32> {
    factory_of(hidden, 9)
}

/// The same with other weights for another seed.
pub(super) fn factory_of(hidden: usize, seed: u64) -> Vec<u32> {
    let mut rng = rng(seed);
    let shape = VelocityShape {
        obs: 2,
        act: 1,
        hidden,
        layers: 2,
        frequencies: 0,
        activation: Activation::Relu,
        trunk: Trunk::Plain,
    };
    let critic = CriticShape { obs: 2, act: 1, hidden, layers: 2, activation: Activation::Relu };
    let params = uniform(shape.params(), 0.3, &mut rng);
    let critics = uniform(2 * critic.params(), 0.3, &mut rng);
    let manifest = Manifest {
        name: "test",
        period_us: 10_000,
        shape,
        frequencies: &[],
        weights: Weights::F32(&params),
        plan: Plan { solver: Solver::Euler, steps: 1, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 },
        source: Source::Gaussian,
        schedule: Schedule::Linear,
        obs_names: &["one", "two"],
        act_names: &["drive"],
        obs_mean: &[0.0; 2],
        obs_scale: &[1.0; 2],
        obs_clip: 10.0,
        low: &[-2.0],
        high: &[2.0],
        squash: Squash::Tanh,
        critics: Some(CriticManifest { shape: critic, count: 2, params: &critics, particles: 1, temperature: 0.1 }),
        step_table: &[],
        test_observation: &[0.1, 0.2],
        test_noise: &[0.3],
    };
    let mut words = vec![0u32; manifest.encoded_len().div_ceil(4)];
    let mut scratch = vec![0.0; manifest.scratch_len()];
    manifest.encode(zerocopy::IntoBytes::as_mut_bytes(&mut words[..]), &mut scratch).unwrap();
    words
}

pub(super) fn config() -> Config {
    Config {
        actor: Trained::LowRank(1),
        critic: Trained::LowRank(2),
        optimiser: Optimiser::Adam,
        transitions: 200,
        storage: Storage::I16,
        batch: 8,
        actor_batch: 4,
        candidates: 8,
        critic_rate: 3e-3,
        actor_rate: 1e-3,
        gradient_limit: 10.0,
        discount: 0.5,
        target_rate: 0.05,
        acting_rate: 0.05,
        temperature: 0.05,
        spread: 0.3,
        reward_limit: 8.0,
        every: 2,
        warmup: 0,
        exploration: 0.3,
        correlation: 0.0,
        stride: 1,
        horizon: 1,
        slice: 20_000,
    }
}

/// A task whose best action is 1 in units of the plant: reward -(a - 1)^2, the observation tells nothing. Returns the
/// learner's acting delta, and what it does on average.
fn bandit(config: Config, reward: impl Fn(u32, f32) -> f32, slices: impl FnMut() -> u32) -> (Vec<u32>, f32, u32) {
    bandit_with(config, reward, slices, |_, _| ())
}

/// The same, with what `between` does before a decision.
fn bandit_with(
    config: Config,
    reward: impl Fn(u32, f32) -> f32,
    mut slices: impl FnMut() -> u32,
    between: impl Fn(u32, &mut Learner<'_, Vec<u32>>),
) -> (Vec<u32>, f32, u32) {
    let bytes = factory(16);
    let artefact = Artefact::new(zerocopy::IntoBytes::as_bytes(&bytes[..])).unwrap();
    let shapes = (*artefact.velocity().shape(), *artefact.critics().next().unwrap().shape());
    let memory = vec![0u32; words(&shapes.0, &shapes.1, &config)];
    let mut learner = Learner::new(&artefact, config, 7, memory).unwrap();
    let (mut noise, mut world, mut action) = (rng(10), rng(11), [0.0]);
    let mut observation = [0.0; 2];
    for decision in 0..3000 {
        learner.pulse();
        between(decision, &mut learner);
        learner.promote();
        assert!(learner.explore(&observation, &mut noise, &mut action));
        assert!((-2.0..=2.0).contains(&action[0]));
        learner.record(&observation, &action, reward(decision, action[0]), After::Next);
        observation = [0.0; 2].map(|_: f32| math::symmetric_uniform(world.next_u32()));
        for _ in 0..slices() {
            learner.slice();
        }
        // What is left is done before the next update is due.
        if decision % 2 == 0 {
            learner.finish();
        }
    }
    let bits = learner.acting().iter().map(|d| d.to_bits()).collect();
    let mut mean = 0.0;
    for _ in 0..200 {
        learner.act(&[0.1, -0.2], &mut noise, &mut action);
        mean += action[0] / 200.0;
    }
    (bits, mean, learner.resets())
}

fn square(_: u32, a: f32) -> f32 {
    -(a - 1.0) * (a - 1.0)
}

/// Nor on where in an update the learner is told to go on from another delta, nor on where it diverges.
#[test]
fn the_bits_do_not_depend_on_the_slicing() {
    let between = |decision: u32, learner: &mut Learner<'_, Vec<u32>>| match decision % 500 {
        130 | 131 => learner.hold(),
        260 | 273 => learner.go_back(),
        371 => learner.keep(),
        490 | 401 => learner.roll_back(),
        499 if decision > 2000 => learner.forget(),
        _ => {}
    };
    let wild = Config { critic_rate: 1e3, gradient_limit: 1e6, optimiser: Optimiser::Momentum, ..config() };
    for (config, diverges) in [(config(), false), (wild, true)] {
        let play = |slice: u32, slices: &mut dyn FnMut() -> u32| {
            bandit_with(Config { slice, ..config }, square, slices, between)
        };
        let (unsliced, _, resets) = play(u32::MAX, &mut || 0);
        assert!(unsliced.iter().any(|bits| *bits != 0));
        assert_eq!(resets > 0, diverges);
        let mut schedule = rng(12);
        for (slice, most) in [(5000, 60), (8000, 1), (20_000, 2), (5000, 9)] {
            let sliced = play(slice, &mut || schedule.next_u32() % (most + 1));
            assert_eq!((&sliced.0, sliced.2), (&unsliced, resets), "{slice} {most}");
        }
    }
}

/// With every optimiser and every choice of what is trained the policy finds the best action.
#[test]
fn every_kind_of_learner_learns() {
    let (_, before, _) = bandit(Config { warmup: u32::MAX, ..config() }, square, || 0);
    assert!((before - 1.0).abs() > 0.5, "{before}");
    for (actor, critic) in [
        (Trained::LowRank(1), Trained::LowRank(2)),
        (Trained::All, Trained::All),
        (Trained::Bias, Trained::LowRank(2)),
        (Trained::Last(2), Trained::Last(2)),
    ] {
        for (optimiser, storage) in [(Optimiser::Adam, Storage::I16), (Optimiser::Lean, Storage::F32)] {
            let (_, mean, resets) = bandit(Config { actor, critic, optimiser, storage, ..config() }, square, || 0);
            // The optimum is 1; the critics' error of a few percent of the values' range of 9 moves it.
            assert!((mean - 1.0).abs() < 0.35 && resets == 0, "{actor:?} {critic:?} {optimiser:?}: {mean}");
        }
    }
}

/// Rewards that say nothing, or the opposite, keep everything finite; those that are not finite are not learned from.
#[test]
fn wrong_rewards_do_no_more_than_mislead() {
    for (i, reward) in [
        (|_, _| f32::NAN) as fn(u32, f32) -> f32,
        |_, _| f32::INFINITY,
        |_, _| 3.0,
        |t, a| -square(t, a),
        |t, _| if t % 2 == 0 { 1e30 } else { -1e30 },
        |t, a| if t % 5 == 0 { f32::NAN } else { square(t, a) },
    ]
    .into_iter()
    .enumerate()
    {
        let (bits, mean, _) = bandit(config(), reward, || 0);
        assert!(bits.iter().all(|b| f32::from_bits(*b).is_finite()) && mean.is_finite(), "reward {i}");
    }
    // Nothing was learned: the acting delta is that of an actor that does not move.
    let (fresh, ..) = bandit(Config { warmup: u32::MAX, ..config() }, square, || 0);
    assert_eq!(bandit(config(), |_, _| f32::NAN, || 0).0, fresh);
}

/// Rates that no network stands blow the values up; the deltas are set back, and the policy goes on deciding.
#[test]
fn divergence_sets_the_learner_back() {
    let wild = Config { critic_rate: 1e3, gradient_limit: 1e6, optimiser: Optimiser::Momentum, ..config() };
    let (bits, mean, resets) = bandit(wild, square, || 0);
    assert!(resets > 0);
    assert!(bits.iter().all(|b| f32::from_bits(*b).is_finite()) && mean.abs() <= 2.0);
}

#[test]
fn a_dead_sensor_is_not_recorded() {
    let bytes = factory(8);
    let artefact = Artefact::new(zerocopy::IntoBytes::as_bytes(&bytes[..])).unwrap();
    let mut learner = Learner::new(&artefact, config(), 7, vec![0u32; 20_000]).unwrap();
    let mut action = [7.0];
    assert!(!learner.act(&[f32::NAN, 0.0], &mut rng(1), &mut action));
    assert_eq!(action, [0.0]);
    learner.record(&[0.0; 2], &[0.0], 1.0, After::Next);
    learner.record(&[f32::NAN, 0.0], &[0.0], 1.0, After::Next);
    learner.record(&[0.0; 2], &[f32::NAN], 1.0, After::Next);
    learner.record(&[0.0; 2], &[0.0], f32::NEG_INFINITY, After::Next);
    assert_eq!((learner.transitions(), learner.refused()), (1, 3));
}

#[test]
fn what_does_not_fit_is_named() {
    let bytes = factory(8);
    let artefact = Artefact::new(zerocopy::IntoBytes::as_bytes(&bytes[..])).unwrap();
    let short = Learner::new(&artefact, config(), 7, vec![0u32; 100]).unwrap_err();
    assert!(matches!(short, LearnerError::Memory { expected, found: 100 } if expected > 100));
    let error = Learner::new(&artefact, Config { slice: 1000, ..config() }, 7, vec![0u32; 20_000]).unwrap_err();
    let LearnerError::Slice { least, found: 1000 } = error else { panic!("{error}") };
    assert!(Learner::new(&artefact, Config { slice: least, ..config() }, 7, vec![0u32; 20_000]).is_ok());
    for bad in [
        Config { candidates: 33, ..config() },
        Config { batch: 0, ..config() },
        Config { actor_rate: f32::NAN, ..config() },
        Config { discount: 1.0, ..config() },
        Config { stride: 0, ..config() },
    ] {
        assert!(matches!(Learner::new(&artefact, bad, 7, vec![0u32; 20_000]).unwrap_err(), LearnerError::Config(_)));
    }
}
