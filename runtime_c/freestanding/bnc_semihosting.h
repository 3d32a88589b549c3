/* SPDX-License-Identifier: MIT */
/* Input and output through a debugger or an emulator: Arm semihosting, 32 bits, M profile. */
#ifndef BNC_SEMIHOSTING_H
#define BNC_SEMIHOSTING_H

#include <stddef.h>
#include <stdint.h>

enum bnc_semihosting {
    BNC_SYS_OPEN = 0x01,
    BNC_SYS_WRITE = 0x05,
    BNC_SYS_READ = 0x06,
    BNC_SYS_GET_CMDLINE = 0x15,
    BNC_SYS_EXIT_EXTENDED = 0x20
};

static inline int bnc_semihosting(enum bnc_semihosting operation, const void *block)
{
    register int r0 __asm__("r0") = (int)operation;
    register const void *r1 __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

/* A handle of the debugger's console: 0 to read, 4 to write, 8 to write errors; -1 if it has none.
 */
static inline int bnc_console(int mode)
{
    static const char name[] = ":tt";
    const uintptr_t block[] = { (uintptr_t)name, (uintptr_t)mode, sizeof name - 1 };
    return bnc_semihosting(BNC_SYS_OPEN, block);
}

/* Returns 0, or -1 when not all was written. */
static inline int bnc_console_write(int handle, const void *from, size_t bytes)
{
    const uintptr_t block[] = { (uintptr_t)handle, (uintptr_t)from, bytes };
    return bnc_semihosting(BNC_SYS_WRITE, block) == 0 ? 0 : -1;
}

/* Returns how many bytes were read, 0 at the end of the input. */
static inline size_t bnc_console_read(int handle, void *to, size_t bytes)
{
    const uintptr_t block[] = { (uintptr_t)handle, (uintptr_t)to, bytes };
    const int missing = bnc_semihosting(BNC_SYS_READ, block);
    return missing < 0 || (size_t)missing > bytes ? 0 : bytes - (size_t)missing;
}

/* The command line in `to`, terminated; -1 when there is none or it is longer. */
static inline int bnc_command_line(char *to, size_t bytes)
{
    uintptr_t block[] = { (uintptr_t)to, bytes };
    return bnc_semihosting(BNC_SYS_GET_CMDLINE, block);
}

_Noreturn static inline void bnc_exit(int code)
{
    const uintptr_t block[] = { 0x20026, (uintptr_t)code }; /* the application ends */
    for (;;)
        bnc_semihosting(BNC_SYS_EXIT_EXTENDED, block);
}

#endif
