/* Which token comes after the prompt? */
#include <stdio.h>
#include <string.h>

#include <austen.h>

enum { CONTEXT = 32 };

int main(void)
{
    static _Alignas(AUSTEN_ARENA_ALIGN) uint8_t arena[AUSTEN_ARENA_BYTES(CONTEXT, 1)];
    static uint8_t scratch[16384];
    static const char prompt[] = "It is a truth universally";
    int32_t ids[CONTEXT];
    uint64_t seed = 0;
    size_t bytes;

    struct austen *m = austen_init(arena, sizeof arena, CONTEXT, 1);
    if (!m)
        return 1;
    int n =
        (int)austen_tokenize(m, prompt, strlen(prompt), 1, ids, CONTEXT, scratch, sizeof scratch);
    if (n < 1 || !austen_eval(m, ids, n))
        return 1;
    const uint8_t *piece = austen_piece(m, austen_sample(m, 0.0f, 0, 1.0f, &seed), &bytes);
    printf("%s%.*s\n", prompt, (int)bytes, (const char *)piece);
    austen_close(m);
    return 0;
}
