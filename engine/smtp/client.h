/* The sending side of SMTP and LMTP (RFC 5321, 2033, 2920, 3030, 1870, 6152, 6531, 3461, 9422) as a
 * pure machine. Several transactions may be under way on one connection; a FIFO of commands with
 * their expected replies knows which reply belongs to which. No socket, clock or malloc beyond its
 * own command buffer.
 *
 * What goes on the wire, in steady state one round trip per message (DESIGN.md section 5):
 */
/* clang-format off */
/*   PIPELINING + CHUNKING   RSET MAIL RCPT.. BDAT n LAST <body>, up to pipeline_max transactions in
 *                           flight; a body of more than 1 MiB waits for its recipients' replies
 *   PIPELINING              MAIL RCPT.. DATA | <body> . RSET MAIL RCPT.. DATA | ...: the next group
 *                           travels with the end of the previous body
 *   neither                 a command at a time */
/* clang-format on */
/* After DATA with no accepted recipient and a 354 a lone dot is sent and its reply ignored (RFC
 * 2920 3.1); such a transaction delivers to nobody.
 *
 * RSET goes before a MAIL unless the peer is known to have no transaction open: at the beginning,
 * and behind an end of a message that was answered with 2xx. What a refused BDAT leaves behind is
 * indeterminate (RFC 3030 4.2), and some peers keep a transaction behind a refused dot too: the
 * next message's recipients would go under its sender, and its content to both messages'
 * recipients. A RSET in the group costs no round trip.
 *
 * STARTTLS (RFC 3207) goes alone, behind EHLO; the handshake is the caller's. Behind it the session
 * begins anew with EHLO, and what the server offered before counts for nothing.
 *
 * AUTH (RFC 4954) follows the last EHLO where the options have a user; a session in which it is
 * refused, or cannot be had, is none. What SCRAM and CRAM-MD5 say, the caller computes.
 *
 * Use:  smtp_client_input() with what was received, then smtp_client_next_event() until
 *       SMTP_EVENT_NONE, then smtp_client_output() and send it; smtp_client_sent() when sent. */
#ifndef HAYAUMA_SMTP_CLIENT_H
#define HAYAUMA_SMTP_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/list.h"
#include "base/pool.h"
#include "smtp/reply.h"
#include "smtp/server.h"

enum smtp_capability {
    SMTP_CAP_PIPELINING = 1 << 0,
    SMTP_CAP_CHUNKING = 1 << 1,
    SMTP_CAP_8BITMIME = 1 << 2,
    SMTP_CAP_SMTPUTF8 = 1 << 3,
    SMTP_CAP_SIZE = 1 << 4,
    SMTP_CAP_DSN = 1 << 5,
    SMTP_CAP_STARTTLS = 1 << 6,
    SMTP_CAP_ENHANCED = 1 << 7,
    SMTP_CAP_LIMITS = 1 << 8,
    SMTP_CAP_BINARYMIME = 1 << 9,
    SMTP_CAP_AUTH = 1 << 10
};

/* Where a session or a recipient was when something happened; names in smtp_stage_name(). */
enum smtp_stage {
    SMTP_STAGE_CONNECT,
    SMTP_STAGE_BANNER,
    SMTP_STAGE_EHLO,
    SMTP_STAGE_HELO,
    SMTP_STAGE_STARTTLS,
    SMTP_STAGE_AUTH,
    SMTP_STAGE_READY, /* nothing expected */
    SMTP_STAGE_MAIL,
    SMTP_STAGE_RCPT,
    SMTP_STAGE_DATA,
    SMTP_STAGE_BODY, /* BODY: dot or BDAT LAST */
    SMTP_STAGE_RSET,
    SMTP_STAGE_QUIT,
    SMTP_STAGES
};
const char *smtp_stage_name(enum smtp_stage stage);

enum smtp_fate {
    SMTP_FATE_REPLY,    /* the server answered: reply, stage */
    SMTP_FATE_NOT_SENT, /* the session ended and the server cannot have taken the message */
    SMTP_FATE_LOST,     /* the session ended after the end of the message was handed to the kernel
                           and before its reply: possibly delivered */
    SMTP_FATE_UNABLE,   /* the peer lacks what the message needs (see unable): nothing was sent */
};
enum smtp_unable {
    SMTP_UNABLE_NONE,
    SMTP_UNABLE_8BIT,
    SMTP_UNABLE_UTF8,
    SMTP_UNABLE_SIZE,
    SMTP_UNABLE_ADDRESS,     /* sender or recipient is no valid path and never reaches the wire */
    SMTP_UNABLE_UTF8_HEADER, /* the caller's: addresses are ASCII, the header is not */
};

struct smtp_transaction_rcpt {
    struct str address;
    uint8_t notify;
    struct str orcpt; /* as RCPT carries it, or empty */
    bool held;        /* never reaches the wire: SMTP_UNABLE_ADDRESS */
    uint8_t state;    /* private */
};
/* What would be no valid envid or orcpt parameter is left out: the mail matters more. */

/* What is sent as one content, one piece after the other: header fields of ours, and what was
 * stored. Lines and CRLFs may go over from one to the next. */
#define SMTP_PIECES_MAX 2
struct smtp_piece {
    const uint8_t *bytes;
    size_t len;
};

struct smtp_transaction {  /* the caller's; lives until its SMTP_EVENT_DONE */
    struct list_node node; /* private */
    struct str sender;
    struct str envid; /* xtext or empty */
    enum smtp_ret ret;
    bool eight_bit, smtputf8, dot_lines;
    struct smtp_piece pieces[SMTP_PIECES_MAX]; /* whole message, CRLF lines, not dot-stuffed, ends
                                                  in CRLF */
    struct smtp_transaction_rcpt *rcpts;
    uint16_t rcpts_len;
    void *owner;
    /* private */
    uint16_t rcpts_sent, rcpts_replied, rcpts_accepted, rcpts_final;
    uint8_t state, expected, unable;
    bool mail_accepted, mail_refused, in_output;
    bool stray_accepted;  /* a recipient, although the sender was refused */
    bool end_refused;     /* by one reply at least */
    uint8_t line;         /* enum line_state: behind the pieces before the present one */
    uint8_t piece;        /* the present one */
    size_t piece_sent;    /* of it */
    uint64_t content_len; /* of all pieces */
};
/* Whether the server answered its first command. */
static inline bool smtp_transaction_answered(const struct smtp_transaction *t)
{
    return t->mail_accepted || t->mail_refused;
}

enum smtp_event_kind {
    SMTP_EVENT_NONE,
    SMTP_EVENT_STARTTLS,  /* the server waits for the handshake; smtp_client_secured() goes on */
    SMTP_EVENT_AUTH,      /* mechanism, step, challenge; smtp_client_auth_respond() goes on, or
                             smtp_client_auth_refuse() ends the session */
    SMTP_EVENT_READY,     /* greeted and EHLO done: capabilities are set. smtp_client_tls_refused():
                             reply is that to STARTTLS */
    SMTP_EVENT_RECIPIENT, /* final for one recipient: transaction, rcpt, fate, stage, reply */
    SMTP_EVENT_DONE,      /* final for the transaction; the machine forgets it */
    SMTP_EVENT_CLOSE,     /* the session is over: stage, reply (code 0: protocol error, text says);
                             every transaction's events came before. Close the connection */
};

struct smtp_event {
    enum smtp_event_kind kind;
    struct smtp_transaction *transaction;
    uint16_t rcpt;
    enum smtp_fate fate;
    enum smtp_unable unable;
    enum smtp_stage stage;
    bool own;                 /* CLOSE: the reply is our own words */
    enum smtp_auth mechanism; /* AUTH */
    uint8_t step;             /* of its responses, from 0 */
    bool would_bind;      /* the login could be bound to TLS, and the server does not offer that */
    struct str challenge; /* bytes; empty before the first */
    const struct smtp_reply *reply; /* never NULL; our own words mostly have code 0. Valid until the
                                       next call */
};

/* Command text of one output. More does not fit and goes with the next: bounded memory, and pieces
 * that point into it never move. */
#define SMTP_CLIENT_OUTPUT_BYTES 1280

struct smtp_client_options { /* immutable, shared */
    const char *ehlo_name;
    /* A server of such a name is ourselves: as if it had said 521. Ends with NULL; or NULL. */
    const char *const *own_names;
    bool lmtp;
    uint16_t pipeline_max;       /* transactions in flight with CHUNKING; 1 = none */
    uint32_t pipeline_bytes_max; /* content bytes in flight beyond the first transaction */
    bool no_chunking, no_pipelining;
    /* Log in as this user (at most 255 bytes, and 511 of password), if smtp_client_trust() says so;
     * without it there is no session. NULL: no AUTH. */
    const char *auth_user, *auth_password;
    uint32_t auth_not; /* mechanisms that the password does not suit */
    /* Buffers of SMTP_CLIENT_OUTPUT_BYTES, the thread's: a session holds one only while an output
     * is on its way. */
    struct pool *outputs;
};

struct smtp_client;

enum smtp_tls {
    SMTP_TLS_NONE,     /* STARTTLS is not said */
    SMTP_TLS_MAY,      /* it is where it is offered; a session that is refused it goes on without */
    SMTP_TLS_REQUIRED, /* without it there is no session */
};

/* NULL when memory is out. */
struct smtp_client *smtp_client_new(const struct smtp_client_options *options);
/* Before anything is received; SMTP_TLS_NONE else. */
void smtp_client_use_tls(struct smtp_client *c, enum smtp_tls tls);
/* The handshake is complete: behind SMTP_EVENT_STARTTLS, or before anything is received where the
 * connection begins with it. What is received and sent from here on is encrypted. binds: a login
 * can be bound to that (SCRAM-SHA-256-PLUS), and is where the server offers it. */
void smtp_client_secured(struct smtp_client *c, bool binds);
/* The server may be logged in at: the session is with nobody else, which was proved, or that does
 * not matter. The mechanisms that are offered are tried in this order, where it is proved:
 * SCRAM-SHA-256-PLUS, SCRAM-SHA-256, PLAIN, LOGIN, CRAM-MD5; else those first that do not show the
 * password: SCRAM-SHA-256-PLUS, SCRAM-SHA-256, CRAM-MD5, PLAIN, LOGIN. One that is refused (5xx) is
 * followed by the next where it is proved with whom the session is: of some servers' users the keys
 * of SCRAM are not known. */
void smtp_client_trust(struct smtp_client *c, bool proved);
/* Behind SMTP_EVENT_AUTH: what is to be said, or why there can be no session. */
void smtp_client_auth_respond(struct smtp_client *c, struct str response);
void smtp_client_auth_refuse(struct smtp_client *c, const char *why);
/* STARTTLS was offered and refused, and the session goes on without (SMTP_TLS_MAY). */
bool smtp_client_tls_refused(const struct smtp_client *c);
/* Only pipeline_max and outputs must stay as they were. */
void smtp_client_use_options(struct smtp_client *c, const struct smtp_client_options *options);
/* Transactions still inside are forgotten (call smtp_client_lost() and drain events first). */
void smtp_client_free(struct smtp_client *c);

/* Whether another transaction may be submitted now (READY seen, pipeline not full, no QUIT). */
bool smtp_client_can_submit(const struct smtp_client *c);
/* How many more may be, as far as their contents are short. */
uint32_t smtp_client_room(const struct smtp_client *c);
/* What the peer lacks for t, which would never be sent. */
enum smtp_unable smtp_client_lacks(const struct smtp_client *c, const struct smtp_transaction *t);
/* Transactions inside. */
uint32_t smtp_client_in_flight(const struct smtp_client *c);
/* Only when smtp_client_can_submit(). Ask for events afterwards: what cannot be sent is final at
 * once. */
void smtp_client_submit(struct smtp_client *c, struct smtp_transaction *t);
void smtp_client_quit(struct smtp_client *c); /* after what is in flight */

/* All of in is consumed. */
void smtp_client_input(struct smtp_client *c, const uint8_t *in, size_t len);
/* The connection ended or timed out (input given before is still honoured): everything inside gets
 * its fate, then CLOSE. error: what to say
 * ("connection reset by peer", "timeout"). */
void smtp_client_lost(struct smtp_client *c, const char *error);
/* Then: what the peer had said of a reply that it did not end; often empty. */
struct str smtp_client_unfinished(const struct smtp_client *c);
enum smtp_event_kind smtp_client_next_event(struct smtp_client *c, struct smtp_event *event);

/* What to send next, up to iov_max pieces; 0 when there is nothing. The pieces stay valid until
 * smtp_client_sent(), which says that all of them went to the kernel. Only one output at a time. */
size_t smtp_client_output(struct smtp_client *c, struct iovec *iov, size_t iov_max);
void smtp_client_sent(struct smtp_client *c);
/* Whether that output left something out for want of room: the next one follows its end, and no
 * reply. */
bool smtp_client_output_cut(const struct smtp_client *c);
/* Of a piece of that output: the commands that it is; empty where it is content, or where the
 * output has the password in it. */
struct str smtp_client_said(const struct smtp_client *c, const struct iovec *piece);
/* A transaction whose content is in an output not yet sent is DONE only behind smtp_client_sent():
 * ask for events after it too. Only smtp_client_lost() does not wait: a caller whose send is still
 * under way then keeps the content, and the client with its commands, until that send has ended. */
/* Bytes handed out and not yet sent count as "handed to the kernel" for the fate of a message from
 * the moment smtp_client_output() returned the end of it. */

uint32_t smtp_client_capabilities(const struct smtp_client *c); /* bits of enum smtp_capability */
uint64_t smtp_client_size_max(const struct smtp_client *c);     /* SIZE, 0 = none stated */
uint32_t smtp_client_mail_max(const struct smtp_client *c); /* LIMITS MAILMAX, 0 = none stated */
uint32_t smtp_client_rcpt_max(const struct smtp_client *c); /* LIMITS RCPTMAX, 0 = none stated */
uint32_t
smtp_client_rcpt_domain_max(const struct smtp_client *c); /* LIMITS RCPTDOMAINMAX, likewise */
/* Whether the server offered CHUNKING and did not know BDAT. It has taken content for commands, so
 * the session is over; the next one should go without. */
bool smtp_client_chunking_refused(const struct smtp_client *c);
/* Whole replies so far: a part of one is no progress. */
uint32_t smtp_client_replies(const struct smtp_client *c);
/* Whether all of a message went out, and is not answered: if the session ended now, nobody would
 * know whether the peer has taken it. */
bool smtp_client_in_doubt(const struct smtp_client *c);
/* What is in doubt has not left this host, and will not. In front of smtp_client_lost(): no
 * transaction's fate is SMTP_FATE_LOST then. */
void smtp_client_unsent(struct smtp_client *c);
/* What the session waits for: the stage of the oldest unanswered command; picks the timeout. */
enum smtp_stage smtp_client_stage(const struct smtp_client *c);

#endif
