/* TLS as bytes in, bytes out: the only code that knows OpenSSL. No socket and no timer is in here;
 * its caller carries the bytes (worker/stream_tls.h does, for sessions of both directions).
 *
 * Contexts (struct tls_server, tls_client, tls_certificate, tls_tickets, tls_session) are counted
 * by reference and may be used from any thread at any time. A connection (struct tls) is used by
 * one thread at a time: a thread of the crew during a step of its handshake, which costs up to
 * milliseconds, else its session's worker.
 *
 * A connection holds no buffer while it is idle. Failures of the peer are values with a text
 * (tls_error()); a shortage of memory is -ENOMEM. Keys, tickets and what is encrypted appear in no
 * text. TLS 1.2 and 1.3 only (RFC 5246, 8446, 9325); no compression, no renegotiation, no early
 * data. */
#ifndef HAYAUMA_TLS_H
#define HAYAUMA_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/str.h"

struct tls;
struct tls_certificate;
struct tls_client;
struct tls_server;
struct tls_session;
struct tls_tickets;

enum tls_version { TLS_1_2, TLS_1_3 };

/* --- what a server shows --- */

/* A certificate with its chain and its key, from two files in PEM. 0 or -errno; then error has a
 * line that names the file and what is wrong with it. -EINVAL: not a certificate, not a key, the
 * key is another's, or it asks for a pass phrase. Not for a worker: it reads files. */
int tls_certificate_load(struct tls_certificate **out, const char *chain_file, const char *key_file,
                         struct buf *error) MUST_USE;
struct tls_certificate *tls_certificate_ref(struct tls_certificate *c);
void tls_certificate_unref(struct tls_certificate *c); /* NULL is accepted */

struct tls_certificate_facts {
    const char *names;       /* "mail.example, *.example": what it is for; the certificate's */
    const char *key_type;    /* "RSA 2048", "ECDSA P-256", "Ed25519" */
    int64_t from_s, until_s; /* seconds since 1970: valid in between */
};
void tls_certificate_facts(const struct tls_certificate *c, struct tls_certificate_facts *out);

/* Keys that session tickets are sealed with: the present one, and the one before, whose tickets are
 * still taken. They are renewed by age, at a handshake, each TLS_TICKET_KEY_S. Outlives reloads,
 * so that they cost no resumption. NULL: no memory. */
#define TLS_TICKET_KEY_S (4 * 3600)
struct tls_tickets *tls_tickets_new(void) MUST_USE;
struct tls_tickets *tls_tickets_ref(struct tls_tickets *t);
void tls_tickets_rotate(struct tls_tickets *t); /* now, whatever their age */
void tls_tickets_unref(struct tls_tickets *t);  /* NULL is accepted */

/* What clients are shown: of the certificates that bear the name which a client asks for (SNI) the
 * first of each type of key, ECDSA beside RSA. When none bears it or no name is asked for: the
 * first, and of other types the first with its name. When the client can verify none of these: the
 * first of each type. The certificates and tickets stay the caller's too. At least one. 0 or
 * -ENOMEM. */
int tls_server_new(struct tls_server **out, struct tls_certificate *const *certificates, size_t len,
                   struct tls_tickets *tickets) MUST_USE;
struct tls_server *tls_server_ref(struct tls_server *s);
void tls_server_unref(struct tls_server *s); /* NULL is accepted */

/* --- whom a server knows by certificate --- */

/* Authorities that vouch for clients, from a file in PEM; and what they have taken back, from
 * crl_file (PEM; RFC 5280), which then has a list of each of them and of those between them and the
 * clients: where one lacks, or is older than it says to be good, nobody is vouched for. NULL:
 * nobody looks. 0 or -errno, then error has a line that names the file. Not for a worker: it reads
 * files.
 */
struct tls_authorities;
int tls_authorities_load(struct tls_authorities **out, const char *file, const char *crl_file,
                         struct buf *error) MUST_USE;
/* When the first of the lists of what was taken back is to be replaced, seconds since 1970; 0:
 * there is none. */
int64_t tls_authorities_until_s(const struct tls_authorities *a);
struct tls_authorities *tls_authorities_ref(struct tls_authorities *a);
void tls_authorities_unref(struct tls_authorities *a); /* NULL is accepted */

/* --- what a client trusts --- */

struct tls_client_options {
    const char *ca_file; /* PEM; NULL: none */
    const char *ca_dir;  /* hashed; NULL: none. Neither: the system's */
};
/* 0 or -errno, then error has a line. Not for a worker: it reads files. */
int tls_client_new(struct tls_client **out, const struct tls_client_options *options,
                   struct buf *error) MUST_USE;
/* Connections that were begun with it go on. NULL is accepted. */
void tls_client_free(struct tls_client *c);

/* --- connections --- */

struct tls_accept_options {
    struct str scope; /* tickets of one scope resume in no other, nor under another name (SNI): a
                         listener's name and what it demands, hashed */
    enum tls_version version_min;
    /* The client is asked for a certificate, and need not show one, nor one that anybody vouches
     * for: tls_shown() says. Such a connection resumes no session, and gives no ticket. */
    bool ask;
    struct tls_authorities *authorities; /* NULL: none vouch for anybody. Stays the caller's too */
};
/* NULL: no memory. */
struct tls *tls_accept(struct tls_server *s, const struct tls_accept_options *options) MUST_USE;

enum tls_verify {
    TLS_VERIFY_NONE,    /* opportunistic: any certificate, old algorithms too */
    TLS_VERIFY_REPORT,  /* verified, and the handshake goes on whatever comes of it (facts) */
    TLS_VERIFY_REQUIRE, /* the handshake fails when the certificate does */
    TLS_VERIFY_DANE,    /* the same, by tlsa and no authority; as NONE where no record is usable */
};
struct tls_connect_options {
    const char *server_name;  /* SNI; NULL: none (an address is no name) */
    const char *const *names; /* one of which the certificate must bear, to be verified: at least
                                 one, none empty, unless verify is TLS_VERIFY_NONE */
    size_t names_len;
    enum tls_verify verify;
    /* Of the server: whole records, as DNS has them (RFC 6698 2.1). Usable for mail are those that
     * name the certificate or its authority themselves: usages 3, for which neither names nor dates
     * count, and 2 (RFC 7672 3.1). The first name is the primary one. A session that is resumed was
     * verified by these records: who keeps sessions keeps them by the records. */
    const struct str *tlsa;
    size_t tlsa_len;
    enum tls_version version_min;
    struct tls_session *session;         /* to resume; NULL: none. Stays the caller's */
    struct tls_certificate *certificate; /* shown to a server that asks; NULL: none. Stays the
                                            caller's too */
};
/* NULL: no memory. */
struct tls *tls_connect(struct tls_client *c, const struct tls_connect_options *options) MUST_USE;
void tls_free(struct tls *t);            /* NULL is accepted */
bool tls_is_client(const struct tls *t); /* who connects, and begins the handshake */

/* A step of the handshake, with bytes of the peer, which are taken from the front of wire.
 *   TLS_DONE    it is complete; the rest of wire is for tls_read()
 *   TLS_WANTS   all of wire is taken, more must come
 *   TLS_FAILED  tls_error() says why
 * In each case there may be bytes to send (tls_unsent()): of TLS_FAILED the alert. A client begins
 * with an empty wire. */
enum tls_step { TLS_DONE, TLS_WANTS, TLS_FAILED };
enum tls_step tls_handshake(struct tls *t, struct str *wire);
/* What the next step costs, wire being all that the peer has sent for it.
 *   TLS_LONG      up to milliseconds: it may use a key of a certificate, and computes secrets
 *   TLS_RESUMING  a secret, and no such key if the session that the client asks for is resumed:
 *                 100 to 300 us; as much as TLS_LONG if not
 *   TLS_HELLO     a client begins, which makes a key: some 100 us
 *   TLS_BRIEF     some microseconds: a server has said all, and waits for its client's word that it
 *                 has heard it */
enum tls_cost { TLS_LONG, TLS_RESUMING, TLS_HELLO, TLS_BRIEF };
enum tls_cost tls_step_cost(const struct tls *t, struct str wire);
/* Behind the step that heard the peer's hello: whether a session is resumed. */
bool tls_resumes(const struct tls *t);

/* Takes bytes of the peer from the front of wire and gives decrypted ones: > 0 so many, and there
 * may be more; 0 none, and all of wire is taken; -ENODATA: the peer said that it sends no more
 * (close_notify), again at each call; -EPROTO: broken, tls_error(). There may be bytes to send
 * afterwards (tls_unsent()). */
ssize_t tls_read(struct tls *t, struct str *wire, uint8_t *plain, size_t plain_max);
/* Gives bytes for the peer: first the connection's own, then records of what it takes from the
 * front of plain. 0: nothing to send, or wire_max is below TLS_RECORD_BYTES; -EPROTO: broken. One
 * call makes records of up to 16 KiB: many small calls make many small records, 22 bytes and about
 * a microsecond each, so gather. */
#define TLS_RECORD_OVERHEAD 64u /* more than a record has beside its plaintext */
#define TLS_RECORD_BYTES    512u
ssize_t tls_write(struct tls *t, struct str *plain, uint8_t *wire, size_t wire_max);
/* Bytes of the connection's own that wait for tls_write(): of the handshake, an alert, an answer to
 * the peer. */
size_t tls_unsent(const struct tls *t);
/* Says to the peer that nothing more will be sent (close_notify, in tls_unsent()). A second call,
 * or one on a connection that failed or is in its handshake, does nothing. */
void tls_close(struct tls *t);

/* Of what became of a certificate; RFC 8460 4.3 has the same kinds. */
enum tls_verdict {
    TLS_UNCHECKED, /* it was not verified, or there was none */
    TLS_VERIFIED,
    TLS_CERT_HOST_MISMATCH,
    TLS_CERT_EXPIRED, /* or not valid yet */
    TLS_CERT_UNTRUSTED,
};

struct tls_facts {        /* behind the handshake; texts live as long as the connection */
    const char *protocol; /* "TLSv1.3" */
    const char *cipher;   /* "TLS_AES_256_GCM_SHA384" */
    int cipher_bits;      /* 256 */
    bool resumed;
    const char *server_name; /* that the client asked for; "" when it did not */
    /* Of the peer's certificate; a resumed session has the verdict of its first handshake. */
    enum tls_verdict verdict;
    const char *verify; /* in words: "verified", "not checked", "self-signed certificate" */
    const char *own;    /* names of the certificate that a client showed, since it was asked for
                           one; NULL: it showed none, or did so in the session that is resumed */
};
void tls_facts(const struct tls *t, struct tls_facts *out);

/* A client's certificate, as its server sees it behind the handshake. Fingerprints are SHA-256 in
 * hex, of the whole certificate and of its public key (the DER of SubjectPublicKeyInfo). */
#define TLS_FINGERPRINT_BYTES 65 /* with NUL */
struct tls_shown {
    char fingerprint[TLS_FINGERPRINT_BYTES], key_fingerprint[TLS_FINGERPRINT_BYTES];
    bool verified;      /* an authority vouches for it, and it is valid */
    bool revoked;       /* it, or an authority between, was taken back: it is good for nothing */
    const char *verify; /* in words: "ok", "certificate has expired" */
    struct buf names;   /* where it is verified: DNS names and mail addresses, else the common name;
                           in lower case, each with NUL */
    size_t names_len;
};
/* False: none was shown, and out is empty. out->names is the caller's in any case. */
bool tls_shown(const struct tls *t, struct tls_shown *out);
/* Of the peer's certificate which of names it bears, else its first name, else "". No fact, since
 * it may take as long as the certificate has names. */
void tls_peer_name(const struct tls *t, char *out, size_t size);
/* What failed, in words for a log and a record: "peer's alert: unknown ca", "certificate verify
 * failed: certificate has expired". Printable, "" when nothing did. Of a handshake whose peer was
 * refused for its certificate tls_facts() has the verdict. */
const char *tls_error(const struct tls *t);

/* What a login can be bound to, so that it is good in no other connection (RFC 5056): what both
 * ends of this connection alone can compute, in TLS 1.3 (RFC 9266) and in 1.2 (RFC 5929 3), or the
 * hash of the server's certificate (RFC 5929 4). */
enum tls_binding_kind { TLS_EXPORTER, TLS_UNIQUE, TLS_SERVER_END_POINT, TLS_BINDING_KINDS };
#define TLS_BINDING_BYTES_MAX 64
struct tls_binding {
    const char *name; /* "tls-exporter" */
    uint8_t bytes[TLS_BINDING_BYTES_MAX];
    size_t len;
};
/* Of a connection behind its handshake. False: it has none of that kind. */
bool tls_binding(const struct tls *t, enum tls_binding_kind kind, struct tls_binding *out);

/* A client's newest session, to be resumed by others; NULL: none since the last call. With TLS 1.3
 * it comes behind the handshake, with what tls_read() takes. The caller's; one session may be
 * resumed by many connections, of other threads too. */
struct tls_session *tls_take_session(struct tls *t);
void tls_session_free(struct tls_session *s); /* NULL is accepted */

#endif
