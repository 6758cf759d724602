/* A YAML document along the schema into members. All mistakes are collected. */
#include "config/config_walk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "config/suggest.h"

#define ERRORS_MAX      100
#define MERGE_DEPTH_MAX 8 /* of "<<" within "<<"; also ends an anchor that names itself */

/* A mapping or a part of it on its way into members. */
struct target {
    const struct config_section *section;
    void *base;
    const char *path;          /* "listeners[0]", "" at the top */
    struct config_place place; /* of what holds it */
    uint64_t seen;             /* fields given so far, by position */
};

void config_complain(struct config_loader *l, struct config_place at, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    l->errors_count++;
    if (l->errors_count > ERRORS_MAX)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    /* What was quoted from the file must not break the line. */
    for (char *p = text; *p != 0; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = '?';
    if (at.line != 0)
        buf_printf(l->errors, "%s:%d:%d: %s\n", l->file, at.line, at.column, text);
    else
        buf_printf(l->errors, "%s: %s\n", l->file, text);
    if (l->errors_count == ERRORS_MAX)
        buf_printf(l->errors, "%s: too many errors; further ones are not shown\n", l->file);
}

struct config_place config_place_of(struct fy_node *node, struct config_place fallback)
{
    struct fy_token *token;
    const struct fy_mark *mark;
    void *i = NULL;

    for (int depth = 0; node != NULL && depth < 4; depth++) {
        if (fy_node_is_mapping(node)) {
            struct fy_node_pair *pair = fy_node_mapping_iterate(node, &i);

            node = pair == NULL ? NULL : fy_node_pair_key(pair);
        } else if (fy_node_is_sequence(node)) {
            node = fy_node_sequence_iterate(node, &i);
        } else {
            break;
        }
        i = NULL;
    }
    token = node == NULL || !fy_node_is_scalar(node) ? NULL : fy_node_get_scalar_token(node);
    mark = token == NULL ? NULL : fy_token_start_mark(token);
    if (mark == NULL)
        return fallback;
    return (struct config_place){mark->line + 1, mark->column + 1};
}

static struct str scalar_text(struct fy_node *node)
{
    size_t len = 0;
    const char *text = fy_node_get_scalar(node, &len);

    return (struct str){text == NULL ? "" : text, text == NULL ? 0 : len};
}

/* Whether the value is missing: "key:" and nothing behind it. */
static bool is_empty(struct fy_node *node)
{
    return node == NULL || (fy_node_is_scalar(node) && !fy_node_is_alias(node) &&
                            fy_node_get_style(node) == FYNS_PLAIN && scalar_text(node).len == 0);
}

/* node, or what the alias stands for. NULL, with the error written, when there is no such anchor.
 */
static struct fy_node *follow(struct config_loader *l, struct fy_node *node, struct config_place at)
{
    struct str name;
    struct fy_node *target;

    if (node == NULL || !fy_node_is_alias(node))
        return node;
    target = fy_node_resolve_alias(node);
    if (target != NULL)
        return target;
    name = scalar_text(node);
    config_complain(
        l, config_place_of(node, at),
        "'*%.*s' names an anchor that is not in the file; a value that starts with * needs "
        "quotes",
        STR_FMT(name));
    return NULL;
}

/* "queue.path"; buffers of this size bound what an error can quote. */
#define PATH_BYTES 320

static const char *join(char out[PATH_BYTES], const char *path, struct str name)
{
    int n = name.len > 200 ? 200 : (int)name.len;

    snprintf(out, PATH_BYTES, "%.100s%s%.*s", path, *path == 0 ? "" : ".", n, name.ptr);
    return out;
}

/* --- values --- */

static void load_scalar(struct config_loader *l, const struct config_field *f, void *base,
                        struct fy_node *node, const char *path, struct config_place at)
{
    struct buf why = {0};

    if (!fy_node_is_scalar(node)) {
        config_complain(l, at, "%s takes one value, not a %s", path,
                        fy_node_is_mapping(node) ? "mapping" : "list");
        return;
    }
    if (config_set_scalar(l->c, f, base, scalar_text(node), &why) != 0)
        config_complain(l, at, "%s: %.*s", path, STR_FMT(buf_str(&why)));
    buf_done(&why);
}

/* Texts of a sequence, or of a scalar taken as a list of one. False with the error written. */
static bool list_texts(struct config_loader *l, struct fy_node *node, struct str *texts,
                       const char *path, struct config_place at)
{
    struct fy_node *item;
    void *i = NULL;
    size_t n = 0;

    if (fy_node_is_scalar(node)) {
        texts[0] = scalar_text(node);
        return true;
    }
    while ((item = fy_node_sequence_iterate(node, &i)) != NULL) {
        struct fy_node *value = follow(l, item, at);

        if (value == NULL)
            return false;
        if (!fy_node_is_scalar(value) || is_empty(value)) {
            config_complain(l, config_place_of(item, at), "%s[%zu] takes one value", path, n);
            return false;
        }
        texts[n++] = scalar_text(value);
    }
    return true;
}

static void load_list(struct config_loader *l, const struct config_field *f, void *base,
                      struct fy_node *node, const char *path, struct config_place at)
{
    size_t n = fy_node_is_sequence(node) ? (size_t)fy_node_sequence_item_count(node) : 1;
    struct buf why = {0};
    struct str *texts;
    size_t bad = 0;

    if (fy_node_is_mapping(node)) {
        config_complain(l, at, "%s takes a list, not a mapping; write %s: %s", path, f->name,
                        f->example != NULL ? f->example : "[...]");
        return;
    }
    texts = calloc(n + 1, sizeof(*texts));
    ASSERT(texts != NULL);
    if (list_texts(l, node, texts, path, at) &&
        config_set_list(l->c, f, base, texts, n, &why, &bad) != 0) {
        if (fy_node_is_sequence(node))
            at = config_place_of(fy_node_sequence_get_by_index(node, (int)bad), at);
        config_complain(l, at, "%s: %.*s", path, STR_FMT(buf_str(&why)));
    }
    buf_done(&why);
    free(texts);
}

static void load_section(struct config_loader *l, struct target *t, struct fy_node *node);

/* retry: a list of waits, or a section. What it says replaces the inherited kind of schedule. */
static void load_retry(struct config_loader *l, const struct config_field *f, void *base,
                       struct fy_node *node, const char *path, struct config_place at)
{
    const struct config_field *steps = config_field_find(f->section, STR("steps"));
    struct config_destination *d = base;
    struct target t = {f->section, base, path, at, 0};
    uint64_t steps_bit = UINT64_C(1) << (steps - f->section->fields);

    if (fy_node_is_sequence(node)) {
        load_list(l, steps, base, node, path, at);
        return;
    }
    load_section(l, &t, node);
    if (t.seen != 0 && (t.seen & steps_bit) == 0 && (d->retry_list_len != 0)) {
        const struct config_field *jitter = config_field_find(f->section, STR("jitter"));

        if (t.seen != UINT64_C(1) << (jitter - f->section->fields))
            d->retry_list_len = 0;
    }
    if (d->retry_first_s > d->retry_max_s)
        config_complain(l, at, "%s: 'first' is longer than 'max'", path);
}

/* --- lists and maps of sections --- */

static void *item_at(const struct config_field *f, void *base, size_t n)
{
    return *(char **)((char *)base + f->offset) + n * f->items->bytes;
}

/* Sets the key of a map's item. False with the error written. */
static bool load_key(struct config_loader *l, const struct config_field *f, void *item,
                     struct str text, const char *path, struct config_place at)
{
    void *key = (char *)item + f->items->key_offset;
    struct buf why = {0};
    int err = -EINVAL;

    switch (f->items->key) {
    case CONFIG_KEY_NETWORK:
        err = config_set_network(text, key, &why);
        break;
    case CONFIG_KEY_NAME:
        err = config_set_name(l->c, text, key, &why);
        break;
    }
    if (err != 0)
        config_complain(l, at, "%s: %.*s", path, STR_FMT(buf_str(&why)));
    buf_done(&why);
    return err == 0;
}

struct key_seen {
    struct map_node node;
    struct str text;
};

/* Keys that are written in two ways are one: what they are printed as counts. */
static bool is_new_key(struct config_loader *l, const struct config_field *f, const void *item,
                       struct map *seen)
{
    struct key_seen *k = config_alloc(l->c, sizeof(*k));
    struct buf text = {0};
    uint64_t hash;

    config_print_key(f, item, &text);
    k->text = str_of(config_dup(l->c, buf_str(&text)));
    buf_done(&text);
    hash = hash_bytes(k->text.ptr, k->text.len, 0);
    for (struct map_node *n = map_find(seen, hash); n != NULL; n = map_find_next(n))
        if (str_eq(CONTAINER_OF(n, struct key_seen, node)->text, k->text))
            return false;
    map_insert(seen, &k->node, hash);
    return true;
}

static void load_map(struct config_loader *l, const struct config_field *f, void *base,
                     struct fy_node *node, const char *path, struct config_place at)
{
    size_t *len = (size_t *)(void *)((char *)base + f->offset2);
    struct map seen;
    struct fy_node_pair *pair;
    void *i = NULL;
    int err = map_init(&seen, 64);

    ASSERT(err == 0);
    while ((pair = fy_node_mapping_iterate(node, &i)) != NULL) {
        struct fy_node *key = fy_node_pair_key(pair), *value;
        struct str text = fy_node_is_scalar(key) ? scalar_text(key) : STR("");
        char below[PATH_BYTES + INET6_ADDRSTRLEN + 24];
        struct target t = {f->section, item_at(f, base, *len), below, config_place_of(key, at), 0};

        if (!load_key(l, f, t.base, text, path, t.place))
            continue;
        if (!is_new_key(l, f, t.base, &seen))
            config_complain(l, t.place, "%s: '%.*s' is given twice", path, STR_FMT(text));
        ++*len;
        snprintf(below, sizeof(below), "%s['%.*s']", path, text.len > 64 ? 64 : (int)text.len,
                 text.ptr);
        config_set_defaults(l->c, f->section, t.base);
        value = follow(l, fy_node_pair_value(pair), t.place);
        if (value != NULL && !is_empty(value))
            load_section(l, &t, value);
    }
    map_done(&seen);
}

/* Two listeners on one address would share its connections at random (SO_REUSEPORT). */
static void check_unique(struct config_loader *l, const struct config_field *f, void *base,
                         size_t n, const char *path, struct config_place at)
{
    const struct config_field *u = config_field_find(f->section, str_of(f->items->unique));
    struct buf a = {0}, b = {0};

    config_print_member(u, item_at(f, base, n), &a);
    for (size_t i = 0; a.len != 0 && i < n; i++) {
        buf_clear(&b);
        config_print_member(u, item_at(f, base, i), &b);
        if (str_eq(buf_str(&a), buf_str(&b)))
            config_complain(l, at, "%s[%zu]: %.*s is taken by %s[%zu]", path, n,
                            STR_FMT(buf_str(&a)), path, i);
    }
    buf_done(&a);
    buf_done(&b);
}

static void load_sequence(struct config_loader *l, const struct config_field *f, void *base,
                          struct fy_node *node, const char *path, struct config_place at)
{
    size_t *len = (size_t *)(void *)((char *)base + f->offset2);
    struct fy_node *item;
    void *i = NULL;

    while ((item = fy_node_sequence_iterate(node, &i)) != NULL) {
        char below[PATH_BYTES + 24];
        struct target t = {f->section, item_at(f, base, *len), below, config_place_of(item, at), 0};

        snprintf(below, sizeof(below), "%s[%zu]", path, (*len)++);
        config_set_defaults(l->c, t.section, t.base);
        item = follow(l, item, at);
        if (item != NULL)
            load_section(l, &t, item);
        if (f->items->unique != NULL)
            check_unique(l, f, base, *len - 1, path, t.place);
    }
}

static void load_items(struct config_loader *l, const struct config_field *f, void *base,
                       struct fy_node *node, const char *path, struct config_place at)
{
    bool is_map = f->type == CONFIG_MAP;
    size_t n;
    char *items;

    if (is_map && !fy_node_is_mapping(node)) {
        config_complain(l, at, "%s takes a mapping from %s to settings; write %s", path,
                        f->items->key == CONFIG_KEY_NETWORK ? "network" : "name", f->items->write);
        return;
    }
    if (!is_map && !fy_node_is_sequence(node)) {
        config_complain(l, at, "%s takes a list; write %s", path, f->items->write);
        return;
    }
    n = (size_t)(is_map ? fy_node_mapping_item_count(node) : fy_node_sequence_item_count(node));
    if (f->items->max != 0 && n > f->items->max) {
        config_complain(l, at, "%s: %zu are too many, at most %zu", path, n, f->items->max);
        return;
    }
    items = config_alloc(l->c, (n + 1) * f->items->bytes);
    memcpy((char *)base + f->offset, &items, sizeof(items));
    memset((char *)base + f->offset2, 0, sizeof(size_t));
    if (is_map)
        load_map(l, f, base, node, path, at);
    else
        load_sequence(l, f, base, node, path, at);
}

/* One of two lists keyed by pattern. */
struct patterns {
    struct config_index *index;
    struct config_place *places; /* by position */
    bool sites;
    const char *path;
};

/* The normal form of a key, or NULL with the error written. */
static char *load_pattern(struct config_loader *l, struct patterns *p, struct fy_node *key,
                          uint32_t position, struct config_place at)
{
    struct buf why = {0};
    struct str text = scalar_text(key);
    uint32_t earlier;
    char *pattern;

    if (!fy_node_is_scalar(key) || fy_node_is_alias(key)) {
        config_complain(l, at, "%s: a pattern that starts with * needs quotes: \"*.example.com\"",
                        p->path);
        return NULL;
    }
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
    p->places = calloc(*count + 1, sizeof(*p->places));
    ASSERT(p->places != NULL);
    return true;
}

static void load_route(struct config_loader *l, struct config_route *route, struct fy_node *value,
                       struct config_place at)
{
    struct buf why = {0};

    if (value == NULL || !fy_node_is_scalar(value) || is_empty(value))
        config_complain(
            l, at,
            "routes: '%s' takes a next hop; write \"[host]:port\", host, lmtp:unix:/path, "
            "mx or reject",
            route->pattern);
    else if (config_set_route(l->c, route, scalar_text(value), &why) != 0)
        config_complain(l, config_place_of(value, at), "routes: %.*s", STR_FMT(buf_str(&why)));
    buf_done(&why);
}

static void load_routes(struct config_loader *l, struct fy_node *node, struct config_place at)
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

        route->pattern = load_pattern(l, &p, fy_node_pair_key(pair), position, key_at);
        if (route->pattern == NULL)
            continue;
        l->c->routes_len++;
        route->line = (unsigned)key_at.line;
        load_route(l, route, follow(l, fy_node_pair_value(pair), key_at), key_at);
    }
    free(p.places);
}

static void load_destination(struct config_loader *l, struct config_destination *d,
                             struct fy_node *value, struct config_place at)
{
    char path[PATH_BYTES];
    struct target t = {&config_destination_schema, d, path, at, 0};
    struct config_destination base = *d;

    snprintf(path, sizeof(path), "destinations['%.255s']", d->pattern);
    if (value != NULL)
        load_section(l, &t, value);
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

        if (fy_node_is_scalar(key) && !fy_node_is_alias(key) && str_eq(scalar_text(key), STR("*")))
            return pair;
    }
    return NULL;
}

/* "*" is read first, wherever it stands: the others start from its values. It becomes the last. */
static void load_destinations(struct config_loader *l, struct fy_node *node, struct config_place at)
{
    struct config_owner *owner = (struct config_owner *)l->c;
    struct config_destination *base = config_alloc(l->c, sizeof(*base));
    struct patterns p = {.index = &owner->destinations, .sites = true, .path = "destinations"};
    struct fy_node_pair *pair, *star;
    void *i = NULL;
    size_t count, n = 0;

    *base = l->c->destinations[0];
    owner->destinations_star = base;
    if (!begin_patterns(l, &p, node, at, &count))
        return;
    l->c->destinations = config_alloc(l->c, (count + 1) * sizeof(*l->c->destinations));
    star = find_star(node);
    owner->destinations.fallback = CONFIG_NO_MATCH;
    if (star != NULL) {
        struct config_place key_at = config_place_of(fy_node_pair_key(star), at);

        /* So that a second "*" is told where the first is. */
        owner->destinations.fallback = (uint32_t)count;
        p.places[count] = key_at;
        load_destination(l, base, follow(l, fy_node_pair_value(star), key_at), key_at);
    }
    while ((pair = fy_node_mapping_iterate(node, &i)) != NULL) {
        struct config_place key_at = config_place_of(fy_node_pair_key(pair), at);
        struct config_destination *d = &l->c->destinations[n];

        if (pair == star)
            continue;
        *d = *base;
        d->pattern = load_pattern(l, &p, fy_node_pair_key(pair), (uint32_t)n, key_at);
        if (d->pattern == NULL)
            continue;
        n++;
        load_destination(l, d, follow(l, fy_node_pair_value(pair), key_at), key_at);
    }
    l->c->destinations[n] = *base;
    l->c->destinations_len = n + 1;
    owner->destinations.fallback = (uint32_t)n;
    free(p.places);
}

static void load_value(struct config_loader *l, struct target *t, const struct config_field *f,
                       struct fy_node *node, const char *path, struct config_place at)
{
    struct target below = {f->section, t->base, path, at, 0};

    if (f->type == CONFIG_SECTION)
        load_section(l, &below, node);
    else if (f->type == CONFIG_RETRY)
        load_retry(l, f, t->base, node, path, at);
    else if (f->items != NULL)
        load_items(l, f, t->base, node, path, at);
    else if (f->type == CONFIG_ROUTES)
        load_routes(l, node, at);
    else if (f->type == CONFIG_DESTINATIONS)
        load_destinations(l, node, at);
    else if (config_field_is_list(f))
        load_list(l, f, t->base, node, path, config_place_of(node, at));
    else
        load_scalar(l, f, t->base, node, path, config_place_of(node, at));
}

/* --- keys --- */

/* Where else the schema has this key, as "queue.shards"; for a key under the wrong section. */
static const char *find_elsewhere(char out[PATH_BYTES], const struct config_section *s,
                                  const char *path, struct str name)
{
    char below[PATH_BYTES];

    for (size_t i = 0; i < s->len; i++) {
        const struct config_field *f = &s->fields[i];

        if (str_eq(name, str_of(f->name)))
            return join(out, path, name);
        if (f->section != NULL && f->section->len != 0 &&
            find_elsewhere(out, f->section, join(below, path, str_of(f->name)), name) != NULL)
            return out;
    }
    return NULL;
}

static void unknown_key(struct config_loader *l, const struct target *t, struct str name,
                        struct config_place at)
{
    char where[PATH_BYTES], text[PATH_BYTES];
    struct suggest s;

    suggest_init(&s, name);
    for (size_t i = 0; i < t->section->len; i++)
        suggest_offer(&s, t->section->fields[i].name);
    snprintf(text, sizeof(text), "unknown key '%.*s'%s%s", name.len > 100 ? 100 : (int)name.len,
             name.ptr, *t->path == 0 ? "" : " in ", t->path);
    if (s.best != NULL && s.distance == 0)
        config_complain(l, at, "%s; keys are written in lower case: '%s'", text, s.best);
    else if (s.best != NULL && s.distance <= 1)
        config_complain(l, at, "%s; did you mean '%s'?", text, s.best);
    else if (find_elsewhere(where, &config_schema, "", name) != NULL)
        config_complain(l, at, "%s; '%s' exists: is it meant?", text, where);
    else if (s.best != NULL)
        config_complain(l, at, "%s; did you mean '%s'?", text, s.best);
    else
        config_complain(l, at, "%s; see 'hayauma config docs' for what there is", text);
}

static void load_pair(struct config_loader *l, struct target *t, struct fy_node_pair *pair,
                      bool merged)
{
    struct fy_node *key = fy_node_pair_key(pair), *value = fy_node_pair_value(pair);
    struct config_place at = config_place_of(key, t->place);
    const struct config_field *f;
    char path[PATH_BYTES];
    struct str name;
    uint64_t bit;

    if (key == NULL || !fy_node_is_scalar(key) || fy_node_is_alias(key)) {
        config_complain(l, at, "a key must be a plain word");
        return;
    }
    name = scalar_text(key);
    if (t->section == &config_schema && name.len > 2 && memcmp(name.ptr, "x-", 2) == 0)
        return; /* a home for anchors */
    f = config_field_find(t->section, name);
    if (f == NULL) {
        unknown_key(l, t, name, at);
        return;
    }
    bit = UINT64_C(1) << (f - t->section->fields);
    join(path, t->path, name);
    if ((t->seen & bit) != 0) {
        if (!merged) /* the mapping's own keys win over merged ones */
            config_complain(l, at, "%s is given twice", path);
        return;
    }
    t->seen |= bit;
    config_note_line(l->c, t->base, f, (unsigned)at.line);
    if (is_empty(value) && f->type != CONFIG_SECTION) {
        config_complain(l, at, "%s has no value; give it one or remove the line", path);
        return;
    }
    value = is_empty(value) ? NULL : follow(l, value, at);
    if (value != NULL)
        load_value(l, t, f, value, path, at);
}

static bool is_merge_key(struct fy_node_pair *pair)
{
    struct fy_node *key = fy_node_pair_key(pair);

    return key != NULL && fy_node_is_scalar(key) && !fy_node_is_alias(key) &&
           fy_node_get_style(key) == FYNS_PLAIN && str_eq(scalar_text(key), STR("<<"));
}

static void load_pairs(struct config_loader *l, struct target *t, struct fy_node *map, int depth);

/* "<<: *anchor" or "<<: [*a, *b]". */
static void load_merge(struct config_loader *l, struct target *t, struct fy_node *value,
                       struct config_place at, int depth)
{
    struct fy_node *node = follow(l, value, at), *item;
    void *i = NULL;

    if (node == NULL)
        return;
    if (depth >= MERGE_DEPTH_MAX) {
        config_complain(l, at, "'<<' is nested too deeply");
    } else if (fy_node_is_mapping(node)) {
        load_pairs(l, t, node, depth + 1);
    } else if (fy_node_is_sequence(node)) {
        while ((item = fy_node_sequence_iterate(node, &i)) != NULL)
            load_merge(l, t, item, at, depth + 1);
    } else {
        config_complain(l, at, "'<<' takes a mapping; write \"<<: *anchor\"");
    }
}

static void load_pairs(struct config_loader *l, struct target *t, struct fy_node *map, int depth)
{
    struct fy_node_pair *pair;
    void *i = NULL;

    while ((pair = fy_node_mapping_iterate(map, &i)) != NULL)
        if (!is_merge_key(pair))
            load_pair(l, t, pair, depth > 0);
    i = NULL;
    while ((pair = fy_node_mapping_iterate(map, &i)) != NULL)
        if (is_merge_key(pair))
            load_merge(l, t, fy_node_pair_value(pair),
                       config_place_of(fy_node_pair_key(pair), t->place), depth);
}

static void load_section(struct config_loader *l, struct target *t, struct fy_node *node)
{
    const char *what = *t->path == 0 ? "the file" : t->path;

    if (!fy_node_is_mapping(node)) {
        config_complain(l, t->place, "%s takes keys; write \"key: value\" lines", what);
        return;
    }
    load_pairs(l, t, node, 0);
    for (size_t i = 0; i < t->section->len; i++)
        if (t->section->fields[i].required && (t->seen & (UINT64_C(1) << i)) == 0)
            config_complain(l, t->place, "%s lacks '%s'; write %s: %s", what,
                            t->section->fields[i].name, t->section->fields[i].name,
                            t->section->fields[i].example);
}

/* A double-quoted "\\0" is a NUL, behind which every reader of a value would see nothing. */
static void refuse_nul(struct config_loader *l, struct fy_node *node, struct config_place at)
{
    struct fy_node_pair *pair;
    struct fy_node *item;
    void *i = NULL;
    struct str text;

    at = config_place_of(node, at);
    if (node == NULL || fy_node_is_alias(node))
        return;
    if (fy_node_is_mapping(node)) {
        while ((pair = fy_node_mapping_iterate(node, &i)) != NULL) {
            refuse_nul(l, fy_node_pair_key(pair), at);
            refuse_nul(l, fy_node_pair_value(pair), at);
        }
    } else if (fy_node_is_sequence(node)) {
        while ((item = fy_node_sequence_iterate(node, &i)) != NULL)
            refuse_nul(l, item, at);
    } else {
        text = scalar_text(node);
        if (text.len != 0 && memchr(text.ptr, 0, text.len) != NULL)
            config_complain(l, at, "'%s\\0...': a NUL byte is part of no value", text.ptr);
    }
}

void config_walk(struct config_loader *l, struct fy_node *root)
{
    struct target top = {&config_schema, l->c, "", {1, 1}, 0};

    refuse_nul(l, root, top.place);
    if (!is_empty(root)) /* an empty file is all defaults */
        load_section(l, &top, root);
}
