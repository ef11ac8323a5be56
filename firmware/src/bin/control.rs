//! A whole controller on the device: gate, supervisor and budget around the furuta policy, with the simulated plant.
//!
//! Plays every case of `scenario`: an undisturbed run, whose actions have the bits of the host's evaluation, and what
//! sensors, the stop and time can do. The policy is self-tested before each, and the log is the same on every target but
//! for its measurements: instructions of a control step, the worst one's and those of the steps without a decision, and the
//! stack, of a control step alone and of the whole program with the plant.

#![no_std]
#![no_main]

use flowlet_firmware::embedded::furuta::{self, ACT, MISFIT, OBS, PERIOD_US};
use flowlet_firmware::scenario::{self, CASES, STEPS};
use flowlet_firmware::{Cost, entry, finish, init, refuse, stack, time};

const _: () = assert!(scenario::fits(OBS, ACT, PERIOD_US), "{}", MISFIT);

#[entry]
fn main() -> ! {
    init();
    let mut place = None;
    let policy = match furuta::load(&mut place) {
        Ok(policy) => policy,
        Err(error) => refuse!("the policy is refused and the motor not driven: {}", defmt::Display2Format(&error)),
    };
    defmt::info!("cases of {=u32} control steps of 2000 us, decisions every {=u32} us", STEPS, PERIOD_US);
    let (mut deciding, mut holding, mut deepest) = (Cost::default(), Cost::default(), 0);
    for (index, case) in CASES.iter().enumerate() {
        let mut first = index == 0;
        let outcome = scenario::play(case, policy, |step| {
            if core::mem::take(&mut first) {
                // The mark of the stack is made anew, so that the first decision shows alone.
                let (command, bytes) = stack::of(step);
                deepest = bytes;
                return command;
            }
            let (command, instructions) = time::measure(step);
            if command.decided {
                deciding.record(instructions)
            } else {
                holding.record(instructions)
            }
            command
        });
        match outcome {
            Ok(o) => defmt::info!(
                "{=str}: return {=f64}, digest {=u64:016x}, status {=u64:016x}, {=u32} decisions, watchdog fed {=u32} times, {}",
                case.0,
                o.total,
                o.digest,
                u64::from_be_bytes(o.status.to_bytes()),
                o.decisions,
                o.fed,
                defmt::Display2Format(&o.status.fault),
            ),
            Err(error) => refuse!("{=str}: {}", case.0, defmt::Display2Format(&error)),
        }
    }
    defmt::info!(
        "instructions of a control step that decides: mean {=u64}, max {=u64}",
        deciding.mean(),
        deciding.largest()
    );
    defmt::info!("instructions of one that holds: mean {=u64}, max {=u64}", holding.mean(), holding.largest());
    defmt::info!("stack of a control step that decides: {=u32} bytes", deepest);
    defmt::info!("stack of the program: {=u32} bytes", stack::used().unwrap_or(u32::MAX));
    finish()
}
