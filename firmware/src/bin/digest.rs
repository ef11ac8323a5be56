//! The digest of a thousand actions of the embedded policy, and the instructions a decision takes.
//!
//! Does what `flowlet::policy::action_digest` does on the host, one measured decision after another. The argument
//! `seed=NUMBER` (default 0) chooses observations and noise. Any policy fits that fits the board.

#![no_std]
#![no_main]

use flowlet::policy::{EXERCISE_ACTIONS, Exercise};
use flowlet_firmware::embedded::{self, OBS};
use flowlet_firmware::{Cost, argument, entry, finish, init, refuse, time};

#[entry]
fn main() -> ! {
    init();
    let seed = argument("seed").unwrap_or(0);
    let mut place = None;
    let policy = match embedded::load(&mut place) {
        Ok(policy) => policy,
        Err(error) => refuse!("the policy is refused: {}", defmt::Display2Format(&error)),
    };
    let normalizer = *policy.policy().artefact().normalizer();
    let mut exercise = Exercise::new(seed);
    let mut cost = Cost::default();
    for decision in 0..EXERCISE_ACTIONS {
        let mut observation = [0.0; OBS];
        exercise.observation(&normalizer, &mut observation);
        let observation = core::hint::black_box(observation);
        let (action, instructions) = time::measure(|| policy.act(&observation, &mut exercise.noise));
        match action {
            Ok(action) => exercise.record(&action),
            Err(error) => refuse!("decision {=usize} failed: {}", decision, defmt::Display2Format(&error)),
        }
        cost.record(instructions);
    }
    let per_mac = cost.hundredths_per_mac(policy.policy().macs_per_decision());
    defmt::info!("digest: {=u64:016x}", exercise.finish());
    defmt::info!("instructions per decision: {=u64}", cost.mean());
    defmt::info!("instructions per multiply-accumulate: {=u64}.{=u64:02}", per_mac / 100, per_mac % 100);
    finish()
}
