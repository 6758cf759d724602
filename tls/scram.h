/* Logging in without showing the password: SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC
 * 7677) on both sides, and the client of CRAM-MD5 (RFC 2195). The messages are those of SASL: who
 * carries them puts them into base64. Pure, but for nonces and salts.
 *
 * Passwords are of ASCII here (scram_password_suits()): of what else SASLprep makes of one,
 * implementations disagree. */
#ifndef HAYAUMA_TLS_SCRAM_H
#define HAYAUMA_TLS_SCRAM_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/password.h"
#include "tls/tls.h"

#define SCRAM_NONCE_CHARS     24
#define SCRAM_MESSAGE_MAX     1024  /* bytes of a message of the other side */
#define SCRAM_ITERATIONS_MAKE 15000 /* of new keys: what RFC 7677 4 holds right; 5 ms of a core */

/* Fills the text of a nonce. */
void scram_nonce(char nonce[static SCRAM_NONCE_CHARS + 1]);
bool scram_password_suits(const char *password);

/* Appends the text of new keys of the password, which suits, as a file of users has it. */
void scram_keys_make(struct buf *out, const char *password);
/* Whether they are those of the password. Takes the CPU of their iterations. */
bool scram_keys_check(const struct password_scram *keys, const char *password);
/* Keys of a user that there is not, for whom nobody has a password: always the same for one name as
 * long as real, the keys of somebody, are; who does not know these cannot tell them from a user's.
 */
void scram_keys_nobody(struct password_scram *out, const struct password_scram *real,
                       struct str name);

/* --- the server --- */

#define SCRAM_USER_BYTES_MAX 255

struct scram_server {
    char user[SCRAM_USER_BYTES_MAX + 1], authzid[SCRAM_USER_BYTES_MAX + 1]; /* authzid: "" mostly */
    /* private */
    struct password_scram keys;
    struct buf binding, messages; /* what the client is bound to; what is signed */
    size_t nonce_at, nonce_len;   /* both nonces, in messages */
};

/* What the connection has that logins can be bound to; none: PLUS is not offered. */
struct scram_offer {
    bool plus; /* the client has chosen SCRAM-SHA-256-PLUS */
    struct tls_binding bindings[TLS_BINDING_KINDS];
    size_t len;
};
/* Reads the client's first message: s has user and authzid then. -EINVAL: it is none, or wants what
 * is not offered. -EPERM: the client would bind and was told that we do not offer it (RFC 5802 6):
 * somebody is between us. */
int scram_server_begin(struct scram_server *s, struct str message,
                       const struct scram_offer *offer) MUST_USE;
/* Appends what is answered to it. nonce: ours. */
void scram_server_challenge(struct scram_server *s, const struct password_scram *keys,
                            const char *nonce, struct buf *out);
/* Whether the client's last message proves that it knows the password; appends the answer, which
 * proves that we know the keys. Takes as long whatever is wrong. */
bool scram_server_end(struct scram_server *s, struct str message, struct buf *out);
void scram_server_done(struct scram_server *s);

/* --- the client --- */

enum scram_client_binds {                   /* RFC 5802 7, gs2-cbind-flag */
                          SCRAM_UNBOUND,    /* it cannot, or SCRAM-SHA-256-PLUS was refused */
                          SCRAM_WOULD_BIND, /* it could: the server does not offer
                                               SCRAM-SHA-256-PLUS */
                          SCRAM_BOUND,      /* this is SCRAM-SHA-256-PLUS */
};
struct scram_client {
    struct buf messages; /* what is signed */
    struct buf binding;  /* what it is bound to */
    uint8_t server_signature[PASSWORD_SCRAM_BYTES];
    bool proved; /* server_signature is what the server must show */
};

/* Appends the first message. nonce: ours. to: NULL but with SCRAM_BOUND. */
void scram_client_begin(struct scram_client *c, const char *user, const char *nonce,
                        enum scram_client_binds binds, const struct tls_binding *to,
                        struct buf *out);
/* Appends the answer to the server's challenge; takes the CPU of its iterations. -EINVAL with what
 * is wrong with it in *why. */
int scram_client_answer(struct scram_client *c, const char *password, struct str challenge,
                        struct buf *out, const char **why) MUST_USE;
/* Whether the server's last message proves that it knows the password. */
bool scram_client_end(const struct scram_client *c, struct str message);
void scram_client_done(struct scram_client *c);

/* Appends the answer of CRAM-MD5. 0, or -ENOTSUP: this OpenSSL has no MD5. */
int cram_md5_answer(const char *user, const char *password, struct str challenge,
                    struct buf *out) MUST_USE;

#endif
