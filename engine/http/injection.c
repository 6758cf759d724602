#include "http/injection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>
#include <jansson.h>

#include "base/base64.h"
#include "http/mail_fields.h"
#include "mail/mime.h"
#include "mail/trace.h"

#define IDEMPOTENCY_KEY_MAX 256
#define REFERENCE_BYTES_MAX 600 /* of its JSON: a header's line has 998 */

struct injection {
    json_t *root, *recipients;
    struct recipe *recipe;
    struct injection_facts facts;
    struct buf tags; /* {"tags": [...]} for records, or empty */
    /* A field for what comes back of a letter, as KumoMTA has it; "": none. */
    struct str reference_name;
    json_t *reference_meta; /* names of what else is in it, or NULL */
};

struct reading {
    struct injection *in;
    struct json_mistake *error;
};

static int read_recipients(struct reading *r)
{
    char path[JSON_PATH_BYTES];

    r->in->recipients = json_object_get(r->in->root, "recipients");
    r->in->facts.recipients = json_array_size(r->in->recipients);
    for (size_t i = 0; i < r->in->facts.recipients; i++) {
        json_t *one = json_array_get(r->in->recipients, i);

        snprintf(path, sizeof(path), "recipients[%zu]", i);
        if (recipe_check_recipient(one, path, r->error) < 0)
            return -EINVAL;
    }
    return 0;
}

static int read_idempotency_key(struct reading *r, struct str *out)
{
    json_t *v = json_member(r->in->root, "idempotency_key");

    *out = v == NULL ? STR("") : json_str(v);
    if (v == NULL ||
        (out->len > 0 && g_utf8_strlen(out->ptr, (gssize)out->len) <= IDEMPOTENCY_KEY_MAX))
        return 0;
    json_mistake(r->error, 422, "idempotency_key", "is not 1 to %d characters",
                 IDEMPOTENCY_KEY_MAX);
    return -EINVAL;
}

/* supplemental_header, header_name and include_meta_names of trace_headers. */
static int read_reference(struct reading *r, const json_t *trace)
{
    json_t *name = json_member(trace, "header_name"),
           *meta = json_member(trace, "include_meta_names");
    struct str field = name == NULL ? STR("X-KumoRef") : json_str(name);

    for (size_t i = 0; i < json_array_size(meta); i++)
        if (!json_is_string(json_array_get(meta, i))) {
            json_mistake(r->error, 400, "trace_headers.include_meta_names",
                         "must be a list of texts");
            return -EINVAL;
        }
    if (!mime_field_name_valid(field) || !str_starts_nocase(field, STR("X-")) ||
        str_starts_nocase(field, STR("X-Hayauma-"))) {
        json_mistake(r->error, 422, "trace_headers.header_name",
                     "is no name of a header field that begins with X-");
        return -EINVAL;
    }
    if (json_is_true(json_object_get(trace, "supplemental_header"))) {
        r->in->reference_name = field;
        r->in->reference_meta = meta;
    }
    return 0;
}

static int read_trace(struct reading *r)
{
    static const struct json_field fields[] = {
        {"received_header", JSON_IS_BOOLEAN | JSON_MAY_MISS},
        {"supplemental_header", JSON_IS_BOOLEAN | JSON_MAY_MISS},
        {"header_name", JSON_IS_STRING | JSON_MAY_MISS},
        {"include_meta_names", JSON_IS_LIST | JSON_MAY_MISS}};
    json_t *trace = json_member(r->in->root, "trace_headers");

    if (trace == NULL)
        return 0;
    if (json_fields_check(trace, "trace_headers", fields, ARRAY_LEN(fields), r->error) < 0)
        return -EINVAL;
    r->in->facts.received = json_is_true(json_object_get(trace, "received_header"));
    return read_reference(r, trace);
}

static int read_options(struct reading *r, int64_t now_ms)
{
    struct injection_facts *facts = &r->in->facts;
    const json_t *root = r->in->root;

    if (read_trace(r) < 0 || mail_field_tags(root, &r->in->tags, r->error) < 0 ||
        mail_field_dkim_domain(root, &facts->dkim_domain, r->error) < 0 ||
        mail_field_priority(root, &facts->priority, r->error) < 0 ||
        mail_field_name(root, "campaign", &facts->campaign, r->error) < 0 ||
        mail_field_name(root, "tenant", &facts->tenant, r->error) < 0 ||
        mail_field_name(root, "pool", &facts->pool, r->error) < 0 ||
        read_idempotency_key(r, &facts->idempotency_key) < 0 ||
        mail_field_time(root, "not_before", now_ms, &facts->not_before_ms, r->error) < 0 ||
        mail_field_time(root, "expires", now_ms, &facts->expires_ms, r->error) < 0)
        return -EINVAL;
    return 0;
}

static int read_root(struct reading *r, int64_t now_ms)
{
    static const struct json_field fields[] = {
        {"envelope_sender", JSON_IS_STRING},
        {"recipients", JSON_IS_LIST},
        {"content", JSON_IS_STRING | JSON_IS_OBJECT},
        {"substitutions", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"template_dialect", JSON_IS_STRING | JSON_MAY_MISS},
        {"missing_variables", JSON_IS_STRING | JSON_MAY_MISS},
        {"partials", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"trace_headers", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"deferred_spool", JSON_IS_BOOLEAN | JSON_MAY_MISS},
        {"deferred_generation", JSON_IS_BOOLEAN | JSON_MAY_MISS},
        {"campaign", JSON_IS_STRING | JSON_MAY_MISS},
        {"tenant", JSON_IS_STRING | JSON_MAY_MISS},
        {"pool", JSON_IS_STRING | JSON_MAY_MISS},
        {"priority", JSON_IS_NUMBER | JSON_MAY_MISS},
        {"idempotency_key", JSON_IS_STRING | JSON_MAY_MISS},
        {"dkim_domain", JSON_IS_STRING | JSON_MAY_MISS},
        {"tags", JSON_IS_LIST | JSON_MAY_MISS},
        {"not_before", JSON_IS_STRING | JSON_IS_NUMBER | JSON_MAY_MISS},
        {"expires", JSON_IS_STRING | JSON_IS_NUMBER | JSON_MAY_MISS}};

    if (!json_is_object(r->in->root)) {
        json_mistake(r->error, 400, "", "the body must be an object");
        return -EINVAL;
    }
    if (json_fields_check(r->in->root, "", fields, ARRAY_LEN(fields), r->error) < 0)
        return -EINVAL;
    if (read_options(r, now_ms) < 0 ||
        mail_field_sender(r->in->root, &r->in->facts.sender, r->error) < 0 ||
        read_recipients(r) < 0 || recipe_read(r->in->root, &r->in->recipe, r->error) < 0)
        return -EINVAL;
    r->in->facts.bytes += recipe_bytes(r->in->recipe);
    return 0;
}

int injection_parse(struct str body, int64_t now_ms, struct injection **out,
                    struct json_mistake *error)
{
    struct injection *in = calloc(1, sizeof(*in));
    struct reading r = {.in = in, .error = error};

    ASSERT(in != NULL);
    in->root = json_fields_load(body, &in->facts.bytes, error);
    if (in->root == NULL || read_root(&r, now_ms) < 0) {
        injection_free(in);
        return -EINVAL;
    }
    ASSERT(in->recipe != NULL);
    *out = in;
    return 0;
}

void injection_free(struct injection *in)
{
    if (in == NULL)
        return;
    recipe_free(in->recipe);
    buf_done(&in->tags);
    json_decref(in->root);
    free(in);
}

const struct injection_facts *injection_facts(const struct injection *in)
{
    return &in->facts;
}

struct recipe *injection_recipe(struct injection *in)
{
    return in->recipe;
}

void injection_set_tenant(struct injection *in, struct str tenant)
{
    in->facts.tenant = tenant;
}

struct str injection_email(const struct injection *in, size_t recipient)
{
    ASSERT(recipient < in->facts.recipients);
    return json_str(json_object_get(json_array_get(in->recipients, recipient), "email"));
}

void injection_put_metadata(const struct injection *in, size_t recipient, struct buf *out)
{
    ASSERT(recipient < in->facts.recipients);
    recipe_put_metadata(json_array_get(in->recipients, recipient), buf_str(&in->tags), out);
}

/* --- the field for what comes back --- */

static struct json_t *meta_of(const struct injection *in, const json_t *one, const char *name)
{
    struct str said = str_eq(str_of(name), STR("tenant"))     ? in->facts.tenant
                      : str_eq(str_of(name), STR("campaign")) ? in->facts.campaign
                                                              : STR("");
    json_t *v = str_eq(str_of(name), STR("tags")) ? json_member(in->root, "tags") : NULL;

    if (said.len > 0)
        return json_stringn(said.ptr, said.len);
    if (v == NULL)
        v = json_object_get(json_member(one, "metadata"), name);
    return json_incref(v);
}

static char *reference_text(const struct injection *in, const json_t *one)
{
    json_t *all = json_object(), *v;
    int err = json_object_set_new(all, "_@_", json_string("\\_/"));
    char *text;

    err |= json_object_set(all, "recipient", json_object_get(one, "email"));
    for (size_t i = 0; i < json_array_size(in->reference_meta); i++) {
        const char *name = json_string_value(json_array_get(in->reference_meta, i));

        if (json_object_get(all, name) == NULL && (v = meta_of(in, one, name)) != NULL)
            err |= json_object_set_new(all, name, v);
    }
    text = json_dumps(all, JSON_COMPACT);
    ASSERT(err == 0 && text != NULL); /* memory alone */
    json_decref(all);
    return text;
}

/* Puts the field in front of the letter that begins at. */
static int put_reference(const struct injection *in, const json_t *one, struct buf *out, size_t at,
                         struct json_mistake *mistake)
{
    char *text = reference_text(in, one);
    struct buf field = {0};
    size_t len = strlen(text);

    ASSERT(at <= out->len);
    if (len <= REFERENCE_BYTES_MAX) {
        buf_printf(&field, "%.*s: ", STR_FMT(in->reference_name));
        base64_put(&field, (struct str){text, len});
        buf_puts(&field, "\r\n");
        at += trace_lead(out->data + at, out->len - at);
        buf_room(out, field.len);
        memmove(out->data + at + field.len, out->data + at, out->len - at);
        memcpy(out->data + at, field.data, field.len);
        out->len += field.len;
    } else {
        json_mistake(mistake, 422, "trace_headers.include_meta_names",
                     "what they name takes more than %d bytes", REFERENCE_BYTES_MAX);
    }
    free(text);
    buf_done(&field);
    return len <= REFERENCE_BYTES_MAX ? 0 : -EINVAL;
}

int injection_letter(const struct injection *in, size_t recipient, const struct msgid *id,
                     struct str token, struct template_budget budget, struct buf *out,
                     struct json_mistake *mistake)
{
    const json_t *one = json_array_get(in->recipients, recipient);
    struct recipe_order order = {.email = injection_email(in, recipient),
                                 .one = one,
                                 .id = id,
                                 .token = token,
                                 .budget = &budget};
    size_t at = out->len;
    int err = recipe_letter(in->recipe, &order, out, mistake);

    return err < 0 || in->reference_name.len == 0 ? err : put_reference(in, one, out, at, mistake);
}
