//! The int8 kernels in Arm's assembly: `SMLAD` of the DSP extension, or `VMLADAVA` of Helium.
//!
//! Both go through the rows by fours, with the sums of four rows in registers while the columns stream by. `unsafe` is the two
//! calls alone, whose functions read and write what the slices cover. Instructions of four rows by `8 n` columns: `39 n + 14` by
//! `SMLAD`, which is 1.22 a multiply-accumulate, and `10 n + 10` by Helium, 0.31; a ReLU takes 12 and 7 more.

use super::{COLUMNS, Group, ROWS, Tile};
use zerocopy::{transmute, transmute_ref};

unsafe extern "C" {
    /// `sums = start + W x` for `4 n` rows, whose sums lie from `sums` to `sums_end` (`n` of them, at least one). The groups of
    /// activations lie from `x` to `x_end`, at least one; from `x_full` on, which is `x_end` or one group before, only half a
    /// group counts.
    fn flowlet_int8_dense(
        w: *const Tile,
        x: *const Group,
        x_full: *const Group,
        x_end: *const Group,
        start: *const [i32; ROWS],
        sums: *mut [i32; ROWS],
        sums_end: *mut [i32; ROWS],
    );

    /// The same with a ReLU: four activations for four sums, from `y` to `y_end`, and as many multipliers as sums.
    fn flowlet_int8_dense_relu(
        w: *const Tile,
        x: *const Group,
        x_full: *const Group,
        x_end: *const Group,
        start: *const [i32; ROWS],
        multipliers: *const [i32; ROWS],
        y: *mut [u32; 2],
        y_end: *mut [u32; 2],
    );
}

/// The groups whose eight columns all count: a last group of at most four columns is done by halves.
#[inline]
fn full(x: &[Group], columns: usize) -> Option<&[Group]> {
    x.get(..columns.saturating_add(COLUMNS / 2 - 1) / COLUMNS).filter(|full| full.len() + 1 >= x.len())
}

/// See [`super::dense`]; `x` has the groups of the columns, `start` and `sums` are the rows by fours.
#[inline]
pub(crate) fn dense(w: &[Tile], x: &[Group], columns: usize, start: Option<&[[i32; ROWS]]>, sums: &mut [[i32; ROWS]]) {
    let rows = w.len().checked_div(x.len()).unwrap_or(0).min(start.map_or(usize::MAX, |start| start.len()));
    let rows = rows.min(sums.len());
    let (Some(sums), Some(full)) = (sums.get_mut(..rows), full(x, columns)) else { return };
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

/// See [`super::dense_relu`]; `start`, `multipliers` and `y` are the rows by fours.
#[inline]
pub(crate) fn dense_relu(
    w: &[Tile],
    x: &[Group],
    columns: usize,
    start: &[[i32; ROWS]],
    multipliers: &[[i32; ROWS]],
    y: &mut [[u32; 2]],
) {
    let rows = w.len().checked_div(x.len()).unwrap_or(0).min(start.len()).min(multipliers.len()).min(y.len());
    let (Some(y), Some(full)) = (y.get_mut(..rows), full(x, columns)) else { return };
    if y.is_empty() {
        return;
    }
    let (full, x, y) = (full.as_ptr_range().end, x.as_ptr_range(), y.as_mut_ptr_range());
    let (w, start, multipliers) = (w.as_ptr(), start.as_ptr(), multipliers.as_ptr());
    // SAFETY: as above; `multipliers` has four numbers a row, too, and `y` has two words.
    unsafe { flowlet_int8_dense_relu(w, x.start, full, x.end, start, multipliers, y.start, y.end) }
}

// On Armv8-M the assembler must be told of the DSP extension, in the same piece: pieces may be assembled apart.
#[cfg(all(flowlet_dsp, flowlet_armv8m))]
macro_rules! processor {
    () => {
        ".cpu cortex-m33"
    };
}
#[cfg(all(flowlet_dsp, not(flowlet_armv8m)))]
macro_rules! processor {
    () => {
        ""
    };
}

#[cfg(flowlet_dsp)]
core::arch::global_asm!(
    processor!(),
    // SXTB16 widens bytes 0 and 2 of a word, or with a rotation 1 and 3, and SMLAD multiplies both with a pair of activations:
    // a group of activations lies in memory as 0 2 1 3 4 6 5 7.
    ".syntax unified",
    // Four rows: r4 to r7 from `start`. At sp there are x and its end, behind the saved registers, at 44, `start`; in r0 the
    // tiles, in r2 the end of the full groups.
    ".macro flowlet_int8_rows",
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
    ".endm",
    //
    ".pushsection .text.flowlet_int8_dense, \"ax\", %progbits",
    ".global flowlet_int8_dense",
    ".type flowlet_int8_dense, %function",
    ".thumb_func",
    "flowlet_int8_dense:",
    "push {{r4-r11, lr}}",
    "push {{r1, r3}}",
    // At sp + 48: sums and their end.
    "2:",
    "flowlet_int8_rows",
    "ldrd r3, r12, [sp, #48]",
    "stm r3!, {{r4-r7}}",
    "cmp r3, r12",
    "str r3, [sp, #48]",
    "bne 2b",
    "add sp, #8",
    "pop {{r4-r11, pc}}",
    ".size flowlet_int8_dense, . - flowlet_int8_dense",
    ".popsection",
    //
    ".pushsection .text.flowlet_int8_dense_relu, \"ax\", %progbits",
    ".global flowlet_int8_dense_relu",
    ".type flowlet_int8_dense_relu, %function",
    ".thumb_func",
    "flowlet_int8_dense_relu:",
    "push {{r4-r11, lr}}",
    "push {{r1, r3}}",
    // At sp + 48: multipliers, y and its end.
    "2:",
    "flowlet_int8_rows",
    "ldrd r3, r12, [sp, #48]",
    "ldm r3!, {{r8-r11}}",
    "smmulr r4, r4, r8",
    "smmulr r5, r5, r9",
    "smmulr r6, r6, r10",
    "smmulr r7, r7, r11",
    "usat r4, #13, r4",
    "usat r5, #13, r5",
    "usat r6, #13, r6",
    "usat r7, #13, r7",
    "pkhbt r4, r4, r6, lsl #16",
    "pkhbt r5, r5, r7, lsl #16",
    "strd r4, r5, [r12], #8",
    "strd r3, r12, [sp, #48]",
    "ldr r3, [sp, #56]",
    "cmp r12, r3",
    "bne 2b",
    "add sp, #8",
    "pop {{r4-r11, pc}}",
    ".size flowlet_int8_dense_relu, . - flowlet_int8_dense_relu",
    ".popsection",
);

#[cfg(flowlet_mve)]
core::arch::global_asm!(
    // VLDRB.S16 widens eight weights of a row, VMLADAVA.S16 adds their products with a group of activations to a sum, which
    // has to be an even register.
    ".syntax unified",
    ".cpu cortex-m55",
    // Four rows: r4, r6, r8 and r10 from r5; in r0 the tiles, in r1 x, in r2 the number of groups.
    ".macro flowlet_int8_rows",
    "ldrd r4, r6, [r5], #8",
    "ldrd r8, r10, [r5], #8",
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
    ".endm",
    //
    ".pushsection .text.flowlet_int8_dense, \"ax\", %progbits",
    ".global flowlet_int8_dense",
    ".type flowlet_int8_dense, %function",
    ".thumb_func",
    "flowlet_int8_dense:",
    "push {{r4-r11, lr}}",
    "subs r2, r3, r1",
    "lsrs r2, r2, #4",
    "ldrd r5, r3, [sp, #36]",
    "ldr r11, [sp, #44]",
    "2:",
    "flowlet_int8_rows",
    "strd r4, r6, [r3], #8",
    "strd r8, r10, [r3], #8",
    "cmp r3, r11",
    "bne 2b",
    "pop {{r4-r11, pc}}",
    ".size flowlet_int8_dense, . - flowlet_int8_dense",
    ".popsection",
    //
    ".pushsection .text.flowlet_int8_dense_relu, \"ax\", %progbits",
    ".global flowlet_int8_dense_relu",
    ".type flowlet_int8_dense_relu, %function",
    ".thumb_func",
    "flowlet_int8_dense_relu:",
    "push {{r4-r11, lr}}",
    "subs r2, r3, r1",
    "lsrs r2, r2, #4",
    "ldrd r5, r7, [sp, #36]",
    "ldrd r3, r11, [sp, #44]",
    "2:",
    "flowlet_int8_rows",
    "vmov q0[2], q0[0], r4, r8",
    "vmov q0[3], q0[1], r6, r10",
    "vldrw.u32 q1, [r7], #16",
    "vrmulh.s32 q0, q0, q1",
    // Saturates at 2^13 - 1 and at zero.
    "vqshlu.s32 q0, q0, #19",
    "vshr.u32 q0, q0, #19",
    "vstrh.32 q0, [r3], #8",
    "cmp r3, r11",
    "bne 2b",
    "pop {{r4-r11, pc}}",
    ".size flowlet_int8_dense_relu, . - flowlet_int8_dense_relu",
    ".popsection",
);

/// Where activation `j` stands among the numbers of the groups: neighbours are multiplied in one instruction with the weights
/// that it widens together.
#[cfg(flowlet_dsp)]
#[inline(always)]
pub(crate) const fn place(j: usize) -> usize {
    j & !3 | (j & 1) << 1 | (j & 2) >> 1
}

/// Where activation `j` stands among the numbers of the groups.
#[cfg(flowlet_mve)]
#[inline(always)]
pub(crate) const fn place(j: usize) -> usize {
    j
}

/// A group of eight activations.
#[inline(always)]
pub(crate) fn pack(values: [i16; 8]) -> Group {
    // The order is its own inverse.
    transmute!(core::array::from_fn::<i16, 8, _>(|j| values[place(j)]))
}

/// The activations of a group.
#[inline(always)]
pub(crate) fn unpack(group: Group) -> [i16; 8] {
    let values: &[i16; 8] = transmute_ref!(&group);
    core::array::from_fn(|j| values[place(j)])
}
