/* Start-up of a Cortex-M4F, semihosting and the stack's mark: what a firmware's own board files do. */
#include "console.h"

extern uint32_t data_load[], data_begin[], data_end[], bss_begin[], bss_end[], stack_top[];

#define PAINT 0xa5c35a3cu

int main(void);

static uint32_t semihosting(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void print(const char *text) {
    /* SYS_OPEN of the console for writing gives the host's standard output; SYS_WRITE. */
    static const struct { const char *name; uint32_t mode, length; } console = {":tt", 4, 3};
    static uint32_t output, opened;
    uint32_t length = 0;
    while (text[length]) {
        length++;
    }
    if (!opened) {
        output = semihosting(0x01, &console);
        opened = 1;
    }
    const struct { uint32_t handle; const char *text; uint32_t length; } block = {output, text, length};
    semihosting(0x05, &block);
}

_Noreturn void leave(int code) {
    /* SYS_EXIT_EXTENDED with ADP_Stopped_ApplicationExit. */
    const uint32_t reason[2] = {0x20026, (uint32_t)code};
    for (;;) {
        semihosting(0x20, reason);
    }
}

void print_number(const char *before, uint32_t number, const char *after) {
    char text[11], *digit = text + sizeof text;
    *--digit = 0;
    do {
        *--digit = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    print(before);
    print(digit);
    print(after);
}

void print_hex(const char *before, uint64_t number) {
    char text[18];
    for (int i = 0; i < 16; i++) {
        text[i] = "0123456789abcdef"[number >> (60 - 4 * i) & 15];
    }
    text[16] = '\n';
    text[17] = 0;
    print(before);
    print(text);
}

uint32_t stack_used(void) {
    const volatile uint32_t *word = bss_end;
    while (word < stack_top && *word == PAINT) {
        word++;
    }
    return (uint32_t)((uintptr_t)stack_top - (uintptr_t)word);
}

_Noreturn void reset(void) {
    /* The floating-point unit is off after a reset; nothing before this line may use it. */
    *(volatile uint32_t *)0xe000ed88 |= 0xfu << 20;
    __asm__ volatile("dsb\n isb" ::: "memory");
    const volatile uint32_t *from = data_load;
    for (volatile uint32_t *to = data_begin; to < data_end;) {
        *to++ = *from++;
    }
    for (volatile uint32_t *to = bss_begin; to < bss_end;) {
        *to++ = 0;
    }
    /* Up to a little below this function's frame. */
    volatile uint32_t *end = (volatile uint32_t *)((uintptr_t)__builtin_frame_address(0) - 128);
    for (volatile uint32_t *word = bss_end; word < end;) {
        *word++ = PAINT;
    }
    leave(main());
}

static void fault(void) {
    print("fault\n");
    leave(1);
}

__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    stack_top, (void *)reset, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault,
};
