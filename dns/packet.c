#include "dns/packet.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

#define HEADER_BYTES      12
#define RR_FIXED_BYTES    10 /* type, class, ttl, rdlength */
#define LABEL_MAX         63
#define HOPS_MAX          127  /* the most labels of a name */
#define ANSWER_RECORDS    2048 /* looked at in a section; a 64 KiB answer has at most 5,955 */
#define TYPE_SOA          6
#define CLASS_IN          1
#define FLAG_AD           0x20 /* of the fourth byte */
#define RCODE_NXDOMAIN    3
#define SOA_NUMBERS_BYTES 20

struct reader {
    const uint8_t *bytes;
    size_t len;
    size_t pos;
};

struct name {
    char text[DNS_NAME_MAX + 1];
    size_t len;
};

struct rr {
    size_t owner; /* offset of its name */
    uint16_t type;
    uint32_t ttl_s;
    size_t rdata;
    size_t rdata_len;
};

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
    return (uint32_t)get16(p) << 16 | get16(p + 2);
}

/* A byte of a label as text. What no host name has becomes '?', which no reader accepts as part of
 * a host name: a dot inside a label or a control byte cannot pass for something else. */
static char label_char(uint8_t byte)
{
    if (byte <= ' ' || byte >= 0x7f || byte == '.' || byte == '\\')
        return '?';
    return ascii_lower((char)byte);
}

static bool name_append(struct name *name, const uint8_t *label, size_t len)
{
    if (name->len + (name->len > 0) + len > DNS_NAME_MAX)
        return false;
    if (name->len > 0)
        name->text[name->len++] = '.';
    for (size_t i = 0; i < len; i++)
        name->text[name->len++] = label_char(label[i]);
    return true;
}

/* Decodes the name at *pos into name (may be NULL: skip) and moves *pos behind it. A compression
 * pointer must point before the name or pointer it was found in, so that every chain ends; soon,
 * too: thousands of names of thousands of pointers would hold the worker for half a second. */
static bool read_name(const uint8_t *bytes, size_t len, size_t *pos, struct name *name)
{
    size_t at = *pos, limit = *pos, end = 0, hops = 0;

    if (name != NULL)
        name->len = 0;
    for (;;) {
        uint8_t head;

        if (at >= len)
            return false;
        head = bytes[at];
        if (head == 0) {
            at++;
            break;
        }
        if (head > LABEL_MAX) {
            if (head < 0xc0 || len - at < 2)
                return false;
            if (end == 0)
                end = at + 2;
            at = get16(bytes + at) & 0x3fff;
            if (name == NULL)
                break;
            if (at >= limit || ++hops > HOPS_MAX)
                return false;
            limit = at;
            continue;
        }
        if (len - at <= head)
            return false;
        if (name != NULL && !name_append(name, bytes + at + 1, head))
            return false;
        at += head + 1U;
    }
    if (name != NULL)
        name->text[name->len] = '\0';
    *pos = end != 0 ? end : at;
    return true;
}

static bool read_rr(struct reader *r, struct rr *rr)
{
    const uint8_t *p;

    rr->owner = r->pos;
    if (!read_name(r->bytes, r->len, &r->pos, NULL) || r->len - r->pos < RR_FIXED_BYTES)
        return false;
    p = r->bytes + r->pos;
    /* Another class never matches. */
    rr->type = get16(p + 2) == CLASS_IN ? get16(p) : 0;
    rr->ttl_s = get32(p + 4);
    if (rr->ttl_s > INT32_MAX) /* RFC 2181 8 */
        rr->ttl_s = 0;
    rr->rdata_len = get16(p + 8);
    rr->rdata = r->pos + RR_FIXED_BYTES;
    if (r->len - rr->rdata < rr->rdata_len)
        return false;
    r->pos = rr->rdata + rr->rdata_len;
    return true;
}

/* A name in rdata, skip bytes behind its start; it must fill the rest. */
static bool rdata_name(const struct reader *r, const struct rr *rr, size_t skip, struct name *name)
{
    size_t pos = rr->rdata + skip;

    return rr->rdata_len > skip && read_name(r->bytes, r->len, &pos, name) &&
           pos == rr->rdata + rr->rdata_len;
}

static bool owner_is(const struct reader *r, const struct rr *rr, const struct name *name)
{
    struct name owner;
    size_t pos = rr->owner;

    return read_name(r->bytes, r->len, &pos, &owner) && owner.len == name->len &&
           memcmp(owner.text, name->text, name->len) == 0;
}

static void fail(struct dns_answer *answer, const char *error)
{
    *answer = (struct dns_answer){.status = DNS_ANSWER_FAILED, .error = error};
}

static const char *rcode_text(unsigned rcode)
{
    static const char *const texts[] = {
        [1] = "resolver answered FORMERR",
        [2] = "resolver answered SERVFAIL",
        [4] = "resolver answered NOTIMP",
        [5] = "resolver answered REFUSED",
    };

    if (rcode < ARRAY_LEN(texts) && texts[rcode] != NULL)
        return texts[rcode];
    return "resolver answered with an unknown rcode";
}

static void take_ttl(struct dns_answer *answer, uint32_t ttl_s)
{
    if (ttl_s < answer->ttl_s)
        answer->ttl_s = ttl_s;
}

/* Looks for a CNAME of *name: 1 with *name replaced, 0 when there is none, -1 when malformed. */
static int follow_cname(struct dns_answer *answer, struct reader r, size_t count, struct name *name)
{
    struct rr rr;

    for (size_t i = 0; i < count; i++) {
        if (!read_rr(&r, &rr))
            return -1;
        if (rr.type != DNS_TYPE_CNAME || !owner_is(&r, &rr, name))
            continue;
        if (!rdata_name(&r, &rr, 0, name))
            return -1;
        take_ttl(answer, rr.ttl_s);
        return 1;
    }
    return 0;
}

/* Puts bytes where *at is, and moves that behind them. */
static char *bytes_put(char **at, const void *bytes, size_t len)
{
    char *copy = memcpy(*at, bytes, len);

    *at += len;
    return copy;
}

/* The strings of a TXT record (RFC 1035 3.3.14), one behind the other. */
static bool read_strings(const uint8_t *p, size_t len, struct str *out, char *text)
{
    size_t at = 0, filled = 0;

    while (at < len) {
        size_t string_len = p[at++];

        if (len - at < string_len)
            return false;
        memcpy(text + filled, p + at, string_len);
        filled += string_len;
        at += string_len;
    }
    *out = (struct str){text, filled};
    return len > 0;
}

/* *text: room for what the record has of variable length, moved behind that. False: malformed
 * rdata. */
static bool read_record(const struct reader *r, const struct rr *rr, enum dns_type type,
                        struct dns_record *out, char **text)
{
    const uint8_t *p = r->bytes + rr->rdata;
    struct name name;

    switch (type) {
    case DNS_TYPE_A:
        if (rr->rdata_len != sizeof(out->a))
            return false;
        memcpy(&out->a, p, sizeof(out->a));
        return true;
    case DNS_TYPE_AAAA:
        if (rr->rdata_len != sizeof(out->aaaa))
            return false;
        memcpy(&out->aaaa, p, sizeof(out->aaaa));
        return true;
    case DNS_TYPE_MX:
        if (!rdata_name(r, rr, 2, &name))
            return false;
        out->mx.preference = get16(p);
        out->mx.exchanger = bytes_put(text, name.text, name.len + 1);
        return true;
    case DNS_TYPE_TXT:
        if (!read_strings(p, rr->rdata_len, &out->txt, *text))
            return false;
        *text += out->txt.len;
        return true;
    case DNS_TYPE_TLSA:
        out->tlsa = (struct str){bytes_put(text, p, rr->rdata_len), rr->rdata_len};
        return true;
    case DNS_TYPE_CNAME:
        return rdata_name(r, rr, 0, &name);
    }
    return false;
}

/* How many records of type the section has; SIZE_MAX when it is malformed. */
static size_t count_records(struct reader r, size_t count, enum dns_type type)
{
    size_t found = 0;
    struct rr rr;

    for (size_t i = 0; i < count; i++) {
        if (!read_rr(&r, &rr))
            return SIZE_MAX;
        found += rr.type == type;
    }
    return found < DNS_RECORDS_MAX ? found : DNS_RECORDS_MAX;
}

/* Gathers the records of name; 0, or -1 when malformed. */
static int gather(struct dns_packet *packet, struct reader r, size_t count, enum dns_type type,
                  const struct name *name)
{
    size_t room = count_records(r, count, type);
    size_t text_bytes;
    struct dns_record *records;
    char *text;
    struct rr rr;

    if (room == SIZE_MAX)
        return -1;
    if (room == 0)
        return 0;
    /* Names may be compressed; other data is never longer than the packet that it lies in. */
    if (type == DNS_TYPE_MX)
        text_bytes = room * (DNS_NAME_MAX + 1);
    else
        text_bytes = type == DNS_TYPE_TLSA || type == DNS_TYPE_TXT ? r.len : 0;
    packet->memory = records = malloc(room * sizeof(*records) + text_bytes + name->len + 1);
    if (records == NULL)
        return -1;
    text = (char *)(records + room);
    packet->answer.records = records;
    if (packet->cnames > 0)
        packet->answer.canonical = bytes_put(&text, name->text, name->len + 1);
    for (size_t i = 0; i < count && packet->answer.records_len < room; i++) {
        size_t at = packet->answer.records_len;

        if (!read_rr(&r, &rr))
            return -1;
        if (rr.type != type || !owner_is(&r, &rr, name))
            continue;
        if (!read_record(&r, &rr, type, &records[at], &text))
            return -1;
        take_ttl(&packet->answer, rr.ttl_s);
        packet->answer.records_len++;
    }
    return 0;
}

/* RFC 2308 5: the smaller of the SOA's own TTL and its last number. 0 without SOA. */
static uint32_t negative_ttl(struct reader r, size_t answers, size_t authorities)
{
    struct rr rr;

    for (size_t i = 0; i < answers + authorities; i++) {
        uint32_t minimum;

        if (!read_rr(&r, &rr))
            return 0;
        if (i < answers || rr.type != TYPE_SOA || rr.rdata_len < SOA_NUMBERS_BYTES)
            continue;
        minimum = get32(r.bytes + rr.rdata + rr.rdata_len - 4);
        return minimum < rr.ttl_s ? minimum : rr.ttl_s;
    }
    return 0;
}

/* Whether name is zone or lies below it. */
static bool name_within(const struct name *name, const struct name *zone)
{
    size_t above = name->len - zone->len;

    if (zone->len == 0)
        return true;
    return name->len >= zone->len && memcmp(name->text + above, zone->text, zone->len) == 0 &&
           (above == 0 || name->text[above - 1] == '.');
}

/* Whether an SOA says for name that its data is not left out but does not exist (RFC 2308 2.2). */
static bool is_denied(struct reader r, size_t answers, size_t authorities, const struct name *name)
{
    struct name zone;
    struct rr rr;

    for (size_t i = 0; i < answers + authorities; i++) {
        if (!read_rr(&r, &rr))
            return false;
        if (i < answers || rr.type != TYPE_SOA)
            continue;
        if (read_name(r.bytes, r.len, &rr.owner, &zone) && name_within(name, &zone))
            return true;
    }
    return false;
}

/* What a CNAME leads to is not in the response: it is to be asked for. */
static void take_alias(struct dns_packet *packet, const struct name *name)
{
    if (memchr(name->text, '?', name->len) != NULL) {
        dns_packet_done(packet);
        fail(&packet->answer, "CNAME to a name that cannot be asked for");
        return;
    }
    free(packet->memory);
    packet->memory = strdup(name->text);
    packet->alias = packet->memory;
    if (packet->alias == NULL)
        fail(&packet->answer, "out of memory");
}

/* Reads the question into name; NULL or what is wrong. */
static const char *read_question(struct reader *r, enum dns_type type, struct name *name)
{
    if (r->len < HEADER_BYTES)
        return "resolver answered too few bytes";
    if ((r->bytes[2] & 0x80) == 0 || get16(r->bytes + 4) != 1)
        return "resolver answered without the question";
    r->pos = HEADER_BYTES;
    if (!read_name(r->bytes, r->len, &r->pos, name) || r->len - r->pos < 4)
        return "resolver answered a malformed question";
    if (get16(r->bytes + r->pos) != type)
        return "resolver answered another question";
    r->pos += 4;
    return NULL;
}

void dns_packet_parse(struct dns_packet *packet, const uint8_t *bytes, size_t len,
                      enum dns_type type)
{
    struct reader r = {.bytes = bytes, .len = len};
    struct dns_answer *answer = &packet->answer;
    struct name name;
    size_t answers, authorities;
    unsigned rcode;
    const char *error = read_question(&r, type, &name);
    int found;

    *packet = (struct dns_packet){.answer.ttl_s = INT32_MAX};
    if (error != NULL) {
        fail(answer, error);
        return;
    }
    rcode = bytes[3] & 0x0f;
    answers = get16(bytes + 6);
    authorities = get16(bytes + 8);
    if (rcode != 0 && rcode != RCODE_NXDOMAIN) {
        fail(answer, rcode_text(rcode));
        return;
    }
    answer->secure = (bytes[3] & FLAG_AD) != 0;
    if (answers > ANSWER_RECORDS)
        answers = ANSWER_RECORDS;
    do {
        found = type == DNS_TYPE_CNAME ? 0 : follow_cname(answer, r, answers, &name);
    } while (found > 0 && ++packet->cnames <= DNS_CNAMES_MAX);
    if (found > 0) {
        fail(answer, "CNAME chain too long or a loop");
        return;
    }
    if (found < 0 || (rcode == 0 && gather(packet, r, answers, type, &name) < 0)) {
        dns_packet_done(packet);
        fail(answer, "resolver answered malformed records");
        return;
    }
    if (answer->records_len > 0)
        return;
    answer->canonical = NULL;
    answer->status = rcode == RCODE_NXDOMAIN ? DNS_ANSWER_NO_DOMAIN : DNS_ANSWER_NO_DATA;
    if (rcode == 0 && packet->cnames > 0 && name.len > 0 &&
        !is_denied(r, answers, authorities, &name)) {
        take_alias(packet, &name);
        return;
    }
    take_ttl(answer, negative_ttl(r, answers, authorities));
}

void dns_packet_done(struct dns_packet *packet)
{
    free(packet->memory);
    *packet = (struct dns_packet){0};
}
