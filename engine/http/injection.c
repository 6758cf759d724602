#include "http/injection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>
#include <jansson.h>

#include "http/mail_fields.h"

#define IDEMPOTENCY_KEY_MAX 256

struct injection {
    json_t *root, *recipients;
    struct recipe *recipe;
    struct injection_facts facts;
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

static int read_options(struct reading *r, int64_t now_ms)
{
    static const struct json_field trace_fields[] = {
        {"received_header", JSON_IS_BOOLEAN | JSON_MAY_MISS},
        {"supplemental_header", JSON_IS_BOOLEAN | JSON_MAY_MISS}};
    struct injection_facts *facts = &r->in->facts;
    json_t *root = r->in->root, *trace = json_member(root, "trace_headers");

    if (trace != NULL && json_fields_check(trace, "trace_headers", trace_fields,
                                           ARRAY_LEN(trace_fields), r->error) < 0)
        return -EINVAL;
    if (json_is_true(json_object_get(trace, "supplemental_header"))) {
        json_mistake(r->error, 422, "trace_headers.supplemental_header",
                     "no such header is written here; leave it out or write false");
        return -EINVAL;
    }
    facts->received = json_is_true(json_object_get(trace, "received_header"));
    if (mail_field_priority(root, &facts->priority, r->error) < 0 ||
        mail_field_name(root, "campaign", &facts->campaign, r->error) < 0 ||
        mail_field_name(root, "tenant", &facts->tenant, r->error) < 0 ||
        mail_field_name(root, "pool", &facts->pool, r->error) < 0 ||
        read_idempotency_key(r, &facts->idempotency_key) < 0 ||
        mail_field_time(root, "not_before", now_ms, &facts->not_before_ms, r->error) < 0 ||
        mail_field_expires(root, now_ms, &facts->expires_ms, r->error) < 0)
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
        {"campaign", JSON_IS_STRING | JSON_MAY_MISS},
        {"tenant", JSON_IS_STRING | JSON_MAY_MISS},
        {"pool", JSON_IS_STRING | JSON_MAY_MISS},
        {"priority", JSON_IS_NUMBER | JSON_MAY_MISS},
        {"idempotency_key", JSON_IS_STRING | JSON_MAY_MISS},
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
    *out = in;
    return 0;
}

void injection_free(struct injection *in)
{
    if (in == NULL)
        return;
    recipe_free(in->recipe);
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

void injection_put_metadata(const struct injection *in, size_t recipient, struct buf *out)
{
    recipe_put_metadata(json_array_get(in->recipients, recipient), out);
}

int injection_letter(const struct injection *in, size_t recipient, const struct msgid *id,
                     struct template_budget budget, struct buf *out, struct json_mistake *mistake)
{
    struct recipe_order order = {.email = injection_email(in, recipient),
                                 .one = json_array_get(in->recipients, recipient),
                                 .id = id,
                                 .budget = &budget};

    return recipe_letter(in->recipe, &order, out, mistake);
}
