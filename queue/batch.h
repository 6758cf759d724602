/* Private to queue/: a write transaction on its way, and what is written of contents and tallies
 * in it. All return LMDB codes. */
#ifndef HAYAUMA_QUEUE_BATCH_H
#define HAYAUMA_QUEUE_BATCH_H

#include "queue/shard.h"

/* How many rows of one message of many recipients came and went, and what they count as, summed
 * over the batch. */
struct refs_delta {
    struct map_node node;
    struct refs_delta *next;
    struct msgid id;
    int64_t delta;
    bool tallied;                      /* counts has something */
    uint64_t counts[TALLY_COUNTS - 1]; /* without TALLY_NONE */
    struct sheet *sheet;               /* with what the batch adds; NULL: nothing */
    bool sheet_later;                  /* a later build's: it stays as it is */
};

struct batch {
    struct shard *shard;
    MDB_txn *txn;
    MDB_cursor *rows, *content, *pages; /* end with txn */
    struct map refs;
    struct refs_delta *refs_list;
    struct buf flows_new;     /* ids of flows whose records this transaction brings */
    struct buf kept, cleared; /* for remains.c: places of entries, and chunks, 4 bytes each */
    uint64_t room_bytes;
    bool recreated; /* some content was made at another time: what is cached of it is stale */
};

/* --- batch_lane.c --- */

/* The cursor rows is at the last of run rows that came at the end of their lane, where more will
 * come: sees to it that LMDB fills the pages that the lane leaves behind. Moves the cursor. */
int batch_lane_end(struct batch *b, size_t run);

/* --- batch_content.c --- */

int batch_put_pages(struct batch *b, const struct message *m);
int batch_put_head(struct batch *b, const struct message *m, bool prepared);
/* Its pieces may stay for a while: remains.h. */
int batch_delete_content(struct batch *b, const struct msgid *id);
int batch_delete_pages(struct batch *b, const struct msgid *id);
/* What was prepared is mail from now on. */
int batch_content_whole(struct batch *b, const struct msgid *id);
/* The content was made at created_ms. */
int batch_content_recreate(struct batch *b, const struct msgid *id, int64_t created_ms);

/* --- tally.c --- */

/* Adds counts (without TALLY_NONE) to a tally. MDB_NOTFOUND: there is none. */
int batch_tally_count(struct batch *b, const struct msgid *id,
                      const uint64_t counts[TALLY_COUNTS - 1]);
/* A new tally, pinned. */
int batch_tally_pin(struct batch *b, const struct msgid *id);
/* *was: whether it was pinned. */
int batch_tally_unpin(struct batch *b, const struct msgid *id, bool *was);

/* --- sheet_store.c --- */

/* Counts a note in the batch's sheet of a content. */
int batch_sheet_note(struct batch *b, struct refs_delta *d, const struct queue_note *note,
                     enum tally_count count, int64_t since_ms);
/* Puts that sheet, if there is one. */
int batch_sheet_put(struct batch *b, const struct refs_delta *d);

#endif
