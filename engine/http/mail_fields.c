#include "http/mail_fields.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>
#include <jansson.h>

#include "base/clock.h"
#include "mail/trace.h"
#include "smtp/address.h"

#define TIME_MS_MAX   (INT64_C(366) * 86400000)
#define TAGS_MAX      10
#define TAG_CHARS_MAX 64

int mail_field_sender(const json_t *root, struct str *out, struct json_mistake *mistake)
{
    struct str sender = json_str(json_object_get(root, "envelope_sender"));
    struct smtp_address address;

    if (str_eq(sender, STR("<>")))
        sender.len = 0;
    if (sender.len > 0 && (smtp_address_parse(sender, true, &address) < 0 ||
                           sender.len > SMTP_PATH_MAX || address.domain.len == 0)) {
        json_mistake(mistake, 422, "envelope_sender", "%s", smtp_address_fault(sender)->words);
        return -EINVAL;
    }
    *out = sender.len == 0 ? sender : address.text;
    return 0;
}

int mail_field_name(const json_t *root, const char *field, struct str *out,
                    struct json_mistake *mistake)
{
    json_t *v = json_member(root, field);
    struct str name = v == NULL ? STR("") : json_str(v);
    bool valid = name.len > 0 && name.len <= TRACE_NAME_BYTES_MAX;

    for (size_t i = 0; i < name.len; i++)
        valid &= g_ascii_isalnum(name.ptr[i]) || strchr("._-", name.ptr[i]) != NULL;
    if (v != NULL && !valid) {
        json_mistake(mistake, 422, field,
                     "is not a name of 1 to 64 letters, digits, '.', '_', '-'");
        return -EINVAL;
    }
    *out = name;
    return 0;
}

int mail_field_priority(const json_t *root, int *out, struct json_mistake *mistake)
{
    json_t *v = json_member(root, "priority");

    *out = v == NULL ? -1 : (int)json_integer_value(v);
    if (v == NULL ||
        (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= 9))
        return 0;
    json_mistake(mistake, 422, "priority", "is not 0 (first) to 9 (last)");
    return -EINVAL;
}

/* A date as RFC 3339 or as mail writes it, or Unix seconds. False: it is none. */
static bool time_of(const json_t *v, int64_t *wall_ms)
{
    if (json_is_real(v)) { /* as clocks of many languages have it */
        double s = json_real_value(v);

        *wall_ms = s > 0 && s < (double)(INT64_MAX / 2000) ? (int64_t)(s * 1000) : 0;
        return true;
    }
    if (json_is_integer(v)) {
        *wall_ms = json_integer_value(v) > 0 && json_integer_value(v) < INT64_MAX / 1000
                       ? json_integer_value(v) * 1000
                       : 0;
        return true;
    }
    return json_is_string(v) && trace_time_parse(json_str(v), wall_ms) == 0;
}

int mail_field_time(const json_t *root, const char *field, int64_t now_ms, int64_t *out,
                    struct json_mistake *mistake)
{
    json_t *v = json_member(root, field);

    *out = 0;
    if (v == NULL || (time_of(v, out) && *out > 0 && *out <= now_ms + TIME_MS_MAX))
        return 0;
    json_mistake(mistake, 422, field,
                 "is no time within a year: write 2026-11-29T09:00:00Z, or Unix seconds");
    return -EINVAL;
}

int mail_field_dkim_domain(const json_t *root, struct str *out, struct json_mistake *mistake)
{
    const json_t *v = json_member(root, "dkim_domain");

    *out = v == NULL ? STR("") : json_str(v);
    if (v == NULL || out->len > 0)
        return 0;
    json_mistake(mistake, 422, "dkim_domain", "is no domain");
    return -EINVAL;
}

static bool is_tag(const json_t *one)
{
    struct str text = json_is_string(one) ? json_str(one) : STR("");

    for (size_t i = 0; i < text.len; i++)
        if (ascii_is_control(text.ptr[i]))
            return false;
    return text.len > 0 && (size_t)g_utf8_strlen(text.ptr, (gssize)text.len) <= TAG_CHARS_MAX;
}

int mail_field_tags(const json_t *root, struct buf *out, struct json_mistake *mistake)
{
    json_t *tags = json_member(root, "tags");
    size_t len = json_array_size(tags);
    char path[JSON_PATH_BYTES], *text;

    for (size_t i = 0; i < len; i++) {
        if (i < TAGS_MAX && is_tag(json_array_get(tags, i)))
            continue;
        snprintf(path, sizeof(path), "tags[%zu]", i);
        json_mistake(mistake, 422, path, "tags are at most %d texts of 1 to %d characters",
                     TAGS_MAX, TAG_CHARS_MAX);
        return -EINVAL;
    }
    if (len == 0)
        return 0;
    text = json_dumps(tags, JSON_COMPACT | JSON_ENSURE_ASCII);
    ASSERT(text != NULL);
    buf_printf(out, "{\"tags\":%s}", text);
    free(text);
    return 0;
}

int mail_field_rate(const json_t *root, struct campaign_order *order, struct json_mistake *mistake)
{
    const json_t *rate = json_member(root, "rate");

    if (rate == NULL || campaign_set_rate(order, json_str(rate)) == 0)
        return 0;
    json_mistake(mistake, 422, "rate", "is no rate: write \"500/s\", \"60/min\", or \"none\"");
    return -EINVAL;
}

int mail_fields_campaign(const json_t *root, bool upload, struct mail_fields_campaign *out,
                         struct json_mistake *mistake)
{
    static const struct json_field fields[] = {
        {"name", JSON_IS_STRING},
        {"envelope_sender", JSON_IS_STRING},
        {"content", JSON_IS_STRING | JSON_IS_OBJECT},
        {"substitutions", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"template_dialect", JSON_IS_STRING | JSON_MAY_MISS},
        {"missing_variables", JSON_IS_STRING | JSON_MAY_MISS},
        {"partials", JSON_IS_OBJECT | JSON_MAY_MISS},
        {"tenant", JSON_IS_STRING | JSON_MAY_MISS},
        {"pool", JSON_IS_STRING | JSON_MAY_MISS},
        {"priority", JSON_IS_NUMBER | JSON_MAY_MISS},
        {"rate", JSON_IS_STRING | JSON_MAY_MISS},
        {"expires", JSON_IS_STRING | JSON_IS_NUMBER | JSON_MAY_MISS},
        {"dkim_domain", JSON_IS_STRING | JSON_MAY_MISS},
        {"tags", JSON_IS_LIST | JSON_MAY_MISS},
        {"start", JSON_IS_BOOLEAN | JSON_MAY_MISS},
        {"at", JSON_IS_STRING | JSON_IS_NUMBER | JSON_MAY_MISS}};

    *out = (struct mail_fields_campaign){0};
    if (json_fields_check(root, "", fields, ARRAY_LEN(fields) - (upload ? 0 : 2), mistake) < 0 ||
        mail_field_time(root, "at", clock_wall_ms(), &out->starts_ms, mistake) < 0 ||
        mail_field_time(root, "expires", clock_wall_ms(), &out->expires_ms, mistake) < 0 ||
        mail_field_rate(root, &out->sets, mistake) < 0 ||
        mail_field_name(root, "name", &out->name, mistake) < 0 ||
        mail_field_name(root, "tenant", &out->tenant, mistake) < 0 ||
        mail_field_name(root, "pool", &out->pool, mistake) < 0 ||
        mail_field_sender(root, &out->sender, mistake) < 0 ||
        mail_field_dkim_domain(root, &out->dkim, mistake) < 0 ||
        mail_field_tags(root, &out->tags, mistake) < 0)
        return -EINVAL;
    return mail_field_priority(root, &out->priority, mistake);
}
