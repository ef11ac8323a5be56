//! The high-water mark of the stack, by painting.
//!
//! [`paint`] fills the RAM between the static data and the stack pointer with a pattern; [`used`] finds how far down it
//! was overwritten. Exact to a word, but for a program that happens to write the pattern itself. The cost is two passes
//! over the free RAM, outside of any measured span. No floating point, no panics.

use core::ptr::{addr_of, addr_of_mut};
use core::sync::atomic::{AtomicU32, Ordering};

/// Bytes that were in use before the stack was painted again.
static BEFORE: AtomicU32 = AtomicU32::new(0);

const PATTERN: u32 = 0xa5c3_5a3c;

/// Left alone below the stack pointer: the frame of [`paint`] itself and of what it calls.
const MARGIN: usize = 256;

unsafe extern "C" {
    /// First word after the static data, from the linker script.
    static mut __sheap: u32;
    /// First word above the stack.
    static mut _stack_start: u32;
}

/// Fills the unused stack with the pattern.
#[inline(never)]
pub fn paint() {
    let marker = 0u32;
    let end = (addr_of!(marker) as usize - MARGIN) as *mut u32;
    let mut word = addr_of_mut!(__sheap);
    while word < end {
        // SAFETY: between the static data and the live part of the stack nothing is stored.
        unsafe { word.write_volatile(PATTERN) };
        word = word.wrapping_add(1);
    }
}

/// Bytes of stack in use at the call.
#[inline(never)]
pub fn depth() -> u32 {
    let marker = 0u32;
    (addr_of_mut!(_stack_start) as usize - addr_of!(marker) as usize) as u32
}

/// Does `work`; its result, and the bytes of stack that it used below this call.
///
/// Paints the stack again. What needs less than the margin of 256 bytes shows as that.
#[inline(never)]
pub fn of<R>(work: impl FnOnce() -> R) -> (R, u32) {
    BEFORE.store(used().unwrap_or(u32::MAX), Ordering::Relaxed);
    paint();
    let here = depth();
    let result = work();
    (result, lowest().unwrap_or(u32::MAX).saturating_sub(here))
}

/// Bytes of stack used since the start of the program, `None` when it reached the static data.
pub fn used() -> Option<u32> {
    let before = BEFORE.load(Ordering::Relaxed);
    lowest().filter(|_| before != u32::MAX).map(|now| now.max(before))
}

/// Bytes of stack used since it was painted, `None` when it reached the static data.
fn lowest() -> Option<u32> {
    let bottom = addr_of_mut!(__sheap);
    let top = addr_of_mut!(_stack_start);
    let mut word = bottom;
    // SAFETY: plain reads of RAM below the top of the stack.
    while word < top && unsafe { word.read_volatile() } == PATTERN {
        word = word.wrapping_add(1);
    }
    (word != bottom).then_some((top as usize - word as usize) as u32)
}

/// Whether the stack has reached the static data; one read.
pub fn overrun() -> bool {
    // SAFETY: a plain read of RAM.
    unsafe { addr_of_mut!(__sheap).read_volatile() != PATTERN }
}
