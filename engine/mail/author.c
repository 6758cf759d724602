#include "mail/author.h"

#include "mail/header.h"

#define AUTHORS_MAX 1000 /* of a message: each costs, and its From field may be all of it */

/* Where the reading of an address list is: outside of quotes and comments. */
struct reader {
    struct str value;
    size_t at;
    bool all;       /* an address in front of one in <> counts too */
    bool angle;     /* within <> */
    bool unclear;   /* others may read another address here */
    size_t local;   /* where the text in front of the '@' begins */
    size_t at_sign; /* the last '@', where domain says that there was one */
    size_t domain;  /* where the text behind it begins; 0: there was none */
    size_t domain_end;
};

/* Behind the quoted string or comment that r is at, which may have no end. */
static void skip_quoted(struct reader *r)
{
    struct str s = r->value;
    size_t i = r->at + 1;

    for (; i < s.len && s.ptr[i] != '"'; i++)
        if (s.ptr[i] == '\\')
            i++;
    ASSERT(r->at < s.len && s.ptr[r->at] == '"');
    r->unclear |= i >= s.len;
    r->at = i < s.len ? i + 1 : s.len;
}

static void skip_comment(struct reader *r)
{
    struct str s = r->value;
    size_t depth = 0;

    ASSERT(r->at < s.len && s.ptr[r->at] == '('); /* which makes the depth 1 */
    for (size_t i = r->at; i < s.len; i++) {
        if (s.ptr[i] == '\\')
            i++;
        else if (s.ptr[i] == '(')
            depth++;
        else if (s.ptr[i] == ')' && --depth == 0) {
            r->at = i + 1;
            return;
        }
    }
    r->unclear = true;
    r->at = s.len;
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* The next mailbox begins behind what r is at. */
static void reader_begin(struct reader *r)
{
    r->local = r->at + 1;
    r->domain = r->domain_end = 0;
}

/* What c does to a reader that stands at it. True: a mailbox with a domain has ended. */
static bool reader_step(struct reader *r, char c)
{
    switch (c) {
    case '@':
        r->unclear |= r->domain != 0;
        r->at_sign = r->at;
        r->domain = r->at + 1;
        r->domain_end = 0;
        return false;
    case '<':
        if (r->all && r->domain != 0)
            return true;
        r->unclear |= r->angle;
        r->angle = true;
        reader_begin(r);
        return false;
    case '>':
        r->angle = false;
        if (r->domain != 0)
            return true;
        reader_begin(r);
        return false;
    case ',':
    case ';':
        if (r->domain != 0 && !r->angle)
            return true;
        r->unclear |= r->domain != 0;
        reader_begin(r);
        return false;
    case ':': /* a group's name, or a route, ended */
        r->unclear |= r->domain != 0;
        reader_begin(r);
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

/* Finds the next mailbox with a domain. */
static bool reader_run(struct reader *r)
{
    while (r->at < r->value.len) {
        char c = r->value.ptr[r->at];

        if (c == '"' || c == '(' || is_space(c)) {
            bool empty = r->domain != 0 && r->domain == r->at; /* right behind the @ */

            reader_note_end(r);
            r->unclear |= c == '"' && r->domain != 0;
            if (c == '"')
                skip_quoted(r);
            else if (c == '(')
                skip_comment(r);
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
        } else {
            r->unclear |= r->domain_end != 0;
        }
        r->at++;
    }
    ASSERT(r->at == r->value.len);
    reader_note_end(r);
    return r->domain != 0;
}

static bool reader_domain(const struct reader *r, struct dns_name *out)
{
    struct str text = {r->value.ptr + r->domain, r->domain_end - r->domain};

    ASSERT(r->domain > 0 && r->domain_end <= r->value.len);
    return r->domain_end > r->domain && text.ptr[0] != '[' && dns_name_parse(out, text) == 0;
}

bool author_domain_of(struct str value, struct dns_name *out)
{
    struct reader r = {.value = value};

    return reader_run(&r) && reader_domain(&r, out);
}

/* *left: how many mailboxes there may be yet. */
static enum authors field_check(struct str value, author_fn *may, const void *arg, size_t *left)
{
    struct reader r = {.value = value, .all = true};
    enum authors result = AUTHORS_NONE;

    while (reader_run(&r)) {
        struct str local = {value.ptr + r.local, r.at_sign - r.local};
        struct dns_name domain;

        ASSERT(r.local <= r.at_sign && r.at_sign < r.domain);
        if (*left == 0 || !reader_domain(&r, &domain))
            return AUTHORS_UNCLEAR;
        --*left;
        if (!may(arg, str_trim(local), (struct str){domain.text, domain.len}))
            return AUTHORS_OTHERS;
        result = AUTHORS_GOOD;
        r.domain = r.domain_end = 0;
    }
    ASSERT(*left <= AUTHORS_MAX);
    return r.unclear || r.angle ? AUTHORS_UNCLEAR : result;
}

enum authors authors_check(const uint8_t *content, size_t len, author_fn *may, const void *arg)
{
    enum authors result = AUTHORS_NONE;
    size_t at = 0, left = AUTHORS_MAX;
    struct header_field f;

    for (; at < len && header_field_next(content, len, at, &f); at = f.end) {
        if (!str_eq_nocase(f.name, STR("from")))
            continue;
        result = field_check(header_field_value(content, &f), may, arg, &left);
        if (result != AUTHORS_GOOD)
            return result;
    }
    /* Others read on behind a line that is no field, and may find a From field there. */
    if (result == AUTHORS_GOOD && at < len && content[at] != '\r' && content[at] != '\n')
        return AUTHORS_UNCLEAR;
    return result;
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
