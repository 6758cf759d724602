/* A configuration as YAML (config show) and the schema as its reference (config docs). */
#include <ctype.h>

#include "config/config_private.h"
#include "config/config_value.h"

static const void *member(const struct config_field *f, const void *base)
{
    return (const char *)base + f->offset;
}

/* A text as a YAML scalar: plain where it is surely safe, JSON's quoting (a subset of YAML's)
 * otherwise. */
static void print_text(struct buf *out, const char *text)
{
    bool plain = isalpha((unsigned char)*text) || *text == '/';

    for (const char *p = text; plain && *p != 0; p++)
        plain = isalnum((unsigned char)*p) || strchr("-_./@", *p) != NULL;
    if (plain)
        buf_puts(out, text);
    else
        buf_put_json(out, str_of(text));
}

static void print_number(const struct config_field *f, uint64_t v, struct buf *out)
{
    if (v == 0 && f->zero != NULL) {
        buf_puts(out, f->zero);
        return;
    }
    ASSERT(config_types[f->type].format != NULL);
    config_types[f->type].format(out, v);
}

static uint64_t number(const struct config_field *f, const void *base)
{
    if (config_types[f->type].bytes == sizeof(uint64_t))
        return *(const uint64_t *)member(f, base);
    if (config_types[f->type].bytes == sizeof(uint16_t))
        return *(const uint16_t *)member(f, base);
    return *(const uint32_t *)member(f, base);
}

static void print_item(const struct config_field *f, const void *items, size_t i, struct buf *out)
{
    if (f->type == CONFIG_SECONDS_LIST || f->type == CONFIG_COUNT_LIST) {
        config_types[f->type].format(out, ((const uint32_t *)items)[i]);
    } else if (f->type == CONFIG_NETWORK_LIST) {
        buf_putc(out, '"');
        config_format_network(out, (const struct config_network *)items + i);
        buf_putc(out, '"');
    } else {
        print_text(out, ((char *const *)items)[i]);
    }
}

static void print_list(const struct config_field *f, const void *base, struct buf *out)
{
    const void *items = *(void *const *)member(f, base);
    size_t n = *(const size_t *)((const char *)base + f->offset2);

    buf_putc(out, '[');
    for (size_t i = 0; i < n; i++) {
        if (i != 0)
            buf_puts(out, ", ");
        print_item(f, items, i, out);
    }
    buf_putc(out, ']');
}

static void print_rate(const struct config_field *f, const void *base, struct buf *out)
{
    uint64_t messages = *(const uint64_t *)member(f, base);

    ASSERT(f->zero != NULL);
    if (messages == 0)
        buf_puts(out, f->zero);
    else if (f->type == CONFIG_BYTE_RATE)
        config_format_byte_rate(out, messages,
                                *(const uint32_t *)((const char *)base + f->offset2));
    else
        config_format_rate(out, messages, *(const uint32_t *)((const char *)base + f->offset2));
}

/* Nothing when the member is absent and no word stands for that. */
void config_print_member(const struct config_field *f, const void *base, struct buf *out)
{
    const char *text;

    switch (config_types[f->type].class) {
    case CONFIG_CLASS_BOOL:
        buf_puts(out, *(const bool *)member(f, base) == (f->type == CONFIG_BOOL) ? "yes" : "no");
        break;
    case CONFIG_CLASS_NUMBER:
        print_number(f, number(f, base), out);
        break;
    case CONFIG_CLASS_TEXT:
        text = *(char *const *)member(f, base);
        if (text != NULL)
            print_text(out, text);
        else if (f->zero != NULL)
            buf_puts(out, f->zero);
        break;
    case CONFIG_CLASS_ADDRESS:
        text = ((const struct config_address *)member(f, base))->text;
        if (text != NULL)
            buf_put_json(out, str_of(text));
        break;
    case CONFIG_CLASS_RATE:
        print_rate(f, base, out);
        break;
    case CONFIG_CLASS_LIST:
        print_list(f, base, out);
        break;
    case CONFIG_CLASS_ITEMS:
    case CONFIG_CLASS_SECTION:
        break;
    }
}

void config_print_key(const struct config_field *f, const void *item, struct buf *out)
{
    const void *key = (const char *)item + f->items->key_offset;

    ASSERT(f->type == CONFIG_MAP);
    switch (f->items->key) {
    case CONFIG_KEY_NETWORK:
        buf_putc(out, '"');
        config_format_network(out, key);
        buf_putc(out, '"');
        break;
    case CONFIG_KEY_NAME:
    case CONFIG_KEY_NAME_OR_ALL:
    case CONFIG_KEY_PATTERN:
    case CONFIG_KEY_SITE:
        print_text(out, *(char *const *)key);
        break;
    }
}

/* What a configuration is printed with. */
struct printer {
    const struct config *c;
    struct buf *out;
};

static void print_section(struct printer *p, const struct config_section *s, const void *base,
                          int indent, const char *first);

static void print_items(struct printer *p, const struct config_field *f, const void *base,
                        int indent)
{
    size_t n = *(const size_t *)(const void *)((const char *)base + f->offset2);
    const char *items = *(char *const *)member(f, base);
    bool is_map = f->type == CONFIG_MAP;

    ASSERT(n == 0 || items != NULL);
    buf_printf(p->out, "%*s%s:%s\n", indent, "", f->name, n > 0 ? "" : is_map ? " {}" : " []");
    for (size_t i = 0; i < n; i++) {
        const char *item = items + i * f->items->bytes;

        if (!is_map) {
            print_section(p, f->section, item, indent + 4, "- ");
            continue;
        }
        buf_printf(p->out, "%*s", indent + 2, "");
        config_print_key(f, item, p->out);
        buf_puts(p->out, ":\n");
        print_section(p, f->section, item, indent + 4, NULL);
    }
}

/* What is absent stays so as a comment, so that the text can be read back; behind a value stands
 * the line of the file that gives it. */
static void print_value(struct printer *p, const struct config_field *f, const void *base,
                        int indent, const char *first)
{
    unsigned line = config_line_of(p->c, base, f);
    struct buf value = {0};

    config_print_member(f, base, &value);
    ASSERT(first == NULL || (int)strlen(first) <= indent); /* it goes in front of the key */
    if (first != NULL)
        buf_printf(p->out, "%*s%s", indent - (int)strlen(first), "", first);
    else
        buf_printf(p->out, "%*s%s", indent, "", value.len == 0 ? "# " : "");
    buf_printf(p->out, "%s:%s%.*s", f->name, value.len == 0 ? "" : " ", STR_FMT(buf_str(&value)));
    if (line != 0)
        buf_printf(p->out, "  # %s:%u", p->c->file, line);
    buf_putc(p->out, '\n');
    buf_done(&value);
}

/* indent: of the section's keys. first: what goes before the first one ("- "). */
static void print_section(struct printer *p, const struct config_section *s, const void *base,
                          int indent, const char *first)
{
    for (size_t i = 0; i < s->len; i++) {
        const struct config_field *f = &s->fields[i];

        if (f->type == CONFIG_SECTION || f->type == CONFIG_RETRY) {
            buf_printf(p->out, "%*s%s:\n", indent, "", f->name);
            print_section(p, f->section, base, indent + 2, NULL);
        } else if (f->items != NULL) {
            print_items(p, f, base, indent);
        } else if (config_types[f->type].class != CONFIG_CLASS_SECTION) {
            print_value(p, f, base, indent, first);
            first = NULL;
        }
    }
}

void config_print(const struct config *c, struct buf *out)
{
    struct printer p = {c, out};

    print_section(&p, &config_schema, c, 0, NULL);
    buf_puts(out, c->routes_len == 0 ? "routes: {}\n" : "routes:\n");
    for (size_t i = 0; i < c->routes_len; i++) {
        buf_puts(out, "  ");
        print_text(out, c->routes[i].pattern);
        buf_puts(out, ": ");
        config_print_route(&c->routes[i], out);
        if (c->routes[i].line != 0)
            buf_printf(out, "  # %s:%u", c->file, c->routes[i].line);
        buf_putc(out, '\n');
    }
    buf_puts(out, "destinations:\n");
    for (size_t i = 0; i < c->destinations_len; i++) {
        buf_puts(out, "  ");
        print_text(out, c->destinations[i].pattern);
        buf_puts(out, ":\n");
        print_section(&p, &config_destination_schema, &c->destinations[i], 4, NULL);
    }
}

/* --- the reference --- */

void config_print_range(const struct config_field *f, struct buf *out)
{
    struct config_field plain = *f;

    if (f->choices != NULL) {
        buf_puts(out, f->choices);
        return;
    }
    if (f->max == 0 || f->type == CONFIG_HOURS)
        return;
    plain.zero = NULL;
    if (f->min == 0 && f->zero != NULL)
        buf_printf(out, "%s, or ", f->zero);
    print_number(&plain, f->min == 0 && f->zero != NULL ? 1 : f->min, out);
    buf_puts(out, " to ");
    print_number(&plain, f->max, out);
}

static void docs_default(const struct config_field *f, struct buf *out)
{
    if (f->def_text != NULL)
        buf_puts(out, f->def_text);
    else if (f->def == NULL)
        buf_puts(out, "");
    else if (f->zero != NULL && str_eq(str_of(f->def), STR("0")))
        buf_printf(out, "`%s`", f->zero);
    else
        buf_printf(out, "`%s%s%s`", config_field_is_list(f) ? "[" : "", f->def,
                   config_field_is_list(f) ? "]" : "");
}

static void docs_row(const struct config_field *f, const char *prefix, struct buf *out)
{
    struct buf range = {0};

    config_print_range(f, &range);
    buf_printf(out, "| `%s%s`%s | %s%s%.*s | ", prefix, f->name,
               f->restart && f->needs == NULL ? " ⟳" : "", config_types[f->type].name,
               range.len == 0       ? ""
               : f->choices != NULL ? " "
                                    : ", ",
               STR_FMT(buf_str(&range)));
    docs_default(f, out);
    buf_printf(out, " | %s", f->doc);
    if (f->example != NULL)
        buf_printf(out, " For example `%s`.", f->example);
    buf_puts(out, " |\n");
    buf_done(&range);
}

static void docs_rows(const struct config_section *s, const char *prefix, struct buf *out)
{
    for (size_t i = s->shared; i < s->len; i++) {
        const struct config_field *f = &s->fields[i];

        bool is_map = f->type == CONFIG_MAP, is_list = f->type == CONFIG_ITEMS;

        if (f->type != CONFIG_SECTION && f->type != CONFIG_RETRY && !is_map && !is_list) {
            docs_row(f, prefix, out);
        } else {
            struct buf below = {0};

            ASSERT(f->section->doc != NULL);
            buf_printf(&below, "%s%s%s.%s%s%c", prefix, f->name, is_list ? "[]" : "",
                       is_map ? f->items->key_word : "", is_map ? "." : "", 0);
            buf_printf(out, "| `%s%s` | %s | | %s |\n", prefix, f->name,
                       is_map    ? "map"
                       : is_list ? "list"
                                 : "section",
                       f->section->doc);
            docs_rows(f->section, (const char *)below.data, out);
            buf_done(&below);
        }
    }
}

static void docs_table(const struct config_section *s, struct buf *out)
{
    buf_puts(out, "| key | value | default | meaning |\n|---|---|---|---|\n");
    docs_rows(s, "", out);
    buf_putc(out, '\n');
}

static const char docs_head[] =
    "# Configuration reference\n"
    "\n"
    "<!-- Printed by `hayauma config docs`; change engine/config/config_schema*.c instead. -->\n"
    "\n"
    "One YAML file, given to `hayauma serve -c`. Every key is optional. `hayauma config check "
    "FILE` says\n"
    "what is wrong with one, with line and hint; `hayauma config show FILE` prints every value in "
    "force.\n"
    "Unknown keys, keys given twice, wrong types and values out of range are errors.\n"
    "\n"
    "`hayauma reload` (or SIGHUP) reads the file again. A file with a mistake changes nothing. "
    "Keys marked\n"
    "⟳ need a restart. Limits, weights and routes apply to mail that waits too, all else to "
    "what begins\n"
    "after the reload.\n"
    "\n"
    "## Values\n"
    "\n"
    "| value | written |\n"
    "|---|---|\n"
    "| number | `500`, `10k`, `1.5M`, `2G` |\n"
    "| size | `512` (bytes), `64KiB`, `5MiB`, `1.5GiB` (powers of 1024), `10kB`, `1GB` (powers of "
    "1000) |\n"
    "| duration | `500ms`, `30s`, `5m`, `2h`, `3d`, `1w`, `1h30m`; a number alone is refused |\n"
    "| rate | `5/s`, `100/min`, `10k/h`, `20000/d`, `100/10s` |\n"
    "| rate of bytes | `2MiB/s`, `500kB/min`, `10GB/d` |\n"
    "| percentage | `10%`, `0.5%` |\n"
    "| hours | `22-7`: from 22:00 up to 7:00; `\"0-6, 12-13\"` |\n"
    "| date | `2026-12-01` |\n"
    "| yes or no | `yes`, `no`, `true`, `false`, `on`, `off` |\n"
    "| list | `[a, b]`, or one value for a list of one |\n"
    "| address | `192.0.2.1:25`, `\"[2001:db8::1]:25\"`, `unix:/path` |\n"
    "\n"
    "For a key whose value may be a word such as `auto` or `none`, 0 means the same as the "
    "word.\n\n"
    "Texts need quotes when they start with `*`, `[`, `{`, `&`, `!`, `%`, `@` or a backquote, or "
    "contain `: ` or\n"
    "` #`. Anchors (`&name`), aliases (`*name`) and merging (`<<: *name`) work; keys at the top "
    "that begin with\n"
    "`x-` are skipped, which makes a home for anchors.\n"
    "\n";

void config_print_docs(struct buf *out)
{
    struct config_section top = config_schema;

    buf_puts(out, docs_head);
    while (top.len != 0 && top.fields[top.len - 1].section != NULL)
        top.len--; /* sections stand last and have their own chapters */
    buf_puts(out, "## Top level\n\n");
    docs_table(&top, out);
    for (size_t i = top.len; i < config_schema.len; i++) {
        const struct config_section *s = config_schema.fields[i].section;

        buf_printf(out, "## %s\n\n%s\n\n", config_schema.fields[i].name, s->doc);
        if (s->example != NULL)
            buf_printf(out, "```yaml\n%s```\n\n", s->example);
        if (s->len != 0)
            docs_table(s, out);
        if (s == &config_provider_schema) {
            config_print_profiles(out);
            buf_putc(out, '\n');
        }
    }
}
