/* SPDX-License-Identifier: MIT */
/* Float sums in sixteen lanes: rule 2 of docs/arithmetic.md.
 *
 *     lane[l] = sum over i = l mod 16, in order of i, of a[i] * b[i]      (multiply, then add)
 *     sum     = tree(lane):  l + (l+8),  l + (l+4),  l + (l+2),  l + (l+1)
 *
 * The sixteen lanes are one AVX-512 register, two of AVX2 or four of NEON or SSE; the order of
 * every addition is the same on all of them. Missing tail elements count as +0, and no lane is
 * ever -0 (it starts at +0), so padding with zeros changes no bit.
 */
#ifndef BNC_LANES_H
#define BNC_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#endif

#define BNC_INLINE static inline __attribute__((always_inline))

/* The same for functions that compute in many registers or in arrays. Without optimisation they are
 * called: what is inlined has its own place on the stack then, for as long as the caller runs. */
#if defined(__OPTIMIZE__)
#define BNC_FRAME BNC_INLINE
#else
#define BNC_FRAME static inline
#endif

/* A function with a frame of its own: a caller that inlines it keeps its stack, and the kernels'
 * that it inlines, for as long as others run. */
#define BNC_APART static __attribute__((noinline))

/* A function whose address is taken, though calls with a constant one are to be inlined. At -Og GCC
 * finds out too late which function such a call reaches, and then refuses what must be inlined;
 * what may be it inlines at -O3, and calls directly below. */
#if defined(__clang__)
#define BNC_KERNEL BNC_INLINE
#else
#define BNC_KERNEL static inline
#endif

/* Before a loop of a few constant steps over an array of registers, which are to stay registers.
 * Compilers unroll it by themselves, but Clang for WebAssembly not always. */
#if defined(__wasm__)
#define BNC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define BNC_UNROLL
#endif

/* Makes the compiler forget how a pointer came about. Without that, Clang adds the offset of each
 * load of a loop to it, although WebAssembly's loads hold an offset. */
#if defined(__wasm__)
#define BNC_BASE(pointer) __asm__("" : "+r"(pointer))
#else
#define BNC_BASE(pointer) ((void)0)
#endif

#ifdef __FAST_MATH__
#error "bnc_lanes.h: sums have a fixed order; build without -ffast-math"
#endif

enum {
    BNC_LANES = 16,
#if defined(__AVX512F__)
    BNC_VECTOR = 16, /* floats in one register */
#elif defined(__AVX__)
    BNC_VECTOR = 8,
#elif defined(__arm__)
    BNC_VECTOR = 1, /* 32-bit NEON takes denormals for zero, so floats stay with VFP */
#else
    BNC_VECTOR = 4,
#endif
    BNC_PARTS = BNC_LANES / BNC_VECTOR
};

typedef float bnc_vec __attribute__((vector_size(BNC_VECTOR * sizeof(float))));
typedef uint32_t bnc_vec_u32 __attribute__((vector_size(BNC_VECTOR * sizeof(uint32_t))));
typedef int32_t bnc_vec_i32 __attribute__((vector_size(BNC_VECTOR * sizeof(int32_t))));
typedef uint8_t bnc_vec_u8 __attribute__((vector_size(BNC_VECTOR * sizeof(uint8_t))));
typedef uint16_t bnc_vec_u16 __attribute__((vector_size(BNC_VECTOR * sizeof(uint16_t))));

struct bnc_lanes {
    bnc_vec part[BNC_PARTS];
};

BNC_INLINE bnc_vec bnc_load(const float *x)
{
    bnc_vec v;
    memcpy(&v, x, sizeof v);
    return v;
}

BNC_INLINE void bnc_store(float *x, bnc_vec v)
{
    memcpy(x, &v, sizeof v);
}

BNC_INLINE struct bnc_lanes bnc_lanes_zero(void)
{
    struct bnc_lanes s;
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++)
        s.part[p] = (bnc_vec){ 0 };
    return s;
}

/* x in all lanes; less 0, which changes no bit. */
BNC_INLINE bnc_vec bnc_splat(float x)
{
    return x - (bnc_vec){ 0 };
}

/* Sixteen floats from memory, no alignment asked. */
BNC_INLINE struct bnc_lanes bnc_lanes_load(const float *x)
{
    struct bnc_lanes s;
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++)
        s.part[p] = bnc_load(x + p * BNC_VECTOR);
    return s;
}

/* The first `count` < 16 floats, then zeros. */
BNC_INLINE struct bnc_lanes bnc_lanes_load_tail(const float *x, int count)
{
    float padded[BNC_LANES] = { 0 };
    for (int l = 0; l < count; l++)
        padded[l] = x[l];
    return bnc_lanes_load(padded);
}

BNC_INLINE struct bnc_lanes bnc_lanes_add(struct bnc_lanes a, struct bnc_lanes b)
{
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++)
        a.part[p] += b.part[p];
    return a;
}

BNC_INLINE struct bnc_lanes bnc_lanes_mul(struct bnc_lanes a, struct bnc_lanes b)
{
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++)
        a.part[p] *= b.part[p];
    return a;
}

BNC_INLINE struct bnc_lanes bnc_lanes_scale(struct bnc_lanes a, float factor)
{
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++)
        a.part[p] *= factor;
    return a;
}

/* sum + a * b of products that are exact in float32: then one rounding is as good as two, and
 * where the CPU has a fused multiply-add the bits are those of two instructions. */
BNC_INLINE bnc_vec bnc_add_exact(bnc_vec sum, bnc_vec a, bnc_vec b)
{
#if defined(__AVX512F__)
    return (bnc_vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)sum);
#elif defined(__FMA__)
    return (bnc_vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)sum);
#elif defined(__ARM_NEON) && defined(__aarch64__)
    return (bnc_vec)vfmaq_f32((float32x4_t)sum, (float32x4_t)a, (float32x4_t)b);
#elif defined(__wasm_relaxed_simd__)
    return (bnc_vec)__builtin_wasm_relaxed_madd_f32x4(a, b, sum);
#else
    return sum + a * b;
#endif
}

/* The same lane by lane. */
BNC_INLINE struct bnc_lanes bnc_lanes_add_exact(struct bnc_lanes sum, struct bnc_lanes a,
                                                struct bnc_lanes b)
{
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++)
        sum.part[p] = bnc_add_exact(sum.part[p], a.part[p], b.part[p]);
    return sum;
}

/* sum + a * factor, lane by lane. */
BNC_INLINE struct bnc_lanes bnc_lanes_add_scaled(struct bnc_lanes sum, struct bnc_lanes a,
                                                 float factor)
{
    const bnc_vec all = bnc_splat(factor);
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++)
        sum.part[p] = bnc_add_exact(sum.part[p], a.part[p], all);
    return sum;
}

/* The first `count` <= 16 lanes to memory. */
BNC_INLINE void bnc_lanes_store(float *x, struct bnc_lanes s, int count)
{
    float lane[BNC_LANES];
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++)
        bnc_store(lane + p * BNC_VECTOR, s.part[p]);
    memcpy(x, lane, sizeof(float) * (size_t)count);
}

#if defined(__AVX__) && !defined(__AVX512F__)
/* The tree of bnc_lanes_sum() without going through memory. */
BNC_INLINE float bnc_lanes_sum(struct bnc_lanes s)
{
    const __m256 eight = _mm256_add_ps((__m256)s.part[0], (__m256)s.part[1]);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#elif defined(__AVX512F__)
BNC_INLINE float bnc_lanes_sum(struct bnc_lanes s)
{
    const __m512d sixteen = _mm512_castps_pd((__m512)s.part[0]);
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256((__m512)s.part[0]),
                                       _mm256_castpd_ps(_mm512_extractf64x4_pd(sixteen, 1)));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#elif defined(__ARM_NEON) && defined(__aarch64__)
BNC_INLINE float bnc_lanes_sum(struct bnc_lanes s)
{
    const float32x4_t low = vaddq_f32((float32x4_t)s.part[0], (float32x4_t)s.part[2]);
    const float32x4_t high = vaddq_f32((float32x4_t)s.part[1], (float32x4_t)s.part[3]);
    const float32x4_t four = vaddq_f32(low, high);
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
#else
/* The fixed tree: halves are added until one lane is left. */
BNC_INLINE float bnc_lanes_sum(struct bnc_lanes s)
{
    float lane[BNC_LANES];
    BNC_UNROLL
    for (int p = 0; p < BNC_PARTS; p++)
        bnc_store(lane + p * BNC_VECTOR, s.part[p]);
    for (int l = 0; l < 8; l++)
        lane[l] += lane[l + 8];
    for (int l = 0; l < 4; l++)
        lane[l] += lane[l + 4];
    for (int l = 0; l < 2; l++)
        lane[l] += lane[l + 2];
    return lane[0] + lane[1];
}
#endif

/* How many sums bnc_lanes_sums() finishes at once. */
enum { BNC_SUMS = BNC_VECTOR == 16 ? 16 : BNC_VECTOR == 1 ? 1 : 4 };

/* to[i] = bnc_lanes_sum(s[i]), i < BNC_SUMS: each step of the tree adds lanes of several sums. */
BNC_INLINE void bnc_lanes_sums(float *to, const struct bnc_lanes *s)
{
#if defined(__AVX512F__)
    __m512 eight[8], four[4], two[2]; /* lanes that are left of each sum */
    for (int j = 0; j < 4; j++)       /* sums j and j + 4, j + 8 and j + 12 */
        for (int i = 0; i < 2; i++) {
            const __m512 a = (__m512)s[j + 8 * i].part[0], b = (__m512)s[j + 8 * i + 4].part[0];
            eight[2 * j + i] =
                _mm512_add_ps(_mm512_mask_blend_ps(0xff00, a, b), _mm512_shuffle_f32x4(a, b, 0x4e));
        }
    for (int j = 0; j < 4; j++) { /* by quarter of a register: sums j, j + 4, j + 8, j + 12 */
        const __m512 a = eight[2 * j], b = eight[2 * j + 1];
        four[j] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
    }
    for (int j = 0; j < 2; j++) {
        const __m512d a = _mm512_castps_pd(four[2 * j]), b = _mm512_castps_pd(four[2 * j + 1]);
        two[j] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                               _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    _mm512_storeu_ps(to, _mm512_add_ps(_mm512_shuffle_ps(two[0], two[1], 0x88),
                                       _mm512_shuffle_ps(two[0], two[1], 0xdd)));
#elif defined(__AVX__)
    __m256 four[2]; /* sums 0 and 2, 1 and 3 */
    for (int j = 0; j < 2; j++) {
        const __m256 a = _mm256_add_ps((__m256)s[j].part[0], (__m256)s[j].part[1]);
        const __m256 b = _mm256_add_ps((__m256)s[j + 2].part[0], (__m256)s[j + 2].part[1]);
        four[j] =
            _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
    }
    const __m256 two = _mm256_add_ps(_mm256_shuffle_ps(four[0], four[1], 0x44),
                                     _mm256_shuffle_ps(four[0], four[1], 0xee));
    const __m256 one = _mm256_hadd_ps(two, two);
    _mm_storeu_ps(to, _mm_movelh_ps(_mm256_castps256_ps128(one), _mm256_extractf128_ps(one, 1)));
#elif defined(__ARM_NEON) && defined(__aarch64__)
    float32x4_t four[4], two[2];
    for (int j = 0; j < 4; j++)
        four[j] = vaddq_f32(vaddq_f32((float32x4_t)s[j].part[0], (float32x4_t)s[j].part[2]),
                            vaddq_f32((float32x4_t)s[j].part[1], (float32x4_t)s[j].part[3]));
    for (int j = 0; j < 2; j++) {
        const float64x2_t a = vreinterpretq_f64_f32(four[2 * j]);
        const float64x2_t b = vreinterpretq_f64_f32(four[2 * j + 1]);
        two[j] = vaddq_f32(vreinterpretq_f32_f64(vtrn1q_f64(a, b)),
                           vreinterpretq_f32_f64(vtrn2q_f64(a, b)));
    }
    vst1q_f32(to, vpaddq_f32(two[0], two[1]));
#else
    for (int i = 0; i < BNC_SUMS; i++)
        to[i] = bnc_lanes_sum(s[i]);
#endif
}

/* The largest of a[i], i < n, for n >= 1: the same in any order, hence lane by lane. */
BNC_INLINE float bnc_largest(const float *a, int n)
{
    float lane[BNC_LANES];
    int i = 0;
    for (int l = 0; l < BNC_LANES; l++)
        lane[l] = a[0];
    for (; i + BNC_LANES <= n; i += BNC_LANES)
        for (int l = 0; l < BNC_LANES; l++)
            lane[l] = a[i + l] > lane[l] ? a[i + l] : lane[l];
    for (int half = BNC_LANES / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++)
            lane[l] = lane[l + half] > lane[l] ? lane[l + half] : lane[l];
    for (; i < n; i++)
        lane[0] = a[i] > lane[0] ? a[i] : lane[0];
    return lane[0];
}

/* to[l][i] = lane l of from[i], sixteen by sixteen. */
BNC_INLINE void bnc_lanes_transpose(float *to, const struct bnc_lanes from[BNC_LANES])
{
#if defined(__AVX512F__)
    __m512 two[16], four[16]; /* two rows interleaved; columns of four rows, by quarter */
    for (int i = 0; i < 16; i += 2) {
        const __m512 a = (__m512)from[i].part[0], b = (__m512)from[i + 1].part[0];
        two[i] = _mm512_unpacklo_ps(a, b);
        two[i + 1] = _mm512_unpackhi_ps(a, b);
    }
    for (int i = 0; i < 16; i += 4)
        for (int c = 0; c < 2; c++) {
            const __m512d a = _mm512_castps_pd(two[i + c]), b = _mm512_castps_pd(two[i + c + 2]);
            four[i + 2 * c] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            four[i + 2 * c + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int c = 0; c < 4; c++) {
        const __m512 even0 = _mm512_shuffle_f32x4(four[c], four[4 + c], 0x88);
        const __m512 even1 = _mm512_shuffle_f32x4(four[8 + c], four[12 + c], 0x88);
        const __m512 odd0 = _mm512_shuffle_f32x4(four[c], four[4 + c], 0xdd);
        const __m512 odd1 = _mm512_shuffle_f32x4(four[8 + c], four[12 + c], 0xdd);
        _mm512_storeu_ps(to + 16 * c, _mm512_shuffle_f32x4(even0, even1, 0x88));
        _mm512_storeu_ps(to + 16 * (4 + c), _mm512_shuffle_f32x4(odd0, odd1, 0x88));
        _mm512_storeu_ps(to + 16 * (8 + c), _mm512_shuffle_f32x4(even0, even1, 0xdd));
        _mm512_storeu_ps(to + 16 * (12 + c), _mm512_shuffle_f32x4(odd0, odd1, 0xdd));
    }
#elif defined(__AVX__)
    for (int p = 0; p < BNC_PARTS; p++)
        for (int i = 0; i < 16; i += 8) { /* eight by eight */
            __m256 two[8], four[8];
            for (int j = 0; j < 8; j += 2) {
                const __m256 a = (__m256)from[i + j].part[p], b = (__m256)from[i + j + 1].part[p];
                two[j] = _mm256_unpacklo_ps(a, b);
                two[j + 1] = _mm256_unpackhi_ps(a, b);
            }
            for (int j = 0; j < 8; j += 4)
                for (int c = 0; c < 2; c++) {
                    four[j + 2 * c] = _mm256_shuffle_ps(two[j + c], two[j + c + 2], 0x44);
                    four[j + 2 * c + 1] = _mm256_shuffle_ps(two[j + c], two[j + c + 2], 0xee);
                }
            for (int c = 0; c < 4; c++) {
                float *at = to + 16 * (8 * p + c) + i;
                _mm256_storeu_ps(at, _mm256_permute2f128_ps(four[c], four[4 + c], 0x20));
                _mm256_storeu_ps(at + 64, _mm256_permute2f128_ps(four[c], four[4 + c], 0x31));
            }
        }
#elif defined(__ARM_NEON) && defined(__aarch64__)
    for (int p = 0; p < BNC_PARTS; p++)
        for (int i = 0; i < 16; i += 4) { /* four by four */
            const float32x4x2_t a =
                vzipq_f32((float32x4_t)from[i].part[p], (float32x4_t)from[i + 2].part[p]);
            const float32x4x2_t b =
                vzipq_f32((float32x4_t)from[i + 1].part[p], (float32x4_t)from[i + 3].part[p]);
            const float32x4x2_t low = vzipq_f32(a.val[0], b.val[0]);
            const float32x4x2_t high = vzipq_f32(a.val[1], b.val[1]);
            float *at = to + 64 * p + i;
            vst1q_f32(at, low.val[0]);
            vst1q_f32(at + 16, low.val[1]);
            vst1q_f32(at + 32, high.val[0]);
            vst1q_f32(at + 48, high.val[1]);
        }
#else
    for (int i = 0; i < BNC_LANES; i++) {
        float lane[BNC_LANES];
        for (int p = 0; p < BNC_PARTS; p++)
            bnc_store(lane + p * BNC_VECTOR, from[i].part[p]);
        for (int l = 0; l < BNC_LANES; l++)
            to[BNC_LANES * l + i] = lane[l];
    }
#endif
}

/* sum of a[i] * b[i], i < n. */
BNC_INLINE float bnc_dot(const float *a, const float *b, int n)
{
    struct bnc_lanes s = bnc_lanes_zero();
    int i = 0;
    for (; i + BNC_LANES <= n; i += BNC_LANES)
        s = bnc_lanes_add(s, bnc_lanes_mul(bnc_lanes_load(a + i), bnc_lanes_load(b + i)));
    if (i < n)
        s = bnc_lanes_add(
            s, bnc_lanes_mul(bnc_lanes_load_tail(a + i, n - i), bnc_lanes_load_tail(b + i, n - i)));
    return bnc_lanes_sum(s);
}

/* sum of a[i], i < n. */
BNC_INLINE float bnc_sum(const float *a, int n)
{
    struct bnc_lanes s = bnc_lanes_zero();
    int i = 0;
    for (; i + BNC_LANES <= n; i += BNC_LANES)
        s = bnc_lanes_add(s, bnc_lanes_load(a + i));
    if (i < n)
        s = bnc_lanes_add(s, bnc_lanes_load_tail(a + i, n - i));
    return bnc_lanes_sum(s);
}

#endif
