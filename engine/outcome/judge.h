/* The one place that turns how an attempt ended into policy: retry time, bounce with its notice,
 * record, counters (DESIGN.md section 6). Its decisions go into the worker's settle of this turn,
 * which does not fail (settle.h). Thread: the worker that has the recipient. */
#ifndef HAYAUMA_ENGINE_JUDGE_H
#define HAYAUMA_ENGINE_JUDGE_H

#include "config/config.h"
#include "limits/warmup.h"
#include "outcome/notice.h"
#include "outcome/outcome.h"
#include "outcome/report.h"
#include "worker/worker.h"

/* How long a bounce that found no room for its notice waits for the next look; its lifetime is
 * over. */
#define NOTICE_WAIT_MS 300000

/* Where an attempt was made. All pointers are valid during the call. */
struct judge_context {
    const struct config_destination *dest;
    struct str site;
    const char *peer_name, *peer_addr; /* NULL: none was reached */
    const char *source_name, *source_addr, *pool_name;
    const char *proxy_server,
        *proxy_word;          /* that connected for the source: "haproxy"; NULL: none */
    struct warmup_set warmup; /* of the source, and of the mail */
    const char *session_id;
    const char *protocol;                        /* "ESMTP", "SMTP", "LMTP" or NULL */
    uint64_t started_ms, connected_ms, begun_ms; /* monotonic; 0: not reached */
    bool peer_dsn;                               /* the peer took over RFC 3461 duties */
    struct str signers;                          /* of the message: a JSON array, or empty */
    const struct report_tls *tls;                /* of the session; NULL: none */
    struct governor_sums *sums;                  /* of the source at the site, or NULL */
};

struct dns_route;
struct lane;

struct judge_entry {
    struct recipient *recipient;
    struct outcome outcome;
    int64_t old_due_ms;         /* deferred: as stored */
    uint32_t old_flow;          /* of a recipient that goes over to another pool; else 0 */
    bool too_many;              /* the caller's: refused only for the number of recipients */
    bool ended;                 /* the row goes */
    enum tally_count count;     /* what it counts as then */
    const char *classification; /* of its record; NULL: delivered */
    bool suppresses;            /* its address goes on the suppression list */
    bool notice;                /* the sender is owed a notice of this kind */
    enum notice_kind kind;
};

/* What became of the recipients of one message in one attempt, gathered so that the sender gets one
 * notice for all of them. Recipients are PLACE_FLIGHT and owned by the batch until judge_end(). */
struct judge_batch {
    struct worker *worker;
    const struct judge_context *context;
    struct judge_entry *entries;
    size_t len, cap;
    /* What judge_end() settles. */
    struct buf records;
    struct recipient *notices[4]; /* new ones, of ours */
    size_t notices_len;
};

void judge_begin(struct judge_batch *b, struct worker *w, const struct judge_context *context);
/* outcome is copied. The entry is the caller's to mark until judge_end(). */
struct judge_entry *judge_add(struct judge_batch *b, struct recipient *r,
                              const struct outcome *outcome);
/* Settles all of them, with records and notices, in this turn's change. All are of one message. */
void judge_end(struct judge_batch *b);
/* The usual case without a batch: delivered. */
void judge_delivered(struct worker *w, const struct judge_context *context, struct recipient *r,
                     const struct smtp_reply *reply);
/* A batch of one recipient, with any outcome. */
void judge_one(struct worker *w, const struct judge_context *context, struct recipient *r,
               const struct outcome *outcome);
/* Whether the store has room for the notice of kind that r's end would owe, or it would owe none.
 */
bool judge_has_room(const struct worker *w, const struct recipient *r, enum notice_kind kind);
/* r's lifetime is over before it could be tried (again). */
void judge_expired(struct recipient *r);
/* There is no way to lane's domain: what the lookup said, or NULL: the configuration rejects it. A
 * permanent reason ends the window, some of it a turn, a temporary one defers its first and
 * suspends the lane.
 */
void judge_unroutable(struct lane *lane, const struct dns_route *route);
/* A policy lets mail for lane's domain go to none of its exchangers, for now: why, in words. The
 * lane is suspended. */
void judge_forbidden(struct lane *lane, const char *why);

#endif
