/* SPDX-License-Identifier: MIT */
/* Generated from bitnetc/layout.py by `make layouts`. Do not edit. */
#ifndef BNC_LAYOUTS_H
#define BNC_LAYOUTS_H

#include <stdint.h>

/* i2_k64: blocks of 1 x 64 trits.
 *
 *     m, kb kq:4 kl:16 -> m kb kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (0, 16)    (0, 32)    (0, 48)
 *     byte   1:     (0, 1)    (0, 17)    (0, 33)    (0, 49)
 *     byte  15:    (0, 15)    (0, 31)    (0, 47)    (0, 63)
 */
enum { BNC_I2_K64_ROWS = 1, BNC_I2_K64_COLS = 64 };

static inline int bnc_i2_k64_at(const uint8_t *w, int cols, int m, int k)
{
    const int kb = k / 64;
    const int kq = k / 16 % 4;
    const int kl = k % 16;
    const int byte = (m * (cols / 64) + kb) * 16 + kl;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 1;
}

/* i2_k256: blocks of 1 x 256 trits.
 *
 *     m, kb kq:4 kl:64 -> m kb kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (0, 64)   (0, 128)   (0, 192)
 *     byte   1:     (0, 1)    (0, 65)   (0, 129)   (0, 193)
 *     byte  63:    (0, 63)   (0, 127)   (0, 191)   (0, 255)
 */
enum { BNC_I2_K256_ROWS = 1, BNC_I2_K256_COLS = 256 };

static inline int bnc_i2_k256_at(const uint8_t *w, int cols, int m, int k)
{
    const int kb = k / 256;
    const int kq = k / 64 % 4;
    const int kl = k % 64;
    const int byte = (m * (cols / 256) + kb) * 64 + kl;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 1;
}

/* t5_k320: blocks of 1 x 320 trits.
 *
 *     m, kb kq:5 kl:64 -> m kb kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (0, 64)   (0, 128)   (0, 192)   (0, 256)
 *     byte   1:     (0, 1)    (0, 65)   (0, 129)   (0, 193)   (0, 257)
 *     byte  63:    (0, 63)   (0, 127)   (0, 191)   (0, 255)   (0, 319)
 */
enum { BNC_T5_K320_ROWS = 1, BNC_T5_K320_COLS = 320 };

static inline int bnc_t5_k320_at(const uint8_t *w, int cols, int m, int k)
{
    const int kb = k / 320;
    const int kq = k / 64 % 5;
    const int kl = k % 64;
    const int byte = (m * (cols / 320) + kb) * 64 + kl;
    const int number = w[byte] < 216 ? w[byte] / 8 * 9 + w[byte] % 8 : (w[byte] - 216) * 9 + 8;
    static const int weight[] = { 81, 27, 9, 3, 1 };
    return number / weight[kq] % 3 - 1;
}

/* i2_m4k64: blocks of 4 x 64 trits.
 *
 *     mo mi:4, kb kq:4 kl:16 -> mo kb mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (0, 16)    (0, 32)    (0, 48)
 *     byte   1:     (0, 1)    (0, 17)    (0, 33)    (0, 49)
 *     byte  63:    (3, 15)    (3, 31)    (3, 47)    (3, 63)
 */
enum { BNC_I2_M4K64_ROWS = 4, BNC_I2_M4K64_COLS = 64 };

static inline int bnc_i2_m4k64_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 4;
    const int mi = m % 4;
    const int kb = k / 64;
    const int kq = k / 16 % 4;
    const int kl = k % 16;
    const int byte = ((mo * (cols / 64) + kb) * 4 + mi) * 16 + kl;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 1;
}

/* i2_m4k128: blocks of 4 x 128 trits.
 *
 *     mo mi:4, kb kq:4 kl:32 -> mo kb mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (0, 32)    (0, 64)    (0, 96)
 *     byte   1:     (0, 1)    (0, 33)    (0, 65)    (0, 97)
 *     byte 127:    (3, 31)    (3, 63)    (3, 95)   (3, 127)
 */
enum { BNC_I2_M4K128_ROWS = 4, BNC_I2_M4K128_COLS = 128 };

static inline int bnc_i2_m4k128_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 4;
    const int mi = m % 4;
    const int kb = k / 128;
    const int kq = k / 32 % 4;
    const int kl = k % 32;
    const int byte = ((mo * (cols / 128) + kb) * 4 + mi) * 32 + kl;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 1;
}

/* t5_m4k80: blocks of 4 x 80 trits.
 *
 *     mo mi:4, kb kq:5 kl:16 -> mo kb mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (0, 16)    (0, 32)    (0, 48)    (0, 64)
 *     byte   1:     (0, 1)    (0, 17)    (0, 33)    (0, 49)    (0, 65)
 *     byte  63:    (3, 15)    (3, 31)    (3, 47)    (3, 63)    (3, 79)
 */
enum { BNC_T5_M4K80_ROWS = 4, BNC_T5_M4K80_COLS = 80 };

static inline int bnc_t5_m4k80_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 4;
    const int mi = m % 4;
    const int kb = k / 80;
    const int kq = k / 16 % 5;
    const int kl = k % 16;
    const int byte = ((mo * (cols / 80) + kb) * 4 + mi) * 16 + kl;
    const int number = w[byte] < 216 ? w[byte] / 8 * 9 + w[byte] % 8 : (w[byte] - 216) * 9 + 8;
    static const int weight[] = { 81, 27, 9, 3, 1 };
    return number / weight[kq] % 3 - 1;
}

/* t5_m32k80: blocks of 32 x 80 trits.
 *
 *     mo mh:2 mi:16, kb kc:4 kq:5 kl:4 -> mo kb kc mh mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 4)     (0, 8)    (0, 12)    (0, 16)
 *     byte   1:     (0, 1)     (0, 5)     (0, 9)    (0, 13)    (0, 17)
 *     byte 511:   (31, 63)   (31, 67)   (31, 71)   (31, 75)   (31, 79)
 */
enum { BNC_T5_M32K80_ROWS = 32, BNC_T5_M32K80_COLS = 80 };

static inline int bnc_t5_m32k80_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 32;
    const int mh = m / 16 % 2;
    const int mi = m % 16;
    const int kb = k / 80;
    const int kc = k / 20 % 4;
    const int kq = k / 4 % 5;
    const int kl = k % 4;
    const int byte = ((((mo * (cols / 80) + kb) * 4 + kc) * 2 + mh) * 16 + mi) * 4 + kl;
    const int number = w[byte] < 216 ? w[byte] / 8 * 9 + w[byte] % 8 : (w[byte] - 216) * 9 + 8;
    static const int weight[] = { 81, 27, 9, 3, 1 };
    return number / weight[kq] % 3 - 1;
}

/* i2_m32k64: blocks of 32 x 64 trits.
 *
 *     mo mh:2 mi:16, kb kc:4 kq:4 kl:4 -> mo kb kc mh mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 4)     (0, 8)    (0, 12)
 *     byte   1:     (0, 1)     (0, 5)     (0, 9)    (0, 13)
 *     byte 511:   (31, 51)   (31, 55)   (31, 59)   (31, 63)
 */
enum { BNC_I2_M32K64_ROWS = 32, BNC_I2_M32K64_COLS = 64 };

static inline int bnc_i2_m32k64_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 32;
    const int mh = m / 16 % 2;
    const int mi = m % 16;
    const int kb = k / 64;
    const int kc = k / 16 % 4;
    const int kq = k / 4 % 4;
    const int kl = k % 4;
    const int byte = ((((mo * (cols / 64) + kb) * 4 + kc) * 2 + mh) * 16 + mi) * 4 + kl;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 1;
}

/* i2_m128k16: blocks of 128 x 16 trits.
 *
 *     mo mi:128, kb kc:4 kq:4 -> mo kb kc mi | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 1)     (0, 2)     (0, 3)
 *     byte   1:     (1, 0)     (1, 1)     (1, 2)     (1, 3)
 *     byte 511:  (127, 12)  (127, 13)  (127, 14)  (127, 15)
 */
enum { BNC_I2_M128K16_ROWS = 128, BNC_I2_M128K16_COLS = 16 };

static inline int bnc_i2_m128k16_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 128;
    const int mi = m % 128;
    const int kb = k / 16;
    const int kc = k / 4 % 4;
    const int kq = k % 4;
    const int byte = ((mo * (cols / 16) + kb) * 4 + kc) * 128 + mi;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 1;
}

/* i2_m256k4: blocks of 256 x 4 trits.
 *
 *     mo ms:4 mr:4 ml:4 md:4, kb kl:4 -> mo kb kl ml mr md | ms
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (64, 0)   (128, 0)   (192, 0)
 *     byte   1:     (1, 0)    (65, 0)   (129, 0)   (193, 0)
 *     byte 255:    (63, 3)   (127, 3)   (191, 3)   (255, 3)
 */
enum { BNC_I2_M256K4_ROWS = 256, BNC_I2_M256K4_COLS = 4 };

static inline int bnc_i2_m256k4_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 256;
    const int ms = m / 64 % 4;
    const int mr = m / 16 % 4;
    const int ml = m / 4 % 4;
    const int md = m % 4;
    const int kb = k / 4;
    const int kl = k % 4;
    const int byte = ((((mo * (cols / 4) + kb) * 4 + kl) * 4 + ml) * 4 + mr) * 4 + md;
    const int shift = 6 - 2 * ms;
    return (w[byte] >> shift & 3) - 1;
}

/* t5_m320k4: blocks of 320 x 4 trits.
 *
 *     mo ms:5 mr:4 ml:4 md:4, kb kl:4 -> mo kb kl ml mr md | ms
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (64, 0)   (128, 0)   (192, 0)   (256, 0)
 *     byte   1:     (1, 0)    (65, 0)   (129, 0)   (193, 0)   (257, 0)
 *     byte 255:    (63, 3)   (127, 3)   (191, 3)   (255, 3)   (319, 3)
 */
enum { BNC_T5_M320K4_ROWS = 320, BNC_T5_M320K4_COLS = 4 };

static inline int bnc_t5_m320k4_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 320;
    const int ms = m / 64 % 5;
    const int mr = m / 16 % 4;
    const int ml = m / 4 % 4;
    const int md = m % 4;
    const int kb = k / 4;
    const int kl = k % 4;
    const int byte = ((((mo * (cols / 4) + kb) * 4 + kl) * 4 + ml) * 4 + mr) * 4 + md;
    const int number = w[byte] < 216 ? w[byte] / 8 * 9 + w[byte] % 8 : (w[byte] - 216) * 9 + 8;
    static const int weight[] = { 81, 27, 9, 3, 1 };
    return number / weight[ms] % 3 - 1;
}

/* tl1_m32k4: blocks of 32 x 4 trits.
 *
 *     mo mi:32, kb kn:2 -> mo kb mi | kn
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 2)
 *     byte   1:     (1, 0)     (1, 2)
 *     byte  31:    (31, 0)    (31, 2)
 */
enum { BNC_TL1_M32K4_ROWS = 32, BNC_TL1_M32K4_COLS = 4 };

static inline int bnc_tl1_m32k4_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 32;
    const int mi = m % 32;
    const int kb = k / 4;
    const int kn = k / 2 % 2;
    const int byte = (mo * (cols / 4) + kb) * 32 + mi;
    const int shift = 4 - 4 * kn;
    const int code = w[byte] >> shift & 15;
    return (k % 2 == 0 ? code / 3 : code % 3) - 1;
}

/* tl1_m64k4: blocks of 64 x 4 trits.
 *
 *     mo mi:64, kb kn:2 -> mo kb mi | kn
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 2)
 *     byte   1:     (1, 0)     (1, 2)
 *     byte  63:    (63, 0)    (63, 2)
 */
enum { BNC_TL1_M64K4_ROWS = 64, BNC_TL1_M64K4_COLS = 4 };

static inline int bnc_tl1_m64k4_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 64;
    const int mi = m % 64;
    const int kb = k / 4;
    const int kn = k / 2 % 2;
    const int byte = (mo * (cols / 4) + kb) * 64 + mi;
    const int shift = 4 - 4 * kn;
    const int code = w[byte] >> shift & 15;
    return (k % 2 == 0 ? code / 3 : code % 3) - 1;
}

/* tl1_m64k8: blocks of 64 x 8 trits.
 *
 *     mo mi:64, kb kn:2 kp:2 -> mo kb mi kp | kn
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 4)
 *     byte   1:     (0, 2)     (0, 6)
 *     byte 127:    (63, 2)    (63, 6)
 */
enum { BNC_TL1_M64K8_ROWS = 64, BNC_TL1_M64K8_COLS = 8 };

static inline int bnc_tl1_m64k8_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 64;
    const int mi = m % 64;
    const int kb = k / 8;
    const int kn = k / 4 % 2;
    const int kp = k / 2 % 2;
    const int byte = ((mo * (cols / 8) + kb) * 64 + mi) * 2 + kp;
    const int shift = 4 - 4 * kn;
    const int code = w[byte] >> shift & 15;
    return (k % 2 == 0 ? code / 3 : code % 3) - 1;
}

/* b1_k128: blocks of 1 x 128 signs.
 *
 *     m, kb kq:8 kl:16 -> m kb kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:    (0, 0)   (0, 16)   (0, 32)   (0, 48)   (0, 64)   (0, 80)   (0, 96)  (0, 112)
 *     byte   1:    (0, 1)   (0, 17)   (0, 33)   (0, 49)   (0, 65)   (0, 81)   (0, 97)  (0, 113)
 *     byte  15:   (0, 15)   (0, 31)   (0, 47)   (0, 63)   (0, 79)   (0, 95)  (0, 111)  (0, 127)
 */
enum { BNC_B1_K128_ROWS = 1, BNC_B1_K128_COLS = 128 };

static inline int bnc_b1_k128_at(const uint8_t *w, int cols, int m, int k)
{
    const int kb = k / 128;
    const int kq = k / 16 % 8;
    const int kl = k % 16;
    const int byte = (m * (cols / 128) + kb) * 16 + kl;
    const int shift = 7 - 1 * kq;
    return 2 * (w[byte] >> shift & 1) - 1;
}

/* b1_m4k128: blocks of 4 x 128 signs.
 *
 *     mo mi:4, kb kq:8 kl:16 -> mo kb mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:    (0, 0)   (0, 16)   (0, 32)   (0, 48)   (0, 64)   (0, 80)   (0, 96)  (0, 112)
 *     byte   1:    (0, 1)   (0, 17)   (0, 33)   (0, 49)   (0, 65)   (0, 81)   (0, 97)  (0, 113)
 *     byte  63:   (3, 15)   (3, 31)   (3, 47)   (3, 63)   (3, 79)   (3, 95)  (3, 111)  (3, 127)
 */
enum { BNC_B1_M4K128_ROWS = 4, BNC_B1_M4K128_COLS = 128 };

static inline int bnc_b1_m4k128_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 4;
    const int mi = m % 4;
    const int kb = k / 128;
    const int kq = k / 16 % 8;
    const int kl = k % 16;
    const int byte = ((mo * (cols / 128) + kb) * 4 + mi) * 16 + kl;
    const int shift = 7 - 1 * kq;
    return 2 * (w[byte] >> shift & 1) - 1;
}

/* b1_m32k64: blocks of 32 x 64 signs.
 *
 *     mo mh:2 mi:16, kb kc:2 kq:8 kl:4 -> mo kb kc mh mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:    (0, 0)    (0, 4)    (0, 8)   (0, 12)   (0, 16)   (0, 20)   (0, 24)   (0, 28)
 *     byte   1:    (0, 1)    (0, 5)    (0, 9)   (0, 13)   (0, 17)   (0, 21)   (0, 25)   (0, 29)
 *     byte 255:  (31, 35)  (31, 39)  (31, 43)  (31, 47)  (31, 51)  (31, 55)  (31, 59)  (31, 63)
 */
enum { BNC_B1_M32K64_ROWS = 32, BNC_B1_M32K64_COLS = 64 };

static inline int bnc_b1_m32k64_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 32;
    const int mh = m / 16 % 2;
    const int mi = m % 16;
    const int kb = k / 64;
    const int kc = k / 32 % 2;
    const int kq = k / 4 % 8;
    const int kl = k % 4;
    const int byte = ((((mo * (cols / 64) + kb) * 2 + kc) * 2 + mh) * 16 + mi) * 4 + kl;
    const int shift = 7 - 1 * kq;
    return 2 * (w[byte] >> shift & 1) - 1;
}

/* b1_m128k16: blocks of 128 x 16 signs.
 *
 *     mo mi:16 mq:8, kb kl:16 -> mo kb kl mi | mq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:    (0, 0)    (1, 0)    (2, 0)    (3, 0)    (4, 0)    (5, 0)    (6, 0)    (7, 0)
 *     byte   1:    (8, 0)    (9, 0)   (10, 0)   (11, 0)   (12, 0)   (13, 0)   (14, 0)   (15, 0)
 *     byte 255: (120, 15) (121, 15) (122, 15) (123, 15) (124, 15) (125, 15) (126, 15) (127, 15)
 */
enum { BNC_B1_M128K16_ROWS = 128, BNC_B1_M128K16_COLS = 16 };

static inline int bnc_b1_m128k16_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 128;
    const int mi = m / 8 % 16;
    const int mq = m % 8;
    const int kb = k / 16;
    const int kl = k % 16;
    const int byte = ((mo * (cols / 16) + kb) * 16 + kl) * 16 + mi;
    const int shift = 7 - 1 * mq;
    return 2 * (w[byte] >> shift & 1) - 1;
}

/* b1_m128k8: blocks of 128 x 8 signs.
 *
 *     mo mi:128, kb kq:8 -> mo kb mi | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:    (0, 0)    (0, 1)    (0, 2)    (0, 3)    (0, 4)    (0, 5)    (0, 6)    (0, 7)
 *     byte   1:    (1, 0)    (1, 1)    (1, 2)    (1, 3)    (1, 4)    (1, 5)    (1, 6)    (1, 7)
 *     byte 127:  (127, 0)  (127, 1)  (127, 2)  (127, 3)  (127, 4)  (127, 5)  (127, 6)  (127, 7)
 */
enum { BNC_B1_M128K8_ROWS = 128, BNC_B1_M128K8_COLS = 8 };

static inline int bnc_b1_m128k8_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 128;
    const int mi = m % 128;
    const int kb = k / 8;
    const int kq = k % 8;
    const int byte = (mo * (cols / 8) + kb) * 128 + mi;
    const int shift = 7 - 1 * kq;
    return 2 * (w[byte] >> shift & 1) - 1;
}

/* b1_m4k32: blocks of 4 x 32 signs.
 *
 *     mo mi:4, kb kq:2 kl:16 -> mo kb kl | kq mi
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:    (0, 0)    (1, 0)    (2, 0)    (3, 0)   (0, 16)   (1, 16)   (2, 16)   (3, 16)
 *     byte   1:    (0, 1)    (1, 1)    (2, 1)    (3, 1)   (0, 17)   (1, 17)   (2, 17)   (3, 17)
 *     byte  15:   (0, 15)   (1, 15)   (2, 15)   (3, 15)   (0, 31)   (1, 31)   (2, 31)   (3, 31)
 */
enum { BNC_B1_M4K32_ROWS = 4, BNC_B1_M4K32_COLS = 32 };

static inline int bnc_b1_m4k32_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 4;
    const int mi = m % 4;
    const int kb = k / 32;
    const int kq = k / 16 % 2;
    const int kl = k % 16;
    const int byte = (mo * (cols / 32) + kb) * 16 + kl;
    const int shift = 7 - 1 * (kq * 4 + mi);
    return 2 * (w[byte] >> shift & 1) - 1;
}

/* b1_m8k64: blocks of 8 x 64 signs.
 *
 *     mo mi:8, kb kq:8 kx:8 -> mo kb mi kx | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:    (0, 0)    (0, 8)   (0, 16)   (0, 24)   (0, 32)   (0, 40)   (0, 48)   (0, 56)
 *     byte   1:    (0, 1)    (0, 9)   (0, 17)   (0, 25)   (0, 33)   (0, 41)   (0, 49)   (0, 57)
 *     byte  63:    (7, 7)   (7, 15)   (7, 23)   (7, 31)   (7, 39)   (7, 47)   (7, 55)   (7, 63)
 */
enum { BNC_B1_M8K64_ROWS = 8, BNC_B1_M8K64_COLS = 64 };

static inline int bnc_b1_m8k64_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 8;
    const int mi = m % 8;
    const int kb = k / 64;
    const int kq = k / 8 % 8;
    const int kx = k % 8;
    const int byte = ((mo * (cols / 64) + kb) * 8 + mi) * 8 + kx;
    const int shift = 7 - 1 * kq;
    return 2 * (w[byte] >> shift & 1) - 1;
}

/* u2_m8k64: blocks of 8 x 64 trits.
 *
 *     mo mi:8, kb kc:2 kq:4 kx:8 -> mo kb kc mi kx | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 8)    (0, 16)    (0, 24)
 *     byte   1:     (0, 1)     (0, 9)    (0, 17)    (0, 25)
 *     byte 127:    (7, 39)    (7, 47)    (7, 55)    (7, 63)
 */
enum { BNC_U2_M8K64_ROWS = 8, BNC_U2_M8K64_COLS = 64 };

static inline int bnc_u2_m8k64_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 8;
    const int mi = m % 8;
    const int kb = k / 64;
    const int kc = k / 32 % 2;
    const int kq = k / 8 % 4;
    const int kx = k % 8;
    const int byte = (((mo * (cols / 64) + kb) * 2 + kc) * 8 + mi) * 8 + kx;
    const int shift = 6 - 2 * kq;
    const int code = w[byte] >> shift & 3;
    return code - (code >> 1) - 1;
}

/* q2_k64: blocks of 1 x 64 integers.
 *
 *     m, kb kq:4 kl:16 -> m kb kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (0, 16)    (0, 32)    (0, 48)
 *     byte   1:     (0, 1)    (0, 17)    (0, 33)    (0, 49)
 *     byte  15:    (0, 15)    (0, 31)    (0, 47)    (0, 63)
 */
enum { BNC_Q2_K64_ROWS = 1, BNC_Q2_K64_COLS = 64 };

static inline int bnc_q2_k64_at(const uint8_t *w, int cols, int m, int k)
{
    const int kb = k / 64;
    const int kq = k / 16 % 4;
    const int kl = k % 16;
    const int byte = (m * (cols / 64) + kb) * 16 + kl;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 2;
}

/* q2_m4k64: blocks of 4 x 64 integers.
 *
 *     mo mi:4, kb kq:4 kl:16 -> mo kb mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)    (0, 16)    (0, 32)    (0, 48)
 *     byte   1:     (0, 1)    (0, 17)    (0, 33)    (0, 49)
 *     byte  63:    (3, 15)    (3, 31)    (3, 47)    (3, 63)
 */
enum { BNC_Q2_M4K64_ROWS = 4, BNC_Q2_M4K64_COLS = 64 };

static inline int bnc_q2_m4k64_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 4;
    const int mi = m % 4;
    const int kb = k / 64;
    const int kq = k / 16 % 4;
    const int kl = k % 16;
    const int byte = ((mo * (cols / 64) + kb) * 4 + mi) * 16 + kl;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 2;
}

/* q2_m32k64: blocks of 32 x 64 integers.
 *
 *     mo mh:2 mi:16, kb kc:4 kq:4 kl:4 -> mo kb kc mh mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 4)     (0, 8)    (0, 12)
 *     byte   1:     (0, 1)     (0, 5)     (0, 9)    (0, 13)
 *     byte 511:   (31, 51)   (31, 55)   (31, 59)   (31, 63)
 */
enum { BNC_Q2_M32K64_ROWS = 32, BNC_Q2_M32K64_COLS = 64 };

static inline int bnc_q2_m32k64_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 32;
    const int mh = m / 16 % 2;
    const int mi = m % 16;
    const int kb = k / 64;
    const int kc = k / 16 % 4;
    const int kq = k / 4 % 4;
    const int kl = k % 4;
    const int byte = ((((mo * (cols / 64) + kb) * 4 + kc) * 2 + mh) * 16 + mi) * 4 + kl;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 2;
}

/* q2_m128k16: blocks of 128 x 16 integers.
 *
 *     mo mi:128, kb kc:4 kq:4 -> mo kb kc mi | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 1)     (0, 2)     (0, 3)
 *     byte   1:     (1, 0)     (1, 1)     (1, 2)     (1, 3)
 *     byte 511:  (127, 12)  (127, 13)  (127, 14)  (127, 15)
 */
enum { BNC_Q2_M128K16_ROWS = 128, BNC_Q2_M128K16_COLS = 16 };

static inline int bnc_q2_m128k16_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 128;
    const int mi = m % 128;
    const int kb = k / 16;
    const int kc = k / 4 % 4;
    const int kq = k % 4;
    const int byte = ((mo * (cols / 16) + kb) * 4 + kc) * 128 + mi;
    const int shift = 6 - 2 * kq;
    return (w[byte] >> shift & 3) - 2;
}

/* i4_m16k8: blocks of 16 x 8 integers.
 *
 *     mo mi:16, kb kq:2 kl:4 -> mo kb mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)     (0, 4)
 *     byte   1:     (0, 1)     (0, 5)
 *     byte  63:    (15, 3)    (15, 7)
 */
enum { BNC_I4_M16K8_ROWS = 16, BNC_I4_M16K8_COLS = 8 };

static inline int bnc_i4_m16k8_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 16;
    const int mi = m % 16;
    const int kb = k / 8;
    const int kq = k / 4 % 2;
    const int kl = k % 4;
    const int byte = ((mo * (cols / 8) + kb) * 16 + mi) * 4 + kl;
    const int shift = 4 - 4 * kq;
    return (w[byte] >> shift & 15) - 8;
}

/* i6_m16k16: blocks of 16 x 16 integers.
 *
 *     mo mi:16, kb kq:4 kl:4 -> mo kb * mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:    (0, 12)     (0, 0)
 *     byte   1:    (0, 13)     (0, 1)
 *     byte 191:   (15, 15)   (15, 11)
 */
enum { BNC_I6_M16K16_ROWS = 16, BNC_I6_M16K16_COLS = 16 };

static inline int bnc_i6_m16k16_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 16;
    const int mi = m % 16;
    const int kb = k / 16;
    const int kq = k / 4 % 4;
    const int kl = k % 4;
    const int byte = ((mo * (cols / 16) + kb) * 3 * 16 + mi) * 4 + kl;
    const uint8_t *at = w + byte;
    const int last = at[0] >> 6 | at[64] >> 6 << 2 | at[128] >> 6 << 4;
    return (kq < 3 ? at[64 * kq] & 63 : last) - 32;
}

/* i8_m16k4: blocks of 16 x 4 integers.
 *
 *     mo mi:16, kb kq:1 kl:4 -> mo kb mi kl | kq
 *
 * (row, column) held by the first two bytes of a block and by the last, high bits first:
 *
 *     byte   0:     (0, 0)
 *     byte   1:     (0, 1)
 *     byte  63:    (15, 3)
 */
enum { BNC_I8_M16K4_ROWS = 16, BNC_I8_M16K4_COLS = 4 };

static inline int bnc_i8_m16k4_at(const uint8_t *w, int cols, int m, int k)
{
    const int mo = m / 16;
    const int mi = m % 16;
    const int kb = k / 4;
    const int kq = k / 4 % 1;
    const int kl = k % 4;
    const int byte = ((mo * (cols / 4) + kb) * 16 + mi) * 4 + kl;
    const int shift = 0 - 8 * kq;
    return (w[byte] >> shift & 255) - 128;
}

#endif
