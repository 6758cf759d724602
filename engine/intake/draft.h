/* Content that was gathered, on its way to a message: looked at, stripped of what is for us alone,
 * stamped. The same for whatever brings mail. Any thread. */
#ifndef HAYAUMA_ENGINE_DRAFT_H
#define HAYAUMA_ENGINE_DRAFT_H

#include "base/buf.h"
#include "config/config.h"
#include "mail/trace.h"
#include "queue/queue.h"

struct draft {
    /* The caller's. */
    const struct config *config;
    struct queue *queue;
    struct buf *body; /* room free bytes, then the content; becomes the message's where it fits */
    size_t room;      /* trace_stamp_room(&stamp) */
    struct trace_stamp stamp;
    uint32_t received_max;
    uint32_t recipients;
    uint64_t born_ms; /* monotonic */
    struct str sender, envid, protocol, origin, meta;
    struct str body_hash;        /* message.body_hash */
    struct str tenant, campaign; /* instead of what the header says; empty: that */
    struct str dkim_domain;      /* whose key signs, in place of the author's; or empty */
    int priority;                /* the same; -1: that */
    uint8_t priority_cap;        /* 1 + the best that it may get, whatever is said; 0: any */
    struct str pool; /* instead of what rules choose (config_pool_chosen()); empty: that */
    const struct config_listener *listener; /* by whose rules, or NULL; of client */
    const struct sockaddr *client;
    struct config_sender_rule rule; /* as whom the mail may be; senders NULL: as anybody */
    uint32_t headers_ignored;       /* a bit for each enum config_header that means nothing */
    uint8_t ret;
    uint8_t suppression;       /* message.suppression */
    bool eight_bit, dot_lines; /* of the content */
    bool smtputf8;             /* the client may send what needs it */
    bool utf8_address;         /* an address of the envelope is not ASCII */
    /* Out. */
    int64_t not_before_ms; /* the header's; 0: none */
    struct buf refusal;    /* a reply that names what it is about; the caller's to free */
};

/* The message, with one reference. NULL: *refusal is the reply. */
struct message *draft_message(struct draft *d, const char **refusal);

#endif
