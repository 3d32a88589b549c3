/* SPDX-License-Identifier: MIT */
/* Rows of bfloat16 in twelve bits a weight, without loss.
 *
 * A bfloat16 is a low byte (the lowest bit of the exponent and the mantissa) and a high byte (the
 * sign and the rest of the exponent). Of high bytes few values are frequent: a matrix's fifteen
 * most frequent have codes 0 .. 14 in a table, and code 15, an escape, says that the high byte is
 * in a list. A matrix is, one behind the other,
 *
 *     blocks:   rows x ceil(cols / 64) blocks of 96 bytes, low bytes and then two codes to a byte:
 *                   low byte of place p      byte p
 *                   code of place p          byte 64 + p % 32, the lower half where p < 32
 *     table:    16 bytes, the high byte of each code; that of 15 is not used
 *     start:    uint32 [rows + 1], where the escapes of a row begin in the list
 *     escapes:  uint32 each, 256 * place in the row + high byte, in order of places
 *
 * A row's places are 64 a block, and column k of a block has place BNC_BF12_PLACE(k): where bytes
 * of any width are interleaved within each sixteen, to words and so to two floats each, every
 * register holds neighbouring columns (bitnetc/bf12.py). Columns that pad a row are zeros of code
 * and low byte, which is a finite number, and are multiplied by zeros.
 */
#ifndef BNC_BF12_H
#define BNC_BF12_H

#include "bnc_lanes.h"

#if defined(__SSSE3__) && !defined(__AVX__)
#include <tmmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#elif defined(__wasm_simd128__)
#include <wasm_simd128.h>
#endif

enum { BNC_BF12_COLS = 64, BNC_BF12_BYTES = 96, BNC_BF12_CODES = 64, BNC_BF12_TABLE = 16 };

/* The column at place 16 * l + 8 * b + 2 * e + c is 32 * b + 16 * c + 4 * l + e. */
#define BNC_BF12_COLUMN(p) ((p) / 8 % 2 * 32 + (p) % 2 * 16 + (p) / 16 * 4 + (p) / 2 % 4)

struct bnc_bf12 {
    const uint8_t *blocks, *table;
    const uint32_t *start, *escapes;
};

BNC_INLINE ptrdiff_t bnc_bf12_row_bytes(int cols)
{
    return (ptrdiff_t)((cols + BNC_BF12_COLS - 1) / BNC_BF12_COLS) * BNC_BF12_BYTES;
}

/* The parts of a matrix. */
BNC_INLINE struct bnc_bf12 bnc_bf12_parts(const uint8_t *w, int rows, int cols)
{
    struct bnc_bf12 parts = { .blocks = w, .table = w + rows * bnc_bf12_row_bytes(cols) };
    parts.start = (const uint32_t *)(const void *)(parts.table + BNC_BF12_TABLE);
    parts.escapes = parts.start + rows + 1;
    return parts;
}

/* Whether the list of a matrix with so many escapes is within its bytes, whatever row is read: for
 * bytes that nobody vouches for. Wrong places and high bytes in it give wrong floats, no more. */
static inline int bnc_bf12_holds(const uint8_t *w, int rows, int cols, uint32_t escapes)
{
    const struct bnc_bf12 parts = bnc_bf12_parts(w, rows, cols);
    for (int m = 0; m < rows; m++)
        if (parts.start[m] > parts.start[m + 1])
            return 0;
    return parts.start[rows] == escapes;
}

/* A row that is read from its first block to its last. */
struct bnc_bf12_row {
    const uint8_t *block;
    const uint32_t *escape, *end;
    uint32_t next; /* the first place from here on that is an escape */
};

enum { BNC_BF12_NONE = 0x7fffffff };

BNC_INLINE struct bnc_bf12_row bnc_bf12_begin(const struct bnc_bf12 *w, int m, ptrdiff_t row_bytes)
{
    struct bnc_bf12_row row = {
        .block = w->blocks + m * row_bytes,
        .escape = w->escapes + w->start[m],
        .end = w->escapes + w->start[m + 1],
    };
    row.next = row.escape < row.end ? *row.escape >> 8 : BNC_BF12_NONE;
    return row;
}

/* high[p] is the high byte of place from + p of a block: escapes among them are put right. */
BNC_INLINE void bnc_bf12_patch(struct bnc_bf12_row *row, uint8_t high[BNC_BF12_COLS], uint32_t from)
{
    while (row->next - from < BNC_BF12_COLS) {
        high[row->next - from] = (uint8_t)*row->escape++;
        row->next = row->escape < row->end ? *row->escape >> 8 : BNC_BF12_NONE;
    }
}

/* wide[k] = column k of the row's next block, whose first place is `from`. */
#if defined(__ARM_NEON) && !defined(__aarch64__)
static inline void bnc_bf12_wide(float wide[BNC_BF12_COLS], struct bnc_bf12_row *row,
                                 const uint8_t *table, uint32_t from)
{
    const uint8x8x2_t highs = { { vld1_u8(table), vld1_u8(table + 8) } };
    uint8x16_t high[4];
    for (int i = 0; i < 4; i++) {
        const uint8x16_t both = vld1q_u8(row->block + BNC_BF12_CODES + i % 2 * 16);
        const uint8x16_t code = i / 2 ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15));
        high[i] =
            vcombine_u8(vtbl2_u8(highs, vget_low_u8(code)), vtbl2_u8(highs, vget_high_u8(code)));
    }
    if (row->next - from < BNC_BF12_COLS) {
        uint8_t bytes[BNC_BF12_COLS];
        memcpy(bytes, high, sizeof bytes);
        bnc_bf12_patch(row, bytes, from);
        memcpy(high, bytes, sizeof bytes);
    }
    for (int i = 0; i < 4; i++) { /* integers only: denormals stay what they are */
        const uint8x16x2_t words = vzipq_u8(vld1q_u8(row->block + 16 * i), high[i]);
        for (int b = 0; b < 2; b++) {
            const uint32x4_t pairs = vreinterpretq_u32_u8(words.val[b]);
            const uint32x4_t even = vshlq_n_u32(pairs, 16);
            const uint32x4_t odd = vandq_u32(pairs, vdupq_n_u32(0xffff0000));
            memcpy(wide + 32 * b + 4 * i, &even, sizeof even);
            memcpy(wide + 32 * b + 16 + 4 * i, &odd, sizeof odd);
        }
    }
    row->block += BNC_BF12_BYTES;
}
#else
static inline void bnc_bf12_wide(float wide[BNC_BF12_COLS], struct bnc_bf12_row *row,
                                 const uint8_t *table, uint32_t from)
{
    enum { HALF = BNC_BF12_COLS / 2 };
    const uint8_t *low = row->block, *codes = low + BNC_BF12_CODES;
    uint8_t high[BNC_BF12_COLS];
    for (int p = 0; p < HALF; p++) {
        high[p] = table[codes[p] & 15];
        high[HALF + p] = table[codes[p] >> 4];
    }
    bnc_bf12_patch(row, high, from);
    for (int p = 0; p < BNC_BF12_COLS; p++) {
        const uint32_t bits = (uint32_t)high[p] << 24 | (uint32_t)low[p] << 16;
        memcpy(wide + BNC_BF12_COLUMN(p), &bits, sizeof bits);
    }
    row->block += BNC_BF12_BYTES;
}
#endif

/* Registers of bytes that can be looked up in a table, as wide as four of floats. */
#if defined(__AVX512BW__)
typedef __m512i bnc_bf12_bytes;
#elif defined(__AVX512F__) || (defined(__AVX__) && !defined(__AVX2__))
#define BNC_BF12_PLAIN
#elif defined(__AVX2__)
typedef __m256i bnc_bf12_bytes;
#elif defined(__SSSE3__)
typedef __m128i bnc_bf12_bytes;
#elif defined(__ARM_NEON) && defined(__aarch64__)
typedef uint8x16_t bnc_bf12_bytes;
#elif defined(__wasm_simd128__)
typedef v128_t bnc_bf12_bytes;
#else
#define BNC_BF12_PLAIN
#endif

#if defined(BNC_BF12_PLAIN)
typedef const uint8_t *bnc_bf12_bytes;

BNC_INLINE bnc_bf12_bytes bnc_bf12_table(const uint8_t *table)
{
    return table;
}

/* The sum after `blocks` blocks of a row, the first from place `from` on, times x. */
BNC_INLINE struct bnc_lanes bnc_bf12_add(struct bnc_lanes s, struct bnc_bf12_row *row,
                                         bnc_bf12_bytes table, uint32_t from, const float *x,
                                         int blocks)
{
    float wide[BNC_BF12_COLS];
    for (int b = 0; b < blocks; b++, from += BNC_BF12_COLS, x += BNC_BF12_COLS) {
        bnc_bf12_wide(wide, row, table, from);
        for (int k = 0; k < BNC_BF12_COLS; k += BNC_LANES)
            s = bnc_lanes_add(s, bnc_lanes_mul(bnc_lanes_load(x + k), bnc_lanes_load(wide + k)));
    }
    return s;
}
#else
_Static_assert(sizeof(bnc_bf12_bytes) == 4 * BNC_VECTOR,
               "a register of bytes widens to four of floats");

/* The table in each sixteen bytes. */
BNC_INLINE bnc_bf12_bytes bnc_bf12_table(const uint8_t *table)
{
#if defined(__AVX512BW__)
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)table));
#elif defined(__AVX2__)
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)table));
#elif defined(__SSSE3__)
    return _mm_loadu_si128((const __m128i *)(const void *)table);
#elif defined(__ARM_NEON)
    return vld1q_u8(table);
#else
    return wasm_v128_load(table);
#endif
}

/* The high bytes of the p-th register of a block. */
BNC_INLINE bnc_bf12_bytes bnc_bf12_high(const uint8_t *codes, int p, bnc_bf12_bytes table)
{
#if defined(__AVX512BW__)
    (void)p;
    const __m512i both =
        _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)(const void *)codes));
    const __m512i shifts = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    const __m512i code = _mm512_and_si512(_mm512_srlv_epi64(both, shifts), _mm512_set1_epi8(15));
    return _mm512_shuffle_epi8(table, code);
#elif defined(__AVX2__)
    const __m256i both = _mm256_loadu_si256((const __m256i *)(const void *)codes);
    const __m256i code =
        _mm256_and_si256(p ? _mm256_srli_epi16(both, 4) : both, _mm256_set1_epi8(15));
    return _mm256_shuffle_epi8(table, code);
#elif defined(__SSSE3__)
    const __m128i both = _mm_loadu_si128((const __m128i *)(const void *)(codes + p % 2 * 16));
    const __m128i code = _mm_and_si128(p / 2 ? _mm_srli_epi16(both, 4) : both, _mm_set1_epi8(15));
    return _mm_shuffle_epi8(table, code);
#elif defined(__ARM_NEON)
    const uint8x16_t both = vld1q_u8(codes + p % 2 * 16);
    return vqtbl1q_u8(table, p / 2 ? vshrq_n_u8(both, 4) : vandq_u8(both, vdupq_n_u8(15)));
#else
    const v128_t both = wasm_v128_load(codes + p % 2 * 16);
    const v128_t code =
        p / 2 ? wasm_u8x16_shr(both, 4) : wasm_v128_and(both, wasm_i8x16_const_splat(15));
    return wasm_i8x16_swizzle(table, code);
#endif
}

/* Part p of the four times sixteen lanes of a block: to[j] has columns of 16 * j .. 16 * j + 15. */
BNC_INLINE void bnc_bf12_widen(bnc_vec to[4], const uint8_t *low, int p, bnc_bf12_bytes high)
{
#if defined(__AVX512BW__)
    (void)p;
    const __m512i bytes = _mm512_loadu_si512((const void *)low);
    const __m512i word[2] = { _mm512_unpacklo_epi8(bytes, high),
                              _mm512_unpackhi_epi8(bytes, high) };
    for (int i = 0; i < 2; i++) {
        to[2 * i] = (bnc_vec)_mm512_slli_epi32(word[i], 16);
        to[2 * i + 1] = (bnc_vec)_mm512_and_si512(word[i], _mm512_set1_epi32((int)0xffff0000));
    }
#elif defined(__AVX2__)
    const __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)(low + 32 * p));
    const __m256i word[2] = { _mm256_unpacklo_epi8(bytes, high),
                              _mm256_unpackhi_epi8(bytes, high) };
    for (int i = 0; i < 2; i++) {
        to[2 * i] = (bnc_vec)_mm256_slli_epi32(word[i], 16);
        to[2 * i + 1] = (bnc_vec)_mm256_and_si256(word[i], _mm256_set1_epi32((int)0xffff0000));
    }
#elif defined(__SSSE3__)
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(low + 16 * p));
    const __m128i word[2] = { _mm_unpacklo_epi8(bytes, high), _mm_unpackhi_epi8(bytes, high) };
    for (int i = 0; i < 2; i++) {
        to[2 * i] = (bnc_vec)_mm_slli_epi32(word[i], 16);
        to[2 * i + 1] = (bnc_vec)_mm_and_si128(word[i], _mm_set1_epi32((int)0xffff0000));
    }
#elif defined(__ARM_NEON)
    const uint8x16_t bytes = vld1q_u8(low + 16 * p);
    const uint8x16_t word[2] = { vzip1q_u8(bytes, high), vzip2q_u8(bytes, high) };
    for (int i = 0; i < 2; i++) {
        const uint32x4_t pair = vreinterpretq_u32_u8(word[i]);
        to[2 * i] = (bnc_vec)vshlq_n_u32(pair, 16);
        to[2 * i + 1] = (bnc_vec)vandq_u32(pair, vdupq_n_u32(0xffff0000));
    }
#else
    const v128_t bytes = wasm_v128_load(low + 16 * p);
    const v128_t word[2] = {
        wasm_i8x16_shuffle(bytes, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23),
        wasm_i8x16_shuffle(bytes, high, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                           31),
    };
    BNC_UNROLL
    for (int i = 0; i < 2; i++) {
        to[2 * i] = (bnc_vec)wasm_i32x4_shl(word[i], 16);
        to[2 * i + 1] =
            (bnc_vec)wasm_v128_and(word[i], wasm_i32x4_const_splat((int32_t)0xffff0000));
    }
#endif
}

/* The sum after `blocks` blocks of a row, the first from place `from` on, times x. */
BNC_INLINE struct bnc_lanes bnc_bf12_add(struct bnc_lanes s, struct bnc_bf12_row *row,
                                         bnc_bf12_bytes table, uint32_t from, const float *x,
                                         int blocks)
{
    for (int b = 0; b < blocks; b++, from += BNC_BF12_COLS, x += BNC_BF12_COLS) {
        const uint8_t *low = row->block, *codes = low + BNC_BF12_CODES;
        bnc_bf12_bytes high[BNC_PARTS];
        BNC_UNROLL
        for (int p = 0; p < BNC_PARTS; p++)
            high[p] = bnc_bf12_high(codes, p, table);
        if (__builtin_expect(row->next - from < BNC_BF12_COLS, 0)) {
            uint8_t bytes[BNC_BF12_COLS];
            memcpy(bytes, high, sizeof bytes);
            bnc_bf12_patch(row, bytes, from);
            memcpy(high, bytes, sizeof bytes);
        }
        BNC_UNROLL
        for (int p = 0; p < BNC_PARTS; p++) {
            bnc_vec w[4];
            bnc_bf12_widen(w, low, p, high[p]);
            BNC_UNROLL
            for (int j = 0; j < 4; j++)
                s.part[p] += bnc_load(x + BNC_LANES * j + BNC_VECTOR * p) * w[j];
        }
        row->block += BNC_BF12_BYTES;
    }
    return s;
}
#endif

/* x[cols] = row `id` of an embedding. */
static inline void bnc_bf12_embed(float *x, const uint8_t *w, int rows, int id, int cols)
{
    const struct bnc_bf12 parts = bnc_bf12_parts(w, rows, cols);
    struct bnc_bf12_row row = bnc_bf12_begin(&parts, id, bnc_bf12_row_bytes(cols));
    float wide[BNC_BF12_COLS];
    for (int k = 0; k < cols; k += BNC_BF12_COLS) {
        const int count = cols - k < BNC_BF12_COLS ? cols - k : BNC_BF12_COLS;
        bnc_bf12_wide(wide, &row, parts.table, (uint32_t)k);
        memcpy(x + k, wide, sizeof(float) * (size_t)count);
    }
}

#endif
