//! `defmt` frames over semihosting.
//!
//! A semihosting call stops the core, so the bytes of a frame are gathered and written by one call when the frame ends
//! or the buffer is full. Must not be used in an interrupt handler that could interrupt a log call: the critical
//! section held during a frame makes that impossible, and a nested use panics. No allocation; 256 bytes of RAM.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};
use semihosting::io::{Stdout, Write};

#[defmt::global_logger]
struct Logger;

/// Everything a frame under way needs; touched only between `acquire` and `release`.
struct State {
    restore: critical_section::RestoreState,
    encoder: defmt::Encoder,
    output: Option<Stdout>,
    buffer: Buffer,
}

/// Bytes of the frame that QEMU has not been given yet.
struct Buffer {
    bytes: [u8; 256],
    length: usize,
}

struct Shared(UnsafeCell<State>);

// SAFETY: the state is only touched by the code that set TAKEN inside a critical section, on a single core.
unsafe impl Sync for Shared {}

static TAKEN: AtomicBool = AtomicBool::new(false);
static STATE: Shared = Shared(UnsafeCell::new(State {
    restore: critical_section::RestoreState::invalid(),
    encoder: defmt::Encoder::new(),
    output: None,
    buffer: Buffer { bytes: [0; 256], length: 0 },
}));

impl Buffer {
    fn push(&mut self, bytes: &[u8], output: &mut Option<Stdout>) {
        for &byte in bytes {
            if self.length == self.bytes.len() {
                self.flush(output);
            }
            self.bytes[self.length] = byte;
            self.length += 1;
        }
    }

    fn flush(&mut self, output: &mut Option<Stdout>) {
        if let Some(output) = output {
            // A log line that the host does not take is lost; there is nobody to tell.
            let _ = output.write_all(&self.bytes[..self.length]);
        }
        self.length = 0;
    }
}

// SAFETY: `acquire` enters a critical section and refuses to be nested; `release` leaves it.
unsafe impl defmt::Logger for Logger {
    fn acquire() {
        // SAFETY: paired with the release in `Logger::release`.
        let restore = unsafe { critical_section::acquire() };
        assert!(!TAKEN.load(Ordering::Relaxed), "a log call inside a log call");
        TAKEN.store(true, Ordering::Relaxed);
        // SAFETY: TAKEN was false and is ours now.
        let state = unsafe { &mut *STATE.0.get() };
        state.restore = restore;
        if state.output.is_none() {
            state.output = semihosting::io::stdout().ok();
        }
        let State { encoder, output, buffer, .. } = state;
        encoder.start_frame(|bytes| buffer.push(bytes, output));
    }

    unsafe fn flush() {}

    unsafe fn release() {
        // SAFETY: defmt calls this only after `acquire`.
        let State { restore, encoder, output, buffer } = unsafe { &mut *STATE.0.get() };
        encoder.end_frame(|bytes| buffer.push(bytes, output));
        buffer.flush(output);
        let restore = *restore;
        TAKEN.store(false, Ordering::Relaxed);
        // SAFETY: paired with the acquire in `Logger::acquire`.
        unsafe { critical_section::release(restore) };
    }

    unsafe fn write(bytes: &[u8]) {
        // SAFETY: defmt calls this only between `acquire` and `release`.
        let State { encoder, output, buffer, .. } = unsafe { &mut *STATE.0.get() };
        encoder.write(bytes, |bytes| buffer.push(bytes, output));
    }
}
