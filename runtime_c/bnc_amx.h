/* SPDX-License-Identifier: MIT */
/* Linux gives the tile registers of AMX only to a process that has asked for them; threads started
 * later inherit the permission. Asking again does no harm. */
#ifndef BNC_AMX_H
#define BNC_AMX_H

/* 0 when this process may use tiles. */
static inline int bnc_permit_amx(void)
{
#if defined(__linux__) && defined(__x86_64__)
    enum { ARCH_PRCTL = 158, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"((long)ARCH_PRCTL), "D"((long)REQUEST_PERMISSION), "S"((long)TILE_DATA)
                     : "rcx", "r11", "memory");
    return result == 0 ? 0 : -1;
#else
    return 0;
#endif
}

#endif
