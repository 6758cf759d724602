/* The inside of the control channel, shared by control.c (sockets, turns), control_ops.c (what each
 * request does) and control_reply.c (lines of JSON). */
#ifndef HAYAUMA_ENGINE_CONTROL_PRIVATE_H
#define HAYAUMA_ENGINE_CONTROL_PRIVATE_H

#include <pthread.h>

#include "base/map.h"
#include "control/control.h"
#include "control/control_request.h"
#include "outcome/suppress_list.h"

#define CONTROL_CLIENTS_MAX    64
#define CONTROL_LINE_BYTES_MAX (1024 * 1024)
/* A client with this much unsent is not worked for until it reads. One step may overshoot. */
#define CONTROL_OUT_BYTES_MAX (256 * 1024)
#define CONTROL_STALL_MS_MAX  60000
#define CONTROL_PAUSE_MS      1000 /* how often what nobody tells of is looked at */
#define CONTROL_SLICE_ROWS    500
#define CONTROL_SLICE_PASSED  20000 /* rows of other messages than the one wanted */
#define CONTROL_ACTION_ROWS   1000
#define CONTROL_CONTENT_BYTES (48 * 1024) /* a multiple of 3: no padding within */
#define CONTROL_PROGRESS_MS   500
#define CONTROL_TRACE_MS      100

enum control_step {
    CONTROL_STEP_MORE, /* call again */
    CONTROL_STEP_WAIT, /* a job is with the backend */
    CONTROL_STEP_DONE  /* the last line is written */
};

struct control_summary;
struct control_held;
struct control_suspensions;
struct control_why_work;
struct control_trace;

/* A request under way. */
struct control_work {
    uint32_t shard;
    struct queue_cursor cursor;
    uint64_t visited, matched, sent, changed;
    bool truncated, ended; /* ended: nothing left to visit */
    /* Requests for one message: whether its shard is known, how many rows it has left there, and
     * how many of these were seen. */
    bool located;
    uint32_t rows, found;
    bool (*visit)(void *arg, const struct queue_row_view *row); /* of the present slice */
    uint64_t reported_ms;
    int64_t began_ms;        /* wall */
    struct control_job *job; /* being filled */
    struct message *message; /* of show and content; a reference */
    uint64_t content_at;
    struct control_summary *summary;
    struct control_suspensions *suspensions;
    struct control_why_work *why;
    struct control_trace *trace;
    struct buf campaigns;           /* of struct campaign, that are still to be told */
    struct suppression suppression; /* the last that was told */
    struct suppress_told told;      /* of entries */
    struct control_held *held;      /* rows, while workers are asked what holds them */
};

struct control_client {
    struct control *control;
    struct list_node node;
    int fd;
    uint32_t events; /* what epoll watches */
    struct buf in, out;
    size_t out_at; /* sent so far of out */
    bool eof, dead, busy;
    uint64_t moved_ms;              /* mono: when it last took bytes */
    uint64_t idle_ms;               /* mono: when it came, or its last request was over */
    struct control_request request; /* valid while busy */
    struct control_work work;
    struct control_job *job; /* with the backend */
    uint64_t rests_until_ms; /* mono: no step before, of a request that waits for news */
};

struct control {
    const struct control_backend *backend;
    void *arg;
    struct queue *queue;
    char *path;
    int listen_fd, epoll_fd, event_fd;
    uint64_t paused_ms; /* since when accept() wants descriptors and is not watched; 0: it is */
    struct list clients;
    size_t clients_len;
    size_t jobs; /* with the backend */
    uint64_t mono_ms;
    int64_t wall_ms;
    /* Written by any thread. */
    struct {
        pthread_mutex_t lock; /* of done */
        struct list done;
    } shared;
};

/* --- control_ops.c --- */

/* The next step of client->request. */
enum control_step control_step(struct control_client *client);
/* A job of the client came back. */
enum control_step control_job_returned(struct control_client *client, struct control_job *job);
/* Frees what the work holds. */
void control_work_done(struct control_client *client);
void control_job_free(struct control_job *job);

/* What requests have in common. */
/* One slice of rows. 0 or -errno; work.ended when there are no more. */
int control_walk(struct control_client *client, bool need_message,
                 bool (*visit)(void *arg, const struct queue_row_view *row));
/* Tells a client that a long search goes on. */
void control_report_progress(struct control_client *client);
bool control_out_full(const struct control_client *client);
bool control_at_limit(struct control_client *client);
void control_next_shard(struct control_client *client);
enum control_step control_store_failed(struct control_client *client, int err);
/* An order came too late. */
void control_put_stopping(struct control_client *client);
enum control_step control_finished(struct control_client *client);
struct control_job *control_job_new(struct control_client *client);
enum control_step control_give_job(struct control_client *client, struct control_job *job);

/* --- control_wait.c --- */

/* Keeps a row of the walk's slice. False: the slice is full. */
bool control_hold_row(struct control_client *client, const struct queue_row_view *row);
bool control_holds_rows(const struct control_client *client);
/* Asks the workers what holds the rows kept; they go to the client with the answer. */
enum control_step control_ask_rows(struct control_client *client);
/* Asks the workers what holds the next groups of the summary; without any, the reply ends. */
enum control_step control_ask_groups(struct control_client *client);
/* Whether what a queue waits for holds a row of it: a due one, or one that will be due before that
 * is over. due_ms: QUEUE_DUE_HELD of what somebody holds. */
bool control_wait_concerns(const struct control_wait *wait, int64_t due_ms, int64_t now_ms);
enum control_step control_waits_returned(struct control_client *client, struct control_job *job);
void control_held_free(struct control_held *h);

/* A CONTROL_JOB_WAITS of at most CONTROL_SLICE_ROWS queries, to be filled and given away. */
struct control_job *control_waits_new(struct control_client *client);
/* False: it is the last query already. */
bool control_waits_add(struct control_job *job, struct str queue, uint32_t flow, uint32_t shard);
enum control_step control_waits_ask(struct control_client *client, struct control_job *job);

/* --- control_suspension.c --- */

enum control_step control_step_suspensions(struct control_client *client);
enum control_step control_step_suspend(struct control_client *client);
/* Says that no source has this name. */
enum control_step control_no_source(struct control_client *client, const char *name);
enum control_step control_suspend_returned(struct control_client *client,
                                           const struct control_job *job);
/* The sites of a slice's rows. */
void control_suspensions_returned(struct control_client *client, const struct control_job *job);
void control_suspensions_free(struct control_suspensions *s);

/* --- control_why.c --- */

enum control_step control_step_why(struct control_client *client);
enum control_step control_why_returned(struct control_client *client, struct control_job *job);
/* The rows of a message with what holds their queues. */
enum control_step control_why_waits(struct control_client *client, const struct control_job *job);
void control_why_free(struct control_why_work *w);

/* --- control_campaign.c --- */

enum control_step control_step_campaigns(struct control_client *client);
enum control_step control_step_campaign_order(struct control_client *client);
enum control_step control_campaign_returned(struct control_client *client,
                                            const struct control_job *job);

/* --- control_suppression.c --- */

enum control_step control_step_suppressions(struct control_client *client);
enum control_step control_step_suppress(struct control_client *client);
enum control_step control_suppress_returned(struct control_client *client,
                                            const struct control_job *job);

/* --- control_trace.c --- */

enum control_step control_step_trace(struct control_client *client);
void control_trace_end(struct control_client *client);

/* --- control_route.c --- */

enum control_step control_step_route(struct control_client *client);
enum control_step control_route_returned(struct control_client *client, struct control_job *job);

/* --- control_egress.c --- */

/* "sources":[...],"pools":[...], of the status. */
void control_put_egress(struct control *c, struct buf *out);
/* What became of the mail of each source at each site, of tenants and campaigns: max of each. */
void control_put_sums(struct control *c, size_t max, struct buf *out);
/* The object of one source. */
void control_put_source(struct control *c, const struct config_source *s, struct buf *out);

/* --- control_site.c --- */

enum control_step control_step_sites(struct control_client *client);
enum control_step control_sites_returned(struct control_client *client,
                                         const struct control_job *job);

/* --- control_warmup.c --- */

enum control_step control_step_warmup(struct control_client *client);
enum control_step control_step_warmup_days(struct control_client *client);
enum control_step control_step_warmup_order(struct control_client *client);
enum control_step control_warmup_returned(struct control_client *client,
                                          const struct control_job *job);

/* --- control_quarantine.c --- */

enum control_step control_step_quarantine(struct control_client *client);
enum control_step control_step_purge(struct control_client *client);

/* --- control_reply.c --- */

void control_put_error(struct buf *out, const char *code, const char *message, const char *hint);
void control_put_done(struct buf *out, const struct control_work *w, enum control_op op);
void control_put_progress(struct buf *out, const struct control_work *w);
/* All of the line but its end, so that more can be said. */
/* data: with what the recipient's letter is made of. */
void control_put_row(struct control *c, struct buf *out, const struct queue_row_view *row,
                     bool data);
void control_put_message(struct buf *out, const struct message *m);
void control_put_content(struct buf *out, const uint8_t *bytes, size_t n);
void control_put_version(struct control *c, struct buf *out);
void control_put_status(struct control *c, struct control_status *s, struct buf *out);
/* The worst state of all shards. */
enum queue_intake control_intake(const struct control *c);
const char *control_intake_name(enum queue_intake intake);

/* "name":value, for the objects of replies; json_end() closes with '}' over the last comma. */
void json_text(struct buf *out, const char *name, struct str value);
void json_number(struct buf *out, const char *name, int64_t value);
void json_bool(struct buf *out, const char *name, bool value);
void json_base64(struct buf *out, const char *name, const void *bytes, size_t n);
/* Nothing, when nothing holds it. */
void json_wait(struct buf *out, const struct control_wait *wait);
void json_end(struct buf *out);
/* "],", over the last comma. */
void json_end_list(struct buf *out);
/* The members of a suspension but its name. */
/* What is lowered, each left out where it is not. */
void json_lowered(struct buf *out, const struct suspension_cap *cap);
void json_suspension(struct buf *out, const struct suspension *one);

/* --- control_summary.c --- */

struct control_summary *control_summary_new(void);
void control_summary_free(struct control_summary *s);
void control_summary_add(struct control_summary *s, const struct queue_row_view *row,
                         int64_t now_ms);
/* Sorts: then they come one by one, the largest first. */
void control_summary_finish(struct control_summary *s);
/* The name of the next but so many; false: there is none. */
bool control_summary_peek(const struct control_summary *s, size_t ahead, struct str *name,
                          uint32_t *flow);
/* The line of the next. */
void control_summary_put(struct control_summary *s, const struct control_wait *wait,
                         struct buf *out);

#endif
