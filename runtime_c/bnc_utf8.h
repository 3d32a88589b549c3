/* SPDX-License-Identifier: MIT */
/* Text that arrives in pieces, in whole characters of UTF-8. */
#ifndef BNC_UTF8_H
#define BNC_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* How many bytes, 0 .. 3, at the end of a text begin a character and do not finish it. Bytes that
 * no further ones can make a character of count for none. */
static inline size_t bnc_unfinished(const uint8_t *text, size_t bytes)
{
    for (size_t back = 1; back <= 3 && back <= bytes; back++) {
        const uint8_t lead = text[bytes - back];
        if ((lead & 0xc0) == 0x80)
            continue;
        const size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
        if (lead < 0xc2 || lead > 0xf4 || size <= back)
            return 0;
        if (back > 1) {
            /* No overlong form, no surrogate, nothing above U+10FFFF. */
            const uint8_t second = text[bytes - back + 1];
            const uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
            const uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
            if (second < low || second > high)
                return 0;
        }
        return back;
    }
    return 0;
}

#endif
