#include "mail/json_fields.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "base/suggest.h"
#include "mail/json_read.h"

#define PATH_MAX_SHOWN 60 /* of a path, in front of a name */
#define NAME_MAX_SHOWN 40

void json_mistake(struct json_mistake *m, unsigned status, const char *field, const char *format,
                  ...)
{
    va_list args;

    ASSERT(status == 400 || status == 422);
    m->status = status;
    snprintf(m->field, sizeof(m->field), "%s", field);
    va_start(args, format);
    vsnprintf(m->text, sizeof(m->text), format, args);
    va_end(args);
}

/* --- the whole text --- */

json_t *json_fields_load(struct str text, uint64_t *bytes, struct json_mistake *mistake)
{
    struct json_read_error why;
    size_t values;
    json_t *root = json_read(text, JSON_FIELDS_DEPTH_MAX, JSON_FIELDS_VALUES_MAX, &values, &why);

    if (root != NULL) {
        if (bytes != NULL)
            *bytes = text.len * 2 + values * 100;
        return root;
    }
    switch (why.kind) {
    case JSON_READ_TOO_DEEP:
        json_mistake(mistake, 400, "", "the JSON is nested more than %d deep",
                     JSON_FIELDS_DEPTH_MAX);
        break;
    case JSON_READ_TOO_MANY:
        json_mistake(mistake, 400, "", "the JSON has more than %d values: send it in parts",
                     JSON_FIELDS_VALUES_MAX);
        break;
    case JSON_READ_NOT_JSON:
        json_mistake(mistake, 400, "", "not JSON: line %zu, column %zu: %s", why.line, why.column,
                     why.why);
        break;
    }
    return NULL;
}

/* --- fields --- */

static unsigned type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return JSON_IS_STRING;
    case JSON_OBJECT:
        return JSON_IS_OBJECT;
    case JSON_ARRAY:
        return JSON_IS_LIST;
    case JSON_TRUE:
    case JSON_FALSE:
        return JSON_IS_BOOLEAN;
    case JSON_INTEGER:
    case JSON_REAL:
        return JSON_IS_NUMBER;
    case JSON_NULL:
        return JSON_MAY_MISS;
    }
    ASSERT(false);
    return 0;
}

static const char *type_names(unsigned types)
{
    switch (types & JSON_IS_ANY) {
    case JSON_IS_STRING:
        return "a string";
    case JSON_IS_OBJECT:
        return "an object";
    case JSON_IS_LIST:
        return "a list";
    case JSON_IS_BOOLEAN:
        return "true or false";
    case JSON_IS_NUMBER:
        return "a number";
    case JSON_IS_STRING | JSON_IS_OBJECT:
        return "a string or an object";
    case JSON_IS_STRING | JSON_IS_NUMBER:
        return "a string or a number";
    default:
        return "something else";
    }
}

const char *json_path(char out[JSON_PATH_BYTES], const char *path, const char *name)
{
    size_t len = strnlen(path, PATH_MAX_SHOWN), more = strnlen(name, NAME_MAX_SHOWN);

    _Static_assert(PATH_MAX_SHOWN + 1 + NAME_MAX_SHOWN < JSON_PATH_BYTES, "both, a dot and a NUL");
    ASSERT(out != path && out != name);
    /* By hand: paths are made for all fields, and nearly none is told. */
    memcpy(out, path, len);
    if (len > 0)
        out[len++] = '.';
    memcpy(out + len, name, more);
    out[len + more] = '\0';
    return out;
}

/* What other services call it, and what it is here, where `field` is one of those that may be. */
static const char *find_foreign(const char *name, const struct json_field *fields, size_t len)
{
    static const struct {
        const char *name, *field, *here;
    } rows[] = {{"to", "recipients", "recipients: [{\"email\": \"a@example.com\"}]"},
                {"personalizations", "recipients", "recipients: [{\"email\": \"a@example.com\"}]"},
                {"cc", "recipients", "a recipient more, and Cc in content.headers"},
                {"bcc", "recipients", "a recipient more"},
                {"from", "content", "content.from: {\"email\": ...}, and envelope_sender"},
                {"reply_to", "content", "content.reply_to: {\"email\": ...}"},
                {"subject", "content", "content.subject"},
                {"text", "content", "content.text_body"},
                {"html", "content", "content.html_body"},
                {"headers", "content", "content.headers"},
                {"attachments", "content", "content.attachments"},
                {"template_id", "content", "content, which is the template"},
                {"dynamic_template_data", "substitutions", "substitutions"},
                {"custom_args", "metadata", "metadata"},
                {"categories", "tags", "tags"},
                {"send_at", "not_before", "not_before"},
                {"ip_pool_name", "pool", "pool"}};

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (size_t j = 0; j < len; j++)
            if (strcmp(rows[i].name, name) == 0 && strcmp(rows[i].field, fields[j].name) == 0)
                return rows[i].here;
    return NULL;
}

const char *json_object_hint(const json_t *value)
{
    return json_is_string(value) && strchr(json_string_value(value), '@') != NULL
               ? ": {\"email\": \"a@example.com\"}"
               : "";
}

static int unknown_field(const char *path, const char *name, const struct json_field *fields,
                         size_t len, struct json_mistake *mistake)
{
    const char *here = find_foreign(name, fields, len);
    char at[JSON_PATH_BYTES];
    struct suggest s;

    if (here != NULL) {
        json_mistake(mistake, 400, json_path(at, path, name), "unknown field; here it is %s", here);
        return -EINVAL;
    }
    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < len; i++)
        suggest_offer(&s, fields[i].name);
    json_mistake(mistake, 400, json_path(at, path, name), "unknown field%s%s%s",
                 s.best != NULL ? "; did you mean '" : "", s.best != NULL ? s.best : "",
                 s.best != NULL ? "'?" : "");
    return -EINVAL;
}

int json_fields_check(const json_t *object, const char *path, const struct json_field *fields,
                      size_t len, struct json_mistake *mistake)
{
    char at[JSON_PATH_BYTES];
    const char *name;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        size_t i = 0;

        while (i < len && strcmp(name, fields[i].name) != 0)
            i++;
        if (i == len)
            return unknown_field(path, name, fields, len, mistake);
        if ((type_of(value) & fields[i].types) == 0) {
            json_mistake(mistake, 400, json_path(at, path, name), "must be %s%s",
                         type_names(fields[i].types),
                         (fields[i].types & JSON_IS_ANY) == JSON_IS_OBJECT ? json_object_hint(value)
                                                                           : "");
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < len; i++) {
        if ((fields[i].types & JSON_MAY_MISS) != 0 ||
            json_object_get(object, fields[i].name) != NULL)
            continue;
        json_mistake(mistake, 400, json_path(at, path, fields[i].name), "is missing");
        return -EINVAL;
    }
    return 0;
}

json_t *json_member(const json_t *object, const char *name)
{
    json_t *v = json_object_get(object, name);

    return v == NULL || json_is_null(v) ? NULL : v;
}

void json_put(json_t *object, const char *name, json_t *value)
{
    int err = json_object_set_new(object, name, value);

    ASSERT(err == 0);
}

struct str json_str(const json_t *value)
{
    return (struct str){json_string_value(value), json_string_length(value)};
}
