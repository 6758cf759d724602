#include "worker/sources.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/sockaddr.h"
#include "worker/proxy_look.h"
#include "worker/shared.h"
#include "worker/worker.h"

#define LOOK_MS     1000 /* behind the first look in vain; doubled with each */
#define LOOK_MS_MAX 60000
/* Where addresses of this host, or its routes, change again and again, they are looked at so
 * seldom. */
#define ADDRESSES_EVERY_MS 20
#define ROUTES_EVERY_MS    5000
#define NS_PER_MS          UINT64_C(1000000)

int sources_init(struct sources *s)
{
    int err = map_init(&s->by_key, 16);

    if (err == 0)
        pthread_mutex_init(&s->lock, NULL);
    return err;
}

void sources_done(struct sources *s)
{
    struct map_node *n;
    size_t bucket = 0;

    if (s->by_key.buckets == NULL)
        return;
    while ((n = map_walk(&s->by_key, &bucket, NULL)) != NULL) {
        struct source *one = CONTAINER_OF(n, struct source, node);

        map_remove(&s->by_key, n);
        free(one->key);
        free(one);
    }
    map_done(&s->by_key);
    pthread_mutex_destroy(&s->lock);
}

static struct source *source_new(const struct config_source *of, struct buf *key)
{
    struct source *s = aligned_alloc(CACHE_LINE_BYTES, sizeof(*s));

    ASSERT(s != NULL);
    memset(s, 0, sizeof(*s));
    buf_putc(key, '\0');
    s->key = (char *)key->data;
    *key = (struct buf){0};
    s->has[SOURCE_IPV4] = of->ipv4.len != 0;
    s->has[SOURCE_IPV6] = of->ipv6.len != 0;
    s->has[SOURCE_PROXY] = config_source_proxy(of) != NULL;
    return s;
}

struct source *sources_get(struct sources *all, const struct config_source *of)
{
    const struct config_address *proxy = config_source_proxy(of);
    struct source *s = NULL;
    struct buf key = {0};
    struct map_node *n;
    uint64_t hash;

    buf_printf(&key, "%s|%s|%s", of->name, of->ipv4.len != 0 ? of->ipv4.text : "",
               of->ipv6.len != 0 ? of->ipv6.text : "");
    if (proxy != NULL)
        buf_printf(&key, "|%s|%s|%s", config_proxy_word(of), proxy->text,
                   of->proxy.user == NULL ? "" : of->proxy.user);
    hash = hash_bytes(key.data, key.len, 0);
    pthread_mutex_lock(&all->lock);
    for (n = map_find(&all->by_key, hash); n != NULL && s == NULL; n = map_find_next(n))
        if (str_eq(str_of(CONTAINER_OF(n, struct source, node)->key), buf_str(&key)))
            s = CONTAINER_OF(n, struct source, node);
    if (s == NULL) {
        s = source_new(of, &key);
        map_insert(&all->by_key, &s->node, hash);
    }
    pthread_mutex_unlock(&all->lock);
    buf_done(&key);
    return s;
}

int source_family(sa_family_t family)
{
    return family == AF_INET ? SOURCE_IPV4 : family == AF_INET6 ? SOURCE_IPV6 : -1;
}

const struct config_address *source_own_address(const struct config_source *of,
                                                enum source_part part)
{
    return part == SOURCE_IPV4 ? &of->ipv4 : &of->ipv6;
}

const struct config_address *source_address(const struct config_source *of, sa_family_t family)
{
    int own = config_source_proxy(of) != NULL ? -1 : source_family(family);
    const struct config_address *a = own < 0 ? NULL : source_own_address(of, (enum source_part)own);

    return a != NULL && a->len != 0 ? a : NULL;
}

uint8_t source_families(const struct source *s)
{
    uint8_t families = 0;

    if (source_away_ns(s, SOURCE_PROXY) != 0)
        return 0;
    if (!s->has[SOURCE_IPV4] && !s->has[SOURCE_IPV6])
        return 1 << SOURCE_IPV4 | 1 << SOURCE_IPV6;
    for (int i = 0; i < SOURCE_FAMILIES; i++)
        if (s->has[i] && source_away_ns(s, (enum source_part)i) == 0)
            families |= (uint8_t)(1 << i);
    return families;
}

uint64_t source_look_ns(const struct source *s)
{
    uint64_t first_ns = 0;

    for (int i = 0; i < SOURCE_PARTS; i++) {
        uint64_t away_ns = source_away_ns(s, (enum source_part)i);

        if (away_ns != 0 && (first_ns == 0 || away_ns < first_ns))
            first_ns = away_ns;
    }
    return first_ns;
}

uint8_t source_families_lost(const struct source *s)
{
    uint8_t lost = 0;

    for (int i = 0; i < SOURCE_FAMILIES; i++)
        if (s->has[i] && atomic_load_explicit(&s->shared.no_route_ms[i], memory_order_relaxed) != 0)
            lost |= (uint8_t)(1 << i);
    return lost;
}

void source_error_text(int err, char out[SOCKS5_TEXT])
{
    if (err > 0)
        socks5_error_text(err, out);
    else if (err == -EPIPE)
        snprintf(out, SOCKS5_TEXT, "it closed the connection");
    else
        snprintf(out, SOCKS5_TEXT, "%s", strerror(-err));
}

void source_proxy_text(const struct config_source *of, char out[SOURCE_PROXY_TEXT])
{
    ASSERT(config_source_proxy(of) != NULL);
    snprintf(out, SOURCE_PROXY_TEXT, "%s %s", config_proxy_word(of), config_source_proxy(of)->text);
}

/* --- whether the address or the proxy is there --- */

static void log_missing(const struct source *s, const struct config_source *of,
                        enum source_part part, int err)
{
    char text[SOCKS5_TEXT], proxy[SOURCE_PROXY_TEXT];

    source_error_text(err, text);
    if (part == SOURCE_PROXY) {
        source_proxy_text(of, proxy);
        log_warn("source.proxy_down",
                 "source=%s proxy=\"%s\" error=\"%s\" action=\"start the proxy, or mend what the "
                 "error names; the source is left out until it works\"",
                 of->name, proxy, text);
        return;
    }
    log_warn(
        "source.address_missing",
        "source=%s address=%s error=\"%s\" action=\"add the address to this machine; until then "
        "the source %s\"",
        of->name, source_own_address(of, part)->text, text,
        source_families(s) == 0 ? "sends nothing" : "sends over its other family alone");
}

void source_missing(struct source *s, const struct config_source *of, enum source_part part,
                    int err, struct worker *w)
{
    uint64_t wait_ms = LOOK_MS_MAX;
    uint32_t looks;

    ASSERT(s->has[part] && err != 0);
    if (source_away_ns(s, part) > io_now_ns(w->io))
        return; /* several sessions found out at once */
    looks = atomic_fetch_add_explicit(&s->shared.looks[part], 1, memory_order_relaxed);
    if (looks < 6)
        wait_ms = (uint64_t)LOOK_MS << looks;

    atomic_store_explicit(&s->shared.error[part], err, memory_order_relaxed);
    if (atomic_exchange_explicit(&s->shared.away_ns[part], io_now_ns(w->io) + wait_ms * NS_PER_MS,
                                 memory_order_relaxed) != 0)
        return;
    atomic_fetch_add_explicit(&w->shared->sources.changed, 1, memory_order_relaxed);
    atomic_store_explicit(&s->shared.since_ms[part], worker_wall_ms(w), memory_order_relaxed);
    log_missing(s, of, part, err);
}

void source_found(struct source *s, const struct config_source *of, enum source_part part,
                  struct worker *w)
{
    char proxy[SOURCE_PROXY_TEXT];

    ASSERT(s->has[part]);
    atomic_store_explicit(&s->shared.looks[part], 0, memory_order_relaxed);
    if (atomic_exchange_explicit(&s->shared.away_ns[part], 0, memory_order_relaxed) == 0)
        return;
    atomic_fetch_add_explicit(&w->shared->sources.changed, 1, memory_order_relaxed);
    if (part == SOURCE_PROXY) {
        source_proxy_text(of, proxy);
        log_info("source.proxy_back", "source=%s proxy=\"%s\"", of->name, proxy);
    } else {
        log_info("source.address_back", "source=%s address=%s", of->name,
                 source_own_address(of, part)->text);
    }
}

/* Whether err says that the address, or its family, is not there; a shortage says nothing. */
static bool is_missing(int err)
{
    return err == -EADDRNOTAVAIL || err == -EAFNOSUPPORT || err == -EACCES || err == -EINVAL;
}

static void look_address(struct worker *w, struct source *s, const struct config_source *of,
                         enum source_part part)
{
    const struct config_address *a = source_own_address(of, part);
    int fd = io_stream(w->io, a->addr.ss_family, (const struct sockaddr *)&a->addr, a->len);

    if (fd >= 0) {
        io_close_fd(w->io, fd, true);
        source_found(s, of, part, w);
    } else if (is_missing(fd)) {
        source_missing(s, of, part, fd, w);
    }
}

/* --- whether a family has a route --- */

/* Addresses of a root name server stand for the internet. Nothing is sent to them. */
static const struct sockaddr *internet(enum source_part part, struct sockaddr_storage *out)
{
    struct sockaddr_in *in = (void *)out;
    struct sockaddr_in6 *in6 = (void *)out;

    *out = (struct sockaddr_storage){.ss_family = part == SOURCE_IPV4 ? AF_INET : AF_INET6};
    if (part == SOURCE_IPV4) {
        in->sin_port = htons(25);
        (void)inet_pton(AF_INET, "193.0.14.129", &in->sin_addr);
    } else {
        in6->sin6_port = htons(25);
        (void)inet_pton(AF_INET6, "2001:7fd::1", &in6->sin6_addr);
    }
    return (const struct sockaddr *)out;
}

static socklen_t length_of(const struct sockaddr *a)
{
    return a->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

bool source_has_route(const struct config_source *of, const struct sockaddr *to, struct worker *w)
{
    const struct config_address *from = source_address(of, to->sa_family);

    return io_route(w->io, to, length_of(to),
                    from == NULL ? NULL : (const struct sockaddr *)&from->addr,
                    from == NULL ? 0 : from->len) >= 0;
}

static const char *family_word(enum source_part part)
{
    return part == SOURCE_IPV4 ? "ipv4" : "ipv6";
}

bool source_no_route(struct source *s, const struct config_source *of, const struct sockaddr *to,
                     struct worker *w)
{
    struct sources *all = &w->shared->sources;
    struct sockaddr_storage far;
    int part = source_family(to->sa_family);
    char text[PEER_TEXT_BYTES];
    int64_t none = 0;

    if (part < 0 || source_has_route(of, internet((enum source_part)part, &far), w))
        return false;
    if (s->has[part]) /* from an address that is gone nothing has a route */
        look_address(w, s, of, (enum source_part)part);
    if (source_away_ns(s, (enum source_part)part) != 0)
        return true;
    pthread_mutex_lock(&all->lock);
    memcpy(&s->unrouted[part], to, length_of(to));
    pthread_mutex_unlock(&all->lock);
    if (!atomic_compare_exchange_strong_explicit(&s->shared.no_route_ms[part], &none,
                                                 worker_wall_ms(w), memory_order_relaxed,
                                                 memory_order_relaxed) ||
        !s->has[part])
        return s->has[part];
    atomic_fetch_add_explicit(&all->changed, 1, memory_order_relaxed);
    peer_text(to, NULL, text);
    log_warn("source.no_route",
             "source=%s family=%s from=%s to=%s action=\"give this machine a route; the source is "
             "left out where only such addresses take the mail, until there is one\"",
             of->name, family_word((enum source_part)part),
             source_own_address(of, (enum source_part)part)->text, text);
    return true;
}

static void route_found(struct source *s, const struct config_source *of, enum source_part part,
                        struct worker *w)
{
    if (atomic_exchange_explicit(&s->shared.no_route_ms[part], 0, memory_order_relaxed) == 0)
        return;
    atomic_fetch_add_explicit(&w->shared->sources.changed, 1, memory_order_relaxed);
    log_info("source.route_back", "source=%s family=%s", of->name, family_word(part));
}

/* Of a family that the source has an address of, look_route() finds the way back: that some sites
 * have a route, and others do not, is no news. */
void source_connected(struct source *s, sa_family_t family)
{
    int part = source_family(family);

    if (part >= 0 && !s->has[part] &&
        atomic_load_explicit(&s->shared.no_route_ms[part], memory_order_relaxed) != 0)
        atomic_store_explicit(&s->shared.no_route_ms[part], 0, memory_order_relaxed);
}

static void unrouted_copy(struct sources *all, const struct source *s, enum source_part part,
                          struct sockaddr_storage *out)
{
    pthread_mutex_lock(&all->lock);
    *out = s->unrouted[part];
    pthread_mutex_unlock(&all->lock);
}

void source_unrouted_text(struct sources *all, const struct source *s, enum source_part part,
                          char out[PEER_TEXT_BYTES])
{
    struct sockaddr_storage to;

    out[0] = '\0';
    if (atomic_load_explicit(&s->shared.no_route_ms[part], memory_order_relaxed) == 0)
        return;
    unrouted_copy(all, s, part, &to);
    peer_text((const struct sockaddr *)&to, NULL, out);
}

static void look_route(struct worker *w, struct source *s, const struct config_source *of,
                       enum source_part part)
{
    struct sockaddr_storage to, far;

    if (atomic_load_explicit(&s->shared.no_route_ms[part], memory_order_relaxed) == 0)
        return;
    unrouted_copy(&w->shared->sources, s, part, &to);
    if (source_has_route(of, (const struct sockaddr *)&to, w) ||
        source_has_route(of, internet(part, &far), w))
        route_found(s, of, part, w);
}

/* At the start nobody knows yet where mail will go: all that can be said is that the internet is
 * out of reach. */
static void look_internet(struct worker *w, struct source *s, const struct config_source *of,
                          enum source_part part)
{
    const struct config_address *a = source_own_address(of, part);
    struct sockaddr_storage far;

    if (s->looked[part] || source_away_ns(s, part) != 0)
        return;
    s->looked[part] = true;
    if (!sockaddr_is_loopback((const struct sockaddr *)&a->addr) &&
        !source_has_route(of, internet(part, &far), w))
        log_info("source.no_internet",
                 "source=%s family=%s from=%s action=\"where the source is to send to the internet "
                 "over this family, give this machine a route\"",
                 of->name, family_word(part), a->text);
}

/* --- looks --- */

static void look(struct worker *w, struct source *s, const struct config_source *of,
                 enum source_part part)
{
    ASSERT(s->has[part]);
    if (part == SOURCE_PROXY) {
        proxy_look(w, s, of);
        return;
    }
    look_address(w, s, of, part);
    look_internet(w, s, of, part);
}

/* Which of those that may be away are looked at. */
enum look { LOOK_ALL, LOOK_ADDRESSES, LOOK_DUE };

/* Sessions would hang if their address went. Where nobody tells us that addresses change, those
 * that have sessions are looked at each time; of others the next session finds out. */
static bool is_due(const struct worker *w, const struct source *s, enum source_part part,
                   enum look look)
{
    uint64_t away_ns = source_away_ns(s, part);

    if (look == LOOK_ALL || (look == LOOK_ADDRESSES && part != SOURCE_PROXY))
        return true;
    if (away_ns != 0)
        return away_ns <= io_now_ns(w->io);
    return w->addresses_fd < 0 && part != SOURCE_PROXY &&
           atomic_load_explicit(&s->shared.sessions, memory_order_relaxed) > 0;
}

/* Once for each configuration: to find a source by its name and addresses costs more than to look
 * at it, which is done once a second. */
static void find_all(struct worker *w)
{
    if (w->sources_looked != NULL && w->sources_generation == w->config->generation)
        return;
    free(w->sources_looked);
    w->sources_looked = calloc(w->config->sources_len + 1, sizeof(struct source *));
    ASSERT(w->sources_looked != NULL);
    w->sources_generation = w->config->generation;
    for (size_t i = 0; i < w->config->sources_len; i++)
        w->sources_looked[i] = sources_get(&w->shared->sources, &w->config->sources[i]);
}

/* Whether there is an address or a proxy that may be away. */
static bool look_at(struct worker *w, enum look which)
{
    bool any = false;

    find_all(w);
    for (size_t i = 0; i < w->config->sources_len; i++) {
        const struct config_source *of = &w->config->sources[i];
        struct source *s = w->sources_looked[i];

        for (enum source_part part = SOURCE_IPV4; part < SOURCE_PARTS; part++) {
            /* Behind a proxy the addresses are that machine's. */
            if (!s->has[part] || (part != SOURCE_PROXY && s->has[SOURCE_PROXY]))
                continue;
            any = true;
            if (is_due(w, s, part, which))
                look(w, s, of, part);
            if (part != SOURCE_PROXY)
                look_route(w, s, of, part);
        }
    }
    return any;
}

/* Sessions end, and channels leave the turns, in turns of their workers. */
static void tell_workers(struct worker *w)
{
    for (uint32_t i = 0; i < w->shared->workers_len; i++)
        if (&w->shared->workers[i] != w)
            io_wake(w->shared->workers[i].io);
}

static void routes_news(struct worker *w)
{
    if (w->routes_fd < 0 || io_now_ms(w->io) < w->routes_look_ms ||
        !io_watch_news(w->io, w->routes_fd))
        return;
    w->routes_look_ms = io_now_ms(w->io) + ROUTES_EVERY_MS;
    atomic_fetch_add_explicit(&w->shared->sources.routes_changed, 1, memory_order_relaxed);
    tell_workers(w);
}

static void on_look(struct timer *timer)
{
    struct worker *w = CONTAINER_OF(timer, struct worker, sources_timer);
    struct sources *all = &w->shared->sources;
    uint32_t changed = atomic_load_explicit(&all->changed, memory_order_relaxed);
    bool any;

    proxy_looks_reap(w);
    if (w->draining)
        return;
    any = look_at(w, w->addresses_news ? LOOK_ADDRESSES : LOOK_DUE);
    w->addresses_news = false;
    routes_news(w);
    if (atomic_load_explicit(&all->changed, memory_order_relaxed) != changed)
        tell_workers(w);
    if (any || w->routes_fd >= 0)
        wheel_arm(io_wheel(w->io), timer, wheel_look_ms(io_now_ms(w->io), LOOK_MS));
}

/* What a session is given behind the end of its address may reach the peer all the same, by IPv6,
 * and its answer never comes: so sessions end as soon as the kernel says that. */
static void on_addresses(struct io_op *op, const struct io_event *event)
{
    struct worker *w = CONTAINER_OF(op, struct worker, addresses_op);

    if (!event->more) {
        io_close_fd(w->io, w->addresses_fd, false);
        w->addresses_fd = -1;
        return;
    }
    if (!io_watch_news(w->io, w->addresses_fd) || w->draining)
        return;
    w->addresses_news = true;
    wheel_arm_by(io_wheel(w->io), &w->sources_timer, io_now_ms(w->io) + ADDRESSES_EVERY_MS);
}

void sources_look_begin(struct worker *w)
{
    w->sources_timer.on_timer = on_look;
    w->addresses_op.on_event = on_addresses;
    w->routes_fd = io_watch(w->io, IO_ROUTES);
    w->addresses_fd = io_watch(w->io, IO_ADDRESSES);
    if (w->addresses_fd >= 0)
        io_poll(w->io, &w->addresses_op, w->addresses_fd, POLLIN);
    sources_look(w); /* behind the watch's begin, or a change meanwhile would be missed */
}

void sources_look(struct worker *w)
{
    if (look_at(w, LOOK_ALL) || w->routes_fd >= 0)
        wheel_arm(io_wheel(w->io), &w->sources_timer, wheel_look_ms(io_now_ms(w->io), LOOK_MS));
}

void sources_look_end(struct worker *w)
{
    wheel_cancel(io_wheel(w->io), &w->sources_timer);
    if (io_op_busy(&w->addresses_op)) /* its end closes the descriptor */
        io_cancel(w->io, &w->addresses_op);
    if (w->routes_fd >= 0)
        io_close_fd(w->io, w->routes_fd, false);
    w->routes_fd = -1;
    proxy_looks_end(w);
    free(w->sources_looked);
    w->sources_looked = NULL;
}
