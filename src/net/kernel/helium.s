@ Dense layers on Helium, the vector extension of Armv8.1-M (Cortex-M55 and later).
@
@ A block of up to 24 rows keeps its sums in q0.., four rows a register. Helium multiplies and adds floats in one rounding
@ or in two instructions; it is two here, since the product is rounded on every target. A column is `3 n + 1` instructions
@ for n registers, four columns share the load of their inputs and eight one LE. Where the rows are no multiple of four, the
@ last loads and stores are predicated: nothing beyond the slices is touched.
@
@ Both functions take the address of a `Job` in r0 and use
@   r0 weights of the block    r1 inputs    r2 sums' start    r3 results    r4-r7 inputs or weights    r8, r9 cursors
@   r10 bytes from a column to the next     r11 rows left     r12 columns   lr turns left
@   sp what ReLU keeps, as bits, or 0

    .syntax unified
    .arch armv8.1-m.main
    .arch_extension mve.fp
    .arch_extension lob
    .altmacro

    .macro fl_weights reg, offset
    vldrw.u32 q\reg, [r8, #\offset]
    .endm

    .macro fl_some_weights reg, offset
    vpst
    vldrwt.u32 q\reg, [r8, #\offset]
    .endm

    .macro fl_product reg, x
    vmul.f32 q\reg, q\reg, \x
    .endm

    .macro fl_sum a, reg
    vadd.f32 q\a, q\a, q\reg
    .endm

@ One column of a block of n registers, the last of them in part if p; the products take turns in q6 and q7. A product's sum
@ follows two instructions after it.
    .macro fl_column n, p, x
    .set i, 0
    .rept \n + 2
    .if i > 0 && i <= \n
    fl_product %(6 + ((i - 1) & 1)), \x
    .endif
    .if i > 1
    fl_sum %(i - 2), %(6 + (i & 1))
    .endif
    .if i < \n
    .if \p && i == \n - 1
    fl_some_weights %(6 + (i & 1)), %(16 * i)
    .else
    fl_weights %(6 + (i & 1)), %(16 * i)
    .endif
    .endif
    .set i, i + 1
    .endr
    add r8, r8, r10
    .endm

    .macro fl_start reg
    vldrw.u32 q\reg, [r2], #16
    .endm

    .macro fl_start_some reg
    vpst
    vldrwt.u32 q\reg, [r2], #16
    .endm

    .macro fl_store reg
    vstrw.32 q\reg, [r3], #16
    .endm

    .macro fl_store_some reg
    vpst
    vstrwt.32 q\reg, [r3], #16
    .endm

@ What is not at least the limit, NaN among it, becomes zero.
    .macro fl_keep reg
    vcmp.f32 ge, q\reg, r4
    vpsel q\reg, q\reg, q7
    .endm

    .macro fl_relu n
    ldr r4, [sp]
    cbz r4, 5f
    vmov.i32 q7, #0
    .set i, 0
    .rept \n
    fl_keep %(i)
    .set i, i + 1
    .endr
5:
    .endm

@ Predicates for the rows that the last register has.
    .macro fl_predicate n
    sub r4, r11, #4 * (\n - 1)
    vctp.32 r4
    .endm

    .macro fl_block n, p
    .set i, 0
    .rept \n - \p
    fl_start %(i)
    .set i, i + 1
    .endr
    .if \p
    fl_predicate \n
    fl_start_some %(\n - 1)
    .endif
    mov r8, r0
    add r0, r0, #16 * \n
    mov r9, r1
    .if \p
    @ Rows that the block lacks are the next column's first. The last column has none and comes by itself.
    subs r5, r12, #1
    blo 4f
    lsr r4, r5, #3
    .else
    lsr r4, r12, #3
    .endif
    wls lr, r4, 2f
1:  .rept 2
    ldm r9!, {r4-r7}
    fl_column \n, 0, r4
    fl_column \n, 0, r5
    fl_column \n, 0, r6
    fl_column \n, 0, r7
    .endr
    le lr, 1b
2:  .if \p
    sub r4, r12, #1
    and r4, r4, #7
    .else
    and r4, r12, #7
    .endif
    wls lr, r4, 4f
3:  ldr r4, [r9], #4
    fl_column \n, 0, r4
    le lr, 3b
    .if \p
4:  cmp r12, #0
    beq 4f
    ldr r4, [r9]
    fl_column \n, 1, r4
    .endif
4:  fl_relu \n
    .set i, 0
    .rept \n - \p
    fl_store %(i)
    .set i, i + 1
    .endr
    .if \p
    fl_predicate \n
    fl_store_some %(\n - 1)
    .endif
    .endm

@ The block of n registers if so many rows are left.
    .macro fl_last n
    cmp r11, #4 * \n
    blo 6f
    fl_block \n, 0
    subs r11, r11, #4 * \n
    beq 9f
6:
    .endm

    .macro fl_enter
    push {r4-r12, lr}
    vpush {d8-d15}
    ldm r0, {r0-r4, r11, r12}
    push {r4}
    lsl r10, r11, #2
    .endm

    .macro fl_leave
    add sp, sp, #4
    vpop {d8-d15}
    pop {r4-r12, pc}
    .endm

    .pushsection .text.flowlet_f32_dense, "ax", %progbits
    .thumb
    .p2align 2
    .global flowlet_f32_dense
    .type flowlet_f32_dense, %function
    .thumb_func
flowlet_f32_dense:
    fl_enter
    cmp r11, #1
    beq 10f
    subs r11, r11, #24
    blo 8f
7:  fl_block 6, 0
    subs r11, r11, #24
    bhs 7b
8:  adds r11, r11, #24
    beq 9f
    fl_last 4
    fl_last 3
    fl_last 2
    cmp r11, #4
    beq 12f
    blo 11f
    fl_block 2, 1
9:  fl_leave
11: fl_block 1, 1
    fl_leave
12: fl_block 1, 0
    fl_leave

@ A matrix of one row: its columns lie side by side, so that four are multiplied at once and then added one by one.
10: vldr s8, [r2]
    lsr r4, r12, #2
    wls lr, r4, 2f
1:  vldrw.u32 q0, [r0], #16
    vldrw.u32 q1, [r1], #16
    vmul.f32 q0, q0, q1
    vadd.f32 s8, s8, s0
    vadd.f32 s8, s8, s1
    vadd.f32 s8, s8, s2
    vadd.f32 s8, s8, s3
    le lr, 1b
2:  and r4, r12, #3
    wls lr, r4, 4f
3:  vldmia r0!, {s0}
    vldmia r1!, {s1}
    vmul.f32 s0, s0, s1
    vadd.f32 s8, s8, s0
    le lr, 3b
4:  vmov.f32 s0, s8
    fl_relu 1
    vstr s0, [r3]
    fl_leave
    .size flowlet_f32_dense, . - flowlet_f32_dense
    .popsection

@ Four lanes are one register: a row has its sums in q(i) and its weight in r(4 + i), the inputs are in q7.
    .macro fl_lanes to, w
    vmul.f32 q\to, q7, \w
    .endm

    .macro fl_lane_block n
    .if \n == 4
    ldm r2!, {r4-r7}
    .elseif \n == 2
    ldrd r4, r5, [r2], #8
    .else
    ldr r4, [r2], #4
    .endif
    vdup.32 q0, r4
    .if \n > 1
    vdup.32 q1, r5
    .endif
    .if \n > 2
    vdup.32 q2, r6
    vdup.32 q3, r7
    .endif
    mov r8, r0
    add r0, r0, #4 * \n
    mov r9, r1
    wls lr, r12, 2f
1:  vldrw.u32 q7, [r9], #16
    .if \n == 4
    ldm r8, {r4-r7}
    .elseif \n == 2
    ldrd r4, r5, [r8]
    .else
    ldr r4, [r8]
    .endif
    add r8, r8, r10
    fl_lanes 4, r4
    .if \n > 1
    fl_lanes 5, r5
    .endif
    .if \n > 2
    fl_lanes 6, r6
    .endif
    fl_sum 0, 4
    .if \n > 2
    fl_lanes 4, r7
    .endif
    .if \n > 1
    fl_sum 1, 5
    .endif
    .if \n > 2
    fl_sum 2, 6
    fl_sum 3, 4
    .endif
    le lr, 1b
2:  fl_relu \n
    .set i, 0
    .rept \n
    fl_store %(i)
    .set i, i + 1
    .endr
    .endm

    .macro fl_last_lanes n
    cmp r11, #\n
    blo 6f
    fl_lane_block \n
    sub r11, r11, #\n
6:
    .endm

    .pushsection .text.flowlet_f32_batch, "ax", %progbits
    .thumb
    .p2align 2
    .global flowlet_f32_batch
    .type flowlet_f32_batch, %function
    .thumb_func
flowlet_f32_batch:
    fl_enter
    subs r11, r11, #4
    blo 8f
7:  fl_lane_block 4
    subs r11, r11, #4
    bhs 7b
8:  add r11, r11, #4
    fl_last_lanes 2
    fl_last_lanes 1
    fl_leave
    .size flowlet_f32_batch, . - flowlet_f32_batch
    .popsection
    .noaltmacro
    .purgem fl_weights
    .purgem fl_some_weights
    .purgem fl_product
    .purgem fl_sum
    .purgem fl_column
    .purgem fl_start
    .purgem fl_start_some
    .purgem fl_store
    .purgem fl_store_some
    .purgem fl_keep
    .purgem fl_relu
    .purgem fl_predicate
    .purgem fl_block
    .purgem fl_last
    .purgem fl_enter
    .purgem fl_leave
    .purgem fl_lanes
    .purgem fl_lane_block
    .purgem fl_last_lanes
