#include "queue/records.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "queue/quarantine.h"
#include "queue/shard.h"

#define SEGMENT_NAME_BYTES 80
#define TRIM_ENTRIES_MAX   1024 /* per transaction, so that no batch waits long for the trimming */

static void segment_name(const struct records *r, uint64_t number, int64_t start_ms,
                         char out[SEGMENT_NAME_BYTES])
{
    snprintf(out, SEGMENT_NAME_BYTES, "%" PRId64 "-%" PRIu32 "-%" PRIu64 ".jsonl", start_ms,
             r->shard, number);
}

static int write_at(int fd, struct str bytes, uint64_t offset)
{
    while (bytes.len > 0) {
        ssize_t n = pwrite(fd, bytes.ptr, bytes.len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -ENOSPC;
        bytes.ptr += n;
        bytes.len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

/* --- open and close --- */

/* Numbers go on from the newest file there is, so that no name is ever used twice. */
static uint64_t newest_number(const struct records *r)
{
    uint64_t newest = 0;
    struct records_file file;
    DIR *dir = records_dir_open(r);

    while (dir != NULL && records_dir_next(r, dir, &file))
        newest = file.number > newest ? file.number : newest;
    if (dir != NULL)
        closedir(dir);
    return newest;
}

int records_dir_reopen(struct records *r)
{
    int fd;

    if (mkdir(r->options.path, 0750) < 0 && errno != EEXIST)
        return -errno;
    fd = open(r->options.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (r->dir_fd < 0) {
        r->dir_fd = fd;
    } else { /* the number stays, so that nobody holds a stale one */
        (void)dup3(fd, r->dir_fd, O_CLOEXEC);
        close(fd);
    }
    return r->no_sync ? 0 : sync_name(r->options.path);
}

int records_init(struct records *r, const struct queue_options *options, uint32_t shard)
{
    int err;

    *r = (struct records){.options = options->records,
                          .shard = shard,
                          .dir_fd = -1,
                          .no_sync = options->no_sync,
                          .finish_now = true};
    list_init(&r->closed);
    pthread_mutex_init(&r->lock, NULL);
    if (r->options.path == NULL)
        return 0;
    err = records_dir_reopen(r);
    if (err < 0)
        return err;
    r->number = newest_number(r);
    r->number_next = r->number + 1;
    return 0;
}

static void segment_free(struct segment *segment)
{
    if (segment == NULL)
        return;
    if (segment->fd >= 0)
        close(segment->fd);
    free(segment);
}

void records_done(struct records *r)
{
    struct list_node *node;

    if (r->closed.head.next == NULL) /* never initialised */
        return;
    while ((node = list_pop_front(&r->closed)) != NULL)
        segment_free(CONTAINER_OF(node, struct segment, node));
    segment_free(r->active);
    r->active = NULL;
    buf_done(&r->staged);
    if (r->dir_fd >= 0)
        close(r->dir_fd);
    r->dir_fd = -1;
    pthread_mutex_destroy(&r->lock);
}

/* --- replay: what the outbox says, written again --- */

struct replay {
    struct records *records;
    bool earlier; /* the file is of an earlier start: it may have been cut or removed since, and may
                   * have more than it should */
    int fd;
    uint64_t number;
    uint64_t base; /* subtracted from offsets: the file was removed or cut by somebody */
    uint64_t end;
};

/* err: what went wrong with the file. */
static int replay_close(struct replay *p, int err)
{
    if (p->fd < 0)
        return err;
    if (err == 0 && p->earlier && ftruncate(p->fd, (off_t)p->end) < 0)
        err = -errno;
    if (err == 0 && !p->records->no_sync && fdatasync(p->fd) < 0)
        err = -errno;
    /* The next try is to find it as this one did: too short. */
    if (err < 0 && p->base > 0 && ftruncate(p->fd, 0) < 0)
        err = -errno;
    close(p->fd);
    p->fd = -1;
    return err;
}

static int replay_open(struct replay *p, const struct outbox_entry *entry)
{
    char name[SEGMENT_NAME_BYTES];
    struct stat st;

    segment_name(p->records, entry->segment, entry->start_ms, name);
    p->fd = openat(p->records->dir_fd, name, O_CREAT | O_RDWR | O_CLOEXEC, 0640);
    if (p->fd < 0)
        return -errno;
    p->number = entry->segment;
    p->base = 0;
    p->end = entry->offset;
    p->earlier = entry->segment <= p->records->number_at_start;
    if (!p->earlier)
        return 0;
    if (fstat(p->fd, &st) < 0)
        return -errno;
    /* What was synced before the crash is gone: somebody removed or cut the file. The lines that
     * the outbox has then go to the file's beginning, each time the same way. */
    if ((uint64_t)st.st_size >= entry->offset)
        return 0;
    p->base = entry->offset;
    p->end = 0;
    return ftruncate(p->fd, 0) < 0 ? -errno : 0;
}

static int replay_entry(struct replay *p, const struct outbox_entry *entry)
{
    static const char newline = '\n';
    uint64_t at;
    int err = 0;

    if (p->fd >= 0 && p->number != entry->segment)
        err = replay_close(p, 0);
    if (err == 0 && p->fd < 0)
        err = replay_open(p, entry);
    if (err < 0)
        return err;
    at = entry->offset - p->base;
    /* Entries in between were damaged: their place is filled so that the file keeps to lines. */
    for (; p->end < at && err == 0; p->end++)
        err = write_at(p->fd, (struct str){&newline, 1}, p->end);
    if (err == 0)
        err = write_at(p->fd, entry->lines, at);
    if (err == 0)
        p->end = at + entry->lines.len;
    return err;
}

/* False: the entry is damaged. One whose page cannot be freed soundly counts so: it stays, and must
 * not be written again over what its segment got later. */
static bool entry_read(const struct shard *s, const MDB_val *key, const MDB_val *value,
                       struct outbox_entry *out)
{
    return shard_can_free(s, value) && codec_outbox_decode(val_str(key), val_str(value), out) == 0;
}

/* Replays entries from sequence first on. *last: the last one found. A local error goes to *err and
 * ends the replay; the result is an LMDB code. */
static int replay(struct shard *s, MDB_txn *txn, uint64_t first, uint64_t *last, int *err)
{
    struct records *r = &s->records;
    struct replay p = {.records = r, .fd = -1};
    uint8_t key_bytes[OUTBOX_KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes}, value;
    struct outbox_entry entry;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, s->outbox, &cursor);

    *err = 0;
    if (rc != 0)
        return rc;
    codec_sequence_key(key_bytes, first);
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE); rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        if (entry_read(s, &key, &value, &entry))
            *err = replay_entry(&p, &entry);
        if (*err < 0)
            break;
        *last = codec_sequence_parse(val_str(&key));
    }
    mdb_cursor_close(cursor);
    *err = replay_close(&p, *err);
    if (*err == 0 && !r->no_sync && fsync(r->dir_fd) < 0)
        *err = -errno;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* A damaged entry, whose name the quarantine has from here on; what of it can be read, too. */
static int quarantine_entry(struct shard *s, MDB_txn *txn, const MDB_val *key, const MDB_val *value)
{
    bool can_read = shard_written(s, value) || shard_readable(s, value);

    return quarantine_put(txn, s->quarantine, QUARANTINE_OUTBOX, val_str(key),
                          can_read ? val_str(value) : STR(""), "damaged record lines");
}

/* Moves damaged entries to the quarantine and deletes all others. What cannot be freed soundly
 * stays. */
static int empty_outbox(struct shard *s, MDB_txn *txn)
{
    struct outbox_entry entry;
    MDB_val key, value;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, s->outbox, &cursor);

    if (rc != 0)
        return rc;
    while (rc == 0 && (rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        if (!entry_read(s, &key, &value, &entry))
            rc = quarantine_entry(s, txn, &key, &value);
        if (rc == 0 && shard_can_free(s, &value))
            rc = mdb_cursor_del(cursor, 0);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* Takes over from the last entry: numbers of segments go on from it, too, for its segment may never
 * have become a file. */
static void continue_from(struct shard *s, MDB_txn *txn)
{
    struct records *r = &s->records;
    struct outbox_entry entry;
    MDB_cursor *cursor;
    MDB_val key, value;
    int rc = mdb_cursor_open(txn, s->outbox, &cursor);

    if (rc != 0)
        return;
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST); rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_PREV)) {
        if (r->sequence == 0)
            r->sequence = r->sequence_at_start = codec_sequence_parse(val_str(&key));
        if (!entry_read(s, &key, &value, &entry))
            continue;
        r->number = entry.segment > r->number ? entry.segment : r->number;
        r->number_next = r->number + 1;
        break;
    }
    mdb_cursor_close(cursor);
}

int records_replay(struct shard *s)
{
    struct records *r = &s->records;
    uint64_t last = 0;
    MDB_txn *txn;
    MDB_stat stat;
    int err = 0, rc = mdb_txn_begin(s->env, NULL, 0, &txn);

    if (rc != 0)
        return rc;
    rc = mdb_stat(txn, s->outbox, &stat);
    continue_from(s, txn);
    r->number_at_start = r->number;
    /* Without a records directory the lines stay where they are until there is one again. */
    if (rc == 0 && stat.ms_entries > 0 && r->options.path != NULL)
        rc = replay(s, txn, 0, &last, &err);
    if (rc == 0 && last > 0 && err == 0)
        rc = empty_outbox(s, txn);
    if (rc != 0 || err < 0 || last == 0) {
        mdb_txn_abort(txn);
        r->behind = err < 0;
        r->write_error = -err;
    } else {
        rc = mdb_txn_commit(txn);
        if (rc == 0)
            r->trimmed = r->written = r->synced = r->finished = r->sequence;
    }
    /* A full disk or map keeps the outbox from being emptied. It stays, to be written again to the
     * same places, until there is room; the engine starts. */
    if (rc != 0 && lmdb_errno(rc) == -ENOSPC) {
        r->behind = true;
        rc = 0;
    }
    return rc;
}

/* --- the committer's side --- */

static int begin_segment(struct records *r)
{
    struct segment *segment = calloc(1, sizeof(*segment));

    if (segment == NULL)
        return -ENOMEM;
    ASSERT(r->active == NULL);
    segment->fd = -1;
    segment->number = ++r->number;
    segment->start_ms = clock_wall_ms();
    pthread_mutex_lock(&r->lock);
    r->active = segment;
    r->number_next = segment->number;
    pthread_mutex_unlock(&r->lock);
    return 0;
}

int records_stage(struct records *r, const struct buf *lines)
{
    int err;

    if (r->options.path == NULL || lines->len == 0)
        return 0;
    ASSERT(!r->unwritten); /* the lines of the transaction before have gone to their file */
    if (r->active == NULL) {
        err = begin_segment(r);
        if (err < 0)
            return err;
    }
    err = buf_reserve(&r->staged, lines->len);
    if (err == 0)
        buf_put(&r->staged, lines->data, lines->len);
    return err;
}

void records_unstage(struct records *r)
{
    ASSERT(!r->unwritten);
    buf_clear(&r->staged);
}

int records_put(struct shard *s, MDB_txn *txn)
{
    struct records *r = &s->records;
    size_t lines_max = s->page_bytes - CHECK_HEADER_BYTES - OUTBOX_HEAD_BYTES;
    struct str left = buf_str(&r->staged);
    struct outbox_entry entry;
    MDB_cursor *cursor;
    int rc;

    r->staged_sequence = r->sequence;
    if (left.len == 0)
        return 0;
    ASSERT(r->active != NULL && !r->unwritten);
    rc = mdb_cursor_open(txn, s->outbox, &cursor);
    if (rc != 0)
        return rc;
    entry = (struct outbox_entry){
        .segment = r->active->number, .start_ms = r->active->start_ms, .offset = r->active->end};
    while (rc == 0 && left.len > 0) {
        uint8_t key_bytes[OUTBOX_KEY_BYTES];
        MDB_val key = {sizeof(key_bytes), key_bytes}, value;

        entry.lines = left;
        if (left.len > lines_max)
            entry.lines.len = lines_max;
        codec_sequence_key(key_bytes, ++r->staged_sequence);
        value.mv_size = OUTBOX_HEAD_BYTES + entry.lines.len;
        rc = mdb_cursor_put(cursor, &key, &value, MDB_RESERVE | MDB_APPEND);
        if (rc == 0)
            codec_outbox_encode(value.mv_data, r->staged_sequence, &entry);
        left.ptr += entry.lines.len;
        left.len -= entry.lines.len;
        entry.offset += entry.lines.len;
    }
    mdb_cursor_close(cursor);
    return rc;
}

static int segment_open(struct records *r, struct segment *segment)
{
    char name[SEGMENT_NAME_BYTES];
    int fd;

    segment_name(r, segment->number, segment->start_ms, name);
    fd = openat(r->dir_fd, name, O_CREAT | O_WRONLY | O_CLOEXEC, 0640);
    if (fd < 0)
        return -errno;
    pthread_mutex_lock(&r->lock);
    segment->fd = fd;
    pthread_mutex_unlock(&r->lock);
    return 0;
}

void records_committed(struct records *r)
{
    uint64_t bytes = r->staged.len;

    if (bytes == 0)
        return;
    ASSERT(r->staged_sequence > r->sequence && !r->unwritten);
    r->active->end += bytes;
    r->sequence = r->staged_sequence;
    r->unwritten = true;
    pthread_mutex_lock(&r->lock);
    r->active->sequence_last = r->sequence;
    r->bytes_committed += bytes;
    pthread_mutex_unlock(&r->lock);
}

void records_write(struct records *r)
{
    struct segment *segment = r->active;
    struct str lines = buf_str(&r->staged);
    int err = r->behind ? -EAGAIN : 0;

    if (!r->unwritten)
        return;
    ASSERT(segment != NULL && lines.len > 0 && segment->end >= lines.len);
    if (err == 0 && segment->fd < 0)
        err = segment_open(r, segment);
    if (err == 0)
        err = write_at(segment->fd, lines, segment->end - lines.len);
    r->behind = err < 0;
    pthread_mutex_lock(&r->lock);
    if (err == 0)
        r->written = r->sequence;
    if (err != -EAGAIN) /* behind already: records_catch_up() says why */
        r->write_error = -err;
    pthread_mutex_unlock(&r->lock);
    r->unwritten = false;
    buf_clear(&r->staged);
}

int records_trim(struct shard *s, MDB_txn *txn, uint64_t *trimmed)
{
    struct records *r = &s->records;
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t synced;
    int rc;

    *trimmed = r->trimmed;
    pthread_mutex_lock(&r->lock);
    synced = r->synced;
    pthread_mutex_unlock(&r->lock);
    if (synced <= r->trimmed)
        return 0;
    rc = mdb_cursor_open(txn, s->outbox, &cursor);
    if (rc != 0)
        return rc;
    for (unsigned n = 0; rc == 0 && *trimmed < synced && n < TRIM_ENTRIES_MAX; n++) {
        uint64_t sequence;

        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
        if (rc != 0)
            break;
        sequence = codec_sequence_parse(val_str(&key));
        if (sequence > synced)
            break;
        if (shard_can_free(s, &value))
            rc = mdb_cursor_del(cursor, 0);
        if (sequence > *trimmed) /* else it is one that stayed */
            *trimmed = sequence;
    }
    mdb_cursor_close(cursor);
    if (rc == MDB_NOTFOUND)
        *trimmed = synced;
    return rc == MDB_NOTFOUND ? 0 : rc;
}

void records_trimmed(struct records *r, uint64_t trimmed)
{
    ASSERT(trimmed >= r->trimmed && trimmed <= r->sequence);
    r->trimmed = trimmed;
    pthread_mutex_lock(&r->lock);
    r->finished = trimmed;
    pthread_mutex_unlock(&r->lock);
}

bool records_want_trim(struct records *r)
{
    bool want;

    pthread_mutex_lock(&r->lock);
    want = r->synced > r->trimmed;
    pthread_mutex_unlock(&r->lock);
    return want;
}

void records_catch_up(struct shard *s)
{
    struct records *r = &s->records;
    uint64_t first, last = 0;
    MDB_txn *txn;
    int err = 0;

    pthread_mutex_lock(&r->lock);
    if (r->rewrite) {
        r->rewrite = false;
        r->behind = true;
        r->written = r->synced;
    }
    first = r->written + 1;
    pthread_mutex_unlock(&r->lock);
    if (!r->behind || r->options.path == NULL || mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0)
        return;
    if (replay(s, txn, first, &last, &err) == 0 && err == 0)
        r->behind = false;
    pthread_mutex_lock(&r->lock);
    if (!r->behind)
        r->written = r->sequence;
    r->write_error = -err;
    pthread_mutex_unlock(&r->lock);
    mdb_txn_abort(txn);
}

bool records_behind(struct records *r)
{
    bool rewrite;

    pthread_mutex_lock(&r->lock);
    rewrite = r->rewrite;
    pthread_mutex_unlock(&r->lock);
    return rewrite || r->behind;
}

void records_rotate(struct records *r, int64_t wall_ms)
{
    struct segment *segment = r->active;
    bool removed;

    if (segment == NULL || segment->end == 0)
        return;
    pthread_mutex_lock(&r->lock);
    removed = r->removed;
    ASSERT(r->synced <= r->written && r->written <= r->sequence);
    pthread_mutex_unlock(&r->lock);
    ASSERT(!r->unwritten);
    if (!removed && segment->end < r->options.segment_bytes_max &&
        wall_ms - segment->start_ms < (int64_t)r->options.segment_age_s_max * 1000)
        return;
    pthread_mutex_lock(&r->lock);
    r->removed = false;
    list_push_back(&r->closed, &segment->node);
    r->active = NULL;
    r->number_next = r->number + 1;
    pthread_mutex_unlock(&r->lock);
}
