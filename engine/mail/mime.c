#include "mail/mime.h"

#include <errno.h>
#include <string.h>

#include "mail/downgrade.h"
#include "mail/encode.h"
#include "mail/iso2022jp.h"
#include "mail/words.h"
#include "smtp/address.h"

#define FOLD_CHARS       76
#define PIECE_BYTES_MAX  900 /* where a field cannot be folded; with its name below 998 */
#define LINE_BYTES_MAX   998
#define FIELD_NAME_BYTES 76

_Static_assert(FIELD_NAME_BYTES + 2 + PIECE_BYTES_MAX <= LINE_BYTES_MAX, "a name and a piece");

/* --- fields --- */

bool mime_field_name_valid(struct str name)
{
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] <= ' ' || name.ptr[i] > '~' || name.ptr[i] == ':')
            return false;
    return name.len > 0 && name.len <= FIELD_NAME_BYTES;
}

/* ASCII, folded at spaces. */
static int put_folded(struct buf *out, size_t column, struct str text)
{
    while (text.len > 0) {
        struct str rest = {text.ptr + 1, text.len - 1};
        ptrdiff_t space = str_find(rest, ' ');
        struct str word = {text.ptr, space < 0 ? text.len : (size_t)space + 1};

        if (word.len > PIECE_BYTES_MAX)
            return -EMSGSIZE;
        /* A line of spaces alone is no line of a field. */
        if (column + word.len > FOLD_CHARS && *word.ptr == ' ' && word.len > 1) {
            buf_puts(out, "\r\n");
            column = 0;
        }
        buf_put_str(out, word);
        column += word.len;
        text.ptr += word.len;
        text.len -= word.len;
    }
    return 0;
}

static bool lines_fit(struct str text)
{
    ptrdiff_t end;

    while ((end = str_find(text, '\n')) >= 0) {
        if ((size_t)end > LINE_BYTES_MAX)
            return false;
        text.ptr += end + 1;
        text.len -= (size_t)end + 1;
    }
    return text.len <= LINE_BYTES_MAX;
}

int mime_put_field(struct buf *out, struct str name, struct str value, enum mime_charset charset)
{
    size_t began = out->len;
    struct buf line = {0};
    int err = 0;

    ASSERT(name.len > 0 && name.len <= FIELD_NAME_BYTES);
    value = str_trim(value);
    buf_put_str(&line, name);
    buf_puts(&line, ": ");
    for (size_t i = 0; i < value.len; i++)
        buf_putc(&line, ascii_is_control(value.ptr[i]) ? ' ' : value.ptr[i]);
    if (str_is_ascii(value)) {
        struct str text = {(const char *)line.data + name.len + 1, line.len - name.len - 1};

        buf_put(out, line.data, name.len + 1);
        err = put_folded(out, name.len + 1, text);
    } else {
        err = downgrade_field(buf_str(&line), charset == MIME_ISO_2022_JP, out);
        ASSERT(err == 0); /* as in buf_*: memory is fatal */
    }
    buf_done(&line);
    if (err == 0 && !lines_fit((struct str){(const char *)out->data + began, out->len - began}))
        err = -EMSGSIZE;
    if (err < 0)
        out->len = began;
    else
        buf_puts(out, "\r\n");
    return err;
}

int mime_put_mailbox(struct buf *out, struct str name, struct str display, struct str address,
                     enum mime_charset charset)
{
    struct words w = {.out = out, .iso2022jp = charset == MIME_ISO_2022_JP};
    struct buf text = {0};
    size_t began = out->len;
    bool ascii = str_is_ascii(display);

    words_put_raw(&w, name);
    words_put_raw(&w, STR(":"));
    words_put_gap(&w, STR(" "));
    for (size_t i = 0; i < display.len; i++) {
        char c = ascii_is_control(display.ptr[i]) ? ' ' : display.ptr[i];

        if (ascii && (c == '"' || c == '\\'))
            buf_putc(&text, '\\');
        buf_putc(&text, c);
    }
    if (!ascii) {
        words_put_encoded(&w, buf_str(&text), true);
    } else if (display.len > 0) {
        words_put_raw(&w, STR("\""));
        words_put_raw(&w, buf_str(&text));
        words_put_raw(&w, STR("\""));
    }
    if (display.len > 0)
        words_need_gap(&w);
    buf_clear(&text);
    buf_putc(&text, '<');
    smtp_address_put(&text, address);
    buf_putc(&text, '>');
    words_put_raw(&w, buf_str(&text));
    words_end(&w);
    buf_done(&text);
    if (!lines_fit((struct str){(const char *)out->data + began, out->len - began})) {
        out->len = began;
        return -EMSGSIZE;
    }
    buf_puts(out, "\r\n");
    return 0;
}

/* --- parts --- */

/* The same of what has no CR. */
static void put_lf_lines(struct buf *out, struct str in)
{
    buf_room(out, in.len + in.len / 32 + 2);
    while (in.len > 0) {
        struct str line = str_take(&in, '\n');

        buf_put_str(out, line);
        buf_put(out, "\r\n", 2);
    }
}

void mime_put_lines(struct buf *out, struct str in)
{
    size_t from = 0;

    if (str_find(in, '\r') < 0) { /* as most are */
        put_lf_lines(out, in);
        return;
    }
    for (size_t i = 0; i < in.len; i++) {
        if (in.ptr[i] != '\n' && in.ptr[i] != '\r')
            continue;
        buf_put(out, in.ptr + from, i - from);
        buf_put(out, "\r\n", 2);
        if (in.ptr[i] == '\r' && i + 1 < in.len && in.ptr[i + 1] == '\n')
            i++;
        from = i + 1;
    }
    ASSERT(from <= in.len);
    buf_put(out, in.ptr + from, in.len - from);
    if (from < in.len)
        buf_put(out, "\r\n", 2);
}

static void to_iso2022jp(struct buf *lines)
{
    struct buf coded = {0};

    iso2022jp_put(&coded, buf_str(lines));
    buf_done(lines);
    *lines = coded;
}

static void put_type(struct buf *out, struct str subtype, const char *charset)
{
    buf_puts(out, "Content-Type: text/");
    buf_put_str(out, subtype);
    buf_puts(out, "; charset=");
    buf_puts(out, charset);
    buf_puts(out, "\r\nContent-Transfer-Encoding: ");
}

/* ASCII, as most letters are: it is written where it stays. False, and nothing is put: a line is
 * too long. */
static bool put_plain_text(struct buf *out, struct str subtype, struct str text)
{
    size_t began = out->len, at;

    buf_room(out, text.len + text.len / 32 + 200);
    put_type(out, subtype, "us-ascii");
    buf_puts(out, "7bit\r\n\r\n");
    at = out->len;
    mime_put_lines(out, text);
    if (lines_fit((struct str){(const char *)out->data + at, out->len - at}))
        return true;
    out->len = began;
    return false;
}

void mime_put_text(struct buf *out, struct str subtype, struct str text, enum mime_charset charset)
{
    struct buf lines = {0};
    bool ascii = str_is_ascii(text), iso2022jp = !ascii && charset == MIME_ISO_2022_JP;
    size_t encoding;
    int err;

    if (ascii && put_plain_text(out, subtype, text))
        return;
    mime_put_lines(&lines, text);
    if (iso2022jp)
        to_iso2022jp(&lines);
    ASSERT(lines.len == 0 || lines.data[lines.len - 1] == '\n');
    buf_room(out, lines.len + 200);
    put_type(out, subtype, ascii ? "us-ascii" : iso2022jp ? "iso-2022-jp" : "utf-8");
    if (iso2022jp && lines_fit(buf_str(&lines))) {
        buf_puts(out, "7bit\r\n\r\n");
        buf_put(out, lines.data, lines.len);
        buf_done(&lines);
        return;
    }
    encoding = out->len;
    buf_puts(out, "quoted-printable\r\n\r\n");
    err = encode_qp_within(lines.data, lines.len, encode_base64_len(lines.len), out);
    if (err == -E2BIG) {
        out->len = encoding;
        buf_puts(out, "base64\r\n\r\n");
        err = encode_base64(lines.data, lines.len, out);
        buf_puts(out, "\r\n");
    }
    ASSERT(err == 0);
    buf_done(&lines);
}

static bool is_token(char c)
{
    return c > ' ' && c <= '~' && strchr("()<>@,;:\\\"/[]?=", c) == NULL;
}

bool mime_type_valid(struct str type)
{
    ptrdiff_t end = str_find(type, ';'), slash;
    struct str bare = str_trim((struct str){type.ptr, end < 0 ? type.len : (size_t)end});

    for (size_t i = 0; i < type.len; i++)
        if (ascii_is_control(type.ptr[i]) || (unsigned char)type.ptr[i] > 127)
            return false;
    slash = str_find(bare, '/');
    if (slash <= 0 || (size_t)slash + 1 == bare.len || type.len > 200)
        return false;
    for (size_t i = 0; i < bare.len; i++)
        if (i != (size_t)slash && !is_token(bare.ptr[i]))
            return false;
    /* These have no base64 (RFC 2045 6.4). */
    return !str_starts_nocase(bare, STR("multipart/")) && !str_starts_nocase(bare, STR("message/"));
}

bool mime_id_valid(struct str id)
{
    for (size_t i = 0; i < id.len; i++)
        if (id.ptr[i] <= ' ' || id.ptr[i] > '~' || id.ptr[i] == '<' || id.ptr[i] == '>')
            return false;
    return id.len > 0 && id.len <= 200;
}

static void put_file_name(struct buf *out, struct str name)
{
    struct buf clean = {0};
    bool plain = name.len <= 60;

    for (size_t i = 0; i < name.len; i++) {
        char c = ascii_is_control(name.ptr[i]) ? '_' : name.ptr[i];

        plain &= c >= ' ' && c <= '~' && c != '"' && c != '\\';
        buf_putc(&clean, c);
    }
    if (plain) {
        buf_puts(out, ";\r\n filename=\"");
        buf_put_str(out, buf_str(&clean));
        buf_putc(out, '"');
    } else {
        struct words w = {.out = out, .column = FOLD_CHARS};

        words_put_parameter(&w, STR("filename"), buf_str(&clean));
    }
    buf_done(&clean);
}

void mime_put_attachment(struct buf *out, const struct mime_attachment *a)
{
    int err;

    ASSERT(mime_type_valid(a->type) && (a->content_id.len == 0 || mime_id_valid(a->content_id)));
    buf_puts(out, "Content-Type: ");
    buf_put_str(out, a->type);
    buf_puts(out, "\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: ");
    buf_puts(out, a->content_id.len > 0 ? "inline" : "attachment");
    if (a->file_name.len > 0)
        put_file_name(out, a->file_name);
    if (a->content_id.len > 0) {
        buf_puts(out, "\r\nContent-ID: <");
        buf_put_str(out, a->content_id);
        buf_putc(out, '>');
    }
    buf_puts(out, "\r\n\r\n");
    err = encode_base64((const uint8_t *)a->bytes.ptr, a->bytes.len, out);
    ASSERT(err == 0);
    buf_puts(out, "\r\n");
}

void mime_put_multipart(struct buf *out, const char *subtype, const struct str *parts, size_t len,
                        struct str seed)
{
    char boundary[MIME_BOUNDARY_BYTES];
    size_t n = seed.len;

    /* Cut, it might be the seed of another level. */
    ASSERT(len > 0 && n > 0 && n <= sizeof(boundary) - 3);
    boundary[0] = '='; /* "=_" is in no quoted-printable and no base64 (RFC 2045 6.7) */
    boundary[1] = '_';
    memcpy(boundary + 2, seed.ptr, n);
    boundary[n + 2] = '\0';
    buf_puts(out, "Content-Type: multipart/");
    buf_puts(out, subtype);
    buf_puts(out, ";\r\n boundary=\"");
    buf_puts(out, boundary);
    buf_puts(out, "\"\r\n\r\n");
    for (size_t i = 0; i < len; i++) {
        buf_puts(out, "--");
        buf_puts(out, boundary);
        buf_puts(out, "\r\n");
        buf_put_str(out, parts[i]);
        buf_puts(out, "\r\n");
    }
    buf_puts(out, "--");
    buf_puts(out, boundary);
    buf_puts(out, "--\r\n");
}
