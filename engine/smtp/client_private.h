/* Insides of the client machine, shared by client.c (what is received, and events) and
 * client_send.c (what goes out). Private to engine/smtp. */
#ifndef HAYAUMA_SMTP_CLIENT_PRIVATE_H
#define HAYAUMA_SMTP_CLIENT_PRIVATE_H

#include "smtp/client.h"
#include "smtp/peer.h"

/* Content of one output: a stage's timeout is for so much, not for all of a large body. */
#define CONTENT_BYTES_MAX (1u << 20)
/* No single command is longer (RCPT with ORCPT: 9 + 254 + 30 + 508 + 2). */
#define COMMAND_BYTES_MAX 1024

enum session_state {
    SESSION_BANNER, /* nothing is said before the greeting */
    SESSION_EHLO,   /* EHLO is to be sent, or out */
    SESSION_HELO,
    SESSION_STARTTLS,  /* STARTTLS is to be sent, or out */
    SESSION_HANDSHAKE, /* nothing is said or heard here */
    SESSION_AUTH,      /* AUTH, or what follows a challenge, is to be sent, or out */
    SESSION_READY,
    SESSION_QUIT,    /* QUIT is out */
    SESSION_CLOSING, /* events only, then CLOSE */
    SESSION_CLOSED,
};

/* Of a transaction: what goes out next. The table is in client_send.c. */
enum transaction_state {
    TRANSACTION_QUEUED,
    TRANSACTION_RCPT,
    TRANSACTION_DATA,
    TRANSACTION_WAIT, /* for 354 */
    TRANSACTION_BODY,
    TRANSACTION_DOT,
    TRANSACTION_NULL_DOT,  /* 354 with no recipient */
    TRANSACTION_SENT,      /* the end of the message is out */
    TRANSACTION_ABANDONED, /* it never will be */
    TRANSACTION_STATES,
};

/* Where the content stands: at the start of a line, behind its CR, within it. */
enum line_state { LINE_START, LINE_CR, LINE_WITHIN };

enum rcpt_state { RCPT_PENDING, RCPT_ACCEPTED, RCPT_INVALID, RCPT_FINAL };

/* A command, or a run of RCPTs, whose reply is to come. */
struct expected {
    struct smtp_transaction *transaction; /* NULL: the session's */
    uint16_t count;
    uint8_t stage;
};

/* Recipients [rcpt, end) of transaction whose state is in states (bits) are final alike. */
struct emission {
    struct smtp_transaction *transaction; /* NULL: none under way */
    uint16_t rcpt, end;
    uint8_t states;
    struct smtp_event event;
};

struct smtp_client {
    const struct smtp_client_options *options;
    uint8_t session;
    bool ready_unsaid;                          /* SMTP_EVENT_READY is to be given */
    uint8_t tls;                                /* enum smtp_tls */
    bool secured, tls_refused, starttls_unsaid; /* unsaid: the event is to be given */
    bool trusted;                               /* with the password of the options ... */
    bool trust_proved;                          /* ... since nobody else could be there */
    bool binds;                                 /* a login can be bound to the session's TLS */
    bool authenticated;                         /* AUTH was accepted */
    bool auth_begun;                            /* AUTH has gone out */
    bool secret_out;                            /* the output has the password in it */
    uint8_t auth_step;                          /* responses that have gone out */
    bool auth_unsaid, auth_waits;               /* for the caller's response: event due, or given */
    const struct client_mechanism *auth;        /* under way */
    uint32_t auth_refused;                      /* mechanisms, by the server */
    struct buf auth_text;                       /* the challenge, then the response to it */
    bool command_out;                           /* the session's own, EHLO or the like */
    bool quit, rset_needed, output_busy, output_cut, lost;
    bool reply_taken; /* the parser's reply is dealt with */
    uint32_t replies; /* so many were */
    struct smtp_peer peer;

    struct list transactions;         /* in the order of the wire */
    struct list unable;               /* never sent */
    uint32_t in_flight;               /* in both lists */
    struct smtp_transaction *sending; /* first that is neither SENT nor ABANDONED */

    struct emission emission;
    /* Once closing: why, and what it means for those still inside. */
    enum smtp_stage close_stage;
    const struct smtp_reply *close_reply;
    bool chunking_refused;              /* BDAT is no command to the server, whatever it offered */
    bool close_not_sent;                /* whatever went out was not looked at */
    struct smtp_transaction *uncertain; /* but this one */
    struct smtp_reply local;            /* our own words */
    struct smtp_reply *ehlo_refusal; /* HELO was tried behind it; else, or without memory, NULL */
    struct smtp_reply_parser parser;
    struct buf in; /* received, not yet parsed from in_at on */
    size_t in_at;

    /* The output being composed or sent. */
    struct iovec *iov;
    size_t iov_len, iov_max;
    size_t content_left; /* content that this output may still take */
    size_t commands_len;
    char *commands; /* of the pool while there are some: a session mostly waits */

    uint32_t expected_head, expected_tail, expected_mask;
    struct expected expected[];
};

/* client.c */
void client_set_session(struct smtp_client *c, enum session_state state);
struct expected *client_expected_first(struct smtp_client *c); /* NULL: nothing is expected */
void client_expect(struct smtp_client *c, struct smtp_transaction *t, enum smtp_stage stage);

/* c->local: our own words, code 0. */
void client_local_reply(struct smtp_client *c, const char *text);
/* The session is over: events only from here. reply lives until CLOSE. */
void client_start_close(struct smtp_client *c, enum smtp_stage stage,
                        const struct smtp_reply *reply);
void client_protocol_error(struct smtp_client *c, const char *text);
/* The reply is final for every recipient of t that has no other, or for that one. Given out before
 * the next reply is looked at. */
void client_emit_reply(struct smtp_client *c, struct smtp_transaction *t, enum smtp_stage stage,
                       const struct smtp_reply *reply);
void client_emit_reply_one(struct smtp_client *c, struct smtp_transaction *t, uint16_t rcpt,
                           enum smtp_stage stage, const struct smtp_reply *reply);

/* client_receive.c: the parser has a whole reply. */
void client_take_reply(struct smtp_client *c);
/* The session is set up, but for AUTH where that is wanted. */
void client_be_ready(struct smtp_client *c);
/* Our own words, with a code, end the session. */
void client_own_refusal(struct smtp_client *c, enum smtp_stage stage, uint16_t code,
                        struct smtp_enhanced enhanced, const char *text);
/* The next that is said is EHLO. */
void client_greet(struct smtp_client *c);
/* Bytes came where the handshake is to begin: whoever put them there is not the encrypted peer. */
void client_injected(struct smtp_client *c);

/* client_auth.c: whether the session is to log in, and has not; why it cannot, or NULL; how it
 * goes.
 */
#define SMTP_CLIENT_AUTH_BYTES_MAX 1100 /* of a line, in base64 */
struct client_mechanism;
bool client_auth_wanted(const struct smtp_client *c);
const char *client_auth_refusal(const struct smtp_client *c);
void client_auth_begin(struct smtp_client *c);
void client_auth_send(struct smtp_client *c);
void client_auth_event(struct smtp_client *c, struct smtp_event *event);
/* The reply to a command or response: the session is logged in, goes on with AUTH, or is closed. */
void client_auth_reply(struct smtp_client *c, const struct smtp_reply *reply);
void client_auth_done(struct smtp_client *c);

/* client_send.c */
void client_put(struct smtp_client *c, struct str bytes);
void transaction_set_state(struct smtp_client *c, struct smtp_transaction *t,
                           enum transaction_state state);
/* Whether the peer may take further commands into t, by what it has answered so far. */
bool transaction_may_be_open(const struct smtp_transaction *t);
/* The output under way is over: the password goes from it, if it has been in it. */
void client_forget_secret(struct smtp_client *c);
/* The contents of the output under way are not read any more, or nobody waits for that. */
void client_contents_sent(struct smtp_client *c);
/* What the end of the session means for t. */
enum smtp_fate transaction_lost_fate(const struct smtp_transaction *t);
bool client_is_stepwise(const struct smtp_client *c);
bool client_is_chunking(const struct smtp_client *c);
/* Content bytes behind the first transaction, up to and with last (NULL: all). */
uint64_t client_bytes_behind_first(const struct smtp_client *c,
                                   const struct smtp_transaction *last);

#endif
