/* Reading what is stored of a message: its head, its content, the record as it is. */
#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "queue/shard.h"

/* Finds the record of message id, in the map. */
static int find_record(struct shard *s, MDB_txn *txn, const struct msgid *id, MDB_val *value)
{
    MDB_val key = {MSGID_BYTES, (void *)(uintptr_t)id->bytes};
    int rc = mdb_get(txn, s->content, &key, value);

    if (rc != 0)
        return lmdb_errno(rc);
    return shard_readable(s, value) ? 0 : -EBADMSG;
}

int read_header(struct shard *s, MDB_txn *txn, const struct msgid *id, struct message *header,
                uint64_t *bytes)
{
    struct content_record record;
    MDB_val value;
    int err = find_record(s, txn, id, &value);

    *bytes = err < 0 ? 0 : value.mv_size;
    if (err == 0)
        err = codec_content_decode(id, val_str(&value), header, &record);
    if (err == 0)
        *bytes += header->content_len - record.tail.len;
    return err == 0 && record.prepared ? -EAGAIN : err;
}

/* --- pieces --- */

/* Pieces are read from the file, not through the map. Through the map each reader would fault their
 * pages in and have them taken away again: a sixth of a drain's CPU. A read finds them in the page
 * cache, and a file that was cut is an error instead of a signal. Pieces whose pages follow one
 * another, as most do, are one read: the headers of LMDB between them go to waste. */
#define RUN_MAX 32

struct run_of_pages {
    const struct shard *shard;
    const uint8_t *begin, *end; /* in the map; end: where the next page's piece would begin */
    struct iovec iov[2 * RUN_MAX];
    int iov_len;
    size_t bytes;
    uint8_t waste[CHECK_HEADER_BYTES];
};

static int run_read(struct run_of_pages *run)
{
    ssize_t n;

    if (run->iov_len == 0)
        return 0;
    ASSERT(run->bytes > 0 && run->begin > (const uint8_t *)run->shard->map);
    n = preadv(run->shard->probe_fd, run->iov, run->iov_len,
               (off_t)(run->begin - (const uint8_t *)run->shard->map));
    ASSERT(run->iov_len <= 2 * RUN_MAX);
    run->iov_len = 0;
    /* A page that the disk does not give any more is this message's loss, not its lane's. */
    if (n < 0)
        return errno == EIO ? -EBADMSG : -errno;
    return (size_t)n == run->bytes ? 0 : -EBADMSG;
}

static int run_add(struct run_of_pages *run, const MDB_val *value, uint8_t *out)
{
    const uint8_t *at = value->mv_data;
    size_t page_bytes = run->shard->page_bytes;
    int err;

    if (run->iov_len > 0 && at == run->end && run->iov_len <= 2 * RUN_MAX - 2) {
        run->iov[run->iov_len++] = (struct iovec){run->waste, sizeof(run->waste)};
        run->bytes += sizeof(run->waste);
    } else {
        err = run_read(run);
        if (err < 0)
            return err;
        run->begin = at;
        run->bytes = 0;
    }
    ASSERT(run->iov_len < 2 * RUN_MAX);
    run->iov[run->iov_len++] = (struct iovec){out, value->mv_size};
    run->bytes += value->mv_size;
    /* Only a piece that fills its page ends where the next page begins. */
    run->end = value->mv_size + CHECK_HEADER_BYTES == page_bytes ? at + page_bytes : NULL;
    return 0;
}

/* Whether a piece has a page alone: a small last piece lies in a leaf. */
static bool lies_alone(const struct shard *s, const MDB_val *value)
{
    return s->map != NULL && value->mv_size >= s->page_bytes / 2;
}

/* All pieces of id, in order, to out, which has room for bytes of them; *got: how many there were.
 */
static int read_pages(struct shard *s, MDB_txn *txn, const struct msgid *id, uint8_t *out,
                      uint64_t bytes, uint64_t *got)
{
    struct run_of_pages run = {.shard = s};
    uint8_t key_bytes[PAGE_KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes}, value;
    MDB_cursor *at;
    int rc = mdb_cursor_open(txn, s->pages, &at), err = 0;

    *got = 0;
    if (rc != 0)
        return lmdb_errno(rc);
    codec_page_key(key_bytes, id, 0);
    rc = mdb_cursor_get(at, &key, &value, MDB_SET_RANGE);
    while (rc == 0 && err == 0 && codec_page_key_of(val_str(&key), id)) {
        if (!shard_readable(s, &value) || value.mv_size > bytes - *got)
            err = -EBADMSG;
        else if (lies_alone(s, &value))
            err = run_add(&run, &value, out + *got);
        else
            memcpy(out + *got, value.mv_data, value.mv_size);
        *got += value.mv_size;
        rc = mdb_cursor_get(at, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(at);
    if (err == 0)
        err = run_read(&run);
    ASSERT(err < 0 || *got <= bytes); /* out had room for all of them */
    return err < 0 ? err : rc == 0 || rc == MDB_NOTFOUND ? 0 : lmdb_errno(rc);
}

/* --- messages --- */

#define LENGTH_TRUSTED (UINT64_C(1) << 20) /* believed without adding pieces up */

static int read_content(struct shard *s, MDB_txn *txn, const struct message *fields,
                        const struct content_record *record, uint8_t *out)
{
    uint64_t in_pages = fields->content_len - record->tail.len, got = 0;
    int err = in_pages == 0 ? 0 : read_pages(s, txn, &fields->id, out, in_pages, &got);

    if (err < 0)
        return err;
    if (got != in_pages)
        return -EBADMSG;
    if (record->tail.len > 0)
        memcpy(out + got, record->tail.ptr, record->tail.len);
    return crc32c(0, out, fields->content_len) == record->crc ? 0 : -EBADMSG;
}

/* Adds up the pieces under id, whatever the head says. */
static int pages_bytes(struct shard *s, MDB_txn *txn, const struct msgid *id, uint64_t *bytes)
{
    uint8_t key_bytes[PAGE_KEY_BYTES];
    MDB_val key = {sizeof(key_bytes), key_bytes}, value;
    MDB_cursor *at;
    int rc = mdb_cursor_open(txn, s->pages, &at);

    *bytes = 0;
    if (rc != 0)
        return lmdb_errno(rc);
    codec_page_key(key_bytes, id, 0);
    for (rc = mdb_cursor_get(at, &key, &value, MDB_SET_RANGE);
         rc == 0 && codec_page_key_of(val_str(&key), id) && shard_readable(s, &value);
         rc = mdb_cursor_get(at, &key, &value, MDB_NEXT))
        *bytes += value.mv_size;
    mdb_cursor_close(at);
    return rc == 0 || rc == MDB_NOTFOUND ? 0 : lmdb_errno(rc);
}

/* Compares the head's length with the pieces. A forged head, with a seal that is right, must not
 * make us ask for any amount of memory: there would be none, and the lane's load would fail for
 * ever. */
static int check_length(struct shard *s, MDB_txn *txn, const struct message *fields,
                        const struct content_record *record)
{
    uint64_t in_pages = fields->content_len - record->tail.len, bytes;
    int err = in_pages <= LENGTH_TRUSTED ? 0 : pages_bytes(s, txn, &fields->id, &bytes);

    if (in_pages <= LENGTH_TRUSTED || err < 0)
        return err;
    return bytes == in_pages ? 0 : -EBADMSG;
}

struct message *read_message(struct shard *s, MDB_txn *txn, const struct msgid *id, int *err)
{
    struct content_record record;
    struct message fields, *m = NULL;
    MDB_val value;

    *err = find_record(s, txn, id, &value);
    if (*err == 0)
        *err = codec_content_decode(id, val_str(&value), &fields, &record);
    if (*err == 0 && record.prepared)
        *err = -EAGAIN;
    if (*err == 0)
        *err = check_length(s, txn, &fields, &record);
    if (*err < 0)
        return NULL;
    fields.content = malloc(fields.content_len > 0 ? fields.content_len : 1);
    *err =
        fields.content == NULL ? -ENOMEM : read_content(s, txn, &fields, &record, fields.content);
    if (*err == 0 && (m = message_new(&fields)) == NULL)
        *err = -ENOMEM;
    if (m == NULL)
        free(fields.content);
    ASSERT((m != NULL) == (*err == 0));
    return m;
}

struct message *read_header_alone(struct shard *s, MDB_txn *txn, const struct msgid *id, int *err)
{
    struct message fields, *m;
    uint64_t bytes;

    *err = read_header(s, txn, id, &fields, &bytes);
    if (*err < 0)
        return NULL;
    fields.content = NULL;
    fields.content_len = 0;
    m = message_new(&fields);
    if (m == NULL)
        *err = -ENOMEM;
    ASSERT((m != NULL) == (*err == 0));
    return m;
}

struct message *read_stored_message(struct shard *s, MDB_txn *txn, const struct msgid *id, int *err)
{
    struct message fields = {.id = *id}, *m = NULL;
    uint64_t bytes = 0, got;
    MDB_val value;

    *err = find_record(s, txn, id, &value);
    if (*err == 0)
        *err = pages_bytes(s, txn, id, &bytes);
    if (*err < 0)
        return NULL;
    fields.content_len = value.mv_size + bytes;
    fields.content = malloc(fields.content_len + 1);
    if (fields.content == NULL) {
        *err = -ENOMEM;
        return NULL;
    }
    memcpy(fields.content, value.mv_data, value.mv_size);
    *err = read_pages(s, txn, id, fields.content + value.mv_size, bytes, &got);
    if (*err == 0 && (m = message_new(&fields)) == NULL)
        *err = -ENOMEM;
    if (m == NULL)
        free(fields.content);
    ASSERT((m != NULL) == (*err == 0));
    return m;
}
