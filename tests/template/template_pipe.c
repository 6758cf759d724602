/* Lines of JSON {"template":...,"language":"handlebars"|"mustache" (or none: Jinja),
 * "place":"text"|"html"|"message","variables":{...},"partials":{...} (or none)} in, for each a
 * line {"out":...} or {"error":...,"line":N,"column":N} out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "mail/template.h"

static enum template_place place_of(const char *name)
{
    return strcmp(name, "html") == 0      ? TEMPLATE_HTML
           : strcmp(name, "message") == 0 ? TEMPLATE_MESSAGE
                                          : TEMPLATE_TEXT;
}

static enum template_language language_of(const char *name)
{
    return name == NULL                      ? TEMPLATE_JINJA
           : strcmp(name, "handlebars") == 0 ? TEMPLATE_HANDLEBARS
                                             : TEMPLATE_MUSTACHE;
}

static json_t *answer(json_t *line)
{
    json_t *source = json_object_get(line, "template");
    struct template_budget budget = {1 << 20, 1000000};
    struct template_error error = {0};
    json_t *given = json_object_get(line, "partials"), *text;
    struct template_partial partials[TEMPLATE_PARTIALS_MAX];
    size_t partials_len = 0;
    struct template *t;
    struct buf out = {0};
    const char *name;
    json_t *said;

    json_object_foreach(given, name, text) partials[partials_len++] = (struct template_partial){
        {name, strlen(name)}, {json_string_value(text), json_string_length(text)}};
    t = template_compile((struct str){json_string_value(source), json_string_length(source)},
                         language_of(json_string_value(json_object_get(line, "language"))),
                         place_of(json_string_value(json_object_get(line, "place"))), false,
                         partials, partials_len, &error);
    if (t == NULL ||
        template_render(t, json_object_get(line, "variables"), &budget, &out, &error) < 0)
        said = json_pack("{s:s,s:i,s:i}", "error", error.text, "line", (int)error.line, "column",
                         (int)error.column);
    else
        said =
            json_pack("{s:o}", "out", json_stringn(out.len > 0 ? (char *)out.data : "", out.len));
    template_free(t);
    buf_done(&out);
    return said;
}

int main(void)
{
    char *text = NULL;
    size_t size = 0;

    while (getline(&text, &size, stdin) > 0) {
        json_t *line = json_loads(text, 0, NULL), *said;

        ASSERT(line != NULL);
        said = answer(line);
        json_dumpf(said, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(said);
        json_decref(line);
    }
    free(text);
    return 0;
}
