/* The record stream: rotation, compression, retention, and what a start finds. */
#include "queue/testkit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <zstd.h>

#include "base/clock.h"
#include "queue/shard.h"
#include "queue/testkit_fsck.h"

/* Before the sync that is asked for; its result, 0 or an errno. */
static int (*on_sync)(int fd);

int fdatasync(int fd)
{
    int err = on_sync == NULL ? 0 : on_sync(fd);

    if (err == 0)
        return (int)syscall(SYS_fdatasync, fd);
    errno = err;
    return -1;
}

struct fixture {
    char *dir, *records;
    struct queue_options options;
    struct queue *q;
    struct queue_port *port;
    unsigned lines;
};

static void open_queue(struct fixture *f)
{
    const char *error = NULL;

    if (queue_open(&f->q, &f->options, &error) < 0)
        fail_msg("queue_open: %s", error);
    assert_int_equal(queue_port_open(&f->port, f->q, NULL, NULL), 0);
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
    char *path;

    f->dir = kit_dir();
    assert_true(asprintf(&path, "%s/queue", f->dir) > 0);
    assert_true(asprintf(&f->records, "%s/records", f->dir) > 0);
    f->options = (struct queue_options){.path = path,
                                        .map_bytes = 64u << 20,
                                        .records = {.path = f->records, .segment_bytes_max = 2000},
                                        .no_threads = true};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    close_queue(f);
    kit_remove(f->dir);
    free((char *)f->options.path);
    free(f->records);
    free(f->dir);
    free(f);
    return 0;
}

/* A change with numbered lines, of so many bytes at least. */
static void run_change(struct fixture *f, size_t bytes)
{
    struct kit_change *c = kit_change();

    do
        buf_printf(&c->change.records, "{\"line\":%u,\"fill\":\"%0100u\"}\n", ++f->lines, 0u);
    while (c->change.records.len < bytes);
    queue_submit(f->port, 0, &c->change);
    while (!c->done) {
        queue_pump(f->q);
        queue_port_poll(f->port);
    }
    assert_int_equal(c->result, 0);
    buf_done(&c->change.records);
    free(c);
}

/* n changes with one numbered line each. */
static void run_lines(struct fixture *f, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        run_change(f, 1);
}

static size_t read_plain(const char *path, char *out, size_t n, bool compressed)
{
    static char raw[1 << 16];
    FILE *file = fopen(path, "re");
    size_t len;

    assert_non_null(file);
    len = fread(raw, 1, sizeof(raw), file);
    fclose(file);
    if (compressed) {
        ZSTD_DCtx *zstd = ZSTD_createDCtx();

        len = ZSTD_decompressDCtx(zstd, out, n, raw, len);
        ZSTD_freeDCtx(zstd);
        assert_false(ZSTD_isError(len));
        return len;
    }
    assert_true(len <= n);
    memcpy(out, raw, len);
    return len;
}

struct files {
    size_t plain, compressed, bytes;
    unsigned lines, first, last;
};

/* Looks at all files; lines must be whole and none there twice. */
static struct files look(struct fixture *f)
{
    static char text[1 << 16];
    static bool seen[10000];
    struct files out = {.first = UINT32_MAX};
    DIR *dir = opendir(f->records);
    struct dirent *entry;
    char path[600];

    memset(seen, 0, sizeof(seen));
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        bool compressed = strstr(entry->d_name, ".zst") != NULL;
        size_t len, at = 0;

        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", f->records, entry->d_name);
        len = read_plain(path, text, sizeof(text) - 1, compressed);
        text[len] = 0;
        out.bytes += len;
        out.plain += !compressed;
        out.compressed += compressed;
        while (at < len) {
            unsigned number;
            char *end = strchr(text + at, '\n');

            assert_non_null(end);
            assert_int_equal(sscanf(text + at, "{\"line\":%u,", &number), 1);
            assert_true(number < 10000 && !seen[number]);
            seen[number] = true;
            out.lines++;
            out.first = number < out.first ? number : out.first;
            out.last = number > out.last ? number : out.last;
            at = (size_t)(end - text) + 1;
        }
    }
    if (dir != NULL)
        closedir(dir);
    return out;
}

static void test_rotation(void **state)
{
    struct fixture *f = *state;
    struct files files;

    open_queue(f);
    run_lines(f, 100);
    close_queue(f);
    files = look(f);
    assert_int_equal(files.lines, 100);
    assert_true(files.plain >= 5);
    assert_true(files.bytes / files.plain <= 2200);
    /* A restart begins a new file and adds to none. */
    open_queue(f);
    run_lines(f, 1);
    close_queue(f);
    assert_int_equal(look(f).plain, files.plain + 1);
    assert_int_equal(look(f).lines, 101);
}

static void test_compression(void **state)
{
    struct fixture *f = *state;
    struct files files;

    f->options.records.zstd = true;
    open_queue(f);
    run_lines(f, 100);
    close_queue(f);
    files = look(f);
    assert_int_equal(files.lines, 100);
    assert_true(files.compressed >= 4);
    assert_true(files.plain <= 3);
    /* What an earlier run left plain is compressed by the next. */
    open_queue(f);
    run_lines(f, 30);
    close_queue(f);
    files = look(f);
    assert_int_equal(files.lines, 130);
    assert_true(files.plain <= 3);
}

static void test_retention(void **state)
{
    struct fixture *f = *state;
    struct files files;

    f->options.records.retention_bytes = 5000;
    open_queue(f);
    run_lines(f, 200);
    close_queue(f);
    files = look(f);
    assert_true(files.bytes >= 2000 && files.bytes < 12000);
    assert_int_equal(files.last, 200);
    assert_int_equal(files.lines, files.last - files.first + 1);
}

/* What was synced while its segment was open needs no further line for the segment to be finished,
 * and a short retention is looked after at its own pace. */
static void test_short_times(void **state)
{
    struct fixture *f = *state;
    int64_t now_ms = clock_wall_ms();
    struct records *r;

    f->options.records.segment_age_s_max = 2;
    f->options.records.retention_s = 5;
    f->options.records.zstd = true;
    open_queue(f);
    r = &f->q->shards[0]->records;
    run_lines(f, 5);
    syncer_round(f->q);
    poll(NULL, 0, 1001); /* until the committer looks again, and trims */
    queue_pump(f->q);
    records_rotate(r, now_ms + 1500);
    assert_non_null(r->active);
    records_rotate(r, now_ms + 2500);
    assert_null(r->active);
    records_sync(r);
    records_finish(r, now_ms + 2500);
    assert_int_equal(look(f).compressed, 1);
    records_finish(r, now_ms + 3500);
    assert_int_equal(look(f).plain + look(f).compressed, 1);
    records_finish(r, now_ms + 6500);
    assert_int_equal(look(f).plain + look(f).compressed, 0);
    close_queue(f);
}

/* Looks at the clock as the syncer does, but every 50 minutes. */
static void pass(struct fixture *f, int64_t from_ms, int64_t to_ms)
{
    for (; from_ms < to_ms; from_ms += 3000000)
        records_finish(&f->q->shards[0]->records, from_ms);
}

/* A segment goes when its time has passed; a jump of the clock is no passing of time for a day. */
static void test_clock_jumps(void **state)
{
    static const int64_t day_ms = 86400000;
    struct fixture *f = *state;
    int64_t now_ms = clock_wall_ms();
    unsigned left;

    f->options.records.retention_s = 30 * 86400;
    open_queue(f);
    run_lines(f, 100);
    syncer_round(f->q);
    syncer_round(f->q);
    pass(f, now_ms + 1000 * day_ms, now_ms + 1001 * day_ms);
    pass(f, now_ms, now_ms + 29 * day_ms);
    assert_int_equal(look(f).lines, 100);
    pass(f, now_ms + 29 * day_ms, now_ms + 31 * day_ms);
    left = look(f).lines; /* the segment that is written */
    assert_in_range(left, 1, 99);
    run_lines(f, 100);
    syncer_round(f->q);
    syncer_round(f->q);
    pass(f, now_ms + 40 * day_ms, now_ms + 42 * day_ms);
    assert_true(look(f).lines < 100);
    close_queue(f);
}

/* An operator removes files, or the directory with all of them: what comes afterwards is recorded.
 */
static void test_removed(void **state)
{
    struct fixture *f = *state;
    char path[600];

    f->options.records.segment_bytes_max = 1 << 20;
    open_queue(f);
    for (int whole = 0; whole < 2; whole++) {
        unsigned before = f->lines + 5;

        run_lines(f, 5);
        syncer_round(f->q);
        snprintf(path, sizeof(path), "%s.gone", f->records);
        assert_int_equal(rename(f->records, path), 0);
        if (whole == 0)
            assert_int_equal(mkdir(f->records, 0755), 0);
        kit_remove(path);
        syncer_round(f->q);
        run_lines(f, 1); /* in nobody's file, or the first of the new one */
        run_lines(f, 5);
        syncer_round(f->q);
        assert_in_range(look(f).lines, 5, 6);
        assert_in_range(look(f).first, before + 1, before + 2);
        assert_int_equal(look(f).last, f->lines);
        kit_remove(f->records);
        syncer_round(f->q);
        run_lines(f, 1);
    }
    close_queue(f);
}

/* Without a records directory lines are dropped, not kept for ever. */
static struct records *synced;
static unsigned syncs;

static int fails_once(int fd)
{
    (void)fd;
    return syncs++ == 0 ? EIO : 0;
}

/* The committer hears of the failed sync while the next one is under way, and cannot write either.
 */
static int catches_up_in_vain(int fd)
{
    struct shard *s = CONTAINER_OF(synced, struct shard, records);

    (void)fd;
    if (syncs++ > 0)
        return EIO; /* of what the committer wrote again */
    records_catch_up(s);
    return 0;
}

/* A sync that succeeds because the kernel has told of the failure already proves nothing: the lines
 * stay in the outbox until they are written again. */
static void test_sync_beside_catch_up(void **state)
{
    struct fixture *f = *state;
    uint64_t before;

    open_queue(f);
    run_lines(f, 5);
    synced = &f->q->shards[0]->records;
    before = synced->synced;
    syncs = 0;
    on_sync = fails_once;
    records_sync(synced);
    assert_true(synced->rewrite && synced->synced < synced->written);
    syncs = 0;
    on_sync = catches_up_in_vain;
    records_sync(synced);
    on_sync = NULL;
    assert_int_equal(syncs, 2);
    assert_int_equal(synced->synced, before);
    assert_true(records_behind(synced));
    records_catch_up(f->q->shards[0]);
    syncer_round(f->q);
    assert_int_equal(synced->synced, synced->sequence);
    assert_int_equal(look(f).lines, 5);
    close_queue(f);
}

static int fails(int fd)
{
    (void)fd;
    return EIO;
}

static MDB_stat outbox_stat(const struct shard *s)
{
    MDB_stat stat;
    MDB_txn *txn;

    assert_int_equal(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_stat(txn, s->outbox, &stat), 0);
    mdb_txn_abort(txn);
    return stat;
}

/* Has the page that begins with the line say that it is the first of a thousand. */
static void damage_header(struct fixture *f, unsigned line)
{
    static uint8_t page[4096];
    char text[40];
    uint32_t pages = 1000;
    char path[512];
    off_t at = 0;
    int fd;

    snprintf(text, sizeof(text), "{\"line\":%u,", line);
    snprintf(path, sizeof(path), "%s/shard-000/data.mdb", f->options.path);
    fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    do
        assert_int_equal(pread(fd, page, sizeof(page), at += 4096), sizeof(page));
    while (memcmp(page + CHECK_HEADER_BYTES + OUTBOX_HEAD_BYTES, text, strlen(text)) != 0);
    assert_int_equal(pwrite(fd, &pages, sizeof(pages), at + 12), sizeof(pages));
    close(fd);
}

/* Closes the queue with lines that wait in the outbox. */
static void close_unsynced(struct fixture *f)
{
    on_sync = fails;
    close_queue(f);
    on_sync = NULL;
}

/* Leaves len bytes of the only file. */
static void cut_file(struct fixture *f, off_t len)
{
    struct dirent *entry;
    char path[600];
    DIR *dir = opendir(f->records);

    assert_non_null(dir);
    do
        assert_non_null(entry = readdir(dir));
    while (entry->d_name[0] == '.');
    snprintf(path, sizeof(path), "%s/%s", f->records, entry->d_name);
    closedir(dir);
    assert_int_equal(truncate(path, len), 0);
}

/* The lines that wait go to the beginning of a file that somebody cut, also where the start cannot
 * write them, and they are written later: no hole is left, and nothing is there twice, however much
 * had been in front of them. */
static void test_cut_file(void **state)
{
    static const unsigned before[] = {40, 1};
    struct fixture *f = *state;
    struct files found;
    unsigned first;

    f->options.records.segment_bytes_max = 1u << 20;
    for (size_t i = 0; i < ARRAY_LEN(before); i++) {
        open_queue(f);
        run_lines(f, before[i]);
        syncer_round(f->q);
        first = f->lines + 1;
        run_change(f, 2000); /* at once: all of it waits, or nothing */
        close_unsynced(f);
        cut_file(f, 50);
        on_sync = fails;
        open_queue(f);
        on_sync = NULL;
        assert_true(records_behind(&f->q->shards[0]->records));
        run_lines(f, 5);
        assert_false(records_behind(&f->q->shards[0]->records));
        found = look(f);
        assert_int_equal(found.first, first);
        assert_int_equal(found.lines, f->lines - first + 1);
        close_queue(f);
        kit_remove(f->records);
    }
}

/* Many lines fill pages of their own. A page whose header is damaged is not freed, which would free
 * what is others', and is not written again by each start over what its file got since. */
static void test_pages(void **state)
{
    struct fixture *f = *state;
    unsigned left = 0;

    f->options.records.segment_bytes_max = 1u << 20;
    open_queue(f);
    run_change(f, 20000); /* some pages */
    assert_int_equal(outbox_stat(f->q->shards[0]).ms_overflow_pages, 5);
    close_unsynced(f);
    open_queue(f);
    assert_int_equal(look(f).lines, f->lines);
    assert_int_equal(outbox_stat(f->q->shards[0]).ms_entries, 0);
    left = f->lines + 1;
    run_change(f, 20000); /* some pages */
    close_unsynced(f);
    damage_header(f, left);
    for (int i = 0; i < 3; i++) {
        open_queue(f);
        run_lines(f, 20);
        assert_int_equal(look(f).lines, f->lines);
        close_queue(f);
        assert_int_equal(look(f).lines, f->lines);
    }
    open_queue(f);
    assert_int_equal(outbox_stat(f->q->shards[0]).ms_entries, 1);
    if (fsck_shard(f->q, 0, &(uint64_t){0}, &(uint64_t){0}) != NULL)
        fail_msg("%s", fsck_shard(f->q, 0, &(uint64_t){0}, &(uint64_t){0}));
    close_queue(f);
}

static void test_records_off(void **state)
{
    struct fixture *f = *state;
    struct queue_counters counters;

    f->options.records.path = NULL;
    open_queue(f);
    run_lines(f, 10);
    queue_counters(f->q, 0, &counters);
    assert_int_equal(counters.records_lag, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_rotation),    TEST(test_compression),
        TEST(test_retention),   TEST(test_clock_jumps),
        TEST(test_removed),     TEST(test_records_off),
        TEST(test_short_times), TEST(test_sync_beside_catch_up),
        TEST(test_cut_file),    TEST(test_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
