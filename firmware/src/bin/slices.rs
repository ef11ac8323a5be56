//! What the slices of an update take on this board, for any mode of the learner and any bound.
//!
//! The furuta policy goes on training on random transitions; there is no plant. Every update is done in slices of at most
//! the bound, and the log has the largest. Arguments: `mode` by its number in `Config::MODES` (0), `bound` of a slice in
//! instructions, 0 for the least that there may be (20000), `updates` (20). No warm-up: every update has the actor's step.

#![no_std]
#![no_main]

use flowlet::finetune::{After, Config, Learner, least_slice, words};
use flowlet::math;
use flowlet::policy::Artefact;
use flowlet_firmware::embedded::furuta_critic::{ACT, ARTEFACT, CRITIC, OBS, VELOCITY};
use flowlet_firmware::{Cost, argument, entry, finish, init, refuse, time};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

const SHAPE: flowlet::net::CriticShape = CRITIC.expect("the policy has no critics: export it with them");

/// Room for the largest mode; more than a small board has, and this program runs on large ones.
const WORDS: usize = {
    let (mut most, mut i) = (0, 0);
    while i < Config::MODES.len() {
        let words = words(&VELOCITY, &SHAPE, &Config::MODES[i].1);
        most = if words > most { words } else { most };
        i += 1;
    }
    most
};

static mut LEARNED: [u32; WORDS] = [0; WORDS];

#[entry]
fn main() -> ! {
    init();
    let Some((name, mode)) = Config::MODES.get(argument("mode").unwrap_or(0) as usize) else {
        refuse!("there is no such mode");
    };
    let least = least_slice(&VELOCITY, &SHAPE, mode);
    let slice = match argument("bound").unwrap_or(20_000) as u32 {
        0 => least,
        bound => bound,
    };
    let updates = argument("updates").unwrap_or(20) as u32;
    let config = Config { slice, warmup: 0, every: 1, ..*mode };
    let Ok(artefact) = Artefact::new(ARTEFACT) else { refuse!("the artefact is refused") };
    // SAFETY: this is the only place that names it.
    let memory = unsafe { &mut *core::ptr::addr_of_mut!(LEARNED) };
    let mut learner = match Learner::new(&artefact, config, 1, memory) {
        Ok(learner) => learner,
        Err(error) => refuse!("{}", defmt::Display2Format(&error)),
    };
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
    let mut uniform = || math::symmetric_uniform(rng.next_u32());
    let (mut slices, mut pulses, mut records) = (Cost::default(), Cost::default(), Cost::default());
    let (mut all, mut done) = (0, 0);
    while done < updates {
        let observation: [f32; OBS] = core::array::from_fn(|_| uniform());
        let action: [f32; ACT] = core::array::from_fn(|_| 5.0 * uniform());
        let reward = uniform();
        records.record(time::measure(|| learner.record(&observation, &action, reward, After::Next)).1);
        pulses.record(time::measure(|| learner.pulse()).1);
        done += u32::from(learner.is_busy());
        loop {
            let (more, instructions) = time::measure(|| learner.slice());
            if !more {
                break;
            }
            slices.record(instructions);
            all += instructions;
        }
    }
    defmt::info!("mode: {=str}", name);
    defmt::info!("bound: {=u32} instructions, {=u32} at least", slice, least);
    defmt::info!("largest slice: {=u64}", slices.largest());
    defmt::info!("mean slice: {=u64}", slices.mean());
    defmt::info!("update: {=u64} instructions", all / u64::from(updates));
    defmt::info!("begin of an update: {=u64} instructions at most", pulses.largest());
    defmt::info!("record: {=u64} instructions at most", records.largest());
    finish()
}
