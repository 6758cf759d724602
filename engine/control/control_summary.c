/* Rows gathered by queue, for the summary; and the largest destinations, for the status. */
#include <stdlib.h>

#include "control/control_private.h"

/* Memory is bounded whatever the number of domains; further queues are summed as one. */
#define GROUPS_MAX        20000
#define GROUP_ERROR_BYTES 160
#define HASH_SEED         UINT64_C(0x73756d6d617279)

struct group {
    struct map_node node;
    struct str name;
    uint32_t flow; /* of the row that is due first: what holds it back is shown */
    uint64_t rows, ready, deferred, held;
    uint32_t attempts_max;
    int64_t next_due_ms;
    int64_t error_ms; /* of the attempt that last_error is from */
    uint16_t error_len;
    char last_error[GROUP_ERROR_BYTES];
    char text[];
};

struct control_summary {
    struct map map;
    struct group *others;
    struct group **sorted;
    size_t sorted_len, next;
};

static struct group *group_new(struct str name)
{
    struct group *g = calloc(1, sizeof(*g) + name.len);

    ASSERT(g != NULL); /* as in buf_*: memory is fatal */
    memcpy(g->text, name.ptr, name.len);
    g->name = (struct str){g->text, name.len};
    g->next_due_ms = INT64_MAX;
    return g;
}

struct control_summary *control_summary_new(void)
{
    struct control_summary *s = calloc(1, sizeof(*s));
    int err;

    ASSERT(s != NULL);
    err = map_init(&s->map, 1024);
    ASSERT(err == 0);
    return s;
}

void control_summary_free(struct control_summary *s)
{
    struct map_node *n, *next;
    size_t bucket = 0;

    if (s == NULL)
        return;
    for (n = map_walk(&s->map, &bucket, NULL); n != NULL; n = next) {
        next = map_walk(&s->map, &bucket, n);
        free(CONTAINER_OF(n, struct group, node));
    }
    map_done(&s->map);
    free(s->others);
    free(s->sorted);
    free(s);
}

static struct group *find_group(struct control_summary *s, struct str name)
{
    uint64_t hash = hash_bytes(name.ptr, name.len, HASH_SEED);
    struct group *g;

    ASSERT(s->sorted == NULL && s->map.count <= GROUPS_MAX);
    for (struct map_node *n = map_find(&s->map, hash); n != NULL; n = map_find_next(n)) {
        g = CONTAINER_OF(n, struct group, node);
        if (str_eq(g->name, name))
            return g;
    }
    if (s->map.count >= GROUPS_MAX) {
        if (s->others == NULL)
            s->others = group_new(STR("(others)"));
        return s->others;
    }
    g = group_new(name);
    map_insert(&s->map, &g->node, hash);
    return g;
}

void control_summary_add(struct control_summary *s, const struct queue_row_view *row,
                         int64_t now_ms)
{
    struct group *g = find_group(s, row->queue);
    enum control_state state = control_row_state(row, now_ms);

    g->rows++;
    g->ready += state == CONTROL_STATE_READY;
    g->deferred += state == CONTROL_STATE_DEFERRED;
    g->held += state == CONTROL_STATE_HELD;
    if (row->attempts > g->attempts_max)
        g->attempts_max = row->attempts;
    if (state != CONTROL_STATE_HELD && row->due_ms < g->next_due_ms) {
        g->next_due_ms = row->due_ms;
        g->flow = row->flow;
    }
    if (row->last_error.len != 0 && row->last_attempt_ms >= g->error_ms) {
        g->error_ms = row->last_attempt_ms;
        g->error_len = (uint16_t)(row->last_error.len < GROUP_ERROR_BYTES ? row->last_error.len
                                                                          : GROUP_ERROR_BYTES);
        memcpy(g->last_error, row->last_error.ptr, g->error_len);
    }
}

static int compare_groups(const void *a, const void *b)
{
    const struct group *ga = *(struct group *const *)a, *gb = *(struct group *const *)b;
    size_t n = ga->name.len < gb->name.len ? ga->name.len : gb->name.len;
    int order;

    if (ga->rows != gb->rows)
        return ga->rows > gb->rows ? -1 : 1;
    order = memcmp(ga->name.ptr, gb->name.ptr, n);
    return order != 0 ? order : (ga->name.len > gb->name.len) - (ga->name.len < gb->name.len);
}

void control_summary_finish(struct control_summary *s)
{
    size_t bucket = 0;

    ASSERT(s->sorted == NULL && s->sorted_len == 0);
    s->sorted = calloc(s->map.count + 1, sizeof(struct group *));
    ASSERT(s->sorted != NULL);
    for (struct map_node *n = map_walk(&s->map, &bucket, NULL); n != NULL;
         n = map_walk(&s->map, &bucket, n))
        s->sorted[s->sorted_len++] = CONTAINER_OF(n, struct group, node);
    ASSERT(s->sorted_len == s->map.count);
    if (s->sorted_len != 0)
        qsort(s->sorted, s->sorted_len, sizeof(struct group *), compare_groups);
    if (s->others != NULL)
        s->sorted[s->sorted_len++] = s->others;
}

bool control_summary_peek(const struct control_summary *s, size_t ahead, struct str *name,
                          uint32_t *flow)
{
    if (s->next + ahead >= s->sorted_len)
        return false;
    *name = s->sorted[s->next + ahead]->name;
    *flow = s->sorted[s->next + ahead]->flow;
    return true;
}

void control_summary_put(struct control_summary *s, const struct control_wait *wait,
                         struct buf *out)
{
    const struct group *g;

    ASSERT(s->next < s->sorted_len);
    g = s->sorted[s->next++];
    buf_puts(out, "{\"queue\":{");
    json_text(out, "queue", g->name);
    json_number(out, "rows", (int64_t)g->rows);
    json_number(out, "ready", (int64_t)g->ready);
    json_number(out, "deferred", (int64_t)g->deferred);
    json_number(out, "held", (int64_t)g->held);
    json_number(out, "attempts_max", g->attempts_max);
    if (g->next_due_ms != INT64_MAX)
        json_number(out, "next_due_ms", g->next_due_ms);
    json_text(out, "last_error", (struct str){g->last_error, g->error_len});
    if (g->ready > 0 || (wait->scope != NULL && g->deferred > 0))
        json_wait(out, wait);
    json_end(out);
    buf_puts(out, "}\n");
}

/* --- status --- */

/* A suspension that has no end lasts longest; of others without one nobody knows. */
static int64_t wait_ends_ms(const struct control_wait *wait)
{
    return wait->scope != NULL && wait->until_ms == 0 ? INT64_MAX : wait->until_ms;
}

void control_wait_merge(struct control_wait *to, const struct control_wait *from)
{
    if (from->reason != NULL && (to->reason == NULL || wait_ends_ms(from) > wait_ends_ms(to)))
        *to = *from;
}

static bool smaller(const struct control_destination *a, const struct control_destination *b)
{
    return a->rows != b->rows ? a->rows < b->rows : a->in_memory < b->in_memory;
}

static void sift_down(struct control_status *s)
{
    struct control_destination *d = s->destinations;
    uint32_t i = 0;

    for (;;) {
        uint32_t least = i, left = 2 * i + 1, right = left + 1;

        if (left < s->len && smaller(&d[left], &d[least]))
            least = left;
        if (right < s->len && smaller(&d[right], &d[least]))
            least = right;
        if (least == i)
            return;
        struct control_destination t = d[i];
        d[i] = d[least];
        d[least] = t;
        i = least;
    }
}

bool control_status_wants(const struct control_status *s, const struct control_destination *d)
{
    return s->len < s->max || (s->max > 0 && smaller(&s->destinations[0], d));
}

void control_status_offer(struct control_status *s, const struct control_destination *offered)
{
    struct control_destination *d = s->destinations;
    uint32_t i;

    ASSERT(s->len <= s->max);
    if (!control_status_wants(s, offered))
        return;
    if (s->len == s->max) {
        d[0] = *offered;
        sift_down(s);
        return;
    }
    i = s->len++;
    d[i] = *offered;
    while (i != 0 && smaller(&d[i], &d[(i - 1) / 2])) {
        struct control_destination t = d[i];

        d[i] = d[(i - 1) / 2];
        d[(i - 1) / 2] = t;
        i = (i - 1) / 2;
    }
}
