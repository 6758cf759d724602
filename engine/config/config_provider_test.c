#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "config/config_load.h"
#include "config/config_private.h"
#include "config/config_profiles.h"

static struct config *config_of(const char *text)
{
    struct buf errors = {0};
    struct config *c = NULL;

    if (config_load_text("test.yaml", str_of(text), &c, &errors) != 0)
        fail_msg("%.*s", STR_FMT(buf_str(&errors)));
    buf_done(&errors);
    return c;
}

static const char *name_of(const struct config *c, const char *host)
{
    const struct config_provider *p = config_provider_of_host(c, str_of(host));

    return p == NULL ? "none" : p->name;
}

static void test_hosts(void **state)
{
    static const struct {
        const char *host, *provider;
    } cases[] = {
        {"gmail-smtp-in.l.google.com", "google"},
        {"ASPMX.L.GOOGLE.COM.", "google"},
        {"google.com", "google"},
        {"notgoogle.com", "none"}, /* no border of a label */
        {"google.com.example.net", "none"},
        {"com", "none"},
        {"", "none"},
        {".", "none"},
        {"..", "none"},
        {"[192.0.2.1]", "none"},
        /* The longest decides. */
        {"outlook-com.olc.protection.outlook.com", "microsoft"},
        {"example-com.mail.protection.outlook.com", "microsoft365"},
        {"example-com.o-v1.mx.microsoft", "microsoft365"},
        {"mail.protection.outlook.com.", "microsoft365"},
        {"xmail.protection.outlook.com", "microsoft"},
        {"MX.Ours.Example", "ours"},
        {"deep.yours.ours.example", "yours"},
        {"x.l.google.com", "google"},
        {"mail.rakuten.co.jp", "none"}, /* the file says who that is */
        {"mx.rakuten.example", "rakuten"},
        {"mx.nifty.com", "ours"}, /* and who this is */
    };
    struct config *c = config_of("providers:\n"
                                 "  ours: {mx: [Ours.Example., nifty.com]}\n"
                                 "  yours: {mx: yours.ours.example}\n"
                                 "  rakuten: {mx: [rakuten.example]}\n");

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_string_equal(name_of(c, cases[i].host), cases[i].provider);
    config_unref(c);
}

/* Each profile is found by each of its own names, which are lower-case and have no final dot; each
 * of its values is of a key, and has an origin of one of the three kinds. */
static void test_shipped(void **state)
{
    struct config *c = config_default();

    (void)state;
    for (size_t i = 0; i < shipped_providers_len; i++) {
        const struct shipped_provider *p = &shipped_providers[i];
        struct str rest = str_of(p->mx);

        assert_true(rest.len > 0);
        assert_ptr_equal(shipped_provider_find(str_of(p->name)), p);
        if (p->warmup != NULL)
            assert_true(config_provider_warms(c, p->warmup));
        while (rest.len != 0) {
            struct str mx = str_take(&rest, ' ');
            char host[128];

            snprintf(host, sizeof(host), "mx1.%.*s", STR_FMT(mx));
            assert_string_equal(name_of(c, host), p->name);
            assert_true(config_host_name_valid(mx));
        }
        for (size_t j = 0; j < SHIPPED_VALUES_MAX && p->values[j].key != NULL; j++) {
            const char *origin = p->values[j].origin;

            assert_non_null(
                config_field_find(&config_destination_schema, str_of(p->values[j].key)));
            assert_true(strncmp(origin, "page: ", 6) == 0 ||
                        strncmp(origin, "practice: ", 10) == 0 ||
                        strncmp(origin, "guess: ", 7) == 0);
            if (origin[0] != 'g') /* a guess has no date */
                assert_non_null(strstr(origin, "20"));
        }
    }
    config_unref(c);
}

/* What "*" says, then the profile, then the file's own value for the provider. */
static void test_values(void **state)
{
    struct config *c =
        config_of("destinations:\n"
                  "  example.com: {sessions_max: 7}\n"
                  "  \"*\": {sessions_max: 30, recipients_max: 60, retry: [1m, 2m]}\n"
                  "providers:\n"
                  "  google: {session_messages_max: 11, retry: {first: 3m}}\n"
                  "  yahoo: {rate: 50/min, timeouts: {dot: 7m}}\n"
                  "  ours: {mx: [ours.example], retry: [9m], total_rate: 2/s}\n");
    const struct config_provider *google = config_provider_find(c, STR("google"));
    const struct config_provider *yahoo = config_provider_find(c, STR("yahoo"));
    const struct config_provider *ours = config_provider_find(c, STR("ours"));
    const struct config_provider *apple = config_provider_find(c, STR("apple"));

    (void)state;
    assert_int_equal(google->dest.sessions_max, 5);
    assert_int_equal(google->dest.session_messages_max, 11);
    assert_int_equal(google->dest.recipients_max, 60);
    assert_int_equal(google->dest.retry_list_len, 0);
    assert_int_equal(google->dest.retry_first_s, 180);
    assert_int_equal(yahoo->dest.sessions_max, 30);
    assert_int_equal(yahoo->dest.rate_messages, 50);
    assert_int_equal(yahoo->dest.rate_period_ms, 60000);
    assert_int_equal(yahoo->dest.dot_timeout_ms, 420000);
    assert_int_equal(yahoo->dest.retry_list_len, 2);
    assert_int_equal(ours->dest.retry_list_len, 1);
    assert_int_equal(ours->dest.retry_list_s[0], 540);
    assert_int_equal(ours->dest.total_rate_messages, 2);
    assert_int_equal(apple->dest.sessions_max, 30);
    assert_ptr_equal(config_destination_at(c, STR("gmail.com"), STR("mx.l.google.com"), google),
                     &google->dest);
    assert_string_equal(
        config_destination_at(c, STR("example.com"), STR("mx.l.google.com"), google)->pattern,
        "example.com");
    assert_string_equal(config_destination_at(c, STR("a.example"), STR("mx"), NULL)->pattern, "*");
    config_unref(c);
}

static void test_origins(void **state)
{
    static const struct {
        const char *provider, *domain, *key, *origin;
    } cases[] = {
        {NULL, "example.com", "rate", "test.yaml:2 (destinations['example.com'].rate)"},
        {NULL, "example.com", "sessions_max", "test.yaml:4 (destinations['*'].sessions_max)"},
        {NULL, "example.com", "idle", "default"},
        {NULL, "other.example", "sessions_max", "test.yaml:4 (destinations['*'].sessions_max)"},
        {NULL, "other.example", "rate", "default"},
        {"google", "gmail.com", "rate", "test.yaml:7 (providers['google'].rate)"},
        {"google", "gmail.com", "session_messages_max",
         "profile google (practice: KumoMTA's shaping.toml, copy of November 2026)"},
        {"google", "gmail.com", "sessions_max",
         "profile google (practice: KumoMTA's shaping.toml, copy of November 2026)"},
        {"apple", "icloud.com", "sessions_max", "test.yaml:4 (destinations['*'].sessions_max)"},
        {"apple", "icloud.com", "rate", "default"},
        {"google", "example.com", "rate", "test.yaml:2 (destinations['example.com'].rate)"},
    };
    struct config *c = config_of("destinations:\n"
                                 "  example.com: {rate: 1/s}\n"
                                 "  \"*\":\n"
                                 "    sessions_max: 30\n"
                                 "providers:\n"
                                 "  google:\n"
                                 "    rate: 10/s\n");
    struct buf got = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct config_provider *p =
            cases[i].provider == NULL ? NULL : config_provider_find(c, str_of(cases[i].provider));

        buf_clear(&got);
        config_origin_put(c, config_destination_at(c, str_of(cases[i].domain), STR(""), p),
                          cases[i].key, &got);
        buf_putc(&got, 0);
        assert_string_equal((const char *)got.data, cases[i].origin);
    }
    buf_done(&got);
    config_unref(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hosts), cmocka_unit_test(test_shipped),
                                       cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_origins)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
