/* TLS of sessions outward: what a session asks for by the policy of its destination, its handshake,
 * and what the worker remembers of exchangers: sessions of TLS to resume, and handshakes that
 * failed. Policies (docs/failures.md has what each failure gets):
 *   none     never
 *   may      where STARTTLS is offered, with any certificate. An exchanger with which that failed
 *            gets plaintext for SECURE_PLAIN_MS, the first time at once
 *   encrypt  always, with any certificate
 *   verify   always, with a certificate of a known authority that bears the exchanger's name
 *   dane     always, with a certificate as the exchanger's TLSA records have it (RFC 7672); with
 * any, where none of the records is usable. Exchangers without records, and those of sites for
 *            which records do not count (site->dane), are sent to under may
 *   mta-sts  as verify where the site's mail is under an enforced policy (RFC 8461; site->sts),
 *            else as may. Under one that is only tested records say what it would have refused
 * A connection to port 465 begins with TLS (RFC 8314), whatever the policy but none; it has no
 * plaintext to fall back to. Thread: the session's worker. */
#ifndef HAYAUMA_ENGINE_SECURE_H
#define HAYAUMA_ENGINE_SECURE_H

#include "config/config.h"
#include "mail/tls_report.h"
#include "outcome/report.h"
#include "worker/stream_tls.h"

struct delivery;
struct site;
struct config_source;
struct exchanger;
struct recipient;
struct worker;

#define SECURE_PLAIN_MS     3600000 /* an exchanger's handshake failed: plaintext for so long */
#define SECURE_KNOWN_MAX    1024 /* exchangers that a worker remembers; the longest unused goes */
#define SECURE_PORT         465
#define SECURE_REASON_BYTES 160

/* What the worker remembers, by address, name, source and policy. 0 or -ENOMEM; closing follows in
 * any case. */
int secure_memory_open(struct worker *w) MUST_USE;
void secure_memory_close(struct worker *w);

/* Of one connection; a part of its delivery. */
struct secure {
    enum config_tls policy;           /* in force: dane and mta-sts only where they apply */
    bool implicit;                    /* the connection begins with TLS */
    bool plain;                       /* not asked for: a handshake failed lately */
    bool due;                         /* the peer waits for our handshake */
    bool active;                      /* the session is encrypted */
    bool verified;                    /* and the certificate is what the policy wants */
    bool resuming;                    /* a session of TLS was offered to the peer */
    bool anew;                        /* none is: resuming failed. Outlives a connection */
    bool missed;                      /* in plaintext to a peer that offers TLS */
    struct report_tls report;         /* for the records; see secure_report() */
    char reason[SECURE_REASON_BYTES]; /* why it is plaintext, or will be */
    char sts_failure[SECURE_REASON_BYTES];
    enum tls_report_result result; /* what reports of TLS say of each transaction of the session */
};

/* What sessions to an exchanger of the site are held to: never dane+mta-sts, which is one or the
 * other. */
enum config_tls secure_policy(const struct site *site, const struct exchanger *to);
/* Whether sessions from a source would be in plaintext, since the worker remembers that a handshake
 * failed: why, and until when (monotonic). */
bool secure_is_plain(const struct site *site, const struct config_source *source,
                     const struct exchanger *to, const char **why, uint64_t *until_ms);

/* A connection is there: what it asks for. */
void secure_begin(struct delivery *d);
/* The handshake begins; see stream_tls_start(). 0 or -errno. */
int secure_handshake(struct delivery *d, stream_tls_ended *on_ended) MUST_USE;
/* The handshake is complete. */
void secure_opened(struct delivery *d);
/* The session is ready, perhaps without TLS: refusal is what the peer said to STARTTLS, or empty.
 */
void secure_ready(struct delivery *d, struct str refusal);
/* The connection ended where it was to become encrypted. True: the same address is worth another
 * connection at once, without the session that was to be resumed or, by policy, in plaintext. */
bool secure_failed(struct delivery *d, const char *why);
/* Whether a refused command asks for the TLS that the peer offered and that did not come about: it
 * may the next time. Then it is asked for again at once, and not in an hour. */
bool secure_missed(struct delivery *d, const struct smtp_reply *refusal);
/* Remembers the newest session of TLS that the peer gave. */
void secure_keep(struct delivery *d);
/* Whether d, which is idle, is as good as a new session of site to to, its address: it is held to
 * the same, by the same TLSA records. */
bool secure_suits(const struct delivery *d, const struct site *site, const struct exchanger *to);
/* In secure_tell.c, for reports of TLS (RFC 8460): a transaction of the session is sent; there is
 * no session, and mail of some domain waits for one. */
void secure_tell(const struct delivery *d, struct recipient *const *rcpts, size_t len);
void secure_tell_failed(const struct delivery *d, enum tls_report_result result, const char *why);
/* The handshake failed, or the peer's certificate is not as the policy wants. */
enum tls_report_result secure_result(const struct delivery *d, enum tls_verdict verdict);
/* What records of the session say; NULL: nothing, TLS was never thought of. */
const struct report_tls *secure_report(const struct delivery *d);

#endif
