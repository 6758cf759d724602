#include "http/injection.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "config/suggest.h"
#include "http/injection_private.h"
#include "mail/mime.h"
#include "mail/trace.h"
#include "smtp/address.h"

#define PATH_BYTES          120
#define TIME_MS_MAX         (INT64_C(366) * 86400000)
#define FIELDS_MAX          100 /* in content.headers */
#define ATTACHED_MAX        100
#define IDEMPOTENCY_KEY_MAX 256
#define METADATA_BYTES_MAX  8192 /* of a recipient: each record about it has them */

void injection_fail(struct injection_error *error, unsigned status, const char *field,
                    const char *format, ...)
{
    va_list args;

    error->status = status;
    snprintf(error->field, sizeof(error->field), "%s", field);
    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
}

/* --- JSON --- */

/* Counts before the library makes a tree of it: 32 MiB of "[[[[" or of "1,1,1," would take a deep
 * stack or gigabytes. Whatever else is wrong with the text is the library's to say. */
static int check_size(struct str body, size_t *values, struct injection_error *error)
{
    size_t depth = 0;
    bool quoted = false;

    *values = 1;
    for (size_t i = 0; i < body.len; i++) {
        char c = body.ptr[i];

        if (quoted) {
            i += c == '\\';
            quoted = c != '"';
            continue;
        }
        quoted = c == '"';
        depth += c == '[' || c == '{';
        depth -= (c == ']' || c == '}') && depth > 0;
        *values += c == ',' || c == ':' || c == '[' || c == '{';
        if (depth > INJECTION_DEPTH_MAX) {
            injection_fail(error, 400, "", "the JSON is nested more than %d deep",
                           INJECTION_DEPTH_MAX);
            return -EINVAL;
        }
    }
    if (*values > INJECTION_VALUES_MAX) {
        injection_fail(error, 400, "", "the JSON has more than %d values: send it in parts",
                       INJECTION_VALUES_MAX);
        return -EINVAL;
    }
    return 0;
}

static int load_json(struct injection *in, struct str body, struct injection_error *error)
{
    json_error_t why;
    size_t values;

    if (check_size(body, &values, error) < 0)
        return -EINVAL;
    in->root = json_loadb(body.ptr == NULL ? "" : body.ptr, body.len, JSON_REJECT_DUPLICATES, &why);
    if (in->root == NULL) {
        injection_fail(error, 400, "", "not JSON: line %d, column %d: %s", why.line, why.column,
                       why.text);
        return -EINVAL;
    }
    in->facts.bytes = body.len * 2 + values * 100;
    return 0;
}

/* --- fields --- */

enum { STRING = 1, OBJECT = 2, ARRAY = 4, BOOLEAN = 8, NUMBER = 16, ANY = 31, OPTIONAL = 32 };

struct field {
    const char *name;
    unsigned types; /* of the above; OPTIONAL: may be missing, or null */
};

static unsigned type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return STRING;
    case JSON_OBJECT:
        return OBJECT;
    case JSON_ARRAY:
        return ARRAY;
    case JSON_TRUE:
    case JSON_FALSE:
        return BOOLEAN;
    case JSON_INTEGER:
    case JSON_REAL:
        return NUMBER;
    case JSON_NULL:
        return OPTIONAL;
    }
    return 0;
}

static const char *type_names(unsigned types)
{
    switch (types & ANY) {
    case STRING:
        return "a string";
    case OBJECT:
        return "an object";
    case ARRAY:
        return "a list";
    case BOOLEAN:
        return "true or false";
    case NUMBER:
        return "a number";
    case STRING | OBJECT:
        return "a string or an object";
    case STRING | NUMBER:
        return "a string or a number";
    default:
        return "something else";
    }
}

static const char *join_path(char out[PATH_BYTES], const char *path, const char *name)
{
    /* Names are the client's: one of any length is cut. */
    snprintf(out, PATH_BYTES, "%.60s%s%.40s", path, *path == '\0' ? "" : ".", name);
    return out;
}

static int unknown_field(const char *path, const char *name, const struct field *fields, size_t len,
                         struct injection_error *error)
{
    char at[PATH_BYTES];
    struct suggest s;

    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < len; i++)
        suggest_offer(&s, fields[i].name);
    injection_fail(error, 400, join_path(at, path, name), "unknown field%s%s%s",
                   s.best != NULL ? "; did you mean '" : "", s.best != NULL ? s.best : "",
                   s.best != NULL ? "'?" : "");
    return -EINVAL;
}

/* Whether object has fields of these alone, each of its type, and all that must be. */
static int check_fields(json_t *object, const char *path, const struct field *fields, size_t len,
                        struct injection_error *error)
{
    char at[PATH_BYTES];
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        size_t i = 0;

        while (i < len && strcmp(name, fields[i].name) != 0)
            i++;
        if (i == len)
            return unknown_field(path, name, fields, len, error);
        if ((type_of(value) & fields[i].types) == 0) {
            injection_fail(error, 400, join_path(at, path, name), "must be %s",
                           type_names(fields[i].types));
            return -EINVAL;
        }
    }
    for (size_t i = 0; i < len; i++) {
        if ((fields[i].types & OPTIONAL) != 0 || json_object_get(object, fields[i].name) != NULL)
            continue;
        injection_fail(error, 400, join_path(at, path, fields[i].name), "is missing");
        return -EINVAL;
    }
    return 0;
}

/* A member that is there and not null, else NULL. */
static json_t *member(const json_t *object, const char *name)
{
    json_t *v = json_object_get(object, name);

    return v == NULL || json_is_null(v) ? NULL : v;
}

/* --- templates --- */

struct reading {
    struct injection *in;
    bool literal; /* the dialect is Static */
    enum template_language language;
    struct injection_error *error;
};

static struct template *compile(struct reading *r, const json_t *source, enum template_place place,
                                const char *path)
{
    struct template_error why;
    struct template *t;

    t = r->literal ? template_literal(json_str(source))
                   : template_compile(json_str(source), r->language, place, &why);
    if (t == NULL)
        injection_fail(r->error, 422, path, "template, line %u, column %u: %s", why.line,
                       why.column, why.text);
    else
        r->in->facts.bytes += template_bytes(t);
    return t;
}

static int read_texts(struct reading *r, json_t *content)
{
    static const struct {
        const char *name, *path, *subtype;
        enum template_place place;
    } texts[] = {{"text_body", "content.text_body", "plain", TEMPLATE_TEXT},
                 {"amp_html_body", "content.amp_html_body", "x-amp-html", TEMPLATE_HTML},
                 {"html_body", "content.html_body", "html", TEMPLATE_HTML}};

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        json_t *source = member(content, texts[i].name);
        struct template *t;

        if (source == NULL)
            continue;
        t = compile(r, source, texts[i].place, texts[i].path);
        if (t == NULL)
            return -EINVAL;
        r->in->texts[r->in->texts_len++] = (struct letter_text){
            .path = texts[i].path, .subtype = str_of(texts[i].subtype), .text = t};
    }
    if (member(content, "text_body") != NULL || member(content, "html_body") != NULL)
        return 0;
    injection_fail(r->error, 422, "content", "text_body or html_body is missing");
    return -EINVAL;
}

static int read_mailbox(struct reading *r, json_t *content, const char *name,
                        struct letter_mailbox *out)
{
    static const struct field fields[] = {{"email", STRING}, {"name", STRING | OPTIONAL}};
    json_t *box = member(content, name), *display;
    char path[PATH_BYTES], at[PATH_BYTES];

    if (box == NULL)
        return 0;
    join_path(path, "content", name);
    if (check_fields(box, path, fields, ARRAY_LEN(fields), r->error) < 0)
        return -EINVAL;
    out->email =
        compile(r, json_object_get(box, "email"), TEMPLATE_TEXT, join_path(at, path, "email"));
    if (out->email == NULL)
        return -EINVAL;
    display = member(box, "name");
    if (display == NULL)
        return 0;
    out->name = compile(r, display, TEMPLATE_TEXT, join_path(at, path, "name"));
    return out->name == NULL ? -EINVAL : 0;
}

/* Fields that the letter gets from elsewhere: two of a kind would be read by some as the one, by
 * some as the other. */
static const char *field_clash(const struct injection *in, const json_t *content, struct str name)
{
    if (str_starts_nocase(name, STR("Content-")) || str_eq_nocase(name, STR("MIME-Version")))
        return "is written by the engine";
    if (str_eq_nocase(name, STR("Subject")) && member(content, "subject") != NULL)
        return "is given as content.subject as well";
    if (str_eq_nocase(name, STR("From")) && in->from.email != NULL)
        return "is given as content.from as well";
    if (str_eq_nocase(name, STR("Reply-To")) && in->reply_to.email != NULL)
        return "is given as content.reply_to as well";
    for (size_t i = 0; i < in->fields_len; i++)
        if (str_eq_nocase(name, in->fields[i].name))
            return "is given twice";
    return NULL;
}

static int add_field(struct reading *r, const char *name, const json_t *value, const char *path)
{
    struct injection *in = r->in;
    struct letter_field *f = &in->fields[in->fields_len];

    f->name = str_of(name);
    f->value = compile(r, value, TEMPLATE_TEXT, path);
    if (f->value == NULL)
        return -EINVAL;
    in->fields_len++;
    in->has_to |= str_eq_nocase(f->name, STR("To"));
    return 0;
}

static int read_header(struct reading *r, json_t *content)
{
    struct injection *in = r->in;
    json_t *headers = member(content, "headers"), *subject = member(content, "subject"), *value;
    size_t len = json_object_size(headers);
    bool has_from = in->from.email != NULL;
    char path[PATH_BYTES];
    const char *name, *clash;

    if (len > FIELDS_MAX) {
        injection_fail(r->error, 422, "content.headers", "more than %d fields", FIELDS_MAX);
        return -EINVAL;
    }
    in->fields = calloc(len + 1, sizeof(*in->fields));
    ASSERT(in->fields != NULL);
    json_object_foreach(headers, name, value)
    {
        join_path(path, "content.headers", name);
        clash = !mime_field_name_valid(str_of(name)) ? "is no name of a header field"
                : !json_is_string(value)             ? "must be a string"
                                                     : field_clash(in, content, str_of(name));
        if (clash != NULL) {
            injection_fail(r->error, 422, path, "%s", clash);
            return -EINVAL;
        }
        if (add_field(r, name, value, path) < 0)
            return -EINVAL;
        has_from |= str_eq_nocase(str_of(name), STR("From"));
    }
    if (subject != NULL && add_field(r, "Subject", subject, "content.subject") < 0)
        return -EINVAL;
    if (!has_from) {
        injection_fail(r->error, 422, "content.from",
                       "is missing: a letter without From is refused "
                       "by most receivers");
        return -EINVAL;
    }
    return 0;
}

/* --- attachments --- */

static int read_attachment(struct reading *r, json_t *one, const char *path)
{
    static const struct field fields[] = {{"data", STRING},
                                          {"content_type", STRING},
                                          {"content_id", STRING | OPTIONAL},
                                          {"file_name", STRING | OPTIONAL},
                                          {"base64", BOOLEAN | OPTIONAL}};
    struct injection *in = r->in;
    struct mime_attachment a;
    json_t *id, *name;
    guchar *decoded = NULL;
    gsize decoded_len;

    if (check_fields(one, path, fields, ARRAY_LEN(fields), r->error) < 0)
        return -EINVAL;
    id = member(one, "content_id");
    name = member(one, "file_name");
    a = (struct mime_attachment){.type = json_str(json_object_get(one, "content_type")),
                                 .content_id = id == NULL ? STR("") : json_str(id),
                                 .file_name = name == NULL ? STR("") : json_str(name),
                                 .bytes = json_str(json_object_get(one, "data"))};
    if (!mime_type_valid(a.type) || (id != NULL && !mime_id_valid(a.content_id))) {
        injection_fail(r->error, 422, path,
                       mime_type_valid(a.type)
                           ? "content_id is no id: visible ASCII without < and >"
                           : "content_type is none: type/subtype, not multipart or message");
        return -EINVAL;
    }
    if (json_is_true(json_object_get(one, "base64"))) {
        /* What base64 does not have would be skipped: an attachment that is spoilt in silence. */
        if (strspn(a.bytes.ptr, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
                                "\r\n") != a.bytes.len) {
            injection_fail(r->error, 422, path, "data is not base64");
            return -EINVAL;
        }
        decoded = g_base64_decode(a.bytes.ptr, &decoded_len);
        a.bytes = (struct str){(const char *)decoded, decoded_len};
    }
    mime_put_attachment(
        id != NULL ? &in->inlined[in->inlined_len++] : &in->attached[in->attached_len++], &a);
    g_free(decoded);
    in->facts.bytes += a.bytes.len * 2;
    return 0;
}

static int read_attachments(struct reading *r, json_t *content)
{
    json_t *list = member(content, "attachments");
    size_t len = json_array_size(list);
    char path[PATH_BYTES];

    if (len > ATTACHED_MAX) {
        injection_fail(r->error, 422, "content.attachments", "more than %d", ATTACHED_MAX);
        return -EINVAL;
    }
    r->in->inlined = calloc(len + 1, sizeof(*r->in->inlined));
    r->in->attached = calloc(len + 1, sizeof(*r->in->attached));
    ASSERT(r->in->inlined != NULL && r->in->attached != NULL);
    for (size_t i = 0; i < len; i++) {
        json_t *one = json_array_get(list, i);

        snprintf(path, sizeof(path), "content.attachments[%zu]", i);
        if (!json_is_object(one)) {
            injection_fail(r->error, 400, path, "must be an object");
            return -EINVAL;
        }
        if (read_attachment(r, one, path) < 0)
            return -EINVAL;
    }
    return 0;
}

/* --- the whole --- */

static int read_content(struct reading *r)
{
    static const struct field fields[] = {
        {"text_body", STRING | OPTIONAL},     {"html_body", STRING | OPTIONAL},
        {"amp_html_body", STRING | OPTIONAL}, {"attachments", ARRAY | OPTIONAL},
        {"headers", OBJECT | OPTIONAL},       {"from", OBJECT | OPTIONAL},
        {"subject", STRING | OPTIONAL},       {"reply_to", OBJECT | OPTIONAL}};
    json_t *content = json_object_get(r->in->root, "content");

    if (json_is_string(content)) {
        r->in->message = compile(r, content, TEMPLATE_MESSAGE, "content");
        return r->in->message == NULL ? -EINVAL : 0;
    }
    if (check_fields(content, "content", fields, ARRAY_LEN(fields), r->error) < 0 ||
        read_texts(r, content) < 0 || read_mailbox(r, content, "from", &r->in->from) < 0 ||
        read_mailbox(r, content, "reply_to", &r->in->reply_to) < 0 || read_header(r, content) < 0)
        return -EINVAL;
    return read_attachments(r, content);
}

/* In records tenant and campaign stand in front of what is the client's (outcome/report.c), under
 * these names: a second one would pass for them. */
static int check_metadata(const json_t *recipient, const char *path, struct injection_error *error)
{
    json_t *metadata = member(recipient, "metadata");
    size_t bytes = metadata == NULL ? 0 : json_dumpb(metadata, NULL, 0, JSON_COMPACT);

    if (json_object_get(metadata, "tenant") == NULL &&
        json_object_get(metadata, "campaign") == NULL && bytes <= METADATA_BYTES_MAX)
        return 0;
    injection_fail(error, 422, path,
                   "metadata may have neither 'tenant' nor 'campaign', nor more than %d bytes",
                   METADATA_BYTES_MAX);
    return -EINVAL;
}

static int read_recipients(struct reading *r)
{
    static const struct field fields[] = {{"email", STRING},
                                          {"name", STRING | OPTIONAL},
                                          {"substitutions", OBJECT | OPTIONAL},
                                          {"metadata", OBJECT | OPTIONAL}};
    char path[PATH_BYTES];

    r->in->recipients = json_object_get(r->in->root, "recipients");
    r->in->facts.recipients = json_array_size(r->in->recipients);
    for (size_t i = 0; i < r->in->facts.recipients; i++) {
        json_t *one = json_array_get(r->in->recipients, i);

        snprintf(path, sizeof(path), "recipients[%zu]", i);
        if (!json_is_object(one)) {
            injection_fail(r->error, 400, path, "must be an object");
            return -EINVAL;
        }
        if (check_fields(one, path, fields, ARRAY_LEN(fields), r->error) < 0 ||
            check_metadata(one, path, r->error) < 0)
            return -EINVAL;
    }
    return 0;
}

static int read_sender(struct reading *r)
{
    struct str sender = json_str(json_object_get(r->in->root, "envelope_sender"));
    struct smtp_address address;

    if (str_eq(sender, STR("<>")))
        sender.len = 0;
    if (sender.len > 0 && (smtp_address_parse(sender, true, &address) < 0 ||
                           sender.len > SMTP_PATH_MAX || address.domain.len == 0)) {
        injection_fail(r->error, 422, "envelope_sender", "is no mail address");
        return -EINVAL;
    }
    r->in->facts.sender = sender.len == 0 ? sender : address.text;
    return 0;
}

static int read_name(struct reading *r, const char *field, struct str *out)
{
    json_t *v = member(r->in->root, field);
    struct str name = v == NULL ? STR("") : json_str(v);

    bool valid = name.len > 0 && name.len <= TRACE_NAME_BYTES_MAX;

    for (size_t i = 0; i < name.len; i++)
        valid &= g_ascii_isalnum(name.ptr[i]) || strchr("._-", name.ptr[i]) != NULL;
    if (v != NULL && !valid) {
        injection_fail(r->error, 422, field,
                       "is not a name of 1 to 64 letters, digits, '.', '_', '-'");
        return -EINVAL;
    }
    *out = name;
    return 0;
}

static int read_idempotency_key(struct reading *r, struct str *out)
{
    json_t *v = member(r->in->root, "idempotency_key");

    *out = v == NULL ? STR("") : json_str(v);
    if (v == NULL ||
        (out->len > 0 && g_utf8_strlen(out->ptr, (gssize)out->len) <= IDEMPOTENCY_KEY_MAX))
        return 0;
    injection_fail(r->error, 422, "idempotency_key", "is not 1 to %d characters",
                   IDEMPOTENCY_KEY_MAX);
    return -EINVAL;
}

/* A date as RFC 3339 or as mail writes it, or Unix seconds. False: it is none. */
static bool time_of(const json_t *v, int64_t *wall_ms)
{
    GTimeZone *utc;
    GDateTime *date;

    if (json_is_integer(v)) {
        *wall_ms = json_integer_value(v) > 0 && json_integer_value(v) < INT64_MAX / 1000
                       ? json_integer_value(v) * 1000
                       : 0;
        return true;
    }
    if (!json_is_string(v))
        return false;
    utc = g_time_zone_new_utc();
    date = g_date_time_new_from_iso8601(json_string_value(v), utc);
    g_time_zone_unref(utc);
    if (date == NULL)
        return trace_date_parse(json_str(v), wall_ms) == 0;
    *wall_ms = g_date_time_to_unix(date) * 1000 + g_date_time_get_microsecond(date) / 1000;
    g_date_time_unref(date);
    return true;
}

static int read_time(struct reading *r, const char *field, int64_t now_ms, int64_t *out)
{
    json_t *v = member(r->in->root, field);

    if (v == NULL)
        return 0;
    if (time_of(v, out) && *out > 0 && *out <= now_ms + TIME_MS_MAX)
        return 0;
    injection_fail(r->error, 422, field,
                   "is no time within a year: write 2026-11-29T09:00:00Z, or Unix seconds");
    return -EINVAL;
}

static int read_options(struct reading *r, int64_t now_ms)
{
    static const struct field trace_fields[] = {{"received_header", BOOLEAN | OPTIONAL},
                                                {"supplemental_header", BOOLEAN | OPTIONAL}};
    struct injection_facts *facts = &r->in->facts;
    static const struct {
        struct str name;
        enum template_language language;
    } languages[] = {{STR("Jinja"), TEMPLATE_JINJA},
                     {STR("Handlebars"), TEMPLATE_HANDLEBARS},
                     {STR("Mustache"), TEMPLATE_MUSTACHE}};
    json_t *dialect = member(r->in->root, "template_dialect");
    json_t *priority = member(r->in->root, "priority"),
           *trace = member(r->in->root, "trace_headers");
    struct str name = dialect == NULL ? STR("Jinja") : json_str(dialect);
    bool known = false;

    for (size_t i = 0; i < ARRAY_LEN(languages); i++)
        if (str_eq(name, languages[i].name)) {
            r->language = languages[i].language;
            known = true;
        }
    r->literal = str_eq(name, STR("Static"));
    if (!r->literal && !known) {
        injection_fail(r->error, 422, "template_dialect",
                       "'%.*s' is not known here; Jinja, Handlebars, Mustache or Static",
                       name.len > 40 ? 40 : (int)name.len, name.ptr);
        return -EINVAL;
    }
    facts->priority = priority == NULL ? -1 : (int)json_integer_value(priority);
    if (priority != NULL && (!json_is_integer(priority) || json_integer_value(priority) < 0 ||
                             json_integer_value(priority) > 9)) {
        injection_fail(r->error, 422, "priority", "is not 0 (first) to 9 (last)");
        return -EINVAL;
    }
    if (trace != NULL &&
        check_fields(trace, "trace_headers", trace_fields, ARRAY_LEN(trace_fields), r->error) < 0)
        return -EINVAL;
    if (json_is_true(json_object_get(trace, "supplemental_header"))) {
        injection_fail(r->error, 422, "trace_headers.supplemental_header",
                       "no such header is written here; leave it out or write false");
        return -EINVAL;
    }
    facts->received = json_is_true(json_object_get(trace, "received_header"));
    if (read_name(r, "campaign", &facts->campaign) < 0 ||
        read_name(r, "tenant", &facts->tenant) < 0 || read_name(r, "pool", &facts->pool) < 0 ||
        read_idempotency_key(r, &facts->idempotency_key) < 0 ||
        read_time(r, "not_before", now_ms, &facts->not_before_ms) < 0 ||
        read_time(r, "expires", now_ms, &facts->expires_ms) < 0)
        return -EINVAL;
    if (facts->expires_ms != 0 && facts->expires_ms <= now_ms) {
        injection_fail(r->error, 422, "expires", "is over");
        return -EINVAL;
    }
    return 0;
}

static int read_root(struct reading *r, int64_t now_ms)
{
    static const struct field fields[] = {{"envelope_sender", STRING},
                                          {"recipients", ARRAY},
                                          {"content", STRING | OBJECT},
                                          {"substitutions", OBJECT | OPTIONAL},
                                          {"template_dialect", STRING | OPTIONAL},
                                          {"trace_headers", OBJECT | OPTIONAL},
                                          {"campaign", STRING | OPTIONAL},
                                          {"tenant", STRING | OPTIONAL},
                                          {"pool", STRING | OPTIONAL},
                                          {"priority", NUMBER | OPTIONAL},
                                          {"idempotency_key", STRING | OPTIONAL},
                                          {"not_before", STRING | NUMBER | OPTIONAL},
                                          {"expires", STRING | NUMBER | OPTIONAL}};

    if (!json_is_object(r->in->root)) {
        injection_fail(r->error, 400, "", "the body must be an object");
        return -EINVAL;
    }
    if (check_fields(r->in->root, "", fields, ARRAY_LEN(fields), r->error) < 0)
        return -EINVAL;
    r->in->substitutions = member(r->in->root, "substitutions");
    if (read_options(r, now_ms) < 0 || read_sender(r) < 0 || read_recipients(r) < 0)
        return -EINVAL;
    return read_content(r);
}

int injection_parse(struct str body, int64_t now_ms, struct injection **out,
                    struct injection_error *error)
{
    struct injection *in = calloc(1, sizeof(*in));
    struct reading r = {.in = in, .error = error};

    ASSERT(in != NULL);
    if (load_json(in, body, error) < 0 || read_root(&r, now_ms) < 0) {
        injection_free(in);
        return -EINVAL;
    }
    *out = in;
    return 0;
}

static void mailbox_free(struct letter_mailbox *box)
{
    template_free(box->email);
    template_free(box->name);
}

void injection_free(struct injection *in)
{
    if (in == NULL)
        return;
    template_free(in->message);
    for (size_t i = 0; i < in->texts_len; i++)
        template_free(in->texts[i].text);
    mailbox_free(&in->from);
    mailbox_free(&in->reply_to);
    for (size_t i = 0; i < in->fields_len; i++)
        template_free(in->fields[i].value);
    for (size_t i = 0; i < in->inlined_len; i++)
        buf_done(&in->inlined[i]);
    for (size_t i = 0; i < in->attached_len; i++)
        buf_done(&in->attached[i]);
    free(in->fields);
    free(in->inlined);
    free(in->attached);
    json_decref(in->root);
    free(in);
}

const struct injection_facts *injection_facts(const struct injection *in)
{
    return &in->facts;
}

struct str injection_email(const struct injection *in, size_t recipient)
{
    return json_str(json_object_get(json_array_get(in->recipients, recipient), "email"));
}

char *injection_metadata(const struct injection *in, size_t recipient)
{
    json_t *metadata = member(json_array_get(in->recipients, recipient), "metadata");

    /* A record is read by terminals too: no control character beyond ASCII. */
    return metadata == NULL ? NULL : json_dumps(metadata, JSON_COMPACT | JSON_ENSURE_ASCII);
}
