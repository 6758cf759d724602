/* Private to queue/: one shard, that is one LMDB environment with its committer and loader.
 *
 * Ownership: fields are grouped by the thread that may touch them. The committer is the only writer
 * of the environment; everybody else reads it through short read transactions of its own. */
#ifndef HAYAUMA_QUEUE_SHARD_H
#define HAYAUMA_QUEUE_SHARD_H

#include <lmdb.h>
#include <pthread.h>

#include "queue/check.h"
#include "queue/codec.h"
#include "queue/cores.h"
#include "queue/counts.h"
#include "queue/flows.h"
#include "queue/mailbox.h"
#include "queue/queue.h"
#include "queue/records.h"
#include "queue/remains.h"

#define SHARDS_MAX      256
#define READERS_MAX     256 /* at once: loader, crew and HTTP threads, an operator's mdb_stat */
#define BALLAST_BYTES   (4u << 20)
#define WAIT_COMPANY_NS UINT64_C(20000000) /* what nobody waits for may wait this long */

#define BATCH_ROWS_MAX 16384 /* bounds the dirty pages of a transaction */

/* The loader keeps recent messages of many recipients, whose rows then share one struct message. */
#define LOADER_CACHE_SLOTS     16
#define LOADER_CACHE_BYTES_MAX (8u << 20)

/* A bad record that a reader found; the committer moves the row to the quarantine tree. */
struct suspect {
    struct list_node node;
    const char *reason; /* static */
    bool moved;         /* out */
    bool named; /* the quarantine has it; a row that cannot be moved is named there all the same */
    uint32_t key_len;
    uint8_t key[];
};

struct shard {
    struct queue *queue;
    uint32_t index;
    char *path;
    struct queue_options options; /* the queue's, defaults filled in */

    MDB_env *env;
    MDB_dbi content, pages, rows, refs, outbox, meta, quarantine, state;
    unsigned page_bytes;
    void *map;    /* where the data file is mapped, or NULL */
    int probe_fd; /* same data file, other descriptor: see shard_commit_verdict() */
    int dir_fd;

    struct mailbox urgent;  /* of struct queue_change, to the committer */
    struct mailbox patient; /* of struct queue_change that may wait for company, to the committer */
    struct mailbox suspects; /* of struct suspect, to the committer */
    struct mailbox loads;    /* of struct queue_load, to the loader */
    struct mailbox directories, walks;
    int committer_event, loader_event; /* eventfds; -1 without threads */
    pthread_t committer_thread, loader_thread;
    bool committer_started, loader_started;
    _Atomic bool stop_committer, stop_loader;

    struct {                         /* the committer's */
        struct list urgent, patient; /* taken from the mailbox, each in order */
        size_t urgent_len, patient_len;
        struct list suspects;
        uint64_t company_until_ns; /* when the patient ones are taken; 0: there are none */
        uint64_t room_bytes;       /* map space left, reusable pages included (an estimate) */
        uint64_t reusable_bytes;   /* part of room_bytes, counted last; 0: no need to count */
        uint64_t rows_bytes;       /* pages of the rows tree */
        uint64_t space_checked_ns, kept_ns, counted_ns; /* when these were last looked at */
        uint64_t rest_until_ns;                         /* after a commit of many */
        size_t last_urgent_len;   /* how many urgent changes the last commit had */
        size_t last_patient_rows; /* of the last changes that waited for company */
        bool ballast;             /* the emergency space is there */
        uint64_t *flows;          /* bit per flow id: its record is stored here */
        size_t flows_words;
        struct {
            uint64_t used, far; /* pages of contents since the last look; not near the one before */
            uint64_t made, breaks; /* for holes_gather(): pages, and those not behind the last */
            uint64_t batch_last;   /* the last page of this batch; 0: none */
            bool turned;           /* a page's number was below that of the last */
            uint64_t page_last;
            uint64_t rest_until_ns; /* no order is made before */
        } holes;                    /* see holes.c */
        struct remains remains;
    } own;

    struct counts counts;   /* rows per lane; has its own lock */
    struct records records; /* the record stream; committer and syncer, has its own lock */

    struct {          /* the loader's */
        MDB_txn *txn; /* NULL until the first use, reset between slices */
        struct message *cache[LOADER_CACHE_SLOTS];
        unsigned cache_next;
        uint64_t cache_bytes;
        uint32_t recreated; /* shared.recreated, as the cache knows it */
    } loader;

    struct { /* written by the committer, read by anybody; relaxed, since each stands alone */
        _Alignas(CACHE_LINE_BYTES) _Atomic int intake; /* enum queue_intake */
        _Atomic bool failed;                           /* release: the reason is in place */
        _Atomic uint64_t rows, messages, pieces, commits, changes, commit_ns_total, sync_ns_last;
        _Atomic uint64_t batch_last, quarantined, commit_errors, map_used_bytes;
        _Atomic uint64_t disk_free_bytes, notice_room_bytes;
        _Atomic uint32_t recreated; /* commits that changed when contents were made; release */
    } shared;
};

struct queue {
    struct queue_options options;
    char *path, *records_path;
    int lock_fd, records_lock_fd; /* both held by flock() */
    int statm_fd;                 /* the process's sizes, or -1 */
    struct cores cores;           /* the syncer's */
    _Atomic bool cores_busy;      /* as the syncer saw it last; relaxed, a hint to committers */
    uint64_t check_until_ns;      /* the start checks the pages of files until then */
    uint32_t shards_len;
    struct shard **shards;
    struct flows flows;
    pthread_t syncer_thread;
    bool syncer_started;
    pthread_mutex_t syncer_lock; /* with syncer_wake: only to stop the syncer early */
    pthread_cond_t syncer_wake;
    bool syncer_stop; /* under syncer_lock */
    unsigned pumps;   /* without threads */
};

enum port_kind { PORT_CHANGES, PORT_LOADS, PORT_DIRECTORIES, PORT_WALKS, PORT_KINDS };

struct queue_port {
    struct queue *queue;
    void (*wake)(void *arg);
    void *wake_arg;
    size_t pending;           /* the port's thread only */
    bool ending;              /* likewise: nothing is tried again */
    _Atomic uint32_t handing; /* queue threads about to wake the port: it must not be freed yet */
    struct list taken[PORT_KINDS]; /* likewise: ended, and left by a poll to the next */
    enum port_kind turn;           /* likewise: of which one comes next */
    struct mailbox ended[PORT_KINDS];
};

/* --- shard.c --- */

/* Opens or creates the environment of shard index. format->id: the queue's; format->complete is set
 * for a shard 0 that says that all others exist. *error as queue_open(). */
int shard_open(struct shard **out, struct queue *q, uint32_t index, struct queue_format *format,
               const char **error) MUST_USE;
int shard_write_format(struct shard *s, const struct queue_format *format) MUST_USE;
/* Within a write transaction: who opens the queue must know need, from here on. An LMDB code. */
int shard_need(struct shard *s, MDB_txn *txn, uint64_t need) MUST_USE;
void shard_close(struct shard *s);
/* Makes the name of path durable: syncs the directory that it is in. */
int sync_name(const char *path) MUST_USE;
/* 0 or a negative errno for LMDB's code. */
int lmdb_errno(int rc);
/* After mdb_txn_commit() failed with rc (already negative errno): -ENOSPC when space ran out,
 * -ENOMEM, or -ESHUTDOWN when the device failed. */
int shard_commit_verdict(struct shard *s, int err);
/* How much of the map must be left to settles without notices: by acceptance (accepting), or by
 * settles with notices. */
uint64_t shard_leaves_bytes(const struct shard *s, bool accepting);
/* How the rows tree is now. */
void shard_rows_are(struct shard *s, const MDB_stat *rows);
/* Map space left, as known now; says what of it notices may have. */
void shard_set_room(struct shard *s, uint64_t room_bytes);
/* Looks at free map and disk space and sets intake; now_ns: monotonic. */
void shard_check_space(struct shard *s, uint64_t now_ns);
/* Whether the process holds more than rss_bytes_max of files, the store's maps nearly all of them.
 */
bool maps_are_large(const struct queue *q);
/* Gives the map's pages back. The map is shared and read-only: dropping loses nothing, a reader
 * faults them in again from the page cache. */
void shard_trim(struct shard *s);
/* Pages that the next transaction may use again. txn: a reader's. */
uint64_t shard_reusable_pages(struct shard *s, MDB_txn *txn);
/* Whether a value that a read transaction returned lies in the used part of the map: a damaged page
 * may say anything, and a read behind the file's end is a SIGBUS. */
bool shard_readable(const struct shard *s, const MDB_val *value);
/* Whether a value that a write transaction returned was written by it: such values are not in the
 * map. */
bool shard_written(const struct shard *s, const MDB_val *value);
/* Whether LMDB may free a value of a write transaction: of a large one it frees as many pages as
 * their header says, which check_file() has not read. */
bool shard_can_free(const struct shard *s, const MDB_val *value);
/* Map that was never used. */
uint64_t shard_unused_bytes(struct shard *s);
/* The emergency space for settling on a full disk: a file that is cut when the disk is full. */
void shard_ballast_keep(struct shard *s);
bool shard_ballast_drop(struct shard *s);
void shard_fail(struct shard *s);
void shard_suspect(struct shard *s, struct str key, const char *reason);

static inline struct shard *shard_at(const struct queue *q, uint32_t shard)
{
    ASSERT(shard < q->shards_len);
    return q->shards[shard];
}

static inline struct str val_str(const MDB_val *v)
{
    return (struct str){v->mv_data, v->mv_size};
}

static inline MDB_val str_val(struct str s)
{
    return (MDB_val){s.len, (void *)(uintptr_t)s.ptr};
}

/* --- batch.c: one write transaction --- */

/* Whether c brings mail from outside, rather than settles mail that is here, with its notices. */
bool change_accepts(const struct queue_change *c);

/* Tries all of changes in one synced transaction. 0: committed, results set. Otherwise nothing is
 * stored; *failed is the change that could not be applied, or NULL when the commit itself failed.
 */
int batch_commit(struct shard *s, struct list *changes, struct queue_change **failed) MUST_USE;
/* A transaction for housekeeping: outbox entries that are synced go, suspects are moved. */
int batch_housekeeping(struct shard *s, struct list *suspects) MUST_USE;

/* --- holes.c: the committer's --- */

/* A value of a write transaction was made: counts where its page is. */
void holes_note(struct shard *s, const MDB_val *value);
/* Whether the pages that were used of late lie all over the file. */
bool holes_want_order(struct shard *s, uint64_t now_ns);
/* At the beginning of a transaction: where pages of late came in short runs, has it take longer
 * ones. An LMDB code. */
int holes_gather(struct shard *s, MDB_txn *txn) MUST_USE;
/* Has free pages used in the order of their numbers: a transaction of its own. 0 or -errno;
 * -ESHUTDOWN: the shard has failed. */
int holes_order(struct shard *s) MUST_USE;

/* --- state.c --- */

/* Within a write transaction; *value until it ends, or the state changes. 0, or an LMDB code;
 * MDB_NOTFOUND: there is none, or it is damaged. */
int state_read(struct shard *s, MDB_txn *txn, struct str key, struct str *value);
/* Within a write transaction. An LMDB code. */
int state_apply(struct shard *s, MDB_txn *txn, const struct queue_state *state);
/* The same. */
int state_remove_range(struct shard *s, MDB_txn *txn, struct queue_states_range *range);
/* Whether there is any of kind. An LMDB code. */
int state_any(struct shard *s, MDB_txn *txn, enum state_kind kind, bool *any);
/* The flows that the shard has stored come into the queue's table. 0 or -errno. */
int state_load_flows(struct shard *s) MUST_USE;
/* Whether flow's record is stored here as far as the committer knows. */
bool state_flow_stored(const struct shard *s, uint32_t flow);
/* flow's record is stored here from now on. */
int state_flow_mark(struct shard *s, uint32_t flow) MUST_USE;
/* flow's record is not stored here after all. */
void state_flow_unmark(struct shard *s, uint32_t flow);

/* --- spread.c --- */

/* Finishes or drops what a process that died left between. Before threads run. 0 or -errno. */
int spread_settle(struct queue *q) MUST_USE;

/* --- committer.c --- */

void *committer_main(void *shard);
/* Commits what was submitted, as one round of the thread; now: also what waits for company. Returns
 * how many changes ended. */
size_t committer_round(struct shard *s, bool now);
bool committer_wanted(const struct shard *s);
void committer_wake(struct shard *s);

/* --- loader.c --- */

void *loader_main(void *shard);
size_t loader_round(struct shard *s);
void loader_wake(struct shard *s);
void loader_done(struct shard *s);

/* --- contents.c --- */

/* Reads a message's head, without content; strings lie in the map. *bytes: what
 * read_stored_message() would give, if the head can be read. 0, -ENOENT, -EBADMSG, -EPROTO;
 * -EAGAIN: the message is prepared only, and no mail yet, see spread.h; header is set. */
int read_header(struct shard *s, MDB_txn *txn, const struct msgid *id, struct message *header,
                uint64_t *bytes);
/* Reads a message with its content within txn. NULL: *err is -ENOMEM, -EAGAIN as above, or -ENOENT,
 * -EBADMSG, -EPROTO when what is stored is at fault. */
struct message *read_message(struct shard *s, MDB_txn *txn, const struct msgid *id, int *err);
/* Reads a message as read_message(), but without content. */
struct message *read_header_alone(struct shard *s, MDB_txn *txn, const struct msgid *id, int *err);
/* The record as it is stored and all pieces behind it, as the content of a message of which only
 * the id is set. */
struct message *read_stored_message(struct shard *s, MDB_txn *txn, const struct msgid *id,
                                    int *err);

/* --- visit.c --- */

void cursor_set(struct queue_cursor *cursor, struct str key);
/* at: behind cursor, or at the first record when that is at its beginning. An LMDB code. */
int cursor_seek(MDB_cursor *at, struct queue_cursor *cursor, MDB_val *key, MDB_val *value);

/* --- syncer.c: one thread for all shards --- */

void *syncer_main(void *queue);
void syncer_round(struct queue *q);

/* --- port.c: handing back --- */

/* changes: results set; of any ports. Empties the list. */
void port_changes_done(struct list *changes);
void port_loads_done(struct queue_port *port, struct list *loads);
void port_directory_done(struct queue_directory *directory, int result);
void port_walk_done(struct queue_walk *walk, int result);

#endif
