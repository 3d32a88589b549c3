/* SPDX-License-Identifier: MIT */
/* The float32 layer of the forward pass. Every function is the formula of docs/arithmetic.md
 * in + - * / sqrt only, so that all targets and bitnetc/reference.py agree in every bit.
 * Build with -ffp-contract=off: a fused multiply-add rounds once where the formula rounds twice.
 */
#ifndef BNC_MATH_H
#define BNC_MATH_H

#include "bnc_lanes.h"

#if defined(__F16C__) || defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

BNC_INLINE float bnc_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

BNC_INLINE uint32_t bnc_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* x to the nearest integer, ties to even; |x| <= 2^22. Adding 1.5 * 2^23 leaves no fraction bits.
 */
BNC_INLINE float bnc_round(float x)
{
    const float shift = 12582912.0f; /* check: 12582912 == 3 * 2**22 */
    return (x + shift) - shift;
}

/* exp(x) for x <= 0; exactly 0 where the result would be below 2^-100.
 *
 *     n = round(x * log2(e));  r = (x - n * ln2_high) - n * ln2_low;  exp(x) = 2^n * p(r)
 *
 * |r| <= 0.3466; ln2_high has 9 significant bits, so n * ln2_high is exact. p is the Taylor
 * polynomial of degree 7 in Horner form. Over all float32 of the range the error is below 1.22 ulp,
 * and 99.2 % of the results are the nearest float (tests/kernels/check_exp.c). */
BNC_INLINE float bnc_exp(float x)
{
    const float clamped = x > -69.31471f ? x : -69.31471f; /* keeps 2^n normal when discarded */
    const float n = bnc_round(clamped * 1.44269504f);
    const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.98412698e-4f;
    p = p * r + 1.38888889e-3f;
    p = p * r + 8.33333333e-3f;
    p = p * r + 4.16666667e-2f;
    p = p * r + 1.66666667e-1f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const float scale = bnc_float((uint32_t)((int32_t)n + 127) << 23);
    const float y = p * scale;
    return x > -69.31471f ? y : 0.0f;
}

/* x to 13 significant bits, ties to even: its product with a float16, which has 11, or with a code
 * of 8 bits is exact in float32. Magnitudes below 2^-100 become zero, those above 2^100 that (not a
 * number, too), so that no product and no sum of products is a denormal or overflows: the last bit
 * of a product is 2^-136 or more, a product 2^116 at most. */
BNC_INLINE float bnc_shorten(float x)
{
    const uint32_t least = 27u << 23, most = 227u << 23; /* 2^-100, 2^100 */
    const uint32_t bits = bnc_bits(x), magnitude = bits & 0x7fffffffu;
    const uint32_t within = magnitude < most ? magnitude : most;
    const uint32_t rounded = (within + 0x3ffu + (within >> 11 & 1u)) & ~0x7ffu;
    return bnc_float((bits & 0x80000000u) | (magnitude < least ? 0u : rounded));
}

/* x / (1 + exp(-x)), through e = exp(-|x|) so that nothing overflows:
 * the sigmoid is 1 / (1 + e) for x >= 0 and e / (1 + e) for x < 0. */
BNC_INLINE float bnc_silu(float x)
{
    const float e = bnc_exp(x < 0.0f ? x : -x);
    return x * ((x < 0.0f ? e : 1.0f) / (1.0f + e));
}

/* 0.5 x (1 + tanh(u)) with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x / (1 + exp(-2u)): as
 * bnc_silu(), with v = 2u in the exponent. */
BNC_INLINE float bnc_gelu_tanh(float x)
{
    const float v = 1.59576912f * (x + 0.044715f * ((x * x) * x));
    const float e = bnc_exp(v < 0.0f ? v : -v);
    return x * ((v < 0.0f ? e : 1.0f) / (1.0f + e));
}

/* max(x, 0)^2 */
BNC_INLINE float bnc_relu2(float x)
{
    const float r = x > 0.0f ? x : 0.0f;
    return r * r;
}

BNC_INLINE float bnc_sqrt(float x)
{
    return __builtin_sqrtf(x); /* IEEE-754: correctly rounded, one instruction */
}

/* y[i] = (x[i] * inv) * weight[i] with inv = 1 / sqrt(sum(x[i]^2) / of + eps), of `of` elements of
 * which n are here and the others are zero. y may be x. */
BNC_INLINE void bnc_rmsnorm_of(float *y, const float *x, const float *weight, int n, int of,
                               float eps)
{
    const float inv = 1.0f / bnc_sqrt(bnc_dot(x, x, n) / (float)of + eps);
    for (int i = 0; i < n; i++)
        y[i] = (x[i] * inv) * weight[i];
}

/* The same where all elements are here. */
BNC_INLINE void bnc_rmsnorm(float *y, const float *x, const float *weight, int n, float eps)
{
    bnc_rmsnorm_of(y, x, weight, n, n, eps);
}

/* Rotates one head in place, pairing element j with j + n/2:
 *     x[j] = x[j] cos[j] - x[j+n/2] sin[j];   x[j+n/2] = x[j+n/2] cos[j] + x[j] sin[j]
 * table: cos[n/2] then sin[n/2] of one position, baked by the compiler. */
BNC_INLINE void bnc_rope(float *x, const float *table, int n)
{
    const int half = n / 2;
    const float *cosine = table, *sine = table + half;
    for (int j = 0; j < half; j++) {
        const float a = x[j], b = x[j + half];
        x[j] = a * cosine[j] - b * sine[j];
        x[j + half] = b * cosine[j] + a * sine[j];
    }
}

/* float32 -> float16 bits, round half to even, saturating at +-65504. */
BNC_INLINE uint16_t bnc_half(float x)
{
    const uint32_t sign = bnc_bits(x) >> 16 & 0x8000u;
    const uint32_t magnitude = bnc_bits(x) & 0x7fffffffu;
    const uint32_t clipped = magnitude < 0x477fe000u ? magnitude : 0x477fe000u; /* 65504 */
    /* Below 2^-14 halves are multiples of 2^-24, which is one ulp of 0.5 .. 1. */
    const uint32_t small = bnc_bits(bnc_float(clipped) + 0.5f) - 0x3f000000u;
    const uint32_t normal = (clipped + 0xfffu + (clipped >> 13 & 1u) - 0x38000000u) >> 13;
    return (uint16_t)(sign | (clipped < 0x38800000u ? small : normal));
}

/* float16 bits -> float32, exact. Finite values only: the cache holds nothing else. */
#if defined(__arm__) && defined(__ARM_FP16_FORMAT_IEEE) && defined(__ARM_FP) && (__ARM_FP & 2)
BNC_INLINE float bnc_unhalf(uint16_t h)
{
    __fp16 half;
    memcpy(&half, &h, sizeof half);
    return (float)half; /* VCVTB, which keeps denormals while FPSCR.FZ is 0 */
}
#else
BNC_INLINE float bnc_unhalf(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t magnitude = h & 0x7fffu;
    const float small = (float)(int32_t)magnitude * bnc_float(0x33800000u); /* 2^-24 */
    const float normal = bnc_float((magnitude << 13) + 0x38000000u);
    return bnc_float(bnc_bits(magnitude < 0x400u ? small : normal) | sign);
}
#endif

/* n floats to float16. */
BNC_INLINE void bnc_halves(uint16_t *y, const float *x, int n)
{
    int i = 0;
#if defined(__F16C__)
    const __m256 limit = _mm256_set1_ps(65504.0f);
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_min_ps(_mm256_loadu_ps(x + i), limit);
        v = _mm256_max_ps(v, _mm256_sub_ps(_mm256_setzero_ps(), limit));
        _mm_storeu_si128((__m128i *)(void *)(y + i), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
#endif
    for (; i < n; i++)
        y[i] = bnc_half(x[i]);
}

#if defined(__wasm_simd128__)
/* Sixteen words, each the upper half of a lane. */
BNC_INLINE struct bnc_lanes bnc_lanes_upper(const uint16_t *h)
{
    struct bnc_lanes s;
    const v128_t zero = wasm_i32x4_const_splat(0);
    BNC_UNROLL
    for (int p = 0; p < 2; p++) {
        const v128_t eight = wasm_v128_load(h + 8 * p);
        s.part[2 * p] = (bnc_vec)wasm_i16x8_shuffle(zero, eight, 0, 8, 1, 9, 2, 10, 3, 11);
        s.part[2 * p + 1] = (bnc_vec)wasm_i16x8_shuffle(zero, eight, 4, 12, 5, 13, 6, 14, 7, 15);
    }
    return s;
}
#endif

/* Sixteen stored floats, widened exactly. */
BNC_INLINE struct bnc_lanes bnc_lanes_f16(const uint16_t *h)
{
    struct bnc_lanes s;
#if defined(__AVX512F__)
    s.part[0] = (bnc_vec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)h));
#elif defined(__F16C__)
    for (int p = 0; p < BNC_PARTS; p++)
        s.part[p] =
            (bnc_vec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(h + 8 * p)));
#elif defined(__ARM_NEON) && defined(__aarch64__)
    for (int p = 0; p < BNC_PARTS; p++)
        s.part[p] = (bnc_vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h + 4 * p)));
#elif defined(__wasm_simd128__)
    /* A half's bits at the place of a float's are 2^-112 times its value, be they of a denormal
     * half or not; WebAssembly never takes denormals for zero. */
    const v128_t kept = wasm_i32x4_const_splat((int32_t)0x8fffe000);
    const v128_t unit = wasm_f32x4_const_splat(0x1p112f);
    const struct bnc_lanes upper = bnc_lanes_upper(h);
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++) {
        const v128_t bits = wasm_v128_and(wasm_i32x4_shr((v128_t)upper.part[p], 3), kept);
        s.part[p] = (bnc_vec)wasm_f32x4_mul(bits, unit);
    }
#else
    float wide[BNC_LANES];
    for (int l = 0; l < BNC_LANES; l++)
        wide[l] = bnc_unhalf(h[l]);
    s = bnc_lanes_load(wide);
#endif
    return s;
}

/* Sixteen int8, exactly. */
BNC_INLINE struct bnc_lanes bnc_lanes_i8(const int8_t *q)
{
    struct bnc_lanes s;
#if defined(__AVX512F__)
    const __m128i narrow = _mm_loadu_si128((const __m128i *)(const void *)q);
    s.part[0] = (bnc_vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(narrow));
#elif defined(__AVX2__)
    for (int p = 0; p < BNC_PARTS; p++) {
        const __m128i narrow = _mm_loadl_epi64((const __m128i *)(const void *)(q + 8 * p));
        s.part[p] = (bnc_vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(narrow));
    }
#elif defined(__ARM_NEON) && defined(__aarch64__)
    const int8x16_t narrow = vld1q_s8(q);
    const int16x8_t low = vmovl_s8(vget_low_s8(narrow)), high = vmovl_s8(vget_high_s8(narrow));
    s.part[0] = (bnc_vec)vcvtq_f32_s32(vmovl_s16(vget_low_s16(low)));
    s.part[1] = (bnc_vec)vcvtq_f32_s32(vmovl_s16(vget_high_s16(low)));
    s.part[2] = (bnc_vec)vcvtq_f32_s32(vmovl_s16(vget_low_s16(high)));
    s.part[3] = (bnc_vec)vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)));
#else
    float wide[BNC_LANES];
    for (int l = 0; l < BNC_LANES; l++)
        wide[l] = (float)q[l];
    s = bnc_lanes_load(wide);
#endif
    return s;
}

BNC_INLINE struct bnc_lanes bnc_lanes_bf16(const uint16_t *h)
{
    struct bnc_lanes s;
#if defined(__AVX512F__)
    const __m256i narrow = _mm256_loadu_si256((const __m256i *)(const void *)h);
    s.part[0] = (bnc_vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16);
#elif defined(__AVX2__)
    for (int p = 0; p < BNC_PARTS; p++) {
        const __m128i narrow = _mm_loadu_si128((const __m128i *)(const void *)(h + 8 * p));
        s.part[p] = (bnc_vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16);
    }
#elif defined(__wasm_simd128__)
    s = bnc_lanes_upper(h);
#else
    for (int p = 0; p < BNC_PARTS; p++) {
        bnc_vec_u16 narrow;
        memcpy(&narrow, h + p * BNC_VECTOR, sizeof narrow);
        const bnc_vec_u32 wide = __builtin_convertvector(narrow, bnc_vec_u32) << 16;
        memcpy(&s.part[p], &wide, sizeof wide);
    }
#endif
    return s;
}

#endif
