/* What sessions to an exchanger are held to, and which session does for another. */
#include "deliver/secure.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "deliver/delivery.h"
#include "dns/dns.h"

#define RIGHT STR("\3\1\1abcdefghijklmnopqrstuvwxyz012345")
#define OTHER STR("\3\1\1ABCDEFGHIJKLMNOPQRSTUVWXYZ012345")

static struct dns_tlsa *tlsa_of(struct str first, struct str second)
{
    struct dns_tlsa *tlsa = calloc(1, sizeof(*tlsa) + 2 * sizeof(struct str));

    assert_non_null(tlsa);
    tlsa->base = (char *)(uintptr_t) "mx.example";
    tlsa->records[tlsa->records_len++] = first;
    if (second.len > 0)
        tlsa->records[tlsa->records_len++] = second;
    return tlsa;
}

static struct exchanger mx(struct dns_tlsa *tlsa)
{
    return (struct exchanger){.addr.sa.sa_family = AF_INET, .host = "mx.example", .tlsa = tlsa};
}

/* An idle session to the exchanger of a site, for another site of the same kind whose exchanger has
 * other records, or some now. */
static void test_suits(void **state)
{
    struct dns_tlsa *none = NULL, *right = tlsa_of(RIGHT, STR("")),
                    *again = tlsa_of(RIGHT, STR("")), *both = tlsa_of(RIGHT, OTHER),
                    *turned = tlsa_of(OTHER, RIGHT), *other = tlsa_of(OTHER, STR("")),
                    *failed = tlsa_of(RIGHT, STR(""));
    const struct {
        struct dns_tlsa *had, *has;
        bool suits;
    } rows[] = {{none, none, true},   {none, right, false},   {right, none, false},
                {right, again, true}, {right, other, false},  {right, both, false},
                {both, turned, true}, {right, failed, false}, {none, failed, false}};
    struct config_destination dest = {.tls = (char *)(uintptr_t) "dane"};
    struct site site = {.dest = &dest, .dane = true}, its_site = site;
    struct delivery *d = calloc(1, sizeof(*d));

    (void)state;
    failed->error = (char *)(uintptr_t) "the resolver answered SERVFAIL";
    failed->records_len = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct exchanger to = mx(rows[i].has);

        d->site = &its_site;
        d->dial.exchanger = mx(rows[i].had);
        snprintf(d->dial.peer_name, sizeof(d->dial.peer_name), "mx.example");
        d->secure.policy = secure_policy(&its_site, &d->dial.exchanger);
        assert_int_equal(d->secure.policy, rows[i].had == NULL ? CONFIG_TLS_MAY : CONFIG_TLS_DANE);
        if (secure_suits(d, &site, &to) != rows[i].suits)
            fail_msg("row %zu", i);
        to.host = "another.example";
        assert_false(secure_suits(d, &site, &to));
    }
    free(d);
    free(right);
    free(again);
    free(both);
    free(turned);
    free(other);
    free(failed);
}

static void test_policy(void **state)
{
    static const struct {
        const char *tls;
        bool dane;
        struct str record;
        enum config_tls policy;
    } rows[] = {
        {"none", false, {NULL, 0}, CONFIG_TLS_NONE},
        {"verify", false, {NULL, 0}, CONFIG_TLS_VERIFY},
        {"dane", true, {NULL, 0}, CONFIG_TLS_MAY},
        {"dane", true, {"\3\1\1abcdefghijklmnopqrstuvwxyz012345", 35}, CONFIG_TLS_DANE},
        {"dane", false, {"\3\1\1abcdefghijklmnopqrstuvwxyz012345", 35}, CONFIG_TLS_MAY},
        {"dane+mta-sts", true, {"\0\1\1abcdefghijklmnopqrstuvwxyz012345", 35}, CONFIG_TLS_DANE},
        {"mta-sts", false, {NULL, 0}, CONFIG_TLS_MAY},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct config_destination dest = {.tls = (char *)(uintptr_t)rows[i].tls};
        struct site site = {.dest = &dest, .dane = rows[i].dane};
        struct dns_tlsa *tlsa = rows[i].record.len == 0 ? NULL : tlsa_of(rows[i].record, STR(""));
        struct exchanger to = mx(tlsa);

        if (secure_policy(&site, &to) != rows[i].policy)
            fail_msg("row %zu", i);
        to.addr.sa.sa_family = AF_UNIX;
        assert_int_equal(secure_policy(&site, &to), CONFIG_TLS_NONE);
        free(tlsa);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suits),
        cmocka_unit_test(test_policy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
