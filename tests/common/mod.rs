//! An artefact with random weights and memory for its decisions, for the tests of this folder.

use flowlet::flow::{Plan, Schedule, Solver, Source};
use flowlet::math;
use flowlet::net::{Activation, CriticShape, Trunk, VelocityShape};
use flowlet::policy::{CriticManifest, Manifest, Squash, StepEntry, Weights};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// Bytes that begin at an address divisible by four.
#[derive(Clone)]
pub struct Aligned(Vec<u32>, usize);

impl Aligned {
    pub fn new(bytes: &[u8]) -> Self {
        let mut aligned = Self(vec![0; bytes.len().div_ceil(4)], bytes.len());
        aligned.bytes_mut().copy_from_slice(bytes);
        aligned
    }

    pub fn bytes(&self) -> &[u8] {
        &zerocopy::IntoBytes::as_bytes(self.0.as_slice())[..self.1]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut zerocopy::IntoBytes::as_mut_bytes(self.0.as_mut_slice())[..self.1]
    }
}

/// What varies between the artefacts of the tests.
#[derive(Clone, Copy)]
pub struct Recipe {
    pub obs: usize,
    pub act: usize,
    pub hidden: usize,
    pub layers: usize,
    pub activation: Activation,
    pub trunk: Trunk,
    pub solver: Solver,
    pub steps: usize,
    pub critics: usize,
    pub source: Source,
    pub schedule: Schedule,
    pub seed: u64,
}

pub const STEP_TABLE: [StepEntry; 2] = [
    StepEntry { steps: 1, mean_return: -3.5, half_width: 0.25 },
    StepEntry { steps: 3, mean_return: -2.0, half_width: 0.125 },
];

pub const SMALL: Recipe = Recipe {
    obs: 3,
    act: 2,
    hidden: 6,
    layers: 2,
    activation: Activation::Relu,
    trunk: Trunk::Plain,
    solver: Solver::Euler,
    steps: 3,
    critics: 2,
    source: Source::Gaussian,
    schedule: Schedule::Linear,
    seed: 1,
};

/// Encodes an artefact with random weights.
pub fn artefact(recipe: Recipe) -> Aligned {
    try_artefact(recipe).unwrap()
}

/// The same; none where the encoder refuses the recipe.
pub fn try_artefact(recipe: Recipe) -> Option<Aligned> {
    let critic = CriticShape { obs: recipe.obs, act: recipe.act, hidden: 5, layers: 2, activation: Activation::Tanh };
    encode(recipe, critic, [0.6, 0.6])
}

/// An artefact with a deep ReLU critic whose weights are so large that its values overflow; none where they do so in
/// the self-test, which the encoder refuses.
pub fn overflowing_critic(seed: u64) -> Option<Aligned> {
    let critic = CriticShape { obs: SMALL.obs, act: SMALL.act, hidden: 3, layers: 6, activation: Activation::Relu };
    encode(Recipe { seed, critics: 1, ..SMALL }, critic, [0.6, 1e9])
}

/// An artefact whose velocity weights were drawn around the thresholds of the subnormal rule.
pub fn tiny_weights() -> Aligned {
    let critic = CriticShape { obs: SMALL.obs, act: SMALL.act, hidden: 5, layers: 2, activation: Activation::Tanh };
    encode(SMALL, critic, [4.0 * math::FLUSH, 0.6]).unwrap()
}

fn encode(recipe: Recipe, critic: CriticShape, [scale_of_velocity, critic_scale]: [f32; 2]) -> Option<Aligned> {
    let Recipe { obs, act, hidden, layers, activation, trunk, solver, steps, critics, source, schedule, seed } = recipe;
    let frequencies = [1.0, 2.0];
    let shape = VelocityShape { obs, act, hidden, layers, frequencies: 2, activation, trunk };
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    let mut random = |n: usize, scale: f32| -> Vec<f32> {
        (0..n).map(|_| scale * math::symmetric_uniform(rng.next_u32())).collect()
    };
    let (params, critic_params) =
        (random(shape.params(), scale_of_velocity), random(critics * critic.params(), critic_scale));
    let (mean, scale) = (random(obs, 2.0), random(obs, 0.4).iter().map(|s| 1.0 + s).collect::<Vec<_>>());
    let names: Vec<String> = (0..obs.max(act)).map(|i| format!("channel {i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (observation, noise) = (random(obs, 3.0), random(act, 2.0));
    let (low, high) = (vec![-1.0; act], vec![2.0; act]);
    let manifest = Manifest {
        name: "test rig",
        period_us: 10_000,
        shape,
        frequencies: &frequencies,
        weights: Weights::F32(&params),
        plan: Plan { solver, steps, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 },
        source,
        schedule,
        obs_names: &names[..obs],
        act_names: &names[..act],
        obs_mean: &mean,
        obs_scale: &scale,
        obs_clip: 10.0,
        low: &low,
        high: &high,
        squash: Squash::Tanh,
        critics: (critics > 0).then_some(CriticManifest {
            shape: critic,
            count: critics,
            params: &critic_params,
            particles: 4,
            temperature: 0.1,
        }),
        step_table: &STEP_TABLE,
        test_observation: &observation,
        test_noise: &noise,
    };
    let mut bytes = Aligned::new(&vec![0; manifest.encoded_len()]);
    let mut memory = vec![0.0; manifest.scratch_len()];
    manifest.encode(bytes.bytes_mut(), &mut memory).ok()?;
    Some(bytes)
}
