#include "mail/author.h"

#include "mail/header.h"

/* Where the reading of an address list is: outside of quotes and comments. */
struct reader {
    struct str value;
    size_t at;
    bool angle;    /* within <> */
    size_t domain; /* where the text behind the last '@' begins; 0: there was none */
    size_t domain_end;
};

/* Behind the quoted string or comment at i, which may have no end. */
static size_t skip_quoted(struct str s, size_t i)
{
    for (i++; i < s.len && s.ptr[i] != '"'; i++)
        if (s.ptr[i] == '\\')
            i++;
    return i < s.len ? i + 1 : s.len;
}

static size_t skip_comment(struct str s, size_t i)
{
    size_t depth = 0;

    for (; i < s.len; i++) {
        if (s.ptr[i] == '\\')
            i++;
        else if (s.ptr[i] == '(')
            depth++;
        else if (s.ptr[i] == ')' && --depth == 0)
            return i + 1;
    }
    return s.len;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* What c does to a reader that stands at it. True: a mailbox with a domain has ended. */
static bool reader_step(struct reader *r, char c)
{
    switch (c) {
    case '@':
        r->domain = r->at + 1;
        r->domain_end = 0;
        return false;
    case '<':
        r->angle = true;
        r->domain = 0;
        return false;
    case '>':
        r->angle = false;
        return r->domain != 0;
    case ',':
    case ';':
        return r->domain != 0 && !r->angle;
    case ':': /* a group's name, or a route, ended */
        r->domain = 0;
        return false;
    default:
        return false;
    }
}

/* The text of a domain has neither comments nor white space in it. */
static void reader_note_end(struct reader *r)
{
    if (r->domain != 0 && r->domain_end == 0 && r->at > r->domain)
        r->domain_end = r->at;
}

static void reader_skip_space(struct reader *r)
{
    while (r->at < r->value.len && is_space(r->value.ptr[r->at]))
        r->at++;
}

/* Finds the first mailbox with a domain. */
static bool reader_run(struct reader *r)
{
    while (r->at < r->value.len) {
        char c = r->value.ptr[r->at];

        if (c == '"' || c == '(' || is_space(c)) {
            bool empty = r->domain != 0 && r->domain == r->at; /* right behind the @ */

            reader_note_end(r);
            if (c == '"')
                r->at = skip_quoted(r->value, r->at);
            else if (c == '(')
                r->at = skip_comment(r->value, r->at);
            else
                reader_skip_space(r);
            if (empty)
                r->domain = r->at;
            continue;
        }
        if (strchr("@<>,;:", c) != NULL && c != 0) {
            if (c != '@')
                reader_note_end(r);
            if (reader_step(r, c))
                return true;
        }
        r->at++;
    }
    reader_note_end(r);
    return r->domain != 0;
}

bool author_domain_of(struct str value, struct dns_name *out)
{
    struct reader r = {.value = value};

    return reader_run(&r) && r.domain_end > r.domain && value.ptr[r.domain] != '[' &&
           dns_name_parse(out, (struct str){value.ptr + r.domain, r.domain_end - r.domain}) == 0;
}

bool author_domain(const uint8_t *content, size_t len, struct dns_name *out)
{
    struct header_field f;

    for (size_t at = 0; at < len && header_field_next(content, len, at, &f); at = f.end)
        if (str_eq_nocase(f.name, STR("from")) &&
            author_domain_of(header_field_value(content, &f), out))
            return true;
    return false;
}
