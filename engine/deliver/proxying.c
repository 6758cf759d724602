#include "deliver/proxying.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/proxy_header.h"
#include "base/sockaddr.h"
#include "base/socks5.h"
#include "deliver/delivery.h"

struct proxying {
    struct socks5 socks5; /* where the proxy speaks that */
    bool answers;         /* it does */
    bool said;            /* the PROXY header is on its way, or was sent */
    bool sending;
    uint8_t out[SOCKS5_SAY_MAX];
};

_Static_assert(PROXY_HEADER_PUT_MAX <= SOCKS5_SAY_MAX, "either fits");

static const struct config_source *source_of(const struct delivery *d)
{
    return d->channel->source;
}

const struct config_address *proxying_to(const struct delivery *d)
{
    return d->dial.exchanger.addr.sa.sa_family == AF_UNIX ? NULL
                                                          : config_source_proxy(source_of(d));
}

bool proxying_begin(struct delivery *d)
{
    const struct config_proxy *proxy = &source_of(d)->proxy;

    ASSERT(d->proxying == NULL);
    d->proxying = calloc(1, sizeof(*d->proxying));
    ASSERT(d->proxying != NULL);
    d->proxying->answers = proxy->socks5.len != 0;
    if (d->proxying->answers)
        socks5_begin(&d->proxying->socks5, proxy->user, proxy->password,
                     &d->dial.exchanger.addr.sa);
    return d->proxying->answers;
}

/* Whether the source has an address of the exchanger's family: in *out with the local port of the
 * connection to the proxy, which finds this session in the proxy's log. */
static bool own_address(const struct delivery *d, struct sockaddr_storage *out)
{
    bool is_v4 = d->dial.exchanger.addr.sa.sa_family == AF_INET;
    const struct config_address *own = is_v4 ? &source_of(d)->ipv4 : &source_of(d)->ipv6;
    struct sockaddr_storage local = {0};
    uint16_t port = 0;

    if (own->len == 0)
        return false;
    if (io_local_name(d->worker->io, d->dial.fd, &local) == 0)
        port = sockaddr_port((struct sockaddr *)&local);
    *out = own->addr;
    sockaddr_set_port((struct sockaddr *)out, port);
    return true;
}

static size_t put_header(struct delivery *d)
{
    struct sockaddr_storage from;
    bool known = own_address(d, &from);

    ASSERT(known); /* an exchanger of another family is not dialed */
    d->proxying->said = true;
    return proxy_header_put(d->proxying->out, (const struct sockaddr *)&from,
                            &d->dial.exchanger.addr.sa);
}

size_t proxying_output(struct delivery *d)
{
    struct proxying *p = d->proxying;
    size_t len = 0;

    ASSERT(!p->sending);
    if (p->answers)
        len = socks5_say(&p->socks5, p->out);
    else if (!p->said)
        len = put_header(d);
    p->sending = len > 0;
    d->iov[0] = (struct iovec){p->out, len};
    return len > 0;
}

bool proxying_sent(struct delivery *d, enum proxying_status *out)
{
    struct proxying *p = d->proxying;

    *out = PROXYING_GOES_ON;
    if (p == NULL || !p->sending)
        return false;
    p->sending = false;
    explicit_bzero(p->out, sizeof(p->out)); /* it may have been a password */
    if (!p->answers)
        *out = PROXYING_OPEN;
    return true;
}

enum proxying_status proxying_input(struct delivery *d, const uint8_t **data, size_t *len)
{
    struct socks5 *s = &d->proxying->socks5;
    size_t taken;

    ASSERT(d->proxying->answers);
    taken = socks5_hear(s, *data, *len);
    *data += taken;
    *len -= taken;
    if (s->state == SOCKS5_FAILED)
        return PROXYING_FAILED;
    return s->state == SOCKS5_OPEN ? PROXYING_OPEN : PROXYING_GOES_ON;
}

void proxying_opened(struct delivery *d)
{
    const struct socks5 *s = &d->proxying->socks5;
    struct sockaddr_storage from;

    if (d->proxying->answers && s->bound.ss_family != AF_UNSPEC)
        from = s->bound;
    else if (!own_address(d, &from) && io_local_name(d->worker->io, d->dial.fd, &from) < 0)
        return;
    peer_text((const struct sockaddr *)&from, NULL, d->source_addr);
}

void proxying_put_name(const struct delivery *d, bool ended, char out[PROXYING_WHY])
{
    char proxy[SOURCE_PROXY_TEXT];

    source_proxy_text(source_of(d), proxy);
    snprintf(out, PROXYING_WHY, "through %s%s", proxy, ended ? ", which may be what ended it" : "");
}

bool proxying_over(struct delivery *d, char why[PROXYING_WHY])
{
    const struct socks5 *s = d->proxying == NULL ? NULL : &d->proxying->socks5;
    bool refused = s != NULL && s->state == SOCKS5_FAILED;
    int err = refused ? s->error : d->error;
    char proxy[SOURCE_PROXY_TEXT], text[SOCKS5_TEXT];

    ASSERT(err != 0);
    if (s == NULL || !s->asked) {
        source_missing(d->channel->state, source_of(d), SOURCE_PROXY, err, d->worker);
        return false;
    }
    source_error_text(err, text);
    source_proxy_text(source_of(d), proxy);
    snprintf(why, PROXYING_WHY, "through %s: %s", proxy,
             refused             ? text
             : err == -ETIMEDOUT ? "no answer in time"
             : err == -EPIPE     ? "the proxy closed the connection without an answer"
                                 : text);
    return true;
}

void proxying_end(struct delivery *d)
{
    if (d->proxying == NULL)
        return;
    explicit_bzero(d->proxying, sizeof(*d->proxying));
    free(d->proxying);
    d->proxying = NULL;
}
