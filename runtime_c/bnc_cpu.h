/* SPDX-License-Identifier: MIT */
/* Does this CPU have what the library was compiled for? Asked once, before any library code runs,
 * so that an old CPU gets a sentence and not an illegal instruction. The including file is itself
 * compiled for the architecture's baseline. BNC_MODEL_NEEDS comes from the emitted main.c.
 */
#ifndef BNC_CPU_H
#define BNC_CPU_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>

#include "bnc_amx.h"

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

static inline int bnc_has_avxvnni(void)
{
    unsigned a, b, c, d;
    return bnc_has_avx() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
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

static inline int bnc_has_avx512vbmi(void)
{
    unsigned a, b, c, d;
    return bnc_has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 1 & 1);
}

static inline int bnc_has_avx512popcnt(void)
{
    unsigned a, b, c, d;
    return bnc_has_avx512() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c >> 14 & 1);
}

static inline int bnc_has_amx(void)
{
    unsigned a, b, c, d;
    const unsigned tile_int8 = 1u << 24 | 1u << 25;
    return bnc_has_avx() && (bnc_xcr0() & 0x60000) == 0x60000 &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & tile_int8) == tile_int8 &&
           bnc_permit_amx() == 0;
}

static inline int bnc_has_f16c(void)
{
    unsigned a, b, c, d;
    return bnc_has_avx() && __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

static inline int bnc_has_fma(void)
{
    unsigned a, b, c, d;
    return bnc_has_avx() && __get_cpuid(1, &a, &b, &c, &d) && (c >> 12 & 1);
}
#elif defined(__linux__)
#include <sys/auxv.h>

/* Bits of AT_HWCAP as Linux sets them for this architecture. */
static inline int bnc_hwcap(int bit)
{
    return (getauxval(AT_HWCAP) >> bit & 1) != 0;
}
#endif

#if defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

#if defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))
/* Every Mac with an Arm processor has it, and the older systems among them no name to ask by. */
static inline int bnc_has_dotprod(void)
{
#if defined(__APPLE__)
    return 1;
#else
    return bnc_hwcap(20);
#endif
}

/* Macs since the M2. */
static inline int bnc_has_i8mm(void)
{
#if defined(__APPLE__)
    int has = 0;
    size_t bytes = sizeof has;
    return sysctlbyname("hw.optional.arm.FEAT_I8MM", &has, &bytes, NULL, 0) == 0 && has;
#else
    return getauxval(AT_HWCAP2) >> 13 & 1;
#endif
}
#endif

#if defined(__aarch64__)
static inline int bnc_has_neon(void)
{
    return 1; /* part of the architecture's baseline */
}
#endif

#if defined(BNC_MODEL_NEEDS)
/* Whether the library was compiled for a feature, as targets/ calls it. */
static inline int bnc_cpu_needs(const char *feature)
{
    static const char *const needed[] = { BNC_MODEL_NEEDS };
    for (size_t i = 0; needed[i]; i++)
        if (strcmp(needed[i], feature) == 0)
            return 1;
    return 0;
}

/* Adds a name to a list of them, when there is room. */
static inline void bnc_cpu_add(char *names, size_t bytes, const char *name)
{
    const size_t used = strlen(names), gap = used ? 2 : 0;
    if (used + gap + strlen(name) < bytes) {
        memcpy(names + used, ", ", gap);
        memcpy(names + used + gap, name, strlen(name) + 1);
    }
}

/* Writes the names of what is lacking, and of everything that this CPU has; returns whether
 * anything is lacking. */
static inline int bnc_cpu_lacks(char *lacks, char *has, size_t bytes)
{
    const struct {
        const char *feature, *name;
        int has;
    } known[] = {
#if defined(__x86_64__)
        { "sse41", "SSE4.1", bnc_has_sse41() },
        { "avx2", "AVX2", bnc_has_avx2() },
        { "f16c", "F16C", bnc_has_f16c() },
        { "fma", "FMA", bnc_has_fma() },
        { "avxvnni", "AVX-VNNI", bnc_has_avxvnni() },
        { "avx512", "AVX-512 (F, BW, DQ, VL)", bnc_has_avx512() },
        { "avx512vnni", "AVX-512 VNNI", bnc_has_avx512vnni() },
        { "avx512vbmi", "AVX-512 VBMI", bnc_has_avx512vbmi() },
        { "avx512popcnt", "AVX-512 VPOPCNTDQ", bnc_has_avx512popcnt() },
        { "amx", "AMX int8", bnc_has_amx() },
#elif defined(__aarch64__) && (defined(__linux__) || defined(__APPLE__))
        { "neon", "NEON", bnc_has_neon() },
        { "dotprod", "the dot product (asimddp)", bnc_has_dotprod() },
        { "i8mm", "int8 matrix multiplication (i8mm)", bnc_has_i8mm() },
#elif defined(__arm__) && defined(__linux__)
        { "neon32", "NEON", bnc_hwcap(12) },
#elif defined(__riscv) && defined(__linux__)
        { "rvv", "the vector extension (V)", bnc_hwcap('V' - 'A') },
#endif
        { "", "", 1 },
    };
    int lacking = 0;
    lacks[0] = has[0] = '\0';
    for (size_t i = 0; i + 1 < sizeof known / sizeof *known; i++)
        if (known[i].has) {
            bnc_cpu_add(has, bytes, known[i].name);
        } else if (bnc_cpu_needs(known[i].feature)) {
            bnc_cpu_add(lacks, bytes, known[i].name);
            lacking = 1;
        }
    return lacking;
}
#endif

#endif
