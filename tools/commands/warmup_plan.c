#include "tools/commands/warmup_plan.h"

#include <errno.h>
#include <stdlib.h>

#include "base/suggest.h"

struct cell { /* a source at a provider */
    struct config_warmup_policy policy;
    struct warmup_state state;
};

/* --- the mix --- */

static void find_provider(void *arg, const char *name, const char *mx)
{
    struct str *wanted = arg;

    (void)mx;
    if (str_eq(*wanted, str_of(name)))
        wanted->len = 0;
}

static void offer_provider(void *arg, const char *name, const char *mx)
{
    (void)mx;
    suggest_offer(arg, name);
}

static int mix_add(struct plan *p, struct str item, struct buf *why)
{
    struct str number = item, name = str_take(&number, '='), wanted = name;
    struct suggest near;
    uint64_t percent;

    if (name.len == 0 || name.len > CONFIG_SHARE_NAME_MAX ||
        str_to_u64(number, 100, &percent) != 0 || percent == 0) {
        buf_printf(why, "'%.*s' is no part; write google=40", STR_FMT(item));
        return -EINVAL;
    }
    config_providers_visit(p->config, find_provider, &wanted);
    if (wanted.len != 0) {
        suggest_init(&near, name);
        config_providers_visit(p->config, offer_provider, &near);
        buf_printf(why, "there is no provider '%.*s'; %s%s%s", STR_FMT(name),
                   near.best != NULL ? "did you mean '" : "'hayauma warmup providers' lists them",
                   near.best != NULL ? near.best : "", near.best != NULL ? "'?" : "");
        return -EINVAL;
    }
    for (size_t i = 0; i < p->mix_len; i++) {
        if (!str_eq(str_of(p->mix[i].provider), name))
            continue;
        buf_printf(why, "'%.*s' is there twice", STR_FMT(name));
        return -EINVAL;
    }
    if (p->mix_len == PLAN_PROVIDERS_MAX) {
        buf_printf(why, "more than %d providers", PLAN_PROVIDERS_MAX);
        return -EINVAL;
    }
    p->mix[p->mix_len].percent = (uint32_t)percent;
    memcpy(p->mix[p->mix_len].provider, name.ptr, name.len);
    p->mix[p->mix_len++].provider[name.len] = 0;
    return 0;
}

int plan_mix_parse(struct plan *p, struct str text, struct buf *why)
{
    uint32_t sum = 0;

    p->mix_len = 0;
    while (text.len != 0) {
        if (mix_add(p, str_trim(str_take(&text, ',')), why) != 0)
            return -EINVAL;
        sum += p->mix[p->mix_len - 1].percent;
    }
    if (sum == 100)
        return 0;
    buf_printf(why, "the parts are %u in all, not 100", sum);
    return -EINVAL;
}

/* --- the days --- */

/* A day as a whole, without hours. */
static struct warmup_hour hour_of(int32_t day)
{
    return (struct warmup_hour){.day = day, .open = 1};
}

static uint32_t cell_cap(const struct cell *c, int32_t day)
{
    if (c->policy.from != 0 && day < (int32_t)c->policy.from)
        return 0;
    return warmup_cap(&c->policy, &c->state);
}

/* Sends up to left; the answers are good. */
static uint64_t cell_send(struct cell *c, int32_t day, uint64_t left)
{
    uint32_t cap = cell_cap(c, day), used = c->state.used < cap ? c->state.used : cap;
    uint32_t n = left < cap - used ? (uint32_t)left : cap - used;

    if (n == 0)
        return 0;
    c->state.mail = day;
    c->state.used = c->state.warm ? 0 : used + n;
    c->state.events[WARMUP_EVENT_DELIVERED] = used + n;
    return n;
}

/* What was used of today was delivered. */
static void cell_begin(const struct plan *p, struct cell *cell, const char *source,
                       const char *provider)
{
    struct warmup_hour now = hour_of(p->today);

    warmup_begin(&cell->state, &cell->policy, &now);
    for (size_t i = 0; i < p->starts_len; i++) {
        const struct plan_start *s = &p->starts[i];

        if (strcmp(s->source, source) != 0 || strcmp(s->provider, provider) != 0)
            continue;
        warmup_set_stage(&cell->state, &cell->policy, s->stage, p->today);
        cell->state.paused = s->paused;
        cell->state.used = cell->state.warm ? 0 : s->used;
        cell->state.events[WARMUP_EVENT_DELIVERED] = s->used;
    }
}

/* The cells, [sources][mix_len]. NULL: no source. */
static struct cell *cells_new(const struct plan *p, size_t *sources)
{
    const struct config *c = p->config;
    size_t len = p->source != NULL ? 1 : c->warmup.sources_len;
    struct cell *cells = calloc(len * p->mix_len + 1, sizeof(*cells));

    ASSERT(cells != NULL);
    *sources = 0;
    for (size_t i = 0; i < len; i++) {
        const char *name = p->source != NULL ? p->source : c->warmup.sources[i].name;

        for (size_t m = 0; m < p->mix_len; m++) {
            struct cell *cell = &cells[*sources * p->mix_len + m];

            if (!config_warmup_policy(c, name, p->mix[m].provider, &cell->policy))
                return cells; /* what is named is not being warmed up */
            cell_begin(p, cell, name, p->mix[m].provider);
        }
        (*sources)++;
    }
    return cells;
}

/* The parts of the list in whole recipients: what rounding leaves goes to the last. */
static void list_split(const struct plan *p, uint64_t *left)
{
    uint64_t rest = p->list;

    for (size_t m = 0; m < p->mix_len; m++) {
        left[m] = p->list == 0 ? UINT64_MAX
                  : m + 1 == p->mix_len
                      ? rest
                      : p->list / 100 * p->mix[m].percent + p->list % 100 * p->mix[m].percent / 100;
        rest -= p->list == 0 ? 0 : left[m];
    }
}

/* One provider's day over all sources. */
static void provider_day(const struct plan *p, struct cell *cells, size_t sources, size_t m,
                         struct plan_day *d, uint64_t *left)
{
    uint64_t most;

    d->caps[m] = 0;
    for (size_t i = 0; i < sources; i++) {
        uint32_t cap = cell_cap(&cells[i * p->mix_len + m], d->day);

        d->caps[m] =
            cap == WARMUP_NO_CAP || d->caps[m] == UINT64_MAX ? UINT64_MAX : d->caps[m] + cap;
    }
    most = d->caps[m] == UINT64_MAX ? UINT64_MAX : d->caps[m] * 100 / p->mix[m].percent;
    d->most = m == 0 || most < d->most ? most : d->most;
    for (size_t i = 0; i < sources; i++) {
        uint64_t n = cell_send(&cells[i * p->mix_len + m], d->day, *left);

        d->sent += n;
        *left -= p->list == 0 ? 0 : n;
    }
    if (p->list != 0)
        d->left += *left;
}

/* The next day comes. False: it is as this one, and so are all that follow. */
static bool cell_turn(struct cell *c, int32_t day)
{
    struct warmup_hour tomorrow = hour_of(day + 1);
    struct warmup_state before = c->state;
    struct warmup_past past;

    (void)warmup_turn(&c->state, &c->policy, &tomorrow, &past);
    return c->state.stage != before.stage || c->state.warm != before.warm ||
           day < (int32_t)c->policy.from;
}

int plan_run(const struct plan *p, bool (*visit)(void *arg, const struct plan_day *day), void *arg)
{
    size_t sources;
    struct cell *cells = cells_new(p, &sources);
    uint64_t left[PLAN_PROVIDERS_MAX];
    bool more = sources > 0;

    list_split(p, left);
    for (uint32_t n = 0; more && n < PLAN_DAYS_MAX; n++) {
        struct plan_day d = {.number = n + 1, .day = p->today + (int32_t)n};
        bool turns = false;

        for (size_t m = 0; m < p->mix_len; m++)
            provider_day(p, cells, sources, m, &d, &left[m]);
        more = visit(arg, &d) && (p->list != 0 ? d.left > 0 : d.most != UINT64_MAX);
        for (size_t i = 0; i < sources * p->mix_len; i++)
            turns = cell_turn(&cells[i], d.day) || turns;
        more = more && (turns || p->list != 0);
    }
    free(cells);
    return sources > 0 ? 0 : -ENOENT;
}
