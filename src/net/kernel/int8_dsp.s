@ The int8 kernels for cores with the DSP extension (Armv7E-M, and Armv8-M with it): see int8_arm.rs for what they are given.
@
@ SXTB16 widens bytes 0 and 2 of a word, or with a rotation 1 and 3, and SMLAD multiplies both with a pair of activations: a
@ group of activations lies in memory as 0 2 1 3 4 6 5 7. The sums of four rows stay in registers while the columns go by, four
@ groups a turn; where their number is no multiple of four, the first turn begins further down. What follows the turns, and what
@ follows a last half of a group, is the same for all rows: its address is loaded. So four rows by 8 n columns take 36 n and 3 a
@ turn, and 11 more for sums or 23 for a ReLU.
@
@   r0 tiles    r1 activations    r2 scratch    r3, r8, r9 weights    r4-r7 sums    r10-r12, lr a group of activations
@
@ On the stack: activations, where the first turn begins, the end of the full groups, what follows the turns, what follows half
@ a group; nine saved registers; at 56, `start`, at 60 the other arguments.

    .syntax unified

@ sum += four weights * four activations.
    .macro fl_int8_four sum, w, first, second
    sxtb16 r2, \w
    smlad \sum, r2, \first, \sum
    sxtb16 r2, \w, ror #8
    smlad \sum, r2, \second, \sum
    .endm

@ A tile: 36 instructions of four bytes.
    .macro fl_int8_tile
    ldm r1!, {r10, r11, r12, lr}
    ldm r0!, {r3, r8, r9}
    fl_int8_four r4, r3, r10, r11
    fl_int8_four r4, r8, r12, lr
    fl_int8_four r5, r9, r10, r11
    ldm r0!, {r3, r8, r9}
    fl_int8_four r5, r3, r12, lr
    fl_int8_four r6, r8, r10, r11
    fl_int8_four r6, r9, r12, lr
    ldrd r3, r8, [r0], #8
    fl_int8_four r7, r3, r10, r11
    fl_int8_four r7, r8, r12, lr
    .endm

@ The first half of each row of a tile.
    .macro fl_int8_half sum
    ldr r3, [r0], #8
    fl_int8_four \sum, r3, r10, r11
    .endm

@ A function whose sums go to what the macro `finish` does with them; it has to end with the flags of whether it was the last.
    .macro fl_int8_function name, finish
    .pushsection .text.\name, "ax", %progbits
    .global \name
    .type \name, %function
    .thumb_func
\name:
    push {r4-r11, lr}
    @ r4 where the turns begin, r5 what follows them, r6 what follows half a group.
    adr.w r4, 3f
    adr.w r5, 4f
    adr.w r6, 5f
    orr r4, r4, #1
    orr r5, r5, #1
    orr r6, r6, #1
    cmp r2, r3
    it eq
    moveq r5, r6
    subs r3, r2, r1
    itt eq
    moveq r4, r5
    beq 1f
    @ -n modulo 4 tiles are left out of the first turn, 144 bytes each.
    rsb r3, r3, #0
    ubfx r3, r3, #4, #2
    mov r7, #144
    mla r4, r3, r7, r4
1:
    sub sp, #20
    strd r1, r4, [sp]
    strd r2, r5, [sp, #8]
    str r6, [sp, #16]
2:
    ldr r3, [sp, #56]
    ldr r1, [sp]
    ldm r3!, {r4-r7}
    str r3, [sp, #56]
    ldr pc, [sp, #4]
    .balign 4
3:
    fl_int8_tile
    fl_int8_tile
    fl_int8_tile
    fl_int8_tile
    ldr r2, [sp, #8]
    cmp r1, r2
    bne.w 3b
    ldr pc, [sp, #12]
    .balign 4
4:
    ldrd r10, r11, [r1]
    fl_int8_half r4
    fl_int8_half r5
    fl_int8_half r6
    fl_int8_half r7
    .balign 4
5:
    \finish
    bne.w 2b
    add sp, #20
    pop {r4-r11, pc}
    .size \name, . - \name
    .popsection
    .endm

@ At 60, sums and their end.
    .macro fl_int8_sums
    ldrd r3, r12, [sp, #60]
    stm r3!, {r4-r7}
    cmp r3, r12
    str r3, [sp, #60]
    .endm

@ At 60, multipliers, y and its end.
    .macro fl_int8_relu
    ldrd r3, r12, [sp, #60]
    ldm r3!, {r8-r11}
    smmulr r4, r4, r8
    smmulr r5, r5, r9
    smmulr r6, r6, r10
    smmulr r7, r7, r11
    usat r4, #13, r4
    usat r5, #13, r5
    usat r6, #13, r6
    usat r7, #13, r7
    pkhbt r4, r4, r6, lsl #16
    pkhbt r5, r5, r7, lsl #16
    strd r4, r5, [r12], #8
    strd r3, r12, [sp, #60]
    ldr r3, [sp, #68]
    cmp r12, r3
    .endm

    fl_int8_function flowlet_int8_dense, fl_int8_sums
    fl_int8_function flowlet_int8_dense_relu, fl_int8_relu
