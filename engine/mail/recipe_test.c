#include "mail/recipe.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <jansson.h>

#include <cmocka.h>

static const struct msgid id = {{1, 2, 3}};
static const struct template_budget enough = {1u << 20, 100000};

#define ORDER(of, least)                                                                           \
    (struct recipe_order)                                                                          \
    {                                                                                              \
        .email = STR("a@b.example"), .one = (of), .id = &id, .budget = (least)                     \
    }

static struct recipe *parsed(const char *text)
{
    struct json_mistake mistake = {0};
    struct recipe *r = NULL;

    if (recipe_parse(str_of(text), &r, &mistake) < 0)
        fail_msg("%s: %s", mistake.field, mistake.text);
    return r;
}

/* The letter for a@b.example with what row says, as a string; the caller's to free. */
static struct buf letter(const struct recipe *r, const char *row)
{
    struct json_mistake mistake = {0};
    struct template_budget budget = enough;
    struct buf out = {0};
    json_t *one;

    assert_int_equal(recipe_parse_recipient(str_of(row), &one), 0);
    if (recipe_letter(r, &ORDER(one, &budget), &out, &mistake) < 0)
        fail_msg("%s: %s", mistake.field, mistake.text);
    buf_putc(&out, '\0');
    recipe_recipient_free(one);
    return out;
}

static int refused(const struct recipe *r, const char *row, struct template_budget budget,
                   struct json_mistake *mistake)
{
    struct buf out = {0};
    json_t *one;
    int err;

    assert_int_equal(recipe_parse_recipient(str_of(row), &one), 0);
    err = recipe_letter(r, &ORDER(one, &budget), &out, mistake);
    buf_done(&out);
    recipe_recipient_free(one);
    return err;
}

#define CONTENT(more) "{\"from\":{\"email\":\"n@s.example\"},\"text_body\":\"Hi {{ x }}\"" more "}"

static void test_letter(void **state)
{
    struct recipe *r = parsed("{\"content\":" CONTENT(
        ",\"subject\":\"{{ name }}\"") ","
                                       "\"substitutions\":{\"x\":\"all\"}}");
    struct buf out = letter(r, "{\"name\":\"Ann\",\"substitutions\":{\"x\":\"you\"}}");

    (void)state;
    assert_string_equal((char *)out.data,
                        "From: <n@s.example>\r\nTo: \"Ann\" <a@b.example>\r\nSubject: Ann\r\n"
                        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
                        "Content-Transfer-Encoding: 7bit\r\n\r\nHi you\r\n");
    buf_done(&out);
    out = letter(r, "");
    assert_string_equal((char *)out.data,
                        "From: <n@s.example>\r\nTo: <a@b.example>\r\nSubject: \r\n"
                        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n"
                        "Content-Transfer-Encoding: 7bit\r\n\r\nHi all\r\n");
    buf_done(&out);
    assert_true(recipe_is_light(r));
    assert_int_equal(recipe_sender_rule(r).len, 0);
    recipe_free(r);
}

/* What is stored is what was read, without what a recipe does not have. */
static void test_stored(void **state)
{
    static const char body[] = "{\"envelope_sender\": \"a@b\", \"content\": " CONTENT(
        "") ", \"substitutions\": {},"
            " \"template_dialect\": \"Jinja\", \"missing_variables\": null}";
    json_t *root = json_loads(body, 0, NULL);
    struct buf text = {0}, one = {0}, other = {0};
    struct json_mistake mistake;
    struct recipe *r, *again;

    (void)state;
    assert_non_null(root);
    assert_int_equal(recipe_read(root, &r, &mistake), 0);
    recipe_put(root, STR("acme"), &(struct recipe_marks){0}, &text);
    json_decref(root);
    one = letter(r, "{\"substitutions\":{\"x\":\"1\"}}");
    buf_putc(&text, '\0');
    assert_string_equal((char *)text.data,
                        "{\"content\":" CONTENT("") ",\"template_dialect\":\"Jinja\","
                                                    "\"sender_rule\":\"acme\"}");
    again = parsed((char *)text.data);
    other = letter(again, "{\"substitutions\":{\"x\":\"1\"}}");
    assert_string_equal((char *)one.data, (char *)other.data);
    assert_true(str_eq(recipe_sender_rule(again), STR("acme")));
    recipe_free(r);
    recipe_free(again);
    buf_done(&text);
    buf_done(&one);
    buf_done(&other);
}

/* A build before took an argument by a name that its filter does not have for the first one: what
 * was stored then means that for ever, and is not accepted anew. */
static void test_stored_by_older_builds(void **state)
{
    static const char body[] =
        "{\"content\":{\"from\":{\"email\":\"n@s.example\"},"
        "\"text_body\":\"{{ 0|date(lang='de') }} {{ [x, 3]|select(x='odd')|first }}\"}}";
    json_t *root = json_loads(body, 0, NULL);
    struct json_mistake mistake = {0};
    struct recipe *r = parsed(body), *anew;
    struct buf out = letter(r, "{\"substitutions\":{\"x\":2}}");

    (void)state;
    if (strstr((char *)out.data, "\r\n\r\n1. Januar 1970 3\r\n") == NULL)
        fail_msg("%s", (char *)out.data);
    assert_int_equal(recipe_read(root, &anew, &mistake), -EINVAL);
    assert_non_null(strstr(mistake.text, "the filter 'date' has no such argument"));
    json_decref(root);
    recipe_free(r);
    buf_done(&out);
}

static void test_refused_recipes(void **state)
{
    static const char *const texts[] = {
        "",
        "[]",
        "{}",
        "{\"content\":1}",
        "{\"content\":{\"text_body\":\"no from\"}}",
        "{\"content\":" CONTENT("") ",\"recipients\":[]}",
        "{\"content\":" CONTENT("") ",\"template_dialect\":\"Perl\"}",
        "{\"content\":" CONTENT("") ",\"missing_variables\":\"guess\"}",
        "{\"content\":" CONTENT(",\"subject\":\"{{\"") "}",
        "{\"content\":" CONTENT(",\"headers\":{\"Bcc: x\":\"y\"}") "}",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct json_mistake mistake = {0};
        struct recipe *r;

        assert_int_equal(recipe_parse(str_of(texts[i]), &r, &mistake), -EINVAL);
        assert_in_range(mistake.status, 400, 422);
        assert_int_not_equal(mistake.text[0], '\0');
    }
}

static void test_missing(void **state)
{
    struct recipe *r = parsed("{\"content\":" CONTENT("") ",\"missing_variables\":\"fail\"}");
    struct recipe *asks =
        parsed("{\"content\":{\"from\":{\"email\":\"n@s.example\"},\"text_body\":"
               "\"{{ x | default('none') }}{% if x %}{{ x }}{% endif %}{{ name }}\"},"
               "\"missing_variables\":\"fail\"}");
    struct recipe *mustache =
        parsed("{\"content\":" CONTENT("") ",\"template_dialect\":\"Mustache\","
                                           "\"missing_variables\":\"fail\"}");
    struct json_mistake mistake = {0};
    struct buf out;

    (void)state;
    assert_int_equal(refused(r, "", enough, &mistake), -EINVAL);
    assert_string_equal(mistake.field, "content.text_body");
    assert_non_null(strstr(mistake.text, "line 1, column 7: a variable that is not given"));
    assert_int_equal(refused(r, "{\"substitutions\":{\"x\":null}}", enough, &mistake), 0);
    assert_int_equal(refused(mustache, "", enough, &mistake), -EINVAL);
    assert_int_equal(refused(mustache, "{\"substitutions\":{\"x\":\"\"}}", enough, &mistake), 0);
    out = letter(asks, "{\"name\":\"A\"}");
    assert_non_null(strstr((char *)out.data, "\r\n\r\nnoneA\r\n"));
    buf_done(&out);
    assert_int_equal(refused(asks, "", enough, &mistake), -EINVAL); /* no name */
    recipe_free(r);
    recipe_free(asks);
    recipe_free(mustache);
}

static void test_budget(void **state)
{
    struct recipe *r = parsed("{\"content\":{\"from\":{\"email\":\"n@s.example\"},\"text_body\":"
                              "\"{% for a in x %}{% for b in x %}.{% endfor %}{% endfor %}\"}}");
    struct json_mistake mistake = {0};
    const char *row = "{\"substitutions\":{\"x\":[1,2,3,4,5,6,7,8,9,10]}}";

    (void)state;
    assert_int_equal(refused(r, row, enough, &mistake), 0);
    assert_int_equal(refused(r, row, (struct template_budget){1000, 100}, &mistake), -E2BIG);
    assert_non_null(strstr(mistake.text, "steps"));
    assert_int_equal(refused(r, row, (struct template_budget){50, 100000}, &mistake), -E2BIG);
    recipe_free(r);
}

/* No value makes a second field, wherever it stands. */
static void test_line_ends(void **state)
{
    struct recipe *parts = parsed("{\"content\":" CONTENT(",\"subject\":\"{{ x }}\"") "}");
    struct recipe *whole = parsed(
        "{\"content\":\"From: n@s.example\\nSubject: {{ x }}\\nX-Name: {{ name }}\\n\\n{{ x }}\"}");
    const char *row =
        "{\"name\":\"a\\r\\nBcc: b\",\"substitutions\":{\"x\":\"1\\r\\nBcc: b\\n\\n2\"}}";
    const struct recipe *both[] = {parts, whole};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        struct buf out = letter(both[i], row);
        char *header_end = strstr((char *)out.data, "\r\n\r\n"), *bcc;

        assert_non_null(header_end);
        bcc = strstr((char *)out.data, "\r\nBcc:");
        assert_true(bcc == NULL || bcc > header_end);
        buf_done(&out);
    }
    recipe_free(parts);
    recipe_free(whole);
}

static void test_recipients(void **state)
{
    static const struct {
        const char *in, *stored, *meta;
    } cases[] = {
        {"{\"email\": \"a@b\"}", "", ""},
        {"{\"email\": \"a@b\", \"name\": null, \"substitutions\": {}}", "", ""},
        {"{\"email\": \"a@b\", \"name\": \"日\", \"metadata\": {\"k\": [1, \"ü\"]}}",
         "{\"name\":\"日\",\"metadata\":{\"k\":[1,\"ü\"]}}", "{\"k\":[1,\"\\u00FC\"]}"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *in = json_loads(cases[i].in, 0, NULL), *again;
        struct json_mistake mistake;
        struct buf text = {0}, meta = {0};

        assert_int_equal(recipe_check_recipient(in, "recipients[0]", &mistake), 0);
        recipe_put_recipient(in, &text);
        assert_true(str_eq(buf_str(&text), str_of(cases[i].stored)));
        assert_int_equal(recipe_parse_recipient(buf_str(&text), &again), 0);
        recipe_put_metadata(again, STR(""), &meta);
        assert_true(str_eq(buf_str(&meta), str_of(cases[i].meta)));
        json_decref(in);
        recipe_recipient_free(again);
        buf_done(&text);
        buf_done(&meta);
    }
}

/* What all recipients have is in the records of each; what one has of the same name stands in for
 * it. */
static void test_common_metadata(void **state)
{
    static const char common[] = "{\"tags\":[\"a\"]}";
    static const struct {
        const char *one, *common, *meta;
    } cases[] = {
        {"{}", common, common},
        {"{\"metadata\":{}}", common, common},
        {"{\"metadata\":{\"k\":\"é\"}}", common, "{\"tags\":[\"a\"],\"k\":\"\\u00E9\"}"},
        {"{\"metadata\":{\"tags\":7}}", common, "{\"tags\":7}"},
        {"{\"metadata\":{\"k\":1}}", "", "{\"k\":1}"},
        {"{}", "", ""},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *one = json_loads(cases[i].one, 0, NULL);
        struct buf meta = {0};

        recipe_put_metadata(one, str_of(cases[i].common), &meta);
        assert_true(str_eq(buf_str(&meta), str_of(cases[i].meta)));
        buf_done(&meta);
        json_decref(one);
    }
}

/* The order of members means nothing, each value does; what can be changed of a campaign is not in
 * it. */
static void test_fingerprint(void **state)
{
    static const struct {
        const char *root;
        bool same;
    } cases[] = {
        {"{'content':{'subject':'s','text_body':'t'},'envelope_sender':'a@b.example'}", true},
        {"{'envelope_sender':'a@b.example','content':{'text_body':'t','subject':'s'}}", true},
        {"{'content':{'subject':'s','text_body':'t'},'envelope_sender':'a@b.example',"
         "'rate':'1/s','pool':'p','priority':3,'name':'n'}",
         true},
        {"{'content':{'subject':'s','text_body':'T'},'envelope_sender':'a@b.example'}", false},
        {"{'content':{'subject':'s','text_body':'t'},'envelope_sender':'b@b.example'}", false},
        {"{'content':{'subject':'s','text_body':'t'},'envelope_sender':'a@b.example',"
         "'tags':['x']}",
         false},
        {"{'content':{'subject':'s','text_body':'t'},'envelope_sender':'a@b.example',"
         "'expires':9}",
         false},
    };
    char first[RECIPE_FINGERPRINT_BYTES], other[RECIPE_FINGERPRINT_BYTES], text[300];

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *root;

        snprintf(text, sizeof(text), "%s", cases[i].root);
        for (char *c = text; *c != '\0'; c++)
            *c = *c == '\'' ? '"' : *c;
        root = json_loads(text, 0, NULL);
        recipe_fingerprint(root, other);
        if (i == 0)
            memcpy(first, other, sizeof(first));
        assert_int_equal(strlen(other), RECIPE_FINGERPRINT_BYTES - 1);
        assert_int_equal(strcmp(first, other) == 0, cases[i].same);
        json_decref(root);
    }
}

static void test_refused_recipients(void **state)
{
    static const struct {
        const char *in, *field;
    } cases[] = {
        {"[]", "r"},
        {"{}", "r.email"},
        {"{\"email\": 1}", "r.email"},
        {"{\"email\": \"a\", \"nam\": \"b\"}", "r.nam"},
        {"{\"email\": \"a\", \"substitutions\": []}", "r.substitutions"},
        {"{\"email\": \"a\", \"metadata\": {\"tenant\": \"b\"}}", "r"},
    };
    json_t *one;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *in = json_loads(cases[i].in, 0, NULL);
        struct json_mistake mistake;

        assert_int_equal(recipe_check_recipient(in, "r", &mistake), -EINVAL);
        assert_string_equal(mistake.field, cases[i].field);
        json_decref(in);
    }
    assert_int_equal(recipe_parse_recipient(STR("[1]"), &one), -EINVAL);
    assert_int_equal(recipe_parse_recipient(STR("{"), &one), -EINVAL);
}

/* What a Mustache recipe is, of which so many header fields include a partial of 40,000 tags. */
static int parse_including(unsigned fields, struct json_mistake *mistake)
{
    struct recipe *r = NULL;
    struct buf text = {0};
    int err;

    buf_puts(&text, "{\"template_dialect\":\"Mustache\",\"partials\":{\"p\":\"");
    for (int i = 0; i < 40000; i++)
        buf_puts(&text, "{{a}}");
    buf_puts(&text, "\"},\"content\":" CONTENT(",\"headers\":{\"X\":\"x\""));
    text.len--; /* the brace that ends the content */
    for (unsigned i = 0; i < fields; i++)
        buf_printf(&text, ",\"X-%u\":\"{{> p}}\"", i);
    buf_puts(&text, "}}}");
    err = recipe_parse(buf_str(&text), &r, mistake);
    buf_done(&text);
    recipe_free(r);
    return err;
}

/* Each template that includes a partial compiles it for itself. */
static void test_many_includes(void **state)
{
    struct json_mistake mistake = {0};

    (void)state;
    assert_int_equal(parse_including(2, &mistake), 0);
    assert_int_equal(parse_including(99, &mistake), -EINVAL);
    assert_non_null(strstr(mistake.text, "MiB"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_letter),
        cmocka_unit_test(test_stored),
        cmocka_unit_test(test_stored_by_older_builds),
        cmocka_unit_test(test_refused_recipes),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_line_ends),
        cmocka_unit_test(test_recipients),
        cmocka_unit_test(test_refused_recipients),
        cmocka_unit_test(test_many_includes),
        cmocka_unit_test(test_common_metadata),
        cmocka_unit_test(test_fingerprint),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
