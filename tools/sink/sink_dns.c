#include "tools/sink/sink_dns.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define HEADER_BYTES  12
#define NAME_TEXT_MAX 256
#define UDP_BYTES_MIN 512
#define UDP_BYTES_MAX 4096

enum dns_type {
    TYPE_A = 1,
    TYPE_NS = 2,
    TYPE_SOA = 6,
    TYPE_MX = 15,
    TYPE_AAAA = 28,
    TYPE_OPT = 41
};
enum dns_rcode { RCODE_OK, RCODE_FORMAT, RCODE_SERVFAIL, RCODE_NXDOMAIN, RCODE_NOT_IMPLEMENTED };

struct question {
    char name[NAME_TEXT_MAX]; /* lower case, no final dot */
    uint16_t type;
    size_t end; /* offset behind the question */
    bool edns;
    size_t udp_bytes_max;
};

struct writer {
    uint8_t *out;
    size_t len, max;
    bool overflow;
};

static void writer_put(struct writer *w, const void *bytes, size_t n)
{
    if (w->overflow || n > w->max - w->len) {
        w->overflow = true;
        return;
    }
    memcpy(w->out + w->len, bytes, n);
    w->len += n;
}

static void put_u16(struct writer *w, uint32_t v)
{
    uint8_t bytes[2] = {(uint8_t)(v >> 8), (uint8_t)v};

    writer_put(w, bytes, sizeof(bytes));
}

static void put_u32(struct writer *w, uint32_t v)
{
    put_u16(w, v >> 16);
    put_u16(w, v & 0xffff);
}

static void put_name(struct writer *w, struct str name)
{
    while (name.len > 0) {
        ptrdiff_t dot = str_find(name, '.');
        size_t label = dot < 0 ? name.len : (size_t)dot;
        uint8_t length = (uint8_t)label;

        writer_put(w, &length, 1);
        writer_put(w, name.ptr, label);
        name.ptr += label;
        name.len -= label;
        if (name.len > 0) {
            name.ptr++;
            name.len--;
        }
    }
    writer_put(w, "", 1);
}

static uint16_t get_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static void set_u16(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

/* Reads an uncompressed name as text. False when it is malformed or has bytes that no name of ours
 * has. */
static bool read_name(const uint8_t *in, size_t len, size_t *at, char name[NAME_TEXT_MAX])
{
    size_t text = 0;

    for (;;) {
        size_t label;

        if (*at >= len)
            return false;
        label = in[(*at)++];
        if (label == 0)
            break;
        if (label > 63 || label > len - *at || text + label + 1 >= NAME_TEXT_MAX)
            return false;
        if (text > 0)
            name[text++] = '.';
        for (size_t i = 0; i < label; i++) {
            char c = ascii_lower((char)in[*at + i]);

            if (c <= ' ' || c == '.' || c == 0x7f)
                return false;
            name[text++] = c;
        }
        *at += label;
    }
    name[text] = '\0';
    return true;
}

static bool read_question(const uint8_t *in, size_t len, struct question *q)
{
    size_t at = HEADER_BYTES;

    if (get_u16(in + 4) != 1 || !read_name(in, len, &at, q->name) || len - at < 4)
        return false;
    q->type = get_u16(in + at);
    q->end = at + 4;
    q->udp_bytes_max = UDP_BYTES_MIN;
    /* EDNS (RFC 6891): the root's OPT is the only record that follows a question. */
    at = q->end;
    if (get_u16(in + 10) > 0 && len - at >= 11 && in[at] == 0 && get_u16(in + at + 1) == TYPE_OPT) {
        q->edns = true;
        q->udp_bytes_max = get_u16(in + at + 3);
        if (q->udp_bytes_max < UDP_BYTES_MIN)
            q->udp_bytes_max = UDP_BYTES_MIN;
        if (q->udp_bytes_max > UDP_BYTES_MAX)
            q->udp_bytes_max = UDP_BYTES_MAX;
    }
    return true;
}

/* The class of a domain that exists, or NULL. */
static struct sink_class *zone_domain(const struct sink_zone *zone, struct str name)
{
    struct sink_behaviour *b = zone->behaviour;
    struct sink_class *c = sink_class_of_domain(b, name);

    if (c != &b->classes[b->classes_len - 1])
        return c;
    for (size_t i = 0; i < zone->suffixes_len; i++) {
        struct str suffix = str_of(zone->suffixes[i]);
        struct str tail = {name.ptr + name.len - suffix.len, suffix.len};

        if (name.len > suffix.len && tail.ptr[-1] == '.' && str_eq_nocase(tail, suffix))
            return c;
    }
    return NULL;
}

/* Whether name is "mx<n>.<base>" of a class's exchangers; *number is n. */
static struct sink_class *zone_exchanger(const struct sink_zone *zone, struct str name,
                                         uint64_t *number)
{
    struct sink_behaviour *b = zone->behaviour;
    ptrdiff_t dot = str_find(name, '.');
    struct sink_class *c = NULL;
    struct str base;

    if (dot < 3 || !str_starts_nocase(name, STR("mx")) ||
        str_to_u64((struct str){name.ptr + 2, (size_t)dot - 2}, 999, number) < 0)
        return NULL;
    base = (struct str){name.ptr + dot + 1, name.len - (size_t)dot - 1};
    for (size_t i = 0; i < b->classes_len && c == NULL; i++)
        if (b->classes[i].exchanger != NULL && str_eq_nocase(str_of(b->classes[i].exchanger), base))
            c = &b->classes[i];
    if (c == NULL) {
        c = zone_domain(zone, base);
        if (c == NULL || c->exchanger != NULL || c->dns != SINK_DNS_MX)
            return NULL;
    }
    if (*number > c->exchangers || (*number == 0 && !c->dead_exchanger))
        return NULL;
    return c;
}

static void record_begin(struct writer *w, enum dns_type type, uint32_t ttl_s, uint32_t data_bytes)
{
    put_u16(w, 0xc000 | HEADER_BYTES); /* the question's name */
    put_u16(w, type);
    put_u16(w, 1);
    put_u32(w, ttl_s);
    put_u16(w, data_bytes);
}

/* Sets the data length of a record that began at start. */
static void record_end(struct writer *w, size_t start)
{
    if (!w->overflow)
        set_u16(w->out + start + 10, (uint32_t)(w->len - start - 12));
}

static uint32_t answer_mx(struct writer *w, const struct sink_class *c, struct str name)
{
    struct str base = c->exchanger != NULL ? str_of(c->exchanger) : name;
    char host[NAME_TEXT_MAX + 16];
    uint32_t records = 0;
    size_t start = w->len;

    if (c->dns == SINK_DNS_NULL_MX) { /* RFC 7505 */
        record_begin(w, TYPE_MX, c->ttl_s, 3);
        writer_put(w, "\0\0\0", 3);
        return 1;
    }
    for (uint32_t n = c->dead_exchanger ? 0 : 1; n <= c->exchangers; n++) {
        start = w->len;
        record_begin(w, TYPE_MX, c->ttl_s, 0);
        put_u16(w, n == 0 ? 1 : 10 * n);
        snprintf(host, sizeof(host), "mx%u.%.*s", n, STR_FMT(base));
        put_name(w, str_of(host));
        record_end(w, start);
        records++;
    }
    return records;
}

static uint32_t put_address(struct writer *w, enum dns_type type, uint32_t ttl_s,
                            const struct sockaddr_storage *addr)
{
    if (type == TYPE_A && addr->ss_family == AF_INET) {
        record_begin(w, type, ttl_s, 4);
        writer_put(w, &((const struct sockaddr_in *)addr)->sin_addr, 4);
        return 1;
    }
    if (type == TYPE_AAAA && addr->ss_family == AF_INET6) {
        record_begin(w, type, ttl_s, 16);
        writer_put(w, &((const struct sockaddr_in6 *)addr)->sin6_addr, 16);
        return 1;
    }
    return 0;
}

/* host: n of mx<n>; where a class has several exchangers they share its addresses in turn. */
static uint32_t answer_addresses(struct writer *w, const struct sink_zone *zone,
                                 const struct sink_class *c, enum dns_type type, uint64_t host)
{
    const struct endpoint *addresses = c->addresses_len > 0 ? c->addresses : zone->addresses;
    size_t len = c->addresses_len > 0 ? c->addresses_len : zone->addresses_len;
    struct sockaddr_storage dead = {.ss_family = AF_INET};
    uint32_t records = 0;

    if (host == 0) {
        ((struct sockaddr_in *)&dead)->sin_addr.s_addr = htonl(0x7ffffffe); /* 127.255.255.254 */
        return put_address(w, type, c->ttl_s, &dead);
    }
    if (c->exchangers > 1 && len > 1)
        return put_address(w, type, c->ttl_s, &addresses[(host - 1) % len].addr);
    for (size_t i = 0; i < len; i++)
        records += put_address(w, type, c->ttl_s, &addresses[i].addr);
    return records;
}

static void put_soa(struct writer *w, uint32_t ttl_s)
{
    size_t start = w->len;

    record_begin(w, TYPE_SOA, ttl_s, 0);
    put_name(w, STR("ns1.sink.example"));
    put_name(w, STR("hostmaster.sink.example"));
    put_u32(w, 1);
    put_u32(w, 3600);
    put_u32(w, 600);
    put_u32(w, 86400);
    put_u32(w, ttl_s); /* of negative answers, RFC 2308 */
    record_end(w, start);
}

static uint32_t answer_ns(struct writer *w, uint32_t ttl_s)
{
    size_t start = w->len;

    record_begin(w, TYPE_NS, ttl_s, 0);
    put_name(w, STR("ns1.sink.example"));
    record_end(w, start);
    return 1;
}

/* Writes answer records and sets *rcode; -1 for no answer at all. */
static int answer_domain(struct writer *w, const struct sink_zone *zone, const struct question *q,
                         const struct sink_class *c, enum dns_rcode *rcode)
{
    switch (c->dns) {
    case SINK_DNS_TIMEOUT:
        return -1;
    case SINK_DNS_SERVFAIL:
        *rcode = RCODE_SERVFAIL;
        return 0;
    case SINK_DNS_NXDOMAIN:
        *rcode = RCODE_NXDOMAIN;
        return 0;
    case SINK_DNS_MX:
    case SINK_DNS_IMPLICIT:
    case SINK_DNS_NULL_MX:
    case SINK_DNS_NO_HOST:
        break;
    }
    if (q->type == TYPE_MX && (c->dns == SINK_DNS_MX || c->dns == SINK_DNS_NULL_MX))
        return (int)answer_mx(w, c, str_of(q->name));
    if ((q->type == TYPE_A || q->type == TYPE_AAAA) && c->dns == SINK_DNS_IMPLICIT)
        return (int)answer_addresses(w, zone, c, q->type, 1);
    if (q->type == TYPE_NS)
        return (int)answer_ns(w, c->ttl_s);
    if (q->type == TYPE_SOA) {
        put_soa(w, c->ttl_s);
        return 1;
    }
    return 0;
}

static int answer_question(struct writer *w, const struct sink_zone *zone, const struct question *q,
                           uint32_t *ttl_s, enum dns_rcode *rcode)
{
    struct sink_class *c;
    uint64_t host = 0;

    c = zone_exchanger(zone, str_of(q->name), &host);
    if (c != NULL) {
        *ttl_s = c->ttl_s;
        if (q->type == TYPE_A || q->type == TYPE_AAAA)
            return (int)answer_addresses(w, zone, c, q->type, host);
        return 0;
    }
    c = zone_domain(zone, str_of(q->name));
    if (c != NULL) {
        *ttl_s = c->ttl_s;
        return answer_domain(w, zone, q, c, rcode);
    }
    *rcode = RCODE_NXDOMAIN;
    return 0;
}

static void put_opt(struct writer *w)
{
    writer_put(w, "", 1);
    put_u16(w, TYPE_OPT);
    put_u16(w, UDP_BYTES_MAX);
    put_u32(w, 0);
    put_u16(w, 0);
}

size_t sink_dns_answer(const struct sink_zone *zone, const uint8_t *query, size_t query_len,
                       bool udp, uint8_t out[SINK_DNS_MESSAGE_MAX])
{
    struct writer w = {out, 0, SINK_DNS_MESSAGE_MAX, false};
    struct question q = {.udp_bytes_max = UDP_BYTES_MIN};
    enum dns_rcode rcode = RCODE_OK;
    uint32_t flags, ttl_s = 60;
    int answers = 0;

    if (query_len < HEADER_BYTES || (query[2] & 0x80) != 0)
        return 0; /* not a query: never answered, so that two servers cannot talk for ever */
    if ((query[2] & 0x78) != 0)
        rcode = RCODE_NOT_IMPLEMENTED;
    else if (!read_question(query, query_len, &q))
        rcode = RCODE_FORMAT;
    writer_put(&w, query, rcode == RCODE_OK ? q.end : HEADER_BYTES);
    if (rcode == RCODE_OK) {
        w.max = udp ? q.udp_bytes_max - 11 : SINK_DNS_MESSAGE_MAX - 11; /* room for OPT */
        answers = answer_question(&w, zone, &q, &ttl_s, &rcode);
        if (answers < 0)
            return 0;
    }
    flags = 0x8400 | (query[2] & 0x01u) << 8 | 0x80 | rcode; /* response, authoritative, RD, RA */
    set_u16(out + 4, q.end > 0);
    set_u16(out + 8, 0);
    set_u16(out + 10, 0);
    if (answers == 0 && q.end > 0 && (rcode == RCODE_OK || rcode == RCODE_NXDOMAIN)) {
        put_soa(&w, ttl_s);
        set_u16(out + 8, 1);
    }
    if (w.overflow) {
        w = (struct writer){out, q.end, SINK_DNS_MESSAGE_MAX, false};
        flags |= 0x0200; /* TC: ask again by TCP */
        answers = 0;
        set_u16(out + 8, 0);
    }
    set_u16(out + 2, flags);
    set_u16(out + 6, (uint32_t)answers);
    if (q.edns) {
        w.max += 11;
        put_opt(&w);
        set_u16(out + 10, 1);
    }
    return w.len;
}
