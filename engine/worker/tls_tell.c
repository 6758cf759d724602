#include "worker/tls_tell.h"

#include <arpa/inet.h>

#include "worker/shared.h"

bool tls_tell_wanted(struct worker *w)
{
    return tls_counts_on(&w->shared->tls_counts);
}

int64_t tls_tell_day_begin_s(const struct worker *w)
{
    int64_t now_s = worker_wall_ms(w) / 1000, period_s = w->config->tls_reports.period_s;

    return now_s - now_s % period_s;
}

/* "version: STSv1" and so on, as the policy's lines are (RFC 8461 3.2). */
static void put_sts(struct buf *out, const struct sts_policy *policy)
{
    buf_puts(out, "version: STSv1");
    buf_putc(out, '\0');
    buf_printf(out, "mode: %s", sts_mode_name(policy->mode));
    buf_putc(out, '\0');
    for (uint32_t at = 0; at < policy->mx_bytes; at += (uint32_t)strlen(policy->mx + at) + 1) {
        if (out->len + DNS_NAME_MAX + 64 > TLS_COUNTS_TEXTS_MAX)
            break;
        buf_printf(out, "mx: %s", policy->mx + at);
        buf_putc(out, '\0');
    }
    buf_printf(out, "max_age: %u", policy->max_age_s);
    buf_putc(out, '\0');
}

/* "3 1 1 0ab1...", as zone files have them (RFC 6698 2.2). */
static void put_tlsa(struct buf *out, const struct dns_tlsa *tlsa)
{
    for (uint16_t i = 0; i < tlsa->records_len; i++) {
        const struct str r = tlsa->records[i];

        if (r.len < 3 || out->len + 2 * r.len + 16 > TLS_COUNTS_TEXTS_MAX)
            continue;
        buf_printf(out, "%u %u %u ", (uint8_t)r.ptr[0], (uint8_t)r.ptr[1], (uint8_t)r.ptr[2]);
        for (size_t j = 3; j < r.len; j++)
            buf_printf(out, "%02x", (uint8_t)r.ptr[j]);
        buf_putc(out, '\0');
    }
}

/* RFC 8460 1.2: of DANE the policy's domain is the name whose records they are. */
static void put_texts(struct buf *out, const struct tls_told *t)
{
    if (t->type == TLS_REPORT_TLSA)
        buf_puts(out, t->tlsa->base);
    else
        buf_put_str(out, t->domain);
    buf_putc(out, '\0');
    if (t->type == TLS_REPORT_STS && t->sts != NULL)
        put_sts(out, t->sts);
    else if (t->type == TLS_REPORT_TLSA)
        put_tlsa(out, t->tlsa);
}

static const char *ip_text(const struct sockaddr *addr, char out[INET6_ADDRSTRLEN])
{
    out[0] = '\0';
    if (addr != NULL && addr->sa_family == AF_INET)
        (void)inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)addr)->sin_addr, out,
                        INET6_ADDRSTRLEN);
    else if (addr != NULL && addr->sa_family == AF_INET6)
        (void)inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr,
                        out, INET6_ADDRSTRLEN);
    return out;
}

void tls_tell(struct worker *w, const struct tls_told *told)
{
    char sending[INET6_ADDRSTRLEN], receiving[INET6_ADDRSTRLEN];
    struct tls_counts *counts = &w->shared->tls_counts;
    int64_t begin_s = tls_tell_day_begin_s(w);

    if (!tls_counts_on(counts) || told->domain.len == 0 || told->domain.len > DNS_NAME_MAX ||
        told->domain.ptr[0] == '[' || !tls_counts_wanted(counts, told->domain, begin_s))
        return;
    buf_clear(&w->tls_texts);
    put_texts(&w->tls_texts, told);
    ASSERT(w->tls_texts.len <= TLS_COUNTS_TEXTS_MAX);
    tls_counts_add(counts, &(struct tls_count){.domain = told->domain,
                                               .begin_s = begin_s,
                                               .end_s = begin_s + w->config->tls_reports.period_s,
                                               .type = told->type,
                                               .texts = buf_str(&w->tls_texts),
                                               .result = told->result,
                                               .mx = told->mx == NULL ? "" : told->mx,
                                               .sending_ip = ip_text(told->sending, sending),
                                               .receiving_ip = ip_text(told->receiving, receiving),
                                               .reason = told->reason == NULL ? "" : told->reason});
}
