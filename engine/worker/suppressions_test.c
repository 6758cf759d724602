/* The suppression list: the one form of an address, records, the filter, what holds which mail. */
#include "worker/suppressions.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "queue/testkit.h"

static void test_addresses(void **state)
{
    static const struct {
        const char *given, *kept; /* NULL: it is no address */
    } rows[] = {{"Taro.Yamada@Example.COM", "taro.yamada@example.com"},
                {"taro@example.com.", "taro@example.com"},
                {"\"taro\"@example.com", "taro@example.com"},
                {"\"Taro Yamada\"@example.com", "\"taro yamada\"@example.com"},
                {"taro+news@example.com", "taro+news@example.com"},
                {"a..b@docomo.example", "\"a..b\"@docomo.example"},
                {"\"a..b\"@docomo.example", "\"a..b\"@docomo.example"},
                {"taro@例え.jp", "taro@xn--r8jz45g.jp"},
                {"taro@XN--R8JZ45G.jp", "taro@xn--r8jz45g.jp"},
                {"Ärger@例え.jp", "ärger@xn--r8jz45g.jp"},
                {"A\xcc\x88rger@xn--r8jz45g.jp", "ärger@xn--r8jz45g.jp"}, /* decomposed */
                {"太郎@example.jp", "太郎@example.jp"},
                {"taro@[192.0.2.1]", "taro@[192.0.2.1]"},
                {"postmaster", NULL},
                {"taro", NULL},
                {"@example.com", NULL},
                {"taro@", NULL},
                {"taro@exa mple.com", NULL},
                {"ta\xffro@example.com", NULL},
                {"", NULL}};
    char out[SUPPRESSION_ADDRESS_MAX + 1];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int err = suppression_address(str_of(rows[i].given), out);

        if (err == 0 && rows[i].kept != NULL)
            assert_string_equal(out, rows[i].kept);
        assert_int_equal(err, rows[i].kept == NULL ? -EINVAL : 0);
    }
}

static struct suppression suppression_of(const char *tenant, const char *address,
                                         enum suppression_reason reason)
{
    struct suppression one = {
        .reason = reason, .at_ms = 1796000000123, .campaign = "spring", .who = "one click"};

    snprintf(one.tenant, sizeof(one.tenant), "%s", tenant);
    assert_int_equal(suppression_address(str_of(address), one.address), 0);
    return one;
}

/* What a later build writes behind is passed by; what is cut is damaged, but for reasons that a
 * later build has. */
static void test_record(void **state)
{
    struct suppression one = suppression_of("acme", "taro@x.example", SUPPRESSION_COMPLAINT), read;
    uint8_t key_bytes[STATE_KEY_MAX];
    struct str key = {(char *)key_bytes,
                      suppression_key(key_bytes, str_of(one.tenant), str_of(one.address))};
    struct buf value = {0};
    size_t whole, before_answer;

    (void)state;
    snprintf(one.answer, sizeof(one.answer), "550 5.1.1 no such user");
    suppression_encode(&value, &one);
    whole = value.len;
    before_answer = whole - 1 - strlen(one.answer);
    buf_puts(&value, "more");
    for (size_t n = 0; n <= value.len; n++) {
        int err = suppression_decode(key, (struct str){(char *)value.data, n}, &read);

        assert_int_equal(err, n < whole && n != before_answer ? -EBADMSG : 0);
        if (n == before_answer) /* of an earlier build */
            assert_string_equal(read.answer, "");
        else if (err == 0)
            assert_memory_equal(&read, &one, sizeof(one));
    }
    value.data[1] = 99;
    assert_int_equal(suppression_decode(key, buf_str(&value), &read), 0);
    assert_int_equal(read.reason, SUPPRESSION_MANUAL);
    value.data[0] = 2;
    assert_int_equal(suppression_decode(key, buf_str(&value), &read), -EPROTO);
    value.data[0] = 1;
    for (size_t n = 0; n < 3 + strlen("acme") + 1; n++)
        assert_int_equal(suppression_decode((struct str){key.ptr, n}, buf_str(&value), &read),
                         -EBADMSG);
    buf_done(&value);
}

/* --- in the store --- */

struct place {
    char *dir;
    struct kit_states at;
    struct suppressions list;
};

static void place_open(struct place *p)
{
    kit_states_open(&p->at, p->dir);
    p->list = (struct suppressions){0};
    suppressions_open(&p->list, p->at.queue);
    assert_int_equal(suppressions_load(&p->list), 0);
}

static void place_close(struct place *p)
{
    suppressions_done(&p->list);
    kit_states_close(&p->at);
}

static void store(struct place *p, struct str key, struct str value, bool remove)
{
    kit_state_store(&p->at, 0, (struct queue_state){.key = key, .value = value, .remove = remove});
}

static void change(struct place *p, const struct suppression *one, bool remove)
{
    uint8_t key[STATE_KEY_MAX];
    size_t len = suppression_key(key, str_of(one->tenant), str_of(one->address));
    struct buf value = {0};

    suppression_encode(&value, one);
    suppressions_note(&p->list, one->address, false);
    store(p, (struct str){(char *)key, len}, buf_str(&value), remove);
    buf_done(&value);
}

static void put(struct place *p, const char *tenant, const char *address,
                enum suppression_reason reason)
{
    struct suppression one = suppression_of(tenant, address, reason);

    change(p, &one, false);
}

static int hold(struct place *p, const char *tenant, const char *address, bool campaign)
{
    struct suppression why;

    return suppressions_hold(&p->list, str_of(tenant), str_of(address), campaign, &why);
}

static void check_held(struct place *p)
{
    static const struct {
        const char *tenant, *address;
        bool campaign;
        int held;
    } rows[] = {{"acme", "All@x.example", true, 1},   {"acme", "all@x.example", false, 0},
                {"", "all@x.example", true, 1},       {"acme", "one@x.example", true, 1},
                {"shop", "one@x.example", true, 0},   {"", "one@x.example", true, 0},
                {"acme", "bad@x.example", false, 1},  {"shop", "bad@x.example", false, 1},
                {"acme", "both@x.example", false, 1}, {"shop", "both@x.example", false, 0},
                {"shop", "both@x.example", true, 1},  {"acme", "other@x.example", true, 0},
                {"acme", "no address", true, 0}};

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (hold(p, rows[i].tenant, rows[i].address, rows[i].campaign) != rows[i].held)
            fail_msg("row %zu", i);
        if (rows[i].held)
            assert_true(suppressions_may_have(&p->list, str_of(rows[i].address)));
    }
}

/* A start finds what is stored; who unsubscribed gets no mail of campaigns, all others none. */
static void test_holds(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct suppression gone = suppression_of("", "gone@x.example", SUPPRESSION_BOUNCE), why;
    uint8_t key[STATE_KEY_MAX];

    (void)state;
    place_open(&p);
    assert_false(suppressions_may_have(&p.list, STR("all@x.example")));
    put(&p, "", "all@x.example", SUPPRESSION_UNSUBSCRIBED);
    put(&p, "acme", "one@x.example", SUPPRESSION_UNSUBSCRIBED);
    put(&p, "", "bad@x.example", SUPPRESSION_BOUNCE);
    put(&p, "", "both@x.example", SUPPRESSION_UNSUBSCRIBED);
    put(&p, "acme", "both@x.example", SUPPRESSION_COMPLAINT);
    change(&p, &gone, false);
    assert_int_equal(hold(&p, "", "gone@x.example", false), 1);
    change(&p, &gone, true);
    assert_int_equal(hold(&p, "", "gone@x.example", false), 0);
    check_held(&p);
    place_close(&p);
    place_open(&p);
    check_held(&p);
    assert_false(suppressions_may_have(&p.list, STR("gone@x.example")));
    /* A damaged record holds all: the safe side. */
    store(&p, (struct str){(char *)key, suppression_key(key, STR(""), STR("all@x.example"))},
          STR("\1"), false);
    assert_int_equal(hold(&p, "acme", "all@x.example", false), 1);
    assert_int_equal(suppressions_get(&p.list, STR(""), "all@x.example", &why), 0);
    assert_string_equal(why.who, "its record is damaged");
    place_close(&p);
    free(p.dir);
}

struct seen {
    struct buf text;
};

static void see(void *arg, const struct suppression *one)
{
    struct seen *s = arg;

    buf_printf(&s->text, "%s/%s ", one->tenant, one->address);
}

static void check_seen(struct place *p, struct str tenant, size_t each, const char *want)
{
    struct suppression last;
    struct seen s = {0};
    ptrdiff_t n = suppressions_visit(&p->list, tenant, NULL, each, see, &s, &last);

    while (n == (ptrdiff_t)each) {
        struct suppression from = last;

        n = suppressions_visit(&p->list, tenant, &from, each, see, &s, &last);
    }
    assert_true(n >= 0);
    buf_putc(&s.text, '\0');
    assert_string_equal((char *)s.text.data, want);
    buf_done(&s.text);
}

/* A tenant's listing that goes on behind another tenant's has nothing of that. */
static void check_stays(struct place *p)
{
    static const char *const others[] = {"", "acme", "acmes", "none"};

    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        struct suppression after = {.address = "a"}, last;
        struct seen s = {0};

        snprintf(after.tenant, sizeof(after.tenant), "%s", others[i]);
        assert_int_equal(suppressions_visit(&p->list, STR("shop"), &after, 9, see, &s, &last), 1);
        buf_putc(&s.text, '\0');
        assert_string_equal((char *)s.text.data, "shop/c@x.example ");
        buf_done(&s.text);
    }
}

static void test_visits(void **state)
{
    struct place p = {.dir = kit_dir()};
    struct seen s = {0};

    (void)state;
    place_open(&p);
    put(&p, "acme", "b@x.example", SUPPRESSION_MANUAL);
    put(&p, "acme", "a@x.example", SUPPRESSION_MANUAL);
    put(&p, "", "太郎@x.example", SUPPRESSION_MANUAL);
    put(&p, "", "a@x.example", SUPPRESSION_MANUAL);
    put(&p, "shop", "c@x.example", SUPPRESSION_MANUAL);
    put(&p, "acmes", "a@x.example", SUPPRESSION_MANUAL);
    for (size_t each = 1; each < 8; each++) {
        check_seen(&p, (struct str){NULL, 0}, each,
                   "/a@x.example /太郎@x.example acme/a@x.example acme/b@x.example "
                   "shop/c@x.example acmes/a@x.example ");
        check_seen(&p, STR("acme"), each, "acme/a@x.example acme/b@x.example ");
        check_seen(&p, STR(""), each, "/a@x.example /太郎@x.example ");
        check_seen(&p, STR("none"), each, "");
    }
    check_stays(&p);
    assert_int_equal(suppressions_visit_address(&p.list, "a@x.example", see, &s), 0);
    buf_putc(&s.text, '\0');
    assert_string_equal((char *)s.text.data, "/a@x.example acme/a@x.example acmes/a@x.example ");
    buf_done(&s.text);
    place_close(&p);
    free(p.dir);
}

/* What the engine found out, in a shard. */
static void find(struct place *p, uint32_t shard, const char *tenant, const char *address)
{
    struct suppression one = suppression_of(tenant, address, SUPPRESSION_BOUNCE);
    uint8_t key[STATE_KEY_MAX];
    size_t len = suppression_found_key(key, str_of(one.tenant), str_of(one.address));
    struct buf value = {0};

    snprintf(one.answer, sizeof(one.answer), "550 5.1.1 in shard %u", shard);
    suppression_encode(&value, &one);
    suppressions_note(&p->list, one.address, true);
    kit_state_store(&p->at, shard,
                    (struct queue_state){.key = {(char *)key, len}, .value = buf_str(&value)});
    buf_done(&value);
}

static void check_found(struct place *p)
{
    struct suppression why;
    struct seen s = {0};

    assert_int_equal(hold(p, "acme", "a@x.example", false), 1); /* the stricter */
    assert_int_equal(suppressions_get(&p->list, STR("acme"), "a@x.example", &why), 0);
    assert_string_equal(why.answer, "550 5.1.1 in shard 1");
    assert_int_equal(hold(p, "acme", "b@x.example", false), 1);
    assert_int_equal(hold(p, "shop", "b@x.example", true), 0);
    assert_int_equal(hold(p, "acme", "c@x.example", false), 1);
    assert_int_equal(suppressions_get(&p->list, STR("acme"), "c@x.example", &why), 0);
    assert_int_equal(why.reason, SUPPRESSION_COMPLAINT);
    assert_int_equal(hold(p, "shop", "d@x.example", false), 1);
    assert_int_equal(hold(p, "acme", "e@x.example", false), 0);
    for (size_t each = 1; each < 8; each++) {
        check_seen(
            p, (struct str){NULL, 0}, each,
            "/d@x.example acme/a@x.example acme/b@x.example acme/c@x.example shop/a@x.example ");
        check_seen(p, STR("acme"), each, "acme/a@x.example acme/b@x.example acme/c@x.example ");
    }
    assert_int_equal(suppressions_visit_address(&p->list, "a@x.example", see, &s), 0);
    buf_putc(&s.text, '\0');
    assert_string_equal((char *)s.text.data, "acme/a@x.example shop/a@x.example ");
    buf_done(&s.text);
}

/* What the engine found out is in whichever shard, and counts beside what was asked for. Before the
 * filter has been read all is looked up. */
static void test_found(void **state)
{
    struct place p = {.dir = kit_dir()};

    (void)state;
    place_open(&p);
    put(&p, "acme", "a@x.example", SUPPRESSION_UNSUBSCRIBED);
    put(&p, "acme", "c@x.example", SUPPRESSION_COMPLAINT);
    find(&p, 1, "acme", "a@x.example");
    find(&p, 0, "acme", "b@x.example");
    find(&p, 1, "acme", "b@x.example");
    find(&p, 0, "acme", "c@x.example");
    find(&p, 1, "", "d@x.example");
    find(&p, 0, "shop", "a@x.example");
    check_found(&p);
    place_close(&p);
    kit_states_open(&p.at, p.dir);
    p.list = (struct suppressions){0};
    suppressions_open(&p.list, p.at.queue);
    assert_true(suppressions_may_have(&p.list, STR("e@x.example")));
    assert_false(suppressions_may_have(&p.list, STR("no address")));
    check_found(&p);
    suppressions_stop(&p.list);
    assert_int_equal(suppressions_load(&p.list), -ECANCELED);
    assert_true(suppressions_may_have(&p.list, STR("e@x.example")));
    place_close(&p);
    place_open(&p);
    assert_false(suppressions_may_have(&p.list, STR("e@x.example")));
    assert_true(suppressions_len(&p.list) == 8);
    check_found(&p);
    place_close(&p);
    free(p.dir);
}

/* Of half a million addresses the filter forgets none, and takes few others for them. */
static void test_filter(void **state)
{
    enum { MANY = 500000, OTHERS = 100000 };
    struct suppressions list = {0};
    unsigned wrong = 0;
    char text[64];

    (void)state;
    for (int i = 0; i < MANY; i++) {
        snprintf(text, sizeof(text), "user%d@x%d.example", i, i % 100);
        suppressions_note(&list, text, false);
    }
    for (int i = 0; i < MANY; i += 7) {
        snprintf(text, sizeof(text), "user%d@x%d.example", i, i % 100);
        assert_true(suppressions_may_have(&list, str_of(text)));
    }
    for (int i = 0; i < OTHERS; i++) {
        snprintf(text, sizeof(text), "other%d@x%d.example", i, i % 100);
        wrong += suppressions_may_have(&list, str_of(text));
    }
    assert_true(wrong > 0 && wrong < OTHERS * 3 / 100);
    suppressions_done(&list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses), cmocka_unit_test(test_record),
        cmocka_unit_test(test_holds),     cmocka_unit_test(test_visits),
        cmocka_unit_test(test_found),     cmocka_unit_test(test_filter)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
