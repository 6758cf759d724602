#include "mail/json_read.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>
#include <jansson.h>

#include "base/buf.h"
#include "smtp/address.h"

struct reader {
    const char *begin, *at, *end;
    unsigned depth, depth_max;
    size_t values, values_max;
    struct buf text; /* of a string with escapes */
    struct json_read_error *error;
};

static bool fail(struct reader *r, const char *why)
{
    *r->error = (struct json_read_error){.kind = JSON_READ_NOT_JSON, .why = why};
    return false;
}

static bool count_value(struct reader *r)
{
    if (r->values++ < r->values_max)
        return true;
    fail(r, "there are too many values");
    r->error->kind = JSON_READ_TOO_MANY;
    return false;
}

static void skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

/* Whether c is next, which is taken. */
static bool char_take(struct reader *r, char c)
{
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* --- strings --- */

/* So many bytes at once; what machines do with one instruction each. */
typedef uint8_t bytes16 __attribute__((vector_size(16)));

static inline bool any_bit(bytes16 v)
{
    uint64_t halves[2];

    memcpy(halves, &v, sizeof(halves));
    return (halves[0] | halves[1]) != 0;
}

/* Whether one of them ends a run of bytes that stand for themselves. */
static inline bool has_special(bytes16 v)
{
    return any_bit((bytes16)(v == '"') | (bytes16)(v == '\\') | (bytes16)(v < ' '));
}

static inline bool is_special(char c)
{
    return c == '"' || c == '\\' || (uint8_t)c < ' ';
}

/* To the next such byte, or the end. *all gets bits of all bytes on the way. */
static void skip_plain(struct reader *r, bytes16 *all)
{
    bytes16 v;

    for (; (size_t)(r->end - r->at) >= sizeof(v); r->at += sizeof(v)) {
        memcpy(&v, r->at, sizeof(v));
        if (has_special(v))
            break;
        *all |= v;
    }
    while (r->at < r->end && !is_special(*r->at))
        *all |= (uint8_t)*r->at++;
}

static bool take_unit(struct reader *r, uint32_t *out)
{
    uint32_t unit = 0;

    if (r->end - r->at < 4)
        return fail(r, "\\u is followed by less than four digits");
    for (int i = 0; i < 4; i++) {
        int digit = g_ascii_xdigit_value(r->at[i]);

        if (digit < 0)
            return fail(r, "\\u is followed by less than four digits");
        unit = unit << 4 | (uint32_t)digit;
    }
    r->at += 4;
    *out = unit;
    return true;
}

/* Behind "\u". What is beyond 16 bits is two of them (RFC 8259 section 7). */
static bool take_character(struct reader *r)
{
    uint32_t c, low = 0;
    char bytes[6];

    if (!take_unit(r, &c))
        return false;
    if (c >= 0xd800 && c < 0xdc00) {
        if (!char_take(r, '\\') || !char_take(r, 'u') || !take_unit(r, &low) || low < 0xdc00 ||
            low >= 0xe000)
            return fail(r, "half a surrogate pair");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c >= 0xdc00 && c < 0xe000) {
        return fail(r, "half a surrogate pair");
    } else if (c == 0) {
        return fail(r, "\\u0000 is not taken");
    }
    ASSERT(c <= 0x10ffff);
    buf_put(&r->text, bytes, (size_t)g_unichar_to_utf8(c, bytes));
    return true;
}

/* Behind the backslash. */
static bool take_escape(struct reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *found;

    ASSERT(r->at > r->begin && r->at[-1] == '\\');
    if (r->at == r->end || *r->at == '\0')
        return fail(r, "a string does not end");
    if (char_take(r, 'u'))
        return take_character(r);
    found = strchr(from, *r->at);
    if (found == NULL)
        return fail(r, "no such escape");
    buf_putc(&r->text, to[found - from]);
    r->at++;
    return true;
}

/* Behind the opening quote. *out is valid until the next string is read. */
static bool take_string(struct reader *r, struct str *out)
{
    const char *from = r->at;
    bool escaped = false;
    bytes16 all = {0};

    ASSERT(r->at > r->begin && r->at[-1] == '"');
    buf_clear(&r->text);
    for (;;) {
        skip_plain(r, &all);
        if (r->at == r->end)
            return fail(r, "a string does not end");
        if (*r->at == '"')
            break;
        if (*r->at != '\\')
            return fail(r, "a control character in a string: write \\n, \\t, \\u001f");
        escaped = true;
        buf_put(&r->text, from, (size_t)(r->at++ - from));
        if (!take_escape(r))
            return false;
        from = r->at;
    }
    *out = (struct str){from, (size_t)(r->at - from)};
    if (escaped) {
        buf_put_str(&r->text, *out);
        *out = buf_str(&r->text);
    }
    if (any_bit(all & 0x80) && !smtp_utf8_valid(*out))
        return fail(r, "a string is not UTF-8");
    r->at++;
    return true;
}

/* --- numbers --- */

static bool take_digits(struct reader *r)
{
    const char *from = r->at;

    while (r->at < r->end && g_ascii_isdigit(*r->at))
        r->at++;
    return r->at > from;
}

/* What r->text has, with a NUL behind it. */
static json_t *number_of(struct reader *r, bool real)
{
    const char *text = (char *)r->text.data;
    json_int_t integer;
    double value;

    ASSERT(r->text.len > 1 && text[r->text.len - 1] == '\0');
    errno = 0;
    if (!real) {
        integer = strtoll(text, NULL, 10);
        if (errno == 0)
            return json_integer(integer);
    } else {
        value = g_ascii_strtod(text, NULL);
        if (isfinite(value))
            return json_real(value);
    }
    fail(r, "a number is too large");
    return NULL;
}

static json_t *take_number(struct reader *r)
{
    const char *from = r->at;
    bool real = false, whole;

    (void)char_take(r, '-');
    whole = char_take(r, '0') || take_digits(r);
    if (whole && char_take(r, '.')) {
        real = true;
        whole = take_digits(r);
    }
    if (whole && (char_take(r, 'e') || char_take(r, 'E'))) {
        real = true;
        (void)(char_take(r, '+') || char_take(r, '-'));
        whole = take_digits(r);
    }
    if (!whole) {
        fail(r, "neither a value nor an end");
        return NULL;
    }
    buf_clear(&r->text);
    buf_put(&r->text, from, (size_t)(r->at - from));
    buf_putc(&r->text, '\0');
    return number_of(r, real);
}

/* --- values --- */

static json_t *take_value(struct reader *r);

/* A member's value; the name's memory is its own where the value's strings would be put there. */
static bool take_member(struct reader *r, json_t *object)
{
    size_t before = json_object_size(object);
    struct buf kept = {0};
    json_t *value = NULL;
    struct str name;
    bool done;

    if (!char_take(r, '"'))
        return fail(r, "a name in double quotes is missing");
    if (!take_string(r, &name))
        return false;
    if (name.ptr == (char *)r->text.data) {
        kept = r->text;
        r->text = (struct buf){0};
    }
    skip_space(r);
    if ((char_take(r, ':') || fail(r, "':' is missing")) && count_value(r))
        value = take_value(r);
    done = value != NULL && json_object_setn_new_nocheck(object, name.ptr, name.len, value) == 0;
    buf_done(&kept);
    if (done && json_object_size(object) == before)
        return fail(r, "a duplicate name");
    return done;
}

static bool take_element(struct reader *r, json_t *list)
{
    json_t *value = take_value(r);

    return value != NULL && json_array_append_new(list, value) == 0;
}

/* Behind the opening bracket. */
static json_t *take_all(struct reader *r, json_t *all, char end,
                        bool (*one)(struct reader *, json_t *))
{
    bool goes_on = ++r->depth <= r->depth_max, ended;

    ASSERT(all != NULL && r->depth <= r->depth_max + 1);
    if (!goes_on) {
        fail(r, "nested too deep");
        r->error->kind = JSON_READ_TOO_DEEP;
    }
    skip_space(r);
    ended = goes_on && char_take(r, end);
    while (goes_on && !ended) {
        goes_on = one(r, all);
        if (goes_on)
            skip_space(r);
        ended = goes_on && char_take(r, end);
        goes_on = goes_on && (ended || char_take(r, ',') || fail(r, "neither ',' nor an end"));
        if (goes_on)
            skip_space(r);
    }
    r->depth--;
    if (ended)
        return all;
    json_decref(all);
    return NULL;
}

static json_t *take_word(struct reader *r, struct str word, json_t *value)
{
    if ((size_t)(r->end - r->at) >= word.len && memcmp(r->at, word.ptr, word.len) == 0) {
        r->at += word.len;
        return value;
    }
    fail(r, "neither a value nor an end");
    return NULL;
}

static json_t *take_value(struct reader *r)
{
    struct str text;

    skip_space(r);
    if (!count_value(r))
        return NULL;
    switch (r->at == r->end ? '\0' : *r->at) {
    case '{':
        r->at++;
        return take_all(r, json_object(), '}', take_member);
    case '[':
        r->at++;
        return take_all(r, json_array(), ']', take_element);
    case '"':
        r->at++;
        return take_string(r, &text) ? json_stringn_nocheck(text.ptr, text.len) : NULL;
    case 't':
        return take_word(r, STR("true"), json_true());
    case 'f':
        return take_word(r, STR("false"), json_false());
    case 'n':
        return take_word(r, STR("null"), json_null());
    default:
        return take_number(r);
    }
}

static void find_place(struct reader *r)
{
    r->error->line = r->error->column = 1;
    for (const char *p = r->begin; p < r->at; p++) {
        r->error->column += ((uint8_t)*p & 0xc0) != 0x80;
        if (*p == '\n') {
            r->error->line++;
            r->error->column = 1;
        }
    }
}

json_t *json_read(struct str text, unsigned depth_max, size_t values_max, size_t *values,
                  struct json_read_error *error)
{
    const char *begin = text.ptr == NULL ? "" : text.ptr;
    struct reader r = {.begin = begin,
                       .at = begin,
                       .end = begin + text.len,
                       .depth_max = depth_max,
                       .values_max = values_max,
                       .error = error};
    json_t *root = NULL;

    *error = (struct json_read_error){.kind = JSON_READ_NOT_JSON, .why = "no memory is left"};
    skip_space(&r);
    if (r.at == r.end || (*r.at != '{' && *r.at != '['))
        fail(&r, "'{' or '[' is missing");
    else
        root = take_value(&r);
    if (root != NULL) {
        skip_space(&r);
        if (r.at < r.end) {
            fail(&r, "something is behind its end");
            json_decref(root);
            root = NULL;
        }
    }
    ASSERT(r.depth == 0 && r.at <= r.end);
    if (root == NULL)
        find_place(&r);
    buf_done(&r.text);
    *values = r.values;
    return root;
}
