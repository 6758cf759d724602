/* How keys and records look on disk (queue/DESIGN.md lists them byte by byte). Pure functions.
 *
 * Integers in values are little-endian, in keys big-endian so that they sort. Every value begins
 * with a CRC-32C over the rest of the value and its key: a record that is damaged, cut short or
 * found under another key does not match. Decoders accept any bytes and never read outside them;
 * they return 0, -EBADMSG (damaged) or -EPROTO (written by a newer version). */
#ifndef HAYAUMA_QUEUE_CODEC_H
#define HAYAUMA_QUEUE_CODEC_H

#include "base/packed.h"
#include "queue/flow.h"
#include "queue/message.h"
#include "queue/state.h"
#include "queue/tally.h"

/* class 1, flow 4, name, NUL, then the tail: due_ms 6, message id 16, index 4 */
#define ROW_KEY_HEAD 5
#define ROW_KEY_TAIL 26
#define ROW_KEY_MAX  (ROW_KEY_HEAD + QUEUE_NAME_MAX + 1 + ROW_KEY_TAIL)

/* Rows that were due when their message was made come and go within a second or so. They stand
 * together in front of those that wait for later: a commit with new mail for a thousand lanes then
 * writes the same few pages, however many rows these lanes have beside. */
enum row_class { ROW_FRESH = 1, ROW_LATER = 2 };

struct row_key {
    enum row_class class;
    uint32_t flow;
    struct str queue; /* into the bytes parsed */
    int64_t due_ms;
    struct msgid id;
    uint32_t index;
};

/* Whether r can be stored: name, index, due time and lengths within the format. */
bool codec_row_valid(const struct recipient *r);
/* Writes the key; returns its length. */
size_t codec_row_key(uint8_t out[ROW_KEY_MAX], uint32_t flow, struct str queue, int64_t due_ms,
                     const struct msgid *id, uint32_t index);
bool codec_row_key_parse(struct str key, struct row_key *out);
/* What the keys of a lane's rows of a class begin with; returns its length. */
size_t codec_row_prefix(uint8_t out[ROW_KEY_MAX], enum row_class class, uint32_t flow,
                        struct str queue);
/* The same with due_ms behind: where the rows due then or later begin. */
size_t codec_row_bound(uint8_t out[ROW_KEY_MAX], enum row_class class, uint32_t flow,
                       struct str queue, int64_t due_ms);
/* The part of a valid row's key that names its lane: flow and name. */
static inline struct str codec_row_key_lane(struct str key)
{
    ASSERT(key.len > ROW_KEY_HEAD + ROW_KEY_TAIL);
    return (struct str){key.ptr + 1, key.len - 1 - 1 - ROW_KEY_TAIL};
}
/* Of such a part. */
static inline uint32_t codec_lane_flow(struct str lane)
{
    ASSERT(lane.len >= 4);
    return (uint32_t)packed_key_at(lane.ptr, 4);
}
static inline uint32_t codec_row_key_flow(struct str key)
{
    ASSERT(key.len >= ROW_KEY_HEAD);
    return codec_lane_flow((struct str){key.ptr + 1, key.len - 1});
}
/* Whether the row of key is of message id, without decoding the key. */
static inline bool codec_row_key_of(struct str key, const struct msgid *id)
{
    return key.len >= ROW_KEY_TAIL &&
           memcmp(key.ptr + key.len - 4 - MSGID_BYTES, id->bytes, MSGID_BYTES) == 0;
}

struct row_state {
    uint8_t notify, flags;
    uint16_t attempts;
    uint32_t lifetime_s;
    int64_t last_attempt_ms;
    /* Into the value decoded. unknown: the fields that this build does not know, as they lie there.
     */
    struct str address, orcpt, variables, last_error, unknown;
};

/* Values of rows, contents, flows and the format end in tagged fields: tag 1, length as a varint,
 * bytes, in order of their tags, each at most once, none that is empty. A decoder passes tags by
 * that it does not know, below FIELD_CRITICAL; one from there on is of a newer version (-EPROTO).
 * Whoever stores a row again writes the fields back that it does not know. */
#define FIELD_CRITICAL 128

size_t codec_row_bytes(const struct recipient *r);
/* out: exactly codec_row_bytes(r). */
void codec_row_encode(uint8_t *out, struct str key, const struct recipient *r);
int codec_row_decode(struct str key, struct str value, struct row_state *out) MUST_USE;

/* A content lies in pieces that LMDB stores in one page each: any free page of the file serves. In
 * runs of pages, as one large value, 50 KiB messages came to 300 a second instead of 1,975 once the
 * file had holes. What is left behind the full pieces goes with the head where both fit into a leaf
 * of the tree, else it is the last piece. */
#define PAGE_KEY_BYTES (MSGID_BYTES + 3)
#define PAGES_MAX      0xffffffu
struct content_layout {
    size_t head_bytes;  /* the record under the message's id, without the tail */
    size_t tail_bytes;  /* of the content, in that record */
    size_t piece_bytes; /* of every piece but the last */
    uint32_t pieces;    /* under id and number, from 0 */
};
/* The most that key and value have together in a leaf: two entries fit into a page. */
size_t codec_leaf_bytes(size_t lmdb_page_bytes);
/* lmdb_page_bytes: of the environment. */
struct content_layout codec_content_layout(const struct message *m, size_t lmdb_page_bytes);
static inline size_t content_piece_bytes(const struct content_layout *l, uint64_t content_len,
                                         uint32_t piece)
{
    uint64_t left = content_len - l->tail_bytes - (uint64_t)piece * l->piece_bytes;

    ASSERT(piece < l->pieces && left > 0);
    return left < l->piece_bytes ? (size_t)left : l->piece_bytes;
}
void codec_page_key(uint8_t out[PAGE_KEY_BYTES], const struct msgid *id, uint32_t piece);
/* Whether key is of a piece of message id. */
static inline bool codec_page_key_of(struct str key, const struct msgid *id)
{
    return key.len == PAGE_KEY_BYTES && memcmp(key.ptr, id->bytes, MSGID_BYTES) == 0;
}
/* out: head_bytes + tail_bytes. */
void codec_content_encode(uint8_t *out, const struct message *m, const struct content_layout *l,
                          bool prepared);
/* What the record of a content says. */
struct content_record {
    struct str tail;
    uint32_t crc;  /* CRC-32C of the whole content */
    bool prepared; /* whether it is mail is not decided: spread.h */
};
/* fields: strings point into value; refs and content are not set. record may be NULL. */
int codec_content_decode(const struct msgid *id, struct str value, struct message *fields,
                         struct content_record *record) MUST_USE;

/* A prepared one is mail from now on. As codec_content_decode(). */
int codec_content_whole(const struct msgid *id, uint8_t *value, size_t len) MUST_USE;
/* It was made at created_ms. As codec_content_decode(). */
int codec_content_recreate(const struct msgid *id, uint8_t *value, size_t len,
                           int64_t created_ms) MUST_USE;

#define REFS_BYTES 13
void codec_refs_encode(uint8_t out[REFS_BYTES], const struct msgid *id, uint64_t count);
int codec_refs_decode(const struct msgid *id, struct str value, uint64_t *count) MUST_USE;

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

/* State: key kind 1 and what names it within; value: what whoever put it knows. */
#define STATE_HEAD_BYTES 5
void codec_state_encode(uint8_t *out, struct str key, struct str value); /* STATE_HEAD_BYTES more */
int codec_state_decode(struct str key, struct str stored, struct str *value) MUST_USE;

/* A flow is the state under STATE_FLOW and its id. */
#define FLOW_KEY_BYTES   5
#define FLOW_VALUE_BYTES (1 + 3 * (2 + FLOW_NAME_MAX) + 2 * (3 + FLOW_DOMAIN_MAX))
void codec_flow_key(uint8_t out[FLOW_KEY_BYTES], uint32_t id);
size_t codec_flow_encode(uint8_t out[FLOW_VALUE_BYTES], const struct queue_flow *flow);
/* Names point into value. */
int codec_flow_decode(struct str key, struct str value, struct queue_flow *out) MUST_USE;

/* A message in several shards: the state under STATE_PART or STATE_WHOLE and its id. */
#define SPREAD_KEY_BYTES (1 + MSGID_BYTES)
#define PART_VALUE_BYTES 10
struct spread_part {
    struct msgid id;
    uint32_t flow;  /* of all its rows, */
    int64_t due_ms; /* as is this: that is where they are */
};
void codec_spread_key(uint8_t out[SPREAD_KEY_BYTES], enum state_kind kind, const struct msgid *id);
void codec_part_encode(uint8_t out[PART_VALUE_BYTES], const struct spread_part *part);
int codec_part_decode(struct str key, struct str value, struct spread_part *out) MUST_USE;

/* A tally is the state under STATE_TALLY and its content's id: queue_tally_key(). */
#define TALLY_VALUE_BYTES (2 + 8 * (TALLY_COUNTS - 1))
void codec_tally_encode(uint8_t out[TALLY_VALUE_BYTES], const struct queue_tally *tally);
/* -EPROTO: of a newer version. */
int codec_tally_decode(struct str value, struct queue_tally *out) MUST_USE;

/* Meta: key "format"; value: what this queue is. */
#define FORMAT_BYTES   41
#define FORMAT_VERSION 3u
#define FORMAT_DRAFT                                                                               \
    0x80000000u /* in the version of queues of builds before the format was final */
/* What a build has to know to open a queue, a bit each. A later build that stores what an earlier
 * one must not pass by gives it a bit, and sets that before (queue/DESIGN.md, section 7). */
#define FORMAT_NEEDS_RECIPES UINT64_C(1) /* contents with MESSAGE_RECIPE */
#define FORMAT_NEEDS_KNOWN   FORMAT_NEEDS_RECIPES
struct queue_format {
    uint32_t version, shards, shard;
    uint8_t id[16];   /* the same in all shards of a queue */
    uint8_t complete; /* shard 0 only: all shards exist */
    uint64_t needs;
};
void codec_format_encode(uint8_t out[FORMAT_BYTES], const struct queue_format *format);
/* -EPROTO: of another version, out->version; or of this one, and it needs what this build does not
 * know, out->needs. */
int codec_format_decode(struct str value, struct queue_format *out) MUST_USE;

#endif
