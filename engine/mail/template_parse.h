/* Between template_lex.c (tokens), template_expression.c and template.c (what they mean in Jinja)
 * and template_mustache.c. */
#ifndef HAYAUMA_ENGINE_TEMPLATE_PARSE_H
#define HAYAUMA_ENGINE_TEMPLATE_PARSE_H

#include "mail/template_private.h"

enum token_kind {
    TOKEN_END,   /* of the source */
    TOKEN_CLOSE, /* of the tag: "}}" or "%}" */
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INTEGER,
    TOKEN_REAL,
    TOKEN_SIGN, /* of one or two characters: text */
};

struct token {
    enum token_kind kind;
    size_t at;
    struct str text;
    int64_t integer;
    double real;
};

struct parser {
    struct template *t;
    struct str source;
    size_t at;
    char close; /* of the tag that is read: '}' or '%' */
    bool trims; /* the last tag ended with '-': white space behind it goes */
    struct token token;
    unsigned depth, braces; /* braces: of objects that are open, in which '}' ends no tag */
    struct str macros[TEMPLATE_MACROS_MAX]; /* names of those seen */
    size_t macros_len;
    bool stored; /* as in template_compile() */
    bool failed;
    struct template_error *error;
};

/* The first error counts. Behind it there are no tokens, so that everything unwinds. */
void template_fail(struct parser *p, size_t at, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Its number; 0: there are too many nodes, or too deep ones. */
uint32_t template_node(struct parser *p, struct node node);

/* Of statements or arguments; 0: none. The first is as deep as the deepest: whatever has the list
 * below it counts that one alone. */
struct template_list {
    uint32_t first, last;
};
void template_append(struct parser *p, struct template_list *list, uint32_t node);
/* --- template_expression.c --- */

uint32_t template_parse_expression(struct parser *p);
/* One without "if" at its top. */
uint32_t template_parse_condition(struct parser *p);
/* A name, or a constant. */
uint32_t template_parse_name(struct parser *p);
void template_expect_sign(struct parser *p, const char *sign);
/* Goes one level deeper. False: that is deeper than it may be. */
bool template_descend(struct parser *p);

/* The statements of a source in Mustache or Handlebars. */
uint32_t template_parse_mustache(struct parser *p, bool handlebars);

/* The statement that includes a partial. text: the indentation of one on a line of its own.
 * context, parameters (arguments): of Handlebars, or 0. 0: there is nothing to include, or an
 * error. */
uint32_t template_include(struct parser *p, size_t at, struct str name, bool standalone,
                          struct str indent, uint32_t context, uint32_t parameters);

/* Reads the next token of the tag. */
void template_next(struct parser *p);
bool template_is_space(char c);
struct str template_between(const struct parser *p, size_t from, size_t to);
/* Of the present token; take: and then reads the next. */
bool token_is_sign(const struct parser *p, const char *sign);
bool token_is_name(const struct parser *p, const char *name);
bool token_take_sign(struct parser *p, const char *sign);
bool token_take_name(struct parser *p, const char *name);

#endif
