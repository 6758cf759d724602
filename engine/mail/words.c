#include "mail/words.h"

#include <stdio.h>

#include "mail/encode.h"
#include "mail/header.h"
#include "mail/iso2022jp.h"
#include "smtp/address.h"

#define LINE_CHARS     76
#define WORD_CHARS_MAX 75 /* of an encoded word (RFC 2047 2) */

static const char hex[] = "0123456789ABCDEF";

struct str words_charset(struct str text)
{
    return smtp_utf8_valid(text) ? STR("UTF-8") : STR("unknown-8bit");
}

/* Bytes of the character at the start of s. */
static size_t char_len(struct str s, bool utf8)
{
    size_t n = 1;

    while (utf8 && n < s.len && ((uint8_t)s.ptr[n] & 0xc0) == 0x80)
        n++;
    return n;
}

/* --- pieces --- */

static void put_counted(struct words *w, struct str bytes)
{
    ptrdiff_t newline = str_rfind(bytes, '\n');

    buf_put_str(w->out, bytes);
    if (newline >= 0) {
        w->column = bytes.len - (size_t)newline - 1;
        w->has_word = false;
    } else {
        w->column += bytes.len;
    }
}

static void put_fold(struct words *w)
{
    put_counted(w, STR("\r\n "));
}

/* The gap, as a fold where the next next_len characters would not fit into the line. */
static void put_gap(struct words *w, size_t next_len, bool must_fold)
{
    bool fold = str_find(w->gap, '\n') < 0 && must_fold &&
                w->column + w->gap.len + next_len > LINE_CHARS && w->column > 1;

    if (w->has_gap && fold)
        put_counted(w, STR("\r\n"));
    if (w->has_gap)
        put_counted(w, w->gap);
    w->has_gap = false;
    w->gap = (struct str){0};
}

void words_put_gap(struct words *w, struct str space)
{
    if (space.len == 0)
        return;
    put_gap(w, 0, false);
    w->gap = space;
    w->has_gap = true;
}

void words_need_gap(struct words *w)
{
    if (!w->has_gap)
        words_put_gap(w, STR(" "));
}

void words_put_raw(struct words *w, struct str bytes)
{
    if (bytes.len == 0)
        return;
    put_gap(w, bytes.len + 1, w->has_word); /* with a comma behind it */
    put_counted(w, bytes);
    w->after_word = false;
    w->after_open = bytes.ptr[bytes.len - 1] == '(';
}

void words_end(struct words *w)
{
    put_gap(w, 0, false);
}

/* --- encoded words --- */

/* What Q leaves as it is: in a phrase only what RFC 2047 5 (3) names. */
static bool is_q_literal(uint8_t c, bool in_phrase)
{
    bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');

    if (alnum || c == '!' || c == '*' || c == '+' || c == '-' || c == '/')
        return true;
    return !in_phrase && c > ' ' && c < 0x7f && c != '=' && c != '?' && c != '_' && c != '(' &&
           c != ')' && c != '"' && c != '\\';
}

static size_t q_len(struct str s, bool in_phrase)
{
    size_t n = 0;

    for (size_t i = 0; i < s.len; i++)
        n += s.ptr[i] == ' ' || is_q_literal((uint8_t)s.ptr[i], in_phrase) ? 1 : 3;
    return n;
}

static void put_q(struct buf *out, struct str s, bool in_phrase)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.ptr[i];

        if (c == ' ') {
            buf_putc(out, '_');
        } else if (is_q_literal(c, in_phrase)) {
            buf_putc(out, (char)c);
        } else {
            buf_putc(out, '=');
            buf_putc(out, hex[c >> 4]);
            buf_putc(out, hex[c & 15]);
        }
    }
}

static size_t coded_len(struct str s, bool base64, bool in_phrase)
{
    return base64 ? (s.len + 2) / 3 * 4 : q_len(s, in_phrase);
}

/* How much of s, in whole characters, is at most chars_max long when it is coded. In base64 all but
 * the last word have a multiple of three bytes where they can: there are readers (GMime) for whom
 * padding ends the text. */
static struct str fitting(struct str s, bool utf8, bool base64, bool in_phrase, size_t chars_max)
{
    struct str head = {s.ptr, 0}, unpadded = {s.ptr, 0};

    while (head.len < s.len) {
        struct str more = {
            s.ptr, head.len + char_len((struct str){s.ptr + head.len, s.len - head.len}, utf8)};

        if (coded_len(more, base64, in_phrase) > chars_max)
            break;
        head = more;
        if (head.len % 3 == 0)
            unpadded = head;
    }
    return base64 && head.len < s.len && unpadded.len > 0 ? unpadded : head;
}

static void put_word(struct words *w, struct str charset, bool base64, bool in_phrase,
                     struct str text)
{
    size_t before = w->out->len;
    int err;

    buf_puts(w->out, "=?");
    buf_put_str(w->out, charset);
    buf_puts(w->out, base64 ? "?B?" : "?Q?");
    if (base64) {
        err = encode_base64((const uint8_t *)text.ptr, text.len, w->out);
        ASSERT(err == 0);
    } else {
        put_q(w->out, text, in_phrase);
    }
    buf_puts(w->out, "?=");
    ASSERT(text.len > 0 && w->column + w->out->len - before < LINE_CHARS);
    w->column += w->out->len - before;
    ASSERT(w->out->len - before <= WORD_CHARS_MAX);
}

/* The characters in front of the first one of three bytes. */
static struct str front_of(struct str s, bool utf8)
{
    struct str head = {s.ptr, 0};

    while (head.len < s.len) {
        size_t n = char_len((struct str){s.ptr + head.len, s.len - head.len}, utf8);

        if (n == 3)
            break;
        head.len += n;
    }
    return head;
}

static void put_words(struct words *w, struct str text, bool in_phrase)
{
    struct str charset = words_charset(text);
    bool utf8 = str_eq(charset, STR("UTF-8"));
    bool base64 = coded_len(text, true, in_phrase) < coded_len(text, false, in_phrase);
    size_t frame = charset.len + 7; /* "=?", "?B?", "?=" */

    while (text.len > 0) {
        size_t room = w->column + 1 + frame < LINE_CHARS ? LINE_CHARS - 1 - w->column - frame : 0;
        struct str head = fitting(text, utf8, base64, in_phrase, room);
        bool padded = base64 && head.len < text.len && head.len % 3 != 0;

        if (padded) /* behind a word in Q there are three bytes a character again */
            head = fitting(front_of(text, utf8), utf8, false, in_phrase, room);
        ASSERT(head.len <= text.len && (head.len > 0 || w->column > 1)); /* or no line has room */
        if (head.len == 0) {
            put_fold(w);
            continue;
        }
        put_word(w, charset, base64 && !padded, in_phrase, head);
        text.ptr += head.len;
        text.len -= head.len;
        if (text.len > 0)
            put_fold(w);
    }
}

/* Each word begins and ends in ASCII (RFC 2047 2): it is a text of its own. */
static void put_iso2022jp_words(struct words *w, struct str text)
{
    static const struct str charset = STR("ISO-2022-JP");
    size_t frame = charset.len + 7;
    struct buf coded = {0};

    while (text.len > 0) {
        size_t room = w->column + 1 + frame < LINE_CHARS ? LINE_CHARS - 1 - w->column - frame : 0;
        struct str head = iso2022jp_fitting(text, room / 4 * 3);

        ASSERT(head.len <= text.len && (head.len > 0 || w->column > 1));
        if (head.len == 0) {
            put_fold(w);
            continue;
        }
        buf_clear(&coded);
        iso2022jp_put(&coded, head);
        put_word(w, charset, true, false, buf_str(&coded));
        text.ptr += head.len;
        text.len -= head.len;
        if (text.len > 0)
            put_fold(w);
    }
    buf_done(&coded);
}

void words_put_encoded(struct words *w, struct str text, bool in_phrase)
{
    struct buf line = {0};

    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] != '\r' && text.ptr[i] != '\n')
            buf_putc(&line, text.ptr[i]);
    if (w->column > 0 && !w->after_open)
        words_need_gap(w);
    put_gap(w, 30, true); /* of a shorter word a line should not begin at its end */
    if (w->iso2022jp)
        put_iso2022jp_words(w, buf_str(&line));
    else
        put_words(w, buf_str(&line), in_phrase);
    w->has_word = w->after_word = true;
    w->after_open = false;
    buf_done(&line);
}

/* --- parameters --- */

/* attribute-char of RFC 2231 7; when coded already, '%' and "'" are its own. */
static bool is_attribute_char(uint8_t c, bool is_coded)
{
    if (c <= ' ' || c >= 0x7f)
        return false;
    if (c == '%' || c == '\'')
        return is_coded;
    return strchr("*()<>@,;:\\\"/[]?=", c) == NULL;
}

static size_t percent_len(struct str s, bool is_coded)
{
    size_t n = 0;

    for (size_t i = 0; i < s.len; i++)
        n += is_attribute_char((uint8_t)s.ptr[i], is_coded) ? 1 : 3;
    return n;
}

static void put_percent(struct words *w, struct str s, bool is_coded)
{
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = (uint8_t)s.ptr[i];

        if (is_attribute_char(c, is_coded)) {
            buf_putc(w->out, (char)c);
        } else {
            buf_putc(w->out, '%');
            buf_putc(w->out, hex[c >> 4]);
            buf_putc(w->out, hex[c & 15]);
        }
    }
    w->column += percent_len(s, is_coded);
}

static void begin_parameter(struct words *w, size_t len)
{
    w->has_gap = false;
    words_put_raw(w, STR(";"));
    if (w->column + 1 + len > LINE_CHARS)
        put_fold(w);
    else
        put_counted(w, STR(" "));
}

void words_put_section(struct words *w, struct str base, struct str section, struct str charset,
                       bool is_coded, struct str value)
{
    size_t frame = base.len + section.len + 2 + (charset.len > 0 ? charset.len + 2 : 0);

    ASSERT(base.len > 0 && (section.len == 0 || *section.ptr == '*'));
    ASSERT(!is_coded || charset.len == 0); /* value has its own */
    begin_parameter(w, frame + percent_len(value, is_coded));
    put_counted(w, base);
    put_counted(w, section);
    put_counted(w, STR("*="));
    if (charset.len > 0) {
        put_counted(w, charset);
        put_counted(w, STR("''"));
    }
    put_percent(w, value, is_coded);
}

/* How much of value, in whole characters, is at most chars_max long; one character at least. */
static struct str percent_fitting(struct str value, bool utf8, size_t chars_max)
{
    struct str head = {value.ptr, 0};
    size_t len = 0;

    while (head.len < value.len) {
        struct str c = {value.ptr + head.len, value.len - head.len};

        c.len = char_len(c, utf8);
        len += percent_len(c, false);
        if (head.len > 0 && len > chars_max)
            break;
        head.len += c.len;
    }
    return head;
}

void words_put_parameter(struct words *w, struct str base, struct str value)
{
    struct str charset = words_charset(value);
    bool utf8 = str_eq(charset, STR("UTF-8"));
    char section[16];

    if (base.len + charset.len + percent_len(value, false) + 6 <= LINE_CHARS) {
        words_put_section(w, base, STR(""), charset, false, value);
        return;
    }
    for (unsigned n = 0; value.len > 0; n++) {
        struct str s = {section, (size_t)snprintf(section, sizeof(section), "*%u", n)};
        size_t frame = base.len + s.len + charset.len + 6;
        struct str head = percent_fitting(value, utf8, frame < LINE_CHARS ? LINE_CHARS - frame : 0);

        ASSERT(head.len > 0 && head.len <= value.len);
        words_put_section(w, base, s, n == 0 ? charset : STR(""), false, head);
        value.ptr += head.len;
        value.len -= head.len;
    }
}
