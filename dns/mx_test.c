#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dns/route.h"

#define A60 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff"

static void test_site_names(void **state)
{
    static const struct {
        const char *names[4];
        const char *site;
    } rows[] = {
        {{"mx.example.com"}, "mx.example.com"},
        {{"mx1.example.com", "mx2.example.com"}, "(mx1|mx2).example.com"},
        {{"mx2.example.com", "mx1.example.com"}, "(mx2|mx1).example.com"},
        {{"aspmx.l.google.com", "alt1.aspmx.l.google.com", "alt2.aspmx.l.google.com"},
         "(aspmx|alt1.aspmx|alt2.aspmx).l.google.com"},
        {{"example.com", "mx.example.com"}, "(example|mx.example).com"},
        {{"mx.example.com", "example.com"}, "(mx.example|example).com"},
        {{"a.example.com", "b.example.net"}, "(a.example.com|b.example.net)"},
        {{"xmx.example.com", "mx.example.com"}, "(xmx|mx).example.com"},
        {{"mx.example.com", "xmx.example.com"}, "(mx|xmx).example.com"},
        {{"mx.ample.com", "mx.example.com"}, "(mx.ample|mx.example).com"},
        {{"com", "mx.example.com"}, "(com|mx.example.com)"},
        {{"mx.example.com", "com"}, "(mx.example.com|com)"},
        {{"a", "b"}, "(a|b)"},
        /* Too long: the first ones, the number of others, a hash of all. */
        {{A60 ".a", A60 ".b", A60 ".c", A60 ".d"},
         "(" A60 ".a|" A60 ".b|+2-12345678901234567890123456789012)"},
        {{"mail-exchanger-1." A60 "." A60 "." A60, "mail-exchanger-2." A60 "." A60 "." A60},
         "(+2-12345678901234567890123456789012)"},
    };
    char site[DNS_SITE_NAME_MAX + 1];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const char *plus;
        size_t len = 0, same;

        while (len < 4 && rows[i].names[len] != NULL)
            len++;
        site_name_make(site, rows[i].names, len);
        plus = strchr(rows[i].site, '+');
        same = plus == NULL ? sizeof(site) : (size_t)(plus - rows[i].site) + 3;
        if (strncmp(site, rows[i].site, same) != 0 || strlen(site) != strlen(rows[i].site))
            fail_msg("%s, expected %s", site, rows[i].site);
    }
}

/* The hash tells sets apart whose shown names are the same, and is the same everywhere. */
static void test_site_hash(void **state)
{
    const char *names[2][3] = {{A60 ".a", A60 ".b", A60 ".c"}, {A60 ".a", A60 ".b", A60 ".x"}};
    char site[2][DNS_SITE_NAME_MAX + 1];

    (void)state;
    names[0][2] = A60 A60 ".c";
    names[1][2] = A60 A60 ".x";
    site_name_make(site[0], names[0], 3);
    site_name_make(site[1], names[1], 3);
    assert_string_not_equal(site[0], site[1]);
    assert_string_equal(strchr(site[0], '+'), "+1-2dddc6f9a866c7314fb6eeddb2777f53)");
}

struct choice {
    const char *records; /* "10 a.test, 20 b.test" */
    enum dns_status status;
    const char *hosts; /* in order */
    const char *site;
};

static size_t put_records(struct dns_record *out, char *text)
{
    size_t len = 0;
    char *save = NULL;

    for (char *part = strtok_r(text, ",", &save); part != NULL; part = strtok_r(NULL, ",", &save)) {
        char *space;

        part += part[0] == ' ';
        space = strchr(part, ' ');
        out[len].mx.preference = (uint16_t)atoi(part);
        out[len++].mx.exchanger = space + 1;
    }
    return len;
}

static void test_choose(void **state)
{
    static const struct choice rows[] = {
        {"10 a.test", DNS_OK, "a.test ", "a.test"},
        {"65535 c.test, 0 a.test, 256 b.test", DNS_OK, "a.test b.test c.test ", "(a|b|c).test"},
        {"10 a.test, 20 b.test, 20 our.test, 30 c.test", DNS_OK, "a.test ", "a.test"},
        {"10 our.test, 20 b.test", DNS_NO_HOST, "", ""},
        {"20 our.test, 10 our.test, 15 b.test", DNS_NO_HOST, "", ""},
        {"0 ", DNS_NULL_MX, "", ""},
        {"0 , 0 ", DNS_NULL_MX, "", ""},
        {"0 , 10 a.test", DNS_OK, "a.test ", "a.test"},
        {"0 , 10 192.0.2.1", DNS_NO_HOST, "", ""},
        {"10 192.0.2.1", DNS_NO_HOST, "", ""},
        {"10 a.test, 10 a.test, 5 a.test", DNS_OK, "a.test ", "a.test"},
        {"10 a?b.test, 20 [192.0.2.1], 30 a b.test, 40 -.test", DNS_OK, "-.test ", "-.test"},
    };
    struct dns_record records[8];
    struct rng rng;
    struct mx_list list;

    (void)state;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[256], hosts[256] = "";
        size_t len;

        snprintf(text, sizeof(text), "%s", rows[i].records);
        len = put_records(records, text);
        mx_choose(&list, records, len, "our.test", &rng);
        for (size_t h = 0; h < list.hosts_len; h++) {
            strcat(hosts, list.hosts[h].name);
            strcat(hosts, " ");
        }
        if (list.status != rows[i].status || strcmp(hosts, rows[i].hosts) != 0 ||
            strcmp(list.site_name, rows[i].site) != 0)
            fail_msg("%s: %d %s %s", rows[i].records, list.status, hosts, list.site_name);
        assert_int_equal(list.error == NULL, list.status == DNS_OK);
    }
    mx_choose(&list, records, 0, NULL, &rng);
    assert_int_equal(list.status, DNS_NO_HOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_site_names),
        cmocka_unit_test(test_site_hash),
        cmocka_unit_test(test_choose),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
