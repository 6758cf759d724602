/* The message that an intake session gathers: envelope, body, and what becomes of them at the end
 * of data. inject.c has the session's life, this has its mail. */
#ifndef HAYAUMA_ENGINE_INJECT_MESSAGE_H
#define HAYAUMA_ENGINE_INJECT_MESSAGE_H

#include "engine/inject.h"
#include "engine/peer_text.h"

/* Envelope strings live one behind the other in inject->envelope; these are offsets into it. */
struct inject_slice {
    uint32_t at, len;
};

struct inject_rcpt {
    struct inject_slice address, queue, orcpt;
    uint8_t notify;
};

/* A message under way to its commit; outlives its session. */
struct inject_commit {
    struct queue_change change;
    struct worker_note note; /* to the worker that owns the shard */
    struct worker *worker;
    struct inject *inject; /* NULL when the session has ended */
    struct message *message;
    uint64_t held_bytes; /* bytes in engine->intake_bytes */
    uint32_t shard;
    struct queue_row rows[]; /* [recipients] */
};

struct inject {
    struct worker *worker;
    struct inject_listener *listener;
    struct config *config; /* that of its beginning, whatever reloads do */
    const struct config_listener *settings;
    struct smtp_server_options options;
    struct list_node node, dirty_node; /* dirty_node: injects_dirty or injects_dead */
    struct io_op recv, send;
    struct timer timer;
    uint64_t started_ms, deadline_ms;
    struct smtp_server server;
    struct buf out, sending; /* replies: being written, being sent */
    struct iovec iov;
    struct buf pending; /* input that waits for an answer of ours, from pending_at on */
    size_t pending_at;
    int fd;
    bool dead, closing, paused, counted;
    bool ended;   /* the client has sent all: replies, then the end */
    bool talking; /* the client goes on after our last word: heard out, or a reset takes the word */
    bool lingering;
    struct inject_commit *commit; /* awaited */
    /* The transaction. */
    struct buf envelope, body;
    struct inject_slice sender, envid;
    struct inject_rcpt *rcpts;
    uint32_t rcpts_len, rcpts_cap;
    uint8_t ret;
    bool smtputf8;       /* said of it */
    bool utf8_address;   /* one of its addresses is not ASCII */
    bool body_lost;      /* no memory for it: refused at its end */
    size_t body_room;    /* in front of it, for the trace fields */
    size_t body_last;    /* of the last message of the session, for the next one's buffer */
    uint64_t held_bytes; /* bytes in engine->intake_bytes: body, envelope, pending */
    struct sockaddr_storage peer;
    char peer_ip[INET6_ADDRSTRLEN], peer_text[PEER_TEXT_BYTES];
    char helo[256];
    char id[24];
};

void inject_envelope_begin(struct inject *s, const struct smtp_mail *mail);
void inject_envelope_add(struct inject *s, const struct smtp_rcpt *rcpt, struct str queue);
struct str inject_sender(const struct inject *s);
void inject_body_begin(struct inject *s);
void inject_body_add(struct inject *s, struct str bytes);
/* Whether the intake may hold so many bytes more for this session. */
bool inject_has_room(const struct inject *s, uint64_t bytes);
/* Tells the process's count of intake_bytes what the session holds now. */
void inject_count(struct inject *s);
/* Forgets body and recipients. */
void inject_body_drop(struct inject *s);
/* Makes the gathered message durable: submitted, inject_committed() follows with the reply. NULL:
 * refused, *refusal says why. */
struct inject_commit *inject_message(struct inject *s, const char **refusal);
/* Whether its client may send mail to others. */
bool inject_may_relay(const struct inject *s);
/* In inject_reject.c: records what the client was told; lines to the open settle, once a turn; what
 * could not be written is named at the end. */
void inject_reject(struct inject *s, const char *reply, struct str rcpt, const char *command);
void inject_rejections_flush(struct worker *w);
void inject_rejections_end(struct worker *w);
/* In inject_listen.c: once accepting has ended, so that clients go elsewhere; more often does no
 * harm. */
void inject_listener_close(struct inject_listener *l);
/* In inject.c: a session on an accepted connection; the answer to the end of data. */
void inject_begin(struct inject_listener *l, int fd);
void inject_committed(struct inject *s, const char *reply);

#endif
