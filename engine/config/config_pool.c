/* Sources and pools: what names stand for, what is wrong, and which pool a message goes by. */
#include <stdarg.h>
#include <stdio.h>

#include "base/suggest.h"
#include "config/config_private.h"

#define NAMED_DEFAULT "default"

/* --- finding --- */

const struct config_source *config_source_find(const struct config *c, const char *name)
{
    for (size_t i = 0; i < c->sources_len; i++)
        if (strcmp(c->sources[i].name, name) == 0)
            return &c->sources[i];
    return NULL;
}

const struct config_pool *config_pool_find(const struct config *c, struct str name)
{
    uint32_t at = config_names_find(&((const struct config_owner *)c)->pools, name);

    ASSERT(at == CONFIG_NO_MATCH || at < c->pools_len);
    return at == CONFIG_NO_MATCH ? NULL : &c->pools[at];
}

const struct config_pool *config_pool_for(const struct config *c, struct str name)
{
    const struct config_pool *pool = config_pool_find(c, name);

    return pool != NULL ? pool : c->default_pool;
}

/* A rule that chooses a pool: which list it is in, and which of the list. */
struct pool_rule {
    const char *pool; /* NULL: no rule does */
    const char *list; /* "" of the message's header */
    const char *key;
    const void *base; /* that has the member 'pool' */
    bool of_client;   /* base is one of the listener's clients */
};

/* The narrowest network of the listener that has the client and names a pool. */
static void client_rule(const struct config_listener *l, const struct sockaddr *client,
                        struct pool_rule *out)
{
    int narrowest = -1;

    *out = (struct pool_rule){l->pool, "listeners", l->name, l, false};

    for (size_t i = 0; i < l->clients_len; i++) {
        const struct config_client *c = &l->clients[i];

        if (c->pool == NULL || c->network.prefix <= narrowest ||
            !config_network_match(&c->network, 1, client))
            continue;
        narrowest = c->network.prefix;
        *out = (struct pool_rule){c->pool, "listeners", l->name, c, true};
    }
}

static void share_rule(const char *list, const struct config_share *share, struct pool_rule *out)
{
    *out = (struct pool_rule){share->pool, list, share->name, share, false};
}

const struct config_sender *config_sender_for(const struct config *c, struct str domain)
{
    const struct config_owner *owner = (const struct config_owner *)c;
    uint32_t at =
        c->senders_len == 0 ? CONFIG_NO_MATCH : config_index_find(&owner->senders, domain, STR(""));

    ASSERT(at == CONFIG_NO_MATCH || at < c->senders_len);
    return at == CONFIG_NO_MATCH ? NULL : &c->senders[at];
}

/* The first rule that chooses; that of the header apart. */
static struct pool_rule rule_find(const struct config *c, const struct config_pool_question *q)
{
    struct pool_rule rule = {0};

    if (q->campaign.len > 0)
        share_rule("campaigns", config_campaign(c, q->campaign), &rule);
    if (rule.pool == NULL && q->tenant.len > 0)
        share_rule("tenants", config_tenant(c, q->tenant), &rule);
    if (rule.pool == NULL) {
        const struct config_sender *s = config_sender_for(c, q->sender_domain);

        if (s != NULL)
            rule = (struct pool_rule){s->pool, "senders", s->pattern, s, false};
    }
    if (rule.pool == NULL && q->listener != NULL)
        client_rule(q->listener, q->client, &rule);
    return rule;
}

struct str config_pool_chosen(const struct config *c, const struct config_pool_question *q)
{
    struct pool_rule rule;

    if (q->header.len > 0)
        return q->header;
    rule = rule_find(c, q);
    return rule.pool == NULL ? STR("") : str_of(rule.pool);
}

void config_pool_rule_put(const struct config *c, const struct config_pool_question *q,
                          struct buf *out)
{
    struct pool_rule rule;
    unsigned line;

    if (q->header.len > 0) {
        buf_puts(out, "X-Hayauma-Pool");
        return;
    }
    rule = rule_find(c, q);
    if (rule.pool == NULL) {
        buf_puts(out, "default_pool");
        rule.base = c;
        line = config_line_of(c, c, config_key(&config_schema, "default_pool"));
    } else {
        const struct config_section *s = config_key(&config_schema, rule.list)->section;

        if (rule.of_client)
            s = config_key(s, "clients")->section;
        buf_printf(out, "%s['%s'].%spool", rule.list, rule.key, rule.of_client ? "clients." : "");
        line = config_line_of(c, rule.base, config_key(s, "pool"));
    }
    if (line != 0)
        buf_printf(out, ", %s:%u", c->file, line);
}

const struct config_pool *config_pool_engaged(const struct config *c,
                                              const struct config_pool *pool)
{
    return pool->engaged_name == NULL ? pool : config_pool_for(c, str_of(pool->engaged_name));
}

void config_pool_engaged_put(const struct config *c, const struct config_pool *pool,
                             struct buf *out)
{
    unsigned line = config_line_of(c, pool, config_key_in("pools", "engaged"));

    buf_printf(out, "pools['%s'].engaged, %s:%u", pool->name, c->file, line);
}

/* --- limits of sources --- */

void config_source_origin_put(const struct config *c, const struct config_source *source,
                              const char *key, struct buf *out)
{
    const struct config_field *f = config_key_in("sources", key);
    unsigned line = config_line_of(c, source, f);

    if (line != 0)
        buf_printf(out, "%s:%u (sources['%s'].%s)", c->file, line, source->name, key);
    else
        buf_puts(out, "default");
}

void config_source_limits_visit(const struct config *c, const struct config_source *source,
                                void (*visit)(void *arg, const char *key, struct str value,
                                              struct str origin),
                                void *arg)
{
    static const char *const keys[] = {
        "sessions_max", "rate",       "rate_burst",   "recipient_rate", "recipient_burst",
        "byte_rate",    "byte_burst", "connect_rate", "connect_burst"};
    struct buf value = {0}, origin = {0};

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        buf_clear(&value);
        buf_clear(&origin);
        config_print_member(config_key_in("sources", keys[i]), source, &value);
        if (i > 2 && str_eq(buf_str(&value), STR("none"))) /* shown where it is set */
            continue;
        config_source_origin_put(c, source, keys[i], &origin);
        visit(arg, keys[i], buf_str(&value), buf_str(&origin));
    }
    buf_done(&value);
    buf_done(&origin);
}

static const struct config_section *share_site_section(void)
{
    return config_key_in("tenants", "sites")->section;
}

void config_share_limits_visit(
    const struct config *c, const struct config_share *share, const struct config_share_site *at,
    void (*visit)(void *arg, const char *key, struct str value, struct str origin), void *arg)
{
    const struct config_section *section = share_site_section();
    struct buf value = {0}, origin = {0};

    for (size_t i = 0; i < section->len; i++) {
        buf_clear(&value);
        buf_clear(&origin);
        config_print_member(&section->fields[i], at, &value);
        if (str_eq(buf_str(&value), STR("none")))
            continue;
        config_share_origin_put(c, share, at, section->fields[i].name, &origin);
        visit(arg, section->fields[i].name, buf_str(&value), buf_str(&origin));
    }
    buf_done(&value);
    buf_done(&origin);
}

void config_share_origin_put(const struct config *c, const struct config_share *share,
                             const struct config_share_site *at, const char *key, struct buf *out)
{
    bool tenant = share == config_tenant(c, str_of(share->name));
    const char *map = tenant ? "tenants" : "campaigns";
    unsigned line = config_line_of(c, at, config_key(share_site_section(), key));

    buf_printf(out, "%s:%u (%s['%s'].sites['%s'].%s)", c->file, line, map, share->name, at->site,
               key);
}

/* --- completing --- */

/* The file names none: one whose address the kernel chooses. */
static void default_source(struct config *c)
{
    c->sources = config_alloc(c, sizeof(*c->sources));
    c->sources_len = 1;
    c->sources->name = config_dup(c, STR(NAMED_DEFAULT));
}

/* The file names none: one of all sources. */
static void default_pool(struct config *c)
{
    struct config_pool *pool = config_alloc(c, sizeof(*pool));

    pool->name = config_dup(c, STR(NAMED_DEFAULT));
    pool->selection_word = config_dup(c, STR("weighted"));
    pool->sources = config_alloc(c, c->sources_len * sizeof(*pool->sources));
    pool->sources_len = c->sources_len;
    for (size_t i = 0; i < c->sources_len; i++)
        pool->sources[i] = (struct config_pool_source){.name = c->sources[i].name, .weight = 1};
    c->pools = pool;
    c->pools_len = 1;
}

static void index_pools(struct config *c)
{
    struct config_owner *owner = (struct config_owner *)c;

    if (owner->pools.count != 0)
        return;
    for (size_t i = 0; i < c->pools_len; i++)
        config_names_add(c, &owner->pools, str_of(c->pools[i].name), (uint32_t)i);
    for (size_t i = 0; i < c->senders_len; i++)
        (void)config_index_add(c, &owner->senders, c->senders[i].pattern, (uint32_t)i);
}

static enum config_selection selection_of(const char *word)
{
    if (strcmp(word, "domain") == 0)
        return CONFIG_SELECT_DOMAIN;
    return strcmp(word, "campaign") == 0 ? CONFIG_SELECT_CAMPAIGN : CONFIG_SELECT_WEIGHTED;
}

void config_finish_pools(struct config *c)
{
    if (c->sources_len == 0)
        default_source(c);
    if (c->pools_len == 0)
        default_pool(c);
    index_pools(c);
    for (size_t i = 0; i < c->sources_len; i++)
        if (c->sources[i].ehlo_name == NULL)
            c->sources[i].ehlo_name = c->host_name;
    for (size_t i = 0; i < c->pools_len; i++) {
        struct config_pool *pool = &c->pools[i];

        pool->selection = selection_of(pool->selection_word);
        pool->overflow =
            pool->overflow_name == NULL ? NULL : config_pool_find(c, str_of(pool->overflow_name));
        for (size_t j = 0; j < pool->sources_len; j++)
            pool->sources[j].source = config_source_find(c, pool->sources[j].name);
    }
    ASSERT(c->sources_len > 0 && c->pools_len > 0);
    if (c->default_pool_name == NULL && c->pools_len == 1)
        c->default_pool_name = c->pools->name;
    c->default_pool =
        c->default_pool_name == NULL ? NULL : config_pool_find(c, str_of(c->default_pool_name));
}

/* --- mistakes --- */

void config_mistake(const struct config_checker *k, unsigned line, const char *fmt, ...)
{
    char text[512];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    k->tell(k->arg, line, text);
}

/* Says that what, on line, names a pool that is not there. */
static void check_pool_name(const struct config_checker *k, unsigned line, const char *what,
                            const char *name)
{
    struct suggest s;

    if (name == NULL || config_pool_find(k->c, str_of(name)) != NULL)
        return;
    suggest_init(&s, str_of(name));
    for (size_t i = 0; i < k->c->pools_len; i++)
        suggest_offer(&s, k->c->pools[i].name);
    if (s.best != NULL)
        config_mistake(k, line, "%s: there is no pool '%s'; did you mean '%s'?", what, name,
                       s.best);
    else
        config_mistake(k, line, "%s: there is no pool '%s'; 'pools' must have it", what, name);
}

static void check_pool_sources(const struct config_checker *k, const struct config_pool *pool)
{
    const struct config_field *pools = config_key(&config_schema, "pools"),
                              *list = config_key(pools->section, "sources");

    if (pool->sources_len == 0)
        config_mistake(k, config_line_of(k->c, pool, list),
                       "pools['%s'].sources has no source; name one", pool->name);
    for (size_t i = 0; i < pool->sources_len; i++) {
        const struct config_pool_source *p = &pool->sources[i];
        struct suggest s;

        if (p->source != NULL)
            continue;
        suggest_init(&s, str_of(p->name));
        for (size_t j = 0; j < k->c->sources_len; j++)
            suggest_offer(&s, k->c->sources[j].name);
        config_mistake(k, config_line_of(k->c, p, list),
                       "pools['%s'].sources: there is no source '%s'%s%s%s", pool->name, p->name,
                       s.best != NULL ? "; did you mean '" : "; 'sources' must have it",
                       s.best != NULL ? s.best : "", s.best != NULL ? "'?" : "");
    }
}

static void check_pools(const struct config_checker *k)
{
    const struct config_field *pools = config_key(&config_schema, "pools"),
                              *overflow = config_key(pools->section, "overflow"),
                              *engaged = config_key(pools->section, "engaged"),
                              *attempts = config_key(pools->section, "attempts_max");

    for (size_t i = 0; i < k->c->pools_len; i++) {
        const struct config_pool *pool = &k->c->pools[i];
        unsigned line = config_line_of(k->c, pool, overflow);
        char what[CONFIG_SHARE_NAME_MAX + 24];

        check_pool_sources(k, pool);
        snprintf(what, sizeof(what), "pools['%s'].overflow", pool->name);
        check_pool_name(k, line, what, pool->overflow_name);
        snprintf(what, sizeof(what), "pools['%s'].engaged", pool->name);
        check_pool_name(k, config_line_of(k->c, pool, engaged), what, pool->engaged_name);
        if (pool->attempts_max != 0 && pool->overflow_name == NULL)
            config_mistake(k, config_line_of(k->c, pool, attempts),
                           "pools['%s'].attempts_max needs an overflow, by which recipients go on",
                           pool->name);
        if (pool->overflow == pool)
            config_mistake(k, line, "pools['%s'].overflow names the pool itself; name another",
                           pool->name);
    }
}

static bool same_address(const struct config_address *a, const struct config_address *b)
{
    return a->len != 0 && a->len == b->len && memcmp(&a->addr, &b->addr, a->len) == 0;
}

/* Two sources on one address would be limited apart, and the receiver sees one. */
static void check_sources(const struct config_checker *k)
{
    const struct config_field *sources = config_key(&config_schema, "sources"),
                              *v4 = config_key(sources->section, "ipv4"),
                              *v6 = config_key(sources->section, "ipv6");
    const struct config *c = k->c;

    for (size_t i = 0; i < c->sources_len; i++) {
        for (size_t j = 0; j < i; j++) {
            if (same_address(&c->sources[i].ipv4, &c->sources[j].ipv4))
                config_mistake(k, config_line_of(c, &c->sources[i], v4),
                               "sources['%s'].ipv4: %s is the address of '%s' already",
                               c->sources[i].name, c->sources[i].ipv4.text, c->sources[j].name);
            if (same_address(&c->sources[i].ipv6, &c->sources[j].ipv6))
                config_mistake(k, config_line_of(c, &c->sources[i], v6),
                               "sources['%s'].ipv6: %s is the address of '%s' already",
                               c->sources[i].name, c->sources[i].ipv6.text, c->sources[j].name);
        }
    }
}

static bool is_in_pool(const struct config *c, const struct config_source *source)
{
    for (size_t i = 0; i < c->pools_len; i++)
        for (size_t j = 0; j < c->pools[i].sources_len; j++)
            if (c->pools[i].sources[j].source == source)
                return true;
    return false;
}

/* Sources that would never send. */
static void check_use(const struct config_checker *k)
{
    const struct config_field *sources = config_key(&config_schema, "sources");
    const struct config *c = k->c;

    for (size_t i = 0; i < c->sources_len; i++) {
        const struct config_source *s = &c->sources[i];
        unsigned line = config_line_of(c, s, sources);
        bool v4 = s->ipv4.len != 0, v6 = s->ipv6.len != 0;

        /* Of the source that is there when the file names none, what pools lack says it. */
        if (!is_in_pool(c, s) && line != 0)
            config_mistake(k, line,
                           "sources['%s'] is in no pool and would send nothing; put it in one",
                           s->name);
        if (v4 != v6 && !(v4 ? c->dns.ipv4 : c->dns.ipv6))
            config_mistake(
                k, line,
                "sources['%s'] has no address but one for %s, and dns.%s is 'no': it would send "
                "nothing",
                s->name, v4 ? "IPv4" : "IPv6", v4 ? "ipv4" : "ipv6");
    }
}

static void check_shares(const struct config_checker *k, const char *name,
                         const struct config_share *shares, size_t len)
{
    const struct config_field *f = config_key_in(name, "pool");

    for (size_t i = 0; i < len; i++)
        check_pool_name(k, config_line_of(k->c, &shares[i], f), name, shares[i].pool);
}

static void no_provider(const struct config_checker *k, unsigned line, const char *name,
                        const char *share, const char *site)
{
    struct suggest near;

    suggest_init(&near, str_of(site));
    for (size_t i = 0; i < k->c->providers_all; i++)
        suggest_offer(&near, k->c->providers[i].name);
    config_mistake(k, line, "%s['%s'].sites: there is no provider '%s'; %s%s%s", name, share, site,
                   near.best != NULL ? "did you mean '" : "",
                   near.best != NULL ? near.best : "'hayauma site list' has the names of sites",
                   near.best != NULL ? "'?" : "");
}

/* Sites that are no provider's have a dot or a colon in their names, but for the wild ones. */
static void check_share_sites(const struct config_checker *k, const char *name,
                              const struct config_share *share)
{
    const struct config_field *f = config_key_in(name, "sites");

    for (size_t i = 0; i < share->sites_len; i++) {
        const struct config_share_site *at = &share->sites[i];
        const struct config_share_site *first = config_share_at(share, str_of(at->site));
        unsigned line = config_line_of(k->c, at, f);

        if (first != at)
            config_mistake(
                k, line,
                "%s['%s'].sites: '%s' is never reached: '%s' already matches it; the first match "
                "wins",
                name, share->name, at->site, first->site);
        else if (at->site[0] != 0 && at->site[strlen(at->site) - 1] == '.')
            config_mistake(k, line,
                           "%s['%s'].sites: '%s' matches nothing: names of sites have no final dot",
                           name, share->name, at->site);
        else if (strpbrk(at->site, "*.:") == NULL &&
                 config_provider_find(k->c, str_of(at->site)) == NULL)
            no_provider(k, line, name, share->name, at->site);
    }
}

static void check_listeners(const struct config_checker *k)
{
    const struct config_field *own = config_key(&config_listener_schema, "pool"),
                              *clients = config_key(&config_listener_schema, "clients"),
                              *client = config_key(clients->section, "pool");

    for (size_t i = 0; i < k->c->listeners_len; i++) {
        const struct config_listener *l = &k->c->listeners[i];

        check_pool_name(k, config_line_of(k->c, l, own), "listeners: pool", l->pool);
        for (size_t j = 0; j < l->clients_len; j++)
            check_pool_name(k, config_line_of(k->c, &l->clients[j], client),
                            "listeners: clients: pool", l->clients[j].pool);
    }
}

static void check_senders(const struct config_checker *k)
{
    const struct config_field *senders = config_key(&config_schema, "senders"),
                              *pool = config_key(senders->section, "pool");
    const struct config_owner *owner = (const struct config_owner *)k->c;

    for (size_t i = 0; i < k->c->senders_len; i++) {
        const struct config_sender *s = &k->c->senders[i];
        bool wild = s->pattern[0] == '*' && s->pattern[1] != '\0';
        struct str below = str_of(wild ? s->pattern + 1 : s->pattern);
        uint32_t first = strcmp(s->pattern, "*") == 0
                             ? owner->senders.fallback
                             : config_index_find(&owner->senders, below, STR(""));

        check_pool_name(k, config_line_of(k->c, s, pool), "senders", s->pool);
        config_check_letters(k, s);
        if (first < i)
            config_mistake(
                k, config_line_of(k->c, s, senders),
                "senders: '%s' is never reached: '%s' already matches it; the first match wins",
                s->pattern, k->c->senders[first].pattern);
    }
}

void config_check_pools(const struct config *c,
                        void (*on_mistake)(void *arg, unsigned line, const char *what), void *arg)
{
    struct config_checker k = {c, on_mistake, arg};

    check_sources(&k);
    config_check_proxies(&k);
    check_use(&k);
    check_pools(&k);
    if (c->default_pool_name == NULL)
        config_mistake(&k, config_line_of(c, c, config_key(&config_schema, "pools")),
                       "several pools, and no default_pool; write default_pool: %s, or another",
                       c->pools->name);
    check_pool_name(&k, config_line_of(c, c, config_key(&config_schema, "default_pool")),
                    "default_pool", c->default_pool_name);
    check_shares(&k, "tenants", c->tenants, c->tenants_len);
    check_shares(&k, "campaigns", c->campaigns, c->campaigns_len);
    for (size_t i = 0; i < c->tenants_len; i++)
        check_share_sites(&k, "tenants", &c->tenants[i]);
    for (size_t i = 0; i < c->campaigns_len; i++)
        check_share_sites(&k, "campaigns", &c->campaigns[i]);
    check_senders(&k);
    check_listeners(&k);
}
