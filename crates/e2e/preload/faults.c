/* Stands between a program and the disk (LD_PRELOAD), for tests of the store. It records what the program does to the
 * files below one folder, in the order in which it does it, and can make the nth operation of a kind fail.
 *
 *   FAULTS_UNDER   the folder, as the kernel names it (no symbolic links)
 *   FAULTS_RECORD  file to which operations are appended; without it nothing is recorded
 *   FAULTS_FAIL    "KIND N ERRNO" or "KIND N ERRNO on": the Nth operation of that kind (write, short, create, sync,
 *                  rename, unlink, truncate) fails; with "on" the later ones, too. A short write writes half of its bytes,
 *                  and the write after it fails, unless ERRNO is 0
 *   FAULTS_SPARED  a folder in it whose operations never fail
 *   FAULTS_FIRED   file to which a line is written for each operation that failed
 *
 * An entry of the record is a struct entry, two paths and the data. A write is recorded after it was done; a sync has two
 * entries, before and after, because it covers only what was written before it began. What goes to sockets is recorded
 * before it is sent, so that the record shows what was durable when the outside learned of it. All numbers are those of
 * the machine (little-endian). The calls are made with syscall(), so nothing here calls itself. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct entry {
	uint32_t magic, kind, thread, path_length, other_length, unused;
	uint64_t inode, offset, data_length;
};
enum { MAGIC = 0x4b534944 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char under[PATH_MAX];
static size_t under_length;
static const char *spared;
static int record = -1, fired = -1;

static struct {
	char kind[16];
	long nth, error, seen;
	int on;
} plan;

/* Opens a file of our own with a high number: programs pass low ones on, and close them. */
static int open_own(const char *name) {
	const char *path = getenv(name);
	if (!path)
		return -1;
	int fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0)
		abort();
	int high = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 900);
	if (high < 0)
		return fd;
	syscall(SYS_close, fd);
	return high;
}

__attribute__((constructor)) static void start(void) {
	const char *folder = getenv("FAULTS_UNDER"), *fail = getenv("FAULTS_FAIL");
	if (!folder || strlen(folder) >= sizeof under)
		return;
	record = open_own("FAULTS_RECORD");
	fired = open_own("FAULTS_FIRED");
	spared = getenv("FAULTS_SPARED");
	char on[8] = "";
	if (fail && sscanf(fail, "%15s %ld %ld %7s", plan.kind, &plan.nth, &plan.error, on) < 3)
		abort();
	plan.on = !strcmp(on, "on");
	strcpy(under, folder);
	under_length = strlen(folder);
}

static int is_watched(const char *path) {
	return under_length && !strncmp(path, under, under_length) &&
	       (path[under_length] == '/' || path[under_length] == 0);
}

/* The path of an open file, after renames, too; empty if it has none. */
static void path_of(int fd, char *path) {
	char name[64];
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	long length = syscall(SYS_readlinkat, AT_FDCWD, name, path, PATH_MAX - 1);
	path[length < 0 ? 0 : length] = 0;
}

static void absolute(int folder, const char *name, char *path) {
	char base[PATH_MAX];
	if (name[0] == '/') {
		snprintf(path, PATH_MAX, "%s", name);
		return;
	}
	if (folder == AT_FDCWD) {
		if (syscall(SYS_getcwd, base, sizeof base) < 0)
			base[0] = 0;
	} else
		path_of(folder, base);
	if (snprintf(path, PATH_MAX, "%s/%s", base, name) >= PATH_MAX)
		path[0] = 0;
}

/* Appends one entry with the lock held; the data comes in pieces that may hold more than was written. */
static void note_locked(int kind, const char *path, const char *other, uint64_t inode, uint64_t offset,
                        const struct iovec *pieces, int count, size_t length) {
	if (record < 0)
		return;
	struct entry entry = {MAGIC, kind, syscall(SYS_gettid), strlen(path), strlen(other), 0, inode, offset, length};
	struct iovec out[1024] = {{&entry, sizeof entry}, {(void *)path, entry.path_length}, {(void *)other, entry.other_length}};
	int parts = 3;
	size_t all = sizeof entry + entry.path_length + entry.other_length + length;
	for (int i = 0; i < count && length > 0 && parts < 1024; i++) {
		size_t part = pieces[i].iov_len < length ? pieces[i].iov_len : length;
		out[parts++] = (struct iovec){pieces[i].iov_base, part};
		length -= part;
	}
	if (syscall(SYS_writev, record, out, parts) != (long)all)
		abort(); /* a record with a hole proves nothing */
}

static void note(int kind, const char *path, uint64_t inode, uint64_t offset, const struct iovec *pieces, int count,
                 size_t length) {
	int error = errno;
	pthread_mutex_lock(&lock);
	note_locked(kind, path, "", inode, offset, pieces, count, length);
	pthread_mutex_unlock(&lock);
	errno = error;
}

/* Counts an operation; true if it must fail, with errno set. */
static int fails(const char *kind, const char *path) {
	if (strcmp(kind, plan.kind) || (spared && !strncmp(path, spared, strlen(spared))))
		return 0;
	long number = __atomic_add_fetch(&plan.seen, 1, __ATOMIC_SEQ_CST);
	if (number != plan.nth && !(plan.on && number > plan.nth))
		return 0;
	if (fired >= 0) {
		char line[PATH_MAX + 64];
		int length = snprintf(line, sizeof line, "%s %ld %s\n", kind, number, path);
		syscall(SYS_write, fired, line, length < (int)sizeof line ? length : (int)sizeof line - 1);
	}
	errno = plan.error;
	return 1;
}

/* 0: not ours, 1: a watched file, 2: a socket. */
static int classify(int fd, char *path, struct stat *status) {
	if (!under_length || fd == record || syscall(SYS_fstat, fd, status) < 0)
		return 0;
	if (S_ISSOCK(status->st_mode))
		return record >= 0 ? 2 : 0;
	if (!S_ISREG(status->st_mode) && !S_ISDIR(status->st_mode))
		return 0;
	path_of(fd, path);
	return is_watched(path);
}

static long write_out(int fd, const struct iovec *pieces, int count, int64_t offset) {
	return offset < 0 ? syscall(SYS_writev, fd, pieces, count)
	                  : syscall(SYS_pwritev, fd, pieces, count, (unsigned long)offset, 0UL);
}

/* Every way to write; offset -1 is the position of the file. */
static long do_write(int fd, const struct iovec *pieces, int count, int64_t offset) {
	char path[PATH_MAX];
	struct stat status;
	size_t all = 0;
	for (int i = 0; i < count; i++)
		all += pieces[i].iov_len;
	int ours = classify(fd, path, &status);
	if (ours == 2)
		note('N', "", status.st_ino, 0, pieces, count, all);
	if (ours != 1)
		return write_out(fd, pieces, count, offset);
	if (fails("write", path))
		return -1;
	struct iovec half = {pieces[0].iov_base, pieces[0].iov_len / 2};
	if (count > 0 && half.iov_len > 0 && !strcmp(plan.kind, "short")) {
		/* After a short write the next one fails, as on a full disk. */
		static int full;
		if (plan.error && __atomic_load_n(&full, __ATOMIC_SEQ_CST)) {
			__atomic_store_n(&full, plan.on, __ATOMIC_SEQ_CST);
			errno = plan.error;
			return -1;
		}
		if (fails("short", path)) {
			__atomic_store_n(&full, 1, __ATOMIC_SEQ_CST);
			pieces = &half;
			count = 1;
		}
	}
	long written = write_out(fd, pieces, count, offset);
	if (written > 0) {
		uint64_t at = offset < 0 ? (uint64_t)syscall(SYS_lseek, fd, 0, SEEK_CUR) - written : (uint64_t)offset;
		note('W', path, status.st_ino, at, pieces, count, written);
	}
	return written;
}

ssize_t write(int fd, const void *data, size_t length) {
	return do_write(fd, &(struct iovec){(void *)data, length}, 1, -1);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
	return do_write(fd, &(struct iovec){(void *)data, length}, 1, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
	return do_write(fd, &(struct iovec){(void *)data, length}, 1, offset);
}
ssize_t writev(int fd, const struct iovec *pieces, int count) { return do_write(fd, pieces, count, -1); }
ssize_t pwritev(int fd, const struct iovec *pieces, int count, off_t offset) {
	return do_write(fd, pieces, count, offset);
}
ssize_t pwritev64(int fd, const struct iovec *pieces, int count, off64_t offset) {
	return do_write(fd, pieces, count, offset);
}
ssize_t send(int fd, const void *data, size_t length, int flags) {
	struct stat status;
	char path[PATH_MAX];
	if (classify(fd, path, &status) == 2)
		note('N', "", status.st_ino, 0, &(struct iovec){(void *)data, length}, 1, length);
	return syscall(SYS_sendto, fd, data, length, flags, NULL, 0);
}

/* std::fs::copy falls back to read and write. */
ssize_t copy_file_range(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t length, unsigned flags) {
	(void)from, (void)from_offset, (void)to, (void)to_offset, (void)length, (void)flags;
	errno = ENOSYS;
	return -1;
}

static int do_truncate(int fd, off64_t length) {
	char path[PATH_MAX];
	struct stat status;
	int ours = classify(fd, path, &status);
	if (ours == 1 && fails("truncate", path))
		return -1;
	int result = syscall(SYS_ftruncate, fd, length);
	if (ours == 1 && result == 0)
		note('T', path, status.st_ino, length, NULL, 0, 0);
	return result;
}
int ftruncate(int fd, off_t length) { return do_truncate(fd, length); }
int ftruncate64(int fd, off64_t length) { return do_truncate(fd, length); }

static int do_sync(int fd, long number) {
	char path[PATH_MAX];
	struct stat status;
	int ours = classify(fd, path, &status);
	if (ours != 1)
		return syscall(number, fd);
	if (fails("sync", path))
		return -1;
	note('s', path, status.st_ino, 0, NULL, 0, 0);
	int result = syscall(number, fd);
	if (result == 0)
		note('S', path, status.st_ino, 0, NULL, 0, 0);
	return result;
}
int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }
/* Makes nothing durable: neither the size of the file nor the cache of the disk is written (sync_file_range(2)). */
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
	char path[PATH_MAX];
	struct stat status;
	if (classify(fd, path, &status) == 1 && fails("sync", path))
		return -1;
	return syscall(SYS_sync_file_range, fd, offset, length, flags);
}

static int do_open(int folder, const char *name, int flags, mode_t mode) {
	char path[PATH_MAX];
	struct stat status;
	absolute(folder, name, path);
	if (!is_watched(path) || !(flags & (O_CREAT | O_TRUNC)) || (flags & O_TMPFILE) == O_TMPFILE)
		return syscall(SYS_openat, folder, name, flags, mode);
	pthread_mutex_lock(&lock);
	int existed = syscall(SYS_newfstatat, AT_FDCWD, path, &status, 0) == 0;
	int fd = -1;
	if (existed || !(flags & O_CREAT) || !fails("create", path))
		fd = syscall(SYS_openat, folder, name, flags, mode);
	int error = errno;
	if (fd >= 0 && syscall(SYS_fstat, fd, &status) == 0) {
		if (!existed)
			note_locked('C', path, "", status.st_ino, 0, NULL, 0, 0);
		else if (flags & O_TRUNC)
			note_locked('T', path, "", status.st_ino, 0, NULL, 0, 0);
	}
	errno = error;
	pthread_mutex_unlock(&lock);
	return fd;
}
#define MODE(flags)                                                                                                    \
	mode_t mode = 0;                                                                                               \
	if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                         \
		va_list rest;                                                                                          \
		va_start(rest, flags);                                                                                 \
		mode = va_arg(rest, mode_t);                                                                           \
		va_end(rest);                                                                                          \
	}
int open(const char *name, int flags, ...) {
	MODE(flags)
	return do_open(AT_FDCWD, name, flags, mode);
}
int open64(const char *name, int flags, ...) {
	MODE(flags)
	return do_open(AT_FDCWD, name, flags | O_LARGEFILE, mode);
}
int openat(int folder, const char *name, int flags, ...) {
	MODE(flags)
	return do_open(folder, name, flags, mode);
}
int openat64(int folder, const char *name, int flags, ...) {
	MODE(flags)
	return do_open(folder, name, flags | O_LARGEFILE, mode);
}
int creat(const char *name, mode_t mode) { return do_open(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *name, mode_t mode) { return creat(name, mode); }

int mkdirat(int folder, const char *name, mode_t mode) {
	char path[PATH_MAX];
	struct stat status;
	absolute(folder, name, path);
	if (!is_watched(path))
		return syscall(SYS_mkdirat, folder, name, mode);
	pthread_mutex_lock(&lock);
	int result = -1;
	if (syscall(SYS_newfstatat, AT_FDCWD, path, &status, 0) == 0)
		errno = EEXIST;
	else if (!fails("create", path))
		result = syscall(SYS_mkdirat, folder, name, mode);
	int error = errno;
	if (result == 0 && syscall(SYS_newfstatat, AT_FDCWD, path, &status, 0) == 0)
		note_locked('D', path, "", status.st_ino, 0, NULL, 0, 0);
	errno = error;
	pthread_mutex_unlock(&lock);
	return result;
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int unlinkat(int folder, const char *name, int flags) {
	char path[PATH_MAX];
	absolute(folder, name, path);
	if (!is_watched(path))
		return syscall(SYS_unlinkat, folder, name, flags);
	if (fails("unlink", path))
		return -1;
	pthread_mutex_lock(&lock);
	int result = syscall(SYS_unlinkat, folder, name, flags), error = errno;
	if (result == 0)
		note_locked('U', path, "", 0, 0, NULL, 0, 0);
	errno = error;
	pthread_mutex_unlock(&lock);
	return result;
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int renameat2(int folder, const char *name, int other_folder, const char *other_name, unsigned flags) {
	char path[PATH_MAX], other[PATH_MAX];
	absolute(folder, name, path);
	absolute(other_folder, other_name, other);
	if (!is_watched(path) && !is_watched(other))
		return syscall(SYS_renameat2, folder, name, other_folder, other_name, flags);
	if (fails("rename", path))
		return -1;
	pthread_mutex_lock(&lock);
	int result = syscall(SYS_renameat2, folder, name, other_folder, other_name, flags), error = errno;
	if (result == 0)
		note_locked('R', path, other, 0, 0, NULL, 0, 0);
	errno = error;
	pthread_mutex_unlock(&lock);
	return result;
}
int rename(const char *name, const char *other) { return renameat2(AT_FDCWD, name, AT_FDCWD, other, 0); }
int renameat(int folder, const char *name, int other_folder, const char *other_name) {
	return renameat2(folder, name, other_folder, other_name, 0);
}

int linkat(int folder, const char *name, int other_folder, const char *other_name, int flags) {
	char path[PATH_MAX], other[PATH_MAX];
	absolute(folder, name, path);
	absolute(other_folder, other_name, other);
	if (is_watched(other) && fails("create", other))
		return -1;
	pthread_mutex_lock(&lock);
	int result = syscall(SYS_linkat, folder, name, other_folder, other_name, flags), error = errno;
	if (result == 0 && is_watched(other))
		note_locked('L', path, other, 0, 0, NULL, 0, 0);
	errno = error;
	pthread_mutex_unlock(&lock);
	return result;
}
int link(const char *name, const char *other) { return linkat(AT_FDCWD, name, AT_FDCWD, other, 0); }
