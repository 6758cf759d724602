/* Source to tokens. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mail/template_parse.h"

void template_place_of(const struct template *t, uint32_t at, struct template_error *error)
{
    error->line = error->column = 1;
    const struct template_part *part = &t->parts[0];

    for (size_t i = 1; i < t->parts_len && t->parts[i].from <= at; i++)
        part = &t->parts[i];
    snprintf(error->partial, sizeof(error->partial), "%.*s", STR_FMT(part->name));
    for (uint32_t i = part->from; i < at && i < t->source_len; i++) {
        error->column++;
        if (t->source[i] == '\n') {
            error->line++;
            error->column = 1;
        }
    }
}

/* The first error counts. Behind it there are no tokens, so that everything unwinds. */
void template_fail(struct parser *p, size_t at, const char *format, ...)
{
    va_list args;

    if (!p->failed) {
        template_place_of(p->t, (uint32_t)at, p->error);
        va_start(args, format);
        vsnprintf(p->error->text, sizeof(p->error->text), format, args);
        va_end(args);
    }
    p->failed = true;
    p->at = p->source.len;
    p->token = (struct token){.kind = TOKEN_END, .at = p->at};
}

bool template_is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\f' || c == '\v';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Any character beyond ASCII may be of a name: names of variables in Japanese are fine. */
static bool begins_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c > 127;
}

struct str template_between(const struct parser *p, size_t from, size_t to)
{
    ASSERT(from <= to && to <= p->source.len);
    return (struct str){p->source.ptr + from, to - from};
}

static bool looking_at(const struct parser *p, size_t at, const char *what)
{
    size_t len = strlen(what);

    ASSERT(at <= p->source.len);
    return p->source.len - at >= len && memcmp(p->source.ptr + at, what, len) == 0;
}

static void take_number(struct parser *p, struct token *t)
{
    size_t end = t->at;
    char text[32];
    bool real = false;

    for (; end < p->source.len && (is_digit(p->source.ptr[end]) || p->source.ptr[end] == '.');
         end++) {
        /* "1.x" is an attribute of 1, which has none. */
        if (p->source.ptr[end] == '.' &&
            (real || end + 1 == p->source.len || !is_digit(p->source.ptr[end + 1])))
            break;
        real |= p->source.ptr[end] == '.';
    }
    if (end - t->at > 18) {
        template_fail(p, t->at, "a number of more than 18 digits");
        return;
    }
    ASSERT(end > t->at && end - t->at < sizeof(text));
    memcpy(text, p->source.ptr + t->at, end - t->at);
    text[end - t->at] = '\0';
    t->kind = real ? TOKEN_REAL : TOKEN_INTEGER;
    if (real)
        t->real = strtod(text, NULL);
    else
        t->integer = strtoll(text, NULL, 10);
    p->at = end;
}

static char escaped(char c)
{
    static const char from[] = "ntr\\'\"", to[] = "\n\t\r\\'\"";
    const char *found = strchr(from, c);

    return c == '\0' || found == NULL ? '\0' : to[found - from];
}

static void take_string(struct parser *p, struct token *t)
{
    char quote = p->source.ptr[t->at], *room = p->t->strings + p->t->strings_len;
    size_t i, len = 0;

    for (i = t->at + 1; i < p->source.len && p->source.ptr[i] != quote; i++) {
        char c = p->source.ptr[i];

        if (c == '\\') {
            c = ++i < p->source.len ? escaped(p->source.ptr[i]) : '\0';
            if (c == '\0') {
                template_fail(p, i - 1,
                              "an escape in a string that is not \\n \\t \\r \\\\ \\' or \\\"");
                return;
            }
        }
        room[len++] = c;
    }
    ASSERT(room + len <= p->t->strings + p->t->source_len); /* each byte is read once */
    if (i >= p->source.len) {
        template_fail(p, t->at, "a string without its closing %c", quote);
        return;
    }
    p->t->strings_len += len;
    t->kind = TOKEN_STRING;
    t->text = (struct str){room, len};
    p->at = i + 1;
}

/* "}}", "%}", either behind '-' (white space behind the tag goes) or '+' (it stays, as it does
 * anyway). */
static bool take_close(struct parser *p)
{
    const char marks[][4] = {{p->close, '}', 0}, {'-', p->close, '}', 0}, {'+', p->close, '}', 0}};

    for (size_t i = 0; i < ARRAY_LEN(marks); i++) {
        if (!looking_at(p, p->at, marks[i]))
            continue;
        p->trims = i == 1;
        p->at += strlen(marks[i]);
        return true;
    }
    return false;
}

void template_next(struct parser *p)
{
    static const char *const signs[] = {"==", "!=", "<=", ">=", "//", "<", ">", "(",
                                        ")",  "[",  "]",  "{",  "}",  ".", ",", ":",
                                        "|",  "~",  "-",  "+",  "*",  "/", "%", "="};
    struct token t = {.kind = TOKEN_END};

    ASSERT((p->close == '}' || p->close == '%') && p->at <= p->source.len);
    while (p->at < p->source.len && template_is_space(p->source.ptr[p->at]))
        p->at++;
    t.at = p->at;
    if (p->at == p->source.len) {
        template_fail(p, t.at, "the template ends within a tag; its %s is missing",
                      p->close == '%' ? "%}" : "}}");
    } else if (p->braces == 0 && take_close(p)) {
        t.kind = TOKEN_CLOSE;
    } else if (is_digit(p->source.ptr[p->at])) {
        take_number(p, &t);
    } else if (p->source.ptr[p->at] == '"' || p->source.ptr[p->at] == '\'') {
        take_string(p, &t);
    } else if (begins_name(p->source.ptr[p->at])) {
        while (p->at < p->source.len &&
               (begins_name(p->source.ptr[p->at]) || is_digit(p->source.ptr[p->at])))
            p->at++;
        t.kind = TOKEN_NAME;
        t.text = template_between(p, t.at, p->at);
    } else {
        for (size_t i = 0; t.kind == TOKEN_END && i < ARRAY_LEN(signs); i++)
            if (looking_at(p, p->at, signs[i])) {
                t.kind = TOKEN_SIGN;
                t.text = str_of(signs[i]);
                p->at += t.text.len;
            }
        if (t.kind == TOKEN_END)
            template_fail(p, t.at, "'%c' is not taken here", p->source.ptr[t.at]);
    }
    if (!p->failed)
        p->token = t;
}

bool token_is_sign(const struct parser *p, const char *sign)
{
    return p->token.kind == TOKEN_SIGN && str_eq(p->token.text, str_of(sign));
}

bool token_is_name(const struct parser *p, const char *name)
{
    return p->token.kind == TOKEN_NAME && str_eq(p->token.text, str_of(name));
}

bool token_take_sign(struct parser *p, const char *sign)
{
    bool there = token_is_sign(p, sign);

    if (there)
        template_next(p);
    return there;
}

bool token_take_name(struct parser *p, const char *name)
{
    bool there = token_is_name(p, name);

    if (there)
        template_next(p);
    return there;
}
