#include "http/coding.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <zlib.h>

static bool hold(void *arg, uint64_t bytes)
{
    uint64_t *left = arg;

    if (bytes > *left)
        return false;
    *left -= bytes;
    return true;
}

static struct buf packed(size_t len, int bits)
{
    uint8_t *text = calloc(1, len + 1);
    z_stream z = {.next_in = text, .avail_in = (uInt)len};
    struct buf out = {0};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, bits, 9, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(buf_reserve(&out, deflateBound(&z, len) + 100), 0);
    z.next_out = out.data;
    z.avail_out = (uInt)out.cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.len = z.total_out;
    deflateEnd(&z);
    free(text);
    return out;
}

static int inflated(struct str in, uint64_t max, uint64_t memory, size_t *len)
{
    struct buf out = {0};
    int err = coding_inflate(in, max, hold, &memory, &out);

    *len = out.len;
    buf_done(&out);
    return err;
}

static void test_sizes(void **state)
{
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, 131072, 1000000};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (int bits = 15; bits <= 31; bits += 16) {
            struct buf in = packed(sizes[i], bits);
            size_t len;

            assert_int_equal(inflated(buf_str(&in), 1000000, 1 << 24, &len), 0);
            assert_int_equal(len, sizes[i]);
            if (sizes[i] > 0)
                assert_int_equal(inflated(buf_str(&in), sizes[i] - 1, 1 << 24, &len), -EFBIG);
            assert_int_equal(
                inflated((struct str){(char *)in.data, in.len - 1}, 1000000, 1 << 24, &len),
                -EINVAL);
            buf_putc(&in, 'x');
            assert_int_equal(inflated(buf_str(&in), 1000000, 1 << 24, &len), -EINVAL);
            buf_done(&in);
        }
    }
}

static void test_bomb(void **state)
{
    struct buf in = packed(100000000, 31);
    size_t len;

    (void)state;
    assert_true(in.len < 200000);
    assert_int_equal(inflated(buf_str(&in), 1000000, 1 << 24, &len), -EFBIG);
    assert_true(len < 1200000);
    assert_int_equal(inflated(buf_str(&in), 100000000, 1 << 20, &len), -ENOMEM);
    assert_true(len <= 1 << 20);
    buf_done(&in);
    assert_int_equal(inflated(STR(""), 10, 1 << 20, &len), -EINVAL);
    assert_int_equal(inflated(STR("{\"a\": 1}"), 10, 1 << 20, &len), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes), cmocka_unit_test(test_bomb)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
