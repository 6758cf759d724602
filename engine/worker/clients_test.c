/* Who counts as one client. */
#include "worker/clients.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

static struct sockaddr_storage address(const char *text)
{
    struct sockaddr_storage out = {0};
    struct sockaddr_in *in = (void *)&out;
    struct sockaddr_in6 *in6 = (void *)&out;

    if (text == NULL)
        out.ss_family = AF_UNIX;
    else if (strchr(text, ':') == NULL && inet_pton(AF_INET, text, &in->sin_addr) == 1)
        out.ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
        out.ss_family = AF_INET6;
    return out;
}

static bool client_take(struct clients *c, const char *text, uint32_t max)
{
    struct sockaddr_storage from = address(text);

    return clients_take(c, (struct sockaddr *)&from, 0, max);
}

static void client_give(struct clients *c, const char *text)
{
    struct sockaddr_storage from = address(text);

    clients_give(c, (struct sockaddr *)&from, 0);
}

/* Each with the first: whether the two are one client. */
static void test_same_client(void **state)
{
    static const struct {
        const char *a, *b;
        bool same;
    } pairs[] = {
        {"192.0.2.1", "192.0.2.1", true},
        {"192.0.2.1", "192.0.2.2", false},
        {"192.0.2.1", "::ffff:192.0.2.1", true}, /* the same over a socket of IPv6 */
        {"::ffff:192.0.2.1", "::ffff:192.0.2.2", false},
        {"2001:db8::1", "2001:db8::2", true}, /* a /64 is one host's */
        {"2001:db8::1", "2001:db8:0:1::1", false},
        {"2001:db8::1", "192.0.2.1", false},
        {NULL, NULL, true}, /* Unix sockets */
        {NULL, "192.0.2.1", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        struct clients c;
        bool took;

        assert_int_equal(clients_init(&c), 0);
        assert_true(client_take(&c, pairs[i].a, 1));
        took = client_take(&c, pairs[i].b, 1);
        assert_int_equal(took, !pairs[i].same);
        if (took)
            client_give(&c, pairs[i].b);
        client_give(&c, pairs[i].a);
        clients_done(&c);
    }
}

static void test_handshakes(void **state)
{
    const struct sockaddr_storage a = address("192.0.2.1"), b = address("192.0.2.2");
    const struct sockaddr *one = (const void *)&a, *two = (const void *)&b;
    struct clients c;

    (void)state;
    assert_int_equal(clients_init(&c), 0);
    assert_true(clients_take(&c, one, 0, 0) && clients_take(&c, one, 0, 0));
    assert_true(clients_take(&c, two, 0, 0) && clients_take(&c, one, 1, 0));
    assert_true(clients_shake(&c, one, 0, 1));
    assert_false(clients_shake(&c, one, 0, 1));
    assert_true(clients_shake(&c, two, 0, 1));
    assert_true(clients_shake(&c, one, 1, 1)); /* another listener has its own bound */
    assert_true(clients_shake(&c, one, 0, 0)); /* no limit */
    clients_shaken(&c, one, 0);
    clients_shaken(&c, one, 0);
    assert_true(clients_shake(&c, one, 0, 1));
    clients_shaken(&c, one, 0);
    clients_shaken(&c, one, 1);
    clients_shaken(&c, two, 0);
    clients_give(&c, one, 0);
    clients_give(&c, one, 0);
    clients_give(&c, one, 1);
    clients_give(&c, two, 0);
    clients_done(&c);
}

static void test_limit(void **state)
{
    const struct sockaddr_storage from = address("192.0.2.1");
    const struct sockaddr *at = (const void *)&from;
    struct clients c;

    (void)state;
    assert_int_equal(clients_init(&c), 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++)
            assert_true(client_take(&c, "192.0.2.1", 3));
        assert_false(client_take(&c, "192.0.2.1", 3));
        assert_true(clients_take(&c, at, 1, 1)); /* another listener has its own bound */
        clients_give(&c, at, 1);
        assert_true(client_take(&c, "192.0.2.1", 0)); /* no limit */
        for (int i = 0; i < 4; i++)
            client_give(&c, "192.0.2.1");
    }
    clients_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_client),
                                       cmocka_unit_test(test_handshakes),
                                       cmocka_unit_test(test_limit)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
