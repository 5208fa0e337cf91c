/* Makes the disk of a program slow, for tests of the doctor (LD_PRELOAD). STALLS_ORDER names a file with "KIND N": KIND is
 * sync (fdatasync, fsync, sync_file_range) or write (write, pwrite, writev below the folder STALLS_UNDER); each such call
 * then takes N milliseconds more, or fails with error -N if N is negative. The file is read again before each call; while
 * it is not there, nothing is changed. The calls are made with syscall(), so nothing here calls itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int is_below(int fd) {
	const char *under = getenv("STALLS_UNDER");
	char link[64], path[PATH_MAX];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	long length = syscall(SYS_readlink, link, path, sizeof path - 1);
	if (!under || length < 0)
		return 0;
	path[length] = 0;
	return !strncmp(path, under, strlen(under));
}

/* Returns 0, or the error with which the call fails. */
static int stall(const char *kind, int fd) {
	const char *name = getenv("STALLS_ORDER");
	char order[64], wanted[16];
	long number = 0;
	int file = name ? syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC) : -1;
	if (file < 0)
		return 0;
	long length = syscall(SYS_read, file, order, sizeof order - 1);
	syscall(SYS_close, file);
	order[length > 0 ? length : 0] = 0;
	if (sscanf(order, "%15s %ld", wanted, &number) != 2 || strcmp(wanted, kind) || !is_below(fd))
		return 0;
	if (number < 0)
		return -number;
	struct timespec left = {number / 1000, number % 1000 * 1000000};
	while (syscall(SYS_nanosleep, &left, &left) < 0 && errno == EINTR)
		;
	return 0;
}

#define STALLED(kind, fd, call)                \
	int error = stall(kind, fd);           \
	if (error) {                           \
		errno = error;                 \
		return -1;                     \
	}                                      \
	return call

int fdatasync(int fd) { STALLED("sync", fd, syscall(SYS_fdatasync, fd)); }
int fsync(int fd) { STALLED("sync", fd, syscall(SYS_fsync, fd)); }
int sync_file_range(int fd, off_t offset, off_t count, unsigned flags) {
	STALLED("sync", fd, syscall(SYS_sync_file_range, fd, offset, count, flags));
}
ssize_t write(int fd, const void *data, size_t count) { STALLED("write", fd, syscall(SYS_write, fd, data, count)); }
ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
	STALLED("write", fd, syscall(SYS_pwrite64, fd, data, count, offset));
}
ssize_t pwrite64(int fd, const void *data, size_t count, off_t offset) {
	STALLED("write", fd, syscall(SYS_pwrite64, fd, data, count, offset));
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
	STALLED("write", fd, syscall(SYS_writev, fd, parts, count));
}
