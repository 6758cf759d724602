#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/assert.h"
#include "smtp/reply.h"

struct parsed {
    enum smtp_reply_status status;
    size_t used;
};

/* Feeds in[0..len) in pieces of at most piece bytes. */
static struct parsed feed(struct smtp_reply_parser *p, const char *in, size_t len, size_t piece)
{
    struct parsed r = {SMTP_REPLY_MORE, 0};

    smtp_reply_parser_reset(p);
    for (size_t end = 0; r.status == SMTP_REPLY_MORE && end < len;) {
        size_t used;
        uint8_t *exact;

        end = len - end < piece ? len : end + piece;
        exact = malloc(end - r.used);
        memcpy(exact, in + r.used, end - r.used);
        r.status = smtp_reply_parse(p, exact, end - r.used, &used);
        free(exact);
        r.used += used;
    }
    return r;
}

static const struct row {
    const char *in;
    enum smtp_reply_status status;
    uint16_t code;
    struct smtp_enhanced enhanced;
    const char *text;
} rows[] = {
    {"250 OK\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, "OK"},
    {"250 2.1.0 OK\r\n", SMTP_REPLY_DONE, 250, {2, 1, 0}, "OK"},
    {"250\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, ""},
    {"250 \r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, ""},
    {"250 OK\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, "OK"},
    {"354 go\r\nrest", SMTP_REPLY_DONE, 354, {0, 0, 0}, "go"},
    {"550-5.1.1 The account\r\n550 5.1.1 is gone\r\n",
     SMTP_REPLY_DONE,
     550,
     {5, 1, 1},
     "The account is gone"},
    {"550-no\r\n550-\r\n550 5.7.1 go\r\n", SMTP_REPLY_DONE, 550, {5, 7, 1}, "no go"},
    {"550 5.7.1\r\n", SMTP_REPLY_DONE, 550, {5, 7, 1}, ""},
    {"550 4.7.1 class differs\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, "4.7.1 class differs"},
    {"550 5.7.1.2 x\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, "5.7.1.2 x"},
    {"550 5.7.1234 x\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, "5.7.1234 x"},
    {"550 5.123.999 x\r\n", SMTP_REPLY_DONE, 550, {5, 123, 999}, "x"},
    {"550 192.0.2.1 x\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, "192.0.2.1 x"},
    {"550 a\rb\tc\x7f\x01\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, "a?b?c??"},
    {"550 caf\xc3\xa9\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, "caf\xc3\xa9"},
    {"250-a\r\n250", SMTP_REPLY_MORE, 0, {0, 0, 0}, NULL},
    {"", SMTP_REPLY_MORE, 0, {0, 0, 0}, NULL},
    {"25\r\n", SMTP_REPLY_BAD, 0, {0, 0, 0}, NULL},
    {"\r\n", SMTP_REPLY_BAD, 0, {0, 0, 0}, NULL},
    {"\n", SMTP_REPLY_BAD, 0, {0, 0, 0}, NULL},
    {"2500 OK\r\n", SMTP_REPLY_BAD, 0, {0, 0, 0}, NULL},
    {"250ok\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, "ok"},
    {"250+OK\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, "+OK"},
    {"250\t2.0.0 OK\r\n", SMTP_REPLY_DONE, 250, {2, 0, 0}, "OK"},
    {"550.5.1.1 no\r\n", SMTP_REPLY_DONE, 550, {0, 0, 0}, ".5.1.1 no"},
    {"250\xff\xfe\r\n", SMTP_REPLY_DONE, 250, {0, 0, 0}, "\xff\xfe"},
    {"150 OK\r\n", SMTP_REPLY_BAD, 0, {0, 0, 0}, NULL},
    {"600 OK\r\n", SMTP_REPLY_BAD, 0, {0, 0, 0}, NULL},
    {"2x0 OK\r\n", SMTP_REPLY_BAD, 0, {0, 0, 0}, NULL},
    /* The last line's code counts, and its class is that of the enhanced code. */
    {"250-a\r\n251 b\r\n", SMTP_REPLY_DONE, 251, {0, 0, 0}, "a b"},
    {"220-x\r\n521 y\r\n", SMTP_REPLY_DONE, 521, {0, 0, 0}, "x y"},
    {"550-5.1.1 a\r\n250 2.0.0 b\r\n", SMTP_REPLY_DONE, 250, {2, 0, 0}, "a b"},
    {"250-2.0.0 a\r\n450 b\r\n", SMTP_REPLY_DONE, 450, {0, 0, 0}, "a b"},
    {"250-a\r\nb\r\n\r\n250-\r\n999 c\r\n250 d\r\n",
     SMTP_REPLY_DONE,
     250,
     {0, 0, 0},
     "a b 999 c d"},
    {"250-a\r\nb\r\n", SMTP_REPLY_MORE, 0, {0, 0, 0}, NULL},
    {"SSH-2.0-OpenSSH_9.2\r\n", SMTP_REPLY_BAD, 0, {0, 0, 0}, "SSH-2.0-OpenSSH_9.2"},
    {"HTTP/1.1 400 Bad Request\r\n", SMTP_REPLY_BAD, 0, {0, 0, 0}, "HTTP/1.1 400 Bad Request"},
};

static void test_rows(void **state)
{
    static struct smtp_reply_parser p;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *row = &rows[i];
        size_t len = strlen(row->in);

        for (size_t piece = 1; piece <= len + 1; piece++) {
            struct parsed r = feed(&p, row->in, len, piece);

            assert_int_equal(r.status, row->status);
            if (row->text == NULL)
                continue;
            assert_int_equal(p.reply.code, row->code);
            assert_int_equal(p.reply.enhanced.class, row->enhanced.class);
            if (row->enhanced.class != 0)
                assert_memory_equal(&p.reply.enhanced, &row->enhanced, sizeof(row->enhanced));
            assert_int_equal(p.reply.text_len, strlen(row->text));
            assert_memory_equal(p.reply.text, row->text, p.reply.text_len);
        }
    }
}

static void test_stops_behind_reply(void **state)
{
    static struct smtp_reply_parser p;
    static const char two[] = "250-a\r\n250 b\r\n354 c\r\n";
    struct parsed r = feed(&p, two, sizeof(two) - 1, 100);

    (void)state;
    assert_int_equal(r.status, SMTP_REPLY_DONE);
    assert_int_equal(r.used, 14);
}

static void test_nul(void **state)
{
    static struct smtp_reply_parser p;

    (void)state;
    for (size_t piece = 1; piece < 10; piece++) {
        assert_int_equal(feed(&p, "250 a\0b\r\n", 9, piece).status, SMTP_REPLY_DONE);
        assert_int_equal(p.reply.text_len, 3);
        assert_memory_equal(p.reply.text, "a?b", 3);
    }
}

/* However long a line is, its code counts, and it ends where it ends. */
static void test_long_lines(void **state)
{
    static struct smtp_reply_parser p;
    static char in[300000];

    (void)state;
    for (size_t len = SMTP_REPLY_LINE_MAX - 3; len < sizeof(in); len += len < 1030 ? 1 : 99991) {
        for (int lines = 1; lines <= 2; lines++) {
            size_t all = len * (size_t)lines;

            if (all > sizeof(in))
                continue;
            memset(in, 'x', sizeof(in));
            if (lines == 2)
                memcpy(in, "250-", 4);
            memcpy(in + len - 2, "\r\n", 2);
            memcpy(in + all - len, "550 ", 4);
            memcpy(in + all - 2, "\r\n", 2);
            for (size_t piece = 7; piece < 2 * sizeof(in); piece *= 13) {
                struct parsed r = feed(&p, in, all - 1, piece);

                assert_int_equal(r.status, SMTP_REPLY_MORE);
                r = feed(&p, in, sizeof(in), piece);
                assert_int_equal(r.status, SMTP_REPLY_DONE);
                assert_int_equal(r.used, all);
                assert_int_equal(p.reply.code, 550);
                assert_int_equal(p.reply.text_len, SMTP_REPLY_TEXT_MAX);
            }
        }
    }
}

/* What is left to the caller to keep is less than a line. */
static void test_little_is_kept(void **state)
{
    static struct smtp_reply_parser p;
    static char in[100000];

    (void)state;
    memset(in, 'x', sizeof(in));
    memcpy(in, "250-", 4);
    for (size_t len = 1; len < sizeof(in); len += 997) {
        struct parsed r = feed(&p, in, len, len);

        assert_int_equal(r.status, SMTP_REPLY_MORE);
        assert_true(len - r.used < SMTP_REPLY_LINE_MAX);
    }
    memset(in, 'x', 10);
    assert_int_equal(feed(&p, in, sizeof(in), 100).status, SMTP_REPLY_BAD);
}

static void test_endless(void **state)
{
    static struct smtp_reply_parser p;
    static char big[SMTP_REPLY_BYTES_MAX + 4096];
    size_t len = 0;

    (void)state;
    while (len + 10 < sizeof(big)) {
        memcpy(big + len, "250-line\r\n", 10);
        len += 10;
    }
    assert_int_equal(feed(&p, big, SMTP_REPLY_BYTES_MAX / 10 * 10, 1000).status, SMTP_REPLY_MORE);
    assert_int_equal(feed(&p, big, len, 1000).status, SMTP_REPLY_BAD);
    assert_int_equal(feed(&p, big, len, 1).status, SMTP_REPLY_BAD);
    memset(big, 'x', sizeof(big));
    memcpy(big, "250-", 4);
    assert_int_equal(feed(&p, big, sizeof(big), 1000).status, SMTP_REPLY_BAD);
}

static void test_unfinished(void **state)
{
    static struct smtp_reply_parser p;
    struct parsed r = feed(&p, "220-x\r\n22", 9, 100);

    (void)state;
    smtp_reply_unfinished(&p, (struct str){"22", 9 - r.used});
    assert_int_equal(p.reply.text_len, 4);
    assert_memory_equal(p.reply.text, "x 22", 4);
}

static void test_text_is_cut(void **state)
{
    static struct smtp_reply_parser p;
    static char in[40 * 60];
    size_t len = 0;

    (void)state;
    for (int i = 0; i < 40; i++) {
        memset(in + len, 'a', 58);
        memcpy(in + len, i == 39 ? "550 " : "550-", 4);
        memcpy(in + len + 58, "\r\n", 2);
        len += 60;
    }
    assert_int_equal(feed(&p, in, len, 7).status, SMTP_REPLY_DONE);
    assert_int_equal(p.reply.text_len, SMTP_REPLY_TEXT_MAX);
    assert_int_equal(p.reply.text[54], ' ');
}

static void on_line(void *arg, uint16_t code, bool first, struct str line)
{
    char *all = arg;

    assert_int_equal(code, 250);
    assert_int_equal(first, all[0] == '\0');
    strncat(all, line.ptr, line.len);
    strcat(all, "|");
}

static void test_raw_lines(void **state)
{
    static struct smtp_reply_parser p;
    char all[100] = "";

    (void)state;
    p.on_line = on_line;
    p.arg = all;
    feed(&p, "250-host\r\n250-SIZE 1\r\n250-\r\n250 DSN\r\n", 37, 5);
    p.on_line = NULL;
    assert_string_equal(all, "host|SIZE 1||DSN|");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),       cmocka_unit_test(test_stops_behind_reply),
        cmocka_unit_test(test_nul),        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_endless),    cmocka_unit_test(test_little_is_kept),
        cmocka_unit_test(test_unfinished), cmocka_unit_test(test_text_is_cut),
        cmocka_unit_test(test_raw_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
