/* Event records: one JSON line per event with KumoMTA's field names (docs/records.md). Pure
 * formatting into a buffer; the line becomes durable with the queue change that carries it. */
#ifndef HAYAUMA_ENGINE_REPORT_H
#define HAYAUMA_ENGINE_REPORT_H

#include "base/buf.h"
#include "limits/warmup_stream.h"
#include "outcome/outcome.h"
#include "queue/message.h"
#include "worker/suppressions.h"
#include "worker/suspensions.h"

enum report_type {
    REPORT_RECEPTION,
    REPORT_DELIVERY,
    REPORT_TRANSIENT,
    REPORT_BOUNCE,
    REPORT_EXPIRATION,
    REPORT_ADMIN_BOUNCE,
    REPORT_ADMIN_HOLD,
    REPORT_ADMIN_RELEASE,
    REPORT_ADMIN_REBIND,
    REPORT_DELAYED,
    REPORT_REJECTION
};

/* What a session's TLS was. */
struct report_tls {
    const char *policy;            /* "may"; NULL: of a session in */
    const char *protocol, *cipher; /* NULL: it was not encrypted */
    const char *verification;      /* in words: "verified", "not checked"; NULL: of a session in */
    bool resumed;
    const char *plaintext;   /* why it was not encrypted, where it might have been */
    const char *sts_mode;    /* of the policy of MTA-STS that the session was under; NULL: none */
    const char *sts_failure; /* what the policy would have refused; NULL: nothing */
    const char *own;         /* names of the certificate that we showed; NULL: none was asked for */
    const char *client;      /* of a session in: fingerprint of what the client showed; or NULL */
    struct str client_name;  /* the first name of that, where an authority vouches for it */
};

struct report_event {
    enum report_type type;
    const char *node_id;
    int64_t timestamp_ms;
    const struct message *message; /* NULL for REPORT_REJECTION */
    struct str recipient; /* address; empty for REPORT_RECEPTION: then recipients of the message
                             are not named, one line a message */
    struct str variables; /* of a campaign's recipient: their metadata stands in for a message that
                             has none */
    struct str queue, site;
    struct str sender;              /* when message is NULL */
    const struct smtp_reply *reply; /* NULL = none */
    const char *command;            /* what the reply answered: "RCPT TO", or NULL */
    const char *peer_name;          /* exchanger or client name, NULL = none */
    const char *peer_addr;          /* "192.0.2.1:25" */
    const char *source_name, *source_addr, *pool_name;
    const char *proxy_server,
        *proxy_word; /* that connected for the source: "haproxy"; NULL: none */
    uint16_t attempts;
    uint32_t recipients;            /* 0: the message's */
    const char *delivery_protocol;  /* "ESMTP", "SMTP", "LMTP" or NULL */
    const char *reception_protocol; /* NULL: the message's */
    const char *session_id;         /* or NULL */
    const char *user;               /* who has logged in, or tried to; or NULL */
    const struct report_tls *tls;   /* or NULL */
    const char *classification;     /* bounce_classification, or NULL */
    const char *rule;               /* that read the reply, or NULL */
    bool no_suppression;            /* by the rule: the reply says nothing of the address */
    bool suppresses;                /* it puts the address on the suppression list */
    uint64_t size;
    /* Stage times in ms, 0 = not reached: waiting in the queue, connecting, the transaction. */
    uint32_t connect_ms, transaction_ms;
    int64_t next_attempt_ms; /* REPORT_TRANSIENT */
    struct str signers;      /* of what was sent, a JSON array; empty: it was not signed */
    uint64_t omitted;        /* REPORT_REJECTION that stands for this many; 0: for itself */
};

/* An event of m, and of r unless NULL, with what the two say: at timestamp_ms, at node_id. The
 * caller adds what else there is to say of it. */
struct report_event report_event_of(enum report_type type, const char *node_id,
                                    int64_t timestamp_ms, const struct message *m,
                                    const struct recipient *r);
void report_line(struct buf *out, const struct report_event *event);
/* A day of a warm-up stream is over; the line has fields of its own (docs/records.md, Warmup). */
struct report_warmup {
    const char *node_id, *source, *provider;
    int64_t timestamp_ms;
    const struct warmup_past *past;
    uint32_t next_stage, next_cap; /* next_stage from 0, as in past */
};
void report_warmup(struct buf *out, const struct report_warmup *w);
/* An operator has fed in complaints (docs/records.md, Feedback). source: as streams of warm-up have
 * it. */
void report_feedback(struct buf *out, const char *node_id, int64_t timestamp_ms, const char *source,
                     const char *provider, uint32_t complaints);
/* A recipient of a campaign has unsubscribed (docs/records.md, Unsubscription). */
void report_unsubscription(struct buf *out, const char *node_id, const struct suppression *one,
                           const struct msgid *campaign);
/* A rule suspended something, or raised an alarm (docs/records.md, Rule). */
struct report_rule {
    const char *node_id, *rule, *provider, *source;
    struct str site;
    const struct smtp_reply *reply;
    int64_t timestamp_ms, until_ms;
    const char *scope, *name;         /* of the suspension; NULL: there is none */
    const struct suspension *lowered; /* NULL: no limit is */
    bool alarm;
};
void report_rule(struct buf *out, const struct report_rule *r);
const char *report_type_name(enum report_type type);

#endif
