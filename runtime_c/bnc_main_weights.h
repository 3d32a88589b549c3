/* SPDX-License-Identifier: MIT */
/* Where a program has its weights: in itself, or in a file that is mapped before the first session.
 */
#ifndef BNC_MAIN_WEIGHTS_H
#define BNC_MAIN_WEIGHTS_H

#include "bnc_main_options.h"

#ifdef __linux__
#include "bnc_huge.h"
#endif

static void refuse_huge_pages(const struct options *o)
{
#ifdef __linux__
    if (o->huge_pages && bnc_huge_never())
        die(FAILED, "--huge-pages", "this system gives none: see " BNC_HUGE_SETTING);
#else
    (void)o;
#endif
}

#ifdef BNC_MODEL_WEIGHTS_FILE_BYTES

#include "bnc_map.h"

static struct bnc_map weights;

static void open_weights(const struct options *o)
{
    static char path[BNC_PATH];
    refuse_huge_pages(o);
    const char *wrong = bnc_open_weights(&weights, o->weights, BNC_MODEL_WEIGHTS_FILE, o->self,
                                         BNC_MODEL_WEIGHTS_FILE_BYTES, path);
    if (wrong)
        die(USAGE, path, wrong);
#ifdef __linux__
    if (!o->huge_pages)
        bnc_huge_memory((void *)(uintptr_t)weights.data, weights.bytes);
#endif
    const int code = bnc_model_check_weights(weights.data, weights.bytes, o->check_weights);
    if (code != 0)
        die(USAGE, path, bnc_model_error(code));
#ifdef __linux__
    if (o->huge_pages && bnc_huge_pages(weights.data, weights.bytes) != 0)
        die(FAILED, "--huge-pages", "there is no memory for a copy of the weights");
#endif
}

static struct bnc_model *begin(void *arena, size_t bytes, int context, int threads)
{
    return bnc_model_init_weights(arena, bytes, context, threads, weights.data, weights.bytes);
}

#else

static void open_weights(const struct options *o)
{
    refuse_huge_pages(o);
#ifdef __linux__
    const int found = o->huge_pages ? bnc_huge_program(BNC_MODEL_WEIGHTS_BYTES) : 1;
    if (!o->huge_pages)
        bnc_huge_file(BNC_MODEL_WEIGHTS_BYTES);
    if (found < 1)
        die(FAILED, "--huge-pages",
            found < 0 ? "there is no memory for a copy of the weights"
                      : "/proc/self/maps does not say where the weights are");
#endif
}

static struct bnc_model *begin(void *arena, size_t bytes, int context, int threads)
{
    return bnc_model_init(arena, bytes, context, threads);
}

#endif
#endif
