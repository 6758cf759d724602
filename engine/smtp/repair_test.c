#include "smtp/repair.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/buf.h"

/* Runs in in pieces. Returns the bytes up to the end of the data, 0 when there was none. */
static size_t repair(const char *in, size_t piece, bool stuffed, struct buf *out)
{
    size_t len = strlen(in), at = 0, used;
    struct smtp_repair r;
    struct str body;

    buf_clear(out);
    smtp_repair_init(&r, stuffed);
    while (at < len) {
        size_t n = len - at < piece ? len - at : piece;
        uint8_t *copy = malloc(n);
        bool end;

        memcpy(copy, in + at, n);
        end = smtp_repair_next(&r, copy, n, &used, &body);
        buf_put_str(out, body);
        free(copy);
        assert_true(used + body.len > 0);
        at += used;
        if (end)
            return at;
    }
    if (!stuffed)
        buf_put_str(out, smtp_repair_end(&r));
    return 0;
}

static void test_repair(void **state)
{
    static const struct {
        const char *in, *out;
        size_t end; /* 0: it does not */
    } rows[] = {
        {"a\r\nb\r\n.\r\nQUIT", "a\r\nb\r\n", 9},
        {"a\nb\n\n..c\n.\r\n", "a\r\nb\r\n\r\n.c\r\n.\r\n", 0},
        {".\r\n", "", 3},
        {"a\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", 10},
        {"a\r\n.\nb\r\n.\r\n", "a\r\n.\r\nb\r\n", 11},
        {"a\n.\r\n.\r\n", "a\r\n.\r\n", 8}, /* the second is CRLF.CRLF */
        {"a\n.\n.\r\n", "a\r\n.\r\n.\r\n", 0},
        {"a\r\n.\n.\r\n", "a\r\n.\r\n.\r\n", 0},
        {"a\r.\r\n.\r\n", "a .\r\n", 8},
        {"a\r\n.\rb\r\n", "a\r\n b\r\n", 0},
        {"a\r\n.\r\r\n", "a\r\n \r\n", 0},
        {"a\r\r\n.\r\n", "a \r\n", 7},
        {"a\n\r\n.\r\n", "a\r\n\r\n", 7},
        {"a\n\r.\r\n", "a\r\n .\r\n", 0},
        {"..\r\n...\n.x\n", ".\r\n..\r\nx\r\n", 0},
        {"\n", "\r\n", 0},
    };
    struct buf out = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (size_t piece = 1; piece < 20; piece++) {
            size_t end = repair(rows[i].in, piece, true, &out);

            if (end != rows[i].end || !str_eq(buf_str(&out), str_of(rows[i].out)))
                fail_msg("row %zu in %zu: %zu %.*s", i, piece, end, STR_FMT(buf_str(&out)));
        }
    }
    buf_done(&out);
}

static void test_not_stuffed(void **state)
{
    static const char in[] = "a\n.\r\n.\r\n..b\rc\r";
    struct buf out = {0};

    (void)state;
    for (size_t piece = 1; piece < sizeof(in); piece++) {
        assert_int_equal(repair(in, piece, false, &out), 0);
        assert_true(str_eq(buf_str(&out), STR("a\r\n.\r\n.\r\n..b c ")));
    }
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repair),
        cmocka_unit_test(test_not_stuffed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
