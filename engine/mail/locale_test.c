#include "mail/locale.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

static const struct locale *of(const char *name)
{
    const struct locale *l = locale_find(str_of(name));

    assert_non_null(l);
    return l;
}

static void test_dates(void **state)
{
    static const struct {
        const char *locale, *wants[LOCALE_STYLES];
    } rows[] = {
        {"de", {"28.11.2026", "28. November 2026", "Samstag, 28. November 2026"}},
        {"de_AT", {"28.11.2026", "28. November 2026", "Samstag, 28. November 2026"}},
        {"en", {"11/28/2026", "November 28, 2026", "Saturday, November 28, 2026"}},
        {"en-gb", {"28/11/2026", "28 November 2026", "Saturday, 28 November 2026"}},
        {"es", {"28/11/2026", "28 de noviembre de 2026", "sábado, 28 de noviembre de 2026"}},
        {"fr", {"28/11/2026", "28 novembre 2026", "samedi 28 novembre 2026"}},
        {"it", {"28/11/2026", "28 novembre 2026", "sabato 28 novembre 2026"}},
        {"ja", {"2026/11/28", "2026年11月28日", "2026年11月28日土曜日"}},
        {"ko", {"2026. 11. 28.", "2026년 11월 28일", "2026년 11월 28일 토요일"}},
        {"nl", {"28-11-2026", "28 november 2026", "zaterdag 28 november 2026"}},
        {"pl", {"28.11.2026", "28 listopada 2026", "sobota, 28 listopada 2026"}},
        {"pt-BR", {"28/11/2026", "28 de novembro de 2026", "sábado, 28 de novembro de 2026"}},
        {"sv", {"2026-11-28", "28 november 2026", "lördag 28 november 2026"}},
        {"zh-CN", {"2026/11/28", "2026年11月28日", "2026年11月28日星期六"}},
    };
    struct locale_date date;
    struct buf out = {0};

    (void)state;
    assert_int_equal(locale_date_parse(STR("2026-11-28T23:59:00+09:00"), &date), 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (int style = 0; style < LOCALE_STYLES; style++) {
            buf_clear(&out);
            locale_put_date(&out, of(rows[i].locale), &date, (enum locale_style)style);
            buf_putc(&out, '\0');
            assert_string_equal((char *)out.data, rows[i].wants[style]);
        }
    buf_done(&out);
    assert_null(locale_find(STR("xx")));
    assert_null(locale_find(STR("")));
    assert_null(locale_find(STR("deu")));
}

/* Each day of 9,999 years by the C library, with its week day. */
static void test_calendar(void **state)
{
    static const char *const days[] = {"日", "月", "火", "水", "木", "金", "土"};
    static const char *const no_dates[] = {"2026-02-29",  "1900-02-29", "2026-13-01", "2026-00-10",
                                           "2026-04-31",  "0000-01-01", "2026-1-1",   "26-01-01",
                                           "2026-01-01x", "",           "2026/01/01"};
    struct locale_date date;
    struct buf out = {0};

    (void)state;
    for (int64_t s = -62135596800; s <= 253402300799; s += 86400 * 13 + 17) {
        struct locale_date d = locale_date_of(s);
        struct tm tm;
        time_t t = s;

        assert_non_null(gmtime_r(&t, &tm));
        assert_true(locale_date_valid(&d));
        assert_int_equal(d.year, tm.tm_year + 1900);
        assert_int_equal(d.month, tm.tm_mon + 1);
        assert_int_equal(d.day, tm.tm_mday);
        buf_clear(&out);
        locale_put_date(&out, of("ja"), &d, LOCALE_FULL);
        assert_memory_equal(out.data + out.len - 9, days[tm.tm_wday], 3);
    }
    buf_done(&out);
    for (size_t i = 0; i < ARRAY_LEN(no_dates); i++)
        assert_int_equal(locale_date_parse(str_of(no_dates[i]), &date), -EINVAL);
    assert_int_equal(locale_date_parse(STR("2000-02-29"), &date), 0);
    assert_int_equal(locale_date_parse(STR("2026-11-28 09:00"), &date), 0);
}

static void test_numbers(void **state)
{
    static const struct {
        const char *locale, *number;
        int decimals;
        const char *want; /* NULL: it is none */
    } rows[] = {
        {"de", "1234567.891", 2, "1.234.567,89"},
        {"en", "1234567.891", -1, "1,234,567.891"},
        {"fr", "1234567.5", 0, "1\u202f234\u202f568"},
        {"es", "1234", 0, "1234"}, /* as Spanish has it: from five digits on */
        {"es", "12345", 0, "12.345"},
        {"pl", "12345", 0, "12\u00a0345"},
        {"ja", "1000", -1, "1,000"},
        {"ja", "999", -1, "999"},
        {"en", "999.995", 2, "1,000.00"},
        {"en", "99.5", 0, "100"},
        {"en", "-0.004", 2, "0.00"},
        {"en", "-0.005", 2, "-0.01"},
        {"en", "0", 2, "0.00"},
        {"en", "007", -1, "7"},
        {"en", "5", 3, "5.000"},
        {"en", "0.9999999999", 9, "1.000000000"},
        {"en", "99999999999999999999999999", 0, "99,999,999,999,999,999,999,999,999"},
        {"en", "1e5", 0, NULL},
        {"en", "", 0, NULL},
        {"en", "-", 0, NULL},
        {"en", "1.", 0, NULL},
        {"en", ".5", 0, NULL},
        {"en", "1,5", 0, NULL},
        {"en", " 1", 0, NULL},
    };
    struct buf out = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int err;

        buf_clear(&out);
        err = locale_put_number(&out, of(rows[i].locale), str_of(rows[i].number), rows[i].decimals);
        assert_int_equal(err, rows[i].want == NULL ? -EINVAL : 0);
        buf_putc(&out, '\0');
        assert_string_equal((char *)out.data, rows[i].want == NULL ? "" : rows[i].want);
    }
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_dates),
                                       cmocka_unit_test(test_calendar),
                                       cmocka_unit_test(test_numbers)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
