/* The addresses of a host: A and AAAA at the same time, whatever comes of either. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dns/flight.h"

enum { FAMILY_V4, FAMILY_V6, FAMILIES };
_Static_assert(FAMILIES <= FLIGHT_REQUESTS_MAX, "one request each");

/* Addresses of one host as they come in. */
struct host_work {
    enum dns_answer_status status[FAMILIES];
    uint32_t ttl_s[FAMILIES];
    size_t len[FAMILIES];
    struct dns_record records[FAMILIES][DNS_HOST_ADDRESSES_MAX];
    char error[64]; /* of a failed family */
};

static struct dns_address record_address(int family, const struct dns_record *record)
{
    struct dns_address address;

    if (family == FAMILY_V4)
        dns_address_v4(&address, record->a);
    else
        dns_address_v6(&address, record->aaaa);
    return address;
}

/* Keeps a uniform choice of at most DNS_HOST_ADDRESSES_MAX addresses, in random order. */
static void host_take(struct dns *dns, struct host_work *work, int family,
                      const struct dns_answer *answer)
{
    struct dns_record *kept = work->records[family];
    size_t *len = &work->len[family], seen = 0;

    for (size_t i = 0; i < answer->records_len; i++) {
        struct dns_address address = record_address(family, &answer->records[i]);
        size_t at;

        if (dns_address_refused(&address))
            continue;
        at = rng_below(&dns->rng, ++seen);
        if (*len < DNS_HOST_ADDRESSES_MAX)
            kept[(*len)++] = kept[at];
        if (at < DNS_HOST_ADDRESSES_MAX)
            kept[at] = answer->records[i];
    }
}

static enum dns_status host_status(const struct host_work *work)
{
    enum dns_status status = DNS_NO_HOST;

    if (work->len[FAMILY_V4] + work->len[FAMILY_V6] > 0)
        return DNS_OK;
    for (int family = 0; family < FAMILIES; family++) {
        if (work->status[family] == DNS_ANSWER_FAILED)
            return DNS_TEMPORARY;
        if (work->status[family] == DNS_ANSWER_NO_DOMAIN)
            status = DNS_NO_DOMAIN;
    }
    return status;
}

/* IPv6 first, then in turns. */
static void host_addresses(struct route_draft *draft, const struct host_work *work)
{
    for (size_t i = 0; i < DNS_HOST_ADDRESSES_MAX; i++) {
        for (int family = FAMILIES - 1; family >= 0; family--) {
            if (i < work->len[family])
                draft->addresses[draft->addresses_len++] =
                    record_address(family, &work->records[family][i]);
        }
    }
}

static void host_finish(struct flight *flight)
{
    struct dns *dns = flight->dns;
    const struct host_work *work = flight->host;
    struct route_draft draft = {.status = host_status(work), .site_name = flight->name};
    uint32_t ttl_s = UINT32_MAX, ttl_max_s = dns->ttl_max_s;

    for (int family = 0; family < FAMILIES; family++) {
        if (work->status[family] == DNS_ANSWER_FAILED)
            ttl_max_s = dns->negative_ttl_max_s; /* half an answer: ask again soon */
        else if (work->ttl_s[family] < ttl_s &&
                 (draft.status != DNS_OK || work->status[family] == DNS_ANSWER_RECORDS))
            ttl_s = work->ttl_s[family];
    }
    if (draft.status != DNS_OK) {
        const char *why = draft.status == DNS_TEMPORARY   ? work->error
                          : draft.status == DNS_NO_DOMAIN ? "no such domain"
                                                          : "host has no address";

        flight_fail(flight, draft.status, "address", why,
                    draft.status == DNS_TEMPORARY ? 0 : ttl_s);
        return;
    }
    draft.hosts[0].name = flight->name;
    draft.hosts_len = 1;
    draft.expires_ms = dns_expires_ms(dns, ttl_s, ttl_max_s);
    host_addresses(&draft, work);
    flight_finish(flight, &draft);
}

void host_answer(struct flight *flight, enum dns_type type, const struct dns_answer *answer)
{
    struct host_work *work = flight->host;
    int family = type == DNS_TYPE_A ? FAMILY_V4 : FAMILY_V6;

    work->status[family] = answer->status;
    work->ttl_s[family] = answer->ttl_s;
    if (answer->status == DNS_ANSWER_RECORDS)
        host_take(flight->dns, work, family, answer);
    if (answer->status == DNS_ANSWER_FAILED)
        snprintf(work->error, sizeof(work->error), "%s", answer->error);
    if (flight->pending == 0)
        host_finish(flight);
}

int host_start(struct flight *flight)
{
    const struct dns *dns = flight->dns;

    flight->host = calloc(1, sizeof(*flight->host));
    if (flight->host == NULL)
        return -ENOMEM;
    for (int family = 0; family < FAMILIES; family++) {
        flight->host->status[family] = DNS_ANSWER_NO_DATA;
        flight->host->ttl_s[family] = UINT32_MAX;
    }
    if (!dns->no_ipv6)
        flight_ask(flight, DNS_TYPE_AAAA);
    if (!dns->no_ipv4)
        flight_ask(flight, DNS_TYPE_A);
    return 0;
}
