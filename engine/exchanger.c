#include "engine/exchanger.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "dns/dns.h"
#include "engine/config.h"

static void exchanger_set(struct exchanger *e, const struct dns_route *route,
                          const struct dns_address *from, uint16_t port)
{
    e->host = route->hosts[from->host].name;
    e->preference = route->hosts[from->host].preference;
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

void exchangers_of_route(struct exchangers *x, struct dns_route *route, uint16_t port)
{
    struct exchangers old = *x;

    x->list = calloc(route->addresses_len, sizeof(*x->list));
    ASSERT(x->list != NULL);
    x->len = route->addresses_len;
    x->route = dns_route_ref(route);
    for (uint16_t i = 0; i < x->len; i++) {
        struct exchanger *e = &x->list[i];

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

static bool failed_lately(const struct exchanger *e, uint64_t now_ms, bool down)
{
    return e->failed_ms != 0 && (down || e->failed_ms + EXCHANGER_BAD_MS > now_ms);
}

int exchangers_next(const struct exchangers *x, uint16_t offset, uint64_t now_ms, bool down)
{
    uint16_t best = 0;
    int oldest = -1;

    while (best < x->len && x->list[best].preference == x->list[0].preference)
        best++;
    for (uint16_t i = 0; i < x->len; i++) {
        uint16_t at = (uint16_t)(i < best ? (i + offset) % best : i);

        if (!failed_lately(&x->list[at], now_ms, down))
            return at;
        if (oldest < 0 || x->list[at].failed_ms < x->list[oldest].failed_ms)
            oldest = at;
    }
    return oldest;
}

bool exchangers_other(const struct exchangers *x, const struct exchanger *e, uint64_t now_ms)
{
    for (uint16_t i = 0; i < x->len; i++)
        if (!exchanger_same(&x->list[i], e) && !failed_lately(&x->list[i], now_ms, false))
            return true;
    return false;
}

void exchangers_failed(struct exchangers *x, const struct exchanger *e, uint64_t now_ms)
{
    for (uint16_t i = 0; i < x->len; i++)
        if (exchanger_same(&x->list[i], e))
            x->list[i].failed_ms = now_ms;
}
