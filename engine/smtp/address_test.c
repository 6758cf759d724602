#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "smtp/address.h"

#define A10    "aaaaaaaaaa"
#define A60    A10 A10 A10 A10 A10 A10
#define L63    A60 "aaa"
#define D240   L63 "." L63 "." L63 "." A10 A10 A10 A10 A10 /* 63 * 3 + 50 + 3 = 242 */
#define KANA2  "\xe3\x81\x82\xe3\x81\x82"
#define KANA22 KANA2 KANA2 KANA2 KANA2 KANA2 KANA2 KANA2 KANA2 KANA2 KANA2 KANA2
#define V252   "news-" A60 "=" A60 "-" A60 A60 "aaaaa"

enum flags { NULL_OK = 1, UTF8_OK = 2 };

static const struct path_row {
    const char *in;
    int flags;
    const char *text, *local, *domain; /* text NULL: refused */
    size_t used;
} path_rows[] = {
    {"<a@b>", 0, "a@b", "a", "b", 5},
    {"<a@b> SIZE=1", 0, "a@b", "a", "b", 5},
    {"<first.last+tag@mail.example.com>", 0, "first.last+tag@mail.example.com", "first.last+tag",
     "mail.example.com", 33},
    {"<!#$%&'*+-/=?^_`{|}~@b>", 0, "!#$%&'*+-/=?^_`{|}~@b", "!#$%&'*+-/=?^_`{|}~", "b", 23},
    {"<\"a b\"@c>", 0, "\"a b\"@c", "\"a b\"", "c", 9},
    {"<\"a\\\"b>@c\"@d>", 0, "\"a\\\"b>@c\"@d", "\"a\\\"b>@c\"", "d", 13},
    {"<\"\"@d>", 0, "\"\"@d", "\"\"", "d", 6},
    {"<@x:a@b>", 0, "a@b", "a", "b", 8},
    {"<@x,@y.z,@[1.2.3.4]:a@b>", 0, "a@b", "a", "b", 24},
    {"<a@[192.0.2.1]>", 0, "a@[192.0.2.1]", "a", "[192.0.2.1]", 15},
    {"<a@[IPv6:2001:db8::1]>", 0, "a@[IPv6:2001:db8::1]", "a", "[IPv6:2001:db8::1]", 22},
    {"<a@[ipv6:::ffff:1.2.3.4]>", 0, "a@[ipv6:::ffff:1.2.3.4]", "a", "[ipv6:::ffff:1.2.3.4]", 25},
    {"<a@b-c.d_e.1>", 0, "a@b-c.d_e.1", "a", "b-c.d_e.1", 13},
    {"<postmaster>", 0, "postmaster", "postmaster", "", 12},
    {"<PostMaster>", 0, "PostMaster", "PostMaster", "", 12},
    {"<>", NULL_OK, "", "", "", 2},
    {"<a@\xe4\xbe\x8b.jp>", UTF8_OK, "a@\xe4\xbe\x8b.jp", "a", "\xe4\xbe\x8b.jp", 10},
    {"<\xc3\xa9@b>", UTF8_OK, "\xc3\xa9@b", "\xc3\xa9", "b", 6},
    {"<\"\xc3\xa9 x\"@b>", UTF8_OK, "\"\xc3\xa9 x\"@b", "\"\xc3\xa9 x\"", "b", 10},
    {"<" A60 "aaaa@b>", 0, A60 "aaaa@b", A60 "aaaa", "b", 68},
    {"<" V252 "@b>", 0, V252 "@b", V252, "b", 256},
    {"<\"" A60 A60 A60 A60 A10 "\"@b>", 0, "\"" A60 A60 A60 A60 A10 "\"@b",
     "\"" A60 A60 A60 A60 A10 "\"", "b", 256},
    {"<a@" L63 ".b>", 0, "a@" L63 ".b", "a", L63 ".b", 69},
    {"<" A10 "a@" D240 ">", 0, A10 "a@" D240, A10 "a", D240, 256}, /* 11 + 1 + 242 + 2 */
    /* not in RFC 5321, but there are such addresses */
    {"<a..b@c>", 0, "a..b@c", "a..b", "c", 8},
    {"<.a@c>", 0, ".a@c", ".a", "c", 6},
    {"<a.@c>", 0, "a.@c", "a.", "c", 6},
    {"<...@c>", 0, "...@c", "...", "c", 7},
    {"<.\xc3\xa9@b>", UTF8_OK, ".\xc3\xa9@b", ".\xc3\xa9", "b", 7},
    {"<a@b.c.>", 0, "a@b.c", "a", "b.c", 8},
    {"<a.@b.> SIZE=1", 0, "a.@b", "a.", "b", 7},
    /* 66 bytes, an A-label of 27 */
    {"<a@" KANA22 ".jp>", UTF8_OK, "a@" KANA22 ".jp", "a", KANA22 ".jp", 73},
    /* refused */
    {"<>", 0, NULL, NULL, NULL, 0},
    {"", 0, NULL, NULL, NULL, 0},
    {"<", NULL_OK, NULL, NULL, NULL, 0},
    {"a@b", 0, NULL, NULL, NULL, 0},
    {"<a@b", 0, NULL, NULL, NULL, 0},
    {"<a@b >", 0, NULL, NULL, NULL, 0},
    {"< a@b>", 0, NULL, NULL, NULL, 0},
    {"<a b@c>", 0, NULL, NULL, NULL, 0},
    {"<a@b@c>", 0, NULL, NULL, NULL, 0},
    {"<a>", 0, NULL, NULL, NULL, 0},
    {"<postmaster>", NULL_OK, NULL, NULL, NULL, 0}, /* no sender */
    {"<a@>", 0, NULL, NULL, NULL, 0},
    {"<@b>", 0, NULL, NULL, NULL, 0},
    {"<@b:>", 0, NULL, NULL, NULL, 0},
    {"<@b,c:a@d>", 0, NULL, NULL, NULL, 0},
    {"<@b a@d>", 0, NULL, NULL, NULL, 0},
    {"<a@b..>", 0, NULL, NULL, NULL, 0},
    {"<a@.>", 0, NULL, NULL, NULL, 0},
    {"<a@[1.2.3.4].>", 0, NULL, NULL, NULL, 0},
    {"<@b.>", 0, NULL, NULL, NULL, 0},
    {"<a..b>", 0, NULL, NULL, NULL, 0},
    {"<a@.b>", 0, NULL, NULL, NULL, 0},
    {"<a@b..c>", 0, NULL, NULL, NULL, 0},
    {"<a@-b>", 0, NULL, NULL, NULL, 0},
    {"<a@b->", 0, NULL, NULL, NULL, 0},
    {"<a@b-.c>", 0, NULL, NULL, NULL, 0},
    {"<a@b.-c>", 0, NULL, NULL, NULL, 0},
    {"<a@b/c>", 0, NULL, NULL, NULL, 0},
    {"<a@b:c>", 0, NULL, NULL, NULL, 0},
    {"<a@[]>", 0, NULL, NULL, NULL, 0},
    {"<a@[1.2.3]>", 0, NULL, NULL, NULL, 0},
    {"<a@[1.2.3.256]>", 0, NULL, NULL, NULL, 0},
    {"<a@[1.2.3.4>", 0, NULL, NULL, NULL, 0},
    {"<a@[1.2.3.4]x>", 0, NULL, NULL, NULL, 0},
    {"<a@[::1]>", 0, NULL, NULL, NULL, 0},
    {"<a@[IPv6:1.2.3.4]>", 0, NULL, NULL, NULL, 0},
    {"<a@[IPv6:1:2:3:4:5:6:7:8:9]>", 0, NULL, NULL, NULL, 0},
    {"<a@[tag:x]>", 0, NULL, NULL, NULL, 0},
    {"<\"a@b>", 0, NULL, NULL, NULL, 0},
    {"<\"a\"b@c>", 0, NULL, NULL, NULL, 0},
    {"<a\"b\"@c>", 0, NULL, NULL, NULL, 0},
    {"<\"a\\", 0, NULL, NULL, NULL, 0},
    {"<\"a\rb\"@c>", 0, NULL, NULL, NULL, 0},
    {"<\"a\\\nb\"@c>", 0, NULL, NULL, NULL, 0},
    {"<\"a\tb\"@c>", 0, NULL, NULL, NULL, 0},
    {"<a\x7f@b>", 0, NULL, NULL, NULL, 0},
    {"<\xc3\xa9@b>", 0, NULL, NULL, NULL, 0},
    {"<\xe9@b>", UTF8_OK, NULL, NULL, NULL, 0},
    {"<\xc2\x85@b>", UTF8_OK, NULL, NULL, NULL, 0}, /* U+0085, a control */
    {"<\"\\\xc3\xa9\"@b>", UTF8_OK, NULL, NULL, NULL, 0},
    {"<a@\xc3>", UTF8_OK, NULL, NULL, NULL, 0},
    {"<a@" L63 "a.b>", 0, NULL, NULL, NULL, 0},
    {"<" A10 "aa@" D240 ">", 0, NULL, NULL, NULL, 0},
    {"<" V252 "a@b>", 0, NULL, NULL, NULL, 0},
    {"<." V252 "@b>", 0, NULL, NULL, NULL, 0}, /* quoted it is too long */
    {"<a@" L63 "a." KANA22 ">", UTF8_OK, NULL, NULL, NULL, 0},
};

static void assert_str(struct str got, const char *want)
{
    assert_int_equal(got.len, strlen(want));
    assert_memory_equal(got.ptr, want, got.len);
}

/* A copy of exact size, so that a sanitizer sees every byte read too far. */
static struct str exact(const char *in, size_t len)
{
    char *copy = malloc(len + (len == 0));

    memcpy(copy, in, len);
    return (struct str){copy, len};
}

static void test_paths(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(path_rows); i++) {
        const struct path_row *row = &path_rows[i];
        struct str in = exact(row->in, strlen(row->in));
        struct smtp_address a;
        size_t used = 0;
        int err = smtp_path_parse(in, (row->flags & NULL_OK) != 0, (row->flags & UTF8_OK) != 0, &a,
                                  &used);

        if (err != (row->text == NULL ? -EINVAL : 0))
            fail_msg("%s: %d", row->in, err);
        if (row->text != NULL) {
            assert_str(a.text, row->text);
            assert_str(a.local_part, row->local);
            assert_str(a.domain, row->domain);
            assert_int_equal(used, row->used);
            assert_int_equal(a.utf8, row->flags == UTF8_OK);
        }
        free((void *)(uintptr_t)in.ptr);
    }
}

/* Whatever prefix of a valid path comes, it is refused, and no byte control is ever accepted. */
static void test_controls_and_prefixes(void **state)
{
    static const char valid[] = "<@r.x:\"a\\b c\"@d.example>";
    struct smtp_address a;
    size_t used;

    (void)state;
    for (size_t len = 0; len < sizeof(valid) - 1; len++) {
        struct str in = exact(valid, len);

        assert_int_equal(smtp_path_parse(in, true, true, &a, &used), -EINVAL);
        free((void *)(uintptr_t)in.ptr);
    }
    for (size_t at = 1; at < sizeof(valid) - 2; at++) {
        for (int c = 0; c < 0x20; c++) {
            char changed[sizeof(valid)];

            memcpy(changed, valid, sizeof(valid));
            changed[at] = (char)c;
            assert_int_equal(
                smtp_path_parse((struct str){changed, sizeof(valid) - 1}, true, true, &a, &used),
                -EINVAL);
        }
    }
}

static void test_bare_address(void **state)
{
    struct smtp_address a;

    (void)state;
    assert_int_equal(smtp_address_parse(STR("a@b"), false, &a), 0);
    assert_str(a.domain, "b");
    assert_int_equal(smtp_address_parse(STR("\"a b\"@b"), false, &a), 0);
    assert_int_equal(smtp_address_parse(STR("a@b "), false, &a), -EINVAL);
    assert_int_equal(smtp_address_parse(STR("a@b>"), false, &a), -EINVAL);
    assert_int_equal(smtp_address_parse(STR("a"), false, &a), -EINVAL);
    assert_int_equal(smtp_address_parse(STR("postmaster"), false, &a), -EINVAL);
    assert_int_equal(smtp_address_parse(STR(""), false, &a), -EINVAL);
    assert_int_equal(smtp_address_parse(STR("a@b\r\nRCPT TO:<c@d>"), false, &a), -EINVAL);
}

static void test_bare_path(void **state)
{
    struct smtp_address a;
    size_t used;

    (void)state;
    assert_int_equal(smtp_bare_path_parse(STR("a@b. SIZE=1"), false, &a, &used), 0);
    assert_str(a.text, "a@b");
    assert_int_equal(used, 4);
    assert_int_equal(smtp_bare_path_parse(STR("a@b"), false, &a, &used), 0);
    assert_int_equal(used, 3);
    assert_int_equal(smtp_bare_path_parse(STR(""), false, &a, &used), -EINVAL);
    assert_int_equal(smtp_bare_path_parse(STR("a"), false, &a, &used), -EINVAL);
    assert_int_equal(smtp_bare_path_parse(STR("a@b>"), false, &a, &used), -EINVAL);
}

/* What others see can be parsed by the book, and is the same mailbox. */
static void test_quoted_outward(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"a@b", "a@b"},
        {"a.b@c..", "a.b@c.."}, /* the local part alone */
        {"a..b@docomo.example", "\"a..b\"@docomo.example"},
        {".a@c", "\".a\"@c"},
        {"a.@c", "\"a.\"@c"},
        {".@c", "\".\"@c"},
        {"\"a..b\"@c", "\"a..b\"@c"},
        {"\"a@b..\"@c", "\"a@b..\"@c"},
        {"\"ab\"@c", "ab@c"}, /* the minimum of quotes */
        {"\"a.b\"@c", "a.b@c"},
        {"\"a\\b\"@c", "ab@c"},
        {"\"a\\ b\"@c", "\"a b\"@c"},
        {"\"a\\\"b\\\\c\"@d", "\"a\\\"b\\\\c\"@d"},
        {"\"a\\@b\"@c", "\"a@b\"@c"},
        {"\"\"@c", "\"\"@c"},
        {"\".a\"@c", "\".a\"@c"},
        {"\"\xe3\x81\x82\"@c", "\xe3\x81\x82@c"},
        {"\"a", "\"a"},
        {"\"a\\", "\"a\\"},
        {"postmaster", "postmaster"},
        {"", ""},
    };
    struct buf out = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct str in = exact(rows[i].in, strlen(rows[i].in));

        buf_clear(&out);
        smtp_address_put(&out, in);
        assert_str(buf_str(&out), rows[i].out);
        free((void *)(uintptr_t)in.ptr);
    }
    buf_done(&out);
}

static void test_domain(void **state)
{
    (void)state;
    assert_true(smtp_domain_valid(STR("localhost"), false));
    assert_true(smtp_domain_valid(STR("my_pc"), false));
    assert_true(smtp_domain_valid(STR("[127.0.0.1]"), false));
    assert_true(smtp_domain_valid(STR("\xe4\xbe\x8b.jp"), true));
    assert_false(smtp_domain_valid(STR("\xe4\xbe\x8b.jp"), false));
    assert_false(smtp_domain_valid(STR(""), false));
    assert_false(smtp_domain_valid(STR("."), false));
    assert_false(smtp_domain_valid(STR("a b"), false));
    assert_false(smtp_domain_valid(STR("[127.0.0.1"), false));
    assert_false(smtp_domain_valid(STR("["), false));
    assert_false(smtp_domain_valid(STR("a]"), false));
}

static void test_xtext(void **state)
{
    static const char *const texts[] = {"", "a", " ", "a b+c=d", "+2B", "!~<>\"\\"};
    struct buf put = {0};
    static const struct {
        const char *in, *out; /* NULL: refused */
    } rows[] = {
        {"abc", "abc"}, {"a+2Bb+3D", "a+b="}, {"", ""},      {"+20", " "},
        {"+", NULL},    {"+2", NULL},         {"+2b", "+"},  {"+0A", NULL},
        {"+7F", NULL},  {"+G0", NULL},        {"a=b", NULL}, {"a b", NULL},
        {"\x80", NULL}, {"a\nb", NULL},       {"+E3", NULL}, {"+2B+", NULL},
    };
    char out[16];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct str in = exact(rows[i].in, strlen(rows[i].in));
        ptrdiff_t n = smtp_xtext_decode(in, out, sizeof(out));

        if (rows[i].out == NULL)
            assert_int_equal(n, -EINVAL);
        else
            assert_str((struct str){out, (size_t)n}, rows[i].out);
        free((void *)(uintptr_t)in.ptr);
    }
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        assert_int_equal(smtp_xtext_put(&put, str_of(texts[i])), 0);
        assert_int_equal(smtp_xtext_decode(buf_str(&put), out, sizeof(out)), strlen(texts[i]));
        assert_memory_equal(out, texts[i], strlen(texts[i]));
        buf_clear(&put);
    }
    assert_int_equal(smtp_xtext_put(&put, STR("a\nb")), -EINVAL);
    assert_int_equal(smtp_xtext_put(&put, STR("\xe6\x97\xa9")), -EINVAL);
    assert_int_equal(put.len, 0);
    assert_int_equal(smtp_xtext_put(&put, STR("a b+c=d")), 0);
    assert_true(str_eq(buf_str(&put), STR("a+20b+2Bc+3Dd")));
    buf_done(&put);
    assert_int_equal(smtp_xtext_decode(STR("abcd"), out, 3), -EINVAL);
    for (size_t len = 1; len < 3; len++) /* what is behind it is not the parameter's */
        assert_int_equal(smtp_xtext_decode((struct str){"+2B", len}, out, sizeof(out)), -EINVAL);
    assert_int_equal(smtp_xtext_decode(STR("abc"), out, 3), 3);
}

static void test_utf8(void **state)
{
    static const struct {
        const char *in;
        bool valid;
    } rows[] = {
        {"", true},
        {"abc", true},
        {"\xc2\x80", true},
        {"\xdf\xbf", true},
        {"\xe0\xa0\x80", true},
        {"\xed\x9f\xbf", true},
        {"\xee\x80\x80", true},
        {"\xf0\x90\x80\x80", true},
        {"\xf4\x8f\xbf\xbf", true},
        {"\x80", false},
        {"\xc0\xaf", false},
        {"\xc1\xbf", false},
        {"\xe0\x9f\xbf", false},
        {"\xed\xa0\x80", false}, /* a surrogate */
        {"\xf0\x8f\xbf\xbf", false},
        {"\xf4\x90\x80\x80", false},
        {"\xf5\x80\x80\x80", false},
        {"\xc3", false},
        {"\xe4\xbe", false},
        {"\xe4\xbe"
         "a",
         false},
        {"\xf0\x90\x80", false},
        {"\xf0\x90\x80"
         "a",
         false},
        {"a\xff", false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct str in = exact(rows[i].in, strlen(rows[i].in));

        assert_int_equal(smtp_utf8_valid(in), rows[i].valid);
        free((void *)(uintptr_t)in.ptr);
    }
}

/* What people get wrong most is named; the reply says the same. */
static void test_fault(void **state)
{
    static const char *const rows[][2] = {{"taro\xef\xbc\xa0"
                                           "docomo.ne.jp",
                                           "is full-width; write @"},
                                          {"taro@docomo.ne.jp\xe3\x80\x80", "a full-width blank"},
                                          {"Taro <taro@x.example>", "without a name"},
                                          {"taro @x.example", "there is a blank"},
                                          {"taro.x.example", "it has no @"},
                                          {"a@@b.example", "is no mail address"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct smtp_address_fault *fault = smtp_address_fault(str_of(rows[i][0]));

        assert_non_null(strstr(fault->words, rows[i][1]));
        assert_int_equal(strncmp(fault->reply, "553 5.1.3 ", 10), 0);
        assert_string_equal(fault->reply + 10, fault->words);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),        cmocka_unit_test(test_controls_and_prefixes),
        cmocka_unit_test(test_bare_address), cmocka_unit_test(test_domain),
        cmocka_unit_test(test_bare_path),    cmocka_unit_test(test_quoted_outward),
        cmocka_unit_test(test_xtext),        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_fault),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
