/* A YAML document along the schema into members. All mistakes are collected. */
#include "config/config_walk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/sockaddr.h"
#include "base/suggest.h"

#define ERRORS_MAX      100
#define MERGE_DEPTH_MAX 8 /* of "<<" within "<<"; also ends an anchor that names itself */

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
        if (ascii_is_control(*p))
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

struct str config_walk_text(struct fy_node *node)
{
    size_t len = 0;
    const char *text = fy_node_get_scalar(node, &len);

    return (struct str){text == NULL ? "" : text, text == NULL ? 0 : len};
}

bool config_walk_empty(struct fy_node *node)
{
    return node == NULL ||
           (fy_node_is_scalar(node) && !fy_node_is_alias(node) &&
            fy_node_get_style(node) == FYNS_PLAIN && config_walk_text(node).len == 0);
}

struct fy_node *config_walk_follow(struct config_loader *l, struct fy_node *node,
                                   struct config_place at)
{
    struct str name;
    struct fy_node *target;

    if (node == NULL || !fy_node_is_alias(node))
        return node;
    target = fy_node_resolve_alias(node);
    if (target != NULL)
        return target;
    name = config_walk_text(node);
    config_complain(
        l, config_place_of(node, at),
        "'*%.*s' names an anchor that is not in the file; a value that starts with * needs "
        "quotes",
        STR_FMT(name));
    return NULL;
}

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
    if (config_set_scalar(l->c, f, base, config_walk_text(node), &why) != 0)
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
        texts[0] = config_walk_text(node);
        return true;
    }
    while ((item = fy_node_sequence_iterate(node, &i)) != NULL) {
        struct fy_node *value = config_walk_follow(l, item, at);

        if (value == NULL)
            return false;
        if (!fy_node_is_scalar(value) || config_walk_empty(value)) {
            config_complain(l, config_place_of(item, at), "%s[%zu] takes one value", path, n);
            return false;
        }
        texts[n++] = config_walk_text(value);
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

/* retry is a list of waits, or a section. A section without steps that sets more than jitter
 * replaces an inherited list of waits. */
static void load_retry(struct config_loader *l, const struct config_field *f, void *base,
                       struct fy_node *node, const char *path, struct config_place at)
{
    const struct config_field *steps = config_key(f->section, "steps");
    struct config_destination *d = base;
    struct config_target t = {f->section, base, path, at, 0};
    uint64_t steps_bit = UINT64_C(1) << (steps - f->section->fields);

    size_t len = 0;

    /* A list, or one value for a list of one. */
    if (fy_node_is_sequence(node) ||
        (fy_node_is_scalar(node) && fy_node_get_scalar(node, &len) != NULL && len > 0)) {
        load_list(l, steps, base, node, path, at);
        return;
    }
    config_walk_section(l, &t, node);
    if (t.seen != 0 && (t.seen & steps_bit) == 0 && (d->retry_list_len != 0)) {
        const struct config_field *jitter = config_key(f->section, "jitter");

        if (t.seen != UINT64_C(1) << (jitter - f->section->fields))
            d->retry_list_len = 0;
    }
    if (d->retry_first_s > d->retry_max_s)
        config_complain(l, at, "%s: 'first' is longer than 'max'", path);
}

static void load_value(struct config_loader *l, struct config_target *t,
                       const struct config_field *f, struct fy_node *node, const char *path,
                       struct config_place at)
{
    struct config_target below = {f->section, t->base, path, at, 0};

    if (f->type == CONFIG_SECTION)
        config_walk_section(l, &below, node);
    else if (f->type == CONFIG_RETRY)
        load_retry(l, f, t->base, node, path, at);
    else if (f->items != NULL)
        config_walk_items(l, f, t->base, node, path, at);
    else if (f->type == CONFIG_ROUTES)
        config_walk_routes(l, node, at);
    else if (f->type == CONFIG_DESTINATIONS)
        config_walk_destinations(l, node, at);
    else if (config_field_is_list(f))
        load_list(l, f, t->base, node, path, config_place_of(node, at));
    else
        load_scalar(l, f, t->base, node, path, config_place_of(node, at));
}

/* --- keys --- */

/* Where else the schema has this key, for one under the wrong section: "sources, destinations".
 * What lies in sections is told with all sections around it. How many these are. */
static unsigned find_elsewhere(struct buf *out, const struct config_section *s, const char *path,
                               struct str name)
{
    char below[PATH_BYTES];
    unsigned found = 0;

    for (size_t i = 0; i < s->len; i++) {
        const struct config_field *f = &s->fields[i];

        if (str_eq(name, str_of(f->name))) {
            buf_printf(out, "%s%s", out->len == 0 ? "" : ", ", *path == 0 ? "the file" : path);
            found++;
        } else if (f->section != NULL && f->section->len != 0) {
            found += find_elsewhere(out, f->section, join(below, path, str_of(f->name)), name);
        }
    }
    return found;
}

/* For a key like none of `section`: the keys that there are, as many as one line shows. */
static void complain_with_keys(struct config_loader *l, const struct config_section *section,
                               struct config_place at, const char *text)
{
    char keys[PATH_BYTES] = "";
    size_t used = 0, i = 0;

    for (; i < section->len && used + strlen(section->fields[i].name) + 2 < sizeof(keys); i++)
        used += (size_t)snprintf(keys + used, sizeof(keys) - used, "%s%s", i == 0 ? "" : ", ",
                                 section->fields[i].name);
    config_complain(l, at, "%s; keys here: %s%s (see 'hayauma config docs')", text, keys,
                    i < section->len ? ", ..." : "");
}

/* What other mail servers call it: whoever comes from one begins with these. */
static const char *const foreign[][2] = {
    {"always_allow_relaying", "relay_networks, of a listener"},
    {"bounce_after", "lifetime, of destinations"},
    {"connection_limit", "sessions_max (of each source), total_sessions_max (of all)"},
    {"default_destination_concurrency_limit", "sessions_max, of destinations"},
    {"default_destination_recipient_limit", "recipients_max, of destinations"},
    {"domain_key", "dkim: {keys: [...]}"},
    {"egress_pool", "pools"},
    {"egress_source", "sources"},
    {"inet_interfaces", "listeners: [{listen: ...}]"},
    {"max_age", "lifetime, of destinations"},
    {"max_connect_rate", "connect_rate (of each source), total_connect_rate (of all)"},
    {"max_connection_rate", "connect_rate, of destinations"},
    {"max_deliveries_per_connection", "session_messages_max, of destinations"},
    {"max_message_rate", "rate (of each source), total_rate (of all)"},
    {"max_msg_per_connection", "session_messages_max, of destinations"},
    {"max_msg_rate", "rate (of each source), total_rate (of all)"},
    {"max_rcpt_per_message", "recipients_max, of destinations"},
    {"max_smtp_out", "sessions_max (of each source), total_sessions_max (of all)"},
    {"maximal_queue_lifetime", "lifetime, of destinations"},
    {"message_size_limit", "message_size_max, of a listener"},
    {"minimal_backoff_time", "retry, of destinations"},
    {"mydestination", "nothing: no mail is local"},
    {"myhostname", "host_name"},
    {"mynetworks", "relay_networks, of a listener"},
    {"queue_directory", "queue: {path: ...}"},
    {"relay_hosts", "relay_networks, of a listener"},
    {"relayhost", "routes: {\"*\": \"[host]:port\"}"},
    {"retry_after", "retry, of destinations"},
    {"smtp_bind_address", "sources: {NAME: {ipv4: ...}}"},
    {"smtp_helo_name", "sources: {NAME: {ehlo_name: ...}}"},
    {"smtp_sasl_password_maps", "credentials_file"},
    {"smtp_source_host", "sources: {NAME: {ipv4: ..., ehlo_name: ...}}"},
    {"smtp_tls_security_level", "tls, of destinations"},
    {"smtpd_sasl_auth_enable", "auth, of a listener"},
    {"smtpd_tls_cert_file", "certificates"},
    {"smtpd_tls_security_level", "tls, of a listener"},
    {"transport_maps", "routes"},
    {"virtual_mta", "sources"},
    {"virtual_mta_pool", "pools"},
};

/* NULL: nobody's. PowerMTA writes '-' where others write '_'. */
static const char *find_foreign(struct str name)
{
    char word[SUGGEST_WORD_MAX];

    if (name.len >= sizeof(word))
        return NULL;
    for (size_t i = 0; i < name.len; i++)
        word[i] = name.ptr[i] == '-' ? '_' : name.ptr[i];
    for (size_t i = 0; i < ARRAY_LEN(foreign); i++)
        if (str_eq_nocase((struct str){word, name.len}, str_of(foreign[i][0])))
            return foreign[i][1];
    return NULL;
}

static void unknown_key(struct config_loader *l, const struct config_target *t, struct str name,
                        struct config_place at)
{
    const char *ours = find_foreign(name);
    struct buf where = {0};
    char text[PATH_BYTES];
    unsigned places;
    struct suggest s;

    if (t->section == &config_schema && str_eq(name, STR("source"))) {
        config_complain(l, at,
                        "'source' is 'sources' now, with a name for each; write sources: {main: "
                        "{ipv4: 192.0.2.10, ehlo_name: mail.example.com}}");
        return;
    }
    suggest_init(&s, name);
    for (size_t i = 0; i < t->section->len; i++)
        suggest_offer(&s, t->section->fields[i].name);
    places = find_elsewhere(&where, &config_schema, "", name);
    snprintf(text, sizeof(text), "unknown key '%.*s'%s%s", name.len > 100 ? 100 : (int)name.len,
             name.ptr, *t->path == 0 ? "" : " in ", t->path);
    if (ours != NULL)
        config_complain(l, at, "%s; here it is %s", text, ours);
    else if (name.len > 3 && memcmp(name.ptr, "\xe3\x80\x80", 3) == 0)
        config_complain(l, at, "%s; it begins with a full-width blank: indent with spaces", text);
    else if (s.best != NULL && s.distance == 0)
        config_complain(l, at, "%s; keys are written in lower case: '%s'", text, s.best);
    else if (s.best != NULL && s.distance <= 1)
        config_complain(l, at, "%s; did you mean '%s'?%s%.*s", text, s.best,
                        places == 0 ? "" : " It is a key of ", STR_FMT(buf_str(&where)));
    else if (places == 1)
        config_complain(l, at, "%s; it is a key of %.*s: is that meant?", text,
                        STR_FMT(buf_str(&where)));
    else if (places > 1)
        config_complain(l, at, "%s; it is a key of %.*s: is one of these meant?", text,
                        STR_FMT(buf_str(&where)));
    else if (s.best != NULL)
        config_complain(l, at, "%s; did you mean '%s'?", text, s.best);
    else
        complain_with_keys(l, t->section, at, text);
    buf_done(&where);
}

static void load_pair(struct config_loader *l, struct config_target *t, struct fy_node_pair *pair,
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
    name = config_walk_text(key);
    if (t->section == &config_schema && name.len > 2 && memcmp(name.ptr, "x-", 2) == 0)
        return; /* a home for anchors */
    f = config_field_find(t->section, name);
    if (f == NULL) {
        unknown_key(l, t, name, at);
        return;
    }
    ASSERT(f < t->section->fields + 64); /* each has a bit */
    bit = UINT64_C(1) << (f - t->section->fields);
    join(path, t->path, name);
    if ((t->seen & bit) != 0) {
        if (!merged) /* the mapping's own keys win over merged ones */
            config_complain(l, at, "%s is given twice", path);
        return;
    }
    t->seen |= bit;
    config_note_line(l->c, t->base, f, (unsigned)at.line);
    if (config_walk_empty(value) && f->type != CONFIG_SECTION) {
        config_complain(l, at, "%s has no value; give it one or remove the line", path);
        return;
    }
    value = config_walk_empty(value) ? NULL : config_walk_follow(l, value, at);
    if (value != NULL)
        load_value(l, t, f, value, path, at);
}

static bool is_merge_key(struct fy_node_pair *pair)
{
    struct fy_node *key = fy_node_pair_key(pair);

    return key != NULL && fy_node_is_scalar(key) && !fy_node_is_alias(key) &&
           fy_node_get_style(key) == FYNS_PLAIN && str_eq(config_walk_text(key), STR("<<"));
}

static void load_pairs(struct config_loader *l, struct config_target *t, struct fy_node *map,
                       int depth);

/* "<<: *anchor" or "<<: [*a, *b]". */
static void load_merge(struct config_loader *l, struct config_target *t, struct fy_node *value,
                       struct config_place at, int depth)
{
    struct fy_node *node = config_walk_follow(l, value, at), *item;
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

static void load_pairs(struct config_loader *l, struct config_target *t, struct fy_node *map,
                       int depth)
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

/* As other mail servers have it. */
static bool is_assignment(struct fy_node *node)
{
    struct str text = fy_node_is_scalar(node) ? config_walk_text(node) : STR("");

    ptrdiff_t sign = str_find(text, '='), colon = str_find(text, ':');

    return sign > 0 && (colon < 0 || sign < colon);
}

void config_walk_section(struct config_loader *l, struct config_target *t, struct fy_node *node)
{
    const char *what = *t->path == 0 ? "the file" : t->path;

    if (!fy_node_is_mapping(node)) {
        config_complain(l, t->place, "%s takes keys; write lines of \"key: value\"%s", what,
                        is_assignment(node) ? ", with ':' and not '='" : "");
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
        text = config_walk_text(node);
        if (text.len != 0 && memchr(text.ptr, 0, text.len) != NULL)
            config_complain(l, at, "'%s\\0...': a NUL byte is part of no value", text.ptr);
    }
}

static struct config_place place_of(const struct config *c, const struct config_field *section,
                                    struct str name)
{
    return (struct config_place){
        (int)config_line_of(c, c, config_field_find(section->section, name)), 1};
}

/* What no value says by itself. */
static void check_together(struct config_loader *l, const struct config_field *http)
{
    const struct config *c = l->c;
    const struct config_address *a = &c->http.listen;
    struct config_place at = place_of(c, http, STR("listen"));

    if (c->http.unsubscribe && c->letter_keys_file == NULL)
        config_complain(l, place_of(c, http, STR("unsubscribe")),
                        "http.unsubscribe needs keys; run hayauma letters keygen, and write "
                        "letter_keys: /etc/hayauma/letter.keys");
    if (a->len == 0 || c->http.insecure || sockaddr_is_loopback((const struct sockaddr *)&a->addr))
        return;
    if (a->addr.ss_family == AF_UNIX)
        config_complain(l, at, "http.listen: %s is no address of IP; write 127.0.0.1:8000",
                        a->text);
    else
        config_complain(l, at,
                        "http.listen: %s is beyond loopback, and there is no TLS: put a proxy in "
                        "front and write 127.0.0.1, or write 'insecure: yes'",
                        a->text);
}

void config_walk(struct config_loader *l, struct fy_node *root)
{
    struct config_target top = {&config_schema, l->c, "", {1, 1}, 0};

    refuse_nul(l, root, top.place);
    l->c->is_empty = config_walk_empty(root);
    if (!l->c->is_empty) /* an empty file is all defaults */
        config_walk_section(l, &top, root);
    check_together(l, config_key(&config_schema, "http"));
}
