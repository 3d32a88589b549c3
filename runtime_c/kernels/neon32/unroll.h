/* SPDX-License-Identifier: MIT */
#ifndef BNC_NEON32_UNROLL_H
#define BNC_NEON32_UNROLL_H

/* Before loops over the registers of an array: Clang for 32 bits leaves them, and the array in
 * memory. */
#if defined(__clang__)
#define BNC_UNROLL_NEON32 _Pragma("clang loop unroll(full)")
#else
#define BNC_UNROLL_NEON32 _Pragma("GCC unroll 8")
#endif

#endif
