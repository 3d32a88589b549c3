/* tiny: where each tensor lies in weights.bin.
 *
 * Written by bitnetc 0.1.0. All numbers are byte offsets. Matrices are packed in the layout
 * that plan.json names for them, padded to whole tiles; norms and scales are float32.
 */
#ifndef TINY_WEIGHTS_H
#define TINY_WEIGHTS_H

#include <stdint.h>

/* The data, and the places in the weights of what belongs to no block. */
extern const uint8_t tiny_weights[66944];
extern const uint8_t tiny_tokenizer[9064];

static const uint64_t AT_ROPE = 0;           /* f32 128 x 16 */
static const uint64_t AT_FINAL_NORM = 25728; /* f32 64 */
static const uint64_t AT_EMBEDDING = 25984;  /* bf16 320 x 64 */

/* The places of a block's tensors. */
struct tiny_block {
    uint64_t attn_norm;     /* [64] */
    uint64_t wq_scale;      /* [1] */
    uint64_t wq;            /* 64 x 64, i2_m4k64 */
    uint64_t wk_scale;      /* [1] */
    uint64_t wk;            /* 16 x 64, i2_m4k64 */
    uint64_t wv_scale;      /* [1] */
    uint64_t wv;            /* 16 x 64, i2_m4k64 */
    uint64_t attn_sub_norm; /* [64] */
    uint64_t wo_scale;      /* [1] */
    uint64_t wo;            /* 64 x 64, i2_m4k64 */
    uint64_t ffn_norm;      /* [64] */
    uint64_t w_gate_scale;  /* [1] */
    uint64_t w_gate;        /* 96 x 64, i2_m4k64 */
    uint64_t w_up_scale;    /* [1] */
    uint64_t w_up;          /* 96 x 64, i2_m4k64 */
    uint64_t ffn_sub_norm;  /* [96] */
    uint64_t w_down_scale;  /* [1] */
    uint64_t w_down;        /* 64 x 96, tl1_m64k4 */
};

static const struct tiny_block tiny_blocks[2] = {
    { 8192, 8448, 8512, 9536, 9600, 9856, 9920, 10176, 10432, 10496, 11520, 11776, 11840, 13376,
      13440, 14976, 15360, 15424 },
    { 16960, 17216, 17280, 18304, 18368, 18624, 18688, 18944, 19200, 19264, 20288, 20544, 20608,
      22144, 22208, 23744, 24128, 24192 },
};

#endif
