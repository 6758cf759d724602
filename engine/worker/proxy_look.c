#include "worker/proxy_look.h"

#include <errno.h>
#include <stdlib.h>

#include "base/socks5.h"
#include "worker/shared.h"
#include "worker/sources.h"
#include "worker/stream.h"
#include "worker/worker.h"

#define LOOK_TIMEOUT_MS 10000

struct proxy_look {
    struct list_node node; /* worker->proxy_looks */
    struct worker *worker;
    struct source *source;
    struct config *config;          /* a reference: of is in it */
    const struct config_source *of; /* whose proxy it is */
    struct io_op connect;
    struct stream stream;
    struct timer timer;
    struct socks5 socks5;
    uint8_t said[SOCKS5_SAY_MAX];
    struct iovec iov;
    bool over;
};

static void end(struct proxy_look *l)
{
    l->over = true;
    l->source->looking = false;
    wheel_cancel(io_wheel(l->worker->io), &l->timer);
    io_cancel(l->worker->io, &l->connect);
    stream_cancel(&l->stream, false);
}

static void works(struct proxy_look *l)
{
    source_found(l->source, l->of, SOURCE_PROXY, l->worker);
    end(l);
}

static void fails(struct proxy_look *l, int err)
{
    source_missing(l->source, l->of, SOURCE_PROXY, err, l->worker);
    end(l);
}

static void say(struct proxy_look *l)
{
    size_t len = stream_sending(&l->stream) ? 0 : socks5_say(&l->socks5, l->said);
    int err;

    if (len == 0)
        return;
    l->iov = (struct iovec){l->said, len};
    err = stream_send(&l->stream, &l->iov, 1, false);
    if (err < 0)
        fails(l, err);
}

static void on_recv(struct stream *stream, int32_t result, const uint8_t *data)
{
    struct proxy_look *l = CONTAINER_OF(stream, struct proxy_look, stream);

    if (result <= 0) {
        fails(l, result == 0 ? -EPIPE : result);
        return;
    }
    (void)socks5_hear(&l->socks5, data, (size_t)result);
    if (l->socks5.state == SOCKS5_OPEN)
        works(l);
    else if (l->socks5.state == SOCKS5_FAILED)
        fails(l, l->socks5.error);
    else
        say(l);
}

static void on_sent(struct stream *stream, int32_t result)
{
    struct proxy_look *l = CONTAINER_OF(stream, struct proxy_look, stream);

    explicit_bzero(l->said, sizeof(l->said));
    if (result == 0)
        say(l); /* else the receive ends, behind what the proxy has said */
}

static const struct stream_handlers handlers = {on_recv, on_sent};

static void on_connect(struct io_op *op, const struct io_event *event)
{
    struct proxy_look *l = CONTAINER_OF(op, struct proxy_look, connect);

    if (l->over)
        return;
    if (event->result == -EADDRNOTAVAIL || event->result == -ENOMEM || event->result == -ENOBUFS) {
        end(l); /* this host lacks something: nothing is known of the proxy */
    } else if (event->result < 0) {
        fails(l, event->result);
    } else if (l->of->proxy.socks5.len == 0) {
        works(l);
    } else {
        socks5_begin(&l->socks5, l->of->proxy.user, l->of->proxy.password, NULL);
        stream_recv(&l->stream);
        say(l);
    }
}

static void on_timer(struct timer *timer)
{
    fails(CONTAINER_OF(timer, struct proxy_look, timer), -ETIMEDOUT);
}

void proxy_look(struct worker *w, struct source *s, const struct config_source *of)
{
    const struct config_address *proxy = config_source_proxy(of);
    struct proxy_look *l;
    int fd;

    if (s->looking)
        return;
    fd = io_stream(w->io, proxy->addr.ss_family, NULL, 0);
    if (fd < 0)
        return; /* descriptors are short, perhaps: later */
    l = calloc(1, sizeof(*l));
    ASSERT(l != NULL);
    l->worker = w;
    l->source = s;
    l->config = config_ref(w->config);
    l->of = of;
    l->connect.on_event = on_connect;
    l->timer.on_timer = on_timer;
    s->looking = true;
    stream_init(&l->stream, &w->streams, &handlers);
    stream_attach(&l->stream, fd);
    list_push_back(&w->proxy_looks, &l->node);
    wheel_arm(io_wheel(w->io), &l->timer, io_now_ms(w->io) + LOOK_TIMEOUT_MS);
    io_connect(w->io, &l->connect, fd, (const struct sockaddr *)&proxy->addr, proxy->len);
}

void proxy_looks_reap(struct worker *w)
{
    struct list_node *n, *next;

    for (n = list_first(&w->proxy_looks); n != NULL; n = next) {
        struct proxy_look *l = LIST_ENTRY(n, struct proxy_look, node);

        next = list_next(&w->proxy_looks, n);
        if (!l->over || io_op_busy(&l->connect) || stream_busy(&l->stream))
            continue;
        list_remove(&l->node);
        stream_close(&l->stream, false);
        config_unref(l->config);
        free(l);
    }
}

void proxy_looks_end(struct worker *w)
{
    for (struct list_node *n = list_first(&w->proxy_looks); n != NULL;
         n = list_next(&w->proxy_looks, n))
        if (!LIST_ENTRY(n, struct proxy_look, node)->over)
            end(LIST_ENTRY(n, struct proxy_look, node));
}
