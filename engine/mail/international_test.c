#include "mail/international.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "mail/header.h"

#define JA      "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e"
#define A_LABEL "xn--wgv71a119e"

static void test_content(void **state)
{
    static const struct {
        const char *text;
        bool international;
    } rows[] = {
        {"Subject: a\r\n\r\nb\r\n", false},
        {"Subject: a\r\n\r\n" JA "\r\n", false},
        {"Subject: a\r\nContent-Type:\r\n Text/plain; charset=utf-8\r\n\r\n" JA "\r\n", false},
        {"Subject: " JA "\r\n\r\nb\r\n", true},
        /* A part's header may be the 8-bit one. */
        {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: " JA "\r\n\r\n\r\n--b--",
         true},
        {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" JA "\r\n--b--", false},
        {"content-type : message/rfc822\r\n\r\nSubject: " JA "\r\n", true},
        /* Nobody can say that this is a header. */
        {"Content-Type: text/plain\r\nContent-Type: message/rfc822\r\n\r\nX: " JA "\r\n", false},
        {"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX: y\r\n\r\n\r\n--b--", false},
        {JA "\r\n", false}, /* no header */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const uint8_t *content = (const uint8_t *)rows[i].text;
        size_t len = strlen(rows[i].text);
        struct trace_facts facts;

        trace_scan(content, len, NULL, 0, &facts);
        assert_int_equal(
            international_content(content, len, &facts, header_eight_bit(content, len)),
            rows[i].international);
    }
}

static void test_address(void **state)
{
    static const struct {
        const char *in, *out;
        bool ascii;
    } rows[] = {
        {"A@B.example", "A@B.example", true},
        {"a@" JA ".example", "a@" A_LABEL ".example", true},
        {"\"a@b c\"@" JA "\xe3\x80\x82"
         "example",
         "\"a@b c\"@" A_LABEL ".example", true},
        {JA "@" JA ".example", JA "@" JA ".example", false},
        {JA "@b.example", JA "@b.example", false},
        /* Not a name (RFC 5891 4.2.3.2): it stays what it is. */
        {"a@\xcc\x81" JA ".example", "a@\xcc\x81" JA ".example", false},
    };
    struct smtp_address address;
    char text[SMTP_PATH_MAX];
    struct buf out = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(smtp_address_parse(str_of(rows[i].in), true, &address), 0);
        assert_int_equal(international_put_address(&out, &address), rows[i].ascii);
        assert_true(str_eq(buf_str(&out), str_of(rows[i].out)));
        buf_clear(&out);
    }
    /* A-labels are longer, and what no longer fits a path keeps its form. */
    memset(text, 'x', sizeof(text));
    memcpy(text + 232, "@" JA ".example", 19);
    assert_int_equal(smtp_address_parse((struct str){text, 250}, true, &address), 0);
    assert_false(international_put_address(&out, &address));
    assert_true(str_eq(buf_str(&out), address.text));
    buf_done(&out);
}

static void test_xtext(void **state)
{
    struct buf out = {0};

    (void)state;
    international_put_xtext(&out, STR("utf-8;a+2B@" JA "\xc3\xa9\xf0\xa0\xae\xb7.example"));
    assert_true(str_eq(buf_str(&out),
                       STR("utf-8;a+2B@\\x{65E5}\\x{672C}\\x{8A9E}\\x{E9}\\x{20BB7}.example")));
    buf_clear(&out);
    international_put_xtext(&out, STR("rfc822;face+2bface+3df..a@b"));
    assert_true(str_eq(buf_str(&out), STR("rfc822;face+2Bface+3Df..a@b")));
    buf_done(&out);
}

/* RFC 6533 3 */
static void test_notice_addresses(void **state)
{
    static const struct {
        const char *in, *out; /* NULL: none */
    } rows[] = {
        {JA "@b", JA "@b"},
        {"\\x{65E5}\\x{20BB7}+2B", "\xe6\x97\xa5\xf0\xa0\xae\xb7+"},
        {"\\x{E9}a", "\xc3\xa9"
                     "a"},
        {"\\x{}", NULL},
        {"\\x{65E5", NULL},
        {"\\x{D800}", NULL},
        {"\\x{110000}", NULL},
        {"\\x{1FFFFFFF}", NULL},
        {"\\x{D}\\x{A}", NULL},
        {"+0D", NULL},
        {"+2", NULL},
        {"\\65E5", NULL},
        {"\xff", NULL},
        {"a b", "a b"},
    };
    struct buf out = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        buf_clear(&out);
        assert_int_equal(international_take_orcpt(&out, str_of(rows[i].in)), rows[i].out != NULL);
        assert_true(rows[i].out == NULL || str_eq(buf_str(&out), str_of(rows[i].out)));
    }
    buf_clear(&out);
    international_put_ascii_address(&out, STR("a+b=\\\xe6\x97\xa5@c"));
    assert_true(str_eq(buf_str(&out), STR("a\\x{2B}b\\x{3D}\\x{5C}\\x{65E5}@c")));
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content),
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_notice_addresses),
        cmocka_unit_test(test_xtext),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
