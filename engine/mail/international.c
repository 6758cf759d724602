#include "mail/international.h"

#include <glib.h>

#include "dns/name.h"
#include "mail/convert.h"

bool international_content(const uint8_t *content, size_t len, const struct trace_facts *facts,
                           bool eight_bit)
{
    struct convert_facts parts;

    ASSERT(facts->header_len <= facts->body_offset && facts->body_offset <= len);
    if (!eight_bit || facts->eight_bit)
        return eight_bit;
    return convert_examine(content, len, &parts) < 0 || parts.header_eight_bit;
}

bool international_put_address(struct buf *out, const struct smtp_address *address)
{
    size_t before = address->text.len - address->domain.len; /* the local part and '@' */
    struct dns_name domain;

    ASSERT(address->domain.len <= address->text.len);
    if (!address->utf8 || !str_is_ascii(address->local_part) ||
        dns_name_parse(&domain, address->domain) < 0 || before + domain.len > SMTP_PATH_MAX - 2) {
        buf_put_str(out, address->text);
        return !address->utf8;
    }
    buf_put(out, address->text.ptr, before);
    buf_put(out, domain.text, domain.len);
    return true;
}

void international_put_folded(struct buf *out, struct str text)
{
    gchar *folded = g_utf8_casefold(text.ptr, (gssize)text.len);
    gchar *composed = g_utf8_normalize(folded, -1, G_NORMALIZE_NFC);

    buf_puts(out, composed == NULL ? folded : composed);
    g_free(composed);
    g_free(folded);
}

/* The character at the start of s; it is taken from s. */
static uint32_t take_point(struct str *s)
{
    uint8_t lead = (uint8_t)*s->ptr;
    uint32_t point = lead < 0x80 ? lead : lead & (lead >= 0xf0 ? 0x07 : lead >= 0xe0 ? 0x0f : 0x1f);

    s->ptr++;
    s->len--;
    for (; lead >= 0x80 && s->len > 0 && ((uint8_t)*s->ptr & 0xc0) == 0x80; s->ptr++, s->len--)
        point = point << 6 | ((uint8_t)*s->ptr & 0x3f);
    return point;
}

void international_put_xtext(struct buf *out, struct str xtext)
{
    size_t hex = 0; /* digits that are still to come */

    while (xtext.len > 0) {
        uint32_t point = take_point(&xtext);

        if (point >= 0x80) {
            buf_printf(out, "\\x{%X}", point);
            continue;
        }
        buf_putc(out, (char)(hex > 0 && point >= 'a' && point <= 'f' ? point - 'a' + 'A' : point));
        hex = point == '+' ? 2 : hex > 0 ? hex - 1 : 0;
    }
}

void international_put_ascii_address(struct buf *out, struct str address)
{
    while (address.len > 0) {
        uint32_t point = take_point(&address);

        if (point > ' ' && point < 0x7f && point != '+' && point != '=' && point != '\\')
            buf_putc(out, (char)point);
        else
            buf_printf(out, "\\x{%X}", point);
    }
}

static void put_point(struct buf *out, uint32_t point)
{
    ASSERT(point <= 0x10ffff);
    if (point < 0x80) {
        buf_putc(out, (char)point);
        return;
    }
    if (point < 0x800) {
        buf_putc(out, (char)(0xc0 | point >> 6));
    } else {
        if (point < 0x10000) {
            buf_putc(out, (char)(0xe0 | point >> 12));
        } else {
            buf_putc(out, (char)(0xf0 | point >> 18));
            buf_putc(out, (char)(0x80 | (point >> 12 & 0x3f)));
        }
        buf_putc(out, (char)(0x80 | (point >> 6 & 0x3f)));
    }
    buf_putc(out, (char)(0x80 | (point & 0x3f)));
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* "\x{65E5}" or "+2B" at the start of s, which goes on behind it; 0: neither. */
static uint32_t take_escape(struct str *s)
{
    bool braces = s->len > 3 && s->ptr[0] == '\\' && s->ptr[1] == 'x' && s->ptr[2] == '{';
    size_t skip = braces ? 3 : 1, digits_max = braces ? 6 : 2, n = 0;
    uint32_t point = 0;

    for (; n < digits_max && skip + n < s->len && hex_digit(s->ptr[skip + n]) >= 0; n++)
        point = point << 4 | (uint32_t)hex_digit(s->ptr[skip + n]);
    if (braces ? n == 0 || skip + n == s->len || s->ptr[skip + n] != '}'
               : n != 2 || s->ptr[0] != '+')
        return 0;
    s->ptr += skip + n + braces;
    s->len -= skip + n + braces;
    return point;
}

bool international_take_orcpt(struct buf *out, struct str address)
{
    size_t before = out->len;

    if (!smtp_utf8_valid(address))
        return false;
    while (address.len > 0) {
        bool escape = *address.ptr == '\\' || *address.ptr == '+';
        uint32_t point = escape ? take_escape(&address) : take_point(&address);

        if (point < ' ' || point == 0x7f || point > 0x10ffff)
            return false;
        put_point(out, point);
    }
    return smtp_utf8_valid((struct str){(const char *)out->data + before, out->len - before});
}
