/* SPDX-License-Identifier: MIT */
/* The library's own part of <string.h>, and what the check programs use beyond it. */
#ifndef CHECKS_STRING_H
#define CHECKS_STRING_H

#include "../../../runtime_c/freestanding/string.h"

size_t strlen(const char *text);
int strcmp(const char *a, const char *b);

#endif
