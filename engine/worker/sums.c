#include "worker/sums.h"

#include <stdlib.h>

#include "queue/queue.h"

#define ROWS_MAX 50000 /* looked at one by one */

struct gather {
    struct map map;
    struct sums_row *others;
    size_t others_len;
    enum sums_of of;
};

static char *copy_of(struct str text)
{
    char *copy = strndup(text.ptr == NULL ? "" : text.ptr, text.len);

    ASSERT(copy != NULL);
    return copy;
}

static struct sums_row *row_get(struct gather *g, struct str name, struct str site)
{
    uint64_t hash = hash_bytes(site.ptr, site.len, hash_bytes(name.ptr, name.len, 0));
    struct sums_row *row;

    for (struct map_node *n = map_find(&g->map, hash); n != NULL; n = map_find_next(n)) {
        row = CONTAINER_OF(n, struct sums_row, node);
        if (str_eq(str_of(row->name), name) && str_eq(str_of(row->site), site))
            return row;
    }
    if (g->map.count >= ROWS_MAX) {
        g->others_len++;
        return g->others;
    }
    row = calloc(1, sizeof(*row));
    ASSERT(row != NULL);
    row->name = copy_of(name);
    row->site = copy_of(site);
    map_insert(&g->map, &row->node, hash);
    return row;
}

static void see_entry(void *arg, const struct governor_entry *e)
{
    struct sums_row *row = row_get(arg, governor_source(e), governor_site(e));

    for (enum governor_counts i = 0; i < GOVERNOR_WAITS; i++)
        row->held_ms[i] += governor_held_ms(e, i);
    if (e->provider) /* its sites have all the rest */
        return;
    row->attempts += atomic_load(&e->sums.attempts);
    row->delivered += atomic_load(&e->sums.delivered);
    row->deferred += atomic_load(&e->sums.deferred);
    row->bytes += atomic_load(&e->sums.bytes);
    row->connect_failures += atomic_load(&e->sums.connect_failures);
    row->sessions += atomic_load(&e->shared.sessions);
    for (size_t i = 0; i < GOVERNOR_REASONS_MAX; i++) {
        uint32_t bounced = atomic_load(&e->sums.bounced[i]);

        row->bounced_by[i] += bounced;
        row->bounced += bounced;
    }
}

static void see_flow(void *arg, const struct queue_flow *flow)
{
    struct gather *g = arg;
    const struct queue_flow_sums *sums = flow->sums;
    struct sums_row *row;

    if (atomic_load(&sums->attempts) + atomic_load(&sums->bounced) + atomic_load(&sums->deferred) ==
        0)
        return;
    row = row_get(g, g->of == SUMS_TENANT ? flow->tenant : flow->campaign, STR(""));
    row->attempts += atomic_load(&sums->attempts);
    row->delivered += atomic_load(&sums->delivered);
    row->deferred += atomic_load(&sums->deferred);
    row->bounced += atomic_load(&sums->bounced);
    row->bytes += atomic_load(&sums->bytes);
    _Static_assert(FLOW_REASONS == GOVERNOR_REASONS_MAX, "");
    for (size_t i = 0; i < FLOW_REASONS; i++)
        row->bounced_by[i] += atomic_load(&sums->bounced_by[i]);
}

static int by_attempts(const void *a, const void *b)
{
    const struct sums_row *x = *(struct sums_row *const *)a, *y = *(struct sums_row *const *)b;
    int names = strcmp(x->name, y->name);

    if (x->attempts != y->attempts)
        return x->attempts > y->attempts ? -1 : 1;
    return names != 0 ? names : strcmp(x->site, y->site);
}

static void row_add(struct sums_row *to, const struct sums_row *row)
{
    to->attempts += row->attempts;
    to->delivered += row->delivered;
    to->deferred += row->deferred;
    to->bounced += row->bounced;
    to->bytes += row->bytes;
    to->connect_failures += row->connect_failures;
    to->sessions += row->sessions;
    for (size_t i = 0; i < GOVERNOR_REASONS_MAX; i++)
        to->bounced_by[i] += row->bounced_by[i];
    for (size_t i = 0; i < GOVERNOR_WAITS; i++)
        to->held_ms[i] += row->held_ms[i];
}

static void row_free(struct sums_row *row)
{
    free(row->name);
    free(row->site);
    free(row);
}

void sums_gather(struct queue *q, struct governor *governor, enum sums_of of, size_t max,
                 struct sums *out)
{
    struct gather g = {.of = of, .others = &out->others};
    struct map_node *n;
    size_t len = 0, bucket = 0;
    int err = map_init(&g.map, 256);

    ASSERT(err == 0);
    *out = (struct sums){0};
    if (of == SUMS_SOURCE_SITE)
        governor_visit(governor, see_entry, &g);
    else
        queue_flows_visit(q, see_flow, &g);
    out->rows = calloc(g.map.count + 1, sizeof(struct sums_row *));
    ASSERT(out->rows != NULL);
    while ((n = map_walk(&g.map, &bucket, NULL)) != NULL) {
        out->rows[len++] = CONTAINER_OF(n, struct sums_row, node);
        map_remove(&g.map, n);
    }
    map_done(&g.map);
    qsort(out->rows, len, sizeof(struct sums_row *), by_attempts);
    out->len = len < max ? len : max;
    out->others_len = g.others_len + len - out->len;
    for (size_t i = out->len; i < len; i++) {
        row_add(&out->others, out->rows[i]);
        row_free(out->rows[i]);
    }
}

void sums_done(struct sums *s)
{
    for (size_t i = 0; i < s->len; i++)
        row_free(s->rows[i]);
    free(s->rows);
    *s = (struct sums){0};
}
