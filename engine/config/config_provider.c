/* Mailbox providers: those that are shipped with what the file says of them, and those that the
 * file adds. Which one runs an exchanger, and where each value comes from. */
#include <stdio.h>

#include "base/suggest.h"
#include "config/config_private.h"
#include "config/config_profiles.h"
#include "config/config_value.h"
#include "config/glob.h"

#define NAMED_DEFAULT "default"

static bool is_given(const struct config *c, const void *base, const struct config_field *f)
{
    return config_line_given(c, base, f) != 0;
}

static struct config_provider *named(const struct config *c, struct str name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (str_eq(str_of(c->providers[i].name), name))
            return &c->providers[i];
    return NULL;
}

/* --- completing --- */

/* What the file gives of the section in from goes into to. */
static void overlay(struct config *c, const struct config_section *s, const void *from,
                    struct config_destination *to)
{
    for (size_t i = 0; i < s->len; i++) {
        const struct config_field *f = &s->fields[i];

        if (f->section != NULL)
            overlay(c, f->section, from, to);
        else if (is_given(c, from, f))
            config_copy_member(c, f, from, to);
    }
}

/* given: what the file says of p. */
static void ship(struct config *c, struct config_provider *p, const struct config_provider *given)
{
    const struct config_field *names = config_key(&config_provider_schema, "mx");
    const struct shipped_provider *shipped = shipped_provider_find(str_of(p->name));
    struct buf why = {0};
    struct str mx;
    size_t n = 0;

    p->warmup = shipped != NULL && shipped->warmup != NULL ? shipped->warmup : p->name;
    if (shipped == NULL)
        return;
    for (size_t i = 0; i < SHIPPED_VALUES_MAX && shipped->values[i].key != NULL; i++) {
        const struct shipped_value *v = &shipped->values[i];
        const struct config_field *f = config_key(&config_destination_schema, v->key);
        int err = config_set_scalar(c, f, &p->dest, str_of(v->value), &why);

        ASSERT(err == 0); /* a value that the schema refuses */
    }
    if (is_given(c, given, names))
        return;
    p->mx = config_alloc(c, strlen(shipped->mx) * sizeof(*p->mx));
    for (mx = str_of(shipped->mx); mx.len != 0; n++)
        p->mx[n] = config_dup(c, str_take(&mx, ' '));
    p->mx_len = n;
}

/* What "*" says, then what is shipped, then what the file says of the provider. */
static void resolve(struct config *c, struct config_provider *p)
{
    const struct config_section *retry = config_key(&config_destination_schema, "retry")->section;
    struct config_destination given = p->dest;
    struct config_provider *own = config_alloc(c, sizeof(*own));

    own->dest = c->destinations[c->destinations_len - 1];
    own->dest.pattern = p->name;
    own->name = p->name;
    own->mx = p->mx;
    own->mx_len = p->mx_len;
    ship(c, own, p);
    overlay(c, &config_destination_schema, p, &own->dest);
    /* Waits are a list, or double. */
    if (given.retry_list_len != 0 || is_given(c, p, config_key(retry, "first")) ||
        is_given(c, p, config_key(retry, "max"))) {
        own->dest.retry_list_s = given.retry_list_s;
        own->dest.retry_list_len = given.retry_list_len;
    }
    *p = *own;
}

/* How the index has a name: lower case, no final dot. */
static struct str normal(struct str name, char out[CONFIG_MX_NAME_MAX])
{
    if (name.len > 0 && name.ptr[name.len - 1] == '.')
        name.len--;
    if (name.len > CONFIG_MX_NAME_MAX)
        return STR("");
    for (size_t i = 0; i < name.len; i++)
        out[i] = ascii_lower(name.ptr[i]);
    return (struct str){out, name.len};
}

/* The first that names a suffix has it: the file's come before those that are shipped. */
static void index_provider(struct config *c, uint32_t position)
{
    struct config_owner *owner = (struct config_owner *)c;
    const struct config_provider *p = &c->providers[position];

    for (size_t i = 0; i < p->mx_len; i++) {
        char lower[CONFIG_MX_NAME_MAX];
        struct str name = normal(str_of(p->mx[i]), lower);

        if (name.len != 0 && config_names_find(&owner->exchangers, name) == CONFIG_NO_MATCH)
            config_names_add(c, &owner->exchangers, str_of(config_dup(c, name)), position);
    }
}

/* The array has room for those that are shipped (config_provider_items). */
void config_finish_providers(struct config *c)
{
    size_t n = c->providers_len;

    if (c->providers_all != 0)
        return;
    if (n == 0)
        c->providers = config_alloc(c, shipped_providers_len * sizeof(*c->providers));
    ASSERT(shipped_providers_len <= CONFIG_PROVIDERS_SHIPPED_MAX);
    for (size_t i = 0; i < shipped_providers_len; i++)
        if (named(c, str_of(shipped_providers[i].name), c->providers_len) == NULL)
            c->providers[n++].name = config_dup(c, str_of(shipped_providers[i].name));
    c->providers_all = n;
    for (size_t i = 0; i < n; i++) {
        resolve(c, &c->providers[i]);
        index_provider(c, (uint32_t)i);
    }
}

/* --- finding --- */

const struct config_provider *config_provider_find(const struct config *c, struct str name)
{
    return named(c, name, c->providers_all);
}

const struct config_provider *config_provider_of_host(const struct config *c, struct str host)
{
    const struct config_owner *owner = (const struct config_owner *)c;
    char lower[CONFIG_MX_NAME_MAX];
    struct str rest = normal(host, lower);

    while (rest.len != 0) {
        uint32_t at = config_names_find(&owner->exchangers, rest);

        if (at != CONFIG_NO_MATCH)
            return &c->providers[at];
        (void)str_take(&rest, '.');
    }
    return NULL;
}

/* Whether p is who runs an exchanger that ends in one of its names. */
static bool can_match(const struct config *c, const struct config_provider *p)
{
    for (size_t i = 0; i < p->mx_len; i++)
        if (config_provider_of_host(c, str_of(p->mx[i])) == p)
            return true;
    return false;
}

/* --- warm-up --- */

const char *config_provider_of(const struct config *c, struct str host)
{
    const struct config_provider *p = config_provider_of_host(c, host);

    return p == NULL ? NAMED_DEFAULT : p->warmup;
}

void config_providers_visit(const struct config *c,
                            void (*visit)(void *arg, const char *name, const char *mx), void *arg)
{
    struct buf mx = {0};

    for (size_t i = 0; i < c->providers_all; i++) {
        const char *name = c->providers[i].warmup;

        if (strcmp(name, c->providers[i].name) != 0)
            continue;
        buf_clear(&mx);
        for (size_t j = 0; j < c->providers_all; j++)
            for (size_t k = 0; k < c->providers[j].mx_len; k++)
                if (strcmp(c->providers[j].warmup, name) == 0)
                    buf_printf(&mx, "%s%s", mx.len == 0 ? "" : " ", c->providers[j].mx[k]);
        buf_putc(&mx, 0);
        visit(arg, name, (const char *)mx.data);
    }
    visit(arg, NAMED_DEFAULT, "");
    buf_done(&mx);
}

bool config_provider_warms(const struct config *c, const char *name)
{
    const struct shipped_provider *shipped = shipped_provider_find(str_of(name));

    if (strcmp(name, NAMED_DEFAULT) == 0)
        return true;
    if (shipped != NULL)
        return shipped->warmup == NULL;
    return named(c, str_of(name), c->providers_len) != NULL;
}

/* --- origins --- */

static const struct config_provider *provider_of_dest(const struct config *c,
                                                      const struct config_destination *dest)
{
    const char *at = (const char *)dest, *first = (const char *)c->providers;

    if (first == NULL || at < first || at >= first + c->providers_all * sizeof(*c->providers))
        return NULL;
    return &c->providers[(size_t)(at - first) / sizeof(*c->providers)];
}

bool config_provider_inherits(const struct config *c, const void *base,
                              const struct config_field *f)
{
    const struct config_provider *p = provider_of_dest(c, base);

    return p != NULL && shipped_value_find(shipped_provider_find(str_of(p->name)), f->name) == NULL;
}

void config_origin_put(const struct config *c, const struct config_destination *dest,
                       const char *key, struct buf *out)
{
    const struct config_field *f = config_key(&config_destination_schema, key);
    const struct config_provider *p = provider_of_dest(c, dest);
    const struct shipped_value *v =
        p == NULL ? NULL : shipped_value_find(shipped_provider_find(str_of(p->name)), key);
    unsigned own, line;

    own = config_line_given(c, dest, f);
    line = config_line_of(c, dest, f);
    if (own != 0)
        buf_printf(out, "%s:%u (%s['%s'].%s)", c->file, own,
                   p == NULL ? "destinations" : "providers", dest->pattern, key);
    else if (v != NULL)
        buf_printf(out, "profile %s (%s)", p->name, v->origin);
    else if (line != 0)
        buf_printf(out, "%s:%u (destinations['*'].%s)", c->file, line, key);
    else
        buf_puts(out, "default");
}

void config_limits_visit(const struct config *c, const struct config_destination *dest,
                         void (*visit)(void *arg, const char *key, struct str value,
                                       struct str origin),
                         void *arg)
{
    /* sparse: shown where it is set. */
    static const struct {
        const char *name;
        bool sparse;
    } keys[] = {{"sessions_max", false},
                {"urgent_sessions", true},
                {"connect_rate", false},
                {"connect_burst", true},
                {"rate", false},
                {"rate_burst", true},
                {"recipient_rate", true},
                {"recipient_burst", true},
                {"byte_rate", true},
                {"byte_burst", true},
                {"host_sessions_max", true},
                {"host_rate", true},
                {"host_rate_burst", true},
                {"host_recipient_rate", true},
                {"host_recipient_burst", true},
                {"host_byte_rate", true},
                {"host_byte_burst", true},
                {"host_connect_rate", true},
                {"host_connect_burst", true},
                {"total_sessions_max", false},
                {"total_rate", false},
                {"total_rate_burst", true},
                {"total_recipient_rate", true},
                {"total_recipient_burst", true},
                {"total_byte_rate", true},
                {"total_byte_burst", true},
                {"total_connect_rate", true},
                {"total_connect_burst", true},
                {"session_messages_max", false},
                {"recipients_max", false},
                {"quiet_hours", false}};
    struct buf value = {0}, origin = {0};

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        buf_clear(&value);
        buf_clear(&origin);
        config_print_member(config_key(&config_destination_schema, keys[i].name), dest, &value);
        if (keys[i].sparse && str_eq(buf_str(&value), STR("none")))
            continue;
        if (strcmp(keys[i].name, "quiet_hours") == 0 && dest->quiet_hours != 0)
            buf_printf(&value, " %s", dest->time_zone);
        config_origin_put(c, dest, keys[i].name, &origin);
        visit(arg, keys[i].name, buf_str(&value), buf_str(&origin));
    }
    buf_done(&value);
    buf_done(&origin);
}

/* --- mistakes --- */

/* The line of a key of p, or that of p. */
static unsigned line_of(const struct config *c, const struct config_provider *p, const char *key)
{
    const struct config_field *map = config_key(&config_schema, "providers");
    unsigned line = config_line_given(c, p, config_key(map->section, key));

    return line != 0 ? line : config_line_given(c, p, map);
}

/* Names of sites that are sets of exchangers have a dot. */
static void check_name(const struct config_checker *k, const struct config_provider *p)
{
    unsigned line = line_of(k->c, p, "mx");
    bool ok = true;

    for (const char *s = p->name; *s != 0; s++)
        ok = ok && ((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9') || strchr("_-", *s));
    if (!ok)
        config_mistake(
            k, line, "providers['%s']: names have lower-case letters, digits, '_' and '-'%s",
            p->name,
            strchr(p->name, '.') == NULL ? "" : "; limits of a domain stand in 'destinations'");
    else if (strcmp(p->name, NAMED_DEFAULT) == 0 || strcmp(p->name, "none") == 0)
        config_mistake(k, line, "providers['%s']: '%s' is what no provider is; take another name",
                       p->name, p->name);
}

static bool gives(const struct config *c, const struct config_provider *p, const char *key)
{
    return is_given(c, p, config_key(&config_provider_schema, key));
}

static void check_mx(const struct config_checker *k, const struct config_provider *p)
{
    unsigned line = line_of(k->c, p, "mx");

    for (size_t i = 0; i < p->mx_len && gives(k->c, p, "mx"); i++) {
        char lower[CONFIG_MX_NAME_MAX];
        struct str name = normal(str_of(p->mx[i]), lower);
        const struct config_provider *other = config_provider_of_host(k->c, name);

        if (!config_host_name_valid(name))
            config_mistake(k, line,
                           "providers['%s'].mx: '%s' is not the end of a host name; write "
                           "mx.example.net",
                           p->name, p->mx[i]);
        else if (other != p)
            config_mistake(k, line, "providers['%s'].mx: '%s' is of '%s' already (line %u)",
                           p->name, p->mx[i], other->name, line_of(k->c, other, "mx"));
    }
}

static void check_provider(const struct config_checker *k, const struct config_provider *p)
{
    const struct config_destination *star = &k->c->destinations[k->c->destinations_len - 1];
    unsigned line = line_of(k->c, p, "mx");
    struct suggest near;

    check_name(k, p);
    check_mx(k, p);
    if (p->dest.lifetime_s != star->lifetime_s ||
        p->dest.notice_lifetime_s != star->notice_lifetime_s)
        config_mistake(
            k, line,
            "providers['%s']: lifetimes count from acceptance, before the provider is known; "
            "set them for domains or \"*\"",
            p->name);
    if (gives(k->c, p, "mx") && p->mx_len == 0)
        config_mistake(k, line, "providers['%s'].mx is empty; write mx: [mx.example.net]", p->name);
    else if (!gives(k->c, p, "mx") && p->mx_len > 0 && !can_match(k->c, p))
        config_mistake(k, line,
                       "providers['%s'] matches nothing: other entries have all its exchangers",
                       p->name);
    if (gives(k->c, p, "mx") || p->mx_len > 0)
        return;
    suggest_init(&near, str_of(p->name));
    for (size_t i = 0; i < shipped_providers_len; i++)
        suggest_offer(&near, shipped_providers[i].name);
    config_mistake(k, line, "providers['%s'] is not shipped and lacks 'mx'; %s%s%s", p->name,
                   near.best != NULL ? "did you mean '"
                                     : "write mx: [mx.example.net], or one of those that "
                                       "'hayauma warmup providers' lists",
                   near.best != NULL ? near.best : "", near.best != NULL ? "'?" : "");
}

/* A static route leads to a host of one label. */
static bool is_routed(const struct config *c, struct str host)
{
    for (size_t i = 0; i < c->routes_len; i++)
        if (c->routes[i].host != NULL && str_eq_nocase(str_of(c->routes[i].host), host))
            return true;
    return false;
}

/* Names of sites are host names, sets of them, addresses and providers. */
static void check_site(const struct config_checker *k, const struct config_destination *d,
                       unsigned line)
{
    struct str site = {d->pattern + 5, strlen(d->pattern) - 5};
    struct suggest near;

    if (config_provider_find(k->c, site) != NULL) {
        config_mistake(k, line,
                       "destinations['%s']: what holds for a provider stands in 'providers'; "
                       "write providers: {%.*s: {...}}",
                       d->pattern, STR_FMT(site));
        return;
    }
    if (site.len > 1 && site.ptr[site.len - 1] == '.')
        config_mistake(k, line,
                       "destinations['%s'] matches nothing: names of sites have no final dot; "
                       "write 'site:%.*s'",
                       d->pattern, (int)site.len - 1, site.ptr);
    for (size_t i = 0; i < site.len; i++)
        if (strchr("*.:/", site.ptr[i]) != NULL)
            return;
    if (is_routed(k->c, site))
        return;
    suggest_init(&near, site);
    for (size_t i = 0; i < k->c->providers_all; i++)
        suggest_offer(&near, k->c->providers[i].name);
    config_mistake(k, line,
                   "destinations['%s'] matches nothing: no exchanger has a name of one label%s%s%s",
                   d->pattern, near.best != NULL ? "; did you mean the provider '" : "",
                   near.best != NULL ? near.best : "", near.best != NULL ? "'?" : "");
}

/* An earlier pattern of sites may match all that this one does; the same one is refused before. */
static void check_site_reached(const struct config_checker *k, size_t at)
{
    const struct config_index *index = &((const struct config_owner *)k->c)->destinations;
    const struct config_destination *all = k->c->destinations;
    struct str site = {all[at].pattern + 5, strlen(all[at].pattern) - 5};

    for (size_t i = 0; i < index->globs_len && index->globs[i].position < at; i++) {
        if (!glob_match(index->globs[i].glob, site))
            continue;
        config_mistake(
            k, config_line_given(k->c, &all[at], config_key(&config_schema, "destinations")),
            "destinations['%s'] is never reached: '%s' already matches it; the first "
            "match wins",
            all[at].pattern, all[index->globs[i].position].pattern);
        return;
    }
}

static void check_quiet(const struct config_checker *k, const struct config_destination *d,
                        const char *map)
{
    const struct config_field *f = config_key(&config_destination_schema, "quiet_hours");

    if (d->quiet_hours == 0xFFFFFF)
        config_mistake(k, config_line_of(k->c, d, f),
                       "%s['%s'].quiet_hours leaves no hour to send in", map, d->pattern);
}

void config_check_providers(const struct config *c,
                            void (*tell)(void *arg, unsigned line, const char *what), void *arg)
{
    struct config_checker k = {c, tell, arg};

    for (size_t i = 0; i < c->providers_len; i++)
        check_provider(&k, &c->providers[i]);
    for (size_t i = 0; i < c->providers_len; i++)
        check_quiet(&k, &c->providers[i].dest, "providers");
    for (size_t i = 0; i < c->destinations_len; i++)
        check_quiet(&k, &c->destinations[i], "destinations");
    for (size_t i = 0; i + 1 < c->destinations_len; i++)
        if (config_pattern_is_site(str_of(c->destinations[i].pattern))) {
            check_site(&k, &c->destinations[i],
                       config_line_given(c, &c->destinations[i],
                                         config_key(&config_schema, "destinations")));
            check_site_reached(&k, i);
        }
}

/* --- the reference --- */

void config_print_profiles(struct buf *out)
{
    buf_puts(out, "| provider | exchangers end in | shipped | from |\n|---|---|---|---|\n");
    for (size_t i = 0; i < shipped_providers_len; i++) {
        const struct shipped_provider *p = &shipped_providers[i];
        struct str rest = str_of(p->mx);

        buf_printf(out, "| `%s` |", p->name);
        while (rest.len != 0) {
            struct str mx = str_take(&rest, ' ');

            buf_printf(out, " `%.*s`", STR_FMT(mx));
        }
        for (size_t j = 0; j < SHIPPED_VALUES_MAX && p->values[j].key != NULL; j++)
            buf_printf(out, "%s `%s: %s` | %s |\n", j == 0 ? " |" : "| | |", p->values[j].key,
                       p->values[j].value, p->values[j].origin);
        if (p->values[0].key == NULL)
            buf_puts(out, " | | |\n");
    }
}
