#include "mail/convert.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <gmime/gmime.h>

#include "base/assert.h"
#include "mail/encode.h"

#define JA "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e"

static int convert(const char *in, struct buf *out)
{
    return convert_message((const uint8_t *)in, strlen(in), CONVERT_ALL, out);
}

static void check(const char *in, const char *want)
{
    struct buf out = {0};

    assert_int_equal(convert(in, &out), 0);
    buf_putc(&out, '\0');
    assert_string_equal((char *)out.data, want);
    buf_done(&out);
}

static void test_plain(void **state)
{
    (void)state;
    /* 7-bit mail is left alone, whatever it looks like. */
    check("Subject: a\r\n\r\nbody=\r\n", "Subject: a\r\n\r\nbody=\r\n");
    check("Content-Type: multipart/mixed\r\n\r\n=\r\n",
          "Content-Type: multipart/mixed\r\n\r\n=\r\n");
    check("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
          "Content-Transfer-Encoding: 8bit\r\nX: y\r\n\r\n"
          "mostly plain text, a = and one \xc3\xa9 \r\n.dot\r\n-dash\r\n",
          "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\nX: y\r\n\r\n"
          "mostly plain text, a =3D and one =C3=A9=20\r\n=2Edot\r\n=2Ddash\r\n");
    check("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" JA JA "\r\n",
          "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
          "Content-Transfer-Encoding: base64\r\n\r\n5pel5pys6Kqe5pel5pys6KqeDQo=\r\n");
    /* Without MIME there is no telling which charset it was (RFC 1428). */
    check("Subject: a\r\n\r\ncaf\xe9 au lait, bien chaud\r\n",
          "Subject: a\r\nContent-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n"
          "Content-Type: text/plain; charset=unknown-8bit\r\n\r\ncaf=E9 au lait, bien chaud\r\n");
    check("\r\ncaf\xe9 au lait, bien chaud\r\n",
          "Content-Transfer-Encoding: quoted-printable\r\nMIME-Version: 1.0\r\n"
          "Content-Type: text/plain; charset=unknown-8bit\r\n\r\ncaf=E9 au lait, bien chaud\r\n");
}

static const char nested[] = "MIME-Version: 1.0\r\n"
                             "Content-Type: multipart/mixed;\r\n\tboundary=\"a b\"\r\n"
                             "Content-Transfer-Encoding: 8bit\r\n"
                             "\r\n"
                             "preamble\r\n"
                             "--a b  \r\n"
                             "Content-Type: multipart/alternative; charset=x; boundary=----=_in\r\n"
                             "\r\n"
                             "------=_in\r\n"
                             "content-transfer-encoding: 8BIT (really)\r\n"
                             "Content-Type: text/plain; charset=utf-8\r\n"
                             "\r\n"
                             "some long enough English text and one \xc3\xa9\r\n"
                             "------=_in\r\n"
                             "Content-Type: text/html; charset=us-ascii\r\n"
                             "\r\n"
                             "<p>= kept as it is \r\n"
                             "------=_in--\r\n"
                             "\r\n"
                             "--a b\r\n"
                             "Content-Type: message/rfc822\r\n"
                             "Content-Transfer-Encoding: 8bit\r\n"
                             "\r\n"
                             "MIME-Version: 1.0\r\n"
                             "Content-Type: text/plain; charset=utf-8\r\n"
                             "Content-Transfer-Encoding: 8bit\r\n"
                             "\r\n" JA JA "\r\n"
                             "--a b--\r\n"
                             "epilogue\r\n";

static const char nested_7bit[] =
    "MIME-Version: 1.0\r\n"
    "Content-Type: multipart/mixed;\r\n\tboundary=\"a b\"\r\n"
    "Content-Transfer-Encoding: 7bit\r\n"
    "\r\n"
    "preamble\r\n"
    "--a b  \r\n"
    "Content-Type: multipart/alternative; charset=x; boundary=----=_in\r\n"
    "\r\n"
    "------=_in\r\n"
    "Content-Transfer-Encoding: quoted-printable\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "\r\n"
    "some long enough English text and one =C3=A9\r\n"
    "------=_in\r\n"
    "Content-Type: text/html; charset=us-ascii\r\n"
    "\r\n"
    "<p>= kept as it is \r\n"
    "------=_in--\r\n"
    "\r\n"
    "--a b\r\n"
    "Content-Type: message/rfc822\r\n"
    "Content-Transfer-Encoding: 7bit\r\n"
    "\r\n"
    "MIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: base64\r\n"
    "\r\n5pel5pys6Kqe5pel5pys6Kqe\r\n"
    "--a b--\r\n"
    "epilogue\r\n";

static void test_nested(void **state)
{
    (void)state;
    check(nested, nested_7bit);
}

static void check_same(const uint8_t *in, size_t in_len);

/* Such mail comes out as it went in, but for what stands beside the part. */
static void test_stays(void **state)
{
    static const char *const rows[] = {
        /* other encodings, contradictions, malformed fields */
        "Content-Transfer-Encoding: x-uuencode\r\n\r\n" JA "\r\n",
        "Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" JA "\r\n",
        "Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n" JA "\r\n",
        "Content-Type: text\r\n\r\n" JA "\r\n",
        "Content-Type: text/plain; x\r\n\r\n" JA "\r\n",
        "Content-Type: text/plain; x=\"y\r\n\r\n" JA "\r\n",
        "Content-Type: text/plain (open\r\n\r\n" JA "\r\n",
        "Content-Type: multipart/mixed\r\n\r\n" JA "\r\n",
        "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n" JA "\r\n",
        "Content-Type: multipart/mixed; boundary=a; boundary=b\r\n\r\n--a\r\n\r\n" JA "\r\n",
        "Content-Type: multipart/mixed; boundary*0=a\r\n\r\n--a\r\n\r\n" JA "\r\n",
        "Subject: a\r\nno field\r\n\r\n" JA "\r\n",
        /* no delimiter */
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n" JA "\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n"
        "\r\n" JA "\r\n",
        /* what must not be encoded, or is */
        "Content-Type: multipart/signed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        "--b\r\n\r\n" JA "\r\n--b--\r\n",
        "Content-Type: message/partial; id=1\r\n\r\n" JA "\r\n",
        "Content-Type: message/delivery-status\r\n\r\n" JA "\r\n",
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        "Subject: x\r\n\r\n" JA "\r\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct convert_facts facts;

        check(rows[i], rows[i]);
        assert_int_equal(convert_examine((const uint8_t *)rows[i], strlen(rows[i]), &facts), 0);
        assert_true(facts.eight_bit_stays);
    }
    /* the label of what is around it stays too, and so does what is in no part */
    check("Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
          "caf\xe9\r\n--b\r\nContent-Type: text\r\n\r\n" JA "\r\n--b\r\n\r\n"
          "caf\xe9, long enough for it\r\n--b--\r\n",
          "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
          "caf\xe9\r\n--b\r\nContent-Type: text\r\n\r\n" JA "\r\n--b\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\n"
          "caf=E9, long enough for it\r\n--b--\r\n");
}

/* Bytes that should not be where they are. */
static void test_strays(void **state)
{
    static const char head[] = "Content-Transfer-Encoding: quoted-printable\r\n\r\n";
    struct buf in = {0}, out = {0};

    (void)state;
    check("Content-Transfer-Encoding: Quoted-Printable\r\n\r\na =3D\xe9=\r\nb\r\n",
          "Content-Transfer-Encoding: Quoted-Printable\r\n\r\na =3D=E9=\r\nb\r\n");
    check("Content-Transfer-Encoding: base64\r\n\r\nYW\xc2\xa0Jj\r\n",
          "Content-Transfer-Encoding: base64\r\n\r\nYWJj\r\n");
    /* preamble and epilogue; a label that no multipart may have */
    check("Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n\r\n"
          "caf\xe9\r\n--b\r\n\r\nx\r\n--b--\r\n",
          "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
          "caf?\r\n--b\r\n\r\nx\r\n--b--\r\n");
    check("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\ncaf\xe9\r\n",
          "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\ncaf?\r\n");
    buf_puts(&in, head);
    for (int i = 0; i < 400; i++)
        buf_putc(&in, (char)0xe9);
    buf_puts(&in, "\r\n");
    assert_int_equal(convert_message(in.data, in.len, CONVERT_ALL, &out), 0);
    for (size_t i = 0, line = 0; i < out.len; i++) {
        line = out.data[i] == '\n' ? 0 : line + 1;
        assert_true(line <= 77); /* with the CR */
    }
    check_same(in.data, in.len);
    buf_done(&in);
    buf_done(&out);
}

static void test_edges(void **state)
{
    (void)state;
    /* a multipart that is never closed; a part without header; a digest's default type */
    check("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" JA JA JA "\r\n",
          "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
          "Content-Transfer-Encoding: base64\r\n\r\n5pel5pys6Kqe5pel5pys6Kqe5pel5pys6KqeDQo=\r\n");
    check("Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nMIME-Version: 1.0\r\n"
          "Content-Type: text/plain\r\n\r\n" JA JA JA "\r\n--b--\r\n",
          "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nMIME-Version: 1.0\r\n"
          "Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
          "5pel5pys6Kqe5pel5pys6Kqe5pel5pys6Kqe\r\n--b--\r\n");
    /* a signed part that is 7-bit keeps every byte beside one that is not */
    check("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
          "Content-Type: multipart/signed; boundary=c\r\n\r\n--c\r\n\r\n=\r\n--c--\r\n"
          "--b\r\n\r\ncaf\xe9, long enough for it\r\n--b--\r\n",
          "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
          "Content-Type: multipart/signed; boundary=c\r\n\r\n--c\r\n\r\n=\r\n--c--\r\n"
          "--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
          "caf=E9, long enough for it\r\n--b--\r\n");
    /* lines that only look like delimiters */
    check("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--bb\r\n--b x\r\n -- b\r\n"
          "caf\xe9, long enough for it\r\n--b--\r\n",
          "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
          "Content-Transfer-Encoding: quoted-printable\r\n\r\n=2D-bb\r\n=2D-b x\r\n -- b\r\n"
          "caf=E9, long enough for it\r\n--b--\r\n");
}

/* A soft line break must not put a delimiter, or a dot, at the start of a line. */
static void test_soft_breaks(void **state)
{
    static const char *const tails[] = {"--b", ".", "--b--"};

    (void)state;
    for (size_t pad = 60; pad < 90; pad++) {
        for (size_t i = 0; i < ARRAY_LEN(tails); i++) {
            struct buf in = {0}, out = {0};

            buf_puts(&in, "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n\xc3\xa9");
            for (size_t k = 0; k < pad; k++)
                buf_putc(&in, 'x');
            buf_puts(&in, tails[i]);
            buf_puts(&in, "\r\n--b--\r\n");
            assert_int_equal(convert_message(in.data, in.len, CONVERT_ALL, &out), 0);
            buf_putc(&out, '\0');
            assert_null(strstr((char *)out.data, "=\r\n-"));
            assert_null(strstr((char *)out.data, "\r\n."));
            buf_done(&in);
            buf_done(&out);
        }
    }
}

static void append_levels(struct buf *in, unsigned levels)
{
    for (unsigned i = 0; i < levels; i++)
        buf_puts(in, "Content-Type: message/rfc822\r\n\r\n");
    buf_puts(in, "MIME-Version: 1.0\r\n\r\n" JA "\r\n");
}

static void test_limits(void **state)
{
    struct buf in = {0}, out = {0};

    (void)state;
    append_levels(&in, CONVERT_DEPTH_MAX);
    assert_int_equal(convert_message(in.data, in.len, CONVERT_ALL, &out), 0);
    buf_clear(&in);
    buf_clear(&out);
    append_levels(&in, CONVERT_DEPTH_MAX + 1);
    assert_int_equal(convert_message(in.data, in.len, CONVERT_ALL, &out), 0);
    assert_true(str_eq(buf_str(&in), buf_str(&out)));
    buf_clear(&in);
    buf_clear(&out);
    buf_puts(&in, "Content-Type: multipart/mixed; boundary=b\r\n\r\n");
    for (unsigned i = 0; i < CONVERT_PARTS_MAX; i++)
        buf_puts(&in, "--b\r\n\r\n" JA "\r\n");
    assert_int_equal(convert_message(in.data, in.len, CONVERT_ALL, &out), 0);
    buf_puts(&in, "--b\r\n\r\n" JA "\r\n");
    assert_int_equal(convert_message(in.data, in.len, CONVERT_ALL, &out), -EILSEQ);
    buf_done(&in);
    buf_done(&out);
}

/* --- another implementation reads the same --- */

static GMimeMessage *parse(const uint8_t *p, size_t len)
{
    GMimeStream *stream = g_mime_stream_mem_new_with_buffer((const char *)p, len);
    GMimeParser *parser = g_mime_parser_new_with_stream(stream);
    GMimeMessage *message = g_mime_parser_construct_message(parser, NULL);

    g_object_unref(stream);
    g_object_unref(parser);
    assert_non_null(message);
    return message;
}

static void collect(GMimeObject *parent, GMimeObject *part, gpointer arg)
{
    struct buf *all = arg;

    (void)parent;
    if (GMIME_IS_PART(part)) {
        GMimeStream *mem = g_mime_stream_mem_new();
        GByteArray *bytes;

        g_mime_data_wrapper_write_to_stream(g_mime_part_get_content(GMIME_PART(part)), mem);
        bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(mem));
        buf_puts(all, "[");
        buf_put(all, bytes->data, bytes->len);
        buf_puts(all, "]");
        g_object_unref(mem);
    } else if (GMIME_IS_MESSAGE_PART(part)) {
        g_mime_message_foreach(g_mime_message_part_get_message(GMIME_MESSAGE_PART(part)), collect,
                               all);
    }
}

static void check_same(const uint8_t *in, size_t in_len)
{
    struct buf out = {0}, before = {0}, after = {0};
    GMimeMessage *m;

    assert_int_equal(convert_message(in, in_len, CONVERT_ALL, &out), 0);
    for (size_t i = 0; i < out.len; i++)
        assert_true(out.data[i] < 0x80);
    m = parse(in, in_len);
    g_mime_message_foreach(m, collect, &before);
    g_object_unref(m);
    m = parse(out.data, out.len);
    g_mime_message_foreach(m, collect, &after);
    g_object_unref(m);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.data, after.data, before.len);
    buf_done(&before);
    buf_done(&after);
    buf_done(&out);
}

static void test_gmime(void **state)
{
    struct buf in = {0};
    uint32_t seed = 5;

    (void)state;
    check_same((const uint8_t *)nested, sizeof(nested) - 1);
    for (int round = 0; round < 300; round++) {
        buf_clear(&in);
        buf_puts(&in,
                 "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
                 "Content-Type: text/plain; charset=utf-8\r\n\r\n");
        for (int i = 0; i < 400; i++) {
            static const char *const pieces[] = {"\r\n", "--b x",    "-",   ".",
                                                 "=",    " ",        "\t",  "abc",
                                                 JA,     "\xc3\xa9", "=20", "long word "};

            seed = seed * 1664525 + 1013904223;
            buf_puts(&in, pieces[seed >> 8 & (round & 7 ? 7 : 3)]);
            buf_puts(&in, pieces[(seed >> 24) % ARRAY_LEN(pieces)]);
        }
        buf_puts(&in, "x" JA "\r\n--b--\r\n");
        check_same(in.data, in.len);
    }
    buf_done(&in);
}

/* RFC 2045 6.7 (3): white space at the end of a line, the last one's too, would be lost. */
static void test_blank_before_end(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"a \r\n", "a=20\r\n"},   {"a\t\r\nb", "a=09\r\nb"}, {"a ", "a=20"},
        {"a  \r\n", "a =20\r\n"}, {"a \r", "a =0D"},         {" \r\n\r\n", "=20\r\n\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out = {0};

        assert_int_equal(encode_qp((const uint8_t *)rows[i].in, strlen(rows[i].in), &out), 0);
        assert_true(str_eq(buf_str(&out), str_of(rows[i].out)));
        buf_done(&out);
    }
}

/* Header fields alone change; a part's encoding, text and what must not change stay. */
static void test_headers_only(void **state)
{
    static const char in[] = "Subject: " JA "\r\nMIME-Version: 1.0\r\n"
                             "Content-Type: multipart/mixed; boundary=b\r\n"
                             "Content-Transfer-Encoding: 8bit\r\n\r\n" JA "\r\n--b\r\n"
                             "Content-Type: text/plain; name=" JA "\r\n\r\n" JA "\r\n--b\r\n"
                             "Content-Type: multipart/signed; boundary=c\r\n"
                             "Content-Description: " JA "\r\n\r\n"
                             "--c\r\nX: " JA "\r\n\r\n" JA "\r\n--c--\r\n--b--\r\n";
    static const char want[] =
        "Subject: =?UTF-8?B?5pel5pys6Kqe?=\r\nMIME-Version: 1.0\r\n"
        "Content-Type: multipart/mixed; boundary=b\r\n"
        "Content-Transfer-Encoding: 8bit\r\n\r\n" JA "\r\n--b\r\n"
        "Content-Type: text/plain; name*=UTF-8''%E6%97%A5%E6%9C%AC%E8%AA%9E\r\n\r\n" JA "\r\n"
        "--b\r\nContent-Type: multipart/signed; boundary=c\r\n"
        "Content-Description: =?UTF-8?B?5pel5pys6Kqe?=\r\n\r\n"
        "--c\r\nX: " JA "\r\n\r\n" JA "\r\n--c--\r\n--b--\r\n";
    struct buf out = {0};

    (void)state;
    assert_int_equal(convert_message((const uint8_t *)in, sizeof(in) - 1, CONVERT_HEADERS, &out),
                     0);
    assert_true(str_eq(buf_str(&out), STR(want)));
    buf_done(&out);
}

static void test_encode_lengths(void **state)
{
    uint8_t bytes[512];
    uint32_t seed = 9;

    (void)state;
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        struct buf qp = {0}, b64 = {0};
        size_t column = 0;

        for (size_t i = 0; i < len; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(seed >> 24);
        }
        assert_int_equal(encode_qp(bytes, len, &qp), 0);
        assert_int_equal(qp.len, encode_qp_len(bytes, len));
        assert_int_equal(encode_base64(bytes, len, &b64), 0);
        assert_int_equal(b64.len, encode_base64_len(len));
        for (size_t i = 0; i < qp.len; i++) {
            column = qp.data[i] == '\n' ? 0 : column + 1;
            assert_true(column <= 77); /* with the CR */
        }
        buf_done(&qp);
        buf_done(&b64);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),          cmocka_unit_test(test_nested),
        cmocka_unit_test(test_stays),          cmocka_unit_test(test_strays),
        cmocka_unit_test(test_edges),          cmocka_unit_test(test_soft_breaks),
        cmocka_unit_test(test_limits),         cmocka_unit_test(test_gmime),
        cmocka_unit_test(test_encode_lengths), cmocka_unit_test(test_blank_before_end),
        cmocka_unit_test(test_headers_only),
    };

    g_mime_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
