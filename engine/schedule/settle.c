#include "schedule/settle.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "schedule/lane.h"
#include "worker/shared.h"

/* Until a change for which there was no space is submitted again. */
#define RETRY_MS 500
/* The longest wait of a change that the store refuses; each wait is twice the one before. */
#define REFUSED_MAX_MS 300000
/* The rows of one change. A turn may end hundreds of recipients, and a map that is nearly full has
 * room for a change of some, never for one of all. */
#define CUT_ROWS          64
#define CUT_RECORDS_BYTES (32u << 10)
/* The room that a notice takes in the store, beside its content. */
#define NOTICE_OVERHEAD_BYTES 2048
/* Settles that are kept for reuse, with their memory: growing it anew each turn cost page faults
 * and copies, 2 % of a message's CPU. */
#define SPARE_MAX       128
#define SPARE_BYTES_MAX (32u << 10)
/* Of queue.memory_max, what all workers' settles may take before loads wait for their commits. */
#define SETTLING_PART      16
#define SETTLING_BYTES_MIN (UINT64_C(1) << 20) /* of a worker: some 1,500 recipients */
/* What is sent and not yet recorded a crash sends again. Of messages with several recipients a
 * hundred go out in one transaction, but each has a record line of its own: so they are delivered
 * faster than they are recorded, and 25,000 to 65,000 waited. So sessions get LEAVE_MAX of them,
 * for each shard, and then as many as were recorded. Where fewer than LEAVE_SETTLING wait for a
 * commit it is peers that are slow, not commits: then sessions get LEAVE_MS_GIVES more each
 * millisecond. Recipients of other messages do not count: commits keep up with those, and cost more
 * the fewer each has, since those stand in as many lanes (4 KiB messages in 1,000 domains, counted
 * and not: 3,100 and 2,560 bytes written a message). */
#define LEAVE_MAX      4000
#define LEAVE_SETTLING 1000
#define LEAVE_MS_GIVES 5

struct settle {
    struct queue_change change;
    struct worker *worker;
    uint32_t shard;
    size_t rows_cap, messages_cap;
    struct queue_note *notes; /* the change's */
    size_t notes_cap;
    struct queue_state *states; /* the change's; key and value of each are in one block */
    size_t states_cap;
    uint64_t states_bytes;
    struct settle_part { /* where each part ends that must happen whole: records, rows, notice */
        uint32_t rows, messages, records, notes, states;
    } * parts;
    size_t parts_len, parts_cap;
    struct timer timer;
    struct list_node node;        /* settles_under_way or settles_spare */
    struct settle_waiter *waiter; /* or NULL */
    uint64_t committing;          /* bytes, of worker->settling_bytes */
    uint32_t committing_many;     /* of worker->settling_many */
    bool complained;
    uint32_t
        refused_ms; /* how long it waits, refused for another reason than space; 0: it is not */
};

static void on_settled(struct queue_change *change, int result);

static void *xrealloc(void *p, size_t n)
{
    p = realloc(p, n);
    ASSERT(p != NULL);
    return p;
}

static struct settle *settle_new(struct worker *w)
{
    struct list_node *spare = list_pop_front(&w->settles_spare);
    struct settle *s;

    if (spare != NULL) {
        ASSERT(w->settles_spare_len > 0);
        w->settles_spare_len--;
        return CONTAINER_OF(spare, struct settle, node);
    }
    s = calloc(1, sizeof(*s));
    ASSERT(s != NULL);
    s->worker = w;
    s->change.on_done = on_settled;
    s->change.owner = s;
    return s;
}

static struct settle *settle_open(struct worker *w, uint32_t shard)
{
    struct settle *s = w->settles[shard];

    if (s == NULL) {
        s = settle_new(w);
        s->shard = shard;
        w->settles[shard] = s;
    }
    return s;
}

static void check_row(const struct settle *s, const struct queue_row *row)
{
    const struct recipient *r = row->rcpt;
    const struct lane *lane = r->lane;

    ASSERT(!row->missing);
    if (row->kind == QUEUE_ROW_ADD) {
        ASSERT(lane == NULL && row->old_flow == 0 && r->message->recipients == 1);
        return;
    }
    ASSERT(r->state == PLACE_SETTLING && lane->worker == s->worker && lane->shard == s->shard);
    /* It leaves its lane for another one, or it stays. */
    ASSERT(row->old_flow == 0 ? r->flow == lane->flow
                              : row->kind == QUEUE_ROW_MOVE && row->old_flow == lane->flow &&
                                    r->flow != lane->flow);
}

static void rows_put(struct settle *s, const struct queue_row *rows, size_t len)
{
    ASSERT(s->change.rows_len <= s->rows_cap);
    if (s->change.rows_len + len > s->rows_cap) {
        s->rows_cap = s->rows_cap == 0 ? 32 : s->rows_cap * 2;
        s->rows_cap =
            s->rows_cap < s->change.rows_len + len ? s->change.rows_len + len : s->rows_cap;
        s->change.rows = xrealloc(s->change.rows, s->rows_cap * sizeof(*rows));
    }
    for (size_t i = 0; i < len; i++) {
        check_row(s, &rows[i]);
        s->change.rows[s->change.rows_len++] = rows[i];
    }
}

static void note_put(struct settle *s, const struct queue_note *note, size_t first_row)
{
    ASSERT(s->change.notes_len <= s->notes_cap);
    if (s->change.notes_len == s->notes_cap) {
        s->notes_cap = s->notes_cap == 0 ? 32 : s->notes_cap * 2;
        s->change.notes = s->notes = xrealloc(s->notes, s->notes_cap * sizeof(*note));
    }
    s->notes[s->change.notes_len] = *note;
    s->notes[s->change.notes_len++].row += (uint32_t)first_row;
}

static struct queue_state *states_room(struct settle *s, size_t len)
{
    if (s->change.states_len + len > s->states_cap) {
        s->states_cap = 2 * (s->change.states_len + len);
        s->change.states = s->states = xrealloc(s->states, s->states_cap * sizeof(*s->states));
    }
    return s->states + s->change.states_len;
}

static void state_put(struct settle *s, const struct queue_state *state)
{
    size_t bytes = state->key.len + state->value.len;
    char *block = xrealloc(NULL, bytes);
    struct queue_state *copy = states_room(s, 1);

    *copy = *state;
    memcpy(block, state->key.ptr, state->key.len);
    if (state->value.len > 0)
        memcpy(block + state->key.len, state->value.ptr, state->value.len);
    copy->key.ptr = block;
    copy->value.ptr = block + state->key.len;
    s->change.states_len++;
    s->states_bytes += bytes;
}

static void states_drop(struct settle *s)
{
    for (size_t i = 0; i < s->change.states_len; i++)
        free((char *)s->states[i].key.ptr);
    s->change.states_len = 0;
}

static void message_put(struct settle *s, struct message *m)
{
    ASSERT(s->change.messages_len <= s->messages_cap);
    if (s->change.messages_len == s->messages_cap) {
        s->messages_cap = s->messages_cap == 0 ? 4 : s->messages_cap * 2;
        s->change.messages =
            xrealloc(s->change.messages, s->messages_cap * sizeof(struct message *));
    }
    s->change.messages[s->change.messages_len++] = m;
    s->worker->notice_bytes += m->content_len + NOTICE_OVERHEAD_BYTES;
}

static uint64_t settle_bytes(const struct settle *s)
{
    return s->change.records.cap + s->rows_cap * sizeof(struct queue_row) +
           s->notes_cap * sizeof(struct queue_note) + s->states_cap * sizeof(struct queue_state) +
           s->states_bytes;
}

static uint32_t settle_many(const struct settle *s)
{
    uint32_t n = 0;

    for (size_t i = 0; i < s->change.rows_len; i++)
        n += settles_count(s->change.rows[i].rcpt);
    return n;
}

/* s goes to its committer, for the first time. */
static void settle_begin(struct settle *s)
{
    struct worker *w = s->worker;

    ASSERT(s->committing == 0);
    list_push_back(&w->settles_under_way, &s->node);
    s->committing = settle_bytes(s);
    w->settling_bytes += s->committing;
    s->committing_many = settle_many(s);
    w->settling_many += s->committing_many;
    atomic_fetch_add_explicit(&w->shared->settle_bytes, s->committing, memory_order_relaxed);
    queue_submit(w->port, s->shard, &s->change);
}

static void leave_give(struct worker *w, uint64_t recipients)
{
    w->leave_used -= recipients < w->leave_used ? (uint32_t)recipients : w->leave_used;
}

/* The committer has answered. What it refused is tried again, and holds up no loads meanwhile: they
 * may bring what makes room. */
static void settle_answered(struct settle *s)
{
    ASSERT(s->worker->settling_bytes >= s->committing);
    s->worker->settling_bytes -= s->committing;
    s->committing = 0;
    ASSERT(s->worker->settling_many >= s->committing_many);
    s->worker->settling_many -= s->committing_many;
    leave_give(s->worker, s->committing_many);
    s->committing_many = 0;
}

bool settles_lag(const struct worker *w)
{
    uint64_t max = w->config->queue.memory_bytes_max / SETTLING_PART / w->shared->workers_len;

    return w->settling_bytes > (max < SETTLING_BYTES_MIN ? SETTLING_BYTES_MIN : max);
}

bool settles_count(const struct recipient *r)
{
    return r->message->recipients > 1;
}

void settles_owe(struct worker *w, uint32_t recipients)
{
    if (w->leave_used == 0)
        w->leave_ms = io_now_ms(w->io);
    w->leave_used += recipients;
}

/* The end of this turn has no other work of its own: sessions_dispatch_all() asks anew. */
static void on_leave(struct timer *timer)
{
    (void)timer;
}

bool settles_full(struct worker *w)
{
    uint64_t now_ms;
    uint32_t own;

    if (w->leave_used == 0) /* nobody counts: so it is with most mail, which is to pay nothing */
        return false;
    own = worker_shards(w);
    now_ms = io_now_ms(w->io);
    ASSERT(own > 0); /* what it has is of its shards */
    if (w->settling_many < LEAVE_SETTLING * own)
        leave_give(w, (now_ms - w->leave_ms) * LEAVE_MS_GIVES * own);
    w->leave_ms = now_ms;
    if (w->leave_used < LEAVE_MAX * own)
        return false;
    w->leave_timer.on_timer = on_leave;
    if (w->settling_many < LEAVE_SETTLING * own && !timer_armed(&w->leave_timer))
        wheel_arm(io_wheel(w->io), &w->leave_timer, now_ms + 1);
    return true;
}

static void settle_free(struct settle *s)
{
    free(s->change.messages);
    free(s->change.rows);
    free(s->notes);
    free(s->states);
    free(s->parts);
    buf_done(&s->change.records);
    free(s);
}

static void settle_keep(struct settle *s)
{
    ASSERT(s->waiter == NULL && !timer_armed(&s->timer) && !list_node_linked(&s->change.node));
    s->change.messages_len = s->change.rows_len = s->change.notes_len = s->parts_len = 0;
    s->states_bytes = 0;
    buf_clear(&s->change.records);
    s->complained = false;
    s->refused_ms = 0;
    ASSERT(s->worker->settles_spare_len < SPARE_MAX);
    list_push_front(&s->worker->settles_spare, &s->node);
    s->worker->settles_spare_len++;
}

static void waiter_release(struct settle_waiter *waiter)
{
    ASSERT(waiter == NULL || waiter->parts > 0);
    if (waiter != NULL && --waiter->parts == 0)
        waiter->on_settled(waiter);
}

/* s has committed, or never will. */
static void settle_end(struct settle *s)
{
    struct settle_waiter *waiter = s->waiter;
    uint64_t before = atomic_fetch_sub_explicit(&s->worker->shared->settle_bytes, settle_bytes(s),
                                                memory_order_relaxed);

    ASSERT(!list_node_linked(&s->node) && before >= settle_bytes(s));
    s->waiter = NULL;
    for (size_t i = 0; i < s->change.messages_len; i++) {
        uint64_t bytes = s->change.messages[i]->content_len + NOTICE_OVERHEAD_BYTES;

        ASSERT(s->worker->notice_bytes >= bytes);
        s->worker->notice_bytes -= bytes;
        message_unref(s->change.messages[i]);
    }
    states_drop(s);
    if (settle_bytes(s) <= SPARE_BYTES_MAX && s->worker->settles_spare_len < SPARE_MAX)
        settle_keep(s);
    else
        settle_free(s);
    waiter_release(waiter);
}

static void on_retry(struct timer *timer)
{
    struct settle *s = CONTAINER_OF(timer, struct settle, timer);

    queue_submit(s->worker->port, s->shard, &s->change);
}

/* Ends a part: what was put in since the last one. */
static void part_end(struct settle *s)
{
    if (s->change.rows_len == (s->parts_len == 0 ? 0 : s->parts[s->parts_len - 1].rows))
        return;
    if (s->parts_len == s->parts_cap) {
        s->parts_cap = s->parts_cap == 0 ? 32 : s->parts_cap * 2;
        s->parts = xrealloc(s->parts, s->parts_cap * sizeof(*s->parts));
    }
    s->parts[s->parts_len++] = (struct settle_part){.rows = (uint32_t)s->change.rows_len,
                                                    .messages = (uint32_t)s->change.messages_len,
                                                    .records = (uint32_t)s->change.records.len,
                                                    .notes = (uint32_t)s->change.notes_len,
                                                    .states = (uint32_t)s->change.states_len};
}

static void part_notes(struct settle *part, const struct settle *s, struct settle_part from,
                       struct settle_part to)
{
    size_t len = to.notes - from.notes;

    ASSERT(to.notes >= from.notes && part->change.notes_len == 0);
    if (len == 0)
        return;
    part->notes_cap = part->change.notes_len = len;
    part->change.notes = part->notes = xrealloc(part->notes, len * sizeof(*part->notes));
    memcpy(part->notes, s->notes + from.notes, len * sizeof(*part->notes));
    for (size_t i = 0; i < len; i++)
        part->notes[i].row -= from.rows;
}

/* The blocks go over to the part. */
static void part_states(struct settle *part, const struct settle *s, struct settle_part from,
                        struct settle_part to)
{
    size_t len = to.states - from.states;

    ASSERT(to.states >= from.states && part->change.states_len == 0);
    if (len == 0)
        return;
    memcpy(states_room(part, len), s->states + from.states, len * sizeof(*part->states));
    part->change.states_len = len;
    for (size_t i = 0; i < len; i++)
        part->states_bytes += part->states[i].key.len + part->states[i].value.len;
}

static void part_submit(struct settle *s, struct settle_part from, struct settle_part to)
{
    struct worker *w = s->worker;
    struct settle *part = settle_new(w);

    ASSERT(to.rows > from.rows && to.messages >= from.messages && to.records >= from.records);
    part->shard = s->shard;
    part->waiter = s->waiter;
    if (part->waiter != NULL)
        part->waiter->parts++;
    part->rows_cap = part->change.rows_len = to.rows - from.rows;
    part->change.rows = xrealloc(part->change.rows, part->rows_cap * sizeof(struct queue_row));
    memcpy(part->change.rows, s->change.rows + from.rows,
           part->rows_cap * sizeof(struct queue_row));
    part->messages_cap = part->change.messages_len = to.messages - from.messages;
    if (part->messages_cap > 0) {
        part->change.messages =
            xrealloc(part->change.messages, part->messages_cap * sizeof(struct message *));
        memcpy(part->change.messages, s->change.messages + from.messages,
               part->messages_cap * sizeof(struct message *));
    }
    buf_put(&part->change.records, s->change.records.data + from.records,
            to.records - from.records);
    part_notes(part, s, from, to);
    part_states(part, s, from, to);
    settle_begin(part);
}

/* Makes each part a settle of its own: one that the store refuses must not hold up the others. */
static void settle_split(struct settle *s)
{
    struct settle_part from = {0}, *last = &s->parts[s->parts_len - 1];

    ASSERT(last->rows == s->change.rows_len); /* part_end() */
    last->messages = (uint32_t)s->change.messages_len;
    last->records = (uint32_t)s->change.records.len;
    last->notes = (uint32_t)s->change.notes_len;
    last->states = (uint32_t)s->change.states_len;
    for (size_t i = 0; i < s->parts_len; i++) {
        part_submit(s, from, s->parts[i]);
        from = s->parts[i];
    }
    s->change.rows_len = s->change.messages_len = s->change.notes_len = s->change.states_len = 0;
    list_remove(&s->node);
    settle_end(s);
}

/* The store refuses s for another reason than space: the tree is damaged there, or we made a row
 * that cannot be stored. The recipient stays in memory as settling, so that it is not sent again
 * while the process lives, and its settle is tried less and less often; nobody waits for it. */
static void settle_refused(struct settle *s, int result)
{
    struct worker *w = s->worker;
    struct settle_waiter *waiter = s->waiter;
    char id[MSGID_TEXT_BYTES] = "";
    uint32_t n;

    part_end(s);
    if (s->parts_len > 1) {
        settle_split(s);
        return;
    }
    if (s->refused_ms == 0) {
        n = ++w->settles_refused;
        if (s->change.rows_len > 0)
            msgid_text(&s->change.rows[0].rcpt->message->id, id);
        if ((n & (n - 1)) == 0) /* the first, the second, the fourth ... */
            log_error("queue.settle_refused",
                      "shard=%u id=%s error=\"%s\" refused=%u action=\"it is tried again, and sent "
                      "again after a restart; see 'A damaged queue' in the manual\"",
                      s->shard, id, strerror(-result), n);
        s->waiter = NULL;
        waiter_release(waiter);
    }
    s->refused_ms = s->refused_ms == 0                   ? RETRY_MS
                    : s->refused_ms < REFUSED_MAX_MS / 2 ? s->refused_ms * 2
                                                         : REFUSED_MAX_MS;
    s->timer.on_timer = on_retry;
    wheel_arm(io_wheel(w->io), &s->timer, io_now_ms(w->io) + s->refused_ms);
}

static void settle_again(struct settle *s, int result)
{
    struct worker *w = s->worker;

    if (!s->complained && w->settles_failing++ == 0) /* one line for all that find no room */
        log_error("queue.settle_failed", "shard=%u rows=%zu error=%d action=retry", s->shard,
                  s->change.rows_len, result);
    s->complained = true;
    if (result == -ESHUTDOWN) /* the process is about to exit; nothing more can be recorded */
        return;
    s->timer.on_timer = on_retry;
    wheel_arm(io_wheel(w->io), &s->timer, io_now_ms(w->io) + RETRY_MS);
}

static void on_settled(struct queue_change *change, int result)
{
    struct settle *s = change->owner;
    struct worker *w = s->worker;

    ASSERT(&s->change == change && list_node_linked(&s->node));
    settle_answered(s);
    if (result == -ENOSPC || result == -ENOMEM || result == -ESHUTDOWN) {
        settle_again(s, result);
        return;
    }
    ASSERT(w->settles_failing >= s->complained);
    w->settles_failing -= s->complained;
    s->complained = false;
    if (result < 0) {
        settle_refused(s, result);
        return;
    }
    ASSERT(s->refused_ms == 0 || w->settles_refused > 0);
    w->settles_refused -= s->refused_ms != 0;
    list_remove(&s->node);
    for (size_t i = 0; i < change->rows_len; i++) {
        struct queue_row *row = &change->rows[i];

        switch (row->kind) {
        case QUEUE_ROW_ADD:
            lane_arrive(w, s->shard, row->rcpt);
            break;
        case QUEUE_ROW_REMOVE:
            lane_settled(row->rcpt, INT64_MAX);
            break;
        case QUEUE_ROW_MOVE:
            if (row->old_flow != 0 && !row->missing)
                lane_moved(row->rcpt);
            else
                lane_settled(row->rcpt, row->missing ? INT64_MAX : row->rcpt->due_ms);
            break;
        }
    }
    settle_end(s);
}

static void settle_submit(struct worker *w, struct settle *s)
{
    ASSERT(w->settles[s->shard] == s && s->waiter == NULL && s->refused_ms == 0);
    w->settles[s->shard] = NULL;
    s->waiter = w->settles_follower;
    if (s->waiter != NULL)
        s->waiter->parts++;
    settle_begin(s);
}

bool settle_takes_notice(const struct worker *w, uint32_t shard)
{
    return queue_notice_room_bytes(w->shared->queue, shard) > w->notice_bytes;
}

void settle(struct worker *w, const struct settlement *what)
{
    struct settle *s = w->settles[what->shard];
    size_t first_row;

    ASSERT(worker_of_shard(w->shared, what->shard) == w || what->rows_len == 0);
    ASSERT((what->notes_len == 0 && what->states_len == 0) || what->rows_len > 0);
    if (s != NULL && what->apart)
        settle_submit(w, s);
    s = settle_open(w, what->shard);
    first_row = s->change.rows_len;
    w->turn.settled += (uint32_t)what->rows_len;
    buf_put_str(&s->change.records, what->records);
    rows_put(s, what->rows, what->rows_len);
    for (size_t i = 0; i < what->rows_len; i++)
        if (what->rows[i].kind == QUEUE_ROW_ADD)
            message_put(s, what->rows[i].rcpt->message);
    for (size_t i = 0; i < what->notes_len; i++) {
        ASSERT(what->notes[i].row < what->rows_len);
        note_put(s, &what->notes[i], first_row);
    }
    for (size_t i = 0; i < what->states_len; i++)
        state_put(s, &what->states[i]);
    part_end(s);
    if (what->apart || s->change.rows_len >= CUT_ROWS || s->change.records.len >= CUT_RECORDS_BYTES)
        settle_submit(w, s);
}

void settle_follow(struct worker *w, struct settle_waiter *waiter)
{
    ASSERT(waiter != NULL && w->settles_follower == NULL); /* settle_wait() ends it */
    w->settles_follower = waiter;
}

void settle_wait(struct worker *w, uint32_t shard)
{
    ASSERT(w->settles_follower != NULL);
    settle_submit(w, settle_open(w, shard));
    w->settles_follower = NULL;
}

void settle_flush(struct worker *w)
{
    uint32_t shards = queue_shards(w->shared->queue);

    for (uint32_t shard = 0; shard < shards; shard++)
        if (w->settles[shard] != NULL)
            settle_submit(w, w->settles[shard]);
}

bool settle_pending(const struct worker *w)
{
    uint32_t shards = queue_shards(w->shared->queue);

    for (uint32_t shard = 0; shard < shards; shard++)
        if (w->settles[shard] != NULL)
            return true;
    for (struct list_node *n = list_first(&w->settles_under_way); n != NULL;
         n = list_next(&w->settles_under_way, n))
        if (LIST_ENTRY(n, struct settle, node)->refused_ms == 0)
            return true;
    return false;
}

void settle_abandon(struct worker *w)
{
    struct list_node *n;

    settle_flush(w);
    while ((n = list_pop_front(&w->settles_under_way)) != NULL) {
        struct settle *s = LIST_ENTRY(n, struct settle, node);

        wheel_cancel(io_wheel(w->io), &s->timer);
        for (size_t i = 0; i < s->change.rows_len; i++) {
            if (s->change.rows[i].kind == QUEUE_ROW_ADD)
                recipient_free(s->change.rows[i].rcpt);
            else
                lane_settled(s->change.rows[i].rcpt, INT64_MAX);
        }
        settle_answered(s);
        settle_end(s);
    }
    while ((n = list_pop_front(&w->settles_spare)) != NULL)
        settle_free(CONTAINER_OF(n, struct settle, node));
    wheel_cancel(io_wheel(w->io), &w->leave_timer);
}
