/* SPDX-License-Identifier: MIT */
/* Activations in the forms that matmul kernels read: rules 3 and 15 of docs/arithmetic.md.
 *
 *     scale = 127 / max(max |x|, 1e-5), or what the model says for all tokens
 *     q = clamp(round_half_even(x * scale), -127, 127)
 *
 * |q| <= 127 always: kernels rely on it. Of the first kind of scale, |x| * scale exceeds 127 by
 * less than one part in 2^22, so that no code is clamped.
 */
#ifndef BNC_QUANTISE_H
#define BNC_QUANTISE_H

#include "bnc_math.h"

/* Up to BATCH tokens, quantised once for all matrices that read them. */
struct bnc_acts {
    int8_t *q;    /* [n][stride]; zeros from the last column to the stride */
    int32_t *sum; /* [n]: sum of q, for kernels that compute with the codes trit + 1 */
    float *scale; /* [n] */
    uint8_t *lut; /* [n][stride / 2][32], see bnc_build_lut16(); null when no kernel reads it */
    int stride;   /* columns between two tokens: the widest padded matrix of the model */
    float *f;     /* [n][f_stride]: the floats themselves; null when no matrix reads them */
    int f_stride; /* a multiple of 64; zeros from the last column on */
};

/* Quantises x[cols] as token i, by a given scale. */
BNC_INLINE void bnc_quantise_by(struct bnc_acts *acts, int i, const float *x, int cols, float scale)
{
    int8_t *restrict q = acts->q + i * acts->stride;
    int32_t sum = 0;
    for (int k = 0; k < cols; k++) {
        float v = x[k] * scale;
        v = v < 127.0f ? v : 127.0f;
        v = v > -127.0f ? v : -127.0f;
        const int32_t code = (int32_t)bnc_round(v);
        q[k] = (int8_t)code;
        sum += code;
    }
    memset(q + cols, 0, (size_t)(acts->stride - cols));
    acts->sum[i] = sum;
    acts->scale[i] = scale;
}

/* Quantises x[cols] as token i, by its largest magnitude. */
BNC_INLINE void bnc_quantise(struct bnc_acts *acts, int i, const float *x, int cols)
{
    uint32_t largest = 0; /* bits of |x| order as |x| does, and integers reduce in any order */
    for (int k = 0; k < cols; k++) {
        const uint32_t magnitude = bnc_bits(x[k]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    const float absmax = bnc_float(largest);
    bnc_quantise_by(acts, i, x, cols, 127.0f / (absmax > 1e-5f ? absmax : 1e-5f));
}

/* Look-up tables of token i for kernels with activation form "lut16". For each pair of columns
 * (2p, 2p+1) and each pair code c = 3 * (t0 + 1) + (t1 + 1), entry c is
 *
 *     t0 * q[2p] + t1 * q[2p+1],   |entry| <= 254,
 *
 * as sixteen low bytes followed by sixteen high bytes (two's complement); codes 9 to 15 are 0. */
BNC_INLINE void bnc_build_lut16(struct bnc_acts *acts, int i, int cols)
{
    const int8_t *q = acts->q + i * acts->stride;
    uint8_t *table = acts->lut + (ptrdiff_t)i * acts->stride * 16;
    for (int p = 0; p < cols / 2; p++, table += 32) {
        const int a = q[2 * p], b = q[2 * p + 1];
        const int entry[16] = { -a - b, -a, b - a, -b, 0, b, a - b, a, a + b };
        for (int c = 0; c < 16; c++) {
            table[c] = (uint8_t)(entry[c] & 0xff);
            table[16 + c] = (uint8_t)(entry[c] >> 8 & 0xff);
        }
    }
}

#endif
