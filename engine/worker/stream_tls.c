#include "worker/stream_tls.h"

#include <errno.h>
#include <stdlib.h>

#define CREW_FULL_MS 5

enum shake_state { SHAKE_WAITS, SHAKE_QUEUED, SHAKE_RUNS, SHAKE_OPEN, SHAKE_FAILED };

#define BIT(state) (1u << (state))

static const uint32_t may_follow[] = {
    [SHAKE_WAITS] = BIT(SHAKE_QUEUED) | BIT(SHAKE_FAILED),
    [SHAKE_QUEUED] = BIT(SHAKE_RUNS) | BIT(SHAKE_FAILED),
    [SHAKE_RUNS] = BIT(SHAKE_WAITS) | BIT(SHAKE_OPEN) | BIT(SHAKE_FAILED),
    [SHAKE_OPEN] = 0,
    [SHAKE_FAILED] = 0,
};

struct stream_tls {
    struct stream_filter filter;
    struct tls *tls;
    struct handshakes *all;
    stream_tls_ended *on_ended;
    enum shake_state state;
    size_t kept_max;
    struct buf kept;       /* came before its step could begin */
    struct list_node node; /* handshakes->queued */
    /* The step: the crew's while it runs. */
    struct crew_job job;
    struct buf given; /* to the step */
    struct str left;  /* of given, behind the step */
    enum tls_step step;
};

static void set_state(struct stream_tls *st, enum shake_state state)
{
    ASSERT((may_follow[st->state] & BIT(state)) != 0);
    st->state = state;
}

static struct stream_tls *of_filter(const struct stream_filter *f)
{
    return CONTAINER_OF(f, struct stream_tls, filter);
}

/* --- steps --- */

static void on_run(struct crew_job *job)
{
    struct stream_tls *st = CONTAINER_OF(job, struct stream_tls, job);

    st->left = buf_str(&st->given);
    st->step = tls_handshake(st->tls, &st->left);
}

/* from is given to to, which is empty. */
static void move(struct buf *to, struct buf *from)
{
    struct buf empty = *to;

    ASSERT(empty.len == 0);
    *to = *from;
    *from = empty;
}

static void begin_queued(struct handshakes *h)
{
    while (h->running < HANDSHAKES_AT_ONCE && !list_empty(&h->queued)) {
        struct stream_tls *st = LIST_ENTRY(list_first(&h->queued), struct stream_tls, node);

        move(&st->given, &st->kept);
        if (!crew_submit(h->crew, &st->job)) {
            move(&st->kept, &st->given);
            wheel_arm(io_wheel(h->io), &h->timer, io_now_ms(h->io) + CREW_FULL_MS);
            return;
        }
        list_remove(&st->node);
        set_state(st, SHAKE_RUNS);
        h->running++;
    }
}

static void on_timer(struct timer *timer)
{
    begin_queued(CONTAINER_OF(timer, struct handshakes, timer));
}

/* Whether a step may run in this turn, of which others have their part. */
static bool has_time(struct handshakes *h, enum tls_cost cost)
{
    if (h->turn_ns != io_now_ns(h->io)) {
        h->turn_ns = io_now_ns(h->io);
        h->used_ns = 0;
    }
    if (cost == TLS_LONG || (cost == TLS_RESUMING && io_now_ms(h->io) < h->resuming_ms))
        return false;
    return h->used_ns < h->turn_max_ns;
}

static void run_here(struct stream_tls *st)
{
    move(&st->given, &st->kept);
    set_state(st, SHAKE_RUNS);
    st->all->running++;
    crew_run_here(&st->job);
}

/* A session that is asked for need not be resumed: then the step takes as long as any, the turn has
 * no time left, and for a while the crew runs all of these. */
static void resume_here(struct stream_tls *st)
{
    struct handshakes *h = st->all;

    run_here(st);
    h->used_ns += HANDSHAKE_SHORT_NS;
    if (tls_resumes(st->tls))
        return;
    h->used_ns += HANDSHAKES_TURN_NS;
    h->resuming_ms = io_now_ms(h->io) + HANDSHAKE_REFUSED_MS;
}

/* All but long steps are run here: handing one over and back costs two threads as much. */
static void queue_step(struct stream_tls *st)
{
    struct handshakes *h = st->all;
    enum tls_cost cost = tls_step_cost(st->tls, buf_str(&st->kept));

    set_state(st, SHAKE_QUEUED);
    if (!has_time(h, cost)) {
        list_push_back(&h->queued, &st->node);
        begin_queued(h);
    } else if (cost == TLS_RESUMING) {
        resume_here(st);
    } else {
        run_here(st);
        h->used_ns += cost == TLS_BRIEF ? HANDSHAKE_BRIEF_NS : HANDSHAKE_SHORT_NS;
    }
}

/* The bytes that the last step left are the first for the session. */
static void finish(struct stream_tls *st, const char *error)
{
    struct stream *s = st->filter.stream;
    struct buf rest = {0};

    if (error == NULL) {
        buf_put_str(&rest, st->left);
        buf_put(&rest, st->kept.data, st->kept.len);
    }
    buf_done(&st->given);
    buf_done(&st->kept);
    if (!s->cancelled)
        st->on_ended(s, error);
    stream_resume(s, buf_str(&rest));
    buf_done(&rest);
}

static void on_done(struct crew_job *job)
{
    struct stream_tls *st = CONTAINER_OF(job, struct stream_tls, job);
    struct handshakes *h = st->all;

    ASSERT(h->running > 0);
    h->running--;
    switch (st->step) {
    case TLS_WANTS:
        set_state(st, SHAKE_WAITS);
        buf_done(&st->given); /* a peer that says nothing more holds none of it */
        stream_resume(st->filter.stream, STR(""));
        if (st->kept.len > 0 && !st->filter.stream->cancelled)
            queue_step(st);
        break;
    case TLS_DONE:
        set_state(st, SHAKE_OPEN);
        finish(st, NULL);
        break;
    case TLS_FAILED:
        set_state(st, SHAKE_FAILED);
        finish(st, tls_error(st->tls));
        break;
    }
    begin_queued(h);
}

/* --- the filter --- */

static ssize_t on_in(struct stream_filter *f, struct str *wire, uint8_t *plain, size_t plain_max)
{
    struct stream_tls *st = of_filter(f);

    switch (st->state) {
    case SHAKE_OPEN:
        return tls_read(st->tls, wire, plain, plain_max);
    case SHAKE_FAILED: /* heard out, so that the alert is not lost in a reset */
        *wire = STR("");
        return 0;
    case SHAKE_WAITS:
    case SHAKE_QUEUED:
    case SHAKE_RUNS:
        break;
    }
    if (wire->len > st->kept_max - st->kept.len)
        return -EPROTO;
    buf_put_str(&st->kept, *wire);
    *wire = STR("");
    if (st->state == SHAKE_WAITS && st->kept.len > 0)
        queue_step(st);
    return 0;
}

static ssize_t on_out(struct stream_filter *f, struct str *plain, uint8_t *wire, size_t wire_max)
{
    struct stream_tls *st = of_filter(f);
    struct str none = STR("");

    switch (st->state) {
    case SHAKE_OPEN:
        return tls_write(st->tls, plain, wire, wire_max);
    case SHAKE_FAILED: /* the alert, then nothing */
        return tls_unsent(st->tls) > 0 ? tls_write(st->tls, &none, wire, wire_max) : 0;
    case SHAKE_WAITS:
    case SHAKE_QUEUED:
        return tls_write(st->tls, &none, wire, wire_max);
    case SHAKE_RUNS:
        break;
    }
    return 0;
}

static void on_end(struct stream_filter *f)
{
    struct stream_tls *st = of_filter(f);

    if (st->state == SHAKE_OPEN)
        tls_close(st->tls);
}

static bool on_busy(const struct stream_filter *f)
{
    return of_filter(f)->state == SHAKE_RUNS;
}

static void on_close(struct stream_filter *f)
{
    struct stream_tls *st = of_filter(f);

    ASSERT(st->state != SHAKE_RUNS);
    if (st->state == SHAKE_QUEUED)
        list_remove(&st->node);
    tls_free(st->tls);
    buf_done(&st->given);
    buf_done(&st->kept);
    free(st);
}

static const struct stream_filter_kind kind = {
    .name = "tls", .in = on_in, .out = on_out, .end = on_end, .busy = on_busy, .close = on_close};

/* --- life --- */

void handshakes_init(struct handshakes *h, struct crew *crew, struct crew_desk *desk, struct io *io)
{
    *h = (struct handshakes){
        .crew = crew, .desk = desk, .io = io, .turn_max_ns = HANDSHAKES_TURN_NS};
    list_init(&h->queued);
    h->timer.on_timer = on_timer;
}

void handshakes_done(struct handshakes *h)
{
    ASSERT(list_empty(&h->queued) && h->running == 0);
    wheel_cancel(io_wheel(h->io), &h->timer);
}

int stream_tls_start(struct stream *s, struct handshakes *h, struct tls *tls,
                     stream_tls_ended *on_ended)
{
    struct stream_tls *st = calloc(1, sizeof(*st));

    if (st == NULL) {
        tls_free(tls);
        return -ENOMEM;
    }
    st->filter.kind = &kind;
    st->tls = tls;
    st->all = h;
    st->on_ended = on_ended;
    st->kept_max = tls_is_client(tls) ? HANDSHAKE_BYTES_MAX : HANDSHAKE_CLIENT_BYTES_MAX;
    st->job = (struct crew_job){.run = on_run, .done = on_done, .desk = h->desk};
    stream_filter_set(s, &st->filter);
    if (tls_is_client(tls))
        queue_step(st);
    return 0;
}

bool stream_tls_is_late(const struct stream *s)
{
    const struct stream_tls *st;

    if (s->filter == NULL || s->filter->kind != &kind)
        return false;
    st = of_filter(s->filter);
    return st->state == SHAKE_QUEUED || st->state == SHAKE_RUNS;
}

enum tls_verdict stream_tls_verdict(const struct stream *s)
{
    const struct stream_tls *st;
    struct tls_facts facts;

    if (s->filter == NULL || s->filter->kind != &kind)
        return TLS_UNCHECKED;
    st = of_filter(s->filter);
    if (st->state != SHAKE_FAILED && st->state != SHAKE_OPEN) /* the crew may have it */
        return TLS_UNCHECKED;
    tls_facts(st->tls, &facts);
    return facts.verdict;
}

struct tls *stream_tls_of(const struct stream *s)
{
    const struct stream_tls *st;

    if (s->filter == NULL || s->filter->kind != &kind)
        return NULL;
    st = of_filter(s->filter);
    return st->state == SHAKE_OPEN ? st->tls : NULL;
}
