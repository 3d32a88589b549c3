/* SPDX-License-Identifier: MIT */
/* Loads of 16 bytes, each an LDR. Compilers make one LDP of two neighbours, which by the models of
 * llvm-mca keeps a Cortex-A55's load unit for six cycles instead of two, and is three operations
 * that a Cortex-A76 has to take together. */
#ifndef BNC_NEON_LOAD_H
#define BNC_NEON_LOAD_H

#include <arm_neon.h>

#include "../../bnc_lanes.h"

typedef uint8x16_t bnc_bytes_neon __attribute__((aligned(1), may_alias));

BNC_INLINE uint8x16_t bnc_load_neon(const void *at)
{
    return *(const volatile bnc_bytes_neon *)at; /* volatile loads are never joined */
}

BNC_INLINE int8x16_t bnc_load_codes_neon(const void *at)
{
    return vreinterpretq_s8_u8(bnc_load_neon(at));
}

#endif
