/* Any source in each place: compiled or refused at a place within it; rendered within its budget,
 * and in a message's header no variable ends a line. */
#include <stdlib.h>

#include <jansson.h>

#include "mail/template.h"
#include "smtp/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BUDGET_BYTES 100000

static const char variables[] =
    "{\"a\": \"\\n\\nB: c\\r\\n\", \"b\": [\"x\", 1, {\"y\": [[]]}], \"c\": {\"d\": \"<&>\"},"
    " \"n\": 3, \"r\": -1.5, \"t\": true, \"z\": null, \"e\": \"\"}";

static void check(struct str source, enum template_language language, enum template_place place,
                  json_t *json)
{
    struct template_budget budget = {BUDGET_BYTES, 100000};
    struct template_error error = {0};
    struct template_partial itself = {STR("p"), source}; /* partials that include themselves */
    struct template *t =
        template_compile(source, language, place, (source.len & 1) != 0, &itself, 1, &error);
    struct buf out = {0};

    if (t == NULL || template_render(t, json, &budget, &out, &error) < 0) {
        ASSERT(error.line > 0 && error.column > 0 && error.text[0] != '\0');
        ASSERT(error.line <= source.len + 1);
    } else {
        ASSERT(out.len <= BUDGET_BYTES && smtp_utf8_valid(buf_str(&out)));
    }
    template_free(t);
    buf_done(&out);
}

/* Behind "S: " without a line end of its own, a template makes one line. */
static void check_header(struct str source, enum template_language language, json_t *json)
{
    struct template_budget budget = {BUDGET_BYTES, 100000};
    struct template_error error = {0};
    struct buf text = {0}, out = {0};
    struct template *t;

    buf_puts(&text, "S: ");
    for (size_t i = 0; i < source.len; i++)
        buf_putc(&text, source.ptr[i] == '\n' || source.ptr[i] == '\r' ? ' ' : source.ptr[i]);
    t = template_compile(buf_str(&text), language, TEMPLATE_MESSAGE, false, NULL, 0, &error);
    if (t != NULL && template_render(t, json, &budget, &out, &error) == 0)
        ASSERT(str_find(buf_str(&out), '\n') < 0 && str_find(buf_str(&out), '\r') < 0);
    template_free(t);
    buf_done(&text);
    buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct str source = {(const char *)data, size};
    json_t *json;

    if (!smtp_utf8_valid(source) || memchr(data, 0, size) != NULL)
        return 0;
    json = json_loads(variables, 0, NULL);
    ASSERT(json != NULL);
    for (enum template_language l = TEMPLATE_JINJA; l <= TEMPLATE_MUSTACHE; l++) {
        check(source, l, TEMPLATE_TEXT, json);
        check(source, l, TEMPLATE_HTML, json);
        check(source, l, TEMPLATE_MESSAGE, json);
        check_header(source, l, json);
    }
    json_decref(json);
    return 0;
}
