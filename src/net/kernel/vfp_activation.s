@ Rational activations on the single-precision FPU, two elements a turn; whether both lie in the interval of the rational is
@ found on the halfwords with sign and exponent, by the DSP extension.
@
@ Takes in r0 the address of the elements, in r1 the number of pairs (one or more), in r2 that of `Coefficients`; leaves in
@ r0 the pairs that were not done: the first of them has an element outside of the interval. Every result is computed by
@ the operations of `Rational::terms`, VMLA being a product and a sum that are rounded each.
@   s8-s10 n0 n1 n2    s11-s14 d0 d1 d2 d3    s15 1/2    s0, s1 elements    s2-s7 passing    r2, r4 interval

    .syntax unified
    .fpu fpv4-sp-d16

@ N in s(n), D in s7, s = x^2 in s2; s(u) passes.
    .macro fl_terms x, n, u
    vmul.f32 s2, \x, \x
    vmul.f32 s3, s2, s2
    vmul.f32 \n, s9, s2
    vmul.f32 s6, s14, s2
    vmul.f32 s7, s12, s2
    vadd.f32 \n, \n, s8
    vadd.f32 s6, s6, s13
    vadd.f32 s7, s7, s11
    vadd.f32 \u, s2, s10
    vmla.f32 s7, s6, s3
    vmla.f32 \n, \u, s3
    .endm

    .macro fl_odd x, n
    vmul.f32 \n, \n, \x
    vdiv.f32 \n, \n, s7
    .endm

    .macro fl_gated x, n
    vmul.f32 \n, \n, s2
    vdiv.f32 \n, \n, s7
    vmla.f32 \n, \x, s15
    .endm

    .macro fl_function name, result
    .pushsection .text.\name, "ax", %progbits
    .thumb
    .p2align 2
    .global \name
    .type \name, %function
    .thumb_func
\name:
    push {r4, lr}
    vldmia r2!, {s8-s15}
    ldrd r2, r4, [r2]
1:  ldrd r3, r12, [r0]
    vmov s0, s1, r3, r12
    pkhtb r3, r12, r3, asr #16
    bic r3, r3, #0x80008000
    usub16 r3, r3, r2
    uqsub16 r3, r3, r4
    cbnz r3, 2f
    fl_terms s0, s4, s5
    \result s0, s4
    fl_terms s1, s5, s0
    \result s1, s5
    vstmia r0!, {s4, s5}
    subs r1, r1, #1
    bne 1b
2:  mov r0, r1
    pop {r4, pc}
    .size \name, . - \name
    .popsection
    .endm

    fl_function flowlet_f32_odd, fl_odd
    fl_function flowlet_f32_gated, fl_gated

    .purgem fl_terms
    .purgem fl_odd
    .purgem fl_gated
    .purgem fl_function
