/* What the queue does while nothing goes wrong. */
#include "queue/testkit.h"

#include "queue/shard.h"

/* Adds a message with one row per lane name. */
static struct msgid add(struct kit_queue *f, const char *const *lanes, uint32_t n, uint8_t priority,
                        int64_t due_ms)
{
    struct message *m = kit_message(3000, n, priority);
    struct kit_change *c = kit_change();
    struct recipient *rcpts[KIT_ROWS_MAX];
    struct msgid id = m->id;

    kit_content(c, m);
    for (uint32_t i = 0; i < n; i++) {
        rcpts[i] = kit_recipient(m, i, lanes[i], due_ms);
        kit_row(c, QUEUE_ROW_ADD, rcpts[i]);
    }
    message_unref(m);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    for (uint32_t i = 0; i < n; i++)
        recipient_free(rcpts[i]);
    return id;
}

static struct msgid add_one(struct kit_queue *f, const char *lane, uint8_t priority, int64_t due_ms)
{
    return add(f, &lane, 1, priority, due_ms);
}

static uint64_t messages(struct kit_queue *f)
{
    struct queue_counters counters;

    queue_counters(f->q, 0, &counters);
    assert_true(counters.messages > 0 || counters.pieces == 0);
    return counters.messages;
}

/* Contents of any size come back, also from the holes that others left; nothing of them stays. */
static void test_sizes(void **state)
{
    static const size_t sizes[] = {0,    1,    1700, 2014, 2100,  4079,  4080,   4081,
                                   4500, 8159, 8160, 8161, 51200, 65537, 200000, 1100000};
    struct recipient *kept[ARRAY_LEN(sizes)], *added;
    struct kit_queue *f = *state;

    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
            size_t size = sizes[(i * 7 + (size_t)round) % ARRAY_LEN(sizes)];
            struct message *m = kit_message(size, 1, 5);
            struct kit_change *c = kit_change();
            struct kit_load load = {0};

            if (round > 0) {
                kit_row(c, QUEUE_ROW_REMOVE, kept[i]);
                assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
                recipient_free(kept[i]);
                c = kit_change();
            }
            kit_content(c, m);
            added = kit_recipient(m, 0, "a.example", 1000 + (int64_t)i);
            kit_row(c, QUEUE_ROW_ADD, added);
            assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
            recipient_free(added);
            message_unref(m);
            load.load.from_ms = 1000 + (int64_t)i;
            assert_int_equal(kit_load(f->q, f->port, 0, &load, "a.example", 1000 + (int64_t)i, 10),
                             0);
            kept[i] = kit_pop(&load);
            assert_non_null(kept[i]);
            assert_int_equal(kept[i]->message->content_len, size);
            assert_true(kit_content_right(kept[i]->message));
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct kit_change *c = kit_change();

        kit_row(c, QUEUE_ROW_REMOVE, kept[i]);
        assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
        recipient_free(kept[i]);
    }
    assert_int_equal(messages(f), 0);
}

static void test_stored_and_loaded(void **state)
{
    struct kit_queue *f = *state;
    struct kit_load load = {0};
    struct recipient *r;
    struct msgid id = add_one(f, "example.org", 5, 1000);

    kit_queue_reopen(f);
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 1000, 10), 0);
    r = kit_pop(&load);
    assert_non_null(r);
    assert_true(list_empty(&load.load.rcpts));
    assert_true(load.load.end);
    assert_true(load.load.next_due_ms == INT64_MAX);
    assert_memory_equal(&r->message->id, &id, sizeof(id));
    assert_int_equal(r->message->content_len, 3000);
    assert_true(kit_content_right(r->message));
    assert_true(str_eq(r->address, STR("user0@example.org")));
    assert_true(str_eq(r->queue, STR("example.org")));
    assert_true(str_eq(r->message->sender, STR("sender@example.com")));
    assert_true(str_eq(r->message->campaign, STR("spring")));
    assert_true(str_eq(r->message->origin, STR("192.0.2.1:4711")));
    assert_int_equal(r->due_ms, 1000);
    assert_int_equal(r->priority, 5);
    recipient_free(r);
}

/* A load that is to bring nothing while messages take memory goes on where it was. */
static void test_load_leaves_memory(void **state)
{
    struct kit_queue *f = *state;
    struct kit_load load = {0};
    struct recipient *r;

    (void)add_one(f, "example.org", 5, 1000);
    (void)add_one(f, "example.org", 5, 1000);
    kit_queue_reopen(f);
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 1000, 1), 0);
    r = kit_pop(&load);
    assert_non_null(r);
    load.load.alive_bytes_max = message_bytes_alive();
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 1000, 10), 0);
    assert_true(list_empty(&load.load.rcpts) && !load.load.end);
    recipient_free(r);
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 1000, 10), 0);
    r = kit_pop(&load);
    assert_true(r != NULL && list_empty(&load.load.rcpts) && load.load.end);
    recipient_free(r);
}

static void test_move_and_remove(void **state)
{
    struct kit_queue *f = *state;
    struct kit_load load = {0};
    struct kit_change *c;
    struct queue_row *row;
    struct recipient *r;

    add_one(f, "example.org", 5, 1000);
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 1000, 10), 0);
    r = kit_pop(&load);
    c = kit_change();
    kit_row(c, QUEUE_ROW_MOVE, r);
    r->due_ms = 5000;
    r->attempts = 7;
    r->flags = RECIPIENT_WARNED;
    r->last_attempt_ms = 999;
    recipient_set_error(r, STR("450 4.7.1 later"));
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    recipient_free(r);

    kit_queue_reopen(f);
    load = (struct kit_load){0};
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 4999, 10), 0);
    assert_true(list_empty(&load.load.rcpts));
    assert_true(load.load.end);
    assert_int_equal(load.load.next_due_ms, 5000);
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 5000, 10), 0);
    r = kit_pop(&load);
    assert_int_equal(r->attempts, 7);
    assert_int_equal(r->flags, RECIPIENT_WARNED);
    assert_int_equal(r->last_attempt_ms, 999);
    assert_true(str_eq(r->last_error, STR("450 4.7.1 later")));

    /* A remove under the old key finds nothing and harms nothing. */
    c = kit_change();
    row = kit_row(c, QUEUE_ROW_REMOVE, r);
    row->old_due_ms = 1000;
    queue_submit(f->port, 0, &c->change);
    kit_wait(f->q, f->port, &c->done);
    assert_int_equal(c->result, 0);
    assert_true(row->missing);
    free(c);
    assert_int_equal(messages(f), 1);

    c = kit_change();
    row = kit_row(c, QUEUE_ROW_REMOVE, r);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_int_equal(messages(f), 0);
    recipient_free(r);
}

static void test_content_goes_with_last_row(void **state)
{
    struct kit_queue *f = *state;
    const char *lanes[] = {"a.example", "b.example", "b.example"};
    struct kit_load a = {0}, b = {0};
    struct recipient *ra, *rb, *rb2;
    struct kit_change *c;

    add(f, lanes, 3, 5, 1000);
    assert_int_equal(kit_load(f->q, f->port, 0, &a, "a.example", 1000, 10), 0);
    assert_int_equal(kit_load(f->q, f->port, 0, &b, "b.example", 1000, 10), 0);
    ra = kit_pop(&a);
    rb = kit_pop(&b);
    rb2 = kit_pop(&b);
    assert_non_null(rb2);
    assert_ptr_equal(rb->message, rb2->message);
    assert_ptr_equal(ra->message, rb->message); /* the loader's cache */

    c = kit_change();
    kit_row(c, QUEUE_ROW_REMOVE, rb);
    kit_row(c, QUEUE_ROW_REMOVE, ra);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_int_equal(messages(f), 1);
    kit_queue_reopen(f);
    c = kit_change();
    kit_row(c, QUEUE_ROW_REMOVE, rb2);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_int_equal(messages(f), 0);
    recipient_free(ra);
    recipient_free(rb);
    recipient_free(rb2);
}

/* Later changes may bring more rows of a stored message: a campaign's list in chunks. */
static void test_rows_added_later(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = kit_message(100, 1000, 5);
    struct recipient *r[4];
    struct kit_change *c = kit_change();

    for (uint32_t i = 0; i < 4; i++)
        r[i] = kit_recipient(m, i, "a.example", 1000);
    kit_content(c, m);
    kit_row(c, QUEUE_ROW_ADD, r[0]);
    kit_row(c, QUEUE_ROW_ADD, r[1]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    c = kit_change();
    kit_row(c, QUEUE_ROW_ADD, r[2]);
    kit_row(c, QUEUE_ROW_ADD, r[3]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    c = kit_change();
    kit_row(c, QUEUE_ROW_REMOVE, r[0]);
    kit_row(c, QUEUE_ROW_REMOVE, r[1]);
    kit_row(c, QUEUE_ROW_REMOVE, r[2]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_int_equal(messages(f), 1);
    c = kit_change();
    kit_row(c, QUEUE_ROW_REMOVE, r[3]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_int_equal(messages(f), 0);
    for (size_t i = 0; i < 4; i++)
        recipient_free(r[i]);
    message_unref(m);
}

/* A content whose recipients come later is counted, however few there are at a time; rows without
 * their content are refused. */
static void test_open_ended_content(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = kit_message(5000, 0, 5), *unknown = kit_message(100, 0, 5);
    struct recipient *r[3], *stray = kit_recipient(unknown, 0, "a.example", 1000);
    struct kit_change *c = kit_change();

    for (uint32_t i = 0; i < 3; i++)
        r[i] = kit_recipient(m, i, "a.example", 1000);
    kit_content(c, m);
    kit_row(c, QUEUE_ROW_ADD, r[0]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    c = kit_change();
    kit_row(c, QUEUE_ROW_ADD, r[1]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    c = kit_change();
    kit_row(c, QUEUE_ROW_REMOVE, r[0]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_int_equal(messages(f), 1);
    kit_queue_reopen(f);
    c = kit_change();
    kit_row(c, QUEUE_ROW_ADD, r[2]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    c = kit_change();
    kit_row(c, QUEUE_ROW_ADD, stray);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), -ENOENT);
    c = kit_change();
    kit_row(c, QUEUE_ROW_REMOVE, r[1]);
    kit_row(c, QUEUE_ROW_REMOVE, r[2]);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_int_equal(messages(f), 0);
    for (uint32_t i = 0; i < 3; i++)
        recipient_free(r[i]);
    recipient_free(stray);
    message_unref(m);
    message_unref(unknown);
}

static void test_order_and_cursor(void **state)
{
    struct kit_queue *f = *state;
    /* In the order they must come out; then those not due. */
    static const int64_t rows[] = {50, 60, 100, 700, 900, 1000},
                         later[] = {3000, 4000, QUEUE_DUE_HELD};
    struct kit_load load = {0};

    for (size_t i = ARRAY_LEN(rows); i-- > 0;)
        add_one(f, "example.org", 5, rows[i]);
    for (size_t i = 0; i < ARRAY_LEN(later); i++)
        add_one(f, "example.org", 5, later[i]);
    add_one(f, "example.or", 5, 1);
    add_one(f, "example.org.uk", 5, 1);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct recipient *r;

        assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 1000, 1), 0);
        r = kit_pop(&load);
        assert_non_null(r);
        assert_true(list_empty(&load.load.rcpts));
        assert_int_equal(r->due_ms, rows[i]);
        recipient_free(r);
    }
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 1000, 1), 0);
    assert_true(list_empty(&load.load.rcpts));
    assert_true(load.load.end);
    assert_int_equal(load.load.next_due_ms, 3000);
    /* Behind the cursor, at a later time: what became due behind it, nothing before it. */
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 5000, 10), 0);
    for (size_t i = 0; i < 2; i++) {
        struct recipient *r = kit_pop(&load);

        assert_non_null(r);
        assert_int_equal(r->due_ms, later[i]);
        recipient_free(r);
    }
    assert_true(list_empty(&load.load.rcpts));
    assert_int_equal(load.load.next_due_ms, QUEUE_DUE_HELD);
    load = (struct kit_load){0};
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "example.org", 5000, 100), 0);
    for (size_t i = 0; i < ARRAY_LEN(rows) + 2; i++)
        recipient_free(kit_pop(&load));
    assert_true(list_empty(&load.load.rcpts));
}

/* A message in a flow, for one recipient. */
static void add_in(struct kit_queue *f, const struct queue_flow *flow, const char *name,
                   int64_t due_ms)
{
    struct message *m = kit_message(100, 1, flow->priority);
    struct kit_change *c = kit_change();
    struct recipient *r;

    m->flow = flow->id;
    r = kit_recipient(m, 0, name, due_ms);
    kit_content(c, m);
    kit_row(c, QUEUE_ROW_ADD, r);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    recipient_free(r);
    message_unref(m);
}

static void count_state(void *arg, struct str key, struct str value)
{
    assert_true(key.len == 5 && value.len > 0);
    ++*(size_t *)arg;
}

static bool count_row(void *arg, const struct queue_row_view *row)
{
    assert_true(str_eq(row->queue, STR("a.example")));
    ++*(size_t *)arg;
    return true;
}

static int64_t flow_rows(struct kit_queue *f, uint32_t id)
{
    struct queue_counters counters;
    const struct queue_flow *flow = queue_flow_find(f->q, id);

    do
        queue_counters(f->q, 0, &counters);
    while (!counters.rows_complete);
    return flow == NULL ? -1 : atomic_load(&flow->sums->rows);
}

/* Lanes of one name in several flows are lanes apart; flows keep names and ids over a restart, as
 * long as they have rows. */
static void test_flows(void **state)
{
    struct kit_queue *f = *state;
    const struct queue_flow *news = queue_flow_get(f->q, 7, STR("acme"), STR("news"), STR(""));
    const struct queue_flow *codes = queue_flow_get(f->q, 0, STR("acme"), STR(""), STR(""));
    const struct queue_flow *empty = queue_flow_get(f->q, 5, STR("nobody"), STR(""), STR(""));
    const struct queue_flow *signed_news;
    struct queue_flow wanted;
    uint32_t signed_id;
    struct queue_visit what = {.queue = STR("a.example"), .rows_max = 100, .visit = count_row};
    struct queue_cursor cursor = {0};
    uint32_t news_id = news->id, codes_id = codes->id, empty_id = empty->id;
    struct kit_load load = {0};
    size_t states = 0, rows = 0;
    struct recipient *r;

    assert_ptr_equal(queue_flow_get(f->q, 7, STR("acme"), STR("news"), STR("")), news);
    assert_ptr_not_equal(codes, news);
    wanted = *news;
    wanted.signer = STR("acme.example");
    signed_news = queue_flow_like(f->q, &wanted);
    assert_ptr_not_equal(signed_news, news);
    signed_id = signed_news->id;
    wanted.envelope = STR("acme.example");
    assert_ptr_not_equal(queue_flow_like(f->q, &wanted), signed_news);
    add_in(f, signed_news, "c.example", 900);
    for (int i = 0; i < 10; i++) {
        add_in(f, news, "a.example", 500 + i);
        add_in(f, news, "a.exampl", 500);
        add_in(f, news, "b.example", 2000);
    }
    add_in(f, codes, "a.example", 900);
    add_in(f, codes, "a.example", 1900);
    assert_int_equal(queue_state_visit(f->q, 0, STATE_FLOW, count_state, &states), 0);
    assert_int_equal(states, 3);
    assert_int_equal(flow_rows(f, news_id), 30);
    kit_queue_reopen(f);
    assert_int_equal(flow_rows(f, news_id), 30);
    assert_int_equal(flow_rows(f, codes_id), 2);
    signed_news = queue_flow_find(f->q, signed_id);
    assert_true(str_eq(signed_news->signer, STR("acme.example")) &&
                str_eq(signed_news->campaign, STR("news")) && signed_news->envelope.len == 0);
    news = queue_flow_find(f->q, news_id);
    assert_non_null(news);
    assert_true(news->priority == 7 && str_eq(news->tenant, STR("acme")) &&
                str_eq(news->campaign, STR("news")));
    assert_ptr_equal(queue_flow_get(f->q, 7, STR("acme"), STR("news"), STR("")), news);
    assert_int_equal(queue_flow_get(f->q, 0, STR("acme"), STR(""), STR(""))->id, codes_id);
    assert_null(queue_flow_find(f->q, empty_id));
    load.load.flow = codes_id;
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "a.example", 1000, 10), 0);
    r = kit_pop(&load);
    assert_int_equal(r->due_ms, 900);
    assert_int_equal(r->priority, 0);
    assert_int_equal(r->flow, codes_id);
    recipient_free(r);
    assert_true(list_empty(&load.load.rcpts));
    assert_int_equal(load.load.next_due_ms, 1900);
    what.arg = &rows;
    assert_int_equal(queue_visit(f->q, 0, &cursor, &what), 1);
    assert_int_equal(rows, 12);
    what.flow = codes_id;
    cursor = (struct queue_cursor){0};
    assert_int_equal(queue_visit(f->q, 0, &cursor, &what), 1);
    assert_int_equal(rows, 14);
    /* A flow whose rows have gone goes with the next start. */
    for (int64_t due_ms = 900; due_ms <= 1900; due_ms += 1000) {
        struct kit_change *c = kit_change();

        load = (struct kit_load){.load = {.flow = codes_id}};
        assert_int_equal(kit_load(f->q, f->port, 0, &load, "a.example", due_ms, 1), 0);
        r = kit_pop(&load);
        kit_row(c, QUEUE_ROW_REMOVE, r);
        assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
        recipient_free(r);
    }
    assert_int_equal(flow_rows(f, codes_id), 0);
    kit_queue_reopen(f);
    assert_null(queue_flow_find(f->q, codes_id));
    assert_non_null(queue_flow_find(f->q, news_id));
}

/* A flow whose first change fails comes with the next that does not. */
static void test_flow_behind_a_failure(void **state)
{
    struct kit_queue *f = *state;
    const struct queue_flow *flow = queue_flow_get(f->q, 3, STR("acme"), STR(""), STR(""));
    const struct queue_state bad = {.key = STR("\xf0"), .value = STR("no name")};
    struct message *m = kit_message(100, 1, 3);
    struct kit_change *c = kit_change();
    uint32_t id = flow->id;
    struct recipient *r;

    m->flow = id;
    r = kit_recipient(m, 0, "a.example", 1000);
    kit_content(c, m);
    kit_row(c, QUEUE_ROW_ADD, r);
    c->change.states = &bad;
    c->change.states_len = 1;
    assert_int_equal(kit_submit(f->q, f->port, 0, c), -EINVAL);
    assert_int_equal(messages(f), 0);
    recipient_free(r);
    message_unref(m);
    add_in(f, flow, "a.example", 1000);
    kit_queue_reopen(f);
    assert_non_null(queue_flow_find(f->q, id));
}

/* Beyond the limit what is new shares a flow. */
static void test_flows_are_bounded(void **state)
{
    struct kit_queue *f = *state;
    const struct queue_flow *flow = NULL;
    struct queue_flow enveloped = {.priority = 5,
                                   .tenant = STR("acme"),
                                   .campaign = STR("c1"),
                                   .envelope = STR("one.example")};
    struct queue_flow urgent = {.priority = 1, .tenant = STR("acme"), .campaign = STR("c1")};
    char name[20];

    for (uint32_t i = 0; i < FLOWS_MAX / 2 + 10; i++) {
        snprintf(name, sizeof(name), "c%u", i);
        flow = queue_flow_get(f->q, 5, STR("acme"), str_of(name), STR(""));
        assert_non_null(flow);
        if (i != FLOWS_MAX / 4 - 2)
            continue;
        assert_non_null(queue_flow_like(f->q, &enveloped));
        enveloped.envelope = STR("two.example"); /* senders choose them: campaigns have the rest */
        assert_null(queue_flow_like(f->q, &enveloped));
    }
    /* What stops mail goes by its names: none is left out. */
    assert_null(queue_flow_like(f->q, &urgent));
    enveloped.envelope = STR("one.example");
    assert_true(str_eq(queue_flow_like(f->q, &enveloped)->campaign, STR("c1")));
    assert_int_equal(flow->campaign.len, 0);
    assert_true(str_eq(flow->tenant, STR("acme")));
    assert_ptr_equal(queue_flow_get(f->q, 5, STR("acme"), STR("another"), STR("")), flow);
    assert_true(
        str_eq(queue_flow_get(f->q, 5, STR("acme"), STR("c7"), STR(""))->campaign, STR("c7")));
}

/* State comes and goes with a change, or not at all. */
static void test_state(void **state)
{
    struct kit_queue *f = *state;
    const struct queue_state put[] = {{.key = STR("\xf0one"), .value = STR("first")},
                                      {.key = STR("\xf0two"), .value = STR("")}};
    const struct queue_state next[] = {
        {.key = STR("\xf0one"), .value = STR("second")},
        {.key = STR("\xf0two"), .remove = true},
        {.key = STR("\xf0six"), .remove = true},
        {.key = STR("\xf0one"), .value = STR("x"), .if_absent = true},
        {.key = STR("\xf0ten"), .value = STR("y"), .if_absent = true}};
    const struct queue_state bad[] = {{.key = STR("\xf0one"), .value = STR("third")},
                                      {.key = STR("\xf0"), .value = STR("no name")}};
    struct kit_change *c = kit_change();
    struct buf value = {0};

    c->change.states = put;
    c->change.states_len = ARRAY_LEN(put);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    assert_int_equal(queue_state_get(f->q, 0, STR("\xf0one"), &value), 0);
    assert_true(str_eq(buf_str(&value), STR("first")));
    buf_clear(&value);
    assert_int_equal(queue_state_get(f->q, 0, STR("\xf0two"), &value), 0);
    assert_int_equal(value.len, 0);
    c = kit_change();
    c->change.states = bad;
    c->change.states_len = ARRAY_LEN(bad);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), -EINVAL);
    c = kit_change();
    c->change.states = next;
    c->change.states_len = ARRAY_LEN(next);
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    kit_queue_reopen(f);
    assert_int_equal(queue_state_get(f->q, 0, STR("\xf0one"), &value), 0);
    assert_true(str_eq(buf_str(&value), STR("second")));
    assert_int_equal(queue_state_get(f->q, 0, STR("\xf0two"), &value), -ENOENT);
    buf_clear(&value);
    assert_int_equal(queue_state_get(f->q, 0, STR("\xf0ten"), &value), 0);
    assert_true(str_eq(buf_str(&value), STR("y")));
    buf_done(&value);
}

/* Rows asked for by key, due or not; what is gone is left out. And a lane from a time on. */
static void test_exact_and_from(void **state)
{
    struct kit_queue *f = *state;
    struct msgid ids[3];
    struct queue_row_key keys[3];
    struct kit_load load = {0};
    struct recipient *r;

    for (int64_t i = 0; i < 3; i++) {
        ids[i] = add_one(f, "a.example", 5, 1000 + i);
        keys[i] =
            (struct queue_row_key){.queue = STR("a.example"), .id = ids[i], .due_ms = 1000 + i};
    }
    keys[1].due_ms = 7; /* no such row */
    load.load.exact = keys;
    load.load.exact_len = 3;
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "", 0, 0), 0);
    r = kit_pop(&load);
    assert_memory_equal(&r->message->id, &ids[0], sizeof(ids[0]));
    recipient_free(r);
    r = kit_pop(&load);
    assert_memory_equal(&r->message->id, &ids[2], sizeof(ids[2]));
    recipient_free(r);
    assert_true(list_empty(&load.load.rcpts));

    add_one(f, "a.example", 2, 900);
    add_one(f, "a.example", 2, 1500);
    add_one(f, "a.example", 7, 500);
    load = (struct kit_load){.load = {.from_ms = 1001}};
    assert_int_equal(kit_load(f->q, f->port, 0, &load, "a.example", 2000, 10), 0);
    for (size_t i = 0; i < 3; i++) {
        static const int64_t due[] = {1001, 1002, 1500};

        r = kit_pop(&load);
        assert_int_equal(r->due_ms, due[i]);
        recipient_free(r);
    }
    assert_true(list_empty(&load.load.rcpts));
    assert_true(load.load.end);
}

struct kit_directory {
    struct queue_directory d;
    bool done;
    int result;
};

static void on_directory(struct queue_directory *d, int result)
{
    struct kit_directory *kit = d->owner;

    kit->done = true;
    kit->result = result;
}

static void test_directory(void **state)
{
    struct kit_queue *f = *state;
    static const char *const names[] = {"a.example", "a.example.org", "b", "b.example"};
    struct kit_directory kit = {.d = {.on_done = on_directory}};

    kit.d.owner = &kit;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (i != 2) {
            add_one(f, names[i], 5, 1000 + (int64_t)i);
            add_one(f, names[i], 2, 2000);
        }
        if (i != 1)
            add_one(f, names[i], 7, 500);
    }
    for (size_t i = 0; i <= ARRAY_LEN(names); i += 2) {
        kit.d.lanes_max = 2;
        kit.done = false;
        queue_directory(f->port, 0, &kit.d);
        kit_wait(f->q, f->port, &kit.done);
        assert_int_equal(kit.result, 0);
        assert_int_equal(kit.d.lanes_len, i < ARRAY_LEN(names) ? 2 : 0);
        for (size_t j = 0; j < kit.d.lanes_len; j++) {
            assert_true(str_eq(kit.d.lanes[j].name, str_of(names[i + j])));
            assert_int_equal(kit.d.lanes[j].first_due_ms, i + j == 1 ? 1001 : 500);
        }
        queue_directory_done(&kit.d);
    }
    assert_true(kit.d.end);
}

struct seen {
    size_t rows;
    bool with_message;
};

static bool on_row(void *arg, const struct queue_row_view *row)
{
    struct seen *seen = arg;

    seen->rows++;
    seen->with_message &= str_eq(row->sender, STR("sender@example.com")) && row->size == 3000;
    assert_true(row->address.len > 0);
    return seen->rows != 3;
}

static void test_visit_and_message(void **state)
{
    struct kit_queue *f = *state;
    struct queue_cursor cursor = {0};
    struct seen seen = {.with_message = true};
    struct queue_visit all = {.rows_max = 100, .need_message = true, .visit = on_row, .arg = &seen};
    struct queue_visit lane = {
        .queue = STR("b.example"), .rows_max = 100, .visit = on_row, .arg = &seen};
    struct queue_visit one = {.rows_max = 3, .visit = on_row, .arg = &seen};
    struct message *m;
    struct msgid id = add_one(f, "a.example", 5, 1), last;
    char name[QUEUE_NAME_MAX + 1];
    uint32_t shard, rows;
    int err;

    add_one(f, "b.example", 5, 1);
    add_one(f, "b.example", 5, 2000);
    last = add_one(f, "c.example", 5, 2000);
    assert_int_equal(queue_visit(f->q, 0, &cursor, &all), 0);
    assert_int_equal(seen.rows, 3);
    assert_int_equal(queue_visit(f->q, 0, &cursor, &all), 1);
    assert_int_equal(seen.rows, 4);
    assert_true(seen.with_message);
    cursor = (struct queue_cursor){0};
    seen.rows = 10;
    assert_int_equal(queue_visit(f->q, 0, &cursor, &lane), 1);
    assert_int_equal(seen.rows, 12);
    cursor = (struct queue_cursor){0};
    one.id = &last;
    assert_int_equal(queue_visit(f->q, 0, &cursor, &one), 0); /* three are passed by */
    assert_int_equal(seen.rows, 12);
    assert_int_equal(queue_visit(f->q, 0, &cursor, &one), 1);
    assert_int_equal(seen.rows, 13);
    shard = 0;
    assert_int_equal(queue_locate(f->q, &last, &shard, &rows), 0);
    assert_int_equal(shard, 0);
    assert_int_equal(rows, 1);
    memset(name, 'a', sizeof(name));
    lane.queue = (struct str){name, sizeof(name)};
    cursor = (struct queue_cursor){0};
    assert_int_equal(queue_visit(f->q, 0, &cursor, &lane), 1);

    m = queue_message(f->q, &id, &err);
    assert_non_null(m);
    assert_true(kit_content_right(m));
    message_unref(m);
    id.bytes[15] ^= 1;
    assert_null(queue_message(f->q, &id, &err));
    assert_int_equal(err, -ENOENT);
}

static bool on_head(void *arg, const struct queue_row_view *row)
{
    struct buf *seen = arg;

    buf_printf(seen, "%.*s:%lld ", STR_FMT(row->queue), (long long)row->due_ms);
    return true;
}

/* Which lanes of a name there are: of each the first fresh row, and the first later one. */
static void test_visit_heads(void **state)
{
    static const char *const names[] = {"a.example", "a.example.org", "b.example"};
    struct kit_queue *f = *state;
    struct buf seen = {0};
    struct queue_visit what = {.heads = true, .rows_max = 100, .visit = on_head, .arg = &seen};

    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        for (int n = 0; n < 3; n++) {
            if (i != 1)
                add_one(f, names[i], 5, 100 + n);
            if (i != 2)
                add_one(f, names[i], 5, 2000 + n);
        }
    for (uint32_t max = 1; max <= 100; max += 99) {
        struct queue_cursor cursor = {0};

        what.queue = STR("");
        what.rows_max = max;
        buf_clear(&seen);
        while (queue_visit(f->q, 0, &cursor, &what) == 0)
            ;
        assert_true(str_eq(buf_str(&seen), STR("a.example:100 b.example:100 a.example:2000 "
                                               "a.example.org:2000 ")));
        cursor = (struct queue_cursor){0};
        what.queue = STR("a.example");
        buf_clear(&seen);
        while (queue_visit(f->q, 0, &cursor, &what) == 0)
            ;
        assert_true(str_eq(buf_str(&seen), STR("a.example:100 a.example:2000 ")));
    }
    buf_done(&seen);
}

static void test_lane_counts(void **state)
{
    struct kit_queue *f = *state;
    bool complete = false;

    for (int i = 0; i < 5; i++)
        add_one(f, "a.example", 5, 1000 + i);
    add_one(f, "b.example", 5, 1000);
    kit_queue_reopen(f);
    add_one(f, "a.example", 5, 1);
    for (unsigned ms = 0; !complete; ms++) {
        assert_true(ms < 5000);
        queue_lane_rows(f->q, 0, 0, STR("a.example"), &complete);
        poll(NULL, 0, 1);
    }
    add_one(f, "a.example", 5, 1);
    assert_int_equal(queue_lane_rows(f->q, 0, 0, STR("a.example"), &complete), 7);
    assert_int_equal(queue_lane_rows(f->q, 0, 0, STR("b.example"), &complete), 1);
    assert_int_equal(queue_lane_rows(f->q, 0, 0, STR("c.example"), &complete), 0);
}

static void test_second_opener(void **state)
{
    struct kit_queue *f = *state;
    const char *error = NULL;
    struct queue *q;

    assert_int_equal(queue_open(&q, &f->options, &error), -EBUSY);
    assert_non_null(error);
    assert_non_null(strstr(error, "stop it"));
}

/* A queue of another build says so, with what to do. The file stays as it is: LMDB commits nothing.
 */
static void test_other_formats(void **state)
{
    static const struct {
        uint32_t version;
        uint64_t needs;
        const char *said;
    } cases[] = {
        {FORMAT_VERSION - 1, 0, "an older version (its format is 2, this version reads 3); drain"},
        {FORMAT_VERSION + 1, 0, "a newer version (its format is 4, this version reads 3); use"},
        {FORMAT_VERSION | FORMAT_DRAFT, 0, "before the first release (a draft of format 3"},
        {FORMAT_VERSION, 7, "a newer version stored what this one does not know (needs 0x6)"},
    };
    struct kit_queue *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct queue_format format = {
            .version = cases[i].version, .shards = 1, .complete = 1, .needs = cases[i].needs};
        const char *error = NULL;
        struct queue *q;

        assert_int_equal(shard_write_format(f->q->shards[0], &format), 0);
        kit_queue_close(f);
        assert_int_equal(queue_open(&q, &f->options, &error), -EPROTO);
        if (strstr(error, cases[i].said) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", error, cases[i].said);
        kit_remove(f->dir);
        kit_queue_open(f);
    }
}

static void test_shards_are_kept(void **state)
{
    struct kit_queue *f = *state;
    const char *error = NULL;
    char from[300], to[300];
    struct queue *q;

    assert_int_equal(queue_shards(f->q), 1);
    kit_queue_close(f);
    kit_remove(f->dir);
    f->options.shards = 3;
    kit_queue_open(f);
    assert_int_equal(queue_shards(f->q), 3);
    f->options.shards = 5;
    kit_queue_reopen(f);
    assert_int_equal(queue_shards(f->q), 3);
    kit_queue_close(f);
    /* A shard that is lost is noticed; one that belongs elsewhere too. */
    snprintf(from, sizeof(from), "%s/shard-001", f->dir);
    snprintf(to, sizeof(to), "%s/elsewhere", f->dir);
    assert_int_equal(rename(from, to), 0);
    assert_true(queue_open(&q, &f->options, &error) < 0);
    assert_non_null(strstr(error, "missing"));
    assert_int_equal(rename(to, from), 0);
    kit_queue_open(f);
}

/* A change that cannot be stored fails alone. */
static void test_bad_change_fails_alone(void **state)
{
    struct kit_queue *f = *state;
    struct kit_change *c[3];
    struct recipient *r[3];
    struct message *m[3];
    char name[QUEUE_NAME_MAX + 2];

    memset(name, 'x', sizeof(name));
    name[QUEUE_NAME_MAX + 1] = 0;
    for (size_t i = 0; i < 3; i++) {
        m[i] = kit_message(500, 1, 5);
        r[i] = kit_recipient(m[i], 0, i == 1 ? name : "a.example", 1000);
        c[i] = kit_change();
        kit_content(c[i], m[i]);
        kit_row(c[i], QUEUE_ROW_ADD, r[i]);
    }
    for (size_t i = 0; i < 3; i++)
        queue_submit(f->port, 0, &c[i]->change);
    for (size_t i = 0; i < 3; i++) {
        kit_wait(f->q, f->port, &c[i]->done);
        assert_int_equal(c[i]->result, i == 1 ? -EINVAL : 0);
        recipient_free(r[i]);
        message_unref(m[i]);
        free(c[i]);
    }
    assert_int_equal(messages(f), 2);
}

static _Atomic unsigned wakes;

static void count_wake(void *arg)
{
    (void)arg;
    wakes++;
}

/* Each port gets its own changes back, and is woken. */
static void test_two_ports(void **state)
{
    struct kit_queue *f = *state;
    struct queue_port *ports[2];
    struct kit_change *c[2][50];
    struct recipient *r[2][50];

    for (size_t p = 0; p < 2; p++)
        assert_int_equal(queue_port_open(&ports[p], f->q, count_wake, NULL), 0);
    for (size_t i = 0; i < 50; i++) {
        for (size_t p = 0; p < 2; p++) {
            struct message *m = kit_message(500, 1, 5);

            r[p][i] = kit_recipient(m, 0, "a.example", 1000);
            c[p][i] = kit_change();
            kit_content(c[p][i], m);
            kit_row(c[p][i], QUEUE_ROW_ADD, r[p][i]);
            message_unref(m);
            queue_submit(ports[p], 0, &c[p][i]->change);
        }
    }
    for (size_t p = 0; p < 2; p++) {
        kit_wait(f->q, ports[p], &c[p][49]->done);
        assert_int_equal(queue_port_pending(ports[p]), 0);
        for (size_t i = 0; i < 50; i++) {
            assert_true(c[p][i]->done);
            assert_int_equal(c[p][i]->result, 0);
            recipient_free(r[p][i]);
            free(c[p][i]);
        }
        queue_port_close(ports[p]);
    }
    assert_true(wakes >= 2);
    assert_int_equal(messages(f), 100);
}

/* A change nobody waits for is committed within the company time. */
static void test_not_urgent(void **state)
{
    struct kit_queue *f = *state;
    struct message *m = kit_message(10, 1, 5);
    struct recipient *r = kit_recipient(m, 0, "a.example", 1000);
    struct kit_change *c = kit_change();

    kit_content(c, m);
    kit_row(c, QUEUE_ROW_ADD, r);
    c->change.urgent = false;
    assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
    recipient_free(r);
    message_unref(m);
}

/* What has ended, in the order in which the port gave it back: c, l, d, w for the kinds. */
struct handed {
    char order[40];
    size_t len;
};

static void hand(struct handed *h, char kind)
{
    assert_true(h->len < sizeof(h->order) - 1);
    h->order[h->len++] = kind;
}

static void on_handed_change(struct queue_change *change, int result)
{
    assert_int_equal(result, 0);
    hand(change->owner, 'c');
}

static void on_handed_load(struct queue_load *load, int result)
{
    assert_int_equal(result, 0);
    hand(load->owner, 'l');
}

static void on_handed_directory(struct queue_directory *d, int result)
{
    assert_int_equal(result, 0);
    queue_directory_done(d);
    hand(d->owner, 'd');
}

static void on_handed_walk(struct queue_walk *walk, int result)
{
    assert_int_equal(result, 0);
    hand(walk->owner, 'w');
}

static bool visit_none(void *arg, const struct queue_row_view *row)
{
    (void)arg, (void)row;
    return false;
}

static bool count_down(void *arg)
{
    return --*(int *)arg > 0;
}

/* A poll runs as much as it may; the rest is the next one's, and none of its kinds waits for all of
 * another. */
static void test_poll_in_parts(void **state)
{
    struct kit_queue *f = *state;
    struct handed h = {.len = 0};
    struct queue_change changes[9];
    struct queue_load loads[3];
    struct queue_directory directories[2];
    struct queue_walk walk = {
        .what = {.visit = visit_none, .rows_max = 1}, .on_done = on_handed_walk, .owner = &h};
    int left;

    kit_queue_close(f);
    f->options.no_threads = true;
    kit_queue_open(f);
    for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
        changes[i] =
            (struct queue_change){.urgent = true, .on_done = on_handed_change, .owner = &h};
        queue_submit(f->port, 0, &changes[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
        loads[i] = (struct queue_load){.queue = STR("a.example"),
                                       .rows_max = 1,
                                       .bytes_max = 1,
                                       .on_done = on_handed_load,
                                       .owner = &h};
        queue_load(f->port, 0, &loads[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(directories); i++) {
        directories[i] =
            (struct queue_directory){.lanes_max = 1, .on_done = on_handed_directory, .owner = &h};
        queue_directory(f->port, 0, &directories[i]);
    }
    queue_walk(f->port, 0, &walk);
    assert_false(queue_port_left(f->port));
    queue_pump(f->q);
    left = 0;
    assert_int_equal(queue_port_poll_while(f->port, count_down, &left), 1); /* one at least */
    assert_true(queue_port_left(f->port));
    left = 4;
    assert_int_equal(queue_port_poll_while(f->port, count_down, &left), 4);
    assert_string_equal(h.order, "cldwc");
    assert_int_equal(queue_port_pending(f->port), 10);
    assert_int_equal(queue_port_poll_while(f->port, NULL, NULL), 10);
    assert_string_equal(h.order, "cldwcldclcccccc");
    assert_false(queue_port_left(f->port));
    assert_int_equal(queue_port_poll(f->port), 0);

    for (size_t i = 0; i < ARRAY_LEN(changes); i++)
        queue_submit(f->port, 0, &changes[i]);
    queue_pump(f->q);
    left = 1;
    h = (struct handed){.len = 0};
    queue_port_poll_while(f->port, count_down, &left);
    assert_int_equal(h.len, 1);
    kit_queue_close(f); /* a port that closes gives back what it has left */
    assert_int_equal(h.len, ARRAY_LEN(changes));
}

/* Each thread of the crew may read, and so may others beside. */
static void test_readers(void **state)
{
    struct kit_queue *f = *state;
    MDB_txn *txns[200];

    for (size_t i = 0; i < ARRAY_LEN(txns); i++)
        assert_int_equal(mdb_txn_begin(shard_at(f->q, 0)->env, NULL, MDB_RDONLY, &txns[i]), 0);
    for (size_t i = 0; i < ARRAY_LEN(txns); i++)
        mdb_txn_abort(txns[i]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, kit_queue_setup, kit_queue_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_stored_and_loaded),
        TEST(test_load_leaves_memory),
        TEST(test_sizes),
        TEST(test_move_and_remove),
        TEST(test_content_goes_with_last_row),
        TEST(test_rows_added_later),
        TEST(test_open_ended_content),
        TEST(test_order_and_cursor),
        TEST(test_flows),
        TEST(test_flow_behind_a_failure),
        TEST(test_flows_are_bounded),
        TEST(test_state),
        TEST(test_exact_and_from),
        TEST(test_directory),
        TEST(test_visit_and_message),
        TEST(test_visit_heads),
        TEST(test_lane_counts),
        TEST(test_second_opener),
        TEST(test_other_formats),
        TEST(test_shards_are_kept),
        TEST(test_bad_change_fails_alone),
        TEST(test_two_ports),
        TEST(test_not_urgent),
        TEST(test_poll_in_parts),
        TEST(test_readers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
