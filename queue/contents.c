/* Reading what is stored of a message: its header, its content, the record as it is. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "queue/shard.h"

/* A value of more than a page's share lies in pages of its own. Through the map each reader would
 * fault them in and have them taken away again: of a drain's CPU a sixth. A read finds them in the
 * page cache, and a file that was cut is an error instead of a signal. */
static int read_value(const struct shard *s, const MDB_val *value, uint8_t *out)
{
    ssize_t n;

    if (s->map == NULL || value->mv_size < s->page_bytes) {
        memcpy(out, value->mv_data, value->mv_size);
        return 0;
    }
    n = pread(s->probe_fd, out, value->mv_size,
              (off_t)((uintptr_t)value->mv_data - (uintptr_t)s->map));
    if (n < 0)
        return -errno;
    return (size_t)n == value->mv_size ? 0 : -EBADMSG;
}

/* The record in the map. */
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
    MDB_val value;
    int err = find_record(s, txn, id, &value);

    *bytes = err < 0 ? 0 : value.mv_size;
    return err < 0 ? err : codec_content_decode(id, val_str(&value), false, header);
}

/* The record to out, from its beginning. */
static int read_content(struct shard *s, MDB_txn *txn, const struct msgid *id, struct buf *out)
{
    MDB_val value;
    int err = find_record(s, txn, id, &value);

    if (err < 0)
        return err;
    buf_clear(out);
    if (buf_reserve(out, value.mv_size + 1) < 0)
        return -ENOMEM;
    out->len = value.mv_size;
    return read_value(s, &value, out->data);
}

struct message *read_message_by(struct shard *s, MDB_txn *txn, const struct msgid *id,
                                struct buf *record, int *err)
{
    struct message fields, *m = NULL;
    const uint8_t *content;

    *err = read_content(s, txn, id, record);
    if (*err == 0)
        *err = codec_content_decode(id, buf_str(record), true, &fields);
    if (*err < 0)
        return NULL;
    content = fields.content;
    fields.content = malloc(fields.content_len > 0 ? fields.content_len : 1);
    if (fields.content != NULL) {
        memcpy(fields.content, content, fields.content_len);
        m = message_new(&fields);
    }
    if (m == NULL) {
        free(fields.content);
        *err = -ENOMEM;
    }
    return m;
}

struct message *read_message(struct shard *s, MDB_txn *txn, const struct msgid *id, int *err)
{
    struct buf record = {0};
    struct message *m = read_message_by(s, txn, id, &record, err);

    buf_done(&record);
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
    return m;
}

struct message *read_stored_message(struct shard *s, MDB_txn *txn, const struct msgid *id, int *err)
{
    struct message fields = {.id = *id}, *m = NULL;
    struct buf record = {0};

    *err = read_content(s, txn, id, &record);
    if (*err == 0) {
        fields.content = record.data;
        fields.content_len = record.len;
        m = message_new(&fields);
        *err = m == NULL ? -ENOMEM : 0;
    }
    if (m == NULL)
        buf_done(&record);
    return m;
}
