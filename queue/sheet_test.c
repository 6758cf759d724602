/* Sheets against exact counts: sums, names of sites with much mail, buckets of time, the record. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "queue/queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define BEGAN_MS INT64_C(1764500000000)

static struct sheet sheet, other;

static void count_at(struct sheet *s, const char *site, enum tally_count count, uint8_t reason,
                     int64_t at_ms)
{
    struct queue_note note = {.reason = reason, .site_len = (uint8_t)strlen(site), .at_ms = at_ms};

    assert_true(strlen(site) <= SHEET_NAME_MAX);
    memcpy(note.site, site, note.site_len);
    sheet_count(s, &note, count, BEGAN_MS);
}

static uint64_t cells(const struct sheet *s, const char *site, unsigned count, unsigned reason)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->cells_len; i++) {
        const struct sheet_cell *c = &s->cells[i];
        bool named = site == NULL;

        if (!named && c->site == SHEET_OTHERS)
            named = strcmp(site, "(others)") == 0;
        else if (!named)
            named = s->sites[c->site].len == strlen(site) &&
                    memcmp(s->sites[c->site].name, site, strlen(site)) == 0;
        if (named && c->count == count && (reason >= SHEET_REASONS || c->reason == reason))
            n += c->n;
    }
    return n;
}

static uint64_t bucket_sum(const struct sheet *s, enum sheet_series series)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < s->buckets_len; i++)
        n += s->buckets[i][series];
    return n;
}

static void test_counts(void **state)
{
    (void)state;
    sheet_init(&sheet);
    count_at(&sheet, "gmail", TALLY_DELIVERED, 0, BEGAN_MS + 500);
    count_at(&sheet, "gmail", TALLY_DELIVERED, 0, BEGAN_MS + 61000);
    count_at(&sheet, "gmail", TALLY_DEFERRED, 17, BEGAN_MS + 1000);
    count_at(&sheet, "", TALLY_FAILED, 4, BEGAN_MS - 5000); /* a clock that was set back */
    count_at(&sheet, "docomo", TALLY_EXPIRED, 10, BEGAN_MS + 2000);
    assert_int_equal(cells(&sheet, "gmail", TALLY_DELIVERED, 99), 2);
    assert_int_equal(cells(&sheet, "gmail", TALLY_DEFERRED, 17), 1);
    assert_int_equal(cells(&sheet, "", TALLY_FAILED, 4), 1);
    assert_int_equal(cells(&sheet, "docomo", TALLY_EXPIRED, 10), 1);
    assert_int_equal(sheet.spans[0], 1); /* below a second */
    assert_int_equal(sheet.spans[7], 1); /* 60 to 120 s */
    assert_int_equal(sheet.width, 0);
    assert_int_equal(sheet.first, BEGAN_MS / 1000);
    assert_int_equal(sheet.buckets_len, 62);
    assert_int_equal(sheet.buckets[0][SHEET_DELIVERED], 1);
    assert_int_equal(sheet.buckets[0][SHEET_ENDED], 1);
    assert_int_equal(sheet.buckets[1][SHEET_DEFERRED], 1);
    assert_int_equal(sheet.buckets[2][SHEET_ENDED], 1);
    assert_int_equal(sheet.buckets[61][SHEET_DELIVERED], 1);
}

static void round_trip(const struct sheet *s)
{
    struct buf first = {0}, second = {0};
    struct sheet *read = malloc(sizeof(*read));

    assert_non_null(read);
    sheet_encode(&first, s);
    assert_int_equal(sheet_decode(buf_str(&first), read), 0);
    sheet_encode(&second, read);
    assert_int_equal(first.len, second.len);
    assert_memory_equal(first.data, second.data, first.len);
    free(read);
    buf_done(&first);
    buf_done(&second);
}

/* 5,000 sites that have some each, and three with much: these have names, whenever they came, and
 * nothing is lost. */
static void test_many_sites(void **state)
{
    uint64_t exact[3] = {0}, sum = 0, named = 0;
    struct rng rng;
    struct buf out = {0};

    (void)state;
    rng_seed(&rng, 7);
    sheet_init(&sheet);
    for (int i = 0; i < 200000; i++) {
        uint64_t dice = rng_below(&rng, 100);
        enum tally_count count = TALLY_DELIVERED + (enum tally_count)rng_below(&rng, 3);
        uint8_t reason = count == TALLY_DELIVERED ? 0 : (uint8_t)rng_below(&rng, 22);
        char site[32];

        if (dice < 20 && i > 50000)
            snprintf(site, sizeof(site), "large-%d", (int)(dice % 3));
        else
            snprintf(site, sizeof(site), "small-%d.example", (int)rng_below(&rng, 5000));
        if (site[0] == 'l')
            exact[site[6] - '0']++;
        count_at(&sheet, site, count, reason, BEGAN_MS + i);
    }
    for (int i = 0; i < 3; i++) {
        char site[32];
        uint64_t found = 0;

        snprintf(site, sizeof(site), "large-%d", i);
        for (unsigned count = TALLY_DELIVERED; count < TALLY_COUNTS; count++)
            found += cells(&sheet, site, count, 99);
        assert_true(found <= exact[i]);
        assert_true(found >= exact[i] - exact[i] / 20);
    }
    for (uint32_t i = 0; i < sheet.cells_len; i++) {
        sum += sheet.cells[i].n;
        named += sheet.cells[i].site != SHEET_OTHERS;
    }
    assert_int_equal(sum, 200000);
    assert_int_equal(named, sheet.cells_named);
    assert_int_equal(bucket_sum(&sheet, SHEET_DELIVERED) + bucket_sum(&sheet, SHEET_ENDED) +
                         bucket_sum(&sheet, SHEET_DEFERRED),
                     200000);
    round_trip(&sheet);
    sheet_encode(&out, &sheet);
    assert_true(out.len < 4000); /* a page of LMDB */
    buf_done(&out);
}

/* A day of seconds, then a day a week later: buckets are wide, and right. */
static void test_time(void **state)
{
    (void)state;
    sheet_init(&sheet);
    for (int64_t at = 0; at < 86400; at += 7)
        count_at(&sheet, "a", TALLY_DELIVERED, 0, BEGAN_MS + at * 1000);
    assert_true(sheet.buckets_len > SHEET_BUCKETS / 2 && sheet.buckets_len <= SHEET_BUCKETS);
    for (uint32_t i = 1; i + 1 < sheet.buckets_len; i++) {
        uint64_t mean = (UINT64_C(1) << sheet.width) / 7;

        assert_in_range(sheet.buckets[i][SHEET_DELIVERED], mean - 1, mean + 1);
    }
    count_at(&sheet, "a", TALLY_DELIVERED, 0, BEGAN_MS + INT64_C(7) * 86400000);
    assert_int_equal(bucket_sum(&sheet, SHEET_DELIVERED), 86400 / 7 + 2);
    assert_int_equal(sheet.buckets[sheet.buckets_len - 1][SHEET_DELIVERED], 1);
    /* Times that no bucket is wide enough for. */
    count_at(&sheet, "a", TALLY_DELIVERED, 0, INT64_MAX);
    count_at(&sheet, "a", TALLY_DELIVERED, 0, BEGAN_MS);
    assert_int_equal(bucket_sum(&sheet, SHEET_DELIVERED), 86400 / 7 + 4);
    round_trip(&sheet);
}

/* Sheets of shards, of other sites, at other times, sum up. */
static void test_sum(void **state)
{
    uint64_t cells_sum = 0, spans = 0;

    (void)state;
    sheet_init(&sheet);
    for (int shard = 0; shard < 4; shard++) {
        sheet_init(&other);
        for (int i = 0; i < 1000; i++) {
            char site[32];

            snprintf(site, sizeof(site), "%s%d", i % 2 == 0 ? "all" : "one",
                     i % 2 == 0 ? i % 4 : shard * 100 + i % 60);
            count_at(&other, site, TALLY_DELIVERED, 0,
                     BEGAN_MS + INT64_C(1000) * (i * (shard + 1) + (3 - shard) * 500));
        }
        sheet_add(&sheet, &other);
    }
    assert_int_equal(cells(&sheet, "all0", TALLY_DELIVERED, 0), 1000);
    assert_int_equal(cells(&sheet, "all2", TALLY_DELIVERED, 0), 1000);
    for (uint32_t i = 0; i < sheet.cells_len; i++)
        cells_sum += sheet.cells[i].n;
    for (int i = 0; i < SHEET_SPANS; i++)
        spans += sheet.spans[i];
    assert_int_equal(cells_sum, 4000);
    assert_int_equal(spans, 4000);
    assert_int_equal(bucket_sum(&sheet, SHEET_DELIVERED), 4000);
    assert_in_range(sheet.first << sheet.width, BEGAN_MS / 1000 - (1 << sheet.width),
                    BEGAN_MS / 1000 + 500);
    /* An empty one changes nothing. */
    sheet_init(&other);
    sheet_add(&sheet, &other);
    assert_int_equal(bucket_sum(&sheet, SHEET_DELIVERED), 4000);
    sheet_add(&other, &sheet);
    assert_int_equal(bucket_sum(&other, SHEET_DELIVERED), 4000);
}

/* What is cut or damaged is refused, or can be counted on; what a later build puts behind is passed
 * by. */
static void test_damaged(void **state)
{
    struct buf out = {0};

    (void)state;
    sheet_init(&sheet);
    for (int i = 0; i < 300; i++) {
        char site[32];

        snprintf(site, sizeof(site), "site-%d", i % 40);
        count_at(&sheet, site, TALLY_DELIVERED + (unsigned)i % 3, (uint8_t)(i % 22),
                 BEGAN_MS + i * 100);
    }
    sheet_encode(&out, &sheet);
    for (size_t len = 0; len < out.len; len++)
        assert_int_equal(sheet_decode((struct str){(char *)out.data, len}, &other), -EBADMSG);
    for (size_t bit = 8; bit < out.len * 8; bit++) {
        out.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (sheet_decode(buf_str(&out), &other) == 0)
            for (int i = 0; i < 100; i++) {
                char site[32];

                snprintf(site, sizeof(site), "new-%d", i);
                count_at(&other, site, TALLY_FAILED, (uint8_t)(i % 32), BEGAN_MS + i);
            }
        out.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    buf_puts(&out, "more");
    assert_int_equal(sheet_decode(buf_str(&out), &other), 0);
    out.data[0] = 2;
    assert_int_equal(sheet_decode(buf_str(&out), &other), -EPROTO);
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),  cmocka_unit_test(test_many_sites),
        cmocka_unit_test(test_time),    cmocka_unit_test(test_sum),
        cmocka_unit_test(test_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
