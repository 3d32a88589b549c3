/* SPDX-License-Identifier: MIT */
/* For weights.S: how each object format spells constants, and what its linker wants to know of an
 * object that holds nothing else.
 *
 * BNC_SECTION(name)      constants of this name follow
 * BNC_FAR_SECTION(name)  the same, beyond the reach of code; ELF of 64 bits only. Linkers keep it
 *                        apart by its flag (x86-64), or as src/weights.ld tells them. With
 *                        BNC_FILL_LATER it has room and no content, under a name that no assembler
 *                        knows to have some: bitnetc puts the content in
 * BNC_POINTERS(name)     constants that hold addresses follow
 * BNC_SYMBOL(name)       a C name as the linker knows it
 * BNC_HIDDEN(name)       not shown by a shared library
 * BNC_TYPE(name)         WebAssembly wants the type and the size of data, nobody else
 * BNC_SIZE(name, bytes)
 */
/* Not C, which is what the formatter knows. */
/* clang-format off */
#if defined(__APPLE__)
#define BNC_SECTION(name) .section __TEXT, __const
#define BNC_SYMBOL(name)  _##name
#define BNC_HIDDEN(name)  .private_extern _##name
#elif defined(_WIN32) /* where a library shows what it exports, and nothing else */
#define BNC_SECTION(name) .section .rdata, "dr"
#define BNC_SYMBOL(name)  name
#define BNC_HIDDEN(name)
#elif defined(__wasm__)
#define BNC_SECTION(name) .section .rodata.name, "", @
#define BNC_SYMBOL(name)  name
#define BNC_HIDDEN(name)  .hidden name
#else
#define BNC_SECTION(name) .section .rodata.name, "a"
#define BNC_SYMBOL(name)  name
#define BNC_HIDDEN(name)  .hidden name
#endif

#define BNC_POINTERS(name) .section .data.rel.ro.name, "aw"
#if defined(__x86_64__) && defined(BNC_FILL_LATER)
#define BNC_FAR_SECTION(name) .section .weights.name, "al", @nobits
#elif defined(__x86_64__)
#define BNC_FAR_SECTION(name) .section .lrodata.name, "al", @progbits
#elif defined(BNC_FILL_LATER)
#define BNC_FAR_SECTION(name) .section .weights.name, "a", @nobits
#else
#define BNC_FAR_SECTION(name) .section .lrodata.name, "a"
#endif

#if defined(__wasm__)
#define BNC_TYPE(name)        .type name, @object
#define BNC_SIZE(name, bytes) .size name, bytes
#else
#define BNC_TYPE(name)
#define BNC_SIZE(name, bytes)
#endif

#if defined(__linux__) && defined(__ELF__)
/* No code here asks for an executable stack: a linker that is not told assumes it. */
#if defined(__arm__)
    .section .note.GNU-stack, "", %progbits
#else
    .section .note.GNU-stack, "", @progbits
#endif

/* No code here lacks a landing pad: one object that does not say so turns BTI and PAC (AArch64),
 * or IBT and the shadow stack (x86-64), off for the whole program. */
#if (defined(__aarch64__) || defined(__x86_64__)) && defined(__LP64__)
    .section .note.gnu.property, "a"
    .p2align 3
    .long 4, 16, 5 /* bytes of the name, bytes of the rest, NT_GNU_PROPERTY_TYPE_0 */
    .asciz "GNU"
#if defined(__aarch64__)
    .long 0xc0000000, 4, 3, 0 /* AARCH64_FEATURE_1_AND: 4 bytes, BTI and PAC, padding */
#else
    .long 0xc0000002, 4, 3, 0 /* X86_FEATURE_1_AND: 4 bytes, IBT and SHSTK, padding */
#endif
#endif
#endif
