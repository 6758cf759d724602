/* Patterns of routes and destinations, and networks: what the engine asks per message or session.
 */
#include <errno.h>
#include <idn2.h>
#include <stdlib.h>

#include "config/config_private.h"
#include "config/config_value.h"
#include "config/glob.h"

#define NAME_MAX_BYTES  253
#define SITE_NAME_BYTES 320 /* more than dns' longest with a port, or a socket's path, has */
#define HASH_SEED       UINT64_C(0x68617961756d61) /* keys are the operator's: no collisions to fear */

static const struct str site_prefix = {"site:", 5};

struct name_node {
    struct map_node node;
    struct str name;
    uint32_t position;
};

bool config_host_name_valid(struct str s)
{
    size_t label = 0;

    if (s.len == 0 || s.len > NAME_MAX_BYTES)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        char c = ascii_lower(s.ptr[i]);

        if (c == '.' && (label == 0 || s.ptr[i - 1] == '-'))
            return false;
        if (c == '-' && label == 0)
            return false;
        if (c != '.' && c != '-' && c != '_' && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9'))
            return false;
        label = c == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return label != 0 && s.ptr[s.len - 1] != '-';
}

static const char *const tls_words[] = {[CONFIG_TLS_NONE] = "none",
                                        [CONFIG_TLS_MAY] = "may",
                                        [CONFIG_TLS_ENCRYPT] = "encrypt",
                                        [CONFIG_TLS_VERIFY] = "verify",
                                        [CONFIG_TLS_DANE] = "dane",
                                        [CONFIG_TLS_STS] = "mta-sts",
                                        [CONFIG_TLS_DANE_STS] = "dane+mta-sts"};

enum config_tls config_tls_of(const struct config_destination *dest)
{
    enum config_tls tls = CONFIG_TLS_NONE;

    while (strcmp(tls_words[tls], dest->tls) != 0) {
        tls++;
        ASSERT(tls < ARRAY_LEN(tls_words));
    }
    return tls;
}

const char *config_tls_word(enum config_tls tls)
{
    ASSERT((size_t)tls < ARRAY_LEN(tls_words));
    return tls_words[tls];
}

bool config_tls_has_dane(enum config_tls tls)
{
    return tls == CONFIG_TLS_DANE || tls == CONFIG_TLS_DANE_STS;
}

bool config_tls_has_sts(enum config_tls tls)
{
    return tls == CONFIG_TLS_STS || tls == CONFIG_TLS_DANE_STS;
}

char *config_host_name_normal(struct config *c, struct str name)
{
    char *text = config_dup(c, name), *ascii = NULL;

    for (size_t i = 0; i < name.len; i++) {
        if ((unsigned char)text[i] < 0x80)
            continue;
        if (idn2_to_ascii_8z(text, &ascii, IDN2_NONTRANSITIONAL) != IDN2_OK)
            return NULL;
        text = config_dup(c, str_of(ascii));
        idn2_free(ascii);
        break;
    }
    return config_host_name_valid(str_of(text)) ? text : NULL;
}

/* The domain in lower-case A-labels without its trailing dot, or NULL. */
static char *normal_domain(struct config *c, struct str domain)
{
    char *text;

    if (domain.len > 1 && domain.ptr[domain.len - 1] == '.')
        domain.len--;
    text = config_host_name_normal(c, domain);
    for (char *p = text; p != NULL && *p != 0; p++)
        *p = ascii_lower(*p);
    return text;
}

bool config_pattern_is_site(struct str pattern)
{
    return str_starts_nocase(pattern, site_prefix);
}

static char *normal_site(struct config *c, struct str text, struct buf *why)
{
    char *pattern = config_dup(c, text);

    if (text.len == site_prefix.len) {
        buf_puts(why, "'site:' names no site; write site:mx.example.com");
        return NULL;
    }
    for (char *p = pattern; *p != 0; p++)
        *p = ascii_lower(*p);
    return pattern;
}

char *config_pattern_normal(struct config *c, struct str text, bool site_ok, struct buf *why)
{
    bool wild = text.len > 2 && text.ptr[0] == '*' && text.ptr[1] == '.';
    struct str domain = wild ? (struct str){text.ptr + 2, text.len - 2} : text;
    struct buf joined = {0};
    char *name;

    if (str_eq(text, STR("*")))
        return config_dup(c, text);
    if (site_ok && config_pattern_is_site(text))
        return normal_site(c, text, why);
    name = normal_domain(c, domain);
    if (name == NULL) {
        buf_printf(
            why, "'%.*s' is not a domain pattern; write example.com, \"*.example.com\"%s or \"*\"",
            STR_FMT(text), site_ok ? ", \"site:mx.example.com\"" : "");
        return NULL;
    }
    if (!wild)
        return name;
    buf_printf(&joined, "*.%s", name);
    name = config_dup(c, buf_str(&joined));
    buf_done(&joined);
    return name;
}

uint32_t config_names_find(const struct map *names, struct str name)
{
    struct map_node *n;

    if (names->count == 0)
        return CONFIG_NO_MATCH;
    n = map_find(names, hash_bytes(name.ptr, name.len, HASH_SEED));
    for (; n != NULL; n = map_find_next(n)) {
        const struct name_node *node = CONTAINER_OF(n, struct name_node, node);

        if (str_eq(node->name, name))
            return node->position;
    }
    return CONFIG_NO_MATCH;
}

/* First position of a pattern for the lower-case name: the name itself, then what it is below. */
static uint32_t find_domain(const struct config_index *index, struct str name)
{
    uint32_t best = config_names_find(&index->names, name);

    for (size_t i = 1; i < name.len; i++) {
        uint32_t at;

        if (name.ptr[i] != '.')
            continue;
        at = config_names_find(&index->names, (struct str){name.ptr + i, name.len - i});
        if (at < best)
            best = at;
    }
    return best;
}

/* First position below best of a pattern for the site, or best. */
static uint32_t find_site(const struct config_index *index, struct str site, uint32_t best)
{
    char lower[SITE_NAME_BYTES];

    if (site.len <= sizeof(lower)) {
        uint32_t at;

        for (size_t i = 0; i < site.len; i++)
            lower[i] = ascii_lower(site.ptr[i]);
        at = config_names_find(&index->sites, (struct str){lower, site.len});
        if (at < best)
            best = at;
    }
    for (size_t i = 0; i < index->globs_len && index->globs[i].position < best; i++)
        if (glob_match(index->globs[i].glob, site))
            return index->globs[i].position;
    return best;
}

uint32_t config_index_find(const struct config_index *index, struct str domain, struct str site)
{
    char lower[NAME_MAX_BYTES];
    uint32_t best = CONFIG_NO_MATCH;

    if (index->names.count != 0 && domain.len != 0 && domain.len <= sizeof(lower)) {
        for (size_t i = 0; i < domain.len; i++)
            lower[i] = ascii_lower(domain.ptr[i]);
        best = find_domain(index, (struct str){lower, domain.len});
    }
    if (index->sites.count != 0 && site.len != 0)
        best = find_site(index, site, best);
    return best == CONFIG_NO_MATCH ? index->fallback : best;
}

void config_names_add(struct config *c, struct map *names, struct str name, uint32_t position)
{
    struct name_node *node = config_alloc(c, sizeof(*node));

    if (names->buckets == NULL) {
        int err = map_init(names, 64);

        ASSERT(err == 0); /* memory: fatal while a configuration is built */
    }
    ASSERT(position != CONFIG_NO_MATCH);
    node->name = name;
    node->position = position;
    map_insert(names, &node->node, hash_bytes(name.ptr, name.len, HASH_SEED));
}

static void add_glob(struct config *c, struct config_index *index, struct str glob,
                     uint32_t position)
{
    if (index->globs_len == index->globs_room) {
        size_t room = index->globs_room == 0 ? 16 : 2 * index->globs_room;
        struct config_site_pattern *globs = config_alloc(c, room * sizeof(*globs));

        if (index->globs_len != 0)
            memcpy(globs, index->globs, index->globs_len * sizeof(*globs));
        index->globs = globs;
        index->globs_room = room;
    }
    ASSERT(index->globs_len == 0 || index->globs[index->globs_len - 1].position < position);
    index->globs[index->globs_len++] = (struct config_site_pattern){glob, position};
}

static uint32_t add_site(struct config *c, struct config_index *index, struct str pattern,
                         uint32_t position)
{
    uint32_t earlier = config_names_find(&index->sites, pattern);

    if (earlier != CONFIG_NO_MATCH)
        return earlier;
    config_names_add(c, &index->sites, pattern, position);
    if (str_find(pattern, '*') >= 0)
        add_glob(c, index, pattern, position);
    return CONFIG_NO_MATCH;
}

uint32_t config_index_add(struct config *c, struct config_index *index, const char *pattern,
                          uint32_t position)
{
    struct str text = str_of(pattern), name = text;
    uint32_t earlier;

    if (str_eq(text, STR("*"))) {
        earlier = index->fallback;
        index->fallback = position;
        return earlier;
    }
    if (config_pattern_is_site(text))
        return add_site(c, index, (struct str){text.ptr + 5, text.len - 5}, position);
    if (text.ptr[0] == '*')
        name = (struct str){text.ptr + 1, text.len - 1};
    earlier = find_domain(index, name);
    if (earlier != CONFIG_NO_MATCH)
        return earlier;
    config_names_add(c, &index->names, name, position);
    return CONFIG_NO_MATCH;
}

const struct config_route *config_route_for(const struct config *c, struct str domain)
{
    const struct config_owner *owner = (const struct config_owner *)c;
    uint32_t i = config_index_find(&owner->routes, domain, STR(""));

    ASSERT(i == CONFIG_NO_MATCH || i < c->routes_len);
    return i == CONFIG_NO_MATCH || c->routes[i].kind == CONFIG_ROUTE_MX ? NULL : &c->routes[i];
}

const struct config_destination *config_destination_for(const struct config *c, struct str domain,
                                                        struct str site)
{
    const struct config_owner *owner = (const struct config_owner *)c;
    uint32_t i = config_index_find(&owner->destinations, domain, site);

    ASSERT(i < c->destinations_len); /* "*" has what nothing else has */
    return &c->destinations[i];
}

const struct config_destination *config_destination_at(const struct config *c, struct str domain,
                                                       struct str site,
                                                       const struct config_provider *provider)
{
    const struct config_destination *dest = config_destination_for(c, domain, site);

    return provider != NULL && dest == &c->destinations[c->destinations_len - 1] ? &provider->dest
                                                                                 : dest;
}

/* An address in its 128-bit form. False for other families. */
static bool address_bytes(const struct sockaddr *addr, uint8_t out[16])
{
    if (addr->sa_family == AF_INET6) {
        memcpy(out, &((const struct sockaddr_in6 *)(const void *)addr)->sin6_addr, 16);
        return true;
    }
    if (addr->sa_family != AF_INET)
        return false;
    memset(out, 0, 10);
    out[10] = out[11] = 0xff;
    memcpy(out + 12, &((const struct sockaddr_in *)(const void *)addr)->sin_addr, 4);
    return true;
}

bool config_network_match(const struct config_network *nets, size_t len,
                          const struct sockaddr *addr)
{
    uint8_t bytes[16];

    if (!address_bytes(addr, bytes))
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned whole = nets[i].prefix / 8, rest = nets[i].prefix % 8;
        uint8_t mask = (uint8_t)(0xff00 >> rest);

        if (memcmp(bytes, nets[i].bytes, whole) != 0)
            continue;
        if (rest == 0 || ((bytes[whole] ^ nets[i].bytes[whole]) & mask) == 0)
            return true;
    }
    return false;
}

bool config_repairs_newlines(const struct config_listener *l, const struct sockaddr *client)
{
    const char *newlines = l->bare_newlines;
    int narrowest = -1;

    for (size_t i = 0; i < l->clients_len; i++) {
        const struct config_client *c = &l->clients[i];

        if (c->network.prefix <= narrowest || !config_network_match(&c->network, 1, client))
            continue;
        narrowest = c->network.prefix;
        newlines = c->bare_newlines != NULL ? c->bare_newlines : l->bare_newlines;
    }
    return strcmp(newlines, "repair") == 0;
}
