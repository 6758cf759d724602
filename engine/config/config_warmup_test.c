#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "config/config_load.h"

static struct config *config_of(const char *text)
{
    struct buf errors = {0};
    struct config *c = NULL;

    if (config_load_text("test.yaml", str_of(text), &c, &errors) != 0)
        fail_msg("%.*s", STR_FMT(buf_str(&errors)));
    return c;
}

static void test_providers(void **state)
{
    static const struct {
        const char *host, *provider;
    } cases[] = {
        {"gmail-smtp-in.l.google.com", "google"},
        {"ASPMX.L.GOOGLE.COM.", "google"},
        {"google.com", "google"},
        {"notgoogle.com", "default"}, /* no border of a label */
        {"google.com.example.net", "default"},
        {"example-com.mail.protection.outlook.com", "microsoft"},
        {"example-com.o-v1.mx.microsoft", "microsoft"},
        {"hotmail-com.olc.protection.outlook.com.", "microsoft"},
        {"mta5.am0.yahoodns.net", "yahoo"},
        {"mx1.mail.yahoo.co.jp", "yahoo_japan"},
        {"mx01.mail.icloud.com", "apple"},
        {"mfsmax.docomo.ne.jp", "docomo"},
        {"lsean.ezweb.ne.jp", "au"},
        {"mx.softbank.ne.jp", "softbank"},
        {"mx2h1.comcast.net", "comcast"},
        {"mx.ours.example", "ours"},
        {"ours.example", "ours"},
        {"yours.example", "default"},
        {"x.au.com", "au"},
        {"[192.0.2.1]", "default"},
        {"", "default"},
        {".", "default"},
        {"mail.rakuten.co.jp", "default"}, /* the file says who that is */
        {"rakuten.example", "rakuten"},
    };
    struct config *c = config_of("providers:\n"
                                 "  ours: {mx: [Ours.Example.]}\n"
                                 "  rakuten: {mx: [rakuten.example]}\n");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(config_provider_of(c, str_of(cases[i].host)), cases[i].provider);
    config_unref(c);
}

/* Each shipped provider is found by each of its own names, and names say nothing twice. */
static void visit(void *arg, const char *name, const char *mx)
{
    const struct config *c = arg;
    char host[128];

    while (*mx != 0) {
        size_t n = strcspn(mx, " ");

        snprintf(host, sizeof(host), "mx1.%.*s", (int)n, mx);
        assert_string_equal(config_provider_of(c, str_of(host)), name);
        assert_true(mx[n - 1] != '.');
        mx += n + (mx[n] == ' ');
    }
}

static void test_shipped(void **state)
{
    struct config *c = config_default();

    (void)state;
    config_providers_visit(c, visit, c);
    config_unref(c);
}

static void test_policies(void **state)
{
    struct config *c = config_of("sources: {a: {ipv4: 192.0.2.1}, b: {ipv4: 192.0.2.2}}\n"
                                 "warmup:\n"
                                 "  hold_bounced: 2%\n"
                                 "  rewarm_after: 36h\n"
                                 "  sources: {a: {schedule: fast, from: 2026-12-01}}\n"
                                 "  providers:\n"
                                 "    docomo: {pace: 30%, hold_deferred: 2.5%, promote: no}\n"
                                 "    au: {top_of_hour: 5m}\n");
    struct config_warmup_policy p;

    (void)state;
    assert_false(config_warmup_policy(c, "b", "google", &p));
    assert_true(config_warmup_policy(c, "a", "google", &p));
    assert_int_equal(p.steps_len, 15);
    assert_int_equal(p.steps[0], 500);
    assert_int_equal(p.pace, 100);
    assert_int_equal(p.from, 20788);
    assert_true(p.promote && !p.calendar);
    assert_int_equal(p.hold[CONFIG_WARMUP_DEFERRED], 50);
    assert_int_equal(p.hold[CONFIG_WARMUP_BOUNCED], 200);
    assert_int_equal(p.fall[CONFIG_WARMUP_COMPLAINED], 30);
    assert_int_equal(p.rewarm_days, 2);
    assert_true(config_warmup_policy(c, "a", "microsoft", &p));
    assert_int_equal(p.pace, 50);
    assert_true(config_warmup_policy(c, "a", "docomo", &p));
    assert_int_equal(p.pace, 30);
    assert_int_equal(p.top_of_hour_s, 120);
    assert_int_equal(p.hold[CONFIG_WARMUP_DEFERRED], 250);
    assert_false(p.promote);
    assert_true(config_warmup_policy(c, "a", "au", &p));
    assert_int_equal(p.top_of_hour_s, 300);
    config_unref(c);
}

/* Signing domains and campaigns have names of their own kind, and the same policies. */
static void test_kinds(void **state)
{
    struct config *c = config_of("sources: {a: {ipv4: 192.0.2.1}}\n"
                                 "dkim: {keys: [{domain: News.Example, selector: s, file: /f}]}\n"
                                 "warmup:\n"
                                 "  sources: {a: {schedule: fast}}\n"
                                 "  signing_domains: {news.example: {schedule: cautious}}\n"
                                 "  campaigns: {a: {mode: calendar}}\n");
    struct config_warmup_policy p;
    struct buf errors = {0};
    const char *plain;

    (void)state;
    assert_true(config_warmup_policy(c, "a", "google", &p) && p.steps[0] == 500 && !p.calendar);
    assert_true(config_warmup_policy(c, "signer:news.example", "google", &p) && p.steps[0] == 50);
    assert_true(config_warmup_policy(c, "campaign:a", "google", &p) && p.steps[0] == 200 &&
                p.calendar);
    assert_false(config_warmup_policy(c, "signer:a", "google", &p));
    assert_false(config_warmup_policy(c, "news.example", "google", &p));
    assert_true(config_warmup_has(c, CONFIG_WARMUP_SIGNER, STR("NEWS.example")));
    assert_false(config_warmup_has(c, CONFIG_WARMUP_CAMPAIGN, STR("A")));
    assert_int_equal(config_warmup_kind("signer:news.example", &plain), CONFIG_WARMUP_SIGNER);
    assert_string_equal(plain, "news.example");
    assert_int_equal(config_warmup_kind("signers", &plain), CONFIG_WARMUP_SOURCE);
    assert_string_equal(plain, "signers");
    config_unref(c);
    assert_int_not_equal(config_load_text("t.yaml",
                                          STR("warmup: {signing_domains: {a.example: {}}}\n"), &c,
                                          &errors),
                         0);
    buf_putc(&errors, 0);
    assert_non_null(strstr((char *)errors.data, "t.yaml:1:"));
    assert_non_null(strstr((char *)errors.data, "no key of dkim.keys is of this domain"));
    buf_done(&errors);
}

/* Google: "immediately doubling previously sent volumes could result in rate limiting". */
static void test_steps(void **state)
{
    static const struct {
        const char *schedule;
        bool may_double;
    } cases[] = {{"standard", false}, {"cautious", false}, {"fast", true}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct config_warmup_policy p;
        struct config *c;
        char text[128];

        snprintf(text, sizeof(text), "warmup: {sources: {default: {schedule: %s}}}\n",
                 cases[i].schedule);
        c = config_of(text);
        assert_true(config_warmup_policy(c, "default", "google", &p));
        for (size_t n = 1; n < p.steps_len; n++) {
            assert_true(p.steps[n] > p.steps[n - 1]);
            assert_true(p.steps[n] < 2 * p.steps[n - 1] ||
                        (cases[i].may_double && p.steps[n] == 2 * p.steps[n - 1]));
        }
        config_unref(c);
    }
}

static void test_warning(void **state)
{
    static const struct {
        const char *steps;
        bool warned;
    } cases[] = {{"[100, 199, 300]", false}, {"[100, 200]", true}, {"[1, 3]", true}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf got = {0};
        struct config *c;
        char text[128];

        snprintf(text, sizeof(text), "warmup: {schedules: {mine: {steps: %s}}}\n", cases[i].steps);
        c = config_of(text);
        config_warnings(c, false, &got);
        buf_putc(&got, 0);
        assert_int_equal(strstr((const char *)got.data, "twice as much") != NULL, cases[i].warned);
        buf_done(&got);
        config_unref(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_providers), cmocka_unit_test(test_shipped),
        cmocka_unit_test(test_policies),  cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_steps),     cmocka_unit_test(test_warning)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
