//! The furuta rig that the images of boards/ share, with the simulated plant in place of the pins.
//!
//! What runs here is what runs on a board between the interrupt and the pins: unwrapped counts, observation, start
//! procedure, controller with policy and gate, duty cycle, direction, lamp. What does not is the chip's own: clocks, timers,
//! encoders, watchdog, and the deadline, since time stands still. The return and the digest of the motor's voltages are
//! the same on every target and on the host.

#![no_std]
#![no_main]

use flowlet_firmware::{Cost, entry, finish, init, refuse, stack, time};
use furuta_robot::policy;
use furuta_robot::simulated::{Bench, Episode, Pins, TICKS};

#[entry]
fn main() -> ! {
    init();
    let mut policy = match policy::load() {
        Ok(policy) => policy,
        Err(error) => refuse!("the policy is refused and the motor not driven: {}", defmt::Display2Format(&error)),
    };
    let pins = Pins::default();
    let mut bench = match Bench::new(&mut policy, &pins) {
        Ok(bench) => bench,
        Err(error) => refuse!("the robot is refused and the motor not driven: {}", defmt::Display2Format(&error)),
    };
    bench.press_and_release();
    let (mut episode, mut deciding, mut between) = (Episode::new(), Cost::default(), Cost::default());
    for number in 1..=TICKS {
        let tick = bench.sense();
        let (command, instructions) = time::measure(|| bench.decide(&tick));
        episode.advance(&mut bench);
        if command.decided {
            deciding.record(instructions);
        } else {
            between.record(instructions);
        }
        if number % 500 == 0 {
            defmt::info!("tick {=u32}: return so far {=f64}, {}", number, episode.total, command.status);
        }
    }
    defmt::info!("return: {=f64} over {=u32} ticks", episode.total, TICKS);
    defmt::info!("upright: the last {=u32} ticks", episode.upright);
    defmt::info!("digest: {=u64:016x}", episode.digest.finish());
    defmt::info!(
        "instructions of a tick with a decision: mean {=u64}, max {=u64}",
        deciding.mean(),
        deciding.largest()
    );
    defmt::info!("instructions of a tick between: mean {=u64}, max {=u64}", between.mean(), between.largest());
    defmt::info!("counter: exact to {=u64} instructions", time::RESOLUTION);
    defmt::info!("stack: {=u32} bytes", stack::used().unwrap_or(u32::MAX));
    finish()
}
