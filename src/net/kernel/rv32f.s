# Dense layers on RISC-V with the F extension.
#
# A block of up to 16 rows keeps its sums in f0-f7 and f10-f17; the weights of eight rows are loaded, multiplied and added
# in three groups, since cores that run in order wait for a result that is used at once. Two columns are a turn. FMADD
# rounds once and is not used: products are rounded on every target.
#
# Both functions take the address of a `Job` in a0 and use
#   a1 weights of the block   a2 inputs   a3 sums' start   a4 results   a5 what ReLU keeps, as bits, or 0
#   a6 rows left   a7 columns   t0 bytes from a column to the next   t1, t2 cursors   t3 end of the inputs   t4, t5 passing

    .option push
    .option arch, +f
    .altmacro

    .macro fl_weight reg, offset
    flw f\reg, \offset(t1)
    .endm

    .macro fl_product reg, x
    fmul.s f\reg, f\reg, \x
    .endm

    .macro fl_sum to, reg
    fadd.s f\to, f\to, f\reg
    .endm

# Rows a .. a + n of a column, no more than eight, with the input x. Sum i is f(i), or f(i + 2) from 8 up.
    .macro fl_rows a, n, x
    .set i, 0
    .rept \n
    fl_weight %(18 + i), %(4 * (\a + i))
    .set i, i + 1
    .endr
    .set i, 0
    .rept \n
    fl_product %(18 + i), \x
    .set i, i + 1
    .endr
    .set i, 0
    .rept \n
    fl_sum %(\a + i + (\a + i) / 8 * 2), %(18 + i)
    .set i, i + 1
    .endr
    .endm

    .macro fl_column n, x
    .if \n == 16
    fl_rows 0, 8, \x
    fl_rows 8, 8, \x
    .else
    fl_rows 0, \n, \x
    .endif
    add t1, t1, t0
    .endm

    .macro fl_start reg, offset
    flw f\reg, \offset(a3)
    .endm

    .macro fl_store reg, offset
    fsw f\reg, \offset(a4)
    .endm

# What is not at least the limit, NaN among it, becomes zero.
    .macro fl_keep reg
    fle.s t4, f28, f\reg
    bnez t4, 4f
    fmv.w.x f\reg, zero
4:
    .endm

# ReLU and the results of n sums.
    .macro fl_results n
    beqz a5, 5f
    fmv.w.x f28, a5
    .set i, 0
    .rept \n
    fl_keep %(i + i / 8 * 2)
    .set i, i + 1
    .endr
5:  .set i, 0
    .rept \n
    fl_store %(i + i / 8 * 2), %(4 * i)
    .set i, i + 1
    .endr
    addi a4, a4, 4 * \n
    .endm

    .macro fl_block n
    .set i, 0
    .rept \n
    fl_start %(i + i / 8 * 2), %(4 * i)
    .set i, i + 1
    .endr
    addi a3, a3, 4 * \n
    mv t1, a1
    addi a1, a1, 4 * \n
    mv t2, a2
    andi t4, a7, 1
    beqz t4, 1f
    flw f28, 0(t2)
    addi t2, t2, 4
    fl_column \n, f28
1:  beq t2, t3, 3f
2:  flw f28, 0(t2)
    flw f29, 4(t2)
    addi t2, t2, 8
    fl_column \n, f28
    fl_column \n, f29
    bne t2, t3, 2b
3:  fl_results \n
    .endm

# The block of n rows if so many are left.
    .macro fl_last n
    li t5, \n
    bltu a6, t5, 6f
    fl_block \n
    addi a6, a6, -\n
6:
    .endm

    .macro fl_save reg, offset
    fsw f\reg, \offset(sp)
    .endm

    .macro fl_restore reg, offset
    flw f\reg, \offset(sp)
    .endm

    .macro fl_enter
    addi sp, sp, -32
    .set i, 0
    .rept 8
    fl_save %(18 + i), %(4 * i)
    .set i, i + 1
    .endr
    lw a1, 0(a0)
    lw a2, 4(a0)
    lw a3, 8(a0)
    lw a4, 12(a0)
    lw a5, 16(a0)
    lw a6, 20(a0)
    lw a7, 24(a0)
    slli t0, a6, 2
    .endm

    .macro fl_leave
    .set i, 0
    .rept 8
    fl_restore %(18 + i), %(4 * i)
    .set i, i + 1
    .endr
    addi sp, sp, 32
    ret
    .endm

    .pushsection .text.flowlet_f32_dense, "ax", @progbits
    .p2align 2
    .global flowlet_f32_dense
    .type flowlet_f32_dense, @function
flowlet_f32_dense:
    fl_enter
    slli t3, a7, 2
    add t3, t3, a2
7:  li t5, 16
    bltu a6, t5, 8f
    fl_block 16
    addi a6, a6, -16
    j 7b
8:  beqz a6, 9f
    fl_last 8
    fl_last 4
    fl_last 2
    fl_last 1
9:  fl_leave
    .size flowlet_f32_dense, . - flowlet_f32_dense
    .popsection

# Four lanes: row i of a block has its sums from 4 i on, its weight is f(28 + i), the inputs are f18-f21.
    .macro fl_lane_product reg, x, w
    fmul.s f\reg, f\x, f\w
    .endm

    .macro fl_lanes row
    .set i, 0
    .rept 4
    fl_lane_product %(22 + i), %(18 + i), %(28 + \row)
    .set i, i + 1
    .endr
    .set i, 0
    .rept 4
    fl_sum %(4 * \row + i + (4 * \row + i) / 8 * 2), %(22 + i)
    .set i, i + 1
    .endr
    .endm

    .macro fl_spread to, from
    fmv.s f\to, f\from
    .endm

    .macro fl_lane_block n
    .set i, 0
    .rept \n
    fl_start %(28 + i), %(4 * i)
    .set i, i + 1
    .endr
    .set i, 0
    .rept 4 * \n
    fl_spread %(i + i / 8 * 2), %(28 + i / 4)
    .set i, i + 1
    .endr
    addi a3, a3, 4 * \n
    mv t1, a1
    addi a1, a1, 4 * \n
    mv t2, a2
    beq t2, t3, 3f
2:  .set i, 0
    .rept \n
    fl_weight %(28 + i), %(4 * i)
    .set i, i + 1
    .endr
    flw f18, 0(t2)
    flw f19, 4(t2)
    flw f20, 8(t2)
    flw f21, 12(t2)
    add t1, t1, t0
    addi t2, t2, 16
    fl_lanes 0
    .if \n > 1
    fl_lanes 1
    .endif
    .if \n > 2
    fl_lanes 2
    fl_lanes 3
    .endif
    bne t2, t3, 2b
3:  fl_results %(4 * \n)
    .endm

    .macro fl_last_lanes n
    li t5, \n
    bltu a6, t5, 6f
    fl_lane_block \n
    addi a6, a6, -\n
6:
    .endm

    .pushsection .text.flowlet_f32_batch, "ax", @progbits
    .p2align 2
    .global flowlet_f32_batch
    .type flowlet_f32_batch, @function
flowlet_f32_batch:
    fl_enter
    slli t3, a7, 4
    add t3, t3, a2
7:  li t5, 4
    bltu a6, t5, 8f
    fl_lane_block 4
    addi a6, a6, -4
    j 7b
8:  fl_last_lanes 2
    fl_last_lanes 1
    fl_leave
    .size flowlet_f32_batch, . - flowlet_f32_batch
    .popsection
    .noaltmacro
    .option pop
    .purgem fl_weight
    .purgem fl_product
    .purgem fl_sum
    .purgem fl_rows
    .purgem fl_column
    .purgem fl_start
    .purgem fl_store
    .purgem fl_keep
    .purgem fl_results
    .purgem fl_block
    .purgem fl_last
    .purgem fl_save
    .purgem fl_restore
    .purgem fl_enter
    .purgem fl_leave
    .purgem fl_lane_product
    .purgem fl_lanes
    .purgem fl_spread
    .purgem fl_lane_block
    .purgem fl_last_lanes
