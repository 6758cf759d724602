/* What the tables of the schema (config_schema*.c) share: the units of their bounds, and the
 * sections that one file writes and another names. */
#ifndef HAYAUMA_ENGINE_CONFIG_SCHEMA_ROW_H
#define HAYAUMA_ENGINE_CONFIG_SCHEMA_ROW_H

#include "base/assert.h"
#include "config/config.h"
#include "config/config_schema.h"

#define RANGE(lo, hi) .min = (lo), .max = (hi)

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)
#define TIB (UINT64_C(1) << 40)

#define SECOND_MS 1000
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS   (60 * MINUTE_MS)
#define DAY_MS    (24 * HOUR_MS)
#define MINUTE_S  60
#define HOUR_S    (60 * MINUTE_S)
#define DAY_S     (24 * HOUR_S)

/* --- config_schema_listeners.c --- */

extern const struct config_items config_listener_items;
extern const struct config_section config_certificate_schema;
extern const struct config_items config_certificate_items;

/* --- config_schema_sources.c --- */

extern const struct config_section config_source_schema;
extern const struct config_items config_source_items;
extern const struct config_section config_pool_schema;
extern const struct config_items config_pool_items;

/* --- config_schema_senders.c --- */

extern const struct config_section config_sender_schema;
extern const struct config_items config_sender_items;
extern const struct config_section config_dkim_schema;

/* --- config_schema_destinations.c --- */

extern const struct config_items config_provider_items;

/* --- config_schema_shares.c --- */

extern const struct config_section config_tenant_schema;
extern const struct config_items config_tenant_items;
extern const struct config_section config_campaign_schema;
extern const struct config_items config_campaign_items;

/* --- config_schema_rules.c --- */

extern const struct config_items config_rule_items;

#endif
