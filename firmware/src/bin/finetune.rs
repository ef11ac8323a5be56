//! A policy that goes on learning on the device, with the simulated plant: `learning`, measured.
//!
//! The policy's weights stay in flash, what is trained of them and all that the learner needs is one static array whose size is
//! checked when the program is built. Ends with an error where a slice takes more than its bound, or where the state that
//! was saved is not the one that is deployed after the power has gone. The log is the same on every target and on the host
//! but for its measurements. Argument: `script`, 0 for
//! ten episodes, 1 for a hundred thousand control steps, 2 for fifteen minutes.

#![no_std]
#![no_main]

use flowlet::finetune::session::state_bytes;
use flowlet::finetune::{Fits, Learner, least_slice, words};
use flowlet::net::CriticShape;
use flowlet::policy::Artefact;
use flowlet_firmware::embedded::furuta_critic::{self, ACT, ARTEFACT, CRITIC, MISFIT, OBS, PERIOD_US, VELOCITY};
use flowlet_firmware::learning::{self, Flash, LEARNER, Memory, SECTORS, STEPS, Script, Work};
use flowlet_firmware::{Cost, argument, entry, finish, init, refuse, stack, time};

const SHAPE: CriticShape = CRITIC.expect("the policy has no critics: export it with them");
const WORDS: usize = words(&VELOCITY, &SHAPE, &LEARNER);
const STATE: usize = state_bytes(&VELOCITY, &LEARNER);

/// Bytes of RAM that the learner may take.
const LIMIT: usize = 96_000;

const _: () = assert!(learning::fits(OBS, ACT, PERIOD_US), "{}", MISFIT);
const _: () = Fits::<{ Learner::<[u32; WORDS]>::RAM_BYTES }, LIMIT>::OK;
const _: () = assert!(least_slice(&VELOCITY, &SHAPE, &LEARNER) <= LEARNER.slice, "the slices are too short");
const _: () = assert!(learning::sectors(STATE) <= SECTORS, "the flash is too small for the state");

/// The learner's memory; static, so that the linker finds out when the board has less.
static mut LEARNED: [u32; WORDS] = [0; WORDS];
static mut SAVED: [u8; STATE] = [0; STATE];

#[entry]
fn main() -> ! {
    init();
    let Some(script) = Script::ALL.get(argument("script").unwrap_or(0) as usize) else {
        refuse!("there is no such script");
    };
    let mut place = None;
    let policy = match furuta_critic::load(&mut place) {
        Ok(policy) => policy,
        Err(error) => refuse!("the policy is refused and the motor not driven: {}", defmt::Display2Format(&error)),
    };
    let Ok(artefact) = Artefact::new(ARTEFACT) else { refuse!("the artefact is refused") };
    let mut flash = Flash::new(1);
    // SAFETY: this is the only place that names them, and it is passed once.
    let (learner, state) = unsafe { (&mut *core::ptr::addr_of_mut!(LEARNED), &mut *core::ptr::addr_of_mut!(SAVED)) };
    let mut memory = Memory { learner, flash: &mut flash, state };
    let (mut steps, mut pieces, mut commits, mut update) = (Cost::default(), Cost::default(), Cost::default(), 0u64);
    let outcome = learning::live(policy, &artefact, &mut memory, *script, |work, what| {
        let ((), instructions) = time::measure(what);
        match work {
            Work::Step => steps.record(instructions),
            Work::Slice => {
                pieces.record(instructions);
                update += instructions;
            }
            Work::Commit => commits.record(instructions),
        }
    });
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => refuse!("{=str}", error),
    };
    let report = outcome.report;
    defmt::info!("episodes: {=u32} of {=u32} control steps", script.episodes, STEPS);
    defmt::info!("returns: {=f64} at first, {=f64} at last", outcome.returns[0], outcome.returns[1]);
    defmt::info!("digest of the commands: {=u64:016x}", outcome.actions);
    defmt::info!("digest of what was learned: {=u64:016x}", outcome.learned);
    defmt::info!("digest of what is deployed, before and after the power had gone: {=u64:016x}", outcome.deployed);
    defmt::info!("saved: {=u32}, verdicts: {=u32}", outcome.saved, outcome.verdicts);
    defmt::info!("updates: {=u32}, late: {=u32}, resets: {=u32}", report.updates, report.late, report.resets);
    defmt::info!(
        "learner: {=usize} bytes, {=usize} of them in one array",
        Learner::<[u32; WORDS]>::RAM_BYTES,
        4 * WORDS
    );
    defmt::info!("bound of a slice: {=u32} instructions of a Cortex-M4F", LEARNER.slice);
    defmt::info!("instructions of a slice: {=u64} at most, {=u64} in the mean", pieces.largest(), pieces.mean());
    let updates = u64::from(report.updates.max(1));
    defmt::info!("instructions of an update: {=u64}", update / updates);
    defmt::info!("instructions of a control step: {=u64} at most, {=u64} in the mean", steps.largest(), steps.mean());
    defmt::info!("instructions of a step of a commit: {=u64} at most", commits.largest());
    defmt::info!("stack of the program: {=u32} bytes", stack::used().unwrap_or(u32::MAX));
    if cfg!(target_abi = "eabihf") && pieces.largest() > u64::from(LEARNER.slice) {
        refuse!("a slice took more than its bound");
    }
    finish()
}
