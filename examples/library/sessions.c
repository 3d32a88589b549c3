/* Eight sessions of one model on eight threads, each in its own arena. The model is constant data,
 * so they share nothing that changes, and all write the same text. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "first.h"

enum { SESSIONS = 8, CONTEXT = 48, TOKENS = 24, TEXT = 1024 };

struct session {
    _Alignas(FIRST_ARENA_ALIGN) uint8_t arena[FIRST_ARENA_BYTES(CONTEXT, 1)];
    uint8_t scratch[4096];
    char text[TEXT];
    int code; /* how many tokens, or what went wrong */
};

static struct session sessions[SESSIONS];
static const char prompt[] = "It is a truth universally acknowledged, that";

static int add(void *user, const char *piece, size_t bytes, int32_t token)
{
    char *text = user;
    (void)token;
    if (strlen(text) + bytes >= TEXT)
        return 1;
    strncat(text, piece, bytes);
    return 0;
}

static void *run(void *argument)
{
    struct session *s = argument;
    struct first_options options = {
        .max_tokens = TOKENS, .temperature = 0.8f, .top_p = 0.9f, .seed = 7
    };
    int32_t ids[CONTEXT];
    struct first *m = first_init(s->arena, sizeof s->arena, CONTEXT, 1);
    s->code = first_check(s->arena, sizeof s->arena, CONTEXT, 1);
    if (!m)
        return NULL;
    s->code = (int)first_tokenize(m, prompt, strlen(prompt), 1, ids, CONTEXT, s->scratch,
                                  sizeof s->scratch);
    if (s->code > 0)
        s->code = first_generate(m, ids, s->code, &options, add, s->text);
    first_close(m);
    return NULL;
}

int main(void)
{
    pthread_t thread[SESSIONS];
    int started = 0, equal = 0;

    while (started < SESSIONS &&
           pthread_create(&thread[started], NULL, run, &sessions[started]) == 0)
        started++;
    for (int i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
        if (sessions[i].code < 0)
            fprintf(stderr, "session %d: %s\n", i, first_error(sessions[i].code));
        equal += sessions[i].text[0] && strcmp(sessions[i].text, sessions[0].text) == 0;
    }
    printf("%s%s\n", prompt, sessions[0].text);
    fprintf(stderr, "%d of %d sessions wrote this\n", equal, SESSIONS);
    return equal == SESSIONS ? 0 : 1;
}
