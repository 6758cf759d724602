#include "mail/mime.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define JA "日本語"

static void field(const char *name, const char *value, const char *want)
{
    struct buf out = {0};

    assert_int_equal(mime_put_field(&out, str_of(name), str_of(value), MIME_UTF8), 0);
    buf_putc(&out, '\0');
    assert_string_equal((char *)out.data, want);
    buf_done(&out);
}

static void test_fields(void **state)
{
    struct buf out = {0};
    char *word = malloc(2000);

    (void)state;
    field("Subject", " hi ", "Subject: hi\r\n");
    field("Subject", "", "Subject: \r\n");
    field("Subject", "a\r\nBcc: b\tc", "Subject: a  Bcc: b c\r\n");
    field("Subject", JA, "Subject: =?UTF-8?B?5pel5pys6Kqe?=\r\n");
    field("Subject", JA "\n\nBcc: x", "Subject: =?UTF-8?B?5pel5pys6Kqe?=  Bcc: x\r\n");
    field("To", "\"" JA "\" <a@b>", "To: =?UTF-8?B?5pel5pys6Kqe?= <a@b>\r\n");
    field(
        "X",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb c",
        "X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n"
        " bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb c\r\n");
    memset(word, 'x', 1999);
    word[1999] = '\0';
    assert_int_equal(mime_put_field(&out, STR("X"), str_of(word), MIME_UTF8), -EMSGSIZE);
    memset(word, ' ', 1998);
    word[0] = 'x';
    assert_int_equal(mime_put_field(&out, STR("X"), str_of(word), MIME_UTF8), -EMSGSIZE);
    assert_int_equal(out.len, 0);
    free(word);
    buf_done(&out);
}

static void test_mailboxes(void **state)
{
    static const struct {
        const char *name, *address, *want;
    } cases[] = {
        {"", "a@b.example", "From: <a@b.example>\r\n"},
        {"Ann", "a@b.example", "From: \"Ann\" <a@b.example>\r\n"},
        {"A \"B\" \\ <x@y>, c", "a@b", "From: \"A \\\"B\\\" \\\\ <x@y>, c\" <a@b>\r\n"},
        {JA, "a..b@c", "From: =?UTF-8?B?5pel5pys6Kqe?= <\"a..b\"@c>\r\n"},
        {"x\r\nBcc: y", "a@b", "From: \"x  Bcc: y\" <a@b>\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf out = {0};

        assert_int_equal(mime_put_mailbox(&out, STR("From"), str_of(cases[i].name),
                                          str_of(cases[i].address), MIME_UTF8),
                         0);
        buf_putc(&out, '\0');
        assert_string_equal((char *)out.data, cases[i].want);
        buf_done(&out);
    }
}

/* Nobody bounds a recipient's name but the body's length: work for each byte of it that looks at
 * all others would take minutes here. */
static void test_long_name(void **state)
{
    struct buf name = {0}, out = {0};

    (void)state;
    for (int i = 0; i < 500000; i++)
        buf_puts(&name, "\xc3\xa9");
    assert_int_equal(
        mime_put_mailbox(&out, STR("To"), buf_str(&name), STR("a@b.example"), MIME_UTF8), 0);
    assert_true(out.len > name.len);
    buf_done(&name);
    buf_done(&out);
}

static void text(const char *in, const char *want)
{
    struct buf out = {0};

    mime_put_text(&out, STR("plain"), str_of(in), MIME_UTF8);
    buf_putc(&out, '\0');
    assert_string_equal((char *)out.data, want);
    buf_done(&out);
}

#define HEAD(charset, encoding)                                                                    \
    "Content-Type: text/plain; charset=" charset "\r\nContent-Transfer-Encoding: " encoding        \
    "\r\n\r\n"

static void test_texts(void **state)
{
    struct str parts[] = {STR("A: 1\r\n\r\nx\r\n"), STR("A: 2\r\n\r\ny")};
    struct buf out = {0};

    (void)state;
    text("a\nb\rc\r\n.", HEAD("us-ascii", "7bit") "a\r\nb\r\nc\r\n.\r\n");
    text("", HEAD("us-ascii", "7bit"));
    text("caf\xc3\xa9 au lait = 1",
         HEAD("utf-8", "quoted-printable") "caf=C3=A9 au lait =3D 1\r\n");
    text(JA, HEAD("utf-8", "base64") "5pel5pys6KqeDQo=\r\n");
    mime_put_multipart(&out, "mixed", parts, 2, STR("seed"));
    buf_putc(&out, '\0');
    assert_string_equal(
        (char *)out.data,
        "Content-Type: multipart/mixed;\r\n boundary=\"=_seed\"\r\n\r\n"
        "--=_seed\r\nA: 1\r\n\r\nx\r\n\r\n--=_seed\r\nA: 2\r\n\r\ny\r\n--=_seed--\r\n");
    buf_done(&out);
}

static void test_attachments(void **state)
{
    struct mime_attachment a = {.type = STR("image/png"),
                                .file_name = STR("a\".png"),
                                .content_id = STR("x@y"),
                                .bytes = STR("ab")};
    struct buf out = {0};

    (void)state;
    mime_put_attachment(&out, &a);
    buf_putc(&out, '\0');
    assert_string_equal((char *)out.data,
                        "Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n"
                        "Content-Disposition: inline;\r\n filename*=UTF-8''a%22.png\r\n"
                        "Content-ID: <x@y>\r\n\r\nYWI=\r\n");
    buf_done(&out);
    assert_true(mime_type_valid(STR("text/plain; charset=\"utf-8\"")));
    assert_false(mime_type_valid(STR("text")));
    assert_false(mime_type_valid(STR("text/")));
    assert_false(mime_type_valid(STR("text/a\r\nb")));
    assert_false(mime_type_valid(STR("Multipart/mixed")));
    assert_false(mime_type_valid(STR("message/rfc822")));
    assert_false(mime_id_valid(STR("a b")));
    assert_false(mime_id_valid(STR("a>")));
    assert_true(mime_field_name_valid(STR("X-Y")));
    assert_false(mime_field_name_valid(STR("X:")));
    assert_false(mime_field_name_valid(STR("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),      cmocka_unit_test(test_mailboxes),
        cmocka_unit_test(test_long_name),   cmocka_unit_test(test_texts),
        cmocka_unit_test(test_attachments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
