@ Rounds the inputs of an int8 layer: r0 inputs (r1 of them, at least one), r2 the bits of the gain, r3 groups of activations,
@ whose last one is filled up with zeros. Both conversions round to the nearest, halves to even, hold what is too large and
@ take NaN to zero, as the definition does.

    .syntax unified
    .pushsection .text.flowlet_int8_quantise, "ax", %progbits
    .global flowlet_int8_quantise
    .type flowlet_int8_quantise, %function
    .thumb_func
flowlet_int8_quantise:
    .if FLOWLET_INT8_MVE
    push {r4, lr}
    movw r4, #8191
    vdup.32 q2, r4
    rsb r4, r4, #0
    vdup.32 q3, r4
    adds r4, r1, #7
    lsrs r4, r4, #3
    lsls r4, r4, #1
    dls lr, r4
1:
    vctp.32 r1
    vpst
    vldrwt.u32 q0, [r0], #16
    vmul.f32 q0, q0, r2
    vcvtn.s32.f32 q0, q0
    vmin.s32 q0, q0, q2
    vmax.s32 q0, q0, q3
    vstrh.32 q0, [r3], #8
    subs r1, r1, #4
    usat r1, #16, r1
    le lr, 1b
    pop {r4, pc}
    .else
    push {r4-r8, lr}
    vmov s4, r2
    mov r2, r3
    mov r8, #0x00010001
    subs r1, r1, #4
    blt 3f
1:
    vldmia r0!, {s0-s3}
2:
    vmul.f32 s0, s0, s4
    vmul.f32 s1, s1, s4
    vmul.f32 s2, s2, s4
    vmul.f32 s3, s3, s4
    vcvtr.s32.f32 s0, s0
    vcvtr.s32.f32 s1, s1
    vcvtr.s32.f32 s2, s2
    vcvtr.s32.f32 s3, s3
    vmov r4, r5, s0, s1
    vmov r6, r7, s2, s3
    ssat r4, #14, r4
    ssat r5, #14, r5
    ssat r6, #14, r6
    ssat r7, #14, r7
    pkhbt r4, r4, r6, lsl #16
    pkhbt r5, r5, r7, lsl #16
    @ From -8192 to -8191.
    ssub16 r4, r4, r8
    ssub16 r5, r5, r8
    ssat16 r4, #14, r4
    ssat16 r5, #14, r5
    sadd16 r4, r4, r8
    sadd16 r5, r5, r8
    strd r4, r5, [r3], #8
    subs r1, r1, #4
    bge 1b
3:
    adds r1, r1, #4
    ble 5f
    @ One to three inputs, and zeros.
    movs r4, #0
    vmov s1, r4
    vmov s2, s1
    vmov s3, s1
    vldmia r0!, {s0}
    cmp r1, #2
    mov.w r1, #0
    blt 2b
    vldmia r0!, {s1}
    beq 2b
    vldmia r0!, {s2}
    b 2b
5:
    eors r2, r3
    lsls r2, r2, #28
    ittt ne
    movne r4, #0
    strne r4, [r3]
    strne r4, [r3, #4]
    pop {r4-r8, pc}
    .endif
    .size flowlet_int8_quantise, . - flowlet_int8_quantise
    .popsection
