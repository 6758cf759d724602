/* The durable queue: LMDB environments (shards), one committer and one loader thread each.
 *
 * A message of few recipients lives whole in one shard: its content, envelope and every recipient
 * row are committed in one synced transaction, whatever the domains (promise 1), and a notice is
 * accepted in the same transaction that ends the recipient it is about. One of many has rows in all
 * shards: spread.h.
 *
 * Threads: each thread that uses the queue opens a port. Changes and loads are submitted through
 * it and their on_done runs in the same thread, from queue_port_poll(). Rows of a shard are changed
 * only by the worker that owns the shard (and by acceptance), so that memory and store agree.
 *
 * Failure: -ENOSPC (disk or map full), -EIO (the commit failed; nothing of the change is stored),
 * -ESHUTDOWN (the shard is failed for good: a sync failed; the process must exit, queue_failed()).
 */
#ifndef HAYAUMA_QUEUE_QUEUE_H
#define HAYAUMA_QUEUE_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "queue/flow.h"
#include "queue/message.h"
#include "queue/sheet.h"
#include "queue/state.h"
#include "queue/tally.h"

struct queue;
struct queue_port;
struct queue_quarantined;

struct queue_options {
    const char *path;             /* directory; made when missing (mode 0700) */
    uint32_t shards;              /* for a new queue; an existing one keeps its own number */
    uint64_t map_bytes;           /* per shard; 0 = 64 GiB (address space, not disk) */
    uint32_t batch_changes_max;   /* per transaction; 0 = 2048 */
    uint64_t batch_bytes_max;     /* per transaction; 0 = 16 MiB */
    uint32_t intake_free_percent; /* refuse intake below this much free map; 0 = 10 */
    uint64_t disk_free_bytes_min; /* refuse intake below this much free disk; 0 = 64 MiB */
    uint64_t rss_bytes_max;       /* mapped pages kept resident per process; 0 = 64 MiB */
    struct records_options {
        const char *path;           /* directory of segment files; NULL = no records */
        uint64_t segment_bytes_max; /* 0 = 64 MiB */
        uint32_t segment_age_s_max; /* 0 = 3600 */
        bool zstd;                  /* compress closed segments */
        uint32_t retention_s;       /* delete closed segments older than this; 0 = keep */
        uint64_t retention_bytes;   /* delete oldest closed segments beyond; 0 = no limit */
    } records;
    /* Told of each row put into the quarantine, behind the commit, by a committer's thread: shard,
     * tree, key, reason; queue, id and index if is_row. May be NULL. */
    void (*on_quarantined)(void *arg, const struct queue_quarantined *record);
    void *on_quarantined_arg;
    bool no_threads; /* simulation: nothing runs but in queue_pump() */
    bool no_sync;    /* only for the control of the power-cut test, and simulation */
};

/* Takes the lock (a second opener gets -EBUSY), checks the format version (-EPROTO when another),
 * replays the records outbox. *error (may be NULL) gets a static or malloc'd-once message that says
 * what, where and what to do. */
int queue_open(struct queue **out, const struct queue_options *options,
               const char **error) MUST_USE;
/* Commits what was submitted, stops the threads, closes. Ports must be closed before. */
void queue_close(struct queue *q);

uint32_t queue_shards(const struct queue *q);
/* Whether a shard that is not the queue's lies beside its own, as of a copy that was restored over
 * it: nobody sends its mail. path gets where it is, or would be. */
bool queue_foreign_shard(const struct queue *q, struct buf *path);
/* A shard for a message: by the queue name of its first recipient, or by whatever spreads it
 * evenly; every shard may have rows of every name. */
uint32_t queue_shard_of(const struct queue *q, struct str what);

enum queue_intake {
    QUEUE_INTAKE_OK,
    QUEUE_INTAKE_MAP_FULL,
    QUEUE_INTAKE_DISK_FULL,
    QUEUE_INTAKE_FAILED
};
/* Whether new mail may be taken now. Any thread, one atomic load. */
enum queue_intake queue_intake(const struct queue *q, uint32_t shard);
/* Bytes of the map that changes which settle and bring messages beside (notices) may take; without
 * them such a change ends with -ENOSPC, so that those which only settle go on. Any thread. */
uint64_t queue_notice_room_bytes(const struct queue *q, uint32_t shard);
/* Whether a shard failed for good (sync error): say so and exit. Any thread. */
bool queue_failed(const struct queue *q);

/* --- ports --- */

/* wake(arg) is called from queue threads when the port has something to poll; must be thread-safe
 * (io_wake). */
int queue_port_open(struct queue_port **out, struct queue *q, void (*wake)(void *arg),
                    void *arg) MUST_USE;
void queue_port_close(struct queue_port *port);
/* The port is to be closed soon: what could not be finished is not tried again, but left to the
 * next start. */
void queue_port_end(struct queue_port *port);
/* Runs on_done of what ended. Returns how many. */
size_t queue_port_poll(struct queue_port *port);
/* Runs on_done of what ended as long as more() says so, which is asked before each but the first.
 * The rest is left to the next call, for which nobody wakes the port. */
size_t queue_port_poll_while(struct queue_port *port, bool (*more)(void *arg), void *arg);
/* Whether a call has left something. */
bool queue_port_left(const struct queue_port *port);
/* Things submitted and not yet returned. */
size_t queue_port_pending(const struct queue_port *port);

/* --- changes: one atomic unit each --- */

enum queue_row_kind {
    QUEUE_ROW_ADD,    /* rcpt's row appears under its key */
    QUEUE_ROW_REMOVE, /* its row goes (delivered, bounced, cancelled); content goes with the last */
    QUEUE_ROW_MOVE,   /* the row under old_due_ms (and old_flow) is replaced by rcpt's present state
                       */
};

struct queue_row {
    enum queue_row_kind kind;
    struct recipient *rcpt;
    int64_t old_due_ms;     /* MOVE, REMOVE: as it is stored */
    uint32_t old_flow;      /* MOVE: likewise; 0: rcpt's, which is the same */
    enum tally_count count; /* MOVE, REMOVE: what it counts as where its content has a tally */
    bool missing;           /* out: MOVE/REMOVE found no such row and did nothing */
};

struct queue_change {
    /* Set by the caller; arrays and what they name live until on_done. */
    /* New content; each must have ADD rows or a pin in this change. Without any, ADD rows are
     * further ones of contents that are stored in the shard, or the change ends with -ENOENT. */
    struct message **messages;
    size_t messages_len;
    struct queue_row *rows;
    size_t rows_len;
    const struct queue_note *notes; /* of rows; in their order */
    size_t notes_len;
    /* Quarantined records to forget, by queue_quarantined.key; -ENOENT when one is not there. The
     * content of a row's message goes with the last row. */
    const struct str *purges;
    size_t purges_len;
    const struct queue_state *states;
    size_t states_len;
    const struct queue_pin *pins;
    size_t pins_len;
    struct queue_states_range *range; /* or NULL */
    bool prepared;                    /* messages are no mail yet: spread.h */
    const struct msgid *whole; /* a message that was prepared and is mail from now on, or NULL */
    struct buf records;        /* complete JSON lines to append to the record stream, or empty */
    bool urgent; /* somebody waits for this change: commit now. Other changes wait 20 ms, to be many
                  */
    void (*on_done)(struct queue_change *change, int result);
    void *owner;
    /* private */
    struct queue_port *port;
    struct list_node node;
    int result;
};

/* Never fails and never blocks: what does not fit the ring waits in the port. */
void queue_submit(struct queue_port *port, uint32_t shard, struct queue_change *change);

/* --- loads: the store read back, off the worker --- */

/* Position in a lane or in the directory; zeroed = from the start. */
struct queue_cursor {
    uint16_t len;
    uint8_t key[512];
};

struct queue_row_key {
    uint32_t flow;
    struct str queue;
    struct msgid id;
    uint32_t index;
    int64_t due_ms;
};

struct queue_load {
    /* Set by the caller. Either exactly these rows, due or not; those that are gone are left out...
     */
    const struct queue_row_key *exact;
    size_t exact_len;
    bool header_only; /* ...with messages that have no content: to be moved, not sent */
    /* ...or what is due in a lane. */
    uint32_t flow; /* lane to read */
    struct str queue;
    struct queue_cursor cursor; /* in: where to go on; out: behind the last row read */
    int64_t from_ms; /* rows due at or after this (what is before is in memory already) */
    int64_t now_ms;  /* and at or before this */
    uint32_t rows_max;
    uint64_t bytes_max; /* stop after this much content */
    /* Brings nothing once messages in memory take so much, and has not ended then; 0: it does. */
    uint64_t alive_bytes_max;
    void (*on_done)(struct queue_load *load, int result);
    void *owner;
    /* Results. */
    struct list rcpts;   /* of struct recipient, in key order, each with its message loaded; rows
                            of one message share one struct message */
    bool end;            /* no more due rows behind the cursor */
    int64_t next_due_ms; /* first row of the lane that is not due, INT64_MAX when none; valid when
                            end */
    /* private */
    struct queue_port *port;
    struct list_node node;
    int result;
};
void queue_load(struct queue_port *port, uint32_t shard, struct queue_load *load);

/* The directory: which lanes a shard has. Used at start (to create lanes) and for listings. */
struct queue_lane_entry {
    uint32_t flow;
    struct str name; /* into the result's own memory */
    int64_t first_due_ms;
};
struct queue_directory {
    struct queue_cursor cursor; /* in/out */
    uint32_t lanes_max;
    void (*on_done)(struct queue_directory *d, int result);
    void *owner;
    struct queue_lane_entry *lanes; /* result; freed by queue_directory_done() */
    size_t lanes_len;
    bool end;
    struct buf memory;
    struct queue_port *port;
    struct list_node node;
    int result;
};
void queue_directory(struct queue_port *port, uint32_t shard, struct queue_directory *d);
void queue_directory_done(struct queue_directory *d);

/* --- introspection: any thread but a worker; short read transactions --- */

struct queue_row_view { /* slices valid during the visit */
    uint32_t flow;
    struct str queue;
    struct msgid id;
    uint32_t index;
    uint8_t priority; /* the flow's */
    int64_t due_ms, created_ms, expires_ms, last_attempt_ms;
    uint32_t lifetime_s;
    uint16_t attempts;
    uint8_t flags;
    struct str sender, address, last_error, campaign, tenant;
    struct str variables; /* as in struct recipient */
    uint64_t size;
    bool recipe; /* the content is MESSAGE_RECIPE */
};
struct queue_visit {
    struct str queue;       /* only of this name; empty: of all */
    uint32_t flow;          /* only of this flow; 0: of all */
    const struct msgid *id; /* only of this message, NULL: of all; the others are passed by, which
                               takes a tenth of visiting them */
    bool heads;             /* of each lane the first fresh row and the first later one alone: which
                               lanes there are */
    uint32_t rows_max;      /* that are visited or passed by */
    bool need_message; /* false leaves out what is stored with the message (sender, created, size,
                          campaign...), which is faster */
    /* Without need_message: expires_ms is exact for rows that by their id would have expired by
     * then, for others it is by the id. A content's mail may live from a later time on. */
    int64_t ripe_ms;
    bool (*visit)(void *arg, const struct queue_row_view *row); /* false: stop */
    void *arg;
};
/* Visits rows of a shard in key order from cursor, in read transactions of at most 1,000 rows.
 * 1: end reached, 0: more, or -errno. */
int queue_visit(struct queue *q, uint32_t shard, struct queue_cursor *cursor,
                const struct queue_visit *what);
/* A visit for a worker, who must not block: the loader's thread reads, and runs visit(). One step
 * of at most rows_max rows. */
struct queue_walk {
    struct queue_visit what;    /* set by the caller */
    struct queue_cursor cursor; /* in: where to go on; out: behind the last row */
    void (*on_done)(struct queue_walk *walk, int result);
    void *owner;
    bool end; /* out: no row is behind the cursor */
    /* private */
    struct queue_port *port;
    struct list_node node;
    int result;
};
void queue_walk(struct queue_port *port, uint32_t shard, struct queue_walk *walk);
/* A shard that has a message, and how many of its rows are left there. *shard: in: the first to
 * look at; messages of many recipients are in several. 0, or -ENOENT, -EIO; -EAGAIN: what that
 * shard has of it is no mail yet, for the milliseconds until all shards of the message agree. */
int queue_locate(struct queue *q, const struct msgid *id, uint32_t *shard, uint32_t *rows);
/* A message with its content, or NULL (*err: -ENOENT, -EBADMSG corrupt, -EIO). Searches all shards.
 */
struct message *queue_message(struct queue *q, const struct msgid *id, int *err);
/* Rows of a lane; exact once the count after start is complete (*complete). Any thread. */
uint64_t queue_lane_rows(struct queue *q, uint32_t shard, uint32_t flow, struct str name,
                         bool *complete);

/* The value stored under key (kind and rest) is put behind what out has. 0, -ENOENT, -EBADMSG,
 * -EIO, -ENOMEM. */
int queue_state_get(struct queue *q, uint32_t shard, struct str key, struct buf *out) MUST_USE;
/* Visits states of a kind in order of their keys, in one read transaction; slices are valid during
 * the visit. One that is damaged has a value of {NULL, 0}. 0 or -EIO. */
int queue_state_visit(struct queue *q, uint32_t shard, enum state_kind kind,
                      void (*visit)(void *arg, struct str key, struct str value), void *arg);
/* Visits the keys from one, which need not be there, until before another, at most max of them. 0
 * or -EIO. */
int queue_state_keys(struct queue *q, uint32_t shard, struct str from, struct str to, size_t max,
                     void (*visit)(void *arg, struct str key), void *arg);

struct queue_counters {
    uint64_t rows, messages, pieces; /* stored now; pieces: of contents, a page each */
    bool rows_complete;              /* false while the count after start runs */
    uint64_t commits, changes, commit_ns_total, sync_ns_last, batch_last;
    uint64_t quarantined, commit_errors;
    uint64_t map_bytes, map_used_bytes, map_reusable_bytes, disk_free_bytes;
    uint64_t records_lag; /* record bytes not yet in a synced segment */
};
/* Why records of a shard cannot be written or synced now, an errno or 0, and how many bytes of them
 * wait. Any thread. */
int queue_records_error(const struct queue *q, uint32_t shard, uint64_t *lag_bytes);
void queue_counters(const struct queue *q, uint32_t shard, struct queue_counters *out);
/* Adds the counters of a shard to sum, which begins as {.rows_complete = true}; but for pieces, and
 * those that say how the last of something was. */
void queue_counters_add(struct queue_counters *sum, const struct queue_counters *one);
/* A record that failed its checksum. Slices are valid during the visit. */
struct queue_quarantined {
    uint32_t shard;
    uint64_t hash;     /* names it within its shard */
    const char *tree;  /* "rows", "outbox" */
    struct str key;    /* for queue_change.purges; behind the first byte as it was stored */
    struct str value;  /* as it was stored; may be empty where it could not be read */
    struct str reason; /* "row is damaged" */
    /* Of a row: what can still be told. */
    bool is_row; /* the key could be read: */
    struct str queue;
    struct msgid id;
    uint32_t index;
    struct str address;           /* empty: the value is what is damaged */
    const struct message *header; /* without content; NULL: missing or damaged */
    uint64_t content_bytes;       /* of queue_message_stored() */
};
/* As queue_visit(). */
int queue_quarantine_visit(struct queue *q, uint32_t shard, struct queue_cursor *cursor,
                           uint32_t records_max,
                           bool (*visit)(void *arg, const struct queue_quarantined *record),
                           void *arg);
/* The content record as it is stored, damaged or not, as the content of a message of which nothing
 * else is set. NULL: *err as queue_message(). */
struct message *queue_message_stored(struct queue *q, const struct msgid *id, int *err);

/* Simulation: runs pending work of all shards now; returns how many things ended. */
size_t queue_pump(struct queue *q);
/* Does what one thread would do now, for a simulation that chooses the order of the threads.
 * Changes that nobody waits for wait for company as long as with threads. One syncer serves all
 * shards. */
enum queue_part { QUEUE_COMMITTER, QUEUE_LOADER, QUEUE_SYNCER };
size_t queue_pump_part(struct queue *q, uint32_t shard, enum queue_part part);
/* Whether the committer or loader of shard has something to do. */
bool queue_part_wanted(const struct queue *q, uint32_t shard, enum queue_part part);

#endif
