/* The resolver over an upstream and a clock that the test holds. */
#include "dns/dns.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "dns/dns_upstream.h"
#include "dns/route.h"
#include "io/io.h"

/* ---- the clock (io.h) ---- */

struct io {
    uint64_t now_ns;
    struct wheel wheel;
};

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ns;
}

struct wheel *io_wheel(struct io *io)
{
    return &io->wheel;
}

/* ---- the upstream: zones as a table ---- */

struct zone_row {
    const char *name;
    enum dns_type type;
    uint32_t ttl_s;
    const char *data; /* "10 mx1.a.test, 20 mx2.a.test"; addresses; "SERVFAIL"; "NXDOMAIN"; "" */
};

static const struct zone_row zone[] = {
    {"plain.test", DNS_TYPE_MX, 3600, "20 mx2.plain.test, 10 mx1.plain.test"},
    {"mx1.plain.test", DNS_TYPE_A, 3600, "192.0.2.1"},
    {"mx1.plain.test", DNS_TYPE_AAAA, 3600, "2001:db8::1"},
    {"mx2.plain.test", DNS_TYPE_A, 3600, "192.0.2.2"},
    {"twin.test", DNS_TYPE_MX, 3600, "10 mx1.plain.test, 20 mx2.plain.test"},
    {"implicit.test", DNS_TYPE_A, 3600, "192.0.2.3"},
    {"v6only.test", DNS_TYPE_AAAA, 3600, "2001:db8::3"},
    {"null.test", DNS_TYPE_MX, 3600, "0 "},
    {"null.test", DNS_TYPE_A, 3600, "192.0.2.4"},
    {"nullplus.test", DNS_TYPE_MX, 3600, "0 , 10 mx2.plain.test"},
    {"empty.test", DNS_TYPE_MX, 3600, ""},
    {"servfail.test", DNS_TYPE_MX, 0, "SERVFAIL"},
    {"afail.test", DNS_TYPE_MX, 3600, "10 hostfail.test"},
    {"hostfail.test", DNS_TYPE_A, 0, "SERVFAIL"},
    {"hostfail.test", DNS_TYPE_AAAA, 0, "SERVFAIL"},
    {"implicitfail.test", DNS_TYPE_MX, 3600, ""},
    {"implicitfail.test", DNS_TYPE_A, 0, "SERVFAIL"},
    {"partial.test", DNS_TYPE_MX, 3600, "10 hostfail.test, 20 mx2.plain.test"},
    {"mixed.test", DNS_TYPE_MX, 3600, "10 hostfail.test, 20 gone.test"},
    {"mixed2.test", DNS_TYPE_MX, 3600, "10 gone.test, 20 hostfail.test"},
    {"wide.test", DNS_TYPE_MX, 3600, "10 wide1.test, 20 wide2.test, 30 wide3.test"},
    {"dangling.test", DNS_TYPE_MX, 3600, "10 gone.test, 20 empty.test"},
    {"somedangling.test", DNS_TYPE_MX, 3600, "10 gone.test, 20 mx2.plain.test"},
    {"halfhost.test", DNS_TYPE_A, 3600, "192.0.2.5"},
    {"halfhost.test", DNS_TYPE_AAAA, 0, "SERVFAIL"},
    {"ipmx.test", DNS_TYPE_MX, 3600, "10 192.0.2.9, 20 mx2.plain.test"},
    {"onlyipmx.test", DNS_TYPE_MX, 3600, "10 192.0.2.9"},
    {"evilmx.test", DNS_TYPE_MX, 3600, "5 a?b.test, 5 -\x7f.test, 10 mx2.plain.test"},
    {"doublemx.test", DNS_TYPE_MX, 3600, "30 mx2.plain.test, 10 mx2.plain.test"},
    {"badaddr.test", DNS_TYPE_A, 3600, "0.0.0.0, 224.0.0.1, 255.255.255.255, 192.0.2.6"},
    {"badaddr.test", DNS_TYPE_AAAA, 3600, "::, ff02::1, ::ffff:192.0.2.1"},
    {"onlybad.test", DNS_TYPE_A, 3600, "0.0.0.0"},
    {"loop.test", DNS_TYPE_A, 3600, "127.0.0.1"},
    {"backup.test", DNS_TYPE_MX, 3600, "10 mx2.plain.test, 20 our.test, 20 x.test, 30 y.test"},
    {"ours.test", DNS_TYPE_MX, 3600, "10 our.test, 20 mx2.plain.test"},
    {"our.test", DNS_TYPE_A, 3600, "192.0.2.7"},
    {"xn--mller-kva.test", DNS_TYPE_A, 3600, "192.0.2.8"},
    {"equal.test", DNS_TYPE_MX, 3600,
     "10 e1.test, 10 e2.test, 10 e3.test, 10 e4.test, 5 mx2.plain.test"},
    {"e1.test", DNS_TYPE_A, 3600, "192.0.2.11"},
    {"e2.test", DNS_TYPE_A, 3600, "192.0.2.12"},
    {"e3.test", DNS_TYPE_A, 3600, "192.0.2.13"},
    {"e4.test", DNS_TYPE_A, 3600, "192.0.2.14"},
    {"both.test", DNS_TYPE_A, 3600, "192.0.2.21, 192.0.2.22, 192.0.2.23"},
    {"both.test", DNS_TYPE_AAAA, 3600, "2001:db8::21, 2001:db8::22"},
    {"short.test", DNS_TYPE_A, 60, "192.0.2.31"},
    {"renew.test", DNS_TYPE_MX, 3600, "10 short.test"},
    {"renew2.test", DNS_TYPE_MX, 3600, "20 short.test"},
    {"zero.test", DNS_TYPE_A, 0, "192.0.2.32"},
    {"forever.test", DNS_TYPE_A, INT32_MAX, "192.0.2.33"},
    /* Names with "safe" are validated. */
    {"safe.test", DNS_TYPE_MX, 3600, "10 mx.safe.test"},
    {"mx.safe.test", DNS_TYPE_A, 3600, "192.0.2.41"},
    {"_25._tcp.mx.safe.test", DNS_TYPE_TLSA, 600, "030101aa, 030001bbcc, , 03"},
    {"open.test", DNS_TYPE_MX, 3600, "10 mx.safe.test"},
    {"half.safe.test", DNS_TYPE_MX, 3600, "10 mx.open.test, 20 mx.safe.test"},
    {"mx.open.test", DNS_TYPE_A, 3600, "192.0.2.42"},
    {"_25._tcp.mx.open.test", DNS_TYPE_TLSA, 3600, "030101aa"},
    {"own.safe.test", DNS_TYPE_A, 3600, "192.0.2.43"},
    {"_25._tcp.own.safe.test", DNS_TYPE_TLSA, 3600, "030101dd"},
    {"none.safe.test", DNS_TYPE_A, 3600, "192.0.2.44"},
    {"fail.safe.test", DNS_TYPE_A, 3600, "192.0.2.45"},
    {"_25._tcp.fail.safe.test", DNS_TYPE_TLSA, 0, "SERVFAIL"},
    {"alias1.safe.test", DNS_TYPE_CNAME, 3600, "mx.safe.test"},
    {"alias2.safe.test", DNS_TYPE_CNAME, 3600, "none.safe.test"},
    {"_25._tcp.alias2.safe.test", DNS_TYPE_TLSA, 3600, "030101ee"},
    {"alias3.safe.test", DNS_TYPE_CNAME, 3600, "mx.open.test"},
    {"_25._tcp.alias3.safe.test", DNS_TYPE_TLSA, 3600, "030101ff"},
    {"alias4.open.test", DNS_TYPE_CNAME, 3600, "mx.open.test"},
    {"alias5.safe.test", DNS_TYPE_CNAME, 3600, "fail.safe.test"},
};

static struct {
    struct dns_upstream_query *queries[4096];
    const char *names[4096];
    enum dns_type types[4096];
    size_t len, asked;
    bool down;        /* everything SERVFAILs */
    bool generic;     /* every name not in the table: one A record and nothing else */
    bool hold;        /* names that begin with "slow" get no answer */
    const char *gone; /* this name does not exist */
    const char *mute; /* of this name the CNAME is not told */
    const char *many; /* this name has ever so many MX records */
    bool bloated;     /* each name below bloated.test has, too */
} upstream;

int dns_upstream_open(struct dns_upstream **out, struct io *io, const struct dns_options *options)
{
    (void)io;
    (void)options;
    memset(&upstream, 0, sizeof(upstream));
    *out = (struct dns_upstream *)&upstream;
    return 0;
}

void dns_upstream_close(struct dns_upstream *up)
{
    (void)up;
    upstream.len = 0;
}

void dns_upstream_query(struct dns_upstream *up, struct dns_upstream_query *query, const char *name,
                        enum dns_type type)
{
    (void)up;
    assert_true(upstream.len < ARRAY_LEN(upstream.queries));
    upstream.queries[upstream.len] = query;
    upstream.names[upstream.len] = name;
    upstream.types[upstream.len++] = type;
    upstream.asked++;
}

/* Hex digits in their own place. */
static struct str bytes_of(char *text)
{
    size_t len = 0;
    unsigned byte;

    for (; sscanf(text + 2 * len, "%2x", &byte) == 1; len++)
        text[len] = (char)byte;
    return (struct str){text, len};
}

static void put_record(struct dns_record *record, enum dns_type type, char *text)
{
    char *space;

    while (*text == ' ')
        text++;
    if (type == DNS_TYPE_TLSA) {
        record->tlsa = bytes_of(text);
    } else if (type == DNS_TYPE_MX) {
        space = strchr(text, ' ');
        record->mx.preference = (uint16_t)atoi(text);
        record->mx.exchanger = space == NULL ? "" : space + 1;
    } else {
        assert_int_equal(inet_pton(type == DNS_TYPE_A ? AF_INET : AF_INET6, text, (void *)record),
                         1);
    }
}

static void many_records(struct dns_record *records, struct dns_answer *answer)
{
    static char names[DNS_RECORDS_MAX][32];

    for (size_t i = 0; i < 500; i++) {
        snprintf(names[i], sizeof(names[i]), "mx%zu.many.test", i);
        records[i].mx.exchanger = names[i];
        records[i].mx.preference = (uint16_t)(500 - i / 10);
    }
    *answer = (struct dns_answer){.ttl_s = 3600, .records = records, .records_len = 500};
}

static const char *alias_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(zone); i++)
        if (zone[i].type == DNS_TYPE_CNAME && strcmp(zone[i].name, name) == 0)
            return zone[i].data;
    return NULL;
}

static void answer_query(struct dns_upstream_query *query, const char *name, enum dns_type type)
{
    struct dns_record records[DNS_RECORDS_MAX] = {0};
    struct dns_answer answer = {.status = DNS_ANSWER_NO_DOMAIN, .ttl_s = 7200, .records = records};
    char text[1024];
    char *save = NULL;
    const char *alias = alias_of(name);

    answer.secure = strstr(name, "safe") != NULL;
    if (type != DNS_TYPE_CNAME && alias != NULL) {
        answer.secure &= strstr(alias, "safe") != NULL;
        answer.canonical = name = alias;
    }
    for (size_t i = 0; i < ARRAY_LEN(zone); i++) {
        if (strcmp(zone[i].name, name) != 0)
            continue;
        answer.status = DNS_ANSWER_NO_DATA;
        if (zone[i].type != type || zone[i].data[0] == '\0')
            continue;
        snprintf(text, sizeof(text), "%s", zone[i].data);
        answer.ttl_s = zone[i].ttl_s;
        if (strcmp(text, "SERVFAIL") == 0) {
            answer.status = DNS_ANSWER_FAILED;
            answer.error = "resolver answered SERVFAIL";
            answer.secure = false;
            break;
        }
        if (type == DNS_TYPE_CNAME) {
            answer.status = DNS_ANSWER_RECORDS;
            answer.records_len = 1;
            break;
        }
        answer.status = DNS_ANSWER_RECORDS;
        for (char *part = strtok_r(text, ",", &save); part != NULL;
             part = strtok_r(NULL, ",", &save))
            put_record(&records[answer.records_len++], type, part);
        break;
    }
    if (answer.status == DNS_ANSWER_NO_DOMAIN && upstream.generic) {
        answer.status = type == DNS_TYPE_A ? DNS_ANSWER_RECORDS : DNS_ANSWER_NO_DATA;
        answer.records_len = type == DNS_TYPE_A;
        records[0].a.s_addr = htonl(0xc0000263);
    }
    if ((upstream.many != NULL && strcmp(upstream.many, name) == 0) ||
        (upstream.bloated && type == DNS_TYPE_MX && strstr(name, ".bloated.") != NULL))
        many_records(records, &answer);
    if (strncmp(name, "wide", 4) == 0 && type != DNS_TYPE_MX) {
        memset(records, 0x20, sizeof(records));
        answer.status = DNS_ANSWER_RECORDS;
        answer.records_len = 100;
    }
    if (type == DNS_TYPE_CNAME && upstream.mute != NULL && strcmp(upstream.mute, name) == 0)
        answer = (struct dns_answer){.status = DNS_ANSWER_FAILED, .error = "no answer"};
    if (upstream.gone != NULL && strcmp(upstream.gone, name) == 0)
        answer = (struct dns_answer){.status = DNS_ANSWER_NO_DOMAIN};
    if (upstream.down)
        answer = (struct dns_answer){.status = DNS_ANSWER_FAILED, .error = "resolver is down"};
    query->on_answer(query, &answer);
}

/* ---- the harness ---- */

struct fixture {
    struct io io;
    struct dns *dns;
};

struct asked {
    struct dns_query query;
    struct dns_route *route;
    unsigned calls;
    bool in_call;
};

static bool in_lookup;

static void on_route(struct dns_query *query, struct dns_route *route)
{
    struct asked *asked = CONTAINER_OF(query, struct asked, query);

    assert_false(in_lookup);
    asked->calls++;
    asked->route = dns_route_ref(route);
}

static void setup_exactly(struct fixture *f, const struct dns_options *options)
{
    f->io = (struct io){.now_ns = 1000000000};
    wheel_init(&f->io.wheel, 1000);
    assert_int_equal(dns_open(&f->dns, &f->io, options), 0);
}

static void setup(struct fixture *f, const struct dns_options *options)
{
    struct dns_options filled = options == NULL ? (struct dns_options){0} : *options;

    filled.negative_ttl_max_s = 300;
    setup_exactly(f, &filled);
}

static void turn(struct fixture *f)
{
    size_t len = upstream.len;
    struct dns_upstream_query *queries[ARRAY_LEN(upstream.queries)];
    const char *names[ARRAY_LEN(upstream.queries)];
    enum dns_type types[ARRAY_LEN(upstream.queries)];

    memcpy(queries, upstream.queries, sizeof(queries));
    memcpy(names, upstream.names, sizeof(names));
    memcpy(types, upstream.types, sizeof(types));
    upstream.len = 0;
    for (size_t i = 0; i < len; i++) {
        if (upstream.hold && strncmp(names[i], "slow", 4) == 0) {
            dns_upstream_query(NULL, queries[i], names[i], types[i]);
            upstream.asked--;
        } else {
            answer_query(queries[i], names[i], types[i]);
        }
    }
    wheel_advance(&f->io.wheel, f->io.now_ns / 1000000);
}

static void turns(struct fixture *f)
{
    do
        turn(f);
    while (upstream.len > 0 || f->io.wheel.armed > 0);
}

static void pass_s(struct fixture *f, uint64_t s)
{
    f->io.now_ns += s * 1000000000;
    wheel_advance(&f->io.wheel, f->io.now_ns / 1000000);
}

static void ask(struct fixture *f, struct asked *asked, const char *domain, bool host_only)
{
    *asked = (struct asked){.query.on_route = on_route};
    in_lookup = true;
    dns_lookup(f->dns, &asked->query, str_of(domain), host_only);
    in_lookup = false;
}

/* The caller's reference. */
static struct dns_route *resolve(struct fixture *f, const char *domain, bool host_only)
{
    struct asked asked;

    ask(f, &asked, domain, host_only);
    assert_int_equal(asked.calls, 0);
    turns(f);
    assert_int_equal(asked.calls, 1);
    return asked.route;
}

static enum dns_status resolve_status(struct fixture *f, const char *domain)
{
    struct dns_route *route = resolve(f, domain, false);
    enum dns_status status = route->status;

    dns_route_unref(route);
    return status;
}

static void teardown(struct fixture *f)
{
    struct dns_counters counters;

    dns_counters(f->dns, &counters);
    assert_int_equal(counters.in_flight, 0);
    dns_close(f->dns);
    assert_int_equal(f->io.wheel.armed, 0);
}

/* "host/10=1.2.3.4,::1 host2/20=..." */
static void render(struct buf *out, const struct dns_route *route)
{
    for (uint16_t host = 0; host < route->hosts_len; host++) {
        char separator = '=';

        buf_printf(out, "%s%s/%u", host > 0 ? " " : "", route->hosts[host].name,
                   route->hosts[host].preference);
        for (uint16_t i = 0; i < route->addresses_len; i++) {
            const struct dns_address *a = &route->addresses[i];
            char text[INET6_ADDRSTRLEN];
            bool v6 = a->sa.sa_family == AF_INET6;

            if (a->host != host)
                continue;
            inet_ntop(a->sa.sa_family,
                      v6 ? (const void *)&a->in6.sin6_addr : (const void *)&a->in.sin_addr, text,
                      sizeof(text));
            assert_int_equal(ntohs(v6 ? a->in6.sin6_port : a->in.sin_port), 25);
            buf_printf(out, "%c%s", separator, text);
            separator = ',';
        }
    }
    buf_putc(out, '\0');
}

/* ---- tests ---- */

struct route_case {
    const char *domain;
    bool host_only;
    enum dns_status status;
    const char *site;
    const char *hosts;
    const char *error; /* part of it */
};

static const struct route_case cases[] = {
    {"plain.test", false, DNS_OK, "(mx1|mx2).plain.test",
     "mx1.plain.test/10=2001:db8::1,192.0.2.1 mx2.plain.test/20=192.0.2.2", NULL},
    {"PLAIN.Test.", false, DNS_OK, "(mx1|mx2).plain.test",
     "mx1.plain.test/10=2001:db8::1,192.0.2.1 mx2.plain.test/20=192.0.2.2", NULL},
    {"twin.test", false, DNS_OK, "(mx1|mx2).plain.test",
     "mx1.plain.test/10=2001:db8::1,192.0.2.1 mx2.plain.test/20=192.0.2.2", NULL},
    {"implicit.test", false, DNS_OK, "implicit.test", "implicit.test/0=192.0.2.3", NULL},
    {"v6only.test", false, DNS_OK, "v6only.test", "v6only.test/0=2001:db8::3", NULL},
    {"plain.test", true, DNS_NO_HOST, "plain.test", "", "no address"},
    {"mx1.plain.test", true, DNS_OK, "mx1.plain.test", "mx1.plain.test/0=2001:db8::1,192.0.2.1",
     NULL},
    {"null.test", false, DNS_NULL_MX, "null.test", "", "null MX"},
    {"nullplus.test", false, DNS_OK, "mx2.plain.test", "mx2.plain.test/10=192.0.2.2", NULL},
    {"gone.test", false, DNS_NO_DOMAIN, "gone.test", "", "no such domain"},
    {"gone.test", true, DNS_NO_DOMAIN, "gone.test", "", "no such domain"},
    {"empty.test", false, DNS_NO_HOST, "empty.test", "", "no address"},
    {"servfail.test", false, DNS_TEMPORARY, "servfail.test", "", "MX lookup for servfail.test"},
    {"afail.test", false, DNS_TEMPORARY, "afail.test", "", "address lookup for hostfail.test"},
    {"implicitfail.test", false, DNS_TEMPORARY, "implicitfail.test", "", "SERVFAIL"},
    {"partial.test", false, DNS_OK, "(hostfail|mx2.plain).test",
     "hostfail.test/10 mx2.plain.test/20=192.0.2.2", NULL},
    {"mixed.test", false, DNS_TEMPORARY, "mixed.test", "", "hostfail.test"},
    {"mixed2.test", false, DNS_TEMPORARY, "mixed2.test", "", "hostfail.test"},
    {"dangling.test", false, DNS_NO_HOST, "dangling.test", "", "gone.test"},
    {"somedangling.test", false, DNS_OK, "(gone|mx2.plain).test", "mx2.plain.test/20=192.0.2.2",
     NULL},
    {"halfhost.test", true, DNS_OK, "halfhost.test", "halfhost.test/0=192.0.2.5", NULL},
    {"ipmx.test", false, DNS_OK, "mx2.plain.test", "mx2.plain.test/20=192.0.2.2", NULL},
    {"onlyipmx.test", false, DNS_NO_HOST, "onlyipmx.test", "", "no MX record names a host"},
    {"evilmx.test", false, DNS_OK, "mx2.plain.test", "mx2.plain.test/10=192.0.2.2", NULL},
    {"doublemx.test", false, DNS_OK, "mx2.plain.test", "mx2.plain.test/10=192.0.2.2", NULL},
    {"badaddr.test", false, DNS_OK, "badaddr.test", "badaddr.test/0=192.0.2.6", NULL},
    {"onlybad.test", false, DNS_NO_HOST, "onlybad.test", "", "no address"},
    {"loop.test", false, DNS_OK, "loop.test", "loop.test/0=127.0.0.1", NULL},
    {"backup.test", false, DNS_OK, "mx2.plain.test", "mx2.plain.test/10=192.0.2.2", NULL},
    {"ours.test", false, DNS_NO_HOST, "ours.test", "", "loop"},
    {"our.test", false, DNS_NO_HOST, "our.test", "", "loop"},
    {"our.test", true, DNS_OK, "our.test", "our.test/0=192.0.2.7", NULL},
    {"m\xc3\xbcller.test", false, DNS_OK, "xn--mller-kva.test", "xn--mller-kva.test/0=192.0.2.8",
     NULL},
    {"M\xc3\x9cLLER\xe3\x80\x82test", false, DNS_OK, "xn--mller-kva.test",
     "xn--mller-kva.test/0=192.0.2.8", NULL},
    {"[192.0.2.77]", false, DNS_OK, "[192.0.2.77]", "[192.0.2.77]/0=192.0.2.77", NULL},
    {"[ipv6:2001:DB8::77]", false, DNS_OK, "[IPv6:2001:db8::77]",
     "[IPv6:2001:db8::77]/0=2001:db8::77", NULL},
    {"192.0.2.77", true, DNS_OK, "[192.0.2.77]", "[192.0.2.77]/0=192.0.2.77", NULL},
    {"::1", true, DNS_OK, "[IPv6:::1]", "[IPv6:::1]/0=::1", NULL},
    {"[::1]", true, DNS_OK, "[IPv6:::1]", "[IPv6:::1]/0=::1", NULL},
    {"[0.0.0.0]", false, DNS_NO_HOST, "[0.0.0.0]", "", "no mail"},
    {"192.0.2.77", false, DNS_BAD_NAME, "none", "", "not a domain name"},
    {"[::1]", false, DNS_BAD_NAME, "none", "", "not a domain name"},
    {"[x]", false, DNS_BAD_NAME, "none", "", "not a domain name"},
    {"[", false, DNS_BAD_NAME, "none", "", "not a domain name"},
    {"", false, DNS_BAD_NAME, "none", "", "not a domain name"},
    {".", false, DNS_BAD_NAME, "none", "", "not a domain name"},
    {"a..test", false, DNS_BAD_NAME, "none", "", "not a domain name"},
    {"a b.test", false, DNS_BAD_NAME, "none", "", "not a domain name"},
    {"a\r\n.test", false, DNS_BAD_NAME, "none", "", "not a domain name"},
    {"\xff\xfe.test", false, DNS_BAD_NAME, "none", "", "not a domain name"},
};

static void test_routes(void **state)
{
    struct fixture f;
    struct buf text = {0};

    (void)state;
    setup(&f, &(struct dns_options){.own_name = "Our.test"});
    /* The second round answers from the cache. */
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        const struct route_case *c = &cases[i % ARRAY_LEN(cases)];
        struct dns_route *route = resolve(&f, c->domain, c->host_only);

        buf_clear(&text);
        render(&text, route);
        if (route->status != c->status || strcmp(route->site_name, c->site) != 0 ||
            strcmp((const char *)text.data, c->hosts) != 0)
            fail_msg("%s: status %d, site %s, hosts %s, error %s", c->domain, route->status,
                     route->site_name, (const char *)text.data,
                     route->error == NULL ? "" : route->error);
        if (c->error == NULL)
            assert_null(route->error);
        else
            assert_non_null(strstr(route->error, c->error));
        assert_int_equal(route->refs > 0, 1);
        dns_route_unref(route);
    }
    buf_done(&text);
    teardown(&f);
}

static void test_long_names(void **state)
{
    char name[400];
    struct fixture f;

    (void)state;
    setup(&f, NULL);
    memset(name, 'a', sizeof(name));
    name[63] = '.';
    memcpy(name + 64, "test", 5);
    assert_int_equal(resolve_status(&f, name), DNS_NO_DOMAIN);
    name[63] = 'a';
    name[64] = '.';
    memcpy(name + 65, "test", 5);
    assert_int_equal(resolve_status(&f, name), DNS_BAD_NAME);
    memset(name, 'a', sizeof(name));
    for (size_t i = 49; i < 253; i += 50)
        name[i] = '.';
    name[253] = '\0';
    assert_int_equal(resolve_status(&f, name), DNS_NO_DOMAIN);
    memcpy(name + 253, "a", 2);
    assert_int_equal(resolve_status(&f, name), DNS_BAD_NAME);
    teardown(&f);
}

static void test_single_flight(void **state)
{
    struct asked asked[8];
    struct fixture f;
    struct dns_counters counters;

    (void)state;
    setup(&f, NULL);
    for (size_t i = 0; i < 6; i++)
        ask(&f, &asked[i], "plain.test", false);
    ask(&f, &asked[6], "twin.test", false);
    ask(&f, &asked[7], "mx2.plain.test", true);
    dns_cancel(f.dns, &asked[3].query);
    dns_cancel(f.dns, &asked[3].query);
    turns(&f);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(asked[i].calls, i == 3 ? 0 : 1);
        dns_route_unref(asked[i].route);
    }
    assert_ptr_equal(asked[0].route, asked[5].route);
    /* Two MX, two hosts with A and AAAA: hosts are shared between domains. */
    assert_int_equal(upstream.asked, 6);
    ask(&f, &asked[0], "plain.test", false);
    ask(&f, &asked[1], "twin.test", false);
    dns_cancel(f.dns, &asked[0].query);
    turns(&f);
    assert_int_equal(asked[0].calls, 0);
    assert_int_equal(asked[1].calls, 1);
    dns_route_unref(asked[1].route);
    assert_int_equal(upstream.asked, 6);
    dns_counters(f.dns, &counters);
    assert_int_equal(counters.lookups, 10);
    assert_int_equal(counters.hits, 2);
    assert_int_equal(counters.entries, 4);
    teardown(&f);
}

static void test_close_pending(void **state)
{
    struct asked asked[3];
    struct fixture f;

    (void)state;
    setup(&f, &(struct dns_options){.in_flight_max = 2});
    ask(&f, &asked[0], "plain.test", false);
    ask(&f, &asked[1], "equal.test", false);
    turn(&f);
    ask(&f, &asked[2], "[192.0.2.1]", false);
    dns_close(f.dns);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(asked[i].calls, 0);
    assert_int_equal(f.io.wheel.armed, 0);
}

static void test_ttl(void **state)
{
    static const struct {
        const char *name;
        bool host_only;
        uint64_t lives_s;
    } ttls[] = {
        {"short.test", true, 60},     {"zero.test", true, 30},      {"forever.test", true, 86400},
        {"gone.test", false, 300},    {"gone.test", true, 300},     {"empty.test", false, 300},
        {"servfail.test", false, 30}, {"partial.test", false, 300}, {"afail.test", false, 30},
        {"halfhost.test", true, 300}, {"plain.test", false, 3600},  {"short.test", false, 60},
        {"forever.test", false, 300}, /* that it has no MX is a negative answer */
    };
    struct fixture f;

    (void)state;
    setup(&f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(ttls); i++) {
        struct str name = str_of(ttls[i].name);
        bool host_only = ttls[i].host_only;
        struct dns_route *route;
        size_t asked;

        dns_flush(f.dns);
        dns_route_unref(resolve(&f, name.ptr, host_only));
        asked = upstream.asked;
        pass_s(&f, ttls[i].lives_s - 1);
        route = dns_cached(f.dns, name, host_only);
        if (route == NULL)
            fail_msg("%s expired early", name.ptr);
        dns_route_unref(route);
        dns_route_unref(resolve(&f, name.ptr, host_only));
        assert_int_equal(upstream.asked, asked);
        pass_s(&f, 1);
        assert_null(dns_cached(f.dns, name, host_only));
        dns_route_unref(resolve(&f, name.ptr, host_only));
        assert_true(upstream.asked > asked);
    }
    teardown(&f);
}

static void test_stale(void **state)
{
    struct fixture f;
    struct dns_counters counters;

    (void)state;
    setup(&f, NULL);
    assert_int_equal(resolve_status(&f, "plain.test"), DNS_OK);
    assert_int_equal(resolve_status(&f, "gone.test"), DNS_NO_DOMAIN);
    upstream.down = true;
    pass_s(&f, 3600);
    assert_int_equal(resolve_status(&f, "plain.test"), DNS_OK);
    /* Only what was good is served on. */
    assert_int_equal(resolve_status(&f, "gone.test"), DNS_TEMPORARY);
    dns_counters(f.dns, &counters);
    assert_int_equal(counters.stale, 1);
    /* For half a minute nobody asks again, for an hour it serves, then no longer. */
    size_t asked = upstream.asked;
    assert_int_equal(resolve_status(&f, "plain.test"), DNS_OK);
    assert_int_equal(upstream.asked, asked);
    pass_s(&f, 3599);
    assert_int_equal(resolve_status(&f, "plain.test"), DNS_OK);
    assert_true(upstream.asked > asked);
    pass_s(&f, 30);
    assert_int_equal(resolve_status(&f, "plain.test"), DNS_TEMPORARY);
    upstream.down = false;
    pass_s(&f, 30);
    assert_int_equal(resolve_status(&f, "plain.test"), DNS_OK);
    teardown(&f);
}

static void test_eviction(void **state)
{
    struct fixture f;
    struct dns_counters counters;
    char name[32];

    (void)state;
    setup(&f, &(struct dns_options){.cache_entries_max = 100});
    upstream.generic = true;
    resolve_status(&f, "plain.test");
    for (int i = 0; i < 1000; i++) {
        struct dns_route *route = dns_cached(f.dns, STR("plain.test"), false);

        /* Used again and again, it stays. */
        assert_non_null(route);
        dns_route_unref(route);
        snprintf(name, sizeof(name), "d%d.evict.test", i);
        assert_int_equal(resolve_status(&f, name), DNS_OK);
    }
    dns_counters(f.dns, &counters);
    assert_int_equal(counters.entries, 100);
    /* A domain and its host each, plain.test and two hosts. */
    assert_int_equal(counters.evictions, 2003 - 100);
    assert_null(dns_cached(f.dns, STR("d0.evict.test"), false));
    teardown(&f);
}

/* A zone that names as much as it can: the cache holds so many bytes, not so many entries. */
static void test_eviction_by_bytes(void **state)
{
    enum { DOMAINS = 1000, ENTRIES_MAX = 1000 };
    struct fixture f;
    struct dns_counters counters;
    char name[32];

    (void)state;
    setup(&f, &(struct dns_options){.cache_entries_max = ENTRIES_MAX});
    upstream.generic = upstream.bloated = true;
    for (int i = 0; i < DOMAINS; i++) {
        snprintf(name, sizeof(name), "d%d.bloated.test", i);
        assert_int_equal(resolve_status(&f, name), DNS_OK);
    }
    dns_counters(f.dns, &counters);
    assert_true(counters.bytes > ENTRIES_MAX * DNS_ENTRY_BYTES / 2);
    assert_in_range(counters.bytes, 1, ENTRIES_MAX * DNS_ENTRY_BYTES + 16384);
    assert_true(counters.entries < ENTRIES_MAX);
    assert_true(counters.evictions > 0);
    dns_flush(f.dns);
    dns_counters(f.dns, &counters);
    assert_int_equal(counters.bytes, 0);
    teardown(&f);
}

/* negative_ttl_max_s 0: nothing that is not there is remembered. */
static void test_no_negative_caching(void **state)
{
    static const struct {
        const char *name;
        enum dns_status status;
    } rows[] = {
        {"unknown.test", DNS_NO_DOMAIN},
        {"empty.test", DNS_NO_HOST},
        {"servfail.test", DNS_TEMPORARY},
        {"implicit.test", DNS_OK}, /* that it has no MX */
    };
    struct dns_counters counters;
    struct fixture f;

    (void)state;
    setup_exactly(&f, &(struct dns_options){.seed = 1});
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (int time = 0; time < 2; time++) {
            size_t asked = upstream.asked;

            assert_int_equal(resolve_status(&f, rows[i].name), rows[i].status);
            assert_true(upstream.asked > asked);
            assert_null(dns_cached(f.dns, str_of(rows[i].name), false));
            dns_counters(f.dns, &counters); /* what was good may have to serve on */
            assert_int_equal(counters.entries == 0, rows[i].status != DNS_OK);
        }
    }
    teardown(&f);
}

static void test_in_flight_max(void **state)
{
    enum { LOOKUPS = 200 };
    static struct asked asked[LOOKUPS];
    struct fixture f;
    char name[32];

    (void)state;
    setup(&f, &(struct dns_options){.in_flight_max = 7});
    upstream.generic = true;
    for (int i = 0; i < LOOKUPS; i++) {
        snprintf(name, sizeof(name), "d%d.queue.test", i);
        ask(&f, &asked[i], name, false);
    }
    do {
        assert_in_range(upstream.len, 0, 7);
        turn(&f);
    } while (upstream.len > 0 || f.io.wheel.armed > 0);
    for (int i = 0; i < LOOKUPS; i++) {
        assert_int_equal(asked[i].calls, 1);
        assert_int_equal(asked[i].route->status, DNS_OK);
        dns_route_unref(asked[i].route);
    }
    teardown(&f);
}

/* Names whose servers are dead do not keep the others waiting for longer than a second. */
static void test_slow_names(void **state)
{
    enum { SLOW = 100, FAST = 10 };
    static struct asked slow[SLOW], fast[FAST];
    struct fixture f;
    char name[32];

    (void)state;
    setup(&f, &(struct dns_options){.in_flight_max = 7});
    upstream.generic = upstream.hold = true;
    for (int i = 0; i < SLOW; i++) {
        snprintf(name, sizeof(name), "slow%d.test", i);
        ask(&f, &slow[i], name, false);
    }
    for (int i = 0; i < FAST; i++) {
        snprintf(name, sizeof(name), "fast%d.test", i);
        ask(&f, &fast[i], name, false);
    }
    turn(&f);
    assert_int_equal(upstream.len, 7);
    for (int s = 0; s < 15; s++) {
        turn(&f);
        pass_s(&f, 1);
    }
    assert_in_range(upstream.len, SLOW, 7 * 16);
    for (int i = 0; i < FAST; i++) {
        turn(&f);
        turn(&f);
    }
    for (int i = 0; i < FAST; i++) {
        assert_int_equal(fast[i].calls, 1);
        dns_route_unref(fast[i].route);
    }
    for (int i = 0; i < SLOW; i++)
        assert_int_equal(slow[i].calls, 0);
    upstream.hold = false;
    turns(&f);
    for (int i = 0; i < SLOW; i++) {
        assert_int_equal(slow[i].calls, 1);
        dns_route_unref(slow[i].route);
    }
    teardown(&f);
}

/* The number of slow ones has its limit, too. */
static void test_slow_limit(void **state)
{
    enum { SLOW = 100 };
    static struct asked slow[SLOW];
    struct fixture f;
    char name[32];

    (void)state;
    setup(&f, &(struct dns_options){.in_flight_max = 2});
    upstream.generic = upstream.hold = true;
    for (int i = 0; i < SLOW; i++) {
        snprintf(name, sizeof(name), "slow%d.test", i);
        ask(&f, &slow[i], name, false);
    }
    for (int s = 0; s < 100; s++) {
        turn(&f);
        pass_s(&f, 1);
    }
    assert_int_equal(upstream.len, 2 * 16);
    upstream.hold = false;
    turns(&f);
    for (int i = 0; i < SLOW; i++)
        dns_route_unref(slow[i].route);
    teardown(&f);
}

/* While the MX records hold, only addresses are asked for again, and once for all who share them.
 */
static void test_remembered_exchangers(void **state)
{
    struct fixture f;
    struct dns_route *route;
    size_t asked;

    (void)state;
    setup(&f, NULL);
    assert_int_equal(resolve_status(&f, "renew.test"), DNS_OK);
    assert_int_equal(resolve_status(&f, "renew2.test"), DNS_OK);
    asked = upstream.asked;
    assert_int_equal(asked, 4);
    pass_s(&f, 60);
    route = resolve(&f, "renew.test", false);
    assert_int_equal(route->status, DNS_OK);
    assert_string_equal(route->hosts[0].name, "short.test");
    assert_int_equal(route->hosts[0].preference, 10);
    assert_string_equal(route->site_name, "short.test");
    dns_route_unref(route);
    assert_int_equal(resolve_status(&f, "renew2.test"), DNS_OK);
    assert_int_equal(upstream.asked, asked + 2);
    /* When none of them is there any more the MX records are asked for. */
    pass_s(&f, 60);
    upstream.gone = "short.test";
    asked = upstream.asked;
    assert_int_equal(resolve_status(&f, "renew.test"), DNS_NO_HOST);
    assert_int_equal(upstream.asked, asked + 3);
    upstream.gone = NULL;
    dns_flush(f.dns);
    assert_int_equal(resolve_status(&f, "renew.test"), DNS_OK);
    /* They hold no longer than their own TTL. */
    for (int s = 0; s < 3600; s += 60) {
        assert_int_equal(resolve_status(&f, "renew.test"), DNS_OK);
        pass_s(&f, 60);
    }
    asked = upstream.asked;
    assert_int_equal(resolve_status(&f, "renew.test"), DNS_OK);
    assert_int_equal(upstream.asked, asked + 3);
    teardown(&f);
}

/* What is to be forgotten is asked for anew, MX and addresses; while the resolver is of no help the
 * old answer serves on. */
static void test_forget(void **state)
{
    struct fixture f;
    size_t asked;

    (void)state;
    setup(&f, NULL);
    assert_int_equal(resolve_status(&f, "renew.test"), DNS_OK);
    asked = upstream.asked;
    dns_forget(f.dns, STR("Renew.test"), false); /* it was asked for just now */
    assert_int_equal(resolve_status(&f, "renew.test"), DNS_OK);
    assert_int_equal(upstream.asked, asked);
    pass_s(&f, 2);
    dns_forget(f.dns, STR("unknown.test"), false);
    assert_int_equal(resolve_status(&f, "renew.test"), DNS_OK);
    assert_int_equal(upstream.asked, asked);
    dns_forget(f.dns, STR("Renew.test"), false);
    assert_int_equal(resolve_status(&f, "renew.test"), DNS_OK);
    assert_true(upstream.asked >= asked + 3); /* MX, and addresses */
    teardown(&f);
}

static void test_equal_preference(void **state)
{
    unsigned first[5] = {0};
    struct fixture f;

    (void)state;
    setup(&f, &(struct dns_options){.seed = 7});
    for (int i = 0; i < 400; i++) {
        struct dns_route *route = resolve(&f, "equal.test", false);

        assert_string_equal(route->site_name, "(mx2.plain|e1|e2|e3|e4).test");
        assert_string_equal(route->hosts[0].name, "mx2.plain.test");
        first[route->hosts[1].name[1] - '0']++;
        dns_route_unref(route);
        dns_flush(f.dns);
    }
    for (int i = 1; i <= 4; i++)
        assert_in_range(first[i], 60, 140);
    teardown(&f);
}

static void test_interleaved(void **state)
{
    struct fixture f;
    struct dns_route *route;
    bool turned = false;

    (void)state;
    setup(&f, NULL);
    for (int i = 0; i < 20; i++) {
        route = resolve(&f, "both.test", true);
        assert_int_equal(route->addresses_len, 5);
        for (uint16_t a = 0; a < 5; a++)
            assert_int_equal(route->addresses[a].sa.sa_family,
                             a == 0 || a == 2 ? AF_INET6 : AF_INET);
        turned = turned || route->addresses[1].in.sin_addr.s_addr == htonl(0xc0000217);
        dns_route_unref(route);
        dns_flush(f.dns);
    }
    assert_true(turned);
    teardown(&f);
}

static void test_families(void **state)
{
    struct fixture f;
    struct dns_route *route;

    (void)state;
    setup(&f, &(struct dns_options){.no_ipv6 = true});
    route = resolve(&f, "both.test", true);
    assert_int_equal(route->addresses_len, 3);
    dns_route_unref(route);
    assert_int_equal(upstream.asked, 1);
    assert_int_equal(resolve_status(&f, "v6only.test"), DNS_NO_HOST);
    assert_int_equal(resolve_status(&f, "[IPv6:2001:db8::1]"), DNS_NO_HOST);
    teardown(&f);
    setup(&f, &(struct dns_options){.no_ipv4 = true});
    route = resolve(&f, "both.test", true);
    assert_int_equal(route->addresses_len, 2);
    dns_route_unref(route);
    assert_int_equal(resolve_status(&f, "implicit.test"), DNS_NO_HOST);
    teardown(&f);
}

static void test_many_exchangers(void **state)
{
    struct fixture f;
    struct dns_route *route;
    char site[DNS_NAME_MAX + 10];

    (void)state;
    setup(&f, NULL);
    upstream.many = "many.test";
    upstream.generic = true;
    route = resolve(&f, "many.test", false);
    assert_int_equal(route->status, DNS_OK);
    assert_int_equal(route->hosts_len, DNS_HOSTS_MAX);
    assert_int_equal(route->addresses_len, DNS_HOSTS_MAX);
    assert_int_equal(route->hosts[0].preference, 451);
    for (uint16_t i = 1; i < route->hosts_len; i++)
        assert_true(route->hosts[i - 1].preference <= route->hosts[i].preference);
    assert_in_range(strlen(route->site_name), 100, 200);
    assert_non_null(strstr(route->site_name, "(mx490|mx491|"));
    assert_non_null(strstr(route->site_name, ").many.test"));
    snprintf(site, sizeof(site), "%s", route->site_name);
    dns_route_unref(route);
    /* Chance decides which hosts are kept, not what their set is called. */
    dns_flush(f.dns);
    route = resolve(&f, "many.test", false);
    assert_string_equal(route->site_name, site);
    dns_route_unref(route);
    teardown(&f);
}

static void test_handler_asks_again(struct dns_query *query, struct dns_route *route);

struct again {
    struct dns_query query;
    struct fixture *fixture;
    unsigned calls;
};

static void test_handler_asks_again(struct dns_query *query, struct dns_route *route)
{
    struct again *again = CONTAINER_OF(query, struct again, query);

    assert_int_equal(route->status, DNS_OK);
    again->calls++;
    dns_lookup(again->fixture->dns, query, STR("implicit.test"), false);
}

/* A handler that looks up what is cached does not keep the turn from ending. */
static void test_again(void **state)
{
    struct fixture f;
    struct again again = {.query.on_route = test_handler_asks_again, .fixture = &f};

    (void)state;
    setup(&f, NULL);
    assert_int_equal(resolve_status(&f, "implicit.test"), DNS_OK);
    dns_lookup(f.dns, &again.query, STR("implicit.test"), false);
    turn(&f);
    assert_in_range(again.calls, 1, 3);
    unsigned before = again.calls;
    turn(&f);
    assert_true(again.calls > before);
    dns_cancel(f.dns, &again.query);
    dns_close(f.dns);
}

/* Whoever waits for a name hears of it, but no turn is made of a thousand of them. */
static void test_many_wait(void **state)
{
    static struct asked asked[3000];
    struct fixture f;
    unsigned heard = 0, rounds = 0;

    (void)state;
    setup(&f, NULL);
    for (size_t i = 0; i < ARRAY_LEN(asked); i++)
        ask(&f, &asked[i], "implicit.test", false);
    dns_cancel(f.dns, &asked[7].query);
    dns_cancel(f.dns, &asked[2999].query);
    while (heard < ARRAY_LEN(asked) - 2) {
        unsigned before = heard;

        turn(&f);
        heard = 0;
        for (size_t i = 0; i < ARRAY_LEN(asked); i++)
            heard += asked[i].calls;
        assert_in_range(heard - before, 0, 1000 * 2); /* by the answer, and by the timer */
        if (heard == before)
            assert_in_range(++rounds, 1, 10); /* the answers come */
        if (before == 0 && heard > 0)         /* one that is ready, and has not heard */
            dns_cancel(f.dns, &asked[2998].query);
        if (asked[2998].calls == 0 && heard == ARRAY_LEN(asked) - 3)
            break;
    }
    assert_int_equal(asked[7].calls + asked[2998].calls + asked[2999].calls, 0);
    for (size_t i = 0; i < ARRAY_LEN(asked); i++)
        if (asked[i].calls > 0) {
            assert_int_equal(asked[i].calls, 1);
            dns_route_unref(asked[i].route);
        }
    teardown(&f);
}

static void test_bad_options(void **state)
{
    struct fixture f = {0};
    struct dns *dns = NULL;

    (void)state;
    wheel_init(&f.io.wheel, 0);
    assert_int_equal(dns_open(&dns, &f.io, &(struct dns_options){.no_ipv4 = true, .no_ipv6 = true}),
                     -EINVAL);
    assert_int_equal(dns_open(&dns, &f.io, &(struct dns_options){.own_name = "a b"}), -EINVAL);
    assert_null(dns);
    dns_close(NULL);
}

/* A host with many addresses does not hide the others. */
static void test_wide_hosts(void **state)
{
    struct fixture f;
    struct dns_route *route;
    unsigned of_host[3] = {0};

    (void)state;
    setup(&f, NULL);
    route = resolve(&f, "wide.test", false);
    assert_int_equal(route->addresses_len, 63);
    for (uint16_t i = 0; i < route->addresses_len; i++)
        of_host[route->addresses[i].host]++;
    for (int host = 0; host < 3; host++)
        assert_int_equal(of_host[host], DNS_ADDRESSES_MAX / 3);
    dns_route_unref(route);
    route = resolve(&f, "wide1.test", true);
    assert_int_equal(route->addresses_len, 32);
    dns_route_unref(route);
    teardown(&f);
}

/* "base: 030101aa 030001bbcc", "error: ...", or "none". */
static void render_tlsa(struct buf *out, const struct dns_tlsa *tlsa)
{
    buf_clear(out);
    if (tlsa == NULL)
        buf_puts(out, "none");
    else if (tlsa->error != NULL)
        buf_printf(out, "error: %s", tlsa->error);
    else
        buf_printf(out, "%s:", tlsa->base);
    for (uint16_t i = 0; tlsa != NULL && i < tlsa->records_len; i++) {
        buf_putc(out, ' ');
        for (size_t j = 0; j < tlsa->records[i].len; j++)
            buf_printf(out, "%02x", (uint8_t)tlsa->records[i].ptr[j]);
    }
    buf_putc(out, '\0');
}

/* Whose records count, and what is asked for them. */
static void test_tlsa(void **state)
{
    static const struct {
        const char *domain;
        bool host_only, secure;
        uint64_t life_s;
        size_t asked;
        const char *tlsa; /* of the first host */
    } rows[] = {
        {"safe.test", false, true, 600, 4, "mx.safe.test: 030101aa 030001bbcc  03"},
        {"open.test", false, false, 600, 4, "mx.safe.test: 030101aa 030001bbcc  03"},
        {"half.safe.test", false, true, 600, 6, "none"},
        {"own.safe.test", false, true, 300, 4, "own.safe.test: 030101dd"},
        {"own.safe.test", true, true, 3600, 3, "own.safe.test: 030101dd"},
        {"none.safe.test", true, true, 3600, 3, "none"},
        {"mx.open.test", true, true, 3600, 2, "none"},
        {"fail.safe.test", true, true, 300, 3,
         "error: TLSA lookup for fail.safe.test: resolver answered SERVFAIL"},
        {"alias1.safe.test", true, true, 600, 3, "mx.safe.test: 030101aa 030001bbcc  03"},
        {"alias2.safe.test", true, true, 3600, 4, "alias2.safe.test: 030101ee"},
        {"alias3.safe.test", true, true, 3600, 4, "alias3.safe.test: 030101ff"},
        {"alias4.open.test", true, true, 3600, 3, "none"},
        {"alias5.safe.test", true, true, 300, 3,
         "error: TLSA lookup for alias5.safe.test: resolver answered SERVFAIL"},
        {"[192.0.2.1]", false, false, 86400, 0, "none"},
    };

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
        struct fixture f;
        struct dns_route *route;
        struct buf got = {0};
        bool validating = i % 2;

        setup(&f, &(struct dns_options){.validating = validating});
        route = resolve(&f, rows[i / 2].domain, rows[i / 2].host_only);
        assert_int_equal(route->status, DNS_OK);
        render_tlsa(&got, route->hosts[0].tlsa);
        assert_string_equal((const char *)got.data, validating ? rows[i / 2].tlsa : "none");
        if (validating) {
            assert_int_equal(upstream.asked, rows[i / 2].asked);
            assert_int_equal(route->secure, rows[i / 2].secure);
            assert_int_equal((route->expires_ms - f.io.now_ns / 1000000) / 1000,
                             rows[i / 2].life_s);
        }
        buf_done(&got);
        dns_route_unref(route);
        teardown(&f);
    }
}

/* Nobody knows whether the alias is validated: the host is in doubt. A name that is too long for
 * the records' has none. A host's records are shared by its domains, and of another port where that
 * is where mail goes. */
static void test_tlsa_rare(void **state)
{
    struct fixture f;
    struct dns_route *host, *domain;
    char name[DNS_NAME_MAX + 1];

    (void)state;
    setup(&f, &(struct dns_options){.validating = true});
    upstream.mute = "alias4.open.test";
    host = resolve(&f, "alias4.open.test", true);
    assert_string_equal(host->hosts[0].tlsa->error, "TLSA lookup for alias4.open.test: no answer");
    dns_route_unref(host);

    upstream.generic = true;
    for (size_t i = 0; i < sizeof(name); i++)
        name[i] = "safe."[i % 5];
    name[DNS_NAME_MAX] = '\0';
    upstream.asked = 0;
    host = resolve(&f, name, true);
    assert_int_equal(host->status, DNS_OK);
    assert_null(host->hosts[0].tlsa);
    assert_int_equal(upstream.asked, 2);
    dns_route_unref(host);

    host = resolve(&f, "mx.safe.test", true);
    domain = resolve(&f, "safe.test", false);
    assert_non_null(host->hosts[0].tlsa);
    assert_ptr_equal(host->hosts[0].tlsa, domain->hosts[0].tlsa);
    dns_flush(f.dns);
    dns_route_unref(host);
    assert_int_equal(domain->hosts[0].tlsa->refs, 1);
    dns_route_unref(domain);
    teardown(&f);

    setup(&f, &(struct dns_options){.validating = true, .tlsa_port = 2525});
    host = resolve(&f, "mx.safe.test", true);
    assert_null(host->hosts[0].tlsa);
    dns_route_unref(host);
    teardown(&f);
}

/* A set has bounds in number and in bytes. */
static void test_tlsa_bounds(void **state)
{
    static const char bytes[4096];
    struct dns_record records[100];
    struct dns_tlsa *tlsa;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(records); i++)
        records[i].tlsa = (struct str){bytes, 10};
    tlsa = tlsa_new("a.test", records, ARRAY_LEN(records));
    assert_int_equal(tlsa->records_len, DNS_TLSA_MAX);
    dns_tlsa_unref(tlsa);
    for (size_t i = 0; i < ARRAY_LEN(records); i++)
        records[i].tlsa.len = sizeof(bytes);
    tlsa = tlsa_new("a.test", records, ARRAY_LEN(records));
    assert_int_equal(tlsa->records_len, DNS_TLSA_BYTES_MAX / sizeof(bytes));
    dns_tlsa_unref(tlsa);
}

struct asking {
    struct dns_question question;
    enum dns_answer_status status;
    unsigned calls;
};

static void on_records(struct dns_question *question, const struct dns_answer *answer)
{
    struct asking *asking = CONTAINER_OF(question, struct asking, question);

    assert_false(in_lookup);
    asking->calls++;
    asking->status = answer->status;
}

/* A question for records as they are is asked each time, and is one of those under way. */
static void test_questions(void **state)
{
    struct fixture f;
    struct asking asking[3] = {0};
    struct dns_counters counters;

    (void)state;
    setup(&f, &(struct dns_options){.in_flight_max = 2});
    in_lookup = true;
    for (size_t i = 0; i < ARRAY_LEN(asking); i++) {
        asking[i].question.on_answer = on_records;
        dns_ask(f.dns, &asking[i].question, "equal.test", DNS_TYPE_TXT);
    }
    in_lookup = false;
    dns_counters(f.dns, &counters);
    assert_int_equal(counters.in_flight, 2);
    turns(&f);
    for (size_t i = 0; i < ARRAY_LEN(asking); i++) {
        assert_int_equal(asking[i].calls, 1);
        assert_int_equal(asking[i].status, DNS_ANSWER_NO_DATA);
    }
    assert_int_equal(upstream.asked, 3);
    asking[0].calls = 0;
    dns_ask(f.dns, &asking[0].question, "equal.test", DNS_TYPE_TXT);
    dns_close(f.dns);
    assert_int_equal(asking[0].calls, 0);
}

/* What a cached domain costs, with a few exchangers. */
static void test_memory(void **state)
{
    struct fixture f;
    struct dns_route *route;

    (void)state;
    setup(&f, NULL);
    route = resolve(&f, "equal.test", false);
    assert_int_equal(route->hosts_len, 5);
    size_t bytes = (size_t)(route->hosts[4].name + strlen(route->hosts[4].name) - (char *)route);
    assert_in_range(bytes, 100, 1024);
    dns_route_unref(route);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_long_names),
        cmocka_unit_test(test_single_flight),
        cmocka_unit_test(test_close_pending),
        cmocka_unit_test(test_ttl),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_eviction),
        cmocka_unit_test(test_eviction_by_bytes),
        cmocka_unit_test(test_no_negative_caching),
        cmocka_unit_test(test_in_flight_max),
        cmocka_unit_test(test_forget),
        cmocka_unit_test(test_equal_preference),
        cmocka_unit_test(test_interleaved),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_many_exchangers),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_many_wait),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_tlsa),
        cmocka_unit_test(test_tlsa_rare),
        cmocka_unit_test(test_tlsa_bounds),
        cmocka_unit_test(test_questions),
        cmocka_unit_test(test_wide_hosts),
        cmocka_unit_test(test_slow_names),
        cmocka_unit_test(test_slow_limit),
        cmocka_unit_test(test_remembered_exchangers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
