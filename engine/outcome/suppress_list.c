#include "outcome/suppress_list.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <jansson.h>

#include "mail/json_fields.h"

#define TOLD_MAX 100

static int refuse(struct suppress_told *told, size_t at, const char *field, const char *text)
{
    if (told->invalid++ < TOLD_MAX) {
        buf_printf(&told->errors, "%s{\"at\":%zu,\"error\":", told->errors.len > 0 ? "," : "", at);
        buf_put_json(&told->errors, str_of(text));
        if (*field != '\0') {
            buf_puts(&told->errors, ",\"field\":");
            buf_put_json(&told->errors, str_of(field));
        }
        buf_putc(&told->errors, '}');
    }
    return -EINVAL;
}

static int take_entry(const json_t *entry, struct suppression *one, struct suppress_told *told,
                      size_t at)
{
    static const struct json_field fields[] = {{"email", JSON_IS_STRING},
                                               {"reason", JSON_IS_STRING | JSON_MAY_MISS},
                                               {"campaign", JSON_IS_STRING | JSON_MAY_MISS},
                                               {"since_ms", JSON_IS_NUMBER | JSON_MAY_MISS}};
    const json_t *reason = json_member(entry, "reason"), *since = json_member(entry, "since_ms");
    struct str campaign = json_str(json_member(entry, "campaign"));
    struct json_mistake mistake;

    if (!json_is_object(entry))
        return refuse(told, at, "", "is no object");
    if (json_fields_check(entry, "", fields, ARRAY_LEN(fields), &mistake) < 0)
        return refuse(told, at, mistake.field, mistake.text);
    if (suppression_address(json_str(json_object_get(entry, "email")), one->address) < 0)
        return refuse(told, at, "email", "is no mail address");
    if (reason != NULL && (one->reason = suppression_reason_of(json_str(reason))) == 0)
        return refuse(told, at, "reason", "is not unsubscribed, complaint, bounce or manual");
    if (campaign.len > FLOW_NAME_MAX || str_find(campaign, '\0') >= 0)
        return refuse(told, at, "campaign", "is longer than 64 bytes");
    if (since != NULL && (!json_is_integer(since) || json_integer_value(since) < 0))
        return refuse(told, at, "since_ms", "is no time");
    if (campaign.len > 0) {
        memcpy(one->campaign, campaign.ptr, campaign.len);
        one->campaign[campaign.len] = '\0';
    }
    if (since != NULL)
        one->at_ms = json_integer_value(since);
    return 0;
}

/* Whether one is to be changed: 1, 0 or -EIO. */
static int is_wanted(struct suppressions *list, const struct suppression *one, bool remove)
{
    struct suppression known;
    int err;

    if (!remove)
        return suppress_is_news(list, one);
    err = suppressions_get(list, str_of(one->tenant), one->address, &known);
    return err == 0 ? 1 : err == -ENOENT ? 0 : err;
}

int suppress_list_read(struct suppressions *list, const json_t *entries,
                       const struct suppression *as, bool remove, struct suppress_order *order,
                       struct suppress_told *told)
{
    size_t at;
    json_t *entry;

    if (!json_is_array(entries) || json_array_size(entries) > SUPPRESS_ENTRIES_MAX)
        return -EINVAL;
    json_array_foreach(entries, at, entry)
    {
        struct suppression one = *as;
        int wanted;

        if (take_entry(entry, &one, told, at) < 0)
            continue;
        wanted = is_wanted(list, &one, remove);
        if (wanted < 0)
            return wanted;
        told->changed += (uint64_t)wanted;
        told->same += wanted == 0;
        if (wanted && remove)
            suppress_order_remove(order, str_of(one.tenant), one.address);
        else if (wanted)
            suppress_order_put(order, list, &one);
    }
    return 0;
}

void suppress_told_put(struct buf *out, const struct suppress_told *told, bool remove)
{
    buf_printf(out, "{\"%s\":%" PRIu64 ",\"%s\":%" PRIu64 ",\"invalid\":%" PRIu64 ",\"errors\":[",
               remove ? "removed" : "added", told->changed, remove ? "unknown" : "known",
               told->same, told->invalid);
    buf_put_str(out, buf_str(&told->errors));
    buf_puts(out, "]}");
}

void suppress_told_done(struct suppress_told *told)
{
    buf_done(&told->errors);
}

static void put_text(struct buf *out, const char *name, const char *text)
{
    if (*text == '\0')
        return;
    buf_printf(out, ",\"%s\":", name);
    buf_put_json(out, str_of(text));
}

void suppression_put(struct buf *out, const struct suppression *one)
{
    buf_puts(out, "{\"email\":");
    buf_put_json(out, str_of(one->address));
    put_text(out, "tenant", one->tenant);
    put_text(out, "reason", suppression_reason_name(one->reason));
    buf_printf(out, ",\"since_ms\":%" PRId64, one->at_ms);
    put_text(out, "campaign", one->campaign);
    put_text(out, "who", one->who);
    put_text(out, "answer", one->answer);
    buf_putc(out, '}');
}
