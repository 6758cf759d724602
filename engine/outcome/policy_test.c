/* The table of docs/failures.md is the one of policy.c, and who has which event. */
#include "outcome/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"

#define DOCUMENT TEST_SOURCE_DIR "/../../docs/failures.md"

static const char *row_of(const struct policy *p, char out[256])
{
    static const char *const attempts[] = {"yes", "once free", "free", "nobody's"};
    static const char *const runs[] = {"as before", "counts", "ends the run"};

    snprintf(out, 256, "| %s | %s | %s | %s | %s |\n", p->name, attempts[p->attempt],
             p->ends_session ? "ends" : "goes on", p->one_less ? "one less" : "as before",
             runs[p->run]);
    return out;
}

static void test_document(void **state)
{
    static const char head[] = "| event | attempt | session | sessions at once | in a row |\n";
    char line[1024], want[256];
    FILE *f = fopen(DOCUMENT, "r");

    (void)state;
    assert_non_null(f);
    do
        assert_non_null(fgets(line, sizeof(line), f));
    while (strcmp(line, head) != 0);
    assert_non_null(fgets(line, sizeof(line), f));
    for (int i = 0; i < POLICY_EVENTS; i++) {
        assert_non_null(fgets(line, sizeof(line), f));
        assert_string_equal(line, row_of(policy_of((enum policy_event)i), want));
    }
    assert_non_null(fgets(line, sizeof(line), f));
    assert_string_equal(line, "\n"); /* no row more */
    fclose(f);
}

static void test_events(void **state)
{
    static const struct {
        enum smtp_stage stage;
        bool between;
        uint16_t code;
        const char *text;
        enum policy_event event;
    } rows[] = {
        {SMTP_STAGE_RCPT, true, 421, "4.7.28 rate limited", POLICY_SLOWER},
        {SMTP_STAGE_RCPT, true, 451, "4.7.1 too much, try again later", POLICY_SLOWER},
        {SMTP_STAGE_MAIL, true, 421, "4.7.28 rate limited", POLICY_POLITE_SLOWER},
        {SMTP_STAGE_MAIL, false, 421, "4.7.28 rate limited", POLICY_SLOWER},
        {SMTP_STAGE_MAIL, true, 421, "4.7.0 too many messages in one session", POLICY_POLITE_END},
        {SMTP_STAGE_MAIL, true, 421, "#4.x.2 Too many messages for this session",
         POLICY_POLITE_END},
        {SMTP_STAGE_MAIL, true, 421, "Max message per connection reached", POLICY_POLITE_END},
        {SMTP_STAGE_MAIL, true, 452, "4.5.3 too many messages in this session", POLICY_POLITE_END},
        {SMTP_STAGE_MAIL, true, 550, "too many messages in this session", POLICY_POLITE_END},
        {SMTP_STAGE_MAIL, false, 550, "too many messages in this session", POLICY_SESSION_END},
        {SMTP_STAGE_RCPT, true, 550, "too many messages in this session", POLICY_RECIPIENT},
        {SMTP_STAGE_MAIL, false, 421, "4.3.2 going down", POLICY_SESSION_END},
        {SMTP_STAGE_RCPT, true, 421, "4.3.2 going down", POLICY_SESSION_END},
        {SMTP_STAGE_BODY, true, 421, "4.3.2 going down", POLICY_SESSION_END},
        {SMTP_STAGE_MAIL, true, 503, "5.5.1 nested MAIL", POLICY_SESSION_END},
        {SMTP_STAGE_RCPT, true, 451, "4.3.0 try again later", POLICY_HOST},
        {SMTP_STAGE_RCPT, true, 450, "4.2.0 greylisted, too fast", POLICY_RECIPIENT},
        {SMTP_STAGE_RCPT, true, 550, "5.1.1 unknown", POLICY_RECIPIENT},
        {SMTP_STAGE_BODY, true, 554, "5.7.1 spam", POLICY_RECIPIENT},
        {SMTP_STAGE_RCPT, true, 554, "5.7.1 blocked using zen.spamhaus.org", POLICY_SLOWER},
        {SMTP_STAGE_RCPT, true, 452, "4.5.3 too many recipients", POLICY_TOO_MANY},
        {SMTP_STAGE_BODY, true, 250, "2.0.0 ok", POLICY_TAKEN},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct smtp_reply reply = {.code = rows[i].code};
        unsigned c = 0, s = 0, d = 0;
        struct verdict v;

        if (sscanf(rows[i].text, "%1u.%3u.%3u ", &c, &s, &d) == 3)
            reply.enhanced = (struct smtp_enhanced){(uint16_t)c, (uint16_t)s, (uint16_t)d};
        reply.text_len = (uint16_t)strlen(rows[i].text);
        memcpy(reply.text, rows[i].text, reply.text_len);
        v = classify(rows[i].stage, SMTP_FATE_REPLY, SMTP_UNABLE_NONE, &reply);
        if (policy_of_refusal(&v, rows[i].stage, rows[i].between) != rows[i].event)
            fail_msg("%u %s: %s", reply.code, rows[i].text,
                     policy_of(policy_of_refusal(&v, rows[i].stage, rows[i].between))->name);
    }
}

static void test_paused(void **state)
{
    struct verdict v = {
        .class = OUTCOME_DEFERRED, .goodbye = true, .slow_down = true, .paused = true};

    (void)state;
    assert_int_equal(policy_of_refusal(&v, SMTP_STAGE_MAIL, true), POLICY_PAUSED);
    v.paused = false; /* a session that had its share ends as usual, and is no attempt */
    v.lowered = true;
    assert_int_equal(policy_of_refusal(&v, SMTP_STAGE_MAIL, true), POLICY_POLITE_SLOWER);
    v.slow_down = false;
    assert_int_equal(policy_of_refusal(&v, SMTP_STAGE_MAIL, true), POLICY_POLITE_END);
    assert_int_equal(policy_of_refusal(&v, SMTP_STAGE_RCPT, true), POLICY_PAUSED);
    v.class = OUTCOME_DELIVERED;
    assert_int_equal(policy_of_refusal(&v, SMTP_STAGE_MAIL, true), POLICY_TAKEN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_document),
                                       cmocka_unit_test(test_paused),
                                       cmocka_unit_test(test_events)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
