/* SPDX-License-Identifier: MIT */
/* Ternary matmul for the DSP extension of Cortex-M (Armv7E-M, Armv8-M), layout i2_m4k64.
 *
 *     sum over k of (code - 1) * q = sum of code * q - sum of q,   code = trit + 1 in 0 .. 2
 *
 * Four bytes of a row hold four columns of each of the block's four quarters. SMLAD multiplies two
 * columns and adds both products: SXTB16 widens columns 0 and 2, or 1 and 3, of four activations,
 * and an AND with a shifted operand leaves the codes of the same two. Activations are widened once
 * for four rows.
 * Bounds: |code * q| <= 254, two of them are added at a time: int32 lasts for 8.4 million columns.
 * 2^20 are allowed: as many as an emulated board has memory to check. */
#ifndef BNC_MATMUL_I2_M4K64_DSP_H
#define BNC_MATMUL_I2_M4K64_DSP_H

#include <arm_acle.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_I2_M4K64_ROWS == 4 && BNC_I2_M4K64_COLS == 64, "unrolled by hand");

BNC_INLINE uint32_t bnc_word_dsp(const void *from)
{
    uint32_t word;
    memcpy(&word, from, sizeof word);
    return word;
}

/* sum + codes at bits `shift` of columns 0 to 3, times their activations. */
BNC_INLINE int32_t bnc_add4_dsp(int32_t sum, uint32_t codes, int shift, int16x2_t even,
                                int16x2_t odd)
{
    const uint32_t two = 0x00030003u;
    sum = __smlad((int16x2_t)(codes >> shift & two), even, sum);
    return __smlad((int16x2_t)(codes >> (shift + 8) & two), odd, sum);
}

/* Adds two quarters of the block, those at bits `shift` + 2 and `shift`, of columns l to l + 3. */
BNC_INLINE void bnc_half_dsp(int32_t sum[4], const uint8_t *w, const int8_t *q, int l, int shift)
{
    const int first = (6 - shift - 2) / 2; /* the quarter at the higher bits */
    const uint32_t a = bnc_word_dsp(q + 16 * first + l), b = bnc_word_dsp(q + 16 * first + 16 + l);
    /* The rotation by eight is part of SXTB16. */
    const int16x2_t a_even = __sxtb16((int8x4_t)a), a_odd = __sxtb16((int8x4_t)(a >> 8 | a << 24));
    const int16x2_t b_even = __sxtb16((int8x4_t)b), b_odd = __sxtb16((int8x4_t)(b >> 8 | b << 24));
    for (int r = 0; r < 4; r++) {
        const uint32_t codes = bnc_word_dsp(w + 16 * r + l);
        sum[r] = bnc_add4_dsp(sum[r], codes, shift + 2, a_even, a_odd);
        sum[r] = bnc_add4_dsp(sum[r], codes, shift, b_even, b_odd);
    }
}

/* acc = codes * q - zero * sum of q. zero: constant once inlined */
BNC_INLINE void bnc_codes_m4k64_dsp(int32_t *restrict acc, const uint8_t *restrict w,
                                    const struct bnc_acts *x, int rows, int cols, int n, int zero)
{
    const int blocks = cols / BNC_I2_M4K64_COLS;
    for (int m = 0; m < rows; m += 4) {
        for (int i = 0; i < n; i++) {
            const uint8_t *codes = w;
            const int8_t *q = x->q + i * x->stride;
            int32_t sum[4] = { 0, 0, 0, 0 };
            for (int kb = 0; kb < blocks; kb++) {
                for (int l = 0; l < 16; l += 4) {
                    bnc_half_dsp(sum, codes, q, l, 4);
                    bnc_half_dsp(sum, codes, q, l, 0);
                }
                codes += 64;
                q += BNC_I2_M4K64_COLS;
            }
            for (int r = 0; r < 4; r++)
                acc[i * rows + m + r] = sum[r] - zero * x->sum[i];
        }
        w += (ptrdiff_t)blocks * 64;
    }
}

BNC_KERNEL void bnc_matmul_i2_m4k64_dsp(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_codes_m4k64_dsp(acc, w, x, rows, cols, n, 1);
}

#endif
