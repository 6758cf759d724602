#include "schedule/exchanger.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "config/config.h"
#include "dns/dns.h"
#include "limits/governor.h"
#include "sts/sts_policy.h"
#include "worker/sources.h"

static void exchanger_set(struct exchanger *e, const struct dns_route *route,
                          const struct dns_address *from, uint16_t port)
{
    ASSERT(from->host < route->hosts_len);
    e->host = route->hosts[from->host].name;
    e->preference = route->hosts[from->host].preference;
    e->tlsa = route->hosts[from->host].tlsa;
    if (from->sa.sa_family == AF_INET6) {
        e->addr.in6 = from->in6;
        e->addr.in6.sin6_port = htons(port);
        e->len = sizeof(e->addr.in6);
    } else {
        e->addr.in = from->in;
        e->addr.in.sin_port = htons(port);
        e->len = sizeof(e->addr.in);
    }
}

bool exchanger_same(const struct exchanger *a, const struct exchanger *b)
{
    return a->len == b->len && memcmp(&a->addr, &b->addr, a->len) == 0;
}

/* Whether TLSA records stand above a policy: not where none of them says anything. */
static bool holds_dane(const struct dns_tlsa *tlsa)
{
    return tlsa != NULL && (tlsa->error != NULL || dns_tlsa_usable(tlsa));
}

/* RFC 8461 5: which hosts an enforced policy leaves, a bit for each. */
static uint32_t hosts_allowed(const struct dns_route *route, const struct sts_policy *sts,
                              bool dane)
{
    uint32_t allowed = 0;

    _Static_assert(DNS_HOSTS_MAX <= 32, "a bit for each");
    for (uint16_t i = 0; i < route->hosts_len; i++)
        if (sts == NULL || sts->mode != STS_ENFORCE || (dane && holds_dane(route->hosts[i].tlsa)) ||
            sts_policy_matches(sts, route->hosts[i].name))
            allowed |= UINT32_C(1) << i;
    return allowed;
}

static bool is_allowed(const struct dns_address *address, uint32_t allowed)
{
    return (allowed >> address->host & 1) != 0;
}

bool exchangers_any(const struct dns_route *route, const struct sts_policy *sts, bool dane)
{
    uint32_t allowed = hosts_allowed(route, sts, dane);

    for (uint16_t i = 0; i < route->addresses_len; i++)
        if (is_allowed(&route->addresses[i], allowed))
            return true;
    return false;
}

void exchangers_of_route(struct exchangers *x, struct dns_route *route, uint16_t port,
                         const struct sts_policy *sts, bool dane)
{
    struct exchangers old = *x;
    uint32_t allowed = hosts_allowed(route, sts, dane);

    x->list = calloc(route->addresses_len, sizeof(*x->list));
    ASSERT(x->list != NULL);
    x->len = 0;
    x->route = dns_route_ref(route);
    for (uint16_t i = 0; i < route->addresses_len; i++) {
        struct exchanger *e = &x->list[x->len];

        if (!is_allowed(&route->addresses[i], allowed))
            continue;
        x->len++;
        exchanger_set(e, route, &route->addresses[i], port);
        for (uint16_t j = 0; j < old.len; j++)
            if (exchanger_same(&old.list[j], e))
                e->failed_ms = old.list[j].failed_ms;
    }
    exchangers_done(&old);
}

void exchangers_of_socket(struct exchangers *x, const struct config_address *socket)
{
    x->list = calloc(1, sizeof(*x->list));
    ASSERT(x->list != NULL);
    ASSERT(socket->len <= sizeof(x->list[0].addr));
    x->len = 1;
    memcpy(&x->list[0].addr, &socket->addr, socket->len);
    x->list[0].len = socket->len;
    x->list[0].host = socket->text;
}

void exchangers_done(struct exchangers *x)
{
    if (x->route != NULL)
        dns_route_unref(x->route);
    free(x->list);
}

static sa_family_t family_of(const struct exchanger *e)
{
    return e->addr.sa.sa_family;
}

static bool is_of(const struct exchanger *e, uint8_t families)
{
    int family = source_family(family_of(e));

    return family < 0 || (families & 1 << family) != 0;
}

uint16_t exchangers_usable(const struct exchangers *x, uint8_t families)
{
    uint16_t usable = 0;

    for (uint16_t i = 0; i < x->len; i++)
        usable += is_of(&x->list[i], families);
    return usable;
}

static bool has_all_sessions(const struct exchanger *e, uint64_t now_ns)
{
    return e->limits != NULL && governor_sessions_full(e->limits, now_ns);
}

static uint64_t message_at(const struct exchanger *e, uint64_t now_ns)
{
    return e->limits == NULL ? 0 : governor_message_at(e->limits, now_ns, NULL);
}

static uint64_t open_at(const struct exchanger *e, uint64_t now_ns)
{
    uint64_t message_ns = message_at(e, now_ns);
    uint64_t connect_ns = e->limits == NULL ? 0 : governor_connect_at(e->limits);

    return message_ns > connect_ns ? message_ns : connect_ns;
}

/* Whether its limits let no further session begin. */
static bool is_full(const struct exchanger *e, uint64_t now_ms)
{
    uint64_t now_ns = now_ms * 1000000;

    return has_all_sessions(e, now_ns) || open_at(e, now_ns) > now_ns;
}

void exchangers_lack(const struct exchangers *x, uint8_t families, uint32_t worker, uint64_t now_ns)
{
    for (uint16_t i = 0; i < x->len; i++) {
        struct governor_entry *e = x->list[i].limits;

        if (e != NULL && is_of(&x->list[i], families) && governor_session_take(e, worker, now_ns))
            governor_session_give(e); /* one has ended just now: the next look finds it */
    }
}

void exchangers_lack_none(const struct exchangers *x, uint32_t worker)
{
    for (uint16_t i = 0; i < x->len; i++)
        if (x->list[i].limits != NULL)
            governor_session_withdraw(x->list[i].limits, worker, 1);
}

/* When the address, or the way to its family, last failed; 0: never. */
static uint64_t failed_ms(const struct exchangers *x, const struct exchanger *e, uint64_t now_ms)
{
    uint64_t no_route_ms =
        x->families == NULL ? 0 : families_no_route_ms(x->families, family_of(e));

    if (no_route_ms > e->failed_ms && no_route_ms + EXCHANGER_BAD_MS > now_ms)
        return no_route_ms;
    return e->failed_ms;
}

static bool failed_lately(const struct exchangers *x, const struct exchanger *e, uint64_t now_ms,
                          bool down)
{
    uint64_t at_ms = failed_ms(x, e, now_ms);

    return at_ms != 0 && (down || at_ms + EXCHANGER_BAD_MS > now_ms);
}

const struct exchanger *exchangers_full(const struct exchangers *x, uint8_t families,
                                        uint64_t now_ms)
{
    const struct exchanger *full = NULL, *failed_full = NULL;
    bool failed_room = false;

    for (uint16_t i = 0; i < x->len; i++) {
        const struct exchanger *e = &x->list[i];
        bool room = !is_full(e, now_ms);

        if (!is_of(e, families))
            continue;
        if (failed_lately(x, e, now_ms, false)) {
            failed_room |= room;
            failed_full = room ? failed_full : e;
        } else if (room) {
            return NULL;
        } else if (full == NULL || has_all_sessions(e, now_ms * 1000000)) {
            full = e;
        }
    }
    return full != NULL || failed_room ? full : failed_full;
}

/* The least of what at() says of those that did not fail lately, or where all did of all. */
static uint64_t soonest(const struct exchangers *x, uint8_t families, uint64_t now_ns,
                        uint64_t (*at)(const struct exchanger *, uint64_t),
                        const struct exchanger **by)
{
    uint64_t best_ns = UINT64_MAX;
    bool works = false;

    for (uint16_t i = 0; i < x->len; i++) {
        const struct exchanger *e = &x->list[i];
        bool failed = failed_lately(x, e, now_ns / 1000000, false);
        uint64_t one_ns = !is_of(e, families) || (failed && works) ? UINT64_MAX : at(e, now_ns);

        if (one_ns == UINT64_MAX || (one_ns >= best_ns && (failed || works)))
            continue;
        works |= !failed;
        best_ns = one_ns;
        if (by != NULL)
            *by = e;
    }
    return best_ns == UINT64_MAX ? 0 : best_ns;
}

/* One whose sessions are all open waits for another thing. */
static uint64_t open_at_of_room(const struct exchanger *e, uint64_t now_ns)
{
    return has_all_sessions(e, now_ns) ? UINT64_MAX : open_at(e, now_ns);
}

uint64_t exchangers_open_at(const struct exchangers *x, uint8_t families, uint64_t now_ns,
                            const struct exchanger **by)
{
    return soonest(x, families, now_ns, open_at_of_room, by);
}

uint64_t exchangers_message_at(const struct exchangers *x, uint64_t now_ns,
                               const struct exchanger **by)
{
    return soonest(x, UINT8_MAX, now_ns, message_at, by);
}

int exchangers_next(const struct exchangers *x, const struct exchanger_turn *turn)
{
    uint64_t now_ms = turn->now_ms;
    uint16_t best = 0;
    int first = -1, oldest = -1;
    bool waits = false; /* for room at one that works */

    while (best < x->len && x->list[best].preference == x->list[0].preference)
        best++;
    for (uint16_t i = 0; i < x->len; i++) {
        uint16_t at = (uint16_t)(i < best ? (i + turn->offset) % best : i);
        const struct exchanger *e = &x->list[at];

        if (turn->families != 0 && !is_of(e, turn->families))
            continue;
        if (is_full(e, now_ms)) {
            waits |= !failed_lately(x, e, now_ms, turn->down);
            continue;
        }
        if (failed_lately(x, e, now_ms, turn->down)) {
            if (oldest < 0 || failed_ms(x, e, now_ms) < failed_ms(x, &x->list[oldest], now_ms))
                oldest = at;
            continue;
        }
        if (first >= 0 && !turn->avoid_most && e->preference != x->list[first].preference)
            break;
        if (turn->avoid == 0 || family_of(e) != turn->avoid)
            return at;
        if (first < 0)
            first = at;
    }
    return first >= 0 || waits ? first : oldest;
}

bool exchangers_other(const struct exchangers *x, const struct exchanger *e, uint64_t now_ms)
{
    for (uint16_t i = 0; i < x->len; i++)
        if (!exchanger_same(&x->list[i], e) && !failed_lately(x, &x->list[i], now_ms, false))
            return true;
    return false;
}

void exchangers_failed(struct exchangers *x, const struct exchanger *e, uint64_t now_ms)
{
    for (uint16_t i = 0; i < x->len; i++)
        if (exchanger_same(&x->list[i], e))
            x->list[i].failed_ms = now_ms;
}
