#include "mail/downgrade.h"

#include <errno.h>

#include "dns/name.h"
#include "mail/header.h"
#include "mail/words.h"

/* A name of one byte between commas becomes "=?unknown-8bit?Q?=E9?= ,". */
#define GROWTH_MAX     16
#define PARAMETERS_MAX 64 /* that are looked at; more make no type or name */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct str trim(struct str s)
{
    for (; s.len > 0 && is_space(*s.ptr); s.ptr++)
        s.len--;
    while (s.len > 0 && is_space(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

static struct str between(const char *from, const char *to)
{
    ASSERT(from <= to);
    return (struct str){from, (size_t)(to - from)};
}

/* --- tokens (RFC 5322 3.2) --- */

enum syntax { TEXT, PHRASE }; /* words between white space; with quotes, comments, specials */
enum token_kind { TOKEN_END, TOKEN_SPACE, TOKEN_WORD, TOKEN_QUOTED, TOKEN_SPECIAL };

struct token {
    enum token_kind kind;
    struct str text;
};

struct lexer {
    struct str left;
    enum syntax syntax;
    unsigned comments; /* that are open: quotes and specials mean nothing in them */
};

static struct str take_bytes(struct lexer *l, size_t n)
{
    struct str taken = {l->left.ptr, n};

    ASSERT(n > 0 && n <= l->left.len);
    l->left.ptr += n;
    l->left.len -= n;
    return taken;
}

static bool is_special(const struct lexer *l, char c)
{
    if (l->syntax == TEXT || c == '\0')
        return false;
    return strchr(l->comments > 0 ? "()" : "()<>@,;:\"[]", c) != NULL;
}

/* With the quotes; to the end where the second is missing. */
static size_t quoted_len(struct str s)
{
    size_t n = 1;

    ASSERT(s.len > 0 && *s.ptr == '"');
    while (n < s.len && s.ptr[n] != '"')
        n += s.ptr[n] == '\\' && n + 1 < s.len ? 2 : 1;
    return n < s.len ? n + 1 : s.len;
}

static struct token next_token(struct lexer *l)
{
    size_t n = 0;
    char first;

    if (l->left.len == 0)
        return (struct token){TOKEN_END, l->left};
    first = *l->left.ptr;
    if (is_space(first)) {
        while (n < l->left.len && is_space(l->left.ptr[n]))
            n++;
        return (struct token){TOKEN_SPACE, take_bytes(l, n)};
    }
    if (first == '"' && is_special(l, first))
        return (struct token){TOKEN_QUOTED, take_bytes(l, quoted_len(l->left))};
    if (is_special(l, first)) {
        if (first == '(')
            l->comments++;
        else if (first == ')' && l->comments > 0)
            l->comments--;
        return (struct token){TOKEN_SPECIAL, take_bytes(l, 1)};
    }
    while (n < l->left.len && !is_space(l->left.ptr[n]) && !is_special(l, l->left.ptr[n]))
        n += l->comments > 0 && l->left.ptr[n] == '\\' && n + 1 < l->left.len ? 2 : 1;
    return (struct token){TOKEN_WORD, take_bytes(l, n)};
}

/* What a token stands for: without quotes and the backslashes of quoted pairs. */
static void put_meaning(struct buf *out, const struct lexer *l, const struct token *t)
{
    struct str s = t->text;
    bool pairs = t->kind == TOKEN_QUOTED || l->comments > 0;

    if (t->kind == TOKEN_QUOTED) {
        s.ptr++;
        s.len -= s.len > 1 && s.ptr[s.len - 2] == '"' ? 2 : 1;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (pairs && s.ptr[i] == '\\' && i + 1 < s.len)
            i++;
        buf_putc(out, s.ptr[i]);
    }
}

/* --- text, phrases, comments --- */

/* White space between two encoded words is not shown, so that it moves into ours. */
static bool is_encoded(struct str s)
{
    return s.len > 6 && s.ptr[0] == '=' && s.ptr[1] == '?' && s.ptr[s.len - 2] == '?' &&
           s.ptr[s.len - 1] == '=';
}

/* Text whose words that are not ASCII become encoded words, those in a row together. */
struct run {
    struct words *w;
    struct buf text;    /* of the words not yet written */
    struct str space;   /* behind them */
    bool after_encoded; /* an encoded word of the sender's is what was written last */
    bool in_phrase;
};

static void run_end(struct run *r)
{
    if (r->text.len > 0) {
        words_put_encoded(r->w, buf_str(&r->text), r->in_phrase);
        buf_clear(&r->text);
    }
    words_put_gap(r->w, r->space);
    r->space = (struct str){0};
}

static void run_word(struct run *r, const struct lexer *l, const struct token *t)
{
    bool encoded = is_encoded(t->text);

    if (!str_is_ascii(t->text)) {
        if (r->text.len == 0) {
            words_put_gap(r->w, r->space);
            if (!r->after_encoded)
                r->space = (struct str){0};
        }
        buf_put_str(&r->text, r->space);
        r->space = (struct str){0};
        put_meaning(&r->text, l, t);
        return;
    }
    if (encoded && r->text.len > 0)
        buf_put_str(&r->text, r->space);
    run_end(r);
    if (r->w->after_word)
        words_need_gap(r->w);
    words_put_raw(r->w, t->text);
    r->after_encoded = encoded;
}

/* An encoded word stands apart from all but parentheses (RFC 2047 5). */
static void run_special(struct run *r, const struct token *t)
{
    bool parenthesis = *t->text.ptr == '(' || *t->text.ptr == ')';
    bool had_text = r->text.len > 0;

    run_end(r);
    if (had_text && !parenthesis)
        words_need_gap(r->w);
    words_put_raw(r->w, t->text);
    r->after_encoded = false;
}

static void put_text(struct words *w, struct str s, enum syntax syntax)
{
    struct lexer l = {.left = s, .syntax = syntax};
    struct run r = {.w = w, .in_phrase = syntax == PHRASE};
    struct token t;

    if (str_is_ascii(s)) {
        struct str inside = trim(s);

        words_put_gap(w, between(s.ptr, inside.ptr));
        words_put_raw(w, inside);
        words_put_gap(w, between(inside.ptr + inside.len, s.ptr + s.len));
        return;
    }
    while ((t = next_token(&l)).kind != TOKEN_END) {
        if (t.kind == TOKEN_SPACE)
            r.space = t.text;
        else if (t.kind == TOKEN_SPECIAL)
            run_special(&r, &t);
        else
            run_word(&r, &l, &t);
    }
    run_end(&r);
    buf_done(&r.text);
}

/* --- addresses (RFC 5322 3.4) --- */

/* The address in ASCII: its domain as A-labels. False: its local part, or a domain that is no name,
 * is not ASCII. */
static bool put_address(struct words *w, struct str address)
{
    ptrdiff_t at = str_rfind(address, '@');
    struct dns_name domain;
    struct buf text = {0};

    if (str_is_ascii(address)) {
        words_put_raw(w, address);
        return true;
    }
    if (at < 0 || !str_is_ascii((struct str){address.ptr, (size_t)at}) ||
        dns_name_parse(&domain, between(address.ptr + at + 1, address.ptr + address.len)) < 0)
        return false;
    buf_put(&text, address.ptr, (size_t)at + 1);
    buf_put(&text, domain.text, domain.len);
    words_put_raw(w, buf_str(&text));
    buf_done(&text);
    return true;
}

/* RFC 6857 3.1.7 and 3.1.8: name and an encoded word that shows what cannot be written to. */
static void put_empty_group(struct words *w, struct str shown)
{
    words_put_encoded(w, trim(shown), true);
    words_put_raw(w, STR(" :;"));
}

struct element {
    struct str name;    /* before '<', or before ':' of a group */
    struct str address; /* in <>, or all of it */
    struct str tail;    /* behind '>' */
    char end;           /* ',' ';' ':' that ended it, '\0': the end */
    bool angled;
};

/* The element at the start of *s, which then goes on behind it. */
static struct element take_element(struct str *s)
{
    struct lexer l = {.left = *s, .syntax = PHRASE};
    const char *open = NULL, *close = NULL, *start = s->ptr, *end = s->ptr + s->len;
    struct element e = {0};
    struct token t;

    while ((t = next_token(&l)).kind != TOKEN_END) {
        char c = t.kind == TOKEN_SPECIAL && l.comments == 0 ? *t.text.ptr : '\0';

        if (c == '<' && open == NULL) {
            open = t.text.ptr;
        } else if (c == '>' && open != NULL && close == NULL) {
            close = t.text.ptr;
        } else if ((c == ',' || c == ';' || c == ':') && (open == NULL || close != NULL)) {
            e.end = c;
            end = t.text.ptr;
            break;
        }
    }
    ASSERT(s->len == 0 || l.left.len < s->len); /* each takes something */
    *s = l.left;
    e.angled = open != NULL && close != NULL;
    e.name = e.angled ? between(start, open) : between(start, end);
    e.address = e.angled ? between(open + 1, close) : e.name;
    e.tail = e.angled ? between(close + 1, end) : (struct str){0};
    return e;
}

static void put_mailbox(struct words *w, const struct element *e)
{
    struct buf bracketed = {0};
    struct words trial = {.out = &bracketed};

    ASSERT(e->angled);
    put_text(w, e->name, PHRASE);
    words_need_gap(w);
    buf_putc(&bracketed, '<');
    if (put_address(&trial, e->address)) {
        buf_putc(&bracketed, '>');
        words_put_raw(w, buf_str(&bracketed));
    } else {
        put_empty_group(w, e->address);
    }
    buf_done(&bracketed);
    put_text(w, e->tail, PHRASE);
}

/* A bare address among white space and comments; else some words. */
static void put_bare(struct words *w, struct str s)
{
    struct lexer l = {.left = s, .syntax = PHRASE};
    const char *from = NULL, *to = NULL;
    struct token t;
    struct str address;

    while ((t = next_token(&l)).kind != TOKEN_END) {
        bool parenthesis = t.kind == TOKEN_SPECIAL && (*t.text.ptr == '(' || *t.text.ptr == ')');

        if (t.kind == TOKEN_SPACE || parenthesis || l.comments > 0)
            continue;
        from = from == NULL ? t.text.ptr : from;
        to = t.text.ptr + t.text.len;
    }
    address = from == NULL ? (struct str){0} : between(from, to);
    if (str_is_ascii(address) || str_find(address, '@') < 0 || str_find(address, '(') >= 0) {
        put_text(w, s, PHRASE);
        return;
    }
    put_text(w, between(s.ptr, from), PHRASE);
    if (!put_address(w, address))
        put_empty_group(w, address);
    put_text(w, between(to, s.ptr + s.len), PHRASE);
}

/* Whether some mailbox of a group's list becomes an empty group, which cannot be in another. */
static bool has_other_local_part(struct str list)
{
    struct buf out = {0};
    bool found = false;

    while (list.len > 0 && !found) {
        struct element e = take_element(&list);
        struct words w = {.out = &out};

        found = str_find(e.address, '@') >= 0 && !put_address(&w, trim(e.address));
        buf_clear(&out);
    }
    buf_done(&out);
    return found;
}

static struct str group_list(struct str s)
{
    struct str all = s;
    struct element e = {0};

    while (s.len > 0 && e.end != ';')
        e = take_element(&s);
    return (struct str){all.ptr, all.len - s.len - (e.end == ';')};
}

static void put_addresses(struct words *w, struct str s)
{
    const char *group_end = s.ptr; /* of the group that s is in */

    while (s.len > 0) {
        struct element e = take_element(&s);
        char end[1] = {e.end};
        struct str list = {0};

        if (e.end == ':' && !e.angled && s.ptr > group_end) {
            put_text(w, e.name, PHRASE);
            list = group_list(s);
            group_end = list.ptr + list.len;
        } else if (e.angled) {
            put_mailbox(w, &e);
        } else {
            put_bare(w, e.name);
        }
        if (has_other_local_part(list)) {
            put_empty_group(w, list);
            s = between(group_end, s.ptr + s.len);
            (void)take_element(&s); /* its ';' */
        } else if (e.end != '\0') {
            if (w->after_word)
                words_need_gap(w);
            words_put_raw(w, (struct str){end, 1});
            if (e.end == ',' && s.len > 0 && !is_space(*s.ptr)) /* a place to fold */
                words_need_gap(w);
        }
    }
}

/* --- parameters (RFC 2045 5.1) --- */

struct parameter {
    struct str raw;     /* from behind the ';' */
    struct str base;    /* the name without "*0" and "*" */
    struct str section; /* "*0" ... or empty */
    bool is_coded;      /* the name ends in '*' */
    struct str value;   /* in its quotes */
};

/* The parameter at the start of *s, which then goes on behind it. Values without quotes may have
 * spaces, as they do. */
static struct parameter take_parameter(struct str *s)
{
    struct lexer l = {.left = *s, .syntax = PHRASE};
    struct parameter p = {0};
    struct token t;
    ptrdiff_t equals, star;
    struct str name;

    do {
        t = next_token(&l);
    } while (t.kind != TOKEN_END &&
             (t.kind != TOKEN_SPECIAL || *t.text.ptr != ';' || l.comments > 0));
    p.raw = between(s->ptr, t.text.ptr);
    ASSERT(s->len == 0 || l.left.len < s->len);
    *s = l.left;
    equals = str_find(p.raw, '=');
    if (equals < 0)
        return p;
    name = trim((struct str){p.raw.ptr, (size_t)equals});
    p.value = trim(between(p.raw.ptr + equals + 1, p.raw.ptr + p.raw.len));
    p.is_coded = name.len > 0 && name.ptr[name.len - 1] == '*';
    name.len -= p.is_coded;
    star = str_find(name, '*');
    p.base = star < 0 ? name : (struct str){name.ptr, (size_t)star};
    p.section = star < 0 ? (struct str){0} : between(name.ptr + star, name.ptr + name.len);
    return p;
}

static bool is_same_name(const struct parameter *a, const struct parameter *b)
{
    return a->base.len > 0 && str_eq_nocase(a->base, b->base);
}

struct parameters {
    struct parameter list[PARAMETERS_MAX];
    size_t len;
    struct str charset; /* of all of them */
};

/* Whether the pieces that p is one of are not ASCII, and whether there is a coded form of it. */
static void look_at_others(const struct parameters *all, const struct parameter *p, bool *eight_bit,
                           bool *coded)
{
    *eight_bit = *coded = false;
    for (size_t i = 0; i < all->len; i++) {
        const struct parameter *other = &all->list[i];

        if (!is_same_name(other, p))
            continue;
        *coded |= other->is_coded;
        *eight_bit |= (other == p || other->section.len > 0) && !str_is_ascii(other->raw);
    }
}

static void put_parameter(struct words *w, const struct parameters *all, const struct parameter *p)
{
    struct lexer l = {.syntax = TEXT};
    struct token t = {TOKEN_WORD, p->value};
    struct buf value = {0};
    bool eight_bit, coded;

    ASSERT(all->len <= PARAMETERS_MAX);
    look_at_others(all, p, &eight_bit, &coded);
    if (p->base.len == 0 || !str_is_ascii(p->base) || !str_is_ascii(p->section) || !eight_bit) {
        words_put_raw(w, STR(";"));
        put_text(w, p->raw, PHRASE);
        return;
    }
    if (!p->is_coded && p->section.len == 0 && coded)
        return; /* the same for readers that know no RFC 2231 */
    if (p->value.len > 0 && *p->value.ptr == '"')
        t = (struct token){TOKEN_QUOTED, {p->value.ptr, quoted_len(p->value)}};
    put_meaning(&value, &l, &t);
    if (p->is_coded)
        words_put_section(w, p->base, p->section, STR(""), true, buf_str(&value));
    else if (p->section.len > 0)
        words_put_section(w, p->base, p->section,
                          str_eq(p->section, STR("*0")) ? all->charset : STR(""), false,
                          buf_str(&value));
    else
        words_put_parameter(w, p->base, buf_str(&value));
    buf_done(&value);
}

static void put_mime_value(struct words *w, struct str s)
{
    struct parameters all = {.charset = words_charset(s)};

    put_text(w, take_parameter(&s).raw, PHRASE);
    while (s.len > 0 && all.len < PARAMETERS_MAX)
        all.list[all.len++] = take_parameter(&s);
    for (size_t i = 0; i < all.len; i++)
        put_parameter(w, &all, &all.list[i]);
    if (s.len > 0) {
        words_put_raw(w, STR(";"));
        put_text(w, s, PHRASE);
    }
}

/* --- Received (RFC 5321 4.4) --- */

/* Domains become A-labels, and "for <address>" goes where its address is not ASCII (RFC 6857). */
static void put_received(struct words *w, struct str s)
{
    struct lexer l = {.left = s, .syntax = PHRASE};
    struct token t;
    const char *clause = NULL, *begin = s.ptr;
    struct dns_name name;

    while ((t = next_token(&l)).kind != TOKEN_END) {
        if (t.kind == TOKEN_SPACE)
            continue;
        if (t.kind == TOKEN_WORD && l.comments == 0 && !str_is_ascii(t.text) &&
            dns_name_parse(&name, t.text) == 0) {
            put_text(w, between(begin, t.text.ptr), PHRASE);
            words_put_raw(w, (struct str){name.text, name.len});
            begin = t.text.ptr + t.text.len;
        }
        if (t.kind == TOKEN_WORD && l.comments == 0 && str_eq_nocase(t.text, STR("for"))) {
            clause = t.text.ptr;
            continue;
        }
        if (clause != NULL && t.kind == TOKEN_SPECIAL && *t.text.ptr == '<') {
            const char *end = l.left.ptr;

            while (end < s.ptr + s.len && *end != '>')
                end++;
            end += end < s.ptr + s.len;
            if (!str_is_ascii(between(clause, end))) {
                put_text(w, between(begin, clause), PHRASE);
                begin = end;
            }
            l.left = between(end, s.ptr + s.len);
        }
        clause = NULL;
    }
    put_text(w, between(begin, s.ptr + s.len), PHRASE);
}

/* --- fields --- */

static void put_plain(struct words *w, struct str s)
{
    put_text(w, s, TEXT);
}

static void put_structured(struct words *w, struct str s)
{
    put_text(w, s, PHRASE);
}

/* Not here: unstructured text, as is right for Subject, Comments, Content-Description and for what
 * is unknown. A put of NULL: the field is renamed Downgraded-... (RFC 6857 3.2.3). */
static const struct field_kind {
    const char *name;
    void (*put)(struct words *w, struct str value);
} field_kinds[] = {
    {"From", put_addresses},
    {"Sender", put_addresses},
    {"Reply-To", put_addresses},
    {"To", put_addresses},
    {"Cc", put_addresses},
    {"Bcc", put_addresses},
    {"Resent-From", put_addresses},
    {"Resent-Sender", put_addresses},
    {"Resent-To", put_addresses},
    {"Resent-Cc", put_addresses},
    {"Resent-Bcc", put_addresses},
    {"Resent-Reply-To", put_addresses},
    {"Return-Path", put_addresses},
    {"Errors-To", put_addresses},
    {"Delivered-To", put_addresses},
    {"Disposition-Notification-To", put_addresses},
    {"Return-Receipt-To", put_addresses},
    {"Mail-Followup-To", put_addresses},
    {"Mail-Reply-To", put_addresses},
    {"Content-Type", put_mime_value},
    {"Content-Disposition", put_mime_value},
    {"Content-Transfer-Encoding", put_structured},
    {"Content-Language", put_structured},
    {"MIME-Version", put_structured},
    {"Date", put_structured},
    {"Resent-Date", put_structured},
    {"Keywords", put_structured},
    {"List-ID", put_structured},
    {"Received", put_received},
    {"Message-ID", NULL},
    {"Resent-Message-ID", NULL},
    {"In-Reply-To", NULL},
    {"References", NULL},
    {"Content-ID", NULL},
    {"Original-Recipient", NULL},
    {"Final-Recipient", NULL},
};

static const struct field_kind *find_kind(struct str name)
{
    static const struct field_kind unstructured = {"", put_plain};

    for (size_t i = 0; i < ARRAY_LEN(field_kinds); i++)
        if (str_eq_nocase(name, str_of(field_kinds[i].name)))
            return &field_kinds[i];
    return &unstructured;
}

int downgrade_field(struct str field, bool iso2022jp, struct buf *out)
{
    struct words w = {.out = out, .iso2022jp = iso2022jp};
    ptrdiff_t colon = str_find(field, ':');
    struct str name = {field.ptr, (size_t)colon}, value, trimmed;
    const struct field_kind *kind;

    ASSERT(colon > 0 && (const void *)field.ptr != out->data);
    if (buf_reserve(out, field.len * GROWTH_MAX + 256) != 0)
        return -ENOMEM;
    kind = find_kind(trim(name));
    if (kind->put == NULL)
        words_put_raw(&w, STR("Downgraded-"));
    value = between(field.ptr + colon + 1, field.ptr + field.len);
    words_put_raw(&w, (struct str){field.ptr, (size_t)colon + 1});
    trimmed = trim(value);
    words_put_gap(&w, between(value.ptr, trimmed.ptr));
    if (kind->put == NULL)
        put_plain(&w, trimmed);
    else
        kind->put(&w, trimmed);
    words_end(&w);
    buf_put_str(out, between(trimmed.ptr + trimmed.len, value.ptr + value.len));
    return 0;
}
