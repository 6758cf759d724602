/* The queue when the machine fails it: k-th write, sync, open or malloc, full disks, a full map.
 * The stated answer each time, nothing acknowledged lost, and on again by itself.
 *
 * Runs without threads, so that the k-th call is the same call each time. The full disks are tmpfs
 * mounts in a mount namespace of our own: run as root, or where user namespaces are allowed. */
#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "queue/shard.h"
#include "queue/testkit.h"
#include "tests/queue_faults/faultio.h"

#define MESSAGES 1000
#define LANE     "a.example"

enum fate { FATE_UNKNOWN, FATE_STORED, FATE_REFUSED, FATE_REMOVED };

struct entry {
    struct msgid id;
    struct recipient *rcpt;
    enum fate fate;
};

struct fixture {
    char *dir, *path, *records;
    struct queue_options options;
    struct queue *q;
    struct queue_port *port;
    struct entry entries[MESSAGES];
    size_t len;
    size_t lines; /* that must be in the records: of acknowledged changes */
    size_t lines_unknown;
    bool mounted;
};

static int open_queue(struct fixture *f)
{
    const char *error = NULL;
    int err = queue_open(&f->q, &f->options, &error);

    if (err < 0) {
        f->q = NULL; /* error: NULL where the errno says it all */
        return err;
    }
    for (uint32_t i = 0; i < queue_shards(f->q); i++) { /* keep pieces behind their messages */
        f->q->shards[i]->own.remains.age_ms_min = 0;
        f->q->shards[i]->own.remains.unused_bytes_min = 0;
    }
    return queue_port_open(&f->port, f->q, NULL, NULL);
}

static void close_queue(struct fixture *f)
{
    if (f->q == NULL)
        return;
    queue_port_close(f->port);
    queue_close(f->q);
    f->q = NULL;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->dir = kit_dir();
    assert_true(asprintf(&f->path, "%s/queue", f->dir) > 0);
    assert_true(asprintf(&f->records, "%s/records", f->dir) > 0);
    f->options = (struct queue_options){.path = f->path,
                                        .map_bytes = 64u << 20,
                                        .disk_free_bytes_min = 1,
                                        .records = {.path = f->records, .segment_bytes_max = 1500},
                                        .no_threads = true};
    *state = f;
    return 0;
}

static void forget(struct fixture *f)
{
    for (size_t i = 0; i < f->len; i++)
        recipient_free(f->entries[i].rcpt);
    f->len = f->lines = f->lines_unknown = 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    close_queue(f);
    forget(f);
    if (f->mounted)
        umount2(f->dir, MNT_DETACH);
    kit_remove(f->dir);
    free(f->dir);
    free(f->path);
    free(f->records);
    free(f);
    return 0;
}

/* --- the workload --- */

static int run_change(struct fixture *f, struct kit_change *c)
{
    int result;

    c->change.records = (struct buf){0};
    buf_puts(&c->change.records,
             "{\"line\":\"one change, one record, long enough to fill files\"}\n");
    queue_submit(f->port, 0, &c->change);
    while (!c->done) {
        queue_pump(f->q);
        queue_port_poll(f->port);
    }
    result = c->result;
    f->lines += result == 0;
    f->lines_unknown += result == -ESHUTDOWN;
    buf_done(&c->change.records);
    free(c);
    return result;
}

/* NULL when memory is out: the fault may hit the test's own allocations. */
static int accept_one(struct fixture *f, size_t size)
{
    struct kit_change *c = kit_change();
    struct message *m = kit_message(size, 1, 5);
    struct entry *e = &f->entries[f->len++];
    int result;

    *e = (struct entry){.id = m->id, .rcpt = kit_recipient(m, 0, LANE, 1000)};
    kit_content(c, m);
    kit_row(c, QUEUE_ROW_ADD, e->rcpt);
    message_unref(m);
    result = run_change(f, c);
    e->fate = result == 0 ? FATE_STORED : result == -ESHUTDOWN ? FATE_UNKNOWN : FATE_REFUSED;
    return result;
}

static int settle_one(struct fixture *f, struct entry *e)
{
    struct kit_change *c = kit_change();
    int result;

    kit_row(c, QUEUE_ROW_REMOVE, e->rcpt);
    result = run_change(f, c);
    if (result == 0)
        e->fate = FATE_REMOVED;
    else if (result == -ESHUTDOWN)
        e->fate = FATE_UNKNOWN;
    return result;
}

static bool stated(int result)
{
    return result == 0 || result == -ENOSPC || result == -ENOMEM || result == -ESHUTDOWN;
}

/* Accepts and settles a few; every answer must be one of the stated ones. */
static void work(struct fixture *f)
{
    for (size_t i = 0; i < 6; i++) {
        assert_true(stated(accept_one(f, 100 + i * 1500)));
        if (i % 2 == 1 && f->entries[f->len - 2].fate == FATE_STORED)
            assert_true(stated(settle_one(f, &f->entries[f->len - 2])));
    }
}

/* --- the check: what the store and the records hold --- */

static size_t count_lines(const char *dir_path)
{
    DIR *dir = opendir(dir_path);
    struct dirent *entry;
    char path[600], line[200];
    size_t lines = 0;
    FILE *file;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir_path, entry->d_name);
        file = fopen(path, "re");
        assert_non_null(file);
        while (fgets(line, sizeof(line), file) != NULL) {
            assert_int_equal(strncmp(line, "{\"line\":", 8), 0);
            assert_non_null(strstr(line, "files\"}\n"));
            lines++;
        }
        fclose(file);
    }
    if (dir != NULL)
        closedir(dir);
    return lines;
}

static void load_all(struct fixture *f, struct kit_load *load)
{
    load->load = (struct queue_load){.queue = STR(LANE),
                                     .now_ms = 2000,
                                     .rows_max = UINT32_MAX,
                                     .bytes_max = UINT64_MAX,
                                     .on_done = kit_on_load,
                                     .owner = load};
    load->done = false;
    queue_load(f->port, 0, &load->load);
    while (!load->done) {
        queue_pump(f->q);
        queue_port_poll(f->port);
    }
    assert_int_equal(load->result, 0);
    assert_true(load->load.end);
}

static void check(struct fixture *f)
{
    struct kit_load load = {0};
    struct recipient *r;
    size_t lines;

    close_queue(f);
    assert_int_equal(open_queue(f), 0);
    load_all(f, &load);
    while ((r = kit_pop(&load)) != NULL) {
        struct entry *e = NULL;

        for (size_t i = 0; i < f->len && e == NULL; i++) {
            if (memcmp(&f->entries[i].id, &r->message->id, sizeof(struct msgid)) == 0)
                e = &f->entries[i];
        }
        assert_non_null(e);
        assert_true(e->fate == FATE_STORED || e->fate == FATE_UNKNOWN);
        assert_true(kit_content_right(r->message));
        e->fate = FATE_REMOVED; /* seen: not a second time */
        recipient_free(r);
    }
    for (size_t i = 0; i < f->len; i++)
        assert_int_not_equal(f->entries[i].fate, FATE_STORED);
    close_queue(f);
    lines = count_lines(f->records);
    assert_true(lines >= f->lines && lines <= f->lines + f->lines_unknown);
}

static void start_over(struct fixture *f)
{
    close_queue(f);
    forget(f);
    kit_remove(f->path);
    kit_remove(f->records);
}

/* --- k-th call --- */

/* Runs the workload with the k-th call failing, for every k until it is no longer reached. on_fault
 * judges the queue afterwards. */
static void each_k(struct fixture *f, enum fault_call call, int err,
                   void (*on_fault)(struct fixture *f))
{
    unsigned k = 0;
    bool reached;

    do {
        k++;
        start_over(f);
        assert_int_equal(open_queue(f), 0);
        fault_arm(call, k, err, false);
        work(f);
        reached = fault_disarm();
        if (reached)
            on_fault(f);
        check(f);
    } while (reached);
    assert_true(k > 5);
}

static void lives(struct fixture *f)
{
    assert_false(queue_failed(f->q));
    assert_int_equal(accept_one(f, 500), 0);
    assert_int_equal(settle_one(f, &f->entries[f->len - 1]), 0);
}

/* Failed only if the failure was of the store: then for good. */
static void lives_or_fails(struct fixture *f)
{
    if (!queue_failed(f->q)) {
        lives(f);
        return;
    }
    assert_int_equal(queue_intake(f->q, 0), QUEUE_INTAKE_FAILED);
    assert_int_equal(accept_one(f, 500), -ESHUTDOWN);
}

static size_t failures;

static void counts_failures(struct fixture *f)
{
    failures += queue_failed(f->q);
    lives_or_fails(f);
}

static void test_kth_write_no_space(void **state)
{
    struct fixture *f = *state;

    /* LMDB takes its meta page's write for fatal whatever the error. */
    each_k(f, FAULT_WRITE, ENOSPC, lives_or_fails);
}

static void test_kth_write_io_error(void **state)
{
    each_k(*state, FAULT_WRITE, EIO, lives_or_fails);
}

static void test_kth_write_short(void **state)
{
    each_k(*state, FAULT_SHORT, 0, lives_or_fails);
}

static void test_kth_sync(void **state)
{
    failures = 0;
    each_k(*state, FAULT_SYNC, EIO, counts_failures);
    /* One sync a commit at least, and each of them is fatal. */
    assert_true(failures >= 9);
}

static void test_kth_flush(void **state)
{
    failures = 0;
    each_k(*state, FAULT_SYNC_FLUSH, EIO, counts_failures);
    assert_true(failures >= 9);
}

static void test_kth_sync_out_of_space(void **state)
{
    /* Delayed allocation: the sync finds that there is no space. What was written is lost. */
    failures = 0;
    each_k(*state, FAULT_SYNC, ENOSPC, counts_failures);
    assert_true(failures >= 9);
}

static void test_kth_open(void **state)
{
    struct fixture *f = *state;

    for (unsigned k = 1; k < 8; k++) {
        start_over(f);
        assert_int_equal(open_queue(f), 0);
        fault_arm(FAULT_OPEN, k, EMFILE, k % 2 == 0);
        work(f);
        fault_disarm();
        lives(f);
        check(f);
    }
}

/* Opening itself: it fails with an error and a word, and works the next time. */
static void test_open_fails(void **state)
{
    static const struct {
        enum fault_call call;
        int err;
    } faults[] = {
        {FAULT_WRITE, EIO},
        {FAULT_WRITE, ENOSPC},
        {FAULT_SHORT, 0},
        {FAULT_SYNC, EIO},
        {FAULT_OPEN, EMFILE},
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        {FAULT_MALLOC, ENOMEM}
#endif
    };
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        bool reached = true;

        for (unsigned k = 1; reached; k++) {
            int err;

            start_over(f);
            fault_arm(faults[i].call, k, faults[i].err, false);
            err = open_queue(f);
            reached = fault_disarm();
            assert_true(err <= 0);
            if (err < 0)
                assert_int_equal(open_queue(f), 0);
            lives(f);
            check(f);
        }
    }
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
static void test_kth_malloc(void **state)
{
    struct fixture *f = *state;
    bool reached = true;

    for (unsigned k = 1; reached; k++) {
        struct kit_change *c;
        struct message *m;
        struct entry *e;

        start_over(f);
        assert_int_equal(open_queue(f), 0);
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(accept_one(f, 3000), 0);
        /* All memory of the test's own is taken before. */
        c = kit_change();
        m = kit_message(9000, 2, 5);
        e = &f->entries[f->len++];
        *e = (struct entry){.id = m->id, .rcpt = kit_recipient(m, 0, LANE, 1000)};
        kit_content(c, m);
        kit_row(c, QUEUE_ROW_ADD, e->rcpt);
        kit_row(c, QUEUE_ROW_REMOVE, f->entries[0].rcpt);
        message_unref(m);
        queue_submit(f->port, 0, &c->change);
        fault_arm(FAULT_MALLOC, k, ENOMEM, false);
        queue_pump(f->q);
        reached = fault_disarm();
        queue_port_poll(f->port);
        assert_true(c->done);
        assert_true(c->result == 0 || c->result == -ENOMEM);
        e->fate = c->result == 0 ? FATE_STORED : FATE_REFUSED;
        if (c->result == 0)
            f->entries[0].fate = FATE_REMOVED;
        free(c);
        lives(f);
        check(f);
    }
}
#endif

/* --- full --- */

static void mount_small(struct fixture *f, const char *path, const char *options)
{
    if (!f->mounted && geteuid() != 0)
        assert_int_equal(unshare(CLONE_NEWUSER | CLONE_NEWNS), 0);
    assert_int_equal(mount("tmpfs", path, "tmpfs", 0, options), 0);
    f->mounted = true;
}

/* Accepts until the store is full; returns how many were accepted. */
static size_t fill(struct fixture *f)
{
    size_t n = 0;
    int result = 0;

    while (result == 0 && f->len < MESSAGES - 8) {
        result = accept_one(f, 40000);
        n += result == 0;
    }
    assert_int_equal(result, -ENOSPC);
    assert_false(queue_failed(f->q));
    return n;
}

static void settle_all(struct fixture *f)
{
    for (size_t i = 0; i < f->len; i++) {
        if (f->entries[i].fate == FATE_STORED)
            assert_int_equal(settle_one(f, &f->entries[i]), 0);
    }
}

static void wait_intake(struct fixture *f, enum queue_intake intake)
{
    for (unsigned ms = 0; queue_intake(f->q, 0) != intake; ms += 10) {
        assert_true(ms < 3000);
        poll(NULL, 0, 10);
        queue_pump(f->q);
    }
}

static void test_disk_full(void **state)
{
    struct fixture *f = *state;
    size_t n;

    mount_small(f, f->dir, "size=12m");
    f->options.disk_free_bytes_min = 1u << 20;
    assert_int_equal(open_queue(f), 0);
    assert_int_equal(queue_intake(f->q, 0), QUEUE_INTAKE_OK);
    n = fill(f);
    assert_true(n > 50);
    wait_intake(f, QUEUE_INTAKE_DISK_FULL);
    settle_all(f);
    /* The file does not shrink, but its pages are free again: as much fits as before. */
    wait_intake(f, QUEUE_INTAKE_OK);
    assert_true(fill(f) + 8 >= n);
    settle_all(f);
    /* The records wait in the outbox until their disk has room. */
    assert_int_equal(mount("tmpfs", f->dir, "tmpfs", MS_REMOUNT, "size=24m"), 0);
    check(f);
}

/* Somebody else fills the disk and leaves again. */
static void test_disk_filled_by_others(void **state)
{
    struct fixture *f = *state;
    char other[300];
    int fd;

    mount_small(f, f->dir, "size=16m");
    f->options.disk_free_bytes_min = 2u << 20;
    assert_int_equal(open_queue(f), 0);
    for (size_t i = 0; i < 10; i++)
        assert_int_equal(accept_one(f, 2000), 0);
    snprintf(other, sizeof(other), "%s/other", f->dir);
    fd = open(other, O_CREAT | O_WRONLY, 0600);
    while (write(fd, f, sizeof(*f)) > 0)
        ;
    wait_intake(f, QUEUE_INTAKE_DISK_FULL);
    settle_all(f);
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    wait_intake(f, QUEUE_INTAKE_OK);
    assert_int_equal(accept_one(f, 2000), 0);
    check(f);
}

static void test_map_full(void **state)
{
    struct fixture *f = *state;

    f->options.map_bytes = 4u << 20;
    assert_int_equal(open_queue(f), 0);
    assert_true(fill(f) > 30);
    /* The first refusal may be of the estimate; the free pages are counted each 100 ms. */
    for (int i = 0; i < 20 && queue_intake(f->q, 0) == QUEUE_INTAKE_OK; i++) {
        poll(NULL, 0, 150);
        (void)fill(f);
    }
    wait_intake(f, QUEUE_INTAKE_MAP_FULL);
    settle_all(f);
    wait_intake(f, QUEUE_INTAKE_OK);
    for (size_t n = fill(f), i = 0; n <= 30; n += fill(f)) { /* the same of what was given back */
        assert_true(i++ < 20);
        poll(NULL, 0, 150);
    }
    check(f);
}

static struct str variables; /* of each row */

static struct recipient *scattered(struct message *m, uint32_t index)
{
    struct recipient *r;
    char lane[32];

    snprintf(lane, sizeof(lane), "lane%u.example", index * 37);
    r = recipient_new(m, index, str_of(lane), STR("user@lane.example"), STR(""), variables);
    assert_non_null(r);
    r->due_ms = m->created_ms;
    return r;
}

/* A message with len rows, all in lanes of their own. */
static int accept_scattered(struct fixture *f, struct recipient *rows[], uint32_t len)
{
    struct message *m = kit_message(100, len, 5);
    struct kit_change *c = kit_change();
    int result;

    kit_content(c, m);
    for (uint32_t i = 0; i < len; i++) {
        rows[i] = scattered(m, i);
        kit_row(c, QUEUE_ROW_ADD, rows[i]);
    }
    message_unref(m);
    result = run_change(f, c);
    for (uint32_t i = 0; i < len && result != 0; i++)
        recipient_free(rows[i]);
    return result;
}

#define SCATTERED_MAX   4096
#define LARGE_VARIABLES 3072 /* RECIPE_RECIPIENT_MAX */

/* Accepts to the last byte that acceptance may have. Returns how many of rows there are. */
static size_t fill_scattered(struct fixture *f, struct recipient *rows[][KIT_ROWS_MAX])
{
    struct recipient *one;
    size_t len = 0;

    for (unsigned refused = 0; refused < 3;) { /* the estimate of room is made anew now and then */
        int result = accept_scattered(f, rows[len], KIT_ROWS_MAX);

        assert_true((result == 0 && len + 1 < SCATTERED_MAX) || result == -ENOSPC);
        len += result == 0;
        refused = result == 0 ? 0 : refused + 1;
        if (refused > 0)
            poll(NULL, 0, 150);
    }
    assert_true(len > KIT_ROWS_MAX);
    while (accept_scattered(f, &one, 1) == 0)
        recipient_free(one);
    return len;
}

static void free_scattered(struct recipient *rows[][KIT_ROWS_MAX], size_t len)
{
    for (size_t i = 0; i < len; i++)
        for (uint32_t k = 0; k < KIT_ROWS_MAX; k++)
            recipient_free(rows[i][k]);
}

/* r goes, and its notice comes in the same change. */
static struct kit_change *bounce(struct recipient *r)
{
    struct kit_change *c = kit_change();
    struct message *notice = kit_message(2500, 1, 5);

    kit_content(c, notice);
    kit_row(c, QUEUE_ROW_ADD, kit_recipient(notice, 0, "sender.example", notice->created_ms));
    kit_row(c, QUEUE_ROW_REMOVE, r);
    message_unref(notice);
    return c;
}

static int run_bounce(struct fixture *f, struct recipient *r)
{
    struct kit_change *c = bounce(r);
    struct recipient *notice_rcpt = c->rows[0].rcpt;
    int result = run_change(f, c);

    recipient_free(notice_rcpt);
    return result;
}

/* Column k of the rows, KIT_ROWS_MAX at a time. */
static int settle_column(struct fixture *f, struct recipient *rows[][KIT_ROWS_MAX], size_t len,
                         uint32_t k, enum queue_row_kind kind)
{
    int result = 0;

    for (size_t i = 0; i < len && result == 0;) {
        struct kit_change *c = kit_change();

        for (; i < len && c->change.rows_len < KIT_ROWS_MAX; i++) {
            struct queue_row *row = kit_row(c, kind, rows[i][k]);

            if (kind == QUEUE_ROW_MOVE)
                row->rcpt->due_ms += 300000 + (int64_t)i * 7919 % 100000;
        }
        result = run_change(f, c);
    }
    return result;
}

/* A settle is one change, each of its rows in a page of its own, and perhaps with notices: what
 * acceptance leaves is enough for it, or it would wait for room that nothing else makes. */
static void test_map_full_settles_scattered_rows(void **state)
{
    static struct recipient *rows[SCATTERED_MAX][KIT_ROWS_MAX];
    struct fixture *f = *state;
    struct kit_change *c = kit_change();
    size_t len;

    f->options.map_bytes = 16u << 20;
    assert_int_equal(open_queue(f), 0);
    len = fill_scattered(f, rows);
    assert_int_equal(run_bounce(f, rows[1][1]), 0);
    for (uint32_t i = 0; i < KIT_ROWS_MAX; i++)
        kit_row(c, QUEUE_ROW_REMOVE, rows[i * (len / KIT_ROWS_MAX)][i]);
    assert_int_equal(run_change(f, c), 0);
    free_scattered(rows, len);
}

/* Many bounces at once: their notices do not take the room that settles without them need, nor do
 * the errors of rows that are deferred. A notice that was refused goes when there is room. */
static void test_map_full_of_notices(void **state)
{
    static struct recipient *rows[SCATTERED_MAX][KIT_ROWS_MAX];
    struct fixture *f = *state;
    struct kit_change *bounced, *settled;
    struct recipient *notice_rcpt;
    char error[300];
    size_t len, bounces = 0;
    uint32_t left;

    memset(error, 'e', sizeof(error));
    f->options.map_bytes = 16u << 20;
    assert_int_equal(open_queue(f), 0);
    len = fill_scattered(f, rows);
    for (unsigned refused = 0; refused < 3;) { /* as above */
        int result = run_bounce(f, rows[bounces % len][bounces / len]);

        assert_true(result == 0 || result == -ENOSPC);
        bounces += result == 0;
        refused = result == 0 ? 0 : refused + 1;
        if (refused > 0)
            poll(NULL, 0, 150);
    }
    left = (uint32_t)(bounces / len) + 1; /* columns from here on are whole */
    assert_true(bounces > 10 && left + 2 < KIT_ROWS_MAX);
    /* A notice needs a page for its content, and what its records cost beside. */
    assert_true(queue_notice_room_bytes(f->q, 0) < 2 * 4096);
    /* In one batch only the notice is refused. */
    bounced = bounce(rows[0][left]);
    notice_rcpt = bounced->rows[0].rcpt;
    queue_submit(f->port, 0, &bounced->change);
    settled = kit_change();
    kit_row(settled, QUEUE_ROW_REMOVE, rows[1][left]);
    assert_int_equal(run_change(f, settled), 0);
    assert_true(bounced->done && bounced->result == -ENOSPC);
    recipient_free(notice_rcpt);
    free(bounced);
    for (uint32_t k = left + 1; k < KIT_ROWS_MAX; k++) {
        for (size_t i = 0; i < len; i++)
            recipient_set_error(rows[i][k], (struct str){error, sizeof(error)});
        assert_int_equal(settle_column(f, rows, len, k, QUEUE_ROW_MOVE), 0);
    }
    for (uint32_t k = left + 1; k < KIT_ROWS_MAX; k++)
        assert_int_equal(settle_column(f, rows, len, k, QUEUE_ROW_REMOVE), 0);
    poll(NULL, 0, 150);
    assert_int_equal(settle_column(f, rows, 1, left, QUEUE_ROW_MOVE), 0); /* looks at the room */
    assert_int_equal(run_bounce(f, rows[0][left]), 0);
    free_scattered(rows, len);
}

/* Rows with all the variables that a recipient of a campaign may have take a page each, any free
 * one: a full map defers all of them, with the longest errors, and lets them go. */
static void test_map_full_of_large_rows(void **state)
{
    static struct recipient *rows[SCATTERED_MAX][KIT_ROWS_MAX];
    static char text[LARGE_VARIABLES];
    struct fixture *f = *state;
    char error[300];
    size_t len;

    memset(text, 'v', sizeof(text));
    memset(error, 'e', sizeof(error));
    variables = (struct str){text, sizeof(text)};
    f->options.map_bytes = 40u << 20;
    assert_int_equal(open_queue(f), 0);
    len = fill_scattered(f, rows);
    for (unsigned round = 0; round < 3; round++)
        for (uint32_t k = 0; k < KIT_ROWS_MAX; k++) {
            for (size_t i = 0; i < len; i++)
                recipient_set_error(rows[i][k], (struct str){error, sizeof(error)});
            assert_int_equal(settle_column(f, rows, len, k, QUEUE_ROW_MOVE), 0);
        }
    for (uint32_t k = 0; k < KIT_ROWS_MAX; k++)
        assert_int_equal(settle_column(f, rows, len, k, QUEUE_ROW_REMOVE), 0);
    free_scattered(rows, len);
    variables = (struct str){0};
}

/* With a reader open no page is given back: settling may be refused then, but nothing breaks, and
 * it goes on when the reader has gone. */
static void test_map_full_with_reader(void **state)
{
    struct fixture *f = *state;
    size_t settled = 0;
    MDB_txn *txn;

    f->options.map_bytes = 4u << 20;
    assert_int_equal(open_queue(f), 0);
    assert_int_equal(mdb_txn_begin(f->q->shards[0]->env, NULL, MDB_RDONLY, &txn), 0);
    fill(f);
    for (size_t i = 0; i < f->len; i++) {
        int result = f->entries[i].fate == FATE_STORED ? settle_one(f, &f->entries[i]) : -ENOENT;

        assert_true(result == 0 || result == -ENOSPC || result == -ENOENT);
        settled += result == 0;
    }
    /* What acceptance must leave free is there for this: a sixteenth of a map as small as this. */
    assert_true(settled > 0);
    assert_false(queue_failed(f->q));
    mdb_txn_abort(txn);
    settle_all(f);
    check(f);
}

/* The records' own disk is full: mail goes on, the lines wait in the outbox, each arrives once. */
static void test_records_full(void **state)
{
    struct fixture *f = *state;
    struct queue_counters counters;
    char other[600];
    int fd;

    assert_int_equal(mkdir(f->records, 0700), 0);
    mount_small(f, f->records, "size=1m");
    assert_int_equal(open_queue(f), 0);
    snprintf(other, sizeof(other), "%s/.other", f->records);
    fd = open(other, O_CREAT | O_WRONLY, 0600);
    while (write(fd, f, sizeof(*f)) > 0)
        ;
    for (size_t i = 0; i < 50; i++)
        assert_int_equal(accept_one(f, 500), 0);
    queue_counters(f->q, 0, &counters);
    assert_true(counters.records_lag > 2000);
    /* A restart in between changes nothing. */
    close_queue(f);
    assert_int_equal(open_queue(f), 0);
    assert_int_equal(accept_one(f, 500), 0);
    assert_int_equal(unlink(other), 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    close(fd);
    check(f);
    assert_int_equal(umount2(f->records, MNT_DETACH), 0);
    f->mounted = false;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_kth_write_no_space),
        TEST(test_kth_write_io_error),
        TEST(test_kth_write_short),
        TEST(test_kth_sync),
        TEST(test_kth_flush),
        TEST(test_kth_sync_out_of_space),
        TEST(test_kth_open),
        TEST(test_open_fails),
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
        TEST(test_kth_malloc),
#endif
        TEST(test_disk_full),
        TEST(test_disk_filled_by_others),
        TEST(test_map_full),
        TEST(test_map_full_settles_scattered_rows),
        TEST(test_map_full_of_notices),
        TEST(test_map_full_of_large_rows),
        TEST(test_map_full_with_reader),
        TEST(test_records_full),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
