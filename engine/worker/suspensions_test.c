/* Suspensions: the table, the record, and what a start finds. */
#include "worker/suspensions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>

#include "config/config.h"
#include "queue/testkit.h"

static struct suspension make(enum suspension_scope scope, const char *name, int64_t until_ms)
{
    struct suspension one = {
        .scope = scope, .since_ms = INT64_C(1700000000001), .until_ms = until_ms};

    snprintf(one.name, sizeof(one.name), "%s", name);
    strcpy(one.reason, "complaints");
    strcpy(one.who, "hanako");
    return one;
}

static void assert_same(const struct suspension *a, const struct suspension *b)
{
    assert_int_equal(a->scope, b->scope);
    assert_int_equal(a->since_ms, b->since_ms);
    assert_int_equal(a->until_ms, b->until_ms);
    assert_string_equal(a->name, b->name);
    assert_string_equal(a->reason, b->reason);
    assert_string_equal(a->who, b->who);
    assert_memory_equal(&a->cap, &b->cap, sizeof(a->cap));
}

static uint32_t held_by(struct suspensions *s, const char *domain, const char *campaign,
                        const char *tenant, const char *site)
{
    struct str names[SUSPENSION_SCOPES] = {[SUSPENSION_DOMAIN] = str_of(domain),
                                           [SUSPENSION_CAMPAIGN] = str_of(campaign),
                                           [SUSPENSION_TENANT] = str_of(tenant),
                                           [SUSPENSION_SITE] = str_of(site),
                                           [SUSPENSION_SOURCE] = str_of(site),
                                           [SUSPENSION_SOURCE_SITE] = str_of(site),
                                           [SUSPENSION_CAMPAIGN_SITE] = str_of(campaign),
                                           [SUSPENSION_CAMPAIGN_TENANT] = str_of(campaign),
                                           [SUSPENSION_TENANT_SITE] = str_of(tenant),
                                           [SUSPENSION_SOURCE_CAP] = str_of(site),
                                           [SUSPENSION_SOURCE_RECOVERY] = str_of(site),
                                           [SUSPENSION_NETBLOCK_SITE] = str_of(site),
                                           [SUSPENSION_SIGNER_SITE] = str_of(site),
                                           [SUSPENSION_ENVELOPE_SITE] = str_of(site),
                                           [SUSPENSION_CAMPAIGN_CAP] = str_of(site),
                                           [SUSPENSION_TENANT_CAP] = str_of(site),
                                           [SUSPENSION_SIGNER_CAP] = str_of(site),
                                           [SUSPENSION_ENVELOPE_CAP] = str_of(site),
                                           [SUSPENSION_SIGNER_RECOVERY] = str_of(site),
                                           [SUSPENSION_ENVELOPE_RECOVERY] = str_of(site)};

    return suspensions_of(s, names);
}

struct place {
    char *dir;
    struct kit_states at;
    struct suspensions table;
};

static void place_open(struct place *p)
{
    memset(&p->table, 0, sizeof(p->table));
    kit_states_open(&p->at, p->dir);
    assert_int_equal(suspensions_open(&p->table, p->at.queue), 0);
}

static void place_close(struct place *p)
{
    suspensions_done(&p->table);
    kit_states_close(&p->at);
}

static void store(struct place *p, struct str key, struct str value, bool remove)
{
    kit_state_store(&p->at, 0, (struct queue_state){.key = key, .value = value, .remove = remove});
}

static void store_one(struct place *p, const struct suspension *one, bool remove)
{
    uint8_t key[SUSPENSION_KEY_MAX];
    struct buf value = {0};
    size_t len = suspension_key(key, one->scope, str_of(one->name));

    suspension_encode(&value, one);
    store(p, (struct str){(char *)key, len}, buf_str(&value), remove);
    buf_done(&value);
}

/* --- the table --- */

static void test_each_scope(void **state)
{
    struct place p = {.dir = kit_dir()};

    (void)state;
    place_open(&p);
    assert_int_equal(held_by(&p.table, "x", "x", "x", "x"), 0);
    for (enum suspension_scope scope = SUSPENSION_DOMAIN; scope < SUSPENSION_SCOPES; scope++) {
        struct suspension one = make(scope, "x", 0), found;

        if (suspension_scope_name(scope) == NULL)
            continue; /* of a number that is kept free */

        assert_int_equal(suspension_scope_of(str_of(suspension_scope_name(scope))),
                         suspension_is_stored(scope) ? scope : 0);
        assert_int_equal(suspensions_put(&p.table, &one), 0);
        assert_int_equal(suspensions_count(&p.table), 1);
        assert_int_equal(held_by(&p.table, "x", "x", "x", "x"), 1u << scope);
        assert_int_equal(held_by(&p.table, "y", "xx", "", ""), 0);
        one.until_ms = 7; /* the same anew */
        assert_int_equal(suspensions_put(&p.table, &one), 0);
        assert_int_equal(suspensions_count(&p.table), 1);
        assert_int_equal(suspensions_stored(&p.table),
                         suspension_is_stored(scope) && !suspension_is_cap(scope));
        assert_int_equal(suspensions_caps(&p.table), suspension_is_cap(scope));
        assert_int_equal(suspensions_of_messages(&p.table), suspension_is_of_messages(scope));
        assert_true(suspensions_find(&p.table, scope, STR("x"), &found));
        assert_same(&found, &one);
        assert_true(suspensions_remove(&p.table, scope, STR("x")));
        assert_false(suspensions_remove(&p.table, scope, STR("x")));
        assert_int_equal(suspensions_stored(&p.table), 0);
        assert_int_equal(suspensions_caps(&p.table), 0);
        assert_int_equal(suspensions_of_messages(&p.table), 0);
        assert_int_equal(held_by(&p.table, "x", "x", "x", "x"), 0);
    }
    assert_int_equal(suspension_scope_of(STR("queue")), 0);
    assert_null(suspension_scope_name(0));
    assert_null(suspension_scope_name(SUSPENSION_SCOPES));
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

static void test_ends(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct suspension one = make(SUSPENSION_DOMAIN, "never", 0), out;
    int64_t next_ms;

    (void)state;
    place_open(&p);
    assert_int_equal(suspensions_put(&p.table, &one), 0);
    assert_false(suspensions_ended(&p.table, 1000, &out, &next_ms));
    assert_int_equal(next_ms, INT64_MAX);
    one = make(SUSPENSION_DOMAIN, "late", 3000);
    one.since_ms = 500;
    assert_int_equal(suspensions_put(&p.table, &one), 0);
    one = make(SUSPENSION_TENANT, "soon", 2000);
    one.since_ms = 500;
    assert_int_equal(suspensions_put(&p.table, &one), 0);
    assert_false(suspensions_ended(&p.table, 1999, &out, &next_ms));
    assert_int_equal(next_ms, 2000);
    assert_true(suspensions_ended(&p.table, 2000, &out, &next_ms));
    assert_same(&out, &one);
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

/* A pause of two seconds is one of two seconds more where the clock is set back by a day, and the
 * start of a campaign is when it is. */
static void test_clock_set_back(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct suspension one = make(SUSPENSION_SITE, "mx", INT64_C(86402000)), out;
    int64_t next_ms;

    (void)state;
    place_open(&p);
    one.since_ms = 86400000;
    assert_int_equal(suspensions_put(&p.table, &one), 0);
    one = make(SUSPENSION_CAMPAIGN_TENANT, "spring", 86403000);
    one.since_ms = 86400000;
    assert_int_equal(suspensions_put(&p.table, &one), 0);
    assert_false(suspensions_ended(&p.table, 86400000 - 500, &out, &next_ms));
    assert_int_equal(next_ms, 86402000); /* so little is no jump */
    assert_false(suspensions_ended(&p.table, 1000, &out, &next_ms));
    assert_int_equal(next_ms, 3000);
    assert_false(suspensions_ended(&p.table, 86401000, &out, &next_ms)); /* and right again */
    assert_int_equal(next_ms, 86402000);
    assert_false(suspensions_ended(&p.table, 1000, &out, &next_ms));
    assert_int_equal(next_ms, 3000);
    assert_true(suspensions_ended(&p.table, 3000, &out, &next_ms));
    assert_int_equal(out.scope, SUSPENSION_SITE);
    assert_true(suspensions_remove(&p.table, SUSPENSION_SITE, STR("mx")));
    assert_false(suspensions_ended(&p.table, 3000, &out, &next_ms));
    assert_int_equal(next_ms, 86403000);
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

/* Who looks for a cap gets it with the number of the table's state, which grows. */
static void test_caps(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct suspension cap = make(SUSPENSION_SOURCE_CAP, "a@site", 9), hold, found;
    uint32_t before, version;

    (void)state;
    place_open(&p);
    hold = make(SUSPENSION_SOURCE_SITE, "a@site", 9);
    assert_int_equal(suspensions_put(&p.table, &hold), 0);
    assert_int_equal(suspensions_caps_version(&p.table), 0); /* no cap */
    assert_false(
        suspensions_find_cap(&p.table, SUSPENSION_SOURCE_CAP, STR("a@site"), &found, &before));
    cap.cap = (struct suspension_cap){.rate_messages = 60, .rate_period_ms = 60000, .step_ms = 1};
    assert_int_equal(suspensions_put(&p.table, &cap), 0);
    assert_true(
        suspensions_find_cap(&p.table, SUSPENSION_SOURCE_CAP, STR("a@site"), &found, &version));
    assert_same(&found, &cap);
    assert_true(version > before);
    assert_true(suspensions_remove(&p.table, SUSPENSION_SOURCE_CAP, STR("a@site")));
    assert_true(suspensions_caps_version(&p.table) > version);
    assert_false(
        suspensions_find_cap(&p.table, SUSPENSION_SOURCE_CAP, STR("a@site"), &found, &version));
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

/* A worker's copy knows names and sites as they come and go, and asks the table of nothing else. */
static void test_names_of_messages(void **state)
{
    static const enum suspension_scope kinds[] = {SUSPENSION_SIGNER_SITE, SUSPENSION_SIGNER_CAP,
                                                  SUSPENSION_ENVELOPE_RECOVERY};
    struct place p = {.dir = kit_dir()};
    struct suspended_names copy = {0};
    struct suspension other = make(SUSPENSION_SOURCE_SITE, "s@other", 9);

    (void)state;
    place_open(&p);
    assert_false(suspended_names_at(&copy, &p.table, STR("google")));
    assert_int_equal(suspensions_put(&p.table, &other), 0);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct suspension one = make(kinds[i], "a.example@google", 9);

        one.cap.step_ms = 1;
        assert_int_equal(suspensions_put(&p.table, &one), 0);
        assert_true(suspended_names_at(&copy, &p.table, STR("google")));
        assert_false(suspended_names_at(&copy, &p.table, STR("other")));
        for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
            assert_int_equal(
                suspended_names_have(&copy, &p.table, kinds[k], STR("a.example@google")), k == i);
        assert_false(suspended_names_have(&copy, &p.table, kinds[i], STR("b.example@google")));
        assert_true(suspensions_remove(&p.table, kinds[i], STR("a.example@google")));
        assert_false(suspended_names_at(&copy, &p.table, STR("google")));
    }
    suspended_names_done(&copy);
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

static void test_netblocks(void **state)
{
    struct config_address four = {.len = sizeof(struct sockaddr_in)}, none = {0};
    struct config_address six = {.len = sizeof(struct sockaddr_in6)};
    struct sockaddr_in *in = (void *)&four.addr;
    struct sockaddr_in6 *in6 = (void *)&six.addr;
    char name[SUSPENSION_NAME_MAX + 1];

    (void)state;
    in->sin_family = AF_INET;
    in6->sin6_family = AF_INET6;
    assert_int_equal(inet_pton(AF_INET, "192.0.2.77", &in->sin_addr), 1);
    assert_int_equal(inet_pton(AF_INET6, "2001:db8:1:2:3:4:5:6", &in6->sin6_addr), 1);
    suspension_netblock(name, &four, STR("google"));
    assert_string_equal(name, "192.0.2.0/24@google");
    suspension_netblock(name, &six, STR("google"));
    assert_string_equal(name, "2001:db8:1:2::/64@google");
    suspension_netblock(name, &none, STR("google"));
    assert_string_equal(name, "");
}

/* --- the record --- */

static void test_cap_records(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct suspension one = make(SUSPENSION_SOURCE_CAP, "a@site", 9), out;
    uint8_t bytes[SUSPENSION_KEY_MAX];
    struct buf value = {0};
    struct str key;
    size_t without;

    (void)state;
    one.cap = (struct suspension_cap){.rate_messages = UINT64_C(1) << 40,
                                      .rate_period_ms = 3600000,
                                      .sessions = 2,
                                      .session_messages = 20,
                                      .step_ms = 600000};
    key = (struct str){(char *)bytes, suspension_key(bytes, one.scope, str_of(one.name))};
    suspension_encode(&value, &one);
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), 0);
    assert_same(&out, &one);
    place_open(&p);
    store_one(&p, &one, false);
    store(&p, STR("\2\11b@site"), STR("\1not all of it"),
          false); /* damaged: nothing is left of it */
    place_close(&p);
    place_open(&p);
    assert_int_equal(suspensions_count(&p.table), 1);
    assert_true(suspensions_find(&p.table, one.scope, STR("a@site"), &out));
    assert_same(&out, &one);
    place_close(&p);
    for (size_t len = 0; len < value.len; len++)
        assert_int_equal(suspension_decode(key, (struct str){(char *)value.data, len}, &out),
                         -EBADMSG);
    buf_putc(&value, 0); /* a later build knows more */
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), 0);
    without = value.len - 1 - 4;
    memset(value.data + without, 0, 4); /* it would double for ever */
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), -EBADMSG);
    buf_done(&value);
    kit_remove(p.dir);
    free(p.dir);
}

static void test_start(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct suspension a = make(SUSPENSION_DOMAIN, "a.example", 0),
                      b = make(SUSPENSION_SITE, "mx.b.example", INT64_MAX), found;

    (void)state;
    place_open(&p);
    store_one(&p, &a, false);
    store_one(&p, &b, false);
    store(&p, STR("\2\2spring"), STR("\1not all of it"), false); /* damaged: it holds */
    store(&p, STR("\2\77spring"), STR("\1not all of it"), false);
    place_close(&p);
    place_open(&p);
    assert_int_equal(suspensions_count(&p.table), 3);
    assert_true(suspensions_find(&p.table, SUSPENSION_DOMAIN, STR("a.example"), &found));
    assert_same(&found, &a);
    assert_true(suspensions_find(&p.table, SUSPENSION_SITE, STR("mx.b.example"), &found));
    assert_same(&found, &b);
    assert_int_equal(held_by(&p.table, "", "spring", "", ""), 1u << SUSPENSION_CAMPAIGN);
    store_one(&p, &a, true);
    place_close(&p);
    place_open(&p);
    assert_int_equal(suspensions_count(&p.table), 2);
    assert_false(suspensions_find(&p.table, SUSPENSION_DOMAIN, STR("a.example"), &found));
    place_close(&p);
    kit_remove(p.dir);
    free(p.dir);
}

static void test_broken_records(void **state)
{
    struct suspension one = make(SUSPENSION_TENANT, "acme", -1), out;
    uint8_t bytes[SUSPENSION_KEY_MAX];
    struct buf value = {0};
    struct str key;

    (void)state;
    memset(one.name, 'n', SUSPENSION_NAME_MAX);
    memset(one.reason, 'r', SUSPENSION_REASON_MAX);
    memset(one.who, 'w', SUSPENSION_WHO_MAX);
    key = (struct str){(char *)bytes, suspension_key(bytes, one.scope, str_of(one.name))};
    suspension_encode(&value, &one);
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), 0);
    assert_same(&out, &one);
    for (size_t len = 0; len < value.len; len++)
        assert_int_equal(suspension_decode(key, (struct str){(char *)value.data, len}, &out),
                         -EBADMSG);
    buf_putc(&value, 0); /* a later build knows more */
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), 0);
    assert_same(&out, &one);
    value.len--;
    value.data[0] = 2;
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), -EPROTO);
    value.data[0] = 1;
    value.data[17] = SUSPENSION_REASON_MAX + 1;
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), -EBADMSG);
    value.data[17] = SUSPENSION_REASON_MAX;
    value.data[18] = 0; /* a NUL would end it */
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), -EBADMSG);
    value.data[18] = 'r';
    for (size_t len = 0; len < 3; len++)
        assert_int_equal(suspension_decode((struct str){key.ptr, len}, buf_str(&value), &out),
                         -EBADMSG);
    bytes[1] = SUSPENSION_SCOPES;
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), -EBADMSG);
    bytes[1] = 0;
    assert_int_equal(suspension_decode(key, buf_str(&value), &out), -EBADMSG);
    buf_done(&value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_scope),        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_clock_set_back),    cmocka_unit_test(test_start),
        cmocka_unit_test(test_broken_records),    cmocka_unit_test(test_caps),
        cmocka_unit_test(test_names_of_messages), cmocka_unit_test(test_netblocks),
        cmocka_unit_test(test_cap_records)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
