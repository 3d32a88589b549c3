/* tiny: where each tensor lies in weights.bin.
 *
 * Written by bitnetc 0.1.0. All numbers are byte offsets. Matrices are packed in the layout
 * that plan.json names for them, padded to whole tiles; norms and scales are float32.
 */
#ifndef TINY_WEIGHTS_H
#define TINY_WEIGHTS_H

#include <stdint.h>

/* The data, and the places in the weights of what belongs to no block. */
extern const uint8_t tiny_weights[68992];
extern const uint8_t tiny_tokenizer[9064];

static const uint64_t AT_ROPE = 0;           /* f32 128 x 16 */
static const uint64_t AT_FINAL_NORM = 27776; /* f32 64 */
static const uint64_t AT_EMBEDDING = 28032;  /* bf16 320 x 64 */

/* The places of a block's tensors. */
struct tiny_block {
    uint64_t attn_norm;     /* [64] */
    uint64_t wq_scale;      /* [1] */
    uint64_t wq;            /* 64 x 64, i2_m32k64 */
    uint64_t wk_scale;      /* [1] */
    uint64_t wk;            /* 32 x 64, i2_m32k64 */
    uint64_t wv_scale;      /* [1] */
    uint64_t wv;            /* 32 x 64, i2_m32k64 */
    uint64_t attn_sub_norm; /* [64] */
    uint64_t wo_scale;      /* [1] */
    uint64_t wo;            /* 64 x 64, i2_m32k64 */
    uint64_t ffn_norm;      /* [64] */
    uint64_t w_gate_scale;  /* [1] */
    uint64_t w_gate;        /* 96 x 64, i2_m32k64 */
    uint64_t w_up_scale;    /* [1] */
    uint64_t w_up;          /* 96 x 64, i2_m32k64 */
    uint64_t ffn_sub_norm;  /* [96] */
    uint64_t w_down_scale;  /* [1] */
    uint64_t w_down;        /* 64 x 128, i2_m32k64 */
};

static const struct tiny_block tiny_blocks[2] = {
    { 8192, 8448, 8512, 9536, 9600, 10112, 10176, 10688, 10944, 11008, 12032, 12288, 12352, 13888,
      13952, 15488, 15872, 15936 },
    { 17984, 18240, 18304, 19328, 19392, 19904, 19968, 20480, 20736, 20800, 21824, 22080, 22144,
      23680, 23744, 25280, 25664, 25728 },
};

#endif
