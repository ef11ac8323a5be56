@ Dense layers on the single-precision FPU of Cortex-M4F, M7 and M33.
@
@ A block of rows keeps its sums in s0.., the weights of a column come by one load each eight, and four inputs by one load.
@ Of every four products three are VMUL then VADD, one is VMLA, which rounds its product too. On a Cortex-M4 the pair takes
@ two cycles and VMLA three (Cortex-M4 TRM, r0p1, 7.2.3), so VMLA saves an instruction and costs a cycle: one in four
@ keeps the whole below 2.2 instructions a multiply-accumulate. No product is consumed by the instruction after it, which
@ would stall; but with one row there is nothing to put between.
@
@ All functions take the address of a `Job` in r0 and use
@   r0 weights of the block    r1 inputs    r2 sums' start    r3 results    r5 rows left    r6 columns
@   r4 what ReLU keeps, as bits, or 0       r7 bytes from a column to the next               r8, r9 cursors    r10 columns left

    .altmacro

    .macro fl_product w, x, to
    vmul.f32 s\to, s\w, s\x
    .endm

    .macro fl_sum a, w
    vadd.f32 s\a, s\a, s\w
    .endm

    .macro fl_product_sum a, w, x
    vmla.f32 s\a, s\w, s\x
    .endm

@ s(a + i) += s(16 + i) * s(x) for i below n.
    .macro fl_rows n, a, x
    .set i, 0
    .rept \n
    .if (i & 3) == 3
    fl_product_sum %(\a + i), %(16 + i), \x
    .else
    fl_product %(16 + i), \x, %(16 + i)
    .endif
    .set i, i + 1
    .endr
    .set i, 0
    .rept \n
    .if (i & 3) != 3
    fl_sum %(\a + i), %(16 + i)
    .endif
    .set i, i + 1
    .endr
    .endm

@ Loads s(first) .. s(last) and moves the address on.
    .macro fl_load address, first, last
    vldmia \address!, {s\first-s\last}
    .endm

    .macro fl_store address, first, last
    vstmia \address!, {s\first-s\last}
    .endm

@ One column of a block of n rows, its input in s(x). The cursor goes from column to column.
    .macro fl_column n, x
    .if \n == 16
    vldmia r8!, {s16-s23}
    fl_rows 8, 0, \x
    vldmia r8, {s16-s23}
    add r8, r8, r11
    fl_rows 8, 8, \x
    .else
    fl_weights %(15 + \n)
    add r8, r8, r7
    fl_rows \n, 0, \x
    .endif
    .endm

    .macro fl_weights last
    vldmia r8, {s16-s\last}
    .endm

@ What is not at least the limit, NaN among it, becomes zero.
    .macro fl_keep a
    vcmp.f32 s\a, s16
    vmrs APSR_nzcv, fpscr
    it lt
    vmovlt.f32 s\a, s17
    .endm

    .macro fl_relu n
    cmp r4, #0
    beq 5f
    mov r9, #0
    vmov s16, s17, r4, r9
    .set i, 0
    .rept \n
    fl_keep %(i)
    .set i, i + 1
    .endr
5:
    .endm

@ A block of n rows: its sums start, run over the columns, four at a time as long as there are, and are stored.
    .macro fl_block n
    fl_load r2, 0, %(\n - 1)
    mov r8, r0
    add r0, r0, #4 * \n
    mov r9, r1
    subs r10, r6, #4
    blo 2f
1:  vldmia r9!, {s28-s31}
    fl_column \n, 28
    fl_column \n, 29
    fl_column \n, 30
    fl_column \n, 31
    subs r10, r10, #4
    bhs 1b
2:  adds r10, r10, #4
    beq 4f
3:  vldmia r9!, {s28}
    fl_column \n, 28
    subs r10, r10, #1
    bne 3b
4:  fl_relu \n
    fl_store r3, 0, %(\n - 1)
    .endm

@ The block of n rows if so many are left.
    .macro fl_last n
    cmp r5, #\n
    blo 6f
    fl_block \n
    subs r5, r5, #\n
    beq 9f
6:
    .endm

    .macro fl_enter
    push {r4-r11, lr}
    vpush {s16-s31}
    ldm r0, {r0-r6}
    lsl r7, r5, #2
    .endm

    .macro fl_leave
    vpop {s16-s31}
    pop {r4-r11, pc}
    .endm

    .syntax unified
    .fpu fpv4-sp-d16
    .pushsection .text.flowlet_f32_dense, "ax", %progbits
    .thumb
    .p2align 2
    .global flowlet_f32_dense
    .type flowlet_f32_dense, %function
    .thumb_func
flowlet_f32_dense:
    fl_enter
    cmp r5, #1
    beq 10f
    @ From the second half of a column to the next column.
    sub r11, r7, #32
    subs r5, r5, #16
    blo 8f
7:  fl_block 16
    subs r5, r5, #16
    bhs 7b
8:  adds r5, r5, #16
    beq 9f
    fl_last 12
    fl_last 8
    fl_last 6
    fl_last 4
    fl_last 2
    fl_last 1
9:  fl_leave

@ A matrix of one row: its columns lie side by side, so their products come before the sums.
10: vldr s0, [r2]
    subs r10, r6, #4
    blo 2f
1:  vldmia r0!, {s16-s19}
    vldmia r1!, {s28-s31}
    vmul.f32 s16, s16, s28
    vmul.f32 s17, s17, s29
    vmul.f32 s18, s18, s30
    vmul.f32 s19, s19, s31
    vadd.f32 s0, s0, s16
    vadd.f32 s0, s0, s17
    vadd.f32 s0, s0, s18
    vadd.f32 s0, s0, s19
    subs r10, r10, #4
    bhs 1b
2:  adds r10, r10, #4
    beq 4f
3:  vldmia r0!, {s16}
    vldmia r1!, {s28}
    vmul.f32 s16, s16, s28
    vadd.f32 s0, s0, s16
    subs r10, r10, #1
    bne 3b
4:  fl_relu 1
    vstr s0, [r3]
    fl_leave
    .size flowlet_f32_dense, . - flowlet_f32_dense
    .popsection

@ A block of n rows without the columns whose input is zero, of either sign.
    .macro fl_sparse n
    fl_load r2, 0, %(\n - 1)
    mov r8, r0
    add r0, r0, #4 * \n
    mov r9, r1
    mov r10, r6
1:  ldr r12, [r9], #4
    lsls lr, r12, #1
    beq 2f
    vmov s28, r12
    fl_column \n, 28
    subs r10, r10, #1
    bne 1b
    b 3f
2:  add r8, r8, r7
    subs r10, r10, #1
    bne 1b
3:  fl_relu \n
    fl_store r3, 0, %(\n - 1)
    .endm

    .macro fl_last_sparse n
    cmp r5, #\n
    blo 6f
    fl_sparse \n
    subs r5, r5, #\n
    beq 9f
6:
    .endm

@ Rows to eight that are left are one block: what a delta of low rank has is no more.
    .pushsection .text.flowlet_f32_sparse, "ax", %progbits
    .thumb
    .p2align 2
    .global flowlet_f32_sparse
    .type flowlet_f32_sparse, %function
    .thumb_func
flowlet_f32_sparse:
    fl_enter
    sub r11, r7, #32
    subs r5, r5, #16
    blo 8f
7:  fl_sparse 16
    subs r5, r5, #16
    bhs 7b
8:  adds r5, r5, #16
    beq 9f
    fl_last_sparse 8
    fl_last_sparse 7
    fl_last_sparse 6
    fl_last_sparse 5
    fl_last_sparse 4
    fl_last_sparse 3
    fl_last_sparse 2
    fl_last_sparse 1
9:  fl_leave
    .size flowlet_f32_sparse, . - flowlet_f32_sparse
    .popsection

@ Sums over the rows of each column whose mask is not zero, zero for the others. Of the job the inputs are the mask, and
@ the sums' start is the vector that the columns are multiplied with. Eight rows are a turn; between a product and its sum
@ stands another product, so nothing waits.
    .pushsection .text.flowlet_f32_transposed, "ax", %progbits
    .thumb
    .p2align 2
    .global flowlet_f32_transposed
    .type flowlet_f32_transposed, %function
    .thumb_func
flowlet_f32_transposed:
    fl_enter
    mov r11, #0
1:  ldr r12, [r1], #4
    lsls lr, r12, #1
    vmov s0, r11
    beq 5f
    mov r8, r0
    mov r9, r2
    subs r10, r5, #8
    blo 3f
2:  vldmia r8!, {s16-s23}
    vldmia r9!, {s24-s31}
    vmul.f32 s8, s16, s24
    vmul.f32 s9, s17, s25
    vadd.f32 s0, s0, s8
    vmul.f32 s10, s18, s26
    vadd.f32 s0, s0, s9
    vmul.f32 s11, s19, s27
    vadd.f32 s0, s0, s10
    vmul.f32 s12, s20, s28
    vadd.f32 s0, s0, s11
    vmul.f32 s13, s21, s29
    vadd.f32 s0, s0, s12
    vmul.f32 s14, s22, s30
    vadd.f32 s0, s0, s13
    vmul.f32 s15, s23, s31
    vadd.f32 s0, s0, s14
    vadd.f32 s0, s0, s15
    subs r10, r10, #8
    bhs 2b
3:  adds r10, r10, #8
    beq 5f
4:  vldmia r8!, {s16}
    vldmia r9!, {s24}
    vmul.f32 s16, s16, s24
    subs r10, r10, #1
    vadd.f32 s0, s0, s16
    bne 4b
5:  add r0, r0, r7
    vstmia r3!, {s0}
    subs r6, r6, #1
    bne 1b
    fl_leave
    .size flowlet_f32_transposed, . - flowlet_f32_transposed
    .popsection

@ Four lanes: row i of a block has its sums in s(4 i) .. s(4 i + 3), the weights are s(16 + i), the inputs s20-s23, the
@ products s24-s31.

@ Two rows of four lanes: sums from s(a), weights from s(w).
    .macro fl_lanes a, w, second
    .set i, 0
    .rept 4 + 4 * \second
    .if (i & 3) == 3
    fl_product_sum %(\a + i), %(\w + (i >> 2)), 23
    .else
    fl_product %(\w + (i >> 2)), %(20 + (i & 3)), %(24 + i)
    .endif
    .set i, i + 1
    .endr
    .set i, 0
    .rept 4 + 4 * \second
    .if (i & 3) != 3
    fl_sum %(\a + i), %(24 + i)
    .endif
    .set i, i + 1
    .endr
    .endm

    .macro fl_spread to, from
    vmov.f32 s\to, s\from
    .endm

    .macro fl_lane_block n
    fl_load r2, 16, %(15 + \n)
    .set i, 0
    .rept 4 * \n
    fl_spread %(i), %(16 + (i >> 2))
    .set i, i + 1
    .endr
    mov r8, r0
    add r0, r0, #4 * \n
    mov r9, r1
    mov r10, r6
    cbz r6, 2f
1:  fl_weights %(15 + \n)
    vldmia r9!, {s20-s23}
    add r8, r8, r7
    .if \n == 4
    fl_lanes 0, 16, 1
    fl_lanes 8, 18, 1
    .else
    fl_lanes 0, 16, %(\n - 1)
    .endif
    subs r10, r10, #1
    bne 1b
2:  fl_relu %(4 * \n)
    fl_store r3, 0, %(4 * \n - 1)
    .endm

    .macro fl_last_lanes n
    cmp r5, #\n
    blo 6f
    fl_lane_block \n
    sub r5, r5, #\n
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
    subs r5, r5, #4
    blo 8f
7:  fl_lane_block 4
    subs r5, r5, #4
    bhs 7b
8:  add r5, r5, #4
    fl_last_lanes 2
    fl_last_lanes 1
    fl_leave
    .size flowlet_f32_batch, . - flowlet_f32_batch
    .popsection
    .noaltmacro
    .purgem fl_product
    .purgem fl_sum
    .purgem fl_product_sum
    .purgem fl_rows
    .purgem fl_load
    .purgem fl_store
    .purgem fl_column
    .purgem fl_weights
    .purgem fl_keep
    .purgem fl_relu
    .purgem fl_block
    .purgem fl_last
    .purgem fl_sparse
    .purgem fl_last_sparse
    .purgem fl_enter
    .purgem fl_leave
    .purgem fl_lanes
    .purgem fl_spread
    .purgem fl_lane_block
    .purgem fl_last_lanes
