//! Every public building block of flowlet on inputs from a seed, each with the digest of its results.
//!
//! Runs `flowlet::conformance`, all of it on every board, the one with 16 kB of RAM included. The argument `seed=NUMBER`
//! (default 0) chooses the inputs. The log is the same on every target and on the host, but for the stack.

#![no_std]
#![no_main]

use flowlet::conformance::CASES;
use flowlet_firmware::{argument, entry, finish, init, stack};

#[entry]
fn main() -> ! {
    init();
    let seed = argument("seed").unwrap_or(0);
    for (name, case) in CASES {
        // A case that the compiler could inline here would add its stack to that of the others.
        let case = core::hint::black_box(*case);
        defmt::info!("{=str}: {=u64:016x}", name, case(seed));
    }
    defmt::info!("stack: {=u32} bytes", stack::used().unwrap_or(u32::MAX));
    finish()
}
