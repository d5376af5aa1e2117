/* Loaded before libc (LD_PRELOAD): kills the process at the n-th operation that changes
   something below a folder, by any of its threads. A write is torn: half of it is done. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[4096];
static int victim;
static atomic_int count;
static char names[4096][16];

/* Count from here; kill at operation `at`, from 1, or never where it is 0. */
void file_faults_begin(const char *folder, int at) {
  count = 0;
  victim = at;
  strncpy(root, folder, sizeof root - 1);
}

int file_faults_count(void) { return count; }
const char *file_faults_name(int i) { return names[i - 1]; }

static int inside(const char *path) {
  return root[0] && path && strncmp(path, root, strlen(root)) == 0;
}

static int fd_inside(int fd) {
  char link[64], path[4096];
  if (!root[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, sizeof path - 1);
  if (n < 0) return 0;
  path[n] = 0;
  return inside(path);
}

static int due(const char *name) {
  int n = ++count;
  if (n <= 4096) strncpy(names[n - 1], name, 15);
  return n == victim;
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define BY_PATH(name, args, call, path)                \
  int name args {                                      \
    if (inside(path) && due(#name)) die();             \
    return REAL(name) call;                            \
  }
#define BY_FD(name, args, call)                        \
  int name args {                                      \
    if (fd_inside(fd) && due(#name)) die();            \
    return REAL(name) call;                            \
  }

BY_PATH(mkdir, (const char *path, mode_t mode), (path, mode), path)
BY_PATH(rename, (const char *from, const char *to), (from, to), from)
BY_PATH(unlink, (const char *path), (path), path)
BY_PATH(rmdir, (const char *path), (path), path)
BY_PATH(truncate, (const char *path, off_t size), (path, size), path)
BY_FD(fsync, (int fd), (fd))
BY_FD(fdatasync, (int fd), (fd))
BY_FD(ftruncate, (int fd, off_t size), (fd, size))
BY_FD(unlinkat, (int fd, const char *path, int flags), (fd, path, flags))

#define WRITES (O_CREAT | O_TRUNC)
#define OPEN(name)                                          \
  int name(const char *path, int flags, ...) {              \
    va_list rest;                                           \
    va_start(rest, flags);                                  \
    mode_t mode = flags & O_CREAT ? va_arg(rest, int) : 0;  \
    va_end(rest);                                           \
    if (flags & WRITES && inside(path) && due(#name)) die();\
    return REAL(name)(path, flags, mode);                   \
  }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *data, size_t size) {
  if (fd_inside(fd) && due("write")) {
    REAL(write)(fd, data, size / 2);
    die();
  }
  return REAL(write)(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int number) {
  if (fd_inside(fd) && due("writev")) {
    REAL(write)(fd, parts[0].iov_base, parts[0].iov_len / 2);
    die();
  }
  return REAL(writev)(fd, parts, number);
}
