/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4) of bytes that come in pieces. */
#ifndef BNC_SHA256_H
#define BNC_SHA256_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bnc_sha256 {
    uint32_t h[8];
    uint64_t bytes; /* seen so far */
    uint8_t block[64];
};

static inline uint32_t bnc_sha256_turn(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* Takes one block of 64 bytes into h. */
static inline void bnc_sha256_block(uint32_t h[8], const uint8_t *p)
{
    /* The first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
        0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
        0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
        0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
        0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
        0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
        0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
        0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    };
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int i = 16; i < 64; i++) {
        const uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (bnc_sha256_turn(a, 7) ^ bnc_sha256_turn(a, 18) ^ a >> 3) +
               (bnc_sha256_turn(b, 17) ^ bnc_sha256_turn(b, 19) ^ b >> 10);
    }
    memcpy(s, h, sizeof s);
    /* Eight rounds at a time: instead of moving the eight words, their places turn. */
    for (int i = 0; i < 64; i += 8) {
        for (int j = 0; j < 8; j++) {
#define S(n) s[((n) - j + 8) % 8]
            const uint32_t a = S(0), e = S(4);
            const uint32_t t =
                S(7) + k[i + j] + w[i + j] + ((e & S(5)) ^ (~e & S(6))) +
                (bnc_sha256_turn(e, 6) ^ bnc_sha256_turn(e, 11) ^ bnc_sha256_turn(e, 25));
            const uint32_t u =
                ((a & S(1)) ^ (a & S(2)) ^ (S(1) & S(2))) +
                (bnc_sha256_turn(a, 2) ^ bnc_sha256_turn(a, 13) ^ bnc_sha256_turn(a, 22));
            S(3) += t;
            S(7) = t + u;
#undef S
        }
    }
    for (int i = 0; i < 8; i++)
        h[i] += s[i];
}

static inline void bnc_sha256_begin(struct bnc_sha256 *s)
{
    /* The same of the square roots of the first 8 primes. */
    static const uint32_t h[8] = {
        0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
        0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
    };
    memcpy(s->h, h, sizeof h);
    s->bytes = 0;
}

static inline void bnc_sha256_add(struct bnc_sha256 *s, const uint8_t *data, size_t bytes)
{
    const size_t held = s->bytes % 64;
    s->bytes += bytes;
    if (held + bytes < 64) {
        memcpy(s->block + held, data, bytes);
        return;
    }
    if (held > 0) {
        memcpy(s->block + held, data, 64 - held);
        bnc_sha256_block(s->h, s->block);
        data += 64 - held;
        bytes -= 64 - held;
    }
    for (; bytes >= 64; data += 64, bytes -= 64)
        bnc_sha256_block(s->h, data);
    memcpy(s->block, data, bytes);
}

static inline void bnc_sha256_end(struct bnc_sha256 *s, uint8_t digest[32])
{
    const uint64_t bits = 8 * s->bytes;
    static const uint8_t padding[64] = { 0x80 };
    uint8_t size[8];
    for (int i = 0; i < 8; i++)
        size[i] = (uint8_t)(bits >> (56 - 8 * i));
    bnc_sha256_add(s, padding, 1 + (119 - s->bytes % 64) % 64);
    bnc_sha256_add(s, size, 8);
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

#endif
