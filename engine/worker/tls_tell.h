/* Tells the process's counts of TLS (worker/tls_counts.h) of a session out: the policy that it was
 * under as reports have it (RFC 8460 4.4), and what came of it. Thread: the worker's. */
#ifndef HAYAUMA_ENGINE_TLS_TELL_H
#define HAYAUMA_ENGINE_TLS_TELL_H

#include "worker/worker.h"

#include "dns/dns.h"
#include "mail/tls_report.h"
#include "sts/sts_policy.h"

struct tls_told {
    struct str domain; /* of the recipient; an address literal is nobody's */
    enum tls_report_policy_type type;
    const struct sts_policy *sts; /* of TLS_REPORT_STS; NULL: it could not be had */
    const struct dns_tlsa *tlsa;  /* of TLS_REPORT_TLSA */
    enum tls_report_result result;
    const char *mx;                             /* of a failure; NULL: not known */
    const struct sockaddr *sending, *receiving; /* likewise */
    const char *reason;                         /* in words, or NULL */
};

/* Whether anybody counts: else there is nothing to tell. */
bool tls_tell_wanted(struct worker *w);
void tls_tell(struct worker *w, const struct tls_told *told);
/* The day, in seconds since 1970, in which the worker's present is. */
int64_t tls_tell_day_begin_s(const struct worker *w);

#endif
