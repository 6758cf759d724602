/* How keys and records look on disk (queue/DESIGN.md lists them byte by byte). Pure functions.
 *
 * Integers in values are little-endian, in keys big-endian so that they sort. Every value begins
 * with a CRC-32C over the rest of the value and its key: a record that is damaged, cut short or
 * found under another key does not match. Decoders accept any bytes and never read outside them;
 * they return 0, -EBADMSG (damaged) or -EPROTO (written by a newer version). */
#ifndef HAYAUMA_QUEUE_CODEC_H
#define HAYAUMA_QUEUE_CODEC_H

#include "queue/message.h"

/* class 1, name, NUL, then the tail: priority 1, due_ms 6, message id 16, index 3 */
#define ROW_KEY_TAIL  26
#define ROW_KEY_MAX   (1 + QUEUE_NAME_MAX + 1 + ROW_KEY_TAIL)
#define ROW_INDEX_MAX 0xffffffu

/* Rows that were due when their message was made come and go within a second or so. They stand
 * together in front of those that wait for later: a commit with new mail for a thousand lanes then
 * writes the same few pages, however many rows these lanes have beside. */
enum row_class { ROW_FRESH = 1, ROW_LATER = 2 };

struct row_key {
    enum row_class class;
    struct str queue; /* into the bytes parsed */
    uint8_t priority;
    int64_t due_ms;
    struct msgid id;
    uint32_t index;
};

/* Whether r can be stored: name, index, due time and lengths within the format. */
bool codec_row_valid(const struct recipient *r);
/* Writes the key; returns its length. */
size_t codec_row_key(uint8_t out[ROW_KEY_MAX], struct str queue, uint8_t priority, int64_t due_ms,
                     const struct msgid *id, uint32_t index);
bool codec_row_key_parse(struct str key, struct row_key *out);
/* What the keys of a lane's rows of a class begin with; returns its length. */
size_t codec_row_prefix(uint8_t out[ROW_KEY_MAX], enum row_class class, struct str queue);
/* The same and priority and due time: where the rows at or behind these begin. */
size_t codec_row_bound(uint8_t out[ROW_KEY_MAX], enum row_class class, struct str queue,
                       uint8_t priority, int64_t due_ms);
/* Whether the row is of message id: the same by a glance. */
static inline bool codec_row_key_of(struct str key, const struct msgid *id)
{
    return key.len >= ROW_KEY_TAIL &&
           memcmp(key.ptr + key.len - 3 - MSGID_BYTES, id->bytes, MSGID_BYTES) == 0;
}

struct row_state {
    uint8_t notify, flags;
    uint16_t attempts;
    uint32_t lifetime_s;
    int64_t last_attempt_ms;
    struct str address, orcpt, variables, last_error; /* into the value decoded */
};

size_t codec_row_bytes(const struct recipient *r);
/* out: exactly codec_row_bytes(r). */
void codec_row_encode(uint8_t *out, struct str key, const struct recipient *r);
int codec_row_decode(struct str key, struct str value, struct row_state *out) MUST_USE;

size_t codec_content_bytes(const struct message *m);
void codec_content_encode(uint8_t *out, const struct message *m);
/* fields: strings and content point into value; refs is not set. with_content: checks the content's
 * own checksum too (reads every byte of it); otherwise fields->content stays NULL. */
int codec_content_decode(const struct msgid *id, struct str value, bool with_content,
                         struct message *fields) MUST_USE;

#define REFS_BYTES 9
void codec_refs_encode(uint8_t out[REFS_BYTES], const struct msgid *id, uint32_t count);
int codec_refs_decode(const struct msgid *id, struct str value, uint32_t *count) MUST_USE;

/* Outbox: key sequence 8; value: these bytes belong at this place of this segment. */
#define OUTBOX_KEY_BYTES  8
#define OUTBOX_HEAD_BYTES 29
struct outbox_entry {
    uint64_t segment;
    int64_t start_ms; /* of the segment, part of its file's name */
    uint64_t offset;
    struct str lines;
};
void codec_sequence_key(uint8_t out[OUTBOX_KEY_BYTES], uint64_t sequence);
uint64_t codec_sequence_parse(struct str key);
/* out: OUTBOX_HEAD_BYTES + entry->lines.len */
void codec_outbox_encode(uint8_t *out, uint64_t sequence, const struct outbox_entry *entry);
int codec_outbox_decode(struct str key, struct str value, struct outbox_entry *out) MUST_USE;

/* Meta: key "format"; value: what this queue is. */
#define FORMAT_BYTES   33
#define FORMAT_VERSION 2 /* 2: rows have a class */
struct queue_format {
    uint32_t version, shards, shard;
    uint8_t id[16];   /* the same in all shards of a queue */
    uint8_t complete; /* shard 0 only: all shards exist */
};
void codec_format_encode(uint8_t out[FORMAT_BYTES], const struct queue_format *format);
/* -EPROTO: of another version, out->version. */
int codec_format_decode(struct str value, struct queue_format *out) MUST_USE;

#endif
