/* The command half of the server machine: what a command line means. server.c owns the flow of
 * bytes and the answers. Private to engine/smtp. */
#ifndef HAYAUMA_SMTP_SERVER_COMMAND_H
#define HAYAUMA_SMTP_SERVER_COMMAND_H

#include "smtp/server.h"

enum server_state {
    SERVER_NEW,   /* before EHLO */
    SERVER_READY, /* no transaction */
    SERVER_MAIL,  /* MAIL accepted */
    SERVER_BDAT,  /* and a chunk, not the last */
};

enum server_mode {
    MODE_COMMAND,
    MODE_SKIP, /* drop up to CRLF: the rest of a refused line */
    MODE_AUTH, /* a line of the exchange that AUTH began */
    MODE_DATA,
    MODE_CHUNK, /* chunk_left bytes of a body */
    MODE_DROP,  /* chunk_left bytes of nothing, then the reply in s->line */
    MODE_TLS,   /* STARTTLS was accepted: no step, but smtp_server_encrypted() */
};

/* What a refusal of the command says about its client. */
enum verb_class {
    VERB_OTHER, /* counts against commands_max, its refusals against errors_max */
    VERB_MAIL,  /* carries mail */
    VERB_RCPT,  /* and so does this: refused, it is one line of a list */
};

/* One line without its CRLF. SMTP_SERVER_INPUT: done with, go on. */
enum smtp_server_want server_command(struct smtp_server *s, struct str line, struct buf *out);

/* server_auth.c: the command, a line of its exchange, and its end, at which what the client sent is
 * wiped. */
enum smtp_server_want server_auth(struct smtp_server *s, struct str args, struct buf *out);
enum smtp_server_want server_auth_line(struct smtp_server *s, struct str line, struct buf *out);
void server_auth_challenge(struct smtp_server *s, struct buf *out, struct str bytes);
void server_auth_end(struct smtp_server *s);
/* The mechanisms that the client may use now. */
uint32_t server_auth_offered(const struct smtp_server *s);
void server_auth_put_offer(const struct smtp_server *s, struct buf *out);
#define SERVER_AUTH_LINE_BYTES_MAX 2048 /* with CRLF; PLAIN takes at most 1,374 */

/* server_xclient.c: the command, of a client that may say it, and what EHLO offers. */
enum smtp_server_want server_xclient(struct smtp_server *s, struct str args, struct buf *out);
#define SERVER_XCLIENT_OFFER "250-XCLIENT NAME ADDR PORT PROTO HELO\r\n"

/* server.c */
void server_reply(struct smtp_server *s, struct buf *out, struct str text);
/* A refusal by the machine itself: counted, and the end of the session beyond errors_max. */
void server_refuse(struct smtp_server *s, struct buf *out, const char *text);
/* One more command that carried no mail: false, and the end of the session, beyond commands_max. */
bool server_count_command(struct smtp_server *s, struct buf *out);
/* MAIL or RCPT was answered 4xx: who goes on and on is not served for ever. A list as long again as
 * recipients_max is: RFC 5321 4.5.3.1.10 has its client send the rest in another transaction. */
void server_turned_away(struct smtp_server *s, struct buf *out);
/* The last reply: 421, 221 or 552. */
void server_bye(struct smtp_server *s, struct buf *out, const char *text);
/* Consumes a chunk, then refuses with text and ends the transaction. */
void server_drop_chunk(struct smtp_server *s, uint64_t bytes, struct str text);

#endif
