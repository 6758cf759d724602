#include "tests/sim/suspender.h"

#include <stdio.h>
#include <stdlib.h>

#include "deliver/transaction.h"
#include "outcome/suspend.h"
#include "schedule/lane.h"
#include "schedule/site.h"
#include "tests/sim/world.h"

#define ENTRIES_MAX 128

struct entry {
    struct suspend_order order;
    uint64_t since_ns;
    uint32_t *jobs; /* of the process that was asked; NULL: it answered, or is gone */
    bool holds;     /* it answered that nothing goes */
};

static struct {
    struct entry entries[ENTRIES_MAX];
    uint32_t len;
} book;

struct transaction *__real_transaction_new(struct delivery *d, struct recipient **rcpts,
                                           const struct channel_taken *taken);
struct transaction *__wrap_transaction_new(struct delivery *d, struct recipient **rcpts,
                                           const struct channel_taken *taken);
uint32_t __real_suspensions_of(struct suspensions *s, const struct str names[SUSPENSION_SCOPES]);
uint32_t __wrap_suspensions_of(struct suspensions *s, const struct str names[SUSPENSION_SCOPES]);

/* --- the book --- */

static bool same(const struct suspension *a, const struct suspension *b)
{
    return a->scope == b->scope && strcmp(a->name, b->name) == 0;
}

/* Whatever was known of the name is not sure any more. */
static void forget(const struct suspension *what)
{
    for (uint32_t i = 0; i < book.len; i++)
        if (same(&book.entries[i].order.what, what))
            book.entries[i].holds = false;
}

/* By a clock that is set back meanwhile one lasts as long as it was to last, not longer. */
static bool has_lasted(const struct entry *e)
{
    int64_t length_ms = e->order.what.until_ms - e->order.what.since_ms;

    return (int64_t)((sim_now_ns() - e->since_ns) / 1000000) >= length_ms;
}

void suspender_time(void)
{
    for (uint32_t i = 0; i < book.len; i++) {
        struct entry *e = &book.entries[i];

        if (e->order.what.until_ms != 0 &&
            (e->order.what.until_ms <= sim_wall_ms() || has_lasted(e)))
            e->holds = false;
    }
}

void suspender_killed(void)
{
    for (uint32_t i = 0; i < book.len; i++)
        book.entries[i].jobs = NULL;
}

static void check(const struct delivery *d, const struct recipient *r)
{
    const struct lane *lane = r->lane;
    const struct str names[SUSPENSION_SCOPES] = {
        [SUSPENSION_DOMAIN] = r->queue,
        [SUSPENSION_CAMPAIGN] = lane->names->campaign,
        [SUSPENSION_TENANT] = lane->names->tenant,
        [SUSPENSION_SITE] = str_of(d->site->name),
        [SUSPENSION_SOURCE] = str_of(d->channel->source->name),
    };

    for (uint32_t i = 0; i < book.len; i++) {
        const struct entry *e = &book.entries[i];

        if (e->holds && str_eq(names[e->order.what.scope], str_of(e->order.what.name)))
            sim_fail("suspensions", "%.*s goes, and %s %s is suspended", STR_FMT(r->address),
                     suspension_scope_name(e->order.what.scope), e->order.what.name);
    }
}

struct transaction *__wrap_transaction_new(struct delivery *d, struct recipient **rcpts,
                                           const struct channel_taken *taken)
{
    suspender_time();
    for (size_t i = 0; i < taken->len; i++)
        check(d, rcpts[i]);
    return __real_transaction_new(d, rcpts, taken);
}

uint32_t __wrap_suspensions_of(struct suspensions *s, const struct str names[SUSPENSION_SCOPES])
{
    uint32_t found = __real_suspensions_of(s, names);

    return sim_sabotage == SABOTAGE_SUSPENSION && sim_chance(500) ? 0 : found;
}

/* --- orders --- */

static void on_done(void *arg, int result)
{
    struct entry *e = arg;

    sim_trace("%s %s %s: %d", e->order.resume ? "resume" : "suspend",
              suspension_scope_name(e->order.what.scope), e->order.what.name, result);
    if (e->jobs == NULL)
        return;
    --*e->jobs;
    e->jobs = NULL;
    if (result == 0 && !e->order.resume)
        e->holds = true;
    suspender_time();
    /* Another order of the same name may be under way, or done behind this one. */
    for (uint32_t i = (uint32_t)(e - book.entries) + 1; i < book.len; i++)
        if (same(&book.entries[i].order.what, &e->order.what))
            e->holds = false;
}

static void submit(struct engine *engine, const struct suspension *what, bool resume,
                   uint32_t *jobs)
{
    struct entry *e;

    if (book.len == ENTRIES_MAX)
        return;
    forget(what);
    e = &book.entries[book.len++];
    *e = (struct entry){.order = {.what = *what, .resume = resume, .on_done = on_done, .arg = e},
                        .since_ns = sim_now_ns(),
                        .jobs = jobs};
    ++*jobs;
    suspend_submit(&engine->shared, &e->order);
}

static bool name_draw(struct engine *engine, struct suspension *what)
{
    struct worker *w = &engine->shared.workers[sim_draw(engine->shared.workers_len)];
    struct map_node *n = NULL;
    size_t bucket = 0, at;

    what->scope = (enum suspension_scope)sim_between(SUSPENSION_DOMAIN, SUSPENSION_SOURCE);
    switch (what->scope) {
    case SUSPENSION_DOMAIN:
        strcpy(what->name, world.domains[sim_draw(world.domains_len)].name);
        return true;
    case SUSPENSION_CAMPAIGN:
    case SUSPENSION_TENANT:
        snprintf(what->name, sizeof(what->name), "%c%u",
                 what->scope == SUSPENSION_CAMPAIGN ? 'c' : 't', (unsigned)sim_draw(WORLD_TENANTS));
        return true;
    case SUSPENSION_SITE:
        at = sim_draw(w->sites.count + 1);
        while ((n = map_walk(&w->sites, &bucket, n)) != NULL && at-- > 0)
            ;
        if (n != NULL)
            strcpy(what->name, CONTAINER_OF(n, struct site, node)->name);
        return n != NULL;
    case SUSPENSION_SOURCE:
        if (world.sources_len > 0)
            snprintf(what->name, sizeof(what->name), "a%u", (unsigned)sim_draw(world.sources_len));
        return world.sources_len > 0;
    case SUSPENSION_SOURCE_SITE: /* rules': throttle.c */
    case SUSPENSION_CAMPAIGN_SITE:
    case SUSPENSION_TENANT_SITE:
    case SUSPENSION_CAMPAIGN_TENANT:
    case SUSPENSION_SOURCE_CAP:
    case SUSPENSION_SOURCE_RECOVERY:
    case SUSPENSION_NETBLOCK_SITE:
    case SUSPENSION_SIGNER_SITE:
    case SUSPENSION_ENVELOPE_SITE:
    case SUSPENSION_CAMPAIGN_CAP:
    case SUSPENSION_TENANT_CAP:
    case SUSPENSION_SIGNER_CAP:
    case SUSPENSION_ENVELOPE_CAP:
    case SUSPENSION_SIGNER_RECOVERY:
    case SUSPENSION_ENVELOPE_RECOVERY:
    case SUSPENSION_SCOPES:
        break;
    }
    return false;
}

static void take_any(void *arg, const struct suspension *one)
{
    struct suspension *out = arg;

    if (out->scope == 0 || sim_chance(300))
        *out = *one;
}

void suspender_resume_one(struct engine *e, uint32_t *jobs)
{
    struct suspension what = {0};

    suspensions_visit(&e->shared.suspensions, take_any, &what);
    if (what.scope != 0)
        submit(e, &what, true, jobs);
}

void suspender_order(struct engine *e, uint32_t *jobs)
{
    struct suspension what = {.since_ms = sim_wall_ms()};

    if (sim_chance(400)) {
        suspender_resume_one(e, jobs);
        return;
    }
    if (sim_chance(300))
        what.until_ms = what.since_ms + (int64_t)sim_between(1, 600) * 1000;
    if (name_draw(e, &what))
        submit(e, &what, false, jobs);
}
