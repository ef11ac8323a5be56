//! What one estimate of a posterior mean takes on this board: instructions and RAM.
//!
//! The target is the Boltzmann density of two critics, three observations, two ReLU layers of width 64. Arguments:
//! `d=1|2|6` components (default 1), `k=8|16|32` candidates (default 8), `method=0|1` for the default estimator or the
//! published one. The mean is over ten flow times from 0.05 to 0.95. The estimator lives on the stack, so its high-water
//! mark is the RAM the estimate needs; the critics' weights are constants in flash.

#![no_std]
#![no_main]

use core::hint::black_box;
use flowlet::net::{Activation, Critic, CriticScratch, CriticShape};
use flowlet::rfm::{Boltzmann, BoltzmannScratch, Estimator, RfmConfig, Target};
use flowlet_firmware::{Cost, argument, entry, finish, init, refuse, stack, time};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;

const H: usize = 64;
const OBS: usize = 3;

const fn shape(act: usize) -> CriticShape {
    CriticShape { obs: OBS, act, hidden: H, layers: 2, activation: Activation::Relu }
}

/// Weights for the largest of the critics; the smaller ones take the front.
const PARAMS: usize = shape(6).params();
static WEIGHTS: [[f32; PARAMS]; 2] = [weights(1), weights(2)];

/// Weights of magnitude up to 1/4, by a linear congruential generator (Knuth's constants).
const fn weights(seed: u32) -> [f32; PARAMS] {
    let mut values = [0.0; PARAMS];
    let (mut state, mut i) = (seed, 0);
    while i < PARAMS {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // 23 bits and a half: never zero, never below 2^-26.
        values[i] = ((state >> 9) as f32 + 0.5) / (1 << 24) as f32 - 0.25;
        i += 1;
    }
    values
}

/// Counts the evaluations and their instructions.
struct Counted<T> {
    target: T,
    evaluations: u32,
    instructions: u64,
}

impl<T: Target> Target for Counted<T> {
    fn log_density(&mut self, latent: &[f32]) -> f32 {
        let (value, instructions) = time::measure(|| self.target.log_density(latent));
        self.evaluations += 1;
        self.instructions += instructions;
        value
    }

    fn log_density_and_score(&mut self, latent: &[f32], score: &mut [f32]) -> f32 {
        let (value, instructions) = time::measure(|| self.target.log_density_and_score(latent, score));
        self.evaluations += 1;
        self.instructions += instructions;
        value
    }
}

/// Runs ten estimates and prints what they took. Not inlined: each size has a stack frame of its own.
#[inline(never)]
fn run<const D: usize, const K: usize>(config: RfmConfig) {
    let weights = WEIGHTS.each_ref().map(|w| w.get(..shape(D).params()).unwrap_or(w));
    let [Ok(first), Ok(second)] = weights.map(|w| Critic::new(shape(D), w)) else { refuse!("the critics are refused") };
    let critics = [first, second];
    let mut estimator = Estimator::<D, K>::new(config);
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
    let (mut parts, mut pre, mut a, mut b) = ([0.0; 2 * H], [0.0; 2 * H], [0.0; H], [0.0; H]);
    let (mut action, mut gradient) = ([0.0; D], [0.0; D]);
    let (mut cost, mut spent, mut evaluations) = (Cost::default(), 0, 0);
    for i in 0..10u8 {
        let scratch = BoltzmannScratch {
            state_parts: &mut parts,
            critic: CriticScratch { pre: &mut pre, a: &mut a, b: &mut b },
            action: &mut action,
            gradient: &mut gradient,
        };
        let Some(target) = Boltzmann::new(&critics, &[0.5, -0.3, 0.1], 0.1, scratch) else {
            refuse!("the target is refused");
        };
        let mut target = Counted { target, evaluations: 0, instructions: 0 };
        let (t, x) = (0.05 + 0.1 * f32::from(i), [0.2; D].into());
        let (estimate, instructions) =
            time::measure(|| estimator.estimate(black_box(t), black_box(&x), &mut target, &[], &mut rng));
        if let Err(error) = estimate {
            refuse!("an estimate failed: {}", error);
        }
        cost.record(instructions);
        spent += target.instructions;
        evaluations += target.evaluations;
    }
    defmt::info!("evaluations per estimate: {=u32}", evaluations / 10);
    defmt::info!("instructions per estimate: {=u64}", cost.mean());
    defmt::info!("of them in the critics: {=u64}", spent / 10);
    defmt::info!("estimator: {=usize} bytes", core::mem::size_of::<Estimator<D, K>>());
}

#[entry]
fn main() -> ! {
    init();
    let (d, k, method) = (argument("d").unwrap_or(1), argument("k").unwrap_or(8), argument("method").unwrap_or(0));
    let config = match method {
        0 => RfmConfig::auto,
        1 => RfmConfig::published,
        _ => refuse!("method must be 0 for the default estimator or 1 for the published one"),
    };
    match (d, k) {
        (1, 8) => run::<1, 8>(config(8)),
        (1, 16) => run::<1, 16>(config(16)),
        (1, 32) => run::<1, 32>(config(32)),
        (2, 8) => run::<2, 8>(config(8)),
        (2, 16) => run::<2, 16>(config(16)),
        (2, 32) => run::<2, 32>(config(32)),
        (6, 8) => run::<6, 8>(config(8)),
        (6, 16) => run::<6, 16>(config(16)),
        (6, 32) => run::<6, 32>(config(32)),
        _ => refuse!("d must be 1, 2 or 6 and k 8, 16 or 32"),
    }
    defmt::info!("stack: {=u32} bytes", stack::used().unwrap_or(u32::MAX));
    finish()
}
