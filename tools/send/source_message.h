/* What `hayauma source` sends: every message follows from its sequence number and the seed, has an
 * X-Seq field and a body of its own. Pure but for memory. */
#ifndef HAYAUMA_TOOLS_SOURCE_MESSAGE_H
#define HAYAUMA_TOOLS_SOURCE_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/list.h"
#include "smtp/client.h"
#include "tools/sink/sink_ledger.h"

#define SOURCE_SIZES_MAX 16
/* The header block does not fit into less. */
#define SOURCE_SIZE_MIN 512

struct source_plan {
    const char *from;
    uint64_t seed;
    struct {
        uint64_t min, max;     /* bytes with header, uniform between */
    } sizes[SOURCE_SIZES_MAX]; /* each as likely */
    size_t sizes_len;
    char **domains;
    size_t domains_len;
    bool zipf; /* the nth domain has 1/n of the first one's share; otherwise all are equal */
    uint32_t recipients; /* per message */
    bool eight_bit, dot_lines;
    /* Private: made by source_plan_prepare(). */
    char *text; /* lines of equal length to cut bodies from */
    size_t text_lines;
    double *shares; /* cumulative, for zipf */
    uint64_t run;   /* makes Message-IDs unique over runs */
};

struct source_message {
    struct smtp_transaction t; /* owner: this message */
    struct list_node node;     /* the caller's list */
    uint64_t seq, begun_ns, due_ms;
    uint32_t lost; /* how often its connection went after its end: it may have been taken */
    bool retry, refused, lost_now;
    struct buf content, addresses;
    struct smtp_transaction_rcpt *rcpts;
    bool *accepted;                 /* per entry of rcpts, during a transaction */
    struct ledger_content identity; /* of content, when wanted */
};

/* "4k", "2k-64k", "1k,4k,50k"; 0 or -EINVAL. */
int source_sizes_parse(const char *text, struct source_plan *plan) MUST_USE;
/* domains d1.example .. dN.example. */
void source_domains_numbered(struct source_plan *plan, uint64_t n);
/* One domain a line, blank lines and those that begin with '#' are skipped; 0 or -errno. */
int source_domains_read(struct source_plan *plan, const char *file) MUST_USE;
void source_plan_prepare(struct source_plan *plan);
void source_plan_done(struct source_plan *plan);

/* Fills m as the seq-th message. date: RFC 5322. identity: also compute m->identity. */
void source_message_make(const struct source_plan *plan, struct source_message *m, uint64_t seq,
                         const char *date, bool identity);
/* Leaves only the recipients that are not accepted, to send the rest again. */
void source_message_again(struct source_message *m);
void source_message_done(struct source_message *m);

#endif
