/* Warm-up: the schedules and providers that are shipped, what a file adds to them, and whether the
 * file's own make sense. */
#include "config/config_private.h"
#include "config/config_walk.h"
#include "config/suggest.h"

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

#define CARRIER_S 120 /* carriers refuse at the top of the hour, when everybody sends */

/* How names of their exchangers end, as their MX records have it in November 2026. Google counts by
 * "the MX record domain, not the domain in the recipient address" (Email sender guidelines FAQ, as
 * of March 2026), and so is counted here. */
static const struct shipped_provider {
    const char *name, *mx; /* separated by blanks */
    uint32_t pace, top_of_hour_s;
} shipped_providers[] = {
    {"google", "google.com googlemail.com", 100, 0},
    {"microsoft", "outlook.com mx.microsoft hotmail.com", 50, 0},
    {"yahoo", "yahoodns.net", 100, 0}, /* AOL, AT&T and Verizon too */
    {"apple", "icloud.com me.com mac.com", 100, CARRIER_S},
    {"comcast", "comcast.net", 100, 0},
    {"docomo", "docomo.ne.jp", 100, CARRIER_S},
    {"au", "au.com ezweb.ne.jp", 100, CARRIER_S},
    {"softbank", "softbank.jp softbank.ne.jp vodafone.ne.jp", 100, CARRIER_S},
    {"ymobile", "ymobile.ne.jp emnet.ne.jp", 100, CARRIER_S},
    {"yahoo_japan", "yahoo.co.jp ybb.ne.jp", 100, 0},
    {"rakuten", "rakuten.co.jp rakuten.jp rakuten.ne.jp", 100, 0},
    {"plala", "plala.or.jp", 100, 0},
    {"ocn", "ocn.ad.jp ocn.ne.jp", 100, 0},
    {"biglobe", "biglobe.ne.jp", 100, 0},
    {"nifty", "nifty.com", 100, 0},
    {"so_net", "so-net.ne.jp", 100, 0},
    {"jcom", "zaq.ne.jp jcom.home.ne.jp", 100, 0},
    {"gmx", "gmx.net gmx.com web.de", 100, 0},
    {"t_online", "t-online.de", 100, 0},
    {"orange", "orange.fr wanadoo.fr", 100, 0},
    {"qq", "qq.com", 100, 0},
    {"netease", "netease.com 163.com 126.com", 100, 0},
    {"yandex", "yandex.ru yandex.net", 100, 0},
    {"mail_ru", "mail.ru", 100, 0},
    {"zoho", "zoho.com zoho.eu", 100, 0},
    {"mimecast", "mimecast.com", 100, 0},
    {"proofpoint", "pphosted.com ppe-hosted.com", 100, 0},
    {"barracuda", "barracudanetworks.com", 100, 0},
};
static const struct shipped_provider shipped_default = {"default", "", 100, 0};

/* Whether host ends in suffix, at the border of a label. The final dot of a name says nothing. */
static bool ends_in(struct str host, struct str suffix)
{
    struct str tail;

    if (host.len > 0 && host.ptr[host.len - 1] == '.')
        host.len--;
    if (suffix.len > 0 && suffix.ptr[suffix.len - 1] == '.')
        suffix.len--;
    if (suffix.len == 0 || host.len < suffix.len)
        return false;
    tail = (struct str){host.ptr + host.len - suffix.len, suffix.len};
    return str_eq_nocase(tail, suffix) && (tail.ptr == host.ptr || tail.ptr[-1] == '.');
}

static bool ends_in_one_of(struct str host, struct str suffixes)
{
    while (suffixes.len != 0)
        if (ends_in(host, str_take(&suffixes, ' ')))
            return true;
    return false;
}

static const struct config_warmup_provider *provider_find(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->warmup.providers_len; i++)
        if (strcmp(c->warmup.providers[i].name, name) == 0)
            return &c->warmup.providers[i];
    return NULL;
}

static const struct shipped_provider *shipped_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(shipped_providers); i++)
        if (strcmp(shipped_providers[i].name, name) == 0)
            return &shipped_providers[i];
    return &shipped_default;
}

const char *config_provider_of(const struct config *c, struct str host)
{
    for (size_t i = 0; i < c->warmup.providers_len; i++)
        for (size_t j = 0; j < c->warmup.providers[i].mx_len; j++)
            if (ends_in(host, str_of(c->warmup.providers[i].mx[j])))
                return c->warmup.providers[i].name;
    for (size_t i = 0; i < ARRAY_LEN(shipped_providers); i++) {
        const struct shipped_provider *p = &shipped_providers[i];
        const struct config_warmup_provider *own = provider_find(c, p->name);

        if ((own == NULL || own->mx_len == 0) && ends_in_one_of(host, str_of(p->mx)))
            return p->name;
    }
    return shipped_default.name;
}

void config_providers_visit(const struct config *c,
                            void (*visit)(void *arg, const char *name, const char *mx), void *arg)
{
    struct buf mx = {0};

    for (size_t i = 0; i < ARRAY_LEN(shipped_providers); i++) {
        const struct config_warmup_provider *own = provider_find(c, shipped_providers[i].name);

        if (own == NULL || own->mx_len == 0)
            visit(arg, shipped_providers[i].name, shipped_providers[i].mx);
    }
    for (size_t i = 0; i < c->warmup.providers_len; i++) {
        if (c->warmup.providers[i].mx_len == 0)
            continue;
        buf_clear(&mx);
        for (size_t j = 0; j < c->warmup.providers[i].mx_len; j++)
            buf_printf(&mx, "%s%s", j == 0 ? "" : " ", c->warmup.providers[i].mx[j]);
        buf_putc(&mx, 0);
        visit(arg, c->warmup.providers[i].name, (const char *)mx.data);
    }
    visit(arg, shipped_default.name, shipped_default.mx);
    buf_done(&mx);
}

/* --- what holds --- */

static const struct config_warmup_source *warmed_find(const struct config *c, const char *source)
{
    for (size_t i = 0; i < c->warmup.sources_len; i++)
        if (strcmp(c->warmup.sources[i].name, source) == 0)
            return &c->warmup.sources[i];
    return NULL;
}

bool config_warmup_policy(const struct config *c, const char *source, const char *provider,
                          struct config_warmup_policy *out)
{
    const struct config_warmup_source *s = warmed_find(c, source);
    const struct config_warmup_provider *p = provider_find(c, provider);
    const struct shipped_provider *shipped = shipped_find(provider);
    uint32_t rewarm_s = c->warmup.rewarm_after_s;

    if (s == NULL)
        return false;
    *out = (struct config_warmup_policy){
        .pace = p != NULL && p->pace != 0 ? p->pace : shipped->pace,
        .top_of_hour_s =
            p != NULL && p->top_of_hour_s != 0 ? p->top_of_hour_s : shipped->top_of_hour_s,
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
    const struct config_field *f = s == NULL ? NULL : config_field_find(s, str_of(member));
    unsigned line = f == NULL ? 0 : config_line_of(c, item, f);

    if (line == 0)
        line = config_line_of(c, c, config_field_find(&config_warmup_schema, str_of(map)));
    return (struct config_place){(int)line, 1};
}

static const struct config_section *section_of(const char *map)
{
    return config_field_find(&config_warmup_schema, str_of(map))->section;
}

static void check_schedule(struct config_loader *l, const struct config_warmup_schedule *s)
{
    const struct config_field *steps = config_field_find(section_of("schedules"), STR("steps"));
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

static void check_source(struct config_loader *l, const struct config_warmup_source *s)
{
    const struct config *c = l->c;
    struct config_place at = place(c, section_of("sources"), s, "schedule", "sources");
    struct suggest near;
    const uint32_t *steps;
    size_t len;

    if (!schedule_find(c, s->schedule, &steps, &len)) {
        suggest_init(&near, str_of(s->schedule));
        for (size_t i = 0; i < ARRAY_LEN(shipped_schedules); i++)
            suggest_offer(&near, shipped_schedules[i].name);
        for (size_t i = 0; i < c->warmup.schedules_len; i++)
            suggest_offer(&near, c->warmup.schedules[i].name);
        config_complain(l, at, "warmup.sources.%s: there is no schedule '%s'; %s%s%s", s->name,
                        s->schedule, near.best != NULL ? "did you mean '" : "add it to ",
                        near.best != NULL ? near.best : "warmup.schedules",
                        near.best != NULL ? "'?" : "");
    }
    check_source_name(l, s->name, at);
}

static void check_provider(struct config_loader *l, const struct config_warmup_provider *p)
{
    struct config_place at = place(l->c, section_of("providers"), p, "mx", "providers");
    bool is_default = strcmp(p->name, shipped_default.name) == 0;
    struct suggest near;

    if (is_default && p->mx_len != 0)
        config_complain(l, at, "warmup.providers.default is what no 'mx' matches; it takes none");
    for (size_t i = 0; i < p->mx_len; i++) {
        struct str mx = str_of(p->mx[i]);

        if (mx.len > 0 && mx.ptr[mx.len - 1] == '.')
            mx.len--;
        if (!config_host_name_valid(mx))
            config_complain(l, at,
                            "warmup.providers.%s.mx: '%s' is not the end of a host name; write "
                            "mx.example.net",
                            p->name, p->mx[i]);
    }
    if (is_default || p->mx_len != 0 || shipped_find(p->name) != &shipped_default)
        return;
    suggest_init(&near, str_of(p->name));
    for (size_t i = 0; i < ARRAY_LEN(shipped_providers); i++)
        suggest_offer(&near, shipped_providers[i].name);
    config_complain(l, at, "warmup.providers.%s is not shipped and lacks 'mx'; %s%s%s", p->name,
                    near.best != NULL ? "did you mean '" : "write mx: [mx.example.net]",
                    near.best != NULL ? near.best : "", near.best != NULL ? "'?" : "");
}

void config_warmup_check(struct config_loader *l)
{
    const struct config *c = l->c;

    for (size_t i = 0; i < c->warmup.schedules_len; i++)
        check_schedule(l, &c->warmup.schedules[i]);
    for (size_t i = 0; i < c->warmup.sources_len; i++)
        check_source(l, &c->warmup.sources[i]);
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
