#include "base/crc32c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"

/* RFC 3720 B.4 and the usual check value. */
static void test_vectors(void **state)
{
    uint8_t zeros[32] = {0}, ones[32], up[32], down[32];
    const struct {
        const void *bytes;
        size_t n;
        uint32_t crc;
    } cases[] = {
        {"", 0, 0},
        {"123456789", 9, 0xe3069283},
        {zeros, 32, 0x8a9136aa},
        {ones, 32, 0x62a8ab43},
        {up, 32, 0x46dd794e},
        {down, 32, 0x113fdb5c},
    };

    (void)state;
    memset(ones, 0xff, sizeof(ones));
    for (uint8_t i = 0; i < 32; i++) {
        up[i] = i;
        down[i] = (uint8_t)(31 - i);
    }
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(crc32c(0, cases[i].bytes, cases[i].n), cases[i].crc);
}

static uint32_t bitwise(const uint8_t *p, size_t n)
{
    uint32_t crc = ~0u;

    for (; n > 0; n--) {
        crc ^= *p++;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
    }
    return ~crc;
}

/* Every length and alignment that takes another path, and every way to cut it in two. */
static void test_lengths(void **state)
{
    enum { BYTES = 20000 };
    static const size_t lengths[] = {1023, 1024, 3071, 3072, 3080, 4096, 12287, 12300, BYTES - 8};
    uint8_t *bytes = malloc(BYTES);

    (void)state;
    srand(3);
    for (size_t i = 0; i < BYTES; i++)
        bytes[i] = (uint8_t)rand();
    for (size_t n = 0; n < 700; n++)
        for (size_t align = 0; align < 8; align++)
            assert_int_equal(crc32c(0, bytes + align, n), bitwise(bytes + align, n));
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++)
        for (size_t align = 0; align < 8; align++)
            assert_int_equal(crc32c(0, bytes + align, lengths[i]),
                             bitwise(bytes + align, lengths[i]));
    for (size_t cut = 0; cut <= 4096; cut += 37)
        assert_int_equal(crc32c(crc32c(0, bytes, cut), bytes + cut, 4096 - cut),
                         bitwise(bytes, 4096));
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_lengths),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
