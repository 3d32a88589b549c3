/* SPDX-License-Identifier: MIT */
/* The float layer as a filter, so that test_math.py can compare its bits with numpy's on every
 * target:
 *
 *     check_math FUNCTION [number ...] < inputs > outputs
 *
 * Inputs are arrays one after the other, as the function names them below; floats among the
 * numbers are given as their bits. Every array is copied to memory of its own length, so that a
 * sanitised build sees a read beyond it. */
#include <stdio.h>
#include <stdlib.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

#include "bnc_attention_batch.h"
#include "bnc_attention_split.h"
#include "bnc_dense.h"
#include "bnc_linear.h"
#include "bnc_sampler.h"
#include "kernels/scalar/matmul_i2_k64.h"

static uint8_t *input;
static size_t input_bytes, input_at;
static long long number[16];

static void *memory(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    if (!p)
        exit(3);
    return p;
}

static void *take(size_t bytes)
{
    void *p = memory(bytes);
    if (bytes > input_bytes - input_at) {
        fprintf(stderr, "input is too short\n");
        exit(4);
    }
    memcpy(p, input + input_at, bytes);
    input_at += bytes;
    return p;
}

static int more(void)
{
    return input_at < input_bytes;
}

static float *take_floats(int n)
{
    return take(sizeof(float) * (size_t)n);
}

static float *new_floats(int n)
{
    return memory(sizeof(float) * (size_t)n);
}

static void give(const void *p, size_t bytes)
{
    if (fwrite(p, 1, bytes, stdout) != bytes)
        exit(5);
}

static void give_floats(const float *x, int n)
{
    give(x, sizeof(float) * (size_t)n);
}

static int integer(int i)
{
    return (int)number[i];
}

static float real(int i)
{
    return bnc_float((uint32_t)number[i]);
}

/* One float in, one float out. */
static void map(float (*f)(float))
{
    const int n = (int)(input_bytes / sizeof(float));
    float *x = take_floats(n);
    for (int i = 0; i < n; i++)
        x[i] = f(x[i]);
    give_floats(x, n);
}

static void do_exp(void)
{
    map(bnc_exp);
}

static void do_silu(void)
{
    map(bnc_silu);
}

static void do_gelu_tanh(void)
{
    map(bnc_gelu_tanh);
}

static void do_relu2(void)
{
    map(bnc_relu2);
}

static void do_round(void)
{
    map(bnc_round);
}

/* n; rows of floats -> the rows to 13 bits as attention has them, with zeros up to the stride; then
 * all floats, one at a time: no vector of a volatile. */
static void do_shorten(void)
{
    const int n = integer(0), rows = (int)(input_bytes / sizeof(float)) / n;
    const float *x = take_floats(rows * n);
    float *row = new_floats(BNC_HEAD_STRIDE(n));
    for (int i = 0; i < rows; i++) {
        bnc_attend_shorten(row, x + i * n, n);
        give_floats(row, BNC_HEAD_STRIDE(n));
    }
    for (int i = 0; i < rows * n; i++) {
        const volatile float alone = x[i];
        const float y = bnc_shorten(alone);
        give_floats(&y, 1);
    }
}

/* positions; rows of scores -> e of one token, sixteen positions at a time; e of several tokens at
 * once, with zeros up to a multiple of sixteen. */
static void do_weights(void)
{
    const int n = integer(0), whole = BNC_SCORE_STRIDE(n);
    while (more()) {
        float *x = take_floats(n), *y = new_floats(whole);
        const float largest = bnc_largest(x, n);
        memcpy(y, x, sizeof *y * (size_t)n);
        for (int t = 0; t < n; t += BNC_LANES)
            bnc_attend_exp(x + t, largest, 0, n - t < BNC_LANES ? n - t : BNC_LANES, 0);
        bnc_attend_weights(y, n, whole);
        give_floats(x, n);
        give_floats(y, whole);
        free(y);
        free(x);
    }
}

/* floats -> halves, one at a time. */
static void do_half(void)
{
    const int n = (int)(input_bytes / sizeof(float));
    const float *x = take_floats(n);
    uint16_t *y = memory(sizeof *y * (size_t)n);
    for (int i = 0; i < n; i++)
        y[i] = bnc_half(x[i]);
    give(y, sizeof *y * (size_t)n);
}

/* length; rows of floats -> rows of halves, by bnc_halves. */
static void do_halves(void)
{
    const int n = integer(0);
    while (more()) {
        float *x = take_floats(n);
        uint16_t *y = memory(sizeof *y * (size_t)n);
        bnc_halves(y, x, n);
        give(y, sizeof *y * (size_t)n);
        free(y);
        free(x);
    }
}

/* halves -> floats, one at a time. */
static void do_unhalf(void)
{
    const int n = (int)(input_bytes / sizeof(uint16_t));
    const uint16_t *h = take(sizeof *h * (size_t)n);
    float *y = new_floats(n);
    for (int i = 0; i < n; i++)
        y[i] = bnc_unhalf(h[i]);
    give_floats(y, n);
}

/* 0 float16, 1 bfloat16; groups of sixteen -> floats. */
static void do_widen(void)
{
    const int groups = (int)(input_bytes / sizeof(uint16_t)) / BNC_LANES;
    const uint16_t *h = take(input_bytes);
    float *y = new_floats(groups * BNC_LANES);
    for (int g = 0; g < groups; g++) {
        const struct bnc_lanes s =
            integer(0) ? bnc_lanes_bf16(h + g * BNC_LANES) : bnc_lanes_f16(h + g * BNC_LANES);
        for (int p = 0; p < BNC_PARTS; p++)
            bnc_store(y + g * BNC_LANES + p * BNC_VECTOR, s.part[p]);
    }
    give_floats(y, groups * BNC_LANES);
}

/* n; pairs of rows -> their dot products. */
static void do_dot(void)
{
    const int n = integer(0);
    while (more()) {
        const float *a = take_floats(n), *b = take_floats(n);
        const float y = bnc_dot(a, b, n);
        give_floats(&y, 1);
    }
}

/* n; rows -> their sums. */
static void do_sum(void)
{
    const int n = integer(0);
    while (more()) {
        const float y = bnc_sum(take_floats(n), n);
        give_floats(&y, 1);
    }
}

/* n, eps; weight, then rows -> rows. Every second row is normalised in place. */
static void do_rmsnorm(void)
{
    const int n = integer(0);
    const float *weight = take_floats(n);
    for (int i = 0; more(); i++) {
        float *x = take_floats(n), *y = i % 2 ? x : new_floats(n);
        bnc_rmsnorm(y, x, weight, n, real(1));
        give_floats(y, n);
    }
}

/* n; per row its table, then itself -> rows. */
static void do_rope(void)
{
    const int n = integer(0);
    while (more()) {
        const float *table = take_floats(n);
        float *x = take_floats(n);
        bnc_rope(x, table, n);
        give_floats(x, n);
    }
}

static struct bnc_acts new_acts(int n, int stride, int lut)
{
    struct bnc_acts x = { 0 };
    const size_t count = (size_t)n * (size_t)stride;
    x.stride = stride;
    x.q = memory(count);
    x.sum = memory(sizeof *x.sum * (size_t)n);
    x.scale = new_floats(n);
    x.lut = lut ? memory(count * BNC_LUT) : NULL;
    if (lut)
        memset(x.lut, 0, count * BNC_LUT);
    memset(x.q, 0x55, count);
    return x;
}

/* cols, stride, tokens; rows -> codes, sums, scales, tables. */
static void do_quantise(void)
{
    const int cols = integer(0), stride = integer(1), n = integer(2);
    struct bnc_acts x = new_acts(n, stride, 1);
    for (int i = 0; i < n; i++) {
        bnc_quantise(&x, i, take_floats(cols), cols);
        bnc_build_lut16(&x, i, stride);
    }
    give(x.q, (size_t)n * (size_t)stride);
    give(x.sum, sizeof *x.sum * (size_t)n);
    give_floats(x.scale, n);
    give(x.lut, (size_t)n * (size_t)stride * BNC_LUT);
}

/* cols, tokens; a scale, rows -> codes, sums, scales. */
static void do_quantise_by(void)
{
    const int cols = integer(0), n = integer(1);
    struct bnc_acts x = new_acts(n, cols, 0);
    const float scale = take_floats(1)[0];
    for (int i = 0; i < n; i++)
        bnc_quantise_by(&x, i, take_floats(cols), cols, scale);
    give(x.q, (size_t)n * (size_t)cols);
    give(x.sum, sizeof *x.sum * (size_t)n);
    give_floats(x.scale, n);
}

/* levels, cols, tokens; rows -> codes, sums, scales. */
static void do_quantise_few(void)
{
    const int levels = integer(0), cols = integer(1), n = integer(2);
    struct bnc_acts x = new_acts(n, cols, 0);
    for (int i = 0; i < n; i++)
        (levels == 2 ? bnc_quantise_signs : bnc_quantise_trits)(&x, i, take_floats(cols), cols);
    give(x.q, (size_t)n * (size_t)cols);
    give(x.sum, sizeof *x.sum * (size_t)n);
    give_floats(x.scale, n);
}

/* type, rows, cols, tokens, x_stride, workers, bytes; w, x -> y. */
static void do_dense(void)
{
    const int rows = integer(1), cols = integer(2), n = integer(3), stride = integer(4);
    const enum bnc_dense_type type = (enum bnc_dense_type)integer(0);
    const uint8_t *w = take((size_t)integer(6));
    const float *x = take_floats((n - 1) * stride + cols);
    float *y = new_floats(n * rows);
    for (int i = 0; i < integer(5); i++) {
        const struct bnc_worker worker = { NULL, i, integer(5) };
        if (type == BNC_F32)
            bnc_dense(&worker, BNC_F32, y, w, rows, cols, x, stride, n);
        else if (type == BNC_F16)
            bnc_dense(&worker, BNC_F16, y, w, rows, cols, x, stride, n);
        else if (type == BNC_BF16)
            bnc_dense(&worker, BNC_BF16, y, w, rows, cols, x, stride, n);
        else
            bnc_dense(&worker, BNC_BF12, y, w, rows, cols, x, stride, n);
    }
    give_floats(y, n * rows);
}

/* type, rows, cols, bytes; w -> all its rows in floats. */
static void do_embed(void)
{
    const int rows = integer(1), cols = integer(2);
    const enum bnc_dense_type type = (enum bnc_dense_type)integer(0);
    const uint8_t *w = take((size_t)integer(3));
    float *y = new_floats(cols);
    for (int m = 0; m < rows; m++) {
        bnc_embed(type, y, w, rows, m, cols);
        give_floats(y, cols);
    }
}

/* positions, group, head_dim, scale, kv_heads, workers that share out heads and the chunks of
 * those left over (0: none do);
 * q, k, v -> out, then the cache. */
static void do_attend(void)
{
    const int positions = integer(0), group = integer(1), head_dim = integer(2);
    const int kv_heads = integer(4), workers = integer(5), heads = group * kv_heads;
    const ptrdiff_t one = (ptrdiff_t)positions * BNC_CACHE_ROW(head_dim);
    const size_t count = (size_t)(kv_heads * one);
    float *q = take_floats(heads * head_dim);
    const float *k = take_floats(positions * kv_heads * head_dim);
    const float *v = take_floats(positions * kv_heads * head_dim);
    const struct bnc_cache cache = { memory(2 * count), memory(2 * count) };
    memset(cache.keys, 0x7b, 2 * count);
    memset(cache.values, 0x7b, 2 * count);
    for (int t = 0; t < positions; t++)
        for (int h = 0; h < kv_heads; h++) {
            const struct bnc_cache head = { cache.keys + h * one, cache.values + h * one };
            const int at = (t * kv_heads + h) * head_dim;
            bnc_cache_put(head, t, k + at, v + at, head_dim);
        }
    if (workers) {
        const int shared = kv_heads % workers, whole = kv_heads - shared;
        const struct bnc_split s =
            bnc_split_of(new_floats(BNC_SPLIT_FLOATS(heads, head_dim, positions)), shared * group,
                         shared, head_dim, positions);
        const struct bnc_cache rest = { cache.keys + whole * one, cache.values + whole * one };
        float *at = q + whole * group * head_dim, *score = new_floats(group * positions);
        struct bnc_worker w = { .count = workers };
        for (w.index = 0; w.index < workers; w.index++) {
            bnc_split_scores(&w, &s, at, rest, one, real(3));
            bnc_split_whole(&w, &s, q, whole, group, cache, one, real(3), score);
        }
        for (w.index = 0; w.index < workers; w.index++)
            for (int i = w.index; i < shared * BNC_CHUNKS(positions); i += workers)
                bnc_split_take(&s, i, rest, one);
        for (w.index = 0; w.index < workers; w.index++)
            bnc_split_merge(&w, &s, at);
    }
    for (int h = 0; h < kv_heads && !workers; h++)
        bnc_attend(q + h * group * head_dim, q + h * group * head_dim,
                   (struct bnc_cache){ cache.keys + h * one, cache.values + h * one }, positions,
                   group, head_dim, real(3), new_floats(group * positions));
    give_floats(q, heads * head_dim);
    give(cache.keys, 2 * count);
    give(cache.values, 2 * count);
}

/* vocab, temperature, top_k, top_p, random state; rows of logits -> token and state of each. */
static void do_sample(void)
{
    const int vocab = integer(0);
    uint64_t state = (uint64_t)number[4];
    float *weights = new_floats(vocab);
    int32_t *order = memory(sizeof *order * (size_t)vocab);
    while (more()) {
        float *logits = take_floats(vocab);
        const int64_t token =
            bnc_sample(logits, vocab, real(1), integer(2), real(3), &state, weights, order);
        give(&token, sizeof token);
        give(&state, sizeof state);
        free(logits);
    }
}

/* what (0 store, 1 add, 2 gated), rows, cols, tokens, tile, per_row, workers, slice;
 * packed i2_k64, scales, packed and scales again when gated, activations, y -> y. */
static void do_linear(void)
{
    const int what = integer(0), rows = integer(1), cols = integer(2), n = integer(3);
    const struct bnc_linear l = { .kernel = bnc_matmul_i2_k64_scalar,
                                  .rows = rows,
                                  .cols = cols,
                                  .tile = integer(4),
                                  .tile_bytes = integer(4) * cols / 4,
                                  .per_row = integer(5),
                                  .slice = integer(7) };
    const int scales = l.per_row ? rows : 1;
    const size_t packed = (size_t)bnc_tiles(&l) * (size_t)l.tile_bytes;
    const uint8_t *w = take(packed);
    const float *scale = take_floats(scales);
    const uint8_t *w_up = what == 2 ? take(packed) : NULL;
    const float *scale_up = what == 2 ? take_floats(scales) : NULL;
    struct bnc_acts x = new_acts(n, cols, 0);
    for (int i = 0; i < n; i++)
        bnc_quantise(&x, i, take_floats(cols), cols);
    float *y = take_floats(n * rows);
    int32_t *acc = memory(2 * BNC_ACC_BYTES(l.tile, n));
    for (int i = 0; i < integer(6); i++) {
        const struct bnc_worker worker = { NULL, i, integer(6) };
        if (what == 0)
            bnc_linear_store(&worker, &l, y, rows, w, scale, &x, n, acc);
        else if (what == 1)
            bnc_linear_add(&worker, &l, y, rows, w, scale, &x, n, acc);
        else
            bnc_linear_gated(&worker, bnc_silu, &l, &l, y, rows, w, scale, w_up, scale_up, &x, n,
                             acc);
    }
    give_floats(y, n * rows);
}

static const struct {
    const char *name;
    void (*run)(void);
} functions[] = {
    { "exp", do_exp },
    { "silu", do_silu },
    { "relu2", do_relu2 },
    { "gelu_tanh", do_gelu_tanh },
    { "round", do_round },
    { "shorten", do_shorten },
    { "weights", do_weights },
    { "half", do_half },
    { "halves", do_halves },
    { "unhalf", do_unhalf },
    { "widen", do_widen },
    { "dot", do_dot },
    { "sum", do_sum },
    { "rmsnorm", do_rmsnorm },
    { "rope", do_rope },
    { "dense", do_dense },
    { "quantise", do_quantise },
    { "quantise_by", do_quantise_by },
    { "quantise_few", do_quantise_few },
    { "embed", do_embed },
    { "attend", do_attend },
    { "sample", do_sample },
    { "linear", do_linear },
};

int main(int argc, char **argv)
{
    size_t room = 1 << 16;
#ifdef _WIN32 /* bytes, no ends of lines */
    _setmode(0, _O_BINARY);
    _setmode(1, _O_BINARY);
#endif
    input = memory(room);
    for (size_t got; (got = fread(input + input_bytes, 1, room - input_bytes, stdin)) > 0;) {
        input_bytes += got;
        if (input_bytes == room && !(input = realloc(input, room *= 2)))
            return 3;
    }
    for (int i = 2; i < argc && i < 18; i++)
        number[i - 2] = (long long)strtoull(argv[i], NULL, 0);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (argc > 1 && !strcmp(argv[1], functions[i].name)) {
            functions[i].run();
            return fflush(stdout) != 0;
        }
    fprintf(stderr, "unknown function\n");
    return 2;
}
