/* What a watch gets, and what it never holds up. */
#include "worker/dialogues.h"

#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static const struct sockaddr_in client = {.sin_family = AF_INET};
static const struct dialogue_session in = {
    .id = "s1", .client = (const struct sockaddr *)&client, .peer = "0.0.0.0:25"};
static bool carries(const void *of, const struct msgid *message)
{
    return memcmp(of, message, sizeof(*message)) == 0;
}

static const struct msgid under_way = {{1, 2, 3}};
static const struct dialogue_session out = {.id = "s2",
                                            .peer = "mx",
                                            .site = {"mx.example", 10},
                                            .source = {"a", 1},
                                            .carries = carries,
                                            .of = &under_way};

static size_t lines_of(struct dialogues *d, struct dialogue *w)
{
    struct buf got = {0};
    size_t lines = 0;

    (void)dialogues_take(d, w, &got);
    for (size_t i = 0; i < got.len; i++)
        lines += got.data[i] == '\n';
    buf_done(&got);
    return lines;
}

static void test_filter(void **state)
{
    static const struct {
        struct dialogue_filter filter;
        unsigned in, out;
    } cases[] = {{{.has_client = false}, 1, 1},
                 {{.site = "mx.example"}, 0, 1},
                 {{.site = "mx.example", .source = "b"}, 0, 0},
                 {{.source = "a"}, 0, 1},
                 {{.has_message = true, .message = {{1, 2, 3}}}, 0, 1},
                 {{.has_message = true, .message = {{1, 2, 4}}}, 0, 0},
                 {{.has_client = true, .client = {{[10] = 0xff, [11] = 0xff}, 96}}, 1, 0},
                 {{.has_client = true, .client = {{[10] = 0xff, [11] = 0xff, 10}, 104}}, 0, 0}};
    struct dialogues d = {0};

    (void)state;
    dialogues_init(&d);
    dialogues_put(&d, &in, 5, true, STR("nobody watches"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct dialogue w = {.filter = cases[i].filter};

        assert_int_equal(dialogues_add(&d, &w), 0);
        dialogues_put(&d, &in, 5, true, STR("220 x"));
        assert_int_equal(lines_of(&d, &w), cases[i].in);
        dialogues_put(&d, &out, 5, true, STR("EHLO x"));
        assert_int_equal(lines_of(&d, &w), cases[i].out);
        dialogues_remove(&d, &w);
    }
    dialogues_done(&d);
}

/* A reader that takes nothing costs a bounded buffer: what comes then is counted. */
static void test_bound(void **state)
{
    struct dialogue watches[DIALOGUES_MAX + 1] = {0}, *w = watches;
    static char text[5000];
    struct dialogues d = {0};
    struct buf got = {0};
    size_t lines, put = 1000;

    (void)state;
    memset(text, 'x', sizeof(text));
    dialogues_init(&d);
    for (int i = 0; i <= DIALOGUES_MAX; i++)
        assert_int_equal(dialogues_add(&d, &watches[i]), i < DIALOGUES_MAX ? 0 : -ENOSPC);
    for (size_t i = 0; i < put; i++)
        dialogues_put(&d, &out, 5, false, (struct str){text, sizeof(text)});
    assert_true(w->lines.len < DIALOGUE_BYTES_MAX + 2 * DIALOGUE_TEXT_BYTES_MAX);
    put -= dialogues_take(&d, w, &got);
    assert_non_null(memmem(got.data, got.len, "\"from\":\"peer\"", 13));
    assert_non_null(memmem(got.data, got.len, "\"cut\":4000}", 11));
    lines = 0;
    for (size_t i = 0; i < got.len; i++)
        lines += got.data[i] == '\n';
    assert_int_equal(lines, put);
    buf_clear(&got);
    assert_int_equal(dialogues_take(&d, w, &got), 0);
    for (int i = 0; i < DIALOGUES_MAX; i++)
        dialogues_remove(&d, &watches[i]);
    dialogues_done(&d);
    buf_done(&got);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_filter), cmocka_unit_test(test_bound)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
