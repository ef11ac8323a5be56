/* Text and the end of the program by semihosting, and the stack's high-water mark. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void print(const char *text);
void print_number(const char *before, uint32_t number, const char *after);
void print_hex(const char *before, uint64_t number);
_Noreturn void leave(int code);

/* Bytes of stack used since the start. */
uint32_t stack_used(void);

#endif
