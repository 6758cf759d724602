/* A worker's recipes, without the worker: the crew has no threads, so a job is done when it is
 * submitted, and its end comes with the next crew_collect(). */
#include "deliver/recipes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "deliver/render.h"
#include "queue/testkit.h"
#include "worker/shared.h"

#define FROM   "\"from\":{\"email\":\"n@s.example\"}"
#define SIMPLE "{\"content\":{" FROM ",\"text_body\":\"Hi {{ name }}\"}}"
#define LOOP(in)                                                                                   \
    "{% for a in x %}{% for b in x %}{% for c in x %}" in "{% endfor %}{% endfor %}{% endfor %}"
#define SLOW "{\"content\":{" FROM ",\"text_body\":\"" LOOP("") "\"}}"
#define ROW_30                                                                                     \
    "{\"substitutions\":{\"x\":[1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0]}}"

static struct shared shared;
static struct config config;
static struct worker *w;
static struct msgid_source ids;
static uint64_t alive;
static int ready;

static void wake_nobody(void *arg)
{
    (void)arg;
}

static void on_ready(struct recipe_wait *wait)
{
    (void)wait;
    ready++;
}

static int open_world(void **state)
{
    (void)state;
    memset(&shared, 0, sizeof(shared));
    config = (struct config){.host_name = (char *)(uintptr_t) "mta.s.example", .refs = 1};
    config.http.message_bytes_max = 1u << 20;
    w = aligned_alloc(CACHE_LINE_BYTES, sizeof(*w));
    assert_non_null(w);
    memset(w, 0, sizeof(*w));
    assert_int_equal(crew_open(&shared.crew, 0, CREW_JOBS_PER_WORKER), 0);
    w->shared = &shared;
    w->config = &config;
    crew_desk_init(&w->desk, wake_nobody, NULL);
    recipes_init(w);
    msgid_source_init(&ids, 1);
    ready = 0;
    alive = message_bytes_alive();
    return 0;
}

static int close_world(void **state)
{
    (void)state;
    assert_false(recipes_pending(w));
    recipes_done(w);
    crew_stop(shared.crew);
    crew_close(shared.crew);
    free(w);
    assert_int_equal(message_bytes_alive(), alive);
    return 0;
}

static struct recipient *recipient_of(const char *recipe, const char *row)
{
    struct message *m = message_new(&(struct message){.id = msgid_next(&ids, 1000000),
                                                      .created_ms = 1000000,
                                                      .flags = MESSAGE_RECIPE,
                                                      .content = (uint8_t *)strdup(recipe),
                                                      .content_len = strlen(recipe)});
    struct recipient *r;

    assert_non_null(m);
    r = recipient_new(m, 0, STR("b.example"), STR("a@b.example"), STR(""), str_of(row));
    assert_non_null(r);
    message_unref(m);
    return r;
}

/* Another recipient of the same. */
static struct recipient *beside(const struct recipient *r, const char *row)
{
    struct recipient *other =
        recipient_new(r->message, 1, STR("b.example"), STR("c@b.example"), STR(""), str_of(row));

    assert_non_null(other);
    return other;
}

static void done(struct recipient *r, struct recipe_wait *wait)
{
    message_unref(wait->letter);
    buf_done(&wait->why);
    recipient_free(r);
}

static void test_reads_once(void **state)
{
    struct recipient *r = recipient_of(SIMPLE, "{\"name\":\"Ann\"}");
    struct recipient *other = beside(r, "{\"name\":\"Bob\"}");
    struct recipe_wait wait = {.on_ready = on_ready}, next = {.on_ready = on_ready};

    (void)state;
    assert_false(recipes_letter(w, r, &wait));
    assert_true(recipes_pending(w));
    assert_false(recipes_letter(w, other, &next)); /* the same reading */
    crew_collect(&w->desk);
    assert_int_equal(ready, 2);
    assert_true(recipes_letter(w, r, &wait));
    assert_true(recipes_letter(w, other, &next));
    assert_int_equal(wait.result, 0);
    assert_non_null(memmem(wait.letter->content, wait.letter->content_len, "Hi Ann", 6));
    assert_non_null(memmem(next.letter->content, next.letter->content_len, "Hi Bob", 6));
    assert_int_equal(w->recipes.entries.count, 1);
    done(other, &next);
    done(r, &wait);
}

static void test_slow_by_crew(void **state)
{
    struct recipient *r = recipient_of(SLOW, ROW_30), *other = beside(r, "");
    struct recipe_wait wait = {.on_ready = on_ready}, next = {.on_ready = on_ready};

    (void)state;
    assert_false(recipes_letter(w, r, &wait));
    crew_collect(&w->desk);
    assert_false(recipes_letter(w, r, &wait)); /* more than a turn may take */
    crew_collect(&w->desk);
    assert_int_equal(ready, 2);
    assert_true(recipes_letter(w, r, &wait));
    assert_int_equal(wait.result, 0);
    assert_non_null(wait.letter);
    assert_ptr_equal(wait.letter->recipe, r->message);
    assert_false(recipes_letter(w, other, &next)); /* as all others of that recipe */
    crew_collect(&w->desk);
    assert_true(recipes_letter(w, other, &next));
    done(other, &next);
    done(r, &wait);
}

static void test_leave(void **state)
{
    struct recipient *r = recipient_of(SLOW, ROW_30);
    struct recipe_wait wait = {.on_ready = on_ready};

    (void)state;
    assert_false(recipes_letter(w, r, &wait));
    recipes_leave(&wait); /* while it is read */
    crew_collect(&w->desk);
    assert_int_equal(ready, 0);
    assert_false(recipes_letter(w, r, &wait));
    recipes_leave(&wait); /* while the letter is made */
    assert_true(recipes_pending(w));
    crew_collect(&w->desk);
    assert_int_equal(ready, 0);
    assert_null(wait.letter);
    done(r, &wait);
}

static void test_none(void **state)
{
    static const struct {
        const char *recipe;
        int result;
        const char *word;
    } cases[] = {
        {"{\"content\":{" FROM ",\"text_body\":\"{{ a.b }}\"}}", -EINVAL, "content.text_body"},
        {"{\"content\":{" FROM ",\"text_body\":\"" LOOP(LOOP("")) "\"}}", -E2BIG, "steps"},
        {"{\"content\":1}", -EPROTO, "recipe cannot be read: content"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct recipient *r = recipient_of(cases[i].recipe, ROW_30);
        struct recipe_wait wait = {.on_ready = on_ready};

        while (!recipes_letter(w, r, &wait))
            crew_collect(&w->desk);
        assert_int_equal(wait.result, cases[i].result);
        assert_null(wait.letter);
        assert_non_null(memmem(wait.why.data, wait.why.len, cases[i].word, strlen(cases[i].word)));
        done(r, &wait);
    }
}

/* Who may be on the list is looked up by the crew. Here only the filter has the address: it is in
 * no store, so the letter is made. */
static void test_looked_up(void **state)
{
    struct recipient *r = recipient_of(SIMPLE, "{\"name\":\"Ann\"}"), *other = beside(r, "");
    struct recipe_wait wait = {.on_ready = on_ready}, next = {.on_ready = on_ready};
    char *dir = kit_dir();
    struct queue_options options = {
        .path = dir, .shards = 1, .map_bytes = 16u << 20, .no_threads = true, .no_sync = true};
    const char *why = NULL;

    (void)state;
    assert_int_equal(queue_open(&shared.queue, &options, &why), 0);
    suppressions_open(&shared.suppressions, shared.queue);
    assert_int_equal(suppressions_load(&shared.suppressions), 0);
    suppressions_note(&shared.suppressions, "a@b.example", false);
    assert_false(recipes_letter(w, r, &wait));
    crew_collect(&w->desk);
    assert_true(recipes_letter(w, other, &next)); /* at once */
    assert_false(recipes_letter(w, r, &wait));
    crew_collect(&w->desk);
    assert_true(recipes_letter(w, r, &wait));
    assert_int_equal(wait.result, 0);
    assert_non_null(wait.letter);
    done(other, &next);
    done(r, &wait);
    suppressions_done(&shared.suppressions);
    queue_close(shared.queue);
    free(dir);
}

/* No letter is longer than the configuration says, whoever makes it. */
static void test_longest(void **state)
{
    struct recipient *r = recipient_of(SIMPLE, "{\"name\":\"Ann, who has a long name\"}");
    struct recipe_wait wait = {.on_ready = on_ready};

    (void)state;
    config.http.message_bytes_max = 16;
    while (!recipes_letter(w, r, &wait))
        crew_collect(&w->desk);
    assert_int_equal(wait.result, -E2BIG);
    assert_null(wait.letter);
    done(r, &wait);
}

/* Recipes that nobody uses are bounded; one that was used lately stays. */
static void test_bounds(void **state)
{
    struct recipient *used = recipient_of(SIMPLE, "");
    struct recipe_wait wait = {.on_ready = on_ready};

    (void)state;
    for (int i = 0; i < 2 * RECIPES_MAX; i++) {
        struct recipient *r = recipient_of(SIMPLE, "");
        struct recipe_wait one = {.on_ready = on_ready};

        assert_false(recipes_letter(w, r, &one));
        crew_collect(&w->desk);
        assert_true(recipes_letter(w, r, &one));
        done(r, &one);
        if (i == 0) {
            assert_false(recipes_letter(w, used, &wait));
            crew_collect(&w->desk);
        }
        assert_true(recipes_letter(w, used, &wait));
        message_unref(wait.letter);
        wait.letter = NULL;
        assert_in_range(w->recipes.entries.count, 2, RECIPES_MAX);
        assert_int_equal(w->recipes.entries.count, w->recipes.unused_len);
    }
    assert_int_equal(w->recipes.unused_len, RECIPES_MAX);
    done(used, &wait);
}

/* --- turns --- */

#define CROWD 300
/* Some 15,000 steps, which is less than a millisecond. */
#define SOME                                                                                       \
    "{\"content\":{" FROM ",\"text_body\":\"{% for a in x %}{% for b in x %}{% for c in x %}"      \
    "{% if loop.first and loop.last %}-{% endif %}{% endfor %}{% endfor %}{% endfor %}\"}}"
#define ROW_10 "{\"substitutions\":{\"x\":[1,2,3,4,5,6,7,8,9,0]}}"

struct crowd {
    struct recipient *rcpts[CROWD + 1];
    struct recipe_wait waits[CROWD + 1];
    struct recipe_wait *order[CROWD + 1]; /* in which they were told */
    size_t told;
};
static struct crowd crowd;

static void on_turn(struct recipe_wait *wait)
{
    crowd.order[crowd.told++] = wait;
}

static size_t made_now(size_t from, size_t to)
{
    size_t n = 0;

    for (size_t i = from; i < to; i++)
        n += recipes_letter(w, crowd.rcpts[i], &crowd.waits[i]);
    return n;
}

/* Hundreds of letters that take a while are made over some turns, in their order; who comes later
 * waits behind them, and a turn takes no more than it may. */
static void test_turns(void **state)
{
    size_t made, turns = 0, last = 0;

    (void)state;
    memset(&crowd, 0, sizeof(crowd));
    for (size_t i = 0; i <= CROWD; i++) {
        crowd.rcpts[i] = i == 0 ? recipient_of(SOME, ROW_10) : beside(crowd.rcpts[0], ROW_10);
        crowd.waits[i].on_ready = on_turn;
    }
    assert_int_equal(made_now(0, 1), 0); /* the recipe is read */
    crew_collect(&w->desk);
    crowd.told = 0;
    recipes_turn(w);
    made = made_now(0, CROWD);
    assert_in_range(made, 2, CROWD / 4);
    recipes_turn(w);
    assert_int_equal(made_now(CROWD, CROWD + 1), 0); /* it is the last, though a turn begins */
    recipes_leave(&crowd.waits[CROWD - 1]);
    for (bool more = true; more; turns++) {
        size_t in_turn = 0;

        recipes_turn(w);
        while (recipes_grant(w)) {
            struct recipe_wait *wait = crowd.order[crowd.told - 1];
            size_t i = (size_t)(wait - crowd.waits);

            assert_true(i > last);
            last = i;
            assert_true(recipes_letter(w, crowd.rcpts[i], wait));
            assert_non_null(wait->letter);
            in_turn++;
        }
        assert_true(in_turn <= made);
        more = in_turn > 0;
    }
    assert_int_equal(last, CROWD);
    assert_int_equal(made + crowd.told, CROWD); /* of one more, but one left */
    assert_true(turns >= CROWD / made);
    for (size_t i = CROWD + 1; i > 0; i--)
        done(crowd.rcpts[i - 1], &crowd.waits[i - 1]);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_world, close_world)
    const struct CMUnitTest tests[] = {
        TEST(test_reads_once), TEST(test_slow_by_crew), TEST(test_leave), TEST(test_none),
        TEST(test_longest),    TEST(test_bounds),       TEST(test_turns), TEST(test_looked_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
