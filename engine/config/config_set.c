/* Texts into members: the values of the schema. */
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>

#include "base/zone.h"
#include "config/config_private.h"
#include "config/config_value.h"

static void *member(const struct config_field *f, void *base)
{
    return (char *)base + f->offset;
}

static const struct config_type_info *field_type_info(const struct config_field *f)
{
    return &config_types[f->type];
}

static int complain(struct buf *why, struct str text, const char *what)
{
    buf_printf(why, "'%.*s' %s", STR_FMT(text), what);
    return -EINVAL;
}

static int check_number(const struct config_field *f, struct str text, uint64_t *out,
                        struct buf *why)
{
    uint64_t v = 0;
    int err = 0;

    ASSERT(f->min <= f->max);
    if (f->zero == NULL || !str_eq_nocase(text, str_of(f->zero)))
        err = field_type_info(f)->parse(text, &v);
    if (err == -EINVAL) {
        complain(why, text, field_type_info(f)->wrong);
        if (f->zero != NULL)
            buf_printf(why, ", or %s", f->zero);
        return -EINVAL;
    }
    if (err != 0 || v < f->min || v > f->max) {
        buf_printf(why, "'%.*s' is out of range: ", STR_FMT(text));
        config_print_range(f, why);
        return -EINVAL;
    }
    *out = v;
    return 0;
}

static int set_number(const struct config_field *f, void *base, struct str text, struct buf *why)
{
    uint64_t v;
    int err = check_number(f, text, &v, why);

    if (err != 0)
        return err;
    ASSERT(f->max <= UINT64_MAX >> (64 - 8 * field_type_info(f)->bytes)); /* the member holds it */
    if (field_type_info(f)->bytes == sizeof(uint64_t))
        *(uint64_t *)member(f, base) = v;
    else if (field_type_info(f)->bytes == sizeof(uint16_t))
        *(uint16_t *)member(f, base) = (uint16_t)v;
    else
        *(uint32_t *)member(f, base) = (uint32_t)v;
    return 0;
}

static int set_bool(const struct config_field *f, void *base, struct str text, struct buf *why)
{
    bool v;

    if (config_parse_bool(text, &v) != 0)
        return complain(why, text, field_type_info(f)->wrong);
    *(bool *)member(f, base) = f->type == CONFIG_NOT ? !v : v;
    return 0;
}

static bool printable(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (ascii_is_control(s.ptr[i]))
            return false;
    return s.len != 0 && s.len <= 1000;
}

static bool is_choice(const struct config_field *f, struct str text)
{
    struct str rest = str_of(f->choices);

    while (rest.len != 0)
        if (str_eq(str_trim(str_take(&rest, ',')), text))
            return true;
    return false;
}

static bool mailbox_valid(struct str s)
{
    ptrdiff_t at = str_rfind(s, '@');

    if (at <= 0 || at > 64 || memchr(s.ptr, ' ', s.len) != NULL ||
        memchr(s.ptr, '<', s.len) != NULL || memchr(s.ptr, '>', s.len) != NULL)
        return false;
    return config_host_name_valid((struct str){s.ptr + at + 1, s.len - (size_t)at - 1});
}

static bool zone_exists(struct str name)
{
    struct zone *z;

    if (zone_load(name, &z) != 0)
        return false;
    zone_free(z);
    return true;
}

static int set_text(struct config *c, const struct config_field *f, void *base, struct str text,
                    struct buf *why)
{
    bool ok = printable(text);
    char *name;

    ASSERT((f->type == CONFIG_CHOICE) == (f->choices != NULL));
    if (f->zero != NULL && str_eq(text, str_of(f->zero))) {
        *(char **)member(f, base) = NULL;
        return 0;
    }
    if (ok && f->type == CONFIG_NAME) {
        name = config_host_name_normal(c, text);
        ok = name != NULL;
        text = ok ? str_of(name) : text;
    } else if (ok && f->type == CONFIG_MAILBOX)
        ok = mailbox_valid(text);
    else if (ok && f->type == CONFIG_PATH)
        ok = text.ptr[0] == '/';
    else if (ok && f->type == CONFIG_ZONE)
        ok = zone_exists(text);
    else if (ok && f->type == CONFIG_USER)
        ok = getpwnam(config_dup(c, text)) != NULL;
    else if (ok && f->type == CONFIG_GROUP)
        ok = getgrnam(config_dup(c, text)) != NULL;
    if (ok && f->type == CONFIG_CHOICE && !is_choice(f, text)) {
        buf_printf(why, "'%.*s' is not one of %s", STR_FMT(text), f->choices);
        return -EINVAL;
    }
    if (!ok)
        return complain(why, text, field_type_info(f)->wrong);
    *(char **)member(f, base) = config_dup(c, text);
    return 0;
}

static int set_address(struct config *c, const struct config_field *f, void *base, struct str text,
                       struct buf *why)
{
    struct config_address a;
    int err =
        f->type == CONFIG_ADDRESS ? config_parse_address(text, 0, &a) : config_parse_ip(text, &a);

    if (err == -ERANGE)
        return complain(why, text, "has a port beyond 65535 or a path beyond 107 bytes");
    if (err == 0 && f->type == CONFIG_IPV4 && a.addr.ss_family != AF_INET)
        err = -EINVAL;
    if (err == 0 && f->type == CONFIG_IPV6 && a.addr.ss_family != AF_INET6)
        err = -EINVAL;
    if (err != 0)
        return complain(why, text, field_type_info(f)->wrong);
    a.text = config_dup(c, text);
    *(struct config_address *)member(f, base) = a;
    return 0;
}

static int set_rate(const struct config_field *f, void *base, struct str text, struct buf *why)
{
    uint64_t messages = 0;
    uint32_t period_ms = 0;
    int err = 0;

    ASSERT(f->zero != NULL &&
           f->offset2 != f->offset); /* no rate has a word, and a period a place */
    if (!str_eq_nocase(text, str_of(f->zero)))
        err = f->type == CONFIG_BYTE_RATE ? config_parse_byte_rate(text, &messages, &period_ms)
                                          : config_parse_rate(text, &messages, &period_ms);
    if (err == 0 && messages == 0 && period_ms != 0)
        return complain(why, text, "would send nothing; write none for no limit");
    if (err == -ERANGE)
        return complain(why, text, "is out of range: a period is 1ms to 31d");
    if (err != 0)
        return complain(why, text, field_type_info(f)->wrong);
    *(uint64_t *)member(f, base) = messages;
    *(uint32_t *)((char *)base + f->offset2) = period_ms;
    return 0;
}

int config_set_scalar(struct config *c, const struct config_field *f, void *base, struct str text,
                      struct buf *why)
{
    switch (field_type_info(f)->class) {
    case CONFIG_CLASS_BOOL:
        return set_bool(f, base, text, why);
    case CONFIG_CLASS_NUMBER:
        return set_number(f, base, text, why);
    case CONFIG_CLASS_TEXT:
        return set_text(c, f, base, text, why);
    case CONFIG_CLASS_ADDRESS:
        return set_address(c, f, base, text, why);
    case CONFIG_CLASS_RATE:
        return set_rate(f, base, text, why);
    case CONFIG_CLASS_LIST:
    case CONFIG_CLASS_ITEMS:
    case CONFIG_CLASS_SECTION:
        break;
    }
    assert_failed("a scalar", __FILE__, __LINE__, __func__);
}

bool config_field_is_list(const struct config_field *f)
{
    return field_type_info(f)->class == CONFIG_CLASS_LIST;
}

int config_set_name(struct config *c, struct str text, char **out, struct buf *why)
{
    bool ok = text.len > 0 && text.len <= CONFIG_SHARE_NAME_MAX;

    for (size_t i = 0; i < text.len && ok; i++)
        ok = (text.ptr[i] >= 'a' && text.ptr[i] <= 'z') ||
             (text.ptr[i] >= 'A' && text.ptr[i] <= 'Z') ||
             (text.ptr[i] >= '0' && text.ptr[i] <= '9') || strchr("._-", text.ptr[i]) != NULL;
    if (!ok)
        return complain(why, text, "is not a name of 1 to 64 letters, digits, '.', '_', '-'");
    *out = config_dup(c, text);
    return 0;
}

int config_set_network(struct str text, struct config_network *out, struct buf *why)
{
    int err = config_parse_network(text, out);

    if (err == -EDOM) {
        buf_printf(why, "'%.*s' has bits set behind its prefix; write ", STR_FMT(text));
        config_format_network(why, out);
        return -EINVAL;
    }
    if (err != 0)
        return complain(why, text, config_types[CONFIG_NETWORK_LIST].wrong);
    return 0;
}

static int set_item(struct config *c, const struct config_field *f, void *item, struct str text,
                    struct buf *why)
{
    struct config_address server;
    uint64_t v;
    int err;

    if (f->type == CONFIG_NETWORK_LIST)
        return config_set_network(text, item, why);
    if (f->type == CONFIG_SENDER_LIST)
        return config_set_sender(c, text, item, why);
    if (f->type == CONFIG_SECONDS_LIST || f->type == CONFIG_COUNT_LIST) {
        err = check_number(f, text, &v, why);
        ASSERT(f->max <= UINT32_MAX);
        if (err == 0)
            *(uint32_t *)item = (uint32_t)v;
        return err;
    }
    if (f->type == CONFIG_SERVER_LIST &&
        (config_parse_address(text, 53, &server) != 0 || server.addr.ss_family == AF_UNIX))
        return complain(why, text, field_type_info(f)->wrong);
    if (f->choices != NULL && !is_choice(f, text)) {
        buf_printf(why, "'%.*s' is not one of %s", STR_FMT(text), f->choices);
        return -EINVAL;
    }
    if (!printable(text))
        return complain(why, text, field_type_info(f)->wrong);
    *(char **)item = config_dup(c, text);
    return 0;
}

int config_set_list(struct config *c, const struct config_field *f, void *base,
                    const struct str *texts, size_t n, struct buf *why, size_t *bad)
{
    size_t bytes = field_type_info(f)->bytes;
    char *items = n == 0 ? NULL : config_alloc(c, n * bytes);

    ASSERT(config_field_is_list(f) && bytes > 0 && f->offset2 != f->offset);
    for (size_t i = 0; i < n; i++) {
        int err = set_item(c, f, items + i * bytes, texts[i], why);

        if (err != 0) {
            *bad = i;
            return err;
        }
    }
    memcpy(member(f, base), &items, sizeof(items));
    *(size_t *)((char *)base + f->offset2) = n;
    return 0;
}

static void copy_list(struct config *c, const struct config_field *f, const void *from, void *to)
{
    size_t n = *(const size_t *)((const char *)from + f->offset2),
           bytes = field_type_info(f)->bytes;
    char *items = n == 0 ? NULL : config_alloc(c, n * bytes);

    if (n != 0)
        memcpy(items, *(void *const *)((const char *)from + f->offset), n * bytes);
    if (f->type == CONFIG_TEXT_LIST || f->type == CONFIG_SERVER_LIST ||
        f->type == CONFIG_SENDER_LIST)
        for (size_t i = 0; i < n; i++)
            ((char **)items)[i] = config_dup(c, str_of(((char **)items)[i]));
    memcpy(member(f, to), &items, sizeof(items));
    *(size_t *)((char *)to + f->offset2) = n;
}

static void copy_section(struct config *c, const struct config_section *s, const void *from,
                         void *to)
{
    for (size_t i = 0; i < s->len; i++)
        if (s->fields[i].type == CONFIG_SECTION)
            copy_section(c, s->fields[i].section, from, to);
        else
            config_copy_member(c, &s->fields[i], from, to);
}

static void copy_items(struct config *c, const struct config_field *f, const void *from, void *to)
{
    size_t n = *(const size_t *)(const void *)((const char *)from + f->offset2);
    size_t bytes = f->items->bytes;
    const char *source = *(char *const *)(const void *)((const char *)from + f->offset);
    char *items = config_alloc(c, (n + 1) * bytes);

    ASSERT(bytes > 0 && (n == 0 || source != NULL));
    if (n != 0)
        memcpy(items, source, n * bytes); /* the keys */
    for (size_t i = 0; i < n; i++) {
        char **name = (char **)(void *)(items + i * bytes + f->items->key_offset);

        if (f->type == CONFIG_MAP && f->items->key != CONFIG_KEY_NETWORK)
            *name = config_dup(c, str_of(*name));
        copy_section(c, f->section, source + i * bytes, items + i * bytes);
    }
    memcpy(member(f, to), &items, sizeof(items));
    memcpy((char *)to + f->offset2, &n, sizeof(n));
}

void config_copy_member(struct config *c, const struct config_field *f, const void *from, void *to)
{
    const void *source = (const char *)from + f->offset;
    const char *text;
    struct config_address *address;

    switch (field_type_info(f)->class) {
    case CONFIG_CLASS_BOOL:
        memcpy(member(f, to), source, sizeof(bool));
        return;
    case CONFIG_CLASS_NUMBER:
        memcpy(member(f, to), source, field_type_info(f)->bytes);
        return;
    case CONFIG_CLASS_TEXT:
        text = *(char *const *)source;
        *(char **)member(f, to) = text == NULL ? NULL : config_dup(c, str_of(text));
        return;
    case CONFIG_CLASS_ADDRESS:
        address = member(f, to);
        *address = *(const struct config_address *)source;
        if (address->text != NULL)
            address->text = config_dup(c, str_of(address->text));
        return;
    case CONFIG_CLASS_LIST:
        copy_list(c, f, from, to);
        return;
    case CONFIG_CLASS_ITEMS:
        copy_items(c, f, from, to);
        return;
    case CONFIG_CLASS_RATE:
        memcpy(member(f, to), source, sizeof(uint64_t));
        memcpy((char *)to + f->offset2, (const char *)from + f->offset2, sizeof(uint32_t));
        return;
    case CONFIG_CLASS_SECTION:
        break;
    }
    assert_failed("a member of a section", __FILE__, __LINE__, __func__);
}

#define DEFAULT_ITEMS_MAX 8

static int set_default_list(struct config *c, const struct config_field *f, void *base)
{
    struct str items[DEFAULT_ITEMS_MAX], rest = str_of(f->def);
    struct buf why = {0};
    size_t n = 0, bad;
    int err;

    while (rest.len != 0) {
        ASSERT(n < DEFAULT_ITEMS_MAX);
        items[n++] = str_trim(str_take(&rest, ','));
    }
    err = config_set_list(c, f, base, items, n, &why, &bad);
    buf_done(&why);
    return err;
}

void config_set_defaults(struct config *c, const struct config_section *s, void *base)
{
    struct buf why = {0};
    int err = 0;

    for (size_t i = 0; i < s->len; i++) {
        const struct config_field *f = &s->fields[i];

        if (f->items != NULL)
            continue;
        if (f->type == CONFIG_SECTION || f->type == CONFIG_RETRY)
            config_set_defaults(c, f->section, base);
        else if (f->def != NULL && config_field_is_list(f))
            err = set_default_list(c, f, base);
        else if (f->def != NULL)
            err = config_set_scalar(c, f, base, str_of(f->def), &why);
        ASSERT(err == 0); /* a default that its own schema refuses */
    }
    buf_done(&why);
}
