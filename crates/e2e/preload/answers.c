/* Answers one route of the admin socket of a program in the program's place, for tests of the doctor (LD_PRELOAD).
 * ANSWERS_AS says how: html, 404, empty, type (JSON of another kind), broken (JSON that ends in the middle), drip (a byte
 * every 200 ms) or mute (nothing, and the connection stays open). ANSWERS_ROUTE is the route, such as /watch. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int is_admin(int fd) {
	struct sockaddr_un address = {0};
	socklen_t length = sizeof address;
	return !getsockname(fd, (struct sockaddr *)&address, &length) && address.sun_family == AF_UNIX &&
	       strstr(address.sun_path, "-admin.sock");
}

static void *drip(void *given) {
	int fd = (int)(long)given;
	static const char text[] = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 90000\r\n\r\n{\"a\": \"";
	struct timespec pause = {0, 200000000};
	for (size_t sent = 0;; sent++) {
		char byte = sent < sizeof text - 1 ? text[sent] : 'x';
		if (syscall(SYS_sendto, fd, &byte, 1, MSG_NOSIGNAL, NULL, 0) < 0)
			break;
		nanosleep(&pause, NULL);
	}
	syscall(SYS_close, fd);
	return NULL;
}

/* Whether these bytes are a request that is answered here; it then is, and the caller has read nothing. */
static int answered(int fd, const char *data, ssize_t count) {
	const char *route = getenv("ANSWERS_ROUTE"), *as = getenv("ANSWERS_AS");
	char head[128];
	if (!route || !as || count < 5 || !is_admin(fd))
		return 0;
	int length = snprintf(head, sizeof head, "GET %s ", route);
	if (count < length || memcmp(data, head, length))
		return 0;
	const char *status = "200 OK", *type = "application/json", *body = "";
	if (!strcmp(as, "mute"))
		return 1;
	if (!strcmp(as, "drip")) {
		pthread_t thread;
		if (!pthread_create(&thread, NULL, drip, (void *)(long)dup(fd)))
			pthread_detach(thread);
		return 1;
	}
	if (!strcmp(as, "html"))
		type = "text/html", body = "<!doctype html><title>Welcome</title>";
	else if (!strcmp(as, "404"))
		status = "404 Not Found", type = "text/plain", body = "not here";
	else if (!strcmp(as, "type"))
		body = "{\"watching\": [1, 2, 3], \"loops\": \"fine\"}";
	else if (!strcmp(as, "broken"))
		body = "{\"version\": \"0.1.0\", \"loops\": [{\"na";
	char answer[512];
	length = snprintf(answer, sizeof answer, "HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %zu\r\nconnection: close\r\n\r\n%s",
			  status, type, strlen(body), body);
	syscall(SYS_sendto, fd, answer, length, MSG_NOSIGNAL, NULL, 0);
	shutdown(fd, SHUT_RDWR);
	return 1;
}

static ssize_t without(int fd, const char *data, ssize_t count) {
	if (count > 0 && answered(fd, data, count)) {
		errno = EAGAIN;
		return -1;
	}
	return count;
}

ssize_t read(int fd, void *data, size_t count) { return without(fd, data, syscall(SYS_read, fd, data, count)); }
ssize_t recv(int fd, void *data, size_t count, int flags) {
	ssize_t length = syscall(SYS_recvfrom, fd, data, count, flags, NULL, NULL);
	return flags & MSG_PEEK ? length : without(fd, data, length);
}
ssize_t recvfrom(int fd, void *data, size_t count, int flags, struct sockaddr *from, socklen_t *size) {
	ssize_t length = syscall(SYS_recvfrom, fd, data, count, flags, from, size);
	return flags & MSG_PEEK ? length : without(fd, data, length);
}
ssize_t readv(int fd, const struct iovec *parts, int count) {
	return without(fd, parts[0].iov_base, syscall(SYS_readv, fd, parts, count));
}
