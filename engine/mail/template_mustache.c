/* Mustache and Handlebars to nodes. The two are one language here but for what docs/http.md says:
 * where names are looked up, helpers, delimiters. */
#include <stdlib.h>
#include <string.h>

#include "mail/template_parse.h"

#define DELIMITER_MAX 8

enum ending { ENDING_NONE, ENDING_CLOSE, ENDING_ELSE };

struct mustache {
    struct parser *p;
    bool handlebars;
    struct str open, close; /* delimiters, "{{" and "}}" at first */
    size_t tag;             /* where the present one begins */
    uint32_t text;          /* the text in front of it, or 0 */
    bool trims;             /* the last tag ended with '~' */
    enum ending ending;     /* what the last list of statements ended with */
    size_t ending_at;
    struct str ending_name; /* of a closing tag */
};

/* --- characters --- */

static bool at_end(const struct mustache *m)
{
    return m->p->at >= m->p->source.len;
}

static char here(const struct mustache *m)
{
    return at_end(m) ? '\0' : m->p->source.ptr[m->p->at];
}

static bool looking_at(const struct mustache *m, struct str what)
{
    ASSERT(m->p->at <= m->p->source.len && what.len > 0);
    return m->p->source.len - m->p->at >= what.len &&
           memcmp(m->p->source.ptr + m->p->at, what.ptr, what.len) == 0;
}

static bool text_take(struct mustache *m, struct str what)
{
    bool there = !m->p->failed && looking_at(m, what);

    m->p->at += there ? what.len : 0;
    return there;
}

static void skip_space(struct mustache *m)
{
    while (!at_end(m) && template_is_space(here(m)))
        m->p->at++;
}

static bool is_name_char(char c)
{
    return (unsigned char)c > ' ' && strchr("!\"#%&'()*+,./;<=>@[\\]^`{|}~", c) == NULL;
}

/* --- the edges of tags --- */

/* Shortens the text in front of the tag to what keep bytes of the source are. */
static void cut_text(struct mustache *m, size_t end)
{
    struct node *text = &m->p->t->nodes[m->text];
    size_t from = m->text == 0 ? 0 : (size_t)(text->text.ptr - m->p->source.ptr);

    ASSERT(m->text == 0 || (text->kind == NODE_TEXT && from + text->text.len <= m->tag));
    if (m->text != 0 && end < from + text->text.len)
        text->text.len = end > from ? end - from : 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

/* A tag that puts nothing out and has a line of its own takes that line with it; false: it has
 * none.
 */
static bool cut_line(struct mustache *m)
{
    const struct parser *p = m->p;
    size_t from = m->tag, to = p->at;

    ASSERT(from < to);
    while (from > 0 && is_blank(p->source.ptr[from - 1]))
        from--;
    while (to < p->source.len && is_blank(p->source.ptr[to]))
        to++;
    if ((from > 0 && p->source.ptr[from - 1] != '\n') ||
        (to < p->source.len && p->source.ptr[to] != '\n'))
        return false;
    cut_text(m, from);
    m->p->at = to < p->source.len ? to + 1 : to;
    return true;
}

/* The tag ends here. silent: it puts nothing out. */
static void close_tag(struct mustache *m, struct str close, bool silent)
{
    skip_space(m);
    m->trims = m->handlebars && text_take(m, STR("~"));
    if (m->p->failed)
        return;
    if (!text_take(m, close)) {
        template_fail(m->p, m->p->at,
                      at_end(m) ? "'%.*s' is missing for the tag in front of this"
                                : "'%.*s' is missing; what stands here is not understood",
                      STR_FMT(close));
        return;
    }
    if (silent)
        (void)cut_line(m);
}

/* Text up to the next tag, whose beginning p->at then stands behind; false: there is none. */
static bool parse_text(struct mustache *m, uint32_t *text)
{
    struct parser *p = m->p;
    size_t from = p->at, to;
    const char *found;

    while (m->trims && from < p->source.len && template_is_space(p->source.ptr[from]))
        from++;
    found = p->failed
                ? NULL
                : memmem(p->source.ptr + from, p->source.len - from, m->open.ptr, m->open.len);
    m->tag = to = found == NULL ? p->source.len : (size_t)(found - p->source.ptr);
    p->at = found == NULL ? to : to + m->open.len;
    if (found != NULL && m->handlebars && text_take(m, STR("~")))
        while (to > from && template_is_space(p->source.ptr[to - 1]))
            to--;
    m->trims = false;
    *text = m->text = from == to
                          ? 0
                          : template_node(p, (struct node){.kind = NODE_TEXT,
                                                           .at = (uint32_t)from,
                                                           .text = template_between(p, from, to)});
    return found != NULL;
}

/* "\{{" is these letters. *text is what is in front of the sign; true: what follows is text. */
static bool escaped(struct mustache *m, uint32_t text)
{
    struct parser *p = m->p;
    size_t at = m->tag;

    if (!m->handlebars || at == 0 || p->source.ptr[at - 1] != '\\' || text == 0)
        return false;
    cut_text(m, at - 1); /* of two signs one stays, and the tag is one */
    if (at > 1 && p->source.ptr[at - 2] == '\\')
        return false;
    p->at = at + m->open.len;
    return true;
}

/* --- expressions --- */

static uint32_t parse_value(struct mustache *m);

static struct str parse_segment(struct mustache *m)
{
    struct parser *p = m->p;
    size_t from = p->at;
    const char *end;

    if (text_take(m, STR("["))) {
        end = memchr(p->source.ptr + p->at, ']', p->source.len - p->at);
        if (end == NULL) {
            template_fail(p, from, "']' is missing");
            return STR("");
        }
        from++;
        p->at = (size_t)(end - p->source.ptr) + 1;
        return template_between(p, from, p->at - 1);
    }
    while (!at_end(m) && is_name_char(here(m)) && !looking_at(m, m->close))
        p->at++;
    if (p->at == from)
        template_fail(p, from, "a name is missing");
    return template_between(p, from, p->failed ? from : p->at);
}

/* What a path begins with: "../" again and again, "this", "@data", or a name. */
static uint32_t parse_path_begin(struct mustache *m)
{
    struct parser *p = m->p;
    struct node node = {.kind = NODE_FIELD, .at = (uint32_t)p->at};
    bool data = m->handlebars && text_take(m, STR("@"));

    while (m->handlebars && (looking_at(m, STR("../")) || looking_at(m, STR("..")))) {
        p->at += looking_at(m, STR("../")) ? 3 : 2;
        if (node.which < UINT8_MAX)
            node.which++;
        node.kind = data ? NODE_FIELD : NODE_CONTEXT;
    }
    if (!data && (text_take(m, STR("./")) || text_take(m, STR("."))))
        node.kind = NODE_CONTEXT;
    if (!at_end(m) && (is_name_char(here(m)) || (m->handlebars && here(m) == '['))) {
        bool bracketed = here(m) == '[';

        node.text = parse_segment(m);
        if (!data && m->handlebars && !bracketed && str_eq(node.text, STR("this")))
            node.kind = NODE_CONTEXT;
        else if (node.kind == NODE_CONTEXT)
            return template_node(
                p, (struct node){.kind = NODE_MEMBER,
                                 .at = node.at,
                                 .text = node.text,
                                 .a = template_node(p, (struct node){.kind = NODE_CONTEXT,
                                                                     .which = node.which,
                                                                     .at = node.at})});
        else
            node.kind = data ? NODE_DATA : NODE_FIELD;
    } else if (node.kind != NODE_CONTEXT) {
        template_fail(p, p->at, "a name is missing");
    }
    node.text = node.kind == NODE_CONTEXT ? STR("") : node.text;
    return template_node(p, node);
}

static uint32_t parse_path(struct mustache *m)
{
    uint32_t at = (uint32_t)m->p->at, a = parse_path_begin(m);

    while (!m->p->failed && !looking_at(m, m->close) &&
           (here(m) == '.' || (m->handlebars && here(m) == '/'))) {
        m->p->at++;
        a = template_node(
            m->p, (struct node){.kind = NODE_MEMBER, .at = at, .a = a, .text = parse_segment(m)});
    }
    return a;
}

static uint32_t parse_string(struct mustache *m, char quote)
{
    struct parser *p = m->p;
    struct node node = {.kind = NODE_STRING, .at = (uint32_t)p->at++};
    const char *end = memchr(p->source.ptr + p->at, quote, p->source.len - p->at);

    if (end == NULL) {
        template_fail(p, node.at, "a string without its closing %c", quote);
        return 0;
    }
    node.text = (struct str){p->source.ptr + p->at, (size_t)(end - p->source.ptr) - p->at};
    p->at = (size_t)(end - p->source.ptr) + 1;
    return template_node(p, node);
}

/* A word that is a number or a constant, or 0. */
static uint32_t literal(struct mustache *m, struct str word, uint32_t at)
{
    static const struct {
        struct str word;
        enum constant constant;
    } constants[] = {{STR("true"), CONSTANT_TRUE},
                     {STR("false"), CONSTANT_FALSE},
                     {STR("null"), CONSTANT_NONE},
                     {STR("undefined"), CONSTANT_NONE}};
    struct node node = {.kind = NODE_INTEGER, .at = at};
    char text[32], *end;

    for (size_t i = 0; i < ARRAY_LEN(constants); i++)
        if (str_eq(word, constants[i].word))
            return template_node(m->p, (struct node){.kind = NODE_CONSTANT,
                                                     .at = at,
                                                     .which = (uint8_t)constants[i].constant});
    if (word.len == 0 || word.len >= sizeof(text) ||
        !(*word.ptr == '-' || (*word.ptr >= '0' && *word.ptr <= '9')))
        return 0;
    memcpy(text, word.ptr, word.len);
    text[word.len] = '\0';
    node.integer = strtoll(text, &end, 10);
    if (*end != '\0') {
        node.kind = NODE_REAL;
        node.real = strtod(text, &end);
    }
    return *end == '\0' && end > text ? template_node(m->p, node) : 0;
}

/* The word here, with points: numbers have them. */
static struct str peek_word(const struct mustache *m)
{
    size_t to = m->p->at;

    while (to < m->p->source.len &&
           (is_name_char(m->p->source.ptr[to]) || m->p->source.ptr[to] == '.'))
        to++;
    return template_between(m->p, m->p->at, to);
}

static const struct helper {
    const char *name;
    uint8_t args_min, args_max, kind, which; /* of the node that it makes; a filter by its name */
} helpers[] = {
    {"lookup", 2, 2, NODE_LOOKUP, 0},
    {"eq", 2, 2, NODE_COMPARE, COMPARE_EQ},
    {"ne", 2, 2, NODE_COMPARE, COMPARE_NE},
    {"lt", 2, 2, NODE_COMPARE, COMPARE_LT},
    {"lte", 2, 2, NODE_COMPARE, COMPARE_LE},
    {"gt", 2, 2, NODE_COMPARE, COMPARE_GT},
    {"gte", 2, 2, NODE_COMPARE, COMPARE_GE},
    {"and", 2, 2, NODE_AND, 0},
    {"or", 2, 2, NODE_OR, 0},
    {"not", 1, 1, NODE_NOT, 0},
    {"len", 1, 1, NODE_FILTER, 0},
    {"date", 2, 3, NODE_FILTER, 0},
    {"number", 2, 3, NODE_FILTER, 0},
    {"urlencode", 1, 1, NODE_FILTER, 0},
};

static uint32_t truth(struct mustache *m, uint32_t a)
{
    return template_node(m->p,
                         (struct node){.kind = NODE_TRUTH, .at = m->p->t->nodes[a].at, .a = a});
}

/* A path, or a helper and what it is called with; ends at end (a sign) or at the tag's end. */
static uint32_t parse_call(struct mustache *m)
{
    struct str word = peek_word(m);
    struct node node = {.at = (uint32_t)m->p->at};
    const struct helper *h = NULL;
    uint32_t args[1 + TEMPLATE_ARGS_MAX] = {0};
    size_t from = m->p->at, len = 0;

    for (size_t i = 0; m->handlebars && i < ARRAY_LEN(helpers); i++)
        if (str_eq(word, str_of(helpers[i].name)))
            h = &helpers[i];
    if (h != NULL)
        m->p->at += word.len;
    skip_space(m);
    if (h == NULL || here(m) == ')' || here(m) == '~' || looking_at(m, m->close)) {
        m->p->at = from;
        return parse_value(m);
    }
    while (!m->p->failed && !at_end(m) && here(m) != ')' && here(m) != '~' &&
           !looking_at(m, m->close)) {
        if (len == h->args_max) {
            template_fail(m->p, m->p->at, "'%s' takes %d arguments", h->name, h->args_max);
            return 0;
        }
        args[len++] = parse_value(m);
        skip_space(m);
    }
    if (len < h->args_min)
        template_fail(m->p, m->p->at, "'%s' takes %d arguments", h->name, h->args_min);
    if (m->p->failed)
        return 0;
    ASSERT(len <= h->args_max && h->args_max <= TEMPLATE_ARGS_MAX);
    node.kind = h->kind;
    if (str_eq(word, STR("len")))
        word = STR("length");
    node.which = h->kind == NODE_FILTER ? (uint8_t)template_filter_find(word) : h->which;
    ASSERT(h->kind != NODE_FILTER || node.which < template_filters_len);
    node.a = h->kind == NODE_AND || h->kind == NODE_OR || h->kind == NODE_NOT ? truth(m, args[0])
                                                                              : args[0];
    node.b = h->kind == NODE_AND || h->kind == NODE_OR ? truth(m, args[1]) : args[1];
    node.c = args[2];
    return template_node(m->p, node);
}

static uint32_t parse_value(struct mustache *m)
{
    struct str word;
    uint32_t a = 0;

    skip_space(m);
    if (m->handlebars && (here(m) == '"' || here(m) == '\''))
        return parse_string(m, here(m));
    if (m->handlebars && text_take(m, STR("("))) {
        if (m->p->depth++ >= TEMPLATE_DEPTH_MAX)
            template_fail(m->p, m->p->at, "nested more than %d deep", TEMPLATE_DEPTH_MAX);
        skip_space(m);
        a = m->p->failed ? 0 : parse_call(m);
        m->p->depth--;
        skip_space(m);
        if (!m->p->failed && !text_take(m, STR(")")))
            template_fail(m->p, m->p->at, "')' is missing");
        return a;
    }
    word = peek_word(m);
    if (m->handlebars)
        a = literal(m, word, (uint32_t)m->p->at);
    if (a != 0 || m->p->failed) {
        m->p->at += m->p->failed ? 0 : word.len;
        return a;
    }
    return parse_path(m);
}

/* --- statements --- */

static uint32_t parse_statements(struct mustache *m);

/* "{{{a}}}", "{{&a}}" (raw) and "{{a}}". */
static uint32_t parse_output(struct mustache *m, bool raw, struct str close)
{
    struct node node = {.kind = NODE_OUTPUT, .which = raw, .at = (uint32_t)m->tag};

    skip_space(m);
    node.a = parse_call(m);
    skip_space(m);
    if (!m->p->failed && m->handlebars && !at_end(m) && here(m) != '~' && !looking_at(m, close)) {
        template_fail(m->p, m->p->at, "there is no such helper, or this does not belong here");
        return 0;
    }
    close_tag(m, close, false);
    return template_node(m->p, node);
}

static void parse_comment(struct mustache *m)
{
    struct parser *p = m->p;
    bool dashed = m->handlebars && text_take(m, STR("--"));
    const char *found;
    size_t from = p->at;

    do {
        found = p->failed ? NULL
                          : memmem(p->source.ptr + p->at, p->source.len - p->at, m->close.ptr,
                                   m->close.len);
        if (found == NULL) {
            template_fail(p, m->tag, "a comment without its end");
            return;
        }
        p->at = (size_t)(found - p->source.ptr);
        if (m->handlebars && p->at > from && p->source.ptr[p->at - 1] == '~')
            p->at--;
        if (!dashed || (p->at >= from + 2 && memcmp(p->source.ptr + p->at - 2, "--", 2) == 0))
            break;
        p->at = (size_t)(found - p->source.ptr) + 1;
    } while (true);
    close_tag(m, m->close, true);
}

/* "{{=<% %>=}}" */
static void parse_delimiters(struct mustache *m)
{
    struct parser *p = m->p;
    const char *end = memmem(p->source.ptr + p->at, p->source.len - p->at, "=", 1);
    struct str both, first, second;
    ptrdiff_t gap = 0;

    both = str_trim((struct str){p->source.ptr + p->at,
                                 end == NULL ? 0 : (size_t)(end - p->source.ptr) - p->at});
    while ((size_t)gap < both.len && !template_is_space(both.ptr[gap]))
        gap++;
    first = (struct str){both.ptr, (size_t)gap};
    second = str_trim((struct str){both.ptr + gap, both.len - (size_t)gap});
    if (first.len == 0 || second.len == 0 || first.len > DELIMITER_MAX ||
        second.len > DELIMITER_MAX || memchr(second.ptr, ' ', second.len) != NULL) {
        template_fail(p, m->tag, "two delimiters are wanted, as in {{=<%% %%>=}}");
        return;
    }
    p->at = (size_t)(end - p->source.ptr) + 1;
    close_tag(m, m->close, true);
    m->open = first;
    m->close = second;
}

/* "as |a b|": the names, or nothing. */
static struct str parse_block_names(struct mustache *m)
{
    struct parser *p = m->p;
    const char *end;
    size_t from;

    skip_space(m);
    if (!m->handlebars || !text_take(m, STR("as ")))
        return STR("");
    skip_space(m);
    from = p->at + 1;
    end = text_take(m, STR("|")) ? memchr(p->source.ptr + from, '|', p->source.len - from) : NULL;
    if (end == NULL) {
        template_fail(p, p->at, "behind 'as' stand names between '|' and '|'");
        return STR("");
    }
    p->at = (size_t)(end - p->source.ptr) + 1;
    return str_trim(template_between(p, from, p->at - 1));
}

/* The tag that ends a block is read already: its name must be the block's. */
static void expect_close(struct mustache *m, struct str name, size_t at)
{
    if (m->p->failed)
        return;
    if (m->ending != ENDING_CLOSE)
        template_fail(m->p, at, "the block '%.*s' has no end", name.len > 60 ? 60 : (int)name.len,
                      name.ptr);
    else if (!str_eq(m->ending_name, name))
        template_fail(m->p, m->ending_at, "'%.*s' ends here, but '%.*s' is open",
                      m->ending_name.len > 40 ? 40 : (int)m->ending_name.len, m->ending_name.ptr,
                      name.len > 40 ? 40 : (int)name.len, name.ptr);
}

/* Behind "{{#" or "{{else ": "if x", "each x", ..., or a section. closing: the name of the tag that
 * ends it; NULL: its own. inverse: "{{^". */
static uint32_t parse_block(struct mustache *m, bool inverse, const struct str *closing)
{
    static const struct {
        const char *name;
        uint8_t kind, which;
    } blocks[] = {{"if", NODE_IF, 0},
                  {"unless", NODE_IF, 1},
                  {"each", NODE_BLOCK, BLOCK_EACH},
                  {"with", NODE_BLOCK, BLOCK_WITH}};
    struct node node = {.kind = NODE_BLOCK, .which = BLOCK_SECTION, .at = (uint32_t)m->tag};
    size_t from, tag = m->tag;
    struct str name;

    skip_space(m);
    from = m->p->at;
    name = peek_word(m);
    if (m->p->depth++ >= TEMPLATE_DEPTH_MAX)
        template_fail(m->p, m->p->at, "nested more than %d deep", TEMPLATE_DEPTH_MAX);
    for (size_t i = 0; m->handlebars && i < ARRAY_LEN(blocks); i++)
        if (str_eq(name, str_of(blocks[i].name))) {
            node.kind = blocks[i].kind;
            node.which = blocks[i].which;
            m->p->at += name.len;
            skip_space(m);
        }
    node.a = m->p->failed                                             ? 0
             : node.kind == NODE_BLOCK && node.which == BLOCK_SECTION ? parse_value(m)
                                                                      : parse_call(m);
    if (!m->p->failed && node.kind == NODE_BLOCK && node.which == BLOCK_SECTION)
        name = template_between(m->p, from, m->p->at);
    node.text = parse_block_names(m);
    close_tag(m, m->close, true);
    if (node.kind == NODE_IF) {
        node.a = truth(m, node.a);
        inverse ^= node.which == 1;
        node.which = 0;
    }
    closing = closing != NULL ? closing : &name;
    node.b = parse_statements(m);
    if (!m->p->failed && m->ending == ENDING_ELSE) {
        skip_space(m);
        if (here(m) == '~' || looking_at(m, m->close)) {
            close_tag(m, m->close, true);
            node.c = parse_statements(m);
            expect_close(m, *closing, tag);
        } else {
            node.c = parse_block(m, false, closing);
        }
    } else {
        expect_close(m, *closing, tag);
    }
    m->p->depth--;
    if (inverse) {
        uint32_t swapped = node.b;

        node.b = node.c;
        node.c = swapped;
    }
    return template_node(m->p, node);
}

/* "{{/name}}" and "{{else" end a list. True: it does, and the rest of an "else" is to be read. */
static bool ends_here(struct mustache *m, bool bare_caret)
{
    struct parser *p = m->p;
    struct str word;

    m->ending_at = m->tag;
    if (text_take(m, STR("/"))) {
        size_t from;

        skip_space(m);
        from = p->at;
        while (!at_end(m) && !looking_at(m, m->close) && here(m) != '~')
            p->at++;
        m->ending_name = str_trim(template_between(p, from, p->at));
        close_tag(m, m->close, true);
        m->ending = ENDING_CLOSE;
        return true;
    }
    if (!m->handlebars)
        return false;
    skip_space(m);
    word = peek_word(m);
    if (str_eq(word, STR("else")) || bare_caret) {
        p->at += bare_caret ? 1 : word.len;
        m->ending = ENDING_ELSE;
        return true;
    }
    return false;
}

/* "{{^}}" is "{{else}}". */
static bool is_bare_caret(const struct mustache *m)
{
    size_t at = m->p->at;

    if (here(m) != '^')
        return false;
    for (at++; at < m->p->source.len && template_is_space(m->p->source.ptr[at]); at++)
        ;
    return at < m->p->source.len &&
           (m->p->source.ptr[at] == '~' ||
            (m->p->source.len - at >= m->close.len &&
             memcmp(m->p->source.ptr + at, m->close.ptr, m->close.len) == 0));
}

/* The blanks in front of the tag, back to the line's beginning; none where '~' took them. */
static struct str indent_of(const struct mustache *m)
{
    const struct str *text = &m->p->t->nodes[m->text].text;
    size_t from = m->tag;

    if (m->text == 0 || text->ptr + text->len != m->p->source.ptr + m->tag)
        return STR("");
    while (from > 0 && is_blank(m->p->source.ptr[from - 1]))
        from--;
    return template_between(m->p, from, m->tag);
}

/* "name=value". False: it is none. */
static bool parse_parameter(struct mustache *m, struct template_list *list)
{
    struct parser *p = m->p;
    struct node one = {.kind = NODE_ARGUMENT, .at = (uint32_t)p->at, .text = peek_word(m)};

    if (one.text.len == 0 || p->at + one.text.len >= p->source.len ||
        p->source.ptr[p->at + one.text.len] != '=')
        return false;
    p->at += one.text.len + 1;
    one.a = parse_value(m);
    template_append(p, list, template_node(p, one));
    return true;
}

/* Behind "{{>": a name, in Handlebars a context and parameters too. */
static uint32_t parse_partial(struct mustache *m)
{
    struct parser *p = m->p;
    struct str name, indent = indent_of(m);
    struct template_list parameters = {0};
    size_t from, tag = m->tag;
    uint32_t context = 0;
    bool standalone;

    skip_space(m);
    from = p->at;
    while (!at_end(m) && !template_is_space(here(m)) && here(m) != '~' && !looking_at(m, m->close))
        p->at++;
    name = template_between(p, from, p->at);
    if (name.len == 0 || memchr("(*", name.ptr[0], 2) != NULL)
        template_fail(p, from, "the name of a partial is missing, as it is given with the letter");
    skip_space(m);
    while (m->handlebars && !p->failed && !at_end(m) && here(m) != '~' &&
           !looking_at(m, m->close)) {
        bool parameter = parse_parameter(m, &parameters);

        if (!parameter && (context != 0 || parameters.first != 0))
            template_fail(p, p->at, "a partial takes a context, and then parameters (name=value)");
        else if (!parameter)
            context = parse_value(m);
        skip_space(m);
    }
    close_tag(m, m->close, false);
    standalone = !p->failed && !m->trims && cut_line(m);
    return template_include(p, tag, name, standalone, standalone ? indent : STR(""), context,
                            parameters.first);
}

static uint32_t parse_tag(struct mustache *m)
{
    static const struct str triple = STR("}}}");
    bool mustaches = str_eq(m->open, STR("{{"));

    if (mustaches && looking_at(m, STR("{{")) && m->handlebars) {
        template_fail(m->p, m->tag, "raw blocks are not taken");
        return 0;
    }
    if (text_take(m, STR("{"))) {
        struct node node;

        if (mustaches)
            return parse_output(m, true, triple);
        node = (struct node){.kind = NODE_OUTPUT, .which = 1, .at = (uint32_t)m->tag};
        node.a = parse_value(m);
        skip_space(m);
        if (!text_take(m, STR("}")))
            template_fail(m->p, m->p->at, "'}' is missing");
        close_tag(m, m->close, false);
        return template_node(m->p, node);
    }
    if (text_take(m, STR("&")))
        return parse_output(m, true, m->close);
    if (text_take(m, STR("#")))
        return parse_block(m, false, NULL);
    if (text_take(m, STR("^")))
        return parse_block(m, true, NULL);
    if (text_take(m, STR(">")))
        return parse_partial(m);
    if (here(m) == '*') {
        template_fail(m->p, m->tag, "decorators and partials within the template are not taken");
        return 0;
    }
    return parse_output(m, false, m->close);
}

/* Up to the tag that ends them, or the end of the source. The first node of the list, or 0. */
static uint32_t parse_statements(struct mustache *m)
{
    struct template_list list = {0};
    uint32_t text;

    m->ending = ENDING_NONE;
    while (!m->p->failed && parse_text(m, &text)) {
        template_append(m->p, &list, text);
        if (escaped(m, text)) {
            template_append(m->p, &list,
                            template_node(m->p, (struct node){.kind = NODE_TEXT,
                                                              .at = (uint32_t)m->tag,
                                                              .text = template_between(m->p, m->tag,
                                                                                       m->p->at)}));
            continue;
        }
        if (text_take(m, STR("!"))) {
            parse_comment(m);
        } else if (!m->handlebars && text_take(m, STR("="))) {
            parse_delimiters(m);
        } else {
            size_t from;

            skip_space(m);
            from = m->p->at;
            if (ends_here(m, is_bare_caret(m)))
                return list.first;
            m->p->at = m->p->failed ? m->p->at : from;
            template_append(m->p, &list, m->p->failed ? 0 : parse_tag(m));
        }
    }
    if (!m->p->failed)
        template_append(m->p, &list, text);
    m->ending = ENDING_NONE;
    return list.first;
}

uint32_t template_parse_mustache(struct parser *p, bool handlebars)
{
    struct mustache m = {.p = p, .handlebars = handlebars, .open = STR("{{"), .close = STR("}}")};
    uint32_t first = parse_statements(&m);

    if (!p->failed && m.ending == ENDING_CLOSE)
        template_fail(p, m.ending_at, "'%.*s' ends here, and was never begun",
                      m.ending_name.len > 60 ? 60 : (int)m.ending_name.len, m.ending_name.ptr);
    else if (!p->failed && m.ending == ENDING_ELSE)
        template_fail(p, m.ending_at, "'else' has no beginning");
    return first;
}
