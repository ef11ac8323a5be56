//! The int8 kernel in Arm's assembly: `SMLAD` of the DSP extension, or `VMLADAVA` of Helium.
//!
//! Both are one function that goes through the rows by fours, with the sums of four rows in registers while the columns stream
//! by. `unsafe` is the call of that function alone, which reads and writes what the slices cover. Instructions of four rows by
//! `8 n` columns: `39 n + 16` by `SMLAD`, which is 1.22 a multiply-accumulate; `10 n + 17` by Helium, 0.31.

use super::{COLUMNS, Group, ROWS, Tile};
use zerocopy::{transmute, transmute_ref};

unsafe extern "C" {
    /// `sums = start + W x` for `4 n` rows, whose sums lie from `sums` to `sums_end` (`n` of them, at least one). The groups of
    /// activations lie from `x` to `x_end`; from `x_full` on, which is `x_end` or one group before, only half a group counts.
    fn flowlet_int8_dense(
        w: *const Tile,
        x: *const Group,
        x_full: *const Group,
        x_end: *const Group,
        start: *const [i32; ROWS],
        sums: *mut [i32; ROWS],
        sums_end: *mut [i32; ROWS],
    );
}

/// See [`super::dense`]; `x` has the groups of the columns, `start` and `sums` are the rows by fours.
#[inline]
pub(crate) fn dense(w: &[Tile], x: &[Group], columns: usize, start: Option<&[[i32; ROWS]]>, sums: &mut [[i32; ROWS]]) {
    let rows = w.len().checked_div(x.len()).unwrap_or(0).min(start.map_or(usize::MAX, |start| start.len()));
    let rows = rows.min(sums.len());
    let Some(sums) = sums.get_mut(..rows) else { return };
    let Some(full) = x.get(..(columns + COLUMNS / 2 - 1) / COLUMNS) else { return };
    if sums.is_empty() {
        return;
    }
    let (full, x, sums) = (full.as_ptr_range().end, x.as_ptr_range(), sums.as_mut_ptr_range());
    let start = start.map_or(sums.start.cast_const(), |start| start.as_ptr());
    // SAFETY: with `g` groups in `x` the function reads `g * rows` tiles, which `w` has, all of `x`, and four numbers a row from
    // `start`, and writes as many sums; `start` has so many or is where the sums are. None of them is empty: `rows` is not zero,
    // and so `x` is not. Every element is aligned to four bytes, as the loads and stores of several words need.
    unsafe { flowlet_int8_dense(w.as_ptr(), x.start, full, x.end, start, sums.start, sums.end) }
}

#[cfg(flowlet_dsp)]
core::arch::global_asm!(
    // SXTB16 widens bytes 0 and 2 of a word, or with a rotation 1 and 3, and SMLAD multiplies both with a pair of activations:
    // a group of activations lies in memory as 0 2 1 3 4 6 5 7.
    ".syntax unified",
    ".pushsection .text.flowlet_int8_dense, \"ax\", %progbits",
    ".global flowlet_int8_dense",
    ".type flowlet_int8_dense, %function",
    ".thumb_func",
    "flowlet_int8_dense:",
    "push {{r4-r11, lr}}",
    "push {{r1, r3}}",
    // At sp: x, its end; and behind the saved registers, at 44: start, sums, their end.
    "2:",
    "ldr r3, [sp, #44]",
    "ldr r1, [sp]",
    "ldm r3!, {{r4-r7}}",
    "cmp r1, r2",
    "str r3, [sp, #44]",
    "beq 4f",
    "3:",
    "ldm r1!, {{r10, r11, r12, lr}}",
    "ldrd r8, r9, [r0], #8",
    "sxtb16 r3, r8",
    "smlad r4, r3, r10, r4",
    "sxtb16 r3, r8, ror #8",
    "smlad r4, r3, r11, r4",
    "sxtb16 r3, r9",
    "smlad r4, r3, r12, r4",
    "sxtb16 r3, r9, ror #8",
    "smlad r4, r3, lr, r4",
    "ldrd r8, r9, [r0], #8",
    "sxtb16 r3, r8",
    "smlad r5, r3, r10, r5",
    "sxtb16 r3, r8, ror #8",
    "smlad r5, r3, r11, r5",
    "sxtb16 r3, r9",
    "smlad r5, r3, r12, r5",
    "sxtb16 r3, r9, ror #8",
    "smlad r5, r3, lr, r5",
    "ldrd r8, r9, [r0], #8",
    "sxtb16 r3, r8",
    "smlad r6, r3, r10, r6",
    "sxtb16 r3, r8, ror #8",
    "smlad r6, r3, r11, r6",
    "sxtb16 r3, r9",
    "smlad r6, r3, r12, r6",
    "sxtb16 r3, r9, ror #8",
    "smlad r6, r3, lr, r6",
    "ldrd r8, r9, [r0], #8",
    "sxtb16 r3, r8",
    "smlad r7, r3, r10, r7",
    "sxtb16 r3, r8, ror #8",
    "smlad r7, r3, r11, r7",
    "sxtb16 r3, r9",
    "smlad r7, r3, r12, r7",
    "sxtb16 r3, r9, ror #8",
    "smlad r7, r3, lr, r7",
    "cmp r1, r2",
    "bne 3b",
    "4:",
    "ldr r3, [sp, #4]",
    "cmp r1, r3",
    "beq 5f",
    "ldrd r10, r11, [r1]",
    "ldr r8, [r0], #8",
    "sxtb16 r3, r8",
    "smlad r4, r3, r10, r4",
    "sxtb16 r3, r8, ror #8",
    "smlad r4, r3, r11, r4",
    "ldr r8, [r0], #8",
    "sxtb16 r3, r8",
    "smlad r5, r3, r10, r5",
    "sxtb16 r3, r8, ror #8",
    "smlad r5, r3, r11, r5",
    "ldr r8, [r0], #8",
    "sxtb16 r3, r8",
    "smlad r6, r3, r10, r6",
    "sxtb16 r3, r8, ror #8",
    "smlad r6, r3, r11, r6",
    "ldr r8, [r0], #8",
    "sxtb16 r3, r8",
    "smlad r7, r3, r10, r7",
    "sxtb16 r3, r8, ror #8",
    "smlad r7, r3, r11, r7",
    "5:",
    "ldrd r3, r12, [sp, #48]",
    "stm r3!, {{r4-r7}}",
    "cmp r3, r12",
    "str r3, [sp, #48]",
    "bne 2b",
    "add sp, #8",
    "pop {{r4-r11, pc}}",
    ".size flowlet_int8_dense, . - flowlet_int8_dense",
    ".popsection",
);

#[cfg(flowlet_mve)]
core::arch::global_asm!(
    // VLDRB.S16 widens eight weights of a row, VMLADAVA.S16 adds their products with a group of activations to a sum, which
    // has to be an even register.
    ".syntax unified",
    ".cpu cortex-m55",
    ".pushsection .text.flowlet_int8_dense, \"ax\", %progbits",
    ".global flowlet_int8_dense",
    ".type flowlet_int8_dense, %function",
    ".thumb_func",
    "flowlet_int8_dense:",
    "push {{r4-r11, lr}}",
    "sub r2, r3, r1",
    "lsrs r2, #4",
    "ldrd r5, r3, [sp, #36]",
    "ldr r11, [sp, #44]",
    "2:",
    "ldr r4, [r5], #4",
    "ldr r6, [r5], #4",
    "ldr r8, [r5], #4",
    "ldr r10, [r5], #4",
    "mov r12, r1",
    "dls lr, r2",
    "3:",
    "vldrh.u16 q0, [r12], #16",
    "vldrb.s16 q1, [r0], #8",
    "vmladava.s16 r4, q0, q1",
    "vldrb.s16 q2, [r0], #8",
    "vmladava.s16 r6, q0, q2",
    "vldrb.s16 q1, [r0], #8",
    "vmladava.s16 r8, q0, q1",
    "vldrb.s16 q2, [r0], #8",
    "vmladava.s16 r10, q0, q2",
    "le lr, 3b",
    "str r4, [r3], #4",
    "str r6, [r3], #4",
    "str r8, [r3], #4",
    "str r10, [r3], #4",
    "cmp r3, r11",
    "bne 2b",
    "pop {{r4-r11, pc}}",
    ".size flowlet_int8_dense, . - flowlet_int8_dense",
    ".popsection",
);

/// The order of a group in memory: neighbours are multiplied in one instruction with the weights that it widens together.
#[cfg(flowlet_dsp)]
const ORDER: [usize; 8] = [0, 2, 1, 3, 4, 6, 5, 7];
#[cfg(flowlet_mve)]
const ORDER: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// A group of eight activations.
#[inline(always)]
pub(crate) fn pack(values: [i16; 8]) -> Group {
    transmute!(ORDER.map(|place| values[place]))
}

/// The activations of a group.
#[inline(always)]
pub(crate) fn unpack(group: Group) -> [i16; 8] {
    // The order is its own inverse.
    let values: &[i16; 8] = transmute_ref!(&group);
    ORDER.map(|place| values[place])
}
