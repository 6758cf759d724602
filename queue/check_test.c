/* A queue whose file was damaged at rest is refused with the page that is at fault, or it works:
 * never a crash, never memory ruined (run it under ASan), never a message that is not what it was.
 */
#include "queue/testkit.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "queue/check.h"

#define MESSAGES 60
#define LANES    6
#define ROUNDS   200 /* $CHECK_TEST_ROUNDS */
#define PAGE     4096

struct fixture {
    char *dir, *file;
    uint8_t *good;
    size_t len;
    struct queue *q;
    struct queue_port *port;
};

static int queue_up(struct fixture *f, const char **error)
{
    struct queue_options options = {.path = f->dir, .map_bytes = 64u << 20, .no_sync = true};
    int err = queue_open(&f->q, &options, error);

    return err < 0 ? err : queue_port_open(&f->port, f->q, NULL, NULL);
}

static void queue_down(struct fixture *f)
{
    queue_port_close(f->port);
    queue_close(f->q);
}

static const char *lane_of(unsigned i)
{
    static const char *const names[LANES] = {"a.example", "b.example", "c.example",
                                             "d.example", "e.example", "f.example"};

    return names[i % LANES];
}

/* Removes or moves what a lane has, as one change; checks its content. */
static void settle_lane(struct fixture *f, unsigned lane, bool all)
{
    struct kit_change *c = kit_change();
    struct kit_load load = {0};
    struct recipient *rcpts[KIT_ROWS_MAX], *r;
    unsigned n = 0;

    (void)!kit_load(f->q, f->port, 0, &load, lane_of(lane), 5000, KIT_ROWS_MAX);
    for (; (r = kit_pop(&load)) != NULL; rcpts[n++] = r) {
        bool remove = all || n % 2 == 0;

        assert_true(kit_content_right(r->message));
        kit_row(c, remove ? QUEUE_ROW_REMOVE : QUEUE_ROW_MOVE, r);
        r->due_ms += remove ? 0 : 1;
    }
    (void)!kit_submit(f->q, f->port, 0, c);
    while (n > 0)
        recipient_free(rcpts[--n]);
}

static void fill(struct fixture *f)
{
    for (unsigned i = 0; i < MESSAGES; i++) {
        unsigned rows = i % 5 == 0 ? 30 : 1;
        struct message *m = kit_message(i % 3 == 0 ? 9000 : 300 + i, rows, 5);
        struct kit_change *c = kit_change();
        struct recipient *rcpts[KIT_ROWS_MAX];

        kit_content(c, m);
        buf_puts(&c->change.records, "{\"type\":\"Reception\"}\n");
        for (unsigned j = 0; j < rows; j++)
            kit_row(c, QUEUE_ROW_ADD, rcpts[j] = kit_recipient(m, j, lane_of(i + j), 1000 + j));
        assert_int_equal(kit_submit(f->q, f->port, 0, c), 0);
        for (unsigned j = 0; j < rows; j++)
            recipient_free(rcpts[j]);
        message_unref(m);
    }
    settle_lane(f, 0, false); /* for free pages */
    settle_lane(f, 1, true);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct stat st;
    int fd;

    f->dir = kit_dir();
    assert_int_equal(queue_up(f, NULL), 0);
    fill(f);
    queue_down(f);
    assert_true(asprintf(&f->file, "%s/shard-000/data.mdb", f->dir) > 0);
    fd = open(f->file, O_RDONLY);
    assert_int_equal(fstat(fd, &st), 0);
    f->len = (size_t)st.st_size;
    f->good = malloc(f->len);
    assert_int_equal(read(fd, f->good, f->len), f->len);
    close(fd);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    kit_remove(f->dir);
    free(f->good);
    free(f->file);
    free(f->dir);
    free(f);
    return 0;
}

static void store(struct fixture *f, const uint8_t *bytes, size_t len)
{
    int fd = open(f->file, O_WRONLY | O_TRUNC);

    assert_int_equal(write(fd, bytes, len), len);
    close(fd);
}

/* One damage to bytes; the file's new length. */
static size_t damage(struct fixture *f, struct rng *rng, uint8_t *bytes)
{
    uint8_t *page = bytes + rng_below(rng, f->len / PAGE) * PAGE;
    uint8_t *other = bytes + rng_below(rng, f->len / PAGE) * PAGE;

    switch (rng_below(rng, 7)) {
    case 0:
        memset(page, 0, PAGE);
        break;
    case 1:
        memset(page, 0xff, 16);
        break;
    case 2: /* the header, and the offsets behind it */
        page[rng_below(rng, 40)] ^= (uint8_t)(1u << rng_below(rng, 8));
        break;
    case 3:
        for (unsigned i = 0; i < 8; i++)
            page[rng_below(rng, PAGE)] ^= (uint8_t)(1u << rng_below(rng, 8));
        break;
    case 4:
        for (unsigned i = 0; i < PAGE; i++)
            page[i] = (uint8_t)rng_next(rng);
        break;
    case 5:
        memmove(page, other, PAGE);
        break;
    default:
        return rng_below(rng, f->len);
    }
    return f->len;
}

static void work(struct fixture *f)
{
    struct queue_counters counters;

    for (unsigned lane = 0; lane < LANES; lane++)
        settle_lane(f, lane, lane % 2 == 0);
    queue_counters(f->q, 0, &counters);
    for (unsigned lane = 0; lane < LANES; lane++)
        settle_lane(f, lane, true);
}

static void test_damage(void **state)
{
    struct fixture *f = *state;
    const char *wanted = getenv("CHECK_TEST_ROUNDS"), *seed = getenv("CHECK_TEST_SEED");
    unsigned rounds = wanted != NULL ? (unsigned)atoi(wanted) : ROUNDS, refused = 0;
    uint8_t *bytes = malloc(f->len);
    struct rng rng;

    rng_seed(&rng, seed != NULL ? (uint64_t)atoll(seed) : 1);
    for (unsigned i = 0; i < rounds; i++) {
        const char *error = NULL;
        int err;

        memcpy(bytes, f->good, f->len);
        store(f, bytes, damage(f, &rng, bytes));
        err = queue_up(f, &error);
        if (err == 0) {
            work(f);
            queue_down(f);
        } else {
            assert_non_null(error);
            assert_true(strstr(error, "data.mdb is damaged: page ") != NULL ||
                        strstr(error, "format record is damaged") != NULL);
            refused++;
        }
    }
    free(bytes);
    assert_in_range(refused, rounds / 20, rounds - rounds / 20);
}

static void test_named(void **state)
{
    struct fixture *f = *state;
    const char *error = NULL;

    store(f, f->good, 0); /* LMDB would begin a new one */
    assert_int_equal(queue_up(f, &error), -EBADMSG);
    assert_non_null(strstr(error, "/shard-000/data.mdb is damaged: page 0 is missing"));
    store(f, f->good, f->len);
    assert_int_equal(queue_up(f, &error), 0);
    work(f);
    queue_down(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_named, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
