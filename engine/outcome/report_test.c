#include "outcome/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

static struct message make_message(void)
{
    return (struct message){.id = {{1, 0x99, 0xab}},
                            .created_ms = INT64_C(1795308557123),
                            .recipients = 3,
                            .sender = STR("news@example.jp"),
                            .protocol = STR("ESMTP")};
}

static struct smtp_reply make_reply(uint16_t code, struct smtp_enhanced enhanced, struct str text)
{
    struct smtp_reply r = {.code = code, .enhanced = enhanced, .text_len = (uint16_t)text.len};

    memcpy(r.text, text.ptr, text.len);
    return r;
}

static struct report_event make_event(const struct message *m, const struct smtp_reply *reply)
{
    return (struct report_event){.type = REPORT_DELIVERY,
                                 .node_id = "node1.example.jp",
                                 .timestamp_ms = INT64_C(1795308559456),
                                 .message = m,
                                 .recipient = STR("a@example.org"),
                                 .queue = STR("example.org"),
                                 .site = STR("(mx1|mx2).example.org"),
                                 .reply = reply,
                                 .command = ".",
                                 .peer_name = "mx1.example.org",
                                 .peer_addr = "192.0.2.25:25",
                                 .source_name = "main",
                                 .source_addr = "198.51.100.7:40000",
                                 .attempts = 2,
                                 .delivery_protocol = "ESMTP",
                                 .session_id = "9bcd689e-23d9-41b7-a015-63a1382f8b57",
                                 .size = 4096,
                                 .connect_ms = 5,
                                 .transaction_ms = 11};
}

/* The line's one JSON object; fails when it is not exactly one line with exactly one object. */
static json_t *parse_line(const struct buf *b)
{
    json_error_t error;
    json_t *object;

    assert_true(b->len > 0 && b->data[b->len - 1] == '\n');
    for (size_t i = 0; i + 1 < b->len; i++)
        assert_true(b->data[i] >= ' ');
    object =
        json_loadb((const char *)b->data, b->len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (object == NULL)
        fail_msg("%s at %d: %.*s", error.text, error.position, (int)b->len, (char *)b->data);
    assert_true(json_is_object(object));
    return object;
}

static void test_delivery(void **state)
{
    static const char want[] =
        "{\"type\":\"Delivery\",\"id\":\"0199ab00000000000000000000000000\","
        "\"sender\":\"news@example.jp\",\"recipient\":\"a@example.org\",\"queue\":\"example.org\","
        "\"site\":\"(mx1|mx2).example.org\",\"size\":4096,\"response\":{\"code\":250,"
        "\"enhanced_code\":{\"class\":2,\"subject\":0,\"detail\":0},\"content\":\"OK queued\","
        "\"command\":\".\"},\"peer_address\":{\"name\":\"mx1.example.org\",\"addr\":\"192.0.2.25\"}"
        ","
        "\"timestamp\":1795308559,\"created\":1795308557,\"num_attempts\":2,"
        "\"bounce_classification\":\"Uncategorized\",\"egress_pool\":null,\"egress_source\":"
        "\"main\","
        "\"source_address\":{\"address\":\"198.51.100.7:40000\"},\"feedback_report\":null,"
        "\"meta\":{},\"headers\":{},\"delivery_protocol\":\"ESMTP\",\"reception_protocol\":"
        "\"ESMTP\","
        "\"nodeid\":\"node1.example.jp\",\"session_id\":\"9bcd689e-23d9-41b7-a015-63a1382f8b57\","
        "\"timestamp_ms\":1795308559456,\"num_recipients\":3,\"queue_ms\":2333,\"connect_ms\":5,"
        "\"transaction_ms\":11}\n";
    struct message m = make_message();
    struct smtp_reply reply = make_reply(250, (struct smtp_enhanced){2, 0, 0}, STR("OK queued"));
    struct report_event e = make_event(&m, &reply);
    struct buf b = {0};

    (void)state;
    report_line(&b, &e);
    buf_putc(&b, '\0');
    assert_string_equal((char *)b.data, want);
    buf_done(&b);
}

/* What is said of TLS: KumoMTA's fields where the session was encrypted, else why not. */
static void test_tls(void **state)
{
    static const struct {
        struct report_tls tls;
        const char *want;
    } rows[] = {
        {{.policy = "verify",
          .protocol = "TLSv1.3",
          .cipher = "TLS_AES_256_GCM_SHA384",
          .verification = "verified",
          .resumed = true,
          .plaintext = "not this"},
         "{\"tls_cipher\":\"TLS_AES_256_GCM_SHA384\",\"tls_protocol_version\":\"TLSv1.3\","
         "\"tls_policy\":\"verify\",\"tls_verification\":\"verified\",\"tls_resumed\":true}"},
        {{.policy = "may", .plaintext = "STARTTLS was refused: \"no\""},
         "{\"tls_policy\":\"may\",\"tls_plaintext\":\"STARTTLS was refused: \\\"no\\\"\"}"},
        {{.policy = "encrypt"}, "{\"tls_policy\":\"encrypt\"}"},
    };
    struct message m = make_message();

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct report_event e = make_event(&m, NULL);
        json_t *line, *found = json_object(), *want, *value;
        struct buf b = {0};
        const char *key;

        e.tls = &rows[i].tls;
        report_line(&b, &e);
        line = parse_line(&b);
        json_object_foreach(line, key, value)
        {
            if (strncmp(key, "tls_", 4) == 0)
                json_object_set(found, key, value);
        }
        want = json_loads(rows[i].want, 0, NULL);
        assert_true(json_equal(found, want));
        json_decref(line);
        json_decref(found);
        json_decref(want);
        buf_done(&b);
    }
}

/* The type of each field, as KumoMTA's documentation has it; o optional, n may be null. */
static void check_types(const json_t *o)
{
    json_error_t error;
    int code, attempts;
    json_int_t size, timestamp, created;
    const char *text;
    json_t *command, *enhanced, *peer, *source, *meta, *headers, *pool, *report, *delivery,
        *reception;

    if (json_unpack_ex(
            (json_t *)(uintptr_t)o, &error, 0,
            "{s:s,s:s,s:s,s:s,s:s,s:s,s:I,s:{s:i,s:o,s:s,s:o},s:o,s:I,s:I,s:i,s:s,s:o,s:o,"
            "s:o,s:o,s:o,s:o,s:o,s:s}",
            "type", &text, "id", &text, "sender", &text, "recipient", &text, "queue", &text, "site",
            &text, "size", &size, "response", "code", &code, "enhanced_code", &enhanced, "content",
            &text, "command", &command, "peer_address", &peer, "timestamp", &timestamp, "created",
            &created, "num_attempts", &attempts, "bounce_classification", &text, "egress_pool",
            &pool, "source_address", &source, "feedback_report", &report, "meta", &meta, "headers",
            &headers, "delivery_protocol", &delivery, "reception_protocol", &reception, "nodeid",
            &text) != 0)
        fail_msg("%s", error.text);
    assert_true(json_is_object(meta) && json_is_object(headers));
    assert_true(json_is_null(command) || json_is_string(command));
    assert_true(json_is_null(report) && (json_is_null(pool) || json_is_string(pool)));
    assert_true(json_is_null(enhanced) || json_object_size(enhanced) == 3);
    assert_true(json_is_null(peer) || json_object_size(peer) == 2);
    assert_true(json_is_null(source) || json_is_object(source));
}

static void test_every_type_sparse(void **state)
{
    struct buf b = {0};

    (void)state;
    for (int type = REPORT_RECEPTION; type <= REPORT_REJECTION; type++) {
        struct message m = make_message();
        struct report_event e = {.type = (enum report_type)type,
                                 .node_id = "n",
                                 .sender = STR("s@x"),
                                 .next_attempt_ms = 12345678};
        json_t *o;

        if (type != REPORT_REJECTION)
            e.message = &m;
        buf_clear(&b);
        report_line(&b, &e);
        o = parse_line(&b);
        check_types(o);
        assert_string_equal(json_string_value(json_object_get(o, "type")),
                            report_type_name((enum report_type)type));
        assert_int_equal(json_object_get(o, "next_attempt") != NULL, type == REPORT_TRANSIENT);
        json_decref(o);
    }
    buf_done(&b);
}

static void test_rejection(void **state)
{
    struct smtp_reply reply = make_reply(550, (struct smtp_enhanced){5, 7, 1}, STR("no relay"));
    struct report_event e = {.type = REPORT_REJECTION,
                             .node_id = "n",
                             .timestamp_ms = 5500,
                             .sender = STR("s@x"),
                             .reply = &reply,
                             .command = "RCPT TO",
                             .peer_name = "",
                             .peer_addr = "[2001:db8::1]:4711"};
    struct buf b = {0};
    json_t *o;

    (void)state;
    report_line(&b, &e);
    o = parse_line(&b);
    assert_string_equal(json_string_value(json_object_get(o, "sender")), "s@x");
    assert_string_equal(json_string_value(json_object_get(o, "id")), "");
    assert_int_equal(json_integer_value(json_object_get(o, "created")), 5);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(o, "peer_address"), "addr")),
        "2001:db8::1");
    json_decref(o);
    buf_done(&b);
}

static void test_addresses(void **state)
{
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"192.0.2.1:25", "192.0.2.1"},
        {"192.0.2.1", "192.0.2.1"},
        {"[::1]:25", "::1"},
        {"2001:db8::1", "2001:db8::1"},
        {"unix:/run/lmtp", "unix:/run/lmtp"},
        {"", ""},
        {":", ":"},
        {"[]:1", "[]:1"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct report_event e = {.type = REPORT_REJECTION, .node_id = "n", .peer_addr = rows[i].in};
        struct buf b = {0};
        json_t *o;

        report_line(&b, &e);
        o = parse_line(&b);
        assert_string_equal(
            json_string_value(json_object_get(json_object_get(o, "peer_address"), "addr")),
            rows[i].out);
        json_decref(o);
        buf_done(&b);
    }
}

static void check_meta(struct message *m, const char *want)
{
    struct report_event e = make_event(m, NULL);
    struct buf b = {0};
    json_t *o, *w = json_loads(want, 0, NULL);

    report_line(&b, &e);
    o = parse_line(&b);
    assert_non_null(w);
    if (!json_equal(json_object_get(o, "meta"), w))
        fail_msg("%.*s", (int)b.len, (char *)b.data);
    json_decref(w);
    json_decref(o);
    buf_done(&b);
}

static void test_meta(void **state)
{
    struct message m = make_message();

    (void)state;
    m.meta = STR("{\"a\":[1,{\"b\":null}]}");
    m.trace = STR("{\"Subject\":\"x\"}");
    check_meta(&m, "{\"a\":[1,{\"b\":null}]}");
    m.campaign = STR("spring");
    check_meta(&m, "{\"campaign\":\"spring\",\"a\":[1,{\"b\":null}]}");
    m.tenant = STR("ac\"me");
    m.meta = STR("{ }");
    check_meta(&m, "{\"tenant\":\"ac\\\"me\",\"campaign\":\"spring\"}");
    m.meta = STR("");
    check_meta(&m, "{\"tenant\":\"ac\\\"me\",\"campaign\":\"spring\"}");
    m.campaign = m.tenant = STR("");
    m.meta = STR("{\"a\":\n1}");
    check_meta(&m, "{}");
    m.meta = STR("[1]");
    check_meta(&m, "{}");
}

/* Each byte value, alone and around others, at each position of a word. */
static void test_hostile_bytes(void **state)
{
    struct message m = make_message();
    struct buf b = {0};

    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        for (size_t at = 0; at < 18; at++) {
            char text[18];
            struct smtp_reply reply;
            struct report_event e;
            json_t *o;

            memset(text, 'x', sizeof(text));
            text[at] = (char)c;
            reply = make_reply(450, (struct smtp_enhanced){0}, (struct str){text, sizeof(text)});
            e = make_event(&m, &reply);
            m.sender = e.recipient = e.queue = e.site = (struct str){text, at + 1};
            buf_clear(&b);
            report_line(&b, &e);
            o = parse_line(&b);
            if (c > 0 && c < 0x80)
                assert_memory_equal(
                    json_string_value(json_object_get(json_object_get(o, "response"), "content")),
                    text, sizeof(text));
            json_decref(o);
        }
    }
    buf_done(&b);
}

static void test_hostile_long(void **state)
{
    enum { BYTES = 65536 };
    char *text = malloc(BYTES);
    struct message m = make_message();
    struct report_event e = make_event(&m, NULL);
    struct buf b = {0};
    uint32_t seed = 1;

    (void)state;
    for (int round = 0; round < 20; round++) {
        json_t *o;

        for (size_t i = 0; i < BYTES; i++) {
            seed = seed * 1664525 + 1013904223;
            text[i] = (char)(seed >> 24);
        }
        m.sender = e.recipient = e.queue = e.site = (struct str){text, BYTES};
        m.tenant = m.campaign = (struct str){text, BYTES / 2};
        buf_clear(&b);
        report_line(&b, &e);
        o = parse_line(&b);
        check_types(o);
        json_decref(o);
    }
    buf_done(&b);
    free(text);
}

/* The examples of docs/records.md are lines that this code could have written. */
static void check_feedback(const char *line)
{
    struct buf b = {0};

    report_feedback(&b, "mail1.example.jp", 1795359602000, "signer:news.example.com", "google", 2);
    buf_putc(&b, 0);
    assert_string_equal((char *)b.data, line);
    buf_clear(&b);
    report_feedback(&b, "m", 1000, "campaign:spring", "au", 1);
    buf_putc(&b, 0);
    assert_non_null(strstr((char *)b.data, "\"campaign\":\"spring\",\"provider\":\"au\""));
    buf_done(&b);
}

static void check_unsubscription(const char *line)
{
    const struct suppression one = {.tenant = "acme",
                                    .address = "hanako@example.org",
                                    .reason = SUPPRESSION_UNSUBSCRIBED,
                                    .at_ms = 1795359602123,
                                    .campaign = "spring2026"};
    struct msgid campaign;
    struct buf b = {0};

    assert_int_equal(msgid_parse(STR("019ab16819837004881c2a5501fe903b"), &campaign), 0);
    report_unsubscription(&b, "mail1.example.jp", &one, &campaign);
    buf_putc(&b, 0);
    assert_string_equal((char *)b.data, line);
    buf_done(&b);
}

/* The example in docs/records.md is what is written. */
static void check_warmup(const char *line)
{
    const struct warmup_past past = {.day = 20778,
                                     .stage = 3,
                                     .cap = 550,
                                     .used = 550,
                                     .events = {547, 2, 1, 0},
                                     .verdict = WARMUP_ADVANCED};
    struct report_warmup w = {.node_id = "mail1.example.jp",
                              .source = "new",
                              .provider = "google",
                              .timestamp_ms = 1795359602000,
                              .past = &past,
                              .next_stage = 4,
                              .next_cap = 770};
    struct buf b = {0};

    report_warmup(&b, &w);
    buf_putc(&b, 0);
    assert_string_equal((char *)b.data, line);
    w.next_cap = WARMUP_NO_CAP;
    buf_clear(&b);
    report_warmup(&b, &w);
    buf_putc(&b, 0);
    assert_non_null(strstr((char *)b.data, "\"next_cap\":null,"));
    buf_done(&b);
}

/* The documented line of a rule, from the same facts. */
static void check_rule(const char *line)
{
    struct smtp_reply reply = {.code = 421, .enhanced = {4, 7, 28}};
    const struct report_rule r = {.node_id = "mail1.example.jp",
                                  .rule = "google-source",
                                  .provider = "google",
                                  .source = "default",
                                  .site = STR("google"),
                                  .reply = &reply,
                                  .timestamp_ms = INT64_C(1795308559456),
                                  .until_ms = INT64_C(1795309159456),
                                  .scope = "source_site",
                                  .name = "default@google"};
    struct buf b = {0};

    reply.text_len = (uint16_t)snprintf(
        reply.text, sizeof(reply.text),
        "Gmail has detected an unusual rate of email originating from your IP address");
    report_rule(&b, &r);
    buf_putc(&b, 0);
    assert_string_equal((const char *)b.data, line);
    buf_done(&b);
}

static void test_rule_fields(void **state)
{
    struct message m = make_message();
    struct report_event e = make_event(&m, NULL);
    struct buf b = {0};
    json_t *o;

    (void)state;
    e.rule = "docomo-filter";
    e.no_suppression = true;
    report_line(&b, &e);
    o = parse_line(&b);
    assert_string_equal(json_string_value(json_object_get(o, "rule")), "docomo-filter");
    assert_true(json_is_false(json_object_get(o, "suppress")));
    json_decref(o);
    buf_clear(&b);
    e.no_suppression = false;
    report_line(&b, &e);
    o = parse_line(&b);
    assert_null(json_object_get(o, "suppress"));
    json_decref(o);
    buf_done(&b);
}

static void test_documented(void **state)
{
    static const struct {
        const char *type;
        void (*check)(const char *line);
    } others[] = {{"Warmup", check_warmup}, /* they are of no message in the queue */
                  {"Feedback", check_feedback},
                  {"Unsubscription", check_unsubscription},
                  {"Rule", check_rule}};
    FILE *f = fopen(TEST_SOURCE_DIR "/../../docs/records.md", "r");
    unsigned seen = 0, others_seen = 0;
    char line[4096];

    (void)state;
    assert_non_null(f);
    while (fgets(line, sizeof(line), f) != NULL) {
        json_t *o;
        const char *type;
        size_t other = 0;

        if (line[0] != '{')
            continue;
        o = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(o);
        type = json_string_value(json_object_get(o, "type"));
        while (other < ARRAY_LEN(others) && strcmp(type, others[other].type) != 0)
            other++;
        if (other < ARRAY_LEN(others)) {
            others[other].check(line);
            others_seen |= 1u << other;
            json_decref(o);
            continue;
        }
        check_types(o);
        for (unsigned t = REPORT_RECEPTION; t <= REPORT_REJECTION; t++)
            if (strcmp(type, report_type_name((enum report_type)t)) == 0)
                seen |= 1u << t;
        json_decref(o);
    }
    fclose(f);
    assert_int_equal(others_seen, (1u << ARRAY_LEN(others)) - 1);
    for (unsigned t = REPORT_RECEPTION; t <= REPORT_REJECTION; t++)
        if (t != REPORT_ADMIN_REBIND && t != REPORT_DELAYED)
            assert_true((seen >> t & 1) != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delivery),          cmocka_unit_test(test_tls),
        cmocka_unit_test(test_every_type_sparse), cmocka_unit_test(test_rejection),
        cmocka_unit_test(test_addresses),         cmocka_unit_test(test_meta),
        cmocka_unit_test(test_hostile_bytes),     cmocka_unit_test(test_hostile_long),
        cmocka_unit_test(test_rule_fields),       cmocka_unit_test(test_documented),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
