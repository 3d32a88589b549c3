/* SPDX-License-Identifier: MIT */
/* For programs on Linux: read-only memory of a file, or of the program itself, is replaced where it
 * lies by a copy in pages of 2 MiB. Reading all of it then takes fewer translations of addresses;
 * the copy is the program's own, is not shared, and stays in memory. */
#ifndef BNC_HUGE_H
#define BNC_HUGE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#ifndef BNC_HUGE_SETTING
#define BNC_HUGE_SETTING "/sys/kernel/mm/transparent_hugepage/enabled"
#endif

enum { BNC_HUGE_PAGE = 2 << 20, BNC_HUGE_STEP = 32 * BNC_HUGE_PAGE };

/* Whether the system gives nobody pages of 2 MiB: a copy would cost memory for nothing. */
static inline int bnc_huge_never(void)
{
    char setting[64] = "";
    FILE *file = fopen(BNC_HUGE_SETTING, "r");
    if (!file)
        return 0;
    const int never = fgets(setting, sizeof setting, file) && strstr(setting, "[never]");
    fclose(file);
    return never;
}

/* Asks for pages of 2 MiB where memory that nobody has touched yet has room for whole ones: without
 * them reads wait for translations of addresses. */
static inline void bnc_huge_memory(void *data, size_t bytes)
{
    const uintptr_t from = ((uintptr_t)data + BNC_HUGE_PAGE - 1) / BNC_HUGE_PAGE * BNC_HUGE_PAGE;
    const uintptr_t to = ((uintptr_t)data + bytes) / BNC_HUGE_PAGE * BNC_HUGE_PAGE;
    if (from < to)
        madvise((void *)from, to - from, MADV_HUGEPAGE); /* a hint: it may be refused */
}

/* Replaces the whole pages of 2 MiB of [data, data + bytes), a step at a time, so that there is
 * never more than a step twice. Returns 0, or -1 when there is no memory: what was not replaced is
 * as before. */
static inline int bnc_huge_pages(const void *data, size_t bytes)
{
    uintptr_t at = ((uintptr_t)data + BNC_HUGE_PAGE - 1) / BNC_HUGE_PAGE * BNC_HUGE_PAGE;
    const uintptr_t end = ((uintptr_t)data + bytes) / BNC_HUGE_PAGE * BNC_HUGE_PAGE;
    for (size_t size; at < end; at += size) {
        size = end - at < BNC_HUGE_STEP ? end - at : BNC_HUGE_STEP;
        uint8_t *room = mmap(0, size + BNC_HUGE_PAGE, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED)
            return -1;
        const size_t before = (BNC_HUGE_PAGE - (uintptr_t)room % BNC_HUGE_PAGE) % BNC_HUGE_PAGE;
        uint8_t *copy = room + before;
        madvise(copy, size, MADV_HUGEPAGE);
        memcpy(copy, (const void *)at, size);
        const int moved =
            mprotect(copy, size, PROT_READ) == 0 &&
            mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)at) != MAP_FAILED;
        if (before > 0)
            munmap(room, before);
        munmap(copy + size, BNC_HUGE_PAGE - before);
        if (!moved) {
            munmap(copy, size);
            return -1;
        }
    }
    return 0;
}

enum { BNC_HUGE_MAPPINGS = 4 };

/* The read-only mappings of files in the running program that are at least `bytes` large: one of
 * them has the weights. Returns how many there are, as far as is known and at most
 * BNC_HUGE_MAPPINGS. */
static inline int bnc_huge_mappings(size_t bytes, uintptr_t where[BNC_HUGE_MAPPINGS],
                                    size_t size[BNC_HUGE_MAPPINGS])
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], access[5];
    int found = 0;
    if (!maps)
        return 0;
    while (found < BNC_HUGE_MAPPINGS && fgets(line, sizeof line, maps)) {
        unsigned long long from, to, offset, inode;
        if (sscanf(line, "%llx-%llx %4s %llx %*s %llu", &from, &to, access, &offset, &inode) == 5 &&
            strcmp(access, "r--p") == 0 && inode != 0 && to - from >= bytes) {
            where[found] = (uintptr_t)from;
            size[found++] = (size_t)(to - from);
        }
        while (!strchr(line, '\n') && fgets(line, sizeof line, maps)) /* of a long name */
            ;
    }
    fclose(maps); /* before the table changes */
    return found;
}

/* bnc_huge_pages() of all these mappings. Returns how many there were, or -1. */
static inline int bnc_huge_program(size_t bytes)
{
    uintptr_t where[BNC_HUGE_MAPPINGS];
    size_t size[BNC_HUGE_MAPPINGS];
    const int found = bnc_huge_mappings(bytes, where, size);
    for (int i = 0; i < found; i++)
        if (bnc_huge_pages((const void *)where[i], size[i]) != 0)
            return -1;
    return found;
}

/* Without a copy: what of these mappings is still to be read from the disk is read in pages of
 * 2 MiB, where the file system knows such. For small weights it is not worth looking. */
static inline void bnc_huge_file(size_t bytes)
{
    uintptr_t where[BNC_HUGE_MAPPINGS];
    size_t size[BNC_HUGE_MAPPINGS];
    const int found = bytes < BNC_HUGE_STEP ? 0 : bnc_huge_mappings(bytes, where, size);
    for (int i = 0; i < found; i++)
        bnc_huge_memory((void *)where[i], size[i]);
}

#endif
