#include "queue/codec.h"

#include <endian.h>
#include <errno.h>

#include "base/crc32c.h"
#include "base/packed.h"

#define CRC_BYTES 4

/* --- bounded reading and unbounded writing (sizes are computed first) --- */

struct in {
    const uint8_t *at, *end;
    bool bad; /* a read ran over the end; all reads since give 0 */
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

static uint8_t *out_uint(uint8_t *out, uint64_t v, size_t n)
{
    v = htole64(v);
    memcpy(out, &v, n);
    return out + n;
}

static void seal(uint8_t *value, size_t n, const void *key, size_t key_len)
{
    uint32_t crc = crc32c(0, key, key_len);

    ASSERT(n > CRC_BYTES);
    out_uint(value, crc32c(crc, value + CRC_BYTES, n - CRC_BYTES), CRC_BYTES);
}

/* Which versions of a record this build reads; it writes the newest. */
struct versions {
    uint8_t oldest, newest;
};

static const struct versions row_versions = {3, 3}, content_versions = {3, 3},
                             refs_versions = {2, 2}, outbox_versions = {1, 1},
                             state_versions = {1, 1};

/* Checks seal and version and starts reading behind them. The version comes behind the seal, which
 * newer builds put in the same place. */
static int unseal(struct in *in, const void *key, size_t key_len, struct str value,
                  struct versions v)
{
    const uint8_t *bytes = (const uint8_t *)value.ptr;
    uint32_t crc;
    uint8_t version;

    *in = (struct in){bytes, bytes + value.len, false};
    crc = (uint32_t)in_uint(in, CRC_BYTES);
    if (value.len <= CRC_BYTES ||
        crc != crc32c(crc32c(0, key, key_len), bytes + CRC_BYTES, value.len - CRC_BYTES))
        return -EBADMSG;
    version = (uint8_t)in_uint(in, 1);
    if (version < v.oldest)
        return -EBADMSG;
    return version > v.newest ? -EPROTO : 0;
}

static int in_end(const struct in *in)
{
    return in->bad || in->at != in->end ? -EBADMSG : 0;
}

/* --- tagged fields: strings[i] has tag i + 1; what is empty is left out --- */

static size_t varint_bytes(uint64_t v)
{
    size_t n = 1;

    for (; v >= 0x80; v >>= 7)
        n++;
    return n;
}

static size_t fields_bytes(const struct str *strings, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        if (strings[i].len > 0)
            n += 1 + varint_bytes(strings[i].len) + strings[i].len;
    return n;
}

static uint8_t *out_fields(uint8_t *out, const struct str *strings, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint64_t v = strings[i].len;

        if (v == 0)
            continue;
        *out++ = (uint8_t)(i + 1);
        for (; v >= 0x80; v >>= 7)
            *out++ = (uint8_t)(v | 0x80);
        *out++ = (uint8_t)v;
        memcpy(out, strings[i].ptr, strings[i].len);
        out += strings[i].len;
    }
    return out;
}

static uint64_t in_varint(struct in *in)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 63; shift += 7) {
        uint64_t byte = in_uint(in, 1);

        v |= (byte & 0x7f) << shift;
        if (byte < 0x80)
            return v;
    }
    in->bad = true;
    return 0;
}

/* Reads fields to the end of in; *unknown: those from the first one on whose tag is above len, all
 * of them, since they stand in the order of their tags. 0, -EBADMSG, or -EPROTO: a field that this
 * version must not pass by. */
static int in_fields(struct in *in, struct str *strings, size_t len, struct str *unknown)
{
    uint64_t last = 0;

    *unknown = (struct str){0};
    while (!in->bad && in->at != in->end) {
        const char *field = (const char *)in->at;
        uint64_t tag = in_uint(in, 1), n = in_varint(in);
        const uint8_t *at = n > (uint64_t)(in->end - in->at) ? NULL : in_take(in, (size_t)n);

        if (at == NULL || tag <= last)
            return -EBADMSG;
        last = tag;
        if (tag <= len)
            strings[tag - 1] = (struct str){(const char *)at, (size_t)n};
        else if (tag >= FIELD_CRITICAL)
            return -EPROTO;
        else if (unknown->len == 0)
            *unknown = (struct str){field, (size_t)((const char *)in->end - field)};
    }
    return in_end(in);
}

/* --- rows --- */

bool codec_row_valid(const struct recipient *r)
{
    return r->queue.len > 0 && r->queue.len <= QUEUE_NAME_MAX &&
           memchr(r->queue.ptr, 0, r->queue.len) == NULL && r->due_ms >= 0 &&
           r->due_ms <= QUEUE_DUE_HELD && r->address.len <= UINT16_MAX &&
           r->orcpt.len <= UINT16_MAX && r->last_error.len <= UINT16_MAX &&
           r->variables.len <= UINT32_MAX && r->unknown.len <= UINT32_MAX;
}

/* The class follows from what names the row anyway, so that whoever knows the row knows its key. */
static enum row_class row_class(int64_t due_ms, const struct msgid *id)
{
    return due_ms <= msgid_ms(id) ? ROW_FRESH : ROW_LATER;
}

size_t codec_row_prefix(uint8_t out[ROW_KEY_MAX], enum row_class class, uint32_t flow,
                        struct str queue)
{
    ASSERT(queue.len <= QUEUE_NAME_MAX);
    out[0] = (uint8_t) class;
    packed_set_key(out + 1, flow, 4);
    memcpy(out + ROW_KEY_HEAD, queue.len == 0 ? "" : queue.ptr, queue.len);
    out[ROW_KEY_HEAD + queue.len] = 0;
    return ROW_KEY_HEAD + queue.len + 1;
}

size_t codec_row_bound(uint8_t out[ROW_KEY_MAX], enum row_class class, uint32_t flow,
                       struct str queue, int64_t due_ms)
{
    size_t len = codec_row_prefix(out, class, flow, queue);

    ASSERT(due_ms >= 0 && due_ms <= QUEUE_DUE_HELD);
    packed_set_key(out + len, (uint64_t)due_ms, 6);
    return len + 6;
}

size_t codec_row_key(uint8_t out[ROW_KEY_MAX], uint32_t flow, struct str queue, int64_t due_ms,
                     const struct msgid *id, uint32_t index)
{
    size_t len = codec_row_bound(out, row_class(due_ms, id), flow, queue, due_ms);

    memcpy(out + len, id->bytes, MSGID_BYTES);
    packed_set_key(out + len + MSGID_BYTES, index, 4);
    return len + MSGID_BYTES + 4;
}

bool codec_row_key_parse(struct str key, struct row_key *out)
{
    const uint8_t *at = (const uint8_t *)key.ptr;

    if (key.len < ROW_KEY_HEAD + 1 + 1 + ROW_KEY_TAIL || key.len > ROW_KEY_MAX)
        return false;
    out->class = (enum row_class)at[0];
    out->flow = (uint32_t)packed_key_at(at + 1, 4);
    out->queue = (struct str){key.ptr + ROW_KEY_HEAD, key.len - ROW_KEY_HEAD - 1 - ROW_KEY_TAIL};
    at += ROW_KEY_HEAD + out->queue.len;
    if (at[0] != 0 || memchr(out->queue.ptr, 0, out->queue.len) != NULL)
        return false;
    out->due_ms = (int64_t)packed_key_at(at + 1, 6);
    memcpy(out->id.bytes, at + 7, MSGID_BYTES);
    out->index = (uint32_t)packed_key_at(at + 23, 4);
    return out->class == row_class(out->due_ms, &out->id);
}

#define ROW_FIXED  (CRC_BYTES + 1 + 1 + 1 + 2 + 4 + 6)
#define ROW_FIELDS 4

/* In order of their tags. */
static void row_fields(const struct recipient *r, struct str out[ROW_FIELDS])
{
    out[0] = r->address;
    out[1] = r->orcpt;
    out[2] = r->last_error;
    out[3] = r->variables;
}

size_t codec_row_bytes(const struct recipient *r)
{
    struct str fields[ROW_FIELDS];

    row_fields(r, fields);
    return ROW_FIXED + fields_bytes(fields, ROW_FIELDS) + r->unknown.len;
}

void codec_row_encode(uint8_t *out, struct str key, const struct recipient *r)
{
    struct str fields[ROW_FIELDS];
    uint8_t *at = out + CRC_BYTES;

    row_fields(r, fields);
    at = out_uint(at, row_versions.newest, 1);
    at = out_uint(at, r->notify, 1);
    at = out_uint(at, r->flags, 1);
    at = out_uint(at, r->attempts, 2);
    at = out_uint(at, r->lifetime_s, 4);
    at = out_uint(at, (uint64_t)r->last_attempt_ms, 6);
    at = out_fields(at, fields, ROW_FIELDS);
    if (r->unknown.len > 0) { /* their tags are above those that this build knows */
        memcpy(at, r->unknown.ptr, r->unknown.len);
        at += r->unknown.len;
    }
    seal(out, (size_t)(at - out), key.ptr, key.len);
}

int codec_row_decode(struct str key, struct str value, struct row_state *out)
{
    struct str fields[ROW_FIELDS] = {{0}};
    struct in in;
    int err = unseal(&in, key.ptr, key.len, value, row_versions);

    if (err < 0)
        return err;
    out->notify = (uint8_t)in_uint(&in, 1);
    out->flags = (uint8_t)in_uint(&in, 1);
    out->attempts = (uint16_t)in_uint(&in, 2);
    out->lifetime_s = (uint32_t)in_uint(&in, 4);
    out->last_attempt_ms = (int64_t)in_uint(&in, 6);
    err = in_fields(&in, fields, ROW_FIELDS, &out->unknown);
    out->address = fields[0];
    out->orcpt = fields[1];
    out->last_error = fields[2];
    out->variables = fields[3];
    return err == 0 && (out->flags & ~RECIPIENT_FLAGS) != 0 ? -EPROTO : err;
}

/* --- content: a head with its own seal (listings read only that) and the content's tail --- */

#define CONTENT_CREATED_AT (CRC_BYTES + 1 + 4 + 4 + 8)
#define CONTENT_STATE_AT   (CRC_BYTES + 1 + 4 + 4 + 8 + 8 + 4 + 1 + 1 + 4)
#define CONTENT_HEAD_FIXED (CONTENT_STATE_AT + 1)
enum content_state { CONTENT_WHOLE = 0, CONTENT_PREPARED = 1 };
#define LMDB_HEADER_BYTES 16
#define LMDB_NODE_BYTES   8

/* In order of their tags. */
#define CONTENT_FIELDS 12
struct content_fields {
    struct str texts[CONTENT_FIELDS];
    uint8_t expires[8], suppression;
};

static void content_fields(const struct message *m, struct content_fields *fields)
{
    struct str *out = fields->texts;

    out[0] = m->sender;
    out[1] = m->envid;
    out[2] = m->tenant;
    out[3] = m->campaign;
    out[4] = m->meta;
    out[5] = m->protocol;
    out[6] = m->origin;
    out[7] = m->trace;
    out_uint(fields->expires, (uint64_t)m->expires_ms, sizeof(fields->expires));
    out[8] = (struct str){(char *)fields->expires, m->expires_ms == 0 ? 0 : 8};
    out[9] = m->body_hash;
    out[10] = m->dkim_domain;
    fields->suppression = m->suppression;
    out[11] = (struct str){(char *)&fields->suppression, m->suppression != 0};
}

size_t codec_leaf_bytes(size_t lmdb_page_bytes)
{
    return ((lmdb_page_bytes - LMDB_HEADER_BYTES) / 2 & ~(size_t)1) - 2 - LMDB_NODE_BYTES;
}

struct content_layout codec_content_layout(const struct message *m, size_t lmdb_page_bytes)
{
    struct content_layout l = {.head_bytes = CONTENT_HEAD_FIXED};
    size_t leaf = codec_leaf_bytes(lmdb_page_bytes) - MSGID_BYTES;
    struct content_fields fields;
    uint64_t tail;

    content_fields(m, &fields);
    l.head_bytes += fields_bytes(fields.texts, CONTENT_FIELDS);
    l.piece_bytes = lmdb_page_bytes - LMDB_HEADER_BYTES;
    l.pieces = (uint32_t)(m->content_len / l.piece_bytes);
    tail = m->content_len % l.piece_bytes;
    if (l.head_bytes + tail <= leaf)
        l.tail_bytes = (size_t)tail;
    else
        l.pieces += tail > 0;
    ASSERT(l.pieces <= PAGES_MAX);
    return l;
}

void codec_page_key(uint8_t out[PAGE_KEY_BYTES], const struct msgid *id, uint32_t piece)
{
    ASSERT(piece <= PAGES_MAX);
    memcpy(out, id->bytes, MSGID_BYTES);
    packed_set_key(out + MSGID_BYTES, piece, 3);
}

void codec_content_encode(uint8_t *out, const struct message *m, const struct content_layout *l,
                          bool prepared)
{
    struct content_fields fields;
    uint8_t *at = out + CRC_BYTES;

    content_fields(m, &fields);
    at = out_uint(at, content_versions.newest, 1);
    at = out_uint(at, l->head_bytes, 4);
    at = out_uint(at, crc32c(0, m->content, m->content_len), 4);
    at = out_uint(at, m->content_len, 8);
    at = out_uint(at, (uint64_t)m->created_ms, 8);
    at = out_uint(at, m->flags, 4);
    at = out_uint(at, m->ret, 1);
    at = out_uint(at, m->priority, 1);
    at = out_uint(at, m->recipients, 4);
    at = out_uint(at, prepared ? CONTENT_PREPARED : CONTENT_WHOLE, 1);
    at = out_fields(at, fields.texts, CONTENT_FIELDS);
    ASSERT(at == out + l->head_bytes && l->tail_bytes <= m->content_len);
    if (l->tail_bytes > 0)
        memcpy(at, m->content + m->content_len - l->tail_bytes, l->tail_bytes);
    seal(out, l->head_bytes, m->id.bytes, MSGID_BYTES);
}

/* A later build may know more than this one: it is as strict as this one can be. */
static uint8_t content_suppression(struct str field)
{
    uint8_t v = field.len == 0 ? 0 : (uint8_t)field.ptr[0];

    return v < MESSAGE_SUPPRESSION_ANY ? v : MESSAGE_SUPPRESSION_ANY;
}

static bool content_expires(struct str field, int64_t *out)
{
    struct in in = {(const uint8_t *)field.ptr, (const uint8_t *)field.ptr + field.len, false};
    uint64_t ms = field.len == 0 ? 0 : in_uint(&in, 8);

    *out = (int64_t)ms;
    return !in.bad && ms <= QUEUE_DUE_HELD;
}

int codec_content_decode(const struct msgid *id, struct str value, struct message *fields,
                         struct content_record *record)
{
    const uint8_t *bytes = (const uint8_t *)value.ptr;
    struct in in = {bytes, bytes + value.len, false};
    struct str strings[CONTENT_FIELDS] = {{0}}, unknown;
    struct content_record r;
    uint64_t state;
    size_t head;
    int err;

    in_take(&in, CRC_BYTES + 1);
    head = (size_t)in_uint(&in, 4);
    if (in.bad || head < CONTENT_HEAD_FIXED || head > value.len)
        return -EBADMSG;
    err = unseal(&in, id->bytes, MSGID_BYTES, (struct str){value.ptr, head}, content_versions);
    if (err < 0)
        return err;
    in_take(&in, 4);
    r.crc = (uint32_t)in_uint(&in, 4);
    r.tail = (struct str){value.ptr + head, value.len - head};
    *fields = (struct message){.id = *id, .content_len = in_uint(&in, 8)};
    fields->created_ms = (int64_t)in_uint(&in, 8);
    fields->flags = (uint32_t)in_uint(&in, 4);
    fields->ret = (uint8_t)in_uint(&in, 1);
    fields->priority = (uint8_t)in_uint(&in, 1);
    fields->recipients = (uint32_t)in_uint(&in, 4);
    state = in_uint(&in, 1);
    if (state > CONTENT_PREPARED || (fields->flags & ~MESSAGE_FLAGS) != 0)
        return -EPROTO;
    r.prepared = state == CONTENT_PREPARED;
    err = in_fields(&in, strings, CONTENT_FIELDS, &unknown);
    if (err < 0)
        return err;
    fields->sender = strings[0];
    fields->envid = strings[1];
    fields->tenant = strings[2];
    fields->campaign = strings[3];
    fields->meta = strings[4];
    fields->protocol = strings[5];
    fields->origin = strings[6];
    fields->trace = strings[7];
    fields->body_hash = strings[9];
    fields->dkim_domain = strings[10];
    fields->suppression = content_suppression(strings[11]);
    if (!content_expires(strings[8], &fields->expires_ms) || r.tail.len > fields->content_len ||
        fields->priority >= FLOW_PRIORITIES || fields->created_ms < 0 ||
        fields->created_ms > QUEUE_DUE_HELD)
        return -EBADMSG;
    if (record != NULL)
        *record = r;
    return 0;
}

int codec_content_whole(const struct msgid *id, uint8_t *value, size_t len)
{
    struct str record = {(const char *)value, len};
    struct content_record r;
    struct message fields;
    int err = codec_content_decode(id, record, &fields, &r);

    if (err < 0)
        return err;
    ASSERT(r.tail.len < len && value[CONTENT_STATE_AT] <= CONTENT_PREPARED);
    value[CONTENT_STATE_AT] = CONTENT_WHOLE;
    seal(value, len - r.tail.len, id->bytes, MSGID_BYTES);
    return 0;
}

int codec_content_recreate(const struct msgid *id, uint8_t *value, size_t len, int64_t created_ms)
{
    struct content_record r;
    struct message fields;
    int err = codec_content_decode(id, (struct str){(const char *)value, len}, &fields, &r);

    ASSERT(created_ms >= 0 && created_ms <= QUEUE_DUE_HELD);
    if (err < 0)
        return err;
    out_uint(value + CONTENT_CREATED_AT, (uint64_t)created_ms, 8);
    seal(value, len - r.tail.len, id->bytes, MSGID_BYTES);
    return 0;
}

/* --- refs --- */

void codec_refs_encode(uint8_t out[REFS_BYTES], const struct msgid *id, uint64_t count)
{
    ASSERT(count > 0); /* else the content goes, and this record with it */
    out_uint(out_uint(out + CRC_BYTES, refs_versions.newest, 1), count, 8);
    seal(out, REFS_BYTES, id->bytes, MSGID_BYTES);
}

int codec_refs_decode(const struct msgid *id, struct str value, uint64_t *count)
{
    struct in in;
    int err = unseal(&in, id->bytes, MSGID_BYTES, value, refs_versions);

    if (err < 0)
        return err;
    *count = in_uint(&in, 8);
    return in_end(&in);
}

/* --- outbox --- */

void codec_sequence_key(uint8_t out[OUTBOX_KEY_BYTES], uint64_t sequence)
{
    packed_set_key(out, sequence, OUTBOX_KEY_BYTES);
}

uint64_t codec_sequence_parse(struct str key)
{
    return key.len == OUTBOX_KEY_BYTES ? packed_key_at(key.ptr, OUTBOX_KEY_BYTES) : 0;
}

void codec_outbox_encode(uint8_t *out, uint64_t sequence, const struct outbox_entry *entry)
{
    uint8_t key[OUTBOX_KEY_BYTES], *at = out + CRC_BYTES;

    ASSERT(sequence > 0 && entry->lines.len > 0); /* 0: none, where sequences are compared */
    codec_sequence_key(key, sequence);
    at = out_uint(at, outbox_versions.newest, 1);
    at = out_uint(at, entry->segment, 8);
    at = out_uint(at, (uint64_t)entry->start_ms, 8);
    at = out_uint(at, entry->offset, 8);
    memcpy(at, entry->lines.ptr, entry->lines.len);
    seal(out, OUTBOX_HEAD_BYTES + entry->lines.len, key, sizeof(key));
}

int codec_outbox_decode(struct str key, struct str value, struct outbox_entry *out)
{
    struct in in;
    int err = unseal(&in, key.ptr, key.len, value, outbox_versions);

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

/* --- state --- */

void codec_state_encode(uint8_t *out, struct str key, struct str value)
{
    uint8_t *at = out_uint(out + CRC_BYTES, state_versions.newest, 1);

    ASSERT(key.len >= 2 && key.len <= STATE_KEY_MAX);
    if (value.len > 0)
        memcpy(at, value.ptr, value.len);
    seal(out, STATE_HEAD_BYTES + value.len, key.ptr, key.len);
}

int codec_state_decode(struct str key, struct str stored, struct str *value)
{
    struct in in;
    int err = unseal(&in, key.ptr, key.len, stored, state_versions);

    if (err == 0)
        *value = (struct str){(const char *)in.at, (size_t)(in.end - in.at)};
    return err;
}

void codec_flow_key(uint8_t out[FLOW_KEY_BYTES], uint32_t id)
{
    out[0] = STATE_FLOW;
    packed_set_key(out + 1, id, 4);
}

size_t codec_flow_encode(uint8_t out[FLOW_VALUE_BYTES], const struct queue_flow *flow)
{
    const struct str names[] = {flow->tenant, flow->campaign, flow->pool, flow->signer,
                                flow->envelope};

    ASSERT(flow->priority < FLOW_PRIORITIES);
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        ASSERT(names[i].len <= (i < 3 ? FLOW_NAME_MAX : FLOW_DOMAIN_MAX));
    out[0] = flow->priority;
    return (size_t)(out_fields(out + 1, names, ARRAY_LEN(names)) - out);
}

int codec_flow_decode(struct str key, struct str value, struct queue_flow *out)
{
    const uint8_t *bytes = (const uint8_t *)value.ptr;
    struct in in = {bytes, bytes + value.len, false};
    struct str names[5] = {{0}}, unknown;
    int err;

    if (key.len != FLOW_KEY_BYTES || value.len < 1)
        return -EBADMSG;
    *out = (struct queue_flow){.id = (uint32_t)packed_key_at(key.ptr + 1, 4),
                               .priority = (uint8_t)in_uint(&in, 1)};
    err = in_fields(&in, names, ARRAY_LEN(names), &unknown);
    out->tenant = names[0];
    out->campaign = names[1];
    out->pool = names[2];
    out->signer = names[3];
    out->envelope = names[4];
    return err == 0 && out->priority >= FLOW_PRIORITIES ? -EBADMSG : err;
}

void codec_spread_key(uint8_t out[SPREAD_KEY_BYTES], enum state_kind kind, const struct msgid *id)
{
    ASSERT(kind == STATE_PART || kind == STATE_WHOLE);
    out[0] = (uint8_t)kind;
    memcpy(out + 1, id->bytes, MSGID_BYTES);
}

void codec_part_encode(uint8_t out[PART_VALUE_BYTES], const struct spread_part *part)
{
    out_uint(out_uint(out, part->flow, 4), (uint64_t)part->due_ms, 6);
}

int codec_part_decode(struct str key, struct str value, struct spread_part *out)
{
    const uint8_t *bytes = (const uint8_t *)value.ptr;
    struct in in = {bytes, bytes + value.len, false};

    if (key.len != SPREAD_KEY_BYTES)
        return -EBADMSG;
    memcpy(out->id.bytes, key.ptr + 1, MSGID_BYTES);
    out->flow = (uint32_t)in_uint(&in, 4);
    out->due_ms = (int64_t)in_uint(&in, 6);
    return in.bad ? -EBADMSG : 0; /* fields may follow */
}

/* --- tallies --- */

#define TALLY_VERSION 1
enum { TALLY_PINNED = 1 };

void codec_tally_encode(uint8_t out[TALLY_VALUE_BYTES], const struct queue_tally *tally)
{
    uint8_t *at = out_uint(out, TALLY_VERSION, 1);

    at = out_uint(at, tally->pinned ? TALLY_PINNED : 0, 1);
    for (int i = TALLY_NONE + 1; i < TALLY_COUNTS; i++)
        at = out_uint(at, tally->counts[i], 8);
    ASSERT(at == out + TALLY_VALUE_BYTES);
}

int codec_tally_decode(struct str value, struct queue_tally *out)
{
    const uint8_t *bytes = (const uint8_t *)value.ptr;
    struct in in = {bytes, bytes + value.len, false};
    struct queue_tally tally = {0};
    uint64_t version = in_uint(&in, 1);

    if (!in.bad && version != TALLY_VERSION)
        return version > TALLY_VERSION ? -EPROTO : -EBADMSG;
    tally.pinned = (in_uint(&in, 1) & TALLY_PINNED) != 0;
    for (int i = TALLY_NONE + 1; i <= TALLY_CANCELLED; i++)
        tally.counts[i] = in_uint(&in, 8);
    if (in.bad)
        return -EBADMSG;
    for (int i = TALLY_CANCELLED + 1; i < TALLY_COUNTS && in.end - in.at >= 8; i++)
        tally.counts[i] = in_uint(&in, 8); /* an earlier build has none */
    *out = tally;                          /* more may follow */
    return 0;
}

/* --- format --- */

static const char format_key[] = "format";

void codec_format_encode(uint8_t out[FORMAT_BYTES], const struct queue_format *format)
{
    uint8_t *at = out + CRC_BYTES;

    ASSERT(format->shard < format->shards);
    at = out_uint(at, format->version, 4);
    at = out_uint(at, format->shards, 4);
    at = out_uint(at, format->shard, 4);
    memcpy(at, format->id, sizeof(format->id));
    at = out_uint(at + sizeof(format->id), format->complete, 1);
    out_uint(at, format->needs, 8);
    seal(out, FORMAT_BYTES, format_key, sizeof(format_key) - 1);
}

int codec_format_decode(struct str value, struct queue_format *out)
{
    const uint8_t *bytes = (const uint8_t *)value.ptr, *id;
    struct in in = {bytes, bytes + value.len, false};
    uint32_t crc = (uint32_t)in_uint(&in, CRC_BYTES);
    struct str unknown;
    int err;

    out->needs = 0;
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
    out->needs = in_uint(&in, 8);
    err = in_fields(&in, NULL, 0, &unknown);
    return err == 0 && (out->needs & ~FORMAT_NEEDS_KNOWN) != 0 ? -EPROTO : err;
}
