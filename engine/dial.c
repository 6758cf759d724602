#include "engine/dial.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "engine/worker.h"

bool dial_is_shortage(int err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -ENOBUFS;
}

/* The address to connect from, or NULL: the kernel chooses. */
static const struct config_address *source_for(const struct site *site, sa_family_t family)
{
    const struct config_source *source = &site->config->source;
    const struct config_address *bind = family == AF_INET    ? &source->ipv4
                                        : family == AF_INET6 ? &source->ipv6
                                                             : NULL;

    return bind != NULL && bind->len != 0 ? bind : NULL;
}

/* Whether it is this host that has no way to the address, whatever is there. A router's or a
 * neighbour's "unreachable" reads the same, but the kernel has a route then. */
static bool has_no_route(const struct dial *d, const struct site *site, int err)
{
    const struct exchanger *to = &d->exchanger;
    const struct config_address *from = source_for(site, to->addr.sa.sa_family);

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
           io_route(site->worker->io, &to->addr.sa, to->len,
                    from == NULL ? NULL : (const struct sockaddr *)&from->addr,
                    from == NULL ? 0 : from->len) < 0;
}

void dial_failed(struct dial *d, struct site *site, int err)
{
    struct worker *w = site->worker;
    sa_family_t family = d->exchanger.addr.sa.sa_family;

    exchangers_failed(&site->exchangers, &d->exchanger, io_now_ms(w->io));
    if (!has_no_route(d, site, err))
        return;
    d->no_route++;
    /* A route to nowhere may be that of one network. */
    if ((err == -ENETUNREACH || err == -EAFNOSUPPORT || err == -EADDRNOTAVAIL) &&
        families_no_route(&w->families, family, io_now_ms(w->io)))
        log_info("delivery.no_route",
                 "family=%s address=%s error=\"%s\" action=\"such addresses are tried last; where "
                 "this stays so, set dns.%s: no\"",
                 family == AF_INET6 ? "ipv6" : "ipv4", d->peer_addr, strerror(-err),
                 family == AF_INET6 ? "ipv6" : "ipv4");
}

static uint16_t tries_left(const struct dial *d, const struct site *site)
{
    uint32_t max = site->dest->addresses_max, used = (uint32_t)(d->tried - d->no_route);

    if (max == 0)
        return UINT16_MAX;
    return used < max ? (uint16_t)(max - used) : 0;
}

bool dial_may_go_on(const struct dial *d, const struct site *site)
{
    return d->tried < site->exchangers.len && tries_left(d, site) > 0;
}

void dial_rename(struct dial *d, const char *host)
{
    snprintf(d->peer_name, sizeof(d->peer_name), "%s", host);
    d->exchanger.host = d->peer_name;
}

static void choose(struct dial *d, const struct site *site)
{
    const struct exchangers *x = &site->exchangers;
    sa_family_t last = d->tried > 0 ? d->exchanger.addr.sa.sa_family : 0;
    struct exchanger_turn turn = {.now_ms = io_now_ms(site->worker->io),
                                  .offset = d->offset,
                                  .down = site->down,
                                  .avoid = last,
                                  .avoid_most = !d->both && tries_left(d, site) == 1};

    d->exchanger = x->list[exchangers_next(x, &turn)];
    d->tried++;
    d->both |= last != 0 && last != d->exchanger.addr.sa.sa_family;
    dial_rename(d, d->exchanger.host);
    peer_text(&d->exchanger.addr.sa, NULL, d->peer_addr);
}

static int dial(struct dial *d, struct site *site)
{
    const struct config_address *from = source_for(site, d->exchanger.addr.sa.sa_family);
    struct io *io = site->worker->io;

    d->fd =
        io_stream(io, d->exchanger.addr.sa.sa_family,
                  from != NULL ? (const void *)&from->addr : NULL, from != NULL ? from->len : 0);
    if (d->fd < 0)
        return d->fd;
    io_connect(io, &d->connect, d->fd, &d->exchanger.addr.sa, d->exchanger.len);
    return 0;
}

int dial_next(struct dial *d, struct site *site)
{
    int err = -ENOENT;

    while (dial_may_go_on(d, site)) {
        choose(d, site);
        err = dial(d, site);
        if (err == 0 || dial_is_shortage(err))
            return err;
        dial_failed(d, site, err); /* no such family here, or the source address is not ours */
    }
    return err;
}
