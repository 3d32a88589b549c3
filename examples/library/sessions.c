/* Eight sessions of one model on eight threads, each in its own arena. The model is constant data,
 * so they share nothing that changes, and all write the same text. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "first.h"

enum { SESSIONS = 8, CONTEXT = 48, TOKENS = 24, TEXT = 1024 };

static const char prompt[] = "It is a truth universally acknowledged, that";

static void *session(void *argument)
{
    char *text = argument;
    int32_t ids[CONTEXT];
    uint64_t seed = 7;
    const size_t arena_bytes = FIRST_ARENA_BYTES(CONTEXT, 1);
    const size_t scratch_bytes = first_scratch_bytes(strlen(prompt));
    void *arena = aligned_alloc(FIRST_ARENA_ALIGN, (arena_bytes + FIRST_ARENA_ALIGN - 1) /
                                                       FIRST_ARENA_ALIGN * FIRST_ARENA_ALIGN);
    void *scratch = malloc(scratch_bytes);
    struct first *m = arena && scratch ? first_init(arena, arena_bytes, CONTEXT, 1) : NULL;
    if (m) {
        int n = (int)first_tokenize(m, prompt, strlen(prompt), 1, ids, CONTEXT - TOKENS, scratch,
                                    scratch_bytes);
        for (int made = 0; made < TOKENS && first_eval(m, ids, n); made++, n = 1) {
            size_t bytes;
            ids[0] = first_sample(m, 0.8f, 0, 0.9f, &seed);
            const uint8_t *piece = first_piece(m, ids[0], &bytes);
            if (first_is_eos(ids[0]) || strlen(text) + bytes >= TEXT)
                break;
            strncat(text, (const char *)piece, bytes);
        }
        first_close(m);
    }
    free(scratch);
    free(arena);
    return NULL;
}

int main(void)
{
    static char text[SESSIONS][TEXT];
    pthread_t thread[SESSIONS];
    int started = 0, equal = 0;

    while (started < SESSIONS &&
           pthread_create(&thread[started], NULL, session, text[started]) == 0)
        started++;
    for (int i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
        equal += text[i][0] && strcmp(text[i], text[0]) == 0;
    }
    printf("%s%s\n", prompt, text[0]);
    fprintf(stderr, "%d of %d sessions wrote this\n", equal, SESSIONS);
    return equal == SESSIONS ? 0 : 1;
}
