/* SPDX-License-Identifier: MIT */
/* The start of a firmware image on Cortex-M, from reset to main(): floating point unit, variables,
 * stack. Addresses come from the linker script.
 *
 * The floating point unit starts in the state that docs/arithmetic.md asks for: round to nearest,
 * denormals kept, no default NaN (FPDSCR is 0 after reset). */
#include <stdint.h>

extern uint32_t bnc_stack_start[], bnc_stack_end[], bnc_data_load[], bnc_data_start[],
    bnc_data_end[], bnc_zero_start[], bnc_zero_end[];

int main(void);
_Noreturn void _start(void);
_Noreturn void bnc_fault(void);

struct vectors {
    uint32_t *stack;
    void (*handler[15])(void);
};

__attribute__((section(".vectors"), used)) static const struct vectors vectors = {
    bnc_stack_end,
    { _start, bnc_fault, bnc_fault, bnc_fault, bnc_fault, bnc_fault, bnc_fault, bnc_fault,
      bnc_fault, bnc_fault, bnc_fault, bnc_fault, bnc_fault, bnc_fault, bnc_fault }
};

/* What the stack holds before it is used: see bnc_stack_used() in bnc_firmware.c. */
#define PAINT 0x5ca1ab1eu

/* Called with everything ready for C; not inlined, so that no float is touched before. */
__attribute__((noinline)) static void prepare(void)
{
    for (volatile uint32_t *at = bnc_stack_start; at < (uint32_t *)__builtin_frame_address(0) - 32;
         at++)
        *at = PAINT;
    const uint32_t *from = bnc_data_load;
    for (volatile uint32_t *to = bnc_data_start; to < bnc_data_end;)
        *to++ = *from++;
    for (volatile uint32_t *to = bnc_zero_start; to < bnc_zero_end;)
        *to++ = 0;
}

_Noreturn void _start(void)
{
    volatile uint32_t *const cpacr = (volatile uint32_t *)0xe000ed88u;
    *cpacr |= 0xfu << 20; /* coprocessors 10 and 11: floating point and Helium */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    prepare();
    main();
    bnc_fault();
}
