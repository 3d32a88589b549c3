/* SPDX-License-Identifier: MIT */
/* The largest error of bnc_exp over every float32 from -80 to 0, beside double exp. */
#include <math.h>
#include <stdio.h>

#include "bnc_math.h"

int main(void)
{
    double largest = 0.0;
    float where = 0.0f;
    long not_nearest = 0, count = 0;
    const uint32_t end = bnc_bits(-80.0f);
    for (uint32_t pattern = bnc_bits(-0.0f); pattern <= end; pattern++) {
        const float x = bnc_float(pattern), y = bnc_exp(x);
        const double exact = exp((double)x);
        if (!(x > -69.31471f)) {
            if (bnc_bits(y) != 0)
                return printf("exp(%a) is not +0\n", (double)x), 1;
            continue;
        }
        /* ulp of the result's binade: 2^-23 of the power of two at or below it */
        const double ulp = (double)bnc_float((bnc_bits((float)exact) & 0x7f800000u)) * 0x1p-23;
        const double error = fabs((double)y - exact) / ulp;
        not_nearest += y != (float)exact;
        count++;
        if (error > largest) {
            largest = error;
            where = x;
        }
    }
    printf("largest error %.4f ulp at %a\n", largest, (double)where);
    printf("%ld of %ld are not the nearest float\n", not_nearest, count);
    return 0;
}
