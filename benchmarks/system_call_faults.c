/* Counts the calls that change files below one folder, and kills the process or fails the call at the nth of them.
 *
 * Loaded with LD_PRELOAD; armed by the process itself, so that a fork of a warm process costs nothing. Calls of Python,
 * of SQLite and of Rust libraries all pass here, because they reach the system through the C library's functions.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { OFF = 0, COUNT = 1, KILL_BEFORE = 2, KILL_HALFWAY = 3, FAIL_ONCE = 4, FAIL_ON = 5 };
#define LONGEST_LOG (1 << 20)

static char prefix[4096];
static size_t prefix_length;
static atomic_long counted;
static long fatal;
static int mode, code;
static char kinds[LONGEST_LOG];

void faults_arm(const char *folder, long at, int how, int error_code) {
    strncpy(prefix, folder, sizeof prefix - 1);
    prefix_length = strlen(prefix);
    counted = 0;
    fatal = at;
    code = error_code;
    mode = how;
}
void faults_disarm(void) { mode = OFF; }
long faults_counted(void) { return counted; }
const char *faults_kinds(void) { return kinds; }

static int below(const char *path) { return path && strncmp(path, prefix, prefix_length) == 0; }

static int descriptor_below(int descriptor) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* What is to become of a call: 0 goes on, 1 fails with `errno` set, 2 is to be done in half and then killed.
 * A full disk (ENOSPC) lets names be removed and changed; every other error holds for all calls. */
static int verdict(char kind) {
    long number = atomic_fetch_add(&counted, 1) + 1;
    if (number < LONGEST_LOG) kinds[number - 1] = kind;
    if (mode == COUNT || number < fatal) return 0;
    if (number == fatal && mode == KILL_BEFORE) kill(getpid(), SIGKILL);
    if (number == fatal && mode == KILL_HALFWAY) return 2;
    if (mode == FAIL_ON || (mode == FAIL_ONCE && number == fatal)) {
        if (code == ENOSPC && strchr("rufx", kind)) return 0;
        errno = code;
        return 1;
    }
    return 0;
}

#define NEXT(name, type, ...) \
    static type (*next)(__VA_ARGS__); \
    if (!next) next = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define ON_PATH(name, kind, path, parameters, types, arguments) \
    int name parameters { \
        NEXT(name, int, types); \
        int what = mode && below(path) ? verdict(kind) : 0; \
        if (what == 1) return -1; \
        int result = next arguments; \
        if (what == 2) kill(getpid(), SIGKILL); \
        return result; \
    }
#define TYPES(...) __VA_ARGS__

ON_PATH(rename, 'r', to, (const char *from, const char *to), TYPES(const char *, const char *), (from, to))
ON_PATH(renameat, 'r', to, (int f, const char *from, int t, const char *to),
        TYPES(int, const char *, int, const char *), (f, from, t, to))
ON_PATH(unlink, 'u', path, (const char *path), TYPES(const char *), (path))
ON_PATH(rmdir, 'u', path, (const char *path), TYPES(const char *), (path))
ON_PATH(mkdir, 'm', path, (const char *path, mode_t bits), TYPES(const char *, mode_t), (path, bits))
ON_PATH(chmod, 'x', path, (const char *path, mode_t bits), TYPES(const char *, mode_t), (path, bits))

int unlinkat(int folder, const char *path, int flags) {
    NEXT(unlinkat, int, int, const char *, int);
    int what = mode && (below(path) || (folder >= 0 && descriptor_below(folder))) ? verdict('u') : 0;
    if (what == 1) return -1;
    int result = next(folder, path, flags);
    if (what == 2) kill(getpid(), SIGKILL);
    return result;
}

#define ON_DESCRIPTOR(name, kind, parameters, types, arguments) \
    int name parameters { \
        NEXT(name, int, types); \
        int what = mode && descriptor_below(file) ? verdict(kind) : 0; \
        if (what == 1) return -1; \
        int result = next arguments; \
        if (what == 2) kill(getpid(), SIGKILL); \
        return result; \
    }
ON_DESCRIPTOR(fsync, 'f', (int file), TYPES(int), (file))
ON_DESCRIPTOR(fdatasync, 'f', (int file), TYPES(int), (file))
ON_DESCRIPTOR(ftruncate, 't', (int file, off_t size), TYPES(int, off_t), (file, size))
ON_DESCRIPTOR(ftruncate64, 't', (int file, off64_t size), TYPES(int, off64_t), (file, size))

#define WRITES(name, parameters, types, whole, half) \
    ssize_t name parameters { \
        NEXT(name, ssize_t, types); \
        int what = mode && descriptor_below(file) ? verdict('w') : 0; \
        if (what == 1) return -1; \
        ssize_t result = what == 2 ? next half : next whole; \
        if (what == 2) kill(getpid(), SIGKILL); \
        return result; \
    }
WRITES(write, (int file, const void *from, size_t size), TYPES(int, const void *, size_t),
       (file, from, size), (file, from, size / 2))
WRITES(pwrite, (int file, const void *from, size_t size, off_t at), TYPES(int, const void *, size_t, off_t),
       (file, from, size, at), (file, from, size / 2, at))
WRITES(pwrite64, (int file, const void *from, size_t size, off64_t at), TYPES(int, const void *, size_t, off64_t),
       (file, from, size, at), (file, from, size / 2, at))
WRITES(writev, (int file, const struct iovec *parts, int count), TYPES(int, const struct iovec *, int),
       (file, parts, count), (file, parts, count / 2))

size_t fwrite(const void *from, size_t size, size_t count, FILE *stream) {
    NEXT(fwrite, size_t, const void *, size_t, size_t, FILE *);
    int what = mode && descriptor_below(fileno(stream)) ? verdict('w') : 0;
    if (what == 1) return 0;
    size_t result = next(from, size, what == 2 ? count / 2 : count, stream);
    if (what == 2) {
        fflush(stream);
        kill(getpid(), SIGKILL);
    }
    return result;
}

#define WRITABLE(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define OPENS(name, parameters, types, arguments) \
    int name parameters { \
        va_list more; \
        va_start(more, flags); \
        mode_t bits = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        NEXT(name, int, types); \
        int what = mode && WRITABLE(flags) && below(path) ? verdict('o') : 0; \
        if (what == 1) return -1; \
        int result = next arguments; \
        if (what == 2) kill(getpid(), SIGKILL); \
        return result; \
    }
OPENS(open, (const char *path, int flags, ...), TYPES(const char *, int, ...), (path, flags, bits))
OPENS(open64, (const char *path, int flags, ...), TYPES(const char *, int, ...), (path, flags, bits))
OPENS(openat, (int folder, const char *path, int flags, ...), TYPES(int, const char *, int, ...),
      (folder, path, flags, bits))
OPENS(openat64, (int folder, const char *path, int flags, ...), TYPES(int, const char *, int, ...),
      (folder, path, flags, bits))

FILE *fopen64(const char *path, const char *how) {
    static FILE *(*next)(const char *, const char *);
    if (!next) next = (FILE * (*)(const char *, const char *)) dlsym(RTLD_NEXT, "fopen64");
    int what = mode && strpbrk(how, "wa+") && below(path) ? verdict('o') : 0;
    if (what == 1) return NULL;
    FILE *result = next(path, how);
    if (what == 2) kill(getpid(), SIGKILL);
    return result;
}
