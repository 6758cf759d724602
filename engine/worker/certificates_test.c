/* Which certificates are loaded: all that the configuration names, each once. */
#include "worker/certificates.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define FILES 40

static char dir[] = "/tmp/certificates_test.XXXXXX";
static char names[FILES][64];

/* One certificate, with its key, under many names. */
static int setup(void **state)
{
    char command[512];

    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(command, sizeof(command),
             "cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
             "-days 30 -subj /CN=a.example -keyout key -out chain 2> log && cat chain key > all",
             dir);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command), "%s/all", dir);
    for (size_t i = 0; i < FILES; i++) {
        snprintf(names[i], sizeof(names[i]), "%s/%zu", dir, i);
        assert_int_equal(symlink(command, names[i]), 0);
    }
    return 0;
}

static int teardown(void **state)
{
    char command[64];

    (void)state;
    snprintf(command, sizeof(command), "rm -r %s", dir);
    return system(command);
}

/* Each of many sources has its own; a destination has that of one of them. */
static void test_sources(void **state)
{
    struct config_source sources[FILES + 1] = {0};
    struct config_destination destinations[2] = {0};
    struct config config = {.sources = sources,
                            .sources_len = FILES + 1,
                            .destinations = destinations,
                            .destinations_len = 2};
    struct certificates *c = NULL, *next = NULL;

    (void)state;
    for (size_t i = 0; i < FILES; i++)
        sources[i].tls_certificate = names[i];
    destinations[0].tls_certificate = names[3];
    assert_int_equal(certificates_load(&c, &config, NULL), 0);
    assert_int_equal(c->complaints.len, 0);
    assert_int_equal(c->own_len, FILES);
    assert_int_equal(c->len, 0);
    for (size_t i = 0; i < FILES; i++)
        assert_non_null(certificates_own(c, names[i]));
    assert_null(certificates_own(c, NULL));
    assert_null(certificates_own(c, "/nonexistent.pem"));
    /* What cannot be read any more stays as it was. */
    assert_int_equal(unlink(names[7]), 0);
    assert_int_equal(certificates_load(&next, &config, c), 0);
    assert_true(next->complaints.len > 0);
    assert_ptr_equal(certificates_own(next, names[7]), certificates_own(c, names[7]));
    certificates_free(next);
    certificates_free(c);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sources),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
