/* One question for TXT records, answered before the call returns: for commands, never for a worker.
 * Implemented beside the production upstream (dns_ares). */
#ifndef HAYAUMA_DNS_TXT_H
#define HAYAUMA_DNS_TXT_H

#include "base/buf.h"
#include "dns/dns.h"
#include "dns/dns_upstream.h"

/* servers: "192.0.2.53[:port]"; none: those of /etc/resolv.conf. Appends to out each record of
 * name, its strings joined, and a NUL behind it. FAILED: *error says why, a constant text. */
enum dns_answer_status dns_txt(const char *const *servers, size_t servers_len, uint32_t timeout_ms,
                               uint32_t tries, const char *name, struct buf *out,
                               const char **error);

#endif
