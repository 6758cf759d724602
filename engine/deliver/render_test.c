#include "deliver/render.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "config/config_load.h"

#define RECIPE                                                                                     \
    "{\"content\":{\"from\":{\"email\":\"n@s.example\"},\"subject\":\"{{ name }}\","               \
    "\"text_body\":\".{{ x }}\\n\",\"headers\":{\"X-Hayauma-Campaign\":\"other\"}}}"
#define ROW "{\"name\":\"Ann\",\"substitutions\":{\"x\":\"you\"},\"metadata\":{\"k\":1}}"

struct setting {
    struct config config;
    struct message *message;
    struct recipe *recipe;
    struct render_order order;
};

static void set(struct setting *s, const char *recipe)
{
    struct json_mistake mistake;
    struct message fields = {.id = {{1, 0x99, 0xab, 7}},
                             .created_ms = INT64_C(1795308557123),
                             .flags = MESSAGE_RECIPE | MESSAGE_DOT_LINES,
                             .sender = STR("bounce@s.example"),
                             .campaign = STR("spring"),
                             .meta = STR("{\"of\":\"all\"}"),
                             .priority = 3,
                             .flow = 9};

    *s = (struct setting){.config = {.host_name = (char *)(uintptr_t) "mta.s.example"}};
    fields.content = (uint8_t *)strdup(recipe);
    fields.content_len = strlen(recipe);
    s->message = message_new(&fields);
    assert_non_null(s->message);
    assert_int_equal(recipe_parse(str_of(recipe), &s->recipe, &mistake), 0);
    s->order = (struct render_order){.recipe = s->recipe,
                                     .message = s->message,
                                     .config = &s->config,
                                     .address = STR("a@b.example"),
                                     .variables = STR(ROW),
                                     .index = 4,
                                     .budget = {1u << 20, 100000},
                                     .bytes = 10};
}

static void unset(struct setting *s)
{
    recipe_free(s->recipe);
    message_unref(s->message);
    assert_int_equal(message_bytes_alive(), 0);
}

static struct message *made(struct render_order *order)
{
    struct buf why = {0};
    struct message *letter = NULL;

    if (render_letter(order, &letter, &why) < 0)
        fail_msg("%.*s", STR_FMT(buf_str(&why)));
    buf_done(&why);
    return letter;
}

static struct str content_of(const struct message *m)
{
    return (struct str){(const char *)m->content, m->content_len};
}

/* The bytes that acceptance makes of the same (http/submission.c, intake/draft.c), but for the time
 * and the id; in a message that has what is told of the recipient. */
static void test_letter(void **state)
{
    static const char want[] =
        "@mta.s.example>\r\n"
        "Date: Sun, 22 Nov 2026 00:49:17 +0000\r\n"
        "From: <n@s.example>\r\nTo: \"Ann\" <a@b.example>\r\nSubject: Ann\r\n"
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
        "Content-Transfer-Encoding: 7bit\r\n\r\n.you\r\n";
    struct setting s;
    struct message *letter;
    struct msgid id;
    char text[MSGID_TEXT_BYTES], whole[600];
    const char *names[] = {"Subject"};

    (void)state;
    set(&s, RECIPE);
    s.config.records.headers = (char **)(uintptr_t)names;
    s.config.records.headers_len = 1;
    letter = made(&s.order);
    id = msgid_after(&s.message->id, 4 + 1);
    msgid_text(&id, text);
    snprintf(whole, sizeof(whole), "Message-ID: <%s%s", text, want);
    assert_true(str_eq(content_of(letter), str_of(whole)));
    assert_int_equal(letter->flags, MESSAGE_DOT_LINES);
    assert_true(str_eq(letter->meta, STR("{\"of\":\"all\",\"k\":1}")));
    assert_true(str_eq(letter->trace, STR("{\"Subject\":\"Ann\"}")));
    assert_true(str_eq(letter->sender, s.message->sender));
    assert_true(str_eq(letter->campaign, STR("spring")));
    assert_int_equal(letter->flow, 9);
    assert_int_equal(letter->recipients, 0);
    assert_memory_equal(&letter->id, &s.message->id, sizeof(letter->id));
    assert_ptr_equal(letter->recipe, s.message);
    message_unref(letter);
    unset(&s);
}

static void test_same_again(void **state)
{
    struct setting s;
    struct message *first, *again, *other;

    (void)state;
    set(&s, RECIPE);
    first = made(&s.order);
    s.order.bytes = 100000;
    again = made(&s.order);
    s.order.index++;
    other = made(&s.order);
    assert_true(str_eq(content_of(first), content_of(again)));
    assert_false(str_eq(content_of(first), content_of(other)));
    message_unref(first);
    message_unref(again);
    message_unref(other);
    unset(&s);
}

static void refused(const char *recipe, const char *row, int error, const char *word)
{
    struct setting s;
    struct message *letter = NULL;
    struct buf why = {0};

    set(&s, recipe);
    s.order.variables = str_of(row);
    assert_int_equal(render_letter(&s.order, &letter, &why), error);
    assert_null(letter);
    buf_putc(&why, '\0');
    if (strstr((char *)why.data, word) == NULL)
        fail_msg("%s", (char *)why.data);
    buf_done(&why);
    unset(&s);
}

static void test_refused(void **state)
{
    (void)state;
    refused(RECIPE, "{", -EINVAL, "damaged");
    refused("{\"content\":{\"from\":{\"email\":\"{{ x }}\"},\"text_body\":\"a\"}}", ROW, -EINVAL,
            "content.from: email is no mail address");
    refused("{\"content\":{\"from\":{\"email\":\"n@s.example\"},\"text_body\":\"{{ x.y.z }}\"}}",
            "{\"substitutions\":{\"x\":{}}}", -EINVAL, "content.text_body: template, line 1");
    refused("{\"content\":{\"from\":{\"email\":\"n@s.example\"},\"text_body\":"
            "\"{% for a in x %}{% for b in x %}{% for c in x %}{% for d in x %}{% for e in x %}"
            "{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}\"}}",
            "{\"substitutions\":{\"x\":[1,2,3,4,5,6,7,8,9,10]}}", -E2BIG, "steps");
    refused("{\"content\":\"no field\"}", ROW, -EINVAL, "content: does not begin with a header");
    refused("{\"content\":{\"from\":{\"email\":\"n@s.example\"},\"text_body\":\"a\","
            "\"headers\":{\"X-Hayauma-Priority\":\"{{ x }}\"}}}",
            ROW, -EINVAL, "X-Hayauma-Priority");
}

/* Who made the recipe for a tenant writes as that tenant may, in each letter. */
static void test_authors(void **state)
{
    static const struct {
        const char *tenant, *author;
        int error;
    } cases[] = {{"acme", "a@acme.example", 0},
                 {"acme", "a@other.example", -EINVAL},
                 {"free", "a@other.example", 0},
                 {NULL, "a@other.example", 0}};
    const char *text = "host_name: mta.s.example\n"
                       "tenants: {acme: {senders: [acme.example]}, free: {weight: 2}}\n";
    struct buf errors = {0};
    struct config *c;

    (void)state;
    assert_int_equal(config_load_text("test.yaml", str_of(text), &c, &errors), 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct message *letter = NULL;
        struct buf why = {0};
        struct setting s;
        char recipe[400], row[100];

        snprintf(recipe, sizeof(recipe),
                 "{\"content\":{\"from\":{\"email\":\"{{ by }}\"},\"text_body\":\"a\"}%s%s%s}",
                 cases[i].tenant == NULL ? "" : ",\"sender_rule\":\"",
                 cases[i].tenant == NULL ? "" : cases[i].tenant,
                 cases[i].tenant == NULL ? "" : "\"");
        snprintf(row, sizeof(row), "{\"substitutions\":{\"by\":\"%s\"}}", cases[i].author);
        set(&s, recipe);
        s.order.config = c;
        s.order.variables = str_of(row);
        if (render_letter(&s.order, &letter, &why) != cases[i].error)
            fail_msg("%zu: %.*s", i, STR_FMT(buf_str(&why)));
        if (cases[i].error != 0)
            assert_non_null(memmem(why.data, why.len, "550 5.7.1 From:", 15));
        buf_done(&why);
        message_unref(letter);
        unset(&s);
    }
    config_unref(c);
}

/* A recipe that is a whole message goes the same way: what is 8-bit stays so, and is told. */
static void test_whole_message(void **state)
{
    struct setting s;
    struct message *letter;

    (void)state;
    set(&s, "{\"content\":\"\\nBcc: x\\nFrom: n@s.example\\nMessage-ID: <own>\\n\\n日 {{ x }}\"}");
    letter = made(&s.order);
    assert_int_equal(letter->flags, MESSAGE_8BIT);
    assert_true(str_eq(content_of(letter),
                       STR("Date: Sun, 22 Nov 2026 00:49:17 +0000\r\nFrom: n@s.example\r\n"
                           "Message-ID: <own>\r\n\r\n日 you\r\n")));
    message_unref(letter);
    unset(&s);
}

/* In flight a recipient's message is its letter; behind that, the recipe. */
static void test_drop_letter(void **state)
{
    struct setting s;
    struct recipient *r;
    struct message *letter;

    (void)state;
    set(&s, RECIPE);
    r = recipient_new(s.message, 4, STR("b.example"), STR("a@b.example"), STR(""), STR(ROW));
    letter = made(&s.order);
    message_unref(r->message);
    r->message = letter;
    recipient_drop_letter(r);
    assert_ptr_equal(r->message, s.message);
    recipient_drop_letter(r);
    assert_ptr_equal(r->message, s.message);
    recipient_free(r);
    unset(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_letter),      cmocka_unit_test(test_same_again),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_whole_message),
        cmocka_unit_test(test_drop_letter), cmocka_unit_test(test_authors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
