/* SPDX-License-Identifier: MIT */
/* Activations in the forms that matmul kernels read: rules 3, 15 and 16 of docs/arithmetic.md.
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

enum { BNC_LUT = 12 }; /* bytes of bnc_acts.lut a column: 4 for the list, 8 for the tables */

/* Codes of an activation before a block's matrices: 255 of int8, 2 signs, or 3. */
#ifndef BNC_ACTIVATION_LEVELS
#define BNC_ACTIVATION_LEVELS 255
#endif

/* Up to BATCH tokens, quantised once for all matrices that read them. */
struct bnc_acts {
    int8_t *q;    /* [n][stride]; zeros from the last column to the stride */
    int32_t *sum; /* [n]: sum of q, for kernels that compute with the codes trit + 1 */
    float *scale; /* [n] */
    uint8_t *lut; /* [n][stride * BNC_LUT], see bnc_build_lut16(); null when no kernel reads it */
    /* [n][stride], see bnc_build_bits(); null when no kernel reads it */
    uint8_t *bits;
    int stride;   /* columns between two tokens: the widest padded matrix of the model */
    float *f;     /* [n][f_stride]: the floats themselves; null when no matrix reads them */
    int f_stride; /* a multiple of 64; zeros from the last column on */
};

/* Token 0 of acts from now on lies in the place of token i, with sum and scale elsewhere: for a
 * worker that quantises the same token as others do. */
BNC_INLINE void bnc_own_acts(struct bnc_acts *acts, int i, int32_t *sum, float *scale)
{
    if (acts->lut)
        acts->lut += (ptrdiff_t)i * acts->stride * BNC_LUT;
    if (acts->bits)
        acts->bits += (ptrdiff_t)i * acts->stride;
    if (acts->q)
        acts->q += (ptrdiff_t)i * acts->stride;
    if (acts->f)
        acts->f += (ptrdiff_t)i * acts->f_stride;
    acts->sum = sum;
    acts->scale = scale;
}

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

/* 1 / max(mean |x|, 1e-5), the mean of cols elements. */
BNC_INLINE float bnc_mean_scale(const float *x, int cols)
{
    struct bnc_lanes sum = bnc_lanes_zero();
    for (int k = 0; k < cols; k += BNC_LANES) {
        float part[BNC_LANES] = { 0 };
        const int count = cols - k < BNC_LANES ? cols - k : BNC_LANES;
        for (int l = 0; l < count; l++)
            part[l] = bnc_float(bnc_bits(x[k + l]) & 0x7fffffffu);
        sum = bnc_lanes_add(sum, bnc_lanes_load(part));
    }
    const float mean = bnc_lanes_sum(sum) / (float)cols;
    return 1.0f / (mean > 1e-5f ? mean : 1e-5f);
}

/* x[cols] as signs, those of zeros +1. */
BNC_INLINE void bnc_quantise_signs(struct bnc_acts *acts, int i, const float *x, int cols)
{
    int8_t *restrict q = acts->q + i * acts->stride;
    int32_t sum = 0;
    for (int k = 0; k < cols; k++) {
        const int8_t code = bnc_bits(x[k]) > 0x80000000u ? -1 : 1; /* denormals have signs, too */
        q[k] = code;
        sum += code;
    }
    memset(q + cols, 0, (size_t)(acts->stride - cols));
    acts->sum[i] = sum;
    acts->scale[i] = bnc_mean_scale(x, cols);
}

/* x[cols] as -1, 0 and 1: clamp(round_half_even(x * scale), -1, 1). */
BNC_INLINE void bnc_quantise_trits(struct bnc_acts *acts, int i, const float *x, int cols)
{
    int8_t *restrict q = acts->q + i * acts->stride;
    const float scale = bnc_mean_scale(x, cols);
    int32_t sum = 0;
    for (int k = 0; k < cols; k++) {
        const float v = x[k] * scale;
        const int8_t code = (int8_t)((v > 0.5f) - (v < -0.5f)); /* half goes to the even 0 */
        q[k] = code;
        sum += code;
    }
    memset(q + cols, 0, (size_t)(acts->stride - cols));
    acts->sum[i] = sum;
    acts->scale[i] = scale;
}

/* Look-up tables of token i for kernels with activation form "lut16". For each pair of columns
 * (2p, 2p+1) and each pair code c = 3 * (t0 + 1) + (t1 + 1), entry c of sixteen is, in one byte,
 *
 *     t0 * q[2p] + t1 * q[2p+1];   codes 9 to 15 are 0.
 *
 * |entry| <= |q[2p]| + |q[2p+1]|. Where that sum exceeds 127 the pair is wide: its table leaves
 * q[2p+1] out, and a list names the pair, so that the kernel adds t1 * q[2p+1] apart. The token's
 * largest |q| is 127, so few pairs of real activations are wide (one in forty of normal ones),
 * and a kernel is exact whatever their number. */
/* [1 + number]: the number of wide pairs, then each as pair << 8 | (uint8_t)q[2 * pair + 1], in
 * order. At most stride / 2 of them. */
BNC_INLINE uint32_t *bnc_lut_wide(const struct bnc_acts *acts, int i)
{
    return (uint32_t *)(void *)(acts->lut + (ptrdiff_t)i * acts->stride * BNC_LUT);
}

/* [stride / 2][16] */
BNC_INLINE int8_t *bnc_lut_tables(const struct bnc_acts *acts, int i)
{
    return (int8_t *)(bnc_lut_wide(acts, i) + acts->stride);
}

/* The first wide pair of the list that is not below `pair`. */
BNC_INLINE const uint32_t *bnc_lut_from(const uint32_t *wide, int pair)
{
    const uint32_t key = (uint32_t)pair << 8;
    uint32_t low = 0, high = wide[0];
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (wide[1 + middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return wide + 1 + low;
}

typedef int8_t bnc_lut_table __attribute__((vector_size(16)));
static const bnc_lut_table BNC_LUT_FIRST = { -1, -1, -1, 0, 0, 0, 1, 1, 1 };  /* t0 of a code */
static const bnc_lut_table BNC_LUT_SECOND = { -1, 0, 1, -1, 0, 1, -1, 0, 1 }; /* t1 */

BNC_INLINE void bnc_build_lut16(struct bnc_acts *acts, int i, int cols)
{
    const int8_t *q = acts->q + i * acts->stride;
    uint32_t *wide = bnc_lut_wide(acts, i);
    int8_t *table = bnc_lut_tables(acts, i);
    uint32_t number = 0;
    for (int p = 0; p < cols / 2; p++, table += 16) {
        const int8_t a = q[2 * p], b = q[2 * p + 1];
        const int fits = (a < 0 ? -a : a) + (b < 0 ? -b : b) <= 127;
        bnc_lut_table t = BNC_LUT_FIRST * a;
        if (fits)
            t += BNC_LUT_SECOND * b;
        else
            wide[++number] = (uint32_t)p << 8 | (uint8_t)b;
        memcpy(table, &t, sizeof t);
    }
    wide[0] = number;
}

/* Planes of bits of token i for kernels with activation form "bits"; codes are -1, 0 and 1. In
 * words of 64 bits, little-endian and not aligned:
 *
 *     the number of codes that are not 0
 *     [stride / 64][2]: for 64 columns, whether a code is negative, and whether it is not 0;
 *                       columns lie as in layout b1_m8k64
 *     [stride / 32][2]: the same for 32 columns, each bit twice, as in layout u2_m8k64
 *
 * A weight's bits are inverted where the code is negative and left out where it is 0. What is left
 * has as many ones as sum of (w + 1) / 2 over the products w of signs, or sum of w + 1 over those
 * of trits: 7 / 8 of stride bytes at most, for stride >= 64. */
BNC_INLINE void bnc_put_word(uint8_t *to, uint64_t word)
{
    memcpy(to, &word, sizeof word);
}

BNC_INLINE uint64_t bnc_word(const void *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

BNC_INLINE int bnc_popcount(uint64_t v)
{
#if defined(__POPCNT__) || defined(__aarch64__) || defined(__wasm__)
    return __builtin_popcountll(v);
#else
    v -= v >> 1 & 0x5555555555555555u;
    v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (int)(v * 0x0101010101010101u >> 56);
#endif
}

BNC_INLINE int32_t bnc_bits_nonzero(const struct bnc_acts *acts, int i)
{
    return (int32_t)bnc_word(acts->bits + (ptrdiff_t)i * acts->stride);
}

/* Pairs of words: for 64 columns each, or (`twice`) for 32. */
BNC_INLINE uint8_t *bnc_bits_planes(const struct bnc_acts *acts, int i, int twice)
{
    return acts->bits + (ptrdiff_t)i * acts->stride + 8 + (twice ? acts->stride / 64 * 16 : 0);
}

BNC_INLINE void bnc_build_bits(struct bnc_acts *acts, int i)
{
    const uint64_t ones = 0x0101010101010101u;
    const int8_t *q = acts->q + (ptrdiff_t)i * acts->stride;
    uint8_t *once = bnc_bits_planes(acts, i, 0), *twice = bnc_bits_planes(acts, i, 1);
    int nonzero = 0;
    for (int k = 0; k + 64 <= acts->stride; k += 64, once += 16, twice += 32) {
        uint64_t minus = 0, some = 0;
        for (int half = 0; half < 2; half++) {
            uint64_t minus2 = 0, some2 = 0;
            for (int j = 0; j < 4; j++) {
                const uint64_t v = bnc_word(q + k + 32 * half + 8 * j);
                const uint64_t is_minus = v >> 7 & ones, is_some = v & ones;
                minus |= is_minus << (7 - 4 * half - j);
                some |= is_some << (7 - 4 * half - j);
                minus2 |= is_minus << (7 - 2 * j);
                some2 |= is_some << (7 - 2 * j);
            }
            bnc_put_word(twice + 16 * half, minus2 | minus2 >> 1);
            bnc_put_word(twice + 16 * half + 8, some2 | some2 >> 1);
        }
        bnc_put_word(once, minus);
        bnc_put_word(once + 8, some);
        nonzero += bnc_popcount(some);
    }
    bnc_put_word(acts->bits + (ptrdiff_t)i * acts->stride, (uint64_t)nonzero);
}

/* Whether kernels read tables of one token only: those for WebAssembly. */
#if defined(__wasm__)
enum { BNC_LUT_OF_ONE = 1 };
#else
enum { BNC_LUT_OF_ONE = 0 };
#endif

/* The tables of token i of n that go through a block together, where they are read. */
BNC_INLINE void bnc_make_tables(struct bnc_acts *acts, int i, int n)
{
    if (acts->lut && (n == 1 || !BNC_LUT_OF_ONE))
        bnc_build_lut16(acts, i, acts->stride);
}

/* Token i of n in every form of codes that the matrices of blocks read. */
BNC_INLINE void bnc_codes(struct bnc_acts *acts, int i, const float *x, int cols, int n)
{
#if BNC_ACTIVATION_LEVELS == 2
    bnc_quantise_signs(acts, i, x, cols);
#elif BNC_ACTIVATION_LEVELS == 3
    bnc_quantise_trits(acts, i, x, cols);
#else
    bnc_quantise(acts, i, x, cols);
#endif
    if (acts->bits)
        bnc_build_bits(acts, i);
    bnc_make_tables(acts, i, n);
}

#endif
