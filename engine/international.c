#include "engine/international.h"

#include "dns/name.h"
#include "engine/convert.h"
#include "engine/header.h"

static bool is_ascii(struct str s)
{
    return !header_eight_bit((const uint8_t *)s.ptr, s.len);
}

bool international_content(const uint8_t *content, size_t len, const struct trace_facts *facts,
                           bool eight_bit)
{
    struct convert_facts parts;

    if (!eight_bit || facts->eight_bit)
        return eight_bit;
    return convert_examine(content, len, &parts) < 0 || parts.header_eight_bit;
}

bool international_put_address(struct buf *out, const struct smtp_address *address)
{
    size_t before = address->text.len - address->domain.len; /* the local part and '@' */
    struct dns_name domain;

    if (!address->utf8 || !is_ascii(address->local_part) ||
        dns_name_parse(&domain, address->domain) < 0 || before + domain.len > SMTP_PATH_MAX - 2) {
        buf_put_str(out, address->text);
        return !address->utf8;
    }
    buf_put(out, address->text.ptr, before);
    buf_put(out, domain.text, domain.len);
    return true;
}

void international_put_xtext(struct buf *out, struct str xtext)
{
    size_t hex = 0; /* digits that are still to come */

    for (size_t i = 0; i < xtext.len;) {
        uint8_t lead = (uint8_t)xtext.ptr[i++];
        uint32_t point = lead & (lead >= 0xf0 ? 0x07 : lead >= 0xe0 ? 0x0f : 0x1f);

        if (lead < 0x80) {
            buf_putc(out, (char)(hex > 0 && lead >= 'a' && lead <= 'f' ? lead - 'a' + 'A' : lead));
            hex = lead == '+' ? 2 : hex > 0 ? hex - 1 : 0;
            continue;
        }
        for (; i < xtext.len && ((uint8_t)xtext.ptr[i] & 0xc0) == 0x80; i++)
            point = point << 6 | ((uint8_t)xtext.ptr[i] & 0x3f);
        buf_printf(out, "\\x{%X}", point);
    }
}
