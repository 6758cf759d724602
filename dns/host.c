/* The addresses of a host: A and AAAA at the same time, whatever comes of either. Behind them,
 * where the resolver vouches for them, its TLSA records (RFC 7672 2.2.2, 2.2.3): of the name at
 * which CNAMEs end, else of the host's own. Nobody else is asked for TLSA: name servers of zones
 * without DNSSEC may not understand the question, and their silence would defer mail. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "dns/flight.h"

enum { FAMILY_V4, FAMILY_V6, FAMILIES };
_Static_assert(FAMILIES <= FLIGHT_REQUESTS_MAX, "one request each");

#define TLSA_NAME_BYTES (DNS_NAME_MAX + sizeof("_65535._tcp."))

/* What is known of one host as it comes in. */
struct host_work {
    enum dns_answer_status status[FAMILIES];
    uint32_t ttl_s[FAMILIES];
    size_t len[FAMILIES];
    struct dns_record records[FAMILIES][DNS_HOST_ADDRESSES_MAX];
    char error[64]; /* of a failed family */
    bool secure[FAMILIES];
    char canonical[DNS_NAME_MAX + 1]; /* where CNAMEs ended; "": there are none */
    const char *base;                 /* whose TLSA records are asked for */
    char tlsa_name[TLSA_NAME_BYTES];
    struct dns_tlsa *tlsa;
    uint32_t tlsa_ttl_s;
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
    struct route_draft draft = {
        .status = host_status(work), .secure = true, .site_name = flight->name};
    uint32_t ttl_s = work->tlsa_ttl_s, ttl_max_s = dns->ttl_max_s;

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
    if (work->tlsa != NULL && work->tlsa->error != NULL)
        ttl_max_s = dns->negative_ttl_max_s;
    draft.hosts[0].name = flight->name;
    draft.hosts[0].tlsa = work->tlsa;
    draft.hosts_len = 1;
    draft.expires_ms = dns_expires_ms(dns, ttl_s, ttl_max_s);
    host_addresses(&draft, work);
    flight_finish(flight, &draft);
}

/* Without memory the host counts as unknown, not as one without records. */
static void tlsa_fail(struct flight *flight, const char *why)
{
    struct host_work *work = flight->host;

    work->tlsa = tlsa_failed(flight->name, why);
    if (work->tlsa == NULL)
        flight_fail(flight, DNS_TEMPORARY, "TLSA", "out of memory", 0);
    else
        host_finish(flight);
}

static void tlsa_ask(struct flight *flight, const char *base)
{
    struct host_work *work = flight->host;
    int len = snprintf(work->tlsa_name, sizeof(work->tlsa_name), "_%u._tcp.%s",
                       flight->dns->tlsa_port, base);

    work->base = base;
    if (len > DNS_NAME_MAX) /* there can be no such name */
        host_finish(flight);
    else
        flight_ask(flight, work->tlsa_name, DNS_TYPE_TLSA);
}

static void tlsa_answer(struct flight *flight, const struct dns_answer *answer)
{
    struct host_work *work = flight->host;

    if (answer->status == DNS_ANSWER_FAILED) {
        tlsa_fail(flight, answer->error);
        return;
    }
    if (answer->ttl_s < work->tlsa_ttl_s)
        work->tlsa_ttl_s = answer->ttl_s;
    if (answer->status == DNS_ANSWER_RECORDS && answer->secure) {
        work->tlsa = tlsa_new(work->base, answer->records, answer->records_len);
        if (work->tlsa == NULL)
            tlsa_fail(flight, "out of memory");
        else
            host_finish(flight);
    } else if (work->base != flight->name) {
        tlsa_ask(flight, flight->name);
    } else {
        host_finish(flight);
    }
}

/* Of a host whose CNAMEs lead out of what is validated, whether the first one is validated: then
 * the host's own name may have records. */
static void alias_answer(struct flight *flight, const struct dns_answer *answer)
{
    if (answer->status == DNS_ANSWER_FAILED)
        tlsa_fail(flight, answer->error);
    else if (answer->status == DNS_ANSWER_RECORDS && answer->secure)
        tlsa_ask(flight, flight->name);
    else
        host_finish(flight);
}

static bool addresses_are_secure(const struct host_work *work)
{
    for (int family = 0; family < FAMILIES; family++)
        if (work->status[family] == DNS_ANSWER_RECORDS && !work->secure[family])
            return false;
    return true;
}

static void addresses_done(struct flight *flight)
{
    const struct host_work *work = flight->host;
    bool is_alias = work->canonical[0] != '\0';

    if (!flight->dns->validating || host_status(work) != DNS_OK)
        host_finish(flight);
    else if (addresses_are_secure(work))
        tlsa_ask(flight, is_alias ? work->canonical : flight->name);
    else if (is_alias)
        flight_ask(flight, flight->name, DNS_TYPE_CNAME);
    else
        host_finish(flight);
}

static void address_answer(struct flight *flight, enum dns_type type,
                           const struct dns_answer *answer)
{
    struct host_work *work = flight->host;
    int family = type == DNS_TYPE_A ? FAMILY_V4 : FAMILY_V6;

    work->status[family] = answer->status;
    work->ttl_s[family] = answer->ttl_s;
    work->secure[family] = answer->secure;
    if (answer->canonical != NULL)
        snprintf(work->canonical, sizeof(work->canonical), "%s", answer->canonical);
    if (answer->status == DNS_ANSWER_RECORDS)
        host_take(flight->dns, work, family, answer);
    if (answer->status == DNS_ANSWER_FAILED)
        snprintf(work->error, sizeof(work->error), "%s", answer->error);
    if (flight->pending == 0)
        addresses_done(flight);
}

void host_answer(struct flight *flight, enum dns_type type, const struct dns_answer *answer)
{
    if (type == DNS_TYPE_TLSA)
        tlsa_answer(flight, answer);
    else if (type == DNS_TYPE_CNAME)
        alias_answer(flight, answer);
    else
        address_answer(flight, type, answer);
}

void host_free(struct host_work *work)
{
    if (work != NULL)
        dns_tlsa_unref(work->tlsa);
    free(work);
}

int host_start(struct flight *flight)
{
    const struct dns *dns = flight->dns;

    flight->host = calloc(1, sizeof(*flight->host));
    if (flight->host == NULL)
        return -ENOMEM;
    flight->host->tlsa_ttl_s = UINT32_MAX;
    for (int family = 0; family < FAMILIES; family++) {
        flight->host->status[family] = DNS_ANSWER_NO_DATA;
        flight->host->ttl_s[family] = UINT32_MAX;
    }
    if (!dns->no_ipv6)
        flight_ask(flight, flight->name, DNS_TYPE_AAAA);
    if (!dns->no_ipv4)
        flight_ask(flight, flight->name, DNS_TYPE_A);
    return 0;
}
