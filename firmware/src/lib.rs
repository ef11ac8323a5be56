//! Board support for flowlet's firmware: what a program needs around the policy, in QEMU or under a debugger.
//!
//! A program is `#[entry] fn main() -> !`; it calls [`init`] first, logs through `defmt`, and ends with [`finish`] or
//! [`refuse`], which hand their exit code to the host by semihosting.
//!
//! * [`time`]: a control tick at a fixed rate in virtual time and an exact count of executed instructions.
//! * [`stack`]: the high-water mark of the stack.
//! * [`mod@log`]: `defmt` frames over semihosting.
//! * [`uart`]: the board's serial port, for hardware in the loop.
//! * [`embedded`]: the policies in flash, checked before they are used.
//! * [`learning`]: a policy that goes on learning on a changed plant, for the program `finetune` and for the host.
//! * [`scenario`]: what can happen to a controlled plant, for the program `control` and for the host.
//!
//! Guarantees: no allocation; no floating point in an interrupt handler; a panic, a fault or a stack that ran into the
//! static data ends the program with exit code 1 and one line that names the cause. Deterministic: under QEMU's
//! `-icount` the same ELF does the same thing at the same virtual time in every run.
//!
//! The FPU and Helium are switched on before `main`: `cortex-m-rt` and `riscv-rt` do it for every target whose ABI
//! passes floats in registers, and on Armv8.1-M the same two coprocessor bits enable Helium.

#![no_std]

pub mod embedded;
pub mod learning;
pub mod log;
pub mod scenario;
pub mod stack;
pub mod time;
pub mod uart;

#[cfg(target_arch = "arm")]
pub use cortex_m_rt::entry;
#[cfg(target_arch = "riscv32")]
pub use riscv_rt::entry;

use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicBool, Ordering};

/// The facts of the board the program was built for, from `boards/NAME/board.toml`.
pub mod board {
    include!(concat!(env!("OUT_DIR"), "/board.rs"));
}

/// Prepares the stack mark and the counter. Call it once, first thing in `main`.
pub fn init() {
    stack::paint();
    if let Err(error) = time::calibrate() {
        refuse!("{}", error);
    }
}

/// Ends the program successfully, unless the stack ran into the static data.
pub fn finish() -> ! {
    if stack::used().is_none() {
        refuse!("the stack ran into the static data: this program needs more RAM than the board has");
    }
    exit(0)
}

/// Instructions of the decisions of a program.
#[derive(Default)]
pub struct Cost {
    decisions: u32,
    total: u64,
    largest: u64,
}

impl Cost {
    /// Takes in one decision's count of instructions.
    pub fn record(&mut self, instructions: u64) {
        self.decisions += 1;
        self.total += instructions;
        self.largest = self.largest.max(instructions);
    }

    /// Mean count, to the nearest instruction.
    pub fn mean(&self) -> u64 {
        (self.total + u64::from(self.decisions) / 2).checked_div(u64::from(self.decisions)).unwrap_or(0)
    }

    /// Largest count.
    pub fn largest(&self) -> u64 {
        self.largest
    }

    /// Mean count per multiply-accumulate, in hundredths.
    pub fn hundredths_per_mac(&self, macs: usize) -> u64 {
        (100 * self.mean()).checked_div(macs as u64).unwrap_or(0)
    }
}

/// Ends the program with `code`; the host sees it as QEMU's exit code.
pub fn exit(code: i32) -> ! {
    semihosting::process::exit(code)
}

/// Logs one sentence as an error and ends the program with exit code 1.
#[macro_export]
macro_rules! refuse {
    ($($argument:tt)*) => {{
        ::defmt::error!($($argument)*);
        $crate::exit(1)
    }};
}

/// The number given as `name=NUMBER` on the program's command line (`cargo xtask qemu BOARD ELF name=NUMBER`).
///
/// Ends the program when the argument is there and is no number.
pub fn argument(name: &str) -> Option<u64> {
    let mut buffer = [MaybeUninit::uninit(); 96];
    let line = semihosting::sys::arm_compat::sys_get_cmdline_uninit(&mut buffer).ok()?;
    let line = core::str::from_utf8(line).ok()?;
    let value = line.trim_end_matches('\0').split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    match value.parse() {
        Ok(number) => Some(number),
        Err(_) => refuse!("the argument {}={} is no number", name, value),
    }
}

/// A panic inside the panic handler would recurse: the second one ends the program without a word.
static PANICKED: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    if !PANICKED.load(Ordering::Relaxed) {
        PANICKED.store(true, Ordering::Relaxed);
        // The message itself would bring the formatting machinery of `core` into every image.
        match info.location() {
            Some(place) => defmt::error!("panic at {=str}:{=u32}", place.file(), place.line()),
            None => defmt::error!("panic"),
        }
    }
    exit(1)
}

#[cfg(target_arch = "arm")]
#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    refuse!("hard fault at {=u32:#010x}", frame.pc())
}

#[cfg(target_arch = "riscv32")]
#[riscv_rt::exception(riscv::interrupt::Exception::IllegalInstruction)]
fn illegal_instruction() -> ! {
    refuse!("illegal instruction at {=usize:#010x}", riscv::register::mepc::read())
}

#[cfg(target_arch = "riscv32")]
#[unsafe(no_mangle)]
extern "C" fn ExceptionHandler(_frame: &riscv_rt::TrapFrame) -> ! {
    refuse!(
        "exception {=usize} at {=usize:#010x}",
        riscv::register::mcause::read().code(),
        riscv::register::mepc::read()
    )
}
