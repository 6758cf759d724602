/* Sequences and mappings of sections into arrays of structs. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "config/config_walk.h"

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

    ASSERT(f->type == CONFIG_MAP);
    switch (f->items->key) {
    case CONFIG_KEY_NETWORK:
        err = config_set_network(text, key, &why);
        break;
    case CONFIG_KEY_NAME_OR_ALL:
        if (str_eq(text, STR("*"))) {
            *(char **)key = config_dup(l->c, text);
            err = 0;
            break;
        }
        err = config_set_name(l->c, text, key, &why);
        break;
    case CONFIG_KEY_NAME:
        err = config_set_name(l->c, text, key, &why);
        break;
    case CONFIG_KEY_SITE:
        err = text.len == 0 ? -EINVAL : 0;
        if (err != 0)
            buf_puts(&why, "'' is not the name of a site; write google, or \"*.example.net\"");
        *(char **)key = config_dup(l->c, text);
        break;
    case CONFIG_KEY_PATTERN:
        *(char **)key = config_pattern_normal(l->c, text, false, &why);
        err = *(char **)key == NULL ? -EINVAL : 0;
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
                     struct fy_node *node, size_t room, const char *path, struct config_place at)
{
    size_t *len = (size_t *)(void *)((char *)base + f->offset2);
    struct map seen;
    struct fy_node_pair *pair;
    void *i = NULL;
    int err = map_init(&seen, 64);

    ASSERT(err == 0);
    while ((pair = fy_node_mapping_iterate(node, &i)) != NULL) {
        struct fy_node *key = fy_node_pair_key(pair), *value;
        struct str text = fy_node_is_scalar(key) ? config_walk_text(key) : STR("");
        char below[PATH_BYTES + INET6_ADDRSTRLEN + 24];
        struct config_target t = {f->section, item_at(f, base, *len), below,
                                  config_place_of(key, at), 0};

        ASSERT(*len < room);
        if (!load_key(l, f, t.base, text, path, t.place))
            continue;
        if (!is_new_key(l, f, t.base, &seen))
            config_complain(l, t.place, "%s: '%.*s' is given twice", path, STR_FMT(text));
        config_note_line(l->c, t.base, f, (unsigned)t.place.line);
        ++*len;
        snprintf(below, sizeof(below), "%s['%.*s']", path, text.len > 64 ? 64 : (int)text.len,
                 text.ptr);
        config_set_defaults(l->c, f->section, t.base);
        value = config_walk_follow(l, fy_node_pair_value(pair), t.place);
        if (value != NULL && !config_walk_empty(value))
            config_walk_section(l, &t, value);
    }
    map_done(&seen);
}

/* Two listeners on one address would share its connections at random (SO_REUSEPORT). */
static void check_unique(struct config_loader *l, const struct config_field *f, void *base,
                         size_t n, const char *path, struct config_place at)
{
    const struct config_field *u = config_key(f->section, f->items->unique);
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
                          struct fy_node *node, size_t room, const char *path,
                          struct config_place at)
{
    size_t *len = (size_t *)(void *)((char *)base + f->offset2);
    struct fy_node *item;
    void *i = NULL;

    while ((item = fy_node_sequence_iterate(node, &i)) != NULL) {
        char below[PATH_BYTES + 24];
        struct config_target t = {f->section, item_at(f, base, *len), below,
                                  config_place_of(item, at), 0};

        ASSERT(*len < room);
        snprintf(below, sizeof(below), "%s[%zu]", path, (*len)++);
        config_set_defaults(l->c, t.section, t.base);
        item = config_walk_follow(l, item, at);
        if (item != NULL)
            config_walk_section(l, &t, item);
        if (f->items->unique != NULL)
            check_unique(l, f, base, *len - 1, path, t.place);
    }
}

void config_walk_items(struct config_loader *l, const struct config_field *f, void *base,
                       struct fy_node *node, const char *path, struct config_place at)
{
    bool is_map = f->type == CONFIG_MAP;
    size_t n;
    char *items;

    ASSERT(f->items != NULL && f->items->bytes > 0 && f->section != NULL);
    if (is_map && !fy_node_is_mapping(node)) {
        static const char *const keys[] = {[CONFIG_KEY_NAME] = "name",
                                           [CONFIG_KEY_NAME_OR_ALL] = "name",
                                           [CONFIG_KEY_PATTERN] = "pattern",
                                           [CONFIG_KEY_SITE] = "site",
                                           [CONFIG_KEY_NETWORK] = "network"};

        config_complain(l, at, "%s takes a mapping from %s to settings; write %s", path,
                        keys[f->items->key], f->items->write);
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
    items = config_alloc(l->c, (n + 1 + f->items->room) * f->items->bytes);
    memcpy((char *)base + f->offset, &items, sizeof(items));
    memset((char *)base + f->offset2, 0, sizeof(size_t));
    if (is_map)
        load_map(l, f, base, node, n, path, at);
    else
        load_sequence(l, f, base, node, n, path, at);
}
