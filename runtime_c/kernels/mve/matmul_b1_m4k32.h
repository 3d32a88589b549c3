/* SPDX-License-Identifier: MIT */
/* Matmul of signs for Helium (MVE of Armv8.1-M, the integer part), layout b1_m4k32.
 *
 *     sum over k of (2 * bit - 1) * q = 2 * sum of bit * q - sum of q
 *
 * A byte has two columns of four rows. VMLADAVA multiplies sixteen codes and activations and adds
 * all products to a general register. Bits of a row are masked where they lie, so that its sum is
 * 8, 4, 2 or 1 times as large; those of the first column after a shift by four. The four masks and
 * what is masked fill the registers. Bounds: |8 * q| <= 1016: int32 lasts for 2.1 million columns.
 * 2^20 are allowed: as many as an emulated board has memory to check. */
#ifndef BNC_MATMUL_B1_M4K32_MVE_H
#define BNC_MATMUL_B1_M4K32_MVE_H

#include <arm_mve.h>

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

_Static_assert(BNC_B1_M4K32_ROWS == 4 && BNC_B1_M4K32_COLS == 32, "unrolled by hand");

BNC_INLINE int32_t bnc_bits_mve(int32_t sum, uint8x16_t c, uint8x16_t mask, int8x16_t x)
{
    return vmladavaq_s8(sum, vreinterpretq_s8_u8(vandq_u8(c, mask)), x);
}

BNC_KERNEL void bnc_matmul_b1_m4k32_mve(int32_t *restrict acc, const uint8_t *restrict w,
                                        const struct bnc_acts *acts, int rows, int cols, int n)
{
    uint8x16_t mask[4]; /* of each row's bit in the lower half of a byte */
    for (int r = 0; r < 4; r++) {
        mask[r] = vdupq_n_u8((uint8_t)(8 >> r));
        __asm__("" : "+w"(mask[r])); /* or Clang would make it anew for each use */
    }
    for (int m = 0; m < rows; m += 4, w += (ptrdiff_t)cols / 2) { /* eight signs a byte */
        for (int i = 0; i < n; i++) {
            const uint8_t *bits = w;
            const int8_t *q = acts->q + i * acts->stride;
            int32_t sum[4] = { 0, 0, 0, 0 };
            for (int k = 0; k < cols; k += BNC_B1_M4K32_COLS, bits += 16, q += BNC_B1_M4K32_COLS) {
                uint8x16_t c = vldrbq_u8(bits);
                __asm__ volatile("" : "+w"(c)); /* not kept masked, on the stack, for all tokens */
                for (int half = 1; half >= 0; half--) {
                    const int8x16_t x = vldrbq_s8(q + 16 * half);
                    for (int r = 0; r < 4; r++)
                        sum[r] = bnc_bits_mve(sum[r], c, mask[r], x);
                    c = vshrq_n_u8(c, 4);
                }
            }
            int32_t *to = acc + i * rows + m;
            to[0] = (sum[0] >> 2) - acts->sum[i]; /* 2 * sum / 8 */
            to[1] = (sum[1] >> 1) - acts->sum[i];
            to[2] = sum[2] - acts->sum[i];
            to[3] = 2 * sum[3] - acts->sum[i];
        }
    }
}

#endif
