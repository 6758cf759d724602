#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "config/config_load.h"
#include "config/config_private.h"

static void expect(const char *text, const char *complaint)
{
    struct buf errors = {0};
    struct config *c = NULL;
    int err = config_load_text("test.yaml", str_of(text), &c, &errors);

    buf_putc(&errors, 0);
    if (complaint == NULL && err != 0)
        fail_msg("%s\n%s", text, (const char *)errors.data);
    if (complaint != NULL && (err == 0 || strstr((const char *)errors.data, complaint) == NULL))
        fail_msg("%s\n%s: '%s'", text, complaint, (const char *)errors.data);
    buf_done(&errors);
    config_unref(c);
}

/* What can match nothing, or does nothing, is told with its line. */
static void test_mistakes(void **state)
{
    static const struct {
        const char *rule, *complaint;
    } rows[] = {
        {"{code: 421, suspend: 10m}", NULL},
        {"{enhanced: 4.7.1-9, slow_down: yes}", NULL},
        {"{text: [busy], code: 5xx, outcome: deferred}", NULL},
        {"{suspend: 10m}", "test.yaml:2:1: rules.x: matches every refusal"},
        {"{code: 421}", "test.yaml:2:1: rules.x: does nothing"},
        {"{code: 4x1, alarm: yes}", "'4x1' is no code; write 421, 550-554 or 4xx"},
        {"{code: 250, alarm: yes}", "'250' matches nothing"},
        {"{code: 3xx, alarm: yes}", "'3xx' matches nothing"},
        {"{code: 554-550, alarm: yes}", "'554-550' matches nothing"},
        {"{code: 421, enhanced: 4.7, alarm: yes}", "'4.7' is no enhanced code"},
        {"{code: 421, enhanced: 5.7.32, alarm: yes}", "'5.7.32' matches nothing"},
        {"{enhanced: 2.0.0, alarm: yes}", "'2.0.0' matches nothing"},
        {"{code: 421, enhanced: 4.7.9-1, alarm: yes}", "'4.7.9-1' matches nothing"},
        {"{provider: [gmail], code: 421, alarm: yes}", "there is no provider 'gmail'"},
        {"{provider: [gogle], code: 421, alarm: yes}", "did you mean 'google'?"},
        {"{mx: [\"*.example.net\"], code: 421, alarm: yes}", "is not the end of a host name"},
        {"{text: [\"*\"], alarm: yes}", "'*' is in every reply"},
        {"{text: [\"^\"], alarm: yes}", "'^' is in every reply"},
        {"{code: 4xx, stage: greeting, suspend: 5m, scope: campaign}", "nobody's mail is refused"},
        {"{code: 4xx, stage: greeting, outcome: failed}", "no recipient is refused"},
        {"{code: 4xx, classification: Spam, alarm: yes}", "'Spam' is no classification"},
        {"{code: 421, rate: 60/min, sessions_max: 2, lowered_for: 30m}", NULL},
        {"{code: 421, session_messages_max: 20}", NULL},
        {"{code: 421, stage: greeting, sessions_max: 2}", NULL},
        {"{code: 421, stage: greeting, sessions_max: 2, scope: tenant}",
         "nobody's mail is refused"},
        {"{code: 421, rate: 60/min, sessions_max: 2, scope: signing_domain}", NULL},
        {"{code: 421, suspend: 10m, scope: source_and_domains}", NULL},
        {"{code: 421, session_messages_max: 20, scope: campaign}",
         "a connection takes mail of all"},
        {"{code: 421, session_messages_max: 20, scope: domain}", NULL}, /* the source's */
        {"{code: 421, lowered_for: 30m}", "does nothing; say suspend, slow_down, rate"},
        {"{code: 550, outcome: deferred, pool: default}", NULL},
        {"{code: 451, pool: nowhere}", "there is no pool 'nowhere'"},
        {"{code: 451, pool: defaul}", "did you mean 'default'?"},
        {"{code: 451, pool: default, outcome: failed}", "goes on by no pool"},
        {"{enabled: no}", "no rule of this name is shipped"},
    };
    char text[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        snprintf(text, sizeof(text), "rules:\n  x: %s\n", rows[i].rule);
        expect(text, rows[i].complaint);
    }
    expect("rules:\n  google-sources: {enabled: no}\n", "did you mean 'google-source'?");
    expect("rules:\n  google-source: {enabled: no}\n", NULL);
}

static void test_never_reached(void **state)
{
    (void)state;
    expect("rules:\n"
           "  a: {code: 4xx, text: [busy], alarm: yes}\n"
           "  b: {code: 421, text: [\"too busy\"], provider: [google], suspend: 5m}\n",
           "test.yaml:3:1: rules.b: is never reached: rules.a in front of it matches all of it");
    expect("rules:\n"
           "  a: {code: 421, text: [\"too busy\"], provider: [google], suspend: 5m}\n"
           "  b: {code: 4xx, text: [busy], alarm: yes}\n",
           NULL);
    expect("rules:\n"
           "  a: {code: 4xx, stage: rcpt, alarm: yes}\n"
           "  b: {code: 421, stage: mail, alarm: yes}\n",
           NULL);
    expect("rules:\n"
           "  a: {enhanced: 4.7.1-9, alarm: yes}\n"
           "  b: {enhanced: 4.7.5, text: [x], alarm: yes}\n",
           "is never reached");
}

/* Shipped rules keep to what is asked of others. */
static void check_shipped(void *arg, const struct config_rule *r)
{
    struct buf text = {0};

    (void)arg;
    assert_true(r->code_first >= 400 && r->code_last <= 599 && r->code_first <= r->code_last);
    assert_true(r->enhanced_class == 0 ||
                (r->enhanced_class == r->code_first / 100 && r->detail_first <= r->detail_last));
    assert_true(r->suspend_s != 0 || r->slow_down || r->retry_s != 0 || r->alarm ||
                r->no_suppression || r->classification != NULL);
    assert_true(r->classification == NULL || config_classification_known(r->classification));
    for (size_t i = 0; i < r->providers_len; i++) {
        buf_printf(&text, "rules:\n  x: {provider: [%s], code: 421, alarm: yes}\n",
                   r->providers[i]);
        buf_putc(&text, 0);
        expect((const char *)text.data, NULL);
        buf_clear(&text);
    }
    buf_done(&text);
}

static void count(void *arg, const struct config_rule *r)
{
    (void)r;
    ++*(size_t *)arg;
}

static void test_shipped(void **state)
{
    struct config *c = config_default();
    size_t n = 0;

    (void)state;
    config_rules_visit(c, check_shipped, NULL);
    config_rules_visit(c, count, &n);
    assert_int_equal(n, config_rules_shipped_len);
    config_unref(c);
    for (size_t i = 0; i < config_rules_shipped_len; i++)
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(config_rules_shipped[i].name, config_rules_shipped[j].name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mistakes),
                                       cmocka_unit_test(test_never_reached),
                                       cmocka_unit_test(test_shipped)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
