#include "mail/encode.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rng.h"

/* Quoted-printable byte by byte, as the header says it: encode.c goes in runs. */
static void qp_slowly(const uint8_t *in, size_t len, struct buf *out)
{
    size_t column = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t c = in[i];
        bool crlf_follows = i + 2 < len && in[i + 1] == '\r' && in[i + 2] == '\n';
        bool blank = c == ' ' || c == '\t', ends = i + 1 == len || crlf_follows;
        bool first = column == 0 || column == 75;
        bool literal = blank ? !ends : c > ' ' && c < 0x7f && c != '=';
        size_t need;

        if (c == '\r' && i + 1 < len && in[i + 1] == '\n') {
            buf_puts(out, "\r\n");
            column = 0;
            i++;
            continue;
        }
        if (first && (c == '-' || c == '.'))
            literal = false;
        need = literal ? 1 : 3;
        if (column + need > 75) {
            buf_puts(out, "=\r\n");
            column = 0;
        }
        column += need;
        if (literal)
            buf_putc(out, (char)c);
        else
            buf_printf(out, "=%02X", c);
    }
}

static void test_runs(void **state)
{
    static const char often[] = "abcdefgh  ..--==\t\r\n\r\n\xc3\xa9";
    struct buf in = {0}, want = {0}, got = {0};
    struct rng rng;

    (void)state;
    rng_seed(&rng, 7);
    for (int round = 0; round < 20000; round++) {
        size_t len = rng_next(&rng) % 300;
        bool long_lines = rng_next(&rng) % 2 == 0;

        buf_clear(&in);
        buf_clear(&want);
        buf_clear(&got);
        while (in.len < len) {
            uint64_t r = rng_next(&rng);

            if (r % 64 == 0)
                buf_putc(&in, (char)(r >> 8));
            else if (long_lines && r % 8 != 0)
                buf_putc(&in, 'x');
            else
                buf_putc(&in, often[(r >> 8) % (sizeof(often) - 1)]);
        }
        qp_slowly(in.data, in.len, &want);
        assert_int_equal(encode_qp(in.data, in.len, &got), 0);
        assert_int_equal(got.len, want.len);
        assert_int_equal(encode_qp_len(in.data, in.len), want.len);
        /* Exactly as long as it may be; a byte too long: nothing was written. */
        buf_clear(&got);
        assert_int_equal(encode_qp_within(in.data, in.len, want.len, &got), 0);
        assert_int_equal(got.len, want.len);
        if (want.len > 0)
            assert_int_equal(encode_qp_within(in.data, in.len, want.len - 1, &got), -E2BIG);
        assert_int_equal(got.len, want.len);
        if (want.len > 0)
            assert_memory_equal(got.data, want.data, want.len);
    }
    buf_done(&in);
    buf_done(&want);
    buf_done(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_runs)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
