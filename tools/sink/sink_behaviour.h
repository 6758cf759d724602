/* How the sink treats mail: classes of recipients' domains, read from a YAML file, each with its
 * delays, refusals, faults and DNS answers. docs/sink.md lists the keys.
 *
 * Lifetime: loaded once, immutable but for the `shared` parts, which any worker may use.
 * Chance: what happens to an attempt is drawn from the worker's rng; whether a user exists is a
 * hash of seed and address, so that it stays so. */
#ifndef HAYAUMA_TOOLS_SINK_BEHAVIOUR_H
#define HAYAUMA_TOOLS_SINK_BEHAVIOUR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/map.h"
#include "base/rng.h"
#include "base/str.h"
#include "smtp/server.h"
#include "tools/commands/endpoint.h"

enum sink_stage {
    SINK_BANNER,
    SINK_EHLO,
    SINK_MAIL,
    SINK_RCPT,
    SINK_DATA,
    SINK_BODY, /* while the content arrives; drops only */
    SINK_DOT,  /* the message is complete, and not kept */
    SINK_KEPT, /* it is in the ledger, and its reply is never sent; drops only */
    SINK_STAGES
};

enum sink_latency_kind {
    SINK_LATENCY_NONE,
    SINK_LATENCY_FIXED,
    SINK_LATENCY_UNIFORM,
    SINK_LATENCY_EXP
};

struct sink_latency {
    enum sink_latency_kind kind;
    uint64_t a_ms, b_ms; /* fixed: a; uniform: a..b; exp: mean a */
};

enum sink_fault_kind { SINK_DEFER, SINK_REFUSE, SINK_FIN, SINK_RST };

struct sink_fault {
    enum sink_fault_kind kind;
    enum sink_stage stage;
    double rate;
    char *reply; /* "451 4.3.0 try again later"; NULL for drops */
};

enum sink_dns {
    SINK_DNS_MX,
    SINK_DNS_IMPLICIT,
    SINK_DNS_NULL_MX,
    SINK_DNS_NXDOMAIN,
    SINK_DNS_SERVFAIL,
    SINK_DNS_TIMEOUT,
    SINK_DNS_NO_HOST
};

#define SINK_ADDRESSES_MAX 16

struct sink_class {
    char *name;
    char **domains; /* "example.com", "*.grey.example", "slow*.example" */
    size_t domains_len;
    struct endpoint addresses[SINK_ADDRESSES_MAX]; /* where its exchangers live; ports unset */
    size_t addresses_len;
    /* DNS. */
    enum sink_dns dns;
    char *exchanger;     /* one name for all its domains; NULL: mx1.<domain> .. */
    uint32_t exchangers; /* number of MX records */
    bool dead_exchanger; /* a preferred MX where nothing listens */
    uint32_t ttl_s;
    /* A session. */
    struct sink_latency latency[SINK_STAGES];
    struct sink_fault *faults;
    size_t faults_len;
    double unknown_users, mailbox_full;
    char *unknown_reply, *full_reply, *greylist_reply, *connections_reply;
    uint64_t greylist_ms;
    uint32_t connections_max;  /* 0 = no limit */
    bool connections_reset;    /* beyond: RST instead of connections_reply */
    uint64_t bytes_per_second; /* of one session; 0 = no limit */
    uint32_t close_after;      /* messages, then the session ends without a word; 0 = never */
    bool no_ehlo;
    struct smtp_server_options options;
    bool quiet; /* nothing above can happen at MAIL and later: the fast path */
    struct {
        _Atomic uint32_t connections; /* relaxed: a limit, not a lock */
    } shared;
};

struct sink_behaviour {
    uint64_t seed;
    struct sink_class
        *classes; /* the first that matches; the last is the default and matches all */
    size_t classes_len;
    struct {
        pthread_mutex_t lock; /* protects greylist, first contact with (sender, recipient) */
        struct map greylist;
    } shared;
};

/* options: of the default class; classes take it with their own changes. On failure errors has one
 * line per mistake with file, line and column. file NULL: one class that accepts all. */
int sink_behaviour_load(const char *file, const struct smtp_server_options *options,
                        struct sink_behaviour **out, struct buf *errors) MUST_USE;
void sink_behaviour_free(struct sink_behaviour *b);

struct sink_class *sink_class_of_domain(struct sink_behaviour *b, struct str domain);
/* The class whose exchangers live at addr; otherwise the default. */
struct sink_class *sink_class_of_address(struct sink_behaviour *b,
                                         const struct sockaddr_storage *addr);

uint64_t sink_latency_ms(const struct sink_latency *latency, struct rng *rng);
/* The fault drawn for this stage, or NULL. */
const struct sink_fault *sink_fault_draw(const struct sink_class *c, enum sink_stage stage,
                                         struct rng *rng);
/* What RCPT is answered for reasons of the address itself (unknown user, mailbox full,
 * greylisting), or NULL. */
const char *sink_recipient_reply(struct sink_behaviour *b, const struct sink_class *c,
                                 struct str sender, struct str recipient, uint64_t now_ms);

#endif
