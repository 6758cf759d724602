#include "queue/codec.h"

#include <endian.h>
#include <errno.h>

#include "base/crc32c.h"

#define ROW_VERSION     1
#define CONTENT_VERSION 1
#define REFS_VERSION    1
#define OUTBOX_VERSION  1
#define CRC_BYTES       4

/* --- bounded reading and unbounded writing (sizes are computed first) --- */

struct in {
    const uint8_t *at, *end;
    bool bad; /* ran over the end; sticky, everything read since is 0 */
};

static const uint8_t *in_take(struct in *in, size_t n)
{
    const uint8_t *at = in->at;

    if (in->bad || (size_t)(in->end - in->at) < n) {
        in->bad = true;
        return NULL;
    }
    in->at += n;
    return at;
}

static uint64_t in_uint(struct in *in, size_t n)
{
    const uint8_t *at = in_take(in, n);
    uint64_t v = 0;

    if (at != NULL)
        memcpy(&v, at, n);
    return le64toh(v);
}

static struct str in_str(struct in *in, size_t length_bytes)
{
    size_t n = (size_t)in_uint(in, length_bytes);
    const uint8_t *at = in_take(in, n);

    return at == NULL ? (struct str){NULL, 0} : (struct str){(const char *)at, n};
}

static uint8_t *out_uint(uint8_t *out, uint64_t v, size_t n)
{
    v = htole64(v);
    memcpy(out, &v, n);
    return out + n;
}

static uint8_t *out_str(uint8_t *out, struct str s, size_t length_bytes)
{
    out = out_uint(out, s.len, length_bytes);
    if (s.len > 0)
        memcpy(out, s.ptr, s.len);
    return out + s.len;
}

static void out_be(uint8_t *out, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(v >> (8 * (n - 1 - i)));
}

static uint64_t in_be(const uint8_t *in, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v = v << 8 | in[i];
    return v;
}

static void seal(uint8_t *value, size_t n, const void *key, size_t key_len)
{
    uint32_t crc = crc32c(0, key, key_len);

    out_uint(value, crc32c(crc, value + CRC_BYTES, n - CRC_BYTES), CRC_BYTES);
}

/* Checks seal and version and starts reading behind them. The version comes first: what a newer
 * version seals is its own affair. */
static int unseal(struct in *in, const void *key, size_t key_len, struct str value, uint8_t version)
{
    const uint8_t *bytes = (const uint8_t *)value.ptr;
    uint32_t crc;

    *in = (struct in){bytes, bytes + value.len, false};
    crc = (uint32_t)in_uint(in, CRC_BYTES);
    if (value.len <= CRC_BYTES ||
        crc != crc32c(crc32c(0, key, key_len), bytes + CRC_BYTES, value.len - CRC_BYTES))
        return -EBADMSG;
    return in_uint(in, 1) > version ? -EPROTO : 0;
}

static int in_end(const struct in *in)
{
    return in->bad || in->at != in->end ? -EBADMSG : 0;
}

/* --- rows --- */

bool codec_row_valid(const struct recipient *r)
{
    return r->queue.len > 0 && r->queue.len <= QUEUE_NAME_MAX &&
           memchr(r->queue.ptr, 0, r->queue.len) == NULL && r->index <= ROW_INDEX_MAX &&
           r->due_ms >= 0 && r->due_ms <= QUEUE_DUE_HELD && r->address.len <= UINT16_MAX &&
           r->orcpt.len <= UINT16_MAX && r->last_error.len <= UINT16_MAX &&
           r->variables.len <= UINT32_MAX;
}

/* A function of what names the row anyway, so that whoever knows the row knows its key. */
static enum row_class row_class(int64_t due_ms, const struct msgid *id)
{
    return due_ms <= msgid_ms(id) ? ROW_FRESH : ROW_LATER;
}

size_t codec_row_prefix(uint8_t out[ROW_KEY_MAX], enum row_class class, struct str queue)
{
    ASSERT(queue.len <= QUEUE_NAME_MAX);
    out[0] = (uint8_t) class;
    memcpy(out + 1, queue.ptr, queue.len);
    out[1 + queue.len] = 0;
    return 1 + queue.len + 1;
}

size_t codec_row_bound(uint8_t out[ROW_KEY_MAX], enum row_class class, struct str queue,
                       uint8_t priority, int64_t due_ms)
{
    size_t len = codec_row_prefix(out, class, queue);

    out[len] = priority;
    out_be(out + len + 1, (uint64_t)due_ms, 6);
    return len + 7;
}

size_t codec_row_key(uint8_t out[ROW_KEY_MAX], struct str queue, uint8_t priority, int64_t due_ms,
                     const struct msgid *id, uint32_t index)
{
    size_t len = codec_row_bound(out, row_class(due_ms, id), queue, priority, due_ms);

    memcpy(out + len, id->bytes, MSGID_BYTES);
    out_be(out + len + MSGID_BYTES, index, 3);
    return len + MSGID_BYTES + 3;
}

bool codec_row_key_parse(struct str key, struct row_key *out)
{
    const uint8_t *at = (const uint8_t *)key.ptr;

    if (key.len < 1 + 1 + 1 + ROW_KEY_TAIL || key.len > ROW_KEY_MAX)
        return false;
    out->class = (enum row_class)at[0];
    out->queue = (struct str){key.ptr + 1, key.len - 1 - 1 - ROW_KEY_TAIL};
    at += 1 + out->queue.len;
    if (at[0] != 0 || memchr(out->queue.ptr, 0, out->queue.len) != NULL)
        return false;
    out->priority = at[1];
    out->due_ms = (int64_t)in_be(at + 2, 6);
    memcpy(out->id.bytes, at + 8, MSGID_BYTES);
    out->index = (uint32_t)in_be(at + 24, 3);
    return out->class == row_class(out->due_ms, &out->id);
}

size_t codec_row_bytes(const struct recipient *r)
{
    return CRC_BYTES + 1 + 1 + 1 + 2 + 4 + 8 + 2 + r->address.len + 2 + r->orcpt.len + 2 +
           r->last_error.len + 4 + r->variables.len;
}

void codec_row_encode(uint8_t *out, struct str key, const struct recipient *r)
{
    uint8_t *at = out + CRC_BYTES;

    at = out_uint(at, ROW_VERSION, 1);
    at = out_uint(at, r->notify, 1);
    at = out_uint(at, r->flags, 1);
    at = out_uint(at, r->attempts, 2);
    at = out_uint(at, r->lifetime_s, 4);
    at = out_uint(at, (uint64_t)r->last_attempt_ms, 8);
    at = out_str(at, r->address, 2);
    at = out_str(at, r->orcpt, 2);
    at = out_str(at, r->last_error, 2);
    at = out_str(at, r->variables, 4);
    seal(out, (size_t)(at - out), key.ptr, key.len);
}

int codec_row_decode(struct str key, struct str value, struct row_state *out)
{
    struct in in;
    int err = unseal(&in, key.ptr, key.len, value, ROW_VERSION);

    if (err < 0)
        return err;
    out->notify = (uint8_t)in_uint(&in, 1);
    out->flags = (uint8_t)in_uint(&in, 1);
    out->attempts = (uint16_t)in_uint(&in, 2);
    out->lifetime_s = (uint32_t)in_uint(&in, 4);
    out->last_attempt_ms = (int64_t)in_uint(&in, 8);
    out->address = in_str(&in, 2);
    out->orcpt = in_str(&in, 2);
    out->last_error = in_str(&in, 2);
    out->variables = in_str(&in, 4);
    return in_end(&in);
}

/* --- content: a header with its own seal (listings read only that), then the bytes --- */

#define CONTENT_HEAD_FIXED (CRC_BYTES + 1 + 4 + 4 + 8 + 8 + 4 + 1 + 1 + 4)

static const struct str *content_strings(const struct message *m, const struct str *out[8])
{
    out[0] = &m->sender;
    out[1] = &m->envid;
    out[2] = &m->tenant;
    out[3] = &m->campaign;
    out[4] = &m->meta;
    out[5] = &m->protocol;
    out[6] = &m->origin;
    out[7] = &m->trace;
    return out[0];
}

static size_t content_head_bytes(const struct message *m)
{
    const struct str *strings[8];
    size_t n = CONTENT_HEAD_FIXED;

    content_strings(m, strings);
    for (size_t i = 0; i < ARRAY_LEN(strings); i++)
        n += 4 + strings[i]->len;
    return n;
}

size_t codec_content_bytes(const struct message *m)
{
    return content_head_bytes(m) + m->content_len;
}

void codec_content_encode(uint8_t *out, const struct message *m)
{
    const struct str *strings[8];
    size_t head = content_head_bytes(m);
    uint8_t *at = out + CRC_BYTES;

    content_strings(m, strings);
    at = out_uint(at, CONTENT_VERSION, 1);
    at = out_uint(at, head, 4);
    at = out_uint(at, crc32c(0, m->content, m->content_len), 4);
    at = out_uint(at, m->content_len, 8);
    at = out_uint(at, (uint64_t)m->created_ms, 8);
    at = out_uint(at, m->flags, 4);
    at = out_uint(at, m->ret, 1);
    at = out_uint(at, m->priority, 1);
    at = out_uint(at, m->recipients, 4);
    for (size_t i = 0; i < ARRAY_LEN(strings); i++)
        at = out_str(at, *strings[i], 4);
    ASSERT(at == out + head);
    if (m->content_len > 0)
        memcpy(at, m->content, m->content_len);
    seal(out, head, m->id.bytes, MSGID_BYTES);
}

int codec_content_decode(const struct msgid *id, struct str value, bool with_content,
                         struct message *fields)
{
    const uint8_t *bytes = (const uint8_t *)value.ptr;
    struct in in = {bytes, bytes + value.len, false};
    uint32_t content_crc;
    size_t head;
    int err;

    in_take(&in, CRC_BYTES + 1);
    head = (size_t)in_uint(&in, 4);
    if (in.bad || head < CONTENT_HEAD_FIXED || head > value.len)
        return -EBADMSG;
    err = unseal(&in, id->bytes, MSGID_BYTES, (struct str){value.ptr, head}, CONTENT_VERSION);
    if (err < 0)
        return err;
    in_take(&in, 4);
    content_crc = (uint32_t)in_uint(&in, 4);
    *fields = (struct message){.id = *id, .content_len = in_uint(&in, 8)};
    fields->created_ms = (int64_t)in_uint(&in, 8);
    fields->flags = (uint32_t)in_uint(&in, 4);
    fields->ret = (uint8_t)in_uint(&in, 1);
    fields->priority = (uint8_t)in_uint(&in, 1);
    fields->recipients = (uint32_t)in_uint(&in, 4);
    fields->sender = in_str(&in, 4);
    fields->envid = in_str(&in, 4);
    fields->tenant = in_str(&in, 4);
    fields->campaign = in_str(&in, 4);
    fields->meta = in_str(&in, 4);
    fields->protocol = in_str(&in, 4);
    fields->origin = in_str(&in, 4);
    fields->trace = in_str(&in, 4);
    if (in_end(&in) < 0 || fields->content_len != value.len - head)
        return -EBADMSG;
    if (!with_content)
        return 0;
    if (crc32c(0, bytes + head, value.len - head) != content_crc)
        return -EBADMSG;
    fields->content = (uint8_t *)bytes + head;
    return 0;
}

/* --- refs --- */

void codec_refs_encode(uint8_t out[REFS_BYTES], const struct msgid *id, uint32_t count)
{
    out_uint(out_uint(out + CRC_BYTES, REFS_VERSION, 1), count, 4);
    seal(out, REFS_BYTES, id->bytes, MSGID_BYTES);
}

int codec_refs_decode(const struct msgid *id, struct str value, uint32_t *count)
{
    struct in in;
    int err = unseal(&in, id->bytes, MSGID_BYTES, value, REFS_VERSION);

    if (err < 0)
        return err;
    *count = (uint32_t)in_uint(&in, 4);
    return in_end(&in);
}

/* --- outbox --- */

void codec_sequence_key(uint8_t out[OUTBOX_KEY_BYTES], uint64_t sequence)
{
    out_be(out, sequence, OUTBOX_KEY_BYTES);
}

uint64_t codec_sequence_parse(struct str key)
{
    return key.len == OUTBOX_KEY_BYTES ? in_be((const uint8_t *)key.ptr, OUTBOX_KEY_BYTES) : 0;
}

void codec_outbox_encode(uint8_t *out, uint64_t sequence, const struct outbox_entry *entry)
{
    uint8_t key[OUTBOX_KEY_BYTES], *at = out + CRC_BYTES;

    codec_sequence_key(key, sequence);
    at = out_uint(at, OUTBOX_VERSION, 1);
    at = out_uint(at, entry->segment, 8);
    at = out_uint(at, (uint64_t)entry->start_ms, 8);
    at = out_uint(at, entry->offset, 8);
    memcpy(at, entry->lines.ptr, entry->lines.len);
    seal(out, OUTBOX_HEAD_BYTES + entry->lines.len, key, sizeof(key));
}

int codec_outbox_decode(struct str key, struct str value, struct outbox_entry *out)
{
    struct in in;
    int err = unseal(&in, key.ptr, key.len, value, OUTBOX_VERSION);

    if (err < 0)
        return err;
    out->segment = in_uint(&in, 8);
    out->start_ms = (int64_t)in_uint(&in, 8);
    out->offset = in_uint(&in, 8);
    if (in.bad || key.len != OUTBOX_KEY_BYTES)
        return -EBADMSG;
    out->lines = (struct str){(const char *)in.at, (size_t)(in.end - in.at)};
    return 0;
}

/* --- format --- */

static const char format_key[] = "format";

void codec_format_encode(uint8_t out[FORMAT_BYTES], const struct queue_format *format)
{
    uint8_t *at = out + CRC_BYTES;

    at = out_uint(at, format->version, 4);
    at = out_uint(at, format->shards, 4);
    at = out_uint(at, format->shard, 4);
    memcpy(at, format->id, sizeof(format->id));
    out_uint(at + sizeof(format->id), format->complete, 1);
    seal(out, FORMAT_BYTES, format_key, sizeof(format_key) - 1);
}

int codec_format_decode(struct str value, struct queue_format *out)
{
    const uint8_t *bytes = (const uint8_t *)value.ptr, *id;
    struct in in = {bytes, bytes + value.len, false};
    uint32_t crc = (uint32_t)in_uint(&in, CRC_BYTES);

    out->version = (uint32_t)in_uint(&in, 4);
    if (in.bad || crc != crc32c(crc32c(0, format_key, sizeof(format_key) - 1), bytes + CRC_BYTES,
                                value.len - CRC_BYTES))
        return -EBADMSG;
    if (out->version != FORMAT_VERSION)
        return -EPROTO;
    out->shards = (uint32_t)in_uint(&in, 4);
    out->shard = (uint32_t)in_uint(&in, 4);
    id = in_take(&in, sizeof(out->id));
    if (id != NULL)
        memcpy(out->id, id, sizeof(out->id));
    out->complete = (uint8_t)in_uint(&in, 1);
    return in_end(&in);
}
