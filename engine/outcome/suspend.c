#include "outcome/suspend.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "schedule/lane.h"

#define LOOK_MS 1000 /* between looks at the wall clock, which may be set while a timer runs */

/* A record of it. */
struct suspend_record {
    uint8_t key[SUSPENSION_KEY_MAX];
    struct buf value;
};

/* A change under way. The worker that owns shard 0 has it until its commit, then all workers have
 * it; the last one frees it. */
struct suspend_change {
    struct worker_note note;
    struct list_node node; /* worker->suspension_changes */
    struct worker *owner;
    struct suspend_order order;
    struct suspend_record *records; /* the order's, then its caps': [1 + caps_len] */
    struct queue_state *states;     /* likewise */
    struct queue_change change;
    /* Relaxed but for the last, who must see what the others left: acquire and release. */
    _Atomic uint32_t walks;
    struct suspend_walk {
        struct worker_note note;
        struct suspension_walk walk;
        struct suspend_change *change;
    } each[];
};

static void changes_go_on(struct worker *w);

static void change_free(struct suspend_change *c, int result)
{
    ASSERT(result <= 0 && atomic_load(&c->walks) == 0);
    if (c->order.on_done != NULL)
        c->order.on_done(c->order.arg, result);
    for (size_t i = 0; c->records != NULL && i <= c->order.caps_len; i++)
        buf_done(&c->records[i].value);
    free(c->records);
    free(c->states);
    free(c->order.caps);
    free(c);
}

/* --- behind the commit: every worker's lanes --- */

static void on_walked(struct suspension_walk *walk)
{
    struct suspend_change *c = CONTAINER_OF(walk, struct suspend_walk, walk)->change;
    uint32_t before = atomic_fetch_sub_explicit(&c->walks, 1, memory_order_acq_rel);

    ASSERT(before > 0);
    if (before == 1)
        change_free(c, 0);
}

static void on_told(struct worker *w, struct worker_note *note)
{
    struct suspend_walk *each = CONTAINER_OF(note, struct suspend_walk, note);

    ASSERT(each == &each->change->each[w->index]);
    lane_suspensions_begin(w, &each->walk);
}

static void tell_all(struct suspend_change *c)
{
    struct shared *all = c->owner->shared;

    ASSERT(atomic_load(&c->walks) == 0);
    atomic_store_explicit(&c->walks, all->workers_len, memory_order_relaxed);
    for (uint32_t i = 0, workers = all->workers_len; i < workers; i++) {
        struct suspend_walk *each = &c->each[i];

        each->change = c;
        each->walk.on_done = on_walked;
        each->note.run = on_told;
        worker_post(all, c->owner, i, &each->note);
    }
}

/* " name=...": what others have written may have quotes in it. */
static void put_field(struct buf *out, const char *name, const char *text)
{
    buf_printf(out, " %s=", name);
    buf_put_json(out, str_of(text));
}

static void say(const struct suspend_change *c)
{
    const struct suspension *s = &c->order.what;
    struct buf fields = {0};

    if (suspension_is_recovery(s->scope)) /* each session more */
        return;
    buf_printf(&fields, "scope=%s", suspension_scope_name(s->scope));
    put_field(&fields, "name", s->name);
    if (!c->order.resume)
        buf_printf(&fields, " until_ms=%lld", (long long)s->until_ms);
    put_field(&fields, "who",
              c->order.resume && c->order.on_done == NULL ? "its time is over" : s->who);
    if (!c->order.resume)
        put_field(&fields, "reason", s->reason);
    log_info(c->order.resume               ? "queue.resumed"
             : suspension_is_cap(s->scope) ? "rule.lowered"
                                           : "queue.suspended",
             "%.*s", STR_FMT(buf_str(&fields)));
    buf_done(&fields);
}

/* --- the record --- */

static int table_change(struct suspend_change *c)
{
    struct suspensions *all = &c->owner->shared->suspensions;
    int err = 0;

    ASSERT(!c->order.look);
    for (size_t i = 0; err == 0 && i < c->order.caps_len; i++)
        err = suspensions_put(all, &c->order.caps[i]);
    if (!c->order.resume)
        return err < 0 ? err : suspensions_put(all, &c->order.what);
    (void)suspensions_remove(all, c->order.what.scope, str_of(c->order.what.name));
    return 0;
}

/* No lane waits for a cap. Of one that is gone lanes hear, since its sources may wait for a rate.
 */
static bool is_quiet(const struct suspend_change *c)
{
    return suspension_is_cap(c->order.what.scope) &&
           (!c->order.resume || suspension_is_recovery(c->order.what.scope));
}

/* The record is there, or result says why not; none is wanted for what follows from others. */
static void change_go_on(struct suspend_change *c, int result)
{
    if (result == 0 && !c->order.look)
        result = table_change(c);
    if (result == 0) {
        if (!c->order.look)
            say(c);
        if (is_quiet(c))
            change_free(c, 0);
        else
            tell_all(c);
    } else {
        log_error("queue.suspension_failed", "scope=%s name=\"%s\" error=\"%s\"",
                  suspension_scope_name(c->order.what.scope), c->order.what.name,
                  strerror(-result));
        change_free(c, result);
    }
}

static void on_committed(struct queue_change *change, int result)
{
    struct suspend_change *c = change->owner;
    struct worker *w = c->owner;
    bool ended = result == 0 && c->order.resume;

    ASSERT(w->suspension_changing); /* one at a time, so that they are done in order */
    w->suspension_changing = false;
    change_go_on(c, result);
    changes_go_on(w);
    if (ended) /* others may be over, too */
        wheel_arm(io_wheel(w->io), &w->suspension_timer, io_now_ms(w->io) + 1);
}

/* 0, or an -errno that says why c cannot be done. */
static int change_check(const struct suspend_change *c)
{
    struct suspensions *all = &c->owner->shared->suspensions;
    const struct suspension *what = &c->order.what;
    struct suspension known;
    bool is_known = suspensions_find(all, what->scope, str_of(what->name), &known);
    uint32_t max = c->order.on_done == NULL ? SUSPENSIONS_RULES_MAX : SUSPENSIONS_MAX;

    if (c->owner->draining)
        return -ESHUTDOWN;
    if (c->order.look)
        return 0;
    /* A session worked before its channel heard of a new pause: the way back begins behind that. */
    if (suspension_is_recovery(what->scope) && is_known && what->until_ms < known.until_ms)
        return -EALREADY;
    if (c->order.resume)
        return is_known ? 0 : -ENOENT;
    /* Those of campaigns are as many as these, and caps have places of their own: they neither lack
     * places, nor take a rule's. */
    if (is_known || !suspension_is_stored(what->scope))
        return 0;
    if (suspension_is_cap(what->scope))
        return suspensions_caps(all) < SUSPENSION_CAPS_MAX ? 0 : -ENOSPC;
    return suspensions_stored(all) < max ? 0 : -ENOSPC;
}

static void record_put(struct suspend_change *c, size_t at, const struct suspension *one,
                       bool remove)
{
    struct suspend_record *r = &c->records[at];

    ASSERT(at <= c->order.caps_len && suspension_is_stored(one->scope));
    if (!remove)
        suspension_encode(&r->value, one);
    c->states[at] = (struct queue_state){
        .key = {(const char *)r->key, suspension_key(r->key, one->scope, str_of(one->name))},
        .value = buf_str(&r->value),
        .remove = remove};
}

static void change_submit(struct suspend_change *c)
{
    const struct suspension *what = &c->order.what;
    size_t len = 1 + c->order.caps_len;

    ASSERT(!c->owner->suspension_changing && (c->order.caps_len == 0 || !c->order.resume));
    if (c->order.look || !suspension_is_stored(what->scope)) {
        change_go_on(c, 0);
        return;
    }
    c->records = calloc(len, sizeof(*c->records));
    c->states = calloc(len, sizeof(*c->states));
    ASSERT(c->records != NULL && c->states != NULL);
    record_put(c, 0, what, c->order.resume);
    for (size_t i = 1; i < len; i++)
        record_put(c, i, &c->order.caps[i - 1], false);
    c->change = (struct queue_change){.states = c->states,
                                      .states_len = len,
                                      .urgent = true,
                                      .on_done = on_committed,
                                      .owner = c};
    c->owner->suspension_changing = true;
    queue_submit(c->owner->port, 0, &c->change);
}

static struct suspend_change *change_new(struct shared *all, const struct suspend_order *order)
{
    struct suspend_change *c =
        calloc(1, sizeof(*c) + all->workers_len * sizeof(struct suspend_walk));

    if (c == NULL)
        return NULL;
    c->owner = worker_of_shard(all, 0);
    c->order = *order;
    return c;
}

/* Ends one suspension whose time is over, if there is one. */
static void end_one(struct worker *w)
{
    struct suspend_order order = {.resume = true};
    struct suspend_change *c;
    int64_t next_ms, wait_ms = LOOK_MS;

    ASSERT(!w->suspension_changing);
    if (w->draining)
        return;
    if (suspensions_ended(&w->shared->suspensions, worker_wall_ms(w), &order.what, &next_ms)) {
        c = change_new(w->shared, &order);
        if (c != NULL)
            change_submit(c);
    } else if (next_ms == INT64_MAX) {
        return;
    } else if (next_ms - worker_wall_ms(w) < wait_ms) {
        wait_ms = next_ms - worker_wall_ms(w);
    }
    wheel_arm(io_wheel(w->io), &w->suspension_timer, io_now_ms(w->io) + (uint64_t)wait_ms);
}

static void changes_go_on(struct worker *w)
{
    struct list_node *n;

    while (!w->suspension_changing && (n = list_pop_front(&w->suspension_changes)) != NULL) {
        struct suspend_change *c = LIST_ENTRY(n, struct suspend_change, node);
        int err = change_check(c);

        if (err == 0)
            change_submit(c);
        else
            change_free(c, err);
    }
    if (!w->suspension_changing && !timer_armed(&w->suspension_timer))
        wheel_arm(io_wheel(w->io), &w->suspension_timer, io_now_ms(w->io) + 1);
}

static void on_timer(struct timer *timer)
{
    struct worker *w = CONTAINER_OF(timer, struct worker, suspension_timer);

    if (!w->suspension_changing)
        end_one(w);
}

static void on_order(struct worker *w, struct worker_note *note)
{
    struct suspend_change *c = CONTAINER_OF(note, struct suspend_change, note);

    ASSERT(c->owner == w);
    list_push_back(&w->suspension_changes, &c->node);
    changes_go_on(w);
}

static void submit(struct shared *all, struct worker *from, const struct suspend_order *order)
{
    struct suspend_change *c = change_new(all, order);

    if (c == NULL) {
        free(order->caps);
        if (order->on_done != NULL)
            order->on_done(order->arg, -ENOMEM);
        return;
    }
    c->note.run = on_order;
    worker_post(all, from, c->owner->index, &c->note);
}

void suspend_submit(struct shared *all, const struct suspend_order *order)
{
    submit(all, NULL, order);
}

void suspend_submit_from(struct worker *w, const struct suspend_order *order)
{
    submit(w->shared, w, order);
}

void suspend_open(struct worker *w)
{
    w->suspension_timer.on_timer = on_timer;
    wheel_arm(io_wheel(w->io), &w->suspension_timer, io_now_ms(w->io) + 1);
}

void suspend_close(struct worker *w)
{
    wheel_cancel(io_wheel(w->io), &w->suspension_timer);
}
