#include "schedule/rollup.h"

#include <stdlib.h>

#include "schedule/channel.h"
#include "worker/shared.h"

static struct rollup *rollup_find(const struct worker *w, struct str key, uint64_t hash)
{
    for (struct map_node *n = map_find(&w->rollups, hash); n != NULL; n = map_find_next(n)) {
        struct rollup *r = CONTAINER_OF(n, struct rollup, node);

        if (str_eq(str_of(r->key), key))
            return r;
    }
    return NULL;
}

struct rollup *rollup_get(struct worker *w, const char *source, const char *provider,
                          const struct governor_limits *limits)
{
    uint64_t now_ns = io_now_ns(w->io), hash;
    struct governor_entry *entry;
    struct buf key = {0};
    struct rollup *r;

    /* Keys of sites have the pattern and the exchangers behind the source: none is like these. */
    if (provider != NULL)
        buf_printf(&key, "%s|provider:%s", source, provider);
    else
        buf_printf(&key, "%s|:all", source);
    hash = hash_bytes(key.data, key.len, w->hash_seed);
    entry = governor_get(w->shared->governor, buf_str(&key), limits, now_ns);
    ASSERT(entry != NULL);
    r = rollup_find(w, buf_str(&key), hash);
    if (r != NULL) {
        ASSERT(r->entry == entry && r->refs > 0);
        governor_put(w->shared->governor, entry, now_ns); /* it has one; the limits are new */
        buf_done(&key);
        r->refs++;
        return r;
    }
    r = calloc(1, sizeof(*r));
    ASSERT(r != NULL);
    buf_putc(&key, '\0');
    r->key = (char *)key.data;
    r->worker = w;
    r->entry = entry;
    r->refs = 1;
    list_init(&r->line);
    map_insert(&w->rollups, &r->node, hash);
    return r;
}

void rollup_put(struct rollup *r)
{
    struct worker *w;

    if (r == NULL)
        return;
    ASSERT(r->refs > 0);
    if (--r->refs > 0)
        return;
    ASSERT(list_empty(&r->line) && r->sessions == 0 && r->yielding == 0);
    w = r->worker;
    map_remove(&w->rollups, &r->node);
    governor_session_withdraw(r->entry, w->index, 0);
    governor_put(w->shared->governor, r->entry, io_now_ns(w->io));
    free(r->key);
    free(r);
}

/* --- the line --- */

static struct channel *first_of(const struct rollup *r)
{
    struct list_node *n = r == NULL ? NULL : list_first(&r->line);

    return n == NULL ? NULL : LIST_ENTRY(n, struct channel, line_node);
}

static void stand(struct channel *c, struct rollup *r)
{
    uint64_t since;

    if (c->line == r)
        return;
    since = c->line != NULL ? c->line_since : ++c->site->worker->rollup_arrivals;
    rollup_leave(c);
    c->line = r;
    c->line_since = since;
    list_push_back(&r->line, &c->line_node);
    r->line_len++;
    if (!channel_has_session(c))
        channel_is_busy(c); /* the other sources do not wait for it */
}

/* Whether first, the first in a line or NULL, goes before c. Each counts from when it began to
 * wait, in whatever line that was: otherwise the first channels of two lines could make way for
 * each other for ever. */
static bool is_before(const struct channel *first, const struct channel *c)
{
    return first != NULL && first != c && (c->line == NULL || first->line_since < c->line_since);
}

bool rollup_turn(struct channel *c)
{
    for (size_t i = CHANNEL_LIMITS; i > 0; i--) {
        if (!is_before(first_of(c->rollups[i - 1]), c))
            continue;
        stand(c, c->rollups[i - 1]);
        return false;
    }
    return true;
}

/* When the sessions opened last leave room for another: a session more would find no leave of the
 * rate before. 0: at once; also where the rate was slower then than it is now. */
static uint64_t room_at(const struct rollup *r, uint64_t now_ns)
{
    return r->open_next_ns <= governor_open_next(r->entry, now_ns, now_ns) ? r->open_next_ns : 0;
}

uint64_t rollup_open_at(const struct rollup *r, uint64_t now_ns)
{
    uint64_t at_ns = governor_message_at(r->entry, now_ns, NULL);
    uint64_t opens_ns = room_at(r, now_ns);

    return opens_ns > at_ns ? opens_ns : at_ns;
}

/* Whether r, which may be NULL, gives no session now, or none that could send. */
static bool refuses(const struct rollup *r, uint64_t now_ns)
{
    return r != NULL &&
           (governor_sessions_full(r->entry, now_ns) || rollup_open_at(r, now_ns) > now_ns);
}

void rollup_wait(struct channel *c)
{
    struct rollup *total = c->rollups[CHANNEL_PROVIDER_TOTAL], *source = c->rollups[CHANNEL_SOURCE],
                  *provider = c->rollups[CHANNEL_PROVIDER];
    uint64_t now_ns = io_now_ns(c->site->worker->io);

    if (total != NULL &&
        (governor_sessions_full(total->entry, now_ns) || room_at(total, now_ns) > now_ns))
        stand(c, total);
    else if (refuses(source, now_ns))
        stand(c, source);
    else if (provider != NULL)
        stand(c, provider);
    else /* it waits for a limit of its own site, which is nothing to others */
        rollup_leave(c);
}

void rollup_leave(struct channel *c)
{
    struct rollup *r = c->line;

    if (r == NULL)
        return;
    ASSERT(r->line_len > 0 && !list_empty(&r->line));
    list_remove(&c->line_node);
    c->line = NULL;
    r->line_len--;
    rollup_freed(r);
}

void rollup_opens(struct channel *c)
{
    uint64_t now_ns = io_now_ns(c->site->worker->io);

    for (size_t i = 0; i < CHANNEL_LIMITS; i++) {
        struct rollup *r = c->rollups[i];

        if (r != NULL)
            r->open_next_ns = governor_open_next(r->entry, room_at(r, now_ns), now_ns);
    }
}

void rollup_freed(struct rollup *r)
{
    struct channel *first = first_of(r);

    if (first != NULL)
        channel_dirty(first);
}

static bool presses(const struct rollup *r, const struct channel *c)
{
    return r != NULL && r->line_len - (c->line == r) > r->yielding;
}

bool rollup_presses(const struct channel *c)
{
    for (size_t i = 0; i < CHANNEL_LIMITS; i++)
        if (presses(c->rollups[i], c))
            return true;
    return false;
}
