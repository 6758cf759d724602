/* A report's figures, its text and its page, from what an engine may send. */
#include "tools/commands/campaign_report.h"

#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define HOSTILE "<b>\\\"x\\\"&amp;\\u001b[31m\\u2028"

static const char whole[] =
    "{\"id\":\"ab\",\"name\":\"spring\",\"tenant\":\"acme\",\"state\":\"done\",\"priority\":5,"
    "\"starts_ms\":1764370800000,\"expires_ms\":1764457200000,\"recipients\":1000,\"queued\":0,"
    "\"delivered\":980,\"failed\":19,"
    "\"expired\":1,\"cancelled\":0,\"deferrals\":7,\"report\":{\"sites\":["
    "{\"site\":\"google\",\"delivered\":980,\"failed\":9,\"expired\":1,\"deferrals\":7,"
    "\"reasons\":[{\"reason\":\"SpamBlock\",\"failed\":9,\"expired\":0,\"deferrals\":7}]},"
    "{\"site\":\"" HOSTILE "\",\"delivered\":0,\"failed\":10,\"expired\":0,\"deferrals\":0,"
    "\"reasons\":[{\"reason\":\"" HOSTILE "\",\"failed\":10,\"expired\":0,\"deferrals\":0}]}],"
    "\"reasons\":[{\"reason\":\"SpamBlock\",\"failed\":19,\"expired\":0,\"deferrals\":7}],"
    "\"rate\":{\"from_ms\":1764370800000,\"step_ms\":2000,\"delivered\":[400,0,580],"
    "\"failed\":[19,1,0],\"deferrals\":[0,7,0]},"
    "\"times\":[{\"below_s\":1,\"delivered\":0},{\"below_s\":2,\"delivered\":400},"
    "{\"below_s\":5,\"delivered\":0},{\"below_s\":10,\"delivered\":500},{\"delivered\":80}]}}";
static const char empty[] =
    "{\"id\":\"ab\",\"name\":\"spring\",\"state\":\"draft\",\"priority\":5,\"recipients\":0,"
    "\"queued\":0,\"delivered\":0,\"failed\":0,\"expired\":0,\"cancelled\":0,\"deferrals\":0,"
    "\"report\":{\"sites\":[],\"reasons\":[],\"rate\":{\"from_ms\":0,\"step_ms\":1000,"
    "\"delivered\":[],\"failed\":[],\"deferrals\":[]},\"times\":[{\"delivered\":0}]}}";

static struct figures figures;

static json_t *read(const char *text)
{
    json_error_t error;
    json_t *root = json_loads(text, 0, &error);

    assert_non_null(root);
    assert_true(figures_read(&figures, root));
    return root;
}

static void test_figures(void **state)
{
    json_t *root = read(whole);

    (void)state;
    assert_int_equal(figures.steps, 3);
    assert_string_equal(figures.unit, "second");
    assert_int_equal(figures.peak, 290);
    assert_int_equal(figures.times_first, 1);
    assert_int_equal(figures.times_last, 4);
    assert_true(figures_quantile(&figures, 0.2) > 1.4 && figures_quantile(&figures, 0.2) < 1.6);
    assert_true(figures_quantile(&figures, 0.5) > 5.8 && figures_quantile(&figures, 0.5) < 6.0);
    assert_true(figures_quantile(&figures, 0.99) == 10); /* longer: at least */
    json_decref(root);
    root = read(empty);
    assert_true(figures_quantile(&figures, 0.5) == 0);
    assert_true(figures.times_last < figures.times_first);
    json_decref(root);
    root = json_loads("{\"id\":\"ab\"}", 0, NULL);
    assert_false(figures_read(&figures, root));
    json_decref(root);
}

static void assert_share(uint64_t part, uint64_t of, const char *wanted)
{
    struct buf out = {0};

    put_share(&out, part, of);
    buf_putc(&out, '\0');
    assert_string_equal((char *)out.data, wanted);
    buf_done(&out);
}

static void test_shares(void **state)
{
    (void)state;
    assert_share(0, 0, "0 %");
    assert_share(0, 10, "0 %");
    assert_share(1, 1000000, "< 0.1 %");
    assert_share(123, 1000, "12.3 %");
    assert_share(999999, 1000000, "> 99.9 %");
    assert_share(10, 10, "100 %");
}

static struct buf made(const char *text, bool page)
{
    json_t *root = read(text);
    struct buf out = {0};

    if (page)
        campaign_report_page(&out, &figures, 1764380000);
    else
        campaign_report_text(&out, &figures, 80);
    buf_putc(&out, '\0');
    json_decref(root);
    return out;
}

static void assert_has(const struct buf *out, const char *what)
{
    if (strstr((char *)out->data, what) == NULL)
        fail_msg("no '%s' in %s", what, (char *)out->data);
}

static void test_text(void **state)
{
    struct buf out = made(whole, false);

    (void)state;
    assert_has(&out, "spring@acme: done");
    assert_has(&out, ", expires 2025-");
    assert_has(&out, "delivered             980    98.0 %");
    assert_has(&out, "Delivered per second");
    assert_has(&out, "90 % within ");
    assert_has(&out, "SpamBlock");
    assert_null(strchr((char *)out.data, '\x1b'));
    buf_done(&out);
    out = made(empty, false);
    assert_has(&out, "spring: draft");
    buf_done(&out);
}

/* What comes from outside is text of the page, and nothing else. */
static void test_page(void **state)
{
    struct buf out = made(whole, true);

    (void)state;
    assert_has(&out, "&lt;b&gt;&quot;x&quot;&amp;amp;?[31m?");
    assert_null(strstr((char *)out.data, "<b>\""));
    assert_null(strstr((char *)out.data, "nan"));
    assert_null(strstr((char *)out.data, "inf\""));
    assert_null(strstr((char *)out.data, "<script"));
    assert_has(&out, "</main></body></html>");
    assert_has(&out, "&#183; expires 2025-");
    buf_done(&out);
    out = made(empty, true);
    assert_has(&out, "None was refused.");
    assert_has(&out, "Nothing was delivered so far.");
    assert_null(strstr((char *)out.data, "nan"));
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_figures),
                                       cmocka_unit_test(test_shares), cmocka_unit_test(test_text),
                                       cmocka_unit_test(test_page)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
