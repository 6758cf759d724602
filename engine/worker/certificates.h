/* The certificates that clients are shown, and those that servers which ask for one are shown, as
 * the files say that the configuration names. Read by the main thread, at the start and with each
 * reload; a part of struct trust, which brings them to the workers. Constant once loaded. */
#ifndef HAYAUMA_ENGINE_CERTIFICATES_H
#define HAYAUMA_ENGINE_CERTIFICATES_H

#include "config/config.h"
#include "tls/tls.h"

struct certificates {
    struct tls_server *server;   /* what sessions begin with; NULL: no certificate works */
    struct tls_tickets *tickets; /* NULL: none were ever named */
    struct buf complaints;       /* a line for each file that is of no use */
    size_t len;                  /* of items: shown to clients ... */
    size_t own_len;              /* ... and behind them so many shown to servers */
    size_t max;                  /* for so many there is room: one of each that may name one */
    struct certificates_item {
        char *chain_file, *key_file;
        struct tls_certificate *certificate;
    } items[];
};

/* 0 or -ENOMEM. Where a file is of no use, the certificate that old has from it stays; else it is
 * left out. Keys of tickets are old's. old may be NULL. */
int certificates_load(struct certificates **out, const struct config *config,
                      const struct certificates *old) MUST_USE;
/* What servers are shown of the file that a destination or a source names (tls_certificate), or
 * NULL. */
struct tls_certificate *certificates_own(const struct certificates *c, const char *file);
void certificates_free(struct certificates *c); /* NULL is accepted */
/* Lines "warning: ..." about those that are not valid at now_s, seconds since 1970, or not for
 * long.
 */
void certificates_warnings(const struct certificates *c, int64_t now_s, struct buf *out);
/* The same about files of keys that anybody may read, or others than the owner write: whoever has
 * the key can pass for this host. They are not refused, since engines run with such files. */
void certificates_loose_keys(const struct certificates *c, struct buf *out);

#endif
