/* SPDX-License-Identifier: MIT */
/* As much of a C library as the check programs of this folder need on a board without one, over Arm
 * semihosting. HEAP and HEAP_BYTES say where memory for malloc() is; the program's main() is called
 * checks_main(). */
#undef main

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../runtime_c/freestanding/bnc_semihosting.h"
#include "../../../runtime_c/freestanding/bnc_start.c"

int checks_main(int argc, char **argv);

struct checks_stream {
    int mode; /* of bnc_console() */
};

FILE checks_stdin = { 0 }, checks_stdout = { 4 }, checks_stderr = { 8 };

static int handle_of(FILE *stream)
{
    static int handles[3]; /* plus 1; 0 is not opened yet */
    int *handle = &handles[stream->mode / 4];
    if (!*handle)
        *handle = bnc_console(stream->mode) + 1;
    return *handle - 1;
}

size_t strlen(const char *text)
{
    const char *end = text;
    for (; *end; end++)
        __asm__ volatile(""); /* this loop is strlen: it must not become a call */
    return (size_t)(end - text);
}

int strcmp(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return (unsigned char)*a - (unsigned char)*b;
}

size_t fread(void *to, size_t size, size_t count, FILE *stream)
{
    const size_t wanted = size * count;
    size_t done = 0, got = 1;
    while (done < wanted && got > 0) {
        got = bnc_console_read(handle_of(stream), (char *)to + done, wanted - done);
        done += got;
    }
    return done / size;
}

size_t fwrite(const void *from, size_t size, size_t count, FILE *stream)
{
    if (size * count == 0)
        return 0;
    return bnc_console_write(handle_of(stream), from, size * count) == 0 ? count : 0;
}

int fflush(FILE *stream)
{
    (void)stream;
    return 0;
}

int setvbuf(FILE *stream, char *buffer, int mode, size_t bytes)
{
    (void)stream, (void)buffer, (void)mode, (void)bytes;
    return 0;
}

static size_t put(char *to, size_t room, size_t at, char c)
{
    if (at + 1 < room)
        to[at] = c;
    return at + 1;
}

static size_t put_number(char *to, size_t room, size_t at, unsigned long long number)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char)('0' + (int)(number % 10));
    while ((number /= 10) != 0);
    while (count > 0)
        at = put(to, room, at, digits[--count]);
    return at;
}

static size_t format(char *to, size_t room, const char *f, va_list list)
{
    size_t at = 0;
    for (; *f; f++) {
        if (*f != '%') {
            at = put(to, room, at, *f);
            continue;
        }
        if (*++f == 's') {
            for (const char *s = va_arg(list, const char *); *s; s++)
                at = put(to, room, at, *s);
        } else if (*f == 'd') {
            const long long value = va_arg(list, int);
            if (value < 0)
                at = put(to, room, at, '-');
            at = put_number(to, room, at, (unsigned long long)(value < 0 ? -value : value));
        } else if (f[0] == 'l' && f[1] == 'l' && f[2] == 'u') {
            at = put_number(to, room, at, va_arg(list, unsigned long long));
            f += 2;
        } else {
            at = put(to, room, at, *f);
        }
    }
    if (room)
        to[at < room ? at : room - 1] = '\0';
    return at;
}

int snprintf(char *to, size_t bytes, const char *f, ...)
{
    va_list list;
    va_start(list, f);
    const size_t n = format(to, bytes, f, list);
    va_end(list);
    return (int)n;
}

static int print(FILE *stream, const char *f, va_list list)
{
    char line[512];
    const size_t n = format(line, sizeof line, f, list);
    fwrite(line, 1, n < sizeof line ? n : sizeof line - 1, stream);
    return (int)n;
}

int printf(const char *f, ...)
{
    va_list list;
    va_start(list, f);
    const int n = print(stdout, f, list);
    va_end(list);
    return n;
}

int fprintf(FILE *stream, const char *f, ...)
{
    va_list list;
    va_start(list, f);
    const int n = print(stream, f, list);
    va_end(list);
    return n;
}

_Noreturn void exit(int code)
{
    bnc_exit(code);
}

_Noreturn void bnc_fault(void)
{
    fprintf(stdout, "DIED of an exception\n");
    exit(139);
}

unsigned long long strtoull(const char *text, char **end, int base)
{
    unsigned long long value = 0;
    (void)base;
    for (; *text >= '0' && *text <= '9'; text++)
        value = 10 * value + (unsigned long long)(*text - '0');
    if (end)
        *end = (char *)(uintptr_t)text;
    return value;
}

/* Each block begins with its size and that of the block before it. */
struct block {
    size_t bytes; /* with this; the lowest bit says that it is free */
    size_t before;
};

static size_t heap_end, last_block; /* bytes from HEAP; of the last block if heap_end is not 0 */

static struct block *block_at(size_t at)
{
    return (struct block *)(uintptr_t)(HEAP + at);
}

void *malloc(size_t bytes)
{
    const size_t whole = (bytes + sizeof(struct block) + 15) & ~(size_t)15;
    if (whole < bytes || whole > HEAP_BYTES - heap_end)
        return NULL;
    struct block *b = block_at(heap_end);
    b->bytes = whole;
    b->before = last_block;
    last_block = heap_end;
    heap_end += whole;
    return b + 1;
}

void free(void *memory)
{
    if (!memory)
        return;
    ((struct block *)memory - 1)->bytes |= 1;
    while (heap_end && block_at(last_block)->bytes & 1) {
        heap_end = last_block;
        last_block = block_at(last_block)->before;
    }
}

void *realloc(void *old, size_t bytes)
{
    if (!old)
        return malloc(bytes);
    struct block *b = (struct block *)old - 1;
    if (b == block_at(last_block)) { /* grows where it is */
        heap_end = last_block;
        last_block = b->before;
        const size_t before = b->bytes;
        void *grown = malloc(bytes);
        if (!grown) {
            last_block = (size_t)((uintptr_t)b - HEAP);
            heap_end = last_block + before;
        }
        return grown;
    }
    void *moved = malloc(bytes);
    if (moved) {
        const size_t held = b->bytes - sizeof *b;
        memcpy(moved, old, held < bytes ? held : bytes);
        free(old);
    }
    return moved;
}

/* The words of the command line: bitnetc/semihosting.py says how they are separated. */
int main(void)
{
    static char line[4096];
    static char *words[64];
    int count = 0;
    if (bnc_command_line(line, sizeof line) != 0)
        exit(2);
    for (char *p = line; *p && count < 63;) {
        const char end = *p == 1 ? 1 : ' ';
        p += *p == 1;
        words[count++] = p;
        while (*p && *p != end)
            p++;
        if (*p)
            *p++ = '\0';
        while (*p == ' ')
            p++;
    }
    exit(checks_main(count, words));
}
