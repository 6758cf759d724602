/* The control channel: a Unix socket with lines of JSON (docs/control.md), for the commands.
 *
 * Thread: main. Nothing here blocks but short reads of the store; long requests advance in slices,
 * in turn for all clients. The engine's side is a backend of a few functions; what workers must do
 * is a job that comes back from any thread. Slow clients cost a bounded buffer and their place in
 * the list. */
#ifndef HAYAUMA_ENGINE_CONTROL_H
#define HAYAUMA_ENGINE_CONTROL_H

#include <stdatomic.h>

#include "base/buf.h"
#include "base/list.h"
#include "config/config.h"
#include "intake/campaign.h"
#include "limits/warmup.h"
#include "outcome/admin.h"
#include "outcome/suppress.h"
#include "queue/queue.h"
#include "worker/dialogues.h"
#include "worker/sums.h"
#include "worker/suspensions.h"

struct control;

/* What holds a queue's due mail back. */
struct control_wait {
    const char *reason; /* see lane_wait_name(), static; NULL: nothing does */
    int64_t until_ms;   /* wall clock; 0: nobody knows */
    char host[128], error[200];
    int64_t answered_ms;                    /* wall clock: when error came; 0: nobody knows */
    char source[CONFIG_SHARE_NAME_MAX + 1]; /* that may send first; may be empty */
    /* For "rate", "sessions", "warmup" and "quiet_hours", which has name and set alone. name NULL:
     * no limit is known. */
    struct {
        const char *name; /* of its key, static */
        uint64_t used, max;
        uint32_t period_ms;     /* of messages: max in so long */
        bool by_peer;           /* the receiver made it less than the key allows */
        bool by_rule;           /* and set names the rule */
        uint32_t stage, stages; /* of warm-up */
        char set[300]; /* where: file and line, or what stands for it; the rule that lowered it */
    } limit;
    /* For "suspended": since when, by what, by whom and why. */
    int64_t since_ms;
    const char *scope; /* static */
    char name[SUSPENSION_NAME_MAX + 1];
    char who[SUSPENSION_WHO_MAX + 1];
    char text[SUSPENSION_REASON_MAX + 1]; /* why; of "warmup" how much is used; the quiet hours */
};

struct control_destination {
    char queue[QUEUE_NAME_MAX + 1];
    char site[160];
    char last_error[200];
    uint64_t rows;
    uint32_t shard, in_memory, in_flight, sessions, failures;
    int64_t suspended_until_ms; /* wall clock, 0 = not */
    int64_t next_due_ms;        /* wall clock, INT64_MAX = none */
    struct control_wait wait;
};

/* A source as the process has it. */
struct control_source {
    uint32_t sessions;
    uint64_t messages, connects, connect_failures;
    bool suspended;
    /* Its address is not this machine's, or its proxy does not work, since since_ms (wall clock):
     * error is as source_error_text() reads it. */
    struct {
        bool away;
        int64_t since_ms;
        int error;
    } part[3];              /* IPv4, IPv6, the proxy: enum source_part */
    int64_t no_route_ms[2]; /* IPv4, IPv6: as struct source has them */
    char unrouted[2][PEER_TEXT_BYTES];
};

#define CONTROL_SHARD_ANY UINT32_MAX

/* A question of CONTROL_JOB_WAITS: a queue name in a shard, or wherever it has a lane; or of
 * CONTROL_JOB_WHY: a lane of the subject that the store has. */
struct control_wait_query {
    struct str queue; /* into the job's memory */
    uint32_t flow, shard;
    uint64_t rows;            /* of WHY: what the lane has */
    int64_t due_ms;           /* of WHY: when the first is due */
    struct control_wait wait; /* out */
    char site[160];           /* out: where it goes, as far as that is known */
    char set[160];            /* out: of a provider's site, the name of its set of exchangers */
};

/* What mail of a subject does, and what for. */
enum control_hold_state {
    CONTROL_HOLD_WAITS, /* something holds it */
    CONTROL_HOLD_GOES,  /* it is being sent */
    CONTROL_HOLD_LATER, /* none of it is due before next_ms; wait has the answer of the last attempt
                         */
    CONTROL_HOLD_HELD   /* somebody holds it: `queue hold` */
};

/* Mail of a subject that does the same for the same reason. */
struct control_hold {
    enum control_hold_state state;
    struct control_wait wait;
    char queue[QUEUE_NAME_MAX + 1]; /* one of its queues, in shard */
    char site[160];
    char pool[CONFIG_SHARE_NAME_MAX + 1];
    uint32_t shard, lanes, in_flight;
    uint64_t rows;
    double per_hour; /* lane_ceiling(): from pool to site; INFINITY: no bound */
    int64_t next_ms; /* wall clock: of the first attempt; 0: now; INT64_MAX: nobody knows */
};

/* So many holds are told apart by all that they say; further ones are added to those of the same
 * reason. */
#define CONTROL_HOLDS_WHOLE 24
#define CONTROL_HOLDS_MAX   64

/* A subject, and what holds its mail: gathered by workers one after the other. */
struct control_why {
    /* What it may be: a bit for each scope in which the name counts. */
    uint32_t scopes;
    char name[SUSPENSION_NAME_MAX + 1];
    char domain[SUSPENSION_NAME_MAX + 1]; /* the name as queues know it; empty: it is none */
    /* Out. */
    uint32_t found;     /* in which scopes there was mail */
    bool counting;      /* rows are still counted behind a start */
    uint64_t absent;    /* so many lanes are in the store alone, and were not looked at for the
                         * subject, but for those of the domain */
    int64_t expires_ms; /* of the message's first, or of the campaign; 0: not known */
    uint32_t len;
    struct control_hold holds[CONTROL_HOLDS_MAX];
};

/* A question of CONTROL_JOB_ROUTE: where mail of a flow for a domain would go. */
struct control_route {
    char domain[SUSPENSION_NAME_MAX + 1]; /* as queues know it */
    char pool[CONFIG_SHARE_NAME_MAX + 1];
    char campaign[FLOW_NAME_MAX + 1], tenant[FLOW_NAME_MAX + 1];
    struct buf out; /* out: members of a JSON object, a comma behind each */
};

/* The largest destinations, gathered by workers one after the other. */
struct control_status {
    uint32_t max, len;
    struct control_destination *destinations; /* a heap, smallest first, while it is gathered */
};

/* Something the engine does for a client. Lives until control_job_done(). */
struct control_job {
    enum {
        CONTROL_JOB_STATUS,
        CONTROL_JOB_WAITS,
        CONTROL_JOB_WHY,
        CONTROL_JOB_ROUTE,
        CONTROL_JOB_ACTION,
        CONTROL_JOB_PURGE,
        CONTROL_JOB_SUSPEND,
        CONTROL_JOB_WARMUP,
        CONTROL_JOB_SITES,
        CONTROL_JOB_CAMPAIGN,
        CONTROL_JOB_SUPPRESS
    } kind;
    struct admin_job admin; /* CONTROL_JOB_ACTION and CONTROL_JOB_PURGE; texts into memory */
    /* CONTROL_JOB_STATUS: each worker offers its lanes to it. */
    struct control_status status;
    /* CONTROL_JOB_SUSPEND */
    struct suspension suspension;
    bool resume;                     /* of it scope and name count */
    struct warmup_order warmup;      /* CONTROL_JOB_WARMUP */
    struct campaign_order campaign;  /* CONTROL_JOB_CAMPAIGN */
    struct suppress_order *suppress; /* CONTROL_JOB_SUPPRESS; the backend's */
    uint32_t sites_max;              /* CONTROL_JOB_SITES: so many lines; they go into memory. Where
                                      * suspension has a name, it is that of the only site to list */
    /* CONTROL_JOB_WAITS, and CONTROL_JOB_WHY for lanes of a domain; without any all lanes in memory
     * are looked at but these. */
    struct control_wait_query *waits;
    size_t waits_len;
    struct control_why *why;    /* CONTROL_JOB_WHY */
    struct control_route route; /* CONTROL_JOB_ROUTE */
    void *owner;                /* the backend's, while it has the job */
    struct list_node node;      /* the backend's, while it has the job; then private */
    /* private */
    struct control *control;
    struct control_client *client;
    struct buf memory;
    int result;
};

/* The longest turn of a worker. */
struct control_turn {
    uint64_t us;
    const char *doing; /* static */
    uint32_t lanes;    /* visited in it */
};

/* By the clock, and by the CPU that they took: since the start, and in the last minute. */
struct control_turns {
    struct control_turn longest, lately, cpu_longest, cpu_lately;
};

struct control_description {
    const char *node_id, *host_name, *config_file; /* valid until the next turn */
    int64_t started_ms;
    uint32_t workers;
    bool draining;
};

/* What the engine gives; all but control_job_done() runs in the main thread. */
struct control_backend {
    void (*describe)(void *arg, struct control_description *out);
    /* Calls put for each total since start (gauge false) and each present value (gauge true); the
     * names are those of docs/control.md. */
    void (*counters)(void *arg, void (*put)(void *to, const char *name, uint64_t value, bool gauge),
                     void *to);
    void (*turns)(void *arg, uint32_t worker, struct control_turns *out);
    /* Reads the configuration again. 0: cannot has the lines of config_keep(), errors one for
     * each certificate that could not be loaded. -errno: errors has the mistakes and nothing was
     * changed. */
    int (*reload)(void *arg, struct buf *cannot, struct buf *errors);
    void (*drain)(void *arg);
    /* Visits all suspensions, in no order; visit() calls nothing of the backend. */
    void (*suspensions)(void *arg, void (*visit)(void *to, const struct suspension *one), void *to);
    /* The running configuration, valid until the next turn; and what became of a source of it. */
    const struct config *(*config)(void *arg);
    void (*source)(void *arg, const struct config_source *of, struct control_source *out);
    /* What became of mail since the start: sums_gather(). */
    void (*sums)(void *arg, enum sums_of of, size_t max, struct sums *out);
    /* Visits all streams of warm-up, in the same way. */
    void (*warmup)(void *arg, int64_t wall_ms,
                   void (*visit)(void *to, const struct warmup_view *view), void *to);
    /* Visits all campaigns, the oldest first, in the same way. */
    void (*campaigns)(void *arg, void (*visit)(void *to, const struct campaign *one), void *to);
    /* The names by which a row's flow is sent now, of which its campaign may have been set to
     * others; NULL: they are not known. */
    const struct queue_flow *(*names)(void *arg, uint32_t flow);
    /* What the process has, and lives longer than the channel. */
    struct dialogues *(*dialogues)(void *arg);
    struct suppressions *(*suppressions)(void *arg);
    /* Does the job and calls control_job_done() when it is done (for an action: when its commit
     * is), from any thread, also from within. Must not block. */
    void (*job)(void *arg, struct control_job *job);
};

/* Binds the socket at path (mode 0600; its directory is made when missing; a stale socket is
 * replaced). queue may be NULL: then there is nothing to list. 0; -EADDRINUSE when an engine
 * answers there; -errno. error gets a line that says what and where. */
int control_open(struct control **out, const char *path, const struct control_backend *backend,
                 void *arg, struct queue *queue, struct buf *error) MUST_USE;
/* No job may be with the backend. Removes the socket. NULL is accepted. */
void control_close(struct control *c);
/* Readable when control_turn() has something to do. */
int control_fd(const struct control *c);
/* How long the caller may wait on control_fd(): 0 while a request is worked on, else -1 or the time
 * to the next check of dead clients. */
int control_timeout_ms(const struct control *c);
/* Does what is ready and one slice of each request under way; a few milliseconds at most. mono_ms,
 * wall_ms: the present time on each clock. */
void control_turn(struct control *c, uint64_t mono_ms, int64_t wall_ms);
/* Jobs with the backend. */
size_t control_jobs(const struct control *c);

/* The job is done. result: 0 or -errno. Any thread; job is not the backend's any more. */
void control_job_done(struct control_job *job, int result);
/* Keeps what is worse of the two in to. */
void control_wait_merge(struct control_wait *to, const struct control_wait *from);
/* Adds what h says to why: to what does the same, or as a new one. *made: which it is. */
struct control_hold *control_why_add(struct control_why *why, const struct control_hold *h,
                                     bool *made);
/* Whether the lanes of queue are asked for one by one, since the store has been looked at for them:
 * those of a domain. */
bool control_why_has_lanes(const struct control_why *why, struct str queue);
/* Whether d, of which rows and in_memory are known, is among the largest so far. */
bool control_status_wants(const struct control_status *s, const struct control_destination *d);
/* Considers d for the status: kept when it is among the largest by rows. */
void control_status_offer(struct control_status *s, const struct control_destination *d);

#endif
