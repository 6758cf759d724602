/* What TLS needs beside the configuration: the contents of the files that it names. They are
 * read by the main thread, at the start (as root, where the engine was started so) and with each
 * reload; workers get it together with the configuration that it belongs to. Counted by reference,
 * constant once loaded. */
#ifndef HAYAUMA_ENGINE_TRUST_H
#define HAYAUMA_ENGINE_TRUST_H

#include <stdatomic.h>

#include "config/config.h"
#include "tls/tls.h"
#include "worker/certificates.h"

struct trust {
    _Atomic uint32_t refs;
    struct tls_client *client;         /* of sessions out */
    struct certificates *certificates; /* what clients and servers are shown */
    size_t authorities_len;
    struct trust_authorities { /* that vouch for clients, of listeners: client_ca_file */
        char *file, *crl_file; /* and client_crl_file, or NULL */
        struct tls_authorities *authorities;
    } * authorities;
};

/* Not for a worker. 0, or -errno and a line in errors for each file that is of no use; certificates
 * have theirs in certificates->complaints. old: what is in force, or NULL. */
int trust_load(struct trust **out, const struct config *config, const struct trust *old,
               struct buf *errors) MUST_USE;
/* What was in the files that a listener names, or NULL. */
struct tls_authorities *trust_authorities(const struct trust *t, const struct config_listener *l);
/* Lines "warning: ..." about lists of revoked certificates that are not good at now_s, seconds
 * since 1970, or not for long; and what certificates_warnings() says. */
void trust_warnings(const struct trust *t, int64_t now_s, struct buf *out);
struct trust *trust_ref(struct trust *t);
void trust_unref(struct trust *t); /* NULL is accepted */

#endif
