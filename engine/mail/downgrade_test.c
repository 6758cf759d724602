#include "mail/downgrade.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mail/header.h"

#define JA "日本語"

static void check(const char *in, const char *want)
{
    struct buf out = {0};

    assert_int_equal(downgrade_field(str_of(in), false, &out), 0);
    assert_false(header_eight_bit(out.data, out.len));
    buf_putc(&out, '\0');
    assert_string_equal((char *)out.data, want);
    buf_done(&out);
}

/* What is not ASCII, and the white space between two such words, is encoded; the rest stays. */
static void test_text(void **state)
{
    (void)state;
    check("Subject: " JA, "Subject: =?UTF-8?B?5pel5pys6Kqe?=");
    check("subject:" JA, "subject: =?UTF-8?B?5pel5pys6Kqe?=");
    check("Subject: a  " JA "\r\n\t" JA " b \r\n c  ",
          "Subject: a  =?UTF-8?B?5pel5pys6KqeCeaXpeacrOiqng==?= b \r\n c  ");
    check("X-Anything: caf\xc3\xa9-au-lait, bien",
          "X-Anything: =?UTF-8?Q?caf=C3=A9-au-lait,?= bien");
    check("X: caf\xe9-au-lait", "X: =?unknown-8bit?Q?caf=E9-au-lait?=");
    /* Beside an encoded word of the sender's white space shows only when it is encoded. */
    check("Subject: =?utf-8?q?x?= " JA " =?utf-8?q?y?=",
          "Subject: =?utf-8?q?x?= =?UTF-8?B?IOaXpeacrOiqniA=?= =?utf-8?q?y?=");
    check("Subject: " JA JA JA JA JA JA JA,
          "Subject: =?UTF-8?B?5pel5pys6Kqe5pel5pys6Kqe5pel5pys6Kqe5pel5pys6Kqe5pel?=\r\n"
          " =?UTF-8?B?5pys6Kqe5pel5pys6Kqe5pel5pys6Kqe?=");
}

static void test_addresses(void **state)
{
    (void)state;
    check("From: " JA " <a@b>", "From: =?UTF-8?B?5pel5pys6Kqe?= <a@b>");
    check("To: \"" JA "\"<a@b>,c@d, \"e, f\" <g@h>",
          "To: =?UTF-8?B?5pel5pys6Kqe?= <a@b>, c@d, \"e, f\" <g@h>");
    check("Cc: \"" JA "\" John \"" JA "\" <a@b>",
          "Cc: =?UTF-8?B?5pel5pys6Kqe?= John =?UTF-8?B?5pel5pys6Kqe?= <a@b>");
    check("Sender: a@b (" JA " (c) \\" JA ")",
          "Sender: a@b (=?UTF-8?B?5pel5pys6Kqe?= (c) =?UTF-8?B?5pel5pys6Kqe?=)");
    check("To: a@" JA ".example, b <c@" JA ".example>",
          "To: a@xn--wgv71a119e.example, b <c@xn--wgv71a119e.example>");
    /* RFC 6857 3.1.7, 3.1.8: nobody can write to it, everybody can see it. */
    check("From: a <" JA "@b>", "From: a =?UTF-8?B?5pel5pys6KqeQGI=?= :;");
    check("To: " JA "@b, c@d", "To: =?UTF-8?B?5pel5pys6KqeQGI=?= :;, c@d");
    check("To: g: " JA "@b, c@d;, e@f", "To: g =?UTF-8?B?5pel5pys6KqeQGIsIGNAZA==?= :;, e@f");
    check("To: " JA ": a@b, c <d@e>;, f@g", "To: =?UTF-8?B?5pel5pys6Kqe?= : a@b, c <d@e>;, f@g");
}

static void test_parameters(void **state)
{
    (void)state;
    check("Content-Type: text/plain; charset=utf-8; name=\"" JA ".txt\"; x=y",
          "Content-Type: text/plain; charset=utf-8;\r\n"
          " name*=UTF-8''%E6%97%A5%E6%9C%AC%E8%AA%9E.txt; x=y");
    check("Content-Disposition: attachment; filename=" JA " (1).txt",
          "Content-Disposition: attachment;\r\n"
          " filename*=UTF-8''%E6%97%A5%E6%9C%AC%E8%AA%9E%20%281%29.txt");
    check("Content-Disposition: attachment; filename=\"" JA JA JA "\"",
          "Content-Disposition: attachment;\r\n"
          " filename*0*=UTF-8''%E6%97%A5%E6%9C%AC%E8%AA%9E%E6%97%A5%E6%9C%AC%E8%AA%9E;\r\n"
          " filename*1*=%E6%97%A5%E6%9C%AC%E8%AA%9E");
    /* cut by the sender; coded by the sender, but not all of it; given in both forms */
    check("Content-Type: a/b; name*0=\"c\"; name*1=\"" JA "\"",
          "Content-Type: a/b; name*0*=UTF-8''c; name*1*=%E6%97%A5%E6%9C%AC%E8%AA%9E");
    check("Content-Type: a/b; name*=utf-8''%20" JA,
          "Content-Type: a/b; name*=utf-8''%20%E6%97%A5%E6%9C%AC%E8%AA%9E");
    check("Content-Type: a/b; name=" JA "; name*=utf-8''c", "Content-Type: a/b; name*=utf-8''c");
    check("Content-Type: a/b; " JA "; x=y", "Content-Type: a/b; =?UTF-8?B?5pel5pys6Kqe?=; x=y");
}

static void test_others(void **state)
{
    (void)state;
    check("Message-ID: <" JA "@b>", "Downgraded-Message-ID: =?UTF-8?B?POaXpeacrOiqnkBiPg==?=");
    check("Received: from a (" JA ") by " JA ".example for <" JA "@c>; Mon, 1 Jan 2026",
          "Received: from a (=?UTF-8?B?5pel5pys6Kqe?=) by xn--wgv71a119e.example\r\n"
          " ; Mon, 1 Jan 2026");
    check("Keywords: " JA ", b", "Keywords: =?UTF-8?B?5pel5pys6Kqe?= , b");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
