#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "smtp/scan.h"
#include "smtp/scan_isa.h"

#define BYTES_MAX 4096

struct decoded {
    uint8_t body[BYTES_MAX + 2];
    size_t len, used;
    bool end;
    struct smtp_body_facts facts;
};

/* --- the oracle: another way to the same answer, over the whole input at once --- */

/* Facts of a whole body. */
static struct smtp_body_facts oracle_facts(const uint8_t *b, size_t len)
{
    struct smtp_body_facts f = {0};
    size_t line = 0;

    for (size_t i = 0; i < len; i++) {
        bool crlf = b[i] == '\n' && i > 0 && b[i - 1] == '\r';

        f.eight_bit |= b[i] >= 0x80;
        f.nul |= b[i] == 0;
        f.bare_lf |= b[i] == '\n' && !crlf;
        f.bare_cr |= b[i] == '\r' && (i + 1 == len || b[i + 1] != '\n');
        f.dot_lines |= b[i] == '.' && i == line;
        if (crlf || i + 1 == len) {
            size_t bytes = crlf ? i - 1 - line : i + 1 - line;

            if (bytes > f.line_bytes_max)
                f.line_bytes_max = (uint32_t)bytes;
            line = i + 1;
        }
    }
    f.ends_crlf = len == 0 || (len >= 2 && b[len - 2] == '\r' && b[len - 1] == '\n');
    return f;
}

static struct decoded oracle_decode(const uint8_t *in, size_t len)
{
    static const char end[] = "\r\n.\r\n";
    uint8_t behind[BYTES_MAX + 2] = "\r\n"; /* DATA's own CRLF counts */
    struct decoded d = {0};
    size_t start = 2, stop;
    const uint8_t *at;

    memcpy(behind + 2, in, len);
    at = memmem(behind, len + 2, end, 5);
    d.end = at != NULL;
    stop = d.end ? (size_t)(at - behind) + 2 : len + 2;
    d.used = d.end ? stop - 2 + 3 : len;
    for (size_t i = start; i < stop; i++) {
        if (behind[i] == '.' && behind[i - 1] == '\n' && behind[i - 2] == '\r')
            continue;
        d.body[d.len++] = behind[i];
    }
    d.facts = oracle_facts(d.body, d.len);
    return d;
}

/* --- the decoder in chunks that end at the given offsets --- */

static struct decoded decode_split(const uint8_t *in, size_t len, const size_t *splits, size_t n)
{
    struct smtp_data_decoder decoder;
    struct decoded d = {0};
    size_t from = 0;

    smtp_data_decoder_init(&decoder);
    for (size_t i = 0; i <= n && !d.end; i++) {
        size_t to = i == n ? len : splits[i], at = 0, used;
        struct str body;
        /* Exact size, so that a sanitizer sees a byte too far. */
        uint8_t *chunk = malloc(to - from + 1);

        memcpy(chunk, in + from, to - from);
        while (!d.end && at < to - from) {
            d.end = smtp_data_next(&decoder, chunk + at, to - from - at, &used, &body);
            assert_true(used + body.len > 0 && !(d.end && body.len != 0));
            if (body.len != 0)
                memcpy(d.body + d.len, body.ptr, body.len);
            d.len += body.len;
            at += used;
        }
        d.used += at;
        from = to;
        free(chunk);
    }
    d.facts = decoder.facts;
    return d;
}

static void assert_facts(const struct smtp_body_facts *a, const struct smtp_body_facts *b)
{
    assert_int_equal(a->eight_bit, b->eight_bit);
    assert_int_equal(a->dot_lines, b->dot_lines);
    assert_int_equal(a->nul, b->nul);
    assert_int_equal(a->bare_cr, b->bare_cr);
    assert_int_equal(a->bare_lf, b->bare_lf);
    assert_int_equal(a->ends_crlf, b->ends_crlf);
    assert_int_equal(a->line_bytes_max, b->line_bytes_max);
}

static void assert_decoded(const struct decoded *a, const struct decoded *want)
{
    assert_int_equal(a->end, want->end);
    if (!want->end) /* a dot or CR may still be held back, and facts are not complete */
        return;
    assert_int_equal(a->used, want->used);
    assert_int_equal(a->len, want->len);
    assert_memory_equal(a->body, want->body, want->len);
    assert_facts(&a->facts, &want->facts);
}

static void for_each_isa(void (*check)(void))
{
    for (enum scan_isa isa = 0; isa < SCAN_ISAS; isa++) {
        if (scan_isa_use(isa))
            check();
    }
    scan_isa_best();
}

/* --- all short inputs over the bytes that matter, in all splits in two --- */

static void check_exhaustive(void)
{
    static const uint8_t alphabet[] = {'\r', '\n', '.', 'a'};
    uint8_t in[16];

    for (size_t len = 0; len <= 7; len++) {
        for (uint32_t word = 0; word < 1u << 2 * len; word++) {
            struct decoded want;

            for (size_t i = 0; i < len; i++)
                in[i] = alphabet[word >> 2 * i & 3];
            memcpy(in + len, "\r\n.\r\n", 5);
            want = oracle_decode(in, len + 5);
            assert_true(want.end);
            for (size_t split = 0; split <= len + 5; split++) {
                struct decoded got = decode_split(in, len + 5, &split, 1);

                assert_decoded(&got, &want);
            }
        }
    }
}

static void test_exhaustive(void **state)
{
    (void)state;
    for_each_isa(check_exhaustive);
}

/* --- random inputs around the size of blocks, in random splits --- */

static size_t random_body(struct rng *rng, uint8_t *out)
{
    static const char *const pieces[] = {"\r\n", "\r\n.", "\r\n..", ".",    "\r",     "\n",
                                         "x",    "\r\n",  "\r\n",   "\xc3", "\r\n.x", "\r\n\r\n"};
    size_t len = 0, pieces_max = rng_below(rng, 60);
    bool regular = rng_below(rng, 2) == 0;

    for (size_t i = 0; i < pieces_max; i++) {
        size_t which = rng_below(rng, 16), n = rng_below(rng, 40);

        if (which < 12 && !(regular && (which == 4 || which == 5))) {
            memcpy(out + len, pieces[which], strlen(pieces[which]));
            len += strlen(pieces[which]);
        } else if (which == 12 && !regular) {
            out[len++] = 0;
        } else {
            memset(out + len, 'a', n);
            len += n;
        }
    }
    return len;
}

static void check_random(void)
{
    uint8_t in[BYTES_MAX];
    struct rng rng;

    rng_seed(&rng, 1);
    for (int round = 0; round < 20000; round++) {
        size_t len = random_body(&rng, in), splits[3] = {0}, n = rng_below(&rng, 4);
        struct decoded want, got;

        memcpy(in + len, "\r\n.\r\nMAIL\xff\r\n..", 15);
        len += 15;
        want = oracle_decode(in, len);
        for (size_t i = 0; i < n; i++)
            splits[i] = (i == 0 ? 0 : splits[i - 1]) +
                        rng_below(&rng, len + 1 - (i == 0 ? 0 : splits[i - 1]));
        got = decode_split(in, len, splits, n);
        assert_decoded(&got, &want);
    }
}

static void test_random(void **state)
{
    (void)state;
    for_each_isa(check_random);
}

/* --- the same bytes as BDAT would bring them --- */

static void check_scanner(void)
{
    uint8_t in[BYTES_MAX];
    struct rng rng;

    rng_seed(&rng, 2);
    for (int round = 0; round < 20000; round++) {
        size_t len = random_body(&rng, in), split = rng_below(&rng, len + 1);
        struct smtp_body_facts want = oracle_facts(in, len);
        struct smtp_body_scanner s;

        smtp_body_scanner_init(&s);
        smtp_body_scan(&s, in, split);
        smtp_body_scan(&s, in + split, len - split);
        smtp_body_scan_end(&s);
        assert_facts(&s.facts, &want);
    }
}

static void test_scanner(void **state)
{
    (void)state;
    for_each_isa(check_scanner);
}

static void check_find_dot(void)
{
    uint8_t in[BYTES_MAX];
    struct rng rng;

    rng_seed(&rng, 3);
    for (int round = 0; round < 20000; round++) {
        size_t len = random_body(&rng, in), from = rng_below(&rng, len + 1), want = len;

        for (size_t i = len; i-- > from;) {
            if (in[i] == '.' && (i == 0 || (i >= 2 && in[i - 1] == '\n' && in[i - 2] == '\r')))
                want = i;
        }
        assert_int_equal(smtp_find_dot_line(in, len, from), want);
    }
}

static void test_find_dot(void **state)
{
    (void)state;
    for_each_isa(check_find_dot);
}

/* --- every form of end-of-data smuggling that is known to have worked somewhere --- */

static void check_smuggling(void)
{
    static const struct {
        const char *bytes;
        size_t len;
    } forms[] = {
#define FORM(s) {s, sizeof(s) - 1}
        FORM("\n.\n"),
        FORM("\n.\r\n"),
        FORM("\r\n.\n"),
        FORM("\r.\r"),
        FORM("\r\n.\r"),
        FORM("\r.\r\n"),
        FORM("\n.\r"),
        FORM("\r.\n"),
        FORM("\r\n\0.\r\n"),
        FORM("\r\n.\0\r\n"),
        FORM("\r\n.\r\0\n"),
        FORM("\r\0\n.\r\n"),
        FORM("\r\n.\r\r\n"),
        FORM("\n\n.\r\n"),
        FORM("\r\n.\n\n"),
        FORM("\r\r.\r\r\n"),
        FORM("\n\r.\n\r\n"),
        FORM("\r\n.\r\r"),
        FORM("\r\n\x80.\r.\r\n"),
        FORM("\r\n \b.\r\n\n"),
#undef FORM
    };
    static const char before[] = "Subject: x\r\n\r\nfirst",
                      after[] = "MAIL FROM:<evil@x>\r\nRCPT TO:<y@z>\r\nDATA\r\n";

    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        uint8_t in[256];
        size_t len = 0;

        memcpy(in, before, sizeof(before) - 1);
        len = sizeof(before) - 1;
        memcpy(in + len, forms[i].bytes, forms[i].len);
        len += forms[i].len;
        memcpy(in + len, after, sizeof(after) - 1);
        len += sizeof(after) - 1;
        for (size_t a = 0; a <= len; a++) {
            for (size_t b = a; b <= len; b++) {
                struct decoded d = decode_split(in, len, (size_t[]){a, b}, 2);

                assert_false(d.end);
                assert_int_equal(d.used, len);
                assert_true(d.facts.bare_cr || d.facts.bare_lf || d.facts.nul);
            }
        }
    }
}

static void test_smuggling(void **state)
{
    (void)state;
    for_each_isa(check_smuggling);
}

static void test_table(void **state)
{
    static const struct {
        const char *in, *body;
        bool dot_lines;
    } rows[] = {
        {".\r\n", "", false},
        {"\r\n.\r\n", "\r\n", false},
        {"a\r\n.\r\n", "a\r\n", false},
        {"..\r\n.\r\n", ".\r\n", true},
        {".a\r\n.\r\n", "a\r\n", false}, /* not stuffed: the rule takes the dot all the same */
        {"a\r\n...\r\n.\r\n", "a\r\n..\r\n", true},
        {"a.\r\n.\r\n", "a.\r\n", false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct decoded d = decode_split((const uint8_t *)rows[i].in, strlen(rows[i].in), NULL, 0);

        assert_true(d.end);
        assert_int_equal(d.len, strlen(rows[i].body));
        assert_memory_equal(d.body, rows[i].body, d.len);
        assert_int_equal(d.facts.dot_lines, rows[i].dot_lines);
        assert_true(d.facts.ends_crlf);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),      cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_exhaustive), cmocka_unit_test(test_random),
        cmocka_unit_test(test_scanner),    cmocka_unit_test(test_find_dot),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
