/* SPDX-License-Identifier: MIT */
/* Reference ternary matmul, one for every layout: acc[m] = sum over k of trit[m][k] * q[k].
 *
 * Reads every trit through the layout's own accessor, so it is right by construction, and slow.
 * All other kernels must agree with it in every integer. */
#ifndef BNC_REFERENCE_H
#define BNC_REFERENCE_H

#include "../../bnc_layouts.h"
#include "../../bnc_linear.h"

#define BNC_DEFINE_REFERENCE(layout)                                                               \
    static void bnc_matmul_##layout##_reference(int32_t *restrict acc, const uint8_t *restrict w,  \
                                                const struct bnc_acts *x, int rows, int cols,      \
                                                int n)                                             \
    {                                                                                              \
        for (int i = 0; i < n; i++)                                                                \
            for (int m = 0; m < rows; m++) {                                                       \
                int32_t sum = 0;                                                                   \
                for (int k = 0; k < cols; k++)                                                     \
                    sum += bnc_##layout##_at(w, cols, m, k) * x->q[i * x->stride + k];             \
                acc[i * rows + m] = sum;                                                           \
            }                                                                                      \
    }

#endif
