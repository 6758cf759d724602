/* Pieces of contents whose message has gone, which stay in the store until the pages beside theirs
 * are free as well.
 *
 * A page that is freed between two that stay is a hole. LMDB uses what was freed first, wherever it
 * is, so a backlog of which a part has gone makes each page of a new content a write of its own, in
 * another folio of the page cache (DESIGN.md, "What holes cost"). So a small content that has
 * waited leaves its head at once, and its pieces when the whole chunk of the file in which they lie
 * has nothing any more: then 32 pages come free together. What goes within seconds, as most mail
 * does, lies in runs anyway (holes.c) and is freed at once, but for what lies where something is
 * kept.
 *
 * What is kept so is no loss of space for long: the file may become longer by GROWTH for it, and
 * for each page beyond two of these are freed. Where map or disk become scarce nothing is kept, and
 * all is freed, by housekeeping too.
 *
 * In memory are counts of each chunk, and what is kept there: 8 bytes for 128 KiB of the file, 32
 * for each content, at most 2^18. What is kept is written down (STATE_REMAINS) in the transaction
 * that settles it, so that the next start knows it: it frees all that an earlier process has left,
 * a little at a time. When a transaction fails, all is forgotten, and freed in the same way.
 *
 * The committer's. */
#ifndef HAYAUMA_QUEUE_REMAINS_H
#define HAYAUMA_QUEUE_REMAINS_H

#include <lmdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/msgid.h"

struct batch;
struct message;
struct shard;
struct remain;
struct remains_record;

struct remains_chunk {
    uint32_t first; /* of the kept ones, a place in entries; REMAINS_NONE: there is none */
    uint16_t live;  /* contents that begin here, were put by this process, and have not gone */
};

#define REMAINS_NONE UINT32_MAX

struct remains {
    struct remains_chunk *chunks;
    size_t chunks_len, hand; /* hand: where the next are freed */
    struct remain *entries;
    uint32_t entries_max, spare; /* spare: the first unused place */
    uint32_t len;                /* contents that are kept */
    uint64_t pages;              /* their pieces */
    uint64_t number;             /* of the next record */
    uint64_t left_until;         /* records below were left by an earlier process */
    bool left;                   /* there may be some */
    uint64_t left_next_ns;       /* when the next of these is freed */
    uint64_t end_bytes;          /* the file may become so long */
    uint64_t owed;               /* pages that are to be freed since it is longer */
    bool room;                   /* this batch may keep something */
    /* What is younger goes at once; so does everything where less of the map was never used. For
     * tests to change. */
    int64_t age_ms_min;
    uint64_t unused_bytes_min;
};

/* Looks what an earlier process has left; an LMDB code. */
int remains_open(struct shard *s, MDB_txn *txn);
void remains_done(struct remains *r);
/* All of the last transaction is void: so is what memory knows. */
void remains_forget(struct shard *s);
/* The transaction has committed. */
void remains_committed(struct shard *s);
/* Whether room is short while something is kept: it is to be freed, whether there are commits or
 * not. */
bool remains_wanted_back(const struct shard *s);

/* A transaction begins. */
void batch_remains_begin(struct batch *b);
/* The first piece of a content was put. */
void batch_remains_put(struct batch *b, const MDB_val *value);
/* The pieces of a content whose head has gone are kept (*kept), or have to be deleted. An LMDB
 * code. */
int batch_remains_keep(struct batch *b, const struct msgid *id, bool *kept);
/* Deletes what need not be kept any more, and writes down what is. An LMDB code. */
int batch_remains_end(struct batch *b);

#endif
