/* The two mappings whose keys are patterns: routes and destinations. */
#include <stdio.h>
#include <stdlib.h>

#include "config/config_walk.h"

/* One of two lists keyed by pattern. */
struct patterns {
    struct config_index *index;
    struct config_place *places; /* by position */
    size_t count;                /* of the file's keys */
    bool sites;
    const char *path;
};

/* The normal form of a key, or NULL with the error written. */
static char *load_pattern(struct config_loader *l, struct patterns *p, struct fy_node *key,
                          uint32_t position, struct config_place at)
{
    struct buf why = {0};
    struct str text = config_walk_text(key);
    uint32_t earlier;
    char *pattern;

    if (!fy_node_is_scalar(key) || fy_node_is_alias(key)) {
        config_complain(l, at, "%s: a pattern that starts with * needs quotes: \"*.example.com\"",
                        p->path);
        return NULL;
    }
    ASSERT(p->places != NULL && position < p->count);
    p->places[position] = at;
    pattern = config_pattern_normal(l->c, text, p->sites, &why);
    if (pattern == NULL) {
        config_complain(l, at, "%s: %.*s", p->path, STR_FMT(buf_str(&why)));
        buf_done(&why);
        return NULL;
    }
    earlier = config_index_add(l->c, p->index, pattern, position);
    if (earlier == CONFIG_NO_MATCH)
        return pattern;
    config_complain(l, at,
                    "%s: '%.*s' is never reached: line %d already matches it; the first match wins",
                    p->path, STR_FMT(text), p->places[earlier].line);
    return NULL;
}

static bool begin_patterns(struct config_loader *l, struct patterns *p, struct fy_node *node,
                           struct config_place at, size_t *count)
{
    if (!fy_node_is_mapping(node)) {
        config_complain(l, at, "%s takes a mapping from pattern to %s; write \"example.com: ...\"",
                        p->path, p->sites ? "settings" : "next hop");
        return false;
    }
    *count = (size_t)fy_node_mapping_item_count(node);
    p->count = *count;
    p->places = calloc(*count + 1, sizeof(*p->places));
    ASSERT(p->places != NULL);
    return true;
}

static void load_route(struct config_loader *l, struct config_route *route, struct fy_node *value,
                       struct config_place at)
{
    struct buf why = {0};

    if (value == NULL || !fy_node_is_scalar(value) || config_walk_empty(value))
        config_complain(
            l, at,
            "routes: '%s' takes a next hop; write \"[host]:port\", host, lmtp:unix:/path, "
            "mx or reject",
            route->pattern);
    else if (config_set_route(l->c, route, config_walk_text(value), &why) != 0)
        config_complain(l, config_place_of(value, at), "routes: %.*s", STR_FMT(buf_str(&why)));
    buf_done(&why);
}

void config_walk_routes(struct config_loader *l, struct fy_node *node, struct config_place at)
{
    struct config_owner *owner = (struct config_owner *)l->c;
    struct patterns p = {.index = &owner->routes, .path = "routes"};
    struct fy_node_pair *pair;
    void *i = NULL;
    size_t count;

    if (!begin_patterns(l, &p, node, at, &count))
        return;
    l->c->routes = config_alloc(l->c, count * sizeof(*l->c->routes));
    while ((pair = fy_node_mapping_iterate(node, &i)) != NULL) {
        struct config_place key_at = config_place_of(fy_node_pair_key(pair), at);
        uint32_t position = (uint32_t)l->c->routes_len;
        struct config_route *route = &l->c->routes[position];

        ASSERT(position < count);
        route->pattern = load_pattern(l, &p, fy_node_pair_key(pair), position, key_at);
        if (route->pattern == NULL)
            continue;
        l->c->routes_len++;
        route->line = (unsigned)key_at.line;
        load_route(l, route, config_walk_follow(l, fy_node_pair_value(pair), key_at), key_at);
    }
    free(p.places);
}

static void load_destination(struct config_loader *l, struct config_destination *d,
                             struct fy_node *value, struct config_place at)
{
    char path[PATH_BYTES];
    struct config_target t = {&config_destination_schema, d, path, at, 0};
    struct config_destination base = *d;

    snprintf(path, sizeof(path), "destinations['%.255s']", d->pattern);
    if (value != NULL)
        config_walk_section(l, &t, value);
    if (config_pattern_is_site(str_of(d->pattern)) &&
        (d->lifetime_s != base.lifetime_s || d->notice_lifetime_s != base.notice_lifetime_s))
        config_complain(l, at,
                        "%s: lifetimes count from acceptance, before the site is known; set them "
                        "for domains or \"*\"",
                        path);
}

static struct fy_node_pair *find_star(struct fy_node *node)
{
    struct fy_node_pair *pair;
    void *i = NULL;

    while ((pair = fy_node_mapping_iterate(node, &i)) != NULL) {
        struct fy_node *key = fy_node_pair_key(pair);

        if (fy_node_is_scalar(key) && !fy_node_is_alias(key) &&
            str_eq(config_walk_text(key), STR("*")))
            return pair;
    }
    return NULL;
}

/* "*" is read first, wherever it stands: the others start from its values. It becomes the last. */
void config_walk_destinations(struct config_loader *l, struct fy_node *node, struct config_place at)
{
    struct config_owner *owner = (struct config_owner *)l->c;
    struct config_destination *base = config_alloc(l->c, sizeof(*base));
    struct patterns p = {.index = &owner->destinations, .sites = true, .path = "destinations"};
    struct fy_node_pair *pair, *star;
    void *i = NULL;
    size_t count, n = 0;

    ASSERT(l->c->destinations_len == 1); /* "*" of the schema's defaults, that the file's follow */
    *base = l->c->destinations[0];
    owner->destinations_star = base;
    if (!begin_patterns(l, &p, node, at, &count))
        return;
    l->c->destinations = config_alloc(l->c, (count + 1) * sizeof(*l->c->destinations));
    star = find_star(node);
    owner->destinations.fallback = CONFIG_NO_MATCH;
    if (star != NULL) {
        struct config_place key_at = config_place_of(fy_node_pair_key(star), at);

        /* "*" is loaded before the patterns, so that a second "*" is told where the first is. */
        owner->destinations.fallback = (uint32_t)count;
        p.places[count] = key_at;
        load_destination(l, base, config_walk_follow(l, fy_node_pair_value(star), key_at), key_at);
    }
    while ((pair = fy_node_mapping_iterate(node, &i)) != NULL) {
        struct config_place key_at = config_place_of(fy_node_pair_key(pair), at);
        struct config_destination *d = &l->c->destinations[n];

        if (pair == star)
            continue;
        ASSERT(n < count);
        *d = *base;
        d->pattern = load_pattern(l, &p, fy_node_pair_key(pair), (uint32_t)n, key_at);
        if (d->pattern == NULL)
            continue;
        n++;
        config_note_line(l->c, d, config_key(&config_schema, "destinations"),
                         (unsigned)key_at.line);
        load_destination(l, d, config_walk_follow(l, fy_node_pair_value(pair), key_at), key_at);
    }
    l->c->destinations[n] = *base;
    l->c->destinations_len = n + 1;
    owner->destinations.fallback = (uint32_t)n;
    free(p.places);
}
