/* The message that an intake session gathers: envelope, body, and what becomes of them at the end
 * of data. The session's life is in inject.c, its mail in inject_message.c, its replies in
 * inject_reply.c. Thread: the session's worker. */
#ifndef HAYAUMA_ENGINE_INJECT_MESSAGE_H
#define HAYAUMA_ENGINE_INJECT_MESSAGE_H

#include "base/proxy_header.h"
#include "intake/accept.h"
#include "intake/inject.h"
#include "worker/peer_text.h"
#include "worker/stream_tls.h"

struct body_hash;
struct inject_lookup;
struct inject_once;
struct report_tls;

/* The answer to a message of a session, from its submission until its reply is written. */
struct inject_answer {
    struct list_node node; /* inject->answers, in the order of the messages */
    struct inject *inject;
    struct accept_waiter waiter;
    struct inject_once *once; /* that is waited for instead, or NULL */
    struct msgid id;
    int result;           /* once nothing is under way */
    uint64_t bytes;       /* that the session held */
    uint64_t behind_from; /* where in the held replies those behind this one begin */
};

/* What a session does; inject.c has the table. */
enum inject_state {
    INJECT_PROXY,   /* a balancer is to say whose connection it is: inject_proxy.c */
    INJECT_OPEN,    /* reads commands and mail */
    INJECT_AGREED,  /* STARTTLS was accepted: the reply is to be sent, and nothing may come */
    INJECT_SHAKING, /* the handshake is under way: inject_tls.c */
    INJECT_BYE,     /* the session's last reply is written */
    INJECT_TALKED,  /* the same, but the client talks on: it is heard out, since bytes that nobody
                       read would turn our close into a reset, and that would destroy the reply */
    INJECT_LINGER,  /* the last reply is sent, our sending has ended; for a client that talked on */
    INJECT_DEAD,    /* its operations are ending */
};

/* How a session receives. A stream of buffers may bring a MiB and more before it is stopped, so a
 * session gets one once mail of it was answered, and loses it when more comes than may wait. */
enum inject_input {
    INJECT_BY_ONE, /* one buffer at a time */
    INJECT_STREAM,
    INJECT_ENDED, /* the client has sent all: replies, then the end */
};

struct login;

struct inject {
    struct worker *worker;
    struct inject_listener *listener;
    struct config *config; /* that of the session's beginning, whatever reloads do */
    const struct config_listener *settings;
    struct smtp_server_options options;
    struct list_node node, dirty_node; /* dirty_node: injects_dirty or injects_dead */
    struct stream stream;
    struct timer timer;
    uint64_t started_ms, deadline_ms;
    struct smtp_server server;
    struct login *login;            /* an AUTH that is awaited, or NULL */
    struct inject_once *once;       /* a message whose key is looked for, or NULL */
    struct inject_lookup *lookup;   /* a recipient that is looked for in a list, or NULL */
    const struct config_user *user; /* who is logged in, or NULL */
    struct config *user_config;     /* a reference, for user */
    struct tls_facts tls;           /* of an encrypted session */
    struct tls_shown *shown; /* the certificate of its client, or NULL: inject_certificate.c */
    struct buf out, sending; /* replies: being written, being sent */
    bool unhurried;          /* the latter: nothing but the client's answer follows */
    struct iovec iov;
    struct list answers; /* of struct inject_answer, awaited: inject_reply.c */
    uint32_t answers_len;
    uint64_t answers_bytes;
    struct buf behind; /* replies behind the first answer, from behind_at on */
    size_t behind_at;
    uint64_t behind_base;
    struct buf pending; /* input that waits for an answer of ours, from pending_at on */
    size_t pending_at;
    enum inject_state state;
    enum inject_input input;
    uint32_t heard; /* bytes that came after our last reply */
    bool stepping;  /* its machine reads: what is refused now is a command that has no question */
    bool proxied;   /* a balancer said whose connection it is ... */
    bool nobody;    /* ... or that it is nobody's it knows, or a proxy did (XCLIENT):
                       relay_networks does not have it */
    bool counted;   /* among the sessions of its listener and its client */
    bool shaking;   /* among the listener's handshakes */
    bool vouched;   /* its client's certificate lets it relay */
    bool external;  /* the user logged in by certificate */
    /* The transaction. */
    struct buf envelope, body;
    struct accept_slice sender, envid;
    struct accept_rcpt *rcpts;
    uint32_t rcpts_len, rcpts_cap;
    uint8_t ret;
    bool smtputf8;          /* MAIL said SMTPUTF8 */
    bool utf8_address;      /* an address of the transaction is not ASCII */
    struct body_hash *hash; /* of the body, made as it comes; NULL: nobody will sign it */
    bool body_lost;         /* no memory for the body: the message is refused at its end */
    size_t body_room;       /* in front of the body, for the trace fields */
    size_t body_last;       /* length of the session's last body, for the next one's buffer */
    uint64_t held_bytes;    /* bytes in shared->intake_bytes: body, envelope, pending */
    uint64_t pending_bytes; /* of them those of pending, which no message takes along */
    struct sockaddr_storage peer;
    char peer_ip[INET6_ADDRSTRLEN], peer_text[PEER_TEXT_BYTES];
    char helo[256];
    char refusal[256]; /* where it has names or figures */
    char id[SESSION_ID_BYTES];
};

#define INJECT_DRAINING "421 4.3.2 shutting down, try again shortly"

/* The refusal of what the intake has no room for. */
extern const char inject_too_much[];

/* A refusal of this session's own, which lives until the next. */
const char *inject_refusal(struct inject *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void inject_envelope_begin(struct inject *s, const struct smtp_mail *mail);
void inject_envelope_add(struct inject *s, const struct smtp_rcpt *rcpt, struct str queue);
/* The last recipient goes, and what the envelope had behind so many bytes. */
void inject_envelope_take_back(struct inject *s, size_t envelope_len);
static inline struct str slice_str(const struct inject *s, struct accept_slice slice)
{
    return (struct str){(const char *)s->envelope.data + slice.at, slice.len};
}
struct str inject_sender(const struct inject *s);
/* False: there is no room for a body. */
bool inject_body_begin(struct inject *s);
void inject_body_add(struct inject *s, struct str bytes);
/* Whether the intake may hold so many bytes more for this session. */
bool inject_has_room(const struct inject *s, uint64_t bytes);
/* Tells the process's count of intake_bytes what the session holds now. */
void inject_count(struct inject *s);
/* Forgets body and recipients. */
void inject_body_drop(struct inject *s);
/* Submits the gathered message, whose answer is then awaited, or has its key looked for
 * (inject_once_pending()): NULL. Else why it is refused. */
const char *inject_message(struct inject *s);
/* inject_message() of a message with a key, which is new: the message gets this id. Where NULL is
 * returned once belongs to the answer. */
const char *inject_message_keyed(struct inject *s, const struct msgid *id,
                                 struct inject_once *once);
/* In inject_answer.c: answers the question whether the message is taken, as inject_message() says.
 */
void inject_message_end(struct inject *s, const char *refusal);
/* In inject_once.c: looks for the key of the gathered message, if it has one. NULL, or why it is
 * refused. */
const char *inject_once_begin(struct inject *s);
bool inject_once_pending(const struct inject *s);
void inject_once_drop(struct inject *s); /* the session ends */
/* Completes the order of its message, whose answer waits for inject_once_waiter(). */
void inject_once_order(struct inject_once *once, struct accept_order *order,
                       struct inject_answer *answer);
struct accept_waiter *inject_once_waiter(struct inject_once *once);
void inject_once_forget(struct inject_once *once); /* its answer goes */
/* In inject_suppressed.c: whether the last recipient of the envelope, which had so many bytes
 * without it, is looked up in the suppression list. RCPT is then answered, or will be. */
bool inject_lookup(struct inject *s, size_t envelope_len);
bool inject_lookup_pending(const struct inject *s);
void inject_lookup_drop(struct inject *s); /* the session ends */
/* Whether the session's client may send mail to others. */
bool inject_may_relay(const struct inject *s);
/* In inject_reject.c: counts and records what the client was refused. Lines go to the open settle,
 * once a turn; at the end refusals that could not be written are named. */
void inject_refused(struct smtp_server *server, struct str text);
void inject_rejections_flush(struct worker *w);
void inject_rejections_end(struct worker *w);
/* In inject_listen.c: closes the listener once accepting has ended, so that clients go elsewhere. A
 * second call does nothing. */
void inject_listener_close(struct inject_listener *l);
/* In inject_reply.c: replies in order. The buffer that the next reply is written to. */
struct buf *inject_out(struct inject *s);
/* Bytes of replies that are not being sent. */
size_t inject_unsent(const struct inject *s);
/* Whether somebody else makes the answer to what the client said last: no step is taken then. */
bool inject_asked_others(const struct inject *s);
/* Whether the session may take more of what its client pipelines. */
bool inject_may_go_on(const struct inject *s);
/* Submits m, whose answer is then awaited: from here on replies wait behind it. The session's bytes
 * are held until the commit. once: of its key, or NULL. False: no memory. */
bool inject_submit(struct inject *s, struct message *m, int64_t due_ms, struct inject_once *once);
/* The message was accepted before, under this id: the answer says so once more. */
void inject_answer_again(struct inject *s, const struct msgid *id);
/* The answer's commit has ended. */
void inject_answer_came(struct inject_answer *a, int result);
void inject_answers_forget(struct inject *s);
/* In inject_proxy.c: whether the connection is a balancer's, and must begin with a header. */
bool inject_proxy_expected(const struct inject *s);
/* What came of the header. PROXY_HEADER_DONE: s->peer is the client's; what follows the header is
 * pending. */
enum proxy_header_status inject_proxy_input(struct inject *s, const uint8_t *data, size_t len);
/* The header did not come in time. (A balancer that sends none waits for our greeting, and both
 * would wait for ever.) */
void inject_proxy_late(struct inject *s);
/* Whether the client is a proxy that may say whose commands follow (XCLIENT); answers when it does.
 */
bool inject_may_name_client(const struct inject *s);
void inject_xclient(struct inject *s);
/* In inject_answer.c: answers a question of the session's machine, but for STARTTLS. */
void inject_answer(struct inject *s, enum smtp_server_want want);
/* In inject_dialogue.c, for those who watch: s->sending is about to go; the step's question; what
 * the step has refused. */
void inject_watched_said(const struct inject *s);
void inject_watched_heard(const struct inject *s, enum smtp_server_want want);
void inject_watched_refused(const struct inject *s);
/* In inject_tls.c: answers STARTTLS, behind which so many bytes have come, and says whether the
 * handshake follows; begins it (0 or -errno): its end is told by inject_shaken(), or the session
 * ended within it. */
bool inject_tls_implicit(const struct inject *s); /* sessions of its listener begin with TLS */
bool inject_tls_answer(struct inject *s, size_t behind);
int inject_tls_begin(struct inject *s) MUST_USE;
/* The session is in no handshake: gives its place among those of the listener back, if it has one.
 */
void inject_handshake_over(struct inject *s);
void inject_tls_failed(struct inject *s, const char *why);
/* In inject_certificate.c: looks at what the client showed in its handshake, and says why such a
 * client is not served, or NULL; forgets it. */
const char *inject_certificate_take(struct inject *s);
void inject_certificate_drop(struct inject *s);
/* The user of c whose certificate the client has shown; NULL: it is nobody's. */
const struct config_user *inject_certificate_user(const struct inject *s, const struct config *c);
/* What records say of the session's protocol and encryption; out, or NULL: it is not encrypted. */
const char *inject_protocol(const struct inject *s); /* "ESMTPS" (RFC 3848) */
const struct report_tls *inject_tls_report(const struct inject *s, struct report_tls *out);
/* In inject.c: the session is another client's from here on, NULL: of one that nobody knows. It
 * begins anew, as that client's. */
void inject_admit_other(struct inject *s, const struct sockaddr_storage *client);
/* In inject.c: a session on an accepted connection; some of its answers were written; its handshake
 * is over. */
void inject_begin(struct inject_listener *l, int fd);
void inject_answered(struct inject *s);
void inject_shaken(struct inject *s, bool complete);
/* The session goes on with what its client has sent meanwhile. */
void inject_resume(struct inject *s);

#endif
