/* Private to queue/: the record stream of one shard.
 *
 * A transaction that carries record lines also stores, in the outbox tree, which bytes belong at
 * which place of which segment file. After the commit the lines are written there; the syncer syncs
 * the files once a second, or sooner when 1 MiB waits; a later transaction deletes the outbox
 * entries that are synced. After a crash every entry left is written again at its place, which
 * changes nothing where it had arrived. So each line is in the stream exactly once, and the window
 * in which a line may be missing from the files (never from the store) is the time since the last
 * sync.
 *
 * Threads: the committer stages, writes, rotates and trims; the syncer syncs, compresses and
 * deletes closed segments. The lock protects what is marked so; it is never held over I/O. */
#ifndef HAYAUMA_QUEUE_RECORDS_H
#define HAYAUMA_QUEUE_RECORDS_H

#include <dirent.h>
#include <lmdb.h>
#include <pthread.h>

#include "base/buf.h"
#include "base/list.h"
#include "queue/codec.h"
#include "queue/queue.h"

struct shard;

struct segment {
    struct list_node node; /* in closed */
    uint64_t number;
    int64_t start_ms;
    uint64_t end;           /* where the next line goes; the committer's */
    int fd;                 /* -1 until the first write succeeded to open it */
    bool entry_synced;      /* the directory entry; the syncer's */
    bool synced;            /* closed and synced; the syncer's */
    uint64_t sequence_last; /* last outbox entry with lines of it */
};

struct records {
    struct records_options options; /* path NULL: records are dropped */
    uint32_t shard;
    int dir_fd;
    bool no_sync;

    /* The committer's. */
    struct buf staged;        /* lines of the transaction being made */
    uint64_t staged_sequence; /* last entry of the transaction being made */
    bool unwritten;           /* it has committed, and its lines are still only staged */
    uint64_t sequence;        /* last entry committed */
    uint64_t trimmed;         /* entries up to it are deleted */
    uint64_t number;          /* of the newest segment */
    bool behind;              /* a write failed: records_catch_up() has to do it */

    pthread_mutex_t lock;   /* protects the rest, and fd and sequence_last of segments */
    struct segment *active; /* NULL between segments; changed by the committer only */
    struct list closed;     /* of struct segment, oldest first: to sync, then to finish */
    uint64_t written;       /* entries up to it were written to their files */
    uint64_t synced;        /* ... and synced */
    uint64_t finished;      /* copy of trimmed: closed segments up to it may be finished */
    uint64_t number_next;   /* segments below it and not in closed belong to the past */
    uint64_t bytes_committed, bytes_synced; /* for the lag */
    uint64_t sequence_at_start;             /* entries up to it are of an earlier start; constant */
    uint64_t number_at_start;               /* so are segments up to it; constant */
    int write_error, sync_error;            /* errno of what fails now; 0: nothing */
    bool rewrite; /* a sync failed: everything after synced must be written again */
    bool removed; /* somebody deleted the active segment's file: what follows needs another */

    /* The syncer's. */
    int64_t finished_ms;          /* last look at the directory */
    int64_t looked_ms, jumped_ms; /* last look at the clock, and where a jump of it led; 0: none */
    bool finish_now;              /* a segment was closed since */
};

#define RECORDS_NAME_BYTES 96
struct records_file {
    char name[RECORDS_NAME_BYTES];
    int64_t start_ms, modified_ms;
    uint64_t number, bytes;
    bool compressed;
};
/* Files of this shard, in the directory's order. NULL when it cannot be read. */
DIR *records_dir_open(const struct records *r);
bool records_dir_next(const struct records *r, DIR *dir, struct records_file *out);

/* Opens options.path, made when missing, as dir_fd; another thread may be using the one before. */
int records_dir_reopen(struct records *r) MUST_USE;
int records_init(struct records *r, const struct queue_options *options, uint32_t shard) MUST_USE;
/* After a start: writes every entry of the outbox to its place, syncs, cuts what lies behind, and
 * deletes the entries in a transaction of its own. A full disk is no error: it is tried again
 * later. An LMDB code. */
int records_replay(struct shard *s) MUST_USE;
void records_done(struct records *r);

/* --- committer --- */

/* Adds lines to the transaction being made. 0 or -ENOMEM. */
int records_stage(struct records *r, const struct buf *lines) MUST_USE;
/* Stores the staged lines in the outbox within txn, in entries that fill a page each; an LMDB code.
 */
int records_put(struct shard *s, MDB_txn *txn) MUST_USE;
void records_unstage(struct records *r);
/* The transaction has committed. */
void records_committed(struct records *r);
/* Writes its lines, before the next transaction begins. Failure leaves them to records_catch_up().
 */
void records_write(struct records *r);
/* Deletes synced entries within txn; *trimmed is for records_trimmed() after the commit. */
int records_trim(struct shard *s, MDB_txn *txn, uint64_t *trimmed) MUST_USE;
void records_trimmed(struct records *r, uint64_t trimmed);
bool records_want_trim(struct records *r);
/* Whether lines are in the outbox that are not in their files though they should be. */
bool records_behind(struct records *r);
/* Writes them, from the outbox; what fails stays behind. */
void records_catch_up(struct shard *s);
/* Closes the active segment when it is full, old or its file gone; between transactions. */
void records_rotate(struct records *r, int64_t wall_ms);

/* --- syncer --- */

void records_sync(struct records *r);
/* Compresses and deletes closed segments by the options. */
void records_finish(struct records *r, int64_t wall_ms);
uint64_t records_lag(struct records *r);
/* Why lines cannot be written or synced now, an errno; 0: they can. Any thread. */
int records_error(struct records *r);

#endif
