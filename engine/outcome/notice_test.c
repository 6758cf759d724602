#include "outcome/notice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <gmime/gmime.h>

#include "mail/convert.h"

#define JA_USER "\xe6\x97\xa5\xe6\x9c\xac"
/* What golden files are compared with lies beside the script that reads them with Python. */
#define GOLDEN TEST_SOURCE_DIR "/../../tests/notice/"

static const char plain_content[] =
    "Received: from app.example.jp ([10.0.0.5])\r\n\tby mx.example.jp with ESMTP id 1\r\n"
    "From: News <news@example.jp>\r\nTo: a@example.org\r\nSubject: Spring\r\n"
    "Message-ID: <1@example.jp>\r\n\r\nHello,\r\n.dots and all\r\n";

static struct message make_message(const char *content)
{
    return (struct message){.id = {{1, 0x99, 0xab}},
                            .created_ms = INT64_C(1795308557123),
                            .recipients = 1,
                            .sender = STR("news@example.jp"),
                            .content = (uint8_t *)(uintptr_t)content,
                            .content_len = strlen(content)};
}

static struct outcome make_outcome(enum smtp_stage stage, bool local, uint16_t code,
                                   struct smtp_enhanced enhanced, struct str text)
{
    struct outcome o = {
        .class = OUTCOME_FAILED,
        .stage = stage,
        .local = local,
        .reply = {.code = code, .enhanced = enhanced, .text_len = (uint16_t)text.len}};

    memcpy(o.reply.text, text.ptr, text.len);
    return o;
}

static struct notice make_notice(enum notice_kind kind, const struct message *m,
                                 const struct notice_recipient *r, size_t recipients)
{
    return (struct notice){.kind = kind,
                           .host_name = "mx.example.jp",
                           .original = m,
                           .recipients = r,
                           .recipients_len = recipients,
                           .return_bytes_max = 100000,
                           .now_ms = INT64_C(1795308600000),
                           .id = {{2, 3, 4}}};
}

static struct buf build(const struct notice *n, bool *eight_bit, bool *smtputf8)
{
    struct buf out = {0};

    notice_build(n, &out, eight_bit, smtputf8);
    for (size_t i = 0; i < out.len; i++) {
        assert_true(out.data[i] != '\n' || (i > 0 && out.data[i - 1] == '\r'));
        assert_true(out.data[i] != '\r' || (i + 1 < out.len && out.data[i + 1] == '\n'));
    }
    assert_memory_equal(out.data + out.len - 2, "\r\n", 2);
    return out;
}

/* NOTICE_GOLDEN_UPDATE=1 writes the files anew: read the difference before it is committed. */
static void check_golden(const char *name, const struct buf *out)
{
    char path[512];
    FILE *f;
    char *want;
    size_t len;

    snprintf(path, sizeof(path), "%s%s.eml", GOLDEN, name);
    if (getenv("NOTICE_GOLDEN_UPDATE") != NULL) {
        f = fopen(path, "wb");
        assert_non_null(f);
        assert_int_equal(fwrite(out->data, 1, out->len, f), out->len);
        fclose(f);
        return;
    }
    f = fopen(path, "rb");
    assert_non_null(f);
    want = malloc(out->len + 1);
    len = fread(want, 1, out->len + 1, f);
    fclose(f);
    if (len != out->len || memcmp(want, out->data, len) != 0)
        fail_msg("%s differs: %.*s", path, (int)out->len, (char *)out->data);
    free(want);
}

/* --- reading a notice with GMime --- */

struct parsed {
    GMimeMessage *message;
    GMimeObject *parts[3];
};

static struct parsed parse(const struct buf *out)
{
    GMimeStream *stream = g_mime_stream_mem_new_with_buffer((const char *)out->data, out->len);
    GMimeParser *parser = g_mime_parser_new_with_stream(stream);
    struct parsed p = {.message = g_mime_parser_construct_message(parser, NULL)};
    GMimeObject *top;

    g_object_unref(stream);
    g_object_unref(parser);
    assert_non_null(p.message);
    top = g_mime_message_get_mime_part(p.message);
    assert_true(GMIME_IS_MULTIPART(top));
    assert_int_equal(g_mime_multipart_get_count(GMIME_MULTIPART(top)), 3);
    for (int i = 0; i < 3; i++)
        p.parts[i] = g_mime_multipart_get_part(GMIME_MULTIPART(top), i);
    return p;
}

static char *part_text(GMimeObject *part)
{
    GMimeStream *mem = g_mime_stream_mem_new();
    GByteArray *bytes;
    char *text;

    if (GMIME_IS_MESSAGE_PART(part))
        g_mime_object_write_to_stream(
            GMIME_OBJECT(g_mime_message_part_get_message(GMIME_MESSAGE_PART(part))), NULL, mem);
    else
        g_mime_data_wrapper_write_to_stream(g_mime_part_get_content(GMIME_PART(part)), mem);
    bytes = g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(mem));
    text = strndup((char *)bytes->data, bytes->len);
    g_object_unref(mem);
    return text;
}

static void assert_has(const char *text, const char *needle)
{
    if (strstr(text, needle) == NULL)
        fail_msg("no \"%s\" in: %s", needle, text);
}

static void check_part(const struct parsed *p, int i, const char *type, const char *needle)
{
    char *text = part_text(p->parts[i]);
    GMimeContentType *content_type = g_mime_object_get_content_type(p->parts[i]);
    char *seen = g_mime_content_type_get_mime_type(content_type);

    assert_string_equal(seen, type);
    assert_has(text, needle);
    g_free(seen);
    free(text);
}

/* --- tests --- */

/* By the book to whoever reads the field; the recipient as the sender's list has it. */
static void test_dots_that_need_quotes(void **state)
{
    struct message m = make_message(plain_content);
    struct outcome o =
        make_outcome(SMTP_STAGE_RCPT, false, 550, (struct smtp_enhanced){5, 1, 1}, STR("no"));
    struct notice_recipient r = {.address = STR("c.@ezweb.example"), .outcome = &o};
    struct notice n = make_notice(NOTICE_FAILED, &m, &r, 1);
    bool eight_bit, smtputf8;
    struct buf out;

    (void)state;
    m.sender = STR("a..b@docomo.example");
    n.postmaster = "post.@master.example";
    out = build(&n, &eight_bit, &smtputf8);
    buf_putc(&out, '\0');
    assert_non_null(strstr((char *)out.data, "\r\nTo: <\"a..b\"@docomo.example>\r\n"));
    assert_non_null(strstr((char *)out.data, " <\"post.\"@master.example>\r\n"));
    assert_non_null(strstr((char *)out.data, "\r\nFinal-Recipient: rfc822; c.@ezweb.example\r\n"));
    buf_done(&out);
}

static void test_failed(void **state)
{
    struct message m = make_message(plain_content);
    struct outcome o = make_outcome(SMTP_STAGE_RCPT, false, 550, (struct smtp_enhanced){5, 1, 1},
                                    STR("<a@example.org>: Recipient address rejected: User unknown "
                                        "in virtual mailbox table"));
    struct notice_recipient r = {.address = STR("a@example.org"),
                                 .orcpt = STR("rfc822;a+2Bx@example.org"),
                                 .outcome = &o,
                                 .peer_name = "mx1.example.org",
                                 .last_attempt_ms = INT64_C(1795308599000)};
    struct notice n = make_notice(NOTICE_FAILED, &m, &r, 1);
    bool eight_bit = true, smtputf8 = true;
    struct buf out;
    struct parsed p;

    (void)state;
    m.envid = STR("QQ+2B314159");
    out = build(&n, &eight_bit, &smtputf8);
    assert_false(eight_bit || smtputf8);
    check_golden("failed", &out);
    p = parse(&out);
    check_part(&p, 0, "text/plain", "The address does not exist");
    check_part(&p, 0, "text/plain", "メールを配送できませんでした");
    check_part(&p, 1, "message/delivery-status", "Original-Envelope-Id: QQ+314159\r\n");
    check_part(&p, 1, "message/delivery-status", "Original-Recipient: rfc822; a+x@example.org\r\n");
    check_part(&p, 1, "message/delivery-status", "Status: 5.1.1\r\n");
    check_part(&p, 2, "message/rfc822", ".dots and all");
    g_object_unref(p.message);
    buf_done(&out);
}

static void test_delayed(void **state)
{
    struct message m = make_message(plain_content);
    struct outcome o = make_outcome(SMTP_STAGE_CONNECT, true, 451, (struct smtp_enhanced){4, 4, 1},
                                    STR("while connecting: Connection timed out"));
    struct notice_recipient r = {.address = STR("a@example.org"),
                                 .outcome = &o,
                                 .last_attempt_ms = INT64_C(1795308599000),
                                 .will_retry_until_ms = INT64_C(1795740557000)};
    struct notice n = make_notice(NOTICE_DELAYED, &m, &r, 1);
    bool eight_bit, smtputf8;
    struct buf out;
    struct parsed p;

    (void)state;
    m.ret = SMTP_RET_FULL; /* counts for failures only */
    n.postmaster = "postmaster@example.jp";
    n.from_name = "早馬 配送システム";
    out = build(&n, &eight_bit, &smtputf8);
    check_golden("delayed", &out);
    p = parse(&out);
    check_part(&p, 0, "text/plain", "until Fri, 27 Nov 2026");
    check_part(&p, 1, "message/delivery-status", "Action: delayed\r\nStatus: 4.4.1\r\n");
    check_part(&p, 1, "message/delivery-status", "Will-Retry-Until: ");
    check_part(&p, 1, "message/delivery-status", "Diagnostic-Code: X-Hayauma; while");
    check_part(&p, 2, "text/rfc822-headers", "Subject: Spring");
    g_object_unref(p.message);
    buf_done(&out);
}

static void test_expired_eight_bit(void **state)
{
    struct message m = make_message("From: a@example.jp\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
                                    "Content-Type: text/plain; charset=utf-8\r\n"
                                    "Content-Transfer-Encoding: 8bit\r\n\r\n" JA_USER "\r\n");
    struct outcome o =
        make_outcome(SMTP_STAGE_RCPT, true, 554, (struct smtp_enhanced){5, 4, 7},
                     STR("message expired; last error: 450 4.7.1 try again later, we are rather "
                         "busy with other things on this fine day"));
    struct notice_recipient r[3] = {{.address = STR("a@example.org"), .outcome = &o},
                                    {.address = STR("b@example.org"), .outcome = &o},
                                    {.address = STR("\"c  d\"@example.org"), .outcome = &o}};
    struct notice n = make_notice(NOTICE_EXPIRED, &m, r, ARRAY_LEN(r));
    bool eight_bit = false, smtputf8 = true;
    struct buf out;
    struct parsed p;

    (void)state;
    out = build(&n, &eight_bit, &smtputf8);
    assert_true(eight_bit);
    assert_false(smtputf8);
    check_golden("expired_8bit", &out);
    p = parse(&out);
    check_part(&p, 1, "message/delivery-status", "Final-Recipient: rfc822; b@example.org\r\n");
    check_part(&p, 1, "message/delivery-status", "rfc822; \"c  d\"@example.org\r\n");
    check_part(&p, 1, "message/delivery-status", "Status: 5.4.7\r\n");
    check_part(&p, 2, "message/rfc822", JA_USER);
    g_object_unref(p.message);
    buf_done(&out);
}

static void test_relayed_utf8(void **state)
{
    struct message m =
        make_message("From: " JA_USER "@example.jp\r\nSubject: " JA_USER "\r\n\r\nx\r\n");
    struct outcome o = make_outcome(SMTP_STAGE_BODY, false, 250, (struct smtp_enhanced){2, 0, 0},
                                    STR("queued as 1"));
    struct notice_recipient r = {.address = STR(JA_USER "@example.org"),
                                 .orcpt = STR("utf-8;x@example.org"),
                                 .outcome = &o,
                                 .peer_name = "mx1.example.org"};
    struct notice n = make_notice(NOTICE_RELAYED, &m, &r, 1);
    bool eight_bit = false, smtputf8 = false;
    struct buf out;
    struct parsed p;

    (void)state;
    m.flags = MESSAGE_SMTPUTF8;
    m.sender = STR(JA_USER "@example.jp");
    r.orcpt = STR("utf-8;x+2B" JA_USER "@example.org");
    out = build(&n, &eight_bit, &smtputf8);
    assert_true(eight_bit && smtputf8);
    check_golden("relayed_utf8", &out);
    p = parse(&out);
    check_part(&p, 1, "message/global-delivery-status",
               "Original-Recipient: utf-8; x+" JA_USER "@example.org\r\n"
               "Final-Recipient: utf-8; " JA_USER "@example.org\r\nAction: relayed\r\n"
               "Status: 2.0.0\r\n");
    check_part(&p, 2, "message/global-headers", "Subject: " JA_USER);
    g_object_unref(p.message);
    buf_done(&out);
}

/* A sender in ASCII can be told of a recipient that is not, whatever its server knows. */
static void test_utf8_for_ascii_sender(void **state)
{
    static const char *const orcpts[] = {"utf-8;" JA_USER "+2B\xf0\xa0\xae\xb7@b.example",
                                         "utf-8;\\x{65E5}\\x{672C}\\x{2B}\\x{20BB7}@b.example"};
    struct message m = make_message("Subject: " JA_USER "\r\n\r\nx\r\n");
    struct outcome o =
        make_outcome(SMTP_STAGE_RCPT, false, 550, (struct smtp_enhanced){5, 1, 1}, STR("no"));
    struct notice_recipient r = {.address = STR(JA_USER "@example.org"), .outcome = &o};
    struct notice n = make_notice(NOTICE_FAILED, &m, &r, 1);

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(orcpts); i++) {
        bool eight_bit = false, smtputf8 = true;
        struct buf out;
        struct parsed p;

        r.orcpt = str_of(orcpts[i]);
        out = build(&n, &eight_bit, &smtputf8);
        assert_true(eight_bit && !smtputf8);
        buf_putc(&out, '\0');
        assert_non_null(strstr((char *)out.data, "\r\nContent-Transfer-Encoding: 8bit\r\n"
                                                 "Content-Type: multipart/report; "
                                                 "report-type=delivery-status;"));
        out.len--;
        p = parse(&out);
        check_part(&p, 1, "message/delivery-status",
                   "Original-Recipient: utf-8; \\x{65E5}\\x{672C}\\x{2B}\\x{20BB7}@b.example\r\n"
                   "Final-Recipient: utf-8; \\x{65E5}\\x{672C}@example.org\r\n");
        check_part(&p, 2, "message/rfc822", "Subject: " JA_USER);
        g_object_unref(p.message);
        buf_done(&out);
    }
}

/* RET=FULL of what no conversion could carry to a peer without 8BITMIME: its header. */
static void test_not_returnable(void **state)
{
    struct message m;
    struct outcome o =
        make_outcome(SMTP_STAGE_RCPT, false, 550, (struct smtp_enhanced){5, 1, 1}, STR("no"));
    struct notice_recipient r = {.address = STR("a@example.org"), .outcome = &o};
    struct notice n = make_notice(NOTICE_FAILED, &m, &r, 1);
    bool eight_bit = true, smtputf8 = true;
    struct buf content = {0}, out;
    struct parsed p;

    (void)state;
    buf_puts(&content, "Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n");
    for (int i = 0; i <= CONVERT_PARTS_MAX; i++)
        buf_puts(&content, "--b\r\n\r\n" JA_USER "\r\n");
    buf_putc(&content, '\0');
    m = make_message((const char *)content.data);
    m.ret = SMTP_RET_FULL;
    out = build(&n, &eight_bit, &smtputf8);
    assert_false(eight_bit || smtputf8);
    p = parse(&out);
    check_part(&p, 2, "text/rfc822-headers", "Subject: x");
    g_object_unref(p.message);
    buf_done(&out);
    buf_done(&content);
}

static void check_returned(uint8_t ret, bool headers_only, uint64_t max, const char *type)
{
    struct message m = make_message(plain_content);
    struct outcome o =
        make_outcome(SMTP_STAGE_RCPT, false, 550, (struct smtp_enhanced){0}, STR(""));
    struct notice_recipient r = {.address = STR("a@example.org"), .outcome = &o};
    struct notice n = make_notice(NOTICE_FAILED, &m, &r, 1);
    bool eight_bit, smtputf8;
    struct buf out;
    struct parsed p;

    m.ret = ret;
    n.headers_only = headers_only;
    n.return_bytes_max = max;
    out = build(&n, &eight_bit, &smtputf8);
    p = parse(&out);
    check_part(&p, 2, type, "Subject: Spring");
    check_part(&p, 1, "message/delivery-status", "Status: 5.1.1"); /* derived */
    g_object_unref(p.message);
    buf_done(&out);
}

static void test_returned(void **state)
{
    const uint64_t len = sizeof(plain_content) - 1;

    (void)state;
    check_returned(SMTP_RET_NONE, false, len, "message/rfc822");
    check_returned(SMTP_RET_NONE, false, len - 1, "text/rfc822-headers");
    check_returned(SMTP_RET_FULL, true, len, "message/rfc822");
    check_returned(SMTP_RET_FULL, false, len - 1, "text/rfc822-headers");
    check_returned(SMTP_RET_HDRS, false, len, "text/rfc822-headers");
    check_returned(SMTP_RET_NONE, true, len, "text/rfc822-headers");
}

/* Whatever peers and clients said, the notice has its three parts and no field more. */
static void test_hostile(void **state)
{
    static const char *const texts[] = {
        "x\r\nAction: delivered\r\n\r\n--=_02030400000000000000000000000000_0--\r\n",
        "\x01\x7f\xff\xfe\x1b[2J",
        "            ",
        "=_02030400000000000000000000000000_0",
        "\xe3\x81",
        "a\n\nb",
        "(((\"\"\"\\\\\\<<<>>>"};
    char long_text[SMTP_REPLY_TEXT_MAX];

    (void)state;
    memset(long_text, 'x', sizeof(long_text));
    for (size_t i = 0; i <= ARRAY_LEN(texts); i++) {
        struct str text =
            i < ARRAY_LEN(texts) ? str_of(texts[i]) : (struct str){long_text, sizeof(long_text)};
        char *name = strndup(text.ptr, text.len), content[2000];
        struct outcome o =
            make_outcome(SMTP_STAGE_RCPT, i & 1, 550, (struct smtp_enhanced){0}, text);
        struct notice_recipient r = {
            .address = text, .orcpt = text, .outcome = &o, .peer_name = name};
        struct notice n;
        struct message m;
        bool eight_bit, smtputf8;
        struct buf out;
        struct parsed p;
        char *status;

        snprintf(content, sizeof(content),
                 "Message-ID: <%.200s>\r\nX: y\r\n\r\n--=_02030400000000000000000000000000_0\r\n"
                 "--=_02030400000000000000000000000000_1--\r\n",
                 i == 0 ? "a\r\n b" : "c");
        m = make_message(content);
        m.sender = m.envid = text;
        n = make_notice(NOTICE_FAILED, &m, &r, 1);
        out = build(&n, &eight_bit, &smtputf8);
        p = parse(&out);
        status = part_text(p.parts[1]);
        assert_has(status, "Action: failed\r\n");
        assert_null(strstr(status, "\nAction: delivered"));
        assert_int_equal(memmem(out.data, out.len, "In-Reply-To", 11) != NULL, i > 0);
        assert_has((char *)out.data, "=_02030400000000000000000000000000_2");
        for (size_t at = 0, start = 0; at < out.len; at++) {
            if (out.data[at] != '\n')
                continue;
            assert_true(at - start <= 999);
            start = at + 1;
        }
        free(status);
        free(name);
        g_object_unref(p.message);
        buf_done(&out);
    }
}

static void test_many_recipients(void **state)
{
    struct message m = make_message(plain_content);
    struct outcome o =
        make_outcome(SMTP_STAGE_RCPT, false, 550, (struct smtp_enhanced){0}, STR("no"));
    struct notice_recipient r[200];
    struct notice n = make_notice(NOTICE_FAILED, &m, r, ARRAY_LEN(r));
    bool eight_bit, smtputf8;
    size_t seen = 0;
    struct buf out;
    struct parsed p;
    char *status;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(r); i++)
        r[i] = (struct notice_recipient){.address = STR("a@example.org"), .outcome = &o};
    out = build(&n, &eight_bit, &smtputf8);
    p = parse(&out);
    check_part(&p, 0, "text/plain", "(and 150 more)");
    status = part_text(p.parts[1]);
    for (const char *at = status; (at = strstr(at, "Final-Recipient: ")) != NULL; at++)
        seen++;
    assert_int_equal(seen, ARRAY_LEN(r));
    free(status);
    g_object_unref(p.message);
    buf_done(&out);
}

static void test_wanted(void **state)
{
    enum { F = 1, E = 2, D = 4, R = 8, S = 16 };
    static const struct {
        uint8_t notify;
        unsigned kinds;
    } rows[] = {
        {0, F | E | D},
        {SMTP_NOTIFY_NEVER, 0},
        {SMTP_NOTIFY_FAILURE, F | E},
        {SMTP_NOTIFY_DELAY, D},
        {SMTP_NOTIFY_SUCCESS, R | S},
        {SMTP_NOTIFY_SUCCESS | SMTP_NOTIFY_FAILURE | SMTP_NOTIFY_DELAY, F | E | D | R | S},
        {SMTP_NOTIFY_NEVER | SMTP_NOTIFY_FAILURE, 0},
    };
    struct message m = make_message(plain_content), null_sender = m, own = m;

    (void)state;
    null_sender.sender = STR("");
    own.flags = MESSAGE_NOTICE;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t notify = rows[i].notify;
        unsigned kinds = (notice_wanted(NOTICE_FAILED, &m, notify) ? F : 0u) |
                         (notice_wanted(NOTICE_EXPIRED, &m, notify) ? E : 0u) |
                         (notice_wanted(NOTICE_DELAYED, &m, notify) ? D : 0u) |
                         (notice_wanted(NOTICE_RELAYED, &m, notify) ? R : 0u) |
                         (notice_wanted(NOTICE_DELIVERED, &m, notify) ? S : 0u);

        assert_int_equal(kinds, rows[i].kinds);
        for (int kind = NOTICE_FAILED; kind <= NOTICE_EXPIRED; kind++) {
            assert_false(notice_wanted((enum notice_kind)kind, &null_sender, notify));
            assert_false(notice_wanted((enum notice_kind)kind, &own, notify));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dots_that_need_quotes),
        cmocka_unit_test(test_failed),
        cmocka_unit_test(test_delayed),
        cmocka_unit_test(test_expired_eight_bit),
        cmocka_unit_test(test_relayed_utf8),
        cmocka_unit_test(test_utf8_for_ascii_sender),
        cmocka_unit_test(test_not_returnable),
        cmocka_unit_test(test_returned),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_many_recipients),
        cmocka_unit_test(test_wanted),
    };

    g_mime_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
