#include "tools/commands/warmup_plan.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/clock.h"
#include "config/config_load.h"
#include "tools/commands/warmup_print.h"

static const char text[] = "sources: {a: {ipv4: 192.0.2.1}}\n"
                           "warmup:\n"
                           "  schedules: {mine: {steps: [100, 180, 320, 560]}}\n"
                           "  sources: {a: {schedule: mine}}\n";

static struct config *config_of(const char *yaml)
{
    struct buf errors = {0};
    struct config *c = NULL;

    if (config_load_text("test.yaml", str_of(yaml), &c, &errors) != 0)
        fail_msg("%.*s", STR_FMT(buf_str(&errors)));
    return c;
}

struct seen {
    uint32_t days;
    struct plan_day day[40];
};

static bool see(void *arg, const struct plan_day *day)
{
    struct seen *s = arg;

    assert_true(s->days < 40);
    s->day[s->days++] = *day;
    return true;
}

static struct plan plan_of(const struct config *c, const char *mix)
{
    struct plan p = {.config = c, .today = 20000};
    struct buf why = {0};

    assert_int_equal(plan_mix_parse(&p, str_of(mix), &why), 0);
    return p;
}

/* Mail is always there: a stage a day, then no cap. */
static void test_caps(void **state)
{
    struct config *c = config_of(text);
    struct plan p = plan_of(c, "google=50,microsoft=50");
    struct seen s = {0};

    (void)state;
    assert_int_equal(plan_run(&p, see, &s), 0);
    assert_int_equal(s.days, 5);
    assert_int_equal(s.day[0].day, 20000);
    assert_int_equal(s.day[0].caps[0], 100);
    assert_int_equal(s.day[0].caps[1], 50); /* half for Microsoft */
    assert_int_equal(s.day[0].most, 100);   /* 50 there, and so 50 at Google */
    assert_int_equal(s.day[3].most, 560);
    assert_true(s.day[4].most == UINT64_MAX);
    config_unref(c);
}

/* A list: what is short at one provider holds its stage there. */
static void test_list(void **state)
{
    struct config *c = config_of(text);
    struct plan p = plan_of(c, "google=90,default=10");
    struct seen s = {0};

    (void)state;
    p.list = 1000; /* 900 and 100 */
    assert_int_equal(plan_run(&p, see, &s), 0);
    assert_int_equal(s.days, 4); /* 100 + 180 + 320 + 300 */
    assert_int_equal(s.day[0].sent, 200);
    assert_int_equal(s.day[0].left, 800);
    assert_int_equal(s.day[1].caps[1], 180);
    assert_int_equal(s.day[2].caps[1], 180);
    assert_int_equal(s.day[3].left, 0);
    assert_int_equal(s.day[3].sent, 300);
    p.source = "b";
    assert_int_equal(plan_run(&p, see, &s), -ENOENT);
    config_unref(c);
}

/* From where streams stand: of today's cap the rest, and the stage's successors. */
static void test_starts(void **state)
{
    static const struct plan_start starts[] = {{"a", "google", 2, 300, false},
                                               {"a", "default", 4, 0, false}};
    struct config *c = config_of(text);
    struct plan p = plan_of(c, "google=90,default=10");
    struct seen s = {0};

    (void)state;
    p.starts = starts;
    p.starts_len = ARRAY_LEN(starts);
    p.list = 1000; /* 900 and 100 */
    assert_int_equal(plan_run(&p, see, &s), 0);
    assert_int_equal(s.day[0].caps[0], 320);
    assert_true(s.day[0].caps[1] == UINT64_MAX);
    assert_int_equal(s.day[0].sent, 20 + 100);
    assert_int_equal(s.day[1].caps[0], 560);
    assert_int_equal(s.days, 3); /* 20 + 560 + 320 */
    config_unref(c);
}

/* What is paused stays in its stage; when all others are through, no day differs from the next. */
static void test_held(void **state)
{
    static const struct plan_start starts[] = {{"a", "google", 1, 0, true}};
    struct config *c = config_of(text);
    struct plan p = plan_of(c, "google=90,default=10");
    struct seen s = {0};

    (void)state;
    p.starts = starts;
    p.starts_len = ARRAY_LEN(starts);
    assert_int_equal(plan_run(&p, see, &s), 0);
    assert_int_equal(s.days, 5);
    assert_int_equal(s.day[0].caps[0], 180);
    assert_int_equal(s.day[4].caps[0], 180);
    assert_true(s.day[4].caps[1] == UINT64_MAX);
    config_unref(c);
}

static void test_mix(void **state)
{
    static const struct {
        const char *mix, *why;
    } cases[] = {{"google=50", "are 50 in all"},
                 {"google", "is no part"},
                 {"google=x,default=10", "is no part"},
                 {"=100", "is no part"},
                 {"gogle=100", "no provider 'gogle'"},
                 {"google=101", "is no part"},
                 {"", "are 0 in all"}};
    struct config *c = config_of(text);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct plan p = {.config = c};
        struct buf why = {0};

        assert_int_equal(plan_mix_parse(&p, str_of(cases[i].mix), &why), -EINVAL);
        buf_putc(&why, 0);
        assert_non_null(strstr((const char *)why.data, cases[i].why));
        buf_done(&why);
    }
    config_unref(c);
}

/* No line is longer than the screen. Then all is made one line, with a 0 behind it. */
static void check_lines(struct buf *out, unsigned width)
{
    unsigned columns = 0;
    size_t to = 0;

    for (size_t i = 0; i < out->len; i++) {
        columns += (out->data[i] & 0xc0) != 0x80; /* "…" is one */
        if (out->data[i] == '\n')
            columns = 0;
        if (columns > width)
            fail_msg("%u columns: %.*s", width, STR_FMT(buf_str(out)));
        if (out->data[i] == '\n')
            out->data[i] = ' ';
        if (out->data[i] != ' ' || to == 0 || out->data[to - 1] != ' ')
            out->data[to++] = out->data[i];
    }
    out->len = to;
    buf_putc(out, 0);
}

/* The longest that may be, on screens of all widths: all that a pipe gets is there. */
static void test_screen(void **state)
{
    json_t *stream = json_pack(
        "{s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:b,s:s,s:I,s:I,s:i,s:i,s:i}", "source",
        "signer:news.example.com", "provider", "yahoo_japan", "stage", 31, "stages", 55, "cap",
        1234, "used", 1234, "hour_share", 1234, "hour_used", 1234, "next_cap", 1234567, "paused", 1,
        "why", "back some stages: the answers were bad", "day_ends_ms",
        (json_int_t)clock_wall_ms() + 86000000, "next_ms", (json_int_t)clock_wall_ms() + 3500000,
        "deferred", 1234, "bounced", 123, "complained", 12);
    json_t *past = json_copy(stream);

    (void)state;
    json_object_set_new(past, "day", json_string("2026-11-30"));
    json_object_set_new(past, "delivered", json_integer(1000));
    for (unsigned width = 80; width < 300; width++) {
        struct buf now = {0}, days = {0};

        warmup_put_stream(&now, stream, true, width);
        check_lines(&now, width);
        assert_non_null(strstr((const char *)now.data, "1,234 deferred, 123 bounced, 12"));
        assert_true((strstr((const char *)now.data, " NEXT WHY ") != NULL) == (width >= 180));
        warmup_put_past(&days, past, true, width);
        check_lines(&days, width);
        assert_non_null(strstr((const char *)days.data, "the answers were bad"));
        assert_true((strstr((const char *)days.data, "1,000 delivered, 1,234 deferred, 123") !=
                     NULL) == (width < 180));
        buf_done(&now);
        buf_done(&days);
    }
    json_decref(stream);
    json_decref(past);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_screen), cmocka_unit_test(test_caps),
                                       cmocka_unit_test(test_list),   cmocka_unit_test(test_starts),
                                       cmocka_unit_test(test_held),   cmocka_unit_test(test_mix)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
