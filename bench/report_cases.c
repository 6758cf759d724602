#include "report_cases.h"

#include "mail/trace.h"
#include "outcome/classify.h"
#include "outcome/notice.h"
#include "outcome/report.h"
#include "outcome/rules.h"

static const struct message newsletter = {
    .id = {{1, 0x99, 0xab, 7}},
    .created_ms = INT64_C(1795308557123),
    .recipients = 1,
    .sender = {"bounce+spring2026-a17@news.example.jp", 37},
    .campaign = {"spring2026", 10},
};

static struct smtp_reply reply = {
    .code = 250,
    .enhanced = {2, 0, 0},
    .text_len = 55,
    .text = "OK 1795308559 d9443c01a7336-29a5b2c9e3asi123.45 - gsmtp",
};

static struct buf line;

static size_t make_line(enum report_type type, const struct smtp_reply *r, struct str recipient)
{
    const struct report_event e = {.type = type,
                                   .node_id = "node1.example.jp",
                                   .timestamp_ms = INT64_C(1795308559456),
                                   .message = &newsletter,
                                   .recipient = recipient,
                                   .queue = STR("gmail.com"),
                                   .site = STR("(alt1|alt2|alt3|alt4|).gmail-smtp-in.l.google.com"),
                                   .reply = r,
                                   .command = ".",
                                   .peer_name = "gmail-smtp-in.l.google.com",
                                   .peer_addr = "142.251.2.27:25",
                                   .source_name = "main",
                                   .source_addr = "198.51.100.7:40000",
                                   .attempts = 1,
                                   .delivery_protocol = "ESMTP",
                                   .reception_protocol = "ESMTP",
                                   .session_id = "9bcd689e-23d9-41b7-a015-63a1382f8b57",
                                   .size = 4096,
                                   .connect_ms = 5,
                                   .transaction_ms = 11};

    buf_clear(&line);
    report_line(&line, &e);
    return line.len;
}

size_t report_case_delivery(void)
{
    return make_line(REPORT_DELIVERY, &reply, STR("hanako.yamada@gmail.com"));
}

size_t report_case_reception(void)
{
    return make_line(REPORT_RECEPTION, NULL, STR(""));
}

size_t report_case_japanese(void)
{
    static struct smtp_reply refusal = {
        .code = 550,
        .enhanced = {5, 1, 1},
        .text_len = 34,
        .text = "\xe5\xae\x9b\xe5\x85\x88\xe4\xb8\x8d\xe6\x98\x8e \"x\" user unknown....",
    };

    return make_line(REPORT_BOUNCE, &refusal, STR("hanako.yamada@gmail.com"));
}

static uint8_t room[TRACE_STAMP_BYTES_MAX + 4096] = {0};
static const char header[] = "Received: from app1.example.jp (app1.example.jp [10.0.0.5])\r\n"
                             "\tby relay.example.jp with ESMTP id 4XyZ12abc\r\n"
                             "\tfor <hanako@example.org>; Sun, 22 Nov 2026 00:49:17 +0900\r\n"
                             "From: =?UTF-8?B?44OL44Ol44O844K5?= <news@example.jp>\r\n"
                             "To: hanako@example.org\r\n"
                             "Subject: =?UTF-8?B?5pil44Gu44GK55+l44KJ44Gb?=\r\n"
                             "Message-ID: <20261122004917.12345@news.example.jp>\r\n"
                             "Date: Sun, 22 Nov 2026 00:49:17 +0900\r\n"
                             "MIME-Version: 1.0\r\n"
                             "List-Unsubscribe: <https://news.example.jp/u/abcdef0123456789>\r\n"
                             "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
                             "X-Hayauma-Campaign: spring2026\r\n"
                             "Content-Type: multipart/alternative; boundary=\"=_abc123\"\r\n"
                             "\r\n";

size_t trace_case_scan(void)
{
    struct trace_facts facts;

    trace_scan((const uint8_t *)header, sizeof(header) - 1, NULL, 0, &facts);
    return facts.header_len + (size_t)facts.campaign.len;
}

size_t trace_case_prepend(void)
{
    const struct trace_facts facts = {.body_offset = 100};
    const struct trace_stamp stamp = {.helo = STR("app1.example.jp"),
                                      .esmtp = true,
                                      .peer_addr = "10.0.0.5",
                                      .host_name = "mx1.example.jp",
                                      .id = &newsletter.id,
                                      .recipient = STR("hanako@example.org"),
                                      .now_ms = INT64_C(1795308557123)};
    uint8_t *end = room + TRACE_STAMP_BYTES_MAX;

    return (size_t)(end - trace_prepend(end, &stamp, &facts));
}

size_t notice_case_build(void)
{
    static const struct outcome refused = {
        .class = OUTCOME_FAILED,
        .stage = SMTP_STAGE_RCPT,
        .reply = {.code = 550, .enhanced = {5, 1, 1}, .text_len = 12, .text = "user unknown"},
    };
    static const struct notice_recipient recipient = {
        .address = {"hanako@example.org", 18}, .outcome = &refused, .peer_name = "mx1.example.org"};
    static uint8_t content[4096];
    struct message m = {
        .sender = STR("news@example.jp"), .content = content, .content_len = sizeof(content)};
    const struct notice n = {.host_name = "mx.example.jp",
                             .original = &m,
                             .recipients = &recipient,
                             .recipients_len = 1,
                             .return_bytes_max = sizeof(content)};
    bool eight_bit, smtputf8;

    if (content[0] == 0) {
        memset(content, 'x', sizeof(content));
        memcpy(content, header, sizeof(header) - 1);
    }
    buf_clear(&line);
    notice_build(&n, &line, &eight_bit, &smtputf8);
    return line.len;
}

size_t classify_case_bounce(void)
{
    static const struct outcome refused = {
        .class = OUTCOME_FAILED,
        .stage = SMTP_STAGE_RCPT,
        .reply = {.code = 550,
                  .enhanced = {5, 7, 1},
                  .text_len = 87,
                  .text = "Service unavailable for hanako@example.org: message refused by the "
                          "policy of this host."},
    };

    return (size_t)classify_bounce(&refused)[0];
}

static size_t find_rule(const char *provider, const char *text, uint16_t code,
                        struct smtp_enhanced enhanced)
{
    static struct config *config;
    struct smtp_reply refusal = {.code = code, .enhanced = enhanced};
    const struct rule_question q = {provider, "mx.example.net", SMTP_STAGE_MAIL, &refusal};
    const struct config_rule *rule;

    if (config == NULL)
        config = config_default();
    refusal.text_len = (uint16_t)strlen(text);
    memcpy(refusal.text, text, refusal.text_len);
    rule = rule_find(config, &q);
    return rule == NULL ? 0 : rule->texts_len;
}

size_t rules_case_none(void)
{
    static char text[SMTP_REPLY_TEXT_MAX + 1];

    if (text[0] == 0)
        memset(text, 'r', SMTP_REPLY_TEXT_MAX);
    return find_rule("google", text, 421, (struct smtp_enhanced){4, 7, 0});
}

size_t rules_case_last(void)
{
    return find_rule("default",
                     "<hanako@example.org>: Recipient address rejected: Greylisted for 5 minutes",
                     451, (struct smtp_enhanced){4, 7, 1});
}
