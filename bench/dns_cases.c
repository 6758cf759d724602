#include "bench/dns_cases.h"

#include <arpa/inet.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "dns/dns.h"
#include "dns/dns_upstream.h"
#include "dns/packet.h"
#include "dns/route.h"
#include "io/io.h"

#define DOMAINS      50000
#define HOT_DOMAINS  100
#define WORK         1000
#define QUERIES_MAX  64
#define EXCHANGERS   5
#define ADDRESS_BASE 0xc0000200

/* ---- io.h and dns_upstream.h: time stands still, answers come when asked ---- */

struct io {
    struct wheel wheel;
    uint64_t now_ms;
};

uint64_t io_now_ns(const struct io *io)
{
    return io->now_ms * 1000000;
}

struct wheel *io_wheel(struct io *io)
{
    return &io->wheel;
}

static struct {
    struct dns_upstream_query *queries[QUERIES_MAX];
    enum dns_type types[QUERIES_MAX];
    size_t len;
} upstream;

int dns_upstream_open(struct dns_upstream **out, struct io *io, const struct dns_options *options)
{
    (void)io;
    (void)options;
    *out = NULL;
    return 0;
}

void dns_upstream_close(struct dns_upstream *up)
{
    (void)up;
}

void dns_upstream_query(struct dns_upstream *up, struct dns_upstream_query *query, const char *name,
                        enum dns_type type)
{
    (void)up;
    (void)name;
    upstream.queries[upstream.len] = query;
    upstream.types[upstream.len++] = type;
}

static struct dns_record exchangers[EXCHANGERS];

static void answer_all(void)
{
    while (upstream.len > 0) {
        struct dns_upstream_query *query = upstream.queries[--upstream.len];
        struct dns_record address = {.a.s_addr = htonl(ADDRESS_BASE + 1)};
        struct dns_answer answer = {.status = DNS_ANSWER_NO_DATA, .ttl_s = 3600};

        if (upstream.types[upstream.len] == DNS_TYPE_MX) {
            answer.status = DNS_ANSWER_RECORDS;
            answer.records = exchangers;
            answer.records_len = EXCHANGERS;
        } else if (upstream.types[upstream.len] == DNS_TYPE_A) {
            answer.status = DNS_ANSWER_RECORDS;
            answer.records = &address;
            answer.records_len = 1;
        }
        query->on_answer(query, &answer);
    }
}

/* ---- a resolver with its cache full ---- */

static struct io io;
static struct dns *dns;
static struct dns_query query;
static size_t routes;
static size_t cache_bytes;
static char names[DOMAINS][32];

static void on_route(struct dns_query *q, struct dns_route *route)
{
    (void)q;
    ASSERT(route->status == DNS_OK);
    routes++;
}

static void lookup(const char *name)
{
    size_t before = routes;

    query.on_route = on_route;
    dns_lookup(dns, &query, str_of(name), false);
    while (routes == before) {
        answer_all();
        wheel_advance(&io.wheel, io.now_ms);
    }
}

static void fill(void)
{
    struct dns_options options = {
        .cache_entries_max = DOMAINS + EXCHANGERS, .negative_ttl_max_s = 300, .seed = 1};
    static char exchanger_names[EXCHANGERS][32];
    size_t before;
    int rc;

    if (dns != NULL)
        return;
    for (size_t i = 0; i < EXCHANGERS; i++) {
        snprintf(exchanger_names[i], sizeof(exchanger_names[i]), "alt%zu.mx.provider.example", i);
        exchangers[i].mx.exchanger = exchanger_names[i];
        exchangers[i].mx.preference = (uint16_t)(10 * (i / 2));
    }
    io.now_ms = 1;
    wheel_init(&io.wheel, io.now_ms);
    rc = dns_open(&dns, &io, &options);
    ASSERT(rc == 0);
    before = mallinfo2().uordblks;
    for (size_t i = 0; i < DOMAINS; i++) {
        snprintf(names[i], sizeof(names[i]), "customer-%zu.example.com", i);
        lookup(names[i]);
    }
    cache_bytes = mallinfo2().uordblks - before;
}

/* A walk over the domains that no cache of the CPU foresees. */
static const char *next_name(size_t domains)
{
    static uint32_t at;

    at = at * 1664525 + 1013904223;
    return names[(at >> 8) % domains];
}

static size_t hits(size_t domains)
{
    fill();
    for (size_t i = 0; i < WORK; i++) {
        struct dns_route *route = dns_cached(dns, str_of(next_name(domains)), false);

        dns_route_unref(route);
    }
    return WORK;
}

size_t dns_case_hit(void)
{
    return hits(DOMAINS);
}

size_t dns_case_hit_hot(void)
{
    return hits(HOT_DOMAINS);
}

size_t dns_case_lookup_hit(void)
{
    fill();
    for (size_t i = 0; i < WORK; i++)
        lookup(next_name(DOMAINS));
    return WORK;
}

size_t dns_case_miss(void)
{
    static unsigned long number;
    char name[32];

    fill();
    for (size_t i = 0; i < WORK; i++) {
        snprintf(name, sizeof(name), "new-%lu.example.net", number++);
        lookup(name);
    }
    return WORK;
}

size_t dns_case_packet(void)
{
    /* example.com MX, five exchangers compressed as servers do it. */
    static const uint8_t head[] = "\x12\x34\x81\x80\0\1\0\5\0\0\0\0\7example\3com\0\0\17\0\1";
    uint8_t bytes[512];
    size_t len = sizeof(head) - 1;

    memcpy(bytes, head, len);
    for (uint8_t i = 0; i < EXCHANGERS; i++) {
        uint8_t rr[] = "\xc0\x0c\0\17\0\1\0\0\1\x2c\0\x0a\0\x0a\5mail0\xc0\x0c";

        rr[19] = (uint8_t)('0' + i);
        memcpy(bytes + len, rr, sizeof(rr) - 1);
        len += sizeof(rr) - 1;
    }
    for (size_t i = 0; i < WORK; i++) {
        struct dns_packet packet;

        dns_packet_parse(&packet, bytes, len, DNS_TYPE_MX);
        ASSERT(packet.answer.records_len == EXCHANGERS);
        dns_packet_done(&packet);
    }
    return WORK;
}

size_t dns_case_choose(void)
{
    struct rng rng;
    struct mx_list list;

    fill();
    rng_seed(&rng, 1);
    for (size_t i = 0; i < WORK; i++) {
        mx_choose(&list, exchangers, EXCHANGERS, NULL, &rng);
        ASSERT(list.hosts_len == EXCHANGERS);
    }
    return WORK;
}

size_t dns_case_bytes(void)
{
    fill();
    return cache_bytes / DOMAINS;
}
