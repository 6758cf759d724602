#include "outcome/classify.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/assert.h"
#include "config/config.h"

/* "450 4.7.1 text" as the reply parser would fill it. */
static struct smtp_reply make_reply(const char *line)
{
    struct smtp_reply r = {0};
    unsigned code = 0, c = 0, s = 0, d = 0;
    int used = 0;

    if (sscanf(line, "%3u%n", &code, &used) != 1)
        fail_msg("bad line %s", line);
    line += used;
    line += *line == ' ';
    if (sscanf(line, "%1u.%3u.%3u%n", &c, &s, &d, &used) == 3) {
        line += used;
        line += *line == ' ';
    } else {
        c = s = d = 0;
    }
    r.code = (uint16_t)code;
    r.enhanced = (struct smtp_enhanced){(uint16_t)c, (uint16_t)s, (uint16_t)d};
    r.text_len = (uint16_t)strlen(line);
    memcpy(r.text, line, r.text_len);
    return r;
}

enum { NEXT = 1, CLOSE = 2, SLOW = 4, MANY = 8 };

struct reply_row {
    enum smtp_stage stage;
    const char *line;
    enum outcome_class class;
    enum fault_scope scope;
    unsigned bits;
    const char *bounce;
};

#define CONN  SMTP_STAGE_CONNECT
#define BANN  SMTP_STAGE_BANNER
#define EHLO  SMTP_STAGE_EHLO
#define MAIL  SMTP_STAGE_MAIL
#define RCPT  SMTP_STAGE_RCPT
#define DATA  SMTP_STAGE_DATA
#define BODY  SMTP_STAGE_BODY
#define DEFER OUTCOME_DEFERRED
#define FAIL  OUTCOME_FAILED

static const struct reply_row reply_rows[] = {
    /* greeting and EHLO: the session, not the mail */
    {SMTP_STAGE_AUTH, "535 5.7.8 bad credentials", DEFER, FAULT_SITE, CLOSE, "BadConfiguration"},
    {SMTP_STAGE_AUTH, "454 4.7.0 try later", DEFER, FAULT_SITE, NEXT | CLOSE, "BadConfiguration"},
    {SMTP_STAGE_AUTH, "521 5.7.0 too many logins", DEFER, FAULT_SITE, CLOSE, "BadConfiguration"},
    {BANN, "554 5.7.1 rejected by policy", DEFER, FAULT_HOST, NEXT | CLOSE, "PolicyRelated"},
    {BANN, "521 host does not accept mail", FAIL, FAULT_HOST, NEXT | CLOSE, "BadDomain"},
    {BANN, "421 4.3.2 shutting down", DEFER, FAULT_HOST, NEXT | CLOSE, "TransientFailure"},
    {BANN, "421 too many connections from your address", DEFER, FAULT_SITE, CLOSE | SLOW, NULL},
    {BANN, "421 4.7.0 Connection rate limit exceeded", DEFER, FAULT_SITE, CLOSE | SLOW, NULL},
    {EHLO, "550 5.7.1 your IP is blacklisted", DEFER, FAULT_HOST, NEXT | CLOSE, "SpamBlock"},
    {EHLO, "450 4.7.1 <x>: Helo rejected: Host not found", DEFER, FAULT_HOST, NEXT | CLOSE, NULL},
    /* MAIL */
    {MAIL, "550 5.1.8 Sender domain not found", FAIL, FAULT_MESSAGE, 0, "InvalidSender"},
    {MAIL, "451 4.1.8 Domain of sender does not resolve", DEFER, FAULT_MESSAGE, 0, "InvalidSender"},
    {MAIL, "552 5.3.4 Message size exceeds limit", FAIL, FAULT_MESSAGE, 0, "ContentRelated"},
    {MAIL, "452 4.3.1 Insufficient system storage", DEFER, FAULT_HOST, NEXT, "QuotaIssues"},
    {MAIL, "452 insufficient system storage", DEFER, FAULT_HOST, NEXT, "QuotaIssues"},
    {MAIL, "503 5.5.1 nested MAIL", DEFER, FAULT_SESSION, CLOSE, "ProtocolErrors"},
    {MAIL, "421 4.7.0 [TSS04] temporarily deferred due to unexpected volume", DEFER, FAULT_SITE,
     CLOSE | SLOW, "PolicyRelated"},
    {MAIL, "550 5.7.1 messages weren't sent: part of their network is on our block list (S3150)",
     FAIL, FAULT_SITE, SLOW, "SpamBlock"},
    {MAIL, "451 4.7.650 rate limited due to IP reputation", DEFER, FAULT_SITE, SLOW, "SpamBlock"},
    {MAIL, "530 5.7.0 Must issue a STARTTLS command first", FAIL, FAULT_MESSAGE, 0,
     "PolicyRelated"},
    /* RCPT */
    {RCPT, "550 5.1.1 user unknown", FAIL, FAULT_RECIPIENT, 0, "InvalidRecipient"},
    {RCPT, "553 5.6.7 non-ASCII addresses", FAIL, FAULT_RECIPIENT, 0, "ContentRelated"},
    {RCPT, "550 no such user here", FAIL, FAULT_RECIPIENT, 0, "InvalidRecipient"},
    {RCPT, "550", FAIL, FAULT_RECIPIENT, 0, "InvalidRecipient"},
    {RCPT, "551 5.1.6 moved", FAIL, FAULT_RECIPIENT, 0, "InactiveMailbox"},
    {RCPT, "556 5.1.10 null MX", FAIL, FAULT_RECIPIENT, 0, "BadDomain"},
    {RCPT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup",
     FAIL, FAULT_RECIPIENT, 0, "InvalidRecipient"},
    {RCPT, "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains",
     FAIL, FAULT_RECIPIENT, 0, "PolicyRelated"},
    {MAIL, "421 Exceeded allowable connection time, disconnecting.", DEFER, FAULT_SESSION,
     NEXT | CLOSE, "TransientFailure"},
    {RCPT, "554 5.7.1 <a@b>: Relay access denied", FAIL, FAULT_RECIPIENT, 0, "RelayDenied"},
    {RCPT, "554 5.7.1 Client host [192.0.2.1] blocked using zen.spamhaus.org", FAIL, FAULT_SITE,
     SLOW, "SpamBlock"},
    {RCPT, "450 4.2.0 Greylisted, try again in 300 s", DEFER, FAULT_RECIPIENT, 0,
     "TransientFailure"},
    {RCPT, "451 4.7.1 Greylisting in action, too many come too fast", DEFER, FAULT_RECIPIENT, 0,
     "TransientFailure"},
    {RCPT, "450 4.2.1 receiving mail at a rate that prevents", DEFER, FAULT_RECIPIENT, 0,
     "InactiveMailbox"},
    {RCPT, "452 4.2.2 mailbox full", DEFER, FAULT_RECIPIENT, 0, "QuotaIssues"},
    {RCPT, "452 mailbox full, quota exceeded", DEFER, FAULT_RECIPIENT, 0, "QuotaIssues"},
    {RCPT, "452 4.3.1 disk full", DEFER, FAULT_HOST, NEXT, "QuotaIssues"},
    {RCPT, "452 insufficient system storage", DEFER, FAULT_HOST, NEXT, "QuotaIssues"},
    {RCPT, "452 4.5.3 too many recipients", DEFER, FAULT_RECIPIENT, MANY, "TooManyRecipients"},
    {RCPT, "452 Too many recipients", DEFER, FAULT_RECIPIENT, MANY, NULL},
    {RCPT, "552 too many recipients", DEFER, FAULT_RECIPIENT, MANY, NULL},
    {RCPT, "552 5.5.3 x", DEFER, FAULT_RECIPIENT, MANY, "TooManyRecipients"},
    {RCPT, "550 5.5.3 x", FAIL, FAULT_RECIPIENT, MANY, "TooManyRecipients"},
    {RCPT, "451 4.5.3 x", DEFER, FAULT_RECIPIENT, MANY, "TooManyRecipients"},
    {MAIL, "550 5.5.3 x", FAIL, FAULT_MESSAGE, 0, "TooManyRecipients"},
    {RCPT, "552", DEFER, FAULT_RECIPIENT, 0, NULL},
    {RCPT, "552 5.2.2 mailbox full", FAIL, FAULT_RECIPIENT, 0, "QuotaIssues"},
    {RCPT, "552 mailbox is full", FAIL, FAULT_RECIPIENT, 0, "QuotaIssues"},
    {RCPT, "421 4.3.0 going down", DEFER, FAULT_HOST, NEXT | CLOSE, "TransientFailure"},
    {RCPT, "421", DEFER, FAULT_SESSION, NEXT | CLOSE, "TransientFailure"},
    {RCPT, "450 4.1.1 user unknown in local table", DEFER, FAULT_RECIPIENT, 0, "InvalidRecipient"},
    {RCPT, "550 5.2.1 account disabled", FAIL, FAULT_RECIPIENT, 0, "InactiveMailbox"},
    /* The basic code decides where the codes contradict each other. */
    {RCPT, "450 5.1.1 user unknown", DEFER, FAULT_RECIPIENT, 0, "InvalidRecipient"},
    /* DATA, end of data */
    {DATA, "451 4.3.0 try later", DEFER, FAULT_HOST, NEXT, "TransientFailure"},
    {DATA, "554 5.7.1 no", FAIL, FAULT_MESSAGE, 0, "PolicyRelated"},
    {DATA, "250 what", OUTCOME_DELIVERED, FAULT_NONE, 0, NULL},
    {DATA, "354 go", DEFER, FAULT_SESSION, NEXT | CLOSE, NULL},
    {BODY, "250 2.0.0 queued", OUTCOME_DELIVERED, FAULT_NONE, 0, "Uncategorized"},
    {BODY, "554 5.7.1 looks like spam", FAIL, FAULT_MESSAGE, 0, "SpamContent"},
    {BODY, "550 5.7.26 unauthenticated mail", FAIL, FAULT_MESSAGE, 0, "AuthenticationFailed"},
    {BODY, "550 5.7.1 DMARC policy not met", FAIL, FAULT_MESSAGE, 0, "AuthenticationFailed"},
    {BODY, "552 5.3.4 too big", FAIL, FAULT_MESSAGE, 0, "ContentRelated"},
    {BODY, "554 virus found", FAIL, FAULT_MESSAGE, 0, "VirusRelated"},
    {BODY, "554", FAIL, FAULT_MESSAGE, 0, "Uncategorized"},
    {BODY, "451 4.7.1 greylisted", DEFER, FAULT_MESSAGE, 0, "TransientFailure"},
    {BODY, "421 4.7.28 unusual rate of mail from your IP", DEFER, FAULT_SITE, CLOSE | SLOW,
     "PolicyRelated"},
    {BODY, "452 4.3.1 no space", DEFER, FAULT_HOST, NEXT, "QuotaIssues"},
    /* nothing asked */
    {SMTP_STAGE_READY, "421 4.4.2 idle timeout", DEFER, FAULT_SESSION, CLOSE, NULL},
    {SMTP_STAGE_RSET, "500 what?", DEFER, FAULT_SESSION, CLOSE, NULL},
};

static void test_replies(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(reply_rows); i++) {
        const struct reply_row *row = &reply_rows[i];
        struct smtp_reply reply = make_reply(row->line);
        struct verdict v = classify(row->stage, SMTP_FATE_REPLY, SMTP_UNABLE_NONE, &reply);
        unsigned bits = (v.next_host ? NEXT : 0u) | (v.close ? CLOSE : 0u) |
                        (v.slow_down ? SLOW : 0u) | (v.too_many ? MANY : 0u);
        struct outcome o = {.class = v.class, .stage = row->stage, .reply = reply};

        if (v.class != row->class || v.scope != row->scope || bits != row->bits)
            fail_msg("\"%s\": class %d scope %d bits %u", row->line, (int)v.class, (int)v.scope,
                     bits);
        if (row->bounce != NULL) /* each has a number */
            assert_string_equal(classify_reason_name(classify_reason(row->bounce)), row->bounce);
        if (row->bounce != NULL && strcmp(classify_bounce(&o), row->bounce) != 0)
            fail_msg("\"%s\": %s", row->line, classify_bounce(&o));
    }
}

static void test_broken_sessions(void **state)
{
    struct verdict v;

    (void)state;
    v = classify(CONN, SMTP_FATE_NOT_SENT, SMTP_UNABLE_NONE, NULL);
    assert_true(v.class == DEFER && v.scope == FAULT_HOST && v.next_host && v.close);
    v = classify(BANN, SMTP_FATE_NOT_SENT, SMTP_UNABLE_NONE, NULL);
    assert_true(v.class == DEFER && v.scope == FAULT_HOST && v.next_host);
    v = classify(RCPT, SMTP_FATE_NOT_SENT, SMTP_UNABLE_NONE, NULL);
    assert_true(v.class == DEFER && v.scope == FAULT_SESSION && v.next_host);
    v = classify(SMTP_STAGE_READY, SMTP_FATE_NOT_SENT, SMTP_UNABLE_NONE, NULL);
    assert_true(v.scope == FAULT_SESSION && v.close);
    v = classify(BODY, SMTP_FATE_LOST, SMTP_UNABLE_NONE, NULL);
    assert_true(v.class == OUTCOME_LOST && v.scope == FAULT_SESSION && !v.next_host && v.close);
    v = classify(MAIL, SMTP_FATE_UNABLE, SMTP_UNABLE_UTF8, NULL);
    assert_true(v.class == FAIL && v.scope == FAULT_MESSAGE && !v.close);
}

static void test_dns(void **state)
{
    static const struct {
        enum dns_status status;
        enum outcome_class class;
        uint16_t code, subject, detail;
        const char *bounce;
    } rows[] = {
        {DNS_NULL_MX, FAIL, 556, 1, 10, "BadDomain"},
        {DNS_NO_DOMAIN, FAIL, 550, 1, 2, "BadDomain"},
        {DNS_NO_HOST, FAIL, 550, 4, 4, "RoutingErrors"},
        {DNS_BAD_NAME, FAIL, 550, 1, 2, "BadDomain"},
        {DNS_TEMPORARY, DEFER, 451, 4, 3, "DNSFailure"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct outcome o = {.class = classify_dns(rows[i].status).class, .local = true};

        classify_dns_reply(rows[i].status, STR("SERVFAIL\r\nfrom 1.2.3.4"), &o.reply);
        assert_int_equal(o.class, rows[i].class);
        assert_int_equal(o.reply.code, rows[i].code);
        assert_int_equal(o.reply.enhanced.subject, rows[i].subject);
        assert_int_equal(o.reply.enhanced.detail, rows[i].detail);
        assert_null(memchr(o.reply.text, '\r', o.reply.text_len));
        assert_string_equal(classify_bounce(&o), rows[i].bounce);
    }
}

static void check_text(const struct smtp_reply *r, uint16_t code, uint16_t subject, uint16_t detail,
                       const char *text)
{
    assert_int_equal(r->code, code);
    assert_int_equal(r->enhanced.class, code / 100);
    assert_int_equal(r->enhanced.subject, subject);
    assert_int_equal(r->enhanced.detail, detail);
    assert_int_equal(r->text_len, strlen(text));
    assert_memory_equal(r->text, text, r->text_len);
}

static void test_own_words(void **state)
{
    struct smtp_reply r;
    char longest[2000];

    (void)state;
    classify_io_reply(CONN, -ECONNREFUSED, STR(""), &r);
    check_text(&r, 451, 4, 1, "while connecting: Connection refused");
    classify_io_reply(BANN, -ETIMEDOUT, STR("after 300 s"), &r);
    check_text(&r, 451, 4, 2, "while waiting for the greeting: timed out: after 300 s");
    classify_io_reply(RCPT, 0, STR(""), &r);
    check_text(&r, 451, 4, 2,
               "while waiting for the reply to RCPT TO: the peer closed the connection");
    classify_io_reply(BODY, -ECONNRESET, STR(""), &r);
    check_text(&r, 451, 4, 2, "while sending the message: Connection reset by peer");
    classify_io_reply(EHLO, -EPROTO, STR(""), &r);
    check_text(&r, 451, 5, 0, "while waiting for the reply to EHLO: the peer does not speak SMTP");
    classify_io_reply(RCPT, -EBADMSG, STR("peer's alert: access denied"), &r);
    check_text(&r, 451, 4, 2,
               "while waiting for the reply to RCPT TO: TLS failed: peer's alert: access denied");
    classify_io_reply(SMTP_STAGE_READY, -100000, STR(""), &r);
    check_text(&r, 451, 4, 2, "while idle: unknown error");
    classify_tls_reply(STR("certificate has expired"), &r);
    check_text(&r, 451, 7, 5, "TLS failed: certificate has expired");
    classify_expired_reply(false, STR(""), STR(""), &r);
    check_text(&r, 554, 4, 7, "message expired");
    classify_expired_reply(false, STR(""), STR("the rate limit"), &r);
    check_text(&r, 554, 4, 7, "message expired; it waited for the rate limit");
    classify_expired_reply(true, STR(""), STR("the rate limit"), &r);
    check_text(&r, 554, 4, 7,
               "message expired at the time that was set for it; it waited for the rate limit");
    classify_expired_reply(false, STR("450 4.7.1 no"), STR("its turn"), &r);
    check_text(&r, 554, 4, 7, "message expired; it waited for its turn; last error: 450 4.7.1 no");
    classify_expired_reply(false, STR("450 4.7.1 no\r\n."), STR(""), &r);
    check_text(&r, 554, 4, 7, "message expired; last error: 450 4.7.1 no??.");
    memset(longest, 'x', sizeof(longest));
    classify_expired_reply(false, (struct str){longest, sizeof(longest)}, STR(""), &r);
    assert_int_equal(r.text_len, SMTP_REPLY_TEXT_MAX);
    classify_rejected_reply(&r);
    check_text(&r, 550, 7, 1,
               "not sent: our configuration rejects mail for this domain (route: reject)");
    classify_unable_reply(SMTP_UNABLE_8BIT, &r);
    assert_int_equal(r.enhanced.detail, 3);
    classify_unable_reply(SMTP_UNABLE_SIZE, &r);
    assert_int_equal(r.code, 552);
}

static void test_names(void **state)
{
    struct outcome o = {.class = OUTCOME_EXPIRED};

    (void)state;
    assert_string_equal(classify_bounce(&o), "MessageExpired");
    o.class = OUTCOME_LOST;
    o.stage = BODY;
    assert_string_equal(classify_bounce(&o), "BadConnection");
    classify_io_reply(BODY, -EPROTO, STR(""), &o.reply);
    assert_string_equal(classify_bounce(&o), "ProtocolErrors");
    o.local = true; /* what is quoted names nothing */
    classify_io_reply(BODY, -EPROTO, STR("550 relay spam"), &o.reply);
    assert_string_equal(classify_bounce(&o), "ProtocolErrors");
    classify_tls_reply(STR("peer's alert: access denied by policy"), &o.reply);
    assert_string_equal(classify_bounce(&o), "ProtocolErrors");
    o.local = false;
    classify_rejected_reply(&o.reply);
    o.class = FAIL;
    o.stage = CONN;
    assert_string_equal(classify_bounce(&o), "PolicyRelated");
    o.reply.code = 0;
    o.class = DEFER;
    o.stage = CONN;
    assert_string_equal(classify_bounce(&o), "NoAnswerFromHost");
    o.stage = RCPT;
    assert_string_equal(classify_bounce(&o), "BadConnection");
    assert_string_equal(classify_command(RCPT), "RCPT TO");
    assert_string_equal(classify_command(BODY), ".");
    assert_null(classify_command(CONN));
    assert_null(classify_command(BANN));
    assert_null(classify_command(SMTP_STAGES));
}

/* Who gets no mail any more: nobody for whom an answer leaves a doubt. */
static void test_unknown(void **state)
{
    static const struct config_rule unknown = {.classification = "InvalidRecipient"},
                                    other = {.classification = "PolicyRelated"},
                                    plain = {.slow_down = true},
                                    filter = {.no_suppression = true,
                                              .classification = "InvalidRecipient"};
    static const struct {
        enum smtp_stage stage;
        const char *line;
        bool nobody;
        const struct config_rule *rule;
    } rows[] = {
        {RCPT, "550 5.1.1 <a@b.example>: Recipient address rejected: User unknown", true, NULL},
        {RCPT, "550 5.1.1 sorry", true, NULL},
        {RCPT, "550 5.1.2 no such host", true, NULL},
        {RCPT, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found by SMTP address lookup", true,
         NULL},
        {BODY, "550 5.1.1 The email account that you tried to reach does not exist.", true, NULL},
        {DATA, "550 5.1.1 unknown", true, NULL},
        {RCPT, "550 No such user here", true, NULL},
        {RCPT, "550 5.0.0 <a@b.example>... User unknown", true, NULL},
        {RCPT, "550 5.1.0 Address rejected: unknown user", true, NULL},
        {RCPT, "550 5.4.1 Recipient address rejected: Access denied", true, &unknown},
        {BODY, "554 delivery error: This user doesn't have a account", true, &unknown},
        {RCPT, "550 5.1.1 no such user", true, &plain},
        {MAIL, "550 5.1.1 no such user", false, NULL},
        {CONN, "550 5.1.1 no such user", false, NULL},
        {SMTP_STAGE_EHLO, "550 5.1.1 no such user", false, NULL},
        {RCPT, "550 5.1.1 no such user", false, &filter}, /* docomo's filter */
        {RCPT, "550 : User unknown", false, &filter},
        {RCPT, "550 5.1.1 no such user", false, &other},
        {RCPT, "550 5.7.1 no such user, or you are blocked", false, NULL},
        {RCPT, "554 5.7.1 User unknown", false, NULL},
        {RCPT, "550 5.1.1 rejected: blocked using zen.spamhaus.org", false, NULL},
        {RCPT, "550 no such user: your IP has a poor reputation", false, NULL},
        {RCPT, "550 5.1.1 relaying denied", false, NULL},
        {RCPT, "550 5.1.0 <a@b.example>: Sender address rejected: User unknown in virtual table",
         false, NULL}, /* Postfix */
        {RCPT, "550 Verification failed for <a@b.example> No Such User Here Sender verify failed",
         false, NULL}, /* Exim with cPanel */
        {RCPT, "550 5.1.1 unknown user: sender verification failed", false, NULL},
        {RCPT, "550", false, NULL},
        {RCPT, "550 rejected", false, NULL},
        {RCPT, "550 5.5.0 Requested action not taken: mailbox unavailable", false, NULL},
        {RCPT, "553 news.example.com does not exist", false, NULL}, /* our domain */
        {RCPT, "552 5.2.2 mailbox full", false, NULL},
        {RCPT, "550 5.2.1 The account is disabled, user unknown", false, NULL},
        {RCPT, "550 5.1.3 bad address", false, NULL},
        {RCPT, "550 5.1.6 moved", false, NULL},
        {RCPT, "450 4.1.1 unknown user", false, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct outcome o = {.class = FAIL,
                            .stage = rows[i].stage,
                            .reply = make_reply(rows[i].line),
                            .rule = rows[i].rule};

        if (classify_is_unknown(&o) != rows[i].nobody)
            fail_msg("\"%s\"", rows[i].line);
        o.local = true;
        assert_false(classify_is_unknown(&o));
        o.local = false;
        o.class = DEFER;
        assert_false(classify_is_unknown(&o));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replies), cmocka_unit_test(test_broken_sessions),
        cmocka_unit_test(test_dns),     cmocka_unit_test(test_own_words),
        cmocka_unit_test(test_names),   cmocka_unit_test(test_unknown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
