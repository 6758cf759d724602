/* The formats of keys and records: what is written is read back, what is damaged is noticed. */
#include "queue/testkit.h"

#include "base/crc32c.h"
#include "queue/codec.h"

struct sample {
    struct message *m;
    struct recipient *r;
    uint8_t key[ROW_KEY_MAX];
    size_t key_len;
};

static void sample_make(struct sample *s)
{
    msgid_source_init(&kit_ids, 7);
    s->m = kit_message(300, 3, 4);
    s->m->expires_ms = 1700000098765;
    s->r = recipient_new(s->m, 2, STR("example.org"), STR("user@example.org"),
                         STR("rfc822;user@example.org"), STR("{\"name\":\"x\"}"));
    s->r->flow = 0x01020304;
    s->r->due_ms = 1700000012345;
    s->r->notify = 5;
    s->r->flags = RECIPIENT_WARNED;
    s->r->attempts = 515;
    s->r->lifetime_s = 86400;
    s->r->last_attempt_ms = 1700000000001;
    recipient_set_error(s->r, STR("451 4.3.0 not now"));
    s->key_len =
        codec_row_key(s->key, s->r->flow, s->r->queue, s->r->due_ms, &s->m->id, s->r->index);
}

static void sample_free(struct sample *s)
{
    recipient_free(s->r);
    message_unref(s->m);
}

static void test_row_round_trip(void **state)
{
    struct row_state out;
    struct row_key key;
    struct sample s;
    uint8_t value[600];

    (void)state;
    sample_make(&s);
    codec_row_encode(value, (struct str){(char *)s.key, s.key_len}, s.r);
    assert_true(codec_row_key_parse((struct str){(char *)s.key, s.key_len}, &key));
    assert_true(str_eq(key.queue, s.r->queue));
    assert_int_equal(key.flow, 0x01020304);
    assert_int_equal(codec_row_key_flow((struct str){(char *)s.key, s.key_len}), 0x01020304);
    assert_int_equal(key.due_ms, s.r->due_ms);
    assert_int_equal(key.index, 2);
    assert_memory_equal(&key.id, &s.m->id, sizeof(key.id));
    assert_int_equal(codec_row_decode((struct str){(char *)s.key, s.key_len},
                                      (struct str){(char *)value, codec_row_bytes(s.r)}, &out),
                     0);
    assert_true(str_eq(out.address, s.r->address));
    assert_true(str_eq(out.orcpt, s.r->orcpt));
    assert_true(str_eq(out.variables, s.r->variables));
    assert_true(str_eq(out.last_error, s.r->last_error));
    assert_int_equal(out.notify, 5);
    assert_int_equal(out.flags, RECIPIENT_WARNED);
    assert_int_equal(out.attempts, 515);
    assert_int_equal(out.lifetime_s, 86400);
    assert_int_equal(out.last_attempt_ms, 1700000000001);
    sample_free(&s);
}

static void test_content_round_trip(void **state)
{
    struct content_record record;
    struct content_layout l;
    struct message fields;
    struct sample s;
    uint8_t value[1000];

    (void)state;
    sample_make(&s);
    s.m->flags = MESSAGE_8BIT | MESSAGE_DOT_LINES;
    s.m->ret = 2;
    s.m->dkim_domain = STR("brand.example");
    s.m->suppression = MESSAGE_SUPPRESSION_ANY;
    s.m->body_hash = (struct str){"\1\0hash", 6};
    l = codec_content_layout(s.m, 4096);
    assert_int_equal(l.pieces, 0);
    assert_int_equal(l.tail_bytes, 300);
    codec_content_encode(value, s.m, &l, false);
    assert_int_equal(codec_content_decode(&s.m->id,
                                          (struct str){(char *)value, l.head_bytes + l.tail_bytes},
                                          &fields, &record),
                     0);
    assert_int_equal(fields.content_len, 300);
    assert_int_equal(record.tail.len, 300);
    assert_memory_equal(record.tail.ptr, s.m->content, 300);
    assert_int_equal(record.crc, crc32c(0, s.m->content, 300));
    assert_int_equal(fields.flags, s.m->flags);
    assert_int_equal(fields.ret, 2);
    assert_int_equal(fields.priority, 4);
    assert_int_equal(fields.recipients, 3);
    assert_int_equal(fields.created_ms, s.m->created_ms);
    assert_int_equal(fields.expires_ms, 1700000098765);
    assert_true(str_eq(fields.sender, s.m->sender));
    assert_true(str_eq(fields.envid, s.m->envid));
    assert_true(str_eq(fields.tenant, s.m->tenant));
    assert_true(str_eq(fields.campaign, s.m->campaign));
    assert_true(str_eq(fields.meta, s.m->meta));
    assert_true(str_eq(fields.protocol, s.m->protocol));
    assert_true(str_eq(fields.origin, s.m->origin));
    assert_true(str_eq(fields.trace, s.m->trace));
    assert_true(str_eq(fields.dkim_domain, STR("brand.example")));
    assert_int_equal(fields.suppression, MESSAGE_SUPPRESSION_ANY);
    assert_true(str_eq(fields.body_hash, s.m->body_hash));
    s.m->suppression = MESSAGE_SUPPRESSION_NONE;
    s.m->dkim_domain = s.m->body_hash = STR(""); /* as it was made */
    sample_free(&s);
}

/* Runs decode on every truncation, on every single bit flip of value, and under a changed key. The
 * copy is exactly sized memory, so that a sanitizer sees a read outside. */
static void check_damage(const uint8_t *key, size_t key_len, const uint8_t *value, size_t len,
                         int (*decode)(struct str key, struct str value))
{
    uint8_t *copy, *key_copy = malloc(key_len);

    memcpy(key_copy, key, key_len);
    assert_int_equal(
        decode((struct str){(char *)key_copy, key_len}, (struct str){(const char *)value, len}), 0);
    for (size_t n = 0; n < len; n++) {
        copy = malloc(n == 0 ? 1 : n);
        memcpy(copy, value, n);
        assert_true(decode((struct str){(char *)key_copy, key_len}, (struct str){(char *)copy, n}) <
                    0);
        free(copy);
    }
    copy = malloc(len + 1);
    memcpy(copy, value, len);
    copy[len] = 0;
    assert_true(
        decode((struct str){(char *)key_copy, key_len}, (struct str){(char *)copy, len + 1}) < 0);
    for (size_t bit = 0; bit < len * 8; bit++) {
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true(
            decode((struct str){(char *)key_copy, key_len}, (struct str){(char *)copy, len}) < 0);
        copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    for (size_t bit = 0; bit < key_len * 8; bit++) {
        key_copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_true(
            decode((struct str){(char *)key_copy, key_len}, (struct str){(char *)copy, len}) < 0);
        key_copy[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(copy);
    free(key_copy);
}

static int decode_row(struct str key, struct str value)
{
    struct row_state out;

    return codec_row_decode(key, value, &out);
}

static struct msgid id_of(struct str key)
{
    struct msgid id;

    assert_int_equal(key.len, sizeof(id));
    memcpy(&id, key.ptr, sizeof(id));
    return id;
}

static int decode_content(struct str key, struct str value)
{
    struct msgid id = id_of(key);
    struct message out;

    return codec_content_decode(&id, value, &out, NULL);
}

static int decode_refs(struct str key, struct str value)
{
    struct msgid id = id_of(key);
    uint64_t count;

    return codec_refs_decode(&id, value, &count);
}

static int decode_outbox(struct str key, struct str value)
{
    struct outbox_entry entry;

    return codec_outbox_decode(key, value, &entry);
}

static int decode_state(struct str key, struct str value)
{
    struct str out;

    return codec_state_decode(key, value, &out);
}

static void test_flow_record(void **state)
{
    struct queue_flow flow = {.id = 77,
                              .priority = 3,
                              .tenant = STR("acme"),
                              .pool = STR("p"),
                              .envelope = STR("bounce.acme.example")};
    struct queue_flow back;
    uint8_t key[FLOW_KEY_BYTES], value[FLOW_VALUE_BYTES];
    struct str k = {(char *)key, sizeof(key)};
    size_t len;

    (void)state;
    codec_flow_key(key, flow.id);
    len = codec_flow_encode(value, &flow);
    assert_int_equal(codec_flow_decode(k, (struct str){(char *)value, len}, &back), 0);
    assert_int_equal(back.id, 77);
    assert_int_equal(back.priority, 3);
    assert_true(str_eq(back.tenant, flow.tenant));
    assert_true(str_eq(back.campaign, STR("")));
    assert_true(str_eq(back.pool, flow.pool));
    assert_true(str_eq(back.signer, STR("")));
    assert_true(str_eq(back.envelope, flow.envelope));
    value[0] = FLOW_PRIORITIES;
    assert_int_equal(codec_flow_decode(k, (struct str){(char *)value, len}, &back), -EBADMSG);
    assert_int_equal(codec_flow_decode(k, (struct str){(char *)value, 0}, &back), -EBADMSG);
}

static int decode_format(struct str key, struct str value)
{
    struct queue_format format;

    (void)key;
    return codec_format_decode(value, &format);
}

static void test_damage_is_noticed(void **state)
{
    struct outbox_entry entry = {5, 1700000000000, 4096, STR("{\"type\":\"Delivery\"}\n")};
    struct queue_format format = {.version = FORMAT_VERSION, .shards = 4, .shard = 1};
    uint8_t value[1000], key[OUTBOX_KEY_BYTES];
    struct content_layout l;
    struct sample s;

    (void)state;
    sample_make(&s);
    codec_row_encode(value, (struct str){(char *)s.key, s.key_len}, s.r);
    check_damage(s.key, s.key_len, value, codec_row_bytes(s.r), decode_row);
    /* The tail is under the content's checksum, not the head's. */
    s.m->content_len = 0;
    l = codec_content_layout(s.m, 4096);
    codec_content_encode(value, s.m, &l, false);
    check_damage(s.m->id.bytes, MSGID_BYTES, value, l.head_bytes, decode_content);
    codec_refs_encode(value, &s.m->id, 77);
    check_damage(s.m->id.bytes, MSGID_BYTES, value, REFS_BYTES, decode_refs);
    codec_sequence_key(key, 99);
    codec_outbox_encode(value, 99, &entry);
    check_damage(key, sizeof(key), value, OUTBOX_HEAD_BYTES + entry.lines.len, decode_outbox);
    codec_state_encode(value, STR("\x05name"), STR("something"));
    check_damage((const uint8_t *)"\x05name", 5, value, STATE_HEAD_BYTES + 9, decode_state);
    codec_format_encode(value, &format);
    check_damage((const uint8_t *)"", 0, value, FORMAT_BYTES, decode_format);
    sample_free(&s);
}

/* Where head and tail do not fit into a leaf together the tail is a piece of its own. */
static void test_layout(void **state)
{
    static const struct {
        uint64_t content;
        uint32_t pieces;
        bool tail; /* with the head */
    } cases[] = {
        {0, 0, true},
        {1, 0, true},
        {1500, 0, true},
        {2015, 1, false},
        {4079, 1, false},
        {4080, 1, true},
        {4081, 1, true},
        {4500, 1, true},
        {8159, 2, false},
        {8160, 2, true},
        {51200, 13, false},
        {50000, 12, true},
        {100000000, 24510, false},
    };
    struct sample s;

    (void)state;
    sample_make(&s);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct content_layout l;
        uint64_t sum;

        s.m->content_len = cases[i].content;
        l = codec_content_layout(s.m, 4096);
        sum = l.tail_bytes;
        for (uint32_t p = 0; p < l.pieces; p++) {
            size_t n = content_piece_bytes(&l, s.m->content_len, p);

            assert_true(n > 0 && n <= 4080 && (n == 4080 || p == l.pieces - 1));
            sum += n;
        }
        assert_int_equal(sum, s.m->content_len);
        assert_int_equal(l.pieces, cases[i].pieces);
        assert_int_equal(l.tail_bytes > 0 || s.m->content_len % 4080 == 0, cases[i].tail);
        assert_true(l.head_bytes + l.tail_bytes <= 2014);
    }
    s.m->content_len = 300;
    sample_free(&s);
}

/* Fields by tag: what a version does not know it passes by, up to 127; from there on it must not.
 */
static void test_unknown_fields(void **state)
{
    static const struct {
        const char *more;
        int result;
    } cases[] = {
        {"\x09\x02xy", 0},      {"\x7f\x01z", 0},           {"\x09\x01x\x0a\x01y", 0},
        {"\x80\x01z", -EPROTO}, {"\x09\x05xy", -EBADMSG},   {"\x0a\x01x\x09\x01y", -EBADMSG},
        {"\x09", -EBADMSG},     {"\x09\xff\xff", -EBADMSG}, {"\x01\x01z", -EBADMSG}};
    uint8_t value[1000];
    struct sample s;
    size_t len;

    (void)state;
    sample_make(&s);
    len = codec_row_bytes(s.r);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        size_t more = strlen(cases[i].more);
        struct row_state out;
        uint32_t crc;

        codec_row_encode(value, (struct str){(char *)s.key, s.key_len}, s.r);
        memcpy(value + len, cases[i].more, more);
        crc = crc32c(crc32c(0, s.key, s.key_len), value + 4, len + more - 4);
        memcpy(value, &crc, sizeof(crc));
        assert_int_equal(codec_row_decode((struct str){(char *)s.key, s.key_len},
                                          (struct str){(char *)value, len + more}, &out),
                         cases[i].result);
        if (cases[i].result < 0)
            continue;
        assert_true(str_eq(out.address, s.r->address));
        assert_true(str_eq(out.unknown, str_of(cases[i].more)));
    }
    sample_free(&s);
}

/* A row that is stored again takes along the fields of a newer build. */
static void test_unknown_fields_are_kept(void **state)
{
    static const struct str more = STR("\x09\x02xy\x7f\x01z");
    struct row_state out;
    uint8_t value[1000];
    struct sample s;
    struct str k, v;

    (void)state;
    sample_make(&s);
    k = (struct str){(char *)s.key, s.key_len};
    assert_int_equal(recipient_set_unknown(s.r, more), 0);
    recipient_set_error(s.r, STR("450 4.2.0 a longer text than before"));
    v = (struct str){(char *)value, codec_row_bytes(s.r)};
    codec_row_encode(value, k, s.r);
    assert_int_equal(codec_row_decode(k, v, &out), 0);
    assert_true(str_eq(out.unknown, more));
    assert_true(str_eq(out.last_error, s.r->last_error));
    assert_true(str_eq(out.variables, s.r->variables));
    sample_free(&s);
}

/* Flags change what mail is: one that is not known makes it a newer version's. */
static void test_unknown_flags(void **state)
{
    struct content_layout l;
    struct row_state out;
    uint8_t value[1000];
    struct sample s;
    struct str k, v;

    (void)state;
    sample_make(&s);
    k = (struct str){(char *)s.key, s.key_len};
    for (unsigned bit = 0; bit < 8; bit++) {
        s.r->flags = (uint8_t)(1u << bit);
        v = (struct str){(char *)value, codec_row_bytes(s.r)};
        codec_row_encode(value, k, s.r);
        assert_int_equal(codec_row_decode(k, v, &out), bit < 2 ? 0 : -EPROTO);
    }
    for (unsigned bit = 0; bit < 32; bit++) {
        struct message fields;

        s.m->flags = 1u << bit;
        l = codec_content_layout(s.m, 4096);
        v = (struct str){(char *)value, l.head_bytes + l.tail_bytes};
        codec_content_encode(value, s.m, &l, false);
        assert_int_equal(codec_content_decode(&s.m->id, v, &fields, NULL), bit < 5 ? 0 : -EPROTO);
    }
    sample_free(&s);
}

/* Keys sort by flow, name, due time, id, index; a lane's rows are not split by a longer name. */
static void test_keys_sort(void **state)
{
    static const struct {
        uint32_t flow;
        const char *lane;
        int64_t due_ms;
        uint8_t id;
        uint32_t index;
    } rows[] = {
        /* What was due when its message was made (at 256 ms times id)... */
        {1, "a", 0, 0, 0},
        {1, "a", 0, 0, 1},
        {1, "a", 0, 0, UINT32_MAX},
        {1, "a", 0, 1, 0},
        {1, "a", 255, 1, 0},
        {1, "a", 256, 1, 0},
        {1, "a-b", 0, 0, 0},
        {1, "ab", 0, 0, 0},
        {2, "a", 0, 0, 0},
        {256, "a", 0, 0, 0},
        /* ...before what was not. */
        {1, "a", 1, 0, 0},
        {1, "a", 257, 1, 0},
        {1, "a", QUEUE_DUE_HELD, 0, 0},
        {1, "a", QUEUE_DUE_HELD, 255, UINT32_MAX},
        {1, "a-b", 1, 0, 0},
        {1, "a.b", 1, 0, 0},
        {1, "ab", 1, 0, 0},
        {UINT32_MAX, "a", 1, 0, 0},
    };
    uint8_t before[ROW_KEY_MAX], key[ROW_KEY_MAX];
    size_t before_len = 0, len;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct msgid id = {{0, 0, 0, 0, rows[i].id}};

        len = codec_row_key(key, rows[i].flow, str_of(rows[i].lane), rows[i].due_ms, &id,
                            rows[i].index);
        assert_true(memcmp(before, key, before_len < len ? before_len : len) < 0 || i == 0);
        memcpy(before, key, len);
        before_len = len;
    }
}

static void test_other_versions(void **state)
{
    static const uint32_t versions[] = {FORMAT_VERSION - 1, FORMAT_VERSION + 1,
                                        FORMAT_VERSION | FORMAT_DRAFT};
    uint8_t value[FORMAT_BYTES];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(versions); i++) {
        struct queue_format format = {.version = versions[i], .shards = 4, .shard = 1};

        codec_format_encode(value, &format);
        assert_int_equal(codec_format_decode((struct str){(char *)value, sizeof(value)}, &format),
                         -EPROTO);
        assert_int_equal(format.version, versions[i]);
    }
}

/* What a later build may add to the format's record: fields, passed by; what it needs, refused. */
static void test_format_grows(void **state)
{
    static const struct {
        uint64_t needs;
        const char *more;
        int result;
    } cases[] = {{0, "\x01\x02xy", 0},
                 {0, "\x80\x01x", -EPROTO},
                 {0, "\x01\x05x", -EBADMSG},
                 {FORMAT_NEEDS_KNOWN, "", 0},
                 {FORMAT_NEEDS_KNOWN + 1, "", -EPROTO},
                 {UINT64_C(1) << 63, "", -EPROTO}};
    uint8_t value[FORMAT_BYTES + 8];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct queue_format format = {
            .version = FORMAT_VERSION, .shards = 4, .needs = cases[i].needs};
        size_t len = FORMAT_BYTES + strlen(cases[i].more);
        uint32_t crc;

        codec_format_encode(value, &format);
        memcpy(value + FORMAT_BYTES, cases[i].more, len - FORMAT_BYTES);
        crc = crc32c(crc32c(0, "format", 6), value + 4, len - 4);
        memcpy(value, &crc, sizeof(crc));
        format = (struct queue_format){0};
        assert_int_equal(codec_format_decode((struct str){(char *)value, len}, &format),
                         cases[i].result);
        assert_int_equal(format.version, FORMAT_VERSION);
        assert_true(format.needs == cases[i].needs);
    }
}

static void test_rows_that_do_not_fit(void **state)
{
    static const char nul[] = {'a', 0, 'b'};
    char name[QUEUE_NAME_MAX + 1];
    struct sample s;
    struct recipient r;

    (void)state;
    memset(name, 'a', sizeof(name));
    sample_make(&s);
    assert_true(codec_row_valid(s.r));
    r = *s.r;
    r.queue = (struct str){name, QUEUE_NAME_MAX};
    assert_true(codec_row_valid(&r));
    r.queue = (struct str){name, QUEUE_NAME_MAX + 1};
    assert_false(codec_row_valid(&r));
    r.queue = (struct str){nul, sizeof(nul)};
    assert_false(codec_row_valid(&r));
    r.queue = (struct str){name, 0};
    assert_false(codec_row_valid(&r));
    r = *s.r;
    r.due_ms = QUEUE_DUE_HELD + 1;
    assert_false(codec_row_valid(&r));
    r.due_ms = -1;
    assert_false(codec_row_valid(&r));
    sample_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_row_round_trip),
        cmocka_unit_test(test_content_round_trip),
        cmocka_unit_test(test_damage_is_noticed),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_flow_record),
        cmocka_unit_test(test_unknown_fields),
        cmocka_unit_test(test_unknown_fields_are_kept),
        cmocka_unit_test(test_unknown_flags),
        cmocka_unit_test(test_keys_sort),
        cmocka_unit_test(test_other_versions),
        cmocka_unit_test(test_format_grows),
        cmocka_unit_test(test_rows_that_do_not_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
