//! Learned state in a flash that loses its power a hundred times, on the device.
//!
//! Plays `flowlet_journal::lives` with a NOR flash in RAM; a state that is lost ends the program with an error. The log is the
//! same on every target and on the host but for its measurements, in which the simulated flash's own work is counted too.

#![no_std]
#![no_main]

use flowlet_firmware::{Cost, entry, finish, init, refuse, stack, time};
use flowlet_journal::lives::{self, Work};

const LIVES: u32 = 100;

#[entry]
fn main() -> ! {
    init();
    let (mut loading, mut stepping) = (Cost::default(), Cost::default());
    let outcome = lives::live(LIVES, |what, work| {
        let ((), instructions) = time::measure(work);
        match what {
            Work::Load => loading.record(instructions),
            Work::Step => stepping.record(instructions),
        }
    });
    match outcome {
        Ok(o) => {
            defmt::info!("states: {=u32}, in {=u32} lives", o.states, LIVES);
            defmt::info!("erases: {=u32} of 7 sectors", o.erases);
            defmt::info!("digest: {=u32:08x}", o.digest);
        }
        Err(life) => refuse!("a state was lost before life {=u32}", life),
    }
    defmt::info!("instructions of loading: mean {=u64}, max {=u64}", loading.mean(), loading.largest());
    defmt::info!("instructions of a step: mean {=u64}, max {=u64}", stepping.mean(), stepping.largest());
    defmt::info!("stack: {=u32} bytes", stack::used().unwrap_or(u32::MAX));
    finish()
}
