/* SPDX-License-Identifier: MIT */
/* What the program asks of the operating system beyond C11: POSIX, Windows, or WASI.
 *
 * bnc_os_start()           before all else in main: arguments as UTF-8, streams of bytes
 * bnc_os_open()            a file for reading, its name in UTF-8
 * bnc_os_cores()           how many the machine has; below 1 if unknown
 * bnc_os_seconds()         a clock that only goes forward
 * bnc_os_terminal()        whether the stream of this number (0 input, 1 output) is a terminal
 * bnc_os_read()            bytes of standard input: as read() of POSIX, errno EINTR at Ctrl-C
 *
 * Ctrl-C at a terminal, for a conversation:
 *
 * bnc_os_hold_interrupts() from here on it is noted and does not end the program
 * bnc_os_interrupted()     whether one is noted
 * bnc_os_forget_interrupt()
 * bnc_os_wait()            until there is something to read: 0; or 1 at Ctrl-C, which is forgotten
 */
#ifndef BNC_OS_H
#define BNC_OS_H

#include <errno.h>
#include <stddef.h>
#include <stdio.h>

#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>
/* after windows.h, whose types it uses */
#include <shellapi.h>

#include <fcntl.h>
#include <io.h>
#include <stdlib.h>

/* Streams carry the program's own bytes: no end of line is rewritten. A console shows UTF-8. The
 * arguments that main is given have been through the machine's code page; their UTF-16 is whole.
 * The copy is never freed. Returns 0, or -1 when there is no memory. */
static inline int bnc_os_start(int *argc, char ***argv)
{
    int count;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &count);
    char **words = wide ? calloc((size_t)count + 1, sizeof *words) : 0;
    if (!words)
        return -1;
    for (int i = 0; i < count; i++) {
        const int bytes = WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, 0, 0, 0, 0);
        words[i] = malloc((size_t)bytes);
        if (!words[i])
            return -1;
        WideCharToMultiByte(CP_UTF8, 0, wide[i], -1, words[i], bytes, 0, 0);
    }
    LocalFree(wide);
    *argc = count;
    *argv = words;
    _setmode(0, _O_BINARY);
    _setmode(1, _O_BINARY);
    SetConsoleOutputCP(CP_UTF8);
    return 0;
}

static inline FILE *bnc_os_open(const char *path)
{
    wchar_t wide[32768]; /* the longest name that Windows has */
    if (MultiByteToWideChar(CP_UTF8, 0, path, -1, wide, sizeof wide / sizeof *wide) == 0) {
        errno = ENOENT;
        return 0;
    }
    return _wfopen(wide, L"rb");
}

static inline int bnc_os_cores(void)
{
    return (int)GetActiveProcessorCount(ALL_PROCESSOR_GROUPS);
}

static inline double bnc_os_seconds(void)
{
    LARGE_INTEGER now, each;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&each);
    return (double)now.QuadPart / (double)each.QuadPart;
}

static inline int bnc_os_terminal(int stream)
{
    DWORD mode;
    return GetConsoleMode((HANDLE)_get_osfhandle(stream), &mode) != 0;
}

static volatile LONG bnc_os_pressed; /* Ctrl-C, and not yet looked at */

static inline BOOL WINAPI bnc_os_notice(DWORD event)
{
    if (event != CTRL_C_EVENT)
        return FALSE; /* closing the window and Ctrl-Break end the program */
    InterlockedExchange(&bnc_os_pressed, 1);
    return TRUE;
}

static inline void bnc_os_hold_interrupts(void)
{
    SetConsoleCtrlHandler(bnc_os_notice, TRUE);
}

static inline int bnc_os_interrupted(void)
{
    return bnc_os_pressed != 0;
}

static inline void bnc_os_forget_interrupt(void)
{
    InterlockedExchange(&bnc_os_pressed, 0);
}

/* bnc_os_read() is what waits: Ctrl-C ends it. */
static inline int bnc_os_wait(void)
{
    return InterlockedExchange(&bnc_os_pressed, 0) != 0;
}

/* A console gives UTF-16, of which one unit becomes 3 bytes at most; Ctrl-Z at the beginning of a
 * line is its end of file. */
static inline ptrdiff_t bnc_os_read(void *bytes, size_t capacity)
{
    const HANDLE in = (HANDLE)_get_osfhandle(0);
    wchar_t units[1024];
    DWORD got, most = sizeof units / sizeof *units - 1;
    if (!bnc_os_terminal(0) || capacity < 6)
        return _read(0, bytes, capacity < 1 << 20 ? (unsigned)capacity : 1 << 20);
    if (most > capacity / 3 - 1)
        most = (DWORD)(capacity / 3 - 1);
    SetLastError(0);
    if (!ReadConsoleW(in, units, most, &got, 0)) {
        errno = EIO;
        return -1;
    }
    if (got == 0 && GetLastError() == ERROR_OPERATION_ABORTED) {
        /* The handler runs in a thread of its own, perhaps later than this. */
        for (int i = 0; i < 100 && !bnc_os_interrupted(); i++)
            Sleep(1);
        errno = EINTR;
        return -1;
    }
    if (got > 0 && IS_HIGH_SURROGATE(units[got - 1])) {
        DWORD rest = 0;
        if (ReadConsoleW(in, units + got, 1, &rest, 0))
            got += rest;
    }
    if (got == 0 || units[0] == 0x1a)
        return 0;
    return WideCharToMultiByte(CP_UTF8, 0, units, (int)got, bytes, (int)(3 * (most + 1)), 0, 0);
}

#else /* POSIX, or WASI, which has no signals and no machine to count cores of */

#include <time.h>
#include <unistd.h>

static inline int bnc_os_start(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

static inline FILE *bnc_os_open(const char *path)
{
    return fopen(path, "rb");
}

static inline int bnc_os_cores(void)
{
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static inline double bnc_os_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline int bnc_os_terminal(int stream)
{
    return isatty(stream);
}

static inline ptrdiff_t bnc_os_read(void *bytes, size_t capacity)
{
    return read(STDIN_FILENO, bytes, capacity);
}

#ifdef __wasi__

static inline void bnc_os_hold_interrupts(void)
{
}

static inline int bnc_os_interrupted(void)
{
    return 0;
}

static inline void bnc_os_forget_interrupt(void)
{
}

static inline int bnc_os_wait(void)
{
    return 0;
}

#else

#include <signal.h>
#include <sys/select.h>

/* The signal is blocked, and looked for among those that wait. */
static sigset_t bnc_os_held, bnc_os_otherwise;

static inline void bnc_os_notice(int signal)
{
    (void)signal;
}

static inline void bnc_os_hold_interrupts(void)
{
    const struct sigaction action = { .sa_handler = bnc_os_notice };
    sigemptyset(&bnc_os_held);
    sigaddset(&bnc_os_held, SIGINT);
    sigaction(SIGINT, &action, 0);
    /* before there are threads, which inherit it */
    sigprocmask(SIG_BLOCK, &bnc_os_held, &bnc_os_otherwise);
}

static inline int bnc_os_interrupted(void)
{
    sigset_t pending;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGINT) == 1;
}

static inline void bnc_os_forget_interrupt(void)
{
    int signal;
    if (bnc_os_interrupted())
        sigwait(&bnc_os_held, &signal);
}

static inline int bnc_os_wait(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(STDIN_FILENO, &set);
    return pselect(STDIN_FILENO + 1, &set, 0, 0, 0, &bnc_os_otherwise) < 0 && errno == EINTR;
}

#endif
#endif
#endif
