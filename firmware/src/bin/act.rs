//! The smallest whole program that acts: its image, RAM, stack and instructions are what a decision takes on a board.
//!
//! The policy in flash is checked and self-tested, then decides a thousand times from the observations of the exercise.
//! There is no plant and no digest; what is not the policy's is start-up, the instruction counter and five log lines.
//! `cargo xtask firmware-report` reads them.

#![no_std]
#![no_main]

use flowlet::policy::{EXERCISE_ACTIONS, Exercise};
use flowlet_firmware::embedded::{self, OBS};
use flowlet_firmware::{Cost, entry, finish, init, refuse, stack, time};

#[entry]
fn main() -> ! {
    init();
    let mut place = None;
    let policy = match embedded::load(&mut place) {
        Ok(policy) => policy,
        Err(error) => refuse!("the policy is refused: {}", error),
    };
    let normalizer = *policy.policy().artefact().normalizer();
    let mut exercise = Exercise::new(0);
    let mut cost = Cost::default();
    for _ in 0..EXERCISE_ACTIONS {
        let mut observation = [0.0; OBS];
        exercise.observation(&normalizer, &mut observation);
        let observation = core::hint::black_box(observation);
        let (action, instructions) = time::measure(|| policy.act(&observation, &mut exercise.noise));
        match action {
            Ok(action) => core::hint::black_box(action),
            Err(error) => refuse!("a decision failed: {}", error),
        };
        cost.record(instructions);
    }
    defmt::info!("instructions: {=u64}", cost.mean());
    defmt::info!("largest: {=u64}", cost.largest());
    defmt::info!("macs: {=usize}", policy.policy().macs_per_decision());
    defmt::info!("owner: {=usize} bytes", core::mem::size_of_val(policy));
    defmt::info!("stack: {=u32} bytes", stack::used().unwrap_or(u32::MAX));
    finish()
}
