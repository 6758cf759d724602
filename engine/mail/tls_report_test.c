/* Reports of TLS: whose they are, what they say, how they are mailed. RFC 8460. */
#include "mail/tls_report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <zlib.h>

static void test_record(void **state)
{
    static const struct {
        const char *text;
        int err;
        const char *targets; /* "mailto ADDRESS" or "https HOST PORT PATH", with ", " between */
    } cases[] = {
        /* RFC 8460 3.1.1, 3.1.2 */
        {"v=TLSRPTv1;rua=mailto:reports@example.com", 0, "mailto reports@example.com"},
        {"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt", 0,
         "https reporting.example.com 443 /v1/tlsrpt"},
        {" v=TLSRPTv1 ; rua=mailto:a@x.example , https://r.example:8443/?k=v ; x=y;", 0,
         "mailto a@x.example, https r.example 8443 /?k=v"},
        {"v=TLSRPTv1;rua=MAILTO:a%2Bb@x.example?subject=no", 0, "mailto a+b@x.example"},
        {"v=TLSRPTv1;x=y;rua=https://r.example", 0, "https r.example 443 "},
        {"v=TLSRPTv1;rua=mailto:a@x.example,mailto:b@x.example,mailto:a@x.example", 0,
         "mailto a@x.example, mailto b@x.example"},
        /* Of another thing. */
        {"v=STSv1; id=1", -ENOENT, ""},
        {"v=tlsrptv1;rua=mailto:a@x.example", -ENOENT, ""},
        {"", -ENOENT, ""},
        /* Of this, and of no use. */
        {"v=TLSRPTv1", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=ftp://x.example", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=http://x.example/", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=mailto:a@x.example;rua=mailto:b@x.example", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=mailto:x.example", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=mailto:a%0d%0aRCPT@x.example", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=mailto:a%4@x.example", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=https://u:p@x.example/", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=https://[::1]/", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=mailto:a@[10.0.0.1]", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=mailto:a@[IPv6:::1]", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=https://127.0.0.1/", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=https://127.1./,https://0x7f.0x1/,https://x.example./", 0,
         "https x.example. 443 /"},
        {"v=TLSRPTv1;rua=https://x.example:0/", -EBADMSG, ""},
        {"v=TLSRPTv1;rua=https://x.example/a b", -EBADMSG, ""},
    };
    struct tls_report_targets t = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf got = {0};

        assert_int_equal(tls_report_record_parse(str_of(cases[i].text), &t), cases[i].err);
        for (size_t j = 0; cases[i].err == 0 && j < t.len; j++) {
            const struct tls_report_target *target = &t.list[j];

            buf_puts(&got, j > 0 ? ", " : "");
            if (target->https)
                buf_printf(&got, "https %.*s %u %s", STR_FMT(target->host), target->port,
                           target->path.ptr);
            else
                buf_printf(&got, "mailto %.*s", STR_FMT(target->address));
        }
        buf_putc(&got, '\0');
        assert_string_equal((char *)got.data, cases[i].targets);
        buf_done(&got);
    }
    buf_done(&t.text);
}

/* What is beyond the eighth is not asked for. */
static void test_many_targets(void **state)
{
    struct tls_report_targets t = {0};
    struct buf text = {0};

    (void)state;
    buf_puts(&text, "v=TLSRPTv1;rua=mailto:a@x.example");
    for (int i = 0; i < 20; i++)
        buf_printf(&text, ",mailto:a%d@x.example", i);
    assert_int_equal(tls_report_record_parse(buf_str(&text), &t), 0);
    assert_int_equal(t.len, TLS_REPORT_TARGETS_MAX);
    assert_true(str_eq(t.list[7].address, STR("a6@x.example")));
    buf_done(&text);
    buf_done(&t.text);
}

static char empty[] = "";

static struct tls_report_failure expired = {.result = TLS_REPORT_EXPIRED,
                                            .count = 100,
                                            .mx = (char[]){"mx1.example"},
                                            .reason = (char[]){"certificate \"has\" expired"},
                                            .sending_ip = (char[]){"2001:db8::1"},
                                            .receiving_ip = (char[]){"192.0.2.1"}};
static struct tls_report_failure stripped = {.result = TLS_REPORT_STARTTLS_NOT_SUPPORTED,
                                             .count = 203,
                                             .mx = empty,
                                             .reason = empty,
                                             .sending_ip = empty,
                                             .receiving_ip = empty};
static const char sts_texts[] = "y.example\0version: STSv1\0mode: testing\0mx: *.mail.y.example\0"
                                "max_age: 86400";
static struct tls_report_policy sts = {.type = TLS_REPORT_STS,
                                       .texts = {sts_texts, sizeof(sts_texts)},
                                       .successes = 5326,
                                       .failures_count = 303};
static struct tls_report_policy none = {
    .type = TLS_REPORT_NO_POLICY, .texts = {"y.example", 10}, .successes = 1};

static struct tls_report report(struct list *policies)
{
    list_init(policies);
    sts.node = none.node = (struct list_node){0};
    expired.node = stripped.node = (struct list_node){0};
    list_init(&sts.failures);
    list_init(&none.failures);
    list_push_back(&sts.failures, &expired.node);
    list_push_back(&sts.failures, &stripped.node);
    list_push_back(policies, &sts.node);
    list_push_back(policies, &none.node);
    return (struct tls_report){.organization = "Company-X",
                               .contact = "sts@x.example",
                               .host_name = "mta.x.example",
                               .domain = "y.example",
                               .id = "5065427c-23d3",
                               .begin_s = 1459468800,
                               .end_s = 1459555199,
                               .policies = policies};
}

/* RFC 8460 Appendix B, but for what is not known here. */
static void test_json(void **state)
{
    struct list policies;
    struct tls_report r = report(&policies);
    struct buf out = {0}, packed = {0};
    json_t *got, *wanted;
    uint8_t plain[8192];
    z_stream z = {0};

    (void)state;
    tls_report_put_json(&out, &r);
    got = json_loadb((const char *)out.data, out.len, 0, NULL);
    wanted = json_pack(
        "{s:s, s:{s:s, s:s}, s:s, s:s, s:["
        "{s:{s:s, s:[s,s,s,s], s:s, s:[s]}, s:{s:i, s:i}, s:["
        "{s:s, s:s, s:s, s:s, s:i, s:s}, {s:s, s:i}]},"
        "{s:{s:s, s:s}, s:{s:i, s:i}}]}",
        "organization-name", "Company-X", "date-range", "start-datetime", "2016-04-01T00:00:00Z",
        "end-datetime", "2016-04-01T23:59:59Z", "contact-info", "sts@x.example", "report-id",
        "5065427c-23d3", "policies", "policy", "policy-type", "sts", "policy-string",
        "version: STSv1", "mode: testing", "mx: *.mail.y.example", "max_age: 86400",
        "policy-domain", "y.example", "mx-host", "*.mail.y.example", "summary",
        "total-successful-session-count", 5326, "total-failure-session-count", 303,
        "failure-details", "result-type", "certificate-expired", "sending-mta-ip", "2001:db8::1",
        "receiving-mx-hostname", "mx1.example", "receiving-ip", "192.0.2.1", "failed-session-count",
        100, "failure-reason-code", "certificate \"has\" expired", "result-type",
        "starttls-not-supported", "failed-session-count", 203, "policy", "policy-type",
        "no-policy-found", "policy-domain", "y.example", "summary",
        "total-successful-session-count", 1, "total-failure-session-count", 0);
    assert_non_null(got);
    assert_non_null(wanted);
    assert_true(json_equal(got, wanted));
    assert_int_equal(tls_report_pack(&packed, buf_str(&out)), 0);
    z.next_in = packed.data;
    z.avail_in = (uInt)packed.len;
    z.next_out = plain;
    z.avail_out = sizeof(plain);
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
    assert_int_equal(z.total_out, out.len);
    assert_memory_equal(plain, out.data, out.len);
    (void)inflateEnd(&z);
    json_decref(got);
    json_decref(wanted);
    buf_done(&out);
    buf_done(&packed);
}

/* RFC 8460 5.3, RFC 8689 5. */
static void test_mail(void **state)
{
    static const char *const wanted[] = {
        "From: <tls@x.example>\r\nTo: <r@y.example>\r\nDate: Fri, 1 Apr 2016 01:00:00 +0000\r\n",
        "\r\nMessage-ID: <0123@mta.x.example>\r\n",
        "\r\nSubject: Report Domain: y.example\r\n Submitter: mta.x.example\r\n Report-ID: "
        "<5065427c-23d3@mta.x.example>\r\n",
        "\r\nTLS-Report-Domain: y.example\r\nTLS-Report-Submitter: mta.x.example\r\n"
        "TLS-Required: No\r\n",
        "\r\nContent-Type: multipart/report; report-type=\"tlsrpt\";\r\n "
        "boundary=\"=_5eed\"\r\n\r\n"
        "--=_5eed\r\nContent-Type: text/plain; charset=us-ascii\r\n",
        "\r\n--=_5eed\r\nContent-Type: application/tlsrpt+gzip\r\n"
        "Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment",
        "mta.x.example!y.example!1459468800!1459555199!5065427c-23d3.json.gz",
        "\r\n\r\ncGFja2Vk\r\n\r\n--=_5eed--\r\n"};
    struct list policies;
    struct tls_report r = report(&policies);
    struct buf out = {0};

    (void)state;
    tls_report_put_mail(&out, &r,
                        &(struct tls_report_mail){.from = "tls@x.example",
                                                  .to = STR("r@y.example"),
                                                  .packed = STR("packed"),
                                                  .seed = STR("5eed"),
                                                  .message_id = "0123",
                                                  .now_ms = INT64_C(1459472400000)});
    buf_putc(&out, '\0');
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
        if (strstr((char *)out.data, wanted[i]) == NULL)
            fail_msg("%s\nis not in\n%s", wanted[i], (char *)out.data);
    buf_done(&out);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_many_targets),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_mail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
