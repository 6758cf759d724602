/* Listeners: bound once, before privileges are dropped; their settings change with reloads. */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/log.h"
#include "intake/hot.h"
#include "intake/inject_message.h"

#define ACCEPT_RETRY_MS 100
#define ACCEPT_BACKLOG  4096

static void on_accept_timer(struct timer *timer)
{
    struct inject_listener *l = CONTAINER_OF(timer, struct inject_listener, timer);

    io_accept(l->worker->io, &l->accept, l->fd);
}

void inject_listener_close(struct inject_listener *l)
{
    wheel_cancel(io_wheel(l->worker->io), &l->timer);
    if (l->fd < 0 || io_op_busy(&l->accept))
        return;
    io_close_fd(l->worker->io, l->fd, false);
    l->fd = -1;
}

static void on_accept(struct io_op *op, const struct io_event *event)
{
    struct inject_listener *l = CONTAINER_OF(op, struct inject_listener, accept);
    struct worker *w = l->worker;

    ASSERT(l->fd >= 0);
    if (event->result >= 0 && w->port == NULL) /* the worker has not begun, or has ended */
        io_close_fd(w->io, event->result, true);
    else if (event->result >= 0)
        inject_begin(l, event->result);
    else if (event->result != -ECANCELED && !l->complained)
        log_warn("smtp.accept_failed", "listener=%s error=\"%s\" action=\"accepting pauses\"",
                 l->settings->name, strerror(-event->result));
    l->complained = event->result < 0;
    if (w->draining)
        inject_listener_close(l);
    else if (!event->more)
        wheel_arm(io_wheel(w->io), &l->timer, io_now_ms(w->io) + ACCEPT_RETRY_MS);
}

static void listener_set(struct inject_listener *l, struct config *config, size_t index)
{
    l->config = config_ref(config);
    l->settings = &config->listeners[index];
}

/* A Unix socket has its mode from the start: by the mask, so that it is never open to others. Its
 * owner is set before privileges are dropped (tools/commands/cmd_serve.c). */
static int listen_on(struct worker *w, const struct config_listener *c)
{
    bool is_unix = c->address.addr.ss_family == AF_UNIX;
    mode_t mask = is_unix ? umask(0777 & ~c->mode) : 0;
    int fd = io_listen(w->io, (const struct sockaddr *)&c->address.addr, c->address.len,
                       ACCEPT_BACKLOG, !is_unix);

    if (is_unix)
        umask(mask);
    return fd;
}

int inject_open(struct worker *w, const struct config_listener **which)
{
    struct config *c = w->config;

    w->listeners = calloc(c->listeners_len + 1, sizeof(*w->listeners));
    w->hot = calloc(1, sizeof(*w->hot));
    if (w->listeners == NULL || w->hot == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < c->listeners_len; i++) {
        struct inject_listener *l = &w->listeners[i];

        /* No SO_REUSEPORT with Unix sockets: the first worker has them alone. */
        if (c->listeners[i].address.addr.ss_family == AF_UNIX && w->index != 0)
            continue;
        l = &w->listeners[w->listeners_len];
        l->worker = w;
        l->index = i;
        l->accept.on_event = on_accept;
        l->timer.on_timer = on_accept_timer;
        l->fd = listen_on(w, &c->listeners[i]);
        if (l->fd < 0) {
            *which = &c->listeners[i];
            return l->fd;
        }
        listener_set(l, c, i);
        w->listeners_len++;
    }
    return 0;
}

void inject_start(struct worker *w)
{
    for (size_t i = 0; i < w->listeners_len; i++)
        io_accept(w->io, &w->listeners[i].accept, w->listeners[i].fd);
}

/* New sessions get the new configuration; present ones end under that of their beginning. */
void inject_reload(struct worker *w)
{
    for (size_t i = 0; i < w->listeners_len; i++) {
        struct inject_listener *l = &w->listeners[i];

        for (size_t j = 0; j < w->config->listeners_len; j++) {
            struct config *old = l->config;

            if (strcmp(w->config->listeners[j].address.text, l->settings->address.text) != 0)
                continue;
            listener_set(l, w->config, j);
            config_unref(old);
            break;
        }
    }
}

void inject_close(struct worker *w)
{
    for (size_t i = 0; i < w->listeners_len; i++) {
        inject_listener_close(&w->listeners[i]);
        config_unref(w->listeners[i].config);
    }
    free(w->listeners);
    free(w->hot);
    inject_rejections_end(w);
}
