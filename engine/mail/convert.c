#include "mail/convert.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mail/downgrade.h"
#include "mail/encode.h"
#include "mail/header.h"

/* Two passes, each once over the message whatever its depth. The first finds the entities (RFC 2045
 * 2.4) and where in them bytes above 127 are; the second copies the message and changes header
 * fields, encodings and bodies where they have some. Whatever a reader could understand in two ways
 * is left alone: a wrong guess would change the message. */

#define BOUNDARY_BYTES_MAX 200 /* RFC 2046 allows 70 */

/* KIND_CLOSED: nobody may, or can, change what is inside. A message that says it is encoded is
 * closed, since some readers decode it and some do not; of a multipart they find the parts whatever
 * it says. */
enum kind { KIND_LEAF, KIND_MULTIPART, KIND_DIGEST, KIND_MESSAGE, KIND_CLOSED };
enum encoding {
    ENCODING_NONE,
    ENCODING_7BIT,
    ENCODING_8BIT, /* those behind it change bytes */
    ENCODING_QP,
    ENCODING_BASE64,
    ENCODING_OTHER
};

struct part {
    enum kind kind;
    enum encoding encoding;
    bool is_message; /* it has a message's header, not that of a body part */
    bool has_type, has_mime_version;
    bool header_eight_bit, body_eight_bit;
    bool text_eight_bit;                 /* a multipart's preamble or epilogue */
    size_t start, fields_end, body, end; /* end of the fields; behind the empty line */
    size_t encoding_start, encoding_end; /* of its field, when encoding != ENCODING_NONE */
    size_t header_first, body_first;     /* the first 8-bit byte from start and body on */
};

/* A multipart or message whose end has not come yet. */
struct open {
    size_t part; /* index */
    char boundary[BOUNDARY_BYTES_MAX];
    size_t boundary_len; /* 0: a message */
    bool inside;         /* behind its first delimiter */
    bool closed;         /* behind its last: in the epilogue */
    size_t epilogue_first;
};

struct walk {
    const uint8_t *p;
    size_t len;
    struct part *parts;
    size_t parts_len, parts_cap;
    struct open open[CONVERT_DEPTH_MAX];
    size_t depth;
    size_t eight_bit_at; /* the first 8-bit byte from some earlier place on */
};

/* --- Content-Type (RFC 2045 5.1) --- */

static bool is_token_byte(char c)
{
    return c > ' ' && c < 0x7f && strchr("()<>@,;:\\\"/[]?=", c) == NULL;
}

/* White space, folds and comments. */
static bool skip_cfws(struct str *s)
{
    unsigned depth = 0;

    for (; s->len > 0; s->ptr++, s->len--) {
        char c = *s->ptr;

        if (c == '(') {
            depth++;
        } else if (c == ')' && depth > 0) {
            depth--;
        } else if (c == '\\' && depth > 0 && s->len > 1) {
            s->ptr++;
            s->len--;
        } else if (depth == 0 && c != ' ' && c != '\t' && c != '\r' && c != '\n') {
            break;
        }
    }
    return depth == 0;
}

static bool take_token(struct str *s, struct str *token)
{
    if (!skip_cfws(s))
        return false;
    *token = (struct str){s->ptr, 0};
    while (token->len < s->len && is_token_byte(s->ptr[token->len]))
        token->len++;
    s->ptr += token->len;
    s->len -= token->len;
    return token->len > 0 && skip_cfws(s);
}

static bool take_byte(struct str *s, char c)
{
    if (s->len == 0 || *s->ptr != c)
        return false;
    s->ptr++;
    s->len--;
    return skip_cfws(s);
}

/* What unquoted values have in practice: more than a token may. */
static bool is_bare_byte(char c)
{
    return (uint8_t)c > ' ' && c != 0x7f && strchr("\";(),", c) == NULL;
}

/* A bare value or a quoted-string into out; false when it is neither or too long. */
static bool take_value(struct str *s, char *out, size_t cap, size_t *len)
{
    bool quoted = s->len > 0 && *s->ptr == '"';

    *len = 0;
    if (quoted) {
        s->ptr++;
        s->len--;
    }
    while (s->len > 0 && (quoted ? *s->ptr != '"' : is_bare_byte(*s->ptr))) {
        if (quoted && *s->ptr == '\\' && s->len > 1) {
            s->ptr++;
            s->len--;
        }
        if (*len == cap)
            return false;
        if (*s->ptr != '\r' && *s->ptr != '\n')
            out[(*len)++] = *s->ptr;
        s->ptr++;
        s->len--;
    }
    return quoted ? take_byte(s, '"') : *len > 0 && skip_cfws(s);
}

static enum kind kind_of(struct str type, struct str subtype)
{
    if (str_eq_nocase(type, STR("multipart"))) {
        if (str_eq_nocase(subtype, STR("signed")) || str_eq_nocase(subtype, STR("encrypted")))
            return KIND_CLOSED;
        return str_eq_nocase(subtype, STR("digest")) ? KIND_DIGEST : KIND_MULTIPART;
    }
    if (str_eq_nocase(type, STR("message")))
        return str_eq_nocase(subtype, STR("rfc822")) ? KIND_MESSAGE : KIND_CLOSED;
    return KIND_LEAF;
}

/* boundary: of a multipart, else empty. */
static bool parse_type(struct str value, struct part *part, struct open *open)
{
    struct str type, subtype, name;
    bool multipart;

    if (!take_token(&value, &type) || !take_byte(&value, '/') || !take_token(&value, &subtype))
        return false;
    part->kind = kind_of(type, subtype);
    multipart = part->kind == KIND_MULTIPART || part->kind == KIND_DIGEST;
    while (take_byte(&value, ';')) {
        char ignored[4096];
        size_t ignored_len;
        bool is_boundary;

        if (value.len == 0)
            break;
        if (!take_token(&value, &name) || !take_byte(&value, '='))
            return false;
        is_boundary = str_eq_nocase(name, STR("boundary"));
        /* RFC 2231 pieces of a boundary are legal, and understood by few. */
        if ((is_boundary && open->boundary_len > 0) ||
            (!is_boundary && str_starts_nocase(name, STR("boundary*"))))
            return false;
        if (is_boundary
                ? !take_value(&value, open->boundary, sizeof(open->boundary), &open->boundary_len)
                : !take_value(&value, ignored, sizeof(ignored), &ignored_len))
            return false;
    }
    while (open->boundary_len > 0 && open->boundary[open->boundary_len - 1] == ' ')
        open->boundary_len--;
    return value.len == 0 && str_is_ascii((struct str){open->boundary, open->boundary_len}) &&
           (!multipart || open->boundary_len > 0);
}

static enum encoding parse_encoding(struct str value)
{
    struct str token;

    if (!take_token(&value, &token) || value.len > 0)
        return ENCODING_OTHER;
    if (str_eq_nocase(token, STR("7bit")))
        return ENCODING_7BIT;
    if (str_eq_nocase(token, STR("8bit")) || str_eq_nocase(token, STR("binary")))
        return ENCODING_8BIT;
    if (str_eq_nocase(token, STR("quoted-printable")))
        return ENCODING_QP;
    return str_eq_nocase(token, STR("base64")) ? ENCODING_BASE64 : ENCODING_OTHER;
}

/* --- the first pass --- */

/* Offset of the first 8-bit byte at or behind from, or len. from only grows, so that all calls
 * together look at each byte once. */
static size_t eight_bit_from(struct walk *w, size_t from)
{
    uint64_t word;
    size_t i;

    ASSERT(from <= w->len);
    if (from <= w->eight_bit_at && w->eight_bit_at > 0)
        return w->eight_bit_at;
    for (i = from; i + sizeof(word) <= w->len; i += sizeof(word)) {
        memcpy(&word, w->p + i, sizeof(word));
        if ((word & UINT64_C(0x8080808080808080)) != 0)
            break;
    }
    while (i < w->len && w->p[i] < 0x80)
        i++;
    w->eight_bit_at = i;
    return i;
}

enum delimiter { DELIMITER_NONE, DELIMITER_NEXT, DELIMITER_CLOSE };

/* Whether the line [at, end) is "--boundary" or "--boundary--", with white space behind at most. */
static enum delimiter delimiter_at(const uint8_t *p, size_t at, size_t end, const struct open *open)
{
    enum delimiter found = DELIMITER_NEXT;
    struct str line = {(const char *)p + at, end - at};

    ASSERT(open->boundary_len > 0); /* or a message would end at any "--" */
    if (line.len < open->boundary_len + 2 ||
        memcmp(line.ptr + 2, open->boundary, open->boundary_len) != 0)
        return DELIMITER_NONE;
    line.ptr += open->boundary_len + 2;
    line.len -= open->boundary_len + 2;
    if (line.len >= 2 && line.ptr[0] == '-' && line.ptr[1] == '-') {
        found = DELIMITER_CLOSE;
        line.ptr += 2;
        line.len -= 2;
    }
    for (size_t i = 0; i < line.len; i++)
        if (strchr(" \t\r\n", line.ptr[i]) == NULL || line.ptr[i] == '\0')
            return DELIMITER_NONE;
    return found;
}

/* The outermost multipart whose delimiter the line is: what is inside ends with it. */
static enum delimiter find_delimiter(const struct walk *w, size_t at, size_t end, size_t *level)
{
    ASSERT(at <= end && end <= w->len && w->depth <= CONVERT_DEPTH_MAX);
    if (end - at < 3 || w->p[at] != '-' || w->p[at + 1] != '-')
        return DELIMITER_NONE;
    for (size_t i = 0; i < w->depth; i++) {
        const struct open *open = &w->open[i];
        enum delimiter d = open->boundary_len == 0 || open->closed
                               ? DELIMITER_NONE
                               : delimiter_at(w->p, at, end, open);

        if (d != DELIMITER_NONE) {
            *level = i;
            return d;
        }
    }
    return DELIMITER_NONE;
}

/* Reads the part's fields, up to an empty line, a delimiter, or a line that is no field: false
 * then. */
static bool parse_fields(struct walk *w, struct part *part, struct open *open)
{
    struct header_field f;
    size_t at = part->start, level;
    bool clear = true;

    for (; at < w->len && header_field_next(w->p, w->len, at, &f); at = f.end) {
        if (find_delimiter(w, at, header_line_end(w->p, w->len, at), &level) != DELIMITER_NONE)
            break;
        if (str_eq_nocase(f.name, STR("content-type"))) {
            clear &= !part->has_type && parse_type(header_field_value(w->p, &f), part, open);
            part->has_type = true;
        } else if (str_eq_nocase(f.name, STR("content-transfer-encoding"))) {
            clear &= part->encoding == ENCODING_NONE;
            part->encoding = parse_encoding(header_field_value(w->p, &f));
            part->encoding_start = f.start;
            part->encoding_end = f.end;
        } else if (str_eq_nocase(f.name, STR("mime-version"))) {
            part->has_mime_version = true;
        }
    }
    part->fields_end = part->body = at;
    if (at + 1 < w->len && w->p[at] == '\r' && w->p[at + 1] == '\n')
        part->body = at + 2;
    else if (at < w->len &&
             find_delimiter(w, at, header_line_end(w->p, w->len, at), &level) == DELIMITER_NONE)
        clear = false;
    ASSERT(part->start <= part->fields_end && part->body <= w->len);
    return clear;
}

static int grow(struct walk *w)
{
    size_t cap = w->parts_cap == 0 ? 16 : w->parts_cap * 2;
    struct part *parts;

    ASSERT(w->parts_len <= CONVERT_PARTS_MAX + 1 && w->parts_len <= w->parts_cap);
    if (w->parts_len == CONVERT_PARTS_MAX + 1)
        return -EILSEQ;
    if (w->parts_len < w->parts_cap)
        return 0;
    parts = realloc(w->parts, cap * sizeof(*parts));
    if (parts == NULL)
        return -ENOMEM;
    w->parts = parts;
    w->parts_cap = cap;
    return 0;
}

/* The entity at start, and those that begin with its body. Returns where to look for delimiters, or
 * -errno. */
static int begin_part(struct walk *w, size_t start, bool is_message, bool in_digest, size_t *at)
{
    struct part *part;
    bool nested;
    int err;

    do {
        struct open open = {.part = w->parts_len};

        err = grow(w);
        if (err < 0)
            return err;
        part = &w->parts[w->parts_len++];
        *part = (struct part){
            .kind = in_digest ? KIND_MESSAGE : KIND_LEAF, .is_message = is_message, .start = start};
        if (!parse_fields(w, part, &open) ||
            (part->kind != KIND_LEAF && w->depth == CONVERT_DEPTH_MAX) ||
            (part->kind == KIND_MESSAGE && part->encoding >= ENCODING_QP))
            part->kind = KIND_CLOSED;
        part->header_first = eight_bit_from(w, start);
        part->body_first = eight_bit_from(w, part->body);
        nested = part->kind == KIND_MESSAGE;
        if (nested)
            open.boundary_len = 0;
        if (part->kind != KIND_LEAF && part->kind != KIND_CLOSED) {
            ASSERT(w->depth < CONVERT_DEPTH_MAX && nested == (open.boundary_len == 0));
            w->open[w->depth++] = open;
        }
        *at = start = part->body;
        is_message = true;
        in_digest = false;
    } while (nested);
    return 0;
}

/* What begins with part ends at end. */
static void end_part(struct walk *w, size_t index, size_t end)
{
    struct part *part = &w->parts[index];

    ASSERT(index < w->parts_len && end <= w->len);
    part->end = end < part->start ? part->start : end;
    if (part->fields_end > part->end) /* the CRLF before a delimiter is the delimiter's */
        part->fields_end = part->end;
    if (part->body > part->end)
        part->body = part->end;
    ASSERT(part->start <= part->fields_end && part->fields_end <= part->body);
    part->header_eight_bit = part->header_first < part->fields_end;
    part->body_eight_bit = part->body_first < part->end && part->body < part->end;
}

/* All from level on, and the part that is open in the last of them, end. */
static void end_from(struct walk *w, size_t level, size_t end)
{
    ASSERT(level <= w->depth && w->parts_len > 0);
    for (size_t i = level; i < w->depth; i++) {
        const struct open *open = &w->open[i];
        struct part *part = &w->parts[open->part];

        end_part(w, open->part, end);
        part->text_eight_bit |= open->closed && open->epilogue_first < part->end;
        if (open->boundary_len > 0 && !open->inside && !open->closed)
            part->kind = KIND_CLOSED; /* no delimiter at all */
    }
    /* The last entity is a leaf, or closed, or an open one and ended above. */
    if (w->parts[w->parts_len - 1].end == 0)
        end_part(w, w->parts_len - 1, end);
    w->depth = level;
}

/* The line at `at` is a delimiter of level; next is behind it. */
static int take_delimiter(struct walk *w, size_t level, enum delimiter d, size_t at, size_t *next)
{
    const uint8_t *p = w->p;
    struct open *open = &w->open[level];
    struct part *part = &w->parts[open->part];
    bool crlf = at >= 2 && p[at - 2] == '\r' && p[at - 1] == '\n';

    ASSERT(level < w->depth && d != DELIMITER_NONE && !open->closed);
    if (open->inside)
        end_from(w, level + 1, crlf ? at - 2 : at);
    else
        part->text_eight_bit |= part->body_first < at; /* the preamble */
    open->inside = d == DELIMITER_NEXT;
    open->closed = d == DELIMITER_CLOSE;
    if (open->closed) {
        open->epilogue_first = eight_bit_from(w, *next);
        return 0;
    }
    return begin_part(w, *next, false, part->kind == KIND_DIGEST, next);
}

static int find_parts(struct walk *w)
{
    size_t at = 0, next, level;
    int err = begin_part(w, 0, true, false, &at);

    for (; err == 0 && at < w->len && w->depth > 0; at = next) {
        enum delimiter d;

        next = header_line_end(w->p, w->len, at);
        d = find_delimiter(w, at, next, &level);
        if (d != DELIMITER_NONE)
            err = take_delimiter(w, level, d, at, &next);
        ASSERT(next > at && next <= w->len);
    }
    if (err == 0)
        end_from(w, 0, w->len);
    return err;
}

/* --- the second pass --- */

struct output {
    const uint8_t *p;
    struct buf *out;
    size_t copied; /* of the message */
};

static int emit(struct output *o, const void *bytes, size_t n)
{
    if (buf_reserve(o->out, n) != 0)
        return -ENOMEM;
    buf_put(o->out, bytes, n);
    return 0;
}

static int emit_text(struct output *o, const char *text)
{
    return emit(o, text, strlen(text));
}

static int copy_until(struct output *o, size_t end)
{
    int r;

    ASSERT(o->copied <= end); /* nothing is copied twice */
    r = emit(o, o->p + o->copied, end - o->copied);
    o->copied = end;
    return r;
}

static int emit_encoding(struct output *o, const char *encoding)
{
    int r = emit_text(o, "Content-Transfer-Encoding: ");

    r = r == 0 ? emit_text(o, encoding) : r;
    return r == 0 ? emit_text(o, "\r\n") : r;
}

/* RFC 1428: what came as bare 8-bit text gets the header that says so. */
static const char *missing_fields(const struct part *part)
{
    if (!part->is_message || part->has_mime_version)
        return "";
    return part->has_type ? "MIME-Version: 1.0\r\n"
                          : "MIME-Version: 1.0\r\n"
                            "Content-Type: text/plain; charset=unknown-8bit\r\n";
}

static int downgrade_at(struct output *o, const struct header_field *f)
{
    size_t end = f->end;
    int r = copy_until(o, f->start);

    while (end > f->start && (o->p[end - 1] == '\r' || o->p[end - 1] == '\n'))
        end--;
    if (r == 0)
        r = downgrade_field((struct str){(const char *)o->p + f->start, end - f->start}, false,
                            o->out);
    o->copied = end;
    return r;
}

/* The part's fields: those that are not ASCII as ASCII, and encoding (NULL: as it was) in its
 * field's place, or behind the others. */
static int emit_fields(struct output *o, const struct part *part, const char *encoding)
{
    struct header_field f;
    int r = 0;

    ASSERT(o->copied <= part->start);
    for (size_t at = part->start;
         r == 0 && at < part->fields_end && header_field_next(o->p, part->fields_end, at, &f);
         at = f.end) {
        if (encoding != NULL && part->encoding != ENCODING_NONE &&
            f.start == part->encoding_start) {
            r = copy_until(o, f.start);
            r = r == 0 ? emit_encoding(o, encoding) : r;
            o->copied = f.end;
        } else if (part->header_eight_bit && header_eight_bit(o->p + at, f.end - at)) {
            r = downgrade_at(o, &f);
        }
    }
    r = r == 0 ? copy_until(o, part->fields_end) : r;
    if (r == 0 && encoding != NULL && part->encoding == ENCODING_NONE)
        r = emit_encoding(o, encoding);
    return r;
}

/* A body in the part's encoding, and a few bytes that are not. */
static int emit_strays(struct output *o, const struct part *part)
{
    const uint8_t *body = o->p + part->body;
    size_t len = part->end - part->body;
    int r = emit_fields(o, part, NULL);

    ASSERT(part->kind == KIND_LEAF);
    r = r == 0 ? copy_until(o, part->body) : r;
    if (r == 0)
        r = part->encoding == ENCODING_QP ? encode_qp_strays(body, len, o->out)
                                          : encode_base64_strays(body, len, o->out);
    o->copied = part->end;
    return r;
}

static int emit_body(struct output *o, const struct part *part)
{
    const uint8_t *body = o->p + part->body;
    size_t len = part->end - part->body;
    bool base64 = encode_base64_len(len) < encode_qp_len(body, len);
    int r = emit_fields(o, part, base64 ? "base64" : "quoted-printable");

    ASSERT(part->kind == KIND_LEAF && part->encoding <= ENCODING_8BIT);
    r = r == 0 ? emit_text(o, missing_fields(part)) : r;
    r = r == 0 ? copy_until(o, part->body) : r;
    if (r == 0)
        r = base64 ? encode_base64(body, len, o->out) : encode_qp(body, len, o->out);
    o->copied = part->end;
    return r;
}

/* Whether its body has 8-bit bytes that stay. */
static bool stays(const struct part *part)
{
    return part->body_eight_bit && (part->kind == KIND_CLOSED ||
                                    (part->kind == KIND_LEAF && part->encoding == ENCODING_OTHER));
}

static int emit_part(struct output *o, const struct part *part, enum convert what, bool some_stay)
{
    bool label = part->encoding != ENCODING_NONE && part->encoding != ENCODING_7BIT && !some_stay;

    if (what == CONVERT_HEADERS || !part->body_eight_bit || stays(part))
        return part->header_eight_bit ? emit_fields(o, part, NULL) : 0;
    ASSERT(part->kind != KIND_CLOSED);
    if (part->kind != KIND_LEAF) /* "8bit" on 7-bit text says nothing wrong */
        return emit_fields(o, part, label ? "7bit" : NULL);
    if (part->encoding == ENCODING_QP || part->encoding == ENCODING_BASE64)
        return emit_strays(o, part);
    return emit_body(o, part);
}

static void mask_eight_bit(uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i] >= 0x80)
            p[i] = '?';
}

int convert_message(const uint8_t *content, size_t len, enum convert what, struct buf *out)
{
    struct walk w = {.p = content, .len = len};
    struct output o = {.p = content, .out = out};
    bool some_stay = false, text_eight_bit = false;
    size_t before = out->len;
    int r = find_parts(&w);

    ASSERT(len == 0 || content != out->data); /* which may move */
    for (size_t i = 0; r == 0 && i < w.parts_len; i++) {
        some_stay |= stays(&w.parts[i]);
        text_eight_bit |= w.parts[i].text_eight_bit;
    }
    for (size_t i = 0; r == 0 && i < w.parts_len; i++)
        r = emit_part(&o, &w.parts[i], what, some_stay);
    free(w.parts);
    r = r == 0 ? copy_until(&o, len) : r;
    if (r == 0 && what == CONVERT_ALL && text_eight_bit && !some_stay) /* nothing else has some */
        mask_eight_bit(out->data + before, out->len - before);
    if (r == 0 && (out->len < before + 2 || memcmp(out->data + out->len - 2, "\r\n", 2) != 0))
        r = emit_text(&o, "\r\n");
    if (r != 0)
        out->len = before;
    return r;
}

int convert_examine(const uint8_t *content, size_t len, struct convert_facts *facts)
{
    struct walk w = {.p = content, .len = len};
    int r = find_parts(&w);

    *facts = (struct convert_facts){0};
    for (size_t i = 0; r == 0 && i < w.parts_len; i++) {
        facts->eight_bit_stays |= stays(&w.parts[i]);
        facts->header_eight_bit |= w.parts[i].header_eight_bit;
    }
    free(w.parts);
    return r;
}
