/* Warm-up: the schedules and providers that are shipped, what a file adds to them, and whether the
 * file's own make sense. */
#include "base/suggest.h"
#include "config/config_private.h"
#include "config/config_profiles.h"
#include "config/config_walk.h"

#define DAY_S 86400

/* --- schedules --- */

/* Google: "immediately doubling previously sent volumes could result in rate limiting" (Email
 * sender guidelines, as of March 2026). So each step but those of fast is below twice the one
 * before. */
static const uint32_t standard_steps[] = {
    200,    280,    390,    550,    770,     1100,    1500,    2100,    3000,   4100,   5800,
    8100,   11000,  16000,  22000,  31000,   44000,   61000,   85000,   120000, 170000, 230000,
    330000, 460000, 640000, 900000, 1300000, 1800000, 2500000, 3500000, 5000000};
static const uint32_t cautious_steps[] = {
    50,     60,     72,     86,     100,    120,    150,    180,    210,    260,    310,
    370,    450,    530,    640,    770,    920,    1100,   1300,   1600,   1900,   2300,
    2800,   3300,   4000,   4800,   5700,   6900,   8200,   9900,   12000,  14000,  17000,
    21000,  25000,  30000,  35000,  43000,  51000,  61000,  73000,  88000,  110000, 130000,
    150000, 180000, 220000, 260000, 320000, 380000, 460000, 550000, 660000, 790000, 1000000};
static const uint32_t fast_steps[] = {500,    1000,    2000,    4000,    8000,
                                      16000,  32000,   64000,   125000,  250000,
                                      500000, 1000000, 2000000, 4000000, 8000000};

static const struct shipped_schedule {
    const char *name;
    const uint32_t *steps;
    size_t len;
} shipped_schedules[] = {{"standard", standard_steps, ARRAY_LEN(standard_steps)},
                         {"cautious", cautious_steps, ARRAY_LEN(cautious_steps)},
                         {"fast", fast_steps, ARRAY_LEN(fast_steps)}};

static bool schedule_find(const struct config *c, const char *name, const uint32_t **steps,
                          size_t *len)
{
    for (size_t i = 0; i < ARRAY_LEN(shipped_schedules); i++) {
        if (strcmp(shipped_schedules[i].name, name) != 0)
            continue;
        *steps = shipped_schedules[i].steps;
        *len = shipped_schedules[i].len;
        return true;
    }
    for (size_t i = 0; i < c->warmup.schedules_len; i++) {
        if (strcmp(c->warmup.schedules[i].name, name) != 0)
            continue;
        *steps = c->warmup.schedules[i].steps;
        *len = c->warmup.schedules[i].steps_len;
        return true;
    }
    return false;
}

/* --- providers --- */

static const struct config_warmup_provider *provider_find(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->warmup.providers_len; i++)
        if (strcmp(c->warmup.providers[i].name, name) == 0)
            return &c->warmup.providers[i];
    return NULL;
}

/* --- what holds --- */

/* No name of a source has a colon. */
static const struct kind {
    const char *name, *prefix, *map;
} kinds[CONFIG_WARMUP_KINDS] = {
    [CONFIG_WARMUP_SOURCE] = {"source", "", "sources"},
    [CONFIG_WARMUP_SIGNER] = {"signer", "signer:", "signing_domains"},
    [CONFIG_WARMUP_CAMPAIGN] = {"campaign", "campaign:", "campaigns"},
};

enum config_warmup_kind config_warmup_kind(const char *name, const char **plain)
{
    enum config_warmup_kind kind = CONFIG_WARMUP_KINDS - 1;

    while (strncmp(name, kinds[kind].prefix, strlen(kinds[kind].prefix)) != 0)
        kind--;
    if (plain != NULL)
        *plain = name + strlen(kinds[kind].prefix);
    return kind;
}

const char *config_warmup_kind_name(enum config_warmup_kind kind)
{
    return kinds[kind].name;
}

const char *config_warmup_map(enum config_warmup_kind kind)
{
    return kinds[kind].map;
}

static const struct config_warmup_source *warmed_list(const struct config *c,
                                                      enum config_warmup_kind kind, size_t *len)
{
    *len = kind == CONFIG_WARMUP_SOURCE   ? c->warmup.sources_len
           : kind == CONFIG_WARMUP_SIGNER ? c->warmup.signers_len
                                          : c->warmup.campaigns_len;
    return kind == CONFIG_WARMUP_SOURCE   ? c->warmup.sources
           : kind == CONFIG_WARMUP_SIGNER ? c->warmup.signers
                                          : c->warmup.campaigns;
}

static const struct config_warmup_source *
warmed_find(const struct config *c, enum config_warmup_kind kind, struct str plain)
{
    size_t len;
    const struct config_warmup_source *list = warmed_list(c, kind, &len);

    for (size_t i = 0; i < len; i++)
        if (kind == CONFIG_WARMUP_SIGNER ? str_eq_nocase(str_of(list[i].name), plain)
                                         : str_eq(str_of(list[i].name), plain))
            return &list[i];
    return NULL;
}

void config_warmup_origin_put(const struct config *c, enum config_warmup_kind kind,
                              const char *name, struct buf *out)
{
    const struct config_warmup_source *s = warmed_find(c, kind, str_of(name));
    const struct config_field *map = config_key(&config_warmup_schema, kinds[kind].map);
    unsigned line = s == NULL ? 0 : config_line_given(c, s, map);

    if (line != 0)
        buf_printf(out, "%s:%u (", c->file, line);
    buf_printf(out, "warmup.%s['%s']%s", kinds[kind].map, name, line != 0 ? ")" : "");
}

bool config_warmup_has(const struct config *c, enum config_warmup_kind kind, struct str plain)
{
    return warmed_find(c, kind, plain) != NULL;
}

bool config_warmup_policy(const struct config *c, const char *name, const char *provider,
                          struct config_warmup_policy *out)
{
    const char *plain;
    enum config_warmup_kind kind = config_warmup_kind(name, &plain);
    const struct config_warmup_source *s = warmed_find(c, kind, str_of(plain));
    const struct config_warmup_provider *p = provider_find(c, provider);
    const struct shipped_provider *shipped = shipped_provider_find(str_of(provider));
    uint32_t rewarm_s = c->warmup.rewarm_after_s;

    if (s == NULL)
        return false;
    *out = (struct config_warmup_policy){
        .pace = p != NULL && p->pace != 0               ? p->pace
                : shipped != NULL && shipped->pace != 0 ? shipped->pace
                                                        : 100,
        .top_of_hour_s = p != NULL && p->top_of_hour_s != 0 ? p->top_of_hour_s
                         : shipped != NULL                  ? shipped->top_of_hour_s
                                                            : 0,
        .from = s->from,
        .calendar = strcmp(s->mode, "calendar") == 0,
        .promote = s->promote && (p == NULL || p->promote),
        .advance_used = c->warmup.advance_used,
        .fall_stages = c->warmup.fall_stages,
        .rewarm_days = rewarm_s / DAY_S + (rewarm_s % DAY_S != 0)};
    for (int i = 0; i < CONFIG_WARMUP_SIGNS; i++) {
        out->hold[i] = p != NULL && p->hold[i] != 0 ? p->hold[i] : c->warmup.hold[i];
        out->fall[i] = p != NULL && p->fall[i] != 0 ? p->fall[i] : c->warmup.fall[i];
    }
    return schedule_find(c, s->schedule, &out->steps, &out->steps_len);
}

/* --- mistakes --- */

/* Where the file gives a member of item, or its map. */
static struct config_place place(const struct config *c, const struct config_section *s,
                                 const void *item, const char *member, const char *map)
{
    unsigned line = config_line_of(c, item, config_key(s, member));

    if (line == 0)
        line = config_line_of(c, c, config_key(&config_warmup_schema, map));
    return (struct config_place){(int)line, 1};
}

static const struct config_section *section_of(const char *map)
{
    return config_key(&config_warmup_schema, map)->section;
}

static void check_schedule(struct config_loader *l, const struct config_warmup_schedule *s)
{
    const struct config_field *steps = config_key(section_of("schedules"), "steps");
    struct config_place at = place(l->c, section_of("schedules"), s, "steps", "schedules");

    for (size_t i = 0; i < ARRAY_LEN(shipped_schedules); i++)
        if (strcmp(s->name, shipped_schedules[i].name) == 0)
            config_complain(l, at, "warmup.schedules.%s is built in; take another name", s->name);
    if (s->steps_len == 0 && config_line_of(l->c, s, steps) != 0)
        config_complain(l, at, "warmup.schedules.%s.steps is empty; write steps: [100, 180, 320]",
                        s->name);
    for (size_t i = 1; i < s->steps_len; i++) {
        if (s->steps[i] > s->steps[i - 1])
            continue;
        config_complain(l, at,
                        "warmup.schedules.%s.steps: %u comes behind %u; each step is more than "
                        "the one before",
                        s->name, s->steps[i], s->steps[i - 1]);
        break;
    }
}

/* Without any in the file there is one, which config_finish() makes. */
static bool source_exists(const struct config *c, const char *name)
{
    return config_source_find(c, name) != NULL ||
           (c->sources_len == 0 && strcmp(name, "default") == 0);
}

static void check_source_name(struct config_loader *l, const char *name, struct config_place at)
{
    struct suggest near;

    if (source_exists(l->c, name))
        return;
    suggest_init(&near, str_of(name));
    for (size_t i = 0; i < l->c->sources_len; i++)
        suggest_offer(&near, l->c->sources[i].name);
    config_complain(l, at, "warmup.sources.%s: there is no such source; %s%s%s", name,
                    near.best != NULL ? "did you mean '" : "add it to ",
                    near.best != NULL ? near.best : "sources", near.best != NULL ? "'?" : "");
}

/* A signature is made with a key of the domain. */
static void check_signer_name(struct config_loader *l, const char *name, struct config_place at)
{
    struct suggest near;

    suggest_init(&near, str_of(name));
    for (size_t i = 0; i < l->c->dkim.keys_len; i++) {
        if (str_eq_nocase(str_of(l->c->dkim.keys[i].domain), str_of(name)))
            return;
        suggest_offer(&near, l->c->dkim.keys[i].domain);
    }
    config_complain(l, at, "warmup.signing_domains.%s: no key of dkim.keys is of this domain%s%s%s",
                    name, near.best != NULL ? "; did you mean '" : "",
                    near.best != NULL ? near.best : "", near.best != NULL ? "'?" : "");
}

static void check_warmed(struct config_loader *l, const struct config_warmup_source *s,
                         enum config_warmup_kind kind)
{
    const struct config *c = l->c;
    const char *map = config_warmup_map(kind);
    struct config_place at = place(c, section_of(map), s, "schedule", map);
    struct suggest near;
    const uint32_t *steps;
    size_t len;

    if (!schedule_find(c, s->schedule, &steps, &len)) {
        suggest_init(&near, str_of(s->schedule));
        for (size_t i = 0; i < ARRAY_LEN(shipped_schedules); i++)
            suggest_offer(&near, shipped_schedules[i].name);
        for (size_t i = 0; i < c->warmup.schedules_len; i++)
            suggest_offer(&near, c->warmup.schedules[i].name);
        config_complain(l, at, "warmup.%s.%s: there is no schedule '%s'; %s%s%s", map, s->name,
                        s->schedule, near.best != NULL ? "did you mean '" : "add it to ",
                        near.best != NULL ? near.best : "warmup.schedules",
                        near.best != NULL ? "'?" : "");
    }
    if (kind == CONFIG_WARMUP_SOURCE)
        check_source_name(l, s->name, at);
    else if (kind == CONFIG_WARMUP_SIGNER)
        check_signer_name(l, s->name, at);
}

static void check_provider(struct config_loader *l, const struct config_warmup_provider *p)
{
    const struct config_field *map = config_key(&config_warmup_schema, "providers");
    struct config_place at = {(int)config_line_given(l->c, p, map), 1};
    const struct shipped_provider *shipped = shipped_provider_find(str_of(p->name));
    struct suggest near;

    if (config_provider_warms(l->c, p->name))
        return;
    if (shipped != NULL) {
        config_complain(l, at, "warmup.providers.%s: warm-up counts it as '%s'; write that",
                        p->name, shipped->warmup);
        return;
    }
    suggest_init(&near, str_of(p->name));
    for (size_t i = 0; i < shipped_providers_len; i++)
        suggest_offer(&near, shipped_providers[i].name);
    for (size_t i = 0; i < l->c->providers_len; i++)
        suggest_offer(&near, l->c->providers[i].name);
    config_complain(l, at, "warmup.providers.%s: there is no such provider; %s%s%s", p->name,
                    near.best != NULL ? "did you mean '" : "add it to 'providers', with its 'mx'",
                    near.best != NULL ? near.best : "", near.best != NULL ? "'?" : "");
}

void config_warmup_check(struct config_loader *l)
{
    const struct config *c = l->c;

    for (size_t i = 0; i < c->warmup.schedules_len; i++)
        check_schedule(l, &c->warmup.schedules[i]);
    for (enum config_warmup_kind kind = 0; kind < CONFIG_WARMUP_KINDS; kind++) {
        size_t len;
        const struct config_warmup_source *list = warmed_list(c, kind, &len);

        for (size_t i = 0; i < len; i++)
            check_warmed(l, &list[i], kind);
    }
    for (size_t i = 0; i < c->warmup.providers_len; i++)
        check_provider(l, &c->warmup.providers[i]);
    if (c->warmup.quiet_hours == 0xFFFFFF)
        config_complain(l, place(c, &config_warmup_schema, c, "quiet_hours", "quiet_hours"),
                        "warmup.quiet_hours leaves no hour to send in");
    for (int i = 0; i < CONFIG_WARMUP_SIGNS; i++) {
        static const char *const holds[] = {"hold_deferred", "hold_bounced", "hold_complained"};

        if (c->warmup.hold[i] > c->warmup.fall[i])
            config_complain(l, place(c, &config_warmup_schema, c, holds[i], holds[i]),
                            "warmup.%s is more than warmup.fall%s", holds[i], holds[i] + 4);
    }
}

void config_warmup_warnings(const struct config *c, struct buf *out)
{
    for (size_t i = 0; i < c->warmup.schedules_len; i++) {
        const struct config_warmup_schedule *s = &c->warmup.schedules[i];

        for (size_t j = 1; j < s->steps_len; j++) {
            if (s->steps[j] / 2 < s->steps[j - 1])
                continue;
            buf_printf(out,
                       "warning: warmup.schedules.%s: from %u to %u is twice as much or more; "
                       "providers limit senders that double their volume at once\n",
                       s->name, s->steps[j - 1], s->steps[j]);
            break;
        }
    }
}
