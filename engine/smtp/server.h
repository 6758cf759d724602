/* The receiving side of SMTP (RFC 5321, 1870 SIZE, 2034, 2920 PIPELINING, 3030 CHUNKING, 3461 DSN,
 * 3207 STARTTLS, 4954 AUTH, 6152 8BITMIME, 6531 SMTPUTF8, 9422 LIMITS; Postfix's XCLIENT) as a pure
 * machine: it consumes bytes, writes replies to a buffer, and stops to ask for a decision. No
 * socket, clock or malloc (out may grow).
 *
 * Use:   for (;;) switch (smtp_server_step(&s, &in, &out)) ...
 * Every question must be answered by smtp_server_answer() before the next step; only the answer to
 * a message may be deferred, so that what is pipelined behind the message is read meanwhile. */
#ifndef HAYAUMA_SMTP_SERVER_H
#define HAYAUMA_SMTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"
#include "smtp/address.h"
#include "smtp/repair.h"
#include "smtp/scan.h"

struct smtp_server;

struct smtp_server_options {      /* shared by all sessions of a listener, immutable */
    const char *host_name;        /* in the banner and EHLO reply */
    const char *banner;           /* text behind the host name; NULL = "ESMTP Hayauma" */
    uint64_t message_bytes_max;   /* SIZE; 552 5.3.4 beyond */
    uint32_t recipients_max;      /* per message; 452 4.5.3 beyond; LIMITS RCPTMAX */
    uint32_t line_bytes_max;      /* command line with CRLF; 500 5.5.2 beyond (default 4096 for
                                     SMTPUTF8 and DSN parameters) */
    uint32_t body_line_bytes_max; /* with CRLF; 554 5.6.0 at the end of data beyond; 0 = no limit */
    uint32_t errors_max;          /* since the last accepted message; 421 4.7.0 and close beyond */
    uint32_t commands_max;        /* commands that carry no mail (NOOP, RSET, VRFY, tiny chunks,
                                     recipients beyond twice recipients_max), since the last
                                     accepted message, before 421 */
    uint32_t messages_max;        /* per session: 421 4.7.0 after; LIMITS MAILMAX; 0 = none */
    /* Called for each refusal (4xx, 5xx) as it is written, whoever decided it; s->command says what
     * was refused. NULL: nobody counts them. */
    void (*on_refused)(struct smtp_server *s, struct str reply);
    bool trusted; /* the client may relay: it is served under any name, without brackets around
                     addresses, and what its lists and messages are refused for is no error: a
                     recipient costs nothing, the rest counts against commands_max */
    bool repair_newlines;  /* bare CR and LF in content are repaired (repair.h), else refused */
    bool starttls;         /* offered as long as the session is not encrypted */
    bool tls_required;     /* and asked for before there is mail: 530 5.7.0 */
    uint32_t auth;         /* mechanisms of AUTH, bits of enum smtp_auth; 0: no such command */
    bool auth_without_tls; /* these may be used over a connection that is not encrypted */
    bool auth_required;    /* 530 5.7.0 at MAIL without it */
    bool xclient;          /* the client is a proxy, and may say whose commands follow */
    bool lmtp;             /* LHLO, per-recipient replies after the dot (RFC 2033); for sink */
    bool no_pipelining, no_chunking, no_8bitmime, no_smtputf8, no_dsn, no_size, no_limits,
        no_enhanced; /* for the sink: what is not offered */
};

enum smtp_auth {                           /* SASL mechanisms */
                 SMTP_AUTH_PLAIN = 1 << 0, /* RFC 4616 */
                 SMTP_AUTH_LOGIN = 1 << 1, /* which has no RFC */
                 SMTP_AUTH_SCRAM =
                     1 << 2, /* SCRAM-SHA-256: RFC 7677; its messages are the caller's to read */
                 SMTP_AUTH_CRAM_MD5 = 1 << 3, /* RFC 2195; in the client alone */
                 SMTP_AUTH_EXTERNAL = 1 << 4, /* RFC 4422 A: what TLS knows of the client; in the
                                                 server alone */
                 SMTP_AUTH_SCRAM_PLUS =
                     1 << 5, /* SCRAM-SHA-256-PLUS: the same, bound to the connection's TLS */
};

enum smtp_dsn_notify {
    SMTP_NOTIFY_NEVER = 1,
    SMTP_NOTIFY_SUCCESS = 2,
    SMTP_NOTIFY_FAILURE = 4,
    SMTP_NOTIFY_DELAY = 8
};
enum smtp_ret { SMTP_RET_NONE, SMTP_RET_FULL, SMTP_RET_HDRS };

struct smtp_mail { /* parameters of MAIL FROM; slices valid during the question */
    struct smtp_address sender;
    uint64_t size;  /* SIZE=, 0 when absent */
    bool body_8bit; /* BODY=8BITMIME */
    bool body_binary;
    bool smtputf8;
    enum smtp_ret ret;
    struct str envid; /* still xtext */
};

struct smtp_rcpt { /* parameters of RCPT TO */
    struct smtp_address recipient;
    uint8_t notify;   /* bits of enum smtp_dsn_notify, 0 when absent */
    struct str orcpt; /* "rfc822;xtext" as given, empty when absent */
};

struct smtp_login { /* what AUTH brought; valid until the answer */
    enum smtp_auth mechanism;
    struct str authzid, user, password; /* without NUL; authzid: whom to act as, mostly empty */
    struct str response;                /* SCRAM has this instead; EXTERNAL has authzid alone */
    bool begins;                        /* it is the first of its exchange */
};

struct smtp_xclient { /* attributes of XCLIENT, still xtext; "": not said; valid until the answer */
    struct str address; /* "192.0.2.1", "IPV6:2001:db8::1", "[UNAVAILABLE]", "[TEMPUNAVAIL]" */
    struct str port;
};

enum smtp_server_want {
    SMTP_SERVER_INPUT,   /* in is used up: read more */
    SMTP_SERVER_HELO,    /* s->helo, s->esmtp: answer NULL to accept, or refuse */
    SMTP_SERVER_TLS,     /* STARTTLS: answer NULL to accept, or refuse. Accepted, what follows in in
                            is no step's: the reply is sent, the handshake made, and then
                            smtp_server_encrypted() called. Bytes that are there already are of
                            somebody who wants commands in plaintext to count as encrypted ones */
    SMTP_SERVER_AUTH,    /* s->login; answer NULL for 235, or refuse, or with SCRAM go on by
                            smtp_server_challenge(). The answer may take its time: until then there
                            is no step */
    SMTP_SERVER_XCLIENT, /* s->xclient; answer NULL to accept, or refuse. Accepted, what was said
                            is forgotten, and the answer is another smtp_server_greet() */
    SMTP_SERVER_MAIL,    /* s->mail; answer */
    SMTP_SERVER_RCPT,    /* s->rcpt; answer */
    SMTP_SERVER_DATA,    /* a body begins (DATA or first BDAT); answer NULL to go on, or refuse */
    SMTP_SERVER_BODY,    /* s->body: the next decoded bytes; no answer, step on */
    SMTP_SERVER_MESSAGE, /* the message is complete and well-formed, s->facts; answer when durable,
                            or defer the answer */
    SMTP_SERVER_ABORT, /* the transaction ended without a message (RSET, new HELO, body refused for
                          its form or size: the reply is already written): drop what was gathered;
                          no answer, step on */
    SMTP_SERVER_CLOSE, /* send out, then close */
};

struct smtp_server_input {
    const uint8_t *data;
    size_t len; /* data and len advance as bytes are consumed */
};

struct smtp_server {
    const struct smtp_server_options *options;
    /* Valid at the question they belong to. */
    struct str helo;
    bool esmtp;
    bool tls; /* the session is encrypted */
    struct smtp_mail mail;
    struct smtp_rcpt rcpt;
    struct smtp_login login;
    struct smtp_xclient xclient;
    struct str body;
    struct smtp_body_facts facts;
    bool authenticated;  /* AUTH was answered with 235 */
    uint32_t rcpts;      /* accepted in this transaction */
    uint64_t body_bytes; /* decoded bytes of this body so far */
    uint32_t messages, errors, commands;
    const char *command;  /* at hand, "RCPT"; NULL for a line that is none, and before the first */
    struct str address;   /* that it names, or what it has in its place; valid during the command */
    uint32_t turned_away; /* MAIL and RCPT answered 4xx since the last accepted message */
    uint64_t discarded;   /* bytes that were no mail since then: of a refused chunk, line or body */
    /* private */
    uint8_t state, mode, asked, pending, verb;
    struct smtp_data_decoder decoder;
    struct smtp_body_scanner scanner; /* of a chunk, or of what was repaired */
    struct smtp_repair repair;
    uint64_t chunk_left;
    bool chunk_last, line_used, skip_cr, closing;
    bool cut_off;    /* by the answer that ends the session, in the midst of a content */
    struct buf line; /* a command line split over reads; the reply kept for a dropped chunk */
    struct buf helo_copy;
    struct buf secret;   /* what the client has sent in the exchange of AUTH */
    size_t secret_first; /* length of the first of it, where the mechanism has two */
    bool auth_goes_on;   /* a challenge of the caller's was written */
    char fault[112];     /* the reply to a body, where it has figures */
};

void smtp_server_init(struct smtp_server *s, const struct smtp_server_options *options);
void smtp_server_done(struct smtp_server *s);
/* The greeting: 220, or refuse ("421 4.7.0 ...", "554 5.7.1 ...": then CLOSE follows). */
void smtp_server_greet(struct smtp_server *s, struct buf *out, const char *refuse);
enum smtp_server_want smtp_server_step(struct smtp_server *s, struct smtp_server_input *in,
                                       struct buf *out);
/* The session is encrypted from here on: behind STARTTLS was accepted, or in front of the greeting.
 * What the client said before is forgotten (RFC 3207 4.2), but for what is counted. */
void smtp_server_encrypted(struct smtp_server *s);
/* Answers the question at hand. reply NULL: accepted with the standard reply. Otherwise the reply's
 * text without CRLF: "250 2.0.0 queued as X", "451 4.3.0 try again later", "421 ..." (closes).
 * In LMTP the MESSAGE answer takes one line per accepted recipient, separated by "\n". */
void smtp_server_answer(struct smtp_server *s, struct buf *out, const char *reply);
/* Answers SMTP_SERVER_AUTH by bytes of the mechanism; what the client says to them is asked next.
 */
void smtp_server_challenge(struct smtp_server *s, struct buf *out, struct str bytes);
/* The answer to the message at hand comes later, and the session goes on: the message counts as
 * accepted. Replies stay in order (RFC 2920 3.2): from here on the caller keeps what is written to
 * out until it has written the answer by smtp_server_put_reply(). Not in LMTP. */
void smtp_server_defer(struct smtp_server *s);
/* Writes a reply, given as to smtp_server_answer(). */
void smtp_server_put_reply(const struct smtp_server *s, struct buf *out, const char *reply);
/* Whether the session may be closed for idleness without breaking a transaction. */
bool smtp_server_idle(const struct smtp_server *s);
/* Behind SMTP_SERVER_CLOSE: the answer came in the midst of a content, of which there may be more.
 */
bool smtp_server_cut_off(const struct smtp_server *s);

#endif
