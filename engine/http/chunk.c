#include "http/chunk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/csv.h"
#include "mail/recipe.h"
#include "smtp/address.h"

#define BOM "\xef\xbb\xbf"

struct chunk {
    enum chunk_format format;
    struct buf email, variables; /* of the row at hand */
    size_t body_len;
    uint64_t line;
    /* NDJSON. */
    struct str rest;
    uint64_t next_line;
    /* CSV: the reader, its headings, and which of them are no variables. */
    struct csv csv;
    struct buf names;
    struct str columns[CSV_CELLS_MAX];
    size_t columns_len;
    ptrdiff_t email_at, name_at; /* name_at -1: there is none */
};

__attribute__((format(printf, 3, 4))) static int fail(struct chunk_error *error, uint64_t line,
                                                      const char *format, ...)
{
    va_list args;

    error->line = line;
    va_start(args, format);
    vsnprintf(error->text, sizeof(error->text), format, args);
    va_end(args);
    return -EINVAL;
}

/* What templates take: UTF-8 without NUL. */
static bool is_text(struct str s)
{
    return memchr(s.len == 0 ? "" : s.ptr, '\0', s.len) == NULL && smtp_utf8_valid(s);
}

/* --- NDJSON --- */

static int read_json(struct chunk *c, struct str text, struct chunk_error *error)
{
    struct json_mistake mistake;
    json_t *one;
    int err;

    ASSERT(c->format == CHUNK_NDJSON && c->email.len == 0);
    if (text.len > CHUNK_LINE_MAX)
        return fail(error, c->line, "longer than %d bytes", CHUNK_LINE_MAX);
    if (!is_text(text))
        return fail(error, c->line, "is not UTF-8");
    one = json_fields_load(text, NULL, &mistake);
    if (one == NULL)
        return fail(error, c->line, "%s", mistake.text);
    if (!json_is_object(one)) {
        json_decref(one);
        return fail(error, c->line, "must be a JSON object");
    }
    err = recipe_check_recipient(one, "", &mistake);
    if (err == 0) {
        buf_put_str(&c->email, json_str(json_object_get(one, "email")));
        recipe_put_recipient(one, &c->variables);
    } else {
        fail(error, c->line, "%s%s%s", mistake.field, *mistake.field != '\0' ? ": " : "",
             mistake.text);
    }
    json_decref(one);
    return err;
}

static int next_json(struct chunk *c, struct chunk_error *error)
{
    while (c->rest.len > 0) {
        struct str text = str_take(&c->rest, '\n');

        c->line = c->next_line++;
        if (text.len > 0 && text.ptr[text.len - 1] == '\r')
            text.len--;
        if (str_trim(text).len > 0)
            return read_json(c, text, error) < 0 ? -EINVAL : 1;
    }
    return 0;
}

/* --- CSV --- */

static ptrdiff_t column_find(const struct chunk *c, struct str name, size_t before)
{
    for (size_t i = 0; i < before; i++)
        if (str_eq(c->columns[i], name))
            return (ptrdiff_t)i;
    return -1;
}

/* Where lines end in CR alone, the whole file is the first of them. */
static bool has_bare_cr(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '\r' && (i + 1 == s.len || s.ptr[i + 1] != '\n'))
            return true;
    return false;
}

static int check_columns(struct chunk *c, struct chunk_error *error)
{
    for (size_t i = 0; i < c->columns_len; i++) {
        struct str name = c->columns[i];

        if (has_bare_cr(name))
            return fail(error, c->csv.line, "lines end in CR alone; LF and CR LF are taken");
        if (name.len == 0 || name.len > CHUNK_COLUMN_MAX || !is_text(name))
            return fail(error, c->csv.line,
                        "the heading of column %zu is not 1 to %d bytes of UTF-8", i + 1,
                        CHUNK_COLUMN_MAX);
        if (column_find(c, name, i) >= 0)
            return fail(error, c->csv.line, "the heading '%.*s' is there twice", STR_FMT(name));
    }
    c->email_at = column_find(c, STR("email"), c->columns_len);
    c->name_at = column_find(c, STR("name"), c->columns_len);
    if (c->email_at >= 0)
        return 0;
    for (size_t i = 0; i < c->columns_len; i++)
        if (str_eq_nocase(c->columns[i], STR("email")))
            return fail(error, c->csv.line,
                        "the first line names no column 'email', but '%.*s': case counts",
                        STR_FMT(c->columns[i]));
    return fail(error, c->csv.line, "the first line names no column 'email'%s",
                c->columns_len == 1 &&
                        (str_find(c->columns[0], ';') >= 0 || str_find(c->columns[0], '\t') >= 0)
                    ? ": cells are parted by commas"
                    : "");
}

static int read_columns(struct chunk *c, struct chunk_error *error)
{
    int got = csv_next(&c->csv);
    size_t at = 0;

    if (got <= 0)
        return fail(error, got < 0 ? c->csv.line : 1, "%s",
                    got < 0 ? c->csv.error : "no line of headings");
    buf_put(&c->names, c->csv.text.data, c->csv.text.len);
    for (size_t i = 0; i < c->csv.cells_len; i++) {
        size_t len = c->csv.cells[i].len;

        c->columns[i] =
            str_trim((struct str){len == 0 ? "" : (const char *)c->names.data + at, len});
        at += len;
        ASSERT(at <= c->names.len);
    }
    c->columns_len = c->csv.cells_len;
    return check_columns(c, error);
}

/* Whether all cells can be told from each other. */
static int check_csv(struct str body, struct chunk_error *error)
{
    struct csv *csv = malloc(sizeof(*csv));
    int got;

    ASSERT(csv != NULL);
    csv_init(csv, body);
    do
        got = csv_next(csv);
    while (got > 0);
    if (got < 0)
        fail(error, csv->line, "%s", csv->error);
    csv_done(csv);
    free(csv);
    return got;
}

static void put_cells(struct chunk *c)
{
    struct buf *out = &c->variables;
    const struct str *cells = c->csv.cells;
    bool named = c->name_at >= 0 && cells[c->name_at].len > 0;
    size_t variables = c->columns_len - 1 - (c->name_at >= 0), put = 0;

    ASSERT(c->columns_len == c->csv.cells_len && c->email_at != c->name_at);
    if (!named && variables == 0)
        return;
    buf_putc(out, '{');
    if (named) {
        buf_puts(out, "\"name\":");
        buf_put_json(out, cells[c->name_at]);
    }
    if (named && variables > 0)
        buf_putc(out, ',');
    if (variables > 0)
        buf_puts(out, "\"substitutions\":{");
    for (size_t i = 0; i < c->columns_len; i++) {
        if ((ptrdiff_t)i == c->email_at || (ptrdiff_t)i == c->name_at)
            continue;
        buf_puts(out, put++ > 0 ? "," : "");
        buf_put_json(out, c->columns[i]);
        buf_putc(out, ':');
        buf_put_json(out, cells[i]);
    }
    ASSERT(put == variables);
    buf_puts(out, variables > 0 ? "}}" : "}");
}

static int next_csv(struct chunk *c, struct chunk_error *error)
{
    int got = csv_next(&c->csv);

    ASSERT(got >= 0); /* check_csv() has seen all of it */
    if (got == 0)
        return 0;
    c->line = c->csv.line;
    if (c->csv.cells_len != c->columns_len)
        return fail(error, c->line, "%zu cells under %zu headings", c->csv.cells_len,
                    c->columns_len);
    for (size_t i = 0; i < c->csv.cells_len; i++)
        if (!is_text(c->csv.cells[i]))
            return fail(error, c->line, "column %zu " CSV_NOT_UTF8, i + 1);
    buf_put_str(&c->email, str_trim(c->csv.cells[c->email_at]));
    put_cells(c);
    return 1;
}

/* --- both --- */

int chunk_open(struct chunk **out, enum chunk_format format, struct str body,
               struct chunk_error *error)
{
    bool marked = body.len >= 3 && memcmp(body.ptr, BOM, 3) == 0;
    struct chunk *c = calloc(1, sizeof(*c));
    int err = 0;

    ASSERT(c != NULL);
    c->format = format;
    c->body_len = body.len;
    c->rest = marked ? (struct str){body.ptr + 3, body.len - 3} : body;
    c->next_line = 1;
    if (format == CHUNK_CSV) {
        csv_init(&c->csv, body);
        err = check_csv(body, error);
        if (err == 0)
            err = read_columns(c, error);
    }
    if (err < 0) {
        chunk_close(c);
        return err;
    }
    *out = c;
    return 0;
}

void chunk_close(struct chunk *c)
{
    if (c == NULL)
        return;
    csv_done(&c->csv);
    buf_done(&c->names);
    buf_done(&c->email);
    buf_done(&c->variables);
    free(c);
}

int chunk_next(struct chunk *c, struct chunk_row *out, struct chunk_error *error)
{
    int got;

    buf_clear(&c->email);
    buf_clear(&c->variables);
    got = c->format == CHUNK_NDJSON ? next_json(c, error) : next_csv(c, error);
    if (got == 1 && c->variables.len > RECIPE_RECIPIENT_MAX)
        return fail(error, c->line,
                    "name, variables and metadata take %zu bytes as JSON, at most %d have room",
                    c->variables.len, RECIPE_RECIPIENT_MAX);
    out->email = buf_str(&c->email);
    out->variables = buf_str(&c->variables);
    return got;
}

uint64_t chunk_line(const struct chunk *c)
{
    return c->line;
}

size_t chunk_read_bytes(const struct chunk *c)
{
    size_t rest = c->format == CHUNK_NDJSON ? c->rest.len : c->csv.rest.len;

    ASSERT(rest <= c->body_len);
    return c->body_len - rest;
}
