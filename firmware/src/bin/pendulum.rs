//! Controls a pendulum for one episode: the trained policy and the simulated plant, both on the device.
//!
//! The policy decides at its control period in virtual time; a decision that outlasts the period ends the program with
//! an error. The policy in flash is checked and self-tested first, and a bad one is refused before the motor is driven.
//! The return and the digest of the actions are the same on every target and on the host; the instruction counts and
//! the stack are this target's.

#![no_std]
#![no_main]

use flowlet::math::Digest;
use flowlet_firmware::embedded::{self, ACT, HIDDEN, MISFIT, OBS, PERIOD_US};
use flowlet_firmware::{Cost, entry, finish, init, refuse, stack, time};
use plants::Pendulum;
use rand_xoshiro::rand_core::SeedableRng;
use rand_xoshiro::{Xoshiro128PlusPlus, Xoshiro256PlusPlus};

/// The plant's time step.
const STEP_US: u32 = 50_000;

/// Decisions of an episode.
const STEPS: u32 = 200;

/// Seed of the plant's start and of the policy's noise.
const SEED: u64 = 1;

const _: () = assert!(OBS == 3 && ACT == 1 && PERIOD_US == STEP_US, "{}", MISFIT);

#[entry]
fn main() -> ! {
    init();
    let mut place = None;
    let policy = match embedded::load(&mut place) {
        Ok(policy) => policy,
        Err(error) => refuse!("the policy is refused and the motor not driven: {}", defmt::Display2Format(&error)),
    };
    let artefact = *policy.policy().artefact();
    let plan = *policy.policy().plan();
    let shape = *artefact.velocity().shape();
    defmt::info!(
        "policy: {=str}, {=usize}-{=usize}-{=usize} with {=usize} hidden layers, {=usize} evaluations, {=usize} bytes",
        artefact.name(),
        shape.obs,
        shape.hidden,
        shape.act,
        shape.layers,
        plan.evaluations(),
        artefact.bytes().len(),
    );
    defmt::info!("self-test: passed");

    let mut plant = Pendulum::new();
    plant.reset(&mut Xoshiro256PlusPlus::seed_from_u64(SEED));
    let mut noise = Xoshiro128PlusPlus::seed_from_u64(SEED);
    let (mut total, mut digest, mut cost) = (0.0, Digest::new(), Cost::default());
    let mut tick = 0;
    time::start(PERIOD_US);
    for step in 0..STEPS {
        let now = time::wait_after(tick);
        if now != tick + 1 {
            refuse!("decision {=u32} was late: it took longer than the control period of {=u32} us", step, PERIOD_US);
        }
        tick = now;
        let observation = core::hint::black_box(plant.observe().map(|value| value as f32));
        let (decision, instructions) = time::measure(|| policy.act(&observation, &mut noise));
        let action = match decision {
            Ok(action) => action,
            Err(error) => refuse!("decision {=u32} failed: {}", step, defmt::Display2Format(&error)),
        };
        cost.record(instructions);
        digest.update(&action);
        total += plant.step(f64::from(action[0]));
        if step % 50 == 49 {
            defmt::info!("step {=u32}: angle {=f64} rad, return so far {=f64}", step + 1, plant.theta, total);
        }
    }
    defmt::info!("return: {=f64} over {=u32} steps of {=u32} us", total, STEPS, PERIOD_US);
    defmt::info!("digest: {=u64:016x}", digest.finish());
    let macs = policy.policy().macs_per_decision();
    defmt::info!(
        "multiply-accumulates per decision: {=usize} = {=usize}*{=usize} + {=usize}*({=usize}*{=usize} + {=usize}*{=usize}*{=usize} + {=usize}*{=usize})",
        macs,
        OBS,
        HIDDEN,
        plan.evaluations(),
        ACT,
        HIDDEN,
        shape.layers - 1,
        HIDDEN,
        HIDDEN,
        HIDDEN,
        ACT,
    );
    defmt::info!("saved by the table of time parts: {=usize}", policy.policy().macs_saved_per_decision());
    let per_mac = cost.hundredths_per_mac(macs);
    defmt::info!("instructions per decision: mean {=u64}, max {=u64}", cost.mean(), cost.largest());
    defmt::info!("instructions per multiply-accumulate: {=u64}.{=u64:02}", per_mac / 100, per_mac % 100);
    defmt::info!("counter: exact to {=u64} instructions", time::RESOLUTION);
    defmt::info!("stack: {=u32} bytes", stack::used().unwrap_or(u32::MAX));
    finish()
}
