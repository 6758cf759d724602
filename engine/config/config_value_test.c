#include "config/config_value.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>

struct number_case {
    const char *text;
    int err;
    uint64_t value;
};

static void check(int (*parse)(struct str, uint64_t *), const struct number_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t v = 77; /* untouched on failure */
        int err = parse(str_of(cases[i].text), &v);

        if (err != cases[i].err || v != (err == 0 ? cases[i].value : 77))
            fail_msg("'%s': %d, %llu", cases[i].text, err, (unsigned long long)v);
    }
}

static void test_count(void **state)
{
    static const struct number_case cases[] = {
        {"0", 0, 0},
        {"10k", 0, 10000},
        {"10K", 0, 10000},
        {"1.5M", 0, 1500000},
        {"2 G", 0, 2000000000},
        {"0.001k", 0, 1},
        {"007", 0, 7},
        {"18446744073709551615", 0, UINT64_MAX},
        {"18446744073709551616", -ERANGE, 0},
        {"18446744073709551615k", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"k", -EINVAL, 0},
        {"-1", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {"1.5", -EINVAL, 0},
        {"1.k", -EINVAL, 0},
        {"1.0005M", -EINVAL, 0},
        {"10kk", -EINVAL, 0},
        {"10 k x", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"1e3", -EINVAL, 0},
        {"10k5", -EINVAL, 0},
        {" 1", -EINVAL, 0},
    };

    (void)state;
    check(config_parse_count, cases, ARRAY_LEN(cases));
}

static void test_bytes(void **state)
{
    static const struct number_case cases[] = {
        {"512", 0, 512},
        {"512B", 0, 512},
        {"1KiB", 0, 1024},
        {"5MiB", 0, 5242880},
        {"1.5GiB", 0, 1610612736},
        {"1kB", 0, 1000},
        {"1GB", 0, 1000000000},
        {"1 TiB", 0, UINT64_C(1) << 40},
        {"16777216TiB", -ERANGE, 0},
        {"5M", -EINVAL, 0},
        {"5mib", -EINVAL, 0},
        {"1.5B", -EINVAL, 0},
        {"MiB", -EINVAL, 0},
    };

    (void)state;
    check(config_parse_bytes, cases, ARRAY_LEN(cases));
}

static void test_duration(void **state)
{
    static const struct number_case cases[] = {
        {"0", 0, 0},          {"500ms", 0, 500},      {"30s", 0, 30000},
        {"5m", 0, 300000},    {"5min", 0, 300000},    {"2h", 0, 7200000},
        {"3d", 0, 259200000}, {"1w", 0, 604800000},   {"1h30m", 0, 5400000},
        {"1.5h", 0, 5400000}, {"1d 12h", -EINVAL, 0}, {"30", -EINVAL, 0},
        {"", -EINVAL, 0},     {"1y", -EINVAL, 0},     {"h", -EINVAL, 0},
        {"1h30", -EINVAL, 0}, {"0.5ms", -EINVAL, 0},  {"999999999999999d", -ERANGE, 0},
    };

    (void)state;
    check(config_parse_duration, cases, ARRAY_LEN(cases));
}

static void test_rate(void **state)
{
    static const struct {
        const char *text;
        int err;
        uint64_t messages;
        uint32_t period_ms;
        const char *printed; /* NULL: as text */
    } cases[] = {
        {"5/s", 0, 5, 1000, NULL},
        {"100/min", 0, 100, 60000, NULL},
        {"100/m", 0, 100, 60000, "100/min"},
        {"10k/h", 0, 10000, 3600000, NULL},
        {"20000/d", 0, 20000, 86400000, "20k/d"},
        {"1 / 10s", 0, 1, 10000, "1/10s"},
        {"1/31d", 0, 1, UINT32_C(2678400000), NULL},
        {"1/32d", -ERANGE, 0, 0, NULL},
        {"1/0", -ERANGE, 0, 0, NULL},
        {"1/", -EINVAL, 0, 0, NULL},
        {"/s", -EINVAL, 0, 0, NULL},
        {"5", -EINVAL, 0, 0, NULL},
        {"5/10", -EINVAL, 0, 0, NULL},
        {"5/x", -EINVAL, 0, 0, NULL},
        {"5/s/s", -EINVAL, 0, 0, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf text = {0};
        uint64_t messages = 0;
        uint32_t period_ms = 0;

        assert_int_equal(config_parse_rate(str_of(cases[i].text), &messages, &period_ms),
                         cases[i].err);
        assert_int_equal(messages, cases[i].messages);
        assert_int_equal(period_ms, cases[i].period_ms);
        if (cases[i].err != 0)
            continue;
        config_format_rate(&text, messages, period_ms);
        buf_putc(&text, 0);
        assert_string_equal(text.data, cases[i].printed != NULL ? cases[i].printed : cases[i].text);
        buf_done(&text);
    }
}

/* Every formatter's text parses back to the same value. */
static void test_round_trip(void **state)
{
    static const struct {
        void (*format)(struct buf *, uint64_t);
        int (*parse)(struct str, uint64_t *);
    } pairs[] = {{config_format_count, config_parse_count},
                 {config_format_bytes, config_parse_bytes},
                 {config_format_duration, config_parse_duration}};
    uint64_t v = 1;

    (void)state;
    for (unsigned i = 0; i < 3000; i++) {
        /* Odd and round values of every magnitude. */
        uint64_t value = i % 2 == 0 ? v >> (i % 50) : (v >> (i % 50)) * (i % 3 == 0 ? 1000 : 1024);

        v = v * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        value >>= 12; /* no overflow of the product above */
        for (size_t p = 0; p < ARRAY_LEN(pairs); p++) {
            struct buf text = {0};
            uint64_t back = 0;

            pairs[p].format(&text, value);
            assert_int_equal(pairs[p].parse(buf_str(&text), &back), 0);
            assert_int_equal(back, value);
            buf_done(&text);
        }
    }
}

static void test_addresses(void **state)
{
    static const struct {
        const char *text;
        int family; /* 0 = refused */
    } cases[] = {
        {"127.0.0.1:25", AF_INET},
        {"[::1]:25", AF_INET6},
        {"unix:/run/x", AF_UNIX},
        {"127.0.0.1", 0},
        {"[::1]", 0},
        {"::1:25", 0},
        {"127.0.0.1:0", 0},
        {"127.0.0.1:65536", 0},
        {"127.0.0.1:+5", 0},
        {"127.0.0.1:", 0},
        {":25", 0},
        {"", 0},
        {"unix:", 0},
        {"unix:x", 0},
        {"[127.0.0.1]:25", AF_INET},
        {"1.2.3:25", 0},
        {"[::1:25", 0},
        {"host:25", 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct config_address a = {0};
        int err = config_parse_address(str_of(cases[i].text), 0, &a);

        if ((err == 0 ? a.addr.ss_family : 0) != cases[i].family)
            fail_msg("'%s': %d", cases[i].text, err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_count),      cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_duration),   cmocka_unit_test(test_rate),
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_addresses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
