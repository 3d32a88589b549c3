/* SPDX-License-Identifier: MIT */
/* Does this CPU have what the library was compiled for? Asked once, before any library code runs,
 * so that an old CPU gets a sentence and not an illegal instruction. The including file is itself
 * compiled for the architecture's baseline. BNC_NEEDS_<FEATURE> come from the emitted main.c.
 */
#ifndef BNC_CPU_H
#define BNC_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

/* Bits of XCR0: the operating system saves the upper halves of the vector registers. */
static inline uint32_t bnc_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static inline int bnc_has_avx(void)
{
    unsigned a, b, c, d;
    const unsigned osxsave_avx = 1u << 27 | 1u << 28;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & osxsave_avx) == osxsave_avx &&
           (bnc_xcr0() & 6) == 6;
}

static inline int bnc_has_sse41(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 19 & 1);
}

static inline int bnc_has_avx2(void)
{
    unsigned a, b, c, d;
    return bnc_has_avx() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 5 & 1);
}

static inline int bnc_has_avx512(void)
{
    unsigned a, b, c, d;
    const unsigned f_dq_bw_vl = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
    return bnc_has_avx() && (bnc_xcr0() & 0xe6) == 0xe6 &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & f_dq_bw_vl) == f_dq_bw_vl;
}

static inline int bnc_has_avx512vnni(void)
{
    unsigned a, b, c, d;
    return bnc_has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 11 & 1);
}

static inline int bnc_has_f16c(void)
{
    unsigned a, b, c, d;
    return bnc_has_avx() && __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}
#elif defined(__linux__)
#include <sys/auxv.h>

/* Bits of AT_HWCAP as Linux sets them for this architecture. */
static inline int bnc_hwcap(int bit)
{
    return (getauxval(AT_HWCAP) >> bit & 1) != 0;
}
#endif

/* Writes the names of what is lacking, separated by ", "; returns whether anything is. */
static inline int bnc_cpu_lacks(char *names, size_t bytes)
{
    size_t used = 0;
    const struct {
        const char *name;
        int has;
    } needs[] = {
#if defined(BNC_NEEDS_SSE41)
        { "SSE4.1", bnc_has_sse41() },
#endif
#if defined(BNC_NEEDS_AVX2)
        { "AVX2", bnc_has_avx2() },
#endif
#if defined(BNC_NEEDS_F16C)
        { "F16C", bnc_has_f16c() },
#endif
#if defined(BNC_NEEDS_AVX512)
        { "AVX-512 (F, BW, DQ, VL)", bnc_has_avx512() },
#endif
#if defined(BNC_NEEDS_AVX512VNNI)
        { "AVX-512 VNNI", bnc_has_avx512vnni() },
#endif
#if defined(BNC_NEEDS_DOTPROD)
        { "the dot product (asimddp)", bnc_hwcap(20) },
#endif
#if defined(BNC_NEEDS_NEON32)
        { "NEON", bnc_hwcap(12) },
#endif
#if defined(BNC_NEEDS_RVV)
        { "the vector extension (V)", bnc_hwcap('V' - 'A') },
#endif
        { "", 1 },
    };
    names[0] = '\0';
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        if (!needs[i].has && used + strlen(needs[i].name) + 3 < bytes) {
            if (used) {
                memcpy(names + used, ", ", 2);
                used += 2;
            }
            memcpy(names + used, needs[i].name, strlen(needs[i].name) + 1);
            used += strlen(needs[i].name);
        }
    return used > 0;
}

#endif
