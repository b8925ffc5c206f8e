/* Loaded into a command (LD_PRELOAD): counts the calls that change files below one folder, and lets
 * something happen at the n-th: a signal before or after it, or an error instead of it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char prefix[PATH_MAX];
static long count, at = -1;
static int action, sticky; /* > 0: a signal; < 0: -errno; with sticky, errors go on from there */
static int after, log_fd = -1;

void torture_arm(const char *folder, long n, int what, int when_after, int keeps_on, int log) {
    snprintf(prefix, sizeof prefix, "%s", folder);
    count = 0;
    at = n;
    action = what;
    after = when_after;
    sticky = keeps_on;
    log_fd = log;
}

long torture_count(void) { return count; }

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static int below(int dir, const char *path) {
    char whole[PATH_MAX], link[64];
    if (!prefix[0] || !path) return 0;
    if (path[0] == '/') return strncmp(path, prefix, strlen(prefix)) == 0;
    if (dir == AT_FDCWD) {
        if (!getcwd(whole, sizeof whole)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
        ssize_t n = readlink(link, whole, sizeof whole - 1);
        if (n < 0) return 0;
        whole[n] = 0;
    }
    return strncmp(whole, prefix, strlen(prefix)) == 0;
}

static int is_ours(int fd) {
    char whole[PATH_MAX], link[64];
    if (!prefix[0] || fd == log_fd) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, whole, sizeof whole - 1);
    if (n < 0) return 0;
    whole[n] = 0;
    return strncmp(whole, prefix, strlen(prefix)) == 0;
}

static char *path_of(int fd) {
    static char whole[PATH_MAX];
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, whole, sizeof whole - 1);
    whole[n < 0 ? 0 : n] = 0;
    return whole;
}

static void note(const char *name, const char *path, const char *to) {
    if (log_fd < 0) return;
    char line[2 * PATH_MAX + 64];
    int n = snprintf(line, sizeof line, "%ld\t%s\t%s\t%s\n", count, name, path ? path : "", to ? to : "");
    ssize_t (*out)(int, const void *, size_t) = real("write");
    if (n > 0) (void)!out(log_fd, line, (size_t)n);
}

/* Returns 1 when the call is to fail instead of being made. */
static int before(const char *name, const char *path, const char *to, long *mine) {
    *mine = __sync_add_and_fetch(&count, 1);
    note(name, path, to);
    /* What keeps failing is writing: a full or read-only disk after which one cannot even remove
     * what is there is nobody's to clean up. */
    int removes = !strncmp(name, "unlink", 6) || !strcmp(name, "rmdir");
    if (action < 0 && (*mine == at || (sticky && at > 0 && *mine > at && !removes))) {
        errno = -action;
        return 1;
    }
    if (action > 0 && *mine == at && !after) kill(getpid(), action);
    return 0;
}

static void done(long mine) {
    int kept = errno;
    if (action > 0 && mine == at && after) kill(getpid(), action);
    errno = kept;
}

#define CALL(ours, name, path, to, made)                                                             \
    do {                                                                                           \
        long mine = 0;                                                                             \
        int mattered = (ours);                                                                     \
        if (mattered && before(name, path, to, &mine)) return -1;                                      \
        __typeof__(made) result = made;                                                            \
        if (mattered) done(mine);                                                                  \
        return result;                                                                             \
    } while (0)

#define WRITES (O_CREAT | O_WRONLY | O_RDWR | O_TRUNC)

#define OPEN(symbol)                                                                               \
    int symbol(const char *path, int flags, ...) {                                                 \
        static int (*next)(const char *, int, ...);                                                \
        if (!next) next = real(#symbol);                                                           \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = va_arg(rest, mode_t);                                                        \
        va_end(rest);                                                                              \
        CALL((flags & WRITES) && below(AT_FDCWD, path), "open", path, NULL, next(path, flags, mode));    \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(symbol)                                                                             \
    int symbol(int dir, const char *path, int flags, ...) {                                        \
        static int (*next)(int, const char *, int, ...);                                           \
        if (!next) next = real(#symbol);                                                           \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = va_arg(rest, mode_t);                                                        \
        va_end(rest);                                                                              \
        CALL((flags & WRITES) && below(dir, path), "open", path, NULL, next(dir, path, flags, mode));    \
    }
OPENAT(openat)
OPENAT(openat64)

#define WRAP(kind, symbol, ours, path, to, params, args)                                               \
    kind symbol params {                                                                           \
        static kind(*next) params;                                                                 \
        if (!next) next = real(#symbol);                                                           \
        CALL(ours, #symbol, path, to, next args);                                                      \
    }
WRAP(ssize_t, write, is_ours(fd), path_of(fd), NULL, (int fd, const void *b, size_t n), (fd, b, n))
WRAP(ssize_t, pwrite, is_ours(fd), path_of(fd), NULL, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o))
WRAP(ssize_t, pwrite64, is_ours(fd), path_of(fd), NULL, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o))
WRAP(ssize_t, writev, is_ours(fd), path_of(fd), NULL, (int fd, const struct iovec *v, int n), (fd, v, n))
WRAP(int, fsync, is_ours(fd), path_of(fd), NULL, (int fd), (fd))
WRAP(int, fdatasync, is_ours(fd), path_of(fd), NULL, (int fd), (fd))
WRAP(int, ftruncate, is_ours(fd), path_of(fd), NULL, (int fd, off_t n), (fd, n))
WRAP(int, fchmod, is_ours(fd), path_of(fd), NULL, (int fd, mode_t m), (fd, m))
WRAP(int, fchown, is_ours(fd), path_of(fd), NULL, (int fd, uid_t u, gid_t g), (fd, u, g))
WRAP(int, rename, below(AT_FDCWD, a), a, b, (const char *a, const char *b), (a, b))
WRAP(int, renameat, below(d, a), a, b, (int d, const char *a, int e, const char *b), (d, a, e, b))
WRAP(int, renameat2, below(d, a), a, b,
     (int d, const char *a, int e, const char *b, unsigned int f), (d, a, e, b, f))
WRAP(int, link, below(AT_FDCWD, a), a, b, (const char *a, const char *b), (a, b))
WRAP(int, linkat, below(d, a), a, b, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f))
WRAP(int, symlink, below(AT_FDCWD, b), a, b, (const char *a, const char *b), (a, b))
WRAP(int, unlink, below(AT_FDCWD, a), a, NULL, (const char *a), (a))
WRAP(int, unlinkat, below(d, a), a, NULL, (int d, const char *a, int f), (d, a, f))
WRAP(int, rmdir, below(AT_FDCWD, a), a, NULL, (const char *a), (a))
WRAP(int, mkdir, below(AT_FDCWD, a), a, NULL, (const char *a, mode_t m), (a, m))
WRAP(int, mkdirat, below(d, a), a, NULL, (int d, const char *a, mode_t m), (d, a, m))
