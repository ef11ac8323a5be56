//! The board's serial port: bytes in and out, and a rest until one comes.
//!
//! One driver for each kind of port, chosen by `uart.kind` of the board's file: Arm's CMSDK APB UART of the MPS2 and
//! MPS3 machines, Nordic's nRF51 UART, ST's USART, and the NS16550A of the RISC-V `virt` machine. All of them are set to
//! 115,200 baud, 8 data bits, no parity, which QEMU does not care about.
//!
//! There is no interrupt handler and no queue: the program reads the port when it has time, and the port's interrupt
//! only ends a rest, with interrupts masked. While a decision is computed the port holds as many bytes as its hardware
//! does (1, 6, 1, 16); more are lost on a real line, the frame's CRC finds it and the PC asks again. In QEMU nothing is lost:
//! the socket waits. No floating point, no allocation, no panics.

use crate::board::{UART_BASE, UART_HZ, UART_INTERRUPT};
use crate::time;

const BAUD: u32 = 115_200;

/// The serial port of the board; there is one.
pub struct Uart(());

impl Uart {
    /// Switches the port on.
    pub fn start() -> Self {
        port::start();
        Self(())
    }

    /// A byte that has come in, if there is one.
    pub fn read(&mut self) -> Option<u8> {
        port::ready().then(port::take)
    }

    /// Sends bytes; waits for the transmitter.
    pub fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| port::send(*byte));
    }

    /// Sleeps until a byte is there or `done`, which a control tick may make true.
    pub fn rest_unless(&mut self, done: impl Fn() -> bool) {
        wake::listen(|| time::rest_unless(|| port::ready() || done()));
    }
}

fn register(offset: usize) -> *mut u32 {
    (UART_BASE + offset) as *mut u32
}

#[cfg(not(uart = "ns16550"))]
fn read(offset: usize) -> u32 {
    // SAFETY: the offsets below are registers of the port, whose address is the board's.
    unsafe { register(offset).read_volatile() }
}

#[cfg(not(uart = "ns16550"))]
fn write(offset: usize, value: u32) {
    // SAFETY: as in `read`; this module is the only user of the port.
    unsafe { register(offset).write_volatile(value) }
}

/// Arm CMSDK APB UART (Cortex-M System Design Kit, technical reference manual, 4.4).
#[cfg(uart = "cmsdk")]
mod port {
    use super::{BAUD, UART_HZ, read, write};

    const DATA: usize = 0x00;
    const STATE: usize = 0x04;
    const CTRL: usize = 0x08;
    const INTCLEAR: usize = 0x0c;
    const BAUDDIV: usize = 0x10;

    const TX_FULL: u32 = 1;
    const RX_FULL: u32 = 2;
    /// Transmitter, receiver, and the receiver's interrupt.
    const ENABLE: u32 = 1 | 2 | 8;
    const RX_INTERRUPT: u32 = 2;

    pub fn start() {
        // The divider is at least 16.
        write(BAUDDIV, (UART_HZ / BAUD).max(16));
        write(CTRL, ENABLE);
    }

    pub fn ready() -> bool {
        read(STATE) & RX_FULL != 0
    }

    pub fn take() -> u8 {
        // Before the byte is read: afterwards the next one may already have set it again.
        write(INTCLEAR, RX_INTERRUPT);
        read(DATA) as u8
    }

    pub fn send(byte: u8) {
        while read(STATE) & TX_FULL != 0 {}
        write(DATA, u32::from(byte));
    }
}

/// Nordic nRF51 UART (nRF51 Series Reference Manual 3.0, chapter 29), on the micro:bit's pins.
#[cfg(uart = "nrf51")]
mod port {
    use super::{BAUD, UART_HZ, read, write};

    const START_RX: usize = 0x000;
    const START_TX: usize = 0x008;
    const RX_READY: usize = 0x108;
    const TX_READY: usize = 0x11c;
    const INTENSET: usize = 0x304;
    const ENABLE: usize = 0x500;
    const PIN_TXD: usize = 0x50c;
    const PIN_RXD: usize = 0x514;
    const RXD: usize = 0x518;
    const TXD: usize = 0x51c;
    const BAUDRATE: usize = 0x524;

    pub fn start() {
        write(PIN_TXD, 24);
        write(PIN_RXD, 25);
        // Baud times 2^32 over the clock, to the 12 bits that the register keeps.
        let rate = (u64::from(BAUD) << 32) / u64::from(UART_HZ) + 0x800;
        write(BAUDRATE, rate as u32 & !0xfff);
        write(ENABLE, 4);
        write(START_RX, 1);
        write(START_TX, 1);
        write(INTENSET, 1 << 2);
    }

    pub fn ready() -> bool {
        read(RX_READY) != 0
    }

    pub fn take() -> u8 {
        // Before the byte is read, which makes the event anew when more are waiting.
        write(RX_READY, 0);
        read(RXD) as u8
    }

    pub fn send(byte: u8) {
        write(TX_READY, 0);
        write(TXD, u32::from(byte));
        while read(TX_READY) == 0 {}
    }
}

/// ST's USART of the STM32F4 (reference manual RM0090, chapter 30). In QEMU it has its clock and its pins; on a chip both
/// must be switched on before.
#[cfg(uart = "stm32")]
mod port {
    use super::{BAUD, UART_HZ, read, write};

    const STATUS: usize = 0x00;
    const DATA: usize = 0x04;
    const BAUDRATE: usize = 0x08;
    const CONTROL: usize = 0x0c;

    const RX_NOT_EMPTY: u32 = 1 << 5;
    const TX_EMPTY: u32 = 1 << 7;
    /// Port, transmitter, receiver, and the receiver's interrupt.
    const ENABLE: u32 = 1 << 13 | 1 << 3 | 1 << 2 | 1 << 5;

    pub fn start() {
        write(BAUDRATE, UART_HZ / BAUD);
        write(CONTROL, ENABLE);
    }

    pub fn ready() -> bool {
        read(STATUS) & RX_NOT_EMPTY != 0
    }

    pub fn take() -> u8 {
        read(DATA) as u8
    }

    pub fn send(byte: u8) {
        while read(STATUS) & TX_EMPTY == 0 {}
        write(DATA, u32::from(byte));
    }
}

/// NS16550A with byte-wide registers.
#[cfg(uart = "ns16550")]
mod port {
    use super::{BAUD, UART_HZ, register};

    const DATA: usize = 0;
    const INTERRUPTS: usize = 1;
    const FIFO: usize = 2;
    const LINE: usize = 3;
    const STATUS: usize = 5;

    fn read(offset: usize) -> u8 {
        // SAFETY: the offsets are registers of the port, whose address is the board's.
        unsafe { register(0).cast::<u8>().add(offset).read_volatile() }
    }

    fn write(offset: usize, value: u8) {
        // SAFETY: as in `read`; this module is the only user of the port.
        unsafe { register(0).cast::<u8>().add(offset).write_volatile(value) }
    }

    pub fn start() {
        let [low, high, ..] = (UART_HZ / (16 * BAUD)).to_le_bytes();
        // The divisor's registers stand in place of the first two while the line register's top bit is set.
        write(LINE, 0x83);
        write(DATA, low);
        write(INTERRUPTS, high);
        write(LINE, 0x03);
        // FIFOs on and cleared, an interrupt at the first byte.
        write(FIFO, 0x07);
        write(INTERRUPTS, 1);
    }

    pub fn ready() -> bool {
        read(STATUS) & 1 != 0
    }

    pub fn take() -> u8 {
        read(DATA)
    }

    pub fn send(byte: u8) {
        while read(STATUS) & 0x20 == 0 {}
        write(DATA, byte);
    }
}

#[cfg(target_arch = "arm")]
mod wake {
    use super::UART_INTERRUPT;
    use cortex_m::peripheral::NVIC;

    #[derive(Clone, Copy)]
    struct Line;

    // SAFETY: the number is the port's by the board's file.
    unsafe impl cortex_m::interrupt::InterruptNumber for Line {
        fn number(self) -> u16 {
            UART_INTERRUPT
        }
    }

    /// The port's interrupt is switched on during `rest` and, since interrupts are masked throughout, never taken.
    pub fn listen(rest: impl FnOnce()) {
        cortex_m::interrupt::free(|_| {
            // SAFETY: the interrupt is off again before the mask is lifted.
            unsafe { NVIC::unmask(Line) };
            rest();
            NVIC::mask(Line);
            NVIC::unpend(Line);
        });
    }
}

#[cfg(target_arch = "riscv32")]
mod wake {
    use super::UART_INTERRUPT;
    use riscv::register::mie;

    /// The platform-level interrupt controller of the `virt` machine, its part for the first core's machine mode.
    const PRIORITY: *mut u32 = 0x0c00_0000 as *mut u32;
    const ENABLE: *mut u32 = 0x0c00_2000 as *mut u32;
    const THRESHOLD: *mut u32 = 0x0c20_0000 as *mut u32;
    const CLAIM: *mut u32 = 0x0c20_0004 as *mut u32;

    /// External interrupts are switched on during `rest` and, since interrupts are masked throughout, never taken.
    pub fn listen(rest: impl FnOnce()) {
        riscv::interrupt::free(|| {
            let line = usize::from(UART_INTERRUPT);
            // SAFETY: registers of the controller; the interrupt is off again before the mask is lifted.
            unsafe {
                PRIORITY.add(line).write_volatile(1);
                ENABLE.add(line / 32).write_volatile(1 << (line % 32));
                THRESHOLD.write_volatile(0);
                mie::set_mext();
            }
            rest();
            // SAFETY: as above. What was claimed is completed at once: the port is read until it is empty before the next rest.
            unsafe {
                mie::clear_mext();
                let claimed = CLAIM.read_volatile();
                CLAIM.write_volatile(claimed);
            }
        });
    }
}
