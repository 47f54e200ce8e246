/* Calls of one process that fail when a test wants them to: see failing_calls.py, which has the same table of fields and kinds.

   It is loaded with LD_PRELOAD. What a process is told is in a file that is mapped by all: only the process whose pid is there fails. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN = 1, OPENDIR = 2, SOCKET = 4, ACCEPT = 8, PIPE = 16, PIDFD = 32, MEMFD = 64, DUP = 128, FORK = 256, THREAD = 512 };

struct plan {
    int64_t pid, kinds, skip, fail, error, seen, failed;
};
static struct plan *plan;

__attribute__((constructor)) static void map_plan(void) {
    const char *path = getenv("FAILING_CALLS");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0)
        return;
    void *found = mmap(0, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    plan = found == MAP_FAILED ? 0 : found;
    int64_t nobody = -1;
    if (plan)
        __atomic_compare_exchange_n(&plan->pid, &nobody, getpid(), 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* The number of the error with which this call fails, or 0. */
static int fails(int kind) {
    if (!plan || plan->pid != getpid() || !(plan->kinds & kind))
        return 0;
    __atomic_add_fetch(&plan->seen, 1, __ATOMIC_SEQ_CST);
    if (__atomic_fetch_sub(&plan->skip, 1, __ATOMIC_SEQ_CST) > 0)
        return 0;
    if (__atomic_fetch_sub(&plan->fail, 1, __ATOMIC_SEQ_CST) <= 0)
        return 0;
    __atomic_add_fetch(&plan->failed, 1, __ATOMIC_SEQ_CST);
    return (int)plan->error;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAILING(kind, value)                                                                                                                                   \
    do {                                                                                                                                                       \
        int number = fails(kind);                                                                                                                              \
        if (number) {                                                                                                                                          \
            errno = number;                                                                                                                                    \
            return value;                                                                                                                                      \
        }                                                                                                                                                      \
    } while (0)
#define MODE(flags, mode)                                                                                                                                      \
    mode_t mode = 0;                                                                                                                                           \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                                                                       \
        va_list rest;                                                                                                                                          \
        va_start(rest, flags);                                                                                                                                 \
        mode = va_arg(rest, mode_t);                                                                                                                           \
        va_end(rest);                                                                                                                                          \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode);
    FAILING(OPEN, -1);
    return REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags, mode);
    FAILING(OPEN, -1);
    return REAL(open64)(path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE(flags, mode);
    FAILING(OPEN, -1);
    return REAL(openat)(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags, mode);
    FAILING(OPEN, -1);
    return REAL(openat64)(at, path, flags, mode);
}
DIR *opendir(const char *path) {
    FAILING(OPENDIR, 0);
    return REAL(opendir)(path);
}
int socket(int family, int type, int protocol) {
    FAILING(SOCKET, -1);
    return REAL(socket)(family, type, protocol);
}
int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags) {
    FAILING(ACCEPT, -1);
    return REAL(accept4)(fd, address, length, flags);
}
int pipe2(int fds[2], int flags) {
    FAILING(PIPE, -1);
    return REAL(pipe2)(fds, flags);
}
int memfd_create(const char *name, unsigned flags) {
    FAILING(MEMFD, -1);
    return REAL(memfd_create)(name, flags);
}
int dup(int fd) {
    FAILING(DUP, -1);
    return REAL(dup)(fd);
}
long syscall(long number, ...) {
    va_list rest;
    va_start(rest, number);
    long a[6];
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_pidfd_open)
        FAILING(PIDFD, -1);
    if (number == SYS_memfd_create)
        FAILING(MEMFD, -1);
    return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
pid_t fork(void) {
    FAILING(FORK, -1);
    return REAL(fork)();
}
/* What wraps vfork cannot return from it twice; fork does the same, and costs more. */
pid_t vfork(void) {
    FAILING(FORK, -1);
    return REAL(fork)();
}
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    int number = fails(THREAD);
    return number ? number : REAL(pthread_create)(thread, attributes, run, argument);
}
