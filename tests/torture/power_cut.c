/* What would outlive a loss of power: preloaded into a process, remembers every file and folder as it was last synced.
 *
 * `fsync` and `fdatasync` copy what the descriptor is of into the folder POWER_MEMORY, under a name of its inode:
 *
 *     KEY        the bytes of a file
 *     KEY.dir    the names in a folder: one entry each, "TYPE KEY NAME\0", TYPE f or d
 *
 * The disk itself is not asked: who plays at power cuts kills the process and makes again what is remembered. A file
 * that was never synced is empty then, a name whose folder was not synced since does not exist: the worst that POSIX
 * allows, worse than most file systems are.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_SIZE 96
#define PATH_SIZE 4096

/* Inodes are used again; the moment of their birth tells two files with one number apart. */
static int identify(int folder, const char *name, int flags, struct statx *found, char key[KEY_SIZE])
{
    if (statx(folder, name, flags, STATX_TYPE | STATX_INO | STATX_SIZE | STATX_BTIME, found) != 0)
        return -1;
    snprintf(key, KEY_SIZE, "%x.%x-%llx-%llx.%x", found->stx_dev_major, found->stx_dev_minor,
             (unsigned long long)found->stx_ino, (unsigned long long)found->stx_btime.tv_sec,
             found->stx_btime.tv_nsec);
    return 0;
}

static int copy(int from, int to)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", from); /* it may be open for writing only */
    int reading = open(path, O_RDONLY | O_CLOEXEC);
    if (reading < 0)
        return -1;
    ssize_t moved;
    do
        moved = sendfile(to, reading, NULL, 1 << 24);
    while (moved > 0);
    close(reading);
    return moved < 0 ? -1 : 0;
}

static int list(int from, int to)
{
    int again = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *folder = again < 0 ? NULL : fdopendir(again);
    if (folder == NULL)
        return -1;
    struct dirent *entry;
    int trouble = 0;
    while (!trouble && (entry = readdir(folder)) != NULL) {
        struct statx found;
        char key[KEY_SIZE];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (identify(again, entry->d_name, AT_SYMLINK_NOFOLLOW, &found, key) != 0)
            continue; /* gone since */
        if (S_ISREG(found.stx_mode) || S_ISDIR(found.stx_mode))
            trouble = dprintf(to, "%c %s %s%c", S_ISDIR(found.stx_mode) ? 'd' : 'f', key, entry->d_name, 0) < 0;
    }
    closedir(folder);
    return trouble ? -1 : 0;
}

/* Whole or not at all: a kill in the middle leaves what was remembered before. */
static int remember(int descriptor, const char *memory)
{
    struct statx found;
    char key[KEY_SIZE], fresh[PATH_SIZE], kept[PATH_SIZE];
    if (identify(descriptor, "", AT_EMPTY_PATH, &found, key) != 0)
        return -1;
    int is_folder = S_ISDIR(found.stx_mode);
    if (!is_folder && !S_ISREG(found.stx_mode))
        return 0;
    snprintf(kept, sizeof kept, "%s/%s%s", memory, key, is_folder ? ".dir" : "");
    snprintf(fresh, sizeof fresh, "%s/new-XXXXXX", memory);
    int writing = mkostemp(fresh, O_CLOEXEC);
    if (writing < 0)
        return -1;
    int trouble = is_folder ? list(descriptor, writing) : copy(descriptor, writing);
    close(writing);
    return trouble != 0 || rename(fresh, kept) != 0 ? -1 : 0;
}

static int synced(int descriptor)
{
    const char *memory = getenv("POWER_MEMORY");
    if (memory == NULL || remember(descriptor, memory) == 0)
        return 0;
    errno = EIO;
    return -1;
}

int fsync(int descriptor) { return synced(descriptor); }
int fdatasync(int descriptor) { return synced(descriptor); }

/* For who plays at power cuts: takes a file or folder as it is for durable, and tells its key. 0, or -1. */
int power_remember(const char *path, const char *memory, char key[KEY_SIZE])
{
    struct statx found;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (descriptor < 0)
        return -1;
    int trouble = identify(descriptor, "", AT_EMPTY_PATH, &found, key) != 0 || remember(descriptor, memory) != 0;
    close(descriptor);
    return trouble ? -1 : 0;
}
