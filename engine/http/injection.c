#include "http/injection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>
#include <jansson.h>

#include "mail/trace.h"
#include "smtp/address.h"

#define TIME_MS_MAX         (INT64_C(366) * 86400000)
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

static int read_sender(struct reading *r)
{
    struct str sender = json_str(json_object_get(r->in->root, "envelope_sender"));
    struct smtp_address address;

    if (str_eq(sender, STR("<>")))
        sender.len = 0;
    if (sender.len > 0 && (smtp_address_parse(sender, true, &address) < 0 ||
                           sender.len > SMTP_PATH_MAX || address.domain.len == 0)) {
        json_mistake(r->error, 422, "envelope_sender", "is no mail address");
        return -EINVAL;
    }
    r->in->facts.sender = sender.len == 0 ? sender : address.text;
    return 0;
}

static int read_name(struct reading *r, const char *field, struct str *out)
{
    json_t *v = json_member(r->in->root, field);
    struct str name = v == NULL ? STR("") : json_str(v);

    bool valid = name.len > 0 && name.len <= TRACE_NAME_BYTES_MAX;

    for (size_t i = 0; i < name.len; i++)
        valid &= g_ascii_isalnum(name.ptr[i]) || strchr("._-", name.ptr[i]) != NULL;
    if (v != NULL && !valid) {
        json_mistake(r->error, 422, field,
                     "is not a name of 1 to 64 letters, digits, '.', '_', '-'");
        return -EINVAL;
    }
    *out = name;
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
    json_t *v = json_member(r->in->root, field);

    if (v == NULL)
        return 0;
    if (time_of(v, out) && *out > 0 && *out <= now_ms + TIME_MS_MAX)
        return 0;
    json_mistake(r->error, 422, field,
                 "is no time within a year: write 2026-11-29T09:00:00Z, or Unix seconds");
    return -EINVAL;
}

static int read_options(struct reading *r, int64_t now_ms)
{
    static const struct json_field trace_fields[] = {
        {"received_header", JSON_IS_BOOLEAN | JSON_MAY_MISS},
        {"supplemental_header", JSON_IS_BOOLEAN | JSON_MAY_MISS}};
    struct injection_facts *facts = &r->in->facts;
    json_t *priority = json_member(r->in->root, "priority"),
           *trace = json_member(r->in->root, "trace_headers");

    facts->priority = priority == NULL ? -1 : (int)json_integer_value(priority);
    if (priority != NULL && (!json_is_integer(priority) || json_integer_value(priority) < 0 ||
                             json_integer_value(priority) > 9)) {
        json_mistake(r->error, 422, "priority", "is not 0 (first) to 9 (last)");
        return -EINVAL;
    }
    if (trace != NULL && json_fields_check(trace, "trace_headers", trace_fields,
                                           ARRAY_LEN(trace_fields), r->error) < 0)
        return -EINVAL;
    if (json_is_true(json_object_get(trace, "supplemental_header"))) {
        json_mistake(r->error, 422, "trace_headers.supplemental_header",
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
        json_mistake(r->error, 422, "expires", "is over");
        return -EINVAL;
    }
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
    if (read_options(r, now_ms) < 0 || read_sender(r) < 0 || read_recipients(r) < 0 ||
        recipe_read(r->in->root, &r->in->recipe, r->error) < 0)
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
    return recipe_letter(in->recipe, injection_email(in, recipient),
                         json_array_get(in->recipients, recipient), id, budget, out, mistake);
}
