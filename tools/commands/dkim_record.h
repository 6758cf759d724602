/* DNS records of DKIM keys (RFC 6376 3.6.1): what is to be published, and what is. */
#ifndef HAYAUMA_TOOLS_DKIM_RECORD_H
#define HAYAUMA_TOOLS_DKIM_RECORD_H

#include "base/buf.h"
#include "tls/dkim_key.h"

/* Appends "v=DKIM1; k=rsa; p=..." for key. 0 or -EIO. */
int dkim_record_text(const struct dkim_key *key, struct buf *out) MUST_USE;
/* Appends a line of a zone file for it, in strings of at most 255 bytes (RFC 1035 3.3). */
int dkim_record_zone(const struct dkim_key *key, const char *selector, const char *domain,
                     struct buf *out) MUST_USE;

enum dkim_record_fault {
    DKIM_RECORD_GOOD,
    DKIM_RECORD_TESTING, /* good, but t=y tells verifiers to act as if there were none */
    DKIM_RECORD_REVOKED,
    DKIM_RECORD_OTHER_KEY,
    DKIM_RECORD_NO_SHA256,
    DKIM_RECORD_NOT_DKIM
};
/* What a verifier makes of a published record (any bytes) for signatures by key. */
enum dkim_record_fault dkim_record_check(struct str record, const struct dkim_key *key);
/* The same in words. */
const char *dkim_record_fault_text(enum dkim_record_fault fault);

#endif
