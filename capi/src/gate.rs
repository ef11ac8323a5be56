//! A safety gate of one action channel in lent memory.

use crate::error::code;
use crate::flowlet_error;
use crate::flowlet_error::*;
use crate::lent::{area, write};
use core::ffi::c_void;
use core::mem::size_of;
use flowlet::control::{Gate, Limits};

/// What a channel's command may do, in the plant's units.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct flowlet_limits {
    /// Lowest command.
    pub low: f32,
    /// Highest command, above the lowest.
    pub high: f32,
    /// Largest change of the command in a second; infinite where it is not limited.
    pub rate: f32,
    /// Largest change of the rate in a second; infinite where it is not limited.
    pub jerk: f32,
    /// Command that is approached, within rate and jerk, while the wish is NaN or infinite.
    pub fallback: f32,
    /// Command at the start, and at once by `flowlet_gate_stop`.
    pub stop: f32,
}

/// The gate of one action channel in memory that the caller lent.
pub struct flowlet_gate {
    tag: usize,
    gate: Gate<1>,
}

const TAG: usize = 0x6761_7465;

/// Bytes that `flowlet_gate_open` needs.
#[unsafe(no_mangle)]
pub extern "C" fn flowlet_gate_size() -> usize {
    size_of::<flowlet_gate>()
}

/// Checks limits, makes their gate in `memory` and writes the handle to `gate`. Its command begins at the stop.
///
/// `period_us` is the time from one call of `flowlet_gate_apply` to the next. `memory`, aligned to 8 bytes, must stay where
/// it is as long as the gate is used.
///
/// # Safety
/// `limits` points to limits, `memory` to `memory_length` bytes that nobody else uses, `gate` to a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_gate_open(
    limits: *const flowlet_limits,
    period_us: u32,
    memory: *mut c_void,
    memory_length: usize,
    gate: *mut *mut flowlet_gate,
) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { open(limits, period_us, memory, memory_length, gate) })
}

/// # Safety
/// As of [`flowlet_gate_open`].
unsafe fn open(
    limits: *const flowlet_limits,
    period_us: u32,
    memory: *mut c_void,
    memory_length: usize,
    handle: *mut *mut flowlet_gate,
) -> Result<(), flowlet_error> {
    area(memory.cast::<u64>(), 0)?;
    area(memory.cast::<u8>(), memory_length)?;
    area(handle, 1)?;
    area(limits, 1)?;
    if memory_length < flowlet_gate_size() {
        return Err(FLOWLET_MEMORY);
    }
    // SAFETY: not NULL and aligned; the caller's promise.
    let flowlet_limits { low, high, rate, jerk, fallback, stop } = unsafe { limits.read() };
    let limits = Limits { low, high, rate, jerk, fallback, stop };
    let opened = Gate::new(&[limits], period_us).map_err(|_| FLOWLET_LIMITS)?;
    let place = memory.cast::<flowlet_gate>();
    // SAFETY: aligned to 8 bytes and long enough, both checked.
    unsafe {
        place.write(flowlet_gate { tag: TAG ^ place.addr(), gate: opened });
        write(handle, place)
    }
}

/// # Safety
/// Where it is not NULL, `gate` points to memory that [`flowlet_gate_open`] opened and nobody else uses now.
unsafe fn opened<'g>(gate: *mut flowlet_gate) -> Result<&'g mut flowlet_gate, flowlet_error> {
    area(gate, 1)?;
    // SAFETY: aligned, and the tag is plain data; the caller's promise.
    if unsafe { (&raw const (*gate).tag).read() } != TAG ^ gate.addr() {
        return Err(FLOWLET_NOT_OPEN);
    }
    // SAFETY: opened; the caller's promise.
    Ok(unsafe { &mut *gate })
}

/// Writes the next command towards `wish` to `command`: finite and within the limits, whatever `wish` is.
///
/// A wish that is NaN or infinite, what a failed decision should be passed on as, approaches the fallback.
///
/// # Safety
/// `gate` is NULL or an opened gate, `command` NULL or a `float`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_gate_apply(gate: *mut flowlet_gate, wish: f32, command: *mut f32) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { opened(gate) }.and_then(|opened| {
        area(command, 1)?;
        let [next] = opened.gate.apply(&[wish]);
        // SAFETY: the caller's promise.
        unsafe { write(command, next) }
    }))
}

/// Writes the stop to `command`, at once, past rate and jerk: for an emergency stop.
///
/// # Safety
/// `gate` is NULL or an opened gate, `command` NULL or a `float`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn flowlet_gate_stop(gate: *mut flowlet_gate, command: *mut f32) -> flowlet_error {
    // SAFETY: the caller's promise.
    code(unsafe { opened(gate) }.and_then(|opened| {
        area(command, 1)?;
        let [stop] = opened.gate.stop();
        // SAFETY: the caller's promise.
        unsafe { write(command, stop) }
    }))
}
