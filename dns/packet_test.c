#include "dns/packet.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A response under construction: the question is always at offset 12. */
struct message {
    uint8_t bytes[65536];
    size_t len;
};

#define QUESTION 0xc00c /* a pointer to it */

static void put16(struct message *m, unsigned v)
{
    m->bytes[m->len++] = (uint8_t)(v >> 8);
    m->bytes[m->len++] = (uint8_t)v;
}

static void put32(struct message *m, uint32_t v)
{
    put16(m, v >> 16);
    put16(m, v & 0xffff);
}

static void put_name(struct message *m, const char *name)
{
    while (*name != '\0') {
        size_t n = strcspn(name, ".");

        m->bytes[m->len++] = (uint8_t)n;
        memcpy(m->bytes + m->len, name, n);
        m->len += n;
        name += n + (name[n] == '.');
    }
    m->bytes[m->len++] = 0;
}

static struct message *begin(enum dns_type type, unsigned rcode, const char *question)
{
    static struct message m;

    memset(&m, 0, sizeof(m));
    m.bytes[2] = 0x81;
    m.bytes[3] = (uint8_t)(0x80 | rcode);
    m.bytes[5] = 1;
    m.len = 12;
    put_name(&m, question);
    put16(&m, type);
    put16(&m, 1);
    return &m;
}

/* Starts a record in section 6 (answer) or 8 (authority); returns where its data begins. */
static size_t begin_rr(struct message *m, size_t section, const char *owner, unsigned type,
                       uint32_t ttl_s)
{
    unsigned count = (unsigned)(m->bytes[section] << 8 | m->bytes[section + 1]) + 1;

    m->bytes[section] = (uint8_t)(count >> 8);
    m->bytes[section + 1] = (uint8_t)count;
    if (owner == NULL)
        put16(m, QUESTION);
    else
        put_name(m, owner);
    put16(m, type);
    put16(m, 1);
    put32(m, ttl_s);
    put16(m, 0);
    return m->len;
}

static void end_rr(struct message *m, size_t start)
{
    m->bytes[start - 2] = (uint8_t)((m->len - start) >> 8);
    m->bytes[start - 1] = (uint8_t)(m->len - start);
}

static void put_mx(struct message *m, const char *owner, uint32_t ttl_s, unsigned preference,
                   const char *exchanger)
{
    size_t start = begin_rr(m, 6, owner, DNS_TYPE_MX, ttl_s);

    put16(m, preference);
    put_name(m, exchanger);
    end_rr(m, start);
}

static void put_cname(struct message *m, const char *owner, uint32_t ttl_s, const char *target)
{
    size_t start = begin_rr(m, 6, owner, 5, ttl_s);

    put_name(m, target);
    end_rr(m, start);
}

static void put_a(struct message *m, const char *owner, uint32_t ttl_s, uint32_t address)
{
    size_t start = begin_rr(m, 6, owner, DNS_TYPE_A, ttl_s);

    put32(m, address);
    end_rr(m, start);
}

static void put_soa(struct message *m, uint32_t ttl_s, uint32_t minimum)
{
    size_t start = begin_rr(m, 8, "test", 6, ttl_s);

    put_name(m, "ns.test");
    put_name(m, "root.test");
    for (int i = 0; i < 4; i++)
        put32(m, 7200);
    put32(m, minimum);
    end_rr(m, start);
}

/* Parses an exact-sized heap copy, so that a sanitizer sees every byte read too far. */
static struct dns_packet parse(const struct message *m, size_t len, enum dns_type type)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    struct dns_packet packet;

    assert_non_null(copy);
    memcpy(copy, m->bytes, len);
    dns_packet_parse(&packet, copy, len, type);
    free(copy);
    return packet;
}

static void expect(const struct message *m, enum dns_type type, enum dns_answer_status status,
                   size_t records, uint32_t ttl_s)
{
    struct dns_packet packet = parse(m, m->len, type);

    assert_int_equal(packet.answer.status, status);
    assert_int_equal(packet.answer.records_len, records);
    assert_int_equal(packet.answer.ttl_s, ttl_s);
    assert_int_equal(packet.answer.error != NULL, status == DNS_ANSWER_FAILED);
    dns_packet_done(&packet);
    /* Every shorter packet ends in an answer of some kind and nothing else. */
    for (size_t len = 0; len<m->len; len += m->len> 2000 ? 97 : 1) {
        packet = parse(m, len, type);
        assert_int_equal(packet.answer.status, DNS_ANSWER_FAILED);
        dns_packet_done(&packet);
    }
}

static void test_mx(void **state)
{
    struct message *m = begin(DNS_TYPE_MX, 0, "Example.TEST");
    struct dns_packet packet;

    (void)state;
    put_mx(m, NULL, 300, 10, "MX1.example.test");
    put_mx(m, "example.test", 200, 20, "mx2.example.test");
    put_mx(m, "other.test", 1, 30, "mx3.example.test");
    packet = parse(m, m->len, DNS_TYPE_MX);
    assert_int_equal(packet.answer.status, DNS_ANSWER_RECORDS);
    assert_int_equal(packet.answer.records_len, 2);
    assert_int_equal(packet.answer.ttl_s, 200);
    assert_string_equal(packet.answer.records[0].mx.exchanger, "mx1.example.test");
    assert_int_equal(packet.answer.records[0].mx.preference, 10);
    assert_string_equal(packet.answer.records[1].mx.exchanger, "mx2.example.test");
    dns_packet_done(&packet);
    expect(m, DNS_TYPE_MX, DNS_ANSWER_RECORDS, 2, 200);
}

static void test_null_mx(void **state)
{
    struct message *m = begin(DNS_TYPE_MX, 0, "null.test");
    struct dns_packet packet;

    (void)state;
    put_mx(m, NULL, 300, 0, "");
    packet = parse(m, m->len, DNS_TYPE_MX);
    assert_int_equal(packet.answer.records_len, 1);
    assert_string_equal(packet.answer.records[0].mx.exchanger, "");
    dns_packet_done(&packet);
}

static void test_cname(void **state)
{
    struct message *m = begin(DNS_TYPE_A, 0, "www.test");
    char name[16], next[16];

    (void)state;
    /* Any order. */
    put_a(m, "c.test", 500, 0x7f000001);
    put_cname(m, "b.test", 100, "c.test");
    put_cname(m, NULL, 400, "B.test");
    expect(m, DNS_TYPE_A, DNS_ANSWER_RECORDS, 1, 100);
    m = begin(DNS_TYPE_A, 0, "www.test");
    put_cname(m, NULL, 400, "www.test");
    put_a(m, NULL, 500, 0x7f000001);
    expect(m, DNS_TYPE_A, DNS_ANSWER_FAILED, 0, 0);
    for (int hops = DNS_CNAMES_MAX; hops <= DNS_CNAMES_MAX + 1; hops++) {
        m = begin(DNS_TYPE_A, 0, "n0.test");
        for (int i = 0; i < hops; i++) {
            snprintf(name, sizeof(name), "n%d.test", i);
            snprintf(next, sizeof(next), "n%d.test", i + 1);
            put_cname(m, name, 60, next);
        }
        put_a(m, next, 60, 0x7f000001);
        if (hops == DNS_CNAMES_MAX)
            expect(m, DNS_TYPE_A, DNS_ANSWER_RECORDS, 1, 60);
        else
            expect(m, DNS_TYPE_A, DNS_ANSWER_FAILED, 0, 0);
    }
}

/* What CNAMEs lead to is not there: to be asked for, unless an SOA above it says that it is
 * nothing. */
static void test_alias(void **state)
{
    static const struct {
        const char *target;
        bool soa; /* of the zone "test" */
        const char *alias;
    } rows[] = {
        {"www.other", false, "www.other"},
        {"www.other", true, "www.other"},
        {"www.attest", true, "www.attest"},
        {"www.test", true, NULL},
        {"test", true, NULL},
        {"", false, NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct message *m = begin(DNS_TYPE_A, 0, "alias.test");
        struct dns_packet packet;

        put_cname(m, NULL, 20, "b.test");
        put_cname(m, "b.test", 10, rows[i].target);
        put_a(m, "else.test", 5, 0x7f000001);
        if (rows[i].soa)
            put_soa(m, 60, 30);
        packet = parse(m, m->len, DNS_TYPE_A);
        assert_int_equal(packet.answer.status, DNS_ANSWER_NO_DATA);
        assert_int_equal(packet.cnames, 2);
        assert_int_equal(packet.alias != NULL, rows[i].alias != NULL);
        if (rows[i].alias != NULL) {
            assert_string_equal(packet.alias, rows[i].alias);
            assert_int_equal(packet.answer.ttl_s, 10);
        }
        dns_packet_done(&packet);
    }
    struct message *m = begin(DNS_TYPE_A, 0, "alias.test");

    put_cname(m, NULL, 20, "a b.test");
    expect(m, DNS_TYPE_A, DNS_ANSWER_FAILED, 0, 0);
}

static void test_negative(void **state)
{
    static const struct {
        unsigned rcode;
        uint32_t soa_ttl_s, minimum, ttl_s;
        enum dns_answer_status status;
    } rows[] = {
        {0, 60, 30, 30, DNS_ANSWER_NO_DATA},   {0, 60, 90, 60, DNS_ANSWER_NO_DATA},
        {3, 60, 30, 30, DNS_ANSWER_NO_DOMAIN}, {3, 0x80000001, 30, 0, DNS_ANSWER_NO_DOMAIN},
        {2, 60, 30, 0, DNS_ANSWER_FAILED},     {5, 60, 30, 0, DNS_ANSWER_FAILED},
        {1, 60, 30, 0, DNS_ANSWER_FAILED},     {4, 60, 30, 0, DNS_ANSWER_FAILED},
        {15, 60, 30, 0, DNS_ANSWER_FAILED},
    };
    struct message *m;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct dns_packet packet;

        m = begin(DNS_TYPE_MX, rows[i].rcode, "gone.test");
        put_soa(m, rows[i].soa_ttl_s, rows[i].minimum);
        packet = parse(m, m->len, DNS_TYPE_MX);
        assert_int_equal(packet.answer.status, rows[i].status);
        assert_int_equal(packet.answer.ttl_s, rows[i].ttl_s);
        dns_packet_done(&packet);
    }
    m = begin(DNS_TYPE_MX, 3, "alias.test");
    put_cname(m, NULL, 20, "gone.test");
    put_soa(m, 60, 30);
    struct dns_packet packet = parse(m, m->len, DNS_TYPE_MX);
    assert_int_equal(packet.answer.status, DNS_ANSWER_NO_DOMAIN);
    assert_int_equal(packet.answer.ttl_s, 20);
    dns_packet_done(&packet);
    expect(begin(DNS_TYPE_A, 0, "empty.test"), DNS_TYPE_A, DNS_ANSWER_NO_DATA, 0, 0);
}

static void test_many(void **state)
{
    struct message *m = begin(DNS_TYPE_MX, 0, "many.test");
    char name[32];

    (void)state;
    for (int i = 0; i < 1500; i++) {
        snprintf(name, sizeof(name), "mx%d.many.test", i);
        put_mx(m, NULL, 300, 10, name);
    }
    expect(m, DNS_TYPE_MX, DNS_ANSWER_RECORDS, DNS_RECORDS_MAX, 300);
}

/* What a hostile name looks like to its reader: no byte of it can pass for a dot or end a line. */
static void test_hostile_labels(void **state)
{
    struct message *m = begin(DNS_TYPE_MX, 0, "a.test");
    size_t start = begin_rr(m, 6, NULL, DNS_TYPE_MX, 60);
    struct dns_packet packet;

    (void)state;
    put16(m, 10);
    memcpy(m->bytes + m->len,
           "\x06"
           "a.b\0\r\n"
           "\x04"
           "te\\t",
           12);
    m->len += 12;
    m->bytes[m->len++] = 0;
    end_rr(m, start);
    packet = parse(m, m->len, DNS_TYPE_MX);
    assert_int_equal(packet.answer.records_len, 1);
    assert_string_equal(packet.answer.records[0].mx.exchanger, "a?b???.te?t");
    dns_packet_done(&packet);
}

/* An MX whose exchanger is the given raw bytes. */
static enum dns_answer_status raw_exchanger(const void *bytes, size_t len)
{
    struct message *m = begin(DNS_TYPE_MX, 0, "a.test");
    size_t start = begin_rr(m, 6, NULL, DNS_TYPE_MX, 60);
    struct dns_packet packet;
    enum dns_answer_status status;

    put16(m, 10);
    memcpy(m->bytes + m->len, bytes, len);
    m->len += len;
    end_rr(m, start);
    packet = parse(m, m->len, DNS_TYPE_MX);
    status = packet.answer.status;
    dns_packet_done(&packet);
    return status;
}

static void test_compression(void **state)
{
    /* The exchanger stands at offset 12 + 8 + 4 + 12 + 2 = 38. */
    static const struct {
        const char *bytes;
        size_t len;
        enum dns_answer_status status;
    } rows[] = {
        {"\xc0\x0c", 2, DNS_ANSWER_RECORDS},
        {"\x02mx\xc0\x0c", 5, DNS_ANSWER_RECORDS},
        {"\xc0\x26", 2, DNS_ANSWER_FAILED},         /* itself */
        {"\x02mx\xc0\x26", 5, DNS_ANSWER_FAILED},   /* its own beginning */
        {"\xc0\x28\xc0\x26", 4, DNS_ANSWER_FAILED}, /* each other */
        {"\xc0\xff", 2, DNS_ANSWER_FAILED},         /* nowhere */
        {"\xff\xff", 2, DNS_ANSWER_FAILED},
        {"\x40zz", 3, DNS_ANSWER_FAILED}, /* extended label */
        {"\x80zz", 3, DNS_ANSWER_FAILED},
        {"\x3fzz", 3, DNS_ANSWER_FAILED}, /* beyond the packet */
        {"\xc0", 1, DNS_ANSWER_FAILED},
        {"", 0, DNS_ANSWER_FAILED},
        {"\x02mx\x00zz", 6, DNS_ANSWER_FAILED}, /* does not fill its data */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        enum dns_answer_status status = raw_exchanger(rows[i].bytes, rows[i].len);

        if (status != rows[i].status)
            fail_msg("row %zu: %d", i, status);
    }
}

/* An exchanger behind so many pointers to pointers to the question. */
static enum dns_answer_status behind_pointers(size_t n)
{
    struct message *m = begin(DNS_TYPE_MX, 0, "a.test");
    size_t start = begin_rr(m, 6, NULL, 16, 60), last = 12;
    struct dns_packet packet;
    enum dns_answer_status status;

    for (size_t i = 0; i < n; i++) {
        put16(m, 0xc000 | (unsigned)last);
        last = m->len - 2;
    }
    end_rr(m, start);
    start = begin_rr(m, 6, NULL, DNS_TYPE_MX, 60);
    put16(m, 10);
    put16(m, 0xc000 | (unsigned)last);
    end_rr(m, start);
    packet = parse(m, m->len, DNS_TYPE_MX);
    status = packet.answer.status;
    dns_packet_done(&packet);
    return status;
}

static void test_pointer_chain(void **state)
{
    (void)state;
    assert_int_equal(behind_pointers(126), DNS_ANSWER_RECORDS);
    assert_int_equal(behind_pointers(127), DNS_ANSWER_FAILED);
}

static void test_long_name(void **state)
{
    uint8_t name[300];
    size_t len = 0;

    (void)state;
    /* 4 labels of 62 and separators: 251 characters; then one of 1: 253; then one more. */
    for (int i = 0; i < 4; i++) {
        name[len++] = 62;
        memset(name + len, 'a', 62);
        len += 62;
    }
    name[len++] = 1;
    name[len++] = 'b';
    name[len++] = 0;
    assert_int_equal(raw_exchanger(name, len), DNS_ANSWER_RECORDS);
    name[len - 1] = 1;
    name[len++] = 'c';
    name[len++] = 0;
    assert_int_equal(raw_exchanger(name, len), DNS_ANSWER_FAILED);
}

static void put_tlsa(struct message *m, const char *owner, const char *rdata, size_t len)
{
    size_t start = begin_rr(m, 6, owner, DNS_TYPE_TLSA, 300);

    memcpy(m->bytes + m->len, rdata, len);
    m->len += len;
    end_rr(m, start);
}

/* Any bytes, none too; the reader of the records checks them. */
static void test_tlsa(void **state)
{
    struct message *m = begin(DNS_TYPE_TLSA, 0, "_25._tcp.mx.test");
    struct dns_packet packet;

    (void)state;
    put_tlsa(m, NULL, "\3\1\1\0x", 5);
    put_tlsa(m, "_25._tcp.other.test", "\3\1\1other", 8);
    put_tlsa(m, NULL, "", 0);
    put_tlsa(m, NULL, "\3\0\1", 3);
    packet = parse(m, m->len, DNS_TYPE_TLSA);
    assert_int_equal(packet.answer.records_len, 3);
    assert_true(str_eq(packet.answer.records[0].tlsa, STR("\3\1\1\0x")));
    assert_int_equal(packet.answer.records[1].tlsa.len, 0);
    assert_true(str_eq(packet.answer.records[2].tlsa, STR("\3\0\1")));
    assert_null(packet.answer.canonical);
    dns_packet_done(&packet);
    /* Cut anywhere, nothing is read beyond. */
    for (size_t len = 0; len < m->len; len++) {
        packet = parse(m, len, DNS_TYPE_TLSA);
        assert_int_equal(packet.answer.status, DNS_ANSWER_FAILED);
        dns_packet_done(&packet);
    }
}

/* Of many records that are not the name's, and then the one that is. */
static void test_tlsa_of_others(void **state)
{
    struct message *m = begin(DNS_TYPE_TLSA, 0, "a");
    char rdata[30000];
    struct dns_packet packet;

    (void)state;
    memset(rdata, 'x', sizeof(rdata));
    for (int i = 0; i < DNS_RECORDS_MAX; i++)
        put_tlsa(m, "b", "", 0);
    put_tlsa(m, NULL, rdata, sizeof(rdata));
    packet = parse(m, m->len, DNS_TYPE_TLSA);
    assert_int_equal(packet.answer.records_len, 1);
    assert_int_equal(packet.answer.records[0].tlsa.len, sizeof(rdata));
    dns_packet_done(&packet);
}

/* The AD bit, of answers that are none, too; where CNAMEs end. */
static void test_secure(void **state)
{
    struct message *m = begin(DNS_TYPE_A, 0, "alias.test");
    struct dns_packet packet;

    (void)state;
    put_cname(m, NULL, 300, "next.test");
    put_cname(m, "next.test", 300, "end.test");
    put_a(m, "end.test", 300, 1);
    packet = parse(m, m->len, DNS_TYPE_A);
    assert_int_equal(packet.answer.status, DNS_ANSWER_RECORDS);
    assert_false(packet.answer.secure);
    assert_string_equal(packet.answer.canonical, "end.test");
    dns_packet_done(&packet);
    m->bytes[3] |= 0x20;
    packet = parse(m, m->len, DNS_TYPE_A);
    assert_true(packet.answer.secure);
    dns_packet_done(&packet);

    m = begin(DNS_TYPE_TLSA, 3, "_25._tcp.mx.test");
    m->bytes[3] |= 0x20;
    put_soa(m, 300, 300);
    packet = parse(m, m->len, DNS_TYPE_TLSA);
    assert_int_equal(packet.answer.status, DNS_ANSWER_NO_DOMAIN);
    assert_true(packet.answer.secure);
    dns_packet_done(&packet);

    m = begin(DNS_TYPE_A, 2, "mx.test"); /* SERVFAIL */
    m->bytes[3] |= 0x20;
    packet = parse(m, m->len, DNS_TYPE_A);
    assert_int_equal(packet.answer.status, DNS_ANSWER_FAILED);
    assert_false(packet.answer.secure);
    dns_packet_done(&packet);
}

/* Asked for itself, a CNAME is an answer and is not followed. */
static void test_cname_itself(void **state)
{
    struct message *m = begin(DNS_TYPE_CNAME, 0, "alias.test");
    struct dns_packet packet;
    size_t start;

    (void)state;
    put_cname(m, NULL, 300, "end.test");
    expect(m, DNS_TYPE_CNAME, DNS_ANSWER_RECORDS, 1, 300);
    m = begin(DNS_TYPE_CNAME, 0, "plain.test");
    put_soa(m, 300, 300);
    packet = parse(m, m->len, DNS_TYPE_CNAME);
    assert_int_equal(packet.answer.status, DNS_ANSWER_NO_DATA);
    dns_packet_done(&packet);
    m = begin(DNS_TYPE_CNAME, 0, "alias.test");
    start = begin_rr(m, 6, NULL, DNS_TYPE_CNAME, 300);
    put16(m, 0x3f3f);
    end_rr(m, start);
    expect(m, DNS_TYPE_CNAME, DNS_ANSWER_FAILED, 0, 0);
}

static void test_txt(void **state)
{
    struct message *m = begin(DNS_TYPE_TXT, 0, "_mta-sts.example.test");
    struct dns_packet packet;
    size_t start;

    (void)state;
    start = begin_rr(m, 6, NULL, DNS_TYPE_TXT, 300);
    memcpy(m->bytes + m->len, "\3v=S\0\5TSv1;", 11);
    m->len += 11;
    end_rr(m, start);
    start = begin_rr(m, 6, NULL, DNS_TYPE_TXT, 300);
    memcpy(m->bytes + m->len, "\2\0x", 3);
    m->len += 3;
    end_rr(m, start);
    packet = parse(m, m->len, DNS_TYPE_TXT);
    assert_int_equal(packet.answer.records_len, 2);
    assert_true(str_eq(packet.answer.records[0].txt, STR("v=STSv1;")));
    assert_true(str_eq(packet.answer.records[1].txt, STR("\0x")));
    dns_packet_done(&packet);
    expect(m, DNS_TYPE_TXT, DNS_ANSWER_RECORDS, 2, 300);
    /* A string that goes on behind its record, and a record of no string. */
    m->bytes[start] = 3;
    expect(m, DNS_TYPE_TXT, DNS_ANSWER_FAILED, 0, 0);
    m = begin(DNS_TYPE_TXT, 0, "_mta-sts.example.test");
    end_rr(m, begin_rr(m, 6, NULL, DNS_TYPE_TXT, 60));
    expect(m, DNS_TYPE_TXT, DNS_ANSWER_FAILED, 0, 0);
}

static void test_not_an_answer(void **state)
{
    struct message *m = begin(DNS_TYPE_MX, 0, "a.test");
    struct dns_packet packet = parse(m, m->len, DNS_TYPE_A);

    (void)state;
    assert_int_equal(packet.answer.status, DNS_ANSWER_FAILED); /* another type */
    m->bytes[2] = 0x01;                                        /* a question */
    expect(m, DNS_TYPE_MX, DNS_ANSWER_FAILED, 0, 0);
    m->bytes[2] = 0x81;
    m->bytes[5] = 0;
    expect(m, DNS_TYPE_MX, DNS_ANSWER_FAILED, 0, 0);
    m = begin(DNS_TYPE_A, 0, "a.test");
    end_rr(m, begin_rr(m, 6, NULL, DNS_TYPE_A, 60)); /* an address of no bytes */
    expect(m, DNS_TYPE_A, DNS_ANSWER_FAILED, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mx),
        cmocka_unit_test(test_null_mx),
        cmocka_unit_test(test_alias),
        cmocka_unit_test(test_cname),
        cmocka_unit_test(test_negative),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_hostile_labels),
        cmocka_unit_test(test_compression),
        cmocka_unit_test(test_pointer_chain),
        cmocka_unit_test(test_long_name),
        cmocka_unit_test(test_tlsa),
        cmocka_unit_test(test_tlsa_of_others),
        cmocka_unit_test(test_secure),
        cmocka_unit_test(test_cname_itself),
        cmocka_unit_test(test_txt),
        cmocka_unit_test(test_not_an_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
