#include "dns/name.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_names(void **state)
{
    static const struct {
        const char *in, *out; /* NULL: refused */
    } rows[] = {
        {"example.com", "example.com"},
        {"EXAMPLE.Com.", "example.com"},
        {"example.com..", NULL},
        {"localhost", "localhost"},
        {"a_b.example", "a_b.example"},
        {"1.example", "1.example"},
        {"example.1a", "example.1a"},
        {"example.1", NULL},
        {"1.2.3.4", NULL},
        {"12345", NULL},
        {"", NULL},
        {".", NULL},
        {".example", NULL},
        {"a..b", NULL},
        {"a b", NULL},
        {"a\tb", NULL},
        {"a/b", NULL},
        {"a@b", NULL},
        {"a\x7f", NULL},
        {"xn--r8jz45g.xn--zckzah", "xn--r8jz45g.xn--zckzah"},
        {"例え.テスト", "xn--r8jz45g.xn--zckzah"},
        {"例え。テスト", "xn--r8jz45g.xn--zckzah"},
        {"BÜCHER.example", "xn--bcher-kva.example"},
        {"bu\u0308cher.example", "xn--bcher-kva.example"}, /* decomposed */
        {"faß.example", "xn--fa-hia.example"},             /* not "fass": IDNA 2008 */
        {"ｅｘａｍｐｌｅ.com", "example.com"},             /* full width */
        {"１.２.３.４", NULL},
        {"\xff.example", NULL},
        {"\xc3", NULL},
        {"a.example\x01", NULL},
        {"ü..example", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct dns_name name;
        int rc = dns_name_parse(&name, str_of(rows[i].in));

        if ((rc == 0) != (rows[i].out != NULL))
            fail_msg("%s: %d", rows[i].in, rc);
        if (rc == 0) {
            assert_string_equal(name.text, rows[i].out);
            assert_int_equal(name.len, strlen(rows[i].out));
        }
    }
}

static void test_name_lengths(void **state)
{
    char text[3000];
    struct dns_name name;

    (void)state;
    /* UTF-8 whose A-label is too long, and more UTF-8 than is looked at. */
    for (size_t n = 0; n < sizeof(text) - 6; n += 2)
        memcpy(text + n, "\xc3\xbc", 3);
    assert_int_equal(dns_name_parse(&name, (struct str){text, 1000}), -22);
    assert_int_equal(dns_name_parse(&name, (struct str){text, 2994}), -22);
    assert_int_equal(dns_name_parse(&name, (struct str){"\xc3\xbc\0b.example", 12}), -22);
    assert_int_equal(dns_name_parse(&name, (struct str){"a\0b.example", 11}), -22);
    memset(text, 'a', sizeof(text));
    assert_int_equal(dns_name_parse(&name, (struct str){text, 63}), 0);
    assert_int_equal(dns_name_parse(&name, (struct str){text, 64}), -22);
    for (size_t n = 60; n < sizeof(text); n += 60)
        text[n] = '.';
    assert_int_equal(dns_name_parse(&name, (struct str){text, 253}), 0);
    assert_int_equal(dns_name_parse(&name, (struct str){text, 254}), -22);
    assert_int_equal(dns_name_parse(&name, (struct str){text, 2999}), -22);
}

static void test_literals(void **state)
{
    static const struct {
        const char *in;
        bool bare;
        enum dns_literal kind;
        const char *text;
    } rows[] = {
        {"[192.0.2.1]", false, DNS_LITERAL_ADDRESS, "[192.0.2.1]"},
        {"[IPv6:2001:DB8::1]", false, DNS_LITERAL_ADDRESS, "[IPv6:2001:db8::1]"},
        {"[ipV6:::]", false, DNS_LITERAL_ADDRESS, "[IPv6:::]"},
        {"[2001:db8::1]", false, DNS_LITERAL_BAD, NULL},
        {"[2001:db8::1]", true, DNS_LITERAL_ADDRESS, "[IPv6:2001:db8::1]"},
        {"2001:db8::1", true, DNS_LITERAL_ADDRESS, "[IPv6:2001:db8::1]"},
        {"2001:db8::1", false, DNS_LITERAL_NONE, NULL},
        {"192.0.2.1", true, DNS_LITERAL_ADDRESS, "[192.0.2.1]"},
        {"192.0.2.1", false, DNS_LITERAL_NONE, NULL},
        {"192.0.2", true, DNS_LITERAL_NONE, NULL},
        {"192.0.2.256", true, DNS_LITERAL_NONE, NULL},
        {"mx.example", true, DNS_LITERAL_NONE, NULL},
        {"", true, DNS_LITERAL_NONE, NULL},
        {"[", true, DNS_LITERAL_BAD, NULL},
        {"[]", true, DNS_LITERAL_BAD, NULL},
        {"[192.0.2.1", true, DNS_LITERAL_BAD, NULL},
        {"[192.0.2.1] ", false, DNS_LITERAL_BAD, NULL},
        {"[192.0.2.1]]", false, DNS_LITERAL_BAD, NULL},
        {"[IPv6:192.0.2.1]", false, DNS_LITERAL_BAD, NULL},
        {"[IPv6:1:2:3:4:5:6:7:8:9]", false, DNS_LITERAL_BAD, NULL},
        {"[mx.example]", false, DNS_LITERAL_BAD, NULL},
        {"[IPv6:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]",
         false, DNS_LITERAL_BAD, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct dns_address address;
        struct dns_name name;
        enum dns_literal kind = dns_literal_parse(&address, str_of(rows[i].in), rows[i].bare);

        if (kind != rows[i].kind)
            fail_msg("%s: %d", rows[i].in, kind);
        if (kind != DNS_LITERAL_ADDRESS)
            continue;
        dns_literal_text(&address, &name);
        assert_string_equal(name.text, rows[i].text);
    }
}

static void test_refused(void **state)
{
    static const struct {
        const char *address;
        bool refused;
    } rows[] = {
        {"0.0.0.0", true},
        {"0.255.255.255", true},
        {"1.0.0.0", false},
        {"127.0.0.1", false},
        {"127.255.255.255", false},
        {"128.0.0.0", false},
        {"223.255.255.255", false},
        {"224.0.0.0", true},
        {"255.255.255.255", true},
        {"10.0.0.1", false},
        {"::", true},
        {"::1", false},
        {"::2", false},
        {"ff02::1", true},
        {"::ffff:192.0.2.1", true},
        {"fe80::1", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct dns_address address;

        assert_int_equal(dns_literal_parse(&address, str_of(rows[i].address), true),
                         DNS_LITERAL_ADDRESS);
        if (dns_address_refused(&address) != rows[i].refused)
            fail_msg("%s", rows[i].address);
    }
}

static void test_readable(void **state)
{
    static const struct {
        const char *name, *text;
    } rows[] = {
        {"example.com", "example.com"},
        {"xn--r8jz45g.xn--zckzah", "例え.テスト"},
        {"mail.xn--r8jz45g.jp", "mail.例え.jp"},
        {"xn--fa-hia.example", "faß.example"},
        {"xn--.example", "xn--.example"},
        {"xn--a.example", "xn--a.example"},
        {"campaign:tenant@xn--r8jz45g.jp", "campaign:tenant@xn--r8jz45g.jp"},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *text = dns_name_readable(rows[i].name);

        assert_string_equal(text, rows[i].text);
        free(text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),    cmocka_unit_test(test_name_lengths),
        cmocka_unit_test(test_literals), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_readable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
