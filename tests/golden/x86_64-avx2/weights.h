/* tiny: where each tensor lies in weights.bin.
 *
 * Written by bitnetc 0.1.0. All numbers are byte offsets. Matrices are packed in the layout
 * that plan.json names for them, padded to whole tiles; norms and scales are float32.
 */
#ifndef TINY_WEIGHTS_H
#define TINY_WEIGHTS_H

#include <stdint.h>

extern const uint8_t tiny_weights[71040];
extern const uint8_t tiny_tokenizer[9024];

static const uint64_t AT_ROPE = 0;           /* f32 128 x 16 */
static const uint64_t AT_FINAL_NORM = 29824; /* f32 64 */
static const uint64_t AT_EMBEDDING = 30080;  /* bf16 320 x 64 */

struct tiny_block {
    uint64_t attn_norm;     /* [64] */
    uint64_t wq_scale;      /* [1] */
    uint64_t wq;            /* 64 x 64, tl1_m32k4 */
    uint64_t wk_scale;      /* [1] */
    uint64_t wk;            /* 16 x 128, i2_m4k128 */
    uint64_t wv_scale;      /* [1] */
    uint64_t wv;            /* 16 x 128, i2_m4k128 */
    uint64_t attn_sub_norm; /* [64] */
    uint64_t wo_scale;      /* [1] */
    uint64_t wo;            /* 64 x 128, i2_m4k128 */
    uint64_t ffn_norm;      /* [64] */
    uint64_t w_gate_scale;  /* [1] */
    uint64_t w_gate;        /* 96 x 64, tl1_m32k4 */
    uint64_t w_up_scale;    /* [1] */
    uint64_t w_up;          /* 96 x 64, tl1_m32k4 */
    uint64_t ffn_sub_norm;  /* [96] */
    uint64_t w_down_scale;  /* [1] */
    uint64_t w_down;        /* 64 x 128, i2_m4k128 */
};

static const struct tiny_block tiny_blocks[2] = {
    { 8192, 8448, 8512, 9536, 9600, 10112, 10176, 10688, 10944, 11008, 13056, 13312, 13376, 14912,
      14976, 16512, 16896, 16960 },
    { 19008, 19264, 19328, 20352, 20416, 20928, 20992, 21504, 21760, 21824, 23872, 24128, 24192,
      25728, 25792, 27328, 27712, 27776 },
};

#endif
