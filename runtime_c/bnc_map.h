/* SPDX-License-Identifier: MIT */
/* For programs: finds NAME.weights and maps it. POSIX, Windows; where nothing can be mapped (WASI)
 * it is read into memory.
 *
 * bnc_map_file()       a file, or a device, from an offset on
 * bnc_program_folder() where the program lies
 * bnc_open_weights()   the file that --weights names, else the one beside the program
 */
#ifndef BNC_MAP_H
#define BNC_MAP_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bnc_map {
    const void *data; /* null when there are no bytes */
    size_t bytes;
};

/* All of them: *map is what there is from `offset` on, `most` bytes at most. Returns 0, or -1 and
 * errno. What is mapped stays to the end of the program. */

#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#define NOMINMAX
#include <windows.h>

static inline int bnc_map_file(struct bnc_map *map, const char *path, uint64_t offset, size_t most)
{
    wchar_t wide[32768]; /* the longest name that Windows has */
    SYSTEM_INFO system;
    LARGE_INTEGER end;
    map->data = 0;
    map->bytes = 0;
    errno = ENOENT;
    if (MultiByteToWideChar(CP_UTF8, 0, path, -1, wide, sizeof wide / sizeof *wide) == 0)
        return -1;
    const HANDLE file = CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ, 0, OPEN_EXISTING, 0, 0);
    if (file == INVALID_HANDLE_VALUE) {
        const DWORD why = GetLastError();
        if (why != ERROR_FILE_NOT_FOUND && why != ERROR_PATH_NOT_FOUND)
            errno = EACCES;
        return -1;
    }
    GetSystemInfo(&system);
    const uint64_t from = offset - offset % system.dwAllocationGranularity;
    const size_t before = (size_t)(offset - from);
    errno = EIO;
    if (!GetFileSizeEx(file, &end)) {
        CloseHandle(file);
        return -1;
    }
    const uint64_t left = (uint64_t)end.QuadPart > offset ? (uint64_t)end.QuadPart - offset : 0;
    const size_t bytes = left < most ? (size_t)left : most;
    const uint8_t *view = 0;
    if (bytes > 0) {
        const HANDLE mapping = CreateFileMappingW(file, 0, PAGE_READONLY, 0, 0, 0);
        if (mapping) {
            view = MapViewOfFile(mapping, FILE_MAP_READ, (DWORD)(from >> 32),
                                 (DWORD)(from & 0xffffffff), before + bytes);
            CloseHandle(mapping);
        }
    }
    CloseHandle(file);
    if (bytes > 0 && !view)
        return -1;
    map->data = bytes > 0 ? view + before : 0;
    map->bytes = bytes;
    return 0;
}

#elif defined(__wasi__)

static inline int bnc_map_file(struct bnc_map *map, const char *path, uint64_t offset, size_t most)
{
    FILE *file = fopen(path, "rb");
    map->data = 0;
    map->bytes = 0;
    if (!file)
        return -1;
    uint8_t *memory = aligned_alloc(64, (most + 63) / 64 * 64);
    if (!memory || offset > INT32_MAX || fseek(file, (long)offset, SEEK_SET) != 0) {
        free(memory);
        fclose(file);
        errno = memory ? EINVAL : ENOMEM;
        return -1;
    }
    map->bytes = fread(memory, 1, most, file);
    map->data = memory;
    const int failed = ferror(file);
    fclose(file);
    return failed ? -1 : 0;
}

#else

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static inline int bnc_map_file(struct bnc_map *map, const char *path, uint64_t offset, size_t most)
{
    struct stat status;
    map->data = 0;
    map->bytes = 0;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    const uint64_t from = offset - offset % (uint64_t)sysconf(_SC_PAGESIZE);
    const size_t before = (size_t)(offset - from);
    const off_t end = lseek(file, 0, SEEK_END); /* of a block device, too */
    if (fstat(file, &status) != 0 || S_ISDIR(status.st_mode) || from >> (8 * sizeof(off_t) - 1)) {
        close(file);
        errno = EISDIR;
        return -1;
    }
    /* A character device, such as memory itself, does not say where it ends. */
    uint64_t left = end > 0 && (uint64_t)end > offset ? (uint64_t)end - offset : 0;
    if (S_ISCHR(status.st_mode))
        left = most;
    const size_t bytes = left < most ? (size_t)left : most;
    void *memory = MAP_FAILED;
    if (bytes > 0)
        memory = mmap(0, before + bytes, PROT_READ, MAP_SHARED, file, (off_t)from);
    const int why = errno;
    close(file);
    if (bytes > 0 && memory == MAP_FAILED) {
        errno = why;
        return -1;
    }
    if (bytes > 0) {
        posix_madvise(memory, before + bytes, POSIX_MADV_WILLNEED);
        map->data = (const uint8_t *)memory + before;
        map->bytes = bytes;
    }
    return 0;
}

#endif

#if defined(__APPLE__)
#include <mach-o/dyld.h>
#endif

/* The folder of the running program, with the separator that ends it, in UTF-8; "" when it is
 * unknown. self: the name it was started by. */
static inline void bnc_program_folder(char *folder, size_t capacity, const char *self)
{
    folder[0] = '\0';
#if defined(_WIN32)
    wchar_t wide[32768];
    const DWORD units = GetModuleFileNameW(0, wide, sizeof wide / sizeof *wide);
    if (units == 0 || units == sizeof wide / sizeof *wide ||
        WideCharToMultiByte(CP_UTF8, 0, wide, -1, folder, (int)capacity, 0, 0) == 0)
        folder[0] = '\0';
#elif defined(__APPLE__)
    uint32_t size = (uint32_t)capacity;
    if (_NSGetExecutablePath(folder, &size) != 0)
        folder[0] = '\0';
#elif defined(__linux__)
    const ssize_t size = readlink("/proc/self/exe", folder, capacity - 1);
    folder[size > 0 ? size : 0] = '\0';
#endif
    if (folder[0] == '\0' && strlen(self) < capacity)
        memcpy(folder, self, strlen(self) + 1);
    char *end = folder + strlen(folder);
    while (end > folder && end[-1] != '/' && end[-1] != '\\')
        end--;
    *end = '\0';
}

/* FILE or FILE@OFFSET as its two parts; the offset is decimal, or hexadecimal after 0x. Returns how
 * many characters of `given` are the file's name. */
static inline size_t bnc_split_offset(const char *given, uint64_t *offset)
{
    const char *at = strrchr(given, '@');
    *offset = 0;
    if (at && at[1] >= '0' && at[1] <= '9') {
        char *end;
        errno = 0;
        const unsigned long long value =
            strtoull(at + 1, &end, at[1] == '0' && (at[2] == 'x' || at[2] == 'X') ? 16 : 10);
        if (*end == '\0' && errno == 0) {
            *offset = value;
            return (size_t)(at - given);
        }
    }
    return strlen(given);
}

enum { BNC_PATH = 4096 };

/* Maps what --weights names (given), else, with file not null, the file of this name beside the
 * program or in ../share. Returns null, or what is wrong with `path`, which is set. */
static inline const char *bnc_open_weights(struct bnc_map *map, const char *given, const char *file,
                                           const char *self, size_t most, char path[BNC_PATH])
{
    static const char *const places[] = { "", "../share/" };
    uint64_t offset;
    if (given) {
        const size_t size = bnc_split_offset(given, &offset);
        snprintf(path, BNC_PATH, "%s", given);
        if (size >= BNC_PATH)
            return "is too long a name";
        path[size] = '\0';
        if (offset % 64 != 0)
            return "the offset of weights is a multiple of 64";
        return bnc_map_file(map, path, offset, most) == 0 ? 0 : strerror(errno);
    }
    snprintf(path, BNC_PATH, "%s", file ? file : "--weights");
    if (!file)
        return "is needed: this program was compiled to read its weights from a device or a part "
               "of "
               "one, --weights DEVICE@OFFSET";
    char folder[BNC_PATH / 2];
    bnc_program_folder(folder, sizeof folder, self);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const int size = snprintf(path, BNC_PATH, "%s%s%s", folder, places[i], file);
        if (size >= 0 && size < BNC_PATH && bnc_map_file(map, path, 0, most) == 0)
            return 0;
        if (errno != ENOENT)
            return strerror(errno);
    }
    snprintf(path, BNC_PATH, "%s", file);
    return "is neither beside the program nor in ../share; --weights FILE says where it is";
}

#endif
