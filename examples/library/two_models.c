/* Two models in one program: one begins, the other goes on. All memory is known before it runs. */
#include <stdio.h>
#include <string.h>

#include "first.h"
#include "second.h"

enum { CONTEXT = 128, TOKENS = 16, TEXT = 1024 };

static _Alignas(FIRST_ARENA_ALIGN) uint8_t first_arena[FIRST_ARENA_BYTES(CONTEXT, 1)];
static _Alignas(SECOND_ARENA_ALIGN) uint8_t second_arena[SECOND_ARENA_BYTES(CONTEXT, 1)];
static uint8_t scratch[64 * TEXT];
static char text[TEXT];

static int add(void *user, const char *piece, size_t bytes, int32_t token)
{
    (void)user, (void)token;
    strncat(text, piece, bytes < TEXT - strlen(text) ? bytes : 0);
    return 0;
}

int main(int argc, char **argv)
{
    struct first_options greedy = { TOKENS, 0.0f, 0, 1.0f, 0, 0 };
    struct second_options as_greedy = { TOKENS, 0.0f, 0, 1.0f, 0, 0 };
    struct first *a = first_init(first_arena, sizeof first_arena, CONTEXT, 1);
    struct second *b = second_init(second_arena, sizeof second_arena, CONTEXT, 1);
    int32_t ids[CONTEXT];
    if (!a || !b)
        return 1;
    strncat(text, argc > 1 ? argv[1] : "My dear Mr. Bennet,", TEXT - 1);
    int n = (int)first_tokenize(a, text, strlen(text), 1, ids, CONTEXT, scratch, sizeof scratch);
    n = n < 0 ? n : first_generate(a, ids, n, &greedy, add, NULL);
    if (n >= 0)
        n = (int)second_tokenize(b, text, strlen(text), 1, ids, CONTEXT, scratch, sizeof scratch);
    n = n < 0 ? n : second_generate(b, ids, n, &as_greedy, add, NULL);
    printf("%s\n", n < 0 ? first_error(n) : text);
    first_close(a);
    second_close(b);
    return n < 0;
}
