/* The syncer's side of the record stream: syncing, compressing, deleting. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "queue/records.h"

#define FINISH_EVERY_MS 60000 /* or a sixtieth of the retention */
#define ZSTD_LEVEL      3
#define JUMP_MS         3600000 /* between two looks, which are a second apart */
#define JUMP_HOLD_MS    (24 * JUMP_MS)

/* --- the directory --- */

DIR *records_dir_open(const struct records *r)
{
    int fd = openat(r->dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    if (dir == NULL && fd >= 0)
        close(fd);
    return dir;
}

bool records_dir_next(const struct records *r, DIR *dir, struct records_file *out)
{
    struct dirent *entry;
    uint32_t shard;
    char suffix[8];
    int n;

    while ((entry = readdir(dir)) != NULL) {
        n = 0;
        if (sscanf(entry->d_name, "%" SCNd64 "-%" SCNu32 "-%" SCNu64 ".jsonl%n", &out->start_ms,
                   &shard, &out->number, &n) != 3 ||
            n == 0 || shard != r->shard)
            continue;
        if (snprintf(suffix, sizeof(suffix), "%s", entry->d_name + n) >= (int)sizeof(suffix))
            suffix[0] = 0;
        out->compressed = strcmp(suffix, ".zst") == 0;
        if (entry->d_name[n] != 0 && !out->compressed)
            continue;
        if (snprintf(out->name, sizeof(out->name), "%s", entry->d_name) < (int)sizeof(out->name))
            return true;
    }
    return false;
}

/* --- sync --- */

static int segment_sync(struct records *r, struct segment *segment, int fd)
{
    if (fd < 0 || r->no_sync)
        return 0;
    if (fdatasync(fd) < 0)
        return -errno;
    if (!segment->entry_synced && fsync(r->dir_fd) < 0)
        return -errno;
    segment->entry_synced = true;
    return 0;
}

/* The oldest closed segment that is not synced, or NULL. */
static struct segment *closed_unsynced(struct records *r)
{
    struct list_node *node;

    for (node = list_first(&r->closed); node != NULL; node = list_next(&r->closed, node)) {
        struct segment *segment = CONTAINER_OF(node, struct segment, node);

        if (!segment->synced)
            return segment;
    }
    return NULL;
}

static bool is_removed(int fd)
{
    struct stat st;

    return fd >= 0 && fstat(fd, &st) == 0 && st.st_nlink == 0;
}

/* An operator may tidy up under us. What was in the files is gone by his will, what comes is not.
 */
static void look_for_removed(struct records *r)
{
    int fd;

    if (is_removed(r->dir_fd))
        (void)!records_dir_reopen(r); /* or the next time */
    pthread_mutex_lock(&r->lock);
    fd = r->active == NULL ? -1 : r->active->fd;
    r->removed = is_removed(fd);
    pthread_mutex_unlock(&r->lock);
}

void records_sync(struct records *r)
{
    struct segment *segment;
    uint64_t target, bytes;
    bool all;
    int fd, err = 0;

    look_for_removed(r);
    pthread_mutex_lock(&r->lock);
    target = r->written;
    ASSERT(r->bytes_synced <= r->bytes_committed);
    bytes = r->bytes_committed;
    all = target > r->synced;
    /* Segments never leave but by this thread, so that they may be used without the lock. */
    while (err == 0 && (segment = closed_unsynced(r)) != NULL) {
        fd = segment->fd;
        ASSERT(segment != r->active); /* who writes it would have it synced no more */
        pthread_mutex_unlock(&r->lock);
        err = segment_sync(r, segment, fd);
        pthread_mutex_lock(&r->lock);
        segment->synced = err == 0;
    }
    segment = r->active;
    fd = segment == NULL ? -1 : segment->fd;
    pthread_mutex_unlock(&r->lock);
    if (!all)
        return;
    if (err == 0 && segment != NULL)
        err = segment_sync(r, segment, fd);
    pthread_mutex_lock(&r->lock);
    /* The kernel tells of a failed write-back once: when an earlier sync failed, this one may have
     * succeeded with nothing, while the committer took back what counts as written. */
    r->sync_error = -err;
    if (err < 0) {
        r->rewrite = true;
    } else if (!r->rewrite && r->written >= target) {
        ASSERT(r->synced <= target);
        r->synced = target;
        r->bytes_synced = bytes;
    }
    pthread_mutex_unlock(&r->lock);
}

int records_error(struct records *r)
{
    int error;

    pthread_mutex_lock(&r->lock);
    error = r->write_error != 0 ? r->write_error : r->sync_error;
    pthread_mutex_unlock(&r->lock);
    return error;
}

uint64_t records_lag(struct records *r)
{
    uint64_t lag;

    pthread_mutex_lock(&r->lock);
    ASSERT(r->bytes_committed >= r->bytes_synced);
    lag = r->bytes_committed - r->bytes_synced;
    pthread_mutex_unlock(&r->lock);
    return lag;
}

/* --- closed segments --- */

static int compress_fd(int in, int out)
{
    size_t in_bytes = ZSTD_CStreamInSize(), out_bytes = ZSTD_CStreamOutSize(), left = 0;
    uint8_t *in_buf = malloc(in_bytes), *out_buf = malloc(out_bytes);
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    int err = in_buf == NULL || out_buf == NULL || zstd == NULL ? -ENOMEM : 0;
    ssize_t n = 1;

    if (err == 0) {
        ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL);
        ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
    }
    while (err == 0 && n > 0) {
        ZSTD_inBuffer from = {in_buf, 0, 0};

        n = read(in, in_buf, in_bytes);
        if (n < 0)
            err = -errno;
        from.size = n < 0 ? 0 : (size_t)n;
        do {
            ZSTD_outBuffer to = {out_buf, out_bytes, 0};

            left = ZSTD_compressStream2(zstd, &to, &from, n == 0 ? ZSTD_e_end : ZSTD_e_continue);
            if (ZSTD_isError(left))
                err = -EIO;
            else if (write(out, out_buf, to.pos) != (ssize_t)to.pos)
                err = -ENOSPC;
        } while (err == 0 && (from.pos < from.size || (n == 0 && left > 0)));
    }
    ASSERT(err < 0 || left == 0); /* the frame's end is written */
    ZSTD_freeCCtx(zstd);
    free(in_buf);
    free(out_buf);
    return err;
}

/* Replaces name by name.zst, which appears whole or not at all. */
static void compress_segment(struct records *r, const char *name)
{
    char whole[RECORDS_NAME_BYTES + 8], partial[RECORDS_NAME_BYTES + 8];
    int in = openat(r->dir_fd, name, O_RDONLY | O_CLOEXEC), out, err;

    if (in < 0)
        return;
    snprintf(whole, sizeof(whole), "%s.zst", name);
    snprintf(partial, sizeof(partial), "%s.zst.tmp", name);
    out = openat(r->dir_fd, partial, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0640);
    err = out < 0 ? -errno : compress_fd(in, out);
    if (err == 0 && fdatasync(out) < 0)
        err = -errno;
    if (out >= 0)
        close(out);
    close(in);
    if (err == 0 && renameat(r->dir_fd, partial, r->dir_fd, whole) == 0 && fsync(r->dir_fd) == 0)
        unlinkat(r->dir_fd, name, 0);
    else
        unlinkat(r->dir_fd, partial, 0);
}

/* Frees closed segments whose lines are no longer in the outbox; returns the number below which no
 * segment will be written again. A segment that the outbox still names must keep its file: a replay
 * would otherwise write its lines a second time. */
static uint64_t release_closed(struct records *r)
{
    struct list_node *node, *next;
    uint64_t below;

    pthread_mutex_lock(&r->lock);
    below = r->number_next;
    for (node = list_first(&r->closed); node != NULL; node = next) {
        struct segment *segment = CONTAINER_OF(node, struct segment, node);

        next = list_next(&r->closed, node);
        if (!segment->synced || segment->sequence_last > r->finished) {
            below = segment->number < below ? segment->number : below;
            continue;
        }
        ASSERT(segment->number <= r->number_next && segment != r->active);
        list_remove(node);
        if (segment->fd >= 0)
            close(segment->fd);
        free(segment);
        r->finish_now = true;
    }
    /* Entries left over from an earlier start name segments that we hold no handle of. */
    if (r->finished < r->sequence_at_start)
        below = 0;
    pthread_mutex_unlock(&r->lock);
    return below;
}

static int by_number(const void *a, const void *b)
{
    const struct records_file *x = a, *y = b;

    return x->number < y->number ? -1 : x->number > y->number;
}

static struct records_file *list_files(struct records *r, uint64_t below, size_t *len)
{
    struct records_file *files = NULL, *grown, file;
    size_t cap = 0;
    DIR *dir = records_dir_open(r);

    *len = 0;
    while (dir != NULL && records_dir_next(r, dir, &file)) {
        struct stat st;

        if (file.number >= below || fstatat(r->dir_fd, file.name, &st, 0) < 0)
            continue;
        file.bytes = (uint64_t)st.st_size;
        file.modified_ms =
            (int64_t)st.st_mtim.tv_sec * 1000 + (int64_t)st.st_mtim.tv_nsec / 1000000;
        if (*len == cap) {
            grown = realloc(files, (cap * 2 + 16) * sizeof(*files));
            if (grown == NULL)
                break;
            files = grown;
            cap = cap * 2 + 16;
        }
        files[(*len)++] = file;
    }
    if (dir != NULL)
        closedir(dir);
    if (*len > 0)
        qsort(files, *len, sizeof(*files), by_number);
    return files;
}

/* By a clock that has just jumped forward every segment is old. None is deleted for its age for a
 * day, in which the clock may be set right; a clock set back is believed again at once. */
static bool clock_jumped(struct records *r, int64_t wall_ms)
{
    if (r->looked_ms != 0 && wall_ms - r->looked_ms > JUMP_MS)
        r->jumped_ms = wall_ms;
    r->looked_ms = wall_ms;
    return r->jumped_ms != 0 && wall_ms > r->jumped_ms - JUMP_MS &&
           wall_ms < r->jumped_ms + JUMP_HOLD_MS;
}

void records_finish(struct records *r, int64_t wall_ms)
{
    bool by_age = r->options.retention_s > 0 && !clock_jumped(r, wall_ms);
    int64_t every_ms = (int64_t)r->options.retention_s * 1000 / 60;
    uint64_t below, bytes = 0;
    struct records_file *files;
    size_t len;

    if (r->options.path == NULL)
        return;
    below = release_closed(r);
    if (r->options.retention_s == 0 && r->options.retention_bytes == 0 && !r->options.zstd)
        return; /* segments stay as they are */
    if (every_ms == 0 || every_ms > FINISH_EVERY_MS)
        every_ms = FINISH_EVERY_MS;
    if (!r->finish_now && llabs(wall_ms - r->finished_ms) < every_ms)
        return;
    r->finish_now = false;
    r->finished_ms = wall_ms;
    files = list_files(r, below, &len);
    /* Newest first, so that what is beyond the limit is the oldest. */
    for (size_t i = len; i-- > 0;) {
        struct records_file *file = &files[i];

        ASSERT(file->number < below); /* no segment that is written, or may be again */
        bytes += file->bytes;
        if ((by_age && wall_ms - file->modified_ms > (int64_t)r->options.retention_s * 1000) ||
            (r->options.retention_bytes > 0 && bytes > r->options.retention_bytes))
            unlinkat(r->dir_fd, file->name, 0);
        else if (r->options.zstd && !file->compressed)
            compress_segment(r, file->name);
    }
    free(files);
}
