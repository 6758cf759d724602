/* What sessions out tell to the counts for reports of TLS (worker/tls_tell.h). */
#include "deliver/delivery.h"
#include "schedule/lane.h"
#include "schedule/site.h"
#include "schedule/supply.h"
#include "worker/tls_tell.h"

enum tls_report_result secure_result(const struct delivery *d, enum tls_verdict verdict)
{
    switch (verdict) {
    case TLS_CERT_HOST_MISMATCH:
        return TLS_REPORT_HOST_MISMATCH;
    case TLS_CERT_EXPIRED:
        return TLS_REPORT_EXPIRED;
    case TLS_CERT_UNTRUSTED: /* under DANE no authority is asked: no record matches */
        return d->secure.policy == CONFIG_TLS_DANE ? TLS_REPORT_VALIDATION_FAILURE
                                                   : TLS_REPORT_NOT_TRUSTED;
    case TLS_UNCHECKED:
    case TLS_VERIFIED:
        break;
    }
    return TLS_REPORT_VALIDATION_FAILURE;
}

/* Whose mail it is: the domain's, or that of the host whose exchangers stand in for the domain's
 * (RFC 8460 1.2). False: nobody's that has a report; a route leads to a host, or the mail is a
 * report. */
static bool domain_of(const struct site *site, const struct lane *lane, struct str *out)
{
    const struct config_route *target = site->target;

    *out = lane_domain(lane);
    if (target != NULL && target->host != NULL)
        *out = str_of(target->host);
    return !lane_reports_tls(lane) &&
           (target == NULL || (target->host != NULL && target->mx_lookup));
}

static struct tls_told told_of(const struct delivery *d, enum tls_report_result result)
{
    const struct exchanger *to = &d->dial.exchanger;
    struct tls_told told = {.sts = d->site->sts, .result = result};

    if (d->site->dane && to->tlsa != NULL) {
        told.type = TLS_REPORT_TLSA;
        told.tlsa = to->tlsa;
    } else if (d->site->sts != NULL) {
        told.type = TLS_REPORT_STS;
    }
    return told;
}

/* What more is said of a failure; local is what told points to. */
static void put_failure(const struct delivery *d, struct tls_told *told, const char *why,
                        struct sockaddr_storage *local)
{
    told->mx = d->dial.peer_name;
    told->receiving = &d->dial.exchanger.addr.sa;
    told->reason = why;
    if (d->connected_ms != 0 && io_local_name(d->worker->io, d->dial.fd, local) == 0)
        told->sending = (const struct sockaddr *)local;
}

void secure_tell(const struct delivery *d, struct recipient *const *rcpts, size_t len)
{
    const struct secure *t = &d->secure;
    struct sockaddr_storage local;
    struct tls_told told;

    if (t->policy == CONFIG_TLS_NONE || !tls_tell_wanted(d->worker))
        return;
    told = told_of(d, t->result);
    if (t->result != TLS_REPORT_SUCCESS)
        put_failure(d, &told, t->report.sts_failure != NULL ? t->sts_failure : t->reason, &local);
    for (size_t i = 0; i < len; i++) /* recipients of a domain stand together */
        if ((i == 0 || rcpts[i]->lane != rcpts[i - 1]->lane) &&
            domain_of(d->site, rcpts[i]->lane, &told.domain))
            tls_tell(d->worker, &told);
}

/* A lane whose mail waits at the site, or NULL. */
static const struct lane *some_lane(const struct site *site)
{
    for (struct list_node *n = list_first(&site->supplies); n != NULL;
         n = list_next(&site->supplies, n)) {
        const struct supply *s = LIST_ENTRY(n, struct supply, site_node);
        const struct list_node *first = list_first(&s->attached);

        if (first == NULL)
            first = list_first(&s->shut);
        if (first != NULL)
            return CONTAINER_OF(first, struct lane, site_node);
    }
    return NULL;
}

void secure_tell_failed(const struct delivery *d, enum tls_report_result result, const char *why)
{
    const struct lane *lane = tls_tell_wanted(d->worker) ? some_lane(d->site) : NULL;
    struct tls_told told = told_of(d, result);
    struct sockaddr_storage local;

    if (lane == NULL || d->secure.policy == CONFIG_TLS_NONE ||
        !domain_of(d->site, lane, &told.domain))
        return;
    put_failure(d, &told, why, &local);
    tls_tell(d->worker, &told);
}
