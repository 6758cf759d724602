/* JSON to templates. */
#include "mail/recipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"
#include "mail/iso2022jp.h"
#include "mail/mime.h"
#include "mail/recipe_private.h"
#include "tls/digest.h"

#define FIELDS_MAX         100          /* in content.headers */
#define PARTIALS_BYTES_MAX (256u << 10) /* each template that includes any has a copy of all */
#define COMPILED_BYTES_MAX (32u << 20)  /* of a letter's templates, beside their own texts */
#define METADATA_BYTES_MAX 8192         /* of a recipient: each record about it has them */
/* A letter of no more is made while others wait: 200 us. Of a whole message the header is looked at
 * word by word, which takes longer. */
#define LIGHT_BYTES         (64u << 10)
#define LIGHT_MESSAGE_BYTES (4u << 10)
#define LIGHT_FIXED_BYTES   (256u << 10)

/* --- templates --- */

struct reading {
    struct recipe *in;
    bool stored;  /* as in template_compile() */
    bool literal; /* the dialect is Static */
    bool missing_fails;
    enum template_language language;
    struct template_partial partials[TEMPLATE_PARTIALS_MAX];
    size_t partials_len;
    struct json_mistake *error;
};

void recipe_mistake(struct json_mistake *m, const char *path, const struct template_error *why)
{
    bool partial = why->partial[0] != '\0';

    json_mistake(m, 422, path, "template%s%s%s, line %u, column %u: %s",
                 partial ? ", partial '" : "", why->partial, partial ? "'" : "", why->line,
                 why->column, why->text);
}

static struct template *compile(struct reading *r, const json_t *source, enum template_place place,
                                const char *path)
{
    struct template_error why;
    struct template *t;

    ASSERT(json_is_string(source));
    t = r->literal ? template_literal(json_str(source))
                   : template_compile(json_str(source), r->language, place, r->stored, r->partials,
                                      r->partials_len, &why);
    if (t == NULL) {
        recipe_mistake(r->error, path, &why);
        return NULL;
    }
    if (r->missing_fails)
        template_refuse_missing(t);
    r->in->bytes += template_bytes(t);
    r->in->text_bytes += json_string_length(source);
    if (r->partials_len > 0 && r->in->bytes > COMPILED_BYTES_MAX + 2 * r->in->text_bytes) {
        json_mistake(r->error, 422, path,
                     "with the partials that they include the letter's templates take more than "
                     "%u MiB",
                     COMPILED_BYTES_MAX >> 20);
        template_free(t);
        return NULL;
    }
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

    _Static_assert(ARRAY_LEN(texts) == LETTER_TEXTS_MAX, "room for each");
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        json_t *source = json_member(content, texts[i].name);
        struct template *t;

        if (source == NULL)
            continue;
        t = compile(r, source, texts[i].place, texts[i].path);
        if (t == NULL)
            return -EINVAL;
        r->in->texts[r->in->texts_len++] = (struct letter_text){
            .path = texts[i].path, .subtype = str_of(texts[i].subtype), .text = t};
    }
    if (json_member(content, "text_body") != NULL || json_member(content, "html_body") != NULL)
        return 0;
    json_mistake(r->error, 422, "content", "text_body or html_body is missing");
    return -EINVAL;
}

static int read_mailbox(struct reading *r, json_t *content, const char *name,
                        struct letter_mailbox *out)
{
    static const struct json_field fields[] = {{"email", JSON_IS_STRING},
                                               {"name", JSON_IS_STRING | JSON_MAY_MISS}};
    json_t *box = json_member(content, name), *display;
    char path[JSON_PATH_BYTES], at[JSON_PATH_BYTES];

    ASSERT(out->email == NULL && out->name == NULL);
    if (box == NULL)
        return 0;
    json_path(path, "content", name);
    if (json_fields_check(box, path, fields, ARRAY_LEN(fields), r->error) < 0)
        return -EINVAL;
    out->email =
        compile(r, json_object_get(box, "email"), TEMPLATE_TEXT, json_path(at, path, "email"));
    if (out->email == NULL)
        return -EINVAL;
    display = json_member(box, "name");
    if (display == NULL)
        return 0;
    out->name = compile(r, display, TEMPLATE_TEXT, json_path(at, path, "name"));
    return out->name == NULL ? -EINVAL : 0;
}

/* Fields that the letter gets from elsewhere: two of a kind would be read by some as the one, by
 * some as the other. */
static const char *field_clash(const struct recipe *in, const json_t *content, struct str name)
{
    if (str_starts_nocase(name, STR("Content-")) || str_eq_nocase(name, STR("MIME-Version")))
        return "is written by the engine";
    if (str_eq_nocase(name, STR("Subject")) && json_member(content, "subject") != NULL)
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
    struct recipe *in = r->in;
    struct letter_field *f = &in->fields[in->fields_len];

    ASSERT(in->fields_len <= json_object_size(in->headers)); /* and the subject */
    f->name = str_of(name);
    f->path = json_member(r->in->headers, name) == NULL ? path : NULL;
    f->value = compile(r, value, TEMPLATE_TEXT, path);
    if (f->value == NULL)
        return -EINVAL;
    in->fields_len++;
    in->has_to |= str_eq_nocase(f->name, STR("To"));
    return 0;
}

static int read_header(struct reading *r, json_t *content)
{
    struct recipe *in = r->in;
    json_t *headers = json_member(content, "headers"), *subject = json_member(content, "subject"),
           *value;
    size_t len = json_object_size(headers);
    bool has_from = in->from.email != NULL;
    char path[JSON_PATH_BYTES];
    const char *name, *clash;

    if (len > FIELDS_MAX) {
        json_mistake(r->error, 422, "content.headers", "more than %d fields", FIELDS_MAX);
        return -EINVAL;
    }
    in->headers = json_incref(headers); /* with the names */
    in->fields = calloc(len + 1, sizeof(*in->fields));
    ASSERT(in->fields != NULL);
    json_object_foreach(headers, name, value)
    {
        json_path(path, "content.headers", name);
        clash = !mime_field_name_valid(str_of(name)) ? "is no name of a header field"
                : !json_is_string(value)             ? "must be a string"
                                                     : field_clash(in, content, str_of(name));
        if (clash != NULL) {
            json_mistake(r->error, 422, path, "%s", clash);
            return -EINVAL;
        }
        if (add_field(r, name, value, path) < 0)
            return -EINVAL;
        has_from |= str_eq_nocase(str_of(name), STR("From"));
    }
    if (subject != NULL && add_field(r, "Subject", subject, "content.subject") < 0)
        return -EINVAL;
    if (!has_from) {
        json_mistake(r->error, 422, "content.from",
                     "is missing: a letter without From is refused "
                     "by most receivers");
        return -EINVAL;
    }
    return 0;
}

/* --- attachments --- */

/* Base64 in lines, or in one. 0 or -EINVAL: an attachment must not be spoilt in silence, so that
 * nothing is skipped, and nothing is cut off for want of padding. */
static int decode_lines(struct str text, struct buf *out)
{
    struct buf line = {0};
    int err;

    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] != '\r' && text.ptr[i] != '\n')
            buf_putc(&line, text.ptr[i]);
    err = base64_decode(out, buf_str(&line));
    buf_done(&line);
    return err;
}

static int read_attachment(struct reading *r, json_t *one, const char *path)
{
    static const struct json_field fields[] = {{"data", JSON_IS_STRING},
                                               {"content_type", JSON_IS_STRING},
                                               {"content_id", JSON_IS_STRING | JSON_MAY_MISS},
                                               {"file_name", JSON_IS_STRING | JSON_MAY_MISS},
                                               {"base64", JSON_IS_BOOLEAN | JSON_MAY_MISS}};
    struct recipe *in = r->in;
    struct mime_attachment a;
    struct buf *part;
    json_t *id, *name;
    struct buf decoded = {0};

    if (json_fields_check(one, path, fields, ARRAY_LEN(fields), r->error) < 0)
        return -EINVAL;
    id = json_member(one, "content_id");
    name = json_member(one, "file_name");
    a = (struct mime_attachment){.type = json_str(json_object_get(one, "content_type")),
                                 .content_id = id == NULL ? STR("") : json_str(id),
                                 .file_name = name == NULL ? STR("") : json_str(name),
                                 .bytes = json_str(json_object_get(one, "data"))};
    if (!mime_type_valid(a.type) || (id != NULL && !mime_id_valid(a.content_id))) {
        json_mistake(r->error, 422, path,
                     mime_type_valid(a.type)
                         ? "content_id is no id: visible ASCII without < and >"
                         : "content_type is none: type/subtype, not multipart or message");
        return -EINVAL;
    }
    if (json_is_true(json_object_get(one, "base64"))) {
        if (decode_lines(a.bytes, &decoded) < 0) {
            json_mistake(r->error, 422, path, "data is not base64, with its padding");
            buf_done(&decoded);
            return -EINVAL;
        }
        a.bytes = buf_str(&decoded);
    }
    ASSERT(in->inlined_len + in->attached_len < ATTACHED_MAX);
    part = id != NULL ? &in->inlined[in->inlined_len++] : &in->attached[in->attached_len++];
    mime_put_attachment(part, &a);
    buf_done(&decoded);
    in->bytes += part->len;
    in->fixed_bytes += part->len;
    return 0;
}

static int read_attachments(struct reading *r, json_t *content)
{
    json_t *list = json_member(content, "attachments");
    size_t len = json_array_size(list);
    char path[JSON_PATH_BYTES];

    if (len > ATTACHED_MAX) {
        json_mistake(r->error, 422, "content.attachments", "more than %d", ATTACHED_MAX);
        return -EINVAL;
    }
    r->in->inlined = calloc(len + 1, sizeof(*r->in->inlined));
    r->in->attached = calloc(len + 1, sizeof(*r->in->attached));
    ASSERT(r->in->inlined != NULL && r->in->attached != NULL);
    for (size_t i = 0; i < len; i++) {
        json_t *one = json_array_get(list, i);

        snprintf(path, sizeof(path), "content.attachments[%zu]", i);
        if (!json_is_object(one)) {
            json_mistake(r->error, 400, path, "must be an object");
            return -EINVAL;
        }
        if (read_attachment(r, one, path) < 0)
            return -EINVAL;
    }
    return 0;
}

/* --- the whole --- */

static struct str member_or(const json_t *from, const char *name, const char *otherwise)
{
    json_t *v = json_member(from, name);

    return json_is_string(v) ? json_str(v) : str_of(otherwise);
}

static int read_charset(struct reading *r, const json_t *content)
{
    struct str name = member_or(content, "charset", "utf-8"),
               fallback = member_or(content, "charset_fallback", "utf-8");

    r->in->iso2022jp = str_eq_nocase(name, STR("iso-2022-jp"));
    r->in->must_fit = str_eq(fallback, STR("fail"));
    if (!r->in->iso2022jp && !str_eq_nocase(name, STR("utf-8"))) {
        json_mistake(r->error, 422, "content.charset", "must be 'utf-8' or 'iso-2022-jp'");
        return -EINVAL;
    }
    if (r->in->iso2022jp && !iso2022jp_known()) {
        json_mistake(r->error, 422, "content.charset",
                     "the C library of this machine has no ISO-2022-JP");
        return -EINVAL;
    }
    if (r->in->must_fit || str_eq_nocase(fallback, STR("utf-8")))
        return 0;
    json_mistake(r->error, 422, "content.charset_fallback",
                 "must be 'utf-8', which writes a text in UTF-8 that has other characters, or "
                 "'fail', which makes no letter");
    return -EINVAL;
}

static int read_content(struct reading *r, const json_t *root)
{
    static const struct json_field fields[] = {
        {"text_body", JSON_IS_STRING | JSON_MAY_MISS},
        {"html_body", JSON_IS_STRING | JSON_MAY_MISS},
        {"amp_html_body", JSON_IS_STRING | JSON_MAY_MISS},
        {"attachments", JSON_IS_LIST | JSON_MAY_MISS},
        {"headers", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"from", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"subject", JSON_IS_STRING | JSON_MAY_MISS},
        {"reply_to", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"charset", JSON_IS_STRING | JSON_MAY_MISS},
        {"charset_fallback", JSON_IS_STRING | JSON_MAY_MISS}};
    json_t *content = json_object_get(root, "content");

    if (!json_is_string(content) && !json_is_object(content)) {
        json_mistake(r->error, 400, "content",
                     content == NULL ? "is missing" : "must be a string or an object");
        return -EINVAL;
    }
    if (read_charset(r, content) < 0)
        return -EINVAL;
    if (json_is_string(content)) {
        r->in->message = compile(r, content, TEMPLATE_MESSAGE, "content");
        return r->in->message == NULL ? -EINVAL : 0;
    }
    if (json_fields_check(content, "content", fields, ARRAY_LEN(fields), r->error) < 0 ||
        read_texts(r, content) < 0 || read_mailbox(r, content, "from", &r->in->from) < 0 ||
        read_mailbox(r, content, "reply_to", &r->in->reply_to) < 0 || read_header(r, content) < 0)
        return -EINVAL;
    return read_attachments(r, content);
}

static int read_dialect(struct reading *r, const json_t *root)
{
    static const struct {
        struct str name;
        enum template_language language;
    } languages[] = {{STR("Jinja"), TEMPLATE_JINJA},
                     {STR("Handlebars"), TEMPLATE_HANDLEBARS},
                     {STR("Mustache"), TEMPLATE_MUSTACHE}};
    json_t *dialect = json_member(root, "template_dialect");
    struct str name = dialect == NULL ? STR("Jinja") : json_str(dialect);
    bool known = false;

    for (size_t i = 0; i < ARRAY_LEN(languages); i++)
        if (str_eq(name, languages[i].name)) {
            r->language = languages[i].language;
            known = true;
        }
    r->literal = str_eq(name, STR("Static"));
    if (r->literal || known)
        return 0;
    json_mistake(r->error, 422, "template_dialect",
                 "'%.*s' is not known here; Jinja, Handlebars, Mustache or Static",
                 name.len > 40 ? 40 : (int)name.len, name.ptr);
    return -EINVAL;
}

static int read_missing(struct reading *r, const json_t *root)
{
    json_t *missing = json_member(root, "missing_variables");
    struct str what = missing == NULL ? STR("empty") : json_str(missing);

    r->missing_fails = str_eq(what, STR("fail"));
    if (r->missing_fails || str_eq(what, STR("empty")))
        return 0;
    json_mistake(r->error, 422, "missing_variables",
                 "must be 'empty', which puts nothing, or 'fail', which makes no letter");
    return -EINVAL;
}

static int read_partials(struct reading *r, const json_t *root)
{
    json_t *partials = json_member(root, "partials"), *text;
    char path[JSON_PATH_BYTES];
    size_t bytes = 0;
    const char *name;

    if (json_object_size(partials) > TEMPLATE_PARTIALS_MAX) {
        json_mistake(r->error, 422, "partials", "more than %d", TEMPLATE_PARTIALS_MAX);
        return -EINVAL;
    }
    r->in->partials = json_incref(partials); /* with names and texts */
    json_object_foreach(partials, name, text)
    {
        json_path(path, "partials", name);
        if (!json_is_string(text) || *name == '\0' || strlen(name) > TEMPLATE_PARTIAL_NAME_MAX) {
            json_mistake(r->error, 422, path, "must be a string, and its name 1 to %d bytes",
                         TEMPLATE_PARTIAL_NAME_MAX);
            return -EINVAL;
        }
        ASSERT(r->partials_len < TEMPLATE_PARTIALS_MAX);
        bytes += json_string_length(text);
        r->partials[r->partials_len++] =
            (struct template_partial){.name = str_of(name), .text = json_str(text)};
    }
    if (bytes <= PARTIALS_BYTES_MAX)
        return 0;
    json_mistake(r->error, 422, "partials", "more than %u bytes together", PARTIALS_BYTES_MAX);
    return -EINVAL;
}

static int read_recipe(json_t *root, bool stored, struct recipe **out, struct json_mistake *mistake)
{
    struct recipe *in = calloc(1, sizeof(*in));
    struct reading r = {.in = in, .stored = stored, .error = mistake};
    json_t *substitutions = json_member(root, "substitutions");

    ASSERT(in != NULL);
    if (read_dialect(&r, root) < 0 || read_missing(&r, root) < 0 || read_partials(&r, root) < 0 ||
        read_content(&r, root) < 0) {
        recipe_free(in);
        return -EINVAL;
    }
    ASSERT((in->message != NULL) == (in->texts_len == 0)); /* one of the two */
    in->substitutions = json_incref(substitutions);
    *out = in;
    return 0;
}

int recipe_read(json_t *root, struct recipe **out, struct json_mistake *mistake)
{
    return read_recipe(root, false, out, mistake);
}

static void mailbox_free(struct letter_mailbox *box)
{
    template_free(box->email);
    template_free(box->name);
}

void recipe_free(struct recipe *r)
{
    if (r == NULL)
        return;
    template_free(r->message);
    for (size_t i = 0; i < r->texts_len; i++)
        template_free(r->texts[i].text);
    mailbox_free(&r->from);
    mailbox_free(&r->reply_to);
    for (size_t i = 0; i < r->fields_len; i++)
        template_free(r->fields[i].value);
    for (size_t i = 0; i < r->inlined_len; i++)
        buf_done(&r->inlined[i]);
    for (size_t i = 0; i < r->attached_len; i++)
        buf_done(&r->attached[i]);
    free(r->fields);
    free(r->inlined);
    free(r->attached);
    free(r->sender_rule);
    json_decref(r->headers);
    json_decref(r->substitutions);
    json_decref(r->partials);
    json_decref(r->marks);
    free(r);
}

uint64_t recipe_bytes(const struct recipe *r)
{
    return sizeof(*r) + r->bytes;
}

struct str recipe_sender_rule(const struct recipe *r)
{
    return r->sender_rule == NULL ? STR("") : str_of(r->sender_rule);
}

static struct str mark_of(const struct recipe *r, const char *name)
{
    json_t *v = json_member(r->marks, name);

    return v == NULL ? STR("") : json_str(v);
}

struct recipe_marks recipe_marks(const struct recipe *r)
{
    return (struct recipe_marks){.return_path = mark_of(r, "return_path"),
                                 .unsubscribe = mark_of(r, "unsubscribe"),
                                 .unsubscribe_mailto = mark_of(r, "unsubscribe_mailto"),
                                 .feedback_id = mark_of(r, "feedback_id")};
}

bool recipe_wants_token(const struct recipe *r)
{
    return mark_of(r, "unsubscribe").len + mark_of(r, "unsubscribe_mailto").len > 0;
}

bool recipe_is_light(const struct recipe *r)
{
    return r->text_bytes <= (r->message != NULL ? LIGHT_MESSAGE_BYTES : LIGHT_BYTES) &&
           r->fixed_bytes <= LIGHT_FIXED_BYTES;
}

/* --- as it is stored --- */

static const char *const stored[] = {"content", "substitutions", "template_dialect",
                                     "missing_variables", "partials"};

/* Appends v without white space. */
static void put_json(const json_t *v, struct buf *out)
{
    char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY);

    ASSERT(text != NULL);
    buf_puts(out, text);
    free(text);
}

/* The members of from that have such a name and are something, in a new object. */
static json_t *members_of(const json_t *from, const char *const *names, size_t len)
{
    json_t *object = json_object();

    ASSERT(object != NULL);
    for (size_t i = 0; i < len; i++) {
        json_t *v = json_member(from, names[i]);

        if (v != NULL && !(json_is_object(v) && json_object_size(v) == 0))
            json_put(object, names[i], json_incref(v));
    }
    return object;
}

/* Nothing where text is empty. */
static void set_text(json_t *object, const char *name, struct str text)
{
    if (text.len > 0)
        json_put(object, name, json_stringn(text.ptr, text.len));
}

/* All members of from, those of the same name anew. */
static void update(json_t *object, json_t *from)
{
    int err = json_object_update(object, from);

    ASSERT(err == 0);
}

static json_t *marks_of(const struct recipe_marks *marks)
{
    json_t *kept = json_object();

    ASSERT(kept != NULL);
    set_text(kept, "return_path", marks->return_path);
    set_text(kept, "unsubscribe", marks->unsubscribe);
    set_text(kept, "unsubscribe_mailto", marks->unsubscribe_mailto);
    set_text(kept, "feedback_id", marks->feedback_id);
    return kept;
}

void recipe_mark(struct recipe *r, const struct recipe_marks *marks)
{
    json_decref(r->marks);
    r->marks = marks_of(marks);
}

void recipe_put(const json_t *root, struct str sender_rule, const struct recipe_marks *marks,
                struct buf *out)
{
    json_t *object = members_of(root, stored, ARRAY_LEN(stored)), *kept = marks_of(marks);

    set_text(object, "sender_rule", sender_rule);
    if (json_object_size(kept) > 0)
        json_put(object, "marks", json_incref(kept));
    json_decref(kept);
    put_json(object, out);
    json_decref(object);
}

void recipe_fingerprint(const json_t *root, char out[static RECIPE_FINGERPRINT_BYTES])
{
    static const char *const others[] = {"envelope_sender", "expires", "dkim_domain", "tags"};
    json_t *object = members_of(root, stored, ARRAY_LEN(stored)),
           *more = members_of(root, others, ARRAY_LEN(others));
    uint8_t sum[DIGEST_BYTES];
    char *text;

    _Static_assert(RECIPE_FINGERPRINT_BYTES / 2 <= DIGEST_BYTES, "a part of the digest");
    update(object, more);
    text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    ASSERT(text != NULL);
    digest_sha256(text, strlen(text), sum);
    for (size_t i = 0; i < RECIPE_FINGERPRINT_BYTES / 2; i++)
        snprintf(out + 2 * i, 3, "%02x", sum[i]);
    free(text);
    json_decref(more);
    json_decref(object);
}

int recipe_parse(struct str text, struct recipe **out, struct json_mistake *mistake)
{
    static const struct json_field fields[] = {
        {"content", JSON_IS_STRING | JSON_IS_OBJECT},
        {"substitutions", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"template_dialect", JSON_IS_STRING | JSON_MAY_MISS},
        {"missing_variables", JSON_IS_STRING | JSON_MAY_MISS},
        {"partials", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"sender_rule", JSON_IS_STRING | JSON_MAY_MISS},
        {"marks", JSON_IS_OBJECT | JSON_MAY_MISS}};
    static const struct json_field marks_fields[] = {
        {"return_path", JSON_IS_STRING | JSON_MAY_MISS},
        {"unsubscribe", JSON_IS_STRING | JSON_MAY_MISS},
        {"unsubscribe_mailto", JSON_IS_STRING | JSON_MAY_MISS},
        {"feedback_id", JSON_IS_STRING | JSON_MAY_MISS}};
    json_t *root = json_fields_load(text, NULL, mistake), *rule, *marks = NULL;
    int err = root == NULL ? -EINVAL : 0;

    if (err == 0 && !json_is_object(root)) {
        json_mistake(mistake, 400, "", "a recipe must be an object");
        err = -EINVAL;
    }
    if (err == 0)
        err = json_fields_check(root, "", fields, ARRAY_LEN(fields), mistake);
    if (err == 0 && (marks = json_member(root, "marks")) != NULL)
        err = json_fields_check(marks, "marks", marks_fields, ARRAY_LEN(marks_fields), mistake);
    if (err == 0)
        err = read_recipe(root, true, out, mistake);
    ASSERT(err < 0 || ((*out)->marks == NULL && (*out)->sender_rule == NULL));
    if (err == 0)
        (*out)->marks = json_incref(marks);
    rule = json_member(root, "sender_rule");
    if (err == 0 && rule != NULL) {
        (*out)->sender_rule = strdup(json_string_value(rule));
        ASSERT((*out)->sender_rule != NULL);
    }
    json_decref(root);
    return err;
}

/* --- recipients --- */

/* In records tenant and campaign stand in front of what is the client's (outcome/report.c), under
 * these names: a second one would pass for them. */
static int check_metadata(const json_t *metadata, const char *path, struct json_mistake *mistake)
{
    size_t bytes = metadata == NULL ? 0 : json_dumpb(metadata, NULL, 0, JSON_COMPACT);

    if (json_object_get(metadata, "tenant") == NULL &&
        json_object_get(metadata, "campaign") == NULL && bytes <= METADATA_BYTES_MAX)
        return 0;
    json_mistake(mistake, 422, path,
                 "metadata may have neither 'tenant' nor 'campaign', nor more than %d bytes",
                 METADATA_BYTES_MAX);
    return -EINVAL;
}

int recipe_check_recipient(const json_t *one, const char *path, struct json_mistake *mistake)
{
    static const struct json_field fields[] = {{"email", JSON_IS_STRING},
                                               {"name", JSON_IS_STRING | JSON_MAY_MISS},
                                               {"substitutions", JSON_IS_OBJECT | JSON_MAY_MISS},
                                               {"metadata", JSON_IS_OBJECT | JSON_MAY_MISS}};

    if (!json_is_object(one)) {
        json_mistake(mistake, 400, path, "must be an object%s", json_object_hint(one));
        return -EINVAL;
    }
    if (json_fields_check(one, path, fields, ARRAY_LEN(fields), mistake) < 0)
        return -EINVAL;
    return check_metadata(json_member(one, "metadata"), path, mistake);
}

void recipe_put_recipient(const json_t *one, struct buf *out)
{
    static const char *const names[] = {"name", "substitutions", "metadata"};
    json_t *object = members_of(one, names, ARRAY_LEN(names));

    if (json_object_size(object) > 0)
        put_json(object, out);
    json_decref(object);
}

int recipe_parse_recipient(struct str text, json_t **out)
{
    struct json_mistake mistake;

    *out = text.len == 0 ? NULL : json_fields_load(text, NULL, &mistake);
    if (text.len == 0 || json_is_object(*out))
        return 0;
    json_decref(*out);
    *out = NULL;
    return -EINVAL;
}

void recipe_recipient_free(json_t *one)
{
    json_decref(one);
}

void recipe_put_metadata(const json_t *one, struct str common, struct buf *out)
{
    json_t *metadata = json_member(one, "metadata"), *all = NULL;
    char *text;

    if (!json_is_object(metadata) || json_object_size(metadata) == 0) {
        buf_put_str(out, common);
        return;
    }
    if (common.len > 0)
        all = json_loadb(common.ptr, common.len, 0, NULL);
    if (json_is_object(all))
        update(all, metadata);
    /* A record is read by terminals too: no control character beyond ASCII. */
    text = json_dumps(json_is_object(all) ? all : metadata, JSON_COMPACT | JSON_ENSURE_ASCII);
    ASSERT(text != NULL);
    buf_puts(out, text);
    free(text);
    json_decref(all);
}
