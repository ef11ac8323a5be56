//! What a decision of any policy takes on this board: instructions and stack, for the fit of the cost model.
//!
//! The policy is made on the device from random weights, its sizes given as arguments (default): `obs` (3), `act` (1), `h`
//! width (64), `l` hidden layers (2), `f` frequencies (4), `fun` activation by its number in the artefact (0), `res` 1 for
//! a residual trunk (0), `sol` solver (0), `s` steps (5), `n` particles (1), `c` critics (0), and of the critics `ch` width
//! (64), `cl` layers (2), `cf` activation (0). The mean is over twenty decisions of the exercise's observations.

#![no_std]
#![no_main]

use flowlet::flow::{Plan, Schedule, Solver, Source};
use flowlet::net::{Activation, CriticShape, Trunk, VelocityShape};
use flowlet::policy::{BestOfScratch, CriticManifest, Exercise, Manifest, Policy, PolicyScratch, Squash, Weights};
use flowlet_firmware::{Cost, argument, entry, finish, init, refuse, stack, time};

/// Room for parameters, for one artefact and for scratch, in words; all of it lies on the stack.
const PARAMS: usize = 100_000;
const ARTEFACT: usize = 110_000;
const SCRATCH: usize = 12_000;

/// Largest numbers of channels and frequencies.
const CHANNELS: usize = 32;
const FREQUENCIES: usize = 16;

const DECISIONS: usize = 20;

/// Bytes at an address divisible by four.
#[repr(C, align(4))]
struct Aligned([u8; 4 * ARTEFACT]);

fn number(name: &str, default: usize) -> usize {
    argument(name).map_or(default, |n| n as usize)
}

fn activation(name: &str) -> Activation {
    match Activation::from_code(number(name, 0) as u32) {
        Some(activation) => activation,
        None => refuse!("there is no activation {}", name),
    }
}

/// Uniform numbers of magnitude up to `width`, by a linear congruential generator (Knuth's constants).
fn fill(values: &mut [f32], width: f32, state: &mut u32) {
    for value in values {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = width * (((*state >> 9) as f32 + 0.5) / (1 << 22) as f32 - 1.0);
    }
}

/// Weights of variance 1 / inputs, so that every layer gives numbers of the size of one: what an activation takes depends
/// on its argument.
fn initialise(params: &mut [f32], inputs: usize, hidden: usize, state: &mut u32) {
    let width = |inputs: usize| flowlet::math::sqrt(3.0 / inputs as f32);
    let (first, rest) = params.split_at_mut((inputs + 1) * hidden);
    fill(first, width(inputs), state);
    fill(rest, width(hidden), state);
}

#[entry]
fn main() -> ! {
    init();
    let (obs, act, hidden, frequencies) = (number("obs", 3), number("act", 1), number("h", 64), number("f", 4));
    let trunk = if number("res", 0) == 1 { Trunk::Residual } else { Trunk::Plain };
    let Some(solver) = Solver::from_code(number("sol", 0) as u32) else { refuse!("there is no such solver") };
    let (layers, activation_of_actor) = (number("l", 2), activation("fun"));
    let shape = VelocityShape { obs, act, hidden, layers, frequencies, activation: activation_of_actor, trunk };
    let plan = Plan { solver, steps: number("s", 5), t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
    let (particles, critics) = (number("n", 1), number("c", 0));
    let critic =
        CriticShape { obs, act, hidden: number("ch", 64), layers: number("cl", 2), activation: activation("cf") };

    let mut params = [0.0; PARAMS];
    let mut artefact = Aligned([0; 4 * ARTEFACT]);
    let mut memory = [0.0; SCRATCH];
    let mut state = 1;
    let (Some((velocity, rest)), true) =
        (params.split_at_mut_checked(shape.params()), obs.max(act) <= CHANNELS && frequencies <= FREQUENCIES)
    else {
        refuse!("the policy is too large for this program");
    };
    let Some(critic_params) = rest.get_mut(..critics * critic.params()) else {
        refuse!("the critics are too large for this program");
    };
    initialise(velocity, obs + act + 2 * frequencies, hidden, &mut state);
    for params in critic_params.chunks_exact_mut(critic.params()) {
        initialise(params, obs + act, critic.hidden, &mut state);
    }
    let (mut waves, names, ones, lows) = ([0.0; FREQUENCIES], ["x"; CHANNELS], [1.0; CHANNELS], [-1.0; CHANNELS]);
    fill(&mut waves, 6.0, &mut state);
    let manifest = Manifest {
        name: "cost",
        period_us: 1,
        shape,
        frequencies: &waves[..frequencies],
        weights: Weights::F32(velocity),
        plan,
        source: Source::Gaussian,
        schedule: Schedule::Linear,
        obs_names: &names[..obs],
        act_names: &names[..act],
        obs_mean: &[0.0; CHANNELS][..obs],
        obs_scale: &ones[..obs],
        obs_clip: 10.0,
        low: &lows[..act],
        high: &ones[..act],
        squash: Squash::Tanh,
        critics: (critics > 0).then_some(CriticManifest {
            shape: critic,
            count: critics,
            params: critic_params,
            particles: 1,
            temperature: 1.0,
        }),
        step_table: &[],
        test_observation: &ones[..obs],
        test_noise: &ones[..act],
    };
    let length = manifest.encoded_len();
    let Some(bytes) = artefact.0.get_mut(..length) else { refuse!("the artefact is too large for this program") };
    if manifest.scratch_len() > SCRATCH {
        refuse!("the memory of a decision is too large for this program");
    }
    let policy = match manifest.encode(bytes, &mut memory).map(Policy::new) {
        Ok(Ok(policy)) => policy,
        Ok(Err(error)) => refuse!("the policy is refused: {}", error),
        Err(error) => refuse!("the policy cannot be made: {}", error),
    };
    let (head, tail) = memory.split_at_mut(PolicyScratch::len(&shape, &plan));
    let (Some(mut scratch), Some(mut selection)) =
        (PolicyScratch::carve(&shape, &plan, head), BestOfScratch::carve(&shape, &critic, critics, tail))
    else {
        refuse!("the memory of a decision is too short");
    };
    if let Err(error) = policy.prepare(&mut scratch) {
        refuse!("the table cannot be filled: {}", error);
    }

    stack::paint();
    let before = stack::depth();
    let mut exercise = Exercise::new(1);
    let mut cost = Cost::default();
    let (mut observation, mut action) = ([0.0; CHANNELS], [0.0; CHANNELS]);
    for _ in 0..DECISIONS {
        exercise.observation(policy.artefact().normalizer(), &mut observation[..obs]);
        let observed = core::hint::black_box(&observation[..obs]);
        let (decision, instructions) = time::measure(|| match particles {
            1 => policy.act(observed, &mut exercise.noise, &mut scratch, &mut action[..act]),
            n => policy
                .act_best_of(observed, n, &mut exercise.noise, &mut scratch, &mut selection, &mut action[..act])
                .map(|_| ()),
        });
        if let Err(error) = decision {
            refuse!("a decision failed: {}", error);
        }
        cost.record(instructions);
    }
    defmt::info!("instructions per decision: {=u64}", cost.mean());
    defmt::info!("stack of a decision: {=u32} bytes", stack::used().unwrap_or(u32::MAX).saturating_sub(before));
    defmt::info!("view of a policy: {=usize} bytes", core::mem::size_of::<Policy>());
    finish()
}
