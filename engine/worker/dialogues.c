#include "worker/dialogues.h"

#include <errno.h>

#include "base/assert.h"

void dialogues_init(struct dialogues *d)
{
    pthread_mutex_init(&d->lock, NULL);
    list_init(&d->all);
}

void dialogues_done(struct dialogues *d)
{
    ASSERT(list_empty(&d->all));
    pthread_mutex_destroy(&d->lock);
}

static bool matches(const struct dialogue_filter *f, const struct dialogue_session *who)
{
    if (f->has_client && (who->client == NULL || !config_network_match(&f->client, 1, who->client)))
        return false;
    if ((f->site[0] != 0 || f->source[0] != 0 || f->has_message) && who->client != NULL)
        return false;
    if (f->has_message && (who->carries == NULL || !who->carries(who->of, &f->message)))
        return false;
    return (f->site[0] == 0 || str_eq_nocase(who->site, str_of(f->site))) &&
           (f->source[0] == 0 || str_eq(who->source, str_of(f->source)));
}

static void put_member(struct buf *out, const char *name, struct str value)
{
    buf_printf(out, ",\"%s\":", name);
    buf_put_json(out, value);
}

static void put_line(struct buf *out, const struct dialogue_session *who, int64_t wall_ms,
                     bool from_us, struct str text)
{
    size_t cut = text.len > DIALOGUE_TEXT_BYTES_MAX ? text.len - DIALOGUE_TEXT_BYTES_MAX : 0;

    buf_printf(out, "{\"trace\":{\"ms\":%lld", (long long)wall_ms);
    put_member(out, "session", str_of(who->id));
    put_member(out, "direction", str_of(who->client != NULL ? "in" : "out"));
    put_member(out, "peer", str_of(who->peer));
    if (who->client == NULL) {
        put_member(out, "site", who->site);
        put_member(out, "source", who->source);
    }
    put_member(out, "from", str_of(from_us ? "us" : "peer"));
    put_member(out, "text", (struct str){text.ptr, text.len - cut});
    if (cut > 0)
        buf_printf(out, ",\"cut\":%zu", cut);
    buf_puts(out, "}}\n");
}

void dialogues_put(struct dialogues *d, const struct dialogue_session *who, int64_t wall_ms,
                   bool from_us, struct str text)
{
    if (!dialogues_watched(d) || text.len == 0)
        return;
    pthread_mutex_lock(&d->lock);
    for (struct list_node *n = list_first(&d->all); n != NULL; n = list_next(&d->all, n)) {
        struct dialogue *w = LIST_ENTRY(n, struct dialogue, node);

        if (!matches(&w->filter, who))
            continue;
        if (w->lines.len >= DIALOGUE_BYTES_MAX)
            w->dropped++;
        else
            put_line(&w->lines, who, wall_ms, from_us, text);
    }
    pthread_mutex_unlock(&d->lock);
}

int dialogues_add(struct dialogues *d, struct dialogue *watch)
{
    int err = 0;

    pthread_mutex_lock(&d->lock);
    if (atomic_load_explicit(&d->len, memory_order_relaxed) >= DIALOGUES_MAX) {
        err = -ENOSPC;
    } else {
        list_push_back(&d->all, &watch->node);
        atomic_fetch_add_explicit(&d->len, 1, memory_order_relaxed);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

void dialogues_remove(struct dialogues *d, struct dialogue *watch)
{
    pthread_mutex_lock(&d->lock);
    ASSERT(list_node_linked(&watch->node) && dialogues_watched(d));
    list_remove(&watch->node);
    atomic_fetch_sub_explicit(&d->len, 1, memory_order_relaxed);
    pthread_mutex_unlock(&d->lock);
    buf_done(&watch->lines);
}

uint64_t dialogues_take(struct dialogues *d, struct dialogue *watch, struct buf *out)
{
    struct buf taken;
    uint64_t dropped;

    pthread_mutex_lock(&d->lock);
    ASSERT(list_node_linked(&watch->node));
    taken = watch->lines;
    dropped = watch->dropped;
    watch->lines = (struct buf){0};
    watch->dropped = 0;
    pthread_mutex_unlock(&d->lock);
    buf_put(out, taken.data, taken.len);
    buf_done(&taken);
    return dropped;
}
