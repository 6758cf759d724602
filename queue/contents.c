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

int read_header(struct shard *s, MDB_txn *txn, const struct msgid *id, struct message *header,
                uint64_t *bytes)
{
    MDB_val key = {MSGID_BYTES, (void *)(uintptr_t)id->bytes}, value;
    int rc = mdb_get(txn, s->content, &key, &value);

    *bytes = 0;
    if (rc != 0)
        return lmdb_errno(rc);
    if (!shard_readable(s, &value))
        return -EBADMSG;
    *bytes = value.mv_size;
    return codec_content_decode(id, val_str(&value), false, header);
}

/* The content record of a message, malloc'd, its length at *len. NULL: *err says why. */
static uint8_t *read_content(struct shard *s, MDB_txn *txn, const struct msgid *id, size_t *len,
                             int *err)
{
    MDB_val key = {MSGID_BYTES, (void *)id->bytes}, value;
    uint8_t *bytes;
    int rc = mdb_get(txn, s->content, &key, &value);

    *err = lmdb_errno(rc);
    if (rc == 0 && !shard_readable(s, &value))
        *err = -EBADMSG;
    if (*err < 0)
        return NULL;
    *len = value.mv_size;
    bytes = malloc(value.mv_size + 1);
    *err = bytes == NULL ? -ENOMEM : read_value(s, &value, bytes);
    if (*err == 0)
        return bytes;
    free(bytes);
    return NULL;
}

struct message *read_message(struct shard *s, MDB_txn *txn, const struct msgid *id, int *err)
{
    struct message fields, *m = NULL;
    size_t len;
    uint8_t *bytes = read_content(s, txn, id, &len, err);

    if (bytes == NULL)
        return NULL;
    *err = codec_content_decode(id, (struct str){(const char *)bytes, len}, true, &fields);
    if (*err == 0) {
        fields.content_block = bytes; /* the content stays where it was read */
        m = message_new(&fields);
        *err = m == NULL ? -ENOMEM : 0;
    }
    if (m == NULL)
        free(bytes);
    return m;
}

struct message *read_stored_message(struct shard *s, MDB_txn *txn, const struct msgid *id, int *err)
{
    struct message fields = {.id = *id}, *m = NULL;
    size_t len;

    fields.content = read_content(s, txn, id, &len, err);
    if (fields.content == NULL)
        return NULL;
    fields.content_len = len;
    m = message_new(&fields);
    if (m == NULL)
        free(fields.content);
    *err = m == NULL ? -ENOMEM : 0;
    return m;
}
