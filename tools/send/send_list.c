#include "tools/send/send_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/csv.h"
#include "dns/name.h"
#include "smtp/address.h"
#include "tools/commands/input.h"
#include "tools/commands/screen.h"

#define WHERE_BYTES   600
#define SHOWN_COLUMNS 60

void send_list_done(struct send_list *l)
{
    buf_done(&l->text);
    buf_done(&l->starts);
}

size_t send_list_len(const struct send_list *l)
{
    return l->starts.len / sizeof(size_t);
}

struct str send_list_at(const struct send_list *l, size_t i)
{
    size_t start;

    memcpy(&start, l->starts.data + i * sizeof(start), sizeof(start));
    return str_of((const char *)l->text.data + start);
}

struct str send_list_wire(const struct send_list *l, size_t i)
{
    struct str given = send_list_at(l, i);

    return str_is_ascii(given) ? given : str_of(given.ptr + given.len + 1);
}

void send_put_wire(struct buf *out, struct str address)
{
    struct smtp_address parsed;
    struct dns_name domain;

    if (smtp_address_parse(address, true, &parsed) < 0 || !str_is_ascii(parsed.local_part) ||
        str_is_ascii(parsed.domain) || dns_name_parse(&domain, parsed.domain) < 0) {
        buf_put_str(out, address);
        return;
    }
    buf_put_str(out, parsed.local_part);
    buf_putc(out, '@');
    buf_put(out, domain.text, domain.len);
}

/* Names one entry that is left out, as long as there are not too many. */
static void report(struct send_list *l, const char *where, struct str text, const char *what)
{
    struct buf out = {0};
    char shown[SMTP_PATH_MAX + 1];
    size_t len = text.len < sizeof(shown) - 1 ? text.len : sizeof(shown) - 1;

    l->invalid++;
    if (l->invalid > l->reported_max)
        return;
    if (len > 0)
        memcpy(shown, text.ptr, len);
    shown[len] = '\0';
    buf_printf(&out, "%s: ", where);
    if (len > 0) {
        buf_putc(&out, '\'');
        put_text(&out, shown, SHOWN_COLUMNS, false);
        buf_puts(&out, "': ");
    }
    buf_printf(&out, "%s\n", what);
    if (l->invalid == l->reported_max)
        buf_puts(&out, "further ones are only counted\n");
    flush_text(&out, stderr);
    buf_done(&out);
}

void send_list_add(struct send_list *l, struct str address, const char *where)
{
    struct smtp_address parsed;
    size_t start = l->text.len;

    address = str_trim(address);
    if (address.len == 0) {
        report(l, where, address, "no address");
        return;
    }
    if (!smtp_utf8_valid(address)) {
        report(l, where, address, CSV_NOT_UTF8);
        return;
    }
    if (smtp_address_parse(address, true, &parsed) < 0) {
        report(l, where, address, smtp_address_fault(address)->words);
        return;
    }
    buf_put_str(&l->text, parsed.text);
    buf_putc(&l->text, '\0');
    if (!str_is_ascii(address)) {
        send_put_wire(&l->text, parsed.text);
        buf_putc(&l->text, '\0');
    }
    buf_put(&l->starts, &start, sizeof(start));
}

int send_list_read_lines(struct send_list *l, const char *file)
{
    struct buf content = {0};
    char where[WHERE_BYTES];
    struct str rest;
    uint64_t line = 0;
    int err = input_read("send", file, &content);

    rest = buf_str(&content);
    while (err == 0 && rest.len > 0) {
        ptrdiff_t end = str_find(rest, '\n');
        struct str one = {rest.ptr, end < 0 ? rest.len : (size_t)end};

        rest.ptr += one.len + (end >= 0);
        rest.len -= one.len + (end >= 0);
        line++;
        if (one.len > 0 && one.ptr[one.len - 1] == '\r')
            one.len--;
        one = str_trim(one);
        if (one.len == 0 || *one.ptr == '#')
            continue;
        snprintf(where, sizeof(where), "%s:%lu", file, line);
        send_list_add(l, one, where);
    }
    buf_done(&content);
    return err;
}

/* What spreadsheets make that is not what is read here; else what to do. */
static const char *column_hint(const struct csv *c)
{
    struct str first = c->cells_len > 0 ? c->cells[0] : STR("");

    if (str_starts_nocase(first, STR("\xff\xfe")) || str_starts_nocase(first, STR("\xfe\xff")))
        return "it is UTF-16: write it as UTF-8";
    if (c->cells_len == 1 && str_find(first, ';') >= 0)
        return "it has ';' between its values: write commas";
    if (c->cells_len == 1 && str_find(first, '\t') >= 0)
        return "it has TAB between its values: write commas";
    if (c->cells_len == 1 && str_find(first, '@') >= 0)
        return "a list of addresses alone is for --to-file";
    return "--column says which has the addresses";
}

/* The index of the cell that is column, or -1 after saying what there is. */
static ptrdiff_t find_column(const struct csv *c, const char *file, const char *column)
{
    struct buf known = {0};

    for (size_t i = 0; i < c->cells_len; i++)
        if (str_eq_nocase(str_trim(c->cells[i]), str_of(column)))
            return (ptrdiff_t)i;
    for (size_t i = 0; i < c->cells_len && i < 20; i++) {
        char name[64];

        snprintf(name, sizeof(name), "%.*s", STR_FMT(c->cells[i]));
        buf_puts(&known, i > 0 ? ", " : "");
        put_text(&known, name, 30, false);
    }
    fprintf(stderr, "hayauma send: %s:%lu: no column '%s'; the first line names: %.*s; %s\n", file,
            c->line, column, STR_FMT(buf_str(&known)), column_hint(c));
    buf_done(&known);
    return -1;
}

static int read_records(struct send_list *l, struct csv *c, const char *file, const char *column)
{
    char where[WHERE_BYTES];
    ptrdiff_t index;
    int got = csv_next(c);

    if (got == 0)
        fprintf(stderr, "hayauma send: %s: empty\n", file);
    if (got < 0)
        fprintf(stderr, "hayauma send: %s:%lu: %s\n", file, c->line, c->error);
    if (got <= 0)
        return -EINVAL;
    index = find_column(c, file, column);
    if (index < 0)
        return -EINVAL;
    while ((got = csv_next(c)) > 0) {
        snprintf(where, sizeof(where), "%s:%lu", file, c->line);
        if ((size_t)index >= c->cells_len)
            report(l, where, STR(""), "the line has no such cell");
        else
            send_list_add(l, c->cells[index], where);
    }
    /* Behind a quote that is not closed, or not where it should be, no line is what it seems: half
     * of a list would get mail, the rest would be one cell. */
    if (got < 0)
        fprintf(stderr, "hayauma send: %s:%lu: %s; nothing was sent\n", file, c->line, c->error);
    return got;
}

int send_list_read_csv(struct send_list *l, const char *file, const char *column)
{
    struct csv *c = malloc(sizeof(*c));
    struct buf content = {0};
    int err = input_read("send", file, &content);

    ASSERT(c != NULL);
    csv_init(c, buf_str(&content));
    if (err == 0)
        err = read_records(l, c, file, column);
    csv_done(c);
    free(c);
    buf_done(&content);
    return err;
}
