/* Sources to nodes: the statements of Jinja, partials, and the template as a whole. */
#include <stdlib.h>
#include <string.h>

#include "mail/template_parse.h"

/* --- nodes --- */

uint32_t template_node(struct parser *p, struct node node)
{
    struct template *t = p->t;
    uint32_t below[] = {node.a, node.b, node.c, node.d};

    for (size_t i = 0; i < ARRAY_LEN(below); i++) {
        ASSERT(below[i] < t->nodes_len); /* what is below is made first: there is no circle */
        if (t->nodes[below[i]].depth >= node.depth)
            node.depth = (uint16_t)(t->nodes[below[i]].depth + 1);
    }
    if (node.depth > TEMPLATE_DEPTH_MAX)
        template_fail(p, node.at, "nested more than %d deep", TEMPLATE_DEPTH_MAX);
    if (t->nodes_len >= TEMPLATE_NODES_MAX)
        template_fail(p, node.at, "more than %d constructs in one template", TEMPLATE_NODES_MAX);
    if (p->failed)
        return 0;
    if (t->nodes_len == t->nodes_cap) {
        t->nodes_cap *= 2;
        t->nodes = realloc(t->nodes, t->nodes_cap * sizeof(*t->nodes));
        ASSERT(t->nodes != NULL);
    }
    ASSERT(t->nodes_len < t->nodes_cap && node.depth <= TEMPLATE_DEPTH_MAX && node.next == 0);
    t->nodes[t->nodes_len] = node;
    return t->nodes_len++;
}

static void expect_close(struct parser *p)
{
    if (!p->failed && p->token.kind != TOKEN_CLOSE)
        template_fail(p, p->token.at, "the tag does not end here; what follows is not understood");
}

/* --- statements --- */

static uint32_t parse_statements(struct parser *p, const char *const *ends, struct str *end);

static uint32_t parse_if(struct parser *p, uint32_t at)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL}, *const last[] = {"endif",
                                                                                        NULL};
    struct node node = {.kind = NODE_IF, .at = at, .a = template_parse_expression(p)};
    struct str end = STR("");

    expect_close(p);
    node.b = parse_statements(p, ends, &end);
    if (str_eq(end, STR("elif"))) {
        if (template_descend(p))
            node.c = parse_if(p, (uint32_t)p->token.at);
        p->depth--;
    } else if (str_eq(end, STR("else"))) {
        expect_close(p);
        node.c = parse_statements(p, last, &end);
        expect_close(p);
    } else {
        expect_close(p);
    }
    return template_node(p, node);
}

/* A name that a value may be given to. */
static struct str parse_target(struct parser *p, const char *behind)
{
    struct str name = p->token.text;
    uint32_t node = 0;

    if (p->token.kind == TOKEN_NAME && !token_is_name(p, "loop"))
        node = template_parse_name(p);
    if (p->t->nodes[node].kind != NODE_NAME)
        template_fail(p, p->token.at, "a name is missing behind '%s'", behind);
    return name;
}

/* Behind the first name: further ones, which the items of a list are given to. 0: there are none.
 */
static uint32_t parse_targets(struct parser *p, uint32_t at, struct str first, const char *behind)
{
    struct template_list names = {0};

    if (!token_is_sign(p, ","))
        return 0;
    template_append(
        p, &names, template_node(p, (struct node){.kind = NODE_ARGUMENT, .at = at, .text = first}));
    while (!p->failed && token_take_sign(p, ",")) {
        struct node one = {.kind = NODE_ARGUMENT, .at = (uint32_t)p->token.at};

        one.text = parse_target(p, behind);
        template_append(p, &names, template_node(p, one));
    }
    return template_node(p, (struct node){.kind = NODE_UNPACK, .at = at, .b = names.first});
}

static uint32_t parse_for(struct parser *p, uint32_t at)
{
    static const char *const ends[] = {"else", "endfor", NULL}, *const last[] = {"endfor", NULL};
    struct node node = {.kind = NODE_FOR, .at = at, .text = p->token.text};
    struct template_list body = {0};
    struct str end = STR("");

    if (p->token.kind != TOKEN_NAME)
        template_fail(p, p->token.at, "a name is missing behind 'for'");
    template_next(p);
    template_append(p, &body, parse_targets(p, at, node.text, "for"));
    if (body.first != 0)
        node.text = STR("");
    if (!p->failed && !token_take_name(p, "in"))
        template_fail(p, p->token.at, "'in' is missing");
    node.a = template_parse_condition(p);
    if (token_take_name(p, "if"))
        node.d = template_parse_expression(p);
    expect_close(p);
    template_append(p, &body, parse_statements(p, ends, &end));
    node.b = body.first;
    expect_close(p);
    if (str_eq(end, STR("else"))) {
        node.c = parse_statements(p, last, &end);
        expect_close(p);
    }
    return template_node(p, node);
}

/* "set name = value", "set a, b = list", "set space.name = value", "set name" to "endset". */
static uint32_t parse_set(struct parser *p, uint32_t at)
{
    static const char *const ends[] = {"endset", NULL};
    struct node node = {.kind = NODE_SET, .at = at};
    struct str end = STR("");
    uint32_t unpack;

    node.text = parse_target(p, "set");
    unpack = parse_targets(p, at, node.text, "set");
    if (unpack == 0 && token_take_sign(p, ".")) {
        node.kind = NODE_SET_MEMBER;
        node.b = template_node(p, (struct node){.kind = NODE_NAME, .at = at, .text = node.text});
        node.text = parse_target(p, "set");
    }
    if (unpack == 0 && node.kind == NODE_SET && p->token.kind == TOKEN_CLOSE) {
        node.kind = NODE_CAPTURE;
        node.b = parse_statements(p, ends, &end);
        expect_close(p);
        return template_node(p, node);
    }
    if (!p->failed && !token_take_sign(p, "="))
        template_fail(p, p->token.at, "'=' is missing; 'set' gives a name a value");
    node.a = template_parse_expression(p);
    expect_close(p);
    if (unpack == 0 || p->failed)
        return template_node(p, node);
    p->t->nodes[unpack].a = node.a;
    if (p->t->nodes[unpack].depth <= p->t->nodes[node.a].depth)
        p->t->nodes[unpack].depth = (uint16_t)(p->t->nodes[node.a].depth + 1);
    return unpack;
}

/* "macro name(a, b=value)" */
static uint32_t parse_macro(struct parser *p, uint32_t at)
{
    static const char *const ends[] = {"endmacro", NULL};
    struct node node = {.kind = NODE_MACRO, .at = at};
    struct template_list names = {0};
    struct str end = STR("");
    unsigned len = 0;

    node.text = parse_target(p, "macro");
    ASSERT(p->macros_len <= TEMPLATE_MACROS_MAX);
    if (p->macros_len == TEMPLATE_MACROS_MAX)
        template_fail(p, at, "more than %d macros", TEMPLATE_MACROS_MAX);
    else
        p->macros[p->macros_len++] = node.text;
    template_expect_sign(p, "(");
    while (!p->failed && !token_is_sign(p, ")")) {
        struct node one = {.kind = NODE_ARGUMENT, .at = (uint32_t)p->token.at};

        if (len++ == TEMPLATE_CALL_MAX)
            template_fail(p, one.at, "more than %d parameters", TEMPLATE_CALL_MAX);
        one.text = parse_target(p, "macro");
        if (token_take_sign(p, "="))
            one.a = template_parse_expression(p);
        template_append(p, &names, template_node(p, one));
        if (!token_take_sign(p, ","))
            break;
    }
    template_expect_sign(p, ")");
    expect_close(p);
    node.a = names.first;
    node.b = parse_statements(p, ends, &end);
    expect_close(p);
    return template_node(p, node);
}

/* The tag "endraw" at or behind at; false: there is none. *from, *to: where it is. */
static bool find_endraw(const struct parser *p, size_t at, size_t *from, size_t *to)
{
    static const char word[] = "endraw";
    const char *end = p->source.ptr + p->source.len, *s;

    for (; (s = memmem(p->source.ptr + at, p->source.len - at, "{%", 2)) != NULL; at = *from + 2) {
        *from = (size_t)(s - p->source.ptr);
        s += 2;
        s += s < end && (*s == '-' || *s == '+');
        while (s < end && template_is_space(*s))
            s++;
        if ((size_t)(end - s) < sizeof(word) || memcmp(s, word, sizeof(word) - 1) != 0)
            continue;
        s += sizeof(word) - 1;
        while (s < end && template_is_space(*s))
            s++;
        s += s < end && (*s == '-' || *s == '+');
        if (end - s >= 2 && s[0] == '%' && s[1] == '}') {
            *to = (size_t)(s - p->source.ptr) + 2;
            return true;
        }
    }
    return false;
}

/* What is between is text, whatever it looks like. */
static uint32_t parse_raw(struct parser *p, uint32_t at)
{
    size_t from = p->at, to = 0, end = 0;

    expect_close(p);
    if (!p->failed && !find_endraw(p, from, &to, &end))
        template_fail(p, at, "'endraw' is missing for the tag in front of this");
    if (p->failed)
        return 0;
    while (p->trims && from < to && template_is_space(p->source.ptr[from]))
        from++;
    ASSERT(p->at <= to && to + 4 <= end && end <= p->source.len);
    p->trims = p->source.ptr[end - 3] == '-';
    p->at = end;
    end = to;
    while (p->source.ptr[end + 2] == '-' && to > from && template_is_space(p->source.ptr[to - 1]))
        to--;
    return from == to ? 0
                      : template_node(p, (struct node){.kind = NODE_TEXT,
                                                       .at = (uint32_t)from,
                                                       .text = template_between(p, from, to)});
}

static uint32_t parse_include(struct parser *p, uint32_t at)
{
    struct str name = p->token.text;

    if (p->token.kind != TOKEN_STRING)
        template_fail(p, p->token.at, "behind 'include' stands a partial's name in quotes");
    template_next(p);
    expect_close(p);
    return template_include(p, at, name, false, STR(""), 0, 0);
}

/* A tag that is none of ends: its statement. */
static uint32_t parse_tag(struct parser *p)
{
    uint32_t at = (uint32_t)p->token.at, a = 0;
    struct str name = p->token.text;

    if (p->token.kind != TOKEN_NAME) {
        template_fail(p, at, "a word is missing behind '{%%'");
        return 0;
    }
    if (!template_descend(p)) {
        p->depth--;
        return 0;
    }
    template_next(p);
    if (str_eq(name, STR("if")))
        a = parse_if(p, at);
    else if (str_eq(name, STR("for")))
        a = parse_for(p, at);
    else if (str_eq(name, STR("include")))
        a = parse_include(p, at);
    else if (str_eq(name, STR("set")))
        a = parse_set(p, at);
    else if (str_eq(name, STR("macro")))
        a = parse_macro(p, at);
    else if (str_eq(name, STR("raw")))
        a = parse_raw(p, at);
    else if (str_eq(name, STR("else")) || str_eq(name, STR("elif")) || str_eq(name, STR("endif")) ||
             str_eq(name, STR("endfor")) || str_eq(name, STR("endraw")) ||
             str_eq(name, STR("endset")) || str_eq(name, STR("endmacro")))
        template_fail(p, at, "'%.*s' has no beginning", STR_FMT(name));
    else
        template_fail(
            p, at,
            "'%.*s' is not taken; there are 'if', 'for', 'set', 'macro', 'include' and 'raw'",
            STR_FMT(name));
    p->depth--;
    return a;
}

/* Text up to the next tag, which p->at then stands behind. The tag's second character; '\0': the
 * end. */
static char parse_text(struct parser *p, uint32_t *text)
{
    size_t from = p->at, at = from, to;
    char kind = '\0';

    while (at + 1 < p->source.len && kind == '\0') {
        const char *brace = memchr(p->source.ptr + at, '{', p->source.len - at - 1);

        at = brace == NULL ? p->source.len : (size_t)(brace - p->source.ptr);
        if (brace != NULL && (brace[1] == '{' || brace[1] == '%' || brace[1] == '#'))
            kind = brace[1];
        else if (brace != NULL)
            at++;
    }
    to = at = kind == '\0' ? p->source.len : at;
    while (p->trims && from < to && template_is_space(p->source.ptr[from]))
        from++;
    p->at = kind == '\0' ? at : at + 2;
    if (kind != '\0' && p->at < p->source.len && p->source.ptr[p->at] == '-')
        while (to > from && template_is_space(p->source.ptr[to - 1]))
            to--;
    if (kind != '\0' && p->at < p->source.len &&
        (p->source.ptr[p->at] == '-' || p->source.ptr[p->at] == '+'))
        p->at++;
    p->trims = false;
    *text = from == to ? 0
                       : template_node(p, (struct node){.kind = NODE_TEXT,
                                                        .at = (uint32_t)from,
                                                        .text = template_between(p, from, to)});
    return kind;
}

static void skip_comment(struct parser *p)
{
    const char *end = memmem(p->source.ptr + p->at, p->source.len - p->at, "#}", 2);

    if (end == NULL) {
        template_fail(p, p->at - 2, "a comment without its closing #}");
        return;
    }
    p->trims = end > p->source.ptr + p->at && end[-1] == '-';
    p->at = (size_t)(end - p->source.ptr) + 2;
}

/* Whether the word of a tag, read already, ends what is parsed. */
static bool ends_here(struct parser *p, const char *const *ends, struct str *end)
{
    for (; ends != NULL && *ends != NULL; ends++)
        if (token_is_name(p, *ends)) {
            *end = p->token.text;
            template_next(p);
            return true;
        }
    return false;
}

void template_append(struct parser *p, struct template_list *list, uint32_t node)
{
    struct node *nodes = p->t->nodes;

    if (node == 0)
        return;
    /* In the order in which they are made, and at the end: else what follows it would be lost. */
    ASSERT(node > list->last && nodes[list->last].next == 0);
    if (list->first == 0)
        list->first = node;
    else
        nodes[list->last].next = node;
    list->last = node;
    if (nodes[list->first].depth < nodes[node].depth)
        nodes[list->first].depth = nodes[node].depth;
}

static uint32_t parse_output(struct parser *p)
{
    struct node node = {.kind = NODE_OUTPUT, .at = (uint32_t)p->token.at};

    node.a = template_parse_expression(p);
    expect_close(p);
    return template_node(p, node);
}

/* ends: words of tags that end the list, the last is the one that must come; NULL: the end of the
 * source does. *end: which. The first node of the list; 0: there is none. */
static uint32_t parse_statements(struct parser *p, const char *const *ends, struct str *end)
{
    struct template_list list = {0};
    size_t began = p->at, must = 0;

    while (!p->failed) {
        uint32_t text;
        char kind = parse_text(p, &text);

        template_append(p, &list, text);
        p->close = kind == '{' ? '}' : '%';
        if (kind == '\0')
            break;
        if (kind == '#') {
            skip_comment(p);
            continue;
        }
        template_next(p);
        if (kind == '%' && ends_here(p, ends, end))
            return list.first;
        template_append(p, &list, p->failed ? 0 : kind == '%' ? parse_tag(p) : parse_output(p));
    }
    while (ends != NULL && ends[must + 1] != NULL)
        must++;
    if (ends != NULL)
        template_fail(p, began, "'%s' is missing for the tag in front of this", ends[must]);
    return list.first;
}

/* --- the whole --- */

static uint32_t append_source(struct template *t, struct str text)
{
    uint32_t from = (uint32_t)t->source_len;

    while (text.len > 0) {
        ptrdiff_t cr = str_find(text, '\r');
        size_t run = cr < 0 ? text.len : (size_t)cr, after = run + (cr >= 0);

        memcpy(t->source + t->source_len, text.ptr, run);
        t->source_len += run;
        if (cr >= 0 && (after == text.len || text.ptr[after] != '\n'))
            t->source[t->source_len++] = '\n';
        text = (struct str){text.ptr + after, text.len - after};
    }
    return from;
}

static void append_part(struct template *t, struct str name, struct str text)
{
    struct template_part *part = &t->parts[t->parts_len++];

    part->name = name;
    part->from = append_source(t, text);
    part->to = (uint32_t)t->source_len;
    ASSERT(t->source + t->source_len < t->strings);
    t->source[t->source_len++] = '\n'; /* nothing of one part belongs to a line of another */
}

static struct template *template_new(struct str source, const struct template_partial *partials,
                                     size_t partials_len)
{
    size_t bytes = source.len + 1, parts = (partials_len + 1) * sizeof(struct template_part);
    struct template *t;

    for (size_t i = 0; i < partials_len; i++)
        bytes += partials[i].text.len + 1;
    ASSERT(bytes < UINT32_MAX);
    t = malloc(sizeof(*t) + parts + 2 * bytes); /* one block: a letter has a few templates */
    ASSERT(t != NULL);                          /* as in buf_*: memory is fatal */
    *t = (struct template){.nodes_cap = 16};
    t->parts = (struct template_part *)(t + 1);
    memset(t->parts, 0, parts);
    t->source = (char *)t->parts + parts;
    t->strings = t->source + bytes;
    t->nodes = malloc(t->nodes_cap * sizeof(*t->nodes));
    ASSERT(t->nodes != NULL);
    t->nodes[0] = (struct node){0};
    t->nodes_len = 1;
    append_part(t, STR(""), source);
    for (size_t i = 0; i < partials_len; i++)
        append_part(t, partials[i].name, partials[i].text);
    ASSERT(t->parts_len == partials_len + 1 && t->source_len <= bytes);
    return t;
}

struct template *template_literal(struct str source)
{
    struct template *t = template_new(source, NULL, 0);

    t->place = TEMPLATE_TEXT;
    t->nodes[1] = (struct node){.kind = NODE_TEXT, .text = {t->source, t->parts[0].to}};
    t->nodes_len = 2;
    t->parts[0].first = 1;
    return t;
}

uint32_t template_include(struct parser *p, size_t at, struct str name, bool standalone,
                          struct str indent, uint32_t context, uint32_t parameters)
{
    struct template *t = p->t;
    uint32_t n;

    if (p->failed)
        return 0;
    for (uint32_t i = 1; i < t->parts_len; i++) {
        if (!str_eq(name, t->parts[i].name))
            continue;
        t->parts[i].wanted = true;
        n = template_node(p, (struct node){.kind = NODE_PARTIAL,
                                           .at = (uint32_t)at,
                                           .which = standalone,
                                           .text = indent,
                                           .a = context,
                                           .b = parameters,
                                           .part = i});
        return n;
    }
    if (t->language != TEMPLATE_MUSTACHE) /* its specification wants nothing put out */
        template_fail(p, at, "there is no partial '%.*s'", name.len > 60 ? 60 : (int)name.len,
                      name.ptr);
    return 0;
}

static void compile_part(struct parser *p, struct template_part *part)
{
    struct template *t = p->t;

    ASSERT(part->wanted && !part->compiled && part->from <= part->to);
    p->at = part->from;
    p->source = (struct str){t->source, part->to};
    p->trims = false;
    if (t->language == TEMPLATE_JINJA && part->to > part->from &&
        t->source[part->to - 1] == '\n') /* Jinja drops one */
        p->source.len--;
    part->compiled = true;
    part->first = t->language == TEMPLATE_JINJA
                      ? parse_statements(p, NULL, NULL)
                      : template_parse_mustache(p, t->language == TEMPLATE_HANDLEBARS);
}

/* What is called is a function, or a macro of the template or its partials. */
static void check_calls(struct parser *p)
{
    struct template *t = p->t;

    for (uint32_t n = 1; n < t->nodes_len && !p->failed; n++) {
        const struct node *call = &t->nodes[n];
        bool known = call->kind != NODE_CALL || template_function_known(call->text);

        for (size_t i = 0; i < p->macros_len && !known; i++)
            known = str_eq(call->text, p->macros[i]);
        if (!known)
            template_fail(p, call->at, "there is no function and no macro '%.*s'",
                          call->text.len > 60 ? 60 : (int)call->text.len, call->text.ptr);
    }
}

/* Whether source may include anything: else its partials need not be kept with it. */
static bool may_include(struct str source, enum template_language language)
{
    struct str sign = language == TEMPLATE_JINJA ? STR("include") : STR(">");

    return source.len > 0 && memmem(source.ptr, source.len, sign.ptr, sign.len) != NULL;
}

struct template *template_compile(struct str source, enum template_language language,
                                  enum template_place place, bool stored,
                                  const struct template_partial *partials, size_t partials_len,
                                  struct template_error *error)
{
    struct template *t =
        template_new(source, partials, may_include(source, language) ? partials_len : 0);
    struct parser p = {.t = t, .stored = stored, .error = error};
    bool more = true;

    ASSERT(partials_len <= TEMPLATE_PARTIALS_MAX);
    t->language = language;
    t->place = place;
    t->parts[0].wanted = true;
    while (more && !p.failed) {
        more = false;
        for (size_t i = 0; i < t->parts_len && !p.failed; i++)
            if (t->parts[i].wanted && !t->parts[i].compiled) {
                compile_part(&p, &t->parts[i]);
                more = true;
            }
    }
    ASSERT(p.depth == 0 && p.braces == 0); /* whatever was wrong on the way */
    check_calls(&p);
    if (!p.failed)
        return t;
    template_free(t);
    return NULL;
}

void template_refuse_missing(struct template *t)
{
    t->refuses_missing = true;
}

size_t template_bytes(const struct template *t)
{
    return sizeof(*t) + 2 * t->source_len + t->nodes_cap * sizeof(*t->nodes) +
           t->parts_len * sizeof(*t->parts);
}

void template_free(struct template *t)
{
    if (t == NULL)
        return;
    free(t->nodes);
    free(t);
}
