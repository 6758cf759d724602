/* Filters of texts, and those that take a list as they take a text's characters. As Jinja has them.
 * Letters change their case by GLib's rules, which are those
 * of Unicode. */
#include <string.h>

#include <glib.h>

#include "mail/template_private.h"

/* A copy of what GLib made, which is freed. */
static struct value from_glib(struct render *r, uint32_t at, char *made, bool safe)
{
    struct value v = value_copy(r, at, str_of(made), safe);

    g_free(made);
    return v;
}

FILTER(filter_upper)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    if (!render_spend(r, at, v.string.len / CASED_PER_STEP))
        return v;
    return from_glib(r, at, g_utf8_strup(v.string.ptr, (gssize)v.string.len), v.safe);
}

FILTER(filter_lower)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    if (!render_spend(r, at, v.string.len / CASED_PER_STEP))
        return v;
    return from_glib(r, at, g_utf8_strdown(v.string.ptr, (gssize)v.string.len), v.safe);
}

static size_t char_len(struct str s)
{
    size_t n = 1;

    ASSERT(s.len > 0);
    while (n < s.len && ((unsigned char)s.ptr[n] & 0xc0) == 0x80)
        n++;
    return n;
}

/* Where the last character of s, which has one, begins. */
static size_t last_char(struct str s)
{
    size_t n = s.len - 1;

    while (((unsigned char)s.ptr[n] & 0xc0) == 0x80) {
        ASSERT(n > 0); /* valid UTF-8 */
        n--;
    }
    return n;
}

static bool is_blank(gunichar c)
{
    return g_unichar_isspace(c) || c == '\v' || (c >= 0x1c && c <= 0x1f) || c == 0x85;
}

static bool ends_word(gunichar c)
{
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_blank(c);
}

/* The first letter of each word, or of the text alone, in upper case, the others in lower. */
static struct value begin_upper(struct render *r, uint32_t at, struct value v, bool each_word)
{
    GString *out;
    bool begins = true;

    v = value_text(r, at, v);
    if (!render_spend(r, at, 3 * v.string.len)) /* two allocations for each character */
        return v;
    out = g_string_new(NULL);
    for (size_t i = 0, n; i < v.string.len; i += n) {
        struct str rest = {v.string.ptr + i, v.string.len - i};
        gunichar c = g_utf8_get_char(rest.ptr);
        char *made;

        n = char_len(rest);
        made = begins ? g_utf8_strup(rest.ptr, (gssize)n) : g_utf8_strdown(rest.ptr, (gssize)n);
        g_string_append(out, made);
        g_free(made);
        begins = each_word && ends_word(c);
    }
    return from_glib(r, at, g_string_free(out, FALSE), v.safe);
}

FILTER(filter_title)
{
    (void)args, (void)args_len;
    v = begin_upper(r, at, v, true);
    v.safe = false; /* as in Jinja, whose pieces are plain strings */
    return v;
}

FILTER(filter_capitalize)
{
    (void)args, (void)args_len;
    return begin_upper(r, at, v, false);
}

FILTER(filter_trim)
{
    (void)args, (void)args_len;
    v = value_text(r, at, v);
    (void)render_spend(r, at, v.string.len / LOOKED_PER_STEP);
    while (!r->failed && v.string.len > 0 && is_blank(g_utf8_get_char(v.string.ptr))) {
        size_t n = char_len(v.string);

        v.string.ptr += n;
        v.string.len -= n;
    }
    while (!r->failed && v.string.len > 0) {
        size_t last = last_char(v.string);

        if (!is_blank(g_utf8_get_char(v.string.ptr + last)))
            break;
        v.string.len = last;
    }
    return v;
}

FILTER(filter_length)
{
    int64_t n = 0;

    (void)args, (void)args_len;
    if (v.kind == VALUE_JSON)
        n = (int64_t)(json_is_array(v.json) ? json_array_size(v.json) : json_object_size(v.json));
    else if (v.kind == VALUE_STRING && render_spend(r, at, v.string.len / LOOKED_PER_STEP))
        n = g_utf8_strlen(v.string.ptr, (gssize)v.string.len);
    else if (v.kind != VALUE_STRING && v.kind != VALUE_UNDEFINED)
        return render_fail(r, at, "only texts, lists and objects have a length");
    return (struct value){.kind = VALUE_INTEGER, .integer = n};
}

FILTER(filter_join)
{
    struct value separator = args_len > 0 && args[0].kind != VALUE_UNDEFINED
                                 ? value_text(r, at, args[0])
                                 : (struct value){.kind = VALUE_STRING, .string = STR("")};
    bool safe = separator.safe && r->t->place == TEMPLATE_HTML;
    struct buf out = {0};

    if (v.kind == VALUE_UNDEFINED)
        return (struct value){.kind = VALUE_STRING, .safe = safe, .string = STR("")};
    if (v.kind != VALUE_JSON || !json_is_array(v.json))
        return render_fail(r, at, "'join' takes a list");
    if (args_len > 1) {
        const struct value by[] = {{0}, args[1]};

        v = filter_map(r, at, v, by, ARRAY_LEN(by));
    }
    for (size_t i = 0; !r->failed && i < json_array_size(v.json); i++) {
        struct value one = value_text(r, at, value_of_json(json_array_get(v.json, i)));

        if (safe) /* as Jinja has it: what such a text joins becomes as safe */
            one = value_escaped(r, at, one);
        if (!render_spend(r, at, 1 + one.string.len / LOOKED_PER_STEP) ||
            out.len > r->budget->bytes)
            break;
        if (i > 0)
            buf_put_str(&out, separator.string);
        buf_put_str(&out, one.string);
    }
    return value_of_buf(r, at, &out, safe);
}

static struct value at_end(struct render *r, uint32_t at, struct value v, bool last)
{
    size_t n;

    if (v.kind == VALUE_JSON && json_is_array(v.json)) {
        n = json_array_size(v.json);
        return value_of_json(n == 0 ? NULL : json_array_get(v.json, last ? n - 1 : 0));
    }
    if (v.kind == VALUE_UNDEFINED || (v.kind == VALUE_STRING && v.string.len == 0))
        return (struct value){0};
    if (v.kind != VALUE_STRING)
        return render_fail(r, at, "only texts and lists have a first and a last");
    n = last ? last_char(v.string) : 0;
    v.string = last ? (struct str){v.string.ptr + n, v.string.len - n}
                    : (struct str){v.string.ptr, char_len(v.string)};
    return v;
}

FILTER(filter_first)
{
    (void)args, (void)args_len;
    return at_end(r, at, v, false);
}

FILTER(filter_last)
{
    (void)args, (void)args_len;
    return at_end(r, at, v, true);
}

FILTER(filter_replace)
{
    struct value from = value_text(r, at, args[0]), to = value_text(r, at, args[1]);
    struct buf out = {0};
    size_t i = 0;

    ASSERT(args_len == 2);
    v = value_text(r, at, v);
    if (r->failed || from.string.len == 0)
        return r->failed ? v : render_fail(r, at, "'replace' of nothing");
    v.safe &= r->t->place == TEMPLATE_HTML;
    if (v.safe) { /* it stays so */
        from = value_escaped(r, at, from);
        to = value_escaped(r, at, to);
    }
    /* memmem() is linear, whatever both are. */
    (void)render_spend(r, at, (v.string.len + from.string.len) / LOOKED_PER_STEP);
    while (i < v.string.len && out.len <= r->budget->bytes && render_spend(r, at, 1)) {
        const char *rest = v.string.ptr + i;
        const char *found = memmem(rest, v.string.len - i, from.string.ptr, from.string.len);
        size_t n = found == NULL ? v.string.len - i : (size_t)(found - rest);

        buf_put(&out, rest, n);
        if (found != NULL)
            buf_put_str(&out, to.string);
        i += n + (found == NULL ? 0 : from.string.len);
    }
    return value_of_buf(r, at, &out, v.safe);
}

FILTER(filter_urlencode)
{
    static const char hex[] = "0123456789ABCDEF";
    char *room;
    size_t len = 0;

    (void)args, (void)args_len;
    v = value_text(r, at, v);
    room = r->failed ? NULL : render_scratch(r, at, 3 * v.string.len);
    if (room == NULL)
        return (struct value){0};
    for (size_t i = 0; i < v.string.len; i++) {
        char c = v.string.ptr[i];

        if (g_ascii_isalnum(c) || strchr("_.-~/", c) != NULL) {
            room[len++] = c;
            continue;
        }
        room[len++] = '%';
        room[len++] = hex[(unsigned char)c >> 4];
        room[len++] = hex[(unsigned char)c & 15];
    }
    ASSERT(len <= 3 * v.string.len);
    return (struct value){.kind = VALUE_STRING, .string = {room, len}};
}

/* Where the first n characters end. */
static size_t chars_end(struct str s, int64_t n)
{
    size_t at = 0;

    while (n-- > 0 && at < s.len)
        at += char_len((struct str){s.ptr + at, s.len - at});
    return at;
}

/* As in Jinja: what is longer than args[0] (255) characters and five more is cut, at a blank if
 * args[1] is not true, and ends with args[2] ("..."). */
FILTER(filter_truncate)
{
    struct buf out = {0};
    bool given = args_len > 0 && args[0].kind != VALUE_UNDEFINED;
    struct value dots = args_len > 2 ? value_text(r, at, args[2])
                                     : (struct value){.kind = VALUE_STRING, .string = STR("...")};
    int64_t max = given ? args[0].integer : 255, dots_len;
    bool words = args_len < 2 || !value_true(&args[1]);
    size_t end, blank;

    dots_len = g_utf8_strlen(dots.string.ptr, (gssize)dots.string.len);
    if (given && (args[0].kind != VALUE_INTEGER || max < dots_len))
        return render_fail(r, at, "the length of 'truncate' is a number of %lld or more",
                           (long long)dots_len);
    v = value_text(r, at, v);
    if (!render_spend(r, at, v.string.len / LOOKED_PER_STEP))
        return v;
    if (chars_end(v.string, max < INT64_MAX - 5 ? max + 5 : max) >= v.string.len)
        return v;
    end = chars_end(v.string, max - dots_len);
    ASSERT(end < v.string.len);
    for (blank = end; words && blank > 0; blank--)
        if (v.string.ptr[blank - 1] == ' ') {
            end = blank - 1;
            break;
        }
    buf_put(&out, v.string.ptr, end);
    buf_put_str(&out, dots.string);
    return value_of_buf(r, at, &out, v.safe);
}

FILTER(filter_striptags)
{
    struct buf out = {0};
    bool tag = false, blank = true;

    (void)args, (void)args_len;
    v = value_text(r, at, v);
    (void)render_spend(r, at, v.string.len / LOOKED_PER_STEP);
    for (size_t i = 0; !r->failed && i < v.string.len; i++) {
        char c = v.string.ptr[i];

        tag |= c == '<';
        if (!tag && !(blank && g_ascii_isspace(c)))
            buf_putc(&out, g_ascii_isspace(c) ? ' ' : c);
        if (!tag)
            blank = g_ascii_isspace(c);
        tag &= c != '>';
    }
    while (out.len > 0 && out.data[out.len - 1] == ' ')
        out.len--;
    return value_of_buf(r, at, &out, false);
}

FILTER(filter_wordcount)
{
    int64_t n = 0;
    bool word = false;

    (void)args, (void)args_len;
    v = value_text(r, at, v);
    (void)render_spend(r, at, v.string.len / LOOKED_PER_STEP);
    for (const char *s = v.string.ptr; s < v.string.ptr + v.string.len; s = g_utf8_next_char(s)) {
        bool letter = g_unichar_isalnum(g_utf8_get_char(s)) || *s == '_';

        n += letter && !word;
        word = letter;
    }
    return (struct value){.kind = VALUE_INTEGER, .integer = n};
}
