/* Many lanes: what concerns all of them takes many turns, none of which visits more than some; and
 * however lanes join, leave and ask meanwhile, none is forgotten. The work of a turn is counted,
 * since the time depends on the machine. */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "config/config_load.h"
#include "control/backend_wait.h"
#include "deliver/sessions.h"
#include "intake/accept.h"
#include "outcome/suspend.h"
#include "run/testkit.h"
#include "schedule/channel.h"
#include "schedule/lane_find.h"
#include "schedule/lane_private.h"
#include "schedule/settle.h"
#include "worker/sts_lookup.h"
#include "worker/warmup_store.h"

#define LANES 20000
/* A turn may do a part of each walk there is, and take in what it settled in the one before: 6,500
 * on an idle machine. Where turns are slow more walks fall due in one. */
#define LANES_OF_TURN 12000
#define TURNS_MAX     2000

/* A socket needs no lookup. Nobody listens there. */
#define TEXT(socket)                                                                               \
    "host_name: test.example\nlisteners: []\ndns: {servers: [127.0.0.1:1]}\n"                      \
    "routes: {'*.a.example': 'lmtp:unix:/nowhere/" socket "', '*': 'lmtp:unix:/nowhere/b'}\n"

static struct {
    struct engine engine;
    struct worker *w;
    struct msgid_source ids;
    struct rng rng;
} world;

static struct config *config_of(const char *text)
{
    struct buf errors = {0};
    struct config *c;

    assert_int_equal(config_load_text("test.yaml", str_of(text), &c, &errors), 0);
    return c;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

static void queue_ready(struct queue **q)
{
    char dir[] = "/tmp/lanes-test-XXXXXX";
    struct queue_options options = {
        .path = dir, .shards = 1, .map_bytes = 64 << 20, .no_threads = true, .no_sync = true};
    const char *why = NULL;

    assert_non_null(mkdtemp(dir));
    assert_int_equal(queue_open(q, &options, &why), 0);
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void world_open(void)
{
    struct engine *e = &world.engine;

    memset(&world, 0, sizeof(world));
    e->config = config_of(TEXT("a"));
    world.w = kit_worker_open(e);
    queue_ready(&e->shared.queue);
    assert_int_equal(suspensions_open(&e->shared.suspensions, e->shared.queue), 0);
    assert_int_equal(sts_table_open(&e->shared.sts, e->shared.queue), 0);
    assert_int_equal(campaigns_open(&e->shared.campaigns, e->shared.queue, &e->shared.suspensions),
                     0);
    assert_int_equal(warmup_store_open(&e->shared.warmup, e->shared.queue, kit_wake_nobody, NULL),
                     0);
    warmup_configure(&e->shared.warmup, e->config);
    assert_int_equal(worker_start(world.w), 0);
    msgid_source_init(&world.ids, 1);
}

static void turn(void)
{
    queue_pump(world.engine.shared.queue);
    assert_int_equal(worker_turn(world.w, 0), 0);
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

static struct recipient *recipient_of(uint32_t number, int64_t created_ms)
{
    char queue[32], address[40];
    struct message *m;
    struct recipient *r;

    snprintf(queue, sizeof(queue), "l%u.%c.example", number, number % 2 == 0 ? 'a' : 'b');
    snprintf(address, sizeof(address), "user@%s", queue);
    m = message_new(&(struct message){.id = msgid_next(&world.ids, created_ms),
                                      .created_ms = created_ms,
                                      .born_ms = io_now_ms(world.w->io) + 1,
                                      .recipients = 1});
    assert_non_null(m);
    r = recipient_new(m, 0, str_of(queue), str_of(address), STR(""), STR(""));
    assert_non_null(r);
    message_unref(m);
    r->lifetime_s = 86400;
    return r;
}

static struct lane *lane_of(uint32_t number)
{
    char name[32];

    snprintf(name, sizeof(name), "l%u.%c.example", number, number % 2 == 0 ? 'a' : 'b');
    return lane_get(world.w, 0, 0, str_of(name));
}

static void arrive(uint32_t number)
{
    lane_arrive(world.w, 0, recipient_of(number, worker_wall_ms(world.w)));
}

static void counts_reset(void)
{
    world.w->turn.lanes = 0;
    atomic_store(&world.w->turn.shared.lanes_max, 0);
}

static void check_counts(const char *what)
{
    uint32_t most = atomic_load(&world.w->turn.shared.lanes_max);

    print_message("%s: %u lanes in the longest turn\n", what, most);
    assert_in_range(most, 1, LANES_OF_TURN);
}

/* Turns until nothing is left to be walked over. */
static void settle_down(const char *what)
{
    int turns = 0;

    counts_reset();
    do {
        turn();
        assert_in_range(++turns, 1, TURNS_MAX);
    } while (!list_empty(&world.w->supply_walks) || !list_empty(&world.w->suspension_walks) ||
             world.w->renewing);
    for (int i = 0; i < 5; i++) /* what was put into the last one's settles */
        turn();
    check_counts(what);
}

static struct channel *channel_of(struct supply *s)
{
    return seat_channel(&s->seats[0]);
}

static void fail_site(struct supply *s)
{
    struct channel *c = channel_of(s);
    struct outcome outcome = {.class = OUTCOME_DEFERRED,
                              .stage = SMTP_STAGE_CONNECT,
                              .local = true,
                              .reply = {.code = 451, .enhanced = {4, 4, 1}}};

    sessions_space_out(c);
    sessions_give_up(c, &outcome, &s->site->exchangers.list[0]);
}

static void arrive_all(void)
{
    for (uint32_t i = 0; i < LANES; i++)
        arrive(i);
}

static void on_walked(struct suspension_walk *walk)
{
    (void)walk;
}

static void source_suspend(const struct supply *s, bool suspend)
{
    struct suspension one = {.scope = SUSPENSION_SOURCE};

    snprintf(one.name, sizeof(one.name), "%s", s->seats[0].source->name);
    if (suspend)
        assert_int_equal(suspensions_put(&world.w->shared->suspensions, &one), 0);
    else
        assert_true(
            suspensions_remove(&world.w->shared->suspensions, SUSPENSION_SOURCE, str_of(one.name)));
    world.w->suspensions_changed++;
}

/* Lanes that have heard: their mail is the store's. */
static uint32_t lanes_empty(const struct supply *s)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < LANES; i++) {
        const struct lane *lane = lane_of(i);

        n += lane->supply == s && lane->window_len == 0;
    }
    return n;
}

static void reload(const char *text)
{
    struct config *other = config_of(text);

    other->generation = world.w->config->generation + 1;
    config_unref(world.w->config);
    world.w->config = other;
    lanes_renew(world.w);
}

static void test_turns(void **state)
{
    struct suspension_walk walk = {.on_done = on_walked};
    struct supply *a, *b;
    uint32_t suspended = 0;

    (void)state;
    world_open();
    arrive_all();
    a = lane_of(0)->supply;
    b = lane_of(1)->supply;
    assert_true(a != NULL && b != NULL && a != b);

    fail_site(a);
    assert_true(lane_of(0)->window_len > 0); /* not at once */
    settle_down("a site fails");
    assert_true(a->down);
    assert_int_equal(lanes_empty(a), LANES / 2);
    for (uint32_t i = 0; i < LANES; i += 2)
        assert_true(lane_of(i)->state == LANE_SITE_DOWN && lane_of(i)->failures == 1);

    channel_works(channel_of(a));
    assert_false(lane_suspended(lane_of(LANES - 2))); /* the answer is right at once */
    settle_down("it works again");
    for (uint32_t i = 0; i < LANES; i += 2)
        assert_true(lane_of(i)->state == LANE_OPEN && !lane_of(i)->held);

    arrive_all();
    source_suspend(a, true);
    lane_suspensions_begin(world.w, &walk);
    settle_down("no source may send");
    assert_true(a->parked_ms != 0 && b->parked_ms != 0);
    assert_int_equal(lanes_empty(a) + lanes_empty(b), LANES);
    source_suspend(a, false);
    lane_suspensions_begin(world.w, &walk);
    settle_down("one may again");
    for (uint32_t i = 0; i < LANES; i++)
        suspended += lane_suspended(lane_of(i));
    assert_int_equal(suspended, 0);

    arrive_all();
    reload(TEXT("elsewhere"));
    settle_down("another route");
    for (uint32_t i = 0; i < LANES; i++) {
        const struct site *site = lane_of(i)->site;

        assert_true(site == NULL || site->config == world.w->config);
    }
    world_close();
}

/* A route that has just ended serves while DNS is asked; one that ended long ago does not. */
static void test_old_route(void **state)
{
    uint64_t now_ms;
    struct site *site;
    struct lane *lane;

    (void)state;
    world_open();
    now_ms = io_now_ms(world.w->io);
    if (now_ms <= LANE_ROUTE_OLD_MS) { /* this machine has just been started */
        world_close();
        skip();
    }
    arrive(0);
    lane = lane_of(0);
    site = lane->site;
    assert_non_null(site);
    lane->routing = calloc(1, 4096); /* a lookup without an answer yet */
    assert_non_null(lane->routing);
    lane->route_expires_ms = now_ms;
    lane_update(lane);
    assert_ptr_equal(lane->site, site);
    lane->route_expires_ms = now_ms - LANE_ROUTE_OLD_MS;
    lane_update(lane);
    assert_null(lane->site);
    assert_int_equal(lane->window_len, 1);
    lane_route_cancel(lane); /* there is an answer */
    lane_update(lane);
    assert_non_null(lane->site);
    /* Whoever wants a new route does not make the present one old. */
    lane->route_expires_ms = UINT64_MAX;
    lane_route_expire(lane);
    assert_false(lane_route_is_old(lane));
    world_close();
}

#define REJECTED 1500 /* of one lane */

/* A domain that takes no mail any more: its window ends in parts. */
static void test_window_ends_in_parts(void **state)
{
    uint64_t before, most = 0;

    (void)state;
    world_open();
    for (uint32_t i = 0; i < REJECTED; i++)
        arrive(0);
    assert_int_equal(lane_of(0)->window_len, REJECTED);
    reload("host_name: test.example\nlisteners: []\ndns: {servers: [127.0.0.1:1]}\n"
           "routes: {'*': reject}\n");
    for (int i = 0; i < TURNS_MAX && atomic_load(&world.w->counters.failed) < REJECTED; i++) {
        before = atomic_load(&world.w->counters.failed);
        queue_pump(world.engine.shared.queue);
        assert_int_equal(worker_turn(world.w, 10), 0);
        before = atomic_load(&world.w->counters.failed) - before;
        most = before > most ? before : most;
    }
    assert_int_equal(atomic_load(&world.w->counters.failed), REJECTED);
    assert_in_range(most, 1, 250);
    world_close();
}

#define EXPIRED_LANES 60
#define EXPIRED_EACH  30
#define OUTLIVED      300
#define DAY_MS        86400000

static void on_stored(struct queue_change *change, int result)
{
    assert_int_equal(result, 0);
    *(bool *)change->owner = true;
}

/* Rows in the store, made so long ago. Returns the last one's recipient, as it would arrive. */
static struct recipient *store_rows(uint32_t number, size_t len, int64_t age_ms)
{
    struct message *messages[EXPIRED_EACH];
    struct queue_row rows[EXPIRED_EACH] = {0};
    bool stored = false;
    struct queue_change change = {.messages = messages,
                                  .messages_len = len,
                                  .rows = rows,
                                  .rows_len = len,
                                  .urgent = true,
                                  .on_done = on_stored,
                                  .owner = &stored};

    assert_in_range(len, 1, EXPIRED_EACH);
    for (size_t i = 0; i < len; i++) {
        struct recipient *r = recipient_of(number, worker_wall_ms(world.w) - age_ms);

        r->due_ms = r->message->created_ms;
        rows[i] = (struct queue_row){.kind = QUEUE_ROW_ADD, .rcpt = r};
        messages[i] = r->message;
    }
    queue_submit(world.w->port, 0, &change);
    for (int i = 0; i < TURNS_MAX && !stored; i++)
        turn();
    assert_true(stored);
    for (size_t i = 0; i + 1 < len; i++)
        recipient_free(rows[i].rcpt);
    return rows[len - 1].rcpt;
}

static void store_old(uint32_t number, size_t len)
{
    recipient_free(store_rows(number, len, 2 * DAY_MS));
}

static struct recipient *store_one(uint32_t number)
{
    return store_rows(number, 1, 2 * DAY_MS);
}

/* What outlived its lifetime in the store ends as it is read, but not all that is read in a turn.
 */
static void test_backlog_expires_in_parts(void **state)
{
    uint64_t before, most = 0;
    int64_t due_ms;

    (void)state;
    world_open();
    for (uint32_t i = 0; i < EXPIRED_LANES; i++)
        store_old(2 * i, EXPIRED_EACH);
    due_ms = worker_wall_ms(world.w) - 2 * 86400000;
    for (uint32_t i = 0; i < EXPIRED_LANES; i++)
        lane_stored(lane_of(2 * i), due_ms);
    for (int i = 0;
         i < TURNS_MAX && atomic_load(&world.w->counters.expired) < EXPIRED_LANES * EXPIRED_EACH;
         i++) {
        before = atomic_load(&world.w->counters.expired);
        queue_pump(world.engine.shared.queue);
        assert_int_equal(worker_turn(world.w, 10), 0);
        before = atomic_load(&world.w->counters.expired) - before;
        most = before > most ? before : most;
    }
    assert_int_equal(atomic_load(&world.w->counters.expired), EXPIRED_LANES * EXPIRED_EACH);
    assert_in_range(most, 1, 500 + 256); /* loads, and the sweep */
    world_close();
}

/* Stored mail of many suspended lanes outlives its lifetime: it ends by a pass over all of it, not
 * by one for each lane. */
static void test_many_lanes_outlive(void **state)
{
    struct suspension one = {.scope = SUSPENSION_DOMAIN};
    uint64_t turns = 0, before;

    (void)state;
    world_open();
    for (uint32_t i = 0; i < OUTLIVED; i++) {
        snprintf(one.name, sizeof(one.name), "l%u.a.example", 2 * i);
        assert_int_equal(suspensions_put(&world.w->shared->suspensions, &one), 0);
        store_old(2 * i, 1);
        lane_stored(lane_of(2 * i), worker_wall_ms(world.w) - 2 * 86400000);
        lane_of(2 * i)->expires_ms = worker_wall_ms(world.w) - 86400000;
    }
    for (int i = 0; i < TURNS_MAX && atomic_load(&world.w->counters.expired) < OUTLIVED; i++) {
        before = atomic_load(&world.w->counters.expired);
        queue_pump(world.engine.shared.queue);
        assert_int_equal(worker_turn(world.w, 10), 0);
        turns += atomic_load(&world.w->counters.expired) > before;
    }
    assert_int_equal(atomic_load(&world.w->counters.expired), OUTLIVED);
    assert_in_range(turns, 1, OUTLIVED / 10);
    world_close();
}

/* --- what others hand over --- */

#define HANDED 5000
/* Of a turn: notes and what the queue gives back, each 2,000 and the last one's; and walks. */
#define HANDED_OF_TURN 5500

static uint32_t notes_ran;

static void run_note(struct worker *w, struct worker_note *note)
{
    (void)note;
    lane_update(lane_of(0));
    w->turn.lanes++;
    notes_ran++;
}

static void on_handed(struct queue_change *change, int result)
{
    assert_int_equal(result, 0);
    ++*(uint32_t *)change->owner;
    lane_update(lane_of(0));
}

/* What workers and the queue hand over by the thousand is taken in many turns. */
static void test_handed_in_parts(void **state)
{
    struct queue_change *changes = calloc(HANDED, sizeof(*changes));
    struct worker_note *notes = calloc(HANDED, sizeof(*notes));
    uint32_t ended = 0;
    int turns = 0;

    (void)state;
    world_open();
    assert_true(changes != NULL && notes != NULL);
    notes_ran = 0;
    for (uint32_t i = 0; i < HANDED; i++) {
        changes[i] = (struct queue_change){.urgent = true, .on_done = on_handed, .owner = &ended};
        queue_submit(world.w->port, 0, &changes[i]);
        notes[i].run = run_note;
        worker_send(&world.engine.shared, 0, &notes[i]);
    }
    for (int i = 0; i < 5; i++)
        queue_pump(world.engine.shared.queue);
    counts_reset();
    do {
        assert_int_equal(worker_turn(world.w, 10), 0);
        assert_in_range(++turns, 1, HANDED / 8); /* nobody wakes it for what is left */
    } while (ended < HANDED || notes_ran < HANDED);
    assert_in_range(turns, HANDED / 2000, HANDED / 8);
    assert_in_range(atomic_load(&world.w->turn.shared.lanes_max), 1, HANDED_OF_TURN);
    world_close();
    free(changes);
    free(notes);
}

/* A worker that drains is not done before it has taken all that was handed over, in however many
 * turns. */
static void test_drain_takes_what_was_handed(void **state)
{
    struct worker_note *notes = calloc(HANDED, sizeof(*notes));
    int turns = 0;

    (void)state;
    world_open();
    assert_non_null(notes);
    for (int i = 0; i < 5; i++) /* what a start reads */
        turn();
    worker_drain(world.w, true);
    notes_ran = 0;
    for (uint32_t i = 0; i < HANDED; i++) {
        notes[i].run = run_note;
        worker_send(&world.engine.shared, 0, &notes[i]);
    }
    do {
        turn();
        assert_in_range(++turns, 1, HANDED / 8);
    } while (!worker_drained(world.w));
    assert_int_equal(notes_ran, HANDED);
    assert_in_range(turns, HANDED / 2000, HANDED / 8);
    world_close();
    free(notes);
}

#define MANY 20000

static void on_accepted(struct accept_waiter *waiter, int result)
{
    assert_null(waiter->under_way);
    assert_int_equal(result, 0);
}

/* The recipients of one message come to their lanes some a turn. */
static void test_many_recipients_arrive_in_parts(void **state)
{
    struct accept_rcpt *rcpts = calloc(MANY, sizeof(*rcpts));
    struct accept_waiter waiter = {.on_done = on_accepted};
    const struct queue_flow *flow;
    struct accept_order order;
    struct buf strings = {0};
    struct message *m;

    (void)state;
    world_open();
    assert_non_null(rcpts);
    for (uint32_t i = 0; i < MANY; i++) {
        rcpts[i].address = (struct accept_slice){(uint32_t)strings.len, 0};
        buf_printf(&strings, "user@l%u.a.example", i);
        rcpts[i].address.len = (uint32_t)strings.len - rcpts[i].address.at;
        rcpts[i].queue = (struct accept_slice){rcpts[i].address.at + 5, rcpts[i].address.len - 5};
    }
    flow = queue_flow_get(world.engine.shared.queue, PRIORITY_DEFAULT, STR(""), STR(""), STR(""));
    assert_non_null(flow);
    m = message_new(&(struct message){.id = msgid_next(&world.ids, worker_wall_ms(world.w)),
                                      .created_ms = worker_wall_ms(world.w),
                                      .born_ms = io_now_ms(world.w->io),
                                      .flow = flow->id,
                                      .recipients = MANY});
    assert_non_null(m);
    order = (struct accept_order){.worker = world.w,
                                  .config = world.w->config,
                                  .message = m,
                                  .strings = strings.data,
                                  .rcpts = rcpts,
                                  .rcpts_len = MANY,
                                  .due_ms = m->created_ms};
    assert_true(accept_submit(&order, &waiter));
    message_unref(m);
    counts_reset();
    for (int i = 0; i < TURNS_MAX && (waiter.under_way != NULL || world.w->lanes.count < MANY); i++)
        turn();
    assert_int_equal(world.w->lanes.count, MANY);
    check_counts("a message of many");
    world_close();
    free(rcpts);
    buf_done(&strings);
}

#define ASKERS 3000

static uint32_t answered;

static void on_policy(struct sts_query *query, const struct sts_found *found)
{
    (void)query, (void)found;
    answered++;
}

/* Who waits for one policy hears of it in many turns. */
static void test_policy_told_in_parts(void **state)
{
    struct sts_query *queries = calloc(ASKERS, sizeof(*queries));
    uint32_t before, most = 0;

    (void)state;
    world_open();
    assert_non_null(queries);
    answered = 0;
    for (uint32_t i = 0; i < ASKERS; i++) {
        queries[i].on_policy = on_policy;
        sts_ask(world.w, &queries[i], STR("policy.example"));
    }
    for (int i = 0; i < 10 * TURNS_MAX && answered < ASKERS; i++) {
        before = answered;
        assert_int_equal(worker_turn(world.w, 10), 0);
        most = answered - before > most ? answered - before : most;
        if (before == 0 && answered > 0) /* one of those that have still to hear goes */
            sts_cancel(&queries[ASKERS - 1]), answered++;
    }
    assert_int_equal(answered, ASKERS);
    assert_in_range(most, 1, ASKERS / 2);
    for (uint32_t i = 0; i < ASKERS; i++) /* and some at the end of the worker */
        sts_ask(world.w, &queries[i], STR("other.example"));
    world_close();
    assert_int_equal(answered, ASKERS);
    free(queries);
}

/* --- more lanes than places --- */

#define PLACES 64
#define ABSENT 120

static void expires(uint32_t lanes, size_t places)
{
    size_t most = 0;

    for (int i = 0; i < 10 * TURNS_MAX && atomic_load(&world.w->counters.expired) < lanes; i++) {
        queue_pump(world.engine.shared.queue);
        assert_int_equal(worker_turn(world.w, 5), 0);
        most = world.w->lanes.count > most ? world.w->lanes.count : most;
    }
    print_message("%u lanes at most\n", (unsigned)most);
    for (int i = 0; i < 50; i++) /* what is read again must not end again */
        turn();
    assert_int_equal(atomic_load(&world.w->counters.expired), lanes);
    assert_in_range(most, 1, places);
}

/* The walk over due times, once behind a start, tells lanes no more when their mail expires. */
static void behind_start(void)
{
    uint64_t until_ms = io_now_ms(world.w->io) + 1500;

    while (io_now_ms(world.w->io) < until_ms)
        turn();
}

/* Lanes in the store alone come in as others go. */
static void test_absent_lanes_are_found(void **state)
{
    struct queue_counters c = {0};

    (void)state;
    world_open();
    world.w->lanes_max = PLACES;
    for (uint32_t i = 0; i < ABSENT; i++) {
        store_old(2 * i, 1 + i % 3);
        lane_left(world.w, 0, worker_wall_ms(world.w));
    }
    expires(ABSENT / 3 * (1 + 2 + 3), PLACES);
    queue_counters(world.engine.shared.queue, 0, &c);
    assert_int_equal(c.rows, atomic_load(&world.w->counters.notices)); /* no recipient is left */
    assert_false(lanes_are_absent(world.w, 0) && lanes_left_due(world.w, 0));
    world_close();
}

/* What arrives beyond the places is the store's; each recipient ends once. */
static void test_arrivals_beyond_the_places(void **state)
{
    struct recipient *r;

    (void)state;
    world_open();
    world.w->lanes_max = PLACES;
    for (uint32_t i = 0; i < 2 * ABSENT; i++) {
        r = store_one(2 * i);
        lane_arrive(world.w, 0, r);
    }
    assert_int_equal(world.w->lanes.count, 2 * PLACES);
    assert_true(lanes_are_absent(world.w, 0));
    expires(2 * ABSENT, 2 * PLACES);
    world_close();
}

#define UNLOADED 10

/* While what was sent is not recorded nothing more is loaded; once it is, loads go on. */
static void test_loads_wait_for_commits(void **state)
{
    const uint64_t lag = UINT64_C(1) << 40;

    (void)state;
    world_open();
    world.w->settling_bytes += lag;
    for (uint32_t i = 0; i < UNLOADED; i++)
        recipient_free(store_rows(i, 1, 1000));
    for (uint32_t i = 0; i < UNLOADED; i++)
        lane_stored(lane_of(i), worker_wall_ms(world.w) - 1000);
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(world.w->memory.count, 0);
    assert_false(worker_busy(world.w)); /* it waits, and does not turn for nothing */
    world.w->settling_bytes -= lag;
    for (int i = 0; i < TURNS_MAX && world.w->memory.count < UNLOADED; i++)
        turn();
    assert_int_equal(world.w->memory.count, UNLOADED);
    world_close();
}

/* While too many that were sent are not recorded nothing is sent. It goes on once they are, and by
 * and by where it is peers that are slow. */
static void test_sessions_wait_for_commits(void **state)
{
    const uint32_t lag = 1000000;
    uint64_t until_ms;

    (void)state;
    world_open();
    world.w->settling_many += lag;
    settles_owe(world.w, lag);
    arrive(0);
    for (int i = 0; i < 20; i++)
        turn();
    assert_int_equal(lane_of(0)->window_len, 1);
    assert_null(list_first(&lane_of(0)->site->channels));
    assert_false(worker_busy(world.w)); /* it waits, and does not turn for nothing */
    world.w->settling_many -= lag;
    until_ms = io_now_ms(world.w->io) + 1000;
    world.w->leave_used = 4000 + 1;
    while (list_empty(&lane_of(0)->site->channels) && io_now_ms(world.w->io) < until_ms)
        assert_int_equal(worker_turn(world.w, 1000), 0); /* a timer ends its sleep */
    assert_in_range(io_now_ms(world.w->io), 0, until_ms - 1);
    assert_non_null(list_first(&lane_of(0)->site->channels)); /* a session was tried */
    world_close();
}

/* A world with room for so many lanes, in which a site is suspended; it has every other lane. */
static void held_back_open(uint32_t places)
{
    struct suspension one = {.scope = SUSPENSION_SITE};

    world_open();
    arrive(0);
    snprintf(one.name, sizeof(one.name), "%s", lane_of(0)->site->name);
    assert_int_equal(suspensions_put(&world.w->shared->suspensions, &one), 0);
    world.w->suspensions_changed++;
    world.w->lanes_max = places;
    behind_start();
}

/* Rows for later; those of the site that is suspended are due. */
static void held_back_store(void)
{
    for (uint32_t i = 0; i < ABSENT; i++) {
        recipient_free(store_rows(i, 1, i % 2 == 0 ? 1000 : 2 * DAY_MS));
        lane_left(world.w, 0, worker_wall_ms(world.w));
    }
}

/* Somebody asks why mail of a lane that is in the store alone waits, and is told. */
static void ask_absent(uint32_t number)
{
    struct control_why why = {.scopes = 1u << SUSPENSION_DOMAIN};
    struct lane *lane;

    snprintf(why.domain, sizeof(why.domain), "l%u.a.example", number);
    assert_in_range(atomic_load(&world.w->counters.lanes_absent), 1, ABSENT);
    lane_leave(lane_of(number)); /* it may be in memory now */
    lane = lane_found(world.w, 0, 0, str_of(why.domain), 1000);
    assert_non_null(lane);
    assert_true(lane->site != NULL && lane->in_memory == 0 &&
                lane_has_due(lane, worker_wall_ms(world.w)));
    (void)backend_why_lane(&why, lane, 1);
    assert_int_equal(why.len, 1);
    assert_int_equal(why.holds[0].state, CONTROL_HOLD_WAITS);
    assert_string_equal(why.holds[0].wait.reason, "suspended");
    assert_int_equal(why.holds[0].rows, 1);
    assert_int_equal(backend_why(&why, lane), 1); /* the walk does not count it again */
    assert_int_equal(why.len, 1);
    assert_int_equal(why.holds[0].rows, 1);
}

/* Lanes behind a site that is suspended keep no place from others, and no load: their route is
 * known. */
static void test_held_back_lanes_stay(void **state)
{
    uint32_t others = ABSENT / 2;

    (void)state;
    held_back_open(PLACES);
    held_back_store();
    for (int i = 0; i < TURNS_MAX && atomic_load(&world.w->counters.expired) < others; i++) {
        queue_pump(world.engine.shared.queue);
        assert_int_equal(worker_turn(world.w, 5), 0);
        assert_in_range(world.w->lanes.count, 0, PLACES);
    }
    assert_int_equal(atomic_load(&world.w->counters.expired), others);
    assert_in_range(atomic_load(&world.w->counters.loads), others, others + PLACES);
    assert_true(lanes_are_absent(world.w, 0));
    ask_absent(2);
    world_close();
}

/* Memory is short, and the limit of a campaign holds lanes for an hour: their mail waits in the
 * store, and nobody looks a thousand times a second whether they may load it. */
static void test_held_share_is_quiet(void **state)
{
    struct recipient *rcpts[3];
    uint64_t now_ns, until_ms;
    unsigned turns = 0;
    struct lane *lane;

    (void)state;
    world_open();
    behind_start();
    for (uint32_t i = 0; i < 3; i++)
        rcpts[i] = store_rows(2 * i, 1, 1000);
    for (uint32_t i = 0; i < 3; i++)
        lane_arrive(world.w, 0, rcpts[i]);
    lane = lane_of(0);
    assert_true(lane->window_len == 1 && lane->supply != NULL);
    now_ns = io_now_ns(world.w->io);
    feed_hold(&lane->supply->feed, lane, now_ns,
              &(struct limit_denial){.kind = LIMIT_CAMPAIGN,
                                     .until_ns = now_ns + UINT64_C(3600000000000)});
    ((struct config *)(uintptr_t)world.w->config)->queue.memory_bytes_max = 0;
    behind_start();
    for (uint32_t i = 0; i < 3; i++)
        assert_true(lane_of(2 * i)->window_len == 0 && lane_of(2 * i)->hungry);
    until_ms = io_now_ms(world.w->io) + 500;
    for (; io_now_ms(world.w->io) < until_ms; turns++) {
        queue_pump(world.engine.shared.queue);
        assert_int_equal(worker_turn(world.w, 50), 0);
    }
    assert_in_range(turns, 1, 100);
    world_close();
}

/* Where hardly any room is left, such lanes do not use up the few places of a read either. */
static void test_held_back_lanes_take_no_place(void **state)
{
    uint32_t places = 10 * PLACES, busy = places / 8 * 6 + 1, others = ABSENT / 2;
    char name[32];

    (void)state;
    held_back_open(places);
    for (uint32_t i = 0; i < busy; i++) {
        snprintf(name, sizeof(name), "busy%u.b.example", i);
        lane_fetch_begin(world.w, 0, 0, str_of(name));
    }
    held_back_store();
    for (int i = 0; i < TURNS_MAX && atomic_load(&world.w->counters.expired) < others; i++) {
        queue_pump(world.engine.shared.queue);
        assert_int_equal(worker_turn(world.w, 5), 0);
    }
    assert_int_equal(atomic_load(&world.w->counters.expired), others);
    for (uint32_t i = 0; i < busy; i++) {
        snprintf(name, sizeof(name), "busy%u.b.example", i);
        lane_fetch_end(world.w, 0, 0, str_of(name));
    }
    world_close();
}

/* What a load may have read, and its lane sent, is not taken from memory by the next lane of the
 * name. */
static void test_lane_comes_back(void **state)
{
    (void)state;
    world_open();
    lane_of(0)->seen_until_ms = io_now_ms(world.w->io) + 1000;
    lane_leave(lane_of(0));
    arrive(0);
    assert_int_equal(lane_of(0)->window_len, 0);
    assert_true(lane_has_due(lane_of(0), worker_wall_ms(world.w)));
    world_close();
}

/* Mail of lanes that are suspended, and not in memory, ends with its lifetime. */
static void test_absent_lanes_outlive(void **state)
{
    struct suspension one = {.scope = SUSPENSION_DOMAIN};

    (void)state;
    world_open();
    world.w->lanes_max = PLACES;
    behind_start();
    for (uint32_t i = 0; i < ABSENT; i++) {
        snprintf(one.name, sizeof(one.name), "l%u.a.example", 2 * i);
        assert_int_equal(suspensions_put(&world.w->shared->suspensions, &one), 0);
        store_old(2 * i, 1);
        lane_left(world.w, 0, worker_wall_ms(world.w));
    }
    world.w->absent_after_ms = 0;
    for (int i = 0; i < TURNS_MAX && atomic_load(&world.w->counters.expired) < ABSENT; i++) {
        queue_pump(world.engine.shared.queue);
        assert_int_equal(worker_turn(world.w, 10), 0);
    }
    assert_int_equal(atomic_load(&world.w->counters.expired), ABSENT);
    world_close();
}

/* Lanes whose domains cannot be looked up have all the places: others come in still. */
static void test_lanes_that_back_off(void **state)
{
    static const struct smtp_reply reply = {.code = 451, .enhanced = {4, 4, 3}};
    const struct config_destination *dest;

    (void)state;
    world_open();
    dest = config_destination_for(world.w->config, STR("b.example"), STR(""));
    world.w->lanes_max = PLACES;
    behind_start();
    for (uint32_t i = 0; i < PLACES; i++) {
        struct lane *lane = lane_of(2 * i + 1);

        lane_suspend(lane, LANE_UNROUTED, dest, &reply, NULL);
        lane_stored(lane, worker_wall_ms(world.w) - 1000);
    }
    assert_int_equal(world.w->lanes.count, PLACES);
    for (uint32_t i = 0; i < ABSENT; i++) {
        store_old(2 * i, 1);
        lane_left(world.w, 0, worker_wall_ms(world.w));
    }
    expires(ABSENT, 2 * PLACES);
    world_close();
}

/* --- whoever joins, leaves and asks meanwhile --- */

#define FEW 3000
#define SETS                                                                                       \
    40 /* of steps, behind each of which all is looked at */ /* of steps, behind each of which all \
                                                                is looked at */

static struct {
    struct lane *lane;
    bool told;     /* of a failure */
    bool may_open; /* its supply has worked since: the lane opens when it hears that */
    uint32_t by;
} model[FEW];

struct told {
    struct supply_failure failure;
    uint32_t number;
    bool *ended;
};

static void on_tell(struct supply_failure *failure, struct lane *lane, uint32_t max)
{
    struct told *t = CONTAINER_OF(failure, struct told, failure);
    static const struct smtp_reply reply = {.code = 451, .enhanced = {4, 4, 1}};
    struct recipient *r = lane_pop(lane);
    uint32_t i = 0;

    assert_true(r != NULL && max > 0);
    while (model[i].lane != lane)
        assert_in_range(++i, 0, FEW - 1);
    assert_true(model[i].by != t->number); /* nobody hears it twice */
    model[i].by = t->number;
    model[i].told = true;
    model[i].may_open = false;
    lane_settling(r);
    lane_settled(r, INT64_MAX);
    lane_suspend(lane, LANE_SITE_DOWN, lane->site->dest, &reply, NULL);
}

static void on_all_told(struct supply_failure *failure)
{
    struct told *t = CONTAINER_OF(failure, struct told, failure);

    *t->ended = true;
    free(t);
}

/* The part of a turn that concerns supplies, without their sessions. */
static void few_step(void)
{
    struct list_node *n;

    while ((n = list_pop_front(&world.w->supplies_dirty)) != NULL)
        supply_look(LIST_ENTRY(n, struct supply, dirty_node));
    supplies_walk(world.w);
    lane_start_loads(world.w);
}

static void works(const struct supply *s)
{
    for (uint32_t i = 0; i < FEW; i++)
        if (model[i].lane->supply == s)
            model[i].may_open = true;
}

static void leave_and_join(uint32_t i, struct site *to)
{
    struct lane *lane = model[i].lane;

    if (lane->site == NULL)
        return;
    site_detach(lane->site, lane);
    site_attach(to, lane);
    model[i].may_open |= !lane->supply->down;
    lane_update(lane);
}

static bool is_shut(uint32_t i)
{
    const struct lane *lane = model[i].lane;

    assert_true(lane->state == LANE_SITE_DOWN || !model[i].told || model[i].may_open);
    if (lane->state == LANE_OPEN)
        model[i].told = false;
    assert_true(lane->state == LANE_OPEN || model[i].told);
    return lane->supply != NULL &&
           (lane->supply->parked_ms != 0 || (model[i].told && lane->supply->down));
}

static size_t len_of(const struct list *list, bool held)
{
    size_t len = 0;

    for (struct list_node *n = list_first(list); n != NULL; n = list_next(list, n), len++)
        assert_true(LIST_ENTRY(n, struct lane, site_node)->held == held);
    return len;
}

static void check_lists(struct supply *const supplies[2])
{
    size_t lanes = 0, listed = 0;

    for (uint32_t i = 0; i < FEW; i++)
        lanes += model[i].lane->supply != NULL;
    for (int i = 0; i < 2; i++)
        listed += len_of(&supplies[i]->attached, false) + len_of(&supplies[i]->shut, true) +
                  len_of(&supplies[i]->waking, true);
    assert_int_equal(lanes, listed);
}

static bool wants(const struct lane *lane)
{
    return lane->scan != LANE_SCAN_NONE || list_node_linked(&lane->wait_node) ||
           lane->window_len > 0 || lane->stored_due_ms > worker_wall_ms(world.w);
}

/* What everything comes to when the walks are over. */
static void check_all_heard(void)
{
    for (uint32_t i = 0; i < FEW; i++) {
        struct lane *lane = model[i].lane;

        assert_true(lane_suspended(lane) == is_shut(i));
        if (is_shut(i))
            assert_true(lane->window_len == 0 && !list_node_linked(&lane->ready_node));
        else
            assert_true(wants(lane)); /* nobody is forgotten */
    }
}

static void one_step(uint32_t number, struct supply *const supplies[2], bool *parked)
{
    static bool ended;
    uint32_t i = (uint32_t)rng_below(&world.rng, FEW);
    struct supply *s = supplies[rng_below(&world.rng, 2)];
    struct told *t;

    switch (rng_below(&world.rng, 8)) {
    case 0:
        for (uint32_t n = 0; n < 700; n++)
            arrive((uint32_t)rng_below(&world.rng, FEW));
        break;
    case 1:
        t = calloc(1, sizeof(*t));
        assert_non_null(t);
        *t = (struct told){{.tell = on_tell, .done = on_all_told}, number + 1, &ended};
        channel_of(s)->failures = 1;
        supply_fail(s, &t->failure);
        break;
    case 2:
        ended = s->failure == NULL;
        works(s);
        channel_of(s)->failures = 0;
        supply_resume(s);
        assert_true(ended);
        break;
    case 3:
        *parked = !*parked;
        source_suspend(s, *parked);
        supply_dirty(supplies[0]);
        supply_dirty(supplies[1]);
        break;
    case 4:
        for (uint32_t n = 0; n < 50; n++)
            leave_and_join((i + n) % FEW, s->site);
        break;
    case 5:
        for (uint32_t n = 0; n < 20; n++) /* the answer is right whatever the walk has come to */
            assert_true(lane_suspended(model[(i + n) % FEW].lane) == is_shut((i + n) % FEW));
        break;
    default:
        few_step();
        break;
    }
}

static void test_none_is_forgotten(void **state)
{
    struct supply *supplies[2];
    bool parked = false;

    (void)state;
    world_open();
    rng_seed(&world.rng, 1);
    for (uint32_t i = 0; i < FEW; i++) {
        arrive(i);
        model[i].lane = lane_of(i);
        model[i].told = model[i].may_open = false;
        model[i].by = 0;
    }
    supplies[0] = lane_of(0)->supply;
    supplies[1] = lane_of(1)->supply;
    for (uint32_t i = 0; i < SETS * 25; i++) {
        one_step(i, supplies, &parked);
        check_lists(supplies);
        if (i % 25 != 24)
            continue;
        do
            few_step();
        while (!list_empty(&world.w->supply_walks) || !list_empty(&world.w->supplies_dirty));
        check_all_heard();
    }
    world_close();
}

#define ENDED 20

/* Suspensions whose time is over end one behind the other, not one in each look at the clock. */
static void test_suspensions_end(void **state)
{
    struct suspend_order order = {.what = {.scope = SUSPENSION_SOURCE, .until_ms = 1}};
    struct suspensions *all = &world.engine.shared.suspensions;
    uint64_t until_ms;

    (void)state;
    world_open();
    for (int i = 0; i < ENDED; i++) {
        snprintf(order.what.name, sizeof(order.what.name), "s%d", i);
        assert_int_equal(suspensions_put(all, &order.what), 0);
    }
    suspend_submit_from(world.w, &order);
    until_ms = io_now_ms(world.w->io) + ENDED * 500;
    while (suspensions_count(all) > 0 && io_now_ms(world.w->io) < until_ms)
        turn();
    assert_int_equal(suspensions_count(all), 0);
    for (int i = 0; i < 10; i++)
        turn(); /* lanes hear of the last */
    world_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_old_route),
        cmocka_unit_test(test_window_ends_in_parts),
        cmocka_unit_test(test_backlog_expires_in_parts),
        cmocka_unit_test(test_many_lanes_outlive),
        cmocka_unit_test(test_handed_in_parts),
        cmocka_unit_test(test_drain_takes_what_was_handed),
        cmocka_unit_test(test_many_recipients_arrive_in_parts),
        cmocka_unit_test(test_policy_told_in_parts),
        cmocka_unit_test(test_absent_lanes_are_found),
        cmocka_unit_test(test_loads_wait_for_commits),
        cmocka_unit_test(test_sessions_wait_for_commits),
        cmocka_unit_test(test_arrivals_beyond_the_places),
        cmocka_unit_test(test_held_back_lanes_stay),
        cmocka_unit_test(test_held_share_is_quiet),
        cmocka_unit_test(test_held_back_lanes_take_no_place),
        cmocka_unit_test(test_lane_comes_back),
        cmocka_unit_test(test_absent_lanes_outlive),
        cmocka_unit_test(test_lanes_that_back_off),
        cmocka_unit_test(test_none_is_forgotten),
        cmocka_unit_test(test_suspensions_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
