/* SPDX-License-Identifier: MIT */
/* The part of <string.h> that the library uses, where there is no C library: four functions that
 * every compiler's own support library has, named so that small copies become instructions. */
#ifndef BNC_STRING_H
#define BNC_STRING_H

#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int byte, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#define memcpy(to, from, bytes)  __builtin_memcpy(to, from, bytes)
#define memmove(to, from, bytes) __builtin_memmove(to, from, bytes)
#define memset(to, byte, bytes)  __builtin_memset(to, byte, bytes)
#define memcmp(a, b, bytes)      __builtin_memcmp(a, b, bytes)

#endif
