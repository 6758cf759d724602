/* Metrics of what mail waits for, of sources and of their warm-up. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/metrics_private.h"
#include "outcome/classify.h"
#include "worker/shared.h"
#include "worker/sums.h"

#define SOURCES_MAX 500  /* with series of their own: those named first in the configuration */
#define STREAMS_MAX 1000 /* of warm-up: those that were made first */
#define SUMS_SHOWN  100  /* sources at sites, tenants, campaigns: those with most attempts */

/* --- waits --- */

/* Mail that is meant to wait is not late, and a receiver that is gone may be so for days. */
static bool is_late(enum lane_wait_reason reason)
{
    return reason != LANE_WAIT_SUSPENDED && reason != LANE_WAIT_BACK_OFF &&
           reason != LANE_WAIT_NO_ROUTE && reason != LANE_WAIT_QUIET && reason != LANE_WAIT_WARMUP;
}

/* When the first of lane's mail was due that no session has: it is in the window, or stored. */
static int64_t first_due_ms(const struct lane *lane)
{
    const struct recipient *first = lane_peek(lane);

    return first != NULL && first->due_ms < lane->stored_due_ms ? first->due_ms
                                                                : lane->stored_due_ms;
}

uint32_t metrics_see_wait(struct metrics_waits *waits, struct lane *lane, uint64_t rows)
{
    struct lane_wait wait;

    lane_wait(lane, &wait);
    ASSERT(wait.reason < LANE_WAIT_REASONS);
    waits->recipients[wait.reason] += rows;
    if (is_late(wait.reason) && first_due_ms(lane) < waits->oldest_due_ms)
        waits->oldest_due_ms = first_due_ms(lane);
    ASSERT(lane_wait_cost(lane) > 0);
    return lane_wait_cost(lane) - 1;
}

void metrics_put_waits(struct buf *out, const struct metrics_waits *waits)
{
    put_family(out, "wait_recipients", "gauge",
               "Recipients of lanes that cannot send now, by the reason; due or not");
    for (int i = LANE_WAIT_NONE + 1; i < LANE_WAIT_REASONS; i++)
        buf_printf(out, "hayauma_wait_recipients{reason=\"%s\"} %" PRIu64 "\n",
                   lane_wait_name((enum lane_wait_reason)i), waits->recipients[i]);
}

void metrics_put_held(struct buf *out, const struct shared *shared)
{
    put_family(
        out, "limit_held_seconds", "counter",
        "For how long sources, tenants and campaigns with mail for a site waited for a limit, "
        "by its name");
    for (enum limit_kind kind = LIMIT_NONE + 1; kind < LIMIT_KINDS; kind++)
        for (enum governor_counts counts = 0; counts < GOVERNOR_WAITS; counts++) {
            uint64_t ms = 0;

            for (uint32_t w = 0; w < shared->workers_len; w++)
                ms += atomic_load_explicit(&shared->workers[w].counters.held_ms[kind][counts],
                                           memory_order_relaxed);
            if (ms == 0)
                continue;
            buf_puts(out, "hayauma_limit_held_seconds_total");
            put_label(out, "limit", str_of(limit_name(kind, counts)));
            buf_printf(out, " %.3f\n", (double)ms / 1000);
        }
}

/* By what answers of servers, and other reasons, mean (records.md): each that there was. */
void metrics_put_refusals(struct buf *out, const struct shared *shared)
{
    static const char *const ends[REFUSAL_ENDS] = {[REFUSAL_DEFERRED] = "deferred",
                                                   [REFUSAL_FAILED] = "failed",
                                                   [REFUSAL_EXPIRED] = "expired"};

    put_family(out, "refusals", "counter",
               "Recipients that were not delivered in an attempt, by why and what followed");
    for (uint8_t reason = 0; reason < REFUSAL_REASONS_MAX; reason++)
        for (enum refusal_end end = 0; end < REFUSAL_ENDS; end++) {
            uint64_t count = 0;

            for (uint32_t w = 0; w < shared->workers_len; w++)
                count += atomic_load_explicit(&shared->workers[w].counters.refusals[reason][end],
                                              memory_order_relaxed);
            if (count > 0)
                buf_printf(out,
                           "hayauma_refusals_total{classification=\"%s\",outcome=\"%s\"} "
                           "%" PRIu64 "\n",
                           classify_reason_name(reason), ends[end], count);
        }
}

/* --- sources --- */

static uint64_t source_up(const struct config_source *of, const struct source *s)
{
    (void)of;
    return (source_families(s) & ~source_families_lost(s)) != 0;
}

static uint64_t source_sessions(const struct config_source *of, const struct source *s)
{
    (void)of;
    return atomic_load_explicit(&s->shared.sessions, memory_order_relaxed);
}

static uint64_t source_messages(const struct config_source *of, const struct source *s)
{
    (void)of;
    return atomic_load_explicit(&s->shared.messages, memory_order_relaxed);
}

static uint64_t source_failures(const struct config_source *of, const struct source *s)
{
    (void)of;
    return atomic_load_explicit(&s->shared.connect_failures, memory_order_relaxed);
}

void metrics_put_sources(struct buf *out, struct shared *shared, const struct config *config)
{
    static const struct {
        const char *name, *type, *help;
        uint64_t (*of)(const struct config_source *of, const struct source *s);
    } families[] = {
        {"source_up", "gauge",
         "1: an address of the source can be sent from, and its proxy works; 0: none, or without a "
         "route",
         source_up},
        {"source_sessions", "gauge", "Sessions out from the source", source_sessions},
        {"source_messages", "counter", "Messages handed to sessions of the source",
         source_messages},
        {"source_connect_failures", "counter", "Connections that failed", source_failures},
    };

    for (size_t f = 0; f < ARRAY_LEN(families); f++) {
        put_family(out, families[f].name, families[f].type, families[f].help);
        for (size_t i = 0; i < config->sources_len && i < SOURCES_MAX; i++) {
            const struct config_source *of = &config->sources[i];

            buf_printf(out, "hayauma_%s%s", families[f].name,
                       strcmp(families[f].type, "counter") == 0 ? "_total" : "");
            put_label(out, "source", str_of(of->name));
            buf_printf(out, " %" PRIu64 "\n",
                       families[f].of(of, sources_get(&shared->sources, of)));
        }
    }
}

/* --- what became of mail --- */

/* Without the brace at their end. */
static void put_sums_labels(const struct sums_row *row, enum sums_of of, struct buf *out)
{
    static const char *const labels[] = {
        [SUMS_SOURCE_SITE] = "source", [SUMS_TENANT] = "tenant", [SUMS_CAMPAIGN] = "campaign"};

    ASSERT((size_t)of < ARRAY_LEN(labels) && labels[of] != NULL);
    buf_putc(out, '{');
    put_label_pair(out, labels[of], row->name[0] == '\0' ? STR("(none)") : str_of(row->name));
    if (of == SUMS_SOURCE_SITE) {
        buf_putc(out, ',');
        put_label_pair(out, "site", str_of(row->site));
    }
}

/* The classes that there were. */
static void put_bounced_by(struct buf *out, const char *of_what, enum sums_of of,
                           const struct sums *sums)
{
    char family[64];

    snprintf(family, sizeof(family), "%s_bounced_by", of_what);
    put_family(out, family, "counter", "Recipients bounced or expired, by why");
    for (size_t i = 0; i < sums->len; i++)
        for (uint8_t reason = 0; reason < GOVERNOR_REASONS_MAX; reason++) {
            uint64_t count = sums->rows[i]->bounced_by[reason];

            if (count == 0)
                continue;
            buf_printf(out, "hayauma_%s_total", family);
            put_sums_labels(sums->rows[i], of, out);
            buf_printf(out, ",classification=\"%s\"} %" PRIu64 "\n", classify_reason_name(reason),
                       count);
        }
}

static void put_sums(struct buf *out, struct shared *shared, enum sums_of of)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } values[] = {
        {"attempts", "Recipients that were sent to a server", offsetof(struct sums_row, attempts)},
        {"delivered", "Recipients delivered", offsetof(struct sums_row, delivered)},
        {"deferred", "Attempts deferred", offsetof(struct sums_row, deferred)},
        {"bounced", "Recipients bounced or expired", offsetof(struct sums_row, bounced)},
        {"taken_bytes", "Bytes of messages taken", offsetof(struct sums_row, bytes)},
    };
    static const char *const families[] = {[SUMS_SOURCE_SITE] = "source_site",
                                           [SUMS_TENANT] = "tenant_mail",
                                           [SUMS_CAMPAIGN] = "campaign_mail"};
    struct sums sums;

    sums_gather(shared->queue, shared->governor, of, SUMS_SHOWN, &sums);
    ASSERT(sums.len <= SUMS_SHOWN);
    put_bounced_by(out, families[of], of, &sums);
    for (size_t v = 0; v < ARRAY_LEN(values); v++) {
        char family[64];

        snprintf(family, sizeof(family), "%s_%s", families[of], values[v].name);
        put_family(out, family, "counter", values[v].help);
        for (size_t i = 0; i < sums.len; i++) {
            uint64_t value;

            memcpy(&value, (const char *)sums.rows[i] + values[v].offset, sizeof(value));
            buf_printf(out, "hayauma_%s_total", family);
            put_sums_labels(sums.rows[i], of, out);
            buf_printf(out, "} %" PRIu64 "\n", value);
        }
    }
    sums_done(&sums);
}

void metrics_put_sums(struct buf *out, struct shared *shared)
{
    put_sums(out, shared, SUMS_SOURCE_SITE);
    put_sums(out, shared, SUMS_TENANT);
    put_sums(out, shared, SUMS_CAMPAIGN);
}

/* --- warm-up --- */

struct warm_streams {
    struct warmup_view views[STREAMS_MAX];
    size_t len;
};

static void take_stream(void *arg, const struct warmup_view *view)
{
    struct warm_streams *streams = arg;

    if (view->configured && streams->len < STREAMS_MAX)
        streams->views[streams->len++] = *view;
}

void metrics_put_warmup(struct buf *out, struct shared *shared, int64_t wall_ms)
{
    static const struct {
        const char *name, *help;
        size_t offset;
    } values[] = {
        {"warmup_stage", "The stage of the schedule", offsetof(struct warmup_view, stage)},
        {"warmup_cap", "Recipients that may be sent to today", offsetof(struct warmup_view, cap)},
        {"warmup_used", "Recipients sent to today", offsetof(struct warmup_view, used)},
        {"warmup_delivered", "Recipients delivered today",
         offsetof(struct warmup_view, events[WARMUP_EVENT_DELIVERED])},
        {"warmup_deferred", "Attempts deferred today",
         offsetof(struct warmup_view, events[WARMUP_EVENT_DEFERRED])},
        {"warmup_bounced", "Recipients bounced today",
         offsetof(struct warmup_view, events[WARMUP_EVENT_BOUNCED])},
    };
    struct warm_streams *streams = calloc(1, sizeof(*streams));

    ASSERT(streams != NULL);
    warmup_visit(&shared->warmup, wall_ms, take_stream, streams);
    for (size_t v = 0; v < ARRAY_LEN(values); v++) {
        put_family(out, values[v].name, "gauge", values[v].help);
        for (size_t i = 0; i < streams->len; i++) {
            const struct warmup_view *view = &streams->views[i];
            enum config_warmup_kind kind;
            const char *plain;
            uint32_t value;

            memcpy(&value, (const char *)view + values[v].offset, sizeof(value));
            if (value == WARMUP_NO_CAP) /* the last stage is over: no cap */
                continue;
            buf_printf(out, "hayauma_%s{", values[v].name);
            kind = config_warmup_kind(view->source, &plain);
            put_label_pair(out, config_warmup_kind_name(kind), str_of(plain));
            buf_putc(out, ',');
            put_label_pair(out, "provider", str_of(view->provider));
            buf_printf(out, "} %" PRIu32 "\n", value);
        }
    }
    free(streams);
}
