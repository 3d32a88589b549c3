/* SPDX-License-Identifier: MIT */
/* Reference matmul, one for every layout: acc[m] = sum over k of value[m][k] * q[k].
 *
 * Reads every value through the layout's own accessor, so it is right by construction, and slow.
 * All other kernels must agree with it in every integer. */
#ifndef BNC_REFERENCE_H
#define BNC_REFERENCE_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

/* value[m * cols + k] of a packed matrix */
typedef void bnc_decode(int8_t *restrict value, const uint8_t *restrict w, int rows, int cols);

#define BNC_DEFINE_DECODE(layout)                                                                  \
    static void bnc_decode_##layout(int8_t *restrict value, const uint8_t *restrict w, int rows,   \
                                    int cols)                                                      \
    {                                                                                              \
        for (int m = 0; m < rows; m++)                                                             \
            for (int k = 0; k < cols; k++)                                                         \
                value[m * cols + k] = (int8_t)bnc_##layout##_at(w, cols, m, k);                    \
    }

static void bnc_matmul_reference(int32_t *restrict acc, const int8_t *restrict value,
                                 const struct bnc_acts *x, int rows, int cols, int n)
{
    for (int i = 0; i < n; i++)
        for (int m = 0; m < rows; m++) {
            int32_t sum = 0;
            for (int k = 0; k < cols; k++)
                sum += value[m * cols + k] * x->q[i * x->stride + k];
            acc[i * rows + m] = sum;
        }
}

#endif
