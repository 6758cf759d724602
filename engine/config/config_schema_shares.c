/* The schema of `tenants` and `campaigns`: whose mail it is, and what part of a site is theirs. */
#include "config/config_schema_row.h"

#define AT(member)                .offset = offsetof(struct config_share, member)
#define LEN_AT(member)            .offset2 = offsetof(struct config_share, member)
#define AT_SHARE_SITE(member)     .offset = offsetof(struct config_share_site, member)
#define LEN_AT_SHARE_SITE(member) .offset2 = offsetof(struct config_share_site, member)

static const struct config_field share_site_fields[] = {
    {"sessions_max", CONFIG_COUNT, AT_SHARE_SITE(sessions_max), .def = "0", RANGE(0, 1000000),
     .zero = "none",
     .doc = "Sessions at a time that have its mail under way, over all sources. Others' mail goes "
            "by the other sessions, and by these sessions when they have none of its mail."},
    {"rate", CONFIG_RATE, AT_SHARE_SITE(rate.count), LEN_AT_SHARE_SITE(rate.period_ms),
     .def = "none", .zero = "none", .example = "100/min",
     .doc = "Messages per time, over all sources."},
    {"rate_burst", CONFIG_COUNT, AT_SHARE_SITE(rate.burst), .def = "0", RANGE(0, 100000),
     .zero = "none", .doc = "Of `rate`, as a destination's."},
    {"recipient_rate", CONFIG_RATE, AT_SHARE_SITE(recipient_rate.count),
     LEN_AT_SHARE_SITE(recipient_rate.period_ms), .def = "none", .zero = "none", .example = "500/h",
     .doc = "Recipients per time over all sources. A transaction takes so many of a message as may "
            "go at once: one, and those that the burst lets through."},
    {"recipient_burst", CONFIG_COUNT, AT_SHARE_SITE(recipient_rate.burst), .def = "0",
     RANGE(0, 100000), .zero = "none",
     .doc = "Of `recipient_rate`, as `rate_burst` of `rate`. A message to many is sent in one "
            "transaction as far as this lets it."},
    {"byte_rate", CONFIG_BYTE_RATE, AT_SHARE_SITE(byte_rate.count),
     LEN_AT_SHARE_SITE(byte_rate.period_ms), .def = "none", .zero = "none", .example = "2MiB/s",
     .doc = "Bytes of messages per time over all sources: behind each message the next one waits "
            "as long as its bytes take."},
    {"byte_burst", CONFIG_BYTES32, AT_SHARE_SITE(byte_rate.burst), .def = "0", RANGE(0, 1 << 30),
     .zero = "none", .doc = "Of `byte_rate`, as `rate_burst` of `rate`."},
    {"connect_rate", CONFIG_RATE, AT_SHARE_SITE(connect_rate.count),
     LEN_AT_SHARE_SITE(connect_rate.period_ms), .def = "none", .zero = "none", .example = "60/min",
     .doc = "Sessions per time that begin to have its mail, over all sources: each session counts "
            "with the first of its mail. Others' mail goes by the other sessions."},
    {"connect_burst", CONFIG_COUNT, AT_SHARE_SITE(connect_rate.burst), .def = "0", RANGE(0, 100000),
     .zero = "none", .doc = "Of `connect_rate`, as `rate_burst` of `rate`."},
};
static const struct config_items share_site_items = {.bytes = sizeof(struct config_share_site),
                                                     .key = CONFIG_KEY_SITE,
                                                     .key_offset =
                                                         offsetof(struct config_share_site, site),
                                                     .key_word = "SITE",
                                                     .write = "\"google: {rate: 100/min}\""};
static const struct config_section share_site_schema = {
    .doc = "What it may send to sites, beside the limits of `destinations`, `providers` and "
           "`sources`. Each key is the name of a site as `hayauma site list` shows it, of a "
           "provider for example; `*` in it stands for anything. The first that matches applies, "
           "to each site by itself. Mail that waits for such a limit holds up nobody else's.",
    .fields = share_site_fields,
    .len = ARRAY_LEN(share_site_fields)};

static const struct config_field share_fields[] = {
    {"weight", CONFIG_COUNT, AT(weight), .def = "1", RANGE(1, 1000),
     .doc = "Its part, against the others' that have mail for the same site."},
    {"pool", CONFIG_TEXT, AT(pool), .def_text = "as other rules say",
     .doc = "The pool that sends its mail."},
    {"sites", CONFIG_MAP, AT(sites), LEN_AT(sites_len), .section = &share_site_schema,
     .items = &share_site_items, .example = "{google: {rate: 100/min}}"},
    {"senders", CONFIG_SENDER_LIST, AT(senders.envelope), LEN_AT(senders.envelope_len),
     .def_text = "`[]`: any", .example = "[acme.example]",
     .doc = "As a listener's `senders`, for users (`tenant=`) and HTTP tokens of this tenant; a "
            "user's own come before."},
    {"from", CONFIG_SENDER_LIST, AT(senders.from), LEN_AT(senders.from_len),
     .def_text = "as `senders`", .example = "[acme.example]", .doc = "As a listener's `from`."},
};
#define CAMPAIGN_FIELDS_LEN 3 /* a campaign has the first of these */
const struct config_items config_campaign_items = {.bytes = sizeof(struct config_share),
                                                   .key = CONFIG_KEY_NAME,
                                                   .key_offset =
                                                       offsetof(struct config_share, name),
                                                   .key_word = "NAME",
                                                   .write = "\"acme: {weight: 3}\""};
const struct config_items config_tenant_items = {.bytes = sizeof(struct config_share),
                                                 .key = CONFIG_KEY_NAME_OR_ALL,
                                                 .key_offset = offsetof(struct config_share, name),
                                                 .key_word = "NAME",
                                                 .write = "\"acme: {weight: 3}\""};
const struct config_section config_tenant_schema = {
    .doc = "Tenants (`X-Hayauma-Tenant`) by name. At each site those that have mail of the same "
           "priority share what the limits allow by weight, whatever their numbers of messages and "
           "domains. What `\"*\"` says holds for each tenant that has no entry, by itself; without "
           "it such a tenant has the weight 1 and no limits.",
    .example = "tenants:\n  acme: {weight: 3}\n  small-shop: {weight: 1}\n  \"*\": {sites: {\"*\": "
               "{rate: 1000/h}}}\n",
    .fields = share_fields,
    .len = ARRAY_LEN(share_fields)};
const struct config_section config_campaign_schema = {
    .doc = "Campaigns (`X-Hayauma-Campaign`) by name: those of one tenant share the tenant's part "
           "by weight.",
    .fields = share_fields,
    .len = CAMPAIGN_FIELDS_LEN};
