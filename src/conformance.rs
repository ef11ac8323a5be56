//! Conformance: every public building block, run on inputs from a seed and digested bit by bit.
//!
//! Run [`CASES`] on a PC and on a board and compare: equal digests mean that the board computes what the PC computes.
//! Deterministic; no panics, no allocation; each case needs about 4 kB of stack. A case that fails inside returns the
//! digest of what it had, which then differs.

use crate::flow::{Plan, Sampler, SamplerScratch, Schedule, Solver, Source};
use crate::math::{self, Digest};
use crate::net::{Activation, Critic, CriticScratch, CriticShape, Trunk, VelocityNet, VelocityShape};
use crate::rfm::{Boltzmann, BoltzmannScratch, ControlVariate, Estimator, Mixture, RfmConfig};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// One case: its name, and the digest of its results for a seed.
pub type Case = (&'static str, fn(u64) -> u64);

/// All cases.
pub const CASES: &[Case] = &[
    ("math", math_functions),
    ("source", source),
    ("schedule", schedule),
    ("velocity", velocity),
    ("subnormal", subnormal),
    ("euler", |seed| solver(seed, Solver::Euler)),
    ("midpoint", |seed| solver(seed, Solver::Midpoint)),
    ("heun", |seed| solver(seed, Solver::Heun)),
    ("rk4", |seed| solver(seed, Solver::Rk4)),
    ("critic", critic),
    ("estimate-none", |seed| estimator(seed, ControlVariate::None)),
    ("estimate-eta", |seed| estimator(seed, ControlVariate::Eta(0.7))),
    ("estimate-diagonal", |seed| estimator(seed, ControlVariate::Diagonal { ridge: 1e-4, clip: 2.0 })),
    ("estimate-fisher", |seed| estimator(seed, ControlVariate::Fisher)),
];

// Widths that leave remainders after blocks of 16 and of 4 rows.
const H: usize = 21;
const OBS: usize = 3;
const ACT: usize = 2;
const FREQUENCIES: [f32; 2] = [core::f32::consts::FRAC_PI_2, core::f32::consts::PI];
const VELOCITY: VelocityShape = VelocityShape {
    obs: OBS,
    act: ACT,
    hidden: H,
    layers: 2,
    frequencies: FREQUENCIES.len(),
    activation: Activation::Relu,
    trunk: Trunk::Plain,
};
const CRITIC: CriticShape = CriticShape { obs: OBS, act: ACT, hidden: H, layers: 2, activation: Activation::Relu };

fn uniform<const N: usize>(rng: &mut Xoshiro128PlusPlus, scale: f32) -> [f32; N] {
    let mut values = [0.0; N];
    fill(rng, scale, &mut values);
    values
}

/// The same in place: a large array that is moved costs its size in stack each time.
#[inline(never)]
fn fill(rng: &mut Xoshiro128PlusPlus, scale: f32, values: &mut [f32]) {
    for value in values {
        *value = math::flush(scale * math::symmetric_uniform(rng.next_u32()));
    }
}

fn math_functions(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    for i in 0..400 {
        let x = math::symmetric_uniform(rng.next_u32());
        let wide = x * (1u32 << (i % 8)) as f32;
        let positive = wide.abs() + math::FLUSH;
        digest.update(&[math::tanh(wide), math::atanh(x), math::exp(wide), math::ln(positive), math::sqrt(positive)]);
        digest.update(&[math::sin(wide), math::cos(wide), math::ln_sech2(wide), math::ln_add_exp(wide, x)]);
        digest.update(&math::box_muller([rng.next_u32(), rng.next_u32()]));
    }
    digest.finish()
}

fn source(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    let mut noise = [0.0; 33];
    for _ in 0..20 {
        Source::Gaussian.sample(&mut rng, &mut noise);
        digest.update(&noise);
        digest.update(&noise.map(|z| Source::Gaussian.log_density(z) + Source::Gaussian.score(z)));
    }
    digest.finish()
}

fn schedule(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    for _ in 0..200 {
        let [t, x, mean] = uniform::<3>(&mut rng, 1.0);
        let t = 0.5 + 0.49 * t;
        let noise = Schedule::Linear.noise_from_data(t, x, mean);
        digest.update(&[noise, Schedule::Linear.velocity_from_noise(t, x, noise)]);
        digest.update(&[Schedule::Linear.velocity_from_data(t, x, mean)]);
    }
    digest.finish()
}

fn velocity(seed: u64) -> u64 {
    let mut digest = Digest::new();
    for activation in [Activation::Relu, Activation::Tanh, Activation::Silu, Activation::Gelu] {
        for trunk in [Trunk::Plain, Trunk::Residual] {
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
            let params = uniform::<{ VELOCITY.params() }>(&mut rng, 0.7);
            let shape = VelocityShape { activation, trunk, ..VELOCITY };
            for _ in 0..10 {
                evaluate(shape, &params, &uniform(&mut rng, 2.0), &uniform(&mut rng, 3.0), &mut digest);
            }
        }
    }
    digest.finish()
}

/// Digests one velocity, its state part and its time part.
fn evaluate(shape: VelocityShape, params: &[f32], s: &[f32; OBS], x: &[f32; ACT], digest: &mut Digest) {
    let Ok(net) = VelocityNet::new(shape, &FREQUENCIES, params) else { return };
    let (mut state, mut time, mut a, mut b, mut v) = ([0.0; H], [0.0; H], [0.0; H], [0.0; H], [0.0; ACT]);
    net.state_part(s, &mut state);
    net.time_part(0.3, &mut time);
    digest.update(&state);
    digest.update(&time);
    state.iter_mut().zip(&time).for_each(|(sum, t)| *sum += t);
    net.velocity(&state, x, &mut a, &mut b, &mut v);
    digest.update(&v.map(math::flush));
}

/// Weights and inputs from 1 down to 2^-90 in magnitude, brought under the rule as the encoder and the sampler do.
/// Without the rule their products and sums are subnormal, and machines that flush those differ.
fn subnormal(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    for _ in 0..10 {
        let mut params = tiny::<{ VELOCITY.params() }>(&mut rng);
        let first_bias = (OBS + ACT + 2 * FREQUENCIES.len()) * H;
        for (i, w) in params.iter_mut().enumerate() {
            let bias = (first_bias..first_bias + H).contains(&i);
            *w = if bias { math::flush_bias(*w) } else { math::flush(*w) };
        }
        let (s, x) = (tiny(&mut rng).map(math::flush), tiny(&mut rng).map(math::flush));
        evaluate(VELOCITY, &params, &s, &x, &mut digest);
    }
    digest.finish()
}

/// Random numbers with magnitudes spread evenly, in the logarithm, over 1 to 2^-90.
fn tiny<const N: usize>(rng: &mut Xoshiro128PlusPlus) -> [f32; N] {
    core::array::from_fn(|_| {
        let exponent = 127 - rng.next_u32() % 90;
        math::symmetric_uniform(rng.next_u32()) * f32::from_bits(exponent << 23)
    })
}

fn solver(seed: u64, solver: Solver) -> u64 {
    const STEPS: usize = 4;
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let params = uniform::<{ VELOCITY.params() }>(&mut rng, 0.7);
    let mut digest = Digest::new();
    let plan = Plan { solver, steps: STEPS, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
    let Ok(net) = VelocityNet::new(VELOCITY, &FREQUENCIES, &params) else { return digest.finish() };
    let Ok(sampler) = Sampler::new(net, plan) else { return digest.finish() };
    let mut table = [0.0; Solver::Rk4.nodes(STEPS) * H];
    let ([mut state, mut base, mut a, mut b], mut slopes) = ([[0.0; H]; 4], [0.0; 3 * ACT]);
    let mut scratch = SamplerScratch {
        table: &mut table,
        state: &mut state,
        base: &mut base,
        a: &mut a,
        b: &mut b,
        slopes: &mut slopes,
    };
    let mut run = || {
        sampler.prepare(&mut scratch)?;
        for _ in 0..20 {
            sampler.observe(&uniform::<OBS>(&mut rng, 2.0), &mut scratch)?;
            let mut x = [0.0; ACT];
            Source::Gaussian.sample(&mut rng, &mut x);
            sampler.integrate(&mut x, &mut scratch)?;
            digest.update(&x);
        }
        Ok::<(), crate::flow::SampleError>(())
    };
    // An error shows as a digest of fewer numbers.
    let _ = run();
    digest.finish()
}

fn critic(seed: u64) -> u64 {
    let mut digest = Digest::new();
    for activation in [Activation::Relu, Activation::Tanh, Activation::Silu, Activation::Gelu] {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
        let params = uniform::<{ CRITIC.params() }>(&mut rng, 0.7);
        let Ok(critic) = Critic::new(CriticShape { activation, ..CRITIC }, &params) else { continue };
        let (mut part, mut pre, mut a, mut b) = ([0.0; H], [0.0; 2 * H], [0.0; H], [0.0; H]);
        let mut gradient = [0.0; ACT];
        for _ in 0..20 {
            critic.state_part(&uniform::<OBS>(&mut rng, 2.0), &mut part);
            let mut scratch = CriticScratch { pre: &mut pre, a: &mut a, b: &mut b };
            let q = critic.value_and_gradient(&part, &uniform::<ACT>(&mut rng, 1.0), &mut scratch, &mut gradient);
            digest.update(&[q]);
            digest.update(&gradient);
        }
    }
    digest.finish()
}

fn estimator(seed: u64, control_variate: ControlVariate) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut params = [[0.0; CRITIC.params()]; 2];
    params.iter_mut().for_each(|params| fill(&mut rng, 0.7, params));
    let mut digest = Digest::new();
    let [Ok(first), Ok(second)] = params.each_ref().map(|p| Critic::new(CRITIC, p)) else { return digest.finish() };
    let critics = [first, second];
    let mut parts = [0.0; 2 * H];
    let (mut pre, mut a, mut b) = ([0.0; 2 * H], [0.0; H], [0.0; H]);
    let (mut action, mut gradient) = ([0.0; ACT], [0.0; ACT]);
    for mixture in
        [Mixture::bridge(8), Mixture { bridge: 0, uniform: 5, kernel: 3, ..Mixture::default() }, Mixture::default()]
    {
        let mut estimator = Estimator::<ACT, 8>::new(RfmConfig { mixture, control_variate, ..RfmConfig::default() });
        for i in 1..10 {
            let scratch = BoltzmannScratch {
                state_parts: &mut parts,
                critic: CriticScratch { pre: &mut pre, a: &mut a, b: &mut b },
                action: &mut action,
                gradient: &mut gradient,
            };
            let s = uniform::<OBS>(&mut rng, 2.0);
            let Some(mut target) = Boltzmann::new(&critics, &s, 0.2, scratch) else { return digest.finish() };
            let (x, particle) = (uniform::<ACT>(&mut rng, 2.0), uniform::<ACT>(&mut rng, 1.0));
            let t = 0.1 * i as f32;
            if let Ok((mean, posterior)) = estimator.estimate(t, &x.into(), &mut target, &[particle], &mut rng) {
                digest.update(mean.as_slice());
                digest.update(&[posterior.effective_sample_size, posterior.log_normalizer]);
                digest.update(estimator.weights().as_slice());
            }
        }
    }
    digest.finish()
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn cases_depend_on_the_seed_and_on_nothing_else() {
        let mut seen = BTreeSet::new();
        for (name, case) in CASES {
            assert_eq!(case(1), case(1), "{name}");
            assert!(seen.insert(case(1)) && seen.insert(case(2)), "{name}: a digest came twice");
        }
    }

    /// A dense layer as a machine computes it that does, or does not, flush subnormals.
    fn layer(w: &[f32], x: &[f32], rows: usize, flushes: bool, met: &mut bool) -> std::vec::Vec<f32> {
        let mut machine = |v: f32| {
            *met |= v.is_subnormal();
            if flushes && v.is_subnormal() { 0.0 } else { v }
        };
        let mut y = std::vec![0.0; rows];
        for (column, x) in w.chunks_exact(rows).zip(x) {
            for (y, w) in y.iter_mut().zip(column) {
                let product = machine(w * x);
                *y = machine(*y + product);
            }
        }
        y
    }

    #[test]
    fn without_the_rule_flushing_machines_differ_and_with_it_no_subnormal_arises() {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(4);
        let (mut differ, mut met_before, mut met_after) = (0, false, false);
        for _ in 0..50 {
            // Two layers; magnitudes near the threshold from both sides make the products smallest.
            let (w1, w2, x) = (tiny::<{ 8 * 8 }>(&mut rng), tiny::<{ 8 * 8 }>(&mut rng), tiny::<8>(&mut rng));
            let x = x.map(|x| x * math::FLUSH);
            let run = |w1: &[f32], w2: &[f32], x: &[f32], rule: bool, flushes: bool, met: &mut bool| {
                let mut h = layer(w1, x, 8, flushes, met);
                if rule {
                    h.iter_mut().for_each(|h| *h = math::flush(*h));
                }
                layer(w2, &h, 8, flushes, met)
            };
            let raw = [false, true].map(|flushes| run(&w1, &w2, &x, false, flushes, &mut met_before));
            differ += usize::from(raw[0] != raw[1]);
            let (w1, w2, x) = (w1.map(math::flush), w2.map(math::flush), x.map(math::flush));
            let ruled = [false, true].map(|flushes| run(&w1, &w2, &x, true, flushes, &mut met_after));
            assert_eq!(ruled[0], ruled[1]);
        }
        assert!(met_before && differ > 10, "the inputs do not provoke subnormals: {differ}");
        assert!(!met_after);
    }

    #[test]
    fn products_at_the_threshold_are_normal() {
        // The smallest product and the smallest non-zero difference of two such sums are normal numbers.
        let least = math::FLUSH * math::FLUSH;
        let next = f32::from_bits(math::FLUSH.to_bits() + 1) * math::FLUSH;
        assert!(least.is_normal() && (next - least).is_normal() && next > least);
    }
}
