/* SPDX-License-Identifier: MIT */
/* NAME.weights: packed weights that are not part of the program. A header of 128 bytes,
 * little-endian, then the weights, which are read where they lie:
 *
 *     0   "BITNETCW"
 *     8   uint32  version of this header, 1
 *     12  uint32  bytes of this header, 128
 *     16  uint64  bytes of the weights
 *     24  zeros
 *     32  SHA-256 of the weights: the library has the same one and takes no other
 *     64  what they are, for people; ends with a zero
 *
 * Bounds: nothing beyond `bytes` is read, and nothing of the weights unless they are hashed.
 */
#ifndef BNC_WEIGHTS_H
#define BNC_WEIGHTS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "bnc_sha256.h"

enum { BNC_WEIGHTS_VERSION = 1, BNC_WEIGHTS_HEADER = 128, BNC_WEIGHTS_ALIGN = 64 };

enum bnc_weights_state {
    BNC_WEIGHTS_GOOD,
    BNC_WEIGHTS_MISALIGNED, /* not at a multiple of 64 */
    BNC_WEIGHTS_FOREIGN,    /* no such header, or one of another version */
    BNC_WEIGHTS_OTHER,      /* of another model, target, or context */
    BNC_WEIGHTS_SHORT,      /* fewer bytes than the header says */
    BNC_WEIGHTS_DAMAGED     /* not the bytes that were packed */
};

/* What is wrong with the `bytes` bytes at `file`, which may be followed by others. They should hold
 * `expected` bytes of weights with this SHA-256. whole: they are hashed, and so read. */
static inline enum bnc_weights_state bnc_weights_check(const void *file, size_t bytes,
                                                       uint64_t expected,
                                                       const uint8_t identity[32], int whole)
{
    const uint8_t *at = file;
    uint64_t size = 0;
    uint32_t version = 0, header = 0;
    if ((uintptr_t)file % BNC_WEIGHTS_ALIGN != 0)
        return BNC_WEIGHTS_MISALIGNED;
    if (bytes < BNC_WEIGHTS_HEADER)
        return bytes > 0 && memcmp(at, "BITNETCW", bytes < 8 ? bytes : 8) == 0
                   ? BNC_WEIGHTS_SHORT
                   : BNC_WEIGHTS_FOREIGN;
    for (int i = 3; i >= 0; i--) {
        version = version << 8 | at[8 + i];
        header = header << 8 | at[12 + i];
    }
    for (int i = 7; i >= 0; i--)
        size = size << 8 | at[16 + i];
    if (memcmp(at, "BITNETCW", 8) != 0 || version != BNC_WEIGHTS_VERSION ||
        header != BNC_WEIGHTS_HEADER)
        return BNC_WEIGHTS_FOREIGN;
    if (size != expected || memcmp(at + 32, identity, 32) != 0)
        return BNC_WEIGHTS_OTHER;
    if (bytes - BNC_WEIGHTS_HEADER < size)
        return BNC_WEIGHTS_SHORT;
    if (whole) {
        struct bnc_sha256 hash;
        uint8_t digest[32];
        bnc_sha256_begin(&hash);
        bnc_sha256_add(&hash, at + BNC_WEIGHTS_HEADER, (size_t)size);
        bnc_sha256_end(&hash, digest);
        if (memcmp(digest, identity, 32) != 0)
            return BNC_WEIGHTS_DAMAGED;
    }
    return BNC_WEIGHTS_GOOD;
}

#endif
