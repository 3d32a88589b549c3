/* SPDX-License-Identifier: MIT */
/* The three inner loops of i2_m4k64 as SVE2 would have them, for registers of a length that
 * -msve-vector-bits says. bench/sve.py asks llvm-mca what they take; no program runs them, and what
 * surrounds them in the kernels for NEON (minus sum q, tails, unpacking) is left out.
 * Bounds: as in runtime_c/kernels/neondot and neoni8mm. */
#include <arm_sve.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BYTES = __ARM_FEATURE_SVE_BITS / 8, /* of a register */
    LANES = BYTES / 4,
    TOKENS = 8, /* at a time, by two registers of rows: 16 of 32 registers are sums */
    PAIRS = 4   /* of tokens, the same by SMMLA */
};

typedef svint32_t sums __attribute__((arm_sve_vector_bits(__ARM_FEATURE_SVE_BITS)));
typedef svint8_t codes __attribute__((arm_sve_vector_bits(__ARM_FEATURE_SVE_BITS)));

static inline svint8_t masked(svuint8_t c, uint8_t mask)
{
    return svreinterpret_s8_u8(svand_n_u8_x(svptrue_b8(), c, mask));
}

/* One token: acc[r] += codes * q of four rows, three planes masked where they lie. A block has
 * 4 * BYTES columns; w: [block][row][BYTES] */
void one(int32_t *acc, const uint8_t *w, const int8_t *q, int blocks)
{
    const svbool_t all = svptrue_b8();
    sums plane[4][4]; /* [plane][row] */
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++)
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++)
            plane[p][r] = svdup_s32(0);
    for (int k = 0; k < blocks; k++, q += 4 * BYTES) {
        const codes x3 = svld1_s8(all, q), x2 = svld1_s8(all, q + BYTES);
        const codes x1 = svld1_s8(all, q + 2 * BYTES), x0 = svld1_s8(all, q + 3 * BYTES);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++, w += BYTES) {
            const svuint8_t c = svld1_u8(all, w);
            plane[0][r] = svdot_s32(plane[0][r], masked(c, 0x03), x0);
            plane[1][r] = svdot_s32(plane[1][r], masked(c, 0x0c), x1);
            plane[2][r] = svdot_s32(plane[2][r], masked(c, 0x30), x2);
            plane[3][r] = svdot_s32(plane[3][r], svreinterpret_s8_u8(svlsr_n_u8_x(all, c, 6)), x3);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
        const svint32_t outer = svadd_s32_x(all, plane[0][r], plane[3][r]);
        const svint32_t inner = svadd_s32_x(all, svasr_n_s32_x(all, plane[1][r], 2),
                                            svasr_n_s32_x(all, plane[2][r], 4));
        acc[r] += (int32_t)svaddv_s32(all, svadd_s32_x(all, outer, inner));
    }
}

/* SDOT takes four columns of a token by lane of 128 bits; longer registers have the activations in
 * each (LD1RQB). */
#define FOUR_COLUMNS(lane)                                                                         \
    do {                                                                                           \
        const codes a = svld1_s8(all, w + 2 * (lane) * BYTES);                                     \
        const codes b = svld1_s8(all, w + (2 * (lane) + 1) * BYTES);                               \
        _Pragma("GCC unroll 8") for (int t = 0; t < TOKENS; t++)                                   \
        {                                                                                          \
            sum[t][0] = svdot_lane_s32(sum[t][0], a, x[t], lane);                                  \
            sum[t][1] = svdot_lane_s32(sum[t][1], b, x[t], lane);                                  \
        }                                                                                          \
    } while (0)

/* Eight tokens by two registers of rows: acc[token][2 * LANES rows] = codes * q over 16 * count
 * columns. w: [16 columns][four columns][register] */
void eight(int32_t *acc, const int8_t *w, const int8_t *q, ptrdiff_t stride, int count)
{
    const svbool_t all = svptrue_b8();
    sums sum[TOKENS][2];
    const int8_t *at[TOKENS];
#pragma GCC unroll 8
    for (int t = 0; t < TOKENS; t++) {
        sum[t][0] = sum[t][1] = svdup_s32(0);
        at[t] = q + t * stride;
        __asm__("" : "+r"(at[t])); /* or each is computed from the one before, in the loop */
    }
    for (int v = 0; v < count; v++, w += 8 * BYTES) {
        codes x[TOKENS];
#pragma GCC unroll 8
        for (int t = 0; t < TOKENS; t++)
            x[t] = svld1rq_s8(all, at[t] + 16 * v);
        FOUR_COLUMNS(0);
        FOUR_COLUMNS(1);
        FOUR_COLUMNS(2);
        FOUR_COLUMNS(3);
    }
#pragma GCC unroll 8
    for (int t = 0; t < TOKENS; t++) {
        svst1_s32(all, acc + 2 * t * LANES, sum[t][0]);
        svst1_s32(all, acc + (2 * t + 1) * LANES, sum[t][1]);
    }
}

/* SMMLA: four pairs of tokens by two registers of rows, in each 128 bits eight columns of two.
 * q: [pair][steps][token][8 columns] */
void many(int32_t *acc, const int8_t *w, const int8_t *q, ptrdiff_t stride, int steps)
{
    const svbool_t all = svptrue_b8();
    sums sum[PAIRS][2];
#pragma GCC unroll 4
    for (int t = 0; t < PAIRS; t++)
        sum[t][0] = sum[t][1] = svdup_s32(0);
    for (int s = 0; s < steps; s++, w += 2 * BYTES, q += 16) {
        const codes a = svld1_s8(all, w), b = svld1_s8(all, w + BYTES);
#pragma GCC unroll 4
        for (int t = 0; t < PAIRS; t++) {
            const svint8_t x = svld1rq_s8(all, q + t * stride);
            sum[t][0] = svmmla_s32(sum[t][0], x, a);
            sum[t][1] = svmmla_s32(sum[t][1], x, b);
        }
    }
#pragma GCC unroll 4
    for (int t = 0; t < PAIRS; t++) {
        svst1_s32(all, acc + 2 * t * LANES, sum[t][0]);
        svst1_s32(all, acc + (2 * t + 1) * LANES, sum[t][1]);
    }
}
