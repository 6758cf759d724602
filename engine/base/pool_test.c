#include "base/pool.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <string.h>

#include "base/assert.h"

static void test_sizes(void **state)
{
    static const size_t sizes[] = {1, 8, 24, 64, 100, 192, 4096, 65535, 200000};

    (void)state;
    for (size_t s = 0; s < ARRAY_LEN(sizes); s++) {
        enum { COUNT = 300 };
        char *objects[COUNT];
        size_t align = sizes[s] % 64 == 0 ? 64 : 16;
        struct pool p;

        pool_init(&p, "test", sizes[s], COUNT);
        for (size_t i = 0; i < COUNT; i++) {
            objects[i] = pool_get(&p);
            assert_non_null(objects[i]);
            assert_int_equal((uintptr_t)objects[i] % align, 0);
            memset(objects[i], (int)i, sizes[s]);
        }
        assert_null(pool_get(&p)); /* the limit */
        for (size_t i = 0; i < COUNT; i++) {
            assert_int_equal((uint8_t)objects[i][0], (uint8_t)i); /* nobody wrote into another */
            assert_int_equal((uint8_t)objects[i][sizes[s] - 1], (uint8_t)i);
        }
        assert_int_equal(p.in_use, COUNT);
        pool_put(&p, objects[7]);
        assert_ptr_equal(pool_get(&p), objects[7]);
        for (size_t i = 0; i < sizes[s]; i++)
            assert_int_equal(objects[7][i], 0); /* comes zeroed again */
        for (size_t i = 0; i < COUNT; i++)
            pool_put(&p, objects[i]);
        pool_put(&p, NULL);
        pool_done(&p);
        pool_done(&p); /* zeroed now */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
