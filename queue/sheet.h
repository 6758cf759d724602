/* Sheets: what became of the mail of a content that has a tally, in more detail than its counts: by
 * site and reason, over time, and how long deliveries took. Each shard stores one under
 * STATE_SHEET and the content's id, and changes it in the transaction of the rows. So its sums are
 * those of the tally, from the build on that began to keep sheets.
 *
 * A sheet is bounded: some 4 KiB at most as it is stored. Sites with much mail have names, the
 * others are counted together (the algorithm "Space Saving": a site that has a share of more than
 * 1/SHEET_SITES_MAX of what happened has a name, whenever it came; what was counted before it had
 * one stands with the others). Buckets of time become twice as wide when there are too many. */
#ifndef HAYAUMA_QUEUE_SHEET_H
#define HAYAUMA_QUEUE_SHEET_H

#include "base/buf.h"
#include "base/msgid.h"
#include "queue/tally.h"

#define SHEET_SITES_MAX 32
#define SHEET_NAME_MAX  47 /* bytes of a site's name; what is longer is cut */
#define SHEET_REASONS   32
#define SHEET_NAMED_MAX 192 /* cells of sites with a name; others are counted without the site */
#define SHEET_CELLS_MAX (SHEET_NAMED_MAX + TALLY_COUNTS * SHEET_REASONS)
#define SHEET_BUCKETS   96
#define SHEET_WIDTH_MAX 24              /* 194 days a bucket */
#define SHEET_OTHERS    SHEET_SITES_MAX /* the site of a cell */

/* What is counted over time. Stored: series stand in this order. */
enum sheet_series { SHEET_DELIVERED, SHEET_ENDED, SHEET_DEFERRED, SHEET_SERIES };

/* How long a delivery took from the content's creation (a campaign's start) on: less than so many
 * seconds. Stored by place: the last one is for all that took longer. */
#define SHEET_SPANS 21
extern const uint32_t sheet_span_s[SHEET_SPANS - 1];

struct sheet {
    struct sheet_site {
        uint64_t rank; /* what Space Saving goes by: not less than what was counted */
        uint8_t len;
        char name[SHEET_NAME_MAX];
    } sites[SHEET_SITES_MAX];
    struct sheet_cell {
        uint8_t site;   /* or SHEET_OTHERS */
        uint8_t count;  /* enum tally_count */
        uint8_t reason; /* the caller's; below SHEET_REASONS */
        uint64_t n;
    } cells[SHEET_CELLS_MAX];
    uint32_t sites_len, cells_len, cells_named;
    /* Bucket i has what happened from (first + i) << width on, in seconds of the wall clock. */
    uint8_t width;
    uint32_t buckets_len;
    uint64_t first;
    uint64_t buckets[SHEET_BUCKETS][SHEET_SERIES];
    uint64_t spans[SHEET_SPANS];
};

/* Goes with a row of a change whose content has a tally. */
struct queue_note {
    uint32_t row; /* of the change; it counts as the row does, if it does */
    uint8_t reason;
    uint8_t site_len;
    char site[SHEET_NAME_MAX]; /* empty: none was found */
    int64_t at_ms;             /* wall clock */
};

void sheet_init(struct sheet *s);
/* since_ms: when the content was made. */
void sheet_count(struct sheet *s, const struct queue_note *note, enum tally_count count,
                 int64_t since_ms);
/* Adds what from has. */
void sheet_add(struct sheet *s, const struct sheet *from);

void sheet_encode(struct buf *out, const struct sheet *s);
/* 0, -EBADMSG; -EPROTO: of a newer version. out is undefined then. */
int sheet_decode(struct str value, struct sheet *out) MUST_USE;

/* The key of a sheet's state, for who makes it go. */
#define SHEET_KEY_BYTES (1 + MSGID_BYTES)
void queue_sheet_key(uint8_t out[SHEET_KEY_BYTES], const struct msgid *id);
/* The sum of all shards; what is damaged is left out. Any thread but a worker. 0, -ENOMEM, -EIO. */
int queue_sheet_get(struct queue *q, const struct msgid *id, struct sheet *out) MUST_USE;

#endif
