/* SPDX-License-Identifier: MIT */
/* What the check programs use of <stdlib.h>: see checks_libc.c. */
#ifndef CHECKS_STDLIB_H
#define CHECKS_STDLIB_H

#include <stddef.h>

/* Blocks lie one after another: what is freed serves again once all behind it is freed. */
void *malloc(size_t bytes);
void *realloc(void *old, size_t bytes);
void free(void *block);

_Noreturn void exit(int code);
unsigned long long strtoull(const char *text, char **end, int base);

#endif
