/* Fields that requests to send mail have in common: whose it is, how and when it goes. Each says
 * what is wrong, with its place. Pure; one thread. */
#ifndef HAYAUMA_ENGINE_MAIL_FIELDS_H
#define HAYAUMA_ENGINE_MAIL_FIELDS_H

#include "base/buf.h"
#include "intake/campaign.h"
#include "mail/json_fields.h"

/* All: 0 or -EINVAL; slices live as long as root. */

/* envelope_sender: without <>, empty: the null sender. */
int mail_field_sender(const struct json_t *root, struct str *out,
                      struct json_mistake *mistake) MUST_USE;
/* A name of a campaign, tenant or pool; empty: it is not there. */
int mail_field_name(const struct json_t *root, const char *field, struct str *out,
                    struct json_mistake *mistake) MUST_USE;
/* priority; -1: it is not there. */
int mail_field_priority(const struct json_t *root, int *out, struct json_mistake *mistake) MUST_USE;
/* Wall clock; 0: it is not there. */
int mail_field_time(const struct json_t *root, const char *field, int64_t now_ms, int64_t *out,
                    struct json_mistake *mistake) MUST_USE;
/* dkim_domain; empty: it is not there. */
int mail_field_dkim_domain(const struct json_t *root, struct str *out,
                           struct json_mistake *mistake) MUST_USE;
/* tags, as what records have of them: appends {"tags": [...]}, or nothing where there are none. */
int mail_field_tags(const struct json_t *root, struct buf *out,
                    struct json_mistake *mistake) MUST_USE;
/* rate: the order sets it, if it is there. */
int mail_field_rate(const struct json_t *root, struct campaign_order *order,
                    struct json_mistake *mistake) MUST_USE;

/* The body of POST /api/campaigns/v1, but for what recipe_read() reads. It may have no other
 * fields. */
struct mail_fields_campaign {
    struct str name, tenant, pool, sender, dkim;
    struct buf tags; /* the caller's to give back, also behind -EINVAL */
    int priority;
    int64_t expires_ms, starts_ms;
    struct campaign_order sets; /* its rate */
};
/* at and start are of an upload with its list. */
int mail_fields_campaign(const struct json_t *root, bool upload, struct mail_fields_campaign *out,
                         struct json_mistake *mistake) MUST_USE;

#endif
