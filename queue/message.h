/* A message and its recipients in memory: what the store holds and the engine moves.
 *
 * message: immutable once submitted to the queue; counted references, any thread. Its content is
 * one block. recipient: one per recipient that is in memory; owned by one thread at a time (the
 * worker of its shard, or the queue while a change that names it is under way). */
#ifndef HAYAUMA_QUEUE_MESSAGE_H
#define HAYAUMA_QUEUE_MESSAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/map.h"
#include "base/msgid.h"
#include "base/str.h"

enum message_flags {
    MESSAGE_8BIT = 1 << 0,      /* some content byte > 127 */
    MESSAGE_SMTPUTF8 = 1 << 1,  /* needs SMTPUTF8 */
    MESSAGE_DOT_LINES = 1 << 2, /* some line starts with '.' */
    MESSAGE_NOTICE = 1 << 3,    /* a DSN of ours: its own lifetime, never bounced */
    MESSAGE_RECIPE = 1 << 4,    /* content is what letters are made of (engine/mail/recipe.h) */
};
/* All that this build knows. Mail with another one is of a newer version, and is not sent: its
 * content may be no lines of text (1 << 5). */
#define MESSAGE_FLAGS 0x1fu

/* Whether the suppression list is asked once more before an attempt (engine/deliver/suppressed.h).
 */
enum message_suppression {
    MESSAGE_SUPPRESSION_NONE,
    MESSAGE_SUPPRESSION_ALL, /* what holds all mail holds this */
    MESSAGE_SUPPRESSION_ANY, /* and if it is a campaign's, what holds those */
};

/* Header fields that go out in front of a message's content, and are no part of it: signatures. */
struct message_front {
    struct message_front *older; /* one that this replaced: a send may still read from it */
    uint64_t generation;         /* of the configuration that it was made by */
    int64_t good_until_ms;       /* wall clock */
    struct str fields;           /* whole fields with their line ends; may be empty */
    struct str signers;          /* a JSON array for records; may be empty */
};

struct signing;

/* All strings live in the same allocation as the struct. Text fields may be empty. */
struct message {
    _Atomic uint32_t refs;
    struct msgid id;
    int64_t created_ms;  /* wall clock of reception */
    int64_t expires_ms;  /* wall clock: its mail ends then, at the latest; 0: no such time is set */
    uint64_t born_ms;    /* monotonic clock of the same; not stored, 0: read from the store */
    uint32_t flags;      /* enum message_flags */
    uint8_t ret;         /* enum smtp_ret */
    uint8_t priority;    /* band 0 (first) .. 9; default 5 */
    uint8_t suppression; /* enum message_suppression */
    uint32_t flow;       /* id that new recipients get; not stored with the message */
    uint32_t recipients; /* in all, at acceptance; 0: they come later */
    struct str sender;   /* return path without <>, empty: null sender */
    struct str envid;    /* xtext */
    struct str tenant, campaign;
    struct str meta;        /* a JSON object or empty; goes into records */
    struct str protocol;    /* how it came: "ESMTP", "LMTP", "HTTP", "internal" */
    struct str origin;      /* peer address "192.0.2.1:4711" */
    struct str trace;       /* reserved: selected headers for records, a JSON object or empty */
    struct str body_hash;   /* of content, for its signatures (engine/mail/body_hash.h), or empty */
    struct str dkim_domain; /* whose key signs it, in place of its author's; or empty */
    uint8_t *content;       /* CRLF lines, ends in CRLF, not dot-stuffed; own allocation */
    uint64_t content_len;
    void *content_block; /* the allocation that content lies in; NULL: content itself is it */
    struct message *content_of; /* whose content it is, a reference; NULL: its own */
    /* What this letter to one recipient was rendered from, a reference; NULL: it was not. */
    struct message *recipe;
    /* What the worker of its shard makes when it is first needed; nothing else of a message
     * changes. Converted messages for peers that cannot take this one as it is, by enum convert:
     * references, or NULL; and bits for those that cannot be made (engine/deliver/conversion.h). */
    struct message *converted[2];
    uint8_t inconvertible;
    /* Its signatures, or NULL, and those that are being made (engine/deliver/signing.h). */
    struct message_front *front;
    struct signing *signing;
};

/* A copy of fields (strings deep-copied); content (malloc'd) and converted are taken over.
 * References: 1.
 * NULL when memory is out (content is then still the caller's). */
struct message *message_new(const struct message *fields);
/* Another of the same, for another worker: what changes of a message is its worker's. They have one
 * content in memory. NULL when memory is out. */
struct message *message_share(struct message *m);
struct message *message_ref(struct message *m);
void message_unref(struct message *m);
/* A front of copies of fields and signers, older and the rest zero. NULL when memory is out. */
struct message_front *message_front_new(struct str fields, struct str signers);
/* front is m's from here on, in place of what m had. */
void message_put_front(struct message *m, struct message_front *front);
/* Bytes of messages and recipients alive in the process, for the bounded window and intake memory.
 */
uint64_t message_bytes_alive(void);

enum recipient_flags {
    RECIPIENT_WARNED = 1 << 0, /* the delay notice was sent */
    RECIPIENT_HELD = 1 << 1,   /* due_ms is QUEUE_DUE_HELD until released */
};
#define RECIPIENT_FLAGS 0x03u /* all that this build knows: as MESSAGE_FLAGS */

#define QUEUE_NAME_MAX   400
#define PRIORITY_DEFAULT 5
#define QUEUE_DUE_HELD   INT64_C(0xffffffffffff)

struct lane;

struct recipient {
    struct list_node node;     /* the lane's window, or a transaction's list */
    struct map_node in_memory; /* the worker's table of what is in memory */
    struct message *message;   /* holds a reference */
    struct lane *lane;         /* the engine's, while it is in memory there */
    /* Key of the stored row: (flow, queue, due_ms, message id, index). */
    int64_t due_ms;      /* wall clock of the next attempt */
    uint32_t flow;       /* id; 0 until it is known */
    uint32_t index;      /* nth recipient of its message, from 0 */
    uint8_t priority;    /* the flow's */
    uint8_t state;       /* the worker's */
    bool next_host_used; /* the worker's: in this attempt it was given to another host already */
    uint8_t wanted;      /* the worker's: see admin_obey() */
    /* Stored state. */
    uint8_t notify; /* enum smtp_dsn_notify bits, 0 = default */
    uint8_t flags;  /* enum recipient_flags */
    uint16_t attempts;
    uint32_t lifetime_s;     /* from the message's reception on; see recipient_expires_ms() */
    int64_t last_attempt_ms; /* 0 = none yet */
    struct str queue;        /* lane name: the domain in lower-case A-labels, <= QUEUE_NAME_MAX */
    struct str address;      /* as given */
    struct str orcpt;        /* as RCPT gave it, or empty */
    struct str variables;    /* what a letter is rendered with: recipe_put_recipient(), or empty */
    struct str last_error;   /* "450 4.7.1 text" of the last attempt, own allocation, or empty */
    struct str unknown;      /* fields of a newer build, to be stored again with the row; own
                                allocation, or empty */
};

/* Wall clock at which mail of m that has this lifetime expires if it is not delivered. */
static inline int64_t message_expires_ms(const struct message *m, uint32_t lifetime_s)
{
    int64_t ms = m->created_ms + (int64_t)lifetime_s * 1000;

    return m->expires_ms != 0 && m->expires_ms < ms ? m->expires_ms : ms;
}

static inline int64_t recipient_expires_ms(const struct recipient *r)
{
    return message_expires_ms(r->message, r->lifetime_s);
}

/* One allocation with all strings but last_error. Takes its own reference to message.
 * NULL when memory is out. */
struct recipient *recipient_new(struct message *message, uint32_t index, struct str queue,
                                struct str address, struct str orcpt, struct str variables);
/* If r's message is a letter that was rendered from a recipe, it is the recipe again from now on.
 */
void recipient_drop_letter(struct recipient *r);
/* At most 300 bytes are kept. */
void recipient_set_error(struct recipient *r, struct str text);
/* r has no unknown fields yet. 0 or -ENOMEM. */
int recipient_set_unknown(struct recipient *r, struct str fields) MUST_USE;
/* Drops its message reference. NULL is accepted. */
void recipient_free(struct recipient *r);

#endif
