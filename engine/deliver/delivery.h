/* One outbound session: a connection to an exchanger, its smtp_client and the transactions inside.
 *
 * delivery_advance() is the only place where protocol, I/O and time meet: it absorbs an event,
 * steps the protocol, hands out results, takes more work and arms what comes next. Death has two
 * phases: closing (operations cancelled) and free (end of a turn in which none is in flight). */
#ifndef HAYAUMA_ENGINE_DELIVERY_H
#define HAYAUMA_ENGINE_DELIVERY_H

#include "deliver/dial.h"
#include "deliver/secure.h"
#include "schedule/channel.h"
#include "smtp/client.h"
#include "worker/stream.h"
#include "worker/worker.h"

#define DELIVERY_IOV_MAX   32
#define DELIVERY_RCPTS_MAX 256

struct transaction;
struct proxying;
struct delivery_login;

enum delivery_state {
    DELIVERY_CONNECTING, /* waiting for the connect operation */
    DELIVERY_PROXYING,   /* connected with the source's proxy, which is to connect on */
    DELIVERY_GREETING,   /* connected; banner, EHLO, STARTTLS */
    DELIVERY_HANDSHAKE,  /* of TLS; then the greeting goes on */
    DELIVERY_OPEN,       /* ready: transactions or idle */
    DELIVERY_QUITTING,   /* QUIT sent or queued; nothing more is submitted */
    DELIVERY_CLOSING,    /* operations are being cancelled; the fd is closed with the last */
    DELIVERY_STATES
};

struct delivery {
    struct worker *worker;
    struct site *site;
    struct channel *channel;                           /* of site */
    struct channel_session session;                    /* what the channel asks of it */
    struct list_node site_node, idle_node, dirty_node; /* dirty_node: deliveries_dirty or _dead */
    struct list_node idle_bucket;                      /* worker->idle */
    struct list_node all_node;                         /* worker->deliveries_all */
    struct dial dial;
    struct stream stream;
    struct secure secure;
    struct proxying *proxying;    /* the way through a proxy, until the session is open; or NULL */
    struct delivery_login *login; /* an exchange of AUTH, or NULL */
    struct timer timer;
    uint64_t deadline_ms; /* monotonic; the timer may fire earlier and is then re-armed */
    struct body_watch {   /* of content on its way: see watch_body() */
        uint64_t since_ms, look_ms, taken_bytes;
        bool looked, left;
    } body;
    struct smtp_client *client;
    enum delivery_state state;
    bool greeted;  /* EHLO or HELO was accepted; ready at the turn's end */
    bool yielding; /* takes nothing more; quits when empty */
    bool reopen;   /* closing leads to the next address */
    bool again;    /* or once more to the same */
    bool worked;   /* a transaction of it got something through */
    const struct limits_lowered *worked_for; /* of which a message got through last, ... */
    uint64_t worked_ms;                      /* ... and when; NULL: of nothing */
    bool unsendable;      /* the peer has closed: what it had said is still to be received */
    bool orphaned;        /* ended, since its own address or its route has gone from this machine */
    bool route_news;      /* some of this machine's routes may have changed since it was looked */
    uint64_t unrouted_ms; /* monotonic: it was seen that it has no route; 0: it has one */
    uint64_t doubt_bytes; /* handed to the kernel before the first message that is in doubt */
    bool refused_for_now; /* some address of this attempt may take mail later */
    int error;            /* -errno that ended the connection, 0: none */
    const struct transaction *front; /* the one in which the session ended; NULL: it has not */
    struct list carried;             /* transactions that the protocol has: transactions_carry() */
    struct list letters;             /* transactions that are not submitted: they wait for their
                                        signatures, or for room */
    uint32_t letters_len;
    uint32_t submitted, completed; /* with the letters */
    uint32_t refused;              /* transactions in a row that got nothing through */
    uint32_t rcpts_max;            /* learned from a refusal; 0: not yet */
    uint32_t transaction_ms;       /* how long the last transaction took */
    uint64_t started_ms, connected_ms;
    uint64_t idle_ms; /* monotonic: since then it is without work */
    struct iovec iov[DELIVERY_IOV_MAX];
    bool unhurried;        /* the send of iov: only a reply of the peer follows */
    struct message **held; /* messages that a send under way may still read from */
    size_t held_len;
    char id[SESSION_ID_BYTES];
    char source_addr[PEER_TEXT_BYTES];
};

/* Opens a session for c, whose slot the caller has taken; urgent: for urgent mail alone. False: no
 * memory or descriptor; nothing changed. */
bool delivery_open(struct channel *c, bool urgent);
/* Gives an idle or ready session work; false when there was none to take. */
bool delivery_work(struct delivery *d);
/* Drops a message reference, at once or when a send under way cannot touch its content any more. */
void delivery_release(struct delivery *d, struct message *m);
/* AUTH goes on, or has failed: what login_step() began has ended. */
void delivery_logged_on(struct delivery *d);
/* The session may have something to do, as when a letter may be submitted: the end of the turn
 * looks at it. */
void delivery_dirty(struct delivery *d);
/* The session takes nothing more: its peer is of no use for now, or asked for less, and then the
 * destination gets one session less. */
void delivery_retire(struct delivery *d, bool one_less);
/* What ended the session where no reply did (client: its words, code 0), with what the peer said.
 */
void delivery_own_words(const struct delivery *d, enum smtp_stage stage,
                        const struct smtp_reply *client, struct smtp_reply *out);
/* Ends an idle session politely. */
void delivery_quit(struct delivery *d);
/* Sends what sessions have to say; frees those that are through. Once a turn. */
void delivery_flush_all(struct worker *w);
/* Sessions whose own address this machine does not hold any more end. Once a turn. */
void deliveries_look_sources(struct worker *w);
/* Drain: idle sessions quit, others after what is in flight; hard: all are cut. */
void delivery_drain_all(struct worker *w, bool hard);
const char *delivery_state_name(enum delivery_state state);

#endif
