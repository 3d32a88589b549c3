/* A language model on a microcontroller: writes on from a prompt, over a serial port. */
#include <stddef.h>
#include <stdint.h>

#include "board.h"
#include "tiny.h"

#ifndef PROMPT
#define PROMPT "And the LORD said unto"
#endif
#ifndef TOKENS
#define TOKENS 60
#endif

/* All the memory of the model. The linker says whether it fits. */
__attribute__((section(".noinit"))) //
static _Alignas(TINY_ARENA_ALIGN) uint8_t arena[TINY_ARENA_BYTES(TINY_CONTEXT, 1)];

extern const uint32_t bnc_stack_start[], bnc_stack_end[];

int main(void);
_Noreturn void bnc_fault(void);

static void put_bytes(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        board_put(((const char *)bytes)[i]);
}

static void put_number(uint32_t number)
{
    if (number >= 10)
        put_number(number / 10);
    board_put((char)('0' + number % 10));
}

_Noreturn static void stop(const char *why)
{
    while (*why)
        board_put(*why++);
    board_put('\n');
    for (;;)
        __asm__ volatile("wfi");
}

/* Where every exception leads: see bnc_start.c. */
_Noreturn void bnc_fault(void)
{
    stop("fault");
}

int main(void)
{
    static const char prompt[] = PROMPT;
    int32_t ids[sizeof prompt + 1]; /* a token for each byte at most, and the first one */
    uint8_t scratch[64];            /* enough for words of up to 64 bytes */

    board_start();
    struct tiny *m = tiny_init(arena, sizeof arena, TINY_CONTEXT, 1);
    if (!m)
        stop("no session");
    int n = (int)tiny_tokenize(m, prompt, sizeof prompt - 1, 1, ids, sizeof ids / sizeof *ids,
                               scratch, sizeof scratch);
    if (n < 1)
        stop("no tokens");
    put_bytes(prompt, sizeof prompt - 1);
    uint64_t seed = 1;
    for (int made = 0; made < TOKENS && tiny_eval(m, ids, n); made++, n = 1) {
        size_t bytes;
        ids[0] = tiny_sample(m, 0.5f, 0, 0.9f, &seed);
        if (tiny_is_eos(ids[0]))
            break;
        const uint8_t *piece = tiny_piece(m, ids[0], &bytes);
        put_bytes(piece, bytes);
    }

    /* The start code painted the stack; what it has overwritten since was used. */
    const uint32_t *used = bnc_stack_start;
    while (used < bnc_stack_end && *used == 0x5ca1ab1eu)
        used++;
    put_bytes("\n[stack: ", 9);
    put_number((uint32_t)((uintptr_t)bnc_stack_end - (uintptr_t)used));
    stop(" bytes]");
}
