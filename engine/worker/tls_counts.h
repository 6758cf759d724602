/* What the process counts for reports of TLS (RFC 8460; mail/tls_report.h): sessions out, by
 * recipient domain and day, with what failed in them. Only domains that want reports are counted
 * for long: the keeper (outcome/tls_reports.h) looks that up when a domain is first met in a day.
 * Counts are states of kind STATE_TLS_REPORT in shard 0, stored by the keeper every
 * TLS_COUNTS_STORE_MS: a crash loses what was counted since. Any thread.
 *
 * A day is [begin_s, end_s) in seconds since 1970, UTC. */
#ifndef HAYAUMA_ENGINE_TLS_COUNTS_H
#define HAYAUMA_ENGINE_TLS_COUNTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/map.h"
#include "dns/dns_upstream.h"
#include "mail/tls_report.h"
#include "queue/queue.h"

#define TLS_COUNTS_DOMAINS_MAX  100000 /* of all days; what is beyond is not counted */
#define TLS_COUNTS_POLICIES_MAX 16     /* of a domain and day; beyond, the last one */
#define TLS_COUNTS_FAILURES_MAX 256    /* kinds of failures of a policy; beyond, without details */
#define TLS_COUNTS_TEXTS_MAX    16384
#define TLS_COUNTS_REASON_MAX   160
/* What policies and failures may take together, since strangers' servers say what there is of both.
 * Beyond, new policies are not counted, and new kinds of failures count in sums alone. */
#define TLS_COUNTS_BYTES_MAX (64u << 20)
/* So long behind its end a day is counted in: a worker's clock may be a turn old. */
#define TLS_COUNTS_GRACE_S  2
#define TLS_COUNTS_STORE_MS 30000
#define TLS_COUNTS_KEY_MAX  (1 + 8 + DNS_NAME_MAX)

struct tls_counts {
    _Atomic bool on;      /* reports are configured; relaxed, a hint */
    pthread_mutex_t lock; /* of all below, and of entries but while they are due */
    uint64_t hash_seed;
    struct map by_key;
    struct list entries;  /* by age */
    struct list fresh;    /* of which nobody has asked whether reports are wanted */
    struct list dirty;    /* to be stored */
    uint64_t not_counted; /* for want of room */
    uint64_t bytes;       /* of policies and failures */
};

enum tls_counts_state {
    TLS_COUNTS_FRESH,
    TLS_COUNTS_ASKED,  /* DNS is asked */
    TLS_COUNTS_NONE,   /* nobody wants reports: nothing is counted */
    TLS_COUNTS_WANTED, /* counts, and is stored */
    TLS_COUNTS_DUE,    /* the day is over, and the keeper has the entry: nothing is counted */
};

/* Where a report is posted to, over all tries of the report. */
struct tls_counts_target {
    uint64_t id;  /* of host, port and path; 0: none */
    bool counted; /* among the reports that its host may get */
    bool posted;
};

struct tls_counts_entry {
    struct map_node node;
    struct list_node all, fresh_node, dirty_node;
    enum tls_counts_state state;
    bool mailed; /* its mails are in the queue; what is left is HTTPS */
    int64_t begin_s, end_s;
    int64_t due_s; /* when the report is to be sent, or tried again */
    uint32_t tries;
    struct tls_counts_target *targets; /* TLS_REPORT_TARGETS_MAX of them, or NULL: none is tried */
    struct list policies;              /* struct tls_report_policy */
    uint32_t policies_len;
    uint16_t domain_len;
    char domain[];
};

/* A session, or a transaction in a session that was used again. */
struct tls_count {
    struct str domain;      /* of the recipient, in lower-case A-labels */
    int64_t begin_s, end_s; /* the day that it is in */
    enum tls_report_policy_type type;
    struct str texts; /* of the policy; struct tls_report_policy has the same */
    enum tls_report_result result;
    const char *mx, *sending_ip, *receiving_ip; /* of a failure; "": not known */
    const char *reason;                         /* in words, or "" */
};

/* With what is stored in q; before workers begin. 0, -EIO, -ENOMEM. */
int tls_counts_open(struct tls_counts *c, struct queue *q) MUST_USE;
void tls_counts_done(struct tls_counts *c); /* a zeroed one is accepted */

static inline bool tls_counts_on(struct tls_counts *c)
{
    return atomic_load_explicit(&c->on, memory_order_relaxed);
}
/* Whether sessions of the domain count that day: false where it is known that nobody wants a
 * report. */
bool tls_counts_wanted(struct tls_counts *c, struct str domain, int64_t begin_s);
void tls_counts_add(struct tls_counts *c, const struct tls_count *count);

/* --- the keeper's --- */

/* The next domain to ask for, which then counts as asked; false: there is none. */
bool tls_counts_next_fresh(struct tls_counts *c, char domain[DNS_NAME_MAX + 1], int64_t *begin_s);
void tls_counts_asked(struct tls_counts *c, struct str domain, int64_t begin_s, bool wanted);
/* The next whose record is to be stored: its key (returns the length, 0: none) and value. */
size_t tls_counts_next_dirty(struct tls_counts *c, char key[TLS_COUNTS_KEY_MAX], struct buf *value);
/* The next whose day is over at now_s and that is due, now the keeper's alone. NULL: none. Forgets
 * on its way entries that nobody wants and whose day is over. delay_s: by how much at most the
 * report is sent behind the end of the day. */
struct tls_counts_entry *tls_counts_next_due(struct tls_counts *c, int64_t now_s, uint32_t delay_s);
/* The report of e is tried again at due_s; or e is done with, and freed: the keeper removes its
 * record. */
void tls_counts_again(struct tls_counts *c, struct tls_counts_entry *e, int64_t due_s);
void tls_counts_end(struct tls_counts *c, struct tls_counts_entry *e);
/* What is known of the target, by its id, from earlier tries of the entry that the caller has.
 * NULL: no memory, or there were too many. */
struct tls_counts_target *tls_counts_target(struct tls_counts_entry *e, uint64_t id);
/* The record of e as it is now. */
void tls_counts_encode(const struct tls_counts_entry *e, struct buf *value);
size_t tls_counts_key(char out[TLS_COUNTS_KEY_MAX], struct str domain, int64_t begin_s);

#endif
