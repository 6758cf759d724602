#include "base/socks5.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>

#include "base/assert.h"

static struct sockaddr_storage address(const char *text, uint16_t port)
{
    struct sockaddr_storage a = {0};
    struct sockaddr_in *in = (void *)&a;
    struct sockaddr_in6 *in6 = (void *)&a;

    if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
        a.ss_family = AF_INET;
        in->sin_port = htons(port);
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
        a.ss_family = AF_INET6;
        in6->sin6_port = htons(port);
    }
    return a;
}

static void expect_said(struct socks5 *s, const char *want, size_t want_len)
{
    uint8_t out[SOCKS5_SAY_MAX];

    assert_int_equal(socks5_say(s, out), want_len);
    assert_memory_equal(out, want, want_len);
    assert_int_equal(socks5_say(s, out), 0);
}

/* Byte by byte, each in memory of its own: nothing is taken behind the end. */
static size_t hear(struct socks5 *s, const char *bytes, size_t len)
{
    size_t taken = 0;

    for (size_t i = 0; i < len; i++) {
        uint8_t *copy = malloc(1);

        *copy = (uint8_t)bytes[i];
        taken += socks5_hear(s, copy, 1);
        free(copy);
    }
    return taken;
}

#define SAID(s, text) expect_said(s, text, sizeof(text) - 1)
#define HEAR(s, text) assert_int_equal(hear(s, text, sizeof(text) - 1), sizeof(text) - 1)
#define LONG63        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
#define METHOD_OK     "\5\0"
#define ANSWER_OPEN   "\5\0\0\1\300\0\2\1\x12\x67"
#define REQUEST_IPV4  "\5\1\0\1\306\63\144\7\0\31"
#define BANNER        "220 mx"

static void test_open(void **state)
{
    struct sockaddr_storage to = address("198.51.100.7", 25);
    const struct sockaddr_in *bound;
    struct socks5 s;

    (void)state;
    socks5_begin(&s, NULL, NULL, (struct sockaddr *)&to);
    SAID(&s, "\5\1\0");
    assert_false(s.asked);
    HEAR(&s, METHOD_OK);
    assert_true(s.asked);
    SAID(&s, REQUEST_IPV4);
    /* What follows is the server's. */
    assert_int_equal(hear(&s, ANSWER_OPEN BANNER, 16), 10);
    assert_int_equal(s.state, SOCKS5_OPEN);
    bound = (const void *)&s.bound;
    assert_int_equal(bound->sin_family, AF_INET);
    assert_int_equal(ntohl(bound->sin_addr.s_addr), 0xC0000201);
    assert_int_equal(ntohs(bound->sin_port), 4711);
}

/* All at once, an IPv6 address, and a proxy that does not say from where it connects. */
static void test_ipv6(void **state)
{
    struct sockaddr_storage to = address("2001:db8::7", 587);
    static const uint8_t open[] = {5, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0,
                                   0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9};
    uint8_t method[] = {5, 0};
    struct socks5 s;

    (void)state;
    socks5_begin(&s, NULL, NULL, (struct sockaddr *)&to);
    SAID(&s, "\5\1\0");
    assert_int_equal(socks5_hear(&s, method, 2), 2);
    SAID(&s, "\5\1\0\4\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\7\2\x4b");
    assert_int_equal(socks5_hear(&s, open, sizeof(open)), sizeof(open));
    assert_int_equal(s.state, SOCKS5_OPEN);
    assert_int_equal(s.bound.ss_family, AF_UNSPEC);
}

/* A name in the answer is as long as it says, and is passed over. */
static void test_bound_name(void **state)
{
    struct sockaddr_storage to = address("198.51.100.7", 25);
    char answer[4 + 1 + 252 + 2 + 1] = "\5\0\0\3\374" LONG63 LONG63 LONG63 LONG63;
    struct socks5 s;

    (void)state;
    socks5_begin(&s, NULL, NULL, (struct sockaddr *)&to);
    HEAR(&s, METHOD_OK);
    assert_int_equal(hear(&s, answer, sizeof(answer)), sizeof(answer) - 1);
    assert_int_equal(s.state, SOCKS5_OPEN);
    assert_int_equal(s.bound.ss_family, AF_UNSPEC);
}

static void test_login(void **state)
{
    struct sockaddr_storage to = address("198.51.100.7", 25);
    struct socks5 s;

    (void)state;
    socks5_begin(&s, "shop", "secret", (struct sockaddr *)&to);
    SAID(&s, "\5\1\2");
    HEAR(&s, "\5\2");
    assert_false(s.asked);
    SAID(&s, "\1\4shop\6secret");
    HEAR(&s, "\1\0");
    SAID(&s, REQUEST_IPV4);
    /* The longest of both. */
    socks5_begin(&s, LONG63 LONG63 LONG63 LONG63 "xxx", LONG63 LONG63 LONG63 LONG63 "xxx", NULL);
    HEAR(&s, "\5\2");
    expect_said(&s,
                "\1\377" LONG63 LONG63 LONG63 LONG63 "xxx\377" LONG63 LONG63 LONG63 LONG63 "xxx",
                SOCKS5_SAY_MAX);
    /* Nowhere to go: the login is all. */
    HEAR(&s, "\1\0");
    assert_int_equal(s.state, SOCKS5_OPEN);
    assert_false(s.asked);
}

static void test_failures(void **state)
{
    static const struct {
        const char *user;
        size_t len;
        const char *heard, *want;
        bool asked;
    } cases[] = {
        {NULL, 1, "HTTP/1.1", "it does not speak SOCKS 5 (its first byte is 72)", false},
        {NULL, 1, "\4\0", "it does not speak SOCKS 5 (its first byte is 4)", false},
        {NULL, 2, "\5\377", "it does not accept how we log in (answer 255)", false},
        {NULL, 2, "\5\2", "it does not accept how we log in (answer 2)", false},
        /* Without the login it might send from another address. */
        {"shop", 2, "\5\0", "it does not accept how we log in (answer 0)", false},
        {"shop", 4, "\5\2\1\1", "it refuses the user or password (answer 1)", false},
        {"shop", 3, "\5\2\5\0", "it does not speak SOCKS 5 (its first byte is 5)", false},
        {NULL, 4, "\5\0\5\1", "general failure (answer 1)", true},
        {NULL, 4, "\5\0\5\2\0\1", "not allowed by the proxy's rules (answer 2)", true},
        {NULL, 4, "\5\0\5\5\0\1\0\0\0\0\0\0", "Connection refused (answer 5)", true},
        {NULL, 4, "\5\0\5\10", "the proxy has no such addresses (answer 8)", true},
        {NULL, 4, "\5\0\5\11", "failed (answer 9)", true},
        {NULL, 3, "\5\0\4\0", "it does not speak SOCKS 5 (its first byte is 4)", true},
        {NULL, 7, "\5\0\5\0\0\2\1", "it answers with an unknown kind of address (2)", true},
    };
    struct sockaddr_storage to = address("198.51.100.7", 25);
    char text[SOCKS5_TEXT];
    struct socks5 s;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        socks5_begin(&s, cases[i].user, "secret", (struct sockaddr *)&to);
        assert_int_equal(hear(&s, cases[i].heard, cases[i].len), cases[i].len);
        assert_int_equal(s.state, SOCKS5_FAILED);
        assert_int_equal(s.asked, cases[i].asked);
        socks5_error_text(s.error, text);
        assert_string_equal(text, cases[i].want);
        assert_int_equal(socks5_hear(&s, (const uint8_t *)"\5", 1), 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),     cmocka_unit_test(test_ipv6),
        cmocka_unit_test(test_login),    cmocka_unit_test(test_bound_name),
        cmocka_unit_test(test_failures),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
