/* Signatures: the RFCs' examples byte for byte, canonical forms, what is covered, how it is folded.
 */
#include "mail/dkim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/base64.h"
#include "mail/dkim_reader.h"
#include "mail/dkim_vectors.h"

static struct dkim_key *key_of(const char *pem)
{
    struct dkim_key *key;
    const char *why = "";

    if (dkim_key_parse(&key, pem, strlen(pem), &why) != 0)
        fail_msg("%s", why);
    return key;
}

static const uint8_t *bytes_of(const char *text)
{
    return (const uint8_t *)text;
}

/* --- the RFCs' examples --- */

static const struct example {
    const char *key, *message, *field, *names, *signature;
    bool relaxed;
} examples[] = {
    {RFC6376_KEY, RFC6376_MESSAGE, RFC6376_FIELD, "Received:From:To:Subject:Date:Message-ID",
     RFC6376_SIGNATURE, false},
    {RFC8463_ED25519_KEY, RFC8463_MESSAGE, RFC8463_ED25519_FIELD,
     "from:to:subject:date:message-id:from:subject:date", RFC8463_ED25519_SIGNATURE, true},
    {RFC8463_RSA_KEY, RFC8463_MESSAGE, RFC8463_RSA_FIELD,
     "from:to:subject:date:message-id:from:subject:date", RFC8463_RSA_SIGNATURE, true},
};

static void check_example(const struct example *e)
{
    struct dkim_key *key = key_of(e->key);
    const char *body = strstr(e->message, "\r\n\r\n") + 4;
    uint8_t hash[DKIM_HASH_BYTES], signature[DKIM_SIGNATURE_BYTES];
    static struct str names[READER_NAMES_MAX];
    struct buf text = {0};
    struct dkim_body b;
    size_t len, n = reader_names(str_of(e->names), names);

    assert_int_equal(dkim_body_begin(&b, e->relaxed), 0);
    dkim_body_add(&b, bytes_of(body), strlen(body));
    assert_int_equal(dkim_body_end(&b, hash), 0);
    base64_put(&text, (struct str){(const char *)hash, sizeof(hash)});
    assert_true(str_eq(buf_str(&text), STR(RFC6376_BODY_HASH)));
    buf_clear(&text);
    assert_int_equal(dkim_header_hash(bytes_of(e->message), strlen(e->message), e->relaxed, names,
                                      n, str_of(e->field), hash),
                     0);
    assert_int_equal(dkim_key_sign(key, hash, signature, &len), 0);
    base64_put(&text, (struct str){(const char *)signature, len});
    assert_true(str_eq(buf_str(&text), str_of(e->signature)));
    buf_done(&text);
    dkim_key_free(key);
}

static void test_examples(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(examples); i++)
        check_example(&examples[i]);
}

static void test_public_keys(void **state)
{
    struct dkim_key *rsa = key_of(RFC8463_RSA_KEY), *ed25519 = key_of(RFC8463_ED25519_KEY);
    struct buf text = {0};

    (void)state;
    assert_int_equal(dkim_key_public(rsa, &text), 0);
    assert_true(str_eq(buf_str(&text), STR(RFC8463_RSA_PUBLIC)));
    buf_clear(&text);
    assert_int_equal(dkim_key_public(ed25519, &text), 0);
    assert_true(str_eq(buf_str(&text), STR(RFC8463_ED25519_PUBLIC)));
    buf_done(&text);
    dkim_key_free(rsa);
    dkim_key_free(ed25519);
}

/* --- canonical forms --- */

static void hash_of(const char *text, uint8_t out[DKIM_HASH_BYTES])
{
    struct dkim_hash *h = dkim_hash_new();

    assert_non_null(h);
    dkim_hash_add(h, text, strlen(text));
    assert_int_equal(dkim_hash_end(h, out), 0);
}

static const struct {
    const char *body, *simple, *relaxed;
} bodies[] = {
    {"", "\r\n", ""},
    {"\r\n", "\r\n", ""},
    {"\r\n\r\n\r\n", "\r\n", ""},
    {"a", "a\r\n", "a\r\n"},
    {"a\r\n", "a\r\n", "a\r\n"},
    {"a\r\n\r\n\r\n", "a\r\n", "a\r\n"},
    {"\r\n\r\na\r\n", "\r\n\r\na\r\n", "\r\n\r\na\r\n"},
    {" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"}, /* RFC 6376 3.4.5 */
    {" \t \r\n", " \t \r\n", ""},
    {"a\r\n \r\n\t\r\n", "a\r\n \r\n\t\r\n", "a\r\n"},
    {"a\r\n \r\nb", "a\r\n \r\nb\r\n", "a\r\n\r\nb\r\n"},
    {"a\t\tb  c\r\n", "a\t\tb  c\r\n", "a b c\r\n"},
    {"  a\r\n", "  a\r\n", " a\r\n"},
    {"a ", "a \r\n", "a\r\n"},
    {"a\r", "a\r\r\n", "a\r\r\n"},
    {"a \rb\nc \n\r\n", "a \rb\nc \n\r\n", "a \rb\nc \n\r\n"},
    {"\r\r\n", "\r\r\n", "\r\r\n"},
    {".\r\n..\r\n", ".\r\n..\r\n", ".\r\n..\r\n"},
};

/* The body comes in two pieces, cut at each place, and byte by byte. */
static void check_body(const char *body, bool relaxed, const char *want)
{
    uint8_t expected[DKIM_HASH_BYTES], got[DKIM_HASH_BYTES];
    size_t len = strlen(body);
    struct dkim_body b;

    hash_of(want, expected);
    for (size_t cut = 0; cut <= len + 1; cut++) {
        assert_int_equal(dkim_body_begin(&b, relaxed), 0);
        if (cut > len) {
            for (size_t i = 0; i < len; i++)
                dkim_body_add(&b, bytes_of(body) + i, 1);
        } else {
            dkim_body_add(&b, bytes_of(body), cut);
            dkim_body_add(&b, bytes_of(body) + cut, len - cut);
        }
        assert_int_equal(dkim_body_end(&b, got), 0);
        assert_memory_equal(got, expected, sizeof(got));
    }
}

static void test_bodies(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        check_body(bodies[i].body, false, bodies[i].simple);
        check_body(bodies[i].body, true, bodies[i].relaxed);
    }
}

/* Runs longer than the room they are gathered in, at its edges. */
static void test_long_bodies(void **state)
{
    (void)state;
    for (size_t len = 1000; len < 1060; len++) {
        char *body = calloc(1, 2 * len + 8), *want = calloc(1, 2 * len + 8);

        assert_non_null(body);
        assert_non_null(want);
        memset(body, 'x', len);
        memcpy(body + len, " \r\n", 3);
        memset(body + len + 3, 'y', len);
        memset(want, 'x', len);
        memcpy(want + len, "\r\n", 2);
        memset(want + len + 2, 'y', len);
        strcat(want, "\r\n");
        check_body(body, true, want);
        strcat(body, "\r\n");
        check_body(body, false, body);
        free(body);
        free(want);
    }
}

static void hash_body(const uint8_t *body, size_t len, size_t piece, uint8_t out[DKIM_HASH_BYTES])
{
    struct dkim_body b;

    assert_int_equal(dkim_body_begin(&b, true), 0);
    for (size_t at = 0; at < len; at += piece)
        dkim_body_add(&b, body + at, piece < len - at ? piece : len - at);
    assert_int_equal(dkim_body_end(&b, out), 0);
}

/* What is looked at in blocks has the hash of what comes byte by byte, wherever in a block white
 * space, line ends and halves of them stand. */
static void test_blocks(void **state)
{
    static const char bytes[] = "aaaaaaaaaaaaaa  \t\r\n\n";
    uint8_t body[200], want[DKIM_HASH_BYTES], got[DKIM_HASH_BYTES];
    uint32_t chance = 1;

    (void)state;
    for (int round = 0; round < 20000; round++) {
        size_t len = 0;

        while (len < sizeof(body) - 2) {
            chance = chance * 1103515245 + 12345;
            body[len++] = (uint8_t)bytes[chance / 65536 % (sizeof(bytes) - 1)];
            if (chance / 65536 % 29 == 0) {
                body[len++] = '\r';
                body[len++] = '\n';
            }
        }
        hash_body(body, len, 1, want);
        hash_body(body, len, len, got);
        assert_memory_equal(got, want, sizeof(got));
    }
}

static void test_fields(void **state)
{
    static const struct {
        const char *field, *relaxed;
    } rows[] = {
        {"A: X\r\n", "a:X\r\n"},
        {"B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"}, /* RFC 6376 3.4.5 */
        {"SUBJect:\r\n", "subject:\r\n"},
        {"S:  \r\n  \r\n x\r\n", "s:x\r\n"},
        {"S:a:b : c\r\n", "s:a:b : c\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint8_t want[DKIM_HASH_BYTES], got[DKIM_HASH_BYTES];
        struct str all = str_of(rows[i].field);
        struct str name = {all.ptr, strcspn(all.ptr, " :")};

        for (int relaxed = 0; relaxed < 2; relaxed++) {
            struct dkim_hash *h = dkim_hash_new();

            dkim_canon_field(h, relaxed != 0, name, all);
            assert_int_equal(dkim_hash_end(h, got), 0);
            hash_of(relaxed != 0 ? rows[i].relaxed : rows[i].field, want);
            assert_memory_equal(got, want, sizeof(got));
        }
    }
}

/* --- whole signatures --- */

static const char *const messages[] = {
    RFC6376_MESSAGE,
    RFC8463_MESSAGE,
    "From: a@example.com\r\n\r\n",
    "From: a@example.com\r\n",
    "Subject: none\r\n\r\nno author\r\n",
    "From: a@example.com\r\nFrom: b@example.com\r\nSubject: 1\r\nsubject: 2\r\nSUBJECT: 3\r\n\r\nx",
    "From: =?utf-8?B?5bGx55Sw?= <a@example.com>\r\nSubject: a\r\n\tfolded\r\n  "
    "one\r\n\r\nx\r\n\r\n",
    "From: a@example.com\r\nList-Unsubscribe: <https://example.com/u>\r\nFeedback-ID: a:b:c:d\r\n"
    "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nX-Campaign: 7\r\n\r\n.\r\n..\r\n \t\r\n",
    "From : a@example.com\r\nTo\t: b@example.com\r\n\r\nwhite space before the colon\r\n",
};

/* Lines of at most 78 with content on each, none of which ends in white space. */
static void check_lines(struct str field)
{
    size_t column = 0;

    for (size_t i = 0; i < field.len; i++) {
        if (field.ptr[i] != '\n') {
            column++;
            continue;
        }
        assert_true(column > 3 && column <= 77);
        assert_int_equal(field.ptr[i - 1], '\r');
        assert_true(field.ptr[i - 2] > ' ');
        assert_true(i + 1 == field.len || field.ptr[i + 1] == ' ');
        column = 0;
    }
    assert_int_equal(column, 0);
}

static size_t body_of(const char *message)
{
    const char *blank = strstr(message, "\r\n\r\n");

    return blank == NULL ? strlen(message) : (size_t)(blank + 4 - message);
}

static void test_signatures(void **state)
{
    struct dkim_key *keys[] = {key_of(RFC8463_RSA_KEY), key_of(RFC8463_ED25519_KEY)};
    static const char *const more[] = {"X-Campaign", "x-campaign", "Subject", "X-None"};
    struct dkim_signer signers[] = {
        {"example.com", "one", keys[0]},
        {"a-very-long-domain-name-of-a-customer.example.com", "selector-of-some-length", keys[1]}};

    (void)state;
    for (unsigned form = 0; form < 8; form++) {
        struct dkim_options o = {.header_relaxed = (form & 1) != 0,
                                 .body_relaxed = (form & 2) != 0,
                                 .expires_s = (form & 4) != 0 ? 3600 : 0,
                                 .headers = more,
                                 .headers_len = (form & 4) != 0 ? ARRAY_LEN(more) : 0};

        for (size_t i = 0; i < ARRAY_LEN(messages); i++) {
            size_t len = strlen(messages[i]), cut;
            struct buf out = {0};
            struct str first, second;

            assert_int_equal(
                dkim_sign(bytes_of(messages[i]), len, STR(""), &o, signers, 2, 1528637909, &out),
                0);
            buf_putc(&out, 0);
            cut = (size_t)(strstr((const char *)out.data + 1, "DKIM-Signature:") -
                           (const char *)out.data);
            first = (struct str){(const char *)out.data, cut};
            second = (struct str){first.ptr + cut, out.len - 1 - cut};
            check_lines(first);
            check_lines(second);
            assert_true(str_eq(reader_tag(first, "t"), STR("1528637909")));
            assert_true(
                str_eq(reader_tag(first, "x"), o.expires_s == 0 ? STR("") : STR("1528641509")));
            assert_int_equal(reader_tag(first, "l").len, 0);
            assert_true(
                reader_verifies(first, bytes_of(messages[i]), len, body_of(messages[i]), keys[0]));
            assert_true(
                reader_verifies(second, bytes_of(messages[i]), len, body_of(messages[i]), keys[1]));
            buf_done(&out);
        }
    }
    dkim_key_free(keys[0]);
    dkim_key_free(keys[1]);
}

/* The body's hash as content brings it in pieces is that of a signature; what is kept is taken
 * where it is of the same body, in the same form, and nowhere else. */
static void test_kept_hash(void **state)
{
    struct dkim_key *key = key_of(RFC8463_ED25519_KEY);
    struct dkim_signer signer = {"example.com", "one", key};
    static const char in_front[] = "no message\r\n\r\n"; /* of the buffer, as room for fields */
    const size_t from = sizeof(in_front) - 1;

    (void)state;
    for (size_t i = 0; i < 2 * ARRAY_LEN(messages); i++) {
        const char *message = messages[i / 2];
        struct dkim_options o = {.body_relaxed = (i & 1) != 0};
        size_t len = strlen(message), body = body_of(message);

        for (size_t piece = 1; piece < 8; piece += 3) {
            struct body_hash h = {.at = 0};
            uint8_t kept[BODY_HASH_BYTES];
            struct buf fresh = {0}, taken = {0}, other = {0}, whole = {0};
            struct str given = {(const char *)kept, sizeof(kept)};

            buf_puts(&whole, in_front);
            buf_puts(&whole, message);
            for (size_t at = from; at < whole.len && h.start == 0; at += piece)
                if (body_hash_look(&h, whole.data, from, at < whole.len ? at : whole.len))
                    assert_int_equal(body_hash_begin(&h, o.body_relaxed), 0);
            if (h.start == 0 && !body_hash_look(&h, whole.data, from, whole.len)) {
                assert_int_equal(body, len); /* it has none */
                body_hash_drop(&h);
                buf_done(&whole);
                continue;
            }
            if (h.body.hash == NULL)
                assert_int_equal(body_hash_begin(&h, o.body_relaxed), 0);
            for (size_t at = h.at; at <= whole.len; at += piece)
                assert_true(body_hash_add(&h, whole.data, at));
            assert_int_equal(body_hash_end(&h, whole.data, whole.len, kept), 0);
            assert_int_equal(dkim_sign(bytes_of(message), len, STR(""), &o, &signer, 1, 1, &fresh),
                             0);
            assert_int_equal(dkim_sign(bytes_of(message), len, given, &o, &signer, 1, 1, &taken),
                             0);
            assert_true(str_eq(buf_str(&fresh), buf_str(&taken)));
            /* It is believed ... */
            kept[BODY_HASH_BYTES - 1] ^= 1;
            assert_int_equal(dkim_sign(bytes_of(message), len, given, &o, &signer, 1, 1, &other),
                             0);
            assert_false(str_eq(buf_str(&fresh), buf_str(&other)));
            /* ... but not of another length or form, or cut short. */
            for (int wrong = 0; wrong < 3; wrong++) {
                buf_clear(&other);
                kept[wrong == 1] ^= wrong < 2;
                given.len -= wrong == 2;
                assert_int_equal(
                    dkim_sign(bytes_of(message), len, given, &o, &signer, 1, 1, &other), 0);
                assert_true(str_eq(buf_str(&fresh), buf_str(&other)));
                kept[wrong == 1] ^= wrong < 2;
            }
            buf_done(&fresh);
            buf_done(&taken);
            buf_done(&other);
            buf_done(&whole);
        }
    }
    dkim_key_free(key);
}

/* Who hashes as content comes hears when what is held back has come to be much. */
static void test_held_lines(void **state)
{
    struct body_hash h = {.at = 0};
    uint8_t kept[BODY_HASH_BYTES];
    struct buf whole = {0};

    (void)state;
    buf_puts(&whole, "A: b\r\n\r\n");
    assert_true(body_hash_look(&h, whole.data, 0, whole.len));
    assert_int_equal(body_hash_begin(&h, false), 0);
    for (int i = 0; i < BODY_HASH_HELD_MAX; i++)
        buf_puts(&whole, "\r\n");
    assert_true(body_hash_add(&h, whole.data, whole.len));
    buf_puts(&whole, "text\r\n");
    assert_true(body_hash_add(&h, whole.data, whole.len));
    for (int i = 0; i < BODY_HASH_HELD_MAX; i++)
        buf_puts(&whole, "\r\n");
    assert_false(body_hash_add(&h, whole.data, whole.len));
    assert_int_equal(body_hash_end(&h, whole.data, whole.len, kept), 0);
    buf_done(&whole);
}

/* h= of the signature of a message. */
static char *names_of(const char *message, const char *const *more, size_t more_len)
{
    struct dkim_key *key = key_of(RFC8463_ED25519_KEY);
    struct dkim_signer signer = {"example.com", "one", key};
    struct dkim_options o = {.headers = more, .headers_len = more_len};
    static char room[1 << 16];
    struct buf out = {0};
    struct str names;

    assert_int_equal(
        dkim_sign(bytes_of(message), strlen(message), STR(""), &o, &signer, 1, 0, &out), 0);
    names = reader_squeeze(reader_tag(buf_str(&out), "h"), room, sizeof(room) - 1);
    room[names.len] = 0;
    buf_done(&out);
    dkim_key_free(key);
    return room;
}

/* Each name once more than there are fields, and the names that matter where there are none: what
 * somebody adds on the way shows. */
static void test_covered(void **state)
{
    static const char *const more[] = {"X-Campaign", "x-campaign"};
    char many[40 * 16 + 64] = "From: a@example.com\r\n";
    size_t n = 0;

    (void)state;
    assert_string_equal(
        names_of("From: a@example.com\r\nSubject: 1\r\nSubject: 2\r\nFeedback-ID: a\r\n"
                 "X-Campaign: 7\r\nReceived: x\r\nDKIM-Signature: v=1\r\n\r\n",
                 more, 2),
        "From:From:Reply-To:Subject:Subject:Subject:Date:To:Cc:Message-ID:MIME-Version:"
        "Content-Type:Content-Transfer-Encoding:Feedback-ID:Feedback-ID:X-Campaign:X-Campaign");
    for (int i = 0; i < 40; i++)
        strcat(many, "To: b@c\r\n");
    for (const char *at = names_of(many, NULL, 0); (at = strstr(at, "To:")) != NULL; at += 3)
        n += at[-1] == ':';
    assert_int_equal(n, DKIM_FIELDS_MAX);
}

static void test_names(void **state)
{
    char name[DKIM_NAME_BYTES_MAX + 1];

    (void)state;
    assert_true(dkim_name_valid(STR("X-Campaign")));
    assert_false(dkim_name_valid(STR("")));
    assert_false(dkim_name_valid(STR("X Campaign")));
    assert_false(dkim_name_valid(STR("X:")));
    assert_false(dkim_name_valid(STR("X;")));
    assert_false(dkim_name_valid(STR("X\xc3\xa9")));
    memset(name, 'X', sizeof(name));
    assert_true(dkim_name_valid((struct str){name, sizeof(name) - 1}));
    assert_false(dkim_name_valid((struct str){name, sizeof(name)}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),   cmocka_unit_test(test_public_keys),
        cmocka_unit_test(test_bodies),     cmocka_unit_test(test_long_bodies),
        cmocka_unit_test(test_blocks),     cmocka_unit_test(test_fields),
        cmocka_unit_test(test_signatures), cmocka_unit_test(test_kept_hash),
        cmocka_unit_test(test_held_lines), cmocka_unit_test(test_covered),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
