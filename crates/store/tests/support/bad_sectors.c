/* Makes sectors of a file unreadable (LD_PRELOAD), as a disk that wears out does: BAD_FILE is a part of its path, BAD_FROM and
 * BAD_TO are the places. A read that touches them fails with EIO. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int is_bad(int fd, size_t length, off64_t at) {
	const char *file = getenv("BAD_FILE"), *from = getenv("BAD_FROM"), *to = getenv("BAD_TO");
	char name[64], path[PATH_MAX];
	if (!file || !from || !to)
		return 0;
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	long got = syscall(SYS_readlinkat, -100, name, path, PATH_MAX - 1);
	path[got < 0 ? 0 : got] = 0;
	return strstr(path, file) && at < atoll(to) && at + (off64_t)length > atoll(from);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t at) {
	if (is_bad(fd, length, at)) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_pread64, fd, bytes, length, at);
}

ssize_t read(int fd, void *bytes, size_t length) {
	off64_t at = syscall(SYS_lseek, fd, 0, SEEK_CUR);
	if (at >= 0 && is_bad(fd, length, at)) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_read, fd, bytes, length);
}
