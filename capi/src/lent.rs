//! Pointers from C made into references: the checks that every function does first.

use crate::flowlet_error;
use crate::flowlet_error::*;
use core::mem::{align_of, size_of};

/// First and last address of `count` items; an error where they are no area of memory.
pub(crate) fn area<T>(pointer: *const T, count: usize) -> Result<(usize, usize), flowlet_error> {
    if pointer.is_null() {
        return Err(FLOWLET_NULL);
    }
    if !pointer.addr().is_multiple_of(align_of::<T>()) {
        return Err(FLOWLET_MISALIGNED);
    }
    let bytes = count.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= isize::MAX as usize);
    let end = bytes.and_then(|bytes| pointer.addr().checked_add(bytes));
    end.map(|end| (pointer.addr(), end)).ok_or(FLOWLET_OVERLAP)
}

/// An error where two areas have a byte in common.
pub(crate) fn apart(a: (usize, usize), b: (usize, usize)) -> Result<(), flowlet_error> {
    if a.0 < b.1 && b.0 < a.1 { Err(FLOWLET_OVERLAP) } else { Ok(()) }
}

/// A slice of `count` items.
///
/// # Safety
/// Where it is not NULL, `pointer` points to `count` items that nobody writes while the slice lives.
pub(crate) unsafe fn slice<'s, T>(pointer: *const T, count: usize) -> Result<&'s [T], flowlet_error> {
    area(pointer, count)?;
    // SAFETY: not NULL, aligned and no longer than memory, all checked; the rest is the caller's promise.
    Ok(unsafe { core::slice::from_raw_parts(pointer, count) })
}

/// The same to be written.
///
/// # Safety
/// Where it is not NULL, `pointer` points to `count` items that nobody else uses while the slice lives.
pub(crate) unsafe fn slice_mut<'s, T>(pointer: *mut T, count: usize) -> Result<&'s mut [T], flowlet_error> {
    area(pointer, count)?;
    // SAFETY: as above.
    Ok(unsafe { core::slice::from_raw_parts_mut(pointer, count) })
}

/// Writes `value` to `pointer`.
///
/// # Safety
/// Where it is not NULL, `pointer` points to memory for a `T`.
pub(crate) unsafe fn write<T>(pointer: *mut T, value: T) -> Result<(), flowlet_error> {
    area(pointer, 1)?;
    // SAFETY: as above; what was there before is plain data.
    unsafe { pointer.write(value) };
    Ok(())
}
