/* Two models in one program: one begins a sentence, the other goes on from there. Each is a library
 * of its own; all memory is the program's, and known before it runs. */
#include <stdio.h>
#include <string.h>

#include "first.h"
#include "second.h"

enum { CONTEXT = 128, TOKENS = 16, TEXT = 1024 };

static _Alignas(FIRST_ARENA_ALIGN) uint8_t first_arena[FIRST_ARENA_BYTES(CONTEXT, 1)];
static _Alignas(SECOND_ARENA_ALIGN) uint8_t second_arena[SECOND_ARENA_BYTES(CONTEXT, 1)];
static uint8_t scratch[64 * TEXT];

/* Lets one model add to the text. The function is the same for both, but for the model's name. */
#define DEFINE_GO_ON(name)                                                                         \
    static int name##_go_on(char text[TEXT])                                                       \
    {                                                                                              \
        int32_t ids[CONTEXT];                                                                      \
        uint64_t seed = 0;                                                                         \
        struct name *m = name##_init(name##_arena, sizeof name##_arena, CONTEXT, 1);               \
        if (!m || name##_scratch_bytes(strlen(text)) > sizeof scratch)                             \
            return -1;                                                                             \
        int n = (int)name##_tokenize(m, text, strlen(text), 1, ids, CONTEXT - TOKENS, scratch,     \
                                     sizeof scratch);                                              \
        for (int made = 0; made < TOKENS && name##_eval(m, ids, n); made++, n = 1) {               \
            size_t bytes;                                                                          \
            ids[0] = name##_sample(m, 0.0f, 0, 1.0f, &seed);                                       \
            const uint8_t *piece = name##_piece(m, ids[0], &bytes);                                \
            if (name##_is_eos(ids[0]) || strlen(text) + bytes >= TEXT)                             \
                break;                                                                             \
            strncat(text, (const char *)piece, bytes);                                             \
        }                                                                                          \
        name##_close(m);                                                                           \
        return n < 0 ? -1 : 0;                                                                     \
    }

DEFINE_GO_ON(first)
DEFINE_GO_ON(second)

int main(int argc, char **argv)
{
    char text[TEXT] = "";
    strncat(text, argc > 1 ? argv[1] : "My dear Mr. Bennet,", TEXT - 1);
    if (first_go_on(text) != 0 || second_go_on(text) != 0) {
        fprintf(stderr, "two_models: the prompt is too long\n");
        return 1;
    }
    puts(text);
    return 0;
}
