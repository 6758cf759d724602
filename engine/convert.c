#include "engine/convert.h"

#include <errno.h>
#include <string.h>

#include "engine/encode.h"
#include "engine/header.h"

/* A walk over the entities of a message (RFC 2045 2.4). Each is copied as it is but for its body
 * and its Content-Transfer-Encoding. Whatever a reader could understand in two ways is refused once
 * it has 8-bit bytes in it: a wrong guess would change the message. */

#define BOUNDARY_BYTES_MAX 200 /* RFC 2046 allows 70 */

enum kind { KIND_LEAF, KIND_MULTIPART, KIND_SIGNED, KIND_DIGEST, KIND_MESSAGE, KIND_OPAQUE };
enum encoding { ENCODING_NONE, ENCODING_7BIT, ENCODING_8BIT, ENCODING_OTHER };

struct part {
    enum kind kind;
    enum encoding encoding;
    bool ambiguous; /* malformed or contradicting header fields */
    bool has_type, has_mime_version;
    size_t fields_end, body;            /* end of the fields; behind the empty line */
    struct header_field encoding_field; /* when encoding != ENCODING_NONE */
    char boundary[BOUNDARY_BYTES_MAX];
    size_t boundary_len;
};

struct walk {
    struct buf *out;
    unsigned parts, depth;
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
    return c > ' ' && c < 0x7f && strchr("\";(),", c) == NULL;
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
            return KIND_SIGNED;
        return str_eq_nocase(subtype, STR("digest")) ? KIND_DIGEST : KIND_MULTIPART;
    }
    if (str_eq_nocase(type, STR("message")))
        return str_eq_nocase(subtype, STR("rfc822")) ? KIND_MESSAGE : KIND_OPAQUE;
    return KIND_LEAF;
}

static bool is_multipart(enum kind kind)
{
    return kind == KIND_MULTIPART || kind == KIND_SIGNED || kind == KIND_DIGEST;
}

static bool parse_type(struct str value, struct part *part)
{
    struct str type, subtype, name;

    if (!take_token(&value, &type) || !take_byte(&value, '/') || !take_token(&value, &subtype))
        return false;
    part->kind = kind_of(type, subtype);
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
        if ((is_boundary && part->boundary_len > 0) ||
            (!is_boundary && str_starts_nocase(name, STR("boundary*"))))
            return false;
        if (is_boundary
                ? !take_value(&value, part->boundary, sizeof(part->boundary), &part->boundary_len)
                : !take_value(&value, ignored, sizeof(ignored), &ignored_len))
            return false;
    }
    while (part->boundary_len > 0 && part->boundary[part->boundary_len - 1] == ' ')
        part->boundary_len--;
    return value.len == 0 && (!is_multipart(part->kind) || part->boundary_len > 0);
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
    return ENCODING_OTHER;
}

static void parse_part(const uint8_t *p, size_t len, bool in_digest, struct part *part)
{
    struct header_field f;
    size_t at = 0;

    *part = (struct part){.kind = in_digest ? KIND_MESSAGE : KIND_LEAF};
    for (; at < len && header_field_next(p, len, at, &f); at = f.end) {
        if (str_eq_nocase(f.name, STR("content-type"))) {
            part->ambiguous |= part->has_type || !parse_type(header_field_value(p, &f), part);
            part->has_type = true;
        } else if (str_eq_nocase(f.name, STR("content-transfer-encoding"))) {
            part->ambiguous |= part->encoding != ENCODING_NONE;
            part->encoding = parse_encoding(header_field_value(p, &f));
            part->encoding_field = f;
        } else if (str_eq_nocase(f.name, STR("mime-version"))) {
            part->has_mime_version = true;
        }
    }
    part->fields_end = part->body = at;
    if (at + 1 < len && p[at] == '\r' && p[at + 1] == '\n')
        part->body = at + 2;
    else if (at < len)
        part->ambiguous = true; /* a line that is neither field nor empty */
}

/* --- output --- */

static int emit(struct walk *w, const void *bytes, size_t n)
{
    if (buf_reserve(w->out, n) != 0)
        return -ENOMEM;
    buf_put(w->out, bytes, n);
    return 0;
}

static int emit_text(struct walk *w, const char *text)
{
    return emit(w, text, strlen(text));
}

/* The part's fields and the empty line, with encoding (NULL: as it was) in its field's place, or
 * behind the others. */
static int emit_header(struct walk *w, const uint8_t *p, const struct part *part,
                       const char *encoding, const char *more)
{
    const struct header_field *f = &part->encoding_field;
    bool replace = encoding != NULL && part->encoding != ENCODING_NONE;
    int r = emit(w, p, replace ? f->start : part->fields_end);

    if (r == 0 && replace) {
        r = emit_text(w, "Content-Transfer-Encoding: ");
        r = r == 0 ? emit_text(w, encoding) : r;
        r = r == 0 ? emit(w, p + f->end, part->fields_end - f->end) : r;
    } else if (r == 0 && encoding != NULL) {
        r = emit_text(w, "Content-Transfer-Encoding: ");
        r = r == 0 ? emit_text(w, encoding) : r;
    }
    r = r == 0 ? emit_text(w, more) : r;
    return r == 0 ? emit(w, p + part->fields_end, part->body - part->fields_end) : r;
}

/* --- the walk --- */

static int convert_entity(struct walk *w, const uint8_t *p, size_t len, bool is_message,
                          bool in_digest);

/* RFC 1428: what came as bare 8-bit text gets the header that says so. */
static const char *missing_fields(const struct part *part, bool is_message)
{
    if (!is_message || part->has_mime_version)
        return "";
    return part->has_type ? "MIME-Version: 1.0\r\n"
                          : "MIME-Version: 1.0\r\n"
                            "Content-Type: text/plain; charset=unknown-8bit\r\n";
}

static int convert_leaf(struct walk *w, const uint8_t *p, size_t len, const struct part *part,
                        bool is_message)
{
    const uint8_t *body = p + part->body;
    size_t body_len = len - part->body;
    bool base64 = encode_base64_len(body_len) < encode_qp_len(body, body_len);
    int r;

    if (part->kind == KIND_OPAQUE || part->encoding == ENCODING_OTHER)
        return -EILSEQ;
    r = emit_header(w, p, part, base64 ? "base64\r\n" : "quoted-printable\r\n",
                    missing_fields(part, is_message));
    if (r != 0)
        return r;
    return base64 ? encode_base64(body, body_len, w->out) : encode_qp(body, body_len, w->out);
}

enum delimiter { DELIMITER_NONE, DELIMITER_NEXT, DELIMITER_CLOSE };

/* Whether the line [at, end) is "--boundary" or "--boundary--", with white space behind at most. */
static enum delimiter delimiter_at(const uint8_t *p, size_t at, size_t end, const struct part *part)
{
    enum delimiter found = DELIMITER_NEXT;
    struct str line = {(const char *)p + at, end - at};

    if (line.len < part->boundary_len + 2 || line.ptr[0] != '-' || line.ptr[1] != '-' ||
        memcmp(line.ptr + 2, part->boundary, part->boundary_len) != 0)
        return DELIMITER_NONE;
    line.ptr += part->boundary_len + 2;
    line.len -= part->boundary_len + 2;
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

static int convert_part(struct walk *w, const uint8_t *p, size_t len, bool in_digest)
{
    if (++w->parts > CONVERT_PARTS_MAX)
        return -EILSEQ;
    return convert_entity(w, p, len, false, in_digest);
}

/* Where a part ends whose delimiter's line starts at delimiter: the CRLF before it belongs to the
 * delimiter (RFC 2046 5.1.1). */
static size_t part_end(const uint8_t *p, size_t from, size_t delimiter)
{
    bool crlf = delimiter >= from + 2 && p[delimiter - 2] == '\r' && p[delimiter - 1] == '\n';

    return crlf ? delimiter - 2 : delimiter;
}

static int convert_multipart(struct walk *w, const uint8_t *p, size_t len, const struct part *part)
{
    bool inside = false, in_digest = part->kind == KIND_DIGEST;
    size_t at = part->body, from = part->body, next;
    int r = emit_header(w, p, part, part->encoding == ENCODING_8BIT ? "7bit\r\n" : NULL, "");

    for (; r == 0 && at < len; at = next) {
        size_t end = inside ? part_end(p, from, at) : at;
        enum delimiter d;

        next = header_line_end(p, len, at);
        d = delimiter_at(p, at, next, part);
        if (d == DELIMITER_NONE)
            continue;
        if (inside)
            r = convert_part(w, p + from, end - from, in_digest);
        else /* the preamble */
            r = header_eight_bit(p + from, end - from) ? -EILSEQ : emit(w, p + from, end - from);
        r = r == 0 ? emit(w, p + end, next - end) : r;
        from = next;
        inside = d == DELIMITER_NEXT;
        if (!inside)
            break;
    }
    if (r != 0)
        return r;
    if (inside) /* never closed: the last part ends with its parent */
        return convert_part(w, p + from, len - from, in_digest);
    /* The epilogue, or no delimiter at all. */
    return header_eight_bit(p + from, len - from) ? -EILSEQ : emit(w, p + from, len - from);
}

static int convert_nested(struct walk *w, const uint8_t *p, size_t len, const struct part *part)
{
    int r = emit_header(w, p, part, part->encoding == ENCODING_8BIT ? "7bit\r\n" : NULL, "");

    return r == 0 ? convert_entity(w, p + part->body, len - part->body, true, false) : r;
}

/* is_message: the entity has a message's header, not that of a body part. */
static int convert_entity(struct walk *w, const uint8_t *p, size_t len, bool is_message,
                          bool in_digest)
{
    struct part part;
    int r;

    /* Nothing to do, and a signature inside stays valid. A label "8bit" on 7-bit text says nothing
     * wrong. */
    if (!header_eight_bit(p, len))
        return emit(w, p, len);
    parse_part(p, len, in_digest, &part);
    if (part.ambiguous || header_eight_bit(p, part.body))
        return -EILSEQ;
    if (part.kind == KIND_LEAF || part.kind == KIND_OPAQUE)
        return convert_leaf(w, p, len, &part, is_message);
    if (part.kind == KIND_SIGNED || part.encoding == ENCODING_OTHER ||
        w->depth == CONVERT_DEPTH_MAX)
        return -EILSEQ;
    w->depth++;
    r = part.kind == KIND_MESSAGE ? convert_nested(w, p, len, &part)
                                  : convert_multipart(w, p, len, &part);
    w->depth--;
    return r;
}

int convert_to_7bit(const uint8_t *content, size_t len, struct buf *out)
{
    struct walk w = {.out = out};
    size_t before = out->len;
    int r = convert_entity(&w, content, len, true, false);

    if (r == 0 && (out->len < before + 2 || memcmp(out->data + out->len - 2, "\r\n", 2) != 0))
        r = emit_text(&w, "\r\n");
    if (r != 0)
        out->len = before;
    return r;
}
