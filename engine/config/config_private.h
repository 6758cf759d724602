/* What engine/config*.c share and nobody else sees: the memory of a configuration, the index of its
 * patterns, and the setting and printing of one value. */
#ifndef HAYAUMA_ENGINE_CONFIG_PRIVATE_H
#define HAYAUMA_ENGINE_CONFIG_PRIVATE_H

#include "base/map.h"
#include "config/config.h"
#include "config/config_schema.h"

/* Patterns of one list. Exact names and "*.suffix" are hashed; a lookup costs a probe per label.
 * So are site patterns without a star; those with one are tried in order. Values are positions in
 * the list. */
struct config_index {
    struct map names; /* "example.com" and, for "*.example.com", ".example.com" */
    struct map sites; /* all site patterns, as written; behind "site:" */
    struct config_site_pattern {
        struct str glob;
        uint32_t position;
    } * globs; /* those with a star */
    size_t globs_len, globs_room;
    uint32_t fallback; /* position of "*", or CONFIG_NO_MATCH */
};
#define CONFIG_NO_MATCH UINT32_MAX

struct config_block;

struct config_zone {
    struct config_zone *next;
    const char *name;
    struct zone *zone;
};

struct config_owner {
    struct config config; /* first: a struct config is always one of these */
    struct config_block *blocks;
    struct config_index routes, destinations, senders;
    struct map lines; /* of the members that the file gives, by struct and field */
    struct map tenants, campaigns, users, pools; /* positions by name */
    struct map certificate_users;                /* positions of users by their certificates */
    struct map exchangers;     /* positions of providers by how names of their exchangers end */
    struct config_zone *zones; /* of quiet hours */
    const struct config_rule **rules; /* all, in the order of asking */
    size_t rules_len;
    struct config_rules_of_code { /* of each code from 400 on */
        const struct config_rule **list;
        size_t len;
    } * rules_of;
    const void *destinations_star; /* what "*" was read into: the others begin with its values */
};

/* All defaults, not yet finished; everything in it is released by config_unref(). */
struct config *config_new_default(void);
/* Zeroed memory that lives as long as c. As in buf_*, running out of memory is fatal. */
void *config_alloc(struct config *c, size_t bytes);
char *config_dup(struct config *c, struct str s);

/* A list by the names of its entries. name lives as long as c. */
void config_names_add(struct config *c, struct map *names, struct str name, uint32_t position);
/* The entry's position in the list; CONFIG_NO_MATCH: there is none of that name. */
uint32_t config_names_find(const struct map *names, struct str name);

/* Adds pattern (lower case; checked by config_pattern_check()) at position. CONFIG_NO_MATCH, or the
 * position of an earlier pattern that matches all of what this one matches, which is then useless.
 */
uint32_t config_index_add(struct config *c, struct config_index *index, const char *pattern,
                          uint32_t position);
uint32_t config_index_find(const struct config_index *index, struct str domain, struct str site);
/* Brings a pattern to its form in the index: lower case, A-labels, no trailing dot. NULL and a
 * reason in why when it is none. */
char *config_pattern_normal(struct config *c, struct str text, bool site_ok, struct buf *why);
bool config_pattern_is_site(struct str pattern);
/* Whether s is a host name: letters, digits, hyphens, dots, at most 253. */
bool config_host_name_valid(struct str s);
/* The host name in A-labels, where it is not ASCII; else as it is. NULL when it is none. */
char *config_host_name_normal(struct config *c, struct str name);

/* Sets the scalar member of f in base from text. 0, or -EINVAL with what is wrong in why. */
int config_set_scalar(struct config *c, const struct config_field *f, void *base, struct str text,
                      struct buf *why) MUST_USE;
/* A network, with the reason in why when text is none. */
int config_set_network(struct str text, struct config_network *out, struct buf *why) MUST_USE;
/* Sets the list member of f from n texts. -EINVAL: *bad is the one that is wrong. */
int config_set_list(struct config *c, const struct config_field *f, void *base,
                    const struct str *texts, size_t n, struct buf *why, size_t *bad) MUST_USE;
/* A pattern of senders (struct config_senders), in its normal form, into *out. */
int config_set_sender(struct config *c, struct str text, char **out, struct buf *why) MUST_USE;
/* A tenant's or campaign's name into *out, a member. */
int config_set_name(struct config *c, struct str text, char **out, struct buf *why) MUST_USE;
/* The member of f in from, into to, which belongs to c. */
void config_copy_member(struct config *c, const struct config_field *f, const void *from, void *to);
bool config_field_is_list(const struct config_field *f);
/* Sets every member of the section to its default, sections below it included. */
void config_set_defaults(struct config *c, const struct config_section *s, void *base);
/* Parses the next hop of a route. */
int config_set_route(struct config *c, struct config_route *route, struct str text,
                     struct buf *why) MUST_USE;

/* --- config_certificates.c --- */

/* A certificate's fingerprint or a name that it bears, in its normal form, into *out. */
int config_set_certificate(struct config *c, struct str text, char **out, struct buf *why) MUST_USE;
/* Brings relay_certificates to that form; tells what is wrong with certificates of clients, as
 * config_check_pools(). */
void config_check_certificates(struct config *c,
                               void (*tell)(void *arg, unsigned line, const char *what), void *arg);

/* --- config_pool.c --- */

/* Makes the source and the pool that are there when the file names none, and finds what names
 * stand for. */
void config_finish_pools(struct config *c);
/* What is wrong with sources, pools and the rules that choose among them: tell() is called for each
 * mistake. */
void config_check_pools(const struct config *c,
                        void (*tell)(void *arg, unsigned line, const char *what), void *arg);

/* --- config_provider.c --- */

#define CONFIG_PROVIDERS_SHIPPED_MAX 64 /* room for them behind those of the file */
#define CONFIG_MX_NAME_MAX           253

/* Adds what is shipped, and gives each provider what holds there. */
void config_finish_providers(struct config *c);
/* What is wrong with providers, and with patterns that can match no site; as
 * config_check_pools(). */
void config_check_providers(const struct config *c,
                            void (*tell)(void *arg, unsigned line, const char *what), void *arg);
/* Whether warm-up counts under this name. */
bool config_provider_warms(const struct config *c, const char *name);
/* Whether f of base is what "*" says: base is a provider, and nothing of it is shipped. */
bool config_provider_inherits(const struct config *c, const void *base,
                              const struct config_field *f);
/* The table of what is shipped, Markdown. */
void config_print_profiles(struct buf *out);

/* --- config_rules.c --- */

/* The rules that come with the engine; words only: config_finish_rules() reads a copy. */
extern const struct config_rule config_rules_shipped[];
extern const size_t config_rules_shipped_len;
/* Reads the words of all rules, and indexes them by code. */
void config_finish_rules(struct config *c);
/* Whether records call a bounce so. */
bool config_classification_known(const char *name);

/* Lines of config_warnings(). */
void config_warmup_warnings(const struct config *c, struct buf *out);
/* Fills what follows from other values (names, own addresses) and adds the default entries. */
void config_finish(struct config *c);

/* Appends a member as YAML; lists as [a, b]. */
void config_print_member(const struct config_field *f, const void *base, struct buf *out);
/* The key of a map's item. */
void config_print_key(const struct config_field *f, const void *item, struct buf *out);
/* The file gives the member of f in base on this line. */
void config_note_line(struct config *c, const void *base, const struct config_field *f,
                      unsigned line);
/* On which line of c->file that is, not looking where base inherits from. 0: nowhere. */
unsigned config_line_given(const struct config *c, const void *base, const struct config_field *f);
/* On which line of c->file; 0: the value is a default, or shipped. */
unsigned config_line_of(const struct config *c, const void *base, const struct config_field *f);
/* "100 to 10k", or nothing for a type without range. */
void config_print_range(const struct config_field *f, struct buf *out);

/* Who is told of mistakes that only the whole configuration shows. */
struct config_checker {
    const struct config *c;
    void (*tell)(void *arg, unsigned line, const char *what);
    void *arg;
};
void config_mistake(const struct config_checker *k, unsigned line, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* What is wrong with the proxies of sources. */
void config_check_proxies(const struct config_checker *k);
/* What is wrong with what letters of campaigns get by a rule of senders. */
void config_check_letters(const struct config_checker *k, const struct config_sender *s);

#endif
