/* A configuration's life: made, completed from its own values, compared, released. */
#include "config/config.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/sockaddr.h"
#include "config/config_private.h"
#include "config/config_secret.h"
#include "config/glob.h"

#define SUBMISSIONS_PORT 465 /* RFC 8314 7.3 */

struct config_block {
    struct config_block *next;
    max_align_t data[];
};

/* An empty configuration. */
static struct config *config_new(void)
{
    struct config_owner *owner = calloc(1, sizeof(*owner));

    ASSERT(owner != NULL);
    owner->config.refs = 1;
    owner->routes.fallback = owner->destinations.fallback = CONFIG_NO_MATCH;
    owner->senders.fallback = CONFIG_NO_MATCH;
    return &owner->config;
}

void *config_alloc(struct config *c, size_t bytes)
{
    struct config_owner *owner = (struct config_owner *)c;
    struct config_block *block = calloc(1, sizeof(*block) + bytes);

    ASSERT(block != NULL);
    block->next = owner->blocks;
    owner->blocks = block;
    return block->data;
}

char *config_dup(struct config *c, struct str s)
{
    char *copy = config_alloc(c, s.len + 1);

    if (s.len != 0)
        memcpy(copy, s.ptr, s.len);
    return copy;
}

struct config *config_ref(struct config *c)
{
    /* Relaxed: whoever takes a reference already holds one. */
    uint32_t before = __atomic_fetch_add(&c->refs, 1, __ATOMIC_RELAXED);

    ASSERT(before > 0);
    return c;
}

void config_unref(struct config *c)
{
    struct config_owner *owner = (struct config_owner *)c;
    uint32_t before;

    if (c == NULL)
        return;
    /* Acquire-release: what others read must be read before it is freed here. */
    before = __atomic_fetch_sub(&c->refs, 1, __ATOMIC_ACQ_REL);
    ASSERT(before > 0);
    if (before > 1)
        return;
    if (c->keyring != NULL)
        c->keyring_free(c->keyring);
    config_wipe_credentials(c);
    config_wipe_proxies(c);
    config_wipe_letter_keys(c);
    for (struct config_zone *z = owner->zones; z != NULL; z = z->next)
        zone_free(z->zone);
    map_done(&owner->routes.names);
    map_done(&owner->destinations.names);
    map_done(&owner->destinations.sites);
    map_done(&owner->lines);
    map_done(&owner->tenants);
    map_done(&owner->campaigns);
    map_done(&owner->users);
    map_done(&owner->certificate_users);
    map_done(&owner->senders.names);
    map_done(&owner->pools);
    map_done(&owner->exchangers);
    while (owner->blocks != NULL) {
        struct config_block *block = owner->blocks;

        owner->blocks = block->next;
        free(block);
    }
    free(owner);
}

/* --- where values come from --- */

struct line {
    struct map_node node;
    const void *base;
    const struct config_field *field;
    unsigned line;
};

static uint64_t line_hash(const void *base, const struct config_field *f)
{
    const void *const key[] = {base, f};

    return hash_bytes(key, sizeof(key), 0);
}

void config_note_line(struct config *c, const void *base, const struct config_field *f,
                      unsigned line)
{
    struct config_owner *owner = (struct config_owner *)c;
    struct line *at = config_alloc(c, sizeof(*at));
    int err = owner->lines.buckets == NULL ? map_init(&owner->lines, 64) : 0;

    ASSERT(err == 0);
    at->base = base;
    at->field = f;
    at->line = line;
    map_insert(&owner->lines, &at->node, line_hash(base, f));
}

unsigned config_line_given(const struct config *c, const void *base, const struct config_field *f)
{
    const struct config_owner *owner = (const struct config_owner *)c;
    uint64_t hash = line_hash(base, f);

    if (owner->lines.buckets == NULL)
        return 0;
    for (struct map_node *n = map_find(&owner->lines, hash); n != NULL; n = map_find_next(n)) {
        const struct line *at = CONTAINER_OF(n, struct line, node);

        if (at->base == base && at->field == f)
            return at->line;
    }
    return 0;
}

unsigned config_line_of(const struct config *c, const void *base, const struct config_field *f)
{
    const struct config_owner *owner = (const struct config_owner *)c;
    const char *at = base, *first = (const char *)c->destinations;
    unsigned line = config_line_given(c, base, f);

    if (line == 0 &&
        ((at >= first && at < first + c->destinations_len * sizeof(*c->destinations)) ||
         config_provider_inherits(c, base, f)))
        line = config_line_given(c, owner->destinations_star, f);
    return line;
}

void config_place_put(const struct config *c, const char *key, struct buf *out)
{
    const struct config_section *section = &config_schema;
    const struct config_field *f = NULL;
    struct str rest = str_of(key);
    unsigned line;

    while (rest.len > 0) {
        f = config_field_find(section, str_take(&rest, '.'));
        ASSERT(f != NULL); /* the keys are those of this program's code */
        section = f->section;
    }
    buf_puts(out, c->file != NULL ? c->file : "-");
    line = config_line_of(c, c, f);
    if (line != 0)
        buf_printf(out, ":%u", line);
    buf_printf(out, ": %s", key);
}

/* --- shares --- */

static const struct config_share no_share = {.name = "", .weight = 1};

static void index_shares(struct config *c, struct map *names, const struct config_share *shares,
                         size_t len)
{
    if (names->count != 0)
        return;
    for (size_t i = 0; i < len; i++)
        config_names_add(c, names, str_of(shares[i].name), (uint32_t)i);
}

const struct config_share *config_tenant(const struct config *c, struct str name)
{
    const struct map *names = &((const struct config_owner *)c)->tenants;
    uint32_t at = name.len == 0 ? CONFIG_NO_MATCH : config_names_find(names, name);

    if (at == CONFIG_NO_MATCH && name.len != 0)
        at = config_names_find(names, STR("*"));
    return at == CONFIG_NO_MATCH ? &no_share : &c->tenants[at];
}

const struct config_share *config_campaign(const struct config *c, struct str name)
{
    uint32_t at = config_names_find(&((const struct config_owner *)c)->campaigns, name);

    return at == CONFIG_NO_MATCH ? &no_share : &c->campaigns[at];
}

const struct config_share_site *config_share_at(const struct config_share *share, struct str site)
{
    for (size_t i = 0; i < share->sites_len; i++)
        if (glob_match(str_of(share->sites[i].site), site))
            return &share->sites[i];
    return NULL;
}

/* --- completing --- */

/* A machine's name that is no host name ("my laptop") would make bad Received lines. */
static char *machine_name(struct config *c)
{
    char name[256] = "";

    if (gethostname(name, sizeof(name) - 1) != 0 || !config_host_name_valid(str_of(name)))
        return config_dup(c, STR("localhost.localdomain"));
    return config_dup(c, str_of(name));
}

static char *default_tls(struct config *c, const struct config_listener *l)
{
    const struct sockaddr *addr = (const struct sockaddr *)&l->address.addr;

    if (c->certificates_len == 0 || addr->sa_family == AF_UNIX)
        return config_dup(c, STR("none"));
    return config_dup(c,
                      sockaddr_port(addr) == SUBMISSIONS_PORT ? STR("implicit") : STR("starttls"));
}

static const char *const header_words[CONFIG_HEADERS] = {[CONFIG_HEADER_POOL] = "pool",
                                                         [CONFIG_HEADER_CAMPAIGN] = "campaign",
                                                         [CONFIG_HEADER_TENANT] = "tenant",
                                                         [CONFIG_HEADER_PRIORITY] = "priority",
                                                         [CONFIG_HEADER_NOT_BEFORE] = "not-before",
                                                         [CONFIG_HEADER_ENGAGED] = "engaged"};

static void finish_listeners(struct config *c)
{
    for (size_t i = 0; i < c->listeners_len; i++) {
        struct config_listener *l = &c->listeners[i];

        if (l->name == NULL)
            l->name = l->address.text;
        if (l->host_name == NULL)
            l->host_name = c->host_name;
        if (l->tls == NULL)
            l->tls = default_tls(c, l);
        l->headers_taken = 0;
        for (size_t j = 0; j < l->headers_len; j++)
            for (int h = 0; h < CONFIG_HEADERS; h++)
                if (strcmp(l->headers[j], header_words[h]) == 0)
                    l->headers_taken |= 1u << h;
    }
}

static void finish_own_names(struct config *c)
{
    size_t n = 0;

    c->own_names = config_alloc(c, (c->listeners_len + 2) * sizeof(*c->own_names));
    c->own_names[n++] = c->host_name;
    for (size_t i = 0; i < c->listeners_len; i++)
        if (strcmp(c->listeners[i].host_name, c->host_name) != 0)
            c->own_names[n++] = c->listeners[i].host_name;
}

static void finish_routes(struct config *c)
{
    for (size_t i = 0; i < c->routes_len; i++)
        if (!c->routes[i].port_given)
            c->routes[i].port = c->dns.port;
}

/* One for all that name it. Its file was there when the key was read; if it has gone since UTC
 * takes its place. */
static const struct zone *zone_named(struct config *c, const char *name)
{
    struct config_owner *owner = (struct config_owner *)c;
    struct config_zone *z = owner->zones;
    int err;

    while (z != NULL && strcmp(z->name, name) != 0)
        z = z->next;
    if (z != NULL)
        return z->zone;
    z = config_alloc(c, sizeof(*z));
    *z = (struct config_zone){.next = owner->zones, .name = name};
    err = zone_load(str_of(name), &z->zone);
    if (err < 0)
        err = zone_load(STR("UTC"), &z->zone);
    ASSERT(err == 0);
    owner->zones = z;
    return z->zone;
}

static void finish_quiet(struct config *c)
{
    for (size_t i = 0; i < c->destinations_len + c->providers_all; i++) {
        struct config_destination *d = i < c->destinations_len
                                           ? &c->destinations[i]
                                           : &c->providers[i - c->destinations_len].dest;

        d->zone = d->quiet_hours == 0 ? NULL : zone_named(c, d->time_zone);
    }
}

/* A key that cannot be used is told with the line that names its file. */
static void finish_dkim(struct config *c)
{
    const struct config_field *dkim = config_key(&config_schema, "dkim");
    const struct config_field *keys = config_key(dkim->section, "keys");
    const struct config_field *file = config_key(keys->section, "file");

    for (size_t i = 0; i < c->dkim.keys_len; i++)
        c->dkim.keys[i].line = config_line_of(c, &c->dkim.keys[i], file);
}

void config_finish(struct config *c)
{
    struct config_owner *owner = (struct config_owner *)c;

    if (c->host_name == NULL)
        c->host_name = machine_name(c);
    if (c->node_id == NULL)
        c->node_id = c->host_name;
    config_finish_pools(c);
    config_finish_providers(c);
    finish_listeners(c);
    finish_own_names(c);
    finish_routes(c);
    finish_quiet(c);
    finish_dkim(c);
    config_finish_rules(c);
    index_shares(c, &owner->tenants, c->tenants, c->tenants_len);
    index_shares(c, &owner->campaigns, c->campaigns, c->campaigns_len);
}

/* The listener that is there when the file names none. */
static void default_listener(struct config *c)
{
    struct config_listener *l = config_alloc(c, sizeof(*l));
    const struct config_field *listen = config_key(&config_listener_schema, "listen");
    struct buf why = {0};
    int err;

    config_set_defaults(c, &config_listener_schema, l);
    err = config_set_scalar(c, listen, l, STR("127.0.0.1:25"), &why);
    ASSERT(err == 0);
    buf_done(&why);
    c->listeners = l;
    c->listeners_len = 1;
}

struct config *config_new_default(void)
{
    struct config *c = config_new();
    struct config_owner *owner = (struct config_owner *)c;

    config_set_defaults(c, &config_schema, c);
    default_listener(c);
    c->destinations = config_alloc(c, sizeof(*c->destinations));
    c->destinations_len = 1;
    config_set_defaults(c, &config_destination_schema, c->destinations);
    c->destinations->pattern = config_dup(c, STR("*"));
    owner->destinations.fallback = 0;
    return c;
}

struct config *config_default(void)
{
    struct config *c = config_new_default();

    config_finish(c);
    return c;
}

/* --- reload --- */

/* What a restart-only member says in both, as text. */
static bool member_differs(const struct config_field *f, const void *a, const void *b,
                           struct buf *from, struct buf *to)
{
    buf_clear(from);
    buf_clear(to);
    config_print_member(f, a, from);
    config_print_member(f, b, to);
    return !str_eq(buf_str(from), buf_str(to));
}

static struct str said(const struct buf *value)
{
    return value->len != 0 ? buf_str(value) : STR("nothing");
}

/* Gives new's section the values of old that a reload cannot change. */
static void keep_section(struct config *c, const struct config_section *s, const char *prefix,
                         const char *separator, const void *old, void *new, struct buf *cannot)
{
    struct buf from = {0}, to = {0};

    for (size_t i = 0; i < s->len; i++) {
        const struct config_field *f = &s->fields[i];

        if (f->type == CONFIG_SECTION) {
            keep_section(c, f->section, f->name, ".", old, new, cannot);
        } else if (f->restart && config_types[f->type].class < CONFIG_CLASS_ITEMS &&
                   member_differs(f, old, new, &from, &to)) {
            buf_printf(cannot, "%s%s%s: %.*s -> %.*s needs %s\n", prefix, separator, f->name,
                       STR_FMT(said(&from)), STR_FMT(said(&to)),
                       f->needs != NULL ? f->needs : "a restart");
            config_copy_member(c, f, old, new);
        }
    }
    buf_done(&from);
    buf_done(&to);
}

static struct config_listener *find_listener(const struct config *c, const char *address)
{
    for (size_t i = 0; i < c->listeners_len; i++)
        if (str_eq(str_of(c->listeners[i].address.text), str_of(address)))
            return &c->listeners[i];
    return NULL;
}

/* Sockets are bound before privileges are dropped, so the listeners stay; their limits can change
 * at any time. */
static void keep_listeners(const struct config *old, struct config *new, struct buf *cannot)
{
    const struct config_section *schema = &config_listener_schema;
    struct config_listener *kept = config_alloc(new, old->listeners_len * sizeof(*kept));

    for (size_t i = 0; i < new->listeners_len; i++)
        if (find_listener(old, new->listeners[i].address.text) == NULL)
            buf_printf(cannot, "listeners: %s is new, needs a restart\n",
                       new->listeners[i].address.text);
    for (size_t i = 0; i < old->listeners_len; i++) {
        const struct config_listener *before = &old->listeners[i];
        const char *address = before->address.text;
        struct config_listener *after = find_listener(new, address);

        if (after != NULL) {
            kept[i] = *after;
            keep_section(new, schema, address, " ", before, &kept[i], cannot);
            continue;
        }
        buf_printf(cannot, "listeners: %s is gone, needs a restart\n", address);
        for (size_t j = 0; j < schema->len; j++)
            config_copy_member(new, &schema->fields[j], before, &kept[i]);
    }
    new->listeners = kept;
    new->listeners_len = old->listeners_len;
}

void config_keep(const struct config *old, struct config *new, struct buf *cannot)
{
    /* What was left out follows the host name that stays. */
    for (size_t i = 0; i < new->sources_len; i++)
        if (new->sources[i].ehlo_name == new->host_name)
            new->sources[i].ehlo_name = NULL;
    for (size_t i = 0; i < new->listeners_len; i++)
        if (new->listeners[i].host_name == new->host_name)
            new->listeners[i].host_name = NULL;
    keep_section(new, &config_schema, "", "", old, new, cannot);
    keep_listeners(old, new, cannot);
    config_finish(new);
}
