/* The schema: one const table that checks the file, fills struct config, prints it and documents
 * it. A new setting is a member in config.h and a row in config_schema*.c. Private to
 * engine/config*.c. */
#ifndef HAYAUMA_ENGINE_CONFIG_SCHEMA_H
#define HAYAUMA_ENGINE_CONFIG_SCHEMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/str.h"

enum config_type {
    CONFIG_BOOL,       /* bool */
    CONFIG_NOT,        /* bool that the file states the other way round */
    CONFIG_COUNT,      /* uint32_t */
    CONFIG_PORT,       /* uint16_t */
    CONFIG_PERCENT,    /* uint32_t */
    CONFIG_HUNDREDTHS, /* uint32_t, a percentage in hundredths of a percent */
    CONFIG_HOURS,      /* uint32_t, bit per hour of the day */
    CONFIG_DATE,       /* uint32_t, days since 1970-01-01 */
    CONFIG_BYTES,      /* uint64_t */
    CONFIG_BYTES32,    /* uint32_t */
    CONFIG_MS,         /* uint32_t, a duration */
    CONFIG_SECONDS,    /* uint32_t, a duration */
    CONFIG_MODE,       /* uint32_t, of a file */
    CONFIG_TEXT,       /* char *, NULL when absent */
    CONFIG_NAME,       /* char *, a host name */
    CONFIG_MAILBOX,    /* char *, a mail address */
    CONFIG_PATH,       /* char *, absolute */
    CONFIG_ZONE,       /* char *, a time zone of this machine */
    CONFIG_USER,       /* char *, a user of this machine */
    CONFIG_GROUP,      /* char *, a group of this machine */
    CONFIG_CHOICE,     /* char *, one of the words in choices */
    CONFIG_ADDRESS,    /* struct config_address with a port, or unix: */
    CONFIG_IPV4,       /* struct config_address without one; len 0 when absent */
    CONFIG_IPV6,
    CONFIG_RATE,         /* uint64_t, and its period in ms (uint32_t) at offset2 */
    CONFIG_BYTE_RATE,    /* the same, of bytes */
    CONFIG_TEXT_LIST,    /* char **, length (size_t) at offset2 */
    CONFIG_SERVER_LIST,  /* the same, of name server addresses "192.0.2.53[:port]" */
    CONFIG_SENDER_LIST,  /* the same, of senders */
    CONFIG_NETWORK_LIST, /* struct config_network *, length at offset2 */
    CONFIG_SECONDS_LIST, /* uint32_t *, length at offset2 */
    CONFIG_COUNT_LIST,   /* the same */
    CONFIG_SECTION,      /* keys below; offset is that of the struct their offsets count from */
    CONFIG_RETRY,        /* a section, or a list of durations that stands for its 'steps' */
    CONFIG_ITEMS,        /* sequence of sections: an array of structs, length (size_t) at offset2 */
    CONFIG_MAP,         /* mapping from a key to a section; the same, the key is a member of each */
    CONFIG_ROUTES,      /* mapping: pattern -> next hop */
    CONFIG_DESTINATIONS /* mapping: pattern -> destination section */
};

/* How values of a type are handled. */
enum config_class {
    CONFIG_CLASS_BOOL,
    CONFIG_CLASS_NUMBER,
    CONFIG_CLASS_TEXT,
    CONFIG_CLASS_ADDRESS,
    CONFIG_CLASS_RATE,
    CONFIG_CLASS_LIST,
    CONFIG_CLASS_ITEMS,
    CONFIG_CLASS_SECTION /* and what is made of sections in a way of its own */
};

struct config_type_info {
    const char *name;  /* in the reference */
    const char *wrong; /* "is not ...; write ...", behind a value that is none of these */
    enum config_class class;
    size_t bytes;                              /* of a number, or of an item of a list */
    int (*parse)(struct str s, uint64_t *out); /* numbers and lists of numbers */
    void (*format)(struct buf *out, uint64_t v);
};

extern const struct config_type_info config_types[]; /* by enum config_type */

struct config_section;

/* Of a sequence or mapping of sections. */
struct config_items {
    size_t bytes; /* of an item */
    size_t max;   /* how many there may be; 0: any number */
    size_t room;  /* for items that are not of the file */
    /* A mapping's key, a member of the item: a name, a domain pattern or a pattern of sites' names
     * (char *), or a network. */
    enum {
        CONFIG_KEY_NAME,
        CONFIG_KEY_NAME_OR_ALL,
        CONFIG_KEY_PATTERN,
        CONFIG_KEY_SITE,
        CONFIG_KEY_NETWORK
    } key;
    uint32_t key_offset;
    const char *key_word; /* in the reference: "NETWORK" */
    const char *unique;   /* a field that no two items of a sequence may have alike, or NULL */
    const char *write;    /* "write ..." of an error */
};

struct config_field {
    const char *name;
    enum config_type type;
    bool restart;      /* a change needs a restart */
    const char *needs; /* what it needs instead, or NULL */
    bool required;
    uint32_t offset, offset2;
    const char *def; /* the default as the file would write it (lists: comma-separated), or NULL */
    const char *def_text; /* what the reference says instead, when def cannot */
    uint64_t min, max;    /* of numbers, in the member's unit */
    const char *zero;     /* the word for 0 or NULL ("auto", "none"), or NULL when there is none */
    const char *choices;  /* "error, warn, info, debug" */
    const struct config_section *section;
    const struct config_items *items;
    const char *doc;
    const char *example; /* of the value */
};

struct config_section {
    const char *doc;
    const char *example; /* YAML for the reference, or NULL */
    const struct config_field *fields;
    size_t len;
    size_t shared; /* the first so many are also another section's, which explains them */
};

extern const struct config_section config_schema;             /* offsets in struct config */
extern const struct config_section config_listener_schema;    /* in struct config_listener */
extern const struct config_section config_destination_schema; /* in struct config_destination */
extern const struct config_section config_provider_schema;    /* in struct config_provider */
extern const struct config_section config_warmup_schema;      /* in struct config */
extern const struct config_section config_rule_schema;        /* in struct config_rule */

/* The field of a section, or NULL. */
const struct config_field *config_field_find(const struct config_section *s, struct str name);
/* The field of a key that this program's code names: the section has it. */
const struct config_field *config_key(const struct config_section *s, const char *name);
/* The same of a key within a key of the top, as `path` of `queue`. */
const struct config_field *config_key_in(const char *top, const char *name);

#endif
