#include "engine/dial.h"

#include <errno.h>
#include <stdio.h>

bool dial_is_shortage(int err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOMEM || err == -ENOBUFS;
}

void dial_failed(struct dial *d, struct site *site)
{
    exchangers_failed(&site->exchangers, &d->exchanger, io_now_ms(site->worker->io));
}

bool dial_may_go_on(const struct dial *d, const struct site *site)
{
    uint32_t max = site->dest->addresses_max;

    return d->tried < site->exchangers.len && (max == 0 || d->tried < max);
}

void dial_rename(struct dial *d, const char *host)
{
    snprintf(d->peer_name, sizeof(d->peer_name), "%s", host);
    d->exchanger.host = d->peer_name;
}

static void choose(struct dial *d, const struct site *site)
{
    const struct exchangers *x = &site->exchangers;
    uint64_t now_ms = io_now_ms(site->worker->io);

    d->tried++;
    d->exchanger = x->list[exchangers_next(x, d->offset, now_ms, site->down)];
    dial_rename(d, d->exchanger.host);
    peer_text(&d->exchanger.addr.sa, NULL, d->peer_addr);
}

static int dial(struct dial *d, struct site *site)
{
    const struct config_source *source = &site->config->source;
    const struct config_address *bind = NULL;
    struct io *io = site->worker->io;

    if (d->exchanger.addr.sa.sa_family == AF_INET)
        bind = &source->ipv4;
    else if (d->exchanger.addr.sa.sa_family == AF_INET6)
        bind = &source->ipv6;
    d->fd = io_stream(io, d->exchanger.addr.sa.sa_family,
                      bind != NULL && bind->len != 0 ? (const void *)&bind->addr : NULL,
                      bind != NULL ? bind->len : 0);
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
        dial_failed(d, site); /* no such family here, or the source address is not ours */
    }
    return err;
}
