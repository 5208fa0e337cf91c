/* Cuts the power of a mounted ext4 as its own tests do (xfstests, src/godown.c): from now on neither its journal nor its
 * data reaches the device, as if the machine had lost its power. Only root may do this.
 *
 *   power_cut FOLDER */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

/* linux/fs/ext4/ext4.h, and the same number in XFS and F2FS. */
#define EXT4_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define EXT4_GOING_FLAGS_NOLOGFLUSH 2

int main(int count, char **words) {
	uint32_t flags = EXT4_GOING_FLAGS_NOLOGFLUSH;
	int folder = count == 2 ? open(words[1], O_RDONLY | O_DIRECTORY) : -1;
	if (folder < 0 || ioctl(folder, EXT4_IOC_SHUTDOWN, &flags) < 0) {
		perror(count == 2 ? words[1] : "usage: power_cut FOLDER");
		return 1;
	}
	return 0;
}
