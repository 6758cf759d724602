#include "deliver/dial.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/sockaddr.h"
#include "dns/dns.h"
#include "worker/worker.h"

#define SMTP_PORT 25

bool dial_is_shortage(int err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -ENOBUFS;
}

/* Whether err says that this host has no route to the address, whatever is there. A router's or a
 * neighbour's "unreachable" reads the same, but the kernel has a route then. */
static bool has_no_route(const struct dial *d, const struct channel *c, int err)
{
    const struct exchanger *to = &d->exchanger;

    if (config_source_proxy(c->source) != NULL) /* it connects from elsewhere */
        return false;
    switch (err) {
    case -ENETUNREACH:
    case -EAFNOSUPPORT:
    case -EADDRNOTAVAIL: /* a route, but no address of ours; or else no local port */
    case -EHOSTUNREACH:  /* the route is "unreachable" ... */
    case -EACCES:        /* ... "prohibit" ... */
    case -EINVAL:        /* ... "blackhole" */
        break;
    default:
        return false;
    }
    return to->addr.sa.sa_family != AF_UNIX &&
           !source_has_route(c->source, &to->addr.sa, c->site->worker);
}

void dial_failed(struct dial *d, struct channel *c, int err)
{
    struct site *site = c->site;
    struct worker *w = site->worker;
    sa_family_t family = d->exchanger.addr.sa.sa_family;

    exchangers_failed(&site->exchangers, &d->exchanger, io_now_ms(w->io));
    if (!has_no_route(d, c, err))
        return;
    d->no_route++;
    d->lost += source_no_route(c->state, c->source, &d->exchanger.addr.sa, w);
    /* These errors concern the whole family; a route to nowhere may be that of one network. */
    if ((err == -ENETUNREACH || err == -EAFNOSUPPORT || err == -EADDRNOTAVAIL) &&
        families_no_route(&w->families, family, io_now_ms(w->io)))
        log_info("delivery.no_route",
                 "family=%s address=%s error=\"%s\" action=\"such addresses are tried last; where "
                 "this stays so, set dns.%s: no\"",
                 family == AF_INET6 ? "ipv6" : "ipv4", d->peer_addr, strerror(-err),
                 family == AF_INET6 ? "ipv6" : "ipv4");
}

bool dial_is_lost(const struct dial *d)
{
    return d->lost > 0 && d->lost == d->tried;
}

bool dial_lacked(const struct dial *d, const struct channel *c, int err)
{
    return dial_is_shortage(err) ||
           (err == -EADDRNOTAVAIL && d->exchanger.addr.sa.sa_family != AF_UNIX &&
            !has_no_route(d, c, err));
}

/* A listener of all addresses is reached by any of this host: who connects to one connects from it,
 * or from another loopback address. An IPv6 one of all addresses takes IPv4 too. */
static bool is_listener(const struct sockaddr *peer, const struct sockaddr *local,
                        const struct sockaddr *listener)
{
    if (listener->sa_family == AF_UNIX || sockaddr_port(listener) != sockaddr_port(peer))
        return false;
    if (sockaddr_same_host(listener, peer))
        return true;
    return sockaddr_is_unspecified(listener) &&
           (listener->sa_family == peer->sa_family || listener->sa_family == AF_INET6) &&
           (sockaddr_is_loopback(peer) || sockaddr_same_host(peer, local));
}

/* Zones of the dead say 127.0.0.1, 0.0.0.0 or ::1. Whoever takes mail there trusts this host. */
static bool is_this_host(const struct sockaddr *a)
{
    return sockaddr_is_loopback(a) || sockaddr_is_unspecified(a);
}

bool dial_is_own(const struct dial *d, const struct site *site)
{
    const struct config *config = site->config;
    const struct sockaddr *peer = &d->exchanger.addr.sa;
    struct sockaddr_storage local = {0};

    if (peer->sa_family == AF_UNIX)
        return false;
    if (is_this_host(peer) && sockaddr_port(peer) == SMTP_PORT)
        return true;
    if (io_local_name(site->worker->io, d->fd, &local) < 0)
        return false;
    for (size_t i = 0; i < config->listeners_len; i++)
        if (is_listener(peer, (const struct sockaddr *)&local,
                        (const struct sockaddr *)&config->listeners[i].address.addr))
            return true;
    return false;
}

static uint16_t tries_left(const struct dial *d, const struct site *site)
{
    uint32_t max = site->dest->addresses_max, used = (uint32_t)(d->tried - d->no_route);

    ASSERT(d->tried >= d->no_route);
    if (max == 0)
        return UINT16_MAX;
    return used < max ? (uint16_t)(max - used) : 0;
}

uint16_t dial_addresses(const struct channel *c)
{
    return exchangers_usable(&c->site->exchangers, channel_families(c));
}

bool dial_may_go_on(const struct dial *d, const struct channel *c)
{
    return d->tried < dial_addresses(c) && tries_left(d, c->site) > 0;
}

void dial_rename(struct dial *d, const char *host)
{
    snprintf(d->peer_name, sizeof(d->peer_name), "%s", host);
    d->exchanger.host = d->peer_name;
}

static void slot_give(struct dial *d)
{
    if (d->slot != NULL)
        governor_session_give(d->slot);
    d->slot = NULL;
}

/* Takes a place for a session at e, and the leave to connect. */
static bool slot_take(struct dial *d, const struct exchanger *e, const struct worker *w)
{
    uint64_t now_ns = io_now_ns(w->io);

    if (!governor_session_take(e->limits, w->index, now_ns))
        return false;
    if (governor_connect_take(e->limits, now_ns) != 0) {
        governor_session_give(e->limits);
        return false;
    }
    d->slot = e->limits;
    return true;
}

/* The next address whose host has room for the session, which takes its place there; -1: none. */
static int next_with_room(struct dial *d, const struct site *site,
                          const struct exchanger_turn *turn)
{
    const struct exchangers *x = &site->exchangers;
    int at;

    slot_give(d);
    do {
        at = exchangers_next(x, turn);
        if (at < 0 || x->list[at].limits == NULL)
            return at;
    } while (!slot_take(d, &x->list[at], site->worker));
    return at;
}

/* False: there is none any more. Another worker may have found meanwhile that an address of the
 * source is away. */
static bool choose(struct dial *d, const struct channel *c)
{
    const struct site *site = c->site;
    const struct exchangers *x = &site->exchangers;
    sa_family_t last = d->tried > 0 ? d->exchanger.addr.sa.sa_family : 0;
    struct exchanger_turn turn = {.now_ms = io_now_ms(site->worker->io),
                                  .offset = d->offset,
                                  .families = channel_families(c),
                                  .down = c->down,
                                  .avoid = last,
                                  .avoid_most = !d->both && tries_left(d, site) == 1};
    int at = exchangers_usable(x, turn.families) == 0 ? -1 : next_with_room(d, site, &turn);

    if (at < 0)
        return false;
    dns_tlsa_unref(d->exchanger.tlsa);
    d->exchanger = x->list[at];
    dns_tlsa_ref(d->exchanger.tlsa);
    d->tried++;
    d->both |= last != 0 && last != d->exchanger.addr.sa.sa_family;
    dial_rename(d, d->exchanger.host);
    peer_text(&d->exchanger.addr.sa, NULL, d->peer_addr);
    return true;
}

bool dial_is_pressed(const struct dial *d, const struct worker *w)
{
    return d->slot != NULL && governor_contended(d->slot, w->index);
}

void dial_done(struct dial *d)
{
    slot_give(d);
    dns_tlsa_unref(d->exchanger.tlsa);
}

bool dial_in_doubt(const struct dial *d, const struct site *site)
{
    return site->dane && d->exchanger.tlsa != NULL && d->exchanger.tlsa->error != NULL;
}

/* -errno; the source's address may turn out not to be this machine's. */
static int dial(struct dial *d, struct channel *c)
{
    sa_family_t family = d->exchanger.addr.sa.sa_family;
    const struct config_address *from = source_address(c->source, family);
    const struct config_address *proxy = family == AF_UNIX ? NULL : config_source_proxy(c->source);
    struct worker *w = c->site->worker;

    d->fd =
        io_stream(w->io, proxy != NULL ? proxy->addr.ss_family : family,
                  from != NULL ? (const void *)&from->addr : NULL, from != NULL ? from->len : 0);
    if (d->fd == -EADDRNOTAVAIL && from != NULL)
        source_missing(c->state, c->source, (enum source_part)source_family(family), d->fd, w);
    if (d->fd < 0)
        return d->fd;
    atomic_fetch_add_explicit(&c->state->shared.connects, 1, memory_order_relaxed);
    if (d->again)
        limits_connect_more(c->limits, CHANNEL_LIMITS, io_now_ns(w->io));
    d->again = true;
    if (proxy != NULL)
        io_connect(w->io, &d->connect, d->fd, (const struct sockaddr *)&proxy->addr, proxy->len);
    else
        io_connect(w->io, &d->connect, d->fd, &d->exchanger.addr.sa, d->exchanger.len);
    return 0;
}

int dial_again(struct dial *d, struct channel *c)
{
    if (d->slot != NULL)
        governor_connect_more(d->slot, io_now_ns(c->site->worker->io));
    return dial(d, c);
}

int dial_next(struct dial *d, struct channel *c)
{
    int err = -ENOENT;

    while (dial_may_go_on(d, c) && choose(d, c)) {
        err = dial_in_doubt(d, c->site) ? -ENOKEY : dial(d, c);
        if (dial_is_shortage(err) && d->slot != NULL)
            governor_connect_give(d->slot, io_now_ns(c->site->worker->io));
        if (err == 0 || dial_is_shortage(err))
            return err;
        if (err == -ENOKEY)
            log_info("delivery.tlsa_failed", "site=%s host=%s error=\"%s\"", c->site->name,
                     d->peer_name, d->exchanger.tlsa->error);
        if (err != -EADDRNOTAVAIL ||
            source_address(c->source, d->exchanger.addr.sa.sa_family) == NULL)
            dial_failed(d, c, err); /* no such family here */
    }
    return err == -ENOENT && exchangers_full(&c->site->exchangers, channel_families(c),
                                             io_now_ms(c->site->worker->io)) != NULL
               ? -EBUSY
               : err;
}
