/* SPDX-License-Identifier: MIT */
/* What the check programs use of <stdio.h>, over Arm semihosting: see checks_libc.c. */
#ifndef CHECKS_STDIO_H
#define CHECKS_STDIO_H

#include <stddef.h>

#define BUFSIZ 256
#define _IOLBF 1

typedef const struct checks_stream FILE;

extern FILE checks_stdin, checks_stdout, checks_stderr;

#define stdin  (&checks_stdin)
#define stdout (&checks_stdout)
#define stderr (&checks_stderr)

/* Of the conversions %d, %llu, %s and %%. */
int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int fprintf(FILE *stream, const char *format, ...) __attribute__((format(printf, 2, 3)));
int snprintf(char *to, size_t bytes, const char *format, ...) __attribute__((format(printf, 3, 4)));

size_t fread(void *to, size_t size, size_t count, FILE *stream);
size_t fwrite(const void *from, size_t size, size_t count, FILE *stream);
int fflush(FILE *stream);
int setvbuf(FILE *stream, char *buffer, int mode, size_t bytes);

#endif
