/* Campaigns: orders and recipients, and what a start finds of them wherever they were cut off. One
 * worker, two shards; the disk is copied in the middle, which is what a crash leaves. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>

#include "config/config_load.h"
#include "intake/campaign.h"
#include "outcome/suppress.h"
#include "run/testkit.h"
#include "schedule/lane.h"
#include "tls/digest.h"
#include "worker/warmup_store.h"

#define TURNS_MAX 5000
#define SHARDS    2

static struct {
    struct engine engine;
    struct worker *w;
    struct msgid_source ids;
    char dir[64];
} world;

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void world_open(void)
{
    static const char text[] =
        "host_name: test.example\nlisteners: []\n"
        "dns: {servers: [127.0.0.1:1]}\nroutes: {'*': 'lmtp:unix:/nowhere'}\n";
    struct engine *e = &world.engine;
    struct queue_options options = {.path = world.dir,
                                    .shards = SHARDS,
                                    .map_bytes = 64 << 20,
                                    .no_threads = true,
                                    .no_sync = true};
    struct buf errors = {0};
    const char *why = NULL;

    memset(e, 0, sizeof(*e));
    assert_int_equal(config_load_text("test.yaml", str_of(text), &e->config, &errors), 0);
    world.w = kit_worker_open(e);
    assert_int_equal(queue_open(&e->shared.queue, &options, &why), 0);
    assert_int_equal(suspensions_open(&e->shared.suspensions, e->shared.queue), 0);
    assert_int_equal(campaigns_open(&e->shared.campaigns, e->shared.queue, &e->shared.suspensions),
                     0);
    suppressions_open(&e->shared.suppressions, e->shared.queue);
    assert_int_equal(suppressions_load(&e->shared.suppressions), 0);
    assert_int_equal(warmup_store_open(&e->shared.warmup, e->shared.queue, kit_wake_nobody, NULL),
                     0);
    warmup_configure(&e->shared.warmup, e->config);
    assert_int_equal(worker_start(world.w), 0);
}

static void turn(void)
{
    queue_pump(world.engine.shared.queue);
    assert_int_equal(worker_turn(world.w, 0), 0);
}

static void turns(int n)
{
    for (int i = 0; i < n; i++)
        turn();
}

static void world_close(void)
{
    struct engine *e = &world.engine;

    worker_drain(world.w, true);
    for (int i = 0; i < TURNS_MAX && !worker_drained(world.w); i++)
        turn();
    assert_true(worker_drained(world.w));
    crew_stop(e->shared.crew);
    worker_close(world.w);
    engine_free_shared(e);
}

static void dir_make(void)
{
    strcpy(world.dir, "/tmp/campaigns-test-XXXXXX");
    assert_non_null(mkdtemp(world.dir));
}

static void dir_remove(const char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void world_reopen(void)
{
    world_close();
    world_open();
}

/* The process dies: what is on the disk now is all that a new one finds. */
static void world_crash(void)
{
    char from[64], copy[64] = "/tmp/campaigns-test-XXXXXX", command[200];

    strcpy(from, world.dir);
    assert_non_null(mkdtemp(copy));
    snprintf(command, sizeof(command), "cp -a %s/. %s/", from, copy);
    assert_int_equal(system(command), 0); /* NOLINT: paths of mkdtemp() */
    world_close();
    dir_remove(from);
    strcpy(world.dir, copy);
    world_open();
}

/* --- orders --- */

struct asked {
    struct campaign_order order;
    bool done;
    int result;
};

static void on_ordered(struct campaign_order *order, int result)
{
    struct asked *asked = CONTAINER_OF(order, struct asked, order);

    assert_false(asked->done);
    asked->done = true;
    asked->result = result;
}

static void ask(struct asked *asked)
{
    asked->order.on_done = on_ordered;
    campaign_submit(&world.engine.shared, &asked->order);
    assert_false(asked->done);
}

static int answer(struct asked *asked)
{
    for (int i = 0; i < TURNS_MAX && !asked->done; i++)
        turn();
    assert_true(asked->done);
    message_unref(asked->order.content);
    asked->order.content = NULL;
    return asked->result;
}

static void new_campaign(struct asked *asked, const char *name)
{
    struct campaign *what = &asked->order.what;

    *asked = (struct asked){.order = {.verb = CAMPAIGN_CREATE}};
    what->id = msgid_next(&world.ids, worker_wall_ms(world.w));
    what->priority = 6;
    strcpy(what->name, name);
    strcpy(what->tenant, "acme");
    asked->order.content = campaign_content(
        what, &(struct campaign_letter){.recipe = STR("{\"content\":{\"text_body\":\"Hello\"}}"),
                                        .sender = STR("n@a.example"),
                                        .origin = STR("192.0.2.1")});
    assert_non_null(asked->order.content);
}

static int create(const char *name, struct msgid *id)
{
    struct asked asked;

    new_campaign(&asked, name);
    *id = asked.order.what.id;
    ask(&asked);
    return answer(&asked);
}

static int order_at(enum campaign_verb verb, const struct msgid *id, int64_t starts_ms)
{
    struct asked asked = {.order = {.verb = verb, .what.id = *id, .starts_ms = starts_ms}};

    ask(&asked);
    return answer(&asked);
}

static void until_rows_are(const struct msgid *id, unsigned rows);

static int order(enum campaign_verb verb, const struct msgid *id)
{
    return order_at(verb, id, 0);
}

static enum campaign_state state_of(const struct msgid *id)
{
    struct campaign one;

    return campaigns_get(&world.engine.shared.campaigns, id, &one) ? one.state : 0;
}

static struct queue_tally counts_of(const struct msgid *id)
{
    struct queue_tally counts = {0};

    assert_int_equal(campaign_counts(world.engine.shared.queue, id, &counts), 0);
    return counts;
}

static bool held(const char *name)
{
    char full[80];

    snprintf(full, sizeof(full), "%s@acme", name);
    return suspensions_hold(&world.engine.shared.suspensions, SUSPENSION_CAMPAIGN_TENANT,
                            str_of(full));
}

/* --- recipients --- */

#define MAX 300

struct adding {
    struct campaign_part part;
    struct campaign_rcpt rcpts[MAX];
    char addresses[MAX][40], queues[MAX][40];
    bool done;
    int result;
};

static void on_added(struct campaign_part *part, int result)
{
    struct adding *a = CONTAINER_OF(part, struct adding, part);

    assert_false(a->done);
    a->done = true;
    a->result = result;
}

/* Addresses from..to of chunk key, part number. */
static struct adding *add_begin(const struct msgid *id, const char *key, uint32_t number, int from,
                                int to)
{
    struct adding *a = calloc(1, sizeof(*a));

    assert_non_null(a);
    for (int i = from; i < to; i++) {
        size_t at = a->part.rcpts_len++;

        snprintf(a->queues[at], sizeof(a->queues[at]), "d%d.example", i % 7);
        snprintf(a->addresses[at], sizeof(a->addresses[at]), "user%d@%c%d.example", i,
                 from % 20 == 0 ? 'd' : 'D', i % 7);
        a->rcpts[at] = (struct campaign_rcpt){.address = str_of(a->addresses[at]),
                                              .queue = str_of(a->queues[at]),
                                              .variables = STR("{\"name\":\"Ann\"}"),
                                              .line = (uint32_t)at};
    }
    a->part.campaign = *id;
    a->part.key = str_of(key);
    a->part.number = number;
    a->part.payload[0] = (uint8_t)from;
    a->part.payload[1] = (uint8_t)to;
    a->part.config = world.engine.config;
    a->part.rcpts = a->rcpts;
    a->part.on_done = on_added;
    campaign_part_submit(&world.engine.shared, &a->part);
    return a;
}

static int add_end(struct adding *a, uint32_t added, uint32_t duplicates, bool again)
{
    int result;

    for (int i = 0; i < TURNS_MAX && !a->done; i++)
        turn();
    assert_true(a->done);
    result = a->result;
    if (result == 0) {
        assert_int_equal(a->part.added, added);
        assert_int_equal(a->part.duplicates.count, duplicates);
        assert_int_equal(a->part.again, again);
    }
    free(a);
    return result;
}

static int add(const struct msgid *id, const char *key, int from, int to, uint32_t added,
               uint32_t duplicates, bool again)
{
    return add_end(add_begin(id, key, 0, from, to), added, duplicates, again);
}

/* Each index once. */
struct indexes {
    unsigned rows;
    bool seen[1u << 18]; /* by index */
};

static bool see(void *arg, const struct queue_row_view *row)
{
    struct indexes *all = arg;

    uint32_t place = row->index % CAMPAIGN_RECIPIENTS_MAX; /* those of lists begin there */

    assert_true(place < ARRAY_LEN(all->seen));
    assert_false(all->seen[place]);
    all->seen[place] = true;
    all->rows++;
    assert_int_equal(row->expires_ms > 0, 1);
    return true;
}

static unsigned rows_of(const struct msgid *id)
{
    static struct indexes all;

    memset(&all, 0, sizeof(all));
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        struct queue_visit what = {.id = id, .rows_max = 100000, .visit = see, .arg = &all};
        struct queue_cursor cursor = {0};

        assert_int_equal(queue_visit(world.engine.shared.queue, shard, &cursor, &what), 1);
    }
    return all.rows;
}

static void count_key(void *arg, struct str key)
{
    (void)key;
    ++*(unsigned *)arg;
}

static unsigned states_of(uint8_t kind, int record)
{
    unsigned n = 0;
    char from[2] = {(char)kind, (char)record}, to[2] = {(char)kind, (char)(record + 1)};

    if (record == 0)
        to[0]++;
    for (uint32_t shard = 0; shard < SHARDS; shard++)
        assert_int_equal(queue_state_keys(world.engine.shared.queue, shard,
                                          (struct str){from, record == 0 ? 1 : 2},
                                          (struct str){to, record == 0 ? 1 : 2}, 10000, count_key,
                                          &n),
                         0);
    return n;
}

static uint64_t messages(void)
{
    struct queue_counters c = {0};

    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        struct queue_counters one = {0};

        queue_counters(world.engine.shared.queue, shard, &one);
        queue_counters_add(&c, &one);
    }
    return c.messages;
}

static void on_moved(struct queue_change *change, int result)
{
    assert_int_equal(result, 0);
    *(bool *)change->owner = true;
}

/* A rule moves one of its rows to another pool. */
static bool see_first(void *arg, const struct queue_row_view *row)
{
    struct queue *q = world.engine.shared.queue;
    struct recipient *r = arg;

    r->index = row->index;
    r->due_ms = row->due_ms;
    r->flow = queue_flow_get(q, 6, STR("acme"), STR("summer"), STR("other"))->id;
    r->queue.len = row->queue.len;
    assert_int_equal(row->queue.len, strlen("d0.example"));
    memcpy((char *)(uintptr_t)r->queue.ptr, row->queue.ptr, row->queue.len);
    return false;
}

static void move_one(const struct msgid *id)
{
    struct queue *q = world.engine.shared.queue;
    struct message *m = message_new(&(struct message){.id = *id});
    struct recipient *r = recipient_new(m, 0, STR("d0.example"), STR("a@x"), STR(""), STR(""));
    struct queue_visit what = {.id = id, .rows_max = 1000, .visit = see_first, .arg = r};
    struct campaign one;
    uint32_t shard = 0;
    struct queue_row row = {.kind = QUEUE_ROW_MOVE, .rcpt = r};
    bool done = false;
    struct queue_change change = {
        .rows = &row, .rows_len = 1, .urgent = true, .on_done = on_moved, .owner = &done};

    for (; shard < SHARDS && r->due_ms == 0; shard++)
        (void)queue_visit(q, shard, &(struct queue_cursor){0}, &what);
    assert_true(r->due_ms != 0);
    assert_true(campaigns_get(&world.engine.shared.campaigns, id, &one));
    row.old_due_ms = r->due_ms;
    row.old_flow = queue_flow_get(q, one.priority, STR("acme"), STR("summer"), STR(""))->id;
    queue_submit(world.w->port, shard - 1, &change);
    for (int i = 0; i < TURNS_MAX && !done; i++)
        turn();
    assert_true(done && !row.missing);
    recipient_free(r);
    message_unref(m);
}

/* --- the tests --- */

static void test_recipients(void **state)
{
    struct adding *a, *b;
    struct msgid id, other;

    (void)state;
    assert_int_equal(create("spring", &id), 0);
    assert_int_equal(create("spring", &other), -EEXIST);
    assert_int_equal(state_of(&id), CAMPAIGN_DRAFT);
    assert_int_equal(messages(), SHARDS);
    assert_int_equal(add(&id, "one", 0, 100, 100, 0, false), 0);
    /* The same again adds nobody; another payload is refused; known addresses are duplicates. */
    assert_int_equal(add(&id, "one", 0, 100, 100, 0, true), 0);
    assert_int_equal(add(&id, "one", 0, 101, 0, 0, false), -EEXIST);
    assert_int_equal(add(&id, "two", 90, 110, 10, 10, false), 0);
    assert_int_equal(add(&id, "two", 90, 110, 10, 10, true), 0);
    /* At once. */
    a = add_begin(&id, "three", 0, 100, 300);
    b = add_begin(&id, "three", 0, 100, 300);
    assert_int_equal(add_end(b, 0, 0, false), -EBUSY);
    b = add_begin(&id, "three", 1, 200, 400);
    assert_int_equal(order(CAMPAIGN_START, &id), -EBUSY);
    assert_int_equal(add_end(a, 190, 10, false), 0);
    assert_int_equal(add_end(b, 100, 100, false), 0);
    assert_int_equal(rows_of(&id), 400);
    /* A start reads addresses back. */
    world_reopen();
    assert_true(held("spring"));
    assert_int_equal(add(&id, "two", 90, 110, 10, 10, true), 0);
    assert_int_equal(add(&id, "four", 350, 450, 50, 50, false), 0);
    assert_int_equal(rows_of(&id), 450);
    assert_int_equal(counts_of(&id).counts[TALLY_ADDED], 450);
    assert_int_equal(add(&other, "one", 0, 10, 0, 0, false), -ENOENT);
    turns(50);
    assert_int_equal(rows_of(&id), 450);
    assert_int_equal(atomic_load(&world.w->counters.loaded), 0); /* a draft goes nowhere */
    assert_int_equal(order(CAMPAIGN_CANCEL, &id), 0);
}

/* --- who gets no mail --- */

static void on_suppressed(void *arg, int result)
{
    assert_int_equal(result, 0);
    *(bool *)arg = true;
}

/* Addresses as add() has them, on the list of a tenant or off it. */
static void suppress(const char *tenant, int from, int to, enum suppression_reason reason)
{
    struct suppressions *list = &world.engine.shared.suppressions;
    struct suppress_order *o = suppress_order_new();
    bool done = false;

    for (int i = from; i < to; i++) {
        struct suppression one = {.reason = reason, .at_ms = 1};
        char address[40];

        snprintf(one.tenant, sizeof(one.tenant), "%s", tenant);
        snprintf(address, sizeof(address), "User%d@D%d.example", i, i % 7);
        assert_int_equal(suppression_address(str_of(address), one.address), 0);
        if (reason == 0)
            suppress_order_remove(o, str_of(tenant), one.address);
        else
            suppress_order_put(o, list, &one);
    }
    suppress_submit(&world.engine.shared, o, on_suppressed, &done);
    for (int i = 0; i < TURNS_MAX && !done; i++)
        turn();
    assert_true(done);
}

static void add_suppressed(const struct msgid *id, const char *key, uint32_t added,
                           uint32_t suppressed, bool again)
{
    struct adding *a = add_begin(id, key, 0, 0, 50);

    for (int i = 0; i < TURNS_MAX && !a->done; i++)
        turn();
    assert_int_equal(a->result, 0);
    assert_int_equal(a->part.added, added);
    assert_int_equal(a->part.suppressed.count, suppressed);
    assert_int_equal(a->part.suppressed.told, suppressed);
    assert_int_equal(a->part.duplicates.count, 50 - added - suppressed);
    if (suppressed > 0)
        assert_int_equal(a->part.suppressed.lines[0], 10);
    assert_int_equal(a->part.again, again);
    free(a);
}

/* Who is on the list is not added, and comes in when taken off it; a part that is sent again hears
 * what it heard, over a crash too. */
static void test_suppressed(void **state)
{
    struct msgid id;

    (void)state;
    suppress("acme", 10, 13, SUPPRESSION_UNSUBSCRIBED);
    suppress("", 20, 22, SUPPRESSION_BOUNCE);
    suppress("other", 30, 40, SUPPRESSION_COMPLAINT);
    world_crash();
    assert_int_equal(create("spring", &id), 0);
    add_suppressed(&id, "one", 45, 5, false);
    assert_int_equal(rows_of(&id), 45);
    assert_int_equal(atomic_load(&world.engine.shared.suppressions.stopped), 5);
    suppress("acme", 10, 13, 0);
    world_reopen();
    add_suppressed(&id, "one", 45, 5, true);
    assert_int_equal(rows_of(&id), 45);
    suppress("", 10, 11, SUPPRESSION_MANUAL);
    add_suppressed(&id, "two", 2, 3, false);
    assert_int_equal(rows_of(&id), 47);
}

static void on_state_put(struct queue_change *change, int result)
{
    assert_int_equal(result, 0);
    *(bool *)change->owner = true;
}

static void put_state(uint32_t shard, struct queue_state what)
{
    bool done = false;
    struct queue_change change = {
        .states = &what, .states_len = 1, .on_done = on_state_put, .owner = &done};

    queue_submit(world.w->port, shard, &change);
    for (int i = 0; i < TURNS_MAX && !done; i++)
        turn();
    assert_true(done);
}

static enum suppression_reason reason_of(const char *tenant, const char *address)
{
    struct suppression one;
    int err = suppressions_get(&world.engine.shared.suppressions, str_of(tenant), address, &one);

    return err == 0 ? one.reason : 0;
}

/* Of two orders at once, each made when there was nothing, the stricter one stays, whichever
 * commits last. What the engine found out itself goes from the shard that has it. */
static void test_suppressed_at_once(void **state)
{
    static const enum suppression_reason orders[][2] = {
        {SUPPRESSION_COMPLAINT, SUPPRESSION_UNSUBSCRIBED},
        {SUPPRESSION_UNSUBSCRIBED, SUPPRESSION_COMPLAINT}};
    struct suppressions *list = &world.engine.shared.suppressions;
    struct suppress_found found = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(orders); i++) {
        struct suppress_order *order[2];
        struct suppression one = {.at_ms = 1};
        bool done[2] = {false, false};

        snprintf(one.address, sizeof(one.address), "user%zu@d.example", i);
        for (size_t k = 0; k < 2; k++) {
            order[k] = suppress_order_new();
            one.reason = orders[i][k];
            assert_int_equal(suppress_is_news(list, &one), 1);
            suppress_order_put(order[k], list, &one);
        }
        for (size_t k = 0; k < 2; k++)
            suppress_submit(&world.engine.shared, order[k], on_suppressed, &done[k]);
        for (int n = 0; n < TURNS_MAX && !(done[0] && done[1]); n++)
            turn();
        assert_true(done[0] && done[1]);
        assert_int_equal(reason_of("", one.address), SUPPRESSION_COMPLAINT);
    }
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        struct recipient r = {.message = &(struct message){.tenant = STR("acme")},
                              .address = STR("User3@D3.example")};
        struct queue_state what;

        suppress_found(&found, list, &r, &(struct smtp_reply){.code = 550}, "mx.example", 1, &what);
        put_state(shard, what);
        suppress_found_done(&found);
    }
    assert_int_equal(reason_of("acme", "user3@d3.example"), SUPPRESSION_BOUNCE);
    suppress("acme", 3, 4, 0);
    assert_int_equal(reason_of("acme", "user3@d3.example"), 0);
}

static void test_life(void **state)
{
    struct queue *q = world.engine.shared.queue;
    struct msgid id, second;
    struct message *m;
    struct campaign one;
    int err;

    (void)state;
    assert_int_equal(create("summer", &id), 0);
    assert_int_equal(add(&id, "one", 0, 50, 50, 0, false), 0);
    assert_int_equal(order(CAMPAIGN_PAUSE, &id), -EINVAL);
    assert_int_equal(order(CAMPAIGN_RESUME, &id), -EINVAL);
    assert_int_equal(order(CAMPAIGN_FORGET, &id), -EINVAL);
    assert_true(states_of(STATE_CAMPAIGN, CAMPAIGN_RECORD_HASHES) > 0);
    assert_int_equal(order_at(CAMPAIGN_START, &id, worker_wall_ms(world.w) + 3600000), 0);
    assert_true(held("summer"));
    assert_int_equal(states_of(STATE_CAMPAIGN, CAMPAIGN_RECORD_HASHES), 0);
    assert_false(counts_of(&id).pinned);
    assert_int_equal(add(&id, "two", 0, 1, 0, 0, false), -EINVAL);
    assert_true(campaigns_get(&world.engine.shared.campaigns, &id, &one));
    m = queue_message(q, &id, &err);
    assert_non_null(m);
    assert_int_equal(m->created_ms, one.starts_ms); /* lifetimes begin with it */
    message_unref(m);
    assert_int_equal(order(CAMPAIGN_PAUSE, &id), 0);
    assert_int_equal(order(CAMPAIGN_RESUME, &id), 0);
    assert_true(held("summer")); /* until its time */
    world_reopen();
    assert_true(held("summer"));
    assert_int_equal(state_of(&id), CAMPAIGN_RUNNING);
    assert_int_equal(rows_of(&id), 50);
    move_one(&id);
    assert_int_equal(rows_of(&id), 50);
    assert_int_equal(order(CAMPAIGN_CANCEL, &id), 0);
    for (int i = 0; i < TURNS_MAX && (rows_of(&id) > 0 || held("summer")); i++)
        turn();
    assert_int_equal(rows_of(&id), 0);
    assert_false(held("summer"));
    assert_int_equal(counts_of(&id).counts[TALLY_CANCELLED], 50);
    assert_int_equal(messages(), 0);
    /* Its name is free, and it can be forgotten. */
    assert_int_equal(create("summer", &second), 0);
    assert_int_equal(order(CAMPAIGN_FORGET, &id), 0);
    assert_int_equal(state_of(&id), 0);
    assert_int_equal(order(CAMPAIGN_CANCEL, &second), 0);
    for (int i = 0; i < TURNS_MAX && held("summer"); i++)
        turn();
    assert_int_equal(order(CAMPAIGN_FORGET, &second), 0);
    assert_int_equal(states_of(STATE_CAMPAIGN, 0), 0);
    assert_int_equal(states_of(STATE_TALLY, 0), 0);
    assert_int_equal(states_of(STATE_SHEET, 0), 0);
}

/* One that runs is loaded and tried. */
static void test_runs(void **state)
{
    struct msgid id;

    (void)state;
    assert_int_equal(create("autumn", &id), 0);
    assert_int_equal(add(&id, "one", 0, 50, 50, 0, false), 0);
    assert_int_equal(order(CAMPAIGN_START, &id), 0);
    assert_false(held("autumn"));
    for (int i = 0; i < TURNS_MAX && atomic_load(&world.w->counters.loaded) == 0; i++) {
        turn();
        usleep(1000); /* lanes wait a moment for what may still be on its way */
    }
    assert_true(atomic_load(&world.w->counters.loaded) > 0);
    assert_int_equal(order(CAMPAIGN_PAUSE, &id), 0);
    assert_true(held("autumn"));
    world_reopen();
    assert_true(held("autumn"));
    assert_int_equal(order(CAMPAIGN_RESUME, &id), 0);
    assert_false(held("autumn"));
    world_reopen();
    assert_false(held("autumn"));
    assert_int_equal(rows_of(&id), 50);
}

static bool content_is_sound(const struct msgid *id)
{
    int err;
    struct message *m = queue_message(world.engine.shared.queue, id, &err);

    message_unref(m);
    return m != NULL;
}

/* When lifetimes of its mail began, or will. */
static int64_t began_ms(const struct msgid *id)
{
    int err;
    struct message *m = queue_message(world.engine.shared.queue, id, &err);
    int64_t ms;

    assert_non_null(m);
    ms = m->created_ms;
    message_unref(m);
    return ms;
}

/* One that stays open takes more recipients while it runs, over restarts; an address that it has or
 * had gets no second letter. Closed, it is as any other. */
static void test_open(void **state)
{
    struct asked asked = {.order = {.verb = CAMPAIGN_START, .open = true}};
    struct campaign one;
    struct msgid id;

    (void)state;
    assert_int_equal(create("spring", &id), 0);
    assert_int_equal(add(&id, "one", 0, 50, 50, 0, false), 0);
    assert_int_equal(order(CAMPAIGN_CLOSE, &id), -EINVAL);
    asked.order.what.id = id;
    ask(&asked);
    assert_int_equal(answer(&asked), 0);
    assert_true(campaigns_get(&world.engine.shared.campaigns, &id, &one));
    assert_true(one.open && began_ms(&id) == one.starts_ms && !held("spring"));
    assert_int_equal(add(&id, "two", 40, 60, 10, 10, false), 0);
    world_reopen();
    turns(50);
    assert_false(held("spring"));
    assert_int_equal(add(&id, "one", 0, 50, 50, 0, true), 0);
    assert_int_equal(order(CAMPAIGN_PAUSE, &id), 0);
    assert_int_equal(add(&id, "three", 55, 70, 10, 5, false), 0);
    assert_int_equal(rows_of(&id), 70);
    assert_true(counts_of(&id).pinned);
    assert_int_equal(order(CAMPAIGN_CLOSE, &id), 0);
    assert_false(counts_of(&id).pinned);
    assert_int_equal(states_of(STATE_CAMPAIGN, CAMPAIGN_RECORD_HASHES), 0);
    assert_int_equal(order(CAMPAIGN_CLOSE, &id), -EINVAL);
    assert_int_equal(add(&id, "four", 70, 80, 0, 0, false), -EINVAL);
    assert_int_equal(began_ms(&id), one.starts_ms);
    assert_int_equal(order(CAMPAIGN_CANCEL, &id), 0);
    until_rows_are(&id, 0);
}

/* Crashes n turns after an order. Whatever was done of it is undone by the next start, or done in
 * whole. */
static void crash_in(enum campaign_verb verb, int n)
{
    struct asked asked = {.order = {.verb = verb}};
    struct queue_tally counts;
    struct msgid id;
    char name[20];
    enum campaign_state now;

    snprintf(name, sizeof(name), "c%d-%d", (int)verb, n);
    if (verb == CAMPAIGN_CREATE) {
        new_campaign(&asked, name);
        id = asked.order.what.id;
    } else {
        assert_int_equal(create(name, &id), 0);
        assert_int_equal(add(&id, "one", 0, 60, 60, 0, false), 0);
        asked.order.what.id = id;
        asked.order.starts_ms = worker_wall_ms(world.w) + 3600000;
        asked.order.open = n % 2 == 1;
    }
    ask(&asked);
    turns(n);
    world_crash();
    (void)answer(&asked); /* by the close */
    turns(30);
    now = state_of(&id);
    if (verb == CAMPAIGN_CREATE) {
        assert_int_equal(held(name), now == CAMPAIGN_DRAFT);
        assert_int_equal(content_is_sound(&id), now == CAMPAIGN_DRAFT);
        if (now == 0) /* nothing of it is left */
            assert_int_equal(campaign_counts(world.engine.shared.queue, &id, &counts), -ENOENT);
        else
            assert_int_equal(add(&id, "one", 0, 60, 60, 0, false), 0);
        return;
    }
    if (verb == CAMPAIGN_START) {
        assert_true(now == CAMPAIGN_DRAFT || now == CAMPAIGN_RUNNING);
        assert_int_equal(counts_of(&id).pinned, now == CAMPAIGN_DRAFT || n % 2 == 1);
        assert_int_equal(began_ms(&id) > worker_wall_ms(world.w), now == CAMPAIGN_RUNNING);
        assert_int_equal(rows_of(&id), 60);
        assert_true(held(name));
        return;
    }
    for (int i = 0; i < TURNS_MAX && now == CAMPAIGN_CANCELLED && held(name); i++)
        turn();
    assert_true(now == CAMPAIGN_DRAFT || now == CAMPAIGN_CANCELLED);
    assert_int_equal(rows_of(&id), now == CAMPAIGN_DRAFT ? 60 : 0);
    assert_int_equal(held(name), now == CAMPAIGN_DRAFT);
}

static void until_rows_are(const struct msgid *id, unsigned rows)
{
    for (int i = 0; i < 10 * TURNS_MAX && rows_of(id) != rows; i++) {
        turn();
        usleep(1000);
    }
    assert_int_equal(rows_of(id), rows);
}

/* The name of a cancelled campaign is free when the look for its rows has ended, which resumes the
 * name: another draft of that name must not go out by it. */
static void test_name_again(void **state)
{
    int err = -EEXIST;
    struct msgid id, second;

    (void)state;
    for (int rows = 0; rows < 50; rows += 49) {
        assert_int_equal(create("winter", &id), 0);
        if (rows > 0)
            assert_int_equal(add(&id, "one", 0, rows, (uint32_t)rows, 0, false), 0);
        assert_int_equal(order(CAMPAIGN_CANCEL, &id), 0);
        for (int i = 0; i < TURNS_MAX && (err = create("winter", &second)) == -EEXIST; i++)
            assert_int_equal(state_of(&second), 0);
        assert_int_equal(err, 0);
        assert_int_equal(add(&second, "one", 0, 20, 20, 0, false), 0);
        turns(200);
        assert_true(held("winter"));
        assert_int_equal(rows_of(&second), 20);
        assert_int_equal(order(CAMPAIGN_CANCEL, &second), 0);
        for (int i = 0; i < TURNS_MAX && held("winter"); i++)
            turn();
    }
}

static int create_by_upload(const char *name, const char *tenant, uint8_t key, struct msgid *id)
{
    struct asked asked;

    new_campaign(&asked, name);
    strcpy(asked.order.what.tenant, tenant);
    asked.order.what.upload_key[0] = key;
    *id = asked.order.what.id;
    ask(&asked);
    return answer(&asked);
}

/* An upload that came twice at once, so that neither knew of the other when it asked for it, makes
 * one campaign, also when that was over before the other one's turn. */
static void test_same_upload(void **state)
{
    struct msgid id, other;

    (void)state;
    assert_int_equal(create_by_upload("first", "acme", 1, &id), 0);
    assert_int_equal(create_by_upload("second", "acme", 1, &other), -EEXIST);
    assert_int_equal(create_by_upload("second", "acme", 2, &other), 0);
    assert_int_equal(create_by_upload("first", "nobody", 1, &other), 0);
    assert_int_equal(order(CAMPAIGN_START, &id), 0);
    assert_int_equal(order(CAMPAIGN_PAUSE, &id), -EINVAL); /* it is over */
    assert_int_equal(create("first", &other), 0);
    assert_int_equal(create_by_upload("third", "acme", 1, &other), -EEXIST);
}

static const struct queue_flow *sent_as(const char *campaign, uint8_t priority, const char *pool)
{
    struct shared *all = &world.engine.shared;
    const struct queue_flow *flow =
        queue_flow_get(all->queue, priority, STR("acme"), str_of(campaign), str_of(pool));
    uint32_t version;

    return campaigns_names(&all->campaigns, all->queue, flow, &version);
}

/* What is set holds for all mail that was the campaign's as it was made, until it is taken back;
 * another campaign of the name has nothing of it. */
static void test_set(void **state)
{
    struct asked asked = {
        .order = {.verb = CAMPAIGN_SET, .sets_priority = true, .sets_pool = true}};
    struct msgid id, second;
    struct campaign one;

    (void)state;
    assert_int_equal(create("autumn", &id), 0);
    assert_int_equal(add(&id, "one", 0, 10, 10, 0, false), 0);
    assert_int_equal(sent_as("autumn", 6, "")->priority, 6);
    asked.order.what.id = id;
    asked.order.set = (struct campaign_set){.priority = 1 + 2, .pool = "fast"};
    ask(&asked);
    assert_int_equal(answer(&asked), 0);
    for (int reopened = 0; reopened < 2; reopened++) {
        assert_int_equal(sent_as("autumn", 6, "")->priority, 2);
        assert_true(str_eq(sent_as("autumn", 6, "")->pool, STR("fast")));
        /* A rule moved it, or it had another priority. */
        assert_true(str_eq(sent_as("autumn", 6, "slow")->pool, STR("slow")));
        assert_int_equal(sent_as("autumn", 7, "")->priority, 7);
        assert_int_equal(sent_as("winter", 6, "")->priority, 6);
        assert_true(campaigns_get(&world.engine.shared.campaigns, &id, &one));
        assert_int_equal(one.priority, 6);
        world_reopen();
    }
    asked = (struct asked){.order = {.verb = CAMPAIGN_SET, .what.id = id, .sets_rate = true}};
    assert_int_equal(campaign_set_rate(&asked.order, STR("0/s")), -EINVAL);
    assert_int_equal(campaign_set_rate(&asked.order, STR("90/min")), 0);
    ask(&asked);
    assert_int_equal(answer(&asked), 0);
    asked = (struct asked){.order = {.verb = CAMPAIGN_SET,
                                     .what.id = id,
                                     .set.priority = 1 + 6,
                                     .sets_priority = true,
                                     .sets_pool = true}};
    ask(&asked);
    assert_int_equal(answer(&asked), 0);
    world_reopen();
    assert_int_equal(sent_as("autumn", 6, "")->priority, 6);
    assert_true(
        campaigns_find_set(&world.engine.shared.campaigns, STR("acme"), STR("autumn"), &one));
    assert_true(one.set.rate == 90 && one.set.rate_period_ms == 60000 && !one.set.has_pool);
    assert_int_equal(order(CAMPAIGN_CANCEL, &id), 0);
    until_rows_are(&id, 0);
    for (int i = 0; i < TURNS_MAX && held("autumn"); i++)
        turn();
    assert_int_equal(order(CAMPAIGN_SET, &id), -EINVAL);
    assert_int_equal(create("autumn", &second), 0);
    assert_false(
        campaigns_find_set(&world.engine.shared.campaigns, STR("acme"), STR("autumn"), &one));
}

/* There is no room for the flow that a setting asks for: the mail keeps its own, by whose names it
 * is paused. */
static void test_set_without_room(void **state)
{
    struct campaigns *all = &world.engine.shared.campaigns;
    struct campaign one = {.name = "autumn", .tenant = "acme", .state = CAMPAIGN_RUNNING};
    const struct queue_flow *flow;
    char name[20];

    (void)state;
    one.priority = 6;
    flow = sent_as("autumn", 6, "");
    for (uint32_t i = 0; i < FLOWS_MAX / 2; i++) {
        snprintf(name, sizeof(name), "c%u", i);
        assert_non_null(
            queue_flow_get(world.engine.shared.queue, 6, STR("acme"), str_of(name), STR("")));
    }
    one.set.priority = 1 + 2;
    assert_int_equal(campaigns_put(all, &one), 0);
    assert_ptr_equal(sent_as("autumn", 6, ""), flow);
    campaigns_remove(all, &one.id);
}

/* A record as an earlier build wrote it, and what is cut of one. */
static void test_record(void **state)
{
    struct campaign one = {.name = "n", .state = CAMPAIGN_RUNNING, .priority = 3}, read;
    uint8_t key[CAMPAIGN_KEY_BYTES];
    struct buf value = {0};
    size_t before;

    (void)state;
    campaign_key(key, CAMPAIGN_RECORD_CAMPAIGN, &one.id);
    campaign_encode(&value, &one);
    before = value.len;
    buf_clear(&value);
    one.expires_ms = 77;
    one.open = true;
    one.upload_key[0] = one.upload_body[7] = 9;
    one.set =
        (struct campaign_set){.has_pool = true, .pool = "p", .rate = 5, .rate_period_ms = 1000};
    campaign_encode(&value, &one);
    for (size_t len = 0; len <= value.len; len++) {
        int err = campaign_decode((struct str){(char *)key, sizeof(key)},
                                  (struct str){(char *)value.data, len}, &read);

        assert_int_equal(err, len == before || len >= value.len - 25 ? 0 : -EBADMSG);
        if (err == 0) {
            assert_int_equal(read.set.rate, len == before ? 0 : 5);
            assert_int_equal(read.expires_ms, len >= value.len - 17 && len != before ? 77 : 0);
            assert_int_equal(read.upload_body[7], len >= value.len - 1 ? 9 : 0);
            assert_int_equal(read.open, len == value.len);
        }
    }
    buf_puts(&value, "more");
    assert_int_equal(
        campaign_decode((struct str){(char *)key, sizeof(key)}, buf_str(&value), &read), 0);
    assert_string_equal(read.set.pool, "p");
    buf_done(&value);
}

/* Campaigns that only the table knows, in place of so many that are stored. */
static void fill_places(const char *tenant, uint32_t from, uint32_t to, bool over)
{
    struct campaigns *all = &world.engine.shared.campaigns;

    for (uint32_t i = from; i < to; i++) {
        struct campaign one = {.state = CAMPAIGN_DRAFT, .created_ms = 1};

        memcpy(one.id.bytes, &i, sizeof(i));
        one.id.bytes[15] = 0xee;
        snprintf(one.name, sizeof(one.name), "filler-%u", i);
        strcpy(one.tenant, tenant);
        assert_int_equal(campaigns_put(all, &one), 0);
        campaigns_entry(all, &one.id)->over = over;
    }
}

/* A tenant has at most as many places as are left for others; what is over takes none. */
static void test_places(void **state)
{
    struct campaigns *all = &world.engine.shared.campaigns;
    struct campaign one;
    struct asked asked;
    struct msgid id;

    (void)state;
    fill_places("other", 0, 100, false);
    fill_places("acme", 100, 5049, false);
    assert_int_equal(create("last", &id), 0);
    assert_int_equal(create("more", &id), -EDQUOT);
    new_campaign(&asked, "newcomer");
    strcpy(asked.order.what.tenant, "third");
    ask(&asked);
    assert_int_equal(answer(&asked), 0);
    fill_places("acme", 100, 110, true);
    assert_int_equal(create("more", &id), 0);
    for (uint32_t i = 0; i < 5049; i++) {
        memset(&one, 0, sizeof(one));
        memcpy(one.id.bytes, &i, sizeof(i));
        one.id.bytes[15] = 0xee;
        campaigns_remove(all, &one.id);
    }
}

static void on_put(struct queue_change *change, int result)
{
    assert_int_equal(result, 0);
    *(bool *)change->owner = true;
}

static void submit(uint32_t shard, struct queue_change *change)
{
    bool done = false;

    change->urgent = true;
    change->on_done = on_put;
    change->owner = &done;
    queue_submit(world.w->port, shard, change);
    for (int i = 0; i < TURNS_MAX && !done; i++)
        turn();
    assert_true(done);
}

/* Other mail, of a campaign that an operator suspended, for many domains. */
static void put_old_mail(uint32_t shard, int64_t ms, struct msgid *id)
{
    uint32_t flow =
        queue_flow_get(world.engine.shared.queue, 5, STR("acme"), STR("old"), STR(""))->id;
    struct message fields = {
        .created_ms = ms, .recipients = 7, .flow = flow, .content_len = strlen("x\r\n")};
    struct queue_row rows[7];
    struct queue_change change = {.rows = rows, .rows_len = 7, .messages_len = 1};
    struct message *m;

    fields.id = *id = msgid_next(&world.ids, ms);
    fields.content = (uint8_t *)strdup("x\r\n");
    m = message_new(&fields);
    change.messages = &m;
    for (uint32_t i = 0; i < 7; i++) {
        char queue[20];
        struct recipient *r;

        snprintf(queue, sizeof(queue), "e%u.example", i);
        r = recipient_new(m, i, str_of(queue), STR("a@e.example"), STR(""), STR(""));
        r->due_ms = ms;
        r->lifetime_s = 60;
        rows[i] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = r};
    }
    submit(shard, &change);
    for (uint32_t i = 0; i < 7; i++)
        recipient_free(rows[i].rcpt);
    message_unref(m);
}

/* Lifetimes of a draft have not begun, and what a pause outlives ends behind it, also where the
 * mail of so many other lanes is over that all rows are looked at. */
static void test_lifetimes(void **state)
{
    struct suspension old = {.scope = SUSPENSION_CAMPAIGN, .name = "old"};
    int64_t ms = worker_wall_ms(world.w) - INT64_C(30) * 86400000;
    struct msgid id, others[SHARDS];
    struct asked asked;

    (void)state;
    new_campaign(&asked, "slow");
    message_unref(asked.order.content);
    id = asked.order.what.id = msgid_next(&world.ids, ms);
    asked.order.content = campaign_content(
        &asked.order.what,
        &(struct campaign_letter){.recipe = STR("{\"content\":{\"text_body\":\"Hello\"}}")});
    ask(&asked);
    assert_int_equal(answer(&asked), 0);
    assert_int_equal(add(&id, "one", 0, 50, 50, 0, false), 0);
    assert_int_equal(add(&id, "two", 100, 150, 50, 0, false), 0);
    assert_int_equal(add(&id, "three", 200, 250, 50, 0, false), 0);
    for (uint32_t shard = 0; shard < SHARDS; shard++)
        put_old_mail(shard, ms, &others[shard]);
    world_reopen();
    assert_int_equal(suspensions_put(&world.engine.shared.suspensions, &old), 0);
    for (uint32_t shard = 0; shard < SHARDS; shard++)
        until_rows_are(&others[shard], 0);
    for (int i = 0; i < 500; i++) { /* the pass goes on */
        turn();
        usleep(1000);
    }
    assert_int_equal(rows_of(&id), 150);
    assert_int_equal(counts_of(&id).counts[TALLY_EXPIRED], 0);
}

/* What is left of a campaign ends at its time; what a pause outlives, behind it. It does not begin
 * at that time or later. */
static void test_expires(void **state)
{
    struct asked asked;
    int64_t ends_ms;
    struct msgid id;

    (void)state;
    new_campaign(&asked, "sale");
    message_unref(asked.order.content);
    id = asked.order.what.id;
    ends_ms = asked.order.what.expires_ms = worker_wall_ms(world.w) + 700;
    asked.order.content = campaign_content(
        &asked.order.what,
        &(struct campaign_letter){.recipe = STR("{\"content\":{\"text_body\":\"Hello\"}}")});
    ask(&asked);
    assert_int_equal(answer(&asked), 0);
    assert_int_equal(add(&id, "one", 0, 50, 50, 0, false), 0);
    assert_int_equal(order_at(CAMPAIGN_START, &id, ends_ms), -ERANGE);
    assert_int_equal(order(CAMPAIGN_START, &id), 0);
    assert_int_equal(order(CAMPAIGN_PAUSE, &id), 0);
    world_reopen();
    while (worker_wall_ms(world.w) <= ends_ms) {
        turn();
        usleep(1000);
    }
    assert_int_equal(rows_of(&id), 50);
    assert_int_equal(order(CAMPAIGN_RESUME, &id), 0);
    until_rows_are(&id, 0);
    assert_int_equal(counts_of(&id).counts[TALLY_EXPIRED], 50);
}

/* A damaged tally costs counts, and neither mail nor the start. */
static void test_damaged_tally(void **state)
{
    struct msgid draft, running;
    uint8_t key[TALLY_KEY_BYTES];
    struct queue_state damage = {.key = {(char *)key, sizeof(key)}, .value = STR("?")};
    struct queue_tally counts;

    (void)state;
    assert_int_equal(create("monday", &draft), 0);
    assert_int_equal(add(&draft, "one", 0, 50, 50, 0, false), 0);
    assert_int_equal(create("tuesday", &running), 0);
    assert_int_equal(add(&running, "one", 0, 50, 50, 0, false), 0);
    assert_int_equal(order(CAMPAIGN_START, &running), 0);
    for (uint32_t shard = 0; shard < SHARDS; shard++) {
        struct queue_change change = {.states = &damage, .states_len = 1};

        queue_tally_key(key, &draft);
        submit(shard, &change);
        change = (struct queue_change){.states = &damage, .states_len = 1};
        queue_tally_key(key, &running);
        submit(shard, &change);
    }
    world_reopen();
    turns(50);
    assert_int_equal(campaign_counts(world.engine.shared.queue, &draft, &counts), 0);
    assert_int_equal(counts.counts[TALLY_ADDED], 0);
    assert_true(held("monday"));
    assert_false(held("tuesday"));
    assert_int_equal(rows_of(&draft) + rows_of(&running), 100);
    assert_int_equal(order(CAMPAIGN_CANCEL, &running), 0);
    until_rows_are(&running, 0);
    assert_int_equal(state_of(&draft), CAMPAIGN_DRAFT);
}

/* A start that fails behind campaigns has nothing of theirs under way. */
static void test_start_is_quiet(void **state)
{
    struct asked asked = {.order = {.verb = CAMPAIGN_CANCEL}};
    struct msgid id;

    (void)state;
    assert_int_equal(create("friday", &id), 0);
    assert_int_equal(add(&id, "one", 0, 50, 50, 0, false), 0);
    world_reopen();
    asked.order.what.id = id;
    ask(&asked);
    for (int i = 0; i < TURNS_MAX && state_of(&id) != CAMPAIGN_CANCELLED; i++)
        turn();
    world_crash();
    (void)answer(&asked);                                        /* by the close */
    assert_int_equal(queue_port_pending(world.w->port), SHARDS); /* their directories */
    until_rows_are(&id, 0);
}

static void test_crashes(void **state)
{
    (void)state;
    for (int n = 0; n < 14; n++) {
        crash_in(CAMPAIGN_CREATE, n);
        crash_in(CAMPAIGN_START, n);
        crash_in(CAMPAIGN_CANCEL, n);
    }
}

static int setup(void **state)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    msgid_source_init(&world.ids, 1);
    dir_make();
    world_open();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_close();
    dir_remove(world.dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_recipients, setup, teardown),
        cmocka_unit_test_setup_teardown(test_suppressed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_suppressed_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open, setup, teardown),
        cmocka_unit_test_setup_teardown(test_places, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set_without_room, setup, teardown),
        cmocka_unit_test(test_record),
        cmocka_unit_test_setup_teardown(test_name_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_upload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lifetimes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expires, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_tally, setup, teardown),
        cmocka_unit_test_setup_teardown(test_start_is_quiet, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crashes, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
