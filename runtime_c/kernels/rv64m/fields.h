/* SPDX-License-Identifier: MIT */
/* Four products and their sum by one 64-bit multiplication: what kernels for RV64 without vectors
 * share.
 *
 *     (sum of c[i] * 2^(16 i)) * (sum of q[i] * 2^(16 (3 - i))) = sum of f[j] * 2^(16 j) modulo
 * 2^64
 *
 * f[3] is the sum of c[i] * q[i], and f[0] to f[2] are sums of fewer products. Codes stand 16 bits
 * apart in every other byte of a word of weights, so that a shift and a mask give four of them.
 * Activations are put together once for all rows, 512 columns at a time.
 * Bounds: of products that were added up, |f[j]| < 2^15: f[3] is then what a shift by 48 leaves
 * once 2^47 is added, which makes up for what f[0] to f[2] borrow. A block adds at most 16 * 4 *
 * 3 * 127, of codes up to 3. */
#ifndef BNC_RV64M_FIELDS_H
#define BNC_RV64M_FIELDS_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

enum { BNC_FIELDS_COLS = 512, BNC_FIELDS_ROWS = 4 };
_Static_assert(16 * 4 * 3 * 127 < 1 << 15, "fields of 16 bits");

/* For each plane of 16 columns and each half of it, those at even places and those at odd ones. */
BNC_INLINE void bnc_fields(uint64_t *to, const int8_t *q, int cols)
{
    for (int k = 0; k < cols; k += 8)
        for (int odd = 0; odd < 2; odd++) {
            uint64_t word = 0;
            for (int i = 0; i < 4; i++)
                word += (uint64_t)(int64_t)q[k + 2 * i + odd] << (48 - 16 * i);
            *to++ = word;
        }
}

/* sum[r] += one block of `planes` planes, for rows that are `apart` bytes apart; `rows` and
 * `planes` are constant once inlined. */
BNC_INLINE void bnc_block_fields(int32_t *sum, const uint8_t *w, ptrdiff_t apart,
                                 const uint64_t *fields, int rows, int planes)
{
    const int bits = 8 / planes;
    const uint64_t mask = 0x0001000100010001u * (uint64_t)((1 << bits) - 1);
    uint64_t f[BNC_FIELDS_ROWS] = { 0 };
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        uint64_t codes[BNC_FIELDS_ROWS];
        for (int r = 0; r < rows; r++)
            codes[r] = bnc_word(__builtin_assume_aligned(w + r * apart + 8 * half, 8));
#pragma GCC unroll 16
        for (int part = 0; part < 2 * planes; part++) { /* even and odd places of a plane */
            const int plane = part / 2, odd = part % 2;
            const uint64_t x = fields[4 * plane + 2 * half + odd];
            const int shift = 8 * odd + 8 - bits * (plane + 1);
            uint64_t product[BNC_FIELDS_ROWS]; /* cores in order wait for no product at once */
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                product[r] = (codes[r] >> shift & mask) * x;
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                f[r] += product[r];
                __asm__ volatile("" : "+r"(f[r])); /* in this order, or registers are spilled */
            }
        }
    }
    for (int r = 0; r < rows; r++)
        sum[r] += (int32_t)((int64_t)(f[r] + (UINT64_C(1) << 47)) >> 48);
}

/* acc[m] += code * q of `rows` rows of `cols` columns, of all `bytes` of a row. */
BNC_INLINE void bnc_rows_fields(int32_t *acc, const uint8_t *w, ptrdiff_t bytes,
                                const uint64_t *fields, int cols, int rows, int planes)
{
    int32_t sum[BNC_FIELDS_ROWS] = { 0 };
    for (int k = 0; k < cols; k += 16 * planes, w += 16, fields += 4 * planes) {
        __builtin_prefetch(w + 4096);
        bnc_block_fields(sum, w, bytes, fields, rows, planes);
    }
    for (int r = 0; r < rows; r++)
        acc[r] += sum[r];
}

/* acc = sum of code * q */
BNC_INLINE void bnc_matmul_fields(int32_t *restrict acc, const uint8_t *restrict w,
                                  const struct bnc_acts *x, int rows, int cols, int n, int planes)
{
    const ptrdiff_t bytes = cols / planes;
    memset(acc, 0, BNC_ACC_BYTES(rows, n));
    for (int i = 0; i < n; i++)
        for (int first = 0; first < cols; first += BNC_FIELDS_COLS) {
            const int left = cols - first, count = left < BNC_FIELDS_COLS ? left : BNC_FIELDS_COLS;
            uint64_t fields[BNC_FIELDS_COLS / 4];
            int32_t *to = acc + i * rows;
            const uint8_t *at = w + first / planes;
            int m = 0;
            bnc_fields(fields, x->q + i * x->stride + first, count);
            for (; m + BNC_FIELDS_ROWS <= rows; m += BNC_FIELDS_ROWS)
                bnc_rows_fields(to + m, at + m * bytes, bytes, fields, count, BNC_FIELDS_ROWS,
                                planes);
            for (; m < rows; m++)
                bnc_rows_fields(to + m, at + m * bytes, bytes, fields, count, 1, planes);
        }
}

/* acc = sum of code * q - zero * sum of q, of codes of two bits. zero: constant once inlined */
BNC_INLINE void bnc_codes_k64_fields(int32_t *restrict acc, const uint8_t *restrict w,
                                     const struct bnc_acts *x, int rows, int cols, int n, int zero)
{
    bnc_matmul_fields(acc, w, x, rows, cols, n, 4);
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++)
            acc[i * rows + m] -= zero * x->sum[i];
}

#endif
