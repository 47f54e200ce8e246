/* What the machine does to a server under test, at the boundary of the system calls: machine.py, which has the same table.

   Loaded with LD_PRELOAD into the server and all that it starts. The plan is a file that all of them map. Clocks are
   everybody's; the disk is that of the process whose pid stands in the plan, and only its files without a name: those
   in which it buffers bodies. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct plan {
    int64_t pid, jump, jumps_seen, disk_left, disk_refused, delay_us, delayed;
};
static struct plan *plan;

__attribute__((constructor)) static void map_plan(void) {
    const char *path = getenv("HARNESS_MACHINE");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0) : -1;
    if (fd < 0)
        return;
    void *found = mmap(0, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    plan = found == MAP_FAILED ? 0 : found;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int64_t jump(void) {
    int64_t by = plan ? plan->jump : 0;
    if (by)
        __atomic_add_fetch(&plan->jumps_seen, 1, __ATOMIC_SEQ_CST);
    return by;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (!result && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += jump();
    return result;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int result = (int)syscall(SYS_gettimeofday, now, zone);
    if (!result)
        now->tv_sec += jump();
    return result;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

static int is_buffer(int fd) {
    struct stat found;
    return plan && plan->pid == getpid() && (plan->disk_left >= 0 || plan->delay_us) && !fstat(fd, &found) &&
           S_ISREG(found.st_mode) && found.st_nlink == 0;
}
/* How many of the bytes may be written now; -1: none, the disk is full. */
static ssize_t allowed(int fd, size_t wanted) {
    if (!is_buffer(fd))
        return (ssize_t)wanted;
    if (plan->delay_us) {
        struct timespec delay = {plan->delay_us / 1000000, plan->delay_us % 1000000 * 1000};
        __atomic_add_fetch(&plan->delayed, 1, __ATOMIC_SEQ_CST);
        nanosleep(&delay, 0);
    }
    if (plan->disk_left < 0)
        return (ssize_t)wanted;
    int64_t left = __atomic_fetch_sub(&plan->disk_left, (int64_t)wanted, __ATOMIC_SEQ_CST);
    if (left >= (int64_t)wanted)
        return (ssize_t)wanted;
    __atomic_store_n(&plan->disk_left, 0, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&plan->disk_refused, 1, __ATOMIC_SEQ_CST);
    errno = ENOSPC;
    return left > 0 ? left : -1;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    ssize_t may = allowed(fd, size);
    return may < 0 ? -1 : REAL(pwrite)(fd, data, (size_t)may, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    ssize_t may = allowed(fd, size);
    return may < 0 ? -1 : REAL(pwrite64)(fd, data, (size_t)may, offset);
}
/* A vector that does not fit whole is refused whole: the caller tries its pieces. */
static int refused(int fd, const struct iovec *pieces, int count) {
    size_t size = 0;
    for (int i = 0; i < count; i++)
        size += pieces[i].iov_len;
    return allowed(fd, size) != (ssize_t)size;
}
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
    return refused(fd, pieces, count) ? -1 : REAL(pwritev)(fd, pieces, count, offset);
}
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) {
    return refused(fd, pieces, count) ? -1 : REAL(pwritev64)(fd, pieces, count, offset);
}
ssize_t pwritev2(int fd, const struct iovec *pieces, int count, off_t offset, int flags) {
    return refused(fd, pieces, count) ? -1 : REAL(pwritev2)(fd, pieces, count, offset, flags);
}
ssize_t pwritev64v2(int fd, const struct iovec *pieces, int count, off64_t offset, int flags) {
    return refused(fd, pieces, count) ? -1 : REAL(pwritev64v2)(fd, pieces, count, offset, flags);
}
