//! The int8 kernel in Arm's assembly: `SMLAD` of the DSP extension, or `VMLADAVA` of Helium.
//!
//! Both are one function that goes through the rows by fours, with the sums of four rows in registers while the columns stream
//! by. `unsafe` is the call of that function alone, which reads and writes what the slices cover. Instructions of four rows by
//! `8 n` columns: `39 n + 10` by `SMLAD`, which is 1.22 a multiply-accumulate; `10 n + 16` by Helium, 0.31.

use super::{Group, ROWS, Tile};
use zerocopy::{transmute, transmute_ref};

unsafe extern "C" {
    /// Adds the products of `4 n` rows, whose sums lie from `sums` to `end` (`n` of them, at least one), with `groups` (at
    /// least one) of activations from `x` on.
    fn flowlet_int8_accumulate(
        w: *const Tile,
        x: *const Group,
        groups: usize,
        sums: *mut [i32; ROWS],
        end: *mut [i32; ROWS],
    );
}

/// See [`super::accumulate`]; `sums` are the rows by fours.
#[inline]
pub(crate) fn accumulate(w: &[Tile], x: &[Group], sums: &mut [[i32; ROWS]]) {
    let rows = w.len().checked_div(x.len()).unwrap_or(0).min(sums.len());
    let Some(sums) = sums.get_mut(..rows) else { return };
    if sums.is_empty() {
        return;
    }
    let range = sums.as_mut_ptr_range();
    // SAFETY: the function reads `x.len() * rows` tiles, which `w` has, and `x`, and reads and writes `rows` times four sums.
    // None of the three is empty. Every element is aligned to four bytes, as the loads and stores of several words need.
    unsafe { flowlet_int8_accumulate(w.as_ptr(), x.as_ptr(), x.len(), range.start, range.end) }
}

#[cfg(flowlet_dsp)]
core::arch::global_asm!(
    // SXTB16 widens bytes 0 and 2 of a word, or with a rotation 1 and 3, and SMLAD multiplies both with a pair of activations:
    // a group of activations lies in memory as 0 2 1 3 4 6 5 7.
    ".syntax unified",
    ".pushsection .text.flowlet_int8_accumulate, \"ax\", %progbits",
    ".global flowlet_int8_accumulate",
    ".type flowlet_int8_accumulate, %function",
    ".thumb_func",
    "flowlet_int8_accumulate:",
    "push {{r3-r11, lr}}",
    "add r2, r1, r2, lsl #4",
    "mov r3, r1",
    "push {{r3, r4}}",
    // Now at sp: x, a filler, sums; and the end of the sums at sp + 48.
    "2:",
    "ldr r3, [sp, #8]",
    "ldr r1, [sp]",
    "ldm r3, {{r4-r7}}",
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
    "ldr r3, [sp, #8]",
    "stm r3!, {{r4-r7}}",
    "ldr r12, [sp, #48]",
    "str r3, [sp, #8]",
    "cmp r3, r12",
    "bne 2b",
    "add sp, #8",
    "pop {{r3-r11, pc}}",
    ".size flowlet_int8_accumulate, . - flowlet_int8_accumulate",
    ".popsection",
);

#[cfg(flowlet_mve)]
core::arch::global_asm!(
    // VLDRB.S16 widens eight weights of a row, VMLADAVA.S16 adds their products with a group of activations to a sum, which
    // has to be an even register.
    ".syntax unified",
    ".pushsection .text.flowlet_int8_accumulate, \"ax\", %progbits",
    ".global flowlet_int8_accumulate",
    ".type flowlet_int8_accumulate, %function",
    ".thumb_func",
    "flowlet_int8_accumulate:",
    "push {{r4-r11, lr}}",
    "ldr r11, [sp, #36]",
    "2:",
    "ldr r4, [r3]",
    "ldr r6, [r3, #4]",
    "ldr r8, [r3, #8]",
    "ldr r10, [r3, #12]",
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
    "str r4, [r3]",
    "str r6, [r3, #4]",
    "str r8, [r3, #8]",
    "str r10, [r3, #12]",
    "adds r3, #16",
    "cmp r3, r11",
    "bne 2b",
    "pop {{r4-r11, pc}}",
    ".size flowlet_int8_accumulate, . - flowlet_int8_accumulate",
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
