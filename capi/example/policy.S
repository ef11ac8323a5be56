/* The artefact in flash, at an address divisible by four; POLICY is its path. */
    .section .rodata.policy, "a"
    .balign 4
    .global policy_begin, policy_end
policy_begin:
    .incbin POLICY
policy_end:
    .section .note.GNU-stack, "", %progbits
