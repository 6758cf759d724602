#include "queue/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "queue/check.h"

/* Acceptance leaves this share of the map to settling: 1/64, of a small map up to 1/16, 1 MiB at
 * most. A settle cannot be split, and may touch a page or two for each of its rows. */
#define SETTLE_SHARE       64
#define SETTLE_SHARE_SMALL 16
#define SETTLE_SMALL_BYTES (UINT64_C(1) << 20)
/* The space that a row takes, with its last error, in partly filled pages, as moves leave them. */
#define ROW_BYTES 640
/* Acceptance leaves so much for each row, beside the share of settling: its last error comes when
 * it is deferred, into pages partly filled. */
#define ROW_ERROR_BYTES 384
#define SPACE_CHECK_NS  UINT64_C(100000000)
#define TREES           8
#define PROBE_BYTES     (256u << 10)
#define DATA_NAME       "data.mdb"
#define BALLAST_NAME    "ballast"

int lmdb_errno(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
    case EDQUOT:
    case EFBIG:
        return -ENOSPC;
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_KEYEXIST:
        return -EEXIST;
    case MDB_PANIC:
        return -ESHUTDOWN;
    default:
        return rc > 0 ? -rc : -EIO;
    }
}

/* --- space --- */

static uint64_t disk_free(const struct shard *s)
{
    struct statvfs fs;

    return fstatvfs(s->dir_fd, &fs) < 0 ? 0 : (uint64_t)fs.f_bavail * fs.f_frsize;
}

/* A line of mdb_reader_list(): process, thread, transaction in decimal or "-". */
static int older_reader(const char *line, void *arg)
{
    uint64_t *oldest = arg;
    unsigned long long txn;

    if (sscanf(line, "%*d %*x %llu", &txn) == 1 && txn < *oldest)
        *oldest = txn;
    return 0;
}

uint64_t shard_reusable_pages(struct shard *s, MDB_txn *txn)
{
    uint64_t pages = 0, oldest = UINT64_MAX;
    MDB_cursor *cursor;
    MDB_val key, value;

    /* Tree 0 is LMDB's free list: by the transaction that freed them, a list of pages, its length
     * first. What a reader may still see is not to be had. */
    if (mdb_reader_list(s->env, older_reader, &oldest) < 0 || mdb_cursor_open(txn, 0, &cursor) != 0)
        return 0;
    while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
        size_t n = 0, freed_by = 0;

        if (key.mv_size == sizeof(freed_by))
            memcpy(&freed_by, key.mv_data, sizeof(freed_by));
        if (freed_by >= oldest)
            break;
        if (value.mv_size >= sizeof(n))
            memcpy(&n, value.mv_data, sizeof(n));
        pages += n;
    }
    mdb_cursor_close(cursor);
    return pages;
}

bool shard_readable(const struct shard *s, const MDB_val *value)
{
    MDB_envinfo info;
    uintptr_t from = (uintptr_t)s->map, at = (uintptr_t)value->mv_data, bytes;

    if (s->map == NULL || mdb_env_info(s->env, &info) != 0)
        return true;
    bytes = (info.me_last_pgno + 1) * s->page_bytes;
    return at >= from && at - from <= bytes && value->mv_size <= bytes - (at - from);
}

bool shard_written(const struct shard *s, const MDB_val *value)
{
    uintptr_t from = (uintptr_t)s->map, at = (uintptr_t)value->mv_data;

    return s->map == NULL || at < from || at - from >= s->options.map_bytes;
}

bool shard_can_free(const struct shard *s, const MDB_val *value)
{
    uintptr_t from = (uintptr_t)s->map, at = (uintptr_t)value->mv_data;

    if (shard_written(s, value) || (at - from) % s->page_bytes != CHECK_HEADER_BYTES) /* or small */
        return true;
    return shard_readable(s, value) &&
           check_large((const uint8_t *)value->mv_data - CHECK_HEADER_BYTES, value->mv_size,
                       (at - from) / s->page_bytes, s->page_bytes);
}

uint64_t shard_unused_bytes(struct shard *s)
{
    MDB_envinfo info;
    uint64_t used;

    if (mdb_env_info(s->env, &info) != 0)
        return 0;
    used = (uint64_t)(info.me_last_pgno + 1) * s->page_bytes;
    atomic_store_explicit(&s->shared.map_used_bytes, used, memory_order_relaxed);
    return used < s->options.map_bytes ? s->options.map_bytes - used : 0;
}

void shard_ballast_keep(struct shard *s)
{
    int fd;

    if (s->own.ballast)
        return;
    fd = openat(s->dir_fd, BALLAST_NAME, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    s->own.ballast = fd >= 0 && posix_fallocate(fd, 0, BALLAST_BYTES) == 0;
    if (fd >= 0 && !s->own.ballast && ftruncate(fd, 0) < 0)
        s->own.ballast = false;
    if (fd >= 0)
        close(fd);
}

bool shard_ballast_drop(struct shard *s)
{
    bool had = s->own.ballast;

    ASSERT(s->dir_fd >= 0);
    s->own.ballast = false;
    return had && unlinkat(s->dir_fd, BALLAST_NAME, 0) == 0;
}

static uint64_t settle_share(const struct shard *s)
{
    uint64_t share = s->options.map_bytes / SETTLE_SHARE;
    uint64_t small = s->options.map_bytes / SETTLE_SHARE_SMALL;

    small = small < SETTLE_SMALL_BYTES ? small : SETTLE_SMALL_BYTES;
    return share > small ? share : small;
}

void shard_rows_are(struct shard *s, const MDB_stat *rows)
{
    s->own.rows_bytes = (rows->ms_branch_pages + rows->ms_leaf_pages) * rows->ms_psize;
    atomic_store_explicit(&s->shared.rows, rows->ms_entries, memory_order_relaxed);
}

static uint64_t rows_growth(const struct shard *s)
{
    uint64_t bytes = atomic_load_explicit(&s->shared.rows, memory_order_relaxed) * ROW_BYTES;

    return bytes > s->own.rows_bytes ? bytes - s->own.rows_bytes : 0;
}

uint64_t shard_leaves_bytes(const struct shard *s, bool accepting)
{
    uint64_t rows = atomic_load_explicit(&s->shared.rows, memory_order_relaxed);
    uint64_t growth = rows_growth(s), errors = rows * ROW_ERROR_BYTES;

    if (!accepting)
        return settle_share(s) / 2 + growth;
    return settle_share(s) + (errors > growth ? errors : growth);
}

void shard_set_room(struct shard *s, uint64_t room_bytes)
{
    uint64_t leave = shard_leaves_bytes(s, false);

    /* Acceptance leaves what settles need with their notices, and more. */
    ASSERT(leave <= shard_leaves_bytes(s, true));
    s->own.room_bytes = room_bytes;
    atomic_store_explicit(&s->shared.notice_room_bytes, room_bytes > leave ? room_bytes - leave : 0,
                          memory_order_relaxed);
}

void shard_check_space(struct shard *s, uint64_t now_ns)
{
    uint64_t low = s->options.map_bytes / 100 * s->options.intake_free_percent, disk, room;
    int intake = QUEUE_INTAKE_OK;
    MDB_txn *txn;

    if (now_ns - s->own.space_checked_ns < SPACE_CHECK_NS ||
        atomic_load_explicit(&s->shared.failed, memory_order_relaxed))
        return;
    s->own.space_checked_ns = now_ns;
    room = shard_unused_bytes(s);
    s->own.reusable_bytes = 0;
    disk = disk_free(s);
    /* Walking the free list costs time: it is done only when it decides. */
    if ((room < 2 * low || disk < s->options.disk_free_bytes_min) &&
        mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) == 0) {
        s->own.reusable_bytes = shard_reusable_pages(s, txn) * s->page_bytes;
        room += s->own.reusable_bytes;
        mdb_txn_abort(txn);
    }
    shard_set_room(s, room);
    /* The file does not shrink: on a disk that the queue itself has filled, the free pages inside
     * are the space that came back. */
    if (room < low)
        intake = QUEUE_INTAKE_MAP_FULL;
    else if (disk + s->own.reusable_bytes < s->options.disk_free_bytes_min)
        intake = QUEUE_INTAKE_DISK_FULL;
    else
        shard_ballast_keep(s);
    atomic_store_explicit(&s->shared.disk_free_bytes, disk, memory_order_relaxed);
    atomic_store_explicit(&s->shared.intake, intake, memory_order_relaxed);
}

bool maps_are_large(const struct queue *q)
{
    unsigned long long shared = 0;
    char text[256] = "";

    if (q->statm_fd < 0 || pread(q->statm_fd, text, sizeof(text) - 1, 0) <= 0 ||
        sscanf(text, "%*u %*u %llu", &shared) != 1)
        return false;
    return shared * (uint64_t)sysconf(_SC_PAGESIZE) > q->options.rss_bytes_max;
}

void shard_trim(struct shard *s)
{
    MDB_envinfo info;

    if (s->map != NULL && mdb_env_info(s->env, &info) == 0)
        madvise(s->map, (info.me_last_pgno + 1) * s->page_bytes, MADV_DONTNEED);
}

/* --- failure --- */

void shard_fail(struct shard *s)
{
    atomic_store_explicit(&s->shared.intake, QUEUE_INTAKE_FAILED, memory_order_relaxed);
    atomic_store_explicit(&s->shared.failed, true, memory_order_release);
}

/* Whether the data file can grow no further: writes a little behind its end and takes it back. LMDB
 * reports a short write as EIO, so the errno alone does not say. */
static bool space_exhausted(struct shard *s)
{
    static const uint8_t zeros[PROBE_BYTES];
    struct stat st;
    ssize_t n;
    int err;

    if (disk_free(s) < PROBE_BYTES)
        return true;
    if (fstat(s->probe_fd, &st) < 0)
        return false;
    n = pwrite(s->probe_fd, zeros, sizeof(zeros), st.st_size);
    err = n < 0 ? errno : 0;
    if (ftruncate(s->probe_fd, st.st_size) < 0)
        return false;
    return err == ENOSPC || err == EDQUOT || err == EFBIG || (n >= 0 && n < (ssize_t)sizeof(zeros));
}

/* After a failed write of its meta page LMDB refuses to go on. */
static bool env_refuses(struct shard *s)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn);

    if (rc == 0)
        mdb_txn_abort(txn);
    return rc == MDB_PANIC;
}

int shard_commit_verdict(struct shard *s, int err)
{
    ASSERT(err < 0);
    if (env_refuses(s))
        return -ESHUTDOWN;
    switch (err) {
    case -ENOMEM:
        return err; /* malloc failed before anything was written */
    case -ENOSPC:
    case -EIO:
        break;
    default:
        return -ESHUTDOWN;
    }
    /* The kernel reports a failed write-back once to every descriptor of the file. LMDB's has had
     * its report; ours has not, so it tells a failed sync from a failed write. */
    if (!s->options.no_sync && fdatasync(s->probe_fd) < 0)
        return -ESHUTDOWN;
    return err == -ENOSPC || space_exhausted(s) ? -ENOSPC : -ESHUTDOWN;
}

void shard_suspect(struct shard *s, struct str key, const char *reason)
{
    struct suspect *suspect = malloc(sizeof(*suspect) + key.len);

    ASSERT(key.len <= UINT32_MAX);
    ASSERT(strlen(reason) <= UINT8_MAX); /* as the quarantine stores it */
    if (suspect == NULL)
        return; /* found again by the next reader */
    *suspect = (struct suspect){.reason = reason, .key_len = (uint32_t)key.len};
    memcpy(suspect->key, key.ptr, key.len);
    if (mailbox_put(&s->suspects, &suspect->node))
        committer_wake(s);
}

/* --- open and close --- */

int sync_name(const char *path)
{
    char *copy = strdup(path), *slash;
    int fd, err = 0;

    if (copy == NULL)
        return -ENOMEM;
    for (slash = copy + strlen(copy); slash > copy && slash[-1] == '/'; slash--)
        slash[-1] = 0;
    slash = strrchr(copy, '/');
    if (slash != NULL)
        slash[slash == copy] = 0;
    fd = open(slash == NULL ? "." : copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        err = -errno;
    if (fd >= 0)
        close(fd);
    free(copy);
    return err;
}

static int open_trees(struct shard *s, MDB_txn *txn)
{
    const struct {
        const char *name;
        MDB_dbi *dbi;
    } trees[TREES] = {{"content", &s->content},
                      {"pages", &s->pages},
                      {"rows", &s->rows},
                      {"refs", &s->refs},
                      {"outbox", &s->outbox},
                      {"meta", &s->meta},
                      {"quarantine", &s->quarantine},
                      {"state", &s->state}};
    int rc = 0;

    for (size_t i = 0; i < TREES && rc == 0; i++)
        rc = mdb_dbi_open(txn, trees[i].name, MDB_CREATE, trees[i].dbi);
    return rc;
}

static int put_format(struct shard *s, MDB_txn *txn, const struct queue_format *format)
{
    uint8_t bytes[FORMAT_BYTES];
    MDB_val key = {6, "format"}, value = {sizeof(bytes), bytes};

    ASSERT(format->shard == s->index);
    codec_format_encode(bytes, format);
    return mdb_put(txn, s->meta, &key, &value, 0);
}

int shard_need(struct shard *s, MDB_txn *txn, uint64_t need)
{
    MDB_val key = {6, "format"}, value;
    struct queue_format stored;
    int rc = mdb_get(txn, s->meta, &key, &value);

    ASSERT((need & ~FORMAT_NEEDS_KNOWN) == 0);
    if (rc != 0)
        return rc;
    if (codec_format_decode(val_str(&value), &stored) < 0)
        return MDB_CORRUPTED;
    if ((stored.needs & need) == need)
        return 0;
    ASSERT((stored.needs & ~FORMAT_NEEDS_KNOWN) == 0); /* or it would not have been opened */
    stored.needs |= need;
    return put_format(s, txn, &stored);
}

/* Why this build does not open a queue. */
static const char *other_format(const struct queue_format *stored)
{
    static char text[240]; /* outlives the shard */
    uint32_t v = stored->version;

    if (v == FORMAT_VERSION)
        snprintf(text, sizeof(text),
                 "a newer version stored what this one does not know (needs 0x%" PRIx64
                 "); use that version",
                 stored->needs & ~FORMAT_NEEDS_KNOWN);
    else if ((v & FORMAT_DRAFT) != 0)
        snprintf(text, sizeof(text),
                 "the queue was written by a build from before the first release (a draft of "
                 "format %u, and this is format %u); drain it with that build",
                 v & ~FORMAT_DRAFT, FORMAT_VERSION);
    else
        snprintf(text, sizeof(text),
                 v > FORMAT_VERSION
                     ? "the queue was written by a newer version (its format is %u, "
                       "this version reads %u); use that version"
                     : "the queue was written by an older version (its format is %u, "
                       "this version reads %u); drain it with that version",
                 v, FORMAT_VERSION);
    return text;
}

/* Reads the format, or writes it into a new environment. On return *format is what is stored. */
static int check_format(struct shard *s, MDB_txn *txn, struct queue_format *format,
                        const char **error)
{
    MDB_val key = {6, "format"}, value;
    struct queue_format stored;
    int rc = mdb_get(txn, s->meta, &key, &value), err;

    if (rc == MDB_NOTFOUND)
        return lmdb_errno(put_format(s, txn, format));
    if (rc != 0)
        return lmdb_errno(rc);
    err = codec_format_decode(val_str(&value), &stored);
    if (err < 0) {
        *error = err == -EPROTO ? other_format(&stored)
                                : "the queue's format record is damaged; restore from a copy";
        return err;
    }
    /* Shard 0 says what the queue is; the others have to agree with it. */
    if (stored.shard != s->index ||
        (s->index > 0 && memcmp(stored.id, format->id, sizeof(stored.id)) != 0)) {
        *error = "it belongs to another queue; put the right one back";
        return -EINVAL;
    }
    *format = stored;
    return 0;
}

int shard_write_format(struct shard *s, const struct queue_format *format)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn);

    if (rc != 0)
        return lmdb_errno(rc);
    rc = put_format(s, txn, format);
    if (rc == 0)
        return lmdb_errno(mdb_txn_commit(txn));
    mdb_txn_abort(txn);
    return lmdb_errno(rc);
}

/* LMDB is about to end the process: damage that check_file() had no time for, or that is younger.
 */
static void on_lmdb_assert(MDB_env *env, const char *what)
{
    const struct shard *s = mdb_env_get_userctx(env);

    fprintf(stderr, "%s/" DATA_NAME " is damaged; see \"A damaged queue\" in the manual: %s\n",
            s->path, what);
}

static int open_env(struct shard *s, const char *path, struct queue_format *format,
                    const char **error)
{
    unsigned flags = MDB_NOTLS | (s->options.no_sync ? MDB_NOSYNC : 0);
    MDB_stat stat;
    MDB_txn *txn;
    int err, rc = mdb_env_create(&s->env);

    if (rc == 0)
        rc = mdb_env_set_userctx(s->env, s);
    if (rc == 0)
        rc = mdb_env_set_assert(s->env, on_lmdb_assert);
    if (rc == 0)
        rc = mdb_env_set_mapsize(s->env, s->options.map_bytes);
    if (rc == 0)
        rc = mdb_env_set_maxdbs(s->env, TREES);
    if (rc == 0)
        rc = mdb_env_set_maxreaders(s->env, READERS_MAX);
    if (rc == 0)
        rc = mdb_env_open(s->env, path, flags, 0600);
    if (rc == 0)
        rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc != 0) {
        *error = rc == ENOMEM
                     ? "the address space has no room for queue.map_size of each shard: lower "
                       "it, or raise the limit (ulimit -v, LimitAS=)"
                     : mdb_strerror(rc);
        return lmdb_errno(rc);
    }
    ASSERT(mdb_env_get_maxkeysize(s->env) >= ROW_KEY_MAX + 1);
    rc = open_trees(s, txn);
    err = rc != 0 ? lmdb_errno(rc) : check_format(s, txn, format, error);
    if (err < 0) {
        mdb_txn_abort(txn);
        return err;
    }
    rc = mdb_stat(txn, s->rows, &stat);
    s->page_bytes = stat.ms_psize;
    ASSERT(s->page_bytes >= 512 && (s->page_bytes & (s->page_bytes - 1)) == 0);
    shard_rows_are(s, &stat);
    if (rc == 0)
        rc = mdb_stat(txn, s->content, &stat);
    s->shared.messages = stat.ms_entries;
    if (rc == 0)
        rc = mdb_stat(txn, s->pages, &stat);
    s->shared.pieces = stat.ms_entries;
    if (rc == 0)
        rc = mdb_stat(txn, s->quarantine, &stat);
    s->shared.quarantined = stat.ms_entries;
    if (rc == 0)
        rc = remains_open(s, txn);
    rc = rc == 0 ? mdb_txn_commit(txn) : rc;
    if (rc != 0)
        *error = mdb_strerror(rc);
    return lmdb_errno(rc);
}

static int remove_in(const char *dir, const char *name)
{
    char *path;
    int err;

    if (asprintf(&path, "%s/%s", dir, name) < 0)
        return -ENOMEM;
    err = unlinkat(AT_FDCWD, path, 0) < 0 && errno != ENOENT ? -errno : 0;
    free(path);
    return err;
}

/* Makes the environment under another name and renames it when it is whole and synced: LMDB writes
 * its first two pages unprotected, and a power cut between them leaves a file that it refuses. */
static int create_env(struct shard *s, const char *fresh, struct queue_format *format,
                      const char **error)
{
    char *data;
    int err;

    if (mkdir(fresh, 0700) < 0 && errno != EEXIST)
        return -errno;
    err = remove_in(fresh, DATA_NAME); /* of an attempt that was cut short */
    if (err == 0)
        err = remove_in(fresh, "lock.mdb");
    if (err == 0)
        err = open_env(s, fresh, format, error);
    if (s->env != NULL)
        mdb_env_close(s->env);
    s->env = NULL;
    if (err == 0 && asprintf(&data, "%s/" DATA_NAME, fresh) < 0)
        err = -ENOMEM;
    if (err < 0)
        return err;
    if (!s->options.no_sync)
        err = sync_name(data);
    free(data);
    if (err == 0 && renameat(AT_FDCWD, fresh, AT_FDCWD, s->path) < 0)
        err = -errno;
    if (err == 0 && !s->options.no_sync)
        err = sync_name(s->path);
    return err;
}

static int create(struct shard *s, struct queue_format *format, const char **error)
{
    struct stat st;
    char *fresh;
    int err;

    if (stat(s->path, &st) == 0)
        return 0;
    if (asprintf(&fresh, "%s.new", s->path) < 0)
        return -ENOMEM;
    err = create_env(s, fresh, format, error);
    free(fresh);
    return err;
}

/* Where LMDB mapped the file: it does not say, but a stored value lies in the map. Without it pages
 * are not given back; nothing else depends on it. */
static void find_map(struct shard *s)
{
    MDB_val key = {6, "format"}, value;
    unsigned long long from, to;
    char line[512];
    MDB_txn *txn;
    FILE *f;

    if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0)
        return;
    f = mdb_get(txn, s->meta, &key, &value) == 0 ? fopen("/proc/self/maps", "re") : NULL;
    while (f != NULL && s->map == NULL && fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "%llx-%llx", &from, &to) == 2 && (uintptr_t)value.mv_data >= from &&
            (uintptr_t)value.mv_data < to)
            s->map = (void *)(uintptr_t)from; /* at a page of the machine's, not of the file's */
    }
    if (f != NULL)
        fclose(f);
    mdb_txn_abort(txn);
}

static int open_files(struct shard *s, const char **error)
{
    struct stat st;

    s->dir_fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (s->dir_fd < 0)
        goto fail;
    s->probe_fd = openat(s->dir_fd, DATA_NAME, O_RDWR | O_CLOEXEC);
    if (s->probe_fd < 0)
        goto fail;
    /* From before: on a disk that is full none could be made. */
    s->own.ballast =
        fstatat(s->dir_fd, BALLAST_NAME, &st, 0) == 0 && st.st_size == (off_t)BALLAST_BYTES;
    if (s->options.no_threads)
        return 0;
    s->committer_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->loader_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->committer_event < 0 || s->loader_event < 0)
        goto fail;
    return 0;
fail:
    *error = "its files cannot be opened";
    return -errno;
}

static int check_pages(struct shard *s, const char **error)
{
    static char text[240]; /* outlives the shard */
    char why[160];
    int err = check_file(s->probe_fd, s->queue->check_until_ns, why, sizeof(why));

    if (err != -EBADMSG)
        return err;
    snprintf(text, sizeof(text),
             "/" DATA_NAME " is damaged: %s; see \"A damaged queue\" in the manual", why);
    *error = text;
    return err;
}

int shard_open(struct shard **out, struct queue *q, uint32_t index, struct queue_format *format,
               const char **error)
{
    struct shard *s;
    int err, rc;

    ASSERT(index < SHARDS_MAX && index == q->shards_len);
    if (posix_memalign((void **)&s, CACHE_LINE_BYTES, sizeof(*s)) != 0)
        return -ENOMEM;
    *s = (struct shard){.queue = q,
                        .index = index,
                        .options = q->options,
                        .probe_fd = -1,
                        .dir_fd = -1,
                        .committer_event = -1,
                        .loader_event = -1};
    mailbox_init(&s->urgent);
    mailbox_init(&s->patient);
    mailbox_init(&s->suspects);
    mailbox_init(&s->loads);
    mailbox_init(&s->directories);
    mailbox_init(&s->walks);
    list_init(&s->own.urgent);
    list_init(&s->own.patient);
    list_init(&s->own.suspects);
    format->shard = index;
    err = counts_init(&s->counts, &q->flows);
    if (err == 0 && asprintf(&s->path, "%s/shard-%03u", q->path, index) < 0)
        err = -ENOMEM;
    if (err == 0)
        err = create(s, format, error);
    if (err == 0)
        err = open_files(s, error);
    if (err == 0)
        err = check_pages(s, error);
    if (err == 0)
        err = open_env(s, s->path, format, error);
    if (err == 0)
        find_map(s);
    if (err < 0)
        goto fail;
    err = records_init(&s->records, &s->options, index);
    if (err < 0) {
        *error = "the directory of the records cannot be opened (records.path)";
        goto fail;
    }
    rc = records_replay(s);
    if (rc != 0) {
        *error = mdb_strerror(rc);
        err = lmdb_errno(rc);
        goto fail;
    }
    shard_check_space(s, clock_mono_ns());
    *out = s;
    return 0;
fail:
    shard_close(s);
    return err;
}

void shard_close(struct shard *s)
{
    if (s == NULL)
        return;
    loader_done(s);
    records_done(&s->records);
    counts_done(&s->counts);
    remains_done(&s->own.remains);
    if (s->env != NULL)
        mdb_env_close(s->env);
    for (size_t i = 0; i < 4; i++) {
        int fd = (int[]){s->probe_fd, s->dir_fd, s->committer_event, s->loader_event}[i];

        if (fd >= 0)
            close(fd);
    }
    free(s->own.flows);
    free(s->path);
    free(s);
}
