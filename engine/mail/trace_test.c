#include "mail/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/assert.h"
#include "base/buf.h"

static void assert_str(struct str s, const char *want)
{
    assert_int_equal(s.len, strlen(want));
    assert_memory_equal(s.ptr, want, s.len);
}

static void scan(const char *content, struct trace_facts *facts)
{
    trace_scan((const uint8_t *)content, strlen(content), NULL, 0, facts);
}

static void test_facts(void **state)
{
    static const char content[] = "Received: from a\r\n\tby b\r\n"
                                  "RECEIVED: x\r\n"
                                  "From: a@example.com\r\n"
                                  "subject:  =?utf-8?b?44GC?=\r\n more \t\r\n"
                                  "Message-Id: <1@x>\r\n"
                                  "Subject: second\r\n"
                                  "List-Id: <l>\r\n"
                                  "\r\n"
                                  "Date: in the body\r\n";
    const struct str names[] = {STR("list-id"), STR("X-None"), STR("FROM")};
    struct trace_facts f;
    struct buf json = {0};

    (void)state;
    trace_scan((const uint8_t *)content, sizeof(content) - 1, names, ARRAY_LEN(names), &f);
    assert_int_equal(f.received, 2);
    assert_true(f.has_from && f.has_message_id && !f.has_date);
    assert_false(f.eight_bit || f.wants_strip);
    assert_str(f.subject, "=?utf-8?b?44GC?=\r\n more");
    assert_str(f.message_id, "<1@x>");
    assert_memory_equal(content + f.header_len, "\r\nDate", 6);
    assert_int_equal(f.body_offset, f.header_len + 2);
    assert_str(f.wanted[0], "<l>");
    assert_null(f.wanted[1].ptr);
    assert_str(f.wanted[2], "a@example.com");
    assert_int_equal(f.priority, -1);
    trace_wanted_json(&f, names, ARRAY_LEN(names), &json);
    assert_str(buf_str(&json), "{\"list-id\":\"<l>\",\"FROM\":\"a@example.com\"}");
    buf_done(&json);
}

static void test_shapes(void **state)
{
    static const struct {
        const char *content;
        size_t header_len, body_offset;
    } rows[] = {
        {"", 0, 0},
        {"\r\n", 0, 2},
        {"\r\nbody\r\n", 0, 2},
        {"no field here\r\n", 0, 0},
        {": no name\r\n", 0, 0},
        {" folded first\r\nFrom: a\r\n", 0, 0},
        {"From sender Mon Jan  1\r\nFrom: a\r\n\r\n", 0, 0},
        {"From: a\r\n", 9, 9},
        {"From: a\r\n\r\n", 9, 11},
        {"From: a\r\nnot a field\r\n\r\nx\r\n", 9, 9},
        {"From: a", 7, 7},
        {"From", 0, 0},
        {"From:", 5, 5},
        {"\xe3\x81\x82: a\r\n", 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct trace_facts f;

        scan(rows[i].content, &f);
        if (f.header_len != rows[i].header_len || f.body_offset != rows[i].body_offset)
            fail_msg("row %zu: %zu %zu", i, f.header_len, f.body_offset);
    }
}

static void test_eight_bit(void **state)
{
    struct trace_facts f;

    (void)state;
    scan("Subject: \xe3\x81\x82\r\n\r\n", &f);
    assert_true(f.eight_bit);
    scan("Subject: 12345678\xff\r\n\r\n", &f);
    assert_true(f.eight_bit);
    scan("Subject: a\r\n\r\n\xe3\x81\x82\r\n", &f);
    assert_false(f.eight_bit);
}

static void test_private(void **state)
{
    struct trace_facts f;

    (void)state;
    scan("X-Hayauma-Campaign: spring_2026.a-1\r\nx-hayauma-tenant: acme\r\n"
         "X-Hayauma-POOL: bulk-1\r\n"
         "X-HAYAUMA-PRIORITY : 0\r\nX-Hayauma-Not-Before: Sun, 22 Nov 2026 00:49:17 +0900\r\n\r\n",
         &f);
    assert_null(f.error);
    assert_true(f.wants_strip);
    assert_str(f.campaign, "spring_2026.a-1");
    assert_str(f.tenant, "acme");
    assert_int_equal(f.priority, 0);
    assert_int_equal(f.not_before_ms, INT64_C(1795276157000));
    assert_int_equal(f.engaged, -1);
    scan("X-Hayauma-Engaged: Yes\r\n\r\n", &f);
    assert_int_equal(f.engaged, 1);
    scan("X-Hayauma-Engaged: no\r\n\r\n", &f);
    assert_int_equal(f.engaged, 0);
    scan("X-Hayauma-Not-Before: 1795308557\r\n\r\n", &f);
    assert_int_equal(f.not_before_ms, INT64_C(1795308557000));
}

static void test_private_errors(void **state)
{
    static const char *const fields[] = {
        "X-Hayauma-Campaign: \r\n",
        "X-Hayauma-Campaign: a b\r\n",
        "X-Hayauma-Campaign: a\r\n b\r\n",
        "X-Hayauma-Campaign: a@b\r\n",
        "X-Hayauma-Campaign: \xe3\x81\x82\r\n",
        "X-Hayauma-Campaign: 12345678901234567890123456789012345678901234567890123456789012345\r\n",
        "X-Hayauma-Campaign: a\r\nX-Hayauma-Campaign: b\r\n",
        "X-Hayauma-Tenant: a:b\r\n",
        "X-Hayauma-Pool: a b\r\n",
        "X-Hayauma-Pool: a\r\nX-Hayauma-Pool: a\r\n",
        "X-Hayauma-Priority: 10\r\n",
        "X-Hayauma-Priority: -1\r\n",
        "X-Hayauma-Priority:\r\n",
        "X-Hayauma-Priority: 1\r\nX-Hayauma-Priority: 1\r\n",
        "X-Hayauma-Not-Before: tomorrow\r\n",
        "X-Hayauma-Not-Before: 1\r\nX-Hayauma-Not-Before: 1\r\n",
        "X-Hayauma-Engaged: perhaps\r\n",
        "X-Hayauma-Engaged:\r\n",
        "X-Hayauma-Engaged: yes\r\nX-Hayauma-Engaged: yes\r\n",
        "X-Hayauma-Campain: a\r\n",
        "X-Hayauma-: a\r\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        struct trace_facts f;

        scan(fields[i], &f);
        if (f.error == NULL)
            fail_msg("accepted: %s", fields[i]);
        assert_memory_equal(f.error, "550 5.6.0 ", 10);
    }
}

static void test_strip(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"A: 1\r\nX-Hayauma-Campaign: a\r\nB: 2\r\n 3\r\n\r\nbody\r\n",
         "A: 1\r\nB: 2\r\n 3\r\n\r\nbody\r\n"},
        {"X-Hayauma-Campaign: a\r\nX-Hayauma-Tenant:\r\n b\r\n\r\nbody\r\n", "\r\nbody\r\n"},
        {"A: 1\r\nX-Hayauma-Campaign: a\r\n", "A: 1\r\n"},
        {"X-Hayauma-Campaign: a\r\nA: 1\r\nX-Hayauma-Priority: 3\r\n\r\n", "A: 1\r\n\r\n"},
        {"A: 1\r\n\r\nX-Hayauma-Campaign: a\r\n", "A: 1\r\n\r\nX-Hayauma-Campaign: a\r\n"},
        {"Bcc: a@b\r\nA: 1\r\nBCC:\r\n c@d,\r\n e@f\r\nResent-Bcc: g@h\r\nReturn-Path: "
         "<i@j>\r\n\r\nx",
         "A: 1\r\n\r\nx"},
        {"Bcc-Note: 1\r\nResent-To: 2\r\nReturn-Path-X: 3\r\n\r\nBcc: x\r\n",
         "Bcc-Note: 1\r\nResent-To: 2\r\nReturn-Path-X: 3\r\n\r\nBcc: x\r\n"},
        {"Subject : a : b\r\nX \t : 1\r\n y : 2\r\nZ: 3\r\n\r\nA : b\r\n",
         "Subject: a : b\r\nX: 1\r\n y : 2\r\nZ: 3\r\n\r\nA : b\r\n"},
        {"Bcc : x\r\nTo : y\r\n\r\n", "To: y\r\n\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *copy = strdup(rows[i].in), *start;
        size_t len = strlen(rows[i].in), removed;
        struct trace_facts f, again;

        scan(copy, &f);
        removed = trace_strip((uint8_t *)copy, &f);
        start = copy + removed;
        assert_str((struct str){start, len - removed}, rows[i].out);
        scan(start, &again);
        assert_false(again.wants_strip);
        assert_int_equal(again.header_len, f.header_len);
        assert_int_equal(again.body_offset, f.body_offset);
        free(copy);
    }
}

/* The header ends where every reader sees it end. */
static void test_border(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"A: 1\r\n\r\nbody\r\n", "A: 1\r\n\r\nbody\r\n"},
        {"A: 1\r\nno field\r\nB: 2\r\n\r\nx\r\n", "A: 1\r\n\r\nno field\r\nB: 2\r\n\r\nx\r\n"},
        {"A: 1\r\nX-\xc3\xa9: 2\r\n", "A: 1\r\n\r\nX-\xc3\xa9: 2\r\n"},
        {"A: 1\r\nX-Hayauma-Tenant: t\r\nFrom x\r\nX-Hayauma-Tenant: u\r\n",
         "A: 1\r\n\r\nFrom x\r\nX-Hayauma-Tenant: u\r\n"},
        {"X-Hayauma-Tenant: t\r\nno field\r\n", "\r\nno field\r\n"},
        {"no field\r\n", "\r\nno field\r\n"},
        {" folded\r\nA: 1\r\n", "\r\n folded\r\nA: 1\r\n"},
        {"A: 1\r\n", "A: 1\r\n"},
        {"A: 1", "A: 1"},
        {"\r\n", "\r\n"},
        {"", "\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char room[200] = "..", *content = room + 2, *start;
        size_t len = strlen(rows[i].in), removed;
        struct trace_facts f, again;

        memcpy(content, rows[i].in, len + 1);
        scan(content, &f);
        removed = trace_strip((uint8_t *)content, &f);
        start = content + removed;
        start -= trace_border((uint8_t *)start, len - removed, &f);
        assert_str(str_of(start), rows[i].out);
        scan(start, &again);
        assert_int_equal(again.header_len, f.header_len);
        assert_int_equal(again.body_offset, f.body_offset);
        assert_int_equal(trace_border((uint8_t *)start, strlen(start), &again), 0);
    }
}

/* What is in front of a header, and what may be text. */
static void test_lead(void **state)
{
    static const struct {
        const char *in;
        size_t lead;
    } rows[] = {
        {"Subject: x\r\n", 0},
        {"From a@b Mon Jan  1\r\nSubject: x\r\n", 21},
        {"From a@b Mon Jan  1\nFrom: x\n", 20},
        {">From a@b\r\nX-A: y\r\nDate: x\r\n", 11},
        {"\xef\xbb\xbfSubject: x\r\n", 3},
        {"\r\nSubject: x\r\n", 2},
        {" \t\r\n\r\n\xef\xbb\xbf"
         "From a\r\nMessage-ID: <x>\r\n",
         17},
        {"From : a@b\r\nSubject: x\r\n", 0},
        {"From: a@b\r\nSubject: x\r\n", 0},
        {"From us all\r\nto you\r\n", 0},
        {"From us all\r\nNote: this\r\n", 0},
        {"\r\ntext\r\n", 0},
        {"\r\n\r\n", 0},
        {"\xef\xbb\xbf", 0},
        {"From ", 0},
        {"", 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        size_t len = strlen(rows[i].in);
        uint8_t *copy = malloc(len + (len == 0));

        memcpy(copy, rows[i].in, len);
        if (trace_lead(copy, len) != rows[i].lead)
            fail_msg("row %zu: %zu", i, trace_lead(copy, len));
        free(copy);
    }
}

static const struct msgid id = {{1, 0x99, 0, 0xff}};

static struct trace_stamp make_stamp(struct str helo)
{
    return (struct trace_stamp){.helo = helo,
                                .esmtp = true,
                                .peer_addr = "192.0.2.1",
                                .host_name = "mx.example.jp",
                                .id = &id,
                                .now_ms = INT64_C(1795308557000)};
}

static struct str stamp(char room[TRACE_STAMP_BYTES_MAX + 1], const struct trace_stamp *s,
                        const struct trace_facts *f)
{
    uint8_t *end = (uint8_t *)room + TRACE_STAMP_BYTES_MAX, *start;

    *end = 'E';
    start = trace_prepend(end, s, f);
    assert_int_equal(*end, 'E');
    return (struct str){(char *)start, (size_t)(end - start)};
}

static void test_stamp(void **state)
{
    char room[TRACE_STAMP_BYTES_MAX + 1];
    struct trace_facts whole = {.has_message_id = true, .has_date = true, .body_offset = 10};
    struct trace_facts none = {0};
    struct trace_stamp s = make_stamp(STR("client.example.com"));
    struct str text;

    (void)state;
    s.recipient = STR("a@example.org");
    assert_str(stamp(room, &s, &whole),
               "Received: from client.example.com ([192.0.2.1])\r\n"
               "\tby mx.example.jp with ESMTP id 019900ff000000000000000000000000\r\n"
               "\tfor <a@example.org>;\r\n\tSun, 22 Nov 2026 00:49:17 +0000\r\n");
    s.recipient = STR("a..b@docomo.example");
    assert_non_null(strstr(stamp(room, &s, &whole).ptr, "\tfor <\"a..b\"@docomo.example>;\r\n"));
    s.recipient = STR("");
    s.esmtp = false;
    s.peer_addr = "2001:db8::1";
    s.helo = STR("[IPv6:2001:db8::1]");
    assert_str(stamp(room, &s, &none),
               "Received: from [IPv6:2001:db8::1] ([IPv6:2001:db8::1])\r\n"
               "\tby mx.example.jp with SMTP id 019900ff000000000000000000000000;\r\n"
               "\tSun, 22 Nov 2026 00:49:17 +0000\r\n"
               "Message-ID: <019900ff000000000000000000000000@mx.example.jp>\r\n"
               "Date: Sun, 22 Nov 2026 00:49:17 +0000\r\n");
    s.author = STR("a..b@docomo.example");
    assert_non_null(strstr(stamp(room, &s, &none).ptr, "\r\nFrom: <\"a..b\"@docomo.example>\r\n"));
    s.author = STR("\xe3\x81\x82@example.jp");
    text = stamp(room, &s, &none);
    assert_null(memmem(text.ptr, text.len, "From:", 5));
    s.author = STR("a@example.jp");
    whole.has_from = true;
    text = stamp(room, &s, &whole);
    assert_null(memmem(text.ptr, text.len, "From:", 5));
}

static void test_protocols(void **state)
{
    char room[TRACE_STAMP_BYTES_MAX + 1], want[160];
    struct trace_facts f = {.has_message_id = true, .has_date = true, .body_offset = 10};
    static const char *const names[] = {
        "SMTP", "ESMTP",  "SMTP", "ESMTPS",  "UTF8SMTP",  "UTF8SMTP",  "UTF8SMTPS",  "UTF8SMTPS",
        "SMTP", "ESMTPA", "SMTP", "ESMTPSA", "UTF8SMTPA", "UTF8SMTPA", "UTF8SMTPSA", "UTF8SMTPSA"};

    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        struct trace_stamp s = make_stamp(STR("h"));
        struct str text;

        s.esmtp = i & 1;
        if ((i & 2) != 0) {
            s.tls_protocol = "TLSv1.3";
            s.tls_cipher = "TLS_AES_256_GCM_SHA384";
            s.tls_bits = 256;
        }
        s.smtputf8 = i & 4;
        s.auth = i & 8;
        s.peer_addr = NULL;
        text = stamp(room, &s, &f);
        snprintf(want, sizeof(want), "Received: from h%s\r\n\tby mx.example.jp with %s id ",
                 (i & 2) != 0
                     ? "\r\n\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256 bits))"
                     : "",
                 names[i]);
        assert_memory_equal(text.ptr, want, strlen(want));
    }
}

/* Whatever the client says, the stamp keeps its lines, is 7-bit and has no stray structure. */
static void test_hostile(void **state)
{
    char room[TRACE_STAMP_BYTES_MAX + 1], long_name[5000], every[256];
    struct trace_facts f = {0};
    struct str texts[8];

    (void)state;
    memset(long_name, 'a', sizeof(long_name));
    for (size_t i = 0; i < sizeof(every); i++)
        every[i] = (char)i;
    texts[0] = (struct str){long_name, sizeof(long_name)};
    texts[1] = (struct str){every, sizeof(every)};
    texts[2] = STR("x\r\nBcc: y");
    texts[3] = STR("[1.2.3.4");
    texts[4] = STR("(((");
    texts[5] = STR("\xe3\x81\x82");
    texts[6] = STR("[a]b]");
    texts[7] = STR("");
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct trace_stamp s = make_stamp(texts[i]);
        struct trace_facts seen;
        struct str text;

        s.recipient = s.author = texts[i];
        text = stamp(room, &s, &f);
        trace_scan((const uint8_t *)text.ptr, text.len, NULL, 0, &seen);
        assert_int_equal(seen.body_offset, text.len);
        assert_int_equal(seen.received, 1);
        assert_false(seen.eight_bit);
        assert_true(seen.has_message_id && seen.has_date);
        for (size_t k = 0; k < text.len; k++)
            assert_true((text.ptr[k] >= ' ' && text.ptr[k] <= '~') || text.ptr[k] == '\r' ||
                        text.ptr[k] == '\n' || text.ptr[k] == '\t');
    }
}

static void test_wanted_json_limits(void **state)
{
    static const char tail[] = "\",\"b\":\"q\\\"\\\\\\u0001\xef\xbf\xbd w\"}";
    static char content[3000];
    const struct str names[] = {STR("a"), STR("b")};
    struct trace_facts f;
    struct buf json = {0};

    (void)state;
    /* 511 ASCII bytes, then a two-byte character across the limit. */
    strcpy(content, "a: ");
    memset(content + 3, 'x', 511);
    strcpy(content + 514, "\xc3\xa9zzz\r\nb: q\"\\\x01\xff\r\n w\r\n\r\n");
    trace_scan((const uint8_t *)content, strlen(content), names, 2, &f);
    trace_wanted_json(&f, names, 2, &json);
    assert_memory_equal(json.data, "{\"a\":\"xxx", 9);
    assert_memory_equal(json.data + 6 + 511, tail, sizeof(tail) - 1);
    assert_int_equal(json.len, 6 + 511 + sizeof(tail) - 1);
    buf_clear(&json);
    scan("x: y\r\n", &f);
    trace_wanted_json(&f, names, 2, &json);
    assert_int_equal(json.len, 0);
    buf_done(&json);
}

static void test_dates(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } good[] = {
        {"0", 0},
        {" 1795308557 ", 1795308557},
        {"Thu, 01 Jan 1970 00:00:00 +0000", 0},
        {"1 Jan 1970 00:00 +0000", 0},
        {"Sun, 22 Nov 2026 00:49:17 +0000", 1795308557},
        {"Sun, 22 Nov 2026 00:49:17 +0900 (JST)", 1795308557 - 9 * 3600},
        {"Sat , 21 Nov 2026 16:49:17 PST", 1795308557},
        {"22 nov 26 00:49:17 GMT", 1795308557},
        {"22 Nov 126 00:49:17 Z", 1795308557},
        {"22\r\n Nov 2026 (c) 00:49:17 -0000", 1795308557},
        {"29 Feb 2028 00:00:00 +0000", 1835395200},
        {"31 Dec 2016 23:59:60 +0000", 1483228800},
        {"1 Jan 1960 00:00:00 +0000", -315619200},
    };
    static const char *const bad[] = {"",
                                      "x",
                                      "29 Feb 2026 00:00:00 +0000",
                                      "31 Apr 2026 00:00:00 +0000",
                                      "0 Jan 2026 00:00:00 +0000",
                                      "1 Foo 2026 00:00:00 +0000",
                                      "1 Jan 1899 00:00:00 +0000",
                                      "1 Jan 20260 00:00:00 +0000",
                                      "1 Jan 2026 24:00:00 +0000",
                                      "1 Jan 2026 00:60:00 +0000",
                                      "1 Jan 2026 00:00:00 +0060",
                                      "1 Jan 2026 00:00:00 +000",
                                      "1 Jan 2026 00:00:00 +0000 x",
                                      "1 Jan 2026",
                                      "(unclosed 1 Jan 2026 00:00:00 +0000",
                                      "99999999999999999999"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        int64_t ms = -1;

        if (trace_date_parse(str_of(good[i].text), &ms) != 0 || ms != good[i].seconds * 1000)
            fail_msg("%s: %lld", good[i].text, (long long)ms);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t ms = 77;

        if (trace_date_parse(str_of(bad[i]), &ms) == 0)
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(ms, 77);
    }
}

/* What programs print of a time, and what people write, beside the dates of mail. */
static void test_times(void **state)
{
    static const struct {
        const char *text;
        int64_t ms;
    } good[] = {
        {"2026-11-22T00:49:17Z", 1795308557000},
        {"2026-11-22T00:49:17.250Z", 1795308557250},
        {"2026-11-22T09:49:17,5+09:00", 1795308557500},
        {"2026-11-22T00:49:17", 1795308557000},
        {"20261122T004917Z", 1795308557000},
        {"Sun, 22 Nov 2026 00:49:17 +0000", 1795308557000},
        {"1795308557", 1795308557000},
    };
    static const char *const bad[] = {
        "", "tomorrow", "2026-11-22", "2026-11-22T00:49:17Zx",
        "2026-11-22T00:49:17.0000000000000000000000000000000000000000000000000000000000000000Z"};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        int64_t ms = -1;

        if (trace_time_parse(str_of(good[i].text), &ms) != 0 || ms != good[i].ms)
            fail_msg("%s: %lld", good[i].text, (long long)ms);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int64_t ms;

        if (trace_time_parse(str_of(bad[i]), &ms) == 0)
            fail_msg("accepted: %s", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),          cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_eight_bit),      cmocka_unit_test(test_private),
        cmocka_unit_test(test_private_errors), cmocka_unit_test(test_strip),
        cmocka_unit_test(test_border),         cmocka_unit_test(test_lead),
        cmocka_unit_test(test_stamp),          cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_hostile),        cmocka_unit_test(test_wanted_json_limits),
        cmocka_unit_test(test_dates),          cmocka_unit_test(test_times),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
