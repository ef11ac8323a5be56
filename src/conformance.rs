//! Conformance: every public building block, run on inputs from a seed and digested bit by bit.
//!
//! Run [`CASES`] on a PC and on a board and compare: equal digests mean that the board computes what the PC computes.
//! Deterministic; no panics, no allocation; the largest case needs 12 kB of stack on a Cortex-M0. A case that fails
//! inside returns the digest of what it had, which then differs.

mod flow;
mod guard;
mod int8;
mod kernel;
mod rfm;

use crate::flow::{Draws, Plan, ReverseMethod, Sampler, SamplerScratch, Schedule, SdeNoise, Solver, Source};
use crate::math::{self, Digest};
use crate::net::{Activation, Critic, CriticScratch, CriticShape, Trunk, Velocity, VelocityNet, VelocityShape};
use crate::rfm::{ControlVariate, Ladder, Method, TestFunction};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// One case: its name, and the digest of its results for a seed.
pub type Case = (&'static str, fn(u64) -> u64);

/// All cases.
pub const CASES: &[Case] = &[
    ("math", math_functions),
    ("source-gaussian", |seed| flow::source(seed, Source::Gaussian)),
    ("source-laplace", |seed| flow::source(seed, Source::Laplace)),
    ("source-logistic", |seed| flow::source(seed, Source::Logistic)),
    ("source-student-t", |seed| flow::source(seed, Source::StudentT { dof: 3.0 })),
    ("source-uniform", |seed| flow::source(seed, Source::Uniform)),
    ("source-truncated", |seed| flow::source(seed, Source::TruncatedGaussian { bound: 2.0 })),
    ("schedule-linear", |seed| flow::schedule(seed, Schedule::Linear)),
    ("schedule-vp-cosine", |seed| flow::schedule(seed, Schedule::VpCosine)),
    ("schedule-vp-linear", |seed| flow::schedule(seed, Schedule::VP_LINEAR)),
    ("schedule-ve", |seed| flow::schedule(seed, Schedule::Ve { sigma_min: 0.01, sigma_max: 50.0 })),
    ("draws-plain", |seed| flow::draws(seed, Draws::Plain)),
    ("draws-antithetic", |seed| flow::draws(seed, Draws::Antithetic)),
    ("draws-quasi", |seed| flow::draws(seed, Draws::Quasi)),
    ("draws-latin", |seed| flow::draws(seed, Draws::Latin)),
    ("reverse-ode", |seed| flow::reverse(seed, ReverseMethod::Ode(Solver::Rk4))),
    ("reverse-ddim", |seed| flow::reverse(seed, ReverseMethod::Ddim { eta: 0.0 })),
    ("reverse-ddpm", |seed| flow::reverse(seed, ReverseMethod::Ddpm)),
    ("reverse-sde-beta", |seed| flow::reverse(seed, ReverseMethod::EulerMaruyama(SdeNoise::Beta { scale: 0.5 }))),
    ("reverse-sde-diffusion", |seed| {
        flow::reverse(seed, ReverseMethod::EulerMaruyama(SdeNoise::Diffusion { scale: 1.0 }))
    }),
    ("kernel-dense", kernel::dense),
    ("kernel-batch", kernel::batch),
    ("kernel-sparse", kernel::sparse),
    ("activations", kernel::activations),
    ("kernel-int8", int8::kernel),
    ("velocity-int8", int8::velocity),
    ("velocity", velocity),
    ("subnormal", subnormal),
    ("euler", |seed| solver(seed, Solver::Euler)),
    ("midpoint", |seed| solver(seed, Solver::Midpoint)),
    ("heun", |seed| solver(seed, Solver::Heun)),
    ("rk4", |seed| solver(seed, Solver::Rk4)),
    ("critic", critic),
    ("estimate-none", |seed| rfm::control_variate(seed, ControlVariate::None)),
    ("estimate-eta", |seed| rfm::control_variate(seed, ControlVariate::Eta(0.7))),
    ("estimate-eta-optimal", |seed| rfm::control_variate(seed, ControlVariate::EtaOptimal { ridge: 1e-4 })),
    ("estimate-published", |seed| rfm::control_variate(seed, ControlVariate::PUBLISHED)),
    ("estimate-full", |seed| rfm::control_variate(seed, ControlVariate::Full { ridge: 1e-3 })),
    ("estimate-fisher", |seed| rfm::control_variate(seed, ControlVariate::Fisher)),
    ("estimate-shrunk", |seed| rfm::control_variate(seed, ControlVariate::Shrunk)),
    ("estimate-ula", |seed| rfm::method(seed, Method::Ula(rfm::LANGEVIN))),
    ("estimate-mala", |seed| rfm::method(seed, Method::Mala(rfm::LANGEVIN))),
    ("estimate-smc-adaptive", |seed| rfm::annealed(seed, Ladder::Adaptive { keep: 0.5 })),
    ("estimate-smc-power", |seed| rfm::annealed(seed, Ladder::Power { exponent: 2.0 })),
    ("estimate-auto", rfm::default),
    ("estimate-constant", |seed| rfm::test_function(seed, TestFunction::Constant)),
    ("estimate-boundary", |seed| rfm::test_function(seed, TestFunction::Boundary)),
    ("estimate-sources", rfm::sources),
    ("guard", guard::life),
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
        digest.update(&[
            math::libm_tanh(wide),
            math::atanh(x),
            math::exp(wide),
            math::ln(positive),
            math::sqrt(positive),
        ]);
        digest.update(&[math::sin(wide), math::cos(wide), math::ln_sech2(wide), math::ln_add_exp(wide, x)]);
        digest.update(&math::box_muller([rng.next_u32(), rng.next_u32()]));
    }
    digest.finish()
}

fn velocity(seed: u64) -> u64 {
    let mut digest = Digest::new();
    for activation in Activation::ALL {
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

/// Networks whose values would fall to the subnormals and be amplified again, were it not for the rule: raw results of
/// the velocity network, the sampler and the critic's gradient, for every activation and trunk.
fn subnormal(seed: u64) -> u64 {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut digest = Digest::new();
    for activation in Activation::ALL {
        for trunk in [Trunk::Plain, Trunk::Residual] {
            let shape = VelocityShape { activation, trunk, ..CHAIN };
            digest.update(&fading_velocity(shape, seed));
            digest.update(&fading_latent(shape, seed));
        }
        digest.update(&fading_gradient(CriticShape { activation, ..CRITIC_CHAIN }, seed));
    }
    for _ in 0..10 {
        let params = tiny::<{ VELOCITY.params() }>(&mut rng).map(math::flush);
        let (s, x) = (tiny(&mut rng).map(math::flush), tiny(&mut rng).map(math::flush));
        evaluate(VELOCITY, &params, &s, &x, &mut digest);
    }
    digest.finish()
}

const CHAIN_H: usize = 16;
const CHAIN: VelocityShape = VelocityShape { hidden: CHAIN_H, layers: 5, frequencies: 0, ..VELOCITY };
const CRITIC_CHAIN: CriticShape = CriticShape { hidden: CHAIN_H, layers: 5, ..CRITIC };

/// `2^exponent`.
const fn power(exponent: i32) -> f32 {
    f32::from_bits(((127 + exponent) as u32) << 23)
}

/// Fills a network's matrices with positive weights near 1.5 times these powers of two, its biases with zero.
fn fill_chain(params: &mut [f32], inputs: usize, outputs: usize, exponents: [i32; 6], seed: u64) {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut rest = params;
    for (layer, exponent) in exponents.into_iter().enumerate() {
        let (columns, rows) = match layer {
            0 => (inputs, CHAIN_H),
            5 => (CHAIN_H, outputs),
            _ => (CHAIN_H, CHAIN_H),
        };
        let (matrix, tail) = rest.split_at_mut_checked(columns * rows).unwrap_or_default();
        matrix.iter_mut().for_each(|w| *w = power(exponent) * (1.5 + 0.25 * math::symmetric_uniform(rng.next_u32())));
        let (bias, tail) = tail.split_at_mut_checked(rows).unwrap_or_default();
        bias.fill(0.0);
        rest = tail;
    }
}

/// Inputs and first weights of 2^-50 make 2^-100, the next layer 2^-140, four more bring that back to about 2^-4.
fn fading_velocity(shape: VelocityShape, seed: u64) -> [f32; ACT] {
    let mut params = [0.0; CHAIN.params()];
    fill_chain(&mut params, OBS + ACT, ACT, [-50, -40, 30, 30, 30, 30], seed);
    let (mut state, mut a, mut b, mut v) = ([0.0; CHAIN_H], [0.0; CHAIN_H], [0.0; CHAIN_H], [0.0; ACT]);
    if let Ok(net) = VelocityNet::new(shape, &[], &params) {
        net.state_part(&[math::FLUSH; OBS], &mut state);
        net.velocity(&state, &[math::FLUSH; ACT], &mut a, &mut b, &mut v);
    }
    v
}

/// A velocity of 2^-84 moves the latent to 2^-85, whose product with the first weights is subnormal.
fn fading_latent(shape: VelocityShape, seed: u64) -> [f32; ACT] {
    let mut params = [0.0; CHAIN.params()];
    fill_chain(&mut params, OBS + ACT, ACT, [-50, 30, 30, 30, 30, 30], seed);
    params.iter_mut().rev().take(ACT).for_each(|bias| *bias = 1.5 * power(-84));
    let (mut table, mut layers, mut slopes, mut x) =
        ([0.0; 2 * CHAIN_H], [[0.0; CHAIN_H]; 4], [0.0; 3 * ACT], [0.0; ACT]);
    let [state, base, a, b] = &mut layers;
    let mut scratch = SamplerScratch { table: &mut table, state, base, a, b, slopes: &mut slopes };
    let plan = Plan { solver: Solver::Euler, steps: 2, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
    let net = VelocityNet::new(shape, &[], &params).ok().map(Velocity::from);
    if let Some(sampler) = net.as_ref().and_then(|net| Sampler::new(net, plan).ok()) {
        let run = sampler
            .prepare(&mut scratch)
            .and_then(|()| sampler.observe(&[0.0; OBS], &mut scratch))
            .and_then(|()| sampler.integrate(&mut x, &mut scratch));
        if run.is_err() {
            x.fill(f32::MAX);
        }
    }
    x
}

/// On the way back from the output 2^-50 twice and 2^-50 once more are subnormal, and three layers bring them back.
fn fading_gradient(shape: CriticShape, seed: u64) -> [f32; ACT] {
    let mut params = [0.0; CRITIC_CHAIN.params()];
    fill_chain(&mut params, OBS + ACT, 1, [30, 30, 30, -50, -50, -50], seed);
    let (mut state, mut pre, mut a, mut b) = ([0.0; CHAIN_H], [0.0; 5 * CHAIN_H], [0.0; CHAIN_H], [0.0; CHAIN_H]);
    let mut gradient = [0.0; ACT];
    if let Ok(critic) = Critic::new(shape, &params) {
        critic.state_part(&[0.0; OBS], &mut state);
        let mut scratch = CriticScratch { pre: &mut pre, a: &mut a, b: &mut b };
        critic.value_and_gradient(&state, &[0.0; ACT], &mut scratch, &mut gradient);
    }
    gradient
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
    let net = Velocity::from(net);
    let Ok(sampler) = Sampler::new(&net, plan) else { return digest.finish() };
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
    for activation in Activation::ALL {
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

    /// The chain of `fading_velocity` without the rule, on a machine that does, or does not, flush subnormals.
    fn without_the_rule(exponents: [i32; 6], input: f32, flushes: bool) -> f32 {
        let machine = |x: f32| if flushes && x.is_subnormal() { 0.0 } else { x };
        exponents.into_iter().enumerate().fold(input, |x, (layer, exponent)| {
            let columns = if layer == 0 { OBS + ACT } else { CHAIN_H };
            let product = machine(1.5 * power(exponent) * x);
            (0..columns).fold(0.0, |sum, _| machine(sum + product))
        })
    }

    #[test]
    fn without_the_rule_machines_differ() {
        for (exponents, input) in
            [([-50, -40, 30, 30, 30, 30], math::FLUSH), ([-50, 30, 30, 30, 30, 30], 0.5 * 1.5 * power(-84))]
        {
            let ieee = without_the_rule(exponents, input, false);
            assert!(ieee > 1e-3, "the chain does not come back: {ieee}");
            assert_eq!(without_the_rule(exponents, input, true), 0.0);
        }
    }

    #[test]
    fn the_rule_keeps_networks_sampler_and_gradient_from_subnormals() {
        // Exactly zero: the only value on which flushing and IEEE machines agree here.
        for activation in Activation::ALL {
            for trunk in [Trunk::Plain, Trunk::Residual] {
                let shape = VelocityShape { activation, trunk, ..CHAIN };
                assert_eq!(fading_velocity(shape, 1).map(f32::to_bits), [0; ACT], "{shape:?}");
                assert_eq!(fading_latent(shape, 1).map(f32::to_bits), [0; ACT], "{shape:?}");
            }
            let shape = CriticShape { activation, ..CRITIC_CHAIN };
            assert_eq!(fading_gradient(shape, 1).map(f32::to_bits), [0; ACT], "{shape:?}");
        }
    }

    #[test]
    fn products_at_the_threshold_are_normal() {
        // The smallest product and the smallest non-zero difference of two such sums are normal numbers.
        let least = math::FLUSH * math::FLUSH;
        let next = f32::from_bits(math::FLUSH.to_bits() + 1) * math::FLUSH;
        assert!(least.is_normal() && (next - least).is_normal() && next > least);
    }
}
