#include "base/csv.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

void csv_init(struct csv *c, struct str text)
{
    *c = (struct csv){.rest = text, .next_line = 1};
    if (text.len >= 3 && memcmp(text.ptr, "\xef\xbb\xbf", 3) == 0)
        c->rest = (struct str){text.ptr + 3, text.len - 3};
}

void csv_done(struct csv *c)
{
    buf_done(&c->text);
}

static char csv_byte(struct csv *c)
{
    char byte = *c->rest.ptr++;

    c->rest.len--;
    c->next_line += byte == '\n';
    return byte;
}

/* Takes a line end if there is one here. */
static bool take_end(struct csv *c)
{
    if (c->rest.len >= 2 && memcmp(c->rest.ptr, "\r\n", 2) == 0)
        csv_byte(c);
    if (c->rest.len == 0 || *c->rest.ptr != '\n')
        return false;
    csv_byte(c);
    return true;
}

static int broken(struct csv *c, const char *error)
{
    c->error = error;
    while (c->rest.len > 0 && !take_end(c))
        csv_byte(c);
    return -EINVAL;
}

/* The inside of a quoted cell, its quotes included. */
static int take_quoted(struct csv *c)
{
    csv_byte(c);
    for (;;) {
        char byte;

        if (c->rest.len == 0) {
            c->error = "a quote is not closed before the end of the file";
            return -EINVAL;
        }
        byte = csv_byte(c);
        if (byte == '"') {
            if (c->rest.len == 0 || *c->rest.ptr != '"')
                return 0;
            csv_byte(c);
        }
        buf_putc(&c->text, byte);
    }
}

/* One cell; the byte behind it stays. */
static int take_cell(struct csv *c)
{
    if (c->rest.len > 0 && *c->rest.ptr == '"') {
        if (take_quoted(c) < 0)
            return -EINVAL;
        if (c->rest.len > 0 && *c->rest.ptr != ',' && *c->rest.ptr != '\r' && *c->rest.ptr != '\n')
            return broken(c, "text behind a closing quote");
        return 0;
    }
    while (c->rest.len > 0 && *c->rest.ptr != ',' && *c->rest.ptr != '\n') {
        if (*c->rest.ptr == '"')
            return broken(c, "a quote inside a cell that is not quoted");
        if (c->rest.len >= 2 && memcmp(c->rest.ptr, "\r\n", 2) == 0)
            break;
        buf_putc(&c->text, csv_byte(c));
    }
    return 0;
}

static int take_record(struct csv *c)
{
    size_t from;

    buf_clear(&c->text);
    c->cells_len = 0;
    c->line = c->next_line;
    for (;;) {
        from = c->text.len;
        if (c->cells_len == CSV_CELLS_MAX)
            return broken(c, "too many cells");
        if (take_cell(c) < 0)
            return -EINVAL;
        c->cells[c->cells_len++].len = c->text.len - from;
        if (c->rest.len == 0 || take_end(c))
            return 1;
        if (*c->rest.ptr != ',')
            return broken(c, "a carriage return inside a line");
        csv_byte(c);
    }
}

int csv_next(struct csv *c)
{
    const char *at;
    int got;

    while (take_end(c))
        ;
    if (c->rest.len == 0)
        return 0;
    got = take_record(c);
    at = c->text.len > 0 ? (const char *)c->text.data : "";
    for (size_t i = 0; got > 0 && i < c->cells_len; i++) {
        c->cells[i].ptr = at; /* the buffer does not move any more */
        at += c->cells[i].len;
    }
    return got;
}
