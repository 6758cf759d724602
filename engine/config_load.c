/* The YAML file into a configuration. libfyaml is seen only here. All mistakes are collected; the
 * file is applied only when there is none. */
#include <errno.h>
#include <fcntl.h>
#include <libfyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/config_load.h"
#include "engine/config_private.h"
#include "engine/suggest.h"

#define FILE_BYTES_MAX  (64 * 1024 * 1024)
#define ERRORS_MAX      100
#define MERGE_DEPTH_MAX 8 /* of "<<" within "<<"; also ends an anchor that names itself */

struct place {
    int line, column; /* from 1; 0 = unknown */
};

struct loader {
    struct config *c;
    const char *file;
    struct buf *errors;
    unsigned errors_count;
};

/* A mapping or a part of it on its way into members. */
struct target {
    const struct config_section *section;
    void *base;
    const char *path;   /* "listeners[0]", "" at the top */
    struct place place; /* of what holds it */
    uint64_t seen;      /* fields given so far, by position */
};

static void __attribute__((format(printf, 3, 4)))
complain(struct loader *l, struct place at, const char *fmt, ...)
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

/* Where a node starts: its own mark, or that of the first scalar in it, or what holds it. */
static struct place place_of(struct fy_node *node, struct place fallback)
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
    return (struct place){mark->line + 1, mark->column + 1};
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
static struct fy_node *follow(struct loader *l, struct fy_node *node, struct place at)
{
    struct str name;
    struct fy_node *target;

    if (node == NULL || !fy_node_is_alias(node))
        return node;
    target = fy_node_resolve_alias(node);
    if (target != NULL)
        return target;
    name = scalar_text(node);
    complain(l, place_of(node, at),
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

static void load_scalar(struct loader *l, const struct config_field *f, void *base,
                        struct fy_node *node, const char *path, struct place at)
{
    struct buf why = {0};

    if (!fy_node_is_scalar(node)) {
        complain(l, at, "%s takes one value, not a %s", path,
                 fy_node_is_mapping(node) ? "mapping" : "list");
        return;
    }
    if (config_set_scalar(l->c, f, base, scalar_text(node), &why) != 0)
        complain(l, at, "%s: %.*s", path, STR_FMT(buf_str(&why)));
    buf_done(&why);
}

/* Texts of a sequence, or of a scalar taken as a list of one. False with the error written. */
static bool list_texts(struct loader *l, struct fy_node *node, struct str *texts, const char *path,
                       struct place at)
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
            complain(l, place_of(item, at), "%s[%zu] takes one value", path, n);
            return false;
        }
        texts[n++] = scalar_text(value);
    }
    return true;
}

static void load_list(struct loader *l, const struct config_field *f, void *base,
                      struct fy_node *node, const char *path, struct place at)
{
    size_t n = fy_node_is_sequence(node) ? (size_t)fy_node_sequence_item_count(node) : 1;
    struct buf why = {0};
    struct str *texts;
    size_t bad = 0;

    if (fy_node_is_mapping(node)) {
        complain(l, at, "%s takes a list, not a mapping; write %s: %s", path, f->name,
                 f->example != NULL ? f->example : "[...]");
        return;
    }
    texts = calloc(n + 1, sizeof(*texts));
    ASSERT(texts != NULL);
    if (list_texts(l, node, texts, path, at) &&
        config_set_list(l->c, f, base, texts, n, &why, &bad) != 0) {
        if (fy_node_is_sequence(node))
            at = place_of(fy_node_sequence_get_by_index(node, (int)bad), at);
        complain(l, at, "%s: %.*s", path, STR_FMT(buf_str(&why)));
    }
    buf_done(&why);
    free(texts);
}

static void load_section(struct loader *l, struct target *t, struct fy_node *node);

/* retry: a list of waits, or a section. What it says replaces the inherited kind of schedule. */
static void load_retry(struct loader *l, const struct config_field *f, void *base,
                       struct fy_node *node, const char *path, struct place at)
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
        complain(l, at, "%s: 'first' is longer than 'max'", path);
}

static void load_listeners(struct loader *l, struct fy_node *node, struct place at)
{
    struct fy_node *item;
    void *i = NULL;
    size_t n = 0;

    if (!fy_node_is_sequence(node)) {
        complain(l, at, "listeners takes a list; write \"- listen: 127.0.0.1:25\"");
        return;
    }
    l->c->listeners_len = (size_t)fy_node_sequence_item_count(node);
    l->c->listeners = config_alloc(l->c, l->c->listeners_len * sizeof(*l->c->listeners));
    while ((item = fy_node_sequence_iterate(node, &i)) != NULL) {
        char path[PATH_BYTES];
        struct target t = {&config_listener_schema, &l->c->listeners[n], path, place_of(item, at),
                           0};

        snprintf(path, sizeof(path), "listeners[%zu]", n++);
        config_set_defaults(l->c, t.section, t.base);
        item = follow(l, item, at);
        if (item != NULL)
            load_section(l, &t, item);
    }
}

/* One of two lists keyed by pattern. */
struct patterns {
    struct config_index *index;
    struct place *places; /* by position */
    bool sites;
    const char *path;
};

/* The normal form of a key, or NULL with the error written. */
static char *load_pattern(struct loader *l, struct patterns *p, struct fy_node *key,
                          uint32_t position, struct place at)
{
    struct buf why = {0};
    struct str text = scalar_text(key);
    uint32_t earlier;
    char *pattern;

    if (!fy_node_is_scalar(key) || fy_node_is_alias(key)) {
        complain(l, at, "%s: a pattern that starts with * needs quotes: \"*.example.com\"",
                 p->path);
        return NULL;
    }
    p->places[position] = at;
    pattern = config_pattern_normal(l->c, text, p->sites, &why);
    if (pattern == NULL) {
        complain(l, at, "%s: %.*s", p->path, STR_FMT(buf_str(&why)));
        buf_done(&why);
        return NULL;
    }
    earlier = config_index_add(l->c, p->index, pattern, position);
    if (earlier == CONFIG_NO_MATCH)
        return pattern;
    complain(l, at, "%s: '%.*s' is never reached: line %d already matches it; the first match wins",
             p->path, STR_FMT(text), p->places[earlier].line);
    return NULL;
}

static bool begin_patterns(struct loader *l, struct patterns *p, struct fy_node *node,
                           struct place at, size_t *count)
{
    if (!fy_node_is_mapping(node)) {
        complain(l, at, "%s takes a mapping from pattern to %s; write \"example.com: ...\"",
                 p->path, p->sites ? "settings" : "next hop");
        return false;
    }
    *count = (size_t)fy_node_mapping_item_count(node);
    p->places = calloc(*count + 1, sizeof(*p->places));
    ASSERT(p->places != NULL);
    return true;
}

static void load_route(struct loader *l, struct config_route *route, struct fy_node *value,
                       struct place at)
{
    struct buf why = {0};

    if (value == NULL || !fy_node_is_scalar(value) || is_empty(value))
        complain(l, at,
                 "routes: '%s' takes a next hop; write \"[host]:port\", host, lmtp:unix:/path, "
                 "mx or reject",
                 route->pattern);
    else if (config_set_route(l->c, route, scalar_text(value), &why) != 0)
        complain(l, place_of(value, at), "routes: %.*s", STR_FMT(buf_str(&why)));
    buf_done(&why);
}

static void load_routes(struct loader *l, struct fy_node *node, struct place at)
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
        struct place key_at = place_of(fy_node_pair_key(pair), at);
        uint32_t position = (uint32_t)l->c->routes_len;
        struct config_route *route = &l->c->routes[position];

        route->pattern = load_pattern(l, &p, fy_node_pair_key(pair), position, key_at);
        if (route->pattern == NULL)
            continue;
        l->c->routes_len++;
        load_route(l, route, follow(l, fy_node_pair_value(pair), key_at), key_at);
    }
    free(p.places);
}

static void load_destination(struct loader *l, struct config_destination *d, struct fy_node *value,
                             struct place at)
{
    char path[PATH_BYTES];
    struct target t = {&config_destination_schema, d, path, at, 0};

    snprintf(path, sizeof(path), "destinations['%.255s']", d->pattern);
    if (value != NULL)
        load_section(l, &t, value);
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
static void load_destinations(struct loader *l, struct fy_node *node, struct place at)
{
    struct config_owner *owner = (struct config_owner *)l->c;
    struct config_destination base = l->c->destinations[0];
    struct patterns p = {.index = &owner->destinations, .sites = true, .path = "destinations"};
    struct fy_node_pair *pair, *star;
    void *i = NULL;
    size_t count, n = 0;

    if (!begin_patterns(l, &p, node, at, &count))
        return;
    l->c->destinations = config_alloc(l->c, (count + 1) * sizeof(*l->c->destinations));
    star = find_star(node);
    owner->destinations.fallback = CONFIG_NO_MATCH;
    if (star != NULL) {
        struct place key_at = place_of(fy_node_pair_key(star), at);

        /* So that a second "*" is told where the first is. */
        owner->destinations.fallback = (uint32_t)count;
        p.places[count] = key_at;
        load_destination(l, &base, follow(l, fy_node_pair_value(star), key_at), key_at);
    }
    while ((pair = fy_node_mapping_iterate(node, &i)) != NULL) {
        struct place key_at = place_of(fy_node_pair_key(pair), at);
        struct config_destination *d = &l->c->destinations[n];

        if (pair == star)
            continue;
        *d = base;
        d->pattern = load_pattern(l, &p, fy_node_pair_key(pair), (uint32_t)n, key_at);
        if (d->pattern == NULL)
            continue;
        n++;
        load_destination(l, d, follow(l, fy_node_pair_value(pair), key_at), key_at);
    }
    l->c->destinations[n] = base;
    l->c->destinations_len = n + 1;
    owner->destinations.fallback = (uint32_t)n;
    free(p.places);
}

static void load_value(struct loader *l, struct target *t, const struct config_field *f,
                       struct fy_node *node, const char *path, struct place at)
{
    struct target below = {f->section, t->base, path, at, 0};

    if (f->type == CONFIG_SECTION)
        load_section(l, &below, node);
    else if (f->type == CONFIG_RETRY)
        load_retry(l, f, t->base, node, path, at);
    else if (f->type == CONFIG_LISTENERS)
        load_listeners(l, node, at);
    else if (f->type == CONFIG_ROUTES)
        load_routes(l, node, at);
    else if (f->type == CONFIG_DESTINATIONS)
        load_destinations(l, node, at);
    else if (config_field_is_list(f))
        load_list(l, f, t->base, node, path, place_of(node, at));
    else
        load_scalar(l, f, t->base, node, path, place_of(node, at));
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

static void unknown_key(struct loader *l, const struct target *t, struct str name, struct place at)
{
    char where[PATH_BYTES], text[PATH_BYTES];
    struct suggest s;

    suggest_init(&s, name);
    for (size_t i = 0; i < t->section->len; i++)
        suggest_offer(&s, t->section->fields[i].name);
    snprintf(text, sizeof(text), "unknown key '%.*s'%s%s", name.len > 100 ? 100 : (int)name.len,
             name.ptr, *t->path == 0 ? "" : " in ", t->path);
    if (s.best != NULL && s.distance == 0)
        complain(l, at, "%s; keys are written in lower case: '%s'", text, s.best);
    else if (s.best != NULL && s.distance <= 1)
        complain(l, at, "%s; did you mean '%s'?", text, s.best);
    else if (find_elsewhere(where, &config_schema, "", name) != NULL)
        complain(l, at, "%s; '%s' exists: is it meant?", text, where);
    else if (s.best != NULL)
        complain(l, at, "%s; did you mean '%s'?", text, s.best);
    else
        complain(l, at, "%s; see 'hayauma config docs' for what there is", text);
}

static void load_pair(struct loader *l, struct target *t, struct fy_node_pair *pair, bool merged)
{
    struct fy_node *key = fy_node_pair_key(pair), *value = fy_node_pair_value(pair);
    struct place at = place_of(key, t->place);
    const struct config_field *f;
    char path[PATH_BYTES];
    struct str name;
    uint64_t bit;

    if (key == NULL || !fy_node_is_scalar(key) || fy_node_is_alias(key)) {
        complain(l, at, "a key must be a plain word");
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
            complain(l, at, "%s is given twice", path);
        return;
    }
    t->seen |= bit;
    if (is_empty(value) && f->type != CONFIG_SECTION) {
        complain(l, at, "%s has no value; give it one or remove the line", path);
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

static void load_pairs(struct loader *l, struct target *t, struct fy_node *map, int depth);

/* "<<: *anchor" or "<<: [*a, *b]". */
static void load_merge(struct loader *l, struct target *t, struct fy_node *value, struct place at,
                       int depth)
{
    struct fy_node *node = follow(l, value, at), *item;
    void *i = NULL;

    if (node == NULL)
        return;
    if (depth >= MERGE_DEPTH_MAX) {
        complain(l, at, "'<<' is nested too deeply");
    } else if (fy_node_is_mapping(node)) {
        load_pairs(l, t, node, depth + 1);
    } else if (fy_node_is_sequence(node)) {
        while ((item = fy_node_sequence_iterate(node, &i)) != NULL)
            load_merge(l, t, item, at, depth + 1);
    } else {
        complain(l, at, "'<<' takes a mapping; write \"<<: *anchor\"");
    }
}

static void load_pairs(struct loader *l, struct target *t, struct fy_node *map, int depth)
{
    struct fy_node_pair *pair;
    void *i = NULL;

    while ((pair = fy_node_mapping_iterate(map, &i)) != NULL)
        if (!is_merge_key(pair))
            load_pair(l, t, pair, depth > 0);
    i = NULL;
    while ((pair = fy_node_mapping_iterate(map, &i)) != NULL)
        if (is_merge_key(pair))
            load_merge(l, t, fy_node_pair_value(pair), place_of(fy_node_pair_key(pair), t->place),
                       depth);
}

static void load_section(struct loader *l, struct target *t, struct fy_node *node)
{
    const char *what = *t->path == 0 ? "the file" : t->path;

    if (!fy_node_is_mapping(node)) {
        complain(l, t->place, "%s takes keys; write \"key: value\" lines", what);
        return;
    }
    load_pairs(l, t, node, 0);
    for (size_t i = 0; i < t->section->len; i++)
        if (t->section->fields[i].required && (t->seen & (UINT64_C(1) << i)) == 0)
            complain(l, t->place, "%s lacks '%s'; write %s: %s", what, t->section->fields[i].name,
                     t->section->fields[i].name, t->section->fields[i].example);
}

/* --- the file --- */

/* Whether the first thing on a line (from 1) is '*', which YAML takes for an alias. */
static bool starts_with_star(struct str text, int line)
{
    for (int i = 1; i < line; i++) {
        ptrdiff_t end = str_find(text, '\n');

        if (end < 0)
            return false;
        text = (struct str){text.ptr + end + 1, text.len - (size_t)end - 1};
    }
    text = str_trim(text);
    return text.len != 0 && text.ptr[0] == '*';
}

static void syntax_errors(struct loader *l, struct fy_diag *diag, struct str text)
{
    struct fy_diag_error *e;
    void *i = NULL;
    bool any = false;

    while ((e = fy_diag_errors_iterate(diag, &i)) != NULL) {
        struct place at = {e->line, e->column};
        const char *hint = "";

        if (strstr(e->msg, "tab character") != NULL)
            hint = "; indent with spaces";
        else if (strstr(e->msg, "nested block mapping on the same line") != NULL)
            hint = "; a value with ': ' needs quotes";
        else if (starts_with_star(text, e->line))
            hint = "; a pattern that starts with * needs quotes: \"*.example.com\"";
        complain(l, at, "YAML: %s%s", e->msg, hint);
        any = true;
    }
    if (!any)
        complain(l, (struct place){0}, "this is not YAML");
}

static void ignore_output(struct fy_diag *diag, void *user, const char *text, size_t len)
{
    (void)diag, (void)user, (void)text, (void)len;
}

static void load_document(struct loader *l, struct fy_parser *parser, struct fy_diag *diag,
                          struct str text)
{
    struct fy_document *doc = fy_parse_load_document(parser), *more;
    struct fy_node *root = doc == NULL ? NULL : fy_document_root(doc);
    struct target top = {&config_schema, l->c, "", {1, 1}, 0};

    if (doc == NULL && fy_diag_got_error(diag))
        syntax_errors(l, diag, text);
    else if (!is_empty(root)) /* an empty file is all defaults */
        load_section(l, &top, root);
    more = doc == NULL ? NULL : fy_parse_load_document(parser);
    if (more != NULL)
        complain(l, place_of(fy_document_root(more), (struct place){0}),
                 "a second document ('---'): the file is one");
    else if (doc != NULL && fy_diag_got_error(diag))
        syntax_errors(l, diag, text);
    fy_parse_document_destroy(parser, more);
    fy_parse_document_destroy(parser, doc);
}

static void load_yaml(struct loader *l, struct str text)
{
    struct fy_diag_cfg diag_cfg;
    struct fy_parse_cfg cfg = {.flags = FYPCF_ALLOW_DUPLICATE_KEYS};
    struct fy_diag *diag;
    struct fy_parser *parser;

    fy_diag_cfg_default(&diag_cfg);
    diag_cfg.fp = NULL;
    diag_cfg.output_fn = ignore_output;
    diag_cfg.level = FYET_ERROR;
    diag_cfg.colorize = false;
    diag = fy_diag_create(&diag_cfg);
    ASSERT(diag != NULL);
    fy_diag_set_collect_errors(diag, true);
    cfg.diag = diag;
    parser = fy_parser_create(&cfg);
    ASSERT(parser != NULL);
    if (fy_parser_set_string(parser, text.ptr, text.len) != 0)
        complain(l, (struct place){0}, "this is not YAML");
    else
        load_document(l, parser, diag, text);
    fy_parser_destroy(parser);
    fy_diag_destroy(diag);
}

int config_load_text(const char *file, struct str text, struct config **out, struct buf *errors)
{
    struct loader l = {.c = config_new_default(), .file = file, .errors = errors};
    const char *nul = text.len == 0 ? NULL : memchr(text.ptr, 0, text.len);

    l.c->file = config_dup(l.c, str_of(file));
    if (nul != NULL)
        complain(&l, (struct place){0}, "a NUL byte at offset %td: this is no text file",
                 nul - text.ptr);
    else if (text.len != 0)
        load_yaml(&l, text);
    if (l.errors_count != 0) {
        config_unref(l.c);
        return -EINVAL;
    }
    config_finish(l.c);
    *out = l.c;
    return 0;
}

/* The whole of a file. 0 or -errno. */
static int read_file(const char *file, struct buf *text)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC), err = 0;
    ssize_t n = 1;

    if (fd < 0)
        return -errno;
    while (err == 0 && n > 0) {
        err = text->len > FILE_BYTES_MAX ? -EFBIG : buf_reserve(text, 64 * 1024);
        if (err != 0)
            break;
        n = read(fd, text->data + text->len, 64 * 1024);
        if (n < 0)
            err = errno == EINTR ? 0 : -errno;
        else
            text->len += (size_t)n;
        if (n < 0 && err == 0)
            n = 1;
    }
    close(fd);
    return err;
}

int config_load(const char *file, struct config **out, struct buf *errors)
{
    struct buf text = {0};
    int err = read_file(file, &text);

    if (err != 0)
        buf_printf(errors, "%s: cannot be read: %s\n", file, strerror(-err));
    else
        err = config_load_text(file, buf_str(&text), out, errors);
    buf_done(&text);
    return err;
}
