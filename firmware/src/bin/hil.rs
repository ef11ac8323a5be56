//! Hardware in the loop: decides for a plant that a PC simulates, over the serial port.
//!
//! `host-train hil` is the other end, docs/protocol.md the language. The furuta policy in flash decides first; an uploaded
//! one takes over once it is checked and self-tested. Where the PC asks for it (`--finetune`) the board learns. The program
//! runs until it is stopped; a stack that reaches the static data ends it with exit code 1.

#![no_std]
#![no_main]

use core::ptr::addr_of_mut;
use flowlet::policy::Artefact;
use flowlet_firmware::embedded::furuta::ARTEFACT;
use flowlet_firmware::uart::Uart;
use flowlet_firmware::{board, entry, exit, init, refuse, stack, time};
use flowlet_link::device::{Memory, Port, serve};
use flowlet_link::frame::{frame_len, wire_len};
use flowlet_link::learning::Learning;

const FRAME: usize = frame_len(board::HIL_PAYLOAD);
const WIRE: usize = wire_len(board::HIL_PAYLOAD);

/// Memory for uploads and decisions; static, so that the linker finds out when the board has less.
static mut UPLOADS: [u32; board::HIL_UPLOADS / 4] = [0; board::HIL_UPLOADS / 4];
static mut SCRATCH: [f32; board::HIL_SCRATCH] = [0.0; board::HIL_SCRATCH];

/// The serial port and the timer.
struct Line(Uart);

impl Port for Line {
    /// Instructions are counted.
    const TICKS_PER_SECOND: u32 = 0;

    fn read(&mut self) -> Option<u8> {
        self.0.read()
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn idle(&mut self) -> bool {
        if stack::overrun() {
            refuse!("the stack ran into the static data: give the board less memory for hardware in the loop");
        }
        let seen = time::ticks();
        self.0.rest_unless(|| time::ticks() != seen);
        true
    }

    fn start_periods(&mut self, period_us: u32) -> bool {
        let fits = time::fits(period_us);
        if fits {
            time::start(period_us);
        }
        fits
    }

    fn stop_periods(&mut self) {
        time::stop();
    }

    fn periods(&mut self) -> u32 {
        time::ticks()
    }

    fn measure<R>(&mut self, work: impl FnOnce() -> R) -> (R, u32) {
        let (result, instructions) = time::measure(work);
        (result, u32::try_from(instructions).unwrap_or(u32::MAX))
    }

    fn learning(&mut self, learning: &Learning) {
        defmt::info!("{}", learning);
    }
}

#[entry]
fn main() -> ! {
    init();
    match Artefact::new(ARTEFACT) {
        Ok(artefact) => defmt::info!(
            "policy: {=str}, {=usize} bytes; room for uploads: {=usize} bytes",
            artefact.name(),
            ARTEFACT.len(),
            board::HIL_UPLOADS
        ),
        Err(error) => refuse!("the policy is refused: {}", defmt::Display2Format(&error)),
    }
    defmt::info!("waiting for `host-train hil`");
    // SAFETY: the only use of both, and `main` is entered once.
    let (uploads, scratch) = unsafe { (&mut *addr_of_mut!(UPLOADS), &mut *addr_of_mut!(SCRATCH)) };
    let memory = Memory { uploads, scratch };
    match serve::<_, FRAME, WIRE>(board::NAME, ARTEFACT, memory, &mut Line(Uart::start())) {
        Ok(()) => exit(0),
        Err(error) => refuse!("the policy is refused: {}", defmt::Display2Format(&error)),
    }
}
