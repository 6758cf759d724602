/* The table of 'hayauma status'. */
#include "tools/commands/status_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void check(int rows, const char *wanted)
{
    json_t *now = json_pack("{s:{s:i}, s:[]}", "queue", "rows", rows, "destinations");
    struct buf out = {0};

    status_table(NULL, now, 0, 20, &out);
    buf_putc(&out, 0);
    assert_non_null(strstr((const char *)out.data, wanted));
    buf_done(&out);
    json_decref(now);
}

/* While the queue is read after a start, that no destination is known does not mean that there is
 * none. */
static void test_no_destinations(void **state)
{
    (void)state;
    check(0, "\nnothing waits\n");
    check(5, "\nno destination is known yet\n");
}

static size_t columns(const char *line, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)line[i] & 0xc0) != 0x80; /* no kanji in here */
    return n;
}

/* The widest line of a screen on which everything is large. */
static size_t widest(unsigned width, char *found, size_t found_size)
{
    json_t *now = json_pack(
        "{s:s, s:s, s:I, s:I, s:i, s:i, s:{s:I, s:I, s:I}, s:{s:I, s:I, s:b, s:I, s:I, s:I, s:I, "
        "s:I}, s:{s:I, s:I, s:I, s:I, s:I}, s:{s:I}, s:[{s:s, s:I, s:I, s:I, s:I, s:{s:s, s:I, "
        "s:s, "
        "s:s}}]}",
        "version", "10.20.30", "node_id", "a-long-node-name.of-a-pool.example.com", "pid",
        (json_int_t)4194304, "now_ms", (json_int_t)9000000000, "workers", 64, "shards", 256,
        "counters", "received_messages", (json_int_t)99999999999, "delivered",
        (json_int_t)99999999999, "connect_failures", (json_int_t)99999999, "queue", "rows",
        (json_int_t)99999999999, "messages", (json_int_t)99999999999, "rows_complete", 0,
        "map_bytes", (json_int_t)1 << 50, "map_used_bytes", (json_int_t)1 << 49, "disk_free_bytes",
        (json_int_t)1 << 49, "quarantined", (json_int_t)123456, "commit_errors", (json_int_t)123456,
        "gauges", "sessions_in", (json_int_t)1000000, "sessions_out", (json_int_t)1000000,
        "connecting", (json_int_t)1000000, "in_memory", (json_int_t)100000000, "lanes_absent",
        (json_int_t)100000000, "process", "rss_bytes", (json_int_t)1 << 40, "destinations", "queue",
        "a-domain-whose-name-is-longer-than-the-column.example.com", "rows",
        (json_int_t)99999999999, "in_memory", (json_int_t)100000, "in_flight", (json_int_t)100000,
        "sessions", (json_int_t)100000, "wait", "reason", "back_off", "until_ms",
        (json_int_t)9000300000, "host", "mx1.example.com", "error",
        "421 4.7.0 so many words that no screen on earth has room for all of them, and some more, "
        "and more, until it is more than two hundred columns, since that is how wide screens are");
    struct buf out = {0};
    size_t most = 0;

    assert_non_null(now);
    status_table(NULL, now, width, 20, &out);
    buf_putc(&out, 0);
    for (const char *line = (const char *)out.data; *line != 0;) {
        size_t len = strcspn(line, "\n"), n = columns(line, len);

        most = n > most ? n : most;
        line += len + (line[len] == '\n');
    }
    strncpy(found, strstr((const char *)out.data, "back-off"), found_size - 1);
    buf_done(&out);
    json_decref(now);
    return most;
}

static void test_width(void **state)
{
    static const unsigned widths[] = {80, 81, 99, 100, 132, 200};
    char found[32] = "";

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(widths); i++)
        assert_int_equal(widest(widths[i], found, sizeof(found)), widths[i]);
    assert_memory_equal(found, "back-off 5m: mx1.example.com", 28);
    assert_true(widest(0, found, sizeof(found)) > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_no_destinations),
                                       cmocka_unit_test(test_width)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
