/* SPDX-License-Identifier: MIT */
/* Matmul of trits and activations -1, 0, 1 for WebAssembly SIMD, layout u2_m8k64.
 *
 *     sum over k of w * q = ones of ((W ^ minus) & some) - (number of q that are not 0)
 *
 * W has as many ones for a weight as w + 1, and the activations have each bit twice; otherwise as
 * matmul_b1_m8k64.h. Bounds: as there, with twice as many bits as columns. */
#ifndef BNC_MATMUL_U2_M8K64_WASM128_H
#define BNC_MATMUL_U2_M8K64_WASM128_H

#include "matmul_b1_m8k64.h"

_Static_assert(BNC_U2_M8K64_ROWS == 8 && BNC_U2_M8K64_COLS == 64, "two words of each row");

BNC_KERNEL void bnc_matmul_u2_m8k64_wasm128(int32_t *restrict acc, const uint8_t *restrict w,
                                            const struct bnc_acts *x, int rows, int cols, int n)
{
    bnc_count_wasm128(acc, w, x, rows, cols / 32, n, 1);
}

#endif
