#include "base/proxy_header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netinet/in.h>

#include "base/assert.h"
#include "base/crc32c.h"

static const char *text_of(const struct sockaddr_storage *a)
{
    static char out[INET6_ADDRSTRLEN + 8];
    char ip[INET6_ADDRSTRLEN];
    const struct sockaddr_in *in = (const void *)a;
    const struct sockaddr_in6 *in6 = (const void *)a;

    if (a->ss_family == AF_UNSPEC)
        return "none";
    if (a->ss_family == AF_INET)
        snprintf(out, sizeof(out), "%s %u", inet_ntop(AF_INET, &in->sin_addr, ip, sizeof(ip)),
                 ntohs(in->sin_port));
    else
        snprintf(out, sizeof(out), "%s %u", inet_ntop(AF_INET6, &in6->sin6_addr, ip, sizeof(ip)),
                 ntohs(in6->sin6_port));
    return out;
}

/* Byte for byte: more is wanted until the header is whole, and what follows changes nothing. In
 * memory of exact size, so that a sanitizer sees every byte read too far. */
static void check(const uint8_t *bytes, size_t len, const char *want)
{
    struct proxy_header header;
    enum proxy_header_status status = PROXY_HEADER_MORE;
    size_t n;

    for (n = 0; n <= len && status == PROXY_HEADER_MORE; n++) {
        uint8_t *copy = malloc(n + (n == 0));

        memcpy(copy, bytes, n);
        status = proxy_header_parse(copy, n, &header);
        free(copy);
    }
    if (want == NULL) {
        assert_int_equal(status, PROXY_HEADER_BAD);
        return;
    }
    assert_int_equal(status, PROXY_HEADER_DONE);
    assert_int_equal(header.len, n - 1);
    assert_string_equal(text_of(&header.client), want);
    assert_int_equal(proxy_header_parse(bytes, len, &header), PROXY_HEADER_DONE);
    assert_int_equal(header.len, n - 1);
}

#define X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void test_v1(void **state)
{
    static const struct {
        const char *in, *want;
    } cases[] = {
        {"PROXY TCP4 192.0.2.1 198.51.100.7 4711 25\r\nEHLO x\r\n", "192.0.2.1 4711"},
        {"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255 65535"},
        {"PROXY TCP6 2001:db8::1 2001:db8::2 0 25\r\n", "2001:db8::1 0"},
        {"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.2 1 25\r\n", "192.0.2.1 1"},
        {"PROXY UNKNOWN\r\n", "none"},
        {"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", "none"},
        {"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535"},
        {"EHLO x\r\n", NULL},
        {"proxy TCP4 192.0.2.1 198.51.100.7 4711 25\r\n", NULL},
        {"PROXY\r\n", NULL},
        {"PROXY \r\n", NULL},
        {"PROXY TCP4\r\n", NULL},
        {"PROXY TCP4 192.0.2.1 198.51.100.7 4711\r\n", NULL},
        {"PROXY TCP4 192.0.2.1 198.51.100.7 4711 25 \r\n", NULL},
        {"PROXY TCP4  192.0.2.1 198.51.100.7 4711 25\r\n", NULL},
        {"PROXY TCP4 192.0.2.1 198.51.100.7 4711 25\n", NULL},
        {"PROXY TCP4 192.0.2.1 198.51.100.7 4711 025\r\n", NULL},
        {"PROXY TCP4 192.0.2.1 198.51.100.7 65536 25\r\n", NULL},
        {"PROXY TCP4 192.0.2.1 198.51.100.7 -1 25\r\n", NULL},
        {"PROXY TCP4 192.0.2.01 198.51.100.7 1 25\r\n", NULL},
        {"PROXY TCP4 192.0.2 198.51.100.7 1 25\r\n", NULL},
        {"PROXY TCP4 2001:db8::1 198.51.100.7 1 25\r\n", NULL},
        {"PROXY TCP6 192.0.2.1 192.0.2.2 1 25\r\n", NULL},
        {"PROXY UDP4 192.0.2.1 192.0.2.2 1 25\r\n", NULL},
        {"PROXY UNKNOWN x\ry\r\n", NULL},
        {"PROXY UNKNOWN " X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", "none"}, /* 107 bytes */
        {"PROXY UNKNOWN " X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        check((const uint8_t *)cases[i].in, strlen(cases[i].in), cases[i].want);
}

/* A header of version 2: the bytes behind the signature. */
static size_t v2(uint8_t *out, uint8_t command, uint8_t family, size_t len, const uint8_t *body)
{
    static const uint8_t signature[] = "\r\n\r\n\0\r\nQUIT\n";

    memcpy(out, signature, 12);
    out[12] = command;
    out[13] = family;
    out[14] = (uint8_t)(len >> 8);
    out[15] = (uint8_t)len;
    memcpy(out + 16, body, len);
    return 16 + len;
}

static void test_v2(void **state)
{
    static const uint8_t ip4[12] = {192, 0, 2, 1, 198, 51, 100, 7, 0x12, 0x67, 0, 25};
    static const uint8_t ip6[36] = {0x20, 1, 0xd, 0xb8, [15] = 1, [16] = 0x20, [32] = 0, 7, 0, 25};
    static const uint8_t mapped[36] = {[10] = 0xff, 0xff, 192, 0, 2, 1, [32] = 0, 7, 0, 25};
    static const uint8_t none[216];
    static uint8_t body[PROXY_HEADER_BYTES_MAX], in[PROXY_HEADER_BYTES_MAX + 100];

    (void)state;
    check(in, v2(in, 0x21, 0x11, 12, ip4), "192.0.2.1 4711");
    check(in, v2(in, 0x21, 0x21, 36, ip6), "2001:db8::1 7");
    check(in, v2(in, 0x21, 0x21, 36, mapped), "192.0.2.1 7");
    check(in, v2(in, 0x20, 0x11, 12, ip4), "none"); /* LOCAL */
    check(in, v2(in, 0x20, 0x00, 0, none), "none");
    check(in, v2(in, 0x20, 0xff, 3, none), "none"); /* whatever it says */
    check(in, v2(in, 0x21, 0x00, 0, none), "none");
    check(in, v2(in, 0x21, 0x31, 216, none), "none");
    check(in, v2(in, 0x21, 0x31, 215, none), NULL);
    check(in, v2(in, 0x21, 0x11, 11, ip4), NULL);
    check(in, v2(in, 0x21, 0x21, 35, ip6), NULL);
    check(in, v2(in, 0x21, 0x12, 12, ip4), NULL); /* UDP */
    check(in, v2(in, 0x11, 0x11, 12, ip4), NULL); /* version 1 is text */
    check(in, v2(in, 0x22, 0x11, 12, ip4), NULL);
    v2(in, 0x21, 0x11, 12, ip4);
    in[11] = '\r';
    check(in, 28, NULL);
    /* What follows the addresses. */
    memcpy(body, ip4, 12);
    memcpy(body + 12, "\x04\0\x02xx", 5);
    check(in, v2(in, 0x21, 0x11, 17, body), "192.0.2.1 4711");
    check(in, v2(in, 0x21, 0x11, 16, body), NULL);
    check(in, v2(in, 0x21, 0x11, 14, body), NULL);
    memcpy(body + 12, "\x04\xff\xff", 3);
    check(in, v2(in, 0x21, 0x11, 17, body), NULL);
    memset(body + 12, 0, sizeof(body) - 12);
    body[12] = 0x04;
    body[13] = (PROXY_HEADER_BYTES_MAX - 16 - 15) >> 8;
    body[14] = (PROXY_HEADER_BYTES_MAX - 16 - 15) & 255;
    check(in, v2(in, 0x21, 0x11, PROXY_HEADER_BYTES_MAX - 16, body), "192.0.2.1 4711");
    check(in, v2(in, 0x21, 0x11, PROXY_HEADER_BYTES_MAX - 15, body), NULL);
    check(in, v2(in, 0x20, 0x11, PROXY_HEADER_BYTES_MAX - 15, body), NULL);
}

static void test_v2_checksum(void **state)
{
    static const uint8_t ip4[19] = {192, 0, 2, 1, 198, 51, 100, 7, 1, 2, 0, 25, 3, 0, 4};
    uint8_t in[64];
    size_t len = v2(in, 0x21, 0x11, sizeof(ip4), ip4);
    uint32_t crc = crc32c(0, in, len);

    (void)state;
    check(in, len, NULL);
    for (size_t i = 0; i < 4; i++)
        in[len - 4 + i] = (uint8_t)(crc >> (24 - 8 * i));
    check(in, len, "192.0.2.1 258");
    in[16] ^= 1;
    check(in, len, NULL);
}

/* What we write is the document's: every byte, and our own reader takes it. */
static void test_put(void **state)
{
    const struct sockaddr_in from4 = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(0xC0000201),
                                      .sin_port = htons(4711)},
                             to4 = {.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(0xC6336407),
                                    .sin_port = htons(25)};
    struct sockaddr_in6 from6 = {.sin6_family = AF_INET6, .sin6_port = htons(7)}, to6 = from6;
    static const uint8_t ip4[12] = {192, 0, 2, 1, 198, 51, 100, 7, 0x12, 0x67, 0, 25};
    uint8_t out[PROXY_HEADER_PUT_MAX], want[64];

    (void)state;
    assert_int_equal(
        proxy_header_put(out, (const struct sockaddr *)&from4, (const struct sockaddr *)&to4),
        v2(want, 0x21, 0x11, sizeof(ip4), ip4));
    assert_memory_equal(out, want, 28);
    check(out, 28, "192.0.2.1 4711");
    assert_int_equal(inet_pton(AF_INET6, "2001:db8::1", &from6.sin6_addr), 1);
    assert_int_equal(inet_pton(AF_INET6, "2001:db8::2", &to6.sin6_addr), 1);
    to6.sin6_port = htons(25);
    assert_int_equal(
        proxy_header_put(out, (const struct sockaddr *)&from6, (const struct sockaddr *)&to6), 52);
    check(out, 52, "2001:db8::1 7");
    assert_memory_equal(out + 32, &to6.sin6_addr, 16);
    assert_memory_equal(out + 48, "\0\7\0\31", 4);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_v1),
        cmocka_unit_test(test_v2),
        cmocka_unit_test(test_v2_checksum),
        cmocka_unit_test(test_put),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
