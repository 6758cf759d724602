/* Private to queue/: exact numbers of rows per lane.
 *
 * Memory only. After start the committer counts the rows tree in slices between its batches: what
 * lies before the position reached is counted and kept exact by what the batches change; what lies
 * behind it will be counted when the position gets there. So no long read transaction is needed and
 * nothing waits for the count.
 *
 * Threads: the committer changes, any thread reads; one mutex, held for one batch or one lookup.
 * Memory: COUNTS_LANES_MAX lanes. When there are more the small ones are forgotten: those of one
 * row, then those of two, and so on, until a quarter of the places is free. Rows that a lane got
 * before it was forgotten are not counted any more, so that its count is not complete; counts of
 * large lanes are. Rows of flows are counted in the table of flows, which forgets none. */
#ifndef HAYAUMA_QUEUE_COUNTS_H
#define HAYAUMA_QUEUE_COUNTS_H

#include <pthread.h>

#include "base/map.h"
#include "queue/codec.h"
#include "queue/flows.h"

#define COUNTS_LANES_MAX (1u << 16)

struct counts {
    pthread_mutex_t lock; /* protects everything below */
    struct map lanes;
    struct flows *flows; /* rows of each are counted, too; NULL: of none */
    uint64_t seed;
    bool complete;         /* the position is behind the last row */
    uint64_t small;        /* lanes of so many rows, or fewer, have been forgotten; 0: none */
    uint16_t position_len; /* rows with keys below position are counted */
    /* A damaged key may be longer than any row's. Its beginning is kept then, one byte more than a
     * row's key has, so that no row is at that position. */
    uint8_t position[ROW_KEY_MAX + 1];
};

int counts_init(struct counts *c, struct flows *flows) MUST_USE;
void counts_done(struct counts *c);
/* The caller holds the lock around a run of these. */
void counts_lock(struct counts *c);
void counts_unlock(struct counts *c);
/* The row of key appeared (+1) or went (-1): counts when the key is before the position. */
void counts_change(struct counts *c, struct str key, int delta);
/* lane: as codec_row_key_lane() names it. rows more of it were found by the count; it may be empty
 * for "none". */
void counts_found(struct counts *c, struct str lane, uint64_t rows);
void counts_advance(struct counts *c, struct str key_behind);
void counts_finish(struct counts *c);
uint64_t counts_get(struct counts *c, struct str lane, bool *complete);
bool counts_complete(struct counts *c);

#endif
